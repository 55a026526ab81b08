//! `shared_secret` and `cookie_secret` (01 §1.7), and the shared secrets that are accepted while it is replaced.

use postern_identity::{MAX_ACCEPTED_SECRETS, Secret, same};

use crate::config::block::Block;
use crate::config::context::Context;
use crate::config::keys::ROUTE;
use crate::config::problem::{At, Origin};
use crate::config::value::decode_base64;
use crate::config::{Code, Role};

/// The secrets that every key is derived from.
#[derive(Debug)]
pub(super) struct Secrets {
    pub(super) shared: Secret<[u8; 32]>,
    /// Those that are accepted beside `shared`, all different.
    pub(super) accepted: Vec<Secret<[u8; 32]>>,
    pub(super) cookie: Secret<[u8; 32]>,
    /// `shared` is the one of the configuration.
    pub(super) is_configured: bool,
}

/// What it means that a secret is not configured.
#[derive(Clone, Copy)]
enum Without {
    /// A random one does until the process ends.
    Random,
    /// Nothing is done with it here.
    Fine,
    /// Other processes have it.
    Refused,
}

pub(super) fn resolve(cx: &mut Context<'_>, settings: &Block<'_>, role: Role) -> Secrets {
    // What the cookie secret seals only authn opens, on whichever of its nodes.
    let (shared, cookie) = match role {
        Role::AllInOne => (Without::Random, Without::Random),
        Role::Edge => (Without::Refused, Without::Fine),
        Role::Authn => (Without::Refused, Without::Refused),
    };
    let shared = secret(cx, settings, "shared_secret", "shared_secret_file", false, shared);
    let cookie = secret(cx, settings, "cookie_secret", "cookie_secret_file", true, cookie);
    Secrets {
        accepted: accepted(cx, settings, shared.as_ref()),
        is_configured: shared.is_some(),
        shared: shared.unwrap_or_else(|| cx.environment.shared_secret.clone()),
        cookie: cookie.unwrap_or_else(|| cx.environment.cookie_secret.clone()),
    }
}

fn secret(
    cx: &mut Context<'_>,
    settings: &Block<'_>,
    key: &str,
    file_key: &str,
    line_ends: bool,
    without: Without,
) -> Option<Secret<[u8; 32]>> {
    let Some((at, text)) = text(cx, settings, key, file_key) else {
        let hint = format!("write `{key}:` and the output of `head -c32 /dev/urandom | base64`");
        match without {
            _ if settings.find(file_key).is_some() => {}
            Without::Fine => {}
            Without::Random => {
                let lost =
                    if key == "shared_secret" { "everybody signs in again" } else { "sign-ins under way begin again" };
                let what =
                    format!("no `{key}` is configured: a random one holds until this process ends, and then {lost}");
                cx.advise(Code::RandomSecret, &At::absent(key), what, hint);
            }
            Without::Refused => {
                let what = format!("`{key}` is missing: processes with different services must have the same one");
                cx.fatal(Code::BadSecret, &At::absent(key), what, hint);
            }
        }
        return None;
    };
    match decode(text.expose(), line_ends) {
        Ok(secret) => Some(secret),
        Err(what) => {
            let hint = "use the output of `head -c32 /dev/urandom | base64`, without spaces or line ends around it";
            cx.fatal(Code::BadSecret, &at, format!("`{key}` {what}"), hint);
            None
        }
    }
}

/// `shared_secrets_accepted`, or what its file has, one a line.
fn accepted(cx: &mut Context<'_>, settings: &Block<'_>, in_force: Option<&Secret<[u8; 32]>>) -> Vec<Secret<[u8; 32]>> {
    let written = accepted_texts(cx, settings);
    let mut accepted: Vec<Secret<[u8; 32]>> = Vec::new();
    for (at, text) in written {
        let is_known = |secret: &Secret<[u8; 32]>| {
            in_force.into_iter().chain(&accepted).any(|known| same(known.expose(), secret.expose()))
        };
        match decode(text.expose(), true) {
            Ok(secret) if is_known(&secret) => refuse_accepted(cx, &at, "has a secret twice, or the one in force"),
            Ok(_) if accepted.len() == MAX_ACCEPTED_SECRETS => {
                refuse_accepted(cx, &at, &format!("has more than {MAX_ACCEPTED_SECRETS} secrets"));
                break;
            }
            Ok(secret) => accepted.push(secret),
            Err(what) => refuse_accepted(cx, &at, &what),
        }
        if in_force.is_none() && !settings.mentions("shared_secret_file") && !settings.mentions("shared_secret") {
            refuse_accepted(cx, &at, "is beside no `shared_secret`: a random one replaces none");
            break;
        }
    }
    accepted
}

