//! `postern sessions`: what a running Postern knows of sessions, and their end. All of it is asked of the running process, which
//! does it as at a sign-out (`operator/`).

mod tell;

pub(crate) use tell::words;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{IsTerminal as _, Write as _};

use tokio::runtime::Runtime;

use crate::ask::{self, Failed};
use crate::cli::{self, Exit, OfSessions};
use crate::config::Config;
use crate::operator::{
    CLEARING, Cleaning, Cleared, END, END_ALL, END_USER, Ended, Everybody, Found, Kind, LIST, Line, Listed, NO_NAME,
    NO_SUCH, OfUser, Operator, SESSION, Seen, Unread, UserEnded, Wanted, Which, silent,
};
use crate::run;

/// Does what was asked on the command line.
#[must_use]
pub(crate) fn sessions(asked: &OfSessions) -> Exit {
    ask::answered(match asked {
        OfSessions::List(asked) => list(asked),
        OfSessions::Show(asked) => show(asked),
        OfSessions::Revoke(asked) => revoke(asked),
        OfSessions::RevokeUser(asked) => revoke_user(asked),
        OfSessions::RevokeAll(asked) => revoke_all(asked),
    })
}

/// A running Postern that can be asked.
pub(crate) struct Running {
    operator: Operator,
    runtime: Runtime,
}

impl Running {
    pub(crate) fn find(asked: &cli::Running) -> Result<Self, Failed> {
        let loaded = ask::load(asked.config.as_deref(), asked.lenient)?;
        Self::of(&loaded.config, asked.address.as_deref())
    }

    fn of(config: &Config, address: Option<&str>) -> Result<Self, Failed> {
        let operator = Operator::of(config, address)?;
        Ok(Self { operator, runtime: run::control_runtime().map_err(|_| Failed::Told)? })
    }

    pub(crate) fn ask<A: serde::de::DeserializeOwned>(
        &self,
        path: &str,
        question: &impl serde::Serialize,
    ) -> Result<A, Failed> {
        Ok(self.runtime.block_on(self.operator.ask(path, question))?)
    }

    /// Asks for a change. Without an answer it may or may not have been made, which is what `unsure` says.
    pub(crate) fn change<A: serde::de::DeserializeOwned>(
        &self,
        path: &str,
        question: &impl serde::Serialize,
        unsure: &str,
    ) -> Result<A, Failed> {
        let done: Option<A> = self.ask(path, question).map_err(|failed| match failed {
            Failed::Problem(why) => Failed::Problem(format!("{why} ({unsure})")),
            Failed::Usage(_) | Failed::Unreachable(_) | Failed::Told => failed,
        })?;
        done.ok_or_else(|| Failed::Problem(format!("the running Postern failed ({unsure})")))
    }

    /// The one that is meant; `no_name` is what to write.
    pub(crate) fn which(&self, written: &str, no_name: &str) -> Result<Which, Failed> {
        Which::of(written, self.operator.keyring()).ok_or_else(|| Failed::Usage(format!("{written}: {no_name}")))
    }

    /// Those that are wanted, and whether there may be more; and those that could not be read, of whatever kind they are.
    pub(crate) fn list(&self, mut wanted: Wanted) -> Result<(Vec<Line>, bool, Unread), Failed> {
        let (limit, mut found) = (wanted.limit, BTreeMap::<String, Line>::new());
        let mut unread = Unread::default();
        loop {
            wanted.limit = limit - found.len();
            let (lines, next) = match self.ask(LIST, &wanted)? {
                Listed::Some { lines, unread: more, next } => {
                    unread.add(more);
                    (lines, next)
                }
                Listed::Unavailable(why) => return Err(Failed::Problem(silent(&why))),
            };
            // One may come twice.
            found.extend(lines.into_iter().map(|line| (line.session.clone(), line)));
            let full = found.len() >= limit;
            if full || next.is_none() {
                let more = found.len() > limit || (full && next.is_some());
                let mut lines: Vec<_> = found.into_values().collect();
                lines.sort_by_key(|line| std::cmp::Reverse(line.issued_at));
                lines.truncate(limit);
                return Ok((lines, more, unread));
            }
            wanted.from = next;
        }
    }
}

