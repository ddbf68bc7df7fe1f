//! The notebook's metadata, its dependencies, and the seed of a new notebook.

use automerge::transaction::Transactable;
use automerge::{ReadDoc, ScalarValue};
use serde_json::{Map as JsonMap, Value as Json, json};

use super::{
    Document, NewCell, NotebookDoc, Place, Result, ensure_map, into_map_or_legacy_text, json, put_changed,
    root_map,
};

/// Keys of `metadata` that are the document's own: never read from or written to a file.
const RESERVED: [&str; 3] = ["runtime", "ephemeral", "notebook_metadata"];

/// Keys of `metadata.runt` from the time when trust was a signature. Dropped on read and on write.
const LEGACY_TRUST: [&str; 2] = ["trust_signature", "trust_timestamp"];

/// What a new notebook begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seed<'a> {
    /// What it runs.
    pub kernel: Kernelspec<'a>,
    /// The section of `metadata.runt`: `uv`, `conda`, `pixi`, or the name of another provider. Written for
    /// Python only.
    pub package_manager: &'a str,
    /// Declared dependencies.
    pub dependencies: &'a [String],
    /// Stable id of the notebook's environment; the notebook id for a created notebook.
    pub env_id: &'a str,
    /// Id of the empty code cell.
    pub cell_id: &'a str,
}

/// What `metadata.kernelspec` says of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kernelspec<'a> {
    /// `python3`, `deno`, or the name of an installed kernelspec.
    pub name: &'a str,
    /// Name for users.
    pub display_name: &'a str,
    /// Programming language, empty if unknown; also the name in `language_info`.
    pub language: &'a str,
}

impl Kernelspec<'static> {
    /// Python, wherever it comes from.
    pub const PYTHON: Self = Self { name: "python3", display_name: "Python 3", language: "python" };
}

/// A list of dependencies in `metadata.runt`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DependencyKind {
    /// `dependencies`.
    Packages,
    /// `pypi_dependencies`, of pixi.
    Pypi,
    /// `channels`, of conda and pixi.
    Channels,
    /// `permissions`, of deno.
    Permissions,
}

impl DependencyKind {
    fn key(self) -> &'static str {
        match self {
            Self::Packages => "dependencies",
            Self::Pypi => "pypi_dependencies",
            Self::Channels => "channels",
            Self::Permissions => "permissions",
        }
    }
}

impl NotebookDoc {
    /// Writes what a new notebook begins with, in one change. Only for a pristine notebook.
    ///
    /// # Errors
    /// When a peer has replaced `cells` or `metadata` by something that is no map.
    pub fn seed(&mut self, seed: &Seed<'_>) -> Result<()> {
        self.commit();
        let Kernelspec { name, display_name, language } = seed.kernel;
        let kernelspec = json!({"name": name, "display_name": display_name, "language": language});
        let mut runt = json!({"schema_version": "1", "env_id": seed.env_id});
        if seed.kernel == Kernelspec::PYTHON {
            runt[seed.package_manager] = match seed.package_manager {
                "conda" => json!({"dependencies": seed.dependencies, "channels": ["conda-forge"]}),
                "pixi" => json!({"dependencies": seed.dependencies, "pypi_dependencies": [],
                                 "channels": ["conda-forge"]}),
                _ => json!({"dependencies": seed.dependencies}),
            };
        }
        let metadata = root_map(&self.document, "metadata")?;
        json::put(&mut self.document, &metadata, "kernelspec", &kernelspec)?;
        if !language.is_empty() {
            json::put(&mut self.document, &metadata, "language_info", &json!({"name": language}))?;
        }
        json::put(&mut self.document, &metadata, "runt", &runt)?;
        let cell =
            NewCell { id: seed.cell_id.to_owned(), cell_type: "code".to_owned(), ..NewCell::default() };
        self.insert_cell(Place::End, &cell)?;
        self.commit();
        Ok(())
    }

    /// The notebook's metadata as a file has it, without the document's own keys. Empty when there is
    /// none.
    pub fn metadata(&self) -> JsonMap<String, Json> {
        let Ok(metadata) = root_map(&self.document, "metadata") else { return JsonMap::new() };
        let keys = self.document.keys(&metadata).filter(|key| !RESERVED.contains(&key.as_str()));
        keys.filter_map(|key| {
            let value = match key.as_str() {
                "runt" => Json::Object(self.runt()),
                _ => json::get(&self.document, &metadata, key.as_str())?,
            };
            let empty_runt = key == "runt" && value.as_object().is_some_and(JsonMap::is_empty);
            (!empty_runt).then_some((key, value))
        })
        .collect()
    }

    /// One key of the metadata.
    pub fn metadata_value(&self, key: &str) -> Option<Json> {
        match key {
            "runt" => Some(Json::Object(self.runt())).filter(|runt| runt != &json!({})),
            _ => json::get(&self.document, &root_map(&self.document, "metadata").ok()?, key),
        }
    }

