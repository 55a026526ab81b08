//! Endpoints that fail more than others: `outlier_detection` (01 §2.11).

use std::time::Duration;

use postern_edge::route::{Consecutive, FailureShare, OutlierDetection, SuccessRate};

use crate::config::block::Block;
use crate::config::context::Context;
use crate::config::keys::OUTLIER_DETECTION;

/// What the route says of it, with the defaults of the reference.
pub(super) fn resolve(cx: &mut Context<'_>, route: &Block<'_>) -> Option<OutlierDetection> {
    let block = route.inner(cx, "outlier_detection", &OUTLIER_DETECTION)?;
    let mut read = Reader { cx, block: &block };
    Some(OutlierDetection {
        interval: read.time("interval", 10),
        server_errors: read.row("consecutive_5xx", "enforcing_consecutive_5xx", 100),
        gateway_failures: read.row("consecutive_gateway_failure", "enforcing_consecutive_gateway_failure", 0),
        local_failures: read.row("consecutive_local_origin_failure", "enforcing_consecutive_local_origin_failure", 100),
        base_ejection: read.time("base_ejection_time", 30),
        max_ejection: read.time("max_ejection_time", 300),
        ejection_jitter: read.time("max_ejection_time_jitter", 0),
        max_ejected: read.share("max_ejection_percent", 10),
        success_rate: SuccessRate {
            hosts: read.count("success_rate_minimum_hosts", 5),
            requests: read.count("success_rate_request_volume", 100),
            deviation: read.count("success_rate_stdev_factor", 1900),
            enforced: read.share("enforcing_success_rate", 100),
            enforced_local: read.share("enforcing_local_origin_success_rate", 100),
        },
        failure_share: FailureShare {
            threshold: read.share("failure_percentage_threshold", 85),
            hosts: read.count("failure_percentage_minimum_hosts", 5),
            requests: read.count("failure_percentage_request_volume", 50),
            enforced: read.share("enforcing_failure_percentage", 0),
            enforced_local: read.share("enforcing_failure_percentage_local_origin", 0),
        },
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
    /// Five in a row, unless it says otherwise.
    fn row(&mut self, key: &str, enforcing: &str, usual: u32) -> Consecutive {
        Consecutive { failures: self.count(key, 5), enforced: self.share(enforcing, usual) }
    }

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
