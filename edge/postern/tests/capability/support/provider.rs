//! npm's `oidc-provider` as the identity provider of a test.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::postern::plain_client;
use super::{DEADLINE, Owned, World};

/// A running provider; it ends with its owner.
#[derive(Debug)]
pub(crate) struct Provider {
    process: Owned,
    _stays_open: Option<ChildStdin>,
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
        let _stays_open = process.0.stdin.take();
        let line = first_line(process.0.stdout.take().context("stdout")?)?;
        let told: Value = serde_json::from_str(&line)
            .context("the provider did not start: `make tools-test` installs its packages")?;
        let issuer = told.get("issuer").and_then(Value::as_str).context("issuer")?.to_owned();
        Ok(Self { process, _stays_open, issuer })
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
        Ok(plain_client()?.get(format!("{}/_log", self.issuer)).send().await?.json().await?)
    }

    /// Takes it away.
    pub(crate) fn stop(self) {
        drop(self.process);
    }
}

/// The first line that it says, if that comes in time.
fn first_line(stdout: ChildStdout) -> Result<String> {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        tell.send(BufReader::new(stdout).read_line(&mut line).map(|_| line))
    });
    let line = told.recv_timeout(DEADLINE).with_context(|| format!("waited {DEADLINE:?} in vain for the provider"))?;
    Ok(line?)
}
