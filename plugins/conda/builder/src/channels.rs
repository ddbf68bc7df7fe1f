//! Names, URLs and paths, as channels.

use std::path::Path;

use rattler_conda_types::{Channel, ChannelConfig};

use crate::{Failure, Stage};

/// Stands for the channels of Anaconda's own distribution.
const DEFAULTS: &str = "defaults";
/// What [`DEFAULTS`] stands for on the systems we run on. Source: conda's documentation.
const DEFAULT_CHANNELS: [&str; 2] =
    ["https://repo.anaconda.com/pkgs/main", "https://repo.anaconda.com/pkgs/r"];
/// In environment files: no [`DEFAULTS`] beside the channels that are named. We never add them.
const NO_DEFAULTS: &str = "nodefaults";

/// The channels that `names` stand for; relative paths start at `folder`.
pub(crate) fn resolve(names: &[String], folder: &Path) -> Result<Vec<Channel>, Failure> {
    let config = ChannelConfig::default_with_root_dir(folder.to_owned());
    let names = names.iter().map(|name| name.trim()).filter(|name| !name.is_empty() && *name != NO_DEFAULTS);
    let names = names.flat_map(|name| match name.trim_end_matches('/') {
        DEFAULTS => DEFAULT_CHANNELS.to_vec(),
        _ => vec![name],
    });
    let channel = |name: &str| {
        Channel::from_str(name, &config)
            .map_err(|error| Failure::new(Stage::Request, format!("`{name}` is no channel: {error}")))
    };
    names.map(channel).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_urls_and_paths_are_channels() {
        let resolved = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let channels = resolve(&names, Path::new("/work"))?;
            Ok(channels.iter().map(|channel| channel.base_url.to_string()).collect::<Vec<_>>())
        };
        let urls = resolved(&["defaults/", " nodefaults ", "file:///c/a", "./near", "/far"]).unwrap();
        let local = ["file:///c/a/", "file:///work/near/", "file:///far/"];
        assert_eq!(urls[..2], DEFAULT_CHANNELS.map(|url| format!("{url}/")));
        assert_eq!(urls[2..], local);
        assert!(resolved(&["conda-forge"]).unwrap()[0].ends_with("/conda-forge/"));
        let failure: Failure = resolved(&["a:b"]).unwrap_err();
        assert!(failure.message.contains("`a:b`"), "{failure:?}");
    }
}
