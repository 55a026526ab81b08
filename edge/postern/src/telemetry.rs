//! Log lines: one JSON object a line for machines, a short form for people; and the levels, which a reload may change.
//!
//! Writing never blocks a request (R-028): lines go through a bounded queue to one writer thread, and what does not fit is
//! dropped and counted.

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::os::fd::AsFd as _;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounter, Registry};
use serde::de::IgnoredAny;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::LogLevels;

/// How many lines may wait for a slow sink before further ones are dropped.
const QUEUE: usize = 16_384;

/// The shape of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people; with colour or without.
    Human {
        /// Whether to use colour.
        colour: bool,
    },
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    /// Human on a terminal, JSON otherwise; colour unless `no_colour`.
    #[must_use]
    pub fn detect(no_colour: bool) -> Self {
        if io::stdout().is_terminal() { Self::Human { colour: !no_colour } } else { Self::Json }
    }
}

/// Libraries speak only from `warn` on: their notes are for their developers.
fn targets(levels: LogLevels) -> Targets {
    Targets::new()
        .with_default(levels.all.min(LevelFilter::WARN))
        .with_target("postern", levels.all)
        .with_target("postern_edge", levels.all)
        .with_target("postern_authn", levels.all)
        .with_target("postern_storage", levels.all)
        .with_target("postern::authorize", levels.all)
        .with_target("postern::access", levels.access)
        // Pingora logs each client that goes away as an error; our own record says what happened.
        .with_target("pingora_proxy", levels.all.min(LevelFilter::ERROR))
        // What a client does wrong is no warning: a flood of it would be one of lines too.
        .with_target("h2", levels.all.min(LevelFilter::ERROR))
}

/// The running log: keeps the writer thread alive and lets a reload change the levels.
pub struct Telemetry {
    levels: reload::Handle<Targets, tracing_subscriber::Registry>,
    dropped: ErrorCounter,
    _writer: WorkerGuard,
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Telemetry")
    }
}

impl Telemetry {
    /// Starts logging to standard output for this process.
    ///
    /// # Errors
    /// If a logger is installed already.
    pub fn start(format: LogFormat, levels: LogLevels) -> Result<Self, tracing_subscriber::util::TryInitError> {
        let (writer, guard) = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(QUEUE).finish(sink());
        let dropped = writer.error_counter();
        let (filter, handle) = reload::Layer::new(targets(levels));
        let lines = tracing_subscriber::fmt::layer().with_writer(writer).event_format(Lines { format });
        tracing_subscriber::registry().with(filter).with(lines).try_init()?;
        Ok(Self { levels: handle, dropped, _writer: guard })
    }

    /// Applies new levels at once.
    pub fn set_levels(&self, levels: LogLevels) {
        if let Err(error) = self.levels.reload(targets(levels)) {
            tracing::warn!(%error, "log levels could not be changed");
        }
    }

    /// Adds `postern_log_lines_dropped_total` to `registry`.
    ///
    /// # Errors
    /// If it is there already.
    pub fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        let total =
            IntCounter::new("postern_log_lines_dropped_total", "Log lines dropped because their sink was too slow.")?;
        registry.register(Box::new(DroppedLines { total, source: self.dropped.clone() }))
    }
}

/// Standard output. The writer thread writes down what waits in one go, and flushes when nothing waits any more; that of the
/// standard library would be called upon for each line.
fn sink() -> Box<dyn io::Write + Send> {
    const AT_ONCE: usize = 64 * 1024;
    match io::stdout().as_fd().try_clone_to_owned() {
        Ok(stdout) => Box::new(io::BufWriter::with_capacity(AT_ONCE, File::from(stdout))),
        Err(_) => Box::new(io::stdout()),
    }
}

struct DroppedLines {
    total: IntCounter,
    source: ErrorCounter,
}

impl Collector for DroppedLines {
    fn desc(&self) -> Vec<&Desc> {
        self.total.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let seen = u64::try_from(self.source.dropped_lines()).unwrap_or(u64::MAX);
        self.total.inc_by(seen.saturating_sub(self.total.get()));
        self.total.collect()
    }
}

/// Fields that hold JSON text: `tracing` has no lists and maps of its own. A closed set, so that no client's text becomes structure.
const STRUCTURED: [&str; 8] = [
    "headers",
    "id-token-claims",
    "allow-why-true",
    "allow-why-false",
    "deny-why-true",
    "deny-why-false",
    "dry-run-why",
    "routes-refusing-nobody",
];

