//! Python requirements: what they are called, and what trust knows them as.
//!
//! For: providers that install from a Python package index.
//! Promises: pure; a requirement that installs from somewhere else than the index never shares the
//! identity of the index's package of that name.

use std::path::{Path, PathBuf};

use crate::{PackageIdentity, PluginError, Result};

/// Ecosystem of packages that come from the package index.
const PYPI: &str = "pypi";
/// Ecosystem of packages that come from a URL, a repository or a path; the name is that place.
const PYPI_URL: &str = "pypi-url";

/// Endings by which installers take a bare word for a file.
const ARCHIVES: [&str; 12] =
    [".whl", ".zip", ".tar", ".tgz", ".tbz", ".txz", ".tlz", ".gz", ".bz2", ".xz", ".lzma", ".zst"];

/// The normalized name in a requirement.
///
/// ```
/// let name = runtimed_plugin_api::pypi::normalized("Foo_Bar[extra]>=1 ; python_version > '3'");
/// assert_eq!(name, "foo-bar");
/// ```
pub fn normalized(spec: &str) -> String {
    let spec = spec.split(';').next().unwrap_or_default();
    let spec = spec.rsplit("::").next().unwrap_or_default().trim();
    let name = spec.split(|c: char| "@[<>=!~".contains(c) || c.is_whitespace()).next().unwrap_or_default();
    let parts = name.split(['-', '_', '.']).filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join("-").to_lowercase()
}

/// Whether `list` names the package of `spec`.
pub fn names(list: &[String], spec: &str) -> bool {
    let name = normalized(spec);
    list.iter().any(|item| normalized(item) == name)
}

/// What trust must allow before `spec` is installed: the package's name in the ecosystem `pypi`, or, for a
/// requirement that installs from a URL, a repository or a path, that place in the ecosystem `pypi-url`.
pub fn identity(spec: &str) -> PackageIdentity {
    let (ecosystem, name) = match direct_reference(spec) {
        Some(place) => (PYPI_URL, place.to_owned()),
        None => (PYPI, normalized(spec)),
    };
    PackageIdentity { ecosystem: ecosystem.to_owned(), name }
}

/// The same for a requirement of a file in `folder`: a relative path is another place for each folder.
///
/// ```
/// use std::path::Path;
///
/// use runtimed_plugin_api::pypi::identity_in;
///
/// assert_eq!(identity_in("./six.whl", Path::new("/lab")).name, "/lab/six.whl");
/// assert_eq!(identity_in("six", Path::new("/lab")).name, "six");
/// ```
pub fn identity_in(spec: &str, folder: &Path) -> PackageIdentity {
    let identity = identity(spec);
    // With a colon it is a URL, or what an installer may take for one.
    let relative = match identity.name.strip_prefix("file:") {
        Some(path) if path.starts_with('/') => return identity,
        Some(path) => path,
        None if identity.name.contains(':') => return identity,
        None => identity.name.as_str(),
    };
    if identity.ecosystem != PYPI_URL {
        return identity;
    }
    let place: PathBuf = folder.join(relative).components().collect();
    PackageIdentity { name: place.to_string_lossy().into_owned(), ..identity }
}

/// The place a requirement installs from, unless that is the index: `name @ URL`, a bare URL, a path.
fn direct_reference(spec: &str) -> Option<&str> {
    // A marker is separated by a blank, because a URL may hold a semicolon.
    let spec = spec.split(" ;").next().unwrap_or_default().trim();
    let is_name = |name: &str| name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    if let Some((name, place)) = spec.split_once('@') {
        // Whatever stands between brackets takes no part in it.
        let name = name.split('[').next().unwrap_or_default().trim();
        if !name.is_empty() && is_name(name) {
            return Some(place.trim());
        }
    }
    let requirement = spec.split([';', '[']).next().unwrap_or_default().trim();
    let place = requirement.starts_with('.') || requirement.contains(['/', '\\', ':']);
    let archive = ARCHIVES.iter().any(|suffix| requirement.to_lowercase().ends_with(suffix));
    // Whatever is not a name, an installer may take for anything.
    let name = requirement.split(|c: char| "<>=!~(".contains(c) || c.is_ascii_whitespace()).next();
    (place || archive || !name.is_some_and(is_name)).then_some(spec)
}

