//! Plain HTTP: requests in absolute-form, connections that are kept on both sides, and the fields that belong to
//! one hop only.

use std::sync::Barrier;
use std::thread;

use tests::{After, Daemon, Driver, HttpOrigin, Setup, both_drivers};

both_drivers! {
    fn keeps_the_client_and_pools_the_origin(driver: Driver) {
        let origin = HttpOrigin::paths();
        let daemon = Setup::on(driver).flags(&["--threads", "1"]).start();
        let mut wire = daemon.dial();
        for path in ["/1", "/2?x=%41&y=+", "/3"] {
            let (head, body) = wire.get(&origin.url("pool.weir.test", path));
            assert_eq!((head.status(), body.as_slice()), (200, path.as_bytes()));
        }
        // A second client, after the first has gone, gets the connection that is already there.
        drop(wire);
        tests::holds("the first client's connection to end", || {
            daemon.status()["connections"]["open"].as_u64() == Some(0)
        });
        daemon.dial().get(&origin.url("pool.weir.test", "/4"));
        assert_eq!(origin.accepted(), 1, "every request made a new connection to the origin");
        // Another name on the same address is another origin.
        daemon.dial().get(&origin.url("other.weir.test", "/5"));
        assert_eq!(origin.accepted(), 2);
    }

    fn origin_form_and_fields_are_as_the_origin_expects(driver: Driver) {
        let origin = HttpOrigin::paths();
        let daemon = Daemon::start(driver);
        let name = origin.named("fields.weir.test");
        let mut wire = daemon.dial();
        wire.send(format!(
            "GET http://{name}/a/../b?q=1 HTTP/1.1\r\nhOsT: {name}\r\nX-Case: Kept\r\nx-twice: 1\r\nX-Twice: 2\r\n\
             Proxy-Authorization: Basic c2VjcmV0\r\nProxy-Connection: keep-alive\r\nConnection: x-hop, keep-alive\r\n\
             X-Hop: gone\r\nKeep-Alive: 300\r\nTE: trailers\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\
             Authorization: Bearer kept\r\nCookie: a=b\r\n\r\n"
        ));
        assert_eq!(wire.answer("GET").0.status(), 200);
        let seen = &origin.seen()[0].head;
        assert_eq!(seen.first, "GET /a/../b?q=1 HTTP/1.1", "bytes are forwarded as spelled");
        assert_eq!(seen.all("host"), [name.as_str()]);
        assert!(seen.fields.contains(&("X-Case".into(), "Kept".into())), "{seen:?}");
        assert_eq!(seen.all("x-twice"), ["1", "2"]);
        assert_eq!((seen.field("authorization"), seen.field("cookie")), (Some("Bearer kept"), Some("a=b")));
        for gone in ["proxy-authorization", "proxy-connection", "x-hop", "keep-alive", "upgrade"] {
            assert_eq!(seen.field(gone), None, "{gone} reached the origin");
        }
        assert!(!seen.field("connection").unwrap_or_default().contains("x-hop"), "{seen:?}");
    }

    /// Connection may not name what belongs to the message (RFC 9110, 7.6.1).
    fn connection_cannot_remove_end_to_end_fields(driver: Driver) {
        let origin = HttpOrigin::paths();
        let daemon = Daemon::start(driver);
        let name = origin.named("fields.weir.test");
        let mut wire = daemon.dial();
        wire.send(format!(
            "POST http://{name}/ HTTP/1.1\r\nHost: {name}\r\nConnection: host, content-length, authorization, cookie\r\n\
             Authorization: Bearer kept\r\nCookie: a=b\r\nContent-Length: 3\r\n\r\nabc"
        ));
        assert_eq!(wire.answer("POST").0.status(), 200);
        let seen = &origin.seen()[0];
        assert_eq!(seen.body, b"abc");
        assert_eq!((seen.head.all("host").len(), seen.head.field("authorization")), (1, Some("Bearer kept")));
        assert_eq!(seen.head.field("cookie"), Some("a=b"));
    }

    fn response_fields_of_one_hop_are_stripped(driver: Driver) {
        let origin = HttpOrigin::always(
            b"HTTP/1.1 200 Fine By Me\r\nContent-Length: 2\r\nConnection: X-Hop\r\nX-Hop: 1\r\nProxy-Authenticate: Basic\r\n\
              Keep-Alive: timeout=5\r\nSet-Cookie: a=1\r\nsEt-cOOkie: b=2\r\nETag: \"x\"\r\n\r\nok",
        );
        let daemon = Daemon::start(driver);
        let (head, body) = daemon.dial().get(&origin.url("fields.weir.test", "/"));
        assert_eq!((head.first.as_str(), body.as_slice()), ("HTTP/1.1 200 Fine By Me", &b"ok"[..]));
        assert_eq!((head.field("x-hop"), head.field("proxy-authenticate")), (None, None));
        assert_eq!(head.all("set-cookie"), ["a=1", "b=2"]);
        assert_eq!(head.field("etag"), Some("\"x\""));
    }

    /// Requests sent in one go are answered in order, and each is judged.
    fn pipelined_requests_are_judged_each(driver: Driver) {
        let origin = HttpOrigin::paths();
        let daemon = Daemon::start(driver);
        let get = |name: &str, path: &str| {
            let name = origin.named(name);
            format!("GET http://{name}{path} HTTP/1.1\r\nHost: {name}\r\n\r\n")
        };
        let all = [get("a.weir.test", "/1"), get("denied.weir.test", "/2"), get("b.weir.test", "/3")].concat();
        let mut wire = daemon.dial();
        wire.send(all);
        assert_eq!(wire.answer("GET").1, b"/1");
        assert_eq!(wire.answer("GET").0.status(), 403);
        assert_eq!(wire.answer("GET").1, b"/3");
        let paths: Vec<String> = origin.seen().iter().map(|seen| seen.target().to_owned()).collect();
        assert_eq!(paths, ["/1", "/3"], "what was refused never reached the origin");
        daemon.gate().exits(10);
    }

    fn close_and_old_versions_end_the_connection(driver: Driver) {
        let origin = HttpOrigin::paths();
        let daemon = Daemon::start(driver);
        let name = origin.named("close.weir.test");
        for (version, field) in [("1.1", "Connection: close\r\n"), ("1.0", "")] {
            let mut wire = daemon.dial();
            wire.send(format!("GET http://{name}/x HTTP/{version}\r\nHost: {name}\r\n{field}\r\n"));
            assert_eq!(wire.answer("GET").1, b"/x");
            assert_eq!(wire.until_end().unwrap(), b"", "HTTP/{version} {field:?}");
        }
    }

    /// An origin that ends each connection costs a new one each time, and no request.
    fn stale_pooled_connection_is_no_error(driver: Driver) {
        let origin = HttpOrigin::new(|seen, wire| {
            wire.send(format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{}", &seen.target()[1..2]));
            After::Close // without saying so before
        });
        let daemon = Setup::on(driver).flags(&["--threads", "1"]).start();
        let mut wire = daemon.dial();
        for round in 0..8 {
            let (head, body) = wire.get(&origin.url("stale.weir.test", &format!("/{round}")));
            assert_eq!((head.status(), body), (200, round.to_string().into_bytes()), "request {round}");
        }
        assert_eq!(origin.seen().len(), 8, "each request reached the origin once");
    }

    /// What an origin sends behind its response belongs to nobody (never to the next client).
    fn bytes_behind_a_response_reach_nobody(driver: Driver) {
        let origin = HttpOrigin::always(
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        );
        let daemon = Setup::on(driver).flags(&["--threads", "1"]).start();
        for _ in 0..4 {
            let mut wire = daemon.dial();
            for _ in 0..2 {
                assert_eq!(wire.get(&origin.url("behind.weir.test", "/")).1, b"ok");
            }
        }
    }

    fn many_clients_at_once_get_their_own_answers(driver: Driver) {
        let origin = HttpOrigin::paths();
        let daemon = Daemon::start(driver);
        let together = Barrier::new(16);
        thread::scope(|scope| {
            for client in 0..16 {
                let (origin, daemon, together) = (&origin, &daemon, &together);
                scope.spawn(move || {
                    let mut wire = daemon.dial();
                    together.wait();
                    for request in 0..25 {
                        let path = format!("/{client}/{request}");
                        assert_eq!(wire.get(&origin.url("many.weir.test", &path)).1, path.as_bytes());
                    }
                });
            }
        });
        assert_eq!(origin.seen().len(), 400);
        daemon.journal.wait_for_count("ended", 400);
        daemon.gate().exits(0);
    }

    /// The query may hold tokens: it is forwarded and never written down.
    fn query_is_not_recorded(driver: Driver) {
        let origin = HttpOrigin::paths();
        let daemon = Daemon::start(driver);
        daemon.dial().get(&origin.url("secret.weir.test", "/path?token=canary-8271"));
        daemon.journal.wait_for_count("ended", 1);
        let lines = daemon.journal.lines().join("\n");
        assert!(lines.contains("/path") && !lines.contains("canary-8271"), "{lines}");
        assert!(origin.seen()[0].target().contains("canary-8271"));
    }
}
