//! How requests are made canonical, and who is believed about the client (01 §1.3).

use postern_edge::{EscapedSlashes, PathConfig, UnderscoreHeaders};

use super::flags::Flags;
use crate::config::block::Block;
use crate::config::context::Context;

pub(super) fn resolve(cx: &mut Context<'_>, settings: &Block<'_>, flags: Flags) -> PathConfig {
    let slashes = [
        ("reject_request", EscapedSlashes::Reject),
        ("keep_unchanged", EscapedSlashes::Keep),
        ("unescape_and_redirect", EscapedSlashes::UnescapeAndRedirect),
        ("unescape_and_forward", EscapedSlashes::UnescapeAndForward),
    ];
    let underscores = [
        ("reject_request", UnderscoreHeaders::Reject),
        ("drop_header", UnderscoreHeaders::Drop),
        ("allow", UnderscoreHeaders::Allow),
    ];
    let default = PathConfig::default();
    let escaped_slashes = settings.choice(cx, "path_with_escaped_slashes_action", "", &slashes);
    let underscores = settings.choice(cx, "headers_with_underscores_action", "", &underscores);
    PathConfig {
        normalize: settings.boolean(cx, "normalize_path").unwrap_or(default.normalize),
        merge_slashes: settings.boolean(cx, "merge_slashes").unwrap_or(default.merge_slashes),
        escaped_slashes: escaped_slashes.unwrap_or_default(),
        underscores: underscores.unwrap_or_default(),
        match_any_incoming_port: flags.match_any_incoming_port,
    }
}

/// `xff_num_trusted_hops` and `skip_xff_append`.
pub(super) fn forwarded(cx: &mut Context<'_>, settings: &Block<'_>) -> (u32, bool) {
    let hops = settings.number(cx, "xff_num_trusted_hops").unwrap_or(0);
    (hops, settings.flag(cx, "skip_xff_append"))
}
