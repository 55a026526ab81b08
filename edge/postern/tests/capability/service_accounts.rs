//! Credentials of programs that ask as nobody who signs in (02 §4.3): an operator makes them, lists them and deletes them.

use anyhow::{Context, Result, ensure};
use postern_servers::Redis;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{
    ANY_USER, Asked, Browser, Deployment, Finished, Postern, Provider, Response, SHARED_SECRET, Upstream, World,
    eventually, plain_client, verified, with_store,
};

/// A running Postern. `app` is for the group `deployers`, `wiki` for everybody who is somebody, and `k8s` a Kubernetes API.
struct Office {
    world: World,
    postern: Postern,
    config: String,
    _upstream: Upstream,
    _provider: Provider,
    _redis: Option<Redis>,
}

impl Office {
    async fn start(redis: Option<Redis>) -> Result<Self> {
        let world = World::new()?;
        let (upstream, provider) = (Upstream::start().await?, Provider::start(&world, Some("alice"))?);
        let to = upstream.url();
        let routes = [
            world.route(
                "app",
                &to,
                &[
                    "policy: [{ allow: { and: [{ user: ci }, { groups: { has: deployers } }] } }]",
                    "pass_identity_headers: true",
                ],
            ),
            world.route("wiki", &to, ANY_USER),
            world.route(
                "k8s",
                &to,
                &["allow_any_authenticated_user: true", "kubernetes_service_account_token: the.token"],
            ),
        ];
        let text = world.config(&provider.settings(), &routes.concat());
        let text = match &redis {
            None => text,
            Some(redis) => with_store(&world, &text, &format!("redis://127.0.0.1:{}", redis.port())),
        };
        let postern = Postern::run(&world, &text).await?;
        let config = world.path("config.yaml").display().to_string();
        Ok(Self { world, postern, config, _upstream: upstream, _provider: provider, _redis: redis })
    }

    /// What a command with these words comes to.
    fn run(&self, words: &[&str]) -> Result<Finished> {
        let finished = Postern::once(self.world.folder(), &[words, &["--config", &self.config]].concat())?;
        assert!(!finished.told().contains(SHARED_SECRET), "{}", finished.told());
        Ok(finished)
    }

    fn accounts(&self, words: &[&str]) -> Result<Finished> {
        self.run(&[&["service-accounts"], words].concat())
    }

    /// What it prints for programs, and that all was well.
    fn told(&self, words: &[&str]) -> Result<Value> {
        let finished = self.run(&[words, &["--format", "json"]].concat())?;
        assert_eq!(finished.status.code(), Some(0), "{words:?}: {}\n{}", finished.told(), self.postern.told());
        serde_json::from_str(&finished.stdout).with_context(|| finished.told())
    }

    /// A new one of that user, for so long: its id and its token.
    fn create(&self, user: &str, end: &[&str]) -> Result<(String, String)> {
        let made = self
            .told(&[&["service-accounts", "create", "deploy", "--user", user, "--group", "deployers"], end].concat())?;
        Ok((text(&made, "service_account").to_owned(), text(&made, "token").to_owned()))
    }

    async fn asks(&self, host: &str, path: &str, field: (&str, &str)) -> Result<Response> {
        let mut program = Browser::new(&self.world.ca_pem())?;
        let request = program.request(Method::GET, self.world.url(host, path)).header(field.0, field.1);
        program.send(request).await
    }

    /// What a program is answered that shows this token.
    async fn answer(&self, host: &str, token: &str) -> Result<StatusCode> {
        Ok(self.asks(host, "/", ("authorization", &format!("Pomerium {token}"))).await?.status)
    }

    fn refused(&self, words: &[&str], code: i32, why: &str) -> Result<()> {
        let finished = self.run(words)?;
        assert_eq!(finished.status.code(), Some(code), "{why}: {}", finished.told());
        assert!(finished.stderr.contains(why) && finished.stdout.is_empty(), "{why}: {}", finished.told());
        Ok(())
    }

    /// The log lines with that message.
    fn lines(&self, message: &str) -> Vec<Value> {
        self.postern.log().into_iter().filter(|line| text(line, "message") == message).collect()
    }

