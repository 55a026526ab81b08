//! Who holds the secret of a deployment lists its sessions and ends them, and they are over at once.

use anyhow::{Context, Result};
use postern_servers::Redis;
use reqwest::StatusCode;
use serde_json::Value;

use crate::support::{
    ANY_USER, Browser, Finished, Postern, Provider, SHARED_SECRET, Upstream, World, eventually, free_port,
    plain_client, with_store,
};

/// A running Postern with a store of its own, an application, and a provider that signs anybody in whom a form names.
struct Deployment {
    world: World,
    provider: Provider,
    postern: Postern,
    config: String,
    _upstream: Upstream,
    _redis: Option<Redis>,
}

impl Deployment {
    async fn with_a_file() -> Result<Self> {
        Self::start(None).await
    }

    async fn with_redis() -> Result<Self> {
        Self::start(Some(Redis::start(&[]))).await
    }

    async fn start(redis: Option<Redis>) -> Result<Self> {
        let world = World::new()?;
        let (upstream, provider) = (Upstream::start().await?, Provider::start(&world, None)?);
        let text = world.config(&provider.settings(), &world.route("app", &upstream.url(), ANY_USER));
        let text = match &redis {
            None => text,
            Some(redis) => with_store(&world, &text, &format!("redis://127.0.0.1:{}", redis.port())),
        };
        let postern = Postern::run(&world, &text).await?;
        let config = world.path("config.yaml").display().to_string();
        Ok(Self { world, provider, postern, config, _upstream: upstream, _redis: redis })
    }

    /// A browser in which that user is signed in.
    async fn signed_in(&self, user: &str) -> Result<Browser> {
        let mut browser = Browser::new(&self.world.ca_pem())?;
        let page = browser.visit(&self.world.url("app", "/")).await?;
        let page = browser.submit(&page, "Sign in", &[("user", user)]).await?;
        anyhow::ensure!(page.status == StatusCode::OK, "{page:?}\n{}", self.postern.told());
        anyhow::ensure!(self.is_in(&mut browser).await?, "{user} is not signed in\n{}", self.postern.told());
        Ok(browser)
    }

    /// Whether the application still answers this browser.
    async fn is_in(&self, browser: &mut Browser) -> Result<bool> {
        Ok(browser.peek(&self.world.url("app", "/")).await?.status == StatusCode::OK)
    }

    fn sessions(&self, arguments: &[&str]) -> Result<Finished> {
        let all = [&["sessions"], arguments, &["--config", &self.config]].concat();
        let finished = Postern::once(self.world.folder(), &all)?;
        for secret in [SHARED_SECRET, Provider::SECRET, "refresh_token", "access_token"] {
            assert!(!finished.told().contains(secret), "{secret}: {}", finished.told());
        }
        Ok(finished)
    }

    /// What it prints for programs, and that all was well.
    fn told(&self, arguments: &[&str]) -> Result<Value> {
        let finished = self.sessions(&[arguments, &["--format", "json"]].concat())?;
        assert_eq!(finished.status.code(), Some(0), "{arguments:?}: {}\n{}", finished.told(), self.postern.told());
        serde_json::from_str(&finished.stdout).with_context(|| finished.told())
    }

    fn listed(&self, arguments: &[&str]) -> Result<Vec<Value>> {
        let told = self.told(&[&["list"], arguments].concat())?;
        Ok(told.get("sessions").and_then(Value::as_array).context("sessions")?.clone())
    }

    /// Until the provider has been asked to take tokens back so often.
    async fn taken_back(&self, times: usize) -> Result<()> {
        let what = format!("{times} tokens are taken back");
        eventually(&what, async || {
            let log = self.provider.log().await.ok()?;
            let asked = log.get("requests")?.as_array()?.iter();
            let count = asked.filter(|asked| asked.get("target").is_some_and(|at| at == "/token/revocation")).count();
            (count == times).then_some(())
        })
        .await
    }

