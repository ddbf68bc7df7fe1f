//! Every kind of kernel that can be started here.
//!
//! Promises: what is installed or removed counts from the next question on; what is not there is explained with what is.
//! Never: starts anything.

use std::path::{Path, PathBuf};

use runtimed_kernelspecs::{Specs, Surroundings};
use runtimed_plugin_api::{ErrorCode, KernelKind, PluginError, Result};

use crate::environment::SECRETS;
use crate::kind::{DENO, Kind, PYTHON};

/// Name of the kernelspec that stands for Python, wherever it comes from. Here environments bring Python.
const PYTHON_SPEC: &str = "python3";

/// What is installed at the moment.
pub(crate) struct Installed {
    specs: Specs,
    surroundings: Surroundings,
    /// Every Deno: on `PATH`, then where its installer puts it.
    denos: Vec<PathBuf>,
}

impl Installed {
    /// Looks; reads files.
    pub(crate) fn look(surroundings: Surroundings) -> Self {
        let specs = Specs::find(&surroundings);
        for broken in &specs.broken {
            let (file, reason) = (broken.file.display(), &broken.reason);
            tracing::debug!(%file, reason, "a kernelspec cannot be used");
        }
        let path = surroundings.variable("PATH");
        let folders = path.into_iter().flat_map(std::env::split_paths).filter(|folder| folder.is_absolute());
        let of_installer = surroundings.variable("DENO_INSTALL").map(PathBuf::from);
        let of_installer = of_installer.or_else(|| Some(surroundings.home.as_ref()?.join(".deno")));
        let folders = folders.chain(of_installer.map(|folder| folder.join("bin")));
        let denos =
            folders.map(|folder| folder.join("deno")).filter(|program| is_executable(program)).collect();
        Self { specs, surroundings, denos }
    }

    /// The programs that may be Deno, the one to be preferred first.
    pub(crate) fn denos(&self) -> &[PathBuf] {
        &self.denos
    }

    /// Whether `name` is Deno that nobody installed as a kernel.
    pub(crate) fn is_plain_deno(&self, name: &str) -> bool {
        name == DENO && self.specs.get(name).is_none()
    }

    /// All of them, Python first.
    pub(crate) fn kinds(&self) -> Vec<KernelKind> {
        let deno = self.denos.first().filter(|_| self.specs.get(DENO).is_none()).map(|path| Kind::deno(path));
        let specs = self.specs.specs.iter().filter(|spec| !is_python(&spec.name));
        let specs = specs.map(|spec| Kind::installed(spec, |_| None));
        [Kind::python()].into_iter().chain(deno).chain(specs).map(|kind| kind.described).collect()
    }

    /// The kind called `name`.
    ///
    /// # Errors
    /// `Unsupported`, with what is there instead.
    pub(crate) fn find(&self, name: &str) -> Result<Kind> {
        if is_python(name) {
            return Ok(Kind::python());
        }
        if let Some(spec) = self.specs.get(name) {
            return Ok(Kind::installed(spec, |name| self.variable(name)));
        }
        match self.denos.first() {
            Some(program) if name == DENO => Ok(Kind::deno(program)),
            _ => Err(self.missing(name)),
        }
    }

    /// A variable that kernels inherit.
    fn variable(&self, name: &str) -> Option<String> {
        let value = self.surroundings.variable(name).filter(|_| !SECRETS.contains(&name));
        value.map(|value| value.to_string_lossy().into_owned())
    }

    fn missing(&self, name: &str) -> PluginError {
        let why = match self.specs.broken(name) {
            Some(broken) => {
                format!(": `{}` cannot be used, because {}", broken.file.display(), broken.reason)
            }
            None => String::new(),
        };
        let kinds = self.kinds();
        let there: Vec<_> =
            kinds.iter().map(|kind| format!("{} ({})", kind.name, kind.display_name)).collect();
        let install = match name {
            DENO => "Install Deno 2 or newer so that `deno` is on PATH or in `~/.deno/bin`",
            _ if why.is_empty() => "Install that kernel for Jupyter",
            _ => "Mend that file",
        };
        let message = format!("There is no kernel `{name}` on this machine{why}");
        PluginError::new(ErrorCode::Unsupported, message).help(format!(
            "Nothing was started and the notebook is as it was. {install}, or run the notebook with one that is here: \
             {}.",
            there.join(", ")
        ))
    }
}

