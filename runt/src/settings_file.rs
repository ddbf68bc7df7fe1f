//! The settings as a file, which the daemon and editors change as well.
//!
//! For: `runt config`, and switching plugins on and off while no daemon is there to be asked.
//! Promises: what is not to be changed stays as it is, in its order; the file is replaced whole, and what somebody else
//! wrote meanwhile is kept. One that is not JSON is never written.

use std::fs::{DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use anyhow::Context;
use runtimed_client::protocol::settings::LOCK_NAME;
use runtimed_plugin_api::replace::replace;
use serde_json::{Map, Value};

/// Settings name nobody's secrets, but they are the user's own.
const FILE_MODE: u32 = 0o600;

/// What the file says; nothing if there is none.
///
/// # Errors
/// For a file that cannot be read as settings.
pub(crate) fn read(file: &Path) -> anyhow::Result<Map<String, Value>> {
    parse(file, bytes(file)?.as_deref())
}

/// Changes the settings by `change`, which says whether it changed anything; it is called again when somebody else
/// writes at the same time. False if nothing was written.
///
/// # Errors
/// Those of `change`, and for a file that cannot be read as settings or written; it is what others made of it then.
pub(crate) fn edit(
    file: &Path,
    change: impl Fn(&mut Map<String, Value>) -> anyhow::Result<bool>,
) -> anyhow::Result<bool> {
    // What it links to is replaced, not the link.
    let target = &file.canonicalize().unwrap_or_else(|_| file.to_path_buf());
    let unwritable = || {
        let shown = file.display();
        format!("could not write `{shown}`.\nThe settings are as they were.\nCheck the folder's permissions")
    };
    let _lock = lock(file).with_context(unwritable)?;
    loop {
        let before = bytes(target)?;
        let mut settings = parse(file, before.as_deref())?;
        if !change(&mut settings)? {
            return Ok(false);
        }
        let text = format!("{}\n", serde_json::to_string_pretty(&settings)?).into_bytes();
        match replace(target, &text, FILE_MODE).with_context(unwritable)? {
            found if found == before => return Ok(true),
            // An editor was faster: what it wrote goes back, and the change on top of that.
            Some(found) => put_back(target, text, found).with_context(unwritable)?,
            // A moment ago it was there.
            None => {}
        }
    }
}

/// Keeps the daemon and others of us from reading and writing until it is dropped.
fn lock(file: &Path) -> io::Result<File> {
    let folder = file.parent().ok_or(ErrorKind::InvalidFilename)?;
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let lock = File::create(file.with_file_name(LOCK_NAME))?;
    lock.lock()?;
    Ok(lock)
}

/// Puts `theirs` in the place of `ours`, and what came after that, until it is the newest that is there.
fn put_back(file: &Path, mut ours: Vec<u8>, mut theirs: Vec<u8>) -> io::Result<()> {
    while let Some(found) = replace(file, &theirs, FILE_MODE)?.filter(|found| *found != ours) {
        (ours, theirs) = (theirs, found);
    }
    Ok(())
}

fn bytes(file: &Path) -> anyhow::Result<Option<Vec<u8>>> {
    match std::fs::read(file) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| unreadable(file)),
    }
}

fn parse(file: &Path, bytes: Option<&[u8]>) -> anyhow::Result<Map<String, Value>> {
    bytes.map_or(Ok(Map::new()), |bytes| serde_json::from_slice(bytes).with_context(|| unreadable(file)))
}

fn unreadable(file: &Path) -> String {
    format!(
        "`{}` cannot be read as JSON.\nThe file was not changed.\nCorrect it and try again",
        file.display()
    )
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn set(name: &'static str, value: u64) -> impl Fn(&mut Map<String, Value>) -> anyhow::Result<bool> {
        move |settings| Ok(settings.insert(name.to_owned(), value.into()) != Some(value.into()))
    }

    #[test]
    fn everything_else_stays_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("nteract/settings.json");
        assert!(edit(&file, set("b", 1)).unwrap());
        assert!(!edit(&file, set("b", 1)).unwrap());
        std::fs::write(&file, r#"{"zebra": [1.50, null], "b": 1, "apple": {"b": 2, "a": 1}}"#).unwrap();
        assert!(edit(&file, set("b", 2)).unwrap());
        let squeezed: String = std::fs::read_to_string(&file).unwrap().split_whitespace().collect();
        assert_eq!(squeezed, r#"{"zebra":[1.5,null],"b":2,"apple":{"b":2,"a":1}}"#);
        assert_eq!(std::fs::read_dir(folder.path().join("nteract")).unwrap().count(), 2, "it and its lock");
    }

    #[test]
    fn what_somebody_else_writes_meanwhile_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("settings.json");
        std::fs::write(&file, r#"{"theirs": 1}"#).unwrap();
        let calls = Cell::new(0);
        let change = |settings: &mut Map<String, Value>| {
            calls.set(calls.get() + 1);
            if calls.get() == 1 {
                std::fs::write(&file, r#"{"theirs": 2}"#).unwrap();
            }
            set("ours", 3)(settings)
        };
        assert!(edit(&file, change).unwrap());
        assert_eq!(Value::Object(read(&file).unwrap()), serde_json::json!({"theirs": 2, "ours": 3}));
        assert_eq!(calls.get(), 2);

        // What they wrote is no settings, or needs no change any more: it is there all the same.
        for theirs in ["{ half", r#"{"ours": 4}"#] {
            std::fs::write(&file, "{}").unwrap();
            calls.set(0);
            let change = |settings: &mut Map<String, Value>| {
                calls.set(calls.get() + 1);
                if calls.get() == 1 {
                    std::fs::write(&file, theirs).unwrap();
                }
                set("ours", 4)(settings)
            };
            assert!(!edit(&file, change).unwrap_or_default());
            assert_eq!(std::fs::read_to_string(&file).unwrap(), theirs);
        }
    }

    #[test]
    fn what_cannot_be_understood_is_not_touched() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("settings.json");
        for text in ["{\"theme\": ", "[]"] {
            std::fs::write(&file, text).unwrap();
            let error = format!("{:#}", edit(&file, set("b", 1)).unwrap_err());
            assert!(error.contains("The file was not changed."), "{error}");
            assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
        }
    }
}
