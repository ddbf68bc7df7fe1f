//! What happens to a room, and what it wants done.
//!
//! For: the boundary between the core, which decides, and the shell, which acts.
//! Promises: plain data both ways; the end of every slow effect comes back as an event.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use runtimed_plugin_api::{
    Channel, Digest, EnvNeed, ExitReport, JupyterMessage, KernelKind, LaunchSpec, Lease, PluginError,
    Progress, Release, Sequence, TrustVerdict,
};
use uuid::Uuid;

use super::copies::NewCopy;
use super::kernel_message::KernelRequest;
use super::load::Loaded;
use super::outside::Seen;
use super::peers::Identity;
use super::save::{SaveFailure, SavePlan, Written};
use crate::ids::{JobId, LaunchId, PeerId};
use crate::journal::Record;
use crate::outputs::NewBlob;
use crate::records::ExecutionRecord;

/// Something that happened.
pub(crate) enum Event {
    /// A connection was made.
    Joined { peer: PeerId, identity: Identity },
    /// A connection is gone. `keep_alive` is how long the kernel stays without any.
    Left { peer: PeerId, keep_alive: Duration },
    /// A client sent a frame.
    Frame { peer: PeerId, frame_type: u8, payload: Bytes },
    /// What was sent to a client is more than it takes of this type of frame at the moment.
    Congested { peer: PeerId, frame_type: u8 },
    /// A client takes more again, of everything.
    Writable { peer: PeerId },
    /// The notebook's file was read, or why not.
    Loaded(Result<Box<Loaded>, String>),
    /// What is installed, or why that cannot be known.
    KernelsFound { launch: LaunchId, installed: Result<Vec<KernelKind>, PluginError> },
    /// An environment was found, or not.
    Environment { launch: LaunchId, result: Result<Box<Lease>, PluginError> },
    /// An environment is being built.
    Progress { launch: LaunchId, progress: Progress },
    /// A kernel is up, or failed to start.
    KernelStarted { launch: LaunchId, result: Result<(), PluginError> },
    /// A kernel said something: as many messages as had come in, up to the one with this number.
    KernelSaid { launch: LaunchId, upto: Sequence, messages: Vec<(Channel, JupyterMessage)> },
    /// A kernel's process is gone.
    KernelExited { launch: LaunchId, report: ExitReport },
    /// The end of [`Effect::Stop`].
    KernelStopped { launch: LaunchId },
    /// The end of [`Effect::StoreBlobs`].
    BlobsStored { job: JobId },
    /// The end of [`Effect::ReadBlobs`]: those that are there.
    BlobsRead { job: JobId, blobs: BTreeMap<Digest, Bytes> },
    /// The end of [`Effect::PutBlob`] and of [`Effect::StoreUpload`].
    BlobPut { job: JobId, result: Result<Digest, PluginError> },
    /// The end of [`Effect::BeginUpload`]: when it must be done, RFC 3339.
    UploadBegun { job: JobId, result: Result<String, PluginError> },
    /// The end of [`Effect::StagePart`]: what the bytes are.
    PartStaged { job: JobId, result: Result<Digest, PluginError> },
    /// The end of [`Effect::Clone`].
    Cloned { job: JobId, result: Result<NewCopy, PluginError> },
    /// The end of [`Effect::Trust`].
    Trust { job: JobId, result: Result<TrustVerdict, PluginError> },
    /// The end of [`Effect::Install`].
    Installed { job: JobId, result: Result<(), PluginError> },
    /// A save is about to put this into its file, as SHA-256. It does when that is in the journal.
    Writing { job: JobId, digest: [u8; 32] },
    /// The end of [`Effect::Save`].
    Saved { job: JobId, result: Result<Written, SaveFailure> },
    /// The last [`Effect::Journal`] was not carried out, for this reason; with `lost`, those before it may be
    /// gone as well. Comes before any other event.
    JournalFailed { reason: String, lost: bool },
    /// What was appended is flushed. Wanted only where [`super::core::RoomCore::awaits_flush`] says so.
    Flushed,
    /// What the blob store had refused is stored now: the journal need not wait for it any more.
    BlobsTaken,
    /// Something happened to the notebook's file.
    FileTouched,
    /// Something happened to a file that is or would be that of the project around the notebook.
    ProjectTouched,
    /// The end of [`Effect::Look`].
    Looked { job: JobId, seen: Seen },
    /// The moment that [`super::core::RoomCore::deadline`] named has come.
    Tick,
    /// Somebody asked for the kernel to end and the file to be written; the room is about to close.
    Closing,
    /// The same, but the kernel stays for the next daemon, if that will know of it.
    Detaching,
}

