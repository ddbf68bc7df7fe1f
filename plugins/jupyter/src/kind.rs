//! The kinds of kernel this backend can start.
//!
//! For: how a kind is started and interrupted.
//! Never: claims a kind that is not wired up. Installed kernelspecs are not read yet.

use runtimed_kernel_shim::protocol::{CONNECTION_FILE, InterruptMode};
use runtimed_plugin_api::{KernelKind, PluginError, Result};

/// One kind.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    /// What a launch asks for.
    pub(crate) name: &'static str,
    /// Name in the connection file.
    pub(crate) kernel_name: &'static str,
    pub(crate) interrupt: InterruptMode,
    /// Code run silently before anybody uses the kernel.
    pub(crate) preparation: &'static str,
}

/// IPython kernels, started with the interpreter of an environment.
pub(crate) const PYTHON: Kind = Kind {
    name: "python",
    kernel_name: "python3",
    interrupt: InterruptMode::Signal,
    preparation: UNBOUNDED_IOPUB,
};

/// Takes the limit off ipykernel's IOPub queue, in the thread that owns the socket. ipykernel sets none, so
/// libzmq's 1,000 messages apply, and a machine too busy to run libzmq's own thread in time then loses output
/// before any reader can see it. 23 is `zmq.SNDHWM`, 0 is no limit; it binds no name in the user's namespace.
const UNBOUNDED_IOPUB: &str = "get_ipython().kernel.iopub_thread.schedule(\
    lambda socket=get_ipython().kernel.iopub_thread.socket: socket.setsockopt(23, 0))";

impl Kind {
    /// The kind called `name`.
    ///
    /// # Errors
    /// `Unsupported` names what there is.
    pub(crate) fn find(name: &str) -> Result<Self> {
        if name == PYTHON.name {
            return Ok(PYTHON);
        }
        Err(PluginError::unsupported(format!(
            "kernels of kind `{name}` cannot be started here, only `python`"
        ))
        .help("Nothing was started. Choose a Python kernel for this notebook."))
    }

    /// What follows the interpreter's own arguments.
    pub(crate) fn arguments(&self) -> impl Iterator<Item = String> {
        // Frozen modules have no source, so debuggers cannot stop in them; ipykernel warns about it.
        ["-Xfrozen_modules=off", "-m", "ipykernel_launcher", "-f", CONNECTION_FILE]
            .into_iter()
            .map(Into::into)
    }

    /// As the host sees it.
    pub(crate) fn describe(&self) -> KernelKind {
        KernelKind { name: self.name.into(), language: "python".into(), display_name: "Python 3".into() }
    }
}
