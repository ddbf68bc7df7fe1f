//! Deno: which one is used, and what a notebook says about it.
//!
//! For: the kind `deno`, and kernelspecs that start Deno.
//! Promises: a permission that the notebook does not name is taken from the kernel before the first cell, or there is no
//! kernel; what cannot be passed on is refused by name. Deno's kernel takes no options, so permissions are given up by code
//! in it, and an import map comes with a configuration of ours in the folder the kernel is started in.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use runtimed_plugin_api::{ErrorCode, PluginError, Result, read_text};
use serde_json::{Map, Value, json};
use tokio::process::Command;
use url::Url;

/// Oldest release whose kernel is supported. Source: the protocol.
const OLDEST: u64 = 2;
/// How long `deno --version` may take. A cold disk needs a second or two.
const VERSION_LIMIT: Duration = Duration::from_secs(20);
/// What code in Deno may have to ask for.
const PERMISSIONS: [&str; 8] = ["read", "write", "net", "env", "sys", "run", "ffi", IMPORT];
/// Importing from the usual hosts, which everybody may who was not told otherwise.
const IMPORT: &str = "import";
/// Letters for some of them. Source: Deno's command line.
const LETTERS: [(&str, &str); 6] =
    [("R", "read"), ("W", "write"), ("N", "net"), ("E", "env"), ("S", "sys"), ("I", IMPORT)];
/// Permission to do everything.
const ALL: &str = "all";
/// Names of Deno's configuration.
const CONFIGURATIONS: [&str; 2] = ["deno.json", "deno.jsonc"];
/// Runs in the kernel before anybody uses it. It binds no name; what it cannot do ends the kernel.
const PREPARATION: &str = "try { Deno.chdir($CWD); for (const name of $REVOKED) \
    if (Deno.permissions.revokeSync({ name }).state === 'granted') throw name } catch { Deno.exit(78) }";

/// What a notebook's wishes come to.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Setup {
    /// Code for the kernel; none if empty.
    pub(crate) preparation: String,
    /// The text of a `deno.json` beside which the kernel is started; the preparation takes it to where it belongs.
    pub(crate) configuration: Option<String>,
    /// Variables.
    pub(crate) env: Vec<(String, String)>,
}

/// The first of `programs` that is recent enough.
///
/// # Errors
/// `Unsupported`, with what is wrong with them.
pub(crate) async fn recent(programs: &[PathBuf]) -> Result<PathBuf> {
    let mut found = Vec::new();
    for program in programs {
        match version(program).await {
            Ok((major, _)) if major >= OLDEST => return Ok(program.clone()),
            Ok((_, version)) => found.push(format!("`{}` is {version}", program.display())),
            Err(error) => found.push(format!("`{}` does not say its version: {error}", program.display())),
        }
    }
    let message = format!("There is no Deno {OLDEST} or newer on this machine: {}", found.join(", "));
    Err(PluginError::new(ErrorCode::Unsupported, message).help(
        "Nothing was started and the notebook is as it was. Update Deno (`deno upgrade`), and start the kernel again.",
    ))
}

async fn version(program: &Path) -> io::Result<(u64, String)> {
    let mut command = Command::new(program);
    command.arg("--version").stdin(Stdio::null()).kill_on_drop(true);
    let answer = tokio::time::timeout(VERSION_LIMIT, command.output()).await??;
    let text = String::from_utf8_lossy(&answer.stdout);
    release(&text).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it answers something else"))
}

/// The release in `deno 2.9.8 (stable, release, x86_64-unknown-linux-gnu)`, and its first number.
fn release(answer: &str) -> Option<(u64, String)> {
    let mut words = answer.split_whitespace();
    let version = words.next().filter(|name| *name == "deno").and(words.next())?;
    Some((version.split('.').next()?.parse().ok()?, version.to_owned()))
}

