//! One connection to one server: a centralised fred client that is never left to reconnect by itself.

use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use fred::clients::Client;
use fred::error::{Error, ErrorKind};
use fred::interfaces::ClientLike as _;
use fred::types::config::{Config, Server as FredServer, ServerConfig, TlsConfig, TlsConnector};
use fred::types::{Builder, ClusterHash, CustomCommand, RespVersion, Value};
use futures_util::poll;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::{Command, Reply};
use crate::config::{Credentials, Server};

/// How connections are made.
#[derive(Clone)]
pub(crate) struct Dial {
    /// What the server has to be.
    pub(crate) expects: Mode,
    /// The ACL user and password.
    pub(crate) credentials: Option<Credentials>,
    /// The database; always 0 in a cluster.
    pub(crate) database: u8,
    /// Servers on other machines may be spoken to without TLS (S-114).
    pub(crate) insecure: bool,
    /// TLS, if the servers speak it.
    pub(crate) tls: Option<Arc<rustls::ClientConfig>>,
    /// How long connecting, greeting and the first answer may take together.
    pub(crate) within: Duration,
}

impl fmt::Debug for Dial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dial")
            .field("database", &self.database)
            .field("tls", &self.tls.is_some())
            .finish_non_exhaustive()
    }
}

/// What a server is to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// On its own, or with replicas.
    Alone,
    /// A member of a cluster.
    Member,
    /// One that watches others.
    Sentinel,
}

impl Mode {
    /// What the answer to `HELLO` says; servers that do not know the command say nothing.
    fn read(hello: &Reply) -> Option<Self> {
        let mut fields = hello.list()?.chunks_exact(2).filter_map(|pair| Some((pair.first()?.text()?, pair.get(1)?)));
        match fields.find(|(name, _)| *name == "mode")?.1.text()? {
            "standalone" => Some(Self::Alone),
            "cluster" => Some(Self::Member),
            "sentinel" => Some(Self::Sentinel),
            _ => None,
        }
    }

    /// What is wrong with the connection string, if this was expected and another was found.
    fn mismatch(self, found: Self, is_tls: bool) -> Option<String> {
        let scheme = if is_tls { "rediss" } else { "redis" };
        match (self, found) {
            _ if self == found => None,
            (_, Self::Sentinel) => Some(format!(
                "this server is a Sentinel; write `{scheme}+sentinel://…/MASTER` with the name of its master"
            )),
            (Self::Sentinel, _) => {
                Some(format!("this server is not a Sentinel; write `{scheme}+sentinel://…` with the Sentinels alone"))
            }
            (Self::Member, _) => Some(format!("this server is not a cluster; write `{scheme}://…`")),
            (Self::Alone, _) => Some(format!("this server is part of a cluster; write `{scheme}+cluster://…`")),
        }
    }
}

/// Why a command has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// There is no connection, or it ended: whether the command was carried out is not known.
    Lost(String),
    /// No answer came in time.
    Silent,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost(why) => f.write_str(why),
            Self::Silent => f.write_str("it does not answer in time"),
        }
    }
}

/// A connection. Cheap to clone; commands of several callers are sent one after the other without waiting for answers.
#[derive(Clone)]
pub(crate) struct Link {
    client: Client,
    health: Arc<Health>,
    /// What drives the connection.
    _driver: Arc<AbortOnDropHandle<()>>,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("health", &self.health).finish_non_exhaustive()
    }
}

/// Whether a connection is worth keeping.
#[derive(Debug, Default)]
struct Health {
    /// Since when nothing was answered although something was asked.
    silent_since: Mutex<Option<Instant>>,
    /// Why it could not be made.
    refused: OnceLock<Broken>,
    dead: CancellationToken,
}

/// A connection on which nothing was answered for so long is given up: the process behind it may hang.
const SILENCE: Duration = Duration::from_millis(600);

impl Dial {
    /// Connects, signs in, and hears that the server answers: one that hangs still accepts connections.
    ///
    /// # Errors
    /// [`Broken`], after [`within`](Self::within) at the latest.
    pub(crate) async fn link(&self, server: &Server) -> Result<Link, Broken> {
        if self.tls.is_none() && !self.insecure && !server.is_loopback() {
            return Err(Broken::Lost("it is on another machine, and the connection would not be encrypted".to_owned()));
        }
        let until = Instant::now() + self.within;
        let client = self.client(server).map_err(|error| lost(&error))?;
        let health = Arc::new(Health::default());
        // fred looks whether there is a connection, and then listens for one: what becomes of it in between would be missed. This
        // begins when it is first polled, so before there is anything to miss.
        let mut connecting = pin!(client.wait_for_connect());
        let _not_yet = poll!(&mut connecting);
        let (driver, watched) = (client.connect(), Arc::clone(&health));
        let driver = AbortOnDropHandle::new(tokio::spawn(async move {
            if let Ok(Err(error)) = AbortOnDropHandle::new(driver).await {
                let _only_the_first = watched.refused.set(lost(&error));
            }
            watched.dead.cancel();
        }));
        tokio::select! {
            biased;
            connected = timeout_at(until, connecting) => {
                connected.map_err(|_| Broken::Silent)?.map_err(|error| lost(&error))?;
            }
            () = health.dead.cancelled() => {
                let why = || Broken::Lost("the connection ended before it was made".to_owned());
                return Err(health.refused.get().cloned().unwrap_or_else(why));
            }
        }
        let link = Link { client: client.clone(), health, _driver: Arc::new(driver) };
        // Every user may say HELLO, whatever else is allowed.
        let replies = link.call_all(&[Command::new("PING"), Command::new("HELLO").arg("2")], until).await?;
        if let Some(Reply::Error(error)) = replies.first() {
            return Err(Broken::Lost(error.clone()));
        }
        let found = replies.get(1).and_then(Mode::read);
        match found.and_then(|found| self.expects.mismatch(found, self.tls.is_some())) {
            Some(why) => Err(Broken::Lost(why)),
            None => Ok(link),
        }
    }

