//! Staples: of each certificate that names an OCSP responder a good answer is held, shown with it, and replaced at half of its life.
//! While there is no new one the old one is shown until its end. A certificate that is revoked is due at once.

use std::time::Duration;

use http::StatusCode;
use http::header::{ACCEPT, CONTENT_TYPE};
use postern_edge::{CertificateReader, Staple};
use postern_identity::{NEVER, Timestamp};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, info, warn};

use super::folder::Held;
use super::ocsp::{Answer, Question, Unfit};
use super::work::{ELSEWHERE, LOOK, Work, now};
use super::{pace, store};
use crate::https::{self, HttpsError};

/// A call to a responder is not waited for longer.
const WHOLE_CALL: Duration = Duration::from_secs(10);
/// No response is larger: a few hundred bytes, and a few thousand with the certificate of its signer.
const LARGEST: usize = 32 << 10;
/// A certificate that must be stapled, and takes the place of none that does, is served without a staple after this.
const FIRST_STAPLE: Duration = Duration::from_secs(10);
/// Calls under way at once.
const PLACES: usize = 4;

/// Asks responders.
#[derive(Debug)]
pub(super) struct Responders {
    client: reqwest::Client,
    places: Semaphore,
}

/// Why a responder has said nothing that can be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoAnswer {
    #[error("the OCSP responder cannot be asked")]
    Call(#[source] reqwest::Error),
    #[error("the OCSP responder answers with {0}")]
    Status(StatusCode),
    #[error("the OCSP responder says too much")]
    Large,
    #[error("what the OCSP responder says is not stapled: {0}")]
    Unfit(#[from] Unfit),
}

impl From<reqwest::Error> for NoAnswer {
    fn from(error: reqwest::Error) -> Self {
        Self::Call(error.without_url())
    }
}

impl Responders {
    /// Those that speak https are believed as authorities are.
    pub(super) fn new(trusted: Option<&[u8]>) -> Result<Self, HttpsError> {
        Ok(Self { client: https::client(trusted, WHOLE_CALL)?, places: Semaphore::new(PLACES) })
    }

    /// The right to ask. The places are never closed.
    async fn place(&self) -> Option<SemaphorePermit<'_>> {
        self.places.acquire().await.ok()
    }

    /// For who has a place. `known`: nothing good is believed that is older.
    async fn ask(&self, question: &Question, known: Option<Timestamp>) -> Result<Answer, NoAnswer> {
        let call = self.client.post(question.responder.clone()).header(CONTENT_TYPE, "application/ocsp-request");
        let call = call.header(ACCEPT, "application/ocsp-response").body(question.request.clone());
        let answer = call.send().await?;
        if answer.status() != StatusCode::OK {
            return Err(NoAnswer::Status(answer.status()));
        }
        let response = https::body(answer, LARGEST).await?.ok_or(NoAnswer::Large)?;
        Ok(question.answer(&response, now())?.not_before(known)?)
    }
}

/// What comes of the wish for a staple.
enum Said {
    Good(Staple),
    /// When that was known to be so.
    Revoked(Timestamp),
    /// Another process asks.
    Elsewhere,
}

/// How asking about the certificates of one name goes.
#[derive(Debug, Default)]
struct Round {
    /// The one that it is about.
    about: Option<Held>,
    /// The responder is asked then.
    next: Timestamp,
    failures: u32,
    /// So many certificates in a row were revoked.
    revoked: u32,
}

impl Work {
    /// Keeps the staple of one name fresh, for ever.
    pub(super) async fn keep_staple(&self, name: &str, reader: &CertificateReader) {
        let (mut news, mut round) = (self.news.subscribe(), Round::default());
        loop {
            news.mark_unchanged();
            let rest = self.refresh(name, &mut round, reader).await;
            tokio::select! {
                () = tokio::time::sleep(rest) => {}
                // Who tells of news lives as long as this.
                _ = news.changed() => {}
            }
        }
    }

