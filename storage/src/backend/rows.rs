//! What each verb does, over ordered tables of bytes: written once for every backend that has such tables.

use prost::Message as _;

use super::place::Inner;
use super::{Done, END_LIFE_MS, MARKED_AT_ONCE, Page, Place, Stored, Write, epoch_ends};
use crate::StorageError;
use crate::record::{EVERYONE, Key, Row, rewrite};

/// The tables of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Table {
    /// Handle -> row.
    Sessions,
    /// Handle -> sealed tokens.
    Tokens,
    /// Owner, handle -> nothing. A hint: dangling entries are skipped.
    Owned,
    /// Owner -> not-before.
    Epochs,
    /// Keyed hash of a single-use value -> when it may be forgotten.
    Spent,
    /// Time, kind, key -> nothing: what ends when.
    Endings,
    /// Time, handle -> nothing: whose refresh is to be tried when. What is there is in the row too.
    Due,
}

impl Table {
    /// Every table there is.
    #[cfg(test)]
    pub(super) const ALL: [Self; 7] =
        [Self::Sessions, Self::Tokens, Self::Owned, Self::Epochs, Self::Spent, Self::Endings, Self::Due];
}

/// A consistent view of the tables.
pub(super) trait Read {
    fn find(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError>;
    /// The first keys from `from` to before `to`.
    fn keys(&self, table: Table, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Vec<u8>>, StorageError>;
}

/// The tables inside of a transaction.
pub(super) trait Change: Read {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StorageError>;
    fn remove(&mut self, table: Table, key: &[u8]) -> Result<(), StorageError>;
    /// Refuses if there is no room for one more record.
    fn room(&self) -> Result<(), StorageError>;
}

pub(super) fn session(rows: &(impl Read + ?Sized), handle: &Key) -> Result<Option<Stored>, StorageError> {
    let Some(row) = rows.find(Table::Sessions, handle)?.and_then(|bytes| Row::decode(bytes.as_slice()).ok()) else {
        return Ok(None);
    };
    let not_before = epoch(rows, &row.owner())?.max(epoch(rows, &EVERYONE)?);
    Ok(Some(Stored { row, not_before }))
}

pub(super) fn tokens(rows: &(impl Read + ?Sized), handle: &Key) -> Result<Option<(Stored, Vec<u8>)>, StorageError> {
    let Some(stored) = session(rows, handle)? else { return Ok(None) };
    Ok(rows.find(Table::Tokens, handle)?.map(|tokens| (stored, tokens)))
}

pub(super) fn list(rows: &(impl Read + ?Sized), owner: &Key, limit: usize) -> Result<Vec<(Key, Stored)>, StorageError> {
    let mut found = Vec::new();
    for handle in owned(rows, owner, limit)? {
        found.extend(session(rows, &handle)?.map(|stored| (handle, stored)));
    }
    Ok(found)
}

/// Sessions in the order of their names, from a place on.
pub(super) fn page(rows: &(impl Read + ?Sized), after: Option<Place>, limit: usize) -> Result<Page, StorageError> {
    let from = match after {
        None => Vec::new(),
        // No key begins with another one, so a zero more is the next place.
        Some(Place(Inner::Behind(key))) => [&key[..], &[0]].concat(),
        Some(Place(Inner::Scan { .. })) => return Err(StorageError::unavailable("this place is of another store")),
    };
    let keys = rows.keys(Table::Sessions, &from, &[0xff; 33], limit)?;
    let keys: Vec<Key> = keys.into_iter().filter_map(|key| key.try_into().ok()).collect();
    let next = keys.last().filter(|_| keys.len() == limit).map(|last| Place(Inner::Behind(*last)));
    let mut found = Vec::with_capacity(keys.len());
    for key in keys {
        found.extend(session(rows, &key)?.map(|stored| (key, stored)));
    }
    Ok(Page { found, next, ..Page::default() })
}

/// Of what is due before that time, the earliest ones that come after `after`.
pub(super) fn due(
    rows: &(impl Read + ?Sized),
    after: Option<&(i64, Key)>,
    before: i64,
    limit: usize,
) -> Result<Vec<(i64, Key)>, StorageError> {
    // No key begins with another one, so a zero more is the next place.
    let from = after.map(|(at, handle)| [&due_key(*at, handle)[..], &[0]].concat()).unwrap_or_default();
    let to = before.max(0).to_be_bytes();
    if from[..] >= to[..] {
        return Ok(Vec::new());
    }
    let keys = rows.keys(Table::Due, &from, &to, limit)?;
    let parse = |key: Vec<u8>| {
        let (at, handle) = key.split_first_chunk()?;
        Some((i64::from_be_bytes(*at), handle.try_into().ok()?))
    };
    Ok(keys.into_iter().filter_map(parse).collect())
}

pub(super) fn apply(rows: &mut impl Change, write: &Write) -> Result<Done, StorageError> {
    match write {
        Write::Create { handle, row, tokens } => create(rows, handle, row, tokens),
        Write::Commit { handle, expected, row, tokens, tell: _, last: _ } => {
            commit(rows, handle, *expected, row, tokens)
        }
        Write::Revoke { handle, at } | Write::Mark { handle, at } => revoke(rows, handle, *at),
        Write::RevokeOwner { owner, not_before, lasts } => revoke_owner(rows, owner, *not_before, *lasts),
        Write::Spend { key, until } => spend(rows, key, *until),
        Write::Touch { touched, over } => touch(rows, touched, over),
        Write::Postpone { handle, from, to } => postpone(rows, handle, *from, *to),
        Write::Sweep { before, limit } => sweep(rows, *before, *limit),
    }
}

/// A repetition changes nothing: neither a session that was revoked since, nor one that was refreshed since.
fn create(rows: &mut impl Change, handle: &Key, row: &Row, tokens: &[u8]) -> Result<Done, StorageError> {
    rows.room()?;
    if rows.find(Table::Sessions, handle)?.is_some() {
        return Ok(Done::Applied);
    }
    rows.put(Table::Owned, &[row.owner(), *handle].concat(), &[])?;
    rows.put(Table::Sessions, handle, &row.encode_to_vec())?;
    ends(rows, row.expires_at, Ending::Session, handle)?;
    rows.put(Table::Tokens, handle, tokens)?;
    move_due(rows, handle, None, row.refresh_next)?;
    Ok(Done::Applied)
}

fn commit(rows: &mut impl Change, handle: &Key, expected: u64, row: &Row, tokens: &[u8]) -> Result<Done, StorageError> {
    let Some(encoded) = rows.find(Table::Sessions, handle)? else { return Ok(Done::Gone) };
    let Some(stored) = session(rows, handle)? else { return Ok(Done::Gone) };
    if stored.is_revoked() || stored.row.owner != row.owner {
        return Ok(Done::Gone);
    }
    if stored.row.generation != expected {
        return Ok(Done::Refused);
    }
    let next = rewrite(&encoded, |old| {
        let idle_until = old.idle_until.max(row.idle_until);
        *old = Row { idle_until, ..row.clone() };
    });
    rows.put(Table::Sessions, handle, &next.unwrap_or_default())?;
    rows.put(Table::Tokens, handle, tokens)?;
    move_due(rows, handle, stored.row.refresh_next, row.refresh_next)?;
    ends(rows, row.expires_at, Ending::Session, handle)?;
    Ok(Done::Applied)
}

/// What has no end of its own is remembered for a while.
fn revoke(rows: &mut impl Change, handle: &Key, at: i64) -> Result<Done, StorageError> {
    rows.remove(Table::Tokens, handle)?;
    let Some(encoded) = rows.find(Table::Sessions, handle)? else { return Ok(Done::Gone) };
    let (mut due, mut owner, mut moved) = (None, None, None);
    let marked = rewrite(&encoded, |row| {
        row.revoked = true;
        let end = row.expires_at.min(at.saturating_add(END_LIFE_MS));
        moved = (end < row.expires_at).then_some((row.expires_at, end));
        row.expires_at = end;
        row.view.clear();
        row.refresh_at = None;
        due = row.refresh_next.take();
        owner = Some(row.owner());
    });
    move_due(rows, handle, due, None)?;
    if let Some((from, to)) = moved {
        rows.remove(Table::Endings, &ending_key(from, Ending::Session, handle))?;
        ends(rows, to, Ending::Session, handle)?;
    }
    if let Some(owner) = owner {
        // What is over takes no place in the list of its owner's, which shows only so many.
        rows.remove(Table::Owned, &[owner, *handle].concat())?;
    }
    match marked {
        Some(marked) => rows.put(Table::Sessions, handle, &marked)?,
        None => rows.remove(Table::Sessions, handle)?,
    }
    Ok(Done::Applied)
}

/// The epoch is what ends the sessions. Marking them as well wipes their tokens; beyond [`MARKED_AT_ONCE`] of them the
/// tokens stay sealed, and are never given out again, until they expire.
fn revoke_owner(rows: &mut impl Change, owner: &Key, not_before: i64, lasts: bool) -> Result<Done, StorageError> {
    let not_before = epoch(rows, owner)?.map_or(not_before, |old| old.max(not_before));
    rows.put(Table::Epochs, owner, &not_before.to_be_bytes())?;
    ends(rows, epoch_ends(not_before, lasts), Ending::Epoch, owner)?;
    for handle in owned(rows, owner, MARKED_AT_ONCE)? {
        if session(rows, &handle)?.is_some_and(|stored| !stored.row.revoked && stored.is_revoked()) {
            revoke(rows, &handle, not_before)?;
        }
    }
    Ok(Done::Applied)
}

/// A value that is there is spent, whatever the clock says: only the sweep forgets it.
fn spend(rows: &mut impl Change, key: &Key, until: i64) -> Result<Done, StorageError> {
    if rows.find(Table::Spent, key)?.is_some() {
        return Ok(Done::Refused);
    }
    rows.room()?;
    rows.put(Table::Spent, key, &until.to_be_bytes())?;
    ends(rows, until, Ending::Spent, key)?;
    Ok(Done::Applied)
}

fn touch(rows: &mut impl Change, touched: &[(Key, i64)], over: &[(Key, i64)]) -> Result<Done, StorageError> {
    for (handle, until) in touched {
        let Some(encoded) = rows.find(Table::Sessions, handle)? else { continue };
        let moved = rewrite(&encoded, |row| {
            let until = (*until).min(row.expires_at);
            row.idle_until = row.idle_until.map(|old| old.max(until));
        });
        if let Some(moved) = moved {
            rows.put(Table::Sessions, handle, &moved)?;
        }
    }
    for (handle, seen_at) in over {
        if session(rows, handle)?.is_some_and(|stored| is_over(&stored.row, *seen_at)) {
            forget_session(rows, handle)?;
        }
    }
    Ok(Done::Applied)
}

/// Of many who postpone from one time exactly one is heard: that is what makes a try a lease. What has ended is no
/// longer due.
fn postpone(rows: &mut impl Change, handle: &Key, from: i64, to: i64) -> Result<Done, StorageError> {
    let Some(encoded) = rows.find(Table::Sessions, handle)? else {
        move_due(rows, handle, Some(from), None)?;
        return Ok(Done::Gone);
    };
    let Some(stored) = session(rows, handle)?.filter(|stored| stored.row.refresh_next == Some(from)) else {
        move_due(rows, handle, Some(from), None)?;
        return Ok(Done::Refused);
    };
    let next = if stored.is_revoked() || is_over(&stored.row, from) { None } else { Some(to) };
    let moved = rewrite(&encoded, |row| row.refresh_next = next);
    rows.put(Table::Sessions, handle, &moved.unwrap_or_default())?;
    move_due(rows, handle, Some(from), next)?;
    Ok(if next.is_some() { Done::Applied } else { Done::Gone })
}

/// Keeps the index in step with `refresh_next` of the row.
fn move_due(rows: &mut impl Change, handle: &Key, from: Option<i64>, to: Option<i64>) -> Result<(), StorageError> {
    if let Some(from) = from {
        rows.remove(Table::Due, &due_key(from, handle))?;
    }
    to.map_or(Ok(()), |to| rows.put(Table::Due, &due_key(to, handle), &[]))
}

fn due_key(at: i64, handle: &Key) -> Vec<u8> {
    [&at.max(0).to_be_bytes()[..], handle].concat()
}

fn is_over(row: &Row, now: i64) -> bool {
    row.expires_at <= now || row.idle_until.is_some_and(|until| until <= now)
}

fn sweep(rows: &mut impl Change, before: i64, limit: usize) -> Result<Done, StorageError> {
    let due = rows.keys(Table::Endings, &[], &before.max(0).to_be_bytes(), limit)?;
    for ending in &due {
        rows.remove(Table::Endings, ending)?;
        if let Some((kind, key)) = Ending::parse(ending) {
            forget(rows, kind, &key, before)?;
        }
    }
    Ok(Done::Swept(due.len()))
}

/// Forgets a record whose time came, unless its life was prolonged since: then a later ending stands for it.
fn forget(rows: &mut impl Change, kind: Ending, key: &Key, before: i64) -> Result<(), StorageError> {
    match kind {
        Ending::Session => match session(rows, key)? {
            Some(stored) if stored.row.expires_at >= before => Ok(()),
            _ => forget_session(rows, key),
        },
        Ending::Epoch => {
            let lasts = rows.find(Table::Endings, &ending_key(epoch_ends(0, true), kind, key))?.is_some();
            match epoch(rows, key)? {
                Some(epoch) if epoch_ends(epoch, lasts) >= before => Ok(()),
                _ => rows.remove(Table::Epochs, key),
            }
        }
        Ending::Spent => rows.remove(Table::Spent, key),
    }
}

fn forget_session(rows: &mut impl Change, handle: &Key) -> Result<(), StorageError> {
    if let Some(stored) = session(rows, handle)? {
        rows.remove(Table::Owned, &[stored.row.owner(), *handle].concat())?;
        rows.remove(Table::Endings, &ending_key(stored.row.expires_at, Ending::Session, handle))?;
        move_due(rows, handle, stored.row.refresh_next, None)?;
    }
    rows.remove(Table::Tokens, handle)?;
    rows.remove(Table::Sessions, handle)
}

fn owned(rows: &(impl Read + ?Sized), owner: &Key, limit: usize) -> Result<Vec<Key>, StorageError> {
    let end = [&owner[..], &[0xff; 33]].concat();
    let keys = rows.keys(Table::Owned, owner, &end, limit)?;
    Ok(keys.iter().filter_map(|key| key.get(32..)?.try_into().ok()).collect())
}

/// Before when the sessions of an owner are over.
pub(super) fn epoch(rows: &(impl Read + ?Sized), owner: &Key) -> Result<Option<i64>, StorageError> {
    Ok(time(rows.find(Table::Epochs, owner)?))
}

fn time(value: Option<Vec<u8>>) -> Option<i64> {
    value?.first_chunk().map(|bytes| i64::from_be_bytes(*bytes))
}

/// What ends at a time in [`Table::Endings`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Session = 1,
    Epoch = 3,
    Spent = 4,
}

impl Ending {
    fn parse(key: &[u8]) -> Option<(Self, Key)> {
        let (kind, key) = key.get(8..)?.split_first()?;
        let kind = [Self::Session, Self::Epoch, Self::Spent].into_iter().find(|k| *k as u8 == *kind)?;
        Some((kind, key.try_into().ok()?))
    }
}

fn ends(rows: &mut impl Change, at: i64, kind: Ending, key: &Key) -> Result<(), StorageError> {
    rows.put(Table::Endings, &ending_key(at, kind, key), &[])
}

/// Times before 1970 sort as 1970, so that the bytes sort as the times do.
fn ending_key(at: i64, kind: Ending, key: &Key) -> Vec<u8> {
    [&at.max(0).to_be_bytes()[..], &[kind as u8], key].concat()
}

#[cfg(test)]
mod tests {
    use postern_identity::NEVER;

