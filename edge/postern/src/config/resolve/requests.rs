//! How requests are made canonical, and who is believed about the client (01 §1.3).

use postern_edge::{EscapedSlashes, PathConfig, ProxyConfig, SourceAddress, UnderscoreHeaders};
use postern_policy::IpMatcher;

use super::flags::Flags;
use crate::config::Code;
use crate::config::block::Block;
use crate::config::context::Context;
use crate::config::value::{Field, quoted};

pub(super) fn resolve(cx: &mut Context<'_>, settings: &Block<'_>, flags: Flags) -> PathConfig {
    let slashes = [
        ("reject_request", EscapedSlashes::Reject),
        ("keep_unchanged", EscapedSlashes::Keep),
        ("unescape_and_redirect", EscapedSlashes::UnescapeAndRedirect),
        ("unescape_and_forward", EscapedSlashes::UnescapeAndForward),
    ];
    let underscores = [
        ("reject_request", UnderscoreHeaders::Reject),
        ("drop_header", UnderscoreHeaders::Drop),
        ("allow", UnderscoreHeaders::Allow),
    ];
    let default = PathConfig::default();
    let escaped_slashes = settings.choice(cx, "path_with_escaped_slashes_action", "", &slashes);
    let underscores = settings.choice(cx, "headers_with_underscores_action", "", &underscores);
    PathConfig {
        normalize: settings.boolean(cx, "normalize_path").unwrap_or(default.normalize),
        merge_slashes: settings.boolean(cx, "merge_slashes").unwrap_or(default.merge_slashes),
        escaped_slashes: escaped_slashes.unwrap_or_default(),
        underscores: underscores.unwrap_or_default(),
        match_any_incoming_port: flags.match_any_incoming_port,
    }
}

/// `xff_num_trusted_hops`, `xff_trusted_peers`, `skip_xff_append`, and the roots that were read before.
pub(super) fn forwarded(cx: &mut Context<'_>, settings: &Block<'_>, extra_roots: Option<Vec<u8>>) -> ProxyConfig {
    let trusted_hops = settings.number(cx, "xff_num_trusted_hops").unwrap_or(0);
    // Those that send PROXY headers are believed too.
    let proxied = settings.find("use_proxy_protocol").is_some();
    let trusted_peers = settings.find(PEERS).and_then(|field| peers(cx, field, trusted_hops, proxied));
    let skip_xff_append = settings.flag(cx, "skip_xff_append");
    ProxyConfig { trusted_hops, trusted_peers, skip_xff_append, extra_roots, ..ProxyConfig::default() }
}

const PEERS: &str = "xff_trusted_peers";

/// Addresses and ranges; none at all is nobody.
fn peers(cx: &mut Context<'_>, field: &Field<'_>, hops: u32, proxied: bool) -> Option<IpMatcher> {
    let texts = field.texts(cx)?;
    let peers = IpMatcher::of(texts.iter().map(|text| text.value.as_str()));
    let Ok(peers) = peers.map_err(|at| {
        if let Some(text) = texts.get(at) {
            let what = format!("{} is not an IP address or range", quoted(&text.value));
            let hint = "write an address such as `192.0.2.7` or a range such as `2001:db8::/32`";
            cx.fatal(Code::WrongType, &text.at, what, hint);
        }
    }) else {
        return None;
    };
    if hops == 0 && !proxied {
        let hint = "write `xff_num_trusted_hops: 1`, or as many proxies as there are before this one";
        cx.advise(Code::NoEffect, &field.at, format!("`{PEERS}` believes nobody: no hops are trusted"), hint);
    } else if peers.is_everybody() {
        let hint = "name the addresses that your proxies connect from";
        cx.advise(Code::NoEffect, &field.at, "a range that is everybody restricts nothing", hint);
    }
    Some(peers)
}

/// Where connections to upstreams come from (01 §1.3).
pub(super) fn source(cx: &mut Context<'_>, settings: &Block<'_>) -> Option<SourceAddress> {
    let freebind = settings.flag(cx, "envoy_bind_config_freebind");
    let Some(text) = settings.filled(cx, "envoy_bind_config_source_address") else {
        if freebind {
            let what = "`envoy_bind_config_freebind` has no effect without an address";
            let hint = "write `envoy_bind_config_source_address`, or remove it";
            cx.advise(Code::NoEffect, &settings.at("envoy_bind_config_freebind"), what, hint);
        }
        return None;
    };
    let Ok(ip) = text.value.trim().parse() else {
        let what = format!("{} is no IP address", quoted(&text.value));
        cx.fatal(Code::BadAddress, &text.at, what, "write an address of this machine, without a port");
        return None;
    };
    Some(SourceAddress { ip, freebind })
}
