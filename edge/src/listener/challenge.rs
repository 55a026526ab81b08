//! What an authority looks at before it issues a certificate: that we answer for the name, in TLS (TLS-ALPN-01, RFC 8737) or
//! in plain HTTP (HTTP-01, RFC 8555 §8.3). Nothing else is answered with it.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio::sync::Semaphore;

use super::tls::provider;

/// What ALPN says where an authority looks.
pub(super) const ALPN: &[u8] = b"acme-tls/1";
/// Where it looks in plain HTTP.
pub(super) const PATH: &str = "/.well-known/acme-challenge/";

/// The challenges that are open; cheap to clone, and every clone is the same set.
#[derive(Clone, Default)]
pub struct Challenges(Arc<Inner>);

#[derive(Default)]
struct Inner {
    open: ArcSwap<Open>,
    elsewhere: ArcSwapOption<Elsewhere>,
    /// Elsewhere is looked for these names alone.
    expected: ArcSwap<HashSet<String>>,
}

/// Looks elsewhere under way at once; one that hangs keeps its place.
const PLACES: usize = 4;
/// A look elsewhere is not waited for longer.
const PATIENCE: Duration = Duration::from_secs(1);

struct Elsewhere {
    at: Arc<dyn ChallengesElsewhere>,
    places: Arc<Semaphore>,
}

/// Where the challenges of other processes are found: the authority may look at this one. It may block; what is asked for
/// comes from the wire.
pub trait ChallengesElsewhere: fmt::Debug + Send + Sync {
    /// The certificate and its key (PEM) that are to be shown for a name, in lower case.
    fn shown(&self, name: &str) -> Option<(Vec<u8>, Vec<u8>)>;
    /// What is to be said for a token that is asked for at a name.
    fn said(&self, name: &str, token: &str) -> Option<String>;
}

#[derive(Clone, Default)]
struct Open {
    /// By name.
    tls: HashMap<String, Arc<ServerConfig>>,
    /// By the end of the path.
    http: HashMap<String, String>,
}

/// A challenge cannot be answered: what is to be shown is no certificate with its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("what is to be shown is no certificate with its key")]
pub struct NoCertificate;

impl Challenges {
    /// Shows this certificate (PEM) to who asks for `name` with the ALPN of challenges.
    ///
    /// # Errors
    /// [`NoCertificate`].
    pub fn show(&self, name: &str, certificate: &[u8], key: &[u8]) -> Result<(), NoCertificate> {
        let config = config(certificate, key)?;
        self.change(|open| drop(open.tls.insert(name.to_ascii_lowercase(), Arc::clone(&config))));
        Ok(())
    }

    /// Answers `GET` of `token` below the path of challenges with `authorization`.
    pub fn say(&self, token: &str, authorization: &str) {
        self.change(|open| drop(open.http.insert(token.to_owned(), authorization.to_owned())));
    }

    /// Ends what was shown for `name` and said for `token`.
    pub fn end(&self, name: &str, token: &str) {
        self.change(|open| {
            open.tls.remove(&name.to_ascii_lowercase());
            open.http.remove(token);
        });
    }

    /// Looks there for what is not open here.
    pub fn look_elsewhere(&self, elsewhere: Option<Arc<dyn ChallengesElsewhere>>) {
        let places = Arc::new(Semaphore::new(PLACES));
        self.0.elsewhere.store(elsewhere.map(|at| Arc::new(Elsewhere { at, places })));
    }

    /// Looks elsewhere for these names (in lower case) and no other: strangers make nobody look.
    pub fn expect(&self, names: &[String]) {
        self.0.expected.store(Arc::new(names.iter().cloned().collect()));
    }

    fn change(&self, change: impl Fn(&mut Open)) {
        self.0.open.rcu(|open| {
            let mut open = Open::clone(open);
            change(&mut open);
            open
        });
    }

    /// How to shake hands with who looks at the challenge of this name.
    pub(super) async fn shown(&self, name: &str) -> Option<Arc<ServerConfig>> {
        let name = name.to_ascii_lowercase();
        let here = self.0.open.load().tls.get(&name).cloned();
        if here.is_some() {
            return here;
        }
        let (certificate, key) = self.elsewhere(name, |elsewhere, name| elsewhere.shown(name)).await?;
        config(&certificate, &key).ok()
    }

    /// What to say to who asks `host` for this path.
    pub(super) async fn said(&self, host: Option<&str>, path: &str) -> Option<String> {
        let token = path.strip_prefix(PATH)?;
        let here = self.0.open.load().http.get(token).cloned();
        if here.is_some() {
            return here;
        }
        let (host, token) = (host?.to_ascii_lowercase(), token.to_owned());
        self.elsewhere(host, move |elsewhere, name| elsewhere.said(name, &token)).await
    }

    /// On a thread that may block, if the name is one that somebody orders for; not for long, and few at once.
    async fn elsewhere<T: Send + 'static>(
        &self,
        name: String,
        ask: impl FnOnce(&dyn ChallengesElsewhere, &str) -> Option<T> + Send + 'static,
    ) -> Option<T> {
        if !self.0.expected.load().contains(&name) {
            return None;
        }
        let elsewhere = self.0.elsewhere.load_full()?;
        let look = async move {
            let place = Arc::clone(&elsewhere.places).acquire_owned().await.ok()?;
            let looking = tokio::task::spawn_blocking(move || {
                let _place = place;
                ask(elsewhere.at.as_ref(), &name)
            });
            looking.await.ok()?
        };
        tokio::time::timeout(PATIENCE, look).await.ok()?
    }
}

