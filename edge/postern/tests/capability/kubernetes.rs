//! A Kubernetes API behind a route with a service account's token (01 §2.13): it gets our token and whom it speaks for, and
//! clients that are refused are told as its own would be.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;

use crate::support::{Asked, Browser, DEADLINE, NO_PROVIDER, Postern, Provider, Upstream, World, bounded, eventually};

/// Lines of a route with the token that is in this file of the world.
fn token_of(world: &World, name: &str) -> String {
    format!("kubernetes_service_account_token_file: {}", world.path(name).display())
}

#[tokio::test]
async fn row_kubernetes_service_account_token_goes_up_and_the_api_sees_who_is_signed_in_in_the_words_of_our_account()
-> Result<()> {
    let (world, upstream) = (World::new()?, Upstream::start().await?);
    let provider = Provider::start(&world, Some("alice"))?;
    std::fs::write(world.path("token"), "first.token\n")?;
    let routes = [
        world.route("k8s", &upstream.url(), &["allow_any_authenticated_user: true", &token_of(&world, "token")]),
        world.route("app", &upstream.url(), &["allow_any_authenticated_user: true"]),
    ];
    let postern = Postern::run(&world, &world.config(&provider.settings(), &routes.concat())).await?;
    let mut browser = Browser::new(&world.ca_pem())?;
    browser.visit(world.url("k8s", "/")).await.with_context(|| postern.told())?;
    browser.visit(world.url("app", "/")).await?;
    let mut ask = async |name: &str, path: &str| -> Result<Asked> {
        let request = browser.request(Method::GET, world.url(name, path));
        let forged = request.header("impersonate-user", "root").header("impersonate-group", "system:masters");
        let forged = forged.header("connection", "impersonate-user").header("authorization", "Bearer mine");
        browser.send(forged).await?.json()
    };
    let asked = ask("k8s", "/api/v1/pods?watch=1").await?;
    assert_eq!(asked.header("authorization"), Some("Bearer first.token"), "{asked:?}");
    assert_eq!(asked.header("impersonate-user"), Some("alice@example.com"));
    assert_eq!(asked.header("impersonate-group"), Some("admins"));
    assert_eq!(asked.target, "/api/v1/pods?watch=1");
    let asked = ask("app", "/").await?;
    assert_eq!(asked.header("authorization"), Some("Bearer mine"), "another route keeps what the client shows");

    std::fs::write(world.path("token"), "second.token\n")?;
    eventually("the new token", async || {
        let asked = ask("k8s", "/").await.ok()?;
        (asked.header("authorization") == Some("Bearer second.token")).then_some(())
    })
    .await?;
    assert!(!postern.told().contains(".token"), "{}", postern.told());
    Ok(())
}

#[tokio::test]
async fn row_kubernetes_service_account_token_speaks_for_nobody_and_kubectl_is_told_as_by_its_own_api() -> Result<()> {
    let (world, upstream) = (World::new()?, Upstream::start().await?);
    let token = "kubernetes_service_account_token: the.token";
    let routes = [
        world.route("open", &upstream.url(), &["allow_public_unauthenticated_access: true", token]),
        world.route("k8s", &upstream.url(), &["allow_any_authenticated_user: true", token]),
    ];
    let _postern = Postern::run(&world, &world.config(NO_PROVIDER, &routes.concat())).await?;
    let mut browser = Browser::new(&world.ca_pem())?;
    let mut ask = async |name: &str, accept: &str| {
        let request = browser.request(Method::GET, world.url(name, "/api"));
        let request = request.header("user-agent", "kubectl/v1.33.0 (linux/amd64) kubernetes/abcdef0");
        browser.send(request.header("accept", accept)).await
    };
    let asked: Asked = ask("open", "application/json").await?.json()?;
    assert_eq!(asked.header("impersonate-user"), Some("system:anonymous"), "{asked:?}");
    assert_eq!(asked.header("impersonate-group"), None);
    assert_eq!(asked.header("authorization"), Some("Bearer the.token"));
    for accept in ["application/json", "application/vnd.kubernetes.protobuf", "*/*"] {
        let refused = ask("k8s", accept).await?;
        assert_eq!(refused.status, StatusCode::UNAUTHORIZED, "{accept}: never sent to a page");
        let status: Value = refused.json()?;
        assert_eq!((status["kind"].as_str(), status["reason"].as_str()), (Some("Status"), Some("Unauthorized")));
        assert_eq!((status["apiVersion"].as_str(), status["code"].as_u64()), (Some("v1"), Some(401)));
    }
    assert_eq!(upstream.seen().len(), 1);
    Ok(())
}

#[tokio::test]
async fn kubectl_exec_becomes_a_pipe_in_the_words_of_our_account() -> Result<()> {
    let world = World::new()?;
    std::fs::write(world.path("token"), "the.token")?;
    let api = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let lines = ["allow_public_unauthenticated_access: true", &token_of(&world, "token")];
    let route = world.route("k8s", &format!("http://{}", api.local_addr()?), &lines);
    let _postern = Postern::run(&world, &world.config(NO_PROVIDER, &route)).await?;
    let serving = tokio::spawn(async move {
        let mut stream = BufReader::new(api.accept().await?.0);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            ensure!(stream.read_line(&mut head).await? > 0, "{head}");
        }
        stream
            .write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n")
            .await?;
        let mut bytes = [0; 5];
        stream.read_exact(&mut bytes).await?;
        stream.write_all(&bytes).await?;
        Ok((head, stream))
    });
    let mut exec = world.connect("k8s", &["http/1.1"]).await?;
    let request = format!(
        "POST /api/v1/namespaces/default/pods/web/exec?command=sh HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\n\
         Authorization: Bearer mine\r\nImpersonate-User: root\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\
         X-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n",
        world.host("k8s")
    );
    exec.write_all(request.as_bytes()).await?;
    let mut exec = BufReader::new(exec);
    let mut answer = String::new();
    while !answer.ends_with("\r\n\r\n") {
        let read = bounded(DEADLINE, "the answer", exec.read_line(&mut answer)).await??;
        ensure!(read > 0, "{answer}");
    }
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    assert!(answer.to_ascii_lowercase().contains("upgrade: spdy/3.1"), "{answer}");
    exec.write_all(b"\x80\x03\x00\x01\xff").await?;
    exec.flush().await?;
    let mut echoed = [0; 5];
    bounded(DEADLINE, "the bytes", exec.read_exact(&mut echoed)).await??;
    assert_eq!(&echoed, b"\x80\x03\x00\x01\xff");
    let (head, _stream) = serving.await??;
    let head = head.to_ascii_lowercase();
    for line in [
        "authorization: bearer the.token",
        "impersonate-user: system:anonymous",
        "upgrade: spdy/3.1",
        "connection: upgrade",
    ] {
        assert_eq!(head.lines().filter(|field| *field == line).count(), 1, "{line} in {head}");
    }
    assert!(head.contains("x-stream-protocol-version: v4.channel.k8s.io") && !head.contains("mine"), "{head}");
    Ok(())
}
