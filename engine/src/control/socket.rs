//! The control socket, the daemon's side: who may ask, and answers without ever waiting for anyone.
//!
//! Not here: what is answered. Everything is nonblocking and bounded: a client that sends slowly, sends too much,
//! or does not read holds up nobody and is closed at its deadline. One that waits for the end of the run has none.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};

use super::folder::Folder;
use super::protocol::{Answer, REQUEST_BYTES_MAX, Request};

/// Clients that are served at once; one more closes the one that has been silent longest.
const CLIENTS_MAX: usize = 64;
/// A request must be complete, and its answer taken, within this.
const CLIENT_DEADLINE: Duration = Duration::from_secs(5);
/// After an accept that failed for want of descriptors, the listener rests this long instead of spinning.
const ACCEPT_REST: Duration = Duration::from_millis(200);

/// What becomes of a request.
#[derive(Debug)]
pub enum Reply {
    /// This is the answer.
    Now(Answer),
    /// The answer comes with `finish`.
    AtTheEnd,
}

/// The listening socket and its clients.
#[derive(Debug)]
pub struct ControlSocket {
    listener: UnixListener,
    rests_until: Option<Instant>,
    clients: Vec<Client>,
}

#[derive(Debug)]
struct Client {
    stream: UnixStream,
    /// Since it connected, or was last answered.
    since: Instant,
    request: Vec<u8>,
    answer: Vec<u8>,
    waits_for_end: bool,
    /// It sends nothing more, but may still read.
    said_all: bool,
    gone: bool,
}

impl ControlSocket {
    /// Listens at `name` in a folder that passed the checks; the caller holds the state's lock, so what stands
    /// there is stale.
    ///
    /// # Errors
    /// When it cannot be bound.
    pub fn bind(folder: &Folder, name: &str) -> io::Result<Self> {
        folder.remove(name);
        let path = folder.short_path(name);
        let listener = UnixListener::bind(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, rests_until: None, clients: Vec::new() })
    }

    /// What to poll for; the first is the listener, the rest are the clients in their order.
    pub fn interest(&self) -> Vec<PollFd<'_>> {
        let accepts = if self.rests_until.is_some() { PollFlags::empty() } else { PollFlags::IN };
        let mut fds = vec![PollFd::new(&self.listener, accepts)];
        fds.extend(self.clients.iter().map(|client| PollFd::new(&client.stream, client.interest())));
        fds
    }

    /// How long the poll may last before somebody's deadline comes.
    pub fn patience(&self) -> Option<Duration> {
        if self.rests_until.is_some() {
            return Some(ACCEPT_REST);
        }
        self.clients.iter().any(|client| !client.waits_for_end).then_some(Duration::from_secs(1))
    }

    /// Serves whoever is ready. `ready` are the results of polling `interest`, in its order.
    pub fn serve(&mut self, ready: &[PollFlags], now: Instant, mut reply: impl FnMut(Request) -> Reply) {
        let broken = PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
        for (client, ready) in self.clients.iter_mut().zip(ready.iter().skip(1)) {
            if ready.contains(PollFlags::IN) {
                client.read();
            }
            client.serve(now, &mut reply);
            // Closed in both directions: nobody is left to read an answer.
            client.gone |= ready.intersects(broken);
            client.gone |= !client.waits_for_end && now.duration_since(client.since) > CLIENT_DEADLINE;
        }
        self.clients.retain(|client| !client.gone);
        self.rests_until = self.rests_until.filter(|&until| now < until);
        if ready.first().is_some_and(|ready| ready.contains(PollFlags::IN)) {
            self.accept(now);
        }
    }

    /// Answers everybody who waits for the end, and whoever still asks gets no answer.
    pub fn finish(&mut self, answer: &Answer) {
        self.clients.retain(|client| client.waits_for_end || !client.answer.is_empty());
        for client in self.clients.iter_mut().filter(|client| client.waits_for_end) {
            client.waits_for_end = false;
            client.say(answer);
        }
    }

    /// Whether an answer has not been taken yet.
    pub fn owes(&self) -> bool {
        self.clients.iter().any(|client| !client.answer.is_empty())
    }

    fn accept(&mut self, now: Instant) {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    if is_trusted(&stream) && stream.set_nonblocking(true).is_ok() {
                        self.make_room();
                        self.clients.push(Client::new(stream, now));
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => {
                    self.rests_until = Some(now + ACCEPT_REST);
                    return;
                }
            }
        }
    }

    /// The clients stand in the order in which they came.
    fn make_room(&mut self) {
        if self.clients.len() >= CLIENTS_MAX {
            let oldest = self.clients.iter().position(|client| !client.waits_for_end).unwrap_or(0);
            self.clients.remove(oldest);
        }
    }
}

