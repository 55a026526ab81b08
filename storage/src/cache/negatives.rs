//! Ids that lead nowhere, remembered for a moment in a table of fixed size: it cannot be grown by whoever sends them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use postern_identity::{SessionId, Timestamp};

/// Why an id leads nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Negative {
    Unknown,
    Revoked,
}

/// One word a slot: the kind (1 bit), a part of the id (31), the facts known then (16), the time (16), the last two
/// modulo their size. An id lands in one slot; what was there before is forgotten.
#[derive(Debug)]
pub(super) struct Negatives {
    slots: Box<[AtomicU64]>,
    life: u16,
}

impl Negatives {
    pub(super) fn new(life: Duration) -> Self {
        let ticks = u16::try_from(life.as_millis() / u128::from(TICK_MS)).unwrap_or(LONGEST).min(LONGEST);
        Self { slots: (0..SLOTS).map(|_| AtomicU64::new(0)).collect(), life: ticks }
    }

    /// What was noted of the id, if that is recent and nothing was heard since.
    pub(super) fn find(&self, id: &SessionId, facts: u64, now: Timestamp) -> Option<Negative> {
        let word = self.slot(id)?.load(Ordering::Relaxed);
        if word & !KIND & !LOW != mark(id) | facts_part(facts) {
            return None;
        }
        // A time in the future, after the clock was set back, is far in the past here.
        let age = ticks(now).wrapping_sub(word & LOW) & LOW;
        (age <= u64::from(self.life)).then_some(if word & KIND == 0 { Negative::Unknown } else { Negative::Revoked })
    }

    pub(super) fn note(&self, id: &SessionId, negative: Negative, facts: u64, now: Timestamp) {
        let kind = match negative {
            Negative::Unknown => 0,
            Negative::Revoked => KIND,
        };
        if let Some(slot) = self.slot(id) {
            slot.store(kind | mark(id) | facts_part(facts) | ticks(now), Ordering::Relaxed);
        }
    }

    fn slot(&self, id: &SessionId) -> Option<&AtomicU64> {
        let [.., high, low] = id.as_bytes();
        self.slots.get(usize::from(u16::from_be_bytes([*high, *low])))
    }
}

fn mark(id: &SessionId) -> u64 {
    let part = id.as_bytes().last_chunk::<6>().and_then(|tail| tail.first_chunk::<4>());
    // Never zero, so that an empty slot is nobody's.
    u64::from(part.map_or(0, |part| u32::from_be_bytes(*part)) >> 1 | 1) << 32
}

const fn facts_part(facts: u64) -> u64 {
    (facts & LOW) << 16
}

fn ticks(now: Timestamp) -> u64 {
    (now.as_millis().unsigned_abs() / TICK_MS) & LOW
}

/// 512 KiB of memory.
const SLOTS: usize = 1 << 16;
const TICK_MS: u64 = 64;
/// Half a minute: more would make a forgotten time, which comes round after 70 minutes, likely to matter.
const LONGEST: u16 = 512;
const KIND: u64 = 1 << 63;
const LOW: u64 = 0xffff;
