//! Two things that origin and relay share: connections kept by a key that an epoll event carries, and
//! non-blocking sockets on loopback.
//!
//! A key holds a generation, so that an event fetched before its connection closed finds nothing, not another.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::{AsFd, OwnedFd};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

/// Everything a connection can tell, once a change.
pub(crate) const EDGES: EventFlags =
    EventFlags::IN.union(EventFlags::OUT).union(EventFlags::RDHUP).union(EventFlags::ET);

/// Connections by key.
pub(crate) struct Slots<T> {
    entries: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
}

impl<T> Slots<T> {
    pub(crate) fn new() -> Self {
        Self { entries: Vec::new(), free: Vec::new() }
    }

    /// Keeps `value`; the key uses 62 bits, the lowest of them for the place.
    pub(crate) fn insert(&mut self, value: T) -> u64 {
        let place = self.free.pop().unwrap_or_else(|| {
            self.entries.push((0, None));
            u32::try_from(self.entries.len() - 1).unwrap_or(u32::MAX)
        });
        let Some((generation, entry)) = self.entries.get_mut(place as usize) else { return u64::MAX };
        *generation = (*generation + 1) & 0x3fff_ffff;
        *entry = Some(value);
        u64::from(*generation) << 32 | u64::from(place)
    }

    pub(crate) fn find(&mut self, key: u64) -> Option<&mut T> {
        let (generation, entry) = self.entries.get_mut(usize::try_from(key & 0xffff_ffff).ok()?)?;
        if u64::from(*generation) == key >> 32 { entry.as_mut() } else { None }
    }

    pub(crate) fn remove(&mut self, key: u64) {
        if self.find(key).is_some() {
            let place = key & 0xffff_ffff;
            if let Some((_, entry)) =
                usize::try_from(place).ok().and_then(|place| self.entries.get_mut(place))
            {
                *entry = None;
                self.free.extend(u32::try_from(place));
            }
        }
    }
}

/// Adds a descriptor to an epoll set; the event will carry `key`.
pub(crate) fn watch(set: &OwnedFd, member: impl AsFd, key: u64, events: EventFlags) -> io::Result<()> {
    Ok(epoll::add(set, member, EventData::new_u64(key), events)?)
}

/// A non-blocking listener on loopback; port 0 is any. `shared` lets several threads listen on one port.
pub(crate) fn listen(port: u16, shared: bool) -> io::Result<TcpListener> {
    let socket = stream_socket()?;
    sockopt::set_socket_reuseport(&socket, shared)?;
    rustix::net::bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))?;
    rustix::net::listen(&socket, 4096)?;
    Ok(TcpListener::from(socket))
}

/// Takes a connection if one waits.
pub(crate) fn accept(listener: &TcpListener) -> io::Result<Option<TcpStream>> {
    match rustix::net::accept_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
        Ok(socket) => {
            sockopt::set_tcp_nodelay(&socket, true)?;
            Ok(Some(TcpStream::from(socket)))
        }
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR | rustix::io::Errno::CONNABORTED) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A non-blocking connection to `address`, perhaps still on its way; writes wait until it stands.
pub(crate) fn dial(address: SocketAddrV4) -> io::Result<TcpStream> {
    let socket = stream_socket()?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(TcpStream::from(socket)),
        Err(error) => Err(error.into()),
    }
}

fn stream_socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    Ok(rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?)
}
