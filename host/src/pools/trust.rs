//! Which packages a notebook may have installed.
//!
//! For: `environments.rs`, which asks before anything a notebook declares is built.
//! Promises: fails closed: a store that cannot be read allows only the defaults; an approval that could
//! not be written is an error; the file is replaced atomically and is the user's own.
//! Never: knows how a package manager spells names; identities come from its provider.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use runtimed_plugin_api::{EnvProvider, EnvRequest, PackageIdentity, PluginError, Result, TrustVerdict};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::labels::{section, strings};
use crate::disk;

/// Packages allowed in both `pypi` and `conda` (environments contract, section 8.1).
const DEFAULT_PACKAGES: &[&str] = &[
    "ipykernel",
    "ipywidgets",
    "anywidget",
    "pip",
    "nbformat",
    "pyarrow",
    "pandas",
    "polars",
    "matplotlib",
    "plotly",
    "altair",
    "numpy",
    "scipy",
];
/// Channels allowed in both `conda-channel` and `pixi-channel`; URLs with and without the last slash.
const DEFAULT_CHANNELS: &[&str] = &[
    "conda-forge",
    "defaults",
    "https://repo.anaconda.com/pkgs/main",
    "https://repo.anaconda.com/pkgs/r",
    "https://repo.anaconda.com/pkgs/msys2",
];
/// Keys of a section that are lists but name no package.
const CHANNELS: &str = "channels";
/// Only the user may read or change what was approved.
const FILE_MODE: u32 = 0o600;

/// The user's approvals. Cheap to clone.
#[derive(Clone)]
pub struct TrustStore {
    path: PathBuf,
    /// What was approved, once it could be read.
    approved: Arc<Mutex<Option<Approvals>>>,
    /// Held while an approval is added, so that two at a time do not lose one.
    adding: Arc<Mutex<()>>,
}

/// The file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Approvals {
    packages: Vec<Approval>,
}

/// One approved name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Approval {
    #[serde(flatten)]
    identity: PackageIdentity,
    /// RFC 3339, UTC.
    approved_at: String,
    /// Which action approved it.
    source: String,
}

impl TrustStore {
    /// The store in the file at `path`, which may not exist yet.
    pub fn new(path: PathBuf) -> Self {
        Self { path, approved: Arc::default(), adding: Arc::default() }
    }

    /// Whether all of `identities` are allowed.
    fn allows(&self, identities: &[PackageIdentity]) -> bool {
        if identities.iter().all(is_default) {
            return true;
        }
        let approvals = match self.load() {
            Ok(approvals) => approvals,
            Err(error) => {
                tracing::warn!(
                    "nothing is approved, since `{}` cannot be read: {error}",
                    self.path.display()
                );
                return false;
            }
        };
        let approved =
            |identity: &PackageIdentity| approvals.packages.iter().any(|one| one.identity == *identity);
        identities.iter().all(|identity| is_default(identity) || approved(identity))
    }

    /// Allows `identities` from now on. Blocks.
    fn approve(&self, identities: Vec<PackageIdentity>, source: &str) -> io::Result<()> {
        let _one_at_a_time = self.adding.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut approvals = self.load()?;
        for identity in identities {
            if !approvals.packages.iter().any(|one| one.identity == identity) {
                let approved_at = jiff::Timestamp::now().to_string();
                approvals.packages.push(Approval { identity, approved_at, source: source.to_owned() });
            }
        }
        disk::replace(&self.path, &serde_json::to_vec_pretty(&approvals)?, FILE_MODE)?;
        *self.cache() = Some(approvals);
        Ok(())
    }

