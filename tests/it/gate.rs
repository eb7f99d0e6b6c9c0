//! Plays `gate.tsv`: what `weir stop --fail-on-violation` answers after each kind of run and end.
//!
//! Every word of the table is an arm of one `match` here; an unknown word fails the test.

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use tests::harness::place::{Running, finish};
use tests::{Daemon, Driver, HttpOrigin, Origin, Place, Setup, Wire, both_drivers, proc};

const TABLE: &str = include_str!("../gate.tsv");
/// Rows played at once. Most of a row is waiting.
const PLAYERS: usize = 4;

/// A row of the table.
#[derive(Debug, Clone)]
struct Row {
    name: &'static str,
    traffic: Vec<&'static str>,
    end: &'static str,
    before_stop: &'static str,
    exit: i32,
}

both_drivers! {
    fn every_row_holds(driver: Driver) {
        let rows = rows();
        assert!(rows.len() >= 24, "the table shrank");
        let names: BTreeSet<_> = rows.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), rows.len(), "two rows have one name");

        let (next, faults) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        thread::scope(|scope| {
            for _ in 0..PLAYERS {
                scope.spawn(|| {
                    while let Some(row) = rows.get(next.fetch_add(1, Ordering::SeqCst)) {
                        if catch_unwind(AssertUnwindSafe(|| play(row, driver))).is_err() {
                            faults.lock().unwrap().push(row.name);
                        }
                    }
                });
            }
        });
        let faults = faults.into_inner().unwrap();
        assert!(faults.is_empty(), "{} of {} rows on {}: {faults:?}", faults.len(), rows.len(), driver.name());
    }
}

fn rows() -> Vec<Row> {
    let words = |cell: &'static str| cell.split(',').filter(|word| *word != "-").collect();
    TABLE
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| {
            let cells: Vec<&str> = line.split('\t').collect();
            assert_eq!(cells.len(), 6, "{line:?}");
            let exit = cells[4].parse().unwrap();
            Row { name: cells[0], traffic: words(cells[1]), end: cells[2], before_stop: cells[3], exit }
        })
        .collect()
}

/// Plays a row and insists on its exit code.
fn play(row: &Row, driver: Driver) {
    if row.end == "none" {
        let said = Place::new().run(&["stop", "--fail-on-violation"]);
        assert_eq!(said.code, row.exit, "row {}: {said:?}", row.name);
        return;
    }
    let Some(mut run) = Run::start(row, driver) else { return };
    for word in &row.traffic {
        run.traffic(word, row.end);
    }
    let code = run.end(row);
    assert_eq!(code.0, row.exit, "row {} on {}: {}", row.name, driver.name(), code.1);
}

/// A row being played.
struct Run {
    driver: Driver,
    daemon: Daemon,
    echo: Origin,
    http: HttpOrigin,
    /// Tunnels and downloads that stay open; the origin's side of a download waits for `go`.
    open: Vec<Wire>,
    slow: Option<Slow>,
    /// What must live as long as the row.
    second: Vec<Daemon>,
    helper: Option<Helper>,
}

/// A download whose second half waits for the test.
struct Slow {
    origin: Origin,
    go: std::sync::mpsc::Sender<()>,
}

/// A process that has nothing to do with weir.
struct Helper(Child);

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An exit code, and what was said with it.
type Answer = (i32, String);

impl Run {
    /// `None` where the machine cannot play the row; says so.
    fn start(row: &Row, driver: Driver) -> Option<Run> {
        let mut setup = Setup::on(driver);
        for word in &row.traffic {
            setup = match *word {
                "would_deny" => setup.flags(&["--mode", "audit"]),
                "raw_ip" => setup.policy_and("[guard]\nraw_ip = \"deny\"\n"),
                "disk_full" => match Place::on_small_disk("size=512k") {
                    Ok(place) => setup.place(&Arc::new(place)),
                    Err(why) => {
                        eprintln!("SKIPPED row {}: {why}", row.name);
                        return None;
                    }
                },
                _ => setup,
            };
        }
        let (echo, http) = (Origin::echo(), HttpOrigin::paths());
        let daemon = setup.start();
        Some(Run {
            driver,
            daemon,
            echo,
            http,
            open: Vec::new(),
            slow: None,
            second: Vec::new(),
            helper: None,
        })
    }

