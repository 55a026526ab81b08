//! What is written of an exchange, and what is not.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Mutex, OnceLock};

use postern_edge::{AccessField, AuthorizeField};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

use crate::support::{World, WorldBuilder, until};

type Line = BTreeMap<String, String>;

/// Every access and authorize event of this process; tests find theirs by request id.
fn lines() -> &'static Mutex<Vec<(String, Line)>> {
    static LINES: OnceLock<Mutex<Vec<(String, Line)>>> = OnceLock::new();
    LINES.get_or_init(|| {
        let _only_here = tracing::subscriber::set_global_default(tracing_subscriber::registry().with(Keep));
        Mutex::default()
    })
}

struct Keep;

impl<S: Subscriber> Layer<S> for Keep {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        if event.metadata().target().starts_with("postern::") {
            let mut line = Fields::default();
            event.record(&mut line);
            lines().lock().unwrap().push((event.metadata().target().to_owned(), line.0));
        }
    }
}

#[derive(Default)]
struct Fields(Line);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.to_owned());
    }
}

async fn line(target: &str, id: &str) -> Line {
    let find = || {
        let lines = lines().lock().unwrap();
        lines
            .iter()
            .find(|(name, line)| name == target && line.get("request-id").is_some_and(|it| it == id))
            .map(|(_, line)| line.clone())
    };
    until("the line is written", || find().is_some()).await;
    find().unwrap()
}

#[tokio::test]
async fn each_exchange_leaves_one_access_and_one_authorize_line() {
    lines();
    let world = World::new().await;
    let mut wire = world.wire().await;
    wire.send("GET /a/../b?secret=1 HTTP/1.1\r\nHost: App.localhost\r\nUser-Agent: test\r\nReferer: https://a.example/x?code=1\r\n\r\n").await;
    let response = wire.response().await.unwrap();
    let id = response.field("x-request-id").unwrap();
    let access = line("postern::access", id).await;
    let is = |name: &str, value: &str| assert_eq!(access.get(name).map(String::as_str), Some(value), "{access:?}");
    is("message", "http-request");
    is("method", "GET");
    is("authority", "app.localhost");
    is("path", "/b");
    is("user-agent", "test");
    is("referer", "https://a.example/x");
    is("response-code", "200");
    is("response-code-details", "via-upstream");
    is("upstream-cluster", "route-app");
    is("size", "5");
    is("forwarded-for", "127.0.0.1");
    assert!(!access.contains_key("query"), "not by default");
    let authorize = line("postern::authorize", id).await;
    assert_eq!(authorize.get("message").map(String::as_str), Some("authorize check"));
    assert_eq!(authorize.get("allow").map(String::as_str), Some("true"));
    assert_eq!(authorize.get("allow-why-true").map(String::as_str), Some("[\"accept\"]"));
    assert_eq!(authorize.get("route-id").map(String::as_str), Some("route-app"));
    let (route, status) = (("route", "app"), ("status", "200"));
    assert_eq!(world.metric("postern_edge_requests_total", &[route, status, ("method", "GET")]), 1.0);
    assert_eq!(
        world.metric("postern_edge_decisions_total", &[route, ("decision", "allow"), ("reason", "accept")]),
        1.0
    );
}

#[tokio::test]
async fn s_108_no_secret_is_written_whatever_is_asked_for() {
    lines();
    let world = WorldBuilder::new()
        .await
        .change(|config| {
            let names = AccessField::NAMES.iter().chain(&[
                "headers.Cookie",
                "headers.Authorization",
                "headers.X-Pomerium-Authorization",
            ]);
            config.logs.access = names.filter_map(|name| AccessField::parse(name)).collect();
            config.logs.authorize =
                AuthorizeField::NAMES.iter().filter_map(|name| AuthorizeField::parse(name)).collect();
        })
        .start();
    let mut wire = world.wire().await;
    let paths = [
        "/",
        "/?pomerium_session=MARKED",
        "/?%70omerium%5fsession=MARKED",
        "/.pomerium/user?code=MARKED",
        "/.pomerium/sign_out?state=MARKED",
    ];
    for path in paths {
        wire.send(format!(
            "GET {path} HTTP/1.1\r\nHost: app.localhost\r\nCookie: _pomerium=MARKED\r\nAuthorization: Bearer Pomerium-MARKED\r\nX-Pomerium-Authorization: MARKED\r\nReferer: https://a.example/?code=MARKED\r\n\r\n"
        ))
        .await;
        let response = wire.response().await.unwrap();
        line("postern::access", response.field("x-request-id").unwrap()).await;
    }
    let all = format!("{:?}", lines().lock().unwrap());
    assert!(!all.contains("MARKED"), "{all}");
}

#[tokio::test]
async fn r_032_a_refusal_has_one_reason_code_for_log_metric_and_client() {
    lines();
    let world = World::new().await;
    let mut wire = world.wire().await;
    wire.send("POST / HTTP/1.1\r\nHost: app.localhost\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await;
    let response = wire.response().await.unwrap();
    let access = line("postern::access", response.field("x-request-id").unwrap()).await;
    assert_eq!(access.get("response-code-details").map(String::as_str), Some("two-framings"), "{access:?}");
    assert!(!access.contains_key("method"), "the synthetic head is nobody's: {access:?}");
    assert_eq!(world.metric("postern_edge_refusals_total", &[("reason", "two-framings")]), 1.0);
}
