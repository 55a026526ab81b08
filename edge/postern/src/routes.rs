//! `postern routes`: the table of routes as the edge tries them, with who may enter by each.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::SystemTime;

use postern_edge::Host;
use postern_edge::route::{Carries, HostPattern, PathMatcher, Route};
use postern_policy::Audience;
use serde_json::{Value, json};

use crate::ask::{self, Failed, Page};
use crate::cli::{self, Exit};
use crate::config::{At, Code, Colour, Config, Problems};
use crate::probe::{Address, Probe, Question, Who};

/// Lists what was asked on the command line.
#[must_use]
pub(crate) fn routes(asked: &cli::Routes) -> Exit {
    ask::answered(run(asked))
}

fn run(asked: &cli::Routes) -> Result<Exit, Failed> {
    let wanted = Wanted::read(asked)?;
    let loaded = ask::load(Some(&asked.file), asked.lenient)?;
    let probe = Probe::new(&loaded.config).map_err(|error| Failed::Problem(error.to_string()))?;
    let listing = Listing::of(&probe, &loaded.config, loaded.file.as_deref(), &loaded.problems, &wanted)?;
    ask::print(asked.format, |colour| listing.to_human(colour), || listing.to_json());
    Ok(if listing.is_empty() { Exit::Problem } else { Exit::Ok })
}

/// Which routes are asked for.
#[derive(Debug)]
pub(crate) enum Wanted {
    /// Every one.
    All,
    /// Those of one host.
    Host(Host),
    /// Those that one address matches.
    Url(Address),
}

impl Wanted {
    fn read(asked: &cli::Routes) -> Result<Self, Failed> {
        if let Some(text) = &asked.url {
            let address = Address::parse(text);
            return address.map(Self::Url).map_err(|error| Failed::Usage(format!("--url {text}: {error}")));
        }
        let Some(text) = &asked.host else { return Ok(Self::All) };
        let host = Host::parse(text.as_bytes());
        host.map(Self::Host).map_err(|error| Failed::Usage(format!("--host {text}: {error}")))
    }
}

/// Routes in the order in which they are tried.
#[derive(Debug)]
pub(crate) struct Listing<'c> {
    file: Option<&'c str>,
    rows: Vec<Row<'c>>,
    /// The host of ours that has no routes: where people sign in.
    own: Option<String>,
    /// The address that was asked for is answered by Postern itself.
    reserved: bool,
}

#[derive(Debug)]
struct Row<'c> {
    route: &'c Route,
    at: &'c At,
    /// What `check` says of a route that no request reaches.
    hidden: Option<&'c str>,
}

