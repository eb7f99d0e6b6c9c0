//! `weir start`: the daemon, in the foreground or detached.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use engine::control::fault::{Fault, Kind};
use engine::control::main::{self as daemon, End, Options};
use engine::control::place::job;
use engine::control::protocol::Status;
use engine::driver::Choice;
use engine::policy::Mode;

use crate::args::{About, Args, Halt, Item, bad_value, state_dir, usage};
use crate::detach;
use crate::output::{Talk, exit, print};
use crate::status::{summary, warn};
use crate::version::{BUILD_ID, VERSION};

const ABOUT: About = About {
    help: "\
usage: weir start [-D] [options]

Starts the proxy, in the foreground until it is stopped, or detached (-D) and ready when the command returns.
Prints address, run id, pid, policy and driver.

options:
  -D, --daemon             detach; return when it is ready
      --config FILE        the policy file; the preset `ci` without one
      --mode MODE          enforce, audit or observe, instead of the policy's
      --host ADDR          listen there; other than loopback only with listen.allow_remote in the policy
      --port N             listen there; 0 takes a free port; else WEIR_PORT, KODA_PROXY_PORT, the policy's
      --driver DRIVER      auto, uring or epoll
      --threads N          so many cores
      --state DIR          the state directory; else WEIR_STATE, $RUNNER_TEMP/weir, $XDG_RUNTIME_DIR/weir
      --log-file FILE      log there; detached, the log is in the run's folder without it
      --die-with-parent    end when the parent ends; implied by KODA_PROXY_PORT
",
    options: &[
        "-D",
        "--daemon",
        "--config",
        "--mode",
        "--host",
        "--port",
        "--driver",
        "--threads",
        "--state",
        "--log-file",
        "--die-with-parent",
        "--help",
        "--color",
    ],
    later: LATER,
};

/// Flags of a later version.
pub(crate) const LATER: &[&str] = &["--linger", "--isolate"];

/// What `start` and `run` are told about the daemon.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Flags {
    pub(crate) config: Option<PathBuf>,
    pub(crate) mode: Option<String>,
    pub(crate) host: Option<IpAddr>,
    pub(crate) port: Option<u16>,
    pub(crate) driver: Option<String>,
    pub(crate) threads: Option<usize>,
    pub(crate) state: Option<PathBuf>,
    pub(crate) log_file: Option<PathBuf>,
    pub(crate) die_with_parent: bool,
}

