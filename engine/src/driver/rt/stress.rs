//! The runtime's promise under stress: 50,000 random deadlines, cancellations and answers from other threads,
//! on each driver, with every byte and every waiter accounted for.

use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use std::os::fd::AsFd;

use super::{Alarms, Answer, Choice, Source, Timer, Waiters, run, spawn, turn};
use crate::driver::stream::Stream;
use crate::mail::{Letter, Mailbox, Ticket};

const PAIRS: usize = 50;
const WAITS_PER_PAIR: usize = 400;
const QUESTIONS: usize = 30_000;

/// xorshift64*: seeded, so that a failure can be played again.
#[derive(Clone, Copy)]
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % sides
    }
}

/// What the core counted.
#[derive(Debug, Default)]
struct Counts {
    written: Cell<u64>,
    read: Cell<u64>,
    wrong: Cell<u64>,
    cancelled: Cell<u64>,
    deadlines: Cell<u64>,
    answered: Cell<u64>,
    given_up: Cell<u64>,
    delivered: Cell<u64>,
    late: Cell<u64>,
    open: Cell<usize>,
}

fn add(cell: &Cell<u64>, count: u64) {
    cell.set(cell.get() + count);
}

#[test]
fn fifty_thousand_waits_lose_nothing_on_epoll() {
    if cfg!(feature = "epoll") {
        stress(Choice::Epoll, 0x9E37_79B9);
    }
}

#[test]
fn fifty_thousand_waits_lose_nothing_on_uring() {
    match super::probe() {
        Ok(rung) => {
            eprintln!("rung {rung}");
            stress(Choice::Uring, 0x7F4A_7C15);
        }
        Err(why) => eprintln!("skipped: no ring here: {why}"),
    }
}

