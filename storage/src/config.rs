//! Where sessions are kept, already valid.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use postern_identity::{Secret, same};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Which backend, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StorageConfig {
    /// In this process: a restart signs everybody out.
    Memory,
    /// One file on disk, owned by this process alone (`databroker_storage_type: file`).
    File {
        /// The file; its folder is created if missing.
        path: PathBuf,
    },
    /// Redis or Valkey, shared by every process (`databroker_storage_type: redis`).
    Redis(Box<RedisConfig>),
}

impl StorageConfig {
    /// The name of the backend in metrics.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::File { .. } => "file",
            Self::Redis(_) => "redis",
        }
    }
}

/// What a process does for all that share a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// It keeps the heartbeat that everybody's lease lives on, and repairs what a crash left half done.
    Authn,
    /// It keeps the heartbeat alone: edges go on without authn.
    Edge,
    /// It listens.
    Reader,
}

/// Servers that keep the sessions of many processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisConfig {
    /// Which servers, and how they stand to each other.
    pub topology: Topology,
    /// The ACL user and password; none: whoever reaches a server may use it.
    pub credentials: Option<Credentials>,
    /// The database; a cluster has only 0.
    pub database: u8,
    /// What stands before every key, so that several installations can share the servers; no braces.
    pub prefix: String,
    /// TLS to every server, Sentinels included.
    pub tls: Option<RedisTls>,
    /// Servers on other machines may be spoken to without TLS.
    pub insecure: bool,
    /// How many replicas have to have a revocation, a new session or a refresh before it counts as done. Of those that
    /// there are: a master without replicas waits for none.
    pub copies: u32,
    /// What this process does for the others.
    pub part: Part,
    /// How often a heartbeat is written.
    pub heartbeat: Duration,
    /// How long one heartbeat is good for; several times as long as they are apart.
    pub lease: Duration,
    /// How long connecting to one server may take.
    pub connect: Duration,
    /// How long one operation may take, redirections and repetitions included.
    pub operation: Duration,
}

impl RedisConfig {
    /// These servers, without credentials and TLS, with the bounds that a configuration has unless it says otherwise
    /// (`docs/reference/configuration.md`).
    #[must_use]
    pub const fn new(topology: Topology) -> Self {
        Self {
            topology,
            credentials: None,
            database: 0,
            prefix: String::new(),
            tls: None,
            insecure: false,
            copies: 1,
            part: Part::Authn,
            heartbeat: Duration::from_millis(500),
            lease: Duration::from_millis(2_500),
            connect: Duration::from_secs(1),
            operation: Duration::from_millis(500),
        }
    }
}

/// How servers stand to each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Topology {
    /// One server (`redis://`, `rediss://`).
    Single(Server),
    /// A master and replicas that Sentinels watch (`redis+sentinel://`).
    Sentinel {
        /// The Sentinels.
        sentinels: Vec<Server>,
        /// The name of the master there.
        master: String,
        /// What the Sentinels themselves ask for.
        credentials: Option<Credentials>,
    },
    /// A cluster (`redis+cluster://`); some of its servers, the others are found.
    Cluster(Vec<Server>),
}

/// A server's address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Server {
    /// Name or address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl Server {
    /// A port of this machine.
    #[must_use]
    pub fn local(port: u16) -> Self {
        Self { host: "127.0.0.1".to_owned(), port }
    }

    /// Whether it is on this machine.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Who signs in to a server.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The ACL user; none is `default`.
    pub username: Option<String>,
    /// The password.
    pub password: Secret<String>,
}

impl PartialEq for Credentials {
    fn eq(&self, other: &Self) -> bool {
        self.username == other.username && same(self.password.expose().as_bytes(), other.password.expose().as_bytes())
    }
}

impl Eq for Credentials {}

/// TLS to the servers.
#[derive(Clone, Debug, Default)]
pub struct RedisTls {
    /// PEM of the authorities to trust; none: those of the system.
    pub roots: Option<Vec<u8>>,
    /// PEM of the certificate chain and of the key to show.
    pub client: Option<(Vec<u8>, Secret<Vec<u8>>)>,
}

impl PartialEq for RedisTls {
    fn eq(&self, other: &Self) -> bool {
        let client = match (&self.client, &other.client) {
            (None, None) => true,
            (Some((chain, key)), Some((others, other_key))) => {
                chain == others && same(key.expose(), other_key.expose())
            }
            (Some(_), None) | (None, Some(_)) => false,
        };
        client && self.roots == other.roots
    }
}

impl Eq for RedisTls {}

impl RedisTls {
    /// Whether it can be used.
    ///
    /// # Errors
    /// What is wrong with the certificates or the key.
    pub fn check(&self) -> Result<(), String> {
        if self.roots.is_none() && self.client.is_none() { Ok(()) } else { self.client_config().map(drop) }
    }

    /// # Errors
    /// What is wrong with the certificates or the key.
    pub(crate) fn client_config(&self) -> Result<rustls::ClientConfig, String> {
        let mut roots = RootCertStore::empty();
        match &self.roots {
            Some(pem) => {
                for certificate in certificates(pem, "the authorities of the store")? {
                    roots.add(certificate).map_err(|error| format!("an authority of the store: {error}"))?;
                }
            }
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        if roots.is_empty() {
            return Err("no authority is known that could vouch for the store".to_owned());
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| error.to_string())?.with_root_certificates(roots);
        let Some((chain, key)) = &self.client else { return Ok(builder.with_no_client_auth()) };
        let chain = certificates(chain, "the certificate for the store")?;
        let key =
            PrivateKeyDer::from_pem_slice(key.expose()).map_err(|error| format!("the key for the store: {error}"))?;
        builder.with_client_auth_cert(chain, key).map_err(|error| format!("the certificate for the store: {error}"))
    }
}

fn certificates(pem: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let read = read.map_err(|error| format!("{what}: {error}"))?;
    if read.is_empty() { Err(format!("{what}: there is no certificate in it")) } else { Ok(read) }
}
