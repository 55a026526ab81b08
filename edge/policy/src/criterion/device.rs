//! `device`: a device that was enrolled for the session (01 §3.5).

use super::{Carrier, Dialect, Stand, Test, of_person, seen_of_person};
use crate::document::{Entry, Mistake, Node, Value};
use crate::matcher::{collect, text, unknown};
use crate::{Device as Credential, Enrolment, Facts, Reason, Reasons, RuleResult, Samples};

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Device {
    /// The type that was asked for: then there must be a credential.
    kind: Option<Box<str>>,
    id: Option<Box<str>>,
    approved: Option<bool>,
    /// It holds for nobody, who has no device.
    nobody: bool,
}

pub(crate) const KEYS: [&str; 3] = ["type", "is", "approved"];

enum Condition {
    Kind(Box<str>),
    Id(Box<str>),
    Approved(bool),
}

impl Test for Device {
    fn parse(_: &str, data: &Node, dialect: Dialect) -> Result<Self, Vec<Mistake>> {
        let Some(entries) = data.as_map() else {
            let what = format!("`device` needs a map, not {}", data.kind());
            return Err(Mistake::at(data.place, what).hint("write `device: {type: any}`").into());
        };
        let mut device = Self { kind: None, id: None, approved: None, nobody: false };
        for condition in collect(entries, condition)? {
            match condition {
                Condition::Kind(kind) => device.kind = Some(kind),
                Condition::Id(id) => device.id = Some(id),
                Condition::Approved(approved) => device.approved = Some(approved),
            }
        }
        device.nobody = dialect.fail_open_identity && device.holds(None);
        Ok(device)
    }

    fn evaluate(&self, facts: &Facts<'_>, _: Stand) -> RuleResult {
        let of = |value, reason| RuleResult { value, reasons: Reasons::of(reason) };
        if self.nobody && facts.person.is_none() {
            return of(true, Reason::DeviceOk);
        }
        of_person(facts, |_| {
            let credential = self.credential(facts);
            if self.holds(credential) {
                of(true, Reason::DeviceOk)
            } else if credential.is_some_and(|credential| credential.enrolment != Enrolment::None) {
                of(false, Reason::DeviceUnauthorized)
            } else {
                of(false, Reason::DeviceUnauthenticated)
            }
        })
    }

    fn words(&self) -> String {
        let approved = if self.approved == Some(true) { "an approved" } else { "an enrolled" };
        let listed = if self.id.is_some() { " on its list" } else { "" };
        match self.wanted() {
            ANY => format!("{approved} device{listed}"),
            kind => format!("{approved} device of type {kind}{listed}"),
        }
    }

    fn data(&self) -> String {
        let kind = self.kind.as_deref().map(|kind| format!("type {kind}"));
        let id = self.id.as_deref().map(|id| format!("id {id}"));
        let approved = self.approved.map(|yes| if yes { "approved" } else { "not approved" }.to_owned());
        [kind, id, approved].into_iter().flatten().collect::<Vec<_>>().join(" and ")
    }

    fn saw(&self, facts: &Facts<'_>) -> String {
        seen_of_person(facts, |_| match self.credential(facts) {
            None => format!("no device of type {}", self.wanted()),
            Some(Credential { id, enrolment, .. }) => match enrolment {
                Enrolment::Approved => format!("device {id}, approved"),
                Enrolment::Unapproved => format!("device {id}, not approved"),
                Enrolment::NoCredential | Enrolment::None => format!("device {id}, not enrolled"),
            },
        })
    }

    fn sample(&self, samples: &mut Samples) {
        let text = |text: &Option<Box<str>>| text.as_deref().map(str::to_owned);
        samples.devices.push((text(&self.kind), text(&self.id)));
    }

    const NEEDS_SESSION: bool = true;
    const CARRIER: Option<Carrier> = Some(Carrier::Devices);

    fn holds_idle(&self) -> bool {
        self.holds(None)
    }
}

const ANY: &str = "any";

impl Device {
    fn wanted(&self) -> &str {
        self.kind.as_deref().unwrap_or(ANY)
    }

    /// The first credential of that type. If its record is gone there is none, and later ones are not tried.
    fn credential<'a>(&self, facts: &Facts<'a>) -> Option<&'a Credential<'a>> {
        let first = facts.devices.iter().find(|device| device.kind == self.wanted());
        first.filter(|device| device.enrolment != Enrolment::NoCredential)
    }

    fn holds(&self, credential: Option<&Credential<'_>>) -> bool {
        let approved = credential.is_some_and(|credential| credential.enrolment == Enrolment::Approved);
        (self.kind.is_none() || credential.is_some())
            && self.id.as_deref().is_none_or(|id| credential.is_some_and(|credential| credential.id == id))
            && self.approved.is_none_or(|wanted| wanted == approved)
    }
}

fn condition(entry: &Entry) -> Result<Condition, Mistake> {
    match entry.key.to_ascii_lowercase().as_str() {
        "type" => text(entry).map(Condition::Kind),
        "is" => text(entry).map(Condition::Id),
        "approved" => Ok(Condition::Approved(is_truthy(&entry.value))),
        _ => Err(unknown(entry, "a device has no", &KEYS)),
    }
}

/// Anything but `false`, `0`, an empty text and nothing.
fn is_truthy(node: &Node) -> bool {
    match &node.value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number { value, .. } => value.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::List(_) | Value::Map(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::read;
    use crate::testing::World;

    const fn device(kind: &'static str, id: &'static str, enrolment: Enrolment) -> Credential<'static> {
        Credential { kind, id, enrolment }
    }

    #[test]
    fn the_first_credential_of_the_type_counts() {
        let devices = [device("other", "d0", Enrolment::Approved), device(ANY, "d1", Enrolment::Unapproved)];
        let world = World::signed_in().devices(&devices);
        world.assert("device: {type: any}", true, "device-ok");
        world.assert("device: {is: d1, approved: 0}", true, "device-ok");
        world.assert("device: {is: d0}", false, "device-unauthorized");
        world.assert("device: {approved: 'yes'}", false, "device-unauthorized");
        world.assert("device: {type: enclave_only}", false, "device-unauthenticated");
        let gone = [device(ANY, "d1", Enrolment::NoCredential), device(ANY, "d2", Enrolment::Approved)];
        World::signed_in().devices(&gone).assert("device: {type: any}", false, "device-unauthenticated");
        let half = [device(ANY, "d1", Enrolment::None)];
        World::signed_in().devices(&half).assert("device: {is: d2}", false, "device-unauthenticated");
    }

    #[test]
    fn nobody_has_no_device_whatever_is_asked_of_it() {
        for data in ["{}", "{approved: false}", "{type: any}", "{approved: ''}"] {
            World::default().assert(&format!("device: {data}"), false, "user-unauthenticated");
        }
    }

    #[test]
    fn what_a_device_does_not_have_is_refused() {
        let message = |data: &str| {
            let node = read(data).expect("YAML");
            Device::parse("", &node, Dialect::default()).expect_err(data).remove(0).message
        };
        assert_eq!(message("any"), "`device` needs a map, not text");
        assert_eq!(message("{kind: any}"), "a device has no `kind`");
        assert_eq!(message("{type: [any]}"), "`type` needs text, not a list");
    }
}
