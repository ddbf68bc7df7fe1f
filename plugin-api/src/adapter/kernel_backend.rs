//! `kernel-backend.v1`, both ways: backends, kernels and the events they send.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use runtimed_plugin_abi as abi;
use runtimed_plugin_abi::{Outcome, RString, Reply, TD_Opaque};

use super::Side;
use super::convert::{document, json, outcome, parse, result};
use super::served::Served;
use crate::{
    Channel, ExitReport, Kernel, KernelBackend, KernelEvents, KernelInfo, KernelKind, KernelRecord,
    LaunchSpec, PluginError, Result, Sequence,
};

pub(super) fn serve_kernel_backend(backend: Arc<dyn KernelBackend>, side: &Side) -> abi::KernelBackendObject {
    abi::KernelBackend_TO::from_value(Served::new(backend, side), TD_Opaque)
}

impl abi::KernelBackend for Served<dyn KernelBackend> {
    fn kinds(&self) -> Reply {
        self.reply(|it| async move { it.kinds().await })
    }

    fn launch(&self, spec: RString, events: abi::KernelEventsObject) -> Reply<abi::KernelObject> {
        let side = self.side().clone();
        self.answer(|it| async move {
            Ok(serve_kernel(it.launch(parse(&spec)?, remote_events(events)).await?, &side))
        })
    }

    fn running(&self) -> Reply {
        self.reply(|it| async move { it.running().await })
    }

    fn attach(
        &self,
        kernel: RString,
        after: u64,
        events: abi::KernelEventsObject,
    ) -> Reply<abi::KernelObject> {
        let side = self.side().clone();
        self.answer(|it| async move {
            Ok(serve_kernel(it.attach(&kernel, after, remote_events(events)).await?, &side))
        })
    }

    fn adopt(
        &self,
        warm: RString,
        spec: RString,
        events: abi::KernelEventsObject,
    ) -> Reply<abi::KernelObject> {
        let side = self.side().clone();
        self.answer(|it| async move {
            Ok(serve_kernel(it.adopt(&warm, parse(&spec)?, remote_events(events)).await?, &side))
        })
    }
}

pub(super) fn remote_kernel_backend(object: abi::KernelBackendObject, side: &Side) -> Arc<dyn KernelBackend> {
    Arc::new(RemoteKernelBackend { object, side: side.clone() })
}

struct RemoteKernelBackend {
    object: abi::KernelBackendObject,
    side: Side,
}

#[async_trait]
impl KernelBackend for RemoteKernelBackend {
    async fn kinds(&self) -> Result<Vec<KernelKind>> {
        document(self.object.kinds()).await
    }

    async fn launch(&self, spec: LaunchSpec, events: Arc<dyn KernelEvents>) -> Result<Box<dyn Kernel>> {
        let events = serve_events(events, &self.side);
        remote_kernel(result(self.object.launch(json(&spec)?, events).await)?)
    }

    async fn running(&self) -> Result<Vec<KernelRecord>> {
        document(self.object.running()).await
    }

    async fn attach(
        &self,
        kernel: &str,
        after: Sequence,
        events: Arc<dyn KernelEvents>,
    ) -> Result<Box<dyn Kernel>> {
        let events = serve_events(events, &self.side);
        remote_kernel(result(self.object.attach(kernel.into(), after, events).await)?)
    }

    async fn adopt(
        &self,
        warm: &str,
        spec: LaunchSpec,
        events: Arc<dyn KernelEvents>,
    ) -> Result<Box<dyn Kernel>> {
        let events = serve_events(events, &self.side);
        remote_kernel(result(self.object.adopt(warm.into(), json(&spec)?, events).await)?)
    }
}

fn serve_kernel(kernel: Box<dyn Kernel>, side: &Side) -> abi::KernelObject {
    abi::Kernel_TO::from_value(Served::<dyn Kernel>::new(Arc::from(kernel), side), TD_Opaque)
}

impl abi::Kernel for Served<dyn Kernel> {
    fn info(&self) -> RString {
        self.document(|it| it.info())
    }

    fn send(&self, channel: u8, message: abi::Bytes) -> Outcome<()> {
        let gone = || Err(PluginError::internal("the message was lost: sending it panicked"));
        outcome(self.call(gone, |it| it.send(self::channel(channel)?, message.into())))
    }

    fn acknowledge(&self, up_to: u64) {
        self.call(|| (), |it| it.acknowledge(up_to));
    }

    fn interrupt(&self) -> Reply {
        self.reply(|it| async move { it.interrupt().await })
    }

    fn shutdown(&self, grace_ms: u64) -> Reply {
        self.reply(move |it| async move { it.shutdown(Duration::from_millis(grace_ms)).await })
    }
}

fn remote_kernel(object: abi::KernelObject) -> Result<Box<dyn Kernel>> {
    let info = parse(&object.info())?;
    Ok(Box::new(RemoteKernel { object, info }))
}

struct RemoteKernel {
    object: abi::KernelObject,
    info: KernelInfo,
}

#[async_trait]
impl Kernel for RemoteKernel {
    fn info(&self) -> KernelInfo {
        self.info.clone()
    }

    fn send(&self, channel: Channel, message: Bytes) -> Result<()> {
        result(self.object.send(channel as u8, message.into()))
    }

    fn acknowledge(&self, up_to: Sequence) {
        self.object.acknowledge(up_to);
    }

    async fn interrupt(&self) -> Result<()> {
        document(self.object.interrupt()).await
    }

    async fn shutdown(&self, grace: Duration) -> Result<ExitReport> {
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        document(self.object.shutdown(grace_ms)).await
    }
}

fn serve_events(events: Arc<dyn KernelEvents>, side: &Side) -> abi::KernelEventsObject {
    abi::KernelEvents_TO::from_value(Served::new(events, side), TD_Opaque)
}

impl abi::KernelEvents for Served<dyn KernelEvents> {
    fn message(&self, sequence: u64, channel: u8, message: abi::Bytes) {
        self.call(
            || (),
            |it| match self::channel(channel) {
                Ok(channel) => it.message(sequence, channel, message.into()),
                Err(error) => tracing::warn!(sequence, "a kernel message was dropped: {error}"),
            },
        );
    }

    fn exited(&self, report: RString) {
        self.call(|| (), |it| it.exited(parse(&report).unwrap_or_default()));
    }
}

fn remote_events(object: abi::KernelEventsObject) -> Arc<dyn KernelEvents> {
    Arc::new(RemoteEvents(object))
}

struct RemoteEvents(abi::KernelEventsObject);

impl KernelEvents for RemoteEvents {
    fn message(&self, sequence: Sequence, channel: Channel, message: Bytes) {
        self.0.message(sequence, channel as u8, message.into());
    }

    fn exited(&self, report: ExitReport) {
        self.0.exited(json(&report).unwrap_or_default());
    }
}

fn channel(number: u8) -> Result<Channel> {
    Channel::from_number(number)
        .ok_or_else(|| PluginError::invalid(format!("there is no Jupyter channel {number}")))
}
