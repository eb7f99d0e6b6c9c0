//! The data plane: the only place with sockets, cores and timers.
//!
//! One thread and one runtime a core, nothing shared between them but `Shared` (immutable, or atomic). Core 0
//! accepts and hands each connection to the core with the fewest; the story of one is `connection`.
//!
//! ```text
//! connection -> exchange, tunnel, first_flight, dial -> client, entry, refusal -> inbox, pool -> stream -> core -> rt
//! ```

mod buffers;
mod client;
mod connection;
mod core;
mod dial;
mod entry;
mod exchange;
mod first_flight;
mod inbox;
mod pool;
mod refusal;
mod rt;
mod stream;
mod tls;
mod tunnel;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::net::{SocketFlags, acceptfrom_with};

use crate::control::journal::Journal;
use crate::control::resolve::Resolver;
use crate::limits::{ACCEPT_BATCH_MAX, MAILBOX_LETTERS_MAX};
use crate::mail::{Letter, Mailbox};
use crate::policy::Policy;

pub use self::rt::{Choice, Rung, probe};

use self::core::{Core, CoreCounters};
use self::rt::{Answer, Either, Source, Timer, race};

/// What the data plane needs to run.
pub struct DriverOptions {
    /// Bound listeners; the driver owns them from here on.
    pub listeners: Vec<TcpListener>,
    /// Which driver.
    pub driver: Choice,
    /// Cores; by default as many as affinity and the cgroup's quota allow.
    pub threads: Option<usize>,
    /// The policy in force.
    pub policy: Arc<Policy>,
    /// Where decisions go.
    pub journal: Journal,
    /// Who knows names.
    pub resolver: Resolver,
}

/// Why the data plane did not start.
#[derive(Debug)]
pub enum DriverError {
    /// A descriptor, thread or driver could not be had; the text says which.
    Start(&'static str, io::Error),
    /// The TLS towards a parent proxy cannot be set up.
    Parent(String),
}

impl std::fmt::Display for DriverError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Start(what, error) => write!(f, "{what}: {error}"),
            Self::Parent(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for DriverError {}

/// Which driver runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DriverInfo {
    /// `io_uring` or `epoll`.
    pub name: &'static str,
    /// The rung of the ladder; the lowest of all cores.
    pub rung: String,
    /// Cores.
    pub threads: usize,
}

/// What the data plane has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections open now.
    pub open: usize,
    /// Connections ever.
    pub total: u64,
    /// Tunnels open now.
    pub tunnels: usize,
    /// Requests refused.
    pub refused: u64,
    /// Bytes from clients.
    pub up: u64,
    /// Bytes to clients.
    pub down: u64,
}

/// What all cores share.
pub(crate) struct Shared {
    policy: Arc<Policy>,
    journal: Journal,
    resolver: Resolver,
    /// Addresses that this proxy listens on.
    own: Vec<SocketAddr>,
    mail: Vec<Arc<Mailbox>>,
    counters: Vec<CoreCounters>,
    /// Counts for nobody; stands where an index could miss.
    stray: CoreCounters,
    pipe_bytes: Arc<AtomicUsize>,
    /// This proxy in a Via field: a name that no other run has.
    via: String,
    parents: tls::ParentConfigs,
}

/// The running data plane.
pub struct Driver {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    info: DriverInfo,
}

/// Starts the cores; returns when all of them serve.
///
/// # Errors
/// When a mailbox, a thread or the chosen driver cannot be had.
pub fn start(options: DriverOptions) -> Result<Driver, DriverError> {
    let wanted = options.threads.or_else(|| std::thread::available_parallelism().ok().map(usize::from));
    let cores = wanted.unwrap_or(1).max(1);
    let mut own = Vec::new();
    for listener in &options.listeners {
        listener.set_nonblocking(true).map_err(|error| DriverError::Start("listener", error))?;
        own.push(listener.local_addr().map_err(|error| DriverError::Start("listener", error))?);
    }
    let mail =
        (0..cores).map(|_| Mailbox::new(MAILBOX_LETTERS_MAX).map(Arc::new)).collect::<io::Result<Vec<_>>>();
    let shared = Arc::new(Shared {
        parents: tls::ParentConfigs::new(&options.policy).map_err(DriverError::Parent)?,
        policy: options.policy,
        journal: options.journal,
        resolver: options.resolver,
        own,
        mail: mail.map_err(|error| DriverError::Start("eventfd", error))?,
        counters: (0..cores).map(|_| CoreCounters::default()).collect(),
        stray: CoreCounters::default(),
        pipe_bytes: Arc::default(),
        via: via().map_err(|error| DriverError::Start("random bytes", error))?,
    });
    let (ready, readies) = mpsc::channel();
    let mut listeners = options.listeners;
    let mut threads = Vec::new();
    for index in 0..cores {
        // Core 0 takes them all; the others get an empty list.
        let listeners = std::mem::take(&mut listeners);
        let (shared, ready, choice) = (Arc::clone(&shared), ready.clone(), options.driver);
        let thread = std::thread::Builder::new()
            .name(format!("weir-core-{index}"))
            .spawn(move || core_thread(shared, index, choice, listeners, &ready))
            .map_err(|error| DriverError::Start("thread", error))?;
        threads.push(thread);
    }
    drop(ready);
    let mut lowest = None;
    for _ in 0..cores {
        match readies.recv() {
            Ok(Ok(rung)) => lowest = lowest.max(Some(rung)),
            Ok(Err(error)) => return Err(DriverError::Start("driver", error)),
            Err(_) => return Err(DriverError::Start("driver", io::ErrorKind::BrokenPipe.into())),
        }
    }
    let rung = lowest.unwrap_or(Rung::Epoll);
    let info = DriverInfo { name: rung.driver(), rung: rung.to_string(), threads: cores };
    Ok(Driver { shared, threads, info })
}

