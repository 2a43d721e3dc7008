//! Where the library may connect to. Decided by the address that is really connected to, never by the
//! name.
//!
//! Sources: the IANA special-purpose address registries for IPv4 and IPv6 (RFC 6890); RFC 6052 and
//! RFC 8215 (NAT64), RFC 3056 (6to4), RFC 4380 (Teredo), RFC 5214 (ISATAP), RFC 7915 (SIIT).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::error::{Error, Kind, Result};

/// Addresses that no mail server has, and metadata services of clouds, are always refused. Private
/// networks are where on-premises Exchange lives, so they are allowed unless the plugin's
/// configuration says `"private_networks": "deny"`: then only globally reachable addresses are left.
#[derive(Clone, Debug, Default)]
pub struct Egress {
    pub deny_private_networks: bool,
}

impl Egress {
    pub fn check(&self, host: &str, address: IpAddr) -> Result<()> {
        match reach(address) {
            Reach::Global => return Ok(()),
            Reach::Private if !self.deny_private_networks => return Ok(()),
            Reach::Private | Reach::Never => {}
        }
        Err(Error::new(Kind::Refused, format!("Connections to {host} ({address}) are not allowed here.")).remedy(
            "Use the public name of the mail server, or ask the operator of this helpdesk to allow the address.",
        ))
    }
}

impl Egress {
    /// Those of `addresses` that may be connected to.
    ///
    /// # Errors
    /// `Refused` when all are refused; `Transient` when the name has none.
    pub fn permitted(&self, host: &str, mut addresses: Vec<SocketAddr>) -> Result<Vec<SocketAddr>> {
        let mut refusal = None;
        addresses.retain(|address| self.check(host, address.ip()).map_err(|refused| refusal = Some(refused)).is_ok());
        if addresses.is_empty() {
            return Err(refusal.unwrap_or_else(|| {
                Error::new(Kind::Transient, format!("The name {host} has no address."))
                    .remedy("Check the server name and this machine's DNS.")
            }));
        }
        Ok(addresses)
    }
}

/// From good to bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    /// Globally reachable, as the IANA registries call it.
    Global,
    /// Of a network of one's own: private use, loopback, shared address space, translators.
    Private,
    /// No mail server has it, or a metadata service does.
    Never,
}

/// An IPv6 address that carries an IPv4 address is no better than the address that it carries.
fn reach(address: IpAddr) -> Reach {
    match address {
        IpAddr::V4(v4) => reach_v4(v4),
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => reach_v4(v4),
            None => embedded(v6).into_iter().map(reach_v4).fold(reach_v6(v6), Ord::max),
        },
    }
}

/// Metadata services that have no link-local address: Alibaba, Azure (WireServer), Oracle.
const METADATA_V4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(192, 0, 0, 192)];
/// Amazon, Google, and Amazon's DNS and time beside them.
const METADATA_V6: [Ipv6Addr; 4] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x253),
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x123),
];

/// Network, length of its prefix, and what it is. The longest prefix decides, as in the registry.
type Network = (u128, u32, Reach);

const NETWORKS_V4: [Network; 18] = [
    v4([0, 0, 0, 0], 8, Reach::Never),          // "this network"
    v4([10, 0, 0, 0], 8, Reach::Private),       // private use
    v4([100, 64, 0, 0], 10, Reach::Private),    // shared address space
    v4([127, 0, 0, 0], 8, Reach::Private),      // loopback
    v4([169, 254, 0, 0], 16, Reach::Never),     // link-local; most metadata services
    v4([172, 16, 0, 0], 12, Reach::Private),    // private use
    v4([192, 0, 0, 0], 24, Reach::Never),       // IETF protocol assignments
    v4([192, 0, 0, 9], 32, Reach::Global),      // Port Control Protocol anycast
    v4([192, 0, 0, 10], 32, Reach::Global),     // TURN anycast
    v4([192, 0, 2, 0], 24, Reach::Never),       // documentation
    v4([192, 88, 99, 0], 24, Reach::Never),     // 6to4 relay anycast, deprecated
    v4([192, 168, 0, 0], 16, Reach::Private),   // private use
    v4([198, 18, 0, 0], 15, Reach::Private),    // benchmarking; also used inside networks
    v4([198, 51, 100, 0], 24, Reach::Never),    // documentation
    v4([203, 0, 113, 0], 24, Reach::Never),     // documentation
    v4([224, 0, 0, 0], 4, Reach::Never),        // multicast
    v4([240, 0, 0, 0], 4, Reach::Never),        // reserved
    v4([255, 255, 255, 255], 32, Reach::Never), // limited broadcast
];

