//! A way to a server that can be cut, held up or closed while the server itself is well.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What happens to what is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traffic {
    /// It passes.
    Passes,
    /// It passes, but that much later, each way.
    Late(Duration),
    /// It waits, both ways, as if packets were dropped: connections stay, and nothing arrives. A new one is made later, if its client
    /// has not given up by then.
    Held,
    /// Connections end, and new ones are refused.
    Refused,
}

/// A port that leads to another one. A thread of its own does the work, until this is dropped.
#[derive(Debug)]
pub struct Relay {
    port: u16,
    state: watch::Sender<State>,
}

#[derive(Debug)]
struct State {
    traffic: Traffic,
    /// Addresses whose traffic is held whatever becomes of that of others.
    apart: HashSet<IpAddr>,
    /// A process that the same is done to, and the ports that were its own when that began.
    process: Option<(u32, HashSet<u16>)>,
    /// How often all connections were ended.
    cuts: usize,
}

/// How soon a port is tried again that could not be had.
const TICK: Duration = Duration::from_millis(2);
/// As much is passed on at once.
const CHUNK: usize = 64 * 1024;

impl Relay {
    /// Leads to `port` of the loopback.
    #[must_use]
    pub fn start(port: u16) -> Self {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let own = listener.local_addr().unwrap().port();
        let (state, seen) =
            watch::channel(State { traffic: Traffic::Passes, apart: HashSet::new(), process: None, cuts: 0 });
        let work = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(listen(own, port, listener, seen));
        };
        std::thread::Builder::new().name(format!("relay {own}")).spawn(work).unwrap();
        Self { port: own, state }
    }

    /// Its own port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// From now on.
    pub fn set(&self, traffic: Traffic) {
        self.state.send_modify(|state| {
            state.traffic = traffic;
            state.cuts += usize::from(traffic == Traffic::Refused);
        });
    }

    /// Holds what passes between the server and this address of the loopback, or lets it go on; others do not notice.
    pub fn hold(&self, address: Ipv4Addr, held: bool) {
        let address = IpAddr::V4(address);
        self.state.send_modify(|state| {
            let _known = if held { state.apart.insert(address) } else { state.apart.remove(&address) };
        });
    }

    /// The same, of this process of this machine; of no other from now on.
    pub fn hold_process(&self, process: Option<u32>) {
        // Those made from now on are asked whose they are, so none is missed while the others are looked up.
        self.state.send_modify(|state| state.process = process.map(|process| (process, HashSet::new())));
        if let Some(process) = process {
            let ports = ports(process);
            self.state.send_modify(|state| state.process = Some((process, ports)));
        }
    }

    /// Ends every connection that is open now.
    pub fn cut(&self) {
        self.state.send_modify(|state| state.cuts += 1);
    }
}

/// Until there is no [`Relay`] any more.
async fn listen(own: u16, to: u16, first: std::net::TcpListener, mut state: watch::Receiver<State>) {
    let mut listener = Some(TcpListener::from_std(first).unwrap());
    // One that waits for what is so already does not notice the end.
    while state.has_changed().is_ok() && state.wait_for(|state| state.traffic != Traffic::Refused).await.is_ok() {
        let bound = match listener.take() {
            Some(first) => Ok(first),
            None => TcpListener::bind((Ipv4Addr::LOCALHOST, own)).await,
        };
        let Ok(open) = bound else {
            tokio::time::sleep(TICK).await;
            continue;
        };
        loop {
            let accepted = tokio::select! {
                accepted = open.accept() => accepted,
                refused = state.wait_for(|state| state.traffic == Traffic::Refused) => {
                    if refused.is_ok() {
                        break;
                    }
                    return;
                }
            };
            let Ok((client, source)) = accepted else {
                tokio::time::sleep(TICK).await;
                continue;
            };
            let (is_refused, cuts) = {
                let state = state.borrow();
                (state.traffic == Traffic::Refused, state.cuts)
            };
            if is_refused {
                break;
            }
            let (way, mut state) = (Way { source, process: None, state: state.clone() }, state.clone());
            tokio::spawn(async move {
                tokio::select! {
                    biased;
                    _cut = state.wait_for(|state| state.cuts != cuts) => {}
                    _ended = way.lead(client, to) => {}
                }
            });
        }
    }
}

/// A connection, as far as it matters for what is held.
#[derive(Clone)]
struct Way {
    source: SocketAddr,
    /// Whose it is, if that was asked when it came.
    process: Option<u32>,
    state: watch::Receiver<State>,
}

