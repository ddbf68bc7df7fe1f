//! Carries a job out.

use std::path::{Path, PathBuf};

use rattler_conda_types::{MatchSpec, RepoDataRecord};
use serde_json::json;

use crate::install::{Installation, install};
use crate::installed::Installed;
use crate::progress::phase;
use crate::repodata::{Source, has};
use crate::saved::SavedSolve;
use crate::solve::{matches, solve, spec};
use crate::{Done, Failure, Job, Stage, Work, bytecode, channels};

/// Present in environments whose Python has no global interpreter lock.
const FREE_THREADING: &str = "python-freethreading";
/// Keeps the others from becoming so.
const GIL: &str = "python-gil";

/// Does what `job` asks for.
pub(crate) async fn carry_out(job: Job) -> Result<Done, Failure> {
    let source = Source::new(channels::resolve(&job.channels, &job.folder)?)?;
    match job.work {
        Work::Create { prefix, home, specs, optional, saved } => {
            let wanted = Wanted { specs: &specs, optional: &optional, channels: &job.channels };
            create(&source, &prefix, home.as_deref(), &wanted, saved).await
        }
        Work::Install { prefix, specs } => add(&source, &prefix, &specs, &job.channels).await,
        Work::Copy { template, prefix } => copy(&source, &template, &prefix, &job.channels).await,
    }
}

/// What a new environment must hold.
struct Wanted<'a> {
    specs: &'a [String],
    optional: &'a [String],
    channels: &'a [String],
}

async fn create(
    source: &Source,
    prefix: &Path,
    home: Option<&Path>,
    wanted: &Wanted<'_>,
    saved: Option<PathBuf>,
) -> Result<Done, Failure> {
    let platform = source.platform().as_str();
    let specs = wanted.specs.iter().map(|text| spec(text)).collect::<Result<Vec<_>, _>>()?;
    let known = saved.and_then(|file| SavedSolve::read(&file, platform, wanted.specs, wanted.channels));
    if let Some(known) = known {
        phase("lock_file_hit", json!({}));
        let packages = known.packages.clone();
        match put(source, prefix, home, specs.clone(), packages).await {
            Ok(done) => {
                known.write(prefix);
                return Ok(done);
            }
            // A channel may have dropped a package since; what was linked is replaced.
            Err(_) => remove(prefix)?,
        }
    }
    let mut asked = specs.clone();
    for text in wanted.optional {
        asked.push(spec(text)?);
    }
    let records = source.records(&asked).await?;
    let optional = asked.split_off(specs.len());
    asked.extend(optional.into_iter().filter(|spec| has(&records, spec)));
    let solved = solve(source, asked, &records, Vec::new()).await?;
    let done = put(source, prefix, home, specs, solved.clone()).await?;
    SavedSolve::new(platform, wanted.specs, wanted.channels, solved).write(prefix);
    Ok(done)
}

/// Adds what is not there yet. Everything that is there is wanted, too, so that nothing is taken away; its versions
/// change only where the new packages need it.
async fn add(source: &Source, prefix: &Path, specs: &[String], channels: &[String]) -> Result<Done, Failure> {
    let installed = Installed::read(prefix)?;
    let new = specs.iter().map(|text| spec(text)).collect::<Result<Vec<_>, _>>()?;
    let records: Vec<&RepoDataRecord> = installed.0.iter().map(|record| &record.repodata_record).collect();
    let python_version = installed.version("python");
    if new.iter().all(|spec| records.iter().any(|record| matches(spec, record))) {
        return Ok(Done { python_version, installed: 0 });
    }
    let mut wanted = new.clone();
    if let Some(version) = &python_version {
        wanted.push(spec(&format!("python=={version}"))?);
    }
    wanted.extend(records.iter().map(|record| MatchSpec::from(record.package_record.name.clone())));
    let abi = if installed.find(FREE_THREADING).is_some() { FREE_THREADING } else { GIL };
    let abi = spec(abi)?;
    let asked: Vec<MatchSpec> = wanted.iter().cloned().chain([abi.clone()]).collect();
    let repodata = source.records(&asked).await?;
    if has(&repodata, &abi) {
        wanted.push(abi);
    }
    let changes = |record: &RepoDataRecord| {
        let name = &record.package_record.name;
        new.iter().any(|spec| spec.name.as_exact() == Some(name) && !matches(spec, record))
    };
    let locked = records.iter().copied().filter(|record| !changes(record)).collect();
    let solved = solve(source, wanted, &repodata, locked).await?;
    let mut requested = installed.requested();
    requested.extend(new);
    let count = install(
        source,
        Installation { prefix, home: None, installed: installed.0, requested, packages: solved.clone() },
    )
    .await?;
    let platform = source.platform().as_str();
    SavedSolve::new(platform, specs, channels, solved).write(prefix);
    Ok(Done { python_version, installed: count })
}

async fn copy(source: &Source, template: &Path, prefix: &Path, channels: &[String]) -> Result<Done, Failure> {
    let installed = Installed::read(template)?;
    let requested = installed.requested();
    let packages: Vec<RepoDataRecord> = installed.0.into_iter().map(|it| it.repodata_record).collect();
    let done = put(source, prefix, None, requested, packages.clone()).await?;
    bytecode::share(&template.join("lib"), &prefix.join("lib"));
    // No question, so that nobody takes it for an answer: only the list of packages.
    SavedSolve::new(source.platform().as_str(), &[], channels, packages).write(prefix);
    Ok(done)
}

/// Installs into a new environment.
async fn put(
    source: &Source,
    prefix: &Path,
    home: Option<&Path>,
    requested: Vec<MatchSpec>,
    packages: Vec<RepoDataRecord>,
) -> Result<Done, Failure> {
    let python = packages.iter().find(|record| record.package_record.name.as_normalized() == "python");
    let python_version = python.map(|record| record.package_record.version.to_string());
    let installation = Installation { prefix, home, installed: Vec::new(), requested, packages };
    let installed = install(source, installation).await?;
    let python = prefix.join("bin/python");
    if !python.exists() {
        let message = format!("Python not found at {} after conda install", python.display());
        return Err(Failure::new(Stage::Install, message));
    }
    Ok(Done { python_version, installed })
}

fn remove(prefix: &Path) -> Result<(), Failure> {
    match std::fs::remove_dir_all(prefix) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Failure::of(Stage::Install, &error))
        }
        _ => Ok(()),
    }
}
