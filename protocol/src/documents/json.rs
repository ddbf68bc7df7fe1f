//! JSON subtrees inside the documents.
//!
//! For: metadata, output manifests, widget state and settings, which are JSON to everybody else.
//! Promises: `read` after `put` gives the value back; [`update`] keeps the objects that peers may be
//! editing and writes nothing that is already there; reading never fails and never recurses deeper
//! than [`MAX_DEPTH`].
//! Never: makes a Text. A JSON string is a scalar.

use std::collections::HashMap;

use automerge::iter::MapRangeItem;
use automerge::transaction::Transactable;
use automerge::{
    AutomergeError, ObjId, ObjType, Prop, ReadDoc, ScalarValue, ScalarValueRef, Value, ValueRef, hydrate,
};
use serde_json::{Map as JsonMap, Number, Value as Json};

/// Objects nested deeper than this read as null, so that no peer can exhaust the stack, and what is written to a file
/// can be read again. Source: `serde_json` refuses text that is nested 128 deep.
pub const MAX_DEPTH: usize = 127;

/// The map, list or text `object` as JSON. Keys come in sorted order.
pub fn read(document: &impl ReadDoc, object: &ObjId) -> Json {
    match document.object_type(object) {
        Ok(kind) => read_object(document, object, kind, 0),
        Err(_) => Json::Null,
    }
}

/// The value at `property` of `parent`, or none if nothing readable is there.
pub fn get(document: &impl ReadDoc, parent: &ObjId, property: impl Into<Prop>) -> Option<Json> {
    match document.get(parent, property).ok()?? {
        (Value::Object(kind), id) => Some(read_object(document, &id, kind, 0)),
        (Value::Scalar(scalar), _) => read_scalar(&scalar.into_owned().into()),
    }
}

/// The map at `property` of `parent` as JSON; empty if there is none.
pub fn get_map(document: &impl ReadDoc, parent: &ObjId, property: &str) -> JsonMap<String, Json> {
    match get(document, parent, property) {
        Some(Json::Object(map)) => map,
        _ => JsonMap::new(),
    }
}

/// The text at `property` of `parent`, be it a scalar string or a Text.
pub fn get_string(document: &impl ReadDoc, parent: &ObjId, property: impl Into<Prop>) -> Option<String> {
    match document.get(parent, property).ok()?? {
        (Value::Object(ObjType::Text), id) => document.text(&id).ok(),
        (Value::Scalar(scalar), _) => scalar.as_str().map(str::to_owned),
        _ => None,
    }
}

/// The text of a field that was found in passing, be it a scalar string or a Text.
pub(crate) fn string(document: &impl ReadDoc, field: &MapRangeItem<'_>) -> Option<String> {
    match &field.value {
        ValueRef::Object(ObjType::Text) => document.text(field.id()).ok(),
        ValueRef::Scalar(ScalarValueRef::Str(text)) => Some(text.to_string()),
        _ => None,
    }
}

/// The strings in the list at `property` of `parent`; other items are skipped.
pub fn get_strings(document: &impl ReadDoc, parent: &ObjId, property: &str) -> Vec<String> {
    match get(document, parent, property) {
        Some(Json::Array(items)) => items.into_iter().filter_map(into_string).collect(),
        _ => Vec::new(),
    }
}

fn into_string(value: Json) -> Option<String> {
    match value {
        Json::String(text) => Some(text),
        _ => None,
    }
}

/// The object at `property` of `parent` if it is of `kind`.
pub fn get_object(
    document: &impl ReadDoc,
    parent: &ObjId,
    property: impl Into<Prop>,
    kind: ObjType,
) -> Option<ObjId> {
    match document.get(parent, property).ok()?? {
        (Value::Object(found), id) if found == kind => Some(id),
        _ => None,
    }
}

/// Puts `value` as something new: what was at `property` is replaced, never edited.
///
/// # Errors
/// When `parent` is not a map (or list) that can hold `property`.
pub fn put(
    document: &mut impl Transactable,
    parent: &ObjId,
    property: impl Into<Prop>,
    value: &Json,
) -> Result<(), AutomergeError> {
    match hydrated(value) {
        hydrate::Value::Scalar(scalar) => document.put(parent, property, scalar),
        object => document.batch_create_object(parent, property, &object, false).map(drop),
    }
}

