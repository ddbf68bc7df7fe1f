//! Which environments go, and why the others stay.
//!
//! For: the periodic collection, and `runt env clean`.
//! Promises: pure; nothing in use goes, nor what a pool or a notebook keeps; a clock that jumps deletes nothing that a
//! steady one would not.

use std::cmp::Reverse;
use std::time::Duration;

use super::state::Place;

/// So many environments of the cache stay, however old they are (environments contract, section 2.10).
const KEPT: usize = 10;
/// Longer than this unused, one may go (section 2.10).
const DAY: Duration = Duration::from_secs(86_400);
/// What was used a moment ago may be about to be used (our choice: starting a kernel takes seconds).
const MOMENT: Duration = Duration::from_secs(300);

/// Whose an environment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// A pool's.
    Pool(Place),
    /// Everybody's who declares the same.
    Cache,
    /// One notebook's.
    Notebook,
    /// One notebook's that is gone for good.
    GoneNotebook,
    /// Nobody's any more.
    Nobody,
}

impl Owner {
    /// In one word.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Pool(Place::Ready) => "pool",
            Self::Pool(Place::Template) => "template",
            Self::Pool(Place::Building) => "building",
            Self::Pool(Place::Taken) => "room",
            Self::Cache => "cache",
            Self::Notebook | Self::GoneNotebook => "notebook",
            Self::Nobody => "leftover",
        }
    }
}

/// What decides about one environment.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    /// Whose it is.
    pub(crate) owner: Owner,
    /// Whether a room or a process uses it.
    pub(crate) in_use: bool,
    /// When it was used last, seconds of the system's clock.
    pub(crate) last_used: i64,
    /// Bytes that deleting it frees.
    pub(crate) own_bytes: u64,
}

/// What becomes of an environment, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It goes.
    Remove(&'static str),
    /// It stays.
    Keep(&'static str),
}

/// How much may stay.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Bytes that all environments take now.
    pub(crate) bytes: u64,
    /// Bytes that they may take.
    pub(crate) budget: u64,
    /// However new they are, what nobody uses goes.
    pub(crate) all: bool,
}

/// Whether it was used a moment before `now`. A stamp of the future says nothing.
pub(crate) fn just_used(last_used: i64, now: i64) -> bool {
    age(last_used, now) < MOMENT
}

fn age(last_used: i64, now: i64) -> Duration {
    // A moment ahead is a clock that was corrected.
    let ahead = last_used.saturating_sub(now);
    let seconds = if ahead < 60 { now.saturating_sub(last_used).max(0) } else { i64::MAX };
    Duration::from_secs(seconds.unsigned_abs())
}

/// Decides about all environments, each in its place.
pub(crate) fn decide(found: &[Candidate], limits: Limits, now: i64) -> Vec<Verdict> {
    let mut verdicts: Vec<_> = found.iter().map(|one| at_once(one, limits.all, now)).collect();
    let mut cache: Vec<usize> = (0..found.len()).filter(|at| verdicts.get(*at) == Some(&None)).collect();
    cache.sort_by_key(|at| found.get(*at).map(|one| (age(one.last_used, now), Reverse(one.own_bytes))));
    let freed = |found: &[Candidate], verdicts: &[Option<Verdict>]| -> u64 {
        let gone =
            found.iter().zip(verdicts).filter(|(_, verdict)| matches!(verdict, Some(Verdict::Remove(_))));
        gone.map(|(one, _)| one.own_bytes).sum()
    };
    for (rank, at) in cache.iter().enumerate() {
        let old = found.get(*at).is_some_and(|one| age(one.last_used, now) > DAY);
        if let Some(verdict) = verdicts.get_mut(*at)
            && old
            && rank >= KEPT
        {
            *verdict = Some(Verdict::Remove("not used for a day, and 10 others were since"));
        }
    }
    for at in cache.iter().rev() {
        if limits.bytes.saturating_sub(freed(found, &verdicts)) <= limits.budget {
            break;
        }
        if let Some(verdict @ None) = verdicts.get_mut(*at) {
            *verdict = Some(Verdict::Remove(
                "environments take more than their budget, and this was not used for longest",
            ));
        }
    }
    verdicts.into_iter().map(|verdict| verdict.unwrap_or(Verdict::Keep("used lately"))).collect()
}

