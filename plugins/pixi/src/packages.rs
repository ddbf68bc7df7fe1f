//! What a notebook asks for: conda packages, packages of the Python index and channels, as pixi's manifest and trust know
//! them.
//!
//! Promises: pure; what comes from somewhere else than the channels or the index never shares the identity of their package
//! of that name; what this module does not understand is refused, never passed on.

use runtimed_plugin_api::{EnvRequest, PackageIdentity, PluginError, Result, pypi};
use serde_json::{Map, Value as Json, json};
use toml::{Table, Value};

/// [`EnvRequest::options`]: requirements that come from the Python package index.
pub(crate) const FROM_INDEX: &str = "pypi_dependencies";

/// Ecosystem of packages that come from channels. Source: the protocol, as the next one.
const CONDA: &str = "conda";
/// Ecosystem of channels.
const CHANNEL: &str = "pixi-channel";

/// Everything a request wants to have installed, understood.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Wanted {
    /// Of channels.
    pub(crate) conda: Vec<CondaSpec>,
    /// Of the index.
    pub(crate) from_index: Vec<IndexSpec>,
    /// The interpreter, as pixi constrains it.
    pub(crate) python: Option<String>,
}

/// A package of a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CondaSpec {
    /// The only channel it may come from.
    channel: Option<String>,
    name: String,
    /// `*` if any will do.
    version: String,
}

/// A package of the Python package index, or of a URL.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct IndexSpec {
    name: String,
    extras: Vec<String>,
    from: From,
}

/// What is installed of a name.
#[derive(Debug, Clone, PartialEq)]
enum From {
    /// A version of the index; `*` if any will do.
    Index(String),
    /// What is there.
    Url(String),
}

impl Wanted {
    /// What `request` wants.
    ///
    /// # Errors
    /// `Invalid` with the first package or Python that pixi would not understand.
    pub(crate) fn by(request: &EnvRequest) -> Result<Self> {
        let packages = pypi::checked(&request.packages)?;
        let from_index = pypi::checked(&strings(&request.options, FROM_INDEX))?;
        Ok(Self {
            conda: packages
                .iter()
                .map(|package| CondaSpec::read(package))
                .collect::<Result<_>>()?,
            from_index: from_index.iter().map(|one| IndexSpec::read(one)).collect::<Result<_>>()?,
            python: request.python.as_deref().map(python).transpose()?.flatten(),
        })
    }

    /// Whether the package `name` is wanted from a channel.
    pub(crate) fn names(&self, name: &str) -> bool {
        self.conda.iter().any(|spec| spec.name == name)
    }
}

impl CondaSpec {
    /// Reads `name`, `name>=1.2`, `name=1.2`, `name 1.2.*` or `channel::name`.
    ///
    /// # Errors
    /// `Invalid` for anything else, builds and URLs among it.
    pub(crate) fn read(text: &str) -> Result<Self> {
        let invalid = || {
            PluginError::invalid(format!("`{text}` is no conda package that pixi is given"))
                .help(
                    "Write it as `name`, `name>=1.2`, `name=1.2` or `channel::name`. Packages of the Python \
                     package index belong into `pypi_dependencies`. Nothing was installed.",
                )
                .detail(json!({ "error_kind": "invalid_package", "failed_package": text }))
        };
        let (channel, package) = match text.rsplit_once("::") {
            Some((channel, package)) => (Some(channel.trim().to_owned()), package),
            None => (None, text),
        };
        let (name, version) = split_name(package);
        let version = version.trim();
        let in_order = |c: char| c.is_ascii_alphanumeric() || ".*+!<>=~,|_-".contains(c);
        // A second `=` further on would name a build.
        let build = version.trim_start_matches('=').contains('=')
            && !version.contains(['<', '>', '!', '~', ',']);
        let plain = !name.is_empty() && !build && version.chars().all(in_order);
        let channel_is = |channel: &String| !channel.is_empty() && !channel.contains(['[', ']']);
        if !plain || !channel.as_ref().is_none_or(channel_is) {
            return Err(invalid());
        }
        let version = if version.is_empty() { "*" } else { version };
        Ok(Self { channel, name: name.to_lowercase(), version: version.to_owned() })
    }

    /// The entry in `[dependencies]`.
    pub(crate) fn entry(&self) -> (String, Value) {
        let value = match &self.channel {
            None => Value::from(self.version.as_str()),
            Some(channel) => Value::Table(Table::from_iter([
                ("version".to_owned(), Value::from(self.version.as_str())),
                ("channel".to_owned(), Value::from(channel.as_str())),
            ])),
        };
        (self.name.clone(), value)
    }

