//! Real ipykernels through the capability, on the static carrier.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a helper that fails fails its test")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use runtimed_plugin_api::{Bytes, Channel, ErrorCode, ExitReport, KernelEvents, LaunchCommand};
use serde_json::json;
use support::{Recorder, World, execute, is_running, kernel_python, request, result, stream, until_gone};

#[tokio::test]
async fn a_kernel_runs_code_and_ends_when_asked() {
    let world = World::new().await;
    let Some((kernel, mut recorder)) = world.launch().await else { return };
    let info = kernel.info();
    assert_eq!(info.reply["language_info"]["name"], "python");
    let pid = info.pid.unwrap();

    let (messages, reply) = recorder.run(&*kernel, "import os; print('hello'); os.getpid()").await;
    assert_eq!((stream(&messages, "stdout").as_str(), &reply["status"]), ("hello\n", &json!("ok")));
    assert_eq!(result(&messages), Some(pid.to_string().as_str()));
    assert_eq!(reply["execution_count"], 1, "the handshake took no number");

    // What the launch ran to prepare the kernel is nowhere to be seen.
    let (messages, _) = recorder.run(&*kernel, "[line[:6] for line in In], dir().count('socket')").await;
    assert_eq!(result(&messages), Some("(['', 'import', '[line['], 0)"));

    let (messages, reply) = recorder.run(&*kernel, "1/0").await;
    assert_eq!(reply["ename"], "ZeroDivisionError");
    assert!(messages.iter().any(|message| message.kind == "error"));

    let report = kernel.shutdown(Duration::from_secs(10)).await.unwrap();
    assert_eq!((report.code, report.signal, report.requested), (Some(0), None, true), "{report:?}");
    assert_eq!(recorder.exit().await, report);
    assert_eq!(kernel.shutdown(Duration::ZERO).await.unwrap(), report, "asking again is harmless");
    let refused = kernel.send(Channel::Shell, request("late", "kernel_info_request", &json!({})));
    assert_eq!(refused.unwrap_err().code, ErrorCode::Unavailable);
    assert!(!is_running(pid));
    assert_eq!(world.folders(), 0);
    world.end().await;
}

#[tokio::test]
async fn the_environment_is_the_one_that_was_asked_for() {
    let world = World::new().await;
    let Some(python) = kernel_python() else { return };
    let mut spec = world.spec(python);
    spec.command.env.insert("VIRTUAL_ENV".into(), "/some/env".into());
    spec.command.path.push("/some/env/bin".into());
    let (mut recorder, events) = Recorder::new();
    let kernel = world.backend.launch(spec, events).await.unwrap();
    let code = "import os, sys; e = os.environ\n\
        (e['COLUMNS'], e['LINES'], e['VIRTUAL_ENV'], e['PATH'].split(':')[0], os.getcwd(), os.getsid(0) == os.getpid())";
    let (messages, _) = recorder.run(&*kernel, code).await;
    let cwd = world.base.path().canonicalize().unwrap();
    let expected = format!("('128', '100', '/some/env', '/some/env/bin', '{}', True)", cwd.display());
    assert_eq!(result(&messages), Some(expected.as_str()));
    drop(kernel);
    world.end().await;
}

#[tokio::test]
async fn two_hundred_thousand_lines_arrive_complete_and_in_order() {
    let world = World::new().await;
    let Some((kernel, mut recorder)) = world.launch().await else { return };
    let (messages, _) = recorder.run(&*kernel, "for i in range(200_000): print(i)").await;
    let text = stream(&messages, "stdout");
    assert!(text.lines().enumerate().all(|(number, line)| line == number.to_string()));
    assert_eq!(text.lines().count(), 200_000);
    drop(kernel);
    world.end().await;
}

#[tokio::test]
async fn ten_thousand_displays_arrive_complete_and_in_order() {
    let world = World::new().await;
    let Some((kernel, mut recorder)) = world.launch().await else { return };
    let code = "from IPython.display import display\nfor i in range(10_000): display(i)";
    let (messages, _) = recorder.run(&*kernel, code).await;
    let shown = messages.iter().filter(|message| message.kind == "display_data");
    let shown: Vec<_> =
        shown.map(|message| message.content["data"]["text/plain"].as_str().unwrap()).collect();
    let expected: Vec<_> = (0..10_000).map(|number| number.to_string()).collect();
    assert_eq!(shown, expected);
    drop(kernel);
    world.end().await;
}

