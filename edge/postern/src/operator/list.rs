//! Whose sessions are there?

use std::time::{Duration, Instant, SystemTime};

use postern_authn::Authn;
use postern_identity::Session;
use postern_storage::{Lookup, Place, Sessions, StorageError};
use serde::{Deserialize, Serialize};

/// Where this is asked.
pub(crate) const LIST: &str = "/operator/sessions";
/// No further page is looked at after so long: what is found so far is answered, and where the rest is.
const ENOUGH: Duration = Duration::from_secs(2);
/// Nor after so many that are wanted.
const MOST: usize = 500;
/// What a line shows of a name or an address at most.
const WIDTH: usize = 256;

/// Which sessions are wanted: those for which everything holds that is said.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Wanted {
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

/// What the store says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Listed {
    /// Some of them, and where the rest is.
    Some { lines: Vec<Line>, next: Option<String> },
    /// The store does not answer.
    Unavailable(String),
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
        is(&self.user, &|id| id == user.id)
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
        Some(user) => of_user((sessions, authn), user, &wanted).await.map(|lines| (lines, None)),
        None => among_all(sessions, &wanted).await,
    };
    match found {
        Ok((lines, next)) => Listed::Some { lines, next: next.map(|next| next.to_string()) },
        Err(error) => Listed::Unavailable(error.to_string()),
    }
}

/// By the index of the user, at every provider that is configured.
async fn of_user(
    (sessions, authn): (&Sessions, &Authn),
    user: &str,
    wanted: &Wanted,
) -> Result<Vec<Line>, StorageError> {
    let now = SystemTime::now().into();
    let mut lines = Vec::new();
    for issuer in authn.issuers(None) {
        for line in sessions.list(&issuer, user, now).await?.into_iter().take(MOST) {
            if let Lookup::Found(session) = sessions.load(&line.handle, now).await?
                && wanted.is_met(&session)
            {
                lines.push(Line::of(&session));
            }
        }
    }
    Ok(lines)
}

/// Page by page.
async fn among_all(sessions: &Sessions, wanted: &Wanted) -> Result<(Vec<Line>, Option<Place>), StorageError> {
    let (begun, enough) = (Instant::now(), wanted.limit.min(MOST));
    let (mut lines, mut place) = (Vec::new(), wanted.from.as_deref().and_then(Place::parse));
    loop {
        let now = SystemTime::now().into();
        let page = sessions.page(place, now).await?;
        lines.extend(page.sessions.iter().filter(|session| wanted.is_met(session)).map(Line::of));
        place = page.next;
        if place.is_none() || lines.len() >= enough || begun.elapsed() >= ENOUGH {
            return Ok((lines, place));
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
}
