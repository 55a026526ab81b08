//! A real authority for certificates: Debian's Pebble, with a DNS in which every name is this machine.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use serde_json::json;

use super::{Owned, World, eventually, free_ports};

/// A running authority; it ends with its owner.
#[derive(Debug)]
pub(crate) struct Pebble {
    _processes: [Owned; 2],
    port: u16,
    client: reqwest::Client,
}

/// How it behaves.
#[derive(Debug, Default)]
pub(crate) struct Behaviour<'b> {
    /// Where it looks in TLS, and where in plain HTTP.
    pub(crate) ports: (u16, u16),
    /// For how long what it issues is good, in seconds.
    pub(crate) validity: Option<u64>,
    /// The OCSP responder that its certificates name.
    pub(crate) responder: Option<String>,
    /// The accounts that it knows from elsewhere: it takes no other.
    pub(crate) accounts: BTreeMap<&'b str, &'b str>,
}

impl Pebble {
    /// Starts one, whose own certificate is of this world's authority.
    pub(crate) async fn start(world: &World, behaviour: &Behaviour<'_>) -> Result<Self> {
        Self::at(free_ports(4)?, world, behaviour).await
    }

    /// The same at the same place, which remembers nothing.
    pub(crate) async fn begin_anew(self, world: &World, behaviour: &Behaviour<'_>) -> Result<Self> {
        let port = self.port;
        drop(self);
        Self::at(port, world, behaviour).await
    }

    async fn at(port: u16, world: &World, behaviour: &Behaviour<'_>) -> Result<Self> {
        world.issue(("acme.pem", "acme.key"), &["localhost".to_owned()])?;
        let names = format!("127.0.0.1:{}", port + 3);
        let mut config = json!({
            "listenAddress": format!("127.0.0.1:{port}"),
            "managementListenAddress": format!("127.0.0.1:{}", port + 1),
            "certificate": world.path("acme.pem"),
            "privateKey": world.path("acme.key"),
            "tlsPort": behaviour.ports.0,
            "httpPort": behaviour.ports.1,
            "externalAccountBindingRequired": !behaviour.accounts.is_empty(),
            "externalAccountMACKeys": behaviour.accounts,
        });
        if let (Some(validity), Some(config)) = (behaviour.validity, config.as_object_mut()) {
            config.insert("certificateValidityPeriod".to_owned(), json!(validity));
        }
        if let (Some(responder), Some(config)) = (&behaviour.responder, config.as_object_mut()) {
            config.insert("ocspResponderURL".to_owned(), json!(responder));
        }
        std::fs::write(world.path("pebble.json"), json!({ "pebble": config }).to_string())?;
        let management = format!("127.0.0.1:{}", port + 2);
        let nothing = ["-http01", "", "-https01", "", "-tlsalpn01", "", "-defaultIPv6", ""];
        let dns = [&nothing[..], &["-defaultIPv4", "127.0.0.1", "-dns01", &names, "-management", &management]].concat();
        let file = world.path("pebble.json").display().to_string();
        let processes =
            [begin("pebble-challtestsrv", &dns)?, begin("pebble", &["-config", &file, "-dnsserver", &names])?];
        let root = reqwest::Certificate::from_pem(world.ca_pem().as_bytes())?;
        let client = reqwest::Client::builder().no_proxy().tls_certs_only([root]).build()?;
        let pebble = Self { _processes: processes, port, client };
        eventually("the authority", async || pebble.root().await.ok()).await?;
        Ok(pebble)
    }

    /// Lines of a configuration that orders from it.
    pub(crate) fn settings(&self, world: &World) -> String {
        format!(
            "autocert: true\nautocert_ca: https://localhost:{}/dir\nautocert_email: ops@example.com\n\
             autocert_trusted_ca_file: {}\nautocert_dir: {}\n",
            self.port,
            world.path("ca.pem").display(),
            world.path("autocert").display()
        )
    }

    /// Where Postern keeps in this world what it orders from it.
    pub(crate) fn folder(&self, world: &World) -> PathBuf {
        let directory = format!("https://localhost:{}/dir", self.port);
        let id = hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, directory.as_bytes()));
        world.path("autocert").join(format!("localhost-{}", id.get(..8).unwrap_or_default()))
    }

    /// The certificate that all its certificates lead to, PEM.
    pub(crate) async fn root(&self) -> Result<String> {
        self.managed("roots/0").await
    }

    /// The certificate that signs its certificates, and its key, PEM.
    pub(crate) async fn issuer(&self) -> Result<(String, String)> {
        Ok((self.managed("intermediates/0").await?, self.managed("intermediate-keys/0").await?))
    }

    async fn managed(&self, path: &str) -> Result<String> {
        let url = format!("https://localhost:{}/{path}", self.port + 1);
        Ok(self.client.get(url).send().await?.error_for_status()?.text().await?)
    }
}

fn begin(program: &str, arguments: &[&str]) -> Result<Owned> {
    let mut command = Command::new(program);
    // It would wait before it looks, and refuse some requests at random, to teach clients patience.
    command.args(arguments).env("PEBBLE_VA_NOSLEEP", "1").env("PEBBLE_WFE_NONCEREJECT", "0").process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().map(Owned).with_context(|| format!("{program}: run `.ci/tools test`"))
}
