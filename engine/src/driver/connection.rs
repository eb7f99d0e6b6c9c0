//! The story of one client connection:
//!
//! read head -> canonical target -> decide -> reach -> journal -> tunnel | forward | refuse -> journal
//!
//! Every request is judged, also the second one of a connection. Nothing of an answer is sent before its decision
//! is with the journal, and a refusal waits until it is in the file.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::audit::record::{Outcome, Verb, Verdict};
use crate::error::Code;
use crate::limits::{DRAIN_QUIET, HEAD_DEADLINE, KEEP_ALIVE_IDLE};
use crate::policy::{Ask, Decision, Facts, Passage, Refusal};
use crate::wire::Step;
use crate::wire::head::{HeadScan, Method, Request, Target};
use crate::wire::target::Authority;

use super::client::{Asked, Client, KeepAlive, answer, close_with};
use super::core::Core;
use super::dial::{self, Dialled, Reach, Route};
use super::entry::{About, Entry};
use super::inbox::Inbox;
use super::rt::{Alarm, Either, race};
use super::stream::Stream;
use super::tunnel::{self, Way};
use super::{exchange, first_flight, refusal};

/// What becomes of a request.
enum Plan {
    Pass(Passage, Reach),
    /// Refused; and what enforce mode would have refused it for before that.
    Refuse(Refusal, Option<Refusal>),
}

/// What becomes of a connection after a request.
#[expect(clippy::large_enum_variant, reason = "made once a connection and taken apart at once")]
enum Next {
    Request,
    Tunnel(Tunnel),
    Close,
}

impl From<KeepAlive> for Next {
    fn from(keep_alive: KeepAlive) -> Self {
        if keep_alive { Next::Request } else { Next::Close }
    }
}

/// A tunnel whose client has been told 200; all that is kept of how it came to be.
struct Tunnel {
    upstream: Stream,
    entry: Entry,
    passage: Passage,
    target: Authority,
    via: Option<Arc<str>>,
}

pub(crate) async fn run(core: Rc<Core>, socket: OwnedFd, peer: SocketAddr) {
    let Ok(stream) = Stream::tcp(socket) else { return };
    let client = Client { stream, peer, inbox: Inbox::new(&core.buffers), served: 0 };
    // In a box of its own, which is gone before the tunnel begins: tunnels live long and must be small.
    if let Some((client, tunnel)) = Box::pin(converse(&core, client)).await {
        relay(&core, client, tunnel).await;
    }
}

/// Answers requests until the connection ends or becomes a tunnel.
async fn converse(core: &Rc<Core>, mut client: Client) -> Option<(Client, Tunnel)> {
    loop {
        let next = match read_request(core, &mut client).await {
            Read::Request(asked) => serve(core, &mut client, asked).await,
            Read::Bad(refusal) => {
                turn_away(core, &mut client, refusal).await;
                return None;
            }
            Read::Gone => return None,
        };
        match next {
            Next::Tunnel(tunnel) => return Some((client, tunnel)),
            Next::Close => return None,
            Next::Request => client.served += 1,
        }
    }
}

/// Judges a request, journals the decision, and carries it out.
async fn serve(core: &Rc<Core>, client: &mut Client, asked: Asked) -> Next {
    let plan = plan(core, client, &asked).await;
    let about = about(client, &asked, &plan);
    let (verdict, rule, reason) = ruling(&plan);
    let entry = match Entry::decided(core, about, verdict, rule, reason).await {
        Ok(entry) => entry,
        Err(code) => {
            let refusal = own(code, "the journal takes no more records");
            return answer(core, client, &asked, &refusal).await.into();
        }
    };
    match plan {
        Plan::Refuse(refusal, would_refuse) => {
            if let Some(would) = would_refuse {
                entry.note(
                    would.code,
                    &format!("enforce mode refuses it by {}: {}", would.rule, would.reason),
                );
            }
            entry.status.set(refusal.code.status());
            let keep_alive = answer(core, client, &asked, &refusal).await;
            entry.end(Outcome::Failed(refusal.code));
            keep_alive.into()
        }
        Plan::Pass(passage, reach) => match asked.ask {
            Ask::Connect => open_tunnel(core, client, asked, entry, passage, &reach.route).await,
            Ask::Http => exchange::forward(core, client, &asked, entry, &reach.route).await.into(),
        },
    }
}

