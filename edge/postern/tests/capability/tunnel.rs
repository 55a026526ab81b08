//! Connections of TCP routes pass for whom the policy allows, to the upstream of the route alone, through clients that people have.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;

use crate::support::{
    Browser, DEADLINE, NO_PROVIDER, Owned, PUBLIC, Postern, Provider, Upstream, World, bounded, eventually, free_port,
    output_within, plain_client,
};

struct Office {
    world: World,
    /// Alice's session on the host of the proxy.
    session: String,
    postern: Postern,
    upstream: Upstream,
    _provider: Provider,
}

/// Alice is signed in on `app`, which is also where connections are asked for: to the upstream as `web.internal:80` by her, to
/// `ssh.internal:22` by her, and to `ops.internal:22` by nobody.
async fn open(ssh: u16) -> Result<Office> {
    let world = World::new()?;
    let (upstream, provider) = (Upstream::start().await?, Provider::start(&world, Some("alice"))?);
    let web = upstream.url().replace("http://", "tcp://");
    let routes = [
        world.route("app", &upstream.url(), &["allow_any_authenticated_user: true"]),
        tunnel("web.internal:80", &web, "allowed_users: [alice@example.com]"),
        tunnel("ssh.internal:22", &format!("tcp://127.0.0.1:{ssh}"), "allowed_users: [alice@example.com]"),
        tunnel("ops.internal:22", &web, "allowed_users: [bob@example.com]"),
    ];
    let postern = Postern::run(&world, &world.config(&provider.settings(), &routes.concat())).await?;
    let mut browser = Browser::new(&world.ca_pem())?;
    browser.visit(world.url("app", "/")).await?;
    let session = browser.cookie(&format!("app.{}", World::DOMAIN), "_pomerium").with_context(|| postern.told())?;
    let session = session.to_owned();
    Ok(Office { world, session, postern, upstream, _provider: provider })
}

fn tunnel(authority: &str, to: &str, policy: &str) -> String {
    format!("  - from: tcp+https://app.{}/{authority}\n    to: {to}\n    {policy}\n", World::DOMAIN)
}

impl Office {
    fn credential(&self) -> String {
        format!("Authorization: Pomerium {}\r\n", self.session)
    }

    /// Asks for a connection as the command line client does: the head of the answer, and what becomes of the connection.
    async fn connect(&self, authority: &str, fields: &str) -> Result<(String, TlsStream<TcpStream>)> {
        let mut stream = self.world.connect("app", &["http/1.1"]).await?;
        let request = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{fields}\r\n");
        stream.write_all(request.as_bytes()).await?;
        let reading = async {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await?);
            }
            Ok::<_, std::io::Error>(String::from_utf8_lossy(&head).into_owned())
        };
        let head = bounded(DEADLINE, "the answer to a CONNECT", reading).await??;
        Ok((head, stream))
    }

    /// Takes one connection on this machine, and asks Postern for one in turn, as a client's local port does.
    async fn take_one(&self, local: &TcpListener, authority: &str) -> Result<()> {
        let (mut near, _) = bounded(DEADLINE, "a client", local.accept()).await??;
        let (head, mut far) = self.connect(authority, &self.credential()).await?;
        ensure!(head.starts_with("HTTP/1.1 200 "), "{head}");
        copy_bidirectional(&mut near, &mut far).await?;
        Ok(())
    }
}

fn field<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    let fields = head.lines().filter_map(|line| line.split_once(": "));
    fields.into_iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

