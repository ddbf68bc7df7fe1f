//! The room itself: what it holds, and how an event goes through it.
//!
//! For: one place to see the whole state of an open notebook.
//! Promises: the same events at the same moments give the same effects; whatever an event changes reaches
//! every client in one message per document.
//! Never: does I/O, reads a clock, draws on randomness of its own, or waits.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use runtimed_plugin_api::{KernelKind, RoomInfo, RoomSummary};
use runtimed_protocol::documents;
use runtimed_protocol::documents::notebook::Kernelspec;
use runtimed_protocol::documents::runtime_state::KernelState;
use runtimed_protocol::documents::{CommentsDoc, CommsDoc, NotebookDoc, RuntimeStateDoc};
use runtimed_protocol::presence::Presence;
use runtimed_protocol::session_control::InitialLoad;
use serde_json::{Value as Json, json};
use uuid::Uuid;

use super::choice::PYTHON;
use super::copies::Copied;
use super::death::in_a_sentence;
use super::declarations::{Asks, Declarations};
use super::durable::Durable;
use super::event::{Effect, Event};
use super::hearing::Hearing;
use super::kernel::{Kernel, Stage};
use super::moment::{Moment, earliest};
use super::peers::{Peer, Scope};
use super::presence::{Board, To};
use super::publication::Publication;
use super::queue::Queue;
use super::requests::{Question, Task};
use super::revive::{Actors, Recovered};
use super::save::Saving;
use super::superseded::Superseded;
use super::sync::Documents;
use super::widgets::Widgets;
use crate::ids::{Ids, JobId, LaunchId, PeerId};
use crate::journal::Meta;

/// Without a new visitor, a launch that failed is not tried again for this long. Source: the reference
/// daemon; it keeps a broken environment from being built over and over.
const RETRY_LAUNCH: std::time::Duration = std::time::Duration::from_secs(5);

/// What a room is opened for.
pub(crate) struct Opening {
    /// UUID of the room.
    pub(crate) id: Uuid,
    /// The notebook's file, existing or not.
    pub(crate) path: Option<PathBuf>,
    /// Working directory of the kernel, instead of the file's folder.
    pub(crate) working_dir: Option<PathBuf>,
    /// `auto`, `project` or `notebook`.
    pub(crate) environment_mode: Option<String>,
    /// Keep nothing on disk.
    pub(crate) ephemeral: bool,
    /// What it begins with.
    pub(crate) content: Content,
    /// Where kernels run whose notebook has neither a file nor a working directory.
    pub(crate) home: PathBuf,
    /// What runs where nothing says otherwise: `python`, `deno`, or an installed kernel.
    pub(crate) default_runtime: String,
    /// Names this life of the room in the actors of its changes: no actor writes in two lives.
    pub(crate) incarnation: String,
    /// When it is opened, RFC 3339.
    pub(crate) at: String,
}

/// What a room begins with.
pub(crate) enum Content {
    /// One empty code cell and the metadata of its kernel.
    Seed { kernel: KernelKind, package_manager: String, dependencies: Vec<String> },
    /// What is in the file.
    File,
    /// What is in another room.
    Copy(Box<Copied>),
    /// What another life of the room left in its journal.
    Kept(Box<Recovered>),
}

/// Everything an open notebook is. Lives in its room task and nowhere else.
pub(crate) struct RoomCore {
    pub(super) id: Uuid,
    pub(super) ids: Ids,
    /// The moment of the event that is being handled.
    pub(super) now: Moment,
    /// What the event that is being handled wants done.
    pub(super) effects: Vec<Effect>,

    pub(crate) documents: Documents,
    pub(super) peers: BTreeMap<PeerId, Peer>,
    pub(super) presence: Board,
    pub(super) load: InitialLoad,
    pub(super) had_peers: bool,

