//! Names of upstreams to addresses, without ever blocking a core: looked up aside, kept for a while, and the last good
//! answer outlives a failing resolver within a bound.

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::dns::{Client, Dns, Found};
use crate::metrics::Metrics;

/// The name has no address that can be used now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the name of the upstream cannot be resolved")]
pub(crate) struct Unresolved;

/// Looks names up. A client of name servers outside of tests.
type Lookup = dyn Fn(String) -> Pin<Box<dyn Future<Output = io::Result<Found>> + Send>> + Send + Sync;

/// All names of upstreams that were ever asked for; they come from the configuration, which bounds them.
pub(crate) struct Resolver {
    names: ArcSwap<HashMap<String, Arc<Name>>>,
    how: ArcSwap<How>,
    /// Grows when a name has other addresses than before.
    changes: Arc<AtomicU64>,
    /// Where is looked up: never on a core that carries requests.
    control: Handle,
    metrics: Metrics,
}

/// How is looked up.
struct How {
    dns: Dns,
    lookup: Arc<Lookup>,
}

#[derive(Default)]
struct Name {
    answer: ArcSwapOption<Answer>,
    asking: AtomicBool,
    answered: Notify,
    turn: AtomicUsize,
}

/// What is known of a name.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    /// None: there are none, or they could not be found out.
    addresses: Box<[IpAddr]>,
    /// Until then nobody is asked.
    fresh: Instant,
    /// Until then it serves.
    good: Instant,
}

impl Answer {
    fn is_fresh(&self, now: Instant) -> bool {
        now < self.fresh
    }

    fn is_good(&self, now: Instant) -> bool {
        now < self.good && !self.addresses.is_empty()
    }
}

/// What can be used of a name at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) addresses: Vec<IpAddr>,
    /// When is to be looked again; `None`: never.
    pub(super) due: Option<Instant>,
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resolver").field("names", &self.names.load().len()).finish_non_exhaustive()
    }
}

impl Resolver {
    /// One that looks up as `dns` says, in this runtime.
    pub(crate) fn new(dns: &Dns, control: Handle, metrics: Metrics) -> Self {
        Self::with(How::new(dns), control, metrics)
    }

    fn with(how: How, control: Handle, metrics: Metrics) -> Self {
        let how = ArcSwap::from_pointee(how);
        Self { names: ArcSwap::default(), how, changes: Arc::default(), control, metrics }
    }

    /// The next address of `host`, each in turn; not the one that was `tried`, if there is another.
    ///
    /// # Errors
    /// There is none, and none came in time.
    pub(crate) async fn resolve(&self, host: &str, tried: Option<IpAddr>) -> Result<IpAddr, Unresolved> {
        if let Some(literal) = literal(host) {
            return Ok(literal);
        }
        let name = self.name(host);
        let now = Instant::now();
        match name.answer.load().as_deref() {
            Some(answer) if answer.is_fresh(now) => return name.next(answer, tried),
            Some(answer) if answer.is_good(now) => {
                self.ask(host, &name);
                return name.next(answer, tried);
            }
            _ => {}
        }
        self.settle(host, &name).await;
        match name.answer.load().as_deref() {
            Some(answer) if answer.is_good(Instant::now()) => name.next(answer, tried),
            _ => Err(Unresolved),
        }
    }

    /// The addresses of `host` that can be used, once there are any or they were asked for in vain.
    pub(super) async fn all_of(&self, host: &str) -> Known {
        let known = self.known(host);
        if !known.addresses.is_empty() {
            return known;
        }
        let name = self.name(host);
        self.settle(host, &name).await;
        self.known(host)
    }

