//! The plain C facts about a plugin, read before anything typed is touched.
//!
//! For: refusing a library with one clear sentence instead of a crash.
//! Promises: the first three fields never change; everything after them belongs to the major version
//! that the symbol's name carries.

use crate::entry::{LibHeader, LibHeaderPointer};

/// Major version of the ABI: the package's.
pub const ABI_MAJOR: u16 = decimal(env!("CARGO_PKG_VERSION_MAJOR"));
/// Minor version of the ABI: the package's.
pub const ABI_MINOR: u16 = decimal(env!("CARGO_PKG_VERSION_MINOR"));
/// Name of the exported descriptor. A new major version has a new symbol.
pub const SYMBOL: &str = "RUNTIMED_PLUGIN_V1";

/// Flag: panics unwind, so that they can be caught at the boundary.
pub const PANIC_UNWIND: u16 = 1;
/// Flag: asynchronous bodies run on a runtime of the plugin's own.
pub const OWNS_RUNTIME: u16 = 2;

/// First bytes of every descriptor.
pub(crate) const MAGIC: [u8; 8] = *b"runtplug";

/// What a plugin says about itself.
#[repr(C)]
pub struct Descriptor {
    pub(crate) magic: [u8; 8],
    /// Size of this struct in the plugin, for telling which fields there are.
    pub(crate) struct_size: u32,
    pub(crate) abi_major: u16,
    pub(crate) abi_minor: u16,
    /// Lowest ABI minor of a host that the plugin can live in.
    pub(crate) min_host_minor: u16,
    pub(crate) flags: u16,
    pub(crate) id: Text,
    pub(crate) version: Text,
    pub(crate) rustc: Text,
    /// Where the typed part begins.
    pub(crate) root: LibHeaderPointer,
}

/// A string with static life, as C sees it.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Text {
    pub(crate) start: *const u8,
    pub(crate) len: usize,
}

impl Text {
    const fn new(text: &'static str) -> Self {
        Self { start: text.as_ptr(), len: text.len() }
    }
}

// SAFETY: every pointer in it is to static data that is `Sync` itself: text, and the `LibHeader`.
unsafe impl Sync for Descriptor {}

impl Descriptor {
    /// Describes a plugin built with this crate; `root` comes from [`crate::header`].
    pub const fn new(id: &'static str, version: &'static str, root: &'static LibHeader) -> Self {
        let unwinds = if cfg!(panic = "unwind") { PANIC_UNWIND } else { 0 };
        Self {
            magic: MAGIC,
            struct_size: size_of::<Self>() as u32,
            abi_major: ABI_MAJOR,
            abi_minor: ABI_MINOR,
            min_host_minor: 0,
            flags: unwinds | OWNS_RUNTIME,
            id: Text::new(id),
            version: Text::new(version),
            rustc: Text::new(env!("RUNTIMED_PLUGIN_RUSTC")),
            root: LibHeaderPointer::new(root),
        }
    }
}

/// Reads a decimal number at compile time.
const fn decimal(digits: &str) -> u16 {
    let digits = digits.as_bytes();
    let (mut number, mut at) = (0, 0);
    while at < digits.len() {
        number = number * 10 + (digits[at] - b'0') as u16;
        at += 1;
    }
    number
}
