//! The pool channel of a daemon without plugins.

use serde_json::{Value, json};

use crate::support::{Daemon, PREAMBLE};

#[test]
fn questions_are_answered_in_order_also_when_they_come_at_once() {
    let daemon = Daemon::start();
    let mut client = daemon.dial();
    let mut burst = PREAMBLE.to_vec();
    for body in [
        r#"{"channel":"pool"}"#,
        r#"{"type":"ping","zzz":1}"#,
        r#"{"type":"status"}"#,
        r#"{"type":"flush_pool"}"#,
    ] {
        burst.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
        burst.extend(body.as_bytes());
    }
    client.write(&burst);
    let kinds = [0; 3].map(|_| serde_json::from_slice::<Value>(&client.receive()).unwrap()["type"].clone());
    assert_eq!(kinds, ["pong", "stats", "flushed"]);
}

#[test]
fn the_daemon_says_who_it_is() {
    let daemon = Daemon::start();
    let info = daemon.ask(json!({"type": "get_daemon_info"}));
    assert_eq!(info["type"], "daemon_info");
    assert_eq!((&info["protocol_version"], &info["daemon_api_version"]), (&json!(4), &json!(1)));
    assert_eq!(info["pid"], daemon.pid());
    assert!(info["blob_port"].is_u64());
    assert_eq!(info["execution_store_dir"], json!(daemon.base().join("executions")));
    assert!(info.get("host_telemetry").is_none());
    let pong = daemon.ask(json!({"type": "ping"}));
    assert_eq!((&pong["protocol_version"], &pong["daemon_version"]), (&json!(4), &info["daemon_version"]));
    let metrics = daemon.ask(json!({"type": "get_runtime_metrics"}));
    assert_eq!(
        metrics["worker_busy_us"].as_array().unwrap().len() as u64,
        metrics["num_workers"].as_u64().unwrap()
    );
}

#[test]
fn without_plugins_there_is_nothing_and_what_is_missing_is_named() {
    let daemon = Daemon::start();
    let ask = |request: Value| daemon.ask(request);
    assert_eq!(ask(json!({"type": "list_plugins"}))["plugins"], json!([]));
    assert_eq!(ask(json!({"type": "list_rooms"}))["rooms"], json!([]));
    assert_eq!(ask(json!({"type": "active_env_paths"}))["paths"], json!([]));
    assert_eq!(ask(json!({"type": "take", "env_type": "uv"})), json!({"type": "empty"}));
    let state = ask(json!({"type": "status"}))["state"].clone();
    for kind in ["uv", "conda", "pixi"] {
        assert_eq!((&state[kind]["available"], &state[kind]["pool_size"]), (&json!(0), &json!(0)), "{kind}");
    }
    let stolen = json!({"env_type": "uv", "venv_path": "/etc", "python_path": "/etc/python"});
    assert_eq!(ask(json!({"type": "return", "env": stolen}))["type"], "error");
    for request in [
        json!({"type": "get_execution_result", "execution_id": "x"}),
        json!({"type": "inspect_notebook", "notebook_id": "x"}),
        json!({"type": "get_notebook_projection", "notebook_id": "x"}),
        json!({"type": "shutdown_notebook", "notebook_id": "x"}),
    ] {
        let reply = ask(request);
        assert_eq!(reply["type"], "error");
        assert!(reply["message"].as_str().unwrap().contains("`rooms`"), "{reply}");
    }
}

#[test]
fn a_request_nobody_knows_gets_an_error_and_the_connection_goes_on() {
    let daemon = Daemon::start();
    let mut client = daemon.connect(json!({"channel": "pool"}));
    for request in [
        json!({"type": "bogus"}),
        json!({"type": "take"}),
        json!({}),
        json!([]),
        json!({"type": "take", "env_type": 1}),
    ] {
        assert_eq!(client.ask(request.clone())["type"], "error", "{request}");
    }
    assert_eq!(client.ask(json!({"type": "ping"}))["type"], "pong");
}

#[test]
fn a_notebook_without_the_rooms_plugin_is_refused_by_name() {
    let daemon = Daemon::start();
    for handshake in [
        json!({"channel": "create_notebook", "runtime": "python"}),
        json!({"channel": "open_notebook", "path": "/tmp/x.ipynb"}),
        json!({"channel": "notebook_sync", "notebook_id": "x"}),
    ] {
        let mut bare = daemon.connect(handshake.clone());
        let reply: Value = serde_json::from_slice(&bare.receive()).unwrap();
        assert!(reply["error"].as_str().unwrap().contains("`rooms`"), "{reply}");
        assert!(reply.get("type").is_none());
        assert!(bare.rest().is_empty());

        let mut typed = handshake;
        typed["typed_bootstrap"] = json!(true);
        let mut typed = daemon.connect(typed);
        let body = typed.receive();
        let reply: Value = serde_json::from_slice(&body[1..]).unwrap();
        assert_eq!(
            (body[0], &reply["type"], &reply["notebook_id"]),
            (7, &json!("notebook_connection_info"), &json!(""))
        );
        assert!(typed.rest().is_empty());
    }
}
