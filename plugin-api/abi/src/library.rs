//! The wrapper round dlopen.
//!
//! For: turning a file into a plugin, or into one sentence that says why not.
//! Promises: an old plugin loads in a new host and a new plugin in an old host, as long as the newer one's
//! types are the older one's with members appended; within one version they are the same. Anything else is
//! refused before a typed pointer is used.
//! Never: unloads. Threads, thread-locals and vtables of a plugin live as long as the process.
//! The caller has proven before that the file is complete: a truncated library ends the process inside
//! dlopen.

use std::cmp::Ordering;
use std::ffi::c_int;
use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::RangeInclusive;
use std::path::Path;

use abi_stable::StableAbi;
use abi_stable::abi_stability::abi_checking::{CheckingGlobals, check_layout_compatibility_with_globals};
use abi_stable::library::{AbiHeader, AbiHeaderRef, LibHeader};
use abi_stable::type_layout::TypeLayout;
use libloading::os::unix::{Library as Handle, RTLD_LOCAL, RTLD_NOW};

use crate::code;
use crate::descriptor::{MAGIC, Text};
use crate::entry::LibHeaderPointer;
use crate::{
    ABI_MAJOR, ABI_MINOR, Descriptor, HostServicesObject, Outcome, PANIC_UNWIND, PluginModuleRef,
    PluginObject, SYMBOL,
};

/// Every symbol now, so that a missing one is an error here and not a crash later; none of them for others.
const OPEN_FLAGS: c_int = RTLD_NOW | RTLD_LOCAL;

/// Majors whose descriptors are looked for when ours is missing, to say which one it is.
const MAJORS: RangeInclusive<u16> = 1..=9;

/// A library whose types are known to fit.
pub struct Library {
    module: PluginModuleRef,
    facts: LibraryFacts,
    /// Where its descriptor is.
    place: usize,
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
        Ok(Self { module, facts, place: descriptor.place })
    }

    /// What the library says about itself.
    pub fn facts(&self) -> &LibraryFacts {
        &self.facts
    }

    /// Has the note of [`crate::crash`] name `owner` if the process dies in this library's code.
    pub fn answers_for_crashes_as(&self, owner: &str) {
        code::name(self.place, Some(owner));
    }

    /// Makes an instance of the plugin.
    pub fn create(&self, host: HostServicesObject) -> Outcome<PluginObject> {
        self.module.create()(host)
    }
}

/// The fields of a descriptor that passed the first checks.
struct Read {
    place: usize,
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
            format!("`{}` is not a plugin for runtimed: {what}", path.display()),
            format!("install a build of the plugin for ABI {ABI_MAJOR}"),
        )
    };
    // SAFETY: the symbol is only used as an address.
    let symbol = unsafe { handle.get::<*const Descriptor>(SYMBOL) }.map_err(|_| {
        let mut others = MAJORS.filter(|major| {
            // SAFETY: the symbol is not used at all.
            unsafe { handle.get::<*const Descriptor>(format!("RUNTIMED_PLUGIN_V{major}")) }.is_ok()
        });
        match others.next() {
            Some(major) => Refusal::new(
                format!(
                    "`{}` is a plugin for ABI {major}, this daemon speaks {ABI_MAJOR}.{ABI_MINOR}",
                    path.display()
                ),
                other_major(major),
            ),
            None => strange(&format!("it does not export `{SYMBOL}`")),
        }
    })?;
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
        place: start.addr(),
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
            other_major(*major),
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

/// What to do about a plugin for another major version.
fn other_major(major: u16) -> String {
    if major > ABI_MAJOR {
        format!(
            "update runtimed to a release for ABI {major}, or install a build of the plugin for ABI {ABI_MAJOR}"
        )
    } else {
        format!("install a build of the plugin for ABI {ABI_MAJOR}")
    }
}