fn via() -> io::Result<String> {
    let mut random = [0_u8; 8];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
    Ok(format!("1.1 weir-{:016x}", u64::from_ne_bytes(random)))
}

impl Driver {
    /// Which driver runs.
    pub fn info(&self) -> &DriverInfo {
        &self.info
    }

    /// What it has done so far.
    pub fn counters(&self) -> Counters {
        self.shared.counters.iter().fold(Counters::default(), |sum, core| Counters {
            open: sum.open + core.open.load(Ordering::Relaxed),
            total: sum.total + core.total.load(Ordering::Relaxed),
            tunnels: sum.tunnels + core.tunnels.load(Ordering::Relaxed),
            refused: sum.refused + core.refused.load(Ordering::Relaxed),
            up: sum.up + core.up.load(Ordering::Relaxed),
            down: sum.down + core.down.load(Ordering::Relaxed),
        })
    }

    /// Takes no new work; what is in flight goes on, idle connections close. The caller holds the deadline and
    /// ends with `halt`. New requests are judged and journalled as before, and refused as `draining` at best.
    pub fn drain(&self) {
        self.post(|| Letter::Drain);
    }

    /// Whether nothing is in flight any more.
    pub fn is_drained(&self) -> bool {
        self.counters().open == 0
    }

    /// Cuts what is still in flight, closes the listeners and ends the cores. Every decision has its end in the
    /// journal when this returns. A second call does nothing.
    pub fn halt(&mut self) {
        self.post(|| Letter::Halt);
        for thread in self.threads.drain(..) {
            // A core that panicked has aborted the process.
            let _ = thread.join();
        }
    }

    fn post(&self, letter: impl Fn() -> Letter) {
        for mail in &self.shared.mail {
            let mut unsent = Some(letter());
            while let Some(letter) = unsent.take() {
                if let Err(back) = mail.post(letter) {
                    // The core is draining a full mailbox just now.
                    unsent = Some(back);
                    std::thread::yield_now();
                }
            }
        }
    }
}

fn core_thread(
    shared: Arc<Shared>,
    index: usize,
    choice: Choice,
    listeners: Vec<TcpListener>,
    ready: &mpsc::Sender<io::Result<Rung>>,
) {
    let run = std::panic::AssertUnwindSafe(|| {
        rt::run(choice, |rung| {
            let _ = ready.send(Ok(rung));
            core_main(shared, index, listeners)
        })
    });
    match std::panic::catch_unwind(run) {
        Ok(Ok(Ok(()))) => {}
        Ok(Ok(Err(error)) | Err(error)) => {
            let _ = ready.send(Err(error));
        }
        // A core that is gone would strand its connections in silence: better no process at all.
        Err(_) => std::process::abort(),
    }
}

/// Everything that a core does beside its connections. Returns when it was told to halt and all are gone.
async fn core_main(shared: Arc<Shared>, index: usize, listeners: Vec<TcpListener>) -> io::Result<()> {
    let Some(mail) = shared.mail.get(index).map(Arc::clone) else { return Ok(()) };
    let core = Core::new(shared, index, mail);
    let wake = Source::new(core.mail.as_fd().try_clone_to_owned()?)?;
    for listener in listeners {
        rt::spawn(accept(Rc::clone(&core), Source::new(listener.into())?, Timer::new()?));
    }
    let second = Timer::new()?;
    second.every(rt::alarm::TICK)?;
    rt::spawn(sweep(Rc::clone(&core), second));
    while !core.is_halted() {
        // The sweep reads the mail too, so the letter that ends the core may be gone when the wake comes.
        if let Either::Left(ready) = race(wake.readable(), core.halt_begun()).await {
            ready?;
        }
        read_mail(&core);
    }
    let rest = Timer::new()?;
    while core.counters().open.load(Ordering::Relaxed) > 0 {
        read_mail(&core);
        rest.after(Duration::from_millis(1)).await?;
    }
    Ok(())
}