    /// Those that are known, without waiting. Whatever is due is looked up aside.
    pub(super) fn known(&self, host: &str) -> Known {
        if let Some(literal) = literal(host) {
            return Known { addresses: vec![literal], due: None };
        }
        let (name, now) = (self.name(host), Instant::now());
        let answer = name.answer.load();
        if !answer.as_ref().is_some_and(|answer| answer.is_fresh(now)) {
            self.ask(host, &name);
        }
        // While somebody asks, the answer is not far.
        let due = |answer: &Answer| Some(answer.fresh.max(now + SOON));
        match answer.as_deref() {
            Some(answer) if answer.is_good(now) => Known { addresses: answer.addresses.to_vec(), due: due(answer) },
            answer => Known { addresses: Vec::new(), due: answer.map_or(Some(now + SOON), due) },
        }
    }

    /// Grows when any name has other addresses than before.
    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Does what would hold up a core that carries requests. `None`: the process ends.
    pub(super) async fn aside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        self.control.spawn_blocking(work).await.ok()
    }

    fn name(&self, host: &str) -> Arc<Name> {
        if let Some(name) = self.names.load().get(host) {
            return Arc::clone(name);
        }
        self.names.rcu(|names| {
            let mut names = HashMap::clone(names);
            names.entry(host.to_owned()).or_default();
            names
        });
        self.names.load().get(host).map(Arc::clone).unwrap_or_default()
    }

    /// Waits for an answer, not longer than a request can.
    async fn settle(&self, host: &str, name: &Arc<Name>) {
        let answered = name.answered.notified();
        // Also that there is no address is an answer, for as long as it is fresh.
        if name.answer.load().as_ref().is_some_and(|answer| answer.is_fresh(Instant::now())) {
            return;
        }
        self.ask(host, name);
        let _late_is_unresolved = timeout(PATIENCE, answered).await;
    }

    /// Looks up once, however many ask.
    fn ask(&self, host: &str, name: &Arc<Name>) {
        if name.asking.swap(true, Ordering::AcqRel) {
            return;
        }
        let how = self.how.load_full();
        let (name, lookup) = (Arc::clone(name), (how.lookup)(host.to_owned()));
        let (metrics, host, changes) = (self.metrics.clone(), host.to_owned(), Arc::clone(&self.changes));
        self.control.spawn(async move {
            let outcome = timeout(how.longest(), lookup).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            let label = match &outcome {
                Ok(found) if found.addresses.is_empty() => "empty",
                Ok(_) => "ok",
                Err(_) => "error",
            };
            if let Err(error) = &outcome {
                tracing::warn!(%error, upstream.host = host, "upstream name not resolved");
            }
            let before = name.answer.load_full();
            let answer = how.answer(outcome.ok(), before.as_deref(), Instant::now());
            let changed = before.is_none_or(|before| before.addresses != answer.addresses);
            name.answer.store(Some(Arc::new(answer)));
            if changed {
                changes.fetch_add(1, Ordering::AcqRel);
            }
            metrics.0.upstream_lookups.with_label_values(&[label]).inc();
            name.asking.store(false, Ordering::Release);
            name.answered.notify_waiters();
        });
    }

    /// Forgets the names that a new configuration no longer has; all of them, if it has them looked up otherwise.
    pub(crate) fn reload(&self, dns: &Dns, wanted: impl Fn(&str) -> bool) {
        let same = self.how.load().dns == *dns;
        // Also where nothing was changed: the machine's own settings may have been.
        self.how.store(Arc::new(How::new(dns)));
        self.names.rcu(|names| {
            let kept = names.iter().filter(|(name, _)| same && wanted(name));
            kept.map(|(name, state)| (name.clone(), Arc::clone(state))).collect::<HashMap<_, _>>()
        });
        if !same {
            self.changes.fetch_add(1, Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
impl Resolver {
    /// One to which every name leads there.
    pub(super) fn leading_to(address: IpAddr) -> Self {
        let found = Found { addresses: vec![address], lives: None };
        let lookup: Arc<Lookup> = Arc::new(move |_| {
            let found = found.clone();
            Box::pin(async move { Ok(found) })
        });
        let metrics = Metrics::register(&prometheus::Registry::new());
        Self::with(How { dns: Dns::default(), lookup }, Handle::current(), metrics.unwrap())
    }
}

impl How {
    fn new(dns: &Dns) -> Self {
        let client = Arc::new(Client::new(dns));
        let lookup = move |name: String| {
            let client = Arc::clone(&client);
            Box::pin(async move { client.look_up(&name).await }) as Pin<Box<_>>
        };
        Self { dns: dns.clone(), lookup: Arc::new(lookup) }
    }

    /// What is known after a look-up, in place of what was `before`.
    fn answer(&self, found: Option<Found>, before: Option<&Answer>, now: Instant) -> Answer {
        match found {
            Some(Found { addresses, lives }) if !addresses.is_empty() => {
                let said = lives.filter(|lives| !lives.is_zero());
                let fresh = said.map_or_else(|| self.dns.refresh, |said| said.clamp(SHORTEST, LONGEST));
                // Name servers turn them: another order is no other answer.
                let addresses: BTreeSet<_> = addresses.into_iter().collect();
                let addresses = addresses.into_iter().take(ADDRESSES).collect();
                Answer { addresses, fresh: now + fresh, good: now + fresh + LAST_GOOD }
            }
            // That there is none is an answer too: who had the addresses before may have left them to somebody else.
            Some(_) => {
                let again = now + self.dns.failure_refresh;
                Answer { addresses: Box::default(), fresh: again, good: again }
            }
            None => {
                let again = now + self.dns.failure_refresh;
                let last = before.filter(|before| before.is_good(now));
                let addresses = last.map(|last| last.addresses.clone()).unwrap_or_default();
                Answer {
                    addresses,
                    fresh: last.map_or(again, |last| again.min(last.good)),
                    good: last.map_or(again, |last| last.good),
                }
            }
        }
    }

    /// For a look-up, all its queries included.
    fn longest(&self) -> Duration {
        let tries = self.dns.tries.unwrap_or(1).clamp(1, 100);
        let configured = self.dns.timeout.map_or(Duration::ZERO, |timeout| timeout * tries * 2);
        configured.clamp(LOOKUP, LONGEST_LOOKUP)
    }
}

impl Name {
    fn next(&self, answer: &Answer, tried: Option<IpAddr>) -> Result<IpAddr, Unresolved> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let from = turn.checked_rem(answer.addresses.len()).unwrap_or(0);
        let (before, after) = answer.addresses.split_at_checked(from).unwrap_or_default();
        let another = after.iter().chain(before).find(|address| Some(**address) != tried);
        another.or_else(|| answer.addresses.first()).copied().ok_or(Unresolved)
    }
}

/// What is an address already. `localhost` is 127.0.0.1 (01 §2.5).
fn literal(host: &str) -> Option<IpAddr> {
    if host.eq_ignore_ascii_case("localhost") {
        return Some(Ipv4Addr::LOCALHOST.into());
    }
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// Life times that names are given are taken to be no shorter, and no longer.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(3600);
/// How long an answer serves that should be looked up again, while look-ups fail.
const LAST_GOOD: Duration = Duration::from_secs(600);
/// So long a request waits for the first answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// So long a look-up takes at most, unless the configuration gives its queries more time; and however much it gives them.
const LOOKUP: Duration = Duration::from_secs(10);
const LONGEST_LOOKUP: Duration = Duration::from_secs(60);
/// Addresses of one name.
const ADDRESSES: usize = 256;
/// An answer that is waited for is looked at so often.
const SOON: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    type Answers = Arc<Mutex<Vec<io::Result<Found>>>>;

    fn resolver(answers: &Answers) -> (Resolver, Arc<AtomicUsize>) {
        let (answers, asked) = (Arc::clone(answers), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&asked);
        let lookup: Arc<Lookup> = Arc::new(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            let answer = answers.lock().unwrap().pop().unwrap_or_else(|| Err(io::ErrorKind::NotFound.into()));
            Box::pin(async move { answer })
        });
        (with(lookup, Dns::default()), asked)
    }

    fn with(lookup: Arc<Lookup>, dns: Dns) -> Resolver {
        let metrics = Metrics::register(&prometheus::Registry::new()).unwrap();
        Resolver::with(How { dns, lookup }, Handle::current(), metrics)
    }

    fn found(addresses: &[IpAddr], lives: u64) -> io::Result<Found> {
        Ok(Found { addresses: addresses.to_vec(), lives: Some(Duration::from_secs(lives)) })
    }

    async fn look_ups_end() {
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
    }

    fn ip(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    #[tokio::test]
    async fn literals_and_localhost_need_no_resolver() {
        let (resolver, asked) = resolver(&Answers::default());
        assert_eq!(resolver.resolve("192.0.2.7", None).await, Ok(ip(7)));
        assert_eq!(resolver.resolve("[::1]", None).await, Ok("::1".parse().unwrap()));
        assert_eq!(resolver.resolve("localhost", None).await, Ok(Ipv4Addr::LOCALHOST.into()));
        assert_eq!(asked.load(Ordering::SeqCst), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn every_address_has_its_turn_and_one_look_up_serves_many() {
        let answers = Answers::new(Mutex::new(vec![found(&[ip(1), ip(2)], 30)]));
        let (resolver, asked) = resolver(&answers);
        assert_eq!(resolver.resolve("a.example", None).await, Ok(ip(1)));
        assert_eq!(resolver.resolve("a.example", None).await, Ok(ip(2)));
        assert_eq!(resolver.resolve("a.example", None).await, Ok(ip(1)));
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn r_034_the_last_good_address_outlives_a_failing_resolver_within_a_bound() {
        let answers = Answers::new(Mutex::new(vec![found(&[ip(1)], 30)]));
        let (resolver, asked) = resolver(&answers);
        assert_eq!(resolver.resolve("a.example", None).await, Ok(ip(1)));
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!(resolver.resolve("a.example", None).await, Ok(ip(1)));
        look_ups_end().await;
        assert_eq!(asked.load(Ordering::SeqCst), 2, "asked again, aside");
        tokio::time::sleep(LAST_GOOD).await;
        assert_eq!(resolver.resolve("a.example", None).await, Err(Unresolved));
    }

    #[tokio::test(start_paused = true)]
    async fn r_034_a_name_that_is_no_more_leads_nowhere() {
        let answers = Answers::new(Mutex::new(vec![found(&[ip(2)], 30), found(&[], 0), found(&[ip(1)], 30)]));
        let (resolver, _) = resolver(&answers);
        assert_eq!(resolver.resolve("a.example", None).await, Ok(ip(1)));
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!(resolver.resolve("a.example", None).await, Ok(ip(1)));
        look_ups_end().await;
        assert_eq!(resolver.resolve("a.example", None).await, Err(Unresolved), "it may be somebody else's by now");
        tokio::time::sleep(Dns::default().failure_refresh).await;
        assert_eq!(resolver.resolve("a.example", None).await, Ok(ip(2)), "it is back");
    }

    #[tokio::test(start_paused = true)]
    async fn r_016_a_second_attempt_is_at_another_address_whoever_asks_in_between() {
        let answers = Answers::new(Mutex::new(vec![found(&[ip(1), ip(2)], 30)]));
        let (resolver, _) = resolver(&answers);
        for _ in 0..4 {
            assert_eq!(resolver.resolve("a.example", Some(ip(1))).await, Ok(ip(2)));
        }
        let alone = Answers::new(Mutex::new(vec![found(&[ip(1)], 30)]));
        let (resolver, _) = self::resolver(&alone);
        assert_eq!(resolver.resolve("a.example", Some(ip(1))).await, Ok(ip(1)), "there is no other");
    }

    #[tokio::test(start_paused = true)]
    async fn r_034_a_changed_address_is_picked_up() {
        let answers = Answers::new(Mutex::new(vec![found(&[ip(2)], 30), found(&[ip(1)], 30)]));
        let (resolver, _) = resolver(&answers);
        assert_eq!(resolver.resolve("a.example", None).await, Ok(ip(1)));
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!(resolver.resolve("a.example", None).await, Ok(ip(1)), "the old one serves while it is looked up");
        look_ups_end().await;
        assert_eq!(resolver.resolve("a.example", None).await, Ok(ip(2)));
    }

    #[tokio::test(start_paused = true)]
    async fn r_034_an_answer_is_fresh_as_long_as_it_says_within_bounds() {
        for (lives, fresh) in
            [(0, Dns::default().refresh), (1, SHORTEST), (77, Duration::from_secs(77)), (1_000_000, LONGEST)]
        {
            let (resolver, asked) = resolver(&Answers::new(Mutex::new(vec![found(&[ip(1)], lives)])));
            resolver.resolve("a.example", None).await.unwrap();
            tokio::time::sleep(fresh - Duration::from_millis(1)).await;
            resolver.resolve("a.example", None).await.unwrap();
            look_ups_end().await;
            assert_eq!(asked.load(Ordering::SeqCst), 1, "{lives}");
            tokio::time::sleep(Duration::from_millis(1)).await;
            resolver.resolve("a.example", None).await.unwrap();
            look_ups_end().await;
            assert_eq!(asked.load(Ordering::SeqCst), 2, "{lives}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_failure_nobody_is_asked_for_a_while() {
        let (resolver, asked) = resolver(&Answers::default());
        for _ in 0..3 {
            assert_eq!(resolver.resolve("a.example", None).await, Err(Unresolved));
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        tokio::time::sleep(Dns::default().failure_refresh).await;
        assert_eq!(resolver.resolve("a.example", None).await, Err(Unresolved));
        assert_eq!(asked.load(Ordering::SeqCst), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn who_chooses_among_all_addresses_hears_of_changes_and_of_nothing_else() {
        let answers =
            Answers::new(Mutex::new(vec![found(&[ip(1), ip(2)], 30), found(&[ip(1)], 30), found(&[ip(1)], 30)]));
        let (resolver, _) = resolver(&answers);
        let known = resolver.all_of("a.example").await;
        assert_eq!((known.addresses, known.due), (vec![ip(1)], Some(Instant::now() + Duration::from_secs(30))));
        let heard = resolver.changes();
        for (addresses, changed) in [(vec![ip(1)], false), (vec![ip(1), ip(2)], true)] {
            tokio::time::sleep(Duration::from_secs(30)).await;
            let known = resolver.all_of("a.example").await;
            assert_eq!((known.addresses, known.due), (vec![ip(1)], Some(Instant::now() + SOON)));
            look_ups_end().await;
            assert_eq!(resolver.changes() > heard, changed);
            assert_eq!(resolver.all_of("a.example").await.addresses, addresses);
        }
        assert_eq!(resolver.all_of("127.0.0.1").await, Known { addresses: vec![[127, 0, 0, 1].into()], due: None });
    }

    #[tokio::test(start_paused = true)]
    async fn a_reload_forgets_what_it_does_not_name_and_all_if_it_asks_otherwise() {
        let (resolver, _) = resolver(&Answers::new(Mutex::new(vec![found(&[ip(1)], 30), found(&[ip(1)], 30)])));
        resolver.resolve("a.example", None).await.unwrap();
        resolver.resolve("b.example", None).await.unwrap();
        let names = || resolver.names.load().keys().cloned().collect::<Vec<_>>();
        resolver.reload(&Dns::default(), |name| name == "a.example");
        assert_eq!(names(), ["a.example"]);
        resolver.reload(&Dns { tcp: true, ..Dns::default() }, |_| true);
        assert_eq!(names(), [""; 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_resolver_that_hangs_is_given_up() {
        let lookup: Arc<Lookup> = Arc::new(|_| Box::pin(std::future::pending()));
        let (resolver, begun) = (with(lookup, Dns::default()), Instant::now());
        assert_eq!(resolver.resolve("a.example", None).await, Err(Unresolved));
        assert_eq!(begun.elapsed(), PATIENCE);
    }
}
