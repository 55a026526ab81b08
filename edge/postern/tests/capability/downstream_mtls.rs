//! Client certificates: who is asked for one, who is believed, and what becomes of those who are not.

use anyhow::{Context, Result};

use crate::support::{Authority, Caller, Identity, NO_PROVIDER, Postern, Upstream, World, eventually};

const OPEN: &str = "allow_public_unauthenticated_access: true";

struct Office {
    world: World,
    upstream: Upstream,
    ours: Authority,
    theirs: Authority,
    postern: Postern,
}

/// A Postern that believes `ours`, with these lines below `downstream_mtls` and the routes that `routes` gives.
async fn open(lines: &[&str], routes: impl FnOnce(&World, &str) -> String) -> Result<Office> {
    let (world, upstream) = (World::new()?, Upstream::start().await?);
    let (ours, theirs) = (Authority::new("Ours")?, Authority::new("Theirs")?);
    std::fs::write(world.path("ours.pem"), ours.pem())?;
    std::fs::write(world.path("theirs.pem"), theirs.pem())?;
    std::fs::write(world.path("revoked.pem"), ours.list(&[])?)?;
    let settings = settings(&world, lines);
    let postern = Postern::run(&world, &world.config(&settings, &routes(&world, &upstream.url()))).await?;
    Ok(Office { world, upstream, ours, theirs, postern })
}

fn settings(world: &World, lines: &[&str]) -> String {
    let lines: String = lines.iter().map(|line| format!("  {line}\n")).collect();
    let lines = lines.replace("DIR", &world.folder().display().to_string());
    format!("{NO_PROVIDER}log_level: debug\ndownstream_mtls:\n{lines}")
}

impl Office {
    fn caller(&self, identity: Option<&Identity>) -> Result<Caller> {
        self.world.caller(identity)
    }

    /// Status and reason, or that nobody was spoken to.
    async fn status(&self, caller: &Caller, name: &str, path: &str) -> String {
        match caller.get(name, &self.world.host(name), path).await {
            Ok((200, ..)) => "200".to_owned(),
            Ok((status, answer, _)) => {
                let reason = answer.split("\"reason\":\"").nth(1).and_then(|rest| rest.split('"').next());
                format!("{status} {}", reason.unwrap_or_default())
            }
            Err(_) => "no answer".to_owned(),
        }
    }
}

fn one_route(world: &World, to: &str) -> String {
    world.route("app", to, &[OPEN])
}

const INVALID: &str = "495 invalid-client-certificate";

#[tokio::test]
async fn downstream_mtls_ca_denies_by_default_whom_it_does_not_vouch_for() -> Result<()> {
    let office = open(&["ca_file: DIR/ours.pem"], one_route).await?;
    let (ours, theirs) = (office.ours.identity("laptop", 1)?, office.theirs.identity("laptop", 1)?);
    for (who, expected) in [(None, INVALID), (Some(&theirs), INVALID), (Some(&ours), "200")] {
        let caller = office.caller(who)?;
        assert_eq!(office.status(&caller, "app", "/").await, expected, "{}", office.postern.told());
        assert_eq!(office.status(&caller, "app", "/ping").await, "200", "paths of ours are exempt (01 §1.6)");
    }
    assert_eq!(office.upstream.seen().len(), 1);
    let page = office.caller(None)?.get("app", &office.world.host("app"), "/").await?.1;
    assert!(page.contains("A valid client certificate is required to access this page."), "{page}");
    Ok(())
}

