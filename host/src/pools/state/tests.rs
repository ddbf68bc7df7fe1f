//! What a pool decides, step by step.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn packages(names: &str) -> Vec<String> {
    names.split(' ').map(str::to_owned).collect()
}

fn recipe(list: &str) -> Recipe {
    Recipe { packages: packages(list), settings: String::new() }
}

fn ready(name: &str, list: &str, since: Instant) -> Ready {
    let environment = Environment {
        kind: "uv".into(),
        prefix: PathBuf::from("/envs").join(name),
        python: PathBuf::from("/envs").join(name).join("bin/python"),
        python_version: None,
        packages: packages(list),
        extra: serde_json::Map::new(),
    };
    Ready {
        environment,
        packages: packages(list),
        settings: String::new(),
        optimized: true,
        template_key: None,
        since,
    }
}

/// A pool of `target` environments with the list `a b`, all of them built.
fn full(target: usize, now: Instant) -> PoolState {
    let mut pool = PoolState::default();
    pool.copying_failed(true);
    pool.configure(target, &recipe("a b"));
    for number in 0..target {
        build(&mut pool, &number.to_string(), "b a", now);
    }
    pool
}

fn build(pool: &mut PoolState, name: &str, list: &str, now: Instant) -> Vec<PathBuf> {
    assert_eq!(pool.next(now), Next::Build);
    let ready = ready(name, list, now);
    pool.build_started(&ready.environment.prefix);
    pool.build_succeeded(ready)
}

#[test]
fn a_spare_one_is_built_on_top_and_never_taken_from_anybody() {
    let now = Instant::now();
    let mut pool = full(1, now);
    assert_eq!(pool.take_spare(), None);
    pool.spare_wait_started();
    build(&mut pool, "spare", "a b", now);
    pool.wait_started();
    assert_eq!(pool.take_spare(), None, "somebody waits");
    pool.wait_ended();
    let revision = pool.revision();
    assert_eq!(pool.take_spare().unwrap().environment.prefix, Path::new("/envs/0"));
    pool.spare_wait_ended();
    assert_eq!((pool.next(now), pool.take_spare()), (Next::Wait(None), None));

    pool.configure(1, &recipe("b a"));
    assert_eq!(pool.revision(), revision);
    pool.configure(1, &recipe("c"));
    pool.flush();
    assert_eq!(pool.revision(), revision + 2);

    let mut off = PoolState::default();
    off.configure(0, &recipe("a"));
    off.spare_wait_started();
    assert_eq!(off.next(now), Next::Wait(None), "nothing is kept ready");
}

#[test]
fn a_pool_fills_and_refills_at_once_after_a_take() {
    let now = Instant::now();
    let mut pool = PoolState::default();
    pool.configure(2, &recipe("a b"));
    assert_eq!((pool.status(now).available, pool.status(now).warming), (0, 2));
    let mut pool = full(2, now);
    assert_eq!((pool.status(now).available, pool.status(now).warming), (2, 0));
    assert!(matches!(pool.next(now), Next::Wait(_)));
    let taken = pool.take().unwrap();
    assert_eq!(taken.environment.prefix, Path::new("/envs/0"));
    assert_eq!(pool.leased().count(), 1);
    assert_eq!(pool.next(now), Next::Build);
}

#[test]
fn failures_back_off_and_a_waiting_taker_tries_once_more_at_once() {
    let now = Instant::now();
    let mut pool = PoolState::default();
    pool.configure(1, &recipe("a"));
    pool.build_started(Path::new("/envs/x"));
    pool.build_failed(Path::new("/envs/x"), PluginError::internal("broken"), now);
    assert_eq!(pool.next(now), Next::Wait(Some(30 * SECOND)));
    assert_eq!(pool.status(now + SECOND).retry_in_secs, 29);
    assert_eq!(pool.status(now).warming, 0);

    pool.wait_started();
    assert_eq!(pool.next(now), Next::Build);
    pool.build_started(Path::new("/envs/y"));
    pool.build_failed(Path::new("/envs/y"), PluginError::internal("still broken"), now);
    assert_eq!(pool.failures().0, 2);
    assert_eq!(pool.next(now), Next::Wait(Some(60 * SECOND)));
    pool.wait_ended();

    assert_eq!(pool.next(now + 60 * SECOND), Next::Build);
    build(&mut pool, "z", "a", now + 60 * SECOND);
    assert_eq!(pool.status(now).error, None);
    assert_eq!(pool.status(now).consecutive_failures, 0);
}

