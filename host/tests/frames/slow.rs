//! A client that stops reading while a kernel prints.

use runtimed_client::protocol::documents::notebook::{NewCell, Place};
use runtimed_client::protocol::documents::runtime_state::{Execution, Status};
use runtimed_client::protocol::documents::{Document as _, NotebookDoc, RuntimeStateDoc};
use runtimed_client::protocol::handshake::CreateNotebook;
use runtimed_client::protocol::presence::Presence;
use runtimed_client::protocol::request::NotebookRequest;
use runtimed_client::{Client, NotebookSession};
use runtimed_protocol::frame::FrameType;
use serde_json::{Value, json};

use crate::peer::{Peer, Replica};
use crate::support::Daemon;

/// Cells that print: 100 MB together, 8 KB of each 200 KB inside the runtime state.
const CELLS: usize = 50;
const PRINTS: &str = "
import os
from IPython.display import display
for _ in range(10):
    print(os.urandom(4_000).hex())
    display({'text/html': os.urandom(96_000).hex()}, raw=True)
";
/// What of the runtime state waits for a client before it is left out: `WINDOW_BYTES` of the egress.
const WINDOW: usize = 1024 * 1024;
/// What the daemon may grow by, generously: less than what was printed. (It was 32 MiB.)
const GROWTH_KIB: u64 = 96 * 1024;

fn add(session: &NotebookSession, id: &str, source: &str) {
    let cell = NewCell {
        id: id.to_owned(),
        cell_type: "code".to_owned(),
        source: source.to_owned(),
        ..NewCell::default()
    };
    session.edit(|notebook| notebook.insert_cell(Place::End, &cell)).unwrap();
}

async fn until(session: &NotebookSession, id: &str, wanted: impl Fn(&Execution) -> bool) -> Execution {
    session.wait_for(|it| it.runtime_state.execution(id).filter(|it| wanted(it))).await.unwrap()
}

/// Resident memory of the daemon; nothing where the system does not say.
fn memory_kib(daemon: &Daemon) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_costs_little_and_hears_what_is_urgent_first() {
    let settings = r#"{ "install_default_data_packages": false, "uv_pool_size": 1 }"#;
    let Some(daemon) = crate::start_with(settings) else { return };
    let client = Client::new(&daemon.socket);
    let create = CreateNotebook { runtime: "python".into(), ..CreateNotebook::default() };
    let fast = NotebookSession::create(&client, create).await.unwrap();
    fast.ready().await.unwrap();
    add(&fast, "warm", "6 * 7");
    let warm = fast.execute_cell("warm").await.unwrap().execution_id;
    assert_eq!(until(&fast, &warm, |it| it.status.is_terminal()).await.status, Status::Done);

    let join = json!({"channel": "notebook_sync", "notebook_id": fast.notebook_id(), "protocol": "v4"});
    let mut slow = Peer::connect(&daemon, join);
    let mut notebook = Replica::new(NotebookDoc::genesis("local:tester/slow").unwrap(), 0x00);
    let mut runtime = Replica::new(RuntimeStateDoc::new("local:tester/slow").unwrap(), 0x05);
    while notebook.document.source("warm").is_none() || runtime.document.execution(&warm).is_none() {
        let frame = slow.receive();
        notebook.hear(&mut slow, &frame);
        runtime.hear(&mut slow, &frame);
    }

    // From here on it is alive and reads nothing.
    let before = memory_kib(&daemon);
    for cell in 0..CELLS {
        add(&fast, &format!("prints {cell}"), PRINTS);
        let printed = fast.execute_cell(&format!("prints {cell}")).await.unwrap().execution_id;
        assert_eq!(until(&fast, &printed, |it| it.status.is_terminal()).await.status, Status::Done);
        let heartbeat = Presence::Heartbeat { peer_id: "local".to_owned() };
        slow.send(FrameType::PRESENCE, &heartbeat.encode().unwrap());
    }
    let grown = before.zip(memory_kib(&daemon)).map(|(before, after)| after.saturating_sub(before));
    assert!(grown.is_none_or(|grown| grown < GROWTH_KIB), "{grown:?} KiB");

    // It interrupts what runs, and somebody else types.
    add(&fast, "endless", "import time; time.sleep(600)");
    let endless = fast.execute_cell("endless").await.unwrap().execution_id;
    until(&fast, &endless, |it| it.status == Status::Running).await;
    slow.send(
        FrameType::REQUEST,
        json!({"id": "stop", "action": "interrupt_execution"}).to_string().as_bytes(),
    );
    assert_eq!(until(&fast, &endless, |it| it.status.is_terminal()).await.status, Status::Error);
    add(&fast, "typed", "");
    fast.request(NotebookRequest::AcknowledgeNotebookSync).await.unwrap();

    // Now it reads: the edit and the answer come before most of what waited for it.
    let (mut answered, mut waited) = (false, 0);
    while !answered || notebook.document.source("typed").is_none() {
        let frame = slow.receive();
        match frame.0 {
            FrameType::RESPONSE => {
                let answer: Value = serde_json::from_slice(&frame.1).unwrap();
                assert_eq!(answer, json!({"id": "stop", "result": "interrupt_sent"}));
                answered = true;
            }
            FrameType::RUNTIME_STATE_SYNC => waited += frame.1.len(),
            _ => {}
        }
        notebook.hear(&mut slow, &frame);
        runtime.hear(&mut slow, &frame);
    }
    assert!(runtime.document.execution(&endless).is_none(), "the runtime state is still on its way");
    assert!(waited < WINDOW, "{waited} bytes came before what is urgent");

    // It was never dropped, and has the same as everybody in the end.
    let heads = fast.read(|it| {
        (it.notebook.automerge().clone().get_heads(), it.runtime_state.automerge().clone().get_heads())
    });
    while (notebook.document.heads(), runtime.document.heads()) != heads {
        let frame = slow.receive();
        notebook.hear(&mut slow, &frame);
        runtime.hear(&mut slow, &frame);
    }
    assert_eq!(runtime.document.execution(&endless).unwrap().status, Status::Error);
    assert_eq!(
        slow.ask(json!({"action": "acknowledge_notebook_sync"}))["result"],
        "notebook_sync_acknowledged"
    );
    fast.close().await;
    drop(slow);
    crate::stop(daemon);
}
