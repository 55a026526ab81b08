//! An explanation as one JSON document (`docs/guides/explain.md`).

use http::{HeaderMap, Response, header};
use postern_edge::route::Miss;
use postern_policy::{Reasons, Trace};
use serde_json::{Map, Value, json};

use super::{Explanation, Told};
use crate::ask;
use crate::probe::devices;

impl Explanation<'_> {
    /// Everything, in the order in which it happens.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let admission = &self.finding.admission;
        let upward = self.upward();
        json!({
            "request": self.request(),
            "subject": ask::subject(admission.subject.session()),
            "devices": self.question.devices.iter().map(devices::to_json).collect::<Vec<_>>(),
            "routes": self.looked().map(|looked| json!({
                "key": ask::key(looked.at),
                "place": ask::place(self.file, looked.at),
                "name": looked.name,
                "for": looked.for_what,
                "chosen": looked.miss.is_none(),
                "why_not": looked.miss.map(Miss::as_str),
            })).collect::<Vec<_>>(),
            "route": admission.route.as_ref().map(|route| json!({
                "id": route.id,
                "name": route.name,
                "place": self.place().and_then(|at| ask::place(self.file, at)),
                "to": ask::target(route),
            })),
            "policy": self.trace().map(|trace| self.policy(&trace)),
            "outcome": self.outcome().as_str(),
            "reason": admission.verdict().details(),
            "status": self.status(),
            "browser": told(&self.browser),
            "program": told(&self.program),
            "additional_hosts": self.finding.additional_hosts(),
            "upstream": upward.map(|upward| json!({
                "address": upward.address,
                "tls": upward.tls,
                "endpoints": upward.endpoints,
                "load_balancing_policy": upward.policy.name(),
                "method": self.question.method().as_str(),
                "target": upward.target,
                "headers": fields(&upward.fields),
                "removed": self.dropped(&upward),
                "assertion": Self::claims(&upward),
            })),
        })
    }

    fn request(&self) -> Value {
        let request = self.finding.admission.request();
        json!({
            "method": self.question.method().as_str(),
            "authority": self.question.address.authority(),
            "target": self.question.address.target(),
            "host": request.map(|request| request.host.to_string()),
            "path": request.map(|request| request.path.as_str()),
            "query": request.and_then(|request| request.query.as_deref()),
            "source_ip": request.map_or(self.question.source, |request| request.client.address).to_string(),
            "time": self.question.now.to_string(),
        })
    }

    fn policy(&self, trace: &Trace) -> Value {
        let rules = trace.rules.iter().map(|rule| {
            let criteria = rule.criteria.iter().map(|criterion| {
                json!({
                    "criterion": criterion.name,
                    "place": self.place_of(criterion.place),
                    "wants": criterion.data,
                    "saw": criterion.saw,
                    "holds": criterion.result.value,
                    "reasons": words(criterion.result.reasons),
                })
            });
            json!({
                "action": rule.action.as_str(),
                "operator": rule.operator.as_str(),
                "of": self.origin(rule),
                "place": self.place_of(rule.place),
                "enforced": rule.enforced,
                "holds": rule.result.value,
                "reasons": words(rule.result.reasons),
                "criteria": criteria.collect::<Vec<_>>(),
            })
        });
        json!({
            "rules": rules.collect::<Vec<_>>(),
            "allow": { "holds": trace.evaluation.allow.value, "reasons": words(trace.evaluation.allow.reasons) },
            "deny": { "holds": trace.evaluation.deny.value, "reasons": words(trace.evaluation.deny.reasons) },
        })
    }
}

fn words(reasons: Reasons) -> Vec<&'static str> {
    reasons.iter().map(postern_policy::Reason::as_str).collect()
}

/// The fields in order; of each all values.
fn fields(fields: &HeaderMap) -> Value {
    let mut object = Map::new();
    for name in fields.keys() {
        let values: Vec<_> = fields.get_all(name).iter().map(|value| ask::lossy(value.as_bytes())).collect();
        object.insert(name.to_string(), json!(values.join(", ")));
    }
    Value::Object(object)
}

fn told(told: &Told) -> Value {
    match told {
        Told::Upstreams => json!({ "answer": "upstream" }),
        Told::Answer(answer) => {
            let body = std::str::from_utf8(answer.body()).unwrap_or_default();
            let body = if is_page(answer) { Value::Null } else { ask::json_or_text(body) };
            json!({
                "answer": "postern",
                "status": answer.status().as_u16(),
                "headers": fields(&ask::harmless(answer.headers())),
                "body": body,
            })
        }
    }
}

pub(super) fn is_page(answer: &Response<bytes::Bytes>) -> bool {
    let kind = answer.headers().get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"))
}