#[test]
fn a_taker_gets_an_environment_from_a_pool_that_keeps_none() {
    let now = Instant::now();
    let mut pool = PoolState::default();
    pool.configure(0, &recipe("a"));
    assert_eq!(pool.next(now), Next::Wait(None));
    pool.wait_started();
    build(&mut pool, "x", "a", now);
    assert!(pool.take().is_some());
    pool.wait_ended();
    assert_eq!(pool.next(now), Next::Wait(None));
}

#[test]
fn changed_packages_retire_what_is_there_and_it_still_serves_as_a_fallback() {
    let now = Instant::now();
    let mut pool = full(2, now);
    assert!(pool.configure(2, &recipe("a b c")).is_empty());
    assert_eq!(pool.status(now).available, 0);
    assert_eq!(pool.take().unwrap().environment.prefix, Path::new("/envs/0"));
    assert_eq!(build(&mut pool, "new", "a b c", now), [Path::new("/envs/1")]);
    assert_eq!(pool.take().unwrap().environment.prefix, Path::new("/envs/new"));
}

#[test]
fn an_environment_built_for_an_outdated_list_is_only_a_fallback() {
    let now = Instant::now();
    let mut pool = PoolState::default();
    pool.configure(1, &recipe("a"));
    pool.build_started(Path::new("/envs/x"));
    pool.configure(1, &recipe("a b"));
    assert!(pool.build_succeeded(ready("x", "a", now)).is_empty());
    assert_eq!(pool.status(now).available, 0);
    assert_eq!(pool.next(now), Next::Build);
}

#[test]
fn a_smaller_target_trims_the_oldest() {
    let now = Instant::now();
    let mut pool = full(3, now);
    assert_eq!(pool.configure(1, &recipe("a b")), [Path::new("/envs/0"), Path::new("/envs/1")]);
    assert_eq!(pool.configure(99, &recipe("a b")), Vec::<PathBuf>::new());
    assert_eq!(pool.target(), 99);
}

#[test]
fn a_flush_rebuilds_everything_without_back_off() {
    let now = Instant::now();
    let mut pool = full(2, now);
    pool.take();
    pool.build_started(Path::new("/envs/x"));
    pool.build_failed(Path::new("/envs/x"), PluginError::internal("broken"), now);
    assert_eq!(pool.flush(), [Path::new("/envs/1")]);
    assert_eq!((pool.status(now).available, pool.status(now).warming), (0, 2));
    assert_eq!(pool.next(now), Next::Build);
}

#[test]
fn recovery_keeps_what_fits_and_falls_back_on_what_does_not() {
    let now = Instant::now();
    let mut pool = PoolState::default();
    pool.configure(2, &recipe("a b"));
    assert_eq!(pool.recover(ready("good", "a b", now)), None);
    assert_eq!(pool.recover(ready("old", "a", now)), None);
    assert_eq!(pool.recover(ready("older", "x", now)), Some("/envs/older".into()));
    assert_eq!(pool.recover(ready("good2", "a b", now)), None);
    assert_eq!(pool.recover(ready("good3", "a b", now)), Some("/envs/good3".into()));
}

#[test]
fn what_comes_back_is_kept_only_while_there_is_room() {
    let now = Instant::now();
    let mut pool = full(1, now);
    let taken = pool.take().unwrap();
    assert_eq!(pool.give_back(taken.clone()), None);
    assert_eq!(pool.give_back(taken), None);
    assert_eq!((pool.status(now).available, pool.leased().count()), (1, 0));

    let taken = pool.take().unwrap();
    build(&mut pool, "other", "a b", now);
    assert_eq!(pool.give_back(taken), Some("/envs/0".into()));
    assert_eq!(pool.leased().count(), 0);
}

#[test]
fn old_environments_go_but_a_few_stay() {
    let now = Instant::now();
    let mut pool = full(3, now);
    assert!(pool.expire(now + MAX_AGE).is_empty());
    assert_eq!(pool.expire(now + MAX_AGE + SECOND), [Path::new("/envs/0")]);
}

#[test]
fn idle_time_is_used_to_optimize_and_only_then() {
    let now = Instant::now();
    let mut pool = full(3, now);
    pool.take();
    let fresh = Ready { optimized: false, ..ready("fresh", "a b", now) };
    pool.build_started(&fresh.environment.prefix);
    pool.build_succeeded(fresh.clone());
    assert_eq!(pool.next(now), Next::Optimize(Box::new(fresh.clone())));
    pool.optimized(&fresh.environment.prefix);
    assert!(matches!(pool.next(now), Next::Wait(Some(_))));
}

