//! The load harness: the whole daemon beside its peers, CPU and memory of each for the same work.
//!
//! `cargo bench -p benches --bench load -- [OPTIONS]`; `docs/benchmarks.md` says how to read what comes out. One
//! program in several processes: this file plans and starts, the others are parts of it under a first argument
//! of their own (`origin`, `relay`, `generate`, `warden`). Nothing here is run by the proxy itself.

mod bulk;
mod child;
mod churn;
mod idle;
mod lanes;
mod origin;
mod pattern;
mod peers;
mod plain;
mod proc;
mod relay;
mod report;
mod rounds;
mod slots;
mod smoke;
mod table;
mod workload;

use std::ffi::OsString;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::proc::Gauge;
use crate::report::{Facts, Sink};
use crate::rounds::Plan;
use crate::workload::{Aim, CELLS, Cell, Scale};

const HELP: &str = "\
cargo bench -p benches --bench load -- [OPTIONS]
  --quick               one round of relay-256k, squid and weir, in under two minutes
  --workloads W1,W2     of W1 (W1.1d, W1.8d, W1.8u), W2, W3, W6; all without it
  --peers relay,squid   of relay (relay-64k, relay-256k, relay-1m), squid, weir (weir-uring, weir-epoll); all
  --rounds N            interleaved rounds, 7 without it
  --weir PATH           a built weir; without it one is built
  --out FILE.jsonl      appends the results; without it benches/results/DATE.jsonl, with --quick stdout
  --test                only checks the harness itself, in about two seconds
cargo bench -p benches --bench load -- table [--write PAGE.md] FILE.jsonl
  prints the table of the file's last run, or puts it between the markers of a page
Relative paths count from the root of the repository.";

/// Threads of the relay: as many as the reference machine has cores.
const RELAY_THREADS: usize = 2;
/// A generator that takes longer has lost its proxy.
const GENERATE_MAX: Duration = Duration::from_secs(180);

