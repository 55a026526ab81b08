//! Slots that go from one master to another while they are in use, one key after the other, as `redis-cli --cluster reshard`
//! does it.

use anyhow::{Context as _, Result, ensure};
use postern_servers::{Answer, Bare, Cluster, Member};

/// A master, and the name by which the cluster knows it.
struct Side {
    bare: Bare,
    id: String,
    port: String,
}

impl Side {
    fn of(member: &Member) -> Result<Self> {
        let mut bare = member.bare()?;
        let id = bare.call(&["CLUSTER", "MYID"])?.text().to_owned();
        Ok(Self { bare, id, port: member.server.port().to_string() })
    }
}

/// Moves so many slots that are in use from one master to another, and back; says so.
pub(super) fn there_and_back(cluster: &Cluster, from: usize, slots: usize) -> Result<&'static str> {
    let mut masters = Vec::new();
    for (number, member) in cluster.members().iter().enumerate() {
        if member.bare()?.call(&["ROLE"])?.list().first().is_some_and(|role| role.text() == "master") {
            masters.push((number, Side::of(member)?));
        }
    }
    let place = masters.iter().position(|(number, _)| *number == from).context("it is no master")?;
    let (_, mut one) = masters.swap_remove(place);
    let (_, mut other) = masters.pop().context("no other master")?;
    let (_, mut third) = masters.pop().context("no third master")?;
    let used = used(&mut one.bare, slots)?;
    ensure!(!used.is_empty(), "no slot is in use");
    for slot in &used {
        shift(slot, &mut one, &mut other, &mut third)?;
    }
    for slot in &used {
        shift(slot, &mut other, &mut one, &mut third)?;
    }
    Ok("slots moved")
}

/// Slots of a server that have keys.
fn used(bare: &mut Bare, count: usize) -> Result<Vec<String>> {
    let (mut used, mut cursor) = (Vec::new(), "0".to_owned());
    loop {
        let answer = bare.call(&["SCAN", &cursor, "COUNT", "500"])?;
        let [next, page] = answer.list() else { anyhow::bail!("no answer to SCAN: {answer:?}") };
        for key in page.list() {
            let Answer::Number(slot) = bare.call(&["CLUSTER", "KEYSLOT", key.text()])? else { continue };
            used.push(slot.to_string());
        }
        next.text().clone_into(&mut cursor);
        if cursor == "0" {
            used.sort();
            used.dedup();
            used.truncate(count);
            return Ok(used);
        }
    }
}

fn shift(slot: &str, from: &mut Side, to: &mut Side, third: &mut Side) -> Result<()> {
    to.bare.sure(&["CLUSTER", "SETSLOT", slot, "IMPORTING", &from.id])?;
    from.bare.sure(&["CLUSTER", "SETSLOT", slot, "MIGRATING", &to.id])?;
    loop {
        let keys = from.bare.sure(&["CLUSTER", "GETKEYSINSLOT", slot, "1"])?;
        let [key] = keys.list() else { break };
        from.bare.sure(&["MIGRATE", "127.0.0.1", &to.port, key.text(), "0", "5000"])?;
    }
    let has = ["CLUSTER", "SETSLOT", slot, "NODE", &to.id];
    for bare in [&mut to.bare, &mut from.bare, &mut third.bare] {
        bare.sure(&has)?;
    }
    Ok(())
}
