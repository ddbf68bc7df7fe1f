//! Output widgets: what is printed and displayed while one of them listens.
//!
//! For: `with output: print(...)`, in cells and in callbacks of other widgets.
//! Promises: what a message caused goes to the widget that took it over last, and not to the cell; its outputs are as
//! those of a cell: in order, coalesced, cleared by `clear_output`, and updated by display id.
//! Never: tells the kernel. Its model of the widget has only the outputs that it was given there.

use std::collections::BTreeMap;

use runtimed_protocol::documents::runtime_state::CommEntry;
use runtimed_protocol::documents::{Output, RuntimeStateDoc};
use serde_json::{Map as JsonMap, Value as Json};

use crate::outputs::{Collector, DisplayUpdate, NewBlob, OutputChange};
use crate::room::core::{RoomCore, kept};

/// Model and module of output widgets.
const MODEL: (&str, &str) = ("OutputModel", "@jupyter-widgets/output");

/// Those that are open.
#[derive(Default)]
pub(in crate::room) struct Captures {
    open: BTreeMap<String, Capture>,
    /// How often one began to listen.
    begun: u64,
}

#[derive(Default)]
struct Capture {
    /// The message it listens to; empty if it does not.
    parent: String,
    /// When it began, compared with others.
    begun: u64,
    collector: Collector,
    /// What clients see of it, in order.
    shown: BTreeMap<u64, Output>,
}

impl Captures {
    /// Those of a kernel that goes on.
    pub(in crate::room) fn resume(runtime: &RuntimeStateDoc) -> Self {
        let mut captures = Self::default();
        for comm in runtime.comm_ids() {
            let Some(entry) = runtime.comm(&comm).filter(listens) else { continue };
            let outputs: Vec<(u64, Output)> = (0..).zip(entry.outputs).collect();
            let capture = Capture {
                parent: entry.capture_msg_id,
                collector: Collector::resume(&outputs),
                shown: outputs.into_iter().collect(),
                ..Capture::default()
            };
            captures.open.insert(comm, capture);
        }
        captures
    }

    /// A widget is there.
    pub(super) fn open(&mut self, comm: &str, entry: &CommEntry) {
        if listens(entry) {
            self.open.insert(comm.to_owned(), Capture::default());
        }
    }

    /// A widget is gone.
    pub(super) fn close(&mut self, comm: &str) {
        self.open.remove(comm);
    }

    /// The kernel changes the state of a widget. The outputs that it gives itself are taken out: they come back as
    /// all others do.
    pub(super) fn update(
        &mut self,
        comm: &str,
        state: &mut JsonMap<String, Json>,
        new_id: &mut dyn FnMut() -> String,
    ) {
        let Some(capture) = self.open.get_mut(comm) else { return };
        if let Some(Json::Array(outputs)) = state.remove("outputs") {
            capture.collector.take("clear_output", b"{}", new_id);
            if outputs.is_empty() {
                state.insert("outputs".to_owned(), Json::Array(Vec::new()));
            }
            for output in outputs {
                let kind = output.get("output_type").and_then(Json::as_str).unwrap_or_default();
                capture.collector.take(kind, output.to_string().as_bytes(), new_id);
            }
        }
        if let Some(parent) = state.get("msg_id").and_then(Json::as_str) {
            capture.collector.finish(new_id);
            self.begun += 1;
            (capture.parent, capture.begun) = (parent.to_owned(), self.begun);
        }
    }

    /// What collects the outputs of a message, if it is one of these.
    pub(in crate::room) fn of(&mut self, parent: &str) -> Option<&mut Collector> {
        let listening = self.open.values_mut().filter(|it| !parent.is_empty() && it.parent == parent);
        listening.max_by_key(|it| it.begun).map(|it| &mut it.collector)
    }

    /// Whether there is something that clients do not see.
    pub(in crate::room) fn is_dirty(&self) -> bool {
        self.open.values().any(|it| it.collector.is_dirty())
    }

    /// About how many bytes the next drain hands over.
    pub(in crate::room) fn waiting_bytes(&self) -> usize {
        self.open.values().map(|it| it.collector.waiting_bytes()).sum()
    }

    /// Updates a display that clients do not see yet.
    pub(in crate::room) fn update_display(&mut self, update: &DisplayUpdate) {
        self.open.values_mut().for_each(|it| it.collector.update_display(update));
    }

    /// Everything since the last time, by widget.
    pub(in crate::room) fn drain(
        &mut self,
        new_id: &mut dyn FnMut() -> String,
        blobs: &mut Vec<NewBlob>,
    ) -> Vec<(String, OutputChange)> {
        let mut changes = Vec::new();
        for (comm, capture) in self.open.iter_mut().filter(|(_, it)| it.collector.is_dirty()) {
            let drained = capture.collector.drain(new_id);
            blobs.extend(drained.blobs);
            changes.extend(drained.changes.into_iter().map(|change| (comm.clone(), change)));
        }
        changes
    }
}

impl RoomCore {
    /// Shows what output widgets have taken.
    pub(in crate::room) fn show_captured(&mut self, changes: Vec<(String, OutputChange)>) {
        let mut touched = Vec::new();
        for (comm, change) in changes {
            let Some(capture) = self.publication.captures.open.get_mut(&comm) else { continue };
            match change {
                OutputChange::Put { seq, output, .. } => drop(capture.shown.insert(seq, output)),
                OutputChange::Remove { output_id } => {
                    capture.shown.retain(|_, output| output.output_id() != output_id);
                }
            }
            if touched.last() != Some(&comm) {
                touched.push(comm);
            }
        }
        touched.iter().for_each(|comm| self.write_captured(comm));
    }

    /// Updates a display in every output widget that shows it.
    pub(in crate::room) fn update_captured(&mut self, update: &DisplayUpdate) {
        let mut touched = Vec::new();
        for (comm, capture) in &mut self.publication.captures.open {
            let updated = capture.shown.values_mut().filter_map(|it| update.apply(it).then_some(())).count();
            if updated > 0 {
                touched.push(comm.clone());
            }
        }
        touched.iter().for_each(|comm| self.write_captured(comm));
    }

    fn write_captured(&mut self, comm: &str) {
        let Some(capture) = self.publication.captures.open.get(comm) else { return };
        let Some(mut entry) = self.documents.runtime.comm(comm) else { return };
        entry.outputs = capture.shown.values().cloned().collect();
        let outputs: Json = entry.outputs.iter().map(Output::to_json).collect();
        kept(self.documents.runtime.put_comm(comm, &entry));
        kept(self.documents.comms.update(comm, &JsonMap::from_iter([("outputs".to_owned(), outputs)])));
    }
}

/// The entry with the message that it listens to now, if it is an output widget.
pub(super) fn with_parent(mut entry: CommEntry, state: &JsonMap<String, Json>) -> CommEntry {
    if let Some(parent) = state.get("msg_id").and_then(Json::as_str)
        && listens(&entry)
    {
        parent.clone_into(&mut entry.capture_msg_id);
    }
    entry
}

/// Whether it is an output widget.
fn listens(entry: &CommEntry) -> bool {
    (entry.model_name.as_str(), entry.model_module.as_str()) == MODEL
}