    fn client(&self, server: &Server) -> Result<Client, Error> {
        let config = Config {
            fail_fast: true,
            server: ServerConfig::Centralized { server: FredServer::new(server.host.clone(), server.port) },
            version: RespVersion::RESP2,
            username: self.credentials.as_ref().and_then(|own| own.username.clone()),
            password: self.credentials.as_ref().map(|own| own.password.expose().clone()),
            database: Some(self.database).filter(|database| *database > 0),
            tls: self.tls.as_ref().map(|tls| TlsConfig::from(TlsConnector::from(tls.as_ref().clone()))),
            ..Config::default()
        };
        Builder::from_config(config)
            .with_connection_config(|connection| {
                connection.connection_timeout = self.within;
                connection.internal_command_timeout = self.within;
                // What is repeated, and where, is the router's to say.
                connection.max_command_attempts = 1;
                connection.reconnect_on_auth_error = false;
                connection.tcp.nodelay = Some(true);
            })
            .with_performance_config(|performance| performance.default_command_timeout = Duration::ZERO)
            .build()
    }
}

impl Link {
    /// Sends a command and waits for its answer.
    ///
    /// # Errors
    /// [`Broken`].
    pub(crate) async fn call(&self, command: &Command, until: Instant) -> Result<Reply, Broken> {
        let asked = Instant::now();
        let asking = self.client.custom::<Value, _>(custom(command), arguments(command));
        let answer = self.while_it_lives(timeout_at(until, Box::pin(asking))).await?;
        self.judge(asked, answer.map(|answer| vec![answer]))?.pop().ok_or(Broken::Silent)
    }

    /// Sends commands in one piece, so that nothing of anybody else comes between them, and waits for all answers.
    ///
    /// # Errors
    /// [`Broken`].
    pub(crate) async fn call_all(&self, commands: &[Command], until: Instant) -> Result<Vec<Reply>, Broken> {
        let asked = Instant::now();
        let pipeline = self.client.pipeline();
        for command in commands {
            let queued = pipeline.custom::<Value, _>(custom(command), arguments(command)).await;
            queued.map_err(|error| lost(&error))?;
        }
        let answers = self.while_it_lives(timeout_at(until, Box::pin(pipeline.try_all::<Value>()))).await?;
        let replies = self.judge(asked, answers)?;
        if replies.len() == commands.len() { Ok(replies) } else { Err(Broken::Silent) }
    }

    /// What is asked on a connection that has ended would wait for nobody: fred ends it at answers such as `CLUSTERDOWN`.
    async fn while_it_lives<T>(&self, asking: impl Future<Output = T>) -> Result<T, Broken> {
        tokio::select! {
            biased;
            answer = asking => Ok(answer),
            () = self.health.dead.cancelled() => Err(Broken::Lost("the connection ended".to_owned())),
        }
    }

    /// Ends when the connection is of no use any more.
    pub(crate) async fn ended(&self) {
        self.health.dead.cancelled().await;
    }

    /// Gives the connection up.
    pub(crate) fn give_up(&self) {
        self.health.dead.cancel();
    }

    fn judge(
        &self,
        asked: Instant,
        answers: Result<Vec<Result<Value, Error>>, tokio::time::error::Elapsed>,
    ) -> Result<Vec<Reply>, Broken> {
        let mut silent_since = self.health.silent_since.lock().unwrap_or_else(PoisonError::into_inner);
        let Ok(answers) = answers else {
            if silent_since.get_or_insert(asked).elapsed() >= SILENCE {
                self.health.dead.cancel();
            }
            return Err(Broken::Silent);
        };
        *silent_since = None;
        drop(silent_since);
        let reply = |answer| match answer {
            Ok(value) => Ok(Reply::of(value)),
            Err(error) => refusal(&error).map(Reply::Error).ok_or_else(|| {
                self.health.dead.cancel();
                lost(&error)
            }),
        };
        answers.into_iter().map(reply).collect()
    }
}

/// What the server itself said; `None` if it is the connection that failed.
fn refusal(error: &Error) -> Option<String> {
    use ErrorKind::{
        Auth, Backpressure, Canceled, Cluster, Config, IO, InvalidArgument, InvalidCommand, NotFound, Parse, Protocol,
        Routing, Sentinel, Timeout, Tls, Unknown, Url,
    };
    match error.kind() {
        // fred's name for one answer of a server that is no member of a cluster.
        Config if error.details().starts_with("ERR ") => Some(error.details().to_owned()),
        Auth | Cluster | Unknown | InvalidArgument | InvalidCommand | NotFound => Some(error.details().to_owned()),
        IO | Canceled | Timeout | Tls | Protocol | Parse | Config | Url | Routing | Sentinel | Backpressure => None,
    }
}

fn lost(error: &Error) -> Broken {
    Broken::Lost(format!("{} ({})", error.details(), error.kind().to_str()))
}

fn custom(command: &Command) -> CustomCommand {
    CustomCommand::new_static(command.name, ClusterHash::Custom(0), false)
}

fn arguments(command: &Command) -> Vec<Value> {
    command.arguments.iter().cloned().map(Value::Bytes).collect()
}

/// Waits for a connection to let go of what it holds; it is over either way.
pub(super) async fn close(link: Link) {
    link.give_up();
    let _over = timeout(SILENCE, link.client.quit()).await;
}
