//! Coarse deadlines: one sweep a second over every armed alarm of the core.
//!
//! An alarm never rings early and rings at most a second and a sweep late. Arming one is two stores; no timer of
//! the runtime is made or cancelled. A connection has one alarm and sets it anew for each wait.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use pin_project_lite::pin_project;

/// The sweep's period.
pub(crate) const TICK: Duration = Duration::from_secs(1);

const NEVER: u64 = u64::MAX;

/// All alarms of a core.
#[derive(Default)]
pub(crate) struct Alarms {
    tick: Cell<u64>,
    slots: RefCell<Slots>,
}

#[derive(Default)]
struct Slots {
    all: Vec<Slot>,
    free: Vec<usize>,
}

struct Slot {
    due: u64,
    waker: Option<Waker>,
}

impl Alarms {
    /// An alarm that is off.
    pub(crate) fn alarm(self: &Rc<Self>) -> Alarm {
        let mut slots = self.slots.borrow_mut();
        let slot = slots.free.pop().unwrap_or_else(|| {
            slots.all.push(Slot { due: NEVER, waker: None });
            slots.all.len() - 1
        });
        Alarm { alarms: Rc::clone(self), slot }
    }

    /// Seconds that this core has counted; the coarse clock of idle times.
    pub(crate) fn tick(&self) -> u64 {
        self.tick.get()
    }

    /// One second has passed: wakes what is due. Called by the core's sweep.
    pub(crate) fn sweep(&self) {
        let now = self.tick.get() + 1;
        self.tick.set(now);
        let mut due: Vec<Waker> = Vec::new();
        for slot in &mut self.slots.borrow_mut().all {
            if slot.due <= now
                && let Some(waker) = slot.waker.take()
            {
                due.push(waker);
            }
        }
        due.into_iter().for_each(Waker::wake);
    }

    /// Alarms that exist, armed or off.
    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        let slots = self.slots.borrow();
        slots.all.len() - slots.free.len()
    }

    fn with<R>(&self, slot: usize, look: impl FnOnce(&mut Slot) -> R) -> Option<R> {
        self.slots.borrow_mut().all.get_mut(slot).map(look)
    }
}

/// One deadline that can be set again and again.
pub(crate) struct Alarm {
    alarms: Rc<Alarms>,
    slot: usize,
}

/// The alarm rang before the wait was over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rang;

impl Alarm {
    /// Rings once `after` has passed; replaces an earlier setting.
    pub(crate) fn set(&self, after: Duration) {
        // The current tick began up to a second ago, so one more is counted: never early.
        let ticks = after.as_secs() + u64::from(after.subsec_nanos() > 0) + 1;
        let due = self.alarms.tick.get().saturating_add(ticks);
        self.alarms.with(self.slot, |slot| slot.due = due);
    }

    /// Waits until the alarm rings. `&mut` because a slot holds one waker.
    pub(crate) fn ring(&mut self) -> Ring<'_> {
        Ring { alarm: self }
    }

    /// Waits for `wait`, but no longer than `limit`; `Rang` when the limit passed first, and `wait` is dropped then.
    pub(crate) fn within<F: Future>(&mut self, limit: Duration, wait: F) -> Before<'_, F> {
        self.set(limit);
        self.before(wait)
    }

    /// Waits for `wait`, but not past what the alarm was set to; `Rang` when it rang first.
    pub(crate) fn before<F: Future>(&mut self, wait: F) -> Before<'_, F> {
        Before { wait, ring: self.ring() }
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        let mut slots = self.alarms.slots.borrow_mut();
        if let Some(slot) = slots.all.get_mut(self.slot) {
            *slot = Slot { due: NEVER, waker: None };
        }
        slots.free.push(self.slot);
    }
}

/// Ready when the alarm rings.
pub(crate) struct Ring<'a> {
    alarm: &'a mut Alarm,
}

impl Future for Ring<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let now = self.alarm.alarms.tick();
        let rang = self.alarm.alarms.with(self.alarm.slot, |slot| {
            if slot.due <= now {
                slot.waker = None;
                return true;
            }
            match &mut slot.waker {
                Some(waker) => waker.clone_from(cx.waker()),
                none => *none = Some(cx.waker().clone()),
            }
            false
        });
        if rang == Some(false) { Poll::Pending } else { Poll::Ready(()) }
    }
}

impl Drop for Ring<'_> {
    fn drop(&mut self) {
        self.alarm.alarms.with(self.alarm.slot, |slot| slot.waker = None);
    }
}

pin_project! {
    /// See `Alarm::before`.
    pub(crate) struct Before<'a, F> {
        #[pin]
        wait: F,
        ring: Ring<'a>,
    }
}

impl<F: Future> Future for Before<'_, F> {
    type Output = Result<F::Output, Rang>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(output) = this.wait.poll(cx) {
            return Poll::Ready(Ok(output));
        }
        Pin::new(this.ring).poll(cx).map(|()| Err(Rang))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(ring: &mut Ring<'_>) -> bool {
        Pin::new(ring).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn never_early_and_at_most_a_tick_late() {
        let alarms = Rc::new(Alarms::default());
        let mut alarm = alarms.alarm();
        alarm.set(Duration::from_millis(1500));
        for _ in 0..2 {
            alarms.sweep();
            assert!(!ready(&mut alarm.ring()));
        }
        alarms.sweep();
        assert!(ready(&mut alarm.ring()));
    }

    #[test]
    fn a_slot_is_given_back_and_starts_off() {
        let alarms = Rc::new(Alarms::default());
        let first = alarms.alarm();
        first.set(Duration::ZERO);
        drop(first);
        let mut second = alarms.alarm();
        alarms.sweep();
        alarms.sweep();
        assert!(!ready(&mut second.ring()));
        assert_eq!(alarms.count(), 1);
    }
}
