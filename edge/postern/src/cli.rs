//! What was asked on the command line.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::Code;
use crate::probe::Person;

/// How a command ended; the number is the process's exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// All is well; advisory problems may have been printed.
    Ok = 0,
    /// A problem was found, or the command failed; of `diff`: access changes.
    Problem = 1,
    /// The command line was not understood; of `diff`: nothing could be compared.
    Usage = 2,
    /// What was to be asked could not be reached.
    Unreachable = 3,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// A command line, understood.
#[derive(Debug)]
pub struct Invocation {
    /// What to do.
    pub command: Command,
    /// What to tell about the way it was asked, if anything (an old spelling that still works).
    pub warning: Option<String>,
}

/// What to do.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Run a complete demonstration: proxy, sign-in, a small identity provider and a sample application
    Demo(Demo),
    /// Run with a configuration file
    Run(Run),
    /// Say everything that is wrong with a configuration file, and what to write instead
    Check(Check),
    /// Say what a request would get, from whom, and why
    Explain(Box<Explain>),
    /// Say whose access changes from one configuration to another
    Diff(Box<Diff>),
    /// List the routes in the order in which they are tried: what each is for, where it leads, who may enter
    Routes(Routes),
    /// Look at a configuration file as it is understood
    #[command(subcommand)]
    Config(OfConfig),
    /// Print a JSON Schema of the configuration, for editors
    Schema,
    /// List the sessions of a running Postern, and end them
    #[command(subcommand)]
    Sessions(OfSessions),
    /// Make credentials for programs that ask as nobody who signs in, list and delete them
    #[command(subcommand)]
    ServiceAccounts(OfServiceAccounts),
    /// Look at the session store of a configuration
    #[command(subcommand)]
    Store(OfStore),
    /// Ask a running Postern whether it is well
    Health(Health),
    /// Have a running Postern load its configuration again, and say what became of it
    Reload(Reload),
    /// Show the version
    Version(Version),
    /// A short orientation; what a bare `postern` does
    #[command(skip)]
    Status,
    /// What a kind of problem means (`postern help PST-0204`)
    #[command(skip)]
    Problem(String),
}

