//! `no_proxy`: which targets are reached directly although there is a parent proxy.
//!
//! Not here: loopback, which always is. Names are compared as names: nothing is resolved to find out whether it
//! lies in a block.

use super::parents::Variable;
use super::ranges::{self, Cidr};
use super::{Complaint, guard, host_rule};
use crate::wire::target::{Authority, Host};

/// What does not go through a parent: `*`, domains with everything below them (with or without a leading dot),
/// addresses and CIDR blocks (for targets that are literals), each with an optional port.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NoProxy {
    entries: Vec<Bypass>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Bypass {
    All,
    Domain(Box<str>, Option<u16>),
    Net(Cidr, Option<u16>),
}

impl NoProxy {
    /// Whether the text is an entry.
    ///
    /// # Errors
    /// One line that says why not.
    pub fn check(text: &str) -> Result<(), String> {
        Bypass::parse(text).map(|_| ())
    }

    /// From the entries of a policy.
    ///
    /// # Errors
    /// The first that is none.
    pub fn of(entries: &[String]) -> Result<Self, Complaint> {
        let parse =
            |text: &String| Bypass::parse(text).map_err(|problem| Complaint::new(problem, "see no_proxy"));
        Ok(Self { entries: entries.iter().map(parse).collect::<Result<_, _>>()? })
    }

    /// From a variable. What cannot be understood is left out and said: other clients leave it out silently,
    /// and its hosts then go through the parent, which is the careful side.
    pub(super) fn of_variable(variable: &Variable, notices: &mut Vec<String>) -> Self {
        let mut entries = Vec::new();
        for text in variable.value.split([',', ' ', '\t']).filter(|text| !text.is_empty()) {
            match Bypass::parse(text) {
                Ok(entry) => entries.push(entry),
                Err(problem) => notices.push(format!("{}: {problem}; the entry is left out", variable.name)),
            }
        }
        Self { entries }
    }

    /// Whether the target is reached directly.
    pub fn covers(&self, target: &Authority) -> bool {
        let literal = target.host.ip().map(|ip| guard::judge(ip).1);
        self.entries.iter().any(|entry| match entry {
            Bypass::All => true,
            Bypass::Domain(domain, port) => {
                matches!(&target.host, Host::Name(name) if is_below(name, domain))
                    && port.is_none_or(|port| port == target.port)
            }
            Bypass::Net(block, port) => {
                literal.is_some_and(|ip| block.contains(ip)) && port.is_none_or(|port| port == target.port)
            }
        })
    }
}

impl Bypass {
    fn parse(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Bypass::All);
        }
        if let Ok(block) = Cidr::parse(text) {
            return Ok(Bypass::Net(block, None));
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !text.ends_with(']') => (host, Some(ranges::port(port)?)),
            _ => (text, None),
        };
        if let Ok(block) =
            Cidr::parse(host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host))
        {
            return Ok(Bypass::Net(block, port));
        }
        let domain = host.strip_prefix("*.").or_else(|| host.strip_prefix('.')).unwrap_or(host);
        match host_rule::plain_host(domain) {
            Ok(Host::Name(name)) => Ok(Bypass::Domain(name, port)),
            _ => Err(format!("{text:?} is no host, domain, address or block of addresses")),
        }
    }
}

fn is_below(name: &str, domain: &str) -> bool {
    name.strip_suffix(domain).is_some_and(|front| front.is_empty() || front.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authority(text: &str) -> Authority {
        Authority::connect(text.as_bytes()).unwrap()
    }

    #[test]
    fn no_proxy_entries() {
        let cases = [
            ("a.test", "a.test:443", true),
            ("a.test", "b.a.test:443", true),
            ("a.test", "ba.test:443", false),
            (".a.test", "a.test:443", true),
            (".a.test", "b.a.test:443", true),
            ("*.a.test", "c.b.a.test:443", true),
            ("A.TEST", "a.test:443", true),
            ("a.test:8443", "a.test:8443", true),
            ("a.test:8443", "a.test:443", false),
            ("10.0.0.0/8", "10.1.2.3:443", true),
            ("10.0.0.0/8", "[::ffff:10.1.2.3]:443", true),
            ("10.0.0.0/8", "11.1.2.3:443", false),
            ("10.0.0.7", "10.0.0.7:443", true),
            ("10.0.0.7:8443", "10.0.0.7:443", false),
            ("fd00::/8", "[fd00::1]:443", true),
            ("fd00::1", "[fd00::1]:443", true),
            ("[fd00::1]:8443", "[fd00::1]:8443", true),
            ("[fd00::1]:8443", "[fd00::1]:443", false),
            ("*", "anything.test:1", true),
            ("postgres", "postgres:5432", true),
            ("x.test, a.test b.test", "b.test:1", true),
        ];
        for (value, target, direct) in cases {
            let variable = Variable { name: "NO_PROXY".into(), value: value.into() };
            let mut notices = Vec::new();
            let list = NoProxy::of_variable(&variable, &mut notices);
            assert_eq!(list.covers(&authority(target)), direct, "{value} {target}");
            assert!(notices.is_empty(), "{notices:?}");
        }
        let mut notices = Vec::new();
        let odd = Variable { name: "NO_PROXY".into(), value: "a.test,192.168.*,http://x,ok.test".into() };
        assert!(NoProxy::of_variable(&odd, &mut notices).covers(&authority("ok.test:1")));
        assert_eq!(notices.len(), 2, "{notices:?}");
    }
}
