//! The field section of a head: where each field stands, and what the fields together say of framing.
//!
//! Every rule about a field that does not need the first line is here. Invariants: at most one Host, one
//! Content-Length and one Transfer-Encoding come out; a name that Connection lists is marked, unless removing it
//! would change what the message says or how it ends (RFC 9110, 7.6.1).

use crate::limits::HEAD_FIELDS_MAX;
use crate::wire::Span;
use crate::wire::head::{Framing, HeadError, HeadErrorKind, Version};
use crate::wire::syntax::{field_line, list};

/// One field, as offsets into its head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// The name as spelled.
    pub name: Span,
    /// The value without the white space around it.
    pub value: Span,
    pub(crate) known: Known,
    /// Connection lists its name, and it may be removed for that.
    pub(crate) named: bool,
}

/// The fields that framing and forwarding treat by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    Other,
    Host,
    ContentLength,
    TransferEncoding,
    Connection,
    ProxyConnection,
    /// `Proxy-Authenticate` and `Proxy-Authentication-Info`: from a proxy to its own client.
    ProxyChallenge,
    /// Any other name that begins with `Proxy-`.
    Proxy,
    KeepAlive,
    Te,
    Upgrade,
    /// `HTTP2-Settings`: nothing without an Upgrade to h2c (RFC 7540, 3.2.1).
    Http2Settings,
    Expect,
}

/// What a field section says.
#[derive(Debug, Default)]
pub(crate) struct Section {
    pub(crate) fields: Vec<Field>,
    pub(crate) host: Option<Span>,
    /// Content-Length, and where its value stands.
    length: Option<(u64, usize)>,
    /// Where `Transfer-Encoding: chunked` stands.
    chunked: Option<usize>,
    /// Connection (or Proxy-Connection) says close.
    pub(crate) close: bool,
    /// Connection says keep-alive.
    pub(crate) keep_alive: bool,
    /// There is an Upgrade field.
    pub(crate) upgrade: bool,
    /// `Expect: 100-continue`.
    pub(crate) expect_continue: bool,
    /// Connection lists names that may be fields.
    lists_names: bool,
}

impl Section {
    /// Reads the fields of `head` from `at` to the empty line, which must be its last bytes.
    pub(crate) fn parse(head: &[u8], mut at: usize) -> Result<Section, HeadError> {
        let mut section = Section { fields: Vec::with_capacity(16), ..Section::default() };
        while head.get(at..) != Some(b"\r\n") {
            let line = field_line(head, at)?;
            let known = Known::of(line.name.of(head));
            if section.fields.len() == HEAD_FIELDS_MAX {
                return Err(HeadError::new(HeadErrorKind::TooManyFields, at));
            }
            section.fields.push(Field { name: line.name, value: line.value, known, named: false });
            if known != Known::Other {
                section.note(head, known, line.value, at)?;
            }
            at = line.next;
        }
        if section.lists_names {
            section.mark_named(head)?;
        }
        Ok(section)
    }

    /// Where the body ends, by the fields alone; None where they do not say.
    pub(crate) fn framing(&self, version: Version) -> Result<Option<Framing>, HeadError> {
        match (self.chunked, self.length) {
            (Some(at), Some(_)) => Err(HeadError::new(HeadErrorKind::LengthAndCoding, at)),
            (Some(at), None) if version == Version::Http10 => {
                Err(HeadError::new(HeadErrorKind::CodingInHttp10, at))
            }
            (Some(_), None) => Ok(Some(Framing::Chunked)),
            (None, Some((length, _))) => Ok(Some(Framing::Length(length))),
            (None, None) => Ok(None),
        }
    }

    /// Where the fields announce a body that is not empty.
    pub(crate) fn announces_body(&self) -> Option<usize> {
        self.chunked.or(self.length.filter(|&(length, _)| length > 0).map(|(_, at)| at))
    }

