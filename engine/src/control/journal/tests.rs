//! Tests of the journal's writer: real files, a real full disk (`/dev/full`), a real panic.

use std::fs::OpenOptions;
use std::path::Path;
use std::sync::mpsc;

use super::*;
use crate::audit::record::samples::{decided, ended, header, noted};
use crate::audit::record::{Outcome, Verdict};
use crate::audit::verify::{Verified, verify};
use crate::error::Code;

/// What a test may see of the writer, and make it do.
#[derive(Debug, Default)]
pub(super) struct Probe {
    pub(super) sleeps: AtomicU64,
    pub(super) order: Lock<Option<Order>>,
}

#[derive(Debug)]
pub(super) enum Order {
    Panic,
    WriteTo(File),
}

const REFUSED: Verdict = Verdict::Refuse(Code::NotAllowed);

fn appended(path: &Path) -> File {
    OpenOptions::new().append(true).create_new(true).open(path).unwrap()
}

fn started(dir: &tempfile::TempDir) -> (Journal, std::path::PathBuf) {
    let path = dir.path().join("journal");
    (Journal::start(appended(&path), &header()).unwrap(), path)
}

fn read_back(path: &Path) -> Verified {
    verify(&std::fs::read(path).unwrap(), Some(&header().run)).unwrap()
}

fn pause(ms: u64) {
    let (_sender, never) = mpsc::channel::<()>();
    let _ = never.recv_timeout(Duration::from_millis(ms));
}

/// The letters of `count` waiters: slot and whether it was written.
fn letters(mail: &Mailbox, count: usize) -> Vec<(u32, bool)> {
    let until = Instant::now() + Duration::from_secs(20);
    let mut letters = Vec::new();
    while letters.len() < count && Instant::now() < until {
        match mail.take() {
            Some(Letter::Journaled { ticket, written }) => letters.push((ticket.slot, written)),
            Some(other) => panic!("unexpected {other:?}"),
            None => pause(1),
        }
    }
    letters
}

fn ticket(slot: u32) -> Ticket {
    Ticket { slot, generation: 1 }
}

fn order(journal: &Journal, order: Order) {
    *lock(&journal.0.probe.order) = Some(order);
}

#[test]
fn what_was_handed_over_is_in_the_file_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, path) = started(&dir);
    let mail = Arc::new(Mailbox::new(16).unwrap());
    journal.hand_over(decided(1, Verdict::Allow)).unwrap();
    journal.hand_over(noted(1, Code::SniMismatch)).unwrap();
    journal.hand_over(ended(1, 5, 6, Outcome::Complete)).unwrap();
    journal.hand_over_acked(decided(2, REFUSED), &mail, ticket(7)).unwrap();
    assert_eq!(letters(&mail, 1), [(7, true)]);
    // The letter says that the lines are there, before any sync or end.
    let so_far = read_back(&path);
    assert!(!so_far.sealed);
    assert_eq!((so_far.seq, so_far.tally.totals.violations), (5, 1));
    let health = journal.health();
    assert_eq!((health.verifiable, health.seq, health.head), (true, 5, so_far.head));
    assert_eq!(journal.tally(), so_far.tally);

    let sealed = journal.seal();
    assert!(sealed.verifiable, "{sealed:?}");
    let verified = read_back(&path);
    assert!(verified.sealed);
    assert_eq!((verified.head, verified.seq, &verified.tally), (sealed.head, sealed.seq, &sealed.tally));
    assert_eq!(journal.seal(), sealed, "a second end repeats the first answer");
}

#[test]
fn many_cores_at_once_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, path) = started(&dir);
    thread::scope(|scope| {
        for core in 0..4_u32 {
            let journal = &journal;
            scope.spawn(move || {
                let mail = Arc::new(Mailbox::new(4096).unwrap());
                let mut acked = 0;
                for n in 0..2_000_u32 {
                    let id = u64::from(core) << 32 | u64::from(n);
                    if n % 10 == 0 {
                        journal.hand_over_acked(decided(id, REFUSED), &mail, ticket(n)).unwrap();
                        acked += 1;
                    } else {
                        journal.hand_over(decided(id, Verdict::Allow)).unwrap();
                        journal.hand_over(ended(id, 1, 1, Outcome::Complete)).unwrap();
                    }
                }
                let letters = letters(&mail, acked);
                assert_eq!(letters.len(), acked);
                assert!(letters.iter().all(|&(_, written)| written));
            });
        }
    });
    let sealed = journal.seal();
    let verified = read_back(&path);
    assert!(sealed.verifiable && verified.sealed);
    let totals = &verified.tally.totals;
    assert_eq!((totals.decided, totals.violations, totals.open, totals.ended), (8_000, 800, 0, 7_200));
    assert_eq!(verified.head, sealed.head);
}

