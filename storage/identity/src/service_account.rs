//! Programs that ask as nobody who signs in (02 §4.3): an operator gives them a name, and a credential.

use serde_json::json;

use crate::token::{Form, jti};
use crate::{IdpId, Keyring, Purpose, SessionId, Timestamp};

/// What a service account has in the place of a provider and of its issuer, since none vouches for it. No provider is called so.
pub const SERVICE_ACCOUNT: &str = "service-account";

/// The end of a service account that has none: later than anybody waits, and a time that every store and reader can hold.
pub const NEVER: Timestamp = Timestamp::from_secs(253_370_764_800);

impl IdpId {
    /// That of every service account.
    #[must_use]
    pub fn service_account() -> Self {
        Self::new(SERVICE_ACCOUNT)
    }
}

/// What a service account shows, on every host of the installation.
#[derive(Debug)]
pub struct ServiceAccountToken;

/// `{"alg":"HS256","typ":"postern-service-account+jwt"}`.
const FORM: Form = Form {
    header: "eyJhbGciOiJIUzI1NiIsInR5cCI6InBvc3Rlcm4tc2VydmljZS1hY2NvdW50K2p3dCJ9",
    purpose: Purpose::ServiceAccountToken,
};
/// Whom it is for.
const AUDIENCE: &str = "postern:service-account";

impl ServiceAccountToken {
    /// The token of the service account `id`, of that user. The times are for who holds it to see; what counts is the record.
    #[must_use]
    pub fn seal(keyring: &Keyring, id: &SessionId, user: &str, issued_at: Timestamp, expires_at: Timestamp) -> String {
        let mut claims = json!({"aud": AUDIENCE, "iat": issued_at.as_secs(), "jti": jti(id), "sub": user, "exp": expires_at.as_secs()});
        if let Some(claims) = claims.as_object_mut().filter(|_| expires_at >= NEVER) {
            claims.remove("exp");
        }
        FORM.seal(keyring, AUDIENCE, id, &claims)
    }

