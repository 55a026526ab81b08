//! Certificates from an authority (01 §1.5).

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use postern_edge::Listeners;
use postern_identity::Secret;
use url::{Host, Url};

use super::planned::{authorities, one_of};
use super::routes::Routes;
use crate::config::block::Block;
use crate::config::context::Context;
use crate::config::value::quoted;
use crate::config::{At, Code, Role};

/// What is ordered, of whom, and where it is kept.
#[derive(Debug, Clone)]
pub struct Autocert {
    /// `autocert_ca`, else that of `autocert_use_staging`, else the public one.
    pub directory: Url,
    /// `autocert_email`.
    pub email: Option<String>,
    /// `autocert_eab_key_id` and `autocert_eab_mac_key`.
    pub account: Option<ExternalAccount>,
    /// `autocert_dir`.
    pub folder: PathBuf,
    /// `autocert_trusted_ca(_file)`, as PEM: who vouches for the authority itself, beside the system's roots.
    pub trusted_ca: Option<Vec<u8>>,
    /// `autocert_must_staple`: what is ordered is worth nothing without an OCSP staple.
    pub must_staple: bool,
    /// Authorities may look at the listener that sends everybody to https.
    pub answers_http: bool,
    /// The names that need a certificate, in lower case, each once.
    pub names: Vec<String>,
}

/// An account that the authority knows from elsewhere.
#[derive(Debug, Clone)]
pub struct ExternalAccount {
    /// Its name.
    pub key_id: String,
    /// Its key.
    pub mac_key: Secret<Vec<u8>>,
}

impl ExternalAccount {
    fn is_same(&self, other: &Self) -> bool {
        self.key_id == other.key_id && postern_identity::same(self.mac_key.expose(), other.mac_key.expose())
    }
}

impl Autocert {
    /// Whether certificates are ordered in the same way; the names may differ.
    #[must_use]
    pub fn orders_as(&self, other: &Self) -> bool {
        let flags = |one: &Self| (one.answers_http, one.must_staple);
        let key = |one: &Self| {
            (one.directory.clone(), one.email.clone(), one.folder.clone(), one.trusted_ca.clone(), flags(one))
        };
        let account = match (&self.account, &other.account) {
            (None, None) => true,
            (Some(one), Some(other)) => one.is_same(other),
            (Some(_), None) | (None, Some(_)) => false,
        };
        account && key(self) == key(other)
    }
}

/// The public authority, and the one that it has for trying out, whose certificates nobody trusts.
const PUBLIC: &str = "https://acme-v02.api.letsencrypt.org/directory";
const STAGING: &str = "https://acme-staging-v02.api.letsencrypt.org/directory";
/// An authority below this name has no OCSP responder any more.
const REFUSES_MUST_STAPLE: &str = ".letsencrypt.org";
/// Below the data folder, or the folder of the system's services where there is none.
const FOLDER: &str = "postern/autocert";

/// Whether certificates are to be ordered.
pub(super) fn is_on(cx: &mut Context<'_>, settings: &Block<'_>, plain: bool) -> bool {
    let on = settings.flag(cx, "autocert");
    if on && plain {
        let what = "`autocert` has no effect here: with `insecure_server` nobody is shown a certificate";
        cx.advise(Code::NoEffect, &settings.at("autocert"), what, "remove one of the two");
    }
    on && !plain
}

/// Who is where, and has what already.
#[derive(Debug)]
pub(super) struct Known<'k> {
    pub(super) routes: &'k Routes,
    /// Authn alone serves no routes, although it knows their hosts.
    pub(super) role: Role,
    pub(super) authenticate: Option<&'k Url>,
    pub(super) listeners: Option<&'k Listeners>,
    /// The names of configured certificates.
    pub(super) certified: &'k [String],
}

pub(super) fn resolve(cx: &mut Context<'_>, settings: &Block<'_>, on: bool, known: &Known<'_>) -> Option<Autocert> {
    let trusted = one_of(cx, settings, "autocert_trusted_ca", "autocert_trusted_ca_file");
    let trusted_ca = authorities(cx, trusted);
    let staging = settings.flag(cx, "autocert_use_staging");
    let must_staple = settings.flag(cx, "autocert_must_staple");
    let directory = directory(cx, settings, staging);
    let (email, account, folder) = (email(cx, settings), account(cx, settings), folder(cx, settings));
    if !on {
        return None;
    }
    let answers_http = known.listeners.is_some_and(|listeners| !listeners.redirect.is_empty());
    let names = names(cx, settings, known);
    let directory = directory?;
    if must_staple && directory.host_str().is_some_and(|host| host.ends_with(REFUSES_MUST_STAPLE)) {
        let what = "no certificate will be issued: Let's Encrypt refuses every order with must-staple since 2025";
        let hint = "remove `autocert_must_staple`, or name an authority that issues such certificates by `autocert_ca`";
        cx.advise(Code::NoCertificate, &settings.at("autocert_must_staple"), what, hint);
    }
    let folder = folder?;
    Some(Autocert { directory, email, account, folder, trusted_ca, must_staple, answers_http, names })
}

