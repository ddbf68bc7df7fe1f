//! The plugin that `runt plugins new` writes.
//!
//! For: starting from something that works. The files are those of `plugin-template/`, as they were when runt
//! was built.
//! Promises: what is written builds and passes its own tests; only names differ from the template.

use std::path::{Path, PathBuf};

use runtimed_plugin_api::manifest::{FILE_NAME, Manifest, ManifestError};

/// Every file of the template with its text.
const FILES: [(&str, &str); 9] = [
    (".github/workflows/ci.yml", include_str!("../../../plugin-template/.github/workflows/ci.yml")),
    (".gitignore", include_str!("../../../plugin-template/.gitignore")),
    ("Cargo.lock", include_str!("../../../plugin-template/Cargo.lock")),
    ("Cargo.toml", include_str!("../../../plugin-template/Cargo.toml")),
    ("README.md", include_str!("../../../plugin-template/README.md")),
    ("plugin.toml", include_str!("../../../plugin-template/plugin.toml")),
    ("rustfmt.toml", include_str!("../../../plugin-template/rustfmt.toml")),
    ("src/lib.rs", include_str!("../../../plugin-template/src/lib.rs")),
    ("tests/provider.rs", include_str!("../../../plugin-template/tests/provider.rs")),
];
/// The file that only fits crates in the places it was made for.
const LOCK: &str = "Cargo.lock";
/// Names in the template, each unlike any other word there.
const TEMPLATE_ID: &str = "org.example.venv";
const TEMPLATE_CRATE: &str = "venv-environments";
/// Where the template says its kind; the word alone is also a command there.
const TEMPLATE_KIND: [(&str, &str); 3] = [
    ("src/lib.rs", "const KIND: &str = \"venv\";"),
    (FILE_NAME, "name = \"venv\"\n"),
    ("README.md", "\"default_python_env\": \"venv\""),
];
/// How the template's manifest begins the path of each of our crates.
const TEMPLATE_API: &str = "path = \"../plugin-api";

/// What a new plugin is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Names {
    pub(crate) id: String,
    /// The provider's name in settings, notebook metadata and labels.
    pub(crate) kind: String,
    /// The package; the library's name follows from it.
    pub(crate) package: String,
}

