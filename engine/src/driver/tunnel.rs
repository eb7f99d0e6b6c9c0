//! A tunnel: bytes both ways, unchanged, as cheaply as the kernel can.
//!
//! Each direction starts by copying through a buffer that it borrows only while bytes are there, and moves to
//! splice(2) once it is bulk; its pipe grows while it stays so. Readiness comes from the driver; splice is called
//! directly on nonblocking descriptors (IORING_OP_SPLICE would cost a kernel thread a tunnel). An idle tunnel holds
//! neither buffer nor pipe. An end of stream passes as an end of that direction alone; a reset passes as a reset.

use std::cell::Cell;
use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::pipe::{SpliceFlags, splice};

use crate::audit::record::Outcome;
use crate::limits::{DRAIN_QUIET, PIPE_BYTES, SPLICE_AFTER_BYTES, TRAFFIC_IDLE, TURN_BYTES_MAX};

use super::buffers::Pipe;
use super::core::Core;
use super::rt::{self, Either, Source, both, race};
use super::stream::{Stream, would_block};

/// What a tunnel or exchange has carried, live.
pub(crate) struct Flow {
    /// Bytes from the client.
    pub(crate) up: Cell<u64>,
    /// Bytes to the client.
    pub(crate) down: Cell<u64>,
    /// The coarse clock when bytes last moved.
    active: Cell<u64>,
}

/// A direction of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Client to upstream.
    Up,
    /// Upstream to client.
    Down,
}

impl Flow {
    /// Nothing carried yet.
    pub(crate) fn new(core: &Core) -> Self {
        Self { up: Cell::new(0), down: Cell::new(0), active: Cell::new(core.alarms.tick()) }
    }

    /// Counts bytes that have reached the other side.
    pub(crate) fn count(&self, core: &Core, way: Way, bytes: usize) {
        let bytes = bytes as u64;
        let (cell, counter) = match way {
            Way::Up => (&self.up, &core.counters().up),
            Way::Down => (&self.down, &core.counters().down),
        };
        cell.set(cell.get() + bytes);
        counter.fetch_add(bytes, Ordering::Relaxed);
        self.active.set(core.alarms.tick());
    }

    /// Resolves when no byte has moved for `limit`.
    pub(crate) async fn silent(&self, core: &Core, limit: Duration) {
        let mut alarm = core.alarms.alarm();
        while let Some(left) = self.left(core, limit) {
            alarm.set(left);
            alarm.ring().await;
        }
    }

    /// Resolves when no byte has moved for `TRAFFIC_IDLE`, or for `DRAIN_QUIET` while the proxy drains: nobody
    /// knows whether a tunnel still has something to say.
    async fn quiet(&self, core: &Core) -> Outcome {
        match race(self.silent(core, TRAFFIC_IDLE), core.drain_begun()).await {
            Either::Left(()) => Outcome::Idle,
            Either::Right(()) => {
                self.silent(core, DRAIN_QUIET).await;
                Outcome::Drained
            }
        }
    }

    /// What is left of `limit` since bytes last moved. Ticks are counted generously, as alarms are: never early.
    fn left(&self, core: &Core, limit: Duration) -> Option<Duration> {
        let still = core.alarms.tick() - self.active.get();
        (still <= limit.as_secs()).then(|| limit - Duration::from_secs(still))
    }
}

/// The side that failed.
pub(crate) struct Broken {
    /// The direction whose copying failed.
    way: Way,
    /// True when its reading side failed, false when its writing side did.
    reading: bool,
}

/// Relays until both directions have ended, one side breaks, or it stays quiet too long. `first` goes before the
/// client's bytes: the held-back first flight, judged; it sends what it has itself.
///
/// Upstream bytes flow from the start, so that protocols whose server speaks first live.
pub(crate) async fn run<E>(
    core: &Core,
    client: &Stream,
    upstream: &Stream,
    flow: &Flow,
    first: impl AsyncFnOnce() -> Result<bool, E>,
) -> Result<Outcome, E> {
    let up = async {
        // Called here, so that it shares its place in the future with the relay that follows it.
        match first().await {
            Ok(true) => pump(core, client, upstream, flow, Way::Up).await.map_err(Stop::Broken),
            // The client ended within its first flight.
            Ok(false) => {
                upstream.finish().await;
                Ok(())
            }
            Err(refused) => Err(Stop::Refused(refused)),
        }
    };
    let down = async { pump(core, upstream, client, flow, Way::Down).await.map_err(Stop::Broken) };
    let ended = race(both(up, down), flow.quiet(core)).await;
    match ended {
        Either::Left(Ok(())) => Ok(Outcome::Complete),
        Either::Left(Err(Stop::Broken(broken))) => {
            // Which side went away: the one read from, or the one written to.
            let client_gone = (broken.way == Way::Up) == broken.reading;
            let other = if client_gone { upstream } else { client };
            other.reset_on_close();
            Ok(if client_gone { Outcome::ClientGone } else { Outcome::UpstreamGone })
        }
        Either::Left(Err(Stop::Refused(refused))) => {
            client.reset_on_close();
            upstream.reset_on_close();
            Err(refused)
        }
        Either::Right(outcome) => Ok(outcome),
    }
}