fn directory(cx: &mut Context<'_>, settings: &Block<'_>, staging: bool) -> Option<Url> {
    if settings.filled(cx, "autocert_ca").is_none() {
        return Url::parse(if staging { STAGING } else { PUBLIC }).ok();
    }
    let url = settings.url(cx, "autocert_ca")?;
    if url.scheme() != "https" {
        let what = "an authority is spoken to over https only";
        cx.fatal(Code::BadUrl, &settings.at("autocert_ca"), what, format!("write its directory: `{PUBLIC}`"));
        return None;
    }
    Some(url)
}

/// The hosts of routes and the one where people sign in, as far as they have no certificate yet and can get one this way.
fn names(cx: &mut Context<'_>, settings: &Block<'_>, known: &Known<'_>) -> Vec<String> {
    let mut names = Vec::new();
    for (host, at) in known.routes.secure_hosts().filter(|_| known.role != Role::Authn) {
        let is_known = known.certified.iter().any(|name| covers(name, &host));
        match host.as_str() {
            _ if is_known => {}
            host if host.contains('*') => {
                let what = format!("no certificate is ordered for {}: a wildcard is proved in DNS alone", quoted(host));
                let hint = "give it one under `certificates`, or write its hosts out, a route for each";
                cx.advise(Code::NoCertificate, at, what, hint);
            }
            host => names.extend(orderable(cx, host, at)),
        }
    }
    let authenticate = settings.filled(cx, "authenticate_service_url").and(known.authenticate);
    if let Some(host) = authenticate.and_then(Url::host_str)
        && !known.certified.iter().any(|name| covers(name, host))
    {
        names.extend(orderable(cx, host, &settings.at("authenticate_service_url")));
    }
    names.sort();
    names.dedup();
    names
}

/// The name, unless no public authority has ever vouched for such a one.
fn orderable(cx: &mut Context<'_>, host: &str, at: &At) -> Option<String> {
    if matches!(Host::parse(host), Ok(Host::Domain(_))) && host.contains('.') {
        return Some(host.to_ascii_lowercase());
    }
    let what = format!("no certificate is ordered for {}: it is no name in DNS", quoted(host));
    cx.advise(Code::NoCertificate, at, what, "give it one under `certificates`");
    None
}

/// Whether a certificate of this name is one for that host.
fn covers(name: &str, host: &str) -> bool {
    let parent = name.strip_prefix("*.");
    name.eq_ignore_ascii_case(host)
        || parent.is_some_and(|parent| host.split_once('.').is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(parent)))
}

fn email(cx: &mut Context<'_>, settings: &Block<'_>) -> Option<String> {
    let email = settings.filled(cx, "autocert_email")?;
    if !email.value.contains('@') || email.value.contains(char::is_whitespace) {
        let what = format!("{} is no e-mail address", quoted(&email.value));
        cx.advise(Code::WrongType, &email.at, what, "the authority will refuse it; write `admin@example.com`");
    }
    Some(email.value)
}

fn account(cx: &mut Context<'_>, settings: &Block<'_>) -> Option<ExternalAccount> {
    let key_id = settings.filled(cx, "autocert_eab_key_id");
    let mac_key = settings.filled(cx, "autocert_eab_mac_key");
    let (key_id, mac_key) = match (key_id, mac_key) {
        (None, None) => return None,
        (Some(key_id), Some(mac_key)) => (key_id, mac_key),
        (Some(half), None) | (None, Some(half)) => {
            let what = "`autocert_eab_key_id` and `autocert_eab_mac_key` go together, and one is missing";
            cx.fatal(Code::MissingKey, &half.at, what, "write both, as the authority gave them to you");
            return None;
        }
    };
    let Ok(key) = URL_SAFE_NO_PAD.decode(mac_key.value.trim()) else {
        let hint = "copy it as the authority gave it to you: letters, digits, `-` and `_`, without `=`";
        cx.fatal(Code::BadBase64, &mac_key.at, "this is not base64url without padding", hint);
        return None;
    };
    Some(ExternalAccount { key_id: key_id.value, mac_key: Secret::new(key) })
}

/// A folder. Buckets are known from Pomerium, and not written to yet.
fn folder(cx: &mut Context<'_>, settings: &Block<'_>) -> Option<PathBuf> {
    let Some(folder) = settings.filled(cx, "autocert_dir") else {
        let variable =
            |name| cx.environment.get(name).map(|path| PathBuf::from(path.expose())).filter(|path| path.is_absolute());
        let data = variable("XDG_DATA_HOME").or_else(|| variable("HOME").map(|home| home.join(".local/share")));
        return Some(data.unwrap_or_else(|| PathBuf::from("/var/lib")).join(FOLDER));
    };
    if !folder.value.contains("://") {
        return Some(folder.value.into());
    }
    if ["s3://", "gs://"].iter().any(|known| folder.value.starts_with(known)) {
        let what = "certificates are kept in folders only, so far: no bucket is written to";
        cx.fatal(
            Code::NotYet,
            &folder.at,
            what,
            "write a folder; several edges share one if it is on a volume that they share",
        );
    } else {
        let what = format!("{} is no folder", quoted(&folder.value));
        cx.fatal(Code::BadUrl, &folder.at, what, "write a folder: `/var/lib/postern/autocert`");
    }
    None
}
