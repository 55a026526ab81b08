//! Upstreams that are dead, hang, reset, are slow, lie about lengths, or whose names come and go: each is told with
//! its own status and reason, no other route notices, and all is well again with the first request after the fault.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use futures_util::future::join_all;

use crate::support::{
    Backend, DEADLINE, Fault, Faulty, NO_PROVIDER, Names, PUBLIC, Postern, Said, Shown, World, acceptor, bounded,
    eventually,
};

/// How an upstream is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spoken {
    Http1,
    H2c,
    /// As HTTP/2 without asking, to who speaks HTTP/1.1 alone.
    H2cToHttp1,
    Tls1,
    Tls2,
    /// TLS with a certificate of nobody's.
    Forged,
}

impl Spoken {
    const fn scheme(self) -> &'static str {
        match self {
            Self::Http1 => "http",
            Self::H2c | Self::H2cToHttp1 => "h2c",
            Self::Tls1 | Self::Tls2 | Self::Forged => "https",
        }
    }
}

/// One fault, and what a client and an operator are told of it.
struct Case {
    name: &'static str,
    spoken: Spoken,
    fault: Fault,
    /// Nobody listens.
    dead: bool,
    status: u16,
    reasons: &'static [&'static str],
}

const fn case(name: &'static str, spoken: Spoken, fault: Fault, status: u16, reasons: &'static [&'static str]) -> Case {
    Case { name, spoken, fault, dead: false, status, reasons }
}

const fn dead(name: &'static str, spoken: Spoken) -> Case {
    Case { name, spoken, fault: Fault::None, dead: true, status: 502, reasons: UNREACHABLE }
}

const UNREACHABLE: &[&str] = &["upstream-unreachable"];
const CONNECT_TIMEOUT: &[&str] = &["upstream-connect-timeout"];
const TIMEOUT: &[&str] = &["upstream-timeout"];
const PROTOCOL: &[&str] = &["upstream-protocol"];
/// It depends on how far the connection had come.
const EITHER: &[&str] = &["upstream-protocol", "upstream-unreachable"];

const CASES: &[Case] = &[
    // Dead.
    dead("dead-1", Spoken::Http1),
    dead("dead-h2c", Spoken::H2c),
    dead("dead-tls", Spoken::Tls2),
    // Closing and resetting.
    case("closes-1", Spoken::Http1, Fault::Closes, 502, EITHER),
    case("closes-h2c", Spoken::H2c, Fault::Closes, 502, EITHER),
    case("closes-tls", Spoken::Tls1, Fault::Closes, 502, UNREACHABLE),
    case("resets-1", Spoken::Http1, Fault::Resets, 502, EITHER),
    case("resets-tls", Spoken::Tls2, Fault::Resets, 502, UNREACHABLE),
    case("cut-1", Spoken::Http1, Fault::ClosesAfterRequest, 502, PROTOCOL),
    case("cut-reset-1", Spoken::Http1, Fault::ResetsAfterRequest, 502, PROTOCOL),
    case("cut-h2c", Spoken::H2c, Fault::ClosesAfterRequest, 502, PROTOCOL),
    case("cut-tls2", Spoken::Tls2, Fault::ResetsAfterRequest, 502, PROTOCOL),
    case("stream-reset", Spoken::H2c, Fault::StreamReset, 502, PROTOCOL),
    case("stream-reset-tls", Spoken::Tls2, Fault::StreamReset, 502, PROTOCOL),
    case("goes-away", Spoken::H2c, Fault::GoesAway, 502, PROTOCOL),
    // Hanging and slow.
    case("mute-tls", Spoken::Tls2, Fault::Mute, 504, CONNECT_TIMEOUT),
    case("silent-1", Spoken::Http1, Fault::Silent, 504, TIMEOUT),
    case("silent-h2c", Spoken::H2c, Fault::Silent, 504, TIMEOUT),
    case("silent-tls1", Spoken::Tls1, Fault::Silent, 504, TIMEOUT),
    case("silent-tls2", Spoken::Tls2, Fault::Silent, 504, TIMEOUT),
    case("drips", Spoken::Http1, Fault::Drips, 504, TIMEOUT),
    case("stalls-in-head", Spoken::Http1, Fault::SaysAndStalls("HTTP/1.1 200 OK\r\n"), 504, TIMEOUT),
    // Lying about lengths, and about everything else.
    case("too-short-1", Spoken::Http1, Fault::Says(PROMISES_TEN), 200, PROTOCOL),
    case("too-short-tls1", Spoken::Tls1, Fault::Says(PROMISES_TEN), 200, PROTOCOL),
    case("too-short-h2c", Spoken::H2c, Fault::StreamTooShort, 200, PROTOCOL),
    case("too-short-tls2", Spoken::Tls2, Fault::StreamTooShort, 200, PROTOCOL),
    case("cut-in-body-h2c", Spoken::H2c, Fault::StreamCut, 200, PROTOCOL),
    case(
        "too-long",
        Spoken::Http1,
        Fault::Says("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwell, and more than that"),
        502,
        PROTOCOL,
    ),
    case(
        "two-lengths",
        Spoken::Http1,
        Fault::Says("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nwell"),
        502,
        PROTOCOL,
    ),
    case(
        "two-framings",
        Spoken::Http1,
        Fault::Says("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nwell\r\n0\r\n\r\n"),
        502,
        PROTOCOL,
    ),
    case(
        "no-last-chunk",
        Spoken::Http1,
        Fault::Says("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nwell\r\n"),
        200,
        PROTOCOL,
    ),
    case("endless-head", Spoken::Http1, Fault::EndlessHead, 502, PROTOCOL),
    case("half-a-head", Spoken::Http1, Fault::Says("HTTP/1.1 200 OK\r\nContent-Le"), 502, PROTOCOL),
    case("no-http", Spoken::Http1, Fault::Says("220 mail.example ESMTP\r\n\r\n"), 502, PROTOCOL),
    case("no-tls", Spoken::Tls1, Fault::SpeaksPlainly, 502, UNREACHABLE),
    case("no-h2", Spoken::H2cToHttp1, Fault::Says("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwell"), 502, EITHER),
    case(
        "unasked-upgrade",
        Spoken::Http1,
        Fault::Says("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"),
        502,
        PROTOCOL,
    ),
    case("forged", Spoken::Forged, Fault::None, 502, UNREACHABLE),
];

const PROMISES_TEN: &str = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nwell";

/// The status that a client gets, and the reason that is logged.
async fn ask(world: &World, postern: &Postern, name: &str) -> Result<(u16, String)> {
    let host = world.host(name);
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nAccept: application/json\r\nConnection: close\r\n\r\n");
    let answer = world.exchange(name, &request).await?;
    let status = answer.get(9..12).and_then(|status| status.parse().ok());
    let id =
        answer.lines().find_map(|line| line.strip_prefix("X-Request-Id: ").or(line.strip_prefix("x-request-id: ")));
    let (status, id) = status.zip(id).with_context(|| format!("{name}: {answer:?}"))?;
    let line = postern.line("http-request", id).await?;
    let details = line.get("response-code-details").and_then(|details| details.as_str()).unwrap_or_default();
    Ok((status, details.to_owned()))
}

/// One case, from its fault to the first request after it.
async fn run(case: &Case, mut upstream: Faulty, world: &World, postern: &Postern) -> Result<()> {
    let (status, reason) = ask(world, postern, case.name).await?;
    ensure!(status == case.status && case.reasons.contains(&reason.as_str()), "{}: {status} {reason}", case.name);
    if matches!(case.spoken, Spoken::Forged | Spoken::H2cToHttp1) {
        return Ok(());
    }
    if case.dead {
        upstream.revive().await?;
    }
    upstream.set(Fault::None);
    let mended = ask(world, postern, case.name).await?;
    ensure!(mended == (200, "via-upstream".to_owned()), "{} is mended, and gives {mended:?}", case.name);
    Ok(())
}

#[tokio::test]
async fn r_014_r_015_r_032_each_fault_has_its_status_and_reason_hurts_nobody_else_and_is_over_when_it_is_over()
-> Result<()> {
    let world = World::new()?;
    let tls = |name: &str, alpn: &[&'static str]| -> Result<_> {
        let (certificate, key) = (format!("{name}.crt"), format!("{name}.key"));
        let names = [if name == "forged" { "somebody.else" } else { "localhost" }.to_owned()];
        world.issue((&certificate, &key), &names)?;
        let (certificate, key) = (world.path(&certificate), world.path(&key));
        acceptor(&Shown { certificate, key, alpn: alpn.to_vec(), ..Shown::default() })
    };
    let mut upstreams = Vec::new();
    let mut routes = String::new();
    for case in CASES {
        let acceptor = match case.spoken {
            Spoken::Http1 | Spoken::H2c | Spoken::H2cToHttp1 => None,
            Spoken::Tls1 => Some(tls("one", &["http/1.1"])?),
            Spoken::Tls2 => Some(tls("two", &["h2"])?),
            Spoken::Forged => Some(tls("forged", &["h2"])?),
        };
        let mut upstream = Faulty::start(case.fault, acceptor, case.spoken == Spoken::H2c).await?;
        if case.dead {
            upstream.kill().await;
        }
        let to = format!("{}://localhost:{}", case.spoken.scheme(), upstream.address().port());
        // Connecting has a bound of its own, unless the route's is shorter.
        let timeout = if case.reasons == CONNECT_TIMEOUT { "timeout: 30s" } else { "timeout: 1s" };
        routes += &world.route(case.name, &to, &[PUBLIC, &[timeout]].concat());
        upstreams.push(upstream);
    }
    ensure!(CASES.len() >= 30, "{} cases", CASES.len());
    let other = Backend::plain("other").await?;
    routes += &world.route("other", &other.url("http", "localhost")?, PUBLIC);
    let settings = format!("{NO_PROVIDER}certificate_authority_file: {}\n", world.path("ca.pem").display());
    let postern = Postern::run(&world, &world.config(&settings, &routes)).await?;

    let over = AtomicBool::new(false);
    let bystander = async {
        let mut asked = 0_usize;
        while !over.load(Ordering::SeqCst) {
            let got = ask(&world, &postern, "other").await?;
            ensure!(got == (200, "via-upstream".to_owned()), "another route is hurt: {got:?}");
            asked += 1;
        }
        Ok(asked)
    };
    let cases = async {
        let running =
            CASES.iter().zip(upstreams).map(|(case, upstream)| Box::pin(run(case, upstream, &world, &postern)));
        let ended = bounded(DEADLINE, "the end of all cases", join_all(running)).await;
        over.store(true, Ordering::SeqCst);
        ended
    };
    let (asked, ended) = Box::pin(async { tokio::join!(bystander, cases) }).await;
    let wrong: Vec<_> = ended?.into_iter().filter_map(Result::err).map(|error| format!("{error:#}")).collect();
    ensure!(wrong.is_empty(), "{wrong:#?}\n{}", postern.told());
    ensure!(asked? > 3, "the other route was hardly asked");
    Ok(())
}

#[tokio::test]
async fn r_034_names_that_do_not_resolve_are_told_and_come_back() -> Result<()> {
    let (world, names, backend) = (World::new()?, Names::start().await?, Backend::plain("a").await?);
    let cases = [("nobody", Said::Nothing), ("failing", Said::Failure), ("silent", Said::Silence)];
    let mut routes = String::new();
    for (name, said) in &cases {
        names.say(&format!("{name}.up.test"), said.clone());
        routes += &world.route(name, &backend.url("http", &format!("{name}.up.test"))?, PUBLIC);
    }
    let settings = format!("{NO_PROVIDER}{}dns_query_timeout: 1s\ndns_query_tries: 1\n", names.settings());
    let postern = Postern::run(&world, &world.config(&settings, &routes)).await?;
    for (name, _) in &cases {
        assert_eq!(ask(&world, &postern, name).await?, (503, "no-endpoint".to_owned()), "{name}");
        names.say(&format!("{name}.up.test"), Said::Addresses(vec!["127.0.0.1".parse()?], 60));
        let back = async || ask(&world, &postern, name).await.ok().filter(|(status, _)| *status == 200);
        eventually("the name is back", back).await?;
    }
    Ok(())
}

#[tokio::test]
async fn r_034_a_name_whose_servers_fail_keeps_its_last_good_address_and_takes_what_they_say_in_its_time() -> Result<()>
{
    let (world, names) = (World::new()?, Names::start().await?);
    let old = Backend::plain("old").await?;
    let port = old.address()?.port();
    let new = Backend::at("new", ([127, 0, 0, 2], port).into()).await?;
    let address = |last: u8| Said::Addresses(vec![[127, 0, 0, last].into()], 1);
    names.say("flaps.up.test", address(1));
    let routes = world.route("app", &format!("http://flaps.up.test:{port}"), PUBLIC);
    let settings = format!("{NO_PROVIDER}{}dns_query_timeout: 1s\ndns_query_tries: 1\n", names.settings());
    let postern = Postern::run(&world, &world.config(&settings, &routes)).await?;
    let well = (200, "via-upstream".to_owned());
    for said in [Said::Failure, Said::HalfFailure, Said::Silence] {
        assert_eq!(ask(&world, &postern, "app").await?, well);
        let asked = names.queries().len();
        names.say("flaps.up.test", said);
        // Until it was asked again, and again after the answer that was none.
        let again = async || {
            let got = ask(&world, &postern, "app").await.ok()?;
            (got != well || names.queries().len() >= asked + 2).then_some(got)
        };
        assert_eq!(eventually("the name is looked up again", again).await?, well, "the last good address serves");
        names.say("flaps.up.test", address(1));
    }
    names.say("flaps.up.test", Said::Nothing);
    let gone = async || ask(&world, &postern, "app").await.ok().filter(|got| *got != well);
    let told = eventually("that there is no address is an answer", gone).await?;
    assert_eq!(told, (503, "no-endpoint".to_owned()));
    names.say("flaps.up.test", address(2));
    let back = async || ask(&world, &postern, "app").await.ok().filter(|got| *got == well);
    eventually("the name is back", back).await?;
    let moved = async || {
        let got = ask(&world, &postern, "app").await.ok()?;
        (got != well || !new.seen().is_empty()).then_some(got)
    };
    assert_eq!(eventually("the new address is used", moved).await?, well);
    Ok(())
}

#[tokio::test]
async fn every_address_of_a_name_is_an_endpoint_of_the_family_that_is_wanted() -> Result<()> {
    let (world, names) = (World::new()?, Names::start().await?);
    let one = Backend::plain("one").await?;
    let port = one.address()?.port();
    let two = Backend::at("two", ([127, 0, 0, 2], port).into()).await?;
    let both = vec!["127.0.0.1".parse()?, "127.0.0.2".parse()?, "::1".parse()?];
    names.say("both.up.test", Said::Long(both, 60));
    let to = format!("http://both.up.test:{port}");
    let many = &[PUBLIC, &["load_balancing_policy: least_request"]].concat();
    let routes = [world.route("plain", &to, PUBLIC), world.route("chosen", &to, many)].concat();
    let settings = format!("{NO_PROVIDER}{}dns_lookup_family: V4_ONLY\n", names.settings());
    let postern = Postern::run(&world, &world.config(&settings, &routes)).await?;
    for name in ["plain", "chosen"] {
        let before = (one.seen().len(), two.seen().len());
        for _ in 0..30 {
            assert_eq!(ask(&world, &postern, name).await?.0, 200);
        }
        let (of_one, of_two) = (one.seen().len() - before.0, two.seen().len() - before.1);
        assert!(of_one >= 5 && of_two >= 5 && of_one + of_two == 30, "{name}: {of_one} {of_two}");
    }
    let queries = names.queries();
    assert!(queries.iter().any(|query| query.tcp), "what is too long for UDP is asked for over TCP: {queries:?}");
    assert!(queries.iter().all(|query| !query.v6), "{queries:?}");
    Ok(())
}

#[tokio::test]
async fn dns_use_tcp_asks_over_tcp_from_the_beginning_and_a_reload_may_ask_elsewhere() -> Result<()> {
    let (world, here, there) = (World::new()?, Names::start().await?, Names::start().await?);
    let backend = Backend::plain("a").await?;
    for names in [&here, &there] {
        names.say("a.up.test", Said::Addresses(vec!["127.0.0.1".parse()?], 3600));
    }
    let routes = world.route("app", &backend.url("http", "a.up.test")?, PUBLIC);
    let settings = |names: &Names| format!("{NO_PROVIDER}{}dns_use_tcp: true\n", names.settings());
    let postern = Postern::run(&world, &world.config(&settings(&here), &routes)).await?;
    assert_eq!(ask(&world, &postern, "app").await?.0, 200);
    let queries = here.queries();
    assert!(!queries.is_empty() && queries.iter().all(|query| query.tcp), "{queries:?}");
    world.write_config(
        &world.config(&format!("{NO_PROVIDER}dns_resolvers: ['tcp://{}']\n", there.address()), &routes),
    )?;
    let asked = async || {
        ask(&world, &postern, "app").await.ok().filter(|(status, _)| *status == 200)?;
        (!there.queries().is_empty()).then_some(())
    };
    eventually("the other server is asked", asked).await?;
    assert!(there.queries().iter().all(|query| query.tcp));
    Ok(())
}
