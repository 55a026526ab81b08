//! `ssh_username_matches_email`: the SSH user name is what stands before the `@` of the e-mail address.

use super::{Carrier, Dialect, Stand, Test, of_address, of_person, seen, verdict};
use crate::document::{Mistake, Node};
use crate::{Email, Facts, Reason, RuleResult};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct SshUsernameMatchesEmail;

impl Test for SshUsernameMatchesEmail {
    fn parse(_: &str, _: &Node, _: Dialect) -> Result<Self, Vec<Mistake>> {
        Ok(Self)
    }

    /// No user name is nobody's, not that of an empty address.
    fn evaluate(&self, facts: &Facts<'_>, stand: Stand) -> RuleResult {
        of_person(facts, |_| {
            let matches = of_address(
                facts,
                stand,
                || false,
                |address| {
                    let local = address.split('@').next().unwrap_or_default();
                    !local.is_empty() && facts.ssh.username == local
                },
            );
            verdict(matches, Reason::SshUsernameOk, Reason::SshUsernameUnauthorized)
        })
    }

    fn words(&self) -> String {
        "the SSH user name of the e-mail address".to_owned()
    }

    fn data(&self) -> String {
        String::new()
    }

    fn saw(&self, facts: &Facts<'_>) -> String {
        let (address, doubt) = match facts.email() {
            Email::NoSession => return "no session".to_owned(),
            Email::Unverified(address) => (address, ", not verified"),
            Email::Address(address) => (address, ""),
        };
        format!("{} and {}{doubt}", seen(facts.ssh.username, "no SSH user name"), seen(address, "no address"))
    }

    const NEEDS_SESSION: bool = true;
    const CARRIER: Option<Carrier> = Some(Carrier::Ssh);
}

#[cfg(test)]
mod tests {
    use crate::Ssh;
    use crate::testing::World;

    #[test]
    fn the_local_part_is_compared_and_an_empty_one_is_nobodys() {
        let criterion = "ssh_username_matches_email: 1";
        let ssh = Ssh { username: "ops", ..Ssh::NONE };
        World::signed_in().email("ops@x.test").ssh(ssh).assert(criterion, true, "ssh-username-ok");
        World::signed_in().email("Ops@x.test").ssh(ssh).assert(criterion, false, "ssh-username-unauthorized");
        World::signed_in().assert(criterion, false, "ssh-username-unauthorized");
        World::default().ssh(ssh).assert(criterion, false, "user-unauthenticated");
        let unverified = World::signed_in().email("ops@x.test").email_verified(Some(false)).ssh(ssh);
        unverified.assert(criterion, false, "ssh-username-unauthorized");
    }
}
