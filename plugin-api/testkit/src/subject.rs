//! The plugin under test, and how it is carried.
//!
//! For: running the same suites on a constructor, on a library here, and on a library in a process of its own.
//! Never: checks files before loading them; whoever loads a stranger's library has to do that first.

use std::ffi::OsString;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use runtimed_plugin_api::adapter::child::{Child, ChildFailure, ChildSpec};
use runtimed_plugin_api::adapter::{Library, LibraryFacts, Panicked, Refusal};
use runtimed_plugin_api::manifest::{Manifest, ManifestError};
use runtimed_plugin_api::processes::ProcessLimits;
use runtimed_plugin_api::{Host, Plugin, PluginError, Result};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use crate::case::Stop;
use crate::report::Fault;

/// A plugin that can be made any number of times.
pub struct Subject {
    folder: PathBuf,
    manifest: Result<Manifest, ManifestError>,
    carrier: Carried,
}

/// How calls reach the plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Carrier {
    /// The plugin's own objects.
    Static,
    /// A library in this process.
    InProcess,
    /// A library in a process of its own.
    Child,
}

type Constructor = Box<dyn Fn(Host) -> Result<Arc<dyn Plugin>> + Send + Sync>;

enum Carried {
    Static(Constructor),
    InProcess(PathBuf),
    Child { library: PathBuf, command: Vec<OsString> },
}

/// An instance of the plugin, with whatever carries it.
pub(crate) struct Instance {
    plugin: Arc<dyn Plugin>,
    /// What the library says about itself; none for a constructor.
    pub(crate) facts: Option<LibraryFacts>,
    /// The process it is in, if it has one of its own.
    pub(crate) child: Option<Child>,
}

impl Deref for Instance {
    type Target = dyn Plugin;

    fn deref(&self) -> &Self::Target {
        &*self.plugin
    }
}

impl Subject {
    /// The plugin `P` of this program, whose `plugin.toml` is in `folder`: usually
    /// `env!("CARGO_MANIFEST_DIR")`.
    pub fn of<P: Plugin>(folder: impl AsRef<Path>) -> Self {
        let make: Constructor = Box::new(|host| Ok(Arc::new(P::create(host)?)));
        Self::new(folder.as_ref(), Carried::Static(make))
    }

    /// The library at the absolute path `library`, in this process. Its `plugin.toml` is in `folder`.
    pub fn in_process(folder: &Path, library: &Path) -> Self {
        Self::new(folder, Carried::InProcess(library.to_owned()))
    }

    /// The library at the absolute path `library`, in a process of its own. `command` is a program and arguments
    /// that end up in `runtimed_plugin_api::adapter::child::serve`, such as `runtimed plugin-child`.
    pub fn child(folder: &Path, library: &Path, command: Vec<OsString>) -> Self {
        Self::new(folder, Carried::Child { library: library.to_owned(), command })
    }

    fn new(folder: &Path, carrier: Carried) -> Self {
        Self { folder: folder.to_owned(), manifest: Manifest::read(folder), carrier }
    }

    /// How calls reach the plugin.
    pub fn carrier(&self) -> Carrier {
        match self.carrier {
            Carried::Static(_) => Carrier::Static,
            Carried::InProcess(_) => Carrier::InProcess,
            Carried::Child { .. } => Carrier::Child,
        }
    }

    /// Its manifest.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn manifest(&self) -> Result<&Manifest, &ManifestError> {
        self.manifest.as_ref()
    }

    /// The folder with its manifest.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The file with its code; none for a constructor.
    pub fn library(&self) -> Option<&Path> {
        match &self.carrier {
            Carried::Static(_) => None,
            Carried::InProcess(library) | Carried::Child { library, .. } => Some(library),
        }
    }

    /// Id of the plugin, or the folder's name while that is unknown.
    pub fn id(&self) -> String {
        match &self.manifest {
            Ok(manifest) => manifest.id.clone(),
            Err(_) => self.folder.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        }
    }

    /// Makes an instance. `on_panic` hears of every panic that was caught at the boundary.
    pub(crate) async fn make(
        &self,
        host: Host,
        on_panic: impl Fn(Panicked) + Send + Sync + 'static,
    ) -> Result<Instance, Stop> {
        let not_made = |error: PluginError| {
            Stop::from(Fault::of_error("Plugin::create", &error, "let `create` do no I/O and succeed"))
        };
        match &self.carrier {
            Carried::Static(make) => {
                Ok(Instance { plugin: make(host).map_err(not_made)?, facts: None, child: None })
            }
            Carried::InProcess(library) => {
                let library = Library::open(library).map_err(|Refusal { reason, remedy, report }| {
                    Fault::new(reason, remedy).detail(report.unwrap_or_default())
                })?;
                let plugin = library.create(host, Handle::current(), on_panic).map_err(not_made)?;
                Ok(Instance { plugin, facts: Some(library.facts().clone()), child: None })
            }
            Carried::Child { library, command } => {
                let (command, library) = (command.clone(), library.clone());
                let spec = ChildSpec { command, id: self.id(), library, limits: ProcessLimits::default() };
                let started = Child::start(spec, host, on_panic).await;
                let child = started.map_err(|ChildFailure { reason, remedy, report, refused }| {
                    let fault = if refused {
                        Fault::new(reason, remedy)
                    } else {
                        let what = format!("`Plugin::create` failed: {reason}");
                        Fault::new(what, "return errors from `create`, and leave the process to its owner")
                    };
                    fault.detail(report.unwrap_or_default())
                })?;
                let (plugin, facts) = (child.plugin().clone(), child.facts().clone());
                Ok(Instance { plugin, facts: Some(facts), child: Some(child) })
            }
        }
    }
}

impl Carrier {
    /// As reports write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Static => "static",
            Self::InProcess => "in-process",
            Self::Child => "child",
        }
    }
}
