//! Replacing one place in a cell's source.
//!
//! For: edits that name what is there, so that they fail where the cell is another by now.
//! Promises: exactly one place is replaced, or nothing and the words say why.

use std::ops::Range;

use regex::RegexBuilder;

/// Lines that are shown before and after an edit.
const AROUND: usize = 2;
/// Places that are named when there are too many.
const NAMED: usize = 10;

/// A source with one place replaced.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Edited {
    /// The source.
    pub(crate) source: String,
    /// What was put in, in bytes of the source.
    place: Range<usize>,
}

/// Replaces `wanted` by `content` where `before` stands directly before it and `after` directly after it.
///
/// # Errors
/// What is wrong and what to do, if there is not exactly one such place.
pub(crate) fn literal(
    source: &str,
    wanted: &str,
    content: &str,
    (before, after): (&str, &str),
) -> Result<Edited, String> {
    if wanted.is_empty() {
        return Err(
            "`match` is empty. Give the text to replace, or use set_cell for the whole source.".into()
        );
    }
    let all: Vec<_> = places(source, wanted);
    let fits = |place: &&Range<usize>| {
        let (head, tail) = (source.get(..place.start), source.get(place.end..));
        head.is_some_and(|head| head.ends_with(before)) && tail.is_some_and(|tail| tail.starts_with(after))
    };
    let fitting: Vec<_> = all.iter().filter(fits).cloned().collect();
    match fitting.as_slice() {
        [place] => Ok(edited(source, place, content)),
        [] if all.is_empty() => Err(format!(
            "The cell does not contain `match`. It must be the same to the character, white space too. {}",
            "Look at the source with get_cell."
        )),
        [] => Err(format!(
            "`match` is on {} of the cell, but never between this context_before and context_after. {}",
            lines(source, &all),
            "They must be what stands directly around it."
        )),
        several => Err(format!(
            "`match` is on {} of the cell. {}",
            lines(source, several),
            "Make it longer, or give context_before or context_after, so that only one place is meant."
        )),
    }
}

/// Replaces what `pattern` matches by `content`, which is taken as it is.
///
/// # Errors
/// As [`literal`], and if the pattern is none.
pub(crate) fn pattern(source: &str, pattern: &str, content: &str) -> Result<Edited, String> {
    let regex = RegexBuilder::new(pattern).multi_line(true).build().map_err(|error| {
        format!("`pattern` is not a regular expression: {error}\nLook-around and back-references are not supported.")
    })?;
    let all: Vec<_> = regex.find_iter(source).map(|it| it.range()).collect();
    match all.as_slice() {
        [place] => Ok(edited(source, place, content)),
        [] => Err(format!(
            "`pattern` matches nothing in the cell. {}",
            "`^` and `$` are the ends of lines; `(?s)` lets `.` match a line's end. Look at the source with get_cell."
        )),
        several => Err(format!(
            "`pattern` matches {} places, on {} of the cell. Make it match only one.",
            several.len(),
            lines(source, several)
        )),
    }
}

impl Edited {
    /// The lines around what was put in, with their numbers.
    pub(crate) fn show(&self) -> String {
        let line = |at: usize| self.source.get(..at).unwrap_or_default().matches('\n').count();
        let first = line(self.place.start).saturating_sub(AROUND);
        let last = line(self.place.end) + AROUND;
        let lines = self.source.lines().enumerate().skip(first).take(last - first + 1);
        lines.map(|(number, line)| format!("{:>4}| {line}\n", number + 1)).collect()
    }
}

fn edited(source: &str, place: &Range<usize>, content: &str) -> Edited {
    let mut source = source.to_owned();
    source.replace_range(place.clone(), content);
    Edited { source, place: place.start..place.start + content.len() }
}

/// Every place of `wanted`, those that overlap too.
fn places(source: &str, wanted: &str) -> Vec<Range<usize>> {
    let starts = source.char_indices().map(|(at, _)| at);
    let here = |at: &usize| source.get(*at..).is_some_and(|rest| rest.starts_with(wanted));
    starts.filter(here).map(|at| at..at + wanted.len()).collect()
}

/// The lines on which places begin, in words.
fn lines(source: &str, places: &[Range<usize>]) -> String {
    let line = |place: &Range<usize>| source.get(..place.start).unwrap_or_default().matches('\n').count() + 1;
    let mut lines: Vec<_> = places.iter().map(line).collect();
    lines.dedup();
    let named: Vec<_> = lines.iter().take(NAMED).map(ToString::to_string).collect();
    let more = if lines.len() > NAMED { " and more" } else { "" };
    format!("line{} {}{more}", if lines.len() == 1 { "" } else { "s" }, named.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "a = 1\nb = a + 1\nprint(a, b)\n";

    #[test]
    fn one_place_is_replaced() {
        let done = literal(SOURCE, "a + 1", "a * 2", ("", "")).unwrap();
        assert_eq!(done.source, "a = 1\nb = a * 2\nprint(a, b)\n");
        assert_eq!(done.show(), "   1| a = 1\n   2| b = a * 2\n   3| print(a, b)\n");
    }

    #[test]
    fn context_says_which_place_is_meant() {
        assert_eq!(
            literal(SOURCE, "1", "9", ("a + ", "\n")).unwrap().source,
            "a = 1\nb = a + 9\nprint(a, b)\n"
        );
        let several = literal(SOURCE, "1", "9", ("", "")).unwrap_err();
        assert!(several.starts_with("`match` is on lines 1, 2 of the cell."), "{several}");
        let elsewhere = literal(SOURCE, "print", "p", ("x", "")).unwrap_err();
        assert!(elsewhere.contains("on line 3") && elsewhere.contains("never between"), "{elsewhere}");
        assert!(literal("aaa", "aa", "b", ("", "")).is_err(), "places that overlap are two");
    }

    #[test]
    fn what_is_not_there_is_not_replaced() {
        assert!(literal(SOURCE, "c = 1", "", ("", "")).unwrap_err().contains("does not contain"));
        assert!(literal(SOURCE, "", "x", ("", "")).unwrap_err().contains("is empty"));
        assert!(pattern(SOURCE, "^c", "x").unwrap_err().contains("matches nothing"));
    }

    #[test]
    fn a_pattern_matches_one_place_and_its_replacement_is_no_pattern() {
        assert_eq!(pattern(SOURCE, "^b = .*$", "b = $0").unwrap().source, "a = 1\nb = $0\nprint(a, b)\n");
        let several = pattern(SOURCE, r"\d", "x").unwrap_err();
        assert!(several.contains("matches 2 places, on lines 1, 2"), "{several}");
        assert!(pattern(SOURCE, "(", "x").unwrap_err().contains("not a regular expression"));
        assert!(pattern(SOURCE, "(?=a)", "x").unwrap_err().contains("not supported"));
    }
}
