//! `kernel-backend`: what rooms rely on. Needs a Python with ipykernel: `RUNTIMED_TEST_KERNEL_PYTHON`, or `python3`.

mod recorder;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use runtimed_plugin_api::{
    Bytes, Channel, HostServices, JupyterMessage, Kernel, KernelBackend, KernelEvents, LaunchCommand,
    LaunchSpec, NoLines, ProcessSpec,
};
use serde_json::json;

use super::calls::{fastest, require_fast};
use crate::bench::{Bench, answered};
use crate::case::{Case, Stop, Verdict, case, require};
use crate::report::Fault;
use crate::subject::Carrier;
use recorder::{Recorder, Said, request};

/// Variable with the path of a Python that has ipykernel.
const PYTHON: &str = "RUNTIMED_TEST_KERNEL_PYTHON";
/// Language of the kinds that are tried.
const LANGUAGE: &str = "python";
/// Grace of a shutdown that is asked for politely.
const GRACE: Duration = Duration::from_secs(10);
/// Moments at which a launch is given up. A kernel takes about a second to start.
const CUTS: [Duration; 3] = [Duration::ZERO, Duration::from_millis(50), Duration::from_millis(300)];
/// What a failing call has to change.
const START: &str = "start a kernel for every spec that names an interpreter with a kernel";

pub(crate) const CASES: &[Case] = &[
    case!("kinds", "it names the kinds of kernels it can start", kinds),
    case!("execute", "a kernel runs code and says so, in numbered messages without a gap", execute),
    case!("garbage", "messages that make no sense do not end a kernel", garbage),
    case!("interrupt", "a cell that runs for ever can be interrupted", interrupt),
    case!("shutdown", "a kernel ends when asked, with a report and nothing after it", shutdown),
    case!("killed", "the end of a kernel that dies is reported", killed),
    case!("restart", "another kernel can be started under the same id", restart),
    case!("stop", "stopping the plugin ends its kernels", stop),
    case!(
        "failed-launch",
        "a kernel that cannot start is an error, and nothing of it is left",
        failed_launch
    ),
    case!("cancelled-launch", "a launch that is given up leaves nothing running", cancelled_launch),
];

/// A backend of a plugin that has started, and what its kernels run.
struct Backend<'a> {
    bench: &'a Bench,
    backend: Arc<dyn KernelBackend>,
    kind: String,
    python: PathBuf,
}

impl<'a> Backend<'a> {
    async fn start(bench: &'a Bench) -> Result<Self, Stop> {
        let plugin = bench.start().await?;
        let Some(backend) = plugin.kernel_backends().into_iter().next() else {
            return Err(
                Fault::new("the plugin has no kernel backend", "return it from `kernel_backends`").into()
            );
        };
        let kinds = bench.call("KernelBackend::kinds", backend.kinds()).await?;
        let kinds = answered("KernelBackend::kinds", kinds, "name what can be started, or nothing")?;
        let kind = kinds.into_iter().find(|kind| kind.language == LANGUAGE);
        let Some(kind) = kind else {
            return Err(Stop::skipped("the backend starts no Python kernels, and no others are known here"));
        };
        let python = python(bench).await?;
        Ok(Self { bench, backend, kind: kind.name, python })
    }

    fn spec(&self) -> LaunchSpec {
        let folder = &self.bench.folder;
        // IPython writes its profile there, never to the user's home.
        let ipython = folder.join("ipython").display().to_string();
        LaunchSpec {
            kernel: "0b0e1c5e-7f3a-4f0e-9d55-1f5f5d0c6a01".to_owned(),
            kind: self.kind.clone(),
            room: "testkit".to_owned(),
            notebook_path: None,
            command: LaunchCommand {
                argv: vec![self.python.display().to_string()],
                env: [("IPYTHONDIR".to_owned(), ipython)].into(),
                ..LaunchCommand::default()
            },
            cwd: folder.clone(),
            options: serde_json::Map::new(),
        }
    }

    async fn launch(&self) -> Result<(Box<dyn Kernel>, Recorder), Stop> {
        let _ = std::fs::create_dir_all(&self.bench.folder);
        let (recorder, events) = Recorder::new();
        let launching = self.backend.launch(self.spec(), events);
        let kernel = self.bench.build("KernelBackend::launch", launching).await?;
        let kernel = answered("KernelBackend::launch", kernel, START)?;
        let info = kernel.info();
        require(info.kernel == self.spec().kernel && info.reply.is_object(), || {
            Fault::new(
                "`Kernel::info` names another kernel, or has no `kernel_info_reply`",
                "answer with the id of the spec and what the kernel said of itself",
            )
        })?;
        Ok((kernel, recorder))
    }