impl Way {
    async fn lead(mut self, mut client: TcpStream, to: u16) -> io::Result<()> {
        let process = self.state.borrow().process.as_ref().map(|(process, _)| *process);
        if let Some(process) = process {
            let ports = tokio::task::spawn_blocking(move || ports(process)).await?;
            self.process = ports.contains(&self.source.port()).then_some(process);
        }
        let mut sent = Vec::with_capacity(CHUNK);
        let gone = async { while client.read_buf(&mut sent).await.is_ok_and(|count| count > 0) {} };
        tokio::select! {
            biased;
            open = self.open() => { open?; }
            // Had its packets been dropped, nothing of one that gives up would ever arrive.
            () = gone => return Ok(()),
        }
        let server = TcpStream::connect((Ipv4Addr::LOCALHOST, to)).await?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let ((client, to_client), (server, to_server)) = (client.into_split(), server.into_split());
        tokio::select! {
            ended = self.clone().pump(client, to_server, sent) => ended,
            ended = self.pump(server, to_client, Vec::with_capacity(CHUNK)) => ended,
        }
    }

    /// Passes on what was read, and whatever comes, to the end.
    async fn pump(mut self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut read: Vec<u8>) -> io::Result<()> {
        loop {
            // A reset is an end as well, and is held as well.
            let is_over = read.is_empty() && from.read_buf(&mut read).await.unwrap_or(0) == 0;
            if let Traffic::Late(by) = self.open().await? {
                tokio::time::sleep(by).await;
            }
            if is_over {
                return Ok(());
            }
            to.write_all(&read).await?;
            read.clear();
        }
    }

    /// Waits until it is not held, and says how it is.
    async fn open(&mut self) -> io::Result<Traffic> {
        let (source, process) = (self.source, self.process);
        let is_open = |state: &State| {
            let is_of = |(held, ports): &(u32, HashSet<u16>)| process == Some(*held) || ports.contains(&source.port());
            state.traffic != Traffic::Held
                && !state.apart.contains(&source.ip())
                && !state.process.as_ref().is_some_and(is_of)
        };
        self.state.wait_for(is_open).await.map(|state| state.traffic).map_err(io::Error::other)
    }
}

/// The ports from which a process has IPv4 connections, as Linux tells it; none of one that is over.
fn ports(process: u32) -> HashSet<u16> {
    let Ok(files) = std::fs::read_dir(format!("/proc/{process}/fd")) else { return HashSet::new() };
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

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn who_gives_up_while_it_is_held_never_arrives() {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let relay = Relay::start(server.local_addr().unwrap().port());
        relay.set(Traffic::Held);
        let says = |what: &[u8]| {
            let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, relay.port())).unwrap();
            client.write_all(what).unwrap();
            client
        };
        let gone = says(b"gone");
        gone.shutdown(std::net::Shutdown::Write).unwrap();
        // It is told so once the relay has seen it.
        assert_eq!((&gone).read(&mut [0]).unwrap_or(0), 0);
        let _stays = says(b"here");
        relay.set(Traffic::Passes);
        let mut heard = [0; 4];
        server.accept().unwrap().0.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"here");
        server.set_nonblocking(true).unwrap();
        assert_eq!(server.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn an_end_is_held_like_all_else_and_nothing_passes_behind_a_cut() {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let relay = Relay::start(server.local_addr().unwrap().port());
        let open = || {
            let client = TcpStream::connect((Ipv4Addr::LOCALHOST, relay.port())).unwrap();
            (client, server.accept().unwrap().0)
        };
        let reads = |mut from: TcpStream| {
            let mut read = String::new();
            from.read_to_string(&mut read).map(|_count| read)
        };

        for said in ["", "late"] {
            let (mut client, arrived) = open();
            relay.set(Traffic::Held);
            client.write_all(said.as_bytes()).unwrap();
            drop(client);
            arrived.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            assert_eq!(
                arrived.peek(&mut [0]).unwrap_err().kind(),
                io::ErrorKind::WouldBlock,
                "neither bytes nor an end"
            );
            arrived.set_read_timeout(None).unwrap();
            relay.set(Traffic::Passes);
            assert_eq!(reads(arrived).unwrap(), said);
        }

        let (mut client, arrived) = open();
        relay.cut();
        // The client may be told already.
        let _told = client.write_all(b"never");
        assert_eq!(reads(arrived).unwrap_or_default(), "");
    }

    #[test]
    fn nothing_is_left_of_one_that_is_dropped() {
        for traffic in [Traffic::Passes, Traffic::Held, Traffic::Refused] {
            let relay = Relay::start(9);
            relay.set(traffic);
            let name = format!("relay {}", relay.port());
            let works = || {
                let mut threads = std::fs::read_dir("/proc/self/task").unwrap();
                threads.any(|thread| {
                    let named = std::fs::read_to_string(thread.unwrap().path().join("comm"));
                    named.is_ok_and(|named| named.trim_end() == name)
                })
            };
            crate::until("it works", works);
            drop(relay);
            crate::until("it has ended", || !works());
        }
    }
}
