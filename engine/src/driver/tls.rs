//! TLS over a socket of this core: rustls driven by readiness.
//!
//! Not a policy on certificates: the configuration that is handed in decides whom to trust. Towards https parents
//! only, for now. The session stands in a `RefCell` so that both directions of a tunnel can use it; no borrow
//! lives across an await.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::sync::Arc;

use rustix::net::{RecvFlags, SendFlags};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use crate::policy::{Parent, Policy};

use super::rt::Source;

/// A client's TLS session over a connected socket.
pub(crate) struct Tls {
    source: Source,
    session: RefCell<ClientConnection>,
    /// The peer closed the TCP stream; without a close_notify before it, reads end in an error.
    ended: Cell<bool>,
}

impl Tls {
    /// Does the handshake; the caller holds the deadline.
    ///
    /// # Errors
    /// `InvalidData` with rustls' words where the certificate or the handshake is at fault, else those of the socket.
    pub(crate) async fn connect(
        source: Source,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> io::Result<Self> {
        let session = ClientConnection::new(config, name).map_err(invalid)?;
        let tls = Self { source, session: RefCell::new(session), ended: Cell::new(false) };
        while tls.session.borrow().is_handshaking() {
            tls.flush().await?;
            if !tls.session.borrow().is_handshaking() {
                break;
            }
            match tls.take_in()? {
                TookIn::Nothing => tls.source.readable().await?,
                TookIn::Bytes => {}
                TookIn::End => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        tls.flush().await?;
        Ok(tls)
    }

    pub(crate) fn source(&self) -> &Source {
        &self.source
    }

    pub(crate) async fn readable(&self) -> io::Result<()> {
        if self.ended.get() || !self.session.borrow().wants_read() {
            return Ok(());
        }
        self.source.readable().await
    }

    pub(crate) fn try_read(&self, into: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            match self.session.borrow_mut().reader().read(into) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // UnexpectedEof without close_notify: a stream that was cut is not complete (RFC 8446, 6.1).
                answer => return answer.map(Some),
            }
            match self.take_in()? {
                TookIn::Nothing => return Ok(None),
                TookIn::Bytes | TookIn::End => {}
            }
        }
    }

    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<Option<usize>> {
        if !self.give_out()? {
            return Ok(None);
        }
        let taken = self.session.borrow_mut().writer().write(bytes)?;
        self.give_out()?;
        Ok(Some(taken))
    }

    /// Waits until everything written is with the kernel.
    pub(crate) async fn flush(&self) -> io::Result<()> {
        while !self.give_out()? {
            self.source.writable().await?;
        }
        Ok(())
    }

    pub(crate) async fn close_notify(&self) -> io::Result<()> {
        self.session.borrow_mut().send_close_notify();
        self.flush().await
    }

    /// Moves records from the socket into the session.
    fn take_in(&self) -> io::Result<TookIn> {
        let mut session = self.session.borrow_mut();
        let took = match session.read_tls(&mut Socket(&self.source)) {
            Ok(0) => {
                self.ended.set(true);
                TookIn::End
            }
            Ok(_) => TookIn::Bytes,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(TookIn::Nothing),
            Err(error) => return Err(error),
        };
        if let Err(error) = session.process_new_packets() {
            // The alert that says why; the peer may be gone already.
            let _ = session.write_tls(&mut Socket(&self.source));
            return Err(invalid(error));
        }
        Ok(took)
    }

    /// Moves records from the session to the socket; false when the socket is full.
    fn give_out(&self) -> io::Result<bool> {
        let mut session = self.session.borrow_mut();
        while session.wants_write() {
            match session.write_tls(&mut Socket(&self.source)) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

enum TookIn {
    Nothing,
    Bytes,
    End,
}

fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// The socket as rustls wants it.
struct Socket<'a>(&'a Source);

impl Read for Socket<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::net::recv(self.0, into, RecvFlags::empty()).map(|(read, _)| read)?)
    }
}

impl Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::net::send(self.0, bytes, SendFlags::NOSIGNAL)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The TLS configurations of the parent proxies of a policy, by name.
#[derive(Default)]
pub(crate) struct ParentConfigs {
    by_name: HashMap<Arc<str>, Arc<ClientConfig>>,
}

impl ParentConfigs {
    /// One for each parent whose leg is TLS: the system's roots and those that the policy adds.
    ///
    /// # Errors
    /// One line: a root that cannot be used, or none at all.
    pub(crate) fn new(policy: &Policy) -> Result<Self, String> {
        let mut by_name = HashMap::new();
        for parent in policy.parents().filter(|parent| parent.tls) {
            by_name.insert(Arc::clone(&parent.name), Arc::new(client_config(parent)?));
        }
        Ok(Self { by_name })
    }

    /// The configuration for `parent`.
    pub(crate) fn of(&self, parent: &Parent) -> Option<Arc<ClientConfig>> {
        self.by_name.get(&parent.name).map(Arc::clone)
    }
}

fn client_config(parent: &Parent) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    // Single files of the system that do not parse are common and harmless; having no root at all is not.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    for root in &parent.roots {
        let root = CertificateDer::from(root.clone());
        roots.add(root).map_err(|error| {
            format!("parent proxy {}: a certificate of its ca_file: {error}", parent.name)
        })?;
    }
    if roots.is_empty() {
        return Err(format!("parent proxy {}: no trusted roots were found", parent.name));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = versions.map_err(|error| format!("parent proxy {}: {error}", parent.name))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