    fn identities(&self) -> impl Iterator<Item = PackageIdentity> {
        let channel = self.channel.as_deref().map(channel_identity);
        // Compared as the protocol has it: `_` and `.` are `-`.
        channel.into_iter().chain([identity(CONDA, &pypi::normalized(&self.name))])
    }
}

impl IndexSpec {
    /// Reads `name[extra]>=1.2` or `name @ https://...`.
    ///
    /// # Errors
    /// `Invalid` for anything else; pixi takes no environment markers in this place.
    fn read(text: &str) -> Result<Self> {
        let invalid = |why: &str| {
            PluginError::invalid(format!("`{text}` cannot be given to pixi: {why}"))
                .help("Change it, or declare the packages for another kind, such as `uv`. Nothing was installed.")
                .detail(json!({ "error_kind": "invalid_package", "failed_package": text }))
        };
        let (name, rest) = split_name(text);
        if name.is_empty() {
            return Err(invalid("it does not begin with a package's name"));
        }
        let (extras, rest) = match rest.trim_start().strip_prefix('[') {
            None => (Vec::new(), rest),
            Some(rest) => {
                let (extras, rest) =
                    rest.split_once(']').ok_or_else(|| invalid("`[` has no end"))?;
                let in_order = |c: char| c.is_ascii_alphanumeric() || " ,._-".contains(c);
                if !extras.chars().all(in_order) {
                    return Err(invalid("its extras are none"));
                }
                (extras.split(',').map(|extra| extra.trim().to_owned()).collect(), rest)
            }
        };
        let rest = rest.trim();
        let from = if let Some(url) = rest.strip_prefix('@').map(str::trim) {
            let plain = url.starts_with("https://") && !url.contains(char::is_whitespace);
            From::Url(
                plain.then_some(url).ok_or_else(|| invalid("only `https://` URLs are"))?.to_owned(),
            )
        } else if rest.contains(';') {
            return Err(invalid("it has a condition after `;`"));
        } else {
            let version = rest.trim_start_matches('(').trim_end_matches(')').trim();
            let in_order = |c: char| c.is_ascii_alphanumeric() || " .*+!<>=~,_-".contains(c);
            if !version.chars().all(in_order) {
                return Err(invalid("its version is none"));
            }
            From::Index(if version.is_empty() { "*" } else { version }.to_owned())
        };
        Ok(Self { name: name.to_owned(), extras, from })
    }

    /// The entry in `[pypi-dependencies]`.
    pub(crate) fn entry(&self) -> (String, Value) {
        let (key, value) = match &self.from {
            From::Index(version) => ("version", version),
            From::Url(url) => ("url", url),
        };
        let mut table = Table::from_iter([(key.to_owned(), Value::from(value.as_str()))]);
        if !self.extras.is_empty() {
            table.insert("extras".to_owned(), Value::from(self.extras.clone()));
        }
        (self.name.clone(), Value::Table(table))
    }
}

/// What trust must allow before `request` is built. Packages in `own` are the provider's, not the notebook's.
///
/// # Errors
/// As [`Wanted::by`].
pub(crate) fn identities(request: &EnvRequest, own: &[&str]) -> Result<Vec<PackageIdentity>> {
    Wanted::by(request)?;
    let mut found: Vec<_> =
        request.channels.iter().map(|channel| channel_identity(channel)).collect();
    for package in pypi::checked(&request.packages)?.iter().filter(|it| !own.contains(&it.as_str()))
    {
        found.extend(CondaSpec::read(package)?.identities());
    }
    let from_index = pypi::checked(&strings(&request.options, FROM_INDEX))?;
    found.extend(from_index.iter().map(|package| pypi::identity(package)));
    found.sort();
    found.dedup();
    Ok(found)
}

/// The strings in the list `name` of a document.
pub(crate) fn strings(document: &Map<String, Json>, name: &str) -> Vec<String> {
    let items = document.get(name).and_then(Json::as_array).into_iter().flatten();
    items.filter_map(|item| item.as_str().map(str::to_owned)).collect()
}

/// A wish for a Python as pixi constrains it: a version is a series. None if it says nothing.
fn python(wish: &str) -> Result<Option<String>> {
    if wish.trim().is_empty() {
        return Ok(None);
    }
    let wish = pypi::python_constraint(wish)?;
    let digits = wish.starts_with(|c: char| c.is_ascii_digit());
    let unknown = wish.contains(|c: char| c.is_ascii_alphabetic());
    match (unknown, digits && !wish.contains(['*', ','])) {
        (true, _) => Err(PluginError::unsupported(format!("pixi is given no Python `{wish}`"))
            .help("Write it as `3.12` or `>=3.10,<3.14`. Nothing was installed.")),
        (false, true) => Ok(Some(format!("{wish}.*"))),
        (false, false) => Ok(Some(wish.to_owned())),
    }
}

