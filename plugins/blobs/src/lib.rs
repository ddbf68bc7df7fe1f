//! Keeps bytes by their SHA-256 for runtimed, one file each.
//!
//! Map: `layout` knows the names, `store` puts and gets, `sweep` deletes, `capability` moves calls to
//! threads that may block, `plugin` is the life of it all.

mod capability;
mod layout;
mod plugin;
mod store;
mod sweep;

pub use plugin::BlobsPlugin;

runtimed_plugin_api::export_plugin!(BlobsPlugin, id = "blobs");
