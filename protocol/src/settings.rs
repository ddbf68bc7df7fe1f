//! The settings: which keys there are, what they may hold, and what they are if nobody says.
//!
//! For: the daemon, which reads settings that a user, another program or another version wrote; the command line, which
//! changes them for a user.
//! Promises: pure; field by field: one bad value costs its default and nothing else; keys that are not
//! listed here pass through untouched, whoever they belong to.
//!
//! The section `plugins`, which a fresh file does not have (`host/src/plugins/config.rs` reads it):
//!
//! | Key | Type | Says |
//! |---|---|---|
//! | `plugins.disabled` | list of ids | plugins that are switched off |
//! | `plugins.idle_secs` | integer | how long a plugin's own process is kept that nobody needs; 30 if not set |
//! | `plugins.carrier.<id>` | `"child"` | the plugin gets a process of its own, whatever it asks for |
//! | `plugins.limits.<id>.memory_mb` | integer | MiB of address space its process may have |
//! | `plugins.limits.<id>.cpu_secs` | integer | seconds of processor time its process may use |
//! | `plugins.limits.<id>.open_files` | integer | files its process may have open |
//!
//! `log.level` is what the daemon's log has from now on: `warn` if not set. `RUST_LOG` and `--log-level` win.
//!
//! `environments.max_gib` (docs/ENVIRONMENTS.md) says how much disk environments may take; a tenth of the disk, 4 to 50 GiB,
//! if not set.
//!
//! Limits of `plugins.limits.default` hold for every plugin that names none of its own. The sections `kernels`
//! (docs/KERNEL_SHIM.md) and `blobs` (docs/RELIABILITY.md) are for plugins, which know the defaults.

use std::ops::RangeInclusive;

use serde_json::{Map, Value, json};

mod value;

pub use value::{BadSetting, parse, parse_as};

/// Shortest and longest `keep_alive_secs` that is used as it is (environments contract, section 10.2).
const KEEP_ALIVE: RangeInclusive<i64> = 5..=KEEP_ALIVE_FOREVER;
/// Environments that a pool keeps at most (as above).
const POOL_SIZES: RangeInclusive<i64> = 0..=20;
/// Name of the file, beside the settings, that is locked by whoever of ours reads or writes them: in the middle of a
/// write they may say what nobody wrote.
pub const LOCK_NAME: &str = ".settings.lock";
/// `keep_alive_secs` for the legacy value `null`, "for ever": a week, its maximum.
const KEEP_ALIVE_FOREVER: i64 = 604_800;

/// A known key. A dot means one nested level.
struct Key {
    path: &'static str,
    kind: Kind,
}

