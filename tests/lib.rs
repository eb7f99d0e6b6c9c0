//! The harness of the integration tests: what a test needs to say in one line.
//!
//! A `Place` is a job's surroundings (home, state, clean environment), a `Daemon` is the program running in it,
//! an `Origin` is what the daemon talks to, a `Wire` is one TCP connection of a test, and a `Parent` is a proxy
//! behind the daemon. Whatever a test starts ends when its value is dropped.
//!
//! Not here: the tests themselves (`it/`) and the checks of the source (`tidy.rs`).
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a panic in the harness is the failed test"
)]
#![allow(clippy::disallowed_types, reason = "threads of tests may wait for each other")]

pub mod harness;

pub use harness::binary::{Binary, weir};
pub use harness::client::{Head, Wire};
pub use harness::daemon::{Daemon, Setup};
pub use harness::driver::Driver;
pub use harness::hello::client_hello;
pub use harness::http::{After, HttpOrigin, Seen};
pub use harness::journal::Journal;
pub use harness::origin::Origin;
pub use harness::parent::Parent;
pub use harness::place::{Finished, Place};
pub use harness::proc;
pub use harness::wait::{PATIENCE, eventually, heavy, holds, size_from_env};
