//! How many files this process may have open, and so how many connections: each is one, and accept and connect fail once there are no
//! more.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tracing::warn;

/// Takes as many as there may be: what a service begins with, mostly 1024, is for programs that ask `select`. Gives their number,
/// where that can be known.
pub(crate) fn raise() -> Option<u64> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    // Where that is not allowed, less holds.
    let _refused = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(now, _)| now)
}

/// Takes fewer connections than are wanted where there are not files enough for them, and says so. Else clients that only wait could
/// take the files that others' requests need to reach their upstreams.
pub(crate) fn bound(files: Option<u64>, connections: &mut usize) {
    let Some((files, most)) = files.map(|files| (files, most(files))).filter(|(_, most)| most < connections) else {
        return;
    };
    let wanted = std::mem::replace(connections, most);
    // An upstream's connection takes two.
    let enough = wanted.saturating_mul(3).saturating_add(1024);
    warn!(
        "`limits: {{connections}}` is {wanted}, and this process may open only {files} files, of which each connection takes one \
         and each to an upstream two: {most} connections are taken at once. Write LimitNOFILE={enough} into its unit, or fewer \
         `connections`"
    );
}

/// How many connections so many files are enough for: a quarter is for upstreams, stores and logs, or a few at least.
fn most(files: u64) -> usize {
    let most = files.saturating_sub((files / 4).max(128)).max(files / 4).max(1);
    usize::try_from(most).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r_029_no_more_connections_are_taken_than_leave_files_for_upstreams() {
        let bounded = |files: Option<u64>, mut connections: usize| {
            bound(files, &mut connections);
            connections
        };
        assert_eq!((bounded(Some(4096), 10_000), bounded(Some(4096), 3072)), (3072, 3072));
        assert_eq!((bounded(Some(13_334), 10_000), bounded(Some(31_024), 10_000)), (10_000, 10_000));
        assert_eq!((bounded(Some(300), 10_000), bounded(Some(100), 10_000), bounded(Some(0), 10)), (172, 25, 1));
        assert_eq!(bounded(None, 10_000), 10_000);
    }

    #[test]
    fn r_029_all_files_that_there_may_be_are_taken() {
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert_eq!(raise(), Some(most));
    }
}
