//! A request head, typed (RFC 9112, 3).
//!
//! Invariants of a `Request`: its target is of the form that its method takes and canonical; in HTTP/1.1 exactly
//! one Host field is there, and it agrees with the target wherever the target names an authority; its framing is
//! beyond doubt.

use crate::wire::Span;
use crate::wire::head::fields::{Field, Section};
use crate::wire::head::{Framing, HeadError, HeadErrorKind, Version};
use crate::wire::syntax::is_token_byte;
use crate::wire::target::{Absolute, Authority, TargetError};

/// A request head. Spans are offsets into the bytes that it was parsed from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The request target in its form.
    pub target: Target,
    /// The request target as spelled.
    pub target_span: Span,
    /// The version.
    pub version: Version,
    /// The fields in their order, duplicates included.
    pub fields: Vec<Field>,
    /// Value of the Host field; absent only in HTTP/1.0. Always of canonical form.
    pub host: Option<Span>,
    /// How the body ends; never `UntilClose`.
    pub framing: Framing,
    /// Whether the connection may carry another request (RFC 9112, 9.3; never in HTTP/1.0, since this is a proxy).
    pub keep_alive: bool,
    /// The client waits for 100 (Continue) before it sends the body.
    pub expect_continue: bool,
    /// There is an Upgrade field; it is never forwarded.
    pub upgrade: bool,
    /// Where the field lines begin.
    pub(crate) fields_at: usize,
}

impl Request {
    /// Parses one whole head, as `HeadScan` delimits it: the empty line at its end included, nothing behind.
    ///
    /// # Errors
    /// Whatever RFC 9112 calls invalid or leaves to repair; see `HeadErrorKind`.
    pub fn parse(head: &[u8]) -> Result<Request, HeadError> {
        // RFC 9112, 2.2: one empty line in front is passed over.
        let start = if head.starts_with(b"\r\n") { 2 } else { 0 };
        let line = RequestLine::parse(head, start)?;
        let section = Section::parse(head, line.fields_at)?;
        let target_span = Span::new(line.target_at, line.target_at + line.target.len());
        let target = Target::parse(&line.method, line.target, line.target_at)?;
        check_host(head, &target, line.target, line.version, &section)?;
        if let (Method::Connect, Some(at)) = (&line.method, section.announces_body()) {
            return Err(HeadError::new(HeadErrorKind::ConnectBody, at));
        }
        let is_http11 = line.version == Version::Http11;
        let framing = match section.framing(line.version)? {
            Some(framing) if line.method != Method::Connect => framing,
            _ => Framing::None,
        };
        Ok(Request {
            target,
            target_span,
            framing,
            method: line.method,
            version: line.version,
            host: section.host,
            keep_alive: is_http11 && !section.close,
            // RFC 9110, 10.1.1: ignored in HTTP/1.0.
            expect_continue: is_http11 && section.expect_continue,
            upgrade: section.upgrade,
            fields: section.fields,
            fields_at: line.fields_at,
        })
    }

    /// The values of the fields with this name (any case), in their order.
    pub fn values<'a>(&'a self, head: &'a [u8], name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        let named = move |field: &&Field| field.name.of(head).eq_ignore_ascii_case(name.as_bytes());
        self.fields.iter().filter(named).map(|field| field.value.of(head))
    }
}

/// A request method (RFC 9110, 9.1): a token, case-sensitive.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Method {
    /// GET
    Get,
    /// HEAD
    Head,
    /// POST
    Post,
    /// PUT
    Put,
    /// DELETE
    Delete,
    /// CONNECT
    Connect,
    /// OPTIONS
    Options,
    /// TRACE
    Trace,
    /// PATCH
    Patch,
    /// Any other token, as spelled.
    Other(Box<str>),
}

