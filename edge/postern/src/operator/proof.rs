//! Proof of holding the `shared_secret`, without showing it: a MAC under a key that is derived for nothing else, over all of a
//! request and over when it was made, good once. What is asked and what is answered is sealed under another such key, so that
//! whoever else sits on the port learns nothing and can say nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderName;
use postern_identity::{Keyring, Purpose, RandomError, SecretIndex, Timestamp, random};

/// The field that carries a proof: `1.<milliseconds since 1970>.<nonce>.<MAC>`, the last two in base64.
pub(super) const FIELD: HeaderName = HeaderName::from_static("postern-operator");
/// So old a proof may be, and so far ahead a clock.
pub(super) const WINDOW: Duration = Duration::from_secs(30);
/// So many proofs are remembered; more within the window are refused.
const REMEMBERED: usize = 4096;
const VERSION: &str = "1";
const DOMAIN: &[u8] = b"postern operator request";

/// What a request is called, so that its proof is good for no other one, and its answer answers no other one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Nonce([u8; 16]);

/// The method and path that are asked, which a proof is for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
}

/// Whom an answer is for: a request, and the secret that it was proven with, which whoever asked has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asker {
    nonce: Nonce,
    secret: SecretIndex,
}

/// A request with its proof.
#[derive(Debug)]
pub(super) struct Proven {
    pub(super) nonce: Nonce,
    /// The value of [`FIELD`].
    pub(super) field: String,
    /// The question, sealed.
    pub(super) body: Vec<u8>,
}

/// Makes a question that only the holder of the secret can have asked, and only they can read.
pub(super) fn prove(
    keyring: &Keyring,
    target: Target<'_>,
    question: &[u8],
    now: Timestamp,
) -> Result<Proven, RandomError> {
    let nonce = Nonce(random()?);
    let body = keyring.seal(Purpose::Operator, &context(b"question", nonce), question)?;
    let made = now.as_millis().to_be_bytes();
    let mac = keyring.mac(Purpose::Operator, &parts_of(target, &made, &nonce, &body));
    let field =
        format!("{VERSION}.{}.{}.{}", now.as_millis(), URL_SAFE_NO_PAD.encode(nonce.0), URL_SAFE_NO_PAD.encode(mac));
    Ok(Proven { nonce, field, body })
}

/// What was answered to that request; `None` if anybody else than the holder of the secret answered it, or another one.
pub(super) fn read(keyring: &Keyring, nonce: Nonce, sealed: &[u8]) -> Option<Vec<u8>> {
    keyring.open(Purpose::Operator, &context(b"answer", nonce), sealed)
}

/// Why a request proves nothing. To who asks all but the first two are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unproven {
    /// It was made too long ago, or the clocks differ; its MAC is right.
    #[error("the proof is too old, or made by a clock that is ahead")]
    Age,
    /// There were too many within the window.
    #[error("too much was asked in a short time")]
    TooMany,
    /// No proof, or one of another form.
    #[error("there is no proof")]
    Missing,
    /// The MAC is of another secret, or of another request.
    #[error("the proof is wrong")]
    Wrong,
    /// It has been used.
    #[error("the proof has been used")]
    Used,
}

/// Checks proofs, and takes none twice.
#[derive(Debug)]
pub(super) struct Guard {
    keyring: Arc<Keyring>,
    used: Mutex<Used>,
}

/// The proofs that could come again, each with when it cannot any more.
#[derive(Debug, Default)]
struct Used {
    until: HashMap<Nonce, Timestamp>,
    /// The latest time that was seen: a clock that is put back makes no proof new again.
    latest: Timestamp,
}

impl Guard {
    pub(super) fn new(keyring: Arc<Keyring>) -> Self {
        Self { keyring, used: Mutex::default() }
    }

    /// The question of a request that proves to be asked by the holder of the secret.
    pub(super) fn check(
        &self,
        target: Target<'_>,
        field: Option<&str>,
        body: &[u8],
        now: Timestamp,
    ) -> Result<(Asker, Vec<u8>), Unproven> {
        let (made, nonce, shown) = field.and_then(parts).ok_or(Unproven::Missing)?;
        let made_at = made.as_millis().to_be_bytes();
        if !self.keyring.verify(Purpose::Operator, &parts_of(target, &made_at, &nonce, body), &shown) {
            return Err(Unproven::Wrong);
        }
        // Nobody is held up: whoever gets here holds the secret.
        self.used.lock().unwrap_or_else(PoisonError::into_inner).take(nonce, made, now)?;
        let question = self.keyring.open_by(Purpose::Operator, &context(b"question", nonce), body);
        question.map(|(secret, question)| (Asker { nonce, secret }, question)).ok_or(Unproven::Wrong)
    }

