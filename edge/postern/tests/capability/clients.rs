//! Clients that people have, on the streams that they keep open: git, server-sent events, a browser's WebSocket, a slow reader.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::{any, get};
use futures_util::stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;

use crate::support::{
    Browser, Chromium, DEADLINE, NO_PROVIDER, Owned, PUBLIC, Postern, Provider, Upstream, World, bounded, eventually,
    output_within,
};

/// A server of this router on a port of its own, as `to` writes it; it ends with the test.
async fn serve(router: Router) -> Result<String> {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(format!("http://{address}"))
}

/// What `git http-backend` answers: it is a program of CGI (RFC 3875).
async fn git_backend(State(root): State<PathBuf>, request: Request) -> Response {
    answered_by_git(&root, request).await.unwrap_or_else(|error| {
        let body = Body::from(format!("{error:#}"));
        Response::builder().status(500).body(body).unwrap_or_default()
    })
}

async fn answered_by_git(root: &Path, request: Request) -> Result<Response> {
    let (head, body) = request.into_parts();
    let field =
        |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let body = axum::body::to_bytes(body, 64 << 20).await?;
    let mut git = Command::new("git");
    git.arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REMOTE_USER", "whoever passed the edge")
        .env("REQUEST_METHOD", head.method.as_str())
        .env("PATH_INFO", head.uri.path())
        .env("QUERY_STRING", head.uri.query().unwrap_or_default())
        .env("CONTENT_TYPE", field("content-type"))
        .env("HTTP_CONTENT_ENCODING", field("content-encoding"))
        .env("GIT_PROTOCOL", field("git-protocol"))
        .env("CONTENT_LENGTH", body.len().to_string());
    let output = tokio::task::spawn_blocking(move || fed(git, &body)).await??;
    let end = output.windows(4).position(|window| window == b"\r\n\r\n").context("no head")?;
    let (head, rest) = output.split_at(end);
    let head = String::from_utf8_lossy(head);
    let mut answer = Response::builder();
    for (name, value) in head.lines().filter_map(|line| line.split_once(": ")) {
        answer = match name {
            "Status" => answer.status(value.get(..3).unwrap_or("500")),
            _ => answer.header(name, value),
        };
    }
    Ok(answer.body(Body::from(rest.get(4..).unwrap_or_default().to_vec()))?)
}

/// What a program says that is given this to read.
fn fed(mut program: Command, input: &[u8]) -> Result<Vec<u8>> {
    let mut child = Owned(program.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0).spawn()?);
    let (mut to, mut from) = (child.0.stdin.take().context("no input")?, child.0.stdout.take().context("no output")?);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let _it_may_have_heard_enough = to.write_all(input);
        });
        let mut output = Vec::new();
        from.read_to_end(&mut output)?;
        Ok(output)
    })
}

