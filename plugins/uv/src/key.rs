//! Cache keys: equal wishes get equal directories, also those the reference daemon made.
//!
//! Promises: pure; the formulas never change, because the keys name directories on users' disks.

use sha2::{Digest, Sha256};

/// What a key is made of. `deps` leaves out the packages every environment has.
#[derive(Debug, Default)]
pub(crate) struct KeyParts<'a> {
    /// Requirement specifiers, in any order.
    pub(crate) deps: &'a [String],
    /// Python constraint or version.
    pub(crate) python: Option<&'a str>,
    /// uv's prerelease mode.
    pub(crate) prerelease: Option<&'a str>,
    /// The notebook that owns the environment.
    pub(crate) env_id: Option<&'a str>,
    /// Other places that packages come from; empty for the usual ones.
    pub(crate) origins: &'a str,
}

/// 16 hex digits.
pub(crate) fn cache_key(parts: &KeyParts<'_>) -> String {
    let mut deps: Vec<&str> = parts.deps.iter().map(String::as_str).collect();
    deps.sort_unstable();
    let mut text: String = deps.iter().flat_map(|dep| [dep, "\n"]).collect();
    for (label, value) in
        [("requires-python:", parts.python), ("\nprerelease:", parts.prerelease), ("\nenv_id:", parts.env_id)]
    {
        if let Some(value) = value {
            text.push_str(label);
            text.push_str(value);
        }
    }
    text.push_str(parts.origins);
    hex_digits(&text, 16)
}

/// The first `count` hex digits of the SHA-256 of `text`.
pub(crate) fn hex_digits(text: &str, count: usize) -> String {
    let mut digits = hex::encode(Sha256::digest(text.as_bytes()));
    digits.truncate(count);
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(items: &[&str]) -> Vec<String> {
        items.iter().map(|item| (*item).to_owned()).collect()
    }

    /// Observed on the reference daemon.
    #[test]
    fn inline_key() {
        let deps = list(&["pyarrow>=14", "cowsay", "nbformat"]);
        let parts = KeyParts { deps: &deps, python: Some(">=3.13"), ..KeyParts::default() };
        assert_eq!(cache_key(&parts), "62acbb1939191ac0");
    }

    /// Observed on the reference daemon.
    #[test]
    fn captured_key() {
        let deps = list(&["pandas", "polars", "matplotlib", "plotly", "altair"]);
        let env_id = Some("c398c4f5-41f2-4f22-8c58-b6d3635bf239");
        assert_eq!(cache_key(&KeyParts { deps: &deps, env_id, ..KeyParts::default() }), "686fca7ee44c0aa0");
    }

    #[test]
    fn every_part_counts() {
        let deps = list(&["six"]);
        let base = || KeyParts { deps: &deps, ..KeyParts::default() };
        let keys = [
            cache_key(&base()),
            cache_key(&KeyParts { python: Some("3.12"), ..base() }),
            cache_key(&KeyParts { prerelease: Some("allow"), ..base() }),
            cache_key(&KeyParts { env_id: Some("a"), ..base() }),
            cache_key(&KeyParts { deps: &[], ..base() }),
            cache_key(&KeyParts { origins: "\n--index=https://a", ..base() }),
        ];
        assert_eq!(keys.iter().collect::<std::collections::BTreeSet<_>>().len(), keys.len());
    }
}
