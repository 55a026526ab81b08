//! What the tasks of all names share, and the task of one name.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant, SystemTime};

use instant_acme::Account;
use postern_edge::{CertificateReader, Challenges, ChallengesElsewhere, IssuedCertificates};
use postern_identity::Timestamp;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tracing::{info, warn};

use super::Metrics;
use super::account::Accounts;
use super::folder::{Failed, Folder, Held};
use super::http::Http;
use super::order::{self, Answers, Look, OrderError};
use super::pace;
use crate::config::Autocert;
use crate::https::HttpsError;

/// Orders under way at once.
const PLACES: usize = 4;
/// The clock is looked at so often: it may be set, and machines sleep.
const LOOK: Duration = Duration::from_secs(10 * 60);
/// Where another process orders for a name, what comes of it is looked for so often.
const ELSEWHERE: Duration = Duration::from_secs(5);
/// A folder that hangs is asked again so often.
const HANGS: Duration = Duration::from_secs(15);

/// Orders and what comes of them.
#[derive(Debug)]
pub(super) struct Work {
    settings: Autocert,
    answers: Answers,
    http: Http,
    accounts: Accounts,
    places: Semaphore,
    held: Mutex<BTreeMap<String, Kept>>,
    /// How many names are to have one.
    wanted: AtomicUsize,
    /// Another one has taken over: nothing is published any more.
    over: AtomicBool,
    issued: IssuedCertificates,
    metrics: Metrics,
}

/// A certificate and when it is to be renewed.
#[derive(Debug, Clone)]
struct Kept {
    held: Held,
    due: Timestamp,
}

impl Work {
    /// Opens the folder. Nothing is served of it before [`Self::take`].
    pub(super) fn begin(
        settings: &Autocert,
        issued: &IssuedCertificates,
        challenges: &Challenges,
        metrics: Metrics,
    ) -> Result<Self, HttpsError> {
        let http = Http::new(settings.trusted_ca.as_deref())?;
        let folder = Folder::at(&settings.folder, &settings.directory);
        let made = at_once(folder.aside(Folder::make)).inspect_err(|error| {
            let folder = settings.folder.display();
            warn!(%error, %folder, "certificates cannot be kept: each start orders them anew; let `autocert_dir` be a folder that Postern may write");
        });
        // One that hangs may come back.
        let is_lost = made.is_err_and(|error| error.kind() != ErrorKind::TimedOut);
        let folder = (!is_lost).then_some(folder);
        if let Some(Err(error)) = folder.as_ref().map(|folder| at_once(folder.aside(Folder::clear))) {
            info!(%error, "what crashes may have left in the folder of certificates stays there");
        }
        challenges.look_elsewhere(folder.clone().map(|folder| Arc::new(folder) as Arc<dyn ChallengesElsewhere>));
        Ok(Self {
            http,
            answers: Answers { here: challenges.clone(), folder },
            settings: settings.clone(),
            accounts: Accounts::default(),
            places: Semaphore::new(PLACES),
            held: Mutex::default(),
            wanted: AtomicUsize::new(0),
            over: AtomicBool::new(false),
            issued: issued.clone(),
            metrics,
        })
    }

    /// Holds the certificates of these names and no other, as far as the folder has them; else those of `before`, which are
    /// good and due at once.
    pub(super) fn take(&self, names: &[String], before: BTreeMap<String, Held>) {
        let wanted: BTreeSet<_> = names.iter().collect();
        self.answers.here.expect(names);
        let missing = self.with(|held| {
            held.retain(|name, _| wanted.contains(name));
            names.iter().filter(|name| !held.contains_key(*name)).cloned().collect()
        });
        let (found, now) = (self.found_at_once(missing), now());
        self.with(|held| {
            for (name, kept) in found {
                held.entry(name).or_insert(kept);
            }
            for (name, one) in before.into_iter().filter(|(name, one)| wanted.contains(name) && now < one.until) {
                if held.get(&name).is_none_or(|kept| kept.held.until <= now) {
                    held.insert(name, Kept { held: one, due: now });
                }
            }
        });
        self.wanted.store(names.len(), Ordering::Relaxed);
        self.publish();
    }

    /// Publishes nothing from now on, and gives what was held.
    pub(super) fn retire(&self) -> BTreeMap<String, Held> {
        self.with(|held| {
            self.over.store(true, Ordering::Relaxed);
            std::mem::take(held).into_iter().map(|(name, kept)| (name, kept.held)).collect()
        })
    }

    /// What the folder holds for a name.
    async fn found(&self, name: &str) -> Result<Option<Kept>, OrderError> {
        let Some(folder) = &self.answers.folder else { return Ok(None) };
        let of = name.to_owned();
        match folder.aside(move |folder| folder.certificate(&of)).await {
            Err(error) if error.kind() == ErrorKind::TimedOut => Err(OrderError::Folder(error)),
            found => Ok(told(name, found)),
        }
    }