fn read_mail(core: &Rc<Core>) {
    core.mail.begin_drain();
    while let Some(letter) = core.mail.take() {
        match letter {
            Letter::Connection { socket, peer } => take_on(core, socket, peer),
            Letter::Resolved { ticket, answer } => core.answer(ticket, Answer::Resolved(answer)),
            Letter::Journaled { ticket, written } => core.answer(ticket, Answer::Journaled(written)),
            Letter::Drain => core.drain(),
            Letter::Halt => core.halt(),
        }
    }
}

/// The one timer of a core: deadlines, idle upstreams, and mail once more.
async fn sweep(core: Rc<Core>, second: Timer) {
    while !core.is_halted() && second.expired().await.is_ok() {
        core.alarms.sweep();
        core.pool.sweep(core.alarms.tick());
        read_mail(&core);
    }
}

/// How long the listener rests when the process is out of descriptors.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Takes connections in batches and hands each to the core that has the fewest.
async fn accept(core: Rc<Core>, listener: Source, rest: Timer) {
    while !core.is_halted() {
        if listener.readable().await.is_err() {
            return;
        }
        for _ in 0..ACCEPT_BATCH_MAX {
            match acceptfrom_with(&listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok((socket, Some(peer))) => match SocketAddr::try_from(peer) {
                    Ok(peer) => hand_over(&core, socket, peer),
                    Err(_) => drop(socket),
                },
                Ok((socket, None)) => drop(socket),
                Err(rustix::io::Errno::AGAIN) => break,
                Err(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE | rustix::io::Errno::NOMEM) => {
                    let _ = rest.after(ACCEPT_REST).await;
                    break;
                }
                // The client went away between its handshake and here (accept(2), "Error handling").
                Err(_) => {}
            }
        }
    }
}

fn hand_over(core: &Rc<Core>, socket: OwnedFd, peer: SocketAddr) {
    let loads = core.shared.counters.iter().map(|core| core.open.load(Ordering::Relaxed)).enumerate();
    // The accepting core counts as one busier, since accepting is work too.
    let target = loads.min_by_key(|&(index, open)| open + usize::from(index == core.index));
    let target = target.map_or(core.index, |(index, _)| index);
    let Some((counters, mail)) = core.shared.counters.get(target).zip(core.shared.mail.get(target)) else {
        return;
    };
    counters.open.fetch_add(1, Ordering::Relaxed);
    if target == core.index {
        take_on(core, socket, peer);
    } else if let Err(Letter::Connection { socket, peer }) = mail.post(Letter::Connection { socket, peer }) {
        // That core is not keeping up; this one serves.
        counters.open.fetch_sub(1, Ordering::Relaxed);
        core.counters().open.fetch_add(1, Ordering::Relaxed);
        take_on(core, socket, peer);
    }
}

/// Serves a connection that is already counted as open.
fn take_on(core: &Rc<Core>, socket: OwnedFd, peer: SocketAddr) {
    core.serve(connection::run(Rc::clone(core), socket, peer));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::record::{CodeSet, RunHeader};
    use crate::policy::{Config, Environment, Preset};

    /// A running driver without a listener, and a file that its journal goes to.
    fn running(choice: Choice) -> Driver {
        let policy = Policy::new(Config::preset(Preset::Ci), &Environment::default()).unwrap();
        let header = RunHeader {
            run: "test".into(),
            job: None,
            at_us: 1,
            policy: policy.digest().into(),
            build: "test".into(),
            mode: "enforce".into(),
            gate: CodeSet::default(),
        };
        let options = DriverOptions {
            listeners: Vec::new(),
            driver: choice,
            threads: Some(2),
            policy: Arc::new(policy),
            journal: Journal::start(tempfile::tempfile().unwrap(), &header).unwrap(),
            resolver: Resolver::start().unwrap(),
        };
        start(options).unwrap()
    }

    /// A core once waited for ever on its eventfd when the sweep had read the letter that ends it.
    fn a_halt_that_the_sweep_reads_ends_the_core(choice: Choice) {
        let mut driver = running(choice);
        for mail in &driver.shared.mail {
            mail.post_unheard(Letter::Halt);
        }
        for thread in driver.threads.drain(..) {
            thread.join().unwrap();
        }
    }

    #[test]
    fn a_lost_wake_costs_a_second_at_most_on_epoll() {
        if cfg!(feature = "epoll") {
            a_halt_that_the_sweep_reads_ends_the_core(Choice::Epoll);
        }
    }

    #[test]
    fn a_lost_wake_costs_a_second_at_most_on_uring() {
        match probe() {
            Ok(_) => a_halt_that_the_sweep_reads_ends_the_core(Choice::Uring),
            Err(why) => eprintln!("skipped: no ring here: {why}"),
        }
    }
}
