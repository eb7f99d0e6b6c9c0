//! A proxy behind the daemon: takes CONNECT, with or without Basic auth, in clear or inside TLS, and remembers
//! what it was asked. Every name it is asked for leads to loopback. Plain HTTP it answers itself.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};

use rcgen::{CertificateParams, KeyPair};
use rustix::event::{PollFd, PollFlags, poll};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::client::Head;
use super::origin::Origin;

/// The answer of the parent to plain HTTP.
pub const PARENT_SAYS: &str = "from the parent";

/// A parent proxy.
#[derive(Debug)]
pub struct Parent {
    origin: Origin,
    heads: Arc<Mutex<Vec<Head>>>,
    certificate: Option<String>,
}

impl Parent {
    /// In clear; insists on this value of Proxy-Authorization when one is given.
    pub fn http(authorization: Option<&'static str>) -> Parent {
        let heads = Arc::new(Mutex::new(Vec::new()));
        let memory = Arc::clone(&heads);
        let origin = Origin::serve(move |wire| {
            let mut stream = wire.twin();
            let _ = serve(&mut stream, wire.stream(), authorization, &memory);
        });
        Parent { origin, heads, certificate: None }
    }

    /// Inside TLS, with a certificate of its own for 127.0.0.1 and `parent.weir.test`.
    pub fn https() -> Parent {
        let key = KeyPair::generate().unwrap();
        let names = vec!["parent.weir.test".to_owned(), "127.0.0.1".to_owned()];
        let certificate = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        let secret = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], secret)
            .unwrap();
        let (config, heads) = (Arc::new(config), Arc::new(Mutex::new(Vec::new())));
        let memory = Arc::clone(&heads);
        let origin = Origin::serve(move |wire| {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = StreamOwned::new(connection, wire.twin());
            let _ = serve(&mut stream, wire.stream(), None, &memory);
            stream.conn.send_close_notify();
            let _ = stream.flush();
        });
        Parent { origin, heads, certificate: Some(certificate.pem()) }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.origin.address().port()
    }

    /// Its certificate, PEM.
    ///
    /// # Panics
    /// When it speaks in clear.
    pub fn certificate(&self) -> &str {
        self.certificate.as_deref().expect("a parent inside TLS")
    }

    /// The heads that it was asked with, also refused ones.
    pub fn heads(&self) -> Vec<Head> {
        self.heads.lock().unwrap().clone()
    }
}

/// Serves one client over `stream`, whose socket is `socket`.
fn serve(
    stream: &mut (impl Read + Write),
    socket: &TcpStream,
    authorization: Option<&str>,
    heads: &Mutex<Vec<Head>>,
) -> io::Result<()> {
    loop {
        let head = read_head(stream)?;
        heads.lock().unwrap().push(head.clone());
        if authorization.is_some() && head.field("proxy-authorization") != authorization {
            return stream
                .write_all(b"HTTP/1.1 407 Who Are You\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
        let mut words = head.first.split(' ');
        if words.next() == Some("CONNECT") {
            let port = words.next().and_then(|target| target.rsplit_once(':')).unwrap().1.parse().unwrap();
            let Ok(mut upstream) = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))) else {
                return stream.write_all(b"HTTP/1.1 502 Not There\r\nContent-Length: 0\r\n\r\n");
            };
            stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
            stream.flush()?;
            return relay(stream, socket, &mut upstream);
        }
        let length = PARENT_SAYS.len();
        stream.write_all(
            format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{PARENT_SAYS}").as_bytes(),
        )?;
        stream.flush()?;
    }
}

/// Byte by byte, so that nothing behind the head is taken.
fn read_head(stream: &mut impl Read) -> io::Result<Head> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        bytes.push(byte[0]);
    }
    Ok(Head::parse(&bytes))
}

/// Passes bytes on until either side ends. One thread: a read each time that a socket has something.
fn relay(stream: &mut (impl Read + Write), socket: &TcpStream, upstream: &mut TcpStream) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        // What TLS holds already decrypted is read before the socket is waited for.
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(got) => upstream.write_all(&buffer[..got])?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        let mut sides = [PollFd::new(socket, PollFlags::IN), PollFd::new(upstream, PollFlags::IN)];
        poll(&mut sides, None)?;
        if sides[1].revents().intersects(PollFlags::IN | PollFlags::HUP) {
            let got = upstream.read(&mut buffer)?;
            if got == 0 {
                return Ok(());
            }
            socket.set_nonblocking(false)?;
            stream.write_all(&buffer[..got])?;
            stream.flush()?;
            socket.set_nonblocking(true)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Wire;

    #[test]
    fn relays_and_insists_on_authorization() {
        let echo = Origin::echo();
        let parent = Parent::http(Some("Basic bWU6c2VjcmV0"));
        let target = echo.named("anything.test");
        assert_eq!(Wire::dial(parent.origin.address()).connect(&target).status(), 407);
        let mut wire = Wire::dial(parent.origin.address());
        wire.send(format!("CONNECT {target} HTTP/1.1\r\nProxy-Authorization: Basic bWU6c2VjcmV0\r\n\r\n"));
        assert_eq!(wire.head().status(), 200);
        wire.echo(b"through");
        assert_eq!(parent.heads().len(), 2);
    }
}
