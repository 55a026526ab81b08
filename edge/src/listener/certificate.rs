//! The certificates of the public listener: which one a name gets, and how they are replaced while it runs.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use postern_identity::{Secret, Timestamp};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{SignatureAlgorithm, SignatureScheme};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use super::CertificateNames;
use crate::config;
use crate::file::read_regular;

/// Why a certificate cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The listener speaks TLS and has nothing to show.
    #[error(
        "there is no certificate: set `certificate_file` and `certificate_key_file`, or `insecure_server` behind something that ends TLS"
    )]
    None,
    /// A file could not be read.
    #[error("{path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The chain is not PEM certificates, or the first of them cannot be parsed.
    #[error("{origin}: not a PEM certificate chain")]
    Chain {
        /// Where it came from.
        origin: String,
    },
    /// The key is not a PEM key of a kind that can sign.
    #[error("{origin}: not a usable private key")]
    Key {
        /// Where it came from.
        origin: String,
    },
    /// The certificate must be shown with an OCSP staple, and nobody gets one for it.
    #[error(
        "{origin}: it must be shown with an OCSP staple (must-staple), and Postern staples only what `autocert` orders"
    )]
    Staple {
        /// Where it came from.
        origin: String,
    },
    /// The key does not belong to the certificate.
    #[error("{origin}: the key does not belong to the certificate")]
    Mismatch {
        /// Where it came from.
        origin: String,
    },
}

/// One certificate with its key, ready to serve.
#[derive(Debug, Clone)]
pub(crate) struct Certificate {
    key: Arc<CertifiedKey>,
    /// The same with its OCSP staple, and until when that is good.
    stapled: Option<(Arc<CertifiedKey>, Timestamp)>,
    /// Lower-case DNS names of the leaf; wildcards as `*.parent`.
    names: Vec<String>,
    /// What it is called in metrics and logs: its first name.
    pub(crate) name: String,
    /// When it expires.
    pub(crate) not_after: Timestamp,
    /// Where it was read.
    pub(crate) origin: String,
    /// Of the bytes it was made from.
    source: [u8; 32],
}

/// The certificates as they are now.
#[derive(Debug, Default)]
pub(crate) struct CertificateSet {
    pub(crate) certificates: Vec<Certificate>,
    exact: HashMap<String, Choice>,
    /// By the parent of `*.parent`.
    wildcard: HashMap<String, Choice>,
}

/// The certificates of one name, the first of each kind of key, in order of preference.
type Choice = Vec<usize>;

/// What is served where no name fits.
const FIRST: &[usize] = &[0];

impl CertificateSet {
    fn new(certificates: Vec<Certificate>) -> Self {
        let mut set = Self::default();
        for (index, certificate) in certificates.iter().enumerate() {
            for name in &certificate.names {
                let choice = match name.strip_prefix("*.") {
                    Some(parent) => set.wildcard.entry(parent.to_owned()).or_default(),
                    None => set.exact.entry(name.clone()).or_default(),
                };
                let kinds = choice.iter().filter_map(|other| certificates.get(*other)).map(Certificate::kind);
                if kinds.into_iter().all(|kind| kind != certificate.kind()) {
                    choice.push(index);
                }
            }
        }
        Self { certificates, ..set }
    }

    /// Exact name, else wildcard of one label, else the first and those that are for its name too (01 §1.5).
    fn choice(&self, name: Option<&str>) -> &[usize] {
        let exact = |name: &str| self.exact.get(name).map(Vec::as_slice);
        let lookup = |name: &str| {
            let wildcard = || name.split_once('.').and_then(|(_, parent)| self.wildcard.get(parent));
            exact(name).or_else(|| wildcard().map(Vec::as_slice))
        };
        let first = || {
            let name = self.certificates.first().map(|first| first.name.as_str());
            let choice = name.and_then(|name| match name.strip_prefix("*.") {
                Some(parent) => self.wildcard.get(parent).map(Vec::as_slice),
                None => exact(name),
            });
            choice.filter(|choice| choice.first() == Some(&0)).unwrap_or(FIRST)
        };
        name.and_then(lookup).unwrap_or_else(first)
    }

