//! One secret in, one key for each use out (S-111); and the secrets that are accepted beside it, so that it can be replaced.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use aws_lc_rs::hmac;

use crate::{RandomError, Secret, random, same};

/// What a key is for. Each purpose has a key of its own: a value made for one never verifies or opens for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Binds a session id to a host in the session cookie.
    SessionCookie,
    /// Ties a sign-in to the browser that began it.
    Flow,
    /// Signs URLs between the edge and authn (02 §1.1).
    SignedUrl,
    /// Seals a pending sign-in in its cookie.
    PendingSignIn,
    /// Seals the ticket that carries a session to a route's host.
    Ticket,
    /// Names a session in the store (S-081).
    StoreId,
    /// Seals what the store keeps (S-082).
    StoreSeal,
    /// The edge proves to authn that it is the edge (S-114).
    EdgeToAuthn,
    /// Tokens in our own forms (S-085).
    Form,
    /// Operators prove that they hold the secret, and are answered.
    Operator,
    /// Keys of the session tickets of TLS, one for each window of time.
    TlsTickets,
    /// Binds a session id to a host in what programs show.
    ProgramToken,
    /// Vouches for what service accounts show.
    ServiceAccountToken,
}

const PURPOSES: [(Purpose, &[u8]); 13] = [
    (Purpose::SessionCookie, b"postern/1 session cookie"),
    (Purpose::Flow, b"postern/1 flow"),
    (Purpose::SignedUrl, b"postern/1 signed url"),
    (Purpose::PendingSignIn, b"postern/1 pending sign-in"),
    (Purpose::Ticket, b"postern/1 ticket"),
    (Purpose::StoreId, b"postern/1 store id"),
    (Purpose::StoreSeal, b"postern/1 store seal"),
    (Purpose::EdgeToAuthn, b"postern/1 edge to authn"),
    (Purpose::Form, b"postern/1 form"),
    (Purpose::Operator, b"postern/1 operator"),
    (Purpose::TlsTickets, b"postern/1 tls tickets"),
    (Purpose::ProgramToken, b"postern/1 program token"),
    (Purpose::ServiceAccountToken, b"postern/1 service account token"),
];

/// More secrets than this are never accepted beside the one in force: who tries them all tries few.
pub const MAX_ACCEPTED_SECRETS: usize = 4;

/// The keys of a deployment, derived from its `shared_secret` and `cookie_secret` by HKDF-SHA-256 with a label for each
/// [`Purpose`]. One secret is in force: it seals and signs. Those that are accepted beside it open and verify as well.
pub struct Keyring {
    in_force: KeySet,
    accepted: Vec<KeySet>,
}

type KeySet = [Keys; PURPOSES.len()];

struct Keys {
    id: KeyId,
    mac: hmac::Key,
    seal: LessSafeKey,
}

/// What tells keys of one purpose apart; says nothing about them.
type KeyId = [u8; 4];

/// Which of the secrets that a keyring holds; by default the one in force. Means something beside that keyring alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SecretIndex(u8);

/// First byte of a sealed value: AES-256-GCM under the derived key, 12 random bytes of nonce, ciphertext, tag.
const SEAL_V1: u8 = 1;
/// The same with the id of the key before the nonce. It is written only where secrets are accepted beside the one in force,
/// so where every process is of a version that reads it.
const SEAL_V2: u8 = 2;

impl Keyring {
    /// Derives all keys. `cookie_secret` keys what only authn reads; everything else comes from `shared_secret`.
    #[must_use]
    pub fn derive(shared_secret: &Secret<[u8; 32]>, cookie_secret: &Secret<[u8; 32]>) -> Self {
        Self::derive_with(shared_secret, &[], cookie_secret)
    }

    /// The same, and what the `accepted` secrets sealed opens as well; at most [`MAX_ACCEPTED_SECRETS`] of them.
    #[must_use]
    pub fn derive_with(
        shared_secret: &Secret<[u8; 32]>,
        accepted: &[Secret<[u8; 32]>],
        cookie_secret: &Secret<[u8; 32]>,
    ) -> Self {
        let set = |shared| key_set(shared, cookie_secret);
        Self { in_force: set(shared_secret), accepted: accepted.iter().take(MAX_ACCEPTED_SECRETS).map(set).collect() }
    }

    /// Every secret that there is, the one in force first.
    pub fn secrets(&self) -> impl Iterator<Item = SecretIndex> + use<> {
        (0..=u8::try_from(self.accepted.len()).unwrap_or_default()).map(SecretIndex)
    }

