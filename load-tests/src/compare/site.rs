//! What stands around the proxies: an application, a certificate, an identity provider.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use postern_identity::random;
use serde_json::json;
use tempfile::TempDir;

use super::cores::{Cores, Processes};

/// Everything that is no proxy. It lives in memory where the system has a place for that.
#[derive(Debug)]
pub(crate) struct Site {
    folder: TempDir,
    /// Where the application answers.
    pub(crate) application: SocketAddr,
    /// Where it is decided who may pass, for proxies that have to ask: the least that such a service can do.
    pub(crate) authorizer: SocketAddr,
    /// Where WebSockets are echoed.
    pub(crate) echo: SocketAddr,
    pub(crate) issuer: String,
    /// `shared_secret` and `cookie_secret`, as a configuration has them.
    pub(crate) secrets: [String; 2],
    /// What that costs is a cost of who asks, and on the same core.
    pub(crate) authorizing: Processes,
    _nginx: Processes,
    _provider: Provider,
}

impl Site {
    /// Starts it.
    pub(crate) fn start(cores: &Cores) -> Result<Self> {
        let memory = Path::new("/dev/shm");
        let mut builder = tempfile::Builder::new();
        builder.prefix("postern-compare");
        let folder = if memory.is_dir() { builder.tempdir_in(memory) } else { builder.tempdir() }?;
        let at = |name: &str| folder.path().join(name);
        certificate(folder.path())?;
        fs::create_dir(at("www"))?;
        for (name, length) in [("1k", 1 << 10), ("64k", 64 << 10), ("10m", 10 << 20)] {
            fs::write(at("www").join(name), vec![b'x'; length])?;
        }
        let (application, authorizer) = (free()?, free()?);
        let served = [
            (
                "application",
                application,
                format!(
                    "root {}/www;\n    location = /identity {{ return 200 \"$http_x_pomerium_jwt_assertion\"; }}",
                    folder.path().display()
                ),
            ),
            (
                "authorizer",
                authorizer,
                format!(
                    "if ($known = 0) {{ return 403; }}\n    add_header X-Pomerium-Jwt-Assertion {};\n    location / {{ return 200; }}",
                    "e".repeat(340)
                ),
            ),
        ];
        let [nginx, authorizing] = served.map(|(name, address, server)| {
            let cores = (name == "authorizer").then_some(cores);
            serve(folder.path(), (name, address, &server), cores)
        });
        let secret = || Ok::<_, anyhow::Error>(STANDARD.encode(random::<32>().context("no randomness")?));
        let provider = Provider::start(3_600)?;
        let issuer = provider.issuer.clone();
        let echo = super::ask::echo()?;
        Ok(Self {
            folder,
            application,
            authorizer,
            echo,
            issuer,
            secrets: [secret()?, secret()?],
            authorizing: authorizing?,
            _nginx: nginx?,
            _provider: provider,
        })
    }

    /// Starts another application, which answers everything with 200.
    pub(crate) fn another(&self, name: &str, address: SocketAddr) -> Result<Processes> {
        serve(self.folder.path(), (name, address, "location / { return 200; }"), None)
    }