fn accepted_texts(cx: &mut Context<'_>, settings: &Block<'_>) -> Vec<(At, Secret<String>)> {
    if let Some(path) = settings.filled(cx, ACCEPTED_FILE) {
        let content = cx.text_file(&path.at, &path.value).map(Secret::new);
        let lines = content.iter().flat_map(|content| content.expose().lines().filter(|line| !line.is_empty()));
        return lines.map(|line| (path.at.clone(), Secret::new(line.to_owned()))).collect();
    }
    let texts = settings.texts(cx, ACCEPTED).unwrap_or_default();
    if let Some(first) = texts.first() {
        tell_inline(cx, &At { key: settings.at(ACCEPTED).key, ..first.at.clone() }, ACCEPTED, ACCEPTED_FILE);
    }
    texts.into_iter().map(|text| (text.at, Secret::new(text.value))).collect()
}

fn refuse_accepted(cx: &mut Context<'_>, at: &At, what: &str) {
    let hint = "list earlier values of `shared_secret`, or the next one, see docs/guides/secrets.md";
    cx.fatal(Code::BadSecret, at, format!("`{ACCEPTED}` {what}"), hint);
}

const ACCEPTED: &str = "shared_secrets_accepted";
const ACCEPTED_FILE: &str = "shared_secrets_accepted_file";

/// The text of a secret, from its file if one is named, and where it was named.
pub(super) fn text(
    cx: &mut Context<'_>,
    settings: &Block<'_>,
    key: &str,
    file_key: &str,
) -> Option<(At, Secret<String>)> {
    if let Some(path) = settings.filled(cx, file_key) {
        let content = cx.text_file(&path.at, &path.value)?;
        return Some((path.at, Secret::new(content)));
    }
    let inline = settings.filled(cx, key)?;
    tell_inline(cx, &inline.at, key, file_key);
    Some((inline.at, Secret::new(inline.value)))
}

/// The same, of one line: a line end after it in a file is never part of it.
pub(super) fn line(cx: &mut Context<'_>, settings: &Block<'_>, key: &str, file_key: &str) -> Option<Secret<String>> {
    let (_, text) = text(cx, settings, key, file_key)?;
    Some(Secret::new(text.expose().trim_end_matches(['\r', '\n']).to_owned()))
}

/// A secret in the file is read by whoever reads the file.
pub(super) fn tell_inline(cx: &mut Context<'_>, at: &At, key: &str, file_key: &str) {
    if at.origin == Origin::File {
        let what = format!("`{key}` stands in the configuration file itself");
        // Keys of routes have no variable of their own, and some no file either.
        let hint = if !at.key.as_str().contains('.') {
            format!("put it into a file of its own and write `{file_key}`, or set {}", key.to_ascii_uppercase())
        } else if ROUTE.find(file_key).is_some() {
            format!("put it into a file of its own and write `{file_key}`")
        } else {
            "give the routes as the variable ROUTES, or let nobody else read this file".to_owned()
        };
        cx.advise(Code::InlineSecret, at, what, hint);
    }
}

/// 32 bytes of base64 that are not obviously made by hand (S-107). Line ends count as white space unless allowed.
fn decode(text: &str, line_ends: bool) -> Result<Secret<[u8; 32]>, String> {
    let text = if line_ends { text.trim_end_matches(['\r', '\n']) } else { text };
    if text.trim() != text {
        return Err("has white space around it".to_owned());
    }
    let bytes = decode_base64(text).ok_or("is not base64")?;
    let length = bytes.len();
    let bytes: [u8; 32] = bytes.try_into().map_err(|_| format!("has {length} bytes, and must have 32"))?;
    let mut distinct = bytes;
    distinct.sort_unstable();
    let distinct = distinct.chunk_by(|a, b| a == b).count();
    if distinct < MIN_DISTINCT {
        return Err("is too regular to be random".to_owned());
    }
    Ok(Secret::new(bytes))
}

/// 32 random bytes have fewer distinct values than this about once in 10^38 draws.
const MIN_DISTINCT: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

    #[test]
    fn s_107_a_secret_has_32_bytes_and_is_not_regular() {
        assert!(decode(GOOD, false).is_ok());
        for (text, why) in [
            ("", "0 bytes"),
            ("c2hvcnQ=", "5 bytes"),
            ("not base64!", "not base64"),
            ("MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY", "not base64"),
            (" MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=", "white space"),
            ("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "regular"),
        ] {
            let Err(error) = decode(text, false) else { panic!("{text} was taken") };
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn a_line_end_is_an_error_in_the_shared_secret_and_none_in_the_cookie_secret() {
        let text = format!("{GOOD}\n");
        assert!(decode(&text, false).is_err());
        assert!(decode(&text, true).is_ok());
    }
}
