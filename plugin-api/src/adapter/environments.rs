//! The environment service, both ways.

use std::sync::Arc;

use async_trait::async_trait;
use runtimed_plugin_abi as abi;
use runtimed_plugin_abi::{RString, Reply, TD_Opaque};

use super::Side;
use super::convert::{document, json, parse};
use super::progress::{remote_task, serve_task};
use super::served::Served;
use crate::{EnvNeed, Environments, Lease, Release, Result, Task, TrustVerdict};

pub(super) fn serve_environments(service: Arc<dyn Environments>, side: &Side) -> abi::EnvironmentsObject {
    abi::Environments_TO::from_value(Served::new(service, side), TD_Opaque)
}

impl abi::Environments for Served<dyn Environments> {
    fn acquire(&self, need: RString, task: abi::ProgressSinkObject) -> Reply {
        self.reply(|it| async move { it.acquire(parse(&need)?, remote_task(task)).await })
    }

    fn install(&self, lease: RString, packages: RString, task: abi::ProgressSinkObject) -> Reply {
        self.reply(|it| async move { it.install(&lease, parse(&packages)?, remote_task(task)).await })
    }

    fn release(&self, lease: RString, how: RString) -> Reply {
        self.reply(|it| async move { it.release(&lease, parse(&how)?).await })
    }

    fn trust(&self, need: RString) -> Reply {
        self.reply(|it| async move { it.trust(parse(&need)?).await })
    }

    fn approve(&self, need: RString) -> Reply {
        self.reply(|it| async move { it.approve(parse(&need)?).await })
    }
}

pub(super) fn remote_environments(object: abi::EnvironmentsObject, side: &Side) -> Arc<dyn Environments> {
    Arc::new(RemoteEnvironments { object, side: side.clone() })
}

struct RemoteEnvironments {
    object: abi::EnvironmentsObject,
    side: Side,
}

#[async_trait]
impl Environments for RemoteEnvironments {
    async fn acquire(&self, need: EnvNeed, task: Task) -> Result<Lease> {
        document(self.object.acquire(json(&need)?, serve_task(&task, &self.side))).await
    }

    async fn install(&self, lease: &str, packages: Vec<String>, task: Task) -> Result<()> {
        let task = serve_task(&task, &self.side);
        document(self.object.install(lease.into(), json(&packages)?, task)).await
    }

    async fn release(&self, lease: &str, how: Release) -> Result<()> {
        document(self.object.release(lease.into(), json(&how)?)).await
    }

    async fn trust(&self, need: EnvNeed) -> Result<TrustVerdict> {
        document(self.object.trust(json(&need)?)).await
    }

    async fn approve(&self, need: EnvNeed) -> Result<TrustVerdict> {
        document(self.object.approve(json(&need)?)).await
    }
}
