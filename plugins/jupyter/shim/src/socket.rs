//! Where a kernel listens, and a connection to one of its sockets: a Unix socket or, for kernels that know no other,
//! TCP on this machine.
//!
//! Promises: what is connected is another process, never our own end; an attempt ends within [`ATTEMPT`].

use std::io::{self, IoSlice, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::channel::Name;
use crate::protocol::Transport;

/// Name of a kernel's address in its folder; ZeroMQ puts `-<port>` behind it.
const NAME: &str = "s";
/// Sockets of a kernel: the channels and the heartbeat.
const SOCKETS: usize = 5;
/// Longest attempt to connect. This machine answers at once, unless the kernel's queue is full of strangers.
const ATTEMPT: Duration = Duration::from_millis(100);

/// Where a kernel listens, as its connection file says.
#[derive(Debug)]
pub(crate) enum Address {
    /// The path that `-<port>` follows.
    Ipc(PathBuf),
    /// Ports on 127.0.0.1: those of the channels by number, then the heartbeat's.
    Tcp([u16; SOCKETS]),
}

/// A connection to a kernel.
#[derive(Debug)]
pub(crate) enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Address {
    /// An address for a kernel whose folder is `folder`. Ports are free now; somebody else may still take one.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn new(transport: Transport, folder: &Path) -> io::Result<Self> {
        match transport {
            Transport::Ipc => Ok(Self::Ipc(folder.join(NAME))),
            Transport::Tcp => {
                let mut ports = [0; SOCKETS];
                // All are held until the last is found, so that none comes twice.
                let mut held = Vec::with_capacity(SOCKETS);
                for port in &mut ports {
                    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
                    *port = listener.local_addr()?.port();
                    held.push(listener);
                }
                Ok(Self::Tcp(ports))
            }
        }
    }

    /// `transport`, `ip` and the ports, in a connection file.
    ///
    /// # Errors
    /// When the path is no text.
    pub(crate) fn parts(&self) -> io::Result<(&'static str, String, [u16; SOCKETS])> {
        match self {
            Self::Ipc(path) => {
                let path =
                    path.to_str().ok_or_else(|| io::Error::other("the kernel's folder is not UTF-8"))?;
                Ok(("ipc", path.to_owned(), [1, 2, 3, 4, 5]))
            }
            Self::Tcp(ports) => Ok(("tcp", Ipv4Addr::LOCALHOST.to_string(), *ports)),
        }
    }

    /// A connection to the channel `name`; none if nobody listens there yet.
    ///
    /// # Errors
    /// The system's, but for "not there yet".
    pub(crate) fn connect(&self, name: Name) -> io::Result<Option<Socket>> {
        let connected = match self {
            Self::Ipc(path) => {
                let mut path = path.as_os_str().to_owned();
                path.push(format!("-{}", name as u8 + 1));
                UnixStream::connect(Path::new(&path)).map(|stream| Some(Socket::Unix(stream)))
            }
            Self::Tcp(ports) => tcp(ports.get(usize::from(name as u8)).copied().unwrap_or_default())
                .map(|stream| stream.map(Socket::Tcp)),
        };
        let socket = match connected {
            Ok(Some(socket)) => socket,
            Ok(None) => return Ok(None),
            Err(error) => {
                let later =
                    [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused, io::ErrorKind::TimedOut];
                return if later.contains(&error.kind()) { Ok(None) } else { Err(error) };
            }
        };
        match &socket {
            Socket::Unix(stream) => stream.set_nonblocking(true)?,
            Socket::Tcp(stream) => {
                stream.set_nonblocking(true)?;
                stream.set_nodelay(true)?;
            }
        }
        Ok(Some(socket))
    }
}

/// A connection to `port`; none if we met ourselves. While nobody listens, one attempt in some 28,000 leaves from the
/// very port it goes to, and TCP connects the two.
fn tcp(port: u16) -> io::Result<Option<TcpStream>> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let stream = TcpStream::connect_timeout(&address, ATTEMPT)?;
    if stream.local_addr()? == address {
        // Let go of the port at once: the kernel is about to listen there.
        rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?;
        return Ok(None);
    }
    Ok(Some(stream))
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(stream) => stream.as_fd(),
            Self::Tcp(stream) => stream.as_fd(),
        }
    }
}

impl Read for &Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Unix(stream) => (&mut &*stream).read(buffer),
            Socket::Tcp(stream) => (&mut &*stream).read(buffer),
        }
    }
}

impl Write for &Socket {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(buffer)])
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Socket::Unix(stream) => (&mut &*stream).write_vectored(pieces),
            Socket::Tcp(stream) => (&mut &*stream).write_vectored(pieces),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_nobody_listens_on_is_not_there_yet_and_five_are_five() {
        let address = Address::new(Transport::Tcp, Path::new("/")).unwrap();
        let (transport, ip, mut ports) = address.parts().unwrap();
        assert_eq!((transport, ip.as_str()), ("tcp", "127.0.0.1"));
        assert!(address.connect(Name::Control).unwrap().is_none());
        let listener = TcpListener::bind((ip.as_str(), ports[3])).unwrap();
        let mut ours = &address.connect(Name::Control).unwrap().unwrap();
        let mut theirs = listener.accept().unwrap().0;
        ours.write_all(b"x").unwrap();
        theirs.read_exact(&mut [0]).unwrap();
        assert_eq!(ours.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        ports.sort_unstable();
        assert!(ports.windows(2).all(|pair| pair[0] < pair[1]));
    }

    /// Every port a kernel was given is still free for it, however often it was knocked at.
    #[test]
    fn who_meets_itself_lets_go() {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let socket =
            rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None)
                .unwrap();
        rustix::net::bind(&socket, &port).unwrap();
        rustix::net::connect(&socket, &port).unwrap();
        let stream = TcpStream::from(socket);
        assert_eq!(stream.local_addr().unwrap(), stream.peer_addr().unwrap());
        rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
        drop(stream);
        // Nothing of it lingers, even for a kernel that does not ask to share the address.
        let again =
            rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None)
                .unwrap();
        rustix::net::bind(&again, &port).unwrap();
    }
}
