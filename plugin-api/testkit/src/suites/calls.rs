//! `calls`: what holds for every call of every capability.

mod exercise;

use std::time::{Duration, Instant};

use futures_util::FutureExt;
use serde_json::{Value, json};

use crate::bench::Bench;
use crate::case::{Case, Stop, Verdict, case, require};
use crate::hostile;
use crate::report::Fault;
use crate::subject::{Carrier, Instance};
use crate::usage::{Usage, settled};
use exercise::{Call, Words, calls};

/// Longest synchronous method. They may not do I/O, so they take microseconds; this is for busy machines.
const AT_ONCE: Duration = Duration::from_millis(50);
/// The same for a plugin that is made in a process of its own, which is started meanwhile.
const PROCESS: Duration = Duration::from_secs(1);
/// Tries of a synchronous method, of which the fastest counts: a thread can be kept waiting by others.
const TRIES: usize = 3;
/// How often every method is called before threads are counted.
const ROUNDS: usize = 20;
/// What may have grown then, in threads: less than one for each two rounds, and what a runtime keeps ready.
const GROWTH: usize = ROUNDS / 2;
/// How long ends of threads are waited for. A runtime keeps a thread for blocking work for 10 s.
const ENDING: Duration = Duration::from_secs(15);
/// How long is watched for work that nobody asked for.
const WATCHING: Duration = Duration::from_millis(500);
/// Processor time that may be used meanwhile: half a core's would be a loop.
const IDLE: Duration = Duration::from_millis(250);
/// Level of everything there is (trace).
const EVERYTHING: u8 = 5;
/// Moments after its beginning at which a call is dropped.
const CUTS: [Duration; 3] = [Duration::ZERO, Duration::from_millis(1), Duration::from_millis(10)];

/// A method that says what a plugin provides.
type Accessor = fn(&Instance);

pub(crate) const CASES: &[Case] = &[
    case!(quick "at-once", "synchronous methods return at once", at_once),
    case!("hostile-input", "no method panics, hangs or dies on input that makes no sense", hostile_input),
    case!("hostile-settings", "settings that make no sense are survived", hostile_settings),
    case!("cancel", "every call can be dropped at any moment, and the next one is answered", cancel),
    case!("log", "with every level on, it logs no more than can be read", log),
    case!("threads", "calls leave no thread behind", threads),
    case!("idle", "it does nothing while nobody asks for anything", idle),
];

async fn at_once(bench: &Bench) -> Verdict {
    let most = if bench.session.subject.carrier() == Carrier::Child { PROCESS } else { AT_ONCE };
    let mut fastest_made = Duration::MAX;
    for _ in 0..TRIES {
        let begin = Instant::now();
        let plugin = bench.make(&bench.host).await?;
        fastest_made = fastest_made.min(begin.elapsed());
        bench.forget(plugin)?;
        if fastest_made <= most {
            break;
        }
    }
    // A carrier asks for what a plugin provides as soon as it is made.
    require_within(
        "`Plugin::create` (with what it provides, up to `EnvProvider::info`)",
        fastest_made,
        most,
    )?;
    let plugin = bench.start().await?;
    let accessors: [(&str, Accessor); 5] = [
        ("Plugin::env_providers", |it| drop(it.env_providers())),
        ("EnvProvider::info", |it| it.env_providers().iter().for_each(|one| drop(one.info()))),
        ("Plugin::blob_store", |it| drop(it.blob_store())),
        ("Plugin::kernel_backends", |it| drop(it.kernel_backends())),
        ("Plugin::rooms", |it| drop(it.rooms())),
    ];
    for (method, call) in accessors {
        require_fast(method, fastest(bench, method, || call(&plugin))?)?;
    }
    Ok(())
}

/// How long the fastest of some tries takes; one that is fast enough is the last.
pub(super) fn fastest(bench: &Bench, method: &str, call: impl Fn()) -> Result<Duration, Stop> {
    let mut fastest = Duration::MAX;
    for _ in 0..TRIES {
        fastest = fastest.min(bench.at_once(method, &call)?.1);
        if fastest <= AT_ONCE {
            break;
        }
    }
    Ok(fastest)
}

/// Fails for a synchronous method that takes so long.
pub(super) fn require_fast(method: &str, took: Duration) -> Verdict {
    require_within(&format!("`{method}`"), took, AT_ONCE)
}

fn require_within(what: &str, took: Duration, most: Duration) -> Verdict {
    require(took <= most, || {
        Fault::new(
            format!("{what} took {took:.1?}; what is not asynchronous has {most:.0?} at the most"),
            "do no I/O in it and wait for nothing: prepare in `start` what it answers",
        )
    })
}

/// Makes a call to its end, whatever it answers.
async fn made(bench: &Bench, call: &Call<'_>) -> Verdict {
    let limit = if call.builds { bench.session.limits.build } else { bench.session.limits.call };
    let result = bench.wait(&call.method, limit, (call.make)()).await?;
    bench.came_back(&call.method, result).map(drop)
}

