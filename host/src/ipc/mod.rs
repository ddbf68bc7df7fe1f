//! What happens on the daemon's socket.
//!
//! For: `daemon.rs`, which accepts connections and runs [`serve`] for each.
//! Promises: whatever a peer sends costs at most its own connection; payloads are never copied.
//!
//! Map: `connection` reads preamble and handshake, then one file per channel: `pool`, `settings_sync`,
//! `notebook`. `reader` and `egress` are the two directions of a connection.

mod connection;
mod egress;
mod notebook;
mod pool;
mod pool_doc;
mod reader;
mod settings_sync;

pub use connection::serve;
pub use pool_doc::PoolDocument;

/// An error as a client shows it: what happened, then what to do.
fn in_words(error: &runtimed_plugin_api::PluginError) -> String {
    match &error.help {
        Some(help) => format!("{} {help}", error.message),
        None => error.message.clone(),
    }
}