/// Writes one event as one line.
struct Lines {
    format: LogFormat,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let (level, target) = (*event.metadata().level(), event.metadata().target());
        if self.format == LogFormat::Json && target != FOREIGN {
            return json_line(&mut writer, level, target, |line| event.record(line));
        }
        let mut fields = Fields::default();
        event.record(&mut fields);
        // Events of the `log` crate arrive under one target; their own is in a field.
        let own = fields.rest.remove("log.target");
        for key in ["log.module_path", "log.file", "log.line"] {
            fields.rest.remove(key);
        }
        let target = own.as_ref().and_then(Value::as_str).unwrap_or(target);
        match self.format {
            LogFormat::Json => json_line(&mut writer, level, target, |line| {
                line.text("message", &fields.message);
                fields.rest.iter().for_each(|(name, value)| line.json(name, &value.to_string()));
            }),
            LogFormat::Human { colour } => human_line(writer, level, target, &fields, colour),
        }
    }
}

/// The target of what comes from the `log` crate.
const FOREIGN: &str = "log";

/// Writes one object in one line, member after member as they come.
fn json_line(writer: &mut Writer<'_>, level: Level, target: &str, rest: impl FnOnce(&mut Line<'_, '_>)) -> fmt::Result {
    write!(writer, r#"{{"level":"{}","time":""#, level_name(level))?;
    SystemTime.format_time(writer)?;
    let mut line = Line { writer, wrote: Ok(()) };
    line.raw("\"");
    line.text("service", service(target));
    rest(&mut line);
    line.raw("}\n");
    line.wrote
}

/// A line that is being written.
struct Line<'l, 'w> {
    writer: &'l mut Writer<'w>,
    wrote: fmt::Result,
}

impl Line<'_, '_> {
    fn raw(&mut self, text: &str) {
        self.wrote = self.wrote.and_then(|()| self.writer.write_str(text));
    }

    fn name(&mut self, name: &str) {
        self.raw(",\"");
        self.escaped(name.strip_prefix("r#").unwrap_or(name), is_special);
        self.raw("\":");
    }

    /// A value that is written as JSON writes it, and holds no text.
    fn plain(&mut self, name: &str, value: fmt::Arguments<'_>) {
        self.name(name);
        self.wrote = self.wrote.and_then(|()| self.writer.write_fmt(value));
    }

    fn text(&mut self, name: &str, text: &str) {
        self.name(name);
        self.raw("\"");
        self.escaped(text, is_special);
        self.raw("\"");
    }

    /// JSON text as a member, or what only claims to be some as a text.
    fn json(&mut self, name: &str, json: &str) {
        if serde_json::from_str::<IgnoredAny>(json).is_err() {
            return self.text(name, json);
        }
        self.name(name);
        self.escaped(json, is_line_breaking);
    }

    /// Escapes what begins lines and drives terminals too, which JSON would let through (S-109).
    fn escaped(&mut self, text: &str, is_special: impl Fn(char) -> bool) {
        // Most texts are plain, and those that are not begin plain.
        let begins = text.bytes().position(|byte| !byte.is_ascii() || is_special(char::from(byte)));
        let (plain, mut rest) = text.split_at(begins.unwrap_or(text.len()));
        self.raw(plain);
        while let Some(at) = rest.find(&is_special) {
            let (before, from) = rest.split_at(at);
            let mut after = from.chars();
            let special = after.next().unwrap_or_default();
            self.raw(before);
            self.wrote = self.wrote.and_then(|()| match special {
                '"' => self.writer.write_str("\\\""),
                '\\' => self.writer.write_str("\\\\"),
                '\n' => self.writer.write_str("\\n"),
                _ => write!(self.writer, "\\u{:04x}", u32::from(special)),
            });
            rest = after.as_str();
        }
        self.raw(rest);
    }
}

impl Visit for Line<'_, '_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = String::new();
        if write!(text, "{value:?}").is_ok() {
            self.record_str(field, &text);
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            name if STRUCTURED.contains(&name) => self.json(name, value),
            name => self.text(name, value),
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.plain(field.name(), format_args!("{value}"));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.plain(field.name(), format_args!("{value}"));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON knows neither infinity nor what is no number.
        self.plain(field.name(), format_args!("{}", Value::from(value)));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.plain(field.name(), format_args!("{value}"));
    }
}

/// Control characters, and the two separators that some readers take for line ends.
fn is_line_breaking(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')
}

/// What cannot stand in a text of a line.
fn is_special(c: char) -> bool {
    matches!(c, '"' | '\\') || is_line_breaking(c)
}

