//! Whether the bytes of a journal are what one run wrote, whole and in order.
//!
//! Streaming: chunks of any size, memory for one line. It judges the file alone; the caller compares head,
//! line number and totals with what the daemon said. Any doubt is `Broken`: no line is skipped and nothing is
//! mended, so a file that was cut, edited, reordered or continued by someone else never comes out as sealed.
//!
//! ```text
//! Start -run-> Running -record-> Running -final-> Sealed
//!   finish: Broken      Verified, sealed = false   Verified, sealed = true
//! ```

use std::fmt;

use super::chain::Head;
use super::line::Final;
use super::parse::{self, Entry};
use super::record::RunHeader;
use super::tally::{Counter, Tally};
use crate::limits::JOURNAL_LINE_BYTES_MAX;

/// What a journal that holds together says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// What the run said of itself.
    pub header: RunHeader,
    /// Hash of the last line.
    pub head: Head,
    /// Number of the last line.
    pub seq: u64,
    /// Everything counted once more, from the lines.
    pub tally: Tally,
    /// The last line is a `final` one, and its totals agree. A run without it was killed or still runs.
    pub sealed: bool,
    /// Records that the daemon itself could not keep; anything but 0 makes the run unverifiable.
    pub lost: u64,
}

/// The first place where a journal does not hold together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Number of the line, from 1.
    pub line: u64,
    /// One line for people, without a subject: the line is it.
    pub why: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "journal line {} {}", self.line, self.why)
    }
}

impl std::error::Error for Broken {}

/// Verifies a whole journal; `run` is the id that it must be of, where one is known.
///
/// # Errors
/// The first place where it does not hold together.
pub fn verify(bytes: &[u8], run: Option<&str>) -> Result<Verified, Broken> {
    let mut verifier = Verifier::new(run);
    verifier.push(bytes)?;
    verifier.finish()
}

/// A verification in progress.
#[derive(Debug)]
pub struct Verifier {
    expected_run: Option<Box<str>>,
    /// The beginning of a line whose end has not come yet; never longer than a line may be.
    partial: Vec<u8>,
    seq: u64,
    state: State,
}

#[derive(Debug)]
enum State {
    Start,
    Running(Box<Progress>),
    Sealed(Box<Progress>, u64),
    Broken(Broken),
}

#[derive(Debug)]
struct Progress {
    header: RunHeader,
    head: Head,
    counter: Counter,
}

impl Verifier {
    /// Nothing seen yet; `run` is the id that the journal must be of, where one is known.
    pub fn new(run: Option<&str>) -> Self {
        Self { expected_run: run.map(Into::into), partial: Vec::new(), seq: 0, state: State::Start }
    }

    /// Takes the next bytes of the file.
    ///
    /// # Errors
    /// The first place where it does not hold together; it stays broken.
    pub fn push(&mut self, chunk: &[u8]) -> Result<(), Broken> {
        if let State::Broken(broken) = &self.state {
            return Err(broken.clone());
        }
        let mut rest = chunk;
        while let Some(at) = rest.iter().position(|&b| b == b'\n') {
            let (line, after) = rest.split_at(at);
            rest = after.get(1..).unwrap_or_default();
            if self.partial.is_empty() {
                self.line(line)?;
            } else {
                self.keep(line)?;
                let whole = std::mem::take(&mut self.partial);
                self.line(&whole)?;
            }
        }
        self.keep(rest)
    }

    /// The end of the file.
    ///
    /// # Errors
    /// When it is empty, ends inside a line, or was broken before.
    pub fn finish(self) -> Result<Verified, Broken> {
        let (progress, sealed, lost) = match self.state {
            State::Broken(broken) => return Err(broken),
            _ if !self.partial.is_empty() => {
                return Err(Broken {
                    line: self.seq + 1,
                    why: "is cut short: the file ends inside it".into(),
                });
            }
            State::Start => return Err(Broken { line: 1, why: "is missing: the journal is empty".into() }),
            State::Running(progress) => (progress, false, 0),
            State::Sealed(progress, lost) => (progress, true, lost),
        };
        let Progress { header, head, counter } = *progress;
        Ok(Verified { header, head, seq: self.seq, tally: counter.tally().clone(), sealed, lost })
    }

