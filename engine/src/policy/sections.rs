//! From the sections of a policy file to `Config`: one function a table.
//!
//! Not here: places and complaints (`reader`), types (`config`). Every function goes on after a complaint, so
//! that one run names all that is wrong.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};

use toml::Spanned;
use toml::de::DeTable;

use super::config::{
    Action, Config, FileRef, Fixed, Mode, Preset, Route, SecretRef, Upstream, UpstreamChoice,
};
use super::guard::{Class, Reach};
use super::host_rule::{HostPattern, Pattern};
use super::keys;
use super::no_proxy::NoProxy;
use super::parents::ProxyUrl;
use super::ranges::{Cidr, Ports};
use super::reader::{Item, Reader, Section};
use crate::error::Code;
use crate::limits::ADDRESSES_PER_NAME_MAX;
use crate::wire::target::Host;

/// Bytes of a route's id: it stands in every journal line of the route.
const ID_BYTES_MAX: usize = 64;
/// Bytes of a route's reason: it stands in responses.
const REASON_BYTES_MAX: usize = 256;
/// What the journal calls rules that are no routes.
pub(super) const RESERVED_IDS: &[&str] = &["default", "guard", "http", "limit", "observe", "upstream"];

const ACTIONS: &[(&str, Action)] = &[("splice", Action::Splice), ("deny", Action::Deny)];

type ReadTable<'d> = fn(&mut Reader<'_>, &Section<'d>, &mut Config);

