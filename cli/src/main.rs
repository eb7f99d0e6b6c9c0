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

#[cfg(test)]
mod tests {
    use engine::control::fault::{Fault, Kind};

    use super::*;
    use crate::args::sample;

    fn fault(words: &[&str]) -> Fault {
        match dispatch(&mut sample(&TOP, words)) {
            Err(Halt::Fault(fault)) => fault,
            other => panic!("{words:?}: {other:?}"),
        }
    }

    #[test]
    fn every_mistake_is_a_usage_fault_with_a_way_out() {
        for (words, says, hints) in [
            (&[][..], "no command", "--help"),
            (&["strat"], "unknown command \"strat\"", "start"),
            (&["frobnicate"], "unknown command", "--help"),
            (&["doctor"], "not supported yet", "--help"),
            (&["db", "build"], "not supported yet", "--help"),
            (&["--verson"], "unknown option \"--verson\"", "--version"),
            (&["start", "--linger", "10m"], "--linger is not supported yet", "--help"),
            (&["start", "--prot", "1"], "unknown option", "--port"),
            (&["start", "--port"], "needs a value", "--help"),
            (&["start", "--port", "70000"], "\"70000\" is not", "65535"),
            (&["start", "--driver", "kqueue"], "\"kqueue\" is not", "auto"),
            (&["start", "--threads", "0"], "\"0\" is not", "1"),
            (&["start", "--host", "a b"], "\"a b\" is not", "127.0.0.1"),
            (&["start", "extra"], "unexpected argument", "--help"),
            (&["start", "-D", "--die-with-parent"], "--die-with-parent", "foreground"),
            (&["env", "--java"], "not supported yet", "--help"),
            (&["env", "--shell", "csh"], "\"csh\" is not", "sh"),
            (&["env", "--no-proxy", "a\nb"], "line break", "one line"),
            (&["env", "--no-proxy", "*.corp.test"], "*.corp.test", "corp.test"),
            (&["status", "--wait", "soon"], "\"soon\" is not", "10s"),
            (&["stop", "--fail-on-unverified"], "not supported yet", "--help"),
            (&["stop", "--run-id", "7"], "\"7\" is not", "32"),
            (&["run"], "no command to run", "--"),
            (&["run", "--isolate", "--", "true"], "not supported yet", "--help"),
            (&["explain"], "no URL", "weir explain"),
            (&["policy"], "check", "weir policy"),
            (&["policy", "suggest"], "not supported yet", "--help"),
            (&["policy", "show", "lenient"], "\"lenient\" is not", "ci"),
            (&["--color", "red", "status"], "\"red\" is not", "auto"),
        ] {
            let fault = fault(words);
            assert_eq!(fault.kind, Kind::Usage, "{words:?}");
            assert!(fault.error.contains(says), "{words:?}: {}", fault.error);
            let way_out = format!("{} {}", fault.error, fault.hint.clone().unwrap_or_default());
            assert!(way_out.contains(hints), "{words:?}: {way_out}");
        }
    }
}
