//! Identity tokens for serverless upstreams of Google's (01 §2.1): fetched ahead of the requests that show them, and replaced
//! long before they expire.

mod account;
mod source;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use postern_edge::EdgeConfig;
use postern_edge::route::IdentityToken;
use postern_identity::{Timestamp, random};
use prometheus::{IntCounterVec, Opts, Registry};
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

pub use account::Account;
use source::{Source, SourceError};

/// Who speaks for us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Google {
    /// The host, and maybe the port, of the metadata server.
    pub metadata: String,
    /// The account of the configuration; without one the machine's own.
    pub account: Option<Account>,
}

/// A token is replaced at this age, or halfway to its end if that is earlier.
const AGE: Duration = Duration::from_secs(45 * 60);
/// The first pause after a failure; it doubles up to [`LONGEST_PAUSE`].
const PAUSE: Duration = Duration::from_secs(1);
/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The clock is looked at so often: it may be set, and machines sleep.
const LOOK: Duration = Duration::from_secs(60);

/// Keeps the tokens of all routes of a configuration fresh, until it is dropped.
#[derive(Debug)]
pub struct Keepers {
    asked: IntCounterVec,
    of: Option<Google>,
    kept: Vec<Kept>,
}

#[derive(Debug)]
struct Kept {
    tokens: Arc<[Arc<IdentityToken>]>,
    _task: AbortOnDropHandle<()>,
}

impl Keepers {
    /// Nothing is kept yet.
    ///
    /// # Errors
    /// The metric's name is taken.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let opts = Opts::new("postern_identity_tokens_total", "Attempts to get a token for serverless upstreams.");
        let asked = IntCounterVec::new(opts, &["outcome"])?;
        registry.register(Box::new(asked.clone()))?;
        Ok(Self { asked, of: None, kept: Vec::new() })
    }

    /// Keeps those of this configuration from now on. What the one before held goes on to hold, if the account is the same.
    ///
    /// # Errors
    /// No client for HTTPS can be made of the authorities that are trusted.
    pub fn keep(&mut self, google: &Google, edge: &EdgeConfig) -> Result<(), crate::https::HttpsError> {
        let mut wanted = BTreeMap::<&str, Vec<Arc<IdentityToken>>>::new();
        for token in edge.routes.iter().filter_map(|route| route.credentials.as_ref()?.serverless.as_ref()) {
            wanted.entry(token.audience()).or_default().push(Arc::clone(token));
        }
        if wanted.is_empty() {
            self.kept.clear();
            return Ok(());
        }
        let source = Arc::new(Source::new(google, edge.proxy.extra_roots.as_deref())?);
        let same = self.of.as_ref() == Some(google);
        let before = |audience: &str| {
            let held = self.kept.iter().filter_map(|kept| kept.tokens.first());
            held.filter(|_| same).find(|token| token.audience() == audience)
        };
        let begin = |(audience, tokens): (&str, Vec<Arc<IdentityToken>>)| {
            if let Some(before) = before(audience) {
                tokens.iter().for_each(|token| token.adopt(before));
            }
            let tokens: Arc<[_]> = tokens.into();
            let keeping = keep(Arc::clone(&source), Arc::clone(&tokens), self.asked.clone());
            Kept { tokens, _task: AbortOnDropHandle::new(tokio::spawn(keeping)) }
        };
        self.kept = wanted.into_iter().map(begin).collect();
        self.of = Some(google.clone());
        Ok(())
    }
}

/// Keeps the tokens of one audience.
async fn keep(source: Arc<Source>, tokens: Arc<[Arc<IdentityToken>]>, asked: IntCounterVec) {
    let Some(first) = tokens.first().map(Arc::clone) else { return };
    let mut failures = 0;
    loop {
        while let Some(due) = first.refresh_at().filter(|_| failures == 0) {
            let left = due.since(now());
            if left.is_zero() {
                break;
            }
            tokio::time::sleep(left.min(LOOK)).await;
        }
        match fetch(&source, &tokens).await {
            Ok(()) => {
                asked.with_label_values(&["ok"]).inc();
                if failures > 0 {
                    info!(audience = first.audience(), "there is a token for this upstream again");
                }
                failures = 0;
            }
            Err(error) => {
                asked.with_label_values(&["error"]).inc();
                tokens.iter().for_each(|token| token.fail());
                // A source that stays away is told of once.
                if failures == 0 {
                    warn!(
                        audience = first.audience(),
                        error = crate::chain(&error),
                        "no token for this upstream: requests go up with the last one until it expires, then without"
                    );
                }
                tokio::time::sleep(pause(failures)).await;
                failures += 1;
            }
        }
    }
}

async fn fetch(source: &Source, tokens: &[Arc<IdentityToken>]) -> Result<(), SourceError> {
    let Some(audience) = tokens.first().map(|token| token.audience()) else { return Ok(()) };
    let begun = now();
    let (token, expires_at) = source.token(audience, begun).await?;
    let refresh_at = begun.plus(AGE.min(expires_at.since(begun) / 2).max(PAUSE));
    let fits = tokens.iter().all(|one| one.put(&token, expires_at, refresh_at));
    if fits { Ok(()) } else { Err(SourceError::NoToken) }
}

/// Twice as long after each failure, and a little longer at random: those that failed together do not come back together.
fn pause(failures: u32) -> Duration {
    let pause = PAUSE.saturating_mul(1 << failures.min(10)).min(LONGEST_PAUSE);
    let random = random::<1>().map_or(0, |[byte]| byte);
    pause + pause.mul_f64(f64::from(random) / 1024.0)
}

fn now() -> Timestamp {
    SystemTime::now().into()
}
