//! Cells that print without end are interrupted at random moments: each interrupt is answered, and the kernel goes on.

use std::time::Duration;

use runtimed_client::protocol::request::NotebookRequest;
use tokio::time::{Instant, sleep, timeout};

use super::beside::Beside;
use super::figures::Figures;
use super::{end, is_staged, size};
use crate::random::Random;
use crate::story::Story;
use crate::support::PATIENCE;
use crate::{asked, scripts, tally};

const SETTINGS: &str = r#"{ "install_default_data_packages": false, "conda_pool_size": 0, "uv_pool_size": 1, "keep_alive_secs": 600 }"#;
/// Longest time in which it prints undisturbed, in milliseconds.
const UNDISTURBED: usize = 6000;

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_can_be_interrupted_at_any_moment() {
    if !is_staged() {
        return;
    }
    let (seed, _) = asked(1);
    let mut random = Random(seed);
    let mut daemon = scripts::start(SETTINGS, |_| {});
    let story = Story::create(&daemon).await.unwrap();
    story.add("flood", "n = 0\nwhile True:\n    print('flood', n)\n    n += 1").await.unwrap();
    story.add("after", "print('still here')").await.unwrap();
    assert!(story.run("after").await.unwrap().1);
    let idle = Beside::idle(&daemon, None);
    let beside = Beside::begin(&daemon, None);
    let (start, mut interrupts, mut longest) = (Instant::now(), 0, Duration::ZERO);
    let mut most = 0;
    while start.elapsed() < Duration::from_secs(size(3, 60)) {
        let execution = story.session.execute_cell("flood").await.unwrap().execution_id;
        let is_printing = |it: &runtimed_client::Documents| {
            (!it.runtime_state.outputs(&execution).is_empty()).then_some(())
        };
        timeout(PATIENCE, story.session.wait_for(is_printing)).await.expect("it prints").unwrap();
        sleep(Duration::from_millis(random.below(size(UNDISTURBED / 6, UNDISTURBED)) as u64)).await;
        let asked = Instant::now();
        story.session.request(NotebookRequest::InterruptExecution).await.unwrap();
        let over = story
            .session
            .wait_for(|it| it.runtime_state.execution(&execution).filter(|it| it.status.is_terminal()));
        timeout(PATIENCE, over).await.expect("the interrupt ends it").unwrap();
        longest = longest.max(asked.elapsed());
        interrupts += 1;
        most = most.max(Figures::of(&daemon).resident);
        let (execution, well) = story.run("after").await.unwrap();
        assert!(well, "seed {seed}: the kernel is usable after interrupt {interrupts}");
        assert!(format!("{:?}", story.outputs(&execution)).contains("still here"));
    }
    beside.end().compare(&idle, "flood: while a cell prints without end");
    tally(&format!(
        "flood: seed {seed}, {interrupts} interrupts, the slowest ended its cell after {:.1} s, {:.1} MiB at most",
        longest.as_secs_f64(),
        most as f64 / 1024.0
    ));
    drop(story);
    end(&mut daemon);
}
