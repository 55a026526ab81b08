//! Remembers session cookies that opened, so that the MAC of one is computed once for a host and a configuration, and again only if
//! its place was taken. It says which session a cookie names, not whether that session lives. Of fixed size, and no
//! request waits for another at a place.

use std::hash::BuildHasher as _;
use std::mem;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{OnceLock, RwLock};

use hashbrown::DefaultHashBuilder;
use postern_identity::{Keyring, Secret, SessionCookie, SessionId, same};

/// The cookies that one keyring opened, each for its scope.
#[derive(Debug, Default)]
pub(crate) struct OpenedCookies {
    /// Of fixed size, and made when the first cookie is shown: most snapshots of a test or of `explain` see none.
    places: OnceLock<Box<[Place]>>,
    hasher: DefaultHashBuilder,
}

/// Many read one at once. Who comes while it is written opens the cookie anew: it is locked without waiting only.
type Place = RwLock<Option<Kept>>;

/// The more cookies are in use, the more share a place and are opened anew. Some 180 bytes each, 46 KB in all, which stay in the
/// processor's cache: a place in memory farther away would cost as much time as the MAC that it saves.
const PLACES: usize = 1 << 8;

/// So often others, good or not, find a place taken before a good one of them takes it over: where many more cookies are in use than
/// there are places, most that find theirs taken cost a look and their MAC, and nothing is moved for them.
const PASSED_OVER: u32 = 16;

#[derive(Debug)]
struct Kept {
    /// Tells nearly all others without a look at what was opened.
    tag: u32,
    passed_over: AtomicU32,
    opened: Box<Opened>,
}

#[derive(Debug)]
struct Opened {
    scope: Box<str>,
    cookie: Secret<[u8; SessionCookie::LENGTH]>,
    id: SessionId,
}

impl OpenedCookies {
    /// As [`SessionCookie::open`], with always the same keyring: only what opened is known again, when every byte of it and of
    /// its scope is the same (S-083, S-089). Of another one `expect` hears which session it says it is of, before that is verified.
    pub(crate) fn open(
        &self,
        keyring: &Keyring,
        scope: &str,
        value: &[u8],
        expect: impl FnOnce(&[u8; 32]),
    ) -> Option<SessionId> {
        let cookie: &[u8; SessionCookie::LENGTH] = value.try_into().ok()?;
        let (place, tag) = self.place(cookie)?;
        let stays = match place.try_read().as_deref() {
            Ok(Some(Kept { tag: own, opened: known, .. }))
                if *own == tag && *known.scope == *scope && same(known.cookie.expose(), cookie) =>
            {
                return Some(known.id.clone());
            }
            Ok(Some(Kept { passed_over, .. })) => passed_over.fetch_add(1, Ordering::Relaxed) < PASSED_OVER,
            Ok(None) => false,
            Err(_) => true,
        };
        let read = SessionCookie::read(value)?;
        expect(read.unverified_id());
        let id = read.verify(keyring, scope)?;
        if stays {
            return Some(id);
        }
        let known = Box::new(Opened { scope: scope.into(), cookie: Secret::new(*cookie), id: id.clone() });
        let kept = Some(Kept { tag, passed_over: AtomicU32::new(0), opened: known });
        // What was there is dropped once the place is free.
        let _before = place.try_write().map(|mut place| mem::replace(&mut *place, kept));
        Some(id)
    }

    /// Drops what is remembered; the places stay, and a request that began before may still put one in. For a configuration that was
    /// replaced and that long exchanges still hold.
    pub(crate) fn forget(&self) {
        for place in self.places.get().into_iter().flatten() {
            // Held no longer than it takes to compare or to move one.
            let _before = place.write().map(|mut place| place.take());
        }
    }

    fn place(&self, cookie: &[u8; SessionCookie::LENGTH]) -> Option<(&Place, u32)> {
        let places = self.places.get_or_init(|| (0..PLACES).map(|_| Place::default()).collect());
        let hash = self.hasher.hash_one(cookie);
        let place = places.get(usize::try_from(hash % places.len() as u64).ok()?)?;
        Some((place, u32::try_from(hash >> 32).ok()?))
    }

