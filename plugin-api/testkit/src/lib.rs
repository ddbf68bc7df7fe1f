//! Is this plugin good? Conformance suites for plugins of runtimed, and a host to test them with.
//!
//! For: authors, whose `cargo test` runs them on the plugin itself; `runt plugins check`, which runs them on a
//! library; this project, which runs them on its own plugins.