    /// Takes in a field that is known by name.
    fn note(&mut self, head: &[u8], known: Known, value: Span, at: usize) -> Result<(), HeadError> {
        let text = value.of(head);
        let fail = |kind| Err(HeadError::new(kind, at));
        match known {
            Known::Host if self.host.is_some() => return fail(HeadErrorKind::HostRepeated),
            Known::Host => self.host = Some(value),
            Known::ContentLength if self.length.is_some() => return fail(HeadErrorKind::LengthRepeated),
            Known::ContentLength => match content_length(text) {
                Some(length) => self.length = Some((length, at)),
                None => return fail(HeadErrorKind::LengthMalformed),
            },
            Known::TransferEncoding if self.chunked.is_some() => return fail(HeadErrorKind::CodingRepeated),
            Known::TransferEncoding if text.eq_ignore_ascii_case(b"chunked") => self.chunked = Some(at),
            Known::TransferEncoding => return fail(HeadErrorKind::Coding),
            Known::Connection => self.note_options(text),
            // Not in any RFC; clients of old send it to proxies. Only its caution is believed.
            Known::ProxyConnection => self.close |= list(text).any(|o| o.eq_ignore_ascii_case(b"close")),
            Known::Upgrade => self.upgrade = true,
            Known::Expect => self.expect_continue |= text.eq_ignore_ascii_case(b"100-continue"),
            Known::Other
            | Known::ProxyChallenge
            | Known::Proxy
            | Known::KeepAlive
            | Known::Te
            | Known::Http2Settings => {}
        }
        Ok(())
    }

    fn note_options(&mut self, value: &[u8]) {
        for option in list(value) {
            if option.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else {
                self.lists_names = true;
            }
        }
    }

    /// Marks the fields that Connection lists. Bounded: at most `HEAD_FIELDS_MAX` options against as many fields.
    fn mark_named(&mut self, head: &[u8]) -> Result<(), HeadError> {
        let mut options: Vec<&[u8]> = Vec::new();
        for field in self.fields.iter().filter(|field| field.known == Known::Connection) {
            for option in list(field.value.of(head)) {
                if options.len() == HEAD_FIELDS_MAX {
                    return Err(HeadError::new(HeadErrorKind::TooManyFields, field.value.start as usize));
                }
                options.push(option);
            }
        }
        for field in &mut self.fields {
            let name = field.name.of(head);
            field.named =
                !is_end_to_end(name) && options.iter().any(|option| option.eq_ignore_ascii_case(name));
        }
        Ok(())
    }
}

impl Known {
    fn of(name: &[u8]) -> Known {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        match name.len() {
            2 if is("te") => Known::Te,
            4 if is("host") => Known::Host,
            6 if is("expect") => Known::Expect,
            7 if is("upgrade") => Known::Upgrade,
            10 if is("connection") => Known::Connection,
            10 if is("keep-alive") => Known::KeepAlive,
            14 if is("http2-settings") => Known::Http2Settings,
            14 if is("content-length") => Known::ContentLength,
            17 if is("transfer-encoding") => Known::TransferEncoding,
            16 if is("proxy-connection") => Known::ProxyConnection,
            18 if is("proxy-authenticate") => Known::ProxyChallenge,
            25 if is("proxy-authentication-info") => Known::ProxyChallenge,
            7.. if name.get(..6).is_some_and(|start| start.eq_ignore_ascii_case(b"proxy-")) => Known::Proxy,
            _ => Known::Other,
        }
    }
}

/// RFC 9110, 8.6: digits, and nothing that another parser could read as another number.
fn content_length(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    let length = text.iter().try_fold(0_u64, |sum, &byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    });
    length.filter(|&length| i64::try_from(length).is_ok())
}

