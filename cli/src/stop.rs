//! `weir stop`: drain, flush, report, and the exit code that a job stands or falls with.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use engine::audit::tally::Violation;
use engine::control::gate::{Expected, Question, Report, judge};
use engine::control::log::utc;
use engine::control::state::is_run_id;
use serde_json::{Value, json};

use crate::args::{About, Args, Halt, Item, bad_value, state_dir};
use crate::output::{Talk, print_json};
use crate::report;
use crate::shell::Format;
use crate::variables::NAMES;

const ABOUT: About = About {
    help: "\
usage: weir stop [--fail-on-violation] [--json] [--timeout TIME] [--run-id ID] [--state DIR]

Lets what is in flight finish, ends the proxy, reads its journal again and says what was refused.
A second stop repeats the answer.

options:
      --fail-on-violation   exit 10 when the gate's refusals happened, 11 when the run cannot be verified
      --json                the report as JSON (schema 1)
      --timeout TIME        time for what is in flight (30s)
      --run-id ID           this run and no other; WEIR_RUN_ID says which run the job expects
      --state DIR           the state directory

exit codes: 0 ok, 3 no daemon, 10 violations (with --fail-on-violation), 11 not verifiable (wins over 10)
",
    options: &["--fail-on-violation", "--json", "--timeout", "--run-id", "--state", "--help", "--color"],
    later: &["--fail-on-unverified"],
};

#[derive(Debug, Default)]
struct Flags {
    fail_on_violation: bool,
    json: bool,
    timeout: Option<Duration>,
    run_id: Option<String>,
    state: Option<PathBuf>,
}

/// `weir stop`.
pub(crate) fn command(args: &mut Args) -> Result<u8, Halt> {
    let flags = parse(args)?;
    let talk = Talk::new(args.color);
    let state = state_dir(flags.state)?;
    let by_job = std::env::var("WEIR_RUN_ID").ok().filter(|id| !id.is_empty());
    let expected = match (flags.run_id, by_job.clone()) {
        (Some(id), _) => Expected::Exactly(id),
        (None, Some(id)) => Expected::ByJob(id),
        (None, None) => Expected::Any,
    };
    let answer = judge(&Question {
        state: &state,
        expected,
        timeout: flags.timeout,
        binding: flags.fail_on_violation,
    });
    if let Some(run_id) = &answer.run_id {
        unset_for_later_steps(talk, run_id, by_job.as_ref() == Some(run_id));
    }
    report::say(talk, &answer);
    let code = report::exit_code(answer.finding, flags.fail_on_violation);
    if flags.json {
        print_json(&as_json(&answer))?;
    }
    Ok(code)
}

fn parse(args: &mut Args) -> Result<Flags, Halt> {
    let args = args.of(&ABOUT);
    let mut flags = Flags::default();
    while let Some(item) = args.next()? {
        match item {
            Item::Option(name) => match name.as_str() {
                "--fail-on-violation" => flags.fail_on_violation = true,
                "--json" => flags.json = true,
                "--timeout" => flags.timeout = Some(args.duration("--timeout")?),
                "--run-id" => flags.run_id = Some(run_id(args.text("--run-id")?)?),
                "--state" => flags.state = Some(args.path("--state")?),
                _ => return Err(args.unknown(&name).into()),
            },
            Item::Operand(operand) => return Err(args.unexpected(&operand).into()),
        }
    }
    Ok(flags)
}

fn run_id(text: String) -> Result<String, Halt> {
    if is_run_id(&text) {
        return Ok(text);
    }
    Err(bad_value("--run-id", &text, "a run id (32 hex digits, as `weir start` prints it)").into())
}

/// The report with its violations as the contract of `stop --json` names them.
fn as_json(report: &Report) -> Value {
    let mut value = json!(report);
    if let Some(object) = value.as_object_mut() {
        object.insert("violations".into(), report.violations.iter().map(violation).collect());
    }
    value
}

fn violation(it: &Violation) -> Value {
    json!({
        "time": utc(it.at_us),
        "kind": if it.verb.as_deref() == Some("CONNECT") { "connect" } else { "http" },
        "code": it.code,
        "url": report::url(it),
        "client": it.client,
        "rule": it.rule,
        "reason": it.reason,
    })
}

/// Under GITHUB_ENV later steps would keep the variables of a proxy that has gone: empty them, where this step has
/// them, or has just written them for the steps to come.
fn unset_for_later_steps(talk: Talk, run_id: &str, ours: bool) {
    let Some(file) = std::env::var_os("GITHUB_ENV").filter(|file| !file.is_empty()) else { return };
    let before = std::fs::read(&file).unwrap_or_default();
    if !ours && !String::from_utf8_lossy(&before).contains(run_id) {
        return;
    }
    let mut lines = Format::Github.unset(NAMES);
    if before.last().is_some_and(|byte| *byte != b'\n') {
        lines.insert(0, '\n');
    }
    let written = std::fs::OpenOptions::new()
        .append(true)
        .open(&file)
        .and_then(|mut file| file.write_all(lines.as_bytes()));
    if let Err(error) = written {
        talk.warning(&format!(
            "later steps keep the proxy's variables: cannot write to GITHUB_ENV ({}): {error}",
            PathBuf::from(file).display()
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::sample;
    use engine::error::Code;

    #[test]
    fn flags_are_read() {
        let id = "00112233445566778899aabbccddeeff";
        let words = ["--fail-on-violation", "--timeout", "1500ms", "--run-id", id, "--json", "--state=/s"];
        let flags = parse(&mut sample(&ABOUT, &words)).unwrap();
        assert!(flags.fail_on_violation && flags.json);
        assert_eq!(flags.timeout, Some(Duration::from_millis(1500)));
        assert_eq!(flags.run_id.as_deref(), Some(id));
        assert_eq!(flags.state.as_deref(), Some(std::path::Path::new("/s")));
    }

    #[test]
    fn a_violation_has_the_names_of_the_contract() {
        let value = violation(&Violation {
            id: 1,
            at_us: 0,
            code: Code::NotAllowed,
            client: "127.0.0.1:4000".parse().unwrap(),
            verb: Some("GET".into()),
            target: Some("a.test:80".into()),
            path: Some("/x".into()),
            rule: "default".into(),
            reason: None,
        });
        for (key, expected) in [
            ("time", "1970-01-01T00:00:00Z"),
            ("kind", "http"),
            ("code", "not_allowed"),
            ("url", "http://a.test:80/x"),
            ("client", "127.0.0.1:4000"),
            ("rule", "default"),
        ] {
            assert_eq!(value[key], expected, "{key}");
        }
    }
}
