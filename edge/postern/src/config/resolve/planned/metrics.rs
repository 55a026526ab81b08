//! How metrics are encrypted, and whose certificates may read them (01 §1.10).

use postern_identity::Secret;

use super::{authorities, either, pair, written};
use crate::config::Code;
use crate::config::block::Block;
use crate::config::context::Context;

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
    let client_ca = either(cx, settings, "metrics_client_ca", "metrics_client_ca_file");
    if let (Some((at, _)), None) = (&client_ca, written(settings, "metrics_certificate", "metrics_certificate_file")) {
        let what = "certificates of clients are asked for over TLS only, and there is no `metrics_certificate`";
        let hint = "add `metrics_certificate_file` and `metrics_certificate_key_file`";
        cx.advise(Code::MissingKey, at, what, hint);
    }
    let client_ca = authorities(cx, client_ca);
    let (certificate, key) = pair(cx, settings, "metrics_certificate", "metrics_certificate_key")?;
    Some(MetricsTls { certificate, key, client_ca })
}