/// The kernel says who is at the other end: we ourselves, or root.
fn is_trusted(stream: &UnixStream) -> bool {
    let us = rustix::process::geteuid();
    rustix::net::sockopt::socket_peercred(stream.as_fd())
        .is_ok_and(|peer| peer.uid == us || peer.uid.is_root())
}

impl Client {
    fn new(stream: UnixStream, now: Instant) -> Self {
        Self {
            stream,
            since: now,
            request: Vec::new(),
            answer: Vec::new(),
            waits_for_end: false,
            said_all: false,
            gone: false,
        }
    }

    fn interest(&self) -> PollFlags {
        if !self.answer.is_empty() {
            PollFlags::OUT
        } else if self.waits_for_end || self.said_all {
            // POLLHUP comes unasked when it has gone.
            PollFlags::empty()
        } else {
            PollFlags::IN
        }
    }

    fn read(&mut self) {
        let mut bytes = [0_u8; REQUEST_BYTES_MAX];
        match self.stream.read(&mut bytes) {
            Ok(0) => self.said_all = true,
            Ok(read) => self.request.extend(bytes.iter().take(read)),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => self.gone = true,
        }
    }

    /// Answers the requests that are complete, one after the other as each answer is taken.
    fn serve(&mut self, now: Instant, reply: &mut impl FnMut(Request) -> Reply) {
        self.flush();
        while self.answer.is_empty() && !self.waits_for_end && !self.gone {
            let Some(end) = self.request.iter().position(|&byte| byte == b'\n') else {
                self.gone = self.said_all || self.request.len() >= REQUEST_BYTES_MAX;
                return;
            };
            let line: Vec<u8> = self.request.drain(..=end).collect();
            self.since = now;
            match serde_json::from_slice(&line).map(&mut *reply) {
                Ok(Reply::Now(answer)) => self.say(&answer),
                Ok(Reply::AtTheEnd) => self.waits_for_end = true,
                Err(error) => self.say(&Answer::Refused { why: format!("not understood: {error}") }),
            }
        }
    }

    fn say(&mut self, answer: &Answer) {
        if serde_json::to_writer(&mut self.answer, answer).is_err() {
            self.gone = true;
        }
        self.answer.push(b'\n');
        self.flush();
    }

