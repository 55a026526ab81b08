//! `tls_*` of a route: whom an upstream is believed to be, and who it is told that we are (01 §2.12).

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SerialNumber};

use crate::support::{Backend, Browser, NO_PROVIDER, PUBLIC, Postern, Seen, Shown, World, eventually};

/// An authority of a test's own, and what it has vouched for.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(world: &World, name: &str) -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        std::fs::write(world.path(&format!("{name}.pem")), authority.pem())?;
        Ok(Self(authority))
    }

    /// Writes `FILE.crt` and `FILE.key` for these names; gives the certificate in hex. Each has the same serial number.
    fn issue(&self, world: &World, file: &str, names: &[&str]) -> Result<String> {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let (key, mut params) = (KeyPair::generate()?, CertificateParams::new(names)?);
        params.serial_number = Some(SerialNumber::from(1));
        let made = params.signed_by(&key, &self.0)?;
        std::fs::write(world.path(&format!("{file}.crt")), made.pem())?;
        std::fs::write(world.path(&format!("{file}.key")), key.serialize_pem())?;
        Ok(hex::encode(made.der()))
    }
}

fn shown(world: &World, file: &str) -> Shown {
    Shown {
        certificate: world.path(&format!("{file}.crt")),
        key: world.path(&format!("{file}.key")),
        ..Shown::default()
    }
}

/// The lines of a public route, with these.
fn lines(more: &[String]) -> Vec<&str> {
    PUBLIC.iter().copied().chain(more.iter().map(String::as_str)).collect()
}

async fn status(browser: &mut Browser, world: &World, name: &str) -> Result<u16> {
    Ok(browser.visit(world.url(name, "/")).await?.status.as_u16())
}

async fn seen(browser: &mut Browser, world: &World, name: &str) -> Result<Seen> {
    let answer = browser.visit(world.url(name, "/")).await?;
    serde_json::from_str(&answer.body).with_context(|| format!("{}: {}", answer.status, answer.body))
}

#[tokio::test]
async fn row_tls_custom_ca_takes_the_place_of_all_other_authorities() -> Result<()> {
    let world = World::new()?;
    let (own, other) = (Authority::new(&world, "own")?, Authority::new(&world, "other")?);
    own.issue(&world, "a", &["localhost"])?;
    other.issue(&world, "b", &["localhost"])?;
    let (a, b) = (Backend::secure("a", &shown(&world, "a")).await?, Backend::secure("b", &shown(&world, "b")).await?);
    let custom = [format!("tls_custom_ca_file: {}", world.path("own.pem").display())];
    let inline = [format!("tls_custom_ca: {}", STANDARD.encode(own.0.pem()))];
    let (a, b) = (a.url("https", "localhost")?, b.url("https", "localhost")?);
    let routes = [
        world.route("own", &a, &lines(&custom)),
        world.route("inline", &a, &lines(&inline)),
        world.route("usual", &a, PUBLIC),
        world.route("other", &b, PUBLIC),
        world.route("both", &b, &lines(&custom)),
    ];
    let settings = format!("{NO_PROVIDER}certificate_authority_file: {}\n", world.path("other.pem").display());
    let _postern = Postern::run(&world, &world.config(&settings, &routes.concat())).await?;
    let mut browser = Browser::new(&world.ca_pem())?;
    for (name, expected) in [("own", 200), ("inline", 200), ("usual", 502), ("other", 200), ("both", 502)] {
        assert_eq!(status(&mut browser, &world, name).await?, expected, "{name}");
    }
    Ok(())
}

