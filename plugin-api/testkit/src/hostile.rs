//! Texts that make no sense, for everything that takes a text.

/// Longest of them: more than anybody would keep in a buffer of fixed size, little enough for a hundred calls.
const LONG: usize = 1 << 20;

/// Each with what it is, for a sentence.
pub(crate) fn texts() -> Vec<(&'static str, String)> {
    let list = [
        ("an empty text", ""),
        ("a blank", " "),
        ("a NUL", "a\0b"),
        ("a line end", "a\nb\r\nc"),
        ("an option", "--help"),
        ("a way out of a folder", "../../../../../../etc/passwd"),
        ("shell code", "$(id) `id` ;& | > <"),
        ("format characters", "%s%n{}{0}"),
        ("control characters", "\u{1b}[2J\u{7f}\u{202e}"),
        ("characters beyond 16 bits", "\u{1f40d}\u{10ffff}"),
        ("what UTF-8 decoders put for garbage", "\u{fffd}\u{feff}"),
        ("JSON", "{\"a\": [1, null]}"),
    ];
    let mut texts: Vec<_> = list.map(|(what, text)| (what, text.to_owned())).into();
    texts.push(("a megabyte", "x".repeat(LONG)));
    texts
}
