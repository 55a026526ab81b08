//! What a request costs beside other proxies; and what the store of sessions does under faults and under load, measured with the
//! product's own `postern-storage` against real servers. Each command prints a table; it exits with 1 if a promise was broken or
//! a goal missed, and with 2 if something could not be measured.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it is run to be read")]
#![expect(
    clippy::indexing_slicing,
    reason = "members of a cluster are counted; a load test that is wrong there has to fail"
)]

mod cold_start;
mod compare;
mod drive;
mod edge;
mod faults;
mod installation;
mod memory;
mod people;
mod revocation;
mod sessions;
mod sim;
mod table;

use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

use faults::Fault;
use table::Table;

#[derive(Debug, Parser)]
#[command(
    name = "postern-load-tests",
    version,
    about = "What Postern costs and withstands",
    after_help = "The exit code is 1 if a promise was broken or a goal missed, 2 if something could not be measured."
)]
struct Line {
    #[command(subcommand)]
    command: Command,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Human, global = true)]
    format: Format,
}

#[derive(Debug, Clone, Subcommand)]
enum Command {
    /// What each fault of a server or of the network does to sessions; all of them, or those that are named
    Faults {
        /// Which
        #[arg(value_enum, value_name = "ROW")]
        rows: Vec<Fault>,
        /// Shorter faults, and fewer processes
        #[arg(long)]
        quick: bool,
    },
    /// How soon the last of many edges refuses a session that was ended
    Revocation {
        /// How many
        #[arg(long, value_name = "N", default_value_t = 50)]
        edges: usize,
        /// A tenth of it
        #[arg(long)]
        quick: bool,
    },
    /// What a session costs in the store and near the request, in bytes and in time
    Memory {
        /// How many
        #[arg(long, value_name = "N", default_value_t = 100_000)]
        sessions: usize,
        /// Without the cache of a million entries
        #[arg(long)]
        quick: bool,
        /// Only near the request: without servers
        #[arg(long)]
        near: bool,
    },
    /// What a request costs in Postern, and in other proxies of this machine
    Compare(compare::Options),
    /// Writes the profile anew that releases are optimised by; wants the component llvm-tools of rustup
    Profile(compare::Profile),
    /// Whether anything fails or grows in the long run, with reloads, sign-ins and an application that comes and goes
    Soak(compare::Soak),
    /// What an edge that has just started asks of the store, and how soon it answers
    ColdStart(cold_start::Options),
    /// Whether a request costs more the more sessions there are
    Sessions(sessions::Options),
    /// What so many people need of nodes and servers, what that costs, and what is short first; computed of measured costs
    Sim(sim::Options),
}

/// For whom to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Human,
    /// For programs
    Json,
}

fn main() -> ExitCode {
    // The one crypto provider of the process. Only a second installation can fail.
    let _already_installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let line = Line::parse();
    match run(line.command) {
        Ok(table) => {
            match line.format {
                Format::Human => println!("{table}"),
                Format::Json => println!("{}", table.json()),
            }
            if table.has_failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
        }
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(command: Command) -> anyhow::Result<Table> {
    let runtime = || tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match command {
        Command::Revocation { edges, quick } => runtime()?.block_on(revocation::run(edges, quick)),
        Command::Memory { sessions, quick, near } => memory::run(sessions, quick, near),
        Command::ColdStart(options) => runtime()?.block_on(cold_start::run(&options)),
        Command::Sessions(options) => sessions::run(&options),
        Command::Sim(options) => runtime()?.block_on(sim::run(&options)),
        Command::Compare(options) => compare::run(&options),
        Command::Profile(options) => compare::profile(&options),
        Command::Soak(options) => compare::soak(&options),
        Command::Faults { rows, quick } => Ok(runtime()?.block_on(faults::run(rows, quick))),
    }
}
