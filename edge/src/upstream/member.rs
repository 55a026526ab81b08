//! One address of an upstream, as requests and checks find it. What is known of it outlives changes of names and of the
//! configuration, for as long as it is there.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

use super::outlier::Conduct;
use crate::route::UpstreamScheme;

/// One address of an upstream.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    /// Which entry of `to` it comes from.
    pub(super) endpoint: usize,
    /// What that entry says.
    pub(super) origin: Origin,
    pub(super) place: Where,
    pub(super) weight: u32,
    pub(super) state: Arc<State>,
}

/// What is spoken, and to whom: two that differ in it are two endpoints also at one address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Origin {
    pub(super) scheme: UpstreamScheme,
    pub(super) host: Arc<str>,
}

/// Where it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Where {
    /// At an address of a network.
    Address(SocketAddr),
    /// At this socket of the file system.
    Socket(Box<str>),
}

impl std::fmt::Display for Where {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Socket(path) => f.write_str(path),
        }
    }
}

/// How it is doing.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// Requests under way.
    active: Arc<AtomicU32>,
    /// What `outlier_detection` sees of its answers.
    pub(super) conduct: Arc<Conduct>,
    /// What `health_checks` find out.
    pub(super) health: Arc<Health>,
}

/// What health checks find out.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// A bit for each check that fails.
    failing: AtomicU32,
    /// What each check knows.
    vitals: Mutex<Vec<Vitals>>,
}

/// What one health check has found out so far.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Vitals {
    /// In a row.
    pub(super) passed: u32,
    pub(super) failed: u32,
    /// When it was asked last.
    pub(super) last: Option<Instant>,
}

/// Which rules a configuration has in common with the one before it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Same {
    pub(super) health_checks: bool,
    pub(super) outliers: bool,
}

impl State {
    /// Whether nothing speaks against it.
    pub(super) fn is_usable(&self) -> bool {
        !self.is_unhealthy() && !self.is_ejected()
    }

    /// Whether it is left out because of its answers.
    pub(super) fn is_ejected(&self) -> bool {
        self.conduct.is_ejected()
    }

    /// Whether a health check fails.
    pub(super) fn is_unhealthy(&self) -> bool {
        self.health.fails(!0)
    }

    /// The same under another configuration. What rules have found out that it does not have stays with them: who still goes by
    /// those marks nobody here, where nobody would take it back.
    pub(super) fn under(&self, same: Same) -> Self {
        Self {
            active: Arc::clone(&self.active),
            conduct: if same.outliers { Arc::clone(&self.conduct) } else { Arc::default() },
            health: if same.health_checks { Arc::clone(&self.health) } else { Arc::default() },
        }
    }

    pub(super) fn active(&self) -> u32 {
        self.active.load(Ordering::Relaxed)
    }
}

impl Health {
    /// Whether one of these checks fails.
    pub(super) fn fails(&self, checks: u32) -> bool {
        self.failing.load(Ordering::Relaxed) & checks != 0
    }

    /// These checks fail, or do so no more.
    pub(super) fn set(&self, checks: u32, fail: bool) {
        if fail {
            self.failing.fetch_or(checks, Ordering::AcqRel);
        } else {
            self.failing.fetch_and(!checks, Ordering::AcqRel);
        }
    }

    /// What the check of that number knows.
    pub(super) fn vitals<T>(&self, index: usize, look: impl FnOnce(&mut Vitals) -> T) -> T {
        let mut all = self.vitals.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() <= index {
            all.resize(index + 1, Vitals::default());
        }
        match all.get_mut(index) {
            Some(vitals) => look(vitals),
            None => look(&mut Vitals::default()),
        }
    }
}

/// A request that is under way at a member.
#[derive(Debug)]
pub(crate) struct Busy(Arc<State>);

impl Busy {
    pub(super) fn at(state: &Arc<State>) -> Self {
        state.active.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(state))
    }

    pub(super) const fn state(&self) -> &Arc<State> {
        &self.0
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}
