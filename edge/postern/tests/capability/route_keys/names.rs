//! What a route is called, and whose requests it takes (01 §2.1 to §2.3).

use anyhow::{Context, Result};

use super::{Answer, is_refused, open, with};
use crate::support::{PUBLIC, Postern, World, eventually, plain_client};

#[tokio::test]
async fn row_name_is_what_lists_and_metrics_call_a_route() -> Result<()> {
    let lines = ["name: The shop", "description: Where things are sold", "logo_url: https://shop.example.com/logo.svg"];
    let office = open("", &[("shop", &lines), ("other", &[])]).await?;
    for name in ["shop", "other"] {
        assert_eq!(office.get(name, "/", "").await?.status, 200, "{name}");
    }
    let url = format!("http://127.0.0.1:{}/metrics", office.world.metrics);
    eventually("both requests in the metrics", async || {
        let text = plain_client().ok()?.get(&url).send().await.ok()?.text().await.ok()?;
        let mut counted = text.lines().filter(|line| line.starts_with("postern_edge_requests_total{"));
        // Who has no name is called by where it is.
        let other = format!("route=\"{}\"", office.world.host("other"));
        let both = [
            counted.clone().any(|line| line.contains("route=\"The shop\"")),
            counted.any(|line| line.contains(&other)),
        ];
        (both == [true, true]).then_some(())
    })
    .await?;
    let config = office.world.path("config.yaml").display().to_string();
    let listed = Postern::once(office.world.folder(), &["routes", &config])?;
    assert!(listed.stdout.contains("The shop"), "{}", listed.told());
    let checked = Postern::once(office.world.folder(), &["check", &config])?;
    assert!(checked.told().contains("logo_url") && !checked.told().contains("description"), "{}", checked.told());
    Ok(())
}

/// A public route from there, which says upstream that it is this one.
fn from(url: &str, to: &str, mark: &str, more: &str) -> String {
    let public = PUBLIC.join("\n    ");
    format!("  - from: {url}\n    to: {to}\n    {public}\n    set_request_headers: {{X-Route: {mark}}}\n{more}")
}

/// Which of the routes carried it; nothing where none did.
fn carried(answer: &Answer) -> String {
    let asked = answer.asked().ok();
    asked.and_then(|asked| asked.header("x-route").map(str::to_owned)).unwrap_or_default()
}

