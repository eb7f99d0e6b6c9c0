//! The TLS ClientHello: server name, protocols, versions, and whether a hidden hello goes with it.
//!
//! Read across records and segments. A filter must read at least what a server reads, so whatever a server might
//! take differently is refused: names and lengths that disagree, duplicate extensions, SSL 2 hellos. Unknown
//! suites, groups, extensions and GREASE (RFC 8701) pass. Not here: whether the name may be dialled (policy).
//!
//! ```text
//! [Record header] -> [payload] -+-> hello complete -> parsed once
//!        ^                      |
//!        +----------------------+
//! ```

use std::fmt;
use std::net::IpAddr;

use crate::limits::HELLO_BYTES_MAX;
use crate::wire::Step;
use crate::wire::target::{Host, TargetError};

/// What a ClientHello says in clear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The server name, canonical. RFC 6066 wants a DNS name; clients that send an address get it read as one.
    pub sni: Option<Host>,
    /// The protocols that the client offers (RFC 7301).
    pub alpn: Alpn,
    /// Whether it carries Encrypted Client Hello. GREASE looks the same: that is its purpose.
    pub ech: Ech,
    /// `supported_versions` in the client's order, GREASE included; where it is absent, the legacy version alone.
    pub versions: Vec<u16>,
    /// TLS records that it spans.
    pub records: usize,
    /// Bytes from the start of the stream through its last byte.
    pub consumed: usize,
}

/// Encrypted Client Hello (RFC 9849): then `sni` is the outer name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ech {
    /// No such extension.
    Absent,
    /// The extension is there.
    Present,
}

/// A list of protocol names, as length-prefixed on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Alpn(Box<[u8]>);

impl Alpn {
    /// The names in the client's order, each of 1 to 255 bytes.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = Cursor(&self.0);
        std::iter::from_fn(move || rest.bytes8().ok())
    }

    /// Whether none is offered.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Why the bytes are no ClientHello that a filter may believe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HelloError {
    /// A record that is no handshake record, before the hello was complete.
    RecordType(u8),
    /// A record whose major version is not 3.
    RecordVersion,
    /// A handshake record that is empty or over 2^14 bytes (RFC 8446, 5.1).
    RecordLength,
    /// A hello in the form of SSL 2.
    Ssl2,
    /// A handshake message of another type.
    MessageType(u8),
    /// More than `HELLO_BYTES_MAX`.
    TooLong,
    /// A legacy version under 3.0.
    Version,
    /// A length that disagrees with what it measures.
    Length,
    /// An extension that stands there twice (RFC 8446, 4.2).
    DuplicateExtension(u16),
    /// No name, several, or one that is no host name (RFC 6066, 3).
    ServerNameList,
    /// The server name has no canonical form.
    ServerName(TargetError),
    /// An `encrypted_client_hello` that is neither an outer nor an inner one.
    Ech,
    /// Bytes were pushed after the answer.
    Finished,
}

impl fmt::Display for HelloError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            HelloError::RecordType(byte) => {
                return write!(f, "a TLS record of type {byte} inside the ClientHello");
            }
            HelloError::RecordVersion => "a TLS record of an unknown version",
            HelloError::RecordLength => "a TLS handshake record that is empty or too long",
            HelloError::Ssl2 => "a hello in the form of SSL 2",
            HelloError::MessageType(byte) => {
                return write!(f, "handshake message {byte} instead of a ClientHello");
            }
            HelloError::TooLong => "a ClientHello of more than 64 KiB",
            HelloError::Version => "a ClientHello older than SSL 3",
            HelloError::Length => "a ClientHello with lengths that disagree",
            HelloError::DuplicateExtension(kind) => {
                return write!(f, "extension {kind} twice in a ClientHello");
            }
            HelloError::ServerNameList => {
                "a ClientHello without exactly one host name in its server name list"
            }
            HelloError::ServerName(error) => return write!(f, "server name: {error}"),
            HelloError::Ech => "a malformed encrypted_client_hello extension",
            HelloError::Finished => "bytes pushed after the ClientHello was complete",
        };
        f.write_str(text)
    }
}

