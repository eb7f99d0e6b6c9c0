//! Canonical targets: host, port, authority and absolute-form.
//!
//! Whatever cannot be brought to the one canonical form is refused here, so that policy, DNS and SNI compare
//! plain equal values afterwards. Not here: what an address means (that is the policy's guard), and paths.
//!
//! Invariants: a `Host::Name` never reads as an address to any resolver (its last label is no number), holds
//! only letters, digits, `-`, `_` and dots, and carries no trailing dot. Ports are never zero.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::limits::{LABEL_BYTES_MAX, NAME_BYTES_MAX};
use crate::wire::Span;

/// A host in its one canonical form.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// A DNS name: lower case ASCII, no trailing dot, labels of 1 to 63 bytes, at most 253 bytes.
    Name(Box<str>),
    /// An IPv4 literal, written as a dotted quad.
    V4(Ipv4Addr),
    /// An IPv6 literal, written in brackets.
    V6(Ipv6Addr),
}

impl Host {
    /// The host that `text` spells: a DNS name, a strict dotted quad, or an IPv6 address in brackets. One
    /// trailing dot is taken off.
    ///
    /// # Errors
    /// When it has no canonical form.
    pub fn parse(text: &[u8]) -> Result<Host, TargetError> {
        if let [b'[', inner @ ..] = text {
            let [inner @ .., b']'] = inner else { return Err(TargetError::Bracket) };
            return bracketed(inner);
        }
        let text = text.strip_suffix(b".").unwrap_or(text);
        let last = last_label(text)?;
        let name = std::str::from_utf8(text).map_err(|_| TargetError::NonAscii)?;
        if is_number(last) {
            // `Ipv4Addr` takes exactly four decimal parts without leading zeros: nothing that some resolvers
            // read as octal, hexadecimal or a single 32-bit number gets past it.
            return name.parse().map(Host::V4).map_err(|_| TargetError::Numeric);
        }
        Ok(Host::Name(name.to_ascii_lowercase().into_boxed_str()))
    }

    /// The address, where the host is a literal.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Host::Name(_) => None,
            Host::V4(ip) => Some(IpAddr::V4(*ip)),
            Host::V6(ip) => Some(IpAddr::V6(*ip)),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Name(name) => f.write_str(name),
            Host::V4(ip) => write!(f, "{ip}"),
            Host::V6(ip) => write!(f, "[{ip}]"),
        }
    }
}

/// Host and port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Authority {
    /// The host.
    pub host: Host,
    /// 1 to 65535.
    pub port: u16,
}

impl Authority {
    /// Authority-form of a CONNECT (RFC 9112, 3.2.3): host, colon, port, nothing else.
    ///
    /// # Errors
    /// When host or port have no canonical form, or the port is missing.
    pub fn connect(text: &[u8]) -> Result<Authority, TargetError> {
        let (host, port) = split(text)?;
        Ok(Authority { host: Host::parse(host)?, port: parse_port(port.ok_or(TargetError::PortMissing)?)? })
    }

