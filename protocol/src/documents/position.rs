//! Where a cell stands: a fractional index written as upper-case hex.
//!
//! For: putting a cell between two others without touching them.
//! Promises: no position, whoever wrote it, panics; a new position sorts where it was asked for as long
//! as its neighbors are well-formed.
//! Shape: the hex of bytes that end in the terminator 0x80. Positions sort as strings, ties by cell id.

use loro_fractional_index::FractionalIndex;

/// The position of a lone cell, and of a cell that has none.
pub const DEFAULT: &str = "80";

/// Last byte of every well-formed index.
const TERMINATOR: u8 = 0x80;

/// A position behind `position`.
pub fn after(position: &str) -> String {
    FractionalIndex::new_after(&repaired(position)).to_string()
}

/// A position ahead of `position`.
pub fn before(position: &str) -> String {
    FractionalIndex::new_before(&repaired(position)).to_string()
}

/// A position between the two, or none if there is no room (equal, out of order or malformed).
pub fn between(left: &str, right: &str) -> Option<String> {
    FractionalIndex::new_between(&well_formed(left)?, &well_formed(right)?).map(|index| index.to_string())
}

/// A position for a cell that goes after `left` and ahead of `right`, either of which may be missing.
pub fn slot(left: Option<&str>, right: Option<&str>) -> String {
    match (left, right) {
        (Some(left), Some(right)) => between(left, right).unwrap_or_else(|| after(left)),
        (Some(left), None) => after(left),
        (None, Some(right)) => before(right),
        (None, None) => DEFAULT.to_owned(),
    }
}

/// The index written in `position`, if it is one. The terminator counts: the crate walks until it meets
/// a byte it can raise or lower, and panics at the end of bytes that have none.
fn well_formed(position: &str) -> Option<FractionalIndex> {
    let bytes = leading_bytes(position);
    let whole = bytes.len() * 2 == position.len() && bytes.last() == Some(&TERMINATOR);
    whole.then(|| FractionalIndex::from_bytes(bytes))
}

/// An index near `position`, whatever a client wrote there: what follows the last whole pair of
/// upper-case hex digits is ignored, and the terminator is added where it is missing.
fn repaired(position: &str) -> FractionalIndex {
    let mut bytes = leading_bytes(position);
    if bytes.last() != Some(&TERMINATOR) {
        bytes.push(TERMINATOR);
    }
    FractionalIndex::from_bytes(bytes)
}

fn leading_bytes(position: &str) -> Vec<u8> {
    let digit = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'A'..=b'F' => Some(c - b'A' + 10),
        _ => None,
    };
    let pairs = position.as_bytes().chunks_exact(2);
    pairs
        .map_while(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn repeat(step: fn(&str) -> String, times: usize) -> Vec<String> {
        let mut last = DEFAULT.to_owned();
        let mut next = || {
            last = step(&last);
            last.clone()
        };
        (0..times).map(|_| next()).collect()
    }

    #[test]
    fn appending_gives_the_measured_positions() {
        let got = repeat(after, 129);
        assert_eq!(got[..3], ["8180", "8280", "8380"]);
        assert_eq!(got[125..], ["FE80", "FF80", "FF8180", "FF8280"]);
    }

    #[test]
    fn prepending_gives_the_measured_positions() {
        let got = repeat(before, 130);
        assert_eq!(got[..2], ["7F80", "7E80"]);
        assert_eq!(got[126..], ["0180", "0080", "007F80", "007E80"]);
    }

    #[test]
    fn inserting_gives_the_measured_positions() {
        for (left, right, expected) in [
            ("80", "8180", Some("817F80")),
            ("80", "8080", Some("807F80")),
            ("8180", "8280", Some("818180")),
            ("7F80", "80", Some("7F8180")),
            ("8080", "8180", Some("808180")),
            ("80", "807F80", Some("807E80")),
            ("8180", "818080", Some("81807F80")),
            ("80", "81", None),
        ] {
            assert_eq!(between(left, right).as_deref(), expected, "between {left} and {right}");
        }
    }

    #[test]
    fn a_slot_needs_no_neighbors() {
        assert_eq!(slot(None, None), "80");
        assert_eq!(slot(None, Some("80")), "7F80");
        assert_eq!(slot(Some("80"), None), "8180");
        assert_eq!(slot(Some("80"), Some("81")), "8180");
    }

    proptest! {
        #[test]
        fn nothing_a_client_writes_panics(left in ".{0,12}|[0F]{0,12}|[0-9A-F]{0,12}", right in ".{0,12}|[0F]{0,12}|[0-9A-F]{0,12}") {
            after(&left);
            before(&left);
            slot(Some(&left), Some(&right));
        }

        #[test]
        fn positions_we_made_sort_where_they_were_asked_for(choices in proptest::collection::vec(any::<prop::sample::Index>(), 1..60)) {
            let mut order: Vec<String> = Vec::new();
            for choice in choices {
                let at = choice.index(order.len() + 1);
                let left = at.checked_sub(1).and_then(|i| order.get(i)).map(String::as_str);
                let new = slot(left, order.get(at).map(String::as_str));
                order.insert(at, new);
            }
            prop_assert!(order.windows(2).all(|pair| pair[0] < pair[1]), "{order:?}");
        }
    }
}
