//! HTTP/1 heads (RFC 9112), strict: find the end, parse, rewrite for the next hop.
//!
//! `scan` finds where a head ends in a buffer that grows; `request` and `response` turn a whole head into typed
//! values whose fields are spans of it, so that case, order and duplicates survive; `forward` writes it for the
//! next hop. Not here: bodies (`wire::body`), and what a target is allowed to be (policy).
//!
//! Invariant: a head that two parsers could frame differently is refused. Where RFC 9112 lets a recipient repair,
//! this one does not: a repeated Content-Length is refused even where the values agree, and a transfer coding
//! is `chunked` or an error.

mod fields;
pub mod forward;
mod request;
mod response;
mod scan;

use std::fmt;

pub use fields::Field;
#[cfg(any(test, feature = "fuzz"))]
pub use request::fuzz as fuzz_request;
pub use request::{Method, Request, Target};
pub use response::Response;
#[cfg(any(test, feature = "fuzz"))]
pub use response::fuzz as fuzz_response;
pub use scan::HeadScan;

use crate::wire::syntax::LineFault;
use crate::wire::target::TargetError;

/// The versions of HTTP that are spoken here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
}

/// How the end of a message's body is known (RFC 9112, 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    None,
    /// So many bytes, at most 2^63 - 1.
    Length(u64),
    /// The chunked coding, with its trailer section.
    Chunked,
    /// Everything until the connection ends; responses only.
    UntilClose,
}

/// Why a head is refused, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadError {
    /// What is wrong.
    pub kind: HeadErrorKind,
    /// Offset of the offending byte or line in the bytes of the head.
    pub at: usize,
}

impl HeadError {
    /// Whether Host field and target disagree: 421 rather than 400.
    pub fn is_authority_mismatch(&self) -> bool {
        self.kind == HeadErrorKind::HostMismatch
    }

    pub(crate) fn new(kind: HeadErrorKind, at: usize) -> Self {
        Self { kind, at }
    }
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (at byte {} of the head)", self.kind, self.at)
    }
}

impl std::error::Error for HeadError {}

macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal;)+) => {
        /// What is wrong with a head.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum HeadErrorKind {
            /// The request target has no canonical form, or is of a form that the method does not take.
            BadTarget(TargetError),
            /// The Host field has no canonical form.
            BadHost(TargetError),
            $($(#[doc = $doc])+ $name,)+
        }

        impl fmt::Display for HeadErrorKind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    HeadErrorKind::BadTarget(error) => write!(f, "request target: {error}"),
                    HeadErrorKind::BadHost(error) => write!(f, "Host field: {error}"),
                    $(HeadErrorKind::$name => f.write_str($text),)+
                }
            }
        }
    };
}

kinds! {
    /// More than `HEAD_BYTES_MAX`.
    TooLong = "the head is longer than 64 KiB";
    /// More than `FIRST_LINE_BYTES_MAX`.
    FirstLineTooLong = "the first line is longer than 16 KiB";
    /// More than `HEAD_FIELDS_MAX` fields, or connection options.
    TooManyFields = "more than 128 header fields or connection options";
    /// CR without LF (RFC 9112, 2.2).
    BareCr = "CR without LF";
    /// LF without CR.
    BareLf = "LF without CR";
    /// A control byte other than HTAB in a field, or any in the first line.
    Control = "a control byte";
    /// The bytes end before the head does, or go on behind it.
    Unfinished = "the bytes are not exactly one head";
    /// The method is no token.
    BadMethod = "the method is no token followed by one space";
    /// The request line is not method, space, target, space, version.
    BadRequestLine = "the request line is not method, target and version, one space apart";
    /// The status line is not version, space, three digits.
    BadStatusLine = "the status line is not version and three digits";
    /// A version other than HTTP/1.0 and HTTP/1.1, or none.
    BadVersion = "the version is neither HTTP/1.1 nor HTTP/1.0";
    /// The preface of HTTP/2 in clear (RFC 9113, 3.4).
    Http2 = "HTTP/2 in clear is not spoken here; use HTTP/1.1";
    /// `*` with a method other than OPTIONS (RFC 9112, 3.2.4).
    Asterisk = "the target * goes with OPTIONS only";
    /// obs-fold, or a space in front of the first field.
    Fold = "a field line that begins with white space";
    /// No name in front of the colon.
    NameEmpty = "a field without a name";
    /// White space between name and colon.
    SpaceBeforeColon = "white space between field name and colon";
    /// A byte that no token holds.
    NameByte = "a byte in a field name that no token holds";
    /// HTTP/1.1 without Host (RFC 9112, 3.2).
    HostMissing = "HTTP/1.1 without a Host field";
    /// Several Host fields.
    HostRepeated = "several Host fields";
    /// Host names something else than the target.
    HostMismatch = "the Host field names something else than the request target";
    /// Content-Length is not digits up to 2^63 - 1.
    LengthMalformed = "Content-Length is not a number of at most 2^63 - 1";
    /// Several Content-Length fields, equal or not.
    LengthRepeated = "several Content-Length fields";
    /// Content-Length beside Transfer-Encoding (RFC 9112, 6.1).
    LengthAndCoding = "Content-Length beside Transfer-Encoding";
    /// A transfer coding other than exactly `chunked`.
    Coding = "Transfer-Encoding is not exactly chunked";
    /// Several Transfer-Encoding fields.
    CodingRepeated = "several Transfer-Encoding fields";
    /// Transfer-Encoding in HTTP/1.0 (RFC 9112, 6.1).
    CodingInHttp10 = "Transfer-Encoding in HTTP/1.0";
    /// A CONNECT that announces a body (RFC 9110, 9.3.6).
    ConnectBody = "a CONNECT that announces a body";
}

impl From<(LineFault, usize)> for HeadError {
    fn from((fault, at): (LineFault, usize)) -> Self {
        let kind = match fault {
            LineFault::Fold => HeadErrorKind::Fold,
            LineFault::NameEmpty => HeadErrorKind::NameEmpty,
            LineFault::SpaceBeforeColon => HeadErrorKind::SpaceBeforeColon,
            LineFault::NameByte => HeadErrorKind::NameByte,
            LineFault::Control => HeadErrorKind::Control,
            LineFault::BareCr => HeadErrorKind::BareCr,
            LineFault::BareLf => HeadErrorKind::BareLf,
            LineFault::Unfinished => HeadErrorKind::Unfinished,
        };
        HeadError { kind, at }
    }
}
