//! The ring ladder: which driver a core runs on.
//!
//! Rungs from best to last: DEFER_TASKRUN with SINGLE_ISSUER (kernel 6.1), COOP_TASKRUN (5.19), a plain ring,
//! a plain ring of fewer entries, epoll. Fewer than 256 entries cannot be had from monoio's builder. A ring that
//! fails for want of memory is tried again for a second first: the memlock charge of a process that just died is
//! released late.

use std::fmt;
use std::future::Future;
use std::io;
use std::time::{Duration, Instant};

/// What the operator asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Choice {
    /// The best rung that can be had.
    #[default]
    Auto,
    /// io_uring, or an error.
    Uring,
    /// epoll.
    Epoll,
}

impl Choice {
    /// The choice that `word` names.
    pub fn parse(word: &str) -> Option<Choice> {
        match word {
            "auto" => Some(Choice::Auto),
            "uring" => Some(Choice::Uring),
            "epoll" => Some(Choice::Epoll),
            _ => None,
        }
    }
}

/// Where on the ladder a core stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rung {
    /// io_uring with DEFER_TASKRUN and SINGLE_ISSUER, and this many entries.
    DeferTaskrun(u32),
    /// io_uring with COOP_TASKRUN.
    CoopTaskrun(u32),
    /// io_uring without flags.
    Plain(u32),
    /// epoll.
    Epoll,
}

impl Rung {
    /// `io_uring` or `epoll`.
    pub fn driver(self) -> &'static str {
        match self {
            Rung::Epoll => "epoll",
            Rung::DeferTaskrun(_) | Rung::CoopTaskrun(_) | Rung::Plain(_) => "io_uring",
        }
    }
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rung::DeferTaskrun(entries) => write!(f, "defer_taskrun/{entries}"),
            Rung::CoopTaskrun(entries) => write!(f, "coop_taskrun/{entries}"),
            Rung::Plain(entries) => write!(f, "plain/{entries}"),
            Rung::Epoll => f.write_str("epoll"),
        }
    }
}

/// The best rung of io_uring that this process can have now; `Err` says why there is none.
///
/// # Errors
/// The last refusal of the kernel, or that this build has no ring.
pub fn probe() -> io::Result<Rung> {
    ring::climb().map(|(rung, _)| rung)
}

/// Builds this thread's runtime and runs `main` on it until it is done. It hears the rung that it stands on.
///
/// # Errors
/// When no driver of the choice can be had.
pub(crate) fn run<F: Future>(choice: Choice, main: impl FnOnce(Rung) -> F) -> io::Result<F::Output> {
    let refusal = match choice {
        Choice::Auto | Choice::Uring => match ring::climb() {
            Ok((rung, mut runtime)) => return Ok(runtime.block_on(main(rung))),
            Err(refusal) => refusal,
        },
        Choice::Epoll => io::ErrorKind::Unsupported.into(),
    };
    match choice {
        Choice::Uring => Err(refusal),
        Choice::Auto | Choice::Epoll => epoll::run(main),
    }
}

#[cfg(feature = "epoll")]
mod epoll {
    use super::{Future, Rung, io};

    pub(super) fn run<F: Future>(main: impl FnOnce(Rung) -> F) -> io::Result<F::Output> {
        let mut runtime = monoio::RuntimeBuilder::<monoio::LegacyDriver>::new().build()?;
        Ok(runtime.block_on(main(Rung::Epoll)))
    }
}

#[cfg(not(feature = "epoll"))]
mod epoll {
    use super::{Future, Rung, io};

    pub(super) fn run<F: Future>(_main: impl FnOnce(Rung) -> F) -> io::Result<F::Output> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "this build has no epoll driver"))
    }
}

#[cfg(feature = "uring")]
mod ring {
    use super::{Duration, Instant, Rung, io};
    use monoio::{IoUringDriver, Runtime, RuntimeBuilder};
    use rustix::io::Errno;

    /// How long a ring that fails for want of memory is asked for again.
    const MEMORY_PATIENCE: Duration = Duration::from_secs(1);

    type Ring = Runtime<IoUringDriver>;

    const LADDER: [Rung; 4] =
        [Rung::DeferTaskrun(1024), Rung::CoopTaskrun(1024), Rung::Plain(1024), Rung::Plain(256)];

    pub(super) fn climb() -> io::Result<(Rung, Ring)> {
        let mut last = io::Error::from(io::ErrorKind::Unsupported);
        for rung in LADDER {
            match patiently(rung) {
                Ok(runtime) => return Ok((rung, runtime)),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn patiently(rung: Rung) -> io::Result<Ring> {
        let begun = Instant::now();
        loop {
            match build(rung) {
                Err(error)
                    if error.raw_os_error() == Some(Errno::NOMEM.raw_os_error())
                        && begun.elapsed() < MEMORY_PATIENCE =>
                {
                    // A kernel sleep, not thread::sleep: this thread has no runtime yet and nothing else to do.
                    let _ = rustix::event::poll(&mut [], Some(&timespec(Duration::from_millis(50))));
                }
                answer => return answer,
            }
        }
    }

    fn timespec(time: Duration) -> rustix::event::Timespec {
        rustix::event::Timespec { tv_sec: 0, tv_nsec: i64::from(time.subsec_nanos()) }
    }

    fn build(rung: Rung) -> io::Result<Ring> {
        let mut flags = io_uring::IoUring::builder();
        let entries = match rung {
            Rung::DeferTaskrun(entries) => {
                flags.setup_defer_taskrun().setup_single_issuer();
                entries
            }
            Rung::CoopTaskrun(entries) => {
                flags.setup_coop_taskrun();
                entries
            }
            Rung::Plain(entries) => entries,
            Rung::Epoll => return Err(io::ErrorKind::Unsupported.into()),
        };
        RuntimeBuilder::<IoUringDriver>::new().with_entries(entries).uring_builder(flags).build()
    }
}

#[cfg(not(feature = "uring"))]
mod ring {
    use super::{Future, Rung, io};

    /// Stands for the runtime that this build does not have.
    pub(super) enum NoRing {}

    impl NoRing {
        pub(super) fn block_on<F: Future>(&mut self, _main: F) -> F::Output {
            match *self {}
        }
    }

    pub(super) fn climb() -> io::Result<(Rung, NoRing)> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "this build has no io_uring driver"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_takes_the_ring_where_the_probe_does() {
        let rung = run(Choice::Auto, |rung| async move { rung }).unwrap();
        match probe() {
            Ok(ring) => assert_eq!(rung, ring),
            Err(why) => assert_eq!(rung, Rung::Epoll, "{why}"),
        }
    }

    #[cfg(feature = "epoll")]
    #[test]
    fn epoll_is_epoll() {
        assert_eq!(run(Choice::Epoll, |rung| async move { rung }).unwrap(), Rung::Epoll);
    }
}
