//! The journal's writer: one thread that owns the order, the hashes, the count and the file.
//!
//! Not here: what a line looks like (`audit::line`) and how a file is judged (`audit::verify`). Cores hand
//! records over and never wait; a refusal gets a letter when `write(2)` has returned. What must hold:
//!
//! - One `write(2)` a batch; unhurried records wait up to `JOURNAL_BATCH_DELAY` for company, and do not wake the
//!   writer while it naps. A refusal, or the end, wakes it at once. An idle writer sleeps without a timeout.
//! - **A gap stays a gap.** A failed write or sync, a record that could not be handed over, a panic of the
//!   writer: from then on the run is unverifiable. After a failed write nothing more is written, because the
//!   last line may be torn; the counting goes on, and refusals refuse. This is the direction in which it fails:
//!   connections go on, and the gate says that it cannot vouch for them.
//!
//! ```text
//! Idle -first record-> Awake -only unhurried ones-> Napping -time, urgent record, seal-> Awake -queue empty-> Idle
//! ```

use std::fs::File;
use std::io::{self, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_queue::SegQueue;

use crate::audit::chain::{Chain, Head};
use crate::audit::line::Final;
use crate::audit::record::{Record, RunHeader};
use crate::audit::tally::{Counter, Tally};
use crate::audit::text::Clean;
use crate::limits::{JOURNAL_BATCH_BYTES, JOURNAL_BATCH_DELAY, JOURNAL_RECORDS_MAX, JOURNAL_SYNC_EVERY};
use crate::mail::{Letter, Mailbox, Ticket};

/// A handle on the writer; clones are of the same journal.
#[derive(Debug, Clone)]
pub struct Journal(Arc<Shared>);

/// The record was not taken: the queue is full, or the journal has ended. The run is unverifiable from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// How the journal stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Every record so far was kept. Never true again once it was false.
    pub verifiable: bool,
    /// The first thing that went wrong, one line for people.
    pub why: Option<Arc<str>>,
    /// Lines that are in the file for certain.
    pub seq: u64,
    /// Hash of the last of them.
    pub head: Head,
}

/// How the journal ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// Hash of the last line in the file; of the `final` one when `verifiable`.
    pub head: Head,
    /// Number of the last line in the file.
    pub seq: u64,
    /// Everything that was counted, also what could not be written.
    pub tally: Tally,
    /// The file holds every record and a `final` line, and is on the disk.
    pub verifiable: bool,
    /// Why it is not, one line for people.
    pub why: Option<Arc<str>>,
}

impl Journal {
    /// Writes the run's first line and starts the writer. `file` is empty, opened for appending by the caller,
    /// who also chose its place and mode (0600, O_EXCL, O_NOFOLLOW).
    ///
    /// # Errors
    /// When the first line cannot be written and synced, or no thread can be had.
    pub fn start(mut file: File, header: &RunHeader) -> io::Result<Self> {
        let mut first = Vec::new();
        let chain = Chain::begin(header, &mut first);
        file.write_all(&first)?;
        file.sync_data()?;
        let state = State {
            health: Health { verifiable: true, why: None, seq: chain.seq(), head: chain.head() },
            counter: Counter::new(header.gate),
        };
        let shared = Arc::new(Shared {
            queue: SegQueue::new(),
            waiting: AtomicUsize::new(0),
            lost: AtomicU64::new(0),
            mode: AtomicU8::new(AWAKE),
            closed: AtomicBool::new(false),
            state: Lock::new(state),
            writer: OnceLock::new(),
            join: Lock::new(None),
            sealed: OnceLock::new(),
            #[cfg(test)]
            probe: tests::Probe::default(),
        });
        let writer = Writer::new(Arc::clone(&shared), file, chain);
        let join = thread::Builder::new().name("journal".into()).spawn(move || run(writer))?;
        // The writer parks only after it has seen an empty queue, and nobody can push before this returns.
        let _ = shared.writer.set(join.thread().clone());
        *lock(&shared.join) = Some(join);
        Ok(Self(shared))
    }

