//! Arguments: the small parsers that commands share. Which command it is says `main`.
//!
//! Every mistake is exit 2 and names the way out. What a later version will know is said to be "not supported
//! yet", never ignored and never called unknown.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use engine::control::fault::{Fault, Kind};
use engine::control::place::state_place;
use lexopt::{Arg, Parser};

use crate::output::{Color, print};

/// Why a command ends before it has done anything.
#[derive(Debug)]
pub(crate) enum Halt {
    /// A mistake.
    Fault(Fault),
    /// It was asked for its help, and has given it.
    Helped,
}

impl From<Fault> for Halt {
    fn from(fault: Fault) -> Self {
        Halt::Fault(fault)
    }
}

/// One argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Item {
    /// An option, with its dashes.
    Option(String),
    /// Anything else.
    Operand(OsString),
}

/// The arguments of a command.
#[derive(Debug)]
pub(crate) struct Args {
    parser: Parser,
    /// `--color`, wherever it stood.
    pub(crate) color: Color,
    about: &'static About,
}

/// What a command knows.
#[derive(Debug)]
pub(crate) struct About {
    /// Its help.
    pub(crate) help: &'static str,
    /// Its options, with their dashes.
    pub(crate) options: &'static [&'static str],
    /// Its options of a later version.
    pub(crate) later: &'static [&'static str],
}

impl Args {
    /// The arguments, as the program's own until a command says otherwise.
    pub(crate) fn new(parser: Parser, about: &'static About) -> Self {
        Self { parser, color: Color::Auto, about }
    }

    /// Says which command's arguments these are.
    pub(crate) fn of(&mut self, about: &'static About) -> &mut Self {
        self.about = about;
        self
    }

    /// The next argument; `--help` and `--color` are seen to here.
    pub(crate) fn next(&mut self) -> Result<Option<Item>, Halt> {
        loop {
            let item = match self.parser.next().map_err(|error| misused(&error))? {
                None => return Ok(None),
                Some(Arg::Short(letter)) => Item::Option(format!("-{letter}")),
                Some(Arg::Long(name)) => Item::Option(format!("--{name}")),
                Some(Arg::Value(value)) => Item::Operand(value),
            };
            match &item {
                Item::Option(name) if name == "--help" || name == "-h" => {
                    print(self.about.help)?;
                    return Err(Halt::Helped);
                }
                Item::Option(name) if name == "--color" => {
                    self.color = match self.text("--color")?.as_str() {
                        "auto" => Color::Auto,
                        "always" => Color::Always,
                        "never" => Color::Never,
                        other => return Err(bad_value("--color", other, "auto, always or never").into()),
                    };
                }
                _ => return Ok(Some(item)),
            }
        }
    }

    /// Everything that is left, options or not.
    pub(crate) fn rest(&mut self) -> Result<Vec<OsString>, Halt> {
        Ok(self.parser.raw_args().map_err(|error| misused(&error))?.collect())
    }

    /// The value of the option that came last.
    pub(crate) fn value(&mut self, option: &str) -> Result<OsString, Halt> {
        self.parser
            .value()
            .map_err(|_| usage(format!("{option} needs a value")).hint("--help shows which").into())
    }

    /// Its value as text on one line.
    pub(crate) fn text(&mut self, option: &str) -> Result<String, Halt> {
        let value = self.value(option)?;
        match value.into_string() {
            Ok(text) if text.contains(['\n', '\r', '\0']) => {
                Err(usage(format!("the value of {option} has a line break in it"))
                    .hint("give it on one line")
                    .into())
            }
            Ok(text) => Ok(text),
            Err(value) => Err(usage(format!("the value of {option} is no UTF-8: {value:?}")).into()),
        }
    }

    /// Its value as an absolute path.
    pub(crate) fn path(&mut self, option: &str) -> Result<PathBuf, Halt> {
        Ok(absolute(self.value(option)?.into(), option)?)
    }