impl<'c> Listing<'c> {
    pub(crate) fn of(
        probe: &'c Probe,
        config: &'c Config,
        file: Option<&'c str>,
        problems: &'c Problems,
        wanted: &Wanted,
    ) -> Result<Self, Failed> {
        let (found, reserved) = chosen(probe, wanted)?;
        let places: BTreeMap<*const Route, &At> = probe.routes().iter().map(Arc::as_ptr).zip(&config.places).collect();
        let hidden: BTreeMap<&At, &str> = problems
            .iter()
            .filter(|problem| problem.code == Code::HiddenRoute)
            .map(|problem| (&problem.at, problem.what.as_str()))
            .collect();
        let row = |route: &'c Arc<Route>| {
            let at = places.get(&Arc::as_ptr(route)).copied()?;
            Some(Row { route, at, hidden: hidden.get(at).copied() })
        };
        let rows = found.into_iter().filter_map(row).collect();
        let own = matches!(wanted, Wanted::All).then(|| own_host(probe)).flatten();
        Ok(Self { file, rows, own, reserved })
    }

    const fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.own.is_none() && !self.reserved
    }

    /// The table, for people.
    #[must_use]
    pub(crate) fn to_human(&self, colour: Colour) -> String {
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _infallible = self.write(&mut out, Page(colour));
        out
    }

    fn write(&self, out: &mut String, page: Page) -> std::fmt::Result {
        if self.reserved {
            return writeln!(out, "  no route is asked: this path is Postern's own");
        }
        if self.is_empty() {
            return writeln!(out, "  no route");
        }
        let head = ["route", "place", "for", "leads to", "who may enter", "name", "id"];
        let mut rows = vec![head.map(|name| page.bold(name)).to_vec()];
        rows.extend(self.rows.iter().map(|row| row.cells(self.file, page)));
        if let Some(host) = &self.own {
            let cells = [String::new(), String::new(), format!("{host}/*"), "sign-in".to_owned(), page.green("public")];
            // Behind the hosts that are named, as it is one of them.
            let is_named =
                |row: &&Row<'_>| matches!(row.route.hosts, HostPattern::Exact { .. }) && row.route.tunnel.is_none();
            let named = self.rows.iter().filter(is_named).count();
            rows.insert(named + 1, cells.to_vec());
        }
        page.columns(out, &rows)?;
        let hidden: Vec<_> = self.rows.iter().filter_map(|row| Some((row, row.hidden?))).collect();
        for (row, what) in hidden {
            writeln!(out, "{} {}: {what}", page.red("warning:"), ask::key(row.at))?;
        }
        Ok(())
    }

    /// The same for programs.
    #[must_use]
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "file": self.file,
            "reserved": self.reserved,
            "sign_in_host": self.own,
            "routes": self.rows.iter().map(|row| row.to_json(self.file)).collect::<Vec<_>>(),
        })
    }
}

impl Row<'_> {
    fn cells(&self, file: Option<&str>, page: Page) -> Vec<String> {
        let policy = &self.route.policy;
        let who = match policy.audience() {
            Audience::Public => page.green("public"),
            Audience::AnyUser => "any authenticated user".to_owned(),
            Audience::Chosen => shortened(&policy.summary()),
            Audience::Nobody => page.red("nobody"),
        };
        let policy = ask::policy(self.route).map(|policy| format!(" by {policy}")).unwrap_or_default();
        let leads_to = ask::target(self.route).join(", ") + &policy;
        vec![
            ask::key(self.at),
            ask::place(file, self.at).unwrap_or_default(),
            ask::matcher(self.route),
            leads_to,
            who,
            self.route.name.clone(),
            self.route.id.clone(),
        ]
    }

    fn to_json(&self, file: Option<&str>) -> Value {
        let route = self.route;
        let (host, port) = match &route.hosts {
            HostPattern::Exact { host, port } => (host, port),
            HostPattern::Wildcard { pattern, port } => (pattern, port),
        };
        let (kind, path) = match &route.path {
            PathMatcher::Prefix(text) => ("prefix", text.as_str()),
            PathMatcher::Exact(text) => ("path", text.as_str()),
            PathMatcher::Regex(regex) => ("regex", ask::expression(regex)),
        };
        json!({
            "key": ask::key(self.at),
            "place": ask::place(file, self.at),
            "for": ask::matcher(route),
            "host": host,
            "port": port,
            "path": if route.tunnel.is_some() { Value::Null } else { json!({ kind: path }) },
            "connections": asked(route, Carries::Connections),
            "datagrams": asked(route, Carries::Datagrams),
            "to": ask::target(route),
            "load_balancing_policy": ask::policy(route),
            "who": route.policy.audience().as_str(),
            "policy": route.policy.summary(),
            "name": route.name,
            "id": route.id,
            "hidden": self.hidden,
        })
    }
}

