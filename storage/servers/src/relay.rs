//! A way to a server that can be cut, held up or closed while the server itself is well.

use std::collections::HashSet;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What happens to what is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traffic {
    /// It passes.
    Passes,
    /// It passes, but that much later, each way.
    Late(Duration),
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
    /// Addresses whose traffic is held whatever becomes of that of others.
    apart: HashSet<IpAddr>,
    /// A process that the same is done to, and the ports that are known to be its own.
    process: Option<(u32, HashSet<u16>)>,
    over: bool,
    open: Vec<TcpStream>,
}

/// How soon a port is tried again that could not be had.
const TICK: Duration = Duration::from_millis(2);

impl Relay {
    /// Leads to `port` of the loopback.
    #[must_use]
    pub fn start(port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let own = listener.local_addr().unwrap().port();
        let state =
            State { traffic: Traffic::Passes, apart: HashSet::new(), process: None, over: false, open: Vec::new() };
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
            self.wake();
        }
        self.shared.changed.notify_all();
    }

    /// Holds what passes between the server and this address of the loopback, or lets it go on; others do not notice.
    pub fn hold(&self, address: Ipv4Addr, held: bool) {
        let address = IpAddr::V4(address);
        let mut state = self.shared.lock();
        let _known = if held { state.apart.insert(address) } else { state.apart.remove(&address) };
        drop(state);
        self.shared.changed.notify_all();
    }

    /// The same, of this process of this machine; of no other from now on.
    pub fn hold_process(&self, process: Option<u32>) {
        self.shared.lock().process = process.map(|process| (process, ports(process)));
        self.shared.changed.notify_all();
    }

    /// Ends every connection that is open now.
    pub fn cut(&self) {
        for open in self.shared.lock().open.drain(..) {
            let _over = open.shutdown(Shutdown::Both);
        }
    }

    /// Has whoever waits for connections look at the state again.
    fn wake(&self) {
        let _closed_already = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.lock().over = true;
        self.cut();
        self.shared.changed.notify_all();
        self.wake();
    }
}

impl State {
    fn holds(&self, source: SocketAddr) -> bool {
        let is_of_process = || self.process.as_ref().is_some_and(|(_, ports)| ports.contains(&source.port()));
        self.traffic == Traffic::Held || self.apart.contains(&source.ip()) || is_of_process()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_while(&self, holds: impl FnMut(&mut State) -> bool) -> MutexGuard<'_, State> {
        self.changed.wait_while(self.lock(), holds).unwrap_or_else(PoisonError::into_inner)
    }

    fn listen(self: Arc<Self>, port: u16, first: Option<TcpListener>) {
        let mut listener = first;
        loop {
            if self.wait_while(|state| state.traffic == Traffic::Refused && !state.over).over {
                return;
            }
            let Some(open) = listener.take().or_else(|| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()) else {
                std::thread::sleep(TICK);
                continue;
            };
            while let Ok((client, source)) = open.accept() {
                let apart = self.lock().process.as_ref().map(|(process, _)| *process);
                // Others go on while this is looked up.
                let found = apart.map(ports);
                let mut state = self.lock();
                if state.over || state.traffic == Traffic::Refused {
                    break;
                }
                if let (Some((_, known)), Some(found)) = (&mut state.process, found) {
                    known.extend(found);
                }
                drop(state);
                Arc::clone(&self).relay(&client, source);
            }
        }
    }

    fn relay(self: Arc<Self>, client: &TcpStream, source: SocketAddr) {
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
        std::thread::spawn(move || self.pump(source, client, server));
        std::thread::spawn(move || back.pump(source, server_again, client_again));
    }

    fn pump(&self, source: SocketAddr, mut from: TcpStream, mut to: TcpStream) {
        let mut buffer = [0; 64 * 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let traffic = self.wait_while(|state| !state.over && state.holds(source)).traffic;
            if let Traffic::Late(by) = traffic {
                std::thread::sleep(by);
            }
            let Some(read) = buffer.get(..count) else { break };
            if to.write_all(read).is_err() {
                break;
            }
        }
        let _over = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    }
}

/// The ports from which a process has IPv4 connections, as Linux tells it.
fn ports(process: u32) -> HashSet<u16> {
    let files = std::fs::read_dir(format!("/proc/{process}/fd")).unwrap();
    let sockets: HashSet<_> = files
        .filter_map(|file| std::fs::read_link(file.ok()?.path()).ok())
        .filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let port = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        let (own, socket) = (words.get(1)?, words.get(9)?);
        sockets.contains(*socket).then(|| u16::from_str_radix(own.split_once(':')?.1, 16).ok())?
    };
    table.lines().filter_map(port).collect()
}
