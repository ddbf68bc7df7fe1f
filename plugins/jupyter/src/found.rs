//! Kernels that are there without this daemon having launched them, and what is left of those that are gone.
//!
//! Promises: a kernel is found by its record and is what its shim says it is; of a shim that is gone nothing is left
//! behind; only processes whose number and start time are both on record are killed.
//! Relies on: the host lets one daemon at a time use its runtime directory.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use runtimed_kernel_shim::protocol::{
    Adopt, Attach, Attached, PROTOCOL, Refused, State, document, from_shim, to_shim,
};
use runtimed_kernel_shim::record::Record;
use runtimed_plugin_api::{ErrorCode, KernelRecord, LaunchSpec, PluginError, Result, Sequence};
use serde::Deserialize;
use tokio::time::timeout;

use crate::folder;
use crate::kind::move_to;
use crate::launch::{cwd, label, lost};
use crate::link::Link;

/// How long a shim may take to answer. It waits for nothing, so only a machine that stands still needs longer.
const ANSWER: Duration = Duration::from_secs(5);

/// What we wrote into the record.
#[derive(Debug, Deserialize)]
struct Label {
    spec: LaunchSpec,
}

/// A kernel whose shim answers.
struct Found {
    folder: PathBuf,
    record: Record,
    link: Link,
    state: State,
}

/// The kernels that can be attached to, those included whose end nobody has heard of yet.
pub(crate) async fn running(runtime: &Path) -> Vec<KernelRecord> {
    let mut kernels = Vec::new();
    for found in all(runtime).await {
        let Ok(Label { spec }) = serde_json::from_value(found.record.label) else { continue };
        if matches!(found.state, State::Running | State::Ended) {
            kernels.push(KernelRecord { spec, pid: Some(found.record.process.pid), lease: None });
        }
    }
    kernels
}

/// Takes over the kernel with the id `kernel`; what it said after `after` follows.
///
/// # Errors
/// `NotFound` when there is no such kernel, `Unavailable` when its shim is lost meanwhile.
pub(crate) async fn attach(
    runtime: &Path,
    kernel: &str,
    after: Sequence,
) -> Result<(Attached, Link, PathBuf)> {
    let found = all(runtime).await.into_iter();
    let mut found = found.filter(|it| it.record.kernel == kernel && it.state != State::Starting);
    let Some(Found { folder, mut link, .. }) = found.next() else {
        return Err(PluginError::not_found(format!("kernel {kernel} is not running")));
    };
    link.writer.send(&document(to_shim::ATTACH, &Attach { after })).await.map_err(lost)?;
    let attached = timeout(ANSWER, link.reader.expect(from_shim::ATTACHED)).await;
    let attached = attached.map_err(|late| lost(late.into()))?.map_err(lost)?;
    Ok((attached.document().map_err(lost)?, link, folder))
}

