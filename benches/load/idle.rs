//! W3: what memory does an idle tunnel hold, and is it given back?
//!
//! One byte each way first, so that what a proxy allocates lazily is there. The cost is the slope between two
//! readings: the process itself and its first pools drop out.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::proc::{Footprint, Gauge, named, pause, round};
use crate::workload::{Aim, Scale};

/// Tunnels before the first reading, so that pools and threads of the first connections are part of the base.
const WARM_TUNNELS: usize = 20;
/// Descriptors must be back at the base within this after the close.
const CLOSE_MAX: Duration = Duration::from_secs(10);

pub(crate) fn run(scale: &Scale, aim: Aim, gauge: Gauge) -> io::Result<Value> {
    let read = || {
        pause(scale.settle);
        Footprint::of(gauge.proxy)
    };
    drop(open(WARM_TUNNELS, aim)?);
    let base = read()?;
    let mark = gauge.begin()?;
    let (few, many) = scale.idle_tunnels;
    let mut held = open(few, aim)?;
    let at_few = read()?;
    held.extend(open(many - few, aim)?);
    let opened = mark.end()?;
    let at_many = read()?;
    for tunnel in &mut held {
        echo(tunnel, b'!')?;
    }
    drop(held);
    let closed = after_close(gauge, base, scale)?;

    let slope = (at_many.rss_kb as f64 - at_few.rss_kb as f64) / (many - few) as f64;
    let anon_slope = (at_many.anon_kb as f64 - at_few.anon_kb as f64) / (many - few) as f64;
    let figures = named([
        ("tunnels", many as f64),
        ("anon_kb_per_tunnel", anon_slope),
        ("rss_kb_base", base.rss_kb as f64),
        ("rss_kb_few", at_few.rss_kb as f64),
        ("rss_kb_many", at_many.rss_kb as f64),
        ("rss_kb_closed", closed.rss_kb as f64),
        ("fds_base", base.fds as f64),
        ("fds_many", at_many.fds as f64),
        ("fds_closed", closed.fds as f64),
        ("threads_base", base.threads as f64),
        ("threads_many", at_many.threads as f64),
        ("open_cpu_s", opened.cpu_s),
    ]);
    Ok(json!({ "cost": round(slope), "figures": figures }))
}

/// Opens `count` tunnels, each with one byte there and back.
fn open(count: usize, aim: Aim) -> io::Result<Vec<TcpStream>> {
    let one = || {
        let mut tunnel = aim.open_tunnel()?;
        tunnel.write_all(b"E")?;
        echo(&mut tunnel, b'?')?;
        Ok(tunnel)
    };
    (0..count).map(|_| one()).collect()
}

fn echo(tunnel: &mut TcpStream, byte: u8) -> io::Result<()> {
    let mut answer = [0];
    tunnel.write_all(&[byte])?;
    tunnel.read_exact(&mut answer)?;
    if answer == [byte] { Ok(()) } else { Err(io::Error::other("the echo differs")) }
}

/// The footprint once the descriptors are back, and memory has had its time to follow.
fn after_close(gauge: Gauge, base: Footprint, scale: &Scale) -> io::Result<Footprint> {
    let since = Instant::now();
    loop {
        pause(scale.settle);
        let now = Footprint::of(gauge.proxy)?;
        // A pool of pipes or of its own files may stay; a tunnel's two sockets may not.
        if now.fds <= base.fds + 64 {
            return Ok(now);
        }
        if since.elapsed() > CLOSE_MAX {
            return Err(io::Error::other(format!(
                "{} descriptors open after the close, {} before",
                now.fds, base.fds
            )));
        }
    }
}