/// What a key may hold, with its default.
enum Kind {
    Choice(&'static [&'static str]),
    /// One of these, absent unless somebody sets it.
    OptionalChoice(&'static [&'static str]),
    Text(&'static str),
    /// A text that is not empty, the name of something installed.
    Name(&'static str),
    Flag(bool),
    KeepAlive(i64),
    /// A number that is not negative, absent unless somebody sets it.
    Optional,
    PoolSize(&'static str),
    Strings,
    /// Names, absent unless somebody sets them.
    Names,
    /// Something for each name, absent unless somebody sets it; what it may be, as a JSON Schema.
    Map(fn() -> Value),
}

const fn key(path: &'static str, kind: Kind) -> Key {
    Key { path, kind }
}

/// Every known key in the order of the file.
const KEYS: &[Key] = &[
    key("theme", Kind::Choice(&["system", "light", "dark"])),
    key("color_theme", Kind::Choice(&["classic", "cream"])),
    key("editor.code_font_family", Kind::Text("")),
    key("editor.markdown_font_family", Kind::Text("")),
    key("editor.line_numbers", Kind::Flag(false)),
    key("default_runtime", Kind::Name("python")),
    key("default_python_env", Kind::Name("uv")),
    key("uv.default_packages", Kind::Strings),
    key("conda.default_packages", Kind::Strings),
    key("pixi.default_packages", Kind::Strings),
    key("keep_alive_secs", Kind::KeepAlive(30)),
    key("onboarding_completed", Kind::Flag(false)),
    key("uv_pool_size", Kind::PoolSize("uv")),
    key("conda_pool_size", Kind::PoolSize("conda")),
    key("pixi_pool_size", Kind::PoolSize("pixi")),
    key("install_default_data_packages", Kind::Flag(true)),
    key("disable_nteract_launcher", Kind::Flag(false)),
    key("enable_comments", Kind::Flag(false)),
    key("disable_auto_format", Kind::Flag(false)),
    key("redact_env_values_in_outputs", Kind::Flag(true)),
    key("import_shell_environment", Kind::Flag(true)),
    key("log.level", Kind::OptionalChoice(&["error", "warn", "info", "debug", "trace"])),
    key("kernels.keep_without_daemon_secs", Kind::Optional),
    key("kernels.keep_memory_bytes", Kind::Optional),
    key("kernels.keep_disk_bytes", Kind::Optional),
    key("kernels.warm", Kind::Optional),
    key("blobs.collect_every_secs", Kind::Optional),
    key("blobs.keep_unused_secs", Kind::Optional),
    key("environments.max_gib", Kind::Optional),
    key("plugins.disabled", Kind::Names),
    key("plugins.idle_secs", Kind::Optional),
    key("plugins.carrier", Kind::Map(|| json!({ "enum": ["child"] }))),
    key("plugins.limits", Kind::Map(limits)),
    // Kept for nteract's own programs. This daemon never phones home.
    key("install_id", Kind::Text("")),
    key("telemetry_enabled", Kind::Flag(true)),
    key("telemetry_consent_recorded", Kind::Flag(false)),
    key("telemetry_last_daemon_ping_at", Kind::Optional),
    key("telemetry_last_app_ping_at", Kind::Optional),
    key("telemetry_last_mcp_ping_at", Kind::Optional),
];

/// All settings with defaults filled in: known keys first, in the order of the file, then the others.
pub fn complete(raw: &Map<String, Value>) -> Map<String, Value> {
    let raw = &migrate(raw);
    let mut out = Map::new();
    for key in KEYS {
        let given = get(raw, key.path).and_then(|value| key.kind.accept(value));
        if let Some(value) = given.or_else(|| key.kind.default(raw)) {
            set(&mut out, key.path, value);
        }
    }
    merge_unknown(&mut out, raw);
    out
}

/// The names of all keys that are known here, in the order of the file.
pub fn names() -> impl Iterator<Item = &'static str> {
    KEYS.iter().map(|key| key.path)
}

/// The settings that `sections` describe and that are not known here, with their schemas.
pub fn of_sections(sections: &Map<String, Value>) -> impl Iterator<Item = (String, &Value)> {
    sections.iter().flat_map(|(section, schema)| {
        let own = described(schema).filter(move |(name, _)| !is_known(section, name));
        own.map(move |(name, schema)| (format!("{section}.{name}"), schema))
    })
}

fn described(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema.get("properties").and_then(Value::as_object).into_iter().flatten()
}

fn is_known(section: &str, name: &str) -> bool {
    KEYS.iter().any(|key| key.path.split_once('.') == Some((section, name)) || key.path == section)
}

/// What an edit of the file changes: the keys, those of sections one by one, of `now` that differ from `before` and are well typed.
/// Keys that are gone from the file leave the setting alone; `null` in a section takes one away that has no default.
pub fn edits(before: &Map<String, Value>, now: &Map<String, Value>) -> Map<String, Value> {
    let mut out = Map::new();
    for (name, value) in now.iter().filter(|(name, value)| before.get(*name) != Some(*value)) {
        if name == "$schema" {
            continue;
        }
        let nested: Vec<&Key> = keys_of(name).collect();
        match (nested.as_slice(), value) {
            ([], value) => {
                out.insert(name.clone(), value.clone());
            }
            ([key], value) if key.path == name => {
                if let Some(value) = key.kind.accept(value).filter(|_| !value.is_null()) {
                    out.insert(name.clone(), value);
                }
            }
            (_, Value::Object(section)) => {
                let known = |inner: &str| nested.iter().find(|key| key.path == format!("{name}.{inner}"));
                let former = |inner: &str| before.get(name)?.get(inner);
                let section: Map<_, _> = section
                    .iter()
                    .filter(|(inner, value)| former(inner) != Some(*value))
                    .filter_map(|(inner, value)| match known(inner) {
                        // Nobody says anything about it any more.
                        Some(key) if value.is_null() && key.kind.default(now).is_none() => {
                            Some((inner.clone(), Value::Null))
                        }
                        Some(key) => Some((inner.clone(), key.kind.accept(value)?)),
                        None => Some((inner.clone(), value.clone())),
                    })
                    .collect();
                out.insert(name.clone(), Value::Object(section));
            }
            _ => {}
        }
    }
    out
}

/// How many environments of `kind` to keep ready, within what is allowed.
pub fn pool_size(settings: &Map<String, Value>, kind: &str) -> i64 {
    let selected = settings.get("default_python_env").and_then(Value::as_str).unwrap_or("uv");
    let default = if selected.eq_ignore_ascii_case(kind) { 2 } else { 1 };
    let size = settings.get(&format!("{kind}_pool_size")).and_then(Value::as_i64).unwrap_or(default);
    size.clamp(*POOL_SIZES.start(), *POOL_SIZES.end())
}

/// The packages the user wants in every environment of `kind`.
pub fn default_packages(settings: &Map<String, Value>, kind: &str) -> Vec<String> {
    let packages = get(settings, &format!("{kind}.default_packages")).map(strings).unwrap_or_default();
    packages.into_iter().filter_map(|value| value.as_str().map(str::to_owned)).collect()
}

/// A flag, or false if there is no such flag.
pub fn flag(settings: &Map<String, Value>, name: &str) -> bool {
    settings.get(name).and_then(Value::as_bool).unwrap_or(false)
}

/// A JSON Schema for editors: the keys known here, and in each of the `sections` what a schema of its own adds.
pub fn json_schema(sections: &Map<String, Value>) -> Value {
    let mut properties = json!({ "$schema": { "type": "string" } });
    for key in KEYS {
        let schema = key.kind.json_schema();
        match key.path.split_once('.') {
            None => properties[key.path] = schema,
            Some((section, name)) => {
                properties[section]["type"] = json!("object");
                properties[section]["properties"][name] = schema;
            }
        }
    }
    for (section, schema) in sections {
        for (name, schema) in described(schema).filter(|(name, _)| !is_known(section, name)) {
            properties[section]["type"] = json!("object");
            properties[section]["properties"][name] = schema.clone();
        }
    }
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "runtimed settings",
        "type": "object",
        "properties": properties,
    })
}