/// Makes the kernel with the id `warm`, which is up and which nobody has made use of yet, the one that `spec` describes;
/// what it says from now on follows. From now on it ends with this connection, until it is made use of.
///
/// # Errors
/// `NotFound` when there is no such kernel; `Conflict` when it was started in another way or is somebody's;
/// `Unavailable` when its shim is lost meanwhile. It stays whose it was.
pub(crate) async fn adopt(
    runtime: &Path,
    warm: &str,
    spec: &LaunchSpec,
) -> Result<(Attached, Link, PathBuf)> {
    let adopt = Adopt { kernel: spec.kernel.clone(), preparation: move_to(cwd(spec))?, label: label(spec) };
    let not_found = || PluginError::not_found(format!("kernel {warm} is not warm"));
    let named = |folder: &PathBuf| Record::read(folder).is_ok_and(|record| record.kernel == warm);
    let folder = folder::all(runtime).into_iter().find(named).ok_or_else(not_found)?;
    let Found { record, mut link, .. } = look(&folder).await.ok_or_else(not_found)?;
    let conflict = |why: &str| PluginError::new(ErrorCode::Conflict, format!("kernel {warm}: {why}"));
    let Label { spec: started } = serde_json::from_value(record.label).map_err(|_| not_found())?;
    if (&started.kind, &started.command) != (&spec.kind, &spec.command) {
        return Err(conflict("it was started in another way"));
    }
    let answer = async {
        link.writer.send(&document(to_shim::ADOPT, &adopt)).await?;
        loop {
            let frame = link.reader.next().await?.ok_or(ErrorKind::UnexpectedEof)?;
            match frame.kind {
                from_shim::ADOPTED => return Ok::<_, io::Error>(Ok(frame.document()?)),
                from_shim::REFUSED => return Ok(Err(frame.document::<Refused>()?.message)),
                from_shim::UNSUPPORTED => return Ok(Err("its shim is an older one".to_owned())),
                _ => {}
            }
        }
    };
    let answer = timeout(ANSWER, answer).await.map_err(|late| lost(late.into()))?;
    let adopted = answer.map_err(lost)?.map_err(|why| conflict(&why))?;
    Ok((adopted, link, folder))
}

/// Cleans up those of `folders` whose shim is gone, or whose record cannot be read: nobody would find that kernel again.
pub(crate) async fn clean(folders: Vec<PathBuf>) {
    for folder in folders {
        // Anything else may pass, and the kernel may be in the middle of somebody's work.
        let damaged = Record::read(&folder).is_err_and(|error| {
            matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof | ErrorKind::NotFound)
        });
        if damaged && timeout(ANSWER, end(&folder)).await.is_ok_and(|ended| ended.is_ok()) {
            tracing::error!(folder = %folder.display(), "a kernel was ended, because its record cannot be read");
        }
        if damaged || is_orphan(&folder) {
            bury(folder).await;
        }
    }
}

/// Ends the kernel whose shim listens in `folder`, and waits until the shim is gone as well.
async fn end(folder: &Path) -> io::Result<()> {
    let (mut link, _) = Link::connect(folder).await?;
    link.writer.send(&document(to_shim::END, &())).await?;
    while link.reader.next().await?.is_some() {}
    Ok(())
}

async fn all(runtime: &Path) -> Vec<Found> {
    let mut all = Vec::new();
    for folder in folder::all(runtime) {
        match look(&folder).await {
            Some(found) => all.push(found),
            // Without a record it may be one that is being started.
            None if is_orphan(&folder) => bury(folder).await,
            None => {}
        }
    }
    all
}

/// Whether `folder` is one of a kernel whose shim is gone.
fn is_orphan(folder: &Path) -> bool {
    Record::read(folder).is_ok_and(|record| !record.shim.is_alive())
}

/// The kernel in `folder`, if its shim answers.
async fn look(folder: &Path) -> Option<Found> {
    let record = Record::read(folder).ok()?;
    let (link, welcome) = timeout(ANSWER, Link::connect(folder)).await.ok()?.ok()?;
    if welcome.protocol != PROTOCOL {
        tracing::warn!(
            protocol = welcome.protocol,
            kernel = record.kernel,
            "a kernel speaks to another daemon"
        );
        return None;
    }
    Some(Found { folder: folder.to_owned(), record, link, state: welcome.state })
}

/// Ends what is left of a kernel whose shim is gone or does not answer, and deletes its folder.
pub(crate) async fn bury(folder: PathBuf) {
    let job = move || {
        if !folder.exists() {
            return;
        }
        if let Ok(record) = Record::read(&folder) {
            record.shim.kill();
            record.process.kill();
        }
        if let Err(error) = std::fs::remove_dir_all(&folder)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(folder = %folder.display(), %error, "could not delete a kernel's folder");
        }
    };
    if let Err(error) = tokio::task::spawn_blocking(job).await {
        tracing::warn!(%error, "could not clean up after a kernel");
    }
}