    /// The value of a Host field, or the authority of an absolute-form: the port may be missing.
    ///
    /// # Errors
    /// When host or port have no canonical form; a colon without a port after it is an error too.
    pub fn host_field(text: &[u8], default_port: u16) -> Result<Authority, TargetError> {
        let (host, port) = split(text)?;
        let port = port.map_or(Ok(default_port), parse_port)?;
        Ok(Authority { host: Host::parse(host)?, port })
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Absolute-form of a plain-HTTP request through a proxy (RFC 9112, 3.2.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Absolute {
    /// Whom it names; port 80 where it names none.
    pub authority: Authority,
    /// Path and query as spelled: empty, or beginning with `/` or `?`. Towards an origin an empty path is `/`.
    pub path: Span,
}

impl Absolute {
    /// The parts of an `http://` target; the scheme in any case.
    ///
    /// # Errors
    /// Other schemes (`https://` has an error of its own), userinfo, fragments, and authorities without a
    /// canonical form.
    pub fn parse(text: &[u8]) -> Result<Absolute, TargetError> {
        let scheme = text.iter().position(|&b| b == b':').and_then(|at| text.get(..at));
        let rest = match scheme {
            Some(name) if name.eq_ignore_ascii_case(b"http") => text.get(name.len() + 1..),
            Some(name) if name.eq_ignore_ascii_case(b"https") => return Err(TargetError::HttpsAbsolute),
            _ => None,
        };
        let rest = rest.and_then(|rest| rest.strip_prefix(b"//")).ok_or(TargetError::Scheme)?;
        if rest.contains(&b'#') {
            return Err(TargetError::Fragment);
        }
        if std::str::from_utf8(rest).is_err() {
            return Err(TargetError::Encoding);
        }
        let host_len = rest.iter().position(|&b| matches!(b, b'/' | b'?')).unwrap_or(rest.len());
        let authority = Authority::host_field(rest.get(..host_len).unwrap_or_default(), 80)?;
        Ok(Absolute { authority, path: Span::new(text.len() - rest.len() + host_len, text.len()) })
    }
}

/// Why a target has no canonical form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetError {
    /// There is no host.
    Empty,
    /// A byte that no host name holds.
    Byte(u8),
    /// A byte outside ASCII; an internationalised name is spelled `xn--…`.
    NonAscii,
    /// `user@` or `user:password@` in front of the host.
    Userinfo,
    /// Two dots in a row, or a leading one.
    EmptyLabel,
    /// A label of more than 63 bytes.
    LabelTooLong,
    /// A name of more than 253 bytes.
    NameTooLong,
    /// It ends in a number but is no dotted quad: resolvers read such names as addresses, each in its own way.
    Numeric,
    /// Brackets that do not close, or around what is no IPv6 address.
    Bracket,
    /// An IPv6 address with a zone.
    Zone,
    /// No port where one must stand.
    PortMissing,
    /// A port that is not 1 to 65535 in one to five digits.
    Port,
    /// `https://` sent in clear: TLS goes through CONNECT.
    HttpsAbsolute,
    /// An absolute-form whose scheme is not `http`.
    Scheme,
    /// A fragment; it never belongs on the wire.
    Fragment,
    /// A path that is not UTF-8. Clients do send raw UTF-8 (RFC 3986 wants it percent-encoded), so that passes.
    Encoding,
}

impl fmt::Display for TargetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            TargetError::Empty => "the target names no host",
            TargetError::Byte(byte) => return write!(f, "byte 0x{byte:02x} in a host name"),
            TargetError::NonAscii => "a host name outside ASCII; spell it as xn--",
            TargetError::Userinfo => {
                "user information in front of the host; send it as an Authorization field"
            }
            TargetError::EmptyLabel => "a host name with an empty label",
            TargetError::LabelTooLong => "a host name with a label of more than 63 bytes",
            TargetError::NameTooLong => "a host name of more than 253 bytes",
            TargetError::Numeric => "a host that ends in a number but is no dotted quad",
            TargetError::Bracket => "brackets around what is no IPv6 address",
            TargetError::Zone => "an IPv6 address with a zone",
            TargetError::PortMissing => "the target names no port; CONNECT wants host:port",
            TargetError::Port => "a port that is not 1 to 65535",
            TargetError::HttpsAbsolute => "an https:// target in clear; use CONNECT",
            TargetError::Scheme => "a target that is neither http:// nor a path",
            TargetError::Fragment => "a target with a fragment",
            TargetError::Encoding => "a path that is not UTF-8; percent-encode it",
        };
        f.write_str(text)
    }
}

impl std::error::Error for TargetError {}

/// What stands between brackets.
fn bracketed(inner: &[u8]) -> Result<Host, TargetError> {
    if inner.contains(&b'%') {
        return Err(TargetError::Zone);
    }
    let text = std::str::from_utf8(inner).map_err(|_| TargetError::Bracket)?;
    text.parse().map(Host::V6).map_err(|_| TargetError::Bracket)
}

