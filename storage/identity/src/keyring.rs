//! One secret in, one key for each use out (S-111).

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
}

const PURPOSES: [(Purpose, &[u8]); 11] = [
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
];

/// The keys of a deployment, derived from its `shared_secret` and `cookie_secret` by HKDF-SHA-256 with a label for each [`Purpose`].
pub struct Keyring {
    keys: [Keys; PURPOSES.len()],
}

struct Keys {
    mac: hmac::Key,
    seal: LessSafeKey,
}

/// First byte of every sealed value: AES-256-GCM under the derived key, 12 random bytes of nonce, ciphertext, tag.
const SEAL_V1: u8 = 1;

impl Keyring {
    /// Derives all keys. `cookie_secret` keys what only authn reads; everything else comes from `shared_secret`.
    #[must_use]
    pub fn derive(shared_secret: &Secret<[u8; 32]>, cookie_secret: &Secret<[u8; 32]>) -> Self {
        Self {
            keys: PURPOSES.map(|(purpose, label)| {
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
                    | Purpose::TlsTickets => shared_secret,
                };
                Keys::derive(secret.expose(), label)
            }),
        }
    }

    /// The MAC (HMAC-SHA-256) over `parts`, each preceded by its length, so that parts never run into each other.
    #[must_use]
    pub fn mac(&self, purpose: Purpose, parts: &[&[u8]]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.of(purpose).mac);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut out = [0; 32];
        out.copy_from_slice(context.sign().as_ref());
        out
    }

    /// Whether `tag` is the MAC over `parts`, or a prefix of it of at least 16 bytes; in constant time.
    #[must_use]
    pub fn verify(&self, purpose: Purpose, parts: &[&[u8]], tag: &[u8]) -> bool {
        let full = self.mac(purpose, parts);
        tag.len() >= 16 && full.get(..tag.len()).is_some_and(|head| same(head, tag))
    }

    /// Seals `plaintext`; only [`open`](Self::open) with the same purpose and context gives it back (S-082).
    ///
    /// # Errors
    /// If the system gives no randomness for the nonce.
    pub fn seal(&self, purpose: Purpose, context: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, RandomError> {
        let nonce: [u8; NONCE_LEN] = random()?;
        let mut body = plaintext.to_vec();
        self.of(purpose)
            .seal
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(context), &mut body)
            .map_err(|_| RandomError)?;
        let mut sealed = Vec::with_capacity(1 + NONCE_LEN + body.len());
        sealed.push(SEAL_V1);
        sealed.extend_from_slice(&nonce);
        sealed.append(&mut body);
        Ok(sealed)
    }

    /// What was sealed, or `None` if anything at all differs.
    #[must_use]
    pub fn open(&self, purpose: Purpose, context: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (version, rest) = sealed.split_first()?;
        let (nonce, body) = rest.split_at_checked(NONCE_LEN)?;
        if *version != SEAL_V1 {
            return None;
        }
        let mut body = body.to_vec();
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        // In place and given away whole: no second copy of the plaintext stays behind.
        let length = self.of(purpose).seal.open_in_place(nonce, Aad::from(context), &mut body).ok()?.len();
        body.truncate(length);
        Some(body)
    }

    fn of(&self, purpose: Purpose) -> &Keys {
        // The array is laid out in the order of the enum, which `every_purpose_finds_its_own_key` checks.
        #[expect(clippy::indexing_slicing, reason = "one entry for each variant, in order; covered by a test")]
        &self.keys[purpose as usize]
    }
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
        Self { mac, seal }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyring() -> Keyring {
        Keyring::derive(&Secret::new([1; 32]), &Secret::new([2; 32]))
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
        let ring = keyring();
        let sealed = ring.seal(Purpose::StoreSeal, b"key", b"value").unwrap();
        for index in 0..sealed.len() {
            for bit in 0..8 {
                let mut damaged = sealed.clone();
                damaged[index] ^= 1 << bit;
                assert_eq!(ring.open(Purpose::StoreSeal, b"key", &damaged), None, "byte {index} bit {bit}");
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
