//! Names of upstreams to addresses, without ever blocking a core: looked up aside, kept for a while, and the last good
//! answer outlives a failing resolver within a bound.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use crate::metrics::Metrics;

/// The name has no address that can be used now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the name of the upstream cannot be resolved")]
pub(crate) struct Unresolved;

/// Looks names up. The system's resolver outside of tests.
pub(crate) type Lookup = dyn Fn(String) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>> + Send + Sync;

/// All names of upstreams that were ever asked for; they come from the configuration, which bounds them.
pub(crate) struct Resolver {
    names: ArcSwap<HashMap<String, Arc<Name>>>,
    lookup: Arc<Lookup>,
    metrics: Metrics,
}

#[derive(Default)]
struct Name {
    answer: ArcSwapOption<Answer>,
    asking: AtomicBool,
    answered: Notify,
    turn: AtomicUsize,
}

struct Answer {
    addresses: Vec<IpAddr>,
    at: Instant,
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resolver").field("names", &self.names.load().len()).finish()
    }
}

impl Resolver {
    /// A resolver that asks the system.
    pub(crate) fn new(metrics: Metrics) -> Self {
        Self::with(Arc::new(|name| Box::pin(system(name))), metrics)
    }

    fn with(lookup: Arc<Lookup>, metrics: Metrics) -> Self {
        Self { names: ArcSwap::default(), lookup, metrics }
    }

    /// The next address of `host`; each in turn.
    ///
    /// # Errors
    /// There is none, and none came in time.
    pub(crate) async fn resolve(&self, host: &str) -> Result<IpAddr, Unresolved> {
        if host.eq_ignore_ascii_case("localhost") {
            return Ok(Ipv4Addr::LOCALHOST.into());
        }
        if let Ok(literal) = host.trim_start_matches('[').trim_end_matches(']').parse() {
            return Ok(literal);
        }
        let name = self.name(host);
        let now = Instant::now();
        match name.answer.load().as_deref() {
            Some(answer) if now < answer.at + FRESH => return name.next(answer),
            Some(answer) if now < answer.at + LAST_GOOD => {
                self.ask(host, &name);
                return name.next(answer);
            }
            _ => {}
        }
        let answered = name.answered.notified();
        self.ask(host, &name);
        let _late_is_unresolved = timeout(PATIENCE, answered).await;
        match name.answer.load().as_deref() {
            Some(answer) if Instant::now() < answer.at + LAST_GOOD => name.next(answer),
            _ => Err(Unresolved),
        }
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

    /// Looks up once, however many ask.
    fn ask(&self, host: &str, name: &Arc<Name>) {
        if name.asking.swap(true, Ordering::AcqRel) {
            return;
        }
        let (name, lookup) = (Arc::clone(name), (self.lookup)(host.to_owned()));
        let (metrics, host) = (self.metrics.clone(), host.to_owned());
        tokio::spawn(async move {
            let outcome = timeout(PATIENCE, lookup).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            let label = match outcome {
                Ok(addresses) if !addresses.is_empty() => {
                    name.answer.store(Some(Arc::new(Answer { addresses, at: Instant::now() })));
                    "ok"
                }
                Ok(_) => "empty",
                Err(error) => {
                    tracing::warn!(%error, upstream.host = host, "upstream name not resolved");
                    "error"
                }
            };
            metrics.0.upstream_lookups.with_label_values(&[label]).inc();
            name.asking.store(false, Ordering::Release);
            name.answered.notify_waiters();
        });
    }

    /// Forgets the names that a new configuration no longer has.
    pub(crate) fn keep(&self, wanted: impl Fn(&str) -> bool) {
        self.names.rcu(|names| {
            let kept = names.iter().filter(|(name, _)| wanted(name));
            kept.map(|(name, state)| (name.clone(), Arc::clone(state))).collect::<HashMap<_, _>>()
        });
    }
}

impl Name {
    fn next(&self, answer: &Answer) -> Result<IpAddr, Unresolved> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let at = turn.checked_rem(answer.addresses.len()).unwrap_or(0);
        answer.addresses.get(at).copied().ok_or(Unresolved)
    }
}

