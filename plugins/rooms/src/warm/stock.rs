//! Which warm kernels there should be.
//!
//! For: [`super`], which starts and ends them.
//! Promises: pure; never more than were asked for; a kernel is given away once; none is ended that a room may just be
//! getting, nor started while a room starts its own.
//! Never: knows what a kernel is.

use std::time::Duration;

use serde_json::Value as Json;

use crate::room::moment::{Moment, earliest};

/// How long no room starts a kernel before a warm one is started: whoever opened a notebook runs its first cell then.
const PAUSE: Duration = Duration::from_millis(500);
/// How long warm kernels stay when no notebook is open. Who closes the last one often opens another, and a kernel costs
/// half a second and some 60 MB.
const EMPTY: Duration = Duration::from_secs(300);
/// Between a warm kernel that could not be started or used, or died, and the next.
const RETRY: Duration = Duration::from_secs(60);

/// How the source of a pooled environment ends.
const POOLED: &str = ":prewarmed";

/// What is known and wanted.
pub(super) struct Stock<K> {
    /// At most so many.
    limit: usize,
    /// The settings. A kernel that was started with others is of no use.
    settings: Json,
    /// A room has used an environment like theirs: somebody works here.
    used: bool,
    /// Rooms in memory.
    open: usize,
    /// Since when there is none.
    empty_since: Moment,
    /// Rooms that are starting a kernel.
    launching: usize,
    /// Since when there is none.
    quiet_since: Moment,
    /// Not before.
    retry_at: Moment,
    /// One is being started.
    starting: bool,
    kernels: Vec<Entry<K>>,
    closed: bool,
}

struct Entry<K> {
    kernel: K,
    /// The lease of its environment.
    lease: String,
    /// What kind of environment that is.
    source: String,
    /// Those it was started with.
    settings: Json,
    /// So many rooms may get it.
    offers: usize,
    /// No room wants its like any more, or it has died.
    over: bool,
}

/// What is to be done.
#[derive(Debug, PartialEq)]
pub(super) enum Step<K> {
    /// Start a kernel.
    Start,
    /// End this one.
    End(K),
    /// Nothing, until then at most.
    Wait(Option<Moment>),
    /// Nothing, ever again.
    Over,
}

impl<K> Default for Stock<K> {
    fn default() -> Self {
        Self {
            limit: 0,
            settings: Json::Null,
            used: false,
            open: 0,
            empty_since: Moment::default(),
            launching: 0,
            quiet_since: Moment::default(),
            retry_at: Moment::default(),
            starting: false,
            kernels: Vec::new(),
            closed: false,
        }
    }
}

impl<K> Stock<K> {
    /// These are the settings from now on.
    pub(super) fn configure(&mut self, settings: Json) {
        let limit = settings.pointer("/kernels/warm").and_then(Json::as_u64).unwrap_or(1);
        self.limit = usize::try_from(limit).unwrap_or(usize::MAX);
        self.settings = settings;
    }

    /// A room begins to look for an environment or to start a kernel.
    pub(super) fn launch_began(&mut self) {
        self.launching += 1;
    }

    /// It has, or gave up.
    pub(super) fn launch_ended(&mut self, now: Moment) {
        self.launching = self.launching.saturating_sub(1);
        self.quiet_since = now;
    }

    /// So many rooms are in memory.
    pub(super) fn rooms(&mut self, open: usize, now: Moment) {
        self.open = open;
        self.empty_since = now;
    }

    /// A kernel is being started; with which settings.
    pub(super) fn start_began(&mut self) -> Json {
        self.starting = true;
        self.settings.clone()
    }

    /// Whether the one that is being started is wanted.
    pub(super) fn is_wanted(&self, settings: &Json, now: Moment) -> bool {
        !self.closed && self.is_in_use(now) && self.settings == *settings && self.kernels.len() < self.limit
    }

    /// When what is wanted now no longer is, if nothing else happens.
    pub(super) fn wanted_until(&self) -> Option<Moment> {
        (self.open == 0).then(|| self.empty_since + EMPTY)
    }

    /// It is up.
    pub(super) fn start_ended(&mut self, kernel: K, lease: &str, source: &str, settings: Json) {
        self.starting = false;
        let (lease, source) = (lease.to_owned(), source.to_owned());
        self.kernels.push(Entry { kernel, lease, source, settings, offers: 0, over: false });
    }

    /// It could not be started.
    pub(super) fn start_failed(&mut self, now: Moment) {
        self.starting = false;
        self.retry_at = now + RETRY;
    }

    /// A room could not use the one that it got: the next may be of no use either.
    pub(super) fn refused(&mut self, now: Moment) {
        self.retry_at = now + RETRY;
    }

    /// It was given up, because nobody wants it any more.
    pub(super) fn start_given_up(&mut self) {
        self.starting = false;
    }

