//! Who is measured: our relay as the limit, squid, and weir with each driver.
//!
//! Every cell gets a fresh process on a fresh port, so that neither memory nor sockets in TIME_WAIT of one cell
//! weigh on the next.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::child::{Process, find_program, last_words};
use crate::proc::pause;

/// A peer must accept connections within this.
const READY_MAX: Duration = Duration::from_secs(10);
/// The limit that ratios are taken to.
pub(crate) const BASE: &str = "relay-256k";

/// Something that stands between generator and origin.
#[derive(Clone, PartialEq)]
pub(crate) enum Peer {
    Relay { name: &'static str, pipe_bytes: usize },
    Squid { program: PathBuf },
    Weir { driver: &'static str, program: PathBuf },
}

/// A peer at work. It ends with this value.
pub(crate) struct Running {
    process: Process,
    _scratch: Option<TempDir>,
    pub(crate) address: SocketAddrV4,
}

/// Our relays, by the size of their pipes.
pub(crate) const RELAYS: [Peer; 3] = [
    Peer::Relay { name: "relay-64k", pipe_bytes: 64 * 1024 },
    Peer::Relay { name: BASE, pipe_bytes: 256 * 1024 },
    Peer::Relay { name: "relay-1m", pipe_bytes: 1024 * 1024 },
];

/// The peers that a list of names stands for. `relay` and `weir` are all of their kind; `weir` is asked for the
/// program only where one is named. A squid that is not installed is left out, loudly.
pub(crate) fn choose(names: &str, weir: impl Fn() -> io::Result<PathBuf>) -> io::Result<Vec<Peer>> {
    let mut chosen = Vec::new();
    for name in names.split(',') {
        let before = chosen.len();
        chosen.extend(RELAYS.into_iter().filter(|relay| name == "relay" || relay.name() == name));
        if name == "squid" {
            match find_program("squid") {
                Some(program) => chosen.push(Peer::Squid { program }),
                None => eprintln!(
                    "SKIPPED: squid is not installed (apt-get install squid); the figures will lack it"
                ),
            }
            continue;
        }
        for (full, driver) in [("weir-uring", "uring"), ("weir-epoll", "epoll")] {
            if name == "weir" || name == full {
                chosen.push(Peer::Weir { driver, program: weir()? });
            }
        }
        if chosen.len() == before {
            let known = "relay, relay-64k, relay-256k, relay-1m, squid, weir, weir-uring, weir-epoll";
            return Err(io::Error::other(format!("unknown peer {name:?}; known are {known}")));
        }
    }
    Ok(chosen)
}

/// Builds weir as it is released and returns the program.
pub(crate) fn build_weir(root: &Path) -> io::Result<PathBuf> {
    eprintln!("building weir (release); --weir PATH takes one that is built");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--release", "-p", "cli", "--message-format=json"]).current_dir(root);
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    let messages = String::from_utf8_lossy(&output.stdout);
    let built = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let program =
        built.filter_map(|message| Some(PathBuf::from(message.get("executable")?.as_str()?))).next_back();
    program.filter(|_| output.status.success()).ok_or_else(|| io::Error::other("weir could not be built"))
}

impl Peer {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Relay { name, .. } => name,
            Self::Squid { .. } => "squid",
            Self::Weir { driver: "uring", .. } => "weir-uring",
            Self::Weir { .. } => "weir-epoll",
        }
    }

    pub(crate) fn is_relay(&self) -> bool {
        matches!(self, Self::Relay { .. })
    }

    /// Starts it; it accepts connections when this returns.
    pub(crate) fn start(&self, origin: u16) -> io::Result<Running> {
        match self {
            Self::Relay { pipe_bytes, .. } => {
                let (process, port) =
                    Process::part(&["relay", &origin.to_string(), &pipe_bytes.to_string()])?;
                Ok(Running { process, _scratch: None, address: SocketAddrV4::new(Ipv4Addr::LOCALHOST, port) })
            }
            Self::Squid { program } => start_squid(program),
            Self::Weir { driver, program } => start_weir(program, driver),
        }
    }
}

impl Running {
    /// Root of its process tree.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid
    }
}

fn start_squid(program: &Path) -> io::Result<Running> {
    let scratch = TempDir::new()?;
    // Started by root, squid reads on as its own user.
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755))?;
    // It cannot choose a port itself. Between our close and its bind another process could take it: an error then.
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
    let config = scratch.path().join("squid.conf");
    let text = format!(
        "http_port 127.0.0.1:{port}\nhttp_access allow all\ncache deny all\naccess_log none\ncache_log /dev/null\n\
         cache_store_log none\npid_filename none\npinger_enable off\nvia off\nforwarded_for delete\n\
         dns_nameservers 127.0.0.1\nmax_filedescriptors 20000\ncache_mem 8 MB\nmemory_cache_mode disk\nhalf_closed_clients off\nshutdown_lifetime 0 seconds\ncoredump_dir {}\n",
        scratch.path().display(),
    );
    fs::write(&config, text)?;
    let arguments = ["-N".into(), "-f".into(), config.into_os_string()];
    let mut process = Process::foreign(program, &arguments, scratch.path())?;
    let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
    wait_ready(&mut process, scratch.path(), || Some(address))?;
    Ok(Running { process, _scratch: Some(scratch), address })
}

/// What weir is measured with: everything is a tunnel, loopback may be reached, and no parent is looked for.
const POLICY: &str = "version = 1\nmode = \"enforce\"\ndefault = \"splice\"\n\n[guard]\nreach = \"local\"\n\n\
                      [upstream]\ndefault = \"direct\"\n";

fn start_weir(program: &Path, driver: &str) -> io::Result<Running> {
    let scratch = TempDir::new()?;
    let (state, policy) = (scratch.path().join("state"), scratch.path().join("policy.toml"));
    fs::write(&policy, POLICY)?;
    let flags: [OsString; 9] = [
        "start".into(),
        "--state".into(),
        state.clone().into_os_string(),
        "--port".into(),
        "0".into(),
        "--config".into(),
        policy.into_os_string(),
        "--driver".into(),
        driver.into(),
    ];
    let mut process = Process::foreign(program, &flags, scratch.path())?;
    let address = wait_ready(&mut process, scratch.path(), || stated_address(&state.join("state.json")))?;
    Ok(Running { process, _scratch: Some(scratch), address })
}

/// The address in a daemon's state file, once it is there.
fn stated_address(file: &Path) -> Option<SocketAddrV4> {
    let state: Value = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
    state.get("address")?.as_str()?.parse().ok()
}

/// Waits until the peer has an address and accepts there.
fn wait_ready(
    process: &mut Process,
    scratch: &Path,
    address: impl Fn() -> Option<SocketAddrV4>,
) -> io::Result<SocketAddrV4> {
    let since = Instant::now();
    while since.elapsed() < READY_MAX && !process.has_ended() {
        if let Some(address) = address()
            && TcpStream::connect(address).is_ok()
        {
            return Ok(address);
        }
        pause(Duration::from_millis(10));
    }
    Err(io::Error::other(format!("did not start: {}", last_words(scratch))))
}
