//! Environments that an environment file describes, each at a place of its own.
//!
//! Promises: an environment that the user made is added to and never rebuilt or deleted; one that we made is known by a
//! file in it; a build that is given up leaves nothing at that place, unless it lies on another file system than the
//! host's folder, and then it is taken for what it is.

use std::io;
use std::path::{Path, PathBuf};

use runtimed_plugin_api::{
    EnvPlan, EnvRequest, Environment, PackageIdentity, PluginError, Project, Result, pypi, read_text,
};
use serde_json::{Map, Value, json};

use crate::build::{Build, Target, Wanted};
use crate::environment_yml::{EnvironmentYml, MARKERS};
use crate::key::{KeyParts, cache_key};
use crate::packages::{checked, names, satisfies};
use crate::plan::{BASE, unnamed};
use crate::prefixes::{self, interpreter};
use crate::surroundings::Surroundings;
use crate::{errors, packages};

/// Kind of the project on the wire.
const KIND: &str = "environment_yml";
/// What the kernel of a project needs beyond the file, and pip for its section.
const NEEDED: [&str; 2] = ["ipykernel", "pip"];
/// Folder of environments whose file gives no place, below the daemon's base. Source: the wire contract.
const NAMELESS: &str = "envs/conda-envs";

/// The file that says that an environment is ours, and whether it is whole.
const OURS: &str = ".runt-owned";
/// What it says while the environment is being made in its place.
const UNFINISHED: &str = "unfinished\n";
/// What it says afterwards.
const WHOLE: &str = "whole\n";

/// [`Project::extra`] and [`Environment::extra`]: where the environment is, or will be.
pub(crate) const PREFIX: &str = "prefix";
/// [`Environment::extra`]: the file of the project.
pub(crate) const PROJECT_FILE: &str = "project_file";
/// [`Project::extra`]: whether the user made it.
const USER_MANAGED: &str = "user_managed";
/// [`Project::extra`]: whether its file says where it is.
const PLACED: &str = "placed";
/// [`Project::extra`]: whether it is there.
const BUILT: &str = "built";
/// [`Project::extra`]: what to call it.
const LABEL: &str = "label";
/// [`Project::extra`]: how the user would make it.
const BUILD_COMMAND: &str = "build_command";
/// [`Project::extra`]: channels, as written.
const CHANNELS: &str = "channels";
/// [`Project::extra`]: pip's packages, as written.
const PIP: &str = "pip";

/// The project in `dir`; `base` is the daemon's folder.
///
/// # Errors
/// `Invalid` for a file that cannot be read or used.
pub(crate) fn detect(dir: &Path, base: &Path, surroundings: &Surroundings) -> Result<Option<Project>> {
    for marker in MARKERS {
        let file = dir.join(marker);
        match read_text(&file) {
            Ok(text) => {
                return described(&EnvironmentYml::read(&text, &file)?, &file, base, surroundings).map(Some);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(PluginError::invalid(format!("`{}` cannot be read: {error}", file.display())));
            }
        }
    }
    Ok(None)
}

