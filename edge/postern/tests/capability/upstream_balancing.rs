//! `to` with weights, `load_balancing_policy`, `circuit_breaker_thresholds`, `outlier_detection` and `health_checks`: who gets how
//! many requests, and who gets none (01 §1.3, §2.5, §2.11; R-016).

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tonic::Status;
use tonic::server::Grpc;
use tonic_prost::ProstCodec;
use tower::service_fn;

use crate::support::{
    ANY_USER, Backend, Browser, DEADLINE, Fault, Faulty, NO_PROVIDER, PUBLIC, Postern, Provider, Seen, Shown, World,
    acceptor, bounded, eventually, plain_client, within,
};

/// The value of a metric of the edge with these labels, as the metrics address shows it.
async fn metric(world: &World, line: &str) -> Result<f64> {
    let url = format!("http://127.0.0.1:{}/metrics", world.metrics);
    let text = plain_client()?.get(url).send().await?.text().await?;
    let found = text.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(' ')?.parse().ok());
    Ok(found.unwrap_or_default())
}

/// Which backend answers, of so many requests each.
async fn answered(browser: &mut Browser, world: &World, name: &str, times: usize) -> Result<BTreeMap<String, usize>> {
    let mut counts = BTreeMap::new();
    for _ in 0..times {
        let answer = browser.visit(world.url(name, "/")).await?;
        let seen: Seen =
            serde_json::from_str(&answer.body).with_context(|| format!("{}: {}", answer.status, answer.body))?;
        *counts.entry(seen.backend).or_default() += 1;
    }
    Ok(counts)
}

fn list(urls: &[String]) -> String {
    format!("[{}]", urls.iter().map(|url| format!("'{url}'")).collect::<Vec<_>>().join(", "))
}

#[tokio::test]
async fn row_load_balancing_policy_and_weights_say_who_gets_how_many_requests() -> Result<()> {
    let world = World::new()?;
    let (a, b) = (Backend::plain("a").await?, Backend::plain("b").await?);
    let (a, b) = (a.url("http", "127.0.0.1")?, b.url("http", "127.0.0.1")?);
    let weighted = list(&[format!("{a},3"), format!("{b},1")]);
    let policy = |policy: &'static str| [PUBLIC, &[policy]].concat();
    let routes = [
        world.route("turns", &weighted, PUBLIC),
        world.route("even", &list(&[a.clone(), b.clone()]), PUBLIC),
        world.route("random", &weighted, &policy("load_balancing_policy: random")),
        world.route("least", &weighted, &policy("load_balancing_policy: least_request")),
    ];
    let _postern = Postern::run(&world, &world.config(NO_PROVIDER, &routes.concat())).await?;
    let mut browser = Browser::new(&world.ca_pem())?;
    assert_eq!(answered(&mut browser, &world, "turns", 40).await?, [("a".into(), 30), ("b".into(), 10)].into());
    assert_eq!(answered(&mut browser, &world, "even", 10).await?, [("a".into(), 5), ("b".into(), 5)].into());
    for name in ["random", "least"] {
        let counts = answered(&mut browser, &world, name, 200).await?;
        assert!((110..=190).contains(&counts["a"]), "{name}: {counts:?}");
    }
    Ok(())
}

