//! The proxies that are compared: how each is configured for the same work, started, and made to show that it does it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::cores::{Cores, Processes};
use super::site::{self, CLIENT, HOST, Site, TOKEN};

/// A proxy at work.
#[derive(Debug)]
pub(crate) struct Peer {
    kind: Kind,
    pub(crate) address: SocketAddr,
    /// The cookie of who is signed in; proxies that know nobody get it too, so that heads are of one length.
    pub(crate) cookie: String,
    pub(crate) processes: Processes,
    /// Hosts among which one is asked at random, each with the cookie of who is signed in there.
    homes: OnceLock<Vec<[String; 2]>>,
    /// Where Postern tells of its health, its metrics and what it is doing.
    ports: [SocketAddr; 3],
    /// PEM of what its certificate is checked against.
    pub(crate) authority: PathBuf,
}

/// What is compared. The first is what others are measured by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Nginx,
    /// Pingora without a gate, bare or setting the fields that we set.
    Hop {
        fields: bool,
    },
    NginxLogging,
    Haproxy,
    NginxAuthRequest,
    EnvoyExtAuthz,
    Postern(Shape),
}

/// What a Postern of the comparison differs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape {
    logs: bool,
    routes: usize,
    /// Kept for long, as it comes: connections end after as many requests as they do by default, and it tells of its tasks.
    watched: bool,
}

impl Shape {
    const fn new(logs: bool, routes: usize) -> Self {
        Self { logs, routes, watched: false }
    }
}

const ALL: [Kind; 11] = [
    Kind::Nginx,
    Kind::Postern(Shape::new(false, 10)),
    Kind::Hop { fields: false },
    Kind::Hop { fields: true },
    Kind::Postern(Shape::new(true, 10)),
    Kind::NginxLogging,
    Kind::Haproxy,
    Kind::NginxAuthRequest,
    Kind::EnvoyExtAuthz,
    Kind::Postern(Shape::new(false, 1_000)),
    Kind::Postern(Shape::new(false, 10_000)),
];

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Nginx => NGINX,
            Self::Hop { fields: false } => HOP,
            Self::Hop { fields: true } => HOP_FIELDS,
            Self::NginxLogging => "nginx-plain, access log",
            Self::Haproxy => "haproxy-plain",
            Self::NginxAuthRequest => "nginx, auth_request",
            Self::EnvoyExtAuthz => ENVOY,
            Self::Postern(Shape { logs: true, .. }) => POSTERN_LOGGING,
            Self::Postern(Shape { routes: 10, .. }) => POSTERN,
            Self::Postern(Shape { routes: 1_000, .. }) => POSTERN_ROUTES,
            Self::Postern(_) => "postern, 10,000 routes",
        }
    }

    /// The program that has to be there.
    const fn program(self) -> Option<&'static str> {
        match self {
            Self::Nginx | Self::NginxLogging | Self::NginxAuthRequest => Some("nginx"),
            Self::Haproxy => Some("haproxy"),
            Self::EnvoyExtAuthz => Some("envoy"),
            Self::Hop { .. } | Self::Postern(_) => None,
        }
    }
}

/// What was built, and is not of the system.
#[derive(Debug)]
pub(crate) struct Binaries {
    pub(crate) postern: PathBuf,
    /// Example `hop` of `postern-edge`.
    pub(crate) hop: Option<PathBuf>,
}

/// Whether a proxy of this name is compared: one of these, or any if none is named.
pub(crate) fn is_wanted(name: &str, only: &[String]) -> bool {
    only.is_empty() || only.iter().any(|one| one == name)
}

/// The same Pingora with nothing of ours.
pub(crate) const HOP: &str = "pingora, bare hop";
/// The same, setting the fields that we set.
pub(crate) const HOP_FIELDS: &str = "pingora, hop with our fields";
/// A proxy that asks another service for each request, as Pomerium's does.
pub(crate) const ENVOY: &str = "envoy, jwt of ext_authz";
/// What ratios are of.
pub(crate) const NGINX: &str = "nginx-plain";
/// The product as it is judged: signed in, a policy of two criteria, an assertion for the application.
pub(crate) const POSTERN: &str = "postern";
/// The same as most run it.
pub(crate) const POSTERN_LOGGING: &str = "postern, both logs";
/// The same with many routes.
pub(crate) const POSTERN_ROUTES: &str = "postern, 1,000 routes";

