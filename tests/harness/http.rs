//! An HTTP/1 origin that answers with bytes as written by the test and remembers what it was asked.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::client::{Head, Wire};
use super::origin::Origin;

/// A request as the origin saw it.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Which connection it came on, from 0.
    pub connection: usize,
    /// Its head.
    pub head: Head,
    /// Its body, decoded from its framing.
    pub body: Vec<u8>,
    /// The trailer section of a chunked body, as spelled.
    pub trailers: String,
}

impl Seen {
    /// The method.
    pub fn method(&self) -> &str {
        self.head.first.split(' ').next().unwrap_or_default()
    }

    /// The request target.
    pub fn target(&self) -> &str {
        self.head.first.split(' ').nth(1).unwrap_or_default()
    }
}

/// What the origin does after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// Waits for the next request.
    Keep,
    /// Ends the connection.
    Close,
    /// Resets the connection.
    Reset,
}

/// An HTTP/1 origin.
#[derive(Debug)]
pub struct HttpOrigin {
    origin: Origin,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl HttpOrigin {
    /// Answers each request by `answer`, which writes to the wire what it wants. `Expect: 100-continue` is
    /// answered with 100 before the body is read.
    pub fn new(answer: impl Fn(&Seen, &mut Wire) -> After + Send + Sync + 'static) -> HttpOrigin {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (memory, connections) = (Arc::clone(&seen), AtomicUsize::new(0));
        let origin = Origin::serve(move |mut wire| {
            let connection = connections.fetch_add(1, Ordering::SeqCst);
            while let Some(request) = read_request(connection, &mut wire) {
                memory.lock().unwrap().push(request.clone());
                match answer(&request, &mut wire) {
                    After::Keep => {}
                    After::Close => return,
                    After::Reset => return wire.reset(),
                }
            }
        });
        HttpOrigin { origin, seen }
    }

    /// Answers each request with the same bytes and keeps the connection.
    pub fn always(bytes: &'static [u8]) -> HttpOrigin {
        HttpOrigin::new(move |_, wire| {
            wire.send(bytes);
            After::Keep
        })
    }

    /// Answers each request with 200 and its own path as body.
    pub fn paths() -> HttpOrigin {
        HttpOrigin::new(|seen, wire| {
            let path = seen.target();
            wire.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}", path.len()));
            After::Keep
        })
    }

    /// `http://name:port` and the path.
    pub fn url(&self, name: &str, path: &str) -> String {
        format!("http://{}{path}", self.origin.named(name))
    }

    /// `name:port`.
    pub fn named(&self, name: &str) -> String {
        self.origin.named(name)
    }

    /// The requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> usize {
        self.origin.accepted()
    }
}

fn read_request(connection: usize, wire: &mut Wire) -> Option<Seen> {
    let head = wire.try_head().ok()?;
    if head.field("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue")) {
        wire.send("HTTP/1.1 100 Continue\r\n\r\n");
    }
    let (body, trailers) = match (head.field("transfer-encoding"), head.field("content-length")) {
        (Some(_), _) => wire.chunked().ok()?,
        (None, Some(length)) => (wire.try_exactly(length.parse().ok()?).ok()?, String::new()),
        (None, None) => Default::default(),
    };
    Some(Seen { connection, head, body, trailers })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_requests_and_answers_as_told() {
        let origin = HttpOrigin::paths();
        let mut wire = Wire::dial(origin.origin.address());
        wire.send("POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3;e=1\r\nabc\r\n0\r\nT: v\r\n\r\n");
        assert_eq!(wire.answer("POST").1, b"/a");
        wire.send("POST /b HTTP/1.1\r\nhost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n");
        assert_eq!(wire.head().status(), 100);
        assert_eq!(wire.send("hi").answer("POST").1, b"/b");
        let seen = origin.seen();
        assert_eq!((seen[0].body.as_slice(), seen[0].trailers.as_str()), (&b"abc"[..], "T: v\r\n"));
        assert_eq!((seen[1].body.as_slice(), seen[1].connection), (&b"hi"[..], 0));
        assert_eq!(seen[1].head.field("Host"), Some("x"));
        assert_eq!(origin.accepted(), 1);
    }
}
