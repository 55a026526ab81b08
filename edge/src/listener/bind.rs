//! Binds every address before anything is served, once a core.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

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

/// Addresses that are bound, with what they are to serve. Connections wait in the backlog until the edge starts.
#[derive(Debug)]
pub struct Bound {
    pub(crate) listeners: Listeners,
    sockets: Vec<(Purpose, SocketAddr, TcpListener)>,
}

impl Bound {
    /// Binds every address of `listeners`; port 0 becomes a free port.
    ///
    /// # Errors
    /// An address is taken, unknown to this machine, or not permitted; the message names it.
    pub fn bind(listeners: &Listeners) -> io::Result<Self> {
        let (PublicListener::Tls { addresses: public, .. } | PublicListener::Plain { addresses: public }) =
            &listeners.public;
        let public = public.iter().map(|address| (Purpose::Public, *address));
        let redirect = listeners.redirect.iter().map(|address| (Purpose::Redirect, *address));
        let wanted: Vec<_> = public.chain(redirect).collect();
        let mut sockets = Vec::with_capacity(wanted.len());
        for (purpose, address) in &wanted {
            let v6_only = needs_v6_only(*address, &wanted);
            let named = |error: io::Error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"));
            // A port that somebody else listens on must be an error, which SO_REUSEPORT alone would hide.
            if address.port() != 0 {
                listen(*address, v6_only, false).map_err(named)?;
            }
            let socket = listen(*address, v6_only, true).map_err(named)?;
            sockets.push((*purpose, socket.local_addr()?, socket));
        }
        Ok(Self { listeners: listeners.clone(), sockets })
    }

    /// Where we listen, ports resolved, in the order of the configuration: public first.
    #[must_use]
    pub fn addresses(&self) -> Vec<(Purpose, SocketAddr)> {
        self.sockets.iter().map(|(purpose, address, _)| (*purpose, *address)).collect()
    }

    /// The sockets of each of `cores`; the kernel spreads connections over them.
    pub(crate) fn into_sockets(self, cores: usize) -> io::Result<Vec<Vec<(Purpose, TcpListener)>>> {
        let mut each: Vec<Vec<_>> = Vec::with_capacity(cores);
        for _ in 1..cores {
            let again = |(purpose, address, first): &(Purpose, SocketAddr, TcpListener)| {
                let v6_only = address.is_ipv6() && socket2::SockRef::from(first).only_v6().unwrap_or(false);
                listen(*address, v6_only, true).map(|socket| (*purpose, socket))
            };
            each.push(self.sockets.iter().map(again).collect::<io::Result<_>>()?);
        }
        each.push(self.sockets.into_iter().map(|(purpose, _, socket)| (purpose, socket)).collect());
        Ok(each)
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

    #[test]
    fn port_zero_becomes_a_real_port_that_every_core_shares() {
        let bound = Bound::bind(&plain(vec![([127, 0, 0, 1], 0).into()])).unwrap();
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
        let first = Bound::bind(&plain(vec![([127, 0, 0, 1], 0).into()])).unwrap();
        let taken = first.addresses()[0].1;
        let error = Bound::bind(&plain(vec![taken])).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().contains(&taken.to_string()), "{error}");
    }

    #[test]
    fn both_families_of_an_empty_host_are_bound() {
        let probe = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = probe.local_addr().unwrap().port();
        drop(probe);
        let any: Vec<SocketAddr> = vec![(Ipv6Addr::UNSPECIFIED, port).into(), (Ipv4Addr::UNSPECIFIED, port).into()];
        assert_eq!(Bound::bind(&plain(any)).unwrap().addresses().len(), 2);
    }
}
