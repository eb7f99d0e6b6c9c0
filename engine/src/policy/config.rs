//! The policy file as values: what each supported key says, defaults filled in.
//!
//! Not here: how the text is read (`sections`, `reader`) and what follows from it (`Policy`). Invariants: a
//! `Config` is valid by construction, except for what files and the environment add later; `canonical` prints
//! every effective key, and its text parses to an equal `Config`, so a digest over it names a behaviour.

use std::fmt::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::guard::{Class, Reach};
use super::host_rule::{HostPattern, Pattern};
use super::ranges::{Cidr, Ports};
use super::reader::{ConfigError, Place, Reader};
use super::sections;
use crate::error::Code;
use crate::wire::target::Authority;

/// What becomes of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It is refused.
    Enforce,
    /// It passes and is written down as what enforce would have refused.
    Audit,
    /// Nothing is judged but loops and framing.
    Observe,
}

impl Mode {
    /// Every mode with its word.
    pub const WORDS: &[(&str, Mode)] =
        &[("enforce", Mode::Enforce), ("audit", Mode::Audit), ("observe", Mode::Observe)];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Enforce => "enforce",
            Mode::Audit => "audit",
            Mode::Observe => "observe",
        }
    }

    /// The mode that `word` names.
    pub fn parse(word: &str) -> Option<Mode> {
        Mode::WORDS.iter().find(|(own, _)| *own == word).map(|(_, mode)| *mode)
    }
}

/// What happens to a target: the action of a route, and the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It passes, its bytes unseen.
    Splice,
    /// It is refused.
    Deny,
}

impl Action {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Splice => "splice",
            Action::Deny => "deny",
        }
    }
}

/// The embedded policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// The default: everything passes but metadata and self.
    Ci,
    /// Deny by default, public addresses on 80 and 443.
    Agent,
    /// As agent, documentation addresses refused too.
    Strict,
}

impl Preset {
    /// Every preset with its word.
    pub const WORDS: &[(&str, Preset)] =
        &[("ci", Preset::Ci), ("agent", Preset::Agent), ("strict", Preset::Strict)];

    /// The preset that `word` names.
    pub fn parse(word: &str) -> Option<Preset> {
        Preset::WORDS.iter().find(|(own, _)| *own == word).map(|(_, preset)| *preset)
    }

    /// Its file, with comments.
    pub fn text(self) -> &'static str {
        match self {
            Preset::Ci => include_str!("presets/ci.toml"),
            Preset::Agent => include_str!("presets/agent.toml"),
            Preset::Strict => include_str!("presets/strict.toml"),
        }
    }

    /// Its name as a source of policy.
    pub fn source(self) -> &'static str {
        match self {
            Preset::Ci => "preset:ci",
            Preset::Agent => "preset:agent",
            Preset::Strict => "preset:strict",
        }
    }
}

/// A whole policy file, defaults filled in.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where it comes from: the name of the file or `preset:ci`.
    pub source: String,
    /// `mode`.
    pub mode: Mode,
    /// `default`.
    pub default: Action,
    /// `[listen]`.
    pub listen: Listen,
    /// `[guard]`.
    pub guard: GuardKeys,
    /// `[resolve]`.
    pub resolve: Vec<Fixed>,
    /// `tls.extra_roots`.
    pub extra_roots: Vec<FileRef>,
    /// `[upstream]`.
    pub upstream: UpstreamKeys,
    /// `gate.fail_on`.
    pub fail_on: Vec<Code>,
    /// `[[route]]`, in the order of the file.
    pub routes: Vec<Route>,
}

/// `[listen]`.
#[derive(Debug, Clone)]
pub struct Listen {
    /// The proxy's address; port 0 lets the system choose.
    pub http: SocketAddr,
    /// Whether that may be another than loopback.
    pub allow_remote: bool,
}

/// `[guard]`, as written.
#[derive(Debug, Clone)]
pub struct GuardKeys {
    /// Absent: local on a loopback listener, boundary on another.
    pub reach: Option<Reach>,
    /// Classes refused in addition to those of the reach.
    pub deny: Vec<Class>,
    /// Blocks open in spite of their class.
    pub allow_cidrs: Vec<Cidr>,
    /// Absent: as the reach has it.
    pub ports: Option<Ports>,
    /// Closed ports.
    pub deny_ports: Ports,
    /// Whether targets may be address literals.
    pub raw_ip: bool,
}

