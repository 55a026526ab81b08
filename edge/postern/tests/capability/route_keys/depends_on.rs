//! Hosts on which whoever signs in gets a cookie as well (01 §2.1, 02 §1.5), so that a page may call them.

use anyhow::{Context, Result, ensure};
use postern_identity::{FlowHash, IdpId, Keyring, Recipient, Secret, SignInRequest};
use postern_servers::Redis;
use reqwest::{Method, Url};
use serde_json::{Value, json};

use crate::support::{
    ANY_USER, Asked, Browser, Chromium, Deployment, PUBLIC, Postern, Provider, Response, Upstream, World, eventually,
};

/// A Postern with an application that calls others.
struct Site {
    world: World,
    provider: Provider,
    postern: Postern,
    upstream: Upstream,
}

/// Hosts of the site, besides `app`, which depends on the first two.
const HOSTS: [&str; 3] = ["api", "files", "wiki"];

impl Site {
    /// One whose provider signs this user in without a form.
    async fn open(auto: Option<&str>, settings: &str) -> Result<Self> {
        let (world, upstream) = (World::new()?, Upstream::start().await?);
        let provider = Provider::start(&world, auto)?;
        let depends_on = format!("depends_on: [\"{}\", \"{}/x\"]", world.host("api"), world.url("files", ""));
        let app = world.route("app", &upstream.url(), &[ANY_USER, &[&depends_on]].concat());
        let allows = format!(
            "set_response_headers: {{Access-Control-Allow-Origin: \"{}\", Access-Control-Allow-Credentials: \"true\"}}",
            world.url("app", "")
        );
        let others = HOSTS.map(|name| world.route(name, &upstream.url(), &[ANY_USER, &[&allows]].concat()));
        let text = world.config(&format!("{}{settings}", provider.settings()), &[app, others.concat()].concat());
        let postern = Postern::run(&world, &text).await?;
        Ok(Self { world, provider, postern, upstream })
    }

    fn browser(&self) -> Result<Browser> {
        Browser::new(&self.world.ca_pem())
    }

    /// What a page's call of that host is answered.
    async fn call(&self, browser: &mut Browser, name: &str) -> Result<Response> {
        let request = browser.request(Method::GET, self.world.url(name, "/data")).header("accept", "application/json");
        browser.send(request.header("sec-fetch-mode", "cors").header("sec-fetch-site", "same-site")).await
    }

    /// The statuses of such calls of each host.
    async fn calls(&self, browser: &mut Browser) -> Result<Vec<u16>> {
        let mut statuses = Vec::new();
        for name in HOSTS {
            statuses.push(self.call(browser, name).await?.status.as_u16());
        }
        Ok(statuses)
    }
}

/// The host below the domain of this world.
fn below(name: &str) -> String {
    format!("{name}.{}", World::DOMAIN)
}

#[tokio::test]
async fn row_depends_on_gives_each_host_a_cookie_of_its_own_on_the_way_to_the_page() -> Result<()> {
    let site = Site::open(None, "").await?;
    let mut browser = site.browser()?;
    assert_eq!(site.calls(&mut browser).await?, [401, 401, 401]);
    let form = browser.visit(site.world.url("app", "/notes?page=2")).await?;
    let page = browser.submit(&form, "Sign in", &[("user", "alice")]).await?;
    ensure!(page.status == 200, "{page:?}\n{}", site.postern.told());
    assert_eq!(
        (page.url.as_str(), page.json::<Asked>()?.target.as_str()),
        (&*site.world.url("app", "/notes?page=2"), "/notes?page=2")
    );
    assert_eq!(site.calls(&mut browser).await?, [200, 200, 401], "{}", site.postern.told());
    let values = ["app", "api", "files"].map(|name| browser.cookie(&below(name), "_pomerium").map(str::to_owned));
    let [app, api, files] = &values;
    assert!(values.iter().all(Option::is_some) && app != api && api != files, "{values:?}");
    assert!(browser.cookies.iter().all(|cookie| !cookie.name.contains("_flow_")), "{:?}", browser.cookies);
    let asked = site.call(&mut browser, "api").await?.json::<Asked>()?;
    assert!(asked.header("x-pomerium-jwt-assertion").is_some() && asked.header("cookie").is_none(), "S-041: {asked:?}");
    assert_eq!(site.upstream.seen().iter().filter(|asked| asked.target.starts_with("/.pomerium")).count(), 0);

    // Signed in at the provider and at ours by then: only the cookies are missing.
    browser.cookies.retain(|cookie| cookie.host == below("authenticate"));
    browser.trail.clear();
    assert_eq!(browser.visit(site.world.url("app", "/")).await?.status, 200);
    assert!(
        browser.trail.iter().all(|hop| !hop.url.as_str().starts_with(&site.provider.issuer)),
        "{:?}",
        browser.trail
    );
    assert_eq!(site.calls(&mut browser).await?, [200, 200, 401]);

    // One session for all: its end is the end on each host.
    let mut out = browser.visit(site.world.url("app", "/.pomerium/sign_out")).await?;
    while out.form("Sign out").is_ok() {
        out = browser.submit(&out, "Sign out", &[]).await?;
    }
    eventually("the end of the session on every host", async || {
        site.calls(&mut browser).await.ok().filter(|statuses| *statuses == [401, 401, 401])
    })
    .await?;
    is_told_of_hosts(&site)
}

