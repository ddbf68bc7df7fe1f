//! Long text made short, and read on page by page.
//!
//! Everything counts in characters (Unicode code points) of the text that [`plain`] leaves, so that the offset named
//! where something is left out is the one that a page begins at.

/// Text as a model reads it: no colors or other escape sequences of a terminal.
pub(crate) fn plain(text: &str) -> String {
    anstream::adapter::strip_str(text).to_string()
}

/// Head and tail of a text that has more than `most` characters, with what is left out between them, and how many
/// characters of it are shown. Of four parts the tail gets `tail_share`; `more` is the call that reads on from an offset.
/// Where there is a line's end near a cut, the cut is there.
pub(crate) fn clip(
    text: &str,
    most: usize,
    tail_share: usize,
    more: impl Fn(usize) -> String,
) -> (String, usize) {
    let length = text.chars().count();
    if length <= most {
        return (text.to_owned(), length);
    }
    let tail = most * tail_share / 4;
    let head = before_cut(text, at(text, most - tail));
    let rest = text.get(head.len()..).unwrap_or_default();
    let tail = after_cut(rest, at(rest, rest.chars().count() - tail));
    let middle = rest.strip_suffix(tail).unwrap_or_default();
    let (shown, left_out) = (head.chars().count(), middle.chars().count());
    let lines = middle.lines().count();
    let note = format!("[{left_out} characters ({lines} lines) left out; {} reads on]", more(shown));
    let breaks = |text: &str| if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    (format!("{head}{}{note}\n{tail}", breaks(head)), length - left_out)
}

/// `most` characters of a text from `offset` on, and where in it they are.
pub(crate) fn page(text: &str, offset: usize, most: usize) -> String {
    let length = text.chars().count();
    let from = at(text, offset);
    let shown: String = text.get(from..).unwrap_or_default().chars().take(most).collect();
    let end = offset.min(length) + shown.chars().count();
    let next = if end < length { format!("; the next page has offset={end}") } else { String::new() };
    format!("[characters {} to {end} of {length}{next}]\n{shown}", offset.min(length))
}

/// Byte position of a character; the end if there are fewer.
fn at(text: &str, character: usize) -> usize {
    text.char_indices().nth(character).map_or(text.len(), |(at, _)| at)
}

/// The text before a cut, moved back to the end of a line that is in the last quarter.
fn before_cut(text: &str, cut: usize) -> &str {
    let head = text.get(..cut).unwrap_or(text);
    match head.rfind('\n') {
        Some(end) if end + 1 >= cut - cut / 4 => head.get(..=end).unwrap_or(head),
        _ => head,
    }
}

/// The text after a cut, moved on to the beginning of a line that is in the first quarter.
fn after_cut(text: &str, cut: usize) -> &str {
    let tail = text.get(cut..).unwrap_or_default();
    match tail.find('\n') {
        Some(end) if end < tail.len() / 4 => tail.get(end + 1..).unwrap_or(tail),
        _ => tail,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shortened(text: &str, most: usize, tail_share: usize) -> String {
        clip(text, most, tail_share, |offset| format!("more({offset})")).0
    }

    #[test]
    fn a_short_text_stays_whole() {
        assert_eq!(clip("", 0, 2, |_| String::new()), (String::new(), 0));
        assert_eq!(shortened("äöü", 3, 2), "äöü");
    }

    #[test]
    fn a_long_text_keeps_head_and_tail_and_says_what_is_missing() {
        let shown = shortened("aaaaäbbbbcccc", 8, 2);
        assert_eq!(shown, "aaaa\n[5 characters (1 lines) left out; more(4) reads on]\ncccc");
        let shown = shortened("0123456789", 4, 3);
        assert_eq!(shown, "0\n[6 characters (1 lines) left out; more(1) reads on]\n789");
        assert_eq!(shortened("abc", 0, 2), "[3 characters (1 lines) left out; more(0) reads on]\n");
    }

    #[test]
    fn cuts_are_at_the_ends_of_lines_that_are_near() {
        let text: String = (0..100).map(|line| format!("line {line:03}\n")).collect();
        let shown = shortened(&text, 95, 2);
        let (head, tail) =
            shown.split_once("[810 characters (90 lines) left out; more(45) reads on]\n").unwrap();
        assert!(head.starts_with("line 000\n") && head.ends_with("line 004\n"), "{head}");
        assert!(tail.starts_with("line 095\n") && tail.ends_with("line 099\n"), "{tail}");
        assert_eq!(clip(&text, 95, 2, |_| String::new()).1, 90);
    }

    #[test]
    fn pages_join_to_the_whole() {
        let text = "äöü".repeat(10);
        assert_eq!(
            page(&text, 0, 20),
            format!("[characters 0 to 20 of 30; the next page has offset=20]\n{}äö", "äöü".repeat(6))
        );
        assert_eq!(page(&text, 20, 20), format!("[characters 20 to 30 of 30]\nü{}", "äöü".repeat(3)));
        assert_eq!(page(&text, 99, 20), "[characters 30 to 30 of 30]\n");
    }

    #[test]
    fn colors_go_and_everything_else_stays() {
        assert_eq!(
            plain("\x1b[1;31mred\x1b[0m\t│\n\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\"),
            "red\t│\nlink"
        );
    }
}