    /// The audit lines of the log.
    fn audit(&self) -> Vec<Value> {
        let is = |line: &Value| {
            line.get("message").and_then(Value::as_str).is_some_and(|text| text.starts_with("an operator ended"))
        };
        self.postern.log().into_iter().filter(is).collect()
    }
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

async fn all_of_it(deployment: Deployment) -> Result<()> {
    let world = &deployment.world;
    assert_eq!(deployment.listed(&[])?, [] as [Value; 0]);
    let (mut alice, mut again) = (deployment.signed_in("alice").await?, deployment.signed_in("alice").await?);
    let (mut bob, mut carol) = (deployment.signed_in("bob").await?, deployment.signed_in("carol").await?);

    let all = deployment.listed(&[])?;
    let mut users: Vec<_> = all.iter().map(|line| text(line, "user")).collect();
    users.sort_unstable();
    assert_eq!(users, ["alice", "alice", "bob", "carol"]);
    let of = |arguments: &[&str]| -> Result<usize> { Ok(deployment.listed(arguments)?.len()) };
    assert_eq!((of(&["--user", "alice"])?, of(&["--user", "nobody"])?), (2, 0));
    assert_eq!((of(&["--email", "BOB@example.com"])?, of(&["--limit", "3"])?), (1, 3));
    assert_eq!((of(&["--idp", &deployment.provider.issuer])?, of(&["--idp", "another"])?), (4, 0));
    assert_eq!(deployment.told(&["list", "--limit", "3"])?.get("more"), Some(&Value::Bool(true)));
    let table = deployment.sessions(&["list"])?;
    assert!(table.stdout.contains("alice@example.com"), "{}", table.told());
    assert!(!table.stdout.contains('\u{1b}'), "no colour where no terminal is");

    let bobs = text(all.iter().find(|line| text(line, "user") == "bob").context("bob's")?, "session").to_owned();
    let shown = deployment.told(&["show", &bobs])?;
    assert_eq!((text(&shown, "email"), text(&shown, "session")), ("bob@example.com", bobs.as_str()));
    let ended = |told: &Value| told.get("ended").and_then(Value::as_u64);
    assert_eq!(ended(&deployment.told(&["revoke", &bobs])?), Some(1));
    assert!(!deployment.is_in(&mut bob).await?, "bob is out");
    assert_eq!(ended(&deployment.told(&["revoke", &bobs])?), Some(0), "it had ended");
    deployment.taken_back(1).await?;
    let audit = deployment.audit();
    assert_eq!(text(audit.first().context("audit")?, "postern.session"), bobs, "{audit:?}");

    assert_eq!(ended(&deployment.told(&["revoke-user", "alice"])?), Some(2));
    assert!(!deployment.is_in(&mut alice).await? && !deployment.is_in(&mut again).await?, "alice is out everywhere");
    assert!(deployment.is_in(&mut carol).await?, "carol is not");
    deployment.taken_back(3).await?;
    assert_eq!(ended(&deployment.told(&["revoke-user", "--email", "Carol@example.org"])?), Some(1));
    assert!(!deployment.is_in(&mut carol).await?, "carol is out");
    deployment.taken_back(4).await?;

    let (mut alice, mut bob) = (deployment.signed_in("alice").await?, deployment.signed_in("bob").await?);
    let unsure = deployment.sessions(&["revoke-all"])?;
    assert_eq!(unsure.status.code(), Some(2), "{}", unsure.told());
    assert!(unsure.stderr.contains("--yes") && deployment.is_in(&mut alice).await?, "{}", unsure.told());
    assert_eq!(ended(&deployment.told(&["revoke-all", "--yes"])?), Some(2));
    assert!(!deployment.is_in(&mut alice).await? && !deployment.is_in(&mut bob).await?, "everybody is out");
    deployment.taken_back(6).await?;
    assert_eq!(deployment.listed(&[])?, [] as [Value; 0]);
    // At once, though all that began within a second of it are over: by another process's clock they may have begun before.
    let mut back = deployment.signed_in("alice").await?;
    assert_eq!(deployment.audit().len(), 4, "{:?}", deployment.audit());

    let refused = |arguments: &[&str], code: i32, why: &str| -> Result<()> {
        let finished = deployment.sessions(arguments)?;
        assert_eq!(finished.status.code(), Some(code), "{why}: {}", finished.told());
        assert!(finished.stderr.contains(why) && finished.stdout.is_empty(), "{why}: {}", finished.told());
        Ok(())
    };
    let other = if bobs.starts_with('-') { '_' } else { '-' };
    let unknown = format!("{other}{}", bobs.get(1..).unwrap_or_default());
    refused(&["show", &unknown], 1, "no such session")?;
    refused(&["show", &bobs], 1, "was ended")?;
    refused(&["revoke", &unknown], 1, "no such session")?;
    refused(&["revoke", "bob"], 2, "43 characters")?;
    refused(&["revoke-user"], 2, "USER")?;
    refused(&["revoke-user", "--email", "nobody@example.com"], 1, "nobody who is signed in")?;
    refused(&["list", "--limit", "0"], 2, "--limit")?;
    let nowhere = format!("127.0.0.1:{}", free_port()?);
    refused(&["list", "--address", &nowhere], 3, "nothing answers")?;

    let client = plain_client()?;
    for path in ["sessions", "sessions/end", "sessions/end-user", "sessions/end-all", "sessions/clearing"] {
        let nobody =
            client.post(format!("http://127.0.0.1:{}/operator/{path}", world.health)).body("{}").send().await?;
        assert_eq!(nobody.status(), StatusCode::FORBIDDEN, "{path}");
    }
    assert!(deployment.is_in(&mut back).await?, "nothing was done for nobody");
    Ok(())
}

#[tokio::test]
async fn s_084_s_095_an_operator_lists_and_ends_sessions_kept_in_a_file() -> Result<()> {
    all_of_it(Deployment::with_a_file().await?).await
}

#[tokio::test]
async fn s_084_s_095_an_operator_lists_and_ends_sessions_kept_in_redis() -> Result<()> {
    all_of_it(Deployment::with_redis().await?).await
}
