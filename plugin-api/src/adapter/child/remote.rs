//! What stubs are made of.

use std::sync::Mutex;

use runtimed_plugin_abi::{Outcome, RResult, Reply};

use super::link::{InUse, Link};
use super::locked;
use super::value::{Pack, Packer, Unpack, Unpacker};
use super::wire::{Garbage, ObjectId};

/// An object of the other end. Dropping it releases the object.
pub(super) struct Remote {
    link: Link,
    object: ObjectId,
}

impl Remote {
    pub(super) fn link(&self) -> &Link {
        &self.link
    }

    pub(super) fn object(&self) -> ObjectId {
        self.object
    }

    /// A method that answers. It has begun when this returns.
    pub(super) fn call<T: Unpack + Send + 'static>(
        &self,
        method: u8,
        arguments: impl FnOnce(&mut Packer<'_>),
    ) -> Reply<T> {
        self.link.call(self.object, method, arguments)
    }

    /// A method that the other end answers at once; none if it is gone. Blocks for the way there and back.
    pub(super) fn ask<T: Unpack + Send + 'static>(
        &self,
        method: u8,
        arguments: impl FnOnce(&mut Packer<'_>),
    ) -> Option<T> {
        self.link.ask(self.object, method, arguments)
    }

    /// A method that does not answer. An error says that it did not even begin.
    pub(super) fn send(&self, method: u8, arguments: impl FnOnce(&mut Packer<'_>)) -> Outcome<()> {
        match self.link.notify(self.object, method, arguments) {
            Ok(()) => RResult::ROk(()),
            Err(failure) => RResult::RErr(failure),
        }
    }

    /// The same for who has no use for the error.
    pub(super) fn notify(&self, method: u8, arguments: impl FnOnce(&mut Packer<'_>)) {
        if let RResult::RErr(failure) = self.send(method, arguments) {
            self.link.complain(&format!("a message was lost: {}", failure.message));
        }
    }

    /// A method that does not answer and may be left out when too much waits.
    pub(super) fn notify_lossy(&self, method: u8, arguments: impl FnOnce(&mut Packer<'_>)) {
        self.link.notify_lossy(self.object, method, arguments);
    }
}

impl Unpack for Remote {
    fn unpack(from: &mut Unpacker<'_>) -> Result<Self, Garbage> {
        Ok(Self { object: ObjectId::unpack(from)?, link: from.link.clone() })
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.link.release(self.object);
    }
}

/// Something that is handed on once.
pub(super) struct Once<T>(Mutex<Option<T>>);

impl<T> Once<T> {
    pub(super) fn new(value: T) -> Self {
        Self(Mutex::new(Some(value)))
    }

    pub(super) fn take(&self) -> Option<T> {
        locked(&self.0).take()
    }
}

impl<T: Pack> Pack for Once<T> {
    fn pack(self, to: &mut Packer<'_>) {
        if let Some(value) = self.take() {
            value.pack(to);
        }
    }
}

impl<T: Unpack> Unpack for Once<T> {
    fn unpack(from: &mut Unpacker<'_>) -> Result<Self, Garbage> {
        Ok(Self::new(T::unpack(from)?))
    }
}

/// The process of an object is needed for as long as the other end holds the object. Nothing of it crosses.
#[derive(Default)]
pub(super) struct Needed(#[expect(dead_code, reason = "counts by being there")] Option<InUse>);

impl Pack for Needed {
    fn pack(self, _: &mut Packer<'_>) {}
}

impl Unpack for Needed {
    fn unpack(from: &mut Unpacker<'_>) -> Result<Self, Garbage> {
        Ok(Self(Some(from.link.in_use())))
    }
}

/// There is no such method.
pub(super) fn no_method<T>(method: u8) -> Result<T, Garbage> {
    Err(Garbage(format!("a call of method {method}, which the contract does not have")))
}