/// Follows the descriptor to the typed header, if both sides use the same abi_stable.
fn typed_header(root: LibHeaderPointer, facts: &LibraryFacts) -> Result<&'static LibHeader, Refusal> {
    let LibraryFacts { id, .. } = facts;
    let refusal = |reason: String, report: Option<String>| Refusal {
        reason,
        remedy: "ask its author to build it against a released runtimed-plugin-api".to_owned(),
        report,
    };
    let damaged = || format!("plugin `{id}` does not say where its types are described");
    if root.0.is_null() || !root.0.is_aligned() {
        return Err(refusal(damaged(), None));
    }
    // SAFETY: `AbiHeaderRef` is a transparent wrapper of a non-null pointer to the ABI header, which is the
    // first field of every `LibHeader`; this is how abi_stable itself makes one from a symbol's address.
    let header = unsafe { std::mem::transmute::<*const LibHeader, AbiHeaderRef>(root.0) };
    header.upgrade().map_err(|error| {
        let ours = AbiHeader::VALUE;
        let reason = if header.magic_string == ours.magic_string {
            format!(
                "plugin `{id}` was built with abi_stable {}.{}, this daemon with {}.{}",
                header.abi_major, header.abi_minor, ours.abi_major, ours.abi_minor
            )
        } else {
            damaged()
        };
        refusal(reason, Some(error.to_string()))
    })
}

/// Accepts a plugin whose types are what its version says: ours if it has our minor, ours without the latest
/// members if it is older, ours with members appended if it is newer.
fn check_layout(header: &'static LibHeader, facts: &LibraryFacts) -> Result<(), Refusal> {
    let host = <PluginModuleRef as StableAbi>::LAYOUT;
    let LibraryFacts { id, abi: (major, minor), .. } = facts;
    let remedy = "ask its author to build it against a released runtimed-plugin-api";
    let Some(plugin) = header.layout() else {
        return Err(Refusal::new(format!("plugin `{id}` does not describe its types"), remedy));
    };
    let age = minor.cmp(&ABI_MINOR);
    let Err(report) = fits(host, plugin, age) else { return Ok(()) };
    let expected = match age {
        Ordering::Less | Ordering::Equal => format!("those of ABI {major}.{minor}"),
        Ordering::Greater => {
            format!("those of this daemon's ABI {ABI_MAJOR}.{ABI_MINOR} with members appended")
        }
    };
    let reason = format!(
        "plugin `{id}` says ABI {major}.{minor}, but its types are not {expected}: \
         it was built against a modified or unreleased ABI"
    );
    Err(Refusal { reason, remedy: remedy.to_owned(), report: Some(report) })
}

/// Whether the types of a plugin of that `age`, compared with the host, are the host's up to what the newer
/// one appended; if not, everything there is to know about it.
/// abi_stable asks only whether the plugin may be newer, and daemons are updated before plugins are.
fn fits(host: &'static TypeLayout, plugin: &'static TypeLayout, age: Ordering) -> Result<(), String> {
    // Globals of its own for each check: plugins are compared with the host, not with each other.
    let has_all = |of: &'static TypeLayout, who: &'static TypeLayout| {
        check_layout_compatibility_with_globals(of, who, &CheckingGlobals::new())
    };
    if age.is_ge() {
        has_all(host, plugin).map_err(|error| format!("the plugin lacks what the host has:\n{error}\n"))?;
    }
    if age.is_le() {
        has_all(plugin, host).map_err(|error| format!("the host lacks what the plugin has:\n{error}\n"))?;
    }
    Ok(())
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
    fn types_are_what_the_version_says() {
        let first = <first::ModuleRef as StableAbi>::LAYOUT;
        let appended = <appended::ModuleRef as StableAbi>::LAYOUT;
        let inserted = <inserted::ModuleRef as StableAbi>::LAYOUT;
        let changed = <changed::ModuleRef as StableAbi>::LAYOUT;
        let all = [first, appended, inserted, changed];
        for (host, plugin, age) in [
            (first, first, Ordering::Less),
            (first, first, Ordering::Equal),
            (first, first, Ordering::Greater),
            (first, appended, Ordering::Greater),
            (appended, first, Ordering::Less),
        ] {
            fits(host, plugin, age).unwrap();
        }
        // Appended, but the version does not say so.
        for (host, plugin) in [(first, appended), (appended, first)] {
            fits(host, plugin, Ordering::Equal).unwrap_err();
        }
        for different in [inserted, changed] {
            for other in all.into_iter().filter(|other| *other != different) {
                for age in [Ordering::Less, Ordering::Equal, Ordering::Greater] {
                    assert!(!fits(different, other, age).unwrap_err().is_empty());
                    fits(other, different, age).unwrap_err();
                }
            }
        }
    }
}