    /// The one of them that this client can verify; the first, if it can none.
    fn find(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<&Certificate> {
        let choice = self.choice(name);
        let mut found = choice.iter().filter_map(|index| self.certificates.get(*index));
        let first = found.clone().next();
        match choice.len() {
            1 => first,
            _ => found.find(|one| one.key.key.choose_scheme(schemes).is_some()).or(first),
        }
    }
}

impl Certificate {
    /// What a client is shown: with the staple for as long as that is good, whoever should have replaced it.
    fn shown(&self, now: impl FnOnce() -> Timestamp) -> &Arc<CertifiedKey> {
        match &self.stapled {
            Some((stapled, until)) if now() < *until => stapled,
            Some(_) | None => &self.key,
        }
    }

    /// The kind of its key, for metrics and logs.
    pub(crate) fn kind(&self) -> &'static str {
        let kinds = [
            (SignatureAlgorithm::ECDSA, "ecdsa"),
            (SignatureAlgorithm::RSA, "rsa"),
            (SignatureAlgorithm::ED25519, "ed25519"),
        ];
        let algorithm = self.key.key.algorithm();
        kinds.into_iter().find(|(kind, _)| *kind == algorithm).map_or("other", |(_, name)| name)
    }
}

/// Certificates that an authority issues while the process runs; cheap to clone, and every clone is the same set.
#[derive(Debug, Clone, Default)]
pub struct IssuedCertificates(Arc<ArcSwap<Vec<Issued>>>);

/// One of them.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The name that it is for.
    pub name: String,
    /// PEM chain, leaf first.
    pub chain: Vec<u8>,
    /// PEM key.
    pub key: Secret<Vec<u8>>,
    /// What is stapled to it.
    pub staple: Option<Staple>,
}

/// An OCSP response that says that a certificate is good (RFC 6960). Who makes one has verified it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Staple {
    /// As it goes over the wire, DER.
    pub response: Vec<u8>,
    /// When what it says was known to be so.
    pub from: Timestamp,
    /// Nobody is shown it from then on.
    pub until: Timestamp,
}

impl IssuedCertificates {
    /// Puts these in place of those that were there. The listener serves them once it reads its certificates again.
    pub fn replace(&self, issued: Vec<Issued>) {
        self.0.store(Arc::new(issued));
    }
}

/// The certificates of a listener, replaced as a whole while connections come in.
#[derive(Debug)]
pub(crate) struct CertificateStore {
    set: ArcSwap<CertificateSet>,
    provider: Arc<CryptoProvider>,
}

impl CertificateStore {
    /// Reads everything that is configured.
    ///
    /// # Errors
    /// [`CertificateError`]: at start, one bad pair is enough, unless it was issued: who issues it again mends that.
    pub(crate) fn open(
        configured: &config::Certificates,
        provider: Arc<CryptoProvider>,
    ) -> Result<Arc<Self>, CertificateError> {
        let mut certificates = Vec::new();
        for source in sources(configured) {
            match (source.read().and_then(|pem| pem.parse(&provider)), &source) {
                (Ok(certificate), _) => certificates.push(certificate),
                (Err(error), Source::Issued(issued)) => {
                    tracing::warn!(%error, name = issued.name, "what was issued is not served");
                }
                (Err(error), Source::Here(..) | Source::Files(_)) => return Err(error),
            }
        }
        if certificates.is_empty() {
            return Err(CertificateError::None);
        }
        let set = ArcSwap::from_pointee(CertificateSet::new(certificates));
        Ok(Arc::new(Self { set, provider }))
    }

