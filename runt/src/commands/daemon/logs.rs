//! `runt daemon logs`: the end of the log, and what is added to it.
//!
//! Promises: a log that starts anew is followed into the new file, and nothing of the old one is left out.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write, stdout};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use runtimed_client::Places;

use crate::interrupt::Interrupt;
use crate::tail;

/// Pause before looking for more.
const PAUSE: Duration = Duration::from_millis(100);

/// Prints the last `count` lines, and with `follow` everything that is added until Ctrl-C.
pub(crate) async fn logs(follow: bool, count: usize) -> anyhow::Result<ExitCode> {
    let log = Places::of_this_process().log();
    let Some(mut file) = open(&log)? else {
        anstream::eprintln!(
            "Log file not found: {}\nNo daemon has run yet; 'runt daemon start' starts one.",
            log.display()
        );
        return Ok(ExitCode::FAILURE);
    };
    let now = file.added(&log)?;
    let end = tail::last(&now, count);
    // Where it has just started anew, its predecessor has the rest.
    let earlier = match count.saturating_sub(tail::count(end)) {
        0 => Vec::new(),
        more => tail::of_file(&log.with_extension("log.1"), more).unwrap_or_default(),
    };
    let mut interrupt = Interrupt::listen()?;
    let mut printed = print(&earlier)? && print(end)?;
    while follow && printed {
        tokio::select! {
            biased;
            _ = interrupt.asked() => break,
            () = tokio::time::sleep(PAUSE) => {}
        }
        printed = print(&file.added(&log)?)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The log as it was opened.
struct Followed {
    file: File,
    /// Device and inode.
    identity: (u64, u64),
    /// Bytes read.
    read: u64,
}

fn open(log: &Path) -> io::Result<Option<Followed>> {
    match File::open(log) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
        Ok(file) => {
            let metadata = file.metadata()?;
            Ok(Some(Followed { file, identity: (metadata.dev(), metadata.ino()), read: 0 }))
        }
    }
}

impl Followed {
    /// What was written since the last time.
    fn added(&mut self, log: &Path) -> io::Result<Vec<u8>> {
        let mut added = Vec::new();
        loop {
            // Before the old file is read: once there is a new one, nobody writes to the old one.
            let current = std::fs::metadata(log).ok();
            if self.file.metadata()?.len() < self.read {
                io::Seek::rewind(&mut self.file)?;
                self.read = 0;
            }
            self.read += self.file.read_to_end(&mut added)? as u64;
            let moved = current.is_some_and(|current| (current.dev(), current.ino()) != self.identity);
            match open(log)? {
                Some(next) if moved => *self = next,
                _ => return Ok(added),
            }
        }
    }
}

/// False if nobody reads any more.
fn print(bytes: &[u8]) -> io::Result<bool> {
    let mut out = stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        written => written.map(|()| true),
    }
}
