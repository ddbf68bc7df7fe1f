//! Plugins of every ABI there is in hosts of every ABI there is: what loads works on both sides, what must
//! not load is refused in one sentence. plugin-api/fixtures/README.md lists the fixtures.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a step that fails is a failed test")]
#![allow(clippy::print_stderr, reason = "a skipped test says so")]

#[path = "support/fixture.rs"]
mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use runtimed_plugin_api::EnvRequest;
use runtimed_plugin_api::adapter::{ABI_MAJOR, ABI_MINOR, Library, Refusal};
use support::{TestHost, fixture_library};
use tokio::runtime::Handle;

/// Major and minor.
type Abi = (u16, u16);

const TODAY: Abi = (ABI_MAJOR, ABI_MINOR);
/// What `next` appends its members to.
const NEXT: Abi = (ABI_MAJOR, ABI_MINOR + 1);
const AUTHOR: &str = "ask its author to build it against a released runtimed-plugin-api";

/// A library to load.
struct Plugin {
    name: String,
    abi: Abi,
    path: PathBuf,
}

/// A program that loads a library.
struct Probe {
    abi: Abi,
    path: PathBuf,
}

/// Every plugin and every probe, or a word about why there are none.
fn fixtures() -> Option<(Vec<Plugin>, Vec<Probe>)> {
    let Some(folder) = env::var_os("RUNTIMED_TEST_ABI_FIXTURES").map(PathBuf::from) else {
        eprintln!("skipped: no fixtures of other ABI versions. `cargo xtask test` compiles them.");
        return None;
    };
    let abi = |name: &str| match name {
        "next" => NEXT,
        "major" | "symbol" => (ABI_MAJOR + 1, 0),
        "unreleased" | "inserted" | "changed" | "abort" => TODAY,
        frozen => {
            let (major, minor) = frozen.split_once('.').unwrap();
            (major.parse().unwrap(), minor.parse().unwrap())
        }
    };
    let (mut plugins, mut probes) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let file = path.file_name().unwrap().to_str().unwrap();
        if let Some(name) = file.strip_prefix("plugin-").and_then(|it| it.strip_suffix(".so")) {
            plugins.push(Plugin { name: name.to_owned(), abi: abi(name), path });
        } else if let Some(name) = file.strip_prefix("probe-") {
            probes.push(Probe { abi: abi(name), path });
        }
    }
    let mut hosts: Vec<Abi> = probes.iter().map(|probe| probe.abi).collect();
    hosts.sort();
    assert_eq!((hosts[0], *hosts.last().unwrap()), ((1, 0), NEXT));
    Some((plugins, probes))
}

/// What a host of that ABI says about a plugin: nothing, or reason and remedy.
fn verdict((major, minor): Abi, plugin: &Plugin) -> Option<(String, String)> {
    let Plugin { name, abi, path } = plugin;
    let id = format!("fixture-{name}");
    let other_major = format!(
        "update runtimed to a release for ABI {}, or install a build of the plugin for ABI {major}",
        major + 1
    );
    let types = if *abi > (major, minor) {
        format!("those of this daemon's ABI {major}.{minor} with members appended")
    } else {
        format!("those of ABI {}.{}", abi.0, abi.1)
    };
    let modified = format!(
        "plugin `{id}` says ABI {}.{}, but its types are not {types}: \
         it was built against a modified or unreleased ABI",
        abi.0, abi.1
    );
    match name.as_str() {
        "major" => {
            let reason =
                format!("plugin `{id}` was built for ABI {}.0, this daemon speaks {major}.{minor}", abi.0);
            Some((reason, other_major))
        }
        "symbol" => {
            let path = path.display();
            let reason =
                format!("`{path}` is a plugin for ABI {}, this daemon speaks {major}.{minor}", abi.0);
            Some((reason, other_major))
        }
        "abort" => Some((
            format!(
                "plugin `{id}` was built with panic = \"abort\", so one mistake in it would end the daemon"
            ),
            "ask its author to build it with panic = \"unwind\"".to_owned(),
        )),
        "inserted" | "changed" => Some((modified, AUTHOR.to_owned())),
        // An older or newer host sees growth it can live with.
        "unreleased" if *abi == (major, minor) => Some((modified, AUTHOR.to_owned())),
        _ => None,
    }
}

