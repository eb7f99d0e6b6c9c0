//! Many connections: what they cost, and that none is lost and nothing stays behind.

use std::thread;

use tests::{Daemon, Driver, Origin, Wire, both_drivers, eventually, heavy, proc};

/// Resident KiB of an idle tunnel: twice the target of 4.
const IDLE_TUNNEL_KIB_MAX: f64 = 8.0;

both_drivers! {
    /// The difference between 2,000 and 1,000 tunnels, a byte each way first.
    fn idle_tunnels_cost_no_thread_and_little_memory(driver: Driver) {
        let _one = heavy();
        let per_step = descriptors_for(1000, 4);
        let echo = Origin::echo();
        let daemon = Daemon::start(driver);
        let mut wires = tunnels(&daemon, &echo, per_step);
        let (threads, first) = (proc::threads(daemon.pid), proc::rss_kib(daemon.pid));
        wires.extend(tunnels(&daemon, &echo, per_step));
        let second = proc::rss_kib(daemon.pid);
        let per_tunnel = second.saturating_sub(first) as f64 / per_step as f64;
        eprintln!("RSS at {per_step} tunnels {first} KiB, at {} {second} KiB: {per_tunnel:.2} KiB a tunnel", 2 * per_step);
        assert_eq!(proc::threads(daemon.pid), threads, "threads grew with tunnels");
        assert!(threads < 40, "{threads} threads");
        assert!(per_tunnel <= IDLE_TUNNEL_KIB_MAX, "{per_tunnel:.2} KiB a tunnel");
        for wire in &mut wires {
            wire.echo(b"still there");
        }
        assert_eq!(daemon.status()["connections"]["open"].as_u64(), Some(wires.len() as u64));
    }

    fn descriptors_return_to_the_baseline(driver: Driver) {
        let _one = heavy();
        let echo = Origin::echo();
        let daemon = Daemon::start(driver);
        churn(&daemon, &echo, 100); // pools and caches have what they keep
        let baseline = eventually("quiet", || settled_descriptors(&daemon));
        churn(&daemon, &echo, 10_000);
        eventually("the descriptors of 10,000 connections to close", || {
            let now = proc::descriptors(daemon.pid).ok()?;
            (now <= baseline + 8).then_some(now)
        });
        eventually("the last of them to be counted as closed", || {
            (daemon.status()["connections"]["open"].as_u64() == Some(0)).then_some(())
        });
    }

    /// All connect and ask before any waits for its answer.
    fn burst_loses_no_connection(driver: Driver) {
        let _one = heavy();
        let count = descriptors_for(5000, 2);
        let echo = Origin::echo();
        let daemon = Daemon::start(driver);
        let target = echo.named("burst.weir.test");
        let ask = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
        let mut wires: Vec<Wire> = in_parallel(4, count, |_| {
            let mut wire = daemon.dial();
            wire.send(&ask);
            wire
        });
        for (index, wire) in wires.iter_mut().enumerate() {
            assert_eq!(wire.head().status(), 200, "connection {index} of {count}");
            wire.send(index.to_be_bytes());
        }
        for (index, wire) in wires.iter_mut().enumerate() {
            assert_eq!(wire.exactly(8), index.to_be_bytes(), "connection {index} of {count}");
        }
        drop(wires);
        daemon.journal.wait_for_count("ended", count);
        daemon.gate().exits(0);
    }
}

/// `wanted`, or as many as the limit on descriptors gives at `each` in this process and in the daemon.
fn descriptors_for(wanted: usize, each: usize) -> usize {
    let can = (proc::descriptors_max().saturating_sub(500)) / each;
    if can < wanted {
        eprintln!("REDUCED from {wanted} to {can} connections by the limit on descriptors");
    }
    wanted.min(can)
}

fn tunnels(daemon: &Daemon, echo: &Origin, count: usize) -> Vec<Wire> {
    let target = echo.named("idle.weir.test");
    in_parallel(4, count, |_| {
        let mut wire = daemon.tunnel(&target);
        wire.echo(b"x");
        wire
    })
}

fn churn(daemon: &Daemon, echo: &Origin, count: usize) {
    let target = echo.named("churn.weir.test");
    in_parallel(4, count, |_| {
        let mut wire = daemon.tunnel(&target);
        wire.echo(b"in and out");
    });
}

/// The descriptors of the daemon once no connection is open. `None` while one is.
fn settled_descriptors(daemon: &Daemon) -> Option<usize> {
    (daemon.status()["connections"]["open"].as_u64() == Some(0)).then(|| {
        proc::descriptors(daemon.pid).unwrap_or_else(|error| {
            eprintln!("SKIPPED: the descriptors of the daemon may not be seen: {error}");
            usize::MAX - 8
        })
    })
}

fn in_parallel<T: Send>(workers: usize, count: usize, make: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let make = &make;
    thread::scope(|scope| {
        let ranges = (0..workers).map(|worker| (worker * count / workers)..((worker + 1) * count / workers));
        let threads: Vec<_> =
            ranges.map(|range| scope.spawn(move || range.map(make).collect::<Vec<T>>())).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}
