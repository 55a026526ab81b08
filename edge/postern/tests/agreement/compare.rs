//! One request, asked twice: of the edge over a socket, and of `explain`.

use std::collections::{BTreeMap, HashMap};
use std::time::SystemTime;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use postern::config::Config;
use postern::explain::Explanation;
use postern::probe::{Address, Probe, Question, Who};
use postern_edge::SOME_REQUEST;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use serde_json::Value;

use crate::configs;
use crate::edge::{Answer, World, load};
use crate::log::{Line, Log};
use crate::requests::Generated;

/// How often each end was met.
#[derive(Debug, Default)]
pub(crate) struct Seen(HashMap<String, usize>);

impl Seen {
    pub(crate) fn total(&self) -> usize {
        self.0.values().sum()
    }

    pub(crate) fn of(&self, end: &str) -> usize {
        self.0.get(end).copied().unwrap_or_default()
    }
}

/// Puts a configuration in force and sends each request.
pub(crate) async fn agree(
    world: &mut World,
    log: &Log,
    seen: &mut Seen,
    config: &configs::Generated,
    requests: &[Generated],
) -> Result<(), TestCaseError> {
    let text = config.text(world.upstream);
    let config = load(&text);
    world.reload(&config);
    let probe = Probe::new(&config).unwrap();
    for request in requests {
        let end = one(world, log, (&config, &probe), request).await;
        let end = end.map_err(|error| TestCaseError::fail(format!("{error}\n{request:?}\n{text}")))?;
        *seen.0.entry(end).or_default() += 1;
    }
    Ok(())
}

