//! Parent proxies: which one a target goes through, and what the environment says of them.
//!
//! Pure: variables come in as strings, secrets and certificates as bytes. Not here: dialling them, and reading
//! files (`control::load`). Invariants: a failed parent is never replaced by a direct connection; loopback
//! targets never go through one; a variable that points to a weir names no parent; no `Debug` shows a secret.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use data_encoding::BASE64;

use super::config::{Config, UpstreamChoice};
use super::no_proxy::NoProxy;
use super::ranges;
use super::{Ask, Complaint, guard, host_rule};
use crate::wire::target::Authority;

/// What the world outside the policy file says: proxy variables as `start` finds them, and what the references
/// of the file lead to.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// `http_proxy` or `HTTP_PROXY`.
    pub http_proxy: Option<Variable>,
    /// `https_proxy` or `HTTPS_PROXY`.
    pub https_proxy: Option<Variable>,
    /// `no_proxy` or `NO_PROXY`.
    pub no_proxy: Option<Variable>,
    /// `WEIR_PROXY`: a proxy variable with the same authority points to a weir and names no parent.
    pub weir_proxy: Option<Variable>,
    /// What `[upstream.NAME]` refers to, by name.
    pub materials: BTreeMap<String, Material>,
    /// Certificates of `tls.extra_roots`, DER.
    pub extra_roots: Vec<Vec<u8>>,
}

impl Environment {
    /// Takes the variables from `look`. Lower case wins over upper case, as for most clients; an empty value is
    /// no value.
    pub fn from_variables(look: impl Fn(&str) -> Option<String>) -> Self {
        let first = |names: [&str; 2]| {
            names.into_iter().find_map(|name| {
                let value = look(name)?.trim().to_owned();
                (!value.is_empty()).then(|| Variable { name: name.to_owned(), value })
            })
        };
        Self {
            http_proxy: first(["http_proxy", "HTTP_PROXY"]),
            https_proxy: first(["https_proxy", "HTTPS_PROXY"]),
            no_proxy: first(["no_proxy", "NO_PROXY"]),
            weir_proxy: first(["WEIR_PROXY", "WEIR_PROXY"]),
            ..Self::default()
        }
    }
}

/// A variable of the environment. Its value may hold a password, so `Debug` does not show it.
#[derive(Clone)]
pub struct Variable {
    /// As it was spelled.
    pub name: String,
    /// Not empty.
    pub value: String,
}

impl fmt::Debug for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}=[redacted]", self.name)
    }
}

/// What the references of one `[upstream.NAME]` lead to.
#[derive(Debug, Clone, Default)]
pub struct Material {
    /// From `auth_ref`.
    pub basic: Option<Basic>,
    /// From `ca_file`, DER.
    pub roots: Vec<Vec<u8>>,
}

/// Credentials for a parent. They leave only in `header_value`.
#[derive(Clone, PartialEq, Eq)]
pub struct Basic {
    encoded: Box<str>,
}

impl Basic {
    /// From `user:password` (RFC 7617, 2).
    ///
    /// # Errors
    /// Without a colon, or with control characters. The text is not repeated.
    pub fn new(user_password: &str) -> Result<Self, Complaint> {
        if !user_password.contains(':') || user_password.chars().any(char::is_control) {
            return Err(Complaint::new(
                "the secret is not of the form user:password",
                "one line, the user, a colon, the password",
            ));
        }
        Ok(Self { encoded: BASE64.encode(user_password.as_bytes()).into_boxed_str() })
    }

    /// The value of `Proxy-Authorization`. Not to be logged.
    pub fn header_value(&self) -> String {
        format!("Basic {}", self.encoded)
    }
}

impl fmt::Debug for Basic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Basic [redacted]")
    }
}

impl Drop for Basic {
    /// Overwrites the secret; `black_box` keeps the stores from being optimised away.
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.encoded).into_boxed_bytes();
        bytes.fill(0);
        std::hint::black_box(&bytes);
    }
}

/// A parent proxy.
#[derive(Debug, Clone)]
pub struct Parent {
    /// Its name in the policy, or `env:https_proxy` and `env:http_proxy`.
    pub name: Arc<str>,
    /// Whether the leg to it is TLS.
    pub tls: bool,
    /// Where it is.
    pub authority: Authority,
    /// Credentials for it.
    pub basic: Option<Basic>,
    /// Certificates trusted for this leg beside the system's, DER: `ca_file` and `tls.extra_roots`.
    pub roots: Vec<Vec<u8>>,
    no_proxy: NoProxy,
}

/// Which parent is used.
#[derive(Debug, Default)]
pub(super) struct Parents {
    connect: Option<Arc<Parent>>,
    http: Option<Arc<Parent>>,
    pub(super) notices: Vec<String>,
}

impl Parents {
    pub(super) fn new(config: &Config, environment: &Environment) -> Result<Self, Complaint> {
        match &config.upstream.default {
            UpstreamChoice::Direct => Ok(Self::default()),
            UpstreamChoice::Env => Self::of_environment(environment),
            UpstreamChoice::Named(name) => {
                let parent = Arc::new(named(config, environment, name)?);
                Ok(Self { connect: Some(parent.clone()), http: Some(parent), notices: Vec::new() })
            }
        }
    }

