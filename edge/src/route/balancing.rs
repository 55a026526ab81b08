//! How an endpoint of an upstream is chosen, how much each upstream is given at once, and how endpoints that fail are kept from
//! being chosen (01 §1.3, §2.11).

use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};

/// What a route says of its endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Balancing {
    /// `load_balancing_policy`.
    pub policy: LoadBalancing,
    /// `healthy_panic_threshold`, in percent: with fewer healthy endpoints all are used; 0 is never.
    pub panic_threshold: u8,
    /// `circuit_breaker_thresholds` of the route, which go before the global ones field by field.
    pub breakers: CircuitBreakers,
    /// `outlier_detection`.
    pub outliers: Option<OutlierDetection>,
    /// `health_checks`; at most [`HealthCheck::MOST`].
    pub health_checks: Vec<HealthCheck>,
}

impl Default for Balancing {
    fn default() -> Self {
        Self {
            policy: LoadBalancing::default(),
            panic_threshold: 50,
            breakers: CircuitBreakers::default(),
            outliers: None,
            health_checks: Vec::new(),
        }
    }
}

/// `load_balancing_policy`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LoadBalancing {
    /// One after the other.
    #[default]
    RoundRobin,
    /// Whichever has less to do of two that are drawn.
    LeastRequest,
    /// Drawn.
    Random,
    /// By who asks, on a ring.
    RingHash,
    /// By who asks, from a table.
    Maglev,
}

impl LoadBalancing {
    /// As the configuration writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RoundRobin => "round_robin",
            Self::LeastRequest => "least_request",
            Self::Random => "random",
            Self::RingHash => "ring_hash",
            Self::Maglev => "maglev",
        }
    }

    /// Whether the same client gets to the same endpoint.
    #[must_use]
    pub const fn is_sticky(self) -> bool {
        matches!(self, Self::RingHash | Self::Maglev)
    }
}

/// `circuit_breaker_thresholds`; what is `None` is left to the global ones, or to the default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CircuitBreakers {
    /// `max_connections`: connections that carry requests at the same time.
    pub connections: Option<u32>,
    /// `max_pending_requests`: requests that wait for one of those.
    pub pending_requests: Option<u32>,
    /// `max_requests`: requests without a complete answer.
    pub requests: Option<u32>,
    /// `max_retries`: second attempts under way.
    pub retries: Option<u32>,
}

impl CircuitBreakers {
    /// These, and what `others` say where these say nothing.
    #[must_use]
    pub fn or(self, others: Self) -> Self {
        Self {
            connections: self.connections.or(others.connections),
            pending_requests: self.pending_requests.or(others.pending_requests),
            requests: self.requests.or(others.requests),
            retries: self.retries.or(others.retries),
        }
    }
}

/// `outlier_detection`: endpoints that fail more than others are left out for a while. Shares are in percent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutlierDetection {
    /// `interval`: how often is looked at what takes many requests to see, and who may come back.
    pub interval: Duration,
    /// `consecutive_5xx`.
    pub server_errors: Consecutive,
    /// `consecutive_gateway_failure`: 502, 503 and 504.
    pub gateway_failures: Consecutive,
    /// `consecutive_local_origin_failure`: what never became an answer; only with [`Self::split_local`].
    pub local_failures: Consecutive,
    /// `base_ejection_time`: times the number of ejections so far.
    pub base_ejection: Duration,
    /// `max_ejection_time`.
    pub max_ejection: Duration,
    /// `max_ejection_time_jitter`: so much is added at most, drawn anew each time.
    pub ejection_jitter: Duration,
    /// `max_ejection_percent`.
    pub max_ejected: u32,
    /// `success_rate_*`.
    pub success_rate: SuccessRate,
    /// `failure_percentage_*`.
    pub failure_share: FailureShare,
    /// `split_external_local_origin_errors`: what never became an answer is counted apart.
    pub split_local: bool,
    /// `successful_active_health_check_uncheck_outlier`: a health check that passes takes an endpoint back.
    pub healthy_readmits: bool,
    /// `always_eject_one_host`: one may be left out whatever [`Self::max_ejected`] says.
    pub always_one: bool,
}

/// So many failures in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Consecutive {
    /// How many.
    pub failures: u32,
    /// `enforcing_*`: how many of a hundred such rows are acted on.
    pub enforced: u32,
}

