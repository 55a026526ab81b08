//! Follows the configuration: on a change of any file that it names, on SIGHUP, and when `postern reload` asks, it is loaded
//! again (01 §1.2). What becomes of a load is for others to say, see `verdict.rs`.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use postern_edge::PublicListener;
use postern_identity::Purpose;
use postern_storage::{Credentials, StorageConfig, Topology};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::config::{self, Config, Environment, Loaded, Source, WatchedFile};
use crate::verdict::Verdict;

/// A burst of changes is over when nothing more happened for so long.
const QUIET: Duration = Duration::from_millis(100);
/// A burst is taken as over after so long, whatever goes on.
const BURST: Duration = Duration::from_secs(1);
/// Files are compared so often even if no change was reported: some file systems report none (03 §2: within 5 s).
const POLL: Duration = Duration::from_secs(4);

/// Somebody who waits to hear what becomes of a reload.
pub type Asker = oneshot::Sender<Verdict>;

/// A load that is to be put in force, and who waits to hear of it.
#[derive(Debug)]
pub struct Reload {
    /// What was loaded, errors or not.
    pub loaded: Loaded,
    /// Who asked, if somebody did.
    pub asker: Option<Asker>,
}

/// What is followed of the configuration in force.
#[derive(Debug, Clone)]
pub struct Followed {
    /// As [`Config::watched`].
    pub files: Vec<WatchedFile>,
    /// As [`Config::hot_reload`].
    pub hot: bool,
}

/// Why it is loaded again.
enum Reason {
    /// Perhaps a file has changed.
    Look,
    /// SIGHUP.
    HungUp,
    /// `postern reload`.
    Asked(Asker),
}

/// Loads again whenever there is a reason to, until `shutdown`, and hands each outcome on, fatal ones too.
pub async fn follow(
    source: Source,
    environment: Environment,
    followed: Followed,
    mut askers: mpsc::Receiver<Asker>,
    loads: mpsc::Sender<Reload>,
    shutdown: CancellationToken,
) {
    let mut hang_up = signal(SignalKind::hangup()).inspect_err(|error| warn!(%error, "SIGHUP will not reload")).ok();
    let (tell, mut changes) = mpsc::channel(1);
    let mut files = Files::new(tell, &followed.files);
    let mut hot = followed.hot;
    let mut poll = interval(POLL);
    poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let reason = tokio::select! {
            () = shutdown.cancelled() => return,
            Some(()) = hung_up(&mut hang_up) => Reason::HungUp,
            Some(asker) = askers.recv() => Reason::Asked(asker),
            Some(()) = changes.recv(), if hot => { settled(&mut changes).await; Reason::Look }
            _ = poll.tick() => Reason::Look,
        };
        let asker = match reason {
            Reason::Asked(asker) => Some(asker),
            Reason::HungUp => None,
            Reason::Look if hot && files.changed().await => None,
            Reason::Look => continue,
        };
        let Some(loaded) = load(source.clone(), environment.clone()).await else { continue };
        if let Some(config) = &loaded.config {
            hot = config.hot_reload;
        }
        files.watch(&loaded.watched);
        if loads.send(Reload { loaded, asker }).await.is_err() {
            return;
        }
    }
}

async fn hung_up(signal: &mut Option<tokio::signal::unix::Signal>) -> Option<()> {
    match signal {
        Some(signal) => signal.recv().await,
        None => std::future::pending().await,
    }
}

/// Waits for the end of a burst: an editor or a volume update touches several files.
async fn settled(changes: &mut mpsc::Receiver<()>) {
    let end = Instant::now() + BURST;
    loop {
        let quiet = (Instant::now() + QUIET).min(end);
        match timeout_at(quiet, changes.recv()).await {
            Ok(Some(())) if Instant::now() < end => {}
            Ok(_) | Err(_) => return,
        }
    }
}

/// Reading files blocks, so it happens on a thread for that.
async fn load(source: Source, environment: Environment) -> Option<Loaded> {
    let load = tokio::task::spawn_blocking(move || config::load_again(&source, &environment));
    load.await.inspect_err(|error| error!(%error, "the configuration could not be loaded")).ok()
}

/// The files that matter, and the watched folders that hold them.
#[derive(Debug)]
struct Files {
    watcher: Option<RecommendedWatcher>,
    folders: BTreeSet<PathBuf>,
    files: Vec<WatchedFile>,
}

