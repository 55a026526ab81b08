//! How large the system's pages are for this process: small at first, since of the pages of 2 MB that the allocator asks for a small
//! installation would fill a twentieth; large where many sessions are kept, since more of them are near the processor then.
//!
//! A system that cannot be told so gives what it gives: that costs memory or time, and nothing else.

use std::time::Duration;

use tokio::time::sleep;

use system::{begin_anew, is_small, large};

/// Small ones only. What runs before `main` has had large ones by then, so the program begins anew with small ones: the same
/// process, with the same arguments and descriptors. To be called before anything but the arguments was read; where that cannot be
/// had, it returns, and all goes on.
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

/// Some 3 MB of copies, or 10 MB with an assertion of each. Large pages cost some 16 MB at start, and what is there before is moved into
/// them by the system (`khugepaged`), 1.6 MB a second: so neither at once, nor late.
const MANY: usize = 8_192;
/// Among people who all come at one time, some thousands a second are added.
const EVERY: Duration = Duration::from_millis(250);

#[cfg(target_os = "linux")]
mod system {
    use std::ffi::{CString, OsString};
    use std::os::unix::ffi::OsStringExt as _;
    use std::path::Path;

    use nix::sys::prctl::{get_thp_disable, set_thp_disable};

    /// Only where the program is found under the name that it was started with: a loader, or a link, has another. Returns only if
    /// it cannot.
    pub(super) fn begin_anew() {
        let arguments: Vec<_> = std::env::args_os().collect();
        let named = arguments.first().and_then(|name| Path::new(name).file_name());
        let Ok(program) = std::env::current_exe() else { return };
        if named.is_none() || program.file_name() != named {
            return;
        }
        let text = |text: OsString| CString::new(text.into_vec());
        let arguments: Result<Vec<_>, _> = arguments.into_iter().map(text).collect();
        if let (Ok(program), Ok(arguments)) = (text(program.into()), arguments) {
            let _it_goes_on = nix::unistd::execv(&program, &arguments);
        }
    }

    /// Whether this process is told to have small ones only; that stays so for a program that it begins.
    pub(super) fn is_small() -> bool {
        get_thp_disable().unwrap_or_default()
    }

    pub(super) fn large(are_wanted: bool) {
        let _either_way = set_thp_disable(!are_wanted);
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    pub(super) const fn begin_anew() {}

    pub(super) const fn is_small() -> bool {
        true
    }

    pub(super) const fn large(_: bool) {}
}

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
