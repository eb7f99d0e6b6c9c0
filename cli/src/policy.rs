//! `weir policy`: check a file, show a preset.

use std::path::PathBuf;

use engine::control::load::{LoadError, Overrides, load};
use engine::policy::Preset;

use crate::args::{About, Args, Halt, Item, absolute, bad_value, not_yet, usage};
use crate::output::{Talk, exit, print};

const ABOUT: About = About {
    help: "\
usage: weir policy check FILE
       weir policy show [ci|agent|strict]

check reads a policy file as `start` would, says what is wrong with it and where (exit 4), and what it cannot
see. show prints a preset, `ci` without a name: a good beginning for a file of one's own.
",
    options: &["--help", "--color"],
    later: &[],
};

/// `weir policy`.
pub(crate) fn command(args: &mut Args) -> Result<u8, Halt> {
    let args = args.of(&ABOUT);
    let mut words = Vec::new();
    while let Some(item) = args.next()? {
        match item {
            Item::Operand(operand) => words.push(operand),
            Item::Option(name) => return Err(args.unknown(&name).into()),
        }
    }
    let mut words = words.into_iter();
    let verb = words.next().unwrap_or_default();
    let operand = words.next();
    if let Some(extra) = words.next() {
        return Err(args.unexpected(&extra).into());
    }
    match (verb.to_str().unwrap_or_default(), operand) {
        ("check", Some(file)) => check(Talk::new(args.color), PathBuf::from(file)),
        ("show", name) => show(name.as_ref().map_or("ci", |name| name.to_str().unwrap_or_default())),
        ("import" | "suggest", _) => Err(not_yet(&format!("weir policy {}", verb.display())).into()),
        _ => Err(usage("`check FILE` or `show [PRESET]` is missing")
            .hint("weir policy check weir.toml; weir policy show ci")
            .into()),
    }
}

fn check(talk: Talk, file: PathBuf) -> Result<u8, Halt> {
    let file = absolute(file, "FILE")?;
    let loaded =
        load(Some(&file), &Overrides::default(), &crate::args::variable).map_err(LoadError::into_fault)?;
    for line in loaded.notices.iter().chain(&loaded.policy.blind_spots()) {
        talk.warning(line);
    }
    print(&format!("{}: ok ({})\n", file.display(), loaded.policy.digest()))?;
    Ok(exit::OK)
}

fn show(name: &str) -> Result<u8, Halt> {
    let Some(preset) = Preset::parse(name) else {
        return Err(bad_value("policy show", name, "a preset: ci, agent or strict").into());
    };
    print(preset.text())?;
    Ok(exit::OK)
}
