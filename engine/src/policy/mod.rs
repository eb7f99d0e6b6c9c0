//! Facts to Decision: one total pure function, and the few questions that come after it.
//!
//! No I/O, no clock, no environment: what the environment says is handed in when a `Policy` is built.
//!
//! Order of evaluation, first refusal first: metadata and self; the routes, first match wins; `default`; the
//! port; address literals; then, for every resolved address before it is dialled, `check_address`; then, for a
//! tunnel, what its first bytes say (`flight`). A route that names a port or a block of addresses opens exactly
//! that in the guard; nothing opens metadata, and no mode opens a loop.
//!
//! A `Passage` belongs to the `Policy` that gave it out: ask the same one the later questions.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::error::Code;
use crate::wire::target::{Authority, Host};

pub mod config;
pub mod explain;
mod fixed;
pub mod flight;
pub mod guard;
pub mod host_rule;
pub mod keys;
pub mod no_proxy;
pub mod parents;
pub mod ranges;
pub mod reader;
mod sections;

pub use config::{Action, Config, Mode, Preset};
pub use explain::Explanation;
pub use flight::{FirstFlight, FlightCheck, SniRule};
pub use parents::{Basic, Environment, Material, Parent};
pub use reader::{ConfigError, Problem};

use fixed::FixedNames;
use guard::{Class, Guard};
use host_rule::{HostRules, Match, NetRule};
use parents::Parents;

/// What is wrong with a text or a combination, and the way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    /// One line; never a secret.
    pub problem: String,
    /// One line.
    pub hint: String,
}

impl Complaint {
    /// A complaint.
    pub fn new(problem: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { problem: problem.into(), hint: hint.into() }
    }

    /// The same, with the name of what it is about in front.
    #[must_use]
    pub fn of(self, name: &str) -> Self {
        Self { problem: format!("{name}: {}", self.problem), hint: self.hint }
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.problem, self.hint)
    }
}

impl std::error::Error for Complaint {}

/// What a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// CONNECT.
    Connect,
    /// A plain HTTP request in absolute form.
    Http,
}

/// What a decision stands on.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// What is asked for.
    pub ask: Ask,
    /// The canonical target.
    pub target: &'a Authority,
}

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Open a tunnel.
    Tunnel(Passage),
    /// Forward the request.
    Forward(Passage),
    /// Refuse it.
    Refuse(Refusal),
}

/// Leave to pass, with the conditions of the later questions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passage {
    /// The id of the deciding route, or `default`, `guard`, `observe`.
    pub rule: Arc<str>,
    /// What a tunnel's first flight must show.
    pub sni: SniRule,
    /// What the route opens in the guard.
    pub opened: Opened,
    /// What enforce mode would have refused it for.
    pub would_refuse: Option<Refusal>,
}

/// What a route opens in the guard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// It names the target's port.
    pub port: bool,
    /// The blocks of addresses that it names.
    pub nets: Arc<[NetRule]>,
    /// Routes before this one have their say on resolved addresses.
    before: usize,
}

/// A no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Which no.
    pub code: Code,
    /// The id of the deciding route, or `default`, `guard`.
    pub rule: Arc<str>,
    /// One line for people.
    pub reason: Arc<str>,
}

/// Whether an address may be dialled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AddressCheck {
    /// Yes.
    Open,
    /// Yes, and enforce mode would have refused it.
    Noted(Refusal),
    /// No.
    Refused(Refusal),
}

/// A policy in force: immutable, shared by `Arc`, swapped whole.
#[derive(Debug)]
pub struct Policy {
    config: Config,
    digest: String,
    rules: HostRules,
    routes: Vec<Ruling>,
    otherwise: Ruling,
    guard: Guard,
    guard_rule: Arc<str>,
    observe_rule: Arc<str>,
    fixed: FixedNames,
    parents: Parents,
}

/// A route, or the default, ready to decide.
#[derive(Debug)]
struct Ruling {
    rule: Arc<str>,
    action: Action,
    code: Code,
    reason: Arc<str>,
    sni: SniRule,
    nets: Arc<[NetRule]>,
}

