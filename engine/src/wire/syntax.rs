//! What the HTTP/1 parsers share: character classes, the search for the end of a line, and the field line.
//!
//! Not here: what a field means (that is `head::fields`), and where a message ends (`head::scan`, `body`).
//! Invariant: nothing here accepts a control byte other than HTAB inside a value, or anything but a token as a name.

use crate::wire::Span;

/// Whether a byte may stand in a token (RFC 9110, 5.6.2): method, field name, connection option.
pub(crate) fn is_token_byte(byte: u8) -> bool {
    TOKEN.get(usize::from(byte)).copied().unwrap_or(false)
}

static TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    #[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
    while byte < 256 {
        #[expect(clippy::cast_possible_truncation, reason = "below 256")]
        let is_token = (byte as u8).is_ascii_alphanumeric();
        table[byte] = is_token;
        byte += 1;
    }
    let marks = b"!#$%&'*+-.^_`|~";
    let mut at = 0;
    #[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
    while at < marks.len() {
        table[marks[at] as usize] = true;
        at += 1;
    }
    table
};

/// Index of the first control byte (under 0x20, or DEL) at or after `from`; the length where there is none.
///
/// Eight bytes at a time: in each word the lowest marked byte is exact, and only that one is used.
pub(crate) fn find_control(bytes: &[u8], from: usize) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let mut at = from;
    while let Some(&word) = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        let word = u64::from_le_bytes(word);
        let below_space = word.wrapping_sub(ONES * 0x20) & !word;
        let del = word ^ (ONES * 0x7f);
        let is_del = del.wrapping_sub(ONES) & !del;
        let marks = (below_space | is_del) & HIGHS;
        if marks != 0 {
            return at + (marks.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    let tail = bytes.get(at..).unwrap_or_default();
    at + tail.iter().position(u8::is_ascii_control).unwrap_or(tail.len())
}

/// One field line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FieldLine {
    /// The name, a token.
    pub(crate) name: Span,
    /// The value without the white space around it; may be empty.
    pub(crate) value: Span,
    /// Where the next line begins.
    pub(crate) next: usize,
}

/// What is wrong with a field line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LineFault {
    /// It begins with white space: obs-fold (RFC 9112, 5.2), or a space before the first field.
    Fold,
    /// No name in front of the colon.
    NameEmpty,
    /// White space between name and colon (RFC 9112, 5.1).
    SpaceBeforeColon,
    /// A byte in the name that no token holds.
    NameByte,
    /// A control byte in the value.
    Control,
    /// CR without LF.
    BareCr,
    /// LF without CR.
    BareLf,
    /// The bytes end before the line does.
    Unfinished,
}

/// Reads the field line that begins at `at`; the fault comes with its offset.
pub(crate) fn field_line(bytes: &[u8], at: usize) -> Result<FieldLine, (LineFault, usize)> {
    let line = bytes.get(at..).unwrap_or_default();
    let name_len = line.iter().position(|&b| !is_token_byte(b)).unwrap_or(line.len());
    let colon = at + name_len;
    match (line.get(name_len), name_len) {
        (Some(b':'), 1..) => {}
        (Some(b':'), 0) => return Err((LineFault::NameEmpty, colon)),
        (Some(b' ' | b'\t'), 0) => return Err((LineFault::Fold, colon)),
        (Some(b' ' | b'\t'), _) => return Err((LineFault::SpaceBeforeColon, colon)),
        (Some(b'\n'), _) => return Err((LineFault::BareLf, colon)),
        (Some(_), _) => return Err((LineFault::NameByte, colon)),
        (None, _) => return Err((LineFault::Unfinished, colon)),
    }
    let end = value_end(bytes, colon + 1)?;
    Ok(FieldLine { name: Span::new(at, colon), value: trim(bytes, colon + 1, end), next: end + 2 })
}

