//! One address of an upstream, as requests and checks find it. What is known of it outlives changes of names and of the
//! configuration, for as long as it is there.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

use super::outlier::Conduct;

/// One address of an upstream.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    /// Which entry of `to` it comes from.
    pub(super) endpoint: usize,
    pub(super) place: Where,
    pub(super) weight: u32,
    pub(super) state: Arc<State>,
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
    /// Why it is not to be used: a bit for each health check that fails, and [`EJECTED`].
    against: AtomicU32,
    /// Requests under way.
    active: AtomicU32,
    /// What is seen of its answers.
    pub(super) conduct: Conduct,
    /// What each health check has found out.
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

/// It is left out because of its answers.
pub(super) const EJECTED: u32 = 1 << 31;

impl State {
    /// Whether nothing speaks against it.
    pub(super) fn is_usable(&self) -> bool {
        self.against.load(Ordering::Relaxed) == 0
    }

    /// Whether it is left out because of its answers.
    pub(super) fn is_ejected(&self) -> bool {
        self.is_against(EJECTED)
    }

    /// Whether that speaks against it.
    pub(super) fn is_against(&self, reason: u32) -> bool {
        self.against.load(Ordering::Relaxed) & reason != 0
    }

    /// Whether a health check fails.
    pub(super) fn is_unhealthy(&self) -> bool {
        self.is_against(!EJECTED)
    }

    /// Something speaks against it, or does so no more; gives whether that is new.
    pub(super) fn set(&self, reason: u32, holds: bool) -> bool {
        let before = if holds {
            self.against.fetch_or(reason, Ordering::AcqRel)
        } else {
            self.against.fetch_and(!reason, Ordering::AcqRel)
        };
        (before & reason != 0) != holds
    }

    /// Other checks than before: what the old ones found out is forgotten.
    pub(super) fn forget_checks(&self) {
        self.against.fetch_and(EJECTED, Ordering::AcqRel);
        self.vitals.lock().unwrap_or_else(PoisonError::into_inner).clear();
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

    pub(super) fn active(&self) -> u32 {
        self.active.load(Ordering::Relaxed)
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
