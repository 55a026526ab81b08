//! The certificate that a client showed, and what routes make of it.

use std::sync::Arc;

use arc_swap::ArcSwap;
use postern_identity::Timestamp;
use postern_policy::{Certificate, ClientCertificate};
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::trust::unix;
use super::{ClientTrust, names};

/// A client certificate as presented, trusted or not.
#[derive(Debug)]
pub struct ClientCert {
    leaf: CertificateDer<'static>,
    intermediates: Vec<CertificateDer<'static>>,
    facts: Certificate,
    /// The last ones; a route on another authority, or another configuration, has one of its own.
    verdicts: ArcSwap<Vec<Verdict>>,
}

/// What some authorities made of a certificate.
#[derive(Debug, Clone, Copy)]
struct Verdict {
    trust: [u8; 32],
    at: Timestamp,
    believed: bool,
}

/// A verdict is asked for again after so many seconds: certificates expire under open connections.
const LASTS: i64 = 60;
/// Verdicts that one connection keeps.
const VERDICTS: usize = 4;
/// What more certificates than this have to say is not listened to: each connection keeps them.
const MOST_INTERMEDIATES: usize = 8;
const MOST_BYTES: usize = 32 * 1024;
/// Nor more of one name: every way through them is tried.
const MOST_OF_A_NAME: usize = 2;
/// A leaf that is larger is not taken.
pub(super) const LARGEST_LEAF: usize = 16 * 1024;

/// Those of the certificates behind a leaf that are listened to.
pub(super) fn heard<'c>(others: &'c [CertificateDer<'c>]) -> Vec<CertificateDer<'c>> {
    let small = others.iter().map(|der| der.len()).sum::<usize>() <= MOST_BYTES;
    if others.len() > MOST_INTERMEDIATES || !small {
        return Vec::new();
    }
    let mut names: Vec<Vec<u8>> = Vec::new();
    let mut heard = Vec::new();
    for der in others {
        let Ok((_, certificate)) = X509Certificate::from_der(der) else { continue };
        let name = certificate.subject().as_raw().to_vec();
        if names.iter().filter(|known| **known == name).count() < MOST_OF_A_NAME {
            names.push(name);
            heard.push(der.clone());
        }
    }
    heard
}

impl ClientCert {
    /// What a chain, leaf first, says; `None` if it is empty.
    #[must_use]
    pub fn of(chain: &[CertificateDer<'_>]) -> Option<Arc<Self>> {
        let (leaf, others) = chain.split_first()?;
        Some(Arc::new(Self {
            facts: names::facts(leaf),
            leaf: leaf.clone().into_owned(),
            intermediates: heard(others).into_iter().map(CertificateDer::into_owned).collect(),
            verdicts: ArcSwap::default(),
        }))
    }

    /// What policies see of it.
    pub(crate) const fn facts(&self) -> &Certificate {
        &self.facts
    }

    /// Whether `trust` believes it.
    pub(crate) fn is_believed(&self, trust: &ClientTrust, now: Timestamp) -> bool {
        let is_known = |verdict: &&Verdict| {
            verdict.trust == *trust.id() && (0..LASTS).contains(&(now.as_secs() - verdict.at.as_secs()))
        };
        if let Some(known) = self.verdicts.load().iter().find(is_known) {
            return known.believed;
        }
        let outcome = trust.verify(&self.leaf, &self.intermediates, unix(now));
        if let Err(why) = &outcome {
            tracing::debug!(client.certificate = hex::encode(self.facts.fingerprint), %why, "client certificate not valid");
        }
        let fresh = Verdict { trust: *trust.id(), at: now, believed: outcome.is_ok() };
        self.verdicts.rcu(|before| {
            let others = before.iter().filter(|verdict| verdict.trust != fresh.trust).take(VERDICTS - 1);
            std::iter::once(fresh).chain(others.copied()).collect::<Vec<_>>()
        });
        fresh.believed
    }
}

/// What a connection shows of its client, as one route takes it.
#[derive(Clone, Debug)]
pub(crate) struct Presented {
    certificate: Option<Arc<ClientCert>>,
    valid: bool,
}

impl Presented {
    /// Nothing, and nothing wanted.
    pub(crate) const NOTHING: Self = Self { certificate: None, valid: true };

    /// What is shown, as `trust` takes it; without one whatever is shown will do, also nothing (01 §1.6).
    pub(crate) fn to(certificate: Option<&Arc<ClientCert>>, trust: Option<&ClientTrust>, now: Timestamp) -> Self {
        let believed = |trust| certificate.is_some_and(|certificate| certificate.is_believed(trust, now));
        Self { certificate: certificate.cloned(), valid: trust.is_none_or(believed) }
    }

    /// The same, as policies look at it.
    pub(crate) fn facts(&self) -> ClientCertificate<'_> {
        ClientCertificate { leaf: self.certificate.as_deref().map(ClientCert::facts), valid: self.valid }
    }
}
