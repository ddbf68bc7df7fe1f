//! Keeps what environments take on disk within bounds.
//!
//! For: the daemon's background, and the questions of `runt env`.
//! Promises: what a room or a process uses is asked for before anything goes; if the rooms do not answer, nothing goes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use runtimed_plugin_api::{ErrorCode, PluginError, Result, RoomReply, RoomRequest};
use runtimed_protocol::environments::{EnvironmentList, EnvironmentsCleaned};
use tokio::time::sleep;

use crate::daemon::Daemon;

/// Until the first collection: a daemon that has just started has other things to do (environments contract, 2.10).
const FIRST: Duration = Duration::from_secs(60);
/// Between collections (section 2.10).
const EVERY: Duration = Duration::from_secs(30 * 60);

impl Daemon {
    /// Prefixes that rooms or clients have, or run in.
    ///
    /// # Errors
    /// When the rooms do not answer.
    pub async fn environments_in_use(&self) -> Result<BTreeSet<PathBuf>> {
        let mut paths: BTreeSet<_> =
            self.environments.leased().into_iter().chain(self.pools.leased()).collect();
        if self.registry().await?.rooms().is_some() {
            match self.ask_rooms(RoomRequest::ActiveEnvironments).await? {
                RoomReply::ActiveEnvironments { paths: active } => paths.extend(active),
                _ => return Err(PluginError::internal("the rooms answered something else")),
            }
        }
        Ok(paths)
    }

    /// Every environment on disk.
    ///
    /// # Errors
    /// When the rooms do not answer.
    pub async fn list_environments(&self) -> Result<EnvironmentList> {
        let survey = self.environments.survey(self.environments_in_use().await?, true).await?;
        Ok(survey.list()?)
    }

    /// Deletes environments that nobody uses and that are old or too many; with `all`, however new they are.
    ///
    /// # Errors
    /// When the rooms do not answer; nothing is deleted then.
    pub async fn clean_environments(&self, dry_run: bool, all: bool) -> Result<EnvironmentsCleaned> {
        self.clean_surveyed(dry_run, all, true).await
    }

    async fn clean_surveyed(&self, dry_run: bool, all: bool, fresh: bool) -> Result<EnvironmentsCleaned> {
        let survey = self.environments.survey(self.environments_in_use().await?, fresh).await?;
        Ok(self.environments.clean(survey, dry_run, all).await)
    }

    /// Builds anew what the pools, or the pool of the kind `what`, keep ready; or the environment at the path `what`, which
    /// is deleted if it is not a pool's. Returns what is built anew.
    ///
    /// # Errors
    /// `NotFound` for something else, `Conflict` for an environment that is in use; nothing is changed then.
    pub async fn rebuild_environments(&self, what: Option<&str>) -> Result<Vec<String>> {
        match what {
            None => {
                self.pools.flush();
                self.tell_rooms_of_a_flush().await;
                Ok(self.pools.kinds())
            }
            Some(path) if Path::new(path).is_absolute() => {
                self.rebuild_one(Path::new(path)).await?;
                Ok(vec![path.to_owned()])
            }
            Some(kind) if self.pools.flush_kind(kind) => {
                self.tell_rooms_of_a_flush().await;
                Ok(vec![kind.to_owned()])
            }
            Some(kind) => Err(PluginError::not_found(format!(
                "There is no pool `{kind}`. Nothing was changed."
            ))
            .help(format!(
                "There are: {}. Or name an environment's whole path.",
                self.pools.kinds().join(", ")
            ))),
        }
    }

    async fn rebuild_one(&self, path: &Path) -> Result<()> {
        let in_use = |why: &str| {
            let text = format!("`{}` was kept: {why}. Nothing was changed.", path.display());
            PluginError::new(ErrorCode::Conflict, text)
                .help("Shut down what uses it (`runt notebooks`), then try again. One that a notebook keeps is made anew by itself when it is broken.")
        };
        if self.environments_in_use().await?.contains(path) {
            return Err(in_use("a notebook has it"));
        }
        if self.pools.replace(path) {
            return Ok(());
        }
        match self.environments.remove_unused(path).await? {
            None => Ok(()),
            Some(why) => Err(in_use(why)),
        }
    }

    /// Tells the rooms that spare kernels of theirs are of no use any more.
    pub async fn tell_rooms_of_a_flush(&self) {
        if let Err(error) = self.ask_rooms(RoomRequest::Flush).await {
            // Of what they have, nothing is given to a notebook any more.
            tracing::info!(%error, "rooms were not told that the pools are empty");
        }
    }

    /// Deletes what nobody needs, from time to time, until the daemon stops.
    pub async fn collect_environments(&self) {
        let mut pause = FIRST;
        loop {
            tokio::select! {
                () = self.shutdown.begun() => return,
                () = sleep(std::mem::replace(&mut pause, EVERY)) => {}
            }
            match self.clean_surveyed(false, false, false).await {
                Ok(cleaned) => {
                    for gone in cleaned.removed {
                        tracing::info!("deleted the environment `{}`: {}", gone.path, gone.reason);
                    }
                }
                Err(error) => tracing::info!(%error, "environments that nobody needs are kept for now"),
            }
        }
    }
}
