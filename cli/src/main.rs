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

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    output::exit_code(args::run(lexopt::Parser::from_env()))
}
