//! The first flight of a tunnel: whether what the client says inside agrees with what it asked for outside.
//!
//! Not here: parsing the hello (`wire`) and waiting for it. Policy stands on the CONNECT host, so a hello that
//! names another host is a tunnel to somewhere that was never judged (shared fronts serve many hosts on one
//! address). Encrypted hellos: only the outer name is visible; GREASE carries the extension with the real name,
//! so the extension alone says nothing, and an outer name that differs is a mismatch.

use super::{Mode, Passage, Policy, Refusal};
use crate::error::Code;
use crate::wire::target::{Authority, Host};

/// What a passage wants of the first flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SniRule {
    /// A name that differs is worth telling: the target is outside every route and the default lets it pass.
    Report,
    /// A name that differs is refused; none is needed.
    Equal,
    /// TLS with the CONNECT host as its name, or nothing.
    Required,
}

/// What the first bytes of a tunnel were.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstFlight<'a> {
    /// A complete ClientHello.
    Tls {
        /// Its name, canonical.
        sni: Option<&'a Host>,
        /// Whether it carries the ECH extension, GREASE or not.
        ech: bool,
    },
    /// Something else.
    NotTls,
    /// Nothing within the sniff deadline: the server speaks first, or nobody does.
    Silent,
}

/// What becomes of the tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FlightCheck {
    /// It goes on.
    Pass,
    /// It goes on, and this is worth an event.
    Noted(Code, String),
    /// It ends.
    Refused(Refusal),
}

impl Policy {
    /// Judges the first flight of a tunnel to `target` under `passage`.
    pub fn judge_first_flight(
        &self,
        passage: &Passage,
        target: &Authority,
        flight: &FirstFlight<'_>,
    ) -> FlightCheck {
        if self.mode() == Mode::Observe {
            return FlightCheck::Pass;
        }
        let Some((code, reason)) = disagreement(passage.sni, target, flight) else {
            return FlightCheck::Pass;
        };
        let noted = passage.sni == SniRule::Report || self.mode() == Mode::Audit;
        if noted {
            return FlightCheck::Noted(code, reason);
        }
        FlightCheck::Refused(Refusal { code, rule: passage.rule.clone(), reason: reason.into() })
    }
}

