//! Lists of revoked certificates (01 §1.6): base lists, signed by the authority whose certificates they name.

use postern_identity::Timestamp;
use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::pem::PemObject as _;
use webpki::{CertRevocationList, OwnedCertRevocationList};
use x509_parser::prelude::FromDer as _;
use x509_parser::revocation_list::CertificateRevocationList;

use super::names::sha256;

/// `crl(_file)`, read.
#[derive(Debug, Default)]
pub struct Revocations {
    pub(super) lists: Vec<CertRevocationList<'static>>,
    /// Of each list, whose it is and how long it is good.
    due: Vec<(String, Due)>,
    /// Of all that was read.
    pub(super) digest: [u8; 32],
}

/// How long a list is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// When the next one is due: after that it may lack what was revoked since.
    pub at: Timestamp,
    /// So long after it was made, in seconds.
    pub life: i64,
}

/// There is something else than lists of revoked certificates, or one that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is something else than lists of revoked certificates here")]
pub struct UnreadableList;

impl Revocations {
    /// The lists of a PEM text, which holds nothing else.
    ///
    /// # Errors
    /// [`UnreadableList`].
    pub fn read(pem: &[u8]) -> Result<Self, UnreadableList> {
        let found: Vec<_> =
            CertificateRevocationListDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|_| UnreadableList)?;
        let text = String::from_utf8_lossy(pem);
        let behind = text.rsplit(END).next().unwrap_or_default();
        if found.is_empty() || text.matches(END).count() != found.len() || !behind.trim().is_empty() {
            return Err(UnreadableList);
        }
        let mut read = Self { digest: sha256(pem), ..Self::default() };
        for der in &found {
            let (rest, list) = CertificateRevocationList::from_der(der).map_err(|_| UnreadableList)?;
            let due = list.next_update().filter(|_| rest.is_empty()).ok_or(UnreadableList)?;
            let life = due.timestamp().saturating_sub(list.last_update().timestamp());
            read.due.push((list.issuer().to_string(), Due { at: Timestamp::from_secs(due.timestamp()), life }));
            let list = OwnedCertRevocationList::from_der(der).map_err(|_| UnreadableList)?;
            read.lists.push(list.into());
        }
        Ok(read)
    }

    /// When the next one of the lists by that name is due, of the one that is good for longest; `None` if there is no such list.
    pub(super) fn last_due(&self, issuer: &[u8]) -> Option<Timestamp> {
        let own = self.lists.iter().zip(&self.due).filter(|(list, _)| list.issuer() == issuer);
        own.map(|(_, (_, due))| due.at).max()
    }

    /// Of each list, whose it is and how long it is good.
    #[must_use]
    pub fn due(&self) -> &[(String, Due)] {
        &self.due
    }
}

const END: &str = "-----END X509 CRL-----";
