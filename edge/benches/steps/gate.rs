//! The gate as a whole, for a request of somebody who is signed in and whose session is near.

use std::cell::Cell;
use std::hint::black_box;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::{HeaderValue, Version, header};
use pingora_http::{RequestHeader, ResponseHeader};
use postern_edge::route::{HostRewrite, Route, Target, Upstream, UpstreamEndpoint, UpstreamScheme};
use postern_edge::{
    Admission, AssertionSlot, AuthenticateTarget, AuthnUpstream, Certificates, Connection, CookieConfig,
    DownstreamMtls, EdgeConfig, Gate, IdentityConfig, JwtIssuerFormat, Listeners, LogConfig, PathConfig, ProxyConfig,
    PublicListener, ResponseHeaders, SigningKeys, Snapshot, Timeouts, Verdict, prepare,
};
use postern_identity::{
    CookieAttributes, IdpId, Keyring, Secret, Session, SessionCookie, SessionId, Timestamp, Tokens,
};
use postern_policy::{Policy, document, ppl};
use postern_storage::{CacheConfig, Moment, SessionCache, Storage, StorageConfig};
use url::Url;

use crate::{decisions, lookups};

const HOST: &str = "app.example.com";
const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

/// From the head to the permit.
pub(crate) fn admit() -> Box<dyn Fn(usize)> {
    let office = Office::open();
    Box::new(move |_| {
        black_box(office.admission());
    })
}

/// From the permit to the head that goes up.
pub(crate) fn up() -> Box<dyn Fn(usize)> {
    let office = Office::open();
    let admission = office.admission();
    Box::new(move |_| {
        let mut head = office.head.clone();
        let admitted = black_box(&admission).admitted().unwrap();
        prepare::request(admitted, &office.snapshot, &office.id, ("up.internal:8080", NOW), &mut head);
        black_box(head);
    })
}

/// From the head to the head that goes up, of one of so many people each time, each by one of so many routes. Both heads and the
/// cookie are made anew, so that nothing is far away but what the gate keeps.
pub(crate) fn through(people: usize, routes: usize) -> Box<dyn Fn(usize)> {
    let office = Office::of(people, routes);
    let ask = move |person: usize| {
        let host = host(scattered(person, routes));
        let keyring = &office.snapshot.config.keyring;
        let cookie = format!("theme=dark; _pomerium={}", SessionCookie::seal(keyring, &host, &id_of(person)));
        let mut head = office.head.clone();
        head.insert_header(header::HOST, host).unwrap();
        head.insert_header(header::COOKIE, cookie).unwrap();
        let admission = office.admission_of(&head);
        let admitted = admission.admitted().unwrap();
        prepare::request(admitted, &office.snapshot, &office.id, ("up.internal:8080", NOW), &mut head);
        black_box(head);
    };
    // Each has an assertion then.
    (0..people).for_each(&ask);
    // Of its own, since the number of a turn begins at 0 again with each round.
    let asked = Cell::new(0);
    Box::new(move |_| ask(scattered(asked.replace(asked.get() + 1), people)))
}

/// Some number below that one, each as likely as any other.
fn scattered(turn: usize, below: usize) -> usize {
    let mixed = (turn as u64).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    usize::try_from((mixed ^ mixed >> 32) % below as u64).unwrap()
}

/// The host of a route.
fn host(route: usize) -> String {
    if route == 0 { HOST.to_owned() } else { format!("app-{route}.example.com") }
}

fn id_of(person: usize) -> SessionId {
    let mut bytes = [0; 32];
    for (part, more) in bytes.chunks_exact_mut(8).zip(0..) {
        part.copy_from_slice(&(scattered(person * 4 + more, usize::MAX) as u64).to_le_bytes());
    }
    SessionId::from_bytes(bytes)
}

/// From the upstream's head to the one that goes down.
pub(crate) fn down() -> Box<dyn Fn(usize)> {
    let office = Office::open();
    let admission = office.admission();
    let mut answer = ResponseHeader::build_no_case(200, None).unwrap();
    for (name, value) in [
        ("server", "nginx"),
        ("date", "Mon, 30 Nov 2026 08:00:00 GMT"),
        ("content-type", "text/plain"),
        ("content-length", "1024"),
        ("connection", "keep-alive"),
        ("etag", "\"656d1f2b-400\""),
    ] {
        answer.append_header(name, value).unwrap();
    }
    Box::new(move |_| {
        let mut head = answer.clone();
        let Verdict::Pass(permit) = black_box(&admission).verdict() else { panic!("refused") };
        prepare::response(permit, &office.snapshot, &office.id, &mut head);
        black_box(head);
    })
}

/// What a browser asks for, and says.
pub(crate) const PATH: &str = "/api/v1/items?page=2";
pub(crate) const FIELDS: [(&str, &str); 5] = [
    ("host", HOST),
    ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
    ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    ("accept-language", "en-GB,en;q=0.5"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
];

/// Somebody whose session is near, and their cookies.
pub(crate) struct Known {
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) storage: Storage,
    pub(crate) cache: Arc<SessionCache<AssertionSlot>>,
    pub(crate) cookie: String,
}

