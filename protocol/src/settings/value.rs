//! What a user writes for a setting, as the value that it stands for.
//!
//! For: the command line, where everything is text.
//! Promises: pure; a value that would not be used as it is, is refused with what it may be.

use serde_json::Value;

use super::{KEEP_ALIVE, KEYS, Key, Kind, POOL_SIZES};

/// Comparisons in a requirement, the longer ones first.
const OPERATORS: [&str; 8] = ["===", "~=", "==", "!=", ">=", "<=", ">", "<"];

/// A text that is no value of its setting.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Invalid value '{text}' for setting '{path}'. {hint}")]
pub struct BadSetting {
    /// What was written.
    pub text: String,
    /// The setting.
    pub path: String,
    /// What it may be, in a sentence.
    pub hint: String,
}

/// The value of the setting `path` that `text` stands for; none if there is no such setting here.
///
/// # Errors
/// When the setting cannot have that value.
pub fn parse(path: &str, text: &str) -> Option<Result<Value, BadSetting>> {
    let key = KEYS.iter().find(|key| key.path == path).or_else(|| of_a_kind(path))?;
    let bad = |hint| BadSetting { text: text.to_owned(), path: path.to_owned(), hint };
    Some(key.kind.parse(text).map_err(bad))
}

/// The value of the setting `path` that `text` stands for, according to a JSON Schema: its `type` and its `enum`.
///
/// # Errors
/// When it is of another type, or none of those there are.
pub fn parse_as(schema: &Value, path: &str, text: &str) -> Result<Value, BadSetting> {
    let json = serde_json::from_str::<Value>(text);
    let (value, hint) = match schema.get("type").and_then(Value::as_str) {
        Some("integer") => (json.ok().filter(|it| it.is_i64() || it.is_u64()), "a number"),
        Some("number") => (json.ok().filter(Value::is_number), "a number"),
        Some("boolean") => (json.ok().filter(Value::is_boolean), "true or false"),
        Some("object") => (json.ok().filter(Value::is_object), "a JSON object"),
        Some("array") => (list(text).ok().map(Value::from), "a list: a, b, c or [\"a\", \"b\"]"),
        Some("string") => (Some(text.into()), "a text"),
        _ => (Some(json.unwrap_or_else(|_| text.into())), "JSON"),
    };
    let choices = schema.get("enum").and_then(Value::as_array);
    let value = value.filter(|value| choices.is_none_or(|choices| choices.contains(value)));
    value.ok_or_else(|| {
        let hint = choices.map_or(hint.to_owned(), |choices| {
            let texts: Vec<_> =
                choices.iter().map(|it| it.as_str().map_or(it.to_string(), str::to_owned)).collect();
            format!("one of: {}", texts.join(", "))
        });
        BadSetting { text: text.to_owned(), path: path.to_owned(), hint: format!("Must be {hint}") }
    })
}

/// The key that is like `path` for an environment provider that is not known here.
fn of_a_kind(path: &str) -> Option<&'static Key> {
    let like = match path.strip_suffix("_pool_size") {
        Some(kind) => Some("uv_pool_size").filter(|_| !kind.is_empty() && !kind.contains('.')),
        None => {
            path.strip_suffix(".default_packages").filter(|it| !it.is_empty()).map(|_| "uv.default_packages")
        }
    };
    KEYS.iter().find(|key| Some(key.path) == like)
}

impl Kind {
    fn parse(&self, text: &str) -> Result<Value, String> {
        let json = || serde_json::from_str::<Value>(text).ok();
        let number = |most: &std::ops::RangeInclusive<i64>| {
            let number = text.parse().ok().filter(|number| most.contains(number));
            number.map(Value::from).ok_or(format!(
                "Must be a number between {} and {}",
                most.start(),
                most.end()
            ))
        };
        match self {
            Self::Choice(choices) | Self::OptionalChoice(choices) => {
                self.accept(&text.into()).ok_or(format!("Must be one of: {}", choices.join(", ")))
            }
            Self::Text(_) => Ok(text.into()),
            Self::Name(_) if text.trim().is_empty() => {
                Err("Must be the name of what is installed".to_owned())
            }
            Self::Name(_) => Ok(text.trim().into()),
            Self::Flag(_) => self.accept(&text.into()).ok_or("Must be true or false".to_owned()),
            Self::KeepAlive(_) => number(&KEEP_ALIVE),
            Self::PoolSize(_) => number(&POOL_SIZES),
            Self::Optional => {
                let number = text.parse().ok().filter(|number: &i64| *number >= 0);
                number.map(Value::from).ok_or("Must be a number, 0 or more".to_owned())
            }
            Self::Strings => requirements(text).map(Value::from),
            Self::Names => list(text).map(Value::from),
            Self::Map(_) => json()
                .and_then(|value| self.accept(&value))
                .ok_or("Must be a JSON object, for example {\"name\": ...}".to_owned()),
        }
    }
}

/// A JSON array of texts, or a list with commas.
fn list(text: &str) -> Result<Vec<String>, String> {
    if text.trim_start().starts_with('[') {
        let wrong = "Must be a list: a, b, c or [\"a\", \"b\"]".to_owned();
        return serde_json::from_str(text).map_err(|_| wrong);
    }
    Ok(text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect())
}

