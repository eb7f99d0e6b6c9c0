//! Requests that two readers could read in two ways are refused, and never reach an origin.

use std::time::{Duration, Instant};

use tests::{Daemon, Driver, HttpOrigin, both_drivers};

/// Name, status, request; `NAME` stands for `name:port` of the origin.
const REFUSED: &[(&str, u16, &str)] = &[
    (
        "length with chunked",
        400,
        "POST http://NAME/ HTTP/1.1\r\nHost: NAME\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
    ),
    (
        "chunked with length",
        400,
        "POST http://NAME/ HTTP/1.1\r\nHost: NAME\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
    ),
    (
        "two lengths",
        400,
        "POST http://NAME/ HTTP/1.1\r\nHost: NAME\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
    ),
    ("list of lengths", 400, "POST http://NAME/ HTTP/1.1\r\nHost: NAME\r\nContent-Length: 3, 4\r\n\r\nabc"),
    ("signed length", 400, "POST http://NAME/ HTTP/1.1\r\nHost: NAME\r\nContent-Length: +3\r\n\r\nabc"),
    ("hex length", 400, "POST http://NAME/ HTTP/1.1\r\nHost: NAME\r\nContent-Length: 0x3\r\n\r\nabc"),
    (
        "huge length",
        400,
        "POST http://NAME/ HTTP/1.1\r\nHost: NAME\r\nContent-Length: 9223372036854775808\r\n\r\n",
    ),
    (
        "encoding that is not chunked",
        400,
        "POST http://NAME/ HTTP/1.1\r\nHost: NAME\r\nTransfer-Encoding: identity\r\n\r\n",
    ),
    (
        "chunked twice",
        400,
        "POST http://NAME/ HTTP/1.1\r\nHost: NAME\r\nTransfer-Encoding: chunked, chunked\r\n\r\n",
    ),
    (
        "chunked not last",
        400,
        "POST http://NAME/ HTTP/1.1\r\nHost: NAME\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
    ),
    (
        "vertical tab before chunked",
        400,
        "POST http://NAME/ HTTP/1.1\r\nHost: NAME\r\nTransfer-Encoding: \x0bchunked\r\n\r\n",
    ),
    (
        "chunked in 1.0",
        400,
        "POST http://NAME/ HTTP/1.0\r\nHost: NAME\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    ("folded line", 400, "GET http://NAME/ HTTP/1.1\r\nHost: NAME\r\nX: a\r\n b\r\n\r\n"),
    ("bare CR", 400, "GET http://NAME/ HTTP/1.1\r\nHost: NAME\r\nX: a\rb\r\n\r\n"),
    ("bare LF", 400, "GET http://NAME/ HTTP/1.1\nHost: NAME\n\n"),
    ("NUL", 400, "GET http://NAME/ HTTP/1.1\r\nHost: NAME\r\nX: a\0b\r\n\r\n"),
    ("DEL", 400, "GET http://NAME/ HTTP/1.1\r\nHost: NAME\r\nX: a\x7fb\r\n\r\n"),
    ("space before the colon", 400, "GET http://NAME/ HTTP/1.1\r\nHost: NAME\r\nX : a\r\n\r\n"),
    ("empty name", 400, "GET http://NAME/ HTTP/1.1\r\nHost: NAME\r\n: a\r\n\r\n"),
    ("no Host", 400, "GET http://NAME/ HTTP/1.1\r\n\r\n"),
    ("two Hosts", 400, "GET http://NAME/ HTTP/1.1\r\nHost: NAME\r\nHost: NAME\r\n\r\n"),
    ("another Host", 421, "GET http://NAME/ HTTP/1.1\r\nHost: other.weir.test\r\n\r\n"),
    ("0.9", 400, "GET http://NAME/\r\n\r\n"),
    ("2.0", 400, "GET http://NAME/ HTTP/2.0\r\nHost: NAME\r\n\r\n"),
    ("preface of HTTP/2", 400, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ("origin-form to a proxy", 400, "GET / HTTP/1.1\r\nHost: NAME\r\n\r\n"),
    ("userinfo", 400, "GET http://me:pw@NAME/ HTTP/1.1\r\nHost: NAME\r\n\r\n"),
    ("fragment", 400, "GET http://NAME/#x HTTP/1.1\r\nHost: NAME\r\n\r\n"),
    ("space in the target", 400, "GET http://NAME/a b HTTP/1.1\r\nHost: NAME\r\n\r\n"),
    ("https in clear", 400, "GET https://NAME/ HTTP/1.1\r\nHost: NAME\r\n\r\n"),
];

/// Name and body of a chunked request that breaks somewhere.
const BROKEN_CHUNKS: &[(&str, &str)] = &[
    ("sign", "+3\r\nabc\r\n0\r\n\r\n"),
    ("0x", "0x3\r\nabc\r\n0\r\n\r\n"),
    ("space", "3 \r\nabc\r\n0\r\n\r\n"),
    ("overflow", "ffffffffffffffff3\r\nabc\r\n0\r\n\r\n"),
    ("no CRLF behind the data", "3\r\nabcd\r\n0\r\n\r\n"),
    ("bare LF", "3\nabc\n0\n\n"),
    ("length as trailer", "0\r\nContent-Length: 5\r\n\r\n"),
    ("authorization as trailer", "0\r\nAuthorization: x\r\n\r\n"),
];

both_drivers! {
    fn ambiguous_requests_are_refused(driver: Driver) {
        let origin = HttpOrigin::paths();
        let daemon = Daemon::start(driver);
        let name = origin.named("strict.weir.test");
        for (what, status, request) in REFUSED {
            let request = request.replace("NAME", &name);
            let mut wire = daemon.dial();
            wire.send(&request);
            let head = wire.head();
            assert_eq!(head.status(), *status, "{what}: {}", head.first);
            wire.body("GET", &head).unwrap();
            let more = wire.until_end().unwrap_or_default();
            assert!(more.is_empty(), "{what}: the connection goes on after an ambiguous request");
        }
        assert_eq!(origin.seen().len(), 0, "one reached the origin: {:?}", origin.seen());
        let code = |record: &serde_json::Value| record["code"].as_str().unwrap_or_default().to_owned();
        daemon.journal.wait_for_count("decided", REFUSED.len());
        let codes: Vec<String> = daemon.journal.of_kind("decided").iter().map(code).collect();
        assert!(codes.iter().all(|code| code == "malformed" || code == "authority_mismatch"), "{codes:?}");
        daemon.gate().exits(0);
    }

    /// Refused before the bad bytes reach the origin, and never answered as if it were complete.
    fn broken_chunks_are_refused(driver: Driver) {
        let origin = HttpOrigin::paths();
        let daemon = Daemon::start(driver);
        let name = origin.named("strict.weir.test");
        for (what, body) in BROKEN_CHUNKS {
            let mut wire = daemon.dial();
            wire.send(format!("POST http://{name}/ HTTP/1.1\r\nHost: {name}\r\nTransfer-Encoding: chunked\r\n\r\n{body}"));
            let status = wire.try_head().map(|head| head.status());
            assert!(matches!(status, Ok(400) | Err(_)), "{what}: {status:?}");
        }
        assert_eq!(origin.seen().len(), 0, "one reached the origin whole: {:?}", origin.seen());
    }

    fn heads_are_bounded(driver: Driver) {
        let origin = HttpOrigin::paths();
        let daemon = Daemon::start(driver);
        let name = origin.named("bounds.weir.test");
        let start = format!("GET http://{name}/ HTTP/1.1\r\nHost: {name}\r\n");
        let line = format!("GET http://{name}/{} HTTP/1.1\r\nHost: {name}\r\n\r\n", "a".repeat(17_000));
        let fields = format!("{start}{}\r\n", "X: y\r\n".repeat(200));
        let bytes = format!("{start}X: {}\r\n\r\n", "a".repeat(70_000));
        for (what, request) in [("request line", line), ("fields", fields), ("bytes", bytes)] {
            let mut wire = daemon.dial();
            let _ = std::io::Write::write_all(&mut wire.twin(), request.as_bytes());
            let status = wire.try_head().map(|head| head.status());
            assert!(matches!(status, Ok(400 | 414 | 431)), "{what}: {status:?}");
        }
        let (head, _) = daemon.dial().get(&origin.url("bounds.weir.test", "/still"));
        assert_eq!(head.status(), 200);
        assert_eq!(origin.seen().len(), 1);
    }

    /// Absolute: a byte now and then does not buy more time.
    fn slow_head_meets_its_deadline(driver: Driver) {
        let daemon = Daemon::start(driver);
        let mut wire = daemon.dial();
        let began = Instant::now();
        let mut to = wire.twin();
        let dripper = std::thread::spawn(move || {
            for byte in b"GET http://slow.weir.test/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa".iter().cycle() {
                if std::io::Write::write_all(&mut to, &[*byte]).is_err() || began.elapsed() > Duration::from_secs(25) {
                    return;
                }
                tests::harness::wait::pause(Duration::from_millis(250));
            }
        });
        let status = wire.try_head().map(|head| head.status());
        let took = began.elapsed();
        assert!(matches!(status, Ok(408)), "{status:?} after {took:?}");
        assert!(took > Duration::from_secs(9) && took < Duration::from_secs(14), "after {took:?}");
        drop(wire);
        dripper.join().unwrap();
    }

    /// A request for the proxy's own port that is not for a proxy gets a sentence, not a hang.
    fn tls_to_the_proxy_port_is_closed(driver: Driver) {
        let daemon = Daemon::start(driver);
        let mut wire = daemon.dial();
        wire.send(tests::client_hello(Some("mistaken.weir.test"), 600));
        let answer = wire.until_end().unwrap_or_default();
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 400"), "{answer:?}");
    }
}