fn main() -> ExitCode {
    let arguments: Vec<OsString> =
        std::env::args_os().skip(1).filter(|argument| argument != "--bench").collect();
    // `cargo test` runs a bench without `--bench` and without any option.
    let is_test = arguments.iter().any(|argument| argument == "--test")
        || (arguments.is_empty() && !std::env::args_os().any(|argument| argument == "--bench"));
    let words: Vec<&str> = arguments.iter().filter_map(|argument| argument.to_str()).collect();
    let done = match words.as_slice() {
        _ if is_test => raise_descriptors().and_then(|()| smoke::run()),
        ["origin"] => child::die_with_parent().and_then(|()| origin::run(|port| child::say(port.into()))),
        ["relay", rest @ ..] => child::die_with_parent().and_then(|()| relay_part(rest)),
        ["generate", rest @ ..] => child::die_with_parent().and_then(|()| generate_part(rest)),
        ["warden", scratch, program, ..] => {
            let rest = arguments.get(3..).unwrap_or_default();
            child::warden(Path::new(scratch), Path::new(program), rest)
        }
        ["table", rest @ ..] => print_table(rest),
        _ => raise_descriptors().and_then(|()| measure(arguments)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What the command line asks for.
struct Options {
    quick: bool,
    cells: Vec<Cell>,
    peers: Option<String>,
    rounds: Option<usize>,
    weir: Option<PathBuf>,
    out: Option<PathBuf>,
}

fn measure(arguments: Vec<OsString>) -> io::Result<()> {
    let Some(options) = parse(arguments).map_err(|error| io::Error::other(format!("{error}\n\n{HELP}")))?
    else {
        println!("{HELP}");
        return Ok(());
    };
    let weir = || options.weir.clone().map_or_else(|| peers::build_weir(&root()), Ok);
    let everyone = if options.quick { "relay-256k,squid,weir" } else { "relay,squid,weir" };
    let plan = Plan {
        cells: options.cells,
        peers: peers::choose(options.peers.as_deref().unwrap_or(everyone), weir)?,
        rounds: options.rounds.unwrap_or(if options.quick { 1 } else { 7 }),
        scale: Scale::named(if options.quick { "quick" } else { "full" }).unwrap_or(workload::SCALES[0]),
    };
    let facts = Facts::gather(&root());
    let day = facts.date().split('T').next().unwrap_or_default();
    let kept = (!options.quick).then(|| root().join("benches/results").join(format!("{day}.jsonl")));
    let mut sink = Sink::open(options.out.or(kept).as_deref())?;
    let failed = rounds::run(&plan, &facts, &mut sink)?;
    eprintln!("\n{}", table::markdown(&sink.records));
    if failed > 0 {
        Err(io::Error::other(format!("{failed} cells failed; their lines say why")))
    } else {
        Ok(())
    }
}

/// None when help is asked for.
fn parse(arguments: Vec<OsString>) -> Result<Option<Options>, lexopt::Error> {
    use lexopt::prelude::*;
    let mut options =
        Options { quick: false, cells: CELLS.to_vec(), peers: None, rounds: None, weir: None, out: None };
    let mut parser = lexopt::Parser::from_args(arguments);
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(None),
            Long("quick") => options.quick = true,
            Long("workloads") => options.cells = cells(&parser.value()?.string()?)?,
            Long("peers") => options.peers = Some(parser.value()?.string()?),
            Long("rounds") => options.rounds = Some(parser.value()?.parse()?),
            Long("weir") => options.weir = Some(from_root(parser.value()?)),
            Long("out") => options.out = Some(from_root(parser.value()?)),
            other => return Err(other.unexpected()),
        }
    }
    Ok(Some(options))
}

/// The cells of a list of workloads; `W1` is all that begin so.
fn cells(names: &str) -> Result<Vec<Cell>, lexopt::Error> {
    let mut chosen = Vec::new();
    for name in names.split(',') {
        let before = chosen.len();
        let is_meant = |cell: &Cell| cell.name() == name || cell.name().split('.').next() == Some(name);
        chosen.extend(CELLS.into_iter().filter(is_meant));
        if chosen.len() == before {
            return Err(format!("unknown workload {name:?}").into());
        }
    }
    Ok(chosen)
}

fn print_table(arguments: &[&str]) -> io::Result<()> {
    let (page, file) = match arguments {
        ["--write", page, file] | [file, "--write", page] => (Some(page), file),
        [file] => (None, file),
        _ => return Err(io::Error::other(HELP)),
    };
    let text = std::fs::read_to_string(from_root(file.into()))
        .map_err(|error| io::Error::other(format!("{file}: {error}")))?;
    let table = table::markdown(&table::last_run(&text)?);
    match page {
        Some(page) => table::insert(&from_root(page.into()), &table),
        None => {
            println!("{table}");
            Ok(())
        }
    }
}

/// `relay ORIGIN_PORT PIPE_BYTES`.
fn relay_part(arguments: &[&str]) -> io::Result<()> {
    let [port, pipe_bytes] = arguments else { return Err(io::Error::other("relay ORIGIN_PORT PIPE_BYTES")) };
    let target = SocketAddrV4::new(Ipv4Addr::LOCALHOST, number(port)?);
    relay::run(target, number(pipe_bytes)?, RELAY_THREADS, |port| child::say(port.into()))
}

/// `generate CELL SCALE PROXY ORIGIN relay|proxy PROXY_PID ORIGIN_PID`: prints the result.
fn generate_part(arguments: &[&str]) -> io::Result<()> {
    let [cell, scale, proxy, origin, kind, proxy_pid, origin_pid] = arguments else {
        return Err(io::Error::other("generate CELL SCALE PROXY ORIGIN relay|proxy PROXY_PID ORIGIN_PID"));
    };
    let unknown = |what: &str| io::Error::other(format!("unknown {what}"));
    let cell = Cell::named(cell).ok_or_else(|| unknown("cell"))?;
    let scale = Scale::named(scale).ok_or_else(|| unknown("scale"))?;
    let aim = Aim { proxy: number(proxy)?, origin: number(origin)?, is_relay: *kind == "relay" };
    let gauge = Gauge { proxy: number(proxy_pid)?, origin: number(origin_pid)? };
    let (alive, watched) = std::sync::mpsc::channel::<()>();
    std::thread::spawn(move || {
        if watched.recv_timeout(GENERATE_MAX) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            eprintln!("no result after {} s", GENERATE_MAX.as_secs());
            std::process::exit(1);
        }
    });
    println!("{}", workload::run(cell, &scale, aim, gauge)?);
    drop(alive);
    Ok(())
}

fn number<T: std::str::FromStr>(text: &str) -> io::Result<T> {
    text.parse().map_err(|_| io::Error::other(format!("not as expected: {text:?}")))
}

/// 2,000 tunnels are 4,000 sockets in a proxy; what we start inherits the limit.
fn raise_descriptors() -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    if limit.maximum.is_some_and(|maximum| maximum < 8192) {
        eprintln!("warning: at most {:?} descriptors (ulimit -Hn); W3 needs 8,192", limit.maximum);
    }
    Ok(())
}

/// The root of the repository, above this package.
fn root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package).to_owned()
}

fn from_root(path: OsString) -> PathBuf {
    root().join(path)
}
