//! Host patterns of routes and of `[resolve]`, and the table that finds the first route for a target.
//!
//! Not here: what a route does. Invariants: patterns and hosts are compared in canonical form only; the answer is
//! the route that stands first in the file among all that match, whatever the kind of pattern; the time of a
//! look-up grows with the labels of the host, and with the `ip:` patterns for literals, not with the routes.

use std::fmt;
use std::net::IpAddr;

use ahash::AHashMap;

use super::Complaint;
use super::guard;
use super::ranges::{self, Cidr};
use crate::wire::target::{Authority, Host};

/// One way to name hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    /// `a.b`, or an address: this host.
    Exact(Host),
    /// `*.b`: one label in front of `b`.
    OneLabel(Box<str>),
    /// `.b`: `b` and every name below it.
    AnyDepth(Box<str>),
    /// `label:NAME`: every name with this label.
    Label(Box<str>),
    /// `ip:10.0.0.0/8`: address literals inside the block, and resolved addresses of the route's names.
    Net(Cidr),
}

/// A pattern with the port that it may name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPattern {
    /// The hosts.
    pub pattern: Pattern,
    /// This port only, and it is opened; without one, every port that the guard opens.
    pub port: Option<u16>,
}

fn wrong(problem: impl Into<String>, hint: impl Into<String>) -> Complaint {
    Complaint { problem: problem.into(), hint: hint.into() }
}

impl HostPattern {
    /// `a.b`, `*.b`, `.b`, `label:NAME`, `ip:CIDR`, an address (IPv6 in brackets), each with an optional `:port`.
    ///
    /// # Errors
    /// What is none of these, a bare `*`, and what would cover a public suffix.
    pub fn parse(text: &str) -> Result<Self, Complaint> {
        if text.contains("://") || (text.contains('/') && !text.starts_with("ip:")) {
            return Err(wrong(
                "a host pattern is no URL",
                "write only the host, like \"a.test\" or \"a.test:8443\"",
            ));
        }
        if let Some(rest) = text.strip_prefix("ip:") {
            return net(rest);
        }
        let (rest, is_label) = match text.strip_prefix("label:") {
            Some(rest) => (rest, true),
            None => (text, false),
        };
        let (host, port) = split_port(rest)?;
        let pattern = if is_label {
            Pattern::Label(label(host)?)
        } else if let Some(base) = host.strip_prefix("*.") {
            Pattern::OneLabel(base_name(base)?)
        } else if let Some(base) = host.strip_prefix('.') {
            Pattern::AnyDepth(base_name(base)?)
        } else {
            Pattern::Exact(exact(host)?)
        };
        Ok(Self { pattern, port })
    }

