//! Executions that no cell shows any more.
//!
//! For: a runtime state that stays small however often cells run. Clients read all of it at each change,
//! so the time of every later execution grows with what is left lying there.
//! Promises: an execution stays while a cell shows it or falls back on it, while it is not over, and
//! while it is one of the last [`KEPT`] that went out of sight: whoever waits for it can still read it.
//! Its record stays on disk.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::core::{RoomCore, kept};
use crate::ids::ExecutionId;

/// Executions kept after they went out of sight. The reference keeps 64 in all; a client that runs one
/// cell over and over, and looks at the results later, has its last ones.
pub(super) const KEPT: usize = 16;

/// Ids remembered after their executions left the document, to refuse one that comes twice. A client that
/// repeats itself does so within seconds; 1,000 executions take longer.
const REMEMBERED: usize = 1024;

/// What cells showed, and what they show no more.
#[derive(Default)]
pub(super) struct Superseded {
    /// The last execution of each cell.
    last: BTreeMap<String, String>,
    /// The one before, which an autosave writes while the last one has no outputs yet.
    previous: BTreeMap<String, String>,
    /// Older ones, oldest first.
    out_of_sight: VecDeque<String>,
    /// The last that left the document, oldest first.
    removed: VecDeque<String>,
}

impl Superseded {
    /// For a room where cells show `shown` (cell, execution), and `others` lie about, oldest first.
    pub(super) fn resume(shown: BTreeMap<String, String>, others: Vec<String>) -> Self {
        Self { last: shown, out_of_sight: others.into(), ..Self::default() }
    }

    /// A cell gets a new execution; `shown` is what it points to, if anything.
    pub(super) fn accepted(&mut self, cell: &str, shown: Option<String>, new: &ExecutionId) {
        let Some(before) = self.last.insert(cell.to_owned(), new.to_string()).or(shown) else { return };
        self.out_of_sight.extend(self.previous.insert(cell.to_owned(), before));
    }

    /// The execution a cell showed before its present one.
    pub(super) fn previous(&self, cell: &str) -> Option<&String> {
        self.previous.get(cell)
    }

    /// Cells that are no more show nothing.
    fn forget_cells_but(&mut self, there: &BTreeSet<String>) {
        let gone: Vec<String> = self.last.keys().filter(|cell| !there.contains(*cell)).cloned().collect();
        for cell in gone {
            self.out_of_sight.extend(self.previous.remove(&cell));
            self.out_of_sight.extend(self.last.remove(&cell));
        }
    }

    /// Whether an execution with this id left the document not long ago.
    pub(super) fn was_removed(&self, id: &str) -> bool {
        self.removed.iter().any(|removed| removed == id)
    }

    fn remember(&mut self, id: String) {
        self.removed.push_back(id);
        if self.removed.len() > REMEMBERED {
            self.removed.pop_front();
        }
    }

    /// The next one that may go.
    fn take_excess(&mut self) -> Option<String> {
        if self.out_of_sight.len() > KEPT { self.out_of_sight.pop_front() } else { None }
    }
}

impl RoomCore {
    /// Removes executions that went out of sight long ago.
    pub(super) fn forget_superseded(&mut self) {
        // Looking at every cell each time would take longer the more there are.
        if self.superseded.last.len() > self.documents.notebook.cell_count() + KEPT {
            let there = self.documents.notebook.cell_ids().into_iter().collect();
            self.superseded.forget_cells_but(&there);
        }
        while let Some(oldest) = self.superseded.take_excess() {
            let runtime = &mut self.documents.runtime;
            match runtime.execution(&oldest) {
                Some(execution) if execution.status.is_terminal() => {
                    kept(runtime.remove_execution(&oldest));
                    self.superseded.remember(oldest);
                }
                // Not over: its turn comes again.
                Some(_) => return self.superseded.out_of_sight.push_back(oldest),
                None => {}
            }
        }
    }
}