    fn of_environment(environment: &Environment) -> Result<Self, Complaint> {
        let mut notices = Vec::new();
        let no_proxy = match &environment.no_proxy {
            Some(variable) => NoProxy::of_variable(variable, &mut notices),
            None => NoProxy::default(),
        };
        let weir = environment.weir_proxy.as_ref().and_then(|variable| ProxyUrl::parse(&variable.value).ok());
        let mut parent = |variable: &Option<Variable>, name: &str| -> Result<_, Complaint> {
            let Some(variable) = variable else { return Ok(None) };
            let url = ProxyUrl::parse(&variable.value).map_err(|error| error.of(&variable.name))?;
            if weir.as_ref().is_some_and(|weir| weir.authority == url.authority) {
                notices.push(format!("{} points to a weir and is not used as a parent proxy", variable.name));
                return Ok(None);
            }
            let basic = match &url.userinfo {
                Some(userinfo) => Some(Basic::new(userinfo).map_err(|error| error.of(&variable.name))?),
                None => None,
            };
            let ProxyUrl { tls, authority, .. } = url;
            let parent = Parent {
                name: name.into(),
                tls,
                authority,
                basic,
                roots: environment.extra_roots.clone(),
                no_proxy: no_proxy.clone(),
            };
            Ok(Some(Arc::new(parent)))
        };
        let connect = parent(&environment.https_proxy, "env:https_proxy")?;
        let http = parent(&environment.http_proxy, "env:http_proxy")?;
        Ok(Self { connect, http, notices })
    }

    pub(super) fn parent_for(&self, target: &Authority, ask: Ask) -> Option<&Arc<Parent>> {
        let parent = match ask {
            Ask::Connect => self.connect.as_ref()?,
            Ask::Http => self.http.as_ref()?,
        };
        let direct = guard::is_loopback_host(&target.host) || parent.no_proxy.covers(target);
        (!direct).then_some(parent)
    }

    /// The parents in use, each once.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Parent>> {
        let http = self
            .http
            .as_ref()
            .filter(|http| !self.connect.as_ref().is_some_and(|connect| Arc::ptr_eq(connect, http)));
        self.connect.iter().chain(http)
    }
}

fn named(config: &Config, environment: &Environment, name: &str) -> Result<Parent, Complaint> {
    let upstream = config.upstream.named.iter().find(|upstream| upstream.name == name).ok_or_else(|| {
        Complaint::new(
            format!("upstream.default names {name:?}, which is no table of [upstream]"),
            "add the table",
        )
    })?;
    let material = environment.materials.get(name).cloned().unwrap_or_default();
    if upstream.auth.is_some() && material.basic.is_none() {
        let problem = format!("upstream.{name}.auth_ref was not resolved");
        return Err(Complaint::new(problem, "without the credentials the proxy would be asked without them"));
    }
    Ok(Parent {
        name: name.into(),
        tls: upstream.tls,
        authority: upstream.authority.clone(),
        basic: material.basic,
        roots: [material.roots, environment.extra_roots.clone()].concat(),
        no_proxy: NoProxy::of(&upstream.no_proxy)?,
    })
}

/// The URL of a proxy.
#[derive(Clone, PartialEq, Eq)]
pub struct ProxyUrl {
    /// `https://`.
    pub tls: bool,
    /// Host and port; port 80 or 443 where the URL names none.
    pub authority: Authority,
    /// `user:password`, percent-decoded.
    pub userinfo: Option<String>,
}

impl ProxyUrl {
    /// `http://[user[:password]@]host[:port][/]`, or `https://…`; without a scheme it is http, as for curl.
    ///
    /// # Errors
    /// Anything else. The text is not repeated: it may hold a password.
    pub fn parse(text: &str) -> Result<Self, Complaint> {
        let wrong = |problem: &str| Complaint::new(problem, "like \"http://proxy.corp.test:3128\"");
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            "socks" | "socks4" | "socks4a" | "socks5" | "socks5h" => {
                return Err(wrong("SOCKS proxies are not supported yet"));
            }
            _ => return Err(wrong("the proxy's URL must begin with http:// or https://")),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['/', '?', '#']) {
            return Err(wrong("the proxy's URL must not have a path"));
        }
        let (userinfo, authority) = match rest.rsplit_once('@') {
            Some((userinfo, authority)) => {
                let decoded = percent_decode(userinfo);
                (
                    Some(decoded.ok_or_else(|| wrong("the user or password is badly percent-encoded"))?),
                    authority,
                )
            }
            None => (None, rest),
        };
        let userinfo = userinfo.map(|text| if text.contains(':') { text } else { text + ":" });
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !authority.ends_with(']') => {
                (host, ranges::port(port).map_err(|_| wrong("the port of the proxy's URL is no port"))?)
            }
            _ => (authority, if tls { 443 } else { 80 }),
        };
        let host = host_rule::plain_host(host).map_err(|_| wrong("the proxy's URL names no valid host"))?;
        Ok(Self { tls, authority: Authority { host, port }, userinfo })
    }
}

