//! Tests of the resolver: with look-ups that hang, fail and count, and once with the system's own.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use super::*;

const V4: [IpAddr; 3] = [ip4(1), ip4(2), ip4(3)];
const V6: [IpAddr; 2] = [ip6(1), ip6(2)];

const fn ip4(last: u8) -> IpAddr {
    IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, last))
}

const fn ip6(last: u16) -> IpAddr {
    IpAddr::V6(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last))
}

fn ticket(slot: u32) -> Ticket {
    Ticket { slot, generation: 1 }
}

fn mailbox() -> Arc<Mailbox> {
    Arc::new(Mailbox::new(4096).unwrap())
}

fn pause(ms: u64) {
    let (_sender, never) = mpsc::channel::<()>();
    let _ = never.recv_timeout(Duration::from_millis(ms));
}

fn letters(mail: &Mailbox, count: usize) -> Vec<(u32, Outcome)> {
    let until = Instant::now() + Duration::from_secs(20);
    let mut letters = Vec::new();
    while letters.len() < count && Instant::now() < until {
        match mail.take() {
            Some(Letter::Resolved { ticket, answer }) => letters.push((ticket.slot, answer)),
            Some(other) => panic!("unexpected {other:?}"),
            None => pause(1),
        }
    }
    letters
}

/// Asks and waits.
fn resolved(resolver: &Resolver, name: &str) -> Outcome {
    let mail = mailbox();
    match resolver.ask(name, &mail, ticket(0))? {
        Some(answer) => Ok(answer),
        None => letters(&mail, 1).remove(0).1,
    }
}

/// A resolver whose names beginning with `hang` hang until the gate is dropped, and which counts its calls.
fn gated() -> (Resolver, mpsc::Sender<()>, Arc<AtomicUsize>) {
    let (gate, hung) = mpsc::channel::<()>();
    let hung = Lock::new(hung);
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let resolver = Resolver::with_lookup(Box::new(move |name| {
        counted.fetch_add(1, Ordering::SeqCst);
        if name.starts_with("hang") {
            let _ = lock(&hung).recv();
        }
        match name {
            "missing.test" => Err(NameError::NotFound("Name or service not known".into())),
            "failing.test" => Err(NameError::Failed("Temporary failure in name resolution".into())),
            "empty.test" => Ok(Vec::new()),
            "panic.test" => panic!("ordered by a test"),
            _ => Ok(V4.to_vec()),
        }
    }))
    .unwrap();
    (resolver, gate, calls)
}

#[test]
fn an_answer_comes_by_letter_once_and_from_the_cache_after_that() {
    let (resolver, _gate, calls) = gated();
    let mail = mailbox();
    assert_eq!(resolver.ask("a.test", &mail, ticket(3)), Ok(None));
    assert_eq!(letters(&mail, 1), [(3, Ok(V4.into()))]);
    assert_eq!(resolver.ask("a.test", &mail, ticket(4)), Ok(Some(V4.into())));
    assert!(mail.take().is_none(), "an answer that was given is not posted too");
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    resolver.stop();
}

#[test]
fn failures_say_what_they_are_and_are_kept_for_a_moment() {
    let (resolver, _gate, calls) = gated();
    let not_found = Err(NameError::NotFound("Name or service not known".into()));
    assert_eq!(resolved(&resolver, "missing.test"), not_found);
    assert_eq!(
        resolver.ask("missing.test", &mailbox(), ticket(0)).map(|_| ()),
        not_found.map(|_: Answer| ())
    );
    assert!(matches!(resolved(&resolver, "failing.test"), Err(NameError::Failed(_))));
    assert!(matches!(resolved(&resolver, "empty.test"), Err(NameError::NotFound(_))));
    assert!(matches!(resolved(&resolver, "panic.test"), Err(NameError::Failed(_))));
    assert_eq!(resolved(&resolver, "a.test"), Ok(V4.into()), "the thread lives on");
    assert_eq!(calls.load(Ordering::SeqCst), 5);
    resolver.stop();
}

