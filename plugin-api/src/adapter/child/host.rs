//! The host's services over the socket.
//!
//! For: the child, whose plugin asks for settings, levels and other capabilities in synchronous methods.
//! Promises: directories and settings are there without a round trip, the settings as the daemon last told them;
//! a level is asked for once for each target and call, so one that changes in the daemon is followed at the next.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use runtimed_plugin_abi as abi;
use runtimed_plugin_abi::{FfiFuture, RNone, ROption, RResult, RStr, RString, Reply, TD_Opaque};
use serde::Deserialize;
use tokio::sync::watch;

use super::bucket::Bucket;
use super::link::{Answering, Called, Target, failure};
use super::locked;
use super::remote::{Remote, no_method};
use super::value::{Pack, Packer, Unpack, Unpacker};
use super::wire::Garbage;
use crate::PluginError;

/// Lines that pass at once, and in each second (our choice: a plugin that traces a whole build fits).
const LOG: Bucket = Bucket::new(2000, 500);
/// How long a level is believed without asking again.
const LEVEL_LIFE: Duration = Duration::from_secs(1);
/// How long to wait before asking again for settings that could not be told.
const RETRY: Duration = Duration::from_secs(1);
/// Targets whose level is remembered; a plugin that makes up more is asked to wait each time.
const MAX_TARGETS: usize = 1024;
/// A warning's level.
const WARN: u8 = 2;
/// The most talkative level.
const TRACE: u8 = 5;

/// Numbers of the methods.
mod method {
    pub(super) const LEVEL: u8 = 0;
    pub(super) const LOG: u8 = 1;
    pub(super) const PANICKED: u8 = 2;
    pub(super) const SETTINGS_CHANGED: u8 = 3;
    pub(super) const BLOB_STORE: u8 = 4;
    pub(super) const KERNEL_BACKEND: u8 = 5;
    pub(super) const ENVIRONMENTS: u8 = 6;
    pub(super) const RUN_PROCESS: u8 = 7;
    pub(super) const SHUTTING_DOWN: u8 = 8;
}

/// The daemon as the child sees it. Cheap to clone.
#[derive(Clone)]
pub(super) struct RemoteHost(Arc<Shared>);

struct Shared {
    directories: RString,
    settings: watch::Sender<Settings>,
    levels: Mutex<HashMap<String, Level>>,
    remote: Remote,
}

/// The most talkative level somebody listens to.
#[derive(Clone, Copy)]
struct Level {
    level: u8,
    asked: Instant,
    /// The call of the daemon in which it was asked for.
    call: u64,
}

/// A `SettingsView` and the revision it is at.
struct Settings {
    revision: u64,
    view: RString,
}

impl Settings {
    fn new(view: RString) -> Self {
        #[derive(Deserialize)]
        struct View {
            revision: u64,
        }
        let revision = serde_json::from_str::<View>(&view).map_or(0, |view| view.revision);
        Self { revision, view }
    }
}

impl RemoteHost {
    /// The ABI object to make the plugin with.
    pub(super) fn object(&self) -> abi::HostServicesObject {
        abi::HostServices_TO::from_value(self.clone(), TD_Opaque)
    }

    /// Follows the daemon's settings for ever.
    pub(super) async fn follow_settings(&self) {
        loop {
            let revision = self.0.settings.borrow().revision;
            let changed = self.0.remote.call::<RString>(method::SETTINGS_CHANGED, |to| revision.pack(to));
            match changed.await {
                RResult::ROk(view) => drop(self.0.settings.send_replace(Settings::new(view))),
                // Too many other calls at the moment, perhaps. A daemon that is gone ends this process anyway.
                RResult::RErr(_) => tokio::time::sleep(RETRY).await,
            }
        }
    }

    fn level(&self, target: &str) -> u8 {
        let (asked, call) = (Instant::now(), self.0.remote.link().calls_in());
        let known = locked(&self.0.levels).get(target).copied();
        if let Some(known) = known
            && known.call == call
            && asked.duration_since(known.asked) < LEVEL_LIFE
        {
            return known.level;
        }
        let Some(level) = self.0.remote.ask(method::LEVEL, |to| RStr::from_str(target).pack(to)) else {
            return WARN;
        };
        let mut levels = locked(&self.0.levels);
        if levels.len() < MAX_TARGETS || levels.contains_key(target) {
            levels.insert(target.to_owned(), Level { level, asked, call });
        }
        level
    }
}

impl RemoteHost {
    fn line(&self, level: u8, target: RStr<'_>, message: RStr<'_>, fields: RStr<'_>) {
        self.0.remote.notify_lossy(method::LOG, |to| {
            level.pack(to);
            target.pack(to);
            message.pack(to);
            fields.pack(to);
        });
    }
}

impl abi::HostServices for RemoteHost {
    fn log_enabled(&self, level: u8, target: RStr<'_>) -> bool {
        level <= self.level(target.as_str())
    }

    fn log(&self, level: u8, target: RStr<'_>, message: RStr<'_>, fields: RStr<'_>) {
        let lost = self.0.remote.link().take_lost();
        if lost > 0 {
            let message = format!("{lost} log lines or progress steps were left out: they come too fast");
            self.line(WARN, target, RStr::from_str(&message), RStr::from_str("{}"));
        }
        self.line(level, target, message, fields);
    }

    fn panicked(&self, message: RStr<'_>, location: RStr<'_>) {
        self.0.remote.notify(method::PANICKED, |to| {
            message.pack(to);
            location.pack(to);
        });
    }

