//! Cache keys: equal wishes get equal directories, also those the reference daemon made.
//!
//! Promises: pure; the formulas never change, because the keys name directories on users' disks.

/// What a key is made of.
#[derive(Debug, Default)]
pub(crate) struct KeyParts<'a> {
    /// Specifications, in any order.
    pub(crate) deps: &'a [String],
    /// Channels, in any order.
    pub(crate) channels: &'a [String],
    /// Python constraint or version.
    pub(crate) python: Option<&'a str>,
    /// The notebook that owns the environment.
    pub(crate) env_id: Option<&'a str>,
}

/// 16 hex digits.
pub(crate) fn cache_key(parts: &KeyParts<'_>) -> String {
    let mut text = String::new();
    for (label, list) in [("", parts.deps), ("channel:", parts.channels)] {
        let mut list: Vec<&str> = list.iter().map(String::as_str).collect();
        list.sort_unstable();
        list.iter().for_each(|item| text.extend([label, item, "\n"]));
    }
    if let Some(python) = parts.python {
        text.extend(["python:", python]);
    }
    if !parts.python.is_some_and(is_free_threaded) {
        text.push_str("python-abi:gil\n");
    }
    if let Some(env_id) = parts.env_id {
        text.extend(["env_id:", env_id]);
    }
    runtimed_plugin_api::cache_key(&text)
}

/// Whether a constraint such as `3.14t` asks for a Python without a global interpreter lock.
pub(crate) fn is_free_threaded(python: &str) -> bool {
    python.split(|c: char| ",<>=!~ ".contains(c)).any(|part| {
        let version = part.strip_suffix('t').unwrap_or_default();
        version.starts_with(|c: char| c.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(items: &[&str]) -> Vec<String> {
        items.iter().map(|item| (*item).to_owned()).collect()
    }

    /// Observed on the reference daemon.
    #[test]
    fn the_key_of_the_reference() {
        let (deps, channels) = (list(&["pandas", "ipykernel", "pip"]), list(&["conda-forge"]));
        let parts = KeyParts { deps: &deps, channels: &channels, python: Some("3.12.*"), env_id: None };
        assert_eq!(cache_key(&parts), "8faaa64c89d43895");
    }

    #[test]
    fn every_part_counts() {
        let deps = list(&["six"]);
        let base = || KeyParts { deps: &deps, ..KeyParts::default() };
        let keys = [
            cache_key(&base()),
            cache_key(&KeyParts { python: Some("3.14"), ..base() }),
            cache_key(&KeyParts { python: Some("3.14t"), ..base() }),
            cache_key(&KeyParts { channels: &list(&["a"]), ..base() }),
            cache_key(&KeyParts { env_id: Some("a"), ..base() }),
            cache_key(&KeyParts { deps: &[], ..base() }),
        ];
        assert_eq!(keys.iter().collect::<std::collections::BTreeSet<_>>().len(), keys.len());
    }

    #[test]
    fn free_threading_is_a_letter_at_the_end_of_a_version() {
        assert!(is_free_threaded("3.14t") && is_free_threaded(">=3.13t,<4"));
        assert!(!is_free_threaded("3.14") && !is_free_threaded("3.14.*") && !is_free_threaded("t"));
    }
}
