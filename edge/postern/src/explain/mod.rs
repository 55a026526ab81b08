//! `postern explain`: what a request would get, from whom, and why. Everything that is told was asked of the edge's own code.

mod human;
mod json;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use postern_edge::route::Miss;
use postern_edge::{Finding, HeaderRule, Unsendable, Upward};
use postern_identity::Session;
use postern_policy::Trace;

use crate::ask;
use crate::cli::{self, Exit};
use crate::config::{At, Config, is_secret};
use crate::operator::{Found, NO_NAME, Operator, SESSION, Which};
use crate::probe::{Address, Outcome, Probe, Question, Who, device};
use crate::run;

/// A request with everything that was found out about it.
#[derive(Debug)]
pub struct Explanation<'p> {
    config: &'p Config,
    file: Option<&'p str>,
    question: Question,
    finding: Finding<'p>,
    /// What a browser and a program would get.
    browser: Told,
    program: Told,
}

/// What a client would get: an answer of ours, or the upstream's.
#[derive(Debug)]
enum Told {
    Answer(http::Response<bytes::Bytes>),
    Upstreams,
}

/// A route that was looked at.
#[derive(Debug)]
struct Looked<'c> {
    at: &'c At,
    name: &'c str,
    for_what: String,
    miss: Option<Miss>,
}

/// Explains what was asked on the command line.
#[must_use]
pub(crate) fn explain(asked: &cli::Explain) -> Exit {
    ask::answered(run(asked))
}

fn run(asked: &cli::Explain) -> Result<Exit, ask::Failed> {
    let mut question = question(asked)?;
    let loaded = ask::load(asked.config.as_deref(), asked.lenient)?;
    if let Some(session) = &asked.session {
        question.who = Who::Session(owner(&loaded.config, session, asked.address.as_deref())?);
    }
    let probe = Probe::new(&loaded.config).map_err(|error| ask::Failed::Problem(error.to_string()))?;
    let explanation = Explanation::of(&probe, &loaded.config, loaded.file.as_deref(), question)
        .map_err(|error| ask::Failed::Usage(error.to_string()))?;
    let passes = explanation.outcome();
    ask::print(asked.format, |colour| explanation.to_human(colour), || explanation.to_json());
    Ok(if matches!(passes, Outcome::Allowed | Outcome::Answered) { Exit::Ok } else { Exit::Problem })
}

fn question(asked: &cli::Explain) -> Result<Question, ask::Failed> {
    let usage = |what: String| ask::Failed::Usage(what);
    let address = Address::parse(&asked.url).map_err(|error| usage(format!("--url {}: {error}", asked.url)))?;
    let method = Method::from_bytes(asked.method.as_bytes())
        .map_err(|_| usage(format!("--method {}: this is no method", asked.method)))?;
    let person = asked.subject.person().map_err(usage)?;
    let devices =
        asked.devices.iter().map(|written| device(written).map_err(|why| usage(format!("--device {written}: {why}"))));
    let devices: Vec<_> = devices.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
    if person.is_nobody() && asked.session.is_none() && !devices.is_empty() {
        return Err(usage(
            "--device: devices belong to a session; say whose with --user, --email or --session".to_owned(),
        ));
    }
    Ok(Question {
        method,
        address,
        fields: fields(&asked.headers).map_err(usage)?,
        who: if person.is_nobody() { Who::Nobody } else { Who::Person(person) },
        source: asked.source_ip,
        certificate: asked.client_cert.as_deref().map(ask::certificates).transpose()?.unwrap_or_default(),
        devices,
        now: ask::time(asked.time.as_deref())?,
    })
}