/// Options of `postern demo`.
#[derive(Debug, Clone, Args)]
pub struct Demo {
    /// Port of the demonstration on this machine
    #[arg(long, value_name = "N", default_value_t = 8443)]
    pub port: u16,
    /// Folder for its certificates, configuration and state
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// Options of `postern run`.
#[derive(Debug, Clone, Default, Args)]
pub struct Run {
    /// The configuration file; without it everything comes from the environment
    #[arg(long, short, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Treat unknown keys as advice instead of errors
    #[arg(long)]
    pub lenient: bool,
}

/// Options of `postern check`.
#[derive(Debug, Clone, Args)]
pub struct Check {
    /// The configuration file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Treat unknown keys as advice instead of errors
    #[arg(long)]
    pub lenient: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub format: Format,
}

/// Options of `postern explain`.
#[derive(Debug, Clone, Args)]
pub struct Explain {
    /// The configuration file; without it everything comes from the environment
    #[arg(long, short, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Treat unknown keys as advice instead of errors
    #[arg(long)]
    pub lenient: bool,
    /// The address that is asked for
    #[arg(long, value_name = "URL")]
    pub url: String,
    /// The method
    #[arg(long, value_name = "NAME", default_value = "GET")]
    pub method: String,
    /// A field of the request; may be given again
    #[arg(long = "header", value_name = "NAME: VALUE")]
    pub headers: Vec<String>,
    /// Who asks
    #[command(flatten)]
    pub subject: Subject,
    /// The owner of this session asks, as a running Postern knows it; by its name in the logs, or its id
    #[arg(long, value_name = "ID", allow_hyphen_values = true, conflicts_with_all = ["user", "email", "groups", "claims"])]
    pub session: Option<String>,
    /// `health_check_addr` of the Postern to ask for the session, if not as configured
    #[arg(long, value_name = "HOST:PORT", requires = "session")]
    pub address: Option<String>,
    /// A device of theirs; may be given again
    #[arg(long = "device", value_name = "ID|KEY=VALUE,...|@FILE")]
    pub devices: Vec<String>,
    /// Where the request comes from
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub source_ip: IpAddr,
    /// A certificate that the client shows, PEM
    #[arg(long, value_name = "FILE")]
    pub client_cert: Option<PathBuf>,
    /// When, as in 2027-01-15T08:00:00Z; now, unless it is said
    #[arg(long, value_name = "TIME")]
    pub time: Option<String>,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub format: Format,
}

/// Who asks; nobody who is signed in, unless something is said of them.
#[derive(Debug, Clone, Default, Args)]
pub struct Subject {
    /// Their id at the identity provider
    #[arg(long, value_name = "ID")]
    pub user: Option<String>,
    /// Their e-mail address
    #[arg(long, value_name = "ADDRESS")]
    pub email: Option<String>,
    /// A group of theirs; may be given again
    #[arg(long = "group", value_name = "NAME")]
    pub groups: Vec<String>,
    /// A claim of theirs; may be given again
    #[arg(long = "claim", value_name = "NAME=VALUE")]
    pub claims: Vec<String>,
}

impl Subject {
    /// The person that was described.
    ///
    /// # Errors
    /// What is wrong with a claim.
    pub fn person(&self) -> Result<Person, String> {
        let Self { user, email, groups, claims } = self.clone();
        let mut person = Person { user, email, groups, ..Person::default() };
        claims.iter().try_for_each(|claim| person.claim(claim)).map(|()| person)
    }
}

/// Options of `postern diff`.
#[derive(Debug, Clone, Args)]
pub struct Diff {
    /// The configuration file before
    #[arg(value_name = "OLD")]
    pub old: PathBuf,
    /// The configuration file after
    #[arg(value_name = "NEW")]
    pub new: PathBuf,
    /// Treat unknown keys as advice instead of errors
    #[arg(long)]
    pub lenient: bool,
    /// Ask for these people: a YAML or JSON list
    #[arg(long, value_name = "FILE")]
    pub subjects: Option<PathBuf>,
    /// Ask for this one
    #[command(flatten)]
    pub subject: Subject,
    /// Ask for this address; may be given again
    #[arg(long = "url", value_name = "URL")]
    pub urls: Vec<String>,
    /// Where all requests come from
    #[arg(long, value_name = "ADDRESS")]
    pub source_ip: Option<IpAddr>,
    /// When all requests come, as in 2027-01-15T08:00:00Z
    #[arg(long, value_name = "TIME")]
    pub time: Option<String>,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub format: Format,
}

/// Options of `postern routes`.
#[derive(Debug, Clone, Args)]
pub struct Routes {
    /// The configuration file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Treat unknown keys as advice instead of errors
    #[arg(long)]
    pub lenient: bool,
    /// Only the routes that a request for this host can meet
    #[arg(long, value_name = "HOST[:PORT]", conflicts_with = "url")]
    pub host: Option<String>,
    /// Only the routes that match this address; the first of them gets the request
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub format: Format,
}

/// What to do with a configuration file.
#[derive(Debug, Clone, Subcommand)]
pub enum OfConfig {
    /// Print what it holds, with defaults and origins if they are asked for, and without secrets
    Show(Show),
}

/// Options of `postern config show`.
#[derive(Debug, Clone, Args)]
pub struct Show {
    /// The configuration file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Treat unknown keys as advice instead of errors
    #[arg(long)]
    pub lenient: bool,
    /// Every key, with its default where it is not written
    #[arg(long)]
    pub effective: bool,
    /// Where each value comes from: the file, a variable, a file of its own, or the default
    #[arg(long)]
    pub origin: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t = Language::Yaml)]
    pub format: Language,
}

/// In which language to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Language {
    /// YAML
    Yaml,
    /// JSON
    Json,
}

/// What to do with the sessions of a running Postern.
#[derive(Debug, Clone, Subcommand)]
pub enum OfSessions {
    /// List live sessions
    List(ListSessions),
    /// Show one session
    Show(OneSession),
    /// End one session
    Revoke(OneSession),
    /// End all sessions of a user, and their service accounts
    RevokeUser(RevokeUser),
    /// End all sessions of everybody, and all service accounts
    RevokeAll(RevokeAll),
}

/// Which Postern to ask, and how to print what it says.
#[derive(Debug, Clone, Args)]
pub struct Running {
    /// The configuration file that it runs with; without it everything comes from the environment
    #[arg(long, short, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Treat unknown keys as advice instead of errors
    #[arg(long)]
    pub lenient: bool,
    /// Its `health_check_addr`, on this machine, if not as configured
    #[arg(long, value_name = "HOST:PORT")]
    pub address: Option<String>,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub format: Format,
}

