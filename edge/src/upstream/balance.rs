//! Chooses one address of an upstream for each request (01 §2.5, §2.11). Every address of a name is an endpoint of its own
//! (01 §1.4). Requests only read what was made when an address came or went.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::{ArcSwapOption, Guard};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{Mutex, Notify};
use tokio::time::Instant;

use super::inward;
use super::member::{Busy, Member, Origin, Same, State, Where};
use super::outlier::{Cause, Outcome};
use super::resolve::{Resolver, Unresolved};
use super::table::{self, Table};
use crate::route::{Balancing, LoadBalancing, Route, Upstream, UpstreamEndpoint};

/// Chooses among the endpoints of one upstream.
#[derive(Debug)]
pub(crate) struct Balancer {
    /// The name of its route.
    pub(super) route: String,
    pub(super) balancing: Balancing,
    sources: Box<[Source]>,
    names: Names,
    members: ArcSwapOption<Members>,
    /// Held by who looks what there is.
    looking: Mutex<()>,
    /// How often that was done.
    looks: AtomicU64,
    /// Requests so far.
    turn: AtomicU64,
    /// When is to be looked again what there is, in microseconds since [`Self::made`]; 0: at once.
    due: AtomicU64,
    /// The changes of names that were known when it was looked.
    seen: AtomicU64,
    made: Instant,
    /// Somebody has used it.
    used: AtomicBool,
    /// Members came or went, or somebody used it for the first time.
    pub(super) changed: Notify,
}

/// One entry of `to`; those that are written alike are one.
#[derive(Debug)]
struct Source {
    /// Which one, the first of those.
    endpoint: usize,
    origin: Origin,
    port: u16,
    weight: u32,
}

/// Where names may lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Names {
    /// Anywhere.
    Anywhere,
    /// Not inward, as those of tunnels (S-105).
    Outward,
}

impl Names {
    /// Those of a route.
    pub(super) const fn of(route: &Route) -> Self {
        if route.tunnel.is_some() { Self::Outward } else { Self::Anywhere }
    }
}

/// What there is to choose from.
#[derive(Debug)]
pub(super) struct Members {
    pub(super) list: Box<[Member]>,
    table: Table,
    /// So few are usable that all are used. Kept, since requests would have to look at every one.
    panic: AtomicBool,
}

/// Who asks and who has failed already.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Choosing<'a> {
    /// The hash of what the client is known by.
    pub(crate) key: u64,
    /// Not this one, if there is another.
    pub(crate) failed: Option<&'a Arc<State>>,
}

/// A member that was chosen.
#[derive(Debug)]
pub(crate) struct Chosen {
    /// Which entry of `to` it comes from.
    pub(crate) endpoint: usize,
    /// Its address; a socket has none.
    pub(crate) address: Option<SocketAddr>,
    pub(crate) busy: Busy,
}

/// Why no member was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoMember {
    /// No name has an address.
    #[error(transparent)]
    Unresolved(#[from] Unresolved),
    /// Something speaks against each.
    #[error("no endpoint of the upstream is healthy")]
    Unhealthy,
}

impl Balancer {
    /// One for an upstream that needs one: where there is one endpoint and nothing is said of it, its addresses take turns, and
    /// that is all.
    pub(super) fn of(route: &str, upstream: &Upstream, names: Names) -> Option<Arc<Self>> {
        let balancing = upstream.balancing.as_deref();
        let chooses = balancing.is_some_and(|balancing| {
            let Balancing { policy, outliers, health_checks, .. } = balancing;
            *policy != LoadBalancing::RoundRobin || outliers.is_some() || !health_checks.is_empty()
        });
        (upstream.endpoints.len() > 1 || chooses).then(|| {
            Arc::new(Self {
                route: route.to_owned(),
                balancing: balancing.cloned().unwrap_or_default(),
                sources: Source::all(&upstream.endpoints),
                names,
                members: ArcSwapOption::empty(),
                looking: Mutex::default(),
                looks: AtomicU64::new(0),
                turn: AtomicU64::new(0),
                due: AtomicU64::new(0),
                seen: AtomicU64::new(0),
                made: Instant::now(),
                used: AtomicBool::new(false),
                changed: Notify::new(),
            })
        })
    }

    /// Takes over what is known of the members of `before`, that of the same route under an older configuration.
    pub(super) fn inherit(&self, before: &Self) {
        self.used.store(before.used.load(Ordering::Relaxed), Ordering::Relaxed);
        let Some(old) = before.members.load_full() else { return };
        let same = Same {
            health_checks: before.balancing.health_checks == self.balancing.health_checks,
            outliers: before.balancing.outliers == self.balancing.outliers,
        };
        let inherited = |member: &Member| Member { state: Arc::new(member.state.under(same)), ..member.clone() };
        let list = old.list.iter().map(inherited).collect();
        // Looked at before anything is chosen: it may not be what this one chooses from.
        self.members.store(Some(Arc::new(Members::of(list, Table::NONE, self.balancing.panic_threshold))));
    }