enum Stop<E> {
    Broken(Broken),
    Refused(E),
}

/// Copies one direction until its end, which it passes on.
async fn pump(core: &Core, from: &Stream, to: &Stream, flow: &Flow, way: Way) -> Result<(), Broken> {
    let reading = |_| Broken { way, reading: true };
    let writing = |_| Broken { way, reading: false };
    let mut streak = 0;
    loop {
        from.readable().await.map_err(reading)?;
        if let (true, Some(raw_from), Some(raw_to)) = (streak >= SPLICE_AFTER_BYTES, from.raw(), to.raw()) {
            match bulk(core, raw_from, raw_to, flow, way).await? {
                Bulk::End => {
                    to.finish().await;
                    return Ok(());
                }
                Bulk::Slow | Bulk::NoPipe => streak = 0,
            }
            continue;
        }
        let before = flow.active.get();
        let mut buffer = core.buffers.take();
        let mut moved = 0;
        while moved < TURN_BYTES_MAX {
            let Some(read) = from.try_read(&mut buffer).map_err(reading)? else { break };
            if read == 0 {
                to.finish().await;
                return Ok(());
            }
            to.write_all(buffer.get(..read).unwrap_or_default()).await.map_err(writing)?;
            flow.count(core, way, read);
            moved += read;
            streak += read as u64;
            // A short read has emptied the socket; asking again would only hear EAGAIN.
            if read < buffer.len() || streak >= SPLICE_AFTER_BYTES {
                break;
            }
        }
        drop(buffer);
        if flow.active.get() > before + 1 {
            streak = 0;
        }
        if moved >= TURN_BYTES_MAX {
            rt::turn().await;
        }
    }
}

/// How a stretch of splicing ended.
enum Bulk {
    /// The stream ended and every byte is delivered.
    End,
    /// It is bulk no more.
    Slow,
    /// There is no pipe to be had: copy.
    NoPipe,
}

/// Splices one direction while it stays bulk.
async fn bulk(core: &Core, from: &Source, to: &Source, flow: &Flow, way: Way) -> Result<Bulk, Broken> {
    let mut class = 0;
    let mut full = 0;
    loop {
        let Some(pipe) = core.pipes.take(class) else { return Ok(Bulk::NoPipe) };
        let mut pipe = OnLoan { core, pipe: Some(pipe) };
        let mut moved = 0;
        let ended = loop {
            let Some(loan) = pipe.pipe.as_mut() else { return Ok(Bulk::NoPipe) };
            let Some(read) = fill(from, loan).map_err(|_| Broken { way, reading: true })? else {
                break false;
            };
            if read == 0 {
                break true;
            }
            full = if read * 2 >= loan.size() { full + 1 } else { 0 };
            drain(to, loan, |bytes| flow.count(core, way, bytes))
                .await
                .map_err(|_| Broken { way, reading: false })?;
            moved += read;
            if moved >= TURN_BYTES_MAX {
                break false;
            }
        };
        drop(pipe);
        if ended {
            return Ok(Bulk::End);
        }
        if full >= FULL_TO_GROW && class + 1 < PIPE_BYTES.len() {
            class += 1;
            full = 0;
        }
        if moved >= TURN_BYTES_MAX {
            rt::turn().await;
        }
        let asked = core.alarms.tick();
        from.readable().await.map_err(|_| Broken { way, reading: true })?;
        if core.alarms.tick() > asked + 1 {
            return Ok(Bulk::Slow);
        }
    }
}

/// Fills of at least half a pipe in a row after which a larger one is taken.
const FULL_TO_GROW: u32 = 4;

const FLAGS: SpliceFlags = SpliceFlags::MOVE.union(SpliceFlags::NONBLOCK);

/// A pipe that finds its way back however the direction ends.
struct OnLoan<'a> {
    core: &'a Core,
    pipe: Option<Pipe>,
}

impl Drop for OnLoan<'_> {
    fn drop(&mut self) {
        if let Some(pipe) = self.pipe.take() {
            self.core.pipes.give_back(pipe);
        }
    }
}

/// Socket to pipe: bytes moved, 0 at the end, `None` when nothing is there.
fn fill(from: &Source, pipe: &mut Pipe) -> io::Result<Option<usize>> {
    let moved = would_block(splice(from, None, &pipe.write, None, pipe.size(), FLAGS))?;
    pipe.held += moved.unwrap_or(0);
    Ok(moved)
}

/// Pipe to socket until the pipe is empty.
async fn drain(to: &Source, pipe: &mut Pipe, count: impl Fn(usize)) -> io::Result<()> {
    while pipe.held > 0 {
        match would_block(splice(&pipe.read, None, to, None, pipe.held, FLAGS))? {
            Some(moved) => {
                pipe.held -= moved;
                count(moved);
            }
            None => to.writable().await?,
        }
    }
    Ok(())
}