impl std::error::Error for HelloError {}

/// Reads one ClientHello from the bytes that a client sends.
#[derive(Debug, Clone, Default)]
pub struct HelloReader {
    /// The header of the current record, as far as it came.
    header: [u8; 5],
    header_len: usize,
    /// Payload that the current record still owes.
    record_left: usize,
    /// Handshake bytes so far: four of header, then the body.
    message: Vec<u8>,
    records: usize,
    consumed: usize,
    is_finished: bool,
}

impl HelloReader {
    /// At the start of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in the next bytes, only those that are new. `consumed` of the answer counts from the first push;
    /// what follows it is not looked at.
    ///
    /// # Errors
    /// As soon as the bytes cannot become a ClientHello that is to be believed. Then, and after an answer, the
    /// reader is finished.
    pub fn push(&mut self, new: &[u8]) -> Result<Step<Hello>, HelloError> {
        if self.is_finished {
            return Err(HelloError::Finished);
        }
        let step = self.read(new);
        self.is_finished = !matches!(step, Ok(Step::More));
        step
    }

    fn read(&mut self, mut new: &[u8]) -> Result<Step<Hello>, HelloError> {
        loop {
            if let Some(body) = self.body() {
                let hello = ClientHello::parse(body)?;
                return Ok(Step::Done(hello.into_hello(self.records, self.consumed)));
            }
            let Some((&byte, rest)) = new.split_first() else { return Ok(Step::More) };
            if self.record_left == 0 {
                new = rest;
                self.read_header(byte)?;
                self.count(1)?;
            } else {
                let taken = new.len().min(self.wanted());
                let (payload, rest) = new.split_at_checked(taken).unwrap_or((new, &[]));
                new = rest;
                self.message.extend_from_slice(payload);
                self.record_left -= payload.len();
                self.count(payload.len())?;
                self.check_message()?;
            }
        }
    }

    /// One more byte of a record header (RFC 8446, 5.1), judged at once.
    fn read_header(&mut self, byte: u8) -> Result<(), HelloError> {
        match (self.header_len, byte) {
            (0, 22) => {}
            // The form of SSL 2 has its length here, and in the third byte the type of a hello.
            (0, 0x80..) if self.records == 0 => return Err(HelloError::Ssl2),
            (0, other) => return Err(HelloError::RecordType(other)),
            (1, 3) => {}
            (1, _) => return Err(HelloError::RecordVersion),
            _ => {}
        }
        if let Some(slot) = self.header.get_mut(self.header_len) {
            *slot = byte;
        }
        self.header_len += 1;
        if let (5, [_, _, _, high, low]) = (self.header_len, self.header) {
            self.record_left = usize::from(u16::from_be_bytes([high, low]));
            if !(1..=RECORD_BYTES_MAX).contains(&self.record_left) {
                return Err(HelloError::RecordLength);
            }
            self.header_len = 0;
            self.records += 1;
        }
        Ok(())
    }

    /// How much of the current record belongs to what is being read: the message's header first, so that the
    /// body is bounded before it is collected.
    fn wanted(&self) -> usize {
        let end = self.message_len().unwrap_or(MESSAGE_HEADER_BYTES);
        end.saturating_sub(self.message.len()).min(self.record_left)
    }

    /// Bytes of the whole message, header included, where its header is there.
    fn message_len(&self) -> Option<usize> {
        let &[_, high, middle, low] = self.message.first_chunk::<MESSAGE_HEADER_BYTES>()?;
        Some(MESSAGE_HEADER_BYTES + u32::from_be_bytes([0, high, middle, low]) as usize)
    }

    /// The message is a ClientHello that can fit.
    fn check_message(&self) -> Result<(), HelloError> {
        match self.message.first() {
            Some(&CLIENT_HELLO) | None => {}
            Some(&other) => return Err(HelloError::MessageType(other)),
        }
        match self.message_len() {
            Some(len) if len > HELLO_BYTES_MAX => Err(HelloError::TooLong),
            _ => Ok(()),
        }
    }

