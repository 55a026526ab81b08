//! Which endpoint of a route is chosen, and how much it is given (01 §1.3, §2.11).

use crate::config::block::Block;
use crate::config::context::Context;
use crate::config::keys::CIRCUIT_BREAKERS;

/// How an endpoint is chosen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Balancing {
    /// `load_balancing_policy`.
    pub policy: LoadBalancing,
    /// `healthy_panic_threshold`, in percent: below it all endpoints are used; 0 is never.
    pub panic_threshold: Option<u8>,
    /// `circuit_breaker_thresholds` of the route, over the global ones field by field.
    pub breakers: CircuitBreakers,
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
    /// By session, on a ring.
    RingHash,
    /// By session, from a table.
    Maglev,
}

/// `circuit_breaker_thresholds`; what is `None` is left to the global ones, or to the default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CircuitBreakers {
    /// `max_connections`.
    pub connections: Option<u32>,
    /// `max_pending_requests`.
    pub pending_requests: Option<u32>,
    /// `max_requests`.
    pub requests: Option<u32>,
    /// `max_retries`.
    pub retries: Option<u32>,
    /// `max_connection_pools`.
    pub connection_pools: Option<u32>,
}

pub(super) fn resolve(cx: &mut Context<'_>, route: &Block<'_>) -> Balancing {
    let policies = [
        ("round_robin", LoadBalancing::RoundRobin),
        ("least_request", LoadBalancing::LeastRequest),
        ("random", LoadBalancing::Random),
        ("ring_hash", LoadBalancing::RingHash),
        ("maglev", LoadBalancing::Maglev),
    ];
    let policy = route.choice(cx, "load_balancing_policy", "load_balancing_policy_", &policies);
    Balancing {
        policy: policy.unwrap_or_default(),
        panic_threshold: route.find("healthy_panic_threshold").and_then(|field| field.within(cx, 0, 100)),
        breakers: breakers(cx, route),
    }
}

/// `circuit_breaker_thresholds`, of the whole or of a route.
pub(super) fn breakers(cx: &mut Context<'_>, block: &Block<'_>) -> CircuitBreakers {
    let Some(block) = block.inner(cx, "circuit_breaker_thresholds", &CIRCUIT_BREAKERS) else {
        return CircuitBreakers::default();
    };
    CircuitBreakers {
        connections: block.number(cx, "max_connections"),
        pending_requests: block.number(cx, "max_pending_requests"),
        requests: block.number(cx, "max_requests"),
        retries: block.number(cx, "max_retries"),
        connection_pools: block.number(cx, "max_connection_pools"),
    }
}
