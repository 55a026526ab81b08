//! What all commands that answer questions share: loading a configuration, telling where things are, and printing.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::time::SystemTime;

use http::{HeaderMap, HeaderValue, header};
use postern_edge::route::{HostPattern, LoadBalancing, PathMatcher, PathRegex, Redirect, Route, Target};
use postern_identity::{ClaimValues, CompactSession, Timestamp};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};

use crate::check;
use crate::cli::{Exit, Format};
use crate::config::{self, At, Colour, Config, Environment, Origin, Problems, Source};

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Failed {
    /// The command line was not understood.
    Usage(String),
    /// What was asked about cannot be used.
    Problem(String),
    /// A running Postern was to be asked, and nothing answers.
    Unreachable(String),
    /// The problems of a configuration were printed already.
    Told,
}

/// How the process ends; what is to be said about it is said on stderr.
pub(crate) fn answered(outcome: Result<Exit, Failed>) -> Exit {
    let (text, exit) = match outcome {
        Ok(exit) => return exit,
        Err(Failed::Told) => return Exit::Problem,
        Err(Failed::Usage(text)) => (text, Exit::Usage),
        Err(Failed::Problem(text)) => (text, Exit::Problem),
        Err(Failed::Unreachable(text)) => (text, Exit::Unreachable),
    };
    crate::tell(&text);
    exit
}

/// A configuration that can be asked.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) config: Config,
    /// Its file, as it was named.
    pub(crate) file: Option<String>,
    /// Advice on it.
    pub(crate) problems: Problems,
}

/// Loads what is to be asked. Fatal problems are printed as `check` would; advice is for `check` alone.
pub(crate) fn load(file: Option<&Path>, lenient: bool) -> Result<Asked, Failed> {
    let environment = check::environment().map_err(|_| Failed::Told)?;
    let source = Source { file: file.map(Path::to_owned), lenient };
    let mut loaded = config::load(&source, &environment);
    let Some(config) = loaded.config.take() else {
        return Err(refused(&loaded.problems, &environment));
    };
    let file = file.map(|file| file.display().to_string());
    Ok(Asked { config, file, problems: loaded.problems })
}

/// Tells what is wrong, as `check` would.
pub(crate) fn refused(problems: &Problems, environment: &Environment) -> Failed {
    let err = std::io::stderr();
    let text = problems.to_human(check::colour(err.is_terminal(), environment));
    let _closed = err.lock().write_all(text.as_bytes());
    Failed::Told
}

/// The time that is meant: now, unless one is written.
pub(crate) fn time(written: Option<&str>) -> Result<Timestamp, Failed> {
    let Some(text) = written else { return Ok(SystemTime::now().into()) };
    let parsed = Timestamp::parse(text);
    parsed.ok_or_else(|| Failed::Usage(format!("--time {text}: write a time such as 2027-01-15T08:00:00Z")))
}

/// The certificates of a PEM file, leaf first.
pub(crate) fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Failed> {
    let unfit = |why: &dyn std::fmt::Display| Failed::Problem(format!("--client-cert {}: {why}", file.display()));
    let pem = std::fs::read(file).map_err(|error| unfit(&error))?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let chain = chain.ok().filter(|chain| !chain.is_empty());
    chain.ok_or_else(|| unfit(&"it holds no certificate in PEM"))
}

/// Prints for people or for programs.
pub(crate) fn print(format: Format, human: impl FnOnce(Colour) -> String, json: impl FnOnce() -> Value) {
    let out = std::io::stdout();
    let colour =
        check::environment().map_or(Colour::Plain, |environment| check::colour(out.is_terminal(), &environment));
    let text = match format {
        Format::Human => human(colour),
        Format::Json => format!("{:#}\n", json()),
    };
    // A reader that has gone away has seen enough.
    let _closed = out.lock().write_all(text.as_bytes());
}

/// How text is set.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Page(pub(crate) Colour);

impl Page {
    fn tint(self, code: &str, text: &str) -> String {
        match self.0 {
            Colour::Terminal => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
            Colour::Plain => text.to_owned(),
        }
    }

    pub(crate) fn bold(self, text: &str) -> String {
        self.tint("1", text)
    }

    pub(crate) fn green(self, text: &str) -> String {
        self.tint("32", text)
    }

    pub(crate) fn red(self, text: &str) -> String {
        self.tint("31", text)
    }

    pub(crate) fn yes_or_no(self, value: bool, yes: &str, no: &str) -> String {
        if value { self.green(yes) } else { self.red(no) }
    }

