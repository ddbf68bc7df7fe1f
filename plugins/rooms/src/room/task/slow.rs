//! What takes time: files, blobs, environments, kernels.
//!
//! For: the [shell](super), which goes on meanwhile.
//! Promises: the room never waits; each effect comes back as one event at most, with all that went wrong in it.

use std::sync::Arc;

use futures_util::FutureExt as _;
use runtimed_plugin_api::{Environments, Host, PluginError, Progress, ProgressSink, Release, Task};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::kernels::{Line, run_kernel};
use super::{Done, GRACE, Inbox, Message, RoomTask};
use crate::disk::{self, Announce};
use crate::ids::LaunchId;
use crate::kinds;
use crate::room::event::{Effect, Event};

impl RoomTask {
    /// Starts an effect that takes time.
    pub(super) fn start(&mut self, effect: Effect) {
        let (host, blobs) = (self.host.clone(), self.host.blob_store());
        match effect {
            Effect::Load { path } => {
                let author = self.author.clone();
                self.jobs.spawn(async move {
                    let (result, refused) = match disk::load(path, author, blobs).await {
                        Ok((loaded, refused)) => (Ok(loaded), refused),
                        Err(report) => (Err(report), None),
                    };
                    Done::Read(Event::Loaded(result), refused)
                });
            }
            Effect::FindKernels { launch } => {
                let job = self.job(async move {
                    Event::KernelsFound { launch, installed: kinds::installed(&host).await }
                });
                self.launching = Some((launch, job));
            }
            Effect::Acquire { launch, need, instead_of } => {
                let task = Task::new(Arc::new(Reporter { launch, inbox: self.own_inbox.clone() }));
                let (warm, approvals) = (self.directory.warm.clone(), self.approvals.clone());
                let job = self.jobs.spawn(async move {
                    approvals.settled().await;
                    let result = match environments(&host) {
                        Ok(environments) => {
                            if let Some(lease) = instead_of {
                                give_back(&*environments, &lease, Release::Delete).await;
                            }
                            warm.acquire(&*environments, need, task).await
                        }
                        Err(error) => Err(error),
                    };
                    Done::Environment(launch, result)
                });
                self.launching = Some((launch, job));
            }
            Effect::Launch { launch, spec } => {
                let events = Arc::new(Line { launch, sender: self.kernel_sender.clone() });
                let (warm, launching) = (self.warm.take(), self.directory.warm.launching());
                let job = self.jobs.spawn(async move {
                    Done::Kernel(launch, run_kernel(&host, *spec, warm, events, &launching).await)
                });
                self.launching = Some((launch, job));
            }
            Effect::Release { lease, how } => {
                self.jobs.spawn(async move {
                    if let Ok(environments) = environments(&host) {
                        give_back(&*environments, &lease, how).await;
                    }
                    Done::Nothing
                });
            }
            Effect::Interrupt { launch } => {
                let Some(kernel) = self.kernels.get(&launch).cloned() else { return };
                self.jobs.spawn(async move {
                    if let Err(error) = kernel.interrupt().await {
                        tracing::warn!(%error, "a kernel was not interrupted");
                    }
                    Done::Nothing
                });
            }
            Effect::Stop { launch } => {
                let kernel = self.kernels.remove(&launch);
                self.job(async move {
                    if let Some(kernel) = kernel
                        && let Err(error) = kernel.shutdown(GRACE).await
                    {
                        tracing::warn!(%error, "a kernel did not end as asked");
                    }
                    Event::KernelStopped { launch }
                });
            }
            Effect::StoreBlobs { job, blobs: new } => {
                self.jobs.spawn(async move {
                    Done::Stored(Some(job), disk::store_blobs(blobs.as_deref(), new).await)
                });
            }
            Effect::ReadBlobs { job, digests } => {
                let blobs = self.all_blobs();
                self.job(async move {
                    Event::BlobsRead { job, blobs: disk::read_blobs(blobs.as_deref(), digests).await }
                });
            }
            Effect::PutBlob { job, bytes, media_type } => {
                self.job(async move {
                    let result = match blobs {
                        Some(blobs) => blobs.put(bytes, &media_type).await,
                        None => Err(no_blob_store()),
                    };
                    Event::BlobPut { job, result }
                });
            }
            Effect::BeginUpload { job, upload, lifetime } => {
                let staging = self.directory.staging.clone();
                self.jobs.spawn(async move {
                    let staged = staging.begin().await;
                    Done::Upload(job, upload, staged.map(|staged| (staged, disk::later(lifetime))))
                });
            }
            Effect::StagePart { job, upload, at, bytes } => {
                let staged = self.uploads.get(&upload).cloned();
                self.job(async move {
                    let result = match staged {
                        Some(staged) => staged.stage(at, bytes).await,
                        None => Err(PluginError::internal("The upload is gone")),
                    };
                    Event::PartStaged { job, result }
                });
            }
            Effect::StoreUpload { job, upload, pieces, media_type } => {
                let staged = self.uploads.get(&upload).cloned();
                self.job(async move {
                    let result = match (staged, blobs) {
                        (Some(staged), Some(blobs)) => staged.store(pieces, &media_type, blobs).await,
                        (None, _) => Err(PluginError::internal("The upload is gone")),
                        (_, None) => Err(no_blob_store()),
                    };
                    Event::BlobPut { job, result }
                });
            }
            Effect::Clone { job, source } => {
                let directory = self.directory.clone();
                self.job(async move { Event::Cloned { job, result: directory.copy(source).await } });
            }
            Effect::Trust { job, need, approve } => {
                let approval = approve.then(|| self.approvals.begin());
                self.job(async move {
                    let _approval = approval;
                    let result = match environments(&host) {
                        Ok(environments) if approve => environments.approve(need).await,
                        Ok(environments) => environments.trust(need).await,
                        Err(error) => Err(error),
                    };
                    Event::Trust { job, result }
                });
            }
            Effect::WatchProject { files } => self.follow_project(files),
            Effect::Install { job, lease, packages } => {
                self.job(async move {
                    let result = match environments(&host) {
                        Ok(environments) => environments.install(&lease, packages, Task::silent()).await,
                        Err(error) => Err(error),
                    };
                    Event::Installed { job, result }
                });
            }
            Effect::Save { job, plan } => {
                let (directory, room) = (self.directory.clone(), self.own_inbox.clone());
                let blobs = self.all_blobs();
                let announce: Announce = Box::new(move |digest| {
                    let (go, gone) = oneshot::channel();
                    // A room that ends by a panic takes no message; what it wrote last is written all the same.
                    let _ = room.send(Message::Writing { job, digest, go });
                    gone.map(drop).boxed()
                });
                self.job(async move {
                    Event::Saved { job, result: directory.save(*plan, blobs, announce).await }
                });
            }
            Effect::Look { job, path, known } => {
                let room = self.author.room;
                self.jobs.spawn(async move {
                    let (seen, refused) = disk::look(path, room, known, blobs).await;
                    Done::Read(Event::Looked { job, seen }, refused)
                });
            }
            Effect::Record(mut record) => {
                let records = self.records.clone();
                self.jobs.spawn_blocking(move || {
                    record.created_at = disk::now();
                    record.updated_at.clone_from(&record.created_at);
                    if let Err(error) = records.write(&record) {
                        tracing::warn!(%error, "the record of an execution was not kept");
                    }
                    Done::Nothing
                });
            }
            // Carried out at once, in `perform`.
            Effect::Journal { .. }
            | Effect::Acknowledge { .. }
            | Effect::Send { .. }
            | Effect::Grant { .. }
            | Effect::Close { .. }
            | Effect::Say { .. }
            | Effect::CancelLaunch { .. }
            | Effect::EndUpload { .. }
            | Effect::Forget
            | Effect::Dissolve => {}
        }
    }

    pub(super) fn job(&mut self, work: impl Future<Output = Event> + Send + 'static) -> AbortHandle {
        self.jobs.spawn(async move { Done::Event(work.await) })
    }
}

fn no_blob_store() -> PluginError {
    PluginError::unavailable("There is no blob store")
}

async fn give_back(environments: &dyn Environments, lease: &str, how: Release) {
    if let Err(error) = environments.release(lease, how).await {
        tracing::warn!(%error, lease, "an environment was not given back");
    }
}

fn environments(host: &Host) -> Result<Arc<dyn Environments>, PluginError> {
    host.environments().ok_or_else(|| PluginError::unavailable("This daemon has no environments"))
}

/// Reports progress to the room.
struct Reporter {
    launch: LaunchId,
    inbox: Inbox,
}

impl ProgressSink for Reporter {
    fn progress(&self, progress: Progress) {
        // A room that is gone has nobody to show it to.
        let _ = self.inbox.send(Message::Progress { launch: self.launch, progress });
    }
}
