//! `postern service-accounts`: credentials of programs that ask as nobody who signs in. A running Postern makes them, and lists and
//! ends them as it does sessions (`operator/`).

mod tell;

use std::sync::Arc;
use std::time::Duration;

use postern_identity::Session;

use crate::ask::{self, Failed};
use crate::cli::{self, Exit, Format, OfServiceAccounts};
use crate::operator::{CREATE, Created, END, Ended, Found, Kind, SESSION, Wanted, WantedAccount, Which, silent};
use crate::probe::Person;
use crate::sessions::{Running, listed};

/// Does what was asked on the command line.
#[must_use]
pub(crate) fn service_accounts(asked: &OfServiceAccounts) -> Exit {
    ask::answered(match asked {
        OfServiceAccounts::Create(asked) => create(asked),
        OfServiceAccounts::List(asked) => list(asked),
        OfServiceAccounts::Show(asked) => show(asked),
        OfServiceAccounts::Delete(asked) => delete(asked),
    })
}

const UNSURE: &str = "whether there is a new service account is not known: `service-accounts list` shows it, and its token is lost, so \
                      delete it and try again";
const UNSURE_END: &str = "whether the service account is deleted is not known: try again";
const NOT_ENDED: &str = "nothing is deleted, as it may be the session of a person: try again, or end it whosever it is with `postern sessions revoke ID`";

fn create(asked: &cli::CreateServiceAccount) -> Result<Exit, Failed> {
    let wanted = wanted(asked)?;
    let created = Running::find(&asked.running)?.change(CREATE, &wanted, UNSURE)?;
    let (facts, token) = match created {
        Created::Account { facts, token } => (facts, token),
        Created::Refused(why) => return Err(Failed::Problem(why)),
        Created::Unavailable(why) => return Err(Failed::Problem(format!("{}; {UNSURE}", silent(&why)))),
    };
    let account = facts.session().ok_or_else(|| Failed::Problem(format!("the answer makes no sense ({UNSURE})")))?;
    if asked.running.format == Format::Human {
        // The token stands alone on stdout.
        crate::tell(&tell::created(&account));
    }
    ask::print(asked.running.format, |_| format!("{token}\n"), || tell::created_json(&account, &token));
    Ok(Exit::Ok)
}

/// What is said on the command line.
fn wanted(asked: &cli::CreateServiceAccount) -> Result<WantedAccount, Failed> {
    let mut person = Person::default();
    asked.claims.iter().try_for_each(|claim| person.claim(claim)).map_err(Failed::Usage)?;
    let life =
        asked.expires_in.as_deref().map(|text| life(text).ok_or_else(|| Failed::Usage(no_life(text)))).transpose()?;
    let wanted = WantedAccount {
        name: asked.name.clone(),
        user: asked.user.clone(),
        email: asked.email.clone(),
        groups: asked.groups.clone(),
        claims: person.claims,
        seconds: life.map(|life| life.as_secs()),
    };
    wanted.user().map_err(Failed::Usage)?;
    Ok(wanted)
}

/// A number and a unit, from a second to a hundred years.
fn life(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => DAY,
        "w" => 7 * DAY,
        _ => return None,
    };
    let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = digits.then(|| number.parse::<u64>().ok()?.checked_mul(unit))??;
    (1..=LONGEST).contains(&seconds).then(|| Duration::from_secs(seconds))
}

const DAY: u64 = 24 * 3_600;
const LONGEST: u64 = 36_525 * DAY;

fn no_life(text: &str) -> String {
    format!(
        "--expires-in {text}: write a number and s, m, h, d or w, such as 90d, up to {}d; or --never in its place",
        LONGEST / DAY
    )
}

fn list(asked: &cli::ListServiceAccounts) -> Result<Exit, Failed> {
    if asked.limit == 0 {
        return Err(Failed::Usage("--limit 0: write a number from 1 on".to_owned()));
    }
    let wanted =
        Wanted { kind: Kind::ServiceAccounts, user: asked.user.clone(), limit: asked.limit, ..Wanted::default() };
    let (lines, more, unread) = Running::find(&asked.running)?.list(wanted)?;
    if lines.is_empty() && unread.count > 0 {
        return listed(&unread);
    }
    let json = || tell::lines_json(&lines, more, &unread);
    ask::print(asked.running.format, |colour| tell::lines(&lines, more, colour), json);
    listed(&unread)
}