#[test]
fn a_thousand_waiters_on_a_hung_name_are_one_call_and_others_are_answered() {
    let (resolver, gate, calls) = gated();
    let mail = mailbox();
    assert_eq!(resolved(&resolver, "cached.test"), Ok(V4.into()));
    for slot in 0..1_000 {
        assert_eq!(resolver.ask("hang.test", &mail, ticket(slot)), Ok(None));
    }
    assert_eq!(resolved(&resolver, "other.test"), Ok(V4.into()));
    assert_eq!(resolver.ask("hang.too.test", &mail, ticket(1_000)), Ok(None));
    while calls.load(Ordering::SeqCst) < 4 {
        pause(1);
    }
    // Both threads hang now.
    assert_eq!(resolver.ask("cached.test", &mail, ticket(0)), Ok(Some(V4.into())));
    assert!(mail.take().is_none());
    drop(gate);
    let mut slots: Vec<u32> = letters(&mail, 1_001).iter().map(|(slot, _)| *slot).collect();
    slots.sort_unstable();
    assert_eq!(slots, (0..=1_000).collect::<Vec<_>>());
    assert_eq!(calls.load(Ordering::SeqCst), 4);
    assert_eq!(lock(&resolver.0.table).waiters, 0);
    resolver.stop();
}

#[test]
fn a_full_queue_says_so_at_once() {
    let (resolver, gate, _calls) = gated();
    let mail = mailbox();
    for name in ["hang-1.test", "hang-2.test"] {
        resolver.ask(name, &mail, ticket(0)).unwrap();
    }
    while !lock(&resolver.0.table).queue.is_empty() {
        pause(1);
    }
    for n in 0..RESOLVE_QUEUE_MAX {
        assert_eq!(resolver.ask(&format!("n{n}.test"), &mail, ticket(0)), Ok(None));
    }
    assert_eq!(resolver.ask("one-more.test", &mail, ticket(0)), Err(NameError::Busy));
    assert_eq!(resolver.ask("n7.test", &mail, ticket(0)), Ok(None), "joining needs no place in the queue");
    drop(gate);
    resolver.stop();
}

#[test]
fn the_end_joins_threads_and_waits_for_no_hung_one() {
    let (resolver, _gate, _calls) = gated();
    resolved(&resolver, "a.test").unwrap();
    resolver.stop();
    assert_eq!(lock(&resolver.0.table).alive, 0);
    assert!(lock(&resolver.0.threads).is_empty(), "joined");
    assert!(matches!(resolver.ask("a.test", &mailbox(), ticket(0)), Err(NameError::Failed(_))));

    let (resolver, gate, calls) = gated();
    let mail = mailbox();
    resolver.ask("hang.test", &mail, ticket(9)).unwrap();
    while calls.load(Ordering::SeqCst) < 1 {
        pause(1);
    }
    let begun = Instant::now();
    resolver.stop();
    assert!(begun.elapsed() < RESOLVE_STOP_GRACE + Duration::from_secs(2));
    let [(9, Err(NameError::Failed(why)))] = &letters(&mail, 1)[..] else { panic!("its waiter is told") };
    assert!(why.contains("stopped"));
    assert_eq!(lock(&resolver.0.threads).len(), 1, "the idle one is joined, the hung one is left");
    drop(gate);
}

#[test]
fn the_table_serves_nothing_past_its_time() {
    let (mail, mut table, now) = (mailbox(), Table::new(), Instant::now());
    let just = Duration::from_millis(1);
    for (name, outcome, kept_for) in [
        ("found.test", Ok(Answer::from(V4)), RESOLVE_FOUND_KEPT),
        ("missing.test", Err(NameError::NotFound("no".into())), RESOLVE_NOT_FOUND_KEPT),
        ("failing.test", Err(NameError::Failed("no".into())), RESOLVE_FAILED_KEPT),
    ] {
        assert!(matches!(table.ask(name, &mail, ticket(1), now), Ok(Asked::Queued)));
        assert!(matches!(table.ask(name, &mail, ticket(2), now), Ok(Asked::Joined)));
        let next = table.next(now, &mut Vec::new()).unwrap();
        assert!(matches!(table.ask(name, &mail, ticket(3), now), Ok(Asked::Joined)), "while it is looked up");
        assert_eq!(table.settle(&next, &outcome, now).len(), 3);
        match (table.ask(name, &mail, ticket(4), now + kept_for - just), &outcome) {
            (Ok(Asked::Known(answer)), Ok(expected)) => assert_eq!(answer, *expected),
            (Err(error), Err(expected)) => assert_eq!(error, *expected),
            _ => panic!("{name} was not kept"),
        }
        assert!(matches!(table.ask(name, &mail, ticket(5), now + kept_for), Ok(Asked::Queued)), "{name}");
        table.abandon();
    }
    assert_eq!(table.waiters, 0);
}

