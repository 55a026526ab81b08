//! Who may pass a route (01 §3.6): the short keys, and the policy that they are short for.

use anyhow::{Context, Result, ensure};
use reqwest::Method;

use super::{is_refused, with};
use crate::support::{Browser, PUBLIC, Postern, Provider, Response, Upstream, World};

/// A Postern where people sign in.
struct Site {
    world: World,
    provider: Provider,
    postern: Postern,
    _upstream: Upstream,
}

impl Site {
    /// One with a route of each name, with these lines.
    async fn open(routes: &[(&str, &[&str])]) -> Result<Self> {
        let (world, upstream) = (World::new()?, Upstream::start().await?);
        let provider = Provider::start(&world, None)?;
        let text: String = routes.iter().map(|(name, lines)| world.route(name, &upstream.url(), lines)).collect();
        let postern = Postern::run(&world, &world.config(&provider.settings(), &text)).await?;
        Ok(Self { world, provider, postern, _upstream: upstream })
    }

    /// What somebody is answered who signs in with the provider's form, if it is shown.
    async fn visits(&self, browser: &mut Browser, user: &str, name: &str, path: &str) -> Result<Response> {
        let page = browser.visit(self.world.url(name, path)).await?;
        if page.url.as_str().starts_with(&self.provider.issuer) {
            return browser.submit(&page, "Sign in", &[("user", user)]).await;
        }
        Ok(page)
    }

    /// Holds that of each route these people are answered so.
    async fn answers(&self, names: &[&str], people: &[(&str, &[u16])]) -> Result<()> {
        for (user, statuses) in people {
            let mut browser = Browser::new(&self.world.ca_pem())?;
            for (name, status) in names.iter().zip(*statuses) {
                let page = self.visits(&mut browser, user, name, "/").await?;
                ensure!(page.status == *status, "{user} at {name}: {page:?}\n{}", self.postern.told());
            }
        }
        Ok(())
    }

    /// The status of a program's request that shows nothing.
    async fn unknown(&self, name: &str) -> Result<u16> {
        let mut program = Browser::new(&self.world.ca_pem())?;
        let request = program.request(Method::GET, self.world.url(name, "/")).header("accept", "application/json");
        Ok(program.send(request).await?.status.as_u16())
    }
}

#[tokio::test]
async fn row_allow_public_unauthenticated_access_lets_everybody_pass() -> Result<()> {
    let office = with("", |world, to| {
        [world.route("open", to, PUBLIC), world.route("off", to, &["allow_public_unauthenticated_access: false"])]
            .concat()
    })
    .await?;
    for (name, status) in [("open", 200), ("off", 403)] {
        assert_eq!(office.get(name, "/", "Accept: application/json\r\n").await?.status, status, "{name}");
    }
    for key in ["allow_any_authenticated_user: true", "allowed_domains: [example.com]", "allowed_users: [a]"] {
        office.is_refused(&[key], key.split(':').next().unwrap_or_default())?;
    }
    Ok(())
}

#[tokio::test]
async fn row_allow_any_authenticated_user_lets_who_has_signed_in_pass() -> Result<()> {
    let site = Site::open(&[("app", &["allow_any_authenticated_user: true"])]).await?;
    assert_eq!(site.unknown("app").await?, 401);
    site.answers(&["app"], &[("alice", &[200]), ("dave", &[200])]).await?;
    for (key, value) in [("allowed_domains", "[example.com]"), ("allowed_users", "[a]")] {
        let lines = ["allow_any_authenticated_user: true", &format!("{key}: {value}")];
        is_refused(&site.world, &site.world.route("odd", "http://a", &lines), key)?;
    }
    Ok(())
}

#[tokio::test]
async fn row_allowed_users_are_named_by_address_or_by_id() -> Result<()> {
    let site =
        Site::open(&[("app", &["allowed_users: [alice@example.com, bob]"]), ("one", &["allowed_users: dave"])]).await?;
    assert_eq!(site.unknown("app").await?, 401);
    let people: [(&str, &[u16]); 4] =
        [("alice", &[200, 403]), ("bob", &[200, 403]), ("carol", &[403, 403]), ("dave", &[403, 200])];
    site.answers(&["app", "one"], &people).await
}

#[tokio::test]
async fn row_allowed_domains_are_those_of_addresses() -> Result<()> {
    let site = Site::open(&[("app", &["allowed_domains: [example.com, example.net]"])]).await?;
    assert_eq!(site.unknown("app").await?, 401);
    // Nobody has vouched for dave's address (S-069).
    site.answers(&["app"], &[("alice", &[200]), ("carol", &[403]), ("dave", &[403])]).await
}

#[tokio::test]
async fn row_allowed_idp_claims_are_looked_for_by_name() -> Result<()> {
    let routes: [(&str, &[&str]); 3] = [
        ("app", &["allowed_idp_claims: {groups: [admins, others]}"]),
        ("one", &["allowed_idp_claims: {groups: engineering}"]),
        ("any", &["allowed_idp_claims: {groups: [engineering], name: [Carol Clark]}"]),
    ];
    let site = Site::open(&routes).await?;
    assert_eq!(site.unknown("app").await?, 401);
    let people: [(&str, &[u16]); 3] =
        [("alice", &[200, 403, 403]), ("bob", &[403, 200, 200]), ("carol", &[403, 403, 200])];
    site.answers(&["app", "one", "any"], &people).await
}

