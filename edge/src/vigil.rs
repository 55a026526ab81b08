//! Looks after an exchange that lasts, such as a WebSocket, a tunnel or an answer that goes on: it lasts no longer than what
//! allowed it (S-084, S-099).

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pingora_http::RequestHeader;
use postern_identity::Timestamp;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::admit::{Gate, Verdict};
use crate::bound::{Bound, Ended};
use crate::exchange::Exchange;
use crate::identify::Subject;
use crate::listener::Connection;
use crate::proxy::{Proxy, caught};
use crate::request::Upgrade;
use crate::snapshot::Snapshot;
use crate::{Admission, Failure, Refusal};

/// How often such an exchange is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vigilance {
    /// Whether its session is still good, and the configuration the same: a sign-out takes effect within this and a little.
    pub look: Duration,
    /// Without a new decision of the gate. One is asked for two looks earlier, and at once if something has changed.
    pub admit: Duration,
}

impl Default for Vigilance {
    fn default() -> Self {
        Self { look: Duration::from_secs(5), admit: Duration::from_secs(60) }
    }
}

/// What it rests on.
#[derive(Debug)]
pub(crate) struct Vigil {
    gate: Arc<Gate>,
    /// Says that the drain is over.
    end: watch::Receiver<bool>,
    head: RequestHeader,
    connection: Arc<Connection>,
    route: String,
    subject: Subject,
    upgrade: Option<Upgrade>,
    version: u64,
    vigilance: Vigilance,
}

impl Vigil {
    /// For an exchange that was just admitted.
    pub(crate) fn over(exchange: &Exchange, head: &RequestHeader, proxy: &Proxy) -> Option<Self> {
        Some(Self {
            gate: Arc::clone(&proxy.gate),
            end: proxy.end.clone(),
            head: head.clone(),
            connection: exchange.connection.clone()?,
            route: exchange.route()?.id.clone(),
            subject: exchange.admission.as_ref()?.subject.clone(),
            upgrade: exchange.upgrade().cloned(),
            version: exchange.snapshot.version,
            vigilance: proxy.vigilance,
        })
    }

    /// Until the exchange is to end; then ends it.
    pub(crate) async fn keep(mut self, bound: Arc<Bound>) {
        let mut end = self.end.clone();
        let watching = pin!(self.watch(&bound));
        let ended = tokio::select! {
            refusal = caught(watching) => Ended::Refused(refusal.unwrap_or(Refusal::Failed(Failure::Internal))),
            // What this gives is a lock: it is not kept.
            () = async { drop(end.wait_for(|end| *end).await) } => Ended::Drained,
        };
        bound.end(ended);
    }

    /// Begins with a look.
    async fn watch(&mut self, bound: &Bound) -> Refusal {
        let Vigilance { look, admit } = self.vigilance;
        let mut admitted = Instant::now();
        loop {
            let (now, snapshot) = (SystemTime::now().into(), self.gate.snapshot());
            let live = self.subject.known().is_none_or(|known| self.gate.is_live(known, now));
            if live {
                self.touch(bound, now);
            }
            if !live || snapshot.version != self.version || admitted.elapsed() + look * 2 >= admit {
                match self.admit(&snapshot, now, live).await {
                    Ok(()) => admitted = Instant::now(),
                    // The store may be back at the next look, if there is time for one; but what was allowed under another
                    // configuration says nothing about this one.
                    Err(Refusal::StoreUnavailable { .. })
                        if live && snapshot.version == self.version && admitted.elapsed() + look < admit => {}
                    Err(refusal) => return refusal,
                }
            }
            sleep(look).await;
        }
    }

    /// Bytes that flow are use.
    fn touch(&self, bound: &Bound, now: Timestamp) {
        if bound.take_activity()
            && let Some(known) = self.subject.known()
        {
            self.gate.touch(known, now);
        }
    }

    /// Asks the gate as if the request came now. It must be allowed, lead where it leads, and be asked by the same session: what
    /// the upstream was told of a session that is over is no longer true, even where anybody may pass.
    async fn admit(&mut self, snapshot: &Snapshot, now: Timestamp, live: bool) -> Result<(), Refusal> {
        let Admission { verdict, route, subject, unknown, .. } =
            self.gate.judge(snapshot, &self.head, &self.connection, now.into()).await;
        match verdict {
            Verdict::Pass(permit) if permit.upgrade() == self.upgrade.as_ref() => {}
            Verdict::Pass(_) | Verdict::Reply(_) => return Err(Refusal::Upgrade),
            Verdict::Refuse(refusal) => return Err(refusal),
        }
        let handle = |subject: &Subject| subject.session().map(|session| session.handle);
        let (before, after) = (handle(&self.subject), handle(&subject));
        if before.is_some() && before != after {
            // Where anybody may pass, the gate refuses nobody whom the store could not be asked for.
            return Err(if unknown && live {
                Refusal::StoreUnavailable { retry_after: RETRY }
            } else {
                Refusal::SessionEnded
            });
        }
        if route.is_none_or(|route| route.id != self.route) {
            return Err(Refusal::NoRoute);
        }
        (self.subject, self.version) = (subject, snapshot.version);
        Ok(())
    }
}

/// When to ask again whether a session is good.
const RETRY: Duration = Duration::from_secs(2);