#[tokio::test]
async fn enforcement_policy_leaves_it_to_the_criteria() -> Result<()> {
    let (world, upstream) = (World::new()?, Upstream::start().await?);
    let ours = Authority::new("Ours")?;
    std::fs::write(world.path("ours.pem"), ours.pem())?;
    let (listed, other) = (ours.identity("laptop", 1)?, ours.identity("phone", 2)?);
    let theirs = Authority::new("Theirs")?.identity("laptop", 1)?;
    let fingerprint = listed.fingerprint();
    let policy = |rules: &str| format!("policy: [{rules}]");
    let denying = policy("{allow: {or: [{accept: true}]}, deny: {or: [{invalid_client_certificate: true}]}}");
    let by_print = policy(&format!("{{allow: {{and: [{{client_certificate: {{fingerprint: {fingerprint}}}}}]}}}}"));
    let by_name = policy("{allow: {and: [{client_certificate: {san_email: {ends_with: '@example.com'}}}]}}");
    let routes = [
        world.route("open", &upstream.url(), &[OPEN]),
        world.route("denying", &upstream.url(), &[&denying]),
        world.route("print", &upstream.url(), &[&by_print]),
        world.route("name", &upstream.url(), &[&by_name]),
    ];
    let settings = settings(&world, &["ca_file: DIR/ours.pem", "enforcement: policy"]);
    let postern = Postern::run(&world, &world.config(&settings, &routes.concat())).await?;
    let office = Office { world, upstream, theirs: Authority::new("Theirs")?, ours, postern };
    let none = "403 client-certificate-unauthorized";
    for (who, expected) in [
        (None, ["200", INVALID, none, none]),
        (Some(&theirs), ["200", INVALID, none, "200"]),
        (Some(&other), ["200", "200", none, "200"]),
        (Some(&listed), ["200", "200", "200", "200"]),
    ] {
        let caller = office.caller(who)?;
        for (name, expected) in ["open", "denying", "print", "name"].into_iter().zip(expected) {
            assert_eq!(office.status(&caller, name, "/").await, expected, "{name}: {}", office.postern.told());
        }
    }
    Ok(())
}

#[tokio::test]
async fn enforcement_reject_connection_speaks_to_nobody_else() -> Result<()> {
    let lines = ["ca_file: DIR/ours.pem", "crl_file: DIR/revoked.pem", "enforcement: reject_connection"];
    let office = open(&lines, |world, to| {
        let own = "tls_downstream_client_ca_file: DIR/theirs.pem".replace("DIR", &world.folder().display().to_string());
        [one_route(world, to), world.route("own", to, &[OPEN, &own])].concat()
    })
    .await?;
    let (ours, theirs) = (office.ours.identity("laptop", 1)?, office.theirs.identity("laptop", 1)?);
    let nobodys = Authority::new("Nobody")?.identity("laptop", 1)?;
    for who in [None, Some(&nobodys)] {
        let caller = office.caller(who)?;
        for path in ["/", "/ping", "/.well-known/pomerium/jwks.json"] {
            assert_eq!(office.status(&caller, "app", path).await, "no answer", "{path}");
        }
    }
    // Who is vouched for on some route is spoken to, and each route still has its own authorities.
    let caller = office.caller(Some(&ours))?;
    assert_eq!(office.status(&caller, "app", "/").await, "200", "{}", office.postern.told());
    assert_eq!(office.status(&caller, "own", "/").await, INVALID);
    let caller_of_theirs = office.caller(Some(&theirs))?;
    assert_eq!(office.status(&caller_of_theirs, "app", "/").await, INVALID);
    assert_eq!(office.status(&caller_of_theirs, "own", "/").await, "200");

    // A connection that could be resumed is no way around a certificate that was revoked since.
    assert!(caller.get("app", &office.world.host("app"), "/").await?.2, "it was not resumed");
    std::fs::write(office.world.path("revoked.pem"), office.ours.list(&[1])?)?;
    let refused = async || (office.status(&caller, "app", "/ping").await == "no answer").then_some(());
    eventually("the revocation", refused).await.with_context(|| office.postern.told())?;
    assert_eq!(office.status(&caller_of_theirs, "own", "/").await, "200");
    Ok(())
}

#[tokio::test]
async fn crl_file_takes_back_what_was_believed_on_open_and_resumed_connections() -> Result<()> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let office = open(&["ca_file: DIR/ours.pem", "crl_file: DIR/revoked.pem"], one_route).await?;
    let (laptop, phone) = (office.ours.identity("laptop", 7)?, office.ours.identity("phone", 8)?);
    let (caller, other) = (office.caller(Some(&laptop))?, office.caller(Some(&phone))?);
    assert_eq!(office.status(&caller, "app", "/").await, "200", "{}", office.postern.told());
    let mut open = caller.connect("app").await?;
    let mut ask = async || -> Result<String> {
        open.write_all(format!("HEAD / HTTP/1.1\r\nHost: {}\r\n\r\n", office.world.host("app")).as_bytes()).await?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(open.read_u8().await?);
        }
        Ok(String::from_utf8_lossy(&head).split(' ').nth(1).unwrap_or_default().to_owned())
    };
    assert_eq!(ask().await?, "200");

    std::fs::write(office.world.path("revoked.pem"), office.ours.list(&[7])?)?;
    let refused = async || (office.status(&caller, "app", "/").await == INVALID).then_some(());
    eventually("the revocation", refused).await.with_context(|| office.postern.told())?;
    assert_eq!(ask().await?, "495", "the connection was open before");
    assert_eq!(office.status(&other, "app", "/").await, "200");

    // What is no list is not taken, and the one before stays in force.
    std::fs::write(office.world.path("revoked.pem"), "nothing")?;
    office.postern.says("PST-0304").await?;
    assert_eq!(office.status(&caller, "app", "/").await, INVALID);
    assert_eq!(office.status(&other, "app", "/").await, "200");
    Ok(())
}