impl Files {
    fn new(tell: mpsc::Sender<()>, files: &[WatchedFile]) -> Self {
        let watcher = notify::recommended_watcher(move |_| {
            // A full channel already holds the news.
            let _full = tell.try_send(());
        });
        let watcher =
            watcher.inspect_err(|error| warn!(%error, "files are not watched, only compared every few seconds")).ok();
        let mut this = Self { watcher, folders: BTreeSet::new(), files: Vec::new() };
        this.watch(files);
        this
    }

    /// Watches these files from now on.
    fn watch(&mut self, files: &[WatchedFile]) {
        self.files = files.to_vec();
        self.watch_folders();
    }

    /// Whether some file holds something else than what was loaded.
    async fn changed(&mut self) -> bool {
        // A volume update replaces the folder behind a symbolic link: what has to be watched may have moved.
        self.watch_folders();
        let files = self.files.clone();
        let changed = tokio::task::spawn_blocking(move || files.iter().any(WatchedFile::has_changed));
        changed.await.unwrap_or(false)
    }

    /// Folders, not files: an editor or a volume update puts a new file in the place of the old one.
    fn watch_folders(&mut self) {
        let wanted: BTreeSet<_> = self.files.iter().flat_map(|file| folders(&file.path)).collect();
        let Some(watcher) = &mut self.watcher else { return };
        for gone in self.folders.difference(&wanted) {
            // A folder that was removed is watched no more anyway.
            let _gone = watcher.unwatch(gone);
        }
        let watched = wanted.into_iter().filter(|folder| {
            self.folders.contains(folder) || watcher.watch(folder, RecursiveMode::NonRecursive).is_ok()
        });
        self.folders = watched.collect();
    }
}

/// The folder of a file, and of what it leads to if it is a symbolic link.
fn folders(file: &Path) -> Vec<PathBuf> {
    let target = std::fs::canonicalize(file).ok();
    [Some(file), target.as_deref()].into_iter().flatten().filter_map(folder).collect()
}

fn folder(file: &Path) -> Option<PathBuf> {
    let parent = file.parent()?;
    Some(if parent.as_os_str().is_empty() { Path::new(".") } else { parent }.to_owned())
}

impl Config {
    /// The keys of which a change against `old`, which runs, needs a restart: bound addresses, the clock of idle connections,
    /// the store, and the secrets that everything is sealed with. Everything else is swapped live.
    #[must_use]
    pub fn needs_restart(&self, old: &Self) -> Vec<&'static str> {
        let (new, was) = (&self.edge.listeners, &old.edge.listeners);
        [
            (self.role != old.role, "services"),
            (at(&new.public) != at(&was.public), "address"),
            (is_plain(&new.public) != is_plain(&was.public), "insecure_server"),
            (new.proxy_protocol != was.proxy_protocol, "use_proxy_protocol"),
            (codecs_differ(&new.public, &was.public), "codec_type"),
            (new.redirect != was.redirect, "http_redirect_addr"),
            (self.edge.timeouts.idle != old.edge.timeouts.idle, "timeout_idle"),
            (self.admin.metrics != old.admin.metrics, "metrics_address"),
            (self.admin.metrics_auth != old.admin.metrics_auth, "metrics_basic_auth"),
            (self.admin.installation != old.admin.installation, "installation_id"),
            (self.admin.health != old.admin.health, "health_check_addr"),
            (self.admin.debug != old.admin.debug, "debug_address"),
            (kind(&self.storage) != kind(&old.storage), "databroker_storage_type"),
            (place_of(&self.storage) != place_of(&old.storage), "databroker_storage_connection_string"),
            (self.differs_in_options(old), "databroker_storage_*, session_lease, session_heartbeat"),
            (self.session_max_age != old.session_max_age, "session_max_age"),
            (!self.shares_secret(old), "shared_secret"),
            (!self.accepts_secrets(old), "shared_secrets_accepted"),
            (!self.edge.keyring.agrees_with(&old.edge.keyring, Purpose::Form).0, "cookie_secret"),
        ]
        .into_iter()
        .filter_map(|(changed, key)| changed.then_some(key))
        .collect()
    }

    /// Whether the same servers are spoken to in another way.
    fn differs_in_options(&self, old: &Self) -> bool {
        place_of(&self.storage) == place_of(&old.storage) && self.storage != old.storage
    }

    /// Whether the same shared secret is in force.
    fn shares_secret(&self, other: &Self) -> bool {
        self.edge.keyring.agrees_with(&other.edge.keyring, Purpose::StoreId).0
    }

    /// Whether the same are accepted beside it.
    fn accepts_secrets(&self, other: &Self) -> bool {
        self.edge.keyring.agrees_with(&other.edge.keyring, Purpose::StoreId).1
    }

    fn shared_secrets_differ(&self, other: &Self) -> bool {
        !self.shares_secret(other) || !self.accepts_secrets(other)
    }

    /// Takes from `running` what cannot change live, so that all rooms go on to agree on it: the store is sealed with the
    /// secrets that it was opened with, and sessions that are named by others would never be found in it.
    pub fn keep_what_cannot_change(&mut self, running: &Self) {
        self.keep_certificates(running);
        if self.role != running.role {
            self.role = running.role;
            self.edge.authenticate.upstream = running.edge.authenticate.upstream.clone();
        }
        self.edge.listeners = running.edge.listeners.clone();
        self.edge.timeouts.idle = running.edge.timeouts.idle;
        self.admin = running.admin.clone();
        self.storage = running.storage.clone();
        if self.edge.identity.keys.are_derived() && self.shared_secrets_differ(running) {
            // They would be those of a secret that is not in force.
            self.edge.identity.keys = Arc::clone(&running.edge.identity.keys);
        }
        self.session_max_age = running.session_max_age;
        self.edge.keyring = Arc::clone(&running.edge.keyring);
        self.authn.keyring = Arc::clone(&running.authn.keyring);
    }
}

