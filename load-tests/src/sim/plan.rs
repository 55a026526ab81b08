//! How many nodes and servers some people need, what these cost, and what is short first. Arithmetic alone.

use anyhow::{Result, ensure};

use super::costs::{Costs, EdgeCosts, StoreCosts};
use crate::table::{Table, shown};

/// Who asks for what, in the busiest hour, and of what machines it may be served.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Demand {
    /// People, in all regions
    #[arg(long, value_name = "N", value_parser = amount, default_value = "10000")]
    pub(crate) users: f64,
    /// Share of them that asks in the busiest hour
    #[arg(long, value_name = "SHARE", value_parser = share, default_value = "0.5")]
    pub(crate) active: f64,
    /// Requests of each of these, a minute
    #[arg(long, value_name = "N", value_parser = amount, default_value = "10")]
    pub(crate) requests: f64,
    /// KB of an answer
    #[arg(long, value_name = "KB", value_parser = amount, default_value = "16")]
    pub(crate) kilobytes: f64,
    /// Share of requests that come with a new connection
    #[arg(long, value_name = "SHARE", value_parser = share, default_value = "0.05")]
    pub(crate) fresh: f64,
    /// Connections that each of those who ask keeps open
    #[arg(long, value_name = "N", value_parser = amount, default_value = "2")]
    pub(crate) connections: f64,
    /// Edges over which a balancer spreads the requests of one person
    #[arg(long, value_name = "N", value_parser = amount, default_value = "2")]
    pub(crate) spread: f64,
    /// Sessions of a person, with those that are not in use
    #[arg(long, value_name = "N", value_parser = amount, default_value = "2")]
    pub(crate) sessions: f64,
    /// Sign-ins of a person, a day
    #[arg(long, value_name = "N", value_parser = amount, default_value = "2")]
    pub(crate) sign_ins: f64,
    /// Sessions of a person that are ended before their time, a day
    #[arg(long, value_name = "N", value_parser = amount, default_value = "0.5")]
    pub(crate) ends: f64,
    /// Share of a day's sign-ins and ends that falls into the busiest hour
    #[arg(long, value_name = "SHARE", value_parser = share, default_value = "0.2")]
    pub(crate) busiest: f64,
    /// Seconds between two refreshes of a session; 0: none is refreshed
    #[arg(long, value_name = "SECONDS", value_parser = amount, default_value = "2700")]
    pub(crate) refresh: f64,
    /// `session_max_age`, in seconds
    #[arg(long, value_name = "SECONDS", value_parser = amount, default_value = "60")]
    pub(crate) max_age: f64,
    /// Routes
    #[arg(long, value_name = "N", value_parser = amount, default_value = "100")]
    pub(crate) routes: f64,
    /// Regions with edges and authn of their own, and a like share of the people
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..), default_value_t = 1)]
    pub(crate) regions: u16,
    /// Where sessions are
    #[arg(long, value_enum, default_value_t = Store::Shared)]
    pub(crate) store: Store,
    /// Cores of a node
    #[arg(long, value_name = "N", value_parser = amount, default_value = "4")]
    pub(crate) cores: f64,
    /// GB of memory of a node
    #[arg(long, value_name = "GB", value_parser = amount, default_value = "8")]
    pub(crate) memory: f64,
    /// Gbit a second of a node
    #[arg(long, value_name = "GBIT", value_parser = amount, default_value = "5")]
    pub(crate) bandwidth: f64,
    /// Connections of a node: `connections` of `limits`, which has 10,000 unless it is written
    #[arg(long, value_name = "N", value_parser = amount, default_value = "100000")]
    pub(crate) most_connections: f64,
    /// GB of memory of a server of the store
    #[arg(long, value_name = "GB", value_parser = amount, default_value = "8")]
    pub(crate) store_memory: f64,
    /// Replicas of each master
    #[arg(long, value_name = "N", value_parser = amount, default_value = "1")]
    pub(crate) copies: f64,
    /// How much of anything may be in use in the busiest hour
    #[arg(long, value_name = "SHARE", value_parser = share, default_value = "0.6")]
    pub(crate) load: f64,
    /// Nodes of each kind that may be away, in each region
    #[arg(long, value_name = "N", value_parser = amount, default_value = "1")]
    pub(crate) spare: f64,
    /// What a node costs an hour
    #[arg(long, value_name = "PRICE", value_parser = amount, default_value = "0.17")]
    pub(crate) node_price: f64,
    /// What a server of the store costs an hour
    #[arg(long, value_name = "PRICE", value_parser = amount, default_value = "0.17")]
    pub(crate) server_price: f64,
}

