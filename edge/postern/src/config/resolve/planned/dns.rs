//! How names of upstreams are looked up (01 §1.4).

use std::net::SocketAddr;
use std::time::Duration;

use crate::config::Code;
use crate::config::block::Block;
use crate::config::context::Context;
use crate::config::value::quoted;

/// `dns_*`. What is `None` is left to the resolver.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dns {
    /// `dns_lookup_family`.
    pub family: DnsFamily,
    /// `dns_refresh_rate`; `None` is the time to live of the record.
    pub refresh: Option<Duration>,
    /// `dns_failure_refresh_rate`.
    pub failure_refresh: Option<Duration>,
    /// `dns_query_timeout`, in whole seconds.
    pub timeout: Option<Duration>,
    /// `dns_query_tries`.
    pub tries: Option<u32>,
    /// `dns_udp_max_queries`.
    pub udp_max_queries: Option<u32>,
    /// `dns_use_tcp`.
    pub tcp: bool,
    /// `dns_resolvers`; none: the system's.
    pub resolvers: Vec<DnsResolver>,
}

/// `dns_lookup_family`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DnsFamily {
    /// IPv6 first, else IPv4.
    Auto,
    /// IPv4 alone.
    V4Only,
    /// IPv6 alone.
    V6Only,
    /// IPv4 first, else IPv6.
    #[default]
    V4Preferred,
    /// Both.
    All,
}

/// One server to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DnsResolver {
    /// Over TCP from the beginning.
    pub tcp: bool,
    /// Where.
    pub address: SocketAddr,
}

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
    Dns {
        family: family.and_then(|field| field.choice(cx, "", &families)).unwrap_or_default(),
        refresh: rate(cx, settings, "dns_refresh_rate"),
        failure_refresh: rate(cx, settings, "dns_failure_refresh_rate"),
        timeout: timeout.map(|timeout| Duration::from_secs(timeout.as_secs())),
        tries: settings.number(cx, "dns_query_tries"),
        udp_max_queries: settings.number(cx, "dns_udp_max_queries"),
        tcp: settings.flag(cx, "dns_use_tcp"),
        resolvers: resolvers(cx, settings),
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

fn resolvers(cx: &mut Context<'_>, settings: &Block<'_>) -> Vec<DnsResolver> {
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
            (address.port() > 0).then_some(DnsResolver { tcp, address })
        });
        if parsed.is_none() {
            let what = format!("{} is no server to ask for names", quoted(written));
            cx.fatal(Code::BadAddress, &text.at, what, "write `udp://10.0.0.53:53` or `tcp://[2001:db8::53]:53`");
        }
        found.extend(parsed);
    }
    found
}