fn disagreement(rule: SniRule, target: &Authority, flight: &FirstFlight<'_>) -> Option<(Code, String)> {
    let host = &target.host;
    let required = rule == SniRule::Required;
    match flight {
        FirstFlight::Tls { sni: Some(name), .. } if *name == host => None,
        FirstFlight::Tls { sni: Some(name), ech: true } => Some((
            Code::EchMismatch,
            format!("the outer name {name} of an encrypted hello differs from {host}"),
        )),
        FirstFlight::Tls { sni: Some(name), ech: false } => {
            Some((Code::SniMismatch, format!("the hello names {name}, the CONNECT names {host}")))
        }
        FirstFlight::Tls { sni: None, .. } if required => {
            Some((Code::NoSni, format!("the hello names no host, it must name {host}")))
        }
        FirstFlight::NotTls if required => Some((Code::NotTls, "the tunnel must begin with TLS".to_owned())),
        FirstFlight::Silent if required => {
            Some((Code::NotTls, "the tunnel must begin with TLS, the client said nothing".to_owned()))
        }
        FirstFlight::Tls { sni: None, .. } | FirstFlight::NotTls | FirstFlight::Silent => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::host_rule::plain_host;
    use super::super::{Ask, Config, Decision, Environment, Facts};
    use super::*;

    const POLICY: &str = r#"
        [[route]]
        id = "strict"
        hosts = [".strict.test", "192.0.2.1"]
        action = "splice"
        require_sni = true

        [[route]]
        id = "plain"
        hosts = [".plain.test"]
        action = "splice"
    "#;

    /// `pass`, or `noted CODE` / `refused CODE RULE`.
    fn judge(mode: &str, connect: &str, flight: &FirstFlight<'_>) -> String {
        let config = Config::parse(&format!("mode = \"{mode}\"\n{POLICY}"), "t").unwrap();
        let policy = Policy::new(config, &Environment::default()).unwrap();
        let target = Authority { host: plain_host(connect).unwrap(), port: 443 };
        let Decision::Tunnel(passage) = policy.decide(&Facts { ask: Ask::Connect, target: &target }) else {
            panic!("{connect} must pass")
        };
        match policy.judge_first_flight(&passage, &target, flight) {
            FlightCheck::Pass => "pass".into(),
            FlightCheck::Noted(code, detail) => {
                assert!(!detail.is_empty());
                format!("noted {code}")
            }
            FlightCheck::Refused(refusal) => format!("refused {} {}", refusal.code, refusal.rule),
        }
    }

    #[test]
    fn the_name_inside_agrees_with_the_name_outside() {
        let good = |name: &str| plain_host(name).unwrap();
        let other = good("other.test");
        let tls = |sni, ech| FirstFlight::Tls { sni, ech };
        let (strict, plain, free) = (good("a.strict.test"), good("a.plain.test"), good("a.free.test"));
        let cases = [
            ("a.strict.test", tls(Some(&strict), false), "pass"),
            ("a.strict.test", tls(Some(&strict), true), "pass"),
            ("a.strict.test", tls(Some(&other), false), "refused sni_mismatch strict"),
            ("a.strict.test", tls(Some(&other), true), "refused ech_mismatch strict"),
            ("a.strict.test", tls(None, false), "refused no_sni strict"),
            ("a.strict.test", FirstFlight::NotTls, "refused not_tls strict"),
            ("a.strict.test", FirstFlight::Silent, "refused not_tls strict"),
            ("192.0.2.1", tls(None, false), "refused no_sni strict"),
            ("a.plain.test", tls(Some(&plain), false), "pass"),
            ("a.plain.test", tls(Some(&other), false), "refused sni_mismatch plain"),
            ("a.plain.test", tls(Some(&other), true), "refused ech_mismatch plain"),
            ("a.plain.test", tls(None, false), "pass"),
            ("a.plain.test", FirstFlight::NotTls, "pass"),
            ("a.plain.test", FirstFlight::Silent, "pass"),
            ("a.free.test", tls(Some(&free), true), "pass"),
            ("a.free.test", tls(Some(&other), false), "noted sni_mismatch"),
            ("a.free.test", tls(Some(&other), true), "noted ech_mismatch"),
            ("a.free.test", tls(None, false), "pass"),
            ("10.0.0.1", tls(None, false), "pass"),
            ("10.0.0.1", tls(Some(&other), false), "noted sni_mismatch"),
        ];
        for (connect, flight, expected) in cases {
            assert_eq!(judge("enforce", connect, &flight), expected, "{connect} {flight:?}");
            let in_audit =
                expected.split(' ').take(2).collect::<Vec<_>>().join(" ").replace("refused", "noted");
            assert_eq!(judge("audit", connect, &flight), in_audit, "{connect} {flight:?}");
            assert_eq!(judge("observe", connect, &flight), "pass");
        }
    }

    #[test]
    fn under_default_deny_a_mismatch_is_refused() {
        let text = "default = \"deny\"\n[[route]]\nid = \"r\"\nhosts = [\"a.test\"]\naction = \"splice\"\n";
        let policy = Policy::new(Config::parse(text, "t").unwrap(), &Environment::default()).unwrap();
        let target = Authority { host: plain_host("a.test").unwrap(), port: 443 };
        let Decision::Tunnel(passage) = policy.decide(&Facts { ask: Ask::Connect, target: &target }) else {
            panic!("a.test must pass")
        };
        let other = plain_host("b.test").unwrap();
        let flight = FirstFlight::Tls { sni: Some(&other), ech: false };
        let check = policy.judge_first_flight(&passage, &target, &flight);
        assert!(matches!(check, FlightCheck::Refused(Refusal { code: Code::SniMismatch, .. })), "{check:?}");
    }
}