const UNSURE: &str = "whether sessions have ended is not known: try again";

fn list(asked: &cli::ListSessions) -> Result<Exit, Failed> {
    if asked.limit == 0 {
        return Err(Failed::Usage("--limit 0: write a number from 1 on".to_owned()));
    }
    let wanted = Wanted {
        user: asked.user.clone(),
        email: asked.email.clone(),
        idp: asked.idp.clone(),
        limit: asked.limit,
        ..Wanted::default()
    };
    let (lines, more, unread) = Running::find(&asked.running)?.list(wanted)?;
    if lines.is_empty() && unread.count > 0 {
        return listed(&unread);
    }
    let json = || tell::lines_json(&lines, more, &unread);
    ask::print(asked.running.format, |colour| tell::lines(&lines, more, colour), json);
    listed(&unread)
}

/// How a list ends that may lack some.
pub(crate) fn listed(unread: &Unread) -> Result<Exit, Failed> {
    unread.told().map_or(Ok(Exit::Ok), |told| Err(Failed::Problem(told)))
}

fn show(asked: &cli::OneSession) -> Result<Exit, Failed> {
    let running = Running::find(&asked.running)?;
    let found: Found = running.ask(SESSION, &running.which(&asked.session, NO_NAME)?)?;
    let session = found.session().map_err(Failed::Problem)?;
    if session.is_service_account() {
        return Err(Failed::Problem("that is a service account: `postern service-accounts` shows it".to_owned()));
    }
    ask::print(asked.running.format, |colour| tell::session(&session, colour), || tell::session_json(&session));
    Ok(Exit::Ok)
}

fn revoke(asked: &cli::OneSession) -> Result<Exit, Failed> {
    let running = Running::find(&asked.running)?;
    let (ended, words) = match running.change(END, &running.which(&asked.session, NO_NAME)?, UNSURE)? {
        Ended::Now => (1, "1 session has ended"),
        Ended::Before => (0, "it had been ended before"),
        Ended::Unknown => return Err(Failed::Problem(NO_SUCH.to_owned())),
        Ended::Unavailable(why) => return Err(unconfirmed(&why)),
    };
    ask::print(asked.running.format, |_| format!("{words}\n"), || tell::ended_json(ended));
    Ok(Exit::Ok)
}

fn revoke_user(asked: &cli::RevokeUser) -> Result<Exit, Failed> {
    let running = Running::find(&asked.running)?;
    let mut unread = Unread::default();
    let whom: BTreeSet<(String, Option<String>)> = match (&asked.user, &asked.email) {
        (Some(user), _) => [(user.clone(), None)].into(),
        (None, email) => {
            let wanted = Wanted { kind: Kind::Both, email: email.clone(), limit: MOST, ..Wanted::default() };
            let (lines, more, left) = running.list(wanted)?;
            unread = left;
            if more {
                return Err(Failed::Problem(format!("more than {MOST} sessions have this address: end them by user")));
            }
            lines.into_iter().map(|line| (line.user, Some(line.issuer))).collect()
        }
    };
    // Whose these are is not known: those that are known end all the same.
    let left = unread.told().map(|told| Failed::Problem(format!("{told} ({UNSURE})")));
    if whom.is_empty() && left.is_none() {
        return Err(Failed::Problem("nobody who is signed in has this address".to_owned()));
    }
    // One who cannot be ended now keeps no other one alive.
    let (mut users, mut failed) = (Vec::new(), left);
    for (user, issuer) in whom {
        match running.change(END_USER, &OfUser { user: user.clone(), issuer: issuer.clone() }, UNSURE) {
            Ok(UserEnded::Sessions(ended)) => users.push((user, issuer, ended)),
            Ok(UserEnded::Unavailable(why)) => failed = failed.or_else(|| Some(unconfirmed(&why))),
            Err(why) => failed = failed.or(Some(why)),
        }
    }
    if failed.is_none() || !users.is_empty() {
        ask::print(asked.running.format, |_| tell::users(&users), || tell::users_json(&users));
    }
    failed.map_or(Ok(Exit::Ok), Err)
}

