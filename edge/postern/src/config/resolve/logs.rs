//! How much is logged, and what of each exchange (01 §1.10).

use postern_edge::{AccessField, AuthorizeField, LogConfig};
use postern_policy::document::nearest;
use tracing::level_filters::LevelFilter;

use crate::config::block::Block;
use crate::config::context::Context;
use crate::config::value::quoted;
use crate::config::{Code, LogLevels};

const LEVELS: [(&str, LevelFilter); 13] = [
    ("", LevelFilter::INFO),
    ("trace", LevelFilter::TRACE),
    ("debug", LevelFilter::DEBUG),
    ("info", LevelFilter::INFO),
    ("warn", LevelFilter::WARN),
    ("warning", LevelFilter::WARN),
    ("error", LevelFilter::ERROR),
    ("critical", LevelFilter::ERROR),
    ("fatal", LevelFilter::ERROR),
    ("panic", LevelFilter::ERROR),
    ("off", LevelFilter::OFF),
    ("none", LevelFilter::OFF),
    ("disabled", LevelFilter::OFF),
];

pub(super) fn levels(cx: &mut Context<'_>, settings: &Block<'_>) -> LogLevels {
    let all = level(cx, settings, "log_level").unwrap_or(LevelFilter::INFO);
    let written = settings.filled(cx, "proxy_log_level").is_some();
    let access = if written { level(cx, settings, "proxy_log_level") } else { None };
    LogLevels { all, access: access.unwrap_or(all) }
}

pub(super) fn level(cx: &mut Context<'_>, settings: &Block<'_>, key: &str) -> Option<LevelFilter> {
    settings.choice(cx, key, "", &LEVELS)
}

pub(super) fn fields(cx: &mut Context<'_>, settings: &Block<'_>) -> LogConfig {
    let default = LogConfig::default();
    let access = list(cx, settings, "access_log_fields", AccessField::NAMES, AccessField::parse);
    let authorize = list(cx, settings, "authorize_log_fields", AuthorizeField::NAMES, AuthorizeField::parse);
    LogConfig { access: access.unwrap_or(default.access), authorize: authorize.unwrap_or(default.authorize) }
}

/// The fields that are known; the others are named, and left out.
fn list<T>(
    cx: &mut Context<'_>,
    settings: &Block<'_>,
    key: &str,
    names: &[&str],
    parse: impl Fn(&str) -> Option<T>,
) -> Option<Vec<T>> {
    let written = settings.texts(cx, key)?;
    let known = written.iter().filter_map(|name| {
        let field = parse(name.value.trim());
        if field.is_none() {
            let searched = cx.problems.may_search();
            let near = searched.then(|| nearest(&name.value, names.iter().copied())).flatten();
            let hint = near
                .map_or_else(|| format!("known are {}", names.join(", ")), |near| format!("did you mean `{near}`?"));
            let what = format!("there is no log field {}", quoted(&name.value));
            cx.advise(Code::UnknownField, &name.at, what, hint);
        }
        field
    });
    Some(known.collect())
}
