//! The environment variables a shim and its kernel get.
//!
//! Promises: pure; the daemon's own variables come first, then terminal size, then `PATH` is extended; what the
//! environment sets beside `PATH` is the kernel's alone. Secrets of the daemon never arrive.

use std::ffi::{OsStr, OsString};

use runtimed_plugin_api::{CHILD_MARK, LaunchCommand};

/// Where programs are looked for.
pub(crate) const PATH: &str = "PATH";

/// Secrets that belong to the daemon and to no code a notebook runs.
pub(crate) const SECRETS: [&str; 3] =
    ["RUNT_CLOUD_TOKEN", "NTERACT_API_KEY", "NOTEBOOK_CLOUD_PUBLISH_BEARER_TOKEN"];

/// What the service manager told the daemon, and programs take for theirs.
const SERVICE: [&str; 4] = ["NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_FDNAMES"];

/// Width and height that code sees instead of a terminal's (the values clients of the reference see).
const TERMINAL: [(&str, &str); 2] = [("COLUMNS", "128"), ("LINES", "100")];

/// All variables of a shim, given those of this process. A kernel outlives the plugin's own process, should it have
/// one, so neither carries its mark.
pub(crate) fn variables(
    command: &LaunchCommand,
    inherited: impl Iterator<Item = (OsString, OsString)>,
) -> Vec<(OsString, OsString)> {
    let mut variables: std::collections::BTreeMap<OsString, OsString> = inherited.collect();
    let removed = SECRETS.iter().chain(&SERVICE).chain(&[CHILD_MARK]);
    removed.for_each(|name| drop(variables.remove(OsStr::new(name))));
    variables.extend(TERMINAL.map(|(name, value)| (name.into(), value.into())));
    let inherited = variables.remove(OsStr::new(PATH)).unwrap_or_default();
    let path = command.env.get(PATH).map_or(inherited, OsString::from);
    // A directory with a colon in its name cannot be on PATH at all; it is left out.
    let directories = command.path.iter().cloned().chain(std::env::split_paths(&path));
    let directories =
        directories.filter(|directory| !directory.as_os_str().as_encoded_bytes().contains(&b':'));
    if let Ok(path) = std::env::join_paths(directories) {
        variables.insert(PATH.into(), path);
    }
    variables.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_is_extended_and_secrets_stay() {
        let command = LaunchCommand {
            env: [("VIRTUAL_ENV".to_owned(), "/e".to_owned())].into(),
            path: vec!["/e/bin".into()],
            ..LaunchCommand::default()
        };
        let inherited = [
            ("PATH", "/usr/bin:/bin"),
            ("HOME", "/h"),
            ("NTERACT_API_KEY", "s"),
            (CHILD_MARK, "m"),
            ("LINES", "7"),
            ("NOTIFY_SOCKET", "/run/n"),
        ];
        let variables = variables(&command, inherited.into_iter().map(|(k, v)| (k.into(), v.into())));
        let get = |name: &str| variables.iter().find(|(k, _)| k == name).and_then(|(_, v)| v.to_str());
        assert_eq!(get("PATH"), Some("/e/bin:/usr/bin:/bin"));
        assert_eq!(get("HOME"), Some("/h"));
        assert_eq!((get("NTERACT_API_KEY"), get(CHILD_MARK)), (None, None));
        assert_eq!(get("NOTIFY_SOCKET"), None);
        assert_eq!((get("COLUMNS"), get("LINES")), (Some("128"), Some("100")));
        assert_eq!(get("VIRTUAL_ENV"), None, "the kernel alone gets it");
    }
}