/// A constraint on Python that a notebook names: `3.12`, `>=3.10,<3.14`, `==3.12.*`, `3.14t`, `pypy3.11`.
///
/// # Errors
/// `Invalid` for anything else, such as the path of a program or a place to download one from.
pub fn python_constraint(text: &str) -> Result<&str> {
    let text = text.trim();
    let begins = text.starts_with(|c: char| c.is_ascii_digit() || "<>=!~".contains(c))
        || ["cpython", "pypy", "graalpy"].iter().any(|name| text.starts_with(name));
    let of_versions = text.chars().all(|c| c.is_ascii_alphanumeric() || " .,<>=!~*|+-".contains(c));
    match begins && of_versions {
        true => Ok(text),
        false => Err(PluginError::invalid(format!("`{text}` is no version of Python"))
            .help("Write it as `3.12` or `>=3.10,<3.14`. Nothing was built or run.")),
    }
}

/// The packages without blanks around them and without empty entries.
///
/// # Errors
/// `Invalid` for an entry that an installer would read as an option of its own.
pub fn checked(packages: &[String]) -> Result<Vec<String>> {
    let packages = packages.iter().map(|package| package.trim()).filter(|package| !package.is_empty());
    packages
        .map(|package| match package.starts_with('-') {
            true => Err(PluginError::invalid(format!("`{package}` is an option, not a package"))
                .help("List package names only; indexes and other options belong in the installer's own configuration.")),
            false => Ok(package.to_owned()),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_normalized() {
        for (spec, name) in [
            ("numpy", "numpy"),
            ("Foo_Bar.baz>=1.2", "foo-bar-baz"),
            ("scikit__learn ~= 1", "scikit-learn"),
            ("pandas[excel,parquet]==2; python_version>'3.8'", "pandas"),
            ("conda-forge::polars", "polars"),
            ("pkg @ https://example.org/pkg.whl", "pkg"),
            ("-_odd._", "odd"),
            ("  ", ""),
        ] {
            assert_eq!(normalized(spec), name, "{spec}");
        }
    }

    #[test]
    fn a_direct_reference_has_an_identity_of_its_own() {
        let of = |spec| {
            let identity = identity(spec);
            (identity.ecosystem, identity.name)
        };
        let pair = |ecosystem: &str, name: &str| (ecosystem.to_owned(), name.to_owned());
        assert_eq!(of("NumPy>=2"), pair("pypi", "numpy"));
        assert_eq!(of("numpy @ https://evil.example/n.whl"), pair("pypi-url", "https://evil.example/n.whl"));
        assert_eq!(of("numpy@git+ssh://host/n"), pair("pypi-url", "git+ssh://host/n"));
        assert_eq!(
            of("numpy[a/b] @ https://evil.example/n.whl"),
            pair("pypi-url", "https://evil.example/n.whl")
        );
        assert_eq!(
            of("https://host/a;b.whl ; sys_platform == 'x'"),
            pair("pypi-url", "https://host/a;b.whl")
        );
        assert_eq!(of("git+https://user@host/r"), pair("pypi-url", "git+https://user@host/r"));
        assert_eq!(of("./wheels/numpy"), pair("pypi-url", "./wheels/numpy"));
        assert_eq!(of("numpy-2.0-py3-none-any.whl"), pair("pypi-url", "numpy-2.0-py3-none-any.whl"));
        for odd in ["git+https:host?::numpy", "x::numpy", "https:host#numpy", "numpy\u{a0}x", "?numpy"] {
            assert_eq!(of(odd), pair("pypi-url", odd));
        }
        assert_eq!(of("Foo_Bar[extra] (>=1) ; python_version > '3'"), pair("pypi", "foo-bar"));
    }

    #[test]
    fn a_path_is_another_one_in_each_folder() {
        let of = |spec| identity_in(spec, Path::new("/lab")).name;
        assert_eq!(of("six @ file:./six.whl"), "/lab/six.whl");
        assert_eq!(of("six @ file:///six.whl"), "file:///six.whl");
        assert_eq!(of("../six.whl"), "/lab/../six.whl");
        assert_eq!(of("https://h/six.whl"), "https://h/six.whl");
    }

    #[test]
    fn a_version_of_python_is_not_a_program() {
        for good in ["3.12", " >=3.10,<3.14 ", "==3.12.*", "~=3.11", "3.14t", "pypy3.11", "3.12|3.13"] {
            assert_eq!(python_constraint(good).unwrap(), good.trim());
        }
        for bad in ["", "/bin/sh", "./py", "py", "3.12/../x", ">=3[url=https://host/p.conda]", "3:x", "--x"] {
            assert!(python_constraint(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn options_are_not_packages() {
        let list = |items: &[&str]| items.iter().map(|item| (*item).to_owned()).collect::<Vec<_>>();
        assert_eq!(checked(&list(&[" six ", "", "attrs"])).unwrap(), list(&["six", "attrs"]));
        assert!(checked(&list(&["six", " --index-url=http://x"])).is_err());
    }
}
