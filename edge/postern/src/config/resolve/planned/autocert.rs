//! Certificates from an authority (01 §1.5).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use postern_identity::Secret;
use url::Url;

use super::{authorities, one_of};
use crate::config::Code;
use crate::config::block::Block;
use crate::config::context::Context;
use crate::config::value::quoted;

/// `autocert` and `autocert_*`.
#[derive(Debug, Clone, Default)]
pub struct Autocert {
    /// `autocert`.
    pub on: bool,
    /// `autocert_ca`; it goes before `staging`.
    pub directory: Option<Url>,
    /// `autocert_use_staging`.
    pub staging: bool,
    /// `autocert_email`.
    pub email: Option<String>,
    /// `autocert_eab_key_id` and `autocert_eab_mac_key`.
    pub account: Option<ExternalAccount>,
    /// `autocert_must_staple`.
    pub must_staple: bool,
    /// `autocert_dir`: a folder, or the URL of an object store.
    pub folder: Option<String>,
    /// `autocert_trusted_ca(_file)`, as PEM.
    pub trusted_ca: Option<Vec<u8>>,
}

/// An account that the authority knows from elsewhere.
#[derive(Debug, Clone)]
pub struct ExternalAccount {
    /// Its name.
    pub key_id: String,
    /// Its key.
    pub mac_key: Secret<Vec<u8>>,
}

pub(super) fn resolve(cx: &mut Context<'_>, settings: &Block<'_>) -> Autocert {
    let trusted = one_of(cx, settings, "autocert_trusted_ca", "autocert_trusted_ca_file");
    Autocert {
        on: settings.flag(cx, "autocert"),
        directory: settings.url(cx, "autocert_ca"),
        staging: settings.flag(cx, "autocert_use_staging"),
        email: email(cx, settings),
        account: account(cx, settings),
        must_staple: settings.flag(cx, "autocert_must_staple"),
        folder: folder(cx, settings),
        trusted_ca: authorities(cx, trusted),
    }
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

/// A folder, or a bucket of a store that is known.
fn folder(cx: &mut Context<'_>, settings: &Block<'_>) -> Option<String> {
    let folder = settings.filled(cx, "autocert_dir")?;
    if folder.value.contains("://") && !["s3://", "gs://"].iter().any(|known| folder.value.starts_with(known)) {
        let what = format!("{} is neither a folder nor a bucket", quoted(&folder.value));
        cx.fatal(Code::BadUrl, &folder.at, what, "write a folder, `s3://BUCKET/PREFIX` or `gs://BUCKET/PREFIX`");
        return None;
    }
    Some(folder.value)
}
