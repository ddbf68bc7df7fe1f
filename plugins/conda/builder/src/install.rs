//! Packages from a channel or from rattler's cache, in an environment.
//!
//! Promises: files are linked from the cache where the file system can; link scripts of packages are not run.

use std::path::Path;

use rattler::install::Installer;
use rattler::package_cache::PackageCache;
use rattler_conda_types::{MatchSpec, PrefixRecord, RepoDataRecord};

use crate::progress::Watch;
use crate::repodata::Source;
use crate::{Failure, Stage};

/// Downloads at once: what browsers do with one server.
const DOWNLOADS: usize = 6;
/// Files at once that are read or written.
const FILES: usize = 32;
/// Folder of packages in rattler's cache. Source: the wire contract.
const PACKAGES_FOLDER: &str = "pkgs";

/// What is to become of an environment.
pub(crate) struct Installation<'a> {
    /// The environment.
    pub(crate) prefix: &'a Path,
    /// Where it will be moved to, if it will be.
    pub(crate) home: Option<&'a Path>,
    /// What is there.
    pub(crate) installed: Vec<PrefixRecord>,
    /// What was asked for, as the environment's records keep it.
    pub(crate) requested: Vec<MatchSpec>,
    /// Everything that is to be there afterwards.
    pub(crate) packages: Vec<RepoDataRecord>,
}

/// Installs; returns how many packages were put in place.
pub(crate) async fn install(source: &Source, work: Installation<'_>) -> Result<usize, Failure> {
    let cache = PackageCache::new(source.cache().join(PACKAGES_FOLDER));
    sweep(&cache).await.map_err(|error| retold(Failure::of(Stage::Install, &error)))?;
    let mut installer = Installer::new()
        .with_target_platform(source.platform())
        .with_installed_packages(work.installed)
        .with_requested_specs(work.requested)
        .with_package_cache(cache)
        .with_download_client(source.client())
        .with_max_concurrent_requests(DOWNLOADS)
        .with_io_concurrency_limit(FILES)
        .with_reporter(Watch::new());
    if let Some(home) = work.home {
        installer.set_alternative_target_prefix(home);
    }
    let result = installer.install(work.prefix, work.packages).await;
    let result = result.map_err(|error| retold(Failure::of(Stage::Install, &error)))?;
    Ok(result.transaction.packages_to_install())
}

fn retold(failure: Failure) -> Failure {
    Failure { message: format!("Failed to install packages: {}", failure.message), ..failure }
}

/// Removes what processes left in the cache that were ended while they unpacked a package: folders that nobody
/// finished. While the lock is held nobody unpacks anything.
async fn sweep(cache: &PackageCache) -> Result<(), rattler::package_cache::PackageCacheError> {
    let _nobody_else = cache.acquire_global_lock().await?;
    for layer in cache.layers() {
        for entry in std::fs::read_dir(layer.path()).into_iter().flatten().flatten() {
            let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
            if hidden && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                // What cannot be removed is in nobody's way.
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
    }
    Ok(())
}
