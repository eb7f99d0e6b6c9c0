//! Through a parent proxy: every way to it, and never around it.

use tests::harness::origin::closed_port;
use tests::harness::parent::PARENT_SAYS;
use tests::{Driver, HttpOrigin, Origin, Parent, Setup, both_drivers, client_hello};

/// `Basic` of `me:secret`.
const AUTHORIZATION: &str = "Basic bWU6c2VjcmV0";

/// Only `direct.weir.test` leads anywhere without the parent.
fn policy(url: &str, more: &str) -> String {
    format!(
        "version = 1\n[resolve]\n\"direct.weir.test\" = \"127.0.0.1\"\n\
         [[route]]\nid = \"no-go\"\nhosts = [\"denied.weir.test\"]\naction = \"deny\"\nreason = \"not for this job\"\n\
         [upstream]\ndefault = \"corp\"\n\
         [upstream.corp]\nurl = \"{url}\"\nno_proxy = [\"direct.weir.test\"]\nfail = \"closed\"\n{more}"
    )
}

both_drivers! {
    fn tunnels_and_requests_go_through(driver: Driver) {
        let parent = Parent::http(Some(AUTHORIZATION));
        let echo = Origin::echo();
        let url = format!("http://127.0.0.1:{}", parent.port());
        let daemon = Setup::on(driver)
            .policy(policy(&url, "auth_ref = \"env:PARENT_LOGIN\"\n"))
            .env("PARENT_LOGIN", "me:secret")
            .start();
        let target = echo.named("far.example.test");
        daemon.tunnel(&target).echo(&client_hello(Some("far.example.test"), 700));

        let mut wire = daemon.dial();
        wire.send("GET http://plain.example.test/p?q HTTP/1.1\r\nHost: plain.example.test\r\nProxy-Authorization: Basic b3RoZXI=\r\n\r\n");
        assert_eq!(wire.answer("GET").1, PARENT_SAYS.as_bytes());

        let heads = parent.heads();
        assert_eq!(heads[0].first, format!("CONNECT {target} HTTP/1.1"));
        assert_eq!(heads[1].first, "GET http://plain.example.test/p?q HTTP/1.1", "a proxy wants the absolute-form");
        for head in &heads {
            assert_eq!(head.all("proxy-authorization"), [AUTHORIZATION], "ours, and not the client's: {head:?}");
        }
        let record = daemon.journal.wait_for("decided", |record| record["verb"] == "CONNECT");
        assert!(record["via"].as_str().unwrap().contains("corp"), "{record}");
        assert!(!daemon.journal.lines().join("\n").contains("secret"));
        daemon.gate().exits(0);
    }

    /// A request that comes back is refused, however many proxies it went round.
    fn a_parent_that_leads_back_is_a_loop(driver: Driver) {
        let parent = Parent::http(None);
        let daemon = Setup::on(driver).policy(policy(&format!("http://127.0.0.1:{}", parent.port()), "")).start();
        let mut wire = daemon.dial();
        wire.send("CONNECT far.example.test:443 HTTP/1.1\r\nHost: far.example.test:443\r\nVia: 1.1 other\r\n\r\n");
        wire.head();
        daemon.dial().get("http://plain.example.test/");
        let heads = parent.heads();
        let via = heads[0].all("via").join(", ");
        assert!(via.starts_with("1.1 other, 1.1 weir-"), "{via}");
        let own = heads[1].all("via").join(", ");
        for ask in [
            format!("CONNECT far.example.test:443 HTTP/1.1\r\nHost: far.example.test:443\r\nVia: {via}\r\n\r\n"),
            format!("GET http://plain.example.test/ HTTP/1.1\r\nHost: plain.example.test\r\nVia: 1.0 a, {own}\r\n\r\n"),
        ] {
            let mut wire = daemon.dial();
            wire.send(&ask);
            assert_eq!(wire.head().status(), 403, "{ask}");
        }
        assert_eq!(parent.heads().len(), 2);
        daemon.journal.wait_for("decided", |record| record["code"] == "loop");
    }

    fn an_interim_answer_of_the_parent_is_passed_over(driver: Driver) {
        let parent = Origin::serve(|mut wire| {
            wire.head();
            wire.send("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\nearly");
            while !wire.exactly(1).is_empty() {}
        });
        let daemon = Setup::on(driver).policy(policy(&format!("http://{}", parent.named("127.0.0.1")), "")).start();
        let mut wire = daemon.dial();
        assert_eq!(wire.connect("far.example.test:443").status(), 200);
        assert_eq!(wire.exactly(5), b"early");
    }

    /// A 407 is between the parent and us.
    fn credentials_that_the_parent_refuses_are_a_failure_of_the_parent(driver: Driver) {
        let parent = Parent::http(Some(AUTHORIZATION));
        let daemon = Setup::on(driver).policy(policy(&format!("http://127.0.0.1:{}", parent.port()), "")).start();
        assert_eq!(daemon.dial().connect("far.example.test:443").status(), 502);
        assert_eq!(daemon.dial().get("http://plain.example.test/").0.status(), 502);
    }

    fn what_policy_refuses_never_reaches_the_parent(driver: Driver) {
        let parent = Parent::http(None);
        let daemon = Setup::on(driver).policy(policy(&format!("http://127.0.0.1:{}", parent.port()), "")).start();
        assert_eq!(daemon.dial().connect("denied.weir.test:443").status(), 403);
        assert_eq!(daemon.dial().connect("169.254.169.254:80").status(), 403);
        assert_eq!(daemon.dial().get("http://denied.weir.test/").0.status(), 403);
        assert_eq!(parent.heads().len(), 0);
        daemon.gate().exits(10);
    }

    fn no_proxy_goes_direct(driver: Driver) {
        let parent = Parent::http(None);
        let origin = HttpOrigin::paths();
        let daemon = Setup::on(driver).policy(policy(&format!("http://127.0.0.1:{}", parent.port()), "")).start();
        assert_eq!(daemon.dial().get(&origin.url("direct.weir.test", "/d")).1, b"/d");
        let echo = Origin::echo();
        daemon.tunnel(&echo.named("direct.weir.test")).echo(b"direct");
        assert_eq!(parent.heads().len(), 0);
    }

    /// Verified against the file of this leg, by name and chain.
    fn https_parent_is_verified(driver: Driver) {
        let parent = Parent::https();
        let echo = Origin::echo();
        let start = |certificate: &str| {
            let setup = Setup::on(driver);
            let place = std::sync::Arc::new(tests::Place::new());
            let file = place.write("parent-ca.pem", certificate);
            let url = format!("https://127.0.0.1:{}", parent.port());
            setup.place(&place).policy(policy(&url, &format!("ca_file = \"{}\"\n", file.display()))).start()
        };
        let daemon = start(parent.certificate());
        let mut wire = daemon.tunnel(&echo.named("far.example.test"));
        for size in [1, 1_000, 100_000] {
            let bytes: Vec<u8> = (0..size).map(|at: usize| at.to_le_bytes()[0]).collect();
            wire.echo(&bytes);
        }
        drop(wire);

        let stranger = Parent::https();
        let daemon = start(stranger.certificate());
        let seen = parent.heads().len();
        assert_eq!(daemon.dial().connect(&echo.named("far.example.test")).status(), 502);
        tests::holds("upstream_tls in the journal", || {
            daemon.journal.records().iter().any(|record| record["code"] == "upstream_tls")
        });
        assert_eq!(parent.heads().len(), seen, "a CONNECT went out over TLS that could not be verified");
    }

    /// A parent that is down, or says no, is an error; the origin, which could be reached, is left alone.
    fn fails_closed(driver: Driver) {
        let origin = HttpOrigin::paths();
        let closed = closed_port();
        let parent = Parent::http(Some(AUTHORIZATION)); // which the daemon does not have
        for (port, code) in [(closed, "upstream_unreachable"), (parent.port(), "upstream_refused")] {
            let text = policy(&format!("http://127.0.0.1:{port}"), "").replace("no_proxy = [\"direct.weir.test\"]\n", "");
            let daemon = Setup::on(driver).policy(text.replace("direct.weir.test", "origin.weir.test")).start();
            let head = daemon.dial().connect(&origin.named("origin.weir.test"));
            assert_eq!(head.status(), 502, "{code}: {}", head.first);
            tests::holds(&format!("{code} in the journal"), || {
                daemon.journal.records().iter().any(|record| record["code"] == code)
            });
        }
        assert_eq!(origin.accepted(), 0, "a silent direct connection");
    }

    /// Without a policy that says otherwise the parent is what `start` finds in its environment.
    fn parent_of_the_environment(driver: Driver) {
        let parent = Parent::http(Some(AUTHORIZATION));
        let (echo, origin) = (Origin::echo(), HttpOrigin::paths());
        let url = format!("http://me:secret@127.0.0.1:{}", parent.port());
        let daemon = Setup::on(driver)
            .env("https_proxy", &url)
            .env("http_proxy", &url)
            .env("no_proxy", "localhost,.weir.test")
            .start();
        let target = echo.named("far.example.test");
        daemon.tunnel(&target).echo(b"through");
        assert_eq!(daemon.dial().get("http://plain.example.test/").1, PARENT_SAYS.as_bytes());
        let seen = parent.heads().len();
        assert_eq!(seen, 2);
        assert_eq!(daemon.dial().get(&origin.url("near.weir.test", "/n")).1, b"/n");
        assert_eq!(parent.heads().len(), seen, "no_proxy of the environment holds");
        assert!(!daemon.place.run(&["status", "--json"]).stdout.contains("secret"));
    }
}
