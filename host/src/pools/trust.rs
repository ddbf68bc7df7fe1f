//! Which packages a notebook may have installed.
//!
//! For: `environments.rs`, which asks before anything a notebook declares is built.
//! Promises: fails closed: a store that cannot be read allows only the defaults; an approval that could
//! not be written is an error; what another program allows or forgets holds at once.
//! Never: knows how a package manager spells names; identities come from its provider.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use runtimed_plugin_api::trusted_packages::{FILE_NAME, TrustedPackages, is_default};
use runtimed_plugin_api::{
    EnvProvider, EnvRequest, PackageIdentity, PluginError, Result, ScriptBlock, TrustVerdict,
};
use serde_json::{Map, Value};

use super::labels::{says, section, strings};
use super::relative::absolute;
use super::script::Script;

/// Keys of a section that are lists but name no package.
const CHANNELS: &str = "channels";
/// The list of a section whose packages a script block adds to.
const DEPENDENCIES: &str = "dependencies";

/// The user's approvals. Cheap to clone.
#[derive(Clone)]
pub struct TrustStore {
    /// The folder the file is in.
    base: PathBuf,
    /// What was read last, and of which file.
    read: Arc<Mutex<Option<Seen>>>,
}

/// A file, and what it says.
type Seen = (Stamp, Arc<TrustedPackages>);

/// What tells two files at the same place apart: inode, bytes, seconds and nanoseconds of its last change.
type Stamp = Option<(u64, u64, i64, i64)>;

/// Everything that a notebook declares.
pub(super) struct Declared<'a> {
    /// Its metadata.
    pub(super) metadata: &'a Value,
    /// Its script blocks.
    pub(super) scripts: &'a [ScriptBlock],
    /// The kind that would install what a script block names.
    pub(super) script_kind: &'a str,
    /// The notebook's folder, where relative paths begin; none if it has none.
    pub(super) folder: Option<&'a Path>,
}

impl TrustStore {
    /// The store in the folder `base`; neither need be there yet.
    pub fn new(base: PathBuf) -> Self {
        Self { base, read: Arc::default() }
    }

    /// Whether all of `identities` are allowed.
    pub(super) fn allows(&self, identities: &[PackageIdentity]) -> bool {
        if identities.iter().all(is_default) {
            return true;
        }
        match self.load() {
            Ok(trusted) => identities.iter().all(|identity| trusted.allows(identity)),
            Err(error) => {
                let file = self.base.join(FILE_NAME);
                tracing::warn!("nothing is approved, since `{}` cannot be read: {error}", file.display());
                false
            }
        }
    }

    /// Allows `identities` from now on, by the action `source`.
    ///
    /// # Errors
    /// `Internal` when that could not be recorded: it does not hold then.
    pub(super) async fn approve(
        &self,
        mut identities: Vec<PackageIdentity>,
        source: &'static str,
    ) -> Result<()> {
        identities.retain(|identity| !is_default(identity));
        if identities.is_empty() {
            return Ok(());
        }
        let base = self.base.clone();
        let written = tokio::task::spawn_blocking(move || {
            let now = jiff::Timestamp::now().to_string();
            TrustedPackages::edit(&base, |trusted| {
                for identity in identities {
                    trusted.allow(identity, &now, source);
                }
            })
        });
        let failed = |error: &dyn std::fmt::Display| {
            PluginError::internal(format!("Could not record trusted packages: {error}"))
        };
        written.await.map_err(|error| failed(&error))?.map_err(|error| failed(&error))
    }

    /// What the file says now. It is small and rarely changes: it is read anew when it is another.
    fn load(&self) -> io::Result<Arc<TrustedPackages>> {
        let file = self.base.join(FILE_NAME);
        let of = |found: Metadata| (found.ino(), found.size(), found.mtime(), found.mtime_nsec());
        let stamp = std::fs::metadata(file).ok().map(of);
        let mut read = self.read.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some((of, trusted)) = &*read
            && *of == stamp
        {
            return Ok(Arc::clone(trusted));
        }
        let trusted = Arc::new(TrustedPackages::read(&self.base)?);
        *read = Some((stamp, Arc::clone(&trusted)));
        Ok(trusted)
    }