/// Of how many hosts each request has one: of the same number whatever routes there are beside them, so that only these differ.
const HOMES: usize = 9;

/// What is left out, and why.
pub(crate) type Skipped = Vec<(&'static str, String)>;

impl Peer {
    pub(crate) const fn name(&self) -> &'static str {
        self.kind.name()
    }

    /// How many hosts it has routes for.
    pub(crate) const fn routes(&self) -> usize {
        if let Kind::Postern(Shape { routes, .. }) = self.kind { routes } else { 1 }
    }

    /// Whether it is there only to show what it costs to have many routes.
    pub(crate) const fn is_for_routes(&self) -> bool {
        self.routes() > 10
    }

    /// Whether it is there only to show what logs cost.
    pub(crate) const fn is_for_logs(&self) -> bool {
        matches!(self.kind, Kind::NginxLogging | Kind::Postern(Shape { logs: true, .. }))
    }

    /// Whether it is Pingora without a gate, there only to be compared with.
    pub(crate) const fn is_hop(&self) -> bool {
        matches!(self.kind, Kind::Hop { .. })
    }

    pub(crate) const fn is_postern(&self) -> bool {
        matches!(self.kind, Kind::Postern(_))
    }

    const fn decides(&self) -> bool {
        self.is_postern() || self.asks()
    }

    /// Whether the application is told who asks; a hop with fields says as much, of nobody.
    const fn tells(&self) -> bool {
        self.decides() || matches!(self.kind, Kind::Hop { fields: true })
    }

    /// Whether somebody else decides for it.
    const fn asks(&self) -> bool {
        matches!(self.kind, Kind::NginxAuthRequest | Kind::EnvoyExtAuthz)
    }

    /// Processor time of the proxy, and of whom it asks.
    pub(crate) fn cpu(&self, site: &Site) -> Duration {
        let asked = if self.asks() { site.authorizing.cpu() } else { Duration::ZERO };
        self.processes.cpu() + asked
    }

    /// Starts all that are installed; gives the others with the reason.
    pub(crate) fn start_all(
        site: &Site,
        cores: &Cores,
        binaries: &Binaries,
        only: &[String],
    ) -> Result<(Vec<Self>, Skipped)> {
        let (mut peers, mut skipped) = (Vec::new(), Vec::new());
        let mut ports = site::PORTS;
        for kind in ALL {
            let name = kind.name();
            if !is_wanted(name, only) {
                continue;
            }
            if let Some(program) = kind.program()
                && !is_installed(program)
            {
                skipped.push((name, format!("{program} is not installed")));
                continue;
            }
            if matches!(kind, Kind::Hop { .. }) && binaries.hop.is_none() {
                skipped.push((name, "--hop names none".to_owned()));
                continue;
            }
            let port = ports.next().context("no port is left")?;
            let address = if let Kind::Postern(_) = kind { (Ipv4Addr::LOCALHOST, port).into() } else { site::free()? };
            eprintln!("{name}: starting");
            let peer = Self::start(kind, address, site, cores, binaries).with_context(|| format!("starting {name}"))?;
            peers.push(peer);
        }
        ensure!(!peers.is_empty(), "no proxy is left to be measured");
        Ok((peers, skipped))
    }

    /// A Postern with both logs that is kept for long.
    pub(crate) fn watched(site: &Site, cores: &Cores, binaries: &Binaries) -> Result<Self> {
        let port = site::PORTS.start;
        let kind = Kind::Postern(Shape { watched: true, ..Shape::new(true, 10) });
        Self::start(kind, (Ipv4Addr::LOCALHOST, port).into(), site, cores, binaries)
    }

    fn start(kind: Kind, address: SocketAddr, site: &Site, cores: &Cores, binaries: &Binaries) -> Result<Self> {
        let called = format!("peer-{}", address.port());
        let ports = [site::free()?, site::free()?, site::free()?];
        let (config, log) = (site.file(&format!("{called}.yaml")), site.file(&format!("{called}.log")));
        let (text, mut command) = match kind {
            Kind::Nginx | Kind::NginxLogging | Kind::NginxAuthRequest => {
                let mut command = cores.for_proxy(Path::new("nginx"));
                command.arg("-c").arg(&config).args(["-g", "daemon off;"]);
                (nginx(kind, address, site, &called), command)
            }
            Kind::Haproxy => {
                let mut command = cores.for_proxy(Path::new("haproxy"));
                command.arg("-db").arg("-f").arg(&config);
                (haproxy(address, site), command)
            }
            Kind::EnvoyExtAuthz => {
                let mut command = cores.for_proxy(Path::new("envoy"));
                command
                    .args(["--concurrency", "1", "--log-level", "error", "--disable-hot-restart", "-c"])
                    .arg(&config);
                (envoy(address, site), command)
            }
            Kind::Hop { fields } => {
                let mut command = cores.for_proxy(binaries.hop.as_deref().context("no hop")?);
                command.args([address, site.application].map(|address| address.to_string()));
                command.args(["cert.pem", "key.pem"].map(|name| site.file(name)));
                if fields {
                    command.arg("fields");
                }
                (String::new(), command)
            }
            Kind::Postern(shape) => {
                let mut command = cores.for_proxy(&binaries.postern);
                command.arg("run").arg("--config").arg(&config);
                (configuration(shape, address, site, ports), command)
            }
        };
        site::write(&config, &text)?;
        // Of half an hour they would fill the memory that they are kept in.
        let kept = !matches!(kind, Kind::Postern(Shape { watched: true, .. }));
        let out = if kept { site::log(&site.file(&format!("{called}.out")))? } else { Stdio::null() };
        command.stdout(out).stderr(site::log(&log)?);
        let mut processes = Processes::start(command)?;
        site::listens(&mut processes, address, &log)?;
        let mut peer = Self {
            kind,
            address,
            cookie: format!("session={TOKEN}"),
            processes,
            homes: OnceLock::new(),
            ports,
            authority: site.file("cert.pem"),
        };
        if peer.is_postern() {
            peer.cookie = peer.sign_in(&site.file(&format!("{called}.cookies")))?;
        }
        Ok(peer)
    }

    /// Writes the configuration of Postern anew, with these lines at the end.
    pub(crate) fn configure(&self, site: &Site, more: &str) -> Result<()> {
        let Kind::Postern(shape) = self.kind else { return Ok(()) };
        let text = configuration(shape, self.address, site, self.ports) + more;
        // In one step, as deployments do it.
        let (new, file) = (site.file("new.yaml"), site.file(&format!("peer-{}.yaml", self.address.port())));
        site::write(&new, &text)?;
        Ok(std::fs::rename(new, file)?)
    }

    /// Where a host of this proxy is asked.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("https://{HOST}:{}{path}", self.address.port())
    }

    /// How many tasks the runtimes of a Postern have that [`Self::watched`] started.
    pub(crate) fn tasks(&self) -> Result<usize> {
        #[derive(serde::Deserialize)]
        struct Debug {
            runtimes: Vec<Runtime>,
        }
        #[derive(serde::Deserialize)]
        struct Runtime {
            tasks: usize,
        }
        let (mut curl, [.., debug]) = (Command::new("curl"), self.ports);
        curl.args(["--silent", "--show-error", "--fail", "--max-time", "30"])
            .arg(format!("http://{debug}/debug/runtime"));
        let debug: Debug = serde_json::from_str(&site::output(curl)?)?;
        Ok(debug.runtimes.iter().map(|runtime| runtime.tasks).sum())
    }

    fn curl(&self) -> Command {
        curl(self.address.port(), &self.authority)
    }

    /// Signs whoever has these cookies out, as a link on a page of the host does.
    pub(crate) fn sign_out(&self, jar: &Path) -> Result<()> {
        let mut curl = self.curl();
        // The last step is the provider's, which may have its own page.
        curl.args(["--location", "--output", "/dev/null", "--header", "Sec-Fetch-Site: same-origin", "--cookie"])
            .arg(jar);
        curl.arg("--cookie-jar").arg(jar).arg(self.url("/.pomerium/sign_out"));
        site::output(curl).map(drop)
    }

    /// The status and the head of a host's answer to who shows this cookie.
    pub(crate) fn shows(&self, host: &str, cookie: &str) -> Result<String> {
        let (mut curl, port) = (self.curl(), self.address.port());
        curl.args(["--head", "--header", &format!("Cookie: {cookie}"), &format!("https://{host}:{port}/1k")]);
        site::output(curl)
    }

    /// Goes through a sign-in as a browser does, with cookies in that file; gives the one of the application's host.
    pub(crate) fn sign_in(&self, jar: &Path) -> Result<String> {
        sign_in(HOST, self.address.port(), &self.authority, jar)
    }

    /// As many of its hosts as one with ten routes has, with who is signed in there; the first time it goes through these sign-ins.
    pub(crate) fn homes(&self, site: &Site) -> Result<&[[String; 2]]> {
        if let Some(homes) = self.homes.get() {
            return Ok(homes);
        }
        eprintln!("{}: signing in at {HOMES} hosts", self.name());
        let (jar, port) = (site.file(&format!("peer-{}.home", self.address.port())), self.address.port());
        // Each a session of its own, since one keeps assertions for nine hosts.
        let at = |number: usize| {
            let host = host(number);
            Ok([sign_in(&host, port, &self.authority, &jar)?, host])
        };
        let homes = (1..self.routes()).step_by(self.routes() / HOMES).take(HOMES).map(at).collect::<Result<_>>()?;
        Ok(self.homes.get_or_init(|| homes))
    }

    /// A stranger and a forged cookie are refused, who is signed in gets the whole file, and the application is told who it is:
    /// over both versions of HTTP. Proxies that decide nothing have to carry the file alone.
    pub(crate) fn does_its_work(&self) -> Result<()> {
        // Another first letter of the value: whatever proves it is wrong then.
        let (name, value) = self.cookie.split_once('=').context("no cookie")?;
        let other = if value.starts_with('A') { 'B' } else { 'A' };
        let forged = format!("{name}={other}{}", value.get(1..).unwrap_or_default());
        for version in ["--http1.1", "--http2"] {
            let ask = |cookie: &str, path: &str, write: &str| {
                let mut curl = self.curl();
                curl.args([version, "--header", &format!("Cookie: {cookie}"), "--write-out", write, &self.url(path)]);
                site::output(curl)
            };
            let own = ask(&self.cookie, "/1k", " %{http_code} %{size_download}")?;
            ensure!(own.ends_with(" 200 1024"), "{version}, signed in: {own}");
            if self.decides() {
                for cookie in [STRANGER, &forged] {
                    let refused = ask(cookie, "/1k", " %{http_code}")?;
                    ensure!(!refused.ends_with(" 200"), "{version}: {cookie} passed");
                }
            }
            let told = ask(&self.cookie, "/identity", "")?;
            ensure!((told.len() > 300) == self.tells(), "{version}: the application is told {told:?}");
        }
        Ok(())
    }
}

