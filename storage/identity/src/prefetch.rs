//! Asks for memory before it is read: what lies apart then comes at one time, and not one piece after the other.

/// Asks for the line of the processor's cache in which that value begins, and does not wait for it. A later read is done sooner; nothing
/// else changes.
#[inline]
#[cfg_attr(not(target_arch = "x86_64"), expect(clippy::missing_const_for_fn, reason = "does nothing there"))]
pub fn prefetch<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    safe_arch::prefetch_t0(value);
    #[cfg(not(target_arch = "x86_64"))]
    let _nothing_is_asked = value;
}

/// Asks for the lines of the processor's cache in which these bytes lie, of many for the first ones. Counted from the first byte on, so
/// that the last line may be missed.
#[inline]
pub fn prefetch_bytes(bytes: &[u8]) {
    for line in bytes.chunks(LINE).take(LINES) {
        line.iter().take(1).for_each(prefetch);
    }
}

/// Of a processor's cache, in bytes.
const LINE: usize = 64;
/// More at one time would wait for each other.
const LINES: usize = 16;
