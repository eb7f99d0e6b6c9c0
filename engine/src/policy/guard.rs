//! The guard: of which class an address is, and whether a policy opens it.
//!
//! Pure. It judges the address that is about to be dialled, not the name. An IPv4 address in an IPv6 coat counts
//! as the IPv4 address. The metadata service and the proxy itself are never opened, whatever else a policy says.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::ranges::{Cidr, Ports};
use crate::wire::target::Host;

macro_rules! classes {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal;)+) => {
        /// What kind of place an address is.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Class { $($(#[doc = $doc])+ $name,)+ }

        impl Class {
            /// Every class.
            pub const ALL: &[Class] = &[$(Class::$name,)+];

            /// The word for it in a policy, in reasons and in the docs.
            pub fn as_str(self) -> &'static str {
                match self { $(Class::$name => $text,)+ }
            }
        }
    };
}

classes! {
    /// A cloud's metadata service: hands out credentials to whoever asks.
    Metadata = "metadata";
    /// A listen address of this proxy; `classify` cannot know them, `is_own` does.
    Own = "self";
    /// This host: 127.0.0.0/8, ::1, and the unspecified addresses, which Linux connects to this host.
    Loopback = "loopback";
    /// 169.254.0.0/16 and fe80::/10.
    LinkLocal = "link_local";
    /// RFC 1918, fc00::/7 and the former fec0::/10.
    Private = "private";
    /// Carrier-grade NAT, 100.64.0.0/10 (RFC 6598).
    Cgnat = "cgnat";
    /// 224.0.0.0/4 and ff00::/8.
    Multicast = "multicast";
    /// RFC 5737, RFC 3849 and RFC 9637.
    Documentation = "documentation";
    /// What no host should have: benchmarks, future use, broadcast, discard, unassigned.
    Reserved = "reserved";
    /// A public IPv4 address inside a v4-compatible, 6to4, Teredo or local-use NAT64 one.
    EmbeddedV4 = "embedded_v4";
    /// Everything else.
    Public = "public";
}

impl Class {
    /// The class that `word` names.
    pub fn parse(word: &str) -> Option<Class> {
        Class::ALL.iter().copied().find(|class| class.as_str() == word)
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How far a client may reach through the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// The client has the daemon's own reach: only metadata and self are refused.
    Local,
    /// The proxy is a border: only public addresses, and documentation ones, are open.
    Boundary,
}

impl Reach {
    /// The word for it in a policy.
    pub fn as_str(self) -> &'static str {
        match self {
            Reach::Local => "local",
            Reach::Boundary => "boundary",
        }
    }

    /// Ports that are open where a policy names none.
    pub fn default_ports(self) -> Ports {
        match self {
            Reach::Local => Ports::all(),
            Reach::Boundary => Ports::of(&[80, 443]),
        }
    }

    pub(super) fn refuses(self, class: Class) -> bool {
        match (self, class) {
            (_, Class::Metadata | Class::Own) => true,
            (_, Class::Public | Class::Documentation) | (Reach::Local, _) => false,
            (Reach::Boundary, _) => true,
        }
    }
}

/// What a policy opens and closes by address and port.
#[derive(Debug, Clone)]
pub struct Guard {
    /// The base set of refused classes.
    pub reach: Reach,
    /// Classes refused in addition.
    pub deny: Vec<Class>,
    /// Blocks that are open in spite of their class; never metadata or self.
    pub allow_cidrs: Vec<Cidr>,
    /// Ports that are open.
    pub ports: Ports,
    /// Ports that are closed, whatever `ports` says.
    pub deny_ports: Ports,
}

impl Guard {
    /// The class for which `ip` is refused; `opened` says whether the route in force names the address.
    pub fn refused_class(&self, ip: IpAddr, opened: impl Fn(IpAddr) -> bool) -> Option<Class> {
        let (class, judged) = judge(ip);
        if class == Class::Metadata {
            return Some(class);
        }
        let refused = self.reach.refuses(class) || self.deny.contains(&class);
        let open = || self.allow_cidrs.iter().any(|block| block.contains(judged)) || opened(judged);
        (refused && !open()).then_some(class)
    }

    /// Whether connections to the port are open without a route that names it.
    pub fn opens_port(&self, port: u16) -> bool {
        self.ports.contains(port) && !self.deny_ports.contains(port)
    }
}

