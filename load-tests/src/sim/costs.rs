//! What one of each thing costs. Nothing here is guessed: `sim --measure` measures all of it and writes it to a file.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};

/// Costs of this product on one machine; times are of processors, in µs.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Costs {
    pub(crate) edge: EdgeCosts,
    pub(crate) authn: AuthnCosts,
    pub(crate) store: StoreCosts,
}

/// Of an edge.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EdgeCosts {
    /// A request of somebody whose session is near, over a connection that stays.
    pub(crate) request_micros: f64,
    /// Each KB that is answered.
    pub(crate) kilobyte_micros: f64,
    /// A new connection with a whole TLS handshake, beside its first request.
    pub(crate) handshake_micros: f64,
    /// The first look at a session, beside the request: both reads of the store, and an assertion.
    pub(crate) first_micros: f64,
    /// A look at a copy that is old, beside the request: both reads again.
    pub(crate) again_micros: f64,
    /// An assertion that is signed anew.
    pub(crate) assertion_micros: f64,
    /// A second in which nobody asks anything: heartbeats that are heard and written, timers.
    pub(crate) second_micros: f64,
    /// Memory with a few routes, and nobody who asks.
    pub(crate) start_bytes: f64,
    /// A route. Measured apart: docs/performance.md, "Configurations of 10,000 routes", which has 1.4 and 1.7 KB.
    #[serde(default = "route_bytes")]
    pub(crate) route_bytes: f64,
    /// A session that it has, with its assertion.
    pub(crate) session_bytes: f64,
    /// A connection that rests.
    pub(crate) connection_bytes: f64,
}

/// Of a process that signs in.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AuthnCosts {
    /// A second in which nobody comes.
    pub(crate) second_micros: f64,
    /// With the edge's part of it, as that is a process of both.
    pub(crate) sign_in_micros: f64,
    pub(crate) refresh_micros: f64,
}

/// Of the masters of the store.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StoreCosts {
    /// A master that nobody asks, a second.
    pub(crate) second_micros: f64,
    /// A process that is connected, a second: on a master that has not the changelog.
    pub(crate) process_micros: f64,
    /// The same on the one that has it: heartbeats that this process hears, and its try to write the next.
    pub(crate) listener_micros: f64,
    /// A process with authn, a second, beside that it is connected: it looks for refreshes that are due. Of all masters.
    pub(crate) authn_micros: f64,
    /// A look at a session: the session, and since when its user's count.
    pub(crate) look_micros: f64,
    /// A sign-in: the session, and what lists it.
    pub(crate) sign_in_micros: f64,
    /// A refresh: the claim to try it, and the new tokens.
    pub(crate) refresh_micros: f64,
    /// A session that is ended, without those who hear of it.
    pub(crate) end_micros: f64,
    /// Each process that hears of it.
    pub(crate) wake_micros: f64,
    /// A session with its tokens. Measured apart: docs/performance.md, "Sessions in a cluster", `memory --quick`.
    #[serde(default = "stored_bytes")]
    pub(crate) session_bytes: f64,
}

/// As docs/performance.md has it: the larger of two runs.
pub(crate) const fn route_bytes() -> f64 {
    1_700.0
}

/// As docs/performance.md has it.
pub(crate) const fn stored_bytes() -> f64 {
    2_599.0
}

impl Costs {
    /// Those of a file that `--measure` wrote.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let named = || path.display().to_string();
        let text = fs::read_to_string(path).with_context(named)?;
        let costs: Self = serde_json::from_str(&text)
            .with_context(|| format!("{}: these are no costs; write them with `sim --measure FILE`", named()))?;
        costs.check().with_context(named)?;
        Ok(costs)
    }

    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let text = format!("{}\n", serde_json::to_string_pretty(self)?);
        fs::write(path, text).with_context(|| path.display().to_string())
    }

    /// A cost below nothing is an error of measurement, and what is divided by has to be there.
    fn check(&self) -> Result<()> {
        let all = serde_json::to_value(self)?;
        for (group, costs) in all.as_object().into_iter().flatten() {
            for (name, cost) in costs.as_object().into_iter().flatten() {
                let cost = cost.as_f64().unwrap_or(f64::NAN);
                ensure!(cost.is_finite() && cost >= 0.0, "{group}.{name} is {cost}; it begins at 0");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
impl Costs {
    /// Round numbers.
    pub(super) fn plain() -> Self {
        Self {
            edge: EdgeCosts {
                request_micros: 50.0,
                kilobyte_micros: 1.0,
                handshake_micros: 200.0,
                first_micros: 100.0,
                again_micros: 40.0,
                assertion_micros: 20.0,
                second_micros: 2_000.0,
                start_bytes: 50e6,
                route_bytes: 2_000.0,
                session_bytes: 1_000.0,
                connection_bytes: 15_000.0,
            },
            authn: AuthnCosts { second_micros: 3_000.0, sign_in_micros: 4_000.0, refresh_micros: 2_000.0 },
            store: StoreCosts {
                second_micros: 1_000.0,
                process_micros: 20.0,
                listener_micros: 200.0,
                authn_micros: 2_000.0,
                look_micros: 20.0,
                sign_in_micros: 200.0,
                refresh_micros: 300.0,
                end_micros: 200.0,
                wake_micros: 10.0,
                session_bytes: 2_500.0,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_read_as_they_were_written_and_what_is_measured_apart_may_be_absent() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("costs.json");
        Costs::plain().write(&path).unwrap();
        assert_eq!(Costs::read(&path).unwrap().store.wake_micros, 10.0);
        let mut value: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        value["edge"].as_object_mut().unwrap().remove("route_bytes");
        fs::write(&path, value.to_string()).unwrap();
        assert_eq!(Costs::read(&path).unwrap().edge.route_bytes, route_bytes());
        value["edge"].as_object_mut().unwrap().remove("request_micros");
        fs::write(&path, value.to_string()).unwrap();
        let told = format!("{:#}", Costs::read(&path).unwrap_err());
        assert!(told.contains("sim --measure FILE") && told.contains("request_micros"), "{told}");
    }

    #[test]
    fn a_cost_below_nothing_is_refused_by_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("costs.json");
        let mut costs = Costs::plain();
        costs.edge.handshake_micros = -1.0;
        costs.write(&path).unwrap();
        let told = format!("{:#}", Costs::read(&path).unwrap_err());
        assert!(told.contains("edge.handshake_micros is -1"), "{told}");
    }
}
