//! Open notebooks for runtimed: their documents, peers, queues, outputs and files.
//!
//! Map: `rooms` takes connections and questions from the host; `directory` knows which room is which;
//! `room` is one open notebook, a pure core in a thin shell; `outputs` turns kernel messages into manifests;
//! `notebook_file` reads and writes `.ipynb`; `journal` keeps a room over the daemon's end and `reopen`
//! brings it back, `verify` looks whether it could; `disk` and `records` are the files, `staging` those of
//! uploads; `claims` takes over kernels that outlived a daemon, `warm` starts some before anybody wants them.

mod claims;
mod collect;
mod directory;
mod disk;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod ids;
mod journal;
mod kinds;
mod leases;
mod merge;
mod notebook_file;
mod outputs;
mod paths;
mod plugin;
mod records;
mod reopen;
mod room;
mod rooms;
mod staging;
mod summaries;
mod verify;
mod warm;
mod watch;

pub use plugin::RoomsPlugin;
pub use rooms::OpenNotebooks;
