//! What upstream certificates are believed: the system's roots, and those that the configuration adds.

use std::sync::Arc;

use pingora_core::protocols::tls::CaType;
use pingora_core::utils::tls::{WrappedX509, parse_x509};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// `certificate_authority` does not hold certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("`certificate_authority` is not a list of PEM certificates")]
pub struct RootsError;

/// The system's roots and those of `extra` (PEM). `None` if there is nothing to add: then Pingora's own, read once, serve.
///
/// # Errors
/// [`RootsError`] if `extra` holds no certificate, or one that cannot be parsed.
pub(crate) fn roots(extra: Option<&[u8]>) -> Result<Option<Arc<CaType>>, RootsError> {
    let Some(extra) = extra else { return Ok(None) };
    let mut added: Vec<_> = CertificateDer::pem_slice_iter(extra).collect::<Result<_, _>>().map_err(|_| RootsError)?;
    if added.is_empty() || !added.iter().all(|der| is_readable(der)) {
        return Err(RootsError);
    }
    let system = rustls_native_certs::load_native_certs();
    for error in &system.errors {
        tracing::warn!(%error, "part of the system's roots not read");
    }
    added.extend(system.certs.into_iter().filter(|der| is_readable(der)));
    Ok(Some(added.into_iter().map(|der| WrappedX509::new(der.to_vec(), parse_x509)).collect()))
}

/// Pingora panics on a certificate that its parser does not read, and refuses the whole list for one that cannot be an anchor.
fn is_readable(der: &CertificateDer<'_>) -> bool {
    X509Certificate::from_der(der).is_ok() && webpki::anchor_from_trusted_cert(der).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configured_roots_come_first_and_the_systems_stay() {
        let made = rcgen::generate_simple_self_signed(["ca.example".to_owned()]).unwrap();
        let all = roots(Some(made.cert.pem().as_bytes())).unwrap().unwrap();
        assert_eq!(all[0].borrow_raw_cert().as_slice(), made.cert.der().as_ref());
        let readable = rustls_native_certs::load_native_certs().certs.iter().filter(|der| is_readable(der)).count();
        assert_eq!(all.len(), 1 + readable);
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        assert_eq!(roots(Some(b"nothing")).unwrap_err(), RootsError);
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert_eq!(roots(Some(broken.as_bytes())).unwrap_err(), RootsError);
        assert!(roots(None).unwrap().is_none());
    }
}
