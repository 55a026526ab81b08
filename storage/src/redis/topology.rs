//! Who serves what, as the servers tell it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::expected::Watched;
use super::slots::SLOTS;
use super::{Command, Reply};
use crate::config::Server;

/// One server's idea of a cluster: `CLUSTER NODES`, a line for each member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct View {
    masters: Vec<Master>,
    replicas: Vec<Replica>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Master {
    id: String,
    server: Server,
    epoch: u64,
    slots: Vec<(u16, u16)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Replica {
    of: String,
    server: Server,
}

/// A master that owns slots, and the servers that follow it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shard {
    /// The master.
    pub(super) master: Server,
    /// Those that could take over; `None` until somebody was asked.
    pub(super) replicas: Option<Vec<Server>>,
    /// How many there are to be, be it that fewer are there just now.
    pub(super) expected: usize,
}

impl Shard {
    /// A master of which nothing else is known yet.
    pub(super) const fn of(master: Server) -> Self {
        Self { master, replicas: None, expected: 0 }
    }

    /// How many replicas are to have what is durable: `wanted`, or as many as there are, or should be. `None` until that is
    /// known.
    pub(super) fn copies(&self, wanted: u32) -> Option<u32> {
        if wanted == 0 {
            return Some(0);
        }
        let there = self.replicas.as_ref()?.len().max(self.expected);
        Some(wanted.min(u32::try_from(there).unwrap_or(u32::MAX)))
    }
}

/// Which shard owns each slot. Cheap to clone.
#[derive(Clone)]
pub(super) struct Map {
    /// By the ids of their masters, so in an order that does not depend on who was asked first; behind them those that `MOVED` named
    /// since.
    pub(super) shards: Vec<Arc<Shard>>,
    owners: Arc<[u16]>,
    /// Slots that have moved since, in their order: few, so that the table need not be copied for each.
    moved: Vec<(u16, u16)>,
}

/// More slots than these are written into a table of their own.
const MOVED: usize = 256;

/// What the map says counts, not how it came to say it.
impl PartialEq for Map {
    fn eq(&self, other: &Self) -> bool {
        let is_same = |slot| self.place(slot) == other.place(slot);
        let as_written = (&self.owners, &self.moved) == (&other.owners, &other.moved);
        self.shards == other.shards && (as_written || (0_u16..).take(SLOTS).all(is_same))
    }
}

impl std::fmt::Debug for Map {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Map").field("shards", &self.shards).finish_non_exhaustive()
    }
}

/// No shard.
const NOBODY: u16 = u16::MAX;

impl View {
    /// Reads the answer that `asked` gave. Members that failed, or have no address, are left out.
    pub(super) fn read(text: &str, asked: &Server) -> Self {
        let mut view = Self::default();
        for line in text.lines() {
            let Some(member) = Member::read(line, asked) else { continue };
            if member.is_master {
                let Member { id, server, epoch, slots, .. } = member;
                view.masters.push(Master { id, server, epoch, slots });
            } else {
                view.replicas.push(Replica { of: member.of, server: member.server });
            }
        }
        view
    }

    /// Every server of the view.
    pub(super) fn servers(&self) -> impl Iterator<Item = &Server> {
        self.masters.iter().map(|master| &master.server).chain(self.replicas.iter().map(|replica| &replica.server))
    }
}

struct Member {
    id: String,
    server: Server,
    is_master: bool,
    of: String,
    epoch: u64,
    slots: Vec<(u16, u16)>,
}

impl Member {
    /// `<id> <ip:port@cport[,hostname]> <flags> <master> <ping> <pong> <epoch> <state> <slot> …`
    fn read(line: &str, asked: &Server) -> Option<Self> {
        let mut words = line.split(' ');
        let (id, address, flags, of) = (words.next()?, words.next()?, words.next()?, words.next()?);
        let (epoch, _state) = (words.nth(2)?, words.next()?);
        let has = |flag| flags.split(',').any(|own| own == flag);
        if has("fail") || has("noaddr") || has("handshake") {
            return None;
        }
        let slots = words.filter(|word| !word.starts_with('['));
        Some(Self {
            id: id.to_owned(),
            server: server(address, has("myself").then_some(asked))?,
            is_master: has("master"),
            of: of.to_owned(),
            epoch: epoch.parse().ok()?,
            slots: slots.filter_map(range).collect(),
        })
    }
}

/// The host name that a member announces, else its address; of the one that was asked, if it knows neither, where it was asked.
fn server(address: &str, itself: Option<&Server>) -> Option<Server> {
    let mut parts = address.split(',');
    let (ip, port) = parts.next()?.split('@').next()?.rsplit_once(':')?;
    let name = parts.next().filter(|name| !name.is_empty() && !name.contains('='));
    let port = port.parse().ok()?;
    match (name.unwrap_or(ip), itself) {
        ("", Some(itself)) => Some(Server { host: itself.host.clone(), port }),
        ("", None) => None,
        (host, _) => Some(Server { host: host.to_owned(), port }),
    }
}