    /// Whether the same secret is in force in `other`, as far as a purpose goes; and whether the same are accepted, in
    /// whatever order.
    #[must_use]
    pub fn agrees_with(&self, other: &Self, purpose: Purpose) -> (bool, bool) {
        let macs = |ring: &Self| {
            let mut macs = ring.macs(purpose, &[b"same key?"]);
            let in_force = macs.next();
            let mut accepted: Vec<_> = macs.collect();
            accepted.sort_unstable();
            (in_force, accepted)
        };
        let (here, there) = (macs(self), macs(other));
        (here.0 == there.0, here.1 == there.1)
    }

    /// The MAC (HMAC-SHA-256) over `parts`, each preceded by its length, so that parts never run into each other.
    #[must_use]
    pub fn mac(&self, purpose: Purpose, parts: &[&[u8]]) -> [u8; 32] {
        of(&self.in_force, purpose).mac(parts)
    }

    /// The same by a secret of this keyring.
    #[must_use]
    pub fn mac_by(&self, secret: SecretIndex, purpose: Purpose, parts: &[&[u8]]) -> [u8; 32] {
        of(self.set(secret), purpose).mac(parts)
    }

    /// The same by each secret, the one in force first.
    pub fn macs(&self, purpose: Purpose, parts: &[&[u8]]) -> impl Iterator<Item = [u8; 32]> {
        self.sets().map(move |set| of(set, purpose).mac(parts))
    }

    /// Whether `tag` is the MAC over `parts` by one of the secrets, or a prefix of it of at least 16 bytes; in constant time
    /// for each.
    #[must_use]
    pub fn verify(&self, purpose: Purpose, parts: &[&[u8]], tag: &[u8]) -> bool {
        self.verify_by(purpose, parts, tag).is_some()
    }

    /// The secret by which `tag` is the MAC, as [`verify`](Self::verify).
    #[must_use]
    pub fn verify_by(&self, purpose: Purpose, parts: &[&[u8]], tag: &[u8]) -> Option<SecretIndex> {
        if tag.len() < 16 {
            return None;
        }
        let fits = |full: [u8; 32]| full.get(..tag.len()).is_some_and(|head| same(head, tag));
        self.secrets().zip(self.macs(purpose, parts)).find_map(|(secret, full)| fits(full).then_some(secret))
    }

    /// Seals `plaintext`; only [`open`](Self::open) with the same purpose and context gives it back (S-082).
    ///
    /// # Errors
    /// If the system gives no randomness for the nonce.
    pub fn seal(&self, purpose: Purpose, context: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, RandomError> {
        self.seal_by(SecretIndex::default(), purpose, context, plaintext)
    }

    /// The same by a secret of this keyring.
    ///
    /// # Errors
    /// As [`seal`](Self::seal).
    pub fn seal_by(
        &self,
        secret: SecretIndex,
        purpose: Purpose,
        context: &[u8],
        plaintext: &[u8],
    ) -> Result<Vec<u8>, RandomError> {
        let keys = of(self.set(secret), purpose);
        let nonce: [u8; NONCE_LEN] = random()?;
        let mut body = plaintext.to_vec();
        keys.seal
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(context), &mut body)
            .map_err(|_| RandomError)?;
        let mut sealed = Vec::with_capacity(1 + keys.id.len() + NONCE_LEN + body.len());
        if self.accepted.is_empty() {
            sealed.push(SEAL_V1);
        } else {
            sealed.push(SEAL_V2);
            sealed.extend_from_slice(&keys.id);
        }
        sealed.extend_from_slice(&nonce);
        sealed.append(&mut body);
        Ok(sealed)
    }

    /// What was sealed by one of the secrets, or `None` if anything at all differs.
    #[must_use]
    pub fn open(&self, purpose: Purpose, context: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        self.open_by(purpose, context, sealed).map(|(_, plaintext)| plaintext)
    }

    /// The same with the secret that sealed it.
    #[must_use]
    pub fn open_by(&self, purpose: Purpose, context: &[u8], sealed: &[u8]) -> Option<(SecretIndex, Vec<u8>)> {
        let (version, rest) = sealed.split_first()?;
        let (id, rest) = match *version {
            SEAL_V1 => (None, rest),
            SEAL_V2 => rest.split_first_chunk::<4>().map(|(id, rest)| (Some(id), rest))?,
            _ => return None,
        };
        let (nonce, body) = rest.split_first_chunk::<NONCE_LEN>()?;
        let keys = self.secrets().zip(self.sets().map(|set| of(set, purpose)));
        let mut fitting = keys.filter(|(_, keys)| id.is_none_or(|id| *id == keys.id));
        fitting.find_map(|(secret, keys)| Some((secret, keys.open(context, *nonce, body)?)))
    }

    fn sets(&self) -> impl Iterator<Item = &KeySet> {
        std::iter::once(&self.in_force).chain(&self.accepted)
    }

