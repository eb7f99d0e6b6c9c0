//! The client's first flight in a tunnel: held back until it is known what it is, judged, passed on unchanged.
//!
//! A ClientHello comes in any number of segments and records; it is followed to its end. What is not TLS is passed
//! on as soon as that is clear, and so is what does not become a hello in time, if policy lets it. A client that
//! says nothing holds nothing up: the server's bytes flow meanwhile.

use crate::limits::SNIFF_DEADLINE;
use crate::policy::{FirstFlight, FlightCheck, Passage, Refusal};
use crate::wire::Step;
use crate::wire::hello::{Ech, Hello, HelloReader};
use crate::wire::sniff::{First, sniff};
use crate::wire::target::Authority;

use super::core::Core;
use super::entry::Entry;
use super::inbox::Inbox;
use super::stream::Stream;
use super::tunnel::Way;

/// What the bytes turned out to be.
enum Seen {
    Hello(Hello),
    NotTls,
    Nothing,
}

/// Reads, judges and forwards the first flight. `Ok(false)` when the client has ended within it.
///
/// # Errors
/// The refusal of policy; nothing was forwarded then.
pub(crate) async fn hold(
    core: &Core,
    client: &Stream,
    inbox: &mut Inbox,
    upstream: &Stream,
    entry: &Entry,
    passage: &Passage,
    target: &Authority,
) -> Result<bool, Refusal> {
    let (seen, open) = look(core, client, inbox).await;
    let flight = match &seen {
        Seen::Hello(hello) => FirstFlight::Tls { sni: hello.sni.as_ref(), ech: hello.ech == Ech::Present },
        Seen::NotTls => FirstFlight::NotTls,
        Seen::Nothing => FirstFlight::Silent,
    };
    match core.shared.policy.judge_first_flight(passage, target, &flight) {
        FlightCheck::Pass => {}
        FlightCheck::Noted(code, detail) => entry.note(code, &detail),
        FlightCheck::Refused(refusal) => return Err(refusal),
    }
    let held = inbox.bytes().len();
    // A failure shows again, and with its direction, when the tunnel goes on.
    if upstream.write_all(inbox.bytes()).await.is_ok() {
        entry.flow.count(core, Way::Up, held);
    }
    inbox.consume(held);
    Ok(open)
}

/// Reads until it is known what the client speaks; the flag is false when it has ended.
async fn look(core: &Core, client: &Stream, inbox: &mut Inbox) -> (Seen, bool) {
    if inbox.bytes().is_empty() && !matches!(inbox.fill(client).await, Ok(1..)) {
        return (Seen::Nothing, false);
    }
    let mut alarm = core.alarms.alarm();
    alarm.set(SNIFF_DEADLINE);
    let mut reader = HelloReader::new();
    let mut read = 0;
    loop {
        match sniff(inbox.bytes()) {
            Step::More => {}
            Step::Done(First::Tls) => {
                let new = inbox.bytes().get(read..).unwrap_or_default();
                read = inbox.bytes().len();
                match reader.push(new) {
                    Ok(Step::More) => {}
                    Ok(Step::Done(hello)) => return (Seen::Hello(hello), true),
                    // Whatever the server makes of it, it is no hello that can be vouched for.
                    Err(_) => return (Seen::NotTls, true),
                }
            }
            Step::Done(First::Http | First::Other) => return (Seen::NotTls, true),
        }
        match alarm.before(inbox.fill(client)).await {
            Ok(Ok(1..)) => {}
            // An end: what is held goes on, then the end does.
            Ok(_) => return (Seen::NotTls, false),
            Err(_) => return (Seen::NotTls, true),
        }
    }
}