/// The name that `text` begins with, and the rest.
fn split_name(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && !"._-".contains(c));
    text.split_at(end.unwrap_or(text.len()))
}

fn channel_identity(channel: &str) -> PackageIdentity {
    identity(CHANNEL, channel.trim())
}

fn identity(ecosystem: &str, name: &str) -> PackageIdentity {
    PackageIdentity { ecosystem: ecosystem.to_owned(), name: name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(packages: &[&str], from_index: &[&str]) -> EnvRequest {
        EnvRequest {
            packages: packages.iter().map(|&package| package.to_owned()).collect(),
            options: Map::from_iter([(FROM_INDEX.to_owned(), json!(from_index))]),
            ..EnvRequest::default()
        }
    }

    fn entry((name, value): (String, Value)) -> String {
        toml::to_string(&Table::from_iter([(name, value)])).unwrap().trim().to_owned()
    }

    #[test]
    fn packages_of_channels() {
        for (text, written) in [
            ("numpy", "numpy = \"*\""),
            (" numpy >=2,<3 ", "numpy = \">=2,<3\""),
            ("numpy=1.26", "numpy = \"=1.26\""),
            ("numpy==1.26.4", "numpy = \"==1.26.4\""),
            ("numpy 2.1.*", "numpy = \"2.1.*\""),
            ("a::six", "[six]\nversion = \"*\"\nchannel = \"a\""),
            (
                "https://host/channel::six>1",
                "[six]\nversion = \">1\"\nchannel = \"https://host/channel\"",
            ),
        ] {
            let written: Table = written.parse().unwrap();
            let read: Table = entry(CondaSpec::read(text).unwrap().entry()).parse().unwrap();
            assert_eq!(read, written, "{text}");
        }
        for bad in [
            "",
            "numpy=1.26=py312_0",
            "numpy 2.1.* py312*",
            "six @ https://host/six.whl",
            "https://host/linux-64/numpy-2.0-0.conda",
            "./six",
            "six[version=1]",
            "::six",
            "six\"\nevil = 1",
        ] {
            assert!(CondaSpec::read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn packages_of_the_index() {
        let of = |text: &str| entry(IndexSpec::read(text).unwrap().entry());
        assert_eq!(of("requests"), "[requests]\nversion = \"*\"");
        assert_eq!(of("Six (>=1.2, <2)"), "[Six]\nversion = \">=1.2, <2\"");
        let extras = of("pandas[excel, parquet]~=2.1");
        assert!(
            extras.contains("\"~=2.1\"") && extras.contains("extras = [\"excel\", \"parquet\"]")
        );
        assert_eq!(of("six @ https://h/six.whl"), "[six]\nurl = \"https://h/six.whl\"");
        for bad in [
            "six; python_version > '3'",
            "six @ git+https://h/r",
            "six @ ./six",
            "./six",
            "six[x",
            "six[a/b] @ https://h/six.whl",
            "six>=1\n\"x",
        ] {
            assert!(IndexSpec::read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_python_is_a_series_or_a_constraint() {
        let of = |wish: &str| python(wish).unwrap();
        assert_eq!(of("3.12").as_deref(), Some("3.12.*"));
        assert_eq!(of("3.12.*").as_deref(), Some("3.12.*"));
        assert_eq!(of(" >=3.11,<3.14 ").as_deref(), Some(">=3.11,<3.14"));
        assert_eq!(of(" "), None);
        for bad in ["3.14t", "pypy3.11", "/bin/python", "*"] {
            assert!(python(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn trust_is_asked_about_everything_a_notebook_names_and_nothing_of_ours() {
        let mut wanted = request(
            &["ipykernel", "Foo_Bar>=2", "b::six"],
            &["Cow-Say[x]==5", "z @ https://h/z.whl"],
        );
        wanted.channels = vec!["conda-forge".to_owned(), " mine ".to_owned()];
        let found = identities(&wanted, &["ipykernel"]).unwrap();
        let found: Vec<_> =
            found.iter().map(|one| format!("{}:{}", one.ecosystem, one.name)).collect();
        let all = [
            "conda:foo-bar",
            "conda:six",
            "pixi-channel:b",
            "pixi-channel:conda-forge",
            "pixi-channel:mine",
            "pypi:cow-say",
            "pypi-url:https://h/z.whl",
        ];
        assert_eq!(found, all);
        assert!(identities(&request(&[], &[]), &[]).unwrap().is_empty());
        // What will not be installed is refused here as well: nobody is asked about something unclear.
        assert!(identities(&request(&["six @ https://h/six.whl"], &[]), &[]).is_err());
        assert!(identities(&request(&[], &["--index-url=https://h"]), &[]).is_err());
    }
}