fn curl(port: u16, authority: &Path) -> Command {
    let mut curl = Command::new("curl");
    curl.args([
        "--silent",
        "--show-error",
        "--max-time",
        "30",
        "--resolve",
        &format!("*:{port}:127.0.0.1"),
        "--cacert",
    ]);
    curl.arg(authority);
    curl
}

/// Goes through a sign-in at a Postern as a browser does, with cookies in that file; gives the one of the host.
pub(crate) fn sign_in(host: &str, port: u16, authority: &Path, jar: &Path) -> Result<String> {
    let mut curl = curl(port, authority);
    curl.args(["--location", "--output", "/dev/null", "--write-out", "%{http_code}", "--cookie", "", "--cookie-jar"]);
    curl.arg(jar).arg(format!("https://{host}:{port}/1k"));
    let code = site::output(curl)?;
    ensure!(code == "200", "signing in at {host}: {code}");
    let jar = std::fs::read_to_string(jar)?;
    cookie(&jar, host).with_context(|| format!("the sign-in at {host} left no cookie: {jar}"))
}

/// A cookie of nobody.
pub(crate) const STRANGER: &str = "nothing=1";

/// The cookie of a host in what curl keeps.
fn cookie(jar: &str, host: &str) -> Option<String> {
    jar.lines().find_map(|line| {
        let fields: Vec<_> = line.trim_start_matches("#HttpOnly_").split('\t').collect();
        let [of, _, _, _, _, name, value] = fields.as_slice() else { return None };
        (*of == host).then(|| format!("{name}={value}"))
    })
}