    fn load(&self) -> io::Result<Approvals> {
        let mut cache = self.cache();
        if let Some(approvals) = &*cache {
            return Ok(approvals.clone());
        }
        let approvals = match std::fs::read(&self.path) {
            Ok(bytes) => serde_json::from_slice(&bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Approvals::default(),
            Err(error) => return Err(error),
        };
        Ok(cache.insert(approvals).clone())
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, Option<Approvals>> {
        self.approved.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// What trust says about the notebook's `metadata`. Sections without a provider do not count:
    /// nothing of them can be installed.
    ///
    /// # Errors
    /// Of the providers.
    pub async fn verdict(
        &self,
        metadata: &Value,
        providers: &[Arc<dyn EnvProvider>],
    ) -> Result<TrustVerdict> {
        let (mut any, mut all_allowed, mut approved) = (false, true, BTreeMap::new());
        for (provider, section) in declared(metadata, providers) {
            let kind = provider.info().kind;
            let request = request(section);
            any |= has_packages(section);
            all_allowed &= asks_nothing(section) || self.allows(&provider.identities(&request).await?);
            for name in lists(section) {
                let mut allowed = Vec::new();
                for item in strings(section, name) {
                    let only = Map::from_iter([(name.to_owned(), Value::from(vec![item.clone()]))]);
                    if self.allows(&provider.identities(&self::request(&only)).await?) {
                        allowed.push(item);
                    }
                }
                approved.insert(format!("approved_{kind}_{name}"), allowed);
            }
        }
        let status = match (any, all_allowed) {
            (false, _) => "no_dependencies",
            (true, true) => "trusted",
            (true, false) => "untrusted",
        };
        Ok(TrustVerdict { status: status.to_owned(), needs_approval: status == "untrusted", approved })
    }

    /// Whether everything that `metadata` declares for `provider` is allowed, channels included.
    ///
    /// # Errors
    /// Of the provider.
    pub async fn covers(&self, metadata: &Value, provider: &dyn EnvProvider) -> Result<bool> {
        let Some(section) = section(metadata, &provider.info().kind) else { return Ok(true) };
        Ok(self.allows(&provider.identities(&request(section)).await?))
    }

    /// Allows everything that `metadata` declares.
    ///
    /// # Errors
    /// Of the providers; `Internal` when the approval could not be recorded: it does not hold then.
    pub async fn approve_all(&self, metadata: &Value, providers: &[Arc<dyn EnvProvider>]) -> Result<()> {
        let mut identities = Vec::new();
        for (provider, section) in declared(metadata, providers).filter(|(_, section)| !asks_nothing(section))
        {
            identities.extend(provider.identities(&request(section)).await?);
        }
        identities.retain(|identity| !is_default(identity));
        if identities.is_empty() {
            return Ok(());
        }
        let store = self.clone();
        let written = tokio::task::spawn_blocking(move || store.approve(identities, "trust_dialog")).await;
        let failed = |error: &dyn std::fmt::Display| {
            PluginError::internal(format!("Could not record trusted packages: {error}"))
        };
        written.map_err(|error| failed(&error))?.map_err(|error| failed(&error))
    }
}

/// The request that a section of the notebook's metadata stands for, without the provider's own packages.
pub(super) fn request(section: &Map<String, Value>) -> EnvRequest {
    let text =
        |name: &str| section.get(name).and_then(Value::as_str).map(str::trim).filter(|text| !text.is_empty());
    let known = ["dependencies", CHANNELS, "requires-python", "python"];
    let others = section.iter().filter(|(name, _)| !known.contains(&name.as_str()));
    EnvRequest {
        packages: strings(section, "dependencies"),
        python: text("requires-python").or_else(|| text("python")).map(str::to_owned),
        channels: strings(section, CHANNELS),
        options: others.map(|(name, value)| (name.clone(), value.clone())).collect(),
        ..EnvRequest::default()
    }
}

/// The providers that `metadata` has a section for, with the section.
fn declared<'a>(
    metadata: &'a Value,
    providers: &'a [Arc<dyn EnvProvider>],
) -> impl Iterator<Item = (&'a Arc<dyn EnvProvider>, &'a Map<String, Value>)> {
    providers.iter().filter_map(|provider| Some((provider, section(metadata, &provider.info().kind)?)))
}

/// The lists of a section: `dependencies`, `channels`, `pypi_dependencies` ...
fn lists(section: &Map<String, Value>) -> impl Iterator<Item = &str> {
    section
        .iter()
        .filter(|(name, value)| value.is_array() && (name.ends_with("dependencies") || *name == CHANNELS))
        .map(|(name, _)| name.as_str())
}

/// Whether a section is there and says nothing, as in every new notebook. Its provider need not be asked, which
/// may have to be started for that.
fn asks_nothing(section: &Map<String, Value>) -> bool {
    section.values().all(|value| match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    })
}

fn has_packages(section: &Map<String, Value>) -> bool {
    lists(section).any(|name| name != CHANNELS && !strings(section, name).is_empty())
}

fn is_default(identity: &PackageIdentity) -> bool {
    match identity.ecosystem.as_str() {
        "pypi" | "conda" => DEFAULT_PACKAGES.contains(&identity.name.as_str()),
        "conda-channel" | "pixi-channel" => {
            DEFAULT_CHANNELS.contains(&identity.name.strip_suffix('/').unwrap_or(&identity.name))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pools::fake::FakeProvider;
    use serde_json::json;
    use std::os::unix::fs::PermissionsExt;

    fn providers() -> Vec<Arc<dyn EnvProvider>> {
        vec![Arc::new(FakeProvider::new("uv"))]
    }

    async fn status(store: &TrustStore, metadata: &Value) -> String {
        let verdict = store.verdict(metadata, &providers()).await.unwrap();
        assert_eq!(verdict.needs_approval, verdict.status == "untrusted");
        verdict.status
    }

    #[tokio::test]
    async fn an_approval_holds_for_the_next_daemon_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("trusted-packages.json");
        let store = TrustStore::new(path.clone());
        let metadata = json!({"runt": {"uv": {"dependencies": ["pandas", "cowsay"]}}});
        let before = store.verdict(&metadata, &providers()).await.unwrap();
        assert_eq!(before.status, "untrusted");
        assert_eq!(before.approved["approved_uv_dependencies"], ["pandas"]);

        store.approve_all(&metadata, &providers()).await.unwrap();
        assert_eq!(status(&store, &metadata).await, "trusted");
        assert_eq!(status(&TrustStore::new(path.clone()), &metadata).await, "trusted");
        assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[tokio::test]
    async fn nothing_declared_needs_no_trust() {
        let store = TrustStore::new("/nowhere/at/all".into());
        assert_eq!(status(&store, &json!({})).await, "no_dependencies");
        assert_eq!(status(&store, &json!({"runt": {"uv": {"dependencies": []}}})).await, "no_dependencies");
        assert_eq!(
            status(&store, &json!({"runt": {"conda": {"dependencies": ["x"]}}})).await,
            "no_dependencies"
        );
        assert_eq!(status(&store, &json!({"runt": {"uv": {"dependencies": ["numpy"]}}})).await, "trusted");
    }

    #[tokio::test]
    async fn a_store_that_cannot_be_read_allows_nothing_and_records_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("trusted-packages.json");
        std::fs::write(&path, "not json").unwrap();
        let store = TrustStore::new(path.clone());
        let metadata = json!({"runt": {"uv": {"dependencies": ["cowsay"]}}});
        assert_eq!(status(&store, &metadata).await, "untrusted");
        assert!(store.approve_all(&metadata, &providers()).await.is_err());
        assert_eq!(std::fs::read_to_string(path).unwrap(), "not json");
    }
}
