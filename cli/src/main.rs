//! The command line of weir. Thin: it parses arguments, calls the engine, and turns answers into text and exit
//! codes. One file a command.

mod args;
mod detach;
mod env;
mod explain;
mod output;
mod policy;
mod report;
mod run;
mod shell;
mod start;
mod status;
mod stop;
mod variables;
mod version;

use std::process::ExitCode;

use lexopt::Parser;

use args::{About, Args, Halt, Item, not_yet, unknown, usage};
use output::{Talk, exit, print};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const HELP: &str = "\
weir: an egress proxy for CI machines.

usage: weir COMMAND [options]

commands:
  start      start the proxy, in the foreground or detached (-D)
  env        print the lines that route every client through it
  status     say how it is
  stop       drain it and say what it has seen
  run        start it, run a command through it, stop it
  explain    say what the policy would do with a request
  policy     check a policy file, show a preset
  version    version, build id, drivers

A job:  weir start -D && eval \"$(weir env --export)\"; …builds…; weir stop --fail-on-violation

options:
  -h, --help            this text; `weir COMMAND --help` for a command's
  -V, --version         version and build id
      --color WHEN      colour in talk: auto, always or never (NO_COLOR, CLICOLOR_FORCE)

exit codes: 0 ok, 1 internal, 2 usage, 3 no daemon, 4 policy invalid, 5 already running,
            10 violations, 11 run not verifiable
";

const COMMANDS: &[&str] = &["start", "env", "status", "stop", "run", "explain", "policy", "version"];
/// Commands that the plan has and this version has not.
const LATER: &[&str] =
    &["check", "db", "ca", "report", "log", "top", "tunnel", "doctor", "completions", "man", "reload"];

const TOP: About = About { help: HELP, options: &["--help", "--version", "--color"], later: &[] };

fn main() -> ExitCode {
    output::exit_code(answer(Parser::from_env()))
}

/// Runs the command that the arguments name; answers the exit code.
fn answer(parser: Parser) -> u8 {
    let mut args = Args::new(parser, &TOP);
    match dispatch(&mut args) {
        Ok(code) => code,
        Err(Halt::Helped) => exit::OK,
        Err(Halt::Fault(fault)) => Talk::new(args.color).fault(&fault),
    }
}

fn dispatch(args: &mut Args) -> Result<u8, Halt> {
    let command = match args.next()? {
        None => return Err(usage("no command").hint("weir --help lists them").into()),
        Some(Item::Option(name)) if name == "--version" || name == "-V" => return version::short(),
        Some(Item::Option(name)) => return Err(args.unknown(&name).into()),
        Some(Item::Operand(command)) => command,
    };
    match command.to_str().unwrap_or_default() {
        "start" => start::command(args),
        "env" => env::command(args),
        "status" => status::command(args),
        "stop" => stop::command(args),
        "run" => run::command(args),
        "explain" => explain::command(args),
        "policy" => policy::command(args),
        "version" => version::command(args),
        "help" => Ok(print(HELP).map(|()| exit::OK)?),
        later if LATER.contains(&later) => Err(not_yet(&format!("weir {later}")).into()),
        other => Err(unknown("command", other, COMMANDS).into()),
    }
}