impl fmt::Debug for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        let userinfo = if self.userinfo.is_some() { "[redacted]@" } else { "" };
        write!(f, "{scheme}://{userinfo}{}", self.authority)
    }
}

fn percent_decode(text: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let pair = [bytes.next()?, bytes.next()?].map(|digit| char::from(digit).to_digit(16));
            let [Some(high), Some(low)] = pair else { return None };
            decoded.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            decoded.push(byte);
        }
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authority(text: &str) -> Authority {
        let (host, port) = text.rsplit_once(':').unwrap();
        Authority { host: host_rule::plain_host(host).unwrap(), port: port.parse().unwrap() }
    }

    fn environment(variables: &[(&str, &str)]) -> Environment {
        Environment::from_variables(|name| {
            variables.iter().find(|(own, _)| *own == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn urls_of_proxies() {
        let cases = [
            ("http://proxy.test:3128", Some("http://proxy.test:3128")),
            ("HTTP://Proxy.Test", Some("http://proxy.test:80")),
            ("https://proxy.test/", Some("https://proxy.test:443")),
            ("proxy.test:3128", Some("http://proxy.test:3128")),
            ("http://u:p%40ss@proxy.test:1", Some("http://[redacted]@proxy.test:1")),
            ("http://[fd00::1]:3128", Some("http://[fd00::1]:3128")),
            ("http://[fd00::1]", Some("http://[fd00::1]:80")),
            ("http://10.0.0.1:3128", Some("http://10.0.0.1:3128")),
            ("socks5h://proxy.test:1080", None),
            ("ftp://proxy.test", None),
            ("http://proxy.test:0", None),
            ("http://proxy.test:+1", None),
            ("http://proxy.test/path", None),
            ("http://", None),
            ("http://u%zz@proxy.test", None),
            ("http://127.1:3128", None),
        ];
        for (text, expected) in cases {
            let parsed = ProxyUrl::parse(text).ok().map(|url| format!("{url:?}"));
            assert_eq!(parsed.as_deref(), expected, "{text}");
        }
        assert_eq!(ProxyUrl::parse("http://u:p%40ss@a.test").unwrap().userinfo.as_deref(), Some("u:p@ss"));
        assert_eq!(ProxyUrl::parse("http://token@a.test").unwrap().userinfo.as_deref(), Some("token:"));
    }

    #[test]
    fn secrets_are_not_shown() {
        let secret = "hunter2";
        let environment = environment(&[("https_proxy", "http://user:hunter2@proxy.test:3128")]);
        let parents = Parents::of_environment(&environment).unwrap();
        let parent = parents.connect.as_ref().unwrap();
        assert_eq!(parent.basic.as_ref().unwrap().header_value(), "Basic dXNlcjpodW50ZXIy");
        let shown = format!("{environment:?} {parents:?} {:?}", ProxyUrl::parse("http://u:hunter2@a.test"));
        assert!(!shown.contains(secret) && !shown.contains("dXNlcjpodW50ZXIy"), "{shown}");
        let error =
            Parents::of_environment(&super::tests::environment(&[("HTTPS_PROXY", "http://u:hunter2@x/y")]))
                .unwrap_err()
                .to_string();
        assert!(error.contains("HTTPS_PROXY") && !error.contains(secret), "{error}");
        assert!(Basic::new("nocolon").is_err() && Basic::new("a:b\nc").is_err());
    }

    #[test]
    fn the_environment_names_a_parent_a_scheme() {
        let found = |variables: &[(&str, &str)], target: &str, ask| {
            let parents = Parents::of_environment(&environment(variables)).unwrap();
            parents.parent_for(&authority(target), ask).map(|parent| parent.authority.to_string())
        };
        let both =
            [("http_proxy", "http://h.test:1"), ("HTTPS_PROXY", "http://s.test:2"), ("NO_PROXY", "in.test")];
        assert_eq!(found(&both, "a.test:443", Ask::Connect).as_deref(), Some("s.test:2"));
        assert_eq!(found(&both, "a.test:80", Ask::Http).as_deref(), Some("h.test:1"));
        for direct in
            ["x.in.test:443", "localhost:443", "a.localhost:1", "127.0.0.1:1", "[::1]:1", "0.0.0.0:1"]
        {
            assert_eq!(found(&both, direct, Ask::Connect), None, "{direct}");
        }
        let cases = [("https_proxy", "http://low.test:1"), ("HTTPS_PROXY", "http://up.test:1")];
        assert_eq!(found(&cases, "a.test:443", Ask::Connect).as_deref(), Some("low.test:1"));
        assert_eq!(found(&[("https_proxy", " ")], "a.test:443", Ask::Connect), None);
    }

    #[test]
    fn a_weir_is_no_parent() {
        let variables = [
            ("http_proxy", "http://127.0.0.1:9/"),
            ("https_proxy", "127.0.0.1:9"),
            ("WEIR_PROXY", "http://127.0.0.1:9"),
        ];
        let parents = Parents::of_environment(&environment(&variables)).unwrap();
        assert!(parents.connect.is_none() && parents.http.is_none());
        assert_eq!(parents.notices.len(), 2);
    }
}