/// Index of the CR that ends the text beginning at `from`; HTAB passes.
pub(crate) fn value_end(bytes: &[u8], from: usize) -> Result<usize, (LineFault, usize)> {
    let mut at = from;
    loop {
        at = find_control(bytes, at);
        return match (bytes.get(at), bytes.get(at + 1)) {
            (Some(b'\t'), _) => {
                at += 1;
                continue;
            }
            (Some(b'\r'), Some(b'\n')) => Ok(at),
            (Some(b'\r'), Some(_)) => Err((LineFault::BareCr, at)),
            (Some(b'\n'), _) => Err((LineFault::BareLf, at)),
            (None, _) | (Some(b'\r'), None) => Err((LineFault::Unfinished, at)),
            (Some(_), _) => Err((LineFault::Control, at)),
        };
    }
}

/// The elements of a comma-separated list, trimmed, without the empty ones (RFC 9110, 5.6.1).
pub(crate) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&b| b == b',').map(<[u8]>::trim_ascii).filter(|element| !element.is_empty())
}

/// The span `start..end` without spaces and tabs at either side.
fn trim(bytes: &[u8], start: usize, end: usize) -> Span {
    let text = bytes.get(start..end).unwrap_or_default();
    let is_text = |b: &u8| !matches!(b, b' ' | b'\t');
    let first = text.iter().position(is_text).unwrap_or(text.len());
    let last = text.iter().rposition(is_text).map_or(first, |at| at + 1);
    Span::new(start + first, start + last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_bytes_are_found_wherever_they_stand() {
        for len in 0..40 {
            for at in 0..len {
                for control in (0..0x20).chain([0x7f]) {
                    // Neighbours that a careless carry would mark: 0x20, 0x21, 0x7e, 0x80 and 0xff.
                    for around in [b' ', b'!', b'~', 0x80, 0xff] {
                        let mut bytes = vec![around; len];
                        bytes[at] = control;
                        assert_eq!(find_control(&bytes, 0), at);
                        assert_eq!(find_control(&bytes, at + 1), len);
                    }
                }
            }
        }
        let clean: Vec<u8> = (0x20..0x7f).chain(0x80..=0xff).collect();
        assert_eq!(find_control(&clean, 0), clean.len());
    }

    #[test]
    fn tokens_are_those_of_rfc_9110() {
        let allowed: Vec<u8> = (0..=255).filter(|&b| is_token_byte(b)).collect();
        let mut expected: Vec<u8> = (b'0'..=b'9').chain(b'A'..=b'Z').chain(b'a'..=b'z').collect();
        expected.extend(b"!#$%&'*+-.^_`|~");
        expected.sort_unstable();
        assert_eq!(allowed, expected);
    }

    #[test]
    fn field_lines_split_at_the_first_colon() {
        let line = b"x\tA: b : c\t \r\nnext";
        assert_eq!(field_line(line, 0).unwrap_err(), (LineFault::SpaceBeforeColon, 1));
        let field = field_line(line, 2).unwrap();
        assert_eq!((field.name.of(line), field.value.of(line), field.next), (&b"A"[..], &b"b : c"[..], 14));
        for (line, fault) in [
            (&b"A:\r\n"[..], None),
            (b"A:   \r\n", None),
            (b":b\r\n", Some(LineFault::NameEmpty)),
            (b" A: b\r\n", Some(LineFault::Fold)),
            (b"A : b\r\n", Some(LineFault::SpaceBeforeColon)),
            (b"A@: b\r\n", Some(LineFault::NameByte)),
            (b"A\r\n", Some(LineFault::NameByte)),
            (b"A: b\n", Some(LineFault::BareLf)),
            (b"A: b\rc\r\n", Some(LineFault::BareCr)),
            (b"A: b\0\r\n", Some(LineFault::Control)),
            (b"A: b\x7f\r\n", Some(LineFault::Control)),
            (b"A: b\r", Some(LineFault::Unfinished)),
            (b"A", Some(LineFault::Unfinished)),
        ] {
            assert_eq!(field_line(line, 0).err().map(|(fault, _)| fault), fault, "{}", line.escape_ascii());
        }
    }
}
