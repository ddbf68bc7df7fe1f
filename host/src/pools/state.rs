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
use super::packages::Recipe;
use super::template::Template;

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
    /// What the settings said to its provider then.
    pub settings: String,
    /// Whether it is as fast as it will get.
    pub optimized: bool,
    /// What a template made of it would be for. None for copies, which hold what was newest when their template was made,
    /// and for those that somebody has had.
    pub template_key: Option<String>,
    /// When it entered the pool.
    pub since: Instant,
}

/// Where a pool has an environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Somebody may take it.
    Ready,
    /// Fresh ones are copies of it.
    Template,
    /// It is not finished.
    Building,
    /// Somebody has it.
    Taken,
}

/// What fresh environments are made from.
#[derive(Debug, Clone, Default)]
enum Source {
    /// Packages, until there is a template.
    #[default]
    Packages,
    /// A template, until then.
    Template(Box<Template>, Instant),
    /// Packages: copies cannot be made.
    NoCopies {
        /// By this provider, ever. Otherwise until a build has succeeded.
        ever: bool,
    },
}

/// What the pool wants done next.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Next {
    /// Build an environment.
    Build,
    /// Make a template of a ready environment.
    MakeTemplate(Box<Ready>),
    /// Make the template faster.
    OptimizeTemplate(Box<Template>),
    /// Put a copy of the template in the place of a ready environment that is slower.
    Renew(Box<Ready>),
    /// Make a ready environment faster.
    Optimize(Box<Ready>),
    /// Nothing, for this long at most; for ever if none.
    Wait(Option<Duration>),
}

/// One pool.
#[derive(Debug, Clone, Default)]
pub(super) struct PoolState {
    /// How many environments to keep ready.
    target: usize,
    /// What a fresh environment is made of.
    recipe: Recipe,
    /// Ready ones, oldest first.
    available: VecDeque<Ready>,
    /// Usable ones of an outdated recipe, taken only when nothing better is there.
    retired: VecDeque<Ready>,
    /// Where the next one comes from.
    source: Source,
    /// Prefixes being built.
    warming: BTreeSet<PathBuf>,
    /// Prefixes taken and not yet released.
    leased: BTreeSet<PathBuf>,
    /// Takers that wait, over and above the target.
    waiting: usize,
    /// Those that wait for one more than the target.
    waiting_for_spare: usize,
    /// How often what it offers became another: a new recipe, a flush.
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
    pub(super) fn configure(&mut self, target: usize, recipe: &Recipe) -> Vec<PathBuf> {
        self.target = target;
        if !recipe.makes(&self.recipe.packages, &self.recipe.settings) {
            self.recipe = recipe.clone();
            self.failure = None;
            self.revision += 1;
            let (kept, outdated): (VecDeque<_>, VecDeque<_>) =
                self.available.drain(..).partition(|ready| is_of(recipe, ready));
            self.available = kept;
            self.retired.extend(outdated);
        }
        let surplus = self.available.len().saturating_sub(self.wanted());
        let mut gone: Vec<PathBuf> = self.available.drain(..surplus).map(prefix).collect();
        if self.available.len() >= self.target {
            gone.extend(self.retired.drain(..).map(prefix));
        }
        if self.target == 0 {
            gone.extend(self.drop_template());
        }
        gone
    }

    /// Another provider builds from now on.
    pub(super) fn provider_changed(&mut self) {
        if matches!(self.source, Source::NoCopies { .. }) {
            self.source = Source::Packages;
        }
    }

    /// The template, if there is one.
    pub(super) fn template(&self) -> Option<&Template> {
        match &self.source {
            Source::Template(template, _) => Some(template),
            _ => None,
        }
    }

    /// Fresh environments are copies of `template` from now on, `age` after its packages were chosen. Returns prefixes to
    /// delete.
    pub(super) fn template_made(&mut self, template: Template, age: Duration, now: Instant) -> Vec<PathBuf> {
        let gone = self.drop_template();
        if self.target == 0 {
            return vec![template.environment.prefix];
        }
        self.source = Source::Template(Box::new(template), now + MAX_AGE.saturating_sub(age));
        gone.into_iter().collect()
    }

