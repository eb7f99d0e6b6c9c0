//! Sets that a policy writes as ranges: CIDR blocks and ports.
//!
//! Not here: what a block or a port means (`guard`, `host_rule`). Invariant: a `Cidr` has no bit set behind its
//! prefix, a port range is never empty and never holds port 0.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A block of addresses of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cidr {
    base: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// `ADDRESS/PREFIX`, or a bare address for a block of one. IPv6 without brackets.
    ///
    /// # Errors
    /// One line that says what is wrong and, where it can be said, what was meant.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let base: IpAddr = address.parse().map_err(|_| format!("{address:?} is no IP address"))?;
        let bits = if base.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => bits,
            Some(digits) => decimal(digits)
                .and_then(|number| u8::try_from(number).ok())
                .filter(|&number| number <= bits)
                .ok_or_else(|| format!("the prefix of {text:?} must be a number from 0 to {bits}"))?,
        };
        let cut = Self { base: masked(base, prefix), prefix };
        if cut.base != base {
            return Err(format!("{text:?} has bits set behind its prefix; write \"{cut}\""));
        }
        Ok(cut)
    }

    /// The block that holds exactly this address.
    pub fn one(ip: IpAddr) -> Self {
        Self { base: ip, prefix: if ip.is_ipv4() { 32 } else { 128 } }
    }

    /// Whether the address lies inside; an address of the other family never does.
    pub fn contains(&self, ip: IpAddr) -> bool {
        ip.is_ipv4() == self.base.is_ipv4() && masked(ip, self.prefix) == self.base
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

fn masked(ip: IpAddr, prefix: u8) -> IpAddr {
    match ip {
        IpAddr::V4(v4) => {
            let keep = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & keep))
        }
        IpAddr::V6(v6) => {
            let keep = u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & keep))
        }
    }
}

/// A set of ports.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ports {
    /// First and last of each range, in the order written.
    ranges: Vec<(u16, u16)>,
}

impl Ports {
    /// Ports 1 to 65535.
    pub fn all() -> Self {
        Self { ranges: vec![(1, u16::MAX)] }
    }

    /// Exactly these.
    pub fn of(ports: &[u16]) -> Self {
        Self { ranges: ports.iter().map(|&port| (port, port)).collect() }
    }

    /// Adds `"443"` or `"8000-8999"`.
    ///
    /// # Errors
    /// One line that says what is wrong.
    pub fn add(&mut self, text: &str) -> Result<(), String> {
        let (first, last) = match text.split_once('-') {
            Some((first, last)) => (port(first)?, port(last)?),
            None => (port(text)?, port(text)?),
        };
        if first > last {
            return Err(format!("the range {text:?} runs backwards"));
        }
        self.ranges.push((first, last));
        Ok(())
    }

    /// Whether the port is in the set.
    pub fn contains(&self, port: u16) -> bool {
        self.ranges.iter().any(|&(first, last)| (first..=last).contains(&port))
    }

    /// Whether no port is in the set.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The ranges as `add` takes them.
    pub fn texts(&self) -> impl Iterator<Item = String> {
        self.ranges
            .iter()
            .map(|&(first, last)| if first == last { first.to_string() } else { format!("{first}-{last}") })
    }
}

/// A port: 1 to 5 digits, 1 to 65535, nothing else.
///
/// # Errors
/// One line that says what is wrong.
pub fn port(text: &str) -> Result<u16, String> {
    decimal(text)
        .and_then(|number| u16::try_from(number).ok())
        .filter(|&port| port > 0)
        .ok_or_else(|| format!("{text:?} is no port; a port is a number from 1 to 65535"))
}

/// One to five decimal digits: no sign, no space. `str::parse` would take `+1`.
fn decimal(text: &str) -> Option<u32> {
    if text.is_empty() || text.len() > 5 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_hold_what_their_prefix_says() {
        let cases = [
            ("10.0.0.0/8", "10.255.255.255", true),
            ("10.0.0.0/8", "11.0.0.0", false),
            ("10.0.0.7", "10.0.0.7", true),
            ("10.0.0.7", "10.0.0.8", false),
            ("0.0.0.0/0", "255.255.255.255", true),
            ("0.0.0.0/0", "::1", false),
            ("fd00::/8", "fdff::1", true),
            ("fd00::/8", "fe00::1", false),
            ("::/0", "2001:db8::1", true),
        ];
        for (block, ip, inside) in cases {
            let block = Cidr::parse(block).unwrap();
            assert_eq!(block.contains(ip.parse().unwrap()), inside, "{block} {ip}");
            assert_eq!(Cidr::parse(&block.to_string()).unwrap(), block);
        }
    }

    #[test]
    fn what_is_no_block_is_refused() {
        for text in
            ["", "10.0.0.0/33", "10.0.0.1/8", "10/8", "10.0.0.0/", "10.0.0.0/+8", "::/129", "[::1]", "a.test"]
        {
            assert!(Cidr::parse(text).is_err(), "{text}");
        }
        assert!(Cidr::parse("10.0.0.1/8").unwrap_err().contains("\"10.0.0.0/8\""));
    }

    #[test]
    fn ports_take_numbers_and_ranges() {
        let mut ports = Ports::default();
        ports.add("443").unwrap();
        ports.add("8000-8999").unwrap();
        for (number, inside) in [(443, true), (8000, true), (8999, true), (442, false), (9000, false)] {
            assert_eq!(ports.contains(number), inside, "{number}");
        }
        for text in ["", "0", "65536", "+1", " 80", "80-", "9-8", "80-90-100", "00080", "000080", "http"] {
            let good = text == "00080"; // five digits are a port, whatever they are
            assert_eq!(Ports::default().add(text).is_ok(), good, "{text:?}");
        }
    }
}
