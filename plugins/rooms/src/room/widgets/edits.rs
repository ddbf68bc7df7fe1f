//! What clients wrote into the state of widgets, on its way to the kernel.
//!
//! For: a slider that one client moves, while the kernel and other clients move it too.
//! Promises: the kernel gets every trait's last value, and before the cell that is run next; a widget has at most one
//! message in the kernel and one that waits for it, however fast a client writes; from the write until the kernel begins
//! to take it, what the kernel says about that trait is older, and is not shown.
//! Never: relies on echoes, which not every kernel sends. That a kernel is busy with a request tells as much.

use std::collections::BTreeSet;

use runtimed_plugin_api::Sequence;
use runtimed_protocol::documents::Document as _;
use runtimed_protocol::documents::automerge::Change;
use serde_json::{Map as JsonMap, Value as Json, json};

use super::outbox::{Blobs, Outgoing};
use crate::journal::Edited;
use crate::room::core::RoomCore;
use crate::room::kernel_message::KernelRequest;

/// The labels of daemons begin with this.
const OURS: &[u8] = b"runtimed:";

/// Changes that are kept until what they build on is here. A client that is in step has none; one that comes back has a
/// message of them at most, and what it wrote last is what counts.
const MOST_EARLY: usize = 1024;

/// Edits, oldest first.
#[derive(Default)]
pub(super) struct Edits(Vec<Edit>);

struct Edit {
    it: Edited,
    /// A former daemon may have sent it, with the values of then: what is written now is an edit of its own.
    former: bool,
    /// It was given to the outbox.
    sent: bool,
    /// The message in which, or before which, the kernel said that it is busy with it.
    begun: Option<Sequence>,
    /// The kernel is done with it.
    done: bool,
}

impl Edit {
    fn new(it: Edited, former: bool) -> Self {
        Self { it, former, sent: false, begun: None, done: false }
    }
}

impl Edits {
    pub(super) fn resume(edited: Vec<Edited>) -> Self {
        Self(edited.into_iter().map(|it| Edit::new(it, true)).collect())
    }

    /// Whether a trait has a value that the kernel has not begun to take.
    pub(super) fn overrules(&self, comm: &str, key: &str) -> bool {
        self.0.iter().any(|edit| edit.begun.is_none() && edit.it.comm == comm && edit.it.keys.contains(key))
    }

    /// The widget is gone.
    pub(super) fn forget(&mut self, comm: &str) {
        self.0.retain(|edit| edit.it.comm != comm);
    }

    fn add(&mut self, comm: &str, keys: BTreeSet<String>, new_id: impl FnOnce() -> String) {
        match self.0.iter_mut().find(|edit| !edit.sent && !edit.former && edit.it.comm == comm) {
            Some(waiting) => waiting.it.keys.extend(keys),
            None => {
                let it = Edited { request: new_id(), comm: comm.to_owned(), keys };
                self.0.push(Edit::new(it, false));
            }
        }
    }

    /// Takes those that may be sent: one of each widget, once the kernel is done with the last; or `all` of them.
    fn take_due(&mut self, all: bool) -> Vec<Edited> {
        let mut busy: BTreeSet<String> = BTreeSet::new();
        let mut due = Vec::new();
        for edit in &mut self.0 {
            if !edit.sent && (all || !busy.contains(&edit.it.comm)) {
                edit.sent = true;
                due.push(edit.it.clone());
            }
            if !edit.done {
                busy.insert(edit.it.comm.clone());
            }
        }
        due
    }

    fn of(&mut self, request: &str) -> Option<&mut Edit> {
        self.0.iter_mut().find(|edit| edit.it.request == request)
    }
}

