//! The environment variables a kernel process gets.
//!
//! Promises: pure; the daemon's own variables come first, then terminal size, then the environment's, then
//! `PATH` is extended; secrets of the daemon never arrive.

use std::ffi::OsString;

use runtimed_plugin_api::LaunchCommand;

/// Secrets that belong to the daemon and to no code a notebook runs.
const SECRETS: [&str; 3] = ["RUNT_CLOUD_TOKEN", "NTERACT_API_KEY", "NOTEBOOK_CLOUD_PUBLISH_BEARER_TOKEN"];

/// Width and height that code sees instead of a terminal's (the values clients of the reference see).
const TERMINAL: [(&str, &str); 2] = [("COLUMNS", "128"), ("LINES", "100")];

/// ipykernel compares its parent's process id with this once a second and exits when it differs: a kernel
/// does not outlive a daemon that was killed.
const PARENT: &str = "JPY_PARENT_PID";

/// All variables of the kernel, given those of the daemon.
pub(crate) fn variables(
    command: &LaunchCommand,
    inherited: impl Iterator<Item = (OsString, OsString)>,
    daemon: u32,
) -> Vec<(OsString, OsString)> {
    let mut variables: std::collections::BTreeMap<OsString, OsString> = inherited.collect();
    SECRETS.iter().for_each(|name| drop(variables.remove(std::ffi::OsStr::new(name))));
    variables.extend(TERMINAL.map(|(name, value)| (name.into(), value.into())));
    variables.insert(PARENT.into(), daemon.to_string().into());
    variables.extend(command.env.iter().map(|(name, value)| (name.into(), value.into())));
    let path = variables.remove(std::ffi::OsStr::new("PATH")).unwrap_or_default();
    // A directory with a colon in its name cannot be on PATH at all; it is left out.
    let directories = command.path.iter().cloned().chain(std::env::split_paths(&path));
    let directories =
        directories.filter(|directory| !directory.as_os_str().as_encoded_bytes().contains(&b':'));
    if let Ok(path) = std::env::join_paths(directories) {
        variables.insert("PATH".into(), path);
    }
    variables.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_wins_and_secrets_stay() {
        let command = LaunchCommand {
            env: [("VIRTUAL_ENV".to_owned(), "/e".to_owned()), ("COLUMNS".to_owned(), "80".to_owned())]
                .into(),
            path: vec!["/e/bin".into()],
            ..LaunchCommand::default()
        };
        let inherited = [("PATH", "/usr/bin:/bin"), ("HOME", "/h"), ("NTERACT_API_KEY", "s"), ("LINES", "7")];
        let variables = variables(&command, inherited.into_iter().map(|(k, v)| (k.into(), v.into())), 42);
        let get = |name: &str| variables.iter().find(|(k, _)| k == name).and_then(|(_, v)| v.to_str());
        assert_eq!(get("PATH"), Some("/e/bin:/usr/bin:/bin"));
        assert_eq!(get("HOME"), Some("/h"));
        assert_eq!(get("NTERACT_API_KEY"), None);
        assert_eq!((get("COLUMNS"), get("LINES")), (Some("80"), Some("100")));
        assert_eq!((get("VIRTUAL_ENV"), get("JPY_PARENT_PID")), (Some("/e"), Some("42")));
    }
}
