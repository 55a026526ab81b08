//! `ssh_username`: the user name of an SSH connection; empty on any other.

use super::{Carrier, Dialect, Stand, Test, seen, verdict};
use crate::document::{Mistake, Node};
use crate::matcher::StringMatcher;
use crate::{Facts, Reason, RuleResult};

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SshUsername(StringMatcher);

impl Test for SshUsername {
    fn parse(_: &str, data: &Node, _: Dialect) -> Result<Self, Vec<Mistake>> {
        StringMatcher::parse(data).map(Self)
    }

    fn evaluate(&self, facts: &Facts<'_>, _: Stand) -> RuleResult {
        verdict(self.0.matches(facts.ssh.username), Reason::SshUsernameOk, Reason::SshUsernameUnauthorized)
    }

    fn words(&self) -> String {
        format!("SSH user name {}", self.0.words())
    }

    fn data(&self) -> String {
        self.0.words()
    }

    fn saw(&self, facts: &Facts<'_>) -> String {
        seen(facts.ssh.username, "no SSH user name")
    }

    const CARRIER: Option<Carrier> = Some(Carrier::Ssh);

    fn holds_idle(&self) -> bool {
        self.0.matches("")
    }
}

#[cfg(test)]
mod tests {
    use crate::Ssh;
    use crate::testing::World;

    #[test]
    fn the_user_name_is_compared() {
        let world = World::default().ssh(Ssh { username: "ops", ..Ssh::NONE });
        world.assert("ssh_username: {in: [root, ops]}", true, "ssh-username-ok");
        world.assert("ssh_username: root", false, "ssh-username-unauthorized");
    }
}
