//! Kernelspecs: what `kernel.json` says, and every one that is installed.
//!
//! Promises: of two with the same name the first counts; what cannot be used is left out and named with the reason.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::paths::Surroundings;

/// Longest `kernel.json` that is read, in bytes. Real ones have some hundred.
const LARGEST: u64 = 1 << 20;
/// What starts a kernel as a plain process (jupyter_client's `LocalProvisioner`).
const LOCAL: &str = "local-provisioner";

/// An installed kernel.
#[derive(Debug, Clone, PartialEq)]
pub struct KernelSpec {
    /// Name, in lower case: that of its folder.
    pub name: String,
    /// The folder with `kernel.json`, logos and what else it needs.
    pub folder: PathBuf,
    /// Program and arguments, placeholders included; not empty. [`KernelSpec::command`] fills them in.
    pub argv: Vec<String>,
    /// Variables, placeholders included. [`KernelSpec::variables`] fills them in.
    pub env: BTreeMap<String, String>,
    /// Name for users.
    pub display_name: String,
    /// Programming language; empty if it does not say.
    pub language: String,
    /// How to stop what it is doing.
    pub interrupt_mode: InterruptMode,
    /// Anything else it says about itself.
    pub metadata: Map<String, Value>,
    /// The Python installation it belongs to, or the one on `PATH`.
    pub(crate) prefix: Option<PathBuf>,
}

/// How to stop what a kernel is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum InterruptMode {
    /// By SIGINT.
    #[default]
    Signal,
    /// By `interrupt_request` on the control channel.
    Message,
}

/// A kernelspec that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Its name.
    pub name: String,
    /// Its file.
    pub file: PathBuf,
    /// Why, in one clause.
    pub reason: String,
}

/// What is installed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Specs {
    /// Kernels that can be started, by name.
    pub specs: Vec<KernelSpec>,
    /// Those that cannot, by name. A whole one of the same name, from a folder that comes later, is among the others.
    pub broken: Vec<Broken>,
}

/// `kernel.json`.
#[derive(Deserialize)]
#[serde(default)]
struct File {
    argv: Vec<String>,
    env: BTreeMap<String, String>,
    display_name: String,
    language: String,
    #[serde(deserialize_with = "interrupt_mode")]
    interrupt_mode: InterruptMode,
    metadata: Map<String, Value>,
}

impl Default for File {
    fn default() -> Self {
        Self {
            argv: Vec::new(),
            env: BTreeMap::new(),
            display_name: String::new(),
            language: String::new(),
            interrupt_mode: InterruptMode::Signal,
            metadata: Map::new(),
        }
    }
}

fn interrupt_mode<'de, D: Deserializer<'de>>(from: D) -> Result<InterruptMode, D::Error> {
    let text = String::deserialize(from)?;
    match text.to_ascii_lowercase().as_str() {
        "signal" => Ok(InterruptMode::Signal),
        "message" => Ok(InterruptMode::Message),
        _ => Err(serde::de::Error::custom(format!("`{text}` is no interrupt_mode"))),
    }
}

impl Specs {
    /// Every kernelspec of [`Surroundings::data_dirs`].
    pub fn find(surroundings: &Surroundings) -> Self {
        let python = surroundings.python().map(|prefix| prefix.folder);
        let mut specs: BTreeMap<String, KernelSpec> = BTreeMap::new();
        let mut broken: BTreeMap<String, Broken> = BTreeMap::new();
        for data in surroundings.data_dirs() {
            let own = data.parent().and_then(Path::parent).filter(|it| it.join("bin/python").exists());
            let prefix = own.map(Path::to_owned).or_else(|| python.clone());
            for folder in folders(&data.join("kernels")) {
                let name = folder.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
                let file = folder.join("kernel.json");
                if specs.contains_key(&name) || !file.is_file() {
                    continue;
                }
                match read(&name, &folder, &file) {
                    Ok(spec) => drop(specs.insert(name, KernelSpec { prefix: prefix.clone(), ..spec })),
                    Err(reason) => drop(broken.entry(name.clone()).or_insert(Broken { name, file, reason })),
                }
            }
        }
        Self { specs: specs.into_values().collect(), broken: broken.into_values().collect() }
    }

    /// The kernel called `name`, in any case.
    pub fn get(&self, name: &str) -> Option<&KernelSpec> {
        let name = name.to_lowercase();
        self.specs.iter().find(|spec| spec.name == name)
    }

    /// What is wrong with the kernelspec called `name`, if that is why it is not there.
    pub fn broken(&self, name: &str) -> Option<&Broken> {
        let name = name.to_lowercase();
        self.broken.iter().find(|broken| broken.name == name)
    }
}

/// What is in `folder`, in the order of names.
fn folders(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    folders.sort();
    folders
}

