//! A way to a server that can be cut, held up or closed while the server itself is well.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What happens to what is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traffic {
    /// It passes.
    Passes,
    /// It waits, both ways, as if packets were dropped: connections stay, and nothing arrives.
    Held,
    /// Connections are reset, and new ones refused.
    Refused,
}

/// A port that leads to another one.
#[derive(Debug)]
pub struct Relay {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    to: u16,
}

#[derive(Debug)]
struct State {
    traffic: Traffic,
    over: bool,
    open: Vec<TcpStream>,
}

/// How soon the listener notices that it is to close.
const TICK: Duration = Duration::from_millis(2);

impl Relay {
    /// Leads to `port` of the loopback.
    #[must_use]
    pub fn start(port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let own = listener.local_addr().unwrap().port();
        let state = State { traffic: Traffic::Passes, over: false, open: Vec::new() };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new(), to: port });
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || serving.listen(own, Some(listener)));
        Self { port: own, shared }
    }

    /// Its own port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// From now on.
    pub fn set(&self, traffic: Traffic) {
        self.shared.lock().traffic = traffic;
        if traffic == Traffic::Refused {
            self.cut();
        }
        self.shared.changed.notify_all();
    }

    /// Ends every connection that is open now.
    pub fn cut(&self) {
        for open in self.shared.lock().open.drain(..) {
            let _over = open.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.lock().over = true;
        self.cut();
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listen(self: Arc<Self>, port: u16, first: Option<TcpListener>) {
        let mut listener = first;
        loop {
            let (traffic, over) = {
                let state = self.lock();
                (state.traffic, state.over)
            };
            if over {
                return;
            }
            if traffic == Traffic::Refused {
                listener = None;
            } else if listener.is_none() {
                listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok();
            }
            let Some(open) = &listener else {
                std::thread::sleep(TICK);
                continue;
            };
            open.set_nonblocking(true).unwrap();
            match open.accept() {
                Ok((client, _)) => Arc::clone(&self).relay(&client),
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(TICK),
                Err(_) => {}
            }
        }
    }

    fn relay(self: Arc<Self>, client: &TcpStream) {
        client.set_nonblocking(false).unwrap();
        let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, self.to)) else {
            let _over = client.shutdown(Shutdown::Both);
            return;
        };
        for stream in [client, &server] {
            stream.set_nodelay(true).unwrap();
        }
        let twice = |stream: &TcpStream| (stream.try_clone().unwrap(), stream.try_clone().unwrap());
        let ((client, client_again), (server, server_again)) = (twice(client), twice(&server));
        self.lock().open.extend([client.try_clone().unwrap(), server.try_clone().unwrap()]);
        let back = Arc::clone(&self);
        std::thread::spawn(move || self.pump(client, server));
        std::thread::spawn(move || back.pump(server_again, client_again));
    }

    fn pump(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut buffer = [0; 64 * 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let held = |state: &mut State| state.traffic == Traffic::Held && !state.over;
            drop(self.changed.wait_while(self.lock(), held).unwrap_or_else(PoisonError::into_inner));
            let Some(read) = buffer.get(..count) else { break };
            if to.write_all(read).is_err() {
                break;
            }
        }
        let _over = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    }
}
