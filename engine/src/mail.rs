//! The mailbox of a core: how every other thread reaches it.
//!
//! A bounded lock-free queue and one eventfd. Posting never blocks; a full queue is an error now. The core
//! drains it when the eventfd is readable and once more in its one-second sweep. No waker crosses threads: an
//! answer names the `Ticket` of the waiter, and the core wakes it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crossbeam_queue::SegQueue;
use rustix::event::{EventfdFlags, eventfd};

/// Names a waiter of one core: its slot, and the generation that tells a reused slot from the first one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    /// Slot in the core's slab of waiters.
    pub slot: u32,
    /// Generation of the slot when the ticket was given out.
    pub generation: u32,
}

/// Why a name has no addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NameError {
    /// The name does not exist, or has no addresses.
    NotFound(Arc<str>),
    /// The resolver failed or gave up; asking again may help.
    Failed(Arc<str>),
    /// The queue of the resolvers is full.
    Busy,
}

/// What a core can be told.
#[derive(Debug)]
pub enum Letter {
    /// A connection accepted elsewhere is yours.
    Connection {
        /// The connected socket, nonblocking and close-on-exec.
        socket: OwnedFd,
        /// Its other end.
        peer: SocketAddr,
    },
    /// The addresses that a waiter asked for.
    Resolved {
        /// The waiter.
        ticket: Ticket,
        /// Addresses in the order of the system's preference, never empty.
        answer: Result<Arc<[IpAddr]>, NameError>,
    },
    /// `write(2)` of a record has returned.
    Journaled {
        /// The waiter.
        ticket: Ticket,
        /// Whether the record is in the file.
        written: bool,
    },
    /// Take no new work; finish what is in flight until then.
    Drain,
    /// Cut what is in flight and end.
    Halt,
}

/// The sending and the receiving half of a core's mail; shared by `Arc`.
#[derive(Debug)]
pub struct Mailbox {
    letters: SegQueue<Letter>,
    /// Letters in the queue, at most `letters_max`: an array of so many would be resident from the start.
    waiting: AtomicUsize,
    letters_max: usize,
    wake: OwnedFd,
    /// True from a poster's wake until the core begins to drain: one eventfd write a batch.
    rung: AtomicBool,
}

impl Mailbox {
    /// An empty mailbox for at most `letters_max` letters.
    ///
    /// # Errors
    /// When no eventfd can be had.
    pub fn new(letters_max: usize) -> io::Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let (letters, waiting) = (SegQueue::new(), AtomicUsize::new(0));
        Ok(Self { letters, waiting, letters_max, wake, rung: AtomicBool::new(false) })
    }

    /// Hands a letter over and wakes the core.
    ///
    /// # Errors
    /// Gives the letter back when the queue is full.
    pub fn post(&self, letter: Letter) -> Result<(), Letter> {
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= self.letters_max {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(letter);
        }
        self.letters.push(letter);
        if !self.rung.swap(true, Ordering::SeqCst) {
            // Fails only when the counter would overflow, and then the core is awake anyway.
            let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
        }
        Ok(())
    }

    /// Hands a letter over and does not wake the core, as if its wake were lost.
    #[cfg(test)]
    pub(crate) fn post_unheard(&self, letter: Letter) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.letters.push(letter);
    }

    /// Begins a drain: letters posted from here on ring again. Called by the core only.
    pub fn begin_drain(&self) {
        let _ = rustix::io::read(&self.wake, &mut [0_u8; 8]);
        self.rung.swap(false, Ordering::SeqCst);
    }

    /// The next letter. Called by the core only.
    pub fn take(&self) -> Option<Letter> {
        let letter = self.letters.pop()?;
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        Some(letter)
    }
}

impl AsFd for Mailbox {
    /// The eventfd: readable when there may be letters.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_mailbox_gives_the_letter_back_and_takes_one_again_when_read() {
        let mail = Mailbox::new(2).unwrap();
        assert!(mail.post(Letter::Drain).is_ok() && mail.post(Letter::Drain).is_ok());
        assert!(matches!(mail.post(Letter::Halt), Err(Letter::Halt)));
        assert!(mail.take().is_some());
        assert!(mail.post(Letter::Halt).is_ok());
    }
}
