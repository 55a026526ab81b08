//! Binds every address before anything is served, once a core.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use nix::sys::socket::{getsockopt, sockopt::AcceptConn};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{Listeners, PublicListener};

/// What an address is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The public listener.
    Public,
    /// Sends everybody to https.
    Redirect,
}

/// Listening sockets that others have opened for this process: a service manager, or the process whose place it takes.
#[derive(Debug, Default)]
pub struct Inherited(Vec<(SocketAddr, TcpListener)>);

impl Inherited {
    /// These sockets, as far as they listen.
    #[must_use]
    pub fn of(sockets: impl IntoIterator<Item = TcpListener>) -> Self {
        let listening = |socket: TcpListener| {
            let listens = getsockopt(&socket, AcceptConn).unwrap_or(false);
            let address = socket.local_addr().ok().filter(|_| listens);
            if address.is_none() {
                tracing::warn!("a socket that was handed to this process does not listen, and is closed");
            }
            Some((address?, socket))
        };
        Self(sockets.into_iter().filter_map(listening).collect())
    }

    /// Takes those that listen on this address: of one there may be several, one a core.
    ///
    /// # Errors
    /// The system does not let them be waited on.
    pub fn take(&mut self, address: SocketAddr) -> io::Result<Vec<TcpListener>> {
        let taken = self.0.extract_if(.., |(at, _)| *at == address).map(|(_, socket)| {
            socket.set_nonblocking(true)?;
            Ok(socket)
        });
        taken.collect()
    }

    /// Where those listen that nobody has taken. They are closed with this.
    #[must_use]
    pub fn left(self) -> Vec<SocketAddr> {
        self.0.into_iter().map(|(address, _)| address).collect()
    }
}

/// Addresses that are bound, with what they are to serve. Connections wait in the backlog until the edge starts.
#[derive(Debug)]
pub struct Bound {
    pub(crate) listeners: Listeners,
    sockets: Vec<Listening>,
}

/// What listens on one address.
#[derive(Debug)]
struct Listening {
    purpose: Purpose,
    address: SocketAddr,
    sockets: Vec<TcpListener>,
    /// Opened by others: further sockets on this address are theirs to allow, and it is these that hold who waits.
    inherited: bool,
}

impl Bound {
    /// Binds every address of `listeners` that none of `inherited` listens on; port 0 becomes a free port.
    ///
    /// # Errors
    /// An address is taken, unknown to this machine, or not permitted; the message names it.
    pub fn bind(listeners: &Listeners, inherited: &mut Inherited) -> io::Result<Self> {
        let (PublicListener::Tls { addresses: public, .. } | PublicListener::Plain { addresses: public }) =
            &listeners.public;
        let public = public.iter().map(|address| (Purpose::Public, *address));
        let redirect = listeners.redirect.iter().map(|address| (Purpose::Redirect, *address));
        let wanted: Vec<_> = public.chain(redirect).collect();
        let named = |address: SocketAddr| {
            move |error: io::Error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
        };
        let mut all: Vec<(usize, Listening)> = Vec::with_capacity(wanted.len());
        // First what is there: one may serve an address that is written before its own.
        for (place, (purpose, address)) in wanted.iter().enumerate() {
            let sockets = inherited.take(*address).map_err(named(*address))?;
            if !sockets.is_empty() {
                all.push((place, Listening { purpose: *purpose, address: *address, sockets, inherited: true }));
            }
        }
        for (place, (purpose, address)) in wanted.iter().enumerate() {
            let (purpose, address) = (*purpose, *address);
            if all.iter().any(|(taken, other)| *taken == place || other.serves(address)) {
                continue;
            }
            let v6_only = needs_v6_only(address, &wanted);
            // A port that somebody else listens on must be an error, which SO_REUSEPORT alone would hide.
            if address.port() != 0 {
                listen(address, v6_only, false).map_err(named(address))?;
            }
            let socket = listen(address, v6_only, true).map_err(named(address))?;
            let address = socket.local_addr()?;
            all.push((place, Listening { purpose, address, sockets: vec![socket], inherited: false }));
        }
        all.sort_by_key(|(place, _)| *place);
        let sockets = all.into_iter().map(|(_, listening)| listening).collect();
        Ok(Self { listeners: listeners.clone(), sockets })
    }

    /// Where we listen, ports resolved, in the order of the configuration: public first.
    #[must_use]
    pub fn addresses(&self) -> Vec<(Purpose, SocketAddr)> {
        self.sockets.iter().map(|listening| (listening.purpose, listening.address)).collect()
    }

    /// The sockets of each of `cores`; the kernel spreads connections over them.
    pub(crate) fn into_sockets(self, cores: usize) -> io::Result<Vec<Vec<(Purpose, TcpListener)>>> {
        let mut each: Vec<Vec<_>> = (0..cores).map(|_| Vec::new()).collect();
        for listening in self.sockets {
            let purpose = listening.purpose;
            for (index, socket) in listening.spread(cores)?.into_iter().enumerate() {
                if let Some(core) = each.get_mut(index % cores) {
                    core.push((purpose, socket));
                }
            }
        }
        Ok(each)
    }
}

