//! W1: what does a gigabyte through a tunnel cost? One tunnel down, eight down, eight up.
//!
//! Blocking threads, one a tunnel. The tunnels stand before the stretch begins; it ends when the last byte was
//! checked by whoever received it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::origin::ALL_RIGHT;
use crate::pattern::{Checker, Pattern, WINDOW};
use crate::proc::{Gauge, named, round};
use crate::workload::{Aim, Direction, Scale};

pub(crate) fn run(
    streams: usize,
    direction: Direction,
    scale: &Scale,
    aim: Aim,
    gauge: Gauge,
    pattern: &Pattern,
) -> io::Result<Value> {
    let bytes = scale.bulk_bytes / streams as u64;
    let tunnels = (0..streams).map(|_| aim.open_tunnel()).collect::<io::Result<Vec<_>>>()?;
    let mark = gauge.begin()?;
    std::thread::scope(|scope| {
        let spawn = |tunnel| scope.spawn(move || transfer(tunnel, bytes, direction, pattern));
        let transfers: Vec<_> = tunnels.into_iter().map(spawn).collect();
        transfers.into_iter().try_for_each(|transfer| {
            transfer.join().unwrap_or_else(|_| Err(io::Error::other("a generator thread panicked")))
        })
    })?;
    let stretch = mark.end()?;
    let gigabytes = (bytes * streams as u64) as f64 * 1e-9;
    let mut figures = stretch.figures;
    figures.extend(named([("gb", gigabytes), ("gb_per_s", gigabytes / stretch.seconds)]));
    Ok(json!({ "cost": round(stretch.cpu_s / gigabytes), "figures": figures }))
}

fn transfer(mut tunnel: TcpStream, bytes: u64, direction: Direction, pattern: &Pattern) -> io::Result<()> {
    let command = match direction {
        Direction::Down => b'D',
        Direction::Up => b'U',
        Direction::Spoiled => b'B',
    };
    let mut order = vec![command];
    order.extend_from_slice(&bytes.to_be_bytes());
    tunnel.write_all(&order)?;
    if direction == Direction::Up { send(tunnel, bytes, pattern) } else { receive(tunnel, bytes, pattern) }
}

/// Receives to the end; the count and the end itself are part of the answer.
fn receive(mut tunnel: TcpStream, bytes: u64, pattern: &Pattern) -> io::Result<()> {
    let (mut checker, mut buffer) = (Checker::default(), vec![0; WINDOW]);
    loop {
        match tunnel.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => checker
                .check(pattern, buffer.get(..count).unwrap_or_default())
                .map_err(|offset| io::Error::other(format!("wrong bytes after offset {offset}")))?,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    if checker.count() == bytes {
        Ok(())
    } else {
        Err(io::Error::other(format!("{} of {bytes} bytes arrived", checker.count())))
    }
}

/// Sends, ends its side, and has the origin say what arrived.
fn send(mut tunnel: TcpStream, bytes: u64, pattern: &Pattern) -> io::Result<()> {
    let mut offset = 0;
    while offset < bytes {
        let left = usize::try_from(bytes - offset).unwrap_or(WINDOW);
        offset += tunnel.write(pattern.at(offset, left))? as u64;
    }
    let mut answer = [[0; 8]; 2];
    tunnel.read_exact(answer.as_flattened_mut())?;
    match answer.map(u64::from_be_bytes) {
        [count, ALL_RIGHT] if count == bytes => Ok(()),
        [count, ALL_RIGHT] => Err(io::Error::other(format!("{count} of {bytes} bytes arrived"))),
        [_, offset] => Err(io::Error::other(format!("wrong bytes after offset {offset}"))),
    }
}