    /// Hands a record over; returns at once. For allowed decisions, ends and notes.
    ///
    /// # Errors
    /// When the record was not taken; a new connection is then refused.
    pub fn hand_over(&self, record: Record) -> Result<(), Full> {
        self.0.push(Entry { record, reply: None })
    }

    /// Hands a record over and has `Letter::Journaled` posted once `write(2)` has returned or failed. The
    /// letter may stay out when the mailbox is full or the writer has died: waiters have a deadline.
    ///
    /// # Errors
    /// When the record was not taken; then no letter comes. A refusal is still a refusal.
    pub fn hand_over_acked(&self, record: Record, mail: &Arc<Mailbox>, ticket: Ticket) -> Result<(), Full> {
        self.0.push(Entry { record, reply: Some((Arc::clone(mail), ticket)) })
    }

    /// What was counted so far; records of the last few milliseconds may be missing.
    pub fn tally(&self) -> Tally {
        lock(&self.0.state).counter.tally().clone()
    }

    /// How the journal stands.
    pub fn health(&self) -> Health {
        self.0.judge_losses();
        lock(&self.0.state).health.clone()
    }

    /// Writes what waits and the `final` line, syncs, and ends the thread. To be called once nothing hands
    /// records over any more. A second call repeats the first answer.
    pub fn seal(&self) -> Sealed {
        // One caller joins; others wait for it here.
        let mut join = lock(&self.0.join);
        if let Some(sealed) = self.0.sealed.get() {
            return sealed.clone();
        }
        self.0.closed.store(true, Ordering::SeqCst);
        self.0.wake();
        if let Some(join) = join.take()
            && join.join().is_err()
        {
            self.0.fail("the journal's writer panicked");
        }
        if !self.0.queue.is_empty() {
            self.0.fail("records were handed over after the end of the journal");
        }
        self.0.judge_losses();
        let state = lock(&self.0.state);
        let Health { verifiable, why, seq, head } = state.health.clone();
        let sealed = Sealed { head, seq, tally: state.counter.tally().clone(), verifiable, why };
        self.0.sealed.get_or_init(|| sealed).clone()
    }
}

#[expect(clippy::disallowed_types, reason = "control plane: the data plane never takes these locks")]
type Lock<T> = std::sync::Mutex<T>;

/// The writer sleeps until someone pushes.
const IDLE: u8 = 0;
/// The writer sleeps for a few milliseconds, and only an urgent record wakes it before.
const NAPPING: u8 = 1;
/// The writer works, and looks into the queue before it sleeps.
const AWAKE: u8 = 2;

#[derive(Debug)]
struct Entry {
    record: Record,
    /// Who waits for the write.
    reply: Option<(Arc<Mailbox>, Ticket)>,
}

#[derive(Debug)]
struct Shared {
    /// Bounded by `waiting`. Not an array of `JOURNAL_RECORDS_MAX` places: that would keep 5 MB resident for a
    /// queue that is nearly always empty.
    queue: SegQueue<Entry>,
    waiting: AtomicUsize,
    /// Records that were not taken.
    lost: AtomicU64,
    mode: AtomicU8,
    closed: AtomicBool,
    state: Lock<State>,
    writer: OnceLock<Thread>,
    join: Lock<Option<JoinHandle<()>>>,
    sealed: OnceLock<Sealed>,
    #[cfg(test)]
    probe: tests::Probe,
}

#[derive(Debug)]
struct State {
    health: Health,
    counter: Counter,
}