fn bash(folder: &Path, script: &str) -> Result<String> {
    let mut bash = Command::new("bash");
    bash.args(["-euo", "pipefail", "-c", script]).current_dir(folder).env("HOME", folder);
    bash.env("GIT_SSL_CAINFO", folder.join("ca.pem"));
    for (name, value) in [
        ("GIT_AUTHOR_NAME", "a"),
        ("GIT_AUTHOR_EMAIL", "a@b.c"),
        ("GIT_COMMITTER_NAME", "a"),
        ("GIT_COMMITTER_EMAIL", "a@b.c"),
    ] {
        bash.env(name, value);
    }
    let output = output_within(DEADLINE * 2, script, bash)?;
    ensure!(output.status.success(), "{script}\n{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[tokio::test]
async fn git_clones_and_pushes_in_both_versions_of_http() -> Result<()> {
    let world = World::new()?;
    let folder = world.folder().to_owned();
    bash(
        &folder,
        "git init -q --bare repos.git && git -C repos.git config http.receivepack true && git init -q seed && cd seed \
         && head -c 3000000 /dev/urandom > large && git add . && git commit -qm first && git push -q ../repos.git HEAD:main \
         && git -C ../repos.git symbolic-ref HEAD refs/heads/main",
    )?;
    let to = serve(Router::new().fallback(any(git_backend)).with_state(folder.clone())).await?;
    let provider = Provider::start(&world, Some("alice"))?;
    let route = world.route("git", &to, &["allow_any_authenticated_user: true"]);
    // More than a push: libcurl 7.88 may wait for ever if its upload ends just where the window does
    // (docs/guides/time-and-large-transfers.md).
    let limits = "limits: {http2_stream_window_bytes: 8388608, http2_connection_window_bytes: 8388608}\n";
    let settings = format!("{}{limits}", provider.settings());
    let postern = Postern::run(&world, &world.config(&settings, &route)).await?;
    let mut browser = Browser::new(&world.ca_pem())?;
    browser.visit(world.url("git", "/")).await?;
    let session = browser.cookie(&format!("git.{}", World::DOMAIN), "_pomerium").with_context(|| postern.told())?;
    let url = world.url("git", "/repos.git");
    let header = format!("http.extraHeader=Authorization: Pomerium {session}");
    for version in ["HTTP/1.1", "HTTP/2"] {
        let folder = folder.clone();
        let git =
            format!("git -c http.sslCAInfo={} -c http.version={version} -c '{header}'", world.path("ca.pem").display());
        let name = version.replace(['/', '.'], "");
        let script = format!(
            "{git} clone -q {url} {name} && cmp seed/large {name}/large && cd {name} && head -c 2000000 /dev/urandom > own-{name} \
             && git add . && git commit -qm second && {git} push -q origin HEAD:{name} && git -C ../repos.git rev-parse {name}"
        );
        let pushed = tokio::task::spawn_blocking(move || bash(&folder, &script)).await?;
        let pushed = pushed.with_context(|| postern.told())?;
        assert_eq!(pushed.trim().len(), 40, "{version}: {pushed}");
    }
    // Nobody else clones.
    let script = format!("GIT_TERMINAL_PROMPT=0 git clone -q {url} none");
    let refused = tokio::task::spawn_blocking(move || bash(&folder, &script)).await?;
    assert!(refused.is_err());
    Ok(())
}

/// An event for each permit of the semaphore.
async fn events(State(gate): State<Arc<Semaphore>>) -> Response {
    let events = stream::unfold((gate, 0), async |(gate, number)| {
        gate.acquire().await.ok()?.forget();
        Some((Ok::<_, std::io::Error>(Bytes::from(format!("data: {number}\n\n"))), (gate, number + 1)))
    });
    let answer = Response::builder().header("content-type", "text/event-stream");
    answer.body(Body::from_stream(events)).unwrap_or_default()
}

#[tokio::test]
async fn server_sent_events_of_an_hour_come_as_they_are_sent() -> Result<()> {
    /// One a second, were it not that each is sent as soon as the one before it has come.
    const HOUR: usize = 3_600;
    let world = World::new()?;
    let gates = [(), ()].map(|()| Arc::new(Semaphore::new(0)));
    let mut routes = String::new();
    for (name, gate) in ["one", "two"].iter().zip(&gates) {
        let to = serve(Router::new().route("/events", get(events)).with_state(Arc::clone(gate))).await?;
        routes += &world.route(name, &to, &[PUBLIC, &["timeout: 0s"]].concat());
    }
    let _postern = Postern::run(&world, &world.config(NO_PROVIDER, &routes)).await?;
    for ((name, version), gate) in [("one", "--http1.1"), ("two", "--http2")].into_iter().zip(&gates) {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--no-buffer", version, "--cacert"]).arg(world.path("ca.pem"));
        let curl = curl.arg(world.url(name, "/events")).stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
        let mut curl = Owned(curl.spawn()?);
        let mut output = curl.0.stdout.take().context("no output")?;
        for number in 0..HOUR {
            // The next is sent only once this one is here.
            gate.add_permits(1);
            let wanted = format!("data: {number}\n\n");
            let mut event = vec![0; wanted.len()];
            let reading = tokio::task::spawn_blocking(move || output.read_exact(&mut event).map(|()| (output, event)));
            let (rest, event) = bounded(DEADLINE, &format!("event {number} over {version}"), reading).await???;
            assert_eq!(String::from_utf8_lossy(&event), wanted);
            output = rest;
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_browsers_websocket_shares_the_connection_of_its_page() -> Result<()> {
    let world = World::new()?;
    let (upstream, provider) = (Upstream::start().await?, Provider::start(&world, Some("alice"))?);
    let lines = ["allow_any_authenticated_user: true", "allow_websockets: true"];
    let route = world.route("app", &upstream.url(), &lines);
    let postern = Postern::run(&world, &world.config(&provider.settings(), &route)).await?;
    let chromium = Chromium::start().await?;
    chromium.visit(&world.url("app", "/")).await?;
    chromium.sees("\"target\"").await.with_context(|| postern.told())?;
    let script = "const done = arguments[arguments.length - 1];
        const socket = new WebSocket(`wss://${location.host}/socket`);
        socket.onopen = () => socket.send('across');
        socket.onmessage = event => { done(event.data); socket.close(); };
        socket.onerror = () => done('it failed');";
    let said = bounded(DEADLINE, "the echo", chromium.driver.execute_async(script, Vec::new())).await??;
    assert_eq!(said.json(), "across", "{}", postern.told());
    let seen = upstream.seen().into_iter().find(|asked| asked.target == "/socket").context("no upgrade")?;
    assert_eq!((seen.method.as_str(), seen.header("upgrade")), ("GET", Some("websocket")));
    chromium.quit().await?;
    let is = |line: &serde_json::Value| line.get("path").is_some_and(|path| path == "/socket");
    let line = eventually("its record", async || {
        postern.log().into_iter().find(|line| is(line) && line.get("response-code").is_some())
    });
    let line = line.await?;
    // In HTTP/1.1 it would be a 101: this one is a stream of the page's own connection (RFC 8441).
    assert_eq!(line.get("response-code"), Some(&200.into()), "{line}");
    Ok(())
}

/// How much the slow reader takes; `POSTERN_TEST_SLOW_BYTES=10737418240` for the whole ten gigabytes.
fn slow_bytes() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "a test's own knob")]
    let bytes = std::env::var("POSTERN_TEST_SLOW_BYTES").ok().and_then(|text| text.parse().ok());
    bytes.unwrap_or(256 << 20)
}

#[tokio::test]
async fn r_005_a_slow_reader_of_a_long_download_costs_no_memory() -> Result<()> {
    const GROWTH: u64 = 20 << 20;
    let world = World::new()?;
    let upstream = Upstream::start().await?;
    let lines = [PUBLIC, &["timeout: 0s"]].concat();
    let postern =
        Postern::run(&world, &world.config(NO_PROVIDER, &world.route("app", &upstream.url(), &lines))).await?;
    let taken = async |bytes: u64, rest_for: std::time::Duration| -> Result<u64> {
        let mut stream = world.connect("app", &["http/1.1"]).await?;
        let host = world.host("app");
        let head = format!("GET /download?bytes={bytes} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
        let (mut piece, mut total, mut most, mut next) = (vec![0; 1 << 20], 0_u64, 0, 0);
        loop {
            let read = bounded(DEADLINE, "more of the download", stream.read(&mut piece)).await?.unwrap_or(0);
            if read == 0 {
                break;
            }
            total += read as u64;
            if total >= next {
                // It is slower than whoever sends: what is sent meanwhile has to wait there.
                tokio::time::sleep(rest_for).await;
                most = most.max(postern.memory()?);
                next += 8 << 20;
            }
        }
        ensure!(total > bytes, "only {total} of {bytes} came");
        Ok(most)
    };
    taken(32 << 20, std::time::Duration::ZERO).await?;
    let before = postern.memory()?;
    let most = taken(slow_bytes(), std::time::Duration::from_millis(100)).await?;
    assert!(most < before + GROWTH, "from {before} to {most}");
    Ok(())
}

#[tokio::test]
async fn curl_speaks_both_versions_of_http() -> Result<()> {
    let world = World::new()?;
    let upstream = Upstream::start().await?;
    let _postern =
        Postern::run(&world, &world.config(NO_PROVIDER, &world.route("app", &upstream.url(), PUBLIC))).await?;
    for (version, expected) in [("--http1.1", "1.1"), ("--http2", "2")] {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", version, "--cacert"]).arg(world.path("ca.pem"));
        curl.args(["--write-out", "\n%{http_version} %{http_code}", "--data", "a=b", &world.url("app", "/x")]);
        let running = tokio::task::spawn_blocking(move || output_within(DEADLINE, "curl", curl));
        let said = running.await??.stdout;
        let said = String::from_utf8_lossy(&said).into_owned();
        let (body, told) = said.rsplit_once('\n').context("nothing said")?;
        assert_eq!(told, format!("{expected} 200"), "{said}");
        let asked: HashMap<String, serde_json::Value> = serde_json::from_str(body)?;
        assert_eq!(asked.get("method"), Some(&"POST".into()), "{said}");
    }
    Ok(())
}
