//! The daemon under test: started with a policy on a driver, known by what `status` says, ended on drop.

use std::fs::File;
use std::net::SocketAddr;
use std::process::{Child, Command};
use std::sync::Arc;

use rustix::process::Signal;
use serde_json::Value;

use super::client::Wire;
use super::driver::{Driver, ring_probe};
use super::journal::Journal;
use super::place::{Finished, Place, Running};
use super::proc;
use super::wait::eventually;

/// Names under `weir.test` lead to loopback, `denied.weir.test` is refused, all else is as the default policy has it.
pub const POLICY: &str = r#"
version = 1

[resolve]
".weir.test" = "127.0.0.1"

[[route]]
id = "no-go"
hosts = ["denied.weir.test"]
action = "deny"
reason = "not for this job"
"#;

/// What a daemon is to be started with.
#[derive(Debug)]
pub struct Setup {
    driver: Driver,
    place: Arc<Place>,
    policy: Option<String>,
    flags: Vec<String>,
    environment: Vec<(String, String)>,
}

/// A running daemon.
#[derive(Debug)]
pub struct Daemon {
    /// Its surroundings.
    pub place: Arc<Place>,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its process.
    pub pid: u32,
    /// Its run.
    pub run_id: String,
    /// Its journal.
    pub journal: Journal,
    child: Option<Child>,
}

impl Setup {
    /// On this driver, in a place of its own, with `POLICY`.
    pub fn on(driver: Driver) -> Setup {
        let place = Arc::new(Place::new());
        let (policy, flags, environment) = (Some(POLICY.to_owned()), Vec::new(), Vec::new());
        Setup { driver, place, policy, flags, environment }
    }

    /// In this place.
    #[must_use]
    pub fn place(mut self, place: &Arc<Place>) -> Setup {
        self.place = Arc::clone(place);
        self
    }

    /// With this policy file.
    #[must_use]
    pub fn policy(mut self, text: impl Into<String>) -> Setup {
        self.policy = Some(text.into());
        self
    }

    /// Without a policy file.
    #[must_use]
    pub fn default_policy(mut self) -> Setup {
        self.policy = None;
        self
    }

    /// With `POLICY` and this behind it.
    #[must_use]
    pub fn policy_and(self, more: &str) -> Setup {
        let text = format!("{POLICY}\n{more}");
        self.policy(text)
    }

    /// With these further arguments of `start`.
    #[must_use]
    pub fn flags(mut self, flags: &[&str]) -> Setup {
        self.flags.extend(flags.iter().map(|flag| (*flag).to_owned()));
        self
    }

    /// With this variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Setup {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The `start` that this stands for, in the foreground, not yet run.
    pub fn command(&self) -> Command {
        let state = self.place.state();
        let mut command = self.place.weir(&["start", "--port", "0", "--driver", self.driver.flag()]);
        command.arg("--state").arg(state).args(&self.flags).envs(self.environment.iter().cloned());
        if let Some(text) = &self.policy {
            command.arg("--config").arg(self.place.write("weir.toml", text));
        }
        command
    }

    /// Starts it in the foreground and waits until it answers.
    ///
    /// # Panics
    /// When it does not come up, or runs on another driver than the one asked for though that one works here.
    pub fn start(self) -> Daemon {
        let log = self.place.path().join("daemon.log");
        let mut command = self.command();
        command.stdout(File::create(self.place.path().join("daemon.out")).unwrap());
        command.stderr(File::create(&log).unwrap());
        let mut child = command.spawn().unwrap();
        let status = eventually("`weir status` to see the daemon", || {
            if let Some(status) = child.try_wait().unwrap() {
                panic!(
                    "weir start ended with {status}: {}",
                    std::fs::read_to_string(&log).unwrap_or_default()
                );
            }
            let said = self.place.run(&["status", "--json", "--wait", "10s"]);
            (said.code == 0).then(|| said.json())
        });
        let daemon = Daemon::from_status(&self.place, &status, Some(child));
        check_driver(self.driver, &status);
        daemon
    }
}

