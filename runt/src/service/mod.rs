//! The daemon as a service of the user: installed, started at login, brought back when it falls.
//!
//! For: `runt daemon install`, `uninstall`, `start`, `stop`, `restart` and `doctor`.
//! Promises: what is installed is a copy of its own, switched in one step; uninstalling leaves nothing of it.
//! Never: removes caches, settings, logs, or anything that was not installed here.

mod files;
mod launchd;
mod layout;
mod plist;
mod systemd;
mod unit;

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

pub(crate) use files::Source;
pub(crate) use layout::Layout;

use launchd::Launchd;
use systemd::Systemd;

/// The service of this user, installed or not.
pub(crate) struct Service {
    layout: Layout,
    manager: Manager,
}

/// Who starts services here.
enum Manager {
    Systemd(Systemd),
    Launchd(Launchd),
}

/// What an update changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Updated {
    /// Programs or plugins.
    pub(crate) files: bool,
    /// What the service manager reads; it may listen elsewhere now.
    pub(crate) definition: bool,
}

/// A file that the service manager reads.
struct Definition {
    path: PathBuf,
    text: String,
}

impl Service {
    /// As this process's environment describes it.
    ///
    /// # Errors
    /// Without a home.
    pub(crate) fn of_this_user() -> anyhow::Result<Self> {
        let layout =
            Layout::of_this_process().context("HOME is not set, so there is no place for a service")?;
        let manager =
            if cfg!(target_os = "macos") { Manager::Launchd(Launchd) } else { Manager::Systemd(Systemd) };
        Ok(Self { layout, manager })
    }

    /// The service, if it is installed, its manager can be reached, and the daemon that is meant is not one of a work
    /// tree.
    pub(crate) async fn usable() -> Option<Self> {
        let service = Self::of_this_user().ok()?;
        let meant = service.is_installed() && service.layout.worktree.is_none();
        (meant && service.check().await.is_ok()).then_some(service)
    }

    /// Whether the manager's main file is there.
    pub(crate) fn is_installed(&self) -> bool {
        self.definition().is_file()
    }

    /// The manager's main file.
    pub(crate) fn definition(&self) -> PathBuf {
        self.definitions().into_iter().next().map(|it| it.path).unwrap_or_default()
    }

    /// The daemon that the service runs.
    pub(crate) fn binary(&self) -> PathBuf {
        self.layout.binary()
    }

    /// Whether a service can be installed and started in this session.
    ///
    /// # Errors
    /// Why not, and what to do instead.
    pub(crate) async fn check(&self) -> anyhow::Result<()> {
        match &self.manager {
            Manager::Systemd(systemd) => systemd.check().await,
            Manager::Launchd(_) => Ok(()),
        }
    }

    /// Copies `source`, writes the definition and registers it. Starts nothing.
    ///
    /// # Errors
    /// What failed; nothing is registered then.
    pub(crate) async fn install(&self, source: &Source) -> anyhow::Result<()> {
        files::install(source, &self.layout)?;
        let registered = async {
            self.write_definitions()?;
            self.register().await
        };
        let registered = registered.await;
        if registered.is_err() {
            // The reason is what counts.
            let _ = self.unregister().await;
        }
        registered
    }

    /// Takes over what differs from `source`, files and definition.
    ///
    /// # Errors
    /// What failed; the service is as before, or new, and never a mixture.
    pub(crate) async fn update(&self, source: &Source) -> anyhow::Result<Updated> {
        let files = !files::are_installed(source, &self.layout);
        if files {
            files::install(source, &self.layout)?;
        }
        let definition = !self.is_current();
        if definition {
            self.write_definitions()?;
            self.register().await?;
        }
        Ok(Updated { files, definition })
    }

    /// Whether the definition is what this version writes.
    pub(crate) fn is_current(&self) -> bool {
        self.definitions().iter().all(Definition::is_written)
    }

    /// Removes the definition and the installed files.
    ///
    /// # Errors
    /// What could not be removed.
    pub(crate) async fn uninstall(&self) -> anyhow::Result<()> {
        self.unregister().await?;
        files::uninstall(&self.layout)
    }

    /// Starts the daemon, and listens for it.
    ///
    /// # Errors
    /// What the manager says.
    pub(crate) async fn start(&self) -> anyhow::Result<()> {
        match &self.manager {
            Manager::Systemd(systemd) => systemd.start().await,
            Manager::Launchd(launchd) => launchd.start(&self.definition()).await,
        }
    }

    /// Stops the daemon, whose kernels go on, and listens no more. Does nothing where it does not run.
    ///
    /// # Errors
    /// What the manager says.
    pub(crate) async fn stop(&self) -> anyhow::Result<()> {
        match &self.manager {
            Manager::Systemd(systemd) => systemd.stop().await,
            Manager::Launchd(launchd) => launchd.stop().await,
        }
    }

    /// The process of the daemon that the manager started.
    pub(crate) async fn main_process(&self) -> Option<u32> {
        match &self.manager {
            Manager::Systemd(systemd) => systemd.main_process().await,
            Manager::Launchd(launchd) => launchd.main_process().await,
        }
    }

    async fn register(&self) -> anyhow::Result<()> {
        match &self.manager {
            Manager::Systemd(systemd) => systemd.register().await,
            // It reads the folder at login, and is told the file when it starts the service.
            Manager::Launchd(_) => Ok(()),
        }
    }

    async fn unregister(&self) -> anyhow::Result<()> {
        if let Manager::Systemd(systemd) = &self.manager {
            systemd.disable().await?;
        }
        for Definition { path, .. } in self.definitions() {
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    bail!("{} could not be removed: {error}", path.display());
                }
                _ => {}
            }
        }
        if let Manager::Systemd(systemd) = &self.manager {
            systemd.reload().await?;
        }
        Ok(())
    }

    fn write_definitions(&self) -> anyhow::Result<()> {
        self.definitions().iter().try_for_each(|definition| {
            definition.write().with_context(|| format!("could not write {}", definition.path.display()))
        })
    }

    /// The main one first.
    fn definitions(&self) -> Vec<Definition> {
        let in_folder = |name: &str, text| Definition { path: self.layout.definitions.join(name), text };
        match &self.manager {
            Manager::Systemd(_) => vec![
                in_folder(systemd::SERVICE, unit::service(&self.layout)),
                in_folder(systemd::SOCKET, unit::socket(&self.layout.socket)),
            ],
            Manager::Launchd(_) => {
                vec![in_folder(&format!("{}.plist", launchd::LABEL), plist::agent(&self.layout))]
            }
        }
    }
}

impl Definition {
    fn is_written(&self) -> bool {
        std::fs::read_to_string(&self.path).is_ok_and(|text| text == self.text)
    }

    /// Replaces the file by rename.
    fn write(&self) -> std::io::Result<()> {
        use std::io::Write;
        let folder = self.path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder)?;
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(self.text.as_bytes())?;
        file.persist(&self.path)?;
        Ok(())
    }
}