/// Only 2000::/3 is global unicast space; the rest is reserved.
const NETWORKS_V6: [Network; 21] = [
    v6([0, 0, 0, 0, 0, 0, 0, 0], 0, Reach::Never),            // not assigned
    v6([0, 0, 0, 0, 0, 0, 0, 1], 128, Reach::Private),        // loopback
    v6([0, 0, 0, 0, 0xffff, 0, 0, 0], 96, Reach::Private),    // IPv4-translated (SIIT)
    v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96, Reach::Global),  // NAT64, well-known prefix
    v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48, Reach::Private), // NAT64, local use
    v6([0x2000, 0, 0, 0, 0, 0, 0, 0], 3, Reach::Global),      // global unicast
    v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23, Reach::Never),      // IETF protocol assignments
    v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 32, Reach::Private),    // Teredo
    v6([0x2001, 1, 0, 0, 0, 0, 0, 1], 128, Reach::Global),    // Port Control Protocol anycast
    v6([0x2001, 1, 0, 0, 0, 0, 0, 2], 128, Reach::Global),    // TURN anycast
    v6([0x2001, 1, 0, 0, 0, 0, 0, 3], 128, Reach::Global),    // DNS-SD registration anycast
    v6([0x2001, 3, 0, 0, 0, 0, 0, 0], 32, Reach::Global),     // AMT
    v6([0x2001, 4, 0x112, 0, 0, 0, 0, 0], 48, Reach::Global), // AS112
    v6([0x2001, 0x20, 0, 0, 0, 0, 0, 0], 28, Reach::Global),  // ORCHIDv2
    v6([0x2001, 0x30, 0, 0, 0, 0, 0, 0], 28, Reach::Global),  // drone remote id
    v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32, Reach::Never),  // documentation
    v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16, Reach::Private),    // 6to4
    v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20, Reach::Never),      // documentation
    v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7, Reach::Private),     // unique local
    v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10, Reach::Never),      // link-local
    v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10, Reach::Private),    // site-local, deprecated
];

const fn v4(octets: [u8; 4], length: u32, reach: Reach) -> Network {
    (u32::from_be_bytes(octets) as u128, length, reach)
}

const fn v6(segments: [u16; 8], length: u32, reach: Reach) -> Network {
    let [a, b, c, d, e, f, g, h] = segments;
    (Ipv6Addr::new(a, b, c, d, e, f, g, h).to_bits(), length, reach)
}

fn reach_v4(address: Ipv4Addr) -> Reach {
    if METADATA_V4.contains(&address) {
        return Reach::Never;
    }
    longest(&NETWORKS_V4, u128::from(address.to_bits()), 32).unwrap_or(Reach::Global)
}

fn reach_v6(address: Ipv6Addr) -> Reach {
    if METADATA_V6.contains(&address) {
        return Reach::Never;
    }
    longest(&NETWORKS_V6, address.to_bits(), 128).unwrap_or(Reach::Never)
}

fn longest(networks: &[Network], address: u128, bits: u32) -> Option<Reach> {
    let within = |&&(network, length, _): &&Network| {
        (network ^ address).checked_shr(bits - length).is_none_or(|differs| differs == 0)
    };
    networks.iter().filter(within).max_by_key(|(_, length, _)| *length).map(|(_, _, reach)| *reach)
}

