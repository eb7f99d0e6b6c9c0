//! A head for the next hop: the first line rewritten, hop-by-hop fields out, everything else byte for byte.
//!
//! Not here: bodies, which are relayed as spelled (so Transfer-Encoding and Trailer stay), and which fields the
//! caller wants to add. Invariants: what is written parses again with the same framing; no field of the
//! connection, no Upgrade and no credential meant for a proxy gets past.

use crate::wire::head::fields::{Field, Known};
use crate::wire::head::{Method, Request, Response, Target, Version};
use crate::wire::target::{Authority, Host};

/// The form of the request target towards the next hop (RFC 9112, 3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardAs {
    /// A path, towards an origin.
    Origin,
    /// `http://host/path`, towards a parent proxy.
    Absolute,
}

/// Appends the head of `request` for the next hop to `out`. `head` is what it was parsed from; `extra` are fields
/// of ours, each a token and a value without control bytes; `keep_alive` is what our connection to the next hop
/// shall be. A request that came as a path or `*` goes as it came, whatever `how` says.
///
/// The version stays: an HTTP/1.0 client could not read what an origin answers to HTTP/1.1.
pub fn write_request(
    head: &[u8],
    request: &Request,
    how: ForwardAs,
    keep_alive: bool,
    extra: &[(&str, &str)],
    out: &mut Vec<u8>,
) {
    out.reserve(head.len() + 64);
    out.extend_from_slice(request.method.as_str().as_bytes());
    out.push(b' ');
    write_target(head, request, how, out);
    out.extend_from_slice(match request.version {
        Version::Http10 => b" HTTP/1.0\r\n",
        Version::Http11 => b" HTTP/1.1\r\n",
    });
    // RFC 9112, 3.2.2: the target's authority is the Host of what is forwarded. HTTP/1.0 may have sent none.
    if let (None, Target::Absolute(absolute)) = (request.host, &request.target) {
        out.extend_from_slice(b"Host: ");
        write_authority(&absolute.authority, out);
        out.extend_from_slice(b"\r\n");
    }
    let is_kept = |field: &Field| !field.named && is_kept_in_request(field.known);
    copy_fields(head, request.fields_at, &request.fields, is_kept, out);
    write_connection(keep_alive, request.version == Version::Http10, out);
    write_extra(extra, out);
}

/// Appends the head of `response` for the client to `out`, in our own version (RFC 9110, 2.5: HTTP/1.1).
/// `keep_alive` is what our connection to the client shall be; interim responses (1xx) say nothing of it.
pub fn write_response(
    head: &[u8],
    response: &Response,
    keep_alive: bool,
    extra: &[(&str, &str)],
    out: &mut Vec<u8>,
) {
    out.reserve(head.len() + 64);
    out.extend_from_slice(b"HTTP/1.1");
    // The status line from the space behind the version, its CRLF included.
    out.extend_from_slice(head.get(8..response.fields_at).unwrap_or_default());
    // RFC 9110, 8.6 and RFC 9112, 6.1: these have neither; a client that waits for a body would hang.
    let is_bodiless = matches!(response.status, 100..=199 | 204);
    let is_kept = |field: &Field| {
        let is_framing = matches!(field.known, Known::ContentLength | Known::TransferEncoding);
        !field.named && is_kept_in_response(field.known) && !(is_bodiless && is_framing)
    };
    copy_fields(head, response.fields_at, &response.fields, is_kept, out);
    if !matches!(response.status, 100..=199) {
        // Said in either case: HTTP/1.0 clients take silence for close.
        out.extend_from_slice(if keep_alive {
            b"Connection: keep-alive\r\n"
        } else {
            b"Connection: close\r\n"
        });
    }
    write_extra(extra, out);
}

fn write_target(head: &[u8], request: &Request, how: ForwardAs, out: &mut Vec<u8>) {
    let absolute = match &request.target {
        Target::Absolute(absolute) => absolute,
        Target::Authority(_) | Target::Origin | Target::Asterisk => {
            return out.extend_from_slice(request.target_span.of(head));
        }
    };
    let path = absolute.path.of(head);
    if how == ForwardAs::Absolute {
        // In canonical form, so that the parent reads the host that policy has seen.
        out.extend_from_slice(b"http://");
        write_authority(&absolute.authority, out);
        // Nothing behind the authority stays nothing: to OPTIONS it means `*` (RFC 9112, 3.2.4).
        if path.is_empty() && request.method == Method::Options {
            return;
        }
    } else if path.is_empty() && request.method == Method::Options {
        return out.push(b'*');
    }
    if path.first() != Some(&b'/') {
        out.push(b'/');
    }
    out.extend_from_slice(path);
}

/// Host and port, the port left out where it is that of the scheme.
fn write_authority(authority: &Authority, out: &mut Vec<u8>) {
    match &authority.host {
        Host::Name(name) => out.extend_from_slice(name.as_bytes()),
        literal @ (Host::V4(_) | Host::V6(_)) => out.extend_from_slice(literal.to_string().as_bytes()),
    }
    if authority.port != 80 {
        out.extend_from_slice(format!(":{}", authority.port).as_bytes());
    }
}

