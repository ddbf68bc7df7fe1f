//! A host for tests: real processes in groups of their own, everything else empty.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use runtimed_plugin_api::{
    BlobStore, Directories, Environments, ErrorCode, HostServices, KernelBackend, PluginError, ProcessExit,
    ProcessLines, ProcessSpec, Result, SettingsView, async_trait,
};
use rustix::fd::OwnedFd;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

pub(crate) struct TestHost {
    directories: Directories,
    settings: serde_json::Value,
    env: BTreeMap<String, String>,
    /// A descriptor for every process ever started.
    started: Mutex<Vec<OwnedFd>>,
}

impl TestHost {
    pub(crate) fn new(base: &Path, tools: &Path) -> Self {
        let directories = Directories {
            base: base.to_owned(),
            runtime: base.join("run"),
            blobs: base.join("blobs"),
            executions: base.join("executions"),
            tools: tools.to_owned(),
            plugin: base.join("plugin"),
        };
        let env = [("HOME".to_owned(), base.join("home").display().to_string())].into();
        Self { directories, settings: serde_json::Value::Null, env, started: Mutex::default() }
    }

    /// Sets a variable of every process.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    pub(crate) fn settings(mut self, values: serde_json::Value) -> Self {
        self.settings = values;
        self
    }

    /// Waits until every process that was started has ended.
    pub(crate) fn all_ended(&self) {
        use rustix::event::{PollFd, PollFlags, poll};
        for process in self.started.lock().unwrap().iter() {
            poll(&mut [PollFd::new(process, PollFlags::IN)], None).unwrap();
        }
    }
}

#[async_trait]
impl HostServices for TestHost {
    fn log_enabled(&self, _: u8, _: &str) -> bool {
        false
    }
    fn log(&self, _: u8, _: &str, _: &str, _: &str) {}
    fn directories(&self) -> Directories {
        self.directories.clone()
    }
    fn settings(&self) -> SettingsView {
        SettingsView { revision: 1, values: self.settings.clone() }
    }
    async fn settings_changed(&self, _: u64) -> SettingsView {
        std::future::pending().await
    }
    fn blob_store(&self) -> Option<Arc<dyn BlobStore>> {
        None
    }
    fn kernel_backend(&self, _: &str) -> Option<Arc<dyn KernelBackend>> {
        None
    }
    fn environments(&self) -> Option<Arc<dyn Environments>> {
        None
    }
    async fn run_process(&self, spec: ProcessSpec, lines: Arc<dyn ProcessLines>) -> Result<ProcessExit> {
        let Some((program, arguments)) = spec.argv.split_first() else {
            return Err(PluginError::invalid("no program"));
        };
        let mut command = tokio::process::Command::new(program);
        command.args(arguments).envs(&self.env).envs(&spec.env).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
        if let Some(cwd) = &spec.cwd {
            command.current_dir(cwd);
        }
        let mut child =
            command.spawn().map_err(|error| PluginError::internal(format!("{program}: {error}")))?;
        let pid = Pid::from_raw(child.id().unwrap() as i32).unwrap();
        self.started.lock().unwrap().push(pidfd_open(pid, PidfdFlags::empty()).unwrap());
        let group = Group(Some(pid));
        let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let run = async {
            let (stdout, stderr) = tokio::join!(read(stdout, false, &lines), read(stderr, true, &lines));
            (child.wait().await.unwrap(), stdout, stderr)
        };
        let limit = spec.timeout.unwrap_or(Duration::MAX);
        let (status, stdout, stderr) = tokio::time::timeout(limit, run)
            .await
            .map_err(|_| PluginError::new(ErrorCode::Timeout, "timed out"))?;
        group.ended();
        Ok(ProcessExit { code: status.code(), stdout, stderr })
    }
    async fn shutting_down(&self) {
        std::future::pending().await
    }
}

/// Kills what is left of a process group when the call that started it is dropped.
struct Group(Option<Pid>);

impl Group {
    /// The leader was reaped, so its number may already be somebody else's.
    fn ended(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

async fn read(stream: impl AsyncRead + Unpin, stderr: bool, lines: &Arc<dyn ProcessLines>) -> String {
    let (mut reader, mut all) = (BufReader::new(stream).lines(), String::new());
    while let Ok(Some(line)) = reader.next_line().await {
        lines.line(stderr, &line);
        all.push_str(&line);
        all.push('\n');
    }
    all
}