/// One line of `[resolve]`.
#[derive(Debug, Clone)]
pub struct Fixed {
    /// A name, `*.b` or `.b`.
    pub pattern: Pattern,
    /// Its addresses, never empty.
    pub addresses: Vec<IpAddr>,
}

/// A path as written, with its place for a complaint.
#[derive(Debug, Clone)]
pub struct FileRef {
    /// The path; relative to the policy file.
    pub path: String,
    /// Where it stands.
    pub place: Place,
}

/// A reference to a secret; the secret itself is never in a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretRef {
    /// `env:NAME`.
    Env(String),
    /// `file:PATH`, readable by its owner only.
    File(String),
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SecretRef::Env(name) => write!(f, "env:{name}"),
            SecretRef::File(path) => write!(f, "file:{path}"),
        }
    }
}

/// Which parent proxy is used where nothing else says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpstreamChoice {
    /// What the environment of `start` names.
    Env,
    /// None.
    Direct,
    /// A table of `[upstream]`.
    Named(String),
}

/// `[upstream]`.
#[derive(Debug, Clone)]
pub struct UpstreamKeys {
    /// `upstream.default`.
    pub default: UpstreamChoice,
    /// The tables, by name.
    pub named: Vec<Upstream>,
}

/// `[upstream.NAME]`.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// Its name.
    pub name: String,
    /// Whether the leg to it is TLS.
    pub tls: bool,
    /// Where it is.
    pub authority: Authority,
    /// `user:password` for Basic.
    pub auth: Option<(SecretRef, Place)>,
    /// Certificates that are trusted for this leg in addition.
    pub ca_file: Option<FileRef>,
    /// Whether a missing `ca_file` is no error.
    pub ca_optional: bool,
    /// What does not go through it.
    pub no_proxy: Vec<String>,
}

/// `[[route]]`.
#[derive(Debug, Clone)]
pub struct Route {
    /// Its name, as `rule` in the journal.
    pub id: String,
    /// Never empty.
    pub hosts: Vec<HostPattern>,
    /// `action`.
    pub action: Action,
    /// One line for people.
    pub reason: Option<String>,
    /// Whether a tunnel must begin with a ClientHello that names the host.
    pub require_sni: bool,
}

impl Default for Config {
    /// What a file with only `version = 1` says; the same as preset `ci`.
    fn default() -> Self {
        Self {
            source: Preset::Ci.source().to_owned(),
            mode: Mode::Enforce,
            default: Action::Splice,
            listen: Listen { http: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), allow_remote: false },
            guard: GuardKeys {
                reach: None,
                deny: vec![Class::Metadata, Class::Own],
                allow_cidrs: Vec::new(),
                ports: None,
                deny_ports: Ports::of(&[25]),
                raw_ip: true,
            },
            resolve: Vec::new(),
            extra_roots: Vec::new(),
            upstream: UpstreamKeys { default: UpstreamChoice::Env, named: Vec::new() },
            fail_on: vec![Code::DeniedHost, Code::NotAllowed],
            routes: Vec::new(),
        }
    }
}

impl Config {
    /// A policy file; `name` is how complaints call it.
    ///
    /// # Errors
    /// Every problem found, by place. Unknown keys are errors, and so are known ones without code.
    pub fn parse(text: &str, name: &str) -> Result<Self, ConfigError> {
        let mut reader = Reader::new(text);
        let config = reader.document().map(|document| sections::read(&mut reader, &document));
        reader.finish(name)?;
        let config = config.unwrap_or_default(); // without a document there were complaints
        Ok(Self { source: name.to_owned(), ..config })
    }

    /// An embedded policy.
    pub fn preset(preset: Preset) -> Self {
        match Self::parse(preset.text(), preset.source()) {
            Ok(config) => config,
            Err(error) => unreachable!("an embedded preset is tested to parse: {error}"),
        }
    }

    /// The reach in force: as written, else by where the proxy listens.
    pub fn reach(&self) -> Reach {
        let by_listener = if self.listen.http.ip().is_loopback() { Reach::Local } else { Reach::Boundary };
        self.guard.reach.unwrap_or(by_listener)
    }

    /// Every effective key as a policy file, in one order and spelling.
    pub fn canonical(&self) -> String {
        let mut out = String::from("version = 1\n");
        // Writing to a String cannot fail.
        let _ = self.write_head(&mut out).and_then(|()| self.write_tables(&mut out));
        out
    }

