//! Leases of a daemon that is gone.
//!
//! For: a kernel that outlived its daemon, whose room says what it runs in.
//! Promises: a lease is the same as before, in whose environment packages are installed and which ends like any other;
//! only an environment that is on record as that room's, or is shared, or a project's, is believed to be leased.

use std::path::Path;

use runtimed_plugin_api::{EnvNeed, Environment, Running};

use super::PoolsByKind;
use super::captured::Captured;
use super::environments::{EnvironmentService, Leased, Whose, blocking};
use super::projects;
use super::record::{self, Record};

impl EnvironmentService {
    /// Knows the lease again that the room of `need` runs in, if a former daemon gave it.
    pub(super) async fn know_again(&self, need: &EnvNeed, running: &Running, pools: &PoolsByKind) {
        // Of one that was given here, it is known when it ended.
        let of_another = !running.lease.starts_with(&self.instance);
        let Some(environment) = running.environment.clone().filter(|_| of_another) else { return };
        let Some(pool) = pools.get(&environment.kind).cloned() else { return };
        let Some(whose) = self.whose(&environment).filter(|_| !self.leases().contains_key(&running.lease))
        else {
            return;
        };
        let (claimed, room) = (environment.clone(), need.room.clone());
        let look = move || Ok((is_so(&claimed, &room, whose), Captured::read(&claimed.prefix)));
        let (is_so, captured) = blocking(look).await.unwrap_or_default();
        if !is_so {
            tracing::warn!(prefix = %environment.prefix.display(), "a kernel runs in an environment that is not on record");
            return;
        }
        if whose == Whose::Own {
            pool.adopt(&environment.prefix);
        }
        let folder = projects::start(need).map(Path::to_path_buf);
        let leased = Leased { folder, captured, ..Leased::new(pool, environment, whose) };
        self.leases().entry(running.lease.clone()).or_insert(leased);
    }

    /// Whose an environment is, going by where it lies.
    fn whose(&self, environment: &Environment) -> Option<Whose> {
        let folder = environment.prefix.parent()?;
        [
            (self.pools.envs(), Whose::Own),
            (&self.declared.folder, Whose::Shared),
            (&self.project_envs, Whose::Project),
        ]
        .into_iter()
        .find_map(|(place, whose)| (place == folder).then_some(whose))
    }
}

/// Whether the disk says so, too. Blocks.
fn is_so(environment: &Environment, room: &str, whose: Whose) -> bool {
    let prefix = &environment.prefix;
    match whose {
        Whose::Own => {
            record::is_leased_to(prefix, room)
                && Record::read_any(prefix).is_some_and(|record| record.environment == *environment)
        }
        // Into which something was installed has no record any more.
        Whose::Shared | Whose::Project => prefix.is_dir(),
    }
}