/// RFC 9110, 7.6.1. TE goes too: it speaks of this connection, and trailers reach the client without it.
fn is_kept_in_request(known: Known) -> bool {
    match known {
        Known::Other | Known::Host | Known::ContentLength | Known::TransferEncoding | Known::Expect => true,
        Known::Connection
        | Known::ProxyConnection
        | Known::ProxyChallenge
        | Known::Proxy
        | Known::KeepAlive
        | Known::Te
        | Known::Http2Settings
        | Known::Upgrade => false,
    }
}

/// As in requests, but what an origin says of proxies on its way (`Proxy-Status`, RFC 9209) stays.
fn is_kept_in_response(known: Known) -> bool {
    is_kept_in_request(known) || known == Known::Proxy
}

/// Copies the kept field lines; neighbours in one piece.
fn copy_fields(
    head: &[u8],
    at: usize,
    fields: &[Field],
    is_kept: impl Fn(&Field) -> bool,
    out: &mut Vec<u8>,
) {
    // The empty line is not copied.
    let end = head.len().saturating_sub(2);
    let mut from = at;
    for (index, field) in fields.iter().enumerate() {
        if !is_kept(field) {
            let line = field.name.start as usize;
            out.extend_from_slice(head.get(from..line).unwrap_or_default());
            from = fields.get(index + 1).map_or(end, |next| next.name.start as usize);
        }
    }
    out.extend_from_slice(head.get(from..end).unwrap_or_default());
}

/// HTTP/1.1 persists without a word, HTTP/1.0 only with one (RFC 9112, 9.3).
fn write_connection(keep_alive: bool, is_http10: bool, out: &mut Vec<u8>) {
    match (keep_alive, is_http10) {
        (false, _) => out.extend_from_slice(b"Connection: close\r\n"),
        (true, true) => out.extend_from_slice(b"Connection: keep-alive\r\n"),
        (true, false) => {}
    }
}

