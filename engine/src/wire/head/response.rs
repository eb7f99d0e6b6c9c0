//! A response head, typed (RFC 9112, 4), and where its body ends (RFC 9112, 6.3).
//!
//! Invariant: framing is beyond doubt, also where the status or the request leaves no body: contradicting
//! fields are refused there too, since the next reader may not know the request.

use crate::wire::Span;
use crate::wire::head::fields::{Field, Section};
use crate::wire::head::{Framing, HeadError, HeadErrorKind, Method, Version};
use crate::wire::syntax::value_end;

/// A response head. Spans are offsets into the bytes that it was parsed from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The version as sent.
    pub version: Version,
    /// 100 to 999.
    pub status: u16,
    /// The reason phrase; may be empty.
    pub reason: Span,
    /// The fields in their order, duplicates included.
    pub fields: Vec<Field>,
    /// How the body ends.
    pub framing: Framing,
    /// Whether the connection may carry another response: never where the body ends with the connection.
    pub keep_alive: bool,
    /// Where the field lines begin.
    pub(crate) fields_at: usize,
}

impl Response {
    /// Parses one whole head, as `HeadScan` delimits it, of the answer to a request with this method.
    ///
    /// # Errors
    /// Whatever RFC 9112 calls invalid or leaves to repair; see `HeadErrorKind`.
    pub fn parse(head: &[u8], request: &Method) -> Result<Response, HeadError> {
        let (version, status) = status_line(head)?;
        let reason_at = STATUS_BYTES + usize::from(head.get(STATUS_BYTES) == Some(&b' '));
        let line_end = value_end(head, reason_at)?;
        let section = Section::parse(head, line_end + 2)?;
        let by_fields = section.framing(version)?;
        let framing = if has_no_body(request, status) {
            Framing::None
        } else {
            by_fields.unwrap_or(Framing::UntilClose)
        };
        // RFC 9112, 9.3: close wins; HTTP/1.0 persists only where it says so.
        let persists = !section.close && (version == Version::Http11 || section.keep_alive);
        Ok(Response {
            version,
            status,
            framing,
            reason: Span::new(reason_at, line_end),
            keep_alive: persists && framing != Framing::UntilClose,
            fields: section.fields,
            fields_at: line_end + 2,
        })
    }

    /// An interim response, after which the final one still comes. 101 is none: it ends HTTP on the connection,
    /// and since Upgrade is never forwarded, an origin that sends it breaks the rules.
    pub fn is_interim(&self) -> bool {
        matches!(self.status, 100 | 102..=199)
    }

    /// The values of the fields with this name (any case), in their order.
    pub fn values<'a>(&'a self, head: &'a [u8], name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        let named = move |field: &&Field| field.name.of(head).eq_ignore_ascii_case(name.as_bytes());
        self.fields.iter().filter(named).map(|field| field.value.of(head))
    }
}

/// Bytes of `HTTP/1.1 200`.
const STATUS_BYTES: usize = 12;

/// Version and status. The space behind the status may be missing where the reason is: servers do that.
fn status_line(head: &[u8]) -> Result<(Version, u16), HeadError> {
    let fail = |kind, at| Err(HeadError::new(kind, at));
    let version = match head {
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'1', ..] => Version::Http11,
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'0', ..] => Version::Http10,
        _ => return fail(HeadErrorKind::BadVersion, 0),
    };
    let status = match head.get(8..) {
        Some([b' ', a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', b' ' | b'\r', ..]) => {
            [a, b, c].into_iter().fold(0_u16, |sum, digit| sum * 10 + u16::from(digit - b'0'))
        }
        _ => return fail(HeadErrorKind::BadStatusLine, 8),
    };
    Ok((version, status))
}

/// RFC 9112, 6.3, rules 1 and 2.
fn has_no_body(request: &Method, status: u16) -> bool {
    match request {
        Method::Head => true,
        Method::Connect if (200..300).contains(&status) => true,
        _ => matches!(status, 100..=199 | 204 | 304),
    }
}

/// Any bytes, as the answer to any method: scan and parse agree, a tokenizer of others reads the same fields,
/// and what is accepted survives being forwarded.
#[cfg(any(test, feature = "fuzz"))]
pub fn fuzz(data: &[u8]) {
    let end = match super::HeadScan::new().scan(data) {
        Ok(crate::wire::Step::Done(end)) => end,
        Ok(crate::wire::Step::More) | Err(_) => {
            // The bound of the first line is the scan's alone.
            let is_long = data.len() > crate::limits::FIRST_LINE_BYTES_MAX;
            assert!(is_long || Response::parse(data, &Method::Get).is_err(), "scan and parser disagree");
            return;
        }
    };
    let head = data.get(..end).unwrap_or_default();
    let mut framings = Vec::new();
    for method in [Method::Get, Method::Head, Method::Connect] {
        if let Ok(response) = Response::parse(head, &method) {
            oracle::same_as_httparse(head, &response);
            super::forward::check_response(head, &response, &method);
            framings.push(response.framing);
        }
    }
    assert!(matches!(framings.len(), 0 | 3), "acceptance does not depend on the method");
}

#[cfg(any(test, feature = "fuzz"))]
mod oracle {
    //! httparse, as a second reader of what was accepted.

    use super::Response;
    use crate::limits::HEAD_FIELDS_MAX;

    pub(super) fn same_as_httparse(head: &[u8], response: &Response) {
        let mut headers = [httparse::EMPTY_HEADER; HEAD_FIELDS_MAX];
        let mut theirs = httparse::Response::new(&mut headers);
        assert_eq!(theirs.parse(head), Ok(httparse::Status::Complete(head.len())));
        assert_eq!(theirs.code, Some(response.status));
        assert_eq!(theirs.headers.len(), response.fields.len());
        for (their, our) in theirs.headers.iter().zip(&response.fields) {
            assert_eq!(their.name.as_bytes(), our.name.of(head));
            assert_eq!(their.value, our.value.of(head));
        }
    }
}

#[cfg(test)]
mod tests;
