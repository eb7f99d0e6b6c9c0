//! Signals as bytes in pipes, to be waited for by poll(2) beside everything else.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// The signals that a main thread waits for; from here on they no longer end the process.
#[derive(Debug)]
pub struct Signals {
    stop: UnixStream,
    interrupt: UnixStream,
    hangup: UnixStream,
}

/// How many of each have arrived since the last look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Arrived {
    /// SIGTERM.
    pub terminate: usize,
    /// SIGINT.
    pub interrupt: usize,
    /// SIGHUP.
    pub hangup: usize,
}

impl Signals {
    /// Takes SIGTERM, SIGINT and SIGHUP over.
    ///
    /// # Errors
    /// When a pipe or handler cannot be had.
    pub fn take_over() -> io::Result<Self> {
        Ok(Self { stop: piped(SIGTERM)?, interrupt: piped(SIGINT)?, hangup: piped(SIGHUP)? })
    }

    /// What to poll for readability.
    pub fn fds(&self) -> [BorrowedFd<'_>; 3] {
        [self.stop.as_fd(), self.interrupt.as_fd(), self.hangup.as_fd()]
    }

    /// What has arrived; never waits.
    pub fn arrived(&self) -> Arrived {
        Arrived {
            terminate: drain(&self.stop),
            interrupt: drain(&self.interrupt),
            hangup: drain(&self.hangup),
        }
    }
}

fn piped(signal: i32) -> io::Result<UnixStream> {
    let (ours, handlers) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    signal_hook::low_level::pipe::register(signal, handlers)?;
    Ok(ours)
}

fn drain(mut pipe: &UnixStream) -> usize {
    let mut count = 0;
    let mut bytes = [0_u8; 64];
    while let Ok(read @ 1..) = pipe.read(&mut bytes) {
        count += read;
    }
    count
}
