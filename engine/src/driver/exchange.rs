//! One plain request and its response, streamed: client to upstream and back, nothing kept whole.
//!
//! Head and body are sent while the response is already awaited, since a server may answer early. The upstream
//! comes from the core's pool or is dialled; it goes back only when both messages are complete and nothing was
//! left behind. A response that is cut short reaches the client cut short.

use std::rc::Rc;

use rustix::net::Shutdown;

use crate::audit::record::Outcome;
use crate::error::Code;
use crate::limits::{HALF_CLOSED_IDLE, RELAY_BUFFER_BYTES, TRAFFIC_IDLE};
use crate::policy::{Ask, Refusal};
use crate::wire::Step;
use crate::wire::body::Body;
use crate::wire::head::forward::{ForwardAs, write_request, write_response};
use crate::wire::head::{Framing, HeadScan, Method, Request, Response, Version};

use super::client::{Asked, Client, KeepAlive, answer, close_with};
use super::core::Core;
use super::dial::{self, Route};
use super::entry::Entry;
use super::inbox::Inbox;
use super::pool::Key;
use super::rt::{Either, race};
use super::stream::Stream;
use super::tunnel::Way;

/// Why a response did not come to its end.
#[derive(Debug)]
enum Fault {
    /// The client cannot be written to.
    Client,
    /// The upstream ended or failed before the first byte of a response: a fresh connection may do better.
    NoAnswer(String),
    /// The parent proxy wants other credentials than it was given.
    Refused,
    /// The upstream broke HTTP before a byte of the response had gone to the client.
    Malformed(String),
    /// The response was cut or broken after its head had gone to the client.
    Cut,
}

/// How a response ended well.
struct Answered {
    /// Both connections may carry another message, as far as the response is concerned.
    client_keeps: bool,
    upstream_keeps: bool,
}

/// Forwards a request that policy lets pass, and journals its end.
pub(crate) async fn forward(
    core: &Rc<Core>,
    client: &mut Client,
    asked: &Asked,
    entry: Entry,
    route: &Route,
) -> KeepAlive {
    let key = Key { target: asked.target.clone(), via: route.via() };
    let (head, framed) = outgoing(core, client, asked, route);
    client.inbox.consume(asked.head_len);
    let mut pooled = core.pool.take(&key);
    loop {
        let reused = pooled.is_some();
        let upstream = match pooled.take() {
            Some(stream) => stream,
            None => match dial::connect(core, route, &asked.target, Ask::Http, "").await {
                Ok(dialled) => dialled.stream,
                Err(failure) => return fail(core, client, asked, entry, failure.code, &failure.reason).await,
            },
        };
        let through_parent = matches!(route, Route::Parent(..));
        let exchange = Exchange { core, asked, entry: &entry, upstream: &upstream, through_parent };
        let (ended, sent) = exchange.run(client, &head, Body::new(framed)).await;
        match ended {
            // The server had closed the idle connection just then; nothing of the request can have had an effect.
            Ok(Err(Fault::NoAnswer(why))) if reused && is_repeatable(&asked.request) => {
                entry.note(Code::UpstreamUnreachable, &format!("sent again on a new connection: {why}"));
            }
            ended => return conclude(core, client, asked, entry, (key, upstream), ended, sent).await,
        }
    }
}

