//! One socket of the kernel.
//!
//! Promises: never waits; a lost connection is an end, never a silent reconnect.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};

use bytes::Bytes;

use crate::outbox::Outbox;
use crate::socket::{Address, Socket};
use crate::zmtp::{Connection, Role};

/// The channels of a kernel, in the order of their numbers on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Name {
    Shell = 0,
    Iopub = 1,
    Stdin = 2,
    Control = 3,
}

impl Name {
    /// IOPub first: it is the one that floods.
    pub(crate) const ALL: [Self; 4] = [Self::Iopub, Self::Shell, Self::Stdin, Self::Control];

    /// The channel with this number.
    pub(crate) fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|name| *name as u8 == number)
    }
}

/// A channel, from before its socket is there until the kernel has closed it.
pub(crate) struct Channel {
    pub(crate) name: Name,
    link: Link,
}

enum Link {
    /// The kernel does not listen yet.
    Awaited,
    Open {
        socket: Socket,
        connection: Box<Connection>,
        out: Outbox,
    },
    Closed,
}

impl Channel {
    /// The channel `name`.
    pub(crate) fn new(name: Name) -> Self {
        Self { name, link: Link::Awaited }
    }

    pub(crate) fn is_awaited(&self) -> bool {
        matches!(self.link, Link::Awaited)
    }

    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.link, Link::Closed)
    }

    /// Connects if a kernel listens at `address` by now. `session` is who we are on all channels: the kernel answers
    /// on stdin whoever asked on shell.
    ///
    /// # Errors
    /// The system's, but for "not there yet".
    pub(crate) fn connect(&mut self, address: &Address, session: &str) -> io::Result<()> {
        let Some(socket) = address.connect(self.name)? else { return Ok(()) };
        let mut out = Outbox::default();
        let role = match self.name {
            Name::Iopub => Role::Subscriber,
            Name::Shell | Name::Stdin | Name::Control => Role::Dealer { identity: session },
        };
        let connection = Box::new(Connection::new(role, &mut out));
        out.write_to(&socket)?;
        self.link = Link::Open { socket, connection, out };
        Ok(())
    }

    /// What to watch, and whether for writing, too.
    pub(crate) fn socket(&self) -> Option<(BorrowedFd<'_>, bool)> {
        match &self.link {
            Link::Open { socket, out, .. } => Some((socket.as_fd(), !out.is_empty())),
            Link::Awaited | Link::Closed => None,
        }
    }

    /// Reads once, by way of `piece`; false when there was nothing to read now.
    pub(crate) fn read(&mut self, piece: &mut [u8]) -> bool {
        let Link::Open { socket, connection, .. } = &mut self.link else { return false };
        match (&*socket).read(piece) {
            Ok(length @ 1..) => {
                connection.received(piece.get(..length).unwrap_or_default());
                true
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => true,
            // A kernel that died with our bytes unread resets the connection: for us that is the end.
            Ok(_) | Err(_) => {
                self.link = Link::Closed;
                false
            }
        }
    }

    /// The next whole message that was read.
    ///
    /// # Errors
    /// `InvalidData` when the kernel does not speak ZMTP; the channel is closed then.
    pub(crate) fn next_message(&mut self) -> io::Result<Option<Vec<Bytes>>> {
        let Link::Open { connection, out, .. } = &mut self.link else { return Ok(None) };
        let message = connection.next_message(out);
        if message.is_err() {
            self.link = Link::Closed;
        }
        message
    }

    /// Sends a message as soon as the kernel takes it.
    pub(crate) fn send(&mut self, frames: &[Bytes]) {
        if let Link::Open { connection, out, .. } = &mut self.link {
            connection.send(frames, out);
            self.flush();
        }
    }

    /// Writes what the kernel takes now.
    pub(crate) fn flush(&mut self) {
        if let Link::Open { socket, out, .. } = &mut self.link
            && out.write_to(&*socket).is_err()
        {
            // What the kernel said before it closed is still to be read.
            *out = Outbox::default();
        }
    }
}