/// Sessions of one address that are looked at: nobody has as many.
const MOST: usize = 10_000;

fn revoke_all(asked: &cli::RevokeAll) -> Result<Exit, Failed> {
    let running = Running::find(&asked.running)?;
    if !asked.yes && !is_meant()? {
        return Err(Failed::Problem("nothing was done".to_owned()));
    }
    let cleaning = match running.change(END_ALL, &Everybody {}, UNSURE)? {
        Cleared::Ended(cleaning) => watch(cleaning, |seen| running.ask(CLEARING, &seen)),
        Cleared::Refused(why) => return Err(Failed::Problem(format!("{why}; no session was ended"))),
        Cleared::Unavailable(why) => return Err(unconfirmed(&why)),
    };
    ask::print(asked.running.format, |_| tell::all(&cleaning), || tell::all_json(&cleaning));
    Ok(if cleaning.trouble.is_none() { Exit::Ok } else { Exit::Problem })
}

/// Until the clearing is over, or nothing tells how far it is: all sessions have ended all the same.
fn watch(mut cleaning: Cleaning, ask: impl Fn(Seen) -> Result<Cleaning, Failed>) -> Cleaning {
    let mut progress = Progress::begin();
    while cleaning.working {
        progress.tell(cleaning.ended);
        cleaning = match ask(Seen { ended: cleaning.ended }) {
            Ok(further) => further,
            Err(Failed::Usage(why) | Failed::Problem(why) | Failed::Unreachable(why)) => cleaning.lost(why),
            Err(Failed::Told) => cleaning.lost("there is no answer".to_owned()),
        };
    }
    progress.over();
    cleaning
}

/// Asks on the terminal.
fn is_meant() -> Result<bool, Failed> {
    let input = std::io::stdin();
    if !input.is_terminal() {
        let why = "this ends every session of everybody and every service account, and there is no terminal to ask whether that is meant: add --yes";
        return Err(Failed::Usage(why.to_owned()));
    }
    let mut err = std::io::stderr();
    // Nobody who cannot read the question answers it with yes.
    let _closed = write!(err, "This ends every session of everybody and every service account. Write yes to go on: ")
        .and_then(|()| err.flush());
    let mut answer = String::new();
    Ok(input.read_line(&mut answer).is_ok() && answer.trim() == "yes")
}

/// How far it is, in one line of a terminal that is written again and again.
struct Progress {
    shown: bool,
    terminal: bool,
}

impl Progress {
    fn begin() -> Self {
        Self { shown: false, terminal: std::io::stderr().is_terminal() }
    }

    fn tell(&mut self, ended: u64) {
        if self.terminal {
            let mut err = std::io::stderr();
            let _closed = write!(err, "\rall sessions have ended; {ended} found so far").and_then(|()| err.flush());
            self.shown = true;
        }
    }

    fn over(self) {
        if self.shown {
            let _closed = writeln!(std::io::stderr());
        }
    }
}

fn unconfirmed(why: &str) -> Failed {
    Failed::Problem(format!("{}; {UNSURE}", silent(why)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_sessions_have_ended_also_if_nothing_tells_how_far_the_clearing_is() {
        let begun = Cleaning { ended: 3, working: true, trouble: None };
        let lost = watch(begun.clone(), |_| Err(Failed::Unreachable("nothing answers".to_owned())));
        assert_eq!((lost.ended, lost.working, lost.trouble.as_deref()), (3, false, Some("nothing answers")));
        let done = watch(begun, |seen| Ok(Cleaning { ended: seen.ended + 1, working: false, trouble: None }));
        assert_eq!((done.ended, done.trouble), (4, None));
    }

    #[test]
    fn without_a_terminal_nobody_is_asked() {
        if !std::io::stdin().is_terminal() {
            assert!(matches!(is_meant(), Err(Failed::Usage(why)) if why.contains("--yes")));
        }
    }
}