    /// What a kernel says to `code`, until it is idle again.
    async fn run(&self, kernel: &dyn Kernel, recorder: &mut Recorder, code: &str) -> Result<Said, Stop> {
        let id = self.execute(kernel, code)?;
        self.answer(recorder, &id).await
    }

    /// Asks a kernel to run `code`.
    fn execute(&self, kernel: &dyn Kernel, code: &str) -> Result<String, Stop> {
        let (id, message) = recorder::execute(code);
        let sent = self.bench.at_once("Kernel::send", || kernel.send(Channel::Shell, message))?.0;
        answered("Kernel::send", sent, "take every message that a kernel could understand")?;
        Ok(id)
    }

    async fn answer(&self, recorder: &mut Recorder, id: &str) -> Result<Said, Stop> {
        self.bench
            .wait("the answer of a kernel", self.bench.session.limits.build, recorder.answer(id))
            .await?
    }

    /// Fails unless the kernel runs code as it should.
    async fn require_runs(&self, kernel: &dyn Kernel, recorder: &mut Recorder) -> Verdict {
        let said = self.run(kernel, recorder, "print('hello'); 6 * 7").await?;
        require(
            said.stdout == "hello\n" && said.result.as_deref() == Some("42") && said.reply["status"] == "ok",
            || {
                Fault::new(
                    "a kernel that was to run `print('hello'); 6 * 7` did not say so",
                    "pass every message on in both directions, unchanged and in order",
                )
                .detail(format!("{said:?}"))
            },
        )
    }

    async fn shut_down(&self, kernel: &dyn Kernel, recorder: &mut Recorder) -> Verdict {
        let report = self.bench.build("Kernel::shutdown", kernel.shutdown(GRACE)).await?;
        let report = answered("Kernel::shutdown", report, "end the kernel, by force after the grace")?;
        let wrong = |what: &str| {
            Fault::new(what, "report the end once, the same way to everybody, and nothing after it")
        };
        require(report.requested, || wrong("`Kernel::shutdown` reports an end that nobody asked for"))?;
        let limit = self.bench.session.limits.call;
        let exited = self.bench.wait("the report of a kernel's end", limit, recorder.exit()).await??;
        require(exited == report, || {
            wrong("`KernelEvents::exited` reports another end than `Kernel::shutdown`")
        })?;
        self.gone(kernel).await
    }

