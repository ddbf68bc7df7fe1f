//! The two kinds of blanks in a kernelspec: `{name}` in arguments, `$name` and `${name}` in variables.
//!
//! Promises: pure; what has no value stays as it is written, as in jupyter_client.

/// `text` with each `{name}` that `value` knows replaced.
pub(crate) fn braces(text: &str, value: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        out.push_str(before);
        let end = name_length(after);
        let found = after.get(end..).filter(|_| end > 0).and_then(|tail| tail.strip_prefix('}'));
        match found.and_then(|tail| Some((value(after.get(..end)?)?, tail))) {
            Some((value, tail)) => {
                out.push_str(&value);
                rest = tail;
            }
            None => {
                out.push('{');
                rest = after;
            }
        }
    }
    out + rest
}

/// `text` with `$name` and `${name}` replaced and `$$` as one `$` (Python's `string.Template`).
pub(crate) fn dollars(text: &str, value: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        rest = after;
        if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            rest = tail;
            continue;
        }
        let (name, tail) = match after.strip_prefix('{') {
            Some(inner) => {
                let (name, tail) = inner.split_at(name_length(inner));
                (name, tail.strip_prefix('}'))
            }
            None => {
                let (name, tail) = after.split_at(name_length(after));
                (name, Some(tail))
            }
        };
        let is_name = !name.starts_with(|first: char| first.is_ascii_digit()) && !name.is_empty();
        match tail.filter(|_| is_name).and_then(|tail| Some((value(name)?, tail))) {
            Some((value, tail)) => {
                out.push_str(&value);
                rest = tail;
            }
            None => out.push('$'),
        }
    }
    out + rest
}

/// Length in bytes of the name at the start of `text`.
fn name_length(text: &str) -> usize {
    text.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(name: &str) -> Option<String> {
        matches!(name, "a" | "B_2").then(|| format!("<{name}$a{{a}}>"))
    }

    #[test]
    fn what_is_known_is_filled_in_once() {
        assert_eq!(braces("x{a}{B_2}{{a}}{}{c}{a", known), "x<a$a{a}><B_2$a{a}>{<a$a{a}>}{}{c}{a");
        assert_eq!(dollars("$a-${B_2}$", known), "<a$a{a}>-<B_2$a{a}>$");
    }

    #[test]
    fn what_is_not_stays() {
        // python3: string.Template(text).safe_substitute(a="A")
        for text in ["$b", "${b}", "${a", "$ a", "${}", "$1", "ä$ä", "%a"] {
            assert_eq!(dollars(text, known), text);
        }
        assert_eq!(dollars("$$a $$$$", known), "$a $$");
    }
}
