//! A name server of a test's own, over UDP and TCP, that answers as it is told at the moment.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA};
use hickory_proto::rr::{RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;

/// What is said of a name.
#[derive(Debug, Clone)]
pub(crate) enum Said {
    /// These addresses, for so many seconds.
    Addresses(Vec<IpAddr>, u32),
    /// There is no such name.
    Nothing,
    /// The server has failed.
    Failure,
    /// It has failed to find an address of IPv4, and knows that there is none of IPv6.
    HalfFailure,
    /// No answer at all.
    Silence,
    /// These, over TCP alone: over UDP there is too much.
    Long(Vec<IpAddr>, u32),
}

/// One query that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Query {
    pub(crate) name: String,
    pub(crate) tcp: bool,
    pub(crate) v6: bool,
}

#[derive(Debug, Default)]
struct Inner {
    said: HashMap<String, Said>,
    queries: Vec<Query>,
}

/// A running name server; it ends with its owner.
#[derive(Debug)]
pub(crate) struct Names {
    address: SocketAddr,
    inner: Arc<Mutex<Inner>>,
    _servers: JoinSet<()>,
}

impl Names {
    /// One that knows nothing yet.
    pub(crate) async fn start() -> Result<Self> {
        // The same port for both: TCP's is drawn first, as it is more often taken.
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = tcp.local_addr()?;
        let udp = Arc::new(UdpSocket::bind(address).await?);
        let inner = Arc::new(Mutex::new(Inner::default()));
        let mut servers = JoinSet::new();
        let known = Arc::clone(&inner);
        servers.spawn(async move {
            let mut packet = vec![0; 4096];
            while let Ok((length, from)) = udp.recv_from(&mut packet).await {
                if let Some(answer) = packet.get(..length).and_then(|asked| answer(&known, asked, false)) {
                    let _gone = udp.send_to(&answer, from).await;
                }
            }
        });
        let known = Arc::clone(&inner);
        servers.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = tcp.accept().await {
                let known = Arc::clone(&known);
                connections.spawn(async move {
                    let _ended = over_tcp(known, stream).await;
                });
            }
        });
        Ok(Self { address, inner, _servers: servers })
    }

    /// Settings that have names looked up here.
    pub(crate) fn settings(&self) -> String {
        format!("dns_resolvers: ['udp://{}']\n", self.address)
    }

    /// Where it is.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on that is said of a name.
    pub(crate) fn say(&self, name: &str, said: Said) {
        with(&self.inner, |inner| inner.said.insert(format!("{name}."), said));
    }

    /// Every query so far.
    pub(crate) fn queries(&self) -> Vec<Query> {
        with(&self.inner, |inner| inner.queries.clone())
    }
}

fn with<T>(inner: &Mutex<Inner>, look: impl FnOnce(&mut Inner) -> T) -> T {
    look(&mut inner.lock().unwrap_or_else(PoisonError::into_inner))
}

async fn over_tcp(inner: Arc<Mutex<Inner>>, mut stream: TcpStream) -> Result<()> {
    loop {
        let mut asked = vec![0; stream.read_u16().await?.into()];
        stream.read_exact(&mut asked).await?;
        if let Some(answer) = answer(&inner, &asked, true) {
            stream.write_u16(answer.len().try_into()?).await?;
            stream.write_all(&answer).await?;
        }
    }
}

fn answer(inner: &Mutex<Inner>, asked: &[u8], tcp: bool) -> Option<Vec<u8>> {
    let mut message = Message::from_vec(asked).ok()?.into_response();
    let query = message.queries.first().context("a query").ok()?.clone();
    let v6 = query.query_type() == RecordType::AAAA;
    // Names are spelled as they like.
    let name = query.name().to_ascii().to_ascii_lowercase();
    let said = with(inner, |inner| {
        inner.queries.push(Query { name: name.trim_end_matches('.').to_owned(), tcp, v6 });
        inner.said.get(&name).cloned()
    });
    message.metadata.recursion_available = true;
    let mut tell = |addresses: &[IpAddr], seconds| {
        for address in addresses.iter().filter(|address| address.is_ipv6() == v6) {
            let data = match address {
                IpAddr::V4(v4) => RData::A(A(*v4)),
                IpAddr::V6(v6) => RData::AAAA(AAAA(*v6)),
            };
            message.add_answer(Record::from_rdata(query.name().clone(), seconds, data));
        }
    };
    match said.unwrap_or(Said::Nothing) {
        Said::Addresses(addresses, seconds) => tell(&addresses, seconds),
        Said::Long(addresses, seconds) if tcp => tell(&addresses, seconds),
        Said::Long(..) => message.metadata.truncation = true,
        Said::Nothing => message.metadata.response_code = ResponseCode::NXDomain,
        Said::HalfFailure if v6 => {}
        Said::Failure | Said::HalfFailure => message.metadata.response_code = ResponseCode::ServFail,
        Said::Silence => return None,
    }
    message.to_vec().ok()
}
