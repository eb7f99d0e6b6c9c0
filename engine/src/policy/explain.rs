//! `weir explain URL`: what the policy would do with a request, and by which rule. No traffic, no DNS.

use std::net::IpAddr;

use serde::Serialize;

use super::host_rule::plain_host;
use super::{Ask, Complaint, Decision, Facts, Mode, Passage, Policy, Refusal, guard, ranges};
use crate::wire::target::Authority;

/// The answer of `weir explain`, schema 1.
#[derive(Debug, Clone, Serialize)]
pub struct Explanation {
    /// 1.
    pub schema: u32,
    /// Canonical `host:port`.
    pub target: String,
    /// `connect` or `http`.
    pub ask: &'static str,
    /// `enforce`, `audit` or `observe`.
    pub mode: &'static str,
    /// `tunnel`, `forward` or `refuse`.
    pub decision: &'static str,
    /// The id of the deciding route, or `default`, `guard`, `observe`.
    pub rule: String,
    /// The code of the refusal, or of what enforce mode would refuse.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<&'static str>,
    /// The HTTP status of the refusal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// One line for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whether `stop --fail-on-violation` counts it.
    pub counts: bool,
    /// The parent proxy that it would go through, `name (host:port)`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub via: Option<String>,
    /// Addresses that stand for the name in `[resolve]`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resolve: Vec<IpAddr>,
    /// Of the fixed addresses, those that the guard would refuse, with why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub refused_addresses: Vec<String>,
    /// The class of the address, where the target is a literal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<&'static str>,
    /// Where the policy comes from.
    pub source: String,
    /// Its digest.
    pub digest: String,
}

impl Policy {
    /// What would be done with `asked`: `http://…` as a plain request; `https://…`, `host:port` and a bare host
    /// (port 443) as a CONNECT.
    ///
    /// # Errors
    /// When that is no URL and no authority.
    pub fn explain(&self, asked: &str) -> Result<Explanation, Complaint> {
        let (ask, target) = asked_for(asked)?;
        let decision = self.decide(&Facts { ask, target: &target });
        let (word, rule, refusal, passage) = match &decision {
            Decision::Tunnel(passage) => {
                ("tunnel", &passage.rule, passage.would_refuse.as_ref(), Some(passage))
            }
            Decision::Forward(passage) => {
                ("forward", &passage.rule, passage.would_refuse.as_ref(), Some(passage))
            }
            Decision::Refuse(refusal) => ("refuse", &refusal.rule, Some(refusal), None),
        };
        let via = passage.and_then(|_| self.parent_for(&target, ask));
        let resolve = self.fixed_addresses(&target.host).unwrap_or_default();
        let refused_addresses = match passage {
            Some(passage) if via.is_none() => self.refused_of(passage, &resolve, target.port),
            _ => Vec::new(),
        };
        // A name whose fixed addresses are all refused is refused, by whoever refuses the first of them.
        let none_left = !resolve.is_empty() && refused_addresses.len() == resolve.len();
        let by_address = match (passage, resolve.first()) {
            (Some(passage), Some(ip)) if none_left => {
                self.address_refusal(passage, (*ip, target.port).into())
            }
            _ => None,
        };
        let enforced = self.mode() == Mode::Enforce;
        let refused = matches!(decision, Decision::Refuse(_)) || (enforced && by_address.is_some());
        let refusal = refusal.or(by_address.as_ref());
        let (word, rule) = match &by_address {
            Some(by_address) if enforced => ("refuse", &by_address.rule),
            _ => (word, rule),
        };
        Ok(Explanation {
            schema: 1,
            target: target.to_string(),
            ask: match ask {
                Ask::Connect => "connect",
                Ask::Http => "http",
            },
            mode: self.mode().as_str(),
            decision: word,
            rule: rule.to_string(),
            code: refusal.map(|refusal| refusal.code.as_str()),
            status: refusal.filter(|_| refused).map(|refusal| refusal.code.status()),
            reason: refusal.map(|refusal| refusal.reason.to_string()).or_else(|| self.reason_of(passage)),
            counts: refused && refusal.is_some_and(|refusal| self.counts(refusal.code)),
            via: via.map(|parent| format!("{} ({})", parent.name, parent.authority)),
            resolve: resolve.to_vec(),
            refused_addresses,
            class: target.host.ip().map(|ip| guard::classify(ip).as_str()),
            source: self.source().to_owned(),
            digest: self.digest().to_owned(),
        })
    }

    fn refused_of(&self, passage: &Passage, addresses: &[IpAddr], port: u16) -> Vec<String> {
        let refusal = |ip: &IpAddr| self.address_refusal(passage, (*ip, port).into());
        addresses
            .iter()
            .filter_map(refusal)
            .map(|Refusal { code, reason, .. }| format!("{code}: {reason}"))
            .collect()
    }

    fn reason_of(&self, passage: Option<&Passage>) -> Option<String> {
        let rule = &passage?.rule;
        self.routes.iter().find(|ruling| ruling.rule == *rule).map(|ruling| ruling.reason.to_string())
    }
}

fn asked_for(asked: &str) -> Result<(Ask, Authority), Complaint> {
    let wrong = |problem: String| {
        Complaint::new(problem, "like \"https://a.test/x\", \"http://a.test/\" or \"a.test:8443\"")
    };
    let (scheme, rest) = match asked.split_once("://") {
        Some((scheme, rest)) => (scheme.to_ascii_lowercase(), rest),
        None => (String::new(), asked),
    };
    let (ask, port) = match scheme.as_str() {
        "http" => (Ask::Http, 80),
        "" | "https" => (Ask::Connect, 443),
        _ => return Err(wrong(format!("no request with the scheme {scheme:?} comes through this proxy"))),
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let authority = authority.rsplit_once('@').map_or(authority, |(_, behind)| behind);
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !authority.ends_with(']') => (host, ranges::port(port).map_err(wrong)?),
        _ => (authority, port),
    };
    let host = plain_host(host)?;
    Ok((ask, Authority { host, port }))
}
