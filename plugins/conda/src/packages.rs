//! Conda's specifications of packages: what they are called, and what trust knows them as.
//!
//! Promises: pure; a specification that installs from somewhere else than the channels never shares the identity of
//! their package of that name.

use std::path::{Path, PathBuf};

use rattler_conda_types::{MatchSpec, ParseStrictness, VersionSpec};
use runtimed_plugin_api::{PackageIdentity, PluginError, Result, pypi};

use crate::key::is_free_threaded;

/// Ecosystem of packages that come from channels.
const CONDA: &str = "conda";
/// Ecosystem of packages that come from a URL or a path; the name is that place.
const CONDA_URL: &str = "conda-url";
/// Ecosystem of places that project files name; the name is the path.
const PLACE: &str = "conda-prefix";
/// Ecosystem of channels.
const CHANNEL: &str = "conda-channel";

/// The specifications without blanks around them and without empty entries.
///
/// # Errors
/// `Invalid` for one that conda would not understand.
pub(crate) fn checked(packages: &[String]) -> Result<Vec<String>> {
    let packages = pypi::checked(packages)?;
    packages.iter().try_for_each(|package| parsed(package).map(drop))?;
    Ok(packages)
}

/// What trust must allow before `package` is installed: itself, and the channel it names.
///
/// # Errors
/// `Invalid` for one that conda would not understand.
pub(crate) fn identities(package: &str) -> Result<Vec<PackageIdentity>> {
    let spec = parsed(package)?;
    if let Some(url) = &spec.url {
        return Ok(vec![identity(CONDA_URL, url.as_str())]);
    }
    let name = spec.name.as_exact().map_or(package, |name| name.as_normalized());
    let channel = package.split_once("::").map(|(channel, _)| channel_identity(channel));
    Ok(channel.into_iter().chain([identity(CONDA, name)]).collect())
}

/// What trust knows a channel as.
pub(crate) fn channel_identity(channel: &str) -> PackageIdentity {
    identity(CHANNEL, self::channel(channel))
}

/// A channel without blanks around it and without the slash at its end: with and without, it is the same one.
pub(crate) fn channel(channel: &str) -> &str {
    let channel = channel.trim();
    let bare = channel.trim_end_matches('/');
    // The root of the file system is nothing else.
    if bare.is_empty() || bare.ends_with(':') { channel } else { bare }
}

/// `channel` as it is named in a file in `folder`: a relative path is another place for each folder.
pub(crate) fn channel_in(channel: &str, folder: &Path) -> String {
    let channel = self::channel(channel);
    match channel.starts_with('.') {
        true => folder.join(channel).components().collect::<PathBuf>().to_string_lossy().into_owned(),
        false => channel.to_owned(),
    }
}

/// What trust knows the place of an environment as that a project's file names.
pub(crate) fn place_identity(place: &str) -> PackageIdentity {
    identity(PLACE, place)
}

/// The package that a specification is about.
pub(crate) fn name(package: &str) -> Option<String> {
    let spec = parsed(package).ok()?;
    Some(spec.name.as_exact()?.as_normalized().to_owned())
}

/// Whether `list` names the package of `package`.
pub(crate) fn names(list: &[String], package: &str) -> bool {
    let wanted = name(package);
    wanted.is_some() && list.iter().any(|item| name(item) == wanted)
}

/// The specification of a Python: a constraint as it is, a version as a series.
pub(crate) fn python(constraint: &str) -> String {
    let constraint = without_threads(constraint.trim());
    match constraint.starts_with(['>', '<', '=', '!', '~']) || constraint.contains('*') {
        true => format!("python {constraint}"),
        false => format!("python ={constraint}"),
    }
}

/// Whether a Python of `version` is what `constraint` asks for. What cannot be told counts as yes.
pub(crate) fn satisfies(version: &str, constraint: &str) -> bool {
    let spec = python(constraint);
    let wanted = spec.strip_prefix("python ").unwrap_or_default();
    match (VersionSpec::from_str(wanted, ParseStrictness::Lenient), version.parse()) {
        (Ok(wanted), Ok(version)) => wanted.matches(&version),
        _ => true,
    }
}

/// The constraint without the letter that asks for free threading, which is a package of its own.
fn without_threads(constraint: &str) -> String {
    match is_free_threaded(constraint) {
        true => constraint.split(',').map(|part| part.trim_end_matches('t')).collect::<Vec<_>>().join(","),
        false => constraint.to_owned(),
    }
}

fn parsed(package: &str) -> Result<MatchSpec> {
    MatchSpec::from_str(package, ParseStrictness::Strict).map_err(|error| {
        PluginError::invalid(format!("`{package}` is no conda package specification: {error}"))
            .help("Write it as conda does: `name`, `name>=1.2`, `name=1.2`, `channel::name`.")
            .detail(serde_json::json!({ "error_kind": "invalid_package", "failed_package": package }))
    })
}

fn identity(ecosystem: &str, name: &str) -> PackageIdentity {
    PackageIdentity { ecosystem: ecosystem.to_owned(), name: name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_its_channel_and_a_url_are_different_things() {
        let of = |package| {
            let identities = identities(package).unwrap();
            identities.into_iter().map(|one| format!("{}:{}", one.ecosystem, one.name)).collect::<Vec<_>>()
        };
        assert_eq!(of("NumPy>=2,<3"), ["conda:numpy"]);
        assert_eq!(of("numpy 2.1.* py312*"), ["conda:numpy"]);
        assert_eq!(of("my-channel::numpy"), ["conda-channel:my-channel", "conda:numpy"]);
        assert_eq!(of("defaults/::numpy"), of("defaults::numpy"));
        assert_eq!(
            (channel(" https://h/c// "), channel("/"), channel("file:///")),
            ("https://h/c", "/", "file:///")
        );
        let url = "https://host/linux-64/numpy-2.0-0.conda";
        assert_eq!(of(url), [format!("conda-url:{url}")]);
        for bad in ["six @ https://host/six.whl", "--index-url=http://host", "-rrequirements.txt", "a b c d"]
        {
            assert!(checked(&[bad.to_owned()]).is_err(), "{bad}");
        }
    }

    #[test]
    fn pythons_are_constrained_as_conda_does_it() {
        assert_eq!(python("3.12"), "python =3.12");
        assert_eq!(python(" >=3.12,<3.14 "), "python >=3.12,<3.14");
        assert_eq!(python("3.12.*"), "python 3.12.*");
        assert_eq!(python("3.14t"), "python =3.14");
        for spec in ["3.12", ">=3.12,<3.14", "3.12.*", "==3.12.1", "~=3.12"] {
            assert!(parsed(&python(spec)).is_ok(), "{spec}");
        }
        assert!(satisfies("3.12.7", "3.12") && satisfies("3.12.7", "3.12.*") && satisfies("3.14.0", "3.14t"));
        assert!(
            !satisfies("3.11.7", "3.12") && !satisfies("3.11.7", ">=3.12") && !satisfies("3.1.2", "3.12")
        );
        assert!(satisfies("3.11.7", ">=") && satisfies("3.11.7", "=="));
    }

    #[test]
    fn names_are_compared_without_versions() {
        let list = ["PyArrow==15".to_owned(), "a::six".to_owned()];
        assert!(names(&list, "pyarrow>=14") && names(&list, "six") && !names(&list, "numpy"));
    }
}
