//! Whether the daemon may be asked to stop.
//!
//! For: the requests that stop it. A signal stops it all the same: whoever sends one does not wait for an answer.
//! Promises: refuses, with the reason, while an open notebook has edits that no disk holds, or does not say.

use std::time::Duration;

use runtimed_plugin_api::{RoomReply, RoomRequest, RoomSummary};
use runtimed_protocol::pool::STOP_REFUSED;
use tokio::time::timeout;

use crate::daemon::Daemon;

/// How long the rooms may take to say how they are: as `rooms.v1` promises. Clients wait 3 s for the answer.
const ANSWER: Duration = Duration::from_secs(2);

impl Daemon {
    /// Why a clean stop would, or might, lose edits, and what to do; none if it would not.
    pub async fn refuses_to_stop(&self) -> Option<String> {
        // Rooms that have not begun, or are gone, have nothing to lose.
        let rooms = self.registry.rooms()?;
        match timeout(ANSWER, rooms.ask(RoomRequest::List)).await {
            Ok(Ok(RoomReply::List { rooms })) => refusal(&rooms),
            Ok(_) => None,
            Err(_) => Some(format!("{STOP_REFUSED}: {}", no_answer("the notebooks"))),
        }
    }
}

fn refusal(rooms: &[RoomSummary]) -> Option<String> {
    let mut reasons = Vec::new();
    if let Some(reason) = rooms.iter().find_map(|room| room.at_risk.as_deref()) {
        let at_risk = names(rooms.iter().filter(|room| room.at_risk.is_some()));
        reasons.push(format!(
            "the last edits of {at_risk} are in memory only, because they cannot be written: {reason}.\n\
             Make room, or save under another name; the daemon tries again by itself within 30 s."
        ));
    }
    if rooms.iter().any(|room| room.silent) {
        reasons.push(no_answer(&names(rooms.iter().filter(|room| room.silent))));
    }
    (!reasons.is_empty()).then(|| format!("{STOP_REFUSED}: {}", reasons.join("\nAnd ")))
}

fn no_answer(who: &str) -> String {
    format!(
        "no answer came from {who}, so there may be edits in memory only: much work, or a disk that hangs.\n\
         Wait a moment and try again."
    )
}

fn names<'a>(rooms: impl Iterator<Item = &'a RoomSummary>) -> String {
    let names = rooms.map(|room| match &room.notebook_path {
        Some(path) => path.display().to_string(),
        None => format!("the untitled notebook {}", room.notebook_id),
    });
    names.collect::<Vec<_>>().join(", ")
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

    #[test]
    fn a_notebook_that_does_not_answer_stands_in_the_way_and_hides_no_other() {
        let silent =
            RoomSummary { notebook_path: Some("/c.ipynb".into()), silent: true, ..RoomSummary::default() };
        let alone = "no answer came from /c.ipynb, so there may be edits in memory only: much work, or a disk that \
                     hangs.\nWait a moment and try again.";
        assert_eq!(
            refusal(std::slice::from_ref(&silent)).unwrap(),
            format!("clean shutdown blocked: {alone}")
        );
        let at_risk = RoomSummary {
            notebook_path: Some("/b.ipynb".into()),
            at_risk: Some("disk full".to_owned()),
            ..RoomSummary::default()
        };
        let both = refusal(&[silent, at_risk]).unwrap();
        assert!(both.starts_with("clean shutdown blocked: the last edits of /b.ipynb are"), "{both}");
        assert!(both.ends_with(&format!("\nAnd {alone}")), "{both}");
    }
}
