//! What does a record cost the journal's writer: cleaned, counted, spelled and hashed?
//!
//! Not the file and not the hand-over between threads. Each bench checks its answer: the lines that it made
//! must verify, with as many decisions as went in.

use std::hint::black_box;
use std::net::SocketAddr;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use engine::audit::chain::Chain;
use engine::audit::line::Final;
use engine::audit::record::{Decided, Ended, Outcome, Record, RunHeader, Verb, Verdict};
use engine::audit::tally::Counter;
use engine::audit::text::Clean;
use engine::audit::verify::verify;
use engine::error::Code;

/// Exchanges a sample: a decision and an end each.
const EXCHANGES: u64 = 500;

fn header() -> RunHeader {
    RunHeader {
        run: "00112233445566778899aabbccddeeff".into(),
        job: Some("build/linux-x64 #1234".into()),
        at_us: 1_700_000_000_000_000,
        policy: "sha256:00112233445566778899aabbccddeeff".into(),
        build: "weir bench".into(),
        mode: "enforce".into(),
        gate: [Code::NotAllowed].into_iter().collect(),
    }
}

fn records(plain: bool) -> Vec<Record> {
    let exchange = |id: u64| {
        let decided = Decided {
            id,
            at_us: 1_700_000_000_000_000 + id,
            client: SocketAddr::from(([127, 0, 0, 1], 40_000)),
            verb: Some(if plain { Verb::Http("GET".into()) } else { Verb::Connect }),
            target: Some("registry.npm.test:443".into()),
            path: plain.then(|| "/left-pad/-/left-pad-1.3.0.tgz".into()),
            verdict: Verdict::Allow,
            rule: "default".into(),
            reason: None,
            via: None,
        };
        let ended = Ended {
            id,
            at_us: 1_700_000_000_100_000 + id,
            ms: 120,
            up: 1_812,
            down: 48_213,
            status: 200,
            outcome: Outcome::Complete,
        };
        [Record::Decided(Box::new(decided)), Record::Ended(ended)]
    };
    (1..=EXCHANGES).flat_map(exchange).collect()
}

/// The lines of a whole run, and its count.
fn journal(records: Vec<Record>) -> (Vec<u8>, Counter) {
    let mut out = Vec::with_capacity(1024 * 1024);
    let mut chain = Chain::begin(&header(), &mut out);
    let mut counter = Counter::new(header().gate);
    for record in records {
        let record = Clean::new(record);
        counter.count(&record);
        chain.append(&record, &mut out);
    }
    let it = Final { run: "".into(), at_us: 1, lost: 0, totals: counter.tally().totals.clone() };
    chain.seal(it, &mut out);
    (out, counter)
}

fn check(bytes: &[u8]) {
    let verified = verify(bytes, Some(&header().run)).expect("the lines verify");
    assert!(verified.sealed);
    assert_eq!(verified.tally.totals.decided, EXCHANGES);
}

fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("journal");
    group.throughput(Throughput::Elements(2 * EXCHANGES));
    for (name, plain) in [("connect", false), ("plain_http", true)] {
        check(&journal(records(plain)).0);
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || records(plain),
                |records| black_box(journal(records)),
                BatchSize::LargeInput,
            );
        });
    }
    let (bytes, _) = journal(records(true));
    group.bench_function("verify", |bencher| bencher.iter(|| check(black_box(&bytes))));
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
