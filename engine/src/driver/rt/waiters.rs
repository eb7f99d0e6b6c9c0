//! Answers that come by mail: a core-local slab of waiters, named by tickets.
//!
//! A question is asked with a ticket; its answer comes as a letter that carries the ticket back. A waiter that
//! gave up frees its slot and raises its generation, so that a late answer finds nobody and is dropped.

use std::cell::RefCell;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::mail::{NameError, Ticket};

/// What a letter can bring to a waiter.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Addresses of a name.
    Resolved(Result<Arc<[IpAddr]>, NameError>),
    /// Whether a record is in the file.
    Journaled(bool),
}

/// All waiters of a core.
#[derive(Default)]
pub(crate) struct Waiters {
    slots: RefCell<Slots>,
}

#[derive(Default)]
struct Slots {
    all: Vec<Slot>,
    free: Vec<u32>,
}

struct Slot {
    generation: u32,
    state: State,
}

enum State {
    Free,
    Waiting(Option<Waker>),
    Answered(Answer),
}

impl Waiters {
    /// A waiter, and the ticket for the question.
    pub(crate) fn wait(self: &Rc<Self>) -> (Ticket, Wait) {
        let mut slots = self.slots.borrow_mut();
        let slot = slots.free.pop().unwrap_or_else(|| {
            slots.all.push(Slot { generation: 0, state: State::Free });
            u32::try_from(slots.all.len() - 1).unwrap_or(u32::MAX)
        });
        let mut generation = 0;
        if let Some(found) = slots.all.get_mut(slot as usize) {
            found.state = State::Waiting(None);
            generation = found.generation;
        }
        let ticket = Ticket { slot, generation };
        (ticket, Wait { waiters: Rc::clone(self), ticket })
    }

    /// Hands an answer to the waiter of `ticket`; false when it has given up.
    pub(crate) fn answer(&self, ticket: Ticket, answer: Answer) -> bool {
        let mut slots = self.slots.borrow_mut();
        let Some(slot) = slots.all.get_mut(ticket.slot as usize) else { return false };
        if slot.generation != ticket.generation {
            return false;
        }
        match std::mem::replace(&mut slot.state, State::Answered(answer)) {
            State::Waiting(waker) => {
                drop(slots);
                if let Some(waker) = waker {
                    waker.wake();
                }
                true
            }
            // A second answer to one question: the first stands.
            earlier => {
                slot.state = earlier;
                false
            }
        }
    }

    /// Waiters that still wait or hold an answer.
    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        let slots = self.slots.borrow();
        slots.all.len() - slots.free.len()
    }
}

/// Ready when the answer is there. Dropping it gives up.
pub(crate) struct Wait {
    waiters: Rc<Waiters>,
    ticket: Ticket,
}

impl Future for Wait {
    type Output = Answer;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        let mut slots = self.waiters.slots.borrow_mut();
        let Some(slot) = slots.all.get_mut(self.ticket.slot as usize) else { return Poll::Pending };
        match std::mem::replace(&mut slot.state, State::Waiting(None)) {
            State::Answered(answer) => Poll::Ready(answer),
            State::Free | State::Waiting(_) => {
                slot.state = State::Waiting(Some(cx.waker().clone()));
                Poll::Pending
            }
        }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        let mut slots = self.waiters.slots.borrow_mut();
        if let Some(slot) = slots.all.get_mut(self.ticket.slot as usize) {
            slot.generation = slot.generation.wrapping_add(1);
            slot.state = State::Free;
        }
        slots.free.push(self.ticket.slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll(wait: &mut Wait) -> Poll<Answer> {
        Pin::new(wait).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_late_answer_finds_nobody() {
        let waiters = Rc::new(Waiters::default());
        let (old, wait) = waiters.wait();
        drop(wait);
        let (new, mut wait) = waiters.wait();
        assert_eq!(old.slot, new.slot);
        assert!(!waiters.answer(old, Answer::Journaled(false)));
        assert!(poll(&mut wait).is_pending());
        assert!(waiters.answer(new, Answer::Journaled(true)));
        assert!(!waiters.answer(new, Answer::Journaled(false)), "the first answer stands");
        assert!(matches!(poll(&mut wait), Poll::Ready(Answer::Journaled(true))));
        drop(wait);
        assert_eq!(waiters.count(), 0);
    }
}