    fn traffic(&mut self, word: &str, end: &str) {
        let daemon = &self.daemon;
        match word {
            "allowed" => daemon.tunnel(&self.echo.named("fine.weir.test")).echo(b"x"),
            "denied" if end == "kill_before_write" => {
                // Not a moment is given: the answer is not waited for.
                daemon
                    .dial()
                    .send("CONNECT denied.weir.test:443 HTTP/1.1\r\nHost: denied.weir.test:443\r\n\r\n");
            }
            "denied" => assert_eq!(daemon.dial().connect("denied.weir.test:443").status(), 403),
            "raw_ip" => assert_eq!(daemon.dial().connect("127.0.0.1:9").status(), 403),
            "would_deny" => daemon.tunnel(&self.echo.named("denied.weir.test")).echo(b"x"),
            "denied_http" => {
                let (head, _) = daemon.dial().get(&self.http.url("denied.weir.test", "/"));
                assert_eq!(head.status(), 403);
            }
            "denied_after_allowed_http" => {
                let mut wire = daemon.dial();
                assert_eq!(wire.get(&self.http.url("fine.weir.test", "/1")).0.status(), 200);
                assert_eq!(wire.get(&self.http.url("denied.weir.test", "/2")).0.status(), 403);
            }
            "tunnel_open" => {
                let mut wire = daemon.tunnel(&self.echo.named("open.weir.test"));
                wire.echo(b"x");
                self.open.push(wire);
            }
            "download_open" => self.begin_download(),
            "disk_full" => self.fill_disk(),
            "disk_free" => daemon.place.disk().free(),
            _ => panic!("the table says `{word}`, which this test does not know"),
        }
    }

    fn begin_download(&mut self) {
        let (go, gone) = std::sync::mpsc::channel::<()>();
        let gone = Mutex::new(gone);
        let origin = Origin::serve(move |mut wire| {
            wire.head();
            wire.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst");
            let _ = gone.lock().unwrap().recv();
            let _ = std::io::Write::write_all(&mut wire.twin(), b"later");
        });
        let name = origin.named("download.weir.test");
        let mut wire = self.daemon.dial();
        wire.send(format!("GET http://{name}/ HTTP/1.1\r\nHost: {name}\r\n\r\n"));
        assert_eq!(wire.head().status(), 200);
        assert_eq!(wire.exactly(5), b"first");
        self.open.push(wire);
        self.slow = Some(Slow { origin, go });
    }

    /// Full to the last byte, and then enough records to need another page of the journal.
    fn fill_disk(&self) {
        self.daemon.place.disk().fill();
        for _ in 0..40 {
            // Refused with 5xx by then, or passed: neither is this row's question.
            let _ = self.daemon.dial().connect(&self.echo.named("filler.weir.test"));
        }
    }

    /// Ends the run as the row says and gives what the last `stop` answered.
    fn end(&mut self, row: &Row) -> Answer {
        match row.end {
            "stop" => {
                let first = self.stop_while_open();
                if row.before_stop == "-" {
                    return first;
                }
            }
            "stop_then_denied_during_drain" => return self.stop_with_denied_inside(),
            "sigterm" => {
                self.daemon.signal(Signal::TERM);
                self.daemon.wait();
            }
            "sigterm_twice" => {
                self.daemon.signal(Signal::TERM);
                self.daemon.wait_for_drain(&self.echo.named("probe.weir.test"));
                assert!(proc::is_alive(self.daemon.pid), "the download did not hold the drain");
                self.daemon.signal(Signal::TERM);
                self.daemon.wait();
            }
            "kill" | "kill_before_write" => self.daemon.kill(),
            "kill_after_write" => {
                self.daemon.journal.wait_for("decided", |record| record["code"] == "denied_host");
                self.daemon.kill();
            }
            "kill_in_drain" => {
                let stopping = self.daemon.begin(&["stop", "--fail-on-violation"]);
                self.daemon.wait_for_drain(&self.echo.named("probe.weir.test"));
                self.daemon.kill();
                let said = stopping.finish();
                assert_ne!(said.code, 0, "a stop whose daemon was killed: {said:?}");
            }
            "stop_asked_after" => self.wait_for_records(row),
            end => panic!("the table says `{end}`, which this test does not know"),
        }
        self.before_stop(row.before_stop);
        self.last_stop(row.before_stop)
    }

    /// What the row did has reached the file, so that it can be tampered with.
    fn wait_for_records(&self, row: &Row) {
        self.daemon.journal.wait_for_count("decided", row.traffic.len());
        let allowed = row.traffic.iter().filter(|word| **word == "allowed").count();
        self.daemon.journal.wait_for_count("ended", allowed);
    }

