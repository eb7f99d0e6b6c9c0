//! Message bodies: how many of these bytes belong to this body (RFC 9112, 6 and 7.1).
//!
//! Bodies are relayed as spelled, so nothing is decoded; the chunked coding is followed, strictly, to its end.
//! Invariant: a line of the coding (chunk size, trailer) is reported as consumed only when it is complete and
//! accepted. What is refused never reaches the other side, not even in part, and the body then stays cut short.
//!
//! ```text
//! Size -- "0" --------> Trailers -- empty line --> Done
//!   | ^                 | ^ field line
//!   v | CRLF            +-+
//! Data -> DataEnd
//! ```

use std::fmt;

use crate::limits::{CHUNK_LINE_BYTES_MAX, HEAD_FIELDS_MAX, TRAILER_BYTES_MAX};
use crate::wire::head::Framing;
use crate::wire::syntax::{LineFault, field_line, is_token_byte, value_end};

/// Follows one body to its end.
#[derive(Debug, Clone)]
pub struct Body {
    state: State,
    /// Bytes of the unfinished line, at the front of the next buffer, that have been looked at.
    seen: usize,
    /// Bytes and lines of the trailer section so far.
    trailer_bytes: usize,
    trailer_lines: usize,
}

/// What became of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// So many bytes at its front belong to the body and may be relayed. The rest is an unfinished line of the
    /// coding, which must come again at the front of the next buffer, or, when `done`, the next message.
    pub consumed: usize,
    /// The body is complete.
    pub done: bool,
}

/// Why a body is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyError {
    /// A chunk size that is not plain hexadecimal digits, or over 2^63 - 1.
    ChunkSize,
    /// A chunk-size line of more than `CHUNK_LINE_BYTES_MAX`.
    ChunkLineTooLong,
    /// A chunk extension that is none (RFC 9112, 7.1.1), or a line end that is not CRLF.
    ChunkLine,
    /// The data of a chunk is not followed by CRLF.
    ChunkEnd,
    /// A trailer line that is no field line.
    Trailer,
    /// A field that frames, routes, authenticates or describes the message (RFC 9110, 6.5.1).
    TrailerForbidden,
    /// A trailer section of more than `TRAILER_BYTES_MAX` or `HEAD_FIELDS_MAX` lines.
    TrailerTooLong,
    /// The connection ended before the body did.
    CutShort,
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BodyError::ChunkSize => "a chunk size that is not a hexadecimal number of at most 2^63 - 1",
            BodyError::ChunkLineTooLong => "a chunk-size line of more than 256 bytes",
            BodyError::ChunkLine => "a chunk-size line with a malformed extension or without CRLF",
            BodyError::ChunkEnd => "chunk data that no CRLF ends",
            BodyError::Trailer => "a trailer line that is no field line",
            BodyError::TrailerForbidden => "a trailer field that frames, routes or authenticates the message",
            BodyError::TrailerTooLong => "a trailer section of more than 8 KiB or 128 fields",
            BodyError::CutShort => "the connection ended before the body did",
        })
    }
}

impl std::error::Error for BodyError {}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Bytes left, of a body of known length.
    Length(u64),
    UntilClose,
    /// At a chunk-size line.
    Size,
    /// Bytes left in a chunk.
    Data(u64),
    /// At the CRLF behind the data.
    DataEnd,
    /// At a trailer line.
    Trailers,
    Done,
}

