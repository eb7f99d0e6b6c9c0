//! The command line of weir. Thin: it parses arguments and calls the engine.
fn main() {}
