//! W6: what does a plain HTTP request cost? Absolute-form GET of 1 KB on kept connections; 32 at once.
//!
//! Each request asks for other bytes, so that an answer to the wrong one is seen.

use std::io;

use serde_json::Value;

use crate::lanes::{self, Script};
use crate::origin::BODY_BYTES;
use crate::pattern::Pattern;
use crate::proc::Gauge;
use crate::workload::{Aim, Scale, operations};

const LANES: u64 = 32;

pub(crate) fn run(scale: &Scale, aim: Aim, gauge: Gauge, pattern: &Pattern) -> io::Result<Value> {
    let script = Requests { authority: aim.origin.to_string(), pattern };
    let (stretch, latencies) = lanes::run(&script, aim.proxy, LANES, scale, gauge)?;
    operations(&stretch, latencies)
}

struct Requests<'a> {
    authority: String,
    pattern: &'a Pattern,
}

impl Script for Requests<'_> {
    const FRESH: bool = false;

    fn send(&self, number: u64, stage: u32, out: &mut Vec<u8>) -> bool {
        if stage > 0 {
            return false;
        }
        for part in
            ["GET http://", &self.authority, "/", &number.to_string(), " HTTP/1.1\r\nHost: ", &self.authority]
        {
            out.extend_from_slice(part.as_bytes());
        }
        out.extend_from_slice(b"\r\nAccept: */*\r\n\r\n");
        true
    }

    fn judge(&self, number: u64, _: u32, received: &[u8]) -> Result<bool, String> {
        let Some(end) = received.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(false) };
        let (head, body) = received.split_at(end + 4);
        if !head.starts_with(b"HTTP/1.1 200") || content_length(head) != Some(BODY_BYTES) {
            return Err(format!("unexpected answer: {}", String::from_utf8_lossy(head)));
        }
        match body.len() {
            0..BODY_BYTES => Ok(false),
            BODY_BYTES if body == self.pattern.at(number, BODY_BYTES) => Ok(true),
            _ => Err("the body differs".into()),
        }
    }
}

/// The length that a head names (RFC 9112, 6.2); a chunked answer names none.
fn content_length(head: &[u8]) -> Option<usize> {
    let fields = std::str::from_utf8(head).ok()?;
    let (_, value) = fields
        .split("\r\n")
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))?;
    value.trim().parse().ok()
}