    /// The template is as fast as it will get.
    pub(super) fn template_optimized(&mut self) {
        if let Source::Template(template, _) = &mut self.source {
            template.optimized = true;
        }
    }

    /// The template is of no use any more. Returns its prefix.
    pub(super) fn drop_template(&mut self) -> Option<PathBuf> {
        match std::mem::take(&mut self.source) {
            Source::Template(template, _) => Some(template.environment.prefix),
            Source::NoCopies { ever } => {
                self.source = Source::NoCopies { ever };
                None
            }
            Source::Packages => None,
        }
    }

    /// No copy could be made: by this provider never, or until a build has succeeded. Returns the template's prefix.
    pub(super) fn copying_failed(&mut self, ever: bool) -> Option<PathBuf> {
        let gone = self.drop_template();
        self.source = Source::NoCopies { ever };
        gone
    }

    /// Forgets builds whose keeper is gone.
    pub(super) fn abandon_builds(&mut self) {
        self.warming.clear();
    }

    /// Where this pool has the environment at `prefix`, if it is one of its own.
    pub(super) fn place(&self, prefix: &Path) -> Option<Place> {
        let is = |environment: &Environment| environment.prefix == prefix;
        if self.available.iter().chain(&self.retired).any(|ready| is(&ready.environment)) {
            Some(Place::Ready)
        } else if self.template().is_some_and(|template| is(&template.environment)) {
            Some(Place::Template)
        } else if self.warming.contains(prefix) {
            Some(Place::Building)
        } else {
            self.leased.contains(prefix).then_some(Place::Taken)
        }
    }

    /// Gives up the environment at `prefix`, if it is ready or the template. Whether it was.
    pub(super) fn remove(&mut self, prefix: &Path) -> bool {
        let stays = |ready: &Ready| ready.environment.prefix != prefix;
        let place = self.place(prefix);
        self.available.retain(stays);
        self.retired.retain(stays);
        if place == Some(Place::Template) {
            self.drop_template();
        }
        matches!(place, Some(Place::Ready | Place::Template))
    }