/// Checks every byte and label of a name; answers its last label.
fn last_label(name: &[u8]) -> Result<&[u8], TargetError> {
    if name.is_empty() {
        return Err(TargetError::Empty);
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(TargetError::NameTooLong);
    }
    let mut label_at = 0;
    for (at, &byte) in name.iter().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => {}
            b'.' => {
                check_label(at - label_at)?;
                label_at = at + 1;
            }
            b'@' => return Err(TargetError::Userinfo),
            0x80.. => return Err(TargetError::NonAscii),
            b'[' | b']' => return Err(TargetError::Bracket),
            _ => return Err(TargetError::Byte(byte)),
        }
    }
    check_label(name.len() - label_at)?;
    Ok(name.get(label_at..).unwrap_or_default())
}

fn check_label(len: usize) -> Result<(), TargetError> {
    match len {
        0 => Err(TargetError::EmptyLabel),
        _ if len > LABEL_BYTES_MAX => Err(TargetError::LabelTooLong),
        _ => Ok(()),
    }
}

/// Whether a resolver may read a name that ends in this label as an address: decimal, octal or hexadecimal
/// (the "ends in a number" checker of the URL standard; a bare `0x` counts).
fn is_number(label: &[u8]) -> bool {
    match label {
        [b'0', b'x' | b'X', hex @ ..] => hex.iter().all(u8::is_ascii_hexdigit),
        _ => label.iter().all(u8::is_ascii_digit),
    }
}

/// Host text and port text, where a colon stands.
fn split(text: &[u8]) -> Result<(&[u8], Option<&[u8]>), TargetError> {
    if text.contains(&b'@') {
        return Err(TargetError::Userinfo);
    }
    let host_len = match text.first() {
        Some(b'[') => text.iter().position(|&b| b == b']').ok_or(TargetError::Bracket)? + 1,
        _ => text.iter().position(|&b| b == b':').unwrap_or(text.len()),
    };
    let (host, rest) = text.split_at_checked(host_len).ok_or(TargetError::Bracket)?;
    match rest {
        [] => Ok((host, None)),
        [b':', port @ ..] => Ok((host, Some(port))),
        _ => Err(TargetError::Bracket),
    }
}

fn parse_port(text: &[u8]) -> Result<u16, TargetError> {
    if text.is_empty() || text.len() > 5 || !text.iter().all(u8::is_ascii_digit) {
        return Err(TargetError::Port);
    }
    let port = text.iter().fold(0_u32, |sum, &digit| sum * 10 + u32::from(digit - b'0'));
    u16::try_from(port).ok().filter(|&port| port != 0).ok_or(TargetError::Port)
}

