//! Session tickets of TLS 1.3, which every edge of a deployment opens: a client that comes back to another edge, or to one that
//! was started again, goes on without a whole handshake.
//!
//! Their keys are derived from the shared secret, one for each [`WINDOW`] of time: the newest seals, and the ones beside it
//! open as well, so that clocks may differ. Where clients are asked for certificates there are none: a ticket would carry what
//! its client showed. TLS 1.2 gets none either, since there whoever learns a ticket's key reads the connection that it is from.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use postern_identity::{Keyring, Purpose, Timestamp, random};
use rustls::server::ProducesTickets;

/// So long a key seals tickets; for as long again it opens them.
const WINDOW: Duration = Duration::from_secs(6 * 3600);
/// TLS 1.3, as it is written on the wire.
const TLS13: u16 = 0x0304;

/// Seals and opens tickets.
pub(super) struct Tickets {
    keyring: Arc<Keyring>,
    clock: fn() -> Timestamp,
}

impl Tickets {
    pub(super) fn new(keyring: Arc<Keyring>) -> Arc<Self> {
        Arc::new(Self { keyring, clock: || SystemTime::now().into() })
    }

    /// The number of the window that it is now.
    fn window(&self) -> u32 {
        let seconds = u64::try_from((self.clock)().as_secs()).unwrap_or_default();
        u32::try_from(seconds / WINDOW.as_secs()).unwrap_or_default()
    }

    /// The keys of a window: by the secret in force, then by those that are accepted.
    fn keys(&self, window: u32) -> impl Iterator<Item = LessSafeKey> {
        let keys = self
            .keyring
            .secrets()
            .map(move |secret| self.keyring.mac_by(secret, Purpose::TlsTickets, &[&window.to_be_bytes()]));
        keys.filter_map(|key| UnboundKey::new(&AES_256_GCM, &key).ok().map(LessSafeKey::new))
    }
}

fn open(key: &LessSafeKey, head: [u8; 4], nonce: [u8; NONCE_LEN], body: &[u8]) -> Option<Vec<u8>> {
    let mut body = body.to_vec();
    let opening = Nonce::assume_unique_for_key(nonce);
    let length = key.open_in_place(opening, Aad::from(head), &mut body).ok()?.len();
    body.truncate(length);
    Some(body)
}

/// The number of the window, a nonce, and what is sealed with its tag.
impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(WINDOW.as_secs()).unwrap_or_default()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        if version(plain) != Some(TLS13) {
            return None;
        }
        let window = self.window();
        let nonce: [u8; NONCE_LEN] = random().ok()?;
        let head = window.to_be_bytes();
        let mut body = plain.to_vec();
        let sealing = Nonce::assume_unique_for_key(nonce);
        self.keys(window).next()?.seal_in_place_append_tag(sealing, Aad::from(head), &mut body).ok()?;
        Some([&head[..], &nonce, &body].concat())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        let (head, rest) = cipher.split_first_chunk::<4>()?;
        let (nonce, body) = rest.split_first_chunk::<NONCE_LEN>()?;
        let window = u32::from_be_bytes(*head);
        if window.abs_diff(self.window()) > 1 {
            return None;
        }
        self.keys(window).find_map(|key| open(&key, *head, *nonce, body))
    }
}

/// The version of the session that a ticket is to hold. rustls writes the name before it: one byte that says whether there is
/// one, its length, and itself. Written in any other way it is no version that tickets are made for.
fn version(plain: &[u8]) -> Option<u16> {
    let rest = match plain.split_first()? {
        (0, rest) => rest,
        (_, rest) => {
            let (length, rest) = rest.split_first()?;
            rest.get(usize::from(*length)..)?
        }
    };
    rest.first_chunk().copied().map(u16::from_be_bytes)
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use postern_identity::Secret;

    use super::*;

    fn tickets(secret: u8, clock: fn() -> Timestamp) -> Tickets {
        let keyring = Arc::new(Keyring::derive(&Secret::new([secret; 32]), &Secret::new([2; 32])));
        Tickets { keyring, clock }
    }

    const LENGTH: i64 = 6 * 3600;
    /// A session of TLS 1.3 without a name.
    const SESSION: &[u8] = &[0, 3, 4, 0x13, 1, 7, 7, 7];

    const fn at(windows: i64, seconds: i64) -> Timestamp {
        Timestamp::from_secs(LENGTH * (80_000 + windows) + seconds)
    }

    #[test]
    fn tls_1_2_gets_no_ticket() {
        let here = tickets(1, || at(0, 0));
        let named = |version: [u8; 2]| [&[1, 3][..], b"a.b", &version, &[0x13, 1]].concat();
        assert!(here.encrypt(SESSION).is_some() && here.encrypt(&named([3, 4])).is_some());
        let older = [vec![0, 3, 3, 0xc0, 0x2f], named([3, 3]), Vec::new(), vec![0], vec![1], vec![1, 9, 3, 4]];
        for plain in older {
            assert_eq!(here.encrypt(&plain), None, "{plain:?}");
        }
    }

    #[test]
    fn s_112_a_key_seals_for_one_window_and_opens_for_one_more_on_every_edge() {
        let made = tickets(1, || at(0, 7)).encrypt(SESSION).unwrap();
        for (opens, clock) in [
            (true, (|| at(0, 8)) as fn() -> Timestamp),
            (true, || at(1, 0)),
            (true, || at(1, LENGTH - 1)),
            (true, || at(-1, 0)),
            (false, || at(2, 0)),
            (false, || at(-2, 0)),
        ] {
            assert_eq!(tickets(1, clock).decrypt(&made).is_some(), opens, "{}", clock());
        }
        assert_eq!(tickets(1, || at(0, 8)).decrypt(&made).unwrap(), SESSION);
    }

    #[test]
    fn a_ticket_opens_nothing_at_another_deployment_nor_with_one_bit_changed() {
        let here = || at(0, 0);
        let ours = tickets(1, here);
        let made = ours.encrypt(SESSION).unwrap();
        assert_eq!(tickets(3, here).decrypt(&made), None, "another deployment");
        let rotating = Keyring::derive_with(&Secret::new([3; 32]), &[Secret::new([1; 32])], &Secret::new([2; 32]));
        let rotating = Tickets { keyring: Arc::new(rotating), clock: here };
        assert_eq!(rotating.decrypt(&made).as_deref(), Some(SESSION), "while the secret is replaced");
        assert_eq!(ours.decrypt(&rotating.encrypt(SESSION).unwrap()), None, "by the new one");
        for at in 0..made.len() {
            let mut damaged = made.clone();
            damaged[at] ^= 1;
            assert_eq!(ours.decrypt(&damaged), None, "byte {at}");
            assert_eq!(ours.decrypt(&made[..at]), None, "the first {at} bytes");
        }
        assert_ne!(made, ours.encrypt(SESSION).unwrap(), "no nonce twice");
    }
}
