//! Bytes to values, and nothing else: no I/O, no clock, no policy.
//!
//! Every parser here is incremental and bounded. It answers `Step::More` until it has seen enough, then
//! `Step::Done` or an error, and it resumes where it stopped: bytes that were looked at are not looked at again.
//! Each has four properties under test: the answer does not depend on how the input was split; every proper
//! prefix of a good input says `More`; an oracle agrees; bounds hold.

pub mod target;

/// What an incremental parser says when the bytes are no error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step<T> {
    /// Give it more bytes.
    More,
    /// Complete.
    Done(T),
}
