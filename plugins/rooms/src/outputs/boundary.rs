//! Where a text may be cut.
//!
//! For: cutting near a byte offset without cutting a character; std has this from Rust 1.91 on.

/// The last place at or before `at` where `text` may be cut.
pub(super) fn floor(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

/// The first place at or after `at` where `text` may be cut.
pub(super) fn ceil(text: &str, at: usize) -> usize {
    (at..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_stay_whole() {
        let floors: Vec<usize> = (0..6).map(|at| floor("a日", at)).collect();
        let ceils: Vec<usize> = (0..6).map(|at| ceil("a日", at)).collect();
        assert_eq!((floors, ceils), (vec![0, 1, 1, 1, 4, 4], vec![0, 1, 4, 4, 4, 4]));
    }
}