    /// A staple for a certificate that nobody is shown yet. It is waited for as long as the certificate before does; without one, or
    /// where no responder can be asked, for one answer alone.
    pub(super) async fn first_staple(&self, name: &str, held: &Held) -> Option<Staple> {
        let question = held.question.as_ref()?;
        let (mut news, mut failures) = (self.news.subscribe(), 0);
        loop {
            // As a whole: many names may wait for few places.
            match timeout(FIRST_STAPLE, self.said(name, question, None)).await {
                Ok(Ok(Said::Good(staple))) => {
                    self.copy_staple(name, Some(&staple)).await;
                    return Some(staple);
                }
                Ok(Ok(Said::Revoked(_) | Said::Elsewhere)) | Err(_) => {}
                Ok(Err(error)) => debug!(name, error = crate::chain(&error), "there is no staple yet"),
            }
            let spare = self.spare(name);
            if spare.is_zero() {
                return None;
            }
            if failures == 0 {
                warn!(
                    name,
                    "the certificate before is served on: the new one must be stapled, and there is no staple yet"
                );
            }
            let again = Instant::now() + pace::staple_pause(failures).min(spare);
            failures = failures.saturating_add(1);
            // It may be revoked, or not be wanted any more. Who tells of news lives as long as this.
            while !self.spare(name).is_zero() {
                tokio::select! {
                    () = sleep_until(again) => break,
                    _ = news.changed() => {}
                }
            }
        }
    }

    /// Does what is due, and says how long there is nothing to do.
    async fn refresh(&self, name: &str, round: &mut Round, reader: &CertificateReader) -> Duration {
        let Some(held) = self.held(name) else { return LOOK };
        if round.about.as_ref().is_none_or(|before| !before.is_same(&held)) {
            self.tell_of(name, &held);
            let staple = held.issued.staple.as_ref();
            (round.next, round.failures) = (staple.map_or_else(now, |one| pace::half(one.from, one.until)), 0);
        }
        if let Some(question) = &held.question
            && round.next <= now()
        {
            let known = held.issued.staple.as_ref().map(|staple| staple.from).max(self.revoked(name, &held));
            match self.said(name, question, known).await {
                Ok(said) => self.take_what_is_said((name, &held), round, said, reader).await,
                Err(error) => {
                    let pause = pace::staple_pause(round.failures);
                    let (error, again_in) = (crate::chain(&error), pause.as_secs());
                    warn!(
                        name,
                        error,
                        again_in,
                        "there is no new staple; the one before, if there is one, is shown until its end"
                    );
                    round.failures = round.failures.saturating_add(1);
                    round.next = now().plus(pause);
                }
            }
        }
        let staple = self.held(name).and_then(|held| held.issued.staple);
        if staple.as_ref().is_some_and(|staple| staple.until <= now()) {
            // The listener shows it no more by itself.
            warn!(name, "the staple has expired, and there is no new one");
            self.staple(name, &held, None, reader).await;
        }
        let next = if held.question.is_some() { round.next } else { NEVER };
        round.about = Some(held);
        staple.map_or(next, |staple| staple.until.min(next)).since(now()).min(LOOK)
    }

    async fn take_what_is_said(
        &self,
        (name, of): (&str, &Held),
        round: &mut Round,
        said: Said,
        reader: &CertificateReader,
    ) {
        match said {
            Said::Good(staple) => {
                debug!(name, until = %staple.until, "there is a new staple");
                (round.next, round.failures, round.revoked) =
                    (pace::staple_renewal(staple.from, staple.until, now()), 0, 0);
                self.copy_staple(name, Some(&staple)).await;
                self.staple(name, of, Some(staple), reader).await;
            }
            Said::Revoked(at) => {
                round.next = now().plus(pace::LONGEST_STAPLE_PAUSE);
                // It was said before: another one is ordered already.
                if self.revoked(name, of).is_some() {
                    return;
                }
                // Of an authority that revokes whatever it issues, no more is ordered than it allows.
                let pause = round.revoked.checked_sub(1).map_or(Duration::ZERO, pace::pause);
                let again_in = pause.as_secs();
                warn!(name, again_in, "the authority has revoked the certificate: another one is ordered");
                round.revoked = round.revoked.saturating_add(1);
                self.copy_staple(name, None).await;
                self.staple(name, of, None, reader).await;
                self.revoke(name, of, at, now().plus(pause));
            }
            Said::Elsewhere => round.next = now().plus(ELSEWHERE),
        }
    }

