//! How names of upstreams are looked up (01 §1.4).

use std::net::SocketAddr;
use std::time::Duration;

use postern_edge::{Dns, DnsFamily, DnsServer};

use crate::config::Code;
use crate::config::block::Block;
use crate::config::context::Context;
use crate::config::value::quoted;

pub(super) fn resolve(cx: &mut Context<'_>, settings: &Block<'_>) -> Dns {
    let families = [
        ("auto", DnsFamily::Auto),
        ("v4_only", DnsFamily::V4Only),
        ("v6_only", DnsFamily::V6Only),
        ("v4_preferred", DnsFamily::V4Preferred),
        ("all", DnsFamily::All),
    ];
    // An empty text is the default of this key, which is not its first value.
    let family = settings.filled(cx, "dns_lookup_family").and(settings.find("dns_lookup_family"));
    let timeout = settings.duration(cx, "dns_query_timeout");
    let usual = Dns::default();
    Dns {
        family: family.and_then(|field| field.choice(cx, "", &families)).unwrap_or_default(),
        refresh: rate(cx, settings, "dns_refresh_rate").unwrap_or(usual.refresh),
        failure_refresh: rate(cx, settings, "dns_failure_refresh_rate").unwrap_or(usual.failure_refresh),
        // Less than a second is none, and none is left to the machine, as in the reference.
        timeout: timeout.map(|timeout| Duration::from_secs(timeout.as_secs())).filter(|timeout| !timeout.is_zero()),
        tries: settings.number(cx, "dns_query_tries").filter(|tries| *tries > 0),
        tcp: settings.flag(cx, "dns_use_tcp"),
        servers: servers(cx, settings),
    }
}

/// At least a millisecond.
fn rate(cx: &mut Context<'_>, settings: &Block<'_>, key: &str) -> Option<Duration> {
    let rate = settings.duration(cx, key)?;
    if rate < Duration::from_millis(1) {
        let what = format!("`{key}` must be a millisecond or more");
        cx.fatal(Code::BadDuration, &settings.at(key), what, "write `30s`, for example, or remove the key");
        return None;
    }
    Some(rate)
}

fn servers(cx: &mut Context<'_>, settings: &Block<'_>) -> Vec<DnsServer> {
    let mut found = Vec::new();
    for text in settings.texts(cx, "dns_resolvers").unwrap_or_default() {
        let written = text.value.trim();
        let parsed = written.split_once("://").and_then(|(scheme, address)| {
            let tcp = match scheme.to_ascii_lowercase().as_str() {
                "udp" => false,
                "tcp" => true,
                _ => return None,
            };
            let address: SocketAddr = address.parse().ok()?;
            (address.port() > 0).then_some(DnsServer { tcp, address })
        });
        if parsed.is_none() {
            let what = format!("{} is no server to ask for names", quoted(written));
            cx.fatal(Code::BadAddress, &text.at, what, "write `udp://10.0.0.53:53` or `tcp://[2001:db8::53]:53`");
        }
        found.extend(parsed);
    }
    found
}
