//! The kernel of a room, from being wanted to being gone.
//!
//! For: knowing at any moment whether a kernel is there, on its way or ending, and who waits for which.
//! Promises: one launch at a time; whoever asked for a launch or a stop is answered exactly once; an
//! environment belongs to the room until it is given back.
//! Never: starts or stops anything. [`super::launch`] moves the stages; the shell does the work.

use runtimed_plugin_api::{EnvNeed, KernelKind, Lease, Running};
use serde_json::Value as Json;

use super::choice::DENO;
use super::deno::DenoConfig;
use super::moment::Moment;
use super::requests::Ticket;
use crate::ids::LaunchId;

/// The room's kernel and the environment it runs in.
#[derive(Default)]
pub(crate) struct Kernel {
    pub(crate) stage: Stage,
    /// The environment the room holds. Kept over a restart of the kernel.
    pub(crate) environment: Option<Environment>,
    /// Whether a kernel was ever launched in this room.
    pub(crate) existed: bool,
    /// What the last launch wanted, if something had to be allowed first.
    pub(crate) held: Wanted,
}

/// Where the kernel is in its life.
#[derive(Default)]
pub(crate) enum Stage {
    /// Not there, and nobody is bringing it.
    #[default]
    Down,
    /// Which one it shall be depends on what is installed.
    Choosing(Launch),
    /// Its environment is being found or built.
    Acquiring(Launch),
    /// Its process is starting.
    Starting(Launch),
    /// It is up, but clients hear about it only at the given moment: those who asked for it read the
    /// answer to their request first.
    Announcing(Up, Moment),
    /// It runs.
    Up(Up),
    /// It is being ended.
    Stopping(Stopping),
}

/// What somebody wants to run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// `python`, `deno`, or the name of an installed kernel; empty: as the notebook says.
    pub(crate) kind: String,
    /// Where the environment shall come from: empty or `auto`, `auto:uv`, or an exact label.
    pub(crate) source: String,
}

/// A kernel on its way.
pub(crate) struct Launch {
    pub(crate) id: LaunchId,
    pub(crate) wanted: Wanted,
    /// What was chosen.
    pub(crate) kind: KernelKind,
    /// What its environment was asked for.
    pub(crate) need: EnvNeed,
    /// Why the kernel did not start in the first environment it got.
    pub(crate) failed: Option<String>,
    /// What the notebook says about it, if it is Deno.
    pub(crate) deno: DenoConfig,
    /// Who asked.
    pub(crate) waiting: Vec<Waiting>,
}

/// Somebody who waits for a kernel.
pub(crate) struct Waiting {
    pub(crate) ticket: Ticket,
    /// Whether it was this request that began the launch.
    pub(crate) began: bool,
    /// Whether they asked for Python because nobody told them anything ([`choice::is_habit`]).
    ///
    /// [`choice::is_habit`]: super::choice::is_habit
    pub(crate) habit: bool,
}

/// A running kernel.
pub(crate) struct Up {
    pub(crate) id: LaunchId,
    pub(crate) kind: String,
    /// What it was told, if it is Deno.
    pub(crate) deno: DenoConfig,
}

/// A kernel on its way out.
pub(crate) struct Stopping {
    pub(crate) id: LaunchId,
    /// Who asked for the end.
    pub(crate) waiting: Vec<Ticket>,
    /// What to launch once it is gone.
    pub(crate) next: Option<(Wanted, Vec<Waiting>)>,
    /// Whether its environment is given back then.
    pub(crate) release: bool,
}

/// An environment, and the need it was acquired for.
pub(crate) struct Environment {
    pub(crate) need: EnvNeed,
    pub(crate) lease: Lease,
}

impl Kernel {
    /// Whether code can be sent to it now or as soon as it is up.
    pub(crate) fn is_coming_or_up(&self) -> bool {
        !matches!(self.stage, Stage::Down | Stage::Stopping(_))
    }

    /// The kernel clients see as running.
    pub(crate) fn up(&self) -> Option<&Up> {
        match &self.stage {
            Stage::Up(up) => Some(up),
            _ => None,
        }
    }

