//! The host's services, both ways.

use std::future::pending;
use std::sync::Arc;

use async_trait::async_trait;
use runtimed_plugin_abi as abi;
use runtimed_plugin_abi::{RNone, ROption, RStr, RString, Reply, TD_Opaque};

use super::Side;
use super::blob_store::{remote_blob_store, serve_blob_store};
use super::convert::{cut, document, json, parse};
use super::environments::{remote_environments, serve_environments};
use super::kernel_backend::{remote_kernel_backend, serve_kernel_backend};
use super::progress::{remote_lines, serve_lines};
use super::served::Served;
use super::side::OnPanic;
use crate::{
    BlobStore, Directories, Environments, HostServices, KernelBackend, ProcessExit, ProcessLines,
    ProcessSpec, Result, SettingsView,
};

pub(super) fn serve_host(
    host: Arc<dyn HostServices>,
    side: &Side,
    on_panic: OnPanic,
) -> abi::HostServicesObject {
    abi::HostServices_TO::from_value(ServedHost { host: Served::new(host, side), on_panic }, TD_Opaque)
}

struct ServedHost {
    host: Served<dyn HostServices>,
    on_panic: OnPanic,
}

impl abi::HostServices for ServedHost {
    fn log_enabled(&self, level: u8, target: RStr<'_>) -> bool {
        self.host.call(|| false, |it| it.log_enabled(level, target.as_str()))
    }

    fn log(&self, level: u8, target: RStr<'_>, message: RStr<'_>, fields: RStr<'_>) {
        self.host.call(|| (), |it| it.log(level, target.as_str(), message.as_str(), fields.as_str()));
    }

    fn panicked(&self, message: RStr<'_>, location: RStr<'_>) {
        self.host.call(|| (), |_| (self.on_panic)(&cut(&message), &cut(&location)));
    }

    fn directories(&self) -> RString {
        self.host.document(|it| it.directories())
    }

    fn settings(&self) -> RString {
        self.host.document(|it| it.settings())
    }

    fn settings_changed(&self, revision: u64) -> Reply {
        self.host.reply(move |it| async move { Ok(it.settings_changed(revision).await) })
    }

    fn blob_store(&self) -> ROption<abi::BlobStoreObject> {
        let side = self.host.side().passing();
        self.host.call(|| RNone, |it| it.blob_store().map(|store| serve_blob_store(store, &side)).into())
    }

    fn kernel_backend(&self, kind: RStr<'_>) -> ROption<abi::KernelBackendObject> {
        let side = self.host.side().passing();
        self.host.call(
            || RNone,
            |it| it.kernel_backend(kind.as_str()).map(|backend| serve_kernel_backend(backend, &side)).into(),
        )
    }

    fn environments(&self) -> ROption<abi::EnvironmentsObject> {
        let side = self.host.side();
        self.host
            .call(|| RNone, |it| it.environments().map(|service| serve_environments(service, side)).into())
    }

    fn run_process(&self, spec: RString, lines: abi::ProcessLinesObject) -> Reply {
        self.host.reply(|it| async move { it.run_process(parse(&spec)?, remote_lines(lines)).await })
    }

    fn shutting_down(&self) -> Reply {
        self.host.reply(|it| async move {
            it.shutting_down().await;
            Ok(())
        })
    }
}

/// The host as a plugin sees it.
pub(crate) struct RemoteHost {
    object: Arc<abi::HostServicesObject>,
    side: Side,
    directories: Directories,
}

impl RemoteHost {
    /// Fails if the host does not say where things belong.
    pub(crate) fn new(object: Arc<abi::HostServicesObject>, side: &Side) -> Result<Self> {
        let directories = parse(&object.directories())?;
        Ok(Self { object, side: side.clone(), directories })
    }
}

#[async_trait]
impl HostServices for RemoteHost {
    fn log_enabled(&self, level: u8, target: &str) -> bool {
        self.object.log_enabled(level, target.into())
    }

    fn log(&self, level: u8, target: &str, message: &str, fields: &str) {
        self.object.log(level, target.into(), message.into(), fields.into());
    }

    fn directories(&self) -> Directories {
        self.directories.clone()
    }

    fn settings(&self) -> SettingsView {
        parse(&self.object.settings()).unwrap_or_default()
    }

    async fn settings_changed(&self, revision: u64) -> SettingsView {
        match document(self.object.settings_changed(revision)).await {
            Ok(settings) => settings,
            // A host that cannot say will not have newer ones.
            Err(_) => pending().await,
        }
    }

    fn blob_store(&self) -> Option<Arc<dyn BlobStore>> {
        self.object.blob_store().into_option().map(remote_blob_store)
    }

    fn kernel_backend(&self, kind: &str) -> Option<Arc<dyn KernelBackend>> {
        let backend = self.object.kernel_backend(kind.into()).into_option();
        backend.map(|backend| remote_kernel_backend(backend, &self.side))
    }

    fn environments(&self) -> Option<Arc<dyn Environments>> {
        self.object.environments().into_option().map(|service| remote_environments(service, &self.side))
    }

    async fn run_process(&self, spec: ProcessSpec, lines: Arc<dyn ProcessLines>) -> Result<ProcessExit> {
        let lines = serve_lines(lines, &self.side);
        document(self.object.run_process(json(&spec)?, lines)).await
    }

    async fn shutting_down(&self) {
        // An error means that the host is going away, which is the same news.
        let _ = document::<()>(self.object.shutting_down()).await;
    }
}
