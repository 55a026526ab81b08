//! Clients with certificates of their own, and the authorities that vouch for them.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result};
use base64::Engine as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, HandshakeKind};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{DEADLINE, World, bounded, output_within};

/// Somebody who vouches for clients: keys, certificates and lists are made by `openssl`, as operators make them.
#[derive(Debug)]
pub(crate) struct Authority {
    folder: TempDir,
    certificate: CertificateDer<'static>,
    /// The certificates between this one and a root, its own first; of a root none.
    above: Vec<CertificateDer<'static>>,
}

/// A certificate that a client can show, and its key.
#[derive(Debug)]
pub(crate) struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

/// A client that keeps what it needs to resume connections.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    config: Arc<ClientConfig>,
    port: u16,
}

/// What `openssl ca` needs to know before it makes a list.
const LISTS: &str = "[ca]\ndefault_ca = own\n[own]\ndatabase = index.txt\ncrlnumber = number\ndefault_md = sha256\n\
                     crl_extensions = list\n[list]\nauthorityKeyIdentifier = keyid\n";
/// What makes a certificate one of an authority.
const AUTHORITY: &str = "basicConstraints = critical, CA:TRUE\nkeyUsage = critical, keyCertSign, cRLSign\n\
                         subjectKeyIdentifier = hash\nauthorityKeyIdentifier = keyid\n";

impl Authority {
    /// A root of that name.
    pub(crate) fn new(name: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        asks_for(folder.path(), "own", name)?;
        std::fs::write(folder.path().join("own.ext"), AUTHORITY)?;
        openssl(folder.path(), "x509 -req -in own.csr -signkey own.key -days 36500 -extfile own.ext -out own.pem")?;
        let certificate = read(folder.path(), "own.pem")?;
        Ok(Self { folder, certificate, above: Vec::new() })
    }

    /// One that this one vouches for.
    pub(crate) fn below(&self, name: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        asks_for(folder.path(), "own", name)?;
        let certificate = self.sign(folder.path(), "own", AUTHORITY, 1)?;
        let above = std::iter::once(certificate.clone()).chain(self.above.iter().cloned()).collect();
        Ok(Self { folder, certificate, above })
    }

    /// Its certificate.
    pub(crate) fn pem(&self) -> String {
        let lines = base64::engine::general_purpose::STANDARD.encode(&self.certificate);
        format!("-----BEGIN CERTIFICATE-----\n{lines}\n-----END CERTIFICATE-----\n")
    }

    /// Somebody that it vouches for: with this serial number and an e-mail and a DNS name of that name.
    pub(crate) fn identity(&self, name: &str, serial: u64) -> Result<Identity> {
        let folder = tempfile::tempdir()?;
        asks_for(folder.path(), "leaf", name)?;
        let names = format!("DNS:{name}.example.com, email:{name}@example.com");
        let extensions = format!("extendedKeyUsage = clientAuth\nsubjectAltName = {names}\n");
        let leaf = self.sign(folder.path(), "leaf", &extensions, serial)?;
        let chain = std::iter::once(leaf).chain(self.above.iter().cloned()).collect();
        Ok(Identity { chain, key: PrivateKeyDer::from_pem_file(folder.path().join("leaf.key"))? })
    }

    /// Its list of revoked certificates, with these on it.
    pub(crate) fn list(&self, revoked: &[u64]) -> Result<String> {
        let folder = self.folder.path();
        let line = |serial| format!("R\t21200101000000Z\t210101000000Z\t{}\tunknown\t/CN={serial}\n", even(serial));
        std::fs::write(folder.join("index.txt"), revoked.iter().map(line).collect::<String>())?;
        std::fs::write(folder.join("number"), "01\n")?;
        std::fs::write(folder.join("lists"), LISTS)?;
        let dates = "-crl_lastupdate 20210101000000Z -crl_nextupdate 21200101000000Z";
        let own = "-config lists -cert own.pem -keyfile own.key";
        openssl(folder, &format!("ca -gencrl {own} {dates} -out list.pem"))?;
        Ok(std::fs::read_to_string(folder.join("list.pem"))?)
    }