/// Journals how an exchange ended, and leaves both connections as that asks for.
async fn conclude(
    core: &Rc<Core>,
    client: &mut Client,
    asked: &Asked,
    entry: Entry,
    (key, upstream): (Key, Stream),
    ended: Result<Result<Answered, Fault>, Outcome>,
    sent: Option<Result<(), Unsent>>,
) -> KeepAlive {
    let (code, why) = match (ended, sent) {
        (Ok(Ok(answered)), sent) => {
            let complete = matches!(sent, Some(Ok(())));
            if answered.upstream_keeps && complete && !core.is_draining() {
                core.pool.keep(key, upstream, core.alarms.tick());
            }
            entry.end(Outcome::Complete);
            if answered.client_keeps && complete {
                return true;
            }
            close_with(core, client, &[]).await;
            return false;
        }
        (Ok(Err(Fault::Client)), _) => {
            upstream.reset_on_close();
            entry.end(Outcome::ClientGone);
            return false;
        }
        (Ok(Err(Fault::Cut)), _) => return cut(client, entry, Outcome::UpstreamGone),
        (Err(quiet), _) => return cut(client, entry, quiet),
        // The client's body was none: the upstream's silence is our own doing.
        (Ok(Err(Fault::NoAnswer(_) | Fault::Malformed(_))), Some(Err(Unsent::Body(why)))) => {
            (Code::Malformed, why)
        }
        (Ok(Err(Fault::NoAnswer(why))), _) => (Code::UpstreamUnreachable, why),
        (Ok(Err(Fault::Malformed(why))), _) => (Code::UpstreamMalformed, why),
        (Ok(Err(Fault::Refused)), _) => {
            let why = "the parent proxy refused the request: 407, it wants other credentials";
            (Code::UpstreamRefused, why.to_owned())
        }
    };
    fail(core, client, asked, entry, code, &why).await
}

/// A response that is cut short must reach the client as cut short.
fn cut(client: &Client, entry: Entry, outcome: Outcome) -> KeepAlive {
    client.stream.reset_on_close();
    entry.end(outcome);
    false
}

/// The head for the next hop, and how the request's body is framed.
fn outgoing(core: &Core, client: &Client, asked: &Asked, route: &Route) -> (Vec<u8>, Framing) {
    let bytes = client.inbox.bytes().get(..asked.head_len).unwrap_or_default();
    let mut head = Vec::with_capacity(bytes.len() + 64);
    match route {
        Route::Direct(_) => write_request(bytes, &asked.request, ForwardAs::Origin, true, &[], &mut head),
        Route::Parent(parent, _) => {
            let credentials = parent.basic.as_ref().map(|basic| basic.header_value());
            let credentials = credentials.iter().map(|value| ("Proxy-Authorization", value.as_str()));
            let extra: Vec<(&str, &str)> = credentials.chain([("Via", core.shared.via.as_str())]).collect();
            write_request(bytes, &asked.request, ForwardAs::Absolute, true, &extra, &mut head);
        }
    }
    (head, asked.request.framing)
}

/// Whether a request may be sent twice: no body, and a method that RFC 9110, 9.2.2 calls idempotent.
fn is_repeatable(request: &Request) -> bool {
    request.framing == Framing::None
        && matches!(
            request.method,
            Method::Get | Method::Head | Method::Options | Method::Trace | Method::Delete | Method::Put
        )
}

/// Answers for an upstream that did not.
async fn fail(
    core: &Core,
    client: &mut Client,
    asked: &Asked,
    entry: Entry,
    code: Code,
    reason: &str,
) -> KeepAlive {
    let rule = if code == Code::Malformed { "http" } else { "upstream" };
    let refusal = Refusal { code, rule: rule.into(), reason: reason.into() };
    entry.status.set(code.status());
    // The head was consumed when the request went out.
    let asked =
        Asked { head_len: 0, request: asked.request.clone(), target: asked.target.clone(), ask: asked.ask };
    let keep_alive = answer(core, client, &asked, &refusal).await;
    entry.end(Outcome::Failed(code));
    keep_alive
}

/// A request on its way, with its upstream.
struct Exchange<'a> {
    core: &'a Rc<Core>,
    asked: &'a Asked,
    entry: &'a Entry,
    upstream: &'a Stream,
    /// The upstream is a parent proxy.
    through_parent: bool,
}

/// Why a request was not sent whole.
#[derive(Debug)]
enum Unsent {
    /// The upstream takes no more; its answer, if there is one, counts.
    Upstream,
    /// The client's body is none, or was cut short: the origin must not take it for complete.
    Body(String),
}

