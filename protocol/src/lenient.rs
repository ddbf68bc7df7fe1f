//! Serde helper: an explicit `null` means what an absent key means.

use serde::{Deserialize, Deserializer};

/// Reads a value, or its default for `null`. Use with `default` for absent keys.
pub(crate) fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Whether a value is its type's default, for leaving it out.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
