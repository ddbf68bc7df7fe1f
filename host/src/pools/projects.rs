//! The project round a notebook.
//!
//! For: `environments.rs`, and the runtime document's `project_context`.
//! Promises: the closest folder wins; the home folder and what is above a repository are not looked at; a provider is
//! asked only about folders that have one of its files.
//! Never: knows which files there are; providers name theirs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use runtimed_plugin_api::{EnvNeed, EnvProvider, EnvProviderInfo, PluginError, Project, Result};
use serde_json::{Map, Value, json};

use super::environments::blocking;
use super::labels::{section, strings};
use super::packages::bare_name;

/// What is in a folder that is a repository: nothing above it belongs to the notebook.
const REPOSITORY: &str = ".git";

/// A provider and what it says of itself.
pub(super) struct Detector {
    /// What it looks for.
    pub(super) info: EnvProviderInfo,
    /// Who looks.
    pub(super) provider: Arc<dyn EnvProvider>,
}

/// What a search found.
pub(super) struct Found {
    /// The project and the kind of its provider, or the file that cannot be understood and why.
    pub(super) project: std::result::Result<Option<(String, Project)>, (PathBuf, PluginError)>,
    /// Every file that would have been a project's, there or not.
    pub(super) candidates: Vec<PathBuf>,
}

/// Where the search for a notebook's project begins; none if it has no place.
pub(super) fn start(need: &EnvNeed) -> Option<&Path> {
    need.notebook_path.as_deref().and_then(Path::parent).or(need.working_dir.as_deref())
}

/// The closest project at or above `start` of one of `detectors`, the first of them first.
///
/// # Errors
/// When the file system cannot be asked.
pub(super) async fn nearest(start: &Path, home: Option<&Path>, detectors: &[Detector]) -> Result<Found> {
    let mut candidates = Vec::new();
    for folder in start.ancestors().take_while(|folder| Some(*folder) != home) {
        for Detector { info, provider } in detectors {
            let files: Vec<PathBuf> = info.markers.iter().map(|marker| folder.join(marker)).collect();
            candidates.extend_from_slice(&files);
            let Some(there) = first_there(files).await? else { continue };
            match provider.detect(folder).await {
                Ok(Some(project)) => {
                    return Ok(Found { project: Ok(Some((info.kind.clone(), project))), candidates });
                }
                Ok(None) => {}
                Err(error) => return Ok(Found { project: Err((there, error)), candidates }),
            }
        }
        if first_there(vec![folder.join(REPOSITORY)]).await?.is_some() {
            break;
        }
    }
    Ok(Found { project: Ok(None), candidates })
}

async fn first_there(files: Vec<PathBuf>) -> Result<Option<PathBuf>> {
    blocking(move || Ok(files.into_iter().find(|file| file.exists()))).await
}

/// What the notebook's `metadata` declares for `kind` and the project's file does not name.
pub(super) fn unnamed(project: &Project, metadata: &Value, kind: &str) -> Vec<String> {
    let mut packages =
        section(metadata, kind).map(|section| strings(section, "dependencies")).unwrap_or_default();
    let named: Vec<String> = project
        .dependencies
        .iter()
        .chain(&project.dev_dependencies)
        .map(|package| bare_name(package))
        .collect();
    packages.retain(|package| !named.contains(&bare_name(package)));
    packages
}

/// What the runtime document says of `found`, for a notebook in the folder `start`.
pub(super) fn context(found: Option<&Found>, start: Option<&Path>) -> Map<String, Value> {
    let observed_at = jiff::Timestamp::now().to_string();
    let said = match found.map(|found| &found.project) {
        None | Some(Ok(None)) => json!({ "state": "not_found" }),
        Some(Err((file, error))) => json!({
            "state": "unreadable", "unreadable_path": file, "unreadable_reason": error.message,
        }),
        Some(Ok(Some((_, project)))) => json!({
            "state": "detected",
            "kind": project.kind,
            "absolute_path": project.file,
            "relative_to_notebook": relative(&project.file, start.unwrap_or(Path::new("/"))),
            "parsed": {
                "dependencies": project.dependencies,
                "dev_dependencies": project.dev_dependencies,
                "requires_python": project.requires_python,
                "prerelease": project.extra.get("prerelease"),
                "extras": extras(project).to_string(),
            },
        }),
    };
    let mut context = said.as_object().cloned().unwrap_or_default();
    context.insert("observed_at".to_owned(), observed_at.into());
    context
}

