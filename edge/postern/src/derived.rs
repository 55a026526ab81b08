//! `tls_derive`: a certificate authority that everybody who has the shared secret has too, and a certificate of it, so that
//! processes of one deployment believe each other without any file (01 §1.5).
//!
//! The authority's key is Ed25519, whose signatures are the same each time, so that a reload makes the same certificate again.
//! Its own certificate and what it issues have fixed dates: who could make another one has the secret anyway.

use std::fmt;

use aws_lc_rs::agreement::{ECDH_P256, PrivateKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use postern_identity::Secret;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PKCS_ED25519, SerialNumber, SignatureAlgorithm, date_time_ymd,
};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

/// A certificate, its key and its authority, all in PEM.
pub(crate) struct Derived {
    pub(crate) chain: Vec<u8>,
    pub(crate) key: Secret<Vec<u8>>,
    pub(crate) authority: Vec<u8>,
}

impl Derived {
    /// The certificate of this name under the authority of this secret.
    ///
    /// # Errors
    /// It is no name for a certificate.
    pub(crate) fn new(secret: &Secret<[u8; 32]>, name: &str) -> Result<Self, rcgen::Error> {
        let authority_key = ed25519(&seed(secret, &[b"postern/1 derived authority"]))?;
        let mut authority = params(Vec::new(), "Postern derived authority")?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        authority.serial_number = Some(SerialNumber::from(1));
        let key = p256(secret, name)?;
        let mut leaf = params(vec![name.to_owned()], name)?;
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        leaf.use_authority_key_identifier_extension = true;
        let serial = seed(secret, &[b"postern/1 derived serial", name.as_bytes()]);
        leaf.serial_number = Some(SerialNumber::from_slice(serial.get(..16).unwrap_or_default()));
        let pem = authority.self_signed(&authority_key)?.pem();
        let chain = leaf.signed_by(&key, &Issuer::new(authority, authority_key))?.pem();
        let key = Secret::new(key.serialize_pem().into_bytes());
        Ok(Self { chain: chain.into_bytes(), key, authority: pem.into_bytes() })
    }
}

impl fmt::Debug for Derived {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Derived([redacted])")
    }
}

fn params(names: Vec<String>, common_name: &str) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2120, 1, 1));
    Ok(params)
}

struct Len32;

impl KeyType for Len32 {
    fn len(&self) -> usize {
        32
    }
}

/// 32 bytes for one use (S-111).
fn seed(secret: &Secret<[u8; 32]>, labels: &[&[u8]]) -> [u8; 32] {
    let mut seed = [0; 32];
    let key = Salt::new(HKDF_SHA256, b"postern").extract(secret.expose());
    // Far below the limit of HKDF, so that neither step can fail; a test holds the library to that.
    let _filled = key.expand(labels, Len32).and_then(|okm| okm.fill(&mut seed));
    seed
}

fn ed25519(seed: &[u8; 32]) -> Result<KeyPair, rcgen::Error> {
    const HEAD: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    pair(&PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from([&HEAD[..], seed].concat())), &PKCS_ED25519)
}

/// The first of a row of seeds that is a key of the curve: nearly always the first of all.
fn p256(secret: &Secret<[u8; 32]>, name: &str) -> Result<KeyPair, rcgen::Error> {
    for attempt in 0..=u8::MAX {
        let seed = seed(secret, &[b"postern/1 derived certificate", name.as_bytes(), &[attempt]]);
        if PrivateKey::from_private_key(&ECDH_P256, &seed).is_err() {
            continue;
        }
        let mut sec1 = vec![0x30, 0x31, 0x02, 0x01, 0x01, 0x04, 0x20];
        sec1.extend_from_slice(&seed);
        sec1.extend_from_slice(&[0xa0, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07]);
        // As PKCS#8, which is what a PEM of it is read as.
        let key = EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_ASN1_SIGNING, &sec1);
        let key = key.ok().and_then(|key| key.to_pkcs8v1().ok()).ok_or(rcgen::Error::CouldNotParseKeyPair)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.as_ref().to_vec()));
        return pair(&key, &PKCS_ECDSA_P256_SHA256);
    }
    Err(rcgen::Error::CouldNotParseKeyPair)
}

fn pair(key: &PrivateKeyDer<'_>, algorithm: &'static SignatureAlgorithm) -> Result<KeyPair, rcgen::Error> {
    KeyPair::from_der_and_sign_algo(key, algorithm)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use rustls::RootCertStore;
    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier as _;
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

    use super::*;

    fn derived(secret: u8, name: &str) -> Derived {
        Derived::new(&Secret::new([secret; 32]), name).unwrap()
    }

    /// Whether who trusts `authority` believes `certificate` for that name.
    fn believes(authority: &Derived, certificate: &Derived, name: &str) -> bool {
        let mut roots = RootCertStore::empty();
        for authority in CertificateDer::pem_slice_iter(&authority.authority) {
            roots.add(authority.unwrap()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        let leaf = CertificateDer::from_pem_slice(&certificate.chain).unwrap();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));
        let name = ServerName::try_from(name.to_owned()).unwrap();
        verifier.verify_server_cert(&leaf, &[], &name, &[], now).is_ok()
    }

    #[test]
    fn who_has_the_secret_believes_what_others_derive_from_it_and_nobody_else_does() {
        let (here, there) = (derived(1, "a.internal"), derived(1, "b.internal"));
        assert!(believes(&here, &there, "b.internal") && !believes(&here, &there, "a.internal"));
        assert!(!believes(&derived(2, "b.internal"), &there, "b.internal"), "another secret");
        let rotating = Derived {
            authority: [derived(2, "x.internal").authority, here.authority.clone()].concat(),
            ..derived(2, "x.internal")
        };
        assert!(believes(&rotating, &there, "b.internal"), "while the secret is replaced");
        assert_ne!(here.key.expose(), there.key.expose());
        let chain = vec![CertificateDer::from_pem_slice(&there.chain).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(there.key.expose()).unwrap();
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        rustls::sign::CertifiedKey::from_der(chain, key, &provider).expect("the key can be served");
    }

    #[test]
    fn the_same_is_made_each_time_so_that_a_reload_changes_nothing() {
        let (one, other) = (derived(1, "a.internal"), derived(1, "a.internal"));
        assert_eq!(
            (&one.chain, one.key.expose(), &one.authority),
            (&other.chain, other.key.expose(), &other.authority)
        );
        assert_ne!(seed(&Secret::new([1; 32]), &[b"x"]), [0; 32]);
        assert!(!format!("{one:?}").contains("BEGIN"));
    }
}
