//! Who holds the secret of a deployment may ask it about a session, and nobody else.

use std::fs;

use anyhow::{Context, Result};
use reqwest::StatusCode;
use serde_json::Value;

use crate::support::{
    Browser, Finished, NO_PROVIDER, PUBLIC, Postern, Provider, SHARED_SECRET, Upstream, World, eventually, plain_client,
};

const OTHER_SECRET: &str = "ZjEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

#[tokio::test]
async fn s_081_a_live_session_is_explained_by_its_name_to_who_holds_the_secret_alone() -> Result<()> {
    let world = World::new()?;
    let (upstream, provider) = (Upstream::start().await?, Provider::start(&world, Some("alice"))?);
    let policy = "policy: [{ allow: { and: [{ email: alice@example.com }] } }]";
    let text = world.config(&provider.settings(), &world.route("app", &upstream.url(), &[policy]));
    let postern = Postern::run(&world, &text).await?;
    let mut browser = Browser::new(&world.ca_pem())?;
    let page = browser.visit(&world.url("app", "/")).await?;
    assert_eq!(page.status, StatusCode::OK, "{page:?}\n{}", postern.told());
    let session = eventually("the session in the log", async || {
        let mut lines = postern.log().into_iter();
        lines.find_map(|line| {
            line.get("session-id").and_then(Value::as_str).filter(|id| id.len() == 43).map(str::to_owned)
        })
    })
    .await?;

    let config = world.path("config.yaml").display().to_string();
    let url = world.url("app", "/");
    let explain = |config: &str, more: &[&str]| {
        let asked = ["explain", "--config", config, "--url", &url, "--format", "json"];
        Postern::once(world.folder(), &[&asked, more].concat())
    };
    let told = explain(&config, &["--session", &session])?;
    assert_eq!(told.status.code(), Some(0), "{}\n{}", told.told(), postern.told());
    let answer: Value = serde_json::from_str(&told.stdout).with_context(|| told.told())?;
    assert_eq!(answer.pointer("/subject/email"), Some(&Value::from("alice@example.com")), "{answer:#}");
    assert_eq!(answer.pointer("/outcome"), Some(&Value::from("allowed")), "{answer:#}");
    for secret in ["refresh", "access_token", SHARED_SECRET] {
        assert!(!told.stdout.contains(secret), "{secret}: {}", told.told());
    }

    let with = |name: &str, text: String| -> Result<String> {
        let path = world.path(name);
        fs::write(&path, text)?;
        Ok(path.display().to_string())
    };
    let other = with("other.yaml", text.replace(SHARED_SECRET, OTHER_SECRET))?;
    let line = text.lines().find(|line| line.contains(SHARED_SECRET)).context("the secret's line")?;
    let without = with("without.yaml", text.replace(&format!("{line}\n"), ""))?;
    let unknown = format!("A{}", session.get(1..).unwrap_or_default());
    let refused = |finished: Finished, code: i32, why: &str| {
        assert_eq!(finished.status.code(), Some(code), "{why}: {}", finished.told());
        assert!(finished.stderr.contains(why) && finished.stdout.is_empty(), "{why}: {}", finished.told());
    };
    refused(explain(&other, &["--session", &session])?, 1, "does not prove");
    refused(explain(&without, &["--session", &session])?, 1, "no `shared_secret` is configured");
    refused(explain(&config, &["--session", &unknown])?, 1, "no such session");
    refused(explain(&config, &["--session", "alice"])?, 2, "--session");
    refused(explain(&config, &["--session", &session, "--user", "u"])?, 2, "--user");
    refused(explain(&config, &["--session", &session, "--address", "127.0.0.1:9"])?, 3, "nothing answers");

    let client = plain_client()?;
    let face = format!("http://127.0.0.1:{}/operator/session", world.health);
    let nobody = client.post(&face).body(format!("{{\"names\":[\"{session}\"]}}")).send().await?;
    assert_eq!(nobody.status(), StatusCode::FORBIDDEN);
    assert!(!nobody.text().await?.contains("alice"));
    assert_eq!(client.get(&face).send().await?.status(), StatusCode::METHOD_NOT_ALLOWED);
    for name in ["origin", "x-forwarded-for", "via"] {
        let passed_on = client.post(&face).header(name, "x").send().await?;
        assert_eq!(passed_on.status(), StatusCode::FORBIDDEN, "{name}");
        assert!(passed_on.text().await?.contains("same machine"), "{name}");
    }
    postern.says("somebody on this machine asked").await
}

#[tokio::test]
async fn without_a_configured_secret_a_running_postern_tells_nobody_of_sessions() -> Result<()> {
    let world = World::new()?;
    let text = world.config(NO_PROVIDER, &world.route("app", "http://127.0.0.1:9", PUBLIC));
    let line = text.lines().find(|line| line.contains(SHARED_SECRET)).context("the secret's line")?;
    let _postern = Postern::run(&world, &text.replace(&format!("{line}\n"), "")).await?;
    let path = world.path("with.yaml");
    fs::write(&path, &text)?;
    let name = "A".repeat(43);
    let asked =
        ["explain", "--config", &path.display().to_string(), "--url", &world.url("app", "/"), "--session", &name];
    let finished = Postern::once(world.folder(), &asked)?;
    assert_eq!(finished.status.code(), Some(1), "{}", finished.told());
    assert!(finished.stderr.contains("no `shared_secret` in its configuration"), "{}", finished.told());
    Ok(())
}
