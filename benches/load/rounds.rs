//! The plan of a run and its execution: rounds over cells over peers, each figure written as soon as it is there.
//!
//! Peers of one cell follow each other directly and change their order from round to round, so that what drifts
//! on the machine falls on all of them.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};

use serde_json::Value;

use crate::child::{Process, answer};
use crate::peers::Peer;
use crate::report::{Facts, Sink};
use crate::workload::{Cell, Scale};

pub(crate) struct Plan {
    pub(crate) cells: Vec<Cell>,
    pub(crate) peers: Vec<Peer>,
    pub(crate) rounds: usize,
    pub(crate) scale: Scale,
}

/// Runs the plan; the number of cells that failed.
pub(crate) fn run(plan: &Plan, facts: &Facts, sink: &mut Sink) -> io::Result<usize> {
    let mut failed = 0;
    for round in 1..=plan.rounds {
        for cell in &plan.cells {
            let (last, first) = plan.peers.split_at((round - 1) % plan.peers.len().max(1));
            for peer in first.iter().chain(last) {
                let result = measure(*cell, peer, &plan.scale);
                failed += usize::from(result.is_err());
                say(round, plan.rounds, *cell, peer, &result);
                sink.write(&facts.record(*cell, peer, round, &plan.scale, result))?;
            }
        }
    }
    Ok(failed)
}

/// One cell for one peer, with an origin, a proxy and a generator of its own.
pub(crate) fn measure(cell: Cell, peer: &Peer, scale: &Scale) -> io::Result<Value> {
    let (origin, origin_port) = Process::part(&["origin"])?;
    let running = peer.start(origin_port)?;
    let origin_address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, origin_port);
    answer(&[
        "generate",
        &cell.name(),
        scale.name,
        &running.address.to_string(),
        &origin_address.to_string(),
        if peer.is_relay() { "relay" } else { "proxy" },
        &running.pid().to_string(),
        &origin.pid.to_string(),
    ])
}

fn say(round: usize, rounds: usize, cell: Cell, peer: &Peer, result: &io::Result<Value>) {
    let (cell_name, peer) = (cell.name(), peer.name());
    match result {
        Ok(value) => {
            let cost = value.get("cost").and_then(Value::as_f64).unwrap_or(f64::NAN);
            eprintln!("round {round}/{rounds}  {cell_name:6} {peer:11} {cost:10.4} {}", cell.unit());
        }
        Err(error) => eprintln!("round {round}/{rounds}  {cell_name:6} {peer:11} FAILED: {error}"),
    }
}
