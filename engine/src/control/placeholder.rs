//! Stand-ins for the parts that are written at the same time; deleted when they are merged.

pub(super) mod journal {
    use crate::audit::chain::{Chain, Head};
    use crate::audit::record::RunHeader;
    use crate::audit::tally::{Counter, Tally};
    use std::io::Write;
    use std::sync::{Arc, Mutex};
    #[derive(Debug, Clone)]
    pub struct Journal(#[expect(clippy::disallowed_types)] Arc<Mutex<(std::fs::File, Chain, Counter)>>);
    pub struct Health {
        pub verifiable: bool,
        pub why: Option<Arc<str>>,
    }
    pub struct Sealed {
        pub head: Head,
        pub seq: u64,
        pub tally: Tally,
        pub verifiable: bool,
        pub why: Option<Arc<str>>,
    }
    impl Journal {
        #[expect(clippy::disallowed_types)]
        pub fn start(mut file: std::fs::File, header: &RunHeader) -> std::io::Result<Self> {
            let mut out = Vec::new();
            let chain = Chain::begin(header, &mut out);
            file.write_all(&out)?;
            Ok(Self(Arc::new(Mutex::new((file, chain, Counter::new(header.gate))))))
        }
        pub fn tally(&self) -> Tally {
            self.0.lock().unwrap().2.tally().clone()
        }
        pub fn health(&self) -> Health {
            Health { verifiable: true, why: None }
        }
        pub fn seal(&self) -> Sealed {
            let mut it = self.0.lock().unwrap();
            let tally = it.2.tally().clone();
            let mut out = Vec::new();
            let totals = tally.totals.clone();
            it.1.seal(crate::audit::line::Final { run: "".into(), at_us: 1, lost: 0, totals }, &mut out);
            it.0.write_all(&out).unwrap();
            Sealed { head: it.1.head(), seq: it.1.seq(), tally, verifiable: true, why: None }
        }
    }
}

pub(super) mod resolve {
    #[derive(Debug, Clone)]
    pub struct Resolver;
    impl Resolver {
        pub fn start() -> std::io::Result<Self> {
            Ok(Self)
        }
        pub fn stop(&self) {}
    }
}

pub mod policy {
    use crate::audit::record::CodeSet;
    use std::sync::Arc;
    #[derive(Debug, Clone, Copy, PartialEq)]
    pub enum Mode {
        Enforce,
        Audit,
        Observe,
    }
    impl Mode {
        pub fn as_str(self) -> &'static str {
            match self {
                Mode::Enforce => "enforce",
                Mode::Audit => "audit",
                Mode::Observe => "observe",
            }
        }
        pub fn parse(word: &str) -> Option<Mode> {
            [Mode::Enforce, Mode::Audit, Mode::Observe].into_iter().find(|m| m.as_str() == word)
        }
    }
    #[derive(Debug, Default, Clone)]
    pub struct Environment {
        pub http_proxy: Option<String>,
        pub https_proxy: Option<String>,
        pub no_proxy: Option<String>,
        pub weir_proxy: Option<String>,
    }
    #[derive(Debug)]
    pub struct Listen {
        pub http: std::net::SocketAddr,
        pub allow_remote: bool,
    }
    #[derive(Debug)]
    pub struct Policy {
        listen: Listen,
        mode: Mode,
    }
    impl Policy {
        pub fn mode(&self) -> Mode {
            self.mode
        }
        pub fn source(&self) -> &str {
            "preset:ci"
        }
        pub fn digest(&self) -> &str {
            "00"
        }
        pub fn listen(&self) -> &Listen {
            &self.listen
        }
        pub fn gate(&self) -> CodeSet {
            CodeSet::default()
        }
        pub fn blind_spots(&self) -> Vec<String> {
            Vec::new()
        }
    }
    pub mod load {
        use super::*;
        use crate::control::fault::{Fault, Kind};
        pub struct Overrides {
            pub mode: Option<Mode>,
        }
        #[derive(Debug)]
        pub struct Loaded {
            pub policy: Arc<Policy>,
        }
        pub struct LoadError;
        impl LoadError {
            pub fn into_fault(self) -> Fault {
                Fault::new(Kind::Config, "bad policy")
            }
        }
        pub fn load(
            path: Option<&std::path::Path>,
            overrides: &Overrides,
            _: &Environment,
        ) -> Result<Loaded, LoadError> {
            if path.is_some_and(|p| !p.exists()) {
                return Err(LoadError);
            }
            Ok(Loaded {
                policy: Arc::new(Policy {
                    listen: Listen { http: "127.0.0.1:0".parse().unwrap(), allow_remote: false },
                    mode: overrides.mode.unwrap_or(Mode::Enforce),
                }),
            })
        }
    }
}

pub mod driver {
    use std::sync::Arc;
    use std::time::Instant;
    #[derive(Debug, Clone, Copy, PartialEq)]
    pub enum Choice {
        Auto,
        Uring,
        Epoll,
    }
    pub struct DriverOptions {
        pub listeners: Vec<std::net::TcpListener>,
        pub driver: Choice,
        pub threads: Option<usize>,
        pub policy: Arc<super::policy::Policy>,
        pub journal: super::journal::Journal,
        pub resolver: super::resolve::Resolver,
        pub run_id: Arc<str>,
    }
    #[derive(Debug)]
    pub struct Driver(#[expect(dead_code)] Vec<std::net::TcpListener>);
    pub struct Info {
        pub name: &'static str,
        pub rung: String,
        pub threads: usize,
    }
    pub struct Counters {
        pub open: u64,
        pub total: u64,
        pub tunnels: u64,
        pub refused: u64,
        pub up: u64,
        pub down: u64,
    }
    pub fn start(options: DriverOptions) -> std::io::Result<Driver> {
        Ok(Driver(options.listeners))
    }
    impl Driver {
        pub fn info(&self) -> Info {
            Info { name: "epoll", rung: "none".into(), threads: 1 }
        }
        pub fn counters(&self) -> Counters {
            Counters { open: 0, total: 0, tunnels: 0, refused: 0, up: 0, down: 0 }
        }
        pub fn drain(&self, _: Instant) {}
        pub fn is_drained(&self) -> bool {
            std::env::var_os("SLOW_DRAIN").is_none()
        }
        pub fn halt(&self) {}
        pub fn join(&self) {}
    }
}
