//! The capability: connections come in, questions are answered.
//!
//! For: the host.
//! Promises: whoever names the same notebook meets in the same room.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use runtimed_plugin_api::{
    Attached, CreateNotebook, Credit, ErrorCode, Host, Join, JoinTarget, KernelKind, PeerLink, PluginError,
    Result, RoomReply, RoomRequest, RoomSession, RoomSummary, Rooms, async_trait,
};
use serde_json::json;
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::claims::claim;
use crate::collect::{collect, interval};
use crate::directory::{Directory, Found, Fresh, Wish, default_manager};
use crate::ids::PeerId;
use crate::kinds::of_new_notebook;
use crate::paths::{self, Place};
use crate::records::RecordStore;
use crate::reopen::{look_up, unlisted};
use crate::room::core::Content;
use crate::room::peers::{Identity, Scope};
use crate::room::task::{INBOUND_CREDIT, Inbox, Message, Newcomer};
use crate::summaries::{environments, summaries};
use crate::verify;

/// Every open notebook of the daemon.
pub struct OpenNotebooks {
    pub(crate) directory: Arc<Directory>,
}

impl OpenNotebooks {
    /// No notebook is open yet.
    pub fn new(host: Host) -> Self {
        Self { directory: Arc::new(Directory::new(host)) }
    }

    /// Begins what is done in the background.
    pub(crate) fn begin(self: &Arc<Self>) {
        self.directory.sweep();
        self.directory.spawn(claim(self.clone()));
        self.directory.spawn(collect(Arc::downgrade(&self.directory), interval(&self.directory.host)));
        self.directory.warm.begin();
    }

    /// Ends every kernel, writes every file and forgets every room.
    pub async fn close(&self) {
        self.end(|done| Message::Close { unless_joined: false, done }).await;
    }

    /// Writes every file and forgets every room; kernels stay for the next daemon.
    pub async fn detach(&self) {
        self.end(|done| Message::Detach { done }).await;
    }

    async fn end(&self, how: impl Fn(oneshot::Sender<()>) -> Message) {
        self.directory.close();
        let rooms = self.directory.all();
        let ends: Vec<_> = rooms.iter().map(|room| ask_to_end(room, &how)).collect();
        for end in ends {
            // A room that ended without saying so has ended all the same.
            let _ = end.await;
        }
        self.directory.warm.close().await;
    }

    /// The room that a connection wants, opened if need be.
    async fn find(&self, target: JoinTarget) -> Result<Found> {
        let fresh = match target {
            JoinTarget::Create(create) => {
                let fresh = self.created(create).await;
                match fresh.id {
                    Some(id) if !self.directory.is_open(id) => self.kept(id).await?.unwrap_or(fresh),
                    _ => fresh,
                }
            }
            JoinTarget::Open { path, working_dir } => self.file(path, working_dir).await?,
            JoinTarget::Attach { notebook_id, working_dir, .. } => match notebook_id.parse() {
                Ok(id) => return self.existing(id).await,
                Err(_) => self.file(notebook_id.into(), working_dir).await?,
            },
        };
        self.open(fresh).await
    }

    /// The room that is there for these, or a new one, with the lease of its file.
    async fn open(&self, mut fresh: Fresh) -> Result<Found> {
        if let Some(path) = fresh.path.clone() {
            let leases = self.directory.leases.clone();
            let taken = blocking(move || leases.take(&path).map_err(|holder| (holder.report(&path), holder)));
            fresh.lease = taken.await?.map_err(|(report, holder)| {
                PluginError::new(ErrorCode::Conflict, report)
                    .detail(json!({"kind": "leased", "holder": holder}))
            })?;
        }
        self.directory.find(Wish::OrOpen(Box::new(fresh)))
    }

    /// The room with this id, brought back if it is not in memory.
    pub(crate) async fn existing(&self, id: Uuid) -> Result<Found> {
        let wish = match self.directory.is_open(id) {
            true => None,
            false => self.kept(id).await?,
        };
        match wish {
            Some(fresh) => self.open(fresh).await,
            None => self.directory.find(Wish::Existing(id)),
        }
    }

    /// How a room begins whose journal is there.
    async fn kept(&self, id: Uuid) -> Result<Option<Fresh>> {
        let journals = self.directory.journals.clone();
        let Some((journal, meta)) = blocking(move || look_up(&journals, id)).await?? else { return Ok(None) };
        let kernel = of_new_notebook(&self.directory.host, "").await;
        let content = match meta.path {
            Some(_) => Content::File,
            None => self.seed(&kernel),
        };
        Ok(Some(Fresh {
            id: Some(id),
            path: meta.path,
            working_dir: meta.working_dir,
            environment_mode: meta.environment_mode,
            ephemeral: false,
            content,
            kernel,
            journal: Some(journal),
            lease: None,
        }))
    }

