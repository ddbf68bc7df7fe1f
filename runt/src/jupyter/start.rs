//! Starting a kernel that nobody keeps.
//!
//! Promises: the connection file is there before the kernel is; a kernel that does not come up leaves neither process nor
//! file, and its last words are told; dropping what was started ends it, unless it is to stay.

use std::fs::{self, File};
use std::io::{Read, Seek};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use process_wrap::std::{ChildWrapper, CommandWrap, ProcessSession};
use runtimed_kernelspecs::{CONNECTION_FILE, KernelSpec, Specs, Surroundings};
use rustix::process::{Pid, Signal};

use super::connection::Connection;
use super::find::OURS;
use super::names::pet_name;
use super::probe::heartbeat;

/// How long a kernel may take until its heart beats, as jupyter_client has it: a first start compiles much.
pub(crate) const START_LIMIT: Duration = Duration::from_secs(60);
/// Pause before trying again.
const PAUSE: Duration = Duration::from_millis(20);
/// Names tried before there must be something else wrong.
const NAMES: usize = 100;

/// ipykernel compares its parent's process id with this once a second and exits when it differs.
const PARENT: &str = "JPY_PARENT_PID";

/// What to start.
pub(crate) enum What {
    /// An installed kernel.
    Spec(Box<KernelSpec>),
    /// A command, with `{connection_file}` where that goes.
    Command(String),
}

/// A kernel's process and its file. Dropping it ends both.
pub(crate) struct Started {
    pub(crate) id: String,
    pub(crate) path: PathBuf,
    pub(crate) connection: Connection,
    child: Box<dyn ChildWrapper>,
    stderr: File,
    stays: bool,
}

/// The installed kernel called `name`.
///
/// # Errors
/// When there is none; says which there are.
pub(crate) fn spec(name: &str) -> anyhow::Result<KernelSpec> {
    let specs = Specs::find(&Surroundings::current());
    if let Some(spec) = specs.get(name) {
        return Ok(spec.clone());
    }
    if let Some(broken) = specs.broken(name) {
        bail!("The kernel {name} cannot be used: {} ({})", broken.reason, broken.file.display());
    }
    let names: Vec<&str> = specs.specs.iter().map(|spec| spec.name.as_str()).collect();
    match names.is_empty() {
        true => bail!(
            "There is no kernel {name}; no Jupyter kernel is installed.\n\
             Install one, for instance with 'pip install ipykernel' and 'python -m ipykernel install --user'."
        ),
        false => bail!("There is no kernel {name}. Installed are: {}.", names.join(", ")),
    }
}

/// Starts a kernel in the current folder and waits until its heart beats. One that is not to stay ends with us however we
/// end, if it is ipykernel.
///
/// # Errors
/// When it does not come up, with why.
pub(crate) async fn start(what: &What, name: Option<&str>, stays: bool) -> anyhow::Result<Started> {
    let kernel_name = match what {
        What::Spec(spec) => Some(spec.name.as_str()),
        What::Command(_) => None,
    };
    let connection = Connection::new(kernel_name).context("there are no free ports")?;
    let (id, path) = write(&connection, name)?;
    let spawned = spawn(what, &path, stays);
    let (child, stderr) = match spawned {
        Ok(spawned) => spawned,
        Err(error) => {
            // It was ours alone.
            let _ = fs::remove_file(&path);
            return Err(error);
        }
    };
    let mut started = Started { id, path, connection, child, stderr, stays: false };
    started.until_alive().await?;
    Ok(started)
}