impl Names {
    /// Names that follow from the name of the plugin's folder.
    pub(crate) fn of_folder(name: &str) -> Self {
        let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
        let mut name = name.chars().map(plain).collect::<String>().trim_matches('-').to_owned();
        if !name.starts_with(|c: char| c.is_ascii_lowercase()) {
            name = format!("env-{name}").trim_end_matches('-').to_owned();
        }
        // No crate that the plugin depends on is called so, and no word of the language.
        let stem = ["-environments", "-env"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(&name);
        Self { id: format!("local.{name}"), package: format!("{stem}-environments"), kind: name.clone() }
    }
}

/// Every file of a new plugin, by its path below the plugin's folder. `checkout` is where runtimed's own sources
/// are, if they are there; without them, the published crates are named.
///
/// # Errors
/// For an id that no plugin may have.
pub(crate) fn files(names: &Names, checkout: Option<&Path>) -> Result<Vec<(PathBuf, String)>, ManifestError> {
    let written = FILES.iter().filter(|(path, _)| *path != LOCK || checkout.is_some());
    let files: Vec<_> = written
        .map(|(path, text)| {
            let text = rename(path, text, names);
            let text = if *path == "Cargo.toml" { place(&text, checkout) } else { text };
            let text = if *path == LOCK { sort_packages(&text) } else { text };
            (PathBuf::from(path), text)
        })
        .collect();
    for (path, text) in files.iter().filter(|(path, _)| path.as_os_str() == FILE_NAME) {
        Manifest::parse(text, path)?;
    }
    Ok(files)
}

fn rename(path: &str, text: &str, names: &Names) -> String {
    let mut text = text.to_owned();
    for (_, place) in TEMPLATE_KIND.iter().filter(|(file, _)| *file == path) {
        text = text.replace(place, &place.replace("\"venv\"", &format!("\"{}\"", names.kind)));
    }
    let library = |package: &str| package.replace('-', "_");
    text.replace(TEMPLATE_ID, &names.id)
        .replace(TEMPLATE_CRATE, &names.package)
        .replace(&library(TEMPLATE_CRATE), &library(&names.package))
}

/// Says where our own crates are.
fn place(cargo: &str, checkout: Option<&Path>) -> String {
    let mut placed = String::new();
    let mut rest = cargo;
    while let Some((before, after)) = rest.split_once(TEMPLATE_API) {
        let (below, after) = after.split_once('"').unwrap_or((after, ""));
        placed += before;
        placed += &match checkout {
            Some(checkout) => format!("path = {:?}", format!("{}/plugin-api{below}", checkout.display())),
            // All our crates have one version.
            None => format!("version = \"{}\"", env!("CARGO_PKG_VERSION")),
        };
        rest = after;
    }
    placed + rest
}

/// Cargo takes a lock file for outdated whose packages are not in order, and a name has changed.
fn sort_packages(lock: &str) -> String {
    const START: &str = "[[package]]\n";
    let mut parts = lock.split(START);
    let head = parts.next().unwrap_or_default();
    let mut packages: Vec<&str> = parts.map(str::trim_end).collect();
    packages.sort_by_key(|package| package.lines().next());
    let packages: Vec<_> = packages.into_iter().map(|package| format!("{START}{package}\n")).collect();
    format!("{head}{}", packages.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        Names { id: "com.me.poetry".into(), kind: "poetry".into(), package: "poetry-environments".into() }
    }

    fn text(path: &str, checkout: Option<&Path>) -> String {
        let files = files(&names(), checkout).unwrap();
        files.into_iter().find(|(file, _)| file.as_os_str() == path).unwrap().1
    }

    #[test]
    fn the_whole_template_is_in_here() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugin-template");
        let mut folders = vec![root.clone()];
        let mut found = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
                match entry.is_dir() {
                    true if entry.ends_with("target") => {}
                    true => folders.push(entry),
                    false => found.push(entry.strip_prefix(&root).unwrap().display().to_string()),
                }
            }
        }
        found.sort();
        assert_eq!(found, FILES.map(|(path, _)| path));
    }

    #[test]
    fn every_name_is_changed_and_nothing_else_is() {
        for (path, place) in TEMPLATE_KIND {
            let (_, text) = FILES.iter().find(|(file, _)| *file == path).unwrap();
            assert!(text.contains(place), "{path} does not say the kind as {place}");
        }
        for (path, text) in files(&names(), Some(Path::new("/src/runtimed"))).unwrap() {
            for old in [TEMPLATE_ID, TEMPLATE_CRATE, "venv_environments", "\"venv\";", TEMPLATE_API] {
                assert!(!text.contains(old), "{} still says {old}", path.display());
            }
        }
        let manifest = Manifest::parse(&text(FILE_NAME, None), Path::new(FILE_NAME)).unwrap();
        assert_eq!((manifest.id.as_str(), manifest.provides[0].name.as_str()), ("com.me.poetry", "poetry"));
        assert_eq!(manifest.library["linux-x86_64"].path, Path::new("libpoetry_environments.so"));
        assert!(
            text("src/lib.rs", None).contains("args([\"-m\", \"venv\"])"),
            "the command is still the command"
        );
        assert!(text("tests/provider.rs", None).contains("use poetry_environments::Provider;"));
        let cargo = text("Cargo.toml", Some(Path::new("/src/run \"timed\"")));
        assert!(cargo.contains(r#"path = "/src/run \"timed\"/plugin-api""#), "{cargo}");
        assert!(text("Cargo.toml", None).contains("runtimed-plugin-api = { version = \"0.1.0\" }"));
        let published = files(&names(), None).unwrap();
        assert!(published.iter().all(|(path, _)| path.as_os_str() != LOCK));
    }

    #[test]
    fn a_lock_file_is_in_order() {
        let lock = text(LOCK, Some(Path::new("/src")));
        let names: Vec<_> = lock.lines().filter(|line| line.starts_with("name = ")).collect();
        assert!(names.is_sorted() && names.contains(&"name = \"poetry-environments\""));
        let template = FILES.iter().find(|(path, _)| *path == LOCK).unwrap().1;
        assert_eq!(lock.lines().count(), template.lines().count());
        assert_eq!(sort_packages(template), template);
    }

    #[test]
    fn names_follow_from_the_folder() {
        let of = |name: &str| {
            let Names { id, kind, package } = Names::of_folder(name);
            format!("{id} {kind} {package}")
        };
        assert_eq!(of("my-env"), "local.my-env my-env my-environments");
        assert_eq!(of("Poetry"), "local.poetry poetry poetry-environments");
        assert_eq!(of("3 Köln_"), "local.env-3-k-ln env-3-k-ln env-3-k-ln-environments");
        assert_eq!(of("…"), "local.env env env-environments");
        for name in ["my-env", "3 Köln_", "…", "environments", "x-env"] {
            files(&Names::of_folder(name), None).unwrap();
        }
        let bad = Names { id: "../x".into(), ..names() };
        assert!(files(&bad, None).unwrap_err().to_string().contains("`../x` is not allowed"));
    }
}