#[tokio::test]
async fn row_cors_allow_preflight_lets_preflights_pass_and_nothing_else() -> Result<()> {
    let office = with("", |world, to| {
        let lines = ["allow_any_authenticated_user: true", "cors_allow_preflight: true"];
        let denying = "policy: [{deny: {or: [{http_path: {is: /closed}}]}}]";
        [
            world.route("cors", to, &[&lines[..], &[denying]].concat()),
            world.route("strict", to, &["allow_any_authenticated_user: true"]),
        ]
        .concat()
    })
    .await?;
    let both = "Origin: https://x.example\r\nAccess-Control-Request-Method: PUT\r\n";
    for (name, request, fields, status) in [
        ("cors", "OPTIONS /", both, 200),
        ("cors", "OPTIONS /closed", both, 403),
        ("cors", "OPTIONS /", "Origin: https://x.example\r\n", 401),
        ("cors", "OPTIONS /", "Access-Control-Request-Method: PUT\r\n", 401),
        ("cors", "GET /", both, 401),
        ("strict", "OPTIONS /", both, 401),
    ] {
        let lines = format!(
            "Host: {}\r\nAccept: application/json\r\nSec-Fetch-Mode: cors\r\n{fields}",
            office.world.host(name)
        );
        let answer = office.send(name, request, &lines).await?;
        assert_eq!(answer.status, status, "{name}, {request}, {fields}: {}", answer.head);
        // What it says is the upstream's: nothing is added.
        assert_eq!(answer.field("access-control-allow-origin"), None, "{}", answer.head);
    }
    Ok(())
}

#[tokio::test]
async fn row_policy_is_a_rule_or_a_list_beside_the_short_keys() -> Result<()> {
    let routes: [(&str, &[&str]); 5] = [
        ("object", &["policy: {allow: {and: [{claim/groups: admins}]}}"]),
        ("list", &["policy: [{allow: {or: [{user: bob}]}}, {allow: {or: [{email: carol@example.org}]}}]"]),
        ("beside", &["allowed_users: [carol]", "policy: [{allow: {or: [{user: alice}]}}]"]),
        ("denying", &["allow_any_authenticated_user: true", "policy: [{deny: {or: [{claim/groups: admins}]}}]"]),
        ("nothing", &["policy: []"]),
    ];
    let site = Site::open(&routes).await?;
    assert_eq!((site.unknown("object").await?, site.unknown("nothing").await?), (401, 403));
    let people: [(&str, &[u16]); 3] = [
        ("alice", &[200, 403, 200, 403, 403]),
        ("bob", &[403, 200, 403, 200, 403]),
        ("carol", &[403, 200, 200, 200, 403]),
    ];
    site.answers(&routes.map(|(name, _)| name), &people).await?;
    is_refused(
        &site.world,
        &site.world.route("odd", "http://a", &["policy: [{allow: {or: [{nonsense: 1}]}}]"]),
        "policy",
    )
}

#[tokio::test]
async fn row_show_error_details_tells_people_what_the_policy_missed() -> Result<()> {
    let policy = "policy: [{allow: {and: [{claim/groups: wizards}]}}]";
    let routes: [(&str, &[&str]); 2] = [("told", &[policy, "show_error_details: true"]), ("quiet", &[policy])];
    let site = Site::open(&routes).await?;
    let mut browser = Browser::new(&site.world.ca_pem())?;
    for (name, is_told) in [("told", true), ("quiet", false)] {
        let page = site.visits(&mut browser, "alice", name, "/").await?;
        assert_eq!(page.status, 403, "{name}: {page:?}");
        assert_eq!(page.body.contains("wizards"), is_told, "{name}: {}", page.body);
    }
    Ok(())
}

#[tokio::test]
async fn row_idp_client_id_and_secret_are_another_client_whose_sessions_are_its_own() -> Result<()> {
    let world = World::new()?;
    let mut settings = Provider::settings_for(&world, Some("alice"));
    let mut other = settings["clients"][0].clone();
    other["client_id"] = "other-client".into();
    other["client_secret"] = "other-secret-mark-77aa".into();
    settings["clients"].as_array_mut().context("clients")?.push(other);
    let (provider, upstream) = (Provider::with(&settings)?, Upstream::start().await?);
    let own = ["prefix: /own", "idp_client_id: other-client", "idp_client_secret: other-secret-mark-77aa"];
    let any = "allow_any_authenticated_user: true";
    let routes = [
        world.route("app", &upstream.url(), &[&own[..], &[any]].concat()),
        world.route("app", &upstream.url(), &[any]),
    ];
    let postern = Postern::run(&world, &world.config(&provider.settings(), &routes.concat())).await?;
    let mut browser = Browser::new(&world.ca_pem())?;
    let mut asked = async |path: &str| {
        let before = browser.trail.len();
        let peeked = browser.peek(world.url("app", path)).await?.status.as_u16();
        let page = browser.visit(world.url("app", path)).await?;
        ensure!(page.status == 200, "{path}: {page:?}\n{}", postern.told());
        let questions = browser.trail.iter().skip(before).filter(|hop| hop.url.as_str().starts_with(&provider.issuer));
        let client = questions.flat_map(|hop| hop.url.query_pairs()).find(|(name, _)| name == "client_id");
        anyhow::Ok((peeked, client.map(|(_, client)| client.into_owned())))
    };
    assert_eq!(asked("/").await?, (302, Some(Provider::CLIENT.to_owned())));
    assert_eq!(asked("/").await?, (200, None));
    assert_eq!(asked("/own").await?, (302, Some("other-client".to_owned())), "another client's session is none");
    assert_eq!(asked("/own").await?, (200, None));
    let secret = "idp_client_id: postern-tests\n    idp_client_secret: another";
    let settings = provider.settings();
    let path = world.path("twice.yaml");
    std::fs::write(&path, world.config(&settings, &world.route("odd", "http://a", &[any, secret])))?;
    let told = Postern::once(world.folder(), &["check", &path.display().to_string()])?;
    assert!(told.status.code() == Some(1) && told.told().contains("two secrets"), "{}", told.told());
    Ok(())
}