impl Setup {
    /// What `options` of a notebook come to for a kernel that works in `cwd`. Reads files.
    ///
    /// # Errors
    /// `Unsupported` for what Deno's kernel cannot be given, `Invalid` for what is nothing.
    pub(crate) fn read(options: &Map<String, Value>, cwd: &Path) -> Result<Self> {
        let permissions = options.get("permissions").and_then(Value::as_array).into_iter().flatten();
        let permissions: Vec<&str> = permissions.filter_map(Value::as_str).collect();
        let revoked = revoked(&permissions)?;
        let text = |name: &str| options.get(name).and_then(Value::as_str);
        if let Some(named) = text("config") {
            if text("import_map").is_some() {
                return Err(PluginError::unsupported(format!(
                    "Deno's kernel cannot be given both `config` (`{named}`) and `import_map`"
                ))
                .help("Nothing was started. Put the import map into that file, and name only one of them in `runt.deno`."));
            }
            found_anyway(named, cwd)?;
        }
        let configuration = text("import_map").map(|named| configuration(named, cwd)).transpose()?;
        let mut setup = Self { configuration, ..Self::default() };
        if !revoked.is_empty() {
            // Otherwise it would ask, and nobody could answer.
            setup.env.push(("DENO_NO_PROMPT".to_owned(), "1".to_owned()));
        }
        if !revoked.is_empty() || setup.configuration.is_some() {
            let cwd =
                cwd.to_str().ok_or_else(|| PluginError::invalid("the working directory is not UTF-8"))?;
            // What is a value in JSON is the same one in JavaScript.
            setup.preparation = PREPARATION
                .replace("$REVOKED", &json!(revoked).to_string())
                .replace("$CWD", &json!(cwd).to_string());
        }
        Ok(setup)
    }
}

/// The permissions that `named` ones leave out; none are if none is named.
fn revoked(named: &[&str]) -> Result<Vec<&'static str>> {
    let known = |name: &str| {
        let long = LETTERS.iter().find(|(letter, _)| *letter == name).map_or(name, |(_, long)| long);
        PERMISSIONS.into_iter().find(|permission| *permission == long)
    };
    let (mut allowed, mut denied) = (Vec::new(), Vec::new());
    for wish in named.iter().map(|wish| wish.trim()).filter(|wish| !wish.is_empty()) {
        let flag = wish.trim_start_matches('-');
        if flag.contains('=') {
            return Err(PluginError::unsupported(format!(
                "Deno's kernel cannot be given a permission for some things only: `{wish}`"
            ))
            .help(
                "Nothing was started. Name the whole permission in `runt.deno.permissions`, or leave it out.",
            ));
        }
        let (list, name) = match flag.strip_prefix("deny-") {
            Some(name) => (&mut denied, name),
            None => (&mut allowed, flag.strip_prefix("allow-").unwrap_or(flag)),
        };
        if name == ALL || name == "A" {
            list.extend(PERMISSIONS);
            continue;
        }
        list.push(known(name).ok_or_else(|| {
            PluginError::invalid(format!("`{wish}` is no permission of Deno's")).help(format!(
                "Nothing was started. Known are `--allow-all`, `--allow-{}`.",
                PERMISSIONS.join("`, `--allow-")
            ))
        })?);
    }
    let restricted = !allowed.is_empty() || !denied.is_empty();
    Ok(PERMISSIONS
        .into_iter()
        .filter(|it| restricted && (denied.contains(it) || *it != IMPORT && !allowed.contains(it)))
        .collect())
}

/// Makes sure that the configuration `named` is the one that Deno finds for `cwd` by itself.
fn found_anyway(named: &str, cwd: &Path) -> Result<()> {
    let candidates = cwd.ancestors().flat_map(|folder| CONFIGURATIONS.map(|name| folder.join(name)));
    let found = candidates.into_iter().find(|file| file.is_file());
    let same = |file: PathBuf| Some(file.canonicalize().ok()? == cwd.join(named).canonicalize().ok()?);
    match found.and_then(same) {
        Some(true) => Ok(()),
        _ => Err(PluginError::unsupported(format!(
            "Deno's kernel takes the `deno.json` at or above the notebook, and not `{named}`"
        ))
        .help("Nothing was started. Put it there, and leave `config` out of `runt.deno`.")),
    }
}