    /// The block, where the pattern names addresses.
    pub fn net(&self) -> Option<NetRule> {
        let block = match &self.pattern {
            Pattern::Exact(host) => Cidr::one(host.ip()?),
            Pattern::Net(block) => *block,
            Pattern::OneLabel(_) | Pattern::AnyDepth(_) | Pattern::Label(_) => return None,
        };
        Some(NetRule { block, port: self.port })
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.pattern {
            Pattern::Exact(host) => write!(f, "{host}")?,
            Pattern::OneLabel(base) => write!(f, "*.{base}")?,
            Pattern::AnyDepth(base) => write!(f, ".{base}")?,
            Pattern::Label(label) => write!(f, "label:{label}")?,
            // In brackets only where a port follows: behind a prefix length the colon is clear for people too.
            Pattern::Net(block) => write!(f, "ip:{block}")?,
        }
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

/// The host that `text` names; for policy keys that take a plain host.
///
/// # Errors
/// What is no canonical host.
pub fn plain_host(text: &str) -> Result<Host, Complaint> {
    Host::parse(text.as_bytes()).map_err(|error| {
        let hint =
            "write a DNS name (a non-ASCII one as xn--…), an IPv4 address, or an IPv6 address in brackets";
        wrong(format!("{text:?} is no host: {error}"), hint)
    })
}

fn exact(text: &str) -> Result<Host, Complaint> {
    if text == "*" {
        return Err(wrong("a bare \"*\" is refused", "say default = \"splice\" to let every host pass"));
    }
    if text.contains('*') {
        return Err(wrong(
            format!("{text:?} has a \"*\" inside"),
            "\"*.b\" stands for one label in front of b, \".b\" for b and every depth, \"label:NAME\" for a label anywhere",
        ));
    }
    let host = plain_host(text)?;
    match &host {
        Host::Name(name) if is_public_suffix(name) => Err(suffix_refused(name)),
        _ => Ok(host),
    }
}

fn base_name(text: &str) -> Result<Box<str>, Complaint> {
    match plain_host(text)? {
        Host::Name(name) if is_public_suffix(&name) || is_lone_label(&name) => Err(suffix_refused(&name)),
        Host::Name(name) => Ok(name),
        Host::V4(_) | Host::V6(_) => Err(wrong(
            "addresses have no names below them",
            "write \"ip:10.0.0.0/8\" for a block of addresses",
        )),
    }
}

fn label(text: &str) -> Result<Box<str>, Complaint> {
    let bad = || wrong(format!("{text:?} is no DNS label"), "write one label, like \"label:registry\"");
    match Host::parse(format!("{text}.test").as_bytes()) {
        Ok(Host::Name(_)) if text.contains('.') || text.is_empty() => Err(bad()),
        Ok(Host::Name(_)) => Ok(text.to_ascii_lowercase().into_boxed_str()),
        _ => Err(bad()),
    }
}

fn net(text: &str) -> Result<HostPattern, Complaint> {
    let bad =
        |problem: String| wrong(problem, "write \"ip:10.0.0.0/8\", \"ip:fd00::/8\" or \"ip:10.0.0.7:8443\"");
    let (block, port) = match text.rsplit_once('/') {
        Some((_, behind)) => match behind.split_once(':') {
            Some((_, port)) => {
                (text.strip_suffix(port).and_then(|block| block.strip_suffix(':')), Some(port))
            }
            None => (Some(text), None),
        },
        // A bare IPv6 address has colons of its own: with a port it stands in brackets.
        None if text.starts_with('[') => match text.rsplit_once("]:") {
            Some((address, port)) => (address.strip_prefix('['), Some(port)),
            None => (text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')), None),
        },
        None => match text.split_once(':') {
            Some((address, port)) if !port.contains(':') => (Some(address), Some(port)),
            _ => (Some(text), None),
        },
    };
    let block = block.ok_or_else(|| bad(format!("{text:?} is no block of addresses")))?;
    let block = Cidr::parse(block).map_err(bad)?;
    let port = port.map(ranges::port).transpose().map_err(bad)?;
    Ok(HostPattern { pattern: Pattern::Net(block), port })
}

fn split_port(text: &str) -> Result<(&str, Option<u16>), Complaint> {
    let bracketed = text.starts_with('[') && text.ends_with(']');
    match text.rsplit_once(':') {
        Some((host, _)) if !bracketed && host.contains(':') && !host.starts_with('[') => {
            Err(wrong("an IPv6 address needs brackets", format!("write \"[{text}]\"")))
        }
        Some((host, port)) if !bracketed => {
            let port = ranges::port(port).map_err(|problem| wrong(problem, "write \"a.test:8443\""))?;
            Ok((host, Some(port)))
        }
        _ => Ok((text, None)),
    }
}

/// Refused as an exact host and as the base of a pattern: the most used top-level domains, and registry
/// suffixes of the `co.uk` kind. No list can be whole; the point is to catch the slip, not the will.
fn is_public_suffix(name: &str) -> bool {
    const TOP: [&str; 16] = [
        "com", "org", "net", "io", "dev", "app", "edu", "gov", "mil", "int", "info", "biz", "cloud", "sh",
        "co", "ai",
    ];
    const SECOND: [&str; 13] =
        ["co", "com", "org", "net", "ac", "gov", "edu", "or", "ne", "go", "gob", "gouv", "nom"];
    match name.split_once('.') {
        None => TOP.contains(&name),
        Some((second, top)) => top.len() == 2 && SECOND.contains(&second),
    }
}

/// One label as a base is a whole top-level domain, unless it is one that only private networks use.
fn is_lone_label(name: &str) -> bool {
    const PRIVATE: [&str; 9] =
        ["localhost", "local", "internal", "lan", "home", "corp", "test", "example", "invalid"];
    !name.contains('.') && !PRIVATE.contains(&name)
}

fn suffix_refused(name: &str) -> Complaint {
    wrong(
        format!("{name:?} is a public suffix: the pattern would cover hosts of strangers"),
        format!("name the domain that you mean, like \".acme.{name}\""),
    )
}

/// A `Net` or address pattern of a route, by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetRule {
    /// The block.
    pub block: Cidr,
    /// This port only.
    pub port: Option<u16>,
}

impl NetRule {
    /// Whether it names this address and port. The address is the judged one (`guard::judge`).
    pub fn names(&self, ip: IpAddr, port: u16) -> bool {
        self.block.contains(ip) && self.port.is_none_or(|own| own == port)
    }
}

/// The first route for a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Match {
    /// Index of the route.
    pub route: usize,
    /// Whether the pattern names the port, so that the guard opens it.
    pub names_port: bool,
}

/// A route's claim on a name; ordered so that the least one wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Claim {
    route: usize,
    any_port: bool,
    port: u16,
}

