//! Looking for plugins, at the start and whenever somebody asks for it again.
//!
//! For: the registry.
//! Promises: what is unchanged and works is not touched; a new version in a process of its own takes the next
//! call as soon as it has started, and until then the old one does; what cannot be taken out of the daemon stays
//! until it ends, and its row says what is different now.
//! Never: starts two versions of a plugin that holds notebooks, kernels or blobs.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::{BoxFuture, join_all};
use runtimed_plugin_api::Plugin;
use runtimed_plugin_api::adapter::Panicked;
use runtimed_plugin_api::manifest::{Carrier, Manifest};

use super::config::Config;
use super::load::Loaded;
use super::order::order;
use super::proxy::Proxy;
use super::registry::{Plugins, Registry, lock};
use super::report;
use super::row::{Problem, Row, Shown, Status};
use super::search::{Findings, Found, search};
use super::services::Services;
use super::slot::{Fate, Plan, Slot};
use super::supervisor::{Supervisor, Ward};

/// What a search found that may run, and what may not.
#[derive(Default)]
struct Sorted {
    plans: Vec<Plan>,
    others: Vec<Row>,
}

/// A plugin that is there already, or that will be.
enum Place {
    Old(Arc<Slot>),
    New(Box<Plan>),
}

impl Place {
    fn manifest(&self) -> &Manifest {
        match self {
            Self::Old(slot) => &slot.plan.manifest,
            Self::New(plan) => &plan.manifest,
        }
    }
}

impl Registry {
    /// Looks into every folder, and puts what is there now in the place of what was there before.
    pub(super) async fn search(self: &Arc<Self>, config: &Config) {
        let (path, config) = (self.path.clone(), config.clone());
        let searching = tokio::task::spawn_blocking(move || sort_out(search(&path), &config));
        let Sorted { plans, mut others } = match searching.await {
            Ok(sorted) => sorted,
            Err(error) => {
                tracing::error!("looking for plugins failed, and everything stays as it is: {error}");
                return;
            }
        };
        let mut found: BTreeMap<String, Plan> = BTreeMap::new();
        let mut ids = Vec::new();
        for plan in plans {
            ids.push(plan.manifest.id.clone());
            found.insert(plan.manifest.id.clone(), plan);
        }
        let before = self.plugins();
        let mut staying: BTreeMap<&str, &Arc<Slot>> = BTreeMap::new();
        for slot in &before.slots {
            let next = found.get(slot.id());
            let pending = match slot.fate(next) {
                Fate::Goes => continue,
                Fate::Stays => None,
                Fate::StaysForNow => {
                    let pending = pending(slot, next, &others);
                    // Its row says so already.
                    others.retain(|row| row.id != slot.id() || row.status == Status::Shadowed);
                    Some(pending)
                }
            };
            slot.shown.pend(pending);
            staying.insert(slot.id(), slot);
        }
        let gone = before
            .slots
            .iter()
            .filter(|slot| staying.contains_key(slot.id()) && !ids.contains(&slot.id().to_owned()));
        let mut places: Vec<Place> = gone.map(|slot| Place::Old(Arc::clone(slot))).collect();
        for id in &ids {
            match (staying.get(id.as_str()), found.remove(id)) {
                (Some(slot), _) => places.push(Place::Old(Arc::clone(slot))),
                (None, Some(plan)) => places.push(Place::New(Box::new(plan))),
                (None, None) => {}
            }
        }
        let slots = self.in_order(places, &mut others);
        *lock(&self.plugins) = Arc::new(Plugins { slots, others });
    }

