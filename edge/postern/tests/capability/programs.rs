//! Programs that ask as the person who runs them (02 §4.2): a browser signs in for them, and they wait on this machine.

use anyhow::{Context, Result, ensure};
use reqwest::{Method, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use url::Url;

use crate::support::{ANY_USER, Asked, Browser, DEADLINE, Postern, Provider, Response, Upstream, World, bounded};

struct Office {
    world: World,
    postern: Postern,
    _upstream: Upstream,
    _provider: Provider,
}

/// Alice signs in without being asked. `db` is the host of a TCP route and of nothing else.
async fn open() -> Result<Office> {
    let world = World::new()?;
    let (upstream, provider) = (Upstream::start().await?, Provider::start(&world, Some("alice"))?);
    let to = upstream.url().replace("http://", "tcp://");
    let routes = [
        world.route("app", &upstream.url(), ANY_USER),
        world.route("wiki", &upstream.url(), ANY_USER),
        format!(
            "  - from: tcp+https://db.{}:5432\n    to: {to}\n    allow_any_authenticated_user: true\n",
            World::DOMAIN
        ),
    ];
    let postern = Postern::run(&world, &world.config(&provider.settings(), &routes.concat())).await?;
    Ok(Office { world, postern, _upstream: upstream, _provider: provider })
}

/// A program that waits on this machine for what a browser brings it.
struct Program(TcpListener);

impl Program {
    async fn start() -> Result<Self> {
        Ok(Self(TcpListener::bind("127.0.0.1:0").await?))
    }

    fn waits_at(&self) -> Result<String> {
        Ok(format!("http://{}/done?state=7", self.0.local_addr()?))
    }

    /// The target that it is asked for, once.
    async fn asked(self) -> Result<String> {
        let (mut browser, _) = self.0.accept().await?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(browser.read_u8().await?);
        }
        browser.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\ndone").await?;
        let head = String::from_utf8(head)?;
        Ok(head.split(' ').nth(1).context("no target")?.to_owned())
    }
}

/// The credential that a program on this machine comes by for that host, once a person has signed in for it.
pub(crate) async fn credential(world: &World, person: &mut Browser, host: &str) -> Result<String> {
    let program = Program::start().await?;
    let query: String = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("pomerium_redirect_uri", &program.waits_at()?)
        .finish();
    let asks = world.url(host, &format!("/.pomerium/api/v1/login?{query}"));
    let told = Browser::new(&world.ca_pem())?.peek(asks).await?;
    ensure!(told.status == StatusCode::OK, "{told:?}");
    assert_eq!(told.header("content-type"), "text/plain; charset=utf-8");
    let waiting = tokio::spawn(program.asked());
    let page = person.visit(told.body.trim()).await?;
    ensure!(page.body == "done", "{page:?}");
    let target = bounded(DEADLINE, "the browser at the program", waiting).await???;
    let url = Url::parse("http://program/")?.join(&target)?;
    let pairs: Vec<_> = url.query_pairs().into_owned().collect();
    let [(state, seven), (name, credential)] = pairs.as_slice() else { anyhow::bail!("{target}") };
    assert_eq!((state.as_str(), seven.as_str(), name.as_str()), ("state", "7", "pomerium_jwt"));
    Ok(credential.clone())
}

impl Office {
    /// What a program hears that asks where to sign in.
    async fn login(&self, program: &mut Browser, host: &str, query: &str) -> Result<Response> {
        program.peek(self.world.url(host, &format!("/.pomerium/api/v1/login{query}"))).await
    }

    /// The credential that a program on this machine comes by for that host.
    async fn credential(&self, person: &mut Browser, host: &str) -> Result<String> {
        credential(&self.world, person, host).await.with_context(|| self.postern.told())
    }

    async fn asks(&self, host: &str, query: &str, field: Option<(&str, String)>) -> Result<Response> {
        let mut program = Browser::new(&self.world.ca_pem())?;
        let mut request = program.request(Method::GET, self.world.url(host, &format!("/notes{query}")));
        if let Some((name, value)) = field {
            request = request.header(name, value);
        }
        program.send(request).await
    }

    /// The head of the answer to a `CONNECT` to the TCP route.
    async fn connect(&self, fields: &str) -> Result<String> {
        let authority = format!("db.{}:5432", World::DOMAIN);
        let mut stream = self.world.connect("db", &["http/1.1"]).await?;
        stream
            .write_all(format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{fields}\r\n").as_bytes())
            .await?;
        let reading = async {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await?);
            }
            Ok::<_, std::io::Error>(String::from_utf8_lossy(&head).into_owned())
        };
        Ok(bounded(DEADLINE, "the answer to a CONNECT", reading).await??)
    }
}

