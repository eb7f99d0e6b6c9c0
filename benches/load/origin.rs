//! The server behind every proxy: one thread, one port, what it does chosen by a connection's first byte.
//!
//! | first byte | then | answer |
//! |---|---|---|
//! | `D` | 8 bytes count | that many pattern bytes, then the end |
//! | `B` | 8 bytes count | the same with one byte wrong: the harness proves on it that it would see that |
//! | `U` | 8 bytes count, then that many pattern bytes | 8 bytes count, 8 bytes first wrong offset or all ones |
//! | `E` | anything | the same bytes |
//! | `G` | HTTP/1.1 requests, path or absolute form ending in `/N` | 200 with 1,024 pattern bytes from offset N |
//!
//! Counts are big-endian. Not a server for anything else: what it does not know it closes.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventFlags};
use rustix::io::Errno;

use crate::pattern::{Checker, Pattern, WINDOW};
use crate::slots::{EDGES, Slots, accept, listen, watch};

/// Bytes of an HTTP answer's body.
pub(crate) const BODY_BYTES: usize = 1024;
/// The answer of `U` that says that every byte was right.
pub(crate) const ALL_RIGHT: u64 = u64::MAX;

/// Bytes one connection moves before the next gets its turn.
const TURN_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of one request's head.
const HEAD_BYTES_MAX: usize = 16 * 1024;
const LISTENER: u64 = u64::MAX;

/// Serves until killed; `ready` gets the port.
pub(crate) fn run(ready: impl FnOnce(u16) -> io::Result<()>) -> io::Result<()> {
    let listener = listen(0, false)?;
    let set = epoll::create(CreateFlags::CLOEXEC)?;
    watch(&set, &listener, LISTENER, EventFlags::IN)?;
    ready(listener.local_addr()?.port())?;
    let mut desk = Desk { pattern: Pattern::new(), buffer: vec![0; WINDOW] };
    let (mut guests, mut busy) = (Slots::new(), Vec::new());
    let mut events = Vec::with_capacity(256);
    loop {
        let at_once = Timespec::try_from(Duration::ZERO).unwrap_or_default();
        match epoll::wait(
            &set,
            spare_capacity(&mut events),
            if busy.is_empty() { None } else { Some(&at_once) },
        ) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut keys = std::mem::take(&mut busy);
        for key in events.drain(..).map(|event| event.data.u64()) {
            if key != LISTENER {
                keys.push(key);
                continue;
            }
            while let Some(stream) = accept(&listener)? {
                let key = guests.insert(Guest {
                    stream,
                    role: Role::Unknown { first: Vec::new() },
                    out: Vec::new(),
                    sent: 0,
                });
                if let Some(guest) = guests.find(key) {
                    watch(&set, &guest.stream, key, EDGES)?;
                }
            }
        }
        for key in keys {
            let Some(guest) = guests.find(key) else { continue };
            match guest.serve(&mut desk) {
                Ok(Next::Wait) => {}
                Ok(Next::Again) => busy.push(key),
                Ok(Next::Close) | Err(_) => guests.remove(key),
            }
        }
    }
}

/// What all connections share: the pattern and one read buffer.
struct Desk {
    pattern: Pattern,
    buffer: Vec<u8>,
}

/// One connection.
struct Guest {
    stream: TcpStream,
    role: Role,
    /// Bytes still to send, from `sent` on.
    out: Vec<u8>,
    sent: usize,
}

enum Role {
    /// Its first bytes, until they say what it is.
    Unknown {
        first: Vec<u8>,
    },
    /// `D`, `B`: sends up to `total`; `wrong` is the offset of the byte to spoil.
    Source {
        offset: u64,
        total: u64,
        wrong: Option<u64>,
    },
    /// `U`: receives `total`.
    Sink {
        total: u64,
        checker: Checker,
        wrong_at: u64,
    },
    Echo,
    /// `G`: a head as far as it came.
    Http {
        head: Vec<u8>,
    },
    /// All is sent; waits for the other's end.
    Finished,
}

enum Next {
    Wait,
    Again,
    Close,
}

impl Guest {
    /// Goes on until the socket blocks or the turn is over.
    fn serve(&mut self, desk: &mut Desk) -> io::Result<Next> {
        let mut moved = 0;
        while moved < TURN_BYTES_MAX {
            if !self.flush()? {
                return Ok(Next::Wait);
            }
            if let Role::Source { .. } = self.role {
                match self.send_pattern(&desk.pattern)? {
                    0 => return Ok(Next::Wait),
                    sent => moved += sent,
                }
                continue;
            }
            match self.stream.read(&mut desk.buffer) {
                Ok(0) => return Ok(Next::Close),
                Ok(count) => {
                    moved += count;
                    self.receive(desk.buffer.get(..count).unwrap_or_default(), &desk.pattern)?;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Next::Wait),
                Err(error) => return Err(error),
            }
        }
        Ok(Next::Again)
    }