    /// Keeps the beginning of a line.
    fn keep(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        if self.partial.len() + bytes.len() > JOURNAL_LINE_BYTES_MAX {
            return Err(self.broken(format!("is longer than {JOURNAL_LINE_BYTES_MAX} bytes")));
        }
        self.partial.extend_from_slice(bytes);
        Ok(())
    }

    fn line(&mut self, line: &[u8]) -> Result<(), Broken> {
        match self.judge(line) {
            Ok(state) => {
                self.seq += 1;
                self.state = state;
                Ok(())
            }
            Err(why) => Err(self.broken(why)),
        }
    }

    fn broken(&mut self, why: String) -> Broken {
        let broken = Broken { line: self.seq + 1, why };
        self.state = State::Broken(broken.clone());
        broken
    }

    /// The state after one whole line. The state before is used up: an error ends the verification.
    fn judge(&mut self, line: &[u8]) -> Result<State, String> {
        if line.len() >= JOURNAL_LINE_BYTES_MAX {
            return Err(format!("is longer than {JOURNAL_LINE_BYTES_MAX} bytes"));
        }
        let parts = parse::split(line)?;
        let parsed = parse::line(line)?;
        let due = self.seq + 1;
        if parsed.seq != due {
            return Err(format!(
                "says that it is number {}: lines are missing, added or out of order",
                parsed.seq
            ));
        }
        let before = std::mem::replace(&mut self.state, State::Start);
        let (mut progress, entry) = match (before, parsed.entry) {
            (State::Start, Entry::Run(header)) => (self.begin(header, &parsed.job)?, None),
            (State::Start, _) => return Err("does not begin a run".into()),
            (State::Running(progress), entry) => (progress, Some(entry)),
            (State::Sealed(..) | State::Broken(_), _) => {
                return Err("follows the last line of the run".into());
            }
        };
        if parsed.job != progress.header.job {
            return Err("is of another job".into());
        }
        progress.head = progress.head.after(parts.body);
        if progress.head != parts.hash {
            return Err("does not fit its hash: it, or one before it, was changed".into());
        }
        match entry {
            None => Ok(State::Running(progress)),
            Some(Entry::Run(_)) => Err("begins a second run".into()),
            Some(Entry::Record(record)) => {
                progress.counter.count(&record);
                Ok(State::Running(progress))
            }
            Some(Entry::Final(it)) => {
                agree(&it, &progress)?;
                Ok(State::Sealed(progress, it.lost))
            }
        }
    }

    fn begin(&self, header: RunHeader, job: &Option<Box<str>>) -> Result<Box<Progress>, String> {
        if let Some(expected) = &self.expected_run
            && *expected != header.run
        {
            return Err(format!("begins the run {}, but {expected} was expected", header.run));
        }
        debug_assert_eq!(header.job, *job, "both come from the same member");
        let (head, counter) = (Head::genesis(&header.run), Counter::new(header.gate));
        Ok(Box::new(Progress { header, head, counter }))
    }
}

/// Whether a last line says what the lines before it say.
fn agree(it: &Final, progress: &Progress) -> Result<(), String> {
    if it.run != progress.header.run {
        return Err(format!("ends the run {}, but {} began", it.run, progress.header.run));
    }
    if it.totals != progress.counter.tally().totals {
        return Err("has totals that its lines do not add up to".into());
    }
    Ok(())
}

/// For the fuzzer: nothing panics, the answer does not depend on how the bytes were split, and nothing that
/// is appended to or cut from a sealed journal leaves it sealed.
///
/// # Panics
/// When one of these does not hold.
#[cfg(any(test, feature = "fuzz"))]
pub fn fuzz(data: &[u8]) {
    use super::record::{Ended, Outcome, Record};
    use super::text::Clean;

    let whole = verify(data, None);
    let at = data.first().map_or(0, |&b| usize::from(b)) % (data.len() + 1);
    let (left, right) = data.split_at(at);
    let mut verifier = Verifier::new(None);
    let in_parts = verifier.push(left).and_then(|()| verifier.push(right)).and_then(|()| verifier.finish());
    assert_eq!(whole, in_parts, "the answer depends on the split");

    let header = RunHeader {
        run: "0f".into(),
        job: None,
        at_us: 1,
        policy: "p".into(),
        build: "b".into(),
        mode: "enforce".into(),
        gate: super::record::CodeSet::default(),
    };
    let mut journal = Vec::new();
    let mut chain = super::chain::Chain::begin(&header, &mut journal);
    let mut counter = Counter::new(header.gate);
    let record =
        Record::Ended(Ended { id: 1, at_us: 2, ms: 0, up: 1, down: 1, status: 0, outcome: Outcome::Idle });
    let record = Clean::new(record);
    counter.count(&record);
    chain.append(&record, &mut journal);
    let unsealed = journal.len();
    let it = Final { run: "".into(), at_us: 3, lost: 0, totals: counter.tally().totals.clone() };
    chain.seal(it, &mut journal);
    let sealed = |bytes: &[u8]| verify(bytes, Some("0f")).is_ok_and(|verified| verified.sealed);
    assert!(sealed(&journal));
    journal.extend_from_slice(data);
    assert_eq!(sealed(&journal), data.is_empty(), "a foreign tail passed");
    journal.truncate(unsealed);
    journal.extend_from_slice(data);
    // The one tail that seals it is the one that the chain would have written, or another consistent one that
    // names the right hash: a fuzzer does not find those.
    assert!(!sealed(&journal), "a made-up end passed");
}

