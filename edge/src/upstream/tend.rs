//! Looks after the endpoints of one upstream while requests come and go: knows when names have other addresses, asks endpoints
//! how they are, and takes back those whose time is over. It ends with the configuration.

use std::collections::HashMap;
use std::future::pending;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pingora_core::upstreams::peer::HttpPeer;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::task::AbortOnDropHandle;

use super::balance::Balancer;
use super::cluster::{Cluster, Http, upstream};
use super::health::Checking;
use super::line::Dialler;
use super::member::{Member, Where};
use super::outlier;
use super::peer::{PeerSpec, Place};
use super::resolve::Resolver;
use super::tls::Identity;
use crate::metrics::Metrics;
use crate::route::{HealthCheck, Route, UpstreamEndpoint};

/// What is looked after.
pub(super) struct Tended {
    pub(super) balancer: Arc<Balancer>,
    pub(super) metrics: Metrics,
    route: Arc<Route>,
    tls: Option<Arc<Identity>>,
    dial: Dialler,
    version: u64,
}

/// Names are looked at so often, if they are due.
const LOOK: Duration = Duration::from_secs(1);
/// Nothing is compared more often.
const SHORTEST: Duration = Duration::from_millis(100);

impl Tended {
    /// The upstream of `route`, if there is something to look after.
    pub(super) fn of(
        route: &Arc<Route>,
        cluster: &Cluster,
        (dial, version): (&Dialler, u64),
        metrics: &Metrics,
    ) -> Option<Arc<Self>> {
        let balancer = cluster.balancer.as_ref()?;
        let cared = balancer.balancing.outliers.is_some() || !balancer.balancing.health_checks.is_empty();
        cared.then(|| {
            Arc::new(Self {
                balancer: Arc::clone(balancer),
                metrics: metrics.clone(),
                route: Arc::clone(route),
                tls: cluster.tls.clone(),
                dial: Arc::clone(dial),
                version,
            })
        })
    }

    /// Looks after it for as long as it is polled.
    pub(super) async fn tend(self: Arc<Self>, resolver: Arc<Resolver>) {
        let mut checks: HashMap<(usize, Where, usize), AbortOnDropHandle<()>> = HashMap::new();
        let rules = self.balancer.balancing.outliers.as_ref();
        let mut judging = rules.map(|rules| interval(rules.interval.max(SHORTEST)));
        if let Some(judging) = &mut judging {
            judging.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        loop {
            self.balancer.refresh(&resolver).await;
            self.check_members(&mut checks);
            self.take_stock();
            let judge = async {
                match &mut judging {
                    Some(judging) => drop(judging.tick().await),
                    None => pending().await,
                }
            };
            tokio::select! {
                () = judge => self.judge(),
                () = self.balancer.changed.notified() => {}
                () = sleep(LOOK) => {}
            }
        }
    }

    /// A task for each check of each member there is, and none for those that are gone.
    fn check_members(self: &Arc<Self>, checks: &mut HashMap<(usize, Where, usize), AbortOnDropHandle<()>>) {
        let members = self.balancer.members();
        let members = members.iter().flat_map(|members| &members.list);
        let count = self.balancer.balancing.health_checks.len();
        let wanted: HashMap<_, _> = members
            .flat_map(|member| (0..count).map(move |index| ((member.endpoint, member.place.clone(), index), member)))
            .collect();
        checks.retain(|key, task| wanted.contains_key(key) && !task.is_finished());
        for (key, member) in wanted {
            let index = key.2;
            checks.entry(key).or_insert_with(|| {
                let checking = Checking { tended: Arc::clone(self), member: member.clone(), index };
                AbortOnDropHandle::new(tokio::spawn(checking.run()))
            });
        }
    }

    /// Compares the members, and takes back those whose time is over.
    fn judge(&self) {
        let (Some(rules), Some(members)) = (&self.balancer.balancing.outliers, self.balancer.members()) else { return };
        for (place, cause) in outlier::look(rules, &members, Instant::now()) {
            let (route, cause) = (&*self.balancer.route, cause.as_str());
            self.metrics.0.upstream_ejections.with_label_values(&[route, cause]).inc();
            tracing::warn!(postern.route = route, upstream.address = %place, cause, "an endpoint is left out for a while");
        }
    }

    /// Counts them: for who chooses among them, and to be shown.
    pub(super) fn take_stock(&self) {
        self.balancer.take_stock();
        let members = self.balancer.members();
        let states = || members.iter().flat_map(|members| &members.list).map(|member| &member.state);
        let counted = [
            ("all", states().count()),
            ("unhealthy", states().filter(|state| state.is_unhealthy()).count()),
            ("ejected", states().filter(|state| state.is_ejected()).count()),
        ];
        for (state, count) in counted {
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            self.metrics.0.upstream_endpoints.with_label_values(&[&*self.balancer.route, state]).set(count.into());
        }
    }

    /// The entry of `to` that a member comes from.
    pub(super) fn endpoint(&self, member: &Member) -> Option<&UpstreamEndpoint> {
        upstream(&self.route)?.endpoints.get(member.endpoint)
    }

    /// A peer for a health check.
    pub(super) fn peer(
        &self,
        member: &Member,
        endpoint: &UpstreamEndpoint,
        http: Http,
        check: &HealthCheck,
    ) -> Option<Box<HttpPeer>> {
        let mut place = member.place.clone();
        if let (Where::Address(address), Some(port)) = (&mut place, check.port) {
            address.set_port(port);
        }
        let tls = match &self.tls {
            Some(identity) if endpoint.scheme.is_tls() => Some((&**identity, identity.server_name(endpoint))),
            _ => None,
        };
        let spec = PeerSpec {
            place: match &place {
                Where::Address(address) => Place::Address(*address),
                Where::Socket(path) => Place::Socket(Path::new(&**path)),
            },
            tls,
            http,
            cluster: &self.route.id,
            version: self.version,
            connect: check.timeout,
            // Kept by the check itself, if it is.
            idle: check.timeout,
            dial: &self.dial,
            silence: Some(check.timeout),
        };
        spec.peer().ok()
    }
}
