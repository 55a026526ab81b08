//! `autocert_dir`: the account, what was issued, and what several processes that share the folder tell each other there.
//!
//! Below it is a folder for each authority. A certificate and its key are one file, so that they are never of two orders.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use postern_edge::{ChallengesElsewhere, Issued};
use postern_identity::{Secret, Timestamp};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use url::Url;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use super::ocsp::{Answer, Question};
use super::pace;
use crate::private;

/// No file of the folder is larger.
const LARGEST: u64 = 1 << 20;
/// What begins a certificate in a file that begins with a key.
const CHAIN: &str = "-----BEGIN CERTIFICATE-----";
/// How the file of an OCSP response ends.
const STAPLE: &str = "ocsp";

/// A look into the folder is not waited for longer: it may be on a disk that hangs.
const PATIENCE: Duration = Duration::from_secs(5);
/// Looks into one folder under way at once; one that hangs keeps its place.
const PLACES: usize = 4;

/// Clocks of two machines may differ by as much.
const APART: Duration = Duration::from_secs(10);

/// What is left of a challenge, or of a file half-written, is older than this only after a crash.
const LEFT_OVER: Duration = Duration::from_secs(24 * 3600);

/// The folder of one authority.
#[derive(Debug, Clone)]
pub(super) struct Folder {
    path: PathBuf,
    places: Arc<Semaphore>,
}

/// A certificate that was issued, and its life.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) issued: Issued,
    pub(super) from: Timestamp,
    pub(super) until: Timestamp,
    /// What its responder is asked, if it names one.
    pub(super) question: Option<Arc<Question>>,
    /// Clients are to refuse it without a staple (RFC 7633).
    pub(super) demands_staple: bool,
}

/// Orders for a name that failed, for whoever orders next: this process after a restart, or another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct Failed {
    /// When the last of them did, in seconds since 1970.
    pub(super) at: i64,
    pub(super) in_a_row: u32,
}

impl Failed {
    /// How long the next order waits from `now` on. Whoever has just started waits for the first pause alone: somebody may have
    /// mended something. A time to come is of a clock that was wrong, unless it is one that may well be of another machine.
    pub(super) fn rest(self, has_begun: bool, now: Timestamp) -> Duration {
        let at = Timestamp::from_secs(self.at);
        let pause = pace::least_pause(if has_begun { self.in_a_row.saturating_sub(1) } else { 0 });
        if at.since(now) > APART { Duration::ZERO } else { at.plus(pause).since(now.max(at)) }
    }
}

/// Held while one process orders for a name; the others wait for what comes of it.
#[derive(Debug)]
pub(super) struct Turn(Option<File>);

impl Drop for Turn {
    fn drop(&mut self) {
        // To close a file may hang as well.
        if let (Ok(runtime), Some(file)) = (Handle::try_current(), self.0.take()) {
            runtime.spawn_blocking(move || drop(file));
        }
    }
}

impl Folder {
    /// The folder of this authority below `root`, whether it is there or not.
    pub(super) fn at(root: &Path, directory: &Url) -> Self {
        let id = hex::encode(digest(&SHA256, directory.as_str().as_bytes()));
        let name = format!("{}-{}", directory.host_str().unwrap_or("authority"), id.get(..8).unwrap_or_default());
        Self { path: root.join(name), places: Arc::new(Semaphore::new(PLACES)) }
    }

