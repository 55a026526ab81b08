//! Keys of listeners that nothing acts on yet (01 §1.3).

use super::host;
use crate::config::block::Block;
use crate::config::context::Context;

/// What is asked of listeners.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listener {
    /// `tls_derive`: the name of a certificate that is derived from the shared secret.
    pub derived_name: Option<String>,
    /// `auto_apply_changesets`.
    pub auto_apply_changesets: bool,
    /// `session_recording_concurrency`.
    pub session_recordings: Option<u32>,
}

pub(super) fn resolve(cx: &mut Context<'_>, settings: &Block<'_>) -> Listener {
    Listener {
        derived_name: host(cx, settings, "tls_derive"),
        auto_apply_changesets: settings.flag(cx, "auto_apply_changesets"),
        session_recordings: settings.number(cx, "session_recording_concurrency"),
    }
}
