//! The commands that the README and the demonstration tell people to type do what is said of them.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::support::{DEADLINE, Demo, eventually, output_within};

/// What a shell prints for these lines, in the demonstration's home.
fn shell(demo: &Demo, lines: &str) -> Result<String> {
    let lines = lines.replace(":8443", &format!(":{}", demo.port));
    let mut bash = Command::new("bash");
    bash.args(["-euo", "pipefail", "-c", &lines])
        .env_clear()
        .env("HOME", demo.home())
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .current_dir(demo.home());
    let output = output_within(DEADLINE, &lines, bash)?;
    ensure!(output.status.success(), "{lines}\n{output:?}");
    Ok(String::from_utf8(output.stdout)?)
}

/// The blocks of shell in a page of documentation that call curl.
fn blocks(page: &str) -> Result<Vec<String>> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(page);
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let shell = text.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    Ok(shell.filter(|block| block.contains("curl")).map(str::to_owned).collect())
}

#[tokio::test]
async fn the_readmes_lines_show_a_redirect_and_a_public_page() -> Result<()> {
    let demo = Demo::start().await?;
    let lines = blocks("README.md")?.concat();
    ensure!(!lines.is_empty(), "the README has no curl lines");
    let shown = shell(&demo, &lines)?;
    let statuses: Vec<_> =
        shown.lines().filter(|line| line.starts_with("HTTP/")).filter_map(|line| line.split(' ').nth(1)).collect();
    assert_eq!(statuses, ["302", "200"], "{shown}");
    Ok(())
}

#[tokio::test]
async fn the_scripted_sign_in_of_the_guide_ends_with_who_you_are() -> Result<()> {
    let demo = Demo::start().await?;
    let lines = blocks("docs/guides/demo.md")?.concat();
    let shown = shell(&demo, &lines)?;
    assert!(shown.contains("alice@example.com"), "{shown}");
    Ok(())
}

#[tokio::test]
async fn the_lines_that_the_demonstration_prints_sign_alice_in() -> Result<()> {
    let demo = Demo::start().await?;
    let told = eventually("the printed lines", async || {
        Some(demo.postern.told()).filter(|told| told.contains("--data user=alice"))
    })
    .await?;
    let lines: Vec<_> = told
        .lines()
        .map(str::trim)
        .filter(|line| ["cd ", "at=$(curl ", "curl "].iter().any(|start| line.starts_with(start)))
        .collect();
    let shown = shell(&demo, &lines.join("\n"))?;
    assert!(shown.starts_with("HTTP/2 401") || shown.starts_with("HTTP/2 302"), "without a session: {shown}");
    let (_, identity) = shown.split_once("{\"").context("no JSON at the end")?;
    assert!(identity.contains("alice@example.com") && identity.contains("\"verified\":true"), "{shown}");
    Ok(())
}
