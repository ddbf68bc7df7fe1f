//! The shell of a room: one task that feeds the core events and carries out its effects.
//!
//! For: everything that takes time or touches the world.
//! Promises: events are handled one at a time, in the order they came; slow work runs beside the task and
//! comes back as an event; when the task ends, by a panic too, its connections are closed and its work stops.
//! Never: decides anything.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use runtimed_plugin_api::{
    Digest, Host, Kernel, Lease, PeerLink, PluginError, Progress, Release, RoomInfo, RoomSummary, Sequence,
};
use serde_json::Value as Json;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use uuid::Uuid;

use super::copies::Copied;
use super::core::{Opening, RoomCore};
use super::event::{Effect, Event};
use super::moment::Moment;
use super::peers::Identity;
use super::projection::Projection;
use crate::collect::Named;
use crate::directory::Directory;
use crate::disk::{self, Author, Refused};
use crate::ids::{JobId, LaunchId, PeerId};
use crate::journal::JournalFile;
use crate::journal::file::Compacted;
use crate::records::RecordStore;
use crate::staging::Staged;
use crate::watch::{Stamp, Watched};

mod approvals;
mod beginning;
mod following;
mod journal;
mod kernels;
mod slow;
mod unstored;

use self::approvals::Approvals;
use self::beginning::{Begun, begin, keep_alive, refuse};
use self::following::Following;
use self::kernels::FromKernel;
use self::unstored::Unstored;

/// Bytes a client may send ahead of what the room has handled. Source: a whole PUT_BLOB frame of 32 MiB
/// is let through at once by the last positive byte; this bounds the rest.
pub(crate) const INBOUND_CREDIT: i64 = 4 * 1024 * 1024;
/// What a kernel gets to end by itself. Source: the reference daemon waits as long before it uses force.
pub(crate) const GRACE: Duration = Duration::from_secs(2);

/// What was appended to the journal survives the daemon at once, and a power cut this much later at the
/// latest. Long enough for what one person types to be one flush, short enough for nobody to have gone on.
const FLUSH: Duration = Duration::from_millis(250);

/// What a room that ends waits for the last of its work: an environment that is given back, a record
/// that is written. Much longer than either takes, shorter than what the host grants all rooms (30 s).
const FINISH: Duration = Duration::from_secs(5);

/// What comes into a room.
pub(crate) enum Message {
    /// A connection wants in.
    Join(Box<Newcomer>),
    /// A connection sent a frame.
    Frame { peer: PeerId, frame_type: u8, payload: Bytes },
    /// A connection takes more again.
    Writable { peer: PeerId },
    /// A connection is gone.
    Leave { peer: PeerId, done: oneshot::Sender<()> },
    /// The build of an environment came a step further.
    Progress { launch: LaunchId, progress: Progress },
    /// What the room looks like in a list, and the environment it uses.
    Summary(oneshot::Sender<(RoomSummary, Option<PathBuf>)>),
    /// Something happened to the notebook's file.
    FileTouched,
    /// Something happened to a file of the project around the notebook.
    ProjectTouched,
    /// A save is about to replace a file, when `go` is dropped.
    Writing { job: JobId, digest: [u8; 32], go: oneshot::Sender<()> },
    /// What is in the notebook.
    Inspect(oneshot::Sender<Json>),
    /// A view of the notebook, once it is loaded.
    Project(oneshot::Sender<Projection>),
    /// What goes into a copy of the notebook.
    Copy(oneshot::Sender<Result<Copied, PluginError>>),
    /// Every blob that the documents name.
    Blobs(oneshot::Sender<BTreeSet<Digest>>),
    /// End the kernel, write the file, and be forgotten; with `unless_joined`, stay if somebody is here.
    Close { unless_joined: bool, done: oneshot::Sender<()> },
    /// Write the file, and be forgotten; the kernel stays for the next daemon.
    Detach { done: oneshot::Sender<()> },
}

/// A connection that wants in.
pub(crate) struct Newcomer {
    pub(crate) peer: PeerId,
    pub(crate) identity: Identity,
    pub(crate) link: Arc<dyn PeerLink>,
    /// What it may still send; shared with its session.
    pub(crate) credit: Arc<AtomicI64>,
    pub(crate) reply: oneshot::Sender<Result<RoomInfo, PluginError>>,
}

