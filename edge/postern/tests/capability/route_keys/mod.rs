//! Every key of a route that the reference says works, tried from outside (01 §2.1): a test `row_KEY_…` for each, here or where its
//! theme has a module already: `downstream_mtls`, `headers`, `kubernetes`, `limits`, `serverless`, `upstream_balancing`,
//! `upstream_http` and `upstream_tls`. A test that proves several rows carries the first key; [`ALSO`] names the others.

mod access;
mod answers;
mod depends_on;
mod headers;
mod identity;
mod matching;
mod names;
mod rewriting;
mod times;
mod upstreams;

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::support::{Asked, DEADLINE, NO_PROVIDER, PUBLIC, Postern, Upstream, World, output_within};

/// Keys that the row of another proves too.
const ALSO: &[(&str, &[&str])] = &[
    ("name", &["description"]),
    ("regex_rewrite_pattern", &["regex_rewrite_substitution"]),
    ("host_path_regex_rewrite_pattern", &["host_path_regex_rewrite_substitution"]),
    ("tls_custom_ca", &["tls_custom_ca_file"]),
    ("tls_server_name", &["tls_upstream_server_name"]),
    ("tls_client_cert", &["tls_client_key", "tls_client_cert_file", "tls_client_key_file"]),
    ("tls_downstream_client_ca", &["tls_downstream_client_ca_file"]),
    ("idp_client_id", &["idp_client_secret"]),
    ("kubernetes_service_account_token", &["kubernetes_service_account_token_file"]),
];

/// The keys of the reference, and whether each works: what has no effect has a row as well, which shows that.
fn keys() -> Result<Vec<(String, bool)>> {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/configuration.md"))?;
    let section = page.split("\n## ").find(|section| section.starts_with("A route\n")).context("no table of routes")?;
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    let works = |rest: &str| {
        let mut cells = rest.split(" | ").skip(2).map(str::trim);
        let (status, differs) = (cells.next().unwrap_or_default(), cells.next().unwrap_or_default());
        (status == "works" || status.starts_with("no effect")) && !differs.contains("not in Pomerium")
    };
    Ok(rows.map(|(key, rest)| (key.to_owned(), works(rest))).collect())
}

#[test]
fn every_key_of_a_route_that_works_has_a_row() -> Result<()> {
    let mut list = Command::new(std::env::current_exe()?);
    list.args(["row_", "--list"]);
    let told = output_within(DEADLINE, "the list of tests", list)?;
    let told = String::from_utf8(told.stdout)?;
    let tests = told.lines().filter_map(|line| line.strip_suffix(": test")?.rsplit("::").next()?.strip_prefix("row_"));
    let keys = keys()?;
    let mut proved = BTreeSet::new();
    for test in tests {
        // `regex_rewrite_pattern_…` is no row of `regex`.
        let is_of = |key: &&str| test.strip_prefix(*key).is_some_and(|rest| rest.starts_with('_'));
        let key = keys.iter().map(|(key, _)| key.as_str()).filter(is_of).max_by_key(|key| key.len());
        proved.insert(key.with_context(|| format!("row_{test} names no key of a route"))?);
    }
    for (key, others) in ALSO {
        ensure!(proved.contains(key), "no row_{key}_… proves {others:?}");
        proved.extend(*others);
    }
    let works: Vec<_> = keys.iter().filter(|(_, works)| *works).map(|(key, _)| key.as_str()).collect();
    ensure!(works.len() > 50, "the table of keys is not read: {works:?}");
    let missing: Vec<_> = works.into_iter().filter(|key| !proved.contains(key)).collect();
    ensure!(missing.is_empty(), "these keys work, and no test row_KEY_… shows it: {missing:?}");
    Ok(())
}

/// A Postern in front of an upstream that tells what it was asked.
struct Office {
    world: World,
    upstream: Upstream,
    postern: Postern,
}

/// An answer to a request of HTTP/1.1.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

/// One with these settings, and a public route of each name, with these lines.
async fn open(settings: &str, routes: &[(&str, &[&str])]) -> Result<Office> {
    with(settings, |world, to| {
        routes.iter().map(|(name, lines)| world.route(name, to, &[PUBLIC, *lines].concat())).collect()
    })
    .await
}

/// One with these settings, and the routes that are made of where its upstream is.
async fn with(settings: &str, routes: impl FnOnce(&World, &str) -> String) -> Result<Office> {
    let (world, upstream) = (World::new()?, Upstream::start().await?);
    let text = routes(&world, &upstream.url());
    let settings = format!("{NO_PROVIDER}log_level: info\n{settings}");
    let postern = Postern::run(&world, &world.config(&settings, &text)).await?;
    Ok(Office { world, upstream, postern })
}

