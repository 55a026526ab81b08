//! Programs that ask as the person who runs them (02 §4.2): where a sign-in may hand them a credential, and what that is.

use serde_json::json;
use url::{Host, Url};

use crate::cookie::only_one;
use crate::token::{Form, jti};
use crate::{Keyring, Purpose, ServiceAccountToken, SessionCookie, SessionId, Timestamp};

/// `programmatic_redirect_domain_whitelist`: the hosts on which programs may wait for what a sign-in hands them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramHosts(Box<[String]>);

/// Longer addresses are no place to wait at: what a sign-in is for has to fit into a cookie while the provider is asked.
const MAX_TARGET: usize = 2 * 1024;

impl Default for ProgramHosts {
    /// This machine: `localhost`.
    fn default() -> Self {
        Self::new(["localhost"])
    }
}

impl ProgramHosts {
    /// Those names; `localhost` stands for every loopback address as well.
    #[must_use]
    pub fn new<'n>(names: impl IntoIterator<Item = &'n str>) -> Self {
        Self(names.into_iter().map(str::to_ascii_lowercase).collect())
    }

    /// Whether a program may wait there: http or https, on a host of the list, on any port.
    #[must_use]
    pub fn allow(&self, target: &Url) -> bool {
        let text = target.as_str();
        let is_loopback = match target.host() {
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            Some(Host::Domain(_)) | None => false,
        };
        let is_listed = |name: &String| target.host_str() == Some(name) || is_loopback && name == "localhost";
        matches!(target.scheme(), "http" | "https")
            && target.username().is_empty()
            && target.password().is_none()
            && target.fragment().is_none()
            && text.len() <= MAX_TARGET
            && !text.bytes().any(|byte| byte <= b' ' || byte == b'\\' || byte == 0x7f)
            && self.0.iter().any(is_listed)
    }

    /// The names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

/// What a program shows in place of the cookie: a session bound to one host, as the cookie is.
#[derive(Debug)]
pub struct ProgramToken;

/// `{"alg":"HS256","typ":"JWT"}`.
const FORM: Form = Form { header: "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9", purpose: Purpose::ProgramToken };

impl ProgramToken {
    /// The token that makes `id` a session on `scope` (see [`SessionCookie::seal`]). `expires_at` is for the client to see; what
    /// counts is the session itself.
    #[must_use]
    pub fn seal(keyring: &Keyring, scope: &str, id: &SessionId, expires_at: Timestamp) -> String {
        FORM.seal(keyring, scope, id, &json!({"aud": scope, "exp": expires_at.as_secs(), "jti": jti(id)}))
    }

    /// The session id in a token, if it is one of ours for `scope`; any change of a byte gives `None` (S-083).
    #[must_use]
    pub fn open(keyring: &Keyring, scope: &str, token: &[u8]) -> Option<SessionId> {
        FORM.open(keyring, scope, token)
    }
}

/// Whom a credential names: a person's session or a service account. Neither ever passes for the other (S-096).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    /// A session of that id.
    Session(SessionId),
    /// A service account of that id.
    ServiceAccount(SessionId),
}

