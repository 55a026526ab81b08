//! What the tasks of all names share, and the task of one name.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};
use std::time::{Duration, Instant, SystemTime};

use instant_acme::Account;
use postern_edge::{CertificateReader, Challenges, ChallengesElsewhere, IssuedCertificates, Staple};
use postern_identity::Timestamp;
use postern_storage::{Deposits, StorageError, Version};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tracing::{debug, info, warn};

use super::account::{self, Accounts};
use super::folder::{self, Failed, Folder, Held};
use super::http::Http;
use super::order::{self, Answers, Look, OrderError, Terms, There};
use super::staple::Responders;
use super::store::{self, Found, Store};
use super::{Metrics, pace};
use crate::config::Autocert;
use crate::https::HttpsError;

/// Orders under way at once.
const PLACES: usize = 4;
/// The clock is looked at so often: it may be set, and machines sleep.
pub(super) const LOOK: Duration = Duration::from_secs(10 * 60);
/// Where another process orders for a name, what comes of it is looked for so often.
pub(super) const ELSEWHERE: Duration = Duration::from_secs(5);
/// What other processes have left in the store is looked for so often.
const NEWS: Duration = Duration::from_secs(15);
/// A start waits so long for what others have left in the store.
const FIRST_LOOK: Duration = Duration::from_secs(2);
/// Looks into the store at once: there may be many names.
const LOOKS: usize = 4;
/// A folder that hangs, or a store that is away, is asked again so often.
const HANGS: Duration = Duration::from_secs(15);

/// Orders and what comes of them.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) settings: Autocert,
    challenges: Challenges,
    pub(super) folder: Option<Folder>,
    /// Where processes share one; the folder has copies then.
    pub(super) store: OnceLock<Store>,
    looks: Semaphore,
    http: Http,
    pub(super) responders: Responders,
    accounts: Accounts,
    places: Semaphore,
    /// What is held for some name is another one, or due at another time.
    pub(super) news: watch::Sender<()>,
    held: Mutex<BTreeMap<String, Kept>>,
    /// How many names are to have one.
    wanted: AtomicUsize,
    /// Another one has taken over: nothing is published any more.
    over: AtomicBool,
    issued: IssuedCertificates,
    pub(super) metrics: Metrics,
}

/// Whose turn it is, as others know it.
enum Turn {
    Alone,
    Folder { _turn: folder::Turn },
    Store(store::Turn),
}

/// A certificate and when it is to be renewed.
#[derive(Debug, Clone)]
struct Kept {
    held: Held,
    due: Timestamp,
    /// Of a configuration before, perhaps of another authority: nobody is to take it for one of this.
    former: bool,
    /// Its authority has revoked it, as was known then.
    revoked: Option<Timestamp>,
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
            warn!(%error, %folder, "certificates cannot be kept: without a store that edges share each start orders them anew; let `autocert_dir` be a folder that Postern may write");
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
            responders: Responders::new(settings.trusted_ca.as_deref())?,
            news: watch::Sender::new(()),
            challenges: challenges.clone(),
            folder,
            store: OnceLock::new(),
            looks: Semaphore::new(LOOKS),
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

    /// Shares everything with those who share this store, from now on and once for all.
    pub(super) fn meet_in(&self, deposits: Deposits) {
        let store = Store::new(deposits, self.settings.directory.as_str());
        self.challenges.look_elsewhere(Some(Arc::new(store.clone()) as Arc<dyn ChallengesElsewhere>));
        // Nobody says it twice.
        let _first = self.store.set(store);
    }