/// What can be said of one without the others; none if it depends on them.
fn at_once(one: &Candidate, all: bool, now: i64) -> Option<Verdict> {
    Some(match one.owner {
        _ if one.in_use => Verdict::Keep("in use"),
        Owner::Pool(_) => Verdict::Keep("the pool keeps it"),
        Owner::Notebook => Verdict::Keep("kept for its notebook"),
        _ if just_used(one.last_used, now) => Verdict::Keep("used a moment ago"),
        Owner::Nobody => Verdict::Remove("left over"),
        Owner::GoneNotebook => Verdict::Remove("its notebook has not been there for 30 days"),
        Owner::Cache if all => Verdict::Remove("not in use"),
        Owner::Cache => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000;
    const HOURS: i64 = 3600;

    fn cached(hours_ago: i64) -> Candidate {
        Candidate { owner: Owner::Cache, in_use: false, last_used: NOW - hours_ago * HOURS, own_bytes: 100 }
    }

    fn removed(found: &[Candidate], limits: Limits) -> Vec<usize> {
        let verdicts = decide(found, limits, NOW);
        (0..found.len()).filter(|at| matches!(verdicts[*at], Verdict::Remove(_))).collect()
    }

    const PLENTY: Limits = Limits { bytes: 2_000, budget: 1 << 40, all: false };

    #[test]
    fn the_newest_ten_and_those_of_today_stay() {
        let found: Vec<_> = (1..=14).map(|number| cached(number * 24 + 1)).collect();
        assert_eq!(removed(&found, PLENTY), [10, 11, 12, 13]);
        let found: Vec<_> = (1..=14).map(cached).collect();
        assert!(removed(&found, PLENTY).is_empty());
    }

    #[test]
    fn what_is_used_or_kept_by_somebody_stays_whatever_is_asked() {
        let old = cached(1000);
        let with = |owner| Candidate { owner, ..old.clone() };
        let found = [
            Candidate { in_use: true, ..old.clone() },
            Candidate { in_use: true, ..with(Owner::Nobody) },
            with(Owner::Pool(Place::Ready)),
            with(Owner::Notebook),
            Candidate { last_used: NOW - 60, ..old.clone() },
            Candidate { last_used: NOW - 60, ..with(Owner::Nobody) },
            with(Owner::Nobody),
            with(Owner::GoneNotebook),
            Candidate { in_use: true, ..with(Owner::GoneNotebook) },
            old.clone(),
        ];
        assert_eq!(removed(&found, Limits { budget: 0, all: true, ..PLENTY }), [6, 7, 9]);
        assert_eq!(removed(&found, PLENTY), [6, 7]);
    }

    #[test]
    fn over_the_budget_the_least_used_go_until_it_fits() {
        let found = [cached(3), cached(9), cached(1), cached(5)];
        assert_eq!(removed(&found, Limits { bytes: 1_000, budget: 850, all: false }), [1, 3]);
        assert_eq!(removed(&found, Limits { bytes: 1_000, budget: 0, all: false }), [0, 1, 2, 3]);
    }

    #[test]
    fn a_clock_that_was_ahead_protects_nothing_for_ever_and_deletes_nothing_new() {
        let future = Candidate { last_used: NOW + 100_000_000, ..cached(0) };
        assert!(removed(std::slice::from_ref(&future), PLENTY).is_empty(), "it is one of ten");
        let mut found: Vec<_> = (1..=10).map(cached).collect();
        found.push(future);
        assert_eq!(removed(&found, PLENTY), [10]);
        assert!(just_used(NOW + 30, NOW) && !just_used(NOW + 100, NOW) && !just_used(NOW - 600, NOW));
    }
}