    fn set(&self, secret: SecretIndex) -> &KeySet {
        let accepted = usize::from(secret.0).checked_sub(1).and_then(|index| self.accepted.get(index));
        accepted.unwrap_or(&self.in_force)
    }
}

fn of(set: &KeySet, purpose: Purpose) -> &Keys {
    // The array is laid out in the order of the enum, which `every_purpose_finds_its_own_key` checks.
    #[expect(clippy::indexing_slicing, reason = "one entry for each variant, in order; covered by a test")]
    &set[purpose as usize]
}

fn key_set(shared_secret: &Secret<[u8; 32]>, cookie_secret: &Secret<[u8; 32]>) -> KeySet {
    PURPOSES.map(|(purpose, label)| {
        let secret = match purpose {
            Purpose::PendingSignIn | Purpose::Form => cookie_secret,
            Purpose::SessionCookie
            | Purpose::Flow
            | Purpose::SignedUrl
            | Purpose::Ticket
            | Purpose::StoreId
            | Purpose::StoreSeal
            | Purpose::EdgeToAuthn
            | Purpose::Operator
            | Purpose::TlsTickets
            | Purpose::ProgramToken
            | Purpose::ServiceAccountToken => shared_secret,
        };
        Keys::derive(secret.expose(), label)
    })
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keyring([redacted])")
    }
}

struct Len32;

impl KeyType for Len32 {
    fn len(&self) -> usize {
        32
    }
}