    #[cfg(test)]
    pub(crate) fn used(&self) -> usize {
        self.places.get().map_or(0, |places| places.iter().filter(|place| place.read().unwrap().is_some()).count())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    impl OpenedCookies {
        fn opens(&self, keyring: &Keyring, scope: &str, value: &[u8]) -> Option<SessionId> {
            self.open(keyring, scope, value, |_| ())
        }
    }

    fn keyring(secret: u8) -> Keyring {
        Keyring::derive(&Secret::new([secret; 32]), &Secret::new([2; 32]))
    }

    #[test]
    fn s_083_s_089_what_was_opened_is_known_by_every_byte_and_for_its_host_alone() {
        let (ring, opened, id) = (keyring(1), OpenedCookies::default(), SessionId::from_bytes([7; 32]));
        let value = SessionCookie::seal(&ring, "a.example.com", &id).into_bytes();
        for _ in 0..2 {
            assert_eq!(opened.opens(&ring, "a.example.com", &value), Some(id.clone()));
        }
        assert_eq!(opened.opens(&ring, "b.example.com", &value), None);
        for index in 0..value.len() {
            let mut damaged = value.clone();
            damaged[index] = if damaged[index] == b'B' { b'C' } else { b'B' };
            assert_eq!(opened.opens(&ring, "a.example.com", &damaged), None, "byte {index}");
            // Whichever place it would be at.
            let (place, tag) = opened.place(damaged.first_chunk().unwrap()).unwrap();
            let known = Opened {
                scope: "a.example.com".into(),
                cookie: Secret::new(*value.first_chunk().unwrap()),
                id: id.clone(),
            };
            *place.write().unwrap() = Some(Kept { tag, passed_over: AtomicU32::new(0), opened: Box::new(known) });
            assert_eq!(opened.opens(&ring, "a.example.com", &damaged), None, "byte {index}");
        }
        assert_eq!(opened.opens(&ring, "a.example.com", &value[1..]), None);
    }

    #[test]
    fn a_cookie_is_opened_by_its_keys_once() {
        let (opened, id) = (OpenedCookies::default(), SessionId::from_bytes([7; 32]));
        let value = SessionCookie::seal(&keyring(1), "h", &id).into_bytes();
        assert_eq!(opened.opens(&keyring(3), "h", &value), None, "what does not open is not kept");
        assert_eq!(opened.opens(&keyring(1), "h", &value), Some(id.clone()));
        assert_eq!(opened.opens(&keyring(3), "h", &value), Some(id), "the keys are not asked again");
    }

    #[test]
    fn of_a_cookie_that_is_not_known_the_id_is_told_before_it_is_verified() {
        let (opened, id) = (OpenedCookies::default(), SessionId::from_bytes([7; 32]));
        let value = SessionCookie::seal(&keyring(1), "h", &id).into_bytes();
        let told = |ring: u8, value: &[u8]| {
            let mut told = None;
            let opens = opened.open(&keyring(ring), "h", value, |id| told = Some(*id)).is_some();
            (told, opens)
        };
        assert_eq!(told(3, &value), (Some([7; 32]), false));
        assert_eq!(told(1, &value), (Some([7; 32]), true));
        assert_eq!(told(1, &value), (None, true), "it is known");
        assert_eq!(told(1, &value[1..]), (None, false));
    }

    #[test]
    fn of_those_that_share_a_place_one_gives_way_when_others_have_often_come() {
        let (ring, opened) = (keyring(1), OpenedCookies::default());
        let made = |number: u16| {
            let id = SessionId::from_bytes(std::array::from_fn(|at| number.to_le_bytes()[at % 2]));
            (SessionCookie::seal(&ring, "h", &id).into_bytes(), id)
        };
        let all: Vec<_> = (0..4_000).map(made).collect();
        for (value, id) in all.iter().chain(&all) {
            assert_eq!(opened.opens(&ring, "h", value).as_ref(), Some(id));
        }
        let used = opened.used();
        assert!(used >= PLACES * 9 / 10, "{used}: they are spread");
        let at = |value: &[u8]| std::ptr::from_ref(opened.place(value.first_chunk().unwrap()).unwrap().0);
        let is_known = |value: &[u8]| opened.opens(&keyring(3), "h", value).is_some();
        let mut met = HashMap::new();
        let pair = all.iter().find_map(|one| met.insert(at(&one.0), one).map(|before| [before, one]));
        let [(first, _), (second, id)] = pair.unwrap();
        opened.forget();
        assert!(opened.opens(&ring, "h", first).is_some());
        for _ in 0..PASSED_OVER {
            assert_eq!(opened.opens(&ring, "h", second).as_ref(), Some(id));
        }
        let (place, _) = opened.place(first.first_chunk().unwrap()).unwrap();
        let reader = place.read().unwrap();
        assert_eq!(opened.opens(&ring, "h", second).as_ref(), Some(id), "it does not wait");
        drop(reader);
        assert!(is_known(first));
        assert_eq!(opened.opens(&ring, "h", second).as_ref(), Some(id));
        assert!(is_known(second) && !is_known(first));
    }

    #[test]
    fn what_is_forgotten_is_opened_anew_and_so_is_what_somebody_writes() {
        let (ring, opened, id) = (keyring(1), OpenedCookies::default(), SessionId::from_bytes([7; 32]));
        let value = SessionCookie::seal(&ring, "h", &id).into_bytes();
        assert_eq!((opened.opens(&ring, "h", &value), opened.used()), (Some(id.clone()), 1));
        let (place, _) = opened.place(value.first_chunk().unwrap()).unwrap();
        let another_reader = place.read().unwrap();
        assert_eq!(opened.opens(&keyring(3), "h", &value), Some(id.clone()), "it is known");
        drop(another_reader);
        let writer = place.write().unwrap();
        assert_eq!(opened.opens(&keyring(3), "h", &value), None, "its keys are asked");
        assert_eq!(opened.opens(&ring, "h", &value), Some(id));
        drop(writer);
        opened.forget();
        assert_eq!(opened.used(), 0);
        assert_eq!(opened.opens(&keyring(3), "h", &value), None);
    }
}