#[tokio::test]
async fn s_089_a_program_asks_as_the_person_who_signed_in_for_it_on_one_host() -> Result<()> {
    let office = open().await?;
    let mut person = Browser::new(&office.world.ca_pem())?;
    let credential = office.credential(&mut person, "app").await?;
    let app = format!("app.{}", World::DOMAIN);
    assert!(person.cookie(&app, "_pomerium").is_none(), "the browser itself was not signed in on the host");

    let query = format!("?a=b&pomerium_session={credential}");
    for (query, field) in [
        ("", Some(("Authorization", format!("Pomerium {credential}")))),
        ("", Some(("Authorization", format!("Bearer Pomerium-{credential}")))),
        ("", Some(("X-Pomerium-Authorization", credential.clone()))),
        (query.as_str(), None),
    ] {
        let answer = office.asks("app", query, field).await?;
        ensure!(answer.status == StatusCode::OK, "{answer:?}");
        let asked: Asked = answer.json()?;
        assert!(asked.header("x-pomerium-jwt-assertion").is_some(), "{asked:?}");
        assert!(!answer.body.contains(&credential), "the upstream never sees it: {}", answer.body);
    }
    for (host, credential) in [("wiki", credential.clone()), ("app", format!("{credential}A")), ("app", "x.y.z".into())]
    {
        let answer = office.asks(host, "", Some(("Authorization", format!("Pomerium {credential}")))).await?;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{host} {credential}");
    }

    // Who is signed in already is not asked again, and each host has a credential of its own.
    let other = office.credential(&mut person, "wiki").await?;
    ensure!(other != credential);
    let answer = office.asks("wiki", "", Some(("X-Pomerium-Authorization", other.clone()))).await?;
    assert_eq!(answer.status, StatusCode::OK);

    let question = person.visit(office.world.url("authenticate", "/.pomerium/sign_out")).await?;
    let signed_out = person.submit(&question, "Sign out", &[]).await?;
    ensure!(signed_out.status.is_success(), "{signed_out:?}");
    let answer = office.asks("wiki", "", Some(("X-Pomerium-Authorization", other))).await?;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "it was the person's session: S-084");
    Ok(())
}

#[tokio::test]
async fn s_105_the_client_of_a_tcp_route_is_sent_to_sign_in_and_comes_by_a_credential() -> Result<()> {
    let office = open().await?;
    let refused = office.connect("").await?;
    assert!(refused.starts_with("HTTP/1.1 302 "), "{refused}");
    let location = refused.lines().find_map(|line| line.strip_prefix("location: ").or(line.strip_prefix("Location: ")));
    let location = Url::parse(location.context("no Location")?)?;
    assert_eq!(location.path(), "/.pomerium/sign_in");
    let back = location.query_pairs().find(|(name, _)| name == "pomerium_redirect_uri").context("no way back")?.1;
    assert_eq!(back, office.world.url("db", "/.pomerium/user"), "where a person sees that they are signed in");

    let mut person = Browser::new(&office.world.ca_pem())?;
    let credential = office.credential(&mut person, "db").await?;
    let head = office.connect(&format!("Authorization: Pomerium {credential}\r\n")).await?;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let head = office.connect("Authorization: Pomerium stale\r\n").await?;
    assert!(head.starts_with("HTTP/1.1 401 "), "who shows a credential is never redirected: {head}");
    Ok(())
}

#[tokio::test]
async fn s_086_a_credential_goes_to_no_other_address_than_the_configuration_allows() -> Result<()> {
    let office = open().await?;
    let mut program = Browser::new(&office.world.ca_pem())?;
    for (host, query, status, reason) in [
        ("app", "", 404, "redirect-missing"),
        ("app", "?pomerium_redirect_uri=https://evil.example/", 400, "redirect-not-allowed"),
        ("app", "?pomerium_redirect_uri=http://localhost.evil.example/", 400, "redirect-not-allowed"),
        ("app", "?pomerium_redirect_uri=http://localhost@evil.example/", 400, "redirect-not-allowed"),
        ("app", "?pomerium_redirect_uri=http:%5C%5Cevil.example/", 400, "redirect-not-allowed"),
        ("app", "?pomerium_redirect_uri=javascript:alert(1)", 400, "redirect-not-allowed"),
        ("app", "?pomerium_redirect_uri=/", 400, "redirect-not-allowed"),
        (
            "app",
            "?pomerium_redirect_uri=http://localhost/&pomerium_redirect_uri=http://localhost/",
            400,
            "redirect-not-allowed",
        ),
        ("nobody", "?pomerium_redirect_uri=http://localhost/", 404, "route-not-found"),
        ("authenticate", "?pomerium_redirect_uri=http://localhost/", 404, "route-not-found"),
    ] {
        let answer = office.login(&mut program, host, query).await?;
        assert_eq!(answer.status.as_u16(), status, "{host} {query}: {answer:?}");
        assert!(answer.body.contains(reason), "{host} {query}: {answer:?}");
    }
    let url = office.world.url("app", "/.pomerium/api/v1/login?pomerium_redirect_uri=http://localhost/");
    let request = program.request(Method::POST, url);
    let answer = program.send(request).await?;
    assert_eq!((answer.status.as_u16(), answer.header("allow")), (405, "GET"));
    Ok(())
}
