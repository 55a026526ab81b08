//! `invalid_client_certificate`: the client certificate is missing or not trusted, where a CA asks for one (01 §1.6).

use super::{Carrier, Dialect, Stand, Test, verdict};
use crate::document::{Mistake, Node};
use crate::{Facts, Reason, RuleResult};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct InvalidClientCertificate;

impl Test for InvalidClientCertificate {
    fn parse(_: &str, _: &Node, _: Dialect) -> Result<Self, Vec<Mistake>> {
        Ok(Self)
    }

    fn evaluate(&self, facts: &Facts<'_>, _: Stand) -> RuleResult {
        let invalid = match facts.client_certificate.leaf {
            None => Reason::ClientCertificateRequired,
            Some(_) => Reason::InvalidClientCertificate,
        };
        verdict(!facts.client_certificate.valid, invalid, Reason::ValidClientCertificate)
    }

    fn words(&self) -> String {
        "a client certificate that is missing or not valid".to_owned()
    }

    fn data(&self) -> String {
        String::new()
    }

    fn saw(&self, facts: &Facts<'_>) -> String {
        let seen = match (facts.client_certificate.leaf, facts.client_certificate.valid) {
            (None, true) => "no client certificate, and none wanted",
            (None, false) => "no client certificate",
            (Some(_), true) => "a valid client certificate",
            (Some(_), false) => "a client certificate that is not valid",
        };
        seen.to_owned()
    }

    const CARRIER: Option<Carrier> = Some(Carrier::ClientCertificates);
}

#[cfg(test)]
mod tests {
    use crate::Certificate;
    use crate::testing::World;

    #[test]
    fn what_is_missing_and_what_is_not_trusted_are_told_apart() {
        let leaf = Certificate::default();
        let criterion = "invalid_client_certificate: 1";
        World::default().certificate(None, false).assert(criterion, true, "client-certificate-required");
        World::default().certificate(Some(&leaf), false).assert(criterion, true, "invalid-client-certificate");
        World::default().certificate(Some(&leaf), true).assert(criterion, false, "valid-client-certificate");
        World::default().assert(criterion, false, "valid-client-certificate");
    }
}
