//! Somebody who edits while others are a burden, and knows how long each edit took to arrive.
//!
//! For: comparing that with how long it takes when nothing else happens, in the same run.
//! Promises: an edit that does not arrive fails the test; one that is late does not.

use std::fmt::{Display, Formatter};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use runtimed_client::protocol::documents::notebook::{NewCell, Place};
use runtimed_client::protocol::handshake::CreateNotebook;
use runtimed_client::{Client, NotebookSession};
use tokio::time::{sleep, timeout};

use super::size;
use crate::support::Daemon;
use crate::tally;

/// Pause between two edits: about what several people type.
const PAUSE: Duration = Duration::from_millis(10);
/// An edit that takes longer does not arrive.
const LOST: Duration = Duration::from_secs(60);

/// Two windows of a notebook, the one edits, the other waits for it. In a thread of its own.
pub(crate) struct Beside {
    thread: JoinHandle<Vec<Duration>>,
    stop: Arc<AtomicBool>,
}

impl Beside {
    /// Begins to edit, in a notebook of its own or in the one with this id, and goes on until the end.
    pub(crate) fn begin(daemon: &Daemon, notebook: Option<&str>) -> Self {
        let (client, notebook) = (Client::new(&daemon.socket), notebook.map(ToOwned::to_owned));
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(edit(client, notebook, || stopped.load(Ordering::Relaxed)))
        });
        Self { thread, stop }
    }

    /// The same for a moment in which nothing else happens.
    pub(crate) fn idle(daemon: &Daemon, notebook: Option<&str>) -> Trips {
        let beside = Self::begin(daemon, notebook);
        std::thread::sleep(Duration::from_secs(size(1, 8)));
        beside.end()
    }

    /// Lets the last edit arrive.
    pub(crate) fn end(self) -> Trips {
        self.stop.store(true, Ordering::Relaxed);
        let mut trips = self.thread.join().expect("every edit arrives");
        trips.sort_unstable();
        Trips(trips)
    }
}

async fn edit(client: Client, notebook: Option<String>, stopped: impl Fn() -> bool) -> Vec<Duration> {
    let writer = match &notebook {
        Some(id) => NotebookSession::join(&client, id).await,
        // A kernel that nobody has: nothing starts beside it.
        None => {
            let create = CreateNotebook { runtime: "nobody-has-it".into(), ..CreateNotebook::default() };
            NotebookSession::create(&client, create).await
        }
    };
    let writer = writer.unwrap();
    writer.ready().await.unwrap();
    let reader = NotebookSession::join(&client, writer.notebook_id().unwrap()).await.unwrap();
    reader.ready().await.unwrap();
    let id = uuid::Uuid::new_v4().to_string();
    let cell = NewCell { id: id.clone(), cell_type: "markdown".into(), ..NewCell::default() };
    writer.edit(|notebook| notebook.insert_cell(Place::End, &cell)).unwrap();
    let mut trips = Vec::new();
    while !stopped() || trips.is_empty() {
        let text = format!("edit {}", trips.len());
        let start = Instant::now();
        writer.edit(|notebook| notebook.set_source(&id, &text)).unwrap();
        let arrival = reader.wait_for(|it| (it.notebook.source(&id).as_ref() == Some(&text)).then_some(()));
        timeout(LOST, arrival).await.expect("an edit arrives").unwrap();
        trips.push(start.elapsed());
        sleep(PAUSE).await;
    }
    let own = writer.notebook_id().filter(|_| notebook.is_none());
    reader.close().await;
    writer.close().await;
    if let Some(own) = own {
        assert!(client.shutdown_notebook(&own).await.unwrap());
    }
    trips
}

/// How long edits took, in order of that.
pub(crate) struct Trips(Vec<Duration>);

impl Trips {
    fn share(&self, percent: usize) -> f64 {
        let place = (self.0.len() * percent / 100).min(self.0.len() - 1);
        self.0[place].as_secs_f64() * 1000.0
    }

    /// Says how this compares with `idle`, and notes it.
    pub(crate) fn compare(&self, idle: &Self, what: &str) {
        let ratio = self.share(99) / idle.share(99);
        let verdict = if ratio <= 2.0 { "within 2x" } else { "MORE THAN 2x" };
        tally(&format!("{what}: others' edits {self}, idle {idle}: {ratio:.1} of its p99, {verdict}"));
    }
}

impl Display for Trips {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let [middle, late] = [50, 99].map(|percent| self.share(percent));
        write!(f, "p50 {middle:.1} ms p99 {late:.1} ms ({})", self.0.len())
    }
}
