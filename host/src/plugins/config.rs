//! What the settings say about plugins. Pure.
//!
//! ```json
//! "plugins": {
//!     "disabled": ["org.example.env"],
//!     "idle_secs": 30,
//!     "carrier": { "org.example.env": "child" },
//!     "limits": {
//!         "default": { "open_files": 1024 },
//!         "org.example.env": { "memory_mb": 512, "cpu_secs": 3600 }
//!     }
//! }
//! ```
//!
//! Promises: settings only tighten: they put a plugin into a process of its own or limit one, and never bring
//! one into the daemon that asked to stay out. A value that makes no sense counts as not set.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use runtimed_plugin_api::manifest::{Carrier, Manifest};
use runtimed_plugin_api::processes::ProcessLimits;
use serde_json::Value;

/// How long an idle process is kept if the settings do not say (our choice: a pool that fills and a user who
/// installs packages one after the other keep it; an idle daemon does not pay for it).
const IDLE: Duration = Duration::from_secs(30);
/// Limits under this name hold for every plugin that names none of its own.
const DEFAULT: &str = "default";
/// Bytes of the unit that memory is given in.
const MEGABYTE: u64 = 1 << 20;

/// The section `plugins` of the settings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Config {
    disabled: BTreeSet<String>,
    carriers: BTreeMap<String, String>,
    limits: BTreeMap<String, Limits>,
}

/// What a process of a plugin may use, and each one that it has the daemon run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Limits {
    memory_mb: Option<u64>,
    cpu_secs: Option<u64>,
    open_files: Option<u64>,
}

impl Config {
    /// Reads them out of all settings.
    pub(super) fn read(settings: &Value) -> Self {
        let section = |name: &str| {
            let section = settings.pointer("/plugins").and_then(|plugins| plugins.get(name));
            section.and_then(Value::as_object).into_iter().flatten()
        };
        let disabled = settings.pointer("/plugins/disabled").and_then(Value::as_array);
        let text = |value: &Value| value.as_str().map(str::to_owned);
        Self {
            disabled: disabled.into_iter().flatten().filter_map(text).collect(),
            carriers: section("carrier").filter_map(|(id, value)| Some((id.clone(), text(value)?))).collect(),
            limits: section("limits").map(|(id, value)| (id.clone(), Limits::read(value))).collect(),
        }
    }

    /// Whether the plugin is switched off.
    pub(super) fn is_disabled(&self, id: &str) -> bool {
        self.disabled.contains(id)
    }

    /// In which process a plugin runs, and what to tell the user about a setting that is not followed.
    pub(super) fn carrier(&self, manifest: &Manifest) -> (Carrier, Option<String>) {
        let (asked, id) = (manifest.carrier(), &manifest.id);
        match (asked, self.carriers.get(id).map(String::as_str)) {
            (_, None) => (asked, None),
            (_, Some("child")) => (Carrier::Child, None),
            (Carrier::InProcess, Some("in-process")) => (asked, None),
            (_, Some(other)) => {
                let ignored = format!(
                    "the setting plugins.carrier.{id} is ignored: it says `{other}`, and all it can say is `child`"
                );
                (asked, Some(ignored))
            }
        }
    }

    /// What the process of a plugin may use.
    pub(super) fn limits(&self, id: &str) -> Limits {
        let of = |id: &str| self.limits.get(id).copied().unwrap_or_default();
        let (own, common) = (of(id), of(DEFAULT));
        Limits {
            memory_mb: own.memory_mb.or(common.memory_mb),
            cpu_secs: own.cpu_secs.or(common.cpu_secs),
            open_files: own.open_files.or(common.open_files),
        }
    }
}

impl Limits {
    fn read(value: &Value) -> Self {
        let number = |name: &str| value.get(name).and_then(Value::as_u64).filter(|number| *number > 0);
        Self {
            memory_mb: number("memory_mb"),
            cpu_secs: number("cpu_secs"),
            open_files: number("open_files"),
        }
    }
}

impl From<Limits> for ProcessLimits {
    fn from(limits: Limits) -> Self {
        Self {
            memory: limits.memory_mb.map(|megabytes| megabytes.saturating_mul(MEGABYTE)),
            cpu: limits.cpu_secs.map(Duration::from_secs),
            files: limits.open_files,
            ..Self::default()
        }
    }
}

/// How long a process is kept that nobody needs.
pub(super) fn idle(settings: &Value) -> Duration {
    let seconds = settings.pointer("/plugins/idle_secs").and_then(Value::as_u64);
    seconds.map_or(IDLE, Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn manifest(carrier: &str) -> Manifest {
        let text = format!(
            "manifest_version = 1\nid = \"a.b\"\nname = \"\"\nversion = \"1.0.0\"\nabi = {{ major = 1 }}\n\
             library = {{ x = {{ path = \"x\" }} }}\nrun = {{ carrier = \"{carrier}\" }}\n"
        );
        Manifest::parse(&text, "plugin.toml".as_ref()).unwrap()
    }

    #[test]
    fn settings_tighten_and_never_loosen() {
        let chosen = |asked: &str, set: Value| {
            let (carrier, note) =
                Config::read(&json!({"plugins": {"carrier": {"a.b": set}}})).carrier(&manifest(asked));
            (carrier, note.is_some())
        };
        assert_eq!(chosen("in-process", json!("child")), (Carrier::Child, false));
        assert_eq!(chosen("in-process", json!("in-process")), (Carrier::InProcess, false));
        assert_eq!(chosen("in-process", json!("moon")), (Carrier::InProcess, true));
        assert_eq!(chosen("child", json!("child")), (Carrier::Child, false));
        assert_eq!(chosen("child", json!("in-process")), (Carrier::Child, true));
        assert_eq!(chosen("child", json!(7)), (Carrier::Child, false));
        assert_eq!(Config::default().carrier(&manifest("child")), (Carrier::Child, None));
    }

    #[test]
    fn own_limits_come_before_common_ones_and_nonsense_is_no_limit() {
        let config = Config::read(&json!({"plugins": {"limits": {
            "default": {"memory_mb": 100, "open_files": 64, "cpu_secs": -1},
            "a.b": {"memory_mb": 2, "open_files": "many"},
        }}}));
        let expected = Limits { memory_mb: Some(2), cpu_secs: None, open_files: Some(64) };
        assert_eq!(config.limits("a.b"), expected);
        let limits = ProcessLimits::from(config.limits("other"));
        assert_eq!((limits.memory, limits.cpu, limits.files), (Some(100 << 20), None, Some(64)));
        assert_eq!(Config::read(&json!({"plugins": {"limits": 7, "disabled": "x"}})), Config::default());
    }

    #[test]
    fn what_is_switched_off_and_how_long_idle_ones_stay_is_read() {
        let settings = json!({"plugins": {"disabled": ["a.b", 7], "idle_secs": 0}});
        assert!(Config::read(&settings).is_disabled("a.b") && !Config::read(&settings).is_disabled("uv"));
        assert_eq!((idle(&settings), idle(&json!({}))), (Duration::ZERO, IDLE));
    }
}
