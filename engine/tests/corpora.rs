//! The wire parsers against corpora of other projects: ClientHellos, llhttp's vectors, desync cases.
//!
//! The corpora are not part of this repository. They are read from the directory that `WEIR_SHARED` names, or from
//! `../shared` beside the repository; without them each test says that it skips. Where we decide otherwise than
//! the corpus expects, the difference stands here as data, with its reason; a difference that is not listed, and a
//! listed one that no longer occurs, fail.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test; integration tests are not recognised as such"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use data_encoding::{BASE64, HEXLOWER};
use engine::wire::Step;
use engine::wire::body::{Body, BodyError};
use engine::wire::head::{HeadError, HeadErrorKind, HeadScan, Method, Request, Response};
use engine::wire::hello::{Ech, Hello, HelloError, HelloReader};
use serde_json::Value;

/// The rows of a corpus file, or None, said aloud, where it is absent.
fn rows(file: &str) -> Option<Vec<Value>> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let shared = std::env::var_os("WEIR_SHARED").map_or(beside, PathBuf::from);
    let path = shared.join("corpora").join(file);
    let Ok(text) = std::fs::read_to_string(&path) else {
        println!(
            "SKIPPED: no corpus at {}; set WEIR_SHARED to the directory that holds corpora/",
            path.display()
        );
        return None;
    };
    Some(text.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect())
}

/// Counts what was found and compares with what is listed.
fn compare(found: &BTreeMap<String, usize>, listed: &[(&str, usize, &str)]) {
    let listed: BTreeMap<String, usize> =
        listed.iter().map(|(what, count, _)| ((*what).to_owned(), *count)).collect();
    assert_eq!(found, &listed, "left: differences found; right: differences listed with their reasons");
}

mod hellos {
    use super::*;

    /// Where we refuse what the corpus reads, or read what it refuses.
    const DIFFERENCES: &[(&str, usize, &str)] = &[
        ("DuplicateExtension", 3, "RFC 8446, 4.2; servers differ on which of the two they believe"),
        (
            "Length",
            14,
            "mutated: lengths inside SNI, ALPN or ECH that disagree, empty ALPN names, bytes behind",
        ),
        ("ServerName", 1, "a NUL in the name"),
        ("ServerNameList", 2, "mutated: a name type other than host_name"),
        ("wants more", 7, "one byte a record, cut off at 8,192 bytes by the corpus"),
    ];

    #[test]
    fn read_as_expected_at_every_split() {
        let mut found = BTreeMap::new();
        let mut read = 0;
        for file in ["boringssl", "ja4_pcaps", "rustls_fuzz"] {
            let Some(rows) = rows(&format!("clienthello/{file}.jsonl")) else { return };
            for row in &rows {
                let bytes = HEXLOWER.decode(row["hex"].as_str().unwrap().as_bytes()).unwrap();
                let is_good = row["status"].as_str().is_none_or(|status| status == "ok");
                let what = match (HelloReader::new().push(&bytes), is_good) {
                    (Ok(Step::Done(hello)), true) => {
                        same(&hello, row);
                        every_split(&bytes, &hello);
                        read += 1;
                        continue;
                    }
                    (Ok(Step::More) | Err(_), false) => {
                        refused_at_every_split(&bytes);
                        continue;
                    }
                    (Ok(Step::Done(_)), false) => "read".to_owned(),
                    (Ok(Step::More), true) => "wants more".to_owned(),
                    (Err(error), true) => kind(error),
                };
                *found.entry(what).or_default() += 1;
            }
        }
        println!("{read} hellos read as expected");
        compare(&found, DIFFERENCES);
    }

    fn kind(error: HelloError) -> String {
        format!("{error:?}").split('(').next().unwrap_or_default().to_owned()
    }

