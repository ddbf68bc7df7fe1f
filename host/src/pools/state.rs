//! What a pool knows and decides.
//!
//! For: one provider kind's environments that nobody owns yet.
//! Promises: pure: time comes in, paths to delete go out; an environment is handed out once.
//! Never: touches a file, starts a build, or knows which kinds there are.

use std::collections::{BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::time::Duration;

use runtimed_plugin_api::{Environment, PluginError};
use runtimed_protocol::pool::PoolStatus;
use tokio::time::Instant;

use super::failure::Failure;

/// No pool keeps more (environments contract, section 2.1).
pub(super) const MAX_TARGET: usize = 20;
/// Older environments are replaced, two days, since their packages fall behind (section 2.2).
const MAX_AGE: Duration = Duration::from_secs(172_800);
/// This many stay however old they are (section 2.8).
const KEPT_WHATEVER_AGE: usize = 2;

/// An environment somebody may take.
#[derive(Debug, Clone, PartialEq)]
pub struct Ready {
    /// The environment.
    pub environment: Environment,
    /// The pool's package list when it was built; empty if unknown.
    pub packages: Vec<String>,
    /// Whether it is as fast as it will get.
    pub optimized: bool,
    /// When it entered the pool.
    pub since: Instant,
}

/// What the pool wants done next.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Next {
    /// Build an environment.
    Build,
    /// Make a ready environment faster.
    Optimize(Box<Ready>),
    /// Nothing, for this long at most; for ever if none.
    Wait(Option<Duration>),
}

/// One pool.
#[derive(Debug, Default)]
pub(super) struct PoolState {
    /// How many environments to keep ready.
    target: usize,
    /// What a fresh environment holds.
    packages: Vec<String>,
    /// Ready ones, oldest first.
    available: VecDeque<Ready>,
    /// Usable ones with an outdated package list, taken only when nothing better is there.
    retired: VecDeque<Ready>,
    /// Prefixes being built.
    warming: BTreeSet<PathBuf>,
    /// Prefixes taken and not yet released.
    leased: BTreeSet<PathBuf>,
    /// Takers that wait, over and above the target.
    waiting: usize,
    /// Those that wait for one more than the target.
    waiting_for_spare: usize,
    /// How often what it offers became another: a new package list, a flush.
    revision: u64,
    /// A taker came after the last failure: try once more at once, somebody is looking.
    urgent: bool,
    /// Failures since the last success.
    failure: Option<Failure>,
    /// Builds that failed since the pool was made; lets a waiting taker see that one failed.
    failed_builds: u64,
}

impl PoolState {
    /// Takes new settings over. Returns prefixes to delete: surplus ones, and outdated ones that are no
    /// longer needed as a fallback.
    pub(super) fn configure(&mut self, target: usize, packages: &[String]) -> Vec<PathBuf> {
        self.target = target.min(MAX_TARGET);
        if !same_list(&self.packages, packages) {
            self.packages = packages.to_vec();
            self.failure = None;
            self.revision += 1;
            let (kept, outdated): (VecDeque<_>, VecDeque<_>) =
                self.available.drain(..).partition(|ready| same_list(&ready.packages, packages));
            self.available = kept;
            self.retired.extend(outdated);
        }
        let surplus = self.available.len().saturating_sub(self.wanted());
        let mut gone: Vec<PathBuf> = self.available.drain(..surplus).map(prefix).collect();
        if self.available.len() >= self.target {
            gone.extend(self.retired.drain(..).map(prefix));
        }
        gone
    }

    /// Forgets builds whose keeper is gone.
    pub(super) fn abandon_builds(&mut self) {
        self.warming.clear();
    }

    /// Whether the environment at `prefix` has its place in this pool already.
    pub(super) fn tracks(&self, prefix: &Path) -> bool {
        let ready = self.available.iter().chain(&self.retired);
        ready.map(|ready| &ready.environment.prefix).any(|known| known == prefix)
            || self.warming.contains(prefix)
            || self.leased.contains(prefix)
    }

    /// Offers an environment that a former daemon left. Returns its prefix if it is to be deleted.
    pub(super) fn recover(&mut self, ready: Ready) -> Option<PathBuf> {
        if same_list(&ready.packages, &self.packages) && self.available.len() < self.target {
            self.available.push_back(ready);
            None
        } else if !same_list(&ready.packages, &self.packages)
            && self.available.len() + self.retired.len() + self.warming.len() < self.target
        {
            self.retired.push_back(ready);
            None
        } else {
            Some(prefix(ready))
        }
    }