impl Shared {
    fn push(&self, entry: Entry) -> Result<(), Full> {
        if self.closed.load(Ordering::SeqCst) {
            return Err(self.lose());
        }
        if self.waiting.fetch_add(1, Ordering::SeqCst) >= JOURNAL_RECORDS_MAX {
            self.waiting.fetch_sub(1, Ordering::SeqCst);
            return Err(self.lose());
        }
        let urgent = entry.reply.is_some();
        self.queue.push(entry);
        // Pairs with the fence in `Writer::sleep`: either the writer sees this entry before it sleeps, or we
        // see that it sleeps.
        fence(Ordering::SeqCst);
        match self.mode.load(Ordering::SeqCst) {
            IDLE => self.wake(),
            NAPPING if urgent => self.wake(),
            _ => {}
        }
        Ok(())
    }

    fn lose(&self) -> Full {
        self.lost.fetch_add(1, Ordering::SeqCst);
        Full
    }

    /// Not in `lose`: a core takes no lock.
    fn judge_losses(&self) {
        let lost = self.lost.load(Ordering::SeqCst);
        if lost > 0 {
            self.fail(&format!(
                "{lost} records could not be handed to the journal: its queue was full, or it had ended"
            ));
        }
    }

    /// From now on the run cannot be vouched for; the first reason stays.
    fn fail(&self, why: &str) {
        let mut state = lock(&self.state);
        state.health.verifiable = false;
        state.health.why.get_or_insert_with(|| why.into());
    }

    fn pop(&self) -> Option<Entry> {
        let entry = self.queue.pop()?;
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        Some(entry)
    }

    /// One of many may see that the writer sleeps; the first of them pays for the wake.
    fn wake(&self) {
        if self.mode.swap(AWAKE, Ordering::SeqCst) != AWAKE
            && let Some(writer) = self.writer.get()
        {
            writer.unpark();
        }
    }
}

/// The thread's own side.
struct Writer {
    shared: Arc<Shared>,
    file: File,
    chain: Chain,
    /// Lines that are not written yet.
    batch: Vec<u8>,
    /// Who waits for this batch.
    replies: Vec<(Arc<Mailbox>, Ticket)>,
    /// When the batch got its first record.
    batch_since: Option<Instant>,
    /// When the first byte was written that no sync has covered.
    dirty_since: Option<Instant>,
    /// A write or sync has failed: the file is left as it is.
    broken: bool,
}

/// The body of the thread: a panic makes the run unverifiable and leaves nobody waiting.
fn run(mut writer: Writer) {
    if catch_unwind(AssertUnwindSafe(|| writer.run())).is_ok() {
        return;
    }
    let shared = Arc::clone(&writer.shared);
    shared.fail("the journal's writer panicked");
    shared.closed.store(true, Ordering::SeqCst);
    writer.replies.extend(std::iter::from_fn(|| shared.pop()).filter_map(|entry| entry.reply));
    writer.answer(false);
}

impl Writer {
    fn new(shared: Arc<Shared>, file: File, chain: Chain) -> Self {
        Self {
            shared,
            file,
            chain,
            batch: Vec::new(),
            replies: Vec::new(),
            batch_since: None,
            dirty_since: None,
            broken: false,
        }
    }

    fn run(&mut self) {
        loop {
            // Read before the queue is emptied: what was pushed before the end is in the file before the end.
            let closed = self.shared.closed.load(Ordering::SeqCst);
            self.gather();
            let now = Instant::now();
            match self.batch_since {
                None if closed => return self.finish(),
                None => self.sleep(IDLE, self.sync_due(now)),
                Some(since) if !closed && self.may_wait() && since + JOURNAL_BATCH_DELAY > now => {
                    self.sleep(NAPPING, Some(since + JOURNAL_BATCH_DELAY - now));
                }
                Some(_) => self.write(),
            }
            if self.sync_due(Instant::now()) == Some(Duration::ZERO) {
                self.sync();
            }
        }
    }

    fn may_wait(&self) -> bool {
        self.replies.is_empty() && self.batch.len() < JOURNAL_BATCH_BYTES
    }

