//! The service, with a systemd user manager of its own.
//!
//! It runs in namespaces: it sees neither processes, control groups nor `/run` of the machine, and all that it started
//! ends with it. Where there is no systemd, or no right to make namespaces, the test says so and passes.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::json;

use crate::world::{Said, World, number};

const SYSTEMD: &str = "/usr/lib/systemd/systemd";

/// Runs as the first process of its namespaces. Its own `/run`, and of control groups what is below its own; ready when
/// it writes a line.
const SCRIPT: &str = "
set -e
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/systemd/system $XDG_RUNTIME_DIR
chmod 700 $XDG_RUNTIME_DIR
anew() { umount \"$1\"; shift; mount \"$@\"; }
cgroups=/sys/fs/cgroup
if [ -d $cgroups/systemd ]; then
    anew $cgroups/systemd -t cgroup -o none,name=systemd none $cgroups/systemd
    if [ -d $cgroups/unified ]; then anew $cgroups/unified -t cgroup2 none $cgroups/unified; fi
else
    anew $cgroups -t cgroup2 none $cgroups
fi
$SYSTEMD --user >/dev/null 2>&1 &
until systemctl --user show-environment >/dev/null 2>&1; do :; done
echo ready
wait
";

/// A user manager. All that it started ends with it.
struct Manager {
    /// `unshare`, whose child is the first process of the namespaces.
    unshare: Child,
    /// That child.
    first: u32,
    /// Control groups that were there before.
    groups: Vec<PathBuf>,
}

impl Manager {
    /// None, with a message, where there can be none.
    fn start(world: &World) -> Option<Self> {
        let root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
        if !Path::new(SYSTEMD).exists() || !root {
            eprintln!(
                "skipped: no systemd here, or no right to start one apart (apt-get install systemd; root)."
            );
            return None;
        }
        let groups = groups();
        let mut command = Command::new("unshare");
        command
            .args(["-mpfC", "--mount-proc", "--kill-child", "sh", "-c", SCRIPT])
            .env_clear()
            .envs(environment(world))
            .env("SYSTEMD", SYSTEMD)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut unshare = command.spawn().unwrap();
        let mut ready = String::new();
        let stdout = unshare.stdout.as_mut().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut ready).unwrap();
        assert_eq!(ready, "ready\n");
        let children = format!("/proc/{0}/task/{0}/children", unshare.id());
        let first = std::fs::read_to_string(children).unwrap().trim().parse().unwrap();
        Some(Self { unshare, first, groups })
    }

    /// A command in the namespaces.
    fn command(&self, world: &World, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        let target = self.first.to_string();
        command.args(["--target", &target, "--mount", "--pid", "--cgroup", "--wdns=/", "--"]).arg(program);
        command.env_clear().envs(environment(world)).stdin(Stdio::null());
        command
    }

    fn runt(&self, world: &World, arguments: &[&str]) -> Said {
        let runt = world.command("runt").get_program().to_owned();
        Said::of(self.command(world, Path::new(&runt)).args(arguments).output().unwrap())
    }

    fn systemctl(&self, world: &World, arguments: &[&str]) -> String {
        let mut command = self.command(world, Path::new("systemctl"));
        let said = Said::of(command.arg("--user").args(arguments).output().unwrap());
        said.out + &said.err
    }

    /// What a line of Python comes to in the notebook `name`, for somebody with the PyPI client; none where there is
    /// no such client.
    fn window(&self, world: &World, name: &str, source: &str) -> Option<String> {
        let python = std::env::var_os("RUNTIMED_TEST_CLIENT_PYTHON")?;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/daemon/service_window.py");
        let mut command = self.command(world, Path::new(&python));
        command.arg("-B").arg(script).arg(world.home().join("work").join(name)).arg(source);
        Some(Said::of(command.output().unwrap()).good().out.trim().to_owned())
    }

    /// Names of the programs that run in the namespaces.
    fn programs(&self, world: &World) -> Vec<String> {
        let mut command = self.command(world, Path::new("sh"));
        let said = command.args(["-c", "cat /proc/[0-9]*/comm"]).output().unwrap();
        String::from_utf8(said.stdout).unwrap().lines().map(str::to_owned).collect()
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        // The first process of a namespace takes all others with it.
        self.unshare.kill().unwrap();
        self.unshare.wait().unwrap();
        for group in groups().iter().filter(|group| !self.groups.contains(group)) {
            // Busy until the last process has gone.
            while std::fs::remove_dir(group).is_err_and(|error| error.kind() == ErrorKind::ResourceBusy) {}
        }
    }
}

/// All control groups below our own that systemd may make, the innermost first.
fn groups() -> Vec<PathBuf> {
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    let roots = own.lines().filter_map(|line| {
        let (hierarchy, path) = line.split_once(':').unwrap().1.split_once(':').unwrap();
        let mount = match hierarchy {
            "name=systemd" => "/sys/fs/cgroup/systemd",
            "" if Path::new("/sys/fs/cgroup/unified").exists() => "/sys/fs/cgroup/unified",
            "" => "/sys/fs/cgroup",
            _ => return None,
        };
        Some(PathBuf::from(format!("{mount}{path}")))
    });
    roots.flat_map(|root| below(&root)).collect()
}

