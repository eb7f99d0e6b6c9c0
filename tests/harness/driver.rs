//! Which driver a test runs on, and whether this machine and this build can have it.

use std::sync::OnceLock;

/// The driver that a test asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    /// io_uring.
    Uring,
    /// epoll.
    Epoll,
}

impl Driver {
    /// The word of `--driver`.
    pub fn flag(self) -> &'static str {
        match self {
            Driver::Uring => "uring",
            Driver::Epoll => "epoll",
        }
    }

    /// The word of `driver.name` in `status --json`.
    pub fn name(self) -> &'static str {
        match self {
            Driver::Uring => "io_uring",
            Driver::Epoll => "epoll",
        }
    }

    /// Whether a test of this driver can run here; says loudly why not.
    pub fn can_run(self) -> bool {
        let reason = match self {
            Driver::Uring if !cfg!(feature = "uring") => Some("this build has no ring".to_owned()),
            Driver::Uring => ring_probe().as_ref().err().map(|why| format!("no ring can be had here: {why}")),
            Driver::Epoll if !cfg!(feature = "epoll") => Some("this build has no epoll".to_owned()),
            Driver::Epoll => None,
        };
        if let Some(reason) = &reason {
            eprintln!("SKIPPED on {}: {reason}", self.name());
        }
        reason.is_none()
    }

    /// Every driver that this build and machine can run.
    pub fn all_possible() -> Vec<Driver> {
        [Driver::Uring, Driver::Epoll].into_iter().filter(|driver| driver.can_run()).collect()
    }
}

/// Asks the kernel itself, not the program under test, for a ring, and enters it once.
pub fn ring_probe() -> &'static Result<(), String> {
    static PROBE: OnceLock<Result<(), String>> = OnceLock::new();
    PROBE.get_or_init(probe)
}

#[cfg(feature = "uring")]
fn probe() -> Result<(), String> {
    let ring = io_uring::IoUring::new(64).map_err(|error| format!("io_uring_setup: {error}"))?;
    ring.submit().map_err(|error| format!("io_uring_enter: {error}"))?;
    Ok(())
}

#[cfg(not(feature = "uring"))]
fn probe() -> Result<(), String> {
    Err("the harness was built without the ring".to_owned())
}

/// Makes of `fn name(driver: Driver) { … }` the two tests `name::uring` and `name::epoll`.
#[macro_export]
macro_rules! both_drivers {
    ($($(#[$meta:meta])* fn $name:ident($driver:ident: $kind:ty) $body:block)+) => {$(
        mod $name {
            use super::*;

            fn check($driver: $kind) $body

            $(#[$meta])*
            #[test]
            fn uring() {
                if $crate::Driver::Uring.can_run() {
                    check($crate::Driver::Uring);
                }
            }

            $(#[$meta])*
            #[test]
            fn epoll() {
                if $crate::Driver::Epoll.can_run() {
                    check($crate::Driver::Epoll);
                }
            }
        }
    )+};
}