    /// What to do now.
    pub(super) fn next(&self, now: Instant) -> Next {
        if self.deficit() > 0 {
            match self.failure.as_ref().map(|failure| failure.retry_in(now)) {
                Some(wait) if !wait.is_zero() && !self.urgent => return Next::Wait(Some(wait)),
                _ => return Next::Build,
            }
        }
        match self.available.iter().find(|ready| !ready.optimized) {
            Some(ready) => Next::Optimize(Box::new(ready.clone())),
            None => Next::Wait(self.oldest_surplus().map(|ready| {
                (ready.since + MAX_AGE).saturating_duration_since(now) + Duration::from_secs(1)
            })),
        }
    }

    /// A build began.
    pub(super) fn build_started(&mut self, prefix: &Path) {
        self.warming.insert(prefix.to_path_buf());
    }

    /// A build ended well. Returns prefixes to delete: an outdated one that it replaces, or itself if
    /// its list is no longer wanted.
    pub(super) fn build_succeeded(&mut self, ready: Ready) -> Vec<PathBuf> {
        self.warming.remove(&ready.environment.prefix);
        self.failure = None;
        self.urgent = false;
        if same_list(&ready.packages, &self.packages) {
            self.available.push_back(ready);
        } else {
            self.retired.push_back(ready);
        }
        let full = self.available.len() >= self.wanted();
        let replaced = if full { self.retired.len() } else { self.retired.len().min(1) };
        let replaced = if self.available.is_empty() { 0 } else { replaced };
        self.retired.drain(..replaced).map(prefix).collect()
    }

    /// A build failed.
    pub(super) fn build_failed(&mut self, prefix: &Path, error: PluginError, now: Instant) {
        self.warming.remove(prefix);
        self.failure = Some(Failure::after(self.failure.as_ref(), error, now));
        self.failed_builds += 1;
        self.urgent = false;
    }

    /// A build was given up because the daemon stops.
    pub(super) fn build_cancelled(&mut self, prefix: &Path) {
        self.warming.remove(prefix);
    }

    /// An environment is as fast as it will get.
    pub(super) fn optimized(&mut self, prefix: &Path) {
        let all = self.available.iter_mut().chain(&mut self.retired);
        all.filter(|ready| ready.environment.prefix == prefix).for_each(|ready| ready.optimized = true);
    }

    /// Hands out the oldest ready environment, or an outdated one if there is no other.
    pub(super) fn take(&mut self) -> Option<Ready> {
        let ready = self.available.pop_front().or_else(|| self.retired.pop_front())?;
        self.leased.insert(ready.environment.prefix.clone());
        Some(ready)
    }

    /// Hands out the oldest ready environment if the pool is full without it and nobody waits.
    pub(super) fn take_spare(&mut self) -> Option<Ready> {
        let spare = self.target > 0 && self.waiting == 0 && self.available.len() > self.target;
        if spare { self.take() } else { None }
    }

    /// Somebody begins to wait for a spare one.
    pub(super) fn spare_wait_started(&mut self) {
        self.waiting_for_spare += 1;
    }

    /// Somebody has a spare one, or gave up.
    pub(super) fn spare_wait_ended(&mut self) {
        self.waiting_for_spare = self.waiting_for_spare.saturating_sub(1);
    }

    /// Changes when what it offers does.
    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    /// A taken environment is gone, or its new owner needs no protection.
    pub(super) fn release(&mut self, prefix: &Path) -> bool {
        self.leased.remove(prefix)
    }

    /// A taken environment comes back unused; nothing happens if it came back before. Returns its prefix
    /// if the pool has no room for it.
    pub(super) fn give_back(&mut self, ready: Ready) -> Option<PathBuf> {
        if !self.leased.remove(&ready.environment.prefix) {
            return None;
        }
        if self.available.len() < self.target && same_list(&ready.packages, &self.packages) {
            self.available.push_back(ready);
            return None;
        }
        Some(prefix(ready))
    }

    /// A taker begins to wait.
    pub(super) fn wait_started(&mut self) {
        self.waiting += 1;
        self.urgent = true;
    }

    /// A taker has what it wanted, or gave up.
    pub(super) fn wait_ended(&mut self) {
        self.waiting = self.waiting.saturating_sub(1);
    }

    /// Builds that failed so far, and the last failure.
    pub(super) fn failures(&self) -> (u64, Option<&Failure>) {
        (self.failed_builds, self.failure.as_ref())
    }

    /// Empties the pool, forgets failures. Returns prefixes to delete.
    pub(super) fn flush(&mut self) -> Vec<PathBuf> {
        self.failure = None;
        self.revision += 1;
        self.available.drain(..).chain(self.retired.drain(..)).map(prefix).collect()
    }

