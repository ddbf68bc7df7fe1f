//! What a request means.
//!
//! Promises: pure; planning a plan again changes nothing.

use runtimed_plugin_api::{EnvPlan, EnvRequest, Result, pypi};

use crate::key::{KeyParts, cache_key};
use crate::packages::{channel, checked, names};

/// What a kernel and its widgets need, and pip for installing from a cell.
pub(crate) const BASE: [&str; 4] = ["ipykernel", "ipywidgets", "anywidget", "pip"];
/// What most notebooks import.
pub(crate) const DATA: [&str; 5] = ["pandas", "polars", "matplotlib", "plotly", "altair"];
/// What outputs need, unless the notebook asks for versions of its own.
pub(crate) const TAIL: [&str; 2] = ["nbformat", "pyarrow>=14"];
/// The channel of a notebook's own environment that names none; part of its key, so it never changes.
const CHANNEL: &str = "conda-forge";

/// What the user prefers where a request says nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Preferences {
    /// Python constraint.
    pub(crate) python: Option<String>,
    /// Channels.
    pub(crate) channels: Vec<String>,
}

/// Decides what `request` means, which has no project.
pub(crate) fn plan(mut request: EnvRequest, preferred: &Preferences) -> Result<EnvPlan> {
    let packages = checked(&request.packages)?;
    request.python = blank_is_none(request.python);
    request.python.as_deref().map(pypi::python_constraint).transpose()?;
    request.channels = request.channels.iter().map(|it| channel(it).to_owned()).collect();
    let mut deps: Vec<String> = packages.into_iter().filter(|it| !BASE.contains(&it.as_str())).collect();
    let key_channels;
    if request.env_id.is_some() {
        // The key of a notebook's own environment has what the notebook declares and nothing else.
        // The settings take no part either, so that a change there does not rebuild every notebook.
        deps.retain(|dep| !TAIL.contains(&dep.as_str()));
        key_channels = if request.channels.is_empty() { owned(&[CHANNEL]) } else { request.channels.clone() };
    } else {
        deps.extend(unnamed(&TAIL, &deps));
        request.python = request.python.or_else(|| preferred.python.clone());
        if request.channels.is_empty() {
            request.channels = channels(preferred);
        }
        key_channels = request.channels.clone();
    }
    let mut key_deps = deps.clone();
    if request.env_id.is_none() {
        key_deps.extend(unnamed(&["pip"], &deps));
    }
    let key = cache_key(&KeyParts {
        deps: &key_deps,
        channels: &key_channels,
        python: request.python.as_deref(),
        env_id: request.env_id.as_deref(),
    });
    request.packages = unnamed(&BASE, &deps);
    request.packages.append(&mut deps);
    let tail = unnamed(&TAIL, &request.packages);
    request.packages.extend(tail);
    Ok(EnvPlan { key, request })
}

/// The channels of a request that names none.
pub(crate) fn channels(preferred: &Preferences) -> Vec<String> {
    match preferred.channels.is_empty() {
        true => owned(&[CHANNEL]),
        false => preferred.channels.iter().map(|it| channel(it).to_owned()).collect(),
    }
}

/// The items whose package `list` does not name.
pub(crate) fn unnamed(items: &[&str], list: &[String]) -> Vec<String> {
    owned(items).into_iter().filter(|item| !names(list, item)).collect()
}

pub(crate) fn owned(items: &[&str]) -> Vec<String> {
    items.iter().map(|item| (*item).to_owned()).collect()
}

pub(crate) fn blank_is_none(text: Option<String>) -> Option<String> {
    text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(packages: &[&str]) -> EnvRequest {
        EnvRequest { packages: owned(packages), ..EnvRequest::default() }
    }

    fn preferred() -> Preferences {
        Preferences { python: Some("3.12".to_owned()), channels: owned(&["file:///c"]) }
    }

    #[test]
    fn a_plan_adds_what_every_notebook_needs() {
        let wanted = EnvRequest { python: Some(" 3.13 ".to_owned()), ..request(&["cowsay", "PyArrow=15"]) };
        let plan = plan(wanted, &Preferences::default()).unwrap();
        assert_eq!(
            plan.request.packages,
            ["ipykernel", "ipywidgets", "anywidget", "pip", "cowsay", "PyArrow=15", "nbformat"]
        );
        assert_eq!(plan.request.python.as_deref(), Some("3.13"));
        assert_eq!(plan.request.channels, ["conda-forge"]);
    }

    #[test]
    fn settings_decide_where_a_notebook_says_nothing() {
        let wanted = plan(request(&["six"]), &preferred()).unwrap().request;
        assert_eq!((wanted.python.as_deref(), wanted.channels), (Some("3.12"), owned(&["file:///c"])));
        let own = EnvRequest { env_id: Some("a".to_owned()), ..request(&["six"]) };
        let key = plan(own.clone(), &Preferences::default()).unwrap().key;
        assert_eq!(
            plan(own, &preferred()).unwrap().key,
            key,
            "a setting rebuilds a notebook's own environment"
        );
    }

    #[test]
    fn a_channel_is_one_with_and_without_a_slash() {
        let with = |channel: &str| EnvRequest { channels: owned(&[channel]), ..request(&["six"]) };
        let plan = |channel| plan(with(channel), &Preferences::default()).unwrap();
        assert_eq!(plan("https://host/lab/"), plan(" https://host/lab "));
    }

    #[test]
    fn a_plan_planned_again_is_the_same() {
        for env_id in [None, Some("c398c4f5-41f2-4f22-8c58-b6d3635bf239".to_owned())] {
            let wanted = EnvRequest { env_id, ..request(&DATA) };
            let once = plan(wanted, &preferred()).unwrap();
            assert_eq!(plan(once.request.clone(), &preferred()).unwrap(), once);
        }
    }

    #[test]
    fn packages_that_conda_would_not_understand_are_refused() {
        assert!(plan(request(&["--index-url=http://evil"]), &Preferences::default()).is_err());
        assert!(plan(request(&["six @ https://h/six.whl"]), &Preferences::default()).is_err());
    }
}