    pub(super) queue: Queue,
    pub(super) kernel: Kernel,
    pub(super) hearing: Hearing,
    pub(super) publication: Publication,
    pub(super) widgets: Widgets,
    /// Until when the start of an execution is kept back, so that its end may travel with it.
    pub(super) start_held: Option<Moment>,
    /// When the kernel ends if nobody comes.
    pub(super) keep_alive: Option<(Moment, std::time::Duration)>,
    /// When the reply of an execution that is otherwise done is given up.
    pub(super) reply_overdue: Option<Moment>,
    /// When a room that could not be loaded ends.
    pub(super) linger: Option<Moment>,
    /// When the room leaves memory if nothing happens.
    pub(super) sleep_at: Option<Moment>,
    pub(super) launch_failed_at: Option<Moment>,

    pub(super) saving: Saving,
    pub(super) durable: Durable,
    /// Connections whose last request was answered, so that the next can begin.
    pub(super) free_lanes: Vec<PeerId>,
    /// What clients asked the kernel.
    pub(super) questions: BTreeMap<String, Question>,
    /// Slow work, and whom to tell about its end.
    pub(super) tasks: BTreeMap<JobId, Task>,

    pub(super) working_dir: Option<PathBuf>,
    pub(super) environment_mode: Option<String>,
    /// What the host was asked about what the notebook declares.
    pub(super) declarations: Declarations,
    /// Comes to rest, and ends then unless somebody is here.
    pub(super) closing: bool,
    /// The kernel stays when the room ends.
    pub(super) detaches: bool,
    /// Executions that cells show no more.
    pub(super) superseded: Superseded,
    /// Names this life of the daemon in the actors of its changes.
    pub(super) incarnation: String,
    ephemeral: bool,
    home: PathBuf,
    default_runtime: String,
    comments_ref: (String, Json),
}

impl RoomCore {
    /// A room, and what it wants done first.
    ///
    /// # Errors
    /// A document could not be made.
    pub(crate) fn open(opening: Opening, mut ids: Ids) -> documents::Result<(Self, Vec<Effect>)> {
        let id = opening.id.to_string();
        let actors = Actors::of(&opening.incarnation);
        let (comments_id, comments_ref) = comments_identity(&id, opening.path.as_deref());
        let mut meta = Meta {
            path: opening.path.clone(),
            working_dir: opening.working_dir.clone(),
            environment_mode: opening.environment_mode.clone(),
            created: opening.at,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            comments_id,
            comments_ref,
        };
        let (mut declares, mut copies, mut reads_file, mut left) = (false, false, false, None);
        let mut documents = match opening.content {
            Content::Kept(recovered) => {
                let Recovered { documents, left: kept } = *recovered;
                meta.created.clone_from(&kept.meta.created);
                meta.comments_id.clone_from(&kept.meta.comments_id);
                meta.comments_ref.clone_from(&kept.meta.comments_ref);
                left = Some(kept);
                documents
            }
            content => {
                let mut notebook = NotebookDoc::new(&id, &actors.notebook)?;
                if opening.ephemeral {
                    notebook.set_ephemeral(true)?;
                }
                match content {
                    Content::Seed { kernel, package_manager, dependencies } => {
                        let cell_id = ids.uuid().to_string();
                        notebook.seed(&documents::notebook::Seed {
                            kernel: kernelspec(&kernel),
                            package_manager: &package_manager,
                            dependencies: &dependencies,
                            env_id: &id,
                            cell_id: &cell_id,
                        })?;
                        declares = !dependencies.is_empty();
                    }
                    Content::Copy(copied) => {
                        copied.write(&mut notebook, &id)?;
                        copies = true;
                    }
                    _ => reads_file = true,
                }
                let runtime = RuntimeStateDoc::new(&actors.runtime)?;
                let comms = CommsDoc::new(&actors.comms)?;
                let comments = CommentsDoc::new(&meta.comments_id, &meta.comments_ref, &actors.comments)?;
                Documents::new(notebook, runtime, comms, comments)
            }
        };
        documents.runtime.set_identity(&format!("runtime:{id}"))?;
        documents.runtime.set_path(opening.path.as_deref().and_then(Path::to_str))?;

        let mut core = Self {
            id: opening.id,
            ids,
            now: Moment::default(),
            effects: Vec::new(),
            documents,
            peers: BTreeMap::new(),
            presence: Board::default(),
            load: if reads_file { InitialLoad::Streaming } else { InitialLoad::NotNeeded },
            had_peers: false,
            queue: Queue::default(),
            kernel: Kernel::default(),
            hearing: Hearing::default(),
            publication: Publication::default(),
            widgets: Widgets::default(),
            start_held: None,
            keep_alive: None,
            reply_overdue: None,
            linger: None,
            sleep_at: None,
            launch_failed_at: None,
            saving: Saving::new(opening.path.clone()),
            durable: Durable::new(!opening.ephemeral, meta.clone()),
            free_lanes: Vec::new(),
            questions: BTreeMap::new(),
            tasks: BTreeMap::new(),
            working_dir: opening.working_dir,
            environment_mode: opening.environment_mode,
            declarations: Declarations::default(),
            closing: false,
            detaches: false,
            superseded: Superseded::default(),
            incarnation: opening.incarnation,
            ephemeral: opening.ephemeral,
            home: opening.home,
            default_runtime: opening.default_runtime,
            comments_ref: (meta.comments_id, meta.comments_ref),
        };
        let cwd = core.kernel_dir();
        let cpus = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
        core.documents.runtime.set_workstation(cpus, cwd.to_str())?;
        match (opening.path, left) {
            (_, Some(left)) => core.revive(left),
            (Some(path), _) if reads_file => core.effects.push(Effect::Load { path }),
            // Being asked for is being approved.
            _ if declares => core.ask_host(Asks::Approval { ticket: None }),
            _ if copies => core.ask_host(Asks::Opinion),
            _ => {}
        }
        let _ = core.documents.take_changed();
        core.fall_asleep();
        core.journal();
        let effects = std::mem::take(&mut core.effects);
        Ok((core, effects))
    }