async fn hostile_input(bench: &Bench) -> Verdict {
    let plugin = bench.start().await?;
    for (what, text) in hostile::texts() {
        let words = Words { what, text: &text, folder: &bench.folder };
        for call in calls(&plugin, &words) {
            made(bench, &call).await?;
        }
    }
    still_answers(bench, &plugin).await
}

/// A call that makes sense is answered after others that did not.
async fn still_answers(bench: &Bench, plugin: &Instance) -> Verdict {
    for call in calls(plugin, &Words::plain(&bench.folder)).iter().filter(|call| !call.builds) {
        made(bench, call).await?;
    }
    Ok(())
}

async fn hostile_settings(bench: &Bench) -> Verdict {
    let kinds: Vec<String> = match bench.session.subject.manifest() {
        Ok(manifest) => {
            manifest.provides.iter().map(|it| it.name.clone()).chain([manifest.id.clone()]).collect()
        }
        Err(_) => Vec::new(),
    };
    let own = |value: Value| Value::from_iter(kinds.iter().map(|kind| (kind.clone(), value.clone())));
    let deep = (0..100).fold(Value::Null, |inner, _| json!({ "python": inner }));
    for values in [
        Value::Null,
        json!([]),
        json!("text"),
        own(Value::Null),
        own(json!(7)),
        own(json!(["a", {}])),
        own(json!({ "python": 3.13, "path": [], "index": {}, "": null })),
        own(deep),
    ] {
        bench.host.set_settings(values);
        let plugin = bench.start().await?;
        still_answers(bench, &plugin).await?;
        bench.stop(plugin).await?;
    }
    // And while it runs.
    let plugin = bench.start().await?;
    bench.host.set_settings(own(json!({ "python": { "version": [] } })));
    still_answers(bench, &plugin).await
}

async fn cancel(bench: &Bench) -> Verdict {
    let plugin = bench.start().await?;
    for call in calls(&plugin, &Words::plain(&bench.folder)) {
        for cut in CUTS {
            let mut future = (call.make)();
            let cut_off = async {
                // Begun, and perhaps finished.
                if (&mut future).now_or_never().is_none() {
                    let _ = tokio::time::timeout(cut, &mut future).await;
                }
            };
            bench.wait(&call.method, bench.session.limits.call, cut_off).await?;
            bench.at_once(&format!("drop of a call of {}", call.method), || drop(future))?;
        }
        made(bench, &call).await?;
    }
    bench.nothing_left().await
}

async fn log(bench: &Bench) -> Verdict {
    bench.host.set_log_level(EVERYTHING);
    let plugin = bench.start().await?;
    still_answers(bench, &plugin).await?;
    bench.stop(plugin).await
}

async fn threads(bench: &Bench) -> Verdict {
    if !bench.session.is_alone() {
        return Err(Stop::skipped("threads of other tests in this process would be counted too"));
    }
    let plugin = bench.start().await?;
    still_answers(bench, &plugin).await?;
    let Some(before) = Usage::now(&bench.host) else {
        return Err(Stop::skipped("this system does not show threads under /proc"));
    };
    for call in calls(&plugin, &Words::plain(&bench.folder)).iter().filter(|call| !call.builds) {
        for _ in 0..ROUNDS {
            made(bench, call).await?;
        }
        let fits = |now: &Usage| now.threads <= before.threads + GROWTH;
        if Usage::now(&bench.host).is_none_or(|now| fits(&now)) {
            continue;
        }
        let after = settled(&bench.host, ENDING, fits);
        let after = bench.wait("the end of threads", 2 * ENDING, after).await?.unwrap_or_default();
        require(fits(&after), || {
            Fault::new(
                format!(
                    "{ROUNDS} calls of `{}` left {} threads behind",
                    call.method,
                    after.threads - before.threads
                ),
                "end what a call starts with the call; tasks of its runtime need no threads of their own",
            )
        })?;
    }
    Ok(())
}

async fn idle(bench: &Bench) -> Verdict {
    if !bench.session.is_alone() {
        return Err(Stop::skipped("the work of other tests in this process would be counted too"));
    }
    let plugin = bench.start().await?;
    still_answers(bench, &plugin).await?;
    let Some(before) = Usage::now(&bench.host) else {
        return Err(Stop::skipped("this system does not show the use of its processors under /proc"));
    };
    bench.wait("doing nothing", 2 * WATCHING, tokio::time::sleep(WATCHING)).await?;
    let after = Usage::now(&bench.host).unwrap_or(before);
    let used = after.processor.saturating_sub(before.processor);
    require(used <= IDLE, || {
        Fault::new(
            format!(
                "the plugin used {used:.1?} of processor time in {WATCHING:.1?} in which nobody asked for anything"
            ),
            "wait for events instead of asking again and again, and end what goes on beside a call with the call",
        )
    })
}
