//! Credentials of ours that the upstream of a route is shown: those of a Kubernetes service account, and identity tokens of
//! Google's. Few routes have any.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::HeaderValue;
use postern_identity::Timestamp;
use tokio::sync::watch;
use tokio::time::timeout;

/// What the upstream of a route is shown of ours.
#[derive(Clone, Default)]
pub struct UpstreamCredentials {
    /// `kubernetes_service_account_token(_file)`, as the value of `Authorization`: whose right it is to impersonate people.
    pub kubernetes: Option<HeaderValue>,
    /// `enable_google_cloud_serverless_authentication`: the token that goes up in `X-Serverless-Authorization`.
    pub serverless: Option<Arc<IdentityToken>>,
}

impl UpstreamCredentials {
    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.kubernetes.is_none() && self.serverless.is_none()
    }
}

/// Whether the same is shown, now and later.
impl PartialEq for UpstreamCredentials {
    fn eq(&self, other: &Self) -> bool {
        let audience = |one: &Self| one.serverless.as_ref().map(|token| token.audience.clone());
        self.kubernetes == other.kubernetes && audience(self) == audience(other)
    }
}

impl Eq for UpstreamCredentials {}

impl fmt::Debug for UpstreamCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamCredentials")
            .field("kubernetes", &self.kubernetes.as_ref().map(|_| "[redacted]"))
            .field("serverless", &self.serverless)
            .finish()
    }
}

/// `Bearer TOKEN`, marked as a secret; `None`: the token fits no field.
#[must_use]
pub fn bearer(token: &str) -> Option<HeaderValue> {
    let fits = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    let mut value = fits.then(|| HeaderValue::try_from(format!("Bearer {token}")).ok()).flatten()?;
    value.set_sensitive(true);
    Some(value)
}

/// A token that says to one upstream who we are. Somebody else fetches it and puts it here; requests take it without waiting,
/// but for those that come before the first attempt to get one is over.
pub struct IdentityToken {
    audience: String,
    current: ArcSwapOption<Held>,
    /// Whether the first attempt is over.
    tried: watch::Sender<bool>,
}

/// A token and its times.
#[derive(Clone)]
struct Held {
    field: HeaderValue,
    expires_at: Timestamp,
    refresh_at: Timestamp,
}

impl IdentityToken {
    /// Of this audience, and not fetched yet.
    #[must_use]
    pub fn new(audience: String) -> Self {
        Self { audience, current: ArcSwapOption::empty(), tried: watch::Sender::new(false) }
    }

    /// Whom it is for: the origin of the upstream.
    #[must_use]
    pub fn audience(&self) -> &str {
        &self.audience
    }

    /// Puts a token here, which is good until `expires_at` and is to be replaced from `refresh_at` on. Gives whether it fits
    /// a field.
    pub fn put(&self, token: &str, expires_at: Timestamp, refresh_at: Timestamp) -> bool {
        let field = bearer(token);
        let fits = field.is_some();
        if let Some(field) = field {
            self.current.store(Some(Arc::new(Held { field, expires_at, refresh_at })));
        }
        self.tried.send_replace(true);
        fits
    }

    /// Notes that there was none to be had: nobody waits any more. One that is here stays until it expires.
    pub fn fail(&self) {
        self.tried.send_replace(true);
    }

    /// Takes what another one for the same audience holds.
    pub fn adopt(&self, other: &Self) {
        if let Some(held) = other.current.load_full() {
            self.current.store(Some(held));
            self.tried.send_replace(true);
        }
    }

    /// When the token that is here is to be replaced; `None`: there is none.
    #[must_use]
    pub fn refresh_at(&self) -> Option<Timestamp> {
        self.current.load().as_ref().map(|held| held.refresh_at)
    }

    /// The value of the field, if there is a token that has not expired.
    pub(crate) fn field(&self, now: Timestamp) -> Option<HeaderValue> {
        self.current.load().as_ref().filter(|held| now < held.expires_at).map(|held| held.field.clone())
    }

    /// Waits for the end of the first attempt, not longer than [`PATIENCE`].
    pub(crate) async fn tried(&self) {
        if self.current.load().is_none() {
            let mut tried = self.tried.subscribe();
            // Late or not, the request goes up; without the token its upstream refuses it.
            let _late = timeout(PATIENCE, tried.wait_for(|tried| *tried)).await.is_err();
        }
    }
}

impl fmt::Debug for IdentityToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdentityToken").field("audience", &self.audience).finish_non_exhaustive()
    }
}

/// How long a request waits for the first token of its upstream.
const PATIENCE: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn until(seconds: u64) -> Timestamp {
        NOW.plus(Duration::from_secs(seconds))
    }

    #[test]
    fn a_token_is_shown_until_it_expires_and_never_in_a_log() {
        let token = IdentityToken::new("https://a.example".to_owned());
        assert!(token.field(NOW).is_none() && token.refresh_at().is_none());
        assert!(token.put("a.b.c", until(60), until(45)));
        assert_eq!(token.field(until(59)).unwrap(), "Bearer a.b.c");
        assert_eq!(token.field(until(60)), None);
        assert_eq!(token.refresh_at(), Some(until(45)));
        assert!(!token.put("two words", until(120), until(100)), "it fits no field");
        assert_eq!(token.field(NOW).unwrap(), "Bearer a.b.c", "the old one stays");
        assert!(!format!("{token:?} {:?}", token.field(NOW)).contains("a.b.c"));
        let next = IdentityToken::new("https://a.example".to_owned());
        next.adopt(&token);
        assert_eq!(next.field(NOW).unwrap(), "Bearer a.b.c");
    }

    #[tokio::test(start_paused = true)]
    async fn r_004_the_first_token_is_waited_for_and_not_for_long() {
        let token = Arc::new(IdentityToken::new("https://a.example".to_owned()));
        let begun = tokio::time::Instant::now();
        token.tried().await;
        assert_eq!(begun.elapsed().as_secs(), PATIENCE.as_secs());
        let waiting = tokio::spawn({
            let token = Arc::clone(&token);
            async move { token.tried().await }
        });
        tokio::task::yield_now().await;
        token.put("a", until(60), until(45));
        waiting.await.unwrap();
        assert_eq!(begun.elapsed().as_secs(), PATIENCE.as_secs());
    }
}