impl Kind {
    /// The value as this kind holds it, or none if it is of another type. Flags and numbers written as
    /// strings are understood, since some clients write them so.
    fn accept(&self, value: &Value) -> Option<Value> {
        match self {
            Self::Choice(choices) | Self::OptionalChoice(choices) => {
                value.as_str().filter(|text| choices.contains(text)).map(Value::from)
            }
            Self::Text(_) | Self::Name(_) => value.as_str().map(Value::from),
            Self::Flag(_) => match value {
                Value::Bool(flag) => Some(Value::from(*flag)),
                Value::String(text) => text.parse::<bool>().ok().map(Value::from),
                _ => None,
            },
            Self::KeepAlive(_) if value.is_null() => Some(Value::from(KEEP_ALIVE_FOREVER)),
            Self::KeepAlive(_) | Self::PoolSize(_) | Self::Optional => match value {
                Value::Number(number) => number.as_i64().map(Value::from),
                Value::String(text) => text.parse::<i64>().ok().map(Value::from),
                _ => None,
            },
            Self::Strings | Self::Names => value.is_array().then(|| Value::Array(strings(value))),
            Self::Map(_) => value.is_object().then(|| value.clone()),
        }
    }

    fn default(&self, raw: &Map<String, Value>) -> Option<Value> {
        Some(match self {
            Self::Choice(choices) => Value::from(choices.first().copied().unwrap_or_default()),
            Self::Text(text) | Self::Name(text) => Value::from(*text),
            Self::Flag(flag) => Value::from(*flag),
            Self::KeepAlive(number) => Value::from(*number),
            Self::PoolSize(kind) => {
                let selected = raw.get("default_python_env").cloned();
                let only: Map<_, _> =
                    selected.map(|value| ("default_python_env".into(), value)).into_iter().collect();
                Value::from(pool_size(&only, kind))
            }
            Self::Strings => Value::Array(Vec::new()),
            Self::Optional | Self::OptionalChoice(_) | Self::Names | Self::Map(_) => return None,
        })
    }

