//! The control socket, the client's side: connect, ask, and never wait longer than was said.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use super::folder::Folder;
use super::protocol::{Answer, Request};

/// Bytes of one answer; the largest is a status with its warnings.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A connection to the daemon; requests and answers take turns.
#[derive(Debug)]
pub struct Line {
    stream: UnixStream,
    heard: Vec<u8>,
}

impl Line {
    /// Connects to the socket `name` in `folder`.
    ///
    /// # Errors
    /// When nobody listens there, or does not within the time.
    pub fn connect(folder: &Folder, name: &str, within: Duration) -> io::Result<Self> {
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        // A daemon that is stopped accepts nothing, and a full backlog would hold us for good.
        set_socket_timeout(&socket, Timeout::Send, Some(within))?;
        connect(&socket, &SocketAddrUnix::new(folder.short_path(name))?)?;
        Ok(Self { stream: UnixStream::from(socket), heard: Vec::new() })
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// `TimedOut` when it does not come in time, `UnexpectedEof` when the daemon ends instead, `InvalidData` when
    /// it is none.
    pub fn ask(&mut self, request: &Request, within: Duration) -> io::Result<Answer> {
        let until = Instant::now() + within;
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        self.stream.set_write_timeout(Some(within.max(Duration::from_millis(1))))?;
        self.stream.write_all(&line)?;
        loop {
            if let Some(end) = self.heard.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.heard.drain(..=end).collect();
                return Ok(serde_json::from_slice(&line)?);
            }
            self.hear(until)?;
        }
    }

    fn hear(&mut self, until: Instant) -> io::Result<()> {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        if self.heard.len() > ANSWER_BYTES_MAX {
            return Err(io::Error::new(ErrorKind::InvalidData, "the answer is too long"));
        }
        self.stream.set_read_timeout(Some(left))?;
        let mut bytes = [0_u8; 16 * 1024];
        match self.stream.read(&mut bytes) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                self.heard.extend(bytes.iter().take(read));
                Ok(())
            }
            Err(error) => match error.kind() {
                ErrorKind::Interrupted => Ok(()),
                ErrorKind::WouldBlock => Err(ErrorKind::TimedOut.into()),
                _ => Err(error),
            },
        }
    }
}
