//! A notebook keeps its environment.
//!
//! For: `environments.rs`.
//! Promises: a notebook that is opened again runs in what it had, made anew at the same place if it is broken, and
//! that is said; what it declares is trusted first.

use std::path::Path;
use std::sync::Arc;

use runtimed_plugin_api::{EnvNeed, EnvProvider, EnvRequest, Health, Lease, Result, Task};
use serde_json::json;

use super::build::{build_verified, write_record};
use super::captured::{Captured, Kept};
use super::drift;
use super::environments::{EnvironmentService, Leased, Whose, blocking};
use super::labels::section;
use super::pool::Pool;
use super::record::{self, Record};
use super::relative::absolute;
use super::{projects, trust};
use crate::disk;

impl EnvironmentService {
    /// The environment that the notebook had before, whole or made anew; if there is none, one of the pool.
    ///
    /// # Errors
    /// `Denied` if what the notebook declares is not trusted any more; those of a build.
    pub(super) async fn prewarmed(
        &self,
        pool: Arc<Pool>,
        need: &EnvNeed,
        label: &str,
        task: &Task,
    ) -> Result<Lease> {
        let Some(kept) = self.kept(need, vec![pool.kind.clone()]).await? else {
            let lease = self.pooled(pool, need, label, task).await?;
            self.capture(&lease.id, need, Vec::new()).await;
            return Ok(drawn_up(lease, need));
        };
        let Kept { captured, record } = kept;
        let provider = pool.provider()?;
        let declared = EnvRequest { packages: captured.packages.clone(), ..EnvRequest::default() };
        let declared = absolute(declared, projects::start(need));
        self.permit(&*provider, &declared).await?;
        let (prefix, room) = (record.environment.prefix.clone(), need.room.clone());
        pool.adopt(&prefix);
        let adopted = Adopted { pool: &pool, prefix: &prefix, keep: false };
        let kept = Kept { captured: captured.clone(), record };
        let record = whole(&*provider, kept, need, self.pools.envs(), task).await?;
        let leased = prefix.clone();
        blocking(move || {
            record::lease(&leased, &room)?;
            record::touch(&leased)
        })
        .await?;
        let config = json!({
            "prewarmed_packages": record.packages,
            drift::deps_key(&pool.kind): captured.packages,
        });
        task.report("cache_hit", json!({ "env_path": prefix }));
        let lease = self.lease(Arc::clone(&pool), record.environment, Whose::Own, label, config).await?;
        adopted.keep();
        self.capture(&lease.id, need, captured.packages).await;
        Ok(drawn_up(Lease { prewarmed_packages: record.packages, ..lease }, need))
    }

    /// Notes that the notebook of `need` keeps the environment of `lease`, if it can be opened again. Its kernel runs
    /// without that note as well, and the next opinion about it tries again.
    pub(super) async fn capture(&self, lease: &str, need: &EnvNeed, packages: Vec<String>) {
        let own = |leased: &&Leased| leased.whose == Whose::Own;
        let Some(leased) = self.leases().get(lease).filter(own).cloned() else { return };
        let Some(captured) = Captured::by(need, &leased.pool.kind, packages).filter(|_| !need.spare) else {
            return;
        };
        let captured = captured.after(leased.captured.as_ref());
        if leased.captured.as_ref() == Some(&captured) {
            return;
        }
        let (note, prefix) = (captured.clone(), leased.environment.prefix.clone());
        match blocking(move || note.write(&prefix)).await {
            Ok(()) => {
                if let Some(leased) = self.leases().get_mut(lease) {
                    leased.captured = Some(captured);
                }
            }
            Err(error) => tracing::warn!(
                "`{}` may not be found when its notebook is opened again: {error}",
                leased.environment.prefix.display()
            ),
        }
    }
}

/// `lease` with what the notebook of `need` declares beside packages: only a restart changes that.
fn drawn_up(mut lease: Lease, need: &EnvNeed) -> Lease {
    let kind = &lease.environment.kind;
    let declared = section(&need.metadata, kind).map(trust::request).unwrap_or_default();
    lease.launched_config[drift::fixed_key(kind)] = drift::fixed(&declared);
    lease
}

/// A pool's hold of an environment that has no lease yet. It is let go when this is dropped.
struct Adopted<'a> {
    pool: &'a Pool,
    prefix: &'a Path,
    keep: bool,
}

impl Adopted<'_> {
    fn keep(mut self) {
        self.keep = true;
    }
}

impl Drop for Adopted<'_> {
    fn drop(&mut self) {
        if !self.keep {
            self.pool.release(self.prefix);
        }
    }
}

/// The environment of `record` if it is whole; else a new one in its place, with the same in it.
async fn whole(
    provider: &dyn EnvProvider,
    kept: Kept,
    need: &EnvNeed,
    envs: &Path,
    task: &Task,
) -> Result<Record> {
    let record = kept.record.clone();
    let environment = record.environment.clone();
    let usable = blocking(move || Ok(record::is_usable(&environment))).await?;
    let reason = match provider.verify(&record.environment).await? {
        Health::Usable if usable => return Ok(record),
        Health::Usable => "it is not complete".to_owned(),
        Health::Broken { reason } => reason,
    };
    let prefix = record.environment.prefix.clone();
    tracing::warn!("`{}` is broken and is rebuilt: {reason}", prefix.display());
    task.report("rebuilding", json!({ "reason": reason }));
    let (note, path, within) = (kept.clone(), prefix.clone(), envs.to_owned());
    blocking(move || {
        note.put_aside()?;
        disk::remove_tree(&path, &within)
    })
    .await?;
    let info = provider.info();
    let mut packages = record.packages.clone();
    packages.extend(kept.captured.packages.iter().cloned());
    let request = EnvRequest { packages, channels: info.default_channels, ..EnvRequest::default() };
    let request = absolute(request, projects::start(need));
    let environment = build_verified(provider, request, &prefix, task.clone()).await?;
    let record = write_record(Record { environment, optimized: false, template_key: None, ..record }).await?;
    blocking(move || kept.put_back()).await?;
    Ok(record)
}