    /// Keeps it in the folder.
    pub(super) async fn copy_staple(&self, name: &str, staple: Option<&Staple>) {
        let Some(folder) = &self.folder else { return };
        let (of, response) = (name.to_owned(), staple.map(|staple| staple.response.clone()));
        if let Err(error) = folder.aside(move |folder| folder.keep_staple(&of, response.as_deref())).await {
            warn!(%error, name, "the staple cannot be kept in the folder: the next start asks for one");
        }
    }

    /// What others have left, if it is news; else what the responder says. One process asks for all that share the store. `known`:
    /// something was said of the certificate at that time.
    async fn said(&self, name: &str, question: &Question, known: Option<Timestamp>) -> Result<Said, NoAnswer> {
        // Before the turn, which is over after a while whether somebody waits in it or not.
        let _place = self.responders.place().await;
        let Some(store) = self.store.get() else { return self.asked(question, known).await };
        // Looked for in this order: who has let go of the turn has left what it was told.
        let turn = store.turn_of_staple(name).await;
        if let Ok(Some(left)) = store.staple(name).await
            && let Ok(Answer::Good(staple)) = question.answer(&left, now())
            && known < Some(staple.from)
            && now() < pace::half(staple.from, staple.until)
        {
            return Ok(Said::Good(staple));
        }
        let turn = match turn {
            Ok(None) => return Ok(Said::Elsewhere),
            Ok(turn) => turn,
            // To ask takes nothing from anybody.
            Err(error) => {
                debug!(%error, name, "others may ask for the same staple");
                None
            }
        };
        let said = self.asked(question, known).await?;
        if let Some(turn) = turn {
            leave(name, &turn, &said).await;
        }
        Ok(said)
    }

    async fn asked(&self, question: &Question, known: Option<Timestamp>) -> Result<Said, NoAnswer> {
        let answer = self.responders.ask(question, known).await;
        let outcome = match &answer {
            Ok(Answer::Good(_)) => "ok",
            Ok(Answer::Revoked(_)) => "revoked",
            Err(_) => "error",
        };
        self.metrics.staples.with_label_values(&[outcome]).inc();
        Ok(match answer? {
            Answer::Good(staple) => Said::Good(staple),
            Answer::Revoked(at) => Said::Revoked(at),
        })
    }

    /// What is expected of a certificate that is new here.
    fn tell_of(&self, name: &str, held: &Held) {
        if self.lacks_must_staple(held) {
            warn!(
                name,
                "`autocert_must_staple` is on, and the certificate does not have it: it was ordered before, or the authority has left it out; it is served all the same"
            );
        }
        match &held.question {
            Some(question) => info!(name, responder = %question.responder, "its OCSP responder is asked for a staple"),
            None if self.settings.must_staple || held.demands_staple => {
                warn!(
                    name,
                    "nothing can be stapled: the certificate names no OCSP responder, or its issuer is not behind it"
                );
            }
            None => {}
        }
    }

    /// Whether a certificate is to be stapled and is not.
    pub(super) fn wants_staple(&self, held: &Held, now: Timestamp) -> bool {
        let is_wanted = self.settings.must_staple || held.demands_staple || held.question.is_some();
        is_wanted && held.issued.staple.as_ref().is_none_or(|staple| staple.until <= now)
    }

    /// Whether a certificate is not as it is ordered now.
    pub(super) fn lacks_must_staple(&self, held: &Held) -> bool {
        self.settings.must_staple && !held.demands_staple
    }
}