    /// Does something in the folder on a thread that may block, in bounded time; everything else here blocks.
    ///
    /// # Errors
    /// That of `act`, or that it took too long: it may still be done later, and nobody waits for it.
    pub(super) async fn aside<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Self) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let folder = self.clone();
        let look = async move {
            let place = Arc::clone(&folder.places).acquire_owned().await.map_err(io::Error::other)?;
            let looking = tokio::task::spawn_blocking(move || {
                let _place = place;
                act(&folder)
            });
            looking.await.map_err(io::Error::other)?
        };
        let late = |_| Err(io::Error::new(ErrorKind::TimedOut, "the folder does not answer in time"));
        tokio::time::timeout(PATIENCE, look).await.unwrap_or_else(late)
    }

    /// Makes the folder if it is not there.
    pub(super) fn make(&self) -> io::Result<()> {
        private::make_folder(&self.path)
    }

    /// Clears what crashes have left.
    pub(super) fn clear(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.path)?.flatten() {
            let passing =
                entry.path().extension().is_some_and(|end| end == "challenge" || end == "answer" || end == "new");
            let age = || entry.metadata().ok()?.modified().ok()?.elapsed().ok();
            if passing && age().is_some_and(|age| age > LEFT_OVER) {
                // Another process may have done it.
                let _gone = fs::remove_file(entry.path());
            }
        }
        Ok(())
    }

    /// What was kept of the account.
    pub(super) fn account(&self) -> io::Result<Option<String>> {
        read(&self.path.join("account.json"))
    }

    pub(super) fn keep_account(&self, account: &str) -> io::Result<()> {
        private::write(&self.path.join("account.json"), account.as_bytes())
    }

    /// The authority does not know that account any more. It is put aside, since its key may be wanted yet, unless another one
    /// has taken its place.
    pub(super) fn retire_account(&self, id: &str) -> io::Result<()> {
        let kept: Option<serde_json::Value> = self.account()?.and_then(|text| serde_json::from_str(&text).ok());
        if kept.is_some_and(|kept| kept.get("id").is_some_and(|own| own == id)) {
            fs::rename(self.path.join("account.json"), self.path.join("account.json.unknown"))?;
        }
        Ok(())
    }

    /// The orders for this name that have failed since one did not.
    pub(super) fn failed(&self, name: &str) -> io::Result<Option<Failed>> {
        let text = read(&self.of(name, "failed")?)?;
        Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
    }

    /// Keeps that in mind, or forgets it.
    pub(super) fn note(&self, name: &str, failed: Option<Failed>) -> io::Result<()> {
        let path = self.of(name, "failed")?;
        match failed {
            Some(failed) => private::write(&path, serde_json::to_string(&failed)?.as_bytes()),
            None => removed(&path),
        }
    }

    /// The certificate of this name, if there is one that can be served, with its staple, if that is good.
    pub(super) fn certificate(&self, name: &str) -> io::Result<Option<Held>> {
        let Some(text) = read(&self.of(name, "pem")?)? else { return Ok(None) };
        let held = Held::parse(name, &text)
            .ok_or_else(|| io::Error::other(format!("{name}.pem is no certificate of that name with its key")))?;
        // Without, one is asked for.
        let kept = read_bytes(&self.of(name, STAPLE)?).ok().flatten();
        Ok(Some(match kept {
            Some(response) => held.stapled(&response, SystemTime::now().into()),
            None => held,
        }))
    }

    /// Keeps the OCSP response of a name, or none any more.
    pub(super) fn keep_staple(&self, name: &str, response: Option<&[u8]>) -> io::Result<()> {
        let path = self.of(name, STAPLE)?;
        match response {
            Some(response) => private::write(&path, response),
            None => removed(&path),
        }
    }

    pub(super) fn keep(&self, held: &Held) -> io::Result<()> {
        private::write(&self.of(&held.issued.name, "pem")?, held.whole().expose())
    }

    /// The right to order for this name; `None`: another process has it.
    pub(super) fn turn(&self, name: &str) -> io::Result<Option<Turn>> {
        let path = self.of(name, "lock")?;
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Turn(Some(file)))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Lets every process that shares the folder answer a challenge: the certificate with its key is shown for `name`, and
    /// `authorization` said for `token`.
    pub(super) fn tell(&self, name: &str, shown: &str, (token, authorization): (&str, &str)) -> io::Result<()> {
        private::write(&self.of(name, "challenge")?, shown.as_bytes())?;
        private::write(&self.answer(token)?, authorization.as_bytes())
    }

    /// The challenge is over.
    pub(super) fn untell(&self, name: &str, token: &str) {
        for file in [self.of(name, "challenge"), self.answer(token)].into_iter().flatten() {
            // What is left of it opens nothing: no other order has that token.
            let _gone = fs::remove_file(file);
        }
    }

    /// The file of that name and end; what comes from elsewhere leads to no other folder.
    fn of(&self, name: &str, end: &str) -> io::Result<PathBuf> {
        if is_name(name) { Ok(self.path.join(format!("{name}.{end}"))) } else { Err(ErrorKind::InvalidFilename.into()) }
    }

    fn answer(&self, token: &str) -> io::Result<PathBuf> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let sound = !token.is_empty() && token.len() <= 200 && token.bytes().all(plain);
        if sound { Ok(self.path.join(format!("{token}.answer"))) } else { Err(ErrorKind::InvalidFilename.into()) }
    }
}

