//! `[resolve]`: fixed answers before DNS.
//!
//! Not here: resolution itself. The most specific line wins: the name itself, then the longest base; of `*.b`
//! and `.b` the first. Order in the file does not matter, as TOML tables have none.

use std::net::IpAddr;
use std::sync::Arc;

use ahash::AHashMap;

use super::config::Fixed;
use super::host_rule::Pattern;
use crate::wire::target::Host;

type Names = AHashMap<Box<str>, Arc<[IpAddr]>>;

/// Names with fixed addresses.
#[derive(Debug, Default)]
pub(super) struct FixedNames {
    exact: Names,
    one_label: Names,
    any_depth: Names,
}

impl FixedNames {
    pub(super) fn new(lines: &[Fixed]) -> Self {
        let mut names = Self::default();
        for Fixed { pattern, addresses } in lines {
            let (map, key) = match pattern {
                Pattern::Exact(Host::Name(name)) => (&mut names.exact, name),
                Pattern::OneLabel(base) => (&mut names.one_label, base),
                Pattern::AnyDepth(base) => (&mut names.any_depth, base),
                Pattern::Exact(Host::V4(_) | Host::V6(_)) | Pattern::Label(_) | Pattern::Net(_) => continue,
            };
            map.insert(key.clone(), addresses.as_slice().into());
        }
        names
    }

    pub(super) fn addresses(&self, host: &Host) -> Option<Arc<[IpAddr]>> {
        let Host::Name(name) = host else { return None };
        if let Some(addresses) = self.exact.get(name).or_else(|| self.any_depth.get(name)) {
            return Some(addresses.clone());
        }
        let mut front_is_one_label = true;
        let mut rest: &str = name;
        while let Some((_, base)) = rest.split_once('.') {
            let one = front_is_one_label.then(|| self.one_label.get(base)).flatten();
            if let Some(addresses) = one.or_else(|| self.any_depth.get(base)) {
                return Some(addresses.clone());
            }
            (front_is_one_label, rest) = (false, base);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    #[test]
    fn the_most_specific_line_wins() {
        let text = r#"
            [resolve]
            "a.x.test" = "10.0.0.1"
            "*.x.test" = ["10.0.0.2", "fd00::2"]
            ".x.test" = "10.0.0.3"
            ".y.x.test" = "10.0.0.4"
        "#;
        let names = FixedNames::new(&Config::parse(text, "t").unwrap().resolve);
        let cases = [
            ("a.x.test", Some("10.0.0.1")),
            ("b.x.test", Some("10.0.0.2")),
            ("x.test", Some("10.0.0.3")),
            ("c.b.x.test", Some("10.0.0.3")),
            ("y.x.test", Some("10.0.0.4")),
            ("z.y.x.test", Some("10.0.0.4")),
            ("test", None),
            ("ax.test", None),
        ];
        for (name, expected) in cases {
            let found = names.addresses(&Host::Name(name.into()));
            assert_eq!(found.map(|ips| ips[0]), expected.map(|ip| ip.parse().unwrap()), "{name}");
        }
        assert_eq!(names.addresses(&Host::Name("b.x.test".into())).unwrap().len(), 2);
        assert_eq!(names.addresses(&Host::V4([10, 0, 0, 1].into())), None);
    }
}