    /// The launch whose kernel is up, announced or not.
    pub(crate) fn live(&self) -> Option<LaunchId> {
        match &self.stage {
            Stage::Announcing(up, _) | Stage::Up(up) => Some(up.id),
            _ => None,
        }
    }

    /// When a kernel that is up shall be shown.
    pub(crate) fn deadline(&self) -> Option<Moment> {
        match &self.stage {
            Stage::Announcing(_, at) => Some(*at),
            _ => None,
        }
    }

    /// What its kernel was told, while it is up.
    pub(crate) fn deno(&self) -> Option<&DenoConfig> {
        match &self.stage {
            Stage::Announcing(up, _) | Stage::Up(up) => {
                Some(&up.deno).filter(|deno| up.kind == DENO || !deno.is_default())
            }
            _ => None,
        }
    }

    /// What it runs, while it runs or is on its way.
    pub(crate) fn kind(&self) -> Option<&str> {
        match &self.stage {
            Stage::Acquiring(launch) | Stage::Starting(launch) => Some(&launch.kind.name),
            Stage::Announcing(up, _) | Stage::Up(up) => Some(&up.kind),
            Stage::Down | Stage::Choosing(_) | Stage::Stopping(_) => None,
        }
    }
}

impl Environment {
    /// Whether it is a project's, whose file may say something else by now.
    pub(crate) fn is_projects(&self) -> bool {
        let how = self.lease.source.split_once(':').map_or("", |(_, how)| how);
        !matches!(how, "prewarmed" | "inline" | "pep723")
    }

    /// What the host is told of it.
    pub(crate) fn running(&self) -> Running {
        Running {
            lease: self.lease.id.clone(),
            source: self.lease.source.clone(),
            launched_config: self.lease.launched_config.clone(),
            environment: Some(self.lease.environment.clone()),
        }
    }

    /// These packages were installed while the kernel runs in it, since `need` says so.
    pub(crate) fn installed(&mut self, packages: &[String], need: EnvNeed) {
        let key = format!("{}_deps", self.lease.environment.kind);
        if let Some(config) = self.lease.launched_config.as_object_mut() {
            let list = config.entry(key).or_insert_with(|| Json::Array(Vec::new()));
            list.as_array_mut()
                .into_iter()
                .for_each(|list| list.extend(packages.iter().cloned().map(Json::from)));
        }
        self.need = need;
    }

    /// Whether a launch with `need` can run here without another environment.
    pub(crate) fn fits(&self, need: &EnvNeed) -> bool {
        let source = &self.lease.source;
        let wanted = match need.source.as_str() {
            "" | "auto" | "prewarmed" => true,
            exact if exact == source => true,
            family => family.strip_prefix("auto:").is_some_and(|kind| {
                source.split_once(':').map_or(source.as_str(), |(family, _)| family) == kind
            }),
        };
        wanted
            && !self.is_projects()
            && declared(&need.metadata) == declared(&self.need.metadata)
            && need.script_blocks == self.need.script_blocks
            && (&need.notebook_path, &need.working_dir, &need.environment_mode)
                == (&self.need.notebook_path, &self.need.working_dir, &self.need.environment_mode)
    }
}

/// The part of a notebook's metadata that says where it wants to run.
fn declared(metadata: &Json) -> Option<&Json> {
    metadata.get("runt")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_restart_keeps_the_environment_unless_something_else_is_wanted() {
        let need = |source: &str, packages: Json| EnvNeed {
            source: source.into(),
            metadata: json!({"runt": {"uv": {"dependencies": packages}}}),
            ..Default::default()
        };
        let lease = json!({
            "id": "1", "source": "uv:prewarmed", "launched_config": {}, "launch": {"argv": []},
            "environment": {"kind": "uv", "prefix": "/e", "python": "/e/bin/python"},
        });
        let environment =
            Environment { need: need("auto", json!([])), lease: serde_json::from_value(lease).unwrap() };
        for source in ["", "auto", "auto:uv", "uv:prewarmed"] {
            assert!(environment.fits(&need(source, json!([]))), "{source}");
        }
        for source in ["auto:conda", "conda:prewarmed", "uv:inline"] {
            assert!(!environment.fits(&need(source, json!([]))), "{source}");
        }
        assert!(!environment.fits(&need("auto", json!(["numpy"]))));
    }
}
