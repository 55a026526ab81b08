//! What the provider remembers: browsers that are signed in, codes, and token families. Pure: time is an argument.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use postern_identity::{RandomError, Timestamp, random, same};
use serde::{Deserialize, Serialize};

/// How long a code can be redeemed.
const CODE_LIFE: Duration = Duration::from_secs(60);
/// How long a browser stays signed in at the provider.
const BROWSER_LIFE: Duration = Duration::from_secs(24 * 3600);
/// How long tokens can be refreshed.
const FAMILY_LIFE: Duration = Duration::from_secs(14 * 24 * 3600);
/// More of each kind are not kept: the oldest goes.
const MOST: usize = 512;

/// Everything that the provider remembers. Codes are not written down: they live for a minute.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Memory {
    browsers: BTreeMap<String, Browser>,
    families: BTreeMap<String, Family>,
    #[serde(skip)]
    codes: BTreeMap<String, Code>,
}

/// A browser that is signed in at the provider, kept under the hash of its cookie.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Browser {
    /// Whose.
    pub(super) user: String,
    /// `sid`.
    pub(super) sid: String,
    /// `auth_time`, in seconds.
    pub(super) since: i64,
}

/// All tokens that come from one code.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Family {
    browser: Browser,
    scope: String,
    born: i64,
    /// Hash of the one refresh token that is good now; none without `offline_access`.
    refresh: Option<String>,
}

#[derive(Debug)]
struct Code {
    grant: Grant,
    born: i64,
    /// The family that it was redeemed for: a second time ends that family.
    spent: Option<String>,
}

/// What a code stands for.
#[derive(Debug, Clone)]
pub(super) struct Grant {
    pub(super) browser: Browser,
    pub(super) redirect_uri: String,
    pub(super) challenge: String,
    pub(super) nonce: Option<String>,
    pub(super) scope: String,
}

/// What tokens are made from.
#[derive(Debug)]
pub(super) struct Issued {
    pub(super) family: String,
    pub(super) browser: Browser,
    pub(super) nonce: Option<String>,
    pub(super) scope: String,
    pub(super) refresh_token: Option<String>,
}

/// Why no tokens are given.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum GrantError {
    /// RFC 6749 `invalid_grant`, with the reason.
    #[error("{0}")]
    Invalid(&'static str),
    /// The system gives no randomness.
    #[error("no randomness")]
    NoRandomness,
}

impl From<RandomError> for GrantError {
    fn from(_: RandomError) -> Self {
        Self::NoRandomness
    }
}

impl Memory {
    /// The browser of that cookie, while its sign-in lasts.
    pub(super) fn browser(&self, cookie: &str, now: Timestamp) -> Option<&Browser> {
        self.browsers.get(&fingerprint(cookie)).filter(|browser| lasts(browser.since, BROWSER_LIFE, now))
    }

    /// Signs a browser in; gives its cookie.
    pub(super) fn sign_in(&mut self, user: &str, now: Timestamp) -> Result<(String, Browser), RandomError> {
        self.browsers.retain(|_, browser| lasts(browser.since, BROWSER_LIFE, now));
        keep_most(&mut self.browsers, |browser| browser.since);
        let cookie = fresh()?;
        let browser = Browser { user: user.to_owned(), sid: fresh()?, since: now.as_secs() };
        self.browsers.insert(fingerprint(&cookie), browser.clone());
        Ok((cookie, browser))
    }

    /// Makes a code.
    pub(super) fn code(&mut self, grant: Grant, now: Timestamp) -> Result<String, RandomError> {
        self.codes.retain(|_, code| lasts(code.born, CODE_LIFE, now));
        keep_most(&mut self.codes, |code| code.born);
        let code = fresh()?;
        self.codes.insert(fingerprint(&code), Code { grant, born: now.as_secs(), spent: None });
        Ok(code)
    }