#[tokio::test]
async fn an_upstream_for_http_2_alone_gets_requests_with_bodies_too() -> Result<()> {
    let world = World::new()?;
    Authority::new(&world, "own")?.issue(&world, "up", &["localhost"])?;
    let newer = Backend::secure("newer", &Shown { alpn: vec!["h2"], ..shown(&world, "up") }).await?;
    let older = Backend::secure("older", &Shown { alpn: vec!["http/1.1"], ..shown(&world, "up") }).await?;
    let custom = [format!("tls_custom_ca_file: {}", world.path("own.pem").display())];
    let routes = [
        world.route("newer", &newer.url("https", "localhost")?, &lines(&custom)),
        world.route("older", &older.url("https", "localhost")?, &lines(&custom)),
    ];
    let postern = Postern::run(&world, &world.config(NO_PROVIDER, &routes.concat())).await?;
    let mut browser = Browser::new(&world.ca_pem())?;
    for (name, count) in [("newer", 2), ("older", 1)] {
        for body in ["one", "two"].into_iter().take(count) {
            let request = browser.request(Method::POST, world.url(name, "/")).body(body);
            let answer = browser.send(request).await?;
            assert_eq!((answer.status.as_u16(), answer.body.as_str()), (200, body), "{name}\n{}", postern.told());
        }
    }
    let seen = newer.seen();
    assert!(seen.len() == 2 && seen.iter().all(|seen| seen.version == "HTTP/2.0"), "{seen:?}");
    Ok(())
}

#[tokio::test]
async fn a_renewed_tls_custom_ca_file_holds_from_the_next_request_on() -> Result<()> {
    let world = World::new()?;
    let (own, other) = (Authority::new(&world, "own")?, Authority::new(&world, "other")?);
    own.issue(&world, "a", &["localhost"])?;
    let backend = Backend::secure("a", &shown(&world, "a")).await?;
    let custom = [format!("tls_custom_ca_file: {}", world.path("own.pem").display())];
    let routes = world.route("app", &backend.url("https", "localhost")?, &lines(&custom));
    let _postern = Postern::run(&world, &world.config(NO_PROVIDER, &routes)).await?;
    let mut browser = Browser::new(&world.ca_pem())?;
    assert_eq!(status(&mut browser, &world, "app").await?, 200);
    // The connection that was verified under the old file waits in the pool: it must not be used again.
    std::fs::write(world.path("own.pem"), other.0.pem())?;
    let refused = async || (status(&mut browser, &world, "app").await.ok()? == 502).then_some(());
    eventually("the upstream is not believed any more", refused).await?;
    Ok(())
}

#[tokio::test]
async fn row_tls_skip_verify_believes_whoever_answers_and_is_told_of_at_the_start() -> Result<()> {
    let world = World::new()?;
    Authority::new(&world, "own")?.issue(&world, "a", &["somebody.else"])?;
    let backend = Backend::secure("a", &shown(&world, "a")).await?;
    let url = backend.url("https", "localhost")?;
    let skip = ["tls_skip_verify: true".to_owned()];
    let routes = [world.route("app", &url, &lines(&skip)), world.route("strict", &url, PUBLIC)].concat();
    let postern = Postern::run(&world, &world.config(NO_PROVIDER, &routes)).await?;
    let mut browser = Browser::new(&world.ca_pem())?;
    for name in ["app", "strict", "app"] {
        let expected = if name == "app" { 200 } else { 502 };
        assert_eq!(status(&mut browser, &world, name).await?, expected, "{name}");
    }
    postern.says("PST-0808").await
}

