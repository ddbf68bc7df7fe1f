//! Results of executions on disk.
//!
//! For: answering for an execution after its room is gone, and giving outputs back after a restart.
//! Promises: a record is replaced whole or not at all; an id never leads out of the folder.
//! Never: the bytes of a blob.

use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;

use runtimed_plugin_api::Host;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::journal::folder::files_in;

/// Version in [`ExecutionRecord::schema_version`].
const SCHEMA: u64 = 1;

/// What became of one execution. Clients read this form.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ExecutionRecord {
    /// 1.
    pub(crate) schema_version: u64,
    /// UUID.
    pub(crate) execution_id: String,
    /// `notebook`.
    pub(crate) context_kind: String,
    /// Absolute path of the notebook, or UUID of the room if it has no file.
    pub(crate) context_id: String,
    /// Absolute path of the notebook.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) notebook_path: Option<String>,
    /// Cell of origin. Records of the reference daemon lack it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cell_id: Option<String>,
    /// `done`, `error` or `cancelled`.
    pub(crate) status: String,
    /// Absent for `cancelled`.
    #[serde(default)]
    pub(crate) success: Option<bool>,
    /// The kernel's count.
    #[serde(default)]
    pub(crate) execution_count: Option<i64>,
    /// The text that ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) source: Option<String>,
    /// Place in the room's queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) seq: Option<u64>,
    /// Who asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) submitted_by_actor_label: Option<String>,
    /// Manifests, in order.
    #[serde(default)]
    pub(crate) outputs: Vec<Json>,
    /// RFC 3339.
    pub(crate) created_at: String,
    /// RFC 3339.
    pub(crate) updated_at: String,
}

impl ExecutionRecord {
    /// A record of `execution_id` in the notebook `context_id`, first written at `now`, to be filled in.
    pub(crate) fn new(execution_id: &str, context_id: &str, now: &str) -> Self {
        Self {
            schema_version: SCHEMA,
            execution_id: execution_id.to_owned(),
            context_kind: "notebook".to_owned(),
            context_id: context_id.to_owned(),
            notebook_path: None,
            cell_id: None,
            status: String::new(),
            success: None,
            execution_count: None,
            source: None,
            seq: None,
            submitted_by_actor_label: None,
            outputs: Vec::new(),
            created_at: now.to_owned(),
            updated_at: now.to_owned(),
        }
    }

    fn says_the_same_as(&self, other: &Self) -> bool {
        let dates = (self.created_at.clone(), self.updated_at.clone());
        let (created_at, updated_at) = dates;
        *self == Self { created_at, updated_at, ..other.clone() }
    }
}

/// The folder of records, one file for each execution.
#[derive(Debug, Clone)]
pub(crate) struct RecordStore {
    folder: PathBuf,
}

impl RecordStore {
    /// The store in `folder`, which need not exist yet.
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The daemon's.
    pub(crate) fn of(host: &Host) -> Self {
        Self::new(host.directories().executions)
    }

    /// Writes `record`. One that is there keeps the time of its creation, and its file if nothing changed.
    ///
    /// # Errors
    /// `InvalidInput` for an id that is no file name; what the file system says.
    pub(crate) fn write(&self, record: &ExecutionRecord) -> io::Result<()> {
        let path = self.path(&record.execution_id).ok_or_else(|| {
            let text = format!("`{}` is not an execution id", record.execution_id);
            io::Error::new(io::ErrorKind::InvalidInput, text)
        })?;
        let mut record = record.clone();
        if let Some(before) = self.read(&record.execution_id)? {
            if before.says_the_same_as(&record) {
                return Ok(());
            }
            record.created_at = before.created_at;
        }
        fs::create_dir_all(&self.folder)?;
        let prefix = format!("{}.", record.execution_id);
        let mut file = tempfile::Builder::new().prefix(&prefix).suffix(".tmp").tempfile_in(&self.folder)?;
        file.write_all(&serde_json::to_vec_pretty(&record)?)?;
        file.persist(path)?;
        Ok(())
    }

    /// The record of an execution; none if there is none, if its id cannot be one or if its file is damaged.
    ///
    /// # Errors
    /// What the file system says, except that there is no such file.
    pub(crate) fn read(&self, execution_id: &str) -> io::Result<Option<ExecutionRecord>> {
        let Some(path) = self.path(execution_id) else { return Ok(None) };
        match fs::read(&path) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes)
                .inspect_err(|error| tracing::warn!(path = %path.display(), %error, "a damaged execution record is ignored"))
                .ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The file of every record, in no particular order; those included that a killed daemon did not finish.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn files(&self) -> io::Result<Vec<PathBuf>> {
        let files = files_in(&self.folder)?.into_iter();
        Ok(files.filter(|path| path.extension().is_some_and(|it| it == "json" || it == "tmp")).collect())
    }

    /// Where the record of `execution_id` lies. None for ids outside `[A-Za-z0-9_-]`.
    fn path(&self, execution_id: &str) -> Option<PathBuf> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        let valid = !execution_id.is_empty() && execution_id.bytes().all(allowed);
        valid.then(|| self.folder.join(format!("{execution_id}.json")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &[u8] = include_bytes!("../tests/data/execution_record.json");

    fn sample() -> ExecutionRecord {
        serde_json::from_slice(SAMPLE).expect("the sample is a record")
    }

    #[test]
    fn a_record_of_the_reference_daemon_is_read_and_written_alike() {
        let written = serde_json::to_vec_pretty(&sample()).expect("JSON");
        assert_eq!(String::from_utf8_lossy(&written), String::from_utf8_lossy(SAMPLE).trim_end());
    }

    #[test]
    fn records_are_found_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = RecordStore::new(folder.path().join("executions"));
        let record = ExecutionRecord { cell_id: Some("c".to_owned()), ..sample() };
        assert_eq!(store.read(&record.execution_id).expect("no error"), None);
        assert_eq!(store.files().expect("a folder").len(), 0);
        store.write(&record).expect("written");
        assert_eq!(store.read(&record.execution_id).expect("no error"), Some(record.clone()));
        assert_eq!(store.files().expect("a folder").len(), 1);
    }

    #[test]
    fn a_change_keeps_the_time_of_creation_and_no_change_keeps_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = RecordStore::new(folder.path().to_owned());
        let record = sample();
        store.write(&record).expect("written");
        let later = ExecutionRecord {
            created_at: "later".to_owned(),
            updated_at: "later".to_owned(),
            ..record.clone()
        };
        store.write(&later).expect("skipped");
        assert_eq!(store.read(&record.execution_id).expect("no error"), Some(record.clone()));
        store.write(&ExecutionRecord { status: "done".to_owned(), ..later }).expect("written");
        let changed = store.read(&record.execution_id).expect("no error").expect("a record");
        assert_eq!((changed.created_at, changed.updated_at), (record.created_at, "later".to_owned()));
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1, "no temporary file stays");
    }

    #[test]
    fn ids_stay_in_the_folder_and_damage_stays_local() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = RecordStore::new(folder.path().to_owned());
        for id in ["", "../x", "a/b", "a.b", "é"] {
            assert_eq!(store.read(id).expect("no error"), None, "{id}");
            let record = ExecutionRecord { execution_id: id.to_owned(), ..sample() };
            assert_eq!(store.write(&record).map_err(|error| error.kind()), Err(io::ErrorKind::InvalidInput));
        }
        fs::write(folder.path().join("torn.json"), b"{").expect("written");
        assert_eq!(store.read("torn").expect("no error"), None);
    }
}