    /// Counts and encodes what waits, up to a batch.
    fn gather(&mut self) {
        #[cfg(test)]
        self.obey_probe();
        if self.shared.queue.is_empty() {
            return;
        }
        let mut state = lock(&self.shared.state);
        while self.batch.len() < JOURNAL_BATCH_BYTES
            && let Some(Entry { record, reply }) = self.shared.pop()
        {
            let record = Clean::new(record);
            state.counter.count(&record);
            if !self.broken {
                self.chain.append(&record, &mut self.batch);
            }
            self.replies.extend(reply);
            self.batch_since.get_or_insert_with(Instant::now);
        }
    }

    /// One write for the batch. Bytes that the kernel took in two turns are no gap; an error is, since some of
    /// the batch may be in the file.
    fn write(&mut self) {
        if !self.broken {
            match self.file.write_all(&self.batch) {
                Ok(()) => {
                    self.dirty_since.get_or_insert_with(Instant::now);
                    let mut state = lock(&self.shared.state);
                    (state.health.seq, state.health.head) = (self.chain.seq(), self.chain.head());
                }
                Err(error) => self.give_up(&format!("the journal could not be written: {error}")),
            }
        }
        self.batch.clear();
        self.batch.shrink_to(JOURNAL_BATCH_BYTES);
        self.batch_since = None;
        self.answer(!self.broken);
    }

    fn answer(&mut self, written: bool) {
        for (mail, ticket) in self.replies.drain(..) {
            // A full mailbox gives the letter back; the waiter's deadline then refuses all the same.
            let _ = mail.post(Letter::Journaled { ticket, written });
        }
    }

    /// Time until a sync is due; none when the disk has everything.
    fn sync_due(&self, now: Instant) -> Option<Duration> {
        self.dirty_since.map(|since| (since + JOURNAL_SYNC_EVERY).saturating_duration_since(now))
    }

    fn sync(&mut self) {
        self.dirty_since = None;
        if let Err(error) = self.file.sync_data() {
            self.give_up(&format!("the journal could not be synced to its disk: {error}"));
        }
    }

    fn give_up(&mut self, why: &str) {
        self.broken = true;
        self.dirty_since = None;
        self.shared.fail(why);
    }

    /// The queue is empty and closed: the last line, then the disk.
    fn finish(&mut self) {
        let lost = self.shared.lost.load(Ordering::SeqCst);
        if !self.broken {
            let totals = lock(&self.shared.state).counter.tally().totals.clone();
            // The run's id is the chain's to fill in.
            let it = Final { run: "".into(), at_us: unix_us(), lost, totals };
            self.chain.seal(it, &mut self.batch);
            self.write();
        }
        if !self.broken {
            self.sync();
        }
    }

    /// Sleeps until woken, at most `at_most`; not at all when there is something to do.
    fn sleep(&self, mode: u8, at_most: Option<Duration>) {
        self.shared.mode.store(mode, Ordering::SeqCst);
        // Pairs with the fence in `Shared::push`.
        fence(Ordering::SeqCst);
        if self.shared.queue.is_empty() && !self.shared.closed.load(Ordering::SeqCst) {
            #[cfg(test)]
            self.shared.probe.sleeps.fetch_add(1, Ordering::SeqCst);
            match at_most {
                Some(at_most) => thread::park_timeout(at_most),
                None => thread::park(),
            }
        }
        self.shared.mode.store(AWAKE, Ordering::SeqCst);
    }

    #[cfg(test)]
    fn obey_probe(&mut self) {
        match lock(&self.shared.probe.order).take() {
            Some(tests::Order::Panic) => panic!("ordered by a test"),
            Some(tests::Order::WriteTo(file)) => self.file = file,
            None => {}
        }
    }
}

/// A panic while a lock was held is a panic of the writer, which has made the run unverifiable: its values
/// may be read.
fn lock<T>(lock: &Lock<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

fn unix_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
