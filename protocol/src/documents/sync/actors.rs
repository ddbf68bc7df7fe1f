//! Who may sign a change.
//!
//! A person's label is `<principal>/<operator>`. Labels without a slash belong to daemons and to clients
//! from before principals; they are accepted on a local connection.

use automerge::Change;

use crate::documents::genesis;

/// Longest label that is accepted, in bytes: room for an operator and any user's name. A document keeps it for good.
const LABEL_MAX: usize = 1024;

/// Whether a connection of `principal` may bring `change`.
pub(super) fn may_write(principal: &str, change: &Change) -> bool {
    let label = change.actor_id().to_bytes();
    if label.len() > LABEL_MAX {
        return false;
    }
    let claimed = label.iter().position(|byte| *byte == b'/').and_then(|slash| label.get(..slash));
    match claimed {
        None => true,
        Some(claimed) => {
            claimed == principal.as_bytes() || genesis::ALL.contains(&change.hash().to_string().as_str())
        }
    }
}