#[tokio::test]
async fn row_load_balancing_policy_by_hash_brings_the_same_person_or_address_to_the_same_endpoint() -> Result<()> {
    let world = World::new()?;
    let mut urls = Vec::new();
    let mut backends = Vec::new();
    for name in ["a", "b", "c", "d"] {
        let backend = Backend::plain(name).await?;
        urls.push(backend.url("http", "127.0.0.1")?);
        backends.push(backend);
    }
    let provider = Provider::start(&world, Some("alice"))?;
    let to = list(&urls);
    let keys = |lines: &[&'static str], policy: &'static str| [lines, &[policy]].concat();
    let routes = [
        world.route("ring", &to, &keys(PUBLIC, "load_balancing_policy: ring_hash")),
        world.route("maglev", &to, &keys(PUBLIC, "load_balancing_policy: maglev")),
        world.route("people", &to, &keys(ANY_USER, "load_balancing_policy: maglev")),
    ];
    let _postern = Postern::run(&world, &world.config(&provider.settings(), &routes.concat())).await?;
    for name in ["ring", "maglev"] {
        let mut met = BTreeMap::new();
        for last in 1..=12 {
            let mut browser = Browser::at(&world.ca_pem(), Ipv4Addr::new(127, 0, 0, last))?;
            let counts = answered(&mut browser, &world, name, 5).await?;
            assert_eq!(counts.len(), 1, "{name} from 127.0.0.{last}: {counts:?}");
            met.extend(counts);
        }
        assert!(met.len() > 1, "{name}: {met:?}");
    }
    let mut met = BTreeMap::new();
    for _ in 0..8 {
        let mut browser = Browser::new(&world.ca_pem())?;
        let counts = answered(&mut browser, &world, "people", 4).await?;
        assert_eq!(counts.len(), 1, "one session: {counts:?}");
        met.extend(counts);
    }
    assert!(met.len() > 1, "the address is the same, and the sessions are not: {met:?}");
    Ok(())
}

#[tokio::test]
async fn r_016_a_dead_endpoint_is_passed_over_and_nothing_is_sent_twice() -> Result<()> {
    let world = World::new()?;
    let well = Backend::plain("well").await?;
    let mut dead = Faulty::start(Fault::None, None, false).await?;
    dead.kill().await;
    let cutting = Faulty::start(Fault::ClosesAfterRequest, None, false).await?;
    let both = list(&[format!("http://{}", dead.address()), well.url("http", "127.0.0.1")?]);
    let cut = format!("http://{}", cutting.address());
    let none = [PUBLIC, &["circuit_breaker_thresholds: {max_retries: 0}"]].concat();
    let routes =
        [world.route("both", &both, PUBLIC), world.route("none", &both, &none), world.route("cut", &cut, PUBLIC)];
    let _postern = Postern::run(&world, &world.config(NO_PROVIDER, &routes.concat())).await?;
    let mut browser = Browser::new(&world.ca_pem())?;
    assert_eq!(answered(&mut browser, &world, "both", 6).await?, [("well".into(), 6)].into());
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(browser.visit(world.url("none", "/")).await?.status.as_u16());
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 502, 502], "nothing is tried again where that is not wanted");
    assert_eq!(browser.visit(world.url("cut", "/")).await?.status.as_u16(), 502);
    assert_eq!(cutting.requests(), 1, "what was sent may have been acted on");
    // Ten to begin with, and a tenth of what comes: a route that only fails is not asked twice for ever.
    let mut refused = 0;
    for _ in 0..60 {
        refused += usize::from(browser.visit(world.url("both", "/")).await?.status == 502);
    }
    assert!(refused >= 10, "{refused}");
    Ok(())
}

/// A request that is held at the upstream until it is dropped.
fn held(world: &World, name: &str) -> Result<tokio::task::JoinHandle<Option<u16>>> {
    let (mut browser, url) = (Browser::new(&world.ca_pem())?, world.url(name, "/silent"));
    Ok(tokio::spawn(async move { browser.visit(url).await.ok().map(|answer| answer.status.as_u16()) }))
}

