//! The notebooks this server is connected to, and which one is meant.
//!
//! Promises: a notebook that was connected is found again after the daemon was restarted, whatever its version.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use runtimed_client::protocol::handshake::OpenNotebook;
use runtimed_client::{Client, ClientError, NotebookSession};
use tokio::time::timeout;

use crate::notebook::Notebook;
use crate::refusal::Refusal;

/// How long a session waits for the next daemon. One that is restarted or upgraded is back in a second; after that time
/// the next call of a tool connects anew.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a call waits for a daemon that is away just now, before it says so.
const AWAY_LIMIT: Duration = Duration::from_secs(15);

/// The connected notebooks.
pub(crate) struct Notebooks {
    client: Client,
    open: Mutex<Open>,
}

/// Those that are connected, the one that is meant if none is named at the end.
#[derive(Default)]
struct Open(Vec<Arc<Notebook>>);

impl Notebooks {
    /// None yet, of this daemon.
    pub(crate) fn new(client: Client) -> Self {
        Self { client: client.patient(PATIENCE), open: Mutex::default() }
    }

    /// The daemon.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Waits for a daemon that is away just now.
    ///
    /// # Errors
    /// If it stays away.
    pub(crate) async fn reach(&self) -> Result<(), Refusal> {
        match self.client.reach(AWAY_LIMIT).await {
            Ok(_) => Ok(()),
            Err(ClientError::Connect(_) | ClientError::Timeout | ClientError::Disconnected) => Err(away()),
            Err(error) => Err(error.into()),
        }
    }

    /// Adds a session of `client` once its notebook is here whole. It is the one that is meant from now on.
    ///
    /// # Errors
    /// If the notebook cannot be read.
    pub(crate) async fn add(
        &self,
        client: &Client,
        session: NotebookSession,
    ) -> Result<Arc<Notebook>, Refusal> {
        let notebook = ready(client, session).await?;
        let open = &mut self.lock().0;
        open.retain(|other| other.id != notebook.id);
        open.push(Arc::clone(&notebook));
        Ok(notebook)
    }

    /// The notebook that is meant by its id, its path or the end of its path; the one that was connected last if none is
    /// named. A lost connection is made again.
    ///
    /// # Errors
    /// If there is none, or not exactly one, or the daemon is away.
    pub(crate) async fn get(&self, name: Option<&str>) -> Result<Arc<Notebook>, Refusal> {
        let notebook = self.find(name)?;
        match timeout(AWAY_LIMIT, notebook.session.connected()).await {
            Ok(Ok(())) => Ok(notebook),
            Ok(Err(_)) => self.again(&notebook).await,
            Err(_) => Err(away()),
        }
    }

    /// Forgets a notebook and returns it. Its connection goes with the last who uses it.
    ///
    /// # Errors
    /// As [`Notebooks::get`].
    pub(crate) fn remove(&self, name: Option<&str>) -> Result<Arc<Notebook>, Refusal> {
        let notebook = self.find(name)?;
        self.lock().0.retain(|other| other.id != notebook.id);
        Ok(notebook)
    }

    /// Ids of all, the one that is meant if none is named at the end.
    pub(crate) fn ids(&self) -> Vec<String> {
        self.lock().0.iter().map(|notebook| notebook.id.clone()).collect()
    }

    /// Ends all connections after what was edited has left.
    pub(crate) async fn close(&self) {
        let all = std::mem::take(&mut self.lock().0);
        for notebook in all {
            // Somebody who still uses it ends the connection instead.
            if let Ok(notebook) = Arc::try_unwrap(notebook) {
                notebook.session.close().await;
            }
        }
    }

    fn find(&self, name: Option<&str>) -> Result<Arc<Notebook>, Refusal> {
        let open = self.lock();
        let Some(name) = name else {
            return open.0.last().cloned().ok_or_else(|| {
                Refusal::new(
                    "No notebook is connected. Use create_notebook, or list_active_notebooks and connect_notebook.",
                )
            });
        };
        let is_meant = |it: &&Arc<Notebook>| {
            it.id == name || it.path().is_some_and(|path| Path::new(&path).ends_with(name))
        };
        let mut meant = open.0.iter().filter(is_meant);
        match (meant.next(), meant.next()) {
            (Some(one), None) => Ok(Arc::clone(one)),
            (Some(_), Some(_)) => Err(Refusal(format!(
                "More than one connected notebook is called `{name}`. Give its notebook_id."
            ))),
            (None, _) => Err(Refusal(format!(
                "`{name}` is not connected. Connect it with connect_notebook first. Connected are: {}.",
                if open.0.is_empty() { "none".to_owned() } else { names(&open.0) }
            ))),
        }
    }

    /// Connects again: by its id, or by its file if the daemon does not know the id any more.
    async fn again(&self, lost: &Notebook) -> Result<Arc<Notebook>, Refusal> {
        tracing::info!(notebook = lost.id, "connecting again");
        self.reach().await?;
        let joined = match NotebookSession::join(&lost.client, lost.id.as_str()).await {
            Err(ClientError::Daemon(reason)) => match lost.path().filter(|path| Path::new(path).is_file()) {
                Some(path) => {
                    NotebookSession::open(&lost.client, OpenNotebook { path, ..OpenNotebook::default() })
                        .await
                }
                None => Err(ClientError::Daemon(reason)),
            },
            joined => joined,
        };
        match joined {
            Ok(session) => {
                let found = ready(&lost.client, session).await?;
                for other in self.lock().0.iter_mut().filter(|other| other.id == lost.id) {
                    *other = Arc::clone(&found);
                }
                Ok(found)
            }
            Err(ClientError::Daemon(reason)) => {
                self.lock().0.retain(|other| other.id != lost.id);
                Err(Refusal(format!(
                    "The notebook was closed meanwhile, and is not connected any more: {reason} Use \
                     list_active_notebooks, or connect_notebook with its path."
                )))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Nobody answers.
fn away() -> Refusal {
    Refusal::new(
        "The notebook daemon is away just now. Nothing was done. Do this again in a moment; if it stays away, ask the \
         user to run `runt daemon start`.",
    )
}

/// A connected notebook, once it is here whole.
async fn ready(client: &Client, session: NotebookSession) -> Result<Arc<Notebook>, Refusal> {
    session.ready().await?;
    let id = session.notebook_id();
    let id = id.ok_or_else(|| Refusal::new("The daemon did not say which notebook this is."))?;
    Ok(Arc::new(Notebook::new(id, session, client.clone())))
}

fn names(notebooks: &[Arc<Notebook>]) -> String {
    let name = |it: &Arc<Notebook>| it.path().unwrap_or_else(|| it.id.clone());
    notebooks.iter().map(name).collect::<Vec<_>>().join(", ")
}