    /// The lease of a kernel that a room may get. [`Stock::withdraw`] follows.
    pub(super) fn offer(&mut self) -> Option<String> {
        let settings = &self.settings;
        let fit = self.kernels.iter_mut().filter(|it| !it.over && it.settings == *settings);
        let entry = fit.min_by_key(|it| it.offers)?;
        entry.offers += 1;
        Some(entry.lease.clone())
    }

    /// The room has decided.
    pub(super) fn withdraw(&mut self, lease: &str) {
        if let Some(entry) = self.kernels.iter_mut().find(|it| it.lease == lease) {
            entry.offers = entry.offers.saturating_sub(1);
        }
    }

    /// A room that may have been offered a kernel got an environment: the kernel in it, if it is one of theirs and has
    /// not died.
    pub(super) fn room_got(&mut self, offered: Option<&str>, lease: &str, source: &str) -> Option<K> {
        self.used |= source.ends_with(POOLED);
        let Some(at) = self.kernels.iter().position(|it| it.lease == lease) else {
            // Another of the same kind: what was offered is out of date, unless another room is just getting it.
            let refused = |it: &&mut Entry<K>| Some(it.lease.as_str()) == offered && it.source == source;
            if let Some(entry) = self.kernels.iter_mut().find(refused).filter(|it| it.offers == 1) {
                entry.over = true;
            }
            return None;
        };
        let entry = self.kernels.swap_remove(at);
        (!entry.over).then_some(entry.kernel)
    }

    /// The pools were emptied: what came from them before is out of date.
    pub(super) fn flushed(&mut self) {
        self.kernels.iter_mut().for_each(|it| it.over = true);
    }

    /// A kernel died by itself.
    pub(super) fn died(&mut self, lease: &str, now: Moment) {
        if let Some(entry) = self.kernels.iter_mut().find(|it| it.lease == lease) {
            entry.over = true;
            self.retry_at = now + RETRY;
        }
    }

    /// No more kernels.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    /// What to do now.
    pub(super) fn next(&mut self, now: Moment) -> Step<K> {
        let in_use = self.is_in_use(now) && !self.closed;
        let limit = self.limit;
        let of_use =
            |at: usize, it: &Entry<K>| in_use && at < limit && !it.over && it.settings == self.settings;
        let mut kernels = self.kernels.iter().enumerate();
        if let Some((at, _)) = kernels.find(|(at, it)| it.offers == 0 && !of_use(*at, it)) {
            return Step::End(self.kernels.swap_remove(at).kernel);
        }
        if self.closed && self.kernels.is_empty() {
            return Step::Over;
        }
        let end = self.wanted_until().filter(|_| !self.kernels.is_empty() && in_use);
        let lacking = self.used
            && self.open > 0
            && self.launching == 0
            && !self.starting
            && !self.closed
            && self.kernels.len() < self.limit;
        let start = lacking.then(|| self.retry_at.max(self.quiet_since + PAUSE));
        match start {
            Some(at) if at <= now => Step::Start,
            _ => Step::Wait(earliest([start, end])),
        }
    }