#[tokio::test]
async fn row_circuit_breaker_thresholds_r_030_refuse_what_is_beyond_them_at_once_with_a_reason_of_its_own() -> Result<()>
{
    let world = World::new()?;
    world.issue(("old.crt", "old.key"), &["localhost".to_owned()])?;
    let shown = Shown { certificate: world.path("old.crt"), key: world.path("old.key"), ..Shown::default() };
    let old = Backend::secure("old", &Shown { alpn: vec!["http/1.1"], ..shown }).await?;
    let plain = Backend::plain("plain").await?;
    let keys = |name: &str, thresholds: &str| {
        [PUBLIC[0].to_owned(), format!("name: {name}"), format!("circuit_breaker_thresholds: {thresholds}")]
    };
    let (requests, connections) =
        ("{max_requests: 2}", "{max_requests: 9, max_connections: 2, max_pending_requests: 0}");
    let url = plain.url("http", "127.0.0.1")?;
    let route = |name: &str, url: &str, thresholds: &str| {
        let keys = keys(name, thresholds);
        world.route(name, url, &keys.each_ref().map(String::as_str))
    };
    let routes = [
        route("requests", &url, requests),
        route("streams", &plain.url("h2c", "127.0.0.1")?, requests),
        route("connections", &url, connections),
        route("negotiated", &old.url("https", "localhost")?, connections),
        world.route("global", &url, PUBLIC),
    ];
    let settings = format!(
        "{NO_PROVIDER}certificate_authority_file: {}\ncircuit_breaker_thresholds: {{max_requests: 2}}\n",
        world.path("ca.pem").display()
    );
    let postern = Postern::run(&world, &world.config(&settings, &routes.concat())).await?;
    let mut browser = Browser::new(&world.ca_pem())?;
    for name in ["requests", "streams", "connections", "negotiated", "global"] {
        let backend = if name == "negotiated" { &old } else { &plain };
        let before = backend.seen().len();
        let holding = [held(&world, name)?, held(&world, name)?];
        eventually("two requests are held", async || (backend.seen().len() == before + 2).then_some(())).await?;
        let refused = browser.visit(world.url(name, "/")).await?;
        assert_eq!(refused.status.as_u16(), 503, "{name}");
        assert_eq!(refused.header("retry-after"), "1", "{name}");
        let line = postern.line("http-request", refused.header("x-request-id")).await?;
        assert_eq!(line["response-code-details"], "upstream-overflow", "{name}");
        assert_eq!(backend.seen().len(), before + 2, "{name}: it got nothing more");
        for request in holding {
            request.abort();
        }
        let again =
            async || browser.visit(world.url(name, "/")).await.ok().filter(|answer| answer.status == 200).map(drop);
        eventually("there is room again", again).await?;
    }
    for (name, limit) in [("requests", "requests"), ("connections", "connections"), ("negotiated", "connections")] {
        let line = format!("postern_edge_upstream_overflows_total{{limit=\"{limit}\",route=\"{name}\"}}");
        assert!(metric(&world, &line).await? >= 1.0, "{line}");
    }
    Ok(())
}

#[tokio::test]
async fn requests_wait_for_a_connection_where_they_may_and_no_longer_than_they_would_for_an_answer() -> Result<()> {
    let world = World::new()?;
    let backend = Backend::plain("a").await?;
    let thresholds = "circuit_breaker_thresholds: {max_connections: 1, max_pending_requests: 1}";
    let route = world.route("app", &backend.url("http", "127.0.0.1")?, &[PUBLIC, &[thresholds]].concat());
    let _postern = Postern::run(&world, &world.config(NO_PROVIDER, &route)).await?;
    let first = held(&world, "app")?;
    eventually("a request is held", async || (backend.seen().len() == 1).then_some(())).await?;
    // One of three waits; there is no room for the others.
    let mut asking = JoinSet::new();
    for _ in 0..3 {
        let (mut browser, url) = (Browser::new(&world.ca_pem())?, world.url("app", "/"));
        asking.spawn(async move { browser.visit(url).await.map(|answer| answer.status.as_u16()) });
    }
    for _ in 0..2 {
        let refused = bounded(DEADLINE, "an answer", asking.join_next()).await?.context("three are asked")???;
        assert_eq!(refused, 503);
    }
    first.abort();
    let waited =
        bounded(DEADLINE, "the one that waited", asking.join_next()).await?.context("three are asked")???;
    assert_eq!(waited, 200);
    Ok(())
}