/// The way into a room. Cheap to clone.
pub(crate) type Inbox = mpsc::UnboundedSender<Message>;

/// A room and everything it acts through.
pub(crate) struct RoomTask {
    /// Decides what happens next. Pure; nothing below takes decisions.
    core: RoomCore,
    started: Instant,
    /// Events that follow from carrying out effects; handled before anything else.
    next: VecDeque<Event>,
    /// The only way in for clients. What one connection puts here is bounded by its credit.
    inbox: mpsc::UnboundedReceiver<Message>,
    /// Handed to what reports progress. A room ends by being told to, never by losing its senders.
    own_inbox: Inbox,
    /// The way in for kernels. What is in it is bounded by their backends.
    kernel_inbox: mpsc::UnboundedReceiver<FromKernel>,
    kernel_sender: mpsc::UnboundedSender<FromKernel>,
    /// Who hears about changes. Dropping an entry closes the connection.
    outboxes: BTreeMap<PeerId, Outbox>,
    /// Kernels that are ours. Dropping one detaches from it.
    kernels: BTreeMap<LaunchId, Arc<dyn Kernel>>,
    /// The parts of uploads that are under way.
    uploads: BTreeMap<Uuid, Staged>,
    /// The environment or kernel that is on its way.
    launching: Option<(LaunchId, AbortHandle)>,
    /// A warm kernel in the environment that has just come.
    warm: Option<Box<dyn Kernel>>,
    /// Slow work. Dropping the set stops it.
    jobs: JoinSet<Done>,
    /// Environments wait for them.
    approvals: Approvals,
    /// The notebook's file, and how it is followed.
    file: Option<(PathBuf, Following)>,
    /// The files of the project around the notebook that are to be watched, and the watches so far.
    project: (Vec<PathBuf>, Vec<Watched>),
    /// Who waits for a view of the notebook.
    viewers: Vec<oneshot::Sender<Projection>>,
    /// Who waits for the room to come to rest.
    closing: Vec<oneshot::Sender<()>>,
    /// Whether the room ends when it has come to rest, even if somebody is here.
    dissolve_at_rest: bool,
    dissolved: bool,
    /// Where everything is kept; none until there is something to keep.
    journal: Option<JournalFile>,
    /// The notebook's file, which the journal is named after.
    path: Option<PathBuf>,
    /// When what was appended must be flushed at the latest.
    flush_at: Option<Instant>,
    /// What a kernel may forget once what was appended is flushed.
    unflushed: Option<(LaunchId, Sequence)>,
    unstored: Unstored,
    /// The blobs that its documents name.
    named: Named,
    author: Author,
    records: RecordStore,
    host: Host,
    directory: Arc<Directory>,
}

/// One connection's way out.
struct Outbox {
    link: Arc<dyn PeerLink>,
    credit: Arc<AtomicI64>,
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.link.close();
    }
}

/// How a piece of slow work ended.
enum Done {
    Event(Event),
    /// And what a kernel may forget then.
    Flushed(io::Result<()>, Option<(LaunchId, Sequence)>),
    /// The file was read; of what it holds, this was not stored.
    Read(Event, Option<Refused>),
    /// The end of storing what this job made, or of trying again what was refused.
    Stored(Option<JobId>, Option<Refused>),
    Compacted(Option<Compacted>),
    Replaced(io::Result<()>),
    Environment(LaunchId, Result<Acquired, PluginError>),
    Kernel(LaunchId, Result<Box<dyn Kernel>, PluginError>),
    /// The file is watched from now on.
    Watching(PathBuf, Watched),
    /// Those of these files are watched that can be.
    WatchingProject(Vec<PathBuf>, Vec<Watched>),
    /// The file is another than last time.
    Touched(PathBuf, Option<Stamp>),
    Upload(JobId, Uuid, Result<(Staged, String), PluginError>),
    Nothing,
}

/// An environment, and the warm kernel that runs in it.
pub(crate) type Acquired = (Box<Lease>, Option<Box<dyn Kernel>>);

/// What a room task needs to begin.
pub(crate) struct Start {
    pub(crate) opening: Opening,
    /// What another life of the room left behind.
    pub(crate) journal: Option<PathBuf>,
    pub(crate) inbox: mpsc::UnboundedReceiver<Message>,
    pub(crate) own_inbox: Inbox,
    pub(crate) author: Author,
    pub(crate) host: Host,
    pub(crate) directory: Arc<Directory>,
}