    /// Reads everything again. A pair that is broken keeps its old certificate, if it has one; the others are replaced.
    /// Gives whether anything changed, and what is wrong.
    pub(crate) fn reload(&self, configured: &config::Certificates) -> (bool, Vec<CertificateError>) {
        let old = self.set.load();
        let by_origin: HashMap<_, _> = old.certificates.iter().map(|one| (one.origin.as_str(), one)).collect();
        let (mut fresh, mut errors) = (Vec::new(), Vec::new());
        for source in sources(configured) {
            let before = by_origin.get(source.origin().as_str()).copied();
            match source.read().and_then(|pem| self.parse_unless_same(&pem, before)) {
                Ok(certificate) => fresh.push(certificate),
                Err(error) => {
                    errors.push(error);
                    fresh.extend(before.cloned());
                }
            }
        }
        // Their order counts too: the first is served where no name fits.
        let content = |certificates: &[Certificate]| certificates.iter().map(|one| one.source).collect::<Vec<_>>();
        let changed = !fresh.is_empty() && content(&fresh) != content(&old.certificates);
        if changed {
            self.set.store(Arc::new(CertificateSet::new(fresh)));
        }
        (changed, errors)
    }

    fn parse_unless_same(&self, pem: &Pem, before: Option<&Certificate>) -> Result<Certificate, CertificateError> {
        match before {
            Some(before) if before.source == pem.digest() => Ok(before.clone()),
            _ => pem.parse(&self.provider),
        }
    }

    /// The set as it is now.
    pub(crate) fn current(&self) -> Arc<CertificateSet> {
        self.set.load_full()
    }
}

impl ResolvesServerCert for CertificateStore {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let set = self.set.load();
        let name = hello.server_name().map(str::to_ascii_lowercase);
        let certificate = set.find(name.as_deref(), hello.signature_schemes())?;
        Some(Arc::clone(certificate.shown(|| SystemTime::now().into())))
    }
}

impl CertificateNames for CertificateStore {
    fn same_certificate(&self, sni: Option<&str>, host: &str) -> bool {
        let set = self.set.load();
        set.choice(sni) == set.choice(Some(host))
    }
}

/// Where a pair comes from.
enum Source<'a> {
    /// What it is called, its number, chain and key.
    Here(&'static str, usize, &'a [u8], &'a [u8]),
    Issued(Issued),
    Files(&'a config::CertifiedFiles),
}

/// In the order of 01 §1.5.
fn sources(configured: &config::Certificates) -> Vec<Source<'_>> {
    let inline = here("certificate", &configured.inline);
    let last = here("last certificate", &configured.last);
    let issued = configured.issued.0.load_full();
    let issued: Vec<_> = issued.iter().cloned().map(Source::Issued).collect();
    inline.chain(configured.files.iter().map(Source::Files)).chain(issued).chain(last).collect()
}

fn here<'a>(what: &'static str, pairs: &'a [(Vec<u8>, Secret<Vec<u8>>)]) -> impl Iterator<Item = Source<'a>> {
    pairs.iter().zip(1..).map(move |((chain, key), number)| Source::Here(what, number, chain, key.expose()))
}

