//! Notebooks for windows that keep their own replicas.
//!
//! For: any application that shows web views; this file knows nothing of Tauri.
//! Promises: frames reach a window in the order in which the daemon sent them; a window that goes, if the application
//! says so ([`Bridge::close_all`]), leaves no task and no connection; a request has exactly one answer.
//! Never: looks into documents. A window that has no Automerge uses `runtimed_client::NotebookSession` in Rust instead.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use runtimed_client::protocol::frame::{FrameType, TypedFrame};
use runtimed_client::protocol::handshake::{CreateNotebook, Handshake, NotebookSync, OpenNotebook};
use runtimed_client::protocol::pool::PoolRequest;
use runtimed_client::{Client, ClientError, FrameReader, FrameWriter, HEARTBEAT};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use uuid::Uuid;

/// Frames on their way from a window to the daemon. A window that has more of them waits.
const QUEUE: usize = 64;
/// How long a daemon may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(15);

/// Which notebook a window wants.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Notebook {
    /// The one in this file, which is made when it is saved if it is not there.
    Path(String),
    /// The one with this id, which is open or kept.
    Id(String),
    /// A new one, for `python`, `deno` or a kernelspec's name.
    New(String),
}

/// An open notebook, for the window that opened it.
#[derive(Debug, Serialize)]
pub struct Opened {
    /// What every other command wants.
    pub session: Uuid,
    /// The daemon's first words: the notebook's id, the window's actor label, and more.
    pub bootstrap: Value,
}

/// What a window is told.
#[derive(Debug, PartialEq, Eq)]
pub enum Told {
    /// A frame: its type byte, and what follows it.
    Frame(Vec<u8>),
    /// That the session is over, and why.
    Closed(String),
}

/// Tells a window.
pub type Tell = Box<dyn Fn(Told) + Send + Sync>;

/// The notebooks that windows have open.
pub struct Bridge {
    /// Where the daemon is.
    client: Client,
    /// By what the window knows them. Those that are over are not there.
    sessions: Arc<Sessions>,
}

/// Open notebooks, by what their windows know them.
type Sessions = Mutex<HashMap<Uuid, Session>>;

/// One open notebook.
struct Session {
    /// Which window has it.
    window: String,
    /// Frames to the daemon.
    outgoing: mpsc::Sender<(u8, Vec<u8>)>,
    /// Who waits for an answer, by the request's id.
    waiting: Arc<Waiting>,
    /// Carries the frames. Ended with the session.
    task: JoinHandle<()>,
}

/// Who waits for an answer, by the request's id.
type Waiting = Mutex<HashMap<String, oneshot::Sender<Value>>>;

impl Drop for Session {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Bridge {
    /// The notebooks of the daemon that `client` reaches.
    pub fn new(client: Client) -> Self {
        Self { client, sessions: Arc::default() }
    }

    /// Opens a notebook for `window`; `tell` hears of it until it is closed. `operator` says who writes, such as
    /// `desktop:main`.
    ///
    /// # Errors
    /// When no daemon answers, or it refuses: in words for the user.
    pub async fn open(
        &self,
        window: &str,
        notebook: Notebook,
        operator: Option<String>,
        tell: Tell,
    ) -> Result<Opened, String> {
        let handshake = handshake(notebook, operator);
        let (reader, writer, bootstrap) =
            self.client.frames(&handshake).await.map_err(|error| words(&error))?;
        let bootstrap = serde_json::to_value(&bootstrap).map_err(|error| error.to_string())?;
        let (outgoing, queue) = mpsc::channel(QUEUE);
        let waiting = Arc::<Waiting>::default();
        let session = Uuid::new_v4();
        // Nobody can end it before it is known.
        let mut sessions = lock(&self.sessions);
        let carried = carry(reader, writer, queue, Arc::clone(&waiting), tell);
        let (known, window) = (Arc::downgrade(&self.sessions), window.to_owned());
        let task = tokio::spawn(async move {
            carried.await;
            let over = known.upgrade().and_then(|sessions| lock(&sessions).remove(&session));
            // That ends this task, which is at its end.
            drop(over);
        });
        sessions.insert(session, Session { window, outgoing, waiting, task });
        Ok(Opened { session, bootstrap })
    }

    /// Sends a frame: its type byte, and what follows it.
    ///
    /// # Errors
    /// When the session is over, or the frame is empty.
    pub async fn send(&self, session: Uuid, frame: &[u8]) -> Result<(), String> {
        let (&frame_type, payload) = frame.split_first().ok_or("a frame without its type byte")?;
        let outgoing = self.with(session, |session| session.outgoing.clone())?;
        outgoing.send((frame_type, payload.to_vec())).await.map_err(|_| over())
    }

    /// Asks the notebook's room: an `action` and its fields. The answer is the daemon's, `result` and its fields.
    ///
    /// # Errors
    /// When the session ends before there is an answer. A refusal is an answer.
    pub async fn request(&self, session: Uuid, mut request: Map<String, Value>) -> Result<Value, String> {
        let id = Uuid::new_v4().to_string();
        request.insert("id".into(), id.clone().into());
        let payload = serde_json::to_vec(&request).map_err(|error| error.to_string())?;
        let (tell, answer) = oneshot::channel();
        let outgoing = self.with(session, |session| {
            lock(&session.waiting).insert(id, tell);
            session.outgoing.clone()
        })?;
        outgoing.send((FrameType::REQUEST, payload)).await.map_err(|_| over())?;
        // Who waits does not keep it open.
        drop(outgoing);
        answer.await.map_err(|_| over())
    }