/// Lets the others know.
async fn leave(name: &str, turn: &store::Turn, said: &Said) {
    let left = match said {
        Said::Good(staple) => turn.keep_staple(Some(staple)).await,
        Said::Revoked(_) => turn.keep_staple(None).await,
        Said::Elsewhere => return,
    };
    if !matches!(left, Ok(true)) {
        debug!(name, "others cannot take the staple");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::sync::Arc;

    use rcgen::SerialNumber;

    use super::super::ocsp::tests::{Authority, GOOD, responder_at};
    use super::super::{Metrics, Orders};
    use super::*;
    use crate::config::Autocert;

    const NAME: &str = "a.example";

    /// Answers one question on a connection of its own, with that status line and body.
    fn answer(listener: &TcpListener, status: &str, body: &[u8]) {
        let (mut connection, _) = listener.accept().unwrap();
        let mut asked = [0; 4096];
        assert!(connection.read(&mut asked).unwrap() > 0);
        let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
        connection.write_all(&[head.as_bytes(), body].concat()).unwrap();
        // Until it is closed there, so that nothing is lost.
        let _closed = connection.read(&mut asked);
    }

    /// One without a staple that clients are to refuse, and whose responder is at that URL.
    fn demanding(authority: &Authority, url: &str) -> Held {
        let (leaf, key) = authority.certified(|params| {
            params.serial_number = Some(SerialNumber::from(GOOD));
            let must_staple =
                rcgen::CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 24], vec![0x30, 3, 2, 1, 5]);
            params.custom_extensions = vec![responder_at(url), must_staple];
        });
        Held::new(NAME, &(leaf.pem() + &authority.issuer.pem()), &key.serialize_pem()).unwrap()
    }

    /// Holds one that needs no staple, for many years.
    fn work(folder: &std::path::Path, authority: &Authority) -> (Arc<Work>, Held) {
        let (leaf, key) = authority.certified(|_| {});
        let held = Held::new(NAME, &leaf.pem(), &key.serialize_pem()).unwrap();
        let settings = Autocert {
            directory: "https://acme.example/directory".parse().unwrap(),
            email: None,
            account: None,
            folder: folder.to_owned(),
            trusted_ca: None,
            must_staple: true,
            answers_http: false,
            names: vec![NAME.to_owned()],
        };
        let Orders { issued, challenges, metrics, .. } = Orders::register(&prometheus::Registry::new()).unwrap();
        let work = Work::begin(&settings, &issued, &challenges, metrics).unwrap();
        work.take(&settings.names, BTreeMap::from([(NAME.to_owned(), held.clone())]));
        (Arc::new(work), held)
    }

    fn asked_in_vain(metrics: &Metrics) -> u64 {
        metrics.staples.with_label_values(&["error"]).get()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_certificate_that_must_be_stapled_waits_for_its_staple_while_the_one_before_does() {
        let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let new = demanding(&authority, &format!("http://{}", listener.local_addr().unwrap()));
        let response = authority.says(new.question.as_ref().unwrap(), "issuer", "-ndays 1");
        let expected = response.clone();
        let (work, _) = work(folder.path(), &authority);
        let metrics = work.metrics.clone();
        // No task of the runtime, which would wait for it if the test failed.
        std::thread::spawn(move || {
            answer(&listener, "503 Service Unavailable", b"");
            // It is asked again, so the first answer has changed nothing.
            answer(&listener, "200 OK", &response);
        });
        let staple = work.first_staple(NAME, &new).await.expect("a staple");
        assert_eq!((staple.response, asked_in_vain(&metrics)), (expected, 1));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_certificate_takes_the_place_of_one_that_is_revoked_without_a_staple() {
        let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let new = demanding(&authority, &format!("http://{}", listener.local_addr().unwrap()));
        let (work, old) = work(folder.path(), &authority);
        assert!(!work.spare(NAME).is_zero());
        let (waiting, of) = (Arc::clone(&work), new.clone());
        let waits = tokio::spawn(async move { waiting.first_staple(NAME, &of).await });
        let (asked, is_asked) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            answer(&listener, "503 Service Unavailable", b"");
            // It may be asked once more, and nobody answers.
            drop(listener);
            asked.send(()).unwrap();
        });
        timeout(6 * FIRST_STAPLE, is_asked).await.unwrap().unwrap();
        assert_eq!((work.revoked(NAME, &old), work.revoked(NAME, &new)), (None, None));
        work.revoke(NAME, &old, now(), now());
        assert!(work.spare(NAME).is_zero() && work.revoked(NAME, &old).is_some());
        assert_eq!(timeout(6 * FIRST_STAPLE, waits).await.unwrap().unwrap(), None);
        assert_eq!(work.first_staple("b.example", &new).await, None, "there is none before");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_first_staple_is_not_waited_for_where_all_places_are_taken() {
        let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
        let new = demanding(&authority, "http://127.0.0.1:1");
        let (work, old) = work(folder.path(), &authority);
        work.revoke(NAME, &old, now(), now());
        let _taken = work.responders.places.acquire_many(u32::try_from(PLACES).unwrap()).await.unwrap();
        let ended = timeout(6 * FIRST_STAPLE, work.first_staple(NAME, &new)).await;
        assert_eq!((ended, asked_in_vain(&work.metrics)), (Ok(None), 0));
    }
}
