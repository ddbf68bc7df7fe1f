//! Which interpreter an environment is made with.
//!
//! Promises: the one the user chose, or `python3`, comes first; only when it does not satisfy what a
//! notebook asks for are others of the search path tried, the newest first. A notebook names versions,
//! never programs.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use pep440_rs::{Version, VersionSpecifiers};
use runtimed_plugin_api::{ErrorCode, Host, PluginError, ProcessSpec, Result};
use serde::Deserialize;
use serde_json::json;

/// Interpreter of those who chose none.
const DEFAULT: &str = "python3";

/// Minor versions tried as `python3.N`: from the oldest that current ipykernel releases support to
/// one that leaves a few years.
const MINORS: std::ops::RangeInclusive<u32> = 10..=19;

/// Starting an interpreter from a cold disk takes a few seconds.
const PROBE_LIMIT: Duration = Duration::from_secs(30);

/// Makes an interpreter tell what it is, as JSON on the last line of its output.
const PROBE: &str = "\
import importlib.util, json, sys
missing = [name for name in ('venv', 'ensurepip') if importlib.util.find_spec(name) is None]
version = '.'.join(map(str, sys.version_info[:3]))
print(json.dumps({'executable': sys.executable, 'version': version, 'missing': missing}))
";

/// An interpreter on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Python {
    pub(crate) executable: PathBuf,
    pub(crate) version: String,
    /// Modules it needs for making environments and does not have.
    missing: Vec<String>,
}

/// A Python version or constraint of a notebook: `3.13`, `3.13.1`, `>=3.11,<3.14`.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    text: String,
    specifiers: VersionSpecifiers,
}

impl Wish {
    /// Reads what a notebook asks for; none and a blank text ask for nothing.
    ///
    /// # Errors
    /// `Invalid` for a text that is neither a version nor a constraint.
    pub(crate) fn read(text: Option<&str>) -> Result<Option<Self>> {
        let Some(text) = text.map(str::trim).filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let specifiers = match Version::from_str(text) {
            Ok(version) if version.release().len() < 3 => format!("=={version}.*"),
            Ok(version) => format!("=={version}"),
            Err(_) => text.to_owned(),
        };
        match VersionSpecifiers::from_str(&specifiers) {
            Ok(specifiers) => Ok(Some(Self { text: text.to_owned(), specifiers })),
            Err(_) => Err(PluginError::invalid(format!("`{text}` is not a Python version"))
                .help("Write a version such as 3.13, or a constraint such as >=3.11,<3.14.")),
        }
    }

    fn allows(&self, python: &Python) -> bool {
        Version::from_str(&python.version).is_ok_and(|it| self.specifiers.contains(&it))
    }
}

/// The interpreter for `wish`. `chosen` is the user's, from the settings.
///
/// # Errors
/// `NotFound` when there is none, or none that the wish allows; `Unavailable` for one that cannot make
/// environments.
pub(crate) async fn choose(
    host: &Host,
    chosen: Option<&str>,
    wish: Option<&Wish>,
) -> Result<Python> {
    let first = match probe(host, chosen.unwrap_or(DEFAULT)).await {
        Ok(python) => python,
        Err(error) => return Err(unusable(chosen, &error)),
    };
    let Some(wish) = wish.filter(|wish| !wish.allows(&first)) else { return complete(first) };
    let mut found = vec![first];
    for minor in MINORS.rev() {
        // Most of these do not exist, and shims of version managers often refuse.
        let Ok(python) = probe(host, &format!("python3.{minor}")).await else { continue };
        if wish.allows(&python) {
            return complete(python);
        }
        found.push(python);
    }
    Err(none_allowed(wish, &found))
}

async fn probe(host: &Host, program: &str) -> Result<Python> {
    // Isolated: neither the daemon's PYTHONPATH nor its folder takes part.
    let spec = ProcessSpec::new(program).args(["-I", "-c", PROBE]).timeout(PROBE_LIMIT);
    let exit = host.run(spec).await?;
    Ok(serde_json::from_str(exit.stdout.lines().last().unwrap_or_default())?)
}