fn show(asked: &cli::OneServiceAccount) -> Result<Exit, Failed> {
    let running = Running::find(&asked.running)?;
    let account = account(running.ask(SESSION, &which(&running, &asked.account)?)?)?;
    ask::print(asked.running.format, |colour| tell::account(&account, colour), || tell::account_json(&account));
    Ok(Exit::Ok)
}

fn delete(asked: &cli::OneServiceAccount) -> Result<Exit, Failed> {
    let running = Running::find(&asked.running)?;
    may_end(running.ask(SESSION, &which(&running, &asked.account)?)?)?;
    let (ended, words) = match running.change(END, &which(&running, &asked.account)?, UNSURE_END)? {
        Ended::Now => (1, "1 service account is deleted"),
        Ended::Before => (0, "it had been deleted before"),
        Ended::Unknown => return Err(Failed::Problem(NO_SUCH.to_owned())),
        Ended::Unavailable(why) => return Err(Failed::Problem(format!("{}; {UNSURE_END}", silent(&why)))),
    };
    ask::print(asked.running.format, |_| format!("{words}\n"), || serde_json::json!({ "deleted": ended }));
    Ok(Exit::Ok)
}

/// Whether what was found may be ended as a service account. One that is there no more may: then the end is said to be known.
/// What could not be looked up may be the session of a person.
fn may_end(found: Found) -> Result<(), Failed> {
    match found {
        Found::Revoked | Found::Unknown => Ok(()),
        Found::Live(_) => account(found).map(drop),
        Found::Unavailable(why) => Err(Failed::Problem(format!("{}; {NOT_ENDED}", silent(&why)))),
    }
}

fn which(running: &Running, written: &str) -> Result<Which, Failed> {
    running.which(written, NO_ID)
}

/// The service account that was found.
fn account(found: Found) -> Result<Arc<Session>, Failed> {
    let account = match found {
        Found::Live(facts) => facts.session(),
        Found::Revoked => return Err(Failed::Problem("that service account was deleted".to_owned())),
        Found::Unknown => None,
        Found::Unavailable(why) => return Err(Failed::Problem(silent(&why))),
    };
    let account = account.ok_or_else(|| Failed::Problem(NO_SUCH.to_owned()))?;
    if account.is_service_account() { Ok(account) } else { Err(Failed::Problem(A_PERSONS.to_owned())) }
}

const NO_SUCH: &str = "there is no such service account, or it is over";
const NO_ID: &str = "write the id of a service account as `service-accounts list` has it, and logs in `service-account-id`, 43 characters long";
const A_PERSONS: &str = "that is the session of a person: `postern sessions` shows it, and ends it";

#[cfg(test)]
mod tests {
    use postern_identity::{Claims, IdpId, NEVER, SessionHandle, Timestamp, User};

    use super::*;
    use crate::operator::Facts;

    #[test]
    fn what_could_not_be_looked_up_is_not_ended_for_a_service_account() {
        let session = |idp: IdpId| Session {
            handle: SessionHandle::from_bytes([7; 32]),
            user: User::default(),
            claims: Claims::default(),
            idp,
            issued_at: Timestamp::from_secs(1),
            expires_at: NEVER,
            idle: None,
            generation: 1,
        };
        let live = |idp| Found::Live(Box::new(Facts::of(&session(idp))));
        for gone in [Found::Revoked, Found::Unknown, live(IdpId::service_account())] {
            assert!(may_end(gone).is_ok());
        }
        for (found, why) in [(live(IdpId::new("one")), A_PERSONS), (Found::Unavailable("away".to_owned()), NOT_ENDED)] {
            let Err(Failed::Problem(told)) = may_end(found) else { panic!("it is ended") };
            assert!(told.ends_with(why), "{told}");
        }
    }

    #[test]
    fn a_life_is_a_number_and_a_unit() {
        for (text, seconds) in
            [("1s", 1), ("5m", 300), ("2h", 7_200), ("90d", 90 * DAY), ("4w", 28 * DAY), ("36525d", LONGEST)]
        {
            assert_eq!(life(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        let odd =
            ["", "d", "90", "0d", "-1d", "+1d", "1.5h", "1h30m", "90 d", "36526d", "99999999999999999999d", "1y", "9µ"];
        for text in odd {
            assert_eq!(life(text), None, "{text}");
        }
    }
}
