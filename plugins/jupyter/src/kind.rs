//! How one kind of kernel is started, reached and interrupted.
//!
//! Promises: pure. An environment's Python and ipykernel are met on private Unix sockets, everything else on ports of
//! this machine, which every kernel knows.

use std::collections::BTreeMap;
use std::path::Path;

use runtimed_kernel_shim::protocol::{CONNECTION_FILE, InterruptMode, Transport};
use runtimed_kernelspecs::KernelSpec;
use runtimed_plugin_api::{KernelKind, LaunchCommand, PluginError, Result};
use serde_json::Value;

use crate::deno::Setup;

/// The kind that runs in an environment, which brings the interpreter.
pub(crate) const PYTHON: &str = "python";
/// The kind that Deno runs, installed as a kernel or not.
pub(crate) const DENO: &str = "deno";

/// Milliseconds that kernels of others have until they answer: those of the reference to listen and to answer, together.
const START_LIMIT_MS: u64 = 60_000;
/// Milliseconds that ipykernel has, which comes up in less than one second (the limit clients of the reference know).
const PYTHON_LIMIT_MS: u64 = 30_000;

/// Takes the limit off ipykernel's IOPub queue, in the thread that owns the socket. ipykernel sets none, so
/// libzmq's 1,000 messages apply, and a machine too busy to run libzmq's own thread in time then loses output
/// before any reader can see it. 23 is `zmq.SNDHWM`, 0 is no limit.
/// Then lets SIGWINCH end a wait, as the shim expects (its `nudge.rs`). It binds no name in the user's namespace.
const PREPARATION: &str = "get_ipython().kernel.iopub_thread.schedule(\
    lambda socket=get_ipython().kernel.iopub_thread.socket: socket.setsockopt(23, 0))\n\
    exec('from signal import *\\nif getsignal(SIGWINCH) is SIG_DFL: signal(SIGWINCH, lambda *_: None)', {})";

/// Makes an IPython kernel that was started elsewhere one that was started in `cwd`. Run with names of its own.
const MOVE: &str = include_str!("move.py");

/// One kind.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Kind {
    /// As the host sees it.
    pub(crate) described: KernelKind,
    /// Name in the connection file.
    pub(crate) kernel_name: String,
    pub(crate) interrupt: InterruptMode,
    pub(crate) transport: Transport,
    /// Whether it says that it is idle before all of a cell's outputs are there.
    pub(crate) idle_early: bool,
    /// Code run silently before anybody uses the kernel.
    pub(crate) preparation: String,
    /// The text of a `deno.json` in the folder that the kernel is started in, which is its own then.
    pub(crate) configuration: Option<String>,
    pub(crate) start_limit_ms: u64,
    /// Whether `argv` follows the interpreter that an environment brings.
    in_environment: bool,
    /// Program and arguments.
    argv: Vec<String>,
    /// Variables of its own.
    env: BTreeMap<String, String>,
}

impl Kind {
    /// IPython, in the environment that a launch brings.
    pub(crate) fn python() -> Self {
        // Frozen modules have no source, so debuggers cannot stop in them; ipykernel warns about it.
        let argv = ["-Xfrozen_modules=off", "-m", "ipykernel_launcher", "-f", CONNECTION_FILE];
        Self {
            described: describe(PYTHON, "python", "Python 3"),
            kernel_name: "python3".to_owned(),
            interrupt: InterruptMode::Signal,
            transport: Transport::Ipc,
            idle_early: false,
            preparation: PREPARATION.to_owned(),
            configuration: None,
            start_limit_ms: PYTHON_LIMIT_MS,
            in_environment: true,
            argv: argv.map(Into::into).to_vec(),
            env: BTreeMap::new(),
        }
    }

    /// Deno, which needs no kernelspec.
    pub(crate) fn deno(program: &Path) -> Self {
        let program = program.to_string_lossy().into_owned();
        let argv = [program.as_str(), "jupyter", "--kernel", "--conn", CONNECTION_FILE];
        let argv = argv.map(Into::into).to_vec();
        Self::own(describe(DENO, "typescript", "Deno"), argv, BTreeMap::new()).of_deno()
    }

