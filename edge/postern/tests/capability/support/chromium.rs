//! A real browser: headless Chromium, driven over WebDriver, with a profile of its own.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;
use thirtyfour::prelude::*;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::postern::plain_client;
use super::{DEADLINE, Owned, bounded, eventually, free_port};

/// Two browsers at a time are as many as a small machine bears.
static AT_ONCE: Semaphore = Semaphore::const_new(2);

/// The others are through by then, or hang.
const TURN: Duration = Duration::from_secs(600);

/// One command to the browser: longer than a page may take to load.
const COMMAND: Duration = Duration::from_secs(60);

/// A running browser; it ends with its owner.
#[derive(Debug)]
pub(crate) struct Chromium {
    pub(crate) driver: WebDriver,
    commands: String,
    _process: Owned,
    _profile: TempDir,
    _turn: SemaphorePermit<'static>,
}

impl Chromium {
    /// Starts one, as soon as it is its turn.
    pub(crate) async fn start() -> Result<Self> {
        let turn = bounded(TURN, "a turn among the browsers", AT_ONCE.acquire()).await??;
        let (port, profile) = (free_port()?, TempDir::new()?);
        let process = Command::new("chromedriver")
            .arg(format!("--port={port}"))
            .env("HOME", profile.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map(Owned)
            .context("starting chromedriver: `make tools-test` installs it")?;
        let address = format!("http://127.0.0.1:{port}");
        let (client, status) = (plain_client()?, format!("{address}/status"));
        eventually("chromedriver", async || client.get(&status).send().await.ok()).await?;
        // Its own default is two minutes for each command.
        let starting = WebDriver::builder(&address, capabilities(&profile)?).request_timeout(COMMAND);
        let driver = bounded(COMMAND, "the browser to start", starting.into_future()).await??;
        driver.set_page_load_timeout(DEADLINE).await?;
        let commands = format!("{address}/session/{}/goog/cdp/execute", driver.session_id());
        Ok(Self { driver, commands, _process: process, _profile: profile, _turn: turn })
    }

    /// Goes to an address and waits until it is loaded.
    pub(crate) async fn visit(&self, url: &str) -> Result<()> {
        self.driver.goto(url).await.with_context(|| format!("visiting {url}"))
    }

    /// The text that the page shows.
    pub(crate) async fn text(&self) -> Result<String> {
        // One page may give way to another between the two questions.
        eventually("a page", async || self.driver.find(By::Tag("body")).await.ok()?.text().await.ok()).await
    }

    /// Waits until the page shows this text, and gives all of it.
    pub(crate) async fn sees(&self, wanted: &str) -> Result<String> {
        let seen = eventually(wanted, async || self.text().await.ok().filter(|text| text.contains(wanted))).await;
        match seen {
            Ok(text) => Ok(text),
            Err(error) => {
                Err(error.context(format!("at {}: {}", self.driver.current_url().await?, self.text().await?)))
            }
        }
    }

    /// Presses the link or button whose text has this in it.
    pub(crate) async fn press(&self, label: &str) -> Result<()> {
        let path = format!("//*[self::a or self::button][contains(normalize-space(.), {label:?})]");
        let found = eventually(label, async || self.driver.find(By::XPath(path.as_str())).await.ok()).await;
        match found {
            Ok(element) => Ok(element.click().await?),
            Err(error) => {
                Err(error.context(format!("at {}: {}", self.driver.current_url().await?, self.text().await?)))
            }
        }
    }

    /// Pictures of the whole page for people to look at, light and dark, wide and on a small screen:
    /// `screenshots/NAME-{light,dark,small}.png` in the target folder.
    pub(crate) async fn picture(&self, name: &str) -> Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for (kind, scheme, width) in [("light", "light", 1100), ("dark", "dark", 1100), ("small", "light", 320)] {
            self.command(
                "Emulation.setEmulatedMedia",
                json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] }),
            )
            .await?;
            self.screen(width).await?;
            let shot = self.command("Page.captureScreenshot", json!({ "captureBeyondViewport": true })).await?;
            let data = shot.get("data").and_then(Value::as_str).context("no picture")?;
            let file = screenshots()?.join(format!("{name}-{kind}.png"));
            std::fs::write(&file, STANDARD.decode(data)?)?;
            files.push(file);
        }
        self.command("Emulation.clearDeviceMetricsOverride", json!({})).await?;
        Ok(files)
    }

    /// How wide the page is that is shown, on a screen of 320 pixels.
    pub(crate) async fn width_on_a_small_screen(&self) -> Result<u64> {
        self.screen(320).await?;
        let width = self.driver.execute("return document.documentElement.scrollWidth", Vec::new()).await?.convert()?;
        self.command("Emulation.clearDeviceMetricsOverride", json!({})).await?;
        Ok(width)
    }

    async fn screen(&self, width: u32) -> Result<Value> {
        // A small screen is a telephone's: its scroll bar takes no room.
        let metrics = json!({ "width": width, "height": 720, "deviceScaleFactor": 1, "mobile": width < 400 });
        self.command("Emulation.setDeviceMetricsOverride", metrics).await
    }

    /// Ends it in good order.
    pub(crate) async fn quit(self) -> Result<()> {
        Ok(bounded(COMMAND, "the browser to end", self.driver.quit()).await??)
    }

    /// A command of the DevTools protocol.
    async fn command(&self, name: &str, parameters: Value) -> Result<Value> {
        let request = plain_client()?.post(&self.commands).json(&json!({ "cmd": name, "params": parameters }));
        let answer: Value = request.send().await?.error_for_status()?.json().await?;
        Ok(answer.get("value").cloned().unwrap_or_default())
    }
}

fn capabilities(profile: &TempDir) -> Result<thirtyfour::ChromeCapabilities> {
    let mut capabilities = DesiredCapabilities::chrome();
    let flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--ignore-certificate-errors",
        // Nothing leaves this machine.
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE *.localhost, EXCLUDE localhost, EXCLUDE 127.0.0.1",
    ];
    for flag in flags {
        capabilities.add_arg(flag)?;
    }
    capabilities.add_arg(&format!("--user-data-dir={}", profile.path().display()))?;
    Ok(capabilities)
}

fn screenshots() -> Result<PathBuf> {
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).parent().context("target folder")?.to_owned();
    let folder = target.join("screenshots");
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}