#[tokio::test]
async fn row_from_says_which_hosts_a_route_is_for() -> Result<()> {
    let office = with("", |world, to| {
        let domain = World::DOMAIN;
        let names = ["*", "*.wild", "*.b.wild", "*.porty"].map(|name| format!("{name}.{domain}"));
        // A connection for each name is to have a certificate of that name.
        let issued = world.issue(("certificate.pem", "key.pem"), &names);
        assert!(issued.is_ok(), "{issued:?}");
        let web = to.replace("http://", "tcp://");
        [
            from(&format!("https://any.{domain}"), to, "any", ""),
            from(&format!("https://default.{domain}:443/"), to, "default", ""),
            from(&format!("http://plain.{domain}"), to, "plain", ""),
            from(&format!("https://ported.{domain}:8444"), to, "ported", ""),
            from("https://CASE.Corp.LocalHost", to, "case", ""),
            from(&format!("https://*.wild.{domain}"), to, "wild", ""),
            from(&format!("https://exact.wild.{domain}"), to, "exact", "    prefix: /here\n"),
            from(&format!("https://in-*-side.{domain}"), to, "inside", ""),
            from(&format!("https://*.porty.{domain}:8444"), to, "porty", ""),
            format!("  - from: tcp+https://proxy.{domain}/db.internal:5432\n    to: {web}\n    {}\n", PUBLIC[0]),
            format!("  - from: tcp+https://db.{domain}:5432\n    to: {web}\n    {}\n", PUBLIC[0]),
        ]
        .concat()
    })
    .await?;
    for (name, port, target, expected) in [
        ("any", "", "/", "any"),
        ("any", ":443", "/", "any"),
        ("any", ":9999", "/", "any"),
        // A port that is the default one anyway says nothing.
        ("default", ":9999", "/", "default"),
        ("plain", ":9999", "/", "plain"),
        ("ported", ":8444", "/", "ported"),
        ("ported", ":8445", "/", ""),
        ("ported", "", "/", ""),
        ("case", "", "/", "case"),
        ("cAsE", "", "/", "case"),
        ("a.wild", "", "/", "wild"),
        ("a.wild", ":9999", "/", "wild"),
        ("a.b.wild", "", "/", "wild"),
        ("exact.wild", "", "/here", "exact"),
        // A host that is named has its own routes alone (01 §2.3).
        ("exact.wild", "", "/", ""),
        ("in-a-side", "", "/", "inside"),
        ("in--side", "", "/", "inside"),
        ("xin-a-side", "", "/", ""),
        ("a.porty", ":8444", "/", "porty"),
        ("a.porty", "", "/", ""),
        ("proxy", "", "/", ""),
        ("db", ":5432", "/", ""),
        ("nobody", "", "/", ""),
    ] {
        let host = format!("{name}.{}{port}", World::DOMAIN);
        let answer = office.send(name, &format!("GET {target}"), &format!("Host: {host}\r\n")).await?;
        let was = carried(&answer);
        assert_eq!(was, expected, "{host}{target}: {}\n{}", answer.head, answer.body);
        if expected.is_empty() {
            assert_eq!(answer.status, 404, "{host}{target}: {}", answer.head);
        }
    }
    for (name, authority, status) in [
        ("proxy", "db.internal:5432".to_owned(), 200),
        ("db", format!("db.{}:5432", World::DOMAIN), 200),
        ("db", format!("db.{}:5433", World::DOMAIN), 405),
        ("any", format!("any.{}:443", World::DOMAIN), 405),
    ] {
        let request = format!(
            "CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\nGET /inside HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        );
        let answer = office.world.exchange(name, &request).await?;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{authority}: {answer}");
        assert_eq!(answer.contains("\"/inside\""), status == 200, "{authority}: {answer}");
    }
    for odd in ["https://a.example.com/path", "a.example.com", "https://", "''"] {
        is_refused(&office.world, &from(odd, &office.upstream.url(), "odd", ""), "from")
            .with_context(|| odd.to_owned())?;
    }
    Ok(())
}

#[tokio::test]
async fn row_from_insists_on_its_port_where_a_flag_says_so() -> Result<()> {
    let settings = "runtime_flags: {match_any_incoming_port: false}\n";
    let office = with(settings, |_, to| {
        let url = |name: &str| format!("https://{name}.{}", World::DOMAIN);
        [from(&url("app"), to, "app", ""), from(&url("a-*"), to, "wild", "")].concat()
    })
    .await?;
    for (name, port, expected) in [
        ("app", "", "app"),
        ("app", ":443", "app"),
        ("app", ":8443", ""),
        ("a-b", "", "wild"),
        ("a-b", ":443", "wild"),
        ("a-b", ":8443", ""),
    ] {
        let answer = office.send(name, "GET /", &format!("Host: {name}.{}{port}\r\n", World::DOMAIN)).await?;
        assert_eq!(carried(&answer), expected, "{name}{port}: {}", answer.head);
    }
    Ok(())
}

#[tokio::test]
async fn row_tls_downstream_server_name_is_a_host_of_our_own_paths_alone() -> Result<()> {
    let office = with("", |world, to| {
        let named = format!("tls_downstream_server_name: extra.{}", World::DOMAIN);
        [
            world.route("app", to, &[PUBLIC, &[named.as_str()]].concat()),
            from(&format!("https://*.{}", World::DOMAIN), to, "wild", ""),
        ]
        .concat()
    })
    .await?;
    for (name, target, status) in
        [("other", "/", 200), ("extra", "/ping", 200), ("extra", "/.well-known/pomerium", 200), ("extra", "/", 404)]
    {
        let answer =
            office.send(name, &format!("GET {target}"), &format!("Host: {name}.{}\r\n", World::DOMAIN)).await?;
        assert_eq!(answer.status, status, "{name}{target}: {}", answer.head);
    }
    office.is_refused(&["tls_downstream_server_name: '*.example.com'"], "tls_downstream_server_name")
}
