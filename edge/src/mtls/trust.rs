//! Who vouches for clients, and on which terms they are believed.

use std::sync::{Arc, LazyLock};

use postern_identity::Timestamp;
use rustls::DistinguishedName;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{
    EndEntityCert, Error, ExpirationPolicy, KeyUsage, RevocationCheckDepth, RevocationOptionsBuilder,
    UnknownStatusPolicy, VerifiedPath,
};
use x509_parser::prelude::{FromDer as _, X509Certificate};

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
    subjects: Vec<DistinguishedName>,
    terms: Terms,
    id: [u8; 32],
}

/// What the certificate of an authority says of itself.
#[derive(Debug)]
struct Bounds {
    valid: std::ops::RangeInclusive<i64>,
    /// How many certificates there may be between it and a leaf.
    path: Option<u32>,
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
    /// The authorities of one or more PEM texts.
    ///
    /// # Errors
    /// [`NoAuthorities`].
    pub fn new<'p>(pems: impl IntoIterator<Item = &'p [u8]>, terms: Terms) -> Result<Self, NoAuthorities> {
        let (mut anchors, mut bounds) = (Vec::new(), Vec::new());
        let mut said = Vec::new();
        for pem in pems {
            for der in CertificateDer::pem_slice_iter(pem) {
                let der = der.map_err(|_| NoAuthorities)?;
                anchors.push(webpki::anchor_from_trusted_cert(&der).map_err(|_| NoAuthorities)?.to_owned());
                bounds.push(Bounds::of(&der).ok_or(NoAuthorities)?);
                said.extend_from_slice(&sha256(&der));
            }
        }
        if anchors.is_empty() {
            return Err(NoAuthorities);
        }
        said.extend_from_slice(&terms.revoked.digest);
        for name in terms.names.iter() {
            said.extend_from_slice(format!("{:?} {}\n", name.kind, name.pattern.as_str()).as_bytes());
        }
        said.extend_from_slice(format!("{:?} {}", terms.max_depth, terms.fresh_lists).as_bytes());
        let subjects = anchors.iter().map(|anchor| DistinguishedName::in_sequence(&anchor.subject)).collect();
        let (anchors, bounds) = (anchors.into_boxed_slice(), bounds.into_boxed_slice());
        Ok(Self { anchors, bounds, subjects, terms, id: sha256(&said) })
    }

    /// The same for the same authorities on the same terms.
    pub(crate) const fn id(&self) -> &[u8; 32] {
        &self.id
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
        let lists: Vec<_> = self.terms.revoked.lists.iter().collect();
        let expiration = if self.terms.fresh_lists { ExpirationPolicy::Enforce } else { ExpirationPolicy::Ignore };
        let revocation = RevocationOptionsBuilder::new(&lists).ok().map(|options| {
            let options = options.with_depth(RevocationCheckDepth::Chain);
            // A missing list is fine (01 §1.6).
            options.with_status_policy(UnknownStatusPolicy::Allow).with_expiration_policy(expiration).build()
        });
        certificate.verify_for_usage(
            algorithms().all,
            &self.anchors,
            intermediates,
            now,
            KeyUsage::client_auth(),
            revocation,
            Some(&|path| self.admits(path, now)),
        )?;
        if self.will_do(leaf) { Ok(()) } else { Err(Distrust::Name) }
    }

    /// Whether a path is short enough, and its authority in force.
    fn admits(&self, path: &VerifiedPath<'_>, now: UnixTime) -> Result<(), Error> {
        let between = u32::try_from(path.intermediate_certificates().count()).unwrap_or(u32::MAX);
        if self.terms.max_depth.is_some_and(|most| between >= most) {
            return Err(Error::MaximumPathDepthExceeded);
        }
        let is_its = |anchor: &TrustAnchor<'_>| {
            (&anchor.subject, &anchor.subject_public_key_info)
                == (&path.anchor().subject, &path.anchor().subject_public_key_info)
        };
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let of_it = self.anchors.iter().zip(&self.bounds).filter(|(anchor, _)| is_its(anchor));
        let holds = |bounds: &Bounds| bounds.valid.contains(&now) && bounds.path.is_none_or(|most| between <= most);
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
    fn of(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let valid = certificate.validity();
        let constraints = certificate.basic_constraints().ok()?;
        Some(Self {
            valid: valid.not_before.timestamp()..=valid.not_after.timestamp(),
            path: constraints.and_then(|constraints| constraints.value.path_len_constraint),
        })
    }
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