    /// The answer to that request.
    pub(super) fn seal(&self, asker: Asker, answer: &[u8]) -> Result<Vec<u8>, RandomError> {
        self.keyring.seal_by(asker.secret, Purpose::Operator, &context(b"answer", asker.nonce), answer)
    }
}

impl Used {
    fn take(&mut self, nonce: Nonce, made: Timestamp, now: Timestamp) -> Result<(), Unproven> {
        let now = now.max(self.latest);
        self.latest = now;
        if now.since(made) > WINDOW || made.since(now) > WINDOW {
            return Err(Unproven::Age);
        }
        self.until.retain(|_, until| *until >= now);
        if self.until.contains_key(&nonce) {
            return Err(Unproven::Used);
        }
        if self.until.len() >= REMEMBERED {
            return Err(Unproven::TooMany);
        }
        self.until.insert(nonce, made.plus(WINDOW));
        Ok(())
    }
}

/// What a proof is about.
const fn parts_of<'p>(target: Target<'p>, made: &'p [u8; 8], nonce: &'p Nonce, body: &'p [u8]) -> [&'p [u8]; 6] {
    [DOMAIN, target.method.as_bytes(), target.path.as_bytes(), made, &nonce.0, body]
}

fn context(direction: &[u8], nonce: Nonce) -> Vec<u8> {
    [direction, b" ", &nonce.0].concat()
}

/// Whether a field looks like a proof, right or wrong: what does not costs no more than this.
pub(super) fn is_proof(field: &str) -> bool {
    parts(field).is_some()
}

