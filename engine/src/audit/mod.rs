//! What happened, as records; the hash chain that makes cuts visible; the count that the gate stands on.
//!
//! Pure: bytes and values. The writer thread is `control::journal`.

pub mod record;
