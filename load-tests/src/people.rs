//! Sessions as real ones are: somebody in eight groups, with tokens of the usual size.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use postern_identity::{Claims, IdpId, Keyring, Secret, Session, SessionId, Timestamp, Tokens, User};
use serde_json::{Value, json};

/// Somebody who is signed in.
#[derive(Debug, Clone)]
pub(crate) struct Person {
    pub(crate) id: SessionId,
    pub(crate) session: Session,
}

/// The keys of this installation.
pub(crate) fn keyring() -> Arc<Keyring> {
    static KEYRING: LazyLock<Arc<Keyring>> =
        LazyLock::new(|| Arc::new(Keyring::derive(&Secret::new(SHARED_SECRET), &Secret::new([2; 32]))));
    Arc::clone(&KEYRING)
}

/// `shared_secret`, for processes of the same installation.
pub(crate) const SHARED_SECRET: [u8; 32] = *b"the shared secret of load tests.";

pub(crate) fn now() -> Timestamp {
    SystemTime::now().into()
}

impl Person {
    /// A new session of a person of that number, for half a day.
    pub(crate) fn new(number: usize) -> Result<Self> {
        let id = SessionId::generate().context("no randomness")?;
        let (user, began) = (format!("00u{number:017}"), now());
        let session = Session {
            handle: id.handle(&keyring()),
            user: User {
                issuer: "https://idp.example".to_owned(),
                email: Some(format!("person-{number}@company.example")),
                email_verified: Some(true),
                name: Some(format!("Person Number {number}")),
                claims: claims(&json!({ "groups": GROUPS })),
                id: user.clone(),
            },
            claims: claims(&json!({ "sub": user, "amr": ["pwd", "otp"], "auth_time": began.as_secs() })),
            idp: IdpId::new("oidc https://idp.example client"),
            issued_at: began,
            expires_at: began.plus(HALF_A_DAY),
            idle: Some((Duration::from_secs(3600), began.plus(Duration::from_secs(3600)))),
            generation: 1,
        };
        Ok(Self { id, session })
    }

    /// Tokens as large as those of the usual providers, 1.8 kB: two JWTs, and a refresh token that only the provider reads.
    pub(crate) fn tokens(&self) -> Tokens {
        let jwt = |payload: usize| {
            // Bytes without an order; the id has so many that none says much of it.
            let noise = |length| self.id.as_bytes().iter().copied().cycle().take(length).collect::<Vec<_>>();
            let parts = [noise(60), noise(payload), noise(256)];
            Secret::new(parts.map(|part| URL_SAFE_NO_PAD.encode(part)).join("."))
        };
        let began = self.session.issued_at;
        Tokens {
            access: jwt(320),
            access_expires_at: Some(began.plus(Duration::from_secs(3600))),
            refresh: Some(Secret::new("0.ATQA".repeat(8))),
            id_token: jwt(357),
            refresh_at: Some(began.plus(Duration::from_secs(3000))),
        }
    }

    /// The tokens of a provider that issues none to refresh with.
    pub(crate) fn for_once(&self) -> Tokens {
        Tokens { refresh: None, refresh_at: None, ..self.tokens() }
    }

    /// Tokens that take next to no room.
    pub(crate) fn small_tokens(&self) -> Tokens {
        let word = |word: &str| Secret::new(word.to_owned());
        Tokens { access: word("a"), refresh: Some(word("r")), id_token: word("i"), ..self.tokens() }
    }
}

fn claims(value: &Value) -> Claims {
    value.as_object().map(Claims::flatten).unwrap_or_default()
}

const GROUPS: [&str; 8] =
    ["everyone", "engineering", "operations", "on-call", "vpn-users", "europe", "staff", "release-managers"];
const HALF_A_DAY: Duration = Duration::from_secs(12 * 3600);
