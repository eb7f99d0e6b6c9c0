//! Why a request or connection was refused or ended: the one table of codes, with the HTTP status of each.
//!
//! The same word stands in the policy (`gate.fail_on`), in the response, in the journal and in the docs.

use serde::{Deserialize, Serialize};

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal, $status:literal;)+) => {
        /// A decision code; `docs/policy.md` lists them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Code { $($(#[doc = $doc])+ $name,)+ }

        impl Code {
            /// Every code, in the order of the table.
            pub const ALL: &[Code] = &[$(Code::$name,)+];

            /// The word for it everywhere.
            pub fn as_str(self) -> &'static str {
                match self { $(Code::$name => $text,)+ }
            }

            /// The HTTP status of a refusal with this code.
            pub fn status(self) -> u16 {
                match self { $(Code::$name => $status,)+ }
            }
        }
    };
}

codes! {
    /// `default = "deny"` and no route names the target.
    NotAllowed = "not_allowed", 403;
    /// A route with `action = "deny"` names the target.
    DeniedHost = "denied_host", 403;
    /// The guard does not open the port.
    DeniedPort = "denied_port", 403;
    /// The target is an IP literal and the guard does not want those.
    RawIp = "raw_ip", 403;
    /// The address, resolved or literal, is of a class that the guard refuses.
    IpClass = "ip_class", 403;
    /// The target is this proxy.
    Loop = "loop", 403;
    /// The name could not be resolved.
    DnsFailed = "dns_failed", 502;
    /// The SNI of a tunnel differs from the CONNECT host.
    SniMismatch = "sni_mismatch", 403;
    /// A tunnel that must show an SNI showed none.
    NoSni = "no_sni", 403;
    /// A tunnel that must be TLS is something else.
    NotTls = "not_tls", 403;
    /// The outer name of an Encrypted ClientHello differs from the CONNECT host.
    EchMismatch = "ech_mismatch", 403;
    /// Host field and request target disagree.
    AuthorityMismatch = "authority_mismatch", 421;
    /// The request breaks the rules of HTTP/1 framing or syntax, or its target is no canonical one.
    Malformed = "malformed", 400;
    /// The head did not arrive within its deadline.
    HeadTimeout = "head_timeout", 408;
    /// No address of the target accepted a connection.
    UpstreamUnreachable = "upstream_unreachable", 502;
    /// The parent proxy refused the CONNECT.
    UpstreamRefused = "upstream_refused", 502;
    /// The TLS towards a parent proxy could not be verified.
    UpstreamTls = "upstream_tls", 502;
    /// The origin broke the rules of HTTP/1 or cut its response short.
    UpstreamMalformed = "upstream_malformed", 502;
    /// The origin or parent did not answer in time.
    UpstreamTimeout = "upstream_timeout", 504;
    /// A limit on connections or queues is reached.
    Overload = "overload", 503;
    /// The proxy is stopping.
    Draining = "draining", 503;
    /// A fault of weir itself.
    Internal = "internal", 500;
}

impl Code {
    /// The code that `word` names.
    pub fn parse(word: &str) -> Option<Code> {
        Code::ALL.iter().copied().find(|code| code.as_str() == word)
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_unique_and_agree_with_serde() {
        for &code in Code::ALL {
            assert_eq!(Code::parse(code.as_str()), Some(code));
            assert_eq!(serde_json::to_string(&code).unwrap(), format!("\"{code}\""));
        }
    }
}
