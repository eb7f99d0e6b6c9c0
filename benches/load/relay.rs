//! The limit: a relay that does nothing but epoll and splice(2), to one fixed address.
//!
//! No head is read, nothing is decided, nothing is logged, so no proxy can cost less with the same pipe. It is
//! a yardstick, not a peer: two threads, each with its listener on the one port, its epoll set and its pipes.

use std::io;
use std::net::{SocketAddrV4, TcpListener, TcpStream};
use std::num::NonZeroUsize;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventFlags};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::slots::{EDGES, Slots, accept, dial, listen, watch};

/// Pipes that a thread keeps while no bytes are in them.
const POOL_PIPES_MAX: usize = 512;
/// The listener's key; connections have smaller ones.
const LISTENER: u64 = u64::MAX;

/// Relays every connection to `target` through pipes of `pipe_bytes`, on `threads` threads, until killed.
/// `ready` gets the port.
pub(crate) fn run(
    target: SocketAddrV4,
    pipe_bytes: usize,
    threads: usize,
    ready: impl FnOnce(u16) -> io::Result<()>,
) -> io::Result<()> {
    let first = listen(0, true)?;
    let port = first.local_addr()?.port();
    for index in 1..threads {
        let listener = listen(port, true)?;
        std::thread::spawn(move || {
            let ended = Relay::new(listener, target, pipe_bytes).and_then(|mut relay| relay.serve(index));
            eprintln!("relay thread {index} ended: {ended:?}");
            std::process::exit(1);
        });
    }
    ready(port)?;
    Relay::new(first, target, pipe_bytes)?.serve(0)
}

/// One thread's share.
struct Relay {
    set: OwnedFd,
    listener: TcpListener,
    target: SocketAddrV4,
    links: Slots<Link>,
    pipes: Pipes,
}

/// Two connections and what moves between them.
struct Link {
    client: TcpStream,
    upstream: TcpStream,
    up: Flow,
    down: Flow,
}

/// One direction. It holds a pipe only while bytes are in it.
#[derive(Default)]
struct Flow {
    pipe: Option<Pipe>,
    held: usize,
    ended: bool,
    done: bool,
}

struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
}

struct Pipes {
    free: Vec<Pipe>,
    bytes: NonZeroUsize,
}

impl Relay {
    fn new(listener: TcpListener, target: SocketAddrV4, pipe_bytes: usize) -> io::Result<Self> {
        let bytes = NonZeroUsize::new(pipe_bytes).ok_or_else(|| io::Error::other("a pipe of 0 bytes"))?;
        let set = epoll::create(CreateFlags::CLOEXEC)?;
        watch(&set, &listener, LISTENER, EventFlags::IN)?;
        Ok(Self { set, listener, target, links: Slots::new(), pipes: Pipes { free: Vec::new(), bytes } })
    }

    fn serve(&mut self, index: usize) -> io::Result<()> {
        pin(index);
        let mut events = Vec::with_capacity(256);
        loop {
            match epoll::wait(&self.set, spare_capacity(&mut events), None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in events.drain(..) {
                match event.data.u64() {
                    LISTENER => self.accept_all()?,
                    key => self.turn(key, event.flags),
                }
            }
        }
    }

    fn accept_all(&mut self) -> io::Result<()> {
        for _ in 0..64 {
            let Some(client) = accept(&self.listener)? else { break };
            let Ok(upstream) = dial(self.target) else { continue };
            let key =
                self.links.insert(Link { client, upstream, up: Flow::default(), down: Flow::default() });
            if let Some(link) = self.links.find(key) {
                watch(&self.set, &link.client, key << 1, EDGES)?;
                watch(&self.set, &link.upstream, key << 1 | 1, EDGES)?;
            }
        }
        Ok(())
    }

    /// Moves what an event of one side allows.
    fn turn(&mut self, key: u64, flags: EventFlags) {
        let Some(link) = self.links.find(key >> 1) else { return };
        let Link { client, upstream, up, down } = link;
        let (near, far, inward, outward) =
            if key & 1 == 0 { (client, upstream, up, down) } else { (upstream, client, down, up) };
        let mut moved = Ok(());
        if flags.intersects(EventFlags::IN | EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR) {
            moved = inward.pump(near, far, &mut self.pipes);
        }
        if moved.is_ok() && flags.contains(EventFlags::OUT) && outward.held > 0 {
            moved = outward.pump(far, near, &mut self.pipes);
        }
        if moved.is_err() || (inward.done && outward.done) {
            self.links.remove(key >> 1);
        }
    }
}

impl Flow {
    /// Moves bytes until one side has no more to give or to take.
    fn pump(&mut self, from: &TcpStream, to: &TcpStream, pipes: &mut Pipes) -> io::Result<()> {
        if self.done {
            return Ok(());
        }
        let pipe = match self.pipe.take() {
            Some(pipe) => pipe,
            None => pipes.take()?,
        };
        let ended = self.shuttle(from, to, &pipe, pipes.bytes.get());
        if self.held > 0 {
            self.pipe = Some(pipe);
        } else if ended.is_ok() {
            pipes.give(pipe);
        }
        ended
    }

    fn shuttle(&mut self, from: &TcpStream, to: &TcpStream, pipe: &Pipe, most: usize) -> io::Result<()> {
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        loop {
            let mut moved = false;
            if !self.ended {
                match splice(from, None, &pipe.writer, None, most, flags) {
                    Ok(0) => self.ended = true,
                    Ok(bytes) => {
                        self.held += bytes;
                        moved = true;
                    }
                    Err(Errno::AGAIN) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            while self.held > 0 {
                match splice(&pipe.reader, None, to, None, self.held, flags) {
                    Ok(bytes) => {
                        self.held -= bytes.min(self.held);
                        moved = true;
                    }
                    Err(Errno::AGAIN) => break,
                    Err(error) => return Err(error.into()),
                }
            }
            if self.ended && self.held == 0 {
                self.done = true;
                return to.shutdown(std::net::Shutdown::Write);
            }
            if !moved {
                return Ok(());
            }
        }
    }
}

impl Pipes {
    fn take(&mut self) -> io::Result<Pipe> {
        if let Some(pipe) = self.free.pop() {
            return Ok(pipe);
        }
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        fcntl_setpipe_size(&writer, self.bytes.get())?;
        Ok(Pipe { reader, writer })
    }

    fn give(&mut self, pipe: Pipe) {
        if self.free.len() < POOL_PIPES_MAX {
            self.free.push(pipe);
        }
    }
}

/// Keeps thread `index` on its CPU where that is allowed; a relay that wanders only makes more noise.
fn pin(index: usize) {
    let cpus = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let mut set = CpuSet::new();
    set.set(index % cpus);
    let _refused = sched_setaffinity(None, &set);
}