#[tokio::test]
async fn max_verify_depth_and_match_subject_alt_names_bound_who_is_believed() -> Result<()> {
    for (lines, direct, between, phone) in [
        (vec![], "200", INVALID, "200"),
        (vec!["max_verify_depth: 2"], "200", "200", "200"),
        (vec!["max_verify_depth: 0"], "200", "200", "200"),
        (vec!["match_subject_alt_names: [{email: 'laptop@.*'}]"], "200", INVALID, INVALID),
        (vec!["match_subject_alt_names: [{email: 'aptop@.*'}, {dns: phone.example.com}]"], INVALID, INVALID, "200"),
    ] {
        let lines: Vec<&str> = std::iter::once("ca_file: DIR/ours.pem").chain(lines).collect();
        let office = open(&lines, one_route).await?;
        let middle = office.ours.below("Middle")?;
        let people =
            [office.ours.identity("laptop", 1)?, middle.identity("laptop", 2)?, office.ours.identity("phone", 3)?];
        for (who, expected) in people.iter().zip([direct, between, phone]) {
            assert_eq!(office.status(&office.caller(Some(who))?, "app", "/").await, expected, "{lines:?}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn row_tls_downstream_client_ca_is_that_routes_alone_and_s_029_asks_for_a_connection_of_its_own() -> Result<()> {
    let office = open(&["ca_file: DIR/ours.pem"], |world, to| {
        let own = "tls_downstream_client_ca_file: DIR/theirs.pem".replace("DIR", &world.folder().display().to_string());
        let routes = [one_route(world, to), world.route("other", to, &[OPEN]), world.route("own", to, &[OPEN, &own])];
        routes.concat()
    })
    .await?;
    let (ours, theirs) = (office.ours.identity("laptop", 1)?, office.theirs.identity("laptop", 1)?);
    for (who, [app, own]) in [(None, [INVALID; 2]), (Some(&ours), ["200", INVALID]), (Some(&theirs), [INVALID, "200"])]
    {
        let caller = office.caller(who)?;
        assert_eq!(office.status(&caller, "app", "/").await, app);
        assert_eq!(office.status(&caller, "own", "/").await, own);
    }
    // The certificate that was shown for one host says nothing about what would be shown for the other.
    let caller = office.caller(Some(&theirs))?;
    for (sni, host, expected) in [("app", "own", 421), ("own", "app", 421), ("own", "own", 200), ("app", "other", 495)]
    {
        let (status, answer, _) = caller.get(sni, &office.world.host(host), "/").await?;
        assert_eq!(status, expected, "{sni} {host}: {answer}");
    }
    Ok(())
}

#[tokio::test]
async fn set_request_headers_and_the_log_tell_of_the_certificate() -> Result<()> {
    let office = open(&["ca_file: DIR/ours.pem", "enforcement: policy"], |world, to| {
        let headers = "set_request_headers: {X-Print: '${pomerium.client_cert_fingerprint}', \
                       X-Names: '$pomerium.client_cert_san_dns;${pomerium.client_cert_san_email}'}";
        world.route("app", to, &[OPEN, headers])
    })
    .await?;
    let laptop = office.ours.identity("laptop", 1)?;
    assert_eq!(office.status(&office.caller(Some(&laptop))?, "app", "/").await, "200");
    assert_eq!(office.status(&office.caller(None)?, "app", "/").await, "200");
    let seen = office.upstream.seen();
    let told = |at: usize, name: &str| seen.get(at).and_then(|asked| asked.header(name)).map(str::to_owned);
    assert_eq!(told(0, "x-print"), Some(laptop.fingerprint()));
    assert_eq!(told(0, "x-names").as_deref(), Some("laptop.example.com;laptop@example.com"));
    assert_eq!((told(1, "x-print").as_deref(), told(1, "x-names").as_deref()), (Some(""), Some(";")));
    Ok(())
}
