//! Routes that answer by themselves (01 §2.8).

use anyhow::Result;

use super::with;
use crate::support::{PUBLIC, World};

#[tokio::test]
async fn row_redirect_makes_an_address_of_the_one_that_was_asked_for() -> Result<()> {
    // The route, what it says, whose port is asked for, the target, the status, and the address; `P` is the port of the listener.
    const CASES: &[(&str, &str, &str, &str, u16, &str)] = &[
        ("https", "{https_redirect: true}", "P", "/x?q=1", 301, "https://https.H:P/x?q=1"),
        ("scheme", "{scheme_redirect: http}", "P", "/x", 301, "http://scheme.H:P/x"),
        ("both", "{https_redirect: true, scheme_redirect: http}", "P", "/x", 301, "https://both.H:P/x"),
        ("off", "{https_redirect: false, scheme_redirect: http, host_redirect: h}", "P", "/x", 301, "https://h/x"),
        ("host", "{host_redirect: there.example}", "P", "/x?q", 301, "https://there.example/x?q"),
        ("hosted", "{host_redirect: 'there.example:81'}", "P", "/", 301, "https://there.example:81/"),
        ("port", "{port_redirect: 8443}", "P", "/x", 301, "https://port.H:8443/x"),
        ("ports", "{host_redirect: there.example, port_redirect: 81}", "P", "/", 301, "https://there.example:81/"),
        ("path", "{path_redirect: /new}", "P", "/x?q=1", 301, "https://path.H:P/new?q=1"),
        ("paths", "{path_redirect: /new, prefix_rewrite: /no}", "P", "/x", 301, "https://paths.H:P/new"),
        ("prefix", "{prefix_rewrite: /v2/}\n    prefix: /v1/", "P", "/v1/a?q", 301, "https://prefix.H:P/v2/a?q"),
        ("strip", "{host_redirect: h, strip_query: true}", "P", "/x?q=1", 301, "https://h/x"),
        ("two", "{host_redirect: h, response_code: 302}", "P", "/", 302, "https://h/"),
        ("three", "{host_redirect: h, response_code: 303}", "P", "/", 303, "https://h/"),
        ("seven", "{host_redirect: h, response_code: 307}", "P", "/", 307, "https://h/"),
        ("eight", "{host_redirect: h, response_code: 308}", "P", "/", 308, "https://h/"),
        ("first", "{host_redirect: h}\n    response: {status: 200}", "P", "/", 301, "https://h/"),
        // The port of the request goes with a scheme of which it was the default.
        ("bare", "{scheme_redirect: http}", "443", "/x", 301, "http://bare.H/x"),
        ("kept", "{scheme_redirect: http}", "8443", "/x", 301, "http://kept.H:8443/x"),
    ];
    let office = with("set_response_headers: {X-Everywhere: ours}\n", |world, to| {
        let line = |(name, redirect, ..): &(&str, &str, &str, &str, u16, &str)| {
            format!(
                "  - from: https://{name}.{}\n    to: {to}\n    allow_public_unauthenticated_access: true\n    redirect: {redirect}\n",
                World::DOMAIN
            )
        };
        let nobody = world.route("nobody", to, &["redirect: {host_redirect: h}", "policy: []"]);
        let people = world.route("people", to, &["redirect: {host_redirect: h}", "allow_any_authenticated_user: true"]);
        CASES.iter().map(line).chain([nobody, people]).collect()
    })
    .await?;
    let own = office.world.port.to_string();
    for (name, redirect, port, target, status, address) in CASES {
        let host = format!("{name}.{}:{}", World::DOMAIN, port.replace('P', &own));
        let answer = office.send(name, &format!("GET {target}"), &format!("Host: {host}\r\n")).await?;
        let expected = address.replace(":P", &format!(":{own}")).replace(".H", &format!(".{}", World::DOMAIN));
        assert_eq!((answer.status, answer.field("location")), (*status, Some(&*expected)), "{redirect}");
        assert_eq!(answer.field("x-everywhere"), Some("ours"), "{}", answer.head);
    }
    // It is for whom the policy lets in, as any other answer is.
    assert_eq!(office.get("nobody", "/", "").await?.status, 403);
    let answer = office.get("people", "/", "Accept: text/html\r\n").await?;
    let sign_in = office.world.url("authenticate", "/.pomerium/sign_in");
    assert!(answer.field("location").is_some_and(|to| to.starts_with(&sign_in)), "{}", answer.head);
    assert_eq!(office.upstream.seen().len(), 0, "`to` is not asked");
    office.is_refused(&["redirect: {response_code: 304}"], "redirect.response_code")
}

#[tokio::test]
async fn row_response_is_the_whole_answer() -> Result<()> {
    let settings = "set_response_headers: {X-Everywhere: ours, X-Own: file}\n";
    let office = with(settings, |world, to| {
        let response = |name: &str, response: &str, policy: &str| world.route(name, to, &[response, policy]);
        let down = "response: {status: 503, body: \"Down for an hour.\\n\"}\n    set_response_headers: {X-Own: route}";
        [
            response("down", down, PUBLIC[0]),
            response("empty", "response: {status: 204}", PUBLIC[0]),
            response("bare", "response: {status: 410}", PUBLIC[0]),
            response("nobody", "response: {status: 200}", "policy: []"),
        ]
        .concat()
    })
    .await?;
    let answer = office.get("down", "/any/path?at=all", "").await?;
    assert_eq!((answer.status, answer.body.as_str()), (503, "Down for an hour.\n"), "{}", answer.head);
    assert_eq!((answer.field("x-everywhere"), answer.field("x-own")), (Some("ours"), Some("route")), "{}", answer.head);
    assert!(answer.field("content-type").is_some_and(|kind| kind.starts_with("text/plain")), "{}", answer.head);
    let head = office.send("down", "HEAD /", &format!("Host: {}\r\n", office.world.host("down"))).await?;
    assert_eq!((head.status, head.body.as_str()), (503, ""), "{}", head.head);
    for (name, status) in [("empty", 204), ("bare", 410)] {
        let answer = office.get(name, "/", "").await?;
        assert_eq!((answer.status, answer.body.as_str()), (status, ""), "{}", answer.head);
    }
    assert_eq!(office.get("nobody", "/", "").await?.status, 403, "it is for whom the policy lets in");
    assert_eq!(office.upstream.seen().len(), 0, "`to` is not asked");
    for status in ["199", "600"] {
        office.is_refused(&[&format!("response: {{status: {status}}}")], "response.status")?;
    }
    Ok(())
}