    /// A file of it.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// What is missing, if a program is.
pub(crate) const MISSING: &str = "load-tests/README.md has the line that installs what is needed";
/// The host of everybody's application.
pub(crate) const HOST: &str = "app.bench.localhost";
/// The host where people sign in.
pub(crate) const AUTHENTICATE: &str = "authenticate.bench.localhost";
/// Who has signed in, as far as a proxy with a fixed cookie is concerned.
pub(crate) const TOKEN: &str = "Qm9iIGhhcyBzaWduZWQgaW4sIGFuZCB0aGlzIGlzIHRoZSBwcm9vZiBvZiBpdA";

/// Writes a certificate for hosts such as [`HOST`], and its key.
pub(crate) fn certificate(folder: &Path) -> Result<()> {
    let names = ["*.bench.localhost", "bench.localhost"].map(str::to_owned);
    let mut parameters = rcgen::CertificateParams::new(names)?;
    parameters.distinguished_name.push(rcgen::DnType::CommonName, "Postern load tests");
    let key = rcgen::KeyPair::generate()?;
    let certificate = parameters.self_signed(&key)?.pem();
    fs::write(folder.join("cert.pem"), &certificate)?;
    fs::write(folder.join("key.pem"), key.serialize_pem())?;
    // As haproxy wants them.
    fs::write(folder.join("both.pem"), certificate + &key.serialize_pem())?;
    Ok(())
}

/// Starts a server; on the proxies' core, if cores are given.
fn serve(folder: &Path, (name, address, server): (&str, SocketAddr, &str), cores: Option<&Cores>) -> Result<Processes> {
    let [config, log] = ["conf", "log"].map(|ending| folder.join(format!("{name}.{ending}")));
    write(&config, &configuration(folder, name, address, server))?;
    let program = Path::new("nginx");
    let mut nginx = cores.map_or_else(|| Command::new(program), |cores| cores.for_proxy(program));
    nginx.arg("-c").arg(config).args(["-g", "daemon off;"]).stderr(self::log(&log)?);
    let mut nginx = Processes::start(nginx).context(MISSING)?;
    listens(&mut nginx, address, &log)?;
    Ok(nginx)
}

/// Of a server that does nothing but answer. The authorizer looks at the cookie, and has an assertion that is always the same.
fn configuration(folder: &Path, name: &str, address: SocketAddr, server: &str) -> String {
    let at = folder.join(name);
    let at = at.display();
    format!(
        r"worker_processes 1;
pid {at}.pid;
events {{ worker_connections 16000; }}
http {{
  access_log off;
  error_log stderr error;
  client_body_temp_path {at}-body;
  proxy_temp_path {at}-proxy;
  fastcgi_temp_path {at}-fastcgi;
  uwsgi_temp_path {at}-uwsgi;
  scgi_temp_path {at}-scgi;
  keepalive_requests 1000000000;
  keepalive_timeout 1h;
  sendfile on;
  tcp_nopush on;
  default_type text/plain;
  open_file_cache max=10;
  large_client_header_buffers 8 32k;
  map_hash_bucket_size 256;
  map $cookie_session $known {{ default 0; {TOKEN} 1; }}
  server {{
    listen {address};
    {server}
  }}
}}
",
    )
}

/// npm's `oidc-provider`, which signs everybody in as alice.
#[derive(Debug)]
pub(crate) struct Provider {
    _processes: Processes,
    /// It ends with this.
    _tell: ChildStdin,
    pub(crate) issuer: String,
}

/// The one client of the provider, and where its answers may go: every Postern of a run has a port of its own.
pub(crate) const CLIENT: [&str; 2] = ["postern-load-tests", "the-secret-of-the-load-tests"];
/// The ports of the Posterns, since the provider has to know them first.
pub(crate) const PORTS: std::ops::Range<u16> = 18_440..18_460;

impl Provider {
    /// Starts one whose access tokens are good for so many seconds.
    pub(crate) fn start(access: u32) -> Result<Self> {
        let [client_id, client_secret] = CLIENT;
        let redirect_uris: Vec<_> =
            PORTS.map(|port| format!("https://authenticate.bench.localhost:{port}/oauth2/callback")).collect();
        let settings = json!({
            "clients": [{
                "client_id": client_id,
                "client_secret": client_secret,
                "redirect_uris": redirect_uris,
                "grant_types": ["authorization_code", "refresh_token"],
            }],
            "users": { "alice": { "email": "alice@example.com", "name": "Alice Adams", "groups": ["admins", "staff"] } },
            "auto": "alice",
            "ttl": {
                "AccessToken": access,
                "AuthorizationCode": 60,
                "IdToken": 3600,
                "RefreshToken": 86400,
                "Session": 86400,
                "Grant": 86400,
                "Interaction": 600,
            },
        });
        let mut node = Command::new("node");
        node.args(["--no-warnings", "provider.mjs", &settings.to_string()])
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../edge/postern/tests/node"));
        let (processes, tell, told) = Processes::start_with_pipes(node).context(MISSING)?;
        let mut line = String::new();
        BufReader::new(told).read_line(&mut line)?;
        let told: serde_json::Value =
            serde_json::from_str(&line).context("the provider did not start: run `make tools-test` once")?;
        let issuer = told.get("issuer").and_then(serde_json::Value::as_str).context("no issuer")?.to_owned();
        Ok(Self { _processes: processes, _tell: tell, issuer })
    }
}

/// A port of this machine that is free at the moment.
pub(crate) fn free() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// A file that a process may write to.
pub(crate) fn log(path: &Path) -> Result<Stdio> {
    let file = fs::File::create(path).with_context(|| path.display().to_string())?;
    Ok(file.into())
}

/// Waits until somebody listens there; `log` says why nobody does.
pub(crate) fn listens(processes: &mut Processes, address: SocketAddr, log: &Path) -> Result<()> {
    let began = Instant::now();
    while TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_err() {
        if began.elapsed() > PATIENCE || processes.ended().is_some() {
            bail!("nobody listens at {address}\n{}", fs::read_to_string(log).unwrap_or_default());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// How long a program may take to start, and to end.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Runs a command to its end, and gives what it wrote.
pub(crate) fn output(mut command: Command) -> Result<String> {
    let named = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("running {named}; {MISSING}"))?;
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{named}\n{told}{}", String::from_utf8_lossy(&output.stderr));
    Ok(told)
}

/// Writes a file whole.
pub(crate) fn write(path: &Path, text: &str) -> Result<()> {
    let mut file = fs::File::create(path).with_context(|| path.display().to_string())?;
    Ok(file.write_all(text.as_bytes())?)
}
