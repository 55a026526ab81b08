//! The running edge with people who are signed in, and an upstream that answers with what it got.

use std::net::SocketAddr;
use std::sync::Arc;

use postern::config::{self, Config, Environment};
use postern_edge::{AuthnUpstream, Edge, EdgeOptions, Gate, Host, Inherited, Metrics, RunningEdge, Snapshot};
use postern_identity::{IdpId, Keyring, Secret, ServiceAccountToken, Session, SessionCookie, SessionId, Tokens};
use postern_storage::{CacheConfig, Storage, StorageConfig};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// A running edge, and everything around it.
pub(crate) struct World {
    edge: RunningEdge,
    edge_at: SocketAddr,
    /// Where the upstream is.
    pub(crate) upstream: SocketAddr,
    people: Vec<(SessionId, Arc<Session>)>,
    keyring: Arc<Keyring>,
    version: u64,
    connection: Option<BufReader<TcpStream>>,
    /// Open as long as the edge is.
    _storage: Storage,
}

/// What came back.
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
}

impl Answer {
    /// The value of a field.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        field(&self.head, name)
    }
}

/// The value of a field of a head.
pub(crate) fn field<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    head.lines().skip(1).find_map(|line| {
        let (field, value) = line.split_once(':')?;
        field.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// The configuration that a text holds.
pub(crate) fn load(text: &str) -> Config {
    let environment = Environment::of::<&str, &str>([]).unwrap();
    let loaded = config::load_text(Some("config.yaml"), text, false, &environment);
    loaded.config.unwrap_or_else(|| panic!("{}\n{text}", loaded.problems.to_human(config::Colour::Plain)))
}

impl World {
    /// Starts everything, with no route, and with the sessions that `people` makes, given the id of the provider; their handles
    /// are set here.
    pub(crate) async fn start(people: impl FnOnce(&IdpId) -> Vec<Session>) -> Self {
        let upstream = serve().await;
        let config = load(&crate::configs::text(&[], upstream, 0));
        let registry = prometheus::Registry::new();
        let keyring = Arc::clone(&config.edge.keyring);
        let storage = Storage::open(StorageConfig::Memory, Arc::clone(&keyring), &registry).unwrap();
        let idp = config.authn.idps.first().map(|idp| idp.id.clone()).expect("a provider");
        let people = people(&idp).into_iter().zip(1..).map(|(session, number)| {
            let id = SessionId::from_bytes([number; 32]);
            let session = Session { handle: id.handle(&keyring), ..session };
            (id, Arc::new(session))
        });
        let people: Vec<_> = people.collect();
        for (_, session) in &people {
            storage.sessions().create(session, &tokens()).await.unwrap();
        }
        let bound = Edge::bind(&config.edge.listeners, &mut Inherited::default()).unwrap();
        let edge_at = bound.addresses().first().map(|(_, address)| *address).expect("an address");
        let snapshot = Snapshot::new(config.edge, 0).unwrap();
        let gate = Arc::new(Gate::new(snapshot, storage.cache(CacheConfig::default())));
        let options = EdgeOptions { workers: 1, ..EdgeOptions::default() };
        let edge = Edge::start(bound, gate, &Metrics::register(&registry).unwrap(), options).unwrap();
        Self { edge, edge_at, upstream, people, keyring, version: 0, connection: None, _storage: storage }
    }

    /// Puts a configuration in force.
    pub(crate) fn reload(&mut self, config: &Config) {
        self.version += 1;
        let mut edge = config.edge.clone();
        edge.authenticate.upstream = AuthnUpstream::Here(self.upstream);
        self.edge.reload(Snapshot::new(edge, self.version).unwrap()).unwrap();
    }

    /// Somebody's session, and the cookie that shows it to a host.
    pub(crate) fn person(&self, number: usize, authority: &str) -> (Arc<Session>, String) {
        let (id, session) = &self.people[number];
        (Arc::clone(session), self.cookie(id, authority))
    }

    /// What a service account shows.
    pub(crate) fn service_account(&self, number: usize) -> String {
        let (id, Session { user, issued_at, expires_at, .. }) = (&self.people[number].0, &*self.people[number].1);
        format!("Pomerium {}", ServiceAccountToken::seal(&self.keyring, id, &user.id, *issued_at, *expires_at))
    }

    /// The cookie that shows a session to a host, whether there is such a session or not.
    pub(crate) fn cookie(&self, id: &SessionId, authority: &str) -> String {
        let host = Host::parse(authority.as_bytes()).map_or_else(|_| String::new(), |host| host.name().to_owned());
        format!("_pomerium={}", SessionCookie::seal(&self.keyring, &host, id))
    }

    /// Sends a head and gives what comes back, over one connection as long as it lasts.
    pub(crate) async fn send(&mut self, method: &str, head: &str) -> Answer {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => BufReader::new(TcpStream::connect(self.edge_at).await.unwrap()),
        };
        connection.write_all(head.as_bytes()).await.unwrap();
        let head = read_head(&mut connection).await.expect("an answer");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        let bodiless = method == "HEAD" || matches!(status, 204 | 304);
        let length = field(&head, "content-length").and_then(|length| length.parse().ok()).filter(|_| !bodiless);
        let mut body = vec![0; length.unwrap_or(0)];
        connection.read_exact(&mut body).await.unwrap();
        let over = field(&head, "connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        self.connection = Some(connection).filter(|_| !over);
        Answer { status, head, body: String::from_utf8_lossy(&body).into_owned() }
    }
}

async fn read_head(stream: &mut BufReader<TcpStream>) -> Option<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).await.ok()? == 0 {
            return None;
        }
    }
    Some(head)
}

/// An upstream whose answer is the head that it got.
async fn serve() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                while let Some(head) = read_head(&mut stream).await {
                    // What comes without a length and not in chunks has no body; every other body here is empty.
                    if field(&head, "transfer-encoding").is_some() {
                        let mut end = String::new();
                        while !end.ends_with("0\r\n\r\n") && stream.read_line(&mut end).await.is_ok_and(|read| read > 0)
                        {
                        }
                    }
                    let body = if head.starts_with("HEAD ") { "" } else { head.as_str() };
                    let answer = format!(
                        "HTTP/1.1 200 OK\r\nX-Head: {}\r\nContent-Length: {}\r\n\r\n{body}",
                        escaped(&head),
                        head.len()
                    );
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// A head in one line, for answers that have no body.
fn escaped(head: &str) -> String {
    if head.starts_with("HEAD ") { head.replace("\r\n", "\u{1}").replace('\u{1}', "%0A") } else { "-".to_owned() }
}

fn tokens() -> Tokens {
    Tokens {
        access: Secret::new("access".to_owned()),
        access_expires_at: None,
        refresh: None,
        id_token: Secret::new("id".to_owned()),
        refresh_at: None,
    }
}