/// Options of `postern sessions list`.
#[derive(Debug, Clone, Args)]
pub struct ListSessions {
    /// Those of the user of this id at the identity provider
    #[arg(long, value_name = "ID")]
    pub user: Option<String>,
    /// Those of users of this e-mail address
    #[arg(long, value_name = "ADDRESS")]
    pub email: Option<String>,
    /// Those of this identity provider, by its issuer, or its id in the logs
    #[arg(long, value_name = "ISSUER")]
    pub idp: Option<String>,
    /// No more than so many
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub limit: usize,
    /// Which Postern to ask
    #[command(flatten)]
    pub running: Running,
}

/// Options of `postern sessions show` and `postern sessions revoke`.
#[derive(Debug, Clone, Args)]
pub struct OneSession {
    /// Its name in lists and logs, or its id
    #[arg(value_name = "ID", allow_hyphen_values = true)]
    pub session: String,
    /// Which Postern to ask
    #[command(flatten)]
    pub running: Running,
}

/// Options of `postern sessions revoke-user`.
#[derive(Debug, Clone, Args)]
pub struct RevokeUser {
    /// Their id at the identity provider
    #[arg(value_name = "USER", required_unless_present = "email", conflicts_with = "email")]
    pub user: Option<String>,
    /// Their e-mail address instead
    #[arg(long, value_name = "ADDRESS")]
    pub email: Option<String>,
    /// Which Postern to ask
    #[command(flatten)]
    pub running: Running,
}

/// Options of `postern sessions revoke-all`.
#[derive(Debug, Clone, Args)]
pub struct RevokeAll {
    /// Do not ask whether that is meant
    #[arg(long)]
    pub yes: bool,
    /// Which Postern to ask
    #[command(flatten)]
    pub running: Running,
}

/// What to do with the service accounts of a running Postern.
#[derive(Debug, Clone, Subcommand)]
pub enum OfServiceAccounts {
    /// Make one; its token is printed once, alone on stdout
    Create(CreateServiceAccount),
    /// List those that live
    List(ListServiceAccounts),
    /// Show one
    Show(OneServiceAccount),
    /// Delete one; from then on its token is refused
    Delete(OneServiceAccount),
}

/// Options of `postern service-accounts create`.
#[derive(Debug, Clone, Args)]
pub struct CreateServiceAccount {
    /// What it is called: for people, and as `name` for upstreams
    #[arg(value_name = "NAME")]
    pub name: String,
    /// The user id that policies and upstreams see
    #[arg(long, value_name = "ID")]
    pub user: String,
    /// Its e-mail address, for which you vouch
    #[arg(long, value_name = "ADDRESS")]
    pub email: Option<String>,
    /// A group of its user; may be given again
    #[arg(long = "group", value_name = "NAME")]
    pub groups: Vec<String>,
    /// A claim of its user; may be given again
    #[arg(long = "claim", value_name = "NAME=VALUE")]
    pub claims: Vec<String>,
    /// When it ends, from now: a number and s, m, h, d or w, as in 90d
    #[arg(long, value_name = "TIME", required_unless_present = "never", conflicts_with = "never")]
    pub expires_in: Option<String>,
    /// It does not end until it is deleted
    #[arg(long)]
    pub never: bool,
    /// Which Postern to ask
    #[command(flatten)]
    pub running: Running,
}

/// Options of `postern service-accounts list`.
#[derive(Debug, Clone, Args)]
pub struct ListServiceAccounts {
    /// Those of the user of this id
    #[arg(long, value_name = "ID")]
    pub user: Option<String>,
    /// No more than so many
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub limit: usize,
    /// Which Postern to ask
    #[command(flatten)]
    pub running: Running,
}

/// Options of `postern service-accounts show` and `postern service-accounts delete`.
#[derive(Debug, Clone, Args)]
pub struct OneServiceAccount {
    /// Its id in lists and logs
    #[arg(value_name = "ID", allow_hyphen_values = true)]
    pub account: String,
    /// Which Postern to ask
    #[command(flatten)]
    pub running: Running,
}

/// What to do with a session store.
#[derive(Debug, Clone, Subcommand)]
pub enum OfStore {
    /// Say whether it is what Postern depends on, and what to do where it is not; no Postern has to run
    Check(CheckStore),
}

