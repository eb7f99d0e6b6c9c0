//! Starts, stops and deaths: one wins, the others say so; what was killed is never called clean.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use tests::harness::place::{Running, finish};
use tests::harness::wait::pause;
use tests::{Daemon, Driver, Origin, Place, Setup, both_drivers, heavy, size_from_env};

both_drivers! {
    /// It returns because nobody holds its output any more, whatever else was inherited.
    fn detached_start_returns_and_serves(driver: Driver) {
        let place = Arc::new(Place::new());
        let script = format!("out=$(weir start -D --port 0 --driver {}) || exit; echo \"$out\"", driver.flag());
        let said = place.shell(&script).exits(0);
        let daemon = Daemon::adopt(&place);
        for word in [daemon.address.to_string(), daemon.pid.to_string(), daemon.run_id.clone(), driver.name().to_owned()] {
            assert!(said.stdout.contains(&word), "{word} is missing: {}", said.stdout);
        }
        let echo = Origin::echo();
        daemon.tunnel(&format!("127.0.0.1:{}", echo.address().port())).echo(b"up");
        daemon.gate().exits(0);
    }

    fn detached_start_closes_every_descriptor(driver: Driver) {
        let place = Arc::new(Place::new());
        let script =
            format!("weir start -D --port 0 --driver {} 9>&1 8>&2 7</dev/null >/dev/null 2>/dev/null | cat", driver.flag());
        place.shell(&script).exits(0); // `cat` ends only when the last copy of the pipe is closed
        let daemon = Daemon::adopt(&place);
        daemon.gate().exits(0);
    }

    /// The best of a few on a busy machine.
    fn detached_start_is_ready_soon(driver: Driver) {
        let _one = heavy();
        let best = (0..7)
            .map(|_| {
                let place = Arc::new(Place::new());
                let started = place.run(&["start", "-D", "--port", "0", "--driver", driver.flag()]).exits(0);
                Daemon::adopt(&place).kill();
                started.took
            })
            .min()
            .unwrap();
        eprintln!("start -D ready after {best:?}");
        assert!(best < Duration::from_millis(150), "{best:?}");
    }

    fn of_20_racing_starts_one_wins(driver: Driver) {
        let place = Arc::new(Place::new());
        let starts: Vec<Running> = (0..20)
            .map(|_| Running::start(place.weir(&["start", "-D", "--port", "0", "--driver", driver.flag()])))
            .collect();
        let ended: Vec<_> = starts.into_iter().map(Running::finish).collect();
        let daemon = Daemon::adopt(&place);
        let mut codes: Vec<i32> = ended.iter().map(|end| end.code).collect();
        codes.sort_unstable();
        assert_eq!(codes, [&[0][..], &[5; 19]].concat(), "{ended:?}");
        let winner = ended.iter().find(|end| end.code == 0).unwrap();
        assert!(winner.stdout.contains(&daemon.run_id), "the winner is the one that runs");
        daemon.gate().exits(0);
    }

    fn second_start_leaves_the_first_alone(driver: Driver) {
        let daemon = Daemon::start(driver);
        let before = fs::read(daemon.place.state_file()).unwrap();
        daemon.place.run(&["start", "-D", "--port", "0"]).exits(5).says(&[&daemon.pid.to_string()]);
        daemon.place.run(&["start", "--port", "0"]).exits(5);
        assert_eq!(fs::read(daemon.place.state_file()).unwrap(), before);
        daemon.gate().exits(0);
    }

    /// Clean runs, runs with one denied host, and runs that are killed at some moment, in turn.
    fn clean_denied_and_killed_runs_are_told_apart(driver: Driver) {
        let rounds = size_from_env("WEIR_TEST_RUNS", 10);
        let echo = Origin::echo();
        for round in 0..rounds {
            play_round(driver, &echo, round, rounds);
        }
    }

    /// A connection that is in the middle of something is let finish; new ones are refused.
    fn sigterm_lets_a_download_finish(driver: Driver) {
        let origin = Origin::serve(|mut wire| {
            wire.head();
            wire.send("HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n");
            tests::harness::origin::drip(&mut wire, &[b'x'; 40], Duration::from_millis(20));
        });
        let echo = Origin::echo();
        let mut daemon = Daemon::start(driver);
        let name = origin.named("down.weir.test");
        let mut wire = daemon.dial();
        wire.send(format!("GET http://{name}/ HTTP/1.1\r\nHost: {name}\r\n\r\n"));
        let head = wire.head();
        daemon.signal(rustix::process::Signal::TERM);
        daemon.wait_for_drain(&echo.named("new.weir.test"));
        assert_eq!(wire.body("GET", &head).unwrap(), [b'x'; 40]);
        daemon.wait();
        daemon.gate().exits(0);
    }

    /// An idle tunnel does not hold up the end.
    fn idle_tunnels_do_not_delay_a_stop(driver: Driver) {
        let echo = Origin::echo();
        let daemon = Daemon::start(driver);
        let mut wires: Vec<_> = (0..20).map(|_| daemon.tunnel(&echo.named("idle.weir.test"))).collect();
        wires.iter_mut().for_each(|wire| wire.echo(b"x"));
        pause(Duration::from_millis(2500)); // what makes them idle is time
        let stopped = daemon.gate().exits(0);
        assert!(stopped.took < Duration::from_secs(8), "{:?}", stopped.took);
        for wire in &mut wires {
            assert!(!wire.is_silent_for(Duration::from_secs(5)), "a tunnel outlived the daemon");
        }
    }

    /// Nor does a connection that has not said a word.
    fn silent_connections_do_not_delay_a_stop(driver: Driver) {
        let daemon = Daemon::start(driver);
        let _wires: Vec<_> = (0..5).map(|_| daemon.dial()).collect();
        let stopped = daemon.gate().exits(0);
        assert!(stopped.took < Duration::from_secs(10), "{:?}", stopped.took);
    }

    /// Tunnels that never fall silent are cut at the deadline; the run is still a whole one.
    fn busy_tunnel_is_cut_at_the_deadline(driver: Driver) {
        let chatter = Origin::serve(|mut wire| {
            wire.twin().set_nodelay(true).unwrap();
            while std::io::Write::write_all(&mut wire.twin(), b"tick").is_ok() && wire.is_silent_for(Duration::from_millis(50)) {}
        });
        let daemon = Daemon::start(driver);
        let mut wire = daemon.tunnel(&chatter.named("chat.weir.test"));
        wire.exactly(8);
        let reader = std::thread::spawn(move || wire.until_end().is_ok());
        let stopped = daemon.step(&["stop", "--fail-on-violation", "--timeout", "1"]);
        assert!(stopped.took < Duration::from_secs(10), "{stopped:?}");
        assert!([0, 11].contains(&stopped.code), "{stopped:?}");
        reader.join().unwrap();
        let end = daemon.journal.wait_for("ended", |_| true);
        assert!(["drained", "cut"].contains(&end["outcome"].as_str().unwrap()), "{end}");
    }

    fn state_is_private(driver: Driver) {
        let daemon = Daemon::start(driver);
        let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&daemon.place.state()), 0o700);
        assert_eq!(mode(&daemon.place.state_file()), 0o600);
        assert_eq!(mode(daemon.journal.path()), 0o600);
        let state = fs::read_to_string(daemon.place.state_file()).unwrap();
        let state: serde_json::Value = serde_json::from_str(&state).unwrap();
        assert_eq!(state["final"], false);
        assert_eq!(state["pid"].as_u64(), Some(daemon.pid.into()));
    }

    /// Longer than a socket's address can be.
    fn long_state_path_works(driver: Driver) {
        let place = Arc::new(Place::new());
        let state = place.path().join("d".repeat(120)).join("e".repeat(120));
        fs::create_dir_all(state.parent().unwrap()).unwrap();
        let weir = |arguments: &[&str]| {
            let mut command = place.weir(arguments);
            command.env("WEIR_STATE", &state);
            finish(command)
        };
        weir(&["start", "-D", "--port", "0", "--driver", driver.flag()]).exits(0);
        let status = weir(&["status", "--json"]);
        weir(&["stop", "--fail-on-violation"]).exits(0);
        assert_eq!(status.exits(0).json()["running"], true);
    }
}

fn play_round(driver: Driver, echo: &Origin, round: usize, rounds: usize) {
    let clean = Daemon::start(driver);
    clean.tunnel(&echo.named("fine.weir.test")).echo(b"x");
    clean.gate().exits(0);

    let denied = Daemon::start(driver);
    denied.tunnel(&echo.named("fine.weir.test")).echo(b"x");
    assert_eq!(denied.dial().connect("denied.weir.test:443").status(), 403);
    denied.gate().exits(10);

    let mut killed = Setup::on(driver).start();
    std::thread::scope(|scope| {
        let (address, target) = (killed.address, echo.named("fine.weir.test"));
        scope.spawn(move || {
            // Traffic until the daemon is gone.
            while let Ok(stream) = std::net::TcpStream::connect(address) {
                let mut wire = tests::Wire::over(stream);
                let ask = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
                if std::io::Write::write_all(&mut wire.twin(), ask.as_bytes()).is_err()
                    || wire.try_head().is_err()
                {
                    return;
                }
            }
        });
        pause(Duration::from_millis(60 * round as u64 / rounds as u64)); // another moment each round
        killed.kill();
    });
    killed.gate().exits(11);
}