    /// Lets the room live through an event. `now` never goes back.
    pub(crate) fn handle(&mut self, now: Moment, event: Event) -> Vec<Effect> {
        self.now = self.now.max(now);
        if !matches!(event, Event::JournalFailed { .. }) {
            self.journal_arrived();
        }
        match event {
            Event::Joined { peer, identity } => self.peer_joined(peer, identity),
            Event::Left { peer, keep_alive } => self.peer_left(peer, keep_alive),
            Event::Frame { peer, frame_type, payload } => self.frame(peer, frame_type, payload),
            Event::Congested { peer, frame_type } => self.congested(peer, frame_type),
            Event::Writable { peer } => self.writable(peer),
            Event::Loaded(result) => self.loaded(result),
            Event::KernelsFound { launch, installed } => self.kernels_found(launch, installed),
            Event::Environment { launch, result } => self.environment_came(launch, result),
            Event::Progress { launch, progress } => self.environment_progressed(launch, &progress),
            Event::KernelStarted { launch, result } => self.kernel_came(launch, result),
            Event::KernelSaid { launch, upto, messages } => self.kernel_said(launch, upto, messages),
            Event::KernelExited { launch, report } => self.kernel_died(launch, &report),
            Event::KernelStopped { launch } => self.kernel_stopped(launch),
            Event::BlobsStored { job } => self.blobs_stored(job),
            Event::BlobsRead { job, blobs } => self.blobs_read(job, &blobs),
            Event::BlobPut { job, result } => self.blob_put(job, result),
            Event::UploadBegun { job, result } => self.upload_begun(job, result),
            Event::PartStaged { job, result } => self.part_staged(job, result),
            Event::Cloned { job, result } => self.cloned(job, result),
            Event::Trust { job, result } => self.trust_answered(job, result),
            Event::Installed { job, result } => self.installed(job, result),
            Event::Writing { job, digest } => self.writing(job, digest),
            Event::Saved { job, result } => self.saved(job, result),
            Event::JournalFailed { reason, lost } => self.journal_failed(&reason, lost),
            Event::Flushed => self.journal_flushed(),
            Event::BlobsTaken => self.durable.try_now(),
            Event::FileTouched => self.file_touched(),
            Event::ProjectTouched => self.project_touched(),
            Event::Looked { job, seen } => self.looked(job, seen),
            Event::Tick => self.tick(),
            Event::Closing => {
                self.closing = true;
                self.close();
            }
            Event::Detaching => {
                self.closing = true;
                self.detach();
            }
        }
        self.end_failed_room();
        self.unblock_requests();
        self.start_requests();
        self.publish_outputs();
        self.feed_kernel();
        self.publish_documents();
        self.fall_asleep();
        self.journal();
        std::mem::take(&mut self.effects)
    }

