//! `postern check`, and how `postern run` tells of the same problems in the same words.

use std::io::{IsTerminal as _, Write as _};

use crate::cli::{self, Exit, Format};
use crate::config::{self, Colour, Config, Environment, Source};

/// Prints everything that is wrong with a file. Advice alone is no failure.
#[must_use]
pub fn check(asked: &cli::Check) -> Exit {
    let environment = match environment() {
        Ok(environment) => environment,
        Err(exit) => return exit,
    };
    let source = Source { file: Some(asked.file.clone()), lenient: asked.lenient };
    let loaded = config::load(&source, &environment);
    let out = std::io::stdout();
    let colour = colour(out.is_terminal(), &environment);
    let text = match asked.format {
        Format::Human => loaded.problems.to_human(colour),
        Format::Json => format!("{:#}\n", loaded.problems.to_json()),
    };
    // A reader that has gone away has seen enough.
    let _closed = out.lock().write_all(text.as_bytes());
    if loaded.config.is_some() { Exit::Ok } else { Exit::Problem }
}

/// The configuration to run with; problems are told on stderr, and a fatal one leaves nothing to run.
///
/// # Errors
/// How the process is to end.
pub fn load_to_run(source: &Source, environment: &Environment) -> Result<Config, Exit> {
    let loaded = config::load(source, environment);
    let err = std::io::stderr();
    if loaded.problems.iter().next().is_some() {
        let text = loaded.problems.to_human(colour(err.is_terminal(), environment));
        let _closed = err.lock().write_all(text.as_bytes());
    }
    loaded.config.ok_or(Exit::Problem)
}

/// The environment, or how the process ends without one.
///
/// # Errors
/// If the system gives no randomness.
pub fn environment() -> Result<Environment, Exit> {
    Environment::read().map_err(|_| {
        let _closed = writeln!(std::io::stderr(), "postern: the system gives no randomness");
        Exit::Problem
    })
}

/// Whether to colour what is printed.
pub(crate) fn colour(terminal: bool, environment: &Environment) -> Colour {
    if terminal && !environment.no_color() { Colour::Terminal } else { Colour::Plain }
}
