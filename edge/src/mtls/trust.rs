//! Who vouches for clients, and on which terms they are believed.

use std::sync::{Arc, LazyLock};

use postern_identity::Timestamp;
use rustls::DistinguishedName;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{
    Cert, CertRevocationList, EndEntityCert, Error, ExpirationPolicy, KeyUsage, RevocationCheckDepth,
    RevocationOptions, RevocationOptionsBuilder, UnknownStatusPolicy, VerifiedPath,
};
use x509_parser::asn1_rs::Any;
use x509_parser::prelude::{FromDer as _, X509Certificate, X509Version};

use super::names::{self, sha256};
use super::{NamePattern, Revocations};
use crate::listener::provider;

/// The conditions under which a certificate is believed.
#[derive(Debug, Default)]
pub struct Terms {
    /// `crl(_file)`.
    pub revoked: Arc<Revocations>,
    /// `match_subject_alt_names`: one of them must match; none: any name will do.
    pub names: Arc<[NamePattern]>,
    /// `max_verify_depth`: certificates above the leaf, the authority's own included; `None` is no bound.
    pub max_depth: Option<u32>,
    /// A list of revoked certificates that is out of date vouches for nobody.
    pub fresh_lists: bool,
}

/// Authorities that vouch for clients, on some terms.
#[derive(Debug)]
pub struct ClientTrust {
    anchors: Box<[TrustAnchor<'static>]>,
    /// Of each of them.
    bounds: Box<[Bounds]>,
    /// Certificates of nobody who may sign others: each vouches for itself alone.
    pinned: Box<[Pinned]>,
    subjects: Vec<DistinguishedName>,
    terms: Terms,
    id: [u8; 32],
}

/// What the certificate of an authority says of itself.
#[derive(Debug)]
struct Bounds {
    /// Who signed it, and its number there.
    issuer: Box<[u8]>,
    serial: Box<[u8]>,
    valid: std::ops::RangeInclusive<i64>,
    /// How many certificates there may be between it and a leaf.
    path: Option<u32>,
}

/// A certificate that was named itself, in place of an authority.
#[derive(Debug)]
struct Pinned {
    der: CertificateDer<'static>,
    issuer: Box<[u8]>,
    serial: Box<[u8]>,
    valid: std::ops::RangeInclusive<i64>,
}

/// There is no certificate of an authority, or one that cannot vouch for anybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is no certificate of an authority in PEM here")]
pub struct NoAuthorities;

/// Why a certificate is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Distrust {
    /// No path leads from it to an authority.
    #[error("{0}")]
    Path(#[from] Error),
    /// None of its names will do.
    #[error("none of its names will do")]
    Name,
}

impl ClientTrust {
    /// The authorities of one or more PEM texts. A certificate there that may not sign others vouches for itself alone.
    ///
    /// # Errors
    /// [`NoAuthorities`].
    pub fn new<'p>(pems: impl IntoIterator<Item = &'p [u8]>, terms: Terms) -> Result<Self, NoAuthorities> {
        let (mut anchors, mut bounds, mut pinned) = (Vec::new(), Vec::new(), Vec::new());
        let (mut said, mut subjects) = (Vec::new(), Vec::new());
        for pem in pems {
            for der in CertificateDer::pem_slice_iter(pem) {
                let der = der.map_err(|_| NoAuthorities)?;
                said.extend_from_slice(&sha256(&der));
                if let Some(own) = Bounds::of(&der)? {
                    let anchor = webpki::anchor_from_trusted_cert(&der).map_err(|_| NoAuthorities)?.to_owned();
                    subjects.push(DistinguishedName::in_sequence(&anchor.subject));
                    anchors.push(anchor);
                    bounds.push(own);
                } else {
                    let own = Pinned::of(der)?;
                    subjects.push(DistinguishedName::in_sequence(&own.issuer));
                    pinned.push(own);
                }
            }
        }
        if subjects.is_empty() {
            return Err(NoAuthorities);
        }
        said.extend_from_slice(&terms.revoked.digest);
        for name in terms.names.iter() {
            said.extend_from_slice(format!("{:?} {}\n", name.kind, name.pattern.as_str()).as_bytes());
        }
        said.extend_from_slice(format!("{:?} {}", terms.max_depth, terms.fresh_lists).as_bytes());
        let (anchors, bounds, pinned) = (anchors.into(), bounds.into(), pinned.into());
        Ok(Self { anchors, bounds, pinned, subjects, terms, id: sha256(&said) })
    }

    /// The same for the same authorities on the same terms.
    pub(crate) const fn id(&self) -> &[u8; 32] {
        &self.id
    }