fn range(word: &str) -> Option<(u16, u16)> {
    let (first, last) = word.split_once('-').unwrap_or((word, word));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last && usize::from(last) < SLOTS).then_some((first, last))
}

impl Map {
    /// One shard that owns everything.
    pub(super) fn whole(shard: Shard) -> Self {
        Self { shards: vec![Arc::new(shard)], owners: vec![0; SLOTS].into(), moved: Vec::new() }
    }

    /// Nothing known yet.
    pub(super) fn unknown() -> Self {
        Self { shards: Vec::new(), owners: vec![NOBODY; SLOTS].into(), moved: Vec::new() }
    }

    /// What several views come to: of those who claim a slot the one with the highest configuration epoch owns it, as in
    /// the cluster itself. A master that was cut off goes on claiming what it had, with its old epoch.
    pub(super) fn agreed(views: &[View]) -> Self {
        let mut followers: BTreeMap<&str, BTreeSet<&Server>> = BTreeMap::new();
        for replica in views.iter().flat_map(|view| &view.replicas) {
            followers.entry(&replica.of).or_default().insert(&replica.server);
        }
        // The last word counts: that of the highest epoch, and of several with the same one that of the first who was heard.
        let mut claims: Vec<_> = views.iter().rev().flat_map(|view| view.masters.iter().rev()).collect();
        claims.sort_by_key(|master| master.epoch);
        let masters: BTreeMap<&str, &Master> = claims.iter().map(|master| (master.id.as_str(), *master)).collect();
        let places: HashMap<&str, u16> = masters.keys().copied().zip(0..NOBODY).collect();
        let mut owners = vec![NOBODY; SLOTS];
        for claim in claims {
            let place = places.get(claim.id.as_str()).copied().unwrap_or(NOBODY);
            for (first, last) in &claim.slots {
                let range = owners.get_mut(usize::from(*first)..=usize::from(*last));
                range.unwrap_or_default().fill(place);
            }
        }
        // Those that own nothing yet are among them: they may be sent what is on its way to them.
        let shard = |(id, master): (&str, &Master)| {
            let replicas: Vec<_> = followers.get(id).into_iter().flatten().copied().cloned().collect();
            let expected = replicas.len();
            Arc::new(Shard { master: master.server.clone(), replicas: Some(replicas), expected })
        };
        Self { shards: masters.into_iter().map(shard).collect(), owners: owners.into(), moved: Vec::new() }
    }

    /// The shard that owns a slot.
    pub(super) fn owner(&self, slot: u16) -> Option<&Arc<Shard>> {
        self.shards.get(usize::from(self.place(slot)))
    }

    /// The shard of that master, be it that nothing else is known of it.
    pub(super) fn shard(&self, master: &Server) -> Arc<Shard> {
        let known = self.shards.iter().find(|shard| shard.master == *master);
        known.map_or_else(|| Arc::new(Shard::of(master.clone())), Arc::clone)
    }

    /// The same map, with one slot at another master: what a server that was asked said of it.
    pub(super) fn moved(&self, slot: u16, to: &Server) -> Self {
        let mut map = self.clone();
        let place = map.shards.iter().position(|shard| shard.master == *to).unwrap_or_else(|| {
            map.shards.push(Arc::new(Shard::of(to.clone())));
            map.shards.len() - 1
        });
        let place = u16::try_from(place).unwrap_or(NOBODY);
        match map.moved.binary_search_by_key(&slot, |(slot, _)| *slot) {
            Ok(at) => map.moved.iter_mut().skip(at).take(1).for_each(|(_, known)| *known = place),
            Err(at) => map.moved.insert(at, (slot, place)),
        }
        if map.moved.len() > MOVED {
            map.owners = (0_u16..).take(SLOTS).map(|slot| map.place(slot)).collect();
            map.moved.clear();
        }
        map
    }

    /// Slots that nobody owns.
    pub(super) fn unowned(&self) -> usize {
        (0_u16..).take(SLOTS).filter(|slot| self.owner(*slot).is_none()).count()
    }

    /// Which of the shards owns a slot.
    fn place(&self, slot: u16) -> u16 {
        let moved = self.moved.binary_search_by_key(&slot, |(slot, _)| *slot).ok();
        let moved = moved.and_then(|at| self.moved.get(at)).map(|(_, place)| *place);
        moved.or_else(|| self.owners.get(usize::from(slot)).copied()).unwrap_or(NOBODY)
    }
}

