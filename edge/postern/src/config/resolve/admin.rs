//! `metrics_address` and its kin, `health_check_addr` and `debug_address` (01 §1.3, §1.10).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::listeners;
use crate::config::block::Block;
use crate::config::context::Context;
use crate::config::value::{Spanned, quoted};
use crate::config::{AdminConfig, BasicAuth, Code};

/// `health_check_addr` unless written.
const HEALTH: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 28080);

pub(super) fn resolve(cx: &mut Context<'_>, settings: &Block<'_>, shared_secret: bool) -> Option<AdminConfig> {
    let metrics = settings.filled(cx, "metrics_address").map(|text| address(cx, &text, true)).transpose();
    let health = settings.filled(cx, "health_check_addr").map(|text| address(cx, &text, false)).transpose();
    let debug = settings.filled(cx, "debug_address").map(|text| debug(cx, &text)).transpose();
    Some(AdminConfig {
        metrics_auth: auth(cx, settings),
        installation: settings.filled(cx, "installation_id").map(|text| text.value),
        metrics: metrics.ok()?,
        health: health.ok()?.unwrap_or(HEALTH),
        debug: debug.ok()?,
        shared_secret,
    })
}

/// `metrics_basic_auth`: base64 of `user:password`.
fn auth(cx: &mut Context<'_>, settings: &Block<'_>) -> Option<BasicAuth> {
    let text = settings.filled(cx, "metrics_basic_auth")?;
    let pair = settings.find("metrics_basic_auth")?.base64(cx)?;
    let auth = BasicAuth::of(&pair);
    if auth.is_none() {
        let hint = "encode `user:password` with `printf user:password | base64`";
        cx.fatal(Code::BadSecret, &text.at, "this is not a user and a password with a colon between them", hint);
    }
    auth
}

/// `debug_address`. Only an address that is written is one of the network: a port alone is this machine's.
fn debug(cx: &mut Context<'_>, text: &Spanned<String>) -> Result<SocketAddr, Refused> {
    let here = text.value.starts_with(':').then(|| format!("127.0.0.1{}", text.value));
    let found = listeners::parse(here.as_ref().unwrap_or(&text.value), None);
    let found = found.map(|all| all.iter().find(|address| address.is_ipv4()).or(all.first()).copied());
    let address = match found.map(|address| address.filter(|address| address.port() > 0)) {
        Ok(Some(address)) => address,
        Ok(None) => {
            listeners::refuse(cx, &text.at, &text.value, "it needs a port from 1 to 65535");
            return Err(Refused);
        }
        Err(error) => {
            listeners::refuse(cx, &text.at, &text.value, error);
            return Err(Refused);
        }
    };
    if !address.ip().is_loopback() {
        let what = "whoever reaches this address may look into the process, without a password";
        let hint = format!("write `127.0.0.1:{}`, and come through SSH or `kubectl port-forward`", address.port());
        cx.advise(Code::BadAddress, &text.at, what, hint);
    }
    Ok(address)
}

/// It was told why.
#[derive(Debug)]
struct Refused;

/// One address. A host that is no IP address means every interface where `any` says so (01 §1.10), but for `localhost`.
fn address(cx: &mut Context<'_>, text: &Spanned<String>, any: bool) -> Result<SocketAddr, Refused> {
    let port = text.value.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    let Some(port) = port.filter(|port| *port > 0) else {
        listeners::refuse(cx, &text.at, &text.value, "it needs a port from 1 to 65535");
        return Err(Refused);
    };
    if let Ok(address) = text.value.parse() {
        return Ok(address);
    }
    let unspecified = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let host = text.value.rsplit_once(':').map_or("", |(host, _)| host);
    if any && !host.is_empty() && host.chars().all(|c| c.is_ascii_graphic()) && host.parse::<IpAddr>().is_err() {
        if host.eq_ignore_ascii_case("localhost") {
            return Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        }
        let what = format!("{} is no IP address: metrics are served on all interfaces, as in Pomerium", quoted(host));
        let hint = format!("write `127.0.0.1:{port}` for this machine alone, or `:{port}` for all interfaces");
        cx.advise(Code::BadAddress, &text.at, what, hint);
        return Ok(unspecified);
    }
    match listeners::parse(&text.value, None) {
        Ok(_) if any => Ok(unspecified),
        Ok(addresses) => Ok(addresses.into_iter().find(SocketAddr::is_ipv4).unwrap_or(unspecified)),
        Err(error) => {
            listeners::refuse(cx, &text.at, &text.value, error);
            Err(Refused)
        }
    }
}