fn below(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.flat_map(|entry| below(&entry.path()).into_iter().chain([entry.path()])).collect()
}

/// Of a login session. Paths with blanks, so that somebody notices if they are not quoted.
fn environment(world: &World) -> Vec<(std::ffi::OsString, std::ffi::OsString)> {
    let mut command = world.command("runt");
    command
        .env_remove("RUNTIMED_PLUGIN_PATH")
        .env("XDG_RUNTIME_DIR", "/run/user/0")
        .env("XDG_DATA_HOME", world.home().join("my data"));
    command.get_envs().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned()))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_from_its_installation_to_its_end() {
    let Some(world) = World::new() else { return };
    // The service's PATH is not ours.
    let programs = world.home().join(".local/bin");
    std::fs::create_dir_all(&programs).unwrap();
    if let Some(uv) = std::env::var_os("RUNTIMED_TEST_UV") {
        std::os::unix::fs::symlink(uv, programs.join("uv")).unwrap();
    }
    let Some(manager) = Manager::start(&world) else { return };
    let runt = |arguments: &[&str]| manager.runt(&world, arguments);
    let (data, units) = (world.home().join("my data/runt"), world.home().join(".config/systemd/user"));

    let installed = runt(&["daemon", "install"]).good().out;
    assert!(installed.starts_with("Installing runtimed service...\nSource binary: "), "{installed}");
    assert!(
        installed.ends_with("\nService installed. Run 'runt daemon start' to start it.\n"),
        "{installed}"
    );
    let again = runt(&["daemon", "install"]);
    assert!(
        again.code == 1 && again.err.starts_with("Service already installed. Use 'runt daemon uninstall'")
    );
    let status = runt(&["daemon", "status", "--json"]).json();
    assert_eq!((&status["installed"], &status["running"]), (&json!(true), &json!(false)));
    assert!(data.join("bin/runtimed").is_file() && data.join("bin/../lib/runt/plugins").is_dir());

    let started = runt(&["daemon", "start"]).good().out;
    assert_eq!(started, "Starting runtimed service...\nService started.\n");
    let pid = |status: &serde_json::Value| status["daemon_info"]["pid"].as_u64().unwrap();
    let first = pid(&runt(&["daemon", "status", "--json"]).json());
    let shown = manager.systemctl(&world, &["show", "runtimed.service"]);
    for line in [
        format!("MainPID={first}").as_str(),
        "Type=notify",
        "KillMode=process",
        "OOMPolicy=continue",
        "WatchdogUSec=1min",
        "ActiveState=active",
        "UnitFileState=enabled",
    ] {
        assert!(shown.lines().any(|it| it == line), "{line}\n{shown}");
    }

    // A daemon elsewhere has nothing to do with this service.
    for (name, place) in [("XDG_CACHE_HOME", "other"), ("RUNTIMED_SOCKET_PATH", "other.sock")] {
        let elsewhere = |argument: &str| {
            let runt = world.command("runt").get_program().to_owned();
            let mut command = manager.command(&world, Path::new(&runt));
            command.args(["daemon", argument]).env(name, world.home().join(place));
            Said::of(command.output().unwrap())
        };
        elsewhere("stop").good();
        let refused = elsewhere("uninstall");
        assert!(refused.code == 1 && refused.err.contains("it listens elsewhere"), "{}", refused.err);
        assert_eq!(pid(&runt(&["daemon", "status", "--json"]).json()), first);
    }

    let session = world.notebook("a.ipynb").await;
    let kernel = number(&session, "import os; kept = 41; os.getpid()").await;
    let window = manager.window(&world, "a.ipynb", "os.getpid(), kept");
    assert!(
        window.is_none_or(|it| it == format!("({kernel}, 41)")),
        "the unmodified client finds the service"
    );
    let restarted = runt(&["daemon", "restart", "--json"]).json();
    assert_eq!(
        (&restarted["kernels"][0]["pid"], &restarted["kernels_not_back"]),
        (&json!(kernel), &json!([]))
    );
    assert_ne!(restarted["pid"], json!(first));
    let window = manager.window(&world, "a.ipynb", "os.getpid(), kept");
    assert!(
        window.is_none_or(|it| it == format!("({kernel}, 41)")),
        "and goes on with the kernel after a restart"
    );
    let session = world.notebook("a.ipynb").await;
    assert_eq!(number(&session, "os.getpid()").await, kernel);

    // Nobody waits for it, or is refused: whoever connects while it is not there is in the queue of the socket.
    let kill = ["kill", "--signal=SIGKILL", "--kill-who=main", "runtimed.service"];
    assert_eq!(manager.systemctl(&world, &kill), "");
    let session = world.notebook("a.ipynb").await;
    assert_eq!(number(&session, "kept + 1").await, 42);
    assert_eq!(number(&session, "os.getpid()").await, kernel);
    let third = pid(&runt(&["daemon", "status", "--json"]).json());
    assert_ne!(json!(third), restarted["pid"]);

    let stopped = runt(&["daemon", "stop"]).good().out;
    assert!(stopped.ends_with("Daemon stopped gracefully.\n"), "{stopped}");
    let ours = |name: &String| name.starts_with("runt") || name.contains("python");
    let left: Vec<_> = manager.programs(&world).into_iter().filter(ours).collect();
    assert_eq!(left, Vec::<String>::new());
    assert!(!world.home().join(".cache/runt/runtimed.sock").exists());
    assert!(runt(&["daemon", "ping"]).err.starts_with("Daemon not running: Failed to connect to daemon: "));

    runt(&["daemon", "start"]).good();
    let removed = runt(&["daemon", "uninstall"]).good().out;
    assert!(removed.contains("\nService uninstalled.\n") && removed.contains("were kept."), "{removed}");
    let left: Vec<_> = manager.programs(&world).into_iter().filter(ours).collect();
    assert_eq!(left, Vec::<String>::new());
    assert!(!data.exists() && !world.home().join(".cache/runt/runtimed.sock").exists());
    let files = |folder: &Path| std::fs::read_dir(folder).into_iter().flatten().flatten().map(|it| it.path());
    let left: Vec<_> =
        files(&units).flat_map(|path| files(&path).chain([path]).collect::<Vec<_>>()).collect();
    assert!(!left.iter().any(|path| path.to_string_lossy().contains("runtimed")), "{left:?}");
    let units = manager.systemctl(&world, &["list-units", "--all", "--no-legend", "runtimed*"]);
    assert_eq!(units.trim(), "");
    assert_eq!(runt(&["daemon", "uninstall"]).good().out, "Service not installed.\n");
    assert!(world.home().join(".config/nteract/settings.json").is_file());

    // One in the background is handed over.
    let background = runt(&["daemon", "start", "--json"]).json()["pid"].clone();
    let told = format!("(pid {background}).\nIt was not started by the service. 'runt daemon restart' hands");
    let installed = runt(&["daemon", "install"]).good().out;
    assert!(installed.contains(&told), "{installed}");
    let running = runt(&["daemon", "start"]).good().out;
    assert!(running.contains(&told), "{running}");
    let managed = runt(&["daemon", "restart", "--json"]).json()["pid"].clone();
    assert_ne!(managed, background);
    let main = manager.systemctl(&world, &["show", "--property=MainPID", "--value", "runtimed.service"]);
    assert_eq!(main.trim(), managed.to_string());
    let running = runt(&["daemon", "start"]).good().out;
    assert_eq!(running, format!("The daemon runs already (pid {managed}).\n"));
    runt(&["daemon", "uninstall"]).good();
}

