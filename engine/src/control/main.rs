//! The daemon from its first system call to its last: the order of start, and what it starts.
//!
//! Order: lock (one daemon a state), policy (a bad one leaves nothing behind), listener, run folder, journal,
//! cores, control socket, state, ready. The state is written when all of it works, so whoever reads it finds a
//! daemon that answers. A start that fails takes its run folder away again.
//!
//! Not here: the loop after that (`serve`).

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::fault::{Fault, Kind};
use super::folder::Folder;
use super::journal::Journal;
use super::load::{self, Loaded, Overrides};
use super::log;
use super::poll::ask_until;
use super::process;
use super::protocol::Status;
use super::resolve::Resolver;
use super::runs::Runs;
pub use super::serve::End;
use super::serve::{Daemon, Run};
use super::signals::Signals;
use super::socket::ControlSocket;
use super::standing::{Standing, standing};
use super::state::{self, CONTROL_SOCKET, JOURNAL_FILE, Lock, PolicyName, State, StateDir};
use crate::audit::record::RunHeader;
use crate::driver::{self, Choice, Driver, DriverOptions};
use crate::error::Code;
use crate::policy::{Mode, Policy};

/// A start waits this long for a lock that is held although no daemon answers: another start is on its way, or the
/// last daemon is about to end.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// What `weir start` was told.
#[derive(Debug)]
pub struct Options {
    /// The state directory, absolute.
    pub state: PathBuf,
    /// The policy file; the preset `ci` when absent.
    pub config: Option<PathBuf>,
    /// Overrides the policy's mode.
    pub mode: Option<Mode>,
    /// Overrides the host of the policy's `listen.http`.
    pub host: Option<IpAddr>,
    /// Overrides its port; 0 takes a free one.
    pub port: Option<u16>,
    /// How bytes are moved.
    pub driver: Choice,
    /// Cores; as many as there are when absent.
    pub threads: Option<usize>,
    /// End when the parent ends.
    pub die_with_parent: bool,
    /// The CI job.
    pub job: Option<String>,
    /// Looks a variable of the environment up: proxies, and what the policy refers to.
    pub variable: fn(&str) -> Option<String>,
    /// Version of the program.
    pub version: &'static str,
    /// Hash of the sources that it was built from.
    pub build_id: &'static str,
}

/// Runs a daemon until it is stopped. `ready` is called once, with the run's folder, when everything works;
/// when it fails the start has failed.
///
/// # Errors
/// Why it could not start; nothing is left behind then.
pub fn run(options: &Options, ready: impl FnOnce(&Status, &Path) -> Result<(), Fault>) -> Result<End, Fault> {
    let started = Instant::now();
    process::harden();
    let signals = Signals::take_over().map_err(|error| internal("cannot take over signals", &error))?;
    let parent = if options.die_with_parent { parent()? } else { None };
    let dir = StateDir::create(&options.state)?;
    let lock = lock(&dir)?;
    refuse_planted(&dir)?;
    let early = bind_early(options)?;
    let loaded = load_policy(options)?;
    let listener = bind(options, &loaded.policy, early)?;
    let beginning = Beginning { options, dir: &dir, loaded: &loaded, started, signals, parent };
    let daemon = begin(beginning, listener, ready)?;
    let end = daemon.serve();
    drop(lock);
    Ok(end)
}

/// What a daemon is made of, besides its listener.
struct Beginning<'a> {
    options: &'a Options,
    dir: &'a StateDir,
    loaded: &'a Loaded,
    started: Instant,
    signals: Signals,
    parent: Option<OwnedFd>,
}