/// A `deno.json` for any folder that has the imports of the map `named`, as it means them, and where relative ones
/// are meant as in `cwd`.
fn configuration(named: &str, cwd: &Path) -> Result<String> {
    let file = cwd.join(named);
    let unusable = |why: String| {
        PluginError::invalid(format!("The import map `{named}` of the notebook cannot be used: {why}"))
            .help("Nothing was started. Correct `import_map` in `runt.deno`: a JSON file, beside the notebook for one.")
    };
    let text = read_text(&file).map_err(|error| unusable(error.to_string()))?;
    let map: Value = serde_json::from_str(&text).map_err(|error| unusable(error.to_string()))?;
    let outside = || unusable("it lies at no absolute path".to_owned());
    let base = Url::from_file_path(&file).map_err(|()| outside())?;
    // Parsing takes `..` out of it.
    let base = Url::parse(base.as_str()).map_err(|error| unusable(error.to_string()))?;
    let here = Url::from_directory_path(cwd).map_err(|()| outside())?;
    let mut imports = neighborhood(&here);
    imports.extend(rebased(map.get("imports"), &base, &here));
    let scopes: Map<String, Value> = map
        .get("scopes")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(scope, map)| {
            let scope = base.join(scope).map_or_else(|_| scope.clone(), Into::into);
            (scope, Value::Object(rebased(Some(map), &base, &here)))
        })
        .collect();
    Ok(json!({ "imports": imports, "scopes": scopes }).to_string())
}

/// What relative imports mean in `here`, as far up as it goes.
fn neighborhood(here: &Url) -> Map<String, Value> {
    let depth = here.path_segments().map_or(0, Iterator::count);
    let ups = (1..depth).map(|steps| "../".repeat(steps));
    let all = std::iter::once("./".to_owned()).chain(ups);
    all.filter_map(|relative| Some((relative.clone(), here.join(&relative).ok()?.to_string().into())))
        .collect()
}