#[tokio::test]
async fn s_105_a_connection_is_for_whom_its_policy_allows_and_to_its_upstream_alone() -> Result<()> {
    let office = open(9).await?;
    let (head, mut stream) = office.connect("web.internal:80", &office.credential()).await?;
    ensure!(head.starts_with("HTTP/1.1 200 "), "{head}\n{}", office.postern.told());
    let request = "GET /inside HTTP/1.1\r\nHost: web.internal\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    bounded(DEADLINE, "the end of the tunnel", stream.read_to_end(&mut answer)).await??;
    drop(stream);
    let text = String::from_utf8_lossy(&answer).into_owned();
    assert!(text.starts_with("HTTP/1.1 200 OK") && text.contains("\"/inside\""), "{text}");
    let seen = office.upstream.seen().into_iter().filter(|asked| asked.target == "/inside").collect::<Vec<_>>();
    assert_eq!(seen.len(), 1);
    assert!(seen[0].headers.iter().all(|(name, _)| name == "host" || name == "connection"), "{seen:?}");

    let id = field(&head, "x-request-id").context("no request id")?;
    let line = office.postern.line("http-request", id).await?;
    let told = |key: &str| line.get(key).cloned().unwrap_or_default();
    assert_eq!((told("method"), told("authority")), ("CONNECT".into(), "web.internal:80".into()), "{line}");
    assert_eq!((told("response-code"), told("response-code-details")), (200.into(), "via-upstream".into()), "{line}");
    assert_eq!((told("received"), told("size")), (request.len().into(), answer.len().into()), "both ways: {line}");
    let checked = office.postern.line("authorize check", id).await?;
    assert_eq!((checked.get("allow"), checked.get("email")), (Some(&true.into()), Some(&"alice@example.com".into())));

    let before = office.upstream.seen().len();
    for (authority, fields, status) in [
        ("web.internal:80", String::new(), 302),
        ("web.internal:80", "Authorization: Pomerium stale\r\n".to_owned(), 401),
        ("ops.internal:22", office.credential(), 403),
        ("web.internal:81", office.credential(), 405),
        ("127.0.0.1:80", office.credential(), 405),
    ] {
        let (head, mut stream) = office.connect(authority, &fields).await?;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{authority}: {head}");
        stream.write_all(request.as_bytes()).await?;
        let mut rest = Vec::new();
        let _unclean = bounded(DEADLINE, "the end", stream.read_to_end(&mut rest)).await?;
        assert!(!String::from_utf8_lossy(&rest).contains("/inside"), "{authority}");
    }
    assert_eq!(office.upstream.seen().len(), before, "nothing of it went anywhere");
    Ok(())
}

