//! The first call: the daemon says which library and within which limits, the child answers with the plugin.
//!
//! Promises: limits hold before the library's constructors run.

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use runtimed_plugin_abi as abi;
use runtimed_plugin_abi::{FfiFuture, Library, LibraryFacts, Outcome, ROption, RString, Refusal, Reply};
use tokio::sync::oneshot;

use super::host::RemoteHost;
use super::link::{Answering, Called, Link, ROOT, Target, failure};
use super::locked;
use super::remote::no_method;
use super::value::{Pack, Packer, Unpack, Unpacker};
use super::wire::Garbage;
use crate::PluginError;
use crate::adapter::convert::{outcome, result};
use crate::processes::ProcessLimits;

/// Version of everything the two processes say to each other. They are one program, unless its file was replaced
/// while the daemon ran.
const RELAY: u64 = 1;
/// The only method.
const OPEN: u8 = 0;

/// How the library was met.
pub(super) enum Opened {
    /// It is loaded and has made its plugin.
    Loaded { facts: LibraryFacts, plugin: abi::PluginObject },
    /// It does not fit.
    Refused(Refusal),
}

/// The first call, as the daemon makes it.
pub(super) fn open(
    link: &Link,
    library: &str,
    limits: &ProcessLimits,
    host: abi::HostServicesObject,
) -> Reply<Opened> {
    link.call(ROOT, OPEN, |to| {
        RELAY.pack(to);
        RString::from(library).pack(to);
        ROption::from(limits.memory).pack(to);
        ROption::from(limits.cpu.map(|cpu| cpu.as_secs().max(1))).pack(to);
        ROption::from(limits.files).pack(to);
        host.pack(to);
    })
}

/// The first call, as the child answers it.
pub(super) struct Root {
    /// Gets the daemon's services once they are known. Empty after the first call.
    host: Mutex<Option<oneshot::Sender<RemoteHost>>>,
}

impl Root {
    pub(super) fn new(host: oneshot::Sender<RemoteHost>) -> Self {
        Self { host: Mutex::new(Some(host)) }
    }
}

impl Target for Root {
    fn call(&self, call: Called<'_>) -> Result<Option<Answering>, Garbage> {
        let Called { request, method, mut from } = call;
        if method != OPEN {
            return no_method(method);
        }
        let relay = u64::unpack(&mut from)?;
        if relay != RELAY {
            let error = PluginError::unavailable(format!(
                "the daemon and the program that runs its plugins are of different builds ({RELAY} and {relay})"
            ));
            let error = error.help("restart the daemon: its program was replaced while it ran");
            from.link.reply(request, Outcome::<()>::RErr(failure(error)));
            return Ok(None);
        }
        let library = PathBuf::from(String::from(RString::unpack(&mut from)?));
        let mut number = || ROption::<u64>::unpack(&mut from).map(ROption::into_option);
        let (memory, cpu, files) = (number()?, number()?.map(Duration::from_secs), number()?);
        let limits = ProcessLimits { memory, cpu, files, ..ProcessLimits::default() };
        let host = RemoteHost::unpack(&mut from)?;
        from.end()?;
        let listener = locked(&self.host).take().ok_or_else(|| Garbage::new("a second library"))?;
        let _ = listener.send(host.clone());
        // Constructors and `create` are the plugin's code, which must not hold up the socket.
        let opened = tokio::task::spawn_blocking(move || {
            limits.set_on(None).map_err(|error| {
                PluginError::internal(format!("the plugin's process could not be limited: {error}"))
            })?;
            let library = match Library::open(&library) {
                Ok(library) => library,
                Err(refusal) => return Ok(Opened::Refused(refusal)),
            };
            let plugin = result(library.create(host.object()))?;
            Ok(Opened::Loaded { facts: library.facts().clone(), plugin })
        });
        let reply = FfiFuture::new(async move {
            let opened = opened.await.unwrap_or_else(|error| {
                Err(PluginError::internal(format!("loading the library failed: {error}")))
            });
            outcome(opened)
        });
        Ok(Some(from.link.answer(request, reply)))
    }

    fn notify(&self, method: u8, _: Unpacker<'_>) -> Result<(), Garbage> {
        no_method(method)
    }
}

impl Pack for Opened {
    fn pack(self, to: &mut Packer<'_>) {
        match self {
            Self::Loaded { facts, plugin } => {
                true.pack(to);
                for text in [facts.id, facts.version, facts.rustc] {
                    RString::from(text).pack(to);
                }
                u64::from(facts.abi.0).pack(to);
                u64::from(facts.abi.1).pack(to);
                plugin.pack(to);
            }
            Self::Refused(refusal) => {
                false.pack(to);
                RString::from(refusal.reason).pack(to);
                RString::from(refusal.remedy).pack(to);
                ROption::from(refusal.report.map(RString::from)).pack(to);
            }
        }
    }
}

impl Unpack for Opened {
    fn unpack(from: &mut Unpacker<'_>) -> Result<Self, Garbage> {
        let text = |from: &mut Unpacker<'_>| RString::unpack(from).map(String::from);
        if bool::unpack(from)? {
            let (id, version, rustc) = (text(from)?, text(from)?, text(from)?);
            let minor_or_major = |from: &mut Unpacker<'_>| {
                u16::try_from(u64::unpack(from)?).map_err(|_| Garbage::new("a version of more than 16 bits"))
            };
            let abi = (minor_or_major(from)?, minor_or_major(from)?);
            let facts = LibraryFacts { id, version, abi, rustc };
            return Ok(Self::Loaded { facts, plugin: abi::PluginObject::unpack(from)? });
        }
        let (reason, remedy) = (text(from)?, text(from)?);
        let report = ROption::<RString>::unpack(from)?.into_option().map(String::from);
        Ok(Self::Refused(Refusal { reason, remedy, report }))
    }
}