    /// Offers an environment that a former daemon left. Returns its prefix if it is to be deleted.
    pub(super) fn recover(&mut self, ready: Ready) -> Option<PathBuf> {
        if is_of(&self.recipe, &ready) && self.available.len() < self.target {
            self.available.push_back(ready);
            None
        } else if !is_of(&self.recipe, &ready)
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
            return self.when_due(now, Next::Build);
        }
        let slow = self.available.iter().find(|ready| !ready.optimized).cloned().map(Box::new);
        match (&self.source, slow) {
            (Source::Packages, _) if self.target > 0 => {
                // Of a copy there would be copies of what was newest long ago.
                let fresh = self.available.iter().rev().find(|ready| ready.template_key.is_some()).cloned();
                return self.when_due(now, fresh.map_or(Next::Build, |it| Next::MakeTemplate(Box::new(it))));
            }
            (Source::Template(template, _), _) if !template.optimized => {
                return Next::OptimizeTemplate(template.clone());
            }
            (Source::Template(..), Some(ready)) => return self.when_due(now, Next::Renew(ready)),
            (Source::NoCopies { .. }, Some(ready)) => return Next::Optimize(ready),
            _ => {}
        }
        let oldest = self.oldest_surplus().map(|ready| ready.since + MAX_AGE + Duration::from_secs(1));
        let outdated = match &self.source {
            Source::Template(_, until) => Some(*until),
            _ => None,
        };
        let next = oldest.into_iter().chain(outdated).min();
        Next::Wait(next.map(|next| next.saturating_duration_since(now)))
    }

    /// `next`, or a pause after what failed.
    fn when_due(&self, now: Instant, next: Next) -> Next {
        match self.failure.as_ref().map(|failure| failure.retry_in(now)) {
            Some(wait) if !wait.is_zero() && !self.urgent => Next::Wait(Some(wait)),
            _ => next,
        }
    }

    /// A build began.
    pub(super) fn build_started(&mut self, prefix: &Path) {
        self.warming.insert(prefix.to_path_buf());
    }

    /// A build ended well. Returns prefixes to delete: an outdated one that it replaces, and the oldest if there are more
    /// than there should be.
    pub(super) fn build_succeeded(&mut self, ready: Ready) -> Vec<PathBuf> {
        self.warming.remove(&ready.environment.prefix);
        self.failure = None;
        self.urgent = false;
        if ready.template_key.is_some() && matches!(self.source, Source::NoCopies { ever: false }) {
            self.source = Source::Packages;
        }
        if is_of(&self.recipe, &ready) {
            self.available.push_back(ready);
        } else {
            self.retired.push_back(ready);
        }
        let full = self.available.len() >= self.wanted();
        let replaced = if full { self.retired.len() } else { self.retired.len().min(1) };
        let replaced = if self.available.is_empty() { 0 } else { replaced };
        let surplus = self.available.len().saturating_sub(self.wanted());
        self.retired.drain(..replaced).chain(self.available.drain(..surplus)).map(prefix).collect()
    }

    /// A copy is to stand in the place of the environment at `old`. Returns the prefix to delete: of that one, or of the
    /// copy if that one is not there any more.
    pub(super) fn renewed(&mut self, old: &Path, copy: Ready) -> PathBuf {
        self.warming.remove(&copy.environment.prefix);
        let wanted = is_of(&self.recipe, &copy);
        match self.available.iter_mut().find(|ready| wanted && ready.environment.prefix == old) {
            Some(ready) => prefix(std::mem::replace(ready, copy)),
            None => prefix(copy),
        }
    }

    /// A build failed.
    pub(super) fn build_failed(&mut self, prefix: &Path, error: PluginError, now: Instant) {
        self.warming.remove(prefix);
        self.failure = Some(Failure::after(self.failure.as_ref(), error, now));
        self.failed_builds += 1;
        self.urgent = false;
    }

    /// A build was given up, or will be tried in another way.
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

    /// An environment is taken that a notebook had before.
    pub(super) fn adopt(&mut self, prefix: PathBuf) {
        self.leased.insert(prefix);
    }

    /// A taken environment comes back unused; nothing happens if it came back before. Returns its prefix
    /// if the pool has no room for it.
    pub(super) fn give_back(&mut self, ready: Ready) -> Option<PathBuf> {
        if !self.leased.remove(&ready.environment.prefix) {
            return None;
        }
        if self.available.len() < self.target && is_of(&self.recipe, &ready) {
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

    /// Whether somebody waits for an environment now.
    pub(super) fn is_waited_for(&self) -> bool {
        self.waiting > 0
    }

    /// Builds that failed so far, and the last failure.
    pub(super) fn failures(&self) -> (u64, Option<&Failure>) {
        (self.failed_builds, self.failure.as_ref())
    }

    /// Empties the pool, forgets failures. Returns prefixes to delete.
    pub(super) fn flush(&mut self) -> Vec<PathBuf> {
        self.failure = None;
        self.revision += 1;
        let template = self.drop_template();
        let all = self.available.drain(..).chain(self.retired.drain(..)).map(prefix);
        all.chain(template).collect()
    }

    /// Removes environments that are too old, as long as a few stay, and a template that is. Returns prefixes to delete.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<PathBuf> {
        let outdated = matches!(&self.source, Source::Template(_, until) if *until <= now);
        let mut gone: Vec<PathBuf> =
            if outdated { self.drop_template().into_iter().collect() } else { Vec::new() };
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

    /// What a fresh environment is made of.
    pub(super) fn recipe(&self) -> &Recipe {
        &self.recipe
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
            error: failure.map(Failure::text),
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

/// Whether an environment is what fresh ones are.
fn is_of(recipe: &Recipe, ready: &Ready) -> bool {
    recipe.makes(&ready.packages, &ready.settings)
}

#[cfg(test)]
mod tests;
