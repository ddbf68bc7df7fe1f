//! Days of use in minutes: notebooks are opened, edited, run, saved and closed, kernels restarted, settings changed,
//! blobs stored, again and again. Afterwards the daemon uses what it used in the beginning.
//!
//! `cargo xtask torture load --minutes N soak` says for how long.

use std::env;
use std::time::{Duration, Instant};

use runtimed_client::Client;
use runtimed_client::protocol::handshake::CreateNotebook;
use runtimed_client::protocol::request::NotebookRequest;
use runtimed_client::{NotebookSession, Result};

use super::figures::Figures;
use super::{end, is_staged, size};
use crate::bystander::{Bystander, DEEDS, Place};
use crate::story::Story;
use crate::support::Daemon;
use crate::{asked, scripts, tally};

const SETTINGS: &str = r#"{ "install_default_data_packages": false, "conda_pool_size": 0, "uv_pool_size": 1, "keep_alive_secs": 5 }"#;
/// Rounds before it is looked at first: everything was loaded once, allocators have their arenas.
const WARM: (u64, u64) = (1, 5);
/// Rounds after that in the ordinary tests.
const ROUNDS: u64 = 1;
/// What memory may be more, in KiB, however long it lasts: an allocator of this size moves so far from one minute to the next.
const ALLOWED_MEMORY: u64 = 16 * 1024;
/// What may be kept more, in KiB: a journal before it is folded (1 MiB and twice its size) for each of two notebooks; a log
/// that is not yet turned over, see `host/src/log.rs`.
const ALLOWED_DISK: u64 = 6 * 1024;
/// Text in a stream, and an image that is a blob.
const CELL: &str = "from IPython.display import Image\nprint('round N' * 50)\nImage(bytes(str(N), 'utf8') * 4000, format='png')";

#[tokio::test(flavor = "multi_thread")]
async fn what_is_used_for_hours_uses_no_more() {
    if !is_staged() {
        return;
    }
    let (seed, _) = asked(1);
    let minutes = env::var("RUNT_TORTURE_REAL").ok().map(|minutes| minutes.parse::<u64>().unwrap());
    let mut daemon = scripts::start(SETTINGS, |_| {});
    let mut bystander = Bystander::new(seed);
    let (mut round, warm) = (0, size(WARM.0, WARM.1));
    while round < warm {
        bystander = live(&daemon, bystander, round).await;
        round += 1;
    }
    let before = Figures::at_rest(&daemon);
    let start = Instant::now();
    let goes_on = |round| match minutes {
        Some(minutes) => start.elapsed() < Duration::from_secs(minutes * 60),
        None => round < warm + ROUNDS,
    };
    while goes_on(round) {
        bystander = live(&daemon, bystander, round).await;
        round += 1;
        if round.is_multiple_of(20) {
            println!("soak, round {round}, {} s: {}", start.elapsed().as_secs(), Figures::of(&daemon));
        }
    }
    let is_back = |now: &Figures| {
        now.descriptors <= before.descriptors
            && now.threads <= before.threads
            && now.processes <= before.processes
            && now.resident <= before.resident + ALLOWED_MEMORY
            && now.disk <= before.disk + ALLOWED_DISK
    };
    let after = Figures::settled(&daemon, is_back);
    let rounds = round - warm;
    tally(&format!(
        "soak: seed {seed}, {rounds} rounds in {} s; before {before}; after {after}",
        start.elapsed().as_secs()
    ));
    assert!(
        is_back(&after),
        "it uses what it used: {before}, after {rounds} rounds {after}\n{}",
        open(&daemon)
    );
    end(&mut daemon);
}

/// One round of everything.
async fn live(daemon: &Daemon, mut bystander: Bystander, round: u64) -> Bystander {
    let client = Client::new(&daemon.socket);
    let file = daemon.home.path().canonicalize().unwrap().join("soak.ipynb");
    let story = Story::open(daemon, &file).await.unwrap();
    let other = Story::join(daemon, &story.id()).await.unwrap();
    let cell = format!("cell{round}");
    // The notebook does not grow.
    other.session.edit(|notebook| notebook.delete_all_cells()).unwrap();
    other.session.request(NotebookRequest::AcknowledgeNotebookSync).await.unwrap();
    story.add(&cell, &CELL.replace('N', &round.to_string())).await.unwrap();
    for edit in 0..20 {
        other.session.wait_for(|it| it.notebook.source(&cell).map(drop)).await.unwrap();
        let source = format!("{}\n# edit {edit}", CELL.replace('N', &round.to_string()));
        other.session.edit(|notebook| notebook.set_source(&cell, &source)).unwrap();
        other.session.request(NotebookRequest::AcknowledgeNotebookSync).await.unwrap();
    }
    run(&story, &cell).await;
    story.save().await.unwrap();
    // The kernel is another one from here.
    story.session.request(NotebookRequest::ShutdownKernel).await.unwrap();
    let launch = NotebookRequest::LaunchKernel {
        kernel_type: String::new(),
        env_source: "auto".into(),
        notebook_path: None,
    };
    story.session.request(launch).await.unwrap();
    run(&story, &cell).await;
    story.save().await.unwrap();
    let (place, id) = (Place::of(daemon), story.id());
    bystander = tokio::task::spawn_blocking(move || {
        (0..DEEDS).for_each(|deed| bystander.act(deed, &place, &id).unwrap());
        bystander
    })
    .await
    .unwrap();
    passing(&client).await.unwrap();
    let id = story.id();
    other.session.close().await;
    story.session.close().await;
    client.shutdown_notebook(&id).await.unwrap();
    bystander
}

/// Runs a cell, which must end well.
async fn run(story: &Story, cell: &str) {
    let (execution, well) = story.run(cell).await.unwrap();
    assert!(well, "{cell}: {:?}", story.outputs(&execution));
}

/// A notebook that is not kept.
async fn passing(client: &Client) -> Result<()> {
    let create =
        CreateNotebook { runtime: "nobody-has-it".into(), ephemeral: true, ..CreateNotebook::default() };
    let session = NotebookSession::create(client, create).await?;
    session.ready().await?;
    let id = session.notebook_id().unwrap();
    session.close().await;
    client.shutdown_notebook(&id).await.map(drop)
}

/// What a daemon has open, for who looks for what is too much.
fn open(daemon: &Daemon) -> String {
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().flatten();
    let names = descriptors.filter_map(|it| Some(std::fs::read_link(it.path()).ok()?.display().to_string()));
    let mut names: Vec<_> = names.collect();
    names.sort();
    names.join("\n")
}
