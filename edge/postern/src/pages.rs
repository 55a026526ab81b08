//! How large the system's pages are for this process: small at first, since of the pages of 2 MB that the allocator asks for a small
//! installation would fill a twentieth; large where many sessions are kept, since more of them are near the processor then.
//!
//! A system that cannot be told so gives what it gives: that costs memory or time, and nothing else.

use std::time::Duration;

use tokio::time::sleep;

/// Small ones only, but for the two or so that what runs before `main` has. To be said before anything else is allocated.
pub fn small() {
    large(false);
}

/// Large ones too, once so many sessions are kept.
pub(crate) async fn large_for_many(kept: impl Fn() -> usize) {
    while kept() < MANY {
        sleep(EVERY).await;
    }
    large(true);
}

const MANY: usize = 65_536;
const EVERY: Duration = Duration::from_secs(2);

#[cfg(target_os = "linux")]
fn large(are_wanted: bool) {
    let _either_way = nix::sys::prctl::set_thp_disable(!are_wanted);
}

#[cfg(not(target_os = "linux"))]
const fn large(_: bool) {}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use nix::sys::prctl::get_thp_disable;

    use super::*;

    #[tokio::test]
    async fn pages_are_small_until_there_is_much_to_keep() {
        small();
        let waiting = tokio::time::timeout(Duration::from_millis(1), large_for_many(|| MANY - 1)).await;
        assert_eq!((waiting.is_err(), get_thp_disable()), (true, Ok(true)));
        large_for_many(|| MANY).await;
        assert_eq!(get_thp_disable(), Ok(false));
    }
}
