//! Names to addresses, off the data plane: two threads that call getaddrinfo, and a cache.
//!
//! Not here: `[resolve]` entries of the policy (asked before), and the guard (asked after, for every address).
//! A core asks and gets a cached answer at once, or a letter later. What must hold:
//!
//! - One call a name at a time, however many wait for it. Never more threads than two: a name whose look-up
//!   hangs occupies one of them, and names in the cache are answered all the same.
//! - A waiter has its own deadline (`RESOLVE_DEADLINE`); a name that nobody can still be waiting for when its
//!   turn comes is not looked up.
//! - Failures are kept for seconds only, and nothing is served past its time: asking again asks the system.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use lru::LruCache;

use crate::limits::{
    ADDRESSES_PER_NAME_MAX, RESOLVE_CACHE_MAX, RESOLVE_DEADLINE, RESOLVE_FAILED_KEPT, RESOLVE_FOUND_KEPT,
    RESOLVE_NOT_FOUND_KEPT, RESOLVE_QUEUE_MAX, RESOLVE_STOP_GRACE, RESOLVE_WAITERS_MAX,
};
use crate::mail::{Letter, Mailbox, NameError, Ticket};

/// Addresses of a name: never empty, no doubles, families alternating from the one that the system prefers.
pub type Answer = Arc<[IpAddr]>;

/// What asks the system; replaced in tests.
pub type Lookup = dyn Fn(&str) -> Result<Vec<IpAddr>, NameError> + Send + Sync;

/// A handle on the resolver threads; clones are of the same two.
#[derive(Clone)]
pub struct Resolver(Arc<Shared>);

impl Resolver {
    /// Starts the threads, which ask the system (getaddrinfo: hosts file, search list and all).
    ///
    /// # Errors
    /// When no thread can be had.
    pub fn start() -> io::Result<Self> {
        Self::with_lookup(Box::new(ask_system))
    }

    /// Starts the threads with another way to look a name up.
    ///
    /// # Errors
    /// When no thread can be had.
    pub fn with_lookup(lookup: Box<Lookup>) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            table: Lock::new(Table::new()),
            changed: Bell::new(),
            ended: Bell::new(),
            lookup,
            threads: Lock::new(Vec::new()),
        });
        let resolver = Self(Arc::clone(&shared));
        for index in 0..THREADS {
            lock(&shared.table).alive += 1;
            let theirs = Arc::clone(&shared);
            let spawned =
                thread::Builder::new().name(format!("resolve-{index}")).spawn(move || work(&theirs));
            match spawned {
                Ok(thread) => lock(&shared.threads).push(thread),
                Err(error) => {
                    lock(&shared.table).alive -= 1;
                    resolver.stop();
                    return Err(error);
                }
            }
        }
        Ok(resolver)
    }

    /// The addresses of `name` (a canonical host name, no literal) when they are known; otherwise none, and a
    /// `Letter::Resolved` for `ticket` once they are. No letter comes to a full mailbox: waiters have a deadline.
    ///
    /// # Errors
    /// When the name is known to have no addresses, its look-up has just failed, or the queue is full.
    pub fn ask(&self, name: &str, mail: &Arc<Mailbox>, ticket: Ticket) -> Result<Option<Answer>, NameError> {
        let asked = lock(&self.0.table).ask(name, mail, ticket, Instant::now())?;
        match asked {
            Asked::Known(answer) => Ok(Some(answer)),
            Asked::Joined => Ok(None),
            Asked::Queued => {
                self.0.changed.notify_one();
                Ok(None)
            }
        }
    }

    /// Ends the threads, and fails everyone who still waits. A thread inside getaddrinfo gets
    /// `RESOLVE_STOP_GRACE` and is then left to the end of the process: the system cannot be interrupted.
    pub fn stop(&self) {
        let mut table = lock(&self.0.table);
        table.stopping = true;
        let left = table.abandon();
        drop(table);
        for (mail, ticket) in left {
            tell(&mail, ticket, &Err(stopped()));
        }
        self.0.changed.notify_all();
        let until = Instant::now() + RESOLVE_STOP_GRACE;
        let mut table = lock(&self.0.table);
        while table.alive > 0 {
            let rest = until.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                break;
            }
            table = self.0.ended.wait_timeout(table, rest).unwrap_or_else(PoisonError::into_inner).0;
        }
        let all_ended = table.alive == 0;
        drop(table);
        for thread in lock(&self.0.threads).extract_if(.., |thread| all_ended || thread.is_finished()) {
            // A panic of the look-up was caught and told to those who waited.
            let _ = thread.join();
        }
    }
}