    fn flush(&mut self) {
        while !self.answer.is_empty() {
            match self.stream.write(&self.answer) {
                Ok(written @ 1..) => drop(self.answer.drain(..written)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Ok(0) | Err(_) => {
                    self.gone = true;
                    self.answer.clear();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::ask::Line;
    use super::super::poll;
    use super::*;

    /// Serves on this thread for as long as `client`, on another one, has something to ask.
    fn serve_while<T: Send>(folder: &Folder, client: impl FnOnce() -> T + Send) -> T {
        let mut socket = ControlSocket::bind(folder, "s").unwrap();
        std::thread::scope(|scope| {
            let client = scope.spawn(client);
            while !client.is_finished() {
                let mut fds = socket.interest();
                poll::wait(&mut fds, Some(Duration::from_millis(5))).unwrap();
                let ready: Vec<_> = fds.iter().map(PollFd::revents).collect();
                socket.serve(&ready, Instant::now(), |request| match request {
                    Request::Hello {} => Reply::Now(Answer::Hello { run_id: "id".into(), pid: 1 }),
                    Request::Status {} => Reply::Now(Answer::Refused { why: "x".repeat(400_000) }),
                    Request::Stop { .. } => Reply::AtTheEnd,
                });
            }
            client.join().unwrap()
        })
    }

    fn deep_folder() -> (tempfile::TempDir, Folder) {
        let temporary = tempfile::tempdir().unwrap();
        let folder = Folder::create(&temporary.path().join("d".repeat(120)).join("e".repeat(120))).unwrap();
        (temporary, folder)
    }

    const SECONDS: Duration = Duration::from_secs(5);

    #[test]
    fn a_socket_in_a_deep_directory_is_private_and_answers() {
        let (_temporary, folder) = deep_folder();
        serve_while(&folder, || {
            let mode = folder.path().join("s").metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            let mut line = Line::connect(&folder, "s", SECONDS).unwrap();
            for _ in 0..2 {
                let answer = line.ask(&Request::Hello {}, SECONDS).unwrap();
                assert_eq!(answer, Answer::Hello { run_id: "id".into(), pid: 1 });
            }
        });
    }

    #[test]
    fn stuck_clients_hold_nobody_up() {
        let (_temporary, folder) = deep_folder();
        serve_while(&folder, || {
            let raw = || UnixStream::connect(folder.short_path("s")).unwrap();
            let silent: Vec<_> = (0..CLIENTS_MAX - 4).map(|_| raw()).collect();
            let mut half = raw();
            half.write_all(b"{\"ask\":").unwrap();
            let mut deaf = raw(); // asks for more than a socket buffer holds and reads nothing
            deaf.write_all(b"{\"ask\":\"status\"}\n{\"ask\":\"status\"}\n").unwrap();
            let mut waits = raw();
            waits.write_all(b"{\"ask\":\"stop\",\"run_id\":\"id\"}\n").unwrap();
            for _ in 0..2 * CLIENTS_MAX {
                let mut line = Line::connect(&folder, "s", SECONDS).unwrap();
                assert!(matches!(line.ask(&Request::Hello {}, SECONDS).unwrap(), Answer::Hello { .. }));
            }
            let mut line = Line::connect(&folder, "s", SECONDS).unwrap();
            let Answer::Refused { why } = line.ask(&Request::Status {}, SECONDS).unwrap() else { panic!() };
            assert_eq!(why.len(), 400_000);
            drop(silent);
        });
    }

    #[test]
    fn junk_is_refused_and_endless_junk_is_cut() {
        let (_temporary, folder) = deep_folder();
        serve_while(&folder, || {
            let mut raw = UnixStream::connect(folder.short_path("s")).unwrap();
            raw.set_read_timeout(Some(SECONDS)).unwrap();
            raw.write_all(b"GET / HTTP/1.1\r\n").unwrap();
            let mut answer = [0; 30];
            raw.read_exact(&mut answer).unwrap();
            assert!(answer.starts_with(br#"{"answer":"refused""#));
            // Closed under the flood: a write fails, or the stream ends.
            let _ = raw.write_all(&[b'x'; 2 * REQUEST_BYTES_MAX]);
            let _ = raw.read_to_end(&mut Vec::new());
        });
    }

    #[test]
    fn the_end_is_told_to_those_who_wait_for_it() {
        let (_temporary, folder) = deep_folder();
        let mut socket = ControlSocket::bind(&folder, "s").unwrap();
        let mut waits = UnixStream::connect(folder.short_path("s")).unwrap();
        waits.write_all(b"{\"ask\":\"stop\",\"run_id\":\"id\"}\n").unwrap();
        for _ in 0..3 {
            let mut fds = socket.interest();
            poll::wait(&mut fds, Some(Duration::from_millis(20))).unwrap();
            let ready: Vec<_> = fds.iter().map(PollFd::revents).collect();
            socket.serve(&ready, Instant::now(), |_| Reply::AtTheEnd);
        }
        socket.finish(&Answer::Refused { why: "over".into() });
        assert!(!socket.owes());
        drop(socket);
        let mut text = String::new();
        waits.read_to_string(&mut text).unwrap();
        assert_eq!(text, "{\"answer\":\"refused\",\"why\":\"over\"}\n");
    }
}