fn read(name: &str, folder: &Path, file: &Path) -> Result<KernelSpec, String> {
    let length = file.metadata().map_err(|error| error.to_string())?.len();
    if length > LARGEST {
        return Err(format!("it has {length} bytes, which is no kernelspec"));
    }
    let text = fs::read(file).map_err(|error| error.to_string())?;
    let File { argv, env, display_name, language, interrupt_mode, metadata } =
        serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    if argv.first().is_none_or(String::is_empty) {
        return Err("`argv` names no program".to_owned());
    }
    let provisioner = metadata.get("kernel_provisioner").and_then(|it| it.get("provisioner_name"));
    if let Some(other) = provisioner.and_then(Value::as_str).filter(|name| *name != LOCAL) {
        return Err(format!("it needs the kernel provisioner `{other}`"));
    }
    let display_name = if display_name.is_empty() { name.to_owned() } else { display_name };
    Ok(KernelSpec {
        name: name.to_owned(),
        folder: folder.to_owned(),
        argv,
        env,
        display_name,
        language,
        interrupt_mode,
        metadata,
        prefix: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn install(data: &Path, name: &str, json: &str) {
        let folder = data.join("kernels").join(name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("kernel.json"), json).unwrap();
    }

    fn find(folders: &[&Path]) -> Specs {
        let path = std::env::join_paths(folders).unwrap();
        let here = Surroundings::new([("JUPYTER_PATH".into(), path)], None);
        Specs::find(&Surroundings { system: Vec::new(), ..here })
    }

    #[test]
    fn the_first_of_a_name_counts_and_a_broken_one_hides_none() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (first, second) = (first.path(), second.path());
        install(first, "IR", r#"{"argv": ["R", "{connection_file}"], "display_name": "R", "language": "R"}"#);
        install(second, "ir", r#"{"argv": ["other"], "display_name": "Other"}"#);
        install(first, "torn", r#"{"argv": ["#);
        install(second, "torn", r#"{"argv": ["torn"], "interrupt_mode": "Message", "unknown": 1}"#);
        install(first, "empty", r#"{"display_name": "Empty"}"#);
        install(
            first,
            "far",
            r#"{"argv": ["x"], "metadata": {"kernel_provisioner": {"provisioner_name": "k8s"}}}"#,
        );
        fs::create_dir_all(first.join("kernels/nothing")).unwrap();
        let found = find(&[first, second]);
        let names: Vec<_> = found.specs.iter().map(|spec| spec.name.as_str()).collect();
        assert_eq!(names, ["ir", "torn"]);
        assert_eq!(found.get("Ir").map(|spec| spec.folder.clone()), Some(first.join("kernels/IR")));
        let torn = found.get("torn").unwrap();
        assert_eq!((torn.display_name.as_str(), torn.interrupt_mode), ("torn", InterruptMode::Message));
        let reasons: Vec<_> = found.broken.iter().map(|it| (it.name.as_str(), it.reason.as_str())).collect();
        assert_eq!(reasons[0], ("empty", "`argv` names no program"));
        assert_eq!(reasons[1], ("far", "it needs the kernel provisioner `k8s`"));
        assert!(reasons[2].1.contains("EOF"), "{reasons:?}");
        assert_eq!(found.broken("empty").unwrap().file, first.join("kernels/empty/kernel.json"));
    }

    #[test]
    fn a_command_is_filled_in_and_python_is_its_own() {
        let prefix = tempfile::tempdir().unwrap();
        let data = prefix.path().join("share/jupyter");
        install(
            &data,
            "k",
            r#"{"argv": ["python", "-f={connection_file}", "{resource_dir}/x", "{prefix}", "{else}"],
                "env": {"A": "${B}/$C", "D": "$$"}}"#,
        );
        let spec = |found: Specs| found.get("k").unwrap().clone();
        let before = spec(find(&[&data])).command("/c");
        let folder = data.join("kernels/k");
        assert_eq!(before[..3], ["python", "-f=/c", folder.join("x").to_str().unwrap()]);
        assert_eq!(before[3..], ["{prefix}", "{else}"]);
        fs::create_dir_all(prefix.path().join("bin")).unwrap();
        fs::write(prefix.path().join("bin/python"), "").unwrap();
        let spec = spec(find(&[&data]));
        let after = spec.command(crate::CONNECTION_FILE);
        assert_eq!(after[0], prefix.path().join("bin/python").to_str().unwrap());
        assert_eq!(
            (after[1].as_str(), after[3].as_str()),
            ("-f={connection_file}", prefix.path().to_str().unwrap())
        );
        let variables = spec.variables(|name| (name == "B").then(|| "b".to_owned()));
        assert_eq!(variables["A"], "b/$C");
        assert_eq!(variables["D"], "$");
    }
}
