//! The workloads: which there are, how large, and what all of them share (the way to the origin).
//!
//! Each runs in a process of its own, so that the generator's CPU is not the proxy's, and prints one JSON object.
//! Any error and any wrong byte fails it: a figure is only there when every answer was right.

use std::io::{self, Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

use crate::pattern::Pattern;
use crate::proc::{Gauge, Stretch, named, round};
use crate::{bulk, churn, idle, plain};

/// A peer that gives no byte for so long has failed.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(10);

/// One measured quantity.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Cell {
    /// W1: bulk through tunnels.
    Bulk { streams: usize, direction: Direction },
    /// W2: short tunnels.
    Churn,
    /// W3: idle tunnels.
    Idle,
    /// W6: plain HTTP.
    Plain,
}

/// Where bulk flows, seen from the client. `Spoiled` is `Down` with one wrong byte: the harness' own proof.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Direction {
    Down,
    Up,
    Spoiled,
}

/// All cells in the order of a round.
pub(crate) const CELLS: [Cell; 6] = [
    Cell::Bulk { streams: 1, direction: Direction::Down },
    Cell::Bulk { streams: 8, direction: Direction::Down },
    Cell::Bulk { streams: 8, direction: Direction::Up },
    Cell::Churn,
    Cell::Idle,
    Cell::Plain,
];

impl Cell {
    /// `W1.8u`, `W2`: the word of the command line, the results and the table.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Bulk { streams, direction: Direction::Down } => format!("W1.{streams}d"),
            Self::Bulk { streams, direction: Direction::Up } => format!("W1.{streams}u"),
            Self::Bulk { streams, direction: Direction::Spoiled } => format!("W1.{streams}x"),
            Self::Churn => "W2".into(),
            Self::Idle => "W3".into(),
            Self::Plain => "W6".into(),
        }
    }

    /// The cell of that name, the spoiled one included.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let spoiled = Self::Bulk { streams: 1, direction: Direction::Spoiled };
        CELLS.into_iter().chain([spoiled]).find(|cell| cell.name() == name)
    }

    /// What the cost counts.
    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::Bulk { .. } => "CPU-s/GB",
            Self::Churn => "CPU-µs/tunnel",
            Self::Idle => "KiB/tunnel",
            Self::Plain => "CPU-µs/request",
        }
    }

    /// The question in one line.
    pub(crate) fn question(self) -> &'static str {
        match self {
            Self::Bulk { streams: 1, .. } => "bulk, one tunnel down",
            Self::Bulk { direction: Direction::Up, .. } => "bulk, eight tunnels up",
            Self::Bulk { .. } => "bulk, eight tunnels down",
            Self::Churn => "tunnel, 1 KB echo, close; 64 at once",
            Self::Idle => "resident memory of an idle tunnel",
            Self::Plain => "plain HTTP GET of 1 KB, keep-alive; 32 at once",
        }
    }
}

/// How much of each workload.
#[derive(Clone, Copy)]
pub(crate) struct Scale {
    pub(crate) name: &'static str,
    /// W1: bytes of all tunnels together.
    pub(crate) bulk_bytes: u64,
    /// W2, W6: before the figures count, and while they do.
    pub(crate) warm: Duration,
    pub(crate) measured: Duration,
    /// W3: tunnels at the first and at the second reading.
    pub(crate) idle_tunnels: (usize, usize),
    /// W3: before memory is read.
    pub(crate) settle: Duration,
}

/// For results that are kept, for a look in under two minutes, and for the test run.
pub(crate) const SCALES: [Scale; 3] = [
    Scale {
        name: "full",
        bulk_bytes: 5_000_000_000,
        warm: Duration::from_secs(1),
        measured: Duration::from_secs(8),
        idle_tunnels: (1000, 2000),
        settle: Duration::from_millis(1500),
    },
    Scale {
        name: "quick",
        bulk_bytes: 1_000_000_000,
        warm: Duration::from_millis(300),
        measured: Duration::from_secs(3),
        idle_tunnels: (1000, 2000),
        settle: Duration::from_millis(500),
    },
    Scale {
        name: "smoke",
        bulk_bytes: 32_000_000,
        warm: Duration::from_millis(20),
        measured: Duration::from_millis(100),
        idle_tunnels: (20, 40),
        settle: Duration::from_millis(20),
    },
];