fn read(path: &Path) -> io::Result<Option<String>> {
    let bytes = read_bytes(path)?;
    bytes.map(|bytes| String::from_utf8(bytes).map_err(io::Error::other)).transpose()
}

fn read_bytes(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match postern_edge::read_regular(path, LARGEST) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn removed(path: &Path) -> io::Result<()> {
    let gone = fs::remove_file(path);
    gone.or_else(|error| if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

impl ChallengesElsewhere for Folder {
    fn shown(&self, name: &str) -> Option<(Vec<u8>, Vec<u8>)> {
        let text = read(&self.of(name, "challenge").ok()?).ok().flatten()?;
        let (key, certificate) = apart(&text)?;
        Some((certificate.as_bytes().to_vec(), key.as_bytes().to_vec()))
    }

    fn said(&self, _: &str, token: &str) -> Option<String> {
        read(&self.answer(token).ok()?).ok().flatten()
    }
}

/// Whether a name is one that files are named after: it leads to no other folder.
fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_' | b'.');
    !name.is_empty() && name.len() <= 200 && name.bytes().all(plain) && !name.starts_with('.') && !name.contains("..")
}

/// The key and what comes behind it.
pub(super) fn apart(text: &str) -> Option<(&str, &str)> {
    text.split_at_checked(text.find(CHAIN)?)
}

impl Held {
    /// The opposite of [`whole`](Self::whole), if it is for `name` and can be served.
    pub(super) fn parse(name: &str, text: &str) -> Option<Self> {
        let (key, chain) = apart(text)?;
        Self::new(name, chain, key)
    }

    /// Whether that is the same certificate, whatever is stapled to it.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.issued.chain == other.issued.chain
    }

    /// The key, and the chain behind it.
    pub(super) fn whole(&self) -> Secret<Vec<u8>> {
        Secret::new([self.issued.key.expose().as_slice(), &self.issued.chain].concat())
    }

    /// What was issued for `name`, if it can be served.
    pub(super) fn new(name: &str, chain: &str, key: &str) -> Option<Self> {
        let ders: Vec<_> = CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<_, _>>().ok()?;
        let private = PrivateKeyDer::from_pem_slice(key.as_bytes()).ok()?;
        let leaf = ders.first()?.clone();
        let question = Question::about(&ders).map(Arc::new);
        CertifiedKey::from_der(ders, private, &rustls::crypto::aws_lc_rs::default_provider()).ok()?;
        let demands_staple = postern_edge::demands_staple(&leaf);
        let (_, leaf) = X509Certificate::from_der(&leaf).ok()?;
        let names = leaf.subject_alternative_name().ok().flatten()?;
        let named =
            |other: &GeneralName<'_>| matches!(other, GeneralName::DNSName(dns) if dns.eq_ignore_ascii_case(name));
        let validity = leaf.validity();
        let at = |time: x509_parser::time::ASN1Time| Timestamp::from_secs(time.timestamp());
        names.value.general_names.iter().any(named).then(|| Self {
            issued: Issued {
                name: name.to_owned(),
                chain: chain.as_bytes().to_vec(),
                key: Secret::new(key.as_bytes().to_vec()),
                staple: None,
            },
            from: at(validity.not_before),
            until: at(validity.not_after),
            question,
            demands_staple,
        })
    }

    /// The same with a response that was kept, if that is one to staple.
    pub(super) fn stapled(mut self, response: &[u8], now: Timestamp) -> Self {
        let answer = self.question.as_ref().and_then(|question| question.answer(response, now).ok());
        if let Some(Answer::Good(staple)) = answer {
            self.issued.staple = Some(staple);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn made(name: &str) -> Held {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        Held::new(name, &made.cert.pem(), &made.signing_key.serialize_pem()).unwrap()
    }

    fn folder(root: &Path) -> Folder {
        let folder = Folder::at(root, &Url::parse("https://acme.example/directory").unwrap());
        folder.make().unwrap();
        folder
    }

    #[test]
    fn what_is_kept_is_private_whole_and_of_one_authority() {
        let root = tempfile::tempdir().unwrap();
        let folder = folder(&root.path().join("deep/autocert"));
        assert!(folder.certificate("a.example").unwrap().is_none() && folder.account().unwrap().is_none());
        let held = made("a.example");
        folder.keep(&held).unwrap();
        folder.keep_account("{}").unwrap();
        let found = folder.certificate("a.example").unwrap().unwrap();
        assert_eq!((found.issued.chain, found.issued.key.expose()), (held.issued.chain, held.issued.key.expose()));
        for entry in fs::read_dir(&folder.path).unwrap() {
            let mode = entry.unwrap().metadata().unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600);
        }
        let other = Folder::at(&root.path().join("deep/autocert"), &Url::parse("https://acme.example/other").unwrap());
        assert!(other.certificate("a.example").unwrap().is_none());
    }

    #[test]
    fn failures_are_remembered_and_forgotten_and_what_crashes_left_is_cleared() {
        let root = tempfile::tempdir().unwrap();
        let folder = folder(root.path());
        let failed = Failed { at: 1_800_000_000, in_a_row: 3 };
        assert_eq!(folder.failed("a.example").unwrap(), None);
        folder.note("a.example", Some(failed)).unwrap();
        assert_eq!((folder.failed("a.example").unwrap(), folder.failed("b.example").unwrap()), (Some(failed), None));
        fs::write(folder.path.join("b.example.failed"), "no JSON").unwrap();
        assert_eq!(folder.failed("b.example").unwrap(), None);
        folder.note("a.example", None).unwrap();
        folder.note("a.example", None).unwrap();
        assert_eq!(folder.failed("a.example").unwrap(), None);

        let long_ago = SystemTime::now() - 2 * LEFT_OVER;
        for (name, age) in [("old.answer", long_ago), ("old.challenge", long_ago), ("old.pem", long_ago)] {
            let file = File::create(folder.path.join(name)).unwrap();
            file.set_modified(age).unwrap();
        }
        fs::write(folder.path.join("new.answer"), "").unwrap();
        folder.clear().unwrap();
        let is_left = |name| folder.path.join(name).exists();
        assert_eq!(["old.answer", "old.challenge", "old.pem", "new.answer"].map(is_left), [false, false, true, true]);
    }

    #[test]
    fn the_next_order_waits_for_whoever_ordered_last_but_not_for_a_wrong_clock() {
        let (at, minutes) = (Timestamp::from_secs(1_800_000_000), |minutes: u64| Duration::from_secs(60 * minutes));
        let failed = Failed { at: at.as_secs(), in_a_row: 3 };
        assert_eq!(failed.rest(true, at.plus(minutes(1))), minutes(19));
        assert_eq!(failed.rest(true, at.plus(minutes(20))), Duration::ZERO);
        assert_eq!(failed.rest(false, at.plus(minutes(1))), minutes(4), "after a start");
        assert_eq!(failed.rest(true, at.minus(minutes(1))), Duration::ZERO);
        assert_eq!(failed.rest(true, at.minus(APART)), minutes(20), "the clock of another machine");
        assert_eq!(Failed { in_a_row: u32::MAX, ..failed }.rest(true, at), minutes(360));
    }

    #[test]
    fn only_the_account_that_is_unknown_is_put_aside() {
        let root = tempfile::tempdir().unwrap();
        let folder = folder(root.path());
        folder.retire_account("https://acme.example/1").unwrap();
        let account = r#"{"id": "https://acme.example/2", "key_pkcs8": "x"}"#;
        folder.keep_account(account).unwrap();
        folder.retire_account("https://acme.example/1").unwrap();
        assert_eq!(folder.account().unwrap().as_deref(), Some(account));
        folder.retire_account("https://acme.example/2").unwrap();
        assert_eq!(folder.account().unwrap(), None);
        assert_eq!(fs::read_to_string(folder.path.join("account.json.unknown")).unwrap(), account);
    }

    #[test]
    fn r_021_a_file_that_is_no_certificate_of_its_name_is_not_served() {
        let root = tempfile::tempdir().unwrap();
        let folder = folder(root.path());
        let (a, b) = (made("a.example"), made("b.example"));
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let (key, chain) = (text(a.issued.key.expose()), text(&a.issued.chain));
        for content in [String::new(), key.clone(), chain, key + &text(&b.issued.chain), "x".repeat(2 << 20)] {
            fs::write(folder.path.join("a.example.pem"), &content).unwrap();
            assert!(folder.certificate("a.example").is_err(), "{} bytes", content.len());
        }
        folder.keep(&Held { issued: Issued { name: "b.example".to_owned(), ..a.issued }, ..a }).unwrap();
        assert!(folder.certificate("b.example").is_err(), "it is for another name");
    }

    #[test]
    fn whether_a_certificate_must_be_stapled_is_known_of_it() {
        let made = |feature: u8| {
            let key = rcgen::KeyPair::generate().unwrap();
            let mut params = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
            let features = [1, 3, 6, 1, 5, 5, 7, 1, 24];
            params.custom_extensions =
                vec![rcgen::CustomExtension::from_oid_content(&features, vec![0x30, 3, 2, 1, feature])];
            Held::new("a.example", &params.self_signed(&key).unwrap().pem(), &key.serialize_pem()).unwrap()
        };
        assert_eq!([17, 5].map(|feature| made(feature).demands_staple), [false, true]);
    }

    #[tokio::test(start_paused = true)]
    async fn r_021_a_folder_that_hangs_is_not_waited_for_and_keeps_few_threads() {
        let root = tempfile::tempdir().unwrap();
        let folder = folder(root.path());
        // As long as all places are taken nothing else is begun.
        let _taken = Arc::clone(&folder.places).acquire_many_owned(4).await.unwrap();
        let late = folder.aside(|folder| folder.certificate("a.example")).await.unwrap_err();
        assert_eq!(late.kind(), ErrorKind::TimedOut);
    }

    #[test]
    fn one_process_orders_for_a_name_at_a_time() {
        let root = tempfile::tempdir().unwrap();
        let (here, there) = (folder(root.path()), folder(root.path()));
        let turn = here.turn("a.example").unwrap().unwrap();
        assert!(there.turn("a.example").unwrap().is_none());
        assert!(there.turn("b.example").unwrap().is_some());
        drop(turn);
        assert!(there.turn("a.example").unwrap().is_some());
    }

    #[test]
    fn a_challenge_that_one_process_tells_of_is_answered_by_all_that_share_the_folder() {
        let root = tempfile::tempdir().unwrap();
        let (here, there) = (folder(root.path()), folder(root.path()));
        let held = made("a.example");
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let (key, chain) = (text(held.issued.key.expose()), text(&held.issued.chain));
        here.tell("a.example", &format!("{key}{chain}"), ("to-ken_1", "to-ken_1.print")).unwrap();
        assert_eq!(there.shown("a.example"), Some((chain.into_bytes(), key.into_bytes())));
        assert_eq!(there.said("a.example", "to-ken_1").as_deref(), Some("to-ken_1.print"));
        fs::write(root.path().join("secret.challenge"), CHAIN).unwrap();
        for name in ["../secret", "b.example", "", ".", "A.example", "a.example/../a.example"] {
            assert_eq!(there.shown(name), None, "{name}");
        }
        for token in ["", "../to-ken_1", "to-ken_1.answer", "other"] {
            assert_eq!(there.said("a.example", token), None, "{token}");
        }
        assert!(here.tell("a.example", "", ("../../token", "")).is_err(), "whatever an authority calls it");
        here.untell("a.example", "to-ken_1");
        assert!(there.shown("a.example").is_none() && there.said("a.example", "to-ken_1").is_none());
    }
}