/// The IPv4 addresses that an IPv6 address carries, by every scheme that it may be of.
fn embedded(address: Ipv6Addr) -> Vec<Ipv4Addr> {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let of = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    match (a, b, c) {
        // IPv4-compatible; :: and ::1 carry nothing.
        (0, 0, 0) if [d, e, f] == [0; 3] && g != 0 => vec![of(g, h)],
        (0, 0, 0) if [d, e, f] == [0, 0xffff, 0] => vec![of(g, h)],
        (0x64, 0xff9b, 0) => vec![of(g, h)],
        // Which length the operator chose is not known: any that may carry an address counts.
        (0x64, 0xff9b, 1) => {
            // RFC 6052 2.2, for /96, /48, /56 and /64: bits 64 to 71 stay empty.
            let candidates =
                [of(g, h), of(d, e << 8 | f >> 8), of(d << 8 | e & 0xff, f), of(e << 8 | f >> 8, f << 8 | g >> 8)];
            // One that begins with 0 is the empty rest of another length.
            candidates.into_iter().filter(|v4| v4.octets()[0] != 0).collect()
        }
        (0x2002, ..) => vec![of(b, c)],
        // The server, and the client with its bits turned over.
        (0x2001, 0, _) => vec![of(c, d), of(!g, !h)],
        _ if matches!(e, 0 | 0x200) && f == 0x5efe => vec![of(g, h)],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decided by the function alone; nothing is connected to.
    #[test]
    fn only_what_the_registries_call_globally_reachable_is_left_when_private_networks_are_denied() {
        let table: [(Reach, &[&str]); 3] = [
            (
                Reach::Global,
                &[
                    "93.184.215.14",
                    "8.8.8.8",
                    "100.63.255.255",
                    "100.128.0.1",
                    "172.15.0.1",
                    "172.32.0.1",
                    "198.17.255.255",
                    "198.20.0.1",
                    "192.0.0.9",
                    "223.255.255.255",
                    "::ffff:8.8.8.8",
                    "2606:4700::6810:84e5",
                    "2a00:1450:4001:80b::200e",
                    "64:ff9b::8.8.8.8",
                    "2001:4860:4860::8888",
                    "2001:1::1",
                    "2001:20::1",
                    "2001:200::1",
                ],
            ),
            (
                Reach::Private,
                &[
                    "10.1.2.3",
                    "127.0.0.1",
                    "127.255.255.254",
                    "172.16.0.1",
                    "172.31.255.255",
                    "192.168.1.1",
                    "100.64.0.1",
                    "198.18.0.1",
                    "198.19.255.255",
                    "::1",
                    "fd00::1",
                    "fc00::1",
                    "fec0::1",
                    "::ffff:10.0.0.1",
                    "::ffff:0:127.0.0.1",
                    "::ffff:0:8.8.8.8",
                    "64:ff9b::127.0.0.1",
                    "64:ff9b::10.0.0.1",
                    "64:ff9b:1::8.8.8.8",
                    "64:ff9b:1:808:8:800::",
                    "2002:7f00:1::1",
                    "2002:808:808::1",
                    "2002:c0a8:101::1",
                    "2001:0:4136:e378:8000:63bf:f7f7:f7f7",
                    "2600::5efe:10.0.0.1",
                    "2600::200:5efe:192.168.0.1",
                ],
            ),
            (
                Reach::Never,
                &[
                    "0.0.0.0",
                    "0.1.2.3",
                    "169.254.169.254",
                    "169.254.170.2",
                    "100.100.100.200",
                    "168.63.129.16",
                    "192.0.0.192",
                    "192.0.0.1",
                    "192.0.2.1",
                    "192.88.99.1",
                    "198.51.100.7",
                    "203.0.113.9",
                    "224.0.0.1",
                    "239.1.1.1",
                    "240.0.0.1",
                    "255.255.255.255",
                    "::",
                    "::127.0.0.1",
                    "::8.8.8.8",
                    "::ffff:169.254.169.254",
                    "::ffff:0:169.254.169.254",
                    "64:ff9b::169.254.169.254",
                    "64:ff9b::a9fe:a9fe",
                    "64:ff9b::100.100.100.200",
                    "64:ff9b:1::169.254.169.254",
                    "64:ff9b:1:a9fe:a9:fe00::",
                    "2002:a9fe:a9fe::1",
                    "2002:a83f:8110::1",
                    "2001:0:a9fe:a9fe:8000:63bf:f7f7:f7f7",
                    "2001:0:4136:e378:8000:63bf:5601:5601",
                    "2600::5efe:169.254.169.254",
                    "fe80::1",
                    "fe80::5efe:10.0.0.1",
                    "ff02::1",
                    "fd00:ec2::254",
                    "fd00:ec2::253",
                    "fd20:ce::254",
                    "2001:db8::1",
                    "2001:2::1",
                    "2001:10::1",
                    "3fff::1",
                    "100::1",
                    "5f00::1",
                    "4000::1",
                    "8000::1",
                ],
            ),
        ];
        let (allow, deny) = (Egress::default(), Egress { deny_private_networks: true });
        for (expected, addresses) in table {
            for text in addresses {
                let address: IpAddr = text.parse().unwrap();
                assert_eq!(reach(address), expected, "{text}");
                assert_eq!(deny.check("x", address).is_ok(), expected == Reach::Global, "{text}");
                assert_eq!(allow.check("x", address).is_ok(), expected != Reach::Never, "{text}");
            }
        }
    }
}