    /// Whether what kernels say may come. If not, it may once an event of the room's own work has.
    pub(crate) fn listens(&self) -> bool {
        !self.publication.is_full()
    }

    /// Whether the journal is not known to be well before [`Event::Flushed`].
    pub(crate) fn awaits_flush(&self) -> bool {
        self.durable.awaits_flush()
    }

    /// When [`Event::Tick`] must come at the latest.
    pub(crate) fn deadline(&self) -> Option<Moment> {
        let peers = self.peers.values().map(|peer| peer.deadline(self.start_held));
        let questions = self.questions.values().map(|question| Some(question.until));
        let own = [
            self.kernel.deadline(),
            self.publication.deadline(),
            self.saving.deadline(),
            self.durable.deadline(),
            self.saving.lookout.deadline(),
            self.keep_alive.map(|(at, _)| at),
            self.reply_overdue,
            self.start_held,
            self.linger,
            self.sleep_at,
            self.declarations.deadline(),
        ];
        earliest(peers.chain(questions).chain(own))
    }

    /// Facts for the bootstrap reply of a connection.
    pub(crate) fn info(&self, peer: PeerId) -> Option<RoomInfo> {
        let peer = self.peers.get(&peer)?;
        Some(RoomInfo {
            notebook_id: self.id.to_string(),
            cell_count: self.documents.notebook.cell_count() as u64,
            needs_trust_approval: self.documents.runtime.kernel_state() == KernelState::AwaitingTrust,
            ephemeral: self.ephemeral,
            notebook_path: self.saving.path().map(ToOwned::to_owned),
            actor_label: peer.identity.label(),
            connection_scope: peer.identity.scope.name().to_owned(),
            comments_doc_id: self.comments_ref.0.clone(),
            comments_notebook_ref: self.comments_ref.1.clone(),
        })
    }

    /// The room in a list of rooms.
    pub(crate) fn summary(&self) -> RoomSummary {
        let lifecycle = self.documents.runtime.kernel_state();
        let status = match &lifecycle {
            KernelState::NotStarted => "not_started",
            KernelState::AwaitingTrust => "awaiting_trust",
            KernelState::AwaitingEnvBuild { .. } => "awaiting_env_build",
            KernelState::Resolving
            | KernelState::PreparingEnv
            | KernelState::Launching
            | KernelState::Connecting => "starting",
            KernelState::Running(documents::runtime_state::Activity::Busy) => "busy",
            KernelState::Running(_) => "idle",
            KernelState::Error { .. } => "error",
            KernelState::Shutdown => "shutdown",
        };
        let has_kernel = self.kernel.is_coming_or_up();
        let state = match (self.peers.is_empty(), has_kernel) {
            (false, _) => "active",
            (true, true) => "idle",
            (true, false) => "inactive",
        };
        RoomSummary {
            notebook_id: self.id.to_string(),
            active_peers: self.peers.len() as u64,
            had_peers: self.had_peers,
            has_kernel,
            kernel_type: self.kernel.kind().map(str::to_owned),
            env_source: self
                .kernel
                .environment
                .as_ref()
                .filter(|_| has_kernel)
                .map(|it| it.lease.source.clone()),
            kernel_status: Some(status.to_owned()),
            ephemeral: self.ephemeral,
            notebook_path: self.saving.path().map(ToOwned::to_owned),
            state: state.to_owned(),
            kernel_pid: None,
            kernel_error: match lifecycle {
                KernelState::Error { details, .. } => Some(in_a_sentence(&details)),
                _ => None,
            },
            at_risk: self.at_risk().map(str::to_owned),
            silent: false,
        }
    }

    /// The launch whose kernel is up, announced or not.
    pub(crate) fn live_kernel(&self) -> Option<LaunchId> {
        self.kernel.live()
    }