    /// Whether the same client gets to the same endpoint.
    pub(crate) const fn is_sticky(&self) -> bool {
        self.balancing.policy.is_sticky()
    }

    /// Somebody uses it.
    pub(super) fn note_use(&self) {
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
            self.changed.notify_waiters();
        }
    }

    /// Whether somebody has used it.
    pub(super) fn is_used(&self) -> bool {
        self.used.load(Ordering::Relaxed)
    }

    /// The member for a request.
    ///
    /// # Errors
    /// [`NoMember`].
    pub(crate) async fn choose(
        self: &Arc<Self>,
        resolver: &Resolver,
        choosing: Choosing<'_>,
    ) -> Result<Chosen, NoMember> {
        self.note_use();
        if let Some(members) = &*self.current(resolver) {
            return self.pick(members, choosing);
        }
        self.look(resolver).await;
        match &*self.members.load() {
            Some(members) => self.pick(members, choosing),
            None => Err(Unresolved.into()),
        }
    }

    /// What there is, unless it is to be looked at again.
    fn current(&self, resolver: &Resolver) -> Guard<Option<Arc<Members>>> {
        let due = self.due.load(Ordering::Acquire);
        let known = due > 0 && self.seen.load(Ordering::Relaxed) == resolver.changes();
        let fresh = known && (due == u64::MAX || self.micros(Instant::now()) < due);
        if fresh { self.members.load() } else { Guard::from_inner(None) }
    }

    fn micros(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.made).as_micros().try_into().unwrap_or(u64::MAX)
    }

    /// Looks what there is now. One at a time: whoever comes meanwhile takes what there was, or waits for it where there was
    /// nothing.
    async fn look(self: &Arc<Self>, resolver: &Resolver) {
        let Ok(_one) = self.looking.try_lock() else {
            let before = self.looks.load(Ordering::Acquire);
            if self.has_looked() && self.members.load().as_ref().is_some_and(|members| !members.list.is_empty()) {
                return;
            }
            let _next = self.looking.lock().await;
            if self.looks.load(Ordering::Acquire) == before {
                // Whoever was at it has left in between.
                self.look_alone(resolver).await;
            }
            return;
        };
        self.look_alone(resolver).await;
    }

    /// Whether it is known what there is, under this configuration: what an older one had may have been chosen from in another
    /// way.
    fn has_looked(&self) -> bool {
        self.due.load(Ordering::Acquire) > 0
    }

    async fn look_alone(self: &Arc<Self>, resolver: &Resolver) {
        let changes = resolver.changes();
        self.first_known(resolver).await;
        let (places, due) = self.places(resolver);
        let before = self.members.load_full();
        let same = self.has_looked() && before.as_ref().is_some_and(|before| before.is_at(&places, &self.sources));
        if !same {
            let few = places.len() <= FEW;
            let this = Arc::clone(self);
            let work = move || this.members_of(&places, before.as_deref());
            let members = if few { Some(work()) } else { resolver.aside(work).await };
            self.members.store(members.map(Arc::new));
            self.changed.notify_waiters();
        }
        self.seen.store(changes, Ordering::Relaxed);
        self.due.store(due.map_or(u64::MAX, |due| self.micros(due).max(1)), Ordering::Release);
        self.looks.fetch_add(1, Ordering::AcqRel);
    }

    /// Where members are at the moment, and when that may be otherwise.
    fn places(&self, resolver: &Resolver) -> (Vec<(usize, Where)>, Option<Instant>) {
        let (mut places, mut due) = (Vec::new(), None::<Instant>);
        for (at, source) in self.sources.iter().enumerate() {
            let host = &*source.origin.host;
            if source.origin.scheme.is_socket() {
                places.push((at, Where::Socket(host.into())));
                continue;
            }
            let known = resolver.known(host);
            due = due.into_iter().chain(known.due).min();
            for ip in known.addresses {
                if self.names == Names::Outward && inward::leads_inward(host, ip) {
                    inward::tell(&self.route, host, ip);
                } else {
                    places.push((at, Where::Address(SocketAddr::new(ip, source.port))));
                }
            }
        }
        places.truncate(table::MOST);
        (places, due)
    }

    /// Waits until some endpoint can be chosen, or none could be found: a name that nobody answers for holds up nobody.
    async fn first_known(&self, resolver: &Resolver) {
        let mut names = FuturesUnordered::new();
        for source in &self.sources {
            let Origin { scheme, host } = &source.origin;
            if scheme.is_socket() || !resolver.known(host).addresses.is_empty() {
                return;
            }
            names.push(resolver.all_of(host));
        }
        while names.next().await.is_some_and(|known| known.addresses.is_empty()) {}
    }

    /// Looks what there is, if that is due.
    pub(super) async fn refresh(self: &Arc<Self>, resolver: &Resolver) {
        if self.current(resolver).is_none() {
            self.look(resolver).await;
        }
    }

    /// Members at these places; those that were there `before` stay who they are.
    fn members_of(&self, places: &[(usize, Where)], before: Option<&Members>) -> Members {
        let known = before.into_iter().flat_map(|before| &before.list);
        let known: HashMap<_, _> =
            known.map(|member| ((&member.origin, &member.place), Arc::clone(&member.state))).collect();
        let mut met = HashSet::new();
        let (mut list, mut named) = (Vec::new(), Vec::new());
        for (at, place) in places {
            let Some(Source { endpoint, origin, weight, .. }) = self.sources.get(*at) else { continue };
            let state = known.get(&(origin, place)).cloned().unwrap_or_default();
            // Two endpoints at one address have points of their own on a ring.
            let apart =
                if met.insert(place) { String::new() } else { format!(" {}://{}", origin.scheme.name(), origin.host) };
            named.push((format!("{place}{apart}"), *weight));
            let (origin, place) = (origin.clone(), place.clone());
            list.push(Member { endpoint: *endpoint, origin, place, weight: *weight, state });
        }
        let table = Table::of(self.balancing.policy, &named);
        Members::of(list.into_boxed_slice(), table, self.balancing.panic_threshold)
    }

    /// Something speaks against a member, or does so no more.
    pub(super) fn take_stock(&self) {
        if let Some(members) = &*self.members.load() {
            members.take_stock(self.balancing.panic_threshold);
        }
    }

    /// All members at the moment.
    pub(super) fn members(&self) -> Option<Arc<Members>> {
        self.members.load_full()
    }

    fn pick(&self, members: &Members, Choosing { key, failed }: Choosing<'_>) -> Result<Chosen, NoMember> {
        if members.list.is_empty() {
            return Err(Unresolved.into());
        }
        let everybody = members.panic.load(Ordering::Relaxed);
        let usable = |member: &Member| everybody || member.state.is_usable();
        let another = |member: &Member| failed.is_none_or(|failed| !Arc::ptr_eq(failed, &member.state));
        let found = self.first(members, key, |member| usable(member) && another(member));
        // Rather the one that has failed than none.
        let found = found.or_else(|| self.first(members, key, usable)).ok_or(NoMember::Unhealthy)?;
        Ok(Chosen {
            endpoint: found.endpoint,
            address: match found.place {
                Where::Address(address) => Some(address),
                Where::Socket(_) => None,
            },
            busy: Busy::at(&found.state),
        })
    }

    /// The first that will do, as the policy goes through them.
    fn first<'m>(&self, members: &'m Members, key: u64, will_do: impl Fn(&Member) -> bool) -> Option<&'m Member> {
        match self.balancing.policy {
            // Each step is a turn of its own: who comes after one that is left out does not get its requests on top.
            LoadBalancing::RoundRobin => (0..members.table.steps())
                .filter_map(|_| members.at(self.turn.fetch_add(1, Ordering::Relaxed), 0))
                .find(|member| will_do(member))
                .or_else(|| members.onwards(0).find(|member| will_do(member))),
            LoadBalancing::Random => self.drawn(members, will_do),
            LoadBalancing::RingHash | LoadBalancing::Maglev => members.onwards(key).find(|member| will_do(member)),
            LoadBalancing::LeastRequest => {
                let one = self.drawn(members, &will_do)?;
                let other = |member: &Member| will_do(member) && !Arc::ptr_eq(&member.state, &one.state);
                // Draws are as the weights say, and so is who has more to do; of two who have the same, the first.
                let busier = |one: &Member, other: &Member| {
                    let busy = |member: &Member| u64::from(member.state.active());
                    busy(one) * u64::from(other.weight) > busy(other) * u64::from(one.weight)
                };
                Some(self.drawn(members, other).filter(|other| busier(one, other)).unwrap_or(one))
            }
        }
    }

    /// One that will do, drawn as the weights say: among those alone, since who is next to one that will not do is not to be
    /// drawn for it.
    fn drawn<'m>(&self, members: &'m Members, will_do: impl Fn(&Member) -> bool) -> Option<&'m Member> {
        let drawn = (0..DRAWS).find_map(|_| members.at(self.draw(), 0).filter(|member| will_do(member)));
        drawn.or_else(|| {
            let fit = || members.onwards(0).filter(|member| will_do(member));
            let at = self.draw().checked_rem(u64::try_from(fit().count()).ok()?)?;
            fit().nth(usize::try_from(at).ok()?)
        })
    }

    fn draw(&self) -> u64 {
        table::draw(self.turn.fetch_add(1, Ordering::Relaxed))
    }

    /// What came of a request at a member; gives why it is left out from now on, if it is.
    pub(super) fn note(&self, state: &Arc<State>, outcome: Outcome) -> Option<Cause> {
        let rules = self.balancing.outliers.as_ref()?;
        let cause = state.conduct.note(rules, outcome)?;
        let members = self.members.load();
        let out = super::outlier::eject(rules, members.as_deref()?, state, cause);
        if out {
            self.take_stock();
            self.changed.notify_waiters();
        }
        out.then_some(cause)
    }
}

