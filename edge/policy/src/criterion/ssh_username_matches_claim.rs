//! `ssh_username_matches_claim`: the SSH user name is an element of a claim.

use postern_identity::ClaimValues;

use super::claim::ClaimName;
use super::{Carrier, Dialect, Stand, Test, of_person, seen, seen_of_person, verdict};
use crate::document::{Mistake, Node};
use crate::{Facts, Reason, RuleResult};

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SshUsernameMatchesClaim(ClaimName);

impl Test for SshUsernameMatchesClaim {
    fn parse(_: &str, data: &Node, _: Dialect) -> Result<Self, Vec<Mistake>> {
        match data.as_str().filter(|name| !name.is_empty()) {
            Some(name) => Ok(Self(ClaimName::new(name))),
            None => {
                let what = format!("`ssh_username_matches_claim` needs the name of a claim, not {}", data.kind());
                Err(Mistake::at(data.place, what).hint("write `ssh_username_matches_claim: NAME`").into())
            }
        }
    }

    /// No user name is nobody's, not that of an empty value.
    fn evaluate(&self, facts: &Facts<'_>, stand: Stand) -> RuleResult {
        of_person(facts, |person| {
            let username = facts.ssh.username;
            let is_in = |values: Option<ClaimValues<'_>>| {
                values.is_some_and(|values| values.iter().any(|value| value.as_text() == Some(username)))
            };
            let matches = !username.is_empty() && self.0.meets(person.session, stand, is_in);
            verdict(matches, Reason::SshUsernameOk, Reason::SshUsernameUnauthorized)
        })
    }

    fn words(&self) -> String {
        format!("an SSH user name in claim {}", self.0.written())
    }

    fn data(&self) -> String {
        self.0.written().to_owned()
    }

    fn saw(&self, facts: &Facts<'_>) -> String {
        seen_of_person(facts, |person| {
            format!("{} and {}", seen(facts.ssh.username, "no SSH user name"), self.0.saw(person.session))
        })
    }

    const NEEDS_SESSION: bool = true;
    const CARRIER: Option<Carrier> = Some(Carrier::Ssh);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Ssh;
    use crate::document::read;
    use crate::testing::World;

    #[test]
    fn any_element_may_be_the_name() {
        let ssh = Ssh { username: "ops", ..Ssh::NONE };
        let world = World::signed_in().user_claims(&json!({"accounts": ["dev", "ops"], "empty": ""}));
        let no = "ssh-username-unauthorized";
        world.assert("ssh_username_matches_claim: empty", false, no);
        let world = world.ssh(ssh);
        world.assert("ssh_username_matches_claim: accounts", true, "ssh-username-ok");
        world.assert("ssh_username_matches_claim: none", false, no);
        World::default().ssh(ssh).assert("ssh_username_matches_claim: accounts", false, "user-unauthenticated");
    }

    #[test]
    fn a_claim_must_be_named() {
        for data in ["", "''", "[a]", "7"] {
            let node = read(data).expect("YAML");
            assert!(SshUsernameMatchesClaim::parse("", &node, Dialect::default()).is_err(), "{data}");
        }
    }
}
