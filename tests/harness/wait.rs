//! Waiting: for a condition, with a deadline; never for a time that is hoped to be long enough.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a test waits for anything before it fails. Long, since the machine may be busy; nothing that works
/// comes near it.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The first `Some` that `look` gives, looked for every few milliseconds.
///
/// # Panics
/// After `PATIENCE`, naming what was waited for.
pub fn eventually<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, look).unwrap_or_else(|| panic!("waited {PATIENCE:?} in vain: {what}"))
}

/// Waits until `look` is true.
///
/// # Panics
/// After `PATIENCE`, naming what was waited for.
pub fn holds(what: &str, mut look: impl FnMut() -> bool) {
    eventually(what, || look().then_some(()));
}

/// The first `Some` that `look` gives before `patience` ends.
pub fn within<T>(patience: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + patience;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() >= end {
            return None;
        }
        pause(Duration::from_millis(3));
    }
}

/// Lets time pass, for peers that are slow on purpose and for the pace of polling; never as synchronisation.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that sleeps: the pace of polling and of slow peers"
)]
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// One test at a time of those that need most descriptors of the process or measure the machine.
pub fn heavy() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A size that the environment may raise: `name`, else `default`.
///
/// # Panics
/// When the variable is set and is no number.
pub fn size_from_env(name: &str, default: usize) -> usize {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")),
        Err(_) => default,
    }
}
