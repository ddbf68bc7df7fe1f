//! What channels have.
//!
//! Promises: metadata that is cached and still fresh is used without asking anybody; a server that is out of reach makes
//! cached metadata good enough, however old.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rattler::default_cache_dir;
use rattler_conda_types::{Channel, MatchSpec, Matches, PackageName, Subdir};
use rattler_repodata_gateway::fetch::CacheAction;
use rattler_repodata_gateway::{ChannelConfig, Gateway, GatewayError, RepoData, SourceConfig};
use serde_json::json;

use crate::progress::{elapsed_ms, phase};
use crate::{Failure, Stage};

/// Attempts to fetch metadata. Source: the wire contract.
const ATTEMPTS: u32 = 3;
/// Pause before the second attempt; doubled before the third. Source: the wire contract.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Words of an error that another attempt may not see. Source: the wire contract.
const PASSING: [&str; 6] = ["500", "502", "503", "504", "timeout", "connection"];
/// Time for a connection: a name server or proxy that drops packets must not hold up a cache that would do.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Longest silence within a download.
const READ_LIMIT: Duration = Duration::from_secs(60);
/// Folder of metadata in rattler's cache. Source: the wire contract.
const METADATA_FOLDER: &str = "repodata";

/// Channels, and everything needed to ask them.
pub(crate) struct Source {
    channels: Vec<Channel>,
    platform: Subdir,
    /// rattler's shared cache.
    cache: PathBuf,
    client: reqwest::Client,
}

impl Source {
    pub(crate) fn new(channels: Vec<Channel>) -> Result<Self, Failure> {
        let platform = Subdir::current().ok_or_else(|| {
            Failure::new(Stage::Request, "there are no conda packages for this kind of machine")
        })?;
        let cache = default_cache_dir().map_err(|error| Failure::new(Stage::Request, error.to_string()))?;
        // Fails only if somebody was first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .user_agent(concat!("runtimed/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_LIMIT)
            .read_timeout(READ_LIMIT)
            .build()
            .map_err(|error| Failure::of(Stage::Request, &error))?;
        Ok(Self { channels, platform, cache, client })
    }

    pub(crate) fn platform(&self) -> Subdir {
        self.platform
    }

    pub(crate) fn cache(&self) -> &Path {
        &self.cache
    }

    pub(crate) fn client(&self) -> reqwest::Client {
        self.client.clone()
    }

    /// Everything that may be needed to install `specs`.
    pub(crate) async fn records(&self, specs: &[MatchSpec]) -> Result<Vec<RepoData>, Failure> {
        let names: Vec<String> = self.channels.iter().map(Channel::canonical_name).collect();
        phase("fetching_repodata", json!({ "channels": names }));
        let begin = Instant::now();
        let records = self.fetched(specs).await?;
        let count: usize = records.iter().map(RepoData::len).sum();
        phase("repodata_complete", json!({ "record_count": count, "elapsed_ms": elapsed_ms(begin) }));
        Ok(records)
    }

    async fn fetched(&self, specs: &[MatchSpec]) -> Result<Vec<RepoData>, Failure> {
        let remote = self.channels.iter().any(|channel| channel.base_url.url().scheme() != "file");
        if remote && let Ok(records) = self.query(specs, CacheAction::UseCacheOnly, true).await {
            phase("offline_hit", json!({}));
            return Ok(records);
        }
        let (mut attempt, mut pause) = (1, FIRST_PAUSE);
        loop {
            let failure = match self.query(specs, CacheAction::CacheOrFetch, true).await {
                Ok(records) => return Ok(records),
                Err(error) => Failure::of(Stage::Metadata, &error),
            };
            if remote && let Ok(records) = self.query(specs, CacheAction::ForceCacheOnly, true).await {
                phase("offline_hit", json!({}));
                return Ok(records);
            }
            let passing = PASSING.iter().any(|word| failure.message.to_lowercase().contains(word));
            if !passing || attempt == ATTEMPTS {
                return Err(retold(failure, attempt));
            }
            tokio::time::sleep(pause).await;
            (attempt, pause) = (attempt + 1, pause * 2);
        }
    }

    /// The versions of the package `name` that there are, the newest first.
    pub(crate) async fn versions(&self, name: &PackageName) -> Vec<String> {
        let spec = MatchSpec::from(name.clone());
        let records = self.query(&[spec], CacheAction::ForceCacheOnly, false).await.unwrap_or_default();
        let records = records.iter().flat_map(RepoData::iter);
        let mut versions: Vec<_> = records.map(|record| record.package_record.version.clone()).collect();
        versions.sort_by(|one, other| other.cmp(one));
        versions.dedup();
        versions.iter().map(ToString::to_string).collect()
    }

    async fn query(
        &self,
        specs: &[MatchSpec],
        cache_action: CacheAction,
        recursive: bool,
    ) -> Result<Vec<RepoData>, GatewayError> {
        let default = SourceConfig { cache_action, ..SourceConfig::default() };
        let gateway = Gateway::builder()
            .with_client(self.client())
            .with_cache_dir(self.cache.join(METADATA_FOLDER))
            .with_channel_config(ChannelConfig { default, ..ChannelConfig::default() })
            .finish();
        let platforms = [self.platform, Subdir::NoArch];
        let query = gateway.query(self.channels.clone(), platforms, specs.to_vec()).recursive(recursive);
        Ok(query.execute().await?.repodata)
    }
}

/// Whether any record is what `spec` asks for.
pub(crate) fn has(records: &[RepoData], spec: &MatchSpec) -> bool {
    records.iter().flat_map(RepoData::iter).any(|record| spec.matches(record))
}

/// Says how often it was tried.
fn retold(failure: Failure, attempts: u32) -> Failure {
    let tries = if attempts > 1 { format!(" after {attempts} retries") } else { String::new() };
    Failure { message: format!("Failed to fetch package metadata{tries}: {}", failure.message), ..failure }
}