#[test]
fn a_name_that_nobody_can_still_want_is_not_looked_up() {
    let (mail, mut table, now) = (mailbox(), Table::new(), Instant::now());
    for name in ["old.test", "renewed.test"] {
        table.ask(name, &mail, ticket(1), now).unwrap();
    }
    table.ask("renewed.test", &mail, ticket(2), now + RESOLVE_DEADLINE / 2).unwrap();
    let mut late = Vec::new();
    let next = table.next(now + RESOLVE_DEADLINE, &mut late);
    assert_eq!(next.as_deref(), Some("renewed.test"));
    assert_eq!((late.len(), table.waiters), (1, 2));
}

#[test]
fn cache_and_waiters_are_bounded() {
    let (mail, mut table, now) = (mailbox(), Table::new(), Instant::now());
    for n in 0..RESOLVE_CACHE_MAX + 10 {
        table.settle(&format!("n{n}.test").into(), &Ok(V4.into()), now);
    }
    assert_eq!(table.cache.len(), RESOLVE_CACHE_MAX);
    assert!(table.cache.peek("n9.test").is_none() && table.cache.peek("n10.test").is_some());
    for slot in 0..RESOLVE_WAITERS_MAX {
        assert!(table.ask("hang.test", &mail, ticket(u32::try_from(slot).unwrap()), now).is_ok());
    }
    assert!(matches!(table.ask("hang.test", &mail, ticket(0), now), Err(NameError::Busy)));
    assert!(table.ask("n10.test", &mail, ticket(0), now).is_ok(), "a known name is still answered");
}

#[test]
fn addresses_alternate_without_doubles_up_to_the_bound() {
    let arranged = |found: &[IpAddr]| arrange(found).map(|answer| answer.to_vec());
    let [a, b, c] = V4;
    let [x, y] = V6;
    assert_eq!(arranged(&[x, x, y, a, a, b, c, x]), Ok(vec![x, a, y, b, c]));
    assert_eq!(arranged(&[a, b, c, x, y]), Ok(vec![a, x, b, y, c]));
    assert_eq!(arranged(&[a]), Ok(vec![a]));
    let many: Vec<IpAddr> = (0..40).map(ip4).chain((0..40).map(ip6)).collect();
    let some = arranged(&many).unwrap();
    assert_eq!(some.len(), ADDRESSES_PER_NAME_MAX);
    assert_eq!(some.iter().filter(|address| address.is_ipv6()).count(), ADDRESSES_PER_NAME_MAX / 2);
}

#[test]
fn the_words_of_the_system_are_told_apart() {
    let prefix = "failed to lookup address information: ";
    for (text, not_found) in [
        ("Name or service not known", true),
        ("Name does not resolve", true),
        ("No address associated with hostname", true),
        ("Temporary failure in name resolution", false),
        ("Non-recoverable failure in name resolution", false),
        ("Try again", false),
        ("Bitte noch einmal", false),
    ] {
        let error = classify(&format!("{prefix}{text}"));
        assert_eq!(matches!(&error, NameError::NotFound(_)), not_found, "{text}");
        let (NameError::NotFound(kept) | NameError::Failed(kept)) = error else { panic!("{text}") };
        assert_eq!(&*kept, text);
    }
}

#[test]
fn the_system_knows_localhost() {
    let resolver = Resolver::start().unwrap();
    let answer = resolved(&resolver, "localhost").unwrap();
    assert!(answer.iter().all(IpAddr::is_loopback), "{answer:?}");
    resolver.stop();
}
