//! What environments take on disk, and what becomes of those that nobody needs.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use runtimed_client::Client;
use serde_json::{Value, json};

use crate::offline::with_six;
use crate::support::Daemon;
use crate::world::{log, notebook, prefix, run, settings, settled, start, stop, templates};

/// What `runt env ... --json` prints.
fn env(daemon: &Daemon, arguments: &[&str]) -> Value {
    let done = runt(daemon, arguments);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    serde_json::from_slice(&done.stdout).unwrap()
}

fn runt(daemon: &Daemon, arguments: &[&str]) -> std::process::Output {
    let program = PathBuf::from(env::var_os("RUNTIMED_TEST_DIST").unwrap()).join("bin/runt");
    let mut command = Command::new(program);
    command.arg("env").args(arguments).arg("--json").env("RUNTIMED_SOCKET_PATH", &daemon.socket);
    command.env("HOME", daemon.home.path()).output().unwrap()
}

fn row<'a>(list: &'a Value, path: &Path) -> &'a Value {
    let rows = list["environments"].as_array().unwrap();
    rows.iter().find(|row| Path::new(row["path"].as_str().unwrap()) == path).expect("it is listed")
}

/// Makes it look as if it had not been used for two days.
fn age(prefix: &Path) {
    fs::write(prefix.join(".last-used"), "1000000000").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_is_listed_and_what_nobody_needs_goes() {
    let mut wanted = settings(1);
    wanted["environments"]["max_gib"] = json!(7);
    let Some(mut daemon) = start(&wanted, |_| {}) else { return };
    settled(&daemon, 1);
    let (template, _) = templates(&daemon).remove(0);
    let (pooled, declared) = (notebook(&daemon).await, with_six(&daemon).await);
    let (taken, cached) = (prefix(&pooled).await, prefix(&declared).await);
    settled(&daemon, 1);

    let list = env(&daemon, &["list"]);
    let owner = |path: &Path| (row(&list, path)["owner"].clone(), row(&list, path)["in_use"].clone());
    assert_eq!(owner(&template), (json!("template"), json!(false)));
    assert_eq!(owner(&taken), (json!("room"), json!(true)));
    assert_eq!(owner(&cached), (json!("cache"), json!(true)));
    assert_eq!(row(&list, &taken)["taken_by"], json!(pooled.notebook_id().unwrap()));
    assert!(row(&list, &cached)["packages"].as_array().unwrap().contains(&json!("six")));
    // What is shared counts once.
    let sum: u64 =
        list["environments"].as_array().unwrap().iter().map(|row| row["bytes"].as_u64().unwrap()).sum();
    assert!(list["bytes"].as_u64() < Some(sum), "{list:#}");
    let bytes = |name: &str| row(&list, &taken)[name].as_u64().unwrap();
    assert!(bytes("own_bytes") * 2 < bytes("bytes"), "{list:#}");
    let stats = env(&daemon, &["stats"]);
    assert_eq!((&stats["bytes"], &stats["budget_bytes"]), (&list["bytes"], &json!(7_u64 << 30)));

    // A folder of somebody else's is none of ours, wherever it is.
    let stranger = cached.with_file_name("of-somebody-else");
    fs::create_dir(&stranger).unwrap();
    age(&stranger);
    let refused = runt(&daemon, &["rebuild", stranger.to_str().unwrap()]);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("is not an environment of this daemon. It was left as it is."), "{said}");
    let up = cached.with_file_name("..");
    assert!(!runt(&daemon, &["rebuild", up.to_str().unwrap()]).status.success());

    // Whatever is asked, what is in use stays, and so does what the pool keeps.
    age(&cached);
    let cleaned = env(&daemon, &["clean", "--all"]);
    assert_eq!(cleaned["removed"], json!([]), "{cleaned:#}");
    let kept = |path: &Path| {
        let kept = cleaned["kept"].as_array().unwrap().iter();
        kept.clone().find(|it| Path::new(it["path"].as_str().unwrap()) == path).unwrap()["reason"].clone()
    };
    assert_eq!((kept(&cached), kept(&template)), (json!("in use"), json!("the pool keeps it")));
    let refused = runt(&daemon, &["rebuild", cached.to_str().unwrap()]);
    assert!(!refused.status.success());
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("was kept: a notebook has it. Nothing was changed."), "{said}");

    // Nobody uses it any more.
    let client = Client::new(&daemon.socket);
    client.shutdown_notebook(&declared.notebook_id().unwrap()).await.unwrap();
    declared.close().await;
    age(&cached);
    let would = env(&daemon, &["clean", "--all", "--dry-run"]);
    assert_eq!(
        (&would["dry_run"], &would["removed"][0]["path"]),
        (&json!(true), &json!(cached)),
        "{would:#}"
    );
    assert!(cached.exists());
    assert_eq!(env(&daemon, &["clean"])["removed"], json!([]), "it is one of ten");
    let cleaned = env(&daemon, &["clean", "--all"]);
    assert_eq!(cleaned["removed"], would["removed"]);
    assert!(!cached.exists() && taken.exists() && template.exists() && stranger.exists());
    assert_eq!(run(&pooled, "still", "import ipykernel.comm").await.0.success, Some(true));

    // Without a daemon nobody knows.
    let rebuilt = env(&daemon, &["rebuild"])["rebuilt"].clone();
    assert!(rebuilt.as_array().is_some_and(|kinds| kinds.contains(&json!("uv"))), "{rebuilt}");
    daemon.ask(json!({ "type": "shutdown" }));
    assert!(daemon.ended().success());
    for command in ["list", "stats", "clean", "rebuild"] {
        let done = runt(&daemon, &[command]);
        let said = String::from_utf8(done.stderr).unwrap();
        assert!(
            !done.status.success()
                && said.contains("Nothing was changed.")
                && said.contains("runt daemon start"),
            "{said}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_environment_is_rebuilt_when_a_notebook_wants_it() {
    let Some(daemon) = start(&settings(1), |_| {}) else { return };
    settled(&daemon, 1);
    let first = with_six(&daemon).await;
    let cached = prefix(&first).await;
    Client::new(&daemon.socket).shutdown_notebook(&first.notebook_id().unwrap()).await.unwrap();
    first.close().await;
    let library = fs::read_dir(cached.join("lib")).unwrap().next().unwrap().unwrap().path();
    fs::remove_dir_all(library.join("site-packages/ipykernel")).unwrap();
    let second = with_six(&daemon).await;
    assert_eq!(prefix(&second).await, cached);
    assert_eq!(log(&daemon).matches("is broken and is rebuilt: ipykernel is not installed").count(), 1);
    stop(daemon);
}
