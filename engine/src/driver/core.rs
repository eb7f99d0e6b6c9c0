//! A core: one thread, one runtime, and everything that its connections share.
//!
//! Nothing here is seen by another thread except through `mail` and the counters. The core knows every
//! connection that it serves: it can wake all of them (a drain), drop all of them (the end of a drain), and one
//! that panics takes nobody with it.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::audit::record::Record;
use crate::limits::{CONNECTIONS_PER_CORE_MAX, RESOLVE_DEADLINE};
use crate::mail::{Mailbox, NameError};

use super::Shared;
use super::buffers::{Buffers, Pipes};
use super::pool::Pool;
use super::rt::{self, Alarms, Answer, Waiters};

/// What a core counts; read by `status` from another thread, written by the core alone.
#[derive(Debug, Default)]
pub(crate) struct CoreCounters {
    /// Connections open now, and those on their way here.
    pub(crate) open: AtomicUsize,
    /// Connections ever.
    pub(crate) total: AtomicU64,
    /// Tunnels open now.
    pub(crate) tunnels: AtomicUsize,
    /// Requests refused.
    pub(crate) refused: AtomicU64,
    /// Bytes from clients.
    pub(crate) up: AtomicU64,
    /// Bytes to clients.
    pub(crate) down: AtomicU64,
}

/// One core's world.
pub(crate) struct Core {
    /// What all cores share.
    pub(crate) shared: Arc<Shared>,
    /// This core's number.
    pub(crate) index: usize,
    /// This core's mailbox.
    pub(crate) mail: Arc<Mailbox>,
    /// Deadlines.
    pub(crate) alarms: Rc<Alarms>,
    /// Idle upstream connections.
    pub(crate) pool: Pool,
    /// Relay buffers.
    pub(crate) buffers: Rc<Buffers>,
    /// Splice pipes.
    pub(crate) pipes: Pipes,
    waiters: Rc<Waiters>,
    next_id: Cell<u64>,
    draining: Cell<bool>,
    halted: Cell<bool>,
    /// Who waits for the end of the core.
    end: RefCell<Option<Waker>>,
    served: RefCell<Served>,
}

/// The connections of a core, each with the waker of its task.
#[derive(Default)]
struct Served {
    wakers: Vec<Option<Waker>>,
    free: Vec<usize>,
}

impl Core {
    pub(crate) fn new(shared: Arc<Shared>, index: usize, mail: Arc<Mailbox>) -> Rc<Self> {
        let pipes = Pipes::new(Arc::clone(&shared.pipe_bytes));
        Rc::new(Self {
            shared,
            index,
            mail,
            alarms: Rc::default(),
            pool: Pool::default(),
            buffers: Rc::default(),
            pipes,
            waiters: Rc::default(),
            // The core's number above the count: unique within the run without asking anybody, and below 2^53,
            // which is as far as some readers of JSON count.
            next_id: Cell::new((index as u64) << 40 | 1),
            draining: Cell::new(false),
            halted: Cell::new(false),
            end: RefCell::default(),
            served: RefCell::default(),
        })
    }

    /// This core's counters.
    pub(crate) fn counters(&self) -> &CoreCounters {
        // One set a core is made before the cores are; a miss would count elsewhere, never fail.
        self.shared.counters.get(self.index).unwrap_or(&self.shared.stray)
    }

    /// A number for the next decision.
    pub(crate) fn next_id(&self) -> u64 {
        let id = self.next_id.get();
        self.next_id.set(id + 1);
        id
    }

