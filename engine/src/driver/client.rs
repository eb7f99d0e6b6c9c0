//! The client's side of a connection: what it asked, and how it is answered when nothing is forwarded.
//!
//! Not the story of a connection (`connection`), and not the relaying of answers (`exchange`); both use it.

use std::net::SocketAddr;
use std::time::Duration;

use crate::policy::{Ask, Refusal};
use crate::wire::head::{Framing, Method, Request};
use crate::wire::target::Authority;

use super::core::Core;
use super::inbox::Inbox;
use super::refusal;
use super::stream::Stream;

/// The client's side of a connection.
pub(crate) struct Client {
    pub(crate) stream: Stream,
    pub(crate) peer: SocketAddr,
    pub(crate) inbox: Inbox,
    /// Requests that were answered on it.
    pub(crate) served: u64,
}

/// A request whose head is still the first of the inbox.
pub(crate) struct Asked {
    pub(crate) request: Request,
    pub(crate) head_len: usize,
    pub(crate) target: Authority,
    pub(crate) ask: Ask,
}

/// Whether the connection may carry another request.
pub(crate) type KeepAlive = bool;

/// Answers a request that is not forwarded. Its body, if it has one, was not read: then the connection ends.
pub(crate) async fn answer(core: &Core, client: &mut Client, asked: &Asked, refusal: &Refusal) -> KeepAlive {
    let Asked { request, head_len, target, ask } = asked;
    let has_body = request.framing != Framing::None;
    let keep_alive = request.keep_alive && !has_body && *ask == Ask::Http && !core.is_draining();
    let with_body = request.method != Method::Head;
    let subject = target.to_string();
    let Refusal { code, rule, reason } = refusal;
    let bytes = refusal::response(*code, Some(&subject), rule, reason, with_body, keep_alive);
    client.inbox.consume(*head_len);
    if keep_alive {
        return client.stream.write_all(&bytes).await.is_ok();
    }
    close_with(core, client, &bytes).await;
    false
}

/// How long a client may take to close after its last answer.
const LINGER: Duration = Duration::from_secs(2);

/// Sends the last answer and closes so that it arrives: bytes that nobody reads would turn the close into a reset
/// that overtakes it (RFC 9112, 9.6).
pub(crate) async fn close_with(core: &Core, client: &mut Client, bytes: &[u8]) {
    let Client { stream, inbox, .. } = client;
    let mut alarm = core.alarms.alarm();
    let farewell = async {
        if stream.write_all(bytes).await.is_err() {
            return;
        }
        stream.finish().await;
        loop {
            inbox.consume(usize::MAX);
            if !matches!(inbox.fill(stream).await, Ok(1..)) {
                return;
            }
        }
    };
    // Whoever does not read its answer in time has had it.
    let _ = alarm.within(LINGER, farewell).await;
}
