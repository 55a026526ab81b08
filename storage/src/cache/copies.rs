//! Copies by the id of their session. A look reads one line of a table, and then the copy, which holds its own key: among a million
//! copies each is a wait for memory, so there is nothing between the two. Looks take no lock; changes take that of a part.
//!
//! A part grows by as many lines as it has, and those that it had stay where they are. So nothing that a look reads is ever let go
//! of but copies, and only of these does a look have to say that it reads them.

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use arc_swap::{ArcSwapOption, Guard};
use postern_identity::{SessionId, prefetch};

use super::{Entry, is_same};

/// All of them.
pub(super) struct Copies<X> {
    parts: Box<[Part<X>]>,
    count: AtomicUsize,
}

/// Those whose ids have the same lowest bits. Apart from the next one in the processor's cache, since it is written to.
#[repr(C, align(64))]
struct Part<X> {
    /// How many lines are in use; a power of two.
    lines: AtomicUsize,
    /// One line, one more, and then always as many as there are before.
    pieces: [OnceLock<Box<[Line<X>]>>; PIECES],
    /// How many copies there are. Whoever changes the part holds this.
    count: Mutex<usize>,
}

/// Copies whose ids have the next bits in common, or did not fit into a line before. It is one line of the processor's cache.
#[repr(C, align(64))]
struct Line<X> {
    /// A byte for each place: some bits of the id there, or 0 if nobody is. In the highest byte: in how many lines further on there
    /// may be copies that did not fit into this one.
    marks: AtomicU64,
    places: [ArcSwapOption<Entry<X>>; PLACES],
}

/// Every so manieth part of the table, from a first one on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    first: usize,
    step: usize,
}

impl Share {
    pub(super) const ALL: Self = Self::of(0, 1);

    /// That of one of so many turns, of which the first is 0; in all of them each copy is looked at once.
    pub(super) const fn of(turn: usize, turns: usize) -> Self {
        Self { first: turn, step: turns }
    }
}

const PLACES: usize = 7;
/// So few, 32 KB, that they stay in the processor's cache: each look reads two or three lines of one.
const PARTS: usize = 64;
/// 131 thousand lines, and so thirty million copies in all parts; more are not kept.
const PIECES: usize = 18;
/// The lines of a part that has more copies than these for each are doubled.
const FULL: usize = 4;
/// A copy is no more lines than these away from its own; one that finds no place is not kept.
const FAR: u8 = 16;

/// Ids are random, and their cookies are authenticated: nobody can choose ones that collide.
#[derive(Clone, Copy)]
struct Hash {
    part: usize,
    line: usize,
    mark: u8,
}

impl Hash {
    fn of(id: &SessionId) -> Self {
        Self::of_bytes(id.as_bytes())
    }

    fn of_bytes(id: &[u8; 32]) -> Self {
        let [part, mark, line @ ..] = *id.first_chunk::<6>().unwrap_or(&[0; 6]);
        let line = usize::try_from(u32::from_ne_bytes(line)).unwrap_or_default();
        Self { part: usize::from(part) % PARTS, line, mark: mark.max(1) }
    }
}

impl<X> Copies<X> {
    /// Asks for the line in which the copy of that id would be, before it is looked at.
    pub(super) fn prefetch_line(&self, id: &[u8; 32]) {
        self.own_line(Hash::of_bytes(id)).into_iter().for_each(prefetch);
    }

    /// Asks for the copy of that id, if it lies in its own line.
    pub(super) fn prefetch(&self, id: &SessionId) {
        let hash = Hash::of(id);
        let Some(line) = self.own_line(hash) else { return };
        let place = usize::try_from(alike(line.marks(), hash.mark).trailing_zeros() / u8::BITS).ok();
        let copy = place.and_then(|place| line.places.get(place)).map(ArcSwapOption::load);
        copy.as_deref().into_iter().flatten().for_each(|copy| copy.prefetch());
    }

    #[inline]
    fn own_line(&self, hash: Hash) -> Option<&Line<X>> {
        let part = self.parts.get(hash.part)?;
        part.line(hash.line & (part.lines() - 1))
    }

    /// The copy of that id, looked at where it lies.
    pub(super) fn look<T>(&self, id: &SessionId, look: impl FnOnce(&Arc<Entry<X>>) -> T) -> Option<T> {
        let hash = Hash::of(id);
        let part = self.parts.get(hash.part)?;
        let (.., copy) = part.search(part.lines(), hash, id)?;
        copy.as_ref().map(look)
    }

