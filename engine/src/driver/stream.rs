//! A byte stream of the data plane: a TCP socket, or TLS over one.
//!
//! Reads and writes never block: `try_` calls answer `None` where they would, and the waits around them are
//! readiness only, so every future here may be dropped without losing a byte that was not yet handed over.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, sockopt};

use super::rt::Source;
use super::tls::Tls;

/// One side of a tunnel or exchange.
pub(crate) enum Stream {
    /// TCP.
    Tcp(Source),
    /// TLS over TCP.
    Tls(Box<Tls>),
}

impl Stream {
    /// Takes a connected, nonblocking socket over and switches Nagle's algorithm off.
    ///
    /// # Errors
    /// When the driver does not take it.
    pub(crate) fn tcp(socket: OwnedFd) -> io::Result<Self> {
        sockopt::set_tcp_nodelay(&socket, true)?;
        Ok(Self::Tcp(Source::new(socket)?))
    }

    /// Connects to `to`; the caller holds the deadline.
    ///
    /// # Errors
    /// Those of connect(2).
    pub(crate) async fn connect(to: SocketAddr) -> io::Result<Self> {
        let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
        sockopt::set_tcp_nodelay(&socket, true)?;
        match rustix::net::connect(&socket, &to) {
            Ok(()) => Ok(Self::Tcp(Source::new(socket)?)),
            Err(Errno::INPROGRESS) => {
                // Registered only now: a socket that does not connect yet would report a hang-up.
                let source = Source::new(socket)?;
                source.writable().await?;
                sockopt::socket_error(&source)??;
                Ok(Self::Tcp(source))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The socket, where bytes can be spliced to and from it.
    pub(crate) fn raw(&self) -> Option<&Source> {
        match self {
            Self::Tcp(source) => Some(source),
            Self::Tls(_) => None,
        }
    }

    /// Waits until `try_read` has something to say.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(source) => source.readable().await,
            Self::Tls(tls) => tls.readable().await,
        }
    }

    /// Waits until `try_write` takes bytes.
    pub(crate) async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(source) => source.writable().await,
            Self::Tls(tls) => tls.source().writable().await,
        }
    }

    /// Reads what is there: `Some(0)` at the end of the stream, `None` when nothing is there yet.
    pub(crate) fn try_read(&self, into: &mut [u8]) -> io::Result<Option<usize>> {
        match self {
            Self::Tcp(source) => {
                would_block(rustix::net::recv(source, into, RecvFlags::empty()).map(|(n, _)| n))
            }
            Self::Tls(tls) => tls.try_read(into),
        }
    }

    /// Whether there is something to read, without reading it: `Some(0)` at the end of the stream.
    pub(crate) fn peek(&self) -> io::Result<Option<usize>> {
        would_block(rustix::net::recv(self, &mut [0; 1], RecvFlags::PEEK).map(|(read, _)| read))
    }

    /// Writes what there is room for; `None` when there is none.
    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<Option<usize>> {
        match self {
            Self::Tcp(source) => would_block(rustix::net::send(source, bytes, SendFlags::NOSIGNAL)),
            Self::Tls(tls) => tls.try_write(bytes),
        }
    }

    /// Writes all of `bytes`. What was written when it is dropped is written.
    pub(crate) async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.try_write(bytes)? {
                Some(written) => bytes = bytes.get(written..).unwrap_or_default(),
                None => self.writable().await?,
            }
        }
        match self {
            Self::Tcp(_) => Ok(()),
            Self::Tls(tls) => tls.flush().await,
        }
    }

    /// Says that no more bytes will come; the other direction goes on.
    pub(crate) async fn finish(&self) {
        if let Self::Tls(tls) = self {
            let _ = tls.close_notify().await;
        }
        // An error here means that the peer is gone, which the other direction finds out by itself.
        let _ = rustix::net::shutdown(self, Shutdown::Write);
    }

    /// Makes the coming close a reset (RFC 9293, 3.10.7.4): the peer learns that the stream was cut.
    pub(crate) fn reset_on_close(&self) {
        let _ = sockopt::set_socket_linger(self, Some(Duration::ZERO));
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(source) => source.as_fd(),
            Self::Tls(tls) => tls.source().as_fd(),
        }
    }
}

/// `None` for EAGAIN; EINTR cannot happen to a nonblocking socket call that has moved nothing.
pub(crate) fn would_block<T>(answer: rustix::io::Result<T>) -> io::Result<Option<T>> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(Errno::AGAIN) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
