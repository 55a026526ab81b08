//! `postern diff`: whose access changes from one configuration to another. Both are asked by the edge's own code, as `explain` does;
//! what is asked is made up of what the routes and policies of both speak of, or said on the command line.

mod axes;
mod compare;
mod human;
mod json;
mod requests;
mod routes;
mod scenario;
#[cfg(test)]
mod tests;

use postern_edge::route::Route;
use postern_policy::Policy;

use self::compare::Access;
use self::routes::{Pairs, RouteChange};
use self::scenario::Scenario;
use crate::ask::{self, Failed};
use crate::cli::{self, Exit};
use crate::config::{At, Config};
use crate::probe::{Address, Described, Probe};

/// One of the two configurations.
#[derive(Debug)]
pub struct Side<'c> {
    config: &'c Config,
    probe: Probe,
    /// Its file, as it was named.
    file: Option<&'c str>,
}

/// What is asked of both.
#[derive(Debug, Clone, Default)]
pub struct Asking {
    /// These people; else people are made up of what the policies name, and nobody.
    pub people: Vec<Described>,
    /// For these addresses; else for what hits each route.
    pub urls: Vec<Address>,
    /// Only from there, not from where the policies name.
    pub source: Option<std::net::IpAddr>,
    /// Only then, not when the policies name.
    pub time: Option<postern_identity::Timestamp>,
    /// What counts as now, unless it is the clock's.
    pub now: Option<postern_identity::Timestamp>,
}

/// How two configurations differ.
#[derive(Debug)]
pub struct Comparison<'c> {
    sides: [Side<'c>; 2],
    routes: Vec<RouteChange>,
    access: Access,
    usual: Scenario,
}

/// Compares what was asked on the command line.
#[must_use]
pub(crate) fn diff(asked: &cli::Diff) -> Exit {
    match run(asked) {
        Ok(exit) => exit,
        // As of diff(1): 1 says that there are differences, and so nothing else.
        Err(Failed::Told) => Exit::Usage,
        Err(Failed::Usage(text) | Failed::Problem(text) | Failed::Unreachable(text)) => {
            crate::tell(&text);
            Exit::Usage
        }
    }
}

fn run(asked: &cli::Diff) -> Result<Exit, Failed> {
    let asking = asking(asked)?;
    let [old, new] = [&asked.old, &asked.new].map(|file| ask::load(Some(file), asked.lenient));
    let (old, new) = (old?, new?);
    let compared = Comparison::of((&old.config, old.file.as_deref()), (&new.config, new.file.as_deref()), asking)
        .map_err(|error| Failed::Problem(error.to_string()))?;
    ask::print(asked.format, |colour| compared.to_human(colour), || compared.to_json());
    if compared.changes_access() {
        return Ok(Exit::Problem);
    }
    if let Some(why) = compared.doubt() {
        return Err(Failed::Problem(format!("no change of access was found, and {why}")));
    }
    Ok(Exit::Ok)
}

fn asking(asked: &cli::Diff) -> Result<Asking, Failed> {
    let mut people =
        asked.subjects.as_deref().map(Described::read).transpose().map_err(Failed::Problem)?.unwrap_or_default();
    let person = asked.subject.person().map_err(Failed::Usage)?;
    if !person.is_nobody() {
        people.push(Described { person, ..Described::default() });
    }
    let address = |url: &String| Address::parse(url).map_err(|error| Failed::Usage(format!("--url {url}: {error}")));
    Ok(Asking {
        people,
        urls: asked.urls.iter().map(address).collect::<Result<_, _>>()?,
        source: asked.source_ip,
        time: asked.time.as_deref().map(|time| ask::time(Some(time))).transpose()?,
        now: None,
    })
}

impl<'c> Side<'c> {
    fn new((config, file): (&'c Config, Option<&'c str>)) -> Result<Self, postern_edge::SnapshotError> {
        Ok(Self { config, probe: Probe::new(config)?, file })
    }

    fn routes(&self) -> impl Iterator<Item = &Route> {
        self.probe.routes().iter().map(|route| &**route)
    }

    fn route(&self, at: usize) -> Option<&Route> {
        self.probe.routes().get(at).map(|route| &**route)
    }

    fn policy(&self, at: Option<usize>) -> Option<&Policy> {
        self.route(at?).map(|route| &route.policy)
    }

    fn at(&self, at: usize) -> Option<&At> {
        self.config.places.get(at)
    }

    /// `config.yaml:12` of a route.
    fn place(&self, at: usize) -> Option<String> {
        ask::place(self.file, self.at(at)?)
    }
}

impl<'c> Comparison<'c> {
    /// Compares two configurations, each with the name of its file.
    ///
    /// # Errors
    /// If one of them could not be in force.
    pub fn of(
        old: (&'c Config, Option<&'c str>),
        new: (&'c Config, Option<&'c str>),
        asking: Asking,
    ) -> Result<Self, postern_edge::SnapshotError> {
        let sides = [Side::new(old)?, Side::new(new)?];
        let [before, after] = &sides;
        let pairs = Pairs::of(before, after);
        let routes = pairs.changes(before, after);
        let now = asking.time.or(asking.now).unwrap_or_else(|| std::time::SystemTime::now().into());
        let mut usual = Scenario::nobody(now);
        usual.only_then = asking.time.is_some();
        usual.only_from_there = asking.source.is_some();
        usual.source = asking.source.unwrap_or(usual.source);
        let access = Access::of(&sides, &pairs, asking, &usual);
        Ok(Self { sides, routes, access, usual })
    }

    /// Whether access changes for anybody who was asked about.
    #[must_use]
    pub fn changes_access(&self) -> bool {
        !self.access.changes.is_empty()
    }

    /// Why nothing found is not all that there is: something was left out although routes have changed.
    fn doubt(&self) -> Option<String> {
        let cut = self.access.left_out();
        (!cut.is_empty() && !self.routes.is_empty()).then(|| cut.join("; "))
    }
}