    /// The body, once it is complete.
    fn body(&self) -> Option<&[u8]> {
        let len = self.message_len()?;
        (self.message.len() >= len).then(|| self.message.get(MESSAGE_HEADER_BYTES..len)).flatten()
    }

    /// Counts bytes of the stream; they stay in the caller's buffer, so headers count too.
    fn count(&mut self, len: usize) -> Result<(), HelloError> {
        self.consumed += len;
        if self.consumed > HELLO_BYTES_MAX { Err(HelloError::TooLong) } else { Ok(()) }
    }
}

/// Payload of one plaintext record (RFC 8446, 5.1).
const RECORD_BYTES_MAX: usize = 1 << 14;
/// Type and 24 bits of length (RFC 8446, 4).
const MESSAGE_HEADER_BYTES: usize = 4;
/// Handshake type (RFC 8446, 4).
const CLIENT_HELLO: u8 = 1;
/// Extension types (IANA).
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
const SUPPORTED_VERSIONS: u16 = 43;
const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;

/// The body of a hello (RFC 8446, 4.1.2), as far as it matters here.
#[derive(Debug, Default)]
struct ClientHello {
    sni: Option<Host>,
    alpn: Alpn,
    ech: bool,
    versions: Vec<u16>,
}

impl ClientHello {
    fn parse(body: &[u8]) -> Result<ClientHello, HelloError> {
        let mut body = Cursor(body);
        let legacy_version = body.u16()?;
        if legacy_version < 0x0300 {
            return Err(HelloError::Version);
        }
        body.take(32)?; // random
        if body.bytes8()?.len() > 32 {
            return Err(HelloError::Length); // session id
        }
        let suites = body.bytes16()?.len();
        if suites == 0 || suites % 2 != 0 || body.bytes8()?.is_empty() {
            return Err(HelloError::Length); // or compression methods
        }
        let mut hello = ClientHello { versions: vec![legacy_version], ..ClientHello::default() };
        // RFC 5246, 7.4.1.2: the extensions may be absent altogether.
        if !body.0.is_empty() {
            let mut extensions = Cursor(body.bytes16()?);
            body.finish()?;
            hello.read_extensions(&mut extensions)?;
        }
        Ok(hello)
    }

    fn read_extensions(&mut self, extensions: &mut Cursor<'_>) -> Result<(), HelloError> {
        let mut kinds = Vec::with_capacity(24);
        while !extensions.0.is_empty() {
            let kind = extensions.u16()?;
            let data = Cursor(extensions.bytes16()?);
            kinds.push(kind);
            match kind {
                SERVER_NAME => self.sni = Some(server_name(data)?),
                ALPN => self.alpn = protocols(data)?,
                SUPPORTED_VERSIONS => self.versions = versions(data)?,
                ENCRYPTED_CLIENT_HELLO => {
                    check_ech(data)?;
                    self.ech = true;
                }
                _ => {}
            }
        }
        kinds.sort_unstable();
        match kinds.windows(2).find(|pair| pair.first() == pair.last()) {
            Some(pair) => Err(HelloError::DuplicateExtension(pair.first().copied().unwrap_or_default())),
            None => Ok(()),
        }
    }

    fn into_hello(self, records: usize, consumed: usize) -> Hello {
        let ech = if self.ech { Ech::Present } else { Ech::Absent };
        Hello { sni: self.sni, alpn: self.alpn, ech, versions: self.versions, records, consumed }
    }
}

/// RFC 6066, 3: one entry, of type host_name.
fn server_name(mut data: Cursor<'_>) -> Result<Host, HelloError> {
    let mut list = Cursor(data.bytes16()?);
    data.finish()?;
    if list.0.is_empty() || list.u8()? != 0 {
        return Err(HelloError::ServerNameList);
    }
    let name = list.bytes16()?;
    if !list.0.is_empty() {
        return Err(HelloError::ServerNameList);
    }
    // An address has no brackets here.
    let literal = std::str::from_utf8(name).ok().and_then(|text| text.parse::<IpAddr>().ok());
    match literal {
        Some(IpAddr::V6(ip)) => Ok(Host::V6(ip)),
        _ if name.first() == Some(&b'[') => Err(HelloError::ServerName(TargetError::Bracket)),
        _ => Host::parse(name).map_err(HelloError::ServerName),
    }
}

