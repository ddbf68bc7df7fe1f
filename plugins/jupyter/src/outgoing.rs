//! What a room says to a shim.
//!
//! For: the [handle](crate::kernel) of a kernel, and the task behind it.
//! Promises: frames arrive in order and whole; one that the socket takes is on its way when [`Outgoing::send`] returns,
//! so that it arrives even if this daemon is killed the next moment; nobody waits for a shim that does not read.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use runtimed_kernel_shim::protocol::{Shutdown, document, to_shim};
use runtimed_plugin_api::Bytes;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::link::{WeakWriter, Writer};

/// The end for whoever speaks. Dropping it ends [`Waiting::write`] as soon as all is written.
pub(crate) struct Outgoing {
    writer: WeakWriter,
    queue: mpsc::UnboundedSender<Bytes>,
    waiting: Arc<Mutex<usize>>,
}

/// What the socket did not take at once.
pub(crate) struct Waiting {
    queue: mpsc::UnboundedReceiver<Bytes>,
    /// Bytes that have to be written before anything else; `usize::MAX` when nothing else is.
    waiting: Arc<Mutex<usize>>,
}

/// Nobody writes any more.
pub(crate) struct Closed;

/// Both ends, over this writer. Dropping [`Waiting`] closes them.
pub(crate) fn outgoing(writer: &Writer) -> (Outgoing, Waiting) {
    let (sender, queue) = mpsc::unbounded_channel();
    let waiting = Arc::default();
    let outgoing = Outgoing { writer: writer.downgrade(), queue: sender, waiting: Arc::clone(&waiting) };
    (outgoing, Waiting { queue, waiting })
}

impl Outgoing {
    /// Says a frame.
    ///
    /// # Errors
    /// When nobody writes any more.
    pub(crate) fn send(&self, mut frame: Bytes) -> Result<(), Closed> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if *waiting == 0
            && let Some(writer) = self.writer.upgrade()
        {
            // What is wrong with the socket finds out who writes the rest, or who reads.
            let written = writer.write_now(&frame).unwrap_or(0);
            let _ = frame.split_to(written);
            if frame.is_empty() {
                return Ok(());
            }
        }
        *waiting = waiting.saturating_add(frame.len());
        self.queue.send(frame).map_err(|_| Closed)
    }

    /// Waits until nobody writes any more.
    pub(crate) async fn closed(&self) {
        self.queue.closed().await;
    }
}

impl Waiting {
    /// Writes what waits until [`Outgoing`] is dropped; when `end` fires, that the kernel must end, and then nothing.
    pub(crate) async fn write(&mut self, writer: &Writer, end: CancellationToken) {
        if self.try_write(writer, end).await.is_err() {
            // The reader finds out why.
            std::future::pending::<()>().await;
        }
    }

    async fn try_write(&mut self, writer: &Writer, end: CancellationToken) -> io::Result<()> {
        loop {
            tokio::select! {
                // A handle that was dropped before the stop has let go of its kernel.
                biased;
                frame = self.queue.recv() => match frame {
                    Some(frame) => {
                        writer.send(&frame).await?;
                        self.change(|waiting| *waiting -= frame.len());
                    }
                    None => return Ok(()),
                },
                () = end.cancelled() => {
                    self.change(|waiting| *waiting = usize::MAX);
                    // What came meanwhile and is not written is of no use to a kernel that ends.
                    writer.send(&document(to_shim::SHUTDOWN, &Shutdown { grace_ms: 0 })).await?;
                    return std::future::pending().await;
                }
            }
        }
    }

    fn change(&self, change: impl FnOnce(&mut usize)) {
        change(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::Link;
    use tokio::io::AsyncReadExt;
    use tokio::net::UnixStream;

    /// More than a Unix socket holds.
    const LARGE: usize = 4 << 20;

    #[tokio::test]
    async fn a_frame_is_on_its_way_before_any_task_ran() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let Link { writer, .. } = Link::new(ours);
        writer.send(b"hello").await.unwrap();
        let (outgoing, _waiting) = outgoing(&writer);
        assert!(outgoing.send(Bytes::from_static(b", shim")).is_ok());
        let mut said = [0; 32];
        let read = io::Read::read(&mut theirs.into_std().unwrap(), &mut said).unwrap();
        assert_eq!(&said[..read], b"hello, shim");
    }

    #[tokio::test]
    async fn frames_that_the_socket_does_not_take_follow_in_order() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let Link { writer, .. } = Link::new(ours);
        let (outgoing, mut waiting) = outgoing(&writer);
        for byte in 0..4 {
            assert!(outgoing.send(Bytes::from(vec![byte; LARGE])).is_ok());
        }
        let said = async {
            let mut said = vec![0; 4 * LARGE + 1];
            theirs.read_exact(&mut said[..4 * LARGE]).await.unwrap();
            // Nothing waits now, so this one is written at once.
            assert!(outgoing.send(Bytes::from_static(&[4])).is_ok());
            theirs.read_exact(&mut said[4 * LARGE..]).await.unwrap();
            drop(outgoing);
            said
        };
        let (said, ()) = tokio::join!(said, waiting.write(&writer, CancellationToken::new()));
        assert!(said.chunk_by(PartialEq::eq).map(<[u8]>::len).eq([LARGE, LARGE, LARGE, LARGE, 1]));
        assert!(said.is_sorted());
    }

    #[tokio::test]
    async fn nothing_follows_the_end() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let Link { writer, reader } = Link::new(ours);
        let (outgoing, mut waiting) = outgoing(&writer);
        let end = CancellationToken::new();
        end.cancel();
        let shutdown = document(to_shim::SHUTDOWN, &Shutdown { grace_ms: 0 });
        let mut said = vec![0; shutdown.len()];
        tokio::select! {
            () = waiting.write(&writer, end) => panic!("it goes on until it is dropped"),
            read = theirs.read_exact(&mut said) => assert_eq!(read.unwrap(), said.len()),
        }
        assert_eq!(said, shutdown);
        assert!(outgoing.send(Bytes::from_static(b"too late")).is_ok(), "nobody waits for it");
        drop((writer, reader));
        assert_eq!(theirs.read(&mut said).await.unwrap(), 0, "the handle does not keep the socket open");
    }
}
