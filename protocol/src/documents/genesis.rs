//! The first change of each document, the same everywhere.
//!
//! For: starting a document. Clients start from the same change, so that the maps it makes are the
//! same objects for everyone.
//! Promises: the hashes below, for every version of this crate; the tests hold it to that.
//! Never: a later write by the actor of a genesis.

use std::sync::OnceLock;

use automerge::transaction::{CommitOptions, Transactable};
use automerge::{ActorId, AutoCommit, AutomergeError, ObjId, ObjType, ROOT, ScalarValue};

/// Hash of the change that starts a notebook document.
pub const NOTEBOOK: &str = "5cb837a3e10c24a4107f4bf04260c35621ad8f003ec7fbcbe63407028a22f33b";
/// Hash of the change that starts a runtime state document.
pub const RUNTIME_STATE: &str = "4aa226b3047f50f85b5b74ab8f395220bacea6cec9d8a1ed9a5649f15edc2649";
/// Hash of the change that starts a comms document.
pub const COMMS: &str = "59e6107683328412635b4c868124e9c4014704de086aef822a58c07d85153a57";
/// Hash of the change that starts a comments document.
pub const COMMENTS: &str = "4bd008133860dda10c7f06c8bfac8c1ac87b0dc30fee44fcbe3087bf4ffe2bd1";

/// All genesis changes by hash, for checks on what a peer sends.
pub const ALL: [&str; 4] = [NOTEBOOK, RUNTIME_STATE, COMMS, COMMENTS];

/// Version in `schema_version` of a notebook document.
pub const NOTEBOOK_SCHEMA: u64 = 5;

/// A notebook document that holds its genesis, ready for `actor`.
pub(super) fn notebook(actor: &str) -> Result<AutoCommit, AutomergeError> {
    static MADE: OnceLock<AutoCommit> = OnceLock::new();
    build(&MADE, "nteract:notebook-schema:v5", "Seed nteract notebook schema", actor, |doc| {
        doc.put(ROOT, "schema_version", ScalarValue::Uint(NOTEBOOK_SCHEMA))?;
        doc.put_object(ROOT, "cells", ObjType::Map)?;
        doc.put_object(ROOT, "metadata", ObjType::Map)?;
        Ok(())
    })
}

/// A comms document that holds its genesis, ready for `actor`.
pub(super) fn comms(actor: &str) -> Result<AutoCommit, AutomergeError> {
    static MADE: OnceLock<AutoCommit> = OnceLock::new();
    build(&MADE, "nteract:comms-doc-schema:v1", "Seed nteract comms doc schema", actor, |doc| {
        doc.put(ROOT, "schema_version", ScalarValue::Uint(1))?;
        doc.put_object(ROOT, "comms", ObjType::Map)?;
        Ok(())
    })
}

/// A comments document that holds its genesis, ready for `actor`.
pub(super) fn comments(actor: &str) -> Result<AutoCommit, AutomergeError> {
    static MADE: OnceLock<AutoCommit> = OnceLock::new();
    build(&MADE, "nteract:comments-doc-schema:v1", "Seed nteract comments doc schema", actor, |doc| {
        doc.put(ROOT, "schema_version", ScalarValue::Uint(1))?;
        doc.put(ROOT, "comments_doc_id", "")?;
        doc.put_object(ROOT, "notebook_ref", ObjType::Map)?;
        doc.put_object(ROOT, "threads", ObjType::Map)?;
        Ok(())
    })
}