    /// What trust says about what a notebook declares. Sections without a provider do not count:
    /// nothing of them can be installed. A script block that is none does not count either.
    ///
    /// # Errors
    /// Of the providers.
    pub(super) async fn verdict(
        &self,
        declared: &Declared<'_>,
        providers: &[Arc<dyn EnvProvider>],
    ) -> Result<TrustVerdict> {
        let (mut any, mut all_allowed, mut approved) = (false, true, BTreeMap::new());
        for (provider, section) in sections(declared.metadata, providers) {
            let kind = provider.info().kind;
            let request = |section: &Map<String, Value>| absolute(request(section), declared.folder);
            any |= has_packages(section);
            all_allowed &=
                asks_nothing(section) || self.allows(&provider.identities(&request(section)).await?);
            for name in lists(section) {
                let mut allowed = Vec::new();
                for item in strings(section, name) {
                    let only = Map::from_iter([(name.to_owned(), Value::from(vec![item.clone()]))]);
                    if self.allows(&provider.identities(&request(&only)).await?) {
                        allowed.push(item);
                    }
                }
                approved.insert(format!("approved_{kind}_{name}"), allowed);
            }
        }
        if let Some((provider, script)) = script(declared, providers) {
            let info = provider.info();
            let wanted = |script: &Script| absolute(script.request(&info), declared.folder);
            any |= !script.dependencies.is_empty();
            all_allowed &= self.allows(&provider.identities(&wanted(&script)).await?);
            let list = info.script_packages.as_deref().unwrap_or(DEPENDENCIES);
            let allowed: &mut Vec<String> =
                approved.entry(format!("approved_{}_{list}", declared.script_kind)).or_default();
            for package in &script.dependencies {
                let identities = provider.identities(&wanted(&Script::naming(package))).await?;
                if !allowed.contains(package) && self.allows(&identities) {
                    allowed.push(package.clone());
                }
            }
        }
        let status = match (any, all_allowed) {
            (false, _) => "no_dependencies",
            (true, true) => "trusted",
            (true, false) => "untrusted",
        };
        let needs_approval = status == "untrusted";
        Ok(TrustVerdict { status: status.to_owned(), needs_approval, approved, ..TrustVerdict::default() })
    }

    /// Allows everything that a notebook declares.
    ///
    /// # Errors
    /// Of the providers; `Internal` when the approval could not be recorded: it does not hold then.
    pub(super) async fn approve_all(
        &self,
        declared: &Declared<'_>,
        providers: &[Arc<dyn EnvProvider>],
    ) -> Result<()> {
        let mut identities = Vec::new();
        for (provider, section) in sections(declared.metadata, providers) {
            if !asks_nothing(section) {
                let request = absolute(request(section), declared.folder);
                identities.extend(provider.identities(&request).await?);
            }
        }
        if let Some((provider, script)) = script(declared, providers) {
            let request = absolute(script.request(&provider.info()), declared.folder);
            identities.extend(provider.identities(&request).await?);
        }
        self.approve(identities, "trust_dialog").await
    }
}

/// The script block, and who would install what it names.
fn script<'a>(
    declared: &Declared<'_>,
    providers: &'a [Arc<dyn EnvProvider>],
) -> Option<(&'a Arc<dyn EnvProvider>, Script)> {
    let script = Script::read(declared.scripts).ok()??;
    let provider = providers.iter().find(|provider| provider.info().kind == declared.script_kind)?;
    Some((provider, script))
}

/// The request that a section of the notebook's metadata stands for, without the provider's own packages.
pub(super) fn request(section: &Map<String, Value>) -> EnvRequest {
    let text =
        |name: &str| section.get(name).and_then(Value::as_str).map(str::trim).filter(|text| !text.is_empty());
    let known = [DEPENDENCIES, CHANNELS, "requires-python", "python"];
    let others = section.iter().filter(|(name, _)| !known.contains(&name.as_str()));
    EnvRequest {
        packages: strings(section, DEPENDENCIES),
        python: text("requires-python").or_else(|| text("python")).map(str::to_owned),
        channels: strings(section, CHANNELS),
        options: others.map(|(name, value)| (name.clone(), value.clone())).collect(),
        ..EnvRequest::default()
    }
}

/// The providers that `metadata` has a section for, with the section.
fn sections<'a>(
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
    !section.values().any(says)
}