/// Where sessions are, if there are several regions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Store {
    /// One store for all: who is signed in is so everywhere, and a look from another region takes a trip there
    Shared,
    /// One in each: installations of their own; whoever moves signs in again, and an end in one is none in another
    Apart,
}

/// Something that edges did, or are to do; in a second, or in a span of time.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Work {
    pub(crate) requests: f64,
    pub(crate) kilobytes: f64,
    pub(crate) handshakes: f64,
    /// Looks at sessions that an edge has not.
    pub(crate) first: f64,
    /// Looks at sessions whose copy is old.
    pub(crate) again: f64,
    /// Assertions that are signed anew.
    pub(crate) assertions: f64,
}

impl Work {
    /// Of so many people who ask so many times a second each, in no order, at so many edges each.
    pub(crate) fn of(people: f64, rate: f64, spread: f64, max_age: f64) -> Self {
        let pairs = people * spread;
        // After a span, the next request; one comes every so many seconds.
        let every = |span: f64| if rate > 0.0 { pairs / (span + spread / rate) } else { 0.0 };
        Self {
            requests: people * rate,
            // From half of its age on a copy is read again.
            again: every(max_age / 2.0),
            assertions: every(ASSERTION_SECONDS),
            ..Self::default()
        }
    }

    /// µs of the processors of edges.
    pub(crate) fn micros(&self, costs: &EdgeCosts) -> f64 {
        self.requests * costs.request_micros
            + self.kilobytes * costs.kilobyte_micros
            + self.handshakes * costs.handshake_micros
            + self.first * costs.first_micros
            + self.again * costs.again_micros
            + self.assertions * costs.assertion_micros
    }

    /// Looks at sessions in the store.
    pub(crate) fn looks(&self) -> f64 {
        self.first + self.again
    }
}

/// An assertion is used again for so long (`REUSE` in `edge/src/assertion`).
const ASSERTION_SECONDS: f64 = 120.0;

/// µs of all masters, for so many seconds of so many masters and processes with so many looks.
pub(crate) fn store_micros(costs: &StoreCosts, seconds: f64, masters: f64, processes: f64, looks: f64) -> f64 {
    let each = costs.second_micros + processes * costs.process_micros;
    seconds * (masters * each + processes * (costs.listener_micros - costs.process_micros)) + looks * costs.look_micros
}

/// What is needed.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// A second, in a region.
    work: Work,
    edges: Nodes,
    authn: Nodes,
    store: Servers,
    /// Stores: one, or one for each region.
    stores: f64,
    regions: f64,
    /// What all of it costs, an hour.
    price: f64,
    /// Requests to the provider, a second, everywhere.
    sign_ins: f64,
    refreshes: f64,
}

