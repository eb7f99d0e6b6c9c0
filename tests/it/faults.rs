//! A machine that says no: no ring, no descriptors, a stuck client of the control socket, a slow reader.

use std::fs;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tests::harness::pattern::Pattern;
use tests::harness::place::{Running, finish};
use tests::harness::wait::pause;
use tests::{Daemon, Driver, Origin, Place, Wire, both_drivers, heavy, holds, proc};

both_drivers! {
    /// Whoever connects to the control socket and says nothing is alone with that.
    fn stuck_control_client_blocks_nobody(driver: Driver) {
        let daemon = Daemon::start(driver);
        let state: serde_json::Value =
            serde_json::from_slice(&fs::read(daemon.place.state_file()).unwrap()).unwrap();
        let socket = state["control"].as_str().unwrap();
        let stuck: Vec<UnixStream> = (0..20).map(|_| UnixStream::connect(socket).unwrap()).collect();
        std::io::Write::write_all(&mut &stuck[0], b"{\"ask\":").unwrap();
        let began = Instant::now();
        daemon.status();
        daemon.gate().exits(0);
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    }

    /// Out of descriptors: those that have one go on, nothing spins, and it is over when some are closed.
    fn descriptors_run_out_and_come_back(driver: Driver) {
        let _one = heavy();
        let place = Arc::new(Place::new());
        if place.shell("command -v prlimit").code != 0 {
            return eprintln!("SKIPPED: no prlimit on this machine");
        }
        let policy = place.write("weir.toml", tests::harness::daemon::POLICY);
        let mut command = place.command("prlimit");
        command.args(["--nofile=96:96", "weir", "start", "--port", "0", "--driver", driver.flag(), "--config"]);
        command.arg(policy);
        let running = Running::start(command);
        let daemon = Daemon::adopt(&place);
        let echo = Origin::echo();
        let mut first = daemon.tunnel(&echo.named("first.weir.test"));
        let many: Vec<Wire> = (0..200).map(|_| daemon.dial()).collect();
        pause(Duration::from_millis(300)); // for the first flood to be over; then it is to be quiet
        let before = proc::cpu_time(daemon.pid);
        pause(Duration::from_secs(1));
        let spent = proc::cpu_time(daemon.pid) - before;
        eprintln!("CPU in a second without descriptors: {spent:?}");
        assert!(spent <= Duration::from_millis(100), "it spins: {spent:?} a second");
        first.echo(b"still there");
        drop(many);
        let began = Instant::now();
        holds("a new tunnel", || {
            let mut wire = daemon.dial();
            wire.connect(&echo.named("later.weir.test")).status() == 200
        });
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        drop(first);
        daemon.gate().exits(0);
        assert_eq!(running.finish().code, 0);
    }

    /// What the client does not read the daemon does not pile up.
    fn slow_reader_costs_no_memory(driver: Driver) {
        let _one = heavy();
        let origin = Origin::serve(|wire| {
            let _ = Pattern::new(9).write(&mut wire.twin(), 1 << 30); // ends with the connection
        });
        let daemon = Daemon::start(driver);
        let before = proc::rss_kib(daemon.pid);
        let wires: Vec<Wire> = (0..20).map(|_| daemon.tunnel(&origin.named("flood.weir.test"))).collect();
        // Until every buffer on the way is full and no byte moves any more.
        let mut moved = 0;
        holds("standstill", || {
            pause(Duration::from_millis(150));
            let now = daemon.status()["bytes"]["down"].as_u64().unwrap();
            std::mem::replace(&mut moved, now) == now
        });
        let grown = proc::rss_kib(daemon.pid).saturating_sub(before);
        eprintln!("20 slow readers: {grown} KiB");
        assert!(grown < 20 * 1024, "{grown} KiB for 20 connections");
        drop(wires);
    }
}

/// A kernel or a sandbox that refuses the ring: `auto` goes on by epoll and says so; `uring` is an error.
#[test]
fn refused_ring_falls_back_and_is_said() {
    if !(cfg!(feature = "uring") && Driver::Epoll.can_run() && Driver::Uring.can_run()) {
        return;
    }
    for error in ["EPERM", "ENOSYS", "ENOMEM"] {
        let place = Arc::new(Place::new());
        if place.shell("strace -o /dev/null true").code != 0 {
            return eprintln!("SKIPPED: no strace that may trace on this machine");
        }
        let start = |driver: &str| {
            let mut command = place.command("strace");
            command.args(["-f", "-o", "/dev/null", "-e", "trace=io_uring_setup", "-e"]);
            command.arg(format!("inject=io_uring_setup:error={error}"));
            command.args(["weir", "start", "--port", "0", "--driver", driver]);
            command
        };
        let running = Running::start(start("auto"));
        let daemon = Daemon::adopt(&place);
        assert_eq!(daemon.status()["driver"]["name"], "epoll", "{error}");
        let echo = Origin::echo();
        daemon.tunnel(&format!("127.0.0.1:{}", echo.address().port())).echo(b"by epoll");
        daemon.gate().exits(0);
        running.finish();
        finish(start("uring")).exits(1).says(&["error:", "hint:"]);
    }
}
