//! `weir explain`: what the policy would do with a request, and by which rule. No traffic.

use std::path::PathBuf;

use engine::control::fault::{Fault, Kind};
use engine::control::load::{LoadError, Loaded, Overrides, load};
use engine::policy::Mode;
use serde_json::Value;

use crate::args::{About, Args, Halt, Item, state_dir, usage};
use crate::output::{Talk, exit, one_line, print, print_json};
use crate::status::living;

const ABOUT: About = About {
    help: "\
usage: weir explain URL [--json] [--config FILE] [--mode MODE] [--state DIR]

Says what the policy would do with a request, and by which rule. Sends nothing.
URL is http://… (a plain request), https://… or host:port (a CONNECT).
The policy is that of --config, else that of the running proxy, else the preset `ci`.

options:
      --json           as JSON (schema 1)
      --config FILE    the policy file
      --mode MODE      enforce, audit or observe, instead of the policy's
      --state DIR      the state directory of the running proxy
",
    options: &["--json", "--config", "--mode", "--state", "--help", "--color"],
    later: &[],
};

#[derive(Debug, Default)]
struct Flags {
    url: Option<String>,
    json: bool,
    config: Option<PathBuf>,
    mode: Option<Mode>,
    state: Option<PathBuf>,
}

/// `weir explain`.
pub(crate) fn command(args: &mut Args) -> Result<u8, Halt> {
    let mut flags = parse(args)?;
    let Some(url) = flags.url.take() else {
        return Err(usage("no URL").hint("weir explain https://registry.test/left-pad").into());
    };
    let loaded = policy(&flags, Talk::new(args.color))?;
    let explanation =
        loaded.policy.explain(&url).map_err(|complaint| usage(complaint.problem).hint(complaint.hint))?;
    if flags.json {
        print_json(&explanation)?;
        return Ok(exit::OK);
    }
    let value = serde_json::to_value(&explanation)
        .map_err(|error| Fault::new(Kind::Internal, "cannot spell the explanation").because(error))?;
    print(&lines(&value))?;
    Ok(exit::OK)
}

fn parse(args: &mut Args) -> Result<Flags, Halt> {
    let args = args.of(&ABOUT);
    let mut flags = Flags::default();
    while let Some(item) = args.next()? {
        match item {
            Item::Option(name) => match name.as_str() {
                "--json" => flags.json = true,
                "--config" => flags.config = Some(args.path("--config")?),
                "--mode" => {
                    let text = args.text("--mode")?;
                    flags.mode = Some(Mode::parse(&text).ok_or_else(|| {
                        crate::args::bad_value("--mode", &text, "enforce, audit or observe")
                    })?);
                }
                "--state" => flags.state = Some(args.path("--state")?),
                _ => return Err(args.unknown(&name).into()),
            },
            Item::Operand(operand) => match (flags.url.is_some(), operand.into_string()) {
                (false, Ok(url)) => flags.url = Some(url),
                (_, Ok(other)) => return Err(args.unexpected(&other.into()).into()),
                (_, Err(other)) => return Err(args.unexpected(&other).into()),
            },
        }
    }
    Ok(flags)
}

/// The policy that is meant; a running daemon's is read again from where it came.
fn policy(flags: &Flags, talk: Talk) -> Result<Loaded, Fault> {
    let running = match (&flags.config, &flags.state) {
        (Some(_), None) => None,
        (None, Some(_)) => Some(living(&state_dir(flags.state.clone())?)?),
        _ => living(&state_dir(None)?).ok(),
    };
    let (mut config, mut mode, mut host) = (flags.config.clone(), flags.mode, None);
    if let (None, Some(state)) = (&config, &running) {
        mode = mode.or(Mode::parse(&state.mode));
        host = Some(state.address.ip()); // the reach follows the listener
        config = Some(PathBuf::from(&state.policy.source)).filter(|source| source.is_absolute());
    }
    let loaded = load(config.as_deref(), &Overrides { mode, host }, &crate::args::variable)
        .map_err(LoadError::into_fault)?;
    if let Some(state) = running.filter(|_| flags.config.is_none())
        && loaded.policy.digest() != state.policy.digest
    {
        talk.warning(&format!(
            "the policy of {} has changed since the running proxy has read it; this is what it says now",
            state.policy.source
        ));
    }
    Ok(loaded)
}

/// An object as lines, `key: value`.
fn lines(value: &Value) -> String {
    let Some(object) = value.as_object() else { return format!("{value}\n") };
    let mut text = String::new();
    for (key, value) in object.iter().filter(|(key, _)| *key != "schema") {
        let value = match value {
            Value::Null => continue,
            Value::String(value) => value.clone(),
            Value::Array(items) => {
                let items: Vec<String> =
                    items.iter().map(|item| item.as_str().map_or(item.to_string(), str::to_owned)).collect();
                items.join(", ")
            }
            other => other.to_string(),
        };
        text += &format!("{key}: {}\n", one_line(&value));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_explanation_reads_as_lines() {
        let value = serde_json::json!({
            "schema": 1, "target": "a.test:443", "counts": true, "code": null, "resolve": ["10.0.0.7", "::1"],
            "reason": "two\nlines"
        });
        let text = lines(&value);
        for line in ["target: a.test:443", "counts: true", "resolve: 10.0.0.7, ::1", "reason: two lines"] {
            assert!(text.lines().any(|it| it == line), "{line}: {text}");
        }
        assert!(!text.contains("schema") && !text.contains("code"));
    }
}