    /// Keeps a copy, in the place of one of the same id.
    pub(super) fn keep(&self, copy: Arc<Entry<X>>) {
        let hash = Hash::of(&copy.id);
        let Some(part) = self.parts.get(hash.part) else { return };
        let mut count = part.lock();
        if let Some((line, place, _)) = part.find(part.lines(), hash, &copy.id) {
            line.put(place, hash.mark, copy);
            return;
        }
        let before = *count;
        if before >= part.lines() * FULL {
            *count -= part.double();
        }
        *count += usize::from(part.add(part.lines(), hash, copy));
        self.count.fetch_add(count.wrapping_sub(before), Ordering::Relaxed);
    }

    /// Keeps it no more.
    pub(super) fn remove(&self, id: &SessionId) {
        self.remove_if(id, |_| true);
    }

    fn remove_if(&self, id: &SessionId, is_meant: impl FnOnce(&Arc<Entry<X>>) -> bool) {
        let hash = Hash::of(id);
        let Some(part) = self.parts.get(hash.part) else { return };
        let mut count = part.lock();
        let Some((line, place, copy)) = part.find(part.lines(), hash, id) else { return };
        if copy.as_ref().is_some_and(is_meant) {
            line.clear(place);
            *count -= 1;
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Of those in that share keeps only the ones for which that holds. Nobody waits while it is found out.
    pub(super) fn retain(&self, share: Share, mut stays: impl FnMut(&Entry<X>) -> bool) {
        for part in self.parts.iter().skip(share.first).step_by(share.step) {
            let mut over = Vec::new();
            part.each(|_, _, copy| {
                if !stays(copy) {
                    over.push(Arc::clone(copy));
                }
            });
            for copy in over {
                self.remove_if(&copy.id, |there| Arc::ptr_eq(there, &copy));
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
}

impl<X> Default for Copies<X> {
    fn default() -> Self {
        Self { parts: (0..PARTS).map(|_| Part::default()).collect(), count: AtomicUsize::new(0) }
    }
}

impl<X> fmt::Debug for Copies<X> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Copies").field("count", &self.len()).finish_non_exhaustive()
    }
}

type Found<'t, X> = (&'t Line<X>, usize, Guard<Option<Arc<Entry<X>>>>);

impl<X> Part<X> {
    fn lock(&self) -> MutexGuard<'_, usize> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who reads how many lines there are finds in them what is kept.
    #[inline]
    fn lines(&self) -> usize {
        self.lines.load(Ordering::Acquire)
    }

    #[inline]
    fn line(&self, line: usize) -> Option<&Line<X>> {
        let (piece, first) = piece(line);
        self.pieces.get(piece)?.get()?.get(line - first)
    }

    /// Where a copy is; there were so many lines a moment ago.
    #[inline]
    fn search(&self, mut lines: usize, hash: Hash, id: &SessionId) -> Option<Found<'_, X>> {
        loop {
            if let Some(found) = self.find(lines, hash, id) {
                return Some(found);
            }
            let before = std::mem::replace(&mut lines, self.lines());
            if lines == before {
                return None;
            }
            // It may have been moved meanwhile to a line that was not there before.
        }
    }

    /// Where a copy is, among so many lines.
    #[inline]
    fn find(&self, lines: usize, hash: Hash, id: &SessionId) -> Option<Found<'_, X>> {
        let (mut further, mut furthest) = (0, 0);
        while further <= furthest {
            let line = self.line(hash.line.wrapping_add(further) & (lines - 1))?;
            let marks = line.marks();
            if further == 0 {
                let [.., known] = marks;
                furthest = known.into();
            }
            let mut alike = alike(marks, hash.mark);
            while alike != 0 {
                let place = usize::try_from(alike.trailing_zeros() / u8::BITS).ok()?;
                let copy = line.places.get(place)?.load();
                if copy.as_ref().is_some_and(|copy| is_same(&copy.id, id)) {
                    return Some((line, place, copy));
                }
                alike &= alike - 1;
            }
            further += 1;
        }
        None
    }

