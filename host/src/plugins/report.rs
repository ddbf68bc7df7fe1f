//! The long form of what is wrong with a plugin, in a file for its author.

use std::path::{Path, PathBuf};

/// Folder below the base.
const FOLDER: &str = "plugin-reports";

/// Writes down everything there is to know about the plugin `id`. None if that cannot be done, which is logged.
pub(super) async fn write(base: &Path, id: &str, text: String) -> Option<PathBuf> {
    let folder = base.join(FOLDER);
    let file = folder.join(format!("{id}.txt"));
    let written = async {
        tokio::fs::create_dir_all(&folder).await?;
        tokio::fs::write(&file, text).await
    };
    match written.await {
        Ok(()) => Some(file),
        Err(error) => {
            tracing::warn!(plugin = id, "the report could not be written to `{}`: {error}", file.display());
            None
        }
    }
}
