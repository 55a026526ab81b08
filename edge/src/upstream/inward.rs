//! Addresses that a name may not lead connections to: this machine, and what clouds tell of it, which nobody meant who wrote a
//! name (S-105).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether a `host` that is a name leads inward. What the configuration writes out is meant.
pub(super) fn leads_inward(host: &str, address: IpAddr) -> bool {
    let named = host.parse::<IpAddr>().is_ok() || host.eq_ignore_ascii_case("localhost");
    !named && is_inward(address)
}

/// Tells that it does.
pub(super) fn tell(route: &str, host: &str, address: IpAddr) {
    tracing::warn!(postern.route = route, upstream.host = host, %address,
        "a tunnel may lead to this machine only where its route names it");
}

fn is_inward(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local() || v4.is_unspecified() || METADATA_V4.contains(&v4),
        IpAddr::V6(v6) => {
            let inward = v6.is_loopback() || v6.is_unicast_link_local() || v6.is_unspecified();
            inward || METADATA_V6.contains(&v6) || translated(v6).is_some_and(|v4| is_inward(v4.into()))
        }
    }
}

/// The address of IPv4 that a gateway between both (NAT64) makes of it (RFC 6052 §2.1).
const fn translated(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    let [0x64, 0xff9b, 0, 0, 0, 0, high, low] = v6.segments() else { return None };
    let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
    Some(Ipv4Addr::new(a, b, c, d))
}

/// Where clouds tell of their machines over IPv4, other than at link-local addresses: Alibaba Cloud, Oracle Cloud and Azure.
const METADATA_V4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(192, 0, 0, 192), Ipv4Addr::new(168, 63, 129, 16)];
/// And over IPv6: Amazon and Google.
const METADATA_V6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s_105_no_name_leads_inward_and_what_is_written_out_does() {
        for (address, inward) in [
            ("127.0.0.1", true),
            ("127.8.8.8", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("0.0.0.0", true),
            ("::", true),
            ("::ffff:0.0.0.0", true),
            ("169.254.169.254", true),
            ("169.254.0.1", true),
            ("::ffff:169.254.169.254", true),
            ("fe80::1", true),
            ("100.100.100.200", true),
            ("::ffff:100.100.100.200", true),
            ("192.0.0.192", true),
            ("168.63.129.16", true),
            ("64:ff9b::169.254.169.254", true),
            ("64:ff9b::127.0.0.1", true),
            ("64:ff9b::10.0.0.5", false),
            ("64:ff9b:1::127.0.0.1", false),
            ("fd00:ec2::254", true),
            ("fd20:ce::254", true),
            ("10.0.0.5", false),
            ("100.100.100.201", false),
            ("168.63.129.17", false),
            ("192.0.0.193", false),
            ("fd00:ec2::253", false),
            ("2001:db8::1", false),
        ] {
            let parsed = address.parse().unwrap();
            assert_eq!(leads_inward("db.internal", parsed), inward, "{address}");
            assert!(!leads_inward(address, parsed) && !leads_inward("localhost", parsed), "{address}: it is named");
        }
    }
}
