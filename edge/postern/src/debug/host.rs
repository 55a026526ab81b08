//! Who is meant to look: whoever reaches the address, by a name of it; no page of a browser on somebody else's behalf.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// Refuses what a page of another site asks for, also by a name of its own that it has let lead here (DNS rebinding).
pub(super) async fn meant(State(address): State<SocketAddr>, request: Request, next: Next) -> Response {
    if is_meant(address, request.headers()) {
        return next.run(request).await;
    }
    let why = "ask by `localhost` or the IP address of `debug_address`, and from no other site's page\n";
    (StatusCode::FORBIDDEN, why).into_response()
}

fn is_meant(address: SocketAddr, headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(header::HOST).into_iter();
    let (Some(Ok(host)), None) = (hosts.next().map(|host| host.to_str()), hosts.next()) else { return false };
    let own = |site: &str| site == "none" || site == "same-origin";
    let sites = headers.get_all("sec-fetch-site");
    let of_others = sites.into_iter().any(|site| !site.to_str().is_ok_and(own)) || headers.contains_key(header::ORIGIN);
    is_ours(address.ip(), host) && !of_others
}

/// Whether somebody on this machine asks.
pub(super) fn is_local(peer: SocketAddr) -> bool {
    peer.ip().to_canonical().is_loopback()
}

/// Whether a `Host` names a loopback address, or the address of the listener: any, if it listens on all.
fn is_ours(address: IpAddr, host: &str) -> bool {
    let name = if host.ends_with(']') { host } else { host.rsplit_once(':').map_or(host, |(name, _)| name) };
    if name.eq_ignore_ascii_case("localhost") {
        return true;
    }
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    let is_ours = |named: IpAddr| {
        let named = named.to_canonical();
        named.is_loopback() || named == address.to_canonical() || address.is_unspecified()
    };
    bare.parse().is_ok_and(is_ours)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderName;

    use super::*;

    fn asked(at: &str, host: &'static str, field: Option<(&'static str, &'static str)>) -> bool {
        let mut headers = HeaderMap::from_iter([(header::HOST, host.parse().unwrap())]);
        headers.extend(field.map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())));
        is_meant(at.parse().unwrap(), &headers)
    }

    #[test]
    fn s_113_the_debug_listener_is_asked_by_a_name_of_its_own_alone() {
        for host in ["localhost", "LOCALHOST:6060", "127.0.0.1:6060", "127.8.0.1", "[::1]:6060", "[::1]"] {
            assert!(asked("127.0.0.1:6060", host, None), "{host}");
            assert!(asked("10.0.0.5:6060", host, None), "{host}");
        }
        for host in ["10.0.0.5:6060", "10.0.0.5", "[::ffff:10.0.0.5]"] {
            assert!(asked("10.0.0.5:6060", host, None) && asked("0.0.0.0:6060", host, None), "{host}");
            assert!(!asked("127.0.0.1:6060", host, None), "{host}");
        }
        for host in
            ["evil.example", "evil.example:6060", "localhost.evil.example", "127.0.0.1.nip.io:6060", "", ":6060"]
        {
            assert!(!asked("127.0.0.1:6060", host, None) && !asked("0.0.0.0:6060", host, None), "{host}");
        }
        let mut twice = HeaderMap::from_iter([(header::HOST, "localhost".parse().unwrap())]);
        twice.append(header::HOST, "localhost".parse().unwrap());
        assert!(!is_meant("127.0.0.1:1".parse().unwrap(), &twice));
        assert!(!is_meant("127.0.0.1:1".parse().unwrap(), &HeaderMap::new()));
    }

    #[test]
    fn s_113_what_is_there_by_flag_is_for_this_machine_alone() {
        for (peer, local) in [
            ("127.0.0.1:9", true),
            ("127.8.0.1:9", true),
            ("[::1]:9", true),
            ("[::ffff:127.0.0.1]:9", true),
            ("10.0.0.5:9", false),
            ("[2001:db8::1]:9", false),
            ("[::ffff:10.0.0.5]:9", false),
        ] {
            assert_eq!(is_local(peer.parse().unwrap()), local, "{peer}");
        }
    }

    #[test]
    fn s_113_no_page_of_another_site_looks_into_the_process() {
        for field in [("sec-fetch-site", "none"), ("sec-fetch-site", "same-origin"), ("accept", "*/*")] {
            assert!(asked("127.0.0.1:6060", "localhost", Some(field)), "{field:?}");
        }
        for field in [
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
            ("sec-fetch-site", ""),
            ("origin", "https://evil.example"),
            ("origin", "null"),
        ] {
            assert!(!asked("127.0.0.1:6060", "localhost", Some(field)), "{field:?}");
        }
    }
}