fn human_line(mut writer: Writer<'_>, level: Level, target: &str, fields: &Fields, colour: bool) -> fmt::Result {
    let mut time = String::new();
    SystemTime.format_time(&mut Writer::new(&mut time))?;
    let clock = time.get(11..19).unwrap_or(&time);
    let (paint, dim, off) = if colour { (level_colour(level), "\x1b[2m", "\x1b[0m") } else { ("", "", "") };
    write!(
        writer,
        "{dim}{clock}{off} {paint}{:5}{off} {dim}{:9}{off} {}",
        level_name(level),
        service(target),
        plain(&fields.message)
    )?;
    for (key, value) in &fields.rest {
        let text = value.as_str().map_or_else(|| value.to_string(), plain);
        write!(writer, " {dim}{key}={off}{text}")?;
    }
    writeln!(writer)
}

/// Text for a terminal: control bytes are shown, never sent (S-109).
fn plain(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        if is_line_breaking(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
        out
    })
}

const fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

const fn level_colour(level: Level) -> &'static str {
    match level {
        Level::ERROR => "\x1b[31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        Level::DEBUG => "\x1b[34m",
        Level::TRACE => "\x1b[35m",
    }
}

/// The part of the product that speaks. The two records keep the names that existing log pipelines select by (01 §1.10).
fn service(target: &str) -> &str {
    match target {
        "postern::access" => "envoy",
        "postern::authorize" => "authorize",
        other => {
            let crate_name = other.split("::").next().unwrap_or(other);
            crate_name.strip_prefix("postern_").unwrap_or(crate_name)
        }
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    rest: Map<String, Value>,
}

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            (name, Value::String(text)) if STRUCTURED.contains(&name) => {
                let value = serde_json::from_str(&text).unwrap_or_else(|_| text.into());
                self.rest.insert(name.into(), value);
            }
            (name, value) => {
                self.rest.insert(name.strip_prefix("r#").unwrap_or(name).into(), value);
            }
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = String::new();
        if write!(text, "{value:?}").is_ok() {
            self.put(field, text.into());
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex, PoisonError};

    use super::*;

    const LEVELS: LogLevels = LogLevels { all: LevelFilter::INFO, access: LevelFilter::INFO };

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(format: LogFormat, levels: LogLevels, log: impl FnOnce()) -> String {
        let sink = Sink::default();
        let copy = sink.clone();
        let lines = tracing_subscriber::fmt::layer().with_writer(move || copy.clone()).event_format(Lines { format });
        tracing::subscriber::with_default(tracing_subscriber::registry().with(targets(levels)).with(lines), log);
        let bytes = sink.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn reasons_are_a_list_and_what_a_client_says_is_text() {
        let text = written(LogFormat::Json, LEVELS, || {
            let agent = r#"{"level":"error"}"#;
            tracing::info!(target: "postern::authorize", size = 3, agent, "allow-why-true" = r#"["email-ok"]"#, "authorize check");
        });
        let line: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["message"], "authorize check");
        assert_eq!(line["service"], "authorize");
        assert_eq!(line["level"], "info");
        assert_eq!(line["allow-why-true"][0], "email-ok");
        assert_eq!(line["agent"], r#"{"level":"error"}"#);
        assert_eq!(line["size"], 3);
    }

    #[test]
    fn s_109_no_value_can_begin_a_line_of_its_own() {
        for format in [LogFormat::Json, LogFormat::Human { colour: false }] {
            let text = written(format, LEVELS, || {
                tracing::info!(target: "postern", agent = "x\n{\"level\":\"error\"}\u{1b}[31m\u{85}\u{9b}31m\u{2028}\u{7f}", "a\r\nb");
            });
            assert_eq!(text.matches('\n').count(), 1, "{text:?}");
            assert!(!text.trim_end_matches('\n').contains(is_line_breaking), "{text:?}");
            if format == LogFormat::Json {
                let line: Value = serde_json::from_str(&text).unwrap();
                assert!(line["agent"].as_str().unwrap().ends_with("\u{85}\u{9b}31m\u{2028}\u{7f}"));
            }
        }
    }

    #[test]
    fn the_access_log_has_a_level_of_its_own() {
        let levels = LogLevels { all: LevelFilter::INFO, access: LevelFilter::WARN };
        let text = written(LogFormat::Json, levels, || {
            tracing::info!(target: "postern::access", "http-request");
            tracing::info!(target: "postern::authorize", "authorize check");
            tracing::info!(target: "hyper", "chatter");
        });
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains("authorize check"));
    }
}
