//! Asking name servers for the addresses of upstreams (01 §1.4).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use hickory_resolver::config::{ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::{Hosts, TokioResolver};

/// How names of upstreams are looked up: `dns_*`. What is `None` is left to the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dns {
    /// `dns_lookup_family`.
    pub family: DnsFamily,
    /// `dns_refresh_rate`: how long an answer serves that says nothing of that itself.
    pub refresh: Duration,
    /// `dns_failure_refresh_rate`: how long after a failure is asked again.
    pub failure_refresh: Duration,
    /// `dns_query_timeout`: for one query to one server.
    pub timeout: Option<Duration>,
    /// `dns_query_tries`: how often each server is asked.
    pub tries: Option<u32>,
    /// `dns_use_tcp`: TCP from the beginning, for all servers.
    pub tcp: bool,
    /// `dns_resolvers`; none: those of the machine.
    pub servers: Vec<DnsServer>,
}

impl Default for Dns {
    fn default() -> Self {
        Self {
            family: DnsFamily::default(),
            refresh: Duration::from_secs(5),
            failure_refresh: Duration::from_secs(1),
            timeout: None,
            tries: None,
            tcp: false,
            servers: Vec::new(),
        }
    }
}

/// `dns_lookup_family`: which addresses of a name are used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DnsFamily {
    /// Those of IPv6 if there are any, else those of IPv4.
    Auto,
    /// Those of IPv4 alone.
    V4Only,
    /// Those of IPv6 alone.
    V6Only,
    /// Those of IPv4 if there are any, else those of IPv6.
    #[default]
    V4Preferred,
    /// All.
    All,
}

/// One server to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DnsServer {
    /// Over TCP from the beginning.
    pub tcp: bool,
    /// Where.
    pub address: SocketAddr,
}

/// What was found under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) addresses: Vec<IpAddr>,
    /// How long that holds, if it was said.
    pub(super) lives: Option<Duration>,
}

/// Looks names up.
pub(super) enum Client {
    /// By name servers; `search` are the domains that names may be meant to be below.
    Dns { resolver: Box<TokioResolver>, family: DnsFamily, search: Vec<Name> },
    /// By the system's library, where the machine names no servers.
    System(DnsFamily),
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Dns { .. } => "Dns",
            Self::System(_) => "System",
        })
    }
}

impl Client {
    /// One that does as the configuration says.
    pub(super) fn new(dns: &Dns) -> Self {
        match resolver(dns) {
            Ok((resolver, search)) => Self::Dns { resolver: Box::new(resolver), family: dns.family, search },
            Err(error) => {
                tracing::debug!(%error, "this machine names no name servers: its own library is asked");
                Self::System(dns.family)
            }
        }
    }

    /// The addresses of a name. The machine's file of hosts goes before all servers.
    ///
    /// # Errors
    /// Nobody could be asked, or somebody did not answer. That there is no address is no error, but with the system's library.
    pub(super) async fn look_up(&self, name: &str) -> io::Result<Found> {
        match self {
            Self::Dns { resolver, family, search } => {
                let asked = asked(name)?;
                if let Some(addresses) = in_hosts(asked.clone(), *family).await {
                    return Ok(Found { addresses, lives: None });
                }
                match resolver.lookup_ip(asked.clone()).await {
                    Ok(found) => {
                        let lives = found.valid_until().saturating_duration_since(Instant::now());
                        Ok(Found { addresses: found.iter().collect(), lives: Some(lives) })
                    }
                    Err(error)
                        if error.is_no_records_found() && has_none(resolver, &asked, (*family, search)).await =>
                    {
                        Ok(Found { addresses: Vec::new(), lives: None })
                    }
                    Err(error) => Err(io::Error::other(error)),
                }
            }
            Self::System(family) => {
                let all: Vec<_> = tokio::net::lookup_host((name, 0)).await?.map(|address| address.ip()).collect();
                Ok(Found { addresses: family.of(&all), lives: None })
            }
        }
    }
}

impl DnsFamily {
    /// What is used of all that there is.
    fn of(self, all: &[IpAddr]) -> Vec<IpAddr> {
        let these = |wanted: fn(&IpAddr) -> bool| all.iter().copied().filter(wanted).collect::<Vec<_>>();
        let (v4, v6) = (these(IpAddr::is_ipv4), these(IpAddr::is_ipv6));
        match self {
            Self::V4Only => v4,
            Self::V6Only => v6,
            Self::V4Preferred if v4.is_empty() => v6,
            Self::V4Preferred => v4,
            Self::Auto if v6.is_empty() => v4,
            Self::Auto => v6,
            Self::All => [v4, v6].concat(),
        }
    }

    /// What is asked for.
    const fn kinds(self) -> &'static [RecordType] {
        match self {
            Self::V4Only => &[RecordType::A],
            Self::V6Only => &[RecordType::AAAA],
            Self::Auto | Self::V4Preferred | Self::All => &[RecordType::A, RecordType::AAAA],
        }
    }

    const fn strategy(self) -> LookupIpStrategy {
        match self {
            Self::Auto => LookupIpStrategy::Ipv6thenIpv4,
            Self::V4Only => LookupIpStrategy::Ipv4Only,
            Self::V6Only => LookupIpStrategy::Ipv6Only,
            Self::V4Preferred => LookupIpStrategy::Ipv4thenIpv6,
            Self::All => LookupIpStrategy::Ipv4AndIpv6,
        }
    }
}