/// What a probe prints.
fn words(host: Abi, plugin: &Plugin) -> String {
    let mut lines = vec![format!("host ABI {}.{}", host.0, host.1)];
    if let Some((reason, remedy)) = verdict(host, plugin) {
        lines.push(format!("refused: {reason}"));
        lines.push(format!("remedy: {remedy}"));
        return lines.join("\n") + "\n";
    }
    let Plugin { name, abi: (major, minor), .. } = plugin;
    let host_has_more = host == NEXT;
    let plugin_has_more = ["next", "unreleased"].contains(&name.as_str());
    let whose = |who: &str| format!("the {who}'s {}", if plugin_has_more { "own" } else { "default" });
    lines.push(format!("loaded fixture-{name} 0.3.0 for ABI {major}.{minor}"));
    lines.push(format!(r#"info {{"kind":"fixture-{name}","label":"built for ABI {major}.{minor}"}}"#));
    if plugin_has_more {
        lines.push(format!("log the host's {}", if host_has_more { "own" } else { "default" }));
    }
    lines.push(r#"plan {"key":"0123456789abcdef","request":{}}"#.to_owned());
    if host_has_more {
        let module = if plugin_has_more { "the module's own" } else { "nothing" };
        lines.push(format!("appended to the provider: {}, to this host", whose("provider")));
        lines.push(format!("appended to the plugin: {}", whose("plugin")));
        lines.push(format!("appended to the module: {module}"));
    }
    lines.push("stopped".to_owned());
    lines.join("\n") + "\n"
}

#[test]
fn todays_types_are_the_released_ones_and_grow_at_their_ends() {
    let Some((plugins, _)) = fixtures() else { return };
    for Plugin { abi: (major, minor), path, .. } in plugins.iter().filter(|it| it.name.contains('.')) {
        if let Err(refusal) = Library::open(path) {
            panic!(
                "A type that crosses is not what it was in ABI {major}.{minor}. What is new belongs at the end, \
                 with a default, in the next minor version (plugin-api/abi/Cargo.toml).\n{:?}: {}",
                refusal.reason,
                refusal.report.unwrap_or_default()
            );
        }
    }
}

#[test]
fn every_plugin_in_every_other_host() {
    let Some((plugins, probes)) = fixtures() else { return };
    for probe in &probes {
        for plugin in &plugins {
            let output = Command::new(&probe.path).arg(&plugin.path).output().unwrap();
            let (said, report) =
                (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            assert!(output.status.success(), "{said}\n{report}");
            assert_eq!(said, words(probe.abi, plugin), "{} in {}", plugin.name, probe.path.display());
            let about_types = said.contains("its types are not");
            assert_eq!(report.lines().count() > 100, about_types, "a report where it helps:\n{report}");
        }
    }
}

#[tokio::test]
async fn every_plugin_in_todays_host() {
    let Some((plugins, _)) = fixtures() else { return };
    for plugin in &plugins {
        let library = match (Library::open(&plugin.path), verdict(TODAY, plugin)) {
            (Ok(library), None) => library,
            (Err(Refusal { reason, remedy, .. }), Some(verdict)) => {
                assert_eq!((reason, remedy), verdict);
                continue;
            }
            (opened, expected) => {
                let refusal = opened.err().map(|refusal| refusal.reason);
                panic!("{}: {refusal:?} instead of {expected:?}", plugin.name)
            }
        };
        assert_eq!(library.facts().abi, plugin.abi);
        let (host, mut logs) = TestHost::new();
        let made = library.create(host, Handle::current(), |panicked| panic!("{panicked:?}")).unwrap();
        made.start().await.unwrap();
        let provider = made.env_providers().remove(0);
        assert_eq!(provider.info().label, format!("built for ABI {}.{}", plugin.abi.0, plugin.abi.1));
        assert_eq!(provider.plan(EnvRequest::default()).await.unwrap().key, "0123456789abcdef");
        let answer = logs.try_recv().ok().map(|line| line.message);
        assert_eq!(answer.as_deref(), (plugin.abi == NEXT).then_some("the host's default"));
    }
}

/// The verdict on the example plugin after `edit` changed its bytes.
fn refusal(name: &str, edit: impl FnOnce(&mut [u8])) -> Refusal {
    let mut library = fs::read(fixture_library()).unwrap();
    edit(&mut library);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, library).unwrap();
    Library::open(&path).err().unwrap()
}

/// Every place that begins with `text`, behind it.
fn behind(library: &[u8], text: &[u8]) -> Vec<usize> {
    let found = library.windows(text.len()).enumerate().filter(|(_, bytes)| *bytes == text);
    found.map(|(at, _)| at + text.len()).collect()
}

#[test]
fn a_plugin_that_needs_a_newer_host_says_so() {
    let refusal = refusal("newer.so", |library| {
        // Magic, size (4), major (2), minor (2), lowest minor of a host.
        for at in behind(library, b"runtplug") {
            library[at + 8..at + 10].copy_from_slice(&9_u16.to_le_bytes());
        }
    });
    let reason = format!(
        "plugin `fixture` needs a daemon with ABI {ABI_MAJOR}.9, this one has {ABI_MAJOR}.{ABI_MINOR}"
    );
    assert_eq!((refusal.reason, refusal.remedy.as_str()), (reason, "update runtimed"));
}

#[test]
fn a_plugin_of_another_abi_stable_says_so() {
    let magic = b"abi stable library for Rust     ";
    let older = refusal("older.so", |library| {
        // Major (4), minor.
        for at in behind(library, magic) {
            library[at + 4] = 10;
        }
    });
    assert_eq!(older.reason, "plugin `fixture` was built with abi_stable 0.10, this daemon with 0.11");
    let none = refusal("none.so", |library| {
        for at in behind(library, magic) {
            library[at - 1] = b'?';
        }
    });
    assert_eq!(none.reason, "plugin `fixture` does not say where its types are described");
    assert_eq!([older.remedy, none.remedy], [AUTHOR, AUTHOR]);
}

#[test]
fn a_library_that_is_no_plugin_says_so() {
    let strange = refusal("strange.so", |library| {
        for at in behind(library, b"RUNTIMED_PLUGIN_V1") {
            library[at - 2] = b'?';
        }
    });
    assert!(
        strange
            .reason
            .ends_with("strange.so` is not a plugin for runtimed: it does not export `RUNTIMED_PLUGIN_V1`"),
        "{strange}"
    );
    assert_eq!(strange.remedy, format!("install a build of the plugin for ABI {ABI_MAJOR}"));
    let relative = Library::open(Path::new("lib.so")).err().unwrap();
    assert_eq!(relative.reason, "`lib.so` is not an absolute path");
}