/// Writes a connection file under a name that is free.
fn write(connection: &Connection, name: Option<&str>) -> anyhow::Result<(String, PathBuf)> {
    let folder =
        Surroundings::current().runtime_dir().context("there is no home folder for connection files")?;
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
    made.with_context(|| format!("cannot make {}", folder.display()))?;
    if let Some(name) = name
        && (name.is_empty() || !name.chars().all(|letter| letter.is_alphanumeric() || "-_".contains(letter)))
    {
        bail!("{name} cannot be the name of a kernel: letters, digits, - and _ can");
    }
    for _ in 0..NAMES {
        let id = name.map_or_else(pet_name, str::to_owned);
        let path = folder.join(format!("{OURS}{id}.json"));
        match connection.write(&path) {
            Ok(()) => return Ok((id, path)),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && name.is_none() => {}
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => bail!(
                "There is a kernel {id} already. Stop it with 'runt jupyter stop {id}', or choose another name."
            ),
            Err(error) => return Err(error).with_context(|| format!("cannot write {}", path.display())),
        }
    }
    bail!("no name for a kernel is free; 'runt jupyter clean' removes what is left of old ones")
}

fn spawn(what: &What, path: &Path, stays: bool) -> anyhow::Result<(Box<dyn ChildWrapper>, File)> {
    let file = path.to_str().context("the connection file's path is not UTF-8")?;
    let argv = match what {
        What::Spec(spec) => spec.command(file),
        What::Command(command) => {
            command.split_whitespace().map(|part| part.replace(CONNECTION_FILE, file)).collect()
        }
    };
    let (program, arguments) = argv.split_first().context("there is no program to start")?;
    // It has no name, and goes with the kernel.
    let stderr = tempfile::tempfile().context("there is no folder for temporary files")?;
    let mut command = Command::new(program);
    command.args(arguments).current_dir(folder()?).stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(stderr.try_clone()?);
    match stays {
        // Not that of the kernel in which this may be a command.
        true => command.env_remove(PARENT),
        false => command.env(PARENT, std::process::id().to_string()),
    };
    if let What::Spec(spec) = what {
        command.envs(spec.variables(|name| std::env::var(name).ok()));
    }
    let mut command = CommandWrap::from(command);
    let child = command.wrap(ProcessSession).spawn();
    Ok((child.with_context(|| format!("cannot start {program}"))?, stderr))
}

/// Where a kernel runs: here, but not in `/`, where nobody keeps notebooks.
fn folder() -> anyhow::Result<PathBuf> {
    let here = std::env::current_dir().context("the current folder is gone")?;
    if here != Path::new("/") {
        return Ok(here);
    }
    let home = std::env::home_dir();
    let folders = [home.as_ref().map(|home| home.join("notebooks")), home];
    Ok(folders.into_iter().flatten().find(|folder| folder.is_dir()).unwrap_or_else(std::env::temp_dir))
}

impl Started {
    /// Process id of the kernel.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lets it go on without us.
    pub(crate) fn stay(mut self) {
        self.stays = true;
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok().flatten()?;
        let (mut text, mut words) = (String::new(), String::new());
        // Without them the status has to do.
        if self.stderr.rewind().is_ok() && self.stderr.read_to_string(&mut text).is_ok() {
            words = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default().trim().to_owned();
        }
        Some(if words.is_empty() { status.to_string() } else { format!("{status}; its last words: {words}") })
    }

    async fn until_alive(&mut self) -> anyhow::Result<()> {
        let beating = async {
            loop {
                if heartbeat(&self.connection).await.is_ok() {
                    return Ok(());
                }
                if let Some(ended) = self.ended() {
                    bail!("The kernel did not start: {ended}\nNothing is left of it.");
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        match tokio::time::timeout(START_LIMIT, beating).await {
            Ok(result) => result,
            Err(_) => bail!("The kernel said nothing for {} s and was ended.", START_LIMIT.as_secs()),
        }
    }

    /// Waits until the process has ended; false if it is there after `limit`.
    pub(crate) async fn gone(&mut self, limit: Duration) -> bool {
        let ended = async {
            while matches!(self.child.try_wait(), Ok(None)) {
                tokio::time::sleep(PAUSE).await;
            }
        };
        tokio::time::timeout(limit, ended).await.is_ok()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if self.stays {
            return;
        }
        if matches!(self.child.try_wait(), Ok(None))
            && let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
        {
            // Its own group; what fails has ended.
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
            let _ = self.child.wait();
        }
        let _ = fs::remove_file(&self.path);
    }
}