    /// Puts plugins into start order, and refuses those that can never start.
    fn in_order(self: &Arc<Self>, places: Vec<Place>, others: &mut Vec<Row>) -> Vec<Arc<Slot>> {
        let manifests: Vec<&Manifest> = places.iter().map(Place::manifest).collect();
        let (sorted, refused) = order(&manifests);
        let mut slots = Vec::new();
        // Who runs goes on, even if what it needed to start is not there any more.
        for (at, problem) in refused {
            match places.get(at) {
                Some(Place::Old(slot)) if slot.active().is_some() => slots.push(Arc::clone(slot)),
                Some(Place::Old(slot)) => others.push(slot.shown.get().because(&problem)),
                Some(Place::New(plan)) => others.push(refuse(&plan.found, &problem)),
                None => {}
            }
        }
        slots.extend(sorted.into_iter().filter_map(|at| places.get(at)).map(|place| match place {
            Place::Old(slot) => Arc::clone(slot),
            Place::New(plan) => self.slot(Plan::clone(plan)),
        }));
        slots
    }

    /// A slot for a plugin that is new here.
    fn slot(self: &Arc<Self>, plan: Plan) -> Arc<Slot> {
        if let Some(note) = &plan.note {
            tracing::warn!(plugin = %plan.manifest.id, "{}; {}", note.reason, note.remedy);
        }
        let shown = Arc::new(Shown::new(Slot::first_row(&plan)));
        let supervisor = (plan.carrier == Carrier::Child).then(|| {
            let (supervisor, work) = Supervisor::new(Ward {
                found: plan.found.clone(),
                manifest: plan.manifest.clone(),
                command: self.command.clone(),
                limits: plan.limits,
                host: self.services(&plan),
                loader: Arc::clone(&self.loader),
                context: Arc::clone(&self.context),
                shown: Arc::clone(&shown),
            });
            let mut supervising = lock(&self.supervising);
            while supervising.try_join_next().is_some() {}
            supervising.spawn(work);
            supervisor
        });
        Slot::new(plan, shown, supervisor)
    }

    fn services(self: &Arc<Self>, plan: &Plan) -> Arc<Services> {
        Arc::new(Services {
            plugin: plan.manifest.id.clone(),
            folder: plan.found.folder.clone(),
            limits: plan.limits.into(),
            context: Arc::clone(&self.context),
            registry: Arc::downgrade(self),
        })
    }

    /// Starts what starts with the daemon.
    pub(super) async fn start_first(self: &Arc<Self>) {
        let plugins = self.plugins();
        let first = plugins.slots.iter().filter(|slot| slot.starts_with_the_daemon());
        join_all(first.map(|slot| self.start(&plugins, slot))).await;
    }

    /// Starts everything else, once, to see that it can be started.
    pub(super) async fn start_rest(self: &Arc<Self>) {
        let plugins = self.plugins();
        join_all(plugins.slots.iter().map(|slot| self.start(&plugins, slot))).await;
        let (loader, wanted) = (
            Arc::clone(&self.loader),
            plugins.slots.iter().map(|slot| slot.plan.found.clone()).collect::<Vec<_>>(),
        );
        // Old copies are removed beside everything else; if that panicked they would only stay.
        let _ = tokio::task::spawn_blocking(move || loader.sweep(&wanted)).await;
    }