#[test]
fn unhurried_records_share_writes_and_an_idle_writer_sleeps() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, path) = started(&dir);
    let begun = Instant::now();
    for id in 0..5_000 {
        journal.hand_over(decided(id, Verdict::Allow)).unwrap();
    }
    while journal.tally().totals.decided < 5_000 {
        pause(1);
    }
    // One nap a batch, one sleep between batches.
    let sleeps = journal.0.probe.sleeps.load(Ordering::SeqCst);
    let batches = u64::try_from(begun.elapsed().as_millis()).unwrap() / 5 + 1;
    assert!(sleeps <= 3 * batches + 3, "{sleeps} sleeps in {batches} batches");
    while read_back(&path).tally.totals.decided < 5_000 {
        pause(1); // written without being asked
    }
    // After the sync, a second at most, nothing wakes it any more.
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let before = journal.0.probe.sleeps.load(Ordering::SeqCst);
        pause(1_500);
        if journal.0.probe.sleeps.load(Ordering::SeqCst) == before {
            break;
        }
        assert!(Instant::now() < until, "an idle writer wakes up again and again");
    }
    assert!(journal.seal().verifiable);
}

#[test]
fn a_full_disk_at_the_start_is_an_error() {
    let full = OpenOptions::new().append(true).open("/dev/full").unwrap();
    assert_eq!(Journal::start(full, &header()).unwrap_err().kind(), io::ErrorKind::StorageFull);
}

#[test]
fn a_gap_stays_a_gap_although_the_disk_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, path) = started(&dir);
    let mail = Arc::new(Mailbox::new(16).unwrap());
    journal.hand_over_acked(decided(2, REFUSED), &mail, ticket(1)).unwrap();
    assert_eq!(letters(&mail, 1), [(1, true)]);
    let before = journal.health();

    order(&journal, Order::WriteTo(OpenOptions::new().append(true).open("/dev/full").unwrap()));
    journal.hand_over_acked(decided(4, REFUSED), &mail, ticket(2)).unwrap();
    assert_eq!(letters(&mail, 1), [(2, false)], "the core learns that the record is not in the file");
    let health = journal.health();
    assert!(!health.verifiable && health.why.unwrap().contains("could not be written"));
    assert_eq!((health.seq, health.head), (before.seq, before.head));

    let size = std::fs::metadata(&path).unwrap().len();
    order(&journal, Order::WriteTo(OpenOptions::new().append(true).open(&path).unwrap()));
    journal.hand_over_acked(decided(6, REFUSED), &mail, ticket(3)).unwrap();
    assert_eq!(letters(&mail, 1), [(3, false)]);
    assert_eq!(journal.tally().totals.violations, 3, "the count goes on");
    let sealed = journal.seal();
    assert!(!sealed.verifiable && sealed.why.is_some());
    assert_eq!((sealed.tally.totals.violations, sealed.head), (3, before.head));
    assert_eq!(std::fs::metadata(&path).unwrap().len(), size, "nothing was written after the gap");
    assert!(!read_back(&path).sealed);
}

#[test]
fn a_disk_that_fills_in_the_last_moment_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, path) = started(&dir);
    order(&journal, Order::WriteTo(OpenOptions::new().append(true).open("/dev/full").unwrap()));
    assert!(!journal.seal().verifiable);
    assert!(!read_back(&path).sealed);
}

#[test]
fn a_writer_that_panics_leaves_nobody_waiting_and_the_run_unverifiable() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, path) = started(&dir);
    let mail = Arc::new(Mailbox::new(16).unwrap());
    order(&journal, Order::Panic);
    journal.hand_over_acked(decided(2, REFUSED), &mail, ticket(1)).unwrap();
    assert_eq!(letters(&mail, 1), [(1, false)]);
    assert!(!journal.health().verifiable);
    while journal.hand_over(decided(4, Verdict::Allow)).is_ok() {
        pause(1);
    }
    let sealed = journal.seal();
    assert!(!sealed.verifiable && sealed.why.unwrap().contains("panicked"));
    assert!(!read_back(&path).sealed);
}

#[test]
fn a_record_after_the_end_is_not_taken() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _path) = started(&dir);
    assert!(journal.seal().verifiable);
    assert_eq!(journal.hand_over(decided(1, Verdict::Allow)), Err(Full));
    assert!(!journal.health().verifiable);
}

#[test]
fn a_full_queue_is_an_error_now_and_the_run_says_so_in_its_last_line() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, path) = started(&dir);
    // The writer stands still while the state is held.
    let held = lock(&journal.0.state);
    let mut taken = 0_u64;
    while journal.hand_over(ended(taken, 1, 1, Outcome::Complete)).is_ok() {
        taken += 1;
    }
    assert!(taken >= JOURNAL_RECORDS_MAX as u64);
    drop(held);
    let sealed = journal.seal();
    assert!(!sealed.verifiable);
    assert_eq!(sealed.tally.totals.ended, taken);
    let verified = read_back(&path);
    assert_eq!((verified.sealed, verified.lost), (true, 1));
}
