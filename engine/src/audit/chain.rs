//! The hash chain of a journal: each line names the SHA-256 over the hash before it and its own bytes.
//!
//! `hash_n = SHA-256(hash_{n-1} || line_n up to its hash member)`, and `hash_0 = SHA-256("weir journal 1\n" ||
//! run id)`, so that a chain of another run never fits. It shows accidents, cuts and clumsy hands; whoever can
//! write the file can also compute hashes, which is why `stop` asks the living daemon for its head.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;

use super::line::{self, Final, Place};
use super::record::RunHeader;
use super::text::Clean;

/// Bytes of a hash.
const HASH_BYTES: usize = 32;
/// What stands between a line's own members and its hash.
pub(super) const HASH_MEMBER: &[u8] = b",\"hash\":\"";
/// What ends a line, after the hash and before the line feed.
pub(super) const HASH_END: &[u8] = b"\"}";

/// The hash of a line, and of all lines before it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Head([u8; HASH_BYTES]);

impl Head {
    /// What the first line of a run stands on.
    pub fn genesis(run: &str) -> Self {
        Self::of(&[b"weir journal 1\n", run.as_bytes()].concat())
    }

    /// The head after a line that is `body` up to its hash member.
    pub fn after(self, body: &[u8]) -> Self {
        Self::of(&[self.0.as_slice(), body].concat())
    }

    fn of(bytes: &[u8]) -> Self {
        let mut hash = [0; HASH_BYTES];
        hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
        Self(hash)
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is no hash: 64 lower-case hex digits were expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoHead;

impl FromStr for Head {
    type Err = NoHead;

    fn from_str(text: &str) -> Result<Self, NoHead> {
        let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| NoHead)?;
        bytes.try_into().map(Self).map_err(|_| NoHead)
    }
}

/// Gives records their number and hash, in the order of the calls.
#[derive(Debug, Clone)]
pub struct Chain {
    run: Box<str>,
    job: Vec<u8>,
    seq: u64,
    head: Head,
    /// The head's bytes, then the line that is being made: one buffer to hash, reused.
    scratch: Vec<u8>,
}

impl Chain {
    /// Begins a run: appends its first line to `out`.
    pub fn begin(header: &RunHeader, out: &mut Vec<u8>) -> Self {
        let mut chain = Self {
            run: header.run.clone(),
            job: line::job_value(header.job.as_deref()),
            seq: 0,
            head: Head::genesis(&header.run),
            scratch: Vec::with_capacity(1024),
        };
        chain.link(out, |place, scratch| line::run(place, header, scratch));
        chain
    }

    /// Appends the line of one record to `out`.
    pub fn append(&mut self, record: &Clean, out: &mut Vec<u8>) {
        self.link(out, |place, scratch| line::record(place, record, scratch));
    }

    /// Appends the last line of the run to `out`; `it.run` is filled in here.
    pub fn seal(&mut self, mut it: Final, out: &mut Vec<u8>) {
        it.run.clone_from(&self.run);
        self.link(out, |place, scratch| line::last(place, &it, scratch));
    }

    /// Lines so far.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Hash of the last line.
    pub fn head(&self) -> Head {
        self.head
    }

    fn link(&mut self, out: &mut Vec<u8>, write: impl FnOnce(Place<'_>, &mut Vec<u8>)) {
        self.seq += 1;
        self.scratch.clear();
        self.scratch.extend_from_slice(&self.head.0);
        write(Place { seq: self.seq, job: &self.job }, &mut self.scratch);
        self.head = Head::of(&self.scratch);
        out.extend_from_slice(self.scratch.get(HASH_BYTES..).unwrap_or_default());
        out.extend_from_slice(HASH_MEMBER);
        let mut hex = [0; 2 * HASH_BYTES];
        HEXLOWER.encode_mut(&self.head.0, &mut hex);
        out.extend_from_slice(&hex);
        out.extend_from_slice(HASH_END);
        out.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::samples::{decided, header};
    use super::super::record::{Record, Verdict};
    use super::*;

    #[test]
    fn heads_are_spelled_and_read_back() {
        let head = Head::genesis("a");
        assert_eq!(head.to_string().parse(), Ok(head));
        assert_eq!("".parse::<Head>(), Err(NoHead));
        assert_eq!(head.to_string().to_uppercase().parse::<Head>(), Err(NoHead));
        // sha256sum of the bytes "weir journal 1\na".
        assert_eq!(head.to_string(), "2f0900bea9e161a9ccf898aef2cabf0ca20885b5537e8bcddbaf8be39e747fb1");
    }

    #[test]
    fn each_line_is_hashed_over_the_one_before() {
        let mut out = Vec::new();
        let mut chain = Chain::begin(&header(), &mut out);
        chain.append(&Clean::new(decided(1, Verdict::Allow)), &mut out);
        chain.append(&Clean::new(decided(2, Verdict::Allow)), &mut out);
        assert_eq!(chain.seq(), 3);
        let mut head = Head::genesis(&header().run);
        for line in out.split_inclusive(|&b| b == b'\n') {
            let line = line.strip_suffix(b"\"}\n").unwrap();
            let (body, hash) = line.split_at(line.len() - 64);
            head = head.after(body.strip_suffix(HASH_MEMBER).unwrap());
            assert_eq!(hash, head.to_string().as_bytes());
        }
        assert_eq!(head, chain.head());
    }

    #[test]
    fn the_longest_record_fits_a_line() {
        let long = "\u{9b}".repeat(40_000);
        let mut it = decided(1 << 53, Verdict::WouldRefuse(crate::error::Code::UpstreamUnreachable));
        if let Record::Decided(it) = &mut it {
            it.target = Some(long.as_str().into());
            it.path = Some(long.as_str().into());
            it.verb = Some(super::super::record::Verb::Http(long.as_str().into()));
            it.rule = long.as_str().into();
            it.reason = Some(long.as_str().into());
            it.via = Some(long.as_str().into());
        }
        let mut out = Vec::new();
        let mut chain = Chain::begin(&RunHeader { job: Some(long.as_str().into()), ..header() }, &mut out);
        out.clear();
        chain.append(&Clean::new(it), &mut out);
        assert!(out.len() <= crate::limits::JOURNAL_LINE_BYTES_MAX, "{}", out.len());
    }
}
