//! The configuration: from a file and the environment to domain types, or to everything that is wrong with them.
//!
//! [`load`] gives a [`Config`] or [`Problems`], mostly both: advice does not stop a load. Keys, defaults and what becomes
//! of each are declared in `keys/`; `resolve/` has one file for each section.

mod access_tests;
mod basic_auth;
mod block;
mod code;
mod context;
mod duration;
mod effective;
mod env;
mod json;
mod keys;
mod masked;
mod merge;
mod page;
mod problem;
mod reference;
mod render;
mod resolve;
mod schema;
mod toml;
mod value;
mod watched;

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod key_tests;
#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use postern_authn::AuthnConfig;
use postern_edge::EdgeConfig;
use postern_policy::document::{self, Node, Place};
use postern_storage::StorageConfig;
use tracing::level_filters::LevelFilter;

pub use basic_auth::BasicAuth;
pub use code::Code;
pub use effective::{Effective, Held, Keys, effective, listed, plain, yaml};
pub use env::Environment;
pub(crate) use keys::is_secret;
pub use problem::{At, KeyPath, Origin, Problem, Problems, Severity};
pub use reference::reference;
pub use render::Colour;
pub use resolve::autocert::{Autocert, ExternalAccount};
pub use resolve::planned;
pub use schema::schema;
pub use watched::WatchedFile;

use crate::google::Google;
use context::Context;
use planned::Planned;

/// `services`: what a process is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Edge and authn.
    AllInOne,
    /// The edge alone; authn is in other processes.
    Edge,
    /// Authn, behind an edge that serves the host where people sign in and takes what other edges send for authn.
    Authn,
}

/// A whole configuration, already valid.
#[derive(Debug, Clone)]
pub struct Config {
    /// `services`.
    pub role: Role,
    /// The edge.
    pub edge: EdgeConfig,
    /// Where each of its routes is written, in the same order.
    pub places: Vec<At>,
    /// Authn.
    pub authn: AuthnConfig,
    /// The store.
    pub storage: StorageConfig,
    /// `session_max_age`: how old a copy of a session may become without being read again.
    pub session_max_age: std::time::Duration,
    /// Addresses for operators.
    pub admin: AdminConfig,
    /// The certificates that are ordered, if any are.
    pub autocert: Option<Autocert>,
    /// Where identity tokens for serverless upstreams come from.
    pub google: Google,
    /// How much is logged.
    pub logs: LogLevels,
    /// Files whose change is a reason to load again: the configuration file first, then all that it names.
    pub watched: Vec<WatchedFile>,
    /// Not `health_check_systemd_disabled`: a service manager that listens is told what this process does.
    pub tells_manager: bool,
    /// `runtime_flags.config_hot_reload`: a change of a watched file reloads. SIGHUP always does.
    pub hot_reload: bool,
    /// `runtime_flags.debug_admin_endpoints`: the debug listener shows more than figures.
    pub debug_admin: bool,
    /// Where it does: all keys with the values that hold, without secrets, as JSON.
    pub dump: Option<Arc<str>>,
}

/// Where operators ask; never the public listener (S-113).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminConfig {
    /// `metrics_address`; none: no metrics are served.
    pub metrics: Option<SocketAddr>,
    /// `metrics_basic_auth`: who may read them; none: whoever reaches the address.
    pub metrics_auth: Option<BasicAuth>,
    /// `installation_id`: a label on every metric.
    pub installation: Option<String>,
    /// `health_check_addr`.
    pub health: SocketAddr,
    /// `debug_address`; none: nothing is shown of the process.
    pub debug: Option<SocketAddr>,
    /// `shared_secret` is configured, not drawn at random: who holds it can prove it.
    pub shared_secret: bool,
}

/// `log_level` and `proxy_log_level`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogLevels {
    /// Everything but the access log.
    pub all: LevelFilter,
    /// The access log, written at info.
    pub access: LevelFilter,
}

/// Where to load from.
#[derive(Debug, Clone, Default)]
pub struct Source {
    /// The file; without one everything comes from the environment.
    pub file: Option<PathBuf>,
    /// Errors on unknown keys become warnings (`--lenient`).
    pub lenient: bool,
}

/// What a load came to.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration, unless a problem is fatal.
    pub config: Option<Config>,
    /// Everything that was found, in order of place.
    pub problems: Problems,
    /// As [`Config::watched`], known also when the load failed, so that the repair is noticed.
    pub watched: Vec<WatchedFile>,
    /// What was understood of keys that nothing acts on yet, whether or not they were refused for it.
    pub planned: Planned,
    /// What was written, for [`effective`]; nothing if the text could not be read.
    written: Option<Written>,
}

/// What a configuration was made from: the document and the variables over it. It holds secrets.
#[derive(Clone)]
struct Written {
    root: Node,
    variables: Vec<merge::Variable>,
}

impl fmt::Debug for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Written").finish_non_exhaustive()
    }
}

/// Loads the configuration; everything that is wrong is told at once.
#[must_use]
pub fn load(source: &Source, environment: &Environment) -> Loaded {
    apart(|| load_with(source, environment, watched::read_any))
}

/// Loads the configuration once more: a pipe has given what it held, and would be waited for.
#[must_use]
pub fn load_again(source: &Source, environment: &Environment) -> Loaded {
    apart(|| load_with(source, environment, postern_edge::read_regular))
}

