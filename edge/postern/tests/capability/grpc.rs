//! gRPC, with a real client and a real server: every kind of call, statuses in trailers, and denials that a client understands
//! (01 §2.5, §4.3, §4.4).

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use axum::routing::post;
use futures_util::{StreamExt, stream};
use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tonic::server::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};
use tonic_prost::ProstCodec;
use tower::service_fn;

use crate::support::{Backend, DEADLINE, NO_PROVIDER, PUBLIC, Postern, Shown, World, acceptor, bounded};

type Codec = ProstCodec<String, String>;
type Messages = stream::BoxStream<'static, Result<String, Status>>;

/// A server with one method of each kind.
fn methods() -> Router {
    Router::new()
        .route("/test.Echo/Unary", post(unary))
        .route("/test.Echo/Server", post(server_streaming))
        .route("/test.Echo/Client", post(client_streaming))
        .route("/test.Echo/Both", post(both))
        .route("/test.Echo/Deadline", post(deadline))
        .route("/test.Echo/Hang", post(async || std::future::pending::<Response>().await))
}

fn grpc() -> Grpc<Codec> {
    Grpc::new(Codec::default())
}

async fn unary(request: Request) -> Response {
    let method = service_fn(async |request: tonic::Request<String>| match request.into_inner().as_str() {
        "fail" => Err(Status::failed_precondition("not now: 100 %")),
        text => Ok(tonic::Response::new(format!("echo {text}"))),
    });
    grpc().unary(method, request).await.map(Body::new)
}

/// How long the client waits, as it was said.
async fn deadline(request: Request) -> Response {
    let method = service_fn(async |request: tonic::Request<String>| {
        let said = request.metadata().get("grpc-timeout").and_then(|said| said.to_str().ok());
        Ok::<_, Status>(tonic::Response::new(said.unwrap_or("none").to_owned()))
    });
    grpc().unary(method, request).await.map(Body::new)
}

/// So many messages, and then an error: its status can only be in the trailers.
async fn server_streaming(request: Request) -> Response {
    let method = service_fn(async |request: tonic::Request<String>| {
        let count: usize = request.into_inner().parse().unwrap_or_default();
        let messages = stream::iter((0..count).map(|number| Ok(number.to_string())));
        let end = stream::iter([Err(Status::data_loss("the rest is lost"))]);
        Ok::<_, Status>(tonic::Response::new(messages.chain(end).boxed()))
    });
    grpc().server_streaming(method, request).await.map(Body::new)
}

async fn client_streaming(request: Request) -> Response {
    let method = service_fn(async |request: tonic::Request<Streaming<String>>| {
        let mut messages = request.into_inner();
        let mut all = Vec::new();
        while let Some(message) = messages.message().await? {
            all.push(message);
        }
        Ok::<_, Status>(tonic::Response::new(all.join(",")))
    });
    grpc().client_streaming(method, request).await.map(Body::new)
}

async fn both(request: Request) -> Response {
    let method = service_fn(async |request: tonic::Request<Streaming<String>>| {
        let echo = request.into_inner().map(|message| message.map(|text| format!("echo {text}")));
        Ok::<_, Status>(tonic::Response::new(echo.boxed() as Messages))
    });
    grpc().streaming(method, request).await.map(Body::new)
}

fn path(method: &'static str) -> PathAndQuery {
    PathAndQuery::from_static(method)
}

/// A client of the route of that name.
async fn client(world: &World, name: &'static str) -> Result<tonic::client::Grpc<Channel>> {
    let stream = world.connect(name, &["h2"]).await?;
    let mut once = Some(TokioIo::new(stream));
    let connector = service_fn(move |_| {
        let stream = once.take().ok_or_else(|| std::io::Error::other("one connection is enough"));
        std::future::ready(stream)
    });
    let endpoint = Endpoint::from_static("http://localhost").origin(world.url(name, "").parse()?);
    let channel = bounded(DEADLINE, "a channel", endpoint.connect_with_connector(connector)).await??;
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await?;
    Ok(client)
}

async fn call(client: &mut tonic::client::Grpc<Channel>, text: &str) -> Result<String, Status> {
    client.ready().await.map_err(|error| Status::unknown(error.to_string()))?;
    let request = tonic::Request::new(text.to_owned());
    let answer = client.unary(request, path("/test.Echo/Unary"), Codec::default());
    let answer = bounded(DEADLINE, "an answer", answer).await.map_err(|error| Status::unknown(error.to_string()))?;
    Ok(answer?.into_inner())
}

struct Office {
    world: World,
    _backends: Vec<Backend>,
    _postern: Postern,
}

/// `tls` and `plain` lead to servers, `dead` to nobody; `guarded` is for members alone, and `quick` gives up soon.
async fn open() -> Result<Office> {
    let world = World::new()?;
    world.issue(("up.crt", "up.key"), &["localhost".to_owned()])?;
    let shown =
        Shown { certificate: world.path("up.crt"), key: world.path("up.key"), alpn: vec!["h2"], ..Shown::default() };
    let at = (Ipv4Addr::LOCALHOST, 0).into();
    let secure = Backend::tcp("secure", at, Some(acceptor(&shown)?), methods()).await?;
    let plain = Backend::tcp("plain", at, None, methods()).await?;
    let dead = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
    let guarded = ["policy: [{ allow: { and: [{ claim/groups: admins }] } }]"];
    let routes = [
        world.route("tls", &secure.url("https", "localhost")?, PUBLIC),
        world.route("plain", &plain.url("h2c", "localhost")?, PUBLIC),
        world.route("quick", &plain.url("h2c", "localhost")?, &[PUBLIC, &["timeout: 500ms"]].concat()),
        world.route("guarded", &plain.url("h2c", "localhost")?, &guarded),
        world.route("dead", &format!("h2c://{dead}"), PUBLIC),
    ];
    let settings = format!("{NO_PROVIDER}certificate_authority_file: {}\n", world.path("ca.pem").display());
    let _postern = Postern::run(&world, &world.config(&settings, &routes.concat())).await?;
    Ok(Office { world, _backends: vec![secure, plain], _postern })
}

