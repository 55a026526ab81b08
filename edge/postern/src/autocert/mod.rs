//! Certificates from an authority (`autocert`, 01 §1.5): ordered for every host of a route that has none of its own, kept in a
//! folder, stapled where their authority has a responder, and renewed long before they expire. Whatever goes wrong here stops nothing
//! that is served.
//!
//! Processes that share a store share in it what is ordered, and whose turn it is; those without one share a folder if they have
//! the same.
//!
//! Each name has a task of its own, which waits until its certificate is due. A few orders are under way at once.

mod account;
mod folder;
mod http;
mod ocsp;
mod order;
mod pace;
mod staple;
mod store;
mod work;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use postern_edge::{CertificateReader, Challenges, EdgeConfig, IssuedCertificates};
use postern_storage::Deposits;
use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info};

use crate::config::Autocert;
use work::Work;

/// Orders what the configuration in force asks for, until it is dropped.
#[derive(Debug)]
pub(crate) struct Orders {
    /// What is served of it.
    issued: IssuedCertificates,
    challenges: Challenges,
    metrics: Metrics,
    /// Where processes share one.
    deposits: Option<Deposits>,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    settings: Autocert,
    work: Arc<Work>,
    tasks: BTreeMap<String, AbortOnDropHandle<()>>,
    account: Option<AbortOnDropHandle<()>>,
}

/// What is counted.
#[derive(Debug, Clone)]
struct Metrics {
    orders: IntCounterVec,
    taken: IntCounter,
    missing: IntGauge,
    staples: IntCounterVec,
    unstapled: IntGauge,
    /// Certificates without must-staple, where that is asked for.
    optional: IntGauge,
}

impl Orders {
    /// Nothing is ordered yet.
    ///
    /// # Errors
    /// A metric's name is taken.
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let opts = Opts::new("postern_autocert_orders_total", "Certificates that were ordered, by outcome.");
        let asked = Opts::new("postern_autocert_staples_total", "Questions to OCSP responders, by outcome.");
        let metrics = Metrics {
            orders: IntCounterVec::new(opts, &["outcome"])?,
            staples: IntCounterVec::new(asked, &["outcome"])?,
            unstapled: IntGauge::new(
                "postern_autocert_names_without_staple",
                "Names whose certificate is to be stapled and is not.",
            )?,
            optional: IntGauge::new(
                "postern_autocert_names_without_must_staple",
                "Names whose certificate may be shown without a staple, although autocert_must_staple is on.",
            )?,
            taken: IntCounter::new(
                "postern_autocert_taken_total",
                "Certificates that other processes had ordered and left in the store.",
            )?,
            missing: IntGauge::new(
                "postern_autocert_names_without_certificate",
                "Names whose certificate has not been issued yet, or has expired.",
            )?,
        };
        registry.register(Box::new(metrics.orders.clone()))?;
        registry.register(Box::new(metrics.taken.clone()))?;
        registry.register(Box::new(metrics.missing.clone()))?;
        registry.register(Box::new(metrics.staples.clone()))?;
        registry.register(Box::new(metrics.unstapled.clone()))?;
        registry.register(Box::new(metrics.optional.clone()))?;
        Ok(Self {
            issued: IssuedCertificates::default(),
            challenges: Challenges::default(),
            metrics,
            deposits: None,
            running: None,
        })
    }

    /// Lets the edge serve what is issued, now and later.
    pub(crate) fn lend(&self, edge: &mut EdgeConfig) {
        edge.certificates.issued = self.issued.clone();
        edge.certificates.challenges = self.challenges.clone();
    }

    /// Takes what the folder of this configuration holds, so that it is served from the start. What was issued before is served
    /// until there is something in its place, whoever is asked from now on.
    pub(crate) fn open(&mut self, settings: Option<&Autocert>) {
        let Some(settings) = settings else {
            if let Some(running) = self.running.take() {
                running.work.retire();
            }
            self.issued.replace(Vec::new());
            self.challenges.look_elsewhere(None);
            self.challenges.expect(&[]);
            for gauge in [&self.metrics.missing, &self.metrics.unstapled, &self.metrics.optional] {
                gauge.set(0);
            }
            return;
        };
        let begun = Work::begin(settings, &self.issued, &self.challenges, self.metrics.clone());
        // The same authorities were read with the configuration.
        let begun = begun.inspect_err(|error| error!(%error, "certificates are ordered as before, or not at all"));
        let Ok(work) = begun else { return };
        if let Some(deposits) = self.deposits.clone() {
            work.meet_in(deposits);
        }
        let before = self.running.take().map(|running| running.work.retire());
        work.take(&settings.names, before.unwrap_or_default());
        self.running =
            Some(Running { settings: settings.clone(), work: Arc::new(work), tasks: BTreeMap::new(), account: None });
    }

    /// Shares with those who share this store from now on, if it is one that others share. Said once, before anything is ordered:
    /// what the folder holds is served before the store is there.
    pub(crate) fn meet_in(&mut self, deposits: Option<Deposits>) {
        self.deposits = deposits;
        if let (Some(deposits), Some(running)) = (self.deposits.clone(), &self.running) {
            running.work.meet_in(deposits);
        }
    }

    /// Serves what other processes have ordered and this one has not, as far as the store tells in a moment.
    pub(crate) async fn take_shared(&self, reader: &CertificateReader) {
        if let Some(running) = &self.running {
            running.work.take_shared(reader).await;
        }
    }

    /// Orders what is missing or due from now on, and tells `reader` of what comes.
    pub(crate) fn start(&mut self, reader: &CertificateReader) {
        let Some(Running { settings, work, tasks, account }) = &mut self.running else { return };
        let wanted: BTreeSet<_> = settings.names.iter().cloned().collect();
        tasks.retain(|name, _| wanted.contains(name));
        account.get_or_insert_with(|| AbortOnDropHandle::new(tokio::spawn(Arc::clone(work).keep_account())));
        for name in wanted {
            tasks.entry(name).or_insert_with_key(|name| {
                let (work, name, reader) = (Arc::clone(work), name.clone(), reader.clone());
                AbortOnDropHandle::new(tokio::spawn(async move {
                    let certificate = Arc::clone(&work).keep(name.clone(), reader.clone());
                    tokio::join!(Box::pin(certificate), Box::pin(work.keep_staple(&name, &reader)));
                }))
            });
        }
    }

    /// Orders nothing any more; what was issued is served on.
    pub(crate) fn rest(&mut self) {
        if let Some(running) = &mut self.running {
            running.tasks.clear();
            running.account = None;
        }
    }

    /// Takes another configuration. Names that both have go on as they are, so that nothing is ordered twice.
    pub(crate) fn reload(&mut self, settings: Option<&Autocert>, reader: &CertificateReader) {
        match (&mut self.running, settings) {
            (Some(running), Some(settings)) if running.settings.orders_as(settings) => {
                running.settings = settings.clone();
                running.work.take(&settings.names, BTreeMap::new());
            }
            (None, None) => return,
            _ => {
                info!(on = settings.is_some(), "ordering certificates begins anew");
                self.open(settings);
            }
        }
        self.start(reader);
        reader.read();
    }
}