    /// Redeems a code, once (RFC 6749 §4.1.2), by who can show its PKCE verifier (RFC 7636 §4.6).
    pub(super) fn redeem(
        &mut self,
        code: &str,
        redirect_uri: &str,
        verifier: &str,
        now: Timestamp,
    ) -> Result<Issued, GrantError> {
        let code = self.codes.get_mut(&fingerprint(code)).ok_or(GrantError::Invalid("unknown code"))?;
        if let Some(family) = &code.spent {
            self.families.remove(family);
            return Err(GrantError::Invalid("the code was used before: all its tokens are revoked"));
        }
        if !lasts(code.born, CODE_LIFE, now) {
            return Err(GrantError::Invalid("the code has expired"));
        }
        if code.grant.redirect_uri != redirect_uri {
            return Err(GrantError::Invalid("redirect_uri differs from the one that was asked with"));
        }
        if !same(fingerprint(verifier).as_bytes(), code.grant.challenge.as_bytes()) {
            return Err(GrantError::Invalid("code_verifier does not fit code_challenge"));
        }
        let family = fresh()?;
        code.spent = Some(family.clone());
        let Grant { browser, nonce, scope, .. } = code.grant.clone();
        let refresh_token = self.found(&family, browser.clone(), scope.clone(), now)?;
        Ok(Issued { family, browser, nonce, scope, refresh_token })
    }

    /// Founds a family; gives its first refresh token, if the scope asks for one.
    fn found(
        &mut self,
        id: &str,
        browser: Browser,
        scope: String,
        now: Timestamp,
    ) -> Result<Option<String>, RandomError> {
        self.families.retain(|_, family| lasts(family.born, FAMILY_LIFE, now));
        keep_most(&mut self.families, |family| family.born);
        let offline = scope.split(' ').any(|word| word == "offline_access");
        let token = if offline { Some(format!("{id}.{}", fresh()?)) } else { None };
        let refresh = token.as_deref().map(fingerprint);
        self.families.insert(id.to_owned(), Family { browser, scope, born: now.as_secs(), refresh });
        Ok(token)
    }

    /// Exchanges a refresh token for a new one. An old one that comes again ends the family (RFC 9700 §4.14.2).
    pub(super) fn refresh(&mut self, token: &str, now: Timestamp) -> Result<Issued, GrantError> {
        let id = token.split('.').next().unwrap_or_default().to_owned();
        let family = self.families.get_mut(&id).ok_or(GrantError::Invalid("unknown refresh token"))?;
        if !lasts(family.born, FAMILY_LIFE, now) {
            return Err(GrantError::Invalid("the refresh token has expired"));
        }
        let current = family.refresh.as_deref().unwrap_or_default();
        if !same(current.as_bytes(), fingerprint(token).as_bytes()) {
            self.families.remove(&id);
            return Err(GrantError::Invalid("the refresh token was used before: all its tokens are revoked"));
        }
        let next = format!("{id}.{}", fresh()?);
        family.refresh = Some(fingerprint(&next));
        let (browser, scope) = (family.browser.clone(), family.scope.clone());
        Ok(Issued { family: id, browser, nonce: None, scope, refresh_token: Some(next) })
    }

    /// Whether the tokens of that family are still good.
    pub(super) fn lives(&self, family: &str, now: Timestamp) -> bool {
        self.families.get(family).is_some_and(|family| lasts(family.born, FAMILY_LIFE, now))
    }

    /// Ends the family of that id, or of that refresh token.
    pub(super) fn revoke(&mut self, family_or_token: &str) {
        self.families.remove(family_or_token.split('.').next().unwrap_or_default());
    }

    /// Signs out: the browser of that `sid`, and all tokens that came from it.
    pub(super) fn end(&mut self, sid: &str) {
        self.browsers.retain(|_, browser| browser.sid != sid);
        self.families.retain(|_, family| family.browser.sid != sid);
    }
}

/// base64url(SHA-256(text)): how secrets are kept, and what PKCE calls S256.
pub(super) fn fingerprint(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes()))
}

fn fresh() -> Result<String, RandomError> {
    Ok(URL_SAFE_NO_PAD.encode(random::<24>()?))
}

fn lasts(born: i64, life: Duration, now: Timestamp) -> bool {
    now < Timestamp::from_secs(born).plus(life)
}