/// The routes that are wanted, as the table has them, and whether no route is asked at all.
fn chosen<'p>(probe: &'p Probe, wanted: &Wanted) -> Result<(Vec<&'p Arc<Route>>, bool), Failed> {
    let table = probe.table();
    match wanted {
        Wanted::All => {
            let of_requests = table.groups().into_iter().flat_map(|group| group.routes);
            Ok((of_requests.chain(probe.routes().iter().filter(|route| route.tunnel.is_some())).collect(), false))
        }
        Wanted::Host(host) => {
            let tunnels = Carries::ALL.into_iter().filter_map(|carries| table.tunnel(carries, host));
            Ok((table.candidates(host).into_iter().chain(tunnels).collect(), false))
        }
        Wanted::Url(address) => {
            let now = SystemTime::now().into();
            let question = Question::get(address.clone(), Who::Nobody, now);
            let finding = probe.ask(&question).map_err(|error| Failed::Usage(error.to_string()))?;
            let Some(request) = finding.admission.request() else {
                let why = finding.admission.verdict().details();
                return Err(Failed::Problem(format!("a request for this address is refused before any route: {why}")));
            };
            if let Some((carries, to)) = finding.tunnel() {
                return Ok((table.tunnel(carries, to).into_iter().collect(), false));
            }
            if finding.is_reserved() {
                return Ok((Vec::new(), true));
            }
            let mut routes = table.candidates(&request.host);
            routes.retain(|route| route.path.matches(&request.path));
            Ok((routes, false))
        }
    }
}

/// What tunnels of this kind are asked for with, if the route is for them.
fn asked(route: &Route, carries: Carries) -> Option<Vec<String>> {
    let tunnel = route.tunnel.as_deref().filter(|tunnel| tunnel.carries == carries)?;
    Some(tunnel.authorities.iter().map(ToString::to_string).collect())
}

/// The host that the table knows without a route.
fn own_host(probe: &Probe) -> Option<String> {
    let own = probe.table().groups().into_iter().find(|group| group.routes.is_empty())?;
    let (name, port) = own.host?;
    Some(port.map_or_else(|| name.to_owned(), |port| format!("{name}:{port}")))
}

/// As much of a summary as a table has room for; `--format json` has all of it.
const SUMMARY: usize = 60;

