//! Colors for code that is being typed.
//!
//! Promises: pure; never changes a letter; what is not understood is plain. Knows Python well and other languages a
//! little.

use std::str::Chars;

/// Python's words (python3 -c "import keyword; print(keyword.kwlist)").
const PYTHON: [&str; 35] = [
    "False", "None", "True", "and", "as", "assert", "async", "await", "break", "class", "continue", "def",
    "del", "elif", "else", "except", "finally", "for", "from", "global", "if", "import", "in", "is",
    "lambda", "nonlocal", "not", "or", "pass", "raise", "return", "try", "while", "with", "yield",
];

/// What a piece of code is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Plain,
    Keyword,
    Text,
    Number,
    Comment,
}

/// How a language looks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Language {
    keywords: &'static [&'static str],
    comment: &'static str,
}

impl Language {
    /// The language that kernels call `name`.
    pub(crate) fn named(name: &str) -> Self {
        match name.to_lowercase().as_str() {
            "python" => Self { keywords: &PYTHON, comment: "#" },
            "javascript" | "typescript" | "rust" | "go" | "java" | "kotlin" | "scala" | "c++" | "c"
            | "c#" => Self { keywords: &[], comment: "//" },
            _ => Self { keywords: &[], comment: "#" },
        }
    }

    /// The pieces of `code`, in order and complete.
    pub(crate) fn pieces(self, code: &str) -> Vec<(Kind, &str)> {
        let mut pieces = Vec::new();
        let mut rest = code;
        while let Some(first) = rest.chars().next() {
            let (kind, length) = self.piece(rest, first);
            let (piece, tail) = rest.split_at(length);
            rest = tail;
            pieces.push((kind, piece));
        }
        pieces
    }

    /// The piece at the start of `rest`, which begins with `first`.
    fn piece(self, rest: &str, first: char) -> (Kind, usize) {
        let until = |end: fn(char) -> bool| rest.find(end).unwrap_or(rest.len());
        if rest.starts_with(self.comment) {
            (Kind::Comment, until(|letter| letter == '\n'))
        } else if first == '"' || first == '\'' {
            (Kind::Text, text_length(rest, first))
        } else if first.is_ascii_digit() {
            (Kind::Number, until(|letter| !letter.is_alphanumeric() && letter != '.' && letter != '_'))
        } else if first.is_alphabetic() || first == '_' {
            let length = until(|letter| !letter.is_alphanumeric() && letter != '_');
            let word = rest.get(..length).unwrap_or_default();
            (if self.keywords.contains(&word) { Kind::Keyword } else { Kind::Plain }, length)
        } else {
            (Kind::Plain, first.len_utf8())
        }
    }
}

/// Length of the string literal at the start of `code`, its quotes included. One without an end ends with its line, or
/// with the code if it has three quotes.
fn text_length(code: &str, quote: char) -> usize {
    let three = String::from(quote).repeat(3);
    if let Some(inside) = code.strip_prefix(&three) {
        return inside.find(&three).map_or(code.len(), |end| end + 2 * three.len());
    }
    let mut letters: Chars<'_> = code.chars();
    letters.next();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => drop(letters.next()),
            '\n' => break,
            _ if letter == quote => break,
            _ => {}
        }
    }
    code.len() - letters.as_str().len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn colored(code: &str) -> Vec<(Kind, &str)> {
        let pieces = Language::named("Python").pieces(code);
        assert_eq!(pieces.iter().map(|(_, piece)| *piece).collect::<String>(), code);
        pieces.into_iter().filter(|(kind, _)| *kind != Kind::Plain).collect()
    }

    #[test]
    fn words_texts_numbers_and_comments_are_told_apart() {
        use Kind::{Comment, Keyword, Number, Text};
        assert_eq!(
            colored("for förn in f'a\\'b': x1 = 0x_1f + 1.5 # \"not\nifs"),
            [
                (Keyword, "for"),
                (Keyword, "in"),
                (Text, "'a\\'b'"),
                (Number, "0x_1f"),
                (Number, "1.5"),
                (Comment, "# \"not")
            ]
        );
        assert_eq!(colored("'''a'b\n''' \"open\\"), [(Text, "'''a'b\n'''"), (Text, "\"open\\")]);
        assert_eq!(colored("'''never ends '"), [(Text, "'''never ends '")]);
    }
}
