//! Bytes that were read and not yet used, in a buffer that is held only while there are any.

use std::io;
use std::rc::Rc;

use super::buffers::{Buffer, Buffers};
use super::stream::Stream;

/// What one side has sent ahead.
pub(crate) struct Inbox {
    home: Rc<Buffers>,
    buffer: Option<Buffer>,
    start: usize,
    end: usize,
}

impl Inbox {
    pub(crate) fn new(home: &Rc<Buffers>) -> Self {
        Self { home: Rc::clone(home), buffer: None, start: 0, end: 0 }
    }

    /// What is there.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.buffer.as_deref().and_then(|buffer| buffer.get(self.start..self.end)).unwrap_or_default()
    }

    /// The first `count` bytes are used; an empty inbox gives its buffer back.
    pub(crate) fn consume(&mut self, count: usize) {
        self.start = self.end.min(self.start + count);
        if self.start == self.end {
            *self = Self::new(&self.home);
        }
    }

    /// Reads more behind what is there: bytes read, 0 at the end of the stream.
    ///
    /// # Errors
    /// Those of the stream; `StorageFull` when the buffer holds no more.
    pub(crate) async fn fill(&mut self, stream: &Stream) -> io::Result<usize> {
        loop {
            if let Some(read) = self.try_fill(stream)? {
                return Ok(read);
            }
            stream.readable().await?;
        }
    }

    fn try_fill(&mut self, stream: &Stream) -> io::Result<Option<usize>> {
        let mut buffer = self.buffer.take().unwrap_or_else(|| self.home.take());
        if self.start > 0 && self.end == buffer.len() {
            buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        let room = buffer.get_mut(self.end..).unwrap_or_default();
        if room.is_empty() {
            self.buffer = Some(buffer);
            return Err(io::ErrorKind::StorageFull.into());
        }
        let answer = stream.try_read(room);
        if let Ok(Some(read)) = answer {
            self.end += read;
        }
        if self.start < self.end {
            self.buffer = Some(buffer);
        }
        answer
    }
}