fn stress(choice: Choice, seed: u64) {
    let descriptors = open_descriptors();
    let mail = Arc::new(Mailbox::new(1024).unwrap());
    let (questions, asked) = mpsc::channel::<Ticket>();
    let answerer = std::thread::spawn({
        let mail = Arc::clone(&mail);
        move || answer_all(&asked, &mail, Dice(seed ^ 1))
    });
    let counts = run(choice, |_| main(Arc::clone(&mail), questions, Dice(seed))).unwrap();
    let posted = answerer.join().unwrap();

    let waits =
        counts.cancelled.get() + counts.deadlines.get() + counts.answered.get() + counts.given_up.get();
    assert!(waits >= 50_000, "only {waits} waits");
    eprintln!("{counts:?}");
    assert!(counts.cancelled.get() > 5_000 && counts.deadlines.get() > 0 && counts.given_up.get() > 1_000);
    assert_eq!(counts.read.get(), counts.written.get(), "bytes");
    assert_eq!(counts.wrong.get(), 0, "bytes in order");
    assert_eq!(counts.answered.get() + counts.given_up.get(), QUESTIONS as u64, "waiters");
    assert_eq!(posted, QUESTIONS as u64);
    assert_eq!(counts.late.get() + counts.delivered.get(), posted, "every letter found its waiter or nobody");
    assert!(counts.answered.get() <= counts.delivered.get());
    drop(mail);
    assert!(open_descriptors() <= descriptors + 8, "descriptors are given back");
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// The other thread: answers in its own time, each question once.
fn answer_all(asked: &mpsc::Receiver<Ticket>, mail: &Mailbox, mut dice: Dice) -> u64 {
    let mut posted = 0;
    let mut held = Vec::new();
    loop {
        match asked.recv_timeout(Duration::from_millis(1)) {
            Ok(ticket) if dice.roll(4) == 0 => held.push(ticket),
            Ok(ticket) => posted += post(mail, ticket),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                posted += held.drain(..).map(|ticket| post(mail, ticket)).sum::<u64>();
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
        }
    }
    posted + held.drain(..).map(|ticket| post(mail, ticket)).sum::<u64>()
}

fn post(mail: &Mailbox, ticket: Ticket) -> u64 {
    let mut letter = Letter::Journaled { ticket, written: true };
    while let Err(back) = mail.post(letter) {
        letter = back;
        std::thread::yield_now();
    }
    1
}

async fn main(mail: Arc<Mailbox>, questions: mpsc::Sender<Ticket>, mut dice: Dice) -> Rc<Counts> {
    let counts: Rc<Counts> = Rc::default();
    let alarms: Rc<Alarms> = Rc::default();
    let waiters: Rc<Waiters> = Rc::default();
    for _ in 0..PAIRS {
        let (a, b) = UnixStream::pair().unwrap();
        a.set_nonblocking(true).unwrap();
        b.set_nonblocking(true).unwrap();
        let (a, b) = (stream(a.into()), stream(b.into()));
        counts.open.set(counts.open.get() + 2);
        spawn(write_side(a, Rc::clone(&counts), Dice(dice.roll(u64::MAX >> 40) | 1)));
        spawn(read_side(b, Rc::clone(&counts), Rc::clone(&alarms), Dice(dice.roll(u64::MAX >> 40) | 1)));
    }
    for _ in 0..QUESTIONS / 100 {
        counts.open.set(counts.open.get() + 1);
        let dice = Dice(dice.roll(u64::MAX >> 40) | 1);
        spawn(ask(questions.clone(), Rc::clone(&waiters), Rc::clone(&alarms), Rc::clone(&counts), dice));
    }
    drop(questions);
    // The mail is read by readiness of its eventfd alone; the sweep runs a thousand times faster than in life.
    let wake = Source::new(mail.as_fd().try_clone_to_owned().unwrap()).unwrap();
    let sweeper = {
        let (alarms, counts) = (Rc::clone(&alarms), Rc::clone(&counts));
        async move {
            let clock = Timer::new().unwrap();
            clock.every(Duration::from_millis(1)).unwrap();
            while counts.open.get() > 0 {
                clock.expired().await.unwrap();
                alarms.sweep();
            }
        }
    };
    spawn(sweeper);
    let rest = Timer::new().unwrap();
    let mut sent = 0;
    while sent < QUESTIONS as u64 || counts.open.get() > 0 {
        if sent < QUESTIONS as u64 {
            wake.readable().await.unwrap();
        } else {
            rest.after(Duration::from_millis(1)).await.unwrap();
        }
        mail.begin_drain();
        while let Some(Letter::Journaled { ticket, written }) = mail.take() {
            sent += 1;
            let found = waiters.answer(ticket, Answer::Journaled(written));
            add(if found { &counts.delivered } else { &counts.late }, 1);
        }
    }
    assert_eq!(waiters.count(), 0, "every waiter is gone");
    assert_eq!(alarms.count(), 0, "every alarm is gone");
    // Cancelled waits give their descriptors back with the next completions.
    rest.after(Duration::from_millis(20)).await.unwrap();
    counts
}

fn stream(socket: OwnedFd) -> Stream {
    Stream::Tcp(Source::new(socket).unwrap())
}

/// The byte at a place of the stream: the low byte of its number.
fn numbered(place: u64) -> u8 {
    place.to_le_bytes()[0]
}

/// Writes numbered bytes in random pieces at random turns.
async fn write_side(to: Stream, counts: Rc<Counts>, mut dice: Dice) {
    let mut next = 0_u64;
    for _ in 0..WAITS_PER_PAIR {
        for _ in 0..dice.roll(4) {
            turn().await;
        }
        let piece: Vec<u8> = (0..=dice.roll(3000)).map(|i| numbered(next + i)).collect();
        to.write_all(&piece).await.unwrap();
        next += piece.len() as u64;
    }
    add(&counts.written, next);
    to.finish().await;
    counts.open.set(counts.open.get() - 1);
}

/// Reads, but gives most waits up: after random turns, or by an alarm.
async fn read_side(from: Stream, counts: Rc<Counts>, alarms: Rc<Alarms>, mut dice: Dice) {
    let mut alarm = alarms.alarm();
    let mut buffer = [0; 1024];
    let mut next = 0_u64;
    loop {
        match dice.roll(4) {
            0 => match alarm.within(Duration::from_secs(dice.roll(3)), from.readable()).await {
                Ok(ready) => ready.unwrap(),
                Err(_) => add(&counts.deadlines, 1),
            },
            1 | 2 => {
                let patience = dice.roll(3);
                let gave_up = async {
                    for _ in 0..patience {
                        turn().await;
                    }
                };
                super::race(from.readable(), gave_up).await;
                add(&counts.cancelled, 1);
            }
            _ => from.readable().await.unwrap(),
        }
        let part = 1 + usize::try_from(dice.roll(1023)).unwrap();
        match from.try_read(&mut buffer[..part]).unwrap() {
            None => {}
            Some(0) => break,
            Some(read) => {
                let wrong = buffer[..read]
                    .iter()
                    .enumerate()
                    .filter(|&(i, &b)| b != numbered(next + i as u64))
                    .count();
                add(&counts.wrong, wrong as u64);
                next += read as u64;
            }
        }
    }
    add(&counts.read, next);
    counts.open.set(counts.open.get() - 1);
}

/// Asks a hundred questions of the other thread and gives some up.
async fn ask(
    questions: mpsc::Sender<Ticket>,
    waiters: Rc<Waiters>,
    alarms: Rc<Alarms>,
    counts: Rc<Counts>,
    mut dice: Dice,
) {
    let mut alarm = alarms.alarm();
    for _ in 0..100 {
        let (ticket, wait) = waiters.wait();
        questions.send(ticket).unwrap();
        let answer = match dice.roll(3) {
            0 => {
                for _ in 0..dice.roll(5) {
                    turn().await;
                }
                drop(wait);
                None
            }
            1 => alarm.within(Duration::from_secs(dice.roll(4)), wait).await.ok(),
            _ => Some(wait.await),
        };
        match answer {
            Some(_) => add(&counts.answered, 1),
            None => add(&counts.given_up, 1),
        }
    }
    drop(alarm);
    counts.open.set(counts.open.get() - 1);
}