/// On a thread of its own. A load needs many times the memory that its outcome takes, and the allocator keeps what a thread
/// has freed for that thread: with its end it goes back.
fn apart<T: Send>(load: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| scope.spawn(load).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Reads a file of at most so many bytes.
type Reader = fn(&Path, u64) -> std::io::Result<Vec<u8>>;

fn load_with(source: &Source, environment: &Environment, reader: Reader) -> Loaded {
    let Some(file) = &source.file else {
        return load_text(None, "", source.lenient, environment);
    };
    let name = file.display().to_string();
    let (content, mut loaded) = match read(file, reader) {
        Ok((format, text)) => {
            let loaded = load_as(format, Some(&name), &text, source.lenient, environment);
            (Some(text), loaded)
        }
        Err((code, what, hint)) => (None, refused(name, code, &what, hint)),
    };
    let watched = WatchedFile::new(file, content.as_deref().map(str::as_bytes), MAX_FILE);
    if let Some(config) = &mut loaded.config {
        config.watched.insert(0, watched.clone());
    }
    loaded.watched.insert(0, watched);
    loaded
}

/// Loads the configuration that `text` holds, as YAML or JSON; `name` stands for its file in problems.
#[must_use]
pub fn load_text(name: Option<&str>, text: &str, lenient: bool, environment: &Environment) -> Loaded {
    load_as(Format::Yaml, name, text, lenient, environment)
}

/// What a text is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Yaml,
    Json,
    Toml,
}

fn load_as(format: Format, name: Option<&str>, text: &str, lenient: bool, environment: &Environment) -> Loaded {
    let problems = Problems::of(name.map(str::to_owned));
    let mut cx =
        Context { problems, environment, lenient, watched: Vec::new(), planned: Planned::default(), tests: Vec::new() };
    let written = parse(&mut cx, format, text).map(|root| Written {
        root: merge::unfolded(if root.is_null() { nothing() } else { root }),
        variables: merge::variables(&mut cx),
    });
    let config = written.as_ref().and_then(|written| resolve_all(&mut cx, written));
    let config = config.filter(|_| !cx.problems.any_fatal());
    let tests = std::mem::take(&mut cx.tests);
    if let Some(config) = &config {
        access_tests::run(&mut cx, config, &tests);
    }
    let Context { mut problems, mut watched, planned, .. } = cx;
    problems.sort();
    problems.lines = masked::lines(text, written.as_ref().map(|written| &written.root), &problems.numbers());
    watched.sort();
    watched.dedup();
    let config = config.filter(|_| !problems.any_fatal()).map(|config| Config { watched: watched.clone(), ..config });
    let mut loaded = Loaded { config, problems, watched, planned, written };
    let dump = loaded.config.as_ref().is_some_and(|config| config.debug_admin && config.admin.debug.is_some());
    let dump = dump.then(|| format!("{:#}\n", plain(&effective(&loaded, Keys::All))).into());
    if let Some(config) = &mut loaded.config {
        config.dump = dump;
    }
    loaded
}

const fn nothing() -> Node {
    Node { place: Place::NONE, value: document::Value::Map(Vec::new()) }
}

fn parse(cx: &mut Context<'_>, format: Format, text: &str) -> Option<Node> {
    let read = match format {
        Format::Yaml => document::read(text),
        Format::Json => json::read(text),
        Format::Toml => toml::read(text),
    };
    match read {
        Ok(root) => Some(root),
        Err(mistakes) => {
            for mistake in mistakes {
                let at = At { origin: Origin::File, place: mistake.place, key: KeyPath::default() };
                let hint = mistake.hint.unwrap_or_else(|| "repair this line".to_owned());
                cx.fatal(Code::Syntax, &at, mistake.message, hint);
            }
            None
        }
    }
}

fn resolve_all(cx: &mut Context<'_>, written: &Written) -> Option<Config> {
    let mut settings = block::Block::open(cx, &block::root(&written.root), &keys::SETTINGS)?;
    settings.override_with(cx, &written.variables);
    cx.tests = access_tests::resolve(cx, &settings);
    resolve::config(cx, &settings)
}

/// The reader of documents takes no more.
const MAX_FILE: u64 = document::MAX_BYTES as u64;

type Unread = (Code, String, &'static str);

fn read(file: &Path, reader: Reader) -> Result<(Format, String), Unread> {
    let kind = file.extension().and_then(|extension| extension.to_str()).unwrap_or("yaml").to_ascii_lowercase();
    let format = match kind.as_str() {
        "yaml" | "yml" => Format::Yaml,
        "json" => Format::Json,
        "toml" => Format::Toml,
        _ => {
            let what = format!("files of the type `.{kind}` are not read");
            let hint = "write the configuration as YAML, JSON or TOML, in a file that ends in .yaml, .json or .toml";
            return Err((Code::FileType, what, hint));
        }
    };
    let bytes = reader(file, MAX_FILE).map_err(|error| {
        (Code::FileUnreadable, format!("the file cannot be read: {error}"), "name a file that exists")
    })?;
    let text = String::from_utf8(bytes);
    text.map(|text| (format, text))
        .map_err(|_| (Code::FileUnreadable, "the file is not UTF-8 text".to_owned(), "save the file as UTF-8"))
}

fn refused(name: String, code: Code, what: &str, hint: &str) -> Loaded {
    let mut problems = Problems::of(Some(name));
    let at = At { origin: Origin::File, place: Place::default(), key: KeyPath::default() };
    problems.fatal(code, &at, what, hint);
    Loaded { config: None, problems, watched: Vec::new(), planned: Planned::default(), written: None }
}
