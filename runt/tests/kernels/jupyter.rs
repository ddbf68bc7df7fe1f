//! `runt jupyter`: kernels that nobody keeps, ours and those of other programs.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Stdio;

use serde_json::json;

use crate::world::{Said, World, is_running};

#[test]
fn a_kernel_is_started_seen_used_interrupted_and_stopped() {
    let Some(world) = World::new() else { return };
    let said = world.runt(&["jupyter", "start", "Python3", "--name", "otter"]).good();
    let file = world.home().join("run/jupyter/runt-kernel-otter.json");
    assert!(said.out.starts_with("Kernel started with ID: otter\nConnection file: "), "{}", said.out);
    assert!(file.is_file());
    assert!(world.runt(&["jupyter", "start", "python3", "--name", "otter"]).err.contains("already"));

    let row = world.ps().remove(0);
    let seen = ["name", "status", "source", "notebook"].map(|key| row[key].clone());
    assert_eq!(seen, [json!("otter"), json!("alive"), json!("jupyter"), json!(null)]);
    let pid = row["pid"].as_u64().unwrap();
    assert!(is_running(pid) && row["memory_bytes"].as_u64() > Some(1 << 20), "{row}");

    let exec = |code: &str| world.runt(&["jupyter", "exec", "ott", code]);
    assert_eq!(exec("import os; print('hello'); os.getpid()").good().out, format!("hello\n{pid}\n"));
    assert_eq!(world.runt_with_input(&["jupyter", "exec", "otter"], "x = 20\nx + 1").good().out, "21\n");
    let failed = exec("import sys; print('oh', file=sys.stderr); 1/0");
    assert_eq!((failed.code, failed.out.as_str()), (1, ""));
    assert!(failed.err.starts_with("oh\n") && failed.err.contains("ZeroDivisionError: division by zero"));
    assert!(!failed.err.contains('\x1b'), "{}", failed.err);
    // Nobody is there to answer.
    assert!(exec("input('?')").err.contains("EOFError"));

    let mut command = world.command("runt");
    command.args(["jupyter", "exec", "otter", "print('begun', flush=True)\nimport time; time.sleep(600)"]);
    let mut sleeper = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(sleeper.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "begun");
    // It is busy, and told apart from one that is gone all the same.
    assert_eq!(world.ps()[0]["status"], "alive");
    world.runt(&["jupyter", "interrupt", "otter"]).good();
    let said = Said::of(sleeper.wait_with_output().unwrap());
    assert!(said.code == 1 && said.err.contains("KeyboardInterrupt"), "{}", said.err);

    assert_eq!(world.runt(&["jupyter", "stop", "otter"]).good().out, "Kernel with ID otter stopped\n");
    assert!(!file.exists() && !is_running(pid));
    assert_eq!(world.runt(&["ps"]).good().out, "No running kernels found.\n");
}

#[test]
fn kernels_of_jupyter_client_are_ours_and_ours_are_its() {
    let Some(world) = World::new() else { return };
    fs::create_dir_all(world.home().join(".local/share/jupyter/runtime")).unwrap();
    let mut theirs = world
        .python(
            "import sys\n\
             from jupyter_client import MultiKernelManager\n\
             from jupyter_core.paths import jupyter_runtime_dir\n\
             # As Jupyter's server does.\n\
             managers = MultiKernelManager(connection_dir=jupyter_runtime_dir())\n\
             manager = managers.get_kernel(managers.start_kernel(kernel_name='python3'))\n\
             print(manager.connection_file, flush=True)\n\
             sys.stdin.read()\n\
             manager.provisioner.process.wait(60)\n\
             print(manager.is_alive())\n",
        )
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(theirs.stdout.take().unwrap()).lines().map_while(Result::ok);
    let file = PathBuf::from(lines.next().unwrap());
    let id = file.file_stem().unwrap().to_str().unwrap().strip_prefix("kernel-").unwrap().to_owned();
    assert_eq!(world.runt(&["jupyter", "exec", &id, "40 + 2"]).good().out, "42\n");
    let row = world.ps().remove(0);
    assert_eq!(
        (&row["name"], &row["status"], &row["language"]),
        (&json!(id[..8]), &json!("alive"), &json!("python"))
    );
    // What another program started is ended by name only.
    assert_eq!(world.runt(&["jupyter", "stop", "--all"]).good().out, "No running kernels found.\n");
    world.runt(&["jupyter", "stop", &id[..8]]).good();
    assert!(!is_running(row["pid"].as_u64().unwrap()));
    drop(theirs.stdin.take());
    assert_eq!(lines.next().unwrap(), "False");
    theirs.wait().unwrap();

    world.runt(&["jupyter", "start", "python3", "--name", "ours"]).good();
    let driven = world
        .python(
            "import os\n\
             from jupyter_client import BlockingKernelClient, find_connection_file\n\
             client = BlockingKernelClient(connection_file=find_connection_file(os.environ['XDG_RUNTIME_DIR'] + '/jupyter/runt-kernel-ours.json'))\n\
             client.load_connection_file()\n\
             client.start_channels()\n\
             client.wait_for_ready(timeout=60)\n\
             client.execute_interactive('print(6 * 7)', timeout=60)\n\
             client.shutdown()\n",
        )
        .output()
        .unwrap();
    assert_eq!(Said::of(driven).good().out, "42\n");
}

