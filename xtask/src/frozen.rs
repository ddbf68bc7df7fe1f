//! The sources of every released ABI, under plugin-api/fixtures/frozen.
//!
//! Promises: what is there stays as it was on the day of its release; tidy compares every file with its
//! recorded hash.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use crate::workspace;

/// The ABI crate of today.
const TODAY: &str = "plugin-api/abi";
/// One folder for each released minor.
const FROZEN: &str = "plugin-api/fixtures/frozen";
/// Hash and path of every file in [`FROZEN`], in the format of `sha256sum`.
const SUMS: &str = "SHA256SUMS";
/// What makes up the ABI crate.
const PARTS: &[&str] = &["Cargo.toml", "build.rs", "src"];

/// Sources of an ABI.
#[derive(Debug, Clone)]
pub(crate) struct Abi {
    /// Its folder, with `Cargo.toml` and `src`.
    pub(crate) folder: PathBuf,
    /// Major and minor version.
    pub(crate) version: (u16, u16),
}

impl Abi {
    /// The one in the workspace.
    pub(crate) fn of_today() -> Result<Self> {
        Self::read(workspace::root().join(TODAY))
    }

    /// Every released one, oldest first.
    pub(crate) fn frozen() -> Result<Vec<Self>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(workspace::root().join(FROZEN))? {
            let path = entry?.path();
            if path.is_dir() {
                found.push(Self::read(path)?);
            }
        }
        found.sort_by_key(|abi| abi.version);
        Ok(found)
    }

    fn read(folder: PathBuf) -> Result<Self> {
        let manifest = folder.join("Cargo.toml");
        let table: toml::Table = fs::read_to_string(&manifest)?.parse()?;
        let version = table.get("package").and_then(|it| it.get("version")).and_then(|it| it.as_str());
        let mut numbers = version.unwrap_or_default().split('.').map_while(|it| it.parse().ok());
        let version = numbers.next().zip(numbers.next());
        let version = version.with_context(|| format!("no version in {}", manifest.display()))?;
        Ok(Self { folder, version })
    }
}

/// Adds the ABI of today to the released ones.
pub(crate) fn freeze() -> Result<()> {
    let Abi { folder, version: (major, minor) } = Abi::of_today()?;
    let home = workspace::root().join(FROZEN).join(format!("{major}.{minor}"));
    ensure!(
        !home.exists(),
        "ABI {major}.{minor} is frozen already; raise the minor version in {TODAY}/Cargo.toml first"
    );
    for part in PARTS {
        for file in files(&folder.join(part))? {
            let copy = home.join(file.strip_prefix(&folder)?);
            fs::create_dir_all(copy.parent().unwrap_or(&home))?;
            fs::copy(&file, &copy)?;
        }
    }
    let sums: String = hashes()?.iter().map(|(name, hash)| format!("{hash}  {name}\n")).collect();
    fs::write(workspace::root().join(FROZEN).join(SUMS), sums)?;
    println!("froze ABI {major}.{minor} in {}", home.display());
    Ok(())
}

/// What is wrong with the released ABIs and with how today's grows.
pub(crate) fn complaints() -> Result<Vec<String>> {
    let sums = fs::read_to_string(workspace::root().join(FROZEN).join(SUMS))?;
    let recorded = sums.lines().filter_map(|line| line.split_once("  "));
    let recorded: BTreeMap<String, String> =
        recorded.map(|(hash, name)| (name.to_owned(), hash.to_owned())).collect();
    let found = hashes()?;
    let mut complaints: Vec<String> = recorded
        .keys()
        .chain(found.keys().filter(|name| !recorded.contains_key(*name)))
        .filter(|name| recorded.get(*name) != found.get(*name))
        .map(|name| {
            format!("{FROZEN}/{name}: a released ABI is never edited; `git checkout` it (see {FROZEN}/..)")
        })
        .collect();
    for file in files(&workspace::root().join(TODAY).join("src"))? {
        let shown = file.strip_prefix(workspace::root())?.display().to_string();
        complaints.extend(bare_methods(&fs::read_to_string(&file)?).into_iter().map(|method| {
            format!(
                "{shown}: `{method}` comes after the first release's last method, so it needs a default body"
            )
        }));
    }
    Ok(complaints)
}

/// Methods after a trait's `last_prefix_field` that have no body: an old plugin lacks them, and without a
/// default the call would end the process.
fn bare_methods(text: &str) -> Vec<String> {
    let items = text.split("\n    #[sabi(last_prefix_field)]").skip(1);
    let items = items.map(|rest| rest.split("\n}\n").next().unwrap_or_default());
    let appended = items.flat_map(|item| item.split("\n    fn ").skip(2));
    let bare = appended.filter(|method| method.chars().find(|c| ";{".contains(*c)) == Some(';'));
    bare.map(|method| method.split('(').next().unwrap_or_default().to_owned()).collect()
}

/// Hash by path, for every file in a released ABI's folder.
fn hashes() -> Result<BTreeMap<String, String>> {
    let home = workspace::root().join(FROZEN);
    let mut hashes = BTreeMap::new();
    for abi in Abi::frozen()? {
        for file in files(&abi.folder)? {
            let name = file.strip_prefix(&home)?.to_string_lossy().into_owned();
            hashes.insert(name, hex::encode(Sha256::digest(fs::read(&file)?)));
        }
    }
    Ok(hashes)
}

/// Every file at or below `path`.
fn files(path: &Path) -> Result<Vec<PathBuf>> {
    if path.is_file() {
        return Ok(vec![path.to_path_buf()]);
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(path).with_context(|| format!("could not read {}", path.display()))? {
        found.extend(files(&entry?.path())?);
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::bare_methods;

    #[test]
    fn an_appended_method_needs_a_body() {
        let text = "
pub trait A {
    fn first(&self);
    #[sabi(last_prefix_field)]
    fn last(
        &self,
    );

    fn good(&self) {
        let four = 4;
    }
}

pub trait B {
    #[sabi(last_prefix_field)]
    fn last(&self);
    fn good(&self) {}
    fn bad(&self) -> u8;
    /// Two lines.
    fn worse(
        &self,
    );
}
";
        assert_eq!(bare_methods(text), ["bad", "worse"]);
    }
}
