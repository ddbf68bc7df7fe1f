//! The child's end: `main` of the process that loads one library.
//!
//! Promises: ends, with everything it started, when the daemon closes its end of the socket, however that came
//! about; the socket is read by this thread alone, which never runs the plugin's code.

use std::fs::File;
use std::future::pending;
use std::io;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::Arc;

use rustix::fd::OwnedFd;
use tokio::sync::oneshot;

use super::incoming::Delivery;
use super::link::{Link, LinkEnd};
use super::queue::Queue;
use super::root::Root;
use super::{say, tree};

/// The variable that says by how much the process gives way. It is set before the first thread starts, since each
/// thread has a priority of its own, which those that it starts inherit.
pub(super) const NICE: &str = "RUNTIMED_PLUGIN_CHILD_NICE";
/// Exit code of a process that was not started the way it has to be, as shells use it for wrong usage.
const USAGE: u8 = 2;

/// Serves one library over the socket that is standard input. To be called from `main`, as the only thing the
/// process does: it returns when the daemon asks the process to end, and ends it by itself when the daemon is gone.
pub fn serve() -> ExitCode {
    give_way();
    let end = match socket().and_then(run) {
        Ok(end) => end,
        Err(error) => {
            say(&format!("this is started by the daemon, with a socket as its standard input: {error}"));
            return ExitCode::from(USAGE);
        }
    };
    match end {
        LinkEnd::Asked => return ExitCode::SUCCESS,
        LinkEnd::Closed | LinkEnd::Greedy(_) => {}
        LinkEnd::Garbage(garbage) => say(&format!("the daemon sent {}", garbage.0)),
    }
    tree::end_own();
    ExitCode::FAILURE
}

/// Being less nice than asked for hurts nobody, so nothing here is an error.
fn give_way() {
    let nice = std::env::var(NICE).ok().and_then(|nice| nice.parse::<u8>().ok()).unwrap_or_default();
    let _ = rustix::process::nice(i32::from(nice.min(19)));
}

fn run(socket: UnixStream) -> io::Result<LinkEnd> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let end = runtime.block_on(async {
        socket.set_nonblocking(true)?;
        let (link, read) = Link::new(tokio::net::UnixStream::from_std(socket)?, false);
        let (known, host) = oneshot::channel();
        link.export_root(Arc::new(Root::new(known)));
        let delivery = Delivery::InTurn(Queue::start()?);
        let settings = async {
            if let Ok(host) = host.await {
                host.follow_settings().await;
            }
            // No library yet, and there will be none.
            pending().await
        };
        let end = tokio::select! {
            end = link.run(read, delivery) => end,
            end = settings => end,
        };
        // The plugin is left as it is, like in a daemon that exits: its destructors could hang.
        std::mem::forget(link);
        Ok(end)
    });
    // Whatever still loads or hangs ends with the process.
    runtime.shutdown_background();
    end
}

/// Takes the socket from standard input, where a plugin could read it and its processes would inherit it.
fn socket() -> io::Result<UnixStream> {
    let stdin = rustix::stdio::stdin();
    rustix::net::sockopt::socket_type(stdin)?;
    let socket: OwnedFd = rustix::io::fcntl_dupfd_cloexec(stdin, 3)?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    Ok(socket.into())
}