#[test]
fn what_hangs_or_is_gone_is_told_apart_and_cleaned_up() {
    let Some(world) = World::new() else { return };
    let folder = world.home().join("run/jupyter");
    fs::create_dir_all(&folder).unwrap();
    // It takes connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let connection = |port: u16| {
        json!({
            "ip": "127.0.0.1", "transport": "tcp", "key": "k", "signature_scheme": "hmac-sha256",
            "shell_port": port, "iopub_port": port, "stdin_port": port, "control_port": port, "hb_port": port,
        })
    };
    fs::write(folder.join("kernel-silent.json"), connection(port).to_string()).unwrap();
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    fs::write(folder.join("runt-kernel-gone.json"), connection(gone).to_string()).unwrap();
    fs::write(folder.join("kernel-broken.json"), "{").unwrap();
    let rows = world.ps();
    let seen: Vec<_> =
        rows.iter().map(|row| (row["name"].as_str().unwrap(), row["status"].as_str().unwrap())).collect();
    assert_eq!(seen, [("gone", "unresponsive"), ("silent", "unresponsive")]);

    let said = world.runt(&["jupyter", "clean", "--dry-run", "--timeout", "0.2"]).good();
    assert!(said.out.ends_with("Dry run complete: 2 stale, 0 alive, 1 errors\n"), "{}", said.out);
    let said = world.runt(&["jupyter", "stop", "gone"]).good();
    assert!(said.out.contains("had ended already"), "{}", said.out);
    let said = world.runt(&["jupyter", "clean", "--timeout", "0.2"]).good();
    assert!(said.out.ends_with("Cleaned 1 stale connection files (0 alive, 1 errors)\n"), "{}", said.out);
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
}

#[test]
fn a_kernel_that_hangs_is_stopped_by_force() {
    let Some(world) = World::new() else { return };
    world.runt(&["jupyter", "start", "python3", "--name", "hangs"]).good();
    let pid = world.ps()[0]["pid"].as_u64().unwrap();
    let stopped = std::process::Command::new("kill").args(["-STOP", &pid.to_string()]).status().unwrap();
    assert!(stopped.success());
    assert_eq!(world.ps()[0]["status"], "unresponsive");
    world.runt(&["jupyter", "stop", "hangs"]).good();
    assert!(!is_running(pid));
}

#[test]
fn what_cannot_start_says_why_and_leaves_nothing() {
    let Some(world) = World::new() else { return };
    let said = world.runt(&["jupyter", "start", "cobol"]);
    assert_eq!(said.code, 1);
    assert!(said.err.starts_with("Error: There is no kernel cobol. Installed are: "), "{}", said.err);
    let spec = world.home().join(".local/share/jupyter/kernels/broken");
    fs::create_dir_all(&spec).unwrap();
    let json = json!({"argv": ["sh", "-c", "echo no such module >&2; exit 3"], "display_name": "Broken"});
    fs::write(spec.join("kernel.json"), json.to_string()).unwrap();
    let said = world.runt(&["jupyter", "start", "broken"]);
    let told = "The kernel did not start: exit status: 3; its last words: no such module";
    assert!(said.code == 1 && said.err.contains(told), "{}", said.err);
    assert_eq!(fs::read_dir(world.home().join("run/jupyter")).unwrap().count(), 0);
    let said = world.runt(&["jupyter", "stop"]);
    let told = "Error: Either provide a kernel ID or use --all to stop all kernels\nSee the kernels with 'runt ps'.\n";
    assert_eq!(said.err, told);
    let said = world.runt(&["jupyter", "stop", "nobody"]);
    assert_eq!(said.err, "Error: There is no kernel nobody. See what there is with 'runt ps'.\n");
}