/// Begins a run, and takes its folder away again when that fails.
fn begin<'a>(
    beginning: Beginning<'a>,
    listener: TcpListener,
    ready: impl FnOnce(&Status, &Path) -> Result<(), Fault>,
) -> Result<Daemon<'a>, Fault> {
    let dir = beginning.dir;
    let cannot = |error: &dyn std::fmt::Display| {
        internal(&format!("cannot begin a run in {}", dir.folder().path().display()), error)
            .hint("the directory must be writable and its disk not full; --state names another one")
    };
    let runs = Runs::create(dir.folder()).map_err(|error| cannot(&error))?;
    let boot_id = process::boot_id().map_err(|error| internal("cannot read the boot id", &error))?;
    let unfinished =
        runs.unfinished(beginning.options.job.as_deref(), &boot_id).map_err(|error| cannot(&error))?;
    let abandoned = unfinished.iter().filter(|run| run.counts).map(|run| run.id.clone()).collect();
    let run_id = state::new_run_id().map_err(|error| internal("the kernel gives no random bytes", &error))?;
    let run = runs.begin(&run_id).map_err(|error| cannot(&error))?;
    let taken_away = |fault: Fault| {
        dir.folder().remove(CONTROL_SOCKET);
        runs.remove(&run_id);
        fault
    };
    let state = first_state(&beginning, &run_id, &run, boot_id, abandoned, &listener).map_err(taken_away)?;
    let daemon = assemble(beginning, state, run, listener).map_err(taken_away)?;
    if let Err(error) = daemon.run.publish() {
        daemon.run.give_up();
        return Err(taken_away(cannot(&error)));
    }
    if let Err(fault) = ready(&daemon.run.status(), daemon.run.folder.path()) {
        daemon.run.give_up();
        dir.folder().remove(state::STATE_FILE);
        return Err(taken_away(fault));
    }
    for run in &unfinished {
        if let Err(error) = run.mark() {
            log::line(&format!("run {} cannot be marked as abandoned: {error}", run.id));
        }
    }
    runs.remove_old(&run_id, log::now_us() / 1_000_000);
    Ok(daemon)
}

fn first_state(
    beginning: &Beginning<'_>,
    run_id: &str,
    run: &Folder,
    boot_id: String,
    abandoned: Vec<String>,
    listener: &TcpListener,
) -> Result<State, Fault> {
    let policy = &beginning.loaded.policy;
    let pid = std::process::id();
    Ok(State {
        schema: state::SCHEMA,
        run_id: run_id.to_owned(),
        pid,
        process_start: process::start_ticks(pid)
            .ok_or_else(|| internal("cannot read /proc/self/stat", &"no start time in it"))?,
        boot_id,
        started_s: log::now_us() / 1_000_000,
        address: listener.local_addr().map_err(|error| internal("the listener has no address", &error))?,
        control: beginning.dir.folder().path().join(CONTROL_SOCKET),
        journal: run.path().join(JOURNAL_FILE),
        job: beginning.options.job.clone(),
        mode: policy.mode().as_str().to_owned(),
        policy: PolicyName { source: policy.source().to_owned(), digest: policy.digest().to_owned() },
        abandoned,
        is_final: false,
        why: None,
        ended: None,
    })
}

/// Starts the journal, the resolver, the cores and the control socket.
fn assemble<'a>(
    beginning: Beginning<'a>,
    state: State,
    folder: Folder,
    listener: TcpListener,
) -> Result<Daemon<'a>, Fault> {
    let Beginning { options, dir, loaded, started, signals, parent } = beginning;
    let journal = begin_journal(options, &loaded.policy, &state, &folder)?;
    let resolver = Resolver::start().map_err(|error| internal("cannot start the resolver", &error))?;
    let mut driver = begin_driver(options, &loaded.policy, listener, &journal, &resolver)?;
    let control = match ControlSocket::bind(dir.folder(), CONTROL_SOCKET) {
        Ok(control) => control,
        Err(error) => {
            driver.halt();
            return Err(internal(&format!("cannot listen on {}", state.control.display()), &error));
        }
    };
    let run = Run {
        version: options.version,
        build_id: options.build_id,
        warnings: loaded.notices.iter().cloned().chain(loaded.policy.blind_spots()).collect(),
        dir,
        folder,
        state,
        started,
        driver,
        journal,
        resolver,
    };
    Ok(Daemon { signals, parent, control, run })
}

fn begin_journal(options: &Options, policy: &Policy, state: &State, run: &Folder) -> Result<Journal, Fault> {
    let cannot = |error: &dyn std::fmt::Display| {
        internal(&format!("cannot begin the journal {}", state.journal.display()), error)
            .hint("the directory must be writable and its disk not full; --state names another one")
    };
    let file = run.create_append(JOURNAL_FILE).map_err(|error| cannot(&error))?;
    let header = RunHeader {
        run: state.run_id.as_str().into(),
        job: state.job.as_deref().map(Into::into),
        at_us: log::now_us(),
        policy: state.policy.digest.as_str().into(),
        build: format!("weir {} ({})", options.version, options.build_id).into(),
        mode: state.mode.as_str().into(),
        gate: Code::ALL.iter().copied().filter(|&code| policy.counts(code)).collect(),
    };
    Journal::start(file, &header).map_err(|error| cannot(&error))
}