/// `check` warns of a host that no route has, `explain` names those that are left, and a list that is too long is refused.
fn is_told_of_hosts(site: &Site) -> Result<()> {
    let lines = |hosts: &str| [format!("depends_on: [{hosts}]")];
    let routes = |hosts: &str| {
        site.world.route("app", "http://a", &[ANY_USER, &lines(hosts).each_ref().map(String::as_str)].concat())
    };
    let api = site.world.route("api", "http://a", PUBLIC);
    super::is_refused(&site.world, &routes("a, b, c, d, e, f"), "depends_on")?;
    let path = site.world.path("told.yaml");
    let hosts = format!("\"{}\", nobody.example.com", site.world.host("api"));
    std::fs::write(&path, site.world.config(&site.provider.settings(), &[routes(&hosts), api].concat()))?;
    let told = Postern::once(site.world.folder(), &["check", &path.display().to_string()])?;
    ensure!(told.told().contains("no route has the host `nobody.example.com:"), "{}", told.told());
    let asked = ["--url", &site.world.url("app", "/"), "--format", "json"];
    let told = Postern::once(
        site.world.folder(),
        &[&["explain", "--config", &path.display().to_string()], &asked[..]].concat(),
    )?;
    let said: Value = serde_json::from_str(&told.stdout).with_context(|| told.told())?;
    assert_eq!(said.get("additional_hosts"), Some(&json!([site.world.host("api")])));
    Ok(())
}

#[tokio::test]
async fn edges_and_authn_apart_lead_through_the_hosts_as_one_process_does() -> Result<()> {
    let store = Redis::start(&[]);
    let routes = |world: &World, upstream: &Upstream| {
        let depends_on = format!("depends_on: [\"{}\"]", world.host("api"));
        let app = world.route("app", &upstream.url(), &[ANY_USER, &[&depends_on]].concat());
        [app, world.route("api", &upstream.url(), ANY_USER)].concat()
    };
    let office = Deployment::start(&format!("redis://127.0.0.1:{}", store.port()), 2, ["", ""], routes).await?;
    // Each connection goes to the next edge, and each edge asks an authn of its own.
    let mut browser = Browser::without_pool(&office.world.ca_pem())?;
    let form = browser.visit(office.world.url("app", "/notes")).await?;
    let page = browser.submit(&form, "Sign in", &[("user", "alice")]).await?;
    ensure!(
        page.status == 200 && page.url.as_str() == office.world.url("app", "/notes"),
        "{page:?}\n{}",
        office.told()
    );
    for _ in 0..4 {
        let answer = browser.peek(office.world.url("api", "/")).await?;
        ensure!(answer.status == 200, "{answer:?}\n{}", office.told());
    }
    Ok(())
}

/// Redirects by hand, up to the one that leads to a callback of that host with this parameter.
async fn stop_at(site: &Site, browser: &mut Browser, name: &str, parameter: &str) -> Result<Url> {
    let mut next = Url::parse(&site.world.url("app", "/"))?;
    for _ in 0..20 {
        next = browser.peek(&next).await?.location()?;
        if next.host_str() == Some(&below(name)) && next.query_pairs().any(|(key, _)| key == parameter) {
            return Ok(next);
        }
    }
    anyhow::bail!("never led there: {:?}", browser.trail)
}

