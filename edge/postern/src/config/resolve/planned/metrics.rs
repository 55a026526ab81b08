//! How metrics are encrypted, and whose certificates may read them (01 §1.10).

use postern_identity::Secret;

use super::{authorities, either};
use crate::config::Code;
use crate::config::block::Block;
use crate::config::context::Context;
use crate::config::resolve::certificates;

/// `metrics_certificate*` and `metrics_client_ca(_file)`.
#[derive(Debug, Clone)]
pub struct MetricsTls {
    /// The chain, as PEM.
    pub certificate: Vec<u8>,
    /// Its key, as PEM.
    pub key: Secret<Vec<u8>>,
    /// Who vouches for those who read; none: no certificate is asked for.
    pub client_ca: Option<Vec<u8>>,
}

pub(super) fn tls(cx: &mut Context<'_>, settings: &Block<'_>) -> Option<MetricsTls> {
    let certificate = either(cx, settings, "metrics_certificate", "metrics_certificate_file");
    let key = either(cx, settings, "metrics_certificate_key", "metrics_certificate_key_file");
    let client_ca = either(cx, settings, "metrics_client_ca", "metrics_client_ca_file");
    let client_at = client_ca.as_ref().map(|(at, _)| at.clone());
    let client_ca = authorities(cx, client_ca);
    let ((at, certificate), (_, key)) = match (certificate, key) {
        (Some(certificate), Some(key)) => (certificate, key),
        (None, None) => {
            if let Some(at) = client_at {
                let what = "certificates of clients are asked for over TLS only, and there is no `metrics_certificate`";
                cx.advise(
                    Code::MissingKey,
                    &at,
                    what,
                    "add `metrics_certificate_file` and `metrics_certificate_key_file`",
                );
            }
            return None;
        }
        (Some((at, _)), None) | (None, Some((at, _))) => {
            // The other half may be there and have been refused.
            let both = ["metrics_certificate", "metrics_certificate_key"]
                .iter()
                .all(|key| settings.find(key).or(settings.find(&format!("{key}_file"))).is_some());
            if !both {
                let what = "a certificate and its key go together, and one of them is missing";
                cx.fatal(
                    Code::MissingKey,
                    &at,
                    what,
                    "write `metrics_certificate_file` and `metrics_certificate_key_file`",
                );
            }
            return None;
        }
    };
    let key = Secret::new(key);
    certificates::matching(cx, &at, &certificate, &key).then_some(MetricsTls { certificate, key, client_ca })
}
