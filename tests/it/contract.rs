//! The daemon as somebody's external proxy: a fixed port, the foreground, and an end together with its parent.

use std::fs;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Instant;

use engine::external::ExternalProxy;
use tests::harness::origin::closed_port;
use tests::harness::place::Running;
use tests::{Daemon, Driver, Origin, Place, both_drivers, eventually, holds, proc, weir};

both_drivers! {
    /// `KODA_PROXY_PORT` (or `WEIR_PORT`) fixes the port; the program stays in the foreground and takes
    /// connections at once.
    fn port_of_the_environment(driver: Driver) {
        for name in ["KODA_PROXY_PORT", "WEIR_PORT"] {
            let place = Arc::new(Place::new());
            let port = closed_port();
            let mut command = place.weir(&["start", "--driver", driver.flag()]);
            command.env(name, port.to_string());
            let began = Instant::now();
            let mut running = Running::start(command);
            eventually("the port to take connections", || TcpStream::connect(("127.0.0.1", port)).ok());
            eprintln!("{name}: took connections after {:?}", began.elapsed());
            let daemon = Daemon::adopt(&place);
            assert_eq!(daemon.address.port(), port);
            assert_eq!(daemon.pid, running.pid(), "in the foreground: the process that was started");
            assert!(running.is_running());
            daemon.step(&["stop"]).exits(0);
            assert_eq!(running.finish().code, 0);
        }
    }

    /// The parent is killed, so nobody tells the daemon; it goes all the same.
    fn dies_with_its_parent(driver: Driver) {
        let place = Arc::new(Place::new());
        let mut command = place.command("sh");
        command.args(["-c", "weir start --driver \"$0\" & echo $! > pid; wait", driver.flag()]);
        command.env("KODA_PROXY_PORT", closed_port().to_string());
        let parent = Running::start(command);
        let daemon = Daemon::adopt(&place);
        let told: u32 = fs::read_to_string(place.path().join("pid")).unwrap().trim().parse().unwrap();
        assert_eq!(daemon.pid, told);
        proc::signal(parent.pid(), rustix::process::Signal::KILL).unwrap();
        holds("the daemon to follow its parent", || !proc::is_alive(daemon.pid));
        drop(parent);
    }

    /// The other side of it, offered by the library: a handle that ends what it started.
    fn external_proxy_ends_with_its_handle(driver: Driver) {
        let place = Place::new();
        let echo = Origin::echo();
        let policy = place.write("weir.toml", tests::harness::daemon::POLICY);
        let handle = ExternalProxy::new(weir().path.clone())
            .arg("start")
            .arg("--driver")
            .arg(driver.flag())
            .arg("--config")
            .arg(policy)
            .env("WEIR_STATE", place.state())
            .start()
            .unwrap_or_else(|error| panic!("{error}"));
        let mut wire = tests::Wire::dial(handle.address()).tunnel(&echo.named("far.weir.test"));
        wire.echo(b"through");
        let pid = handle.pid();
        drop(handle);
        assert!(!proc::is_alive(pid), "the handle left its child behind");
    }
}

/// A command that never listens is ended, and the error says so.
#[test]
fn external_proxy_that_never_listens_is_ended() {
    let place = Place::new();
    let pid_file = place.path().join("pid");
    let script = "echo $$ > \"$0\"; trap '' TERM; while :; do sleep 1; done";
    let error = ExternalProxy::new("sh")
        .arg("-c")
        .arg(script)
        .arg(&pid_file)
        .startup_timeout(std::time::Duration::from_millis(500))
        .start()
        .expect_err("nothing ever listened");
    let pid: u32 = fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap();
    assert!(!proc::is_alive(pid), "left behind: {error}");
}