/// All of them know this option.
fn is_installed(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

fn nginx(kind: Kind, address: SocketAddr, site: &Site, called: &str) -> String {
    let folder = site.file("");
    let folder = folder.display();
    let log = if kind == Kind::NginxLogging {
        format!("access_log {folder}/{called}.access;")
    } else {
        "access_log off;".to_owned()
    };
    let (asked, authorize) = if kind == Kind::NginxAuthRequest { (ASKED, AUTHORIZE) } else { ("", "") };
    format!(
        r#"worker_processes 1;
pid {folder}/{called}.pid;
events {{ worker_connections 16000; }}
http {{
  {log}
  error_log stderr error;
  client_body_temp_path {folder}/{called}-body;
  proxy_temp_path {folder}/{called}-proxy;
  fastcgi_temp_path {folder}/{called}-fastcgi;
  uwsgi_temp_path {folder}/{called}-uwsgi;
  scgi_temp_path {folder}/{called}-scgi;
  keepalive_requests 1000000000;
  keepalive_timeout 1h;
  map $http_upgrade $upgrading {{ default upgrade; '' ''; }}
  upstream application {{ server {application}; keepalive 128; }}
  upstream authorizer {{ server {authorizer}; keepalive 128; }}
  server {{
    listen {address} ssl http2;
    http2_max_requests 1000000000;
    ssl_certificate {folder}/cert.pem;
    ssl_certificate_key {folder}/key.pem;
    ssl_protocols TLSv1.3;
    ssl_session_cache shared:all:10m;
    location / {{
      {asked}
      proxy_pass http://application;
      proxy_http_version 1.1;
      proxy_set_header Host $http_host;
      proxy_set_header Connection "";
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Proto https;
      proxy_buffers 16 16k;
    }}
    location /echo {{
      proxy_pass http://{echo};
      proxy_http_version 1.1;
      proxy_set_header Host $http_host;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $upgrading;
    }}
    {authorize}
  }}
}}
"#,
        application = site.application,
        authorizer = site.authorizer,
        echo = site.echo,
    )
}

const ASKED: &str = "auth_request /authorize;
      auth_request_set $assertion $upstream_http_x_pomerium_jwt_assertion;
      proxy_set_header X-Pomerium-Jwt-Assertion $assertion;";
const AUTHORIZE: &str = "location = /authorize {
      internal;
      proxy_pass http://authorizer;
      proxy_http_version 1.1;
      proxy_set_header Connection \"\";
      proxy_pass_request_body off;
      proxy_set_header Content-Length \"\";
    }";

