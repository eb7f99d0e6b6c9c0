//! stdout is data, stderr is talk.
//!
//! Errors read `error: …`, `caused by: …`, `hint: …`. Colour is for stderr only, where a person looks at it.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use engine::control::fault::{Fault, Kind};

/// Exit codes: the contract of `docs` and of every script.
pub(crate) mod exit {
    /// All is well; a plain `stop` with violations, too.
    pub(crate) const OK: u8 = 0;
    /// A fault of weir or of its machine.
    pub(crate) const INTERNAL: u8 = 1;
    /// The command line makes no sense.
    pub(crate) const USAGE: u8 = 2;
    /// No daemon, or it cannot be reached.
    pub(crate) const NO_DAEMON: u8 = 3;
    /// The policy is invalid.
    pub(crate) const CONFIG: u8 = 4;
    /// A daemon already runs.
    pub(crate) const ALREADY_RUNNING: u8 = 5;
    /// Violations, where they were asked for.
    pub(crate) const VIOLATIONS: u8 = 10;
    /// The run cannot be verified; wins over violations.
    pub(crate) const UNVERIFIABLE: u8 = 11;
}

/// The exit code of a fault.
pub(crate) fn code_of(kind: Kind) -> u8 {
    match kind {
        Kind::Internal => exit::INTERNAL,
        Kind::Usage => exit::USAGE,
        Kind::NoDaemon => exit::NO_DAEMON,
        Kind::Config => exit::CONFIG,
        Kind::AlreadyRunning => exit::ALREADY_RUNNING,
        Kind::Unverifiable => exit::UNVERIFIABLE,
    }
}

/// `--color`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Color {
    /// As `NO_COLOR`, `CLICOLOR_FORCE` and the terminal say.
    #[default]
    Auto,
    /// Yes.
    Always,
    /// No.
    Never,
}

impl Color {
    /// Whether to colour, when stderr is a terminal or not. `NO_COLOR` wins over `CLICOLOR_FORCE`.
    fn decide(self, terminal: bool, variable: impl Fn(&str) -> Option<OsString>) -> bool {
        let set = |name: &str| variable(name).is_some_and(|value| !value.is_empty());
        match self {
            Color::Always => true,
            Color::Never => false,
            Color::Auto if set("NO_COLOR") => false,
            Color::Auto
                if variable("CLICOLOR_FORCE").is_some_and(|value| !value.is_empty() && value != "0") =>
            {
                true
            }
            Color::Auto => terminal && variable("TERM").is_none_or(|term| term != "dumb"),
        }
    }
}

/// The voice of a command.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Talk {
    color: bool,
}

impl Talk {
    pub(crate) fn new(color: Color) -> Self {
        Self { color: color.decide(io::stderr().is_terminal(), |name| std::env::var_os(name)) }
    }

    /// Prints a fault and answers its exit code.
    pub(crate) fn fault(self, fault: &Fault) -> u8 {
        self.labelled("error", "31", &fault.error);
        for cause in &fault.causes {
            self.labelled("caused by", "33", cause);
        }
        if let Some(hint) = &fault.hint {
            self.labelled("hint", "36", hint);
        }
        for other in &fault.also {
            self.fault(other);
        }
        code_of(fault.kind)
    }

    /// Prints a warning.
    pub(crate) fn warning(self, text: &str) {
        self.labelled("warning", "33", text);
    }

    /// Prints a line as it is.
    pub(crate) fn say(self, text: &str) {
        // A stderr that nobody reads is no reason to fail.
        let _ = writeln!(io::stderr(), "{text}");
    }

    fn labelled(self, label: &str, color: &str, text: &str) {
        let text = one_line(text);
        self.say(&if self.color {
            format!("\u{1b}[1;{color}m{label}:\u{1b}[0m {text}")
        } else {
            format!("{label}: {text}")
        });
    }
}

/// Text from outside as one line that moves no cursor.
pub(crate) fn one_line(text: &str) -> String {
    text.trim_end()
        .chars()
        .map(|c| match c {
            '\n' | '\r' | '\t' => ' ',
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') => '\u{fffd}',
            c => c,
        })
        .collect()
}

/// Prints data. A reader that has gone (`weir env | head -1`) wants no more, which is fine.
///
/// # Errors
/// When stdout cannot take it for any other reason: a script would work with half of it.
pub(crate) fn print(text: &str) -> Result<(), Fault> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Fault::new(Kind::Internal, "cannot write to stdout").because(error))
        }
        _ => Ok(()),
    }
}

/// Prints a value as JSON, for people and programs alike.
///
/// # Errors
/// As for `print`.
pub(crate) fn print_json(value: &impl serde::Serialize) -> Result<(), Fault> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Fault::new(Kind::Internal, "cannot write the answer as JSON").because(error))?;
    print(&format!("{text}\n"))
}

/// The process' exit code.
pub(crate) fn exit_code(code: u8) -> ExitCode {
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_follows_the_flag_then_the_variables_then_the_terminal() {
        let env = |pairs: &'static [(&str, &str)]| {
            move |name: &str| {
                pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
            }
        };
        assert!(Color::Auto.decide(true, env(&[])));
        assert!(!Color::Auto.decide(false, env(&[])));
        assert!(!Color::Auto.decide(true, env(&[("TERM", "dumb")])));
        assert!(!Color::Auto.decide(true, env(&[("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")])));
        assert!(Color::Auto.decide(true, env(&[("NO_COLOR", "")])));
        assert!(Color::Auto.decide(false, env(&[("CLICOLOR_FORCE", "1")])));
        assert!(!Color::Auto.decide(false, env(&[("CLICOLOR_FORCE", "0")])));
        assert!(Color::Always.decide(false, env(&[("NO_COLOR", "1")])));
        assert!(!Color::Never.decide(true, env(&[("CLICOLOR_FORCE", "1")])));
    }

    #[test]
    fn text_from_outside_stays_one_line() {
        assert_eq!(one_line("a\nb\r\x1b[31mc\u{2028}d\n"), "a b \u{fffd}[31mc\u{fffd}d");
    }
}