impl Body {
    /// A body of which nothing has been read.
    pub fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::None | Framing::Length(0) => State::Done,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Size,
            Framing::UntilClose => State::UntilClose,
        };
        Self { state, seen: 0, trailer_bytes: 0, trailer_lines: 0 }
    }

    /// Whether the body is complete. True from the start where there is none.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// So many of the next bytes are body, whatever they are: a relay may move them without looking, and must
    /// say so with `skip`. Zero at a line of the chunked coding and at the end.
    pub fn opaque(&self) -> u64 {
        match self.state {
            State::Length(left) | State::Data(left) => left,
            State::UntilClose => u64::MAX,
            State::Size | State::DataEnd | State::Trailers | State::Done => 0,
        }
    }

    /// Counts `moved` bytes, at most `opaque()`, that were relayed unseen.
    pub fn skip(&mut self, moved: u64) {
        self.state = match self.state {
            State::Length(left) if moved >= left => State::Done,
            State::Length(left) => State::Length(left - moved),
            State::Data(left) if moved >= left => State::DataEnd,
            State::Data(left) => State::Data(left - moved),
            other => other,
        };
    }

    /// Looks at the next bytes. They begin where the last call's `consumed` ended.
    ///
    /// # Errors
    /// When the bytes break the chunked coding. Call it no more then; nothing of this call may be relayed, and
    /// what earlier calls consumed stays a body cut short.
    pub fn advance(&mut self, buf: &[u8]) -> Result<Progress, BodyError> {
        let mut at = 0;
        loop {
            let rest = buf.get(at..).unwrap_or_default();
            let taken = match self.state {
                State::Done => return Ok(Progress { consumed: at, done: true }),
                State::UntilClose | State::Length(_) | State::Data(_) => self.take_opaque(rest.len()),
                State::Size => self.size_line(rest)?,
                State::DataEnd => self.data_end(rest)?,
                State::Trailers => self.trailer_line(rest)?,
            };
            if taken == 0 {
                return Ok(Progress { consumed: at, done: false });
            }
            at += taken;
        }
    }

    /// The connection has ended.
    ///
    /// # Errors
    /// `CutShort` where the body has not.
    pub fn finish(&mut self) -> Result<(), BodyError> {
        match self.state {
            State::Done | State::UntilClose => {
                self.state = State::Done;
                Ok(())
            }
            State::Length(_) | State::Size | State::Data(_) | State::DataEnd | State::Trailers => {
                Err(BodyError::CutShort)
            }
        }
    }

    fn take_opaque(&mut self, len: usize) -> usize {
        let taken = usize::try_from(self.opaque()).unwrap_or(usize::MAX).min(len);
        self.skip(taken as u64);
        taken
    }

    /// RFC 9112, 7.1: size, extensions, CRLF. Answers the length of the line, zero until it is complete.
    fn size_line(&mut self, rest: &[u8]) -> Result<usize, BodyError> {
        let line = rest.get(..CHUNK_LINE_BYTES_MAX).unwrap_or(rest);
        let digits = line.iter().take(SIZE_DIGITS_MAX + 1).take_while(|b| b.is_ascii_hexdigit()).count();
        let size = parse_size(line.get(..digits).unwrap_or_default())?;
        match line.get(digits) {
            // White space around `;` is for lenient readers of old; here a size ends with `;` or CR.
            Some(b';' | b'\r') if digits > 0 => {}
            None => return Ok(0),
            Some(_) => return Err(BodyError::ChunkSize),
        }
        match value_end(line, self.seen.max(digits)) {
            Ok(end) => {
                if !is_extension_list(line.get(digits..end).unwrap_or_default()) {
                    return Err(BodyError::ChunkLine);
                }
                self.seen = 0;
                self.state = if size == 0 { State::Trailers } else { State::Data(size) };
                Ok(end + 2)
            }
            Err((LineFault::Unfinished, _)) if line.len() == CHUNK_LINE_BYTES_MAX => {
                Err(BodyError::ChunkLineTooLong)
            }
            Err((LineFault::Unfinished, at)) => {
                self.seen = at;
                Ok(0)
            }
            Err(_) => Err(BodyError::ChunkLine),
        }
    }

    fn data_end(&mut self, rest: &[u8]) -> Result<usize, BodyError> {
        match rest {
            [b'\r', b'\n', ..] => {
                self.state = State::Size;
                Ok(2)
            }
            [] | [b'\r'] => Ok(0),
            _ => Err(BodyError::ChunkEnd),
        }
    }

    /// RFC 9112, 7.1.2: a field line, or the empty line that ends the body.
    fn trailer_line(&mut self, rest: &[u8]) -> Result<usize, BodyError> {
        let room = TRAILER_BYTES_MAX - self.trailer_bytes;
        let line = rest.get(..room).unwrap_or(rest);
        let end = match value_end(line, self.seen) {
            Ok(end) => end,
            Err((LineFault::Unfinished, _)) if line.len() == room => return Err(BodyError::TrailerTooLong),
            Err((LineFault::Unfinished, at)) => {
                self.seen = at;
                return Ok(0);
            }
            Err(_) => return Err(BodyError::Trailer),
        };
        if end == 0 {
            self.state = State::Done;
        } else {
            let field = field_line(line, 0).map_err(|_| BodyError::Trailer)?;
            if is_forbidden_trailer(field.name.of(line)) {
                return Err(BodyError::TrailerForbidden);
            }
            self.trailer_lines += 1;
            if self.trailer_lines > HEAD_FIELDS_MAX {
                return Err(BodyError::TrailerTooLong);
            }
        }
        self.seen = 0;
        self.trailer_bytes += end + 2;
        Ok(end + 2)
    }
}