impl Keys {
    fn derive(secret: &[u8; 32], label: &[u8]) -> Self {
        let pseudo_random_key = Salt::new(HKDF_SHA256, b"postern").extract(secret);
        let expand = |suffix: &[u8]| {
            let mut key = [0; 32];
            // 32 bytes is far below HKDF's limit of 255 hash lengths, so neither step can fail; a zero key is never used:
            // `derived_keys_are_not_zero` holds the library to that.
            let _filled = pseudo_random_key.expand(&[label, suffix], Len32).and_then(|okm| okm.fill(&mut key));
            key
        };
        let mac = hmac::Key::new(hmac::HMAC_SHA256, &expand(b" mac"));
        #[expect(
            clippy::expect_used,
            reason = "a 32-byte key is what AES-256-GCM takes; runs once, at start, on no outside input"
        )]
        let seal = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &expand(b" seal")).expect("32-byte key"));
        let [a, b, c, d, ..] = expand(b" id");
        Self { id: [a, b, c, d], mac, seal }
    }

    fn mac(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.mac);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut out = [0; 32];
        out.copy_from_slice(context.sign().as_ref());
        out
    }

    fn open(&self, context: &[u8], nonce: [u8; NONCE_LEN], body: &[u8]) -> Option<Vec<u8>> {
        let mut body = body.to_vec();
        // In place and given away whole: no second copy of the plaintext stays behind.
        let opened = self.seal.open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(context), &mut body);
        let length = opened.ok()?.len();
        body.truncate(length);
        Some(body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyring() -> Keyring {
        Keyring::derive(&Secret::new([1; 32]), &Secret::new([2; 32]))
    }

    /// The keyring in the course of a replacement: that secret in force, and those beside it.
    fn rotating(in_force: u8, accepted: &[u8]) -> Keyring {
        let accepted: Vec<_> = accepted.iter().map(|byte| Secret::new([*byte; 32])).collect();
        Keyring::derive_with(&Secret::new([in_force; 32]), &accepted, &Secret::new([2; 32]))
    }

    const OLD: u8 = 1;
    const NEW: u8 = 3;

    #[test]
    fn each_step_of_a_replacement_opens_and_verifies_what_the_steps_beside_it_made() {
        let steps = [rotating(OLD, &[]), rotating(OLD, &[NEW]), rotating(NEW, &[OLD]), rotating(NEW, &[])];
        for (number, from) in steps.iter().enumerate() {
            let sealed = from.seal(Purpose::Ticket, b"ctx", b"hello").unwrap();
            let tag = from.mac(Purpose::Ticket, &[b"x"]);
            for (other, to) in steps.iter().enumerate() {
                // The secret that made it is unknown only before the first step, or after the last one.
                let known = if number < 2 { other < 3 } else { other > 0 };
                let opened = to.open(Purpose::Ticket, b"ctx", &sealed);
                assert_eq!(opened.is_some(), known, "from step {number} to step {other}");
                assert_eq!(to.verify(Purpose::Ticket, &[b"x"], &tag), known, "from step {number} to step {other}");
            }
        }
    }

    #[test]
    fn r_023_a_sealed_value_names_its_key_only_where_a_secret_is_being_replaced() {
        let (alone, both) = (rotating(OLD, &[]), rotating(NEW, &[OLD]));
        let lone = alone.seal(Purpose::StoreSeal, b"", b"x").unwrap();
        assert_eq!(lone[0], SEAL_V1, "as every version reads it");
        let named = both.seal(Purpose::StoreSeal, b"", b"x").unwrap();
        assert_eq!((named[0], &named[1..5]), (SEAL_V2, &of(&both.in_force, Purpose::StoreSeal).id[..]));
        let by_old = SecretIndex(1);
        assert_eq!(both.open_by(Purpose::StoreSeal, b"", &lone), Some((by_old, b"x".to_vec())));
        let sealed = both.seal_by(by_old, Purpose::StoreSeal, b"", b"x").unwrap();
        assert_eq!(alone.open(Purpose::StoreSeal, b"", &sealed).as_deref(), Some(&b"x"[..]));
        assert_eq!(rotating(NEW, &[]).open(Purpose::StoreSeal, b"", &sealed), None);
    }

    /// Sealed by each format that was ever written: for [`Purpose::Ticket`], context `ctx`, plaintext `hello`.
    const SEALED: [(&str, &str); 2] = [
        ("format 1", "01256dfa5fdbd94823355b67795383f965fb171e02e1e16f89b39164351b2510ddf4"),
        ("format 2", "026f938fe54edf93a87db1eda2d641a259b497be40e4d24af51073b7e910489d7e8ccba51ec3"),
    ];

    #[test]
    fn r_023_what_every_format_sealed_is_opened() {
        for (format, sealed) in SEALED {
            let sealed = hex(sealed);
            for ring in [rotating(OLD, &[]), rotating(OLD, &[NEW]), rotating(NEW, &[OLD])] {
                assert_eq!(ring.open(Purpose::Ticket, b"ctx", &sealed).as_deref(), Some(&b"hello"[..]), "{format}");
            }
        }
    }

    fn hex(text: &str) -> Vec<u8> {
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        text.as_bytes().chunks(2).map(byte).collect()
    }

    #[test]
    #[ignore = "prints the fixture of a new format"]
    fn print_the_fixtures() {
        for sealed in [
            rotating(OLD, &[]).seal(Purpose::Ticket, b"ctx", b"hello"),
            rotating(OLD, &[NEW]).seal(Purpose::Ticket, b"ctx", b"hello"),
        ] {
            println!("{}", sealed.unwrap().iter().map(|byte| format!("{byte:02x}")).collect::<String>());
        }
    }

    #[test]
    fn every_purpose_finds_its_own_key() {
        for (index, (purpose, _)) in PURPOSES.iter().enumerate() {
            assert_eq!(*purpose as usize, index);
        }
        let ring = keyring();
        let mut macs: Vec<_> = PURPOSES.iter().map(|(purpose, _)| ring.mac(*purpose, &[b"x"])).collect();
        macs.sort_unstable();
        macs.dedup();
        assert_eq!(macs.len(), PURPOSES.len());
    }

    #[test]
    fn s_111_what_one_purpose_sealed_no_other_opens() {
        let ring = keyring();
        let sealed = ring.seal(Purpose::Ticket, b"ctx", b"hello").unwrap();
        assert_eq!(ring.open(Purpose::Ticket, b"ctx", &sealed).as_deref(), Some(&b"hello"[..]));
        assert_eq!(ring.open(Purpose::StoreSeal, b"ctx", &sealed), None);
        assert_eq!(ring.open(Purpose::Ticket, b"other", &sealed), None);
    }

    #[test]
    fn s_082_one_flipped_bit_never_opens() {
        for ring in [keyring(), rotating(NEW, &[OLD])] {
            let sealed = ring.seal(Purpose::StoreSeal, b"key", b"value").unwrap();
            for index in 0..sealed.len() {
                for bit in 0..8 {
                    let mut damaged = sealed.clone();
                    damaged[index] ^= 1 << bit;
                    assert_eq!(ring.open(Purpose::StoreSeal, b"key", &damaged), None, "byte {index} bit {bit}");
                }
            }
        }
    }

    #[test]
    fn parts_of_a_mac_never_run_into_each_other() {
        let ring = keyring();
        assert_ne!(ring.mac(Purpose::Flow, &[b"ab", b"c"]), ring.mac(Purpose::Flow, &[b"a", b"bc"]));
        assert!(ring.verify(Purpose::Flow, &[b"a"], &ring.mac(Purpose::Flow, &[b"a"])[..16]));
        assert!(!ring.verify(Purpose::Flow, &[b"a"], &ring.mac(Purpose::Flow, &[b"a"])[..15]));
    }
}
