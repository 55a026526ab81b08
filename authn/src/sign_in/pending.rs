//! A sign-in that waits for the provider: sealed in a cookie of its own, bound to one browser, good once (S-053).

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use postern_identity::{
    CookieAttributes, FlowHash, IdpId, Keyring, MAX_FLOWS_PER_BROWSER, Purpose, RandomError, Recipient, SameSite,
    Secret, SignInRequest, Timestamp, cookies_named, delete_cookie, random, same, set_cookie,
};
use serde::{Deserialize, Serialize};
use url::Url;

use super::callback::AuthorizationAnswer;
use super::{begins_anew_at, may_hand_over};
use crate::AuthnConfig;
use crate::error::SignInError;
use crate::idp::{CodeGrant, Proof};
use crate::sealed;
use crate::visit::Visit;

/// How long the provider may take (03 §2).
const GOOD_FOR: Duration = Duration::from_secs(600);
/// How long the browser keeps it, so that a slow user can be helped.
pub(crate) const KEPT_FOR: Duration = Duration::from_secs(3600);
/// Browsers drop cookies over 4096 bytes.
const MAX_COOKIE: usize = 3_800;

/// A sign-in that waits for the provider's answer.
#[derive(Debug)]
pub(crate) struct PendingSignIn {
    pub(crate) request: SignInRequest,
    pub(crate) proof: Proof,
    started: Timestamp,
}

/// The provider's answer to a sign-in of this browser, seen for the first time. Made by [`PendingSignIn::verify`] alone.
#[derive(Debug)]
pub(crate) struct VerifiedCallback {
    pub(crate) request: SignInRequest,
    pub(crate) grant: CodeGrant,
}

/// What the cookie seals. Fields are only ever added.
#[derive(Deserialize, Serialize)]
struct Sealed {
    state: String,
    nonce: String,
    verifier: String,
    idp: String,
    redirect_uri: String,
    /// Empty for a program.
    flow: String,
    restarted: bool,
    started: i64,
    /// Where the program that gets the session shows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    door: Option<String>,
    /// The hosts that are to have a cookie as well.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    hosts: Vec<String>,
}

impl PendingSignIn {
    /// A sign-in that begins now, with fresh state, nonce and PKCE verifier of 256 bits each (S-051).
    ///
    /// # Errors
    /// If the system gives no randomness.
    pub(crate) fn begin(request: SignInRequest, now: Timestamp) -> Result<Self, RandomError> {
        let fresh = || random::<32>().map(|bytes| URL_SAFE_NO_PAD.encode(bytes));
        let proof = Proof { state: fresh()?, nonce: fresh()?, verifier: Secret::new(fresh()?) };
        Ok(Self { request, proof, started: now })
    }

    /// The sign-in of that state, if this browser began it.
    pub(crate) fn find(visit: &Visit, state: &str) -> Option<Self> {
        let name = cookie_name(&visit.live.config, state);
        let mut values =
            visit.cookie_fields().flat_map(|field| cookies_named(field, &name)).take(MAX_FLOWS_PER_BROWSER);
        let found = values.find_map(|value| Self::open(&visit.live.config.keyring, &name, value))?;
        same(found.proof.state.as_bytes(), state.as_bytes()).then_some(found)
    }

    /// The sign-in that this browser began last for itself, if it may still be sent where that was to lead.
    pub(crate) fn newest(visit: &Visit) -> Option<Self> {
        let all = held(visit).into_iter().filter_map(|(_, pending)| pending);
        all.filter(|pending| {
            begins_anew_at(&pending.request).is_some() && may_hand_over(&visit.live.config, &pending.request)
        })
        .max_by_key(|pending| pending.started)
    }

    /// The `Set-Cookie` values that keep this sign-in in the browser and drop the oldest ones over the limit.
    ///
    /// # Errors
    /// If the system gives no randomness.
    pub(crate) fn keep(&self, visit: &Visit, by_post: bool) -> Result<Vec<String>, RandomError> {
        let config = &visit.live.config;
        let name = cookie_name(config, &self.proof.state);
        let mut cookies = drop_oldest(visit);
        for (target, hosts) in less_and_less(&self.request) {
            let value = self.seal(&config.keyring, &name, (&target, hosts))?;
            if value.len() <= MAX_COOKIE {
                cookies.push(set_cookie(&name, &value, &attributes(by_post), KEPT_FOR));
                break;
            }
        }
        Ok(cookies)
    }

    /// The `Set-Cookie` value that forgets this sign-in.
    pub(crate) fn forget(&self, config: &AuthnConfig) -> String {
        delete_cookie(&cookie_name(config, &self.proof.state), &attributes(false))
    }