impl RoomTask {
    /// Lives the life of a room.
    pub(crate) async fn run(mut start: Start) {
        let path = start.opening.path.clone();
        let (kernel_sender, kernel_inbox) = mpsc::unbounded_channel();
        let journals = &start.directory.journals;
        let Begun { core, effects, journal, kernels, refused } =
            match begin(journals, start.opening, start.journal, &start.host, &kernel_sender).await {
                Ok(begun) => begun,
                Err(error) => {
                    tracing::warn!(room = %start.author.room, %error, "a room was not opened");
                    let _lease = start.directory.forget(start.author.room, &start.own_inbox);
                    return refuse(&mut start.inbox, &error).await;
                }
            };
        let mut room = Self {
            core,
            started: Instant::now(),
            next: VecDeque::new(),
            inbox: start.inbox,
            own_inbox: start.own_inbox,
            kernel_inbox,
            kernel_sender,
            outboxes: BTreeMap::new(),
            kernels,
            uploads: BTreeMap::new(),
            launching: None,
            warm: None,
            jobs: JoinSet::new(),
            approvals: Approvals::default(),
            file: None,
            project: Default::default(),
            viewers: Vec::new(),
            closing: Vec::new(),
            dissolve_at_rest: false,
            dissolved: false,
            journal,
            path,
            flush_at: None,
            unflushed: None,
            unstored: Unstored::default(),
            named: Named::default(),
            author: start.author,
            records: RecordStore::of(&start.host),
            host: start.host,
            directory: start.directory,
        };
        room.mend_name();
        room.keep_unstored(refused);
        room.perform(effects);
        room.follow_file();
        if AssertUnwindSafe(room.live()).catch_unwind().await.is_err() {
            tracing::error!(room = %room.author.room, "a room ends because it panicked");
        }
        if let Some(journal) = &mut room.journal {
            // Whoever opens the room next may read it as soon as this one is forgotten.
            journal.give_up_shortening();
        }
        // For what is written to the file until the very end.
        let _lease = room.directory.forget(room.author.room, &room.own_inbox);
        room.finish().await;
    }

    /// Lets go of the clients, ends what a room that broke has left, and waits for what is still being
    /// written or given back.
    async fn finish(&mut self) {
        self.outboxes.clear();
        self.file = None;
        self.project = Default::default();
        // A backend may wait for what it said to be taken before it says how the kernel ended.
        self.kernel_inbox.close();
        while self.kernel_inbox.try_recv().is_ok() {}
        // Nobody waits for an answer that does not come.
        self.inbox.close();
        while self.inbox.try_recv().is_ok() {}
        if let Some((_, job)) = self.launching.take() {
            job.abort();
        }
        if self.core.detached() {
            self.kernels.clear();
        } else {
            let kernels: Vec<LaunchId> = self.kernels.keys().copied().collect();
            let environment = self.core.take_environment();
            let stops = kernels.into_iter().map(|launch| Effect::Stop { launch });
            self.perform(stops.chain(environment).collect());
        }
        drop(self.flush());
        if tokio::time::timeout(FINISH, self.finish_jobs()).await.is_err() {
            tracing::warn!(room = %self.author.room, "a room ends before all of its work has");
        }
        self.answer_closers();
    }

    /// Lets work end, and gives back what it still brings.
    async fn finish_jobs(&mut self) {
        while let Some(done) = self.jobs.join_next().await {
            match done {
                Ok(Done::Kernel(launch, Ok(kernel))) => {
                    self.kernels.insert(launch, kernel.into());
                    self.start(Effect::Stop { launch });
                }
                Ok(Done::Environment(_, Ok((lease, _)))) => {
                    self.start(Effect::Release { lease: lease.id, how: Release::Keep });
                }
                Ok(Done::Flushed(Err(error), _)) => {
                    tracing::error!(%error, room = %self.author.room, "a journal was not flushed");
                }
                _ => {}
            }
        }
    }

    fn answer_closers(&mut self) {
        for done in self.closing.drain(..) {
            // Nobody listening is as good as being told.
            let _ = done.send(());
        }
    }

