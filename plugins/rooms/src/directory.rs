//! Which rooms there are, and which file belongs to which.
//!
//! For: finding the one room of a notebook, opening it if need be, and moving it to another file.
//! Promises: one room per id and one per file, however many ask at once; no lock is held while anything is
//! awaited.
//! Never: looks into a room.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use runtimed_plugin_api::{BlobStore, Host, KernelKind, PluginError};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::disk::{self, Announce, Author, Form};
use crate::journal::JournalFolder;
use crate::journal::sweep::sweep;
use crate::kinds::of_new_notebook;
use crate::leases::{Lease, Leases};
use crate::paths;
use crate::room::copies::NewCopy;
use crate::room::core::{Content, Opening};
use crate::room::revive::Actors;
use crate::room::save::{SaveFailure, SavePlan, Written};
use crate::room::task::{Inbox, Message, RoomTask, Start};
use crate::staging::Staging;
use crate::warm::Warm;
use crate::watch::FileWatch;

/// The rooms of this daemon.
pub(crate) struct Directory {
    pub(crate) host: Host,
    /// Where rooms are kept that are not in memory.
    pub(crate) journals: JournalFolder,
    /// Watches the files of all rooms.
    pub(crate) watch: FileWatch,
    /// Uploads that are under way.
    pub(crate) staging: Arc<Staging>,
    /// Which files are this daemon's to write.
    pub(crate) leases: Arc<Leases>,
    /// Kernels for rooms to come.
    pub(crate) warm: Arc<Warm>,
    /// A std mutex: held for look-ups only, never across an await.
    index: Mutex<Index>,
}

#[derive(Default)]
struct Index {
    rooms: BTreeMap<Uuid, Entry>,
    /// Canonical path -> room.
    files: BTreeMap<PathBuf, Uuid>,
    /// Every room task; they end by themselves once they are told to.
    tasks: JoinSet<()>,
    /// No room opens any more: the daemon is about to exit.
    closed: bool,
}

struct Entry {
    inbox: Inbox,
    path: Option<PathBuf>,
    /// That of `path`, if it could be had.
    lease: Option<Arc<Lease>>,
}

/// Which room somebody wants.
pub(crate) enum Wish {
    /// The one with this id, if it is there.
    Existing(Uuid),
    /// The one with this id or this file, or else one that begins so.
    OrOpen(Box<Fresh>),
}

/// How a room that is not there yet begins.
pub(crate) struct Fresh {
    pub(crate) id: Option<Uuid>,
    pub(crate) path: Option<PathBuf>,
    pub(crate) working_dir: Option<PathBuf>,
    pub(crate) environment_mode: Option<String>,
    pub(crate) ephemeral: bool,
    pub(crate) content: Content,
    /// What it runs where nothing else says.
    pub(crate) kernel: KernelKind,
    /// Its journal, if it was open before. What that says counts, and the rest is for what it does not say.
    pub(crate) journal: Option<PathBuf>,
    /// The lease of its file, if it could be had.
    pub(crate) lease: Option<Arc<Lease>>,
}

/// A room that was found or opened.
pub(crate) struct Found {
    pub(crate) inbox: Inbox,
    /// Its file, if it has one.
    pub(crate) path: Option<PathBuf>,
}

impl Directory {
    /// No rooms yet.
    pub(crate) fn new(host: Host) -> Self {
        let journals = JournalFolder::new(&host.directories().base);
        let staging = Staging::new(&host.directories().base);
        let leases = Arc::new(Leases::new(&host.directories().base));
        let (watch, warm) = (FileWatch::default(), Warm::new(host.clone()));
        Self { host, journals, leases, watch, staging, warm, index: Mutex::default() }
    }

    /// The room somebody wants.
    ///
    /// # Errors
    /// It is not there, or could not be opened; nothing was created then.
    pub(crate) fn find(self: &Arc<Self>, wish: Wish) -> Result<Found, PluginError> {
        let mut index = self.index();
        let fresh = match wish {
            Wish::Existing(id) => {
                return index.rooms.get(&id).filter(|entry| entry.is_alive()).map(Entry::found).ok_or_else(
                    || {
                        PluginError::not_found(format!(
                            "Notebook {id} is no longer available (not found or evicted)"
                        ))
                    },
                );
            }
            Wish::OrOpen(fresh) => *fresh,
        };
        let known = fresh.path.as_ref().and_then(|path| index.files.get(path).copied()).or(fresh.id);
        if let Some(entry) = known.and_then(|id| index.rooms.get(&id)).filter(|entry| entry.is_alive()) {
            return Ok(entry.found());
        }
        if index.closed {
            return Err(PluginError::unavailable("The daemon is shutting down"));
        }
        Ok(self.open(&mut index, fresh))
    }

