//! The bytes that the workloads send, and the check that they arrived: a fixed random pattern with a period
//! that is a prime, so that a lost, doubled or swapped block of any usual size shifts the phase and is seen.
//!
//! Not a hash: the check must cost little beside what is measured, so past `FULL_BYTES` of a stream it samples
//! every page. The total count is the caller's to compare.

/// Bytes until the pattern repeats; the largest prime below 1 MiB.
pub(crate) const PERIOD: usize = 1_048_573;
/// Most bytes that [`Pattern::at`] gives at once.
pub(crate) const WINDOW: usize = 256 * 1024;
/// Bytes of a stream that are compared one by one before the check samples.
const FULL_BYTES: u64 = 16 * 1024 * 1024;
/// Beyond that: of every page so many bytes.
const PAGE: usize = 4096;
const SAMPLE: usize = 64;

/// The pattern, with one window more than a period so that no read wraps.
pub(crate) struct Pattern {
    bytes: Vec<u8>,
}

impl Pattern {
    /// The same bytes in every process: xorshift64* from a fixed seed.
    pub(crate) fn new() -> Self {
        let mut bytes = Vec::with_capacity(PERIOD + WINDOW + 8);
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        while bytes.len() < PERIOD {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
        }
        bytes.truncate(PERIOD);
        bytes.extend_from_within(..WINDOW);
        Self { bytes }
    }

    /// The `length` bytes (at most `WINDOW`) that stand at `offset` of the endless stream.
    pub(crate) fn at(&self, offset: u64, length: usize) -> &[u8] {
        let start = usize::try_from(offset % PERIOD as u64).unwrap_or(0);
        self.bytes.get(start..start + length.min(WINDOW)).unwrap_or_default()
    }
}

/// Follows one stream from its first byte.
#[derive(Default)]
pub(crate) struct Checker {
    offset: u64,
}

impl Checker {
    /// Bytes seen so far.
    pub(crate) fn count(&self) -> u64 {
        self.offset
    }

    /// Compares the next bytes of the stream; the error is the stream's offset near which they differ.
    pub(crate) fn check(&mut self, pattern: &Pattern, received: &[u8]) -> Result<(), u64> {
        for window in received.chunks(WINDOW) {
            let expected = pattern.at(self.offset, window.len());
            let equal =
                if self.offset < FULL_BYTES { window == expected } else { samples_equal(window, expected) };
            if !equal {
                return Err(self.offset);
            }
            self.offset += window.len() as u64;
        }
        Ok(())
    }
}

/// Compares the first bytes of each page and the last bytes of all.
fn samples_equal(received: &[u8], expected: &[u8]) -> bool {
    let pages = received.chunks(PAGE).zip(expected.chunks(PAGE));
    let tail = received.len().saturating_sub(SAMPLE);
    pages.into_iter().all(|(a, b)| a.get(..SAMPLE.min(a.len())) == b.get(..SAMPLE.min(b.len())))
        && received.get(tail..) == expected.get(tail..)
}