    fn json_schema(&self) -> Value {
        match self {
            Self::Choice(choices) | Self::OptionalChoice(choices) => json!({ "enum": choices }),
            Self::Text(_) => json!({ "type": "string" }),
            Self::Name(_) => json!({ "type": "string", "minLength": 1 }),
            Self::Flag(_) => json!({ "type": "boolean" }),
            Self::KeepAlive(_) => json!({
                "type": ["integer", "null"], "minimum": KEEP_ALIVE.start(), "maximum": KEEP_ALIVE.end()
            }),
            Self::Optional => json!({ "type": "integer", "minimum": 0 }),
            Self::PoolSize(_) => json!({
                "type": "integer", "minimum": POOL_SIZES.start(), "maximum": POOL_SIZES.end()
            }),
            Self::Strings | Self::Names => json!({ "type": "array", "items": { "type": "string" } }),
            Self::Map(value) => json!({ "type": "object", "additionalProperties": value() }),
        }
    }
}

/// Moves the flat package lists of old versions into their sections, unless those have packages.
fn migrate(raw: &Map<String, Value>) -> Map<String, Value> {
    let mut out = raw.clone();
    out.remove("$schema");
    for kind in ["uv", "conda"] {
        let Some(Value::String(flat)) = out.remove(&format!("default_{kind}_packages")) else { continue };
        if default_packages(&out, kind).is_empty() {
            let packages: Vec<Value> =
                flat.split(',').map(str::trim).filter(|name| !name.is_empty()).map(Value::from).collect();
            set(&mut out, &format!("{kind}.default_packages"), Value::Array(packages));
        }
    }
    out
}

fn merge_unknown(out: &mut Map<String, Value>, raw: &Map<String, Value>) {
    for (name, value) in raw {
        match (keys_of(name).next(), value) {
            (None, value) => {
                out.insert(name.clone(), value.clone());
            }
            // A top-level key that happens to be a map.
            (Some(key), _) if key.path == name => {}
            (Some(_), Value::Object(section)) => {
                let known = |inner: &str| keys_of(name).any(|key| key.path == format!("{name}.{inner}"));
                let unknown = section.iter().filter(|(inner, value)| !known(inner) && !value.is_null());
                for (inner, value) in unknown {
                    set(out, &format!("{name}.{inner}"), value.clone());
                }
            }
            _ => {}
        }
    }
}

/// The known keys that are `name` or lie in the section `name`.
fn keys_of<'a>(name: &'a str) -> impl Iterator<Item = &'static Key> + 'a {
    KEYS.iter().filter(move |key| key.path.split('.').next() == Some(name))
}

/// The value at `path`, a name with at most one dot.
pub fn get<'a>(map: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    match path.split_once('.') {
        None => map.get(path),
        Some((section, name)) => map.get(section)?.get(name),
    }
}

/// Sets the value at `path`; what is in the way of its section goes.
pub fn set(map: &mut Map<String, Value>, path: &str, value: Value) {
    let Some((section, name)) = path.split_once('.') else {
        map.insert(path.to_owned(), value);
        return;
    };
    let section = map.entry(section).or_insert_with(|| Value::Object(Map::new()));
    if !section.is_object() {
        *section = Value::Object(Map::new());
    }
    if let Value::Object(section) = section {
        section.insert(name.to_owned(), value);
    }
}

/// What the process of a plugin may use.
fn limits() -> Value {
    let positive = json!({ "type": "integer", "minimum": 1 });
    let properties = json!({ "memory_mb": positive, "cpu_secs": positive, "open_files": positive });
    json!({ "type": "object", "properties": properties })
}