/// Makes the value at `property` equal to `value` by the smallest edit: maps and lists that are there
/// are edited in place, equal values are left alone.
///
/// # Errors
/// As [`put`].
pub fn update(
    document: &mut impl Transactable,
    parent: &ObjId,
    property: impl Into<Prop>,
    value: &Json,
) -> Result<(), AutomergeError> {
    let property = property.into();
    let existing = match document.get(parent, property.clone())? {
        Some((Value::Object(kind), id)) => Some((kind, id)),
        Some((Value::Scalar(scalar), _))
            if read_scalar(&scalar.clone().into_owned().into()).as_ref() == Some(value) =>
        {
            return Ok(());
        }
        _ => None,
    };
    match (existing, value) {
        (Some((ObjType::Map, object)), Json::Object(map)) => update_map(document, &object, map),
        (Some((ObjType::List, object)), Json::Array(items)) => update_list(document, &object, items),
        _ => put(document, parent, property, value),
    }
}

/// Makes `object` hold exactly the entries of `map`, in place.
///
/// # Errors
/// When `object` is not a map.
pub fn update_map(
    document: &mut impl Transactable,
    object: &ObjId,
    map: &JsonMap<String, Json>,
) -> Result<(), AutomergeError> {
    let gone: Vec<String> = document.keys(object).filter(|key| !map.contains_key(key)).collect();
    for key in gone {
        document.delete(object, key)?;
    }
    map.iter().try_for_each(|(key, value)| update(document, object, key.as_str(), value))
}

/// Makes the list `object` hold exactly `items`: items are overwritten by index, the tail is appended
/// or trimmed.
///
/// # Errors
/// When `object` is not a list.
pub fn update_list(
    document: &mut impl Transactable,
    object: &ObjId,
    items: &[Json],
) -> Result<(), AutomergeError> {
    for index in (items.len()..document.length(object)).rev() {
        document.delete(object, index)?;
    }
    let kept = document.length(object);
    for (index, item) in items.iter().enumerate() {
        if index < kept {
            update(document, object, index, item)?;
        } else {
            insert(document, object, index, item)?;
        }
    }
    Ok(())
}

/// Makes the list of strings at `property` hold exactly `items`, in place. Only the items between the
/// common head and tail are written, so taking the first of a long queue is one deletion.
///
/// # Errors
/// As [`put`].
pub fn update_strings(
    document: &mut impl Transactable,
    parent: &ObjId,
    property: &str,
    items: &[String],
) -> Result<(), AutomergeError> {
    let there = match (get_object(document, parent, property, ObjType::List), get(document, parent, property))
    {
        (Some(list), Some(Json::Array(there))) if there.len() == document.length(&list) => {
            Some((list, there))
        }
        _ => None,
    };
    let Some((list, there)) = there else {
        return update(document, parent, property, &Json::from(items));
    };
    let equal = |(a, b): &(&Json, &String)| a.as_str() == Some(b.as_str());
    let head = there.iter().zip(items).take_while(equal).count();
    let rest = there.iter().skip(head).rev().zip(items.iter().skip(head).rev());
    let tail = rest.take_while(equal).count();
    for index in (head..there.len() - tail).rev() {
        document.delete(&list, index)?;
    }
    for (index, item) in items.iter().enumerate().take(items.len() - tail).skip(head) {
        document.insert(&list, index, item.as_str())?;
    }
    Ok(())
}

fn insert(
    document: &mut impl Transactable,
    list: &ObjId,
    index: usize,
    value: &Json,
) -> Result<(), AutomergeError> {
    match hydrated(value) {
        hydrate::Value::Scalar(scalar) => document.insert(list, index, scalar),
        object => document.batch_create_object(list, index, &object, true).map(drop),
    }
}

/// `value` in the shape that automerge writes in one go.
pub(super) fn hydrated(value: &Json) -> hydrate::Value {
    match value {
        Json::Object(map) => {
            let entries: HashMap<String, hydrate::Value> =
                map.iter().map(|(key, value)| (key.clone(), hydrated(value))).collect();
            hydrate::Value::Map(entries.into())
        }
        Json::Array(items) => hydrate::Value::List(items.iter().map(hydrated).collect::<Vec<_>>().into()),
        _ => hydrate::Value::Scalar(scalar(value)),
    }
}

fn scalar(value: &Json) -> ScalarValue {
    match value {
        Json::Bool(value) => ScalarValue::Boolean(*value),
        Json::String(text) => ScalarValue::Str(text.as_str().into()),
        Json::Number(number) => number
            .as_i64()
            .map(ScalarValue::Int)
            .or_else(|| number.as_u64().map(ScalarValue::Uint))
            .or_else(|| number.as_f64().map(ScalarValue::F64))
            .unwrap_or(ScalarValue::Null),
        Json::Null | Json::Array(_) | Json::Object(_) => ScalarValue::Null,
    }
}