/// What the kinds of nteract's add, as the document has it: tagged text.
fn extras(project: &Project) -> Value {
    let (kind, lists) = match project.kind.as_str() {
        "environment_yml" => ("EnvironmentYml", &["channels", "pip"][..]),
        "pixi_toml" => ("Pixi", &["channels", "pypi_dependencies"][..]),
        _ => ("None", &[][..]),
    };
    let mut extras = json!({ "kind": kind });
    for list in lists {
        extras[list] = project.extra.get(*list).cloned().unwrap_or_else(|| json!([]));
    }
    extras
}

/// `file` as seen from the folder `from`, which lies at or below the file's.
fn relative(file: &Path, from: &Path) -> PathBuf {
    let mut path = PathBuf::new();
    for folder in from.ancestors() {
        if let Ok(rest) = file.strip_prefix(folder) {
            return path.join(rest);
        }
        path.push("..");
    }
    file.to_owned()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::pools::fake::FakeProvider;

    fn detectors() -> Vec<Detector> {
        ["uv", "conda"]
            .map(|kind| {
                let provider = Arc::new(FakeProvider::new(kind));
                Detector { info: provider.info(), provider }
            })
            .into()
    }

    async fn found(start: &Path, home: &Path) -> Option<(String, PathBuf)> {
        let found = nearest(start, Some(home), &detectors()).await.unwrap();
        let (kind, project) = found.project.ok()??;
        Some((kind, project.file))
    }

    #[tokio::test]
    async fn the_closest_folder_wins_and_the_search_ends_at_a_repository_and_at_home() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("home");
        let deep = home.join("repo/a/b");
        fs::create_dir_all(&deep).unwrap();
        for folder in [&home, dir.path(), &home.join("repo")] {
            fs::write(folder.join("conda.project"), "").unwrap();
        }
        let project = home.join("repo/conda.project");
        assert_eq!(found(&deep, &home).await, Some(("conda".to_owned(), project.clone())));
        fs::write(home.join("repo/uv.project"), "").unwrap();
        assert_eq!(found(&deep, &home).await.unwrap().0, "uv", "the first of a folder's");
        fs::write(deep.join("conda.project"), "").unwrap();
        assert_eq!(found(&deep, &home).await.unwrap().1, deep.join("conda.project"));
        fs::create_dir(home.join("repo/a/.git")).unwrap();
        fs::remove_file(deep.join("conda.project")).unwrap();
        assert_eq!(found(&deep, &home).await, None, "nothing above a repository");
        assert_eq!(found(&home, &home).await, None, "nothing in the home folder");
    }

    #[tokio::test]
    async fn what_was_found_is_shown_and_what_is_broken_too() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b");
        fs::create_dir_all(&deep).unwrap();
        let file = dir.path().join("conda.project");
        let show = async |start: &Path| {
            let found = nearest(start, Some(Path::new("/")), &detectors()).await.unwrap();
            assert!(found.candidates.contains(&dir.path().join("uv.project")));
            context(Some(&found), Some(start))
        };
        assert_eq!(show(&deep).await["state"], "not_found");
        fs::write(&file, "six").unwrap();
        let shown = show(&deep).await;
        assert_eq!(
            (&shown["state"], &shown["relative_to_notebook"]),
            (&json!("detected"), &json!("../../conda.project"))
        );
        assert_eq!(shown["parsed"]["dependencies"], json!(["six"]));
        assert_eq!(show(dir.path()).await["relative_to_notebook"], "conda.project");
        fs::write(&file, "broken").unwrap();
        let shown = show(&deep).await;
        assert_eq!((&shown["state"], &shown["unreadable_path"]), (&json!("unreadable"), &json!(file)));
    }
}
