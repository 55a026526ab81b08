//! Who was refused, who reads the log and who asks `explain` are told the same reason.

use anyhow::{Context, Result};
use reqwest::StatusCode;
use serde_json::Value;

use crate::support::{Browser, Postern, Provider, Upstream, World, eventually};

/// Policies that refuse alice, each for a reason of its own.
const REFUSING: &[(&str, &str, &str)] = &[
    ("group", "policy: [{ allow: { and: [{ claim/groups: { has: nobody } }] } }]", "claim-unauthorized"),
    ("email", "policy: [{ allow: { and: [{ email: { is: carol@example.org } }] } }]", "email-unauthorized"),
    (
        "here",
        "policy: [{ allow: { and: [{ authenticated_user: true }, { source_ip: 10.0.0.0/8 }] } }]",
        "source-ip-unauthorized",
    ),
    (
        "domain",
        "policy: [{ allow: { or: [{ domain: { is: example.org } }, { user: nobody }] } }]",
        "domain-unauthorized",
    ),
    (
        "nobody",
        "policy: [{ allow: { or: [{ accept: true }] } }, { deny: { or: [{ email: alice@example.com }] } }]",
        "denied",
    ),
];

#[tokio::test]
async fn page_log_and_explain_name_the_same_reason() -> Result<()> {
    let world = World::new()?;
    let (upstream, provider) = (Upstream::start().await?, Provider::start(&world, Some("alice"))?);
    let routes = REFUSING.iter().map(|(name, policy, _)| world.route(name, &upstream.url(), &[*policy]));
    let config = world.config(&provider.settings(), &routes.collect::<String>());
    let postern = Postern::run(&world, &config).await?;
    let mut browser = Browser::new(&world.ca_pem())?;
    for (name, _, reason) in REFUSING {
        let url = world.url(name, "/");
        let page = browser.visit(&url).await?;
        assert_eq!(page.status, StatusCode::FORBIDDEN, "{name}: {page:?}\n{}", postern.told());
        assert!(page.body.contains(reason), "{name}: the page does not say {reason}: {}", page.body);

        let id = page.header("x-request-id").to_owned();
        let record = async |message: &str| {
            let found = eventually(message, async || {
                let mut lines = postern.log().into_iter();
                lines.find(|line| text(line, "message") == message && text(line, "request-id") == id)
            });
            found.await.with_context(|| postern.told())
        };
        assert_eq!(text(&record("http-request").await?, "response-code-details"), *reason, "{name}");
        let authorize = record("authorize check").await?;

        let told = explain(&world, &url, &["--email", "alice@example.com", "--user", "alice"])?;
        assert_eq!((text(&told, "reason"), text(&told, "outcome")), (*reason, "refused"), "{name}: {told:#}");
        for half in ["allow", "deny"] {
            let why = told.pointer(&format!("/policy/{half}/reasons")).context("reasons")?;
            let key = format!("{half}-why-{}", authorize.get(half).context("half")?);
            assert_eq!(authorize.get(&key), Some(why), "{name}: {authorize:#}");
        }
        assert_eq!(told.pointer("/route/id"), authorize.get("route-id"), "{name}");
    }
    Ok(())
}

/// What `explain --format json` says, which ends as it says.
fn explain(world: &World, url: &str, who: &[&str]) -> Result<Value> {
    let config = world.path("config.yaml").display().to_string();
    let asked = ["explain", "--config", &config, "--url", url, "--format", "json"];
    let finished = Postern::once(world.folder(), &[&asked, who].concat())?;
    let told: Value = serde_json::from_str(&finished.stdout).with_context(|| finished.told())?;
    let refused = !["allowed", "answered"].contains(&text(&told, "outcome"));
    anyhow::ensure!(finished.status.code() == Some(i32::from(refused)), "{}", finished.told());
    Ok(told)
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}