/// The entries of an import map at `base` as they are written in one elsewhere, for code in `here`.
fn rebased(entries: Option<&Value>, base: &Url, here: &Url) -> Map<String, Value> {
    let is_relative = |text: &str| ["./", "../", "/"].iter().any(|start| text.starts_with(start));
    let absolute = |text: &str| match is_relative(text) {
        true => base.join(text).map_or_else(|_| text.to_owned(), Into::into),
        false => text.to_owned(),
    };
    let mut rebased = Map::new();
    for (name, address) in entries.and_then(Value::as_object).into_iter().flatten() {
        let address = address.as_str().map_or(Value::Null, |address| absolute(address).into());
        let name = absolute(name);
        if let Some(beside) = name.strip_prefix(here.as_str()) {
            rebased.insert(format!("./{beside}"), address.clone());
        }
        rebased.insert(name, address);
    }
    rebased
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases() {
        let answer = "deno 2.9.8 (stable, release, x86_64-unknown-linux-gnu)\nv8 15.0\n";
        assert_eq!(release(answer), Some((2, "2.9.8".to_owned())));
        assert_eq!(release("node 22.1.0"), None);
        assert_eq!(release(""), None);
    }

    #[test]
    fn what_is_not_named_is_given_up() {
        assert!(revoked(&[]).unwrap().is_empty() && revoked(&["", " "]).unwrap().is_empty());
        assert!(revoked(&["-A"]).unwrap().is_empty() && revoked(&["--allow-all", "net"]).unwrap().is_empty());
        assert_eq!(revoked(&["--allow-net", "allow-read", "env", "-S"]).unwrap(), ["write", "run", "ffi"]);
        assert_eq!(revoked(&["--allow-all", "--deny-run"]).unwrap(), ["run"]);
        assert_eq!(
            revoked(&["--deny-net"]).unwrap(),
            PERMISSIONS[..7],
            "nothing is allowed then, but to import"
        );
        assert_eq!(revoked(&["-A", "--deny-import"]).unwrap(), [IMPORT]);
        assert_eq!(revoked(&["-I"]).unwrap(), PERMISSIONS[..7]);
        let some = revoked(&["--allow-net=example.org"]).unwrap_err();
        assert_eq!(some.code, ErrorCode::Unsupported);
        assert!(some.message.contains("`--allow-net=example.org`"), "{some}");
        let unknown = revoked(&["--allow-fun"]).unwrap_err();
        assert!(unknown.message.contains("`--allow-fun`") && unknown.help.unwrap().contains("`--allow-ffi`"));
    }

    fn read(options: Value, cwd: &Path) -> Result<Setup> {
        Setup::read(options.as_object().unwrap(), cwd)
    }

    #[test]
    fn saying_nothing_changes_nothing() {
        let nothing = json!({"permissions": [], "flexible_npm_imports": false, "other": 1});
        assert_eq!(read(nothing, Path::new("/p")).unwrap(), Setup::default());
        let setup = read(json!({"permissions": ["-A", "--deny-net"]}), Path::new("/it's \"p\"")).unwrap();
        assert!(setup.preparation.contains(r#"Deno.chdir("/it's \"p\""); for (const name of ["net"])"#));
        assert_eq!(setup.env, [("DENO_NO_PROMPT".to_owned(), "1".to_owned())]);
        assert_eq!(setup.configuration, None);
    }

    #[test]
    fn an_import_map_means_elsewhere_what_it_means_here() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().canonicalize().unwrap();
        let (maps, cwd) = (base.join("maps"), base.join("a/b"));
        std::fs::create_dir_all(&maps).unwrap();
        std::fs::create_dir_all(&cwd).unwrap();
        let map = json!({
            "imports": {"lab": "./lab.ts", "std/": "https://h/std/", "../a/b/x.ts": "./y.ts", "off": null},
            "scopes": {"./old/": {"lab": "../old.ts"}},
        });
        std::fs::write(maps.join("map.json"), map.to_string()).unwrap();
        let setup = read(json!({"import_map": "../../maps/map.json"}), &cwd).unwrap();
        let written: Value = serde_json::from_str(&setup.configuration.unwrap()).unwrap();
        let at = |path: &str| format!("file://{}{path}", base.display());
        let imports = &written["imports"];
        assert_eq!(imports["lab"], at("/maps/lab.ts"));
        assert_eq!(imports["std/"], "https://h/std/");
        assert_eq!((&imports["./x.ts"], &imports["off"]), (&json!(at("/maps/y.ts")), &Value::Null));
        assert_eq!((&imports["./"], &imports["../"]), (&json!(at("/a/b/")), &json!(at("/a/"))));
        assert_eq!(imports["../../"], at("/"));
        assert_eq!(written["scopes"][at("/maps/old/")]["lab"], at("/old.ts"));
        assert!(setup.preparation.contains("for (const name of [])"));

        for named in ["none.json", "https://h/map.json", "/dev/zero", "/dev/stdin"] {
            let refused = read(json!({"import_map": named}), &cwd).unwrap_err();
            assert!(refused.message.contains(named), "{refused}");
        }
    }

    #[test]
    fn a_configuration_is_deno_s_own_business_or_refused() {
        let folder = tempfile::tempdir().unwrap();
        let cwd = folder.path().join("a");
        std::fs::create_dir_all(cwd.join("b")).unwrap();
        std::fs::write(folder.path().join("deno.json"), "{}").unwrap();
        assert_eq!(read(json!({"config": "../deno.json"}), &cwd).unwrap(), Setup::default());
        std::fs::write(cwd.join("b/deno.json"), "{}").unwrap();
        let refused = read(json!({"config": "b/deno.json"}), &cwd).unwrap_err();
        assert!(refused.message.contains("not `b/deno.json`"), "{refused}");
    }
}