    /// The id in a token, if it is one of ours; any change of a byte gives `None` (S-083).
    #[must_use]
    pub fn open(keyring: &Keyring, token: &[u8]) -> Option<SessionId> {
        FORM.open(keyring, AUDIENCE, token)
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::Value;

    use super::*;
    use crate::token::MAX_TOKEN;
    use crate::{ProgramToken, Secret, SessionCookie, Shown};

    fn ring(in_force: u8, accepted: &[u8]) -> Keyring {
        let accepted: Vec<_> = accepted.iter().map(|byte| Secret::new([*byte; 32])).collect();
        Keyring::derive_with(&Secret::new([in_force; 32]), &accepted, &Secret::new([2; 32]))
    }

    fn id() -> SessionId {
        SessionId::from_bytes([7; 32])
    }

    fn token(ring: &Keyring, user: &str) -> String {
        ServiceAccountToken::seal(ring, &id(), user, Timestamp::from_secs(1), Timestamp::from_secs(2))
    }

    #[test]
    fn s_096_a_token_says_what_it_is_and_whom_it_is_for() {
        let ring = ring(1, &[]);
        let read = |token: &str| -> Vec<Value> {
            let parts = token.split('.').take(2).map(|part| URL_SAFE_NO_PAD.decode(part).unwrap());
            parts.map(|part| serde_json::from_slice(&part).unwrap()).collect()
        };
        let [header, claims] = &read(&token(&ring, "ci"))[..] else { panic!() };
        assert_eq!(*header, json!({"alg": "HS256", "typ": "postern-service-account+jwt"}));
        let jti = URL_SAFE_NO_PAD.encode([7; 32]);
        assert_eq!(*claims, json!({"aud": "postern:service-account", "sub": "ci", "jti": jti, "iat": 1, "exp": 2}));
        let endless = ServiceAccountToken::seal(&ring, &id(), "ci", Timestamp::from_secs(1), NEVER);
        assert_eq!(read(&endless)[1].get("exp"), None);
        assert_eq!(ServiceAccountToken::open(&ring, endless.as_bytes()), Some(id()));
    }

    #[test]
    fn s_096_neither_a_cookie_nor_a_token_of_a_person_is_one_and_the_other_way_round() {
        let ring = ring(1, &[]);
        let own = token(&ring, "ci");
        for scope in ["h", AUDIENCE] {
            let of_a_person = ProgramToken::seal(&ring, scope, &id(), Timestamp::from_secs(2));
            let cookie = SessionCookie::seal(&ring, scope, &id());
            let dressed = |text: &str| text.split_once('.').map(|(_, rest)| format!("{}.{rest}", FORM.header)).unwrap();
            for other in [cookie.as_str(), &of_a_person, &dressed(&of_a_person)] {
                assert_eq!(ServiceAccountToken::open(&ring, other.as_bytes()), None, "{other}");
            }
            let as_a_persons = own.replace(FORM.header, of_a_person.split('.').next().unwrap());
            for text in [&own, &as_a_persons] {
                assert_eq!(ProgramToken::open(&ring, scope, text.as_bytes()), None);
                assert_eq!(SessionCookie::open(&ring, scope, text.as_bytes()), None);
            }
            let shown = |values: &[&str]| Shown::one(&ring, scope, values.iter().map(|value| value.as_bytes()));
            assert_eq!(shown(&[&own]), Some(Shown::ServiceAccount(id())));
            assert_eq!(shown(&[&of_a_person]), Some(Shown::Session(id())));
            assert_eq!(shown(&[&own, &cookie]), None, "two are none");
        }
    }

    #[test]
    fn s_083_any_changed_byte_of_a_token_is_none() {
        let ring = ring(1, &[]);
        let token = token(&ring, "ci");
        for index in 0..token.len() {
            for byte in [b'A', b'z', b'-', b'.', b'=', b' ', 0, 0xff] {
                let mut damaged = token.clone().into_bytes();
                if damaged[index] != byte {
                    damaged[index] = byte;
                    assert_eq!(ServiceAccountToken::open(&ring, &damaged), None, "byte {index} is {byte}");
                }
            }
        }
    }

    /// What a token looks like: of `[7; 32]` and `ci`, under the first of the secrets below.
    const FIRST: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6InBvc3Rlcm4tc2VydmljZS1hY2NvdW50K2p3dCJ9.eyJhdWQiOiJwb3N0ZXJuOnNlcnZpY2UtYWNjb3VudCIsImlhdCI6MSwianRpIjoiQndjSEJ3Y0hCd2NIQndjSEJ3Y0hCd2NIQndjSEJ3Y0hCd2NIQndjSEJ3YyIsInN1YiI6ImNpIiwiZXhwIjoyfQ.VSOgTmt193u7Wn6g-kDfjFV13vT410-7N7wM90Ibgrk";

    #[test]
    fn s_111_a_token_is_good_as_long_as_its_secret_is_known() {
        let name = id().handle(&ring(1, &[]));
        for ring in [ring(1, &[]), ring(1, &[3]), ring(3, &[1]), ring(4, &[3, 1])] {
            let opened = ServiceAccountToken::open(&ring, FIRST.as_bytes());
            assert_eq!(opened.map(|id| id.handle(&ring)), Some(name), "r_023: those that are out there stay good");
        }
        assert_eq!(ServiceAccountToken::open(&ring(3, &[]), FIRST.as_bytes()), None);
    }

    #[test]
    fn the_longest_user_that_may_be_named_fits() {
        let ring = ring(1, &[]);
        let long = token(&ring, &"\"".repeat(256));
        assert!(long.len() <= MAX_TOKEN, "{}", long.len());
        assert_eq!(ServiceAccountToken::open(&ring, long.as_bytes()), Some(id()));
    }

    #[test]
    fn never_is_a_time_that_can_be_written_and_counted_by_scripts() {
        assert_eq!(NEVER.to_string(), "9999-01-01T00:00:00Z");
        assert!(NEVER.as_millis() < 1 << 53);
    }
}