/// Threads that call getaddrinfo.
const THREADS: usize = 2;

#[expect(clippy::disallowed_types, reason = "held for a few map operations, never while a name is looked up")]
type Lock<T> = std::sync::Mutex<T>;
type Bell = std::sync::Condvar;
type Outcome = Result<Answer, NameError>;
type Waiter = (Arc<Mailbox>, Ticket);

struct Shared {
    table: Lock<Table>,
    /// Rung when a name is queued, and at the end.
    changed: Bell,
    /// Rung when a thread ends.
    ended: Bell,
    lookup: Box<Lookup>,
    threads: Lock<Vec<JoinHandle<()>>>,
}

/// Everything that is known and asked. Values only: `now` is an argument, and nobody is told from here.
struct Table {
    cache: LruCache<Arc<str>, Kept, ahash::RandomState>,
    /// Who waits for a name that is queued or being looked up.
    waiting: HashMap<Arc<str>, Pending, ahash::RandomState>,
    /// Waiters of all names.
    waiters: usize,
    queue: VecDeque<Arc<str>>,
    alive: usize,
    stopping: bool,
}

struct Kept {
    outcome: Outcome,
    until: Instant,
}

struct Pending {
    waiters: Vec<Waiter>,
    /// When somebody asked for it last.
    asked: Instant,
}

enum Asked {
    Known(Answer),
    /// It is being looked up already.
    Joined,
    /// A thread has to be woken for it.
    Queued,
}

impl Table {
    fn new() -> Self {
        let places = NonZeroUsize::new(RESOLVE_CACHE_MAX).unwrap_or(NonZeroUsize::MIN);
        // Grows as it is used; a cache made with its bound allocates every place at once.
        let mut cache = LruCache::unbounded_with_hasher(ahash::RandomState::new());
        cache.resize(places);
        Self {
            cache,
            waiting: HashMap::default(),
            waiters: 0,
            queue: VecDeque::new(),
            alive: 0,
            stopping: false,
        }
    }

    fn ask(
        &mut self,
        name: &str,
        mail: &Arc<Mailbox>,
        ticket: Ticket,
        now: Instant,
    ) -> Result<Asked, NameError> {
        if self.stopping {
            return Err(stopped());
        }
        if let Some(kept) = self.cache.get(name) {
            if kept.until > now {
                return kept.outcome.clone().map(Asked::Known);
            }
            self.cache.pop(name);
        }
        if self.waiters >= RESOLVE_WAITERS_MAX {
            return Err(NameError::Busy);
        }
        let waiter = (Arc::clone(mail), ticket);
        if let Some(pending) = self.waiting.get_mut(name) {
            pending.waiters.push(waiter);
            pending.asked = now;
            self.waiters += 1;
            return Ok(Asked::Joined);
        }
        if self.queue.len() >= RESOLVE_QUEUE_MAX {
            return Err(NameError::Busy);
        }
        let name: Arc<str> = name.into();
        self.queue.push_back(Arc::clone(&name));
        self.waiting.insert(name, Pending { waiters: vec![waiter], asked: now });
        self.waiters += 1;
        Ok(Asked::Queued)
    }

    /// The next name to look up, and those who waited for names that came too late for them.
    fn next(&mut self, now: Instant, late: &mut Vec<Waiter>) -> Option<Arc<str>> {
        while let Some(name) = self.queue.pop_front() {
            match self.waiting.get(&name) {
                Some(pending) if now.saturating_duration_since(pending.asked) < RESOLVE_DEADLINE => {
                    return Some(name);
                }
                _ => late.append(&mut self.release(&name)),
            }
        }
        None
    }

    /// Keeps what was found out; gives those who waited for it.
    fn settle(&mut self, name: &Arc<str>, outcome: &Outcome, now: Instant) -> Vec<Waiter> {
        let kept_for = match outcome {
            Ok(_) => RESOLVE_FOUND_KEPT,
            Err(NameError::NotFound(_)) => RESOLVE_NOT_FOUND_KEPT,
            Err(NameError::Failed(_) | NameError::Busy) => RESOLVE_FAILED_KEPT,
        };
        self.cache.put(Arc::clone(name), Kept { outcome: outcome.clone(), until: now + kept_for });
        self.release(name)
    }

