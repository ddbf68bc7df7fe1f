//! What the daemon remembers of plugins that took it down.
//!
//! For: forgiving a plugin, and telling what is remembered, while the daemon is not there to do so.
//! Never: reads or writes while a daemon runs, which has its own idea of these files.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use serde::Deserialize;

/// Folder below the daemon's base with a file for each plugin, named like it.
const RECORDS: &str = "plugin-loading";
/// File below the base in which a dying daemon noted whose code it was running: cause, time, id and hash in one
/// line, with a blank between them.
const NOTE: &str = "plugin-crash";
/// Word of the note that is the plugin's id.
const NOTE_ID: usize = 2;

/// The part of a record that is shown.
#[derive(Deserialize)]
struct Record {
    /// It was being loaded when the daemon ended.
    loading: bool,
    /// Lives in a row that ended without a word while it was being loaded.
    deaths: u32,
    /// What its code was doing when a life ended: `SIGSEGV`, `exit`.
    cause: Option<String>,
}

/// What is remembered, as one sentence for each plugin with its id.
pub(crate) fn remembered(base: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    if let Some((cause, id)) = note(base) {
        found.push((id.clone(), format!("the daemon's last life ended with {cause} in `{id}`")));
    }
    for entry in fs::read_dir(base.join(RECORDS)).into_iter().flatten().flatten() {
        let record =
            fs::read(entry.path()).ok().and_then(|text| serde_json::from_slice::<Record>(&text).ok());
        let (Some(Record { loading, deaths, cause }), Ok(id)) = (record, entry.file_name().into_string())
        else {
            continue;
        };
        let sentence = match cause {
            _ if found.iter().any(|(told, _)| *told == id) => continue,
            Some(cause) => format!("a life of the daemon ended with {cause} in `{id}`"),
            None if deaths + u32::from(loading) > 1 => {
                format!("lives of the daemon ended again and again while `{id}` was being loaded")
            }
            // Once may be a power cut.
            None => continue,
        };
        found.push((id, sentence));
    }
    found
}

/// Forgets what a plugin did. Whether there was anything.
///
/// # Errors
/// Those of the file system.
pub(crate) fn forgive(base: &Path, id: &str) -> io::Result<bool> {
    let noted = note(base).is_some_and(|(_, noted)| noted == id);
    if noted {
        fs::write(base.join(NOTE), "")?;
    }
    match fs::remove_file(base.join(RECORDS).join(id)) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(noted),
        Err(error) => Err(error),
    }
}

/// Cause and plugin of the last sudden death.
fn note(base: &Path) -> Option<(String, String)> {
    let note = fs::read_to_string(base.join(NOTE)).ok()?;
    let mut words = note.lines().next()?.split(' ');
    let cause = words.next()?.to_owned();
    let id = words.nth(NOTE_ID - 1)?;
    (!id.is_empty()).then(|| (cause, id.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_forgiven_is_forgotten() {
        let base = tempfile::tempdir().unwrap();
        let base = base.path();
        assert!(remembered(base).is_empty());
        assert!(!forgive(base, "a").unwrap());
        fs::create_dir(base.join(RECORDS)).unwrap();
        let record = |id: &str, text: &str| fs::write(base.join(RECORDS).join(id), text).unwrap();
        record("a", r#"{"sha256": "00", "loading": false, "deaths": 0, "cause": "SIGSEGV", "at": 1}"#);
        record("b", r#"{"sha256": "00", "loading": true, "deaths": 0, "cause": null, "at": 1}"#);
        record("c", r#"{"sha256": "00", "loading": true, "deaths": 1, "cause": null, "at": 1}"#);
        record("d", "{");
        fs::write(base.join(NOTE), "exit 1700000000 org.example.x 00ff").unwrap();
        let ids =
            || remembered(base).into_iter().map(|(id, _)| id).collect::<std::collections::BTreeSet<_>>();
        assert_eq!(ids(), ["a", "c", "org.example.x"].map(str::to_owned).into());
        for id in ["a", "c", "org.example.x"] {
            assert!(forgive(base, id).unwrap());
        }
        assert!(ids().is_empty());
        fs::write(base.join(NOTE), "SIGSEGV 1700000000 ").unwrap();
        assert!(ids().is_empty(), "outside of any plugin");
    }
}
