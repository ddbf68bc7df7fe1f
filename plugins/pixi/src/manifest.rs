//! The manifest of an environment of ours: a pixi workspace of its own.
//!
//! Promises: pure; whatever a notebook wrote is a value in it, never its syntax.

use toml::{Table, Value};

use crate::packages::Wanted;

/// Python of those who ask for none. Source: the protocol.
const PYTHON: &str = ">=3.13";

/// The text of `pixi.toml` for a workspace called `name` that holds what is `wanted`, from `channels`.
///
/// # Errors
/// None that is known of; the text is made of values.
pub(crate) fn text(
    name: &str,
    channels: &[String],
    wanted: &Wanted,
) -> Result<String, toml::ser::Error> {
    let mut workspace = Table::new();
    workspace.insert("name".to_owned(), Value::from(name));
    workspace.insert("version".to_owned(), Value::from("0.1.0"));
    workspace.insert("channels".to_owned(), Value::from(channels.to_vec()));
    workspace.insert("platforms".to_owned(), Value::from(vec![platform()]));
    let mut conda = Table::from_iter(wanted.conda.iter().map(|spec| spec.entry()));
    if !wanted.names("python") {
        conda.insert("python".to_owned(), Value::from(wanted.python.as_deref().unwrap_or(PYTHON)));
    }
    let mut manifest = Table::new();
    manifest.insert("workspace".to_owned(), Value::Table(workspace));
    manifest.insert("tasks".to_owned(), Value::Table(Table::new()));
    manifest.insert("dependencies".to_owned(), Value::Table(conda));
    if !wanted.from_index.is_empty() {
        let from_index = Table::from_iter(wanted.from_index.iter().map(|spec| spec.entry()));
        manifest.insert("pypi-dependencies".to_owned(), Value::Table(from_index));
    }
    toml::to_string(&manifest)
}

/// This machine as conda calls it: `linux-64`, `osx-arm64`.
fn platform() -> String {
    platform_of(std::env::consts::OS, std::env::consts::ARCH)
}

fn platform_of(os: &str, arch: &str) -> String {
    let arch = match (os, arch) {
        (_, "x86_64") => "64",
        ("macos", "aarch64") => "arm64",
        (_, other) => other,
    };
    let os = if os == "macos" { "osx" } else { os };
    format!("{os}-{arch}")
}

#[cfg(test)]
mod tests {
    use runtimed_plugin_api::EnvRequest;
    use serde_json::json;

    use super::*;
    use crate::packages::FROM_INDEX;

    fn manifest(request: &EnvRequest) -> Table {
        let wanted = Wanted::by(request).unwrap();
        text("runtimed-pixi-1", &["conda-forge".to_owned()], &wanted).unwrap().parse().unwrap()
    }

    fn request(packages: &[&str]) -> EnvRequest {
        let packages = packages.iter().map(|&package| package.to_owned()).collect();
        EnvRequest { packages, ..EnvRequest::default() }
    }

    #[test]
    fn a_workspace_of_its_own() {
        let mut wanted = request(&["ipykernel", "pyarrow>=14", "b::six"]);
        wanted.options.insert(FROM_INDEX.to_owned(), json!(["cowsay>=5"]));
        let expected = format!(
            r#"
            [workspace]
            name = "runtimed-pixi-1"
            version = "0.1.0"
            channels = ["conda-forge"]
            platforms = ["{}"]
            [tasks]
            [dependencies]
            ipykernel = "*"
            pyarrow = ">=14"
            python = ">=3.13"
            six = {{ version = "*", channel = "b" }}
            [pypi-dependencies]
            cowsay = {{ version = ">=5" }}
            "#,
            platform()
        );
        assert_eq!(manifest(&wanted), expected.parse::<Table>().unwrap());
    }

    #[test]
    fn the_python_of_the_notebook() {
        let python = |request: &EnvRequest| manifest(request)["dependencies"]["python"].clone();
        let asked = EnvRequest { python: Some("3.12".to_owned()), ..request(&[]) };
        assert_eq!(python(&asked), Value::from("3.12.*"));
        assert_eq!(python(&request(&["Python=3.11"])), Value::from("=3.11"));
    }

    #[test]
    fn machines_have_condas_names() {
        let of = |os, arch| platform_of(os, arch);
        assert_eq!([of("linux", "x86_64"), of("linux", "aarch64")], ["linux-64", "linux-aarch64"]);
        assert_eq!([of("macos", "x86_64"), of("macos", "aarch64")], ["osx-64", "osx-arm64"]);
    }
}