    /// The names in a list.
    fn listed(&self, words: &[&str], kind: &str, name: &str) -> Result<Vec<String>> {
        let told = self.told(words)?;
        let lines = told.get(kind).and_then(Value::as_array).context("no list")?.iter();
        Ok(lines.map(|line| text(line, name).to_owned()).collect())
    }
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

async fn all_of_it(office: Office) -> Result<()> {
    let world = &office.world;
    let say =
        ["create", "deploy", "--user", "ci", "--email", "ci@example.com", "--group", "deployers", "--claim", "level=3"];
    let made = office.accounts(&[&say[..], &["--expires-in", "90d"]].concat())?;
    assert_eq!(made.status.code(), Some(0), "{}\n{}", made.told(), office.postern.told());
    let token = made.stdout.strip_suffix('\n').context("a line")?.to_owned();
    assert!(token.split('.').count() == 3 && !token.contains(char::is_whitespace), "alone: {}", made.stdout);
    assert!(made.stderr.contains("asks as ci") && !made.stderr.contains(&token), "{}", made.stderr);

    let list = ["service-accounts", "list"];
    let [id] = &office.listed(&list, "service_accounts", "service_account")?[..] else { anyhow::bail!("not one") };
    let shown = office.told(&["service-accounts", "show", id])?;
    assert_eq!((text(&shown, "name"), text(&shown, "user"), text(&shown, "email")), ("deploy", "ci", "ci@example.com"));
    assert_eq!(shown.pointer("/claims/level"), Some(&json!([3])), "{shown}");
    assert!(made.stderr.contains(id.as_str()) && text(&shown, "expires_at") > text(&shown, "created_at"), "{shown}");
    let table = office.accounts(&["list", "--user", "ci"])?;
    assert!(table.stdout.contains("deploy") && table.stdout.contains(id.as_str()), "{}", table.told());

    // It passes, and the upstream is told who it is; of what it shows nothing.
    for (name, value) in [
        ("authorization", format!("Pomerium {token}")),
        ("authorization", format!("Bearer Pomerium-{token}")),
        ("x-pomerium-authorization", token.clone()),
    ] {
        for host in ["app", "wiki"] {
            let answer = office.asks(host, "/notes", (name, &value)).await?;
            ensure!(answer.status == StatusCode::OK, "{answer:?}\n{}", office.postern.told());
            assert!(!answer.body.contains(&token), "{}", answer.body);
        }
    }
    let answer = office.asks("app", &format!("/notes?pomerium_session={token}"), ("x-a", "b")).await?;
    let asked: Asked = answer.json()?;
    let assertion = asked.header("x-pomerium-jwt-assertion").context("no assertion")?;
    let (mut browser, host) = (Browser::new(&world.ca_pem())?, format!("app.{}", World::DOMAIN));
    let claims = verified(&mut browser, &world.url("app", ""), &host, assertion).await?;
    for (name, value) in [("sub", "ci"), ("email", "ci@example.com"), ("name", "deploy"), ("sid", id)] {
        assert_eq!(text(&claims, name), value, "{claims}");
    }
    assert_eq!(claims.get("groups"), Some(&json!(["deployers"])));
    let asked: Asked = office.asks("k8s", "/api", ("x-pomerium-authorization", &token)).await?.json()?;
    assert_eq!(asked.header("impersonate-user"), Some("ci@example.com"));
    assert_eq!(
        (asked.header("impersonate-group"), asked.header("authorization")),
        (Some("deployers"), Some("Bearer the.token"))
    );
    let me: Value = office.asks("app", "/.pomerium/user", ("x-pomerium-authorization", &token)).await?.json()?;
    assert_eq!(text(&me, "sub"), "ci");
    eventually("the authorize record", async || {
        let line = office.lines("authorize check").into_iter().find(|line| text(line, "service-account-id") == id)?;
        (line.get("session-id").is_none() && text(&line, "user") == "ci").then_some(())
    })
    .await
    .with_context(|| office.postern.told())?;

    // S-096: nowhere else is it anything.
    for name in ["_pomerium", "_pomerium_authenticate"] {
        let cookie = format!("{name}={token}");
        for (host, path) in
            [("app", "/"), ("wiki", "/.pomerium/user"), ("wiki", "/.pomerium/"), ("authenticate", "/.pomerium/")]
        {
            let answer = office.asks(host, path, ("cookie", &cookie)).await?;
            assert_ne!(answer.status, StatusCode::OK, "{host}{path}: {answer:?}");
        }
    }
    let plain = office.asks("wiki", "/", ("authorization", &format!("Bearer {token}"))).await?;
    assert_eq!(plain.status, StatusCode::FOUND, "a bearer token of somebody else's, as far as is known");
    let own_page = office.asks("authenticate", "/.pomerium/", ("x-pomerium-authorization", &token)).await?;
    assert_eq!(own_page.status, StatusCode::UNAUTHORIZED, "authn takes no credential of programs: {own_page:?}");
    let client = plain_client()?;
    for path in ["session", "service-accounts/create"] {
        let asked = client.post(format!("http://127.0.0.1:{}/operator/{path}", world.health));
        let asked = asked.header("postern-operator", &token).header("authorization", format!("Pomerium {token}"));
        assert_eq!(asked.body("{}").send().await?.status(), StatusCode::FORBIDDEN, "{path}");
    }

    // Neither kind is listed, or shown, as the other.
    assert_eq!(browser.visit(world.url("wiki", "/")).await?.status, StatusCode::OK);
    let [session] = &office.listed(&["sessions", "list"], "sessions", "session")?[..] else { anyhow::bail!("not one") };
    office.refused(&["sessions", "show", id], 1, "that is a service account")?;
    office.refused(&["service-accounts", "show", session], 1, "the session of a person")?;
    office.refused(&["service-accounts", "delete", session], 1, "the session of a person")?;
    assert_eq!(browser.peek(world.url("wiki", "/")).await?.status, StatusCode::OK, "alice is still in");
    let explained = office.told(&["explain", "--url", &world.url("app", "/"), "--session", id])?;
    assert_eq!(
        (text(&explained, "outcome"), explained.pointer("/subject/user")),
        ("allowed", Some(&json!("ci"))),
        "{explained}"
    );
    assert_eq!(explained.pointer("/subject/claims/level"), Some(&json!([3])), "{explained}");

    assert_eq!(office.told(&["service-accounts", "delete", id])?, json!({"deleted": 1}));
    assert_eq!(office.answer("app", &token).await?, StatusCode::UNAUTHORIZED, "S-084");
    assert_eq!(office.told(&["service-accounts", "delete", id])?, json!({"deleted": 0}));
    office.refused(&["service-accounts", "show", id], 1, "was deleted")?;
    assert_eq!(office.listed(&list, "service_accounts", "name")?, [""; 0]);
    let audit = |message: &str, key: &str| {
        let lines = office.lines(message);
        let lines =
            lines.iter().filter(|line| text(line, "postern.service_account") == id && text(line, "user") == "ci");
        lines.filter(|line| text(line, key) == "deploy").count()
    };
    assert_eq!(audit("an operator created a service account", "name"), 1, "{}", office.postern.told());
    let said = office.lines("an operator created a service account");
    let said = said.first().context("no line")?;
    assert_eq!((text(said, "email"), text(said, "groups")), ("ci@example.com", "deployers"), "{said}");
    assert_eq!(audit("an operator deleted a service account", "name"), 1, "{}", office.postern.told());
    let signature = token.rsplit('.').next().context("a signature")?;
    assert!(!office.postern.told().contains(signature), "S-108: no token is in the log");
    ends(&office, &mut browser).await
}

/// However one of them ends.
async fn ends(office: &Office, browser: &mut Browser) -> Result<()> {
    let (_, brief) = office.create("ci", &["--expires-in", "2s"])?;
    eventually("its end", async || {
        (office.answer("app", &brief).await.ok()? == StatusCode::UNAUTHORIZED).then_some(())
    })
    .await?;

    // With whoever asks under that name, and with everything.
    let ((_, one), (_, other), (_, alices)) =
        (office.create("ci", &["--never"])?, office.create("cd", &["--never"])?, office.create("alice", &["--never"])?);
    let alive = async || -> Result<[bool; 3]> {
        let mut alive = [false; 3];
        for (alive, token) in alive.iter_mut().zip([&one, &other, &alices]) {
            *alive = office.answer("wiki", token).await? == StatusCode::OK;
        }
        Ok(alive)
    };
    assert_eq!(alive().await?, [true, true, true]);
    let ended = |told: &Value| told.get("ended").and_then(Value::as_u64);
    assert_eq!(ended(&office.told(&["sessions", "revoke-user", "ci"])?), Some(1));
    assert_eq!(alive().await?, [false, true, true]);
    // By the address of her session, which her service account does not have.
    assert_eq!(ended(&office.told(&["sessions", "revoke-user", "--email", "alice@example.com"])?), Some(2));
    assert_eq!(alive().await?, [false, true, false]);
    assert_ne!(browser.peek(office.world.url("wiki", "/")).await?.status, StatusCode::OK, "alice is out too");
    office.told(&["sessions", "revoke-all", "--yes"])?;
    assert_eq!(alive().await?, [false, false, false]);
    let (_, later) = office.create("ci", &["--never"])?;
    assert_eq!(office.answer("app", &later).await?, StatusCode::OK, "what is made afterwards lives");

    let create = ["service-accounts", "create", "deploy", "--user", "ci"];
    let with = |words: &[&'static str]| [&create, words].concat();
    office.refused(&create, 2, "--expires-in")?;
    office.refused(&with(&["--never", "--expires-in", "1d"]), 2, "--never")?;
    office.refused(&with(&["--expires-in", "soon"]), 2, "such as 90d")?;
    office.refused(&with(&["--never", "--claim", "sub=root"]), 2, "--user")?;
    office.refused(&with(&["--never", "--email", ""]), 2, "--email")?;
    office.refused(&["service-accounts", "show", "deploy"], 2, "43 characters")?;
    office.refused(&["service-accounts", "delete", &"A".repeat(43)], 1, "no such service account")?;
    office.refused(&["service-accounts", "list", "--limit", "0"], 2, "--limit")
}

#[tokio::test]
async fn s_084_s_096_an_operator_makes_service_accounts_and_ends_them_kept_in_a_file() -> Result<()> {
    all_of_it(Office::start(None).await?).await
}

#[tokio::test]
async fn s_084_s_096_an_operator_makes_service_accounts_and_ends_them_kept_in_redis() -> Result<()> {
    all_of_it(Office::start(Some(Redis::start(&[]))).await?).await
}

#[tokio::test]
async fn s_084_every_edge_knows_a_service_account_and_its_end_where_authn_is_apart() -> Result<()> {
    let store = Redis::start(&[]);
    let routes = |world: &World, upstream: &Upstream| world.route("app", &upstream.url(), ANY_USER);
    let office = Deployment::start(&format!("redis://127.0.0.1:{}", store.port()), 2, ["", ""], routes).await?;
    let run = |process: &str, words: &[&str]| -> Result<Finished> {
        let config = office.world.path(&format!("{process}.yaml")).display().to_string();
        Postern::once(
            office.world.folder(),
            &[&["service-accounts"], words, &["--config", &config, "--format", "json"]].concat(),
        )
    };
    let create = ["create", "deploy", "--user", "ci", "--never"];
    let made = run("authn0", &create)?;
    let made: Value =
        serde_json::from_str(&made.stdout).with_context(|| format!("{}\n{}", made.told(), office.told()))?;
    assert_eq!(made.get("expires_at"), Some(&Value::Null));
    let (id, token) = (text(&made, "service_account"), text(&made, "token"));
    let mut program = Browser::without_pool(&office.world.ca_pem())?;
    // Each connection goes to the next edge.
    let mut answers = async || -> Result<Vec<u16>> {
        let mut answers = Vec::new();
        for _ in 0..4 {
            let request = program.request(Method::GET, office.world.url("app", "/"));
            answers.push(
                program.send(request.header("authorization", format!("Pomerium {token}"))).await?.status.as_u16(),
            );
        }
        Ok(answers)
    };
    assert_eq!(answers().await?, [200; 4], "{}", office.told());
    let deleted = run("authn1", &["delete", id])?;
    assert_eq!(deleted.status.code(), Some(0), "{}\n{}", deleted.told(), office.told());
    eventually("the end at every edge", async || (answers().await.ok()? == [401; 4]).then_some(()))
        .await
        .with_context(|| office.told())?;
    let alone = run("edge0", &create)?;
    assert!(alone.status.code() == Some(1) && alone.stderr.contains("an edge alone"), "{}", alone.told());
    Ok(())
}