    /// Starts a plugin, once; later calls get the same outcome. Boxed, because what is needed may need something
    /// itself.
    fn start<'a>(
        self: &'a Arc<Self>,
        all: &'a Plugins,
        slot: &'a Arc<Slot>,
    ) -> BoxFuture<'a, Option<Arc<dyn Plugin>>> {
        Box::pin(async move {
            let started = slot.plugin.get_or_init(|| async {
                match self.needed(all, slot).await {
                    Ok(()) => match &slot.supervisor {
                        Some(supervisor) => {
                            let proxy = Proxy::start(slot.id(), supervisor.clone()).await;
                            Some(Arc::new(proxy.ok()?) as Arc<dyn Plugin>)
                        }
                        None => self.start_here(slot).await,
                    },
                    Err(problem) => {
                        self.report(slot, problem).await;
                        None
                    }
                }
            });
            let plugin = started.await.clone();
            // Somebody may wait for just this one.
            self.boot.send_modify(|_| ());
            plugin
        })
    }

    /// Starts what `slot` needs.
    async fn needed(self: &Arc<Self>, all: &Plugins, slot: &Arc<Slot>) -> Result<(), Problem> {
        for need in &slot.plan.manifest.needs.capabilities {
            // This ends, because circles have no slots.
            let mut there = false;
            for provider in all.slots.iter().filter(|provider| provider.plan.manifest.provides(need)) {
                there |= Arc::ptr_eq(provider, slot) || self.start(all, provider).await.is_some();
            }
            if !there {
                return Err(Problem::refused(
                    format!(
                        "plugin `{}` needs {need}, and no plugin that provides it could start",
                        slot.id()
                    ),
                    "see the other plugins in: runt plugins list",
                ));
            }
        }
        Ok(())
    }

    async fn start_here(self: &Arc<Self>, slot: &Arc<Slot>) -> Option<Arc<dyn Plugin>> {
        let Plan { found, manifest, .. } = slot.plan.clone();
        let shown = Arc::downgrade(&slot.shown);
        let on_panic = move |panicked: Panicked| {
            if let Some(shown) = shown.upgrade() {
                shown.poison(&panicked, false);
            }
        };
        match self.loader.load(found, manifest, self.services(&slot.plan), on_panic).await {
            Ok(Loaded { plugin, note }) => {
                slot.shown.started(note);
                Some(plugin)
            }
            Err(problem) => {
                self.report(slot, problem).await;
                None
            }
        }
    }

    /// Makes a failed start visible: row, log, and the long form in a file.
    async fn report(&self, slot: &Slot, problem: Problem) {
        let Problem { status, reason, remedy, report } = problem;
        tracing::warn!(plugin = %slot.id(), "{reason}; {remedy}");
        let file = match report {
            Some(text) => report::write(&self.context.directories.base, slot.id(), text).await,
            None => None,
        };
        slot.shown.set(status, reason, remedy, file);
    }
}

/// Tells what may run from what may not. Blocks on the file system.
fn sort_out(findings: Findings, config: &Config) -> Sorted {
    let mut sorted = Sorted::default();
    for (found, winner) in findings.shadowed {
        let problem = Problem {
            status: Status::Shadowed,
            ..Problem::refused(
                format!("`{}` has the same id and comes first", winner.display()),
                "remove one of the two folders",
            )
        };
        sorted.others.push(Row::new(&found, Status::Shadowed).because(&problem));
    }
    for found in findings.first {
        match found.manifest.clone() {
            Err(problem) => sorted.others.push(refuse(&found, &problem)),
            Ok(manifest) if config.is_disabled(&manifest.id) => {
                let remedy = format!("to use it: runt plugins enable {}", manifest.id);
                let problem = Problem {
                    status: Status::Disabled,
                    ..Problem::refused("switched off in the settings", remedy)
                };
                sorted.others.push(Row::new(&found, Status::Disabled).because(&problem));
            }
            Ok(manifest) => sorted.plans.push(Plan::new(found, manifest, config)),
        }
    }
    sorted
}

/// The row of a plugin that must not run.
fn refuse(found: &Found, problem: &Problem) -> Row {
    tracing::warn!(plugin = %found.id(), "{}; {}", problem.reason, problem.remedy);
    Row::new(found, problem.status).because(problem)
}

/// What the next start of the daemon will do differently with a plugin that has to stay.
fn pending(slot: &Slot, next: Option<&Plan>, others: &[Row]) -> String {
    let Some(next) = next else {
        let row = others.iter().find(|row| row.id == slot.id() && row.status != Status::Shadowed);
        let why = row.map_or_else(
            || "it was removed".to_owned(),
            |row| match row.status {
                Status::Disabled => "it was switched off".to_owned(),
                _ => format!("what is there now cannot be used: {}", row.reason),
            },
        );
        return format!("{why}; restart the daemon to end it");
    };
    let (old, new) = (&slot.plan, next);
    if new.manifest.version != old.manifest.version {
        format!("version {} is there; restart the daemon to use it", new.manifest.version)
    } else if new.carrier != old.carrier && new.carrier == Carrier::Child {
        "it is to have a process of its own; restart the daemon for that".to_owned()
    } else if new.limits != old.limits {
        "its limits have changed; restart the daemon for that".to_owned()
    } else {
        "its files have changed; restart the daemon to use them".to_owned()
    }
}