    /// Whether a room is in memory.
    pub(crate) fn is_open(&self, id: Uuid) -> bool {
        self.index().rooms.get(&id).is_some_and(Entry::is_alive)
    }

    /// Every room that is in memory.
    pub(crate) fn open_rooms(&self) -> Vec<(Uuid, Inbox)> {
        self.index().rooms.iter().map(|(room, entry)| (*room, entry.inbox.clone())).collect()
    }

    /// Every room, with its file.
    pub(crate) fn found(&self) -> Vec<(Uuid, Found)> {
        self.index().rooms.iter().map(|(room, entry)| (*room, entry.found())).collect()
    }

    /// Every room.
    pub(crate) fn all(&self) -> Vec<Inbox> {
        self.index().rooms.values().map(|entry| entry.inbox.clone()).collect()
    }

    /// The room with this id, or the room of this file.
    pub(crate) fn named(&self, name: &str) -> Option<Inbox> {
        let index = self.index();
        let id = match name.parse() {
            Ok(id) => id,
            Err(_) => *index.files.get(Path::new(name))?,
        };
        index.rooms.get(&id).map(|entry| entry.inbox.clone())
    }

    /// Removes journals nobody has wanted for long, and leases of daemons that are gone, in the background.
    pub(crate) fn sweep(self: &Arc<Self>) {
        let directory = self.clone();
        self.index().tasks.spawn_blocking(move || {
            directory.leases.sweep();
            sweep(&directory.journals, |room, journal| {
                let removed = directory.while_closed(room, || std::fs::remove_file(journal));
                if let Some(Err(error)) = removed {
                    tracing::warn!(%error, journal = %journal.display(), "an old journal was not removed");
                }
            });
        });
    }

