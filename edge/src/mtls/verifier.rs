//! What the handshake says to client certificates.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme};

use super::presented::{LARGEST_LEAF, heard};
use super::trust::{Distrust, algorithms};
use super::{ClientCert, ClientTrust, DownstreamMtls};

/// Asks for a certificate. Takes any whose key the client has; with `reject_connection` only one that is vouched for.
#[derive(Debug)]
pub(crate) struct Asking {
    trust: Arc<ClientTrust>,
    reject: bool,
    /// So many names of authorities fit into a handshake; of more none is said, and the client may show what it has.
    hints: Vec<DistinguishedName>,
}

/// The most bytes of names.
const HINTS: usize = 16 * 1024;

impl Asking {
    /// `None`: nobody vouches for clients, so that nothing is asked for.
    pub(crate) fn of(mtls: &DownstreamMtls) -> Option<Arc<Self>> {
        let trust = Arc::clone(mtls.everybody.as_ref()?);
        let mut hints = trust.subjects().to_vec();
        hints.sort_unstable_by(|one, other| one.as_ref().cmp(other.as_ref()));
        hints.dedup_by(|one, other| one.as_ref() == other.as_ref());
        if hints.iter().map(|name| name.as_ref().len() + 2).sum::<usize>() > HINTS {
            hints.clear();
        }
        Some(Arc::new(Self { trust, reject: mtls.reject, hints }))
    }

    /// Whether a connection may go on. The handshake has said so already, but for one that was resumed.
    pub(crate) fn takes(&self, shown: Option<&Arc<ClientCert>>) -> bool {
        !self.reject || shown.is_some_and(|shown| shown.is_believed(&self.trust, SystemTime::now().into()))
    }
}

impl ClientCertVerifier for Asking {
    fn client_auth_mandatory(&self) -> bool {
        self.reject
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if end_entity.len() > LARGEST_LEAF {
            return Err(Error::InvalidCertificate(CertificateError::BadEncoding));
        }
        if self.reject {
            let intermediates = heard(intermediates);
            self.trust.verify(end_entity, &intermediates, now).map_err(|why| Error::InvalidCertificate(alert(why)))?;
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &algorithms())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        algorithms().supported_schemes()
    }
}

/// The alert that tells the client why.
fn alert(why: Distrust) -> CertificateError {
    match why {
        Distrust::Path(webpki::Error::CertExpired { .. }) => CertificateError::Expired,
        Distrust::Path(webpki::Error::CertNotValidYet { .. }) => CertificateError::NotValidYet,
        Distrust::Path(webpki::Error::CertRevoked) => CertificateError::Revoked,
        Distrust::Path(webpki::Error::UnknownIssuer) => CertificateError::UnknownIssuer,
        other @ (Distrust::Path(_) | Distrust::Name) => CertificateError::Other(OtherError(Arc::new(other))),
    }
}