fn keep_most<T>(kept: &mut BTreeMap<String, T>, born: impl Fn(&T) -> i64) {
    while kept.len() >= MOST {
        let Some(oldest) = kept.iter().min_by_key(|(_, one)| born(one)).map(|(key, _)| key.clone()) else { return };
        kept.remove(&oldest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_000_000);
    const URI: &str = "https://auth.localhost:8443/oauth2/callback";

    fn memory_with_code(scope: &str) -> (Memory, String) {
        let mut memory = Memory::default();
        let (_, browser) = memory.sign_in("alice", NOW).unwrap();
        let (redirect_uri, challenge) = (URI.to_owned(), fingerprint("verifier"));
        let grant = Grant { browser, redirect_uri, challenge, nonce: Some("n".into()), scope: scope.into() };
        let code = memory.code(grant, NOW).unwrap();
        (memory, code)
    }

    fn refused(result: Result<Issued, GrantError>) -> &'static str {
        match result {
            Err(GrantError::Invalid(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_code_needs_its_pkce_verifier() {
        let (mut memory, code) = memory_with_code("openid");
        assert!(refused(memory.redeem(&code, URI, "other", NOW)).contains("code_verifier"));
        assert!(refused(memory.redeem(&code, URI, "", NOW)).contains("code_verifier"));
        assert!(memory.redeem(&code, URI, "verifier", NOW).is_ok());
    }

    #[test]
    fn a_code_needs_the_redirect_uri_that_it_was_asked_with() {
        let (mut memory, code) = memory_with_code("openid");
        assert!(refused(memory.redeem(&code, "https://evil.example/", "verifier", NOW)).contains("redirect_uri"));
    }

    #[test]
    fn a_code_is_used_once_and_a_second_time_ends_what_came_of_it() {
        let (mut memory, code) = memory_with_code("openid offline_access");
        let issued = memory.redeem(&code, URI, "verifier", NOW).unwrap();
        assert!(memory.lives(&issued.family, NOW));
        assert!(refused(memory.redeem(&code, URI, "verifier", NOW)).contains("used before"));
        assert!(!memory.lives(&issued.family, NOW));
        assert!(memory.refresh(&issued.refresh_token.unwrap(), NOW).is_err());
    }

    #[test]
    fn a_code_expires_after_a_minute() {
        let (mut memory, code) = memory_with_code("openid");
        let later = NOW.plus(Duration::from_secs(60));
        assert!(refused(memory.redeem(&code, URI, "verifier", later)).contains("expired"));
    }

    #[test]
    fn refresh_tokens_rotate_and_an_old_one_ends_the_family() {
        let (mut memory, code) = memory_with_code("openid offline_access");
        let first = memory.redeem(&code, URI, "verifier", NOW).unwrap().refresh_token.unwrap();
        let second = memory.refresh(&first, NOW).unwrap().refresh_token.unwrap();
        assert_ne!(first, second);
        let third = memory.refresh(&second, NOW).unwrap().refresh_token.unwrap();
        assert!(refused(memory.refresh(&first, NOW)).contains("used before"));
        assert!(memory.refresh(&third, NOW).is_err(), "the thief and the owner both lose");
    }

    #[test]
    fn without_offline_access_there_is_no_refresh_token() {
        let (mut memory, code) = memory_with_code("openid email");
        let issued = memory.redeem(&code, URI, "verifier", NOW).unwrap();
        assert_eq!(issued.refresh_token, None);
        assert!(memory.refresh(&format!("{}.x", issued.family), NOW).is_err());
    }

    #[test]
    fn signing_out_ends_the_browser_and_its_tokens_and_nobody_elses() {
        let (mut memory, code) = memory_with_code("openid offline_access");
        let (cookie, other) = memory.sign_in("bob", NOW).unwrap();
        let issued = memory.redeem(&code, URI, "verifier", NOW).unwrap();
        memory.end(&issued.browser.sid);
        assert!(!memory.lives(&issued.family, NOW));
        assert_eq!(memory.browser(&cookie, NOW), Some(&other));
        memory.end(&other.sid);
        assert_eq!(memory.browser(&cookie, NOW), None);
    }

    #[test]
    fn memory_survives_being_written_down_and_holds_no_secret_in_clear() {
        let (mut memory, code) = memory_with_code("openid offline_access");
        let (cookie, _) = memory.sign_in("bob", NOW).unwrap();
        let token = memory.redeem(&code, URI, "verifier", NOW).unwrap().refresh_token.unwrap();
        let written = serde_json::to_string(&memory).unwrap();
        assert!(!written.contains(&cookie) && !written.contains(&token) && !written.contains(&code));
        let mut again: Memory = serde_json::from_str(&written).unwrap();
        assert!(again.browser(&cookie, NOW).is_some());
        assert!(again.refresh(&token, NOW).is_ok());
    }

    #[test]
    fn memory_is_bounded() {
        let mut memory = Memory::default();
        for second in 0..(MOST as i64 + 50) {
            memory.sign_in("alice", NOW.plus(Duration::from_secs(second.unsigned_abs()))).unwrap();
        }
        assert!(memory.browsers.len() <= MOST);
    }
}