/// The class of an address.
pub fn classify(ip: IpAddr) -> Class {
    judge(ip).0
}

/// The class of an address, and the address that it was judged as: the IPv4 address inside, where there is one
/// that says more than its coat.
pub fn judge(ip: IpAddr) -> (Class, IpAddr) {
    let v6 = match ip {
        IpAddr::V4(v4) => return (class_of_v4(v4), ip),
        IpAddr::V6(v6) => v6,
    };
    if is_metadata_v6(v6) {
        return (Class::Metadata, ip);
    }
    match inner(v6) {
        Some(Inner { v4, transparent }) => match class_of_v4(v4) {
            Class::Public if !transparent => (Class::EmbeddedV4, ip),
            class => (class, IpAddr::V4(v4)),
        },
        None => (class_of_v6(v6), ip),
    }
}

/// Whether connecting to `to` would reach one of the listen addresses `own`. A listener on a loopback or the
/// unspecified address is reached by every spelling of loopback; one on an interface only by its address. For a
/// listener on 0.0.0.0 or [::], `own` should list the addresses of the interfaces too.
pub fn is_own(to: SocketAddr, own: &[SocketAddr]) -> bool {
    let (class, ip) = judge(to.ip());
    own.iter().filter(|listen| listen.port() == to.port()).any(|listen| {
        let (own_class, own_ip) = judge(listen.ip());
        own_ip == ip || (own_class == Class::Loopback && class == Class::Loopback)
    })
}

/// Whether a name is one that a cloud gives its metadata service. Matters where a parent proxy resolves names;
/// elsewhere the address decides.
pub fn is_metadata_name(host: &Host) -> bool {
    const NAMES: [&str; 7] = [
        "metadata",
        "metadata.goog",
        "metadata.google.internal",
        "metadata.azure.internal",
        "metadata.tencentyun.com",
        "instance-data",
        "instance-data.ec2.internal",
    ];
    matches!(host, Host::Name(name) if NAMES.contains(&&**name))
}

/// Whether the host is this host without a resolver being asked: a loopback literal, `localhost` or a name below
/// it (RFC 6761, 6.3).
pub fn is_loopback_host(host: &Host) -> bool {
    match host {
        Host::Name(name) => &**name == "localhost" || name.ends_with(".localhost"),
        Host::V4(ip) => classify(IpAddr::V4(*ip)) == Class::Loopback,
        Host::V6(ip) => classify(IpAddr::V6(*ip)) == Class::Loopback,
    }
}

fn class_of_v4(ip: Ipv4Addr) -> Class {
    let [a, b, c, d] = ip.octets();
    match (a, b, c, d) {
        (169, 254, 169, 252..=254) if d != 253 => Class::Metadata, // most clouds; .252 is GKE's own server
        (169, 254, 170, 2 | 23) => Class::Metadata,                // ECS tasks, EKS pod identity
        (169, 254, 0, 23) => Class::Metadata,                      // Tencent
        (169, 254, 42, 42) => Class::Metadata,                     // Scaleway
        (168, 63, 129, 16) => Class::Metadata,                     // Azure's wire server
        (100, 100, 100, 200) => Class::Metadata,                   // Alibaba
        (192, 0, 0, 192) => Class::Metadata,                       // Oracle classic
        (0, 0, 0, 0) | (127, ..) => Class::Loopback,
        (169, 254, ..) => Class::LinkLocal,
        (10, ..) | (172, 16..=31, ..) | (192, 168, ..) => Class::Private,
        (100, 64..=127, ..) => Class::Cgnat,
        (224..=239, ..) => Class::Multicast,
        (192, 0, 2, _) | (198, 51, 100, _) | (203, 0, 113, _) => Class::Documentation,
        (0 | 240..=255, ..) | (198, 18 | 19, ..) | (192, 0, 0, _) | (192, 88, 99, _) => Class::Reserved,
        _ => Class::Public,
    }
}

fn is_metadata_v6(ip: Ipv6Addr) -> bool {
    matches!(
        ip.segments(),
        [0xfd00, 0x0ec2, ..] // AWS, a /32
            | [0xfd20, 0x00ce, 0, 0, 0, 0, 0, 0x0254] // Google
            | [0xfd00, 0x00c1, 0, 0, 0, 0, 0xa9fe, 0xa9fe] // Oracle
            | [0xfd00, 0x0042, 0, 0, 0, 0, 0, 0x0042] // Scaleway
            | [0xfe80, 0, 0, 0, 0, 0, 0xa9fe, 0xa9fe] // OpenStack
    )
}

