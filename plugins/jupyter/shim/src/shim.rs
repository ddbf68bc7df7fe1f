//! The loop: everything that can happen to a kernel's keeper, one thing after the other.
//!
//! Promises: waits for nothing but `poll`; the kernel's broadcasts come first in every turn.

use std::io::{self, PipeReader, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::Signal;
use serde_json::Value;
use uuid::Uuid;

use crate::adoption::Adoption;
use crate::channel::{Channel, Name};
use crate::client::Client;
use crate::early_idle::EarlyIdle;
use crate::ending::Ending;
use crate::journal::{Journal, Limits};
use crate::nudge::Nudges;
use crate::process::KernelProcess;
use crate::protocol::{Exit, Failed, Launch};
use crate::recent::Recent;
use crate::run::note;
use crate::signer::Signer;
use crate::socket::Address;
use crate::spill::Spill;
use crate::start::Start;

/// Bytes read of a socket at a time; a Unix socket hands out at most 208 KiB (net.core.rmem_default).
const READ_BYTES: usize = 64 << 10;
/// Reads of one socket in a turn, which bounds the time until others get theirs.
pub(crate) const READS: usize = 16;
/// Time between attempts to connect to a socket the kernel has not opened yet. An attempt costs
/// microseconds; a kernel needs some 100 attempts to come up.
pub(crate) const RETRY: Duration = Duration::from_millis(5);
/// How long sockets may go on after the process has ended. Only a process that left the kernel's group and
/// inherited them can make them take longer than the bytes left in the socket.
const DRAIN: Duration = Duration::from_secs(1);
/// How long stderr may stay open after the process has ended, before its last lines count as complete:
/// processes that left the group can hold it open for ever.
const STDERR_DRAIN: Duration = Duration::from_millis(100);
/// How often a shim that nobody is attached to looks whether it can still be found.
const LOOK: Duration = Duration::from_secs(10);
/// Grace of a kernel that nobody is there for, or that the system asks to end.
pub(crate) const GRACE: Duration = Duration::from_secs(5);
/// What a shim starts with.
pub(crate) struct Parts {
    /// Where daemons find us.
    pub(crate) socket: PathBuf,
    pub(crate) launch: Launch,
    /// Where the kernel will listen.
    pub(crate) address: Address,
    pub(crate) signer: Signer,
    pub(crate) process: KernelProcess,
    pub(crate) listener: UnixListener,
    pub(crate) launcher: Client,
    /// Gets a byte for each signal that asks to end.
    pub(crate) signals: PipeReader,
}

/// The keeper of one kernel.
pub(crate) struct Shim {
    pub(crate) launch: Launch,
    /// Session id of our own requests.
    pub(crate) session: String,
    pub(crate) signer: Signer,
    pub(crate) process: KernelProcess,
    pub(crate) address: Address,
    pub(crate) channels: [Channel; 4],
    pub(crate) stage: Stage,
    /// Content of the `kernel_info_reply`.
    pub(crate) reply: Value,
    pub(crate) journal: Journal,
    pub(crate) spill: Spill,
    /// Gets a byte for each answer of `spill`.
    wake: PipeReader,
    /// Ids of requests that were sent, to drop repeats.
    pub(crate) sent: Recent,
    pub(crate) ending: Ending,
    pub(crate) nudges: Nudges,
    /// Ends of cells that wait for their outputs.
    pub(crate) early_idle: EarlyIdle,
    pub(crate) listener: UnixListener,
    socket: PathBuf,
    signals: PipeReader,
    pub(crate) clients: Vec<Client>,
    pub(crate) next_client: u64,
    /// Whether the daemon that launched the kernel wants it.
    pub(crate) accepted: bool,
    /// Somebody else is about to get the kernel.
    pub(crate) adoption: Option<Adoption>,
    /// Since when nobody is attached.
    pub(crate) alone_since: Option<Instant>,
    /// When to look whether we can still be found.
    look: Instant,
    /// Whether to go as soon as the kernel has, with nobody to collect its report.
    pub(crate) leaving: bool,
    /// Messages that were not the kernel's.
    pub(crate) ignored: u64,
    pub(crate) piece: Box<[u8]>,
}

/// How far the kernel is.
#[derive(Debug)]
pub(crate) enum Stage {
    /// Its sockets are awaited.
    Connecting { limit: Instant, retry: Instant },
    /// It is asked whether it is there.
    Starting { limit: Instant, start: Start },
    /// It is up.
    Running,
    /// Its process has ended; what it said last is still to be read.
    Draining { sockets: Instant, stderr: Instant, started: bool },
    /// Nothing more will come.
    Ended(Exit),
}

/// Why the loop ends.
#[derive(Debug)]
pub(crate) enum Leave {
    /// Nobody needs to be told.
    Quietly,
    /// The daemon that waits for the launch has to be told.
    Failed(Box<Failed>),
}

/// What `poll` woke for.
#[derive(Debug, Clone, Copy)]
enum Source {
    Channel(usize),
    Client(usize),
    Stderr,
    Life,
    Listener,
    Wake,
    Signals,
}

impl Shim {
    /// A shim for a kernel whose process was just started.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn new(parts: Parts, now: Instant) -> io::Result<Self> {
        let Parts { socket, launch, address, signer, process, listener, launcher, signals } = parts;
        listener.set_nonblocking(true)?;
        let (wake, waker) = io::pipe()?;
        let spill = Spill::new(launch.spill.clone(), waker)?;
        let limits = Limits { memory: launch.memory_bytes, disk: launch.disk_bytes };
        let limit = now + Duration::from_millis(launch.start_limit_ms);
        Ok(Self {
            launch,
            session: Uuid::new_v4().to_string(),
            signer,
            process,
            address,
            channels: Name::ALL.map(Channel::new),
            stage: Stage::Connecting { limit, retry: now },
            reply: Value::Null,
            journal: Journal::new(limits),
            spill,
            wake,
            sent: Recent::default(),
            ending: Ending::default(),
            nudges: Nudges::default(),
            early_idle: EarlyIdle::default(),
            listener,
            socket,
            signals,
            next_client: launcher.id + 1,
            clients: vec![launcher],
            accepted: false,
            adoption: None,
            alone_since: None,
            look: now,
            leaving: false,
            ignored: 0,
            piece: vec![0; READ_BYTES].into(),
        })
    }

    /// The kernel's folder.
    pub(crate) fn folder(&self) -> &Path {
        self.socket.parent().unwrap_or(&self.socket)
    }

    /// Goes on until there is nothing more to do. [`Shim::end`] follows.
    ///
    /// # Errors
    /// The system's, which leave no way to go on.
    pub(crate) fn run(&mut self) -> io::Result<Leave> {
        loop {
            if let Some(leave) = self.turn()? {
                return Ok(leave);
            }
        }
    }

    /// Ends what is left of the kernel; returns who may want to be told.
    pub(crate) fn end(self) -> Vec<Client> {
        self.clients
    }

    fn turn(&mut self) -> io::Result<Option<Leave>> {
        let ready = self.wait()?;
        let now = Instant::now();
        for source in ready {
            let leave = match source {
                Source::Channel(at) => self.read_channel(at, now),
                Source::Client(at) => self.read_client(at, now),
                Source::Stderr => {
                    self.process.read_stderr();
                    None
                }
                Source::Life => {
                    self.process.bury();
                    self.give_up_adoption();
                    let started = matches!(self.stage, Stage::Running);
                    self.stage =
                        Stage::Draining { sockets: now + DRAIN, stderr: now + STDERR_DRAIN, started };
                    None
                }
                Source::Listener => {
                    self.accept();
                    None
                }
                Source::Wake => {
                    // A byte less read is a turn more.
                    let _ = self.wake.read(&mut [0; 64]);
                    self.disk_answered();
                    None
                }
                Source::Signals => {
                    let _ = self.signals.read(&mut [0; 64]);
                    self.leaving = true;
                    self.shut_down(GRACE, now);
                    None
                }
            };
            if leave.is_some() {
                return Ok(leave);
            }
        }
        if let Some(leave) = self.times(now) {
            return Ok(Some(leave));
        }
        self.relieve_memory();
        self.deliver();
        Ok(self.bury_clients(now))
    }

    /// Waits until something happens or is due.
    fn wait(&self) -> io::Result<Vec<Source>> {
        let mut watched: Vec<(Source, BorrowedFd<'_>, bool)> = Vec::with_capacity(16);
        for (at, channel) in self.channels.iter().enumerate() {
            watched.extend(channel.socket().map(|(socket, write)| (Source::Channel(at), socket, write)));
        }
        for (at, client) in self.clients.iter().enumerate() {
            let (socket, write) = client.socket();
            watched.push((Source::Client(at), socket, write));
        }
        watched.extend(self.process.stderr().map(|pipe| (Source::Stderr, pipe, false)));
        watched.extend(self.process.life().map(|pipe| (Source::Life, pipe, false)));
        watched.push((Source::Wake, self.wake.as_fd(), false));
        watched.push((Source::Signals, self.signals.as_fd(), false));
        // Last, as it changes who has which place among the clients.
        watched.push((Source::Listener, self.listener.as_fd(), false));
        let flags = |write| if write { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
        let mut polled: Vec<_> =
            watched.iter().map(|(_, fd, write)| PollFd::from_borrowed_fd(*fd, flags(*write))).collect();
        let timeout = self.deadline().map(|at| timespec(at.saturating_duration_since(Instant::now())));
        match poll(&mut polled, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready = polled.iter().zip(&watched).filter(|(poll, _)| !poll.revents().is_empty());
        Ok(ready.map(|(_, (source, ..))| *source).collect())
    }

    /// When to look again, whatever happens.
    fn deadline(&self) -> Option<Instant> {
        let stage = match &self.stage {
            Stage::Connecting { limit, retry } => Some(*limit.min(retry)),
            Stage::Starting { limit, start } => {
                Some(start.deadline().map_or(*limit, |again| again.min(*limit)))
            }
            Stage::Draining { sockets, stderr, .. } => {
                let now = Instant::now();
                [*sockets, *stderr].into_iter().filter(|at| *at > now).min().or(Some(now))
            }
            Stage::Running | Stage::Ended(_) => None,
        };
        let keep = Duration::from_secs(self.launch.keep_alive_secs);
        // More seconds than the clock has is for ever.
        let alone = self.alone_since.filter(|_| !self.leaving);
        let alone = alone.map(|since| since.checked_add(keep).map_or(self.look, |end| end.min(self.look)));
        let others = [self.ending.deadline(), self.nudges.deadline(), self.early_idle.deadline()];
        [stage, alone].into_iter().chain(others).flatten().min()
    }

    /// Does what is due.
    fn times(&mut self, now: Instant) -> Option<Leave> {
        if let Some(since) = self.alone_since.filter(|_| !self.leaving) {
            let keep = Duration::from_secs(self.launch.keep_alive_secs);
            let is_late = now.saturating_duration_since(since) >= keep;
            let is_lost = now >= self.look && !self.socket.exists();
            if is_late || is_lost {
                note(format_args!(
                    "no daemon {} this kernel any more",
                    if is_late { "wants" } else { "can find" }
                ));
                self.leaving = true;
                self.shut_down(GRACE, now);
            }
            if now >= self.look {
                self.look = now + LOOK;
            }
        }
        if let Some(step) = self.ending.due(now) {
            self.take(step);
        }
        if self.nudges.is_due(now) {
            self.process.signal(Signal::WINCH);
        }
        self.release(now, false);
        self.kernel_times(now)
    }
}

/// Rounded up to the millisecond, so that what was waited for is due.
fn timespec(duration: Duration) -> Timespec {
    let millis = i64::try_from(duration.as_micros().div_ceil(1000)).unwrap_or(i64::MAX);
    Timespec { tv_sec: millis / 1000, tv_nsec: millis % 1000 * 1_000_000 }
}
