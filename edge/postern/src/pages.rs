//! How large the system's pages are for this process: small at first, since of the pages of 2 MB that the allocator asks for a small
//! installation would fill a twentieth; large where many sessions are kept, since more of them are near the processor then.
//!
//! A system that cannot be told so gives what it gives: that costs memory or time, and nothing else.

use std::time::Duration;

use tokio::time::sleep;

/// Small ones only. What runs before `main` has had large ones by then, so the program begins anew with small ones: the same
/// process, with the same arguments and descriptors. To be called before anything else is done; where that cannot be had, it returns,
/// and all goes on.
pub fn small() {
    if is_small() {
        return;
    }
    large(false);
    if is_small() {
        begin_anew();
    }
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
fn begin_anew() {
    use std::os::unix::process::CommandExt as _;

    let mut arguments = std::env::args_os();
    if let (Some(name), Ok(program)) = (arguments.next(), std::env::current_exe()) {
        let _it_goes_on = std::process::Command::new(program).arg0(name).args(arguments).exec();
    }
}

/// Whether this process is told to have small ones only; that stays so for a program that it begins.
#[cfg(target_os = "linux")]
fn is_small() -> bool {
    nix::sys::prctl::get_thp_disable().unwrap_or_default()
}

#[cfg(target_os = "linux")]
fn large(are_wanted: bool) {
    let _either_way = nix::sys::prctl::set_thp_disable(!are_wanted);
}

#[cfg(not(target_os = "linux"))]
const fn begin_anew() {}

#[cfg(not(target_os = "linux"))]
const fn is_small() -> bool {
    true
}

#[cfg(not(target_os = "linux"))]
const fn large(_: bool) {}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pages_are_small_until_there_is_much_to_keep() {
        large(false);
        let waiting = tokio::time::timeout(Duration::from_millis(1), large_for_many(|| MANY - 1)).await;
        assert!(waiting.is_err() && is_small());
        large_for_many(|| MANY).await;
        assert!(!is_small());
    }
}
