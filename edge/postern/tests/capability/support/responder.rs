//! A real OCSP responder, openssl's, that speaks for the authority of a test.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::{DEADLINE, Owned, Pebble, World, eventually, free_port, openssl, output_within};

/// Where a responder is or may be, and what it knows.
#[derive(Debug)]
pub(crate) struct Responder {
    port: u16,
    running: Option<Owned>,
}

/// Who signs what it says, in files of the world: `issuer`, or one that was made by [`Responder::certify`].
pub(crate) const ISSUER: &str = "issuer";

impl Responder {
    /// A place, at which nobody answers yet.
    pub(crate) fn nowhere() -> Result<Self> {
        Ok(Self { port: free_port()?, running: None })
    }

    /// What certificates call it.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Speaks for a Pebble: its issuer and key are files of the world from now on.
    pub(crate) async fn speak_for(world: &World, pebble: &Pebble) -> Result<()> {
        let (certificate, key) = pebble.issuer().await?;
        std::fs::write(world.path("issuer.pem"), certificate)?;
        std::fs::write(world.path("issuer.key"), key)?;
        Ok(())
    }

    /// A certificate of these extensions, signed by `by`, and its key, as files of that name.
    pub(crate) fn certify(world: &World, by: &str, (name, extensions): (&str, &str), serial: u64) -> Result<()> {
        std::fs::write(world.path(&format!("{name}.ext")), extensions)?;
        let here = world.folder();
        openssl(here, &format!("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out {name}.key"))?;
        openssl(here, &format!("req -new -key {name}.key -subj /CN={name} -out {name}.csr"))?;
        let signer = format!("-CA {by}.pem -CAkey {by}.key -set_serial {serial} -days 90");
        openssl(here, &format!("x509 -req -in {name}.csr {signer} -extfile {name}.ext -out {name}.pem"))
    }

    /// Answers from now on, with what that signer says for so many minutes: of each serial whether it is good.
    pub(crate) async fn begin(
        &mut self,
        world: &World,
        signer: &str,
        known: &[(u64, bool)],
        minutes: u64,
    ) -> Result<()> {
        self.end();
        let row = |(serial, good): &(u64, bool)| {
            let hex = format!("{serial:X}");
            let even = if hex.len() % 2 == 0 { hex } else { format!("0{hex}") };
            let (state, revoked) = if *good { ("V", "") } else { ("R", "260101000000Z") };
            format!("{state}\t491231000000Z\t{revoked}\t{even}\tunknown\t/CN=a\n")
        };
        std::fs::write(world.path("index.txt"), known.iter().map(row).collect::<String>())?;
        let (port, minutes) = (self.port.to_string(), minutes.to_string());
        let (certificate, key) = (format!("{signer}.pem"), format!("{signer}.key"));
        let mut command = Command::new("openssl");
        command.args(["ocsp", "-index", "index.txt", "-CA", "issuer.pem", "-rsigner", &certificate, "-rkey", &key]);
        command.args(["-port", &port, "-nmin", &minutes]).current_dir(world.folder()).process_group(0);
        let log = world.path("responder.log");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(std::fs::File::create(&log)?);
        self.running = Some(command.spawn().map(Owned).context("openssl ocsp")?);
        // It stands no connection without a question.
        let waits = async || std::fs::read_to_string(&log).ok()?.contains("waiting for OCSP client").then_some(());
        eventually("the responder", waits).await
    }

    /// Nobody answers any more.
    pub(crate) fn end(&mut self) {
        self.running = None;
    }
}

impl World {
    /// What openssl says of the status of the certificate that it is shown for that name.
    pub(crate) fn status(&self, name: &str) -> Result<String> {
        let (at, host) = (format!("127.0.0.1:{}", self.port), format!("{name}.{}", Self::DOMAIN));
        let mut command = Command::new("openssl");
        command.args(["s_client", "-connect", &at, "-servername", &host, "-status"]);
        let output = output_within(DEADLINE, "openssl s_client", command)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// What openssl says of a response: who signed it is looked at, from the root of that file on.
    pub(crate) fn verified(&self, response: &[u8], root: &str) -> Result<String> {
        std::fs::write(self.path("response"), response)?;
        let mut command = Command::new("openssl");
        command.args(["ocsp", "-respin", "response", "-issuer", "issuer.pem", "-CAfile", root, "-text"]);
        command.current_dir(self.folder());
        let output = output_within(DEADLINE, "openssl ocsp", command)?;
        let said = [output.stderr, output.stdout].concat();
        Ok(String::from_utf8_lossy(&said).into_owned())
    }
}