    /// How many certificates of it are none of an authority, and so vouch for themselves alone.
    #[must_use]
    pub const fn pinned(&self) -> usize {
        self.pinned.len()
    }

    /// The names of the authorities, for the handshake.
    pub(super) fn subjects(&self) -> &[DistinguishedName] {
        &self.subjects
    }

    /// The lists of revoked certificates that are looked at.
    pub(crate) fn revoked(&self) -> &Revocations {
        &self.terms.revoked
    }

    /// Whether a certificate is believed: some path leads to one of the authorities on which each certificate is in force, none
    /// is revoked, and the depth is kept; it is meant for clients, and one of its names will do.
    pub(super) fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Distrust> {
        let certificate = EndEntityCert::try_from(leaf)?;
        if let Some(pinned) = self.pinned.iter().find(|pinned| pinned.der == *leaf) {
            self.heed(pinned, now)?;
            return if self.will_do(leaf) { Ok(()) } else { Err(Distrust::Name) };
        }
        // Nothing may stand between a leaf and its authority there, so nothing is looked at.
        let intermediates = if self.terms.max_depth == Some(1) { &[] } else { intermediates };
        let verify = |revocation: Option<RevocationOptions<'_>>| {
            certificate.verify_for_usage(
                algorithms().all,
                &self.anchors,
                intermediates,
                now,
                KeyUsage::client_auth(),
                revocation,
                Some(&|path| self.admits(path, now)),
            )
        };
        verify(None)?;
        self.heed_lists(|list| verify(Some(list)).map(drop))?;
        if self.will_do(leaf) { Ok(()) } else { Err(Distrust::Name) }
    }

    /// Whether a certificate that vouches for itself is in force, named by no list, and where that matters spoken of by one that is
    /// not out of date.
    fn heed(&self, pinned: &Pinned, now: UnixTime) -> Result<(), Error> {
        if self.is_named(&pinned.issuer, &pinned.serial) {
            return Err(Error::CertRevoked);
        }
        let at = Timestamp::from_secs(i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
        if let Some(due) = self.terms.revoked.last_due(&pinned.issuer)
            && self.terms.fresh_lists
            && due < at
        {
            return Err(Error::CrlExpired { time: now, next_update: unix(due) });
        }
        let (from, to) = (pinned.valid.start(), pinned.valid.end());
        if at.as_secs() < *from {
            return Err(Error::CertNotValidYet { time: now, not_before: unix(Timestamp::from_secs(*from)) });
        }
        if at.as_secs() > *to {
            return Err(Error::CertExpired { time: now, not_after: unix(Timestamp::from_secs(*to)) });
        }
        Ok(())
    }

    /// Asks with each list by itself, because of several of one authority only the first would be looked at: whether it is
    /// signed by who signed the certificate, and in force where that matters. Of several by that name one may be of another key
    /// of the authority, or an old one; a missing one is fine (01 §1.6). Whom they name, [`admits`](Self::admits) has seen.
    fn heed_lists(&self, ask: impl Fn(RevocationOptions<'_>) -> Result<(), Error>) -> Result<(), Error> {
        let expiration = if self.terms.fresh_lists { ExpirationPolicy::Enforce } else { ExpirationPolicy::Ignore };
        let lists = &self.terms.revoked.lists;
        let mut left: Vec<&CertRevocationList<'_>> = lists.iter().collect();
        while let Some(first) = left.first().copied() {
            // Lists that are to be had at different places speak of different certificates.
            let (of_one, others): (Vec<_>, Vec<_>) = left.into_iter().partition(|list| {
                list.issuer() == first.issuer()
                    && list.issuing_distribution_point() == first.issuing_distribution_point()
            });
            left = others;
            let mut outcome = Ok(());
            for list in of_one {
                let one = [list];
                let Ok(options) = RevocationOptionsBuilder::new(&one) else { continue };
                let options = options.with_depth(RevocationCheckDepth::Chain);
                let options = options.with_status_policy(UnknownStatusPolicy::Allow);
                outcome = ask(options.with_expiration_policy(expiration).build());
                if matches!(outcome, Ok(()) | Err(Error::CertRevoked)) {
                    break;
                }
            }
            outcome?;
        }
        Ok(())
    }

    /// Whether any list by the name of that issuer names that certificate. Whatever else is to be said of the list, nobody is
    /// believed whom it names.
    fn is_named(&self, issuer: &[u8], serial: &[u8]) -> bool {
        let lists = self.terms.revoked.lists.iter().filter(|list| list.issuer() == issuer);
        lists.map(|list| list.find_serial(serial)).any(|found| !matches!(found, Ok(None)))
    }

    /// Whether a path is short enough, nobody on it is named by a list, and its authority is in force.
    fn admits(&self, path: &VerifiedPath<'_>, now: UnixTime) -> Result<(), Error> {
        let between = u32::try_from(path.intermediate_certificates().count()).unwrap_or(u32::MAX);
        if self.terms.max_depth.is_some_and(|most| between >= most) {
            return Err(Error::MaximumPathDepthExceeded);
        }
        let is_named = |certificate: &Cert<'_>| self.is_named(certificate.issuer(), certificate.serial());
        if is_named(path.end_entity()) || path.intermediate_certificates().any(is_named) {
            return Err(Error::CertRevoked);
        }
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let of_it = self.anchors.iter().zip(&self.bounds).filter(|(anchor, _)| *anchor == path.anchor());
        let holds = |bounds: &Bounds| {
            let is_in_force = bounds.valid.contains(&now) && !self.is_named(&bounds.issuer, &bounds.serial);
            is_in_force && bounds.path.is_none_or(|most| between <= most)
        };
        let holds = of_it.map(|(_, bounds)| bounds).any(holds);
        if holds { Ok(()) } else { Err(Error::UnknownIssuer) }
    }

    fn will_do(&self, leaf: &[u8]) -> bool {
        let patterns = &self.terms.names;
        let names = || names::names(leaf);
        let fits = |kind, name: &str| patterns.iter().any(|one| one.kind == kind && one.pattern.is_match(name));
        patterns.is_empty() || names().iter().any(|(kind, name)| fits(*kind, name))
    }
}

impl Bounds {
    /// `None` if it is no certificate of an authority.
    fn of(der: &[u8]) -> Result<Option<Self>, NoAuthorities> {
        let certificate = read(der)?;
        let constraints = certificate.basic_constraints().map_err(|_| NoAuthorities)?;
        let usage = certificate.key_usage().map_err(|_| NoAuthorities)?;
        let is_authority = if certificate.version() == X509Version::V3 {
            constraints.as_ref().is_some_and(|constraints| constraints.value.ca)
        } else {
            // Those of the first versions could not say it; as OpenSSL has it, a root is one.
            certificate.subject() == certificate.issuer()
        };
        if !is_authority {
            return Ok(None);
        }
        if usage.is_some_and(|usage| !usage.value.key_cert_sign()) {
            return Err(NoAuthorities);
        }
        Ok(Some(Self {
            issuer: issuer(&certificate)?,
            serial: certificate.raw_serial().into(),
            valid: valid(&certificate),
            path: constraints.and_then(|constraints| constraints.value.path_len_constraint),
        }))
    }
}

impl Pinned {
    fn of(der: CertificateDer<'_>) -> Result<Self, NoAuthorities> {
        let certificate = read(&der)?;
        let usages = certificate.extended_key_usage().map_err(|_| NoAuthorities)?;
        let for_clients = usages.is_none_or(|usages| usages.value.any || usages.value.client_auth);
        // Nobody could ever show it.
        if !for_clients || EndEntityCert::try_from(&der).is_err() {
            return Err(NoAuthorities);
        }
        let (issuer, serial) = (issuer(&certificate)?, certificate.raw_serial().into());
        let valid = valid(&certificate);
        Ok(Self { issuer, serial, valid, der: der.into_owned() })
    }
}

fn read(der: &[u8]) -> Result<X509Certificate<'_>, NoAuthorities> {
    X509Certificate::from_der(der).map(|(_, certificate)| certificate).map_err(|_| NoAuthorities)
}

fn issuer(certificate: &X509Certificate<'_>) -> Result<Box<[u8]>, NoAuthorities> {
    inside(certificate.issuer().as_raw()).map(Box::from).ok_or(NoAuthorities)
}

fn valid(certificate: &X509Certificate<'_>) -> std::ops::RangeInclusive<i64> {
    certificate.validity().not_before.timestamp()..=certificate.validity().not_after.timestamp()
}

/// What is in a sequence: as webpki has names.
fn inside(sequence: &[u8]) -> Option<&[u8]> {
    Any::from_der(sequence).ok().map(|(_, any)| any.data)
}

/// What may be signed with.
pub(super) fn algorithms() -> WebPkiSupportedAlgorithms {
    static ALGORITHMS: LazyLock<WebPkiSupportedAlgorithms> =
        LazyLock::new(|| provider().signature_verification_algorithms);
    *ALGORITHMS
}

/// The time as the library counts it.
pub(super) fn unix(now: Timestamp) -> UnixTime {
    UnixTime::since_unix_epoch(std::time::Duration::from_secs(u64::try_from(now.as_secs()).unwrap_or(0)))
}
