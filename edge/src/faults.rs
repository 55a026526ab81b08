//! A bug on demand, to see that it ends its own request only (S-115).

use std::sync::Arc;

use pingora_http::RequestHeader;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::testing::{World, config, guarded, public};
use crate::{Edge, EdgeOptions, Inherited, Metrics, PublicListener};

/// Panics for a request that asks for it.
pub(crate) fn strike(head: &RequestHeader) {
    assert!(!head.headers.contains_key("x-fault"), "a fault that was asked for");
}

async fn answer(stream: &mut TcpStream, fields: &str) -> String {
    let request = format!("GET /ping HTTP/1.1\r\nHost: app.example.com\r\n{fields}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    while !answer.contains("\r\n\r\n") {
        let mut part = vec![0; 16 * 1024];
        let read = stream.read(&mut part).await.unwrap();
        assert_ne!(read, 0, "closed after {answer:?}");
        answer.push_str(&String::from_utf8_lossy(&part[..read]));
    }
    answer
}

#[tokio::test]
async fn s_115_a_panic_ends_its_own_request_with_500_and_is_counted() {
    let mut config = config(vec![guarded("app.example.com", "/", public())]);
    config.listeners.public = PublicListener::Plain { addresses: vec![([127, 0, 0, 1], 0).into()] };
    let bound = Edge::bind(&config.listeners, &mut Inherited::default()).unwrap();
    let address = bound.addresses()[0].1;
    let metrics = Metrics::register(&prometheus::Registry::new()).unwrap();
    let gate = Arc::new(World::new(config).await.gate);
    let options = EdgeOptions { workers: 1, ..EdgeOptions::default() };
    let _edge = Edge::start(bound, gate, &metrics, options).unwrap();

    let mut other = TcpStream::connect(address).await.unwrap();
    assert!(answer(&mut other, "").await.starts_with("HTTP/1.1 200 "));
    let mut struck = TcpStream::connect(address).await.unwrap();
    let head = answer(&mut struck, "X-Fault: yes\r\n").await;
    assert!(head.starts_with("HTTP/1.1 500 ") && head.to_ascii_lowercase().contains("x-request-id: "), "{head}");
    assert!(!head.contains("a fault that was asked for"));
    assert_eq!(metrics.0.panics.get(), 1);
    assert!(answer(&mut other, "").await.starts_with("HTTP/1.1 200 "), "everybody else goes on");
    let freed = async {
        while metrics.0.in_flight.get() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), freed).await.expect("its place is free again");
}