/// Whether a section names packages, of whatever origin.
pub(super) fn has_packages(section: &Map<String, Value>) -> bool {
    lists(section).any(|name| name != CHANNELS && !strings(section, name).is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pools::fake::FakeProvider;
    use serde_json::json;

    fn providers() -> Vec<Arc<dyn EnvProvider>> {
        vec![Arc::new(FakeProvider::new("uv"))]
    }

    fn of(metadata: &Value) -> Declared<'_> {
        Declared { metadata, scripts: &[], script_kind: "uv", folder: None }
    }

    async fn status(store: &TrustStore, metadata: &Value) -> String {
        let verdict = store.verdict(&of(metadata), &providers()).await.unwrap();
        assert_eq!(verdict.needs_approval, verdict.status == "untrusted");
        verdict.status
    }

    #[tokio::test]
    async fn an_approval_holds_for_the_next_daemon_too_until_somebody_forgets_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = TrustStore::new(dir.path().to_owned());
        let metadata = json!({"runt": {"uv": {"dependencies": ["pandas", "cowsay"]}}});
        let before = store.verdict(&of(&metadata), &providers()).await.unwrap();
        assert_eq!(before.status, "untrusted");
        assert_eq!(before.approved["approved_uv_dependencies"], ["pandas"]);

        store.approve_all(&of(&metadata), &providers()).await.unwrap();
        assert_eq!(status(&store, &metadata).await, "trusted");
        assert_eq!(status(&TrustStore::new(dir.path().to_owned()), &metadata).await, "trusted");
        TrustedPackages::edit(dir.path(), |trusted| trusted.packages.clear()).unwrap();
        assert_eq!(status(&store, &metadata).await, "untrusted");
    }

    #[tokio::test]
    async fn a_script_block_needs_approval_like_a_declaration() {
        let dir = tempfile::tempdir().unwrap();
        let store = TrustStore::new(dir.path().to_owned());
        let block = |text: &str| [ScriptBlock { cell: 1, text: text.to_owned() }];
        let metadata = json!({"runt": {"uv": {"dependencies": ["numpy"]}}});
        let verdict = async |text: &str| {
            let declared = Declared { scripts: &block(text), ..of(&metadata) };
            store.verdict(&declared, &providers()).await.unwrap()
        };
        let both = "dependencies = ['cowsay', 'pandas']";
        let untrusted = verdict(both).await;
        assert!(untrusted.needs_approval);
        assert_eq!(untrusted.approved["approved_uv_dependencies"], ["numpy", "pandas"]);
        assert_eq!(verdict("").await.status, "trusted");
        assert_eq!(verdict("dependencies = [").await.status, "trusted", "nothing of it can be installed");
        let declared = Declared { scripts: &block(both), ..of(&metadata) };
        store.approve_all(&declared, &providers()).await.unwrap();
        assert_eq!(verdict(both).await.status, "trusted");
    }

    #[tokio::test]
    async fn a_path_that_is_allowed_in_one_folder_is_not_in_another() {
        let dir = tempfile::tempdir().unwrap();
        let store = TrustStore::new(dir.path().to_owned());
        let metadata = json!({"runt": {"uv": {"dependencies": ["./six.whl"]}}});
        let block = [ScriptBlock { cell: 1, text: "dependencies = ['./six.whl']".to_owned() }];
        let (here, there) = (Some(Path::new("/lab/one")), Some(Path::new("/lab/two")));
        store.approve_all(&Declared { folder: here, ..of(&metadata) }, &providers()).await.unwrap();
        for (folder, status) in [(here, "trusted"), (there, "untrusted"), (None, "untrusted")] {
            for declared in
                [Declared { folder, ..of(&metadata) }, Declared { folder, scripts: &block, ..of(&json!({})) }]
            {
                assert_eq!(store.verdict(&declared, &providers()).await.unwrap().status, status);
            }
        }
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
        let path = dir.path().join(FILE_NAME);
        std::fs::write(&path, "not json").unwrap();
        let store = TrustStore::new(dir.path().to_owned());
        let metadata = json!({"runt": {"uv": {"dependencies": ["cowsay"]}}});
        assert_eq!(status(&store, &metadata).await, "untrusted");
        assert!(store.approve_all(&of(&metadata), &providers()).await.is_err());
        assert_eq!(std::fs::read_to_string(path).unwrap(), "not json");
    }
}
