//! Sections of the file to domain types, one file for each section.

mod admin;
mod authenticate;
pub(super) mod autocert;
mod certificates;
mod cookies;
mod dns;
mod flags;
mod google;
mod headers;
mod identity;
mod idp;
mod limits;
mod listeners;
mod logs;
mod mtls;
pub mod planned;
mod requests;
mod routes;
mod secrets;
mod services;
mod storage;
mod upgrades;

use std::sync::Arc;

use postern_authn::AuthnConfig;
use postern_edge::{EdgeConfig, Listeners, ProxyConfig, PublicListener};
use postern_identity::Keyring;

use super::Config;
use super::block::Block;
use super::context::Context;

/// The whole configuration. Everything is resolved before anything is given up, so that all problems are told.
pub(super) fn config(cx: &mut Context<'_>, settings: &Block<'_>) -> Option<Config> {
    let role = services::resolve(cx, settings);
    let flags = flags::resolve(cx, settings);
    let secrets = secrets::resolve(cx, settings, role);
    let keys = identity::signing_keys(cx, settings, &secrets);
    let listeners = listeners::resolve(cx, settings);
    let plain = matches!(&listeners, Some(Listeners { public: PublicListener::Plain { .. }, .. }));
    let ordered = autocert::is_on(cx, settings, plain);
    let certificates = certificates::resolve(cx, settings, &secrets, (plain, ordered));
    let extra_roots = certificates::authorities(cx, settings, certificates.authority);
    let (certificates, certified) = (certificates.certificates, certificates.names);
    let cookies = cookies::resolve(cx, settings);
    let (limits, drain) = limits::resolve(cx, settings);
    let timeouts = listeners::timeouts(cx, settings, drain);
    // Nobody trusts what an authority issues for trying out: a browser that was promised more would be kept out for a year.
    let promises = certificates::configured(settings) && !(ordered && settings.flag(cx, "autocert_use_staging"));
    let response_headers = headers::global(cx, settings, promises);
    let identity = identity::resolve(cx, settings, flags);
    let mut idps = idp::resolve(cx, settings, role);
    let request = requests::resolve(cx, settings, flags);
    let upgrades = upgrades::global(cx, settings);
    let mut mtls = mtls::resolve(cx, settings, plain);
    let token_format = planned::token_format(cx, settings).unwrap_or_default();
    planned::resolve(cx, settings, flags, token_format);
    let google = google::resolve(cx, settings);
    let freshness = storage::freshness(cx, settings);
    let routes = routes::resolve(
        cx,
        settings,
        (&mut idps, &mut mtls),
        &routes::Defaults {
            upstream_timeout: timeouts.upstream,
            response_headers: &response_headers,
            identity: &identity,
            normalize: request.normalize,
            fail_open_identity: flags.fail_open_identity,
            static_window: freshness.window,
            upgrades: &upgrades,
        },
    );
    cookies::tell_outsiders(cx, settings, &cookies, &routes.list);
    let authenticate = authenticate::resolve(cx, settings, &routes, (role, &idps));
    if let Some(authenticate) = &authenticate {
        routes.tell_of_sign_in_host(cx, &authenticate.url);
        let domain = cookies.edge.attributes.domain.as_deref();
        routes.tell_of_dependencies(cx, (&authenticate.url, domain), flags.match_any_incoming_port);
    }
    let known = autocert::Known {
        routes: &routes,
        role,
        authenticate: authenticate.as_ref().map(|authenticate| &authenticate.url),
        listeners: listeners.as_ref(),
        certified: &certified,
    };
    let autocert = autocert::resolve(cx, settings, ordered, &known);
    idps.finish(cx, settings, &routes.list);
    let sign_out_redirect = settings.url(cx, "signout_redirect_url");
    let storage = storage::resolve(cx, settings, freshness, role);
    storage::refuse_unshared(cx, settings, storage.as_ref(), role);
    let admin = admin::resolve(cx, settings, secrets.is_configured);
    let tells_manager = !settings.flag(cx, "health_check_systemd_disabled");
    let log_levels = logs::levels(cx, settings);
    let logs = logs::fields(cx, settings);
    let proxy = ProxyConfig {
        breakers: routes::breakers(cx, settings),
        dns: dns::resolve(cx, settings),
        source: requests::source(cx, settings),
        ..requests::forwarded(cx, settings, extra_roots.clone())
    };

    let keyring = Arc::new(Keyring::derive_with(&secrets.shared, &secrets.accepted, &secrets.cookie));
    let authenticate = authenticate?;
    let authn = AuthnConfig {
        url: authenticate.url.clone(),
        keyring: Arc::clone(&keyring),
        cookie_name: cookies.edge.name.clone(),
        cookie: cookies.edge.attributes.clone(),
        session_lifetime: cookies.lifetime,
        idps: idps.list,
        sign_out_redirect,
        extra_roots,
        programs: authenticate.programs.clone(),
        hosts: Arc::new(authenticate::Served::by(&routes.list, &routes.own_hosts, flags.match_any_incoming_port)),
    };
    let edge = EdgeConfig {
        listeners: listeners?,
        certificates,
        downstream_mtls: mtls.listener(),
        authenticate,
        cookie: cookies.edge,
        keyring,
        identity: identity.with_keys(keys?),
        request,
        proxy,
        timeouts,
        limits,
        logs,
        response_headers,
        routes: routes.list,
        own_hosts: routes.own_hosts,
    };
    Some(Config {
        role,
        edge,
        places: routes.places,
        authn,
        storage: storage?,
        session_max_age: freshness.max_age,
        admin: admin?,
        logs: log_levels,
        google,
        autocert,
        watched: Vec::new(),
        tells_manager,
        hot_reload: flags.hot_reload,
        debug_admin: flags.debug_admin,
        dump: None,
    })
}
