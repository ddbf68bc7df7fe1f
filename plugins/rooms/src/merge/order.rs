//! The order of cells that two sides changed.
//!
//! Promises: an order that only one side changed is that side's; where both did, the file's; every cell
//! that has a place on one side only comes behind the one it follows there.

use std::collections::{HashMap, HashSet};

/// The ids of all cells that `stay`, in their merged order.
pub(super) fn merged<'a>(
    base: &[&'a str],
    theirs: &[&'a str],
    ours: &[&'a str],
    stays: &dyn Fn(&str) -> bool,
) -> Vec<&'a str> {
    let of = |ids: &[&'a str]| -> Vec<&'a str> { ids.iter().copied().filter(|id| stays(id)).collect() };
    let (theirs, ours) = (of(theirs), of(ours));
    let there: HashSet<&str> = theirs.iter().copied().collect();
    let before: HashSet<&str> = base.iter().copied().collect();
    let moved =
        !base.iter().filter(|id| there.contains(*id)).eq(theirs.iter().filter(|id| before.contains(*id)));
    if moved { woven(&theirs, &ours) } else { woven(&ours, &theirs) }
}

/// `first`, and what only `second` has, each behind what it follows there.
fn woven<'a>(first: &[&'a str], second: &[&'a str]) -> Vec<&'a str> {
    let known: HashSet<&str> = first.iter().copied().collect();
    // Shape: what they follow -> those that follow it; none for the start.
    let mut behind: HashMap<Option<&str>, Vec<&'a str>> = HashMap::new();
    let mut last = None;
    for &id in second {
        if known.contains(id) {
            last = Some(id);
        } else {
            behind.entry(last).or_default().push(id);
        }
    }
    let mut woven = behind.remove(&None).unwrap_or_default();
    for &id in first {
        woven.push(id);
        woven.extend(behind.remove(&Some(id)).unwrap_or_default());
    }
    woven
}

/// The ids that need not move for `now` to come into the order `wanted`: as many as there can be. Ids that
/// only one of them has do not count.
pub(super) fn staying<'a>(now: &[&str], wanted: &[&'a str]) -> HashSet<&'a str> {
    let places: HashMap<&str, usize> = now.iter().enumerate().map(|(place, id)| (*id, place)).collect();
    let common: Vec<(usize, &'a str)> =
        wanted.iter().filter_map(|id| Some((*places.get(id)?, *id))).collect();
    // The longest rising sequence of places, by patience: for each length the sequence with the least end.
    let mut ends: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = Vec::with_capacity(common.len());
    for (index, (place, _)) in common.iter().enumerate() {
        let place_of = |end: &usize| common.get(*end).map_or(0, |(place, _)| *place);
        let length = ends.partition_point(|end| place_of(end) < *place);
        before.push(length.checked_sub(1).and_then(|shorter| ends.get(shorter)).copied());
        match ends.get_mut(length) {
            Some(end) => *end = index,
            None => ends.push(index),
        }
    }
    let last = ends.last().copied();
    std::iter::successors(last, |index| before.get(*index).copied().flatten())
        .filter_map(|index| common.get(index).map(|(_, id)| *id))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_cell_that_moved_is_one_move() {
        let stay = staying(&["a", "b", "c", "d"], &["d", "a", "b", "c"]);
        assert_eq!(stay, HashSet::from(["a", "b", "c"]));
        let stay = staying(&["a", "x", "b"], &["b", "y", "a"]);
        assert_eq!(stay.len(), 1);
    }

    #[test]
    fn what_both_sides_added_stays_where_it_was_added() {
        let all = |_: &str| true;
        assert_eq!(merged(&["a", "b"], &["a", "t", "b"], &["a", "o", "b"], &all), ["a", "t", "o", "b"]);
        assert_eq!(merged(&["a", "b"], &["b", "a"], &["a", "o", "b"], &all), ["b", "a", "o"]);
        assert_eq!(merged(&["a", "b"], &["a", "b"], &["b", "a"], &all), ["b", "a"]);
        assert_eq!(merged(&[], &["t"], &["o"], &all), ["t", "o"]);
    }
}
