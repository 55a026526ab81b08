//! Slots that go from one master to another while they are in use, one key after the other, as `redis-cli --cluster reshard`
//! does it.

use std::collections::BTreeSet;

use crate::{Answer, Bare, Cluster, Member, until};

/// A master, and the name by which the cluster knows it.
struct Side {
    bare: Bare,
    id: String,
    port: String,
}

impl Side {
    fn of(member: &Member) -> Self {
        let mut bare = member.bare().unwrap();
        let id = bare.sure(&["CLUSTER", "MYID"]).unwrap().text().to_owned();
        Self { bare, id, port: member.server.port().to_string() }
    }
}

impl Cluster {
    /// Moves so many slots that are in use from one master to another, and back.
    pub fn reshard(&self, from: usize, slots: usize) {
        let is_master = |member: &&Member| {
            let role = member.bare().unwrap().sure(&["ROLE"]).unwrap();
            role.list().first().is_some_and(|role| role.text() == "master")
        };
        let mut one = Side::of(&self.members()[from]);
        let mut others = self.members().iter().filter(is_master).map(Side::of).filter(|side| side.id != one.id);
        let (mut other, mut third) = (others.next().unwrap(), others.next().unwrap());
        let used = used(&mut one.bare, slots);
        assert!(!used.is_empty(), "no slot is in use");
        self.agrees();
        for slot in &used {
            shift(slot, &mut one, &mut other, &mut third);
        }
        self.agrees();
        for slot in &used {
            shift(slot, &mut other, &mut one, &mut third);
        }
    }

    /// Waits, as an operator would, until all members say the same of who owns what. A master that takes a slot back gets a new
    /// epoch only if it knows of a newer one than its own. If it has not heard of the other master's yet, it keeps its own; then
    /// what the other one has claimed before wins, the slot is lost with its keys, and nobody owns it.
    fn agrees(&self) {
        until("all members agree on who owns what", || {
            let views: Option<BTreeSet<_>> = self.members().iter().map(owners).collect();
            views.is_some_and(|views| views.len() == 1)
        });
    }
}

/// Who owns what since which epoch, as a member says.
fn owners(member: &Member) -> Option<BTreeSet<String>> {
    let nodes = member.bare().ok()?.sure(&["CLUSTER", "NODES"]).ok()?;
    let masters = nodes.text().lines().filter(|line| line.contains("master"));
    let own = |line: &str| {
        let words: Vec<_> = line.split(' ').collect();
        // Its id, its epoch and its slots; what is between changes all the time.
        [&words[..1], &words[6..7], &words[8..]].concat().join(" ")
    };
    Some(masters.map(own).collect())
}

/// Slots of a server that have keys.
fn used(bare: &mut Bare, count: usize) -> Vec<String> {
    let keys = bare.keys("*").unwrap();
    let slot = |key: &String| match bare.sure(&["CLUSTER", "KEYSLOT", key]).unwrap() {
        Answer::Number(slot) => slot.to_string(),
        answer @ (Answer::Nil | Answer::Text(_) | Answer::List(_) | Answer::Error(_)) => panic!("no slot: {answer:?}"),
    };
    let mut used: Vec<_> = keys.iter().map(slot).collect();
    used.sort();
    used.dedup();
    used.truncate(count);
    used
}

fn shift(slot: &str, from: &mut Side, to: &mut Side, third: &mut Side) {
    to.bare.sure(&["CLUSTER", "SETSLOT", slot, "IMPORTING", &from.id]).unwrap();
    from.bare.sure(&["CLUSTER", "SETSLOT", slot, "MIGRATING", &to.id]).unwrap();
    loop {
        let keys = from.bare.sure(&["CLUSTER", "GETKEYSINSLOT", slot, "1"]).unwrap();
        let [key] = keys.list() else { break };
        from.bare.sure(&["MIGRATE", "127.0.0.1", &to.port, key.text(), "0", "5000"]).unwrap();
    }
    let has = ["CLUSTER", "SETSLOT", slot, "NODE", &to.id];
    for bare in [&mut to.bare, &mut from.bare, &mut third.bare] {
        bare.sure(&has).unwrap();
    }
}