#[test]
fn what_another_program_installed_is_left_alone() {
    let Some(world) = World::new() else { return };
    let unit = world.home().join(".config/systemd/user/runtimed.service");
    std::fs::create_dir_all(unit.parent().unwrap()).unwrap();
    std::fs::write(&unit, "[Service]\nExecStart=/opt/x/runtimed\n").unwrap();
    for command in ["install", "uninstall"] {
        let said = world.runt(&["daemon", command]);
        assert_eq!(said.code, 1);
        assert!(
            said.err.contains("/runtimed.service was not written by 'runt daemon install'.\nIt was left"),
            "{}",
            said.err
        );
    }
    assert_eq!(std::fs::read_to_string(&unit).unwrap(), "[Service]\nExecStart=/opt/x/runtimed\n");
    assert!(!world.home().join(".local/share/runt").exists());
}

#[test]
fn a_work_trees_daemon_is_no_service() {
    let Some(world) = World::new() else { return };
    for command in ["install", "uninstall"] {
        let mut runt = world.command("runt");
        let said = Said::of(runt.args(["daemon", command]).env("RUNTIMED_DEV", "1").output().unwrap());
        assert_eq!(said.code, 1);
        assert!(said.err.starts_with("Error: this is the development daemon of "), "{}", said.err);
        assert!(said.err.contains("nothing was changed"), "{}", said.err);
    }
}

#[test]
fn without_a_user_manager_it_says_what_to_do_instead() {
    let Some(world) = World::new() else { return };
    let said = world.runt(&["daemon", "install"]);
    assert_eq!(said.code, 1);
    assert!(
        said.err.starts_with("Error: Linux user systemd is not available in this session: "),
        "{}",
        said.err
    );
    assert!(
        said.err.contains("nothing was changed") && said.err.contains("'runt daemon start'"),
        "{}",
        said.err
    );
    assert!(!world.home().join(".local/share/runt").exists());
}