    fn directories(&self) -> RString {
        self.0.directories.clone()
    }

    fn settings(&self) -> RString {
        self.0.settings.borrow().view.clone()
    }

    fn settings_changed(&self, revision: u64) -> Reply {
        let mut settings = self.0.settings.subscribe();
        FfiFuture::new(async move {
            match settings.wait_for(|settings| settings.revision > revision).await {
                Ok(settings) => RResult::ROk(settings.view.clone()),
                Err(_) => RResult::RErr(failure(PluginError::unavailable("the daemon is gone"))),
            }
        })
    }

    fn blob_store(&self) -> ROption<abi::BlobStoreObject> {
        self.0.remote.ask(method::BLOB_STORE, |_| ()).unwrap_or(RNone)
    }

    fn kernel_backend(&self, kind: RStr<'_>) -> ROption<abi::KernelBackendObject> {
        self.0.remote.ask(method::KERNEL_BACKEND, |to| kind.pack(to)).unwrap_or(RNone)
    }

    fn environments(&self) -> ROption<abi::EnvironmentsObject> {
        self.0.remote.ask(method::ENVIRONMENTS, |_| ()).unwrap_or(RNone)
    }

    fn run_process(&self, spec: RString, lines: abi::ProcessLinesObject) -> Reply {
        self.0.remote.call(method::RUN_PROCESS, |to| {
            spec.pack(to);
            lines.pack(to);
        })
    }

    fn shutting_down(&self) -> Reply {
        self.0.remote.call(method::SHUTTING_DOWN, |_| ())
    }
}

impl Unpack for RemoteHost {
    fn unpack(from: &mut Unpacker<'_>) -> Result<Self, Garbage> {
        let remote = Remote::unpack(from)?;
        let directories = RString::unpack(from)?;
        let settings = watch::Sender::new(Settings::new(RString::unpack(from)?));
        Ok(Self(Arc::new(Shared { directories, settings, levels: Mutex::default(), remote })))
    }
}

impl Pack for abi::HostServicesObject {
    fn pack(self, to: &mut Packer<'_>) {
        let (directories, settings) = (self.directories(), self.settings());
        to.export(Offered { host: self, lines: Mutex::new(LOG) });
        directories.pack(to);
        settings.pack(to);
    }
}

/// The daemon's services, offered to the child.
struct Offered {
    host: abi::HostServicesObject,
    lines: Mutex<Bucket>,
}

impl Offered {
    fn log(&self, level: u8, target: RStr<'_>, message: RStr<'_>, fields: RStr<'_>) {
        let Some(left_out) = locked(&self.lines).pass(Instant::now()) else { return };
        if left_out > 0 {
            let message = format!("{left_out} log lines of the plugin were left out: it writes too many");
            self.host.log(WARN, target, RStr::from_str(&message), RStr::from_str("{}"));
        }
        self.host.log(level, target, message, fields);
    }
}

impl Target for Offered {
    fn call(&self, call: Called<'_>) -> Result<Option<Answering>, Garbage> {
        let Called { request, method, mut from } = call;
        let link = from.link;
        match method {
            method::LEVEL => {
                let target = RString::unpack(&mut from)?;
                from.end()?;
                let level = (1..=TRACE).rev().find(|level| self.host.log_enabled(*level, target.as_rstr()));
                link.reply(request, RResult::ROk(level.unwrap_or(0)));
                Ok(None)
            }
            method::SETTINGS_CHANGED => {
                let revision = u64::unpack(&mut from)?;
                from.end()?;
                Ok(Some(link.answer(request, self.host.settings_changed(revision))))
            }
            method::BLOB_STORE => {
                from.end()?;
                link.reply(request, RResult::ROk(self.host.blob_store()));
                Ok(None)
            }
            method::KERNEL_BACKEND => {
                let kind = RString::unpack(&mut from)?;
                from.end()?;
                link.reply(request, RResult::ROk(self.host.kernel_backend(kind.as_rstr())));
                Ok(None)
            }
            method::ENVIRONMENTS => {
                from.end()?;
                link.reply(request, RResult::ROk(self.host.environments()));
                Ok(None)
            }
            method::RUN_PROCESS => {
                let (spec, lines) =
                    (RString::unpack(&mut from)?, abi::ProcessLinesObject::unpack(&mut from)?);
                from.end()?;
                Ok(Some(link.answer(request, self.host.run_process(spec, lines))))
            }
            method::SHUTTING_DOWN => {
                from.end()?;
                Ok(Some(link.answer(request, self.host.shutting_down())))
            }
            _ => no_method(method),
        }
    }

    fn notify(&self, method: u8, mut from: Unpacker<'_>) -> Result<(), Garbage> {
        match method {
            method::LOG => {
                let level = u8::unpack(&mut from)?;
                let (target, message, fields) =
                    (RString::unpack(&mut from)?, RString::unpack(&mut from)?, RString::unpack(&mut from)?);
                from.end()?;
                self.log(level, target.as_rstr(), message.as_rstr(), fields.as_rstr());
                Ok(())
            }
            method::PANICKED => {
                let (message, location) = (RString::unpack(&mut from)?, RString::unpack(&mut from)?);
                from.end()?;
                if locked(&self.lines).pass(Instant::now()).is_some() {
                    self.host.panicked(message.as_rstr(), location.as_rstr());
                }
                Ok(())
            }
            _ => no_method(method),
        }
    }
}