/// A runtime state document that holds its genesis, ready for `actor`. The order of the writes counts.
pub(super) fn runtime_state(actor: &str) -> Result<AutoCommit, AutomergeError> {
    static MADE: OnceLock<AutoCommit> = OnceLock::new();
    build(&MADE, "nteract:runtime-state-schema:v2", "Seed nteract runtime state schema", actor, |doc| {
        doc.put(ROOT, "schema_version", ScalarValue::Uint(2))?;
        let kernel = doc.put_object(ROOT, "kernel", ObjType::Map)?;
        strings(doc, &kernel, &["name", "language", "env_source", "runtime_agent_id"])?;
        doc.put(&kernel, "lifecycle", "NotStarted")?;
        strings(doc, &kernel, &["activity", "error_reason", "error_details"])?;
        let queue = doc.put_object(ROOT, "queue", ObjType::Map)?;
        doc.put(&queue, "executing_execution_id", ScalarValue::Null)?;
        lists(doc, &queue, &["queued_execution_ids"])?;
        doc.put_object(ROOT, "executions", ObjType::Map)?;
        let env = doc.put_object(ROOT, "env", ObjType::Map)?;
        doc.put(&env, "in_sync", true)?;
        lists(doc, &env, &["added", "removed"])?;
        doc.put(&env, "channels_changed", false)?;
        doc.put(&env, "deno_changed", false)?;
        lists(doc, &env, &["prewarmed_packages"])?;
        doc.put(&env, "progress", ScalarValue::Null)?;
        let trust = doc.put_object(ROOT, "trust", ObjType::Map)?;
        doc.put(&trust, "status", "no_dependencies")?;
        doc.put(&trust, "needs_approval", false)?;
        lists(
            doc,
            &trust,
            &[
                "approved_uv_dependencies",
                "approved_conda_dependencies",
                "approved_conda_channels",
                "approved_pixi_dependencies",
                "approved_pixi_pypi_dependencies",
                "approved_pixi_channels",
            ],
        )?;
        let context = doc.put_object(ROOT, "project_context", ObjType::Map)?;
        doc.put(&context, "state", "pending")?;
        strings(
            doc,
            &context,
            &[
                "observed_at",
                "kind",
                "absolute_path",
                "relative_to_notebook",
                "unreadable_path",
                "unreadable_reason",
            ],
        )?;
        let parsed = doc.put_object(&context, "parsed", ObjType::Map)?;
        lists(doc, &parsed, &["dependencies", "dev_dependencies"])?;
        doc.put(&parsed, "requires_python", ScalarValue::Null)?;
        doc.put(&parsed, "prerelease", ScalarValue::Null)?;
        strings(doc, &parsed, &["extras"])?;
        doc.put_object(ROOT, "comms", ObjType::Map)?;
        doc.put_object(ROOT, "display_index", ObjType::Map)?;
        doc.put(ROOT, "last_saved", ScalarValue::Null)?;
        doc.put(ROOT, "path", ScalarValue::Null)
    })
}

/// Makes a genesis once; every further document is a copy.
fn build(
    made: &'static OnceLock<AutoCommit>,
    author: &str,
    message: &str,
    actor: &str,
    write: impl FnOnce(&mut AutoCommit) -> Result<(), AutomergeError>,
) -> Result<AutoCommit, AutomergeError> {
    let mut document = match made.get() {
        Some(made) => made.clone(),
        None => {
            let mut document = AutoCommit::new().with_actor(ActorId::from(author.as_bytes()));
            write(&mut document)?;
            document.commit_with(CommitOptions::default().with_message(message).with_time(0));
            made.get_or_init(|| document).clone()
        }
    };
    document.set_actor(ActorId::from(actor.as_bytes()));
    Ok(document)
}

fn strings(doc: &mut AutoCommit, object: &ObjId, keys: &[&str]) -> Result<(), AutomergeError> {
    keys.iter().try_for_each(|key| doc.put(object, *key, ""))
}

fn lists(doc: &mut AutoCommit, object: &ObjId, keys: &[&str]) -> Result<(), AutomergeError> {
    keys.iter().try_for_each(|key| doc.put_object(object, *key, ObjType::List).map(drop))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_genesis_has_the_hash_that_clients_know() -> Result<(), AutomergeError> {
        for (document, hash) in [
            (notebook("a")?, NOTEBOOK),
            (runtime_state("a")?, RUNTIME_STATE),
            (comms("a")?, COMMS),
            (comments("a")?, COMMENTS),
        ] {
            let mut document = document;
            assert_eq!(document.get_heads().iter().map(ToString::to_string).collect::<Vec<_>>(), [hash]);
        }
        Ok(())
    }
}