    /// Takes as many lines more as there are, and moves the copies that belong there; how many found no place. Only for whoever
    /// holds the part.
    fn double(&self) -> usize {
        let lines = self.lines();
        let more = lines * 2;
        let Some(room) = self.pieces.get(piece(lines).0) else { return 0 };
        let mut moved = Vec::new();
        self.each(|line, place, copy| {
            // Its own line is one of the new ones, or it lies before that because there was none after it.
            if line < Hash::of(&copy.id).line & (more - 1) {
                moved.push((line, place, Arc::clone(copy)));
            }
        });
        // Nobody reads the new lines yet: to put a copy into one that is read takes longer.
        let mut rows: Vec<Row<X>> = (0..lines).map(|_| Row::default()).collect();
        let mut lost = 0;
        for (.., copy) in &moved {
            let hash = Hash::of(&copy.id);
            let marks = |line: usize| match line.checked_sub(lines) {
                Some(row) => rows.get(row).map_or(TAKEN, |row| row.marks),
                None => self.line(line).map_or(TAKEN, Line::marks),
            };
            let Some(Spot { own, line, place, further }) = spot(more, hash, marks) else {
                lost += 1;
                continue;
            };
            match line.checked_sub(lines).and_then(|row| rows.get_mut(row)) {
                Some(row) => row.put(place, hash.mark, Arc::clone(copy)),
                None => self.line(line).into_iter().for_each(|line| line.put(place, hash.mark, Arc::clone(copy))),
            }
            match own.checked_sub(lines).and_then(|row| rows.get_mut(row)) {
                Some(Row { marks: [.., furthest], .. }) => *furthest = further.max(*furthest),
                None => self.line(own).into_iter().for_each(|own| own.reach(further)),
            }
        }
        room.get_or_init(|| rows.into_iter().map(Line::from).collect());
        self.lines.store(more, Ordering::Release);
        // Not before: until then they are looked for there.
        for (line, place, _) in moved {
            self.line(line).into_iter().for_each(|line| line.clear(place));
        }
        lost
    }

    /// Adds one that is not there yet, to so many lines; whether there was a place. Only for whoever holds the part.
    fn add(&self, lines: usize, hash: Hash, copy: Arc<Entry<X>>) -> bool {
        let marks = |line: usize| self.line(line).map_or(TAKEN, Line::marks);
        let Some(Spot { own, line, place, further }) = spot(lines, hash, marks) else { return false };
        let (Some(line), Some(own)) = (self.line(line), self.line(own)) else { return false };
        line.put(place, hash.mark, copy);
        own.reach(further);
        true
    }

    /// Shows every copy, with its line and place.
    fn each(&self, mut show: impl FnMut(usize, usize, &Arc<Entry<X>>)) {
        for number in 0..self.lines() {
            let Some(line) = self.line(number) else { return };
            for ((place, there), mark) in line.places.iter().enumerate().zip(line.marks()) {
                if let Some(copy) = (mark != 0).then(|| there.load()).as_deref().and_then(Option::as_ref) {
                    show(number, place, copy);
                }
            }
        }
    }
}

impl<X> Default for Part<X> {
    fn default() -> Self {
        let room =
            |piece| if piece == 0 { OnceLock::from(Box::from([Row::default().into()])) } else { OnceLock::new() };
        Self { lines: AtomicUsize::new(1), pieces: std::array::from_fn(room), count: Mutex::new(0) }
    }
}

/// The piece in which a line is, and the first line of that.
#[inline]
fn piece(line: usize) -> (usize, usize) {
    match line.checked_ilog2() {
        Some(highest) => (usize::try_from(highest).unwrap_or(PIECES) + 1, 1 << highest),
        None => (0, 0),
    }
}

/// A bit in the byte of each place that has that mark, and rarely one in that of a place after it: whoever finds a copy there looks
/// whether it is the one.
#[inline]
const fn alike(marks: [u8; 8], mark: u8) -> u64 {
    const EACH: u64 = 0x0101_0101_0101_0101;
    const HIGHEST: u64 = 0x0080_8080_8080_8080;
    let differ = u64::from_le_bytes(marks) ^ u64::from_le_bytes([mark; 8]);
    differ.wrapping_sub(EACH) & !differ & HIGHEST
}

/// A line that nobody reads yet.
struct Row<X> {
    marks: [u8; 8],
    copies: [Option<Arc<Entry<X>>>; PLACES],
}

impl<X> Row<X> {
    fn put(&mut self, place: usize, mark: u8, copy: Arc<Entry<X>>) {
        if let (Some(there), Some(own)) = (self.copies.get_mut(place), self.marks.get_mut(place)) {
            (*there, *own) = (Some(copy), mark);
        }
    }
}

impl<X> Default for Row<X> {
    fn default() -> Self {
        Self { marks: [0; 8], copies: std::array::from_fn(|_| None) }
    }
}