impl RoomCore {
    /// A client changed the state of widgets.
    pub(in crate::room) fn widgets_edited(&mut self, changes: &[Change]) {
        if self.kernel.live().is_none() {
            return;
        }
        // A client may bring back what another daemon wrote, and could not keep.
        let by_clients = |change: &&Change| !change.actor_id().to_bytes().starts_with(OURS);
        let early = std::mem::take(&mut self.widgets.early);
        let arrived = early.into_iter().chain(changes.iter().filter(by_clients).cloned());
        // What builds on a change that is not here yet counts when that has come.
        let document = self.documents.comms.automerge_mut();
        let is_in = |change: &Change| document.get_change_meta_by_hash(&change.hash()).is_some();
        let (changes, mut early): (Vec<Change>, Vec<Change>) = arrived.partition(is_in);
        let mut seen = BTreeSet::new();
        early.retain(|change| seen.insert(change.hash()));
        early.drain(..early.len().saturating_sub(MOST_EARLY));
        self.widgets.early = early;
        for (comm, state) in self.documents.comms.written(&changes) {
            if self.documents.runtime.comm(&comm).is_none() {
                continue;
            }
            let storing = self.publication.storing.iter_mut().map(|(_, batch)| batch);
            for batch in storing.chain([&mut self.publication.next]) {
                batch.widgets.overrule(&comm, state.keys());
            }
            let ids = &mut self.ids;
            let keys = state.into_iter().map(|(key, _)| key).collect();
            self.widgets.edits.add(&comm, keys, || ids.uuid().to_string());
        }
        self.send_edits(false);
    }

    /// The kernel is busy with a request, or done with it.
    pub(in crate::room) fn widgets_heard(&mut self, request: &str, idle: bool) {
        let now = self.hearing.last();
        let Some(edit) = self.widgets.edits.of(request) else { return };
        edit.begun.get_or_insert(now);
        edit.done |= idle;
        if idle {
            self.send_edits(false);
        }
    }

    /// Sends again what the kernel may not have got. It takes nothing twice.
    pub(in crate::room) fn resume_edits(&mut self) {
        self.send_edits(true);
    }

    /// Tells the kernel everything that waits. Whether that is done: blobs have to be read first.
    pub(in crate::room) fn widgets_are_told(&mut self) -> bool {
        self.send_edits(true);
        self.widgets.outbox.is_empty()
    }

    /// What clients wrote that a kernel may not have begun to take when it had said no more than `shown`.
    pub(in crate::room) fn edited_since(&mut self, shown: Sequence) -> Vec<Edited> {
        let edits = &mut self.widgets.edits.0;
        edits.retain(|edit| !(edit.done && edit.begun.is_some_and(|at| at <= shown)));
        let open = edits.iter().filter(|edit| edit.begun.is_none_or(|at| at > shown));
        open.map(|edit| edit.it.clone()).collect()
    }

    /// There is nothing to tell the kernel.
    pub(super) fn give_up_edit(&mut self, request: &str) {
        self.widgets.edits.0.retain(|edit| edit.it.request != request);
    }

    /// Sends those that are due.
    pub(super) fn send_edits(&mut self, all: bool) {
        for Edited { request, comm, keys } in self.widgets.edits.take_due(all) {
            let state = self.documents.comms.state(&comm).unwrap_or_default();
            let state: JsonMap<String, Json> =
                state.into_iter().filter(|(key, _)| keys.contains(key)).collect();
            let content = json!({"comm_id": comm, "data": {"method": "update"}});
            if state.is_empty() {
                self.give_up_edit(&request);
                continue;
            }
            let request = KernelRequest::shell(request, "comm_msg", content);
            self.send_to_widget(Outgoing { request, blobs: Blobs::State(state), ticket: None });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_the_kernel_may_have_takes_up_nothing_more() {
        let keys = || BTreeSet::from(["value".to_owned()]);
        let edited = Edited { request: "former".into(), comm: "w1".into(), keys: keys() };
        let mut edits = Edits::resume(vec![edited]);
        edits.add("w1", keys(), || "new".into());
        edits.add("w1", keys(), || "newer".into());
        let requests: Vec<_> = edits.take_due(true).into_iter().map(|edit| edit.request).collect();
        assert_eq!(requests, ["former", "new"]);
    }
}