    /// What a notebook begins with whose file is not there.
    fn seed(&self, kernel: &KernelKind) -> Content {
        let settings = self.directory.host.settings().values;
        Content::Seed {
            kernel: kernel.clone(),
            package_manager: default_manager(&settings),
            dependencies: Vec::new(),
        }
    }

    async fn created(&self, create: CreateNotebook) -> Fresh {
        let settings = self.directory.host.settings().values;
        let kernel = of_new_notebook(&self.directory.host, &create.runtime).await;
        let package_manager = match create.package_manager.as_deref() {
            Some("pip") => "uv".to_owned(),
            Some("mamba") => "conda".to_owned(),
            Some(manager) if !manager.is_empty() => manager.to_owned(),
            _ => default_manager(&settings),
        };
        Fresh {
            id: create.notebook_id.and_then(|id| id.parse().ok()),
            path: None,
            working_dir: create.working_dir,
            environment_mode: create.environment_mode,
            ephemeral: create.ephemeral,
            content: Content::Seed {
                kernel: kernel.clone(),
                package_manager,
                dependencies: create.dependencies,
            },
            kernel,
            journal: None,
            lease: None,
        }
    }

    async fn file(&self, path: PathBuf, working_dir: Option<PathBuf>) -> Result<Fresh> {
        let journals = self.directory.journals.clone();
        let found = blocking(move || {
            let place = paths::resolve(&path).map_err(PluginError::invalid)?;
            let journal = match &place {
                Place::File(path) | Place::Missing(path) => {
                    journals.of_file(path).map_err(|error| unlisted(&error))?
                }
                Place::Directory(_) => None,
            };
            Ok::<_, PluginError>((place, journal))
        });
        let (place, journal) = found.await??;
        let kernel = of_new_notebook(&self.directory.host, "").await;
        let (path, working_dir, content) = match place {
            Place::File(path) => (Some(path), working_dir, Content::File),
            Place::Missing(path) => (Some(path), working_dir, self.seed(&kernel)),
            Place::Directory(folder) => (None, Some(folder), self.seed(&kernel)),
        };
        let (id, journal) = journal.map(|journal| (journal.room, journal.path)).unzip();
        Ok(Fresh {
            id,
            path,
            working_dir,
            environment_mode: None,
            ephemeral: false,
            content,
            kernel,
            journal,
            lease: None,
        })
    }

    async fn inspect(&self, notebook_id: &str) -> Result<serde_json::Value> {
        let unknown = || PluginError::not_found(format!("Notebook not found: {notebook_id}"));
        let room = match notebook_id.parse() {
            Ok(id) => self.existing(id).await.map_err(|_| unknown())?.inbox,
            Err(_) => match self.directory.named(notebook_id) {
                Some(room) => room,
                // A file whose notebook is kept and not in memory.
                None => {
                    let kept = self.file(notebook_id.into(), None).await.map_err(|_| unknown())?.id;
                    self.existing(kept.ok_or_else(unknown)?).await.map_err(|_| unknown())?.inbox
                }
            },
        };
        let (reply, state) = oneshot::channel();
        room.send(Message::Inspect(reply)).map_err(|_| unknown())?;
        state.await.map_err(|_| unknown())
    }

    /// Ends a notebook's kernel and closes its room, unless that would lose edits. False if there is no such room.
    async fn shut_down(&self, notebook: &str) -> Result<bool> {
        let Some(room) = self.directory.named(notebook) else { return Ok(false) };
        let (reply, summary) = oneshot::channel();
        // A room that is gone drops the other end, and has nothing to lose.
        let _ = room.send(Message::Summary(reply));
        if let Ok((RoomSummary { at_risk: Some(reason), .. }, _)) = summary.await {
            let text = format!(
                "The last edits of this notebook are in memory only, because they cannot be written: {reason}. It stays open."
            );
            return Err(PluginError::new(ErrorCode::Conflict, text).help(
                "Make room, or save it under another name; the daemon tries again by itself within 30 s.",
            ));
        }
        let _ = ask_to_end(&room, |done| Message::Close { unless_joined: true, done }).await;
        Ok(true)
    }

    /// A view of one notebook, once it is loaded.
    async fn project(&self, notebook_id: &str) -> Result<RoomReply> {
        let unknown = || Ok(RoomReply::NoProjection { failure: json!({"kind": "room_not_found"}) });
        let Ok(id) = notebook_id.parse() else { return unknown() };
        let room = match self.existing(id).await {
            Ok(found) => found.inbox,
            Err(error) if error.code == ErrorCode::NotFound => return unknown(),
            Err(error) => return Err(error),
        };
        let (viewer, view) = oneshot::channel();
        // A room that is gone drops the viewer.
        let _ = room.send(Message::Project(viewer));
        match view.await {
            Ok(Ok(projection)) => Ok(RoomReply::Projection { projection }),
            Ok(Err(failure)) => Ok(RoomReply::NoProjection { failure }),
            Err(_) => unknown(),
        }
    }
}