/// Decides, and finds the way where the decision lets it pass. Nothing is dialled yet.
async fn plan(core: &Core, client: &Client, asked: &Asked) -> Plan {
    if passed_here(core, client, asked) {
        let reason = "the request has come through this proxy before: a parent leads back here";
        return Plan::Refuse(Refusal { rule: "upstream".into(), ..own(Code::Loop, reason) }, None);
    }
    let facts = Facts { ask: asked.ask, target: &asked.target };
    let passage = match core.shared.policy.decide(&facts) {
        Decision::Refuse(refusal) => return Plan::Refuse(refusal, None),
        Decision::Tunnel(passage) | Decision::Forward(passage) => passage,
    };
    if core.is_draining() {
        return Plan::Refuse(own(Code::Draining, "the proxy is stopping"), passage.would_refuse);
    }
    if !core.has_room() {
        return Plan::Refuse(own(Code::Overload, "too many connections are open"), passage.would_refuse);
    }
    match dial::reach(core, &passage, &asked.target, asked.ask).await {
        Ok(reach) => Plan::Pass(passage, reach),
        Err(refusal) => Plan::Refuse(refusal, passage.would_refuse),
    }
}

/// Whether our own Via is in the head (RFC 9110, 7.6.3). It is sent towards parents alone.
fn passed_here(core: &Core, client: &Client, asked: &Asked) -> bool {
    let head = client.inbox.bytes();
    let own = core.shared.via.as_bytes();
    asked.request.values(head, "via").any(|value| value.windows(own.len()).any(|part| part == own))
}

fn ruling(plan: &Plan) -> (Verdict, Arc<str>, Option<Arc<str>>) {
    match plan {
        Plan::Refuse(refusal, _) => {
            (Verdict::Refuse(refusal.code), Arc::clone(&refusal.rule), Some(Arc::clone(&refusal.reason)))
        }
        Plan::Pass(passage, reach) => match passage.would_refuse.as_ref().or(reach.would_refuse.as_ref()) {
            Some(would) => {
                (Verdict::WouldRefuse(would.code), Arc::clone(&would.rule), Some(Arc::clone(&would.reason)))
            }
            None => (Verdict::Allow, Arc::clone(&passage.rule), None),
        },
    }
}

fn about(client: &Client, asked: &Asked, plan: &Plan) -> About {
    let (verb, path) = match (&asked.request.method, &asked.request.target) {
        (Method::Connect, _) => (Verb::Connect, None),
        (method, Target::Absolute(absolute)) => {
            let head = client.inbox.bytes();
            let path = String::from_utf8_lossy(absolute.path.of(head));
            let path = path.split('?').next().unwrap_or_default();
            (Verb::Http(method.as_str().into()), Some(path.into()))
        }
        (method, _) => (Verb::Http(method.as_str().into()), None),
    };
    About {
        client: client.peer,
        verb: Some(verb),
        target: Some(asked.target.to_string().into()),
        path,
        via: match plan {
            Plan::Pass(_, reach) => reach.route.via(),
            Plan::Refuse(..) => None,
        },
    }
}

/// Dials and says 200.
async fn open_tunnel(
    core: &Rc<Core>,
    client: &mut Client,
    asked: Asked,
    entry: Entry,
    passage: Passage,
    route: &Route,
) -> Next {
    let Dialled { stream: upstream, early } =
        match dial::connect(core, route, &asked.target, Ask::Connect, &vias(client, &asked)).await {
            Ok(dialled) => dialled,
            Err(failure) => {
                let refusal =
                    Refusal { code: failure.code, rule: "upstream".into(), reason: failure.reason.into() };
                entry.status.set(refusal.code.status());
                answer(core, client, &asked, &refusal).await;
                entry.end(Outcome::Failed(refusal.code));
                return Next::Close;
            }
        };
    client.inbox.consume(asked.head_len);
    entry.status.set(200);
    let mut greeting = b"HTTP/1.1 200 Connection established\r\n\r\n".to_vec();
    greeting.extend_from_slice(&early);
    if client.stream.write_all(&greeting).await.is_err() {
        entry.end(Outcome::ClientGone);
        return Next::Close;
    }
    entry.flow.count(core, Way::Down, early.len());
    Next::Tunnel(Tunnel { upstream, entry, passage, target: asked.target, via: route.via() })
}

/// The proxies that a CONNECT has come through, as its head tells.
fn vias(client: &Client, asked: &Asked) -> String {
    let head = client.inbox.bytes();
    asked.request.values(head, "via").map(|value| String::from_utf8_lossy(value) + ", ").collect()
}