    /// The orders for a name that have failed, of whatever process.
    async fn failed(&self, name: &str) -> Option<Failed> {
        let (folder, of) = (self.answers.folder.as_ref()?, name.to_owned());
        folder.aside(move |folder| folder.failed(&of)).await.ok().flatten()
    }

    async fn note(&self, name: &str, failed: Option<Failed>) {
        let Some(folder) = &self.answers.folder else { return };
        let of = name.to_owned();
        if let Err(error) = folder.aside(move |folder| folder.note(&of, failed)).await {
            warn!(%error, name, "how orders went cannot be kept: the next start may order at once");
        }
    }

    /// What the folder holds for these names, as far as it says so in time. The others are looked for again, each by its task.
    fn found_at_once(&self, names: Vec<String>) -> Vec<(String, Kept)> {
        let Some(folder) = self.answers.folder.as_ref().filter(|_| !names.is_empty()) else { return Vec::new() };
        let (tell, all) = mpsc::channel();
        let look = folder.aside(move |folder| {
            for name in names {
                let found = folder.certificate(&name);
                if tell.send((name, found)).is_err() {
                    break;
                }
            }
            Ok(())
        });
        if let Err(error) = at_once(look) {
            warn!(%error, "not all kept certificates are served yet");
        }
        all.try_iter().filter_map(|(name, found)| told(&name, found).map(|kept| (name, kept))).collect()
    }

    /// Has the edge serve what is held.
    fn publish(&self) {
        let (now, wanted) = (now(), self.wanted.load(Ordering::Relaxed));
        self.with(|held| {
            if self.over.load(Ordering::Relaxed) {
                return;
            }
            let good = held.values().filter(|kept| now < kept.held.until).count();
            self.metrics.missing.set(i64::try_from(wanted.saturating_sub(good)).unwrap_or(i64::MAX));
            self.issued.replace(held.values().map(|kept| kept.held.issued.clone()).collect());
        });
    }