/// Shows this certificate, and is of no other use.
fn config(certificate: &[u8], key: &[u8]) -> Result<Arc<ServerConfig>, NoCertificate> {
    let certificate = CertificateDer::from_pem_slice(certificate).map_err(|_| NoCertificate)?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| NoCertificate)?;
    let provider = provider();
    let key = provider.key_provider.load_private_key(key).map_err(|_| NoCertificate)?;
    // Not looked at any further: it says in a critical field what no client but an authority understands.
    let shown = SingleCertAndKey::from(CertifiedKey::new(vec![certificate], key));
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|_| NoCertificate)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(shown));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

impl fmt::Debug for Challenges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let open = self.0.open.load();
        f.debug_struct("Challenges").field("tls", &open.tls.len()).field("http", &open.http.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made() -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["app.example".to_owned()]).unwrap();
        params.custom_extensions = vec![rcgen::CustomExtension::new_acme_identifier(&[7; 32])];
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    #[tokio::test]
    async fn a_challenge_is_answered_while_it_is_open_and_for_its_own_name_and_token_alone() {
        let (certificate, key) = made();
        let challenges = Challenges::default();
        let other = challenges.clone();
        challenges.show("App.example", certificate.as_bytes(), key.as_bytes()).unwrap();
        challenges.say("abc", "abc.print");
        assert!(other.shown("app.EXAMPLE").await.is_some() && other.shown("b.example").await.is_none());
        assert_eq!(
            other.said(Some("App.example"), "/.well-known/acme-challenge/abc").await.as_deref(),
            Some("abc.print")
        );
        for path in ["/.well-known/acme-challenge/", "/.well-known/acme-challenge/abcd", "/abc", "/"] {
            assert_eq!(other.said(Some("App.example"), path).await, None, "{path}");
        }
        challenges.end("app.example", "abc");
        assert!(other.shown("app.example").await.is_none());
        assert!(other.said(Some("App.example"), "/.well-known/acme-challenge/abc").await.is_none());
        assert_eq!(challenges.show("a", b"text", key.as_bytes()), Err(NoCertificate));
    }

    #[derive(Debug)]
    struct Other(String, String);

    impl ChallengesElsewhere for Other {
        fn shown(&self, name: &str) -> Option<(Vec<u8>, Vec<u8>)> {
            (name == "app.example").then(|| (self.0.clone().into_bytes(), self.1.clone().into_bytes()))
        }

        fn said(&self, name: &str, token: &str) -> Option<String> {
            (name == "app.example" && token == "abc").then(|| "abc.other".to_owned())
        }
    }

    #[tokio::test]
    async fn what_is_not_open_here_may_be_open_elsewhere() {
        let (certificate, key) = made();
        let challenges = Challenges::default();
        challenges.look_elsewhere(Some(Arc::new(Other(certificate, key))));
        assert!(challenges.shown("app.example").await.is_none(), "nobody orders for it");
        assert!(challenges.said(Some("app.example"), "/.well-known/acme-challenge/abc").await.is_none());
        challenges.expect(&["app.example".to_owned()]);
        for host in [None, Some("b.example")] {
            assert!(challenges.said(host, "/.well-known/acme-challenge/abc").await.is_none());
        }
        assert!(challenges.shown("App.example").await.is_some() && challenges.shown("b.example").await.is_none());
        assert_eq!(
            challenges.said(Some("App.example"), "/.well-known/acme-challenge/abc").await.as_deref(),
            Some("abc.other")
        );
        challenges.say("abc", "abc.here");
        assert_eq!(
            challenges.said(Some("App.example"), "/.well-known/acme-challenge/abc").await.as_deref(),
            Some("abc.here")
        );
        challenges.look_elsewhere(None);
        assert!(challenges.shown("app.example").await.is_none());
    }

    /// Looks only end when it is dropped elsewhere.
    #[derive(Debug)]
    struct Hangs(std::sync::atomic::AtomicUsize, std::sync::Mutex<std::sync::mpsc::Receiver<()>>);

    impl ChallengesElsewhere for Hangs {
        fn shown(&self, _: &str) -> Option<(Vec<u8>, Vec<u8>)> {
            None
        }

        fn said(&self, _: &str, _: &str) -> Option<String> {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let _until = self.1.lock().unwrap().recv();
            None
        }
    }

    #[tokio::test]
    async fn r_004_where_elsewhere_hangs_few_threads_do_and_nobody_waits_for_long() {
        let (release, until) = std::sync::mpsc::channel();
        let hangs = Arc::new(Hangs(0.into(), std::sync::Mutex::new(until)));
        let challenges = Challenges::default();
        challenges.look_elsewhere(Some(Arc::clone(&hangs) as Arc<dyn ChallengesElsewhere>));
        challenges.expect(&["app.example".to_owned()]);
        let ask = || {
            let challenges = challenges.clone();
            tokio::spawn(async move { challenges.said(Some("app.example"), "/.well-known/acme-challenge/abc").await })
        };
        for asked in (0..PLACES * 3).map(|_| ask()).collect::<Vec<_>>() {
            assert_eq!(asked.await.unwrap(), None);
        }
        assert_eq!(hangs.0.load(std::sync::atomic::Ordering::Relaxed), PLACES);
        drop(release);
    }
}
