//! Compiled Python modules of one environment, for its copy.
//!
//! Promises: Python checks a compiled module against its source, so one that does not fit is only useless.

use std::fs;
use std::path::Path;

/// The folder beside modules that holds the compiled ones.
const FOLDER: &str = "__pycache__";

/// Links compiled modules below `from` to the same place below `to`, where folders of that name are. The sources are
/// the same files in both, linked from one cache.
pub(crate) fn share(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).into_iter().flatten().flatten() {
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        // Links lead out of the environment.
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() && (target.is_dir() || entry.file_name() == FOLDER) {
            if entry.file_name() == FOLDER {
                // Without them Python compiles again.
                let _ = fs::create_dir(&target);
            }
            share(&source, &target);
        } else if kind.is_file() && from.file_name().is_some_and(|name| name == FOLDER) {
            let _ = fs::hard_link(&source, &target);
        }
    }
}