/// Options of `postern store check`.
#[derive(Debug, Clone, Args)]
pub struct CheckStore {
    /// The configuration file; without it everything comes from the environment
    #[arg(long, short, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Treat unknown keys as advice instead of errors
    #[arg(long)]
    pub lenient: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub format: Format,
}

/// Options of `postern health`.
#[derive(Debug, Clone, Args)]
pub struct Health {
    /// `health_check_addr` of the Postern to ask
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:28080")]
    pub address: String,
}

/// Options of `postern reload`.
#[derive(Debug, Clone, Args)]
pub struct Reload {
    /// `health_check_addr` of the Postern to ask, on this machine
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:28080")]
    pub address: String,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub format: Format,
}

/// Options of `postern version`.
#[derive(Debug, Clone, Args)]
pub struct Version {
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub format: Format,
}

/// For whom to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    Human,
    /// For programs
    Json,
}

#[derive(Debug, Parser)]
#[command(name = "postern", version, about = "An identity-aware access proxy", args_conflicts_with_subcommands = true)]
#[command(after_help = "`postern help PST-0204` explains that kind of problem.")]
struct Line {
    #[command(subcommand)]
    command: Option<Command>,
    /// `postern --config FILE` is `postern run --config FILE`
    #[command(flatten)]
    run: Run,
}

/// A command line that asks for nothing that can be done: help, the version, or a mistake.
#[derive(Debug)]
pub struct Refused(clap::Error);

impl Refused {
    /// Prints it where it belongs and says how the process ends.
    #[must_use]
    pub fn tell(&self) -> Exit {
        // A closed pipe is the reader's own choice.
        let _closed_pipe = self.0.print();
        if self.0.use_stderr() { Exit::Usage } else { Exit::Ok }
    }
}

impl Invocation {
    /// Whether it is to serve until it is told to stop.
    #[must_use]
    pub const fn serves(&self) -> bool {
        matches!(self.command, Command::Run(_) | Command::Demo(_))
    }

    /// Understands `arguments`, the program's name first.
    ///
    /// # Errors
    /// [`Refused`], which knows how to explain itself.
    pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, Refused> {
        let (arguments, warning) = modern(arguments);
        if let Some(code) = asked_code(&arguments) {
            return Ok(Self { command: Command::Problem(code), warning });
        }
        let line = Line::try_parse_from(arguments).map_err(Refused)?;
        let asked_to_run = line.run.config.is_some() || line.run.lenient;
        let command = match line.command {
            Some(command) => command,
            None if asked_to_run => Command::Run(line.run),
            None => Command::Status,
        };
        Ok(Self { command, warning })
    }
}

/// The code of `help CODE`; clap's own `help` knows commands only.
fn asked_code(arguments: &[OsString]) -> Option<String> {
    let [_, help, word] = arguments else { return None };
    let word = word.to_str().filter(|word| Code::is_meant(word))?;
    (help == "help").then(|| word.to_owned())
}