/// Digits of a chunk size. Sixteen hold every size; more are zeros, or a bet on how others overflow.
const SIZE_DIGITS_MAX: usize = 16;

fn parse_size(digits: &[u8]) -> Result<u64, BodyError> {
    if digits.len() > SIZE_DIGITS_MAX {
        return Err(BodyError::ChunkSize);
    }
    let value = digits.iter().fold(0_u64, |sum, &byte| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            _ => (byte | 0x20) - b'a' + 10,
        };
        sum << 4 | u64::from(digit)
    });
    i64::try_from(value).map(|_| value).map_err(|_| BodyError::ChunkSize)
}

/// RFC 9112, 7.1.1: any number of `;name`, `;name=token` and `;name="text"`. White space may stand around `=` and
/// behind `;`, as the grammar has it for those who still send it.
fn is_extension_list(mut text: &[u8]) -> bool {
    while let [b';', rest @ ..] = text {
        let Some(rest) = skip_token(rest.trim_ascii_start()) else { return false };
        text = rest.trim_ascii_start();
        if let [b'=', value @ ..] = text {
            let value = value.trim_ascii_start();
            let rest = if let [b'"', quoted @ ..] = value { skip_quoted(quoted) } else { skip_token(value) };
            let Some(rest) = rest else { return false };
            text = rest.trim_ascii_start();
        }
    }
    text.is_empty()
}

/// What follows a token.
fn skip_token(text: &[u8]) -> Option<&[u8]> {
    let len = text.iter().take_while(|&&b| is_token_byte(b)).count();
    if len == 0 { None } else { text.get(len..) }
}

/// What follows the closing quote of a quoted string (RFC 9110, 5.6.4), its opening one already taken.
fn skip_quoted(mut text: &[u8]) -> Option<&[u8]> {
    loop {
        text = match text {
            [b'"', rest @ ..] => return Some(rest),
            [b'\\', _, rest @ ..] => rest,
            [b'\\'] | [] => return None,
            [_, rest @ ..] => rest,
        };
    }
}

/// RFC 9110, 6.5.1: what frames, routes, authenticates, modifies or describes the message stands in its head.
fn is_forbidden_trailer(name: &[u8]) -> bool {
    const NAMES: [&str; 36] = [
        "age",
        "authorization",
        "cache-control",
        "connection",
        "content-encoding",
        "content-length",
        "content-range",
        "content-type",
        "cookie",
        "date",
        "expect",
        "expires",
        "forwarded",
        "host",
        "if-match",
        "if-modified-since",
        "if-none-match",
        "if-range",
        "if-unmodified-since",
        "keep-alive",
        "location",
        "max-forwards",
        "origin",
        "pragma",
        "range",
        "retry-after",
        "set-cookie",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "vary",
        "via",
        "warning",
        "www-authenticate",
        "x-forwarded-for",
    ];
    let is_proxy = name.get(..6).is_some_and(|start| start.eq_ignore_ascii_case(b"proxy-"));
    is_proxy || NAMES.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
}

/// Any bytes, as a chunked body: every split gives the same end or error at the same line, a plain decoder reads
/// the same length, and nothing is consumed that a refusal concerns.
#[cfg(any(test, feature = "fuzz"))]
pub fn fuzz(data: &[u8]) {
    let whole = run(data, usize::MAX);
    for step in [1, 2, 7] {
        let (consumed, end) = run(data, step);
        assert_eq!(end, whole.1, "in steps of {step}");
        // An error throws away what the same call had consumed, so a finer split may consume more, never less.
        assert!(consumed == whole.0 || (end.is_err() && consumed > whole.0));
    }
    let (_, finest) = (whole.0, run(data, 1));
    assert_eq!(finest.1.ok(), oracle::decode(data), "the plain decoder");
}