impl Shown {
    /// The one that `values` of a program name, each a token or what the cookie holds; see [`only_one`].
    #[must_use]
    pub fn one<'v>(keyring: &Keyring, scope: &str, values: impl IntoIterator<Item = &'v [u8]>) -> Option<Self> {
        only_one(values, |value| {
            let session =
                ProgramToken::open(keyring, scope, value).or_else(|| SessionCookie::open(keyring, scope, value));
            session.map(Self::Session).or_else(|| ServiceAccountToken::open(keyring, value).map(Self::ServiceAccount))
        })
    }

    /// Under which the store knows it.
    #[must_use]
    pub const fn id(&self) -> &SessionId {
        match self {
            Self::Session(id) | Self::ServiceAccount(id) => id,
        }
    }

    /// Whether it is no person's.
    #[must_use]
    pub const fn is_service_account(&self) -> bool {
        matches!(self, Self::ServiceAccount(_))
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::Value;

    use super::*;
    use crate::Secret;

    fn allow(names: &[&str], target: &str) -> bool {
        ProgramHosts::new(names.iter().copied()).allow(&Url::parse(target).unwrap())
    }

    #[test]
    fn s_086_programs_wait_on_listed_hosts_alone() {
        for good in [
            "http://localhost/",
            "http://LOCALHOST:8080/x?y=z",
            "https://localhost:1/",
            "http://127.0.0.1:39000",
            "http://127.9.9.9/",
            "http://[::1]:5/",
        ] {
            assert!(allow(&["localhost"], good), "{good}");
            assert!(!allow(&["cli.example.com"], good), "{good}");
        }
        assert!(allow(&["cli.example.com"], "https://CLI.example.com:8443/back"));
        assert!(allow(&["10.0.0.7"], "http://10.0.0.7/"));
        for bad in [
            "http://evil.example/",
            "http://localhost.evil.example/",
            "http://evil.localhost/",
            "http://user@localhost/",
            "http://:pw@localhost/",
            "http://localhost/#token",
            "http://[::ffff:10.0.0.1]/",
            "http://10.0.0.1/",
            "http://0.0.0.0/",
            "ftp://localhost/",
            "javascript://localhost/%0aalert(1)",
            "data:text/html,localhost",
        ] {
            assert!(!allow(&["localhost"], bad), "{bad}");
        }
        assert!(!allow(&["localhost"], &format!("http://localhost/{}", "a".repeat(MAX_TARGET))));
        assert_eq!(ProgramHosts::default(), ProgramHosts::new(["localhost"]));
    }

    fn keyring() -> Keyring {
        Keyring::derive(&Secret::new([1; 32]), &Secret::new([2; 32]))
    }

    #[test]
    fn s_089_a_token_of_one_host_is_no_session_on_another() {
        let (ring, id) = (keyring(), SessionId::from_bytes([7; 32]));
        let token = ProgramToken::seal(&ring, "a.example.com", &id, Timestamp::from_secs(1_900_000_000));
        assert_eq!(ProgramToken::open(&ring, "a.example.com", token.as_bytes()), Some(id));
        assert_eq!(ProgramToken::open(&ring, "b.example.com", token.as_bytes()), None);
        assert_eq!(SessionCookie::open(&ring, "a.example.com", token.as_bytes()), None);
        let [header, claims, _] = *token.split('.').collect::<Vec<_>>() else { panic!("{token}") };
        let read = |part: &str| serde_json::from_slice::<Value>(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
        assert_eq!(read(header), json!({"alg": "HS256", "typ": "JWT"}));
        assert_eq!(read(claims).get("exp"), Some(&json!(1_900_000_000)));
    }

    #[test]
    fn s_083_any_changed_byte_of_a_token_is_no_session() {
        let ring = keyring();
        let token = ProgramToken::seal(&ring, "h", &SessionId::from_bytes([9; 32]), Timestamp::from_secs(1));
        for index in 0..token.len() {
            for byte in [b'A', b'z', b'-', b'.', b'=', b' ', 0, 0xff] {
                let mut damaged = token.clone().into_bytes();
                if damaged[index] != byte {
                    damaged[index] = byte;
                    assert_eq!(ProgramToken::open(&ring, "h", &damaged), None, "byte {index} is {byte}");
                }
            }
        }
        for odd in [
            "",
            ".",
            "..",
            FORM.header,
            &format!("{}.", FORM.header),
            &format!("{}..", FORM.header),
            &format!("{token}."),
        ] {
            assert_eq!(ProgramToken::open(&ring, "h", odd.as_bytes()), None, "{odd}");
        }
        assert_eq!(ProgramToken::open(&ring, "h", "a".repeat(1 << 20).as_bytes()), None);
    }

    #[test]
    fn programs_may_show_either_form_and_two_sessions_are_none() {
        let (ring, one, other) = (keyring(), SessionId::from_bytes([1; 32]), SessionId::from_bytes([2; 32]));
        let token = ProgramToken::seal(&ring, "h", &one, Timestamp::from_secs(1));
        let (same, different) = (SessionCookie::seal(&ring, "h", &one), SessionCookie::seal(&ring, "h", &other));
        let shown = |values: &[&str]| Shown::one(&ring, "h", values.iter().map(|value| value.as_bytes()));
        assert_eq!(shown(&[&token]), Some(Shown::Session(one.clone())));
        assert_eq!(shown(&[&same, "junk", &token]), Some(Shown::Session(one)));
        assert_eq!(shown(&[&token, &different]), None);
        assert_eq!(shown(&["junk"]), None);
    }
}