fn read_object(document: &impl ReadDoc, object: &ObjId, kind: ObjType, depth: usize) -> Json {
    if depth >= MAX_DEPTH {
        return Json::Null;
    }
    let read_item = |value: ValueRef<'_>, id: &dyn Fn() -> ObjId| match value {
        ValueRef::Object(kind) => Some(read_object(document, &id(), kind, depth + 1)),
        ValueRef::Scalar(scalar) => read_scalar(&scalar),
    };
    match kind {
        ObjType::Map | ObjType::Table => document
            .map_range(object, ..)
            .filter_map(|item| {
                let value = read_item(item.value.clone(), &|| item.id())?;
                Some((item.key.into_owned(), value))
            })
            .collect::<JsonMap<_, _>>()
            .into(),
        ObjType::List => document
            .list_range(object, ..)
            .filter_map(|item| read_item(item.value.clone(), &|| item.id()))
            .collect(),
        ObjType::Text => document.text(object).map_or(Json::Null, Json::String),
    }
}

/// Bytes, counters, timestamps and types of the future are not JSON and read as nothing.
fn read_scalar(scalar: &ScalarValueRef<'_>) -> Option<Json> {
    match scalar {
        ScalarValueRef::Str(text) => Some(Json::from(text.as_ref())),
        ScalarValueRef::Int(number) => Some(Json::from(*number)),
        ScalarValueRef::Uint(number) => Some(Json::from(*number)),
        ScalarValueRef::F64(number) => Some(Number::from_f64(*number).map_or(Json::Null, Json::Number)),
        ScalarValueRef::Boolean(value) => Some(Json::from(*value)),
        ScalarValueRef::Null => Some(Json::Null),
        ScalarValueRef::Bytes(_)
        | ScalarValueRef::Counter(_)
        | ScalarValueRef::Timestamp(_)
        | ScalarValueRef::Unknown { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use automerge::{AutoCommit, ROOT};
    use proptest::prelude::*;

    fn values() -> impl Strategy<Value = Json> {
        let leaf = prop_oneof![
            Just(Json::Null),
            any::<bool>().prop_map(Json::from),
            any::<i64>().prop_map(Json::from),
            any::<u64>().prop_map(Json::from),
            any::<f64>().prop_filter("JSON has no infinity", |n| n.is_finite()).prop_map(Json::from),
            ".{0,8}".prop_map(Json::from),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Json::from),
                proptest::collection::btree_map("[a-d]{0,2}", inner, 0..5)
                    .prop_map(|map| Json::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_put_is_read(value in values()) {
            let mut document = AutoCommit::new();
            put(&mut document, &ROOT, "key", &value).unwrap();
            prop_assert_eq!(get(&document, &ROOT, "key"), Some(value.clone()));
            let again = AutoCommit::load(&document.save()).unwrap();
            prop_assert_eq!(get(&again, &ROOT, "key"), Some(value));
        }

        #[test]
        fn any_value_becomes_any_other_and_the_second_time_nothing_is_written(a in values(), b in values()) {
            let mut document = AutoCommit::new();
            put(&mut document, &ROOT, "key", &a).unwrap();
            update(&mut document, &ROOT, "key", &b).unwrap();
            prop_assert_eq!(get(&document, &ROOT, "key"), Some(b.clone()));
            let heads = document.get_heads();
            update(&mut document, &ROOT, "key", &b).unwrap();
            prop_assert_eq!(document.get_heads(), heads);
        }

        #[test]
        fn lists_of_strings_become_each_other(a in proptest::collection::vec("[ab]", 0..6), b in proptest::collection::vec("[ab]", 0..6)) {
            let mut document = AutoCommit::new();
            update_strings(&mut document, &ROOT, "key", &a).unwrap();
            let list = get_object(&document, &ROOT, "key", ObjType::List);
            update_strings(&mut document, &ROOT, "key", &b).unwrap();
            prop_assert_eq!(get_strings(&document, &ROOT, "key"), b);
            prop_assert_eq!(get_object(&document, &ROOT, "key", ObjType::List), list);
        }
    }

    #[test]
    fn a_bottomless_document_does_not_exhaust_the_stack() {
        let mut document = AutoCommit::new();
        let mut parent = ROOT;
        for _ in 0..5_000 {
            parent = document.put_object(&parent, "a", ObjType::Map).unwrap();
        }
        assert!(read(&document, &ROOT).is_object());
    }

    #[test]
    fn what_is_not_json_reads_as_nothing() {
        let mut document = AutoCommit::new();
        document.put(ROOT, "bytes", vec![1u8]).unwrap();
        document.put(ROOT, "count", ScalarValue::counter(1)).unwrap();
        document.put(ROOT, "nan", f64::NAN).unwrap();
        let text = document.put_object(ROOT, "text", ObjType::Text).unwrap();
        document.splice_text(&text, 0, 0, "hi").unwrap();
        assert_eq!(read(&document, &ROOT), serde_json::json!({"nan": null, "text": "hi"}));
    }
}
