//! What CONNECT-UDP asks for: a host and a port, which stand in a path (RFC 9298 §2).

use percent_encoding::percent_decode_str;

use super::Host;

/// The token of `Upgrade` in HTTP/1.1, and of `:protocol` in HTTP/2.
pub(crate) const CONNECT_UDP: &str = "connect-udp";

/// The host and port that a canonical path names; `None`: it is another path. An address of IPv6 has no brackets there.
pub(super) fn target(path: &str) -> Option<Host> {
    let (host, port) = path.strip_prefix(BEFORE)?.strip_suffix('/')?.split_once('/')?;
    let host = percent_decode_str(host).decode_utf8().ok()?;
    let authority = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    Host::parse(authority.as_bytes()).ok().filter(|to| to.port().is_some())
}

/// The path that names this host and port.
#[must_use]
pub fn connect_udp_path(to: &Host) -> String {
    let name = to.name().trim_start_matches('[').trim_end_matches(']').replace(':', "%3A");
    format!("{BEFORE}{name}/{}/", to.port().unwrap_or_default())
}

/// What everybody writes who is not told of another template (RFC 9298 §2).
const BEFORE: &str = "/.well-known/masque/udp/";

#[cfg(test)]
mod tests {
    use super::*;

    fn named(path: &str) -> Option<String> {
        target(path).map(|to| to.to_string())
    }

    #[test]
    fn a_host_and_a_port_are_named_in_one_way() {
        for (path, authority) in [
            ("/.well-known/masque/udp/192.0.2.6/443/", "192.0.2.6:443"),
            ("/.well-known/masque/udp/DNS.example.com/53/", "dns.example.com:53"),
            ("/.well-known/masque/udp/dns.example.com./53/", "dns.example.com:53"),
            ("/.well-known/masque/udp/2001%3Adb8%3A%3A42/443/", "[2001:db8::42]:443"),
            ("/.well-known/masque/udp/2001%3adb8%3a0%3a%3a42/443/", "[2001:db8::42]:443"),
            // As Pomerium's client writes it.
            ("/.well-known/masque/udp/2001:db8::42/443/", "[2001:db8::42]:443"),
        ] {
            assert_eq!(named(path).as_deref(), Some(authority), "{path}");
            let to = target(path).unwrap();
            assert_eq!(target(&connect_udp_path(&to)), Some(to), "there and back");
        }
        assert_eq!(
            connect_udp_path(&Host::parse(b"[2001:db8::42]:443").unwrap()),
            "/.well-known/masque/udp/2001%3Adb8%3A%3A42/443/"
        );
    }

    #[test]
    fn what_names_no_host_or_no_port_is_another_path() {
        for path in [
            "/",
            "/.well-known/masque/udp/",
            "/.well-known/masque/udp/dns.example.com/",
            "/.well-known/masque/udp/dns.example.com/53",
            "/.well-known/masque/udp/dns.example.com//",
            "/.well-known/masque/udp/dns.example.com/0/",
            "/.well-known/masque/udp/dns.example.com/053/",
            "/.well-known/masque/udp/dns.example.com/+53/",
            "/.well-known/masque/udp/dns.example.com/65536/",
            "/.well-known/masque/udp/dns.example.com/5%33/",
            "/.well-known/masque/udp/dns.example.com/53/x/",
            "/.well-known/masque/udp//53/",
            "/.well-known/masque/udp/*/53/",
            "/.well-known/masque/udp/dns.example.com:99/53/",
            "/.well-known/masque/udp/%5B%3A%3A1%5D/53/",
            "/.well-known/masque/udp/%3A%3A1%5D%3A99/53/",
            "/.well-known/masque/udp/fe80%3A%3Aa%25ee1/53/",
            "/.well-known/masque/udp/a%2Fb/53/",
            "/.well-known/masque/udp/a%00b/53/",
            "/.well-known/masque/udp/%FF/53/",
            "/.well-known/masque/ip/dns.example.com/53/",
            "/x/.well-known/masque/udp/dns.example.com/53/",
        ] {
            assert_eq!(named(path), None, "{path}");
        }
    }
}
