//! `weir version` and `weir --version`.

use serde::Serialize;

use crate::args::{About, Args, Halt, Item};
use crate::output::{exit, print, print_json};

/// The program's version.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Hash of the sources that it was built from.
pub(crate) const BUILD_ID: &str = env!("WEIR_BUILD_ID");
/// Its features.
const FEATURES: &str = env!("WEIR_FEATURES");

const ABOUT: About = About {
    help: "\
usage: weir version [--json]

Prints version, build id (a hash of the sources and features) and the drivers that are built in.

options:
      --json     as JSON: version, build_id, features, drivers
",
    options: &["--json", "--help", "--color"],
    later: &[],
};

#[derive(Serialize)]
struct Version {
    schema: u32,
    version: &'static str,
    build_id: &'static str,
    features: Vec<&'static str>,
    drivers: Vec<&'static str>,
}

/// `weir --version`.
pub(crate) fn short() -> Result<u8, Halt> {
    print(&format!("weir {VERSION} ({BUILD_ID})\n"))?;
    Ok(exit::OK)
}

/// `weir version`.
pub(crate) fn command(args: &mut Args) -> Result<u8, Halt> {
    let args = args.of(&ABOUT);
    let mut json = false;
    while let Some(item) = args.next()? {
        match item {
            Item::Option(name) if name == "--json" => json = true,
            Item::Option(name) => return Err(args.unknown(&name).into()),
            Item::Operand(operand) => return Err(args.unexpected(&operand).into()),
        }
    }
    if !json {
        return short();
    }
    let features: Vec<&str> = FEATURES.split(',').filter(|name| !name.is_empty()).collect();
    // The words of `status`, in the order of preference.
    let drivers = [("uring", "io_uring"), ("epoll", "epoll")]
        .into_iter()
        .filter(|(feature, _)| features.contains(feature))
        .map(|(_, driver)| driver)
        .collect();
    print_json(&Version { schema: 1, version: VERSION, build_id: BUILD_ID, features, drivers })?;
    Ok(exit::OK)
}
