//! Who asks, and all of a request but its address: what is varied.

use std::net::{IpAddr, Ipv4Addr};

use http::{HeaderMap, HeaderValue, Method, header};
use postern_identity::{CompactSession, IdpId, Timestamp};
use postern_policy::{Device, DeviceRecord, Facts};
use serde_json::{Map, Value, json};

use crate::ask;
use crate::probe::{Address, Described, Person, Question, Who, devices};

/// One subject with one kind of request.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Scenario {
    /// What they are called in the list of subjects.
    pub(super) name: Option<String>,
    /// Nobody, if nobody is signed in.
    pub(super) person: Option<Person>,
    pub(super) devices: Vec<DeviceRecord>,
    pub(super) method: Method,
    /// It is a CORS preflight request.
    pub(super) preflight: bool,
    pub(super) source: IpAddr,
    /// It comes from there whatever policies say of other places.
    pub(super) only_from_there: bool,
    pub(super) now: Timestamp,
    /// It comes then whatever policies say of other times.
    pub(super) only_then: bool,
}

/// One fact of a scenario.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Fact {
    User(String),
    Email(String),
    /// An address that the provider says is not verified.
    Unverified(String),
    Claim(String, Vec<Value>),
    Devices(Vec<DeviceRecord>),
    Method(Method),
    Preflight,
    Source(IpAddr),
    Time(Timestamp),
}

/// The id of somebody of whom nothing else is said: a session always has one.
const SOMEBODY: &str = "somebody";

impl Scenario {
    /// A plain request of nobody from this machine.
    pub(super) const fn nobody(now: Timestamp) -> Self {
        Self {
            name: None,
            person: None,
            devices: Vec::new(),
            method: Method::GET,
            preflight: false,
            source: IpAddr::V4(Ipv4Addr::LOCALHOST),
            only_from_there: false,
            now,
            only_then: false,
        }
    }

    /// The same of somebody who is signed in, and of whom no policy knows anything.
    pub(super) fn somebody(&self) -> Self {
        let person = Person { user: Some(SOMEBODY.to_owned()), ..Person::default() };
        Self { person: Some(person), ..self.clone() }
    }

    /// The same of somebody who was described.
    pub(super) fn by(&self, described: Described) -> Self {
        let Described { name, person, devices, source } = described;
        let person = Some(person).filter(|person| !person.is_nobody());
        let only_from_there = self.only_from_there || source.is_some();
        Self { name, person, devices, source: source.unwrap_or(self.source), only_from_there, ..self.clone() }
    }

    pub(super) fn with(&self, facts: &[&Fact]) -> Self {
        let mut changed = self.clone();
        for fact in facts {
            changed.set(fact);
        }
        changed
    }

    fn set(&mut self, fact: &Fact) {
        match fact {
            Fact::Method(method) => self.method = method.clone(),
            Fact::Preflight => (self.method, self.preflight) = (Method::OPTIONS, true),
            Fact::Source(source) => self.source = *source,
            Fact::Time(now) => self.now = *now,
            Fact::Devices(devices) => self.devices.clone_from(devices),
            Fact::User(_) | Fact::Email(_) | Fact::Unverified(_) | Fact::Claim(..) => {
                if let Some(person) = &mut self.person {
                    describe(person, fact);
                }
            }
        }
    }

    /// Their session, as long as the provider of the route that is asked does not matter.
    pub(super) fn session(&self) -> Option<CompactSession> {
        self.person.as_ref().map(|person| CompactSession::from(&person.session(&IdpId::new(""), self.now)))
    }

