//! The wrapper round dlopen.
//!
//! For: turning a file into a plugin, or into one sentence that says why not.
//! Promises: an old plugin loads in a new host and a new plugin in an old host, as long as one's types are
//! the other's with members appended; anything else is refused before a typed pointer is used.
//! Never: unloads. Threads, thread-locals and vtables of a plugin live as long as the process.
//! The caller has proven before that the file is complete: a truncated library ends the process inside
//! dlopen.

use std::ffi::c_int;
use std::fmt;
use std::mem::ManuallyDrop;
use std::path::Path;

use abi_stable::StableAbi;
use abi_stable::abi_stability::abi_checking::{CheckingGlobals, check_layout_compatibility_with_globals};
use abi_stable::library::{AbiHeaderRef, LibHeader};
use abi_stable::type_layout::TypeLayout;
use libloading::os::unix::{Library as Handle, RTLD_LOCAL, RTLD_NOW};

use crate::descriptor::{MAGIC, Text};
use crate::entry::LibHeaderPointer;
use crate::{
    ABI_MAJOR, ABI_MINOR, Descriptor, HostServicesObject, Outcome, PANIC_UNWIND, PluginModuleRef,
    PluginObject, SYMBOL,
};

/// Every symbol now, so that a missing one is an error here and not a crash later; none of them for others.
const OPEN_FLAGS: c_int = RTLD_NOW | RTLD_LOCAL;

/// A library whose types are known to fit.
pub struct Library {
    module: PluginModuleRef,
    facts: LibraryFacts,
}

/// What a library's descriptor says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LibraryFacts {
    /// Id of the plugin.
    pub id: String,
    /// Version of the plugin.
    pub version: String,
    /// ABI the plugin was built with: major and minor.
    pub abi: (u16, u16),
    /// Compiler that built it.
    pub rustc: String,
}

/// Why a library was not loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// One sentence: who has what, and what was expected.
    pub reason: String,
    /// What to do about it.
    pub remedy: String,
    /// Everything there is to know, often long; for a file, not for a terminal.
    pub report: Option<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Refusal {}

impl Refusal {
    fn new(reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { reason: reason.into(), remedy: remedy.into(), report: None }
    }
}

impl Library {
    /// Loads the library at `path`, which must be absolute, and checks that it fits this host.
    /// Blocks on the file system and runs the library's constructors.
    ///
    /// # Errors
    /// [`Refusal`] says who is too old or what is missing.
    pub fn open(path: &Path) -> Result<Self, Refusal> {
        if !path.is_absolute() {
            return Err(Refusal::new(
                format!("`{}` is not an absolute path", path.display()),
                "name the library by its full path",
            ));
        }
        // SAFETY: constructors of the library run here. It was checked to be a complete library for this
        // machine that only its owner can write; in-process plugins are trusted code.
        let handle = unsafe { Handle::open(Some(path), OPEN_FLAGS) }.map_err(|error| Refusal {
            reason: format!("`{}` could not be loaded: {}", path.display(), first_line(&error)),
            remedy: "install the libraries it needs, or reinstall the plugin".to_owned(),
            report: Some(format!("{error:?}")),
        })?;
        // Never closed: what was read from it is used as if it were static, and so it is.
        let handle = ManuallyDrop::new(handle);
        let descriptor = descriptor(&handle, path)?;
        let facts = check_descriptor(&descriptor)?;
        let header = typed_header(descriptor.root, &facts)?;
        check_layout(header, &facts)?;
        // SAFETY: `check_layout` proved that the module's type is ours up to members appended on one side,
        // which prefix types and trait objects look up by their actual count.
        let module = unsafe { header.init_root_module_with_unchecked_layout::<PluginModuleRef>() }.map_err(
            |error| Refusal {
                reason: format!("plugin `{}` could not set itself up", facts.id),
                remedy: "report it to the plugin's author".to_owned(),
                report: Some(error.to_string()),
            },
        )?;
        Ok(Self { module, facts })
    }

    /// What the library says about itself.
    pub fn facts(&self) -> &LibraryFacts {
        &self.facts
    }

    /// Makes an instance of the plugin.
    pub fn create(&self, host: HostServicesObject) -> Outcome<PluginObject> {
        self.module.create()(host)
    }
}