    async fn live(&mut self) {
        while !self.dissolved {
            let deadline = self.core.deadline().map(|at| self.started + at.0);
            let tick = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let flush_at = self.flush_at;
            let flush = async {
                match flush_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                message = self.inbox.recv() => match message {
                    Some(message) => self.take(message),
                    None => break,
                },
                Some(first) = self.kernel_inbox.recv(), if self.core.listens() => self.kernels_said(first),
                Some(done) = self.jobs.join_next() => match done {
                    Ok(done) => self.done(done),
                    Err(error) if error.is_cancelled() => {}
                    Err(error) => {
                        tracing::error!(%error, room = %self.author.room, "a room ends because work of it panicked");
                        break;
                    }
                },
                () = tick => self.handle(Event::Tick),
                () = flush => drop(self.flush()),
            }
            self.answer_viewers();
            self.close_if_at_rest();
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Join(newcomer) => {
                let Newcomer { peer, identity, link, credit, reply } = *newcomer;
                self.outboxes.insert(peer, Outbox { link, credit });
                self.handle(Event::Joined { peer, identity });
                if let Some(info) = self.core.info(peer)
                    && reply.send(Ok(info)).is_err()
                {
                    self.leave(peer);
                }
            }
            Message::Frame { peer, frame_type, payload } => {
                self.handle(Event::Frame { peer, frame_type, payload });
            }
            Message::Writable { peer } => self.handle(Event::Writable { peer }),
            Message::Leave { peer, done } => {
                self.leave(peer);
                // Nobody listening is as good as being told.
                let _ = done.send(());
            }
            Message::Progress { launch, progress } => self.handle(Event::Progress { launch, progress }),
            Message::Summary(reply) => {
                let prefix = self.core.environment_prefix().map(ToOwned::to_owned);
                let mut summary = self.core.summary();
                let kernel = self.core.live_kernel().and_then(|launch| self.kernels.get(&launch));
                summary.kernel_pid = kernel.and_then(|kernel| kernel.info().pid);
                let _ = reply.send((summary, prefix));
            }
            Message::FileTouched => self.handle(Event::FileTouched),
            Message::ProjectTouched => self.handle(Event::ProjectTouched),
            Message::Writing { job, digest, go } => {
                self.handle(Event::Writing { job, digest });
                let flushed = self.flush();
                self.jobs.spawn(async move {
                    // Dropped when it is flushed, or could not be, which is told by itself.
                    let _ = flushed.await;
                    drop(go);
                    Done::Nothing
                });
            }
            Message::Inspect(reply) => {
                let _ = reply.send(self.core.inspect());
            }
            Message::Project(viewer) => self.viewers.push(viewer),
            Message::Copy(reply) => {
                let _ = reply.send(self.core.copied());
            }
            Message::Blobs(reply) => {
                let _ = reply.send(self.named.of(&mut self.core.documents));
            }
            Message::Close { unless_joined, done } => {
                self.closing.push(done);
                self.dissolve_at_rest |= !unless_joined;
                self.handle(Event::Closing);
            }
            Message::Detach { done } => {
                self.closing.push(done);
                self.dissolve_at_rest = true;
                self.handle(Event::Detaching);
            }
        }
    }