/// Any bytes: what is accepted is canonical, reads back as itself, and no resolver takes a name for an address.
#[cfg(any(test, feature = "fuzz"))]
pub fn fuzz(data: &[u8]) {
    if let Ok(host) = Host::parse(data) {
        let text = host.to_string();
        assert_eq!(Host::parse(text.as_bytes()).as_ref(), Ok(&host), "{text} does not read back");
        if let Host::Name(name) = &host {
            assert!(name.len() <= NAME_BYTES_MAX && name.parse::<IpAddr>().is_err());
            assert!(name.split('.').all(|label| (1..=LABEL_BYTES_MAX).contains(&label.len())));
            assert!(!name.bytes().any(|b| b.is_ascii_uppercase() || !b.is_ascii_graphic()));
        }
    }
    if let Ok(authority) = Authority::connect(data) {
        let text = authority.to_string();
        assert_eq!(Authority::connect(text.as_bytes()).as_ref(), Ok(&authority));
        // A CONNECT target is also a Host field, whatever the default.
        assert_eq!(Authority::host_field(data, 1), Ok(authority));
    }
    if let Ok(absolute) = Absolute::parse(data) {
        let path = absolute.path.of(data);
        assert!(path.is_empty() || path.starts_with(b"/") || path.starts_with(b"?"));
        let rebuilt = [b"http://", absolute.authority.to_string().as_bytes(), path].concat();
        let again = Absolute::parse(&rebuilt);
        assert_eq!(again.map(|a| a.authority), Ok(absolute.authority));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn host(text: &str) -> Result<String, TargetError> {
        Host::parse(text.as_bytes()).map(|host| host.to_string())
    }

    #[test]
    fn hosts_have_one_spelling() {
        for (text, canonical) in [
            ("A.Test", "a.test"),
            ("a.test.", "a.test"),
            ("_acme-challenge.A-.-b.test", "_acme-challenge.a-.-b.test"),
            ("xn--bcher-kva.test", "xn--bcher-kva.test"),
            ("localhost", "localhost"),
            ("1.2.3.4", "1.2.3.4"),
            ("1.2.3.4.", "1.2.3.4"),
            ("1.2.3.4a", "1.2.3.4a"),
            ("0xg", "0xg"),
            ("[0:0::1]", "[::1]"),
            ("[::FFFF:1.2.3.4]", "[::ffff:1.2.3.4]"),
        ] {
            assert_eq!(host(text).as_deref(), Ok(canonical), "{text}");
        }
    }

    #[test]
    fn what_has_no_canonical_form_is_refused() {
        use TargetError::*;
        let long_label = "a".repeat(64);
        let long_name = format!("{}.{}", "a.".repeat(125), "abcd");
        for (text, error) in [
            ("", Empty),
            (".", Empty),
            ("..", EmptyLabel),
            ("a..b", EmptyLabel),
            (".a", EmptyLabel),
            ("a.test..", EmptyLabel),
            (&long_label, LabelTooLong),
            (&long_name, NameTooLong),
            ("a%2e.test", Byte(b'%')),
            ("a\0.test", Byte(0)),
            ("a .test", Byte(b' ')),
            ("a\tb", Byte(b'\t')),
            ("a/b", Byte(b'/')),
            ("a\\b", Byte(b'\\')),
            ("a,b.test", Byte(b',')),
            ("a:1", Byte(b':')),
            ("u@a.test", Userinfo),
            ("bücher.test", NonAscii),
            ("127.1", Numeric),
            ("2130706433", Numeric),
            ("017700000001", Numeric),
            ("0x7f.1", Numeric),
            ("0x7f000001", Numeric),
            ("0X7F000001", Numeric),
            ("0x", Numeric),
            ("127.0.0.0x1", Numeric),
            ("127.0.0.01", Numeric),
            ("1.2.3.4.5", Numeric),
            ("256.1.1.1", Numeric),
            ("a.test.1", Numeric),
            ("[::1", Bracket),
            ("::1]", Byte(b':')),
            ("a]", Bracket),
            ("[a.test]", Bracket),
            ("[1.2.3.4]", Bracket),
            ("[v1.a]", Bracket),
            ("[]", Bracket),
            ("[fe80::1%eth0]", Zone),
            ("[fe80::1%25eth0]", Zone),
        ] {
            assert_eq!(host(text), Err(error), "{text}");
        }
    }

    #[test]
    fn names_and_labels_fill_their_bounds() {
        let label = "a".repeat(LABEL_BYTES_MAX);
        assert_eq!(host(&label), Ok(label.clone()));
        let name = format!("{label}.{label}.{label}.{}", "b".repeat(61));
        assert_eq!(name.len(), NAME_BYTES_MAX);
        assert_eq!(host(&format!("{name}.")), Ok(name.clone()), "the trailing dot does not count");
        assert_eq!(host(&format!("{name}b")), Err(TargetError::NameTooLong));
    }

    #[test]
    fn connect_takes_host_and_port_and_nothing_else() {
        use TargetError::*;
        for (text, expected) in [
            ("A.test:443", Ok("a.test:443")),
            ("a.test.:00443", Ok("a.test:443")),
            ("[::1]:1", Ok("[::1]:1")),
            ("10.0.0.1:65535", Ok("10.0.0.1:65535")),
            ("a.test", Err(PortMissing)),
            ("[::1]", Err(PortMissing)),
            ("a.test:", Err(Port)),
            ("a.test:0", Err(Port)),
            ("a.test:65536", Err(Port)),
            ("a.test:65979", Err(Port)), // 443 modulo 65536
            ("a.test:000443", Err(Port)),
            ("a.test:+443", Err(Port)),
            ("a.test:-1", Err(Port)),
            ("a.test:443x", Err(Port)),
            ("a.test:443/x", Err(Port)),
            ("a.test:443,b.test", Err(Port)),
            ("a.test:443:443", Err(Port)),
            ("a.test: 443", Err(Port)),
            ("::1:443", Err(Empty)),
            (":443", Err(Empty)),
            ("u@a.test:443", Err(Userinfo)),
            ("a.test:443@b.test:443", Err(Userinfo)),
            ("[::1]443", Err(Bracket)),
            ("[::1]x:443", Err(Bracket)),
            ("http://a.test:443", Err(Port)),
            ("/", Err(Byte(b'/'))),
            ("*", Err(Byte(b'*'))),
        ] {
            let got = Authority::connect(text.as_bytes()).map(|authority| authority.to_string());
            assert_eq!(got.as_deref().map_err(|e| *e), expected, "{text}");
        }
    }

    #[test]
    fn host_field_falls_back_to_its_port() {
        let port = |text: &str| Authority::host_field(text.as_bytes(), 80).map(|authority| authority.port);
        assert_eq!(port("a.test"), Ok(80));
        assert_eq!(port("[::1]"), Ok(80));
        assert_eq!(port("a.test:8080"), Ok(8080));
        assert_eq!(port("a.test:"), Err(TargetError::Port));
        assert_eq!(port(""), Err(TargetError::Empty));
    }

    #[test]
    fn absolute_form_gives_authority_and_path() {
        use TargetError::*;
        for (text, expected) in [
            ("http://A.test/x?y", Ok(("a.test:80", "/x?y"))),
            ("HtTp://a.test", Ok(("a.test:80", ""))),
            ("http://a.test?q=http://b.test/", Ok(("a.test:80", "?q=http://b.test/"))),
            ("http://[::1]:8080/", Ok(("[::1]:8080", "/"))),
            ("http://a.test//b@c", Ok(("a.test:80", "//b@c"))),
            ("https://a.test/", Err(HttpsAbsolute)),
            ("ftp://a.test/", Err(Scheme)),
            ("http:/a.test/", Err(Scheme)),
            ("http:a.test", Err(Scheme)),
            ("//a.test/", Err(Scheme)),
            ("a.test", Err(Scheme)),
            ("http://", Err(Empty)),
            ("http:///x", Err(Empty)),
            ("http://a.test#f", Err(Fragment)),
            ("http://a.test/#f", Err(Fragment)),
            ("http://u:p@a.test/", Err(Userinfo)),
            ("http://a.test\\@b.test/", Err(Userinfo)),
            ("http://a.test\\b/", Err(Byte(b'\\'))),
            ("http://a.test:/", Err(Port)),
            ("http://\u{e9}.test/", Err(NonAscii)),
        ] {
            let got = Absolute::parse(text.as_bytes());
            let got =
                got.map(|a| (a.authority.to_string(), String::from_utf8_lossy(a.path.of(text.as_bytes()))));
            assert_eq!(
                got.as_ref().map(|(a, p)| (a.as_str(), p.as_ref())).map_err(|e| *e),
                expected,
                "{text}"
            );
        }
    }

    proptest! {
        #[test]
        fn canonical_forms_read_back(data in "\\PC{0,80}|[a-z0-9.:x\\[\\]-]{0,40}|http://[a-z0-9.:/?\\[\\]@-]{0,40}") {
            fuzz(data.as_bytes());
        }
    }
}