    /// Signs what is asked for in that folder.
    fn sign(&self, folder: &Path, name: &str, extensions: &str, serial: u64) -> Result<CertificateDer<'static>> {
        std::fs::write(folder.join(format!("{name}.ext")), extensions)?;
        let own = self.folder.path().display();
        let signer = format!("-CA {own}/own.pem -CAkey {own}/own.key -set_serial {serial} -days 36500");
        openssl(folder, &format!("x509 -req -in {name}.csr {signer} -extfile {name}.ext -out {name}.pem"))?;
        read(folder, &format!("{name}.pem"))
    }
}

/// A serial number as `openssl ca` writes it: in hex, of whole bytes.
fn even(serial: &u64) -> String {
    let hex = format!("{serial:X}");
    if hex.len() % 2 == 0 { hex } else { format!("0{hex}") }
}

/// A new key, and the question for a certificate of it.
fn asks_for(folder: &Path, file: &str, name: &str) -> Result<()> {
    openssl(folder, &format!("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out {file}.key"))?;
    openssl(folder, &format!("req -new -key {file}.key -subj /CN={} -out {file}.csr", name.replace(' ', "_")))
}

fn read(folder: &Path, file: &str) -> Result<CertificateDer<'static>> {
    Ok(CertificateDer::from_pem_file(folder.join(file))?)
}

/// Runs one line of openssl in a folder.
pub(crate) fn openssl(folder: &Path, line: &str) -> Result<()> {
    let mut command = Command::new("openssl");
    command.args(line.split(' ')).current_dir(folder);
    let output = output_within(DEADLINE, "openssl", command)?;
    anyhow::ensure!(output.status.success(), "openssl {line}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

impl Identity {
    /// SHA-256 of its certificate, in hex.
    pub(crate) fn fingerprint(&self) -> String {
        let leaf = self.chain.first().map(|leaf| leaf.as_ref()).unwrap_or_default();
        hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, leaf))
    }
}

impl World {
    /// A client that shows this certificate where it is asked for one, and speaks HTTP/1.1.
    pub(crate) fn caller(&self, identity: Option<&Identity>) -> Result<Caller> {
        let identity = identity.map(|identity| (identity.chain.clone(), identity.key.clone_key()));
        let config = self.tls(&["http/1.1"], rustls::ALL_VERSIONS, identity)?;
        Ok(Caller { config: Arc::new(config), port: self.port })
    }
}

impl Caller {
    /// A connection for a name below the domain.
    pub(crate) async fn connect(&self, name: &str) -> Result<TlsStream<TcpStream>> {
        self.connect_behind(b"", name).await
    }

    /// The same, which begins with these bytes.
    pub(crate) async fn connect_behind(&self, header: &[u8], name: &str) -> Result<TlsStream<TcpStream>> {
        let named = ServerName::try_from(format!("{name}.{}", World::DOMAIN))?;
        let connecting = async {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await?;
            stream.write_all(header).await?;
            TlsConnector::from(Arc::clone(&self.config)).connect(named, stream).await
        };
        Ok(bounded(DEADLINE, &format!("a TLS connection to {name}"), connecting).await??)
    }

    /// The status and the text of the answer to `GET path` of that host, on a connection for `name`; whether it was resumed.
    /// An error if there is no answer.
    pub(crate) async fn get(&self, name: &str, host: &str, path: &str) -> Result<(u16, String, bool)> {
        self.get_behind(b"", (name, host), path).await
    }

    /// The same, on a connection that begins with these bytes.
    pub(crate) async fn get_behind(
        &self,
        header: &[u8],
        (name, host): (&str, &str),
        path: &str,
    ) -> Result<(u16, String, bool)> {
        let mut stream = self.connect_behind(header, name).await?;
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nAccept: application/json\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        // Some servers end TLS without a word; what came before counts.
        let ended = bounded(DEADLINE, "the end of the answer", stream.read_to_end(&mut answer)).await?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.with_context(|| format!("no answer: {ended:?} {answer}"))?;
        let resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
        Ok((status, answer, resumed))
    }
}
