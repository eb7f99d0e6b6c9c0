//! The harness' own test, in about two seconds: every workload at a tiny size through our relay, and the proof
//! that wrong bytes, wrong answers and wrong sums would be seen. No figure of it means anything.

use std::io;
use std::path::PathBuf;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::child::{Process, find_program};
use crate::origin::BODY_BYTES;
use crate::pattern::{Checker, Pattern};
use crate::peers::RELAYS;
use crate::report::utc;
use crate::rounds::measure;
use crate::table::{last_run, markdown, median, upper_rank};
use crate::workload::{CELLS, Cell, Direction, Scale, established};

/// Runs all of it.
///
/// # Errors
/// The first thing that is not as it should be.
pub(crate) fn run() -> io::Result<()> {
    check_pattern()?;
    check_answers()?;
    check_sums()?;
    check_warden()?;
    let scale = Scale::named("smoke").ok_or_else(|| io::Error::other("no scale for the smoke"))?;
    let [_, relay, _] = &RELAYS;
    for cell in CELLS {
        let result = measure(cell, relay, &scale)?;
        let cost = result.get("cost").and_then(Value::as_f64);
        require(cost.is_some_and(f64::is_finite), &format!("{} gives a cost", cell.name()))?;
    }
    let spoiled = Cell::Bulk { streams: 1, direction: Direction::Spoiled };
    let seen = measure(spoiled, relay, &scale).err().map(|error| error.to_string()).unwrap_or_default();
    require(seen.contains("wrong bytes"), "one wrong byte in a tunnel fails the cell")?;
    eprintln!("load: all {} cells answered right through the relay", CELLS.len());
    Ok(())
}

/// Flipped, lost, doubled and swapped bytes are seen, early in a stream and late.
fn check_pattern() -> io::Result<()> {
    let pattern = Pattern::new();
    let mut checker = Checker::default();
    for offset in (0..64 * 1024 * 1024).step_by(128 * 1024) {
        require(checker.check(&pattern, pattern.at(offset, 128 * 1024)).is_ok(), "a right stream is right")?;
    }
    let shifted = pattern.at(checker.count() + 65_536, 128 * 1024);
    require(checker.check(&pattern, shifted).is_err(), "64 KiB lost late in a stream are seen")?;
    let mut flipped = pattern.at(0, 100_000).to_vec();
    flipped.iter_mut().skip(77_777).take(1).for_each(|byte| *byte ^= 0x10);
    require(
        Checker::default().check(&pattern, &flipped).is_err(),
        "one flipped bit early in a stream is seen",
    )?;
    require(pattern.at(0, BODY_BYTES) != pattern.at(7, BODY_BYTES), "operations differ")
}

fn check_answers() -> io::Result<()> {
    require(established(b"HTTP/1.1 200 OK\r\n\r") == Ok(false), "a part of a head is not yet an answer")?;
    require(established(b"HTTP/1.1 200 OK\r\n\r\n") == Ok(true), "200 is a tunnel")?;
    require(established(b"HTTP/1.1 403 Forbidden\r\n\r\n").is_err(), "403 is none")?;
    require(established(b"HTTP/1.1 200 OK\r\n\r\nx").is_err(), "bytes that nobody sent are seen")
}

/// A foreign program and its directory are gone when the value that stands for it is.
fn check_warden() -> io::Result<()> {
    let scratch = TempDir::new()?;
    let sleep = find_program("sleep").ok_or_else(|| io::Error::other("no sleep(1) on PATH"))?;
    let process = Process::foreign(&sleep, &["60".into()], scratch.path())?;
    let directory = PathBuf::from(format!("/proc/{}", process.pid));
    require(directory.exists(), "a foreign program runs")?;
    drop(process);
    require(!directory.exists(), "it is ended with the value that stands for it")?;
    require(!scratch.path().exists(), "and its directory is removed")
}

/// The statistics and the table against figures worked out by hand.
fn check_sums() -> io::Result<()> {
    require(median(&[1.0, 2.0, 4.0, 8.0]) == Some(3.0), "the median of four")?;
    let ranks = [4, 5, 7, 8, 20].map(upper_rank);
    require(ranks == [None, Some(5), Some(7), Some(7), Some(15)], "ranks of the 95 % bound")?;
    require(utc(1_709_210_096) == "2024-02-29T12:34:56Z", "a leap day")?;

    let mut lines =
        String::from("{\"date\":\"old\",\"workload\":\"W2\",\"peer\":\"squid\",\"round\":1,\"cost\":1.0}\n");
    for round in 1..=7 {
        for (peer, cost) in [("relay-256k", 100.0), ("squid", 200.0 + f64::from(round))] {
            let record =
                json!({ "date": "new", "workload": "W2", "peer": peer, "round": round, "cost": cost });
            lines.push_str(&format!("{record}\n"));
        }
    }
    let table = markdown(&last_run(&lines)?);
    let squid = table.lines().find(|line| line.contains("squid")).unwrap_or_default();
    require(
        squid.contains("| 204 CPU-µs/tunnel | 201 – 207 | 2.04 | 2.07 | 7 |"),
        &format!("the table's row: {squid}"),
    )
}

fn require(holds: bool, what: &str) -> io::Result<()> {
    if holds { Ok(()) } else { Err(io::Error::other(format!("the harness is wrong: not so: {what}"))) }
}