    /// An installed kernel. Its variables are filled in with those that `inherited` gives by name.
    pub(crate) fn installed(spec: &KernelSpec, inherited: impl Fn(&str) -> Option<String>) -> Self {
        let interrupt = match spec.interrupt_mode {
            runtimed_kernelspecs::InterruptMode::Signal => InterruptMode::Signal,
            runtimed_kernelspecs::InterruptMode::Message => InterruptMode::Message,
        };
        let described = describe(&spec.name, &spec.language, &spec.display_name);
        let argv = spec.command(CONNECTION_FILE);
        if is_deno(&argv) {
            return Self::own(described, argv, spec.variables(inherited)).of_deno();
        }
        let ours = is_ipykernel(&argv);
        let kind = Self { interrupt, ..Self::own(described, argv, spec.variables(inherited)) };
        match ours {
            true => Self { transport: Transport::Ipc, preparation: PREPARATION.to_owned(), ..kind },
            false => kind,
        }
    }

    fn own(described: KernelKind, argv: Vec<String>, env: BTreeMap<String, String>) -> Self {
        Self {
            kernel_name: described.name.clone(),
            described,
            interrupt: InterruptMode::Signal,
            transport: Transport::Tcp,
            idle_early: false,
            preparation: String::new(),
            configuration: None,
            start_limit_ms: START_LIMIT_MS,
            in_environment: false,
            argv,
            env,
        }
    }

    /// A signal ends Deno, whatever its kernelspec says, and it is idle before it has said everything (Deno 2.9: one cell of
    /// three in the worst run measured).
    fn of_deno(self) -> Self {
        Self { interrupt: InterruptMode::Message, idle_early: true, ..self }
    }

    /// Whether it is Deno, installed as a kernel or not.
    pub(crate) fn is_deno(&self) -> bool {
        is_deno(&self.argv)
    }

    /// The same, set up as a notebook wants it.
    pub(crate) fn set_up(self, setup: Setup) -> Self {
        let Setup { preparation, configuration, env } = setup;
        Self { preparation, configuration, env: self.env.into_iter().chain(env).collect(), ..self }
    }

    /// The command that starts it, given the one of its launch.
    ///
    /// # Errors
    /// `Invalid` when the environment brings no interpreter.
    pub(crate) fn command(&self, launch: &LaunchCommand) -> Result<LaunchCommand> {
        if self.in_environment && launch.argv.is_empty() {
            return Err(PluginError::invalid("the environment names no interpreter to start a kernel with"));
        }
        let interpreter = launch.argv.iter().filter(|_| self.in_environment);
        let argv = interpreter.chain(&self.argv).cloned().collect();
        let env = self.env.clone().into_iter().chain(launch.env.clone()).collect();
        Ok(LaunchCommand { argv, env, ..launch.clone() })
    }

    /// What to do when its program is not there.
    pub(crate) fn mend(&self) -> &'static str {
        match self.in_environment {
            true => "Nothing was started. The environment may have been deleted; start the kernel again.",
            false => {
                "Nothing was started. Install the kernel again, or mend `argv` in its kernel.json; then start it \
                 again."
            }
        }
    }
}

/// Code that makes an IPython kernel, which nobody has used yet, one that was started in `cwd`; it fails where that cannot
/// be. Like the preparation it binds no name.
///
/// # Errors
/// `Invalid` when the path is no text.
pub(crate) fn move_to(cwd: &Path) -> Result<String> {
    let path = cwd.to_str().ok_or_else(|| PluginError::invalid("the working directory is not UTF-8"))?;
    // What is a string in JSON is the same one in Python.
    let (code, path) = (Value::from(MOVE), Value::from(path));
    Ok(format!("exec({code}, {{'cwd': {path}, 'shell': get_ipython()}})"))
}

fn describe(name: &str, language: &str, display_name: &str) -> KernelKind {
    KernelKind { name: name.into(), language: language.into(), display_name: display_name.into() }
}

fn is_deno(argv: &[String]) -> bool {
    let program = argv.first().and_then(|program| Path::new(program).file_name());
    program.is_some_and(|name| name == "deno") && argv.iter().any(|argument| argument == "jupyter")
}

fn is_ipykernel(argv: &[String]) -> bool {
    argv.windows(2)
        .any(|pair| pair[0] == "-m" && matches!(pair[1].as_str(), "ipykernel_launcher" | "ipykernel"))
}
