//! Many windows of one notebook, and all of them edit: every edit is there, and everybody has the same.

use std::time::Duration;

use runtimed_client::protocol::documents::notebook::{NewCell, Place};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::beside::Beside;
use super::{end, is_staged, size};
use crate::story::Story;
use crate::support::PATIENCE;
use crate::{scripts, tally};

const SETTINGS: &str = r#"{ "install_default_data_packages": false, "conda_pool_size": 0, "uv_pool_size": 0, "keep_alive_secs": 600 }"#;
/// Pause between two edits of a peer: somebody who types.
const PAUSE: Duration = Duration::from_millis(100);

#[tokio::test(flavor = "multi_thread")]
async fn what_fifty_write_at_a_time_is_there_for_all_of_them() {
    if !is_staged() {
        return;
    }
    let (peers, edits) = (size(8, 50), size(10, 40));
    let mut daemon = scripts::start(SETTINGS, |_| {});
    let first = Story::create(&daemon).await.unwrap();
    let id = first.id();
    let idle = Beside::idle(&daemon, None);
    let beside = Beside::begin(&daemon, None);
    let mut writing = JoinSet::new();
    for peer in 0..peers {
        let story = Story::join(&daemon, &id).await.unwrap();
        writing.spawn(async move {
            for edit in 0..edits {
                let cell = NewCell {
                    id: format!("{peer}-{edit}"),
                    cell_type: "code".into(),
                    source: format!("written by {peer}"),
                    ..NewCell::default()
                };
                story.session.edit(|notebook| notebook.insert_cell(Place::End, &cell)).unwrap();
                sleep(PAUSE).await;
            }
            story
        });
    }
    let stories = writing.join_all().await;
    beside.end().compare(&idle, &format!("peers: while {peers} write in one notebook"));
    let start = Instant::now();
    let mut contents = Vec::new();
    for story in &stories {
        let written = story.session.wait_for(|it| {
            let there: Vec<_> = it.notebook.cell_ids();
            let written = (0..peers).flat_map(|peer| (0..edits).map(move |edit| format!("{peer}-{edit}")));
            (there.len() >= peers * edits && written.into_iter().all(|id| there.contains(&id)))
                .then_some(there)
        });
        contents
            .push(tokio::time::timeout(PATIENCE, written).await.expect("every edit is everywhere").unwrap());
    }
    tally(&format!(
        "peers: {} cells of {peers} peers are everywhere {:.1} s after the last was written",
        peers * edits,
        start.elapsed().as_secs_f64()
    ));
    assert!(contents.windows(2).all(|two| two[0] == two[1]), "in the same order");
    drop((stories, first));
    end(&mut daemon);
}
