//! `runt diagnostics`: what is in the bundle, and what is not.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a step that fails is a failed test"
)]

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::Value;

#[allow(dead_code, reason = "shared with the tests of kernels, which use the rest of it")]
#[path = "kernels/world.rs"]
mod world;

use world::World;

/// Stands where a secret would. Not one of them may be in a bundle.
const SEEDS: [&str; 9] = [
    "swordfish-0",
    "swordfish-1",
    "swordfish-2",
    "swordfish-3",
    "swordfish-4",
    "swordfish-5",
    "swordfish-6",
    "swordfish-7",
    "swordfish-8",
];

const SETTINGS: &str = r#"{ "install_default_data_packages": false, "kernels": { "warm": 0 }, "uv_pool_size": 0,
    "conda_pool_size": 0, "pixi_pool_size": 0, "theme": "dark",
    "uv": { "index": "https://ana:swordfish-0@packages.example.org/simple" },
    "mine": { "api_token": "swordfish-1", "env": { "PLAIN": "swordfish-2" } } }"#;

/// What another program, or an error, may have put into a log.
const LOG: &str = "2026-11-22 13:16:51  WARN x: GET https://u:swordfish-3@h/p?sig=swordfish-4 -> 403
2026-11-22 13:16:51  WARN x: env PIP_CONFIG=swordfish-5 Authorization: Bearer swordfish-6
2026-11-22 13:16:51  WARN x: it said swordfish-7 and swordfish-1, and that the disk is full
";

fn unpacked(archive: &Path) -> BTreeMap<String, String> {
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(fs::File::open(archive).unwrap()));
    let files = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().to_string_lossy().into_owned();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        (name.split_once('/').unwrap().1.to_owned(), text)
    });
    files.collect()
}

#[test]
fn a_bundle_says_what_is_wrong_and_no_secret() {
    let Some(world) = World::new() else { return };
    fs::write(world.home().join(".config/nteract/settings.json"), SETTINGS).unwrap();
    let base = world.home().join(".cache/runt");
    // A notebook, which is nobody's business.
    fs::write(world.home().join("work/a.ipynb"), r#"{"cells": [], "note": "swordfish-8"}"#).unwrap();
    let bundle = |expect_running: bool| {
        let mut runt = world.command("runt");
        runt.args(["diagnostics", "--json"])
            .env("ACME_SECRET", "swordfish-7")
            .env("UV_INDEX_PASSWORD", "swordfish-7");
        let said = world::Said::of(runt.output().unwrap()).json();
        let path = Path::new(said["path"].as_str().unwrap());
        assert!(path.starts_with(world.home().join("work")), "{}", path.display());
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        let files = unpacked(path);
        for (name, text) in &files {
            for seed in SEEDS {
                assert!(!text.contains(seed), "{name} has {seed}:\n{text}");
            }
            assert!(!text.contains(&*world.home().to_string_lossy()), "{name}:\n{text}");
        }
        let status: Value = serde_json::from_str(&files["daemon-status.json"]).unwrap();
        assert_eq!(status["running"], expect_running);
        let settings: Value = serde_json::from_str(&files["settings.json"]).unwrap();
        assert_eq!(
            (settings["theme"].as_str(), settings["mine"]["api_token"].as_str()),
            (Some("dark"), Some("[removed]"))
        );
        let system: Value = serde_json::from_str(&files["system-info.json"]).unwrap();
        assert!(
            system["set_variables"].as_array().unwrap().contains(&"UV_INDEX_PASSWORD".into()),
            "{system}"
        );
        let doctor: Value = serde_json::from_str(&files["doctor.json"]).unwrap();
        assert!(doctor["diagnosis"].is_string());
        fs::remove_file(path).unwrap();
        files
    };
    let down = bundle(false);
    assert!(!down.contains_key("runtimed.log") && down.contains_key("plugins.json"));

    world.runt(&["daemon", "start"]).good();
    let mut log = fs::OpenOptions::new().append(true).open(base.join("runtimed.log")).unwrap();
    std::io::Write::write_all(&mut log, LOG.as_bytes()).unwrap();
    // Nothing of ours writes there, and what does may keep outputs.
    fs::create_dir(base.join("mcp-logs")).unwrap();
    fs::write(base.join("mcp-logs/2026-11-22-0a1b2c3d.log"), "swordfish-8").unwrap();
    let up = bundle(true);
    assert!(up["runtimed.log"].contains("that the disk is full") && up["runtimed.log"].contains("403"));
    assert!(!up.keys().any(|name| name.contains("mcp")));

    let elsewhere = world.home().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let said = world.runt(&["diagnostics", "-o", elsewhere.to_str().unwrap()]).good();
    assert!(said.out.starts_with("Wrote ~/elsewhere/runt-diagnostics-"), "{}", said.out);

    // Nobody can tell what is secret in a file that cannot be read.
    let broken = SETTINGS.replace("swordfish-0", "swordfish-8").replace("\"theme\": \"dark\",", "oops");
    fs::write(world.home().join(".config/nteract/settings.json"), broken).unwrap();
    let said = world.runt(&["diagnostics", "-o", world.home().to_str().unwrap(), "--json"]).good().json();
    let files = unpacked(Path::new(said["path"].as_str().unwrap()));
    let left_out = &files["settings.json.invalid"];
    assert!(left_out.contains("left out: ") && left_out.contains("line 2"), "{left_out}");
    for (name, text) in &files {
        assert!(
            !SEEDS.iter().any(|seed| text.contains(seed) && name.starts_with("settings")),
            "{name}:\n{text}"
        );
    }

    let refused = world.runt(&["diagnostics", "-o", "/nowhere"]);
    assert!(
        refused.code == 1 && refused.err.contains("Name another folder with --output"),
        "{}",
        refused.err
    );
}