    /// Removes environments that are too old, as long as a few stay. Returns prefixes to delete.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<PathBuf> {
        let mut gone = Vec::new();
        while self.oldest_surplus().is_some_and(|ready| now.saturating_duration_since(ready.since) > MAX_AGE)
        {
            gone.extend(self.available.pop_front().map(prefix));
        }
        gone
    }

    /// How many environments to keep ready.
    pub(super) fn target(&self) -> usize {
        self.target
    }

    /// What a fresh environment holds.
    pub(super) fn packages(&self) -> &[String] {
        &self.packages
    }

    /// Prefixes that are taken.
    pub(super) fn leased(&self) -> impl Iterator<Item = &PathBuf> {
        self.leased.iter()
    }

    /// What clients see. Environments that will be built without a pause count as warming.
    pub(super) fn status(&self, now: Instant) -> PoolStatus {
        let retry_in = self.failure.as_ref().map_or(Duration::ZERO, |failure| failure.retry_in(now));
        let queued = if retry_in.is_zero() || self.urgent { self.deficit() } else { 0 };
        let failure = self.failure.as_ref();
        PoolStatus {
            available: self.available.len() as u64,
            warming: (self.warming.len() + queued) as u64,
            pool_size: self.target as u64,
            error: failure.map(|failure| failure.error.message.clone()),
            failed_package: failure.and_then(Failure::failed_package),
            error_kind: failure.map(Failure::kind),
            consecutive_failures: failure.map_or(0, |failure| u64::from(failure.count)),
            retry_in_secs: retry_in.as_secs(),
        }
    }

    /// The oldest environment, if the pool could do without it.
    fn oldest_surplus(&self) -> Option<&Ready> {
        self.available.front().filter(|_| self.available.len() > self.target.min(KEPT_WHATEVER_AGE))
    }

    /// How many environments there should be now.
    fn wanted(&self) -> usize {
        let spare = if self.target > 0 { self.waiting_for_spare } else { 0 };
        self.target + self.waiting + spare
    }

    /// Environments that are missing and not being built.
    fn deficit(&self) -> usize {
        self.wanted().saturating_sub(self.available.len() + self.warming.len())
    }
}

fn prefix(ready: Ready) -> PathBuf {
    ready.environment.prefix
}

/// Whether two package lists name the same packages, in whatever order.
fn same_list(a: &[String], b: &[String]) -> bool {
    let sorted = |list: &[String]| list.iter().cloned().collect::<BTreeSet<_>>();
    a.len() == b.len() && sorted(a) == sorted(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn packages(names: &str) -> Vec<String> {
        names.split(' ').map(str::to_owned).collect()
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
        Ready { environment, packages: packages(list), optimized: true, since }
    }

    /// A pool of `target` environments with the list `a b`, all of them built.
    fn full(target: usize, now: Instant) -> PoolState {
        let mut pool = PoolState::default();
        pool.configure(target, &packages("a b"));
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

        pool.configure(1, &packages("b a"));
        assert_eq!(pool.revision(), revision);
        pool.configure(1, &packages("c"));
        pool.flush();
        assert_eq!(pool.revision(), revision + 2);

        let mut off = PoolState::default();
        off.configure(0, &packages("a"));
        off.spare_wait_started();
        assert_eq!(off.next(now), Next::Wait(None), "nothing is kept ready");
    }

    #[test]
    fn a_pool_fills_and_refills_at_once_after_a_take() {
        let now = Instant::now();
        let mut pool = PoolState::default();
        pool.configure(2, &packages("a b"));
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
        pool.configure(1, &packages("a"));
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
        pool.configure(0, &packages("a"));
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
        assert!(pool.configure(2, &packages("a b c")).is_empty());
        assert_eq!(pool.status(now).available, 0);
        assert_eq!(pool.take().unwrap().environment.prefix, Path::new("/envs/0"));
        assert_eq!(build(&mut pool, "new", "a b c", now), [Path::new("/envs/1")]);
        assert_eq!(pool.take().unwrap().environment.prefix, Path::new("/envs/new"));
    }

    #[test]
    fn an_environment_built_for_an_outdated_list_is_only_a_fallback() {
        let now = Instant::now();
        let mut pool = PoolState::default();
        pool.configure(1, &packages("a"));
        pool.build_started(Path::new("/envs/x"));
        pool.configure(1, &packages("a b"));
        assert!(pool.build_succeeded(ready("x", "a", now)).is_empty());
        assert_eq!(pool.status(now).available, 0);
        assert_eq!(pool.next(now), Next::Build);
    }

    #[test]
    fn a_smaller_target_trims_the_oldest() {
        let now = Instant::now();
        let mut pool = full(3, now);
        assert_eq!(pool.configure(1, &packages("a b")), [Path::new("/envs/0"), Path::new("/envs/1")]);
        assert_eq!(pool.configure(99, &packages("a b")), Vec::<PathBuf>::new());
        assert_eq!(pool.target(), MAX_TARGET);
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
        pool.configure(2, &packages("a b"));
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
}