    fn same(hello: &Hello, row: &Value) {
        let expected = row["sni"].as_str().map(str::to_ascii_lowercase);
        assert_eq!(hello.sni.as_ref().map(ToString::to_string), expected, "{}", row["src"]);
        // The corpus spells bytes as the first 256 characters of Unicode.
        let alpn: Vec<String> =
            hello.alpn.iter().map(|name| name.iter().copied().map(char::from).collect()).collect();
        assert_eq!(serde_json::json!(alpn), row["alpn"], "{}", row["src"]);
        assert_eq!(hello.ech == Ech::Present, row["ech"].as_bool().unwrap(), "{}", row["src"]);
        assert_eq!(Some(hello.records as u64), row["records"].as_u64(), "{}", row["src"]);
        let versions: Vec<_> = hello.versions.iter().map(|version| format!("{version:04x}")).collect();
        let expected = if row["versions"] == serde_json::json!([]) {
            serde_json::json!([row["version"]])
        } else {
            row["versions"].clone()
        };
        assert_eq!(serde_json::json!(versions), expected, "{}", row["src"]);
        assert!(hello.consumed as u64 <= row["consumed"].as_u64().unwrap(), "{}", row["src"]);
    }

    /// Every proper prefix wants more, and the rest then gives the whole answer; with junk behind as well.
    fn every_split(bytes: &[u8], whole: &Hello) {
        let stride = bytes.len().div_ceil(1024);
        for at in (0..bytes.len()).step_by(stride) {
            let mut reader = HelloReader::new();
            let first = reader.push(&bytes[..at]);
            if at >= whole.consumed {
                assert_eq!(first, Ok(Step::Done(whole.clone())));
                continue;
            }
            assert_eq!(first, Ok(Step::More), "at {at}");
            assert_eq!(reader.push(&bytes[at..]), Ok(Step::Done(whole.clone())), "at {at}");
        }
        let mut reader = HelloReader::new();
        let mut bytewise = bytes.iter().map(|byte| reader.push(std::slice::from_ref(byte)));
        let answer = bytewise.find(|step| *step != Ok(Step::More));
        assert_eq!(answer, Some(Ok(Step::Done(whole.clone()))));
        let junk = [bytes, b"\x00junk"].concat();
        assert_eq!(HelloReader::new().push(&junk), Ok(Step::Done(whole.clone())));
    }

    fn refused_at_every_split(bytes: &[u8]) {
        let whole = HelloReader::new().push(bytes);
        for at in 0..bytes.len() {
            let mut reader = HelloReader::new();
            let first = reader.push(&bytes[..at]);
            let answer = if first == Ok(Step::More) { reader.push(&bytes[at..]) } else { first };
            assert_eq!(answer, whole, "at {at}");
        }
    }
}

/// Why a stream of messages was refused.
#[derive(Debug)]
enum Refusal {
    Head(HeadError),
    Body(BodyError),
}

impl Refusal {
    fn kind(&self) -> String {
        let text = match self {
            Refusal::Head(error) => format!("{:?}", error.kind),
            Refusal::Body(error) => format!("{error:?}"),
        };
        text.split('(').next().unwrap_or_default().to_owned()
    }
}

/// What a stream of messages held.
#[derive(Debug, Default, PartialEq, Eq)]
struct Read {
    /// Messages that are complete.
    messages: usize,
    /// Field names in their order, of all messages.
    names: Vec<String>,
}

/// A head, as far as the reading of a stream needs it.
struct Head {
    body: Body,
    names: Vec<String>,
    keep_alive: bool,
}

/// Reads messages until the bytes end, as the connection of a proxy would.
fn read_messages(mut bytes: &[u8], is_request: bool) -> (Read, Option<Refusal>) {
    let mut read = Read::default();
    while !bytes.is_empty() {
        let len = match HeadScan::new().scan(bytes) {
            Ok(Step::Done(len)) => len,
            Ok(Step::More) => break,
            Err(error) => return (read, Some(Refusal::Head(error))),
        };
        let (head, rest) = bytes.split_at(len);
        let parsed = if is_request { parse_request(head) } else { parse_response(head) };
        let Head { mut body, names, keep_alive } = match parsed {
            Ok(parsed) => parsed,
            Err(error) => return (read, Some(Refusal::Head(error))),
        };
        read.names.extend(names);
        bytes = match body.advance(rest) {
            Ok(progress) => &rest[progress.consumed..],
            Err(error) => return (read, Some(Refusal::Body(error))),
        };
        if !body.is_done() {
            break;
        }
        read.messages += 1;
        if !keep_alive {
            break;
        }
    }
    (read, None)
}