fn class_of_v6(ip: Ipv6Addr) -> Class {
    match ip.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => Class::Loopback,
        [0xfe80..=0xfebf, ..] => Class::LinkLocal,
        [0xfc00..=0xfdff, ..] | [0xfec0..=0xfeff, ..] => Class::Private,
        [0xff00..=0xffff, ..] => Class::Multicast,
        [0x2001, 0x0db8, ..] | [0x3fff, 0x0000..=0x0fff, ..] => Class::Documentation,
        [0x2001, 0x0000..=0x01ff, ..] => Class::Reserved, // RFC 2928: protocol assignments
        [0x2000..=0x3fff, ..] => Class::Public,           // RFC 4291: the global unicast block in use
        _ => Class::Reserved,
    }
}

/// An IPv4 address found inside an IPv6 one.
struct Inner {
    v4: Ipv4Addr,
    /// The coat is an ordinary way to reach a public IPv4 host.
    transparent: bool,
}

fn inner(ip: Ipv6Addr) -> Option<Inner> {
    let segments = ip.segments();
    let [.., high, low] = segments;
    let last = join(high, low);
    let inner = |v4, transparent| Some(Inner { v4, transparent });
    match segments {
        [0, 0, 0, 0, 0, 0xffff, ..] => inner(last, true), // v4-mapped (RFC 4291, 2.5.5.2)
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,             // :: and ::1 are themselves
        [0, 0, 0, 0, 0, 0, ..] => inner(last, false),     // v4-compatible (RFC 4291, 2.5.5.1)
        [0x0064, 0xff9b, 0, 0, 0, 0, ..] => inner(last, true), // NAT64 (RFC 6052, 2.1)
        [0x0064, 0xff9b, 0x0001, ..] => inner(last, false), // local-use NAT64 (RFC 8215), read as a /96
        [0x2002, high, low, ..] => inner(join(high, low), false), // 6to4 (RFC 3056, 2)
        [0x2001, 0, server_high, server_low, ..] => {
            // Teredo (RFC 4380, 4): the client stands there inverted; its server must be harmless too.
            let client = join(!high, !low);
            let server = join(server_high, server_low);
            inner(if class_of_v4(client) == Class::Public { server } else { client }, false)
        }
        _ => None,
    }
}