    /// What a policy sees of it at that path.
    pub(super) fn facts<'a>(
        &'a self,
        session: Option<&'a CompactSession>,
        devices: &'a [Device<'a>],
        path: &'a str,
    ) -> Facts<'a> {
        Facts {
            person: session.map(Into::into),
            devices,
            cors_preflight: self.preflight,
            ..Facts::anonymous(self.method.as_str(), path, self.source, self.now)
        }
    }

    pub(super) fn question(&self, address: &Address) -> Question {
        let mut fields = HeaderMap::new();
        if self.preflight {
            fields.insert(header::ORIGIN, HeaderValue::from_static("https://elsewhere.test"));
            fields.insert(header::ACCESS_CONTROL_REQUEST_METHOD, HeaderValue::from_static("GET"));
        }
        let who = self.person.clone().map_or(Who::Nobody, Who::Person);
        Question {
            method: self.method.clone(),
            fields,
            source: self.source,
            devices: self.devices.clone(),
            ..Question::get(address.clone(), who, self.now)
        }
    }

    /// What kind of request it is.
    pub(super) fn method_words(&self) -> String {
        if self.preflight { "OPTIONS (CORS preflight)".to_owned() } else { self.method.to_string() }
    }

    /// Who it is, and from where and when where that is not as usual.
    pub(super) fn words(&self, usual: &Self) -> String {
        let mut words = self.name.clone().unwrap_or_else(|| self.person_words());
        for device in &self.devices {
            words += &format!(", {}", devices::words(device));
        }
        if self.source != usual.source {
            words += &format!(", from {}", self.source);
        }
        if self.now != usual.now {
            words += &format!(", at {}", self.now);
        }
        words
    }

    fn person_words(&self) -> String {
        let Some(person) = &self.person else { return "nobody who is signed in".to_owned() };
        let mut words = Vec::new();
        words.extend(person.email.clone());
        let id = person.user.as_ref().filter(|id| *id != SOMEBODY);
        words.extend(id.map(|id| format!("user {id}")));
        if !person.groups.is_empty() {
            words.push(format!("groups {}", person.groups.join(" and ")));
        }
        for (name, value) in &person.claims {
            let value = match value.as_array().map(Vec::as_slice) {
                Some([one]) => plain(one),
                _ => plain(value),
            };
            words.push(format!("{name} {value}"));
        }
        match (person.email.is_some() || id.is_some(), words.is_empty()) {
            (_, true) => "somebody who is signed in".to_owned(),
            (true, false) => words.join(", "),
            (false, false) => format!("somebody with {}", words.join(", ")),
        }
    }

    pub(super) fn to_json(&self) -> (Value, Value) {
        let subject = self.session().map(|session| ask::subject(Some(&session)));
        let subject = json!({
            "name": self.name,
            "signed_in": self.person.is_some(),
            "described": self.person.as_ref().map(described),
            "session": subject,
            "devices": self.devices.iter().map(devices::to_json).collect::<Vec<_>>(),
        });
        let request = json!({
            "method": self.method.as_str(),
            "cors_preflight": self.preflight,
            "source_ip": self.source.to_string(),
            "time": self.now.to_string(),
        });
        (subject, request)
    }
}

/// A person as a file of subjects describes them.
fn described(person: &Person) -> Value {
    let mut all = Map::new();
    all.extend(person.user.iter().map(|id| ("user".to_owned(), json!(id))));
    all.extend(person.email.iter().map(|email| ("email".to_owned(), json!(email))));
    if !person.groups.is_empty() {
        all.insert("groups".to_owned(), json!(person.groups));
    }
    if !person.claims.is_empty() {
        all.insert("claims".to_owned(), json!(person.claims));
    }
    Value::Object(all)
}

fn describe(person: &mut Person, fact: &Fact) {
    match fact {
        Fact::User(id) => person.user = Some(id.clone()),
        Fact::Email(email) => person.email = Some(email.clone()),
        Fact::Unverified(email) => {
            person.email = Some(email.clone());
            person.claims.insert("email_verified".to_owned(), Value::Bool(false));
        }
        Fact::Claim(name, values) => {
            let texts: Option<Vec<_>> = values.iter().map(|value| value.as_str().map(str::to_owned)).collect();
            match texts.filter(|texts| name == "groups" && !texts.is_empty()) {
                Some(groups) => person.groups = groups,
                None => drop(person.claims.insert(name.clone(), Value::from(values.clone()))),
            }
        }
        Fact::Devices(_) | Fact::Method(_) | Fact::Preflight | Fact::Source(_) | Fact::Time(_) => {}
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
