//! Which endpoint of a route is chosen, and how much it is given (01 §1.3, §2.11).

use postern_edge::route::{Balancing, CircuitBreakers, LoadBalancing, Target};

use super::{health, outliers};
use crate::config::Code;
use crate::config::block::Block;
use crate::config::context::Context;
use crate::config::keys::CIRCUIT_BREAKERS;

/// What the route says of it, for whatever `target` it leads to.
pub(super) fn resolve(cx: &mut Context<'_>, route: &Block<'_>, target: Option<&mut Target>) {
    let policies = [
        LoadBalancing::RoundRobin,
        LoadBalancing::LeastRequest,
        LoadBalancing::Random,
        LoadBalancing::RingHash,
        LoadBalancing::Maglev,
    ];
    let policies = policies.map(|policy| (policy.name(), policy));
    let policy = route.choice(cx, "load_balancing_policy", "load_balancing_policy_", &policies);
    let usual = Balancing::default();
    let panic_threshold = route.find("healthy_panic_threshold").and_then(|field| field.within(cx, 0, 100));
    let balancing = Balancing {
        policy: policy.unwrap_or_default(),
        panic_threshold: panic_threshold.unwrap_or(usual.panic_threshold),
        breakers: breakers(cx, route),
        outliers: outliers::resolve(cx, route),
        health_checks: health::resolve(cx, route),
    };
    let Some(target) = target else { return };
    match target {
        Target::Upstream(upstream) => upstream.balancing = (balancing != usual).then(|| Box::new(balancing)),
        Target::Redirect(_) | Target::Response { .. } if balancing != usual => tell_unused(cx, route),
        Target::Redirect(_) | Target::Response { .. } => {}
    }
}

const KEYS: [&str; 5] = [
    "load_balancing_policy",
    "healthy_panic_threshold",
    "circuit_breaker_thresholds",
    "outlier_detection",
    "health_checks",
];

fn tell_unused(cx: &mut Context<'_>, route: &Block<'_>) {
    for key in KEYS {
        if let Some(field) = route.find(key) {
            let what = format!("`{key}` has no effect: this route leads to no upstream");
            cx.advise(Code::NoEffect, &field.key_at(), what, "write `to`, or remove the key");
        }
    }
}

/// `circuit_breaker_thresholds`, of the whole or of a route.
pub(in crate::config::resolve) fn breakers(cx: &mut Context<'_>, block: &Block<'_>) -> CircuitBreakers {
    let Some(block) = block.inner(cx, "circuit_breaker_thresholds", &CIRCUIT_BREAKERS) else {
        return CircuitBreakers::default();
    };
    CircuitBreakers {
        connections: block.number(cx, "max_connections"),
        pending_requests: block.number(cx, "max_pending_requests"),
        requests: block.number(cx, "max_requests"),
        retries: block.number(cx, "max_retries"),
    }
}