#[async_trait]
impl Rooms for OpenNotebooks {
    async fn attach(&self, join: Join, link: Arc<dyn PeerLink>) -> Result<Attached> {
        match self.try_attach(join.clone(), link.clone()).await? {
            Some(attached) => Ok(attached),
            // It fell asleep just then, or was closed.
            None => self.try_attach(join, link).await?.ok_or_else(|| {
                PluginError::unavailable("The notebook was closed just now. Please open it again.")
            }),
        }
    }

    async fn ask(&self, request: RoomRequest) -> Result<RoomReply> {
        match request {
            RoomRequest::List => Ok(RoomReply::List { rooms: summaries(&self.directory).await }),
            RoomRequest::ActiveEnvironments => {
                Ok(RoomReply::ActiveEnvironments { paths: environments(&self.directory).await })
            }
            RoomRequest::Inspect { notebook_id } => {
                Ok(RoomReply::Inspect { state: self.inspect(&notebook_id).await? })
            }
            RoomRequest::Project { notebook_id } => self.project(&notebook_id).await,
            RoomRequest::Shutdown { notebook_id } => {
                Ok(RoomReply::Shutdown { found: self.shut_down(&notebook_id).await? })
            }
            RoomRequest::ExecutionResult { execution_id } => {
                let store = RecordStore::of(&self.directory.host);
                let missing =
                    PluginError::not_found(format!("Execution not found in durable store: {execution_id}"));
                let record = blocking(move || store.read(&execution_id)).await?;
                let record = record.map_err(|error| PluginError::internal(error.to_string()))?;
                Ok(RoomReply::ExecutionResult { record: serde_json::to_value(record.ok_or(missing)?)? })
            }
            RoomRequest::Verify { repair } => {
                Ok(RoomReply::Verified { journals: verify::verify(&self.directory, repair).await? })
            }
            RoomRequest::Recover { notebook, output } => {
                verify::recover(&self.directory, notebook, output).await
            }
            RoomRequest::Flush => {
                self.directory.warm.flushed();
                Ok(RoomReply::Flushed)
            }
            RoomRequest::Close => {
                self.close().await;
                Ok(RoomReply::Closed)
            }
            RoomRequest::Detach => {
                self.detach().await;
                Ok(RoomReply::Closed)
            }
            _ => Err(PluginError::unsupported("The rooms plugin does not know this question")),
        }
    }
}

impl OpenNotebooks {
    /// Brings a connection into its room. None if the room ended meanwhile.
    async fn try_attach(&self, join: Join, link: Arc<dyn PeerLink>) -> Result<Option<Attached>> {
        let Found { inbox, path } = self.find(join.target).await?;
        let read_only = match path {
            Some(path) => blocking(move || path.exists() && !paths::is_writable(&path)).await?,
            None => false,
        };
        let scope = if read_only { Scope::Viewer } else { Scope::Owner };
        let identity = Identity { principal: join.principal, operator: join.operator, scope };
        let (peer, credit) = (PeerId(Uuid::new_v4()), Arc::new(AtomicI64::new(INBOUND_CREDIT)));
        let (reply, info) = oneshot::channel();
        let newcomer = Newcomer { peer, identity, link, credit: credit.clone(), reply };
        if inbox.send(Message::Join(Box::new(newcomer))).is_err() {
            return Ok(None);
        }
        let Ok(info) = info.await else { return Ok(None) };
        Ok(Some(Attached { info: info?, session: Box::new(Session { peer, inbox, credit }) }))
    }
}

/// One connection's way into its room.
struct Session {
    peer: PeerId,
    inbox: Inbox,
    /// What the connection may still send.
    credit: Arc<AtomicI64>,
}

#[async_trait]
impl RoomSession for Session {
    fn receive(&self, frame_type: u8, payload: Bytes) -> Credit {
        let bytes = payload.len() as i64;
        let left = self.credit.fetch_sub(bytes, Ordering::Relaxed) - bytes;
        // A room that is gone closes the link; nobody misses the frame.
        let _ = self.inbox.send(Message::Frame { peer: self.peer, frame_type, payload });
        left
    }

    fn writable(&self) {
        let _ = self.inbox.send(Message::Writable { peer: self.peer });
    }

    async fn detach(&self) {
        let (done, forgotten) = oneshot::channel();
        if self.inbox.send(Message::Leave { peer: self.peer, done }).is_ok() {
            let _ = forgotten.await;
        }
    }
}

/// Tells a room to end; resolves once it has.
fn ask_to_end(room: &Inbox, how: impl FnOnce(oneshot::Sender<()>) -> Message) -> oneshot::Receiver<()> {
    let (done, ended) = oneshot::channel();
    // A room that is gone drops `done`, which resolves as well.
    let _ = room.send(how(done));
    ended
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|error| PluginError::internal(error.to_string()))
}