impl Office {
    /// The answer to `GET target` with these further lines of a head.
    async fn get(&self, name: &str, target: &str, lines: &str) -> Result<Answer> {
        self.send(name, &format!("GET {target}"), &format!("Host: {}\r\n{lines}", self.world.host(name))).await
    }

    /// The answer to a request with these lines, on a connection for `name`.
    async fn send(&self, name: &str, request: &str, lines: &str) -> Result<Answer> {
        let request = format!("{request} HTTP/1.1\r\n{lines}Connection: close\r\n\r\n");
        Answer::read(&self.world.exchange(name, &request).await?).with_context(|| self.postern.told())
    }

    /// What the upstream got of such a request.
    async fn carried(&self, name: &str, target: &str, lines: &str) -> Result<Asked> {
        let before = self.upstream.seen().len();
        let answer = self.get(name, target, lines).await?;
        let seen = self.upstream.seen();
        ensure!(seen.len() == before + 1, "{name}{target}: {}\n{}", answer.head, self.postern.told());
        seen.last().cloned().context("nothing was seen")
    }

    /// The status and the reason for which such a request was not carried.
    async fn refused(&self, name: &str, target: &str, lines: &str) -> Result<String> {
        let before = self.upstream.seen().len();
        let answer = self.get(name, target, &format!("Accept: application/json\r\n{lines}")).await?;
        ensure!(self.upstream.seen().len() == before, "it was carried: {}", answer.head);
        let body: Value = serde_json::from_str(&answer.body).with_context(|| answer.head.clone())?;
        Ok(format!("{} {}", answer.status, body.get("reason").and_then(Value::as_str).unwrap_or_default()))
    }

    /// What `explain` says of it.
    fn explained(&self, name: &str, target: &str, header: Option<&str>) -> Result<Value> {
        let (config, url) = (self.world.path("config.yaml").display().to_string(), self.world.url(name, target));
        let asked = ["explain", "--config", &config, "--url", &url, "--format", "json"];
        let header: Vec<_> = header.iter().flat_map(|header| ["--header", header]).collect();
        let told = Postern::once(self.world.folder(), &[&asked[..], &header].concat())?;
        serde_json::from_str(&told.stdout).with_context(|| told.told())
    }

    /// Holds that `check` refuses a public route with these lines, for a fault of this key.
    fn is_refused(&self, lines: &[&str], key: &str) -> Result<()> {
        is_refused(&self.world, &self.world.route("odd", &self.upstream.url(), &[PUBLIC, lines].concat()), key)
    }
}

/// Holds that `check` refuses these routes, for a fault of this key of the first one.
fn is_refused(world: &World, routes: &str, key: &str) -> Result<()> {
    let path = world.path("refused.yaml");
    std::fs::write(&path, world.config(NO_PROVIDER, routes))?;
    let told = Postern::once(world.folder(), &["check", "--format", "json", &path.display().to_string()])?;
    ensure!(told.status.code() == Some(1), "taken: {routes}\n{}", told.told());
    let said: Value = serde_json::from_str(&told.stdout).with_context(|| told.told())?;
    let problems = said.get("problems").and_then(Value::as_array).context("no problems")?;
    let is_it = |problem: &Value| {
        let place = problem.get("key").and_then(Value::as_str).unwrap_or_default();
        let own = place.strip_prefix("routes[0].").unwrap_or_default();
        problem.get("severity").is_some_and(|severity| severity == "fatal")
            && (own == key || own.starts_with(&format!("{key}[")) || own.starts_with(&format!("{key}.")))
    };
    ensure!(problems.iter().any(is_it), "no word of `{key}`: {routes}\n{}", told.told());
    Ok(())
}

impl Answer {
    fn read(text: &str) -> Result<Self> {
        let (head, body) = text.split_once("\r\n\r\n").with_context(|| format!("no answer: {text:?}"))?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("no status")?;
        Ok(Self { status, head: head.to_owned(), body: body.to_owned() })
    }

    /// The value of that field, if it came exactly once.
    fn field(&self, name: &str) -> Option<&str> {
        let fields = self.head.lines().filter_map(|line| line.split_once(": "));
        let mut values = fields.filter(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value);
        values.next().filter(|_| values.next().is_none())
    }

    /// What the upstream says that it was asked.
    fn asked(&self) -> Result<Asked> {
        serde_json::from_str(&self.body).with_context(|| format!("not carried: {}\n{}", self.head, self.body))
    }
}
