//! The user's settings: one document that every window edits, mirrored to `settings.json`.
//!
//! For: pools, plugins and the `settings_sync` channel.
//! Promises: readers always see complete settings; a file that is not valid JSON is never overwritten;
//! keys nobody here knows survive.
//! Shape: an Automerge map at the root, the same tree as the JSON file without `$schema`.

mod mirror;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use runtimed_plugin_api::SettingsView;
use runtimed_plugin_api::search::SearchPath;
use runtimed_protocol::documents::sync::{Incoming, SyncError};
use runtimed_protocol::documents::{Document, SettingsDoc, SyncPeer};
use runtimed_protocol::settings as schema;
use serde_json::{Map, Value};
use tokio::sync::watch;

pub use mirror::Mirror;
pub use runtimed_protocol::settings::{default_packages, flag, pool_size};

/// The settings of this daemon. Cheap to clone.
#[derive(Clone)]
pub struct Settings(Arc<Shared>);

struct Shared {
    /// The truth. Locked for single operations, none of which waits or calls out.
    document: Mutex<SettingsDoc>,
    /// What the document says, complete. Grows by one revision with each change of the document.
    view: watch::Sender<SettingsView>,
    /// What is wrong with the file at the moment, in words for the user.
    problem: watch::Sender<Option<String>>,
    /// The newest revision that is in the file, or of which the user is told why it is not.
    mirrored: watch::Sender<u64>,
}

impl Settings {
    /// Settings that say what `raw` says, defaults filled in.
    fn new(raw: &Map<String, Value>) -> Self {
        let values = schema::complete(raw);
        // A label of its own for each life of the daemon: two lives never number changes alike.
        let actor = format!("runtimed:settings:{}", uuid::Uuid::new_v4().simple());
        let document = SettingsDoc::new(&values, &actor).unwrap_or_else(|error| {
            tracing::error!("could not write the settings document: {error}");
            SettingsDoc::empty(&actor)
        });
        let view = SettingsView { revision: 1, values: Value::Object(values) };
        Self(Arc::new(Shared {
            document: Mutex::new(document),
            view: watch::Sender::new(view),
            problem: watch::Sender::new(None),
            mirrored: watch::Sender::new(0),
        }))
    }

    /// Reads the file at `path`, or what an old version left in `base`, or takes the defaults.
    /// The mirror is to be run by the caller; `plugins` is where those are that describe settings of their own.
    pub fn open(path: &Path, base: &Path, plugins: SearchPath) -> (Self, Mirror) {
        let (raw, problem) = mirror::read_at_start(path, base);
        let settings = Self::new(&raw);
        settings.set_problem(problem);
        let mirror = Mirror::new(settings.clone(), path.to_path_buf(), plugins);
        (settings, mirror)
    }

    /// The settings as they are now.
    pub fn view(&self) -> SettingsView {
        self.0.view.borrow().clone()
    }

    /// Hears about every change.
    pub fn watch(&self) -> watch::Receiver<SettingsView> {
        self.0.view.subscribe()
    }

    /// What is wrong with the file at the moment.
    pub fn problem(&self) -> Option<String> {
        self.0.problem.borrow().clone()
    }

    /// Takes a sync message of a client. Others hear of it if it changed anything.
    ///
    /// # Errors
    /// When the message is not one.
    pub fn receive(&self, peer: &mut SyncPeer, message: &[u8]) -> Result<(), SyncError> {
        let incoming = Incoming::decode(message)?;
        let mut document = self.document();
        if peer.receive(&mut *document, incoming)?.changed {
            self.publish(document);
        }
        Ok(())
    }

    /// Waits until the file has what the settings are now, or the user is told why it has not. Needs a mirror that runs.
    pub async fn mirrored(&self) {
        let revision = self.0.view.borrow().revision;
        // The sender is ours as well, so there is always one.
        let _ = self.0.mirrored.subscribe().wait_for(|mirrored| *mirrored >= revision).await;
    }

    /// The next sync message for a client, if there is anything to say.
    pub fn message_for(&self, peer: &mut SyncPeer) -> Option<Vec<u8>> {
        peer.generate(&mut *self.document())
    }