fn described(
    declared: &EnvironmentYml,
    file: &Path,
    base: &Path,
    surroundings: &Surroundings,
) -> Result<Project> {
    let folder = file.parent().unwrap_or(file);
    // As conda has it, a place is the exporting machine's unless it is here, or there is nothing else.
    let placed = declared.prefix.as_ref().map(|prefix| folder.join(prefix));
    let placed = placed.filter(|prefix| prefix.is_dir() || declared.name.is_none());
    let made = declared.name.as_deref().and_then(|name| prefixes::named(name, surroundings));
    let (prefix, label) = match (placed.clone(), &declared.name) {
        (Some(prefix), name) => {
            let label = name.clone().unwrap_or_else(|| prefix.display().to_string());
            (prefix, label)
        }
        (None, Some(name)) => {
            let prefix = made.or_else(|| prefixes::new(name, surroundings)).ok_or_else(|| {
                PluginError::invalid(format!("there is no home folder to make the environment `{name}` in"))
            })?;
            (prefix, name.clone())
        }
        (None, None) => {
            let pip = declared.pip.iter().map(|package| format!("pip:{package}"));
            let parts = KeyParts {
                deps: &declared.dependencies.iter().cloned().chain(pip).collect::<Vec<_>>(),
                channels: &declared.channels,
                python: declared.python.as_deref(),
                env_id: None,
            };
            let prefix = base.join(NAMELESS).join(cache_key(&parts));
            let label = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
            (prefix, label)
        }
    };
    let state = State::of(&prefix);
    let user_managed = state == State::Theirs || placed.is_some();
    let command = match placed {
        Some(_) => format!("conda env create -p {} -f {}", prefix.display(), file.display()),
        None => format!("conda env create -f {}", file.display()),
    };
    let extra = json!({
        PREFIX: prefix,
        LABEL: label,
        USER_MANAGED: user_managed,
        PLACED: placed.is_some(),
        BUILT: matches!(state, State::Theirs | State::Ours),
        BUILD_COMMAND: command,
        CHANNELS: declared.channels,
        PIP: declared.pip,
    });
    Ok(Project {
        kind: KIND.to_owned(),
        file: file.to_owned(),
        dependencies: declared.dependencies.clone(),
        dev_dependencies: Vec::new(),
        requires_python: declared.python.clone(),
        extra: extra.as_object().cloned().unwrap_or_default(),
    })
}

/// Who made what is at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing is there, or nothing worth keeping.
    Missing,
    /// Ours, and whole.
    Ours,
    /// Somebody else's environment.
    Theirs,
    /// Something of somebody else's that is no environment.
    Occupied,
}

impl State {
    fn of(prefix: &Path) -> Self {
        let ours = std::fs::read_to_string(prefix.join(OURS)).ok();
        let whole = ours.as_deref().is_some_and(|text| text.starts_with(WHOLE));
        let python = interpreter(prefix).exists();
        // Anybody can write such a file anywhere: what is deleted for it looks like what we make.
        let begun = whole || ours.as_deref() == Some(UNFINISHED);
        let like_ours = begun && (prefix.join("conda-meta").is_dir() || entries(prefix) == 1);
        match python {
            true if whole => Self::Ours,
            true if ours.is_none() => Self::Theirs,
            _ if like_ours || entries(prefix) == 0 => Self::Missing,
            _ => Self::Occupied,
        }
    }
}

/// How much there is at `prefix`.
fn entries(prefix: &Path) -> usize {
    std::fs::read_dir(prefix).map_or(0, Iterator::count)
}

/// The file of the project that an environment of ours at `prefix` was made for.
fn owner(prefix: &Path) -> Option<PathBuf> {
    let text = std::fs::read_to_string(prefix.join(OURS)).ok()?;
    text.strip_prefix(WHOLE)?.lines().next().map(PathBuf::from)
}

/// What the file says of a whole environment that was made for `project`.
fn whole_for(project: &Project) -> String {
    format!("{WHOLE}{}\n", project.file.display())
}

/// Decides what `request` means, which has the project `project`.
pub(crate) fn plan(mut request: EnvRequest, project: &Project) -> Result<EnvPlan> {
    let mut packages = checked(&project.dependencies)?;
    for package in checked(&request.packages)? {
        if !BASE.contains(&package.as_str()) && !names(&packages, &package) {
            packages.push(package);
        }
    }
    packages.extend(unnamed(&NEEDED, &packages));
    request.packages = packages;
    request.python = project.requires_python.clone();
    request.python.as_deref().map(pypi::python_constraint).transpose()?;
    request.channels = strings(&project.extra, CHANNELS);
    let parts = json!([
        project.file,
        place(project)?,
        request.packages,
        request.python,
        request.channels,
        strings(&project.extra, PIP)
    ]);
    Ok(EnvPlan { key: runtimed_plugin_api::cache_key(&parts.to_string()), request })
}

