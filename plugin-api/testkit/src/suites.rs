//! The suites: tables of cases, one file each.

mod blob_store;
mod calls;
mod env_provider;
mod files;
mod kernel_backend;
mod life;
mod rooms;

use std::fmt;
use std::str::FromStr;

use runtimed_plugin_api::{BLOB_STORE, ENV_PROVIDER, KERNEL_BACKEND, ROOMS};
use serde::{Deserialize, Serialize};

use crate::case::Case;
use crate::check::Choice;
use crate::subject::{Carrier, Subject};

/// A group of cases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Suite {
    /// What can be seen without running the plugin.
    Static,
    /// Created, started, stopped, again and again.
    Life,
    /// What holds for every call of every capability.
    Calls,
    /// `env-provider.v1`.
    EnvProvider,
    /// `blob-store.v1`.
    BlobStore,
    /// `rooms.v1`.
    Rooms,
    /// `kernel-backend.v1`.
    KernelBackend,
}

impl Suite {
    /// Every suite, in the order they are run.
    pub const ALL: [Self; 7] = [
        Self::Static,
        Self::Life,
        Self::Calls,
        Self::EnvProvider,
        Self::BlobStore,
        Self::Rooms,
        Self::KernelBackend,
    ];

    /// As the command line and reports write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Static => "static",
            Self::Life => "life",
            Self::Calls => "calls",
            Self::EnvProvider => "env-provider",
            Self::BlobStore => "blob-store",
            Self::Rooms => "rooms",
            Self::KernelBackend => "kernel-backend",
        }
    }

    /// The capability it is about, if it is about one.
    fn capability(self) -> Option<&'static str> {
        match self {
            Self::Static | Self::Life | Self::Calls => None,
            Self::EnvProvider => Some(ENV_PROVIDER),
            Self::BlobStore => Some(BLOB_STORE),
            Self::Rooms => Some(ROOMS),
            Self::KernelBackend => Some(KERNEL_BACKEND),
        }
    }

    pub(crate) fn cases(self) -> &'static [Case] {
        match self {
            Self::Static => files::CASES,
            Self::Life => life::CASES,
            Self::Calls => calls::CASES,
            Self::EnvProvider => env_provider::CASES,
            Self::BlobStore => blob_store::CASES,
            Self::Rooms => rooms::CASES,
            Self::KernelBackend => kernel_backend::CASES,
        }
    }

    /// What a case of it shows; empty if there is no such case.
    pub(crate) fn shows(self, case: &str) -> &'static str {
        self.cases().iter().find(|one| one.name == case).map_or("", |one| one.shows)
    }

    /// How reports name the carrier of this suite's cases.
    pub(crate) fn carrier_name(self, carrier: Carrier) -> &'static str {
        if self == Self::Static { "files" } else { carrier.name() }
    }

    /// The suites that fit a plugin and were chosen. Without a readable manifest only the first one does.
    pub(crate) fn for_subject(subject: &Subject, choice: &Choice) -> Vec<Self> {
        let fits = |suite: &Self| match subject.manifest() {
            Ok(manifest) => suite.capability().is_none_or(|capability| manifest.provides(capability)),
            Err(_) => *suite == Self::Static,
        };
        let chosen = |suite: &Self| choice.only.is_empty() || choice.only.contains(suite);
        Self::ALL.into_iter().filter(|suite| fits(suite) && chosen(suite)).collect()
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Suite {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|suite| suite.name() == name).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|suite| suite.name()).collect();
            format!("there is no suite `{name}`; there are {}", names.join(", "))
        })
    }
}
