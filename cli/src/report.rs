//! What `stop` and `run` say to people about a run: what was refused and why, and what was counted.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use engine::audit::tally::Violation;
use engine::control::fault::{Fault, Kind};
use engine::control::gate::{Finding, Report};
use engine::control::log::utc;

use crate::output::{Talk, exit, one_line};

/// Rows of the table; the journal and `--json` have the rest.
const ROWS_MAX: usize = 20;

/// The exit code: 11 wins over 10; without `fail_on_violation` violations are no failure, and a run that was
/// expected but is not there is one that cannot be reached.
pub(crate) fn exit_code(finding: Finding, fail_on_violation: bool) -> u8 {
    match (finding, fail_on_violation) {
        (Finding::Unverifiable, _) | (Finding::Missing, true) => exit::UNVERIFIABLE,
        (Finding::NoRun, _) | (Finding::Missing, false) => exit::NO_DAEMON,
        (Finding::Violations(1..), true) => exit::VIOLATIONS,
        (Finding::Violations(_), _) => exit::OK,
    }
}

/// Says it.
pub(crate) fn say(talk: Talk, report: &Report) {
    for line in text(report).lines() {
        talk.say(line);
    }
    for warning in &report.warnings {
        talk.warning(warning);
    }
    if let Some(fault) = fault(report) {
        talk.fault(&fault);
    }
}

/// What is wrong with a run, or with its absence.
fn fault(report: &Report) -> Option<Fault> {
    let (kind, error, hint) = match report.finding {
        Finding::Violations(_) => return None,
        Finding::NoRun | Finding::Missing => (
            Kind::NoDaemon,
            "weir is not running",
            "start it with `weir start -D`; --state or WEIR_STATE names where it keeps its state",
        ),
        Finding::Unverifiable => (
            Kind::Unverifiable,
            "the run is not verifiable",
            "what this run did or refused is not proven: run the job again, and look at the journal",
        ),
    };
    let fault = Fault::new(kind, error).hint(hint);
    Some(report.why.iter().fold(fault, Fault::because))
}

/// The report without what is wrong with it.
fn text(report: &Report) -> String {
    let mut text = String::new();
    let Some(totals) = &report.totals else { return text };
    if !report.violations.is_empty() {
        let rows = folded(&report.violations);
        let _ = writeln!(text, "refused:");
        for row in rows.iter().take(ROWS_MAX) {
            let _ = writeln!(text, "  {row}");
        }
        if rows.len() > ROWS_MAX {
            let _ =
                writeln!(text, "  … and {} more; --json and the journal have them", rows.len() - ROWS_MAX);
        }
    }
    let _ = writeln!(
        text,
        "weir: {} decided, {} allowed, {} would be refused, {} refused, {} violations; {} bytes up, {} down",
        totals.decided,
        totals.allowed,
        totals.would_refuse,
        totals.refused,
        totals.violations,
        totals.up,
        totals.down
    );
    for (what, by) in [("refused", &totals.refused_by), ("would be refused", &totals.would_refuse_by)] {
        if !by.is_empty() {
            let list: Vec<String> = by.iter().map(|(code, count)| format!("{code} {count}")).collect();
            let _ = writeln!(text, "  {what}: {}", list.join(", "));
        }
    }
    if totals.cut > 0 {
        let _ = writeln!(text, "  {} connections were cut", totals.cut);
    }
    if let Some(journal) = &report.journal {
        let _ = writeln!(text, "  journal: {}", journal.display());
    }
    text
}

/// The violations, those alike in one row with their number and the time of the first.
fn folded(violations: &[Violation]) -> Vec<String> {
    let mut order = Vec::new();
    let mut rows: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for violation in violations {
        let row = format!(
            "{} {} (rule {}){}",
            violation.code,
            url(violation),
            violation.rule,
            violation.reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default(),
        );
        let row = one_line(&row);
        let entry = rows.entry(row.clone()).or_insert_with(|| {
            order.push(row);
            (0, violation.at_us)
        });
        entry.0 += 1;
    }
    order
        .into_iter()
        .map(|row| {
            let (count, first_us) = rows.get(&row).copied().unwrap_or_default();
            let times = if count > 1 { format!("{count} x ") } else { String::new() };
            format!("{} {times}{row}", utc(first_us))
        })
        .collect()
}

/// What was asked for, as a person would write it.
pub(crate) fn url(violation: &Violation) -> String {
    let target = violation.target.as_deref().unwrap_or("an unreadable target");
    match (violation.verb.as_deref(), violation.path.as_deref()) {
        (Some("CONNECT") | None, _) => target.to_owned(),
        (Some(_), path) => format!("http://{target}{}", path.unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::error::Code;

    fn violation(verb: &str, target: &str, at_us: u64) -> Violation {
        Violation {
            id: at_us,
            at_us,
            code: Code::DeniedHost,
            client: "127.0.0.1:4000".parse().unwrap(),
            verb: Some(verb.into()),
            target: Some(target.into()),
            path: (verb != "CONNECT").then(|| "/x".into()),
            rule: "deny-evil".into(),
            reason: Some("no\u{1b}[2J thanks".into()),
        }
    }

    #[test]
    fn unverifiable_wins_and_only_the_gate_fails() {
        for (finding, plain, gate) in [
            (Finding::Violations(0), 0, 0),
            (Finding::Violations(3), 0, 10),
            (Finding::NoRun, 3, 3),
            (Finding::Missing, 3, 11),
            (Finding::Unverifiable, 11, 11),
        ] {
            assert_eq!((exit_code(finding, false), exit_code(finding, true)), (plain, gate), "{finding:?}");
        }
    }

    #[test]
    fn violations_that_are_alike_share_a_row_that_is_one_line() {
        let all = [
            violation("CONNECT", "evil.test:443", 0),
            violation("GET", "evil.test:80", 1_000_000),
            violation("CONNECT", "evil.test:443", 2_000_000),
        ];
        let rows = folded(&all);
        assert_eq!(rows.len(), 2);
        assert_eq!(
            rows[0],
            "1970-01-01T00:00:00Z 2 x denied_host evil.test:443 (rule deny-evil): no\u{fffd}[2J thanks"
        );
        assert!(rows[1].contains("http://evil.test:80/x"), "{}", rows[1]);
    }
}
