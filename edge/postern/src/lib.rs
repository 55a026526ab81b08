//! Postern in all its roles: reads the configuration, assembles the rooms, serves and drains.
//!
//! Start with [`execute`], then [`config::load`].

mod about;
mod admin;
mod ask;
pub mod assemble;
mod autocert;
pub mod check;
pub mod cli;
pub mod config;
mod debug;
pub mod demo;
mod derived;
pub mod diff;
#[cfg(test)]
mod docs;
pub mod explain;
mod files;
pub mod google;
pub mod https;
mod manager;
mod operator;
pub mod pages;
mod private;
pub mod probe;
pub mod reload;
pub mod routes;
mod run;
mod service_accounts;
mod sessions;
pub mod show;
mod store;
pub mod telemetry;
mod upgrade;
pub mod verdict;

use cli::{Command, Exit, Invocation, OfConfig};

/// Does what was asked, and says how it ended.
#[must_use]
pub fn execute(invocation: Invocation) -> Exit {
    let Invocation { command, warning } = invocation;
    if let Some(warning) = warning {
        tell(&warning);
    }
    match command {
        Command::Check(asked) => check::check(&asked),
        Command::Explain(asked) => explain::explain(&asked),
        Command::Diff(asked) => diff::diff(&asked),
        Command::Config(OfConfig::Show(asked)) => show::show(&asked),
        Command::Schema => show::schema(),
        Command::Routes(asked) => routes::routes(&asked),
        Command::Version(asked) => about::version(&asked),
        Command::Status => about::status(),
        Command::Problem(code) => about::problem(&code),
        Command::Demo(asked) => run::demo(&asked),
        Command::Run(asked) => run::run(&asked),
        Command::Sessions(asked) => sessions::sessions(&asked),
        Command::ServiceAccounts(asked) => service_accounts::service_accounts(&asked),
        Command::Store(asked) => store::store(&asked),
        Command::Health(asked) => run::health(&asked),
        Command::Reload(asked) => run::reload(&asked),
    }
}

fn tell(text: &str) {
    use std::io::Write as _;
    // Nobody is left to tell when stderr is closed.
    let _closed = writeln!(std::io::stderr(), "postern: {text}");
}

/// An error with all its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