#[tokio::test]
async fn r_016_a_connection_that_cannot_be_had_is_tried_elsewhere_within_the_budget_and_is_held_against_its_endpoint()
-> Result<()> {
    for (settings, status, outcome) in
        [("", 200, "tried"), ("circuit_breaker_thresholds: {max_retries: 0}\n", 502, "refused")]
    {
        let (world, upstream) = (World::new()?, Upstream::start().await?);
        let to = format!("[\"tcp://127.0.0.1:9\", \"{}\"]", upstream.url().replace("http://", "tcp://"));
        let rules = "outlier_detection: {consecutive_5xx: 1, max_ejection_percent: 50}";
        let route = tunnel("web.internal:80", &to, &format!("{}\n    name: web\n    {rules}", PUBLIC[0]));
        let postern = Postern::run(&world, &world.config(&format!("{NO_PROVIDER}{settings}"), &route)).await?;
        let request = "CONNECT web.internal:80 HTTP/1.1\r\nHost: web.internal:80\r\n\r\n\
                       GET / HTTP/1.1\r\nHost: web.internal\r\nConnection: close\r\n\r\n";
        let answer = world.exchange("app", request).await?;
        ensure!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}\n{}", postern.told());
        let metrics = format!("http://127.0.0.1:{}/metrics", world.metrics);
        let metrics = plain_client()?.get(&metrics).send().await?.text().await?;
        for line in [
            format!("postern_edge_upstream_retries_total{{outcome=\"{outcome}\"}} 1"),
            "postern_edge_upstream_ejections_total{cause=\"consecutive-5xx\",route=\"web\"} 1".to_owned(),
        ] {
            assert!(metrics.lines().any(|told| told == line), "{line}\n{metrics}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn curl_takes_postern_for_the_proxy_that_it_is() -> Result<()> {
    let office = open(9).await?;
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--proxytunnel", "--proxy-cacert"]).arg(office.world.path("ca.pem"));
    curl.args(["--proxy", &office.world.url("app", "")]);
    curl.args(["--proxy-header", office.credential().trim(), "http://web.internal:80/by-curl"]);
    let running = tokio::task::spawn_blocking(move || output_within(DEADLINE, "curl", curl));
    let output = running.await??;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success() && said.contains("/by-curl"), "{output:?}\n{}", office.postern.told());
    Ok(())
}

/// A server of OpenSSH that lets in whoever has the key of this folder, and its port.
fn sshd(folder: &Path) -> Result<(Owned, u16)> {
    let port = free_port()?;
    for name in ["host_key", "user_key"] {
        let mut keygen = Command::new("ssh-keygen");
        keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(folder.join(name));
        let made = output_within(DEADLINE, "ssh-keygen", keygen)?;
        ensure!(made.status.success(), "{made:?}");
    }
    fs::copy(folder.join("user_key.pub"), folder.join("authorized"))?;
    // It wants this folder, which a service would make.
    let _root_alone_needs_it = fs::create_dir_all("/run/sshd");
    let at = |name: &str| folder.join(name).display().to_string();
    let config = format!(
        "ListenAddress 127.0.0.1:{port}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\n\
         PasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\nPermitRootLogin yes\n",
        at("host_key"),
        at("authorized"),
    );
    fs::write(folder.join("sshd_config"), config)?;
    let server = Command::new("/usr/sbin/sshd")
        .args(["-D", "-e", "-f", &at("sshd_config")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(folder.join("sshd.log"))?)
        .process_group(0)
        .spawn()
        .context("starting sshd: `make tools-test` installs it")?;
    Ok((Owned(server), port))
}

#[tokio::test]
async fn ssh_runs_commands_and_carries_megabytes_through_a_tunnel() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (_server, port) = sshd(folder.path())?;
    let log = || fs::read_to_string(folder.path().join("sshd.log")).unwrap_or_default();
    eventually("sshd", async || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.ok()).await.with_context(log)?;
    let office = open(port).await?;
    let local = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let key = folder.path().join("user_key");
    // Both ways at once: what goes in comes back, and its sum is told at the end.
    let script = format!(
        "head -c 8000000 /dev/urandom > {0}/sent && ssh -F none -i {1} -p {2} -o BatchMode=yes -o UserKnownHostsFile=/dev/null \
         -o StrictHostKeyChecking=no -o LogLevel=ERROR \"$(id -un)@127.0.0.1\" 'tee /dev/stderr | sha256sum' \
         < {0}/sent 2> {0}/back > {0}/sum && cmp {0}/sent {0}/back && sha256sum < {0}/sent | cmp - {0}/sum && echo same",
        folder.path().display(),
        key.display(),
        local.local_addr()?.port(),
    );
    let mut bash = Command::new("bash");
    bash.args(["-euo", "pipefail", "-c", &script]);
    let running = tokio::task::spawn_blocking(move || output_within(DEADLINE * 2, "ssh", bash));
    let (output, taken) = tokio::join!(running, office.take_one(&local, "ssh.internal:22"));
    taken.with_context(log)?;
    let output = output??;
    ensure!(output.stdout == b"same\n", "{output:?}\n{}\n{}", log(), office.postern.told());
    Ok(())
}

#[test]
fn whoever_asks_about_connections_is_told_what_happens() -> Result<()> {
    let world = World::new()?;
    let provider = "idp_provider: oidc\nidp_provider_url: https://idp.example.com\nidp_client_id: postern\n";
    let config = |user: &str| {
        let web = world.route("app", "http://127.0.0.1:9", &["allow_any_authenticated_user: true"]);
        let db = tunnel("db.internal:5432", "tcp://10.0.0.5:5432", &format!("allowed_users: [{user}@example.com]"));
        world.config(provider, &[web, db].concat())
    };
    let file = |name: &str, text: &str| -> Result<String> {
        let path = world.path(name);
        fs::write(&path, text)?;
        Ok(path.display().to_string())
    };
    let (old, new) = (file("old.yaml", &config("alice"))?, file("new.yaml", &config("bob"))?);
    let run = |arguments: &[&str]| Postern::once(world.folder(), arguments);

    let checked = run(&["check", &old])?;
    assert_eq!(checked.status.code(), Some(0), "{}", checked.told());

    let explain = |url: &str, user: &str| -> Result<Value> {
        let told =
            run(&["explain", "--config", &old, "--url", url, "--email", user, "--user", "u", "--format", "json"])?;
        serde_json::from_str(&told.stdout).with_context(|| told.told())
    };
    let outcome = |told: &Value| told.get("outcome").and_then(Value::as_str).map(str::to_owned);
    let allowed = explain("tcp+https://db.internal:5432", "alice@example.com")?;
    assert_eq!(outcome(&allowed).as_deref(), Some("allowed"), "{allowed:#}");
    assert_eq!(allowed.pointer("/upstream/address"), Some(&"10.0.0.5:5432".into()), "{allowed:#}");
    assert_eq!(outcome(&explain("tcp+https://db.internal:5432", "bob@example.com")?).as_deref(), Some("refused"));
    assert_eq!(outcome(&explain("tcp+https://db.internal:5433", "alice@example.com")?).as_deref(), Some("refused"));
    assert_eq!(outcome(&explain("https://db.internal:5432/", "alice@example.com")?).as_deref(), Some("not-found"));

    let routes = run(&["routes", &old])?;
    assert!(
        routes.stdout.contains("CONNECT db.internal:5432") && routes.stdout.contains("tcp://10.0.0.5:5432"),
        "{}",
        routes.told()
    );
    let one = run(&["routes", &old, "--url", "tcp+https://db.internal:5432"])?;
    assert!(one.stdout.contains("db.internal:5432") && !one.stdout.contains("http://127.0.0.1:9"), "{}", one.told());

    let changed = run(&["diff", &old, &new])?;
    assert_eq!(changed.status.code(), Some(1), "{}", changed.told());
    assert!(
        changed.stdout.contains("CONNECT db.internal:5432") && changed.stdout.contains("alice@example.com"),
        "{}",
        changed.told()
    );
    assert_eq!(run(&["diff", &old, &old])?.status.code(), Some(0));
    Ok(())
}