    /// Whether the provider took too long.
    pub(crate) fn is_too_old(&self, now: Timestamp) -> bool {
        now.since(self.started) > GOOD_FOR
    }

    /// Takes the provider's answer; the sign-in is gone, whatever comes out. `is_of_idp` tells whether the answer can
    /// be of the provider that was asked (S-058).
    ///
    /// # Errors
    /// [`SignInError`].
    pub(crate) fn verify(self, answer: AuthorizationAnswer, is_of_idp: bool) -> Result<VerifiedCallback, SignInError> {
        if !same(self.proof.state.as_bytes(), answer.state.as_bytes()) {
            return Err(SignInError::StateUnknown);
        }
        if !is_of_idp {
            return Err(SignInError::MixUp);
        }
        if let Some(error) = answer.error {
            return Err(SignInError::Refused { error, description: answer.description });
        }
        let code = answer.code.ok_or(SignInError::Incomplete)?;
        let grant = CodeGrant { code, verifier: self.proof.verifier, nonce: self.proof.nonce };
        Ok(VerifiedCallback { request: self.request, grant })
    }

    fn seal(&self, keyring: &Keyring, name: &str, (target, hosts): Goal<'_>) -> Result<String, RandomError> {
        let sealed = Sealed {
            state: self.proof.state.clone(),
            nonce: self.proof.nonce.clone(),
            verifier: self.proof.verifier.expose().clone(),
            idp: self.request.idp.as_str().to_owned(),
            redirect_uri: target.as_str().to_owned(),
            flow: self.request.recipient.flow().map(FlowHash::encode).unwrap_or_default(),
            restarted: self.request.restarted,
            started: self.started.as_millis(),
            door: match &self.request.recipient {
                Recipient::Browser(_) => None,
                Recipient::Program { door } => Some(door.as_str().to_owned()),
            },
            hosts: hosts.to_vec(),
        };
        sealed::seal(keyring, Purpose::PendingSignIn, name, &sealed)
    }

    fn open(keyring: &Keyring, name: &str, value: &[u8]) -> Option<Self> {
        let value = value.get(..value.len().min(2 * MAX_COOKIE))?;
        let sealed: Sealed = sealed::open(keyring, Purpose::PendingSignIn, name, value)?;
        let recipient = match &sealed.door {
            Some(door) => Recipient::Program { door: Url::parse(door).ok()? },
            None => Recipient::Browser(FlowHash::decode(&sealed.flow)?),
        };
        Some(Self {
            request: SignInRequest {
                redirect_uri: Url::parse(&sealed.redirect_uri).ok()?,
                idp: IdpId::new(sealed.idp),
                recipient,
                restarted: sealed.restarted,
                additional_hosts: sealed.hosts,
            },
            proof: Proof { state: sealed.state, nonce: sealed.nonce, verifier: Secret::new(sealed.verifier) },
            started: Timestamp::from_millis(sealed.started),
        })
    }
}

/// Where a sign-in leads to, and by way of which hosts.
type Goal<'r> = (&'r Url, &'r [String]);

const NONE: &[String] = &[];

/// What does not fit into a cookie is left out: first the hosts that are to have a cookie as well, since the page goes before
/// them. Then its address loses its query, then its path: better the front door than none. Where a program waits is short (see
/// [`ProgramHosts`](postern_identity::ProgramHosts)), and nowhere else.
fn less_and_less(request: &SignInRequest) -> impl Iterator<Item = (Url, &[String])> {
    let target = &request.redirect_uri;
    let shorter = begins_anew_at(request).map(|_| {
        let mut bare = target.clone();
        bare.set_query(None);
        bare.set_fragment(None);
        let front = crate::visit::at(&bare, "/");
        [bare, front]
    });
    let targets = std::iter::once(target.clone()).chain(shorter.into_iter().flatten());
    targets.flat_map(move |target| [(target.clone(), request.additional_hosts.as_slice()), (target, NONE)])
}

fn prefix(config: &AuthnConfig) -> String {
    format!("__Host-{}_state_", config.cookie_name)
}

/// The name tells the flows of one browser apart and nothing else.
fn cookie_name(config: &AuthnConfig, state: &str) -> String {
    let tag = config.keyring.mac(Purpose::PendingSignIn, &[state.as_bytes()]);
    let short = tag.split_first_chunk::<9>().map(|(short, _)| URL_SAFE_NO_PAD.encode(short));
    format!("{}{}", prefix(config), short.unwrap_or_default())
}

/// A provider that posts its answer does so from its own site: only then must the cookie come along from there.
fn attributes(by_post: bool) -> CookieAttributes {
    let same_site = if by_post { SameSite::None } else { SameSite::Lax };
    CookieAttributes { domain: None, http_only: true, same_site }
}

