//! The daemon as a service of the user: installed, started at login, brought back when it falls.
//!
//! For: `runt daemon install`, `uninstall`, `start`, `stop`, `restart` and `doctor`.
//! Promises: what is installed is a copy of its own, switched in one step; uninstalling leaves nothing of it.
//! Never: removes caches, settings, logs, or anything that was not installed here; touches another program's service of
//! the same name, or that of a daemon elsewhere.

mod definition;
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

use definition::Definition;
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

/// Who wrote a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    /// There is none.
    Nobody,
    Us,
    Another,
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

    /// The service, if it is installed, its manager can be reached, and it is that of the daemon which is meant.
    pub(crate) async fn usable() -> Option<Self> {
        let service = Self::of_this_user().ok()?;
        let meant = service.is_installed() && service.check_meant().is_ok();
        (meant && service.check().await.is_ok()).then_some(service)
    }

    /// Whether the manager's main file is there, and was written here.
    pub(crate) fn is_installed(&self) -> bool {
        self.definitions().first().is_some_and(|main| self.owner(main) == Owner::Us)
    }

    /// Whether this service is that of the daemon which this process means: not one of a work tree, of another program
    /// or of a daemon elsewhere.
    ///
    /// # Errors
    /// Whose it is, and what to do.
    pub(crate) fn check_meant(&self) -> anyhow::Result<()> {
        if let Some(worktree) = &self.layout.worktree {
            bail!(
                "this is the development daemon of {}, and those are not managed by the service.\n\
                 The service was left as it is; nothing was changed.\n\
                 Use 'runt daemon start' and 'runt daemon stop' here, or unset RUNTIMED_DEV and \
                 RUNTIMED_WORKSPACE_PATH.",
                worktree.display()
            );
        }
        let definitions = self.definitions();
        if let Some(other) = definitions.iter().find(|it| self.owner(it) == Owner::Another) {
            bail!(
                "{} was not written by 'runt daemon install'.\n\
                 It was left as it is; nothing was changed.\n\
                 Uninstall the program it is of, or move the file away. Until then 'runt daemon start' runs the \
                 daemon without a service.",
                other.path.display()
            );
        }
        if self.is_installed() && !self.listens_here() {
            bail!(
                "the service that is installed is not that of the daemon at {}: it listens elsewhere.\n\
                 It was left as it is; nothing was changed.\n\
                 To manage it, set XDG_CACHE_HOME and RUNTIMED_SOCKET_PATH as they were when it was installed, or \
                 unset them; see {}.",
                self.layout.socket.display(),
                self.definition().display()
            );
        }
        Ok(())
    }

    /// Whether what is installed listens where this process looks for its daemon.
    fn listens_here(&self) -> bool {
        let definitions = self.definitions();
        let places = |definition: &Definition| match &self.manager {
            Manager::Systemd(_) => {
                definition.written().is_some_and(|it| unit::places(&it) == unit::places(&definition.text))
            }
            Manager::Launchd(_) => {
                definition.written().is_some_and(|it| plist::places(&it) == plist::places(&definition.text))
            }
        };
        match definitions.get(1).and_then(Definition::written) {
            Some(socket) => {
                unit::listens_at(&socket).is_some_and(|it| same_place(Path::new(&it), &self.layout.socket))
            }
            // Without a socket's unit the main file says as much.
            None => definitions.first().is_some_and(places),
        }
    }

    /// Whose the file in a definition's place is.
    fn owner(&self, definition: &Definition) -> Owner {
        let text = match std::fs::read_to_string(&definition.path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Owner::Nobody,
            Err(_) => return Owner::Another,
        };
        let ours = match &self.manager {
            Manager::Systemd(_) => unit::is_ours(&text),
            Manager::Launchd(_) => plist::is_ours(&text, &self.layout),
        };
        if ours { Owner::Us } else { Owner::Another }
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
        self.check_meant()?;
        let _only_us = files::only_us(&self.layout)?;
        if self.is_installed() {
            bail!(
                "another command installed it just now. That one stays; nothing was changed.\n\
                 See 'runt daemon status'."
            );
        }
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
        self.check_meant()?;
        let _only_us = files::only_us(&self.layout)?;
        if !self.is_installed() {
            bail!(
                "another command uninstalled it just now. Nothing was changed.\n\
                 To have it again, use 'runt daemon install'."
            );
        }
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
        self.check_meant()?;
        let _only_us = files::only_us(&self.layout)?;
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

    /// Of definitions that others wrote, nothing is changed.
    async fn unregister(&self) -> anyhow::Result<()> {
        let mut ours = self.definitions();
        ours.retain(|definition| self.owner(definition) == Owner::Us);
        if let Manager::Systemd(systemd) = &self.manager {
            let names =
                ours.iter().filter_map(|it| Some(it.path.file_name()?.to_string_lossy().into_owned()));
            systemd.disable(&names.collect::<Vec<_>>()).await?;
        }
        for Definition { path, .. } in ours {
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

/// Whether two paths lead to the same place, which may not be there yet.
fn same_place(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| Some(path.parent()?.canonicalize().ok()?.join(path.file_name()?));
    one == other || real(one).is_some_and(|it| real(other) == Some(it))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A service in a folder, with a user manager that nobody asks.
    fn service(folder: &Path, socket: &str) -> Service {
        let layout = Layout {
            data: folder.join("data/runt"),
            definitions: folder.join("units"),
            socket: folder.join(socket),
            other_socket: true,
            worktree: None,
            environment: vec![("HOME".into(), folder.display().to_string())],
        };
        Service { layout, manager: Manager::Systemd(Systemd) }
    }

    fn refusal(service: &Service) -> String {
        service.check_meant().unwrap_err().to_string()
    }

    #[test]
    fn the_service_of_another_program_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let service = service(folder.path(), "a.sock");
        assert!(service.check_meant().is_ok() && !service.is_installed());
        std::fs::create_dir(&service.layout.definitions).unwrap();
        std::fs::write(service.definition(), "[Service]\nExecStart=/opt/x/runtimed\n").unwrap();
        assert!(!service.is_installed());
        assert!(refusal(&service).contains("units/runtimed.service was not written by"));
        service.write_definitions().unwrap();
        assert!(service.is_installed() && service.check_meant().is_ok());
        std::fs::write(service.layout.definitions.join("runtimed.socket"), "").unwrap();
        assert!(service.is_installed());
        assert!(refusal(&service).contains("units/runtimed.socket was not written by"));
    }

    #[test]
    fn the_service_of_a_daemon_elsewhere_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (first, mut second) = (service(folder.path(), "a.sock"), service(folder.path(), "b.sock"));
        first.write_definitions().unwrap();
        assert!(first.check_meant().is_ok() && second.is_installed());
        assert!(refusal(&second).contains("b.sock: it listens elsewhere"));
        // The same without the socket's unit, by the main one.
        std::fs::remove_file(first.layout.definitions.join("runtimed.socket")).unwrap();
        assert!(first.check_meant().is_ok());
        assert!(refusal(&second).contains("b.sock: it listens elsewhere"));
        second.layout.worktree = Some("/src/project".into());
        assert!(refusal(&second).starts_with("this is the development daemon of /src/project"));
    }
}
