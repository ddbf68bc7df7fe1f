//! `static`: what can be seen without running the plugin.

use std::path::Path;

use runtimed_plugin_api::adapter::{ABI_MAJOR, ABI_MINOR, PANIC_UNWIND, SYMBOL};
use runtimed_plugin_api::manifest::Manifest;
use runtimed_plugin_api::{BLOB_STORE, ENV_PROVIDER, KERNEL_BACKEND, ROOMS};

use crate::bench::Bench;
use crate::case::{Case, Stop, Verdict, case, require};
use crate::library_file::{Descriptor, LibraryFile};
use crate::report::Fault;

/// Most memory that a library may be mapped to: 64 MiB. The largest of the bundled plugins takes 13 MiB in a debug
/// build and a quarter of that in a release. Counted are the segments that are loaded and not the file: symbols
/// and debug information are never mapped and cost nobody memory.
const LOADED_MOST: u64 = 64 << 20;

/// What every system has, by the start of its file's name.
const SYSTEM_LIBRARIES: &[&str] = &[
    "libc.so",
    "libm.so",
    "libdl.so",
    "librt.so",
    "libpthread.so",
    "libutil.so",
    "libresolv.so",
    "libgcc_s.so",
    "ld-linux",
    "libc.musl",
    "/usr/lib/libSystem",
    "/usr/lib/libiconv",
    "/usr/lib/libresolv",
    "/usr/lib/libobjc",
    "/System/Library/Frameworks/",
];

/// Symbols that linkers add on their own.
const LINKERS_OWN: &[&str] = &["_init", "_fini", "__bss_start", "_edata", "_end", "_edata_end"];

pub(crate) const CASES: &[Case] = &[
    case!(quick "manifest", "plugin.toml can be read and says what a user needs", manifest),
    case!(quick "symbols", "the library exports the plugin's descriptor and nothing else", symbols),
    case!(quick "unwinds", "panics in it can be caught", unwinds),
    case!(quick "abi", "manifest and library agree on the ABI, which is this program's", abi),
    case!(quick "size", "it takes no more memory than its work can need", size),
    case!(quick "libraries", "it needs no library that a user's machine may not have", libraries),
];

fn readable(bench: &Bench) -> Result<&Manifest, Stop> {
    bench
        .session
        .subject
        .manifest()
        .map_err(|error| Fault::new(error.to_string(), error.remedy.clone()).into())
}

async fn manifest(bench: &Bench) -> Verdict {
    let manifest = readable(bench)?;
    require(!manifest.provides.is_empty(), || {
        Fault::new("plugin.toml lists no capability", "add a [[provides]] section for each")
    })?;
    let known = [ENV_PROVIDER, BLOB_STORE, KERNEL_BACKEND, ROOMS];
    let unknown = manifest.provides.iter().find(|it| !known.contains(&it.capability.as_str()));
    if let Some(unknown) = unknown {
        return Err(Fault::new(
            format!("plugin.toml provides `{}`, which this program does not know", unknown.capability),
            format!("provide one of {}, or update runtimed", known.join(", ")),
        )
        .into());
    }
    require(manifest.license.as_ref().is_some_and(|license| !license.trim().is_empty()), || {
        Fault::new("plugin.toml names no license", "add `license = \"...\"` with an SPDX expression")
    })
}

/// The library as a file. Reading it takes a while for a large one, and this is the case's own thread.
fn file(bench: &Bench) -> Result<LibraryFile, Stop> {
    let path = library(bench)?;
    LibraryFile::read(path).map_err(|problem| {
        Fault::new(
            format!("`{}` could not be read as a library: {problem}", path.display()),
            "build it again with `crate-type = [\"cdylib\"]`",
        )
        .into()
    })
}

fn library(bench: &Bench) -> Result<&Path, Stop> {
    bench.session.subject.library().ok_or_else(|| Stop::skipped("the plugin is a part of this program"))
}