impl Method {
    /// The method that this token spells.
    pub fn parse(token: &[u8]) -> Option<Method> {
        Some(match token {
            b"GET" => Method::Get,
            b"HEAD" => Method::Head,
            b"POST" => Method::Post,
            b"PUT" => Method::Put,
            b"DELETE" => Method::Delete,
            b"CONNECT" => Method::Connect,
            b"OPTIONS" => Method::Options,
            b"TRACE" => Method::Trace,
            b"PATCH" => Method::Patch,
            [] => return None,
            _ if token.iter().all(|&b| is_token_byte(b)) => {
                Method::Other(std::str::from_utf8(token).ok()?.into())
            }
            _ => return None,
        })
    }

    /// As spelled.
    pub fn as_str(&self) -> &str {
        match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Delete => "DELETE",
            Method::Connect => "CONNECT",
            Method::Options => "OPTIONS",
            Method::Trace => "TRACE",
            Method::Patch => "PATCH",
            Method::Other(token) => token,
        }
    }
}

/// The four forms of a request target (RFC 9112, 3.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// `host:port`, of CONNECT only.
    Authority(Authority),
    /// `http://host/path`, what a client sends to a proxy. Its path is an offset into the head.
    Absolute(Absolute),
    /// A path: what a client sends to an origin.
    Origin,
    /// `*`, of OPTIONS only.
    Asterisk,
}

impl Target {
    fn parse(method: &Method, text: &[u8], at: usize) -> Result<Target, HeadError> {
        let fail = |error| HeadError::new(HeadErrorKind::BadTarget(error), at);
        match (method, text) {
            (Method::Connect, _) => Authority::connect(text).map(Target::Authority).map_err(fail),
            (Method::Options, b"*") => Ok(Target::Asterisk),
            (_, b"*") => Err(HeadError::new(HeadErrorKind::Asterisk, at)),
            (_, [b'/', rest @ ..]) if rest.contains(&b'#') => Err(fail(TargetError::Fragment)),
            (_, [b'/', ..]) if std::str::from_utf8(text).is_err() => Err(fail(TargetError::Encoding)),
            (_, [b'/', ..]) => Ok(Target::Origin),
            _ => {
                let absolute = Absolute::parse(text).map_err(fail)?;
                Ok(Target::Absolute(Absolute { path: absolute.path.shifted(at), ..absolute }))
            }
        }
    }
}

/// The three parts of a request line.
struct RequestLine<'a> {
    method: Method,
    target: &'a [u8],
    target_at: usize,
    version: Version,
    fields_at: usize,
}

impl<'a> RequestLine<'a> {
    fn parse(head: &'a [u8], start: usize) -> Result<Self, HeadError> {
        let rest = head.get(start..).unwrap_or_default();
        let method_len = rest.iter().position(|&b| !is_token_byte(b)).unwrap_or(rest.len());
        let (token, rest) = rest.split_at(method_len);
        let method = Method::parse(token).filter(|_| rest.first() == Some(&b' '));
        let method = method.ok_or(HeadError::new(HeadErrorKind::BadMethod, start + method_len))?;
        if token == b"PRI" {
            return Err(HeadError::new(HeadErrorKind::Http2, start));
        }
        let target_at = start + method_len + 1;
        let rest = head.get(target_at..).unwrap_or_default();
        let target_len = rest.iter().position(|&b| b <= b' ' || b == 0x7f).unwrap_or(rest.len());
        let (target, rest) = rest.split_at(target_len);
        let version_at = target_at + target_len + 1;
        match rest.first() {
            Some(b' ') if target_len > 0 => {}
            // HTTP/0.9 ends its line here.
            Some(b'\r') if target_len > 0 => {
                return Err(HeadError::new(HeadErrorKind::BadVersion, version_at - 1));
            }
            _ => return Err(HeadError::new(HeadErrorKind::BadRequestLine, version_at - 1)),
        }
        let (version, fields_at) = match rest.get(1..).unwrap_or_default() {
            [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'1', b'\r', b'\n', ..] => {
                (Version::Http11, version_at + 10)
            }
            [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'0', b'\r', b'\n', ..] => {
                (Version::Http10, version_at + 10)
            }
            // A second space: the target holds one, or the version is followed by one.
            other if other.starts_with(b" ") => {
                return Err(HeadError::new(HeadErrorKind::BadRequestLine, version_at));
            }
            _ => return Err(HeadError::new(HeadErrorKind::BadVersion, version_at)),
        };
        Ok(Self { method, target, target_at, version, fields_at })
    }
}

