//! The policies of the whole file: those with a name, and the one of routes that have none.

use std::collections::HashSet;

use postern_policy::document::Mistake;
use postern_policy::ppl::{self, Language, Rules};
use postern_policy::{Carrier, Idle, Origin, Rule, idle};

use super::access::{Paths, at, tell};
use super::odd;
use crate::config::Code;
use crate::config::block::Block;
use crate::config::context::Context;
use crate::config::value::{Field, quoted};

/// What Postern does not carry yet.
const MISSING: [Carrier; 4] = [Carrier::Devices, Carrier::Mcp, Carrier::Ssh, Carrier::Records];

/// What policies are read with.
pub(super) struct Policies<'n> {
    language: Language,
    named: Vec<(String, Field<'n>)>,
    used: HashSet<String>,
    /// Those of routes that have none; `None` if they cannot be read.
    default: Option<Rules>,
    /// What no request brings.
    missing: Vec<Carrier>,
}

impl<'n> Policies<'n> {
    /// `asks`: clients are asked for certificates.
    pub(super) fn resolve(
        cx: &mut Context<'_>,
        settings: &Block<'n>,
        (fail_open_identity, asks): (bool, bool),
    ) -> Self {
        let mut language = Language::new(fail_open_identity);
        let unasked = (!asks).then_some(Carrier::ClientCertificates);
        let missing: Vec<_> = unasked.into_iter().chain(MISSING).collect();
        let named = named(cx, settings);
        for (name, field) in &named {
            match language.define(name, field.node) {
                Ok(rules) => tell_idle(cx, field, rules, &missing),
                Err(mistakes) => tell(cx, field, mistakes),
            }
            odd::policy(cx, field);
        }
        let mut policies = Self { language, named, used: HashSet::new(), default: Some(Rules::default()), missing };
        if let Some(field) = settings.find("default_policy") {
            policies.default = policies.read(cx, field, Language::read_default);
        }
        policies
    }

    /// The rules of a route's `policy`.
    pub(super) fn of_route(&mut self, cx: &mut Context<'_>, field: &Field<'_>) -> Option<Rules> {
        self.read(cx, field, Language::read)
    }

    /// The rules of a route that says nothing.
    pub(super) fn default(&self) -> Option<Rules> {
        self.default.clone()
    }

    fn read(
        &mut self,
        cx: &mut Context<'_>,
        field: &Field<'_>,
        read: impl Fn(&Language, &postern_policy::document::Node) -> Result<Rules, Vec<Mistake>>,
    ) -> Option<Rules> {
        self.used.extend(ppl::names(field.node).map(str::to_owned));
        match read(&self.language, field.node) {
            Ok(rules) => {
                let own = rules.list.iter().filter(|rule| !matches!(rule.origin(), Origin::Named(_)));
                tell_idle(cx, field, own, &self.missing);
                odd::policy(cx, field);
                Some(rules)
            }
            Err(mistakes) => {
                tell(cx, field, mistakes);
                None
            }
        }
    }

    /// Tells of names that nothing calls.
    pub(super) fn tell_unused(&self, cx: &mut Context<'_>) {
        for (name, field) in self.named.iter().filter(|(name, _)| !self.used.contains(name)) {
            let what = format!("no route uses the policy {}", quoted(name));
            let at = at(field, field.key_place);
            cx.advise(Code::OddPolicy, &at, what, format!("write `policy: {name}` on a route, or remove it"));
        }
    }
}

fn named<'n>(cx: &mut Context<'_>, settings: &Block<'n>) -> Vec<(String, Field<'n>)> {
    let Some(field) = settings.find("policies").filter(|field| !field.node.is_null()) else { return Vec::new() };
    field.entries().unwrap_or_else(|| {
        let what = format!("`policies` must be a map of names to policies, not {}", field.node.kind());
        let hint = "write `policies: {staff: {allow: {and: [...]}}}`; routes stand under `routes`";
        cx.fatal(Code::WrongType, &field.at, what, hint);
        Vec::new()
    })
}

/// Criteria that look at what no request brings. To go on is refused where that would let somebody pass; not so on client
/// certificates, for which nobody asks without an authority, in Pomerium neither.
fn tell_idle<'r>(
    cx: &mut Context<'_>,
    field: &Field<'_>,
    rules: impl IntoIterator<Item = &'r Rule>,
    missing: &'r [Carrier],
) {
    let idle: Vec<_> = idle(rules, missing).collect();
    let paths = Paths::to(field, idle.iter().map(|idle| idle.place));
    for Idle { criterion, place, carrier, opens } in idle {
        let at = paths.at(place);
        let missing = match carrier {
            Carrier::ClientCertificates => {
                let what =
                    format!("`{criterion}` is never true: without `downstream_mtls` no certificate is asked for");
                let hint = if opens {
                    "remove it, and keep out by another criterion whom it should"
                } else {
                    "it lets nobody pass here; without it whoever the rest lets pass does"
                };
                cx.advise(Code::OddPolicy, &at, what, hint);
                continue;
            }
            Carrier::Devices => "devices",
            Carrier::Mcp => "MCP routes",
            Carrier::Ssh => "SSH routes",
            Carrier::Records => "external data sources",
        };
        let why = format!("{missing} are not supported yet, and so `{criterion}`");
        if opens {
            let what = format!("{why} keeps nobody out here");
            cx.fatal(Code::NotYet, &at, what, "remove it, and keep out by another criterion whom it should");
        } else {
            let what = format!("{why} lets nobody pass here");
            cx.advise(Code::NotYet, &at, what, "nothing is wrong; to let people pass write another rule");
        }
    }
}
