//! Response heads: what is accepted, where the body ends, what is refused.

use proptest::prelude::*;

use super::*;
use crate::wire::head::HeadErrorKind::*;

fn parse(head: &str, method: &Method) -> Result<Response, HeadErrorKind> {
    fuzz(head.as_bytes());
    Response::parse(head.as_bytes(), method).map_err(|error| error.kind)
}

fn get(head: &str) -> Result<Response, HeadErrorKind> {
    parse(&format!("{head}\r\n\r\n"), &Method::Get)
}

#[test]
fn status_and_reason() {
    let head = "HTTP/1.1 404 Not  Found\t!\r\nA: b\r\n\r\n";
    let response = parse(head, &Method::Get).unwrap();
    assert_eq!((response.status, response.version), (404, Version::Http11));
    assert_eq!(response.reason.of(head.as_bytes()), b"Not  Found\t!");
    assert_eq!(response.values(head.as_bytes(), "a").collect::<Vec<_>>(), [b"b"]);
    for line in ["HTTP/1.1 200", "HTTP/1.1 200 ", "HTTP/1.0 200 OK", "HTTP/1.1 999 \u{e9}"] {
        assert!(get(line).is_ok(), "{line:?}");
    }
}

#[test]
fn status_lines_are_spelled_one_way() {
    for (line, kind) in [
        ("", BadVersion),
        ("\r\nHTTP/1.1 200 OK", BadVersion),
        ("HTTP/2 200", BadVersion),
        ("HTTP/1.2 200 OK", BadVersion),
        ("http/1.1 200 OK", BadVersion),
        ("ICY 200 OK", BadVersion),
        ("HTTP/1.1  200 OK", BadStatusLine),
        ("HTTP/1.1 20 OK", BadStatusLine),
        ("HTTP/1.1 2000 OK", BadStatusLine),
        ("HTTP/1.1 099 OK", BadStatusLine),
        ("HTTP/1.1 2x0 OK", BadStatusLine),
        ("HTTP/1.1\t200 OK", BadStatusLine),
        ("HTTP/1.1 200\tOK", BadStatusLine),
        ("HTTP/1.1 200 O\rK", BareCr),
        ("HTTP/1.1 200 O\nK", BareLf),
        ("HTTP/1.1 200 O\0K", Control),
    ] {
        assert_eq!(get(line).map(|_| ()), Err(kind), "{line:?}");
    }
}

#[test]
fn the_body_ends_as_rfc_9112_says() {
    let framing = |method: &Method, status: u16, fields: &str| {
        parse(&format!("HTTP/1.1 {status} x\r\n{fields}\r\n"), method).map(|response| response.framing)
    };
    let (length, chunked) = ("Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n");
    for method in [Method::Get, Method::Post, Method::Other("X".into())] {
        assert_eq!(framing(&method, 200, ""), Ok(Framing::UntilClose));
        assert_eq!(framing(&method, 200, length), Ok(Framing::Length(5)));
        assert_eq!(framing(&method, 200, chunked), Ok(Framing::Chunked));
        for status in [100, 101, 103, 199, 204, 304] {
            assert_eq!(framing(&method, status, length), Ok(Framing::None), "{status}");
            assert_eq!(framing(&method, status, ""), Ok(Framing::None), "{status}");
        }
        assert_eq!(framing(&method, 205, length), Ok(Framing::Length(5)));
    }
    assert_eq!(framing(&Method::Head, 200, length), Ok(Framing::None));
    assert_eq!(framing(&Method::Connect, 200, length), Ok(Framing::None));
    assert_eq!(framing(&Method::Connect, 407, length), Ok(Framing::Length(5)));
    for method in [Method::Get, Method::Head, Method::Connect] {
        let both = format!("{length}{chunked}");
        assert_eq!(framing(&method, 200, &both), Err(LengthAndCoding));
        assert_eq!(framing(&method, 200, "Transfer-Encoding: gzip, chunked\r\n"), Err(Coding));
        assert_eq!(framing(&method, 304, "Content-Length: 5\r\nContent-Length: 6\r\n"), Err(LengthRepeated));
    }
    let http10 = parse("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", &Method::Get);
    assert_eq!(http10.map(|_| ()), Err(CodingInHttp10));
}

#[test]
fn the_connection_persists_only_where_the_end_is_known() {
    let keeps = |head: &str| parse(&format!("{head}\r\n\r\n"), &Method::Get).unwrap().keep_alive;
    assert!(keeps("HTTP/1.1 200 OK\r\nContent-Length: 0"));
    assert!(keeps("HTTP/1.1 304 x"));
    assert!(!keeps("HTTP/1.1 200 OK"));
    assert!(!keeps("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0"));
    assert!(!keeps("HTTP/1.0 200 OK\r\nContent-Length: 0"));
    assert!(keeps("HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 0"));
}

#[test]
fn interim_responses_are_told_from_switching() {
    for (status, interim) in [(100, true), (101, false), (102, true), (103, true), (200, false)] {
        assert_eq!(get(&format!("HTTP/1.1 {status} x")).unwrap().is_interim(), interim, "{status}");
    }
}

proptest! {
    #[test]
    fn any_head(
        line in "HTTP/1\\.[01] (100|101|200|204|304|407|999)( O?K?)?",
        fields in prop::collection::vec("(Content-Length|Transfer-Encoding|Connection|Keep-Alive|Proxy-x|Proxy-Authenticate|A|b)( ?):[ \t]?([a-b0-9,]{0,4}|chunked|close|keep-alive)", 0..6),
    ) {
        fuzz(format!("{line}\r\n{}\r\n", fields.iter().map(|f| format!("{f}\r\n")).collect::<String>()).as_bytes());
    }

    #[test]
    fn any_bytes(data in prop::collection::vec(any::<u8>(), 0..80), text in "HTTP/1\\.1 2[0-9a :\r\n]{0,40}") {
        fuzz(&data);
        fuzz(text.as_bytes());
    }

    #[test]
    fn one_byte_off(at in 0_usize..90, byte in any::<u8>(), insert in any::<bool>()) {
        let mut head = b"HTTP/1.1 200 OK\r\nConnection: X\r\nX: y\r\nContent-Length: 12\r\nServer: s\r\n\r\n".to_vec();
        let at = at.min(head.len() - 1);
        if insert { head.insert(at, byte) } else { head[at] = byte }
        fuzz(&head);
    }
}