/// The interpreter, if it can make environments.
fn complete(python: Python) -> Result<Python> {
    if python.missing.is_empty() {
        return Ok(python);
    }
    let (version, place) = (&python.version, python.executable.display());
    let missing = python.missing.join(" and ");
    let minor = version.rsplit_once('.').map_or(version.as_str(), |(minor, _)| minor);
    Err(PluginError::unavailable(format!(
        "Python {version} at `{place}` cannot make environments: it lacks {missing}. Nothing was created."
    ))
    .help(format!(
        "On Debian and Ubuntu, run `apt install python{minor}-venv`. Elsewhere install a complete Python \
         and name it in the setting `venv.python`."
    ))
    .detail(json!({ "error_kind": "setup_failed", "network": false })))
}

fn unusable(chosen: Option<&str>, error: &PluginError) -> PluginError {
    let program = chosen.unwrap_or(DEFAULT);
    let message = match error.code {
        ErrorCode::NotFound => format!("There is no `{program}` to make environments with."),
        _ => format!("`{program}` is no Python to make environments with: {}.", error.message),
    };
    let help = match chosen {
        Some(_) => "Correct the setting `venv.python`, or remove it to use `python3`.",
        None => {
            "Install Python 3.10 or newer so that `python3` is on the daemon's PATH, or name an \
             interpreter in the setting `venv.python`."
        }
    };
    PluginError::new(ErrorCode::NotFound, format!("{message} Nothing was created."))
        .help(help)
        .detail(json!({ "error_kind": "setup_failed", "network": false }))
}

fn none_allowed(wish: &Wish, found: &[Python]) -> PluginError {
    let mut shown: Vec<String> = found
        .iter()
        .map(|python| format!("{} at `{}`", python.version, python.executable.display()))
        .collect();
    shown.dedup();
    let (wish, shown) = (&wish.text, shown.join(", "));
    PluginError::not_found(format!(
        "The notebook asks for Python {wish}; found were {shown}. Nothing was created."
    ))
    .help(
        "Install such a Python so that `python3.N` is on the daemon's PATH, name it in the setting \
         `venv.python`, or loosen the version in the notebook's metadata.",
    )
    .detail(json!({ "error_kind": "setup_failed", "network": false }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn python(version: &str, missing: &[&str]) -> Python {
        Python {
            executable: format!("/usr/bin/python{version}").into(),
            version: version.to_owned(),
            missing: missing.iter().map(|&name| name.to_owned()).collect(),
        }
    }

    #[test]
    fn versions_and_constraints() {
        for (wish, version, allowed) in [
            ("3.13", "3.13.2", true),
            ("3.13", "3.12.9", false),
            ("3", "3.11.0", true),
            ("3.13.1", "3.13.1", true),
            ("3.13.1", "3.13.2", false),
            (" >=3.11, <3.14 ", "3.13.0", true),
            (">=3.12", "3.11.7", false),
            ("~=3.11", "3.14.0", true),
            ("!=3.11.*", "3.11.7", false),
        ] {
            let read = Wish::read(Some(wish)).unwrap().unwrap();
            assert_eq!(read.allows(&python(version, &[])), allowed, "{wish} {version}");
        }
        assert!(Wish::read(None).unwrap().is_none() && Wish::read(Some(" ")).unwrap().is_none());
    }

    #[test]
    fn a_notebook_names_versions_and_no_programs() {
        for wish in ["/tmp/evil", "python3", "-c", "3.x"] {
            assert_eq!(Wish::read(Some(wish)).unwrap_err().code, ErrorCode::Invalid, "{wish}");
        }
    }

    #[test]
    fn errors_say_what_is_there_and_what_to_do() {
        let error = complete(python("3.11.2", &["ensurepip"])).unwrap_err();
        assert_eq!(
            error.message,
            "Python 3.11.2 at `/usr/bin/python3.11.2` cannot make environments: it lacks ensurepip. \
             Nothing was created."
        );
        assert!(error.help.unwrap().contains("`apt install python3.11-venv`"));
        let wish = Wish::read(Some(">=3.99")).unwrap().unwrap();
        let error = none_allowed(&wish, &[python("3.11.2", &[]), python("3.12.0", &[])]);
        assert_eq!(
            error.message,
            "The notebook asks for Python >=3.99; found were 3.11.2 at `/usr/bin/python3.11.2`, \
             3.12.0 at `/usr/bin/python3.12.0`. Nothing was created."
        );
        let error = unusable(None, &PluginError::not_found("x"));
        assert_eq!(
            error.message,
            "There is no `python3` to make environments with. Nothing was created."
        );
    }
}
