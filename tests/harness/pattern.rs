//! Bytes that say where they stand, so that a lost, doubled or moved byte of gigabytes is found.

use std::io::{self, Read, Write};

const BLOCK: usize = 64 * 1024;

/// The pattern from position 0 on. Every eight bytes hold their own index, scrambled by an odd factor and `seed`.
#[derive(Debug, Clone)]
pub struct Pattern {
    seed: u64,
    at: u64,
    block: Vec<u8>,
    used: usize,
}

impl Pattern {
    /// A pattern; different seeds differ at nearly every byte.
    pub fn new(seed: u64) -> Self {
        Self { seed, at: 0, block: vec![0; BLOCK], used: BLOCK }
    }

    /// Up to `max` next bytes of it, at least one.
    pub fn next(&mut self, max: usize) -> &[u8] {
        if self.used == BLOCK {
            self.fill();
        }
        let end = BLOCK.min(self.used + max.max(1));
        let part = &self.block[self.used..end];
        self.used = end;
        part
    }

    /// Writes `bytes` of it.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write(mut self, to: &mut impl Write, bytes: u64) -> io::Result<()> {
        let mut left = bytes;
        while left > 0 {
            let part = self.next(usize::try_from(left).unwrap_or(BLOCK));
            left -= part.len() as u64;
            to.write_all(part)?;
        }
        Ok(())
    }

    /// Reads `bytes` and compares.
    ///
    /// # Errors
    /// Those of the reader; `UnexpectedEof` when it ends early; `InvalidData` at the first byte that differs.
    pub fn expect(mut self, from: &mut impl Read, bytes: u64) -> io::Result<()> {
        let mut buffer = vec![0; BLOCK];
        let mut seen = 0_u64;
        while seen < bytes {
            let room = BLOCK.min(usize::try_from(bytes - seen).unwrap_or(BLOCK));
            let got = from.read(&mut buffer[..room])?;
            if got == 0 {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    format!("ended at {seen} of {bytes}"),
                ));
            }
            self.compare(&buffer[..got], seen)?;
            seen += got as u64;
        }
        Ok(())
    }

    fn compare(&mut self, mut got: &[u8], at: u64) -> io::Result<()> {
        let mut offset = at;
        while !got.is_empty() {
            let want = self.next(got.len());
            if &got[..want.len()] != want {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("bytes after {offset} differ"),
                ));
            }
            offset += want.len() as u64;
            got = &got[want.len()..];
        }
        Ok(())
    }

    fn fill(&mut self) {
        for (index, word) in (self.at / 8..).zip(self.block.chunks_exact_mut(8)) {
            word.copy_from_slice(&(index ^ self.seed).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes());
        }
        self.at += BLOCK as u64;
        self.used = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_changed_a_lost_and_a_missing_byte() {
        let mut bytes = Vec::new();
        Pattern::new(7).write(&mut bytes, 200_001).unwrap();
        assert_eq!(bytes.len(), 200_001);
        Pattern::new(7).expect(&mut &bytes[..], 200_001).unwrap();

        let mut changed = bytes.clone();
        changed[150_000] ^= 1;
        assert_eq!(
            Pattern::new(7).expect(&mut &changed[..], 200_001).unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
        let mut lost = bytes.clone();
        lost.remove(70_000);
        assert_eq!(
            Pattern::new(7).expect(&mut &lost[..], 200_000).unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
        let short = Pattern::new(7).expect(&mut &bytes[..100], 200_001).unwrap_err();
        assert_eq!(short.kind(), io::ErrorKind::UnexpectedEof);
        assert!(Pattern::new(8).expect(&mut &bytes[..], 8).is_err());
    }
}
