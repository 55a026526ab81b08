//! `tests`: what the author of a configuration expects of its routes and policies. They are part of the configuration: one that
//! fails is a mistake like any other, to `check`, at start and at a reload, unless its outcome depends on when that is.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use postern_edge::Finding;
use postern_identity::Timestamp;
use postern_policy::document::nearest;
use serde_json::Value as Json;

use super::block::Block;
use super::context::Context;
use super::keys::{ACCESS_TEST, PERSON};
use super::value::{Spanned, quoted};
use super::{At, Code, Config};
use crate::probe::{Address, Outcome, Person, Probe, Question, Who};

/// One entry of `tests`.
#[derive(Debug)]
pub(super) struct AccessTest {
    at: At,
    name: String,
    /// As written, for the hint.
    url: String,
    question: Question,
    expected: Expected,
    /// `reason`.
    reason: Option<String>,
    /// Whether `time` is written.
    has_time: bool,
}

/// `expect`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    Allow,
    Deny,
    SignIn,
    NotFound,
    Redirect,
    Status(StatusCode),
}

const EXPECTED: &[(&str, Expected)] = &[
    ("allow", Expected::Allow),
    ("deny", Expected::Deny),
    ("sign_in", Expected::SignIn),
    ("not_found", Expected::NotFound),
    ("redirect", Expected::Redirect),
];

/// Reads `tests`.
pub(super) fn resolve(cx: &mut Context<'_>, settings: &Block<'_>) -> Vec<AccessTest> {
    let blocks = settings.list(cx, "tests", &ACCESS_TEST);
    blocks.iter().filter_map(|block| one(cx, block)).collect()
}

fn one(cx: &mut Context<'_>, block: &Block<'_>) -> Option<AccessTest> {
    let hint = "write the address that is asked for: `url: https://app.example.com/`";
    let url = block.required(cx, "url", "this test has no `url`", hint);
    let hint = "write `expect: allow`, or what else is to come of it";
    let expected = block.required(cx, "expect", "this test has no `expect`", hint);
    let expected = expected.and_then(|text| self::expected(cx, &text));
    let address =
        url.as_ref().and_then(|url| parsed(cx, url, "write it as in `https://app.example.com/path`", Address::parse));
    let method = block.filled(cx, "method").map_or(Some(Method::GET), |text| {
        parsed(cx, &text, "write a method such as `GET`", |text| Method::from_bytes(text.as_bytes()))
    });
    let source = block.filled(cx, "source_ip").map_or(Some(Ipv4Addr::LOCALHOST.into()), |text| {
        parsed(cx, &text, "write an address such as `10.0.0.1`", str::parse::<IpAddr>)
    });
    let now = block.filled(cx, "time").map_or_else(
        || Some(SystemTime::now().into()),
        |text| {
            parsed(cx, &text, "write a time such as `2027-01-15T08:00:00Z`", |text| {
                Timestamp::parse(text).ok_or("no such time")
            })
        },
    );
    let (fields, who, reason) = (fields(cx, block), who(cx, block), block.text(cx, "reason"));
    let name = block.text(cx, "name").filter(|name| !name.is_empty());
    let (url, fields) = (url?.value, fields?);
    let tells = fields.contains_key(header::ACCEPT);
    let question = Question { method: method?, fields, source: source?, ..Question::get(address?, who?, now?) };
    Some(AccessTest {
        at: block.at.clone(),
        name: name.map_or_else(|| "this test".to_owned(), |name| format!("the test {}", quoted(&name))),
        url,
        question: if tells { question } else { question.by_a_browser() },
        expected: expected?,
        reason,
        has_time: block.find("time").is_some(),
    })
}

fn parsed<T, E: std::fmt::Display>(
    cx: &mut Context<'_>,
    text: &Spanned<String>,
    hint: &str,
    parse: impl Fn(&str) -> Result<T, E>,
) -> Option<T> {
    match parse(&text.value) {
        Ok(value) => Some(value),
        Err(error) => {
            cx.fatal(Code::BadTest, &text.at, format!("{}: {error}", quoted(&text.value)), hint);
            None
        }
    }
}

fn expected(cx: &mut Context<'_>, text: &Spanned<String>) -> Option<Expected> {
    let (written, names) = (text.value.to_ascii_lowercase(), || EXPECTED.iter().map(|(name, _)| *name));
    if let Some((_, expected)) = EXPECTED.iter().find(|(name, _)| *name == written) {
        return Some(*expected);
    }
    let status = written.parse::<u16>().ok().filter(|status| (200..600).contains(status));
    if let Some(status) = status.and_then(|status| StatusCode::from_u16(status).ok()) {
        return Some(Expected::Status(status));
    }
    let meant = nearest(&written, names()).map_or_else(String::new, |near| format!("did you mean `{near}`? "));
    let choices: Vec<_> = names().map(|name| format!("`{name}`")).collect();
    let hint = format!("{meant}write one of {}, or a status such as `403`", choices.join(", "));
    cx.fatal(Code::BadTest, &text.at, format!("{} is nothing that can come of a request", quoted(&text.value)), hint);
    None
}

fn fields(cx: &mut Context<'_>, block: &Block<'_>) -> Option<HeaderMap> {
    let mut fields = HeaderMap::new();
    for (name, value) in block.pairs(cx, "headers").unwrap_or_default() {
        let hint = "write a header that a client can send: `headers: {Accept: application/json}`";
        let read = parsed(cx, &name, hint, |text| HeaderName::from_bytes(text.as_bytes()));
        fields.append(read?, parsed(cx, &value, hint, HeaderValue::from_str)?);
    }
    Some(fields)
}