    /// Its value as a number of milliseconds, seconds, minutes or hours: `500ms`, `10s`, `2m`, `1h`; a plain number
    /// is seconds.
    pub(crate) fn duration(&mut self, option: &str) -> Result<Duration, Halt> {
        let text = self.text(option)?;
        duration(&text).ok_or_else(|| bad_value(option, &text, "a time such as 500ms, 10s or 2m").into())
    }

    /// The fault for an option that the command does not know.
    pub(crate) fn unknown(&self, name: &str) -> Fault {
        if self.about.later.contains(&name) {
            return not_yet(name);
        }
        unknown("option", name, self.about.options)
    }

    /// The fault for an operand too many.
    pub(crate) fn unexpected(&self, operand: &OsString) -> Fault {
        usage(format!("unexpected argument {operand:?}")).hint("--help shows what the command takes")
    }
}

/// A variable of the environment, where it is there and text.
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Where the state stands, by `--state` or the environment.
pub(crate) fn state_dir(flag: Option<PathBuf>) -> Result<PathBuf, Fault> {
    let uid = rustix::process::geteuid().as_raw();
    absolute(state_place(flag.as_deref(), |name| std::env::var_os(name), uid), "--state")
}

/// A path as the daemon can use it, whose directory may be another.
pub(crate) fn absolute(path: PathBuf, option: &str) -> Result<PathBuf, Fault> {
    std::path::absolute(&path).map_err(|error| {
        usage(format!("{option}: {path:?} is no path"))
            .because(error)
            .hint("give the path of a file or directory")
    })
}

/// A mistake on the command line.
pub(crate) fn usage(error: impl Into<String>) -> Fault {
    Fault::new(Kind::Usage, error)
}

/// A value that is none.
pub(crate) fn bad_value(option: &str, value: &str, wanted: &str) -> Fault {
    usage(format!("{option}: {value:?} is not {wanted}"))
}

/// Something that a later version will know.
pub(crate) fn not_yet(what: &str) -> Fault {
    usage(format!("{what} is not supported yet")).hint("weir --help lists what this version can do")
}

fn misused(error: &lexopt::Error) -> Fault {
    usage(error.to_string()).hint("--help shows what the command takes")
}

pub(crate) fn unknown(kind: &str, name: &str, known: &[&str]) -> Fault {
    let fault = usage(format!("unknown {kind} {name:?}"));
    match known.iter().map(|known| (distance(name, known), known)).min() {
        Some((distance, nearest)) if distance <= 2 => fault.hint(format!("did you mean {nearest}?")),
        _ => fault.hint("--help lists those that there are"),
    }
}

/// How many letters must be changed, added or dropped to make one of the other (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut next = vec![i + 1];
        for (j, to) in b.chars().enumerate() {
            let at = |row: &[usize], j: usize| row.get(j).copied().unwrap_or(usize::MAX - 1);
            let kept = at(&row, j) + usize::from(from != to);
            next.push(kept.min(at(&row, j + 1) + 1).min(at(&next, j) + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

fn duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let milliseconds = match unit {
        "ms" => number,
        "" | "s" => number.checked_mul(1_000)?,
        "m" => number.checked_mul(60_000)?,
        "h" => number.checked_mul(3_600_000)?,
        _ => return None,
    };
    Some(Duration::from_millis(milliseconds))
}

/// The arguments of a test.
#[cfg(test)]
pub(crate) fn sample(about: &'static About, words: &[&str]) -> Args {
    Args { parser: Parser::from_args(words), color: Color::Auto, about }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        for (text, milliseconds) in
            [("10s", 10_000), ("500ms", 500), ("2m", 120_000), ("1h", 3_600_000), ("7", 7_000), ("0", 0)]
        {
            assert_eq!(duration(text), Some(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "s", "-1s", "1.5s", "1d", "10 s", "99999999999999999999s", "18446744073709551615h"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn distance_counts_letters() {
        for (a, b, letters) in
            [("", "", 0), ("a", "", 1), ("start", "strat", 2), ("env", "evn", 2), ("stop", "top", 1)]
        {
            assert_eq!(distance(a, b), letters);
        }
    }
}