fn begin_driver(
    options: &Options,
    policy: &Arc<Policy>,
    listener: TcpListener,
    journal: &Journal,
    resolver: &Resolver,
) -> Result<Driver, Fault> {
    driver::start(DriverOptions {
        listeners: vec![listener],
        driver: options.driver,
        threads: options.threads,
        policy: Arc::clone(policy),
        journal: journal.clone(),
        resolver: resolver.clone(),
    })
    .map_err(|error| {
        internal("cannot start the driver", &error).hint("--driver epoll runs where io_uring is not allowed")
    })
}

/// Takes the lock of the state, or says who has it.
fn lock(dir: &StateDir) -> Result<Lock, Fault> {
    let place = dir.folder().path().display().to_string();
    let running = |what: String| {
        Fault::new(Kind::AlreadyRunning, what)
            .hint("`weir stop` ends it; --state or WEIR_STATE names another place for a second one")
    };
    let until = Instant::now() + LOCK_PATIENCE;
    let answer = ask_until(until, Duration::from_millis(5), || match dir.try_lock() {
        Ok(Some(lock)) => Some(Ok(lock)),
        Ok(None) => match dir.read() {
            Ok(state) if matches!(standing(dir, &state), Standing::Alive(_)) => Some(Err(running(format!(
                "weir already runs on {place} (pid {}, {}, run {})",
                state.pid, state.address, state.run_id
            )))),
            _ => None,
        },
        Err(fault) => Some(Err(fault)),
    });
    answer.unwrap_or_else(|| Err(running(format!("another weir holds the lock of {place}"))))
}

/// A link where the state should be was planted; replacing it would destroy the evidence.
fn refuse_planted(dir: &StateDir) -> Result<(), Fault> {
    for name in [state::STATE_FILE, CONTROL_SOCKET] {
        if dir.folder().is_link(name) {
            let path = dir.folder().path().join(name);
            return Err(Fault::new(Kind::Internal, format!("{} is a symbolic link", path.display()))
                .because("weir never writes one")
                .hint("find out who made it, and remove it"));
        }
    }
    Ok(())
}

fn parent() -> Result<Option<OwnedFd>, Fault> {
    match process::watch_parent() {
        Ok(Some(parent)) => Ok(Some(parent)),
        Ok(None) => Err(Fault::new(Kind::Internal, "the parent has ended already")
            .hint("leave out --die-with-parent to outlive it")),
        Err(error) => {
            log::line(&format!("the parent cannot be watched, so its end will not be seen: {error}"));
            Ok(None)
        }
    }
}

fn load_policy(options: &Options) -> Result<Loaded, Fault> {
    let overrides = Overrides { mode: options.mode, host: options.host };
    load::load(options.config.as_deref(), &overrides, &options.variable).map_err(load::LoadError::into_fault)
}

/// Binds before anything slow where the port is known without the policy: whoever fixed it dials at once.
fn bind_early(options: &Options) -> Result<Option<TcpListener>, Fault> {
    let host = options.host.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    match options.port {
        Some(port) if port != 0 && host.is_loopback() => listen(SocketAddr::new(host, port)).map(Some),
        _ => Ok(None),
    }
}

/// The listener: what the command line says, else what the policy says, else a free port of 127.0.0.1.
fn bind(options: &Options, policy: &Policy, early: Option<TcpListener>) -> Result<TcpListener, Fault> {
    let listen_key = &policy.config().listen;
    let host = options.host.unwrap_or(listen_key.http.ip());
    let address = SocketAddr::new(host, options.port.unwrap_or(listen_key.http.port()));
    if !host.is_loopback() && !listen_key.allow_remote {
        return Err(Fault::new(
            Kind::Config,
            format!("{host} is no loopback address, and the policy does not allow remote clients"),
        )
        .hint("set `allow_remote = true` in [listen] of the policy, or listen on 127.0.0.1"));
    }
    match early {
        Some(listener) if listener.local_addr().is_ok_and(|bound| bound == address) => Ok(listener),
        // The policy names another host: the early one was a guess.
        _ => listen(address),
    }
}

fn listen(address: SocketAddr) -> Result<TcpListener, Fault> {
    let listener = TcpListener::bind(address).and_then(|listener| {
        // std asks for a backlog of 128, which a burst of a build overflows; a second listen raises it.
        rustix::net::listen(&listener, 4096)?;
        Ok(listener)
    });
    listener.map_err(|error| {
        internal(&format!("cannot listen on {address}"), &error).hint(
            "--port 0 takes a free port; --port N, WEIR_PORT or listen.http in the policy name another one",
        )
    })
}

fn internal(what: &str, cause: &dyn std::fmt::Display) -> Fault {
    Fault::new(Kind::Internal, what).because(cause)
}