    /// Sends what waits; false when the socket takes no more.
    fn flush(&mut self) -> io::Result<bool> {
        while self.sent < self.out.len() {
            match self.stream.write(self.out.get(self.sent..).unwrap_or_default()) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        self.sent = 0;
        self.out.clear();
        Ok(true)
    }

    /// One write of a source; 0 when the socket takes no more.
    fn send_pattern(&mut self, pattern: &Pattern) -> io::Result<usize> {
        let Role::Source { offset, total, wrong } = &mut self.role else { return Ok(0) };
        let left = usize::try_from(*total - *offset).unwrap_or(WINDOW).min(WINDOW);
        let mut chunk = pattern.at(*offset, left);
        let spoiled;
        if let Some(place) = wrong.filter(|place| (*offset..*offset + left as u64).contains(place)) {
            let mut copy = chunk.to_vec();
            if let Some(byte) = usize::try_from(place - *offset).ok().and_then(|place| copy.get_mut(place)) {
                *byte ^= 1;
            }
            spoiled = copy;
            chunk = &spoiled;
        }
        let count = match self.stream.write(chunk) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(0),
            Err(error) => return Err(error),
        };
        *offset += count as u64;
        if *offset == *total {
            self.stream.shutdown(Shutdown::Write)?;
            self.role = Role::Finished;
        }
        Ok(count)
    }

    fn receive(&mut self, bytes: &[u8], pattern: &Pattern) -> io::Result<()> {
        match &mut self.role {
            Role::Echo => self.out.extend_from_slice(bytes),
            Role::Sink { total, checker, wrong_at } => {
                if *wrong_at == ALL_RIGHT
                    && let Err(offset) = checker.check(pattern, bytes)
                {
                    *wrong_at = offset;
                }
                if checker.count() >= *total || *wrong_at != ALL_RIGHT {
                    self.out.extend_from_slice(&checker.count().to_be_bytes());
                    self.out.extend_from_slice(&wrong_at.to_be_bytes());
                    self.role = Role::Finished;
                }
            }
            Role::Http { head } => {
                head.extend_from_slice(bytes);
                answer_requests(head, &mut self.out, pattern)?;
            }
            Role::Unknown { first } => {
                first.extend_from_slice(bytes);
                if let Some((role, used)) = Role::choose(first)? {
                    let rest = first.split_off(used);
                    self.role = role;
                    return self.receive(&rest, pattern);
                }
            }
            Role::Source { .. } | Role::Finished => {}
        }
        Ok(())
    }
}

impl Role {
    /// Reads a connection's first bytes: the role and the length of its command; none when more are needed.
    fn choose(bytes: &[u8]) -> io::Result<Option<(Self, usize)>> {
        let (command, rest) = match bytes.split_first() {
            None => return Ok(None),
            Some((b'G', _)) => return Ok(Some((Self::Http { head: Vec::new() }, 0))),
            Some((b'E', _)) => return Ok(Some((Self::Echo, 1))),
            Some(split) => split,
        };
        let Some(count) = rest.first_chunk() else { return Ok(None) };
        let total = u64::from_be_bytes(*count);
        let role = match command {
            b'D' => Self::Source { offset: 0, total, wrong: None },
            b'B' => Self::Source { offset: 0, total, wrong: Some(total / 4) },
            b'U' => Self::Sink { total, checker: Checker::default(), wrong_at: ALL_RIGHT },
            other => return Err(io::Error::other(format!("unknown command {other}"))),
        };
        Ok(Some((role, 1 + count.len())))
    }
}

/// Answers every request whose head is complete and keeps the rest.
fn answer_requests(head: &mut Vec<u8>, out: &mut Vec<u8>, pattern: &Pattern) -> io::Result<()> {
    while let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n") {
        let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
        let number = std::str::from_utf8(line).ok().and_then(request_number);
        let number = number.ok_or_else(|| io::Error::other("no request of ours"))?;
        out.extend_from_slice(
            b"HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\nContent-Type: application/octet-stream\r\n\
              Cache-Control: no-store\r\nContent-Length: 1024\r\n\r\n",
        );
        out.extend_from_slice(pattern.at(number, BODY_BYTES));
        head.drain(..end + 4);
    }
    if head.len() > HEAD_BYTES_MAX { Err(io::Error::other("head too long")) } else { Ok(()) }
}

/// The N of `GET …/N HTTP/1.1`.
fn request_number(line: &str) -> Option<u64> {
    let target = line.strip_prefix("GET ")?.strip_suffix(" HTTP/1.1")?;
    target.rsplit('/').next()?.parse().ok()
}