#[tokio::test]
async fn row_tls_server_name_is_asked_for_and_verified() -> Result<()> {
    let world = World::new()?;
    Authority::new(&world, "own")?.issue(&world, "a", &["app.internal", "eu-1.db.internal"])?;
    let backend = Backend::secure("a", &shown(&world, "a")).await?;
    let url = backend.url("https", "127.0.0.1")?;
    let custom = format!("tls_custom_ca_file: {}", world.path("own.pem").display());
    let route = |name: &str, keys: &[&str]| {
        let more: Vec<_> = keys.iter().map(ToString::to_string).chain([custom.clone()]).collect();
        world.route(name, &url, &lines(&more))
    };
    let routes = [
        route("named", &["tls_server_name: app.internal"]),
        route("upstream", &["tls_server_name: wrong.internal", "tls_upstream_server_name: app.internal"]),
        route("pattern", &["tls_server_name: '*.db.internal'"]),
        route("wrong", &["tls_server_name: wrong.internal"]),
        route("foreign", &["tls_server_name: '*.web.internal'"]),
        route("none", &[]),
    ];
    let _postern = Postern::run(&world, &world.config(NO_PROVIDER, &routes.concat())).await?;
    let mut browser = Browser::new(&world.ca_pem())?;
    for (name, asked_for) in
        [("named", "app.internal"), ("upstream", "app.internal"), ("pattern", "example.db.internal")]
    {
        assert_eq!(seen(&mut browser, &world, name).await?.asked_for, asked_for, "{name}");
    }
    for name in ["wrong", "foreign", "none"] {
        assert_eq!(status(&mut browser, &world, name).await?, 502, "{name}");
    }
    Ok(())
}

#[tokio::test]
async fn row_tls_upstream_allow_renegotiation_has_no_effect_and_says_so() -> Result<()> {
    let world = World::new()?;
    Authority::new(&world, "own")?.issue(&world, "a", &["localhost"])?;
    let backend = Backend::secure("a", &shown(&world, "a")).await?;
    let own = format!("tls_custom_ca_file: {}", world.path("own.pem").display());
    let keys = [own, "tls_upstream_allow_renegotiation: true".to_owned()];
    let route = world.route("app", &backend.url("https", "localhost")?, &lines(&keys));
    let postern = Postern::run(&world, &world.config(NO_PROVIDER, &route)).await?;
    let mut browser = Browser::new(&world.ca_pem())?;
    assert_eq!(status(&mut browser, &world, "app").await?, 200);
    postern.says("tls_upstream_allow_renegotiation").await
}

#[tokio::test]
async fn row_tls_client_cert_is_shown_by_its_own_route_alone() -> Result<()> {
    let world = World::new()?;
    let own = Authority::new(&world, "own")?;
    own.issue(&world, "a", &["localhost"])?;
    // Two authorities count their certificates from one: Pingora's pool knows no more of a certificate than its number.
    let (red, blue) = (Authority::new(&world, "red-ca")?, Authority::new(&world, "blue-ca")?);
    let shown_by =
        [("red", red.issue(&world, "red", &["client"])?), ("blue", blue.issue(&world, "blue", &["client"])?)];
    let clients = [red.0.pem(), blue.0.pem()].concat();
    let backend = Backend::secure("a", &Shown { clients, ..shown(&world, "a") }).await?;
    let url = backend.url("https", "localhost")?;
    let custom = format!("tls_custom_ca_file: {}", world.path("own.pem").display());
    let route = |name: &str| {
        let path = |end: &str| world.path(&format!("{name}.{end}"));
        let written = |end: &str| anyhow::Ok(STANDARD.encode(std::fs::read(path(end))?));
        let more = if name == "red" {
            let (certificate, key) = (path("crt").display().to_string(), path("key").display().to_string());
            [custom.clone(), format!("tls_client_cert_file: {certificate}"), format!("tls_client_key_file: {key}")]
        } else {
            let (certificate, key) = (written("crt")?, written("key")?);
            [custom.clone(), format!("tls_client_cert: {certificate}"), format!("tls_client_key: {key}")]
        };
        anyhow::Ok(world.route(name, &url, &lines(&more)))
    };
    let none = world.route("none", &url, &lines(std::slice::from_ref(&custom)));
    let _postern =
        Postern::run(&world, &world.config(NO_PROVIDER, &[route("red")?, route("blue")?, none].concat())).await?;
    let mut browser = Browser::new(&world.ca_pem())?;
    for _ in 0..8 {
        for (name, certificate) in &shown_by {
            assert_eq!(&seen(&mut browser, &world, name).await?.certificate, certificate, "{name}");
        }
    }
    assert_eq!(status(&mut browser, &world, "none").await?, 502, "it asks for a certificate");
    Ok(())
}