fn is_python(name: &str) -> bool {
    [PYTHON, PYTHON_SPEC].contains(&name)
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use runtimed_kernel_shim::protocol::{InterruptMode, Transport};
    use runtimed_plugin_api::LaunchCommand;

    use super::*;

    /// What is installed in `data`, with these variables.
    fn look(data: &Path, variables: &[(&str, &str)]) -> Installed {
        let path = [("JUPYTER_PATH".into(), data.into())];
        let variables = variables.iter().map(|(name, value)| (name.into(), value.into())).chain(path);
        Installed::look(Surroundings { system: Vec::new(), ..Surroundings::new(variables, None) })
    }

    fn install(data: &Path, name: &str, json: &str) {
        let folder = data.join("kernels").join(name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("kernel.json"), json).unwrap();
    }

    fn names(installed: &Installed) -> Vec<String> {
        installed.kinds().into_iter().map(|kind| kind.name).collect()
    }

    #[test]
    fn python_is_there_and_whatever_is_installed() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path();
        install(data, "python3", r#"{"argv": ["/usr/bin/python3"]}"#);
        install(
            data,
            "ir",
            r#"{"argv": ["R"], "display_name": "R 4", "language": "R", "env": {"A": "$B$RUNT_CLOUD_TOKEN"}}"#,
        );
        install(data, "ml", r#"{"argv": ["p", "-m", "ipykernel_launcher", "-f", "{connection_file}"]}"#);
        install(data, "odd", "?");
        let bin = data.join("bin");
        fs::create_dir(&bin).unwrap();
        fs::write(bin.join("deno"), "").unwrap();
        let variables = [("PATH", bin.to_str().unwrap()), ("B", "b"), ("RUNT_CLOUD_TOKEN", "secret")];
        assert_eq!(names(&look(data, &variables)), ["python", "ir", "ml"], "a file that cannot be executed");
        fs::set_permissions(bin.join("deno"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let installed = look(data, &variables);
        assert_eq!(names(&installed), ["python", "deno", "ir", "ml"]);

        let ir = installed.find("IR").unwrap();
        assert_eq!((ir.transport, ir.interrupt), (Transport::Tcp, InterruptMode::Signal));
        let command =
            ir.command(&LaunchCommand { argv: vec!["python".into()], ..Default::default() }).unwrap();
        assert_eq!(command.argv, ["R"], "it needs no environment");
        assert_eq!(command.env["A"], "b$RUNT_CLOUD_TOKEN", "the daemon's secrets are nobody's");
        let ml = installed.find("ml").unwrap();
        assert_eq!((ml.transport, ml.preparation.is_empty()), (Transport::Ipc, false));
        let deno = installed.find("deno").unwrap();
        assert_eq!((deno.transport, deno.interrupt), (Transport::Tcp, InterruptMode::Message));
        assert_eq!(installed.find("python3").unwrap(), Kind::python());
        assert!(Kind::python().command(&LaunchCommand::default()).is_err());

        let missing = installed.find("julia").unwrap_err();
        assert_eq!(missing.message, "There is no kernel `julia` on this machine");
        assert!(missing.help.unwrap().ends_with("python (Python 3), deno (Deno), ir (R 4), ml (ml)."));
        let broken = installed.find("odd").unwrap_err().message;
        assert!(broken.contains("odd/kernel.json` cannot be used, because expected value"), "{broken}");
    }

    #[test]
    fn deno_is_also_where_its_installer_puts_it() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("bin/deno");
        fs::create_dir(folder.path().join("bin")).unwrap();
        fs::write(&program, "").unwrap();
        fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let installed = look(folder.path(), &[("DENO_INSTALL", folder.path().to_str().unwrap())]);
        assert_eq!(installed.denos(), [program]);
        assert!(installed.is_plain_deno(DENO) && installed.find(DENO).unwrap().is_deno());
        let missing = look(folder.path(), &[]).find(DENO).unwrap_err();
        assert!(missing.help.unwrap().contains("Install Deno 2 or newer"));
        install(folder.path(), DENO, r#"{"argv": ["/x/deno", "jupyter", "--conn", "{connection_file}"]}"#);
        assert!(!look(folder.path(), &[]).is_plain_deno(DENO));
    }

    #[test]
    fn deno_is_never_interrupted_by_a_signal() {
        let folder = tempfile::tempdir().unwrap();
        let json =
            r#"{"argv": ["/x/deno", "jupyter", "--conn", "{connection_file}"], "interrupt_mode": "signal"}"#;
        install(folder.path(), "deno", json);
        let installed = look(folder.path(), &[]);
        assert_eq!(names(&installed), ["python", "deno"]);
        assert_eq!(installed.find("deno").unwrap().interrupt, InterruptMode::Message);
    }
}
