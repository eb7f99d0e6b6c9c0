//! Request heads: what is accepted and as what, what is refused and where.

use proptest::prelude::*;

use super::*;
use crate::wire::head::HeadErrorKind::*;
use crate::wire::target::TargetError;

fn parse(head: &str) -> Result<Request, HeadErrorKind> {
    fuzz(head.as_bytes());
    Request::parse(head.as_bytes()).map_err(|error| error.kind)
}

/// A GET through a proxy with these further field lines.
fn with_fields(fields: &str) -> Result<Request, HeadErrorKind> {
    parse(&format!("GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n"))
}

#[test]
fn a_request_through_a_proxy() {
    let head =
        "GET http://A.test:8080/x?y HTTP/1.1\r\nHost: a.test:8080\r\nAccept: a\r\naccept:  b\t\r\nX:\r\n\r\n";
    let request = parse(head).unwrap();
    let bytes = head.as_bytes();
    let Target::Absolute(absolute) = &request.target else { panic!("{:?}", request.target) };
    assert_eq!(absolute.authority.to_string(), "a.test:8080");
    assert_eq!(absolute.path.of(bytes), b"/x?y");
    assert_eq!(request.target_span.of(bytes), b"http://A.test:8080/x?y");
    assert_eq!((&request.method, request.version), (&Method::Get, Version::Http11));
    assert_eq!(request.values(bytes, "ACCEPT").collect::<Vec<_>>(), [b"a", b"b"]);
    assert_eq!(request.values(bytes, "x").collect::<Vec<_>>(), [b""]);
    assert_eq!(request.host.map(|span| span.of(bytes)), Some(&b"a.test:8080"[..]));
    assert_eq!(request.framing, Framing::None);
    assert!(request.keep_alive && !request.expect_continue && !request.upgrade);
}

#[test]
fn connect_takes_authority_form_only() {
    let connect = |target: &str| parse(&format!("CONNECT {target} HTTP/1.1\r\nHost: a.test\r\n\r\n"));
    let request = connect("A.test:443").unwrap();
    let Target::Authority(authority) = &request.target else { panic!("{:?}", request.target) };
    assert_eq!(authority.to_string(), "a.test:443");
    assert_eq!(connect("a.test").map(|_| ()), Err(BadTarget(TargetError::PortMissing)));
    assert_eq!(connect("a.test:443/x").map(|_| ()), Err(BadTarget(TargetError::Port)));
    assert_eq!(connect("/").map(|_| ()), Err(BadTarget(TargetError::Byte(b'/'))));
    assert_eq!(connect("http://a.test/").map(|_| ()), Err(BadTarget(TargetError::Port)));
    assert_eq!(
        parse("GET a.test:443 HTTP/1.1\r\nHost: a.test\r\n\r\n").map(|_| ()),
        Err(BadTarget(TargetError::Scheme))
    );
    // pip and others of old: HTTP/1.0, no field at all.
    assert!(parse("CONNECT a.test:443 HTTP/1.0\r\n\r\n").is_ok());
}

#[test]
fn connect_announces_no_body() {
    let connect =
        |fields: &str| parse(&format!("CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n{fields}\r\n"));
    assert_eq!(connect("Content-Length: 0\r\n").unwrap().framing, Framing::None);
    assert_eq!(connect("Content-Length: 1\r\n").map(|_| ()), Err(ConnectBody));
    assert_eq!(connect("Transfer-Encoding: chunked\r\n").map(|_| ()), Err(ConnectBody));
}

#[test]
fn targets_of_other_forms() {
    assert_eq!(parse("GET /x HTTP/1.1\r\nHost: a.test\r\n\r\n").unwrap().target, Target::Origin);
    assert_eq!(parse("OPTIONS * HTTP/1.1\r\nHost: a.test\r\n\r\n").unwrap().target, Target::Asterisk);
    for (line, kind) in [
        ("GET * HTTP/1.1", Asterisk),
        ("GET /#f HTTP/1.1", BadTarget(TargetError::Fragment)),
        ("GET https://a.test/ HTTP/1.1", BadTarget(TargetError::HttpsAbsolute)),
        ("GET ftp://a.test/ HTTP/1.1", BadTarget(TargetError::Scheme)),
        ("GET x HTTP/1.1", BadTarget(TargetError::Scheme)),
        ("GET http://u@a.test/ HTTP/1.1", BadTarget(TargetError::Userinfo)),
        ("GET http://127.1/ HTTP/1.1", BadTarget(TargetError::Numeric)),
    ] {
        assert_eq!(parse(&format!("{line}\r\nHost: a.test\r\n\r\n")).map(|_| ()), Err(kind), "{line}");
    }
}

