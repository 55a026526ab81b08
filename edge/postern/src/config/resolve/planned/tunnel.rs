//! Routes of SSH, which are not served yet: `from`, `to` and weights (01 §2.2, §2.5).

/// What a route carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carried {
    /// `ssh`: sessions of the SSH listener.
    Ssh,
}

/// `from` of such a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnel {
    /// What is carried.
    pub carried: Carried,
    /// `host` or `host:port` that is asked for.
    pub hosts: Vec<String>,
}

/// How an upstream is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// HTTP in the clear.
    Http,
    /// HTTP over TLS.
    Https,
    /// HTTP/2 in the clear, without asking.
    H2c,
    /// A connection.
    Tcp,
    /// Datagrams.
    Udp,
    /// SSH.
    Ssh,
    /// HTTP over a socket in the file system.
    Unix,
    /// HTTP over TLS over such a socket.
    UnixTls,
}

impl Scheme {
    pub(in crate::config::resolve) const ALL: [(&'static str, Self); 8] = [
        ("http", Self::Http),
        ("https", Self::Https),
        ("h2c", Self::H2c),
        ("tcp", Self::Tcp),
        ("udp", Self::Udp),
        ("ssh", Self::Ssh),
        ("unix", Self::Unix),
        ("https+unix", Self::UnixTls),
    ];

    /// Those of one number can stand side by side in one route.
    pub(in crate::config::resolve) const fn family(self) -> u8 {
        match self {
            Self::Http | Self::Https | Self::H2c => 0,
            Self::Tcp => 1,
            Self::Udp => 2,
            Self::Ssh => 3,
            Self::Unix | Self::UnixTls => 4,
        }
    }
}

/// One entry of `to` that is not served yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// How it is spoken to.
    pub scheme: Scheme,
    /// `host[:port]`, or the path of a socket.
    pub address: String,
    /// Its share of requests; `None`: as much as any other.
    pub weight: Option<u32>,
}
