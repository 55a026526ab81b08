//! The certificates of the public listener: which one a name gets, and how they are replaced while it runs.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use postern_identity::Timestamp;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
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
    /// Lower-case DNS names of the leaf; wildcards as `*.parent`.
    names: Vec<String>,
    /// What it is called in metrics and logs: its first name.
    pub(crate) name: String,
    /// When it expires.
    pub(crate) not_after: Timestamp,
    /// Where it was read.
    origin: String,
    /// Of the bytes it was made from.
    source: [u8; 32],
}

/// The certificates as they are now.
#[derive(Debug, Default)]
pub(crate) struct CertificateSet {
    pub(crate) certificates: Vec<Certificate>,
    exact: HashMap<String, usize>,
    /// By the parent of `*.parent`.
    wildcard: HashMap<String, usize>,
}

impl CertificateSet {
    fn new(certificates: Vec<Certificate>) -> Self {
        let mut set = Self::default();
        for (index, certificate) in certificates.iter().enumerate() {
            for name in &certificate.names {
                match name.strip_prefix("*.") {
                    Some(parent) => set.wildcard.entry(parent.to_owned()).or_insert(index),
                    None => set.exact.entry(name.clone()).or_insert(index),
                };
            }
        }
        Self { certificates, ..set }
    }

    /// Exact name, else wildcard of one label, else the first (01 §1.5).
    fn index(&self, name: Option<&str>) -> usize {
        let lookup = |name: &str| {
            let wildcard = || name.split_once('.').and_then(|(_, parent)| self.wildcard.get(parent));
            self.exact.get(name).or_else(wildcard).copied()
        };
        name.and_then(lookup).unwrap_or(0)
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
    /// [`CertificateError`]: at start, one bad pair is enough.
    pub(crate) fn open(
        configured: &config::Certificates,
        provider: Arc<CryptoProvider>,
    ) -> Result<Arc<Self>, CertificateError> {
        let read = |source: &Source<'_>| source.read().and_then(|pem| pem.parse(&provider));
        let certificates = sources(configured).iter().map(read).collect::<Result<Vec<_>, _>>()?;
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
        let (mut fresh, mut errors) = (Vec::new(), Vec::new());
        for source in sources(configured) {
            let before = old.certificates.iter().find(|certificate| certificate.origin == source.origin());
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
        set.certificates.get(set.index(name.as_deref())).map(|certificate| Arc::clone(&certificate.key))
    }
}

impl CertificateNames for CertificateStore {
    fn same_certificate(&self, sni: Option<&str>, host: &str) -> bool {
        let set = self.set.load();
        set.index(sni) == set.index(Some(host))
    }
}

/// Where a pair comes from.
enum Source<'a> {
    Inline(usize, &'a [u8], &'a [u8]),
    Files(&'a config::CertifiedFiles),
}

/// In the order of 01 §1.5.
fn sources(configured: &config::Certificates) -> Vec<Source<'_>> {
    let inline = configured.inline.iter().enumerate();
    let inline = inline.map(|(index, (chain, key))| Source::Inline(index, chain, key.expose()));
    inline.chain(configured.files.iter().map(Source::Files)).collect()
}

impl Source<'_> {
    fn origin(&self) -> String {
        match self {
            Self::Inline(index, ..) => format!("certificate {}", index + 1),
            Self::Files(files) => files.certificate.display().to_string(),
        }
    }

    fn read(&self) -> Result<Pem, CertificateError> {
        let (chain, key) = match self {
            Self::Inline(_, chain, key) => (chain.to_vec(), key.to_vec()),
            Self::Files(files) => (read_file(&files.certificate)?, read_file(&files.key)?),
        };
        Ok(Pem { origin: self.origin(), chain, key })
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
}

impl Pem {
    fn digest(&self) -> [u8; 32] {
        let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        context.update(&(self.chain.len() as u64).to_be_bytes());
        context.update(&self.chain);
        context.update(&self.key);
        let mut digest = [0; 32];
        digest.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
        digest
    }

    fn parse(&self, provider: &CryptoProvider) -> Result<Certificate, CertificateError> {
        let broken_chain = || CertificateError::Chain { origin: self.origin.clone() };
        let broken_key = || CertificateError::Key { origin: self.origin.clone() };
        let chain: Vec<_> =
            CertificateDer::pem_slice_iter(&self.chain).collect::<Result<_, _>>().map_err(|_| broken_chain())?;
        let (names, not_after) = chain.first().and_then(|leaf| describe(leaf)).ok_or_else(broken_chain)?;
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|_| broken_key())?;
        let key = provider.key_provider.load_private_key(key).map_err(|_| broken_key())?;
        let key = CertifiedKey::new(chain, key);
        if key.keys_match().is_err() {
            return Err(CertificateError::Mismatch { origin: self.origin.clone() });
        }
        let name = names.first().cloned().unwrap_or_else(|| self.origin.clone());
        let origin = self.origin.clone();
        Ok(Certificate { key: Arc::new(key), names, name, not_after, origin, source: self.digest() })
    }
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
    use postern_identity::Secret;

    use super::*;

    pub(crate) fn pair(names: &[&str]) -> (Vec<u8>, Secret<Vec<u8>>) {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        (made.cert.pem().into_bytes(), Secret::new(made.signing_key.serialize_pem().into_bytes()))
    }

    fn store(inline: Vec<(Vec<u8>, Secret<Vec<u8>>)>) -> Result<Arc<CertificateStore>, CertificateError> {
        let configured = config::Certificates { inline, files: Vec::new() };
        CertificateStore::open(&configured, Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
    }

    fn served(store: &CertificateStore, name: Option<&str>) -> usize {
        store.current().index(name)
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
        let configured = config::Certificates { inline: Vec::new(), files };
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
        let inline = |inline| config::Certificates { inline, files: Vec::new() };
        assert!(store.reload(&inline(vec![b.clone(), a.clone()])).0);
        assert_eq!(store.current().certificates[0].name, "b.example");
        assert!(!store.reload(&inline(vec![b, a])).0);
        let missing = config::CertifiedFiles { certificate: "/nonexistent".into(), key: "/nonexistent".into() };
        let (changed, errors) = store.reload(&config::Certificates { inline: Vec::new(), files: vec![missing] });
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
        let configured = config::Certificates { inline: Vec::new(), files: vec![files.clone()] };
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
