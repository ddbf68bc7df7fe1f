//! Whether the daemon may be asked to stop.
//!
//! For: the requests that stop it. A signal stops it all the same: whoever sends one does not wait for an answer.
//! Promises: refuses, with the reason, while an open notebook has edits that no disk holds.

use std::time::Duration;

use runtimed_plugin_api::{RoomReply, RoomRequest, RoomSummary};
use runtimed_protocol::pool::STOP_REFUSED;
use tokio::time::timeout;

use crate::daemon::Daemon;

/// How long rooms may take to say how they are. Clients wait 3 s for the answer. Rooms that say nothing may be too busy
/// to; when they are closed they have longer.
const ANSWER: Duration = Duration::from_secs(2);

impl Daemon {
    /// Why a clean stop would lose edits, and what to do; none if it would not.
    pub async fn refuses_to_stop(&self) -> Option<String> {
        match timeout(ANSWER, self.ask_rooms(RoomRequest::List)).await {
            Ok(Ok(RoomReply::List { rooms })) => refusal(&rooms),
            _ => None,
        }
    }
}

fn refusal(rooms: &[RoomSummary]) -> Option<String> {
    let at_risk: Vec<_> = rooms.iter().filter_map(|room| Some((room, room.at_risk.as_deref()?))).collect();
    let (_, reason) = at_risk.first()?;
    let names = at_risk.iter().map(|(room, _)| match &room.notebook_path {
        Some(path) => path.display().to_string(),
        None => format!("the untitled notebook {}", room.notebook_id),
    });
    let names = names.collect::<Vec<_>>().join(", ");
    Some(format!(
        "{STOP_REFUSED}: the last edits of {names} are in memory only, because they cannot be written: \
         {reason}.\nMake room, or save under another name; the daemon tries again by itself within 30 s."
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_edits_that_no_disk_holds_stand_in_the_way() {
        let room = |path: Option<&str>, at_risk: Option<&str>| RoomSummary {
            notebook_id: "6a".to_owned(),
            notebook_path: path.map(Into::into),
            at_risk: at_risk.map(str::to_owned),
            ..RoomSummary::default()
        };
        assert_eq!(refusal(&[room(None, None), room(Some("/a.ipynb"), None)]), None);
        let blocked = refusal(&[
            room(None, Some("disk full")),
            room(Some("/b.ipynb"), Some("disk full")),
            room(None, None),
        ]);
        assert_eq!(
            blocked.unwrap(),
            "clean shutdown blocked: the last edits of the untitled notebook 6a, /b.ipynb are in memory only, because \
             they cannot be written: disk full.\nMake room, or save under another name; the daemon tries again by \
             itself within 30 s."
        );
    }
}
