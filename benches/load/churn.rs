//! W2: what does a short tunnel cost? Open, 1 KB there and back, close; 64 at once.
//!
//! The close is the client's and it does not wait for the proxy's: what that costs falls into the same stretch.

use std::io;

use serde_json::Value;

use crate::lanes::{self, Script};
use crate::pattern::Pattern;
use crate::proc::Gauge;
use crate::workload::{Aim, Scale, established, operations};

const LANES: u64 = 64;
const ECHO_BYTES: usize = 1024;

pub(crate) fn run(scale: &Scale, aim: Aim, gauge: Gauge, pattern: &Pattern) -> io::Result<Value> {
    let script = Churn { connect: aim.connect_head(), pattern };
    let (stretch, latencies) = lanes::run(&script, aim.proxy, LANES, scale, gauge)?;
    operations(&stretch, latencies)
}

struct Churn<'a> {
    /// None through a relay, whose connection is the tunnel.
    connect: Option<String>,
    pattern: &'a Pattern,
}

impl Churn<'_> {
    /// The head to send in this stage, if it is the one for it.
    fn head(&self, stage: u32) -> Option<&String> {
        self.connect.as_ref().filter(|_| stage == 0)
    }

    /// Each operation echoes other bytes, so that an answer to the wrong one is seen.
    fn payload(&self, number: u64) -> &[u8] {
        self.pattern.at(number * 7, ECHO_BYTES)
    }
}

impl Script for Churn<'_> {
    const FRESH: bool = true;

    fn send(&self, number: u64, stage: u32, out: &mut Vec<u8>) -> bool {
        if let Some(head) = self.head(stage) {
            out.extend_from_slice(head.as_bytes());
            return true;
        }
        let stages = if self.connect.is_some() { 2 } else { 1 };
        if stage < stages {
            out.push(b'E');
            out.extend_from_slice(self.payload(number));
        }
        stage < stages
    }

    fn judge(&self, number: u64, stage: u32, received: &[u8]) -> Result<bool, String> {
        if self.head(stage).is_some() {
            return established(received);
        }
        let payload = self.payload(number);
        if received == payload {
            Ok(true)
        } else if payload.starts_with(received) {
            Ok(false)
        } else {
            Err("the echo differs".into())
        }
    }
}