    /// Asks the daemon as a whole: `{"type": "ping"}`, `{"type": "list_rooms"}` and so on.
    ///
    /// # Errors
    /// When no daemon answers, it refuses, or does not know the question.
    pub async fn ask(&self, request: PoolRequest) -> Result<Value, String> {
        let reply = self.client.ask(&request).await.map_err(|error| words(&error))?;
        serde_json::to_value(&reply).map_err(|error| error.to_string())
    }

    /// Closes a notebook for its window. What was sent has arrived; its kernel goes on as the settings say.
    pub async fn close(&self, session: Uuid) {
        let ended = lock(&self.sessions).remove(&session);
        let Some(mut session) = ended else { return };
        // Nothing to send any more is the goodbye.
        session.outgoing = mpsc::channel(1).0;
        // Ended by a daemon that does not answer, or by itself: it is over either way.
        let _ = tokio::time::timeout(GOODBYE, &mut session.task).await;
    }

    /// Ends everything a window has open: it is gone, or shows another page.
    pub fn close_all(&self, window: &str) {
        lock(&self.sessions).retain(|_, session| session.window != window);
    }

    /// Looks at an open notebook.
    fn with<T>(&self, session: Uuid, look: impl FnOnce(&Session) -> T) -> Result<T, String> {
        lock(&self.sessions).get(&session).map(look).ok_or_else(over)
    }
}

/// Carries frames both ways until one side has enough.
async fn carry(
    mut reader: FrameReader,
    writer: FrameWriter,
    queue: mpsc::Receiver<(u8, Vec<u8>)>,
    waiting: Arc<Waiting>,
    tell: Tell,
) {
    let reading = async {
        loop {
            match reader.next().await {
                Ok(frame) => take(&frame, &waiting, &tell),
                Err(error) => return words(&error),
            }
        }
    };
    let mut reading = std::pin::pin!(reading);
    let why = tokio::select! {
        why = &mut reading => why,
        sent = write(writer, queue) => match sent {
            // The window said goodbye: what the daemon still has to say is heard.
            Ok(()) => {
                reading.await;
                "closed".to_owned()
            }
            Err(error) => words(&error),
        },
    };
    lock(&waiting).clear();
    tell(Told::Closed(why));
}

/// Hands a frame to the request it answers, else to the window.
fn take(frame: &TypedFrame, waiting: &Waiting, tell: &Tell) {
    if frame.frame_type == FrameType::RESPONSE
        && let Ok(mut answer) = serde_json::from_slice::<Map<String, Value>>(&frame.payload)
        && let Some(asked) = answer.get("id").and_then(Value::as_str).and_then(|id| lock(waiting).remove(id))
    {
        answer.remove("id");
        // Whoever asked may be gone.
        let _ = asked.send(Value::Object(answer));
        return;
    }
    tell(Told::Frame([&[frame.frame_type][..], &frame.payload].concat()));
}

/// Sends what is queued, and a sign of life now and then, until nobody can queue more.
async fn write(mut writer: FrameWriter, mut queue: mpsc::Receiver<(u8, Vec<u8>)>) -> Result<(), ClientError> {
    let mut heartbeat = tokio::time::interval(HEARTBEAT);
    loop {
        tokio::select! {
            frame = queue.recv() => match frame {
                Some((frame_type, payload)) => writer.send(frame_type, &payload).await?,
                None => return Ok(()),
            },
            _ = heartbeat.tick() => writer.send_alive().await?,
        }
    }
}

fn handshake(notebook: Notebook, operator: Option<String>) -> Handshake {
    match notebook {
        Notebook::Path(path) => Handshake::OpenNotebook(OpenNotebook {
            path,
            operator,
            typed_bootstrap: true,
            ..OpenNotebook::default()
        }),
        Notebook::Id(notebook_id) => Handshake::NotebookSync(NotebookSync {
            notebook_id,
            operator,
            typed_bootstrap: true,
            protocol: Some("v4".into()),
            ..NotebookSync::default()
        }),
        Notebook::New(runtime) => Handshake::CreateNotebook(CreateNotebook {
            runtime,
            operator,
            typed_bootstrap: true,
            ..CreateNotebook::default()
        }),
    }
}

/// An error for a window.
fn words(error: &ClientError) -> String {
    match error {
        ClientError::Connect(_) => format!(
            "{error}. Notebooks that are open elsewhere are safe. Start it with `runt daemon start`, then open again."
        ),
        ClientError::Disconnected => {
            "The connection to the daemon has ended. What it acknowledged is kept. Open the notebook again."
                .into()
        }
        error => error.to_string(),
    }
}

fn over() -> String {
    "this notebook is closed; open it again".into()
}

/// A lock whose holder cannot leave half a change.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
