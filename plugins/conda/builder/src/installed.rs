//! What an environment holds, as its own records say.

use std::path::Path;

use rattler_conda_types::{MatchSpec, ParseStrictness, PrefixRecord};

use crate::{Failure, Stage};

/// The packages in one environment.
pub(crate) struct Installed(pub(crate) Vec<PrefixRecord>);

impl Installed {
    /// Reads the records of the environment at `prefix`.
    pub(crate) fn read(prefix: &Path) -> Result<Self, Failure> {
        let records: Vec<PrefixRecord> =
            PrefixRecord::collect_from_prefix(prefix).map_err(|error| Failure::of(Stage::Request, &error))?;
        if records.is_empty() {
            let message =
                format!("`{}` is no conda environment: nothing is recorded there", prefix.display());
            return Err(Failure::new(Stage::Request, message));
        }
        Ok(Self(records))
    }

    /// The record of a package.
    pub(crate) fn find(&self, name: &str) -> Option<&PrefixRecord> {
        self.0.iter().find(|record| record.name().as_normalized() == name)
    }

    /// Version of the package `name`.
    pub(crate) fn version(&self, name: &str) -> Option<String> {
        Some(self.find(name)?.repodata_record.package_record.version.to_string())
    }

    /// What was asked for when it was made and added to.
    pub(crate) fn requested(&self) -> Vec<MatchSpec> {
        let specs = self.0.iter().flat_map(|record| &record.requested_specs);
        specs.filter_map(|spec| MatchSpec::from_str(spec, ParseStrictness::Lenient).ok()).collect()
    }
}