impl Exchange<'_> {
    /// Sends and receives at once. The response decides when it is over; how sending went comes beside it, `None`
    /// while it was still going on. The outer error is a silence that lasted too long.
    async fn run(
        &self,
        client: &mut Client,
        head: &[u8],
        body: Body,
    ) -> (Result<Result<Answered, Fault>, Outcome>, Option<Result<(), Unsent>>) {
        let Client { stream, inbox, .. } = client;
        let mut sent = None;
        let send = async {
            sent = Some(self.send(stream, inbox, head, body).await);
            match sent {
                Some(Ok(())) => self.client_leaves(stream, inbox).await,
                Some(Err(Unsent::Body(_))) => {
                    self.upstream.reset_on_close();
                    // Wakes the receiving side, whose answer can only be an end.
                    let _ = rustix::net::shutdown(self.upstream, Shutdown::Both);
                    std::future::pending().await
                }
                Some(Err(Unsent::Upstream)) | None => std::future::pending().await,
            }
        };
        let both = async {
            match race(
                send,
                receive(self.core, self.asked, self.entry, stream, self.upstream, self.through_parent),
            )
            .await
            {
                Either::Right(ended) => ended,
                // Nobody is left to answer.
                Either::Left(()) => Err(Fault::Client),
            }
        };
        let ended = match race(both, self.entry.flow.silent(self.core, TRAFFIC_IDLE)).await {
            Either::Left(ended) => Ok(ended),
            Either::Right(()) => Err(Outcome::Idle),
        };
        (ended, sent)
    }

    /// Resolves when the client has gone while its answer is on the way: reset, or closed and nothing has moved for
    /// a while since. An end of stream alone may be a client that has said all it wants to say.
    async fn client_leaves(&self, client: &Stream, inbox: &Inbox) {
        if !inbox.bytes().is_empty() {
            // The next request is there already: this client stays.
            std::future::pending::<()>().await;
        }
        loop {
            if client.readable().await.is_err() {
                return;
            }
            match client.peek() {
                Ok(None) => {}
                Ok(Some(0)) => return self.entry.flow.silent(self.core, HALF_CLOSED_IDLE).await,
                Ok(Some(_)) => std::future::pending::<()>().await,
                Err(_) => return,
            }
        }
    }

    /// Sends head and body upstream.
    async fn send(
        &self,
        client: &Stream,
        inbox: &mut Inbox,
        head: &[u8],
        mut body: Body,
    ) -> Result<(), Unsent> {
        self.upstream.write_all(head).await.map_err(|_| Unsent::Upstream)?;
        while !body.is_done() {
            let progress = body.advance(inbox.bytes()).map_err(|error| Unsent::Body(error.to_string()))?;
            if progress.consumed > 0 {
                let part = inbox.bytes().get(..progress.consumed).unwrap_or_default();
                self.upstream.write_all(part).await.map_err(|_| Unsent::Upstream)?;
                self.entry.flow.count(self.core, Way::Up, progress.consumed);
                inbox.consume(progress.consumed);
            }
            if !progress.done && !matches!(inbox.fill(client).await, Ok(1..)) {
                return Err(Unsent::Body("the client ended inside its body".into()));
            }
        }
        Ok(())
    }
}

/// Receives the response and streams it to the client.
async fn receive(
    core: &Core,
    asked: &Asked,
    entry: &Entry,
    client: &Stream,
    upstream: &Stream,
    through_parent: bool,
) -> Result<Answered, Fault> {
    let mut begun = false;
    let mut inbox = Inbox::new(&core.buffers);
    // Nothing can be there yet; asking for it would only hear EAGAIN.
    let _ = upstream.readable().await;
    let response = loop {
        let (response, len) = read_response(&mut inbox, upstream, &asked.request.method, &mut begun).await?;
        let interim = response.is_interim();
        if response.status == 407 && through_parent {
            return Err(Fault::Refused);
        }
        if response.status == 101 {
            return Err(Fault::Malformed("it switched protocols, which nobody asked for".into()));
        }
        if interim && asked.request.version == Version::Http10 {
            // RFC 9110, 15.2: HTTP/1.0 knows no interim responses.
            inbox.consume(len);
            continue;
        }
        if response.framing == Framing::Chunked && asked.request.version == Version::Http10 {
            return Err(Fault::Malformed("a chunked response to an HTTP/1.0 request".into()));
        }
        let keep_alive = client_keeps(core, asked, &response);
        let bytes = inbox.bytes().get(..len).unwrap_or_default();
        let mut head = Vec::with_capacity(bytes.len() + 64);
        write_response(bytes, &response, keep_alive, &[], &mut head);
        if !interim {
            entry.status.set(response.status);
        }
        let head_bytes = head.len();
        inbox.consume(len);
        let early = head_with_body(&mut head, &mut inbox, &response)?;
        client.write_all(&head).await.map_err(|_| Fault::Client)?;
        entry.flow.count(core, Way::Down, head_bytes + early.0);
        if !interim {
            break (response, early.1);
        }
    };
    let (response, body) = response;
    relay_body(core, entry, client, upstream, &mut inbox, body).await?;
    Ok(Answered {
        client_keeps: client_keeps(core, asked, &response),
        // Bytes behind the end belong to nobody: such a connection never serves another client.
        upstream_keeps: response.keep_alive && inbox.bytes().is_empty(),
    })
}

