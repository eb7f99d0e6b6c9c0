//! Text from outside on its way into a record: secrets out, length capped, escaped.
//!
//! Not a secret scanner: it knows the shapes of tokens that are written into URLs, and takes those out.
//! A record is cleaned once, at the border (`Clean`); what is written and what is counted is the cleaned one,
//! so that the count of the running daemon and the count read back from its file agree to the letter.

use std::borrow::Cow;
use std::ops::Deref;
use std::sync::Arc;

use super::record::{Record, Verb};
use crate::limits::{RECORD_PATH_BYTES_MAX, RECORD_TEXT_BYTES_MAX};

/// What stands where a secret stood.
const REDACTED: &str = "[redacted]";

/// A record that may be written: no query, no known secret, nothing longer than its cap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clean(Record);

impl Clean {
    /// Cleans a record; nothing is copied where nothing has to change.
    pub fn new(mut record: Record) -> Self {
        match &mut record {
            Record::Decided(it) => {
                if let Some(Verb::Http(method)) = &mut it.verb {
                    clean_box(method, clean);
                }
                if let Some(target) = &mut it.target {
                    clean_box(target, clean);
                }
                if let Some(path) = &mut it.path {
                    clean_box(path, clean_path);
                }
                clean_arc(&mut it.rule);
                it.reason.iter_mut().chain(&mut it.via).for_each(clean_arc);
            }
            Record::Noted(it) => clean_box(&mut it.detail, clean),
            Record::Ended(_) => {}
        }
        Self(record)
    }

    /// A record that was cleaned when it was written.
    pub(super) fn read_back(record: Record) -> Self {
        Self(record)
    }
}

impl Deref for Clean {
    type Target = Record;

    fn deref(&self) -> &Record {
        &self.0
    }
}

fn clean_box(text: &mut Box<str>, clean: fn(&str) -> Cow<'_, str>) {
    if let Some(changed) = changed(text, clean(text)) {
        *text = changed.into();
    }
}

fn clean_arc(text: &mut Arc<str>) {
    if let Some(changed) = changed(text, clean(text)) {
        *text = changed.into();
    }
}

fn changed(before: &str, after: Cow<'_, str>) -> Option<String> {
    (*after != *before).then(|| after.into_owned())
}

/// Free text (a reason, a detail, a rule) as a record keeps it.
pub fn clean(text: &str) -> Cow<'_, str> {
    clean_to(text, RECORD_TEXT_BYTES_MAX)
}

/// A path as a record keeps it: query and fragment are never recorded.
pub fn clean_path(path: &str) -> Cow<'_, str> {
    let end = path.find(['?', '#']).unwrap_or(path.len());
    clean_to(path.get(..end).unwrap_or_default(), RECORD_PATH_BYTES_MAX)
}

/// Appends `text` as the inside of a JSON string, in printable ASCII only: whatever a terminal, a line reader
/// or a bidirectional text layout could take for more than a letter becomes `\u….`.
pub(super) fn escape(text: &str, out: &mut Vec<u8>) {
    let mut rest = text;
    while let Some(at) = rest.bytes().position(|b| !matches!(b, b' '..=b'~') || b == b'"' || b == b'\\') {
        // `at` is a character border: everything before it is ASCII.
        let (plain, special) = rest.split_at(at);
        out.extend_from_slice(plain.as_bytes());
        let mut chars = special.chars();
        match chars.next() {
            Some(quoted @ ('"' | '\\')) => out.extend_from_slice(&[b'\\', quoted as u8]),
            Some(other) => {
                for unit in other.encode_utf16(&mut [0; 2]) {
                    out.extend_from_slice(b"\\u");
                    out.extend(unit.to_be_bytes().iter().flat_map(|byte| [hex(byte >> 4), hex(byte & 15)]));
                }
            }
            None => {}
        }
        rest = chars.as_str();
    }
    out.extend_from_slice(rest.as_bytes());
}

fn hex(nibble: u8) -> u8 {
    if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 }
}

fn clean_to(text: &str, bytes_max: usize) -> Cow<'_, str> {
    // Cut before the search, so that the search is bounded; a secret that the cut halves may lose its shape,
    // so the search sees a little more than is kept.
    let window = floor(text, bytes_max + 256);
    let mut kept = redact(window);
    let whole = window.len() == text.len();
    if whole && kept.len() <= bytes_max {
        return kept;
    }
    let mark = format!("...[+{}]", (kept.len() + text.len() - window.len()).saturating_sub(bytes_max));
    let short = floor(&kept, bytes_max.saturating_sub(mark.len())).len();
    let owned = kept.to_mut();
    owned.truncate(short);
    owned.push_str(&mark);
    kept
}