    /// The notebook's file, if it has one.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.saving.path()
    }

    /// The prefix of the environment the room uses.
    pub(crate) fn environment_prefix(&self) -> Option<&Path> {
        self.kernel.environment.as_ref().map(|it| it.lease.environment.prefix.as_path())
    }

    /// Whether nothing is left to be done before the room may end: no kernel, no unsaved file.
    pub(crate) fn is_at_rest(&self) -> bool {
        let down = matches!(self.kernel.stage, Stage::Down) || self.detached();
        down && self.saving.is_at_rest()
    }

    /// The room goes on after all: somebody is here.
    pub(crate) fn stay_open(&mut self) {
        self.closing = false;
    }

    /// Whether nothing of the room is kept on disk.
    pub(super) fn is_ephemeral(&self) -> bool {
        self.ephemeral
    }

    /// Whether a launch that failed may be tried again without anybody asking for it.
    pub(super) fn may_retry_launch(&self) -> bool {
        self.launch_failed_at.is_none_or(|at| at + RETRY_LAUNCH <= self.now)
    }

    /// Where the kernel runs.
    pub(super) fn kernel_dir(&self) -> PathBuf {
        let of_file = || self.saving.path().and_then(Path::parent).filter(|folder| folder.is_absolute());
        self.working_dir.as_deref().or_else(of_file).unwrap_or(&self.home).to_owned()
    }

    /// What runs where nothing says otherwise.
    pub(super) fn default_runtime(&self) -> &str {
        &self.default_runtime
    }

    /// Sends a frame to one client.
    pub(super) fn send(&mut self, peer: PeerId, frame_type: u8, payload: impl Into<Bytes>) {
        self.effects.push(Effect::Send { peer, frame_type, payload: payload.into() });
    }

    /// Sends a presence message to those who take it.
    pub(super) fn tell(&mut self, to: To, message: &Presence) {
        let Ok(payload) = message.encode().map(Bytes::from) else { return };
        for (&peer, it) in &self.peers {
            let hears = match to {
                To::All => true,
                To::AllBut(other) => other != peer,
                To::Only(one) => one == peer,
            };
            if hears && !it.missed_presence {
                self.effects.push(Effect::Send {
                    peer,
                    frame_type: runtimed_protocol::frame::FrameType::PRESENCE,
                    payload: payload.clone(),
                });
            }
        }
    }

    /// What a client may do; nothing once it is gone.
    pub(super) fn scope(&self, peer: PeerId) -> Option<Scope> {
        self.peers.get(&peer).map(|peer| peer.identity.scope)
    }

    fn tick(&mut self) {
        self.announce_due();
        self.give_up_overdue_reply();
        self.expire_questions();
        self.expire_uploads();
        self.end_kept_alive_kernel();
        self.autosave();
        self.look_if_due();
        self.ask_if_due();
    }
}

/// A write that failed changes nothing but the log: a peer has overwritten a part of the document that
/// everybody needs, and ending the room over it would only lose the rest.
pub(super) fn kept<T>(result: documents::Result<T>) -> Option<T> {
    result.inspect_err(|error| tracing::warn!(%error, "a document refused a write")).ok()
}

/// Name and subject of the comments on a notebook.
fn comments_identity(room: &str, path: Option<&Path>) -> (String, Json) {
    use sha2::Digest;

    match path.and_then(Path::to_str) {
        Some(path) => {
            let hash = hex::encode(sha2::Sha256::digest(path));
            let subject = json!({"kind": "local_path", "canonical_path": path});
            (format!("comments:local-path:{hash}"), subject)
        }
        None => (format!("comments:local-room:{room}"), json!({"kind": "local_room", "room_id": room})),
    }
}

/// What a notebook for this kernel says about it.
pub(crate) fn kernelspec(kernel: &KernelKind) -> Kernelspec<'_> {
    match kernel.name.as_str() {
        PYTHON => Kernelspec::PYTHON,
        name => Kernelspec { name, display_name: &kernel.display_name, language: &kernel.language },
    }
}