impl<X> From<Row<X>> for Line<X> {
    fn from(Row { marks, copies }: Row<X>) -> Self {
        Self { marks: AtomicU64::new(u64::from_le_bytes(marks)), places: copies.map(ArcSwapOption::new) }
    }
}

/// Where a copy that is not there yet may be: its own line, the one where there is a place, and how far that is from its own.
struct Spot {
    own: usize,
    line: usize,
    place: usize,
    further: u8,
}

/// The first place that is free in a table of so many lines with these marks.
fn spot(lines: usize, hash: Hash, marks: impl Fn(usize) -> [u8; 8]) -> Option<Spot> {
    let at = |further: u8| hash.line.wrapping_add(further.into()) & (lines - 1);
    (0..FAR).take(lines).find_map(|further| {
        let place = marks(at(further)).iter().take(PLACES).position(|mark| *mark == 0)?;
        Some(Spot { own: at(0), line: at(further), place, further })
    })
}

/// The marks of a line without a place.
const TAKEN: [u8; 8] = [1; 8];

impl<X> Line<X> {
    #[inline]
    fn marks(&self) -> [u8; 8] {
        self.marks.load(Ordering::Acquire).to_le_bytes()
    }

    /// Who sees the mark finds the copy, or one that took its place.
    fn put(&self, place: usize, mark: u8, copy: Arc<Entry<X>>) {
        if let Some(there) = self.places.get(place) {
            there.store(Some(copy));
            self.mark(place, |_| mark);
        }
    }

    fn clear(&self, place: usize) {
        self.mark(place, |_| 0);
        if let Some(there) = self.places.get(place) {
            there.store(None);
        }
    }

    /// There may be copies of this line so many lines further on.
    fn reach(&self, further: u8) {
        self.mark(PLACES, |known| known.max(further));
    }