    /// Whether notebooks are open, or were lately.
    fn is_in_use(&self, now: Moment) -> bool {
        self.open > 0 || now < self.empty_since + EMPTY
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const UV: &str = "uv:prewarmed";
    const SECOND: Duration = Duration::from_secs(1);

    fn at(seconds: u64) -> Moment {
        Moment(SECOND * seconds as u32)
    }

    /// A stock with one kernel, started at second 1.
    fn stock() -> Stock<u8> {
        let mut stock = Stock::default();
        stock.configure(json!({}));
        stock.rooms(1, at(0));
        stock.launch_began();
        assert_eq!(stock.room_got(None, "x", UV), None);
        assert_eq!(stock.next(at(0)), Step::Wait(None));
        stock.launch_ended(at(0));
        assert_eq!(stock.next(at(0)), Step::Wait(Some(at(0) + PAUSE)));
        start(&mut stock, "a", 1, at(1));
        stock
    }

    fn start(stock: &mut Stock<u8>, lease: &str, kernel: u8, now: Moment) {
        assert_eq!(stock.next(now), Step::Start);
        let settings = stock.start_began();
        assert_eq!(stock.next(now), Step::Wait(None));
        assert!(stock.is_wanted(&settings, now));
        stock.start_ended(kernel, lease, UV, settings);
        assert_eq!(stock.next(now), Step::Wait(None));
    }

    #[test]
    fn nothing_is_started_before_somebody_works_or_when_it_is_switched_off() {
        let mut stock = Stock::<u8>::default();
        stock.configure(json!({}));
        stock.rooms(1, at(0));
        assert_eq!(stock.next(at(100)), Step::Wait(None));
        stock.room_got(None, "x", "uv:inline");
        assert_eq!(stock.next(at(100)), Step::Wait(None));
        stock.room_got(None, "x", UV);
        stock.configure(json!({"kernels": {"warm": 0}}));
        assert_eq!(stock.next(at(100)), Step::Wait(None));
        stock.configure(json!({"kernels": {"warm": 2}}));
        assert_eq!(stock.next(at(100)), Step::Start);
        let settings = stock.start_began();
        stock.start_ended(1, "a", UV, settings);
        start(&mut stock, "b", 2, at(100));
    }

    #[test]
    fn a_kernel_is_given_away_once_and_replaced() {
        let mut stock = stock();
        assert_eq!(stock.offer().as_deref(), Some("a"));
        assert_eq!(stock.offer().as_deref(), Some("a"), "only one of them will get the lease");
        assert_eq!(stock.room_got(Some("a"), "b", UV), None, "the other one is getting it");
        stock.withdraw("a");
        assert_eq!(stock.room_got(Some("a"), "a", UV), Some(1));
        stock.withdraw("a");
        assert_eq!((stock.room_got(None, "a", UV), stock.offer()), (None, None));
        stock.launch_began();
        assert_eq!(stock.next(at(9)), Step::Wait(None), "not while a room starts");
        stock.launch_ended(at(9));
        start(&mut stock, "b", 2, at(10));
    }

    #[test]
    fn a_kernel_ends_that_is_of_no_use_unless_a_room_may_be_getting_it() {
        for spoil in [
            |stock: &mut Stock<u8>| assert_eq!(stock.room_got(Some("a"), "new", UV), None),
            |stock: &mut Stock<u8>| stock.flushed(),
            |stock: &mut Stock<u8>| stock.died("a", at(2)),
            |stock: &mut Stock<u8>| stock.configure(json!({"theme": "dark"})),
            |stock: &mut Stock<u8>| stock.configure(json!({"kernels": {"warm": 0}})),
            |stock: &mut Stock<u8>| stock.close(),
            |stock: &mut Stock<u8>| stock.rooms(0, Moment::default()),
        ] {
            let mut stock = stock();
            stock.offer();
            stock.launch_began();
            spoil(&mut stock);
            assert_eq!(stock.next(at(301)), Step::Wait(None));
            stock.withdraw("a");
            assert_eq!(stock.next(at(301)), Step::End(1));
        }
        let mut stock = stock();
        stock.offer();
        assert_eq!(stock.room_got(Some("a"), "other", "uv:inline"), None);
        stock.withdraw("a");
        assert_eq!(stock.next(at(2)), Step::Wait(None), "it is as good as before");
        stock.died("a", at(2));
        assert_eq!((stock.offer(), stock.room_got(None, "a", UV)), (None, None));
        assert_eq!(stock.next(at(2)), Step::Wait(Some(at(2) + RETRY)));
    }

    #[test]
    fn what_is_being_started_is_given_up_when_nobody_wants_it() {
        let mut stock = stock();
        stock.room_got(None, "a", UV);
        let settings = stock.start_began();
        assert!(stock.is_wanted(&settings, at(2)));
        assert_eq!(stock.wanted_until(), None);
        stock.rooms(0, at(2));
        assert!(stock.is_wanted(&settings, at(2)));
        assert_eq!(stock.wanted_until(), Some(at(2) + EMPTY));
        assert!(!stock.is_wanted(&settings, at(2) + EMPTY), "time alone is enough");
        stock.rooms(1, at(2));
        stock.configure(json!({"theme": "dark"}));
        assert!(!stock.is_wanted(&settings, at(2)));
        stock.start_given_up();
        assert_eq!(stock.next(at(2)), Step::Start);
        stock.start_began();
        stock.start_failed(at(2));
        assert_eq!(stock.next(at(2)), Step::Wait(Some(at(2) + RETRY)));
        stock.refused(at(3));
        assert_eq!(stock.next(at(3)), Step::Wait(Some(at(3) + RETRY)));
        stock.close();
        assert_eq!(stock.next(at(2)), Step::Over);
    }

    #[test]
    fn kernels_stay_a_while_after_the_last_notebook() {
        let mut stock = stock();
        stock.rooms(0, at(10));
        assert_eq!(stock.next(at(10)), Step::Wait(Some(at(10) + EMPTY)));
        stock.rooms(1, at(20));
        assert_eq!(stock.next(at(1000)), Step::Wait(None));
        stock.rooms(0, at(1000));
        assert_eq!(stock.next(at(1000) + EMPTY), Step::End(1));
        assert_eq!(stock.next(at(1000) + EMPTY), Step::Wait(None));
        stock.rooms(1, at(2000));
        start(&mut stock, "b", 2, at(2000));
    }
}