/// `MOVED 3999 127.0.0.1:6381`, `ASK 3999 127.0.0.1:6381`: the word, the slot and the server, whose host may be missing:
/// then it is that of the server that said so.
pub(super) fn redirection(error: &str, said_by: &Server) -> Option<(Redirected, u16, Server)> {
    let mut words = error.split(' ');
    let kind = match words.next()? {
        "MOVED" => Redirected::Moved,
        "ASK" => Redirected::Ask,
        _ => return None,
    };
    let slot = words.next()?.parse().ok()?;
    let (host, port) = words.next()?.rsplit_once(':')?;
    let host = if host.is_empty() || host == "?" { said_by.host.clone() } else { host.to_owned() };
    Some((kind, slot, Server { host, port: port.parse().ok()? }))
}

/// How a server sends elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Redirected {
    /// The slot lives there now.
    Moved,
    /// The slot is on its way: this one key, this one time.
    Ask,
}

/// Asks a Sentinel for the master of that name.
pub(super) fn ask_sentinel(master: &str) -> Command {
    Command::new("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(master)
}

/// Asks a Sentinel for the replicas of the master of that name.
pub(super) fn ask_sentinel_for_replicas(master: &str) -> Command {
    Command::new("SENTINEL").arg("REPLICAS").arg(master)
}

/// What a Sentinel said to [`ask_sentinel_for_replicas`]: one that has followed and answers is up, also while it is just being
/// made a master.
pub(super) fn watched_by_sentinel(reply: &Reply) -> Option<Watched> {
    let mut watched = Watched::default();
    for replica in reply.list()? {
        let fields = replica.list()?;
        let find = |name: &str| {
            let named = |pair: &&[Reply]| pair.first().and_then(Reply::text) == Some(name);
            fields.chunks_exact(2).find(named).and_then(|pair| pair.get(1)?.text())
        };
        if find("flags")?.split(',').any(|flag| flag == "s_down") {
            watched.down += 1;
        } else if find("master-link-status") == Some("ok") {
            watched.up += 1;
        }
    }
    Some(watched)
}

/// What a Sentinel said to [`ask_sentinel`].
pub(super) fn named_by_sentinel(reply: &Reply) -> Option<Server> {
    match reply.list()? {
        [host, port] => Some(Server { host: host.text()?.to_owned(), port: port.number()? }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> Server {
        Server { host: "10.0.0.1".to_owned(), port }
    }

    const THREE: &str = "\
aaa 10.0.0.1:7001@17001 myself,master - 0 0 1 connected 0-5460
bbb 10.0.0.1:7002@17002 master - 0 0 2 connected 5461-10922 [93-<-aaa]
ccc 10.0.0.1:7003@17003,three.example master - 0 0 3 connected 10923-16383
ddd 10.0.0.1:7004@17004 slave aaa 0 0 1 connected
eee 10.0.0.1:7005@17005 slave,fail bbb 0 0 2 disconnected
fff :0@0 master,noaddr - 0 0 4 disconnected
";

    #[test]
    fn a_view_names_masters_with_their_slots_and_healthy_replicas() {
        let map = Map::agreed(&[View::read(THREE, &at(7001))]);
        let shard = |master, replicas: Vec<Server>| {
            let expected = replicas.len();
            Some(Shard { master, replicas: Some(replicas), expected })
        };
        assert_eq!(map.owner(0).map(|shard| Shard::clone(shard)), shard(at(7001), vec![at(7004)]));
        assert_eq!(map.owner(5461).map(|shard| Shard::clone(shard)), shard(at(7002), Vec::new()));
        let named = Server { host: "three.example".to_owned(), port: 7003 };
        assert_eq!(map.owner(16_383).map(|shard| &shard.master), Some(&named));
        assert_eq!(map.unowned(), 0);
    }

    #[test]
    fn of_two_that_claim_a_slot_the_higher_epoch_owns_it() {
        let cut_off = View::read("aaa 10.0.0.1:7001@17001 myself,master - 0 0 1 connected 0-100", &at(7001));
        let rest = View::read(
            "aaa 10.0.0.1:7001@17001 master,fail - 0 0 1 connected\nddd 10.0.0.1:7004@17004 master - 0 0 9 connected 0-99",
            &at(7002),
        );
        for views in [[cut_off.clone(), rest.clone()], [rest, cut_off]] {
            let map = Map::agreed(&views);
            assert_eq!(map.owner(0).map(|shard| &shard.master), Some(&at(7004)));
            assert_eq!(map.owner(100).map(|shard| &shard.master), Some(&at(7001)));
            assert_eq!(map.owner(101), None);
        }
    }

    #[test]
    fn what_views_come_to_does_not_depend_on_which_was_heard_first() {
        let lines = [
            "bbb 10.0.0.1:7002@17002 master - 0 0 2 connected 101-200",
            "eee 10.0.0.1:7005@17005 slave aaa 0 0 1 connected",
            "ggg 10.0.0.1:7007@17007 master - 0 0 0 connected",
            "aaa 10.0.0.1:7001@17001 master - 0 0 1 connected 0-100",
            "ddd 10.0.0.1:7004@17004 slave aaa 0 0 1 connected",
        ];
        let forth = View::read(&lines.join("\n"), &at(7001));
        let back = View::read(&lines.into_iter().rev().collect::<Vec<_>>().join("\n"), &at(7002));
        let (one, other) = (Map::agreed(&[forth.clone(), back.clone()]), Map::agreed(&[back, forth]));
        assert!(one == other, "{one:?} {other:?}");
        assert_eq!(one.owner(7).and_then(|shard| shard.replicas.clone()), Some(vec![at(7004), at(7005)]));
    }

    #[test]
    fn a_member_that_does_not_know_its_address_is_where_it_was_asked() {
        let view = View::read("aaa :7001@17001 myself,master - 0 0 1 connected 7", &at(7001));
        assert_eq!(Map::agreed(&[view]).owner(7).map(|shard| &shard.master), Some(&at(7001)));
    }

    #[test]
    fn nonsense_is_left_out() {
        for text in ["", "x", "a b c d e f g h i", "aaa 10.0.0.1:7001@1 master - 0 0 1 connected 9-3 99999 x-y"] {
            assert_eq!(Map::agreed(&[View::read(text, &at(1))]).unowned(), SLOTS, "{text}");
        }
    }

    #[test]
    fn redirections_are_read_and_other_errors_are_none() {
        let said = redirection("MOVED 3999 10.0.0.1:6381", &at(1));
        assert_eq!(said, Some((Redirected::Moved, 3999, at(6381))));
        assert_eq!(redirection("ASK 7 :6381", &at(1)), Some((Redirected::Ask, 7, at(6381))));
        for error in ["MOVED", "MOVED x 10.0.0.1:1", "ASK 7 nowhere", "CLUSTERDOWN Hash slot not served"] {
            assert_eq!(redirection(error, &at(1)), None, "{error}");
        }
    }

    #[test]
    fn a_slot_that_moved_takes_no_other_with_it() {
        let map = Map::agreed(&[View::read(THREE, &at(7001))]).moved(5, &at(7009));
        assert_eq!(map.owner(5).map(|shard| &shard.master), Some(&at(7009)));
        assert_eq!(map.owner(6).map(|shard| &shard.master), Some(&at(7001)));
    }

    #[test]
    fn a_slot_that_moves_copies_no_table_and_very_many_one() {
        let before = Map::agreed(&[View::read(THREE, &at(7001))]);
        let after = before.moved(5, &at(7002));
        assert!(Arc::ptr_eq(&before.owners, &after.owners));
        let all = (0..=MOVED).fold(before.clone(), |map, slot| map.moved(u16::try_from(slot).unwrap(), &at(7002)));
        assert_eq!(all.moved.len(), 0);
        let masters = [0, 100, 256, 257].map(|slot| all.owner(slot).unwrap().master.port);
        assert_eq!(masters, [7002, 7002, 7002, 7001]);
        assert!(before.moved(5, &at(7002)) == after && after.moved(5, &at(7001)) == before, "what it says counts");
    }

    #[test]
    fn r_009_how_many_replicas_are_to_confirm_is_not_known_of_a_master_that_nobody_has_told_of() {
        let with_an_empty_one = format!("{THREE}ggg 10.0.0.1:7007@17007 master - 0 0 0 connected\n");
        let map = Map::agreed(&[View::read(&with_an_empty_one, &at(7001))]);
        assert_eq!(map.moved(5, &at(7009)).owner(5).unwrap().copies(2), None);
        assert_eq!(map.moved(5, &at(7009)).owner(5).unwrap().copies(0), Some(0));
        assert_eq!(map.owner(5).unwrap().copies(2), Some(1), "one that is known has so many");
        let copies = |port| map.shard(&at(port)).copies(2);
        assert_eq!((copies(7002), copies(7007), copies(7009)), (Some(0), Some(0), None));
    }

    #[test]
    fn r_009_a_sentinel_says_which_replicas_follow_and_which_are_down() {
        let text = |text: &str| Reply::Bytes(bytes::Bytes::copy_from_slice(text.as_bytes()));
        let replica = |flags: &str, link: &str| {
            Reply::List(["name", "x", "flags", flags, "master-link-status", link].map(text).into())
        };
        let said = Reply::List(vec![
            replica("slave", "ok"),
            replica("slave,promoted,disconnected", "ok"),
            replica("s_down,slave,disconnected", "ok"),
            replica("slave", "err"),
        ]);
        assert_eq!(
            watched_by_sentinel(&said),
            Some(Watched { up: 2, down: 1 }),
            "one that has not followed yet is neither"
        );
        assert_eq!(watched_by_sentinel(&Reply::Error("NOPERM".to_owned())), None);
    }
}
