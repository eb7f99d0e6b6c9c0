//! Idle upstream connections of a core, ready for the next request to the same place by the same way.
//!
//! Only connections whose last response was complete and left nothing behind come here. Bounded in all and a host,
//! and by age; what does not fit is closed.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use crate::limits::{POOL_IDLE, POOL_IDLE_MAX, POOL_IDLE_PER_HOST_MAX};
use crate::wire::target::Authority;

use super::stream::Stream;

/// What makes two upstream connections interchangeable.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    /// Where the requests go.
    pub(crate) target: Authority,
    /// The parent proxy's name.
    pub(crate) via: Option<Arc<str>>,
}

/// The idle connections of a core.
#[derive(Default)]
pub(crate) struct Pool {
    idle: RefCell<Shelves>,
}

#[derive(Default)]
struct Shelves {
    by_key: HashMap<Key, Vec<Idle>, ahash::RandomState>,
    count: usize,
}

struct Idle {
    stream: Stream,
    since: u64,
}

impl Pool {
    /// A connection that is still open and silent; the youngest first, since it is the likeliest to live.
    pub(crate) fn take(&self, key: &Key) -> Option<Stream> {
        let mut shelves = self.idle.borrow_mut();
        let Shelves { by_key, count } = &mut *shelves;
        let shelf = by_key.get_mut(key)?;
        while let Some(idle) = shelf.pop() {
            *count -= 1;
            // Silent is `None`; an end, an error or bytes that nobody asked for make it worthless.
            if matches!(idle.stream.try_read(&mut [0]), Ok(None)) {
                return Some(idle.stream);
            }
        }
        by_key.remove(key);
        None
    }

    /// Keeps a connection for the next request; `tick` is the core's coarse clock.
    pub(crate) fn keep(&self, key: Key, stream: Stream, tick: u64) {
        let mut shelves = self.idle.borrow_mut();
        if shelves.count >= POOL_IDLE_MAX {
            return;
        }
        let shelf = shelves.by_key.entry(key).or_default();
        if shelf.len() < POOL_IDLE_PER_HOST_MAX {
            shelf.push(Idle { stream, since: tick });
            shelves.count += 1;
        }
    }

    /// Closes what has been idle for too long. Called by the core's sweep.
    pub(crate) fn sweep(&self, tick: u64) {
        let mut shelves = self.idle.borrow_mut();
        if shelves.count == 0 {
            return;
        }
        let mut left = 0;
        shelves.by_key.retain(|_, shelf| {
            shelf.retain(|idle| tick - idle.since <= POOL_IDLE.as_secs());
            left += shelf.len();
            !shelf.is_empty()
        });
        shelves.count = left;
    }

    /// Closes all of them.
    pub(crate) fn clear(&self) {
        *self.idle.borrow_mut() = Shelves::default();
    }
}