fn write_extra(extra: &[(&str, &str)], out: &mut Vec<u8>) {
    for (name, value) in extra {
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// What is forwarded parses again, frames the same and carries nothing of the connection it came from.
#[cfg(any(test, feature = "fuzz"))]
pub(crate) fn check_request(head: &[u8], request: &Request) {
    for (how, keep_alive) in
        [(ForwardAs::Origin, true), (ForwardAs::Absolute, true), (ForwardAs::Origin, false)]
    {
        let mut out = Vec::new();
        write_request(head, request, how, keep_alive, &[], &mut out);
        let again = Request::parse(&out);
        let Ok(again) = again else { panic!("{} -> {}: {again:?}", head.escape_ascii(), out.escape_ascii()) };
        assert_eq!(
            (&again.method, again.version, again.framing),
            (&request.method, request.version, request.framing)
        );
        assert_eq!(again.expect_continue, request.expect_continue);
        assert!(!again.upgrade);
        if let (Target::Absolute(asked), Target::Absolute(sent)) = (&request.target, &again.target) {
            assert_eq!((how, &sent.authority), (ForwardAs::Absolute, &asked.authority));
        }
        for field in &again.fields {
            let name = field.name.of(&out).to_ascii_lowercase();
            assert!(!name.starts_with(b"proxy-") || name == b"proxy-", "{}", name.escape_ascii());
            let is_hop = [&b"te"[..], b"keep-alive", b"upgrade"].contains(&name.as_slice());
            assert!(!is_hop, "{}", name.escape_ascii());
        }
        let kept = |f: &&Field| f.known == Known::Other && !f.named;
        let before = request.fields.iter().filter(kept).map(|f| (f.name.of(head), f.value.of(head)));
        let after = again.fields.iter().filter(kept).map(|f| (f.name.of(&out), f.value.of(&out)));
        assert!(before.eq(after), "end-to-end fields are untouched and in order");
    }
}

/// As `check_request`, for the answer to `method`.
#[cfg(any(test, feature = "fuzz"))]
pub(crate) fn check_response(head: &[u8], response: &Response, method: &Method) {
    for keep_alive in [true, false] {
        let mut out = Vec::new();
        write_response(head, response, keep_alive, &[], &mut out);
        let again = Response::parse(&out, method);
        let Ok(again) = again else { panic!("{} -> {}: {again:?}", head.escape_ascii(), out.escape_ascii()) };
        assert_eq!((again.status, again.framing), (response.status, response.framing));
        assert_eq!(again.reason.of(&out), response.reason.of(head));
        assert_eq!(again.version, Version::Http11);
        let persists = keep_alive || matches!(again.status, 100..=199);
        assert_eq!(again.keep_alive, persists && again.framing != crate::wire::head::Framing::UntilClose);
        let kept = |f: &&Field| f.known == Known::Other && !f.named;
        let before = response.fields.iter().filter(kept).map(|f| (f.name.of(head), f.value.of(head)));
        let after = again.fields.iter().filter(kept).map(|f| (f.name.of(&out), f.value.of(&out)));
        assert!(before.eq(after), "end-to-end fields are untouched and in order");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::head::{Request, Response};

    fn forward(head: &str, how: ForwardAs, keep_alive: bool, extra: &[(&str, &str)]) -> String {
        let request = Request::parse(head.as_bytes()).unwrap();
        check_request(head.as_bytes(), &request);
        let mut out = Vec::new();
        write_request(head.as_bytes(), &request, how, keep_alive, extra, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn only_what_must_change_changes() {
        let head = "GET http://A.test:8080?q=%2F HTTP/1.1\r\nhost: a.TEST:8080\r\nProxy-Connection: keep-alive\r\n\
            ACCEPT:*/*  \r\nProxy-Authorization: Basic eA==\r\nX-a: 1\r\nx-A:\t2\r\nConnection: X-Hop, Host, Cookie\r\n\
            X-Hop: 1\r\nCookie: c\r\nTE: trailers\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\nKeep-Alive: 5\r\n\r\n";
        assert_eq!(
            forward(head, ForwardAs::Origin, true, &[]),
            "GET /?q=%2F HTTP/1.1\r\nhost: a.TEST:8080\r\nACCEPT:*/*  \r\nX-a: 1\r\nx-A:\t2\r\nCookie: c\r\n\r\n"
        );
        assert_eq!(
            forward(head, ForwardAs::Absolute, false, &[("Via", "1.1 weir")]),
            "GET http://a.test:8080/?q=%2F HTTP/1.1\r\nhost: a.TEST:8080\r\nACCEPT:*/*  \r\nX-a: 1\r\nx-A:\t2\r\n\
             Cookie: c\r\nConnection: close\r\nVia: 1.1 weir\r\n\r\n"
        );
    }

    #[test]
    fn http_1_0_keeps_its_version_and_gains_a_host() {
        assert_eq!(
            forward("GET http://a.test HTTP/1.0\r\n\r\n", ForwardAs::Origin, false, &[]),
            "GET / HTTP/1.0\r\nHost: a.test\r\nConnection: close\r\n\r\n"
        );
        assert_eq!(
            forward("GET http://[::1]:81/ HTTP/1.0\r\nA: b\r\n\r\n", ForwardAs::Origin, true, &[]),
            "GET / HTTP/1.0\r\nHost: [::1]:81\r\nA: b\r\nConnection: keep-alive\r\n\r\n"
        );
    }

    #[test]
    fn an_empty_path_of_options_means_the_server() {
        let head = "OPTIONS http://a.test HTTP/1.1\r\nHost: a.test\r\n\r\n";
        assert_eq!(forward(head, ForwardAs::Origin, true, &[]), "OPTIONS * HTTP/1.1\r\nHost: a.test\r\n\r\n");
        assert_eq!(forward(head, ForwardAs::Absolute, true, &[]), head);
    }

    #[test]
    fn framing_fields_cannot_be_listed_away() {
        let head = "POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\nConnection: Content-Length, Authorization\r\n\
            Authorization: Basic eA==\r\nContent-Length: 3\r\n\r\n";
        assert_eq!(
            forward(head, ForwardAs::Origin, true, &[]),
            "POST / HTTP/1.1\r\nHost: a.test\r\nAuthorization: Basic eA==\r\nContent-Length: 3\r\n\r\n"
        );
    }

    fn respond(head: &str, keep_alive: bool) -> String {
        let response = Response::parse(head.as_bytes(), &Method::Get).unwrap();
        check_response(head.as_bytes(), &response, &Method::Get);
        let mut out = Vec::new();
        write_response(head.as_bytes(), &response, keep_alive, &[], &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn responses_speak_our_version_and_our_connection() {
        assert_eq!(
            respond(
                "HTTP/1.0 200 Very  OK\r\nconnection: close, x-hop\r\nX-Hop: 1\r\nx: y\r\nProxy-Authenticate: Basic\r\nProxy-Status: a\r\nTransfer-Encodin: g\r\n\r\n",
                true
            ),
            "HTTP/1.1 200 Very  OK\r\nx: y\r\nProxy-Status: a\r\nTransfer-Encodin: g\r\nConnection: keep-alive\r\n\r\n"
        );
        assert_eq!(
            respond("HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\nTrailer: x\r\n\r\n", false),
            "HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\nTrailer: x\r\nConnection: close\r\n\r\n"
        );
    }

    #[test]
    fn a_response_that_cannot_have_a_body_announces_none() {
        assert_eq!(
            respond("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\nA: b\r\n\r\n", true),
            "HTTP/1.1 204 No Content\r\nA: b\r\nConnection: keep-alive\r\n\r\n"
        );
        assert_eq!(
            respond("HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n", true),
            "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n"
        );
        // 304 and HEAD answers tell the length of what they leave out.
        assert_eq!(
            respond("HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n", true),
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\nConnection: keep-alive\r\n\r\n"
        );
    }
}