/// Fields for every recipient: Connection cannot take them away (RFC 9110, 7.6.1), whatever it lists.
fn is_end_to_end(name: &[u8]) -> bool {
    const NAMES: [&str; 26] = [
        "accept-encoding",
        "age",
        "authorization",
        "cache-control",
        "content-encoding",
        "content-length",
        "content-range",
        "content-type",
        "cookie",
        "date",
        "etag",
        "expect",
        "expires",
        "forwarded",
        "host",
        "location",
        "max-forwards",
        "pragma",
        "range",
        "set-cookie",
        "trailer",
        "transfer-encoding",
        "vary",
        "via",
        "www-authenticate",
        "x-forwarded-for",
    ];
    NAMES.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(fields: &str) -> Result<Section, HeadErrorKind> {
        Section::parse(format!("{fields}\r\n").as_bytes(), 0).map_err(|error| error.kind)
    }

    fn framing(fields: &str) -> Result<Option<Framing>, HeadErrorKind> {
        parse(fields)?.framing(Version::Http11).map_err(|error| error.kind)
    }

    #[test]
    fn lengths_are_plain_digits_once() {
        use HeadErrorKind::*;
        for (value, expected) in [
            ("0", Ok(0)),
            ("003", Ok(3)),
            ("  42\t", Ok(42)),
            ("9223372036854775807", Ok(i64::MAX as u64)),
            ("9223372036854775808", Err(LengthMalformed)),
            ("18446744073709551616", Err(LengthMalformed)),
            ("99999999999999999999999", Err(LengthMalformed)),
            ("", Err(LengthMalformed)),
            ("+1", Err(LengthMalformed)),
            ("-1", Err(LengthMalformed)),
            ("0x1", Err(LengthMalformed)),
            ("1 2", Err(LengthMalformed)),
            ("1,1", Err(LengthMalformed)),
            ("1, 2", Err(LengthMalformed)),
            ("1.0", Err(LengthMalformed)),
        ] {
            let expected = expected.map(|length| Some(Framing::Length(length)));
            assert_eq!(framing(&format!("Content-Length:{value}\r\n")), expected, "{value}");
        }
        assert_eq!(framing("Content-Length: 1\r\nCONTENT-LENGTH: 1\r\n"), Err(LengthRepeated));
    }

    #[test]
    fn the_only_coding_is_chunked_once() {
        use HeadErrorKind::*;
        assert_eq!(framing("Transfer-Encoding: ChunkeD\r\n"), Ok(Some(Framing::Chunked)));
        for value in [
            "",
            "identity",
            "gzip, chunked",
            "chunked, chunked",
            "chunked,",
            "chunked;a=b",
            "xchunked",
            "\"chunked\"",
        ] {
            assert_eq!(framing(&format!("Transfer-Encoding: {value}\r\n")), Err(Coding), "{value}");
        }
        assert_eq!(
            framing("Transfer-Encoding: chunked\r\nTransfer-encoding: chunked\r\n"),
            Err(CodingRepeated)
        );
        assert_eq!(framing("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"), Err(LengthAndCoding));
        let section = parse("Transfer-Encoding: chunked\r\n").unwrap();
        assert_eq!(
            section.framing(crate::wire::head::Version::Http10).map_err(|error| error.kind),
            Err(CodingInHttp10)
        );
    }

    #[test]
    fn connection_marks_what_it_lists_but_nothing_end_to_end() {
        let head = b"Connection: close, X-Hop ,, Host\r\nx-hop: 1\r\nHost: a\r\nX-End: 1\r\nconnection: content-length\r\nContent-Length: 1\r\n\r\n";
        let section = Section::parse(head, 0).unwrap();
        let marked: Vec<_> = section.fields.iter().filter(|f| f.named).map(|f| f.name.of(head)).collect();
        assert_eq!(marked, [b"x-hop"]);
        assert!(section.close);
    }

    #[test]
    fn too_many_options_are_refused() {
        let section = parse(&format!("Connection: {}\r\n", "a,".repeat(HEAD_FIELDS_MAX)));
        assert!(section.is_ok());
        let section = parse(&format!("Connection: {}\r\n", "a,".repeat(HEAD_FIELDS_MAX + 1)));
        assert_eq!(section.map(|_| ()), Err(HeadErrorKind::TooManyFields));
    }

    #[test]
    fn names_are_known_in_any_case() {
        for (name, known) in [
            ("HOST", Known::Host),
            ("Te", Known::Te),
            ("keep-ALIVE", Known::KeepAlive),
            ("Proxy-Authorization", Known::Proxy),
            ("proxy-x", Known::Proxy),
            ("Proxy-Authenticate", Known::ProxyChallenge),
            ("Proxy-Connection", Known::ProxyConnection),
            ("proxy-", Known::Other),
            ("Hosts", Known::Other),
            ("X-Content-Length", Known::Other),
        ] {
            assert_eq!(Known::of(name.as_bytes()), known, "{name}");
        }
    }
}
