//! `ssh_ca`: an SSH user certificate of one of these authorities, for that user name, and in force.

use super::ssh_publickey::Keys;
use super::{Carrier, Dialect, Stand, Test, verdict};
use crate::document::{Mistake, Node};
use crate::{Facts, Reason, RuleResult, SshCertificate};

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SshCa(Keys);

impl Test for SshCa {
    fn parse(_: &str, data: &Node, _: Dialect) -> Result<Self, Vec<Mistake>> {
        Keys::parse(data).map(Self)
    }

    fn evaluate(&self, facts: &Facts<'_>, _: Stand) -> RuleResult {
        let holds = facts.ssh.certificate.is_some_and(|certificate| {
            let SshCertificate { authority, principals, valid_after, valid_before } = certificate;
            self.0.contains(authority)
                && principals.contains(&facts.ssh.username)
                && (valid_after..valid_before).contains(&facts.now)
        });
        verdict(holds, Reason::SshCaOk, Reason::SshCaUnauthorized)
    }

    fn words(&self) -> String {
        "an SSH certificate of an authority on its list".to_owned()
    }

    fn data(&self) -> String {
        self.0.words()
    }

    fn saw(&self, facts: &Facts<'_>) -> String {
        match facts.ssh.certificate {
            None => "no SSH certificate".to_owned(),
            Some(certificate) => {
                format!("an SSH certificate for {} used as {}", certificate.principals.join(", "), facts.ssh.username)
            }
        }
    }

    const CARRIER: Option<Carrier> = Some(Carrier::Ssh);
}

#[cfg(test)]
mod tests {
    use postern_identity::Timestamp;

    use crate::criterion::ssh_publickey::tests::pair;
    use crate::testing::{NOW, World};
    use crate::{Ssh, SshCertificate};

    #[test]
    fn authority_user_name_and_time_must_fit() {
        let ((wire, line), (other, _)) = (pair(1), pair(2));
        let criterion = format!("ssh_ca: '{line}'");
        let fits = SshCertificate {
            authority: &wire,
            principals: &["root", "ops"],
            valid_after: Timestamp::from_secs(NOW - 1),
            valid_before: Timestamp::from_secs(NOW + 1),
        };
        let assert = |username, certificate, holds| {
            let world = World::default().ssh(Ssh { username, key: None, certificate: Some(certificate) });
            world.assert(&criterion, holds, if holds { "ssh-ca-ok" } else { "ssh-ca-unauthorized" });
        };
        assert("ops", fits, true);
        assert("dev", fits, false);
        assert("ops", SshCertificate { authority: &other, ..fits }, false);
        assert("ops", SshCertificate { principals: &[], ..fits }, false);
        assert("ops", SshCertificate { valid_before: Timestamp::from_secs(NOW), ..fits }, false);
        assert("ops", SshCertificate { valid_after: Timestamp::from_secs(NOW + 1), ..fits }, false);
        World::default().assert(&criterion, false, "ssh-ca-unauthorized");
    }
}