impl Claim {
    fn takes(&self, port: u16) -> bool {
        self.any_port || self.port == port
    }
}

/// Every pattern of every route, for look-ups.
#[derive(Debug, Default)]
pub struct HostRules {
    exact: AHashMap<Box<str>, Vec<Claim>>,
    one_label: AHashMap<Box<str>, Vec<Claim>>,
    any_depth: AHashMap<Box<str>, Vec<Claim>>,
    labels: AHashMap<Box<str>, Vec<Claim>>,
    nets: Vec<(usize, NetRule)>,
}

impl HostRules {
    /// The table for routes in the order of the file.
    pub fn new<'p>(routes: impl IntoIterator<Item = &'p [HostPattern]>) -> Self {
        let mut rules = Self::default();
        for (route, patterns) in routes.into_iter().enumerate() {
            for pattern in patterns {
                rules.add(route, pattern);
                rules.nets.extend(pattern.net().map(|net| (route, net)));
            }
        }
        for claims in [&mut rules.exact, &mut rules.one_label, &mut rules.any_depth, &mut rules.labels]
            .into_iter()
            .flat_map(|map| map.values_mut())
        {
            claims.sort_unstable();
            claims.dedup();
        }
        rules
    }

    fn add(&mut self, route: usize, HostPattern { pattern, port }: &HostPattern) {
        let claim = Claim { route, any_port: port.is_none(), port: port.unwrap_or(0) };
        let (map, key) = match pattern {
            Pattern::Exact(Host::Name(name)) => (&mut self.exact, name),
            Pattern::OneLabel(base) => (&mut self.one_label, base),
            Pattern::AnyDepth(base) => (&mut self.any_depth, base),
            Pattern::Label(label) => (&mut self.labels, label),
            Pattern::Exact(Host::V4(_) | Host::V6(_)) | Pattern::Net(_) => return,
        };
        map.entry(key.clone()).or_default().push(claim);
    }

    /// The first route whose patterns match.
    pub fn first_match(&self, target: &Authority) -> Option<Match> {
        match &target.host {
            Host::Name(name) => self.first_for_name(name, target.port),
            Host::V4(ip) => self.first_for_ip((*ip).into(), target.port),
            Host::V6(ip) => self.first_for_ip((*ip).into(), target.port),
        }
    }

    fn first_for_name(&self, name: &str, port: u16) -> Option<Match> {
        let find = |map: &AHashMap<Box<str>, Vec<Claim>>, key: &str| {
            map.get(key).and_then(|claims| claims.iter().find(|claim| claim.takes(port)).copied())
        };
        let mut best = find(&self.exact, name);
        let mut offer = |claim: Option<Claim>| {
            if let Some(claim) = claim {
                best = Some(best.map_or(claim, |held| held.min(claim)));
            }
        };
        if !self.one_label.is_empty() {
            offer(name.split_once('.').and_then(|(_, base)| find(&self.one_label, base)));
        }
        if !self.any_depth.is_empty() || !self.labels.is_empty() {
            let mut rest = Some(name);
            while let Some(suffix) = rest {
                offer(find(&self.any_depth, suffix));
                let (label, behind) = suffix.split_once('.').map_or((suffix, None), |(l, b)| (l, Some(b)));
                offer(find(&self.labels, label));
                rest = behind;
            }
        }
        best.map(|claim| Match { route: claim.route, names_port: !claim.any_port })
    }

    fn first_for_ip(&self, ip: IpAddr, port: u16) -> Option<Match> {
        let (_, judged) = guard::judge(ip);
        let names = |rule: &NetRule| rule.names(ip, port) || rule.names(judged, port);
        self.nets
            .iter()
            .filter(|(_, rule)| names(rule))
            .map(|&(route, rule)| (route, rule.port.is_none()))
            .min()
            .map(|(route, any_port)| Match { route, names_port: !any_port })
    }

    /// The first route before `end` whose blocks name a resolved address.
    pub fn first_net_before(&self, end: usize, judged: IpAddr, port: u16) -> Option<usize> {
        let mut nets = self.nets.iter().filter(|(route, _)| *route < end);
        nets.find(|(_, rule)| rule.names(judged, port)).map(|&(route, _)| route)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> Authority {
        let (host, port) = text.rsplit_once(':').unwrap();
        Authority { host: plain_host(host).unwrap(), port: port.parse().unwrap() }
    }

    fn rules(routes: &[&[&str]]) -> HostRules {
        let parsed: Vec<Vec<HostPattern>> = routes
            .iter()
            .map(|patterns| patterns.iter().map(|text| HostPattern::parse(text).unwrap()).collect())
            .collect();
        HostRules::new(parsed.iter().map(|patterns| &patterns[..]))
    }

    #[test]
    fn patterns_match_what_the_reference_says() {
        let cases = [
            ("a.test", "a.test:443", true),
            ("A.Test.", "a.test:443", true),
            ("a.test", "b.a.test:443", false),
            ("a.test:8443", "a.test:8443", true),
            ("a.test:8443", "a.test:443", false),
            ("*.a.test", "b.a.test:443", true),
            ("*.a.test", "a.test:443", false),
            ("*.a.test", "c.b.a.test:443", false),
            (".a.test", "a.test:443", true),
            (".a.test", "c.b.a.test:443", true),
            (".a.test", "ba.test:443", false),
            (".a.test:8443", "b.a.test:443", false),
            ("label:npm", "npm.a.test:443", true),
            ("label:npm", "a.npm.test:443", true),
            ("label:NPM", "npm:443", true),
            ("label:npm", "npmx.a.test:443", false),
            ("label:npm", "x-npm.a.test:443", false),
            ("10.0.0.7", "10.0.0.7:443", true),
            ("10.0.0.7", "[::ffff:10.0.0.7]:443", true),
            ("[fd00::1]", "[fd00::1]:443", true),
            ("[fd00::1]:8443", "[fd00::1]:443", false),
            ("ip:10.0.0.0/8", "10.1.2.3:443", true),
            ("ip:10.0.0.0/8", "[::ffff:10.1.2.3]:443", true),
            ("ip:10.0.0.0/8", "[64:ff9b::a01:203]:443", true),
            ("ip:10.0.0.0/8", "11.1.2.3:443", false),
            ("ip:10.0.0.0/8:8443", "10.1.2.3:443", false),
            ("ip:fd00::/8:8443", "[fd00::1]:8443", true),
            ("ip:10.0.0.7:8443", "10.0.0.7:8443", true),
            ("ip:[fd00::1]:8443", "[fd00::1]:8443", true),
            ("ip:fd00::1", "[fd00::1]:8443", true),
        ];
        for (pattern, to, expected) in cases {
            assert_eq!(rules(&[&[pattern]]).first_match(&target(to)).is_some(), expected, "{pattern} {to}");
        }
    }

    #[test]
    fn the_first_route_of_the_file_wins() {
        let table = rules(&[
            &["c.b.a.test", "label:x"],
            &["*.b.a.test:8443", ".y.test"],
            &[".a.test"],
            &["d.a.test", "z.y.test", "c.b.a.test:9"],
            &["ip:10.0.0.0/8:8443", "ip:10.0.0.0/8"],
        ]);
        let cases = [
            ("c.b.a.test:8443", Some((0, false))),
            ("c.b.a.test:9", Some((0, false))),
            ("e.b.a.test:8443", Some((1, true))),
            ("e.b.a.test:443", Some((2, false))),
            ("d.a.test:443", Some((2, false))),
            ("z.y.test:443", Some((1, false))),
            ("z.x.y.test:443", Some((0, false))),
            ("10.0.0.1:8443", Some((4, true))),
            ("10.0.0.1:443", Some((4, false))),
            ("other.test:443", None),
            ("192.0.2.1:443", None),
        ];
        for (to, expected) in cases {
            let found = table.first_match(&target(to)).map(|found| (found.route, found.names_port));
            assert_eq!(found, expected, "{to}");
        }
    }

    #[test]
    fn patterns_print_as_they_parse() {
        for text in [
            "a.test",
            "a.test:1",
            "*.a.test",
            ".a.test:65535",
            "label:npm",
            "label:npm:443",
            "10.0.0.7",
            "[::1]",
            "[fd00::1]:8443",
            "ip:10.0.0.0/8",
            "ip:fd00::/8:8443",
            "postgres",
            "*.internal",
            ".test",
        ] {
            assert_eq!(HostPattern::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(HostPattern::parse("ip:[fd00::1]:8443").unwrap().to_string(), "ip:fd00::1/128:8443");
    }

    #[test]
    fn what_covers_too_much_or_is_no_host_is_refused() {
        for text in [
            "",
            "*",
            "*.",
            ".",
            "*:443",
            "com",
            "*.com",
            ".com",
            ".dev:443",
            "*.zz",
            "co.uk",
            "*.co.uk",
            ".com.au",
            "a*.test",
            "*.*.test",
            "a..test",
            "a.test:0",
            "a.test:65536",
            "a.test:+1",
            "a.test:443/x",
            "a.test:",
            "https://a.test",
            "a.test/x",
            "::1",
            "fd00::1:8443",
            "[a.test]",
            "[::1",
            "[::1]x",
            "1.2.3",
            "0x7f.1",
            "2130706433",
            "127.1",
            "*.10.0.0.1",
            "user@a.test",
            "a%2e.test",
            "a b.test",
            "bücher.test",
            "label:",
            "label:a.b",
            "label:*",
            "ip:",
            "ip:10.0.0.1/8",
            "ip:a.test",
            "ip:10.0.0.0/8:0",
            "ip:[fd00::1",
            "ip:/8",
        ] {
            let error = HostPattern::parse(text);
            assert!(error.is_err(), "{text:?} gave {error:?}");
            assert!(!error.unwrap_err().hint.is_empty());
        }
        let long = format!("{}.test", "a".repeat(64));
        assert!(HostPattern::parse(&long).is_err());
    }

    #[test]
    fn resolved_addresses_meet_the_blocks_of_earlier_routes() {
        let table = rules(&[&["ip:10.1.0.0/16"], &["ip:10.0.0.0/8"], &["a.test"]]);
        let at = |end, text: &str| table.first_net_before(end, text.parse().unwrap(), 443);
        assert_eq!(at(2, "10.1.2.3"), Some(0));
        assert_eq!(at(2, "10.2.2.3"), Some(1));
        assert_eq!(at(1, "10.2.2.3"), None);
        assert_eq!(at(2, "192.0.2.1"), None);
    }
}
