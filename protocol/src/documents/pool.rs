//! How many environments stand ready, by kind. One per daemon; only the daemon writes it.

use automerge::transaction::Transactable;
use automerge::{ActorId, AutoCommit, ObjType, ROOT, ReadDoc, ScalarValue};

use super::{Document, Result, json, put_changed};

/// The pool document (frame 0x06). It has no genesis: clients start empty.
pub struct PoolDoc {
    document: AutoCommit,
}

impl Document for PoolDoc {
    fn automerge(&self) -> &AutoCommit {
        &self.document
    }

    fn automerge_mut(&mut self) -> &mut AutoCommit {
        &mut self.document
    }
}

/// One pool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PoolState {
    /// Ready environments.
    pub available: u64,
    /// Environments being made.
    pub warming: u64,
    /// How many should be ready.
    pub pool_size: u64,
    /// Attempts that failed since the last success.
    pub consecutive_failures: u64,
    /// Seconds until the next attempt.
    pub retry_in_secs: u64,
    /// Why the last attempt failed; none when healthy.
    pub error: Option<String>,
    /// The package to blame.
    pub failed_package: Option<String>,
    /// A code.
    pub error_kind: Option<String>,
}

/// The pools every client expects to find.
const KINDS: [&str; 3] = ["uv", "conda", "pixi"];

impl PoolDoc {
    /// A new document with an empty pool of each kind.
    ///
    /// # Errors
    /// None that can happen on a new document.
    pub fn new(actor: &str) -> Result<Self> {
        let mut pool = Self { document: AutoCommit::new().with_actor(ActorId::from(actor.as_bytes())) };
        KINDS.iter().try_for_each(|kind| pool.set(kind, &PoolState::default()))?;
        pool.commit();
        Ok(pool)
    }

    /// Shows the state of one pool; what has not changed is not written.
    ///
    /// # Errors
    /// None that can happen, for nobody else writes this document.
    pub fn set(&mut self, kind: &str, state: &PoolState) -> Result<()> {
        let map = match json::get_object(&self.document, &ROOT, kind, ObjType::Map) {
            Some(map) => map,
            None => self.document.put_object(ROOT, kind, ObjType::Map)?,
        };
        for (key, number) in [
            ("available", state.available),
            ("warming", state.warming),
            ("pool_size", state.pool_size),
            ("consecutive_failures", state.consecutive_failures),
            ("retry_in_secs", state.retry_in_secs),
        ] {
            put_changed(&mut self.document, &map, key, ScalarValue::Uint(number))?;
        }
        for (key, text) in [
            ("error", &state.error),
            ("failed_package", &state.failed_package),
            ("error_kind", &state.error_kind),
        ] {
            match text {
                Some(text) => put_changed(&mut self.document, &map, key, text.as_str())?,
                None if self.document.get(&map, key)?.is_some() => self.document.delete(&map, key)?,
                None => {}
            }
        }
        Ok(())
    }

    /// Shows that pool no more, or as an empty one if every client expects to find it.
    ///
    /// # Errors
    /// None that can happen, for nobody else writes this document.
    pub fn remove(&mut self, kind: &str) -> Result<()> {
        if KINDS.contains(&kind) {
            return self.set(kind, &PoolState::default());
        }
        if self.document.get(ROOT, kind)?.is_some() {
            self.document.delete(ROOT, kind)?;
        }
        Ok(())
    }
}
