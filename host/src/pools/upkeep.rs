//! What environments there are on disk, and deleting those that nobody needs.
//!
//! For: the periodic collection and `runt env`.
//! Promises: nothing is deleted that a pool keeps, a notebook has, or somebody just got or is building; folders that are not
//! environments of this daemon are not even looked at.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use runtimed_plugin_api::{PluginError, Result};
use runtimed_protocol::environments::{
    EnvironmentList, EnvironmentRow, EnvironmentVerdict, EnvironmentsCleaned,
};
use serde_json::Value;

use super::captured::is_captured;
use super::collect::{Candidate, Limits, Owner, Verdict, decide, just_used};
use super::environments::{EnvironmentService, blocking};
use super::forsaken::is_forsaken;
use super::in_use::in_use;
use super::usage::{Measured, Size};
use super::{Pools, record, template, trash};

/// Part of its disk that environments may take: what other caches of a system take unasked (systemd's journal does).
const DISK_PART: u64 = 10;
/// They may always take so much, 4 GiB: five environments with a data science stack that share nothing.
const LEAST_BUDGET: u64 = 4 << 30;
/// They take no more unasked, 50 GiB: nobody misses what was not used for so long.
const MOST_BUDGET: u64 = 50 << 30;
/// Digits in the name of an environment that one notebook has.
const KEY_DIGITS: usize = 16;

/// What was found.
pub(crate) struct Survey {
    /// One for each environment.
    environments: Vec<Surveyed>,
    /// Bytes of all of them.
    bytes: u64,
    /// Bytes of their disk, and those that are free.
    disk: (u64, u64),
    /// Bytes that they may take.
    budget: u64,
    /// When it was made, seconds of the system's clock.
    now: i64,
}

/// One environment.
struct Surveyed {
    path: PathBuf,
    kind: String,
    packages: Vec<String>,
    taken_by: Option<String>,
    size: Size,
    facts: Candidate,
}

impl EnvironmentService {
    /// Looks at everything. `used` are prefixes that rooms use. What does not seem to have changed is not measured again,
    /// unless it is to be `fresh`.
    ///
    /// # Errors
    /// `Cancelled` when the daemon stops before it knows what pools keep.
    pub(crate) async fn survey(&self, mut used: BTreeSet<PathBuf>, fresh: bool) -> Result<Survey> {
        let pools = self.pools.clone();
        pools.recovered().await?;
        used.extend(self.leased());
        used.extend(pools.leased());
        let (inline_envs, setting) = (self.declared.folder.clone(), self.budget_setting());
        let measured = Arc::clone(&self.measured);
        blocking(move || {
            let mut measured = measured.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            if fresh {
                *measured = Measured::default();
            }
            Ok(look(&pools, &inline_envs, used, setting, &mut measured))
        })
        .await
    }

    /// Deletes what the survey says can go, and says why the rest stays.
    pub(crate) async fn clean(&self, survey: Survey, dry_run: bool, all: bool) -> EnvironmentsCleaned {
        let limits = Limits { bytes: survey.bytes, budget: survey.budget, all };
        let facts: Vec<_> = survey.environments.iter().map(|one| one.facts.clone()).collect();
        let mut cleaned = EnvironmentsCleaned { dry_run, ..EnvironmentsCleaned::default() };
        for (one, verdict) in survey.environments.into_iter().zip(decide(&facts, limits, survey.now)) {
            let verdict = match verdict {
                Verdict::Remove(why) if !dry_run => match self.remove_unused(&one.path).await {
                    Ok(None) => Verdict::Remove(why),
                    Ok(Some(kept)) => Verdict::Keep(kept),
                    Err(error) => {
                        tracing::warn!("could not delete `{}`: {error}", one.path.display());
                        Verdict::Keep("it could not be deleted; the daemon's log says why")
                    }
                },
                verdict => verdict,
            };
            let path = one.path.to_string_lossy().into_owned();
            match verdict {
                Verdict::Keep(why) => cleaned.kept.push(EnvironmentVerdict { path, reason: why.to_owned() }),
                Verdict::Remove(why) => {
                    cleaned.freed_bytes += one.size.own;
                    cleaned.removed.push(EnvironmentVerdict { path, reason: why.to_owned() });
                }
            }
        }
        cleaned
    }

    /// Deletes an environment unless somebody needs it after all. Why it stays, if it does.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) async fn remove_unused(&self, path: &Path) -> Result<Option<&'static str>> {
        let lock = self.declared.build_lock(path);
        let Ok(_nobody_else) = lock.try_lock() else { return Ok(Some("it is being built")) };
        if self.leased().iter().any(|leased| leased == path) {
            return Ok(Some("in use"));
        }
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let (owner, within) = match path.parent().filter(|_| !name.is_empty()) {
            Some(envs) if envs == self.pools.envs() => (pooled(&self.pools, path, name), envs),
            Some(envs) if envs == self.declared.folder => (cached(path, name), envs),
            _ => (None, path),
        };
        match owner {
            Some(Owner::Cache | Owner::Nobody | Owner::GoneNotebook) => {}
            Some(Owner::Pool(_)) => return Ok(Some("the pool keeps it")),
            Some(Owner::Notebook) => return Ok(Some("kept for its notebook")),
            None => {
                let text = format!(
                    "`{}` is not an environment of this daemon. It was left as it is.",
                    path.display()
                );
                return Err(PluginError::not_found(text));
            }
        }
        let (path, within) = (path.to_path_buf(), within.to_path_buf());
        blocking(move || {
            if just_used(last_used(&path), now()) {
                return Ok(Some("used a moment ago"));
            }
            // By a process that an earlier daemon started, perhaps.
            if !in_use([path.clone()].into()).is_empty() {
                return Ok(Some("in use"));
            }
            trash::delete(&path, &within)?;
            Ok(None)
        })
        .await
    }

    /// What the settings allow environments to take, in bytes.
    fn budget_setting(&self) -> Option<u64> {
        let gib = self.settings.view().values.pointer("/environments/max_gib")?.as_u64()?;
        Some(gib.saturating_mul(1 << 30))
    }
}