impl Config {
    /// Takes from `running` what is ordered, derived and trusted, where it hangs on what a reload cannot change: what is served
    /// stays then as it is.
    fn keep_certificates(&mut self, running: &Self) {
        let (new, old) = (&self.edge.listeners, &running.edge.listeners);
        if is_plain(&new.public) != is_plain(&old.public) || self.role != running.role {
            self.autocert.clone_from(&running.autocert);
        } else if let Some(autocert) = &mut self.autocert {
            autocert.answers_http = !old.redirect.is_empty();
        }
        // Derived from a secret that is not in force: nobody trusts it.
        if !self.edge.certificates.last.is_empty() && self.shared_secrets_differ(running) {
            self.edge.certificates.last.clone_from(&running.edge.certificates.last);
            self.edge.proxy.extra_roots.clone_from(&running.edge.proxy.extra_roots);
            self.authn.extra_roots.clone_from(&running.authn.extra_roots);
        }
    }
}

fn at(listener: &PublicListener) -> &[SocketAddr] {
    let (PublicListener::Tls { addresses, .. } | PublicListener::Plain { addresses }) = listener;
    addresses
}

const fn is_plain(listener: &PublicListener) -> bool {
    matches!(listener, PublicListener::Plain { .. })
}

/// Whether two TLS listeners offer different versions of HTTP.
fn codecs_differ(a: &PublicListener, b: &PublicListener) -> bool {
    match (a, b) {
        (PublicListener::Tls { h2, http1, .. }, PublicListener::Tls { h2: other_h2, http1: other_http1, .. }) => {
            (h2, http1) != (other_h2, other_http1)
        }
        (PublicListener::Tls { .. } | PublicListener::Plain { .. }, _) => false,
    }
}

/// Which file or servers, and who one is there.
fn place_of(storage: &StorageConfig) -> Option<(Option<&Path>, Option<Servers<'_>>)> {
    match storage {
        StorageConfig::Memory => None,
        StorageConfig::File { path } => Some((Some(path), None)),
        StorageConfig::Redis(redis) => {
            Some((None, Some((&redis.topology, redis.credentials.as_ref(), redis.database, redis.tls.is_some()))))
        }
    }
}

type Servers<'c> = (&'c Topology, Option<&'c Credentials>, u8, bool);

