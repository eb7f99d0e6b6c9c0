//! The journal entry of one exchange or tunnel: decided before the first byte of its answer, ended after the last.
//!
//! An entry that is dropped without an end (the core was cut, the task panicked) journals its end as `cut`.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::audit::record::{Decided, Ended, Noted, Outcome, Record, Verb, Verdict};
use crate::error::Code;

use super::core::Core;
use super::tunnel::Flow;

/// How long a refusal waits for the journal. A disk that is slower makes the run unverifiable, not the job hang.
const JOURNAL_PATIENCE: Duration = Duration::from_secs(5);

/// What a decision was about, for its record.
pub(crate) struct About {
    pub(crate) client: SocketAddr,
    pub(crate) verb: Option<Verb>,
    pub(crate) target: Option<Box<str>>,
    pub(crate) path: Option<Box<str>>,
    pub(crate) via: Option<Arc<str>>,
}

/// A decision in the journal, waiting for its end.
pub(crate) struct Entry {
    core: Rc<Core>,
    id: u64,
    begun: Instant,
    /// Bytes carried so far.
    pub(crate) flow: Flow,
    /// Status that the client was sent; 0 before.
    pub(crate) status: Cell<u16>,
    ended: bool,
}

impl Entry {
    /// Journals a decision. A refusal waits until it is in the file (or the journal is known to be broken, which
    /// makes the run unverifiable: the refusal stands all the same).
    ///
    /// # Errors
    /// `Overload` when the journal's queue is full: what cannot be recorded is not allowed.
    pub(crate) async fn decided(
        core: &Rc<Core>,
        about: About,
        verdict: Verdict,
        rule: Arc<str>,
        reason: Option<Arc<str>>,
    ) -> Result<Self, Code> {
        let id = core.next_id();
        let refused = matches!(verdict, Verdict::Refuse(_));
        let record = Record::Decided(Box::new(Decided {
            id,
            at_us: Core::unix_us(),
            client: about.client,
            verb: about.verb,
            target: about.target,
            path: about.path,
            verdict,
            rule,
            reason,
            via: about.via,
        }));
        if refused {
            core.counters().refused.fetch_add(1, Ordering::Relaxed);
            core.journal_written(record, JOURNAL_PATIENCE).await;
        } else if core.shared.journal.hand_over(record).is_err() {
            return Err(Code::Overload);
        }
        Ok(Self {
            core: Rc::clone(core),
            id,
            begun: Instant::now(),
            flow: Flow::new(core),
            status: Cell::new(0),
            ended: false,
        })
    }

    /// Journals something that belongs to this entry and refuses nothing.
    pub(crate) fn note(&self, code: Code, detail: &str) {
        let note = Noted { id: self.id, at_us: Core::unix_us(), code, detail: detail.into() };
        // A full queue loses the note alone; the writer counts what it could not take.
        let _ = self.core.shared.journal.hand_over(Record::Noted(Box::new(note)));
    }

    /// Journals the end.
    pub(crate) fn end(mut self, outcome: Outcome) {
        self.write_end(outcome);
    }

    fn write_end(&mut self, outcome: Outcome) {
        self.ended = true;
        let ended = Ended {
            id: self.id,
            at_us: Core::unix_us(),
            ms: u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX),
            up: self.flow.up.get(),
            down: self.flow.down.get(),
            status: self.status.get(),
            outcome,
        };
        let _ = self.core.shared.journal.hand_over(Record::Ended(ended));
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if !self.ended {
            self.write_end(Outcome::Cut);
        }
    }
}