/// Nodes of one kind, in a region.
#[derive(Debug, Clone)]
struct Nodes {
    count: f64,
    /// How many each of these would ask for, in fractions.
    asked: Vec<(&'static str, f64)>,
}

impl Nodes {
    fn of(asked: Vec<(&'static str, f64)>, spare: f64) -> Self {
        let most = asked.iter().map(|(_, count)| count.ceil()).fold(1.0, f64::max);
        Self { count: most + spare, asked }
    }

    /// What asks for most of them.
    fn decides(&self) -> &'static str {
        self.asked.iter().copied().fold(("", -1.0), |most, next| if next.1 > most.1 { next } else { most }).0
    }
}

/// A store.
#[derive(Debug, Clone)]
struct Servers {
    masters: Nodes,
    replicas: f64,
    /// Processes that are connected.
    processes: f64,
    /// Of a whole core: what the server with the changelog does for it.
    changelog: f64,
    /// Whether that is so much that the changelog has a master for itself.
    is_apart: bool,
    /// Ends of sessions, a second.
    ends: f64,
    looks: f64,
}

impl Servers {
    fn count(&self) -> f64 {
        self.masters.count + self.replicas
    }
}

/// Makes a plan.
pub(crate) fn plan(costs: &Costs, demand: &Demand) -> Plan {
    let Demand { regions, load, .. } = *demand;
    let regions = f64::from(regions);
    let users = demand.users / regions;
    let people = users * demand.active;
    let hour = |a_day: f64| users * a_day * demand.busiest / 3_600.0;
    let (sign_ins, ends) = (hour(demand.sign_ins), hour(demand.ends));
    let refreshes = if demand.refresh > 0.0 { users * demand.sessions / demand.refresh } else { 0.0 };

    // Nobody is spread over more edges than there are: from one on, until it stays.
    let (mut edges, mut work) = (Nodes::of(Vec::new(), 0.0), Work::default());
    for _ in 0..ROUNDS {
        let spread = demand.spread.min(edges.count).max(1.0);
        work = Work::of(people, demand.requests / 60.0, spread, demand.max_age);
        work.kilobytes = work.requests * demand.kilobytes;
        work.handshakes = work.requests * demand.fresh;
        work.first = people * spread / 3_600.0;
        let next = edges_for(costs, demand, &work, people * spread, people * demand.connections);
        if next.count <= edges.count && !edges.asked.is_empty() {
            break;
        }
        edges = next;
    }
    let cores = demand.cores * 1e6 * load;
    let authn_micros = sign_ins * costs.authn.sign_in_micros + refreshes * costs.authn.refresh_micros;
    let authn = Nodes::of(vec![("CPU", authn_micros / (cores - costs.authn.second_micros).max(1.0))], demand.spare);

    let (stores, served) = match demand.store {
        Store::Shared => (1.0, regions),
        Store::Apart => (regions, 1.0),
    };
    let store = servers_for(
        costs,
        demand,
        Asked {
            processes: served * (edges.count + authn.count),
            authn: served * authn.count,
            looks: served * work.looks(),
            sign_ins: served * sign_ins,
            refreshes: served * refreshes,
            ends: served * ends,
            sessions: served * users * demand.sessions,
        },
    );
    let price =
        regions * (edges.count + authn.count) * demand.node_price + stores * store.count() * demand.server_price;
    let (sign_ins, refreshes) = (sign_ins * regions, refreshes * regions);
    Plan { work, edges, authn, store, stores, regions, price, sign_ins, refreshes }
}

/// More edges spread people further, which asks for more edges; it settles long before.
const ROUNDS: usize = 64;

/// `copies` sessions at edges in all, and `connections` that stay.
fn edges_for(costs: &Costs, demand: &Demand, work: &Work, copies: f64, connections: f64) -> Nodes {
    let costs = &costs.edge;
    let cores = (demand.cores * 1e6 * demand.load - costs.second_micros).max(1.0);
    let fixed = costs.start_bytes + demand.routes * costs.route_bytes;
    let memory = (demand.memory * 1e9 * demand.load - fixed).max(1.0);
    let bytes = copies * costs.session_bytes + connections * costs.connection_bytes;
    let asked = vec![
        ("CPU", work.micros(costs) / cores),
        ("memory", bytes / memory),
        ("connections", connections / (demand.most_connections * demand.load)),
        ("bandwidth", work.kilobytes * 1_024.0 * 8.0 / (demand.bandwidth * 1e9 * demand.load)),
        ("copies of sessions", copies / MOST_COPIES),
    ];
    Nodes::of(asked, demand.spare)
}

/// `max_entries` of `CacheConfig`: sessions that an edge keeps.
const MOST_COPIES: f64 = 1e6;

/// What is asked of a store, a second.
#[derive(Debug, Clone, Copy)]
struct Asked {
    processes: f64,
    /// Of these, with authn.
    authn: f64,
    looks: f64,
    sign_ins: f64,
    refreshes: f64,
    ends: f64,
    /// That it holds.
    sessions: f64,
}

fn servers_for(costs: &Costs, demand: &Demand, asked: Asked) -> Servers {
    let Asked { processes, authn, looks, sign_ins, refreshes, ends, sessions } = asked;
    let costs = &costs.store;
    // A server works with one core.
    let core = 1e6 * demand.load;
    let changelog = (processes * (costs.listener_micros - costs.process_micros).max(0.0)
        + ends * processes * costs.wake_micros)
        / 1e6;
    let left = (core - costs.second_micros - processes * costs.process_micros).max(1.0);
    let micros = authn * costs.authn_micros
        + looks * costs.look_micros
        + sign_ins * costs.sign_in_micros
        + refreshes * costs.refresh_micros
        + ends * costs.end_micros;
    let memory = sessions * costs.session_bytes / (demand.store_memory * 1e9 * demand.load);
    let is_apart = changelog > APART;
    let mut masters =
        Nodes::of(vec![("the least of a cluster", LEAST_MASTERS), ("CPU", micros / left), ("memory", memory)], 0.0);
    masters.count += f64::from(u8::from(is_apart));
    let replicas = masters.count * demand.copies;
    Servers { masters, replicas, processes, changelog, is_apart, ends, looks }
}

const LEAST_MASTERS: f64 = 3.0;
/// From this share of a core on the changelog is given a master for itself.
const APART: f64 = 0.1;

/// Something that more nodes do not give.
#[derive(Debug, Clone)]
pub(crate) struct Limit {
    pub(crate) what: &'static str,
    /// With so many people it is reached.
    pub(crate) users: f64,
}

/// How much of it a plan uses; 1 is all.
type Used = fn(&Plan, &Demand) -> f64;

const LIMITS: [(&str, Used); 4] = [
    (
        "the core of the one server that has the changelog: each process hears each end, and tries to write each heartbeat",
        |plan, demand| plan.store.changelog / demand.load,
    ),
    (
        "connections to a server of the store, each process has three: 10,000, which is its `maxclients` unless written",
        |plan, _| plan.store.processes * 3.0 / 10_000.0,
    ),
    (
        "ended sessions that an edge remembers, 512,000 in a quarter of an hour: beyond, it reads copies again for each",
        |plan, _| plan.store.ends * 900.0 / 512_000.0,
    ),
    ("servers of one cluster: 1,000, which is what its makers recommend at most", |plan, _| {
        plan.store.count() / 1_000.0
    }),
];

/// All of them, that which is hit first before the others. All ratios stay as they are given.
pub(crate) fn limits(costs: &Costs, demand: &Demand) -> Vec<Limit> {
    let used = |users: f64, used: Used| used(&plan(costs, &Demand { users, ..demand.clone() }), demand);
    let mut limits = Vec::new();
    for (what, of) in LIMITS {
        if used(MOST_USERS, of) < 1.0 {
            continue;
        }
        // Between what fits and what does not.
        let (mut fits, mut not) = (0.0, MOST_USERS);
        for _ in 0..HALVINGS {
            let between = f64::midpoint(fits, not);
            if used(between, of) < 1.0 { fits = between } else { not = between }
        }
        limits.push(Limit { what, users: not });
    }
    limits.sort_by(|one, other| one.users.total_cmp(&other.users));
    limits
}

/// More people than there are.
const MOST_USERS: f64 = 1e10;
const HALVINGS: usize = 60;

impl Demand {
    /// Whether something can be computed of it.
    pub(crate) fn check(&self, costs: &Costs) -> Result<()> {
        ensure!(self.spread >= 1.0, "--spread begins at 1");
        ensure!(self.load > 0.0, "--load is more than 0");
        let fixed = costs.edge.start_bytes + self.routes * costs.edge.route_bytes;
        ensure!(
            self.memory * 1e9 * self.load > fixed,
            "an edge with {} routes takes {:.2} GB before anybody asks: give nodes more --memory",
            self.routes,
            fixed / 1e9
        );
        let idle = costs.edge.second_micros.max(costs.authn.second_micros);
        ensure!(self.cores * 1e6 * self.load > idle, "--cores is not enough for a process that nobody asks");
        for (option, value) in [
            ("bandwidth", self.bandwidth),
            ("most-connections", self.most_connections),
            ("store-memory", self.store_memory),
            ("max-age", self.max_age),
        ] {
            ensure!(value > 0.0, "--{option} is more than 0");
        }
        Ok(())
    }
}

/// What is needed, and what is short first, for people.
pub(crate) fn table(costs: &Costs, demand: &Demand) -> Table {
    let plan = plan(costs, demand);
    let Plan { work, edges, authn, store, stores, regions, price, .. } = &plan;
    let mut table = Table::new(&["what", "each region", "whole", "why"]);
    let mut tell = |what: &str, region: f64, whole: f64, places: usize, why: String| {
        table.row([what.to_owned(), shown(Some(region), places), shown(Some(whole), places), why]);
    };
    let asked = |nodes: &Nodes| {
        let all = nodes.asked.iter().map(|(what, count)| format!("{what} {count:.2}"));
        all.collect::<Vec<_>>().join(", ")
    };
    let every = |what: &str, region: f64, tell: &mut dyn FnMut(&str, f64, f64, usize, String)| {
        tell(what, region, region * regions, 1, String::new());
    };
    every("requests a second", work.requests, &mut tell);
    every("new connections a second", work.handshakes, &mut tell);
    every("MB a second to those who ask", work.kilobytes / 1_024.0, &mut tell);
    tell("looks at sessions in the store, a second", work.looks(), store.looks * stores, 1, String::new());
    let of = |nodes: &Nodes| format!("{} decides ({}), and {} spare", nodes.decides(), asked(nodes), demand.spare);
    tell("edges", edges.count, edges.count * regions, 0, of(edges));
    tell("authn", authn.count, authn.count * regions, 0, of(authn));
    let each = stores / regions;
    let apart = if store.is_apart { "; one of them for the changelog" } else { "" };
    let why = format!("{} decides ({}){apart}", store.masters.decides(), asked(&store.masters));
    tell("masters of the store", store.masters.count * each, store.masters.count * stores, 0, why);
    tell("their replicas", store.replicas * each, store.replicas * stores, 0, String::new());
    let why = format!("{:.0} processes, {:.2} ends a second", store.processes, store.ends);
    tell("% of a core for the changelog, of each store", store.changelog * 100.0, store.changelog * 100.0, 1, why);
    let why = "sign-ins and refreshes a second that the identity provider has to take".to_owned();
    let provider = plan.sign_ins + plan.refreshes;
    tell("for the provider", provider / regions, provider, 2, why);
    tell("price an hour", price / regions, *price, 2, "of the prices that were given".to_owned());
    tell("price a year", price / regions * HOURS, price * HOURS, 0, String::new());
    for (place, limit) in limits(costs, demand).into_iter().enumerate() {
        let what = if place == 0 { "the first limit: users" } else { "then, if that were lifted: users" };
        table.row([what.to_owned(), String::new(), shown(Some(limit.users), 0), limit.what.to_owned()]);
    }
    table
}

/// Of a year.
const HOURS: f64 = 8_766.0;

/// A number from 0 on, maybe with marks between thousands.
fn amount(text: &str) -> Result<f64, String> {
    let number = text.replace(['_', ','], "").parse::<f64>().ok();
    number.filter(|number| number.is_finite() && *number >= 0.0).ok_or_else(|| "a number from 0 on".to_owned())
}

/// A number from 0 to 1.
fn share(text: &str) -> Result<f64, String> {
    amount(text).ok().filter(|number| *number <= 1.0).ok_or_else(|| "a number from 0 to 1".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    #[command(args_override_self = true)]
    struct Line {
        #[command(flatten)]
        demand: Demand,
    }

    fn demand(options: &[&str]) -> Demand {
        Line::try_parse_from(["sim"].iter().chain(options)).unwrap().demand
    }

    fn edges(options: &[&str]) -> (f64, &'static str) {
        let plan = plan(&Costs::plain(), &demand(options));
        (plan.edges.count, plan.edges.decides())
    }

    #[test]
    fn edges_are_as_many_as_the_scarcest_of_their_means_asks_for_and_the_spare_ones() {
        // 100,000 requests a second of 50 µs are five cores, of 0.6 × 4 each.
        let plain = ["--users", "1000000", "--active", "1", "--requests", "6", "--kilobytes", "0", "--fresh", "0"];
        let alone = |more: &[&str]| edges(&[&plain[..], &["--connections", "0", "--max-age", "1e9"], more].concat());
        assert_eq!(
            alone(&["--spread", "1"]),
            (4.0, "CPU"),
            "three of 2.4 cores for 5 and their looks, and a spare one"
        );
        assert_eq!(alone(&["--spread", "1", "--spare", "3"]).0, 6.0);
        assert_eq!(alone(&["--spread", "1", "--cores", "64", "--memory", "1"]), (3.0, "memory"));
        assert_eq!(alone(&["--spread", "1", "--connections", "1"]), (18.0, "connections"));
        assert_eq!(alone(&["--spread", "1", "--kilobytes", "100"]).1, "bandwidth");
        let copies = alone(&["--spread", "3", "--cores", "640", "--memory", "640"]);
        assert_eq!(copies, (4.0, "copies of sessions"));
    }

    #[test]
    fn nobody_is_spread_over_more_edges_than_there_are() {
        let one = plan(&Costs::plain(), &demand(&["--users", "10", "--spread", "8", "--spare", "0"]));
        assert_eq!(one.edges.count, 1.0);
        assert_eq!(one.work.again, Work::of(5.0, 10.0 / 60.0, 1.0, 60.0).again);
    }

    #[test]
    fn a_copy_is_read_again_by_the_first_request_after_half_of_its_age() {
        // 12 people who ask once in 10 s, at 2 edges: each edge sees one every 20 s, and reads again after 30 and then 20.
        let work = Work::of(12.0, 0.1, 2.0, 60.0);
        assert_eq!((work.requests, work.again), (12.0 * 0.1, 24.0 / 50.0));
        assert_eq!(Work::of(12.0, 0.0, 2.0, 60.0), Work::default(), "who asks nothing looks at nothing");
    }

    #[test]
    fn every_unit_of_work_has_its_cost() {
        let work = Work { requests: 1.0, kilobytes: 1.0, handshakes: 1.0, first: 1.0, again: 1.0, assertions: 1.0 };
        assert_eq!(work.micros(&Costs::plain().edge), 50.0 + 1.0 + 200.0 + 100.0 + 40.0 + 20.0);
        assert_eq!(work.looks(), 2.0);
        // 10 s of 3 masters and 4 processes: each 1,000 and 4 × 20; the one with the changelog 4 × 180 more; and 50 looks.
        assert_eq!(store_micros(&Costs::plain().store, 10.0, 3.0, 4.0, 50.0), 10.0 * (3.0 * 1_080.0 + 720.0) + 1_000.0);
    }

    #[test]
    fn one_store_serves_all_regions_or_each_has_its_own() {
        let of = |store| plan(&Costs::plain(), &demand(&["--users", "3000000", "--regions", "3", "--store", store]));
        let (shared, apart) = (of("shared"), of("apart"));
        assert_eq!((shared.stores, apart.stores), (1.0, 3.0));
        assert_eq!(shared.edges.count, apart.edges.count, "edges are the region's own");
        assert_eq!(shared.store.processes, 3.0 * apart.store.processes);
        assert!((shared.store.looks / apart.store.looks - 3.0).abs() < 1e-9);
        assert!(shared.store.changelog > 3.0 * apart.store.changelog, "ends times processes");
    }

    #[test]
    fn masters_are_three_at_least_and_have_replicas_and_the_changelog_gets_one_of_its_own() {
        let of = |options: &[&str]| plan(&Costs::plain(), &demand(options)).store;
        let small = of(&[]);
        assert_eq!((small.masters.count, small.replicas, small.is_apart), (3.0, 3.0, false));
        // 10,000,000 people with two sessions of 2,500 bytes: 50 GB, of 4.8 each.
        let quiet = ["--requests", "0", "--ends", "0", "--refresh", "0", "--copies", "2"];
        let large = of(&[&quiet[..], &["--users", "10000000", "--connections", "10"]].concat());
        assert_eq!(large.masters.decides(), "memory");
        assert_eq!((large.masters.count, large.replicas), (12.0, 24.0), "11, and one for the changelog");
        assert!(large.is_apart);
        // 100 processes with authn look for refreshes that are due: 0.2 of a core, beside what is asked.
        let cpu = |spare| {
            let store = of(&["--requests", "0", "--spare", spare]);
            store.masters.asked.iter().find(|(what, _)| *what == "CPU").unwrap().1
        };
        assert!((cpu("100") - cpu("0") - 0.2 / 0.6).abs() < 0.02, "{} {}", cpu("100"), cpu("0"));
    }

    #[test]
    fn the_price_is_that_of_all_nodes_and_servers() {
        let plan = plan(&Costs::plain(), &demand(&["--regions", "2", "--node-price", "1", "--server-price", "10"]));
        assert_eq!(plan.price, 2.0 * (plan.edges.count + plan.authn.count) + 10.0 * 6.0);
    }

    #[test]
    fn the_first_limit_is_where_something_is_used_up_that_nodes_do_not_add() {
        let (costs, demand) = (Costs::plain(), demand(&[]));
        let limits = limits(&costs, &demand);
        let first = limits.first().unwrap();
        assert!(first.what.contains("changelog"), "{limits:?}");
        let used = |users| {
            let plan = plan(&costs, &Demand { users, ..demand.clone() });
            plan.store.changelog / demand.load
        };
        assert!(used(first.users * 1.01) >= 1.0 && used(first.users * 0.9) < 1.0, "{limits:?}");
        let told = table(&costs, &demand).to_string();
        assert!(told.contains(&format!("| the first limit: users |  | {:.0} |", first.users)), "{told}");
    }

    #[test]
    fn a_limit_that_nobody_can_hit_is_not_told() {
        let quiet = demand(&["--ends", "0", "--refresh", "0"]);
        assert!(limits(&Costs::plain(), &quiet).iter().all(|limit| !limit.what.contains("remembers")));
    }

    #[test]
    fn what_cannot_be_computed_is_refused() {
        let refused = |options: &[&str]| format!("{:#}", demand(options).check(&Costs::plain()).unwrap_err());
        assert!(refused(&["--routes", "10000000"]).contains("more --memory"));
        assert!(refused(&["--spread", "0.5"]).contains("--spread begins at 1"));
        assert!(refused(&["--max-age", "0"]).contains("--max-age is more than 0"));
        assert!(Line::try_parse_from(["sim", "--active", "1.5"]).is_err());
        assert!(Line::try_parse_from(["sim", "--users", "-3"]).is_err());
        assert_eq!(demand(&["--users", "1,000_000"]).users, 1e6);
        assert!(demand(&[]).check(&Costs::plain()).is_ok());
    }
}
