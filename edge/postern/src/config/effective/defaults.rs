//! What holds where a key is not written.

use std::collections::BTreeMap;

use postern_edge::JwtIssuerFormat;
use postern_edge::route::Route;
use serde_json::{Value, json};

use super::{Effective, Held};
use crate::config::keys::{FLAGS, Key, Kind, SETTINGS, Status};
use crate::config::problem::{At, Origin};
use crate::config::{Config, duration};

/// The default of a key: a value if the table has one that could be written, else in words.
pub(super) fn of(key: &Key, status: Status) -> Held {
    let works = status == Status::Works;
    match literal(key) {
        Some(value) if works => Held::Value(value),
        _ => Held::Words(key.default.replace('`', "")),
    }
}

/// `` `value` ``, perhaps with a remark in brackets.
pub(in crate::config) fn literal(key: &Key) -> Option<Value> {
    let (text, rest) = key.default.strip_prefix('`')?.split_once('`')?;
    if !(rest.is_empty() || rest.starts_with(" (")) || SETTINGS.find(text).is_some() {
        return None;
    }
    Some(typed(&key.kind, text))
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the others are texts")]
fn typed(kind: &Kind, text: &str) -> Value {
    match kind {
        Kind::Bool => json!(text == "true"),
        Kind::Number(..) | Kind::Milliseconds => {
            text.parse::<u64>().map_or_else(|_| json!(text), |number| json!(number))
        }
        Kind::List(kind) => json!([typed(kind, text)]),
        _ => json!(text),
    }
}

/// Fills in what is made from other keys, as the configuration has it.
pub(super) fn fill(top: &mut Vec<Effective>, config: Option<&Config>) {
    flags(top);
    references(top);
    let Some(config) = config else { return };
    for one in &mut *top {
        if let (Held::Words(_), Some(value)) = (&one.held, derived(&one.name, config)) {
            one.held = Held::Value(value);
        }
    }
    let routes: BTreeMap<&str, &Route> =
        config.places.iter().map(|at| at.key.as_str()).zip(config.edge.routes.iter().map(|route| &**route)).collect();
    for list in top.iter_mut().filter(|one| ["routes", "policy"].contains(&one.name.as_str())) {
        let Held::List(written) = &mut list.held else { continue };
        for keys in written {
            let from = keys.iter().find(|one| one.name == "from").map(|one| one.at.key.as_str().to_owned());
            if let Some(route) = from.and_then(|from| routes.get(from.as_str()).copied()) {
                keys.iter_mut().for_each(|one| of_route(one, route));
            }
            keys.retain(|one| one.name != "prefix" || is_written(one));
            for one in keys.iter_mut().filter(|one| MATCH_AND_TARGET.contains(&one.name.as_str())) {
                if let Held::Map(inside) = &mut one.held {
                    inside.retain(is_written);
                }
            }
        }
    }
}

/// With the path, what the id of a route is made from as it is written: a default that is written out would be another route.
const MATCH_AND_TARGET: [&str; 2] = ["redirect", "response"];

fn is_written(one: &Effective) -> bool {
    one.at.origin != Origin::Absent
}

/// What a route takes from the top of the file, or from its other keys.
fn of_route(one: &mut Effective, route: &Route) {
    if is_written(one) {
        return;
    }
    let time = |time: Option<std::time::Duration>| json!(time.map_or_else(|| "0".to_owned(), duration::written));
    let value = match one.name.as_str() {
        "name" => json!(route.name),
        "timeout" => time(route.timeout),
        "idle_timeout" => time(route.idle_timeout),
        "pass_identity_headers" => json!(route.pass_identity_headers),
        "jwt_issuer_format" => json!(match route.issuer_format {
            JwtIssuerFormat::HostOnly => "hostOnly",
            JwtIssuerFormat::Uri => "uri",
        }),
        _ => return,
    };
    one.held = Held::Value(value);
}

/// A default that is the value of another key.
fn references(top: &mut [Effective]) {
    let values: BTreeMap<String, Held> = top.iter().map(|one| (one.name.clone(), one.held.clone())).collect();
    for one in top {
        let Held::Words(words) = &one.held else { continue };
        if let (true, Some(value @ Held::Value(_))) = (one.works, values.get(words)) {
            one.held = value.clone();
        }
    }
}

/// What the load made of keys that are not written.
fn derived(name: &str, config: &Config) -> Option<Value> {
    let idp = config.authn.idps.first();
    Some(match name {
        "authenticate_service_url" => json!(config.authn.url.as_str().trim_end_matches('/')),
        "set_response_headers" => config
            .edge
            .response_headers
            .0
            .iter()
            .map(|(name, value)| (name.to_string(), json!(String::from_utf8_lossy(value.as_bytes()))))
            .collect(),
        "access_log_fields" => {
            config.edge.logs.access.iter().filter_map(|field| field.name()).map(Value::from).collect()
        }
        "authorize_log_fields" => {
            config.edge.logs.authorize.iter().filter_map(|field| field.name()).map(Value::from).collect()
        }
        "idp_scopes" => json!(idp?.scopes),
        "idp_provider_url" => json!(idp?.issuer),
        "idp_request_params" => idp?.request_params.iter().map(|(name, value)| (name.clone(), json!(value))).collect(),
        _ => return None,
    })
}

/// Each flag that changes something by itself, those that are written and those that are not.
fn flags(top: &mut [Effective]) {
    let Some(one) = top.iter_mut().find(|one| one.name == "runtime_flags") else { return };
    let written = match &one.held {
        Held::Value(Value::Object(map)) => map.clone(),
        Held::Value(_) | Held::Map(_) | Held::List(_) | Held::Content(_) | Held::Words(_) => serde_json::Map::new(),
    };
    let flag = |name: &str, at: At, on: Value| Effective {
        name: name.to_owned(),
        at: At { key: one.at.key.key(name), ..at },
        held: Held::Value(on),
        status: one.status.clone(),
        works: true,
    };
    let mut flags: Vec<_> =
        written.iter().map(|(name, on)| flag(&name.to_ascii_lowercase(), one.at.clone(), on.clone())).collect();
    for (name, default, _) in FLAGS.iter().filter(|(.., status)| *status == Status::Works) {
        if !flags.iter().any(|flag| flag.name == *name) {
            flags.push(flag(name, At::absent(""), json!(default)));
        }
    }
    one.held = Held::Map(flags);
}
