//! One peer that reads nothing, while others edit the same notebook and a kernel floods it with output.
//!
//! Nobody else is made late, the daemon keeps a bounded amount for it, and when it reads again it comes to have what
//! everybody has.

use runtimed_client::protocol::bootstrap::Bootstrap;
use runtimed_client::protocol::documents::Document as _;
use runtimed_client::protocol::documents::automerge::sync::{Message, State, SyncDoc as _};
use runtimed_client::protocol::documents::automerge::{AutoCommit, ChangeHash};
use runtimed_client::protocol::frame::FrameType;
use runtimed_client::protocol::handshake::{Handshake, NotebookSync};
use runtimed_client::{Client, FrameReader, FrameWriter};
use tokio::time::timeout;

use super::beside::{Beside, Trips};
use super::figures::Figures;
use super::{end, is_staged, size};
use crate::story::Story;
use crate::support::{Daemon, PATIENCE};
use crate::{scripts, tally};

const SETTINGS: &str = r#"{ "install_default_data_packages": false, "conda_pool_size": 0, "uv_pool_size": 1, "keep_alive_secs": 600 }"#;
/// What the daemon may use more, in KiB, while somebody reads nothing: the egress of a connection (17 MiB until the room pauses for
/// it, protocol and copies of the same size), and what an allocator keeps of it.
const ALLOWED: u64 = 64 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn one_that_reads_nothing_is_nobody_elses_concern() {
    if !is_staged() {
        return;
    }
    let mut daemon = scripts::start(SETTINGS, |_| {});
    let story = Story::create(&daemon).await.unwrap();
    story.add("warm", "pass").await.unwrap();
    assert!(story.run("warm").await.unwrap().1);
    // Of text that is in the document, and of displays, each a change of its own.
    let lines = size(20_000, 400_000);
    let displays = size(100, 1000);
    let flood = format!(
        "for n in range({lines}): print('x' * 60, n)\nfor n in range({displays}): display(str(n) + 'y' * 500)"
    );
    story.add("flood", &flood).await.unwrap();
    let id = story.id();
    // Once before: what the flood itself costs.
    assert!(story.run("flood").await.unwrap().1);
    let idle = Beside::idle(&daemon, Some(&id));

    let start = Figures::of(&daemon);
    let flooded = floods(&daemon, &story).await;
    let before = Figures::of(&daemon);

    let stalled = Stalled::join(&daemon, &id).await;
    let beside_stalled = floods(&daemon, &story).await;
    let after = Figures::of(&daemon);
    flooded.compare(&idle, "flood, everybody reads");
    beside_stalled.compare(&idle, "stalled: flood, and one reads nothing");
    beside_stalled.compare(&flooded, "stalled: the same, compared with the flood alone");
    tally(&format!(
        "stalled: {start}; after floods that all read {before}; and as many that one does not {after}"
    ));
    // Every run keeps what it showed, whoever reads it.
    let grown = before.resident.saturating_sub(start.resident);
    assert!(
        after.resident <= before.resident + grown + ALLOWED,
        "memory is bounded: {start}, {before}, {after}"
    );

    // It reads again.
    let heads = story.session.read(|it| {
        [it.notebook.automerge().clone(), it.runtime_state.automerge().clone()]
            .map(|mut document| document.get_heads())
    });
    let read = timeout(PATIENCE, stalled.catch_up(heads)).await.expect("it has what everybody has, in time");
    tally(&format!("stalled: {:.1} MiB read until it had everything", read as f64 / f64::from(1 << 20)));
    drop(story);
    end(&mut daemon);
}

/// Runs that show much, while somebody edits beside them.
async fn floods(daemon: &Daemon, story: &Story) -> Trips {
    let beside = Beside::begin(daemon, Some(&story.id()));
    for _ in 0..size(1, 3) {
        assert!(story.run("flood").await.unwrap().1);
    }
    beside.end()
}

/// A peer that does not read.
struct Stalled {
    reader: FrameReader,
    writer: FrameWriter,
    /// The notebook, and what runs in it.
    documents: [(u8, AutoCommit, State); 2],
}

impl Stalled {
    async fn join(daemon: &Daemon, id: &str) -> Self {
        let handshake = Handshake::NotebookSync(NotebookSync {
            notebook_id: id.to_owned(),
            protocol: Some("v4".into()),
            typed_bootstrap: true,
            ..NotebookSync::default()
        });
        let (reader, mut writer, bootstrap) = Client::new(&daemon.socket).frames(&handshake).await.unwrap();
        assert!(matches!(bootstrap, Bootstrap::ProtocolCapabilities(_)));
        // It asks for everything, and then it is as if its process was stopped.
        let mut documents = [FrameType::NOTEBOOK_SYNC, FrameType::RUNTIME_STATE_SYNC]
            .map(|frame_type| (frame_type, AutoCommit::new(), State::new()));
        for (frame_type, document, state) in &mut documents {
            let message = document.sync().generate_sync_message(state).unwrap();
            writer.send(*frame_type, &message.encode()).await.unwrap();
        }
        Self { reader, writer, documents }
    }

    /// Reads and answers until both documents have these heads; returns how many bytes that took.
    async fn catch_up(mut self, heads: [Vec<ChangeHash>; 2]) -> u64 {
        let mut read = 0;
        while !self.documents.iter_mut().zip(&heads).all(|((_, document, _), heads)| {
            heads.iter().all(|head| document.get_change_by_hash(head).is_some())
        }) {
            let frame = self.reader.next().await.expect("it is not let go");
            read += frame.payload.len() as u64;
            for (frame_type, document, state) in &mut self.documents {
                if frame.frame_type == *frame_type {
                    let message = Message::decode(&frame.payload).unwrap();
                    document.sync().receive_sync_message(state, message).unwrap();
                    if let Some(answer) = document.sync().generate_sync_message(state) {
                        self.writer.send(*frame_type, &answer.encode()).await.unwrap();
                    }
                }
            }
        }
        read
    }
}
