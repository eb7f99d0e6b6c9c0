//! From a target to a connected stream: names, guard, addresses, parent proxies.
//!
//! Two steps, because the decision is journalled between them: `reach` says by which way a target is reached and
//! judges every address (nothing is dialled), `connect` goes that way. The address that was judged is the one that
//! is dialled. A parent that is configured and down is an error, never a direct connection.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;

use crate::error::Code;
use crate::limits::{CONNECT_DEADLINE, DIAL_DEADLINE, PARENT_DEADLINE};
use crate::mail::NameError;
use crate::policy::{AddressCheck, Ask, Parent, Passage, Refusal, guard};
use crate::wire::Step;
use crate::wire::head::{HeadScan, Method, Response};
use crate::wire::target::{Authority, Host};

use super::core::Core;
use super::inbox::Inbox;
use super::rt::Alarm;
use super::stream::Stream;
use super::tls::Tls;

/// How a target is reached.
pub(crate) enum Route {
    /// Straight, at these judged addresses; never empty.
    Direct(Vec<SocketAddr>),
    /// Through this parent, at these addresses of it; never empty. The parent resolves the target.
    Parent(Arc<Parent>, Vec<SocketAddr>),
}

impl Route {
    /// The parent's name.
    pub(crate) fn via(&self) -> Option<Arc<str>> {
        match self {
            Self::Direct(_) => None,
            Self::Parent(parent, _) => Some(Arc::clone(&parent.name)),
        }
    }
}

/// A way, and what enforce mode would have said of it.
pub(crate) struct Reach {
    pub(crate) route: Route,
    pub(crate) would_refuse: Option<Refusal>,
}

/// A connected upstream.
pub(crate) struct Dialled {
    pub(crate) stream: Stream,
    /// Bytes that a parent sent behind its answer to CONNECT: the first of the tunnel.
    pub(crate) early: Vec<u8>,
}

/// Why no upstream could be had.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    /// One line for people.
    pub(crate) reason: String,
}

/// Finds the way to `target` and judges it.
///
/// # Errors
/// The refusal of the guard, or that the name has no addresses.
pub(crate) async fn reach(
    core: &Core,
    passage: &Passage,
    target: &Authority,
    ask: Ask,
) -> Result<Reach, Refusal> {
    let policy = &core.shared.policy;
    if let Some(parent) = policy.parent_for(target, ask) {
        let addresses = addresses(core, &parent.authority).await?;
        if addresses.iter().any(|&to| guard::is_own(to, &core.shared.own)) {
            return Err(refusal(Code::Loop, "upstream", "the parent proxy is this proxy itself"));
        }
        let route = Route::Parent(Arc::clone(parent), addresses);
        return Ok(Reach { route, would_refuse: None });
    }
    let mut open = Vec::new();
    let mut would_refuse = None;
    let mut refused = None;
    for to in addresses(core, target).await? {
        match policy.check_address(passage, to, &core.shared.own) {
            AddressCheck::Open => open.push(to),
            AddressCheck::Noted(refusal) => {
                would_refuse.get_or_insert(refusal);
                open.push(to);
            }
            AddressCheck::Refused(refusal) => {
                refused.get_or_insert(refusal);
            }
        }
    }
    match refused {
        Some(refusal) if open.is_empty() => Err(refusal),
        // What was refused is not dialled; the others were judged on their own.
        Some(_) | None => Ok(Reach { route: Route::Direct(open), would_refuse }),
    }
}

/// The socket addresses of an authority: itself, the policy's table, or the resolver's answer.
async fn addresses(core: &Core, target: &Authority) -> Result<Vec<SocketAddr>, Refusal> {
    if let Some(ip) = target.host.ip() {
        return Ok(vec![SocketAddr::new(ip, target.port)]);
    }
    let found = match core.shared.policy.fixed_addresses(&target.host) {
        Some(fixed) => fixed,
        None => core.resolve(&target.host.to_string()).await.map_err(|error| {
            let (code, why) = match error {
                NameError::NotFound(why) | NameError::Failed(why) => (Code::DnsFailed, why),
                NameError::Busy => (Code::Overload, "too many names are being looked up".into()),
            };
            refusal(code, "dns", &format!("{}: {why}", target.host))
        })?,
    };
    Ok(found.iter().map(|&ip| SocketAddr::new(ip, target.port)).collect())
}

fn refusal(code: Code, rule: &str, reason: &str) -> Refusal {
    Refusal { code, rule: rule.into(), reason: reason.into() }
}

/// Connects along `route`, for a tunnel or for plain requests to `target`. `vias` are the proxies that a CONNECT
/// has come through, each followed by a comma, for a parent.
///
/// # Errors
/// Why it could not, with the code for the client.
pub(crate) async fn connect(
    core: &Rc<Core>,
    route: &Route,
    target: &Authority,
    ask: Ask,
    vias: &str,
) -> Result<Dialled, Failure> {
    match route {
        Route::Direct(addresses) => {
            let stream = any_of(core, addresses).await?;
            Ok(Dialled { stream, early: Vec::new() })
        }
        Route::Parent(parent, addresses) => {
            let stream = any_of(core, addresses).await.map_err(|failure| of_parent(parent, failure))?;
            let mut alarm = core.alarms.alarm();
            alarm.set(PARENT_DEADLINE);
            let answer = alarm.before(through_parent(core, parent, stream, target, ask, vias)).await;
            answer
                .unwrap_or_else(|_| {
                    Err(Failure { code: Code::UpstreamTimeout, reason: "no answer in time".into() })
                })
                .map_err(|failure| of_parent(parent, failure))
        }
    }
}