/// The contract says a consumer must not block. If one does, its room is late and complete.
#[tokio::test]
async fn a_consumer_that_blocks_loses_nothing() {
    struct Blocking(AtomicUsize, Arc<dyn KernelEvents>);
    impl KernelEvents for Blocking {
        fn message(&self, sequence: u64, channel: Channel, message: Bytes) {
            if self.0.fetch_add(1, Ordering::Relaxed).is_multiple_of(500) {
                std::thread::sleep(Duration::from_millis(200));
            }
            self.1.message(sequence, channel, message);
        }

        fn exited(&self, report: ExitReport) {
            self.1.exited(report);
        }
    }
    let world = World::new().await;
    let Some(python) = kernel_python() else { return };
    let (mut recorder, events) = Recorder::new();
    let events = Arc::new(Blocking(AtomicUsize::new(0), events));
    let kernel = world.backend.launch(world.spec(python), events).await.unwrap();
    let code = "from IPython.display import display\nfor i in range(4_000): display(i)";
    let (messages, _) = recorder.run(&*kernel, code).await;
    assert_eq!(messages.iter().filter(|message| message.kind == "display_data").count(), 4_000);
    drop(kernel);
    world.end().await;
}

#[tokio::test]
async fn an_interrupt_stops_a_cell_and_the_command_it_runs() {
    let world = World::new().await;
    let Some((kernel, mut recorder)) = world.launch().await else { return };
    let id = execute(
        &*kernel,
        "import subprocess\nprint('running', flush=True)\nsubprocess.run(['sleep', '600'])",
    );
    recorder.until(|message| message.kind == "stream").await;
    kernel.interrupt().await.unwrap();
    let (_, reply) = recorder.answer(&id).await;
    assert_eq!(reply["ename"], "KeyboardInterrupt");
    let (messages, _) = recorder.run(&*kernel, "'still here'").await;
    assert_eq!(result(&messages), Some("'still here'"));
    drop(kernel);
    world.end().await;
}

/// The state of an interrupt that came right before `sleep`: another thread took the signal, and the main thread, which
/// has to act on it, does not wake up.
#[tokio::test]
async fn an_interrupt_that_python_overlooks_is_noticed_all_the_same() {
    let world = World::new().await;
    let Some((kernel, mut recorder)) = world.launch().await else { return };
    let code = "import signal, time\nsignal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})\n\
        print('running')\ntime.sleep(600)";
    let id = execute(&*kernel, code);
    recorder.until(|message| message.kind == "stream").await;
    kernel.interrupt().await.unwrap();
    let (_, reply) = recorder.answer(&id).await;
    assert_eq!(reply["ename"], "KeyboardInterrupt");
    drop(kernel);
    world.end().await;
}

/// A child of a child, which the shim has taken over, dies of a signal that has no name.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_end_of_an_orphan_is_not_the_kernels() {
    let world = World::new().await;
    let Some((kernel, mut recorder)) = world.launch().await else { return };
    let code = "import os, subprocess, time\n\
        orphan = int(subprocess.check_output(['sh', '-c', 'sleep 600 > /dev/null & echo $!']))\n\
        os.kill(orphan, 40)\n\
        while os.path.exists(f'/proc/{orphan}'): time.sleep(0.001)\n\
        print('buried')";
    let id = execute(&*kernel, code);
    let (_, reply) = recorder.answer(&id).await;
    assert_eq!(reply["status"], "ok");
    let id = execute(&*kernel, "1");
    let (_, reply) = recorder.answer(&id).await;
    assert_eq!(reply["status"], "ok");
    drop(kernel);
    world.end().await;
}

#[tokio::test]
async fn code_can_ask_for_input() {
    let world = World::new().await;
    let Some((kernel, mut recorder)) = world.launch().await else { return };
    let id = execute(&*kernel, "input('name? ')");
    let prompt = recorder.until(|message| message.kind == "input_request").await;
    assert_eq!((prompt.channel, &prompt.content["prompt"]), (Channel::Stdin, &json!("name? ")));
    kernel.send(Channel::Stdin, request("answer", "input_reply", &json!({ "value": "Ana" }))).unwrap();
    let (messages, _) = recorder.answer(&id).await;
    assert_eq!(result(&messages), Some("'Ana'"));
    drop(kernel);
    world.end().await;
}

#[tokio::test]
async fn a_request_that_is_repeated_runs_once() {
    let world = World::new().await;
    let Some((kernel, mut recorder)) = world.launch().await else { return };
    let content = json!({ "code": "n = globals().get('n', 0) + 1" });
    let twice = request("the-same-id", "execute_request", &content);
    kernel.send(Channel::Shell, twice.clone()).unwrap();
    kernel.send(Channel::Shell, twice).unwrap();
    let (messages, _) = recorder.run(&*kernel, "n").await;
    assert_eq!(result(&messages), Some("1"));
    assert_eq!(kernel.send(Channel::Shell, "rubbish".into()).unwrap_err().code, ErrorCode::Invalid);
    drop(kernel);
    world.end().await;
}

