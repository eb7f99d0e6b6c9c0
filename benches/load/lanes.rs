//! A closed loop of many connections on one thread: each lane does one operation after the other, without a pause.
//!
//! What an operation is stands in the workload's file; here are only sockets, time and the count. Every answer is
//! judged; the first that is wrong ends the run.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags};
use rustix::fd::OwnedFd;
use rustix::io::Errno;

use crate::proc::{Gauge, Mark, Stretch};
use crate::slots::{EDGES, dial, watch};
use crate::workload::{SILENCE_MAX, Scale};

/// An operation: stages of one message and one answer each.
pub(crate) trait Script {
    /// Whether every operation has a connection of its own.
    const FRESH: bool;

    /// Puts into `out` what `stage` of operation `number` sends; false when the operation has no such stage.
    fn send(&self, number: u64, stage: u32, out: &mut Vec<u8>) -> bool;

    /// Judges what came in that stage: complete, more needed, or wrong and why.
    fn judge(&self, number: u64, stage: u32, received: &[u8]) -> Result<bool, String>;
}

/// Runs `lanes` lanes against `proxy`: warms up, then measures. The latencies are in microseconds, unsorted.
pub(crate) fn run(
    script: &impl Script,
    proxy: SocketAddrV4,
    lanes: u64,
    scale: &Scale,
    gauge: Gauge,
) -> io::Result<(Stretch, Vec<u32>)> {
    let set = epoll::create(CreateFlags::CLOEXEC)?;
    let mut track =
        Track { script, proxy, set, next: lanes, finished: Vec::new(), buffer: vec![0; 64 * 1024] };
    let mut field = Vec::new();
    for number in 0..lanes {
        let mut lane = Lane::new(dial(proxy)?, number);
        watch(&track.set, &lane.stream, number, EDGES)?;
        script.send(number, 0, &mut lane.out);
        track.turn(&mut lane, number)?;
        field.push(lane);
    }
    track.until(Instant::now() + scale.warm, &mut field)?;
    track.finished.clear();
    let mark: Mark = gauge.begin()?;
    track.until(Instant::now() + scale.measured, &mut field)?;
    let stretch = mark.end()?;
    match field.iter().find(|lane| lane.began.elapsed() > SILENCE_MAX) {
        Some(lane) => Err(io::Error::other(format!("operation {} got no answer", lane.number))),
        None => Ok((stretch, track.finished)),
    }
}

/// What all lanes share.
struct Track<'a, S> {
    script: &'a S,
    proxy: SocketAddrV4,
    set: OwnedFd,
    /// Number of the next operation.
    next: u64,
    finished: Vec<u32>,
    buffer: Vec<u8>,
}

/// One connection and the operation on it.
struct Lane {
    stream: TcpStream,
    number: u64,
    stage: u32,
    began: Instant,
    out: Vec<u8>,
    sent: usize,
    received: Vec<u8>,
}

impl Lane {
    fn new(stream: TcpStream, number: u64) -> Self {
        let (out, received) = (Vec::with_capacity(2048), Vec::with_capacity(2048));
        Self { stream, number, stage: 0, began: Instant::now(), out, sent: 0, received }
    }
}

impl<S: Script> Track<'_, S> {
    /// Serves all lanes until `end`.
    fn until(&mut self, end: Instant, field: &mut [Lane]) -> io::Result<()> {
        let mut events = Vec::with_capacity(128);
        let mut heard = Instant::now();
        while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            let timeout = Timespec::try_from(left.min(Duration::from_secs(1))).unwrap_or_default();
            match epoll::wait(&self.set, spare_capacity(&mut events), Some(&timeout)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            if !events.is_empty() {
                heard = Instant::now();
            } else if heard.elapsed() > SILENCE_MAX {
                return Err(io::Error::other("no answer on any connection"));
            }
            for key in events.drain(..).map(|event| event.data.u64()) {
                let lane = usize::try_from(key).ok().and_then(|place| field.get_mut(place));
                if let Some(lane) = lane {
                    self.turn(lane, key)?;
                }
            }
        }
        Ok(())
    }

    /// Takes one lane as far as its socket allows. An event of a connection that is closed already is harmless:
    /// the new one's socket says for itself that it would block.
    fn turn(&mut self, lane: &mut Lane, key: u64) -> io::Result<()> {
        let wrong = |lane: &Lane, why: &str| io::Error::other(format!("operation {}: {why}", lane.number));
        loop {
            if !flush(lane)? {
                return Ok(());
            }
            match lane.stream.read(&mut self.buffer) {
                Ok(0) => return Err(wrong(lane, "closed before its answer was complete")),
                Ok(count) => lane.received.extend_from_slice(self.buffer.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
            match self.script.judge(lane.number, lane.stage, &lane.received) {
                Ok(true) => self.advance(lane, key)?,
                Ok(false) => {}
                Err(why) => return Err(wrong(lane, &why)),
            }
        }
    }

    /// Goes to the next stage, or to the next operation.
    fn advance(&mut self, lane: &mut Lane, key: u64) -> io::Result<()> {
        lane.received.clear();
        lane.stage += 1;
        if self.script.send(lane.number, lane.stage, &mut lane.out) {
            return Ok(());
        }
        self.finished.push(u32::try_from(lane.began.elapsed().as_micros()).unwrap_or(u32::MAX));
        (lane.number, lane.stage, lane.began) = (self.next, 0, Instant::now());
        self.next += 1;
        if S::FRESH {
            lane.stream = dial(self.proxy)?;
            watch(&self.set, &lane.stream, key, EDGES)?;
        }
        self.script.send(lane.number, 0, &mut lane.out);
        Ok(())
    }
}

/// Sends what waits; false when the socket takes no more, or does not stand yet.
fn flush(lane: &mut Lane) -> io::Result<bool> {
    while lane.sent < lane.out.len() {
        match lane.stream.write(lane.out.get(lane.sent..).unwrap_or_default()) {
            Ok(count) => lane.sent += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    lane.sent = 0;
    lane.out.clear();
    Ok(true)
}
