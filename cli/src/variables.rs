//! The variables that route every client through the proxy: a pure function of where the proxy is.
//!
//! Nothing is intercepted yet, so no CA variable stands here and the job's own are left alone. Never here:
//! `ALL_PROXY` and whatever switches verification off.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use engine::control::fault::Fault;

use crate::args::usage;

/// Every variable that `weir env` sets, in its order; `--unset` takes them away.
pub(crate) const NAMES: &[&str] = &[
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "http_proxy",
    "https_proxy",
    "NO_PROXY",
    "no_proxy",
    "NODE_USE_ENV_PROXY",
    "YARN_HTTP_PROXY",
    "YARN_HTTPS_PROXY",
    "WEIR_PROXY",
    "WEIR_STATE",
    "WEIR_RUN_ID",
];

/// What goes past the proxy: the client's own machine.
const LOCAL: &[&str] = &["localhost", "127.0.0.1", "::1"];

/// Where the proxy is, and what goes past it.
#[derive(Debug, Clone)]
pub(crate) struct Route {
    /// `http://HOST:PORT`.
    pub(crate) proxy: String,
    /// The state directory.
    pub(crate) state: String,
    /// The run.
    pub(crate) run_id: String,
    /// Further names that go past the proxy, in portable form.
    pub(crate) no_proxy: Vec<String>,
}

impl Route {
    /// The variables with their values, in the order of `NAMES`.
    pub(crate) fn variables(&self) -> Vec<(&'static str, String)> {
        let mut past: Vec<&str> = LOCAL.to_vec();
        for name in &self.no_proxy {
            if !past.contains(&name.as_str()) {
                past.push(name);
            }
        }
        let past = past.join(",");
        NAMES
            .iter()
            .map(|&name| {
                let value = match name {
                    "NO_PROXY" | "no_proxy" => past.clone(),
                    "NODE_USE_ENV_PROXY" => "1".to_owned(),
                    "WEIR_STATE" => self.state.clone(),
                    "WEIR_RUN_ID" => self.run_id.clone(),
                    _ => self.proxy.clone(),
                };
                (name, value)
            })
            .collect()
    }
}

/// The proxy's URL as clients are told it: `host` where one is given, a loopback address where it listens on all.
pub(crate) fn proxy_url(address: SocketAddr, host: Option<&str>) -> String {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    match host {
        Some(host) => format!("http://{host}:{}", address.port()),
        None => format!("http://{}", SocketAddr::new(ip, address.port())),
    }
}

/// The host of a URL, as `--host` gives it: a name or an address, IPv6 in brackets or not.
pub(crate) fn host(text: &str) -> Result<String, Fault> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    match bare.parse::<IpAddr>() {
        Ok(IpAddr::V6(ip)) => Ok(format!("[{ip}]")),
        Ok(IpAddr::V4(ip)) => Ok(ip.to_string()),
        Err(_) if is_name(text) => Ok(text.to_owned()),
        Err(_) => Err(usage(format!("--host: {text:?} is no host"))
            .hint("give a name or an address without port, such as host.docker.internal or 172.17.0.1")),
    }
}

/// The names of one `--no-proxy`, in the form that every client understands: addresses as they are, a domain both
/// bare and with a dot in front (some clients take only one of the two for its subdomains).
pub(crate) fn no_proxy(names: &str) -> Result<Vec<String>, Fault> {
    let mut portable = Vec::new();
    for name in names.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        let domain = name.strip_prefix('.').unwrap_or(name);
        if let Ok(ip) = name.parse::<IpAddr>() {
            portable.push(ip.to_string());
        } else if domain == "localhost" {
            portable.push(domain.to_owned());
        } else if is_name(domain) {
            portable.push(domain.to_owned());
            portable.push(format!(".{domain}"));
        } else {
            return Err(usage(format!("--no-proxy: {name:?} is not understood alike by all clients"))
                .hint("give domains or addresses: no `*`, no port, no brackets, no range; corp.test covers *.corp.test"));
        }
    }
    Ok(portable)
}

