//! What a request holds of its upstream while it is under way, and what the upstream's health learns from it.

use std::net::IpAddr;
use std::sync::Arc;

use super::balance::Balancer;
use super::load::{Again, Load, Overflow, Share, Uses};
use super::member::{Busy, State};
use super::outlier::{Cause, Outcome};

/// The way of one request; empty until it has one.
#[derive(Debug, Default)]
pub(crate) struct Way {
    share: Option<Share>,
    at: Option<(Arc<Balancer>, Busy)>,
    /// The address that was tried, where one name has several and nothing else is known of them.
    tried: Option<IpAddr>,
    again: Option<Again>,
}

impl Way {
    /// Takes a share of the upstream's load; the one that an attempt before has taken serves.
    pub(super) async fn enter(&mut self, load: impl FnOnce() -> Arc<Load>, uses: Uses) -> Result<(), Overflow> {
        if self.share.is_none() {
            self.share = Some(load().enter(uses).await?);
        }
        Ok(())
    }

    /// It goes to this member, and no more to the one before.
    pub(super) fn begin(&mut self, balancer: &Arc<Balancer>, busy: Busy) {
        self.at = Some((Arc::clone(balancer), busy));
    }

    /// It goes to this address, and no more to the one before.
    pub(super) const fn begin_at(&mut self, address: IpAddr) {
        self.tried = Some(address);
    }

    /// The address that it went to before.
    pub(super) const fn tried(&self) -> Option<IpAddr> {
        self.tried
    }

    /// Where it went is as good as anywhere: the next attempt may go there again.
    pub(crate) fn forget_place(&mut self) {
        (self.at, self.tried) = (None, None);
    }

    /// The member that it goes to, where one was chosen.
    pub(super) fn state(&self) -> Option<&Arc<State>> {
        self.at.as_ref().map(|(_, busy)| busy.state())
    }

    /// The connection is all for this request.
    ///
    /// # Errors
    /// There are too many of those.
    pub(crate) fn take_connection(&mut self) -> Result<(), Overflow> {
        self.share.as_mut().map_or(Ok(()), Share::take_connection)
    }

    /// Whether the request may be sent once more. Authn has no bounds of this kind.
    pub(crate) fn may_go_again(&mut self) -> bool {
        let Some(share) = &self.share else { return true };
        self.again = share.again();
        self.again.is_some()
    }

    /// Something came of it; gives the name of the route whose endpoint is left out for it, and why.
    pub(crate) fn note(&self, outcome: Outcome) -> Option<(&str, Cause)> {
        let (balancer, busy) = self.at.as_ref()?;
        Some((&balancer.route, balancer.note(busy.state(), outcome)?))
    }

    /// It is over: all is given back.
    pub(crate) fn end(&mut self) {
        *self = Self::default();
    }
}
