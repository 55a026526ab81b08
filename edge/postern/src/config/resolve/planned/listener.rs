//! Keys of listeners that nothing acts on yet (01 §1.3).

use std::net::IpAddr;

use super::{address, host};
use crate::config::Code;
use crate::config::block::Block;
use crate::config::context::Context;
use crate::config::value::quoted;

/// What is asked of listeners.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listener {
    /// `debug_address`.
    pub debug: Option<String>,
    /// `health_check_systemd_disabled`: the service manager is told nothing.
    pub systemd_disabled: bool,
    /// `envoy_bind_config_source_address`: where connections to upstreams come from.
    pub source: Option<IpAddr>,
    /// `envoy_bind_config_freebind`: that address may belong to nobody yet.
    pub freebind: bool,
    /// `tls_derive`: the name of a certificate that is derived from the shared secret.
    pub derived_name: Option<String>,
    /// `auto_apply_changesets`.
    pub auto_apply_changesets: bool,
    /// `session_recording_concurrency`.
    pub session_recordings: Option<u32>,
}

pub(super) fn resolve(cx: &mut Context<'_>, settings: &Block<'_>) -> Listener {
    Listener {
        debug: address(cx, settings, "debug_address"),
        systemd_disabled: settings.flag(cx, "health_check_systemd_disabled"),
        source: source(cx, settings),
        freebind: settings.flag(cx, "envoy_bind_config_freebind"),
        derived_name: host(cx, settings, "tls_derive"),
        auto_apply_changesets: settings.flag(cx, "auto_apply_changesets"),
        session_recordings: settings.number(cx, "session_recording_concurrency"),
    }
}

fn source(cx: &mut Context<'_>, settings: &Block<'_>) -> Option<IpAddr> {
    let text = settings.filled(cx, "envoy_bind_config_source_address")?;
    let address = text.value.trim().parse().ok();
    if address.is_none() {
        let what = format!("{} is no IP address", quoted(&text.value));
        cx.fatal(Code::BadAddress, &text.at, what, "write an address of this machine, without a port");
    }
    address
}