/// RFC 7301, 3.1: at least one name, none empty.
fn protocols(mut data: Cursor<'_>) -> Result<Alpn, HelloError> {
    let list = data.bytes16()?;
    data.finish()?;
    let mut names = Cursor(list);
    if list.is_empty() {
        return Err(HelloError::Length);
    }
    while !names.0.is_empty() {
        if names.bytes8()?.is_empty() {
            return Err(HelloError::Length);
        }
    }
    Ok(Alpn(list.into()))
}

/// RFC 8446, 4.2.1: at least one.
fn versions(mut data: Cursor<'_>) -> Result<Vec<u16>, HelloError> {
    let list = data.bytes8()?;
    data.finish()?;
    let (pairs, odd) = list.as_chunks::<2>();
    if pairs.is_empty() || !odd.is_empty() {
        return Err(HelloError::Length);
    }
    Ok(pairs.iter().map(|&pair| u16::from_be_bytes(pair)).collect())
}

/// RFC 9849, 5: outer (suite, config id, key, payload), or inner, which is empty.
fn check_ech(mut data: Cursor<'_>) -> Result<(), HelloError> {
    match data.u8()? {
        0 => {
            data.take(5)?;
            data.bytes16()?;
            if data.bytes16()?.is_empty() {
                return Err(HelloError::Ech);
            }
        }
        1 => {}
        _ => return Err(HelloError::Ech),
    }
    data.finish()
}

/// Bytes from front to back; every read is checked.
#[derive(Debug)]
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], HelloError> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(HelloError::Length)?;
        self.0 = rest;
        Ok(taken)
    }

    fn u8(&mut self) -> Result<u8, HelloError> {
        let (&byte, rest) = self.0.split_first().ok_or(HelloError::Length)?;
        self.0 = rest;
        Ok(byte)
    }

    fn u16(&mut self) -> Result<u16, HelloError> {
        let (&bytes, rest) = self.0.split_first_chunk::<2>().ok_or(HelloError::Length)?;
        self.0 = rest;
        Ok(u16::from_be_bytes(bytes))
    }

    /// Bytes behind their length in 8 bits.
    fn bytes8(&mut self) -> Result<&'a [u8], HelloError> {
        let len = self.u8()?;
        self.take(usize::from(len))
    }

    /// Bytes behind their length in 16 bits.
    fn bytes16(&mut self) -> Result<&'a [u8], HelloError> {
        let len = self.u16()?;
        self.take(usize::from(len))
    }

    /// Nothing is left over.
    fn finish(&self) -> Result<(), HelloError> {
        if self.0.is_empty() { Ok(()) } else { Err(HelloError::Length) }
    }
}

/// Any bytes: every split gives the answer of the whole, junk behind a hello changes nothing, the bound holds.
#[cfg(any(test, feature = "fuzz"))]
pub fn fuzz(data: &[u8]) {
    let whole = HelloReader::new().push(data);
    for step in [1, 3, 11, data.len().div_ceil(2).max(1)] {
        let mut reader = HelloReader::new();
        let mut answer = Ok(Step::More);
        for part in data.chunks(step) {
            answer = reader.push(part);
            if answer != Ok(Step::More) {
                assert_eq!(reader.push(b"x"), Err(HelloError::Finished));
                break;
            }
        }
        assert_eq!(answer, whole, "in steps of {step}");
    }
    if let Ok(Step::Done(hello)) = &whole {
        assert!(hello.consumed <= data.len().min(HELLO_BYTES_MAX) && hello.records > 0);
        assert!(hello.alpn.iter().all(|name| !name.is_empty()) && !hello.versions.is_empty());
        let short = data.get(..hello.consumed - 1).unwrap_or_default();
        assert_eq!(HelloReader::new().push(short), Ok(Step::More));
        let junk = [data, b"\xff"].concat();
        assert_eq!(HelloReader::new().push(&junk), whole);
    }
    assert!(whole != Ok(Step::More) || data.len() <= HELLO_BYTES_MAX);
}

#[cfg(test)]
mod tests;
