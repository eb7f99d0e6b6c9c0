//! Tunnels: every byte arrives, every end is the end that was meant, and the hello is read on the way.

use std::io::ErrorKind;
use std::thread;
use std::time::Duration;

use tests::harness::pattern::Pattern;
use tests::{Daemon, Driver, Origin, Setup, both_drivers, client_hello, heavy, size_from_env};

both_drivers! {
    /// 256 MB each way at once; `WEIR_TEST_BULK_MB=2048` for the full figure.
    fn bulk_passes_unchanged_both_ways(driver: Driver) {
        let _one = heavy();
        let bytes = size_from_env("WEIR_TEST_BULK_MB", 256) as u64 * 1024 * 1024;
        let (origin, verdict) = Origin::pattern_both_ways(bytes);
        let daemon = Daemon::start(driver);
        let mut wire = daemon.tunnel(&origin.named("bulk.weir.test"));
        let mut to = wire.twin();
        let sender = thread::spawn(move || Pattern::new(2).write(&mut to, bytes));
        Pattern::new(1).expect(&mut wire, bytes).unwrap();
        sender.join().unwrap().unwrap();
        assert_eq!(verdict.recv().unwrap(), Ok(()));
        drop(wire);

        let end = daemon.journal.wait_for("ended", |_| true);
        assert_eq!((end["up"].as_u64(), end["down"].as_u64()), (Some(bytes), Some(bytes)), "{end}");
        daemon.gate().exits(0);
    }

    /// The relay sees the hello in 1,800 pieces, holds it back until it is whole, and loses nothing of it.
    fn hello_sliced_byte_by_byte_arrives_equal(driver: Driver) {
        let (origin, arrived) = Origin::collect();
        let daemon = Daemon::start(driver);
        let hello = client_hello(Some("sliced.weir.test"), 1800);
        let mut wire = daemon.tunnel(&origin.named("sliced.weir.test"));
        wire.send_byte_by_byte(&hello);
        wire.finish();
        assert_eq!(arrived.recv().unwrap(), hello);
        let noted: Vec<_> = daemon.journal.of_kind("noted");
        assert!(noted.is_empty(), "a hello that agrees is nothing to note: {noted:?}");
    }

    /// A client may send its hello behind the head without waiting for the 200.
    fn bytes_behind_the_head_go_into_the_tunnel(driver: Driver) {
        let (origin, arrived) = Origin::collect();
        let daemon = Daemon::start(driver);
        let target = origin.named("eager.weir.test");
        let hello = client_hello(Some("eager.weir.test"), 1500);
        let mut bytes = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n").into_bytes();
        bytes.extend(&hello);
        let mut wire = daemon.dial();
        assert_eq!(wire.send(bytes).head().status(), 200);
        wire.finish();
        assert_eq!(arrived.recv().unwrap(), hello);
    }

    fn client_may_finish_first(driver: Driver) {
        let origin = Origin::serve(|mut wire| {
            let question = wire.until_end().unwrap();
            Pattern::new(question.len() as u64).write(&mut wire.twin(), 3_000_000).unwrap();
        });
        let daemon = Daemon::start(driver);
        let mut wire = daemon.tunnel(&origin.named("half.weir.test"));
        wire.send([7; 1000]).finish();
        let answer = wire.until_end().unwrap();
        assert_eq!(answer.len(), 3_000_000);
        Pattern::new(1000).expect(&mut &answer[..], 3_000_000).unwrap();
    }

    fn origin_may_finish_first(driver: Driver) {
        let (origin, arrived) = Origin::reporting(|mut wire, report| {
            wire.send("bye").finish();
            let _ = report.send(wire.until_end());
        });
        let daemon = Daemon::start(driver);
        let mut wire = daemon.tunnel(&origin.named("half.weir.test"));
        assert_eq!(wire.until_end().unwrap(), b"bye");
        Pattern::new(5).write(&mut wire.twin(), 3_000_000).unwrap();
        wire.finish();
        let bytes = arrived.recv().unwrap().unwrap();
        Pattern::new(5).expect(&mut &bytes[..], 3_000_000).unwrap();
        assert_eq!(bytes.len(), 3_000_000);
    }

    fn reset_of_the_client_reaches_the_origin(driver: Driver) {
        let (origin, ends) = Origin::reporting(|mut wire, report| {
            let _ = report.send(wire.until_end().map_err(|error| error.kind()));
        });
        let daemon = Daemon::start(driver);
        let mut wire = daemon.tunnel(&origin.named("rst.weir.test"));
        wire.send("some");
        daemon.dial().tunnel(&origin.named("rst.weir.test")).finish(); // its origin sees a plain end
        assert_eq!(ends.recv().unwrap(), Ok(Vec::new()));
        wire.reset();
        assert_eq!(ends.recv().unwrap(), Err(ErrorKind::ConnectionReset));
    }

    fn reset_of_the_origin_reaches_the_client(driver: Driver) {
        let origin = Origin::serve(|mut wire| {
            let _ = wire.exactly(4);
            wire.reset();
        });
        let daemon = Daemon::start(driver);
        let mut wire = daemon.tunnel(&origin.named("rst.weir.test"));
        wire.send("some");
        assert_eq!(wire.until_end().unwrap_err().kind(), ErrorKind::ConnectionReset);
    }

    /// The client says nothing until the server has greeted: nothing may wait for a hello.
    fn server_speaks_first(driver: Driver) {
        let mail = Origin::speaks_first();
        let daemon = Daemon::start(driver);
        let mut wire = daemon.tunnel(&mail.named("mail.weir.test"));
        assert_eq!(wire.line().unwrap(), "220 mail.weir.test ready");
        assert_eq!(wire.send("HELO me\r\n").line().unwrap(), "250 HELO me");
        assert_eq!(wire.send("QUIT\r\n").line().unwrap(), "221 bye");
        assert_eq!(wire.until_end().unwrap(), b"");
    }

    /// Bytes that come slowly come: nothing is held back once the first flight is known.
    fn drip_passes_at_its_own_pace(driver: Driver) {
        let origin = Origin::serve(|mut wire| {
            let _ = wire.exactly(1);
            tests::harness::origin::drip(&mut wire, b"drip drop", Duration::from_millis(5));
        });
        let daemon = Daemon::start(driver);
        let mut wire = daemon.tunnel(&origin.named("drip.weir.test"));
        wire.send("x");
        assert_eq!(wire.until_end().unwrap(), b"drip drop");
    }

    /// pip asks with HTTP/1.0 and no field at all; some clients say `Connection: close`. Both get a tunnel that
    /// stays.
    fn connect_of_old_and_odd_clients(driver: Driver) {
        let echo = Origin::echo();
        let daemon = Daemon::start(driver);
        let target = echo.named("old.weir.test");
        for head in [
            format!("CONNECT {target} HTTP/1.0\r\n\r\n"),
            format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n"),
            format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nProxy-Connection: Keep-Alive\r\n\r\n"),
            format!("CONNECT {} HTTP/1.1\r\nHost: {target}\r\n\r\n", target.to_uppercase()),
        ] {
            let mut wire = daemon.dial();
            assert_eq!(wire.send(&head).head().status(), 200, "{head}");
            wire.echo(b"one");
            wire.echo(b"two");
        }
    }

    /// `ci`: outside any route a name that differs is an event and no more.
    fn sni_mismatch_is_noted(driver: Driver) {
        let (origin, arrived) = Origin::collect();
        let daemon = Daemon::start(driver);
        let hello = client_hello(Some("other.weir.test"), 600);
        let mut wire = daemon.tunnel(&origin.named("front.weir.test"));
        wire.send(&hello).finish();
        assert_eq!(arrived.recv().unwrap(), hello);
        let note = daemon.journal.wait_for("noted", |note| note["code"] == "sni_mismatch");
        assert!(note.to_string().contains("other.weir.test"), "the note names what was seen: {note}");
        daemon.gate().exits(0);
    }

    /// A route that requires the SNI cuts what shows another one, none, or no TLS; the origin sees no byte of it.
    fn required_sni_is_enforced(driver: Driver) {
        let daemon = Setup::on(driver)
            .policy_and("[[route]]\nid = \"strict\"\nhosts = [\"strict.weir.test\"]\naction = \"splice\"\nrequire_sni = true\n")
            .start();
        for (flight, code) in [
            (client_hello(Some("other.weir.test"), 600), "sni_mismatch"),
            (client_hello(None, 600), "no_sni"),
            (b"GET / HTTP/1.1\r\nHost: strict.weir.test\r\n\r\n".to_vec(), "not_tls"),
        ] {
            let (origin, arrived) = Origin::collect();
            let mut wire = daemon.tunnel(&origin.named("strict.weir.test"));
            wire.send(&flight);
            let answer = wire.until_end().unwrap_or_default();
            assert!(!answer.starts_with(b"HTTP"), "{code}: an answer of the origin? {answer:?}");
            assert_eq!(arrived.recv().unwrap(), b"", "{code}: bytes reached the origin");
            tests::holds(&format!("{code} in the journal"), || {
                daemon.journal.lines().iter().any(|line| line.contains(code))
            });
        }
        let (origin, arrived) = Origin::collect();
        let hello = client_hello(Some("strict.weir.test"), 600);
        let mut wire = daemon.tunnel(&origin.named("strict.weir.test"));
        wire.send(&hello).finish();
        assert_eq!(arrived.recv().unwrap(), hello);
    }
}