fn who(cx: &mut Context<'_>, block: &Block<'_>) -> Option<Who> {
    if block.find("as").is_none() {
        return Some(Who::Nobody);
    }
    let person = block.inner(cx, "as", &PERSON)?;
    let groups = person.texts(cx, "groups").unwrap_or_default();
    let claims = match person.find("claims") {
        None => serde_json::Map::new(),
        Some(field) => {
            let Json::Object(claims) = field.node.to_json() else {
                let what = format!("`claims` must be a map, and is {}", field.node.kind());
                cx.fatal(Code::WrongType, &field.at, what, "write `claims: {department: sales}`");
                return None;
            };
            claims
        }
    };
    Some(Who::Person(Person {
        user: person.text(cx, "user"),
        email: person.text(cx, "email"),
        groups: groups.into_iter().map(|group| group.value).collect(),
        claims,
    }))
}

/// Puts every test to the configuration, as it would be in force.
pub(super) fn run(cx: &mut Context<'_>, config: &Config, tests: &[AccessTest]) {
    if tests.is_empty() {
        return;
    }
    let probe = match Probe::new(config) {
        Ok(probe) => probe,
        Err(error) => {
            let what = format!("no test can be run: {error}");
            let hint = "mend that; Postern does not start with it either";
            return tests.iter().take(1).for_each(|test| cx.fatal(Code::FailedTest, &test.at, &what, hint));
        }
    };
    for test in tests {
        let AccessTest { at, name, url, question, .. } = test;
        let (failed, clock) = match probe.ask(question) {
            Ok(finding) => (test.failure(&finding), if test.has_time { None } else { clock(&finding) }),
            Err(error) => (Some(error.to_string()), None),
        };
        match (failed, clock) {
            (Some(failed), None) => {
                let hint = format!("`postern explain --url {url}` says why; mend the routes and policies, or the test");
                cx.fatal(Code::FailedTest, at, format!("{name} fails: {failed}"), hint);
            }
            // A start at night must not fail for what passed by day.
            (Some(failed), Some(criterion)) => {
                let what = format!("{name} depends on the clock because of `{criterion}`, and fails now: {failed}");
                cx.advise(Code::FailedTest, at, what, TIME);
            }
            (None, Some(criterion)) if test.fails_at_times(&probe) => {
                let what =
                    format!("{name} depends on the clock because of `{criterion}`: it passes now, and not always");
                cx.advise(Code::FailedTest, at, what, TIME);
            }
            (None, _) => {}
        }
    }
}

const TIME: &str = "write a time into the test, for example `time: 2027-01-15T08:00:00Z`";

/// The criterion on the time that was looked at, if there was one.
fn clock(finding: &Finding<'_>) -> Option<&'static str> {
    let criteria = finding.trace()?.rules.into_iter().flat_map(|rule| rule.criteria);
    let of_time = |name: String| ["date", "day_of_week", "time_of_day"].into_iter().find(|known| *known == name);
    criteria.filter_map(|criterion| of_time(criterion.name)).next()
}

impl AccessTest {
    /// Whether the test fails at other times: in some hour of the week, or far back or ahead.
    fn fails_at_times(&self, probe: &Probe) -> bool {
        let week = (1..=42_u64).map(|step| self.question.now.plus(Duration::from_secs(step * 4 * 3600)));
        let far = [946_684_800, 4_102_444_800].map(Timestamp::from_secs);
        week.chain(far).any(|now| {
            let asked = Question { now, ..self.question.clone() };
            probe.ask(&asked).is_ok_and(|finding| self.failure(&finding).is_some())
        })
    }

    /// What came out instead.
    fn failure(&self, finding: &Finding<'_>) -> Option<String> {
        let verdict = finding.admission.verdict();
        let (outcome, reason) = (Outcome::of(verdict), verdict.details());
        let status = finding.answer().map(|answer| answer.status());
        let redirects = outcome == Outcome::Answered && status.is_some_and(|status| status.is_redirection());
        let is_as_expected = match self.expected {
            Expected::Allow => outcome == Outcome::Allowed || outcome == Outcome::Answered,
            Expected::Deny => outcome == Outcome::Refused,
            Expected::SignIn => outcome == Outcome::SignIn,
            Expected::NotFound => outcome == Outcome::NotFound,
            Expected::Redirect => redirects,
            Expected::Status(expected) => status == Some(expected),
        };
        let is_for_that_reason = self.reason.as_deref().is_none_or(|expected| expected == reason);
        if is_as_expected && is_for_that_reason {
            return None;
        }
        let came = match outcome {
            Outcome::Allowed => "the request passes to the upstream".to_owned(),
            Outcome::Answered => "the request passes, and is answered here".to_owned(),
            Outcome::SignIn => "the request is sent to sign in".to_owned(),
            Outcome::NotFound => "no route takes the request".to_owned(),
            Outcome::Refused => "the request is refused".to_owned(),
        };
        let status = status.map_or_else(String::new, |status| format!(", with {}", status.as_u16()));
        let place = finding
            .admission
            .route
            .as_ref()
            .map_or_else(String::new, |route| format!(" by the route {}", quoted(&route.name)));
        Some(format!("{came}{place}{status} (`{reason}`)"))
    }
}
