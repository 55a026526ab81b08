//! Endpoints that fail more than others: `outlier_detection` (01 §2.11).

use std::time::Duration;

use crate::config::block::Block;
use crate::config::context::Context;
use crate::config::keys::OUTLIER_DETECTION;

/// `outlier_detection`. Shares are in percent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutlierDetection {
    /// How often is looked.
    pub interval: Duration,
    /// `consecutive_5xx`, and how many of those are acted on.
    pub server_errors: (u32, u32),
    /// `consecutive_gateway_failure`, and how many of those are acted on.
    pub gateway_failures: (u32, u32),
    /// `consecutive_local_origin_failure`, and how many of those are acted on.
    pub local_failures: (u32, u32),
    /// `base_ejection_time`: times the number of ejections so far.
    pub base_ejection: Duration,
    /// `max_ejection_time`.
    pub max_ejection: Duration,
    /// `max_ejection_time_jitter`.
    pub ejection_jitter: Duration,
    /// `max_ejection_percent`.
    pub max_ejected: u32,
    /// `success_rate_minimum_hosts`, `_request_volume`, `_stdev_factor`.
    pub success_rate: (u32, u32, u32),
    /// `enforcing_success_rate` and `enforcing_local_origin_success_rate`.
    pub enforcing_success_rate: (u32, u32),
    /// `failure_percentage_threshold`, `_minimum_hosts`, `_request_volume`.
    pub failure_share: (u32, u32, u32),
    /// `enforcing_failure_percentage` and `enforcing_failure_percentage_local_origin`.
    pub enforcing_failure_share: (u32, u32),
    /// `split_external_local_origin_errors`.
    pub split_local: bool,
    /// `successful_active_health_check_uncheck_outlier`.
    pub healthy_readmits: bool,
    /// `always_eject_one_host`.
    pub always_one: bool,
}

pub(super) fn resolve(cx: &mut Context<'_>, route: &Block<'_>) -> Option<OutlierDetection> {
    let block = route.inner(cx, "outlier_detection", &OUTLIER_DETECTION)?;
    let mut read = Reader { cx, block: &block };
    Some(OutlierDetection {
        interval: read.time("interval", 10),
        server_errors: (read.count("consecutive_5xx", 5), read.share("enforcing_consecutive_5xx", 100)),
        gateway_failures: (
            read.count("consecutive_gateway_failure", 5),
            read.share("enforcing_consecutive_gateway_failure", 0),
        ),
        local_failures: (
            read.count("consecutive_local_origin_failure", 5),
            read.share("enforcing_consecutive_local_origin_failure", 100),
        ),
        base_ejection: read.time("base_ejection_time", 30),
        max_ejection: read.time("max_ejection_time", 300),
        ejection_jitter: read.time("max_ejection_time_jitter", 0),
        max_ejected: read.share("max_ejection_percent", 10),
        success_rate: (
            read.count("success_rate_minimum_hosts", 5),
            read.count("success_rate_request_volume", 100),
            read.count("success_rate_stdev_factor", 1900),
        ),
        enforcing_success_rate: (
            read.share("enforcing_success_rate", 100),
            read.share("enforcing_local_origin_success_rate", 100),
        ),
        failure_share: (
            read.share("failure_percentage_threshold", 85),
            read.count("failure_percentage_minimum_hosts", 5),
            read.count("failure_percentage_request_volume", 50),
        ),
        enforcing_failure_share: (
            read.share("enforcing_failure_percentage", 0),
            read.share("enforcing_failure_percentage_local_origin", 0),
        ),
        split_local: read.flag("split_external_local_origin_errors", false),
        healthy_readmits: read.flag("successful_active_health_check_uncheck_outlier", true),
        always_one: read.flag("always_eject_one_host", false),
    })
}

struct Reader<'r, 'e, 'n> {
    cx: &'r mut Context<'e>,
    block: &'r Block<'n>,
}

impl Reader<'_, '_, '_> {
    fn count(&mut self, key: &str, usual: u32) -> u32 {
        self.block.number(self.cx, key).unwrap_or(usual)
    }

    fn share(&mut self, key: &str, usual: u32) -> u32 {
        self.block.find(key).and_then(|field| field.within(self.cx, 0, 100)).unwrap_or(usual)
    }

    fn time(&mut self, key: &str, usual: u64) -> Duration {
        self.block.seconds(self.cx, key).unwrap_or(Duration::from_secs(usual))
    }

    fn flag(&mut self, key: &str, usual: bool) -> bool {
        self.block.boolean(self.cx, key).unwrap_or(usual)
    }
}
