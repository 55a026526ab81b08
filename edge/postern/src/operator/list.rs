//! Whose sessions are there?

use std::time::{Duration, Instant, SystemTime};

use postern_authn::Authn;
use postern_identity::{SERVICE_ACCOUNT, Session};
use postern_storage::{Lookup, Place, Sessions, StorageError};
use serde::{Deserialize, Serialize};

/// Where this is asked.
pub(crate) const LIST: &str = "/operator/sessions";
/// No further page is looked at after so long: what is found so far is answered, and where the rest is.
const ENOUGH: Duration = Duration::from_secs(2);
/// Nor after so many that are wanted.
const MOST: usize = 500;
/// So many that could not be read are named.
const NAMED: usize = 20;
/// What a line shows of a name or an address at most.
const WIDTH: usize = 256;

/// Which sessions are wanted: those for which everything holds that is said.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Wanted {
    /// Whether those of people, of programs, or both.
    #[serde(default)]
    pub(crate) kind: Kind,
    /// Of the user of this id.
    pub(crate) user: Option<String>,
    /// Of users of this address, in whatever case it is written.
    pub(crate) email: Option<String>,
    /// Of this provider: its id in the logs, or its issuer.
    pub(crate) idp: Option<String>,
    /// So many suffice.
    pub(crate) limit: usize,
    /// Where the answer before said that the rest is.
    pub(crate) from: Option<String>,
}

/// Whose sessions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// Of people who have signed in.
    #[default]
    People,
    /// Of service accounts.
    ServiceAccounts,
    /// Of both.
    Both,
}

/// What the store says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Listed {
    /// Some of them, those of which the store does not say whether they live, and where the rest is.
    Some {
        lines: Vec<Line>,
        #[serde(default)]
        unread: Unread,
        next: Option<String>,
    },
    /// The store does not answer.
    Unavailable(String),
}

/// What was not read: sessions, all of a user at some issuer, or all of a server. How many of them, some by name, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Unread {
    pub(crate) count: usize,
    pub(crate) some: Vec<String>,
    pub(crate) why: Option<String>,
}

impl Unread {
    fn push(&mut self, name: &str, error: &StorageError) {
        self.add(Self { count: 1, some: vec![name.to_owned()], why: Some(error.to_string()) });
    }

    /// These as well.
    pub(crate) fn add(&mut self, more: Self) {
        self.count += more.count;
        self.some.extend(more.some);
        self.some.truncate(NAMED);
        self.why = self.why.take().or(more.why);
    }

    /// What is to be said of them, if there are any.
    pub(crate) fn told(&self) -> Option<String> {
        let why = self.why.as_deref()?;
        let (named, others) = (self.some.join(", "), self.count.saturating_sub(self.some.len()));
        let others = if others > 0 { format!(" and {others} more") } else { String::new() };
        Some(format!("not all could be read, and what is missing may live or not: {named}{others} ({why}); try again"))
    }
}

/// A session in a list.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Line {
    /// Its name: what logs and the `sid` claim have.
    pub(crate) session: String,
    pub(crate) user: String,
    pub(crate) issuer: String,
    pub(crate) email: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) idp: String,
    pub(crate) issued_at: i64,
    pub(crate) expires_at: i64,
}

impl Wanted {
    fn is_met(&self, session: &Session) -> bool {
        let user = &session.user;
        let is = |wanted: &Option<String>, holds: &dyn Fn(&str) -> bool| wanted.as_deref().is_none_or(holds);
        let is_kind = match self.kind {
            Kind::People => !session.is_service_account(),
            Kind::ServiceAccounts => session.is_service_account(),
            Kind::Both => true,
        };
        is_kind
            && is(&self.user, &|id| id == user.id)
            && is(&self.email, &|wanted| user.email.as_ref().is_some_and(|email| email.eq_ignore_ascii_case(wanted)))
            && is(&self.idp, &|idp| idp == session.idp.as_str() || idp == user.issuer)
    }
}

impl Line {
    fn of(session: &Session) -> Self {
        let cut = |text: &Option<String>| text.as_ref().map(|text| text.chars().take(WIDTH).collect());
        Self {
            session: session.handle.to_string(),
            user: session.user.id.clone(),
            issuer: session.user.issuer.clone(),
            email: cut(&session.user.email),
            name: cut(&session.user.name),
            idp: session.idp.as_str().to_owned(),
            issued_at: session.issued_at.as_millis(),
            expires_at: session.expires_at.as_millis(),
        }
    }
}

/// Looks for them.
pub(super) async fn find(sessions: &Sessions, authn: &Authn, wanted: Wanted) -> Listed {
    let found = match &wanted.user {
        Some(user) => of_user((sessions, authn), user, &wanted).await.map(|(lines, unread)| (lines, unread, None)),
        None => among_all(sessions, &wanted).await,
    };
    match found {
        Ok((lines, unread, next)) => Listed::Some { lines, unread, next: next.map(|next| next.to_string()) },
        Err(error) => Listed::Unavailable(error.to_string()),
    }
}

