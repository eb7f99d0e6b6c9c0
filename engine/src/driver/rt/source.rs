//! Readiness of a descriptor on this core's driver.
//!
//! Not a stream: it moves no bytes. On io_uring a wait is one POLL_ADD; on epoll it is an edge, checked by poll(2)
//! because the bytes are moved behind the driver's back. Dropping a wait cancels it; the descriptor is closed when
//! the source is dropped and its last wait has been cancelled.

use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// A nonblocking descriptor that this core waits for. Owns it.
pub(crate) struct Source {
    /// monoio takes any pollable descriptor under this name; nothing of TCP is used.
    inner: monoio::net::TcpStream,
}

impl Source {
    /// Registers `fd`, which must be nonblocking and pollable.
    ///
    /// # Errors
    /// When epoll does not take it (ENOMEM, ENOSPC).
    pub(crate) fn new(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self { inner: monoio::net::TcpStream::from_std(TcpStream::from(fd))? })
    }

    /// Waits until a read would not block: bytes, an end, or an error.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        self.inner.readable(false).await
    }

    /// Waits until a write would not block: room, or an error.
    pub(crate) async fn writable(&self) -> io::Result<()> {
        self.inner.writable(false).await
    }
}

impl AsFd for Source {
    #[expect(unsafe_code, reason = "monoio's stream shows its descriptor only raw")]
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: `inner` owns the descriptor and is not dropped while `self` is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.inner.as_raw_fd()) }
    }
}