/// Feeds `data` in steps; answers the bytes consumed, and `Ok(Some(length))` at the end, `Ok(None)` for more.
#[cfg(any(test, feature = "fuzz"))]
fn run(data: &[u8], step: usize) -> (usize, Result<Option<usize>, BodyError>) {
    let mut body = Body::new(Framing::Chunked);
    let (mut start, mut end) = (0, 0_usize);
    loop {
        end = data.len().min(end.saturating_add(step));
        match body.advance(data.get(start..end).unwrap_or_default()) {
            Ok(progress) => {
                start += progress.consumed;
                if progress.done {
                    return (start, Ok(Some(start)));
                }
            }
            Err(error) => return (start, Err(error)),
        }
        if end == data.len() {
            return (start, Ok(None));
        }
    }
}

#[cfg(any(test, feature = "fuzz"))]
mod oracle {
    //! The chunked coding read the slow and simple way, whole lines at a time.

    use super::{is_extension_list, is_forbidden_trailer};
    use crate::limits::{CHUNK_LINE_BYTES_MAX, HEAD_FIELDS_MAX, TRAILER_BYTES_MAX};

    /// None for an error, Some(None) for unfinished, Some(Some(length)) for a whole body.
    pub(super) fn decode(data: &[u8]) -> Option<Option<usize>> {
        let mut rest = data;
        loop {
            let Some(line) = take_line(&mut rest, CHUNK_LINE_BYTES_MAX)? else {
                return is_size_prefix(rest).then_some(None);
            };
            let text = std::str::from_utf8(line.split(|&b| b == b';').next()?).ok()?;
            if !is_extension_list(line.get(text.len()..)?) {
                return None;
            }
            if text.starts_with('+') || text.len() > 16 {
                return None;
            }
            let size = u64::from_str_radix(text, 16).ok().filter(|&size| size < 1 << 63)?;
            if size == 0 {
                return trailers(data, rest);
            }
            let Some(after) = usize::try_from(size).ok().and_then(|size| rest.get(size..)) else {
                return Some(None);
            };
            match after {
                [] | [b'\r'] => return Some(None),
                [b'\r', b'\n', tail @ ..] => rest = tail,
                _ => return None,
            }
        }
    }

    fn trailers(data: &[u8], section: &[u8]) -> Option<Option<usize>> {
        let mut rest = section;
        for count in 0.. {
            let room = TRAILER_BYTES_MAX - (section.len() - rest.len());
            let Some(line) = take_line(&mut rest, room)? else { return Some(None) };
            if line.is_empty() {
                return Some(Some(data.len() - rest.len()));
            }
            let colon = line.iter().position(|&b| b == b':').filter(|&at| at > 0)?;
            let name = line.get(..colon)?;
            let is_token = |&b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
            if !name.iter().all(is_token) || is_forbidden_trailer(name) || count == HEAD_FIELDS_MAX {
                return None;
            }
        }
        None
    }

    /// The next line without its CRLF; None for a byte that no line holds or a line too long.
    fn take_line<'a>(rest: &mut &'a [u8], room: usize) -> Option<Option<&'a [u8]>> {
        for (at, &byte) in rest.iter().enumerate().take(room) {
            match (byte, rest.get(at + 1)) {
                (b'\r', Some(b'\n')) if at + 2 <= room => {
                    let line = rest.get(..at);
                    *rest = rest.get(at + 2..).unwrap_or_default();
                    return Some(line);
                }
                (b'\r', Some(_)) => return None,
                (b'\r', None) | (b'\t', _) => {}
                _ if byte.is_ascii_control() => return None,
                _ => {}
            }
        }
        (rest.len() < room).then_some(None)
    }

    /// Whether an unfinished size line can still become a good one.
    fn is_size_prefix(line: &[u8]) -> bool {
        let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
        let text = line.get(..digits).and_then(|text| std::str::from_utf8(text).ok()).unwrap_or_default();
        let fits = text.is_empty() || u64::from_str_radix(text, 16).is_ok_and(|size| size < 1 << 63);
        let follows = match line.get(digits) {
            None => true,
            Some(b';' | b'\r') => digits > 0,
            Some(_) => false,
        };
        digits <= 16 && fits && follows
    }
}

#[cfg(test)]
mod tests;