fn shortened(text: &str) -> String {
    if text.chars().count() <= SUMMARY {
        return text.to_owned();
    }
    text.chars().take(SUMMARY).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::cli::{Command, Invocation};
    use crate::config::{Environment, load_text};

    const GUIDE: &str = "../../docs/guides/inspect.md";

    /// The configuration of the guide.
    fn file() -> String {
        let page = fs::read_to_string(GUIDE).unwrap();
        let (_, text) = page.split_once("\n```yaml\n").unwrap();
        text.split_once("```\n").unwrap().0.to_owned()
    }

    fn listed<T>(text: &str, line: &str, tell: impl FnOnce(&Listing<'_>) -> T) -> Result<T, Failed> {
        let words = line.split_whitespace().map(Into::into);
        let Command::Routes(asked) = Invocation::parse(words).unwrap().command else { panic!("{line}") };
        let loaded = load_text(Some("config.yaml"), text, false, &Environment::of::<&str, &str>([]).unwrap());
        let config = loaded.config.unwrap_or_else(|| panic!("{}", loaded.problems.to_human(Colour::Plain)));
        let probe = Probe::new(&config).unwrap();
        let wanted = Wanted::read(&asked)?;
        Listing::of(&probe, &config, Some("config.yaml"), &loaded.problems, &wanted).map(|listing| tell(&listing))
    }

    fn names(line: &str) -> Vec<String> {
        let line = format!("postern routes config.yaml {line}");
        listed(&file(), &line, |listing| listing.rows.iter().map(|row| row.route.name.clone()).collect()).unwrap()
    }

    #[test]
    fn the_guide_shows_what_is_printed() {
        let page = fs::read_to_string(GUIDE).unwrap();
        let blocks = page.split("```console\n$ ").skip(1).filter_map(|rest| rest.split("```\n").next());
        let blocks: Vec<_> = blocks.filter(|block| block.starts_with("postern routes ")).collect();
        assert!(blocks.len() >= 2);
        for block in blocks {
            let (line, output) = block.split_once('\n').unwrap();
            let human = listed(&file(), line, |listing| listing.to_human(Colour::Plain)).unwrap();
            assert_eq!(output, human, "{line}\n{human}");
        }
    }

    #[test]
    fn a_host_has_the_routes_that_it_can_meet_and_an_address_those_that_match() {
        assert_eq!(names("--host app.example.com"), ["admin", "reports", "app", "late"]);
        assert_eq!(names("--host app.example.com:8443"), ["debug"]);
        assert_eq!(names("--host other.example.com"), ["any"]);
        assert_eq!(names("--host auth.example.com"), [""; 0]);
        assert_eq!(names("--host nowhere.example.org"), [""; 0]);
        assert_eq!(names("--url https://app.example.com/admin/users"), ["admin", "app"]);
        assert_eq!(names("--url https://app.example.com/x/../late"), ["app", "late"]);
        assert_eq!(names("--url https://app.example.com/reports/2026"), ["reports", "app"]);
        for (line, printed) in [
            ("--url https://app.example.com/.pomerium/sign_out", "  no route is asked: this path is Postern's own\n"),
            ("--host nowhere.example.org", "  no route\n"),
        ] {
            let line = format!("postern routes config.yaml {line}");
            let told = listed(&file(), &line, |listing| (listing.to_human(Colour::Plain), listing.is_empty())).unwrap();
            assert_eq!(told, (printed.to_owned(), printed.ends_with("no route\n")), "{line}");
        }
    }

    #[test]
    fn what_no_request_can_ask_for_is_told() {
        let refused = |line: &str| listed(&file(), &format!("postern routes c {line}"), |_| ()).unwrap_err();
        assert!(matches!(refused("--host a/b"), Failed::Usage(why) if why.starts_with("--host a/b: ")));
        assert!(matches!(refused("--url ftp://a"), Failed::Usage(why) if why.starts_with("--url ftp://a: ")));
        assert!(matches!(refused("--url https://a/%2f"), Failed::Problem(why) if why.contains("before any route")));
    }

    #[test]
    fn a_route_that_no_request_reaches_is_marked_as_check_marks_it() {
        let json = listed(&file(), "postern routes config.yaml", |told| told.to_json()).unwrap();
        let rows = json.get("routes").and_then(Value::as_array).unwrap();
        let hidden: Vec<_> = rows.iter().filter(|row| !row["hidden"].is_null()).collect();
        assert_eq!(hidden.len(), 1, "{json:#}");
        assert_eq!(hidden[0]["name"], "late");
        assert!(hidden[0]["hidden"].as_str().unwrap().starts_with("no request reaches this route"));
        assert_eq!(rows[0]["path"], json!({ "prefix": "/" }));
        assert_eq!(rows[2]["path"], json!({ "regex": "/reports/[0-9]+" }));
        assert_eq!((&rows[0]["port"], &json["sign_in_host"]), (&json!(8443), &json!("auth.example.com")));
    }

    #[test]
    fn several_upstreams_are_listed_with_their_weights_and_how_one_is_chosen() {
        let text = file().replacen(
            "    to: ",
            "    load_balancing_policy: least_request\n    to: ['http://a:1,3', 'http://b:2,1']\n    description: ",
            1,
        );
        let line = "postern routes config.yaml";
        let (human, json) = listed(&text, line, |told| (told.to_human(Colour::Plain), told.to_json())).unwrap();
        assert!(human.contains("http://a:1,3, http://b:2,1 by least_request"), "{human}");
        let row =
            json["routes"].as_array().unwrap().iter().find(|row| !row["load_balancing_policy"].is_null()).unwrap();
        assert_eq!(row["to"], json!(["http://a:1,3", "http://b:2,1"]));
        assert_eq!(row["load_balancing_policy"], "least_request");
    }

    #[test]
    fn a_long_policy_is_cut_for_people_alone() {
        let users: Vec<_> = (0..9).map(|number| format!("user-{number}@example.com")).collect();
        let text = file().replace("allowed_domains: [example.com]", &format!("allowed_users: [{}]", users.join(", ")));
        let line = "postern routes config.yaml";
        let (human, json) = listed(&text, line, |told| (told.to_human(Colour::Plain), told.to_json())).unwrap();
        assert!(human.contains('…') && !human.contains("user-5@"), "{human}");
        assert!(json.to_string().contains("user-5@"), "{json:#}");
    }
}
