//! Documents, what peers send about them, and notebook files.

use runtimed_protocol::documents::notebook::{NewCell, Place};
use runtimed_protocol::documents::sync::{Incoming, SyncPeer};
use runtimed_protocol::documents::{CommsDoc, Document, NotebookDoc, RuntimeStateDoc};

/// As whom the daemon writes.
const DAEMON: &str = "runtimed";
/// Who is connected.
const PEER: &str = "local:user";

/// A message of a peer about each of the documents it may write, and the answer.
pub(crate) fn sync(bytes: &[u8]) {
    let Ok(incoming) = Incoming::decode(bytes) else { return };
    let (Some(mut notebook), Ok(mut state)) = (notebook(), RuntimeStateDoc::new(DAEMON)) else { return };
    let mut peer = SyncPeer::new();
    if peer.receive_from(&mut notebook, incoming.clone(), PEER).is_ok() {
        look(&notebook);
        let _ = peer.generate(&mut notebook);
        assert!(NotebookDoc::load(&notebook.save(), DAEMON).is_ok(), "what was taken cannot be kept");
    }
    let mut peer = SyncPeer::new();
    if peer.receive_stripped(&mut state, incoming).is_ok() {
        let _ = peer.generate(&mut state);
    }
    if let Ok(mut replica) = NotebookDoc::genesis(PEER) {
        let _ = SyncPeer::new().follow(&mut replica, bytes);
        look(&replica);
    }
}

pub(crate) fn sync_seeds() -> Vec<Vec<u8>> {
    let Some(mut ours) = notebook() else { return Vec::new() };
    let Ok(mut theirs) = NotebookDoc::genesis(PEER) else { return Vec::new() };
    let cell = NewCell { id: "n".into(), cell_type: "markdown".into(), ..NewCell::default() };
    let _ = theirs.insert_cell(Place::Start, &cell);
    theirs.commit();
    let (mut here, mut there) = (SyncPeer::new(), SyncPeer::new());
    let mut seeds = Vec::new();
    // Until they agree; some rounds are enough for any two documents.
    for _ in 0..8 {
        seeds.extend(tell((&mut here, &mut ours), (&mut there, &mut theirs)));
        seeds.extend(tell((&mut there, &mut theirs), (&mut here, &mut ours)));
    }
    seeds
}

/// What one side has to say, told to the other.
fn tell(from: (&mut SyncPeer, &mut NotebookDoc), to: (&mut SyncPeer, &mut NotebookDoc)) -> Option<Vec<u8>> {
    let message = from.0.generate(from.1)?;
    let _ = to.0.receive(to.1, Incoming::decode(&message).ok()?);
    Some(message)
}

/// A document that was kept.
pub(crate) fn document(bytes: &[u8]) {
    if let Ok(notebook) = NotebookDoc::load(bytes, DAEMON) {
        look(&notebook);
    }
    let _ = RuntimeStateDoc::load(bytes, DAEMON);
    let _ = CommsDoc::load(bytes, DAEMON);
}

pub(crate) fn document_seeds() -> Vec<Vec<u8>> {
    let state = RuntimeStateDoc::new(DAEMON).ok().map(|mut state| state.save());
    notebook().map(|mut notebook| notebook.save()).into_iter().chain(state).collect()
}

pub(crate) fn notebook_file_seeds() -> Vec<Vec<u8>> {
    vec![
        include_bytes!("../../plugins/rooms/tests/data/notebooks/exotic.ipynb").to_vec(),
        include_bytes!("../../plugins/rooms/tests/data/notebooks/v3.ipynb").to_vec(),
        include_bytes!("../../plugins/rooms/tests/data/notebooks/windows.ipynb").to_vec(),
        include_bytes!("../../plugins/rooms/tests/data/notebooks/demo_saved.ipynb").to_vec(),
        br#"{"nbformat":2,"nbformat_minor":0,"metadata":{},"worksheets":[{"cells":[{"cell_type":"code","input":"1","outputs":[]}]}]}"#.to_vec(),
    ]
}

/// A notebook with two cells and some edits.
fn notebook() -> Option<NotebookDoc> {
    let mut notebook = NotebookDoc::new("n", DAEMON).ok()?;
    for id in ["a", "b"] {
        let cell = NewCell {
            id: id.into(),
            cell_type: "code".into(),
            source: "print('ä 🎉')\n".into(),
            ..NewCell::default()
        };
        notebook.insert_cell(Place::End, &cell).ok()?;
        notebook.commit();
    }
    notebook.set_source("a", "print(2)").ok()?;
    notebook.move_cell("a", Place::End).ok()?;
    notebook.commit();
    Some(notebook)
}

/// Everything that the daemon reads in it.
fn look(notebook: &NotebookDoc) {
    for cell in notebook.cells() {
        assert!(notebook.cell(&cell.id).is_some(), "a cell that is not there");
    }
    let _ = (notebook.cell_ids(), notebook.notebook_id(), notebook.schema_version());
}
