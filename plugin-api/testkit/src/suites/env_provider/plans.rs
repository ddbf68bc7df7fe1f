//! What a provider says before anything is built.

use std::collections::BTreeSet;

use runtimed_plugin_api::{ENV_PROVIDER, EnvRequest, ErrorCode, PackageIdentity};

use super::tested::{Tested, entries};
use crate::bench::{answered, is_out_of_reach, small};
use crate::case::{Stop, Verdict, require};
use crate::report::Fault;

/// Longest label: it stands in menus and columns.
const LABEL: usize = 40;
/// Longest kind: it stands in labels such as `venv:prewarmed` and in settings.
const KIND: usize = 32;
/// What an identity must not be confused with: another source of a package of the same name.
const ELSEWHERE: &str = "@ https://example.invalid/elsewhere-1.0-py3-none-any.whl";

pub(super) async fn info(it: &Tested<'_>) -> Verdict {
    let info = &it.info;
    small("EnvProvider::info", info)?;
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    require(!info.kind.is_empty() && info.kind.len() <= KIND && info.kind.chars().all(plain), || {
        Fault::new(
            format!("the provider's kind is `{}`", info.kind),
            format!(
                "choose at most {KIND} of the characters a-z, 0-9, - and _: it becomes a key in settings and a folder's name"
            ),
        )
    })?;
    let label = info.label.trim();
    require(
        !label.is_empty() && label.chars().count() <= LABEL && !label.contains(char::is_control),
        || {
            Fault::new(
                format!("the provider's label has {} characters: `{label}`", info.label.chars().count()),
                format!("choose a name of one line and at most {LABEL} characters"),
            )
        },
    )?;
    let marker = info
        .markers
        .iter()
        .find(|marker| marker.is_empty() || marker.contains(['/', '\0']) || marker.starts_with(".."));
    if let Some(marker) = marker {
        return Err(Fault::new(
            format!("the marker `{marker}` is no file name"),
            "name a file of the project's folder",
        )
        .into());
    }
    let packages = [&info.base_packages, &info.data_packages, &info.tail_packages].into_iter().flatten();
    let mut seen = BTreeSet::new();
    for package in packages {
        require(!package.trim().is_empty() && !package.starts_with('-') && seen.insert(package), || {
            Fault::new(
                format!("the package `{package}` of `info` is empty, an option or there twice"),
                "name each package once",
            )
        })?;
    }
    if let Ok(manifest) = it.bench.session.subject.manifest() {
        let provided =
            manifest.provides.iter().find(|one| one.capability == ENV_PROVIDER && one.name == info.kind);
        let Some(provided) = provided else {
            return Err(Fault::new(
                format!("the provider's kind is `{}`, and plugin.toml does not mention it", info.kind),
                "write the same name under [[provides]]",
            )
            .into());
        };
        require(provided.markers == info.markers, || {
            Fault::new(
                format!("`info` has the markers {:?}, plugin.toml {:?}", info.markers, provided.markers),
                "write the same markers in the same order: projects are found by those of plugin.toml",
            )
        })?;
    }
    let (again, _) = it.bench.at_once("EnvProvider::info", || it.provider.info())?;
    require(again == *info, || Fault::new("`info` changes from call to call", "let it be constant"))
}

pub(super) async fn detect_nothing(it: &Tested<'_>) -> Verdict {
    let folder = it.folder("empty")?;
    let found = it.bench.call("EnvProvider::detect", it.provider.detect(&folder)).await?;
    let found = answered("EnvProvider::detect", found, "answer none for a folder without a project")?;
    if let Some(project) = found {
        return Err(Fault::new(
            format!(
                "`EnvProvider::detect` found the project `{}` in an empty folder",
                project.file.display()
            ),
            "look into the folder itself, not into its parents",
        )
        .into());
    }
    require(entries(&folder).is_empty(), || {
        Fault::new("`EnvProvider::detect` wrote into the folder it was to look at", "only read there")
    })
}

pub(super) async fn stable(it: &Tested<'_>) -> Verdict {
    let request = it.request(&["runtimed-a", "runtimed-b"]);
    let plan = it.plan(request.clone()).await?;
    require(is_key(&plan.key), || {
        Fault::new(
            format!("`EnvProvider::plan` gave the key `{}`", plan.key),
            "make it 16 lower-case hex digits: it becomes a folder's name",
        )
    })?;
    let unstable = |what: &str| Fault::new(what, "derive the key from the request alone");
    let again = it.plan(request.clone()).await?;
    require(again == plan, || unstable("`EnvProvider::plan` planned the same request differently"))?;
    let background = it.plan(EnvRequest { background: true, ..request.clone() }).await?;
    require(background.key == plan.key, || {
        unstable("`EnvProvider::plan` gave another key to the same request in the background")
    })?;
    let other = it.bench.make(&it.bench.another_host()).await?;
    it.bench.started(&other).await?;
    let providers = other.env_providers();
    let Some(other) = providers.iter().find(|other| other.info().kind == it.info.kind) else {
        return Err(unstable("a second instance has no such provider").into());
    };
    let elsewhere = it.bench.call("EnvProvider::plan", other.plan(request)).await?;
    let elsewhere =
        answered("EnvProvider::plan", elsewhere, "plan every request whose packages are in order")?;
    require(elsewhere.key == plan.key, || {
        unstable("`EnvProvider::plan` of another instance gave another key to the same request")
    })
}