impl Listening {
    /// Whether connections to `address` come here too: `[::]` may take the older protocol along.
    fn serves(&self, address: SocketAddr) -> bool {
        let is_any = |address: SocketAddr| address.ip().is_unspecified();
        let any = self.address.is_ipv6() && address.is_ipv4() && is_any(self.address) && is_any(address);
        let v6_only = |socket| socket2::SockRef::from(socket).only_v6().unwrap_or(true);
        any && self.address.port() == address.port() && self.sockets.iter().all(|socket| !v6_only(socket))
    }

    /// One for each core at least.
    fn spread(mut self, cores: usize) -> io::Result<Vec<TcpListener>> {
        let missing = cores.saturating_sub(self.sockets.len());
        let again = |first: &TcpListener| {
            if self.inherited {
                return first.try_clone();
            }
            let v6_only = self.address.is_ipv6() && socket2::SockRef::from(first).only_v6().unwrap_or(false);
            listen(self.address, v6_only, true)
        };
        let further = self.sockets.iter().cycle().take(missing).map(again).collect::<io::Result<Vec<_>>>()?;
        self.sockets.extend(further);
        Ok(self.sockets)
    }
}

/// `[::]` beside `0.0.0.0` must leave the older protocol to it.
fn needs_v6_only(address: SocketAddr, all: &[(Purpose, SocketAddr)]) -> bool {
    let any_v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
    address.ip() == Ipv6Addr::UNSPECIFIED && all.iter().any(|(_, other)| *other == any_v4)
}

fn listen(address: SocketAddr, v6_only: bool, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(v6_only)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// The kernel cuts it to net.core.somaxconn.
const BACKLOG: i32 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(addresses: Vec<SocketAddr>) -> Listeners {
        Listeners { public: PublicListener::Plain { addresses }, redirect: Vec::new(), proxy_protocol: false }
    }

    fn bind(addresses: Vec<SocketAddr>) -> io::Result<Bound> {
        Bound::bind(&plain(addresses), &mut Inherited::default())
    }

    #[test]
    fn port_zero_becomes_a_real_port_that_every_core_shares() {
        let bound = bind(vec![([127, 0, 0, 1], 0).into()]).unwrap();
        let addresses = bound.addresses();
        assert_ne!(addresses[0].1.port(), 0);
        let sockets = bound.into_sockets(3).unwrap();
        assert_eq!(sockets.len(), 3);
        for core in sockets {
            assert_eq!(core[0].1.local_addr().unwrap(), addresses[0].1);
        }
    }

    #[test]
    fn a_port_that_is_taken_is_an_error_that_names_it() {
        let first = bind(vec![([127, 0, 0, 1], 0).into()]).unwrap();
        let taken = first.addresses()[0].1;
        let error = bind(vec![taken]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().contains(&taken.to_string()), "{error}");
    }

    #[test]
    fn who_waits_at_a_socket_that_was_inherited_is_served_by_some_core() {
        let theirs = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, other) = (theirs.local_addr().unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        let elsewhere = other.local_addr().unwrap();
        let _waits = std::net::TcpStream::connect(address).unwrap();
        let mut inherited = Inherited::of([theirs, other]);
        let bound = Bound::bind(&plain(vec![address]), &mut inherited).unwrap();
        assert_eq!(bound.addresses(), [(Purpose::Public, address)]);
        assert_eq!(inherited.left(), [elsewhere]);
        let sockets = bound.into_sockets(2).unwrap();
        assert_eq!(sockets.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1]);
        assert!(sockets[1][0].1.accept().is_ok(), "each core has all of the queue");
    }

    #[test]
    fn no_socket_is_lost_where_there_are_fewer_cores_than_before() {
        let before = bind(vec![([127, 0, 0, 1], 0).into()]).unwrap();
        let address = before.addresses()[0].1;
        let sockets = before.into_sockets(3).unwrap().into_iter().flatten().map(|(_, socket)| socket);
        let bound = Bound::bind(&plain(vec![address]), &mut Inherited::of(sockets)).unwrap();
        let counts: Vec<_> = bound.into_sockets(2).unwrap().iter().map(Vec::len).collect();
        assert_eq!(counts, [2, 1]);
    }

    #[test]
    fn an_inherited_socket_that_takes_both_families_is_enough_for_an_empty_host() {
        let both = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
        both.set_only_v6(false).unwrap();
        both.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)).into()).unwrap();
        both.listen(1).unwrap();
        let both = TcpListener::from(both);
        let v6 = both.local_addr().unwrap();
        let v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, v6.port()));
        for wanted in [vec![v6, v4], vec![v4, v6]] {
            let mut inherited = Inherited::of([both.try_clone().unwrap()]);
            let bound = Bound::bind(&plain(wanted), &mut inherited).unwrap();
            assert_eq!(bound.addresses(), [(Purpose::Public, v6)]);
        }
    }

    #[test]
    fn a_connection_that_was_handed_over_is_no_listener() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let _client = std::net::TcpStream::connect(address).unwrap();
        let accepted = TcpListener::from(std::os::fd::OwnedFd::from(listener.accept().unwrap().0));
        assert!(Inherited::of([accepted]).take(address).unwrap().is_empty());
    }

    #[test]
    fn both_families_of_an_empty_host_are_bound() {
        let probe = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = probe.local_addr().unwrap().port();
        drop(probe);
        let any: Vec<SocketAddr> = vec![(Ipv6Addr::UNSPECIFIED, port).into(), (Ipv4Addr::UNSPECIFIED, port).into()];
        assert_eq!(bind(any).unwrap().addresses().len(), 2);
    }
}
