//! HTTP/2 down, HTTP/1.1 up.

use bytes::Bytes;
use h2::client::SendRequest;
use http::{Request, StatusCode};

use crate::support::{HOST, Script, Wire, World, WorldBuilder, until};

async fn connect(world: &World) -> SendRequest<Bytes> {
    let wire = Wire::open(world.address, HOST, &world.root, &["h2", "http/1.1"]).await.unwrap();
    assert_eq!(wire.stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (client, connection) = h2::client::handshake(wire.stream).await.unwrap();
    tokio::spawn(async move { connection.await.ok() });
    client.ready().await.unwrap()
}

fn get(path: &str) -> http::request::Builder {
    Request::get(format!("https://{HOST}{path}"))
}

async fn body(mut body: h2::RecvStream) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(part) = body.data().await {
        let part = part.unwrap();
        body.flow_control().release_capacity(part.len()).unwrap();
        whole.extend_from_slice(&part);
    }
    whole
}

#[tokio::test]
async fn a_request_is_carried_with_its_body() {
    let world = World::new().await;
    world.upstream.answers("/echo", Script::Echo);
    let mut client = connect(&world).await;
    let request = Request::post(format!("https://{HOST}/echo")).body(()).unwrap();
    let (response, mut stream) = client.send_request(request, false).unwrap();
    stream.send_data(Bytes::from_static(b"one "), false).unwrap();
    stream.send_data(Bytes::from_static(b"two"), true).unwrap();
    let response = response.await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert!(response.headers().contains_key("x-request-id"));
    assert_eq!(body(response.into_body()).await, b"one two");
    let request = &world.upstream.requests()[0];
    assert_eq!((request.line(), request.fields("host")), ("POST /echo HTTP/1.1", vec![HOST]));
}

#[tokio::test]
async fn s_017_crumbs_of_a_cookie_arrive_as_one() {
    let world = World::new().await;
    let mut client = connect(&world).await;
    let request = get("/").header("cookie", "a=1").header("cookie", "b=2").body(()).unwrap();
    client.send_request(request, true).unwrap().0.await.unwrap();
    assert_eq!(world.upstream.requests()[0].fields("cookie"), ["a=1; b=2"]);
}

#[tokio::test]
async fn s_014_s_016_what_http1_would_not_carry_is_refused() {
    let world = World::new().await;
    let mut client = connect(&world).await;
    let refused = [
        get("/a%2fb").body(()).unwrap(),
        get("/").header("host", "other.localhost").body(()).unwrap(),
        Request::builder().method("TRACE").uri(format!("https://{HOST}/")).body(()).unwrap(),
    ];
    for request in refused {
        let shown = format!("{request:?}");
        client = client.ready().await.unwrap();
        match client.send_request(request, true).unwrap().0.await {
            Ok(response) => assert!(response.status().is_client_error(), "{shown}: {}", response.status()),
            Err(error) => assert!(error.is_reset(), "{shown}: {error}"),
        }
    }
    assert!(world.upstream.requests().is_empty());
}

#[tokio::test]
async fn s_015_a_body_that_differs_from_its_length_never_completes_upstream() {
    for (length, sent) in [("10", "abc"), ("2", "abc")] {
        let world = World::new().await;
        let mut client = connect(&world).await;
        let request = Request::post(format!("https://{HOST}/")).header("content-length", length).body(()).unwrap();
        let (response, mut stream) = client.send_request(request, false).unwrap();
        stream.send_data(Bytes::from_static(sent.as_bytes()), true).unwrap();
        if let Ok(response) = response.await {
            assert!(!response.status().is_success(), "{length}");
        }
        assert!(world.upstream.requests().iter().all(|request| !request.complete), "{length}");
    }
}

#[tokio::test]
async fn s_012_a_stream_that_is_reset_never_completes_upstream() {
    let world = World::new().await;
    let mut client = connect(&world).await;
    let (_response, mut stream) =
        client.send_request(Request::post(format!("https://{HOST}/")).body(()).unwrap(), false).unwrap();
    stream.send_data(Bytes::from_static(b"abc"), false).unwrap();
    until("the request is on its way", || !world.upstream.requests().is_empty()).await;
    stream.send_reset(h2::Reason::CANCEL);
    let next =
        client.ready().await.unwrap().send_request(get("/next").body(()).unwrap(), true).unwrap().0.await.unwrap();
    assert_eq!(next.status(), StatusCode::OK);
    let requests = world.upstream.requests();
    assert!(!requests[0].complete && requests[0].connection != requests[1].connection);
}

#[tokio::test]
async fn many_streams_share_a_connection_and_each_is_decided() {
    let world = World::new().await;
    let client = connect(&world).await;
    let ask = |path: &'static str| {
        let client = client.clone();
        async move {
            let mut client = client.ready().await.unwrap();
            client.send_request(get(path).body(()).unwrap(), true).unwrap().0.await.unwrap().status().as_u16()
        }
    };
    let (a, b, c) = tokio::join!(ask("/"), ask("/.pomerium/nothing"), ask("/ping"));
    assert_eq!((a, b, c), (200, 404, 200));
}

#[tokio::test]
async fn s_010_http2_without_tls_is_not_spoken() {
    let world = World::new().await;
    let tcp = tokio::net::TcpStream::connect(world.redirect).await.unwrap();
    let (client, connection) = h2::client::handshake(tcp).await.unwrap();
    let (spoken, _) = tokio::join!(async { client.ready().await.is_ok_and(|_| false) }, connection);
    assert!(!spoken);
}

#[tokio::test]
async fn r_004_a_body_that_never_ends_is_given_up_and_never_completes_upstream() {
    let read = Some(std::time::Duration::from_millis(50));
    let world = WorldBuilder::new().await.change(|config| config.timeouts.read = read).start();
    let mut client = connect(&world).await;
    let request = Request::post(format!("https://{HOST}/")).body(()).unwrap();
    let (response, mut stream) = client.send_request(request, false).unwrap();
    stream.send_data(Bytes::from_static(b"abc"), false).unwrap();
    let given_up = tokio::time::timeout(std::time::Duration::from_secs(20), response).await.unwrap();
    assert!(given_up.is_err() || given_up.is_ok_and(|response| response.status() == StatusCode::REQUEST_TIMEOUT));
    assert!(world.upstream.requests().iter().all(|request| !request.complete));
}

#[tokio::test]
async fn s_018_r_032_a_connect_is_refused_in_our_words() {
    let world = World::new().await;
    let mut client = connect(&world).await;
    let request = Request::connect(format!("{HOST}:443")).body(()).unwrap();
    let response = client.send_request(request, true).unwrap().0.await.unwrap();
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert!(response.headers().contains_key("x-request-id") && response.headers().contains_key("allow"));
    assert!(!response.headers().contains_key("server"));
    assert!(world.upstream.requests().is_empty());
}