impl Flags {
    /// Takes an option that is one of these; false when it is none.
    pub(crate) fn take(&mut self, name: &str, args: &mut Args) -> Result<bool, Halt> {
        match name {
            "--config" => self.config = Some(args.path(name)?),
            "--mode" => {
                let mode = args.text(name)?;
                if Mode::parse(&mode).is_none() {
                    return Err(bad_value(name, &mode, "enforce, audit or observe").into());
                }
                self.mode = Some(mode);
            }
            "--host" => self.host = Some(listen_host(&args.text(name)?)?),
            "--port" => self.port = Some(port(name, &args.text(name)?)?),
            "--driver" => {
                let driver = args.text(name)?;
                choice(&driver)?;
                self.driver = Some(driver);
            }
            "--threads" => self.threads = Some(threads(&args.text(name)?)?),
            "--state" => self.state = Some(args.path(name)?),
            "--log-file" => self.log_file = Some(args.path(name)?),
            "--die-with-parent" => self.die_with_parent = true,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The same as arguments, for a daemon of its own.
    pub(crate) fn words(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> = Vec::new();
        let mut add = |name: &str, value: Option<OsString>| {
            if let Some(value) = value {
                words.push(name.into());
                words.push(value);
            }
        };
        add("--config", self.config.clone().map(Into::into));
        add("--mode", self.mode.clone().map(Into::into));
        add("--host", self.host.map(|host| host.to_string().into()));
        add("--port", self.port.map(|port| port.to_string().into()));
        add("--driver", self.driver.clone().map(Into::into));
        add("--threads", self.threads.map(|threads| threads.to_string().into()));
        add("--state", self.state.clone().map(Into::into));
        add("--log-file", self.log_file.clone().map(Into::into));
        if self.die_with_parent {
            words.push("--die-with-parent".into());
        }
        words
    }
}

/// `weir start`.
pub(crate) fn command(args: &mut Args) -> Result<u8, Halt> {
    let args = args.of(&ABOUT);
    let (mut flags, mut detached, mut handshake) = (Flags::default(), false, false);
    while let Some(item) = args.next()? {
        match item {
            Item::Option(name) => match name.as_str() {
                "-D" | "--daemon" => detached = true,
                // Between a launcher and its daemon only.
                detach::HANDSHAKE => handshake = true,
                _ if flags.take(&name, args)? => {}
                _ => return Err(args.unknown(&name).into()),
            },
            Item::Operand(operand) => return Err(args.unexpected(&operand).into()),
        }
    }
    let talk = Talk::new(args.color);
    let koda = fixed_port(&mut flags)?;
    if detached && flags.die_with_parent {
        return Err(usage("--die-with-parent is for the foreground: a detached daemon outlives its parent")
            .hint("leave out -D, or --die-with-parent")
            .into());
    }
    flags.state = Some(state_dir(flags.state.take())?);
    if detached {
        return Ok(launch(talk, &flags)?);
    }
    flags.die_with_parent |= koda && !handshake;
    if handshake {
        detach::become_daemon();
    }
    let end = daemon::run(&options(&flags)?, |status, run| ready(talk, &flags, handshake, status, run))?;
    Ok(match end {
        End::Final => exit::OK,
        End::NotFinal(_) => exit::UNVERIFIABLE,
    })
}

fn launch(talk: Talk, flags: &Flags) -> Result<u8, Fault> {
    match detach::launch(flags)? {
        Ok(daemon) => {
            warn(talk, &daemon.status);
            print(&summary(&daemon.status))?;
            Ok(exit::OK)
        }
        // It has said why.
        Err(code) => Ok(code),
    }
}

/// Takes the port from the environment where no flag gives it; says whether `KODA_PROXY_PORT` is there.
pub(crate) fn fixed_port(flags: &mut Flags) -> Result<bool, Fault> {
    let variable = |name: &str| match std::env::var(name) {
        Ok(text) if !text.is_empty() => port(name, &text).map(Some),
        _ => Ok(None),
    };
    let koda = variable("KODA_PROXY_PORT")?;
    if flags.port.is_none() {
        flags.port = variable("WEIR_PORT")?.or(koda);
    }
    Ok(koda.is_some())
}

fn options(flags: &Flags) -> Result<Options, Fault> {
    Ok(Options {
        state: state_dir(flags.state.clone())?,
        config: flags.config.clone(),
        mode: flags.mode.as_deref().and_then(Mode::parse),
        host: flags.host,
        port: flags.port,
        driver: flags.driver.as_deref().map_or(Ok(Choice::Auto), choice)?,
        threads: flags.threads,
        die_with_parent: flags.die_with_parent,
        job: job(|name| std::env::var_os(name)),
        variable: crate::args::variable,
        version: VERSION,
        build_id: BUILD_ID,
    })
}

/// Says that the daemon works, and moves its talk to the log.
fn ready(talk: Talk, flags: &Flags, handshake: bool, status: &Status, run: &Path) -> Result<(), Fault> {
    let file = flags.log_file.clone().or_else(|| handshake.then(|| run.join("weir.log")));
    let log = file.as_deref().map(open_log).transpose()?;
    if handshake {
        detach::report_ready(status)?;
    } else {
        warn(talk, status);
        print(&summary(status))?;
    }
    if let Some(log) = log {
        detach::talk_to(&log, handshake)
            .map_err(|error| Fault::new(Kind::Internal, "cannot move the log to its file").because(error))?;
    }
    Ok(())
}

fn open_log(path: &Path) -> Result<std::fs::File, Fault> {
    std::fs::OpenOptions::new().append(true).create(true).mode(0o600).open(path).map_err(|error| {
        Fault::new(Kind::Internal, format!("cannot open the log file {}", path.display()))
            .because(error)
            .hint("--log-file names another one")
    })
}

fn port(option: &str, text: &str) -> Result<u16, Fault> {
    let digits = (1..=5).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits).ok_or_else(|| bad_value(option, text, "a port (0 to 65535)"))
}

fn threads(text: &str) -> Result<usize, Fault> {
    match text.parse() {
        Ok(threads @ 1..=1024) => Ok(threads),
        _ => Err(bad_value("--threads", text, "a number of cores (1 to 1024)")),
    }
}

fn listen_host(text: &str) -> Result<IpAddr, Fault> {
    if text == "localhost" {
        return Ok(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse().map_err(|_| bad_value("--host", text, "an address to listen on, such as 127.0.0.1 or ::1"))
}

fn choice(text: &str) -> Result<Choice, Fault> {
    match text {
        "auto" => Ok(Choice::Auto),
        "uring" => Ok(Choice::Uring),
        "epoll" => Ok(Choice::Epoll),
        other => Err(bad_value("--driver", other, "auto, uring or epoll")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::sample;

    #[test]
    fn flags_survive_the_way_to_the_daemon() {
        let words = [
            "--config",
            "/c.toml",
            "--mode",
            "audit",
            "--host",
            "::1",
            "--port",
            "8080",
            "--driver",
            "epoll",
            "--threads",
            "3",
            "--state",
            "/s",
            "--log-file",
            "/l",
            "--die-with-parent",
        ];
        let mut args = sample(&ABOUT, &words);
        let mut flags = Flags::default();
        while let Some(item) = args.next().unwrap() {
            let Item::Option(name) = item else { panic!("{item:?}") };
            assert!(flags.take(&name, &mut args).unwrap(), "{name}");
        }
        assert_eq!(flags.words(), words);
    }

    #[test]
    fn ports_are_digits() {
        assert_eq!(port("--port", "0").unwrap(), 0);
        assert_eq!(port("--port", "65535").unwrap(), 65535);
        for text in ["", "65536", "+80", "-1", "80 ", "0x50", "000080", "eighty"] {
            assert!(port("--port", text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_listener_has_an_address() {
        assert_eq!(listen_host("localhost").unwrap(), IpAddr::V4(Ipv4Addr::LOCALHOST));
        assert_eq!(listen_host("[::1]").unwrap(), listen_host("::1").unwrap());
        assert!(listen_host("proxy.test").is_err());
    }
}