/// So often is drawn before those are counted that will do.
const DRAWS: usize = 8;
/// Of so many members a table is made while a request waits; of more, aside.
const FEW: usize = 8;

impl Source {
    fn all(endpoints: &[UpstreamEndpoint]) -> Box<[Self]> {
        let mut all: Vec<Self> = Vec::new();
        for (at, endpoint) in endpoints.iter().enumerate() {
            let origin = Origin { scheme: endpoint.scheme, host: endpoint.host.as_str().into() };
            let weight = endpoint.weight.max(1);
            match all.iter_mut().find(|source| source.origin == origin && source.port == endpoint.port) {
                Some(same) => same.weight = same.weight.saturating_add(weight),
                None => all.push(Self { endpoint: at, origin, port: endpoint.port, weight }),
            }
        }
        all.into_boxed_slice()
    }
}

impl Members {
    fn of(list: Box<[Member]>, table: Table, panic_threshold: u8) -> Self {
        let members = Self { list, table, panic: AtomicBool::new(false) };
        members.take_stock(panic_threshold);
        members
    }

    fn is_at(&self, places: &[(usize, Where)], sources: &[Source]) -> bool {
        let same = |(member, (at, place)): (&Member, &(usize, Where))| {
            sources.get(*at).is_some_and(|source| source.endpoint == member.endpoint) && member.place == *place
        };
        self.list.len() == places.len() && self.list.iter().zip(places).all(same)
    }