/// By the index of the user, at every provider that is configured, and among service accounts.
async fn of_user(
    (sessions, authn): (&Sessions, &Authn),
    user: &str,
    wanted: &Wanted,
) -> Result<(Vec<Line>, Unread), StorageError> {
    let now = SystemTime::now().into();
    let (mut lines, mut unread, mut failed) = (Vec::new(), Unread::default(), None);
    let issuers: Vec<_> = authn.issuers(None).into_iter().chain([SERVICE_ACCOUNT.to_owned()]).collect();
    let mut read = false;
    for issuer in issuers {
        let listed = match sessions.list(&issuer, user, now).await {
            Ok(listed) => listed,
            Err(error) => {
                unread.push(&format!("all of {user} at {issuer}"), &error);
                failed = Some(error);
                continue;
            }
        };
        read = true;
        for line in listed.into_iter().take(MOST) {
            match sessions.load(&line.handle, now).await {
                Ok(Lookup::Found(session)) if wanted.is_met(&session) => lines.push(Line::of(&session)),
                Ok(Lookup::Found(_) | Lookup::Revoked | Lookup::Unknown) => {}
                Err(error) => unread.push(&line.handle.to_string(), &error),
            }
        }
    }
    match failed {
        Some(error) if !read => Err(error),
        _ => Ok((lines, unread)),
    }
}

/// Page by page.
async fn among_all(sessions: &Sessions, wanted: &Wanted) -> Result<(Vec<Line>, Unread, Option<Place>), StorageError> {
    let (begun, enough) = (Instant::now(), wanted.limit.min(MOST));
    let (mut lines, mut unread, mut place) =
        (Vec::new(), Unread::default(), wanted.from.as_deref().and_then(Place::parse));
    loop {
        let now = SystemTime::now().into();
        let page = sessions.page(place, now).await?;
        lines.extend(page.sessions.iter().filter(|session| wanted.is_met(session)).map(Line::of));
        page.unread.iter().for_each(|(name, error)| unread.push(name, error));
        place = page.next;
        if place.is_none() || lines.len() >= enough || begun.elapsed() >= ENOUGH {
            return Ok((lines, unread, place));
        }
    }
}

#[cfg(test)]
mod tests {
    use postern_identity::{Claims, IdpId, SessionHandle, Timestamp, User};

    use super::*;

    fn session() -> Session {
        let user = User { id: "u-1".to_owned(), issuer: "https://idp.example".to_owned(), ..User::default() };
        Session {
            handle: SessionHandle::from_bytes([7; 32]),
            user: User { email: Some("Alice@example.com".to_owned()), ..user },
            claims: Claims::default(),
            idp: IdpId::new("one"),
            issued_at: Timestamp::from_secs(500),
            expires_at: Timestamp::from_secs(2_000),
            idle: None,
            generation: 1,
        }
    }

    #[test]
    fn everything_that_is_said_has_to_hold() {
        let text = |text: &str| Some(text.to_owned());
        let all = Wanted { user: text("u-1"), email: text("alice@EXAMPLE.com"), idp: text("one"), ..Wanted::default() };
        assert!(Wanted::default().is_met(&session()) && all.is_met(&session()));
        assert!(Wanted { idp: text("https://idp.example"), ..all.clone() }.is_met(&session()));
        for other in [
            Wanted { user: text("u-2"), ..all.clone() },
            Wanted { email: text("bob@example.com"), ..all.clone() },
            Wanted { idp: text("two"), ..all },
        ] {
            assert!(!other.is_met(&session()), "{other:?}");
        }
    }

    #[test]
    fn sessions_that_could_not_be_read_are_counted_and_some_are_named() {
        let (mut unread, error) = (
            Unread::default(),
            StorageError::Unavailable { reason: "it is away".to_owned(), retry_after: Duration::from_secs(1) },
        );
        assert_eq!(unread.told(), None);
        unread.push("one", &error);
        let told = unread.told().unwrap();
        assert!(told.ends_with(": one (the session store is unavailable: it is away); try again"), "{told}");
        for number in 0..NAMED + 5 {
            unread.push(&number.to_string(), &error);
        }
        let told = unread.told().unwrap();
        assert!(unread.count == 26 && told.contains("one, 0, 1, 2, ") && told.contains(", 18 and 6 more ("), "{told}");
        let answer = serde_json::from_str(r#"{"some": {"lines": [], "next": null}}"#).unwrap();
        assert!(matches!(answer, Listed::Some { unread, .. } if unread == Unread::default()), "of a version before");
    }

    #[test]
    fn a_service_account_is_no_session_of_a_person() {
        let account = Session { idp: IdpId::service_account(), ..session() };
        for (kind, of_people, of_programs) in
            [(Kind::People, true, false), (Kind::ServiceAccounts, false, true), (Kind::Both, true, true)]
        {
            let wanted = Wanted { kind, ..Wanted::default() };
            assert_eq!((wanted.is_met(&session()), wanted.is_met(&account)), (of_people, of_programs), "{kind:?}");
        }
    }
}