fn descriptor(bench: &Bench) -> Result<Descriptor, Stop> {
    let found = file(bench)?.descriptor.filter(|found| found.magic == *b"runtplug");
    found.ok_or_else(|| {
        Fault::new(
            format!("the library has no descriptor `{SYMBOL}`"),
            "export the plugin with `export_plugin!` in the crate that is built as a cdylib",
        )
        .into()
    })
}

async fn symbols(bench: &Bench) -> Verdict {
    descriptor(bench)?;
    let file = file(bench)?;
    let plain = |name: &String| {
        name.strip_prefix('_').filter(|_| cfg!(target_os = "macos")).unwrap_or(name).to_owned()
    };
    let strangers: Vec<String> = file
        .exports
        .iter()
        .map(plain)
        .filter(|name| name != SYMBOL && !LINKERS_OWN.contains(&name.as_str()))
        .collect();
    require(strangers.is_empty(), || {
        Fault::new(
            format!("the library exports {} symbol(s) that are not the ABI's, such as `{}`", strangers.len(), strangers.first().map_or("", |name| name)),
            "remove `#[no_mangle]` from everything in it, or give C code hidden visibility: another plugin may export the same name",
        )
        .detail(strangers.join("\n"))
    })
}

async fn unwinds(bench: &Bench) -> Verdict {
    let found = descriptor(bench)?;
    require(found.flags & PANIC_UNWIND != 0, || {
        Fault::new(
            "the library was built with panic = \"abort\", so one mistake in it would end the daemon",
            "remove `panic = \"abort\"` from the profile in Cargo.toml",
        )
    })
}

async fn abi(bench: &Bench) -> Verdict {
    let Descriptor { abi: (major, minor), min_host_minor, .. } = descriptor(bench)?;
    let too_new = (major, min_host_minor) > (ABI_MAJOR, ABI_MINOR);
    require(major == ABI_MAJOR && !too_new, || {
        Fault::new(
            format!(
                "the library was built for ABI {major}.{minor}, this program speaks {ABI_MAJOR}.{ABI_MINOR}"
            ),
            if too_new { "update runtimed" } else { "build it with the current runtimed-plugin-api" },
        )
    })?;
    let promised = readable(bench)?.abi;
    require((promised.major, promised.min_minor) == (major, min_host_minor), || {
        Fault::new(
            format!(
                "plugin.toml asks for ABI {}.{}, the library for {major}.{min_host_minor}",
                promised.major, promised.min_minor
            ),
            format!("write `major = {major}` and `min_minor = {min_host_minor}` under [abi]"),
        )
    })
}

async fn size(bench: &Bench) -> Verdict {
    let loaded = file(bench)?.loaded;
    require(loaded <= LOADED_MOST, || {
        Fault::new(
            format!(
                "the library is mapped to {} MiB of memory; {} MiB are enough",
                loaded >> 20,
                LOADED_MOST >> 20
            ),
            "leave out dependencies and embedded data that the plugin can do without",
        )
    })
}

async fn libraries(bench: &Bench) -> Verdict {
    let shipped = |name: &str| {
        let files = readable(bench).map(|manifest| manifest.files.as_slice()).unwrap_or_default();
        let name = Path::new(name).file_name();
        files.iter().any(|file| file.path.file_name() == name)
    };
    let of_the_system = |name: &str| SYSTEM_LIBRARIES.iter().any(|start| name.starts_with(start));
    let own = library(bench)?.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let file = file(bench)?;
    let strange =
        file.needs.iter().find(|name| !of_the_system(name) && !shipped(name) && !name.ends_with(&own));
    match strange {
        None => Ok(()),
        Some(name) => Err(Fault::new(
            format!("the library needs `{name}`, which not every machine has"),
            "link it statically, or ship it and list it under [[files]] in plugin.toml",
        )
        .detail(file.needs.join("\n"))
        .into()),
    }
}