impl Source<'_> {
    fn origin(&self) -> String {
        match self {
            Self::Here(what, number, ..) => format!("{what} {number}"),
            Self::Issued(issued) => format!("the certificate that was issued for {}", issued.name),
            Self::Files(files) => files.certificate.display().to_string(),
        }
    }

    fn read(&self) -> Result<Pem, CertificateError> {
        let (chain, key) = match self {
            Self::Here(_, _, chain, key) => (chain.to_vec(), key.to_vec()),
            Self::Issued(issued) => (issued.chain.clone(), issued.key.expose().clone()),
            Self::Files(files) => (read_file(&files.certificate)?, read_file(&files.key)?),
        };
        let stapled = match self {
            Self::Issued(issued) => Stapled::Perhaps(issued.staple.clone()),
            Self::Here(..) | Self::Files(_) => Stapled::Never,
        };
        Ok(Pem { origin: self.origin(), chain, key, stapled })
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, CertificateError> {
    read_regular(path, MAX_FILE).map_err(|source| CertificateError::Unreadable { path: path.to_owned(), source })
}

/// The largest certificate or key that is read (01 §1.5).
const MAX_FILE: u64 = 5 << 20;

struct Pem {
    origin: String,
    chain: Vec<u8>,
    key: Vec<u8>,
    stapled: Stapled,
}

/// Whether somebody gets staples for a certificate.
enum Stapled {
    Never,
    /// There may be none yet: to serve a certificate without is better than not at all.
    Perhaps(Option<Staple>),
}

impl Pem {
    fn digest(&self) -> [u8; 32] {
        let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        let staple = self.staple().map(|staple| staple.response.as_slice()).unwrap_or_default();
        for part in [&self.chain, &self.key] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        context.update(staple);
        let mut digest = [0; 32];
        digest.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
        digest
    }

    const fn staple(&self) -> Option<&Staple> {
        match &self.stapled {
            Stapled::Perhaps(staple) => staple.as_ref(),
            Stapled::Never => None,
        }
    }

    fn parse(&self, provider: &CryptoProvider) -> Result<Certificate, CertificateError> {
        let broken_chain = || CertificateError::Chain { origin: self.origin.clone() };
        let broken_key = || CertificateError::Key { origin: self.origin.clone() };
        let chain: Vec<_> =
            CertificateDer::pem_slice_iter(&self.chain).collect::<Result<_, _>>().map_err(|_| broken_chain())?;
        let (names, not_after) = chain.first().and_then(|leaf| describe(leaf)).ok_or_else(broken_chain)?;
        if matches!(self.stapled, Stapled::Never) && chain.first().is_some_and(|leaf| demands_staple(leaf)) {
            return Err(CertificateError::Staple { origin: self.origin.clone() });
        }
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|_| broken_key())?;
        let key = provider.key_provider.load_private_key(key).map_err(|_| broken_key())?;
        let key = CertifiedKey::new(chain, key);
        if key.keys_match().is_err() {
            return Err(CertificateError::Mismatch { origin: self.origin.clone() });
        }
        let name = names.first().cloned().unwrap_or_else(|| self.origin.clone());
        let origin = self.origin.clone();
        let stapled = self.staple().map(|staple| {
            let stapled = CertifiedKey { ocsp: Some(staple.response.clone()), ..key.clone() };
            (Arc::new(stapled), staple.until)
        });
        Ok(Certificate { key: Arc::new(key), stapled, names, name, not_after, origin, source: self.digest() })
    }
}

/// Whether a certificate says that it is worth nothing without an OCSP staple (RFC 7633): browsers refuse it then.
#[must_use]
pub fn demands_staple(leaf: &[u8]) -> bool {
    // A list of TLS extensions, of which 5 asks for a status.
    const FEATURES: &str = "1.3.6.1.5.5.7.1.24";
    const STATUS: [u8; 3] = [0x02, 0x01, 0x05];
    X509Certificate::from_der(leaf).is_ok_and(|(_, certificate)| {
        let mut extensions = certificate.extensions().iter();
        let features = extensions.find(|extension| extension.oid.to_id_string() == FEATURES);
        features.is_some_and(|features| features.value.windows(STATUS.len()).any(|part| part == STATUS))
    })
}

/// The DNS names of the first certificate in a PEM chain, in lower case; none if there is none that can be read.
#[must_use]
pub fn certified_names(chain: &[u8]) -> Vec<String> {
    let leaf = CertificateDer::from_pem_slice(chain).ok();
    leaf.and_then(|leaf| describe(&leaf)).map(|(names, _)| names).unwrap_or_default()
}