fn requirements(text: &str) -> Result<Vec<String>, String> {
    let list = list(text)?;
    match list.iter().find(|item| !is_requirement(item)) {
        Some(item) => {
            Err(format!("`{item}` names no package, or compares its version by an unknown operator"))
        }
        None => Ok(list),
    }
}

/// Whether a package is named, and its version compared in a way that there is. Extras, markers and URLs pass.
fn is_requirement(text: &str) -> bool {
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    let text = text.trim();
    let rest = text.trim_start_matches(is_name);
    if rest.len() == text.len() {
        return false;
    }
    let rest = rest.trim_start();
    let rest = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((_, rest)) => rest.trim_start(),
        None => rest,
    };
    let rest = rest.split(';').next().unwrap_or_default();
    if rest.is_empty() || rest.starts_with('@') || rest.starts_with("://") || rest.starts_with('+') {
        return true;
    }
    rest.trim_matches(['(', ')']).split(',').all(|part| {
        let part = part.trim();
        // conda has a single one as well.
        let version =
            OPERATORS.iter().find_map(|it| part.strip_prefix(it)).or_else(|| part.strip_prefix('='));
        version.is_some_and(|version| {
            !version.trim().is_empty() && !version.trim().starts_with(['=', '<', '>', '!', '~'])
        })
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parsed(path: &str, text: &str) -> Result<Value, String> {
        parse(path, text).unwrap().map_err(|error| error.to_string())
    }

    #[test]
    fn texts_stand_for_values() {
        for (path, text, value) in [
            ("theme", "dark", json!("dark")),
            ("editor.code_font_family", "", json!("")),
            ("default_python_env", "venv", json!("venv")),
            ("editor.line_numbers", "true", json!(true)),
            ("keep_alive_secs", "604800", json!(604_800)),
            ("uv_pool_size", "0", json!(0)),
            ("venv_pool_size", "3", json!(3)),
            ("environments.max_gib", "5", json!(5)),
            ("uv.default_packages", "numpy, pandas>=2 ,", json!(["numpy", "pandas>=2"])),
            // A comma separates packages, unless the list says where they end.
            ("uv.default_packages", r#"["pandas>=2,<3"]"#, json!(["pandas>=2,<3"])),
            ("plugins.disabled", "a, b", json!(["a", "b"])),
            ("plugins.carrier", r#"{"uv": "child"}"#, json!({"uv": "child"})),
        ] {
            assert_eq!(parsed(path, text), Ok(value), "{path}");
        }
        assert!(parse("no_such_setting", "1").is_none());
        assert!(parse("_pool_size", "1").is_none());
    }

    #[test]
    fn what_would_not_be_used_as_it_is_is_refused() {
        for (path, text, hint) in [
            ("theme", "plaid", "Must be one of: system, light, dark"),
            ("editor.line_numbers", "yes", "Must be true or false"),
            ("keep_alive_secs", "4", "Must be a number between 5 and 604800"),
            ("uv_pool_size", "21", "Must be a number between 0 and 20"),
            ("environments.max_gib", "-1", "Must be a number, 0 or more"),
            ("default_runtime", " ", "Must be the name of what is installed"),
            ("plugins.carrier", "uv", "Must be a JSON object, for example {\"name\": ...}"),
            ("uv.default_packages", "[1]", "Must be a list: a, b, c or [\"a\", \"b\"]"),
        ] {
            let expected = format!("Invalid value '{text}' for setting '{path}'. {hint}");
            assert_eq!(parsed(path, text), Err(expected));
        }
    }

    #[test]
    fn what_plugins_describe_is_checked_by_type() {
        for (schema, text, value) in [
            (json!({"type": "string"}), "3.12", Some(json!("3.12"))),
            (json!({"type": "integer"}), "3", Some(json!(3))),
            (json!({"type": "integer"}), "3.5", None),
            (json!({"type": "boolean"}), "true", Some(json!(true))),
            (json!({"type": "boolean"}), "yes", None),
            (json!({"type": "array"}), "a, b", Some(json!(["a", "b"]))),
            (json!({"type": "object"}), "[]", None),
            (json!({"enum": ["a", 1]}), "1", Some(json!(1))),
            (json!({"enum": ["a", 1]}), "b", None),
            (json!({}), "{\"a\": 1}", Some(json!({"a": 1}))),
        ] {
            assert_eq!(parse_as(&schema, "x.y", text).ok(), value, "{schema} {text}");
        }
        let error = parse_as(&json!({"enum": ["a", 1]}), "x.y", "b").unwrap_err();
        assert_eq!(error.to_string(), "Invalid value 'b' for setting 'x.y'. Must be one of: a, 1");
    }

    #[test]
    fn requirements_are_looked_at() {
        for good in [
            "numpy",
            "a.b-c_d",
            "pandas[sql,aws]>=2",
            "x~=1.0",
            "x===1",
            "x = 1.2",
            "x (>=1, <2)",
            "x; python_version < '3'",
            "x @ https://e.org/x.whl",
            "git+https://e.org/x",
            "https://e.org/x.whl",
        ] {
            assert!(is_requirement(good), "{good}");
        }
        for bad in ["", ">=1", "x=>1", "x>=", "x ?? 1", "x 1"] {
            assert!(!is_requirement(bad), "{bad}");
        }
    }
}
