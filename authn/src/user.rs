//! The user's own page: who you are here. Shows no token and no cookie, and is not for scripts (S-094).

use http::StatusCode;
use postern_identity::{Claims, Session, Timestamp, User};
use postern_pages::{NotSignedIn, SessionTimes, UserPage, Who};
use serde_json::Value;

use crate::answer::Answer;
use crate::error::SignInError;
use crate::server::{Shared, refusal};
use crate::sign_in::session_here;
use crate::visit::Visit;

/// `/.pomerium/`.
pub(crate) async fn home(shared: &Shared, visit: &Visit) -> Answer {
    if visit.is_script() {
        return refusal(visit, StatusCode::FORBIDDEN);
    }
    match session_here(shared, visit).await {
        Ok(Some((_, session))) => Answer::page(StatusCode::OK, page(visit, &session)),
        Ok(None) => {
            let sign_in = if visit.is_authn() { None } else { Some("/") };
            Answer::page(StatusCode::UNAUTHORIZED, NotSignedIn { host: visit.host(), sign_in }.html())
        }
        Err(error) => SignInError::Store(error).show(visit, Some("/.pomerium/")),
    }
}

/// A user in the words of a page.
pub(crate) fn who(user: &User) -> Who<'_> {
    let name = user.shown_name();
    Who {
        name,
        email: user.email.as_deref().filter(|email| *email != name),
        email_unverified: user.email_verified == Some(false),
    }
}

fn page(visit: &Visit, session: &Session) -> String {
    let groups = groups(session);
    let claims: Vec<(&str, String)> = session
        .user
        .claims
        .iter()
        .map(|(name, values)| (name, values.iter().map(text).collect::<Vec<_>>().join(", ")))
        .collect();
    let (signed_in, expires) = (utc(session.issued_at), utc(session.expires_at));
    UserPage {
        who: who(&session.user),
        user_id: &session.user.id,
        host: visit.host(),
        groups: &groups.iter().map(String::as_str).collect::<Vec<_>>(),
        claims: &claims.iter().map(|(name, value)| (*name, value.as_str())).collect::<Vec<_>>(),
        headers: &[],
        session: SessionTimes {
            signed_in: &signed_in,
            expires: &expires,
            refreshed: None,
            provider: Some(&session.user.issuer),
        },
        sign_out: Some("/.pomerium/sign_out"),
    }
    .html()
}

fn groups(session: &Session) -> Vec<String> {
    let named = |claims: &Claims| claims.find("groups").map(|groups| groups.iter().map(text).collect());
    named(&session.user.claims).or_else(|| named(&session.claims)).unwrap_or_default()
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// `2026-01-31 12:00 UTC`.
pub(crate) fn utc(at: Timestamp) -> String {
    let text = at.to_string();
    let (day, time) = text.split_once('T').unwrap_or_default();
    format!("{day} {} UTC", time.get(..5).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_to_the_minute() {
        assert_eq!(utc(Timestamp::from_secs(1_795_570_233)), "2026-11-25 01:30 UTC");
    }
}
