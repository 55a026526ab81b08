//! npm's `oidc-provider` as the identity provider of a test.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::postern::plain_client;
use super::{DEADLINE, Owned, World, machine};

/// What a provider saw of refresh grants.
#[derive(Debug, Deserialize)]
pub(crate) struct Refreshes {
    pub(crate) granted: usize,
    pub(crate) refused: usize,
    /// Granted, but whoever asked was gone before that was told.
    pub(crate) cut: usize,
    /// Two of one session at one time.
    pub(crate) overlapping: usize,
    pub(crate) reused: Vec<Reuse>,
    /// Sessions that had a grant since then, or were refused one at any time.
    pub(crate) settled: usize,
    /// Since then.
    pub(crate) lately: usize,
    /// At most, since then.
    pub(crate) at_once: usize,
    /// At most, since then.
    pub(crate) in_a_second: usize,
}

/// A refresh token that was shown twice.
#[derive(Debug, Deserialize)]
pub(crate) struct Reuse {
    pub(crate) first: Grant,
    pub(crate) again: Grant,
}

/// When a grant was asked for and answered, and when the connection that it came on ended, in ms since 1970.
#[derive(Debug, Deserialize)]
pub(crate) struct Grant {
    pub(crate) arrived: u64,
    pub(crate) answered: u64,
    pub(crate) closed: Option<u64>,
}

/// A running provider; it ends with its owner.
#[derive(Debug)]
pub(crate) struct Provider {
    process: Owned,
    /// It ends with this.
    tell: ChildStdin,
    /// The lines that it says.
    told: Receiver<String>,
    pub(crate) issuer: String,
}

impl Provider {
    /// The client id of every test.
    pub(crate) const CLIENT: &'static str = "postern-tests";
    /// Its secret, with a mark that no output may show (S-108).
    pub(crate) const SECRET: &'static str = "client-secret-mark-2f6d1c";

    /// Starts one that knows alice (admins), bob (engineering), carol (no group) and dave (e-mail not verified), and
    /// this world as its client. With `auto`, that user is signed in without a form.
    pub(crate) fn start(world: &World, auto: Option<&str>) -> Result<Self> {
        Self::with(&Self::settings_for(world, auto))
    }

    /// The settings of [`Self::start`].
    pub(crate) fn settings_for(world: &World, auto: Option<&str>) -> Value {
        json!({
            "clients": [{
                "client_id": Self::CLIENT,
                "client_secret": Self::SECRET,
                "redirect_uris": [world.url("authenticate", "/oauth2/callback")],
                "post_logout_redirect_uris": [world.url("authenticate", "/.pomerium/signed_out")],
                "grant_types": ["authorization_code", "refresh_token"],
            }],
            "users": {
                "alice": { "email": "alice@example.com", "name": "Alice Adams", "groups": ["admins"] },
                "bob": { "email": "bob@example.com", "name": "Bob Brown", "groups": ["engineering"] },
                "carol": { "email": "carol@example.org", "name": "Carol Clark", "groups": [] },
                "dave": { "email": "dave@example.com", "email_verified": false, "name": "Dave Dunn", "groups": ["admins"] },
            },
            "auto": auto,
        })
    }

    /// Starts one with these settings (see tests/node/provider.mjs).
    pub(crate) fn with(settings: &Value) -> Result<Self> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/node");
        let mut process = Command::new("node")
            .args(["--no-warnings", "provider.mjs", &settings.to_string()])
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map(Owned)
            .context("starting the provider: needs node, and `make tools-test` once")?;
        let (tell, stdout) = (process.0.stdin.take().context("stdin")?, process.0.stdout.take().context("stdout")?);
        let (say, told) = mpsc::channel();
        std::thread::spawn(move || {
            BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|line| say.send(line))
        });
        let mut provider = Self { process, tell, told, issuer: String::new() };
        let first: Value = serde_json::from_str(&provider.line()?)
            .context("the provider did not start: `make tools-test` installs its packages")?;
        provider.issuer = first.get("issuer").and_then(Value::as_str).context("issuer")?.to_owned();
        Ok(provider)
    }

    /// Has it `refuse` connections, `hang`, or `serve` again, and waits until that is so, or until it is `busy` with several
    /// grants (see tests/node/provider.mjs).
    pub(crate) fn becomes(&mut self, word: &str) -> Result<()> {
        writeln!(self.tell, "{word}")?;
        let said = self.line()?;
        ensure!(said == word, "it said {said:?}");
        Ok(())
    }

    fn line(&self) -> Result<String> {
        self.told.recv_timeout(DEADLINE).with_context(|| {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.0.id())).unwrap_or_default();
            format!("waited {DEADLINE:?} in vain for the provider, whose process is: {stat}; {}", machine())
        })
    }

    /// The part of a configuration that names it.
    pub(crate) fn settings(&self) -> String {
        let (client, secret, issuer) = (Self::CLIENT, Self::SECRET, &self.issuer);
        format!(
            "idp_provider: oidc\nidp_provider_url: {issuer}\nidp_client_id: {client}\nidp_client_secret: {secret}\n"
        )
    }

    /// What it was asked (`requests`) and what it gave out (`issued`).
    pub(crate) async fn log(&self) -> Result<Value> {
        self.ask("/_log").await
    }

    /// What it saw of refreshes; the parts that say so count from `since` on, in ms since 1970 (see tests/node/refreshes.mjs).
    pub(crate) async fn refreshes(&self, since: u64) -> Result<Refreshes> {
        self.ask(&format!("/_refreshes?since={since}")).await
    }

    async fn ask<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        Ok(plain_client()?.get(format!("{}{path}", self.issuer)).send().await?.json().await?)
    }

    /// Takes it away.
    pub(crate) fn stop(self) {
        drop(self.process);
    }
}
