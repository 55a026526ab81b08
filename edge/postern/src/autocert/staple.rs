//! Staples: of each certificate that names an OCSP responder a good answer is held, shown with it, and replaced at half of its life.
//! While there is no new one the old one is shown until its end. A certificate that is revoked is due at once.

use std::time::Duration;

use http::StatusCode;
use http::header::{ACCEPT, CONTENT_TYPE};
use postern_edge::{CertificateReader, Staple};
use postern_identity::{NEVER, Timestamp};
use tokio::sync::Semaphore;
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

    async fn ask(&self, question: &Question) -> Result<Answer, NoAnswer> {
        // It is never closed.
        let _place = self.places.acquire().await;
        let call = self.client.post(question.responder.clone()).header(CONTENT_TYPE, "application/ocsp-request");
        let call = call.header(ACCEPT, "application/ocsp-response").body(question.request.clone());
        let answer = call.send().await?;
        if answer.status() != StatusCode::OK {
            return Err(NoAnswer::Status(answer.status()));
        }
        let response = https::body(answer, LARGEST).await?.ok_or(NoAnswer::Large)?;
        Ok(question.answer(&response, now())?)
    }
}

/// What comes of the wish for a staple.
enum Said {
    Good(Staple),
    Revoked,
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

    /// A staple for a certificate that nobody is shown yet, as far as there is one in time.
    pub(super) async fn first_staple(&self, name: &str, held: &Held) -> Option<Staple> {
        let question = held.question.as_ref()?;
        match self.said(name, question, None).await {
            Ok(Said::Good(staple)) => {
                self.copy_staple(name, Some(&staple)).await;
                Some(staple)
            }
            Ok(Said::Revoked | Said::Elsewhere) => None,
            Err(error) => {
                debug!(name, error = crate::chain(&error), "there is no staple yet");
                None
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
            match self.said(name, question, held.issued.staple.as_ref()).await {
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
            Said::Revoked => {
                // Of an authority that revokes whatever it issues, no more is ordered than it allows.
                let pause = round.revoked.checked_sub(1).map_or(Duration::ZERO, pace::pause);
                let again_in = pause.as_secs();
                warn!(name, again_in, "the authority has revoked the certificate: another one is ordered");
                round.revoked = round.revoked.saturating_add(1);
                round.next = now().plus(pace::LONGEST_STAPLE_PAUSE);
                self.copy_staple(name, None).await;
                self.staple(name, of, None, reader).await;
                self.hasten(name, of, now().plus(pause));
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

    /// What others have left, if it is news; else what the responder says. One process asks for all that share the store.
    async fn said(&self, name: &str, question: &Question, held: Option<&Staple>) -> Result<Said, NoAnswer> {
        let Some(store) = self.store.get() else { return self.asked(question).await };
        // Looked for in this order: who has let go of the turn has left what it was told.
        let turn = store.turn_of_staple(name).await;
        if let Ok(Some(left)) = store.staple(name).await
            && let Ok(Answer::Good(staple)) = question.answer(&left, now())
            && held.is_none_or(|held| held.from < staple.from)
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
        let said = self.asked(question).await?;
        if let Some(turn) = turn {
            leave(name, &turn, &said).await;
        }
        Ok(said)
    }

    async fn asked(&self, question: &Question) -> Result<Said, NoAnswer> {
        let answer = self.responders.ask(question).await;
        let outcome = match &answer {
            Ok(Answer::Good(_)) => "ok",
            Ok(Answer::Revoked) => "revoked",
            Err(_) => "error",
        };
        self.metrics.staples.with_label_values(&[outcome]).inc();
        Ok(match answer? {
            Answer::Good(staple) => Said::Good(staple),
            Answer::Revoked => Said::Revoked,
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
        Said::Revoked => turn.keep_staple(None).await,
        Said::Elsewhere => return,
    };
    if !matches!(left, Ok(true)) {
        debug!(name, "others cannot take the staple");
    }
}