/// Makes the environment of `project` what its file says; `stand_in` is the host's folder for it.
pub(crate) async fn prepare(
    build: &Build<'_>,
    request: &EnvRequest,
    project: &Project,
    stand_in: &Path,
) -> Result<Environment> {
    let prefix = place(project)?;
    make_folder(stand_in).await?;
    let wanted = Wanted {
        packages: &request.packages,
        python: request.python.as_deref(),
        channels: &request.channels,
        folder: project.file.parent().unwrap_or(&project.file),
    };
    let python = interpreter(&prefix);
    let state = State::of(&prefix);
    let outdated = prefixes::python_version(&prefix)
        .zip(request.python.as_deref())
        .filter(|(version, constraint)| !satisfies(version, constraint));
    match (state, outdated) {
        (State::Theirs, Some((version, constraint))) => {
            return Err(cannot_rebuild(project, &prefix, &version, constraint));
        }
        (State::Ours, Some((version, constraint))) if owner(&prefix).as_ref() != Some(&project.file) => {
            return Err(cannot_rebuild(project, &prefix, &version, constraint));
        }
        (State::Occupied, _) => {
            let message = format!("`{}` is there and is no conda environment", prefix.display());
            return Err(PluginError::invalid(message).help(
                "Move it away, or give the environment another name in its file. Nothing was changed.",
            ));
        }
        (State::Ours, None) | (State::Theirs, _) => {
            let added = build.add(&prefix, &wanted).await;
            added.map_err(|error| told("conda:env_yml sync into existing env failed", error))?;
        }
        (State::Missing, _) | (State::Ours, Some(_)) => {
            let what = format!("Failed to create conda env '{}' from environment.yml", text(project, LABEL));
            create(build, &wanted, project, (&prefix, state), stand_in)
                .await
                .map_err(|error| told(&what, error))?;
        }
    }
    build.pip(&python, &strings(&project.extra, PIP), wanted.folder).await?;
    build.validate(&python).await?;
    let extra = json!({ PREFIX: prefix, PROJECT_FILE: project.file, CHANNELS: request.channels });
    Ok(Environment {
        python,
        python_version: prefixes::python_version(&prefix),
        extra: extra.as_object().cloned().unwrap_or_default(),
        ..Environment::at(stand_in, crate::provider::KIND, request.packages.clone())
    })
}

/// Makes the environment in the host's folder and moves it to `prefix`, which was as `before`.
async fn create(
    build: &Build<'_>,
    wanted: &Wanted<'_>,
    project: &Project,
    (prefix, before): (&Path, State),
    stand_in: &Path,
) -> Result<()> {
    let made = stand_in.join("made");
    // Of a build that was given up.
    remove(&made).await?;
    let target = Target { prefix: &made, home: Some(prefix), saved: before == State::Ours };
    build.create(target, wanted).await?;
    // That took a while.
    if State::of(prefix) != before {
        let message = format!("`{}` was made by somebody else meanwhile", prefix.display());
        return Err(PluginError::invalid(message).help("Nothing was changed there. Start the kernel again."));
    }
    // Ours, or nothing worth keeping: see `State`.
    remove(prefix).await?;
    make_folder(prefix.parent().unwrap_or(prefix)).await?;
    let ours = project.extra.get(USER_MANAGED) != Some(&Value::Bool(true));
    if ours {
        write(&made.join(OURS), &whole_for(project)).await?;
    }
    if tokio::fs::rename(&made, prefix).await.is_ok() {
        return Ok(());
    }
    // On another file system: its packages are linked once more, or copied.
    make_folder(prefix).await?;
    write(&prefix.join(OURS), UNFINISHED).await?;
    build.copy(&made, prefix, wanted).await?;
    match ours {
        true => write(&prefix.join(OURS), &whole_for(project)).await,
        false => remove_file(&prefix.join(OURS)).await,
    }
}