    /// Makes the metadata equal to `metadata`, in place. The document's own keys are neither read from
    /// it nor touched.
    ///
    /// # Errors
    /// See [`NotebookDoc::seed`]; so for every setter below.
    pub fn set_metadata(&mut self, metadata: &JsonMap<String, Json>) -> Result<()> {
        let map = root_map(&self.document, "metadata")?;
        let gone = |key: &String| !RESERVED.contains(&key.as_str()) && !metadata.contains_key(key);
        for key in self.document.keys(&map).filter(gone).collect::<Vec<_>>() {
            self.document.delete(&map, key)?;
        }
        metadata.iter().try_for_each(|(key, value)| self.set_metadata_value(key, Some(value)))
    }

    /// Sets or removes one key of the metadata, in place. The document's own keys are left alone.
    ///
    /// # Errors
    /// See [`NotebookDoc::seed`].
    pub fn set_metadata_value(&mut self, key: &str, value: Option<&Json>) -> Result<()> {
        if RESERVED.contains(&key) {
            return Ok(());
        }
        let map = root_map(&self.document, "metadata")?;
        match value {
            Some(Json::Object(runt)) if key == "runt" => {
                let mut runt = runt.clone();
                LEGACY_TRUST.iter().for_each(|key| drop(runt.remove(*key)));
                json::update(&mut self.document, &map, key, &Json::Object(runt))?;
            }
            Some(value) => json::update(&mut self.document, &map, key, value)?,
            None if self.document.get(&map, key)?.is_some() => self.document.delete(&map, key)?,
            None => {}
        }
        Ok(())
    }

    /// `metadata.runt`: what the runtime needs to know about the notebook.
    pub fn runt(&self) -> JsonMap<String, Json> {
        let Ok(metadata) = root_map(&self.document, "metadata") else { return JsonMap::new() };
        let mut runt =
            json::get(&self.document, &metadata, "runt").map(into_map_or_legacy_text).unwrap_or_default();
        LEGACY_TRUST.iter().for_each(|key| drop(runt.remove(*key)));
        for value in runt.values_mut() {
            // A section may be JSON text, a plain value is not.
            let section = value.as_str().filter(|text| text.starts_with('{'));
            if let Some(Ok(map)) = section.map(serde_json::from_str::<JsonMap<String, Json>>) {
                *value = Json::Object(map);
            }
        }
        runt
    }

    /// One list of `metadata.runt.<manager>`.
    pub fn dependencies(&self, manager: &str, kind: DependencyKind) -> Vec<String> {
        let runt = self.runt();
        let list = runt.get(manager).and_then(|section| section.get(kind.key())).and_then(Json::as_array);
        list.into_iter().flatten().filter_map(|item| item.as_str().map(str::to_owned)).collect()
    }

    /// Makes one list of `metadata.runt.<manager>` equal to `items`, in place; the section is made if
    /// there is none.
    ///
    /// # Errors
    /// See [`NotebookDoc::seed`].
    pub fn set_dependencies(&mut self, manager: &str, kind: DependencyKind, items: &[String]) -> Result<()> {
        let metadata = root_map(&self.document, "metadata")?;
        let runt = ensure_map(&mut self.document, &metadata, "runt")?;
        let section = ensure_map(&mut self.document, &runt, manager)?;
        Ok(json::update_strings(&mut self.document, &section, kind.key(), items)?)
    }

    /// Sets one plain key of `metadata.runt`, such as `env_id`.
    ///
    /// # Errors
    /// See [`NotebookDoc::seed`].
    pub fn set_runt_value(&mut self, key: &str, value: &Json) -> Result<()> {
        let metadata = root_map(&self.document, "metadata")?;
        let runt = ensure_map(&mut self.document, &metadata, "runt")?;
        Ok(json::update(&mut self.document, &runt, key, value)?)
    }

    /// Whether nothing of this notebook is kept on disk.
    pub fn is_ephemeral(&self) -> bool {
        root_map(&self.document, "metadata")
            .is_ok_and(|map| json::get_string(&self.document, &map, "ephemeral").as_deref() == Some("true"))
    }

    /// Marks the notebook as one of which nothing is kept on disk, or takes the mark away.
    ///
    /// # Errors
    /// See [`NotebookDoc::seed`].
    pub fn set_ephemeral(&mut self, ephemeral: bool) -> Result<()> {
        let map = root_map(&self.document, "metadata")?;
        if ephemeral {
            put_changed(&mut self.document, &map, "ephemeral", ScalarValue::from("true"))
        } else if self.document.get(&map, "ephemeral")?.is_some() {
            Ok(self.document.delete(&map, "ephemeral")?)
        } else {
            Ok(())
        }
    }
}