    fn leave(&mut self, peer: PeerId) {
        self.outboxes.remove(&peer);
        let keep_alive = keep_alive(&self.host.settings().values);
        self.handle(Event::Left { peer, keep_alive });
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Event(event) => {
                let is_save = matches!(event, Event::Saved { .. });
                self.handle(event);
                if is_save {
                    self.follow_file();
                }
            }
            Done::Watching(path, watched) => {
                if let Some((own, following)) = &mut self.file
                    && *own == path
                {
                    *following = Following::Watched(watched);
                    // Whatever happened meanwhile was not seen.
                    self.handle(Event::FileTouched);
                }
            }
            Done::WatchingProject(files, watched) => {
                if self.project.0 == files {
                    self.project.1 = watched;
                    // Whatever happened meanwhile was not seen.
                    self.handle(Event::ProjectTouched);
                }
            }
            Done::Touched(path, stamp) => {
                self.poll_file(path, stamp);
                self.handle(Event::FileTouched);
            }
            Done::Environment(launch, result) => {
                let result = result.map(|(lease, warm)| {
                    self.warm = warm;
                    lease
                });
                self.handle(Event::Environment { launch, result });
                // Of a launch that was given up.
                self.warm = None;
            }
            Done::Kernel(launch, result) => {
                let result = result.map(|kernel| drop(self.kernels.insert(launch, kernel.into())));
                self.handle(Event::KernelStarted { launch, result });
            }
            Done::Upload(job, upload, result) => {
                let result = result.map(|(staged, expires_at)| {
                    self.uploads.insert(upload, staged);
                    expires_at
                });
                self.handle(Event::UploadBegun { job, result });
            }
            Done::Nothing => {}
            Done::Flushed(Ok(()), heard) => {
                self.acknowledge(heard);
                if self.core.awaits_flush() {
                    self.handle(Event::Flushed);
                }
            }
            Done::Flushed(Err(error), _) => {
                self.handle(Event::JournalFailed { reason: error.to_string(), lost: true });
            }
            Done::Read(event, refused) => {
                self.keep_unstored(refused);
                self.handle(event);
            }
            Done::Stored(job, refused) => self.blobs_stored(job, refused),
            Done::Compacted(compacted) => self.replace_journal(compacted),
            Done::Replaced(result) => {
                if let Err(error) = &result {
                    tracing::warn!(%error, room = %self.author.room, "a journal could not be shortened");
                }
                // From here on there is one again, whichever.
                if let Some(journal) = &mut self.journal {
                    journal.give_up_shortening();
                }
            }
        }
    }

    fn handle(&mut self, event: Event) {
        self.next.push_back(event);
        while let Some(event) = self.next.pop_front() {
            let effects = self.core.handle(Moment(self.started.elapsed()), event);
            self.perform(effects);
        }
    }

    /// Shows the notebook to who waits for that, once it is loaded.
    fn answer_viewers(&mut self) {
        if self.viewers.is_empty() {
            return;
        }
        let Some(view) = self.core.projection(&disk::now()) else { return };
        for viewer in self.viewers.drain(..) {
            // Nobody listening is as good as being told.
            let _ = viewer.send(view.clone());
        }
    }

    /// Ends the room, or only answers those who asked for rest, once nothing is left to do.
    fn close_if_at_rest(&mut self) {
        if self.closing.is_empty() || !self.core.is_at_rest() {
            return;
        }
        self.dissolved |= self.dissolve_at_rest || self.outboxes.is_empty();
        if !self.dissolved {
            self.core.stay_open();
            self.answer_closers();
        }
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Journal { record, path, heard } => self.append(record, path, heard),
                Effect::Acknowledge { launch, upto } => self.acknowledge(Some((launch, upto))),
                Effect::Send { peer, frame_type, payload } => self.send(peer, frame_type, payload),
                Effect::Grant { peer, bytes } => {
                    if let Some(Outbox { link, credit }) = self.outboxes.get(&peer) {
                        credit.fetch_add(bytes as i64, Ordering::Relaxed);
                        link.grant(bytes as u64);
                    }
                }
                Effect::Close { peer } => {
                    if let Some(outbox) = self.outboxes.get(&peer) {
                        outbox.link.close();
                    }
                }
                Effect::Say { launch, request } => {
                    let session = launch.0.to_string();
                    let channel = request.channel;
                    let message = request.encode(&session, &disk::now());
                    if let Some(kernel) = self.kernels.get(&launch)
                        && let Err(error) = kernel.send(channel, message)
                    {
                        // Its end is reported by itself.
                        tracing::warn!(%error, "a message did not reach its kernel");
                    }
                }
                Effect::CancelLaunch { launch } => {
                    if let Some((_, job)) = self.launching.take_if(|(id, _)| *id == launch) {
                        job.abort();
                    }
                }
                Effect::EndUpload { upload } => drop(self.uploads.remove(&upload)),
                // A room that could not be loaded writes nothing, so its lease may go.
                Effect::Forget => drop(self.directory.forget(self.author.room, &self.own_inbox)),
                Effect::Dissolve => self.dissolved = true,
                slow => self.start(slow),
            }
        }
    }

    fn send(&mut self, peer: PeerId, frame_type: u8, payload: Bytes) {
        if let Some(outbox) = self.outboxes.get(&peer)
            && outbox.link.send(frame_type, payload) <= 0
        {
            self.next.push_back(Event::Congested { peer, frame_type });
        }
    }
}