/// Endpoints that succeed less often than the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SuccessRate {
    /// `success_rate_minimum_hosts`: with fewer endpoints to compare nothing is compared.
    pub hosts: u32,
    /// `success_rate_request_volume`: an endpoint with fewer requests in an interval is not compared.
    pub requests: u32,
    /// `success_rate_stdev_factor`: so many thousandths of the standard deviation below the mean.
    pub deviation: u32,
    /// `enforcing_success_rate`.
    pub enforced: u32,
    /// `enforcing_local_origin_success_rate`.
    pub enforced_local: u32,
}

/// Endpoints that fail too often, whatever the others do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FailureShare {
    /// `failure_percentage_threshold`.
    pub threshold: u32,
    /// `failure_percentage_minimum_hosts`.
    pub hosts: u32,
    /// `failure_percentage_request_volume`.
    pub requests: u32,
    /// `enforcing_failure_percentage`.
    pub enforced: u32,
    /// `enforcing_failure_percentage_local_origin`.
    pub enforced_local: u32,
}

/// An entry of `health_checks`: endpoints are asked how they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// How long an answer may take, connecting included.
    pub timeout: Duration,
    /// How often is asked.
    pub interval: Duration,
    /// After so many failures an endpoint is out.
    pub unhealthy_threshold: u32,
    /// After so many successes it is in again.
    pub healthy_threshold: u32,
    /// What is asked.
    pub probe: Probe,
    /// `initial_jitter`: so much is waited at most before the first time.
    pub initial_jitter: Duration,
    /// `interval_jitter`: so much is added to each interval at most.
    pub interval_jitter: Duration,
    /// `interval_jitter_percent`: the same, as a share of the interval.
    pub jitter_percent: u32,
    /// `no_traffic_interval`: how often, as long as nobody has used the route.
    pub no_traffic_interval: Duration,
    /// `no_traffic_healthy_interval`: the same, of endpoints that are healthy.
    pub no_traffic_healthy_interval: Option<Duration>,
    /// `unhealthy_interval`: how often endpoints are asked that are out.
    pub unhealthy_interval: Option<Duration>,
    /// `unhealthy_edge_interval`: how long until the next time when one has just gone out.
    pub unhealthy_edge_interval: Option<Duration>,
    /// `healthy_edge_interval`: the same, when it has just come back.
    pub healthy_edge_interval: Option<Duration>,
    /// `alt_port`: another port than that of requests.
    pub port: Option<u16>,
    /// `reuse_connection`: connections are kept from one time to the next.
    pub reuse_connection: bool,
    /// `always_log_health_check_failures`: not only the first one.
    pub log_failures: bool,
    /// `always_log_health_check_success`.
    pub log_successes: bool,
}

impl HealthCheck {
    /// So many of one route.
    pub const MOST: usize = 16;
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// `http_health_check`.
    Http(Box<HttpCheck>),
    /// `tcp_health_check`.
    Tcp(TcpCheck),
    /// `grpc_health_check`.
    Grpc(GrpcCheck),
}

/// `http_health_check`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpCheck {
    /// `host`; `None` is that of the endpoint.
    pub host: Option<String>,
    /// `path`.
    pub path: String,
    /// `method`.
    pub method: Method,
    /// `send`: the body.
    pub send: Option<Payload>,
    /// `receive`: what must be in the body of the answer, in this order.
    pub receive: Vec<Payload>,
    /// `expected_statuses`; none: 200.
    pub expected: Vec<StatusRange>,
    /// `retriable_statuses`: they count as one failure; others put an endpoint out at once.
    pub retriable: Vec<StatusRange>,
    /// `request_headers_to_add`.
    pub add: Vec<(HeaderName, HeaderValue)>,
    /// `request_headers_to_remove`.
    pub remove: Vec<HeaderName>,
    /// `codec_client_type: http2`.
    pub http2: bool,
}

/// `tcp_health_check`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TcpCheck {
    /// `send`; `None`: connecting is enough.
    pub send: Option<Payload>,
    /// `receive`, in this order.
    pub receive: Vec<Payload>,
}

/// `grpc_health_check`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GrpcCheck {
    /// `service_name`; empty is the whole server.
    pub service: String,
    /// `authority`; `None` is that of the endpoint.
    pub authority: Option<String>,
    /// `initial_metadata`.
    pub metadata: Vec<(HeaderName, HeaderValue)>,
}

/// Bytes on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload(pub Vec<u8>);

/// Statuses from `start` to the one before `end`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusRange {
    /// The first.
    pub start: u16,
    /// The first that is no part of it.
    pub end: u16,
}

impl StatusRange {
    /// Whether a status is one of them.
    #[must_use]
    pub const fn has(&self, status: u16) -> bool {
        self.start <= status && status < self.end
    }
}