fn fresh(name: &str, now: Instant) -> Ready {
    Ready { optimized: false, template_key: Some("key".into()), ..ready(name, "a b", now) }
}

fn template(name: &str, optimized: bool) -> Template {
    let environment = ready(name, "a b", Instant::now()).environment;
    serde_json::from_value(
        serde_json::json!({ "environment": environment, "key": "key", "optimized": optimized,
        "built": 0, "interpreter": "", "content": "" }),
    )
    .unwrap()
}

#[test]
fn copies_come_once_there_is_an_installed_one_and_nobody_waits() {
    let now = Instant::now();
    let mut pool = PoolState::default();
    pool.configure(2, &recipe("a b"));
    for name in ["1", "2"] {
        assert_eq!(pool.next(now), Next::Build);
        pool.build_started(&fresh(name, now).environment.prefix);
        pool.build_succeeded(fresh(name, now));
    }
    assert_eq!(pool.next(now), Next::MakeTemplate(Box::new(fresh("2", now))));
    pool.wait_started();
    assert_eq!(pool.next(now), Next::Build);
    pool.wait_ended();
    assert!(pool.template_made(template("t", false), Duration::ZERO, now).is_empty());
    assert_eq!(pool.place(Path::new("/envs/t")), Some(Place::Template));
    assert_eq!(pool.next(now), Next::OptimizeTemplate(Box::new(template("t", false))));
    pool.template_optimized();
    assert_eq!(pool.next(now), Next::Renew(Box::new(fresh("1", now))));
    let mut failing = pool.clone();
    failing.build_failed(Path::new("/envs/x"), PluginError::internal("no"), now);
    assert_eq!(failing.next(now), Next::Wait(Some(30 * SECOND)), "not again and again");
    let copy = |name| Ready { optimized: true, ..ready(name, "a b", now) };
    assert_eq!(pool.renewed(Path::new("/envs/1"), copy("c1")), Path::new("/envs/1"));
    assert_eq!(pool.renewed(Path::new("/envs/gone"), copy("c2")), Path::new("/envs/c2"));
    assert_eq!(pool.renewed(Path::new("/envs/2"), copy("c3")), Path::new("/envs/2"));
    assert_eq!(pool.next(now), Next::Wait(Some(MAX_AGE)));
    assert_eq!(pool.status(now).available, 2);

    // Two days later packages are chosen anew, and the oldest copy goes for the environment that has them.
    let later = now + MAX_AGE;
    assert_eq!(pool.expire(later), [Path::new("/envs/t")]);
    assert_eq!(pool.next(later), Next::Build);
    pool.build_started(Path::new("/envs/3"));
    assert_eq!(pool.build_succeeded(fresh("3", later)), [Path::new("/envs/c1")]);
    assert_eq!(pool.next(later), Next::MakeTemplate(Box::new(fresh("3", later))));
}

#[test]
fn where_no_copies_can_be_made_each_is_optimized() {
    let now = Instant::now();
    let mut pool = PoolState::default();
    pool.configure(1, &recipe("a b"));
    pool.build_started(Path::new("/envs/1"));
    pool.build_succeeded(fresh("1", now));
    assert_eq!(pool.copying_failed(true), None);
    assert_eq!(pool.next(now), Next::Optimize(Box::new(fresh("1", now))));
    pool.optimized(Path::new("/envs/1"));
    assert_eq!(pool.next(now), Next::Wait(None));
    pool.provider_changed();
    assert!(matches!(pool.next(now), Next::MakeTemplate(_)));

    // A failure of another sort counts until a build has succeeded.
    pool.template_made(template("t", true), Duration::ZERO, now);
    assert_eq!(pool.copying_failed(false), Some("/envs/t".into()));
    pool.take();
    pool.build_started(Path::new("/envs/2"));
    pool.build_succeeded(fresh("2", now));
    assert!(matches!(pool.next(now), Next::MakeTemplate(_)));
}

#[test]
fn a_template_goes_with_a_flush_and_with_its_pool() {
    let now = Instant::now();
    let mut pool = full(1, now);
    pool.template_made(template("t", true), MAX_AGE / 2, now);
    assert_eq!(pool.next(now), Next::Wait(Some(MAX_AGE / 2)));
    assert_eq!(pool.flush(), [Path::new("/envs/0"), Path::new("/envs/t")]);
    pool.template_made(template("u", true), Duration::ZERO, now);
    assert!(pool.configure(0, &recipe("a b")).contains(&PathBuf::from("/envs/u")));
    assert_eq!(pool.template_made(template("v", true), Duration::ZERO, now), [Path::new("/envs/v")]);
}
