//! Everything slow, rare or chatty: the daemon's start and end, its state on disk, signals, the control socket.
//!
//! ```text
//! main (start) -> serve (loop, drain, seal) -> socket, signals
//!   `-> state, runs, folder (what is on disk)      standing, ask (is it alive?)  -> gate (what stop may say)
//! ```
//!
//! Nothing here is on the path of a connection, and nothing here makes one wait.

pub mod ask;
pub mod fault;
pub mod folder;
pub mod gate;
pub mod journal;
pub mod load;
pub mod log;
pub mod main;
pub mod place;
pub mod poll;
pub mod process;
pub mod protocol;
pub mod resolve;
pub mod runs;
mod serve;
pub mod signals;
pub mod socket;
pub mod standing;
pub mod state;