impl Scale {
    pub(crate) fn named(name: &str) -> Option<Self> {
        SCALES.into_iter().find(|scale| scale.name == name)
    }
}

/// Where the generator aims.
#[derive(Clone, Copy)]
pub(crate) struct Aim {
    /// The proxy, or the relay.
    pub(crate) proxy: SocketAddrV4,
    pub(crate) origin: SocketAddrV4,
    /// A relay speaks no CONNECT: what it is sent goes to the origin.
    pub(crate) is_relay: bool,
}

impl Aim {
    /// The head that asks for a tunnel to the origin; none where the connection is one already.
    pub(crate) fn connect_head(&self) -> Option<String> {
        let origin = self.origin;
        (!self.is_relay).then(|| format!("CONNECT {origin} HTTP/1.1\r\nHost: {origin}\r\n\r\n"))
    }

    /// A tunnel to the origin, blocking.
    pub(crate) fn open_tunnel(&self) -> io::Result<TcpStream> {
        let mut stream = TcpStream::connect_timeout(&self.proxy.into(), SILENCE_MAX)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE_MAX))?;
        stream.set_write_timeout(Some(SILENCE_MAX))?;
        let Some(head) = self.connect_head() else { return Ok(stream) };
        stream.write_all(head.as_bytes())?;
        let (mut answer, mut byte) = (Vec::new(), [0; 512]);
        loop {
            let count = stream.read(&mut byte)?;
            answer.extend_from_slice(byte.get(..count).unwrap_or_default());
            match established(&answer) {
                Ok(true) => return Ok(stream),
                Ok(false) if count > 0 => {}
                Ok(false) => return Err(io::Error::other("the proxy closed instead of answering CONNECT")),
                Err(why) => return Err(io::Error::other(why)),
            }
        }
    }
}

/// Judges the answer to CONNECT: complete and 200 (RFC 9110, 9.3.6), not complete yet, or wrong.
/// Nothing may follow the head, since the origin only speaks when spoken to.
pub(crate) fn established(answer: &[u8]) -> Result<bool, String> {
    match answer.windows(4).position(|four| four == b"\r\n\r\n") {
        None => Ok(false),
        Some(end)
            if answer.starts_with(b"HTTP/1.")
                && answer.get(9..12) == Some(b"200")
                && end + 4 == answer.len() =>
        {
            Ok(true)
        }
        Some(_) => {
            Err(format!("CONNECT answered: {}", String::from_utf8_lossy(answer.get(..60).unwrap_or(answer))))
        }
    }
}

/// Runs one cell to its end: `cost`, and the figures behind it.
pub(crate) fn run(cell: Cell, scale: &Scale, aim: Aim, gauge: Gauge) -> io::Result<Value> {
    let pattern = Pattern::new();
    match cell {
        Cell::Bulk { streams, direction } => bulk::run(streams, direction, scale, aim, gauge, &pattern),
        Cell::Churn => churn::run(scale, aim, gauge, &pattern),
        Cell::Idle => idle::run(scale, aim, gauge),
        Cell::Plain => plain::run(scale, aim, gauge, &pattern),
    }
}

/// The result of a workload that counts operations: CPU an operation, rate, latencies.
pub(crate) fn operations(stretch: &Stretch, mut latencies_us: Vec<u32>) -> io::Result<Value> {
    latencies_us.sort_unstable();
    let count = latencies_us.len();
    if count == 0 {
        return Err(io::Error::other("not one operation came to its end"));
    }
    let at =
        |percent: usize| latencies_us.get((count - 1) * percent / 100).copied().map_or(f64::NAN, f64::from);
    let mut figures = stretch.figures.clone();
    figures.extend(named([
        ("operations", count as f64),
        ("per_second", count as f64 / stretch.seconds),
        ("p50_us", at(50)),
        ("p99_us", at(99)),
        ("max_us", at(100)),
    ]));
    Ok(json!({ "cost": round(stretch.cpu_s * 1e6 / count as f64), "figures": figures }))
}
