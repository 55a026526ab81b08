//! `runtime_flags` (01 §1.10).

use postern_policy::document::nearest;

use crate::config::Code;
use crate::config::block::Block;
use crate::config::context::Context;
use crate::config::keys::{FLAGS, Status};
use crate::config::value::{Spanned, as_boolean, quoted, refuse_repeated};

/// The flags that change something here.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the file, of that name")]
pub(super) struct Flags {
    pub(super) hot_reload: bool,
    pub(super) match_any_incoming_port: bool,
    pub(super) jwt_endpoint: bool,
    /// Criteria on identity may be true for nobody, as in Pomerium (01 §8.1).
    pub(super) fail_open_identity: bool,
    pub(super) mcp: bool,
    pub(super) debug_admin: bool,
}

pub(super) fn resolve(cx: &mut Context<'_>, settings: &Block<'_>) -> Flags {
    let written = settings.find("runtime_flags").and_then(|field| field.written_pairs(cx)).unwrap_or_default();
    refuse_repeated(cx, &written);
    let mut set = Vec::new();
    for (name, value) in &written {
        if let Some(on) = boolean(cx, value) {
            set.push((name.value.to_ascii_lowercase(), on));
            tell(cx, name, on);
        }
    }
    let flag = |wanted: &str| {
        let default = FLAGS.iter().any(|(name, default, _)| *name == wanted && *default);
        set.iter().rev().find(|(name, _)| name == wanted).map_or(default, |(_, on)| *on)
    };
    Flags {
        hot_reload: flag("config_hot_reload"),
        match_any_incoming_port: flag("match_any_incoming_port"),
        jwt_endpoint: flag("pomerium_jwt_endpoint"),
        fail_open_identity: flag("pomerium_fail_open_identity"),
        mcp: flag("mcp"),
        debug_admin: flag("debug_admin_endpoints"),
    }
}

fn boolean(cx: &mut Context<'_>, value: &Spanned<String>) -> Option<bool> {
    let found = as_boolean(&value.value).or_else(|| value.value.parse::<i64>().is_ok().then_some(true));
    if found.is_none() {
        let what = format!("{} is neither true nor false", quoted(&value.value));
        cx.fatal(Code::WrongType, &value.at, what, "write `true` or `false`");
    }
    found
}

/// Tells of flags that do not exist, and of those that are asked for and change nothing here.
fn tell(cx: &mut Context<'_>, name: &Spanned<String>, on: bool) {
    let lower = name.value.to_ascii_lowercase();
    let Some((known, default, status)) = FLAGS.iter().find(|(known, ..)| *known == lower) else {
        let searched = cx.problems.may_search();
        let near = searched.then(|| nearest(&lower, FLAGS.iter().map(|(known, ..)| *known))).flatten();
        let hint = near.map_or_else(|| "remove it".to_owned(), |near| format!("did you mean `{near}`?"));
        let what = format!("there is no runtime flag {}", quoted(&name.value));
        return cx.advise(Code::UnknownFlag, &name.at, what, hint);
    };
    match status {
        Status::NotYetHarmless | Status::NotYet if on => {
            let what = format!("what the flag `{known}` switches on is not supported yet");
            cx.advise(Code::NotYet, &name.at, what, "it is ignored; remove it");
        }
        Status::NoEffect(why) if on != *default => {
            let what = format!("the flag `{known}` has no effect here");
            cx.advise(Code::NoEffect, &name.at, what, format!("{why}; remove it"));
        }
        Status::Works
        | Status::NotYet
        | Status::NotYetHarmless
        | Status::AsItsBlock
        | Status::NoEffect(_)
        | Status::Removed(_) => {}
    }
}