    use super::super::memory::Memory;
    use super::*;

    const DAY: i64 = 24 * 3600 * 1000;

    fn swept(memory: &Memory, before: i64) -> usize {
        match memory.write(&Write::Sweep { before, limit: 100 }).unwrap() {
            Done::Swept(count) => count,
            done @ (Done::Applied | Done::Refused | Done::Gone) => panic!("{done:?}"),
        }
    }

    #[test]
    fn r_010_what_had_no_end_is_forgotten_401_days_after_it_was_ended() {
        let memory = Memory::new(10_000);
        let (owner, handle) = ([1; 32], [2; 32]);
        let row = Row { owner: owner.to_vec(), expires_at: NEVER.as_millis(), ..Row::default() };
        memory.write(&Write::Create { handle, row, tokens: Vec::new() }).unwrap();
        assert_eq!(memory.write(&Write::Revoke { handle, at: DAY }).unwrap(), Done::Applied);
        assert_eq!(swept(&memory, 402 * DAY), 0);
        assert!(memory.read(|rows| session(rows, &handle)).unwrap().is_some_and(|stored| stored.is_revoked()));
        assert_eq!(memory.write(&Write::Revoke { handle, at: 300 * DAY }).unwrap(), Done::Applied);
        assert_eq!(swept(&memory, 402 * DAY + 1), 1, "once more prolongs nothing");
        assert!(memory.read(|rows| session(rows, &handle)).unwrap().is_none());
        assert_eq!(memory.read(|rows| rows.keys(Table::Endings, &[], &[0xff; 9], 9)).unwrap(), [[0_u8; 0]; 0]);
    }

    #[test]
    fn s_095_the_end_of_what_had_no_end_of_its_own_is_never_forgotten() {
        let memory = Memory::new(10_000);
        let epoch_of = |owner: &Key| memory.read(|rows| epoch(rows, owner)).unwrap();
        let (people, accounts) = ([1; 32], [2; 32]);
        for (owner, lasts) in [(people, false), (accounts, false), (accounts, true)] {
            memory.write(&Write::RevokeOwner { owner, not_before: DAY, lasts }).unwrap();
        }
        assert_eq!((swept(&memory, 402 * DAY), swept(&memory, 402 * DAY + 1)), (0, 2));
        assert_eq!((epoch_of(&people), epoch_of(&accounts)), (None, Some(DAY)));
    }
}
