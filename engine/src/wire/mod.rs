//! Bytes to values, and nothing else: no I/O, no clock, no policy.
//!
//! Every parser here is incremental and bounded. It answers `Step::More` until it has seen enough, then
//! `Step::Done` or an error, and it resumes where it stopped: bytes that were looked at are not looked at again.
//! Each has four properties under test: the answer does not depend on how the input was split; every proper
//! prefix of a good input says `More`; an oracle agrees; bounds hold.
//!
//! ```text
//! sniff   the first bytes of a tunnel: TLS, HTTP or something else
//! hello   TLS ClientHello: SNI, ALPN, ECH, across records and segments
//! head    HTTP/1 heads: find the end, parse, rewrite for the next hop
//! body    how many of these bytes belong to this body
//! target  host, port, authority, absolute-form, in one canonical form
//! syntax  what the HTTP/1 parsers share: character classes and the field line
//! ```

pub mod body;
pub mod head;
pub mod hello;
pub mod sniff;
mod syntax;
pub mod target;

/// What an incremental parser says when the bytes are no error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step<T> {
    /// Give it more bytes.
    More,
    /// Complete.
    Done(T),
}

/// Where something stands in the bytes that it was parsed from: byte offsets, end exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    /// The bytes it names in `bytes`, which must be those that it was parsed from; empty where they are shorter.
    pub fn of(self, bytes: &[u8]) -> &[u8] {
        bytes.get(self.start as usize..self.end as usize).unwrap_or_default()
    }

    /// Whether it names no byte.
    pub fn is_empty(self) -> bool {
        self.start >= self.end
    }

    /// A span of offsets. Everything parsed here is under 64 KiB, so offsets always fit; past it they saturate.
    pub(crate) fn new(start: usize, end: usize) -> Self {
        Self { start: offset(start), end: offset(end) }
    }

    /// The same span in bytes that have `by` more in front.
    pub(crate) fn shifted(self, by: usize) -> Self {
        let by = offset(by);
        Self { start: self.start.saturating_add(by), end: self.end.saturating_add(by) }
    }
}

/// An offset as the 32 bits that a span keeps.
fn offset(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}