#[tokio::test]
async fn a_kernel_that_dies_says_how_after_its_last_words() {
    let world = World::new().await;
    let Some((kernel, mut recorder)) = world.launch().await else { return };
    let (messages, _) = recorder.run(&*kernel, "print('last words')").await;
    assert_eq!(stream(&messages, "stdout"), "last words\n");
    execute(&*kernel, "import os; os.kill(os.getpid(), 9)");
    let report = recorder.exit().await;
    assert_eq!((report.code, report.signal, report.requested), (None, Some(9), false));
    assert!(!report.out_of_memory);
    world.end().await;
}

#[tokio::test]
async fn a_kernel_that_will_not_stop_is_ended_with_its_children() {
    let world = World::new().await;
    let Some((kernel, mut recorder)) = world.launch().await else { return };
    let code = "import signal, subprocess, time\n\
        for ignored in signal.SIGINT, signal.SIGTERM: signal.signal(ignored, signal.SIG_IGN)\n\
        print(subprocess.Popen(['sleep', '600']).pid, flush=True)\n\
        while True: time.sleep(600)";
    execute(&*kernel, code);
    let message = recorder.until(|message| message.kind == "stream").await;
    let child: u32 = message.content["text"].as_str().unwrap().trim().parse().unwrap();
    assert!(is_running(child));
    let report = kernel.shutdown(Duration::from_millis(500)).await.unwrap();
    assert_eq!((report.signal, report.requested), (Some(9), true));
    until_gone(|| is_running(child)).await;
    world.end().await;
}

#[tokio::test]
async fn a_launch_that_is_dropped_leaves_nothing() {
    let world = World::new().await;
    let Some(python) = kernel_python() else { return };
    // Writes its process id, then never opens a socket.
    let script = "import os, sys, time; open('pid.tmp', 'w').write(str(os.getpid())); os.rename('pid.tmp', 'pid'); time.sleep(600)";
    let mut spec = world.spec(python);
    spec.command.argv.extend(["-c".into(), script.into()]);
    let (_recorder, events) = Recorder::new();
    let file = world.base.path().join("pid");
    let launch = world.backend.launch(spec, events);
    tokio::select! {
        _ = launch => unreachable!("it never answers"),
        () = until_gone(|| !file.exists()) => {}
    }
    let pid = std::fs::read_to_string(file).unwrap().parse().unwrap();
    until_gone(|| is_running(pid) || world.folders() > 0).await;
    world.end().await;
}

#[tokio::test]
async fn a_launch_that_fails_says_why() {
    let world = World::new().await;
    let Some(python) = kernel_python() else { return };
    let launch = async |change: &dyn Fn(&mut runtimed_plugin_api::LaunchSpec)| {
        let mut spec = world.spec(python.clone());
        change(&mut spec);
        world.backend.launch(spec, Recorder::new().1).await.err().unwrap()
    };

    let error = launch(&|spec| {
        let script = "import sys; sys.stderr.write('No module named ipykernel_launcher\\n'); sys.exit(3)";
        spec.command.argv.extend(["-c".into(), script.into()]);
    });
    let error = error.await;
    assert_eq!(error.code, ErrorCode::Unavailable);
    assert_eq!(
        error.message,
        "Kernel process exited: exit code 3\nstderr tail:\nNo module named ipykernel_launcher"
    );
    let error = launch(&|spec| spec.command.argv = vec!["/no/such/python".into()]).await;
    assert_eq!(error.code, ErrorCode::NotFound);
    assert!(error.message.contains("/no/such/python"), "{error}");
    let error = launch(&|spec| spec.cwd = "/no/such/folder".into()).await;
    assert!(error.message.contains("/no/such/folder"), "{error}");
    let error = launch(&|spec| spec.command = LaunchCommand::default()).await;
    assert_eq!(error.code, ErrorCode::Invalid);
    let error = launch(&|spec| spec.kind = "fortran".into()).await;
    assert_eq!(error.code, ErrorCode::Unsupported);
    assert_eq!(world.folders(), 0);
    world.end().await;
}

#[tokio::test]
async fn stopping_the_plugin_ends_kernels_that_somebody_holds_and_lets_go_of_others() {
    let world = World::new().await;
    let Some((held, mut recorder)) = world.launch().await else { return };
    let Some((let_go, _)) = world.launch().await else { return };
    let pids = [held.info().pid.unwrap(), let_go.info().pid.unwrap()];
    assert_eq!(world.folders(), 2);
    let_go.acknowledge(0);
    drop(let_go);
    world.plugin.stop(Duration::from_secs(10)).await.unwrap();
    assert!(recorder.exit().await.requested);
    assert_eq!(pids.map(is_running), [false, true]);
    // The next one of the same base.
    World::at(world.base).await.end().await;
    assert_eq!(pids.map(is_running), [false, false]);
}
