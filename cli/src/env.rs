//! `weir env`: the lines that route every client through the proxy.

use std::net::TcpStream;
use std::path::PathBuf;
use std::time::Duration;

use engine::control::fault::{Fault, Kind};
use engine::control::state::State;

use crate::args::{About, Args, Halt, Item, bad_value, state_dir, usage};
use crate::output::{Talk, exit, print};
use crate::shell::Format;
use crate::status::living;
use crate::variables::{NAMES, Route, host, neighbours, no_proxy, proxy_url};

const ABOUT: About = About {
    help: "\
usage: weir env [--export | --shell SHELL | --format FORMAT] [--unset] [--check] [options]

Prints the variables that route every client through the running proxy:
  eval \"$(weir env --export)\"
  weir env --format github >> \"$GITHUB_ENV\"
  docker run --env-file <(weir env --format docker --host 172.17.0.1) …

options:
      --export           for `eval` in sh, bash, zsh, dash
      --shell SHELL      for this shell: sh, bash, zsh, dash, fish, pwsh
      --format FORMAT    plain (the default), sh, fish, pwsh, json, dotenv, docker, github, azure
      --unset            take the variables away again: eval \"$(weir env --unset)\"; needs no proxy
      --host ADDR        the proxy's host as the clients know it, such as a container's gateway
      --no-proxy NAMES   domains and addresses that go past the proxy, with commas; may be repeated
      --check            print nothing; say what in this environment would beat the proxy; exit 3 when it
                         cannot be reached
      --state DIR        the state directory
",
    options: &[
        "--export",
        "--shell",
        "--format",
        "--unset",
        "--host",
        "--no-proxy",
        "--check",
        "--state",
        "--help",
        "--color",
    ],
    later: &["--java"],
};

/// A proxy on this machine accepts within this.
const DIAL_DEADLINE: Duration = Duration::from_secs(2);

#[derive(Debug)]
struct Flags {
    format: Format,
    unset: bool,
    check: bool,
    host: Option<String>,
    no_proxy: Vec<String>,
    state: Option<PathBuf>,
}

/// `weir env`.
pub(crate) fn command(args: &mut Args) -> Result<u8, Halt> {
    let flags = parse(args)?;
    let talk = Talk::new(args.color);
    if flags.unset {
        print(&flags.format.unset(NAMES))?;
        return Ok(exit::OK);
    }
    let state = living(&state_dir(flags.state.clone())?)?;
    let route = route(&state, flags.host.as_deref(), flags.no_proxy)?;
    if flags.check {
        return Ok(check(talk, &state, &route)?);
    }
    let mut variables = route.variables();
    if flags.format == Format::Docker {
        if flags.host.is_none() {
            talk.warning("127.0.0.1 is the container's own inside a container; --host names the proxy's");
        }
        // A path of this machine means nothing in there.
        variables.retain(|(name, _)| *name != "WEIR_STATE");
    }
    print(&flags.format.set(&variables))?;
    Ok(exit::OK)
}

fn parse(args: &mut Args) -> Result<Flags, Halt> {
    let args = args.of(&ABOUT);
    let (mut format, mut unset, mut check) = (None, false, false);
    let (mut to, mut past, mut state) = (None, Vec::new(), None);
    while let Some(item) = args.next()? {
        match item {
            Item::Option(name) => match name.as_str() {
                "--export" => choose(&mut format, Format::Sh)?,
                "--shell" => {
                    let shell = word(args, "--shell", Format::SHELLS)?;
                    choose(&mut format, shell)?;
                }
                "--format" => {
                    let chosen = word(args, "--format", Format::FORMATS)?;
                    choose(&mut format, chosen)?;
                }
                "--unset" => unset = true,
                "--check" => check = true,
                "--host" => to = Some(host(&args.text("--host")?)?),
                "--no-proxy" => past.extend(no_proxy(&args.text("--no-proxy")?)?),
                "--state" => state = Some(args.path("--state")?),
                _ => return Err(args.unknown(&name).into()),
            },
            Item::Operand(operand) => return Err(args.unexpected(&operand).into()),
        }
    }
    // No plain line takes a variable away, so `eval "$(weir env --unset)"` is what is meant.
    let format = format.unwrap_or(if unset { Format::Sh } else { Format::Plain });
    Ok(Flags { format, unset, check, host: to, no_proxy: past, state })
}

fn choose(format: &mut Option<Format>, chosen: Format) -> Result<(), Halt> {
    match format.replace(chosen) {
        Some(before) if before != chosen => {
            Err(usage("two formats at once").hint("give one of --export, --shell and --format").into())
        }
        _ => Ok(()),
    }
}

fn word(args: &mut Args, option: &str, words: &[(&str, Format)]) -> Result<Format, Halt> {
    let text = args.text(option)?;
    let known = || words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
    match words.iter().find(|(word, _)| *word == text) {
        Some((_, format)) => Ok(*format),
        None => Err(bad_value(option, &text, &format!("one of {}", known())).into()),
    }
}

/// The route to the daemon of `state`.
///
/// # Errors
/// When a value has a line break in it, which no format can carry.
pub(crate) fn route(state: &State, host: Option<&str>, no_proxy: Vec<String>) -> Result<Route, Fault> {
    let variable = |name: &str| std::env::var(name).ok();
    let mut past = no_proxy;
    past.extend(neighbours(
        variable("DOCKER_HOST").as_deref(),
        variable("KUBERNETES_SERVICE_HOST").as_deref(),
    ));
    let place = state.control.parent().and_then(|place| place.to_str()).unwrap_or_default();
    if place.is_empty() || place.contains(['\n', '\r']) {
        return Err(usage(format!("WEIR_STATE: the state directory {place:?} is no line of text"))
            .hint("start weir with another --state"));
    }
    Ok(Route {
        proxy: proxy_url(state.address, host),
        state: place.to_owned(),
        run_id: state.run_id.clone(),
        no_proxy: past,
    })
}

