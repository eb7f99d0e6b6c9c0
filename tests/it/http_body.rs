//! Bodies: streamed, framed as they came, and cut where they were cut.

use std::io::ErrorKind;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;

use tests::harness::pattern::Pattern;
use tests::{After, Daemon, Driver, HttpOrigin, Origin, both_drivers};

both_drivers! {
    /// The first half arrives before the second is sent.
    fn download_is_streamed(driver: Driver) {
        let (go, gone) = channel::<()>();
        let gone = Arc::new(Mutex::new(gone));
        let origin = Origin::serve(move |mut wire| {
            wire.head();
            wire.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst");
            gone.lock().unwrap().recv().unwrap();
            wire.send("later");
        });
        let daemon = Daemon::start(driver);
        let name = origin.named("stream.weir.test");
        let mut wire = daemon.dial();
        wire.send(format!("GET http://{name}/ HTTP/1.1\r\nHost: {name}\r\n\r\n"));
        assert_eq!(wire.head().status(), 200);
        assert_eq!(wire.exactly(5), b"first");
        go.send(()).unwrap();
        assert_eq!(wire.exactly(5), b"later");
    }

    fn upload_is_streamed(driver: Driver) {
        let (origin, halves) = Origin::reporting(|mut wire, report| {
            wire.head();
            for _ in 0..2 {
                let _ = report.send(wire.exactly(5));
            }
            wire.send("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n");
        });
        let daemon = Daemon::start(driver);
        let name = origin.named("stream.weir.test");
        let mut wire = daemon.dial();
        wire.send(format!("PUT http://{name}/ HTTP/1.1\r\nHost: {name}\r\nContent-Length: 10\r\n\r\nfirst"));
        assert_eq!(halves.recv().unwrap(), b"first");
        wire.send("later");
        assert_eq!(halves.recv().unwrap(), b"later");
        assert_eq!(wire.answer("PUT").0.status(), 201);
    }

    fn large_bodies_pass_unchanged(driver: Driver) {
        const BYTES: u64 = 24_000_000;
        let (origin, verdict) = Origin::reporting(|mut wire, report| {
            wire.head();
            // Nothing of the body may have been read ahead: the pattern reads from the socket.
            let mut body = Vec::new();
            while (body.len() as u64) < BYTES {
                body.extend(wire.exactly(1_000_000));
            }
            let _ = report.send(Pattern::new(3).expect(&mut &body[..], BYTES).map_err(|error| error.to_string()));
            wire.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {BYTES}\r\n\r\n"));
            let _ = Pattern::new(4).write(&mut wire.twin(), BYTES);
        });
        let daemon = Daemon::start(driver);
        let name = origin.named("large.weir.test");
        let mut wire = daemon.dial();
        wire.send(format!("POST http://{name}/ HTTP/1.1\r\nHost: {name}\r\nContent-Length: {BYTES}\r\n\r\n"));
        let mut to = wire.twin();
        let sender = thread::spawn(move || Pattern::new(3).write(&mut to, BYTES));
        let (head, body) = wire.answer("POST");
        assert_eq!(verdict.recv().unwrap(), Ok(()));
        sender.join().unwrap().unwrap();
        assert_eq!(head.status(), 200);
        Pattern::new(4).expect(&mut &body[..], BYTES).unwrap();
    }

    fn chunked_both_ways_with_trailers(driver: Driver) {
        let origin = HttpOrigin::always(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n5;ext=1\r\nhello\r\n1\r\n!\r\n0\r\nX-Sum: 42\r\n\r\n",
        );
        let daemon = Daemon::start(driver);
        let name = origin.named("chunks.weir.test");
        let mut wire = daemon.dial();
        for _ in 0..2 {
            wire.send(format!(
                "POST http://{name}/ HTTP/1.1\r\nHost: {name}\r\nTransfer-Encoding: chunked\r\nTrailer: X-Up\r\n\r\n\
                 3\r\nabc\r\n10\r\n0123456789abcdef\r\n0\r\nX-Up: 7\r\n\r\n"
            ));
            let head = wire.head();
            assert_eq!(head.field("transfer-encoding"), Some("chunked"));
            assert_eq!(wire.chunked().unwrap(), (b"hello!".to_vec(), "X-Sum: 42\r\n".to_owned()));
        }
        for seen in origin.seen() {
            assert_eq!((seen.body.as_slice(), seen.trailers.as_str()), (&b"abc0123456789abcdef"[..], "X-Up: 7\r\n"));
        }
        assert_eq!(origin.seen().len(), 2);
    }

    fn chunked_sliced_byte_by_byte(driver: Driver) {
        let origin = HttpOrigin::paths();
        let daemon = Daemon::start(driver);
        let name = origin.named("chunks.weir.test");
        let mut wire = daemon.dial();
        wire.send_byte_by_byte(
            format!("POST http://{name}/slow HTTP/1.1\r\nHost: {name}\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\nab\r\n0\r\nA: b\r\n\r\n")
                .as_bytes(),
        );
        assert_eq!(wire.answer("POST").1, b"/slow");
        assert_eq!(origin.seen()[0].body, b"ab");
    }

    /// HEAD, 204 and 304 have no body whatever their fields say; the connection goes on behind them.
    fn responses_without_a_body(driver: Driver) {
        let origin = HttpOrigin::new(|seen, wire| {
            let head = match seen.target() {
                "/204" => "HTTP/1.1 204 No Content\r\n\r\n",
                "/304" => "HTTP/1.1 304 Not Modified\r\nContent-Length: 1234\r\nETag: \"a\"\r\n\r\n",
                "/chunked" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                _ => "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n",
            };
            wire.send(head);
            After::Keep
        });
        let daemon = Daemon::start(driver);
        let name = origin.named("bare.weir.test");
        let mut wire = daemon.dial();
        for (method, path, status) in
            [("HEAD", "/", 200), ("GET", "/204", 204), ("HEAD", "/chunked", 200), ("GET", "/304", 304), ("HEAD", "/", 200)]
        {
            wire.send(format!("{method} http://{name}{path} HTTP/1.1\r\nHost: {name}\r\n\r\n"));
            let (head, body) = wire.answer(method);
            assert_eq!((head.status(), body.len()), (status, 0), "{method} {path}");
            if method == "HEAD" && path == "/" {
                assert_eq!(head.field("content-length"), Some("1234"), "the field is told all the same");
            }
        }
        assert_eq!(origin.seen().len(), 5);
    }

    fn interim_responses_are_passed_on(driver: Driver) {
        let origin = HttpOrigin::always(
            b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        );
        let daemon = Daemon::start(driver);
        let name = origin.named("hints.weir.test");
        let mut wire = daemon.dial();
        wire.send(format!("GET http://{name}/ HTTP/1.1\r\nHost: {name}\r\n\r\n"));
        let interim = wire.head();
        assert_eq!((interim.status(), interim.field("link")), (103, Some("</a.css>")));
        assert_eq!(wire.answer("GET").1, b"ok");
        assert_eq!(wire.get(&origin.url("hints.weir.test", "/")).1, b"ok", "the connection goes on");
    }

    /// The 100 comes from the origin, before the client has sent a byte of the body.
    fn expect_continue_is_the_origins_to_answer(driver: Driver) {
        let origin = HttpOrigin::paths();
        let daemon = Daemon::start(driver);
        let name = origin.named("expect.weir.test");
        let mut wire = daemon.dial();
        wire.send(format!(
            "PUT http://{name}/e HTTP/1.1\r\nHost: {name}\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"
        ));
        assert_eq!(wire.head().status(), 100);
        wire.send("body");
        assert_eq!(wire.answer("PUT").1, b"/e");
        assert_eq!(origin.seen()[0].body, b"body");
    }

    /// An origin that refuses the expectation answers at once; the client may then keep its body for itself.
    fn refused_expectation_reaches_the_client(driver: Driver) {
        let origin = Origin::serve(|mut wire| {
            wire.head();
            wire.send("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno");
        });
        let daemon = Daemon::start(driver);
        let name = origin.named("expect.weir.test");
        let mut wire = daemon.dial();
        wire.send(format!(
            "PUT http://{name}/e HTTP/1.1\r\nHost: {name}\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"
        ));
        let (head, body) = wire.answer("PUT");
        assert_eq!((head.status(), body.as_slice()), (417, &b"no"[..]));
    }

    fn body_until_close(driver: Driver) {
        let origin = HttpOrigin::new(|_, wire| {
            wire.send("HTTP/1.0 200 OK\r\n\r\nas long as it takes");
            After::Close
        });
        let daemon = Daemon::start(driver);
        let (head, body) = daemon.dial().get(&origin.url("old.weir.test", "/"));
        assert_eq!((head.status(), body.as_slice()), (200, &b"as long as it takes"[..]));
    }

    /// Never complete in the client's eyes what was cut at the origin, by an end or by a reset.
    fn cut_response_arrives_as_cut(driver: Driver) {
        for (path, answer) in [
            ("length", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this"),
            ("chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n20\r\nonly this"),
            ("between", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nonly\r\n"),
            ("trailers", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nonly\r\n0\r\nA: b\r\n"),
        ] {
            for after in [After::Close, After::Reset] {
                let origin = HttpOrigin::new(move |_, wire| {
                    wire.send(answer);
                    after
                });
                let daemon = Daemon::start(driver);
                let name = origin.named("cut.weir.test");
                let mut wire = daemon.dial();
                wire.send(format!("GET http://{name}/{path} HTTP/1.1\r\nHost: {name}\r\n\r\n"));
                let body = wire.try_head().and_then(|head| {
                    // A reset may overtake the head; then there is a 502, or a cut connection.
                    if head.status() == 502 { Err(ErrorKind::Other.into()) } else { wire.body("GET", &head) }
                });
                assert!(body.is_err(), "{path} {after:?} looks complete: {body:?}");
            }
        }
    }

    fn origin_without_an_answer_is_502(driver: Driver) {
        for answer in ["", "HTTP/1.1 200", "nonsense\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"] {
            let origin = HttpOrigin::new(move |_, wire| {
                wire.send(answer);
                After::Close
            });
            let daemon = Daemon::start(driver);
            let (head, _) = daemon.dial().get(&origin.url("broken.weir.test", "/"));
            assert_eq!(head.status(), 502, "{answer:?}");
        }
    }

    /// The client goes away in the middle: the origin's connection ends too.
    fn client_that_leaves_ends_the_exchange(driver: Driver) {
        let (origin, ends) = Origin::reporting(|mut wire, report| {
            wire.head();
            wire.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nsome");
            let _ = report.send(wire.until_end().map(|rest| rest.len()).map_err(|error| error.kind()));
        });
        let daemon = Daemon::start(driver);
        let name = origin.named("leave.weir.test");
        let mut wire = daemon.dial();
        wire.send(format!("GET http://{name}/ HTTP/1.1\r\nHost: {name}\r\n\r\n"));
        wire.head();
        drop(wire);
        assert!(matches!(ends.recv().unwrap(), Ok(0) | Err(ErrorKind::ConnectionReset)));
        daemon.journal.wait_for_count("ended", 1);
        daemon.gate().exits(0);
    }
}
