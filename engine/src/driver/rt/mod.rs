//! The runtime room: the only one that names monoio.
//!
//! What it offers to the rest of the driver, all of it core-local and none of it `Send`:
//! - `ladder`: a core's runtime, on the best rung of io_uring that the kernel grants, else on epoll;
//! - `Source`: readiness of a descriptor;
//! - `Timer` and `alarm`: a descriptor that ticks, and coarse deadlines swept by it;
//! - `Waiters`: answers that come by mail;
//! - `race`, `both`: waiting for more than one thing;
//! - `spawn`, `turn`.
//!
//! The invariant that everything above leans on: **whatever waits here may be dropped.** A wait moves no bytes
//! (readiness only; the bytes are moved by a system call that does not block), so cancelling one loses none.

pub(crate) mod alarm;
mod ladder;
mod select;
mod source;
#[cfg(test)]
mod stress;
mod timer;
mod waiters;

use std::future::Future;

pub(crate) use alarm::{Alarm, Alarms};
pub(crate) use ladder::run;
pub use ladder::{Choice, Rung, probe};
pub(crate) use select::{Either, both, race};
pub(crate) use source::Source;
pub(crate) use timer::Timer;
pub(crate) use waiters::{Answer, Waiters};

/// Runs `task` on this core beside the caller. A panic in it takes the core down: see `driver::core::Core::serve`.
pub(crate) fn spawn<T: 'static>(task: impl Future<Output = T> + 'static) {
    drop(monoio::spawn(task));
}

/// Lets every other task of the core run once before the caller goes on.
///
/// A task that wakes itself starves the others (monoio #322); one that waits for a fresh task goes behind them.
/// On io_uring that alone is not enough: with DEFER_TASKRUN completions arrive only when the core waits, so whoever
/// takes many turns must also wait for readiness between them.
pub(crate) async fn turn() {
    monoio::spawn(async {}).await;
}
