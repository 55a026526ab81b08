//! The tools of these tests are tried on each other first: a tool that sees nothing proves nothing.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{
    ANY_USER, Browser, Chromium, DEADLINE, Form, NO_PROVIDER, PUBLIC, Postern, Provider, Recorder, Upstream, World,
    bounded, forms, output_within, within,
};

#[test]
fn forms_are_read_with_their_fields_and_with_buttons_from_elsewhere() {
    let html = r#"<form id="a" method="post" action="/go?x=1&amp;y=2"><input type=hidden name=token value="q&quot;"/>
        <input name=user></form><form><button> Other </button></form><button form="a" name="how" value="now">Go</button>"#;
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let first = Form {
        method: "post".into(),
        action: "/go?x=1&y=2".into(),
        fields: vec![pair("token", "q\""), pair("user", ""), pair("how", "now")],
        buttons: vec!["Go".into()],
    };
    let second =
        Form { method: "get".into(), action: String::new(), fields: Vec::new(), buttons: vec!["Other".into()] };
    assert_eq!(forms(html), [first, second]);
}

#[tokio::test]
async fn whatever_hangs_is_cut_and_named() -> Result<()> {
    let soon = Duration::from_millis(50);
    let hangs = within(soon, "a probe that hangs", async || std::future::pending::<Option<()>>().await);
    let told = bounded(DEADLINE, "the cut", hangs).await?.err().context("found")?;
    assert!(told.to_string().contains("a probe that hangs"), "{told}");
    let mut command = Command::new("bash");
    command.args(["-c", "echo so far; sleep 1000"]);
    let told = output_within(soon * 20, "a script that sleeps", command).err().context("ended")?.to_string();
    assert!(told.contains("a script that sleeps"), "{told}");
    Ok(())
}

#[tokio::test]
async fn the_recorder_keeps_every_byte_and_answers_every_request() -> Result<()> {
    let recorder = Recorder::start().await?;
    let requests = "GET /a HTTP/1.1\r\nHost: x\r\n\r\nPOST /b HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc\
                    POST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nz\r\n0\r\n\r\n";
    let mut stream = TcpStream::connect(recorder.address()).await?;
    stream.write_all(requests.as_bytes()).await?;
    let mut answers = vec![0; 3 * "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".len()];
    bounded(DEADLINE, "both answers", stream.read_exact(&mut answers)).await??;
    assert_eq!(recorder.text(), requests);
    Ok(())
}

#[tokio::test]
async fn the_provider_signs_users_in_and_tells_what_it_gave_out() -> Result<()> {
    let world = World::new()?;
    let provider = Provider::start(&world, None)?;
    let mut browser = Browser::new(&world.ca_pem())?;
    let challenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
    let callback = world.url("authenticate", "/oauth2/callback");
    let question = format!(
        "{}/auth?client_id={}&response_type=code&scope=openid&state=s&redirect_uri={callback}\
         &code_challenge_method=S256&code_challenge={challenge}",
        provider.issuer,
        Provider::CLIENT,
    );
    let page = browser.visit(question).await?;
    let refused = browser.submit(&page, "Sign in", &[("user", "alice")]).await;
    // Nothing listens at the callback: that is where the journey ends.
    assert!(refused.is_err());
    assert!(browser.trail.iter().any(|hop| hop.url.path().starts_with("/auth/")), "{:?}", browser.trail);
    let log = provider.log().await?;
    assert!(log.to_string().contains("/auth?client_id=postern-tests"), "{log}");
    Ok(())
}

#[tokio::test]
async fn a_real_browser_opens_pages_and_takes_pictures() -> Result<()> {
    let upstream = Upstream::start().await?;
    let chromium = Chromium::start().await?;
    chromium.visit(&upstream.url()).await?;
    chromium.sees("\"method\":\"GET\"").await?;
    let picture = chromium.picture("tools").await?;
    assert!(picture.iter().all(|file| file.metadata().is_ok_and(|file| file.len() > 1_000)));
    chromium.quit().await
}

#[test]
fn the_configuration_of_a_world_has_no_problem() -> Result<()> {
    let world = World::new()?;
    let routes =
        world.route("open", "http://127.0.0.1:9", PUBLIC) + world.route("app", "http://127.0.0.1:9", ANY_USER).as_str();
    let file = world.write_config(&world.config(NO_PROVIDER, &routes))?;
    let checked = Postern::once(world.folder(), &["check", &file.display().to_string()])?;
    assert!(checked.status.success(), "{}", checked.told());
    Ok(())
}