    /// Looks whether so few are healthy that all are to be used.
    fn take_stock(&self, threshold: u8) {
        let usable = self.list.iter().filter(|member| member.state.is_usable()).count();
        let panic = usable < self.list.len() && usable * 100 < usize::from(threshold) * self.list.len();
        self.panic.store(panic, Ordering::Relaxed);
    }

    /// The member at a step from a turn, or from a hash, on.
    fn at(&self, turn: u64, step: usize) -> Option<&Member> {
        self.list.get(self.table.at(turn, step)?)
    }

    /// All of them from there on, each at least once.
    fn onwards(&self, turn: u64) -> impl Iterator<Item = &Member> {
        (0..self.table.steps()).filter_map(move |step| self.at(turn, step))
    }
}

/// The hash of what a client is known by.
pub(crate) fn key_of(session: Option<&[u8]>, client: std::net::IpAddr) -> u64 {
    session.map_or_else(
        || {
            let mut address = Vec::with_capacity(17);
            match client {
                std::net::IpAddr::V4(v4) => address.extend_from_slice(&v4.octets()),
                std::net::IpAddr::V6(v6) => address.extend_from_slice(&v6.octets()),
            }
            table::hash_of_bytes(&address)
        },
        table::hash_of_bytes,
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use futures_util::FutureExt as _;
    use tokio::runtime::Handle;

    use super::super::dns::Dns;
    use super::*;
    use crate::metrics::Metrics;
    use crate::route::{Consecutive, FailureShare, OutlierDetection, SuccessRate, UpstreamScheme};

    fn resolver() -> Resolver {
        let metrics = Metrics::register(&prometheus::Registry::new()).unwrap();
        Resolver::new(&Dns::default(), Handle::current(), metrics)
    }

    fn upstream(endpoints: &[(&str, u32)], balancing: Balancing) -> Upstream {
        let endpoint = |(host, weight): &(&str, u32)| UpstreamEndpoint {
            scheme: UpstreamScheme::Http,
            host: (*host).to_owned(),
            port: 80,
            authority: (*host).into(),
            weight: *weight,
        };
        Upstream {
            endpoints: endpoints.iter().map(endpoint).collect(),
            balancing: Some(Box::new(balancing)),
            ..Upstream::default()
        }
    }

    fn balancer(policy: LoadBalancing, endpoints: &[(&str, u32)]) -> Arc<Balancer> {
        Balancer::of("a", &upstream(endpoints, Balancing { policy, ..Balancing::default() }), Names::Anywhere).unwrap()
    }

    const THREE: &[(&str, u32)] = &[("192.0.2.1", 1), ("192.0.2.2", 1), ("192.0.2.3", 1)];

    /// How often each endpoint is chosen; each request ends before the next comes.
    async fn chosen(balancer: &Arc<Balancer>, resolver: &Resolver, times: u64) -> BTreeMap<usize, usize> {
        let mut counts = BTreeMap::new();
        for time in 0..times {
            let choosing = Choosing { key: table::mixed(time), failed: None };
            let chosen = balancer.choose(resolver, choosing).await.unwrap();
            *counts.entry(chosen.endpoint).or_default() += 1;
        }
        counts
    }

    /// Something speaks against these.
    fn against(balancer: &Balancer, which: &[usize]) {
        let members = balancer.members().unwrap();
        for (at, member) in members.list.iter().enumerate() {
            member.state.health.set(1, which.contains(&at));
        }
        balancer.take_stock();
    }

    #[tokio::test]
    async fn a_name_that_nobody_answers_for_holds_up_nobody() {
        let (resolver, two) = (resolver(), &[("silent.invalid", 1), ("192.0.2.1", 1)]);
        let balancer = balancer(LoadBalancing::RoundRobin, two);
        let chosen = balancer.choose(&resolver, Choosing { key: 0, failed: None }).now_or_never();
        assert_eq!(chosen.map(|chosen| chosen.unwrap().endpoint), Some(1), "it waits");
    }

    #[tokio::test]
    async fn turns_and_draws_are_as_the_weights_say() {
        let resolver = resolver();
        let weighted = &[("192.0.2.1", 70), ("192.0.2.2", 30)];
        let turns = chosen(&balancer(LoadBalancing::RoundRobin, weighted), &resolver, 100).await;
        assert_eq!(turns, [(0, 70), (1, 30)].into());
        for policy in
            [LoadBalancing::Random, LoadBalancing::LeastRequest, LoadBalancing::RingHash, LoadBalancing::Maglev]
        {
            let counts = chosen(&balancer(policy, weighted), &resolver, 10_000).await;
            assert!((5_500..=8_400).contains(&counts[&0]), "{policy:?} {counts:?}");
        }
    }

    #[tokio::test]
    async fn who_is_out_gets_nothing_and_the_others_share_evenly() {
        let resolver = resolver();
        for policy in [
            LoadBalancing::RoundRobin,
            LoadBalancing::Random,
            LoadBalancing::LeastRequest,
            LoadBalancing::RingHash,
            LoadBalancing::Maglev,
        ] {
            let balancer = balancer(policy, THREE);
            chosen(&balancer, &resolver, 1).await;
            against(&balancer, &[1]);
            let counts = chosen(&balancer, &resolver, 6_000).await;
            assert!(!counts.contains_key(&1), "{policy:?} {counts:?}");
            assert!(counts[&0].abs_diff(counts[&2]) < 2_200, "{policy:?} {counts:?}");
        }
        let balancer = balancer(LoadBalancing::RoundRobin, THREE);
        chosen(&balancer, &resolver, 1).await;
        against(&balancer, &[1]);
        assert_eq!(
            chosen(&balancer, &resolver, 100).await,
            [(0, 50), (2, 50)].into(),
            "not all of its turns to the next"
        );
    }

    #[tokio::test]
    async fn with_too_few_who_are_well_all_are_used_unless_nobody_may_panic() {
        let resolver = resolver();
        let with = |panic_threshold| {
            Balancer::of("a", &upstream(THREE, Balancing { panic_threshold, ..Balancing::default() }), Names::Anywhere)
                .unwrap()
        };
        for (threshold, out, used) in [
            (50, &[0][..], 2),
            (50, &[0, 1], 3),
            (50, &[0, 1, 2], 3),
            (30, &[0, 1], 1),
            (34, &[0, 1], 3),
            (100, &[0], 3),
        ] {
            let balancer = with(threshold);
            chosen(&balancer, &resolver, 1).await;
            against(&balancer, out);
            assert_eq!(chosen(&balancer, &resolver, 30).await.len(), used, "{threshold} {out:?}");
        }
        let never = with(0);
        chosen(&never, &resolver, 1).await;
        against(&never, &[0, 1, 2]);
        assert_eq!(never.choose(&resolver, Choosing::default()).await.unwrap_err(), NoMember::Unhealthy);
    }

    #[tokio::test]
    async fn who_has_failed_is_not_asked_again_if_there_is_another() {
        let resolver = resolver();
        for policy in [LoadBalancing::RoundRobin, LoadBalancing::LeastRequest, LoadBalancing::Maglev] {
            let balancer = balancer(policy, THREE);
            for key in (0..20).map(table::mixed) {
                let first = balancer.choose(&resolver, Choosing { key, failed: None }).await.unwrap();
                let again = Choosing { key, failed: Some(first.busy.state()) };
                assert_ne!(balancer.choose(&resolver, again).await.unwrap().endpoint, first.endpoint);
            }
        }
        let alone = balancer(LoadBalancing::Random, &THREE[..1]);
        let first = alone.choose(&resolver, Choosing::default()).await.unwrap();
        let again = Choosing { key: 0, failed: Some(first.busy.state()) };
        assert_eq!(alone.choose(&resolver, again).await.unwrap().endpoint, 0, "there is no other");
    }

    #[tokio::test]
    async fn who_has_less_to_do_is_preferred() {
        let (resolver, balancer) = (resolver(), balancer(LoadBalancing::LeastRequest, THREE));
        let mut held = Vec::new();
        for _ in 0..300 {
            held.push(balancer.choose(&resolver, Choosing::default()).await.unwrap());
        }
        let active = |at: usize| balancer.members().unwrap().list[at].state.active();
        assert!((0..3).all(|at| (80..=120).contains(&active(at))), "{:?}", [active(0), active(1), active(2)]);
        drop(held);
        assert_eq!([active(0), active(1), active(2)], [0; 3]);
    }

    #[tokio::test]
    async fn the_same_client_gets_to_the_same_endpoint_and_in_every_process() {
        let resolver = resolver();
        for policy in [LoadBalancing::RingHash, LoadBalancing::Maglev] {
            let (here, there) = (balancer(policy, THREE), balancer(policy, THREE));
            for client in 0..50_u8 {
                let key = key_of(None, [192, 0, 2, client].into());
                let first = here.choose(&resolver, Choosing { key, failed: None }).await.unwrap().endpoint;
                for balancer in [&here, &there] {
                    let next = balancer.choose(&resolver, Choosing { key, failed: None }).await.unwrap();
                    assert_eq!(next.endpoint, first, "{policy:?}");
                }
            }
        }
        assert_ne!(key_of(Some(b"a"), [192, 0, 2, 1].into()), key_of(Some(b"b"), [192, 0, 2, 1].into()));
    }

    #[tokio::test]
    async fn what_is_known_of_an_address_outlives_the_configuration() {
        let (resolver, old) = (resolver(), balancer(LoadBalancing::RoundRobin, THREE));
        chosen(&old, &resolver, 1).await;
        against(&old, &[2]);
        let new = balancer(LoadBalancing::Maglev, &[("192.0.2.3", 1), ("192.0.2.4", 1), ("192.0.2.5", 1)]);
        new.inherit(&old);
        let counts = chosen(&new, &resolver, 100).await;
        assert!(!counts.contains_key(&0) && counts.len() == 2, "{counts:?}");
        assert!(matches!(new.members().unwrap().table, Table::Maglev(_)));
        let checked = Balancing { outliers: Some(rules()), ..Balancing::default() };
        let other = Balancer::of("a", &upstream(THREE, checked), Names::Anywhere).unwrap();
        other.inherit(&new);
        assert!(old.members().unwrap().list[2].state.is_unhealthy(), "the same checks");
    }

    #[tokio::test]
    async fn what_rules_have_found_out_ends_with_them_also_where_requests_still_go_by_them() {
        let resolver = resolver();
        let all_out = OutlierDetection { max_ejected: 100, ..rules() };
        let old = judged(all_out.clone()).await;
        assert_eq!(three_errors(&old, 0), Some(Cause::ServerErrors));
        for (outliers, used) in
            [(None, 3), (Some(OutlierDetection { max_ejected: 90, ..all_out.clone() }), 3), (Some(all_out), 1)]
        {
            let balancing = Balancing { outliers, panic_threshold: 0, ..Balancing::default() };
            let new = Balancer::of("a", &upstream(THREE, balancing), Names::Anywhere).unwrap();
            new.inherit(&old);
            // A request that began under the older configuration ends.
            three_errors(&old, 1);
            assert_eq!(chosen(&new, &resolver, 30).await.len(), used, "{:?}", new.balancing.outliers);
        }
    }

    #[tokio::test]
    async fn two_entries_at_one_address_are_two_endpoints_and_an_entry_that_is_written_twice_is_one() {
        let resolver = resolver();
        for policy in [LoadBalancing::RingHash, LoadBalancing::Maglev, LoadBalancing::RoundRobin] {
            let two = balancer(policy, &[("localhost", 1), ("127.0.0.1", 1)]);
            let counts = chosen(&two, &resolver, 2_000).await;
            assert!(counts.len() == 2 && counts.values().all(|count| *count > 600), "{policy:?} {counts:?}");
            against(&two, &[0]);
            two.due.store(0, Ordering::SeqCst);
            let counts = chosen(&two, &resolver, 20).await;
            assert_eq!(counts, [(1, 20)].into(), "{policy:?}: each is still who it was");
        }
        let twice = balancer(LoadBalancing::RoundRobin, &[("192.0.2.1", 1), ("192.0.2.1", 2), ("192.0.2.2", 1)]);
        assert_eq!(chosen(&twice, &resolver, 4).await, [(0, 3), (2, 1)].into());
    }

    #[tokio::test]
    async fn who_is_next_to_one_that_is_out_is_not_drawn_for_it() {
        let (resolver, five) =
            (resolver(), [(THREE[0].0, 1), (THREE[1].0, 1), (THREE[2].0, 1), ("192.0.2.4", 1), ("192.0.2.5", 1)]);
        for out in [&[1][..], &[0, 1, 2]] {
            for policy in [LoadBalancing::Random, LoadBalancing::LeastRequest] {
                let balancing = Balancing { policy, panic_threshold: 0, ..Balancing::default() };
                let balancer = Balancer::of("a", &upstream(&five, balancing), Names::Anywhere).unwrap();
                chosen(&balancer, &resolver, 1).await;
                against(&balancer, out);
                let counts = chosen(&balancer, &resolver, 12_000).await;
                let fair = 12_000 / (5 - out.len());
                assert_eq!(counts.len(), 5 - out.len());
                assert!(counts.values().all(|count| count.abs_diff(fair) < fair / 8), "{policy:?} {out:?} {counts:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_large_table_is_made_once_however_many_ask_and_nobody_waits_for_another_one() {
        let (resolver, names) = (resolver(), (0..200).map(|last| format!("192.0.2.{last}")).collect::<Vec<_>>());
        let many: Vec<_> = names.iter().map(|name| (name.as_str(), 1)).collect();
        let balancer = balancer(LoadBalancing::Maglev, &many);
        let asked = (0..50).map(|key| balancer.choose(&resolver, Choosing { key, failed: None }));
        assert!(futures_util::future::join_all(asked).await.iter().all(Result::is_ok));
        assert_eq!(balancer.looks.load(Ordering::SeqCst), 1);
        let _somebody_looks = balancer.looking.lock().await;
        balancer.due.store(1, Ordering::SeqCst);
        assert!(balancer.choose(&resolver, Choosing::default()).now_or_never().is_some_and(|chosen| chosen.is_ok()));
    }

    #[tokio::test]
    async fn s_105_no_name_of_a_tunnel_leads_inward_and_so_nobody_checks_it() {
        let resolver = Resolver::leading_to([127, 0, 0, 1].into());
        for (names, host, reached) in [
            (Names::Anywhere, "db.internal", true),
            (Names::Outward, "db.internal", false),
            (Names::Outward, "127.0.0.1", true),
        ] {
            let named = upstream(&[(host, 1)], Balancing { policy: LoadBalancing::Random, ..Balancing::default() });
            let balancer = Balancer::of("a", &named, names).unwrap();
            assert_eq!(balancer.choose(&resolver, Choosing::default()).await.is_ok(), reached, "{names:?} {host}");
            assert_eq!(balancer.members().unwrap().list.len(), usize::from(reached));
        }
    }

    #[tokio::test]
    async fn one_endpoint_of_which_nothing_is_said_needs_no_balancer() {
        let one = upstream(
            &THREE[..1],
            Balancing { breakers: crate::route::CircuitBreakers::default(), ..Balancing::default() },
        );
        assert!(Balancer::of("a", &one, Names::Anywhere).is_none());
        assert!(Balancer::of("a", &upstream(THREE, Balancing::default()), Names::Anywhere).is_some());
        let outliers = Balancing { outliers: Some(rules()), ..Balancing::default() };
        assert!(Balancer::of("a", &upstream(&THREE[..1], outliers), Names::Anywhere).is_some());
    }

    pub(crate) fn rules() -> OutlierDetection {
        let second = std::time::Duration::from_secs(1);
        OutlierDetection {
            interval: second * 10,
            server_errors: Consecutive { failures: 3, enforced: 100 },
            gateway_failures: Consecutive { failures: 2, enforced: 0 },
            local_failures: Consecutive { failures: 2, enforced: 100 },
            base_ejection: second * 30,
            max_ejection: second * 70,
            ejection_jitter: std::time::Duration::ZERO,
            max_ejected: 50,
            success_rate: SuccessRate { hosts: 3, requests: 10, deviation: 1000, enforced: 100, enforced_local: 100 },
            failure_share: FailureShare { threshold: 80, hosts: 1, requests: 10, enforced: 0, enforced_local: 0 },
            split_local: false,
            healthy_readmits: true,
            always_one: false,
        }
    }

    /// A balancer with these rules, all members known.
    async fn judged(rules: OutlierDetection) -> Arc<Balancer> {
        let balancing = Balancing { outliers: Some(rules), ..Balancing::default() };
        let balancer = Balancer::of("a", &upstream(THREE, balancing), Names::Anywhere).unwrap();
        chosen(&balancer, &resolver(), 1).await;
        balancer
    }

    fn note(balancer: &Balancer, at: usize, outcome: Outcome) -> Option<Cause> {
        balancer.note(&balancer.members().unwrap().list[at].state, outcome)
    }

    /// What comes of three errors in a row.
    fn three_errors(balancer: &Balancer, at: usize) -> Option<Cause> {
        let mut cause = None;
        for _ in 0..3 {
            cause = note(balancer, at, Outcome::Status(500));
        }
        cause
    }

    #[tokio::test]
    async fn so_many_failures_in_a_row_put_an_endpoint_out_and_one_success_begins_anew() {
        let balancer = judged(rules()).await;
        for outcome in
            [Outcome::Status(500), Outcome::Unreachable, Outcome::Status(404), Outcome::Late, Outcome::Broken]
        {
            assert_eq!(note(&balancer, 0, outcome), None, "{outcome:?}");
        }
        assert_eq!(note(&balancer, 0, Outcome::Status(599)), Some(Cause::ServerErrors));
        let state = Arc::clone(&balancer.members().unwrap().list[0].state);
        assert!(state.is_ejected() && !state.is_usable() && !state.is_unhealthy());
        for _ in 0..9 {
            assert_eq!(note(&balancer, 1, Outcome::Status(503)), None, "no more than half of three may be out");
        }
        assert!(super::super::outlier::readmit(&state) && state.is_usable());
    }

    #[tokio::test]
    async fn one_may_be_out_whatever_the_share_says_if_that_is_wanted() {
        let few = OutlierDetection { max_ejected: 10, ..rules() };
        for (always_one, out) in [(false, None), (true, Some(Cause::ServerErrors))] {
            let balancer = judged(OutlierDetection { always_one, ..few.clone() }).await;
            let third = three_errors(&balancer, 0);
            assert_eq!(third, out);
            let third = three_errors(&balancer, 1);
            assert_eq!(third, None, "one and no more");
        }
    }

    #[tokio::test]
    async fn gateway_failures_and_what_never_was_an_answer_have_rows_of_their_own() {
        let gateway = OutlierDetection {
            server_errors: Consecutive { failures: 9, enforced: 100 },
            gateway_failures: Consecutive { failures: 2, enforced: 100 },
            ..rules()
        };
        let balancer = judged(gateway.clone()).await;
        assert_eq!(note(&balancer, 0, Outcome::Status(502)), None);
        assert_eq!(note(&balancer, 0, Outcome::Status(500)), None, "an error, and the gateway works");
        assert_eq!(note(&balancer, 0, Outcome::Unreachable), None);
        assert_eq!(note(&balancer, 0, Outcome::Late), Some(Cause::GatewayFailures));
        let balancer = judged(OutlierDetection { split_local: true, ..gateway }).await;
        assert_eq!(note(&balancer, 0, Outcome::Unreachable), None);
        assert_eq!(note(&balancer, 0, Outcome::Status(502)), None, "it was reached");
        assert_eq!(note(&balancer, 0, Outcome::Late), None);
        assert_eq!(note(&balancer, 0, Outcome::Broken), Some(Cause::LocalFailures));
    }

    #[tokio::test(start_paused = true)]
    async fn each_time_out_is_longer_up_to_a_bound_and_quiet_takes_one_back() {
        let balancer = judged(rules()).await;
        let members = balancer.members().unwrap();
        let look = || super::super::outlier::look(&rules(), &members, Instant::now());
        let seconds_out = async || {
            let third = three_errors(&balancer, 0);
            assert_eq!(third, Some(Cause::ServerErrors));
            let begun = Instant::now();
            while members.list[0].state.is_ejected() {
                tokio::time::sleep(rules().interval).await;
                look();
            }
            begun.elapsed().as_secs()
        };
        assert_eq!([seconds_out().await, seconds_out().await, seconds_out().await], [30, 60, 70]);
        look();
        look();
        assert_eq!(seconds_out().await, 60, "two quiet intervals");
    }

    #[tokio::test]
    async fn who_succeeds_less_than_the_others_is_put_out_once_enough_is_known() {
        let quiet = Consecutive { failures: 1000, enforced: 0 };
        let rated = OutlierDetection { server_errors: quiet, gateway_failures: quiet, ..rules() };
        let outcomes = |balancer: &Balancer, requests: u32| {
            for at in 0..3 {
                for request in 0..requests {
                    let status = if at == 2 && request % 2 == 0 { 500 } else { 200 };
                    note(balancer, at, Outcome::Status(status));
                }
            }
        };
        let look = |rules: &OutlierDetection, balancer: &Balancer| {
            let members = balancer.members().unwrap();
            let out = super::super::outlier::look(rules, &members, Instant::now());
            out.into_iter().map(|(place, cause)| (place.to_string(), cause)).collect::<Vec<_>>()
        };
        let balancer = judged(rated.clone()).await;
        outcomes(&balancer, 9);
        assert_eq!(look(&rated, &balancer), [], "too few requests");
        outcomes(&balancer, 10);
        assert_eq!(look(&rated, &balancer), [("192.0.2.3:80".to_owned(), Cause::SuccessRate)]);
        let few = OutlierDetection { success_rate: SuccessRate { hosts: 4, ..rated.success_rate }, ..rated.clone() };
        let balancer = judged(few.clone()).await;
        outcomes(&balancer, 10);
        assert_eq!(look(&few, &balancer), [], "too few endpoints");
        let share = FailureShare { threshold: 50, enforced: 100, ..rated.failure_share };
        let shared = OutlierDetection { failure_share: share, ..few };
        let balancer = judged(shared.clone()).await;
        outcomes(&balancer, 10);
        assert_eq!(look(&shared, &balancer), [("192.0.2.3:80".to_owned(), Cause::FailureShare)]);
    }
}