/// The DNS names of a leaf and when it expires.
fn describe(leaf: &[u8]) -> Option<(Vec<String>, Timestamp)> {
    let (_, certificate) = X509Certificate::from_der(leaf).ok()?;
    let alternatives = certificate.subject_alternative_name().ok().flatten();
    let names = alternatives
        .iter()
        .flat_map(|names| &names.value.general_names)
        .filter_map(|name| if let GeneralName::DNSName(name) = name { Some(name.to_ascii_lowercase()) } else { None });
    Some((names.collect(), Timestamp::from_secs(certificate.validity().not_after.timestamp())))
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn pair(names: &[&str]) -> (Vec<u8>, Secret<Vec<u8>>) {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        (made.cert.pem().into_bytes(), Secret::new(made.signing_key.serialize_pem().into_bytes()))
    }

    fn store(inline: Vec<(Vec<u8>, Secret<Vec<u8>>)>) -> Result<Arc<CertificateStore>, CertificateError> {
        let configured = config::Certificates { inline, ..config::Certificates::default() };
        CertificateStore::open(&configured, Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
    }

    fn served(store: &CertificateStore, name: Option<&str>) -> usize {
        store.current().choice(name)[0]
    }

    #[test]
    fn a_name_gets_its_exact_certificate_then_a_wildcard_then_the_first() {
        let store = store(vec![pair(&["first.example"]), pair(&["*.a.example"]), pair(&["B.a.example"])]).unwrap();
        assert_eq!(served(&store, Some("b.a.example")), 2);
        assert_eq!(served(&store, Some("c.a.example")), 1);
        assert_eq!(served(&store, Some("x.c.a.example")), 0, "a wildcard covers one label");
        assert_eq!(served(&store, Some("a.example")), 0);
        assert_eq!(served(&store, None), 0);
    }

    #[test]
    fn s_029_names_under_different_certificates_are_told_apart() {
        let store = store(vec![pair(&["a.example", "*.a.example"]), pair(&["b.example"])]).unwrap();
        assert!(store.same_certificate(Some("a.example"), "x.a.example"));
        assert!(!store.same_certificate(Some("a.example"), "b.example"));
        assert!(store.same_certificate(None, "unknown.example"), "without SNI: what the default certificate serves");
        assert!(!store.same_certificate(None, "b.example"));
    }

    fn rsa(names: &[&str]) -> (Vec<u8>, Secret<Vec<u8>>) {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
        let certificate = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        (certificate.pem().into_bytes(), Secret::new(key.serialize_pem().into_bytes()))
    }

    #[test]
    fn of_two_kinds_of_key_for_one_name_a_client_gets_the_one_that_it_can_verify() {
        let pairs =
            vec![pair(&["a.example", "*.a.example"]), rsa(&["a.example"]), rsa(&["*.a.example"]), pair(&["a.example"])];
        let store = store(pairs).unwrap();
        let current = store.current();
        let kind = |name, schemes: &[SignatureScheme]| current.find(name, schemes).unwrap().kind();
        let (new, old) = (SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::RSA_PSS_SHA256);
        for name in [Some("a.example"), Some("x.a.example"), None, Some("unknown.example")] {
            assert_eq!(kind(name, &[old, new]), "ecdsa", "{name:?}: the order is ours");
            assert_eq!(kind(name, &[old]), "rsa", "{name:?}");
            assert_eq!(kind(name, &[]), "ecdsa", "{name:?}");
        }
        assert_eq!(current.choice(Some("a.example")), [0, 1], "the first of each kind");
        assert!(store.same_certificate(Some("a.example"), "unknown.example"));
        assert!(!store.same_certificate(Some("a.example"), "x.a.example"), "an old client would see another one");
    }

    /// A certificate with a list of TLS features.
    fn featured(features: &[u8]) -> (Vec<u8>, Secret<Vec<u8>>) {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        let oid = [1, 3, 6, 1, 5, 5, 7, 1, 24];
        params.custom_extensions.push(rcgen::CustomExtension::from_oid_content(&oid, features.to_vec()));
        let certificate = params.self_signed(&key).unwrap();
        (certificate.pem().into_bytes(), Secret::new(key.serialize_pem().into_bytes()))
    }

    const MUST_STAPLE: &[u8] = &[0x30, 3, 2, 1, 5];

    #[test]
    fn a_certificate_that_is_worth_nothing_without_a_staple_is_refused_unless_it_was_issued() {
        assert!(matches!(store(vec![featured(MUST_STAPLE)]), Err(CertificateError::Staple { .. })));
        assert!(store(vec![featured(&[0x30, 3, 2, 1, 17])]).is_ok(), "another extension");
        let (chain, key) = featured(MUST_STAPLE);
        let configured = config::Certificates::default();
        configured.issued.replace(vec![Issued { name: "a.example".to_owned(), chain, key, staple: None }]);
        let store = CertificateStore::open(&configured, Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
        assert_eq!(store.unwrap().current().certificates.len(), 1, "its staple may come");
    }

    #[test]
    fn a_staple_is_shown_until_its_end_and_its_successor_from_the_next_look_on() {
        let (chain, key) = pair(&["a.example"]);
        let (configured, at) = (config::Certificates::default(), Timestamp::from_secs);
        let issue = |response: &[u8], until| {
            let staple = Some(Staple { response: response.to_vec(), from: at(0), until: at(until) });
            configured.issued.replace(vec![Issued {
                name: "a.example".to_owned(),
                chain: chain.clone(),
                key: key.clone(),
                staple,
            }]);
        };
        issue(b"one", 100);
        let store = CertificateStore::open(&configured, Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
        let store = store.unwrap();
        let shown = |now| store.current().certificates[0].shown(|| at(now)).ocsp.clone();
        assert_eq!((shown(0), shown(99)), (Some(b"one".to_vec()), Some(b"one".to_vec())));
        assert_eq!(shown(100), None, "whether it was replaced or not");
        issue(b"two", 200);
        assert!(store.reload(&configured).0);
        assert_eq!((shown(100), shown(200)), (Some(b"two".to_vec()), None));
    }

    #[test]
    fn what_was_issued_goes_behind_what_is_configured_and_before_what_stands_in() {
        let (chain, key) = pair(&["b.example", "c.example"]);
        let configured = config::Certificates {
            inline: vec![pair(&["a.example", "b.example"])],
            last: vec![pair(&["*"])],
            ..config::Certificates::default()
        };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let store = CertificateStore::open(&configured, provider).unwrap();
        let names = || store.current().certificates.iter().map(|one| one.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(), ["a.example", "*"]);
        configured.issued.replace(vec![Issued { name: "b.example".to_owned(), chain, key, staple: None }]);
        assert!(store.reload(&configured).0);
        assert_eq!(names(), ["a.example", "b.example", "*"]);
        assert_eq!((served(&store, Some("b.example")), served(&store, Some("c.example"))), (0, 1));
        assert!(!store.reload(&configured).0, "nothing changed");
    }

    #[test]
    fn what_was_issued_and_cannot_be_served_does_not_keep_the_listener_from_opening() {
        let (chain, _) = pair(&["b.example"]);
        let configured = config::Certificates { last: vec![pair(&["*"])], ..config::Certificates::default() };
        let key = pair(&["c.example"]).1;
        configured.issued.replace(vec![Issued { name: "b.example".to_owned(), chain, key, staple: None }]);
        let store = CertificateStore::open(&configured, Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
        assert_eq!(store.unwrap().current().certificates.len(), 1);
    }

    #[test]
    fn a_listener_without_a_certificate_does_not_open() {
        assert!(matches!(store(Vec::new()), Err(CertificateError::None)));
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let (chain, _) = pair(&["a.example"]);
        let (_, key) = pair(&["b.example"]);
        assert!(matches!(store(vec![(chain, key)]), Err(CertificateError::Mismatch { .. })));
    }

    #[test]
    fn r_021_a_broken_pair_keeps_the_old_certificate_and_the_others_change() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, (chain, key): &(Vec<u8>, Secret<Vec<u8>>)| {
            let files = config::CertifiedFiles {
                certificate: folder.path().join(format!("{name}.crt")),
                key: folder.path().join(format!("{name}.key")),
            };
            std::fs::write(&files.certificate, chain).unwrap();
            std::fs::write(&files.key, key.expose()).unwrap();
            files
        };
        let files = vec![write("a", &pair(&["a.example"])), write("b", &pair(&["b.example"]))];
        let configured = config::Certificates { files, ..config::Certificates::default() };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let store = CertificateStore::open(&configured, provider).unwrap();
        let before = store.current();
        assert!(!store.reload(&configured).0, "nothing changed");

        write("b", &pair(&["b.example", "c.example"]));
        std::fs::write(folder.path().join("a.key"), "half a file").unwrap();
        let (changed, errors) = store.reload(&configured);
        assert!(changed && matches!(errors.as_slice(), [CertificateError::Key { .. }]), "{errors:?}");
        let after = store.current();
        assert_eq!(served(&store, Some("c.example")), 1);
        assert!(Arc::ptr_eq(&before.certificates[0].key, &after.certificates[0].key));
        assert!(!Arc::ptr_eq(&before.certificates[1].key, &after.certificates[1].key));
    }

    #[test]
    fn r_021_another_order_is_a_change_and_nothing_that_can_be_served_is_none() {
        let (a, b) = (pair(&["a.example"]), pair(&["b.example"]));
        let store = store(vec![a.clone(), b.clone()]).unwrap();
        let inline = |inline| config::Certificates { inline, ..config::Certificates::default() };
        assert!(store.reload(&inline(vec![b.clone(), a.clone()])).0);
        assert_eq!(store.current().certificates[0].name, "b.example");
        assert!(!store.reload(&inline(vec![b, a])).0);
        let missing = config::CertifiedFiles { certificate: "/nonexistent".into(), key: "/nonexistent".into() };
        let (changed, errors) =
            store.reload(&config::Certificates { files: vec![missing], ..config::Certificates::default() });
        assert!(!changed && errors.len() == 1, "{errors:?}");
        assert_eq!(store.current().certificates.len(), 2);
    }

    #[test]
    fn r_021_a_path_that_turns_into_a_pipe_or_a_folder_keeps_the_old_certificate() {
        let folder = tempfile::tempdir().unwrap();
        let (chain, key) = pair(&["a.example"]);
        let files = config::CertifiedFiles { certificate: folder.path().join("crt"), key: folder.path().join("key") };
        std::fs::write(&files.certificate, chain).unwrap();
        std::fs::write(&files.key, key.expose()).unwrap();
        let configured = config::Certificates { files: vec![files.clone()], ..config::Certificates::default() };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let store = CertificateStore::open(&configured, provider).unwrap();
        let before = store.current();
        std::fs::remove_file(&files.certificate).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&files.certificate).status().unwrap().success());
        let (tell, told) = std::sync::mpsc::channel();
        let (looking, wanted) = (Arc::clone(&store), configured.clone());
        std::thread::spawn(move || tell.send(looking.reload(&wanted)));
        let patience = std::time::Duration::from_secs(20);
        let (changed, errors) = told.recv_timeout(patience).expect("it waits for a writer");
        assert!(!changed && errors[0].to_string().ends_with("crt: it is not a regular file"), "{errors:?}");

        std::fs::remove_file(&files.certificate).unwrap();
        std::fs::create_dir(&files.certificate).unwrap();
        let (changed, errors) = store.reload(&configured);
        assert!(!changed && errors[0].to_string().ends_with("crt: it is not a regular file"), "{errors:?}");
        assert!(Arc::ptr_eq(&before, &store.current()));
    }
}
