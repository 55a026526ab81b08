//! TLS to upstreams: whom we believe, and who we say we are (01 §2.12). Each route that says something of its own has a
//! configuration of its own, made once; the others share one. So do their tickets: what was verified under one is never
//! resumed under another.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, LazyLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme, client::Resumption,
};

use crate::listener::provider;
use crate::route::{UpstreamEndpoint, UpstreamTls, matches_pattern};

/// What a configuration says of TLS to upstreams cannot be used; the configuration has found it before, with its place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{whose}: {what}")]
pub struct UpstreamTlsError {
    whose: String,
    what: String,
}

/// One way to speak TLS to upstreams.
#[derive(Debug)]
pub(crate) struct Identity {
    /// All of it but the name.
    pub(crate) config: Arc<ClientConfig>,
    /// Is never the same for two that differ in anything: it keeps their connections apart.
    pub(crate) digest: u64,
    name: Option<String>,
}

impl Identity {
    /// That of all routes that say nothing of their own: the system's roots, and those of `extra` (PEM).
    pub(crate) fn common(extra: Option<&[u8]>) -> Result<Arc<Self>, UpstreamTlsError> {
        Self::new("certificate_authority", extra, &UpstreamTls::default())
    }

    /// That of one route.
    pub(crate) fn of_route(name: &str, extra: Option<&[u8]>, tls: &UpstreamTls) -> Result<Arc<Self>, UpstreamTlsError> {
        Self::new(&format!("route {name:?}"), extra, tls)
    }

    fn new(whose: &str, extra: Option<&[u8]>, tls: &UpstreamTls) -> Result<Arc<Self>, UpstreamTlsError> {
        let failed = |what: String| UpstreamTlsError { whose: whose.to_owned(), what };
        let unusable = |error: Error| failed(error.to_string());
        let provider = provider();
        let roots = Arc::new(match &tls.authorities {
            Some(own) => anchors(own).map_err(failed)?,
            None => system_and(extra).map_err(failed)?,
        });
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().map_err(unusable)?;
        let pattern = tls.name.as_ref().filter(|name| name.contains('*'));
        let builder = match pattern {
            _ if tls.skip_verify => builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider))),
            Some(pattern) if !roots.is_empty() => {
                let chain = WebPkiServerVerifier::builder_with_provider(roots, provider).build();
                let chain = chain.map_err(|error| failed(error.to_string()))?;
                let verifier = PatternVerifier { chain, pattern: pattern.to_ascii_lowercase() };
                builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
            }
            Some(_) | None => builder.with_root_certificates(roots),
        };
        let mut config = match &tls.client {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
                let chain = chain.map_err(|_| failed("its client certificate is not PEM".to_owned()))?;
                let key = PrivateKeyDer::from_pem_slice(key.expose());
                let key = key.map_err(|_| failed("the key of its client certificate is not PEM".to_owned()))?;
                builder.with_client_auth_cert(chain, key).map_err(unusable)?
            }
        };
        config.resumption = Resumption::in_memory_sessions(RESUMED);
        // A certificate knows no `*`: what is asked for is a name that the pattern could stand for (01 §1.5).
        let name = tls.name.as_ref().map(|name| name.replace('*', "example"));
        Ok(Arc::new(Self { config: Arc::new(config), digest: digest(extra, tls), name }))
    }

    /// The name that is asked for, and that the certificate must have. A socket has none, and is not held to one.
    pub(crate) fn server_name<'a>(&'a self, endpoint: &'a UpstreamEndpoint) -> &'a str {
        let own = if endpoint.scheme.is_socket() { "localhost" } else { &endpoint.host };
        self.name.as_deref().unwrap_or(own).trim_start_matches('[').trim_end_matches(']')
    }
}

/// Every part, whatever it is.
fn digest(extra: Option<&[u8]>, tls: &UpstreamTls) -> u64 {
    let mut hasher = DefaultHasher::new();
    let client = tls.client.as_ref().map(|(chain, key)| (chain, key.expose()));
    let roots = if tls.authorities.is_some() { None } else { extra };
    (tls.skip_verify, &tls.name, &tls.authorities, roots, client).hash(&mut hasher);
    hasher.finish()
}

/// The certificates of `pem`, all of which must be usable.
fn anchors(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for found in CertificateDer::pem_slice_iter(pem) {
        let added = found.ok().is_some_and(|found| roots.add(found).is_ok());
        if !added {
            return Err(NO_ANCHOR.to_owned());
        }
    }
    if roots.is_empty() { Err(NO_ANCHOR.to_owned()) } else { Ok(roots) }
}