fn parts(field: &str) -> Option<(Timestamp, Nonce, [u8; 32])> {
    let mut parts = field.split('.');
    let (version, made, nonce, mac) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    if version != VERSION || parts.next().is_some() {
        return None;
    }
    let made = Timestamp::from_millis(made.parse().ok()?);
    let nonce = Nonce(URL_SAFE_NO_PAD.decode(nonce).ok()?.try_into().ok()?);
    Some((made, nonce, URL_SAFE_NO_PAD.decode(mac).ok()?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use postern_identity::Secret;

    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
    const TARGET: Target<'_> = Target { method: "POST", path: "/operator/session" };

    fn keyring(secret: u8) -> Arc<Keyring> {
        Arc::new(Keyring::derive(&Secret::new([secret; 32]), &Secret::new([9; 32])))
    }

    fn asked() -> Proven {
        prove(&keyring(1), TARGET, b"who?", NOW).unwrap()
    }

    fn check(guard: &Guard, target: Target<'_>, asked: &Proven, now: Timestamp) -> Result<Vec<u8>, Unproven> {
        guard.check(target, Some(&asked.field), &asked.body, now).map(|(_, question)| question)
    }

    #[test]
    fn while_the_secret_is_replaced_who_holds_either_asks_and_reads() {
        let accepted = [Secret::new([3; 32])];
        let rotating = Keyring::derive_with(&Secret::new([1; 32]), &accepted, &Secret::new([9; 32]));
        let guard = Guard::new(Arc::new(rotating));
        for secret in [1, 3] {
            let asked = prove(&keyring(secret), TARGET, b"who?", NOW).unwrap();
            let (asker, _) = guard.check(TARGET, Some(&asked.field), &asked.body, NOW).unwrap();
            let answer = guard.seal(asker, b"alice").unwrap();
            assert_eq!(read(&keyring(secret), asked.nonce, &answer).as_deref(), Some(&b"alice"[..]), "{secret}");
        }
    }

    #[test]
    fn the_holder_of_the_secret_asks_and_reads_and_nobody_else_reads() {
        let (guard, proven) = (Guard::new(keyring(1)), asked());
        let (asker, question) = guard.check(TARGET, Some(&proven.field), &proven.body, NOW).unwrap();
        let nonce = asker.nonce;
        assert_eq!((question.as_slice(), nonce), (&b"who?"[..], proven.nonce));
        assert!(!proven.body.windows(4).any(|part| part == b"who?"), "the question is sealed");
        let answer = guard.seal(asker, b"alice").unwrap();
        assert_eq!(read(&keyring(1), nonce, &answer).as_deref(), Some(&b"alice"[..]));
        assert_eq!(read(&keyring(2), nonce, &answer), None, "of another deployment");
        assert_eq!(read(&keyring(1), asked().nonce, &answer), None, "of another question");
        assert_eq!(read(&keyring(1), nonce, &proven.body), None, "a question is no answer");
    }

    #[test]
    fn a_proof_is_good_for_its_request_alone() {
        let guard = Guard::new(keyring(1));
        for target in [
            Target { path: "/operator/sessions", ..TARGET },
            Target { path: "/operator/session?all", ..TARGET },
            Target { method: "GET", ..TARGET },
        ] {
            assert_eq!(check(&guard, target, &asked(), NOW), Err(Unproven::Wrong), "{target:?}");
        }
        let other = Proven { body: asked().body, ..asked() };
        assert_eq!(check(&guard, TARGET, &other, NOW), Err(Unproven::Wrong), "another body");
        let proven = asked();
        for (old, new) in [(NOW.as_millis().to_string(), "1800000000001".to_owned()), (".".to_owned(), ".A".to_owned())]
        {
            let field = proven.field.replacen(&old, &new, 1);
            let changed = Proven { field, body: proven.body.clone(), ..proven };
            assert!(
                matches!(check(&guard, TARGET, &changed, NOW), Err(Unproven::Wrong | Unproven::Missing)),
                "{old} {new}"
            );
        }
        assert_eq!(check(&Guard::new(keyring(2)), TARGET, &proven, NOW), Err(Unproven::Wrong), "another secret");
        assert_eq!(check(&guard, TARGET, &proven, NOW).as_deref(), Ok(&b"who?"[..]), "and it is still good");
    }

    #[test]
    fn a_mac_of_another_purpose_or_of_a_part_of_it_proves_nothing() {
        let (guard, ring, proven) = (Guard::new(keyring(1)), keyring(1), asked());
        let nonce = URL_SAFE_NO_PAD.encode(proven.nonce.0);
        let made = NOW.as_millis().to_be_bytes();
        let parts = [DOMAIN, b"POST".as_slice(), b"/operator/session", &made, &proven.nonce.0, &proven.body];
        let with = |mac: &[u8]| {
            let field = format!("1.{}.{nonce}.{}", NOW.as_millis(), URL_SAFE_NO_PAD.encode(mac));
            guard.check(TARGET, Some(&field), &proven.body, NOW).map(drop)
        };
        assert_eq!(with(&ring.mac(Purpose::EdgeToAuthn, &parts)), Err(Unproven::Wrong));
        let right = ring.mac(Purpose::Operator, &parts);
        assert_eq!(with(&right[..16]), Err(Unproven::Missing));
        assert_eq!(with(&right), Ok(()));
    }

    #[test]
    fn what_is_no_proof_is_refused() {
        let (guard, proven) = (Guard::new(keyring(1)), asked());
        let longer = format!("{}.x", proven.field);
        let newer = proven.field.replacen("1.", "2.", 1);
        for field in [None, Some(""), Some("1"), Some("1.2.3.4"), Some(longer.as_str()), Some(newer.as_str())] {
            assert_eq!(guard.check(TARGET, field, &proven.body, NOW).map(drop), Err(Unproven::Missing), "{field:?}");
        }
    }

    #[test]
    fn a_proof_is_good_once_and_not_for_long() {
        let guard = Guard::new(keyring(1));
        let proven = asked();
        assert!(check(&guard, TARGET, &proven, NOW).is_ok());
        assert_eq!(check(&guard, TARGET, &proven, NOW), Err(Unproven::Used));
        assert_eq!(
            check(&guard, TARGET, &proven, NOW.plus(WINDOW)),
            Err(Unproven::Used),
            "as long as it could come again"
        );
        let later = NOW.plus(WINDOW + Duration::from_millis(1));
        assert_eq!(check(&guard, TARGET, &proven, later), Err(Unproven::Age));
        assert_eq!(check(&guard, TARGET, &proven, NOW), Err(Unproven::Age), "a clock that is put back changes nothing");

        let guard = Guard::new(keyring(1));
        let ahead = NOW.minus(WINDOW + Duration::from_millis(1));
        assert_eq!(check(&guard, TARGET, &proven, ahead), Err(Unproven::Age));
        assert!(check(&guard, TARGET, &proven, NOW.minus(WINDOW)).is_ok());
    }

    #[test]
    fn more_proofs_than_are_remembered_are_refused_and_not_forgotten() {
        let mut used = Used::default();
        let nonce = |number: usize| {
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&number.to_be_bytes());
            Nonce(bytes)
        };
        for number in 0..REMEMBERED {
            assert_eq!(used.take(nonce(number), NOW, NOW), Ok(()));
        }
        assert_eq!(used.take(nonce(REMEMBERED), NOW, NOW), Err(Unproven::TooMany));
        assert_eq!(used.take(nonce(0), NOW, NOW), Err(Unproven::Used));
        let later = NOW.plus(WINDOW + Duration::from_millis(1));
        assert_eq!(used.take(nonce(REMEMBERED), later, later), Ok(()));
        assert_eq!(used.until.len(), 1);
    }
}
