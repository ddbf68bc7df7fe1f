//! `life`: created, started, stopped, again and again.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use runtimed_plugin_api::{BLOB_STORE, ENV_PROVIDER, KERNEL_BACKEND, ROOMS};

use crate::bench::Bench;
use crate::case::{Case, Stop, Verdict, case, require};
use crate::report::Fault;
use crate::subject::Instance;
use crate::usage::{Usage, settled};

/// Lives that are watched for growth.
const LIVES: usize = 100;
/// Lives before, which may leave what is made once.
const WARMING_UP: usize = 10;
/// What may have grown after all lives, in threads or descriptors: less than one in ten lives, so that what is
/// made once and late does not count.
const GROWTH: usize = LIVES / 10;
/// How long lives go on; for a plugin that takes its time, fewer of them have to do.
const PATIENCE: Duration = Duration::from_secs(30);
/// Fewer lives than these say nothing.
const FEWEST: usize = 3 * GROWTH;
/// How long ends of threads are waited for.
const ENDING: Duration = Duration::from_secs(5);

pub(crate) const CASES: &[Case] = &[
    case!(quick "loads", "the library is what its manifest says", loads),
    case!(quick "starts-and-stops", "it can be created, started and stopped", starts_and_stops),
    case!(quick "provides", "it provides what its manifest says, no more and no less", provides),
    case!(
        "dropped-during-start",
        "a start that is given up leaves room for the next one",
        dropped_during_start
    ),
    case!("two-at-once", "two instances live side by side, and one outlives the other", two_at_once),
    case!("a-hundred-lives", "a hundred lives leave no thread and no descriptor behind", a_hundred_lives),
];

async fn loads(bench: &Bench) -> Verdict {
    let subject = &bench.session.subject;
    let instance = bench.make(&bench.host).await?;
    let facts = instance.facts.clone();
    bench.forget(instance)?;
    let Some(facts) = facts else { return Err(Stop::skipped("the plugin is a part of this program")) };
    let Ok(manifest) = subject.manifest() else { return Ok(()) };
    require(facts.id == manifest.id, || {
        Fault::new(
            format!("plugin.toml has the id `{}`, the library `{}`", manifest.id, facts.id),
            "write the same id in plugin.toml and in `export_plugin!`",
        )
    })?;
    require(facts.version == manifest.version.to_string(), || {
        Fault::new(
            format!("plugin.toml has the version {}, the library {}", manifest.version, facts.version),
            "write the same version in plugin.toml and Cargo.toml, and build again",
        )
    })
}

async fn starts_and_stops(bench: &Bench) -> Verdict {
    let plugin = bench.start().await?;
    bench.stop(plugin).await
}

async fn provides(bench: &Bench) -> Verdict {
    let plugin = bench.start().await?;
    let Ok(manifest) = bench.session.subject.manifest() else { return Ok(()) };
    let provided = provided(bench, &plugin)?;
    // Only environment providers can be asked for their kind at once.
    let promised: BTreeSet<String> = manifest
        .provides
        .iter()
        .map(|it| match it.capability.as_str() {
            ENV_PROVIDER => format!("{ENV_PROVIDER} `{}`", it.name),
            other => other.to_owned(),
        })
        .collect();
    let remedy = "correct [[provides]] in plugin.toml, or the plugin";
    if let Some(missing) = promised.difference(&provided).next() {
        let provided: Vec<&str> = provided.iter().map(String::as_str).collect();
        return Err(Fault::new(
            format!(
                "plugin.toml promises {missing}, and the plugin does not provide it; it provides {}",
                if provided.is_empty() { "nothing".to_owned() } else { provided.join(", ") }
            ),
            remedy,
        )
        .into());
    }
    match provided.difference(&promised).next() {
        Some(more) => Err(Fault::new(
            format!("the plugin provides {more}, and plugin.toml does not mention it"),
            remedy,
        )
        .into()),
        None => Ok(()),
    }
}

