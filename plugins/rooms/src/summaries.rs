//! What all rooms have to say.
//!
//! For: the list of rooms, and whoever wants to know what they use.
//! Promises: rooms are asked all at once; one that hangs, as on a disk that does, hides no other.

use std::path::PathBuf;
use std::time::Duration;

use runtimed_plugin_api::RoomSummary;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use crate::directory::{Directory, Found};
use crate::room::task::Message;

/// What rooms get to answer. The contract of `rooms.v1` grants 2 s to the whole list.
const ANSWER: Duration = Duration::from_millis(1500);

/// A room that was asked.
struct Asked {
    room: Uuid,
    path: Option<PathBuf>,
    answer: oneshot::Receiver<(RoomSummary, Option<PathBuf>)>,
}

/// Every room, in time; one that says nothing is silent.
pub(crate) async fn summaries(directory: &Directory) -> Vec<RoomSummary> {
    heard(ask(directory.found()), Instant::now() + ANSWER).await
}

async fn heard(asked: Vec<Asked>, by: Instant) -> Vec<RoomSummary> {
    let mut summaries = Vec::with_capacity(asked.len());
    for Asked { room, path, answer } in asked {
        match timeout_at(by, answer).await {
            Ok(Ok((summary, _))) => summaries.push(summary),
            // A room that ended meanwhile is none.
            Ok(Err(_)) => {}
            Err(_) => summaries.push(RoomSummary {
                notebook_id: room.to_string(),
                notebook_path: path,
                state: "active".to_owned(),
                kernel_error: Some("The notebook does not answer.".to_owned()),
                silent: true,
                ..RoomSummary::default()
            }),
        }
    }
    summaries
}

/// The environments that rooms use. Waits for every room: what a silent one uses must not be deleted.
pub(crate) async fn environments(directory: &Directory) -> Vec<PathBuf> {
    let mut environments = Vec::new();
    for Asked { answer, .. } in ask(directory.found()) {
        environments.extend(answer.await.ok().and_then(|(_, environment)| environment));
    }
    environments
}

/// Asks all of them.
fn ask(rooms: Vec<(Uuid, Found)>) -> Vec<Asked> {
    let ask = |(room, found): (Uuid, Found)| {
        let (reply, answer) = oneshot::channel();
        found.inbox.send(Message::Summary(reply)).ok()?;
        Some(Asked { room, path: found.path, answer })
    };
    rooms.into_iter().filter_map(ask).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "a step that fails is a failed test")]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_room_that_hangs_is_silent_and_hides_no_other() {
        let ids = [1, 2, 3].map(Uuid::from_u128);
        let (rooms, mut inboxes): (Vec<_>, Vec<_>) = ids
            .map(|id| {
                let (inbox, messages) = mpsc::unbounded_channel();
                ((id, Found { inbox, path: Some(format!("/{id}.ipynb").into()) }), messages)
            })
            .into_iter()
            .unzip();
        let asked = ask(rooms);
        // The first says nothing, the second answers, and the third has ended.
        drop(inboxes.pop());
        let Some(Message::Summary(reply)) = inboxes[1].recv().await else { panic!("it was asked") };
        let at_risk =
            RoomSummary { at_risk: Some("disk full".to_owned()), has_kernel: true, ..RoomSummary::default() };
        assert!(reply.send((at_risk.clone(), None)).is_ok());
        let summaries = heard(asked, Instant::now() + ANSWER).await;
        let [silent, answered] = &summaries[..] else { panic!("{summaries:?}") };
        assert!(silent.silent && silent.notebook_id == ids[0].to_string(), "{silent:?}");
        assert_eq!(silent.notebook_path, Some(format!("/{}.ipynb", ids[0]).into()));
        assert_eq!(answered, &at_risk);
    }
}
