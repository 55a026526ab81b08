//! `postern demo` needs nothing, keeps its state, and ends cleanly.

use anyhow::{Context, Result};
use reqwest::StatusCode;

use crate::support::{Demo, Postern, free_ports};

#[tokio::test]
async fn a_session_outlives_a_restart_of_the_demonstration() -> Result<()> {
    let demo = Demo::start().await?;
    let mut browser = demo.browser()?;
    let choice = browser.visit(demo.url("hello", "/json")).await?;
    let page = browser.submit(&choice, "", &[("user", "alice")]).await?;
    assert_eq!(page.status, StatusCode::OK, "{page:?}\n{}", demo.postern.told());
    let authority = std::fs::read_to_string(demo.folder().join("ca.pem"))?;

    let (home, port) = demo.interrupt().await?;
    let demo = Demo::start_in(home, port).await?;

    assert_eq!(std::fs::read_to_string(demo.folder().join("ca.pem"))?, authority);
    let page = browser.peek(demo.url("hello", "/json")).await?;
    assert_eq!(page.status, StatusCode::OK, "{page:?}\n{}", demo.postern.told());
    Ok(())
}

#[tokio::test]
async fn r_019_a_new_secret_waits_for_the_next_start_and_nobody_is_locked_out_until_then() -> Result<()> {
    let demo = Demo::start().await?;
    let mut before = demo.browser()?;
    let choice = before.visit(demo.url("hello", "/json")).await?;
    before.submit(&choice, "", &[("user", "alice")]).await?;

    for name in ["shared-secret", "cookie-secret"] {
        std::fs::write(demo.folder().join(name), "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=")?;
        demo.postern.says(&format!("{:?}", name.replace('-', "_"))).await?;
    }
    demo.postern.says("is in force").await?;

    let page = before.peek(demo.url("hello", "/json")).await?;
    assert_eq!(page.status, StatusCode::OK, "who is signed in stays so: {page:?}");
    let mut after = demo.browser()?;
    let choice = after.visit(demo.url("hello", "/json")).await?;
    let page = after.submit(&choice, "", &[("user", "alice")]).await?;
    assert_eq!(page.status, StatusCode::OK, "{page:?}\n{}", demo.postern.told());
    Ok(())
}

#[tokio::test]
async fn the_file_it_writes_is_accepted_by_check_and_run() -> Result<()> {
    let demo = Demo::start().await?;
    let file = demo.folder().join("config.yaml");
    let checked = Postern::once(demo.home(), &["check", &file.display().to_string()])?;
    assert!(checked.status.success(), "{checked:?}");
    let text = std::fs::read_to_string(&file)?;
    demo.interrupt().await?;

    // On other ports, with the secrets and certificates where they were: the folder is gone with the demonstration.
    let home = tempfile::tempdir()?;
    let again = Demo::start_in(home, free_ports(5)?).await?;
    let written = std::fs::read_to_string(again.folder().join("config.yaml"))?;
    assert_eq!(written.lines().count(), text.lines().count());
    let health =
        written.lines().find_map(|line| line.strip_prefix("health_check_addr: 127.0.0.1:")).context("health")?;
    let health: u16 = health.trim().parse()?;
    let path = again.folder().join("config.yaml").display().to_string();
    let (home, _) = again.interrupt().await?;
    let postern = Postern::spawn(home.path(), &["run", "--config", &path])?.ready(health).await?;
    postern.signal("TERM")?;
    assert!(postern.finished().await?.status.success());
    Ok(())
}

#[tokio::test]
async fn a_taken_port_is_said_plainly() -> Result<()> {
    let demo = Demo::start().await?;
    let home = tempfile::tempdir()?;
    let second = Postern::once(home.path(), &["demo", "--port", &demo.port.to_string()])?;
    assert_eq!(second.status.code(), Some(1), "{second:?}");
    assert!(second.stderr.contains("--port"), "{second:?}");
    Ok(())
}
