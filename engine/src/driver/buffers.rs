//! What a core lends to whoever moves bytes just now: buffers and pipes.
//!
//! An idle connection holds neither. Buffers go back to the core's pool when they are dropped; a pipe goes back
//! only when it is empty, since bytes left in it would reach a stranger.

use std::cell::RefCell;
use std::io;
use std::ops::{Deref, DerefMut};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

use crate::limits::{PIPE_BUDGET_BYTES, PIPE_BYTES, RELAY_BUFFER_BYTES};

/// Buffers kept by a core that nobody uses: 2 MiB.
const BUFFERS_KEPT: usize = 32;
/// Pipes of each size kept by a core that nobody uses.
const PIPES_KEPT: usize = 16;

/// A core's buffers of `RELAY_BUFFER_BYTES`.
#[derive(Default)]
pub(crate) struct Buffers {
    free: RefCell<Vec<Box<[u8]>>>,
}

impl Buffers {
    /// A buffer; its bytes are whatever was in it.
    pub(crate) fn take(self: &Rc<Self>) -> Buffer {
        let bytes = self.free.borrow_mut().pop();
        let bytes = bytes.unwrap_or_else(|| vec![0; RELAY_BUFFER_BYTES].into_boxed_slice());
        Buffer { bytes, home: Rc::clone(self) }
    }
}

/// A buffer on loan.
pub(crate) struct Buffer {
    bytes: Box<[u8]>,
    home: Rc<Buffers>,
}

impl Deref for Buffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut free = self.home.free.borrow_mut();
        if free.len() < BUFFERS_KEPT {
            free.push(std::mem::take(&mut self.bytes));
        }
    }
}

/// A core's pipes, by size, under the budget of the process.
pub(crate) struct Pipes {
    free: RefCell<[Vec<Pipe>; PIPE_BYTES.len()]>,
    /// Bytes of all pipes of all cores, kept ones too: the kernel counts them by user, so the cores share a count.
    spent: Arc<AtomicUsize>,
}

impl Pipes {
    /// No pipes yet; `spent` is shared by all cores.
    pub(crate) fn new(spent: Arc<AtomicUsize>) -> Self {
        Self { free: RefCell::default(), spent }
    }

    /// An empty pipe of the wanted size class (an index of `PIPE_BYTES`), or of a smaller one where the budget or
    /// the kernel says so; `None` when there is none to be had, and then bytes are copied.
    pub(crate) fn take(&self, class: usize) -> Option<Pipe> {
        (0..=class.min(PIPE_BYTES.len() - 1)).rev().find_map(|class| {
            let kept = self.free.borrow_mut().get_mut(class).and_then(Vec::pop);
            kept.or_else(|| Pipe::new(class, &self.spent).ok())
        })
    }

    /// Takes a pipe back; one that still holds bytes is closed.
    pub(crate) fn give_back(&self, pipe: Pipe) {
        if pipe.held == 0
            && let Some(kept) = self.free.borrow_mut().get_mut(pipe.class)
            && kept.len() < PIPES_KEPT
        {
            kept.push(pipe);
        }
    }
}

/// A pipe on loan.
pub(crate) struct Pipe {
    /// Where bytes come out.
    pub(crate) read: OwnedFd,
    /// Where bytes go in.
    pub(crate) write: OwnedFd,
    /// Bytes that are in it; whoever moves bytes keeps this true.
    pub(crate) held: usize,
    class: usize,
    spent: Arc<AtomicUsize>,
}

impl Pipe {
    fn new(class: usize, spent: &Arc<AtomicUsize>) -> io::Result<Self> {
        let size = PIPE_BYTES.get(class).copied().unwrap_or(PIPE_BYTES[0]);
        if spent.fetch_add(size, Ordering::Relaxed) + size > PIPE_BUDGET_BYTES {
            spent.fetch_sub(size, Ordering::Relaxed);
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        let made = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)
            .and_then(|(read, write)| fcntl_setpipe_size(&write, size).map(|_| (read, write)));
        match made {
            Ok((read, write)) => Ok(Self { read, write, held: 0, class, spent: Arc::clone(spent) }),
            // EMFILE, or EPERM past the user's soft limit of pipe pages (pipe(7)).
            Err(error) => {
                spent.fetch_sub(size, Ordering::Relaxed);
                Err(error.into())
            }
        }
    }

    /// Bytes that it takes.
    pub(crate) fn size(&self) -> usize {
        PIPE_BYTES.get(self.class).copied().unwrap_or(PIPE_BYTES[0])
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.spent.fetch_sub(self.size(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_with_bytes_in_it_never_comes_back() {
        let spent = Arc::new(AtomicUsize::new(0));
        let pipes = Pipes::new(Arc::clone(&spent));
        let mut pipe = pipes.take(0).unwrap();
        pipe.held = 1;
        pipes.give_back(pipe);
        assert_eq!(spent.load(Ordering::Relaxed), 0);
        let empty = pipes.take(2).unwrap();
        let size = empty.size();
        pipes.give_back(empty);
        assert_eq!(spent.load(Ordering::Relaxed), size, "an empty one is kept");
    }

    #[test]
    fn the_budget_holds_and_smaller_pipes_are_offered_first() {
        let pipes = Pipes::new(Arc::new(AtomicUsize::new(PIPE_BUDGET_BYTES - PIPE_BYTES[0])));
        let pipe = pipes.take(2).unwrap();
        assert_eq!(pipe.size(), PIPE_BYTES[0]);
        assert!(pipes.take(0).is_none());
    }
}
