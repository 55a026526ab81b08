//! A request through a running edge, over sockets, and back: of somebody who is signed in, to an upstream that answers 1 KB.
//! Who asks and who answers are counted too; they take less than a hundredth.

use std::cell::RefCell;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use postern_edge::{Edge, EdgeOptions, Gate, Inherited, Listeners, Metrics, PublicListener, RunningEdge, Snapshot};
use postern_storage::Storage;
use tokio::runtime::Runtime;

use crate::gate::{self, FIELDS, Known, PATH};

/// Over HTTP/1.1 and one connection that stays.
pub(crate) fn kept_alive() -> Box<dyn Fn(usize)> {
    let office = Office::open();
    let mut asked = format!("GET {PATH} HTTP/1.1\r\n");
    for (name, value) in FIELDS.into_iter().chain([("cookie", office.cookie.as_str())]) {
        asked.push_str(&format!("{name}: {value}\r\n"));
    }
    asked.push_str("\r\n");
    let client = RefCell::new((TcpStream::connect(office.address).unwrap(), vec![0; 16 * 1024]));
    Box::new(move |_| {
        let _stays = &office;
        let (stream, answer) = &mut *client.borrow_mut();
        stream.write_all(asked.as_bytes()).unwrap();
        let mut have = 0;
        while !answer.get(..have).unwrap().ends_with(&BODY) {
            let read = stream.read(answer.get_mut(have..).unwrap()).unwrap();
            assert!(read > 0, "the edge has closed the connection");
            have += read;
        }
        assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"), "{}", String::from_utf8_lossy(answer));
    })
}

/// A running edge in front of an upstream.
struct Office {
    address: std::net::SocketAddr,
    cookie: String,
    _edge: RunningEdge,
    _storage: Storage,
    _control: Runtime,
}

impl Office {
    fn open() -> Self {
        let control = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let Known { keyring, storage, cache, cookie } =
            control.block_on(Known::of(std::time::SystemTime::now().into(), 1));
        let any = ([127, 0, 0, 1], 0).into();
        let listeners = Listeners {
            public: PublicListener::Plain { addresses: vec![any] },
            redirect: Vec::new(),
            proxy_protocol: false,
        };
        let mut config = postern_edge::EdgeConfig { listeners, ..gate::config(keyring, upstream()) };
        config.limits.requests_per_connection = u32::MAX;
        let bound = Edge::bind(&config.listeners, &mut Inherited::default()).unwrap();
        let address = bound.addresses().first().unwrap().1;
        let gate = Arc::new(Gate::new(Snapshot::new(config, 1).unwrap(), cache));
        let metrics = Metrics::register(&prometheus::Registry::new()).unwrap();
        let options = EdgeOptions { workers: 1, ..EdgeOptions::default() };
        let edge = control.block_on(async { Edge::start(bound, gate, &metrics, options) }).unwrap();
        Self { address, cookie, _edge: edge, _storage: storage, _control: control }
    }
}

/// Answers whatever is asked, one connection after the other; gives its port.
fn upstream() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut answer =
        b"HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Mon, 30 Nov 2026 08:00:00 GMT\r\nContent-Type: text/plain\r\n\
        Content-Length: 1024\r\nConnection: keep-alive\r\nETag: \"656d1f2b-400\"\r\n\r\n"
            .to_vec();
    answer.extend(BODY);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, mut asked) = (stream.unwrap(), [0; 16 * 1024]);
            let mut have = 0;
            while let Ok(read @ 1..) = stream.read(asked.get_mut(have..).unwrap()) {
                have += read;
                if asked.get(..have).unwrap().ends_with(b"\r\n\r\n") {
                    stream.write_all(&answer).unwrap();
                    have = 0;
                }
            }
        }
    });
    port
}

const BODY: [u8; 1024] = [b'x'; 1024];