/// How one request ended, for both alike.
async fn one(
    world: &mut World,
    log: &Log,
    (config, probe): (&Config, &Probe),
    request: &Generated,
) -> Result<String, TestCaseError> {
    let mut fields = HeaderMap::new();
    for (name, value) in &request.fields {
        fields.append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    let signed_in = request.person.map(|number| world.person(number, request.authority));
    let question = Question {
        fields,
        method: Method::from_bytes(request.method.as_bytes()).unwrap(),
        who: signed_in.as_ref().map_or(Who::Nobody, |(session, _)| Who::Session(session.clone())),
        ..Question::get(
            Address::parse(&format!("https://{}{}", request.authority, request.target)).unwrap(),
            Who::Nobody,
            SystemTime::now().into(),
        )
    };
    let explanation = Explanation::of(probe, config, None, question).unwrap();
    let told = explanation.to_json();

    let answer = world.send(request.method, &head(request, signed_in.map(|(_, cookie)| cookie))).await;
    let (access, authorize) = log.next(explanation.finding().admission.evaluation.is_some());
    let end = access.get("response-code-details").cloned().unwrap_or_default();
    prop_assert_eq!(&end, told["reason"].as_str().unwrap_or_default(), "reason");
    same_decision(&told, authorize.as_ref())?;
    match explanation.finding().answer() {
        Some(own) => same_answer(&own, &answer)?,
        None => same_upward(&told, request.method, &answer)?,
    }
    Ok(end)
}

/// What goes over the wire.
fn head(request: &Generated, session: Option<String>) -> String {
    let mut head = format!("{} {} HTTP/1.1\r\nHost: {}\r\n", request.method, request.target, request.authority);
    let mut cookies: Vec<String> = session.into_iter().collect();
    for (name, value) in &request.fields {
        if *name == "cookie" { cookies.insert(0, (*value).to_owned()) } else { head += &format!("{name}: {value}\r\n") }
    }
    if !cookies.is_empty() {
        head += &format!("cookie: {}\r\n", cookies.join("; "));
    }
    head + "\r\n"
}

/// The authorize record names the same route and reasons.
fn same_decision(told: &Value, authorize: Option<&Line>) -> Result<(), TestCaseError> {
    let Some(line) = authorize else {
        prop_assert!(told["policy"].is_null(), "explain tells of a policy that was not asked");
        return Ok(());
    };
    let field = |name: &str| line.get(name).map(String::as_str).unwrap_or_default();
    prop_assert_eq!(field("route-id"), told["route"]["id"].as_str().unwrap_or_default(), "route");
    for half in ["allow", "deny"] {
        let holds = told["policy"][half]["holds"].as_bool().unwrap_or_default();
        prop_assert_eq!(field(half), holds.to_string(), "{}", half);
        let reasons: Value = serde_json::from_str(field(&format!("{half}-why-{holds}"))).unwrap_or_default();
        prop_assert_eq!(&reasons, &told["policy"][half]["reasons"], "{}", half);
    }
    Ok(())
}

/// An answer of ours is the same, but for what belongs to one request alone.
fn same_answer(told: &http::Response<bytes::Bytes>, real: &Answer) -> Result<(), TestCaseError> {
    prop_assert_eq!(told.status().as_u16(), real.status, "status");
    let id = real.field("x-request-id").unwrap_or_default();
    for name in told.headers().keys().filter(|name| !OF_ONE_REQUEST.contains(&name.as_str())) {
        let value = told.headers().get(name).and_then(|value| value.to_str().ok());
        prop_assert_eq!(value, real.field(name.as_str()), "{}", name);
    }
    let place = |location: Option<&str>| {
        location.map(|location| location.split("?pomerium_").next().unwrap_or_default().to_owned())
    };
    let location = told.headers().get("location").and_then(|value| value.to_str().ok());
    prop_assert_eq!(place(location), place(real.field("location")), "location");
    let fixed =
        !real.body.is_empty() && !real.body.starts_with("<!") && real.field("content-type") != Some("application/jwt");
    if fixed {
        let body = real.body.replace(id, SOME_REQUEST);
        prop_assert_eq!(String::from_utf8_lossy(told.body()), body, "body");
    }
    Ok(())
}

const OF_ONE_REQUEST: [&str; 4] = ["x-request-id", "location", "set-cookie", "content-length"];

/// The upstream got what was told.
fn same_upward(told: &Value, method: &str, answer: &Answer) -> Result<(), TestCaseError> {
    prop_assert_eq!(answer.status, 200, "status");
    let head = if method == "HEAD" {
        answer.field("x-head").unwrap_or_default().replace("%0A", "\n")
    } else {
        answer.body.clone()
    };
    let upstream = &told["upstream"];
    let line = format!("{method} {} HTTP/1.1", upstream["target"].as_str().unwrap_or_default());
    prop_assert_eq!(head.lines().next().unwrap_or_default(), line);

    let mut got = BTreeMap::new();
    for (name, value) in head.lines().skip(1).filter_map(|line| line.split_once(':')) {
        let name = name.to_ascii_lowercase();
        if !["x-request-id", "content-length", "transfer-encoding"].contains(&name.as_str()) {
            let values: &mut Vec<String> = got.entry(name).or_default();
            values.push(value.trim().to_owned());
        }
    }
    if got.contains_key("x-pomerium-edge") {
        // Sign-in sees the session that was shown, which nobody shows who is only asked about.
        let pairs = got.remove("cookie").unwrap_or_default().join("; ");
        let other = |pair: &&str| !pair.is_empty() && !pair.starts_with("_pomerium=");
        let pairs: Vec<_> = pairs.split("; ").filter(other).collect();
        if !pairs.is_empty() {
            got.insert("cookie".to_owned(), vec![pairs.join("; ")]);
        }
    }
    let assertion = got.get("x-pomerium-jwt-assertion").and_then(|values| values.first()).cloned();
    match &assertion {
        Some(token) if payload(token).is_object() => {
            let wanted = without_times(upstream["assertion"].clone());
            prop_assert_eq!(without_times(payload(token)), wanted, "assertion");
        }
        _ => prop_assert!(upstream["assertion"].is_null(), "an assertion that did not go up"),
    }
    let harmless = |value: String| match &assertion {
        Some(token) => value.replace(token, "[assertion]"),
        None => value,
    };
    let got: BTreeMap<String, Value> =
        got.into_iter().map(|(name, values)| (name, Value::from(harmless(values.join(", "))))).collect();
    let mut wanted: BTreeMap<String, Value> = upstream["headers"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    wanted.remove("x-request-id");
    for (name, value) in &wanted {
        if ["[redacted]", "[token]"].contains(&value.as_str().unwrap_or_default()) {
            prop_assert!(got.contains_key(name), "{} did not go up", name);
        } else {
            prop_assert_eq!(got.get(name), Some(value), "{}", name);
        }
    }
    prop_assert_eq!(got.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>(), "fields");
    Ok(())
}

fn payload(token: &str) -> Value {
    use base64::Engine as _;
    let part = token.split('.').nth(1).unwrap_or_default();
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

fn without_times(mut claims: Value) -> Value {
    for name in ["jti", "iat", "exp"] {
        claims.as_object_mut().map(|claims| claims.remove(name));
    }
    claims
}
