//! From records to the Markdown table of `docs/benchmarks.md`: medians, ratios to the relay, and their bound.
//!
//! The bound: of n ratios, each taken within one round, the k-th smallest is at least the true median with
//! probability `sum(i < k) C(n, i) / 2^n`, whatever their distribution. The upper 95 % bound is the smallest k
//! that reaches 0.95: the largest of seven (0.992; the sixth has 0.938). Fewer than five rounds have none.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use serde_json::Value;

use crate::peers::BASE;
use crate::workload::{CELLS, Cell};

const BEGIN: &str = "<!-- generated:begin -->";
const END: &str = "<!-- generated:end -->";

/// The records of the last run in a result file.
pub(crate) fn last_run(text: &str) -> io::Result<Vec<Value>> {
    let records = text.lines().filter(|line| !line.trim().is_empty()).enumerate().map(|(index, line)| {
        serde_json::from_str::<Value>(line)
            .map_err(|error| io::Error::other(format!("line {}: {error}", index + 1)))
    });
    let records = records.collect::<io::Result<Vec<_>>>()?;
    let date = records.last().and_then(|record| record.get("date")).cloned();
    Ok(records.into_iter().filter(|record| record.get("date") == date.as_ref()).collect())
}

/// Puts `table` between the markers of a page.
pub(crate) fn insert(page: &Path, table: &str) -> io::Result<()> {
    let text = std::fs::read_to_string(page)?;
    let places = text.find(BEGIN).zip(text.find(END)).filter(|(begin, end)| begin < end);
    let (before, after) = places
        .and_then(|(begin, end)| text.get(..begin).zip(text.get(end..)))
        .ok_or_else(|| io::Error::other(format!("{}: no lines {BEGIN} and {END}", page.display())))?;
    std::fs::write(page, format!("{before}{BEGIN}\n{table}{after}"))
}

/// The facts in a line, then one table with a row a workload and peer.
pub(crate) fn markdown(records: &[Value]) -> String {
    let mut page = String::new();
    if let Some(first) = records.first() {
        let fact = |key: &str| text(first, key);
        let _infallible = writeln!(
            page,
            "{}, commit {}, Linux {}, {}, {} cores, scale {}.\n",
            fact("date"),
            fact("commit"),
            fact("kernel"),
            fact("cpu"),
            fact("cores"),
            fact("scale"),
        );
    }
    if let Some(share) = noise(records) {
        let _infallible =
            writeln!(page, "Other programs had {:.0} % of the machine (median).\n", share * 100.0);
    }
    page.push_str(
        "| workload | peer | cost, median | range | to the relay | at most (95 %) | rounds | also |\n",
    );
    page.push_str("|---|---|---|---|---|---|---|---|\n");
    for cell in CELLS {
        for peer in peers_of(cell, records) {
            page.push_str(&row(cell, peer, records));
        }
    }
    page
}

/// The median part of the machine's time that went to programs outside the measurement.
fn noise(records: &[Value]) -> Option<f64> {
    let mut shares: Vec<f64> =
        records.iter().filter_map(|record| number(record.get("figures")?, "others_share")).collect();
    shares.sort_by(f64::total_cmp);
    median(&shares)
}

/// Peers of a cell in order of appearance, the relays first.
fn peers_of(cell: Cell, records: &[Value]) -> Vec<&str> {
    let mut peers: Vec<&str> = Vec::new();
    for record in records.iter().filter(|record| text(record, "workload") == cell.name()) {
        let peer = record.get("peer").and_then(Value::as_str).unwrap_or_default();
        if !peers.contains(&peer) {
            peers.push(peer);
        }
    }
    peers.sort_by_key(|peer| !peer.starts_with("relay"));
    peers
}