/// Whether the answer sets a session cookie.
fn gives_a_session(answer: &Response) -> bool {
    answer.headers.get_all("set-cookie").iter().any(|cookie| {
        cookie.to_str().is_ok_and(|cookie| cookie.starts_with("_pomerium=") && !cookie.starts_with("_pomerium=;"))
    })
}

#[tokio::test]
async fn s_054_s_055_s_089_tickets_for_further_hosts_work_once_there_and_in_one_browser() -> Result<()> {
    let site = Site::open(Some("alice"), "").await?;
    let (mut browser, mut thief) = (site.browser()?, site.browser()?);
    let ticket = stop_at(&site, &mut browser, "api", "pomerium_ticket").await?;
    let stolen = thief.peek(&ticket).await?;
    assert!(!gives_a_session(&stolen) && stolen.location()?.as_str() == site.world.url("app", "/"), "{stolen:?}");
    for name in ["files", "wiki", "app", "authenticate"] {
        let mut moved = ticket.clone();
        moved.set_host(Some(&below(name)))?;
        let answer = browser.peek(&moved).await?;
        assert!(
            answer.status == 400 && answer.body.contains("ticket-unreadable") && !gives_a_session(&answer),
            "{answer:?}"
        );
    }
    let copy = browser.cookies.clone();
    assert!(gives_a_session(&browser.peek(&ticket).await?));
    browser.cookies = copy;
    assert!(!gives_a_session(&browser.peek(&ticket).await?), "a second time");
    Ok(())
}

#[tokio::test]
async fn s_086_hosts_that_the_edge_has_not_signed_are_never_led_to() -> Result<()> {
    let site = Site::open(Some("alice"), "").await?;
    let mut browser = site.browser()?;
    let sign_in = browser.peek(site.world.url("app", "/")).await?.location()?;
    let named = sign_in.query_pairs().find(|(name, _)| name == "pomerium_additional_hosts");
    let named = named.context("no hosts")?.1.into_owned();
    assert_eq!(named, format!("{},{}", site.world.host("api"), site.world.host("files")));
    let mut pairs: Vec<_> = sign_in.query_pairs().into_owned().collect();
    for (name, value) in &mut pairs {
        if name == "pomerium_additional_hosts" {
            *value = site.world.host("wiki");
        }
    }
    let mut altered = sign_in.clone();
    altered.query_pairs_mut().clear().extend_pairs(&pairs);
    let answer = browser.peek(&altered).await?;
    assert!(answer.status == 400 && answer.body.contains("sign-in-not-signed"), "{answer:?}");
    let foreign = SignInRequest {
        redirect_uri: Url::parse(&site.world.url("app", "/"))?,
        idp: IdpId::new("main"),
        recipient: Recipient::Browser(FlowHash::from_bytes([0; 16])),
        restarted: false,
        additional_hosts: vec![site.world.host("wiki")],
    };
    let forger = Keyring::derive(&Secret::new([7; 32]), &Secret::new([7; 32]));
    let mut place = sign_in;
    place.set_query(None);
    let forged = foreign.to_url(&forger, place, std::time::SystemTime::now().into());
    assert_eq!(browser.peek(&forged).await?.status, 400);
    assert_eq!(site.calls(&mut browser).await?, [401, 401, 401]);
    Ok(())
}

#[tokio::test]
async fn a_page_of_a_real_browser_calls_the_hosts_that_it_depends_on() -> Result<()> {
    let site = Site::open(Some("alice"), "").await?;
    let chromium = Chromium::start().await?;
    chromium.visit(&site.world.url("app", "/")).await?;
    chromium.sees("\"target\"").await?;
    let urls: Vec<_> = HOSTS.iter().map(|name| json!(site.world.url(name, "/data"))).collect();
    let script = "const [urls, done] = arguments; \
        Promise.all(urls.map(url => fetch(url, {credentials: 'include'}).then(answer => answer.status, () => 0))).then(done)";
    let statuses: Vec<u16> = chromium.driver.execute_async(script, vec![json!(urls)]).await?.convert()?;
    assert_eq!(statuses, [200, 200, 401], "{}", site.postern.told());
    chromium.quit().await
}
