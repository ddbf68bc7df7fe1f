//! The uv release this plugin fetches when there is none, and what is in its wheel.
//!
//! Promises: nothing is unpacked but uv itself; what is fetched is decided here, not by an index.

use std::fs::File;
use std::io;
use std::path::Path;

/// The release. Raise it together with every row of [`pinned`]: the file names and SHA-256 sums are
/// those of the `uv` project on the package index.
pub const UV_VERSION: &str = "0.13.9";

/// One wheel of the release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PinnedWheel {
    /// File name on the package index.
    pub file: &'static str,
    /// Lower-case hex SHA-256 of the file.
    pub sha256: &'static str,
}

/// The wheel for an operating system and architecture as `std::env::consts` spells them; `musl` tells
/// whether Linux programs here link against musl.
fn pinned(os: &str, arch: &str, musl: bool) -> Option<PinnedWheel> {
    let (file, sha256) = match (os, arch, musl) {
        ("linux", "x86_64", false) => (
            "uv-0.13.9-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
            "d7f459fe4fd247d830351c75686d3996ace3c6f3f728eb0e85a30b7ada0cef19",
        ),
        ("linux", "x86_64", true) => (
            "uv-0.13.9-py3-none-musllinux_1_1_x86_64.whl",
            "2c45530751517d6c3bbc69a19473f6effe47cce047bede01ffd8af7ea7b36b25",
        ),
        ("linux", "aarch64", _) => (
            "uv-0.13.9-py3-none-manylinux_2_17_aarch64.manylinux2014_aarch64.musllinux_1_1_aarch64.whl",
            "5435c5ce14a56431208ca0996416d310f1598e8c2c8ba707688985a16bb82dbe",
        ),
        ("macos", "x86_64", _) => (
            "uv-0.13.9-py3-none-macosx_10_12_x86_64.whl",
            "c16ed11e013557536b3e60065f1b912f6407bd6518e041b961e23ef9e6b4fbf5",
        ),
        ("macos", "aarch64", _) => (
            "uv-0.13.9-py3-none-macosx_11_0_arm64.whl",
            "66c512266d633bef48384a1f53003f41f2a8e7b36fe6e7fbfd3e0fd52d96fa63",
        ),
        _ => return None,
    };
    Some(PinnedWheel { file, sha256 })
}

impl PinnedWheel {
    /// The wheel for this machine, if there is one.
    pub fn for_this_machine() -> Option<Self> {
        pinned(std::env::consts::OS, std::env::consts::ARCH, cfg!(target_env = "musl"))
    }
}

/// Writes the uv program of `wheel` to `program`, executable and flushed to disk.
pub(crate) fn unpack_uv(wheel: &Path, program: &Path) -> io::Result<()> {
    let mut archive = zip::ZipArchive::new(File::open(wheel)?)?;
    let mut packed = archive.by_name(&format!("uv-{UV_VERSION}.data/scripts/uv"))?;
    let mut file = File::create(program)?;
    io::copy(&mut packed, &mut file)?;
    #[cfg(unix)]
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_of_the_pinned_release() {
        for (os, arch, musl) in [
            ("linux", "x86_64", false),
            ("linux", "x86_64", true),
            ("linux", "aarch64", false),
            ("macos", "x86_64", false),
            ("macos", "aarch64", false),
        ] {
            let wheel = pinned(os, arch, musl).unwrap();
            assert!(wheel.file.starts_with(&format!("uv-{UV_VERSION}-")), "{}", wheel.file);
            assert_eq!(wheel.sha256.len(), 64);
        }
        assert_eq!(pinned("plan9", "mips", false), None);
    }
}
