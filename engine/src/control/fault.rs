//! What a command tells a person when it cannot go on: what, because of what, and the way out.
//!
//! Not the errors of the data plane (`crate::error`): those end a connection, these end a command.

use std::fmt;

/// Which of the command line's exit codes a fault is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A fault of weir or of the machine that it runs on (1).
    Internal,
    /// The command line or the environment asks for something that makes no sense (2).
    Usage,
    /// No daemon, or it cannot be reached (3).
    NoDaemon,
    /// The policy, or a file that it names, is invalid (4).
    Config,
    /// A daemon already runs on this state (5).
    AlreadyRunning,
    /// What the run's record says cannot be relied on (11).
    Unverifiable,
}

/// A fault: one line for what, one a cause, one for the way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Which exit code.
    pub kind: Kind,
    /// What went wrong, naming the place.
    pub error: String,
    /// Why, the nearest cause first.
    pub causes: Vec<String>,
    /// The way out.
    pub hint: Option<String>,
    /// More of the same kind, each with a place of its own: a policy file can be wrong in several.
    pub also: Vec<Fault>,
}

impl Fault {
    /// A fault with no cause and no hint yet.
    pub fn new(kind: Kind, error: impl Into<String>) -> Self {
        Self { kind, error: error.into(), causes: Vec::new(), hint: None, also: Vec::new() }
    }

    /// Adds a cause behind those that are there.
    #[must_use]
    pub fn because(mut self, cause: impl fmt::Display) -> Self {
        self.causes.push(cause.to_string());
        self
    }

    /// Names the way out.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Fault {
    /// One line; the command line prints the parts on lines of their own.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.error)?;
        for cause in &self.causes {
            write!(f, ": {cause}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Fault {}