#[cfg(test)]
mod tests {
    use super::super::chain::Chain;
    use super::super::record::samples::{decided, ended, header, noted};
    use super::super::record::{Outcome, Record, Verdict};
    use super::super::text::Clean;
    use super::*;
    use crate::error::Code;

    /// A run with a bit of everything, and the tally that its daemon would have.
    fn sample() -> (Vec<u8>, Tally) {
        sample_of(&header(), Verdict::Refuse(Code::NotAllowed))
    }

    fn sample_of(header: &RunHeader, third: Verdict) -> (Vec<u8>, Tally) {
        let records: [Record; 7] = [
            decided(1, Verdict::Allow),
            decided(2, Verdict::Refuse(Code::NotAllowed)),
            decided(3, third),
            ended(1, 10, 20, Outcome::Complete),
            noted(1, Code::SniMismatch),
            decided(4, Verdict::WouldRefuse(Code::DeniedHost)),
            ended(4, 1, 2, Outcome::Failed(Code::UpstreamTimeout)),
        ];
        let mut out = Vec::new();
        let mut chain = Chain::begin(header, &mut out);
        let mut counter = Counter::new(header.gate);
        for record in records.map(Clean::new) {
            chain.append(&record, &mut out);
            counter.count(&record);
        }
        let tally = counter.tally().clone();
        chain.seal(Final { run: "".into(), at_us: 9, lost: 0, totals: tally.totals.clone() }, &mut out);
        (out, tally)
    }

    fn lines(journal: &[u8]) -> Vec<Vec<u8>> {
        journal.split_inclusive(|&b| b == b'\n').map(<[u8]>::to_vec).collect()
    }

    fn why(journal: &[u8]) -> String {
        verify(journal, Some(&header().run)).unwrap_err().to_string()
    }

    #[test]
    fn a_sealed_journal_verifies_and_counts_like_its_daemon() {
        let (journal, tally) = sample();
        let verified = verify(&journal, Some(&header().run)).unwrap();
        assert!(verified.sealed && verified.lost == 0);
        assert_eq!((verified.seq, &verified.header), (9, &header()));
        assert_eq!(verified.tally, tally);
        assert_eq!(verified.tally.totals.violations, 2);
        assert_eq!(verified.tally.violations.len(), 2);
    }

    #[test]
    fn cut_at_every_byte_it_is_never_sealed() {
        let (journal, _) = sample();
        for end in 0..journal.len() {
            let cut = &journal[..end];
            match verify(cut, Some(&header().run)) {
                Ok(verified) => {
                    assert!(!verified.sealed, "cut at {end}");
                    assert!(cut.ends_with(b"\n"), "a torn line passed at {end}");
                }
                Err(broken) => assert!(!cut.ends_with(b"\n"), "cut at {end}: {broken}"),
            }
        }
    }

    #[test]
    fn the_answer_does_not_depend_on_the_split() {
        let (journal, _) = sample();
        let whole = verify(&journal, None);
        for at in 0..=journal.len() {
            let mut verifier = Verifier::new(None);
            verifier.push(&journal[..at]).unwrap();
            verifier.push(&journal[at..]).unwrap();
            assert_eq!(verifier.finish(), whole, "split at {at}");
        }
        let mut verifier = Verifier::new(None);
        for byte in &journal {
            verifier.push(std::slice::from_ref(byte)).unwrap();
        }
        assert_eq!(verifier.finish(), whole);
    }

