//! Where the typed part of a library begins: one module with one function.

use abi_stable::StableAbi;
use abi_stable::library::{__call_root_module_loader, CheckTypeLayout, RootModule, RootModuleResult};
use abi_stable::package_version_strings;
use abi_stable::prefix_type::PrefixTypeTrait;
use abi_stable::sabi_types::VersionStrings;

pub use abi_stable::library::LibHeader;

use crate::{HostServicesObject, Outcome, PluginObject};

/// The functions of a library. Later minors append optional ones.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = PluginModuleRef)))]
#[sabi(missing_field(option))]
pub struct PluginModule {
    /// Makes the plugin.
    #[sabi(last_prefix_field)]
    pub create: extern "C" fn(HostServicesObject) -> Outcome<PluginObject>,
}

impl RootModule for PluginModuleRef {
    abi_stable::declare_root_module_statics! {PluginModuleRef}
    const BASE_NAME: &'static str = "runtimed_plugin";
    const NAME: &'static str = "runtimed plugin";
    const VERSION_STRINGS: VersionStrings = package_version_strings!();
}

/// What an exported type must be able to do.
pub trait Entry: 'static {
    /// Makes the plugin. Must not unwind: the process ends if it does.
    fn create(host: HostServicesObject) -> Outcome<PluginObject>;
}

/// The typed header of a library whose plugin is `E`, for the descriptor.
pub const fn header<E: Entry>() -> LibHeader {
    // SAFETY: `module::<E>` returns the erased form of a `PluginModuleRef`.
    unsafe { LibHeader::from_constructor::<PluginModuleRef>(module::<E>, CheckTypeLayout::Yes) }
}

extern "C" fn module<E: Entry>() -> RootModuleResult {
    __call_root_module_loader(|| PluginModule { create: create::<E> }.leak_into_prefix())
}

extern "C" fn create<E: Entry>(host: HostServicesObject) -> Outcome<PluginObject> {
    E::create(host)
}

/// The header's address inside the descriptor.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(crate) struct LibHeaderPointer(pub(crate) *const LibHeader);

impl LibHeaderPointer {
    pub(crate) const fn new(header: &'static LibHeader) -> Self {
        Self(header)
    }
}