impl Survey {
    /// As clients see it.
    ///
    /// # Errors
    /// Only if it cannot be JSON.
    pub(crate) fn list(self) -> serde_json::Result<EnvironmentList> {
        let row = |one: Surveyed| EnvironmentRow {
            path: one.path.to_string_lossy().into_owned(),
            kind: one.kind,
            owner: one.facts.owner.word().to_owned(),
            taken_by: one.taken_by,
            in_use: one.facts.in_use,
            last_used: jiff::Timestamp::from_second(one.facts.last_used).unwrap_or_default().to_string(),
            bytes: one.size.bytes,
            own_bytes: one.size.own,
            packages: one.packages,
        };
        let list = EnvironmentList {
            environments: self.environments.into_iter().map(row).collect(),
            truncated: None,
            bytes: self.bytes,
            budget_bytes: self.budget,
            disk_bytes: self.disk.0,
            free_bytes: self.disk.1,
        };
        list.fit()
    }
}

/// Blocks.
fn look(
    pools: &Pools,
    inline_envs: &Path,
    used: BTreeSet<PathBuf>,
    budget: Option<u64>,
    measured: &mut Measured,
) -> Survey {
    let found: Vec<_> = entries(pools.envs())
        .filter_map(|(path, name)| Some((pooled(pools, &path, &name)?, path)))
        .chain(entries(inline_envs).filter_map(|(path, name)| Some((cached(&path, &name)?, path))))
        .collect();
    let paths: Vec<_> = found.iter().map(|(_, path)| path.clone()).collect();
    let processes = in_use(paths.iter().cloned().collect());
    let (sizes, bytes) = measured.measure(paths.iter().map(|path| (path.clone(), last_used(path))).collect());
    let environments = found.into_iter().zip(sizes).map(|((owner, path), size)| {
        let record = described(&path);
        let facts = Candidate {
            owner,
            in_use: used.contains(&path) || processes.contains(&path),
            last_used: last_used(&path),
            own_bytes: size.own,
        };
        let strings = |value: &Value| {
            let list = value.as_array().into_iter().flatten();
            list.filter_map(|item| item.as_str().map(str::to_owned)).collect()
        };
        Surveyed {
            kind: record["kind"].as_str().unwrap_or_default().to_owned(),
            packages: strings(&record["packages"]),
            taken_by: record::leased_by(&path),
            path,
            size,
            facts,
        }
    });
    let environments = environments.collect();
    let disk = disk(inline_envs);
    let budget = budget.unwrap_or_else(|| (disk.0 / DISK_PART).clamp(LEAST_BUDGET, MOST_BUDGET));
    Survey { environments, bytes, disk, budget, now: now() }
}

/// Folders in a folder, and their names.
fn entries(folder: &Path) -> impl Iterator<Item = (PathBuf, String)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.filter_map(|entry| Some((entry.path(), entry.file_name().into_string().ok()?)))
}

/// Whose a folder among the pools' environments is; none if it is no environment.
fn pooled(pools: &Pools, path: &Path, name: &str) -> Option<Owner> {
    let is_key = name.len() == KEY_DIGITS && name.chars().all(|digit| digit.is_ascii_hexdigit());
    let ours =
        [record::POOL_START, template::START, trash::START].iter().any(|start| name.starts_with(start));
    match pools.place(path) {
        Some(place) => Some(Owner::Pool(place)),
        None if is_key || is_captured(path) => Some(match is_forsaken(path, &today()) {
            true => Owner::GoneNotebook,
            false => Owner::Notebook,
        }),
        None => ours.then_some(Owner::Nobody),
    }
}

/// Whose a folder among the environments for declarations is; none if it is no environment.
fn cached(path: &Path, name: &str) -> Option<Owner> {
    let key = name.split('-').next().unwrap_or_default();
    let is_key = key.len() == KEY_DIGITS && key.chars().all(|digit| digit.is_ascii_hexdigit());
    match name.starts_with(trash::START) {
        false if record::is_recorded(path) => Some(Owner::Cache),
        deleted => (deleted || is_key).then_some(Owner::Nobody),
    }
}

/// What is recorded of the environment at `path`: kind and packages among others.
fn described(path: &Path) -> Value {
    let record = [record::file(path), template::record_file(path)]
        .into_iter()
        .find_map(|file| std::fs::read(file).ok());
    let record: Value = record.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    record["environment"].clone()
}

/// When the environment at `path` was used last, in seconds of the system's clock: as it says itself, else when something
/// was last put into its folder.
fn last_used(path: &Path) -> i64 {
    record::touched(path).unwrap_or_else(|| {
        let changed = std::fs::metadata(path).and_then(|about| about.modified()).ok();
        changed.and_then(|time| jiff::Timestamp::try_from(time).ok()).map_or(0, |time| time.as_second())
    })
}

/// Bytes of the disk of a folder that may not be there yet, and those that are free for this user.
fn disk(folder: &Path) -> (u64, u64) {
    let there = folder.ancestors().find(|folder| folder.exists());
    let Some(about) = there.and_then(|folder| rustix::fs::statvfs(folder).ok()) else { return (0, 0) };
    (about.f_blocks.saturating_mul(about.f_frsize), about.f_bavail.saturating_mul(about.f_frsize))
}

/// The day, as text that differs from day to day.
fn today() -> String {
    jiff::Timestamp::now().strftime("%F").to_string()
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}
