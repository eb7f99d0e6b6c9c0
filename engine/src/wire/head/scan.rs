//! Where a head ends, in a buffer that grows.
//!
//! Only line structure and bounds are judged here, so that a peer that breaks them is refused at the byte where
//! it does, not when its deadline is over. What the lines say is `request` and `response`.
//!
//! ```text
//!           CRLF (once, requests)           text CRLF             CRLF
//! [first line] -> [first line] ... [first line] -> [field line]* -> end
//! ```

use crate::limits::{FIRST_LINE_BYTES_MAX, HEAD_BYTES_MAX, HEAD_FIELDS_MAX};
use crate::wire::Step;
use crate::wire::head::{HeadError, HeadErrorKind};
use crate::wire::syntax::find_control;

/// Finds the end of one head. Keep one for each message; it remembers how far it has looked.
///
/// One empty line in front of a request is passed over (RFC 9112, 2.2: clients of old sent one behind a body);
/// it belongs to the head that comes out, and `Request::parse` knows it. A second one ends in an error there.
#[derive(Debug, Clone, Default)]
pub struct HeadScan {
    /// Everything in front of it has been looked at.
    at: usize,
    /// Where the current line begins.
    line: usize,
    /// Lines that ended so far, the empty one in front not counted.
    lines: usize,
}

impl HeadScan {
    /// For a message whose first byte is the first byte of the buffer.
    pub fn new() -> Self {
        Self::default()
    }

    /// Looks at `buf`, which begins with the message and holds at least what it held before. Done names the
    /// length of the head, its last CRLF included; what follows it is body or the next message.
    ///
    /// # Errors
    /// Bare CR or LF, a control byte other than HTAB, a bound exceeded; each as soon as it can be seen.
    pub fn scan(&mut self, buf: &[u8]) -> Result<Step<usize>, HeadError> {
        let seen = buf.get(..HEAD_BYTES_MAX).unwrap_or(buf);
        loop {
            let at = find_control(seen, self.at);
            // The bound before the find, so that the answer does not depend on how much came at once.
            if self.lines == 0 && at - self.line > FIRST_LINE_BYTES_MAX {
                return Err(HeadError::new(
                    HeadErrorKind::FirstLineTooLong,
                    self.line + FIRST_LINE_BYTES_MAX,
                ));
            }
            self.at = at;
            match (seen.get(at), seen.get(at + 1)) {
                (Some(b'\t'), _) => self.at = at + 1,
                (Some(b'\r'), Some(b'\n')) => {
                    if self.end_line(at)? {
                        return Ok(Step::Done(self.at));
                    }
                }
                (Some(b'\r'), Some(_)) => return Err(HeadError::new(HeadErrorKind::BareCr, at)),
                (Some(b'\n'), _) => return Err(HeadError::new(HeadErrorKind::BareLf, at)),
                (Some(b'\r') | None, None) if seen.len() == HEAD_BYTES_MAX => {
                    return Err(HeadError::new(HeadErrorKind::TooLong, HEAD_BYTES_MAX));
                }
                (Some(b'\r') | None, _) => return Ok(Step::More),
                (Some(_), _) => return Err(HeadError::new(HeadErrorKind::Control, at)),
            }
        }
    }

    /// The line ends with the CR at `cr`; true where it is the empty one behind the fields.
    fn end_line(&mut self, cr: usize) -> Result<bool, HeadError> {
        let is_empty = cr == self.line;
        let is_leading = is_empty && cr == 0;
        self.at = cr + 2;
        self.line = self.at;
        if is_empty && !is_leading {
            return Ok(true);
        }
        self.lines += usize::from(!is_leading);
        if self.lines > 1 + HEAD_FIELDS_MAX {
            return Err(HeadError::new(HeadErrorKind::TooManyFields, cr));
        }
        Ok(false)
    }
}

