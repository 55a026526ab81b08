//! Which server has what, when a row begins.

use std::collections::HashMap;

use anyhow::{Context as _, Result, bail, ensure};
use postern_servers::{Answer, Cluster};

use super::fault::Servers;
use crate::people::Person;

/// People by the server that has everything about them, so that a failure can be laid at its door.
#[derive(Debug)]
pub(super) struct Shards {
    /// The server, and whom it has.
    pub(super) whole: Vec<(usize, Vec<Person>)>,
    /// Those about whom several servers know something, with the server that has the session.
    pub(super) spare: Vec<(usize, Person)>,
}

/// Slots, from and to, and the server that has them.
type Owned = (i64, i64, usize);

impl Shards {
    /// Sorts people.
    pub(super) fn sort(servers: &Servers, people: Vec<Person>) -> Result<Self> {
        let Servers::Cluster(cluster) = servers else {
            let mut whole = people;
            let spare = whole.split_off(whole.len() / 4);
            return Ok(Self { whole: vec![(0, whole)], spare: spare.into_iter().map(|person| (0, person)).collect() });
        };
        let owned = owned(cluster)?;
        let mut asked = cluster.members().first().context("no member")?.bare()?;
        let mut owner = |key: &str| -> Result<usize> {
            let Answer::Number(slot) = asked.call(&["CLUSTER", "KEYSLOT", key])? else { bail!("no slot") };
            let has = |(first, last, _): &&Owned| (*first..=*last).contains(&slot);
            Ok(owned.iter().find(has).context("a slot without an owner")?.2)
        };
        let users = users(cluster, &owned)?;
        let mut shards = Self { whole: Vec::new(), spare: Vec::new() };
        for person in people {
            let name = person.session.handle.to_string();
            let user = users.get(&name).context("a session without a user")?;
            let part = person.session.handle.as_bytes().last().context("no handle")? % PARTS;
            let of = [owner(&format!("s:{{{name}}}"))?, owner(user)?, owner(&format!("r:{{{part:x}}}"))?];
            let [session, others @ ..] = of;
            if others.iter().any(|other| *other != session) {
                shards.spare.push((session, person));
            } else if let Some((_, people)) = shards.whole.iter_mut().find(|(server, _)| *server == session) {
                people.push(person);
            } else {
                shards.whole.push((session, vec![person]));
            }
        }
        ensure!(shards.whole.len() == 3, "a server without sessions of its own");
        Ok(shards)
    }
}

/// Parts of the index of refreshes (`storage/src/backend/redis/keys.rs`).
const PARTS: u8 = 16;

/// Which member has which slots.
fn owned(cluster: &Cluster) -> Result<Vec<Owned>> {
    let mut owned = Vec::new();
    for (number, member) in cluster.members().iter().enumerate() {
        let nodes = member.bare()?.call(&["CLUSTER", "NODES"])?;
        let own = nodes.text().lines().find(|line| line.contains("myself")).context("it does not know itself")?;
        for range in own.split(' ').skip(8).filter(|word| !word.starts_with('[')) {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            owned.push((first.parse()?, last.parse()?, number));
        }
    }
    Ok(owned)
}

/// The key of the user whose session that is, by the session.
fn users(cluster: &Cluster, owned: &[Owned]) -> Result<HashMap<String, String>> {
    let mut masters: Vec<_> = owned.iter().map(|(_, _, master)| *master).collect();
    masters.dedup();
    let mut users = HashMap::new();
    for master in masters {
        let mut bare = cluster.members().get(master).context("no such member")?.bare()?;
        for key in bare.keys("u:*")? {
            let sessions = bare.call(&["ZRANGE", &key, "0", "-1"])?;
            users.extend(sessions.list().iter().map(|session| (session.text().to_owned(), key.clone())));
        }
    }
    Ok(users)
}
