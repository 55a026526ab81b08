//! What the edge writes down of each exchange, by request.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

/// One line, by name of its fields.
pub(crate) type Line = HashMap<String, String>;

/// The lines as they come.
pub(crate) struct Log(Receiver<(&'static str, Line)>);

struct Tap(Sender<(&'static str, Line)>);

impl Log {
    /// Listens to this process. It has one log, so whoever holds it is alone with its edge.
    pub(crate) fn listen() -> MutexGuard<'static, Self> {
        static LOG: LazyLock<Mutex<Log>> = LazyLock::new(|| {
            let (send, lines) = channel();
            tracing_subscriber::registry().with(Tap(send)).init();
            Mutex::new(Log(lines))
        });
        // Who held it may have failed, and left lines behind.
        let log = LOG.lock().unwrap_or_else(PoisonError::into_inner);
        while log.0.try_recv().is_ok() {}
        log
    }

    /// The access line of the next exchange, and its authorize line if there must be one. Exchanges follow each other here.
    pub(crate) fn next(&self, decided: bool) -> (Line, Option<Line>) {
        let access = self.line(ACCESS);
        (access, decided.then(|| self.line(AUTHORIZE)))
    }

    fn line(&self, expected: &str) -> Line {
        let (target, line) = self.0.recv_timeout(Duration::from_secs(20)).expect("a line of the log");
        assert_eq!(target, expected, "{line:?}");
        line
    }
}

const ACCESS: &str = "postern::access";
const AUTHORIZE: &str = "postern::authorize";

impl<S: Subscriber> Layer<S> for Tap {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let target = event.metadata().target();
        if [ACCESS, AUTHORIZE].contains(&target) {
            let mut line = Fields(Line::new());
            event.record(&mut line);
            let _over = self.0.send((target, line.0));
        }
    }
}

struct Fields(Line);

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }
}