    /// Fails unless the kernel's process has ended.
    async fn gone(&self, kernel: &dyn Kernel) -> Verdict {
        // A number that the system has given away again would be a process of somebody else; not within a case.
        if cfg!(target_os = "linux")
            && let Some(pid) = kernel.info().pid
        {
            let alive = || {
                let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
                stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
            };
            let end = async {
                while alive() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            let limit = self.bench.session.limits.call;
            self.bench.wait("the end of a kernel's process", limit, end).await?;
        }
        self.bench.nothing_left().await
    }
}

/// A Python that has ipykernel.
async fn python(bench: &Bench) -> Result<PathBuf, Stop> {
    if let Some(python) = std::env::var_os(PYTHON) {
        return Ok(python.into());
    }
    let code = "import ipykernel, sys; print(sys.executable)";
    let argv = ["python3", "-c", code].map(str::to_owned).into();
    let spec = ProcessSpec { argv, ..ProcessSpec::default() };
    let asked =
        bench.wait("python3", bench.session.limits.build, bench.host.run_process(spec, Arc::new(NoLines)));
    match asked.await? {
        Ok(exit) if exit.success() => Ok(exit.stdout.trim().into()),
        _ => Err(Stop::skipped(format!(
            "there is no python3 with ipykernel on the PATH, and {PYTHON} is not set"
        ))),
    }
}

async fn kinds(bench: &Bench) -> Verdict {
    let plugin = bench.start().await?;
    for backend in plugin.kernel_backends() {
        let kinds = bench.call("KernelBackend::kinds", backend.kinds()).await?;
        let kinds = answered("KernelBackend::kinds", kinds, "name what can be started, or nothing")?;
        let mut names = BTreeSet::new();
        for kind in &kinds {
            let texts = [&kind.name, &kind.language, &kind.display_name];
            let plain = texts.iter().all(|text| !text.trim().is_empty() && !text.contains(char::is_control));
            require(plain && names.insert(&kind.name), || {
                Fault::new(
                    format!("the kind `{}` has an empty part, or is there twice", kind.name),
                    "give each kind a name of its own, a language and a name for users",
                )
            })?;
        }
    }
    Ok(())
}

async fn execute(bench: &Bench) -> Verdict {
    let it = Backend::start(bench).await?;
    let (kernel, mut recorder) = it.launch().await?;
    it.require_runs(&*kernel, &mut recorder).await?;
    let said = it.run(&*kernel, &mut recorder, "1 / 0").await?;
    require(said.reply["ename"] == "ZeroDivisionError", || {
        Fault::new("a kernel that was to run `1 / 0` reported no error", "pass every message on unchanged")
    })?;
    let many = it.run(&*kernel, &mut recorder, "for i in range(2_000): print(i, flush=True)").await?;
    let complete = many.stdout.lines().enumerate().all(|(number, line)| line == number.to_string());
    require(complete && many.stdout.lines().count() == 2_000, || {
        Fault::new(
            format!("of 2,000 lines of output {} arrived, or in another order", many.stdout.lines().count()),
            "hold back nothing that a kernel says, and lose none of it",
        )
    })?;
    // A message on a channel that is never answered.
    let status = || kernel.send(Channel::Stdin, request("late", "input_reply", &json!({ "value": "" })));
    require_fast("Kernel::send", fastest(bench, "Kernel::send", || drop(status()))?)?;
    require_fast("Kernel::info", fastest(bench, "Kernel::info", || drop(kernel.info()))?)?;
    require_fast("Kernel::acknowledge", fastest(bench, "Kernel::acknowledge", || kernel.acknowledge(1))?)?;
    it.shut_down(&*kernel, &mut recorder).await
}

async fn garbage(bench: &Bench) -> Verdict {
    let it = Backend::start(bench).await?;
    let (kernel, mut recorder) = it.launch().await?;
    let part = Bytes::from_static;
    let odd = |header: &'static [u8], content: &'static [u8]| JupyterMessage {
        header: part(header),
        parent_header: part(b"{}"),
        metadata: part(b"{}"),
        content: part(content),
        buffers: vec![part(b"\0\xff")],
    };
    let messages = [
        Bytes::new(),
        part(b"rubbish"),
        part(&[0xff; 64]),
        JupyterMessage::default().encode(),
        odd(b"{}", b"{}").encode(),
        odd(b"not json", b"\xff\xfe").encode(),
        odd(b"{\"msg_id\": 7, \"msg_type\": null}", b"[]").encode(),
    ];
    for channel in [Channel::Shell, Channel::Control, Channel::Stdin] {
        for message in &messages {
            // Refused or passed on: what matters is what comes after.
            let _ = bench.at_once("Kernel::send, given garbage", || kernel.send(channel, message.clone()))?;
        }
    }
    bench.at_once("Kernel::acknowledge, given garbage", || kernel.acknowledge(u64::MAX))?;
    it.require_runs(&*kernel, &mut recorder).await?;
    it.shut_down(&*kernel, &mut recorder).await
}

async fn interrupt(bench: &Bench) -> Verdict {
    let it = Backend::start(bench).await?;
    let (kernel, mut recorder) = it.launch().await?;
    let id = it.execute(&*kernel, "import time\nprint('running', flush=True)\ntime.sleep(600)")?;
    let limit = bench.session.limits.build;
    bench.wait("the output of a cell", limit, recorder.until_output()).await??;
    let interrupted = bench.call("Kernel::interrupt", kernel.interrupt()).await?;
    answered("Kernel::interrupt", interrupted, "interrupt the kernel the way its kind wants it")?;
    let said = it.answer(&mut recorder, &id).await?;
    require(said.reply["ename"] == "KeyboardInterrupt", || {
        Fault::new(
            "`Kernel::interrupt` did not interrupt a cell that sleeps",
            "interrupt the kernel's process",
        )
        .detail(said.reply.to_string())
    })?;
    it.require_runs(&*kernel, &mut recorder).await?;
    it.shut_down(&*kernel, &mut recorder).await
}

async fn shutdown(bench: &Bench) -> Verdict {
    let it = Backend::start(bench).await?;
    let (kernel, mut recorder) = it.launch().await?;
    it.shut_down(&*kernel, &mut recorder).await?;
    let (_, message) = recorder::execute("1");
    let late = bench.at_once("Kernel::send", || kernel.send(Channel::Shell, message))?.0;
    // A carrier that passes messages on without waiting cannot know.
    require(late.is_err() || bench.session.subject.carrier() == Carrier::Child, || {
        Fault::new(
            "`Kernel::send` took a message for a kernel that has ended",
            "fail once the kernel is gone",
        )
    })?;
    let again = bench.build("Kernel::shutdown", kernel.shutdown(Duration::ZERO)).await?;
    answered("Kernel::shutdown", again, "answer with the same report when asked again").map(drop)
}

async fn killed(bench: &Bench) -> Verdict {
    let it = Backend::start(bench).await?;
    let (kernel, mut recorder) = it.launch().await?;
    it.execute(&*kernel, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")?;
    let report =
        bench.wait("the report of a kernel's end", bench.session.limits.build, recorder.exit()).await??;
    require(!report.requested && report.signal == Some(9), || {
        Fault::new(
            "`KernelEvents::exited` does not say that a signal ended the kernel, unasked",
            "report how the process ended: a user is told that the kernel died",
        )
        .detail(format!("{report:?}"))
    })?;
    // As a room does that has taken note: until then a backend may keep what the kernel said.
    bench.at_once("Kernel::acknowledge", || kernel.acknowledge(u64::MAX))?;
    it.gone(&*kernel).await
}

async fn restart(bench: &Bench) -> Verdict {
    let it = Backend::start(bench).await?;
    let (kernel, mut recorder) = it.launch().await?;
    it.run(&*kernel, &mut recorder, "kept = 1").await?;
    it.shut_down(&*kernel, &mut recorder).await?;
    drop(kernel);
    let (kernel, mut recorder) = it.launch().await?;
    let said = it.run(&*kernel, &mut recorder, "'kept' in globals()").await?;
    require(said.result.as_deref() == Some("False"), || {
        Fault::new(
            "a kernel that was started anew has the variables of the one before",
            "start a new process",
        )
    })?;
    it.shut_down(&*kernel, &mut recorder).await
}

async fn stop(bench: &Bench) -> Verdict {
    let it = Backend::start(bench).await?;
    let (kernel, mut recorder) = it.launch().await?;
    let pid = kernel.info().pid;
    it.execute(&*kernel, "import time; time.sleep(600)")?;
    bench.stop_all().await?;
    let exit = bench.wait("the report of a kernel's end", bench.session.limits.call, recorder.exit());
    exit.await?.map_err(|_| {
        Stop::from(Fault::new(
            format!("stopping the plugin did not report the end of its kernel (process {pid:?})"),
            "end every kernel in `stop`, and say so",
        ))
    })?;
    drop(kernel);
    bench.nothing_left().await
}

async fn failed_launch(bench: &Bench) -> Verdict {
    let it = Backend::start(bench).await?;
    let _ = std::fs::create_dir_all(&bench.folder);
    let launch = async |what: &str, change: &dyn Fn(&mut LaunchSpec)| {
        let mut spec = it.spec();
        change(&mut spec);
        let (_recorder, events) = Recorder::new();
        let launched = bench.build("KernelBackend::launch", it.backend.launch(spec, events)).await?;
        let Err(error) = launched else {
            return Err(Stop::from(Fault::new(
                format!("`KernelBackend::launch` says that it started a kernel {what}"),
                "return when the kernel has answered, and fail when it cannot",
            )));
        };
        require(!error.message.trim().is_empty(), || {
            Fault::new(
                format!("`KernelBackend::launch` of a kernel {what} failed without a message"),
                "say why",
            )
        })
    };
    launch("of a program that does not exist", &|spec| {
        spec.command.argv = vec!["/no/such/python".to_owned()]
    })
    .await?;
    launch("without a program", &|spec| spec.command.argv.clear()).await?;
    launch("of a kind that does not exist", &|spec| spec.kind = "no-such-kind".to_owned()).await?;
    launch("in a folder that does not exist", &|spec| spec.cwd = "/no/such/folder".into()).await?;
    let exits = ["-c", "import sys; sys.exit(3)"].map(str::to_owned);
    launch("that exits at once", &|spec| spec.command.argv.extend(exits.clone())).await?;
    bench.nothing_left().await
}

async fn cancelled_launch(bench: &Bench) -> Verdict {
    let it = Backend::start(bench).await?;
    let _ = std::fs::create_dir_all(&bench.folder);
    for cut in CUTS {
        let (_recorder, events) = Recorder::new();
        let mut launching = it.backend.launch(it.spec(), events as Arc<dyn KernelEvents>);
        let half_way = async {
            if (&mut launching).now_or_never().is_none() {
                let _ = tokio::time::timeout(cut, &mut launching).await;
            }
        };
        bench.wait("KernelBackend::launch", bench.session.limits.call, half_way).await?;
        bench.at_once("drop of a call of KernelBackend::launch", || drop(launching))?;
        bench.nothing_left().await?;
    }
    let (kernel, mut recorder) = it.launch().await?;
    it.shut_down(&*kernel, &mut recorder).await
}
