//! JSON of which parts are the text of an older file.
//!
//! For: changing a value without touching the rest of its text.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map as JsonMap, Value as Json};

/// A JSON value to be printed.
pub(super) enum Node<'a> {
    /// Text of the older file, at the same depth there.
    Raw(&'a RawValue),
    /// A new value.
    Value(Json),
    /// Partly new.
    Array(Vec<Node<'a>>),
    /// Partly new.
    Object(Vec<(String, Node<'a>)>),
}

impl<'a> Node<'a> {
    /// `new` in the text of `old` as far as they are equal, and in its order.
    pub(super) fn merge(new: Json, old: Option<&'a RawValue>) -> Self {
        let Some(old) = old else { return Self::sorted(new) };
        if serde_json::from_str::<Json>(old.get()).is_ok_and(|old| old == new) {
            return Self::Raw(old);
        }
        match new {
            Json::Object(new) => {
                let old = Members::of(old);
                let new = new.into_iter().map(|(key, value)| {
                    let node = Self::merge(value, old.get(&key));
                    (key, node)
                });
                Self::object(new.collect(), &old, |_| false)
            }
            Json::Array(new) => {
                let old: Vec<&RawValue> = serde_json::from_str(old.get()).unwrap_or_default();
                let items = new.into_iter().enumerate();
                Self::Array(items.map(|(index, item)| Self::merge(item, old.get(index).copied())).collect())
            }
            scalar => Self::Value(scalar),
        }
    }

    /// A new value, keys sorted as in every new file.
    pub(super) fn sorted(mut value: Json) -> Self {
        value.sort_all_objects();
        Self::Value(value)
    }

    /// An object with the members `new`, and those of `old` that are to be kept, in the order of `old`.
    /// Keys that `old` lacks come at their place if it is sorted, else at the end.
    pub(super) fn object(
        mut new: Vec<(String, Node<'a>)>,
        old: &Members<'a>,
        keep: impl Fn(&str) -> bool,
    ) -> Self {
        let mut members = Vec::new();
        for (key, raw) in &old.0 {
            if let Some(at) = new.iter().position(|(new, _)| new == key) {
                members.push(new.swap_remove(at));
            } else if keep(key) {
                members.push((key.clone(), Self::Raw(raw)));
            }
        }
        let sorted = old.0.is_sorted_by(|(left, _), (right, _)| left <= right);
        members.append(&mut new);
        if sorted {
            members.sort_by(|(left, _), (right, _)| left.cmp(right));
        }
        Self::Object(members)
    }
}

/// The members of an object, in the order of its text. Empty for anything else.
#[derive(Default)]
pub(super) struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'a> Members<'a> {
    /// Those of the object in `raw`.
    pub(super) fn of(raw: &'a RawValue) -> Self {
        serde_json::from_str(raw.get()).unwrap_or_default()
    }

    /// The value at `key`.
    pub(super) fn get(&self, key: &str) -> Option<&'a RawValue> {
        self.0.iter().find(|(known, _)| known == key).map(|(_, raw)| *raw)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                std::iter::from_fn(|| map.next_entry().transpose()).collect()
            }
        }

        deserializer.deserialize_map(InOrder).map(Self)
    }
}

/// `members` as an object.
pub(super) fn object(members: impl IntoIterator<Item = (&'static str, Json)>) -> JsonMap<String, Json> {
    members.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}