    fn release(&mut self, name: &str) -> Vec<Waiter> {
        let waiters = self.waiting.remove(name).map(|pending| pending.waiters).unwrap_or_default();
        self.waiters = self.waiters.saturating_sub(waiters.len());
        waiters
    }

    /// Forgets every question; gives those who asked.
    fn abandon(&mut self) -> Vec<Waiter> {
        self.queue.clear();
        self.waiters = 0;
        self.waiting.drain().flat_map(|(_, pending)| pending.waiters).collect()
    }
}

/// The body of a thread.
fn work(shared: &Shared) {
    while let Some(name) = next_name(shared) {
        let outcome = catch_unwind(AssertUnwindSafe(|| (shared.lookup)(&name)))
            .unwrap_or_else(|_| Err(NameError::Failed("the look-up panicked".into())))
            .and_then(|addresses| arrange(&addresses));
        let waiters = lock(&shared.table).settle(&name, &outcome, Instant::now());
        for (mail, ticket) in waiters {
            tell(&mail, ticket, &outcome);
        }
    }
    lock(&shared.table).alive -= 1;
    shared.ended.notify_all();
}

/// Waits for a name to look up; none at the end.
fn next_name(shared: &Shared) -> Option<Arc<str>> {
    let mut table = lock(&shared.table);
    while !table.stopping {
        let mut late = Vec::new();
        let name = table.next(Instant::now(), &mut late);
        if late.is_empty() {
            if name.is_some() {
                return name;
            }
            table = shared.changed.wait(table).unwrap_or_else(PoisonError::into_inner);
            continue;
        }
        drop(table);
        for (mail, ticket) in late {
            tell(&mail, ticket, &Err(NameError::Failed("its turn did not come in time".into())));
        }
        if name.is_some() {
            return name;
        }
        table = lock(&shared.table);
    }
    None
}

fn tell(mail: &Mailbox, ticket: Ticket, outcome: &Outcome) {
    // A full mailbox gives the letter back; the waiter's deadline ends the wait.
    let _ = mail.post(Letter::Resolved { ticket, answer: outcome.clone() });
}

/// Doubles out, families alternating from that of the first, `ADDRESSES_PER_NAME_MAX` at most: a dead family
/// costs one attempt, not all of them.
fn arrange(found: &[IpAddr]) -> Outcome {
    let Some(first) = found.first() else {
        return Err(NameError::NotFound("the name has no addresses".into()));
    };
    let mut seen = HashSet::with_hasher(ahash::RandomState::new());
    let unique = found.iter().copied().filter(|&address| seen.insert(address));
    let (like_first, others): (Vec<_>, Vec<_>) =
        unique.partition(|address| address.is_ipv4() == first.is_ipv4());
    let turns = 0..like_first.len().max(others.len());
    let arranged = turns.flat_map(|turn| [like_first.get(turn), others.get(turn)]);
    Ok(arranged.flatten().copied().take(ADDRESSES_PER_NAME_MAX).collect())
}

/// Asks the system, and says whether the name does not exist or the asking failed. The standard library gives
/// the resolver's error only as its text, which is that of the C library and not translated, since nobody here
/// sets a locale. A text that is not known counts as a failure, the less certain of the two.
fn ask_system(name: &str) -> Result<Vec<IpAddr>, NameError> {
    match (name, 0).to_socket_addrs() {
        Ok(addresses) => Ok(addresses.map(|address| address.ip()).collect()),
        Err(error) => Err(classify(&error.to_string())),
    }
}

fn classify(text: &str) -> NameError {
    let detail = text.strip_prefix("failed to lookup address information: ").unwrap_or(text);
    if NOT_FOUND.contains(&detail) {
        NameError::NotFound(detail.into())
    } else {
        NameError::Failed(detail.into())
    }
}

/// EAI_NONAME, EAI_NODATA and EAI_ADDRFAMILY in the words of glibc and of musl.
const NOT_FOUND: &[&str] = &[
    "Name or service not known",
    "No address associated with hostname",
    "Address family for hostname not supported",
    "Name does not resolve",
    "Name has no usable address",
];

fn stopped() -> NameError {
    NameError::Failed("the resolver has stopped".into())
}

/// Nothing that is done under the lock panics half-way; a poisoned one is read as it stands.
fn lock<T>(lock: &Lock<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