    /// Changes one byte of the marks; only whoever holds the part does.
    fn mark(&self, byte: usize, change: impl FnOnce(u8) -> u8) {
        let mut marks = self.marks();
        if let Some(mark) = marks.get_mut(byte) {
            *mark = change(*mark);
        }
        self.marks.store(u64::from_le_bytes(marks), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::atomic::AtomicBool;

    use postern_identity::{Claims, IdpId, Keyring, Secret, Session, SessionHandle, Timestamp, User};

    use super::*;
    use crate::invalidation::{Fate, Owner, Standing};

    fn id(number: u64) -> SessionId {
        let mut bytes = [0x5a; 32];
        for (index, chunk) in (1..).zip(bytes.chunks_mut(8)) {
            chunk.copy_from_slice(&(number + index).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
        }
        SessionId::from_bytes(bytes)
    }

    fn copy(id: &SessionId, generation: u64) -> Arc<Entry<()>> {
        let session = Session {
            handle: SessionHandle::from_bytes([7; 32]),
            user: User::default(),
            claims: Claims::default(),
            idp: IdpId::new("one"),
            issued_at: Timestamp::from_secs(1),
            expires_at: Timestamp::from_secs(2),
            idle: None,
            generation,
        };
        let fate = (Owner::of(&[0; 32]), Fate::new(Standing::Good, 0));
        Arc::new(Entry::new(id.clone(), ((&session).into(), i64::MAX), fate, (0, session.issued_at)))
    }

    fn generation(copies: &Copies<()>, id: &SessionId) -> Option<u64> {
        copies.look(id, |copy| copy.session.generation)
    }

    #[test]
    fn what_is_kept_is_found_until_it_is_removed() {
        let (copies, mut model) = (Copies::default(), HashMap::new());
        for step in 0..20_000_u64 {
            let number = step.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 51;
            if step % 3 == 2 {
                copies.remove(&id(number));
                model.remove(&number);
            } else {
                copies.keep(copy(&id(number), step));
                model.insert(number, step);
            }
            assert_eq!(copies.len(), model.len(), "{step}");
        }
        for number in 0..1 << 13 {
            assert_eq!(generation(&copies, &id(number)), model.get(&number).copied(), "{number}");
        }
        copies.retain(Share::ALL, |copy| copy.session.generation % 2 == 0);
        model.retain(|_, generation| *generation % 2 == 0);
        assert_eq!(copies.len(), model.len());
        assert!(model.iter().all(|(number, kept)| generation(&copies, &id(*number)) == Some(*kept)));
        copies.retain(Share::ALL, |_| false);
        assert_eq!(copies.len(), 0);
    }

    #[test]
    fn r_010_ids_that_collide_are_told_apart_and_take_no_more_than_their_room() {
        let copies = Copies::default();
        let alike = |number: u8| {
            let mut bytes = [9; 32];
            bytes[31] = number;
            SessionId::from_bytes(bytes)
        };
        for number in 0..=255 {
            copies.keep(copy(&alike(number), number.into()));
        }
        let found = (0..=255).filter(|number| generation(&copies, &alike(*number)) == Some((*number).into())).count();
        assert_eq!((found, copies.len()), (112, 112), "those for which there is room are kept");
        (0..=255).for_each(|number| copies.remove(&alike(number)));
        assert_eq!(copies.len(), 0);
        let secret = |byte| Secret::new([byte; 32]);
        let ring = Keyring::derive_with(&secret(1), &[secret(2)], &secret(3));
        for id in ring.secrets().map(|secret| SessionId::of(secret, [3; 32])) {
            assert_eq!(generation(&copies, &id), None, "of another secret");
            copies.keep(copy(&id, 1));
        }
        assert_eq!(copies.len(), 2);
    }

    #[test]
    fn a_mark_is_seen_wherever_it_is_and_the_first_that_is_seen_is_one() {
        let mut number = 7_u64;
        for _ in 0..100_000 {
            number = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ number >> 29;
            // Few values, so that many are alike and many differ by one.
            let marks = number.to_le_bytes().map(|byte| byte % 4);
            for mark in 1..4 {
                let seen = alike(marks, mark);
                let is_seen = |place: usize| seen & 0x80 << (place * 8) != 0;
                let there: Vec<_> = (0..PLACES).filter(|place| marks[*place] == mark).collect();
                assert!(there.iter().all(|place| is_seen(*place)), "{marks:?} {mark}");
                assert_eq!(there.first().copied(), (0..8).find(|place| is_seen(*place)), "{marks:?} {mark}");
            }
        }
    }

    #[test]
    fn what_was_moved_while_it_was_looked_for_is_found() {
        let copies: Copies<()> = Copies::default();
        let on = |line: u8, number: u8| {
            let mut bytes = [number; 32];
            bytes[0] = 0;
            bytes[2..6].copy_from_slice(&u32::from(line).to_ne_bytes());
            SessionId::from_bytes(bytes)
        };
        // They belong to the last line, until there are eight; one more than there is room for, so that one lies in the first.
        let ids: Vec<_> = (1..=8).map(|number| on(if number % 2 == 0 { 3 } else { 7 }, number)).collect();
        ids.iter().for_each(|id| copies.keep(copy(id, 1)));
        let [part, ..] = &*copies.parts else { panic!("no parts") };
        let found = |lines| ids.iter().filter(|id| part.search(lines, Hash::of(id), id).is_some()).count();
        let in_the_first =
            part.line(0).map(|line| line.marks().into_iter().take(PLACES).filter(|mark| *mark != 0).count());
        assert_eq!((part.lines(), found(2), in_the_first), (2, 8, Some(1)));
        for lines in [4, 8, 16] {
            assert_eq!((part.double(), part.lines()), (0, lines));
            let moved = ids.iter().filter(|id| part.find(lines / 2, Hash::of(id), id).is_none()).count();
            assert!(moved > 0 || lines == 16, "{lines}");
            for noted in [1, 2, 4, 8, 16].into_iter().filter(|noted| *noted <= lines) {
                assert_eq!(found(noted), 8, "{noted} of {lines}");
            }
        }
        ids.iter().for_each(|id| copies.remove(id));
        assert_eq!((found(1), copies.len()), (0, 0));
    }

    struct Over<'o>(&'o AtomicBool);

    impl Drop for Over<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    #[test]
    fn what_stays_is_found_at_every_moment_while_others_come_and_go() {
        let (copies, over) = (Copies::default(), AtomicBool::new(false));
        let stay: Vec<_> = (0..2_000).map(id).collect();
        stay.iter().for_each(|id| copies.keep(copy(id, 1)));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // However this ends.
                let _over = Over(&over);
                for round in 1..4 {
                    (2_000..round * 10_000).for_each(|number| copies.keep(copy(&id(number), 2)));
                    (2_000..round * 10_000).for_each(|number| copies.remove(&id(number)));
                    stay.iter().for_each(|id| copies.keep(copy(id, 1)));
                }
            });
            for _ in 0..2 {
                scope.spawn(|| {
                    while !over.load(Ordering::SeqCst) {
                        assert!(stay.iter().all(|id| generation(&copies, id) == Some(1)));
                    }
                });
            }
        });
        assert_eq!(copies.len(), stay.len());
    }
}