fn cannot_rebuild(project: &Project, prefix: &Path, version: &str, constraint: &str) -> PluginError {
    let wanted = packages::python(constraint).replace("python ", "python");
    let which = match State::of(prefix) {
        State::Theirs if text(project, LABEL) != prefix.display().to_string() => {
            format!("-n {}", text(project, LABEL))
        }
        _ => format!("-p {}", prefix.display()),
    };
    PluginError::invalid(format!(
        "Conda env \"{}\" has Python {version} but environment.yml requests {wanted}. This is a user-managed env — \
         rebuild it manually with: conda env remove {which} && conda env create -f environment.yml",
        prefix.display()
    ))
    .help("Nothing was changed. Rebuild it, or change the file.")
}

/// Where the environment of `project` is, or will be.
fn place(project: &Project) -> Result<PathBuf> {
    let prefix = PathBuf::from(text(project, PREFIX));
    // A plan is a document: this one may come from anywhere.
    if prefix.is_absolute() && prefix.parent().is_some() {
        return Ok(prefix);
    }
    Err(PluginError::invalid(format!(
        "the project `{}` has no place for its environment",
        project.file.display()
    )))
}

fn text(project: &Project, key: &str) -> String {
    project.extra.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// The list of strings at `key`.
pub(crate) fn strings(map: &Map<String, Value>, key: &str) -> Vec<String> {
    let items = map.get(key).and_then(Value::as_array).into_iter().flatten();
    items.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// What trust must know of a project beyond its packages: channels, and what pip installs.
///
/// # Errors
/// `Invalid` for a package of pip's that is none.
pub(crate) fn sources(project: &Project) -> Result<Vec<PackageIdentity>> {
    let folder = project.file.parent().unwrap_or(&project.file);
    let channels = strings(&project.extra, CHANNELS);
    let channels =
        channels.iter().map(|channel| packages::channel_identity(&packages::channel_in(channel, folder)));
    let pip = pypi::checked(&strings(&project.extra, PIP))?;
    Ok(channels.chain(pip.iter().map(|package| pypi::identity_in(package, folder))).collect())
}

/// Where the project's file says that its environment is: programs there would run.
pub(crate) fn named_place(project: &Project) -> Option<String> {
    let placed = project.extra.get(PLACED) == Some(&Value::Bool(true));
    placed.then(|| text(project, PREFIX))
}

fn told(what: &str, error: PluginError) -> PluginError {
    PluginError { message: format!("{what}: {}", error.message), ..error }
}

/// Makes a folder and those it lies in.
pub(crate) async fn make_folder(path: &Path) -> Result<()> {
    tokio::fs::create_dir_all(path).await.map_err(|error| errors::not_written(path, &error))
}

async fn write(path: &Path, text: &str) -> Result<()> {
    tokio::fs::write(path, text).await.map_err(|error| errors::not_written(path, &error))
}

async fn remove(path: &Path) -> Result<()> {
    match tokio::fs::remove_dir_all(path).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(errors::not_written(path, &error)),
        _ => Ok(()),
    }
}

async fn remove_file(path: &Path) -> Result<()> {
    tokio::fs::remove_file(path).await.map_err(|error| errors::not_written(path, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project(folder: &Path, text: &str, surroundings: &Surroundings) -> Project {
        std::fs::write(folder.join("environment.yml"), text).unwrap();
        detect(folder, &folder.join("base"), surroundings).unwrap().unwrap()
    }

    #[test]
    fn a_project_says_where_its_environment_is_and_whose() {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path);
        let surroundings = Surroundings { home: Some(at("home")), ..Surroundings::default() };
        assert_eq!(detect(folder.path(), folder.path(), &surroundings).unwrap(), None);

        let named = project(folder.path(), "name: lab\ndependencies: [six, python=3.12]\n", &surroundings);
        assert_eq!((named.kind.as_str(), named.requires_python.as_deref()), (KIND, Some("3.12.*")));
        assert_eq!(named.dependencies, ["six"]);
        assert_eq!(named.extra[PREFIX], json!(at("home/.conda/envs/lab")));
        assert_eq!((&named.extra[USER_MANAGED], &named.extra[BUILT]), (&json!(false), &json!(false)));
        assert_eq!(named.extra[CHANNELS], json!(["defaults"]));
        let command = format!("conda env create -f {}", at("environment.yml").display());
        assert_eq!((&named.extra[BUILD_COMMAND], &named.extra[LABEL]), (&json!(command), &json!("lab")));

        let nameless = project(folder.path(), "dependencies: [six]\n", &surroundings);
        let prefix = PathBuf::from(nameless.extra[PREFIX].as_str().unwrap());
        assert!(prefix.starts_with(at("base/envs/conda-envs")), "{prefix:?}");
        let other = project(folder.path(), "dependencies: [attrs]\n", &surroundings);
        assert_ne!(other.extra[PREFIX], nameless.extra[PREFIX]);

        let placed = project(folder.path(), "prefix: mine\ndependencies: [six]\n", &surroundings);
        assert_eq!(placed.extra[PREFIX], json!(at("mine")));
        assert_eq!(placed.extra[USER_MANAGED], json!(true));
    }

    #[test]
    fn an_environment_is_ours_only_if_it_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let prefix = folder.path().join("env");
        assert_eq!(State::of(&prefix), State::Missing);
        std::fs::create_dir_all(prefix.join("bin")).unwrap();
        assert_eq!(State::of(&prefix), State::Occupied);
        std::fs::write(interpreter(&prefix), "").unwrap();
        assert_eq!(State::of(&prefix), State::Theirs);
        std::fs::write(prefix.join(OURS), UNFINISHED).unwrap();
        assert_eq!(State::of(&prefix), State::Occupied);
        std::fs::write(prefix.join(OURS), "whole\n/a/environment.yml\n").unwrap();
        assert_eq!(owner(&prefix), Some(PathBuf::from("/a/environment.yml")));
        assert_eq!(State::of(&prefix), State::Ours);
        std::fs::remove_file(interpreter(&prefix)).unwrap();
        assert_eq!(State::of(&prefix), State::Occupied, "a folder that only says so");
        std::fs::create_dir(prefix.join("conda-meta")).unwrap();
        assert_eq!(State::of(&prefix), State::Missing);
    }

    #[test]
    fn a_projects_plan_has_what_its_file_says() {
        let folder = tempfile::tempdir().unwrap();
        let surroundings = Surroundings { home: Some(folder.path().to_owned()), ..Surroundings::default() };
        let text = "name: a\nchannels: [c]\ndependencies: [six, python=3.12, {pip: [cowsay]}]\n";
        let project = project(folder.path(), text, &surroundings);
        let packages = ["ipykernel", "six>=1", "attrs"].map(str::to_owned).to_vec();
        let request = EnvRequest { packages, project: Some(project.clone()), ..EnvRequest::default() };
        let plan = plan(request, &project).unwrap();
        assert_eq!(plan.request.packages, ["six", "attrs", "ipykernel", "pip"]);
        assert_eq!(
            (plan.request.python.as_deref(), &plan.request.channels[..]),
            (Some("3.12.*"), &["c".to_owned()][..])
        );
        assert_eq!(super::plan(plan.request.clone(), &project).unwrap(), plan);
    }

    #[test]
    fn the_same_path_in_two_projects_is_two_places() {
        let folder = tempfile::tempdir().unwrap();
        let surroundings = Surroundings { home: Some(folder.path().to_owned()), ..Surroundings::default() };
        let text = "name: a\nchannels: [c/, ./near]\ndependencies: [{pip: [cowsay, ./six.whl]}]\n";
        let project = project(folder.path(), text, &surroundings);
        let names: Vec<_> = sources(&project).unwrap().into_iter().map(|one| one.name).collect();
        let there = |name: &str| folder.path().join(name).display().to_string();
        assert_eq!(names, ["c".to_owned(), there("near"), "cowsay".to_owned(), there("six.whl")]);
    }
}
