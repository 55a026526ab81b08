//! Clients with certificates of their own, and the authorities that vouch for them.

use std::net::Ipv4Addr;
use std::sync::Arc;

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, HandshakeKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{DEADLINE, World, bounded};

/// Somebody who vouches for clients.
#[derive(Debug)]
pub(crate) struct Authority {
    signer: CertifiedIssuer<'static, KeyPair>,
    /// The certificates between this one and a root, its own first.
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

fn params(name: &str) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, name);
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2120, 1, 1));
    Ok(params)
}

impl Authority {
    /// A root of that name.
    pub(crate) fn new(name: &str) -> Result<Self> {
        let mut params = params(name)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let signer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        Ok(Self { signer, above: Vec::new() })
    }

    /// One that this one vouches for.
    pub(crate) fn below(&self, name: &str) -> Result<Self> {
        let mut params = params(name)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let signer = CertifiedIssuer::signed_by(params, KeyPair::generate()?, &self.signer)?;
        let above = std::iter::once(signer.der().clone()).chain(self.above.iter().cloned()).collect();
        Ok(Self { signer, above })
    }

    /// Its certificate.
    pub(crate) fn pem(&self) -> String {
        self.signer.pem()
    }

    /// Somebody that it vouches for: with this serial number and an e-mail and a DNS name of that name.
    pub(crate) fn identity(&self, name: &str, serial: u64) -> Result<Identity> {
        let (mut params, key) = (params(name)?, KeyPair::generate()?);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.serial_number = Some(SerialNumber::from(serial));
        let names = [
            SanType::DnsName(format!("{name}.example.com").try_into()?),
            SanType::Rfc822Name(format!("{name}@example.com").try_into()?),
        ];
        params.subject_alt_names = names.to_vec();
        let leaf = params.signed_by(&key, &self.signer)?.der().clone();
        let chain = std::iter::once(leaf).chain(self.above.iter().cloned()).collect();
        Ok(Identity { chain, key: PrivateKeyDer::try_from(key.serialize_der()).map_err(|why| anyhow::anyhow!(why))? })
    }

    /// Its list of revoked certificates, with these on it.
    pub(crate) fn list(&self, revoked: &[u64]) -> Result<String> {
        let revoked = revoked.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2021, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2021, 1, 1),
            next_update: date_time_ymd(2120, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(list.signed_by(&self.signer)?.pem()?)
    }
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