    #[test]
    fn each_changed_byte_is_seen() {
        let (journal, _) = sample();
        for at in 0..journal.len() {
            for flip in [1, 0x20, 0x80] {
                let mut changed = journal.clone();
                changed[at] ^= flip;
                assert!(verify(&changed, Some(&header().run)).is_err(), "byte {at} ^ {flip}");
            }
        }
    }

    #[test]
    fn lines_removed_swapped_doubled_or_added_are_seen() {
        let (journal, _) = sample();
        let all = lines(&journal);
        for at in 0..all.len() {
            let mut fewer = all.clone();
            fewer.remove(at);
            let is_last = at + 1 == all.len();
            let answer = verify(&fewer.concat(), Some(&header().run));
            assert!(answer.map_or(!is_last, |verified| is_last && !verified.sealed), "removed {at}");
            let mut doubled = all.clone();
            doubled.insert(at, all[at].clone());
            assert!(verify(&doubled.concat(), None).is_err(), "doubled {at}");
            if !is_last {
                let mut swapped = all.clone();
                swapped.swap(at, at + 1);
                assert!(verify(&swapped.concat(), None).is_err(), "swapped {at}");
            }
        }
        assert_eq!(
            why(&[&journal[..], b"hello\n"].concat()),
            "journal line 10 does not end with a hash, so weir did not write it"
        );
        assert!(why(&[&journal[..], b"\n"].concat()).contains("line 10"));
        assert!(why(&[&journal[..], b"x"].concat()).contains("cut short"));
        assert_eq!(why(b""), "journal line 1 is missing: the journal is empty");
    }

    #[test]
    fn another_run_is_another_run() {
        let other = RunHeader { run: "ffffffffffffffffffffffffffffffff".into(), ..header() };
        let (foreign, _) = sample_of(&other, Verdict::Allow);
        assert!(verify(&foreign, None).unwrap().sealed);
        assert!(why(&foreign).contains("begins the run ffff"), "{}", why(&foreign));
        // A line of the other run in the right place: same number, wrong chain.
        let (journal, _) = sample();
        let mut mixed = lines(&journal);
        mixed[3] = lines(&foreign)[3].clone();
        assert!(
            why(&mixed.concat()).starts_with("journal line 4 does not fit its hash"),
            "{}",
            why(&mixed.concat())
        );
    }

    #[test]
    fn totals_that_do_not_add_up_are_seen_although_the_chain_agrees() {
        let mut out = Vec::new();
        let mut chain = Chain::begin(&header(), &mut out);
        chain.append(&Clean::new(decided(2, Verdict::Refuse(Code::NotAllowed))), &mut out);
        chain.seal(Final { run: "".into(), at_us: 9, lost: 0, totals: Default::default() }, &mut out);
        assert!(why(&out).contains("totals"), "{}", why(&out));
    }

    /// The corpus was made by another program from the schema alone.
    #[test]
    fn lines_of_another_writer_are_judged_by_the_schema() {
        let sealed = include_bytes!("../../../fuzz/corpus/journal_tail/sealed");
        let verified = verify(sealed, Some("0f")).unwrap();
        assert!(verified.sealed);
        assert_eq!((verified.seq, verified.tally.totals.violations), (5, 1));
        assert!(verify(include_bytes!("../../../fuzz/corpus/journal_tail/torn"), None).is_err());
        assert!(verify(include_bytes!("../../../fuzz/corpus/journal_tail/crlf"), None).is_err());
        assert!(!verify(include_bytes!("../../../fuzz/corpus/journal_tail/running"), None).unwrap().sealed);
    }

    #[test]
    fn an_endless_line_ends_the_verification_in_bounded_memory() {
        let mut verifier = Verifier::new(None);
        let chunk = [b'x'; 1000];
        let pushes = (0..100).take_while(|_| verifier.push(&chunk).is_ok()).count();
        assert!(pushes <= JOURNAL_LINE_BYTES_MAX / 1000);
        assert!(verifier.partial.len() <= JOURNAL_LINE_BYTES_MAX);
        assert!(verifier.finish().unwrap_err().why.contains("longer"));
    }

    proptest::proptest! {
        #[test]
        fn junk_and_tails_hold_the_properties_of_the_fuzzer(data in proptest::collection::vec(0_u8.., 0..300)) {
            fuzz(&data);
        }
    }
}