impl Daemon {
    /// One with `POLICY`.
    pub fn start(driver: Driver) -> Daemon {
        Setup::on(driver).start()
    }

    /// The one that runs in this place already; it too is ended on drop.
    pub fn adopt(place: &Arc<Place>) -> Daemon {
        let status = place.run(&["status", "--json", "--wait", "10s"]).exits(0).json();
        Daemon::from_status(place, &status, None)
    }

    /// A new connection to it.
    pub fn dial(&self) -> Wire {
        Wire::dial(self.address)
    }

    /// A new tunnel through it.
    pub fn tunnel(&self, target: &str) -> Wire {
        self.dial().tunnel(target)
    }

    /// What `status --json` says.
    pub fn status(&self) -> Value {
        self.place.run(&["status", "--json"]).exits(0).json()
    }

    /// Runs `weir` as a step of the job does that evaluated `weir env`: the state and the run id are known.
    pub fn step(&self, arguments: &[&str]) -> Finished {
        self.begin(arguments).finish()
    }

    /// Begins what `step` does.
    pub fn begin(&self, arguments: &[&str]) -> Running {
        let mut command = self.place.weir(arguments);
        command.env("WEIR_RUN_ID", &self.run_id);
        Running::start(command)
    }

    /// `weir stop --fail-on-violation`.
    pub fn gate(&self) -> Finished {
        self.step(&["stop", "--fail-on-violation"])
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        proc::signal(self.pid, signal).unwrap();
    }

    /// Kills it and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = proc::signal(self.pid, Signal::KILL);
        self.wait();
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not end.
    pub fn wait(&mut self) {
        let (pid, child) = (self.pid, &mut self.child);
        eventually("the daemon's end", || match child {
            Some(child) => child.try_wait().unwrap().map(|_| ()),
            None => (!proc::is_alive(pid)).then_some(()),
        });
        self.child = None;
    }

    /// Waits until it takes no new tunnels.
    pub fn wait_for_drain(&self, allowed: &str) {
        eventually("the drain", || {
            let Ok(stream) = std::net::TcpStream::connect(self.address) else { return Some(()) };
            let mut wire = Wire::over(stream);
            let request = format!("CONNECT {allowed} HTTP/1.1\r\nHost: {allowed}\r\n\r\n");
            if std::io::Write::write_all(&mut wire.twin(), request.as_bytes()).is_err() {
                return Some(());
            }
            match wire.try_head() {
                Ok(head) => (head.status() != 200).then_some(()),
                Err(_) => Some(()),
            }
        });
    }

    fn from_status(place: &Arc<Place>, status: &Value, child: Option<Child>) -> Daemon {
        let text =
            |key: &str| status[key].as_str().unwrap_or_else(|| panic!("status has no {key}: {status}"));
        let pid = status["pid"].as_u64().unwrap_or_else(|| panic!("status has no pid: {status}"));
        Daemon {
            place: Arc::clone(place),
            address: text("address").trim_start_matches("http://").trim_end_matches('/').parse().unwrap(),
            pid: u32::try_from(pid).unwrap(),
            run_id: text("run_id").to_owned(),
            journal: Journal::at(text("journal")),
            child,
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        } else if is_ours(self.pid) {
            let _ = proc::signal(self.pid, Signal::KILL);
        }
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.place.path().join("daemon.log")).unwrap_or_default();
            eprintln!("--- the daemon said:\n{log}---");
        }
    }
}

/// Whether the pid is still that of the program under test; it may be another's by now.
fn is_ours(pid: u32) -> bool {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm"));
    proc::is_alive(pid) && name.is_ok_and(|name| name.trim() == "weir")
}

fn check_driver(asked: Driver, status: &Value) {
    let driver = &status["driver"];
    eprintln!("driver {} rung {} threads {}", driver["name"], driver["rung"], driver["threads"]);
    if asked == Driver::Uring && driver["name"] == Driver::Epoll.name() {
        assert!(ring_probe().is_err(), "a ring can be had here, and yet epoll was used");
    }
    assert_eq!(driver["name"], asked.name(), "the driver that was asked for");
}
