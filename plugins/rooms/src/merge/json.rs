//! Two edits of one piece of metadata.
//!
//! Promises: merged key by key, at every level; lists of texts, such as tags and dependencies, as sets.

use serde_json::{Map as JsonMap, Value as Json};

type Map = JsonMap<String, Json>;

/// Both edits in one, and whether both gave a key different values: ours is there, then.
pub(super) fn merged(base: &Map, theirs: &Map, ours: &Map) -> (Map, bool) {
    if theirs == base {
        return (ours.clone(), false);
    }
    if ours == base {
        return (theirs.clone(), false);
    }
    let (mut merged, mut clash) = (Map::new(), false);
    let only_theirs = theirs.keys().filter(|key| !ours.contains_key(*key));
    for key in ours.keys().chain(only_theirs) {
        let (value, clashes) = value(base.get(key), theirs.get(key), ours.get(key));
        clash |= clashes;
        merged.extend(value.map(|value| (key.clone(), value)));
    }
    (merged, clash)
}

fn value(base: Option<&Json>, theirs: Option<&Json>, ours: Option<&Json>) -> (Option<Json>, bool) {
    if ours == theirs || theirs == base {
        return (ours.cloned(), false);
    }
    if ours == base {
        return (theirs.cloned(), false);
    }
    match (theirs, ours) {
        (Some(Json::Object(theirs)), Some(Json::Object(ours))) => {
            let nothing = Map::new();
            let base = base.and_then(Json::as_object).unwrap_or(&nothing);
            let (map, clash) = merged(base, theirs, ours);
            (Some(Json::Object(map)), clash)
        }
        (Some(theirs), Some(ours)) => match (texts(theirs), texts(ours)) {
            (Some(theirs), Some(ours)) => {
                let base = base.and_then(texts).unwrap_or_default();
                let kept = ours.iter().filter(|text| theirs.contains(text) || !base.contains(text));
                let added = theirs.iter().filter(|text| !ours.contains(text) && !base.contains(text));
                (Some(kept.chain(added).copied().collect()), false)
            }
            _ => (Some(ours.clone()), true),
        },
        // One side removed what the other changed.
        (their, our) => (our.or(their).cloned(), true),
    }
}

/// The texts in a list of nothing else.
fn texts(value: &Json) -> Option<Vec<&str>> {
    value.as_array()?.iter().map(Json::as_str).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(base: Json, theirs: Json, ours: Json) -> (Json, bool) {
        let [base, theirs, ours] = [base, theirs, ours].map(|value| value.as_object().cloned().unwrap());
        let (map, clash) = merged(&base, &theirs, &ours);
        (Json::Object(map), clash)
    }

    #[test]
    fn keys_are_merged_one_by_one() {
        assert_eq!(
            check(
                json!({"a": 1, "o": {"x": 1, "y": 1}}),
                json!({"a": 2, "o": {"x": 2, "y": 1}}),
                json!({"a": 1, "o": {"x": 1, "y": 2}, "n": 0})
            ),
            (json!({"a": 2, "o": {"x": 2, "y": 2}, "n": 0}), false)
        );
        assert_eq!(check(json!({"a": 1}), json!({}), json!({"a": 1, "b": 1})), (json!({"b": 1}), false));
        assert_eq!(check(json!({"a": 1}), json!({"a": 2}), json!({"a": 3})), (json!({"a": 3}), true));
        assert_eq!(
            check(json!({"a": 1}), json!({"a": 2, "c": 1}), json!({})),
            (json!({"a": 2, "c": 1}), true)
        );
    }

    #[test]
    fn lists_of_texts_are_sets() {
        assert_eq!(
            check(json!({"tags": ["a", "b"]}), json!({"tags": ["b", "t"]}), json!({"tags": ["a", "b", "o"]})),
            (json!({"tags": ["b", "o", "t"]}), false)
        );
    }
}