impl Known {
    /// So many people, and the cookie of the first.
    pub(crate) async fn of(now: Timestamp, people: usize) -> Self {
        let keyring = Arc::new(Keyring::derive(&Secret::new([1; 32]), &Secret::new([2; 32])));
        let registry = prometheus::Registry::new();
        let storage = Storage::open(StorageConfig::Memory, Arc::clone(&keyring), &registry).unwrap();
        let word = |word: &str| Secret::new(word.to_owned());
        let tokens = Tokens {
            access: word("access"),
            access_expires_at: None,
            refresh: None,
            id_token: word("id"),
            refresh_at: None,
        };
        let cache = storage.cache(CacheConfig::default());
        for person in 0..people {
            let id = id_of(person);
            let session = Session {
                handle: id.handle(&keyring),
                issued_at: now,
                expires_at: now.plus(Duration::from_secs(36_000)),
                ..decisions::session(&format!("u-{person}"))
            };
            storage.sessions().create(&session, &tokens).await.unwrap();
            cache.load(&id, now, Duration::ZERO).await.unwrap();
        }
        let cookie = format!("theme=dark; _pomerium={}", SessionCookie::seal(&keyring, HOST, &id_of(0)));
        Self { keyring, storage, cache, cookie }
    }
}

/// A gate, and a request of somebody whom it knows.
struct Office {
    gate: Gate,
    snapshot: Arc<Snapshot>,
    connection: Connection,
    /// Both clocks were read when the request began.
    began: Moment,
    head: RequestHeader,
    id: HeaderValue,
    _storage: Storage,
}

impl Office {
    fn open() -> Self {
        Self::of(1, 1)
    }

    fn of(people: usize, routes: usize) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let Known { keyring, storage, cache, cookie } = runtime.block_on(Known::of(NOW, people));
        let mut config = config(keyring, 8080);
        config.routes = (0..routes).map(|number| Arc::new(route(&host(number), 8080))).collect();
        let snapshot = Snapshot::new(config, 1).unwrap();
        let peer: SocketAddr = "192.0.2.7:4711".parse().unwrap();
        let gate = Gate::new(snapshot, cache);
        let mut head = RequestHeader::build_no_case("GET", PATH.as_bytes(), None).unwrap();
        head.set_version(Version::HTTP_11);
        for (name, value) in FIELDS.into_iter().chain([("connection", "keep-alive"), ("cookie", &cookie)]) {
            head.append_header(name, value).unwrap();
        }
        Self {
            snapshot: gate.snapshot(),
            gate,
            connection: Connection::plain(peer, "192.0.2.1:443".parse().unwrap()),
            began: NOW.into(),
            head,
            id: HeaderValue::from_static("0192f0c1-7e00-4000-8000-000000000000"),
            _storage: storage,
        }
    }

    /// The request, which may pass; nothing is waited for, since the session is near.
    fn admission(&self) -> Admission {
        self.admission_of(&self.head)
    }

    fn admission_of(&self, head: &RequestHeader) -> Admission {
        let admitting = pin!(self.gate.admit(black_box(&self.snapshot), head, &self.connection, self.began));
        let polled = admitting.poll(&mut Context::from_waker(Waker::noop()));
        let Poll::Ready(admission) = polled else { panic!("{polled:?}") };
        assert!(matches!(admission.verdict(), Verdict::Pass(_)), "{admission:?}");
        admission
    }
}

/// A route of that host to an upstream at this port.
fn route(host: &str, port: u16) -> Route {
    let policy = "allow: { and: [ { domain: { is: example.com } }, { groups: { has: staff } } ] }";
    let policy = Policy::new(Vec::new(), ppl::parse(&document::read(policy).unwrap()).unwrap());
    let endpoint = UpstreamEndpoint {
        scheme: UpstreamScheme::Http,
        host: "127.0.0.1".to_owned(),
        port,
        authority: "up.internal:8080".into(),
        weight: 1,
    };
    let target = Target::Upstream(Upstream { endpoints: Box::new([endpoint]), ..Upstream::default() });
    let timeout = Some(Duration::from_secs(30));
    let id = host.to_owned();
    Route { id, policy, target, timeout, host_rewrite: HostRewrite::Upstream, ..lookups::plain_route(host) }
}

/// One route to an upstream at this port.
pub(crate) fn config(keyring: Arc<Keyring>, port: u16) -> EdgeConfig {
    EdgeConfig {
        listeners: Listeners {
            public: PublicListener::Plain { addresses: Vec::new() },
            redirect: Vec::new(),
            proxy_protocol: false,
        },
        certificates: Certificates::default(),
        downstream_mtls: DownstreamMtls::default(),
        authenticate: AuthenticateTarget {
            url: Url::parse("https://auth.example.com").unwrap(),
            upstream: AuthnUpstream::Here("127.0.0.1:1".parse().unwrap()),
            idp: Some(IdpId::new("main")),
            programs: postern_identity::ProgramHosts::default(),
        },
        cookie: CookieConfig { name: "_pomerium".to_owned(), attributes: CookieAttributes::default() },
        keyring,
        identity: IdentityConfig {
            keys: Arc::new(SigningKeys::derive([&[1; 32]]).unwrap()),
            claim_headers: Vec::new(),
            issuer_format: JwtIssuerFormat::HostOnly,
            pass_identity_headers: true,
            jwt_endpoint: false,
            groups_filter: None,
        },
        request: PathConfig::default(),
        proxy: ProxyConfig::default(),
        timeouts: Timeouts::default(),
        logs: LogConfig::default(),
        response_headers: ResponseHeaders::default(),
        routes: vec![Arc::new(route(HOST, port))],
        limits: postern_edge::EdgeLimits::default(),
        own_hosts: Vec::new(),
    }
}