/// Something to do.
#[derive(Debug)]
pub(crate) enum Effect {
    /// Append to the room's journal, before anything else is done. `path` is the notebook's file, if there
    /// is another since the last time, or none any more. When it is flushed, what the kernel said up to `heard`
    /// may be forgotten there.
    Journal { record: Record, path: Option<Option<PathBuf>>, heard: Option<(LaunchId, Sequence)> },
    /// Let the kernel forget what it said up to here: nothing is kept of this room. The first one tells it that it may
    /// outlive the daemon.
    Acknowledge { launch: LaunchId, upto: Sequence },
    /// Send a frame to a client.
    Send { peer: PeerId, frame_type: u8, payload: Bytes },
    /// Let a client send this many bytes more: what it had sent is handled.
    Grant { peer: PeerId, bytes: usize },
    /// End a connection after what was sent.
    Close { peer: PeerId },
    /// Read the notebook's file.
    Load { path: PathBuf },
    /// Find out which kernels are installed.
    FindKernels { launch: LaunchId },
    /// Find or build an environment. This lease is given back first: its environment is broken.
    Acquire { launch: LaunchId, need: EnvNeed, instead_of: Option<String> },
    /// Give an environment back.
    Release { lease: String, how: Release },
    /// Start a kernel.
    Launch { launch: LaunchId, spec: Box<LaunchSpec> },
    /// Give up choosing, acquiring an environment for, or starting a kernel.
    CancelLaunch { launch: LaunchId },
    /// Send a message to the kernel.
    Say { launch: LaunchId, request: KernelRequest },
    /// Interrupt the kernel.
    Interrupt { launch: LaunchId },
    /// End the kernel, or collect what is left of one that died.
    Stop { launch: LaunchId },
    /// Store what outputs and widgets are about to name.
    StoreBlobs { job: JobId, blobs: Vec<NewBlob> },
    /// Read what a message to the kernel names.
    ReadBlobs { job: JobId, digests: BTreeSet<Digest> },
    /// Store a client's upload.
    PutBlob { job: JobId, bytes: Bytes, media_type: String },
    /// Make room for the parts of an upload that may take `lifetime`.
    BeginUpload { job: JobId, upload: Uuid, lifetime: Duration },
    /// Write a part to `at`, unless it is there, and hash it.
    StagePart { job: JobId, upload: Uuid, at: Option<u64>, bytes: Bytes },
    /// Store the parts at these offsets and lengths as one blob.
    StoreUpload { job: JobId, upload: Uuid, pieces: Vec<(u64, u64)>, media_type: String },
    /// Let go of an upload's parts.
    EndUpload { upload: Uuid },
    /// Open a copy of another room, or of this one.
    Clone { job: JobId, source: Uuid },
    /// Ask whether what the notebook declares is trusted, or approve it.
    Trust { job: JobId, need: EnvNeed, approve: bool },
    /// Say when something happens to one of these files.
    WatchProject { files: Vec<PathBuf> },
    /// Install packages into the environment.
    Install { job: JobId, lease: String, packages: Vec<String> },
    /// Write the notebook's file.
    Save { job: JobId, plan: Box<SavePlan> },
    /// See what the notebook's file holds, if it is not what is `known`, as SHA-256.
    Look { job: JobId, path: PathBuf, known: Option<[u8; 32]> },
    /// Keep the record of an execution that ended.
    Record(Box<ExecutionRecord>),
    /// The room is of no more use: let nobody else in.
    Forget,
    /// End the room, and every connection after what was sent.
    Dissolve,
}