fn is_key(key: &str) -> bool {
    key.len() == 16 && key.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
}

pub(super) async fn tells_apart(it: &Tested<'_>) -> Verdict {
    let request = it.request(&["runtimed-a"]);
    let key = it.plan(request.clone()).await?.key;
    let text = |text: &str| Some(text.to_owned());
    let others = [
        ("other packages", it.request(&["runtimed-b"])),
        ("more packages", it.request(&["runtimed-a", "runtimed-b"])),
        ("another version of a package", it.request(&["runtimed-a==1.0"])),
        (
            "an environment of its own",
            EnvRequest { env_id: text("00000000-0000-4000-8000-000000000001"), ..request.clone() },
        ),
        ("another Python", EnvRequest { python: text("3.12"), ..request }),
    ];
    for (what, other) in others {
        let plan = it.bench.call("EnvProvider::plan", it.provider.plan(other)).await?;
        match plan {
            // A provider may be unable to choose a Python.
            Err(error) if matches!(error.code, ErrorCode::Unsupported | ErrorCode::Invalid) => {}
            plan => {
                let plan = answered("EnvProvider::plan", plan, "plan it, or refuse it as `Unsupported`")?;
                require(plan.key != key, || {
                    Fault::new(
                        format!("`EnvProvider::plan` gives a request for {what} the same key"),
                        "put everything that makes two environments different into the key",
                    )
                })?;
            }
        }
    }
    Ok(())
}

pub(super) async fn does_nothing(it: &Tested<'_>) -> Verdict {
    let before = entries(&it.bench.folder);
    it.plan(it.request(&["runtimed-a"])).await?;
    let after = entries(&it.bench.folder);
    require(after == before, || {
        let new = after.iter().find(|path| !before.contains(path));
        Fault::new(
            format!(
                "`EnvProvider::plan` made `{}`",
                new.map_or_else(Default::default, |path| path.display().to_string())
            ),
            "put off what leaves traces until `create`",
        )
    })
}

pub(super) async fn identities(it: &Tested<'_>) -> Verdict {
    let nothing = identities_of(it, declaring(&[])).await?;
    if let Some(unasked) = nothing.first() {
        return Err(Fault::new(
            format!("`EnvProvider::identities` names `{}` although nothing is declared", unasked.name),
            "name what the request declares and nothing else: users are asked about it",
        )
        .into());
    }
    let package = it.bench.session.package.as_str();
    let declared = identities_of(it, declaring(&[package])).await?;
    let unnamed = |what: &str| {
        Fault::new(
            format!("`EnvProvider::identities` does not name {what}"),
            "name everything the notebook declares: what is not named is installed without anybody's consent",
        )
    };
    require(!declared.is_empty(), || unnamed(&format!("the declared package `{package}`")))?;
    // A requirement that says where it comes from must not pass for the package of that name.
    let elsewhere = format!("{package} {ELSEWHERE}");
    for request in [elsewhere.as_str(), "--index-url=https://example.invalid/simple", "-rrequirements.txt"] {
        let asked = declaring(&[request]);
        let found = it.bench.call("EnvProvider::identities", it.provider.identities(&asked)).await?;
        // To refuse it is the best there is.
        let Ok(found) = found else { continue };
        let found: BTreeSet<PackageIdentity> = found.into_iter().collect();
        require(!found.is_empty(), || unnamed(&format!("`{request}`")))?;
        require(found != declared, || {
            Fault::new(
                format!("`EnvProvider::identities` takes `{request}` for the package `{package}`"),
                "give a requirement with a source of its own an identity of its own",
            )
        })?;
    }
    Ok(())
}

/// What a notebook's metadata is made into for trust: its own packages, without those of the provider.
fn declaring(packages: &[&str]) -> EnvRequest {
    EnvRequest {
        packages: packages.iter().map(|&package| package.to_owned()).collect(),
        ..EnvRequest::default()
    }
}

async fn identities_of(it: &Tested<'_>, request: EnvRequest) -> Result<BTreeSet<PackageIdentity>, Stop> {
    let found = it.bench.call("EnvProvider::identities", it.provider.identities(&request)).await?;
    if let Err(error) = &found
        && is_out_of_reach(error)
    {
        return Err(Stop::skipped(format!("`EnvProvider::identities` says: {}", error.message)));
    }
    let found =
        answered("EnvProvider::identities", found, "name every package that is in order, without a network")?;
    small("EnvProvider::identities", &found)?;
    Ok(found.into_iter().collect())
}