#[tokio::test]
async fn every_kind_of_call_passes_with_its_status() -> Result<()> {
    let office = open().await?;
    for name in ["tls", "plain"] {
        let mut client = client(&office.world, name).await?;
        assert_eq!(call(&mut client, "a").await?, "echo a", "{name}");
        let failed = call(&mut client, "fail").await.unwrap_err();
        assert_eq!((failed.code(), failed.message()), (Code::FailedPrecondition, "not now: 100 %"), "{name}");

        client.ready().await?;
        let asked = tonic::Request::new("3".to_owned());
        let answer = client.server_streaming(asked, path("/test.Echo/Server"), Codec::default()).await?;
        let got: Vec<_> = bounded(DEADLINE, "a stream", answer.into_inner().collect::<Vec<_>>()).await?;
        let words: Vec<_> = got.iter().take(3).filter_map(|one| one.as_deref().ok()).collect();
        assert_eq!(words, ["0", "1", "2"], "{name}");
        let end = got.last().and_then(|last| last.as_ref().err()).context("no status")?;
        assert_eq!((got.len(), end.code(), end.message()), (4, Code::DataLoss, "the rest is lost"), "{name}");

        client.ready().await?;
        let asked = tonic::Request::new(stream::iter(["a", "b", "c"].map(str::to_owned)));
        let answer = client.client_streaming(asked, path("/test.Echo/Client"), Codec::default());
        assert_eq!(bounded(DEADLINE, "an answer", answer).await??.into_inner(), "a,b,c", "{name}");
    }
    Ok(())
}

#[tokio::test]
async fn how_long_a_client_waits_is_told_to_the_server_as_it_was_said() -> Result<()> {
    let office = open().await?;
    for name in ["tls", "plain"] {
        let mut client = client(&office.world, name).await?;
        for (waits, said) in [(Some(Duration::from_secs(20)), "20000000u"), (None, "none")] {
            client.ready().await?;
            let mut request = tonic::Request::new(String::new());
            if let Some(waits) = waits {
                request.set_timeout(waits);
            }
            let asked = client.unary(request, path("/test.Echo/Deadline"), Codec::default());
            let answer: tonic::Response<String> = bounded(DEADLINE, "an answer", asked).await??;
            assert_eq!(answer.into_inner(), said, "{name}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_call_that_streams_both_ways_is_a_conversation() -> Result<()> {
    let office = open().await?;
    for name in ["tls", "plain"] {
        let mut client = client(&office.world, name).await?;
        let (say, said) = mpsc::channel::<String>(1);
        let said = stream::unfold(said, async |mut said| said.recv().await.map(|text| (text, said)));
        // The head of the answer comes before anything is said.
        let asked = client.streaming(tonic::Request::new(said.boxed()), path("/test.Echo/Both"), Codec::default());
        let mut answers = bounded(DEADLINE, "the head of the answer", asked).await??.into_inner();
        for number in 0..5 {
            say.send(number.to_string()).await?;
            let answer = bounded(DEADLINE, "an answer", answers.message()).await??;
            assert_eq!(answer, Some(format!("echo {number}")), "{name}");
        }
        drop(say);
        assert_eq!(bounded(DEADLINE, "the end", answers.message()).await??, None, "{name}");
    }
    Ok(())
}

#[tokio::test]
async fn refusals_and_failures_are_statuses() -> Result<()> {
    let office = open().await?;
    for (name, code) in [("guarded", Code::Unauthenticated), ("dead", Code::Unavailable)] {
        let mut client = client(&office.world, name).await?;
        assert_eq!(call(&mut client, "a").await.unwrap_err().code(), code, "{name}");
    }
    let mut client = client(&office.world, "quick").await?;
    let asked = tonic::Request::new("a".to_owned());
    let late = client.unary::<String, String, _>(asked, path("/test.Echo/Hang"), Codec::default());
    let late = bounded(DEADLINE, "an end", late).await?.unwrap_err();
    assert_eq!(late.code(), Code::DeadlineExceeded, "{late}");
    Ok(())
}

#[tokio::test]
async fn grpc_web_passes_as_it_is() -> Result<()> {
    let world = World::new()?;
    let backend = Backend::plain("a").await?;
    let routes = [
        world.route("old", &backend.url("http", "localhost")?, PUBLIC),
        world.route("new", &backend.url("h2c", "localhost")?, PUBLIC),
    ];
    let _postern = Postern::run(&world, &world.config(NO_PROVIDER, &routes.concat())).await?;
    // A message, and the frame of trailers that this dialect has in its body.
    let body = b"\0\0\0\0\x03abc\x80\0\0\0\x10grpc-status: 0\r\n".to_vec();
    let mut browser = crate::support::Browser::new(&world.ca_pem())?;
    for name in ["old", "new"] {
        let request = browser.request(reqwest::Method::POST, world.url(name, "/test.Echo/Unary"));
        let request = request.header("content-type", "application/grpc-web+proto").body(body.clone());
        let answer = browser.send(request).await?;
        assert_eq!(answer.header("content-type"), "application/grpc-web+proto", "{name}");
        assert_eq!(answer.body.as_bytes(), String::from_utf8_lossy(&body).as_bytes(), "{name}");
    }
    Ok(())
}