#[test]
fn raw_utf8_passes_in_a_path_and_nowhere_else() {
    for target in ["/\u{e9}", "http://a.test/\u{e9}?\u{1f600}"] {
        assert!(parse(&format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n\r\n")).is_ok(), "{target}");
    }
    for target in [&b"/\xe9"[..], b"http://a.test/\xff"] {
        let head = [b"GET ", target, b" HTTP/1.1\r\nHost: a.test\r\n\r\n"].concat();
        fuzz(&head);
        assert_eq!(Request::parse(&head).unwrap_err().kind, BadTarget(TargetError::Encoding));
    }
}

#[test]
fn request_lines_are_spelled_one_way() {
    for (line, kind) in [
        ("", BadMethod),
        (" GET / HTTP/1.1", BadMethod),
        ("GET\t/ HTTP/1.1", BadMethod),
        ("G(T / HTTP/1.1", BadMethod),
        ("GET", BadMethod),
        ("GET ", BadRequestLine),
        ("GET  / HTTP/1.1", BadRequestLine),
        ("GET /  HTTP/1.1", BadRequestLine),
        ("GET /a b HTTP/1.1", BadVersion),
        ("GET /\tHTTP/1.1", BadRequestLine),
        ("GET /", BadVersion),
        ("GET / ", BadVersion),
        ("GET / HTTP/1.1 ", BadVersion),
        ("GET / HTTP/1.2", BadVersion),
        ("GET / HTTP/2.0", BadVersion),
        ("GET / HTTP/0.9", BadVersion),
        ("GET / HTTP/01.1", BadVersion),
        ("GET / http/1.1", BadVersion),
        ("GET / ICE/1.0", BadVersion),
        ("PRI * HTTP/2.0", Http2),
        ("PRI * HTTP/1.1", Http2),
    ] {
        assert_eq!(parse(&format!("{line}\r\nHost: a.test\r\n\r\n")).map(|_| ()), Err(kind), "{line:?}");
    }
    let error = Request::parse(b"GET / HTTP/3.0\r\n\r\n").unwrap_err();
    assert_eq!(error.to_string(), "the version is neither HTTP/1.1 nor HTTP/1.0 (at byte 6 of the head)");
}

#[test]
fn methods_are_tokens_in_their_case() {
    let method = |text: &str| parse(&format!("{text} /x HTTP/1.1\r\nHost: a\r\n\r\n")).unwrap().method;
    for name in
        ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "PROPFIND", "get", "M-SEARCH"]
    {
        assert_eq!(method(name).as_str(), name);
    }
    assert_eq!(method("get"), Method::Other("get".into()));
}

#[test]
fn one_empty_line_in_front_is_passed_over() {
    let request = parse("\r\nGET http://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n").unwrap();
    assert_eq!(request.fields.len(), 1);
    assert_eq!(parse("\r\n\r\nGET / HTTP/1.0\r\n\r\n").map(|_| ()), Err(BadMethod));
}

#[test]
fn host_is_there_once_and_agrees() {
    let host = |target: &str, fields: &str| parse(&format!("{target} HTTP/1.1\r\n{fields}\r\n")).map(|_| ());
    let absolute = |fields: &str| host("GET http://a.test/", fields);
    assert_eq!(absolute("Host: a.test\r\n"), Ok(()));
    assert_eq!(absolute("Host: A.TEST.:80\r\n"), Ok(()));
    assert_eq!(absolute(""), Err(HostMissing));
    assert_eq!(absolute("Host: a.test\r\nHost: a.test\r\n"), Err(HostRepeated));
    assert_eq!(absolute("Host: b.test\r\n"), Err(HostMismatch));
    assert_eq!(absolute("Host: a.test:8080\r\n"), Err(HostMismatch));
    assert_eq!(absolute("Host:\r\n"), Err(BadHost(TargetError::Empty)));
    assert_eq!(absolute("Host: a.test/\r\n"), Err(BadHost(TargetError::Byte(b'/'))));
    assert_eq!(absolute("Host: a.test, b.test\r\n"), Err(BadHost(TargetError::Byte(b','))));
    assert_eq!(absolute("Host: u@a.test\r\n"), Err(BadHost(TargetError::Userinfo)));
    let connect = |fields: &str| host("CONNECT a.test:8443", fields);
    assert_eq!(connect("Host: a.test:8443\r\n"), Ok(()));
    assert_eq!(connect("Host: a.test\r\n"), Ok(()), "clients leave the port out");
    assert_eq!(connect("Host: a.test:443\r\n"), Err(HostMismatch));
    assert_eq!(connect("Host: b.test:8443\r\n"), Err(HostMismatch));
    assert_eq!(connect(""), Err(HostMissing));
    assert_eq!(host("GET /", "Host: 127.1\r\n"), Err(BadHost(TargetError::Numeric)));
    assert_eq!(parse("GET http://a.test/ HTTP/1.0\r\nHost: b.test\r\n\r\n").map(|_| ()), Err(HostMismatch));
    assert_eq!(
        parse("GET http://a.test/ HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n").map(|_| ()),
        Err(HostRepeated)
    );

    let error = Request::parse(b"GET http://a.test/ HTTP/1.1\r\nHost: b.test\r\n\r\n").unwrap_err();
    assert!(error.is_authority_mismatch());
    assert_eq!(error.at, 35);
    let error = Request::parse(b"GET http://a.test/ HTTP/1.1\r\n\r\n").unwrap_err();
    assert!(!error.is_authority_mismatch());
}

#[test]
fn field_lines_are_strict() {
    for (fields, kind) in [
        (" X: y\r\n", Fold),
        ("A: b\r\n c\r\n", Fold),
        ("A: b\r\n\tc\r\n", Fold),
        ("A : b\r\n", SpaceBeforeColon),
        ("A\t: b\r\n", SpaceBeforeColon),
        (": b\r\n", NameEmpty),
        ("A@: b\r\n", NameByte),
        ("A\u{e9}: b\r\n", NameByte),
        ("A\r\n", NameByte),
        ("A: \0\r\n", Control),
        ("A: \u{7f}\r\n", Control),
        ("A: \u{b}\r\n", Control),
        ("A: b\rc\r\n", BareCr),
        ("A: b\nC: d\r\n", BareLf),
        ("A: b\n\r\n", BareLf),
    ] {
        assert_eq!(with_fields(fields).map(|_| ()), Err(kind), "{fields:?}");
    }
    assert!(with_fields("A: \u{e9}\ta\r\n").is_ok(), "obs-text and tabs inside a value pass");
}

#[test]
fn framing_is_beyond_doubt() {
    let framing = |fields: &str| with_fields(fields).map(|request| request.framing);
    assert_eq!(framing(""), Ok(Framing::None));
    assert_eq!(framing("Content-Length: 5\r\n"), Ok(Framing::Length(5)));
    assert_eq!(framing("Transfer-Encoding: chunked\r\n"), Ok(Framing::Chunked));
    assert_eq!(framing("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"), Err(LengthAndCoding));
    assert_eq!(framing("Content-Length: 5\r\nContent-Length: 5\r\n"), Err(LengthRepeated));
    assert_eq!(framing("Transfer-Encoding: identity\r\n"), Err(Coding));
    let http10 = parse("POST http://a.test/ HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert_eq!(http10.map(|_| ()), Err(CodingInHttp10));
}

#[test]
fn what_the_client_says_of_its_connection() {
    let keeps = |fields: &str| with_fields(fields).unwrap().keep_alive;
    assert!(keeps("") && keeps("Connection: keep-alive\r\n") && keeps("Proxy-Connection: keep-alive\r\n"));
    assert!(!keeps("Connection: x, CLOSE\t, y\r\n"));
    assert!(!keeps("Connection: keep-alive\r\nConnection: close\r\n"));
    assert!(!keeps("Proxy-Connection: Close\r\n"));
    // RFC 9112, 9.3: a proxy does not persist with HTTP/1.0 clients.
    assert!(!parse("GET http://a.test/ HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").unwrap().keep_alive);

    assert!(with_fields("Expect: 100-Continue\r\n").unwrap().expect_continue);
    assert!(!parse("GET http://a.test/ HTTP/1.0\r\nExpect: 100-continue\r\n\r\n").unwrap().expect_continue);
    assert!(with_fields("Connection: upgrade\r\nUpgrade: websocket\r\n").unwrap().upgrade);
}

#[test]
fn exactly_one_head_is_parsed() {
    let head = b"GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n";
    for len in 0..head.len() {
        assert!(Request::parse(&head[..len]).is_err(), "{len}");
    }
    assert!(Request::parse(&[head, &b"x"[..]].concat()).is_err());
}

proptest! {
    #[test]
    fn any_head(
        line in "(GET|POST|CONNECT|OPTIONS) (http://[a-b.:0-9]{1,6}/?|/|\\*|[a-b.]{1,3}:[0-9]{1,3}) HTTP/1\\.[01]",
        fields in prop::collection::vec("(Host|Content-Length|Transfer-Encoding|Connection|TE|Upgrade|Proxy-x|A|b)( ?):[ \t]?([a-b.:0-9,]{0,4}|chunked|close|upgrade)", 0..6),
    ) {
        fuzz(format!("{line}\r\n{}\r\n", fields.iter().map(|f| format!("{f}\r\n")).collect::<String>()).as_bytes());
    }

    #[test]
    fn any_bytes(data in prop::collection::vec(any::<u8>(), 0..80), text in "[a-zA-Z:/ .\r\n*]{0,80}") {
        fuzz(&data);
        fuzz(text.as_bytes());
    }

    /// A mutation of a good head is refused or read as httparse reads it.
    #[test]
    fn one_byte_off(at in 0_usize..90, byte in any::<u8>(), insert in any::<bool>()) {
        let mut head = b"\r\nPOST http://a.test/p?q HTTP/1.1\r\nHost: a.test\r\nConnection: X\r\nX: y\r\nContent-Length: 12\r\n\r\n".to_vec();
        let at = at.min(head.len() - 1);
        if insert { head.insert(at, byte) } else { head[at] = byte }
        fuzz(&head);
    }
}