/// The session of that name or id, as the running Postern has it.
fn owner(config: &Config, session: &str, address: Option<&str>) -> Result<Arc<Session>, ask::Failed> {
    let operator = Operator::of(config, address)?;
    let which =
        Which::of(session, operator.keyring()).ok_or_else(|| ask::Failed::Usage(format!("--session: {NO_NAME}")))?;
    let runtime = run::control_runtime().map_err(|_| ask::Failed::Told)?;
    let found: Found = runtime.block_on(operator.ask(SESSION, &which))?;
    found.session().map_err(ask::Failed::Problem)
}

/// `Name: value`, each.
fn fields(written: &[String]) -> Result<HeaderMap, String> {
    let mut fields = HeaderMap::new();
    for text in written {
        let parsed = text.split_once(':').and_then(|(name, value)| {
            Some((HeaderName::try_from(name.trim()).ok()?, HeaderValue::from_str(value.trim()).ok()?))
        });
        let (name, value) = parsed.ok_or_else(|| format!("--header '{text}': write 'Name: value'"))?;
        fields.append(name, value);
    }
    Ok(fields)
}

impl<'p> Explanation<'p> {
    /// Asks, for the client itself and for a browser and a program in its place.
    ///
    /// # Errors
    /// [`Unsendable`].
    pub fn of(
        probe: &'p Probe,
        config: &'p Config,
        file: Option<&'p str>,
        question: Question,
    ) -> Result<Self, Unsendable> {
        let finding = probe.ask(&question)?;
        let told = |question: &Question| Ok(probe.ask(question)?.answer().map_or(Told::Upstreams, Told::Answer));
        let (browser, program) = (told(&question.by_a_browser())?, told(&question.by_a_program())?);
        Ok(Self { config, file, question, finding, browser, program })
    }

    /// What comes of the request.
    #[must_use]
    pub const fn outcome(&self) -> Outcome {
        Outcome::of(self.finding.admission.verdict())
    }

    /// What was found.
    #[must_use]
    pub const fn finding(&self) -> &Finding<'p> {
        &self.finding
    }

    /// Each route up to the one that was chosen.
    fn looked(&self) -> impl Iterator<Item = Looked<'_>> {
        let routes = self.config.edge.routes.iter().zip(&self.config.places);
        self.finding.considered().zip(routes).map(|(miss, (route, at))| Looked {
            at,
            name: &route.name,
            for_what: ask::matcher(route),
            miss,
        })
    }

    fn trace(&self) -> Option<Trace> {
        self.finding.trace()
    }

    /// Where the route is written that was chosen.
    fn place(&self) -> Option<&At> {
        let route = self.finding.admission.route.as_ref()?;
        let mut both = self.config.edge.routes.iter().zip(&self.config.places);
        both.find(|(other, _)| Arc::ptr_eq(other, route)).map(|(_, at)| at)
    }

    /// What goes up, with the secrets of the configuration masked.
    fn upward(&self) -> Option<Upward> {
        let mut upward = self.finding.upward()?;
        let rules = self.finding.admission.route.as_ref().map(|route| route.request_headers.as_slice());
        let set = rules.unwrap_or_default().iter().filter_map(|rule| match rule {
            HeaderRule::Set(name, _) => Some(name),
            HeaderRule::Remove(_) => None,
        });
        for name in set.filter(|name| is_secret(name.as_str())) {
            if let Some(value) = upward.fields.get_mut(name) {
                *value = HeaderValue::from_static(MASK);
            }
        }
        Some(upward)
    }

    /// The fields that the client sent and that do not go up.
    fn dropped(&self, upward: &Upward) -> BTreeSet<String> {
        let sent = self.question.fields.keys().filter(|name| !upward.fields.contains_key(*name));
        sent.map(ToString::to_string).collect()
    }

    /// What the assertion says, but for the name that each one has of its own.
    fn claims(upward: &Upward) -> Option<serde_json::Value> {
        let mut claims: serde_json::Value = serde_json::from_str(upward.claims.as_deref()?).ok()?;
        claims.as_object_mut()?.shift_remove("jti");
        Some(claims)
    }
}

const MASK: &str = "[redacted]";