/// Relays until the end. The first flight may still refuse the tunnel: that is a decision of its own.
async fn relay(core: &Rc<Core>, client: Client, tunnel: Tunnel) {
    let Client { stream, peer, mut inbox, .. } = client;
    let Tunnel { upstream, entry, passage, target, via } = tunnel;
    core.counters().tunnels.fetch_add(1, Ordering::Relaxed);
    let ended = {
        let first = async || {
            first_flight::hold(core, &stream, &mut inbox, &upstream, &entry, &passage, &target).await
        };
        tunnel::run(core, &stream, &upstream, &entry.flow, first).await
    };
    core.counters().tunnels.fetch_sub(1, Ordering::Relaxed);
    let refusal = match ended {
        Ok(outcome) => return entry.end(outcome),
        Err(refusal) => refusal,
    };
    let verb = Some(Verb::Connect);
    let about = About { client: peer, verb, target: Some(target.to_string().into()), path: None, via };
    let Refusal { code, rule, reason } = refusal;
    if let Ok(refused) = Entry::decided(core, about, Verdict::Refuse(code), rule, Some(reason)).await {
        refused.end(Outcome::Failed(code));
    }
    entry.end(Outcome::Failed(code));
}

/// What reading a head came to.
enum Read {
    Request(Asked),
    Bad(Refusal),
    /// Closed, or idle for too long, without a byte of a request: no event.
    Gone,
}

/// Reads the next head and parses it.
async fn read_request(core: &Core, client: &mut Client) -> Read {
    let Client { stream, inbox, served, .. } = client;
    let mut alarm = core.alarms.alarm();
    if inbox.bytes().is_empty() {
        // When the proxy drains, a connection that has been served closes at once; a new one may still speak.
        let grace = core.alarms.alarm();
        let idle = drained(core, grace, *served == 0);
        match alarm.within(KEEP_ALIVE_IDLE, race(inbox.fill(stream), idle)).await {
            Ok(Either::Left(Ok(1..))) => {}
            Ok(Either::Left(_) | Either::Right(())) | Err(_) => return Read::Gone,
        }
    }
    let mut scan = HeadScan::new();
    alarm.set(HEAD_DEADLINE);
    let head_len = loop {
        match scan.scan(inbox.bytes()) {
            Ok(Step::Done(len)) => break len,
            Ok(Step::More) => {}
            Err(error) => return Read::Bad(malformed(&error)),
        }
        match alarm.before(inbox.fill(stream)).await {
            Ok(Ok(1..)) => {}
            Ok(Ok(_)) => return Read::Bad(malformed(&"the connection ended inside a head")),
            Ok(Err(error)) => return Read::Bad(malformed(&error)),
            Err(_) => {
                let reason = format!("the head was not complete after {} s", HEAD_DEADLINE.as_secs());
                return Read::Bad(own(Code::HeadTimeout, &reason));
            }
        }
    };
    let head = inbox.bytes().get(..head_len).unwrap_or_default();
    match Request::parse(head) {
        Ok(request) => to_a_target(request, head_len),
        Err(error) if error.is_authority_mismatch() => {
            Read::Bad(Refusal { code: Code::AuthorityMismatch, ..malformed(&error) })
        }
        Err(error) => Read::Bad(malformed(&error)),
    }
}

/// Waits until a connection without a request is closed because the proxy drains.
async fn drained(core: &Core, mut grace: Alarm, may_speak: bool) {
    core.drain_begun().await;
    if may_speak {
        grace.set(DRAIN_QUIET);
        grace.ring().await;
    }
}

fn to_a_target(request: Request, head_len: usize) -> Read {
    let (target, ask) = match &request.target {
        Target::Authority(authority) => (authority.clone(), Ask::Connect),
        Target::Absolute(absolute) => (absolute.authority.clone(), Ask::Http),
        Target::Origin | Target::Asterisk => {
            return Read::Bad(malformed(
                &"this is a proxy: the request must name its target (http://host/path)",
            ));
        }
    };
    Read::Request(Asked { request, head_len, target, ask })
}

fn malformed(why: &dyn std::fmt::Display) -> Refusal {
    Refusal { code: Code::Malformed, rule: "http".into(), reason: why.to_string().into() }
}

/// A refusal that stands in no policy.
pub(crate) fn own(code: Code, reason: &str) -> Refusal {
    Refusal { code, rule: "limit".into(), reason: reason.into() }
}

/// Journals and answers what could not be read. Framing is lost, so the connection ends.
async fn turn_away(core: &Rc<Core>, client: &mut Client, refusal: Refusal) {
    let about = About { client: client.peer, verb: None, target: None, path: None, via: None };
    let Refusal { code, rule, reason } = refusal;
    let entry =
        Entry::decided(core, about, Verdict::Refuse(code), Arc::clone(&rule), Some(Arc::clone(&reason)))
            .await;
    let bytes = refusal::response(code, None, &rule, &reason, true, false);
    close_with(core, client, &bytes).await;
    if let Ok(entry) = entry {
        entry.status.set(code.status());
        entry.end(Outcome::Failed(code));
    }
}
