//! Bytes that cross without being copied.
//!
//! For: frames, kernel messages and blobs.
//! Promises: crossing costs one small allocation whatever the length; the memory is given back by the
//! side that made it. The receiver turns it into `bytes::Bytes`, which counts references from there on.

use std::panic::{AssertUnwindSafe, catch_unwind};

use abi_stable::StableAbi;

/// A view of immutable memory and the function that gives its owner back.
#[repr(C)]
#[derive(StableAbi)]
pub struct Bytes {
    /// First byte; never null, dangling when `len` is zero.
    start: *const u8,
    /// Length in bytes.
    len: usize,
    /// What keeps the memory alive, in the words of whoever made it.
    owner: *const (),
    /// Ends the owner. Called once, from any thread.
    release: unsafe extern "C" fn(*const ()),
}

// SAFETY: the memory is immutable for as long as the owner lives, the owner is a `bytes::Bytes`, which is
// Send, and `release` only drops it.
unsafe impl Send for Bytes {}
// SAFETY: shared access only reads immutable memory.
unsafe impl Sync for Bytes {}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `From<bytes::Bytes>` is the only constructor on either side; it takes start and length
        // from a live slice that the owner keeps until `release`, which runs in `drop` alone.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }
}

impl Drop for Bytes {
    fn drop(&mut self) {
        // SAFETY: `release` and `owner` were made for each other and nobody else calls it.
        unsafe { (self.release)(self.owner) }
    }
}

impl From<bytes::Bytes> for Bytes {
    fn from(bytes: bytes::Bytes) -> Self {
        let (start, len) = (bytes.as_ptr(), bytes.len());
        let owner = Box::into_raw(Box::new(bytes)).cast_const().cast();
        Self { start, len, owner, release }
    }
}

impl From<Bytes> for bytes::Bytes {
    fn from(bytes: Bytes) -> Self {
        Self::from_owner(bytes)
    }
}

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bytes({} bytes)", self.len)
    }
}

/// Gives the memory back.
///
/// # Safety
/// `owner` must come from `From<bytes::Bytes>` above and must not be used again.
unsafe extern "C" fn release(owner: *const ()) {
    // SAFETY: the caller passes the pointer that `Box::into_raw` gave, once.
    let bytes = unsafe { Box::from_raw(owner.cast_mut().cast::<bytes::Bytes>()) };
    // The memory may belong to a type whose destructor panics, and nothing may unwind into the other side.
    // The panic's payload is forgotten, because its destructor may panic again.
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(bytes))) {
        std::mem::forget(payload);
    }
}

#[cfg(test)]
mod tests {
    use super::Bytes;

    #[test]
    fn crossing_copies_nothing_and_gives_the_memory_back() {
        struct Owner(Vec<u8>, std::sync::mpsc::Sender<()>);
        impl AsRef<[u8]> for Owner {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }
        impl Drop for Owner {
            fn drop(&mut self) {
                let _ = self.1.send(());
            }
        }
        let (gone, dropped) = std::sync::mpsc::channel();
        let sent = bytes::Bytes::from_owner(Owner(vec![7; 100_000], gone));
        let start = sent.as_ptr();
        let received = bytes::Bytes::from(Bytes::from(sent));
        assert_eq!((received.as_ptr(), received.len()), (start, 100_000));
        let part = received.slice(10..20);
        drop(received);
        assert!(dropped.try_recv().is_err(), "a slice still needs the memory");
        drop(part);
        dropped.try_recv().unwrap();
    }

    #[test]
    #[allow(clippy::panic, reason = "the owner misbehaves on purpose")]
    fn an_owner_that_panics_when_it_goes_ends_nobody() {
        struct Owner;
        impl AsRef<[u8]> for Owner {
            fn as_ref(&self) -> &[u8] {
                &[1, 2]
            }
        }
        impl Drop for Owner {
            fn drop(&mut self) {
                panic!("a destructor that panics");
            }
        }
        let received = bytes::Bytes::from(Bytes::from(bytes::Bytes::from_owner(Owner)));
        assert_eq!(received[..], [1, 2]);
        drop(received);
    }

    #[test]
    fn nothing_crosses_as_nothing() {
        assert!(bytes::Bytes::from(Bytes::from(bytes::Bytes::new())).is_empty());
    }
}