    /// Holds the certificates of these names and no other, as far as the folder has them; else those of `before`, which are
    /// good and due at once.
    pub(super) fn take(&self, names: &[String], before: BTreeMap<String, Held>) {
        let wanted: BTreeSet<_> = names.iter().collect();
        self.challenges.expect(names);
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
                    held.insert(name, Kept { held: one, due: now, former: true, revoked: None });
                }
            }
        });
        self.wanted.store(names.len(), Relaxed);
        self.publish();
        self.news.send_replace(());
    }

    /// Takes what others have left in the store for names of which nothing is held, so that a process without a folder of its own
    /// serves it from the start. A store that is away is not waited for beyond a moment: the tasks of the names look again.
    pub(super) async fn take_shared(&self, reader: &CertificateReader) {
        let Some(store) = self.store.get() else { return };
        let names = &self.settings.names;
        let missing: Vec<_> = self.with(|held| names.iter().filter(|name| !held.contains_key(*name)).collect());
        let mut found = Vec::new();
        let looked = async {
            for name in missing {
                if let Ok(Found::Other(_, Some(held))) = store.certificate(name, None).await
                    && now() < held.until
                {
                    found.push(held);
                }
            }
        };
        if tokio::time::timeout(FIRST_LOOK, looked).await.is_err() {
            warn!("not all certificates that others have ordered are served yet: the store takes its time");
        }
        if found.is_empty() {
            return;
        }
        self.with(|all| all.extend(found.iter().map(|held| (held.issued.name.clone(), kept(held.clone())))));
        self.publish();
        self.news.send_replace(());
        self.read(reader).await;
        for held in found {
            self.metrics.taken.inc();
            self.copy(&held).await;
        }
    }

    /// Publishes nothing from now on, and gives what was held.
    pub(super) fn retire(&self) -> BTreeMap<String, Held> {
        self.with(|held| {
            self.over.store(true, Relaxed);
            std::mem::take(held).into_iter().map(|(name, kept)| (name, kept.held)).collect()
        })
    }

    /// What is kept for a name where it is shared.
    async fn found(&self, name: &str) -> Result<Option<Kept>, OrderError> {
        if let Some(store) = self.store.get() {
            return Ok(match store.certificate(name, None).await? {
                Found::Other(_, held) => held.map(kept),
                Found::Nothing | Found::Same => None,
            });
        }
        let Some(folder) = &self.folder else { return Ok(None) };
        let of = name.to_owned();
        match folder.aside(move |folder| folder.certificate(&of)).await {
            Err(error) if error.kind() == ErrorKind::TimedOut => Err(OrderError::Folder(error)),
            found => Ok(told(name, found)),
        }
    }

    /// The orders for a name that have failed, of whatever process.
    async fn failed(&self, name: &str) -> Result<Option<Failed>, StorageError> {
        if let Some(store) = self.store.get() {
            return store.failed(name).await;
        }
        let Some(folder) = &self.folder else { return Ok(None) };
        let of = name.to_owned();
        Ok(folder.aside(move |folder| folder.failed(&of)).await.ok().flatten())
    }

    async fn note(&self, name: &str, failed: Option<Failed>, turn: &Turn) {
        let hint = "how orders went cannot be kept: the next start may order at once";
        if let Turn::Store(turn) = turn {
            if let Err(error) = turn.note(failed).await {
                warn!(%error, name, "{hint}");
            }
            return;
        }
        let Some(folder) = &self.folder else { return };
        let of = name.to_owned();
        if let Err(error) = folder.aside(move |folder| folder.note(&of, failed)).await {
            warn!(%error, name, "{hint}");
        }
    }

    /// Keeps what was issued, for other processes and for the next start.
    async fn share(&self, held: &Held, turn: &Turn) {
        let name = &held.issued.name;
        if let Turn::Store(turn) = turn {
            match turn.keep(held).await {
                Ok(true) => {}
                // Whoever looks at it next leaves it there.
                Ok(false) => info!(name, "other processes cannot take the certificate yet: another one has the turn"),
                Err(error) => warn!(%error, name, "other processes cannot take the certificate yet"),
            }
        }
        self.copy(held).await;
    }

    /// Keeps it in the folder.
    async fn copy(&self, held: &Held) {
        let (Some(folder), name) = (&self.folder, &held.issued.name) else { return };
        let copy = held.clone();
        if let Err(error) = folder.aside(move |folder| folder.keep(&copy)).await {
            warn!(%error, name, "the certificate cannot be kept in the folder: the next start does not have it from there");
        }
        if held.issued.staple.is_some() {
            self.copy_staple(name, held.issued.staple.as_ref()).await;
        }
    }

    /// Takes what another process has left in the store, if it is newer than what is held; leaves there what is held, if that
    /// is newer. Gives whether something was taken. `known`: what was found there before.
    async fn look(&self, name: &str, known: &mut Option<Version>, reader: &CertificateReader) -> bool {
        let Some(store) = self.store.get() else { return false };
        let Ok(place) = self.looks.acquire().await else { return false };
        let mut is_former = false;
        let found = match store.certificate(name, known.as_ref()).await {
            Ok(Found::Same) => return false,
            Ok(Found::Nothing) => None,
            Ok(Found::Other(version, held)) => {
                is_former = version.is_none();
                *known = version;
                held
            }
            Err(error) => {
                debug!(%error, name, "what others have ordered cannot be looked for");
                return false;
            }
        };
        let own = self.with(|held| held.get(name).filter(|kept| !kept.former).map(|kept| kept.held.clone()));
        let from = |held: &Option<Held>| held.as_ref().filter(|held| now() < held.until).map(|held| held.from);
        match (from(&found).cmp(&from(&own)), found, own) {
            (Ordering::Greater, Some(found), _) => {
                self.copy(&found).await;
                self.metrics.taken.inc();
                // A staple may have to be waited for.
                drop(place);
                self.take_up(name, kept(found), reader).await;
                return true;
            }
            (order, _, Some(own)) if order == Ordering::Less || is_former => {
                // An order that is under way leaves something newer still.
                *known = None;
                match store.turn(name).await {
                    Ok(None) => {}
                    Ok(Some(turn)) => self.leave(store, &turn, &own).await,
                    Err(error) => debug!(%error, name, "others cannot be told of a certificate yet"),
                }
            }
            _ => {}
        }
        false
    }

    /// Leaves what is held for others, unless one of them was earlier with something as new.
    async fn leave(&self, store: &Store, turn: &store::Turn, own: &Held) {
        let name = &own.issued.name;
        let is_news = match store.certificate(name, None).await {
            Ok(Found::Other(Some(_), Some(there))) => there.from < own.from,
            Ok(Found::Other(None, Some(there))) => there.from <= own.from,
            Ok(Found::Other(_, None) | Found::Nothing | Found::Same) => true,
            Err(_) => false,
        };
        if is_news && let Err(error) = turn.keep(own).await {
            debug!(%error, name, "others cannot be told of a certificate yet");
        }
    }

    /// Holds a certificate, and has the edge serve it; with its staple from the start, if clients are to refuse it without: until
    /// that is there the one before is served, if there is one that does.
    async fn take_up(&self, name: &str, mut kept: Kept, reader: &CertificateReader) {
        info!(name, until = %kept.held.until, renewed_from = %kept.due, "there is a certificate");
        if kept.held.demands_staple && kept.held.issued.staple.is_none() {
            kept.held.issued.staple = self.first_staple(name, &kept.held).await;
        }
        self.with(|held| held.insert(name.to_owned(), kept));
        self.publish();
        self.news.send_replace(());
        self.read(reader).await;
    }

    /// Has the edge show this staple with the certificate that it is of, or none, if that is held yet.
    pub(super) async fn staple(&self, name: &str, of: &Held, staple: Option<Staple>, reader: &CertificateReader) {
        self.with(|held| {
            if let Some(kept) = held.get_mut(name).filter(|kept| kept.held.is_same(of)) {
                kept.held.issued.staple = staple;
            }
        });
        self.publish();
        self.read(reader).await;
    }

    /// A certificate is revoked: it is to be replaced at that time, if it is held yet and not due before.
    pub(super) fn revoke(&self, name: &str, of: &Held, at: Timestamp, due: Timestamp) {
        self.with(|held| {
            if let Some(kept) = held.get_mut(name).filter(|kept| kept.held.is_same(of)) {
                kept.due = kept.due.min(due);
                kept.revoked = Some(at);
            }
        });
        self.news.send_replace(());
    }

    /// Whether a certificate that is held is revoked, and when that was known.
    pub(super) fn revoked(&self, name: &str, of: &Held) -> Option<Timestamp> {
        self.with(|held| held.get(name).filter(|kept| kept.held.is_same(of)).and_then(|kept| kept.revoked))
    }

    /// How long what is held for a name does for another one that has no staple yet; no time, if clients refuse it as well.
    pub(super) fn spare(&self, name: &str) -> Duration {
        let now = now();
        let is_refused = |kept: &Kept| {
            let staple = kept.held.issued.staple.as_ref();
            kept.revoked.is_some() || kept.held.demands_staple && staple.is_none_or(|staple| staple.until <= now)
        };
        self.with(|held| held.get(name).filter(|kept| !is_refused(kept)).map(|kept| kept.held.clone()))
            .map_or(Duration::ZERO, |held| pace::spare(held.from, held.until, now))
    }

    /// What is held for a name.
    pub(super) fn held(&self, name: &str) -> Option<Held> {
        self.with(|held| held.get(name).map(|kept| kept.held.clone()))
    }

    /// Has the edge read what is published.
    async fn read(&self, reader: &CertificateReader) {
        let reader = reader.clone();
        // Reading certificates blocks; a panic there is told of by the reader's own task.
        let _read = tokio::task::spawn_blocking(move || reader.read()).await;
    }

    /// What the folder holds for these names, as far as it says so in time. The others are looked for again, each by its task.
    fn found_at_once(&self, names: Vec<String>) -> Vec<(String, Kept)> {
        let Some(folder) = self.folder.as_ref().filter(|_| !names.is_empty()) else { return Vec::new() };
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
    pub(super) fn publish(&self) {
        let (now, wanted) = (now(), self.wanted.load(Relaxed));
        self.with(|held| {
            if self.over.load(Relaxed) {
                return;
            }
            let good = held.values().filter(|kept| now < kept.held.until).count();
            let number = |names: usize| i64::try_from(names).unwrap_or(i64::MAX);
            self.metrics.missing.set(number(wanted.saturating_sub(good)));
            let all = || held.values().map(|kept| &kept.held);
            self.metrics.unstapled.set(number(all().filter(|held| self.wants_staple(held, now)).count()));
            self.metrics.optional.set(number(all().filter(|held| self.lacks_must_staple(held)).count()));
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
        let (mut failures, mut has_begun, mut known, mut news) = (0, false, None, self.news.subscribe());
        self.look(&name, &mut known, &reader).await;
        loop {
            while let Some(left) = self.due(&name).map(|due| due.since(now())).filter(|left| !left.is_zero()) {
                tokio::select! {
                    () = tokio::time::sleep(left.min(self.between_looks())) => {
                        self.look(&name, &mut known, &reader).await;
                    }
                    // It may be due earlier. Who tells of news lives as long as this.
                    _ = news.changed() => {}
                }
            }
            match self.obtain(&name, has_begun).await {
                Ok(Obtained::Certificate(kept)) => {
                    // If the store did not take it, what lies there is older, and to be looked at once more.
                    known = None;
                    self.take_up(&name, kept, &reader).await;
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
                        self.rest(&name, again_in, (&mut known, &reader)).await;
                        failures += 1;
                    }
                }
                Ok(Obtained::Elsewhere) => {
                    tokio::time::sleep(ELSEWHERE).await;
                    self.look(&name, &mut known, &reader).await;
                }
                Ok(Obtained::Later(rest)) => {
                    info!(name, again_in = rest.as_secs(), "nothing is ordered yet: the last order has just failed");
                    self.rest(&name, rest, (&mut known, &reader)).await;
                }
                Err(OrderError::Elsewhere) => {
                    info!(name, "nothing is ordered here: another process may have begun to");
                    tokio::time::sleep(ELSEWHERE).await;
                }
                Err(error @ (OrderError::Folder(_) | OrderError::Store(_))) => {
                    self.metrics.orders.with_label_values(&["error"]).inc();
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
                    self.rest(&name, pause, (&mut known, &reader)).await;
                }
            }
            has_begun = true;
        }
    }

    /// Keeps the account where all who share the store find it, for ever.
    pub(super) async fn keep_account(self: Arc<Self>) {
        let Some(store) = self.store.get() else { return };
        loop {
            if let Err(error) = self.accounts.look(store, self.folder.as_ref()).await {
                debug!(%error, "the account at the authority cannot be looked for");
            }
            tokio::time::sleep(self.between_looks()).await;
        }
    }

    /// How long until somebody looks again. In the store not all names are looked for at once.
    fn between_looks(&self) -> Duration {
        if self.store.get().is_some() { NEWS - pace::share(NEWS / 3) } else { LOOK }
    }

    /// Waits that long, or until another process has put a certificate there.
    async fn rest(&self, name: &str, pause: Duration, (known, reader): (&mut Option<Version>, &CertificateReader)) {
        let end = Instant::now() + pause;
        while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            tokio::time::sleep(left.min(self.between_looks())).await;
            let is_news = match self.store.get() {
                Some(_) => self.look(name, known, reader).await,
                None => matches!(self.fresh(name).await, Ok(Some(_))),
            };
            if is_news {
                return;
            }
        }
    }

    /// What is kept for a name and is not due.
    async fn fresh(&self, name: &str) -> Result<Option<Kept>, OrderError> {
        Ok(self.found(name).await?.filter(|kept| now() < kept.due))
    }

    /// The right to order for a name; `None`: another process has it.
    async fn turn(&self, name: &str) -> Result<Option<Turn>, OrderError> {
        if let Some(store) = self.store.get() {
            return Ok(store.turn(name).await?.map(Turn::Store));
        }
        let Some(folder) = &self.folder else { return Ok(Some(Turn::Alone)) };
        let of = name.to_owned();
        match folder.aside(move |folder| folder.turn(&of)).await {
            Ok(turn) => Ok(turn.map(|_turn| Turn::Folder { _turn })),
            Err(error) if error.kind() == ErrorKind::TimedOut => Err(OrderError::Folder(error)),
            Err(error) => {
                warn!(%error, name, "the folder of certificates cannot be locked: other processes may order the same");
                Ok(Some(Turn::Alone))
            }
        }
    }

    /// A certificate that is not due: one that another process has put there; else one that is ordered now. Whatever comes of an
    /// order is noted before another process may order.
    async fn obtain(&self, name: &str, has_begun: bool) -> Result<Obtained, OrderError> {
        let Ok(_place) = self.places.try_acquire() else { return Ok(Obtained::Elsewhere) };
        let Some(turn) = self.turn(name).await? else { return Ok(Obtained::Elsewhere) };
        let issued = Mutex::new(None);
        let work = Box::pin(self.obtain_in_turn(name, has_begun, (&turn, &issued)));
        let Turn::Store(held) = &turn else { return work.await };
        if let Some(obtained) = held.hold(work).await {
            return obtained;
        }
        // What was issued is good, whoever has the turn by now; whoever looks next leaves it for the others.
        let Some(issued) = issued.into_inner().unwrap_or_else(PoisonError::into_inner) else {
            return Err(OrderError::Elsewhere);
        };
        self.copy(&issued).await;
        Ok(Obtained::Certificate(kept(issued)))
    }

    /// What is issued is in `issued` from then on.
    async fn obtain_in_turn(
        &self,
        name: &str,
        has_begun: bool,
        (turn, issued): (&Turn, &Mutex<Option<Held>>),
    ) -> Result<Obtained, OrderError> {
        // One is not due twice: when it is to be renewed is a little different each time that it is read.
        let own = self.with(|held| held.get(name).filter(|kept| !kept.former).map(|kept| kept.held.from));
        if let Some(found) = self.fresh(name).await?.filter(|found| Some(found.held.from) > own) {
            if self.store.get().is_some() {
                self.copy(&found.held).await;
                self.metrics.taken.inc();
            }
            return Ok(Obtained::Certificate(found));
        }
        let failed = self.failed(name).await?;
        let rest = failed.map(|failed| failed.rest(has_begun, now())).filter(|rest| !rest.is_zero());
        if let Some(rest) = rest {
            return Ok(Obtained::Later(rest));
        }
        let ordered = self.order(name, turn).await;
        match &ordered {
            Ok(held) => {
                *issued.lock().unwrap_or_else(PoisonError::into_inner) = Some(held.clone());
                self.metrics.orders.with_label_values(&["ok"]).inc();
                self.share(held, turn).await;
                self.note(name, None, turn).await;
            }
            Err(error) if error.is_before_the_order() => {}
            Err(_) => {
                let in_a_row = failed.map_or(0, |failed| failed.in_a_row).saturating_add(1);
                self.note(name, Some(Failed { at: now().as_secs(), in_a_row }), turn).await;
            }
        }
        ordered.map(kept).map(Obtained::Certificate)
    }

    /// Orders; once more, if the authority does not know the account that was kept.
    async fn order(&self, name: &str, turn: &Turn) -> Result<Held, OrderError> {
        let places = account::Kept { folder: self.folder.as_ref(), store: self.store.get() };
        let account = self.accounts.account(&self.settings, places, &self.http).await?;
        match self.order_as(&account, name, turn).await {
            Err(error) if error.is_of_the_account() => {
                warn!(
                    name,
                    account = account.id(),
                    "the authority does not know the account any more: another one is made"
                );
                self.accounts.forget(&account, self.folder.as_ref()).await;
                self.order_as(&self.accounts.account(&self.settings, places, &self.http).await?, name, turn).await
            }
            outcome => outcome,
        }
    }

    async fn order_as(&self, account: &Account, name: &str, turn: &Turn) -> Result<Held, OrderError> {
        let there = match (turn, &self.folder) {
            (Turn::Store(turn), _) => There::Store(turn),
            (Turn::Alone | Turn::Folder { .. }, Some(folder)) => There::Folder(folder),
            (Turn::Alone | Turn::Folder { .. }, None) => There::Nowhere,
        };
        let answers = Answers { here: &self.challenges, there };
        let looks = [Some(Look::TlsAlpn), self.settings.answers_http.then_some(Look::Http)];
        let mut outcome = Err(OrderError::NotOffered("any challenge"));
        for look in looks.into_iter().flatten() {
            let terms = Terms { look, must_staple: self.settings.must_staple };
            outcome = order::order(account, name, answers, terms).await;
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
    Kept { due: pace::renewal(held.from, held.until), held, former: false, revoked: None }
}

pub(super) fn now() -> Timestamp {
    SystemTime::now().into()
}
