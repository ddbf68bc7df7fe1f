//! The word that may have been meant.

/// How alike two words must be, from 0 to 1. Source: what the command line's own suggestions demand.
const ALIKE: f64 = 0.7;

/// The most alike of `words`, if there is one.
pub(crate) fn closest<'a>(word: &str, words: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let alike = words.map(|other| (strsim::jaro_winkler(word, other), other));
    alike.filter(|(how, _)| *how > ALIKE).max_by(|(a, _), (b, _)| a.total_cmp(b)).map(|(_, other)| other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_understood_and_nonsense_is_not() {
        let words = ["theme", "uv_pool_size", "conda_pool_size"];
        assert_eq!(closest("uv_pool_sizes", words.into_iter()), Some("uv_pool_size"));
        assert_eq!(closest("zzz", words.into_iter()), None);
    }
}
