//! What is refused, how it is said, and that it is counted.

use std::net::TcpListener;

use tests::harness::origin::closed_port;
use tests::{Daemon, Driver, Head, HttpOrigin, Origin, Setup, both_drivers};

both_drivers! {
    /// Targets that other proxies opened tunnels to, modulo something.
    fn connect_takes_authority_form_only(driver: Driver) {
        let echo = Origin::echo();
        let daemon = Daemon::start(driver);
        let port = echo.address().port();
        let modulo = u32::from(port) + 65536;
        for target in [
            format!("a.weir.test:{port}x"),
            format!("a.weir.test:+{port}"),
            format!("a.weir.test:{port}/x"),
            format!("a.weir.test:{port},evil"),
            format!("a.weir.test:{modulo}"),
            format!("a.weir.test:0{port}"),
            format!("user@a.weir.test:{port}"),
            format!("user:pw@a.weir.test:{port}"),
            format!("http://a.weir.test:{port}"),
            format!("a.weir.test%00:{port}"),
            format!("a..weir.test:{port}"),
            format!("[a.weir.test]:{port}"),
            format!("127.1:{port}"),
            format!("2130706433:{port}"),
            format!("0x7f.1:{port}"),
            format!("017700000001:{port}"),
            format!("/:{port}"),
            format!(":{port}"),
            "a.weir.test:".to_owned(),
            "a.weir.test".to_owned(),
            "a.weir.test:0".to_owned(),
            "a.weir.test:65537".to_owned(),
            "*".to_owned(),
        ] {
            let mut wire = daemon.dial();
            wire.send(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n"));
            assert_eq!(wire.head().status(), 400, "CONNECT {target}");
        }
        assert_eq!(echo.accepted(), 0, "one of them reached the origin");
        daemon.gate().exits(0);
    }

    fn denied_host_is_told_why(driver: Driver) {
        let origin = HttpOrigin::paths();
        let daemon = Daemon::start(driver);
        let mut wire = daemon.dial();
        let head = wire.connect("denied.weir.test:443");
        let body = wire.body("GET", &head).unwrap();
        assert_refused(&head, &body, "http_request_denied");

        let (head, body) = daemon.dial().get(&origin.url("denied.weir.test", "/x"));
        assert_refused(&head, &body, "http_request_denied");
        let (head, _) = daemon.dial().get(&origin.url("Denied.Weir.Test.", "/x"));
        assert_eq!(head.status(), 403, "another spelling of the same name");
        assert_eq!(origin.accepted(), 0);

        let record = daemon.journal.wait_for("decided", |record| record["code"] == "denied_host");
        assert_eq!(record["rule"], "no-go", "{record}");
        assert!(record["target"].as_str().unwrap().starts_with("denied.weir.test:"), "{record}");
        let stopped = daemon.gate().exits(10).says(&["denied.weir.test"]);
        assert!(stopped.stderr.contains("not for this job"), "the report says the reason: {}", stopped.stderr);
    }

    fn default_deny_refuses_what_no_route_names(driver: Driver) {
        let echo = Origin::echo();
        let daemon = Setup::on(driver)
            .policy(
                "version = 1\ndefault = \"deny\"\n[resolve]\n\".weir.test\" = \"127.0.0.1\"\n\
                 [[route]]\nid = \"ours\"\nhosts = [\"*.weir.test\"]\naction = \"splice\"\n",
            )
            .start();
        daemon.tunnel(&echo.named("a.weir.test")).echo(b"named");
        for target in [echo.named("a.b.weir.test"), echo.named("weir.test"), "elsewhere.example:443".to_owned()] {
            assert_eq!(daemon.dial().connect(&target).status(), 403, "{target}");
        }
        daemon.journal.wait_for("decided", |record| record["code"] == "not_allowed");
        daemon.gate().exits(10);
    }

    /// By address, by name, and in the spellings that hide an address.
    fn metadata_is_refused(driver: Driver) {
        let daemon = Setup::on(driver)
            .policy("version = 1\n[resolve]\n\"cloud.weir.test\" = \"169.254.169.254\"\n[guard]\nallow_cidrs = [\"169.254.0.0/16\"]\n")
            .start();
        for target in [
            "169.254.169.254:80",
            "cloud.weir.test:80",
            "[::ffff:169.254.169.254]:80",
            "[64:ff9b::a9fe:a9fe]:80",
            "100.100.100.200:80",
            "168.63.129.16:80",
            "[fd00:ec2::254]:80",
        ] {
            let head = daemon.dial().connect(target);
            assert_eq!(head.status(), 403, "{target}: {}", head.first);
        }
        let (head, _) = daemon.dial().get("http://169.254.169.254/latest/meta-data/");
        assert_eq!(head.status(), 403);
        tests::holds("eight refusals in the journal", || {
            daemon.journal.of_kind("decided").iter().filter(|record| record["code"] == "ip_class").count() == 8
        });
    }

    /// The daemon never dials itself, under whatever name.
    fn loop_is_refused(driver: Driver) {
        let daemon = Daemon::start(driver);
        let port = daemon.address.port();
        for target in [
            format!("127.0.0.1:{port}"),
            format!("me.weir.test:{port}"),
            format!("localhost:{port}"),
            format!("[::ffff:127.0.0.1]:{port}"),
            format!("0.0.0.0:{port}"),
        ] {
            let head = daemon.dial().connect(&target);
            assert_eq!(head.status(), 403, "{target}: {}", head.first);
        }
        let (head, _) = daemon.dial().get(&format!("http://127.0.0.1:{port}/"));
        assert_eq!(head.status(), 403);
        daemon.journal.wait_for("decided", |record| record["code"] == "loop");
    }

    fn port_and_raw_address_by_policy(driver: Driver) {
        let echo = Origin::echo();
        let daemon = Setup::on(driver).policy_and("[guard]\nraw_ip = \"deny\"\n").start();
        assert_eq!(daemon.dial().connect(&format!("127.0.0.1:{}", echo.address().port())).status(), 403);
        assert_eq!(daemon.dial().connect("mail.weir.test:25").status(), 403);
        daemon.journal.wait_for("decided", |record| record["code"] == "raw_ip");
        daemon.journal.wait_for("decided", |record| record["code"] == "denied_port");
        daemon.tunnel(&echo.named("named.weir.test")).echo(b"fine");
        daemon.gate().exits(0); // neither code is in the gate's list
    }

    fn refused_and_unknown_upstreams_are_502(driver: Driver) {
        let daemon = Daemon::start(driver);
        let nobody = closed_port();
        assert_eq!(daemon.dial().connect(&format!("gone.weir.test:{nobody}")).status(), 502);
        let (head, body) = daemon.dial().get(&format!("http://gone.weir.test:{nobody}/"));
        assert_eq!((head.status(), body.is_empty()), (502, false));
        assert!(head.field("proxy-status").unwrap().contains("weir"), "{head:?}");
        assert_eq!(daemon.dial().connect("no-such-name.invalid:443").status(), 502);
        for code in ["upstream_unreachable", "dns_failed"] {
            tests::holds(&format!("{code} in the journal"), || {
                daemon.journal.records().iter().any(|record| record["code"] == code)
            });
        }
        daemon.gate().exits(0);
    }

    /// All addresses of a name are tried.
    fn next_address_is_tried(driver: Driver) {
        let echo = Origin::echo();
        let daemon = Setup::on(driver)
            .policy("version = 1\n[resolve]\n\"two.weir.test\" = [\"127.0.0.2\", \"127.0.0.1\"]\n")
            .start();
        // The origin listens on 127.0.0.1 alone, so the first address refuses.
        daemon.tunnel(&echo.named("two.weir.test")).echo(b"second");
    }

    fn audit_mode_passes_and_tells(driver: Driver) {
        let echo = Origin::echo();
        let daemon = Setup::on(driver).flags(&["--mode", "audit"]).start();
        daemon.tunnel(&echo.named("denied.weir.test")).echo(b"passes");
        let record = daemon.journal.wait_for("decided", |record| record["code"] == "denied_host");
        assert_eq!(record["verdict"], "would_refuse", "{record}");
        daemon.gate().exits(0);
    }

    /// A port scanner's connection without a byte is no event (contract as an external proxy).
    fn silent_connection_is_no_event(driver: Driver) {
        let daemon = Daemon::start(driver);
        for _ in 0..20 {
            daemon.dial().finish();
        }
        let echo = Origin::echo();
        daemon.tunnel(&echo.named("after.weir.test")).echo(b"x");
        daemon.journal.wait_for_count("decided", 1);
        assert_eq!(daemon.journal.of_kind("decided").len(), 1);
    }
}

/// Somebody else's port stays theirs: the daemon does not share it.
#[test]
fn listener_is_not_shared() {
    for driver in Driver::all_possible() {
        let daemon = Daemon::start(driver);
        let again = TcpListener::bind(daemon.address);
        assert!(again.is_err(), "a second listener on {} came up", daemon.address);
    }
}

fn assert_refused(head: &Head, body: &[u8], error: &str) {
    assert_eq!(head.status(), 403, "{}", head.first);
    let status = head.field("proxy-status").unwrap_or_else(|| panic!("no Proxy-Status: {head:?}"));
    assert!(status.contains("weir") && status.contains(&format!("error={error}")), "{status}");
    let body = String::from_utf8_lossy(body);
    assert!(body.contains("not for this job"), "the body tells the reason: {body}");
}