#[tokio::test]
async fn r_001_who_leaves_waits_for_no_connection_any_more() -> Result<()> {
    let world = World::new()?;
    let backend = Backend::plain("a").await?;
    let thresholds = "circuit_breaker_thresholds: {max_connections: 1, max_pending_requests: 1}";
    let route = world.route("app", &backend.url("http", "127.0.0.1")?, &[PUBLIC, &[thresholds]].concat());
    let _postern = Postern::run(&world, &world.config(NO_PROVIDER, &route)).await?;
    let _first = held(&world, "app")?;
    eventually("a request is held", async || (backend.seen().len() == 1).then_some(())).await?;
    let under_way = async |wanted: f64| {
        let reached =
            async || metric(&world, "postern_edge_requests_in_flight").await.ok().filter(|now| *now == wanted);
        within(Duration::from_secs(10), &format!("{wanted} requests under way"), reached).await
    };
    let over_http2 = held(&world, "app")?;
    under_way(2.0).await.context("HTTP/2")?;
    over_http2.abort();
    under_way(1.0).await.context("HTTP/2 has left")?;
    let mut over_http1 = world.connect("app", &["http/1.1"]).await?;
    over_http1.write_all(format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", world.host("app")).as_bytes()).await?;
    under_way(2.0).await.context("HTTP/1.1")?;
    drop(over_http1);
    under_way(1.0).await.context("HTTP/1.1 has left")?;
    Ok(())
}

#[tokio::test]
async fn connections_to_upstreams_come_from_the_address_that_is_written() -> Result<()> {
    let world = World::new()?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let route = world.route("app", &format!("http://{}", listener.local_addr()?), PUBLIC);
    let settings = format!("{NO_PROVIDER}envoy_bind_config_source_address: 127.0.0.9\n");
    let _postern = Postern::run(&world, &world.config(&settings, &route)).await?;
    let asking = held(&world, "app")?;
    let (_stream, from) = bounded(DEADLINE, "a connection", listener.accept()).await??;
    assert_eq!(from.ip(), Ipv4Addr::new(127, 0, 0, 9));
    asking.abort();
    Ok(())
}

#[tokio::test]
async fn row_outlier_detection_leaves_out_an_endpoint_that_fails_and_takes_it_back() -> Result<()> {
    let world = World::new()?;
    let well = Backend::plain("well").await?;
    let failing = Faulty::start(Fault::Status(500), None, false).await?;
    let to = list(&[format!("http://{}", failing.address()), well.url("http", "127.0.0.1")?]);
    let outliers =
        "outlier_detection: {consecutive_5xx: 3, interval: 0.1s, base_ejection_time: 1s, max_ejection_percent: 50}";
    let routes = world.route("app", &to, &[PUBLIC, &["name: app", outliers]].concat());
    let postern = Postern::run(&world, &world.config(NO_PROVIDER, &routes)).await?;
    let mut browser = Browser::new(&world.ca_pem())?;
    let mut statuses = BTreeMap::new();
    for _ in 0..20 {
        *statuses.entry(browser.visit(world.url("app", "/")).await?.status.as_u16()).or_insert(0) += 1;
    }
    assert_eq!(statuses[&500], 3, "{statuses:?}");
    postern.says("an endpoint is left out for a while").await?;
    let ejections = "postern_edge_upstream_ejections_total{cause=\"consecutive-5xx\",route=\"app\"}";
    assert!((metric(&world, ejections).await? - 1.0).abs() < f64::EPSILON);
    let before = failing.requests();
    failing.set(Fault::None);
    let back = async || {
        browser.visit(world.url("app", "/")).await.ok()?;
        (failing.requests() > before).then_some(())
    };
    eventually("it is asked again", back).await?;
    Ok(())
}

/// A server of `grpc.health.v1` whose service `app` serves, and no other. Its messages are of one field each: a text, a number.
fn grpc_health() -> Router {
    Router::new().route("/grpc.health.v1.Health/Check", post(health))
}

async fn health(request: Request) -> Response {
    let method = service_fn(async |request: tonic::Request<String>| {
        Ok::<_, Status>(tonic::Response::new(if request.into_inner() == "app" { 1 } else { 2 }))
    });
    Grpc::new(ProstCodec::<i32, String>::default()).unary(method, request).await.map(Body::new)
}

#[tokio::test]
async fn row_health_checks_keep_requests_from_endpoints_that_fail_them() -> Result<()> {
    let world = World::new()?;
    world.issue(("a.crt", "a.key"), &["localhost".to_owned()])?;
    let tls = |alpn: &[&'static str]| {
        let (certificate, key) = (world.path("a.crt"), world.path("a.key"));
        acceptor(&Shown { certificate, key, alpn: alpn.to_vec(), ..Shown::default() })
    };
    let at: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
    let healthy = || Router::new().route("/healthz", get(async || "all is well"));
    // Only their health tells them apart.
    let sick = || Router::new().route("/healthz", get(async || (StatusCode::SERVICE_UNAVAILABLE, "not well")));
    let backends = [
        (Backend::tcp("well", at, None, healthy()).await?, Backend::tcp("sick", at, None, sick()).await?, "http"),
        (
            Backend::tcp("well", at, Some(tls(&["h2", "http/1.1"])?), healthy()).await?,
            Backend::tcp("sick", at, Some(tls(&["h2", "http/1.1"])?), sick()).await?,
            "https",
        ),
        (
            Backend::tcp("well", at, None, grpc_health()).await?,
            Backend::tcp("sick", at, None, Router::new()).await?,
            "h2c",
        ),
        (
            Backend::tcp("well", at, Some(tls(&["h2"])?), grpc_health()).await?,
            Backend::tcp("sick", at, Some(tls(&["h2"])?), Router::new()).await?,
            "https",
        ),
    ];
    let often = "timeout: 5s, interval: 0.2s, no_traffic_interval: 0.2s, unhealthy_threshold: 1, healthy_threshold: 1";
    let probes = [
        ("http", "http_health_check: {path: /healthz, receive: [{text: 77656c6c}]}"),
        ("https", "http_health_check: {path: /healthz, codec_client_type: HTTP2}"),
        ("grpc", "grpc_health_check: {service_name: app}"),
        ("grpcs", "grpc_health_check: {service_name: app}"),
    ];
    let mut routes = String::new();
    for ((name, probe), (well, sick, scheme)) in probes.iter().zip(&backends) {
        let to = list(&[well.url(scheme, "localhost")?, sick.url(scheme, "localhost")?]);
        let checks = format!("health_checks: [{{{often}, {probe}}}]");
        let named = format!("name: {name}");
        routes += &world.route(name, &to, &[PUBLIC, &[named.as_str(), checks.as_str()]].concat());
    }
    let settings = format!("{NO_PROVIDER}certificate_authority_file: {}\n", world.path("ca.pem").display());
    let postern = Postern::run(&world, &world.config(&settings, &routes)).await?;
    let mut browser = Browser::new(&world.ca_pem())?;
    for (name, _) in probes {
        let unhealthy = format!("postern_edge_upstream_endpoints{{route=\"{name}\",state=\"unhealthy\"}}");
        let known = async || metric(&world, &unhealthy).await.ok().filter(|count| *count > 0.0);
        let count = eventually(&unhealthy, known).await.with_context(|| postern.told())?;
        assert!((count - 1.0).abs() < f64::EPSILON, "{name}: {count} of two");
        let counts = answered(&mut browser, &world, name, 10).await?;
        assert_eq!(counts, [("well".to_owned(), 10)].into(), "{name}");
    }
    Ok(())
}

#[tokio::test]
async fn row_healthy_panic_threshold_is_the_share_below_which_health_counts_for_nothing() -> Result<()> {
    let world = World::new()?;
    let at: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
    let sick = || Router::new().route("/healthz", get(async || StatusCode::SERVICE_UNAVAILABLE));
    let well = Router::new().route("/healthz", get(async || "well"));
    let well = Backend::tcp("well", at, None, well).await?;
    let (one, two) = (Backend::tcp("sick", at, None, sick()).await?, Backend::tcp("sick", at, None, sick()).await?);
    let [well, one, two] = [&well, &one, &two].map(|backend| backend.url("http", "127.0.0.1"));
    let (half, none) = (list(&[well?, one?]), two?);
    let checks = "health_checks: [{timeout: 5s, interval: 0.2s, no_traffic_interval: 0.2s, unhealthy_threshold: 1, \
                  healthy_threshold: 1, http_health_check: {path: /healthz}}]";
    let route = |name: &str, to: &str, threshold: &str| {
        world.route(name, to, &[PUBLIC, &[format!("name: {name}").as_str(), checks, threshold]].concat())
    };
    let routes = [
        route("usual", &half, "description: fifty in a hundred"),
        route("more", &half, "healthy_panic_threshold: 60"),
        route("none", &none, "description: fifty in a hundred"),
        route("never", &none, "healthy_panic_threshold: 0"),
    ];
    let _postern = Postern::run(&world, &world.config(NO_PROVIDER, &routes.concat())).await?;
    for name in ["usual", "more", "none", "never"] {
        let unhealthy = format!("postern_edge_upstream_endpoints{{route=\"{name}\",state=\"unhealthy\"}}");
        eventually(&unhealthy, async || metric(&world, &unhealthy).await.ok().filter(|count| *count > 0.0)).await?;
    }
    let mut browser = Browser::new(&world.ca_pem())?;
    assert_eq!(answered(&mut browser, &world, "usual", 10).await?, [("well".into(), 10)].into());
    assert_eq!(answered(&mut browser, &world, "more", 10).await?, [("sick".into(), 5), ("well".into(), 5)].into());
    assert_eq!(answered(&mut browser, &world, "none", 5).await?, [("sick".into(), 5)].into());
    assert_eq!(browser.visit(world.url("never", "/")).await?.status.as_u16(), 503);
    Ok(())
}

#[tokio::test]
async fn health_comes_and_goes_and_is_remembered_over_a_reload_that_changes_nothing_of_it() -> Result<()> {
    let world = World::new()?;
    let well = Backend::plain("well").await?;
    let mut other = Faulty::start(Fault::None, None, false).await?;
    let to = list(&[format!("http://{}", other.address()), well.url("http", "127.0.0.1")?]);
    let checks = "health_checks: [{timeout: 5s, interval: 3600s, no_traffic_interval: 3600s, unhealthy_interval: 0.2s, \
                  unhealthy_threshold: 1, healthy_threshold: 1, tcp_health_check: {}}]";
    let never = "healthy_panic_threshold: 0";
    let alone = format!("http://{}", other.address());
    let keys = [PUBLIC, &["name: app", checks, never]].concat();
    let routes = |more: &str| {
        let alone = world.route("alone", &alone, &[PUBLIC, &["name: alone", checks, never]].concat());
        [world.route("app", &to, &keys), alone, more.to_owned()].concat()
    };
    other.kill().await;
    let postern = Postern::run(&world, &world.config(NO_PROVIDER, &routes(""))).await?;
    let unhealthy = |route: &str| format!("postern_edge_upstream_endpoints{{route=\"{route}\",state=\"unhealthy\"}}");
    for route in ["app", "alone"] {
        let known = async || metric(&world, &unhealthy(route)).await.ok().filter(|count| *count > 0.0);
        eventually("it is found dead", known).await?;
    }
    let mut browser = Browser::new(&world.ca_pem())?;
    let refused = browser.visit(world.url("alone", "/")).await?;
    assert_eq!(refused.status.as_u16(), 503);
    let line = postern.line("http-request", refused.header("x-request-id")).await?;
    assert_eq!(line["response-code-details"], "no-healthy-endpoint");

    // Were it forgotten, the first requests after the reload would go there.
    world.write_config(
        &world.config(NO_PROVIDER, &routes(&world.route("new", &well.url("http", "127.0.0.1")?, PUBLIC))),
    )?;
    let new = async || browser.visit(world.url("new", "/")).await.ok().filter(|answer| answer.status == 200).map(drop);
    eventually("the new configuration is in force", new).await?;
    let mut browser = Browser::new(&world.ca_pem())?;
    assert_eq!(browser.visit(world.url("alone", "/")).await?.status.as_u16(), 503, "nothing was forgotten");

    other.revive().await?;
    let back =
        async || browser.visit(world.url("alone", "/")).await.ok().filter(|answer| answer.status == 200).map(drop);
    eventually("it is taken back", back).await?;
    postern.says("an endpoint is healthy again").await
}