fn kind(storage: &StorageConfig) -> std::mem::Discriminant<StorageConfig> {
    std::mem::discriminant(storage)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use crate::config::{Code, Colour};

    use super::*;

    const VALID: &str =
        "address: 127.0.0.1:0\ninsecure_server: true\nshared_secret_file: SECRET\ncookie_secret_file: SECRET\n";
    const SECRET: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
    const OTHER: &str = "ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=";
    const DEADLINE: Duration = Duration::from_secs(20);

    struct World {
        folder: tempfile::TempDir,
        outcomes: mpsc::Receiver<Reload>,
        askers: Option<mpsc::Sender<Asker>>,
        shutdown: CancellationToken,
    }

    impl World {
        /// Follows `config.yaml` in a folder of its own.
        fn start(prepare: impl FnOnce(&Path, &str)) -> Self {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join("secret"), SECRET).unwrap();
            let text = VALID.replace("SECRET", folder.path().join("secret").to_str().unwrap());
            prepare(folder.path(), &text);
            let (_, outcomes) = mpsc::channel(1);
            let mut world = Self { folder, outcomes, askers: None, shutdown: CancellationToken::new() };
            let (ask, askers) = mpsc::channel(1);
            world.outcomes = world.another("config.yaml", askers);
            world.askers = Some(ask);
            world
        }

        /// One more that follows a file of the same folder.
        fn another(&self, name: &str, askers: mpsc::Receiver<Asker>) -> mpsc::Receiver<Reload> {
            let source = Source { file: Some(self.path(name)), lenient: false };
            let environment = Environment::of::<&str, &str>([]).unwrap();
            let loaded = config::load(&source, &environment);
            let problems = loaded.problems.to_human(Colour::Plain);
            let running = loaded.config.unwrap_or_else(|| panic!("{problems}"));
            let (send, outcomes) = mpsc::channel(16);
            let stop = self.shutdown.clone();
            let followed = Followed { files: running.watched, hot: running.hot_reload };
            tokio::spawn(async move { follow(source, environment, followed, askers, send, stop).await });
            outcomes
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        async fn outcome(&mut self) -> Loaded {
            self.reload().await.loaded
        }

        async fn reload(&mut self) -> Reload {
            tokio::time::timeout(DEADLINE, self.outcomes.recv()).await.expect("a reload in time").unwrap()
        }
    }

    impl Drop for World {
        fn drop(&mut self) {
            self.shutdown.cancel();
        }
    }

    /// Puts a text in the place of a file at once, so that no look can find a part of it.
    fn put(path: &Path, text: &str) {
        let new = path.with_extension("new");
        fs::write(&new, text).unwrap();
        fs::rename(new, path).unwrap();
    }

    fn plain(folder: &Path, text: &str) {
        fs::write(folder.join("config.yaml"), text).unwrap();
    }

    #[tokio::test]
    async fn a_changed_file_is_loaded_and_a_broken_one_is_told_of() {
        let mut world = World::start(plain);
        let good = fs::read_to_string(world.path("config.yaml")).unwrap();
        fs::write(world.path("config.yaml"), good.clone() + "timeout_read: 7s\n").unwrap();
        let config = world.outcome().await.config.unwrap();
        assert_eq!(config.edge.timeouts.read, Some(Duration::from_secs(7)));

        fs::write(world.path("config.yaml"), good.clone() + "timeout_read: seven\n").unwrap();
        let broken = world.outcome().await;
        assert!(broken.config.is_none() && broken.problems.any_fatal());

        fs::write(world.path("config.yaml"), good).unwrap();
        assert!(world.outcome().await.config.is_some());
    }

    #[tokio::test]
    async fn r_019_a_file_that_is_gone_or_half_written_is_told_of_and_one_that_is_back_is_loaded() {
        let mut world = World::start(plain);
        let path = world.path("config.yaml");
        let good = fs::read_to_string(&path).unwrap();
        let broken = |loaded: Loaded, code: Code| {
            assert!(loaded.config.is_none(), "{code}");
            assert_eq!(
                loaded.problems.iter().next().unwrap().code,
                code,
                "{}",
                loaded.problems.to_human(Colour::Plain)
            );
        };
        fs::remove_file(&path).unwrap();
        broken(world.outcome().await, Code::FileUnreadable);
        put(&path, &good);
        assert!(world.outcome().await.config.is_some());

        fs::rename(&path, world.path("elsewhere.yaml")).unwrap();
        broken(world.outcome().await, Code::FileUnreadable);
        fs::rename(world.path("elsewhere.yaml"), &path).unwrap();
        assert!(world.outcome().await.config.is_some());

        let all = good + "access_log_fields: [method, path]\n";
        put(&path, all.split_once(" path").unwrap().0);
        broken(world.outcome().await, Code::Syntax);
        put(&path, &all);
        assert!(world.outcome().await.config.is_some());
    }

    #[tokio::test]
    async fn who_asks_is_handed_on_with_the_load() {
        let mut world = World::start(plain);
        let (asker, verdict) = oneshot::channel();
        world.askers.as_ref().unwrap().send(asker).await.unwrap();
        let Reload { loaded, asker } = world.reload().await;
        assert!(loaded.config.is_some());
        drop(asker.expect("the one who asked"));
        assert!(verdict.await.is_err(), "nobody else holds the asker");
    }

    #[tokio::test]
    async fn a_named_file_that_changes_is_a_reason_to_load() {
        let mut world = World::start(plain);
        fs::write(world.path("secret"), OTHER).unwrap();
        assert!(world.outcome().await.config.is_some());
        // An editor replaces the file instead of writing into it.
        fs::write(world.path("new"), SECRET).unwrap();
        fs::rename(world.path("new"), world.path("secret")).unwrap();
        assert!(world.outcome().await.config.is_some());
    }

    #[tokio::test]
    async fn a_volume_that_swaps_its_symbolic_link_is_noticed() {
        let mut world = World::start(|folder, text| {
            fs::create_dir(folder.join("one")).unwrap();
            fs::write(folder.join("one/config.yaml"), text).unwrap();
            symlink("one", folder.join("..data")).unwrap();
            symlink("..data/config.yaml", folder.join("config.yaml")).unwrap();
        });
        let text = fs::read_to_string(world.path("config.yaml")).unwrap() + "timeout_idle: 9s\n";
        fs::create_dir(world.path("two")).unwrap();
        fs::write(world.path("two/config.yaml"), text).unwrap();
        symlink("two", world.path("..tmp")).unwrap();
        fs::rename(world.path("..tmp"), world.path("..data")).unwrap();
        let config = world.outcome().await.config.unwrap();
        assert_eq!(config.edge.timeouts.idle, Some(Duration::from_secs(9)));
    }

    #[tokio::test]
    async fn r_019_a_file_that_turns_into_a_pipe_is_told_of_and_not_waited_for() {
        let mut world = World::start(plain);
        fs::remove_file(world.path("config.yaml")).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(world.path("config.yaml")).status().unwrap().success());
        fs::write(world.path("secret"), OTHER).unwrap();
        // The removal may have been seen by itself, before there was a pipe.
        let told = loop {
            let outcome = world.outcome().await;
            assert!(outcome.config.is_none());
            let told = outcome.problems.to_human(Colour::Plain);
            if !told.contains("No such file") {
                break told;
            }
        };
        assert!(told.contains("it is not a regular file"), "{told}");
        // And whatever comes next is seen.
        fs::remove_file(world.path("config.yaml")).unwrap();
        let text = VALID.replace("SECRET", world.path("secret").to_str().unwrap());
        fs::write(world.path("config.yaml"), text).unwrap();
        while world.outcome().await.config.is_none() {}
    }

    #[tokio::test]
    async fn without_hot_reload_no_change_loads() {
        let cold = "runtime_flags: {config_hot_reload: false}\n";
        let mut world = World::start(|folder, text| {
            plain(folder, &(text.to_owned() + cold));
            fs::write(folder.join("hot.yaml"), text).unwrap();
        });
        let mut witness = world.another("hot.yaml", mpsc::channel(1).1);
        for secret in [OTHER, SECRET] {
            fs::write(world.path("secret"), secret).unwrap();
            tokio::time::timeout(DEADLINE, witness.recv()).await.expect("the witness reloads").unwrap();
        }
        // Once the hot one has seen two changes, a cold one that looked would have told of the first.
        assert!(world.outcomes.try_recv().is_err(), "the change alone has reloaded");
    }

    #[test]
    fn what_cannot_change_live_is_named() {
        let environment = Environment::of::<&str, &str>([]).unwrap();
        let load = |text: &str| config::load_text(Some("config.yaml"), text, false, &environment).config.unwrap();
        let old = load("address: 127.0.0.1:1\ninsecure_server: true");
        assert!(load("address: 127.0.0.1:1\ninsecure_server: true\ntimeout_read: 1s").needs_restart(&old).is_empty());
        let text = format!(
            "address: 127.0.0.1:2\nhttp_redirect_addr: 127.0.0.1:3\nmetrics_address: 127.0.0.1:4\nhealth_check_addr: 127.0.0.1:5\n\
             debug_address: 127.0.0.1:6\ntimeout_idle: 1m\nshared_secret: {SECRET}\ncookie_secret: {OTHER}\ndatabroker_storage_type: file\n\
             databroker_storage_connection_string: file:///nonexistent"
        );
        assert_eq!(
            load(&text).needs_restart(&old),
            [
                "address",
                "insecure_server",
                "http_redirect_addr",
                "timeout_idle",
                "metrics_address",
                "health_check_addr",
                "debug_address",
                "databroker_storage_type",
                "databroker_storage_connection_string",
                "shared_secret",
                "cookie_secret"
            ]
        );
        let beside = load(&format!("{text}\nshared_secrets_accepted: [{OTHER}]"));
        assert_eq!(beside.needs_restart(&load(&text)), ["shared_secrets_accepted"]);
        let plain = load("address: 127.0.0.1:1");
        assert_eq!(plain.needs_restart(&old), ["insecure_server"]);
        assert_eq!(load("address: 127.0.0.1:1\ncodec_type: http1").needs_restart(&plain), ["codec_type"]);
        let mut new = load(&text);
        new.keep_what_cannot_change(&old);
        assert!(
            new.needs_restart(&old).is_empty(),
            "what is not taken is told again only when it changes back and forth"
        );
    }

    #[test]
    fn what_is_ordered_derived_and_trusted_stays_where_what_it_hangs_on_does() {
        let environment = Environment::of::<&str, &str>([]).unwrap();
        let load = |text: &str| {
            let text = format!("address: 127.0.0.1:1\ncookie_secret: {SECRET}\n{text}");
            config::load_text(Some("config.yaml"), &text, false, &environment).config.unwrap()
        };
        let kept = |running: &Config, text: &str| {
            let mut new = load(text);
            new.keep_what_cannot_change(running);
            new
        };
        let ordering = format!("shared_secret: {SECRET}\nautocert: true\n");
        let running = load(&ordering);
        assert!(kept(&running, &format!("{ordering}insecure_server: true\n")).autocert.is_some());
        let plain = load(&format!("shared_secret: {SECRET}\ninsecure_server: true\n"));
        assert!(kept(&plain, &ordering).autocert.is_none());
        let redirected = kept(&running, &format!("{ordering}http_redirect_addr: 127.0.0.1:2\n"));
        assert!(!redirected.autocert.unwrap().answers_http, "nobody listens there before the next start");
        assert!(kept(&running, &format!("shared_secret: {SECRET}\n")).autocert.is_none(), "it is switched off live");

        let derived = |secret: &str| format!("shared_secret: {secret}\ntls_derive: example.com\n");
        let running = load(&derived(SECRET));
        let both = kept(&running, &format!("{}shared_secrets_accepted: [{OTHER}]\n", derived(SECRET)));
        assert_eq!(both.edge.proxy.extra_roots, running.edge.proxy.extra_roots);
        let new = kept(&running, &derived(OTHER));
        assert!(!running.edge.certificates.last.is_empty() && running.edge.proxy.extra_roots.is_some());
        assert_eq!(new.edge.certificates.last[0].0, running.edge.certificates.last[0].0);
        assert_eq!(new.edge.proxy.extra_roots, running.edge.proxy.extra_roots);
        assert_eq!(new.authn.extra_roots, running.authn.extra_roots);
    }

    #[test]
    fn keys_that_are_derived_from_the_shared_secret_stay_with_it() {
        let environment = Environment::of::<&str, &str>([]).unwrap();
        let load = |text: &str| {
            let text = format!("address: 127.0.0.1:1\ninsecure_server: true\ncookie_secret: {SECRET}\n{text}");
            config::load_text(Some("config.yaml"), &text, false, &environment).config.unwrap()
        };
        let published = |running: &Config, text: &str| {
            let mut new = load(text);
            new.keep_what_cannot_change(running);
            new.edge.identity.keys.key_set().clone()
        };
        let derived = load(&format!("shared_secret: {SECRET}"));
        let keys = derived.edge.identity.keys.key_set().clone();
        assert_eq!(published(&derived, &format!("shared_secret: {OTHER}")), keys);
        assert_eq!(published(&derived, &format!("shared_secret: {SECRET}\nshared_secrets_accepted: [{OTHER}]")), keys);
        let pem = rcgen::KeyPair::generate().unwrap().serialize_pem().replace('\n', "\n  ");
        let own = format!("signing_key: |\n  {pem}");
        let written = load(&format!("shared_secret: {SECRET}\n{own}"));
        let own_keys = written.edge.identity.keys.key_set().clone();
        assert_ne!(own_keys, keys);
        // A key that is written is taken live, whatever the secret; one that would be derived from a secret that is not in force
        // is not.
        assert_eq!(published(&derived, &format!("shared_secret: {OTHER}\n{own}")), own_keys);
        assert_eq!(published(&written, &format!("shared_secret: {OTHER}")), own_keys);
        assert_eq!(published(&written, &format!("shared_secret: {SECRET}")), keys);
    }
}
