//! What stands behind the daemon: servers on loopback, each with one habit.
//!
//! A thread a connection, except for the echo, which serves thousands from one thread. The listener ends with
//! the value; connections end with their peers.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use rustix::event::{Timespec, epoll};

use super::client::Wire;
use super::pattern::Pattern;

/// A server on loopback.
#[derive(Debug)]
pub struct Origin {
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

impl Origin {
    /// Gives every connection to `handle`, each on a thread of its own.
    pub fn serve(handle: impl Fn(Wire) + Send + Sync + 'static) -> Origin {
        let handle = Arc::new(handle);
        Origin::listen(move |listener, accepted, stop| {
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                accepted.fetch_add(1, Ordering::SeqCst);
                let handle = Arc::clone(&handle);
                thread::Builder::new()
                    .stack_size(256 * 1024)
                    .spawn(move || handle(Wire::over(stream)))
                    .unwrap();
            }
        })
    }

    /// Sends back what it gets, and ends when the other side ends. Serves any number of connections.
    pub fn echo() -> Origin {
        Origin::listen(|listener, accepted, stop| echo_all(&listener, &accepted, &stop))
    }

    /// Reads to the end and reports the bytes.
    pub fn collect() -> (Origin, Receiver<Vec<u8>>) {
        Origin::reporting(|mut wire, report| {
            let bytes = wire.until_end().unwrap_or_default();
            let _ = report.send(bytes);
        })
    }

    /// Gives every connection to `handle` together with a sender, whose other end is returned.
    pub fn reporting<T: Send + 'static>(
        handle: impl Fn(Wire, &Sender<T>) + Send + Sync + 'static,
    ) -> (Origin, Receiver<T>) {
        let (report, reports) = channel();
        (Origin::serve(move |wire| handle(wire, &report)), reports)
    }

    /// Sends `bytes` of the pattern with seed 1 while it checks `bytes` of the pattern with seed 2; reports what
    /// went wrong.
    pub fn pattern_both_ways(bytes: u64) -> (Origin, Receiver<Result<(), String>>) {
        Origin::reporting(move |wire, report| {
            let (mut to, mut from) = (wire.twin(), wire.twin());
            let sender = thread::spawn(move || Pattern::new(1).write(&mut to, bytes));
            let received = Pattern::new(2).expect(&mut from, bytes);
            let sent = sender.join().unwrap();
            let _ = report.send(received.and(sent).map_err(|error| error.to_string()));
        })
    }

    /// Speaks first, as a mail server does: greets, answers each line with `250 ` and the line, ends after QUIT.
    pub fn speaks_first() -> Origin {
        Origin::serve(|mut wire| {
            wire.send("220 mail.weir.test ready\r\n");
            while let Ok(line) = wire.line() {
                if line == "QUIT" {
                    wire.send("221 bye\r\n");
                    return;
                }
                wire.send(format!("250 {line}\r\n"));
            }
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `name:port` of it; names under `weir.test` lead to loopback in the tests' policies.
    pub fn named(&self, name: &str) -> String {
        format!("{name}:{}", self.address.port())
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    fn listen(run: impl FnOnce(TcpListener, Arc<AtomicUsize>, Arc<AtomicBool>) + Send + 'static) -> Origin {
        // Not std's listener: its backlog of 128 (as cut by the kernel) would lose connections of a burst.
        let listener = deep_listener();
        let address = listener.local_addr().unwrap();
        let (accepted, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (its_count, its_stop) = (Arc::clone(&accepted), Arc::clone(&stop));
        thread::spawn(move || run(listener, its_count, its_stop));
        Origin { address, accepted, stop }
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address); // wakes the accept
    }
}

/// A port of loopback on which nobody listens. It was free a moment ago; the kernel gives it to others last.
pub fn closed_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

fn deep_listener() -> TcpListener {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    sockopt::set_socket_reuseaddr(&socket, true).unwrap();
    bind(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    listen(&socket, 8192).unwrap();
    TcpListener::from(socket)
}

fn echo_all(listener: &TcpListener, accepted: &AtomicUsize, stop: &AtomicBool) {
    const LISTENER: u64 = u64::MAX;
    let readable = epoll::EventFlags::IN;
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
    listener.set_nonblocking(true).unwrap();
    epoll::add(&poll, listener, epoll::EventData::new_u64(LISTENER), readable).unwrap();
    let mut streams: HashMap<u64, TcpStream> = HashMap::new();
    let mut events = Vec::with_capacity(256);
    let tick = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
    while !stop.load(Ordering::SeqCst) {
        events.clear();
        if epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), Some(&tick)).is_err() {
            continue;
        }
        for event in &events {
            let key = event.data.u64();
            if key == LISTENER {
                while let Ok((stream, _)) = listener.accept() {
                    accepted.fetch_add(1, Ordering::SeqCst);
                    let key = stream.as_raw_fd() as u64;
                    epoll::add(&poll, &stream, epoll::EventData::new_u64(key), readable).unwrap();
                    streams.insert(key, stream);
                }
            } else if streams.get_mut(&key).is_some_and(|stream| !echo_once(stream)) {
                streams.remove(&key);
            }
        }
    }
}

/// Whether the stream goes on.
fn echo_once(stream: &mut TcpStream) -> bool {
    let mut buffer = [0; 16 * 1024];
    match stream.read(&mut buffer) {
        Ok(0) => false,
        Ok(got) => stream.write_all(&buffer[..got]).is_ok(),
        Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
    }
}

/// Sends `bytes`, one each `pace`.
pub fn drip(wire: &mut Wire, bytes: &[u8], pace: Duration) {
    for byte in bytes {
        wire.send([*byte]);
        super::wait::pause(pace);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn echo_serves_many_and_ends_with_its_peer() {
        let echo = Origin::echo();
        let mut wires: Vec<_> = (0..300).map(|_| Wire::dial(echo.address())).collect();
        for (index, wire) in wires.iter_mut().enumerate() {
            wire.echo(format!("hello {index}").as_bytes());
        }
        wires[0].finish();
        assert_eq!(wires[0].until_end().unwrap(), b"");
        assert_eq!(echo.accepted(), 300);
    }

    #[test]
    fn pattern_passes_both_ways() {
        let (origin, verdict) = Origin::pattern_both_ways(3_000_000);
        let wire = Wire::dial(origin.address());
        let (mut to, mut from) = (wire.twin(), wire.twin());
        let sender = thread::spawn(move || Pattern::new(2).write(&mut to, 3_000_000));
        Pattern::new(1).expect(&mut from, 3_000_000).unwrap();
        sender.join().unwrap().unwrap();
        assert_eq!(verdict.recv().unwrap(), Ok(()));
    }

    #[test]
    fn mail_server_speaks_first_and_a_reset_is_seen() {
        let mail = Origin::speaks_first();
        let mut wire = Wire::dial(mail.address());
        assert_eq!(wire.line().unwrap(), "220 mail.weir.test ready");
        assert_eq!(wire.send("HELO me\r\n").line().unwrap(), "250 HELO me");
        assert_eq!(wire.send("QUIT\r\n").line().unwrap(), "221 bye");
        assert_eq!(wire.until_end().unwrap(), b"");

        let resetter = Origin::serve(|wire| wire.reset());
        let error = Wire::dial(resetter.address()).until_end().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
}
