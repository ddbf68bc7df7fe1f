//! Versions that fit together.

use std::time::{Duration, Instant};

use rattler_conda_types::{GenericVirtualPackage, MatchSpec, ParseStrictness, RepoDataRecord};
use rattler_repodata_gateway::RepoData;
use rattler_solve::{SolveError, SolverImpl, SolverTask, resolvo};
use rattler_virtual_packages::{VirtualPackageOverrides, VirtualPackages};
use serde_json::json;

use crate::progress::{elapsed_ms, phase};
use crate::repodata::{Source, has};
use crate::{Failure, Stage};

/// Longest search. A data science stack takes seconds; what takes minutes has no answer in all likelihood.
const LIMIT: Duration = Duration::from_secs(180);
/// Versions that a message lists.
const VERSIONS_SHOWN: usize = 5;

/// What is wanted: `text` as a specification, names and operators checked strictly.
pub(crate) fn spec(text: &str) -> Result<MatchSpec, Failure> {
    MatchSpec::from_str(text, ParseStrictness::Strict).map_err(|error| {
        Failure::new(Stage::Request, format!("`{text}` is no conda package specification: {error}"))
            .blame(text)
    })
}

/// The packages that fulfil `specs`. `locked` is there already and stays as it is where that is possible.
pub(crate) async fn solve(
    source: &Source,
    specs: Vec<MatchSpec>,
    records: &[RepoData],
    locked: Vec<&RepoDataRecord>,
) -> Result<Vec<RepoDataRecord>, Failure> {
    for spec in specs.iter().filter(|spec| !spec.is_virtual()) {
        if !has(records, spec) && !locked.iter().any(|record| matches(spec, record)) {
            return Err(missing(source, spec).await);
        }
    }
    phase("solving", json!({ "spec_count": specs.len() }));
    let begin = Instant::now();
    let names: Vec<String> = specs.iter().filter_map(name).collect();
    let task = SolverTask {
        specs,
        locked_packages: locked,
        virtual_packages: virtual_packages(source)?,
        timeout: Some(LIMIT),
        ..SolverTask::from_iter(records)
    };
    let solved = resolvo::Solver.solve(task).map_err(|error| unsolvable(&error, &names))?.records;
    phase("solve_complete", json!({ "package_count": solved.len(), "elapsed_ms": elapsed_ms(begin) }));
    Ok(solved)
}

/// Whether `record` is what `spec` asks for.
pub(crate) fn matches(spec: &MatchSpec, record: &RepoDataRecord) -> bool {
    rattler_conda_types::Matches::matches(spec, record)
}

fn virtual_packages(source: &Source) -> Result<Vec<GenericVirtualPackage>, Failure> {
    let detected = VirtualPackages::detect(&VirtualPackageOverrides::from_env(), Some(source.cache()));
    let detected = detected.map_err(|error| Failure::of(Stage::Solve, &error))?;
    Ok(detected.into_generic_virtual_packages().collect())
}

/// No channel has what `spec` asks for.
async fn missing(source: &Source, spec: &MatchSpec) -> Failure {
    let Some(name) = spec.name.as_exact() else {
        return Failure::new(Stage::Solve, format!("Failed to solve dependencies: nothing matches `{spec}`"));
    };
    let versions = source.versions(name).await;
    let name = name.as_normalized();
    let what = match versions.as_slice() {
        [] => format!("no channel has a package `{name}`"),
        versions => {
            let shown = versions.iter().take(VERSIONS_SHOWN).cloned().collect::<Vec<_>>().join(", ");
            let more = if versions.len() > VERSIONS_SHOWN { " and older ones" } else { "" };
            format!("no `{name}` is what `{spec}` asks for; there are {shown}{more}")
        }
    };
    Failure::new(Stage::Solve, format!("Failed to solve dependencies: {what}")).blame(name)
}

/// The solver's own explanation, and the first of the wanted packages that it is about.
fn unsolvable(error: &SolveError, wanted: &[String]) -> Failure {
    let why = match error {
        SolveError::Unsolvable(reasons) => reasons.join("\n"),
        SolveError::Cancelled => format!("no answer was found within {} seconds", LIMIT.as_secs()),
        other => other.to_string(),
    };
    let failure = Failure::new(Stage::Solve, format!("Failed to solve dependencies: {}", why.trim()));
    let word = |c: char| !(c.is_alphanumeric() || "-_.".contains(c));
    let words: Vec<&str> = why.split(word).collect();
    match wanted.iter().find(|name| words.contains(&name.as_str())) {
        Some(name) => failure.blame(name),
        None => failure,
    }
}

fn name(spec: &MatchSpec) -> Option<String> {
    spec.name.as_exact().map(|name| name.as_normalized().to_owned())
}