    fn write_head(&self, out: &mut String) -> fmt::Result {
        writeln!(out, "mode = \"{}\"\ndefault = \"{}\"", self.mode.as_str(), self.default.as_str())?;
        let Listen { http, allow_remote } = &self.listen;
        writeln!(out, "\n[listen]\nhttp = \"{http}\"\nallow_remote = {allow_remote}")?;
        let guard = &self.guard;
        writeln!(out, "\n[guard]")?;
        if let Some(reach) = guard.reach {
            writeln!(out, "reach = \"{}\"", reach.as_str())?;
        }
        writeln!(out, "deny = {}", list(guard.deny.iter().map(|class| class.as_str())))?;
        writeln!(out, "allow_cidrs = {}", list(guard.allow_cidrs.iter().map(Cidr::to_string)))?;
        if let Some(ports) = &guard.ports {
            writeln!(out, "ports = {}", list(ports.texts()))?;
        }
        writeln!(out, "deny_ports = {}", list(guard.deny_ports.texts()))?;
        writeln!(out, "raw_ip = \"{}\"", if guard.raw_ip { "allow" } else { "deny" })
    }

    fn write_tables(&self, out: &mut String) -> fmt::Result {
        writeln!(out, "\n[resolve]")?;
        for Fixed { pattern, addresses } in &self.resolve {
            let name = HostPattern { pattern: pattern.clone(), port: None }.to_string();
            writeln!(out, "{} = {}", quote(&name), list(addresses.iter().map(IpAddr::to_string)))?;
        }
        writeln!(out, "\n[tls]\nextra_roots = {}", list(self.extra_roots.iter().map(|file| &file.path)))?;
        writeln!(out, "\n[gate]\nfail_on = {}", list(self.fail_on.iter().map(|code| code.as_str())))?;
        let default = match &self.upstream.default {
            UpstreamChoice::Env => "env",
            UpstreamChoice::Direct => "direct",
            UpstreamChoice::Named(name) => name,
        };
        writeln!(out, "\n[upstream]\ndefault = {}", quote(default))?;
        for upstream in &self.upstream.named {
            upstream.write(out)?;
        }
        for route in &self.routes {
            route.write(out)?;
        }
        Ok(())
    }
}

impl Upstream {
    fn write(&self, out: &mut String) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        writeln!(out, "\n[upstream.{}]\nurl = \"{scheme}://{}\"", quote(&self.name), self.authority)?;
        if let Some((reference, _)) = &self.auth {
            writeln!(out, "auth_ref = {}", quote(&reference.to_string()))?;
        }
        if let Some(file) = &self.ca_file {
            writeln!(out, "ca_file = {}\nca_optional = {}", quote(&file.path), self.ca_optional)?;
        }
        writeln!(out, "no_proxy = {}\nfail = \"closed\"", list(&self.no_proxy))
    }
}

impl Route {
    fn write(&self, out: &mut String) -> fmt::Result {
        writeln!(out, "\n[[route]]\nid = {}", quote(&self.id))?;
        writeln!(out, "hosts = {}", list(self.hosts.iter().map(HostPattern::to_string)))?;
        writeln!(out, "action = \"{}\"", self.action.as_str())?;
        if let Some(reason) = &self.reason {
            writeln!(out, "reason = {}", quote(reason))?;
        }
        if self.require_sni {
            writeln!(out, "require_sni = true")?;
        }
        Ok(())
    }
}

/// A TOML string.
fn quote(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn list<S: AsRef<str>>(texts: impl IntoIterator<Item = S>) -> String {
    let quoted: Vec<String> = texts.into_iter().map(|text| quote(text.as_ref())).collect();
    format!("[{}]", quoted.join(", "))
}

/// Any text: never a panic, and what is accepted prints to a text that means the same.
#[cfg(any(test, feature = "fuzz"))]
pub fn fuzz(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let first = match Config::parse(text, "fuzz") {
        Ok(config) => config.canonical(),
        Err(error) => {
            assert!(!error.problems.is_empty() && !error.to_string().is_empty());
            return;
        }
    };
    match Config::parse(&first, "fuzz") {
        Ok(again) => assert_eq!(again.canonical(), first),
        Err(error) => panic!("the canonical text does not parse: {error}\n{first}"),
    }
}