/// The fields of a descriptor that passed the first checks.
struct Read {
    abi: (u16, u16),
    min_host_minor: u16,
    flags: u16,
    id: Text,
    version: Text,
    rustc: Text,
    root: LibHeaderPointer,
}

/// Finds and copies the descriptor.
fn descriptor(handle: &Handle, path: &Path) -> Result<Read, Refusal> {
    let strange = |what: &str| {
        Refusal::new(
            format!("`{}` is not a plugin for this daemon: {what}", path.display()),
            format!("install a build of the plugin for ABI {ABI_MAJOR}"),
        )
    };
    // SAFETY: the symbol is only used as an address.
    let symbol = unsafe { handle.get::<*const Descriptor>(SYMBOL) }
        .map_err(|_| strange(&format!("it does not export `{SYMBOL}`")))?;
    let start: *const Descriptor = *symbol;
    if start.is_null() || !start.is_aligned() {
        return Err(strange("its descriptor is damaged"));
    }
    // SAFETY: magic and size are the first fields of every descriptor, of whatever version.
    let (magic, size) = unsafe { ((*start).magic, (*start).struct_size) };
    if magic != MAGIC {
        return Err(strange("its descriptor has the wrong magic"));
    }
    if (size as usize) < size_of::<Descriptor>() {
        return Err(strange("its descriptor is shorter than version 1 says"));
    }
    // SAFETY: the plugin's descriptor is at least as long as ours, and fields are only ever appended.
    let found = unsafe { &*start };
    Ok(Read {
        abi: (found.abi_major, found.abi_minor),
        min_host_minor: found.min_host_minor,
        flags: found.flags,
        id: found.id,
        version: found.version,
        rustc: found.rustc,
        root: found.root,
    })
}

/// Checks versions and flags, and reads the strings.
fn check_descriptor(read: &Read) -> Result<LibraryFacts, Refusal> {
    let facts = LibraryFacts {
        id: text(read.id),
        version: text(read.version),
        abi: read.abi,
        rustc: text(read.rustc),
    };
    let LibraryFacts { id, abi: (major, minor), .. } = &facts;
    if *major != ABI_MAJOR {
        return Err(Refusal::new(
            format!(
                "plugin `{id}` was built for ABI {major}.{minor}, this daemon speaks {ABI_MAJOR}.{ABI_MINOR}"
            ),
            if *major > ABI_MAJOR { "update runtimed" } else { "update the plugin" },
        ));
    }
    if read.min_host_minor > ABI_MINOR {
        return Err(Refusal::new(
            format!(
                "plugin `{id}` needs a daemon with ABI {major}.{}, this one has {ABI_MAJOR}.{ABI_MINOR}",
                read.min_host_minor
            ),
            "update runtimed",
        ));
    }
    if read.flags & PANIC_UNWIND == 0 {
        return Err(Refusal::new(
            format!(
                "plugin `{id}` was built with panic = \"abort\", so one mistake in it would end the daemon"
            ),
            "ask its author to build it with panic = \"unwind\"",
        ));
    }
    Ok(facts)
}

/// Follows the descriptor to the typed header, if both sides use the same abi_stable.
fn typed_header(root: LibHeaderPointer, facts: &LibraryFacts) -> Result<&'static LibHeader, Refusal> {
    let mismatch = |report: Option<String>| Refusal {
        reason: format!("plugin `{}` was built with another generation of abi_stable", facts.id),
        remedy: "rebuild the plugin against the current runtimed-plugin-api".to_owned(),
        report,
    };
    if root.0.is_null() || !root.0.is_aligned() {
        return Err(mismatch(None));
    }
    // SAFETY: `AbiHeaderRef` is a transparent wrapper of a non-null pointer to the ABI header, which is the
    // first field of every `LibHeader`; this is how abi_stable itself makes one from a symbol's address.
    let header = unsafe { std::mem::transmute::<*const LibHeader, AbiHeaderRef>(root.0) };
    header.upgrade().map_err(|error| mismatch(Some(error.to_string())))
}