/// The longest prefix of at most `bytes_max` bytes that ends at a character border.
fn floor(text: &str, bytes_max: usize) -> &str {
    let mut end = bytes_max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

fn redact(text: &str) -> Cow<'_, str> {
    // Nearly every text has none of these: one pass says so.
    let suspicious = text.len() >= 12
        && (text.contains(['@', '='])
            || words(text).any(|word| word.len() >= 16)
            || text.contains("asic ")
            || text.contains("earer "));
    if !suspicious {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut changed = false;
    for segment in text.split_inclusive(['/', ' ', ',', ';', '&']) {
        let (body, delimiter) = match segment.char_indices().next_back() {
            Some((at, '/' | ' ' | ',' | ';' | '&')) => segment.split_at(at),
            _ => (segment, ""),
        };
        let before = out.len();
        redact_segment(body, &mut out);
        changed |= out.get(before..) != Some(body);
        out.push_str(delimiter);
    }
    if changed { Cow::Owned(out) } else { Cow::Borrowed(text) }
}

/// One segment, without a delimiter in it: userinfo, `name=secret`, then tokens by their shape.
fn redact_segment(segment: &str, out: &mut String) {
    if let Some(at) = segment.rfind('@') {
        let (user, host) = segment.split_at(at);
        if user.contains(':') || (!user.is_empty() && out.ends_with("://")) {
            out.push_str(REDACTED);
            out.push_str(host);
            return;
        }
    }
    if let Some((name, value)) = segment.split_once('=')
        && !value.is_empty()
        && !value.starts_with('[')
        && SECRET_NAMES.iter().any(|secret| name.len() >= secret.len() && ends_with_word(name, secret))
    {
        redact_tokens(name, out);
        out.push('=');
        out.push_str(REDACTED);
        return;
    }
    let credentials = segment.len() >= 8
        && !segment.starts_with('[')
        && SCHEMES.iter().any(|scheme| {
            let before = out.strip_suffix(' ').unwrap_or_default();
            before.len() >= scheme.len() && ends_with_word(before, scheme)
        });
    if credentials {
        out.push_str(REDACTED);
        return;
    }
    redact_tokens(segment, out);
}

fn redact_tokens(segment: &str, out: &mut String) {
    let mut rest = segment;
    while let Some((start, end)) = token(rest) {
        out.push_str(rest.get(..start).unwrap_or_default());
        out.push_str(REDACTED);
        rest = rest.get(end..).unwrap_or_default();
    }
    out.push_str(rest);
}

/// Where the first token of a known shape keeps its secret part: after its prefix, to its last character.
fn token(text: &str) -> Option<(usize, usize)> {
    let mut previous = b'/';
    for (at, byte) in text.bytes().enumerate() {
        if !previous.is_ascii_alphanumeric() && byte.is_ascii_alphabetic() {
            let here = text.get(at..).unwrap_or_default();
            for &(prefix, tail_min) in TOKENS {
                let Some(tail) = here.strip_prefix(prefix) else { continue };
                let random = tail.bytes().take_while(u8::is_ascii_alphanumeric).count();
                let length = tail.bytes().take_while(|&b| is_token_byte(b)).count();
                let enough = if prefix.ends_with('_') { random } else { length };
                if enough >= tail_min {
                    let start = at + prefix.len();
                    return Some((start, start + length));
                }
            }
        }
        previous = byte;
    }
    None
}

/// Prefix of a token, and the fewest bytes that follow it in a real one: letters and digits only after an
/// underscore, which ordinary file names have too.
const TOKENS: &[(&str, usize)] = &[
    ("ghp_", 30),
    ("gho_", 30),
    ("ghu_", 30),
    ("ghs_", 30),
    ("ghr_", 30),
    ("github_pat_", 20),
    ("glpat-", 20),
    ("npm_", 36),
    ("pypi-AgE", 20),
    ("sk-ant-", 20),
    ("sk-proj-", 20),
    ("xoxb-", 20),
    ("xoxp-", 20),
    ("AKIA", 16),
    ("AIza", 35),
    ("dckr_pat_", 20),
    ("hf_", 30),
    ("eyJ", 40),
];

const SECRET_NAMES: &[&str] =
    &["token", "secret", "password", "passwd", "apikey", "api_key", "api-key", "signature", "sig", "auth"];

const SCHEMES: &[&str] = &["Bearer", "Basic"];

/// Whether `text` ends with `word`, in any case, at a border (`access_token` ends with `token`, `bigsig` not with `sig`).
fn ends_with_word(text: &str, word: &str) -> bool {
    let (text, word) = (text.as_bytes(), word.as_bytes());
    let (before, end) = text.split_at(text.len().saturating_sub(word.len()));
    end.eq_ignore_ascii_case(word) && !before.last().is_some_and(u8::is_ascii_alphanumeric)
}

fn words(text: &str) -> impl Iterator<Item = &[u8]> {
    text.as_bytes().split(|&b| !is_token_byte(b))
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(text: &str) -> String {
        let mut out = Vec::new();
        escape(text, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_line_stays_a_line() {
        let nasty = "a\r\nb\x1b[2J\"c\\d\u{2028}\u{2029}\u{85}\u{9b}\u{202e}\u{7f}\u{1f600}é\0";
        let line = escaped(nasty);
        assert!(line.bytes().all(|b| matches!(b, b' '..=b'~')), "{line}");
        assert!(line.contains("a\\u000d\\u000ab\\u001b[2J\\\"c\\\\d\\u2028\\u2029\\u0085"), "{line}");
        assert_eq!(serde_json::from_str::<String>(&format!("\"{line}\"")).unwrap(), nasty);
    }

    #[test]
    fn secrets_in_urls_are_taken_out() {
        let token = "a1B2c3D4e5F6g7H8i9J0a1B2c3D4e5F6g7H8i9";
        for (given, kept) in [
            ("/simple/left-pad/?token=abcdef".to_owned(), "/simple/left-pad/".to_owned()),
            ("/a#frag".to_owned(), "/a".to_owned()),
            (format!("/ghp_{token}/repo.git"), "/ghp_[redacted]/repo.git".to_owned()),
            (format!("/x-npm_{token}"), "/x-npm_[redacted]".to_owned()),
            ("/http://user:pa55word@host.test/x".to_owned(), "/http://[redacted]@host.test/x".to_owned()),
            ("/http://onlyatoken@host.test/x".to_owned(), "/http://[redacted]@host.test/x".to_owned()),
            ("/p;access_token=abcdef;v=1".to_owned(), "/p;access_token=[redacted];v=1".to_owned()),
            (format!("/eyJ{token}.eyJ{token}.sig/"), "/eyJ[redacted]/".to_owned()),
        ] {
            assert_eq!(clean_path(&given), kept);
        }
        assert_eq!(clean("parent said: Basic dXNlcjpwYXNz no"), "parent said: Basic [redacted] no");
    }

    #[test]
    fn ordinary_paths_stay_as_they_are() {
        for path in [
            "/left-pad/-/left-pad-1.3.0.tgz",
            "/@acme%2ffoo",
            "/npm/left-pad@1.3.0/+esm",
            "/github.com/!burnt!sushi/toml/@v/v1.4.0.zip",
            "/packages/ab/cd/0123456789abcdef0123456789abcdef0123456789abcdef0123456789ab/x-1.0-py3-none-any.whl",
            "/v2/library/alpine/blobs/sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
            "/debian/pool/main/c/curl/curl_8.5.0-2+b1_amd64.deb",
            "/npm_config_something_that_is_rather_long.txt",
            "/sk-learn-something-with-a-long-name-1.0.tar.gz",
        ] {
            assert!(matches!(clean_path(path), Cow::Borrowed(kept) if kept == path), "{path}");
        }
    }

    #[test]
    fn long_text_is_cut_and_says_so() {
        let long = "é".repeat(2 * RECORD_PATH_BYTES_MAX);
        let cut = clean_path(&long);
        assert!(cut.len() <= RECORD_PATH_BYTES_MAX && cut.len() > RECORD_PATH_BYTES_MAX - 20);
        assert!(cut.ends_with(&format!("...[+{}]", 3 * RECORD_PATH_BYTES_MAX)), "{cut}");
        assert_eq!(clean(&"x".repeat(RECORD_TEXT_BYTES_MAX)).len(), RECORD_TEXT_BYTES_MAX);
    }

    proptest::proptest! {
        #[test]
        fn whatever_stands_around_it_a_secret_goes_and_the_cap_holds(
            before in "([a-z:@/=;. ]|token=|://|Bearer |é){0,300}",
            border in "[/ ,;&]",
            secret in "ghp_[a-zA-Z0-9]{30,40}",
            after in "([a-z:@/=;. ]|token=|é){0,300}",
        ) {
            let text = format!("{before}{border}{secret}{after}");
            for kept in [clean(&text), clean_path(&text)] {
                proptest::prop_assert!(kept.len() <= RECORD_PATH_BYTES_MAX);
                proptest::prop_assert!(!kept.contains(&secret[4..]), "{}", kept);
            }
            proptest::prop_assert!(clean(&text).len() <= RECORD_TEXT_BYTES_MAX);
        }
    }
}