/// RFC 9112, 3.2: one Host field, valid, and equal to the authority where the target has one.
fn check_host(
    head: &[u8],
    target: &Target,
    spelled: &[u8],
    version: Version,
    section: &Section,
) -> Result<(), HeadError> {
    let Some(span) = section.host else {
        return match version {
            Version::Http10 => Ok(()),
            Version::Http11 => Err(HeadError::new(HeadErrorKind::HostMissing, head.len().saturating_sub(2))),
        };
    };
    let host = span.of(head);
    let (authority, spelled, default_port) = match target {
        // A CONNECT says its port itself; many clients leave it out of Host.
        Target::Authority(authority) => (Some(authority), spelled, authority.port),
        Target::Absolute(absolute) => {
            let path_len = (absolute.path.end - absolute.path.start) as usize;
            let text = spelled.get("http://".len()..spelled.len() - path_len).unwrap_or_default();
            (Some(&absolute.authority), text, 80)
        }
        Target::Origin | Target::Asterisk => (None, &b""[..], 80),
    };
    if authority.is_some() && host == spelled {
        return Ok(());
    }
    let at = span.start as usize;
    let named = Authority::host_field(host, default_port);
    let named = named.map_err(|error| HeadError::new(HeadErrorKind::BadHost(error), at))?;
    match authority {
        Some(authority) if *authority != named => Err(HeadError::new(HeadErrorKind::HostMismatch, at)),
        _ => Ok(()),
    }
}

/// Any bytes: scan and parse agree, a tokenizer of others reads the same fields, and what is accepted
/// survives being forwarded.
#[cfg(any(test, feature = "fuzz"))]
pub fn fuzz(data: &[u8]) {
    super::scan::fuzz(data);
    let end = match super::HeadScan::new().scan(data) {
        Ok(crate::wire::Step::Done(end)) => end,
        Ok(crate::wire::Step::More) => {
            assert!(Request::parse(data).is_err(), "an unfinished head is never accepted");
            return;
        }
        Err(_) => {
            // The bound of the first line is the scan's alone.
            let is_long = data.len() > crate::limits::FIRST_LINE_BYTES_MAX;
            assert!(is_long || Request::parse(data).is_err(), "the scan refuses what the parser takes");
            return;
        }
    };
    let head = data.get(..end).unwrap_or_default();
    if let Ok(request) = Request::parse(head) {
        oracle::same_as_httparse(head, &request);
        super::forward::check_request(head, &request);
    }
}

#[cfg(any(test, feature = "fuzz"))]
mod oracle {
    //! httparse, as a second reader of what was accepted.

    use super::Request;
    use crate::limits::HEAD_FIELDS_MAX;

    pub(super) fn same_as_httparse(head: &[u8], request: &Request) {
        let mut headers = [httparse::EMPTY_HEADER; HEAD_FIELDS_MAX];
        let mut theirs = httparse::Request::new(&mut headers);
        assert_eq!(theirs.parse(head), Ok(httparse::Status::Complete(head.len())));
        assert_eq!(theirs.method, Some(request.method.as_str()));
        assert_eq!(theirs.path.map(str::as_bytes), Some(request.target_span.of(head)));
        assert_eq!(theirs.headers.len(), request.fields.len());
        for (their, our) in theirs.headers.iter().zip(&request.fields) {
            assert_eq!(their.name.as_bytes(), our.name.of(head));
            assert_eq!(their.value, our.value.of(head));
        }
    }
}

#[cfg(test)]
mod tests;
