//! Names of things, and where new ones come from.
//!
//! For: telling a peer from an execution at compile time, and drawing fresh ids without hidden randomness.
//! Promises: ids drawn from one source never repeat; the same seed draws the same ids.
//! Never: reads a clock or the system's random source after the seed.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use uuid::Uuid;

/// One live connection taking part in a room. Also its name in presence messages.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PeerId(pub(crate) Uuid);

/// One attempt at having a kernel, from acquiring an environment to the kernel's end.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LaunchId(pub(crate) Uuid);

/// One slow effect whose end comes back as an event.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct JobId(pub(crate) u64);

/// One run of a cell's source. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ExecutionId(Arc<str>);

impl From<&str> for ExecutionId {
    fn from(id: &str) -> Self {
        Self(id.into())
    }
}

impl Deref for ExecutionId {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for ExecutionId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ExecutionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for ExecutionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "peer {}", self.0)
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for LaunchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "launch {}", self.0)
    }
}

/// A source of fresh ids: SHA-256 over a seed and a counter.
pub(crate) struct Ids {
    seed: [u8; 16],
    drawn: u64,
}

impl Ids {
    /// A source nobody else draws from.
    pub(crate) fn random() -> Self {
        Self { seed: Uuid::new_v4().into_bytes(), drawn: 0 }
    }

    /// A source that draws the same ids every time, for tests.
    #[cfg(test)]
    pub(crate) fn seeded(seed: u64) -> Self {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&seed.to_be_bytes());
        Self { seed: bytes, drawn: 0 }
    }

    /// A fresh version 4 UUID.
    pub(crate) fn uuid(&mut self) -> Uuid {
        self.drawn += 1;
        let hash = Sha256::new().chain_update(self.seed).chain_update(self.drawn.to_be_bytes()).finalize();
        let mut bytes = [0; 16];
        bytes.iter_mut().zip(hash).for_each(|(byte, random)| *byte = random);
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }

    /// A fresh execution id.
    pub(crate) fn execution(&mut self) -> ExecutionId {
        ExecutionId(self.uuid().to_string().into())
    }

    /// A fresh launch id; it is also the kernel's UUID.
    pub(crate) fn launch(&mut self) -> LaunchId {
        LaunchId(self.uuid())
    }

    /// A fresh job number.
    pub(crate) fn job(&mut self) -> JobId {
        self.drawn += 1;
        JobId(self.drawn)
    }
}
