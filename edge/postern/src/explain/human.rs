//! An explanation for people to read.

use std::fmt::{self, Write as _};

use http::header;
use postern_edge::Upward;
use postern_edge::route::{Carries, LoadBalancing, Miss};
use postern_policy::document::Place;
use postern_policy::{Origin, Reasons, RuleTrace, Trace};

use super::json::is_page;
use super::{Explanation, Told};
use crate::ask::{self, Page};
use crate::config::Colour;
use crate::probe::{Outcome, Who, devices};

/// More routes of other hosts than this are counted, not listed.
const LISTED: usize = 12;

const BROWSER: &str = "a browser gets";

impl Explanation<'_> {
    /// Everything, in the order in which it happens.
    #[must_use]
    pub fn to_human(&self, colour: Colour) -> String {
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _infallible = self.write(&mut out, Page(colour));
        out
    }

    fn write(&self, out: &mut String, page: Page) -> fmt::Result {
        self.write_request(out, page)?;
        self.write_routes(out, page)?;
        if let Some(trace) = self.trace() {
            self.write_policy(out, page, &trace)?;
        }
        self.write_verdict(out, page)?;
        match self.upward() {
            Some(upward) => self.write_upward(out, page, &upward),
            None => self.write_answers(out, page),
        }
    }

    fn write_request(&self, out: &mut String, page: Page) -> fmt::Result {
        let (question, admission) = (&self.question, &self.finding.admission);
        let (authority, target) = (question.address.authority(), question.address.target());
        let method = match question.address.tunnel() {
            Some(carries) => carries.method(),
            None => question.method().as_str(),
        };
        writeln!(out, "{}\n", page.bold(&format!("{method} {authority}{target}")))?;
        let mut rows = Vec::new();
        match admission.request() {
            Some(request) => {
                rows.push(("host", request.host.to_string()));
                rows.push(("path", request.path.to_string()));
                rows.push(("from", request.client.address.to_string()));
            }
            None => rows.push(("read", format!("no: {}", admission.verdict().details()))),
        }
        rows.push(("time", question.now.to_string()));
        let session = admission.subject.session();
        rows.push(("who", session.map_or_else(|| self.nobody(), ask::person)));
        rows.extend(question.devices.iter().map(|device| ("with", devices::words(device))));
        page.columns(out, &rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect::<Vec<_>>())
    }

    fn nobody(&self) -> String {
        match &self.question.who {
            Who::Session(_) => {
                "nobody: the session is over, or of another identity provider than this route's".to_owned()
            }
            Who::Person(_) if self.finding.admission.route.is_none() => {
                "whoever it is: that is not asked here".to_owned()
            }
            Who::Nobody | Who::Person(_) => "nobody who is signed in".to_owned(),
        }
    }

    fn write_routes(&self, out: &mut String, page: Page) -> fmt::Result {
        writeln!(out, "\n{}", page.bold("routes"))?;
        if self.finding.is_reserved() {
            return writeln!(out, "  none is asked: this path is Postern's own");
        }
        let looked: Vec<_> = self.looked().collect();
        let elsewhere = |miss: Option<Miss>| miss == Some(Miss::Host);
        let many = looked.iter().filter(|looked| elsewhere(looked.miss)).count();
        let folded = many > LISTED;
        let mut rows = Vec::new();
        for looked in looked.iter().filter(|looked| !(folded && elsewhere(looked.miss))) {
            rows.push(vec![
                ask::key(looked.at),
                ask::place(self.file, looked.at).unwrap_or_default(),
                looked.for_what.clone(),
                looked.miss.map_or_else(|| page.green("chosen"), |miss| words_of(miss).to_owned()),
            ]);
        }
        page.columns(out, &rows)?;
        if folded {
            writeln!(out, "  and {many} routes of other hosts")?;
        }
        match (&self.finding.admission.route, looked.is_empty()) {
            (Some(_), _) => Ok(()),
            (None, true) => writeln!(out, "  none is asked"),
            (None, false) => writeln!(out, "  none of them is for this request"),
        }
    }

    fn write_policy(&self, out: &mut String, page: Page, trace: &Trace) -> fmt::Result {
        writeln!(out, "\n{}", page.bold("policy"))?;
        if trace.rules.is_empty() {
            return writeln!(out, "  no rule, so nobody passes");
        }
        for rule in &trace.rules {
            let place = self.place_of(rule.place).map(|place| format!("  {place}")).unwrap_or_default();
            let dry = if rule.enforced { "" } else { " (not enforced)" };
            let (action, operator) = (rule.action.as_str(), rule.operator.as_str());
            let holds = page.yes_or_no(rule.result.value, "holds", "does not hold");
            writeln!(out, "  {action} {operator}{dry}, {}{place}: {holds}", self.origin(rule))?;
            let rows = rule.criteria.iter().map(|criterion| {
                let wants = if criterion.data.is_empty() { String::new() } else { format!("wants {}", criterion.data) };
                vec![
                    String::new(),
                    criterion.name.clone(),
                    wants,
                    format!("saw {}", criterion.saw),
                    page.yes_or_no(criterion.result.value, "yes", "no"),
                    joined(criterion.result.reasons),
                    self.place_of(criterion.place).unwrap_or_default(),
                ]
            });
            page.columns(out, &rows.collect::<Vec<_>>())?;
        }
        Ok(())
    }

    fn write_verdict(&self, out: &mut String, page: Page) -> fmt::Result {
        let admission = &self.finding.admission;
        let (details, status) = (admission.verdict().details(), self.status());
        let status = status.map(|status| format!(" {status}")).unwrap_or_default();
        let why = admission.evaluation.map(|evaluation| evaluation.allow.reasons).unwrap_or_default();
        let why = if why.is_empty() { String::new() } else { format!(", because of {}", joined(why)) };
        let text = match self.outcome() {
            Outcome::Allowed => page.green(&format!("allowed{why}")),
            Outcome::Answered => page.green(&format!("answered by Postern itself:{status}")),
            Outcome::SignIn => page.red(&format!("sign in first:{status} {details}")),
            Outcome::NotFound => page.red(&format!("nothing is there:{status} {details}")),
            Outcome::Refused => page.red(&format!("refused:{status} {details}")),
        };
        writeln!(out, "\n{}\n  {text}", page.bold("verdict"))
    }

    fn write_answers(&self, out: &mut String, page: Page) -> fmt::Result {
        for (client, told) in [(BROWSER, &self.browser), ("a program gets", &self.program)] {
            writeln!(out, "\n{}", page.bold(client))?;
            let Told::Answer(answer) = told else {
                writeln!(out, "  the answer of the upstream")?;
                continue;
            };
            let fields = ask::harmless(answer.headers());
            let field = |name| fields.get(name).map(|value| ask::lossy(value.as_bytes()));
            let status = answer.status().as_u16();
            let body = String::from_utf8_lossy(answer.body());
            match (field(header::LOCATION), field(header::CONTENT_TYPE)) {
                (Some(location), _) => writeln!(out, "  {status} to {location}")?,
                (None, Some(_)) if is_page(answer) => writeln!(out, "  {status}, a page{}", self.sentence())?,
                (None, Some(kind)) => writeln!(out, "  {status}, {kind}\n  {}", body.trim_end().replace('\n', "\n  "))?,
                (None, None) => writeln!(out, "  {status}")?,
            }
            let hosts = self.finding.additional_hosts();
            if !hosts.is_empty() && client == BROWSER {
                writeln!(out, "  and then, signed in, a cookie on {} as well", hosts.join(", "))?;
            }
        }
        Ok(())
    }

    /// What a page says first: programs are told the same.
    fn sentence(&self) -> String {
        let Told::Answer(answer) = &self.program else { return String::new() };
        let told = ask::json_or_text(&String::from_utf8_lossy(answer.body()));
        told.get("error").and_then(serde_json::Value::as_str).map(|words| format!(": {words}")).unwrap_or_default()
    }

    fn write_upward(&self, out: &mut String, page: Page, upward: &Upward) -> fmt::Result {
        let scheme = upward.scheme;
        let who = match (upward.address.as_str(), upward.endpoints) {
            ("", _) => "Postern's own sign-in gets".to_owned(),
            (address, 1) => format!("{scheme}://{address} gets"),
            (address, endpoints) if upward.policy == LoadBalancing::RoundRobin => {
                format!("{scheme}://{address} gets, or in turn another of {endpoints} endpoints")
            }
            (address, endpoints) => {
                let policy = upward.policy.name();
                format!("{scheme}://{address} gets, or another of {endpoints} endpoints, by {policy}")
            }
        };
        let tunnel = self.question.address.tunnel().map(|carries| match carries {
            Carries::Connections => "a connection, and every byte of it",
            Carries::Datagrams => "datagrams, each as it is",
        });
        if let Some(what) = tunnel {
            return writeln!(out, "\n{}\n  {what}", page.bold(&who));
        }
        writeln!(out, "\n{}\n  {} {}", page.bold(&who), self.question.method, upward.target)?;
        let rows = upward.fields.iter().map(|(name, value)| {
            let sent = self.question.fields.get(name).map(http::HeaderValue::as_bytes) == Some(value.as_bytes());
            vec![if sent { "  " } else { "+ " }.to_owned() + name.as_str(), ask::lossy(value.as_bytes())]
        });
        page.columns(out, &rows.collect::<Vec<_>>())?;
        for name in self.dropped(upward) {
            writeln!(out, "  {}", page.red(&format!("- {name}")))?;
        }
        if let Some(claims) = Self::claims(upward) {
            let claims = format!("{claims:#}").replace('\n', "\n  ");
            writeln!(out, "\n{}\n  {claims}", page.bold("the assertion says"))?;
        }
        Ok(())
    }

    /// The status of an answer of ours, in the form of nobody in particular.
    pub(super) fn status(&self) -> Option<u16> {
        use postern_edge::Verdict;
        match self.finding.admission.verdict() {
            Verdict::Refuse(refusal) => Some(refusal.status().as_u16()),
            Verdict::Reply(_) => self.finding.answer().map(|answer| answer.status().as_u16()),
            Verdict::Pass(_) => None,
        }
    }

    /// What a rule belongs to.
    pub(super) fn origin(&self, rule: &RuleTrace) -> String {
        match &rule.origin {
            Origin::AccessKeys => "the access keys of the route".to_owned(),
            Origin::Policy => "the policy of the route".to_owned(),
            Origin::Named(name) => format!("the policy {name}"),
            Origin::Default => "the default policy".to_owned(),
            Origin::ClientCertificates => "downstream_mtls".to_owned(),
            Origin::TriedOut => "since all that is written is only tried out".to_owned(),
        }
    }

    /// `file:line` of a place of the policy.
    pub(super) fn place_of(&self, place: Place) -> Option<String> {
        let at = self.place()?;
        place.is_known().then(|| ask::place(self.file, &crate::config::At { place, ..at.clone() })).flatten()
    }
}

fn joined(reasons: Reasons) -> String {
    reasons.iter().map(postern_policy::Reason::as_str).collect::<Vec<_>>().join(", ")
}

const fn words_of(miss: Miss) -> &'static str {
    match miss {
        Miss::Host => "another host",
        Miss::Port => "another port",
        Miss::PortIsNamed => "the port is named by another route",
        Miss::HostIsNamed => "the host is named by another route, and patterns are not asked then",
        Miss::Address => "patterns never match addresses",
        Miss::Path => "another path",
        Miss::Kind => "requests, connections and datagrams do not meet the same routes",
        Miss::Later => "a route before it takes these",
    }
}