/// What a plugin provides, as sentences name it.
fn provided(bench: &Bench, plugin: &Instance) -> Result<BTreeSet<String>, Stop> {
    let mut provided = BTreeSet::new();
    let (providers, _) = bench.at_once("Plugin::env_providers", || plugin.env_providers())?;
    for provider in providers {
        let (info, _) = bench.at_once("EnvProvider::info", || provider.info())?;
        provided.insert(format!("{ENV_PROVIDER} `{}`", info.kind));
    }
    let others = [
        (BLOB_STORE, bench.at_once("Plugin::blob_store", || plugin.blob_store().is_some())?.0),
        (
            KERNEL_BACKEND,
            bench.at_once("Plugin::kernel_backends", || !plugin.kernel_backends().is_empty())?.0,
        ),
        (ROOMS, bench.at_once("Plugin::rooms", || plugin.rooms().is_some())?.0),
    ];
    provided.extend(others.into_iter().filter(|(_, there)| *there).map(|(id, _)| id.to_owned()));
    Ok(provided)
}

async fn dropped_during_start(bench: &Bench) -> Verdict {
    for instants in 0..5 {
        let plugin = bench.make(&bench.host).await?;
        let mut start = plugin.start();
        // Polled once and given up at different moments after that.
        let _ = (&mut start).now_or_never();
        for _ in 0..instants {
            tokio::task::yield_now().await;
        }
        bench.at_once("drop of a call of Plugin::start", || drop(start))?;
        bench.forget(plugin)?;
    }
    let plugin = bench.start().await?;
    bench.stop(plugin).await
}

async fn two_at_once(bench: &Bench) -> Verdict {
    let first = bench.start().await?;
    let second = bench.make(&bench.another_host()).await?;
    bench.started(&second).await?;
    let (one, two) = (provided(bench, &first)?, provided(bench, &second)?);
    require(one == two, || {
        Fault::new(
            "a second instance does not provide what the first one does",
            "keep no state outside of the instance",
        )
    })?;
    bench.stop(first).await?;
    let after = provided(bench, &second)?;
    require(after == two, || {
        Fault::new(
            "an instance does not provide the same any more after another one was stopped",
            "keep no state outside of the instance",
        )
    })?;
    bench.stop(second).await
}

async fn a_hundred_lives(bench: &Bench) -> Verdict {
    if !bench.session.is_alone() {
        return Err(Stop::skipped("threads of other tests in this process would be counted too"));
    }
    let begin = Instant::now();
    let lives = async |most: usize| {
        for count in 0..most {
            if begin.elapsed() >= PATIENCE {
                return Ok(count);
            }
            let plugin = bench.start().await?;
            provided(bench, &plugin)?;
            bench.stop(plugin).await?;
        }
        Ok::<_, Stop>(most)
    };
    lives(WARMING_UP).await?;
    let Some(before) = Usage::now(&bench.host) else {
        return Err(Stop::skipped("this system does not show threads and descriptors under /proc"));
    };
    let lived = lives(LIVES).await?;
    if lived < FEWEST {
        return Err(Stop::skipped(format!("there was time for {lived} lives only")));
    }
    let fits = |now: &Usage| {
        now.threads <= before.threads + GROWTH && now.descriptors <= before.descriptors + GROWTH
    };
    let after = bench.wait("the end of threads", 2 * ENDING, settled(&bench.host, ENDING, fits)).await?;
    let Some(after) = after else { return Ok(()) };
    let fault = |what: &str, before: usize, after: usize| {
        Fault::new(
            format!("{lived} lives left {} {what} behind", after.saturating_sub(before)),
            format!("end in `stop`, or at the latest when the plugin is dropped, what needs {what}"),
        )
        .detail(format!("{before} before, {after} after"))
    };
    require(after.threads <= before.threads + GROWTH, || fault("threads", before.threads, after.threads))?;
    require(after.descriptors <= before.descriptors + GROWTH, || {
        fault("open files", before.descriptors, after.descriptors)
    })
}
