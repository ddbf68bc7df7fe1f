//! How the room learns that something happened to its file, or to those of the project around it.
//!
//! For: the [shell](super). Promises: one watch, or one job that looks, for the file the room has now; a project's file
//! that cannot be watched is looked at with the next launch.

use std::path::PathBuf;

use tokio::task::AbortHandle;

use super::{Done, Message, RoomTask};
use crate::watch::{self, Stamp, Watched};

/// How a room learns that something happened to its file.
pub(super) enum Following {
    Watched(#[expect(dead_code, reason = "held, never read: dropping it ends the watch")] Watched),
    Polled(#[expect(dead_code, reason = "held, never read: dropping it ends the job")] Polling),
}

/// The job that looks at a file again and again. Ended when dropped.
pub(super) struct Polling(AbortHandle);

impl Drop for Polling {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl RoomTask {
    /// Follows the notebook's file. Until it can be watched, it is looked at again and again.
    pub(super) fn follow_file(&mut self) {
        let Some(path) = self.core.path().map(ToOwned::to_owned) else { return };
        if matches!(&self.file, Some((own, Following::Watched(_))) if *own == path) {
            return;
        }
        let (watch, inbox, watched) = (self.directory.watch.clone(), self.own_inbox.clone(), path.clone());
        let job = self.jobs.spawn(async move {
            let at = watched.clone();
            let touched = move || {
                // A room that is gone has nobody to tell.
                let _ = inbox.send(Message::FileTouched);
            };
            let result = tokio::task::spawn_blocking(move || watch.watch(&at, touched)).await;
            match result {
                Ok(Ok(guard)) => Done::Watching(watched, guard),
                Ok(Err(error)) => {
                    tracing::debug!(path = %watched.display(), %error, "a notebook's file cannot be watched");
                    let stamp = watch::changed(watched.clone(), None).await;
                    Done::Touched(watched, stamp)
                }
                Err(_) => Done::Nothing,
            }
        });
        self.file = Some((path, Following::Polled(Polling(job))));
    }

    /// Looks at the file again until it is another than `last` time.
    pub(super) fn poll_file(&mut self, path: PathBuf, last: Option<Stamp>) {
        if let Some((own, following @ Following::Polled(_))) = &mut self.file
            && *own == path
        {
            let job = self.jobs.spawn(async move {
                let stamp = watch::changed(path.clone(), last).await;
                Done::Touched(path, stamp)
            });
            *following = Following::Polled(Polling(job));
        }
    }

    /// Follows the files of the project around the notebook, there or not.
    pub(super) fn follow_project(&mut self, files: Vec<PathBuf>) {
        self.project = (files.clone(), Vec::new());
        let (watch, inbox) = (self.directory.watch.clone(), self.own_inbox.clone());
        self.jobs.spawn(async move {
            let watching = tokio::task::spawn_blocking(move || {
                let follow = |file: &PathBuf| {
                    let inbox = inbox.clone();
                    let touched = move || {
                        // A room that is gone has nobody to tell.
                        let _ = inbox.send(Message::ProjectTouched);
                    };
                    let watched = watch.watch(file, touched);
                    watched
                        .inspect_err(|error| tracing::debug!(file = %file.display(), %error, "not watched"))
                        .ok()
                };
                let watched = files.iter().filter_map(follow).collect();
                Done::WatchingProject(files, watched)
            });
            watching.await.unwrap_or(Done::Nothing)
        });
    }
}
