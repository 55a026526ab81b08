//! Every line that any test of this binary logs, so that one test can look for secrets in all of them.

use std::sync::{Arc, Mutex, OnceLock};

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

static LINES: OnceLock<Lines> = OnceLock::new();

/// Keeps what is logged from now on; once is enough.
pub(crate) fn keep() {
    LINES.get_or_init(|| {
        let lines = Lines::default();
        let writer = lines.clone();
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone()).init();
        lines
    });
}

/// What was logged so far.
pub(crate) fn log() -> String {
    let lines = LINES.get().unwrap();
    String::from_utf8(lines.0.lock().unwrap().clone()).unwrap()
}