fn of_parent(parent: &Parent, failure: Failure) -> Failure {
    Failure {
        reason: format!("parent proxy {} ({}): {}", parent.name, parent.authority, failure.reason),
        ..failure
    }
}

/// The first address that accepts. Each gets its share of the time; a black hole costs the share, not the dial.
async fn any_of(core: &Core, addresses: &[SocketAddr]) -> Result<Stream, Failure> {
    let mut alarm = core.alarms.alarm();
    let begun = core.alarms.tick();
    let mut last = String::new();
    let mut timed_out = false;
    for (index, &to) in addresses.iter().enumerate() {
        let spent = Duration::from_secs(core.alarms.tick() - begun);
        let left = DIAL_DEADLINE.saturating_sub(spent);
        if left.is_zero() {
            break;
        }
        let is_last = index + 1 == addresses.len();
        let share = if is_last { left } else { left.min(CONNECT_DEADLINE) };
        timed_out = false;
        match attempt(&mut alarm, share, to).await {
            Ok(stream) => return Ok(stream),
            Err(None) => {
                timed_out = true;
                last = format!("{to}: no answer in {} s", share.as_secs());
            }
            Err(Some(error)) => last = format!("{to}: {error}"),
        }
    }
    let code = if timed_out { Code::UpstreamTimeout } else { Code::UpstreamUnreachable };
    let others = addresses.len().saturating_sub(1);
    let reason = if others == 0 { last } else { format!("{last} (and {others} other addresses)") };
    Err(Failure { code, reason })
}

async fn attempt(
    alarm: &mut Alarm,
    share: Duration,
    to: SocketAddr,
) -> Result<Stream, Option<std::io::Error>> {
    alarm.within(share, Stream::connect(to)).await.map_err(|_| None)?.map_err(Some)
}

/// What a parent needs before bytes may flow: TLS where its URL says https, CONNECT where a tunnel is wanted.
async fn through_parent(
    core: &Rc<Core>,
    parent: &Parent,
    stream: Stream,
    target: &Authority,
    ask: Ask,
    vias: &str,
) -> Result<Dialled, Failure> {
    let stream = if parent.tls { secure(core, parent, stream).await? } else { stream };
    match ask {
        Ask::Http => Ok(Dialled { stream, early: Vec::new() }),
        Ask::Connect => ask_parent(core, parent, stream, target, vias).await,
    }
}

async fn secure(core: &Core, parent: &Parent, stream: Stream) -> Result<Stream, Failure> {
    let tls = |reason: String| Failure { code: Code::UpstreamTls, reason };
    let Some(config) = core.shared.parents.of(parent) else { return Err(tls("no TLS is set up".into())) };
    let name = match &parent.authority.host {
        Host::Name(name) => ServerName::try_from(name.to_string()).map_err(|error| tls(error.to_string()))?,
        Host::V4(ip) => ServerName::from(std::net::IpAddr::V4(*ip)),
        Host::V6(ip) => ServerName::from(std::net::IpAddr::V6(*ip)),
    };
    let Stream::Tcp(source) = stream else { return Err(tls("TLS inside TLS".into())) };
    match Tls::connect(source, config, name).await {
        Ok(session) => Ok(Stream::Tls(Box::new(session))),
        Err(error) => Err(tls(error.to_string())),
    }
}

/// CONNECT to the parent (RFC 9110, 9.3.6).
async fn ask_parent(
    core: &Core,
    parent: &Parent,
    stream: Stream,
    target: &Authority,
    vias: &str,
) -> Result<Dialled, Failure> {
    let gone =
        |why: &dyn std::fmt::Display| Failure { code: Code::UpstreamUnreachable, reason: why.to_string() };
    let via = &core.shared.via;
    let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nVia: {vias}{via}\r\n");
    if let Some(basic) = &parent.basic {
        request.push_str(&format!("Proxy-Authorization: {}\r\n", basic.header_value()));
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes()).await.map_err(|error| gone(&error))?;

    let mut inbox = Inbox::new(&core.buffers);
    let mut scan = HeadScan::new();
    loop {
        let malformed = |why: &dyn std::fmt::Display| Failure {
            code: Code::UpstreamMalformed,
            reason: format!("its answer: {why}"),
        };
        let Step::Done(len) = scan.scan(inbox.bytes()).map_err(|error| malformed(&error))? else {
            if inbox.fill(&stream).await.map_err(|error| gone(&error))? == 0 {
                return Err(gone(&"it closed the connection without an answer"));
            }
            continue;
        };
        let head = inbox.bytes().get(..len).unwrap_or_default();
        let response = Response::parse(head, &Method::Connect).map_err(|error| malformed(&error))?;
        if response.is_interim() {
            inbox.consume(len);
            scan = HeadScan::new();
            continue;
        }
        if !(200..300).contains(&response.status) {
            let words = String::from_utf8_lossy(response.reason.of(head)).into_owned();
            let reason = format!("it refused {target}: {} {words}", response.status);
            return Err(Failure { code: Code::UpstreamRefused, reason });
        }
        inbox.consume(len);
        return Ok(Dialled { early: inbox.bytes().to_vec(), stream });
    }
}