    /// Microseconds of Unix time.
    pub(crate) fn unix_us() -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }

    /// Whether the proxy takes no new work.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// Waits until the proxy drains.
    pub(crate) fn drain_begun(&self) -> impl Future<Output = ()> + '_ {
        // No waker is kept: `drain` wakes every served connection.
        std::future::poll_fn(|_| if self.draining.get() { Poll::Ready(()) } else { Poll::Pending })
    }

    /// Takes no new work from here on; connections in flight finish.
    pub(crate) fn drain(&self) {
        self.draining.set(true);
        self.pool.clear();
        self.wake_served();
    }

    /// Ends every connection now; each journals its own end as cut.
    pub(crate) fn halt(&self) {
        self.halted.set(true);
        self.drain();
        if let Some(waiting) = self.end.take() {
            waiting.wake();
        }
    }

    /// Waits until the core ends, whoever read the letter that says so.
    pub(crate) fn halt_begun(&self) -> impl Future<Output = ()> + '_ {
        std::future::poll_fn(|cx| {
            *self.end.borrow_mut() = Some(cx.waker().clone());
            if self.halted.get() { Poll::Ready(()) } else { Poll::Pending }
        })
    }

    /// Whether the core is ending.
    pub(crate) fn is_halted(&self) -> bool {
        self.halted.get()
    }

    /// Whether one more connection may be served.
    pub(crate) fn has_room(&self) -> bool {
        self.counters().open.load(Ordering::Relaxed) <= CONNECTIONS_PER_CORE_MAX
    }

    /// Serves a connection that `counters().open` already counts, as a task of its own.
    pub(crate) fn serve(self: &Rc<Self>, connection: impl Future<Output = ()> + 'static) {
        let slot = self.served.borrow_mut().enter();
        self.counters().total.fetch_add(1, Ordering::Relaxed);
        let task = Serving { core: Rc::clone(self), slot, connection: Some(Box::pin(connection)) };
        rt::spawn(task);
    }

    /// The addresses of `name`, from the resolver.
    ///
    /// # Errors
    /// The resolver's, or that it did not answer in time.
    pub(crate) async fn resolve(&self, name: &str) -> Result<Arc<[IpAddr]>, NameError> {
        let (ticket, wait) = self.waiters.wait();
        if let Some(answer) = self.shared.resolver.ask(name, &self.mail, ticket)? {
            return Ok(answer);
        }
        match self.alarms.alarm().within(RESOLVE_DEADLINE, wait).await {
            Ok(Answer::Resolved(answer)) => answer,
            Ok(Answer::Journaled(_)) | Err(_) => {
                Err(NameError::Failed("the resolver did not answer in time".into()))
            }
        }
    }

    /// Hands a record over and waits until `write(2)` has returned; true when it is in the file.
    pub(crate) async fn journal_written(&self, record: Record, patience: Duration) -> bool {
        let (ticket, wait) = self.waiters.wait();
        if self.shared.journal.hand_over_acked(record, &self.mail, ticket).is_err() {
            return false;
        }
        matches!(self.alarms.alarm().within(patience, wait).await, Ok(Answer::Journaled(true)))
    }

    /// Hands an answer that came by mail to its waiter.
    pub(crate) fn answer(&self, ticket: crate::mail::Ticket, answer: Answer) {
        self.waiters.answer(ticket, answer);
    }

    fn wake_served(&self) {
        let wakers: Vec<Waker> = self.served.borrow().wakers.iter().flatten().cloned().collect();
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Served {
    fn enter(&mut self) -> usize {
        self.free.pop().unwrap_or_else(|| {
            self.wakers.push(None);
            self.wakers.len() - 1
        })
    }

    fn leave(&mut self, slot: usize) {
        if let Some(waker) = self.wakers.get_mut(slot) {
            *waker = None;
        }
        self.free.push(slot);
    }
}

/// A connection as a task: dropped when the core halts, caught when it panics.
struct Serving {
    core: Rc<Core>,
    slot: usize,
    connection: Option<Pin<Box<dyn Future<Output = ()>>>>,
}

impl Future for Serving {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.core.halted.get() {
            self.connection = None;
            return Poll::Ready(());
        }
        let slot = self.slot;
        if let Some(waker) = self.core.served.borrow_mut().wakers.get_mut(slot)
            && waker.is_none()
        {
            *waker = Some(cx.waker().clone());
        }
        let Some(connection) = self.connection.as_mut() else { return Poll::Ready(()) };
        // A connection shares nothing by reference with others but cells that hold no invariant across a poll.
        match std::panic::catch_unwind(AssertUnwindSafe(|| connection.as_mut().poll(cx))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(())) => Poll::Ready(()),
            Err(_) => {
                // The hook has said where. Dropping it journals its end as cut.
                self.connection = None;
                Poll::Ready(())
            }
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.connection = None;
        self.core.served.borrow_mut().leave(self.slot);
        self.core.counters().open.fetch_sub(1, Ordering::Relaxed);
    }
}
