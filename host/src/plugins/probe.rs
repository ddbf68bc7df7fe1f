//! Opens a library in a process that may die of it, before the daemon opens it.
//!
//! For: third parties' plugins that run in the daemon. What a library does while it is being opened happens with
//! the loader's lock held: a constructor that hangs would keep every other plugin from being loaded and the
//! daemon from ending, and one that crashes would take the daemon along.
//! Promises: a library that passes has been opened once on this machine, today, and the process went on.
//! Never: creates the plugin; that has deadlines of its own, and the sentinel.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use runtimed_plugin_api::adapter::child::ChildEnd;
use runtimed_plugin_api::adapter::{Library, crash};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::Command;
use tokio::time::timeout;

use super::checks::Checked;
use super::row::Problem;

/// Longest time to open a library: 12 ms from a cold disk, so this is generous.
const DEADLINE: Duration = Duration::from_secs(10);
/// Says that the library was opened; a constructor that ends the process by itself will hardly choose it.
const OPENED: u8 = 86;

/// Opens `library`, as the only thing the process does. Whether it is any good is found out by whoever asked.
pub fn open(library: &Path) -> ExitCode {
    // What ends the daemon ends this process, too, with the same handlers; nobody reads the note.
    let _ = File::options().write(true).open("/dev/null").and_then(crash::watch);
    let _ = Library::open(library);
    ExitCode::from(OPENED)
}

/// Lets `command`, the program that serves plugins in processes of their own, open the library of plugin `id`.
pub(super) async fn probe(command: &[OsString], id: &str, checked: &Checked) -> Result<(), Problem> {
    let [program, arguments @ ..] = command else { return Ok(()) };
    let process = Command::new(program)
        .args(arguments)
        .arg("--probe")
        .arg(&checked.path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .spawn();
    let mut process = match process {
        Ok(process) => process,
        Err(error) => {
            tracing::warn!(
                plugin = id,
                "its library could not be opened in a process of its own first: {error}"
            );
            return Ok(());
        }
    };
    let group = process.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
    let Ok(ended) = timeout(DEADLINE, process.wait()).await else {
        if let Some(group) = group {
            // Fails when nobody is left, which is what we want.
            let _ = kill_process_group(group, Signal::KILL);
        }
        return Err(refused(
            id,
            &format!("did not get that done within {} s: a constructor in it hangs", DEADLINE.as_secs()),
        ));
    };
    match ended {
        Ok(status) if status.code() == Some(OPENED.into()) => Ok(()),
        Ok(status) => {
            let end = ChildEnd { code: status.code(), signal: status.signal(), ..ChildEnd::default() };
            Err(refused(id, &end.describe()))
        }
        Err(error) => Err(refused(id, &format!("was lost: {error}"))),
    }
}

fn refused(id: &str, how: &str) -> Problem {
    Problem::refused(
        format!("a process that only opened the library of plugin `{id}` {how}; the daemon did not load it"),
        "report it to the plugin's author",
    )
}