    fn with<T>(&self, act: impl FnOnce(&mut BTreeMap<String, Kept>) -> T) -> T {
        act(&mut self.held.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn due(&self, name: &str) -> Option<Timestamp> {
        self.with(|held| held.get(name).map(|kept| kept.due))
    }

    /// Keeps the certificate of one name fresh, for ever.
    pub(super) async fn keep(self: Arc<Self>, name: String, reader: CertificateReader) {
        let (mut failures, mut has_begun) = (0, false);
        loop {
            while let Some(left) = self.due(&name).map(|due| due.since(now())).filter(|left| !left.is_zero()) {
                tokio::time::sleep(left.min(LOOK)).await;
            }
            match self.obtain(&name, has_begun).await {
                Ok(Obtained::Certificate(kept)) => {
                    info!(name, until = %kept.held.until, renewed_from = %kept.due, "there is a certificate");
                    self.with(|held| held.insert(name.clone(), kept));
                    self.publish();
                    let reader = reader.clone();
                    // Reading certificates blocks; a panic there is told of by the reader's own task.
                    let _read = tokio::task::spawn_blocking(move || reader.read()).await;
                    if self.due(&name).is_some_and(|due| due > now()) {
                        failures = 0;
                    } else {
                        // To order the next one at once would only use up what the authority allows.
                        let again_in = pace::pause(failures);
                        warn!(
                            name,
                            again_in = again_in.as_secs(),
                            "what was issued is due already: is the clock right?"
                        );
                        tokio::time::sleep(again_in).await;
                        failures += 1;
                    }
                }
                Ok(Obtained::Elsewhere) => tokio::time::sleep(ELSEWHERE).await,
                Ok(Obtained::Later(rest)) => {
                    info!(name, again_in = rest.as_secs(), "nothing is ordered yet: the last order has just failed");
                    self.rest(&name, rest).await;
                }
                Err(error @ OrderError::Folder(_)) => {
                    warn!(name, error = crate::chain(&error), hint = error.hint(), "nothing is ordered yet");
                    tokio::time::sleep(HANGS).await;
                }
                Err(error) => {
                    let pause = pace::pause(failures);
                    self.metrics.orders.with_label_values(&["error"]).inc();
                    warn!(
                        name,
                        error = crate::chain(&error),
                        hint = error.hint(),
                        again_in = pause.as_secs(),
                        "no certificate was issued; what was served before is served on"
                    );
                    self.publish();
                    failures += 1;
                    self.rest(&name, pause).await;
                }
            }
            has_begun = true;
        }
    }

    /// Waits that long, or until another process has put a certificate into the folder.
    async fn rest(&self, name: &str, pause: Duration) {
        let end = Instant::now() + pause;
        while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            tokio::time::sleep(left.min(LOOK)).await;
            if let Ok(Some(_)) = self.fresh(name).await {
                return;
            }
        }
    }

    /// What the folder holds for a name and is not due.
    async fn fresh(&self, name: &str) -> Result<Option<Kept>, OrderError> {
        Ok(self.found(name).await?.filter(|kept| now() < kept.due))
    }

    /// A certificate that is not due: of the folder, if another process has put it there; else one that is ordered now. Whatever
    /// comes of an order is noted before another process may order.
    async fn obtain(&self, name: &str, has_begun: bool) -> Result<Obtained, OrderError> {
        let Ok(_place) = self.places.acquire().await else { return Ok(Obtained::Elsewhere) };
        let (folder, of) = (self.answers.folder.as_ref(), name.to_owned());
        let turn = match folder {
            Some(folder) => folder.aside(move |folder| folder.turn(&of)).await.map(Some),
            None => Ok(None),
        };
        let turn = match turn {
            Ok(Some(None)) => return Ok(Obtained::Elsewhere),
            Ok(turn) => turn.flatten(),
            Err(error) if error.kind() == ErrorKind::TimedOut => return Err(OrderError::Folder(error)),
            Err(error) => {
                warn!(%error, name, "the folder of certificates cannot be locked: other processes may order the same");
                None
            }
        };
        if let Some(found) = self.fresh(name).await? {
            return Ok(Obtained::Certificate(found));
        }
        let failed = self.failed(name).await;
        let rest = failed.map(|failed| failed.rest(has_begun, now())).filter(|rest| !rest.is_zero());
        if let Some(rest) = rest {
            return Ok(Obtained::Later(rest));
        }
        let ordered = self.order(name).await;
        match &ordered {
            Ok(held) => {
                self.metrics.orders.with_label_values(&["ok"]).inc();
                self.note(name, None).await;
                let issued = held.issued.clone();
                if let Some(folder) = folder
                    && let Err(error) = folder.aside(move |folder| folder.keep(&issued)).await
                {
                    warn!(%error, name, "the certificate cannot be kept: the next start orders it anew");
                }
            }
            // Nothing was ordered.
            Err(OrderError::Account(_) | OrderError::Folder(_)) => {}
            Err(_) => {
                let in_a_row = failed.map_or(0, |failed| failed.in_a_row).saturating_add(1);
                self.note(name, Some(Failed { at: now().as_secs(), in_a_row })).await;
            }
        }
        drop(turn);
        ordered.map(kept).map(Obtained::Certificate)
    }

    /// Orders; once more, if the authority does not know the account that was kept.
    async fn order(&self, name: &str) -> Result<Held, OrderError> {
        let folder = self.answers.folder.as_ref();
        let account = self.accounts.account(&self.settings, folder, &self.http).await?;
        match self.order_as(&account, name).await {
            Err(error) if error.is_of_the_account() => {
                warn!(
                    name,
                    account = account.id(),
                    "the authority does not know the account any more: another one is made"
                );
                self.accounts.forget(&account, folder).await;
                self.order_as(&self.accounts.account(&self.settings, folder, &self.http).await?, name).await
            }
            outcome => outcome,
        }
    }

    async fn order_as(&self, account: &Account, name: &str) -> Result<Held, OrderError> {
        let looks = [Some(Look::TlsAlpn), self.settings.answers_http.then_some(Look::Http)];
        let mut outcome = Err(OrderError::NotOffered("any challenge"));
        for look in looks.into_iter().flatten() {
            outcome = order::order(account, name, &self.answers, look).await;
            // Another way to look may find what this one did not; anything else would fail as well.
            if !matches!(outcome, Err(OrderError::Unseen { .. } | OrderError::NotOffered(_))) {
                break;
            }
            if let Err(error) = &outcome {
                info!(name, error = crate::chain(error), "the authority looked in vain");
            }
        }
        outcome
    }
}

/// What came of the wish for a certificate.
enum Obtained {
    Certificate(Kept),
    /// Another process orders it.
    Elsewhere,
    /// An order has failed so lately that the next one waits so long.
    Later(Duration),
}

/// Waits here for something that is bounded in time: the other tasks of this thread go on elsewhere.
fn at_once<T>(bounded: impl Future<Output = T>) -> T {
    tokio::task::block_in_place(|| Handle::current().block_on(bounded))
}

/// What was found for a name, or a line on why there is none.
fn told(name: &str, found: io::Result<Option<Held>>) -> Option<Kept> {
    let found = found.inspect_err(|error| warn!(%error, name, "a kept certificate is not served: it is ordered anew"));
    found.ok().flatten().map(kept)
}

fn kept(held: Held) -> Kept {
    Kept { due: pace::renewal(held.from, held.until), held }
}

fn now() -> Timestamp {
    SystemTime::now().into()
}