    /// Does something in the background. It ends with the rooms.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.index().tasks.spawn(work);
    }

    /// Does something, quickly, unless the room is in memory; nobody opens it meanwhile.
    pub(crate) fn while_closed<T>(&self, room: Uuid, work: impl FnOnce() -> T) -> Option<T> {
        let index = self.index();
        (!index.rooms.contains_key(&room)).then(work)
    }

    /// Lets no more rooms open.
    pub(crate) fn close(&self) {
        self.index().closed = true;
    }

    /// Forgets a room that ends, unless another has its id by now. The lease of its file is for whoever still
    /// has something to write.
    pub(crate) fn forget(&self, id: Uuid, inbox: &Inbox) -> Option<Arc<Lease>> {
        let mut index = self.index();
        if index.rooms.get(&id).is_some_and(|entry| entry.inbox.same_channel(inbox)) {
            index.files.retain(|_, room| *room != id);
            let gone = index.rooms.remove(&id)?;
            self.warm.rooms(index.rooms.len());
            return gone.lease;
        }
        None
    }

    /// Carries out a save, which is announced to the room. A room that saves under another name gets that file for
    /// its own.
    ///
    /// # Errors
    /// See [`SaveFailure`]; the room keeps the file it had.
    pub(crate) async fn save(
        &self,
        plan: SavePlan,
        blobs: Option<Arc<dyn BlobStore>>,
        announce: Announce,
    ) -> Result<Written, SaveFailure> {
        let room = plan.room;
        let before = self.index().rooms.get(&room).and_then(|entry| entry.path.clone());
        if plan.bound {
            let path = plan.path.clone();
            return disk::save(plan, path, None, blobs, Some(announce)).await;
        }
        let wanted = plan.path.clone();
        let target = tokio::task::spawn_blocking(move || paths::save_target(&wanted))
            .await
            .map_err(|error| SaveFailure::Io(format!("internal error: {error}")))?;
        if before.as_ref() == Some(&target) {
            // Another name of the room's own file.
            let plan = SavePlan { bound: true, ..plan };
            return disk::save(plan, target, None, blobs, Some(announce)).await;
        }
        let (leases, path) = (self.leases.clone(), target.clone());
        let lease =
            tokio::task::spawn_blocking(move || leases.take(&path).map_err(|holder| holder.report(&path)))
                .await
                .map_err(|error| SaveFailure::Io(format!("internal error: {error}")))?
                .map_err(SaveFailure::Io)?;
        self.claim(&target, room)?;
        let result =
            disk::save(plan, target.clone(), before.clone().map(Form::File), blobs, Some(announce)).await;
        let mut index = self.index();
        let given_up = if result.is_ok() { before.as_ref() } else { Some(&target) };
        if let Some(given_up) = given_up.filter(|path| result.is_ok() != (**path == target)) {
            index.files.remove(given_up);
        }
        if result.is_ok()
            && let Some(entry) = index.rooms.get_mut(&room)
        {
            entry.path = Some(target);
            entry.lease = lease;
        }
        result
    }

    /// Opens a copy of an open notebook, which keeps nothing on disk.
    ///
    /// # Errors
    /// The original is not open, or is being loaded.
    pub(crate) async fn copy(self: &Arc<Self>, source: Uuid) -> Result<NewCopy, PluginError> {
        let unknown = || PluginError::not_found(format!("Source notebook not found: {source}"));
        let original = self.find(Wish::Existing(source)).map_err(|_| unknown())?.inbox;
        let (reply, copied) = oneshot::channel();
        original.send(Message::Copy(reply)).map_err(|_| unknown())?;
        let copied = copied.await.map_err(|_| unknown())??;
        let (id, working_dir) = (Uuid::new_v4(), copied.working_dir.clone());
        let kernel = of_new_notebook(&self.host, "").await;
        let fresh = Fresh {
            id: Some(id),
            path: None,
            working_dir: working_dir.clone(),
            environment_mode: copied.environment_mode.clone(),
            ephemeral: true,
            content: Content::Copy(Box::new(copied)),
            kernel,
            journal: None,
            lease: None,
        };
        self.find(Wish::OrOpen(Box::new(fresh)))?;
        Ok(NewCopy { id, working_dir })
    }

    fn claim(&self, path: &Path, room: Uuid) -> Result<(), SaveFailure> {
        let mut index = self.index();
        match index.files.get(path) {
            Some(other) if *other != room && index.rooms.contains_key(other) => {
                Err(SaveFailure::OpenElsewhere { uuid: other.to_string(), path: path.to_owned() })
            }
            _ => {
                index.files.insert(path.to_owned(), room);
                Ok(())
            }
        }
    }

    fn open(self: &Arc<Self>, index: &mut Index, fresh: Fresh) -> Found {
        let id = fresh.id.unwrap_or_else(Uuid::new_v4);
        let settings = self.host.settings().values;
        let incarnation = format!("{:.8}", Uuid::new_v4().simple().to_string());
        let author = Author {
            room: id,
            actor: Actors::of(&incarnation).notebook,
            kernel: fresh.kernel,
            package_manager: default_manager(&settings),
        };
        let opening = Opening {
            id,
            path: fresh.path.clone(),
            working_dir: fresh.working_dir,
            environment_mode: fresh.environment_mode,
            ephemeral: fresh.ephemeral,
            content: fresh.content,
            home: home(),
            default_runtime: author.kernel.name.clone(),
            incarnation,
            at: disk::now(),
        };
        let (own_inbox, inbox) = mpsc::unbounded_channel();
        index
            .rooms
            .insert(id, Entry { inbox: own_inbox.clone(), path: fresh.path.clone(), lease: fresh.lease });
        self.warm.rooms(index.rooms.len());
        if let Some(path) = &fresh.path {
            index.files.insert(path.clone(), id);
        }
        // Tasks that have ended are of no more interest.
        while index.tasks.try_join_next().is_some() {}
        index.tasks.spawn(RoomTask::run(Start {
            opening,
            journal: fresh.journal,
            inbox,
            own_inbox: own_inbox.clone(),
            author,
            host: self.host.clone(),
            directory: self.clone(),
        }));
        Found { inbox: own_inbox, path: fresh.path }
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        // A panic while it was held left at worst a room that is listed and gone, which is looked for.
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn is_alive(&self) -> bool {
        !self.inbox.is_closed()
    }

    fn found(&self) -> Found {
        Found { inbox: self.inbox.clone(), path: self.path.clone() }
    }
}

/// Which package manager new notebooks use, from the settings.
pub(crate) fn default_manager(settings: &serde_json::Value) -> String {
    let manager = settings.get("default_python_env").and_then(serde_json::Value::as_str);
    manager.filter(|manager| !manager.is_empty()).unwrap_or("uv").to_owned()
}

/// Where kernels run that have no other place.
fn home() -> PathBuf {
    std::env::home_dir().filter(|home| home.is_absolute()).unwrap_or_else(|| PathBuf::from("/"))
}