    /// Changes settings on behalf of the user, as a window would. `edit` gets all settings as they are and
    /// returns the top-level keys to set; the keys of a section that it does not name stay. No other change
    /// comes in between, so it must neither wait nor call out.
    pub fn edit(&self, edit: impl FnOnce(&Map<String, Value>) -> Map<String, Value>) {
        let mut document = self.document();
        let edits = edit(&schema::complete(&document.settings()));
        let before = document.heads();
        for (name, value) in &edits {
            let value = match (document.get(name), value) {
                (Some(Value::Object(mut section)), Value::Object(edit)) => {
                    section.extend(edit.clone());
                    // Taken away.
                    section.retain(|_, value| !value.is_null());
                    Value::Object(section)
                }
                (_, value) => value.clone(),
            };
            if let Err(error) = document.set(name, Some(&value).filter(|value| !value.is_null())) {
                tracing::error!("could not apply the setting `{name}`: {error}");
            }
        }
        document.commit();
        if document.heads() != before {
            self.publish(document);
        }
    }

    /// Applies an edit of the file.
    fn apply(&self, edits: &Map<String, Value>) {
        if !edits.is_empty() {
            self.edit(|_| edits.clone());
        }
    }

    /// Tells everybody what the document says now. The lock is held until then, so that views come in the
    /// order of the changes; whoever is woken runs later.
    fn publish(&self, document: MutexGuard<'_, SettingsDoc>) {
        let values = schema::complete(&document.settings());
        self.0.view.send_modify(|view| {
            view.revision += 1;
            view.values = Value::Object(values);
        });
    }

    fn set_problem(&self, problem: Option<String>) {
        if let Some(problem) = &problem {
            tracing::warn!("{problem}");
        }
        self.0.problem.send_replace(problem);
    }

    fn document(&self) -> MutexGuard<'_, SettingsDoc> {
        self.0.document.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Exchanges messages until both sides have nothing to say.
    fn synchronize(
        settings: &Settings,
        ours: &mut SyncPeer,
        client: &mut SettingsDoc,
        theirs: &mut SyncPeer,
    ) {
        loop {
            let down = settings.message_for(ours);
            if let Some(message) = &down {
                theirs.receive(client, Incoming::decode(message).unwrap()).unwrap();
            }
            let up = theirs.generate(client);
            if let Some(message) = &up {
                settings.receive(ours, message).unwrap();
            }
            if down.is_none() && up.is_none() {
                return;
            }
        }
    }

    #[test]
    fn a_client_reads_everything_and_its_edits_arrive() {
        let settings = Settings::new(&Map::new());
        let (mut client, mut ours, mut theirs) =
            (SettingsDoc::empty("client"), SyncPeer::new(), SyncPeer::new());
        synchronize(&settings, &mut ours, &mut client, &mut theirs);
        assert_eq!(client.settings()["uv_pool_size"], 2);
        let revision = settings.view().revision;

        client.set("theme", Some(&Value::from("dark"))).unwrap();
        synchronize(&settings, &mut ours, &mut client, &mut theirs);
        assert_eq!(settings.view().values["theme"], "dark");
        assert_eq!(settings.view().revision, revision + 1);
    }

    #[test]
    fn a_message_that_is_none_is_refused() {
        let settings = Settings::new(&Map::new());
        assert!(settings.receive(&mut SyncPeer::new(), b"garbage").is_err());
        assert!(settings.receive(&mut SyncPeer::new(), b"").is_err());
    }

    #[test]
    fn an_edit_of_a_section_keeps_its_other_keys() {
        let settings = Settings::new(&Map::new());
        let edit = serde_json::json!({"editor": {"line_numbers": true}});
        settings.apply(edit.as_object().unwrap());
        let editor = &settings.view().values["editor"];
        assert_eq!((&editor["line_numbers"], &editor["code_font_family"]), (&true.into(), &"".into()));
    }

    #[test]
    fn what_has_no_default_is_taken_away_by_null() {
        let settings = Settings::new(&Map::new());
        let edit = |value: serde_json::Value| settings.apply(value.as_object().unwrap());
        edit(serde_json::json!({"kernels": {"warm": 3, "keep_disk_bytes": 1}, "uv": {"python": "3.12"}}));
        edit(serde_json::json!({"kernels": {"warm": null}, "uv": {"python": null}}));
        let view = settings.view().values;
        assert_eq!(
            (&view["kernels"], &view["uv"]),
            (&serde_json::json!({"keep_disk_bytes": 1}), &serde_json::json!({"default_packages": []}))
        );
    }

    #[test]
    fn an_edit_that_changes_nothing_wakes_nobody() {
        let settings = Settings::new(&Map::new());
        let watch = settings.watch();
        settings.apply(serde_json::json!({"theme": "system"}).as_object().unwrap());
        assert!(!watch.has_changed().unwrap());
    }
}
