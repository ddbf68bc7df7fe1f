//! Environments for what notebooks declare that begin as a copy of what a pool copies.
//!
//! For: `environments.rs`.
//! Promises: only where the result is what an installation from nothing may be, too; whatever goes wrong, nothing was
//! returned, and the caller installs everything.

use std::path::Path;

use runtimed_plugin_api::{EnvRequest, Environment, Health, Result, Task};
use tokio::time::Instant;

use super::build::{duplicate, intact, request as pool_request};
use super::packages::bare_name;
use super::pool::Pool;
use super::template;

/// Makes the environment for `request` at `prefix` from the template of `pool` and what the notebook adds to it. None if
/// that cannot be; then there may be a part of it at `prefix`.
pub(super) async fn derive(
    pool: &Pool,
    request: &EnvRequest,
    prefix: &Path,
    task: &Task,
) -> Option<Environment> {
    let plain = EnvRequest {
        packages: request.packages.clone(),
        channels: request.channels.clone(),
        ..EnvRequest::default()
    };
    let packages = pool.recipe().packages;
    let template = pool.template()?;
    // Another Python or other options are another environment.
    if *request != plain || request.channels != pool.provider().ok()?.info().default_channels {
        return None;
    }
    let missing = missing(&request.packages, &packages)?;
    let started = Instant::now();
    let work = async {
        let provided = pool.provided()?;
        let provider = &*provided.provider;
        let plan = provider.plan(pool_request(provider, &packages, false)).await?;
        if template.key != template::key(&plan, &provided.edition) {
            return Ok(None);
        }
        intact(&template).await?;
        let mut env = duplicate(provider, &template.environment, prefix, false, task.clone()).await?;
        if !missing.is_empty() {
            provider.install(&env, &missing, task.clone()).await?;
        }
        env.packages = request.packages.clone();
        Ok(match provider.verify(&env).await? {
            Health::Usable => Some(env),
            Health::Broken { .. } => None,
        })
    };
    let env: Result<Option<Environment>> = work.await;
    match env {
        Ok(Some(env)) => {
            let ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
            tracing::info!(prefix = %prefix.display(), added = missing.len(), ms, "a declared environment began as a copy");
            Some(env)
        }
        Ok(None) => None,
        Err(error) => {
            tracing::debug!("a declared environment is installed from nothing: {error}");
            None
        }
    }
}

/// What must be added to the pool's list for `declared`; none if one says something else about a package than the other, or
/// something that the pool's environment may not satisfy (environments contract, section 7.6).
fn missing(declared: &[String], pool: &[String]) -> Option<Vec<String>> {
    let mut missing = Vec::new();
    for package in declared {
        let requirement = package.split(';').next().unwrap_or_default();
        if let Some(same) = pool.iter().find(|pooled| bare_name(pooled) == bare_name(package)) {
            if tail(same) != tail(package) {
                return None;
            }
        } else if ["==", "[", "@"].iter().any(|mark| requirement.contains(mark)) {
            return None;
        } else {
            missing.push(package.clone());
        }
    }
    Some(missing)
}

/// What a requirement says beyond the package's name, without blanks.
fn tail(requirement: &str) -> String {
    let start = requirement.find(|c: char| "><=!~[@;".contains(c) || c.is_whitespace());
    let tail = start.and_then(|start| requirement.get(start..)).unwrap_or_default();
    tail.split_whitespace().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_and_what_is_another_environment() {
        let list = |items: &[&str]| items.iter().map(|item| (*item).to_owned()).collect::<Vec<_>>();
        let pool = list(&["ipykernel", "pyarrow>=14", "pandas"]);
        let missing = |items: &[&str]| missing(&list(items), &pool);
        assert_eq!(missing(&["pandas", "pyarrow >= 14", "IPyKernel"]), Some(list(&[])));
        assert_eq!(missing(&["pandas", "cowsay>=5"]), Some(list(&["cowsay>=5"])));
        for other in
            ["pandas==2", "pandas>=1", "pyarrow", "cowsay==5", "cowsay[x]", "cowsay @ https://h/c.whl"]
        {
            assert_eq!(missing(&[other]), None, "{other}");
        }
        assert_eq!(missing(&["cowsay ; python_version == '3.11'"]).unwrap().len(), 1);
    }
}
