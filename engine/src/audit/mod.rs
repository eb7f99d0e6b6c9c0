//! What happened, as records; the hash chain that makes cuts visible; the count that the gate stands on.
//!
//! Pure: bytes and values. The writer thread is `control::journal`.
//!
//! ```text
//! Record -> line (one JSON line) -> chain (seq, hash) -> the file
//!        \-> tally (the gate's count)                      |
//! verify: the file -> parse -> chain and tally once more <-+
//! ```

pub mod chain;
pub mod line;
pub mod parse;
pub mod record;
pub mod tally;
pub mod text;
pub mod verify;