fn strings(value: &Value) -> Vec<Value> {
    value.as_array().into_iter().flatten().filter(|item| item.is_string()).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(value: Value) -> Map<String, Value> {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn nothing_gives_the_file_of_a_fresh_install() {
        let expected = r#"{"theme":"system","color_theme":"classic","editor":{"code_font_family":"","markdown_font_family":"","line_numbers":false},"default_runtime":"python","default_python_env":"uv","uv":{"default_packages":[]},"conda":{"default_packages":[]},"pixi":{"default_packages":[]},"keep_alive_secs":30,"onboarding_completed":false,"uv_pool_size":2,"conda_pool_size":1,"pixi_pool_size":1,"install_default_data_packages":true,"disable_nteract_launcher":false,"enable_comments":false,"disable_auto_format":false,"redact_env_values_in_outputs":true,"import_shell_environment":true,"install_id":"","telemetry_enabled":true,"telemetry_consent_recorded":false}"#;
        assert_eq!(serde_json::to_string(&complete(&Map::new())).unwrap(), expected);
    }

    #[test]
    fn each_bad_value_costs_its_own_default_only() {
        let raw = map(json!({"theme": "plaid", "pixi_pool_size": "x", "keep_alive_secs": null, "uv": 5,
            "conda": {"default_packages": ["a", 1, "b"]}, "color_theme": "cream", "enable_comments": "true"}));
        let settings = complete(&raw);
        assert_eq!(settings["theme"], "system");
        assert_eq!(settings["pixi_pool_size"], 1);
        assert_eq!(settings["keep_alive_secs"], 604_800);
        assert_eq!(settings["uv"], json!({"default_packages": []}));
        assert_eq!(settings["conda"], json!({"default_packages": ["a", "b"]}));
        assert_eq!(settings["color_theme"], "cream");
        assert_eq!(settings["enable_comments"], true);
    }

    #[test]
    fn the_selected_manager_keeps_two_environments() {
        let settings = complete(&map(json!({"default_python_env": "conda"})));
        assert_eq!((&settings["uv_pool_size"], &settings["conda_pool_size"]), (&json!(1), &json!(2)));
        assert_eq!(pool_size(&map(json!({"default_python_env": "venv"})), "venv"), 2);
        for (asked, kept) in [(0, 0), (-1, 0), (7, 7), (99, 20)] {
            assert_eq!(pool_size(&map(json!({"venv_pool_size": asked})), "venv"), kept);
        }
    }

    #[test]
    fn unknown_keys_and_sections_pass_through() {
        let raw = map(
            json!({"venv": {"default_packages": ["six"], "x": 1}, "uv": {"mirror": "m"}, "$schema": "s"}),
        );
        let settings = complete(&raw);
        assert_eq!(settings["venv"]["x"], 1);
        assert_eq!(settings["uv"], json!({"default_packages": [], "mirror": "m"}));
        assert_eq!(default_packages(&settings, "venv"), ["six"]);
        assert!(!settings.contains_key("$schema"));
    }

    #[test]
    fn what_is_said_about_plugins_is_checked_and_nothing_is_made_up() {
        let section = json!({"disabled": ["a", 7], "idle_secs": "5", "carrier": {"a.b": "child"}, "mine": 1});
        let settings = complete(&map(json!({"plugins": section})));
        let expected = json!({"disabled": ["a"], "idle_secs": 5, "carrier": {"a.b": "child"}, "mine": 1});
        assert_eq!(settings["plugins"], expected);
        let settings = complete(&map(json!({"plugins": {"disabled": "a", "limits": 7, "mine": 1}})));
        assert_eq!(settings["plugins"], json!({"mine": 1}));
        assert!(!complete(&map(json!({"plugins": {"disabled": "a"}}))).contains_key("plugins"));
        let edit = edits(&Map::new(), &map(json!({"plugins": {"disabled": "a", "idle_secs": 5}})));
        assert_eq!(Value::Object(edit), json!({"plugins": {"idle_secs": 5}}));
    }

    #[test]
    fn flat_lists_of_old_versions_move_into_their_section() {
        let settings =
            complete(&map(json!({"default_uv_packages": "numpy, ,six", "default_conda_packages": "x",
            "conda": {"default_packages": ["kept"]}})));
        assert_eq!(default_packages(&settings, "uv"), ["numpy", "six"]);
        assert_eq!(default_packages(&settings, "conda"), ["kept"]);
        assert!(!settings.contains_key("default_uv_packages"));
    }

    #[test]
    fn an_edit_applies_what_changed_and_is_well_typed() {
        let before = map(json!({"theme": "dark", "uv_pool_size": 2, "keep_alive_secs": 30, "gone": 1}));
        let now =
            map(json!({"theme": "dark", "uv_pool_size": 3, "keep_alive_secs": null, "default_runtime": 7,
            "uv": {"default_packages": []}, "mine": {"a": 1}}));
        let expected = json!({"uv_pool_size": 3, "uv": {"default_packages": []}, "mine": {"a": 1}});
        assert_eq!(Value::Object(edits(&before, &now)), expected);
        let taken = map(json!({"kernels": {"warm": null}, "uv": {"python": null, "default_packages": null}}));
        let expected = json!({"kernels": {"warm": null}, "uv": {"python": null}});
        assert_eq!(Value::Object(edits(&Map::new(), &taken)), expected);
        assert_eq!(complete(&taken), complete(&Map::new()));
        let section = |python: &str| map(json!({"uv": {"python": python, "default_packages": ["old"]}}));
        let edit = edits(&section("3.11"), &section("3.12"));
        assert_eq!(
            Value::Object(edit),
            json!({"uv": {"python": "3.12"}}),
            "what a window changes meanwhile stays"
        );
    }
}