/// Any bytes: every split gives the answer of the whole, an accepted head ends where a naive search says.
#[cfg(any(test, feature = "fuzz"))]
pub(crate) fn fuzz(data: &[u8]) {
    let whole = HeadScan::new().scan(data);
    let mut stepwise = HeadScan::new();
    let mut answer = Ok(Step::More);
    for len in 0..=data.len() {
        answer = stepwise.scan(data.get(..len).unwrap_or_default());
        if answer != Ok(Step::More) {
            break;
        }
    }
    assert_eq!(answer, whole, "byte by byte");
    let mut split = HeadScan::new();
    let half = data.get(..data.len() / 2).unwrap_or_default();
    let first = split.scan(half);
    assert_eq!(if first == Ok(Step::More) { split.scan(data) } else { first }, whole, "in halves");
    if let Ok(Step::Done(end)) = whole {
        let naive = data.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4);
        assert!(naive == Some(end) || data.starts_with(b"\r\n"), "{naive:?} {end}");
        assert!(end <= HEAD_BYTES_MAX);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scan(bytes: &[u8]) -> Result<Step<usize>, HeadErrorKind> {
        fuzz(bytes);
        HeadScan::new().scan(bytes).map_err(|error| error.kind)
    }

    #[test]
    fn a_head_ends_with_its_empty_line() {
        let head = b"GET / HTTP/1.1\r\nHost: a.test\r\nX:\ty\r\n\r\n";
        assert_eq!(scan(head), Ok(Step::Done(head.len())));
        assert_eq!(scan(&[head, &b"GET"[..]].concat()), Ok(Step::Done(head.len())));
        for len in 0..head.len() {
            assert_eq!(scan(&head[..len]), Ok(Step::More), "{len}");
        }
        assert_eq!(scan(b"GET / HTTP/1.0\r\n\r\n"), Ok(Step::Done(18)));
    }

    #[test]
    fn one_empty_line_in_front_passes() {
        assert_eq!(scan(b"\r\nGET / HTTP/1.0\r\n\r\nx"), Ok(Step::Done(20)));
        // Two make an empty head, which no parser takes.
        assert_eq!(scan(b"\r\n\r\nGET / HTTP/1.0\r\n\r\n"), Ok(Step::Done(4)));
    }

    #[test]
    fn broken_lines_are_errors_at_once() {
        use HeadErrorKind::*;
        for (bytes, kind) in [
            (&b"GET / HTTP/1.1\n"[..], BareLf),
            (b"\n", BareLf),
            (b"GET / HTTP/1.1\rX", BareCr),
            (b"GET / HTTP/1.1\r\nA: b\rC", BareCr),
            (b"GET / HTTP/1.1\r\nA: b\n", BareLf),
            (b"GET / HTTP/1.1\r\n\rX", BareCr),
            (b"GET / HTTP/1.1\r\nA: \0", Control),
            (b"GET / HTTP/1.1\r\nA: \x7f", Control),
            (b"\x16\x03\x01", Control),
        ] {
            assert_eq!(scan(bytes), Err(kind), "{}", bytes.escape_ascii());
            assert_eq!(
                scan(&bytes[..bytes.len() - 1]),
                if bytes[0] == 0x16 { Err(Control) } else { Ok(Step::More) }
            );
        }
    }

    #[test]
    fn bounds_hold_to_the_byte() {
        let line = |len: usize| [vec![b'a'; len], b"\r\nX: y\r\n\r\n".to_vec()].concat();
        assert!(matches!(HeadScan::new().scan(&line(FIRST_LINE_BYTES_MAX)), Ok(Step::Done(_))));
        let error = HeadError::new(HeadErrorKind::FirstLineTooLong, FIRST_LINE_BYTES_MAX);
        assert_eq!(HeadScan::new().scan(&line(FIRST_LINE_BYTES_MAX + 1)), Err(error));
        assert_eq!(HeadScan::new().scan(&vec![b'a'; FIRST_LINE_BYTES_MAX + 1]), Err(error));

        let fields =
            |count: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(count)).into_bytes();
        assert!(matches!(scan(&fields(HEAD_FIELDS_MAX)), Ok(Step::Done(_))));
        assert_eq!(scan(&fields(HEAD_FIELDS_MAX + 1)), Err(HeadErrorKind::TooManyFields));

        let sized = |len: usize| {
            let mut head = b"GET / HTTP/1.1\r\nA: ".to_vec();
            head.resize(len - 4, b'x');
            head.extend(b"\r\n\r\n");
            head
        };
        assert_eq!(HeadScan::new().scan(&sized(HEAD_BYTES_MAX)), Ok(Step::Done(HEAD_BYTES_MAX)));
        let error = HeadError::new(HeadErrorKind::TooLong, HEAD_BYTES_MAX);
        assert_eq!(HeadScan::new().scan(&sized(HEAD_BYTES_MAX + 1)), Err(error));
        assert_eq!(HeadScan::new().scan(&sized(HEAD_BYTES_MAX + 1)[..HEAD_BYTES_MAX]), Err(error));
    }

    proptest! {
        #[test]
        fn splits_do_not_matter(data in "[a:\t\r\n \u{1}]{0,60}|(([a-z]{1,3}: ?[a-z]{0,9})?\r\n){0,12}") {
            fuzz(data.as_bytes());
        }
    }
}