fn haproxy(address: SocketAddr, site: &Site) -> String {
    format!(
        r"global
  nbthread 1
  maxconn 6000
  tune.ssl.default-dh-param 2048
defaults
  mode http
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  timeout http-keep-alive 1h
  option http-keep-alive
  http-reuse always
frontend public
  bind {address} ssl crt {certificate} alpn h2,http/1.1 ssl-min-ver TLSv1.3
  http-request set-header X-Forwarded-Proto https
  option forwardfor
  use_backend echo if {{ path_beg /echo }}
  default_backend application
backend application
  server one {application}
backend echo
  server one {echo}
",
        certificate = site.file("both.pem").display(),
        application = site.application,
        echo = site.echo,
    )
}

fn envoy(address: SocketAddr, site: &Site) -> String {
    let cluster = |name: &str, at: SocketAddr| {
        format!(
            r"
  - name: {name}
    type: STATIC
    connect_timeout: 5s
    load_assignment:
      cluster_name: {name}
      endpoints: [{{ lb_endpoints: [{{ endpoint: {{ address: {{ socket_address: {{ address: {}, port_value: {} }} }} }} }}] }}]",
            at.ip(),
            at.port()
        )
    };
    format!(
        r#"static_resources:
  listeners:
  - address: {{ socket_address: {{ address: {ip}, port_value: {port} }} }}
    filter_chains:
    - transport_socket:
        name: tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context:
            alpn_protocols: [h2, http/1.1]
            tls_params: {{ tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3 }}
            tls_certificates:
            - certificate_chain: {{ filename: {cert} }}
              private_key: {{ filename: {key} }}
      filters:
      - name: hcm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: public
          codec_type: AUTO
          upgrade_configs: [{{ upgrade_type: websocket }}]
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {{ prefix: /echo }}
                route: {{ cluster: echo, timeout: 0s }}
              - match: {{ prefix: / }}
                route: {{ cluster: application }}
          http_filters:
          - name: ext_authz
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz
              http_service:
                server_uri: {{ uri: "http://authorizer", cluster: authorizer, timeout: 5s }}
                authorization_request: {{ allowed_headers: {{ patterns: [{{ exact: cookie }}] }} }}
                authorization_response: {{ allowed_upstream_headers: {{ patterns: [{{ exact: x-pomerium-jwt-assertion }}] }} }}
          - name: router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
  clusters:{application}{authorizer}{echo}
"#,
        ip = address.ip(),
        port = address.port(),
        cert = site.file("cert.pem").display(),
        key = site.file("key.pem").display(),
        application = cluster("application", site.application),
        authorizer = cluster("authorizer", site.authorizer),
        echo = cluster("echo", site.echo),
    )
}

