//! Two edits of one text.
//!
//! Promises: lines that only one side changed are as that side has them; lines that both changed, or that
//! lie next to each other, are merged only if both sides made the same of them.

use similar::TextMerge;

/// Both edits in one; none if they do not go together.
pub(super) fn merged(base: &str, theirs: &str, ours: &str) -> Option<String> {
    if ours == theirs || theirs == base {
        return Some(ours.to_owned());
    }
    if ours == base {
        return Some(theirs.to_owned());
    }
    // With an end each, so that a line added behind the last is no change of the last.
    let [base, theirs, ours] = [base, theirs, ours].map(|text| format!("{text}\n"));
    let merge = TextMerge::from_lines(&base, &ours, &theirs);
    if merge.is_conflicted() {
        return None;
    }
    let mut merged = merge.to_string();
    merged.pop();
    Some(merged)
}

#[cfg(test)]
mod tests {
    use super::merged;

    #[test]
    fn edits_of_different_lines_go_together() {
        assert_eq!(merged("a\nb\nc", "A\nb\nc", "a\nb\nC").as_deref(), Some("A\nb\nC"));
        assert_eq!(merged("a\nb", "0\na\nb", "a\nb\nc").as_deref(), Some("0\na\nb\nc"));
        assert_eq!(merged("a\nb\nc\nd", "a\nc\nd", "a\nb\nc\nD").as_deref(), Some("a\nc\nD"));
        assert_eq!(merged("a\nb\nc", "x\nb\nc", "x\nb\nd").as_deref(), Some("x\nb\nd"));
    }

    #[test]
    fn edits_of_one_place_do_not() {
        assert_eq!(merged("a", "b", "c"), None);
        assert_eq!(merged("", "b", "c"), None);
        assert_eq!(merged("a\nb", "A\nb", "a\nB"), None, "next to each other");
        assert_eq!(merged("a", "a\nb", "a\nc"), None);
        assert_eq!(merged("a\nb\nc", "a\nc", "a\nB\nc"), None);
    }
}
