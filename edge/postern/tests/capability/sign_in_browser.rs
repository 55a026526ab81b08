//! People sign in to the demonstration with a real browser; every page they meet is pictured.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::StatusCode;
use thirtyfour::prelude::*;

use crate::support::{Chromium, Demo, within};

/// Chooses that person at the demonstration's provider.
async fn choose(chromium: &Chromium, user: &str) -> Result<()> {
    chromium.sees("Who are you today?").await?;
    let button = chromium.driver.find(By::Css(format!("button[value={user}]"))).await?;
    Ok(button.click().await?)
}

/// The value of the session cookie of the host that is shown.
async fn session(chromium: &Chromium) -> Result<String> {
    let cookies = chromium.driver.get_all_cookies().await?;
    let session = cookies.into_iter().find(|cookie| cookie.name == "_pomerium").context("no session cookie")?;
    ensure!(session.http_only == Some(true) && session.secure == Some(true), "{session:?}");
    Ok(session.value)
}

#[tokio::test]
async fn alice_signs_in_once_meets_both_applications_and_signs_out() -> Result<()> {
    let demo = Demo::start().await?;
    let chromium = Chromium::start().await?;
    chromium.visit(&demo.url("hello", "/")).await?;
    chromium.sees("Who are you today?").await?;
    chromium.picture("choose-account").await?;
    choose(&chromium, "alice").await?;

    // The sample application verified the assertion itself.
    let shown = chromium.sees("Verified with the key set").await?;
    assert!(shown.contains("alice@example.com") && shown.contains("admins"), "{shown}");
    chromium.picture("application").await?;
    let stolen = session(&chromium).await?;

    // A second application: no second choice.
    chromium.press("Administrators").await?;
    let shown = chromium.sees("Verified with the key set").await?;
    assert!(shown.contains("admin.localhost") && shown.contains("alice@example.com"), "{shown}");

    chromium.press("Your session").await?;
    let shown = chromium.sees("alice@example.com").await?;
    assert!(shown.contains("admins") && !shown.contains(&stolen), "S-094: {shown}");
    chromium.picture("user").await?;

    chromium.visit(&demo.url("hello", "/.pomerium/sign_out")).await?;
    let mut pictured = 0;
    while !chromium.text().await?.contains("You are signed out") {
        chromium.sees("Sign out").await?;
        chromium.picture(&format!("sign-out-{pictured}")).await?;
        chromium.press("Sign out").await?;
        pictured += 1;
        ensure!(pictured < 4, "asked again and again: {}", chromium.text().await?);
    }
    chromium.picture("signed-out").await?;
    let mut thief = demo.browser()?;
    within(Duration::from_secs(2), "the copied cookie to die (S-084)", async || {
        let request = thief
            .request(reqwest::Method::GET, demo.url("hello", "/json"))
            .header("cookie", format!("_pomerium={stolen}"));
        thief
            .send(request)
            .await
            .ok()
            .filter(|answer| answer.status == StatusCode::UNAUTHORIZED || answer.status.is_redirection())
    })
    .await?;
    chromium.visit(&demo.url("hello", "/")).await?;
    chromium.sees("Who are you today?").await?;
    chromium.quit().await
}

#[tokio::test]
async fn carol_is_told_which_group_she_lacks_and_dave_why_he_is_refused() -> Result<()> {
    let demo = Demo::start().await?;
    let chromium = Chromium::start().await?;
    chromium.visit(&demo.url("admin", "/")).await?;
    choose(&chromium, "carol").await?;
    let shown = chromium.sees("Error 403").await?;
    assert!(shown.contains("admins") && shown.contains("carol@example.com"), "{shown}");
    chromium.picture("denied-carol").await?;
    chromium.visit(&demo.url("hello", "/")).await?;
    chromium.sees("Verified with the key set").await?;

    // Another account, from the very page that refused her.
    chromium.visit(&demo.url("admin", "/")).await?;
    chromium.press("Use another account").await?;
    let mut asked = 0;
    while !chromium.text().await?.contains("Who are you today?") {
        let label = if chromium.text().await?.contains("You are signed out") { "Sign in again" } else { "Sign out" };
        chromium.press(label).await?;
        asked += 1;
        ensure!(asked < 5, "asked again and again: {}", chromium.text().await?);
    }
    choose(&chromium, "dave").await?;
    let shown = chromium.sees("Error 403").await?;
    assert!(shown.contains("dave@example.com") && shown.contains("not verified"), "{shown}");
    chromium.picture("denied-dave").await?;
    chromium.quit().await
}

#[tokio::test]
async fn pages_without_a_session_are_pictured_too() -> Result<()> {
    let demo = Demo::start().await?;
    let chromium = Chromium::start().await?;
    for (name, path, words, picture) in [
        ("public", "/", "Nobody is signed in", "application-anonymous"),
        ("hello", "/.pomerium/", "You are not signed in", "not-signed-in"),
        ("nowhere", "/", "404", "not-found"),
        ("auth", "/oauth2/callback?code=x&state=y", "Sign-in", "callback-of-nobody"),
        ("status", "/", "All is well.", "fixed-answer"),
    ] {
        chromium.visit(&demo.url(name, path)).await?;
        chromium.sees(words).await?;
        chromium.picture(picture).await?;
    }
    chromium.quit().await
}

#[tokio::test]
async fn a_websocket_of_the_sample_application_echoes_in_the_page() -> Result<()> {
    let demo = Demo::start().await?;
    let chromium = Chromium::start().await?;
    chromium.visit(&demo.url("ws", "/")).await?;
    choose(&chromium, "bob").await?;
    chromium.sees("connected").await?;
    chromium.driver.find(By::Id("text")).await?.send_keys("is anybody there?\n").await?;
    chromium.sees("echo: is anybody there?").await?;
    chromium.picture("websocket").await?;
    chromium.quit().await
}

#[tokio::test]
async fn every_page_fits_a_small_screen_in_both_colours() -> Result<()> {
    let pages = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../authn/pages");
    let style = std::fs::read_to_string(pages.join("style.css"))?;
    let folder = tempfile::tempdir()?;
    let chromium = Chromium::start().await?;
    let mut seen = 0;
    for snapshot in std::fs::read_dir(pages.join("src/snapshots"))? {
        let snapshot = snapshot?.path();
        let text = std::fs::read_to_string(&snapshot)?;
        let html = text
            .splitn(3, "---\n")
            .nth(2)
            .context("no snapshot")?
            .replace("<style>…</style>", &format!("<style>{style}</style>"));
        // A page that goes on by itself would be gone before it is seen.
        let html = html.replace("http-equiv=\"refresh\"", "");
        let name = snapshot
            .file_stem()
            .and_then(|name| name.to_str())
            .and_then(|name| name.rsplit("__").next())
            .context("name")?;
        let file = folder.path().join(format!("{name}.html"));
        std::fs::write(&file, html)?;
        chromium.visit(&format!("file://{}", file.display())).await?;
        chromium.picture(&format!("page-{name}")).await?;
        let width = chromium.width_on_a_small_screen().await?;
        assert!(width <= 320, "{name} is {width} pixels wide on a screen of 320");
        seen += 1;
    }
    assert!(seen > 8, "{seen}");
    chromium.quit().await
}
