//! A comparison as one JSON document (`docs/guides/diff.md`).

use serde_json::{Value, json};

use super::compare::{Change, Position};
use super::routes::RouteChange;
use super::{Comparison, Side};
use crate::ask;

impl Comparison<'_> {
    /// Everything that was found.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let [old, new] = &self.sides;
        let numbers = |pick: fn(&RouteChange) -> Option<usize>, side: &Side<'_>| -> Vec<Value> {
            self.routes.iter().filter_map(pick).map(|at| route(side, at)).collect()
        };
        let added = numbers(|change| if let RouteChange::Added(at) = change { Some(*at) } else { None }, new);
        let removed = numbers(|change| if let RouteChange::Removed(at) = change { Some(*at) } else { None }, old);
        let changed = self.routes.iter().filter_map(|change| match change {
            RouteChange::Changed(before, after, what) => {
                Some(json!({ "what": what, "before": route(old, *before), "after": route(new, *after) }))
            }
            RouteChange::Added(_) | RouteChange::Removed(_) => None,
        });
        let changed: Vec<_> = changed.collect();
        let compared = &self.access.compared;
        let unmet = |side: &Side<'_>, at: &[usize]| at.iter().map(|at| route(side, *at)).collect::<Vec<_>>();
        let [old_unmet, new_unmet] = &compared.unmet;
        json!({
            "changes": self.changes_access(),
            "routes": { "added": added, "removed": removed, "changed": changed },
            "access": self.access.changes.iter().map(|change| self.change(change)).collect::<Vec<_>>(),
            "compared": {
                "addresses": compared.addresses,
                "combinations": compared.combinations,
                "routes_not_met": { "before": unmet(old, old_unmet), "after": unmet(new, new_unmet) },
                "left_out": self.access.left_out(),
            },
        })
    }

    fn change(&self, change: &Change) -> Value {
        let [old, new] = &self.sides;
        let (subject, request) = change.scenario.to_json();
        json!({
            "direction": change.direction().as_str(),
            "words": change.scenario.words(&self.usual),
            "subject": subject,
            "request": request,
            "url": change.address.url(),
            "before": position(old, &change.before),
            "after": position(new, &change.after),
        })
    }
}

fn position(side: &Side<'_>, position: &Position) -> Value {
    json!({
        "outcome": position.outcome.as_str(),
        "status": position.status,
        "reason": position.reason,
        "route": position.route.map(|at| route(side, at)),
    })
}

fn route(side: &Side<'_>, at: usize) -> Value {
    let route = side.route(at);
    json!({
        "key": side.at(at).map(ask::key),
        "place": side.place(at),
        "name": route.map(|route| route.name.as_str()),
        "for": route.map(ask::matcher),
        "to": route.map(ask::target),
    })
}