/// The system's roots and those of `extra`. Of the system's, what cannot be read is left out.
fn system_and(extra: Option<&[u8]>) -> Result<RootCertStore, String> {
    let mut roots = extra.map_or_else(|| Ok(RootCertStore::empty()), anchors)?;
    roots.add_parsable_certificates(SYSTEM.iter().cloned());
    Ok(roots)
}

/// Read once: they belong to the machine, not to the configuration.
static SYSTEM: LazyLock<Vec<CertificateDer<'static>>> = LazyLock::new(|| {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "part of the system's roots not read");
    }
    found.certs
});

const NO_ANCHOR: &str = "it is not a list of PEM certificates of authorities";
/// Sessions that can be taken up again, for each identity.
const RESUMED: usize = 256;

/// `tls_skip_verify`: whoever answers will do. That they have the key of what they show is still looked at.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _shown: &CertificateDer<'_>,
        _chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, shown, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, shown, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// A chain as always, with any name that a pattern takes.
#[derive(Debug)]
struct PatternVerifier {
    chain: Arc<WebPkiServerVerifier>,
    pattern: String,
}

impl ServerCertVerifier for PatternVerifier {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.chain.verify_server_cert(shown, chain, name, ocsp, now);
        // The name is looked at last: all the rest was in order.
        let Err(Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        )) = &verified
        else {
            return verified;
        };
        let parsed = webpki::EndEntityCert::try_from(shown);
        let fits = parsed.is_ok_and(|shown| {
            shown.valid_dns_names().any(|name| matches_pattern(&self.pattern, &name.to_ascii_lowercase()))
        });
        if fits { Ok(ServerCertVerified::assertion()) } else { verified }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, shown, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, shown, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use postern_identity::Secret;
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

    use super::*;

    fn pem(name: &str) -> (Vec<u8>, Secret<Vec<u8>>) {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        (made.cert.pem().into_bytes(), Secret::new(made.signing_key.serialize_pem().into_bytes()))
    }

    #[test]
    fn every_part_of_an_identity_tells_it_from_others() {
        let (ca, client) = (pem("ca.example").0, pem("client.example"));
        let renewed = pem("client.example");
        let all = [
            (None, UpstreamTls::default()),
            (Some(ca.as_slice()), UpstreamTls::default()),
            (None, UpstreamTls { skip_verify: true, ..UpstreamTls::default() }),
            (None, UpstreamTls { name: Some("a.example".to_owned()), ..UpstreamTls::default() }),
            (None, UpstreamTls { authorities: Some(ca.clone()), ..UpstreamTls::default() }),
            (None, UpstreamTls { client: Some(client), ..UpstreamTls::default() }),
            (None, UpstreamTls { client: Some(renewed), ..UpstreamTls::default() }),
        ];
        let digests: std::collections::HashSet<_> = all.iter().map(|(extra, tls)| digest(*extra, tls)).collect();
        assert_eq!(digests.len(), all.len());
        assert_eq!(digest(all[1].0, &all[1].1), digest(all[1].0, &all[1].1));
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for bad in ["nothing", broken, ""] {
            let tls = UpstreamTls { authorities: Some(bad.as_bytes().to_vec()), ..UpstreamTls::default() };
            Identity::of_route("a", None, &tls).unwrap_err();
            Identity::common(Some(bad.as_bytes())).unwrap_err();
        }
        let (chain, _) = pem("a.example");
        let tls = UpstreamTls { client: Some((chain, Secret::new(b"no key".to_vec()))), ..UpstreamTls::default() };
        let told = Identity::of_route("a", None, &tls).unwrap_err().to_string();
        assert_eq!(told, "route \"a\": the key of its client certificate is not PEM");
    }

    #[test]
    fn a_pattern_takes_the_place_of_the_name_and_of_nothing_else() {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let shown =
            CertificateParams::new(["eu-1.db.example".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
        let verified = |pattern: &str, roots: &[u8]| {
            let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(anchors(roots).unwrap()), provider());
            let verifier = PatternVerifier { chain: chain.build().unwrap(), pattern: pattern.to_owned() };
            let name = ServerName::try_from("example.db.example").unwrap();
            verifier.verify_server_cert(shown.der(), &[], &name, &[], UnixTime::now()).is_ok()
        };
        let own = authority.pem().into_bytes();
        assert!(verified("*.db.example", &own));
        assert!(!verified("*.web.example", &own));
        assert!(!verified("*.db.example", &pem("other.example").0), "nobody vouches for it");
    }
}
