//! Environment files: a folder whose `environment.yml` says what to run in.
//!
//! Promises: pure.

use std::path::{Path, PathBuf};

use rattler_conda_types::{EnvironmentYaml, MatchSpec, MatchSpecOrSubSection};
use runtimed_plugin_api::{PluginError, Result};

use crate::packages::channel;

/// The files that mark a project, the more usual one first.
pub(crate) const MARKERS: [&str; 2] = ["environment.yml", "environment.yaml"];
/// Used when a file names no channel. Source: conda.
const DEFAULTS: &str = "defaults";
/// The one section of `dependencies` that is known.
const PIP: &str = "pip";

/// What a file declares.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct EnvironmentYml {
    pub(crate) name: Option<String>,
    pub(crate) prefix: Option<PathBuf>,
    pub(crate) channels: Vec<String>,
    /// Conda's packages, without Python.
    pub(crate) dependencies: Vec<String>,
    /// Constraint on Python.
    pub(crate) python: Option<String>,
    /// pip's packages.
    pub(crate) pip: Vec<String>,
}

impl EnvironmentYml {
    /// What the text of the file at `file` declares.
    ///
    /// # Errors
    /// `Invalid` if it is no environment file, or asks for what cannot be done.
    pub(crate) fn read(text: &str, file: &Path) -> Result<Self> {
        let wrong = |why: String| {
            PluginError::invalid(format!("Failed to parse {}: {why}", file_name(file)))
                .help(format!("Correct `{}`; nothing was built or changed.", file.display()))
        };
        let yaml = EnvironmentYaml::from_yaml_str(text).map_err(|error| wrong(error.to_string()))?;
        let mut declared = Self { name: yaml.name, prefix: yaml.prefix, ..Self::default() };
        if let Some(name) = declared.name.as_ref().filter(|name| !is_plain(name)) {
            return Err(wrong(format!("`{name}` cannot be the name of an environment")));
        }
        declared.channels = yaml.channels.iter().map(|it| channel(it.as_str()).to_owned()).collect();
        if declared.channels.is_empty() {
            declared.channels.push(DEFAULTS.to_owned());
        }
        for dependency in yaml.dependencies {
            match dependency {
                MatchSpecOrSubSection::MatchSpec(spec) if is_python(&spec) => {
                    declared.python = spec.version.map(|version| version.to_string());
                }
                MatchSpecOrSubSection::MatchSpec(spec) => declared.dependencies.push(spec.to_string()),
                MatchSpecOrSubSection::SubSection(section, packages) if section == PIP => {
                    declared.pip.extend(packages);
                }
                MatchSpecOrSubSection::SubSection(section, _) => {
                    return Err(wrong(format!(
                        "packages of `{section}` cannot be installed, only conda's and pip's"
                    )));
                }
            }
        }
        if let Some(option) = declared.pip.iter().find(|package| package.trim_start().starts_with('-')) {
            let why =
                format!("`{option}` in its pip section is an option, and only packages can be installed");
            return Err(wrong(why));
        }
        Ok(declared)
    }
}

/// Whether a name is one folder's.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', ':', '#', ' '])
}

fn is_python(spec: &MatchSpec) -> bool {
    spec.name.as_exact().is_some_and(|name| name.as_normalized() == "python")
}

fn file_name(file: &Path) -> String {
    file.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<EnvironmentYml> {
        EnvironmentYml::read(text, Path::new("/p/environment.yml"))
    }

    #[test]
    fn a_file_is_read() {
        let text = "
name: lab
channels: [conda-forge, nodefaults, file:///srv/channel/]
dependencies:
  - python>=3.11,<3.13
  - numpy>=2
  - conda-forge::six=1.16
  - pip
  - pip:
      - cowsay==6.1
variables:
  A: b
";
        let declared = read(text).unwrap();
        assert_eq!(declared.name.as_deref(), Some("lab"));
        assert_eq!(declared.channels, ["conda-forge", "nodefaults", "file:///srv/channel"]);
        assert_eq!(declared.python.as_deref(), Some(">=3.11,<3.13"));
        assert_eq!(declared.dependencies, ["numpy >=2", "conda-forge::six 1.16.*", "pip"]);
        assert_eq!(declared.pip, ["cowsay==6.1"]);
        let declared = read("prefix: /opt/envs/a\ndependencies: [python=3.12]\n").unwrap();
        assert_eq!((declared.name, declared.prefix), (None, Some("/opt/envs/a".into())));
        assert_eq!(declared.channels, ["defaults"]);
        assert_eq!(declared.python.as_deref(), Some("3.12.*"));
    }

    #[test]
    fn what_cannot_be_done_is_said() {
        for (text, said) in [
            ("dependencies: 3", "Failed to parse environment.yml: "),
            ("dependencies: ['six[version']", "Failed to parse environment.yml: "),
            ("name: ../lab", "`../lab` cannot be the name"),
            ("dependencies: [{npm: [left-pad]}]", "packages of `npm` cannot be installed"),
            ("dependencies: [{pip: ['-r requirements.txt']}]", "`-r requirements.txt` in its pip section"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.message.contains(said), "{}", error.message);
            assert!(error.help.unwrap().contains("/p/environment.yml"));
        }
    }
}