/// Whether name servers say that there is no address under a name, in whatever way it is meant. That of a look-up as a whole says
/// so of its last question alone: the ones before may have failed.
async fn has_none(resolver: &TokioResolver, name: &Name, (family, search): (DnsFamily, &[Name])) -> bool {
    let mut whole = name.clone();
    whole.set_fqdn(true);
    let below = search.iter().filter(|_| !name.is_fqdn()).filter_map(|domain| name.clone().append_domain(domain).ok());
    for meant in std::iter::once(whole).chain(below) {
        for kind in family.kinds() {
            match resolver.lookup(meant.clone(), *kind).await {
                Err(error) if error.is_no_records_found() => {}
                Ok(_) | Err(_) => return false,
            }
        }
    }
    true
}

/// What the file of hosts says, read anew each time: it may have changed. `None`: nothing that is used.
async fn in_hosts(mut name: Name, family: DnsFamily) -> Option<Vec<IpAddr>> {
    name.set_fqdn(true);
    let all = tokio::task::spawn_blocking(move || {
        let hosts = Hosts::from_system().ok()?;
        let of = |kind| hosts.lookup_static_host(&Query::query(name.clone(), kind));
        let found = [RecordType::A, RecordType::AAAA].into_iter().filter_map(of);
        Some(found.flat_map(|found| addresses(&found)).collect::<Vec<_>>())
    });
    let used = family.of(&all.await.ok()??);
    (!used.is_empty()).then_some(used)
}

fn addresses(found: &hickory_resolver::lookup::Lookup) -> Vec<IpAddr> {
    found.answers().iter().filter_map(|record| record.data.ip_addr()).collect()
}

/// The machine's settings, and over them those of the configuration; and the domains that names are searched below.
fn resolver(dns: &Dns) -> Result<(TokioResolver, Vec<Name>), NetError> {
    let machine = hickory_resolver::system_conf::read_system_conf();
    let (mut config, mut options) = match machine {
        Ok(found) => found,
        // Whoever names servers needs nothing of the machine.
        Err(_) if !dns.servers.is_empty() => {
            (ResolverConfig::default(), hickory_resolver::config::ResolverOpts::default())
        }
        Err(error) => return Err(error),
    };
    if !dns.servers.is_empty() {
        config.name_servers = dns.servers.iter().map(name_server).collect();
    }
    if dns.tcp {
        for server in &mut config.name_servers {
            let port = server.connections.first().map_or(53, |connection| connection.port);
            server.connections = vec![over(ConnectionConfig::tcp(), port)];
        }
    }
    options.ip_strategy = dns.family.strategy();
    // Answers are kept here, and the file of hosts is read here.
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    if let Some(timeout) = dns.timeout {
        options.timeout = timeout;
    }
    if let Some(tries) = dns.tries {
        // The library counts what comes after the first.
        options.attempts = usize::try_from(tries.saturating_sub(1)).unwrap_or(usize::MAX);
    }
    let search = config.domain.iter().chain(&config.search).cloned().collect();
    let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    Ok((builder.with_options(options).build()?, search))
}

fn name_server(server: &DnsServer) -> NameServerConfig {
    let mut named = NameServerConfig::tcp(server.address.ip());
    let port = server.address.port();
    let tcp = over(ConnectionConfig::tcp(), port);
    // What does not fit into a datagram is asked for again over TCP.
    named.connections = if server.tcp { vec![tcp] } else { vec![over(ConnectionConfig::udp(), port), tcp] };
    named
}

const fn over(mut connection: ConnectionConfig, port: u16) -> ConnectionConfig {
    connection.port = port;
    connection
}

/// A name as it is asked for. Those of machines may have a `_`, as in Compose.
fn asked(name: &str) -> io::Result<Name> {
    Name::from_str_relaxed(name).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_says_which_addresses_are_used() {
        let (v4, v6): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap());
        let both = [v6, v4];
        for (family, all, of_both) in [
            (DnsFamily::Auto, &[v4][..], &[v6][..]),
            (DnsFamily::V4Only, &[v4], &[v4]),
            (DnsFamily::V6Only, &[], &[v6]),
            (DnsFamily::V4Preferred, &[v4], &[v4]),
            (DnsFamily::All, &[v4], &[v4, v6]),
        ] {
            assert_eq!(family.of(&[v4]), all, "{family:?}");
            assert_eq!(family.of(&both), of_both, "{family:?}");
        }
        assert_eq!(DnsFamily::V4Preferred.of(&[v6]), [v6]);
    }

    #[test]
    fn servers_of_the_configuration_take_the_place_of_the_machines() {
        let server = DnsServer { tcp: false, address: "192.0.2.53:5353".parse().unwrap() };
        let ports = |server: &NameServerConfig| server.connections.iter().map(|one| one.port).collect::<Vec<_>>();
        assert_eq!(ports(&name_server(&server)), [5353, 5353]);
        assert_eq!(ports(&name_server(&DnsServer { tcp: true, ..server })), [5353]);
        let dns =
            Dns { servers: vec![server], tries: Some(3), timeout: Some(Duration::from_secs(7)), ..Dns::default() };
        let (made, _) = resolver(&dns).unwrap();
        assert_eq!((made.options().attempts, made.options().timeout), (2, Duration::from_secs(7)));
        assert_eq!(made.options().ip_strategy, LookupIpStrategy::Ipv4thenIpv6);
    }

    #[test]
    fn names_of_machines_may_have_an_underscore() {
        assert_eq!(asked("my_app").unwrap().to_string(), "my_app");
        asked(&"a".repeat(64)).unwrap_err();
    }

    #[tokio::test]
    async fn the_file_of_hosts_goes_before_all_servers() {
        // Every machine has this one.
        let found = in_hosts(Name::from_utf8("localhost").unwrap(), DnsFamily::V4Only).await;
        assert_eq!(found, Some(vec!["127.0.0.1".parse().unwrap()]));
        assert_eq!(in_hosts(Name::from_utf8("nobody.invalid").unwrap(), DnsFamily::All).await, None);
    }
}
