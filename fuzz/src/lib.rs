//! Everything that reads what it did not write: sockets, files, kernels, plugins.
//!
//! For: libFuzzer (`cargo xtask fuzz`), and a test that mutates the seeds a little on every run.
//! Promises: a target panics when a reader does, or breaks its word; anything else it is given is fine.
//! Never: touches a file or a socket; `examples/corpus.rs` and the test read what is kept.

pub mod corpus;
mod documents;
mod kernels;
mod settings;
mod wire;

/// One reader, or a few that get the same bytes.
pub struct Target {
    /// What it is called.
    pub name: &'static str,
    /// Reads.
    pub run: fn(&[u8]),
    /// What it should get to know first: valid inputs.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "frames", run: wire::frames, seeds: wire::frames_seeds },
    Target { name: "handshake", run: wire::handshake, seeds: wire::handshake_seeds },
    Target { name: "request", run: wire::request, seeds: wire::request_seeds },
    Target { name: "presence", run: wire::presence, seeds: wire::presence_seeds },
    Target { name: "put_blob", run: wire::put_blob, seeds: wire::put_blob_seeds },
    Target { name: "sync", run: documents::sync, seeds: documents::sync_seeds },
    Target { name: "document", run: documents::document, seeds: documents::document_seeds },
    Target {
        name: "notebook_file",
        run: runtimed_plugin_rooms::fuzz::notebook_file,
        seeds: documents::notebook_file_seeds,
    },
    Target {
        name: "journal",
        run: runtimed_plugin_rooms::fuzz::journal,
        seeds: runtimed_plugin_rooms::fuzz::journal_seeds,
    },
    Target { name: "manifest", run: settings::manifest, seeds: settings::manifest_seeds },
    Target { name: "settings", run: settings::settings, seeds: settings::settings_seeds },
    Target { name: "shim", run: kernels::shim, seeds: kernels::shim_seeds },
    Target { name: "jupyter", run: kernels::jupyter, seeds: kernels::jupyter_seeds },
];

impl Target {
    /// The target of that name.
    pub fn named(name: &str) -> Option<&'static Self> {
        TARGETS.iter().find(|target| target.name == name)
    }
}