    fn before_stop(&mut self, word: &str) {
        let (journal, place) = (self.daemon.journal.clone(), Arc::clone(&self.daemon.place));
        let state = place.state_file();
        match word {
            "-" | "stop_again" | "ask_other_run_id" => {}
            "cut_last_line" => journal.tamper_lines(|lines| drop(lines.pop())),
            "cut_mid_line" => journal.tamper(|bytes| bytes[..bytes.len() - 20].to_vec()),
            "delete_journal" => fs::remove_file(journal.path()).unwrap(),
            "empty_journal" => journal.tamper(|_| Vec::new()),
            "edit_line" => journal.tamper_lines(|lines| {
                let line = lines.iter_mut().find(|line| line.contains("denied.weir.test")).unwrap();
                *line = line.replace("denied.weir.test", "decent.weir.test");
            }),
            "remove_line" => {
                journal.tamper_lines(|lines| lines.retain(|line| !line.contains("denied.weir.test")))
            }
            "append_foreign_line" => journal.tamper(|bytes| {
                let line = bytes.split_inclusive(|byte| *byte == b'\n').next_back().unwrap().to_vec();
                [bytes, line].concat()
            }),
            "swap_lines" => journal.tamper_lines(|lines| {
                let last = lines.len() - 1;
                lines.swap(1, last);
            }),
            "replace_with_clean_journal" => {
                let clean = Daemon::start(self.driver);
                clean.tunnel(&self.echo.named("fine.weir.test")).echo(b"x");
                clean.gate().exits(0);
                fs::copy(clean.journal.path(), journal.path()).unwrap();
            }
            "start_again" | "start_again_without_run_id" => {
                let again = Setup::on(self.driver).place(&place).start();
                assert_ne!(again.run_id, self.daemon.run_id);
                self.second.push(again);
            }
            "reuse_pid" => self.give_the_pid_to_another(),
            "symlink_state" => {
                let elsewhere = place.path().join("elsewhere.json");
                fs::rename(&state, &elsewhere).unwrap();
                std::os::unix::fs::symlink(&elsewhere, &state).unwrap();
            }
            "delete_state" => fs::remove_file(&state).unwrap(),
            "garbage_state" => fs::write(&state, "{\"schema\": 1, \"run_id\": \"").unwrap(),
            _ => panic!("the table says `{word}`, which this test does not know"),
        }
    }

    /// The state names a process that lives and is not weir's.
    fn give_the_pid_to_another(&mut self) {
        let helper = Helper(Command::new("sleep").arg("600").spawn().unwrap());
        let state = self.daemon.place.state_file();
        let mut text: serde_json::Value = serde_json::from_slice(&fs::read(&state).unwrap()).unwrap();
        text["pid"] = helper.0.id().into();
        fs::write(&state, text.to_string()).unwrap();
        self.helper = Some(helper);
    }

    fn last_stop(&mut self, word: &str) -> Answer {
        let said = match word {
            "ask_other_run_id" => {
                let other = "0123456789abcdef0123456789abcdef";
                self.daemon.step(&["stop", "--fail-on-violation", "--run-id", other])
            }
            "start_again_without_run_id" => finish(self.daemon.place.weir(&["stop", "--fail-on-violation"])),
            _ => self.daemon.gate(),
        };
        if let Some(helper) = &mut self.helper {
            assert!(helper.0.try_wait().unwrap().is_none(), "a stranger was signalled");
        }
        (said.code, said.stderr)
    }

    /// `stop`, and what is open is finished once the drain has begun.
    fn stop_while_open(&mut self) -> Answer {
        let stopping = self.daemon.begin(&["stop", "--fail-on-violation"]);
        if let Some(slow) = self.slow.take() {
            self.daemon.wait_for_drain(&self.echo.named("probe.weir.test"));
            slow.go.send(()).unwrap();
            assert_eq!(self.open[0].exactly(5), b"later", "the download was cut by the drain");
            drop(slow.origin);
        }
        self.answer(stopping)
    }

    /// A client is in the middle of its CONNECT when the drain begins; a busy tunnel keeps the drain going.
    fn stop_with_denied_inside(&mut self) -> Answer {
        let mut late = self.daemon.dial();
        late.send("CONNECT denied.weir.test:443 HTTP/1.1\r\nHost: denied");
        let mut tunnel = self.open.pop().expect("a tunnel is open");
        let (more, quiet) = std::sync::mpsc::channel::<()>();
        let busy = thread::spawn(move || {
            while quiet.recv_timeout(Duration::from_millis(100))
                == Err(std::sync::mpsc::RecvTimeoutError::Timeout)
            {
                tunnel.echo(b"busy");
            }
        });
        // The half head has been read by the time that a whole request behind it is answered.
        self.daemon.tunnel(&self.echo.named("fine.weir.test")).echo(b"x");
        let stopping = self.daemon.begin(&["stop", "--fail-on-violation"]);
        self.daemon.wait_for_drain(&self.echo.named("probe.weir.test"));
        late.send(".weir.test:443\r\n\r\n");
        assert_eq!(late.head().status(), 403);
        drop(more);
        busy.join().unwrap();
        self.answer(stopping)
    }

    fn answer(&mut self, stopping: Running) -> Answer {
        let said = stopping.finish();
        self.daemon.wait();
        (said.code, said.stderr)
    }
}

/// The words that are in the table and the arms that play them are the same set: no arm is dead.
#[test]
fn table_uses_every_word_once_at_least() {
    let rows = rows();
    let mut used: BTreeSet<&str> = rows.iter().flat_map(|row| row.traffic.iter().copied()).collect();
    used.extend(rows.iter().flat_map(|row| [row.end, row.before_stop]));
    let source = include_str!("gate.rs");
    let body = source.split("/// The words that are in the table").next().unwrap();
    for word in used.iter().filter(|word| **word != "-") {
        assert!(body.contains(&format!("\"{word}\"")), "no arm plays `{word}`");
    }
}
