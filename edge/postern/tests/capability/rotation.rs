//! The shared secret is replaced, and nobody is signed out by it.

use anyhow::{Context, Result};
use reqwest::StatusCode;
use serde_json::Value;

use crate::support::{ANY_USER, Browser, Postern, Provider, SHARED_SECRET, Upstream, World};

const NEW: &str = "ZjEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// An application behind Postern, and what of the configuration stays.
struct Office {
    world: World,
    provider: Provider,
    text: String,
    _upstream: Upstream,
}

impl Office {
    async fn start() -> Result<Self> {
        let world = World::new()?;
        let (upstream, provider) = (Upstream::start().await?, Provider::start(&world, None)?);
        let routes = ["app", "wiki"].map(|name| world.route(name, &upstream.url(), ANY_USER)).concat();
        let text = world.config(&provider.settings(), &routes);
        Ok(Self { world, provider, text, _upstream: upstream })
    }

    /// Postern with that secret in force, and those beside it.
    async fn with(&self, in_force: &str, accepted: &[&str]) -> Result<Postern> {
        let list = format!("shared_secrets_accepted: [{}]", accepted.join(", "));
        let text = self
            .text
            .replace(&format!("shared_secret: {SHARED_SECRET}"), &format!("shared_secret: {in_force}\n{list}"));
        Postern::run(&self.world, &text).await
    }

    async fn sign_in(&self, user: &str) -> Result<Browser> {
        let mut browser = Browser::new(&self.world.ca_pem())?;
        let page = browser.visit(&self.world.url("app", "/")).await?;
        let page = browser.submit(&page, "Sign in", &[("user", user)]).await?;
        anyhow::ensure!(page.status == StatusCode::OK, "{user}: {page:?}");
        Ok(browser)
    }

    async fn is_in(&self, browser: &mut Browser) -> Result<bool> {
        Ok(browser.peek(&self.world.url("app", "/")).await?.status == StatusCode::OK)
    }

    /// The users of all sessions, and the keys that are published for upstreams.
    async fn told(&self, browser: &mut Browser) -> Result<(Vec<String>, usize)> {
        let config = self.world.path("config.yaml").display().to_string();
        let asked = ["sessions", "list", "--config", &config, "--format", "json"];
        let finished = Postern::once(self.world.folder(), &asked)?;
        let told: Value = serde_json::from_str(&finished.stdout).with_context(|| finished.told())?;
        let listed = told.get("sessions").and_then(Value::as_array).context("sessions")?;
        let mut users: Vec<_> =
            listed.iter().filter_map(|line| line.get("user")?.as_str()).map(str::to_owned).collect();
        users.sort_unstable();
        let set: Value = browser.peek(&self.world.url("app", "/.well-known/pomerium/jwks.json")).await?.json()?;
        Ok((users, set.get("keys").and_then(Value::as_array).context("keys")?.len()))
    }

    /// Sign-ins that the provider was asked for.
    async fn sign_ins(&self) -> Result<usize> {
        let log = self.provider.log().await?;
        let asked = log.get("requests").and_then(Value::as_array).context("requests")?.iter();
        Ok(asked.filter(|asked| asked.get("target").is_some_and(|at| at == "/token")).count())
    }
}

#[tokio::test]
async fn s_111_a_secret_is_replaced_in_three_steps_and_nobody_signs_in_again() -> Result<()> {
    let office = Office::start().await?;
    let postern = office.with(SHARED_SECRET, &[]).await?;
    let mut alice = office.sign_in("alice").await?;
    postern.kill().await?;

    let postern = office.with(SHARED_SECRET, &[NEW]).await?;
    assert!(office.is_in(&mut alice).await?, "{}", postern.told());
    let mut bob = office.sign_in("bob").await?;
    assert_eq!(office.told(&mut alice).await?, (vec!["alice".to_owned(), "bob".to_owned()], 2));
    postern.kill().await?;

    let postern = office.with(NEW, &[SHARED_SECRET]).await?;
    let asked = office.sign_ins().await?;
    for browser in [&mut alice, &mut bob] {
        assert!(office.is_in(browser).await?, "{}", postern.told());
        // Another host gets a cookie of its own for the same session.
        let page = browser.visit(&office.world.url("wiki", "/")).await?;
        assert_eq!(page.status, StatusCode::OK, "{page:?}\n{}", postern.told());
    }
    assert_eq!(office.sign_ins().await?, asked, "the provider was not asked");
    let mut carol = office.sign_in("carol").await?;
    let users = ["alice", "bob", "carol"].map(str::to_owned).to_vec();
    assert_eq!(office.told(&mut alice).await?, (users, 2), "{}", postern.told());
    postern.kill().await?;

    let postern = office.with(NEW, &[]).await?;
    assert!(office.is_in(&mut carol).await?, "{}", postern.told());
    assert!(!office.is_in(&mut alice).await? && !office.is_in(&mut bob).await?, "the old secret is gone");
    Ok(())
}

#[tokio::test]
async fn s_111_a_service_account_is_good_as_long_as_its_secret_is_accepted() -> Result<()> {
    let office = Office::start().await?;
    let run = |words: &[&str]| -> Result<Value> {
        let config = office.world.path("config.yaml").display().to_string();
        let all = [&["service-accounts"], words, &["--config", &config, "--format", "json"]].concat();
        let finished = Postern::once(office.world.folder(), &all)?;
        serde_json::from_str(&finished.stdout).with_context(|| finished.told())
    };
    let made = |name| -> Result<(String, String)> {
        let made = run(&["create", name, "--user", "ci", "--never"])?;
        let text = |key| made.get(key).and_then(Value::as_str).map(str::to_owned).context("a text");
        Ok((text("service_account")?, text("token")?))
    };
    let asks = async |token: &str| -> Result<StatusCode> {
        let mut program = Browser::new(&office.world.ca_pem())?;
        let request = program.request(reqwest::Method::GET, office.world.url("app", "/"));
        Ok(program.send(request.header("authorization", format!("Pomerium {token}"))).await?.status)
    };
    let postern = office.with(SHARED_SECRET, &[]).await?;
    let (old, deleted) = (made("old")?, made("deleted")?);
    assert_eq!((asks(&old.1).await?, asks(&deleted.1).await?), (StatusCode::OK, StatusCode::OK), "{}", postern.told());
    postern.kill().await?;

    let postern = office.with(NEW, &[SHARED_SECRET]).await?;
    let new = made("new")?;
    assert_eq!((asks(&old.1).await?, asks(&new.1).await?), (StatusCode::OK, StatusCode::OK), "{}", postern.told());
    let listed = run(&["list", "--user", "ci"])?;
    assert_eq!(listed.get("service_accounts").and_then(Value::as_array).map(Vec::len), Some(3), "{listed}");
    run(&["delete", &deleted.0])?;
    assert_eq!(asks(&deleted.1).await?, StatusCode::UNAUTHORIZED);
    postern.kill().await?;

    let postern = office.with(NEW, &[]).await?;
    assert_eq!(
        (asks(&old.1).await?, asks(&new.1).await?),
        (StatusCode::UNAUTHORIZED, StatusCode::OK),
        "{}",
        postern.told()
    );
    Ok(())
}