/// Addresses of the older protocol if there are any, else of the newer (`V4_PREFERRED`).
async fn system(name: String) -> io::Result<Vec<IpAddr>> {
    let all: Vec<IpAddr> = tokio::net::lookup_host((name, 0)).await?.map(|address| address.ip()).collect();
    let v4: Vec<IpAddr> = all.iter().copied().filter(IpAddr::is_ipv4).collect();
    Ok(if v4.is_empty() { all } else { v4 })
}

/// The system's resolver does not tell the life time of an answer; this is what we give it.
const FRESH: Duration = Duration::from_secs(30);
/// How long an answer serves while the resolver fails.
const LAST_GOOD: Duration = Duration::from_secs(600);
const PATIENCE: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    type Answers = Arc<Mutex<Vec<io::Result<Vec<IpAddr>>>>>;

    fn resolver(answers: &Answers) -> (Resolver, Arc<AtomicUsize>) {
        let (answers, asked) = (Arc::clone(answers), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&asked);
        let lookup: Arc<Lookup> = Arc::new(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            let answer = answers.lock().unwrap().pop().unwrap_or_else(|| Err(io::ErrorKind::NotFound.into()));
            Box::pin(async move { answer })
        });
        (Resolver::with(lookup, Metrics::register(&prometheus::Registry::new()).unwrap()), asked)
    }

    fn ip(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    #[tokio::test]
    async fn literals_and_localhost_need_no_resolver() {
        let (resolver, asked) = resolver(&Answers::default());
        assert_eq!(resolver.resolve("192.0.2.7").await, Ok(ip(7)));
        assert_eq!(resolver.resolve("[::1]").await, Ok("::1".parse().unwrap()));
        assert_eq!(resolver.resolve("localhost").await, Ok(Ipv4Addr::LOCALHOST.into()));
        assert_eq!(asked.load(Ordering::SeqCst), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn every_address_has_its_turn_and_one_look_up_serves_many() {
        let answers = Answers::new(Mutex::new(vec![Ok(vec![ip(1), ip(2)])]));
        let (resolver, asked) = resolver(&answers);
        assert_eq!(resolver.resolve("a.example").await, Ok(ip(1)));
        assert_eq!(resolver.resolve("a.example").await, Ok(ip(2)));
        assert_eq!(resolver.resolve("a.example").await, Ok(ip(1)));
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn r_034_the_last_good_address_outlives_a_failing_resolver_within_a_bound() {
        let answers = Answers::new(Mutex::new(vec![Ok(vec![ip(1)])]));
        let (resolver, asked) = resolver(&answers);
        assert_eq!(resolver.resolve("a.example").await, Ok(ip(1)));
        tokio::time::sleep(FRESH).await;
        assert_eq!(resolver.resolve("a.example").await, Ok(ip(1)));
        tokio::task::yield_now().await;
        assert_eq!(asked.load(Ordering::SeqCst), 2, "asked again, aside");
        tokio::time::sleep(LAST_GOOD).await;
        assert_eq!(resolver.resolve("a.example").await, Err(Unresolved));
    }

    #[tokio::test(start_paused = true)]
    async fn r_034_a_changed_address_is_picked_up() {
        let answers = Answers::new(Mutex::new(vec![Ok(vec![ip(2)]), Ok(vec![ip(1)])]));
        let (resolver, _) = resolver(&answers);
        assert_eq!(resolver.resolve("a.example").await, Ok(ip(1)));
        tokio::time::sleep(FRESH).await;
        assert_eq!(resolver.resolve("a.example").await, Ok(ip(1)), "the old one serves while it is looked up");
        tokio::task::yield_now().await;
        assert_eq!(resolver.resolve("a.example").await, Ok(ip(2)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_resolver_that_hangs_is_given_up() {
        let lookup: Arc<Lookup> = Arc::new(|_| Box::pin(std::future::pending()));
        let resolver = Resolver::with(lookup, Metrics::register(&prometheus::Registry::new()).unwrap());
        assert_eq!(resolver.resolve("a.example").await, Err(Unresolved));
    }
}