fn row(cell: Cell, peer: &str, records: &[Value]) -> String {
    let mine = of(cell, peer, records);
    let mut costs: Vec<f64> = mine.iter().filter_map(|record| number(record, "cost")).collect();
    costs.sort_by(f64::total_cmp);
    let failed = mine.len() - costs.len();
    let (ratio, bound) = if cell == Cell::Idle { (None, None) } else { ratios(cell, peer, records) };
    let times = |value: Option<f64>| value.map_or("–".into(), |value| format!("{value:.2}"));
    let cost = |value: Option<&f64>| value.map_or("–".into(), |value| significant(*value));
    let mut rounds = costs.len().to_string();
    if failed > 0 {
        let _infallible = write!(rounds, ", **{failed} failed**");
    }
    format!(
        "| {}: {} | {peer} | {} {} | {} – {} | {} | {} | {rounds} | {} |\n",
        cell.name(),
        cell.question(),
        cost(median(&costs).as_ref()),
        cell.unit(),
        cost(costs.first()),
        cost(costs.last()),
        times(ratio),
        times(bound),
        also(cell, &mine),
    )
}

/// Median ratio to the base of the same round, and its upper bound.
fn ratios(cell: Cell, peer: &str, records: &[Value]) -> (Option<f64>, Option<f64>) {
    let base = of(cell, BASE, records);
    let to_base = |record: &&Value| {
        let same_round = base.iter().find(|other| other.get("round") == record.get("round"))?;
        Some(number(record, "cost")? / number(same_round, "cost")?)
    };
    let mut ratios: Vec<f64> = of(cell, peer, records).iter().filter_map(to_base).collect();
    ratios.sort_by(f64::total_cmp);
    let bound = upper_rank(ratios.len()).and_then(|rank| ratios.get(rank - 1).copied());
    (median(&ratios), bound.filter(|_| peer != BASE))
}

/// The smallest k for which the k-th smallest of n lies at or above the median with 95 % (see the file's head).
pub(crate) fn upper_rank(n: usize) -> Option<usize> {
    let mut term = 0.5_f64.powi(i32::try_from(n).ok()?);
    let mut below = 0.0;
    for k in 1..=n {
        below += term;
        if below >= 0.95 {
            return Some(k);
        }
        term *= (n + 1 - k) as f64 / k as f64;
    }
    None
}

/// The middle of sorted values, or of the two middle ones.
pub(crate) fn median(sorted: &[f64]) -> Option<f64> {
    let upper = sorted.get(sorted.len() / 2)?;
    let lower = sorted.get((sorted.len() - 1) / 2)?;
    Some(f64::midpoint(*lower, *upper))
}

/// The secondary figures of a cell, medians too.
fn also(cell: Cell, records: &[&Value]) -> String {
    let figure = |key: &str| {
        let mut values: Vec<f64> =
            records.iter().filter_map(|record| number(record.get("figures")?, key)).collect();
        values.sort_by(f64::total_cmp);
        median(&values).map_or("–".into(), significant)
    };
    match cell {
        Cell::Bulk { .. } => format!("{} GB/s", figure("gb_per_s")),
        Cell::Churn | Cell::Plain => {
            format!("{}/s, p50 {} µs, p99 {} µs", figure("per_second"), figure("p50_us"), figure("p99_us"))
        }
        Cell::Idle => format!(
            "RSS KiB at start {}, full {}, closed {}; threads {}",
            figure("rss_kb_base"),
            figure("rss_kb_many"),
            figure("rss_kb_closed"),
            figure("threads_many"),
        ),
    }
}

fn of<'a>(cell: Cell, peer: &str, records: &'a [Value]) -> Vec<&'a Value> {
    let name = cell.name();
    let mine = |record: &&Value| text(record, "workload") == name && text(record, "peer") == peer;
    records.iter().filter(mine).collect()
}

fn number(record: &Value, key: &str) -> Option<f64> {
    record.get(key)?.as_f64()
}

fn text(record: &Value, key: &str) -> String {
    match record.get(key) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => "unknown".into(),
    }
}

/// Three digits for what is small, none after the point for what is not.
fn significant(value: f64) -> String {
    match value.abs() {
        0.0..10.0 => format!("{value:.3}"),
        10.0..100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}