/// Of a Postern: as in production, but for the store, which nothing else shares here.
fn configuration(shape: Shape, address: SocketAddr, site: &Site, ports: [SocketAddr; 3]) -> String {
    let port = address.port();
    let [client_id, client_secret] = CLIENT;
    let [health, metrics, debug] = ports;
    let logs = if shape.logs { "" } else { "log_level: error\nproxy_log_level: error\n" };
    let watch = if shape.watched { format!("debug_address: {debug}\n") } else { String::new() };
    // The others of a comparison have no bound.
    let bound = if shape.watched { "" } else { ", requests_per_connection: 1000000" };
    let mut text = format!(
        r"address: {address}
health_check_addr: {health}
metrics_address: {metrics}
{logs}{watch}certificates:
  - cert: {cert}
    key: {key}
authenticate_service_url: https://authenticate.bench.localhost:{port}
idp_provider: oidc
idp_provider_url: {issuer}
idp_client_id: {client_id}
idp_client_secret: {client_secret}
shared_secret: {shared}
cookie_secret: {cookies}
databroker_storage_type: memory
pass_identity_headers: true
limits: {{connections: 15000, keepalive_timeout: 1h{bound}}}
timeout_idle: 1h
routes:
",
        cert = site.file("cert.pem").display(),
        key = site.file("key.pem").display(),
        issuer = site.issuer,
        shared = site.secrets[0],
        cookies = site.secrets[1],
    );
    let policy = "    policy:
      - allow:
          and:
            - domain:
                is: example.com
            - groups:
                has: admins
";
    text += &format!(
        "  - from: https://{HOST}:{port}\n    prefix: /echo\n    to: http://{}\n    allow_websockets: true\n{policy}",
        site.echo
    );
    text += &format!("  - from: https://{HOST}:{port}\n    to: http://{}\n{policy}", site.application);
    for number in 2..shape.routes {
        text += &format!("  - from: https://{}:{port}\n    to: http://{}\n{policy}", host(number), site.application);
    }
    text
}

/// The host of a route, by its number.
pub(crate) fn host(number: usize) -> String {
    if number < 2 { HOST.to_owned() } else { format!("app-{number}.bench.localhost") }
}