/// A head without Host, which is a rule of ours that would hide all others, gets the one that its target names.
fn parse_request(head: &[u8]) -> Result<Head, HeadError> {
    let parsed = Request::parse(head);
    if !parsed.as_ref().is_err_and(|error| error.kind == HeadErrorKind::HostMissing) {
        return parsed.map(|request| request_head(head, &request));
    }
    let target = head.split(|&b| b == b' ').nth(1).unwrap_or_default();
    let host = match target.strip_prefix(b"http://") {
        Some(rest) => rest.split(|b| b"/?".contains(b)).next().unwrap_or_default(),
        None if head.starts_with(b"CONNECT ") => target,
        None => b"host.test",
    };
    let head = [&head[..head.len() - 2], b"Host: ", host, b"\r\n\r\n"].concat();
    let mut request = Request::parse(&head)?;
    request.fields.pop();
    Ok(request_head(&head, &request))
}

fn request_head(head: &[u8], request: &Request) -> Head {
    let names = request.fields.iter().map(|field| String::from_utf8_lossy(field.name.of(head)).into_owned());
    Head { body: Body::new(request.framing), names: names.collect(), keep_alive: request.keep_alive }
}

fn parse_response(head: &[u8]) -> Result<Head, HeadError> {
    let response = Response::parse(head, &Method::Get)?;
    let names = response.fields.iter().map(|field| String::from_utf8_lossy(field.name.of(head)).into_owned());
    Ok(Head { body: Body::new(response.framing), names: names.collect(), keep_alive: response.keep_alive })
}

mod llhttp {
    use super::*;

    /// Where llhttp in strict mode accepts and we refuse, by the kind of our error; or the other way.
    const DIFFERENCES: &[(&str, usize, &str)] = &[
        ("Asterisk", 1, "M-SEARCH *: the target * goes with OPTIONS only"),
        ("BadHost", 2, "Host: 0.0.0.0=5000 names no host"),
        ("BadMethod", 1, "two empty lines in front of a request; one is passed over"),
        ("BadTarget", 2, "a fragment; userinfo"),
        ("BadVersion", 12, "ICE, RTSP, HTTP/0.9; an empty line in front of a response; a body behind 101"),
        ("Coding", 4, "a transfer coding beside or after chunked, or one that only looks like it"),
        ("CodingRepeated", 1, "chunked, and then identity"),
        ("ConnectBody", 1, "a CONNECT with Content-Length: 10"),
        ("TrailerForbidden", 1, "Vary and Content-Type in a trailer"),
        ("accepted: Expected space after method", 1, "MKCOLA: every token is a method"),
        ("accepted: Invalid method for HTTP/x.x request", 1, "ANNOUNCE: every token is a method"),
        ("reads 0 of 2 messages", 2, "these vectors ran with a callback that skips bodies"),
    ];

    #[test]
    fn strict_vectors_are_read_alike() {
        let Some(rows) = rows("llhttp/vectors.jsonl") else { return };
        let mut found = BTreeMap::new();
        let mut alike = 0;
        for row in rows.iter().filter(|row| matches!(row["lenient"].as_str(), Some("request" | "response"))) {
            let bytes = input(row);
            let theirs = expected(row);
            let is_request = row["lenient"] == "request";
            let (mut ours, mut refusal) = read_messages(&bytes, is_request);
            if theirs.is_refused && refusal.is_none() {
                // llhttp judges parts of a head; ours is judged when its end is there.
                let finished = [&bytes, &b"\r\n\r\n"[..]].concat();
                (ours, refusal) = read_messages(&finished, is_request);
            }
            let what = match (&refusal, theirs.is_refused) {
                (None, false) if ours == theirs.read => None,
                (None, false) => {
                    Some(format!("reads {} of {} messages", ours.messages, theirs.read.messages))
                }
                (None, true) => Some(format!("accepted: {}", theirs.reason)),
                (Some(_), true) => None,
                (Some(refusal), false) => Some(refusal.kind()),
            };
            match what {
                None => alike += 1,
                Some(what) => {
                    println!("{what}: {} {}", row["src"], bytes.escape_ascii());
                    *found.entry(what).or_default() += 1;
                }
            }
        }
        println!("{alike} vectors read alike");
        compare(&found, DIFFERENCES);
    }

