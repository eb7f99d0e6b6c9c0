//! The other side of the external proxy contract: starts a proxy as a child, waits until it listens, and never
//! leaves it behind.
//!
//! The contract: the port is in `WEIR_PORT` and `KODA_PROXY_PORT`; the child stays in the foreground and binds
//! before any slow work; a connection that closes without a byte means nothing to it (that is the probe); it may
//! be ended by SIGTERM and, when it does not listen to that, by SIGKILL.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::control::poll::{ask_until, readable};
use crate::control::process::watch;

/// The child must listen within this, unless told otherwise.
const STARTUP_TIMEOUT: Duration = Duration::from_secs(5);
/// Between SIGTERM and SIGKILL.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// A free port can be taken by another between the look and the child's bind: then another port is tried.
const EPHEMERAL_TRIES: usize = 3;

/// How to start an external proxy.
#[derive(Debug, Clone)]
pub struct ExternalProxy {
    program: OsString,
    arguments: Vec<OsString>,
    variables: Vec<(OsString, OsString)>,
    port: Option<u16>,
    startup_timeout: Duration,
}

/// Why it did not start. No child is left behind.
#[derive(Debug)]
pub enum ExternalError {
    /// The program could not be run, or no port could be had.
    Spawn(io::Error),
    /// It ended before it listened.
    Ended(ExitStatus),
    /// It did not listen in time, and was ended.
    Timeout(Duration),
}

impl fmt::Display for ExternalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spawn(error) => write!(f, "the proxy could not be started: {error}"),
            Self::Ended(status) => write!(f, "the proxy ended before it listened: {status}"),
            Self::Timeout(time) => write!(f, "the proxy did not listen within {} ms", time.as_millis()),
        }
    }
}

impl std::error::Error for ExternalError {}

impl ExternalProxy {
    /// A proxy that is started by running `program`, on a port of its own.
    pub fn new(program: impl Into<OsString>) -> Self {
        Self {
            program: program.into(),
            arguments: Vec::new(),
            variables: Vec::new(),
            port: None,
            startup_timeout: STARTUP_TIMEOUT,
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Adds a variable to the environment, which is otherwise ours.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }

    /// Fixes the port.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// Changes the time it has until it listens, 5 s.
    #[must_use]
    pub fn startup_timeout(mut self, time: Duration) -> Self {
        self.startup_timeout = time;
        self
    }

    /// Starts it and waits until it accepts a connection.
    ///
    /// # Errors
    /// When it cannot be run, ends, or does not listen in time.
    pub fn start(&self) -> Result<RunningProxy, ExternalError> {
        let tries = if self.port.is_some() { 1 } else { EPHEMERAL_TRIES };
        let mut last = None;
        for _ in 0..tries {
            match self.start_once() {
                Err(ExternalError::Ended(status)) => last = Some(ExternalError::Ended(status)),
                done => return done,
            }
        }
        Err(last.unwrap_or(ExternalError::Timeout(self.startup_timeout)))
    }

    fn start_once(&self) -> Result<RunningProxy, ExternalError> {
        let port = self.port.map_or_else(free_port, Ok).map_err(ExternalError::Spawn)?;
        let child = Command::new(&self.program)
            .args(&self.arguments)
            .env("WEIR_PORT", port.to_string())
            .env("KODA_PROXY_PORT", port.to_string())
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .spawn()
            .map_err(ExternalError::Spawn)?;
        // From here on the child ends with the handle, on every path.
        let mut proxy = RunningProxy { child, address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)) };
        let until = Instant::now() + self.startup_timeout;
        let answer = ask_until(until, Duration::from_millis(5), || match proxy.child.try_wait() {
            Ok(Some(status)) => Some(Err(ExternalError::Ended(status))),
            Err(error) => Some(Err(ExternalError::Spawn(error))),
            Ok(None) => {
                let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
                TcpStream::connect_timeout(&proxy.address, left).ok().map(|_| Ok(()))
            }
        });
        match answer {
            Some(Ok(())) => Ok(proxy),
            Some(Err(error)) => Err(error),
            None => Err(ExternalError::Timeout(self.startup_timeout)),
        }
    }
}

/// A running external proxy. Dropping it ends the child: SIGTERM, then SIGKILL.
#[derive(Debug)]
pub struct RunningProxy {
    child: Child,
    address: SocketAddr,
}

impl RunningProxy {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it and says how it ended.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn stop(mut self) -> io::Result<ExitStatus> {
        self.end()
    }

    fn end(&mut self) -> io::Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        // The child is not waited for yet, so its pid is still its own.
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let (Some(pid), Ok(Some(watched))) = (pid, watch(self.child.id())) {
            let _ = kill_process(pid, Signal::TERM);
            if readable(&watched, STOP_GRACE) {
                return self.child.wait();
            }
        }
        self.child.kill()?;
        self.child.wait()
    }
}

impl Drop for RunningProxy {
    fn drop(&mut self) {
        // Nothing can be done about a child that cannot be waited for.
        let _ = self.end();
    }
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::process::start_ticks;

    fn shell(script: &str) -> ExternalProxy {
        ExternalProxy::new("sh").arg("-c").arg(script)
    }

    #[test]
    fn a_child_that_never_listens_is_ended_at_the_timeout() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let script = format!("echo $$ > {}; exec sleep 600", file.path().display());
        let error = shell(&script).startup_timeout(Duration::from_millis(300)).start().unwrap_err();
        assert!(matches!(error, ExternalError::Timeout(_)), "{error}");
        let pid: u32 = std::fs::read_to_string(file.path()).unwrap().trim().parse().unwrap();
        assert_eq!(start_ticks(pid), None, "left behind");
    }

    #[test]
    fn a_child_that_ends_early_is_reported() {
        let error = shell("exit 3").port(1).start().unwrap_err();
        assert!(matches!(error, ExternalError::Ended(status) if status.code() == Some(3)), "{error}");
        assert!(matches!(ExternalProxy::new("/nonexistent").start(), Err(ExternalError::Spawn(_))));
    }

    /// Something else listens on the fixed port, so only the ends of the child are looked at here.
    fn started(script: &str) -> (TcpListener, RunningProxy) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        (listener, shell(script).port(port).env("EXTRA", "1").start().unwrap())
    }

    #[test]
    fn dropping_the_handle_ends_the_child() {
        let (_listener, proxy) = started("exec sleep 600");
        let pid = proxy.pid();
        assert!(start_ticks(pid).is_some() && proxy.address().port() != 0);
        drop(proxy);
        assert_eq!(start_ticks(pid), None);
    }

    #[test]
    fn the_port_and_the_variables_reach_the_child_and_sigterm_comes_first() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let script = format!(
            "trap 'echo $WEIR_PORT $KODA_PROXY_PORT $EXTRA > {0}.end; exit 7' TERM; echo up > {0}; while :; do sleep 0.01; done",
            file.path().display()
        );
        let (listener, proxy) = started(&script);
        let up = ask_until(Instant::now() + Duration::from_secs(10), Duration::from_millis(5), || {
            std::fs::read_to_string(file.path()).ok().filter(|text| text == "up\n")
        });
        assert!(up.is_some(), "the trap is set");
        assert_eq!(proxy.stop().unwrap().code(), Some(7));
        let port = listener.local_addr().unwrap().port();
        let end = format!("{}.end", file.path().display());
        assert_eq!(std::fs::read_to_string(&end).unwrap(), format!("{port} {port} 1\n"));
        std::fs::remove_file(end).unwrap();
    }
}