fn join(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from_bits((u32::from(high) << 16) | u32::from(low))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn every_class_has_its_addresses() {
        let cases = [
            (
                "metadata",
                "169.254.169.254 169.254.169.252 169.254.170.2 169.254.170.23 169.254.0.23 169.254.42.42",
            ),
            ("metadata", "168.63.129.16 100.100.100.200 192.0.0.192 fd00:ec2::254 fd00:ec2::23 fd20:ce::254"),
            ("metadata", "fd00:c1::a9fe:a9fe fd00:42::42 fe80::a9fe:a9fe"),
            ("metadata", "::ffff:169.254.169.254 ::169.254.169.254 64:ff9b::a9fe:a9fe 2002:a9fe:a9fe::1"),
            ("metadata", "64:ff9b:1::a9fe:a9fe 2001:0:808:808::5601:5601 2001:0:a9fe:a9fe::f7f7:f7f7"),
            (
                "loopback",
                "127.0.0.1 127.255.255.255 ::1 0.0.0.0 :: ::ffff:127.0.0.1 64:ff9b::7f00:1 ::ffff:0.0.0.0",
            ),
            ("link_local", "169.254.0.1 169.254.169.253 fe80::1 febf::1 ::ffff:169.254.1.1"),
            (
                "private",
                "10.0.0.1 172.16.0.1 172.31.255.255 192.168.1.1 fc00::1 fdff::1 fec0::1 2002:a00:1::",
            ),
            ("cgnat", "100.64.0.1 100.127.255.255 ::ffff:100.64.0.1"),
            ("multicast", "224.0.0.1 239.255.255.255 ff02::1"),
            ("documentation", "192.0.2.1 198.51.100.1 203.0.113.1 2001:db8::1 3fff:fff::1 ::ffff:192.0.2.1"),
            ("reserved", "0.0.0.1 240.0.0.1 255.255.255.255 198.18.0.1 198.19.255.255 192.0.0.1 192.88.99.1"),
            ("reserved", "100::1 2001:2::1 2001:20::1 4000::1 5f00::1"),
            ("embedded_v4", "::8.8.8.8 2002:808:808::1 2001:0:808:808::f7f7:f7f7 64:ff9b:1::808:808"),
            (
                "public",
                "8.8.8.8 172.32.0.1 172.15.0.1 100.63.255.255 100.128.0.1 192.0.1.1 198.17.0.1 198.20.0.1",
            ),
            (
                "public",
                "2a00::1 2606:4700::1 2001:200::1 ::ffff:8.8.8.8 64:ff9b::808:808 168.63.129.17 3fff:1000::1",
            ),
        ];
        for (class, addresses) in cases {
            for address in addresses.split(' ') {
                assert_eq!(classify(ip(address)).as_str(), class, "{address}");
            }
        }
    }

    #[test]
    fn words_and_classes_agree() {
        for &class in Class::ALL {
            assert_eq!(Class::parse(class.as_str()), Some(class));
        }
    }

    fn guard(reach: Reach, deny: &[Class], allow: &[&str]) -> Guard {
        Guard {
            reach,
            deny: deny.to_vec(),
            allow_cidrs: allow.iter().map(|text| Cidr::parse(text).unwrap()).collect(),
            ports: reach.default_ports(),
            deny_ports: Ports::of(&[25]),
        }
    }

    #[test]
    fn local_refuses_metadata_and_boundary_all_but_public() {
        let local = guard(Reach::Local, &[], &[]);
        let boundary = guard(Reach::Boundary, &[], &[]);
        let strict = guard(Reach::Boundary, &[Class::Documentation], &[]);
        let cases = [
            ("169.254.169.254", true, true, true),
            ("127.0.0.1", false, true, true),
            ("10.0.0.1", false, true, true),
            ("::ffff:10.0.0.1", false, true, true),
            ("2002:808:808::1", false, true, true),
            ("192.0.2.1", false, false, true),
            ("8.8.8.8", false, false, false),
            ("64:ff9b::808:808", false, false, false),
        ];
        for (address, at_local, at_boundary, at_strict) in cases {
            let refused = |guard: &Guard| guard.refused_class(ip(address), |_| false).is_some();
            assert_eq!(refused(&local), at_local, "local {address}");
            assert_eq!(refused(&boundary), at_boundary, "boundary {address}");
            assert_eq!(refused(&strict), at_strict, "strict {address}");
        }
    }

    #[test]
    fn nothing_opens_metadata() {
        let open = guard(Reach::Boundary, &[], &["0.0.0.0/0", "::/0"]);
        assert_eq!(open.refused_class(ip("10.0.0.1"), |_| false), None);
        assert_eq!(open.refused_class(ip("fd00::1"), |_| false), None);
        for address in ["169.254.169.254", "fd00:ec2::254", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe"] {
            assert_eq!(open.refused_class(ip(address), |_| true), Some(Class::Metadata), "{address}");
        }
        let nat64 = guard(Reach::Boundary, &[], &["64:ff9b::/96"]);
        assert_eq!(nat64.refused_class(ip("64:ff9b::a00:1"), |_| false), Some(Class::Private));
    }

    #[test]
    fn own_listeners_are_found_in_every_spelling() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let cases = [
            ("127.0.0.1:3128", "127.0.0.1:3128", true),
            ("127.0.0.1:3128", "127.0.0.2:3128", true),
            ("127.0.0.1:3128", "0.0.0.0:3128", true),
            ("127.0.0.1:3128", "[::1]:3128", true),
            ("127.0.0.1:3128", "[::]:3128", true),
            ("127.0.0.1:3128", "[::ffff:127.0.0.1]:3128", true),
            ("127.0.0.1:3128", "[64:ff9b::7f00:1]:3128", true),
            ("127.0.0.1:3128", "127.0.0.1:3129", false),
            ("127.0.0.1:3128", "10.0.0.5:3128", false),
            ("0.0.0.0:3128", "127.0.0.1:3128", true),
            ("10.0.0.5:3128", "10.0.0.5:3128", true),
            ("10.0.0.5:3128", "[::ffff:10.0.0.5]:3128", true),
            ("10.0.0.5:3128", "127.0.0.1:3128", false),
        ];
        for (own, to, expected) in cases {
            assert_eq!(is_own(at(to), &[at(own)]), expected, "{to} with {own}");
        }
    }
}
