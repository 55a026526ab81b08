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
    let email = user.email.as_deref();
    let name = user.name.as_deref();
    Who {
        name: name.or(email).unwrap_or(&user.id),
        email: email.filter(|_| name.is_some()),
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

/// `2026-01-31 12:00 UTC`, by the civil calendar (H. Hinnant, "chrono-compatible low-level date algorithms").
pub(crate) fn utc(at: Timestamp) -> String {
    let (days, seconds) = (at.as_secs().div_euclid(86_400), at.as_secs().rem_euclid(86_400));
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02} UTC", seconds / 3_600, seconds / 60 % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_in_the_civil_calendar() {
        for (seconds, shown) in [
            (0, "1970-01-01 00:00 UTC"),
            (951_782_399, "2000-02-28 23:59 UTC"),
            (951_782_400, "2000-02-29 00:00 UTC"),
            (1_735_689_599, "2024-12-31 23:59 UTC"),
            (1_795_570_233, "2026-11-25 01:30 UTC"),
        ] {
            assert_eq!(utc(Timestamp::from_secs(seconds)), shown);
        }
    }
}
