//! What the tasks of all names share, and the task of one name.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, SystemTime};

use postern_edge::{CertificateReader, Challenges, ChallengesElsewhere, IssuedCertificates};
use postern_identity::Timestamp;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tracing::{info, warn};

use super::Metrics;
use super::account::Accounts;
use super::folder::{Folder, Held};
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
    async fn found(&self, name: &str) -> Option<Kept> {
        let (folder, of) = (self.answers.folder.as_ref()?, name.to_owned());
        told(name, folder.aside(move |folder| folder.certificate(&of)).await)
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
        let mut failures = 0;
        loop {
            while let Some(left) = self.due(&name).map(|due| due.since(now())).filter(|left| !left.is_zero()) {
                tokio::time::sleep(left.min(LOOK)).await;
            }
            match self.obtain(&name).await {
                Ok(Some(kept)) => {
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
                Ok(None) => tokio::time::sleep(ELSEWHERE).await,
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
                    tokio::time::sleep(pause).await;
                    failures += 1;
                }
            }
        }
    }

    /// A certificate that is not due: of the folder, if another process has put it there; else one that is ordered now.
    /// `None`: another process orders it.
    async fn obtain(&self, name: &str) -> Result<Option<Kept>, OrderError> {
        let Ok(_place) = self.places.acquire().await else { return Ok(None) };
        let (folder, of) = (self.answers.folder.as_ref(), name.to_owned());
        let turn = match folder {
            Some(folder) => folder.aside(move |folder| folder.turn(&of)).await.map(Some),
            None => Ok(None),
        };
        let turn = match turn {
            Ok(Some(None)) => return Ok(None),
            Ok(turn) => turn.flatten(),
            Err(error) => {
                warn!(%error, name, "the folder of certificates cannot be locked: other processes may order the same");
                None
            }
        };
        let fresh = |kept: &Kept| now() < kept.due;
        if let Some(found) = self.found(name).await.filter(fresh) {
            return Ok(Some(found));
        }
        let account = self.accounts.account(&self.settings, folder, &self.http).await?;
        let looks = [Some(Look::TlsAlpn), self.settings.answers_http.then_some(Look::Http)];
        let mut outcome = Err(OrderError::NotOffered("any challenge"));
        for look in looks.into_iter().flatten() {
            outcome = order::order(&account, name, &self.answers, look).await;
            // Another way to look may find what this one did not; anything else would fail as well.
            if !matches!(outcome, Err(OrderError::Unseen { .. } | OrderError::NotOffered(_))) {
                break;
            }
            if let Err(error) = &outcome {
                info!(name, error = crate::chain(error), "the authority looked in vain");
            }
        }
        let held = outcome?;
        self.metrics.orders.with_label_values(&["ok"]).inc();
        let issued = held.issued.clone();
        if let Some(folder) = folder
            && let Err(error) = folder.aside(move |folder| folder.keep(&issued)).await
        {
            warn!(%error, name, "the certificate cannot be kept: the next start orders it anew");
        }
        drop(turn);
        Ok(Some(kept(held)))
    }
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