impl Policy {
    /// Puts a configuration in force. Overrides of the command line stand in `config` already.
    ///
    /// # Errors
    /// What a file alone could not show: a proxy variable that is no URL, credentials that were not resolved, a
    /// listen address that is not loopback without `allow_remote`.
    pub fn new(config: Config, environment: &Environment) -> Result<Self, Complaint> {
        let listen = &config.listen;
        if !listen.http.ip().is_loopback() && !listen.allow_remote {
            return Err(Complaint::new(
                format!("listen.http: {} is not a loopback address", listen.http.ip()),
                "listen on 127.0.0.1, or add allow_remote = true under [listen]",
            ));
        }
        let reach = config.reach();
        let keys = &config.guard;
        let guard = Guard {
            reach,
            deny: keys.deny.clone(),
            allow_cidrs: keys.allow_cidrs.clone(),
            ports: keys.ports.clone().unwrap_or_else(|| reach.default_ports()),
            deny_ports: keys.deny_ports.clone(),
        };
        let parents = Parents::new(&config, environment)?;
        let canonical = config.canonical();
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, canonical.as_bytes());
        Ok(Self {
            digest: data_encoding::HEXLOWER.encode(digest.as_ref()),
            rules: HostRules::new(config.routes.iter().map(|route| &route.hosts[..])),
            routes: config.routes.iter().map(Ruling::of_route).collect(),
            otherwise: Ruling::of_default(config.default),
            guard,
            guard_rule: "guard".into(),
            observe_rule: "observe".into(),
            fixed: FixedNames::new(&config.resolve),
            parents,
            config,
        })
    }

    /// What becomes of a request.
    pub fn decide(&self, facts: &Facts<'_>) -> Decision {
        let found = self.rules.first_match(facts.target);
        let refusal = match self.config.mode {
            Mode::Observe => None,
            Mode::Enforce | Mode::Audit => self.refusal(facts.target, found),
        };
        let passage = |would_refuse| self.passage(found, would_refuse);
        match (refusal, self.config.mode, facts.ask) {
            (Some(refusal), Mode::Enforce, _) => Decision::Refuse(refusal),
            (would_refuse, _, Ask::Connect) => Decision::Tunnel(passage(would_refuse)),
            (would_refuse, _, Ask::Http) => Decision::Forward(passage(would_refuse)),
        }
    }

    /// The first reason to refuse a target, before its name is resolved.
    fn refusal(&self, target: &Authority, found: Option<Match>) -> Option<Refusal> {
        let ruling = self.ruling(found);
        let literal = target.host.ip();
        if guard::is_metadata_name(&target.host) {
            return Some(self.class_refusal(&target.host, Class::Metadata));
        }
        if let Some(ip) = literal.filter(|ip| guard::classify(*ip) == Class::Metadata) {
            return Some(self.class_refusal(&ip, Class::Metadata));
        }
        if ruling.action == Action::Deny {
            return Some(ruling.refusal());
        }
        if !found.is_some_and(|found| found.names_port) && !self.guard.opens_port(target.port) {
            let reason = format!("port {} is not open; a route that names it opens it", target.port);
            return Some(self.guard_refusal(Code::DeniedPort, &reason));
        }
        let ip = literal?;
        if found.is_none() && !self.config.guard.raw_ip {
            let reason = "targets must be names; a route that names the address opens it";
            return Some(self.guard_refusal(Code::RawIp, reason));
        }
        self.refused_class(ip, target.port, &ruling.nets).map(|class| self.class_refusal(&ip, class))
    }

    /// Whether `to` may be dialled under `passage`. Called for every resolved address, and for literals too.
    /// `own` are the listen addresses of this proxy (`guard::is_own` says which spellings that covers).
    pub fn check_address(&self, passage: &Passage, to: SocketAddr, own: &[SocketAddr]) -> AddressCheck {
        if guard::is_own(to, own) {
            return AddressCheck::Refused(self.guard_refusal(Code::Loop, "the target is this proxy itself"));
        }
        let refusal = match self.config.mode {
            Mode::Observe => None,
            Mode::Enforce | Mode::Audit => self.address_refusal(passage, to),
        };
        match (refusal, self.config.mode) {
            (None, _) => AddressCheck::Open,
            (Some(refusal), Mode::Enforce) => AddressCheck::Refused(refusal),
            // One note a request: what `decide` would have refused has been told.
            (Some(_), _) if passage.would_refuse.is_some() => AddressCheck::Open,
            (Some(refusal), _) => AddressCheck::Noted(refusal),
        }
    }

    fn address_refusal(&self, passage: &Passage, to: SocketAddr) -> Option<Refusal> {
        let (class, judged) = guard::judge(to.ip());
        if class != Class::Metadata
            && let Some(route) = self.rules.first_net_before(passage.opened.before, judged, to.port())
            && let Some(ruling) = self.routes.get(route)
        {
            return (ruling.action == Action::Deny).then(|| ruling.refusal());
        }
        let class = self.refused_class(to.ip(), to.port(), &passage.opened.nets)?;
        Some(self.class_refusal(&to.ip(), class))
    }

    fn refused_class(&self, ip: IpAddr, port: u16, nets: &[NetRule]) -> Option<Class> {
        self.guard.refused_class(ip, |judged| nets.iter().any(|rule| rule.names(judged, port)))
    }

    /// Fixed addresses of a name, in place of DNS.
    pub fn fixed_addresses(&self, host: &Host) -> Option<Arc<[IpAddr]>> {
        self.fixed.addresses(host)
    }

    /// The parent proxy that a target goes through; none for a direct connection. Its addresses are not judged
    /// by `check_address`, since the policy or the environment names it; only `guard::is_own` must be asked.
    pub fn parent_for(&self, target: &Authority, ask: Ask) -> Option<&Arc<Parent>> {
        self.parents.parent_for(target, ask)
    }

    /// Whether `stop --fail-on-violation` counts a refusal with this code.
    pub fn counts(&self, code: Code) -> bool {
        self.config.fail_on.contains(&code)
    }

    /// The mode in force.
    pub fn mode(&self) -> Mode {
        self.config.mode
    }

    /// The configuration in force, overrides of the command line included.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// SHA-256 of `Config::canonical`, in hex.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The name of the file, or `preset:ci`.
    pub fn source(&self) -> &str {
        &self.config.source
    }

    /// What people should know when the proxy starts: variables and entries that were left out.
    pub fn notices(&self) -> &[String] {
        &self.parents.notices
    }

    /// The parent proxies in use.
    pub fn parents(&self) -> impl Iterator<Item = &Arc<Parent>> {
        self.parents.all()
    }

    /// What this policy cannot see or does not refuse, one line each.
    pub fn blind_spots(&self) -> Vec<String> {
        let mut spots = vec![
            "packages: names and versions are unseen on tunnelled hosts".to_owned(),
            "git push: unseen on tunnelled hosts".to_owned(),
            "paths and methods: unseen on tunnelled hosts".to_owned(),
        ];
        let mut say = |blind: bool, line: &str| {
            if blind {
                spots.push(line.to_owned());
            }
        };
        let Config { mode, default, guard, listen, .. } = &self.config;
        say(*mode == Mode::Audit, "mode audit: nothing is refused but loops and framing errors");
        say(*mode == Mode::Observe, "mode observe: nothing is judged but loops and framing errors");
        say(*default == Action::Splice, "default splice: hosts that no route names pass");
        say(*default == Action::Splice && guard.raw_ip, "raw_ip allow: addresses in place of names pass");
        let remote_local = !listen.http.ip().is_loopback() && guard.reach == Some(guard::Reach::Local);
        say(remote_local, "reach local on a remote listener: its clients reach what this machine reaches");
        for parent in self.parents() {
            spots.push(format!(
                "parent {} ({}): it resolves the names, so addresses behind it are not classified",
                parent.name, parent.authority
            ));
        }
        let weak = |ruling: &&Ruling| ruling.action == Action::Splice && ruling.sni != SniRule::Required;
        let weak: Vec<&str> = self.routes.iter().filter(weak).map(|ruling| &*ruling.rule).collect();
        if !weak.is_empty() {
            spots.push(format!(
                "routes without require_sni let tunnels pass that are not TLS: {}",
                weak.join(", ")
            ));
        }
        spots
    }

    fn ruling(&self, found: Option<Match>) -> &Ruling {
        found.and_then(|found| self.routes.get(found.route)).unwrap_or(&self.otherwise)
    }

    fn passage(&self, found: Option<Match>, would_refuse: Option<Refusal>) -> Passage {
        let ruling = self.ruling(found);
        let rule = match (&would_refuse, self.config.mode) {
            (_, Mode::Observe) => &self.observe_rule,
            (Some(refusal), _) => &refusal.rule,
            (None, _) => &ruling.rule,
        };
        Passage {
            rule: rule.clone(),
            sni: ruling.sni,
            opened: Opened {
                port: found.is_some_and(|found| found.names_port),
                nets: ruling.nets.clone(),
                before: found.map_or(usize::MAX, |found| found.route),
            },
            would_refuse,
        }
    }

    fn guard_refusal(&self, code: Code, reason: &str) -> Refusal {
        Refusal { code, rule: self.guard_rule.clone(), reason: reason.into() }
    }

    fn class_refusal(&self, what: &dyn fmt::Display, class: Class) -> Refusal {
        self.guard_refusal(Code::IpClass, &format!("{what} is of class {class}"))
    }
}

impl Ruling {
    fn of_route(route: &config::Route) -> Self {
        let reason = match (&route.reason, route.action) {
            (Some(reason), _) => reason.as_str().into(),
            (None, Action::Deny) => format!("denied by route {}", route.id).into(),
            (None, Action::Splice) => format!("passes by route {}", route.id).into(),
        };
        Self {
            rule: route.id.as_str().into(),
            action: route.action,
            code: Code::DeniedHost,
            reason,
            sni: if route.require_sni { SniRule::Required } else { SniRule::Equal },
            nets: route.hosts.iter().filter_map(host_rule::HostPattern::net).collect(),
        }
    }

    fn of_default(action: Action) -> Self {
        Self {
            rule: "default".into(),
            action,
            code: Code::NotAllowed,
            reason: "no route names the host".into(),
            sni: match action {
                Action::Splice => SniRule::Report,
                Action::Deny => SniRule::Equal,
            },
            nets: Arc::new([]),
        }
    }

    fn refusal(&self) -> Refusal {
        Refusal { code: self.code, rule: self.rule.clone(), reason: self.reason.clone() }
    }
}

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;