    /// Rows of cells, aligned, indented by two. Colours take no room.
    pub(crate) fn columns(self, out: &mut String, rows: &[Vec<String>]) -> std::fmt::Result {
        let widths = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| width(cell)).max();
        let count = rows.iter().map(Vec::len).max().unwrap_or_default();
        let widths: Vec<usize> = (0..count).map(|column| widths(column).unwrap_or_default()).collect();
        for row in rows {
            let mut line = String::new();
            for (cell, room) in row.iter().zip(&widths).filter(|(_, room)| **room > 0 || count > 1) {
                line.push_str("  ");
                line.push_str(cell);
                line.push_str(&" ".repeat(room - width(cell)));
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// What others say is not for a terminal to obey.
pub(crate) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// How wide a text stands on a terminal.
fn width(text: &str) -> usize {
    let mut escaped = false;
    let shown = text.chars().filter(|c| {
        let hidden = escaped || *c == '\u{1b}';
        escaped = hidden && *c != 'm';
        !hidden
    });
    shown.count()
}

/// `routes[3]`.
pub(crate) fn key(at: &At) -> String {
    at.key.as_str().trim_end_matches(".from").to_owned()
}

/// `config.yaml:12`, or the variable that holds it.
pub(crate) fn place(file: Option<&str>, at: &At) -> Option<String> {
    let line = at.place.line;
    match &at.origin {
        Origin::File => file.filter(|_| line > 0).map(|file| format!("{file}:{line}")),
        Origin::Environment(name) if line > 0 => Some(format!("{name}:{line}")),
        Origin::Environment(name) => Some(name.to_string()),
        Origin::Absent => None,
    }
}

/// Which requests a route is for: `app.example.com/admin`.
pub(crate) fn matcher(route: &Route) -> String {
    if let Some(tunnel) = &route.tunnel {
        let method = tunnel.carries.method();
        let asked: Vec<_> = tunnel.authorities.iter().map(|one| format!("{method} {one}")).collect();
        return asked.join(", ");
    }
    let (host, port) = match &route.hosts {
        HostPattern::Exact { host, port } => (host, port),
        HostPattern::Wildcard { pattern, port, .. } => (pattern, port),
    };
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    let path = match &route.path {
        PathMatcher::Prefix(prefix) => format!("{prefix}*"),
        PathMatcher::Exact(path) => path.clone(),
        PathMatcher::Regex(regex) => format!(" ~ {}", expression(regex)),
    };
    format!("{host}{port}{path}")
}

/// The expression as it was written, without what makes it match whole paths.
pub(crate) fn expression(regex: &PathRegex) -> &str {
    let text = regex.as_str();
    text.strip_prefix(r"\A(?:").and_then(|text| text.strip_suffix(r")\z")).unwrap_or(text)
}

/// Where a route leads, with the weights of its upstreams where they differ.
pub(crate) fn target(route: &Route) -> Vec<String> {
    match &route.target {
        Target::Upstream(upstream) => {
            let weighted = upstream.endpoints.iter().any(|endpoint| endpoint.weight != 1);
            let weight = |weight: u32| if weighted { format!(",{weight}") } else { String::new() };
            upstream.endpoints.iter().map(|endpoint| format!("{endpoint}{}", weight(endpoint.weight))).collect()
        }
        Target::Redirect(redirect) => vec![redirected(redirect)],
        Target::Response { status, .. } => vec![format!("answer {}", status.as_u16())],
    }
}

/// How one of its upstreams is chosen, unless they take turns.
pub(crate) fn policy(route: &Route) -> Option<&'static str> {
    let Target::Upstream(upstream) = &route.target else { return None };
    let policy = upstream.balancing.as_deref()?.policy;
    (policy != LoadBalancing::RoundRobin).then(|| policy.name())
}

fn redirected(redirect: &Redirect) -> String {
    let host = redirect.host.as_deref().unwrap_or("the same host");
    let path = redirect.path.as_deref().or(redirect.prefix.as_deref()).unwrap_or_default();
    format!("redirect {} to {host}{path}", redirect.status.as_u16())
}

/// Who somebody is, in words.
pub(crate) fn person(session: &CompactSession) -> String {
    let groups = session.claims().values("groups").or_else(|| session.user_claims().values("groups"));
    let groups = groups.into_iter().flat_map(ClaimValues::iter);
    let groups: Vec<_> =
        groups.map(|group| group.as_text().map_or_else(|| group.to_json().to_string(), str::to_owned)).collect();
    let mut words = Vec::new();
    words.extend(session.email().map(str::to_owned));
    words.extend(Some(format!("user {}", session.user_id())).filter(|_| !session.user_id().is_empty()));
    words.extend(Some(format!("groups {}", groups.join(" and "))).filter(|_| !groups.is_empty()));
    if words.is_empty() { "somebody who is signed in".to_owned() } else { words.join(", ") }
}

/// The same for programs.
pub(crate) fn subject(session: Option<&CompactSession>) -> Value {
    session.map_or(Value::Null, |session| {
        // As policies see them: the user's claims win.
        let mut claims = session.claims().to_json();
        claims.extend(session.user_claims().to_json());
        json!({
            "user": session.user_id(),
            "email": session.email(),
            "email_verified": session.email_verified,
            "claims": claims,
        })
    })
}

/// The fields of an answer without what belongs to one browser alone.
pub(crate) fn harmless(fields: &HeaderMap) -> HeaderMap {
    let mut fields = fields.clone();
    if fields.contains_key(header::SET_COOKIE) {
        fields.insert(header::SET_COOKIE, HeaderValue::from_static("[cookie]"));
    }
    let location = fields.get(header::LOCATION).map(|value| lossy(value.as_bytes()));
    if let Some((place, _)) = location.as_deref().and_then(|location| location.split_once("/.pomerium/sign_in?"))
        && let Ok(value) = HeaderValue::from_str(&format!("{place}/.pomerium/sign_in"))
    {
        fields.insert(header::LOCATION, value);
    }
    fields
}

/// Bytes as text.
pub(crate) fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A body as the JSON that it is, else as text.
pub(crate) fn json_or_text(body: &str) -> Value {
    serde_json::from_str(body).unwrap_or_else(|_| Value::from(body))
}