/// The hosts of the daemons that a job talks to by other variables: a container engine, a cluster.
pub(crate) fn neighbours(docker_host: Option<&str>, kubernetes_host: Option<&str>) -> Vec<String> {
    let docker = docker_host.and_then(|url| {
        let (scheme, rest) = url.split_once("://")?;
        if matches!(scheme, "unix" | "npipe" | "fd") {
            return None;
        }
        let authority = rest.split('/').next()?;
        let host_and_port = authority.rsplit('@').next()?;
        match host_and_port.strip_prefix('[') {
            Some(bracketed) => bracketed.split(']').next(),
            None => host_and_port.split(':').next(),
        }
    });
    [docker, kubernetes_host]
        .into_iter()
        .flatten()
        .filter(|host| host.parse::<IpAddr>().is_ok() || is_name(host))
        .map(str::to_owned)
        .collect()
}

fn is_name(text: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    text.len() <= 253 && text.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route() -> Route {
        Route {
            proxy: "http://127.0.0.1:3128".into(),
            state: "/s".into(),
            run_id: "id".into(),
            no_proxy: vec!["db.test".into(), "localhost".into(), "db.test".into()],
        }
    }

    #[test]
    fn every_variable_has_its_value() {
        let variables = route().variables();
        assert_eq!(variables.iter().map(|(name, _)| *name).collect::<Vec<_>>(), NAMES);
        for (name, value) in variables {
            let expected = match name {
                "NO_PROXY" | "no_proxy" => "localhost,127.0.0.1,::1,db.test",
                "NODE_USE_ENV_PROXY" => "1",
                "WEIR_STATE" => "/s",
                "WEIR_RUN_ID" => "id",
                _ => "http://127.0.0.1:3128",
            };
            assert_eq!(value, expected, "{name}");
        }
        assert!(!NAMES.iter().any(|name| name.eq_ignore_ascii_case("all_proxy")));
    }

    #[test]
    fn the_url_is_one_that_clients_can_reach() {
        let url = |address: &str, host| proxy_url(address.parse().unwrap(), host);
        assert_eq!(url("127.0.0.1:1", None), "http://127.0.0.1:1");
        assert_eq!(url("0.0.0.0:1", None), "http://127.0.0.1:1");
        assert_eq!(url("[::]:1", None), "http://[::1]:1");
        assert_eq!(url("127.0.0.1:1", Some("host.docker.internal")), "http://host.docker.internal:1");
    }

    #[test]
    fn hosts_are_names_or_addresses() {
        for (text, spelled) in
            [("proxy.test", "proxy.test"), ("10.0.0.1", "10.0.0.1"), ("fd00::1", "[fd00::1]")]
        {
            assert_eq!(host(text).unwrap(), spelled);
        }
        assert_eq!(host("[fd00::1]").unwrap(), "[fd00::1]");
        for text in ["", "a:80", "a b", "http://a", "a/b", "u@a", "[a]"] {
            assert!(host(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names_become_portable_or_are_refused() {
        assert_eq!(
            no_proxy("corp.test, .db.test,").unwrap(),
            ["corp.test", ".corp.test", "db.test", ".db.test"]
        );
        assert_eq!(no_proxy("10.0.0.7,fd00::1,localhost").unwrap(), ["10.0.0.7", "fd00::1", "localhost"]);
        assert!(no_proxy("").unwrap().is_empty());
        for names in
            ["*", "*.corp.test", "corp.test:80", "[::1]", "10.0.0.0/8", "a b", "http://a.test", "a..b"]
        {
            assert!(no_proxy(names).is_err(), "{names}");
        }
    }

    #[test]
    fn neighbours_go_past_the_proxy() {
        for (docker, host) in [
            ("tcp://dind:2376", Some("dind")),
            ("tcp://10.0.0.7:2375/x", Some("10.0.0.7")),
            ("ssh://me@builder.test", Some("builder.test")),
            ("tcp://[fd00::1]:2375", Some("fd00::1")),
            ("unix:///var/run/docker.sock", None),
            ("nonsense", None),
            ("tcp://*:1", None),
        ] {
            assert_eq!(neighbours(Some(docker), None).first().map(String::as_str), host, "{docker}");
        }
        assert_eq!(neighbours(Some("tcp://dind:1"), Some("10.96.0.1")), ["dind", "10.96.0.1"]);
    }
}
