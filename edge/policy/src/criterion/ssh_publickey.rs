//! `ssh_publickey`: the key that an SSH connection proved.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Carrier, Dialect, Stand, Test, verdict};
use crate::document::{Mistake, Node};
use crate::matcher::collect;
use crate::{Facts, Reason, RuleResult};

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SshPublickey(Keys);

impl Test for SshPublickey {
    fn parse(_: &str, data: &Node, _: Dialect) -> Result<Self, Vec<Mistake>> {
        Keys::parse(data).map(Self)
    }

    fn evaluate(&self, facts: &Facts<'_>, _: Stand) -> RuleResult {
        let listed = facts.ssh.key.is_some_and(|key| self.0.contains(key));
        verdict(listed, Reason::SshPublickeyOk, Reason::SshPublickeyUnauthorized)
    }

    fn words(&self) -> String {
        "an SSH key on its list".to_owned()
    }

    fn data(&self) -> String {
        self.0.words()
    }

    fn saw(&self, facts: &Facts<'_>) -> String {
        facts.ssh.key.map_or_else(|| "no SSH key".to_owned(), |key| STANDARD.encode(key))
    }

    const CARRIER: Option<Carrier> = Some(Carrier::Ssh);
}

/// Public keys in their wire form.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Keys(Box<[Box<[u8]>]>);

impl Keys {
    /// A line of `authorized_keys`, or a list of them.
    pub(super) fn parse(node: &Node) -> Result<Self, Vec<Mistake>> {
        let nodes = node.as_list().unwrap_or(std::slice::from_ref(node));
        let key = |node: &Node| {
            node.as_str().and_then(key).ok_or_else(|| {
                Mistake::at(node.place, "this is not an SSH public key")
                    .hint("write a line as in `authorized_keys`: `ssh-ed25519 AAAA...`")
            })
        };
        collect(nodes, key).map(|keys| Self(keys.into()))
    }

    pub(super) fn contains(&self, key: &[u8]) -> bool {
        self.0.iter().any(|listed| **listed == *key)
    }

    pub(super) fn words(&self) -> String {
        match &*self.0 {
            [] => "no key".to_owned(),
            [key] => STANDARD.encode(key),
            keys => format!("one of {} keys", keys.len()),
        }
    }
}

/// The key of an `authorized_keys` line: its type, then base64 that begins with the same type. Options may come before.
fn key(line: &str) -> Option<Box<[u8]>> {
    let mut words = line.split_whitespace().peekable();
    while let Some(kind) = words.next() {
        let decoded = words.peek().and_then(|word| STANDARD.decode(word).ok());
        let named = |key: &Vec<u8>| {
            let (length, rest) = key.split_at_checked(4)?;
            let length = u32::from_be_bytes(length.try_into().ok()?) as usize;
            Some(rest.get(..length)? == kind.as_bytes() && rest.len() > length)
        };
        if let Some(key) = decoded.filter(|key| named(key) == Some(true)) {
            return Some(key.into());
        }
    }
    None
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::Ssh;
    use crate::document::read;
    use crate::testing::World;

    /// A key as it is sent, and as it is written.
    pub(in crate::criterion) fn pair(seed: u8) -> (Vec<u8>, String) {
        let mut wire = b"\0\0\0\x0bssh-ed25519\0\0\0\x20".to_vec();
        wire.extend([seed; 32]);
        let line = format!("ssh-ed25519 {} someone@host", STANDARD.encode(&wire));
        (wire, line)
    }

    #[test]
    fn a_key_on_the_list_is_known_whatever_its_comment_and_options() {
        let ((wire, line), (_, other)) = (pair(1), pair(2));
        let world = World::default().ssh(Ssh { key: Some(&wire), ..Ssh::NONE });
        world.assert(&format!("ssh_publickey: '{line}'"), true, "ssh-publickey-ok");
        world.assert(&format!("ssh_publickey: ['{other}', 'no-pty,command=\"a b\" {line}']"), true, "ssh-publickey-ok");
        world.assert(&format!("ssh_publickey: ['{other}']"), false, "ssh-publickey-unauthorized");
        world.assert("ssh_publickey: []", false, "ssh-publickey-unauthorized");
        World::default().assert(&format!("ssh_publickey: '{line}'"), false, "ssh-publickey-unauthorized");
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let (_, line) = pair(1);
        for data in ["7", "''", "ssh-ed25519", "ssh-ed25519 AAAA", &line.replace("ssh-ed25519 ", "ssh-rsa ")] {
            assert!(Keys::parse(&read(data).expect("YAML")).is_err(), "{data}");
        }
    }
}