    struct Expected {
        read: Read,
        is_refused: bool,
        reason: String,
    }

    /// llhttp's event log, as far as it can be compared.
    fn expected(row: &Value) -> Expected {
        let log: Vec<&str> = row["log"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        let name = |line: &&str| {
            line.split_once("span[header_field]=\"").map(|(_, name)| name.trim_end_matches('"').to_owned())
        };
        let names = log.iter().filter_map(name).collect();
        let messages = log.iter().filter(|line| line.ends_with("message complete")).count();
        let error = row["error"].as_str().unwrap_or_default();
        let reason = error.split("reason=").nth(1).unwrap_or_default().trim_matches('"').to_owned();
        // These are errors only to a caller that hands over what is no HTTP any more.
        let is_end =
            ["Data after `Connection: close`", "Pause on CONNECT/Upgrade"].contains(&reason.as_str());
        Expected {
            read: Read { messages, names },
            is_refused: row["expect_error"] == true && !is_end,
            reason,
        }
    }

    /// The vectors lost line ends at their end; the log says how long they were.
    fn input(row: &Value) -> Vec<u8> {
        let mut bytes = BASE64.decode(row["input_b64"].as_str().unwrap().as_bytes()).unwrap();
        let offset = |line: &Value| {
            let number = line.as_str()?.strip_prefix("off=")?.split(' ').next()?;
            number.parse::<usize>().ok()
        };
        let end = row["log"].as_array().unwrap().iter().filter_map(offset).max().unwrap_or(0);
        while bytes.len() < end {
            bytes.extend(b"\r\n");
        }
        bytes
    }
}

mod desync {
    use super::*;

    /// Compliant or acceptable there and refused here, by our error; ambiguous or severe there and accepted here.
    const DIFFERENCES: &[(&str, usize, &str)] = &[
        ("Acceptable refused: BadVersion", 5, "HTTP/0.9, none, HTTP/1.2; a second space"),
        ("Acceptable refused: Control", 5, "control bytes, in whichever field"),
        ("Acceptable refused: SpaceBeforeColon", 3, "white space before the colon, in whichever field"),
        ("Ambiguous accepted: SuspiciousHeader", 4, "Transfer_Encoding, Transfer---Encoding: other names"),
        (
            "Ambiguous accepted: UndefinedContentLengthSemantics",
            3,
            "a GET or HEAD with a body is framed clearly",
        ),
        ("Ambiguous accepted: UndefinedTransferEncodingSemantics", 3, "the same, chunked"),
        ("Compliant refused: BadRequestLine", 1, "an empty target"),
        ("Compliant refused: BadTarget", 1, "a fragment"),
        (
            "Compliant refused: Coding",
            7,
            "codings other than chunked: no client here sends them, parsers disagree",
        ),
    ];

    #[test]
    fn what_could_desynchronise_is_refused() {
        let Some(rows) = rows("http-desync-guardian/cases.jsonl") else { return };
        let mut found = BTreeMap::new();
        for row in &rows {
            let (_, refusal) = read_messages(&request(row), true);
            let (tier, reason) = (row["tier"].as_str().unwrap(), row["reason"].as_str().unwrap());
            let what = match (refusal, matches!(tier, "Compliant" | "Acceptable")) {
                (None, true) | (Some(_), false) => continue,
                (Some(refusal), true) => format!("{tier} refused: {}", refusal.kind()),
                (None, false) => format!("{tier} accepted: {reason}"),
            };
            println!("{what}: {} {}", row["name"], request(row).escape_ascii());
            *found.entry(what).or_default() += 1;
        }
        println!("{} cases", rows.len());
        compare(&found, DIFFERENCES);
    }

    fn request(row: &Value) -> Vec<u8> {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let mut head =
            format!("{} {} {}\r\n", text(&row["method"]), text(&row["uri"]), text(&row["version"]));
        let headers = row["headers"].as_array().unwrap();
        for header in headers {
            head.push_str(&format!("{}: {}\r\n", text(&header[0]), text(&header[1])));
        }
        head.push_str("\r\n");
        head.into_bytes()
    }
}