/// Says whether clients started from this environment would reach the proxy, and use it.
fn check(talk: Talk, state: &State, route: &Route) -> Result<u8, Fault> {
    if let Err(error) = TcpStream::connect_timeout(&state.address, DIAL_DEADLINE) {
        return Err(Fault::new(Kind::NoDaemon, format!("the proxy at {} cannot be reached", state.address))
            .because(error)
            .hint("`weir status` says how it is"));
    }
    let findings = findings(route, |name| std::env::var(name).ok().filter(|value| !value.is_empty()));
    for finding in &findings {
        talk.warning(finding);
    }
    talk.say(&format!("the proxy at {} is reached; {} warnings", state.address, findings.len()));
    Ok(exit::OK)
}

/// Variables of clients that beat `HTTPS_PROXY`.
const BEATS: &[(&str, &str)] = &[
    ("npm_config_https_proxy", "npm"),
    ("npm_config_proxy", "npm"),
    ("npm_config_http_proxy", "npm"),
    ("NPM_CONFIG_HTTPS_PROXY", "npm"),
    ("NPM_CONFIG_PROXY", "npm"),
    ("npm_config_noproxy", "npm"),
    ("PIP_PROXY", "pip"),
    ("CARGO_HTTP_PROXY", "cargo"),
    ("CARGO_HTTPS_PROXY", "cargo"),
    ("BUNDLE_PROXY", "bundler"),
    ("GLOBAL_AGENT_HTTP_PROXY", "node's global-agent"),
];

fn findings(route: &Route, variable: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let mut found = Vec::new();
    for (name, wanted) in route.variables() {
        match variable(name) {
            Some(value) if value == wanted => {}
            // Who routed the job elsewhere knows what it is; secrets may stand in such a value.
            Some(_) => found.push(format!("{name} is set to something else than `weir env` prints")),
            None => found.push(format!("{name} is not set: eval \"$(weir env --export)\" does")),
        }
    }
    for (name, client) in BEATS {
        if variable(name).is_some_and(|value| value.trim_end_matches('/') != route.proxy) {
            found.push(format!("{name} is set: {client} takes it before HTTPS_PROXY"));
        }
    }
    let count = variable("GIT_CONFIG_COUNT").and_then(|count| count.parse::<u8>().ok()).unwrap_or(0);
    for index in 0..count {
        let key = variable(&format!("GIT_CONFIG_KEY_{index}")).unwrap_or_default().to_ascii_lowercase();
        let is_proxy = key == "http.proxy" || (key.starts_with("http.") && key.ends_with(".proxy"));
        if is_proxy && variable(&format!("GIT_CONFIG_VALUE_{index}")).as_deref() != Some(&route.proxy) {
            found.push(format!("GIT_CONFIG_KEY_{index} sets {key}: git takes it before HTTPS_PROXY"));
        }
    }
    if variable("JAVA_TOOL_OPTIONS").is_some_and(|value| value.contains("proxyHost")) {
        found.push("JAVA_TOOL_OPTIONS names a proxy: Java takes it and knows no HTTPS_PROXY".into());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::sample;

    fn route() -> Route {
        Route {
            proxy: "http://127.0.0.1:3128".into(),
            state: "/s".into(),
            run_id: "id".into(),
            no_proxy: Vec::new(),
        }
    }

    #[test]
    fn formats_are_chosen_once() {
        let format = |words: &[&str]| parse(&mut sample(&ABOUT, words)).map(|flags| flags.format);
        assert_eq!(format(&[]).unwrap(), Format::Plain);
        assert_eq!(format(&["--export"]).unwrap(), Format::Sh);
        assert_eq!(format(&["--shell", "zsh"]).unwrap(), Format::Sh);
        assert_eq!(format(&["--unset"]).unwrap(), Format::Sh);
        assert_eq!(format(&["--unset", "--format", "plain"]).unwrap(), Format::Plain);
        assert_eq!(format(&["--format=github"]).unwrap(), Format::Github);
        assert_eq!(format(&["--export", "--shell", "sh"]).unwrap(), Format::Sh);
        assert!(format(&["--export", "--format", "json"]).is_err());
    }

    #[test]
    fn an_environment_of_our_own_has_nothing_against_it() {
        let ours = route().variables();
        let variable = |name: &str| ours.iter().find(|(own, _)| *own == name).map(|(_, value)| value.clone());
        assert_eq!(findings(&route(), variable), Vec::<String>::new());
    }

    #[test]
    fn what_beats_the_proxy_is_named_and_no_value_is_shown() {
        let others = [
            ("HTTPS_PROXY", "http://user:secret@other.test:1"),
            ("PIP_PROXY", "http://other.test:1"),
            ("CARGO_HTTP_PROXY", "http://127.0.0.1:3128/"),
            ("GIT_CONFIG_COUNT", "1"),
            ("GIT_CONFIG_KEY_0", "http.https://git.test.proxy"),
            ("GIT_CONFIG_VALUE_0", ""),
        ];
        let found = findings(&route(), |name| {
            others.iter().find(|(own, _)| *own == name).map(|(_, value)| (*value).to_owned())
        })
        .join("\n");
        for name in
            ["HTTPS_PROXY is set to something else", "PIP_PROXY", "GIT_CONFIG_KEY_0", "NO_PROXY is not set"]
        {
            assert!(found.contains(name), "{name}: {found}");
        }
        assert!(!found.contains("secret") && !found.contains("CARGO_HTTP_PROXY"), "{found}");
    }
}