/// The whole document.
pub(super) fn read<'d>(reader: &mut Reader<'_>, document: &'d Spanned<DeTable<'d>>) -> Config {
    let top = reader.top(document);
    if let Some(item) = top.item("version") {
        match reader.integer(&item) {
            Some(version) if version != 1 => {
                reader.complain(&(&item).into(), "unknown version", "this weir reads version = 1");
            }
            _ => {}
        }
    }
    let preset = top.item("preset").and_then(|item| reader.word(&item, Preset::WORDS, &[]));
    let mut config = preset.map_or_else(Config::default, Config::preset);
    reader.set(&mut config.mode, &top, "mode", |reader, item| reader.word(item, Mode::WORDS, &[]));
    reader.set(&mut config.default, &top, "default", |reader, item| reader.word(item, ACTIONS, &["inspect"]));
    let tables: [(&str, ReadTable<'d>); 6] = [
        ("listen", listen),
        ("guard", guard),
        ("resolve", resolve),
        ("tls", tls),
        ("upstream", upstream),
        ("gate", gate),
    ];
    for (name, read) in tables {
        if let Some(section) = top.item(name).and_then(|item| reader.section(&item, name)) {
            read(reader, &section, &mut config);
        }
    }
    reader.set(&mut config.routes, &top, "route", routes);
    config
}

fn listen(reader: &mut Reader<'_>, section: &Section<'_>, config: &mut Config) {
    let listen = &mut config.listen;
    reader.set(&mut listen.allow_remote, section, "allow_remote", |reader, item| reader.flag(item));
    reader.set(&mut listen.http, section, "http", |reader, item| {
        let address: Result<SocketAddr, String> =
            reader.text(item)?.parse().map_err(|_| "must be an address and a port".to_owned());
        reader.accept(item, address, "like \"127.0.0.1:0\" or \"[::1]:3128\"; port 0 lets the system choose")
    });
    if let Some(item) =
        section.item("http").filter(|_| !listen.http.ip().is_loopback() && !listen.allow_remote)
    {
        let problem = format!("{} is not a loopback address", listen.http.ip());
        reader.complain(&(&item).into(), problem, "listen on 127.0.0.1, or add allow_remote = true");
    }
}

fn guard(reader: &mut Reader<'_>, section: &Section<'_>, config: &mut Config) {
    let guard = &mut config.guard;
    reader.set(&mut guard.reach, section, "reach", |reader, item| {
        reader.word(item, &[("local", Reach::Local), ("boundary", Reach::Boundary)], &[]).map(Some)
    });
    let classes: Vec<(&str, Class)> = Class::ALL
        .iter()
        .filter(|class| **class != Class::Public)
        .map(|class| (class.as_str(), *class))
        .collect();
    reader.set(&mut guard.deny, section, "deny", |reader, item| {
        reader.each(item, |reader, element| reader.word(element, &classes, &[]))
    });
    reader.set(&mut guard.allow_cidrs, section, "allow_cidrs", |reader, item| {
        reader.each(item, |reader, element| {
            let block = Cidr::parse(reader.text(element)?);
            reader.accept(element, block, "like \"10.0.0.0/8\" or \"fd00::/8\"")
        })
    });
    reader.set(&mut guard.ports, section, "ports", |reader, item| {
        let ports = ports(reader, item)?;
        if Reader::is_empty_list(item) {
            reader.complain(
                &item.into(),
                "opens no port at all",
                "leave it out, or name ports like [80, 443]",
            );
        }
        Some(Some(ports))
    });
    reader.set(&mut guard.deny_ports, section, "deny_ports", ports);
    reader.set(&mut guard.raw_ip, section, "raw_ip", |reader, item| {
        reader.word(item, &[("allow", true), ("deny", false)], &[])
    });
}

fn ports(reader: &mut Reader<'_>, item: &Item<'_>) -> Option<Ports> {
    let mut ports = Ports::default();
    for element in reader.list(item)? {
        if let Some(text) = reader.text_or_digits(&element) {
            let added = ports.add(&text);
            reader.accept(&element, added, "like 443 or \"8000-8999\"");
        }
    }
    Some(ports)
}

fn resolve(reader: &mut Reader<'_>, section: &Section<'_>, config: &mut Config) {
    // A file's table takes the place of the preset's, as every key does.
    config.resolve.clear();
    for (name, item) in section.items() {
        if Reader::is_table(&item) {
            let hint = format!("quote names with dots, like \"{name}.example\" = \"10.0.0.7\"");
            reader.complain(&(&item).into(), "must be an address or an array of addresses, is a table", hint);
            continue;
        }
        let pattern = fixed_name(reader, name, &item);
        let addresses = fixed_addresses(reader, &item);
        if let (Some(pattern), Some(addresses)) = (pattern, addresses) {
            if config.resolve.iter().any(|fixed| fixed.pattern == pattern) {
                reader.complain(
                    &(&item).into(),
                    "the name stands here twice",
                    "names differ in more than case",
                );
            }
            config.resolve.push(Fixed { pattern, addresses });
        }
    }
    config
        .resolve
        .sort_by_cached_key(|fixed| HostPattern { pattern: fixed.pattern.clone(), port: None }.to_string());
}

fn fixed_name(reader: &mut Reader<'_>, name: &str, item: &Item<'_>) -> Option<Pattern> {
    match HostPattern::parse(name) {
        Ok(HostPattern {
            pattern: pattern @ (Pattern::Exact(Host::Name(_)) | Pattern::OneLabel(_) | Pattern::AnyDepth(_)),
            port: None,
        }) => Some(pattern),
        Ok(_) => {
            reader.complain(
                &item.into(),
                "the key must be a name",
                "\"a.b\", \"*.b\" or \".b\", without a port",
            );
            None
        }
        Err(error) => {
            reader.complain(&item.into(), error.problem, error.hint);
            None
        }
    }
}

fn fixed_addresses(reader: &mut Reader<'_>, item: &Item<'_>) -> Option<Vec<IpAddr>> {
    let one = |reader: &mut Reader<'_>, element: &Item<'_>| {
        let text = reader.text(element)?;
        let address = text.parse::<IpAddr>().map_err(|_| format!("{text:?} is no IP address"));
        reader.accept(element, address, "like \"10.0.0.7\" or \"fd00::7\"")
    };
    if !Reader::is_list(item) {
        return one(reader, item).map(|address| vec![address]);
    }
    let addresses = reader.each(item, one)?;
    let count = reader.list(item).map_or(0, |all| all.len());
    if count == 0 || count > ADDRESSES_PER_NAME_MAX {
        let problem = format!("must name 1 to {ADDRESSES_PER_NAME_MAX} addresses");
        reader.complain(&item.into(), problem, "to refuse a host, write a [[route]] with action = \"deny\"");
        return None;
    }
    Some(addresses)
}

fn tls(reader: &mut Reader<'_>, section: &Section<'_>, config: &mut Config) {
    reader.set(&mut config.extra_roots, section, "extra_roots", |reader, item| reader.each(item, file));
}

fn file(reader: &mut Reader<'_>, item: &Item<'_>) -> Option<FileRef> {
    let path = reader.text(item)?;
    if path.is_empty() || path.contains('\0') {
        reader.complain(&item.into(), "must be the path of a file", "");
        return None;
    }
    Some(FileRef { path: path.to_owned(), place: reader.place_of(item) })
}

fn gate(reader: &mut Reader<'_>, section: &Section<'_>, config: &mut Config) {
    let words: Vec<(&str, Code)> = Code::ALL.iter().map(|code| (code.as_str(), *code)).collect();
    reader.set(&mut config.fail_on, section, "fail_on", |reader, item| {
        reader.each(item, |reader, element| reader.word(element, &words, keys::LATER_CODES))
    });
}

fn upstream(reader: &mut Reader<'_>, section: &Section<'_>, config: &mut Config) {
    for (name, item) in section.items() {
        if name == "default" {
            continue;
        }
        let good = !name.is_empty() && name.len() <= ID_BYTES_MAX && name.bytes().all(is_id_byte);
        if !good || matches!(name, "env" | "direct") {
            let hint =
                "letters, digits, \"-\", \"_\" and \".\"; `env` and `direct` have meanings of their own";
            reader.complain(&(&item).into(), format!("{name:?} cannot be the name of an upstream"), hint);
        }
        if let Some(table) = reader.section(&item, "upstream.NAME")
            && let Some(upstream) = named_upstream(reader, name, &table)
        {
            config.upstream.named.push(upstream);
        }
    }
    config.upstream.named.sort_by(|a, b| a.name.cmp(&b.name));
    let declared: Vec<&str> = section.items().into_iter().map(|(name, _)| name).collect();
    reader.set(&mut config.upstream.default, section, "default", |reader, item| match reader.text(item)? {
        "env" => Some(UpstreamChoice::Env),
        "direct" => Some(UpstreamChoice::Direct),
        name if name != "default" && declared.contains(&name) => Some(UpstreamChoice::Named(name.to_owned())),
        name => {
            let problem = format!("no [upstream.{name}] in this file");
            reader.complain(
                &item.into(),
                problem,
                "\"env\", \"direct\" or the name of a table below [upstream]",
            );
            None
        }
    });
}

fn named_upstream(reader: &mut Reader<'_>, name: &str, table: &Section<'_>) -> Option<Upstream> {
    let mut ca_file = None;
    let mut ca_optional = false;
    let mut auth = None;
    let mut no_proxy = Vec::new();
    reader.set(&mut ca_file, table, "ca_file", |reader, item| file(reader, item).map(Some));
    reader.set(&mut ca_optional, table, "ca_optional", |reader, item| reader.flag(item));
    reader.set(&mut auth, table, "auth_ref", |reader, item| {
        let place = reader.place_of(item);
        secret(reader, item).map(|reference| Some((reference, place)))
    });
    reader.set(&mut no_proxy, table, "no_proxy", |reader, item| {
        reader.each(item, |reader, element| {
            let text = reader.text(element)?;
            let entry = NoProxy::check(text).map(|()| text.to_owned());
            reader.accept(element, entry, "like \"a.test\", \".a.test:8443\", \"10.0.0.0/8\" or \"*\"")
        })
    });
    let mut fail = ();
    reader.set(&mut fail, table, "fail", |reader, item| reader.word(item, &[("closed", ())], &[]));
    let Some(item) = table.item("url") else {
        reader.complain(&table.whole("url"), "is missing", "like url = \"http://proxy.corp.test:3128\"");
        return None;
    };
    let url = proxy_url(reader, &item)?;
    if ca_file.is_some() && !url.tls {
        let hint = "the leg to an http:// proxy is not TLS; write https:// or take ca_file out";
        reader.complain(&table.whole("ca_file"), "has no effect with an http:// url", hint);
    }
    Some(Upstream {
        name: name.to_owned(),
        tls: url.tls,
        authority: url.authority,
        auth,
        ca_file,
        ca_optional,
        no_proxy,
    })
}

fn proxy_url(reader: &mut Reader<'_>, item: &Item<'_>) -> Option<ProxyUrl> {
    let url = match ProxyUrl::parse(reader.text(item)?) {
        Ok(url) => url,
        Err(error) => {
            reader.complain(&item.into(), error.problem, error.hint);
            return None;
        }
    };
    if url.userinfo.is_some() {
        let hint = "take it out of the url and point auth_ref to it, like auth_ref = \"env:PROXY_AUTH\"";
        reader.complain(&item.into(), "carries a user or password; secrets are references only", hint);
        return None;
    }
    Some(url)
}

/// A reference to a secret. A complaint never shows the value: a literal here is a secret.
fn secret(reader: &mut Reader<'_>, item: &Item<'_>) -> Option<SecretRef> {
    let text = reader.text(item)?;
    let hint = "\"env:NAME\" or \"file:PATH\"; the value there is user:password";
    match text.split_once(':') {
        Some(("env", name)) if is_variable(name) => Some(SecretRef::Env(name.to_owned())),
        Some(("file", path)) if !path.is_empty() && !path.contains('\0') => {
            Some(SecretRef::File(path.to_owned()))
        }
        Some((kind @ ("cmd" | "fd"), _)) => {
            reader.complain(&item.into(), format!("{kind}: references are not supported yet"), hint);
            None
        }
        _ => {
            reader.complain(&item.into(), "must be a reference to a secret, never the secret itself", hint);
            None
        }
    }
}

fn is_variable(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn is_id_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}

fn routes(reader: &mut Reader<'_>, item: &Item<'_>) -> Option<Vec<Route>> {
    if Reader::is_table(item) {
        reader.complain(&item.into(), "must be an array of tables", "write [[route]] with two brackets");
        return None;
    }
    let mut seen = HashSet::new();
    reader.each(item, |reader, element| {
        let table = reader.section(element, "route[]")?;
        route(reader, &table, &mut seen)
    })
}

fn route(reader: &mut Reader<'_>, table: &Section<'_>, seen: &mut HashSet<String>) -> Option<Route> {
    let id = route_id(reader, table, seen);
    let hosts = route_hosts(reader, table);
    let mut action = None;
    reader
        .set(&mut action, table, "action", |reader, item| reader.word(item, ACTIONS, &["inspect"]).map(Some));
    if table.item("action").is_none() {
        reader.complain(&table.whole("action"), "is missing", "action = \"splice\" or action = \"deny\"");
    }
    let mut reason = None;
    reader.set(&mut reason, table, "reason", |reader, item| {
        let text = reader.text(item)?;
        let good =
            text.len() <= REASON_BYTES_MAX && !text.chars().any(|c| c.is_control() || is_line_break(c));
        let problem = || format!("must be one line of at most {REASON_BYTES_MAX} bytes");
        reader.accept(item, good.then(|| Some(text.to_owned())).ok_or_else(problem), "")
    });
    let mut require_sni = false;
    reader.set(&mut require_sni, table, "require_sni", |reader, item| reader.flag(item));
    if require_sni && action == Some(Action::Deny) {
        reader.complain(&table.whole("require_sni"), "has no effect with action = \"deny\"", "take it out");
    }
    Some(Route { id: id?, hosts: hosts?, action: action?, reason, require_sni })
}

fn route_id(reader: &mut Reader<'_>, table: &Section<'_>, seen: &mut HashSet<String>) -> Option<String> {
    let Some(item) = table.item("id") else {
        reader.complain(&table.whole("id"), "is missing", "name the route; the journal calls it so");
        return None;
    };
    let id = reader.text(&item)?;
    if id.is_empty() || id.len() > ID_BYTES_MAX || !id.bytes().all(is_id_byte) {
        let problem = format!("must be 1 to {ID_BYTES_MAX} letters, digits, \"-\", \"_\" or \".\"");
        reader.complain(&(&item).into(), problem, "");
        return None;
    }
    if RESERVED_IDS.contains(&id) {
        reader.complain(&(&item).into(), format!("{id:?} is the name of a built-in rule"), "choose another");
        return None;
    }
    if !seen.insert(id.to_owned()) {
        reader.complain(&(&item).into(), format!("a route {id:?} stands above already"), "choose another");
        return None;
    }
    Some(id.to_owned())
}

fn route_hosts(reader: &mut Reader<'_>, table: &Section<'_>) -> Option<Vec<HostPattern>> {
    let Some(item) = table.item("hosts") else {
        reader.complain(&table.whole("hosts"), "is missing", "like hosts = [\"a.test\", \".b.test\"]");
        return None;
    };
    let hosts = reader.each(&item, |reader, element| match HostPattern::parse(reader.text(element)?) {
        Ok(pattern) => Some(pattern),
        Err(error) => {
            reader.complain(&element.into(), error.problem, error.hint);
            None
        }
    })?;
    if Reader::is_empty_list(&item) {
        reader.complain(&(&item).into(), "names no host", "a route without hosts would never match");
    }
    Some(hosts)
}

fn is_line_break(c: char) -> bool {
    matches!(c, '\u{2028}' | '\u{2029}')
}