fn client_keeps(core: &Core, asked: &Asked, response: &Response) -> bool {
    asked.request.keep_alive && response.framing != Framing::UntilClose && !core.is_draining()
}

/// Appends what is already there of the body to the head, so that small responses are one write.
fn head_with_body(
    head: &mut Vec<u8>,
    inbox: &mut Inbox,
    response: &Response,
) -> Result<(usize, Body), Fault> {
    let mut body = Body::new(response.framing);
    if response.is_interim() || body.is_done() {
        return Ok((0, body));
    }
    let progress = body.advance(inbox.bytes()).map_err(|error| Fault::Malformed(error.to_string()))?;
    head.extend_from_slice(inbox.bytes().get(..progress.consumed).unwrap_or_default());
    inbox.consume(progress.consumed);
    Ok((progress.consumed, body))
}

async fn read_response(
    inbox: &mut Inbox,
    upstream: &Stream,
    method: &Method,
    begun: &mut bool,
) -> Result<(Response, usize), Fault> {
    let mut scan = HeadScan::new();
    loop {
        match scan.scan(inbox.bytes()) {
            Ok(Step::Done(len)) => {
                let head = inbox.bytes().get(..len).unwrap_or_default();
                let response = Response::parse(head, method);
                return response.map(|response| (response, len)).map_err(|e| Fault::Malformed(e.to_string()));
            }
            Ok(Step::More) => {}
            Err(error) => return Err(Fault::Malformed(error.to_string())),
        }
        match inbox.fill(upstream).await {
            Ok(0) if *begun => {
                return Err(Fault::Malformed("it ended inside the head of its response".into()));
            }
            Ok(0) => return Err(Fault::NoAnswer("it closed the connection without an answer".into())),
            Ok(_) => *begun = true,
            Err(error) if *begun => return Err(Fault::Malformed(error.to_string())),
            Err(error) => return Err(Fault::NoAnswer(error.to_string())),
        }
    }
}

/// Streams the rest of a body.
async fn relay_body(
    core: &Core,
    entry: &Entry,
    client: &Stream,
    upstream: &Stream,
    inbox: &mut Inbox,
    mut body: Body,
) -> Result<(), Fault> {
    let mut turn = 0;
    while !body.is_done() {
        let progress = body.advance(inbox.bytes()).map_err(|_| Fault::Cut)?;
        if progress.consumed > 0 {
            let part = inbox.bytes().get(..progress.consumed).unwrap_or_default();
            client.write_all(part).await.map_err(|_| Fault::Client)?;
            entry.flow.count(core, Way::Down, progress.consumed);
            inbox.consume(progress.consumed);
            turn += progress.consumed;
        }
        if progress.done {
            return Ok(());
        }
        if turn >= 16 * RELAY_BUFFER_BYTES {
            turn = 0;
            super::rt::turn().await;
            upstream.readable().await.map_err(|_| Fault::Cut)?;
        }
        match inbox.fill(upstream).await {
            Ok(0) => return body.finish().map_err(|_| Fault::Cut),
            Ok(_) => {}
            Err(_) => return Err(Fault::Cut),
        }
    }
    Ok(())
}