/// The arguments with the old `-config` spelled `--config`, and what to say about it (01 §1.1).
fn modern(arguments: impl IntoIterator<Item = OsString>) -> (Vec<OsString>, Option<String>) {
    let mut warning = None;
    let arguments = arguments
        .into_iter()
        .map(|argument| {
            let old = argument.to_str().filter(|text| *text == "-config" || text.starts_with("-config="));
            let Some(old) = old else { return argument };
            warning = Some("-config is the old spelling: write --config".to_owned());
            OsString::from(format!("-{old}"))
        })
        .collect();
    (arguments, warning)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Invocation, Exit> {
        let arguments = std::iter::once("postern").chain(line.split_whitespace()).map(OsString::from);
        Invocation::parse(arguments).map_err(|refused| if refused.0.use_stderr() { Exit::Usage } else { Exit::Ok })
    }

    #[test]
    fn a_bare_postern_is_no_mistake() {
        assert!(matches!(parse("").unwrap().command, Command::Status));
    }

    #[test]
    fn the_old_single_dash_config_works_with_a_warning() {
        for line in ["-config a.yaml", "-config=a.yaml", "run -config a.yaml"] {
            let invocation = parse(line).unwrap();
            let Command::Run(run) = invocation.command else { panic!("{line}") };
            assert_eq!(run.config.as_deref(), Some(std::path::Path::new("a.yaml")), "{line}");
            assert!(invocation.warning.is_some(), "{line}");
        }
        assert!(parse("--config a.yaml").unwrap().warning.is_none());
    }

    #[test]
    fn a_command_line_that_makes_no_sense_is_usage() {
        for line in ["frobnicate", "check", "--config", "run --port 1", "check a b", "demo --port 70000"] {
            assert_eq!(parse(line).unwrap_err(), Exit::Usage, "{line}");
        }
        for line in ["--help", "--version", "check --help"] {
            assert_eq!(parse(line).unwrap_err(), Exit::Ok, "{line}");
        }
    }

    #[test]
    fn check_takes_its_options_in_any_order() {
        let Command::Check(check) = parse("check --format json a.yaml --lenient").unwrap().command else { panic!() };
        assert!(check.lenient && check.format == Format::Json);
    }

    #[test]
    fn the_name_of_a_session_may_begin_with_a_hyphen() {
        for begin in ["-c", "-h", "--", "-A"] {
            let name = format!("{begin}{}", "A".repeat(41));
            let asked = parse(&format!("sessions revoke {name} --config a.yaml")).unwrap().command;
            let Command::Sessions(OfSessions::Revoke(asked)) = asked else { panic!("{asked:?}") };
            assert_eq!((asked.session, asked.running.config.is_some()), (name.clone(), true));
            let asked = parse(&format!("explain --url https://a.example/ --session {name}")).unwrap().command;
            let Command::Explain(asked) = asked else { panic!("{asked:?}") };
            assert_eq!(asked.session, Some(name));
        }
    }

    #[test]
    fn help_takes_a_code_or_a_command() {
        for (line, code) in [("help PST-0204", "PST-0204"), ("help pst-1", "pst-1"), ("help 0204", "0204")] {
            let Command::Problem(asked) = parse(line).unwrap().command else { panic!("{line}") };
            assert_eq!(asked, code);
        }
        for line in ["help", "help check", "help run"] {
            assert_eq!(parse(line).unwrap_err(), Exit::Ok, "{line}");
        }
        for line in ["help nonsense", "help PST-0204 more", "PST-0204"] {
            assert_eq!(parse(line).unwrap_err(), Exit::Usage, "{line}");
        }
    }

    /// A command, and those below it.
    fn all_of(command: &clap::Command) -> Vec<&clap::Command> {
        let below = command.get_subcommands().filter(|command| command.get_name() != "help");
        std::iter::once(command).chain(below.flat_map(all_of)).collect()
    }

    #[test]
    fn the_reference_page_has_every_command_and_option_and_no_other() {
        use std::collections::BTreeSet;

        let page = std::fs::read_to_string("../../docs/reference/cli.md").unwrap();
        let mut line = <Line as clap::CommandFactory>::command();
        line.build();
        let commands: BTreeSet<String> = line.get_subcommands().map(|command| command.get_name().to_owned()).collect();
        let synopsis = page.lines().filter_map(|line| line.strip_prefix("postern "));
        let told: BTreeSet<String> = synopsis.filter_map(|line| line.split(' ').next()).map(str::to_owned).collect();
        assert_eq!(told, commands);
        for inner in line.get_subcommands().flat_map(clap::Command::get_subcommands) {
            let name = inner.get_bin_name().unwrap_or_default();
            assert!(name.contains(" help") || page.contains(&format!("\n{name} ")), "{name}");
        }

        let every = || all_of(&line).into_iter();
        let options: BTreeSet<String> = every()
            .flat_map(clap::Command::get_arguments)
            .filter_map(|argument| argument.get_long().map(|long| format!("--{long}")))
            .collect();
        let written: BTreeSet<String> = page
            .split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'))
            .filter(|word| word.strip_prefix("--").is_some_and(|name| name.starts_with(char::is_alphabetic)))
            .map(str::to_owned)
            .collect();
        assert_eq!(written, options);
        for argument in every().flat_map(clap::Command::get_arguments) {
            if let Some(short) = argument.get_short() {
                assert!(page.contains(&format!("`-{short}")), "-{short}");
            }
            for default in argument.get_default_values().iter().filter(|_| argument.get_action().takes_values()) {
                assert!(page.contains(&format!("`{}`", default.display())), "default {default:?} of {argument}");
            }
        }
    }
}
