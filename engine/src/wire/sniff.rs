//! The first bytes of a tunnel: TLS, HTTP or something else.
//!
//! Decided as early as the bytes allow, since the peer may wait for an answer before it sends more. This is a
//! filter, so doubt goes to the stricter reading: what only a lenient server would take for TLS is TLS here, and
//! the hello parser then refuses it. Not here: what the ClientHello says (`hello`), what the head says (`head`).

use crate::wire::Step;

/// What a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum First {
    /// A TLS record, or a hello in the form of SSL 2.
    Tls,
    /// An HTTP/1 request line, or the preface of HTTP/2.
    Http,
    /// Neither.
    Other,
}

/// Longest method that is taken for one; the registry's longest has 17 bytes.
const METHOD_BYTES_MAX: usize = 24;
/// Empty lines that servers pass over in front of a request, in bytes.
const LEADING_BYTES_MAX: usize = 16;

/// What the first bytes of a client say. They may come in any portions; hand over all of them each time (at most
/// some forty are looked at).
pub fn sniff(first: &[u8]) -> Step<First> {
    match first {
        [] => Step::More,
        [0x16, ..] => sniff_record(first),
        [0x80..=0xff, ..] => sniff_ssl2(first),
        _ => sniff_http(first),
    }
}

/// RFC 8446, 5.1: type handshake, then a version whose major byte is 3. Some servers take any version under
/// 0x1000 in the first record, so that counts too.
fn sniff_record(first: &[u8]) -> Step<First> {
    match first.get(1) {
        None => Step::More,
        Some(0..=0x0f) => Step::Done(First::Tls),
        Some(_) => Step::Done(First::Other),
    }
}

/// RFC 5246, E.2: length with the high bit set, type 1, version 3.x or 0.2. Some servers still take it.
fn sniff_ssl2(first: &[u8]) -> Step<First> {
    match (first.get(2), first.get(3)) {
        (None, _) | (Some(1), None) => Step::More,
        (Some(1), Some(0 | 3)) => Step::Done(First::Tls),
        _ => Step::Done(First::Other),
    }
}

/// A method in capitals, one space, and the beginning of a target: a path, `*`, or the letter or bracket of an
/// authority or scheme. Methods may hold a hyphen, but not the digits that tell SSH apart.
fn sniff_http(first: &[u8]) -> Step<First> {
    let leading = first.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
    if leading > LEADING_BYTES_MAX {
        return Step::Done(First::Other);
    }
    let line = first.get(leading..).unwrap_or_default();
    let method = line.iter().take_while(|b| matches!(b, b'A'..=b'Z' | b'-' | b'_')).count();
    if method > METHOD_BYTES_MAX {
        return Step::Done(First::Other);
    }
    match (line.get(method), line.get(method + 1)) {
        (None, _) => Step::More,
        (Some(b' '), _) if is_common(line.get(..method).unwrap_or_default()) => Step::Done(First::Http),
        (Some(b' '), None) if method > 0 => Step::More,
        (Some(b' '), Some(b'/' | b'*' | b'h' | b'H')) if method > 0 => Step::Done(First::Http),
        _ => Step::Done(First::Other),
    }
}

/// Methods that no other protocol uses as its first word; what follows need not be waited for.
fn is_common(method: &[u8]) -> bool {
    matches!(
        method,
        b"GET"
            | b"HEAD"
            | b"POST"
            | b"PUT"
            | b"DELETE"
            | b"CONNECT"
            | b"OPTIONS"
            | b"TRACE"
            | b"PATCH"
            | b"PRI"
    )
}

/// Any bytes: an answer never changes when more come, and an endless stream gets one.
#[cfg(any(test, feature = "fuzz"))]
pub fn fuzz(data: &[u8]) {
    let whole = sniff(data);
    let mut decided = None;
    for len in 0..=data.len() {
        let step = sniff(data.get(..len).unwrap_or_default());
        if let Some(earlier) = decided {
            assert_eq!(step, earlier, "at {len}");
        } else if step != Step::More {
            decided = Some(step);
        }
    }
    assert_eq!(decided.unwrap_or(Step::More), whole);
    assert!(whole != Step::More || data.len() <= LEADING_BYTES_MAX + METHOD_BYTES_MAX + 1);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The answer, and after how many bytes it was given.
    fn decided(data: &[u8]) -> Option<(First, usize)> {
        fuzz(data);
        (0..=data.len()).find_map(|len| match sniff(&data[..len]) {
            Step::Done(first) => Some((first, len)),
            Step::More => None,
        })
    }

    #[test]
    fn first_bytes_decide_early() {
        for (data, expected) in [
            (&b"\x16\x03\x01\x02"[..], Some((First::Tls, 2))),
            (b"\x16\x0f\x01", Some((First::Tls, 2))),
            (b"\x16\x20", Some((First::Other, 2))),
            (b"\x16", None),
            (b"\x80\x2e\x01\x03\x01", Some((First::Tls, 4))),
            (b"\x80\x2e\x01\x00\x02", Some((First::Tls, 4))),
            (b"\x80\x2e\x02", Some((First::Other, 3))),
            (b"\x80\x2e\x01\x20", Some((First::Other, 4))),
            (b"GET /", Some((First::Http, 4))),
            (b"GE", None),
            (b"PROPFIND /x", Some((First::Http, 10))),
            (b"M-SEARCH *", Some((First::Http, 10))),
            (b"PRI * HTTP/2.0", Some((First::Http, 4))),
            (b"\r\nGET /", Some((First::Http, 6))),
            (b"SSH-2.0-OpenSSH_9.6 x", Some((First::Other, 5))),
            (b"EHLO a.test", Some((First::Other, 6))),
            (b"0032git-upload-pack", Some((First::Other, 1))),
            (b"\0\0\0", Some((First::Other, 1))),
            (b"get / HTTP/1.1", Some((First::Other, 1))),
            (b" GET /", Some((First::Other, 1))),
            (b"", None),
        ] {
            assert_eq!(decided(data), expected, "{}", data.escape_ascii());
        }
        assert_eq!(decided(&[b'A'; 100]), Some((First::Other, METHOD_BYTES_MAX + 1)));
        assert_eq!(decided(&[b'\n'; 100]), Some((First::Other, LEADING_BYTES_MAX + 1)));
    }

    proptest! {
        #[test]
        fn answers_never_change(data in prop::collection::vec(any::<u8>(), 0..60), text in "[\r\nA-Z /*h-]{0,60}") {
            fuzz(&data);
            fuzz(text.as_bytes());
            fuzz(&[&[0x80], data.as_slice()].concat());
        }
    }
}