/// Makes room for one more. What cannot be opened is older than everything.
fn drop_oldest(visit: &Visit) -> Vec<String> {
    let mut held: Vec<(i64, String)> = held(visit)
        .into_iter()
        .map(|(name, pending)| (pending.map_or(i64::MIN, |pending| pending.started.as_millis()), name))
        .collect();
    held.sort_unstable();
    let excess = (held.len() + 1).saturating_sub(MAX_FLOWS_PER_BROWSER);
    held.into_iter().take(excess).map(|(_, name)| delete_cookie(&name, &attributes(false))).collect()
}

/// The names of all sign-ins that this browser holds, and those of them that can be opened.
fn held(visit: &Visit) -> Vec<(String, Option<PendingSignIn>)> {
    let config = &visit.live.config;
    let prefix = prefix(config);
    visit
        .cookie_fields()
        .flat_map(|field| field.split(|byte| *byte == b';'))
        .filter_map(|pair| std::str::from_utf8(pair.trim_ascii()).ok()?.split_once('='))
        .filter(|(name, _)| name.starts_with(&prefix))
        .take(MAX_LOOKED_AT)
        .map(|(name, value)| (name.to_owned(), PendingSignIn::open(&config.keyring, name, value.as_bytes())))
        .collect()
}

/// More cookies of ours than this are not looked at (S-092).
const MAX_LOOKED_AT: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "__Host-_pomerium_state_x";
    /// What browsers carry of each format that was ever written: the second while a secret is replaced.
    const PENDING: [&str; 2] = [
        "AQOOoF4rhcZhwZaf2D1RCtb-jhcCUIHB28-34mUiD4rg1DF97JF8kUWOJgWfFDHPC9mL1f4MAUCfx4W5frkjKmgcq6mNoBw233ViQnhY1O56Ucg-iDBUEjf0dwDVVWVLoXq5pnZBU2ZYVqzLTJjRejAGUsEH-7BxtWJXUaNev9yVb4ZRigbcZPHhr_UJKYGMeWFXQ1XnhzSugWN7wVuRJtyTAcbcsOrPJvwa55_C7_vnSR182ijdg1dNkH6DRpEHZPawJmibJ94eK7RA7I4oVfUX1dRNrw",
        "AskLlJd9wtTIncBdIz0f1-nehvRk_iTbKnEVlvGR2064RfAyBMfEGdluiSgTW99FASzLLgjuaQRqm9Sj0IButwRXQwy7DC8eEQLYpC8xClYRkjS5bejJ_DdXGflGy8830M2aEjO65-dMuLrk1h4gaXBcEzmp8DHVZbVqC0tG3ET84LOgfQZh1HYUXbWTbdLz65nkMKo1PtPmoloOhqb4HR9L9XMJOQWL4jLSzTKf4XLQCt3PIGQ60y-wUraIHKHPE4AjV3g3YWf4OqbqhmXM7HndKmmZPj93V58",
    ];

    fn ring(in_force: u8, accepted: &[u8]) -> Keyring {
        let accepted: Vec<_> = accepted.iter().map(|byte| Secret::new([*byte; 32])).collect();
        Keyring::derive_with(&Secret::new([in_force; 32]), &accepted, &Secret::new([2; 32]))
    }

    #[test]
    fn r_023_sign_ins_under_way_of_every_format_go_on_whatever_becomes_of_the_shared_secret() {
        for value in PENDING {
            for ring in [ring(1, &[]), ring(1, &[3]), ring(3, &[1]), ring(3, &[])] {
                let found = PendingSignIn::open(&ring, NAME, value.as_bytes()).unwrap();
                assert_eq!((found.proof.state.as_str(), found.started), ("state", Timestamp::from_secs(1_800_000_000)));
                assert_eq!(found.request.redirect_uri.as_str(), "https://app.example.com/x");
            }
        }
    }

    #[test]
    #[ignore = "prints the fixtures of a new format"]
    fn print_the_fixtures() {
        let pending = PendingSignIn {
            request: SignInRequest {
                redirect_uri: Url::parse("https://app.example.com/x").unwrap(),
                idp: IdpId::new("main"),
                recipient: Recipient::Browser(FlowHash::from_bytes([3; 16])),
                restarted: false,
                additional_hosts: Vec::new(),
            },
            proof: Proof {
                state: "state".to_owned(),
                nonce: "nonce".to_owned(),
                verifier: Secret::new("verifier".to_owned()),
            },
            started: Timestamp::from_secs(1_800_000_000),
        };
        for ring in [ring(1, &[]), ring(1, &[3])] {
            println!("{}", pending.seal(&ring, NAME, (&pending.request.redirect_uri, &[])).unwrap());
        }
    }
}