/// Accepts a plugin whose types are ours with members appended, or ours without our latest ones.
fn check_layout(header: &'static LibHeader, facts: &LibraryFacts) -> Result<(), Refusal> {
    let host = <PluginModuleRef as StableAbi>::LAYOUT;
    let remedy = "rebuild the plugin against a released runtimed-plugin-api";
    let Some(plugin) = header.layout() else {
        return Err(Refusal::new(format!("plugin `{}` hides its types", facts.id), remedy));
    };
    let Err(report) = fits_either_way(host, plugin) else { return Ok(()) };
    let (major, minor) = facts.abi;
    Err(Refusal {
        reason: format!(
            "plugin `{}` says ABI {major}.{minor}, but its types are not those of this daemon's {ABI_MAJOR}.{ABI_MINOR}",
            facts.id
        ),
        remedy: remedy.to_owned(),
        report: Some(report),
    })
}

/// Whether one layout is the other with members appended; if not, everything there is to know about it.
/// abi_stable asks only whether the plugin may be newer, and daemons are updated before plugins are.
fn fits_either_way(host: &'static TypeLayout, plugin: &'static TypeLayout) -> Result<(), String> {
    // Globals of its own for each check: plugins are compared with the host, not with each other.
    let fits = |interface: &'static TypeLayout, implementation: &'static TypeLayout| {
        check_layout_compatibility_with_globals(interface, implementation, &CheckingGlobals::new())
    };
    let Err(newer) = fits(host, plugin) else { return Ok(()) };
    let Err(older) = fits(plugin, host) else { return Ok(()) };
    Err(format!("host as interface:\n{newer}\n\nplugin as interface:\n{older}\n"))
}

/// Reads a descriptor's string.
fn text(text: Text) -> String {
    if text.start.is_null() {
        return String::new();
    }
    // SAFETY: start and length come from a `&'static str` of a library that is never unloaded.
    let bytes = unsafe { std::slice::from_raw_parts(text.start, text.len) };
    String::from_utf8_lossy(bytes).into_owned()
}

/// The loader's own words, without what follows them.
fn first_line(error: &libloading::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One version of a trait that crosses, and the module that leads to it.
    macro_rules! version {
        ($name:ident, { $($before:item)* }, { $($after:item)* }) => {
            #[allow(missing_docs, dead_code, unreachable_pub, reason = "only its layout is looked at")]
            mod $name {
                use abi_stable::{StableAbi, sabi_trait, std_types::RBox};

                #[sabi_trait]
                pub trait Thing: Send + Sync + 'static {
                    $($before)*
                    #[sabi(last_prefix_field)]
                    fn last(&self) -> u8;
                    $($after)*
                }

                #[repr(C)]
                #[derive(StableAbi)]
                #[sabi(kind(Prefix(prefix_ref = ModuleRef)))]
                #[sabi(missing_field(option))]
                pub struct Module {
                    #[sabi(last_prefix_field)]
                    pub create: extern "C" fn(Thing_TO<RBox<()>>) -> u8,
                }
            }
        };
    }

    version!(
        first,
        {
            fn one(&self) -> u8;
        },
        {}
    );
    version!(
        appended,
        {
            fn one(&self) -> u8;
        },
        {
            fn more(&self) -> u16 {
                0
            }
        }
    );
    version!(
        inserted,
        {
            fn zero(&self) -> u8;
            fn one(&self) -> u8;
        },
        {}
    );
    version!(
        changed,
        {
            fn one(&self) -> u64;
        },
        {}
    );

    #[test]
    fn either_side_may_be_newer_and_neither_may_differ() {
        let first = <first::ModuleRef as StableAbi>::LAYOUT;
        let appended = <appended::ModuleRef as StableAbi>::LAYOUT;
        let inserted = <inserted::ModuleRef as StableAbi>::LAYOUT;
        let changed = <changed::ModuleRef as StableAbi>::LAYOUT;
        for (host, plugin) in [(first, first), (first, appended), (appended, first)] {
            fits_either_way(host, plugin).unwrap();
        }
        for (host, plugin) in [(first, inserted), (inserted, first), (first, changed), (appended, changed)] {
            assert!(!fits_either_way(host, plugin).unwrap_err().is_empty());
        }
    }
}
