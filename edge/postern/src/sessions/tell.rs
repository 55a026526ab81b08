//! Sessions and their ends, for people and for programs.

use std::fmt::Write as _;

use postern_identity::{Claims, Session, Timestamp};
use serde_json::{Value, json};

use crate::ask::{Page, clean};
use crate::config::Colour;
use crate::operator::{Cleaning, Line, Unread};

fn time(millis: i64) -> String {
    Timestamp::from_millis(millis).to_string()
}

/// The table.
pub(super) fn lines(lines: &[Line], more: bool, colour: Colour) -> String {
    let page = Page(colour);
    if lines.is_empty() {
        return "  no session\n".to_owned();
    }
    let head = ["session", "user", "e-mail", "name", "provider", "began", "ends"];
    let mut rows = vec![head.map(|name| page.bold(name)).to_vec()];
    rows.extend(lines.iter().map(|line| {
        let maybe = |text: &Option<String>| text.as_deref().map_or_else(|| "-".to_owned(), clean);
        vec![
            line.session.clone(),
            clean(&line.user),
            maybe(&line.email),
            maybe(&line.name),
            clean(&line.issuer),
            time(line.issued_at),
            time(line.expires_at),
        ]
    }));
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _infallible = page.columns(&mut out, &rows);
    if more {
        let _infallible = writeln!(out, "  there are more; a larger --limit shows them");
    }
    out
}

/// The same for programs.
pub(super) fn lines_json(lines: &[Line], more: bool, unread: &Unread) -> Value {
    let line = |line: &Line| {
        json!({
            "session": line.session,
            "user": line.user,
            "issuer": line.issuer,
            "email": line.email,
            "name": line.name,
            "idp": line.idp,
            "issued_at": time(line.issued_at),
            "expires_at": time(line.expires_at),
        })
    };
    json!({ "sessions": lines.iter().map(line).collect::<Vec<_>>(), "more": more, "unread": unread.count })
}

/// One session.
pub(super) fn session(session: &Session, colour: Colour) -> String {
    let (page, user) = (Page(colour), &session.user);
    let maybe = |text: &Option<String>| text.as_deref().map_or_else(|| "-".to_owned(), clean);
    let email = match user.email_verified {
        Some(false) => format!("{} (not verified)", maybe(&user.email)),
        Some(true) | None => maybe(&user.email),
    };
    let rows = vec![
        ("session", session.handle.to_string()),
        ("user", clean(&user.id)),
        ("e-mail", email),
        ("name", maybe(&user.name)),
        ("provider", format!("{} ({})", clean(&user.issuer), session.idp.as_str())),
        ("began", session.issued_at.to_string()),
        ("ends", session.expires_at.to_string()),
        ("generation", session.generation.to_string()),
    ];
    let table = |rows: Vec<(&str, String)>| rows.into_iter().map(|(name, value)| vec![clean(name), value]).collect();
    let mut out = String::new();
    let _infallible = page.columns(&mut out, &Vec::from_iter::<Vec<_>>(table(rows)));
    for (title, claims) in [("claims of the session", &session.claims), ("claims of the user", &user.claims)] {
        let rows: Vec<_> = claims.iter().map(|(name, values)| (name, clean(&words(values)))).collect();
        if !rows.is_empty() {
            let _infallible = writeln!(out, "\n{}", page.bold(title));
            let _infallible = page.columns(&mut out, &Vec::from_iter::<Vec<_>>(table(rows)));
        }
    }
    out
}

/// The values of a claim.
pub(crate) fn words(values: &[Value]) -> String {
    let word = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    values.iter().map(word).collect::<Vec<_>>().join(", ")
}

/// The same for programs.
pub(super) fn session_json(session: &Session) -> Value {
    let user = &session.user;
    let claims = |claims: &Claims| {
        let pairs = claims.iter().map(|(name, values)| (name.to_owned(), Value::from(values.to_vec())));
        pairs.collect::<serde_json::Map<_, _>>()
    };
    json!({
        "session": session.handle.to_string(),
        "user": user.id,
        "issuer": user.issuer,
        "email": user.email,
        "email_verified": user.email_verified,
        "name": user.name,
        "idp": session.idp.as_str(),
        "issued_at": session.issued_at.to_string(),
        "expires_at": session.expires_at.to_string(),
        "generation": session.generation,
        "claims": claims(&session.claims),
        "user_claims": claims(&user.claims),
    })
}

/// How many have ended.
pub(super) fn ended_json(ended: usize) -> Value {
    json!({ "ended": ended })
}

/// Whose sessions have ended: id, issuer if it is known, and how many they were if they could be listed.
pub(super) type OfOne = (String, Option<String>, Option<usize>);

/// How many of each user.
pub(super) fn users(users: &[OfOne]) -> String {
    let mut out = String::new();
    for (user, issuer, ended) in users {
        let at = issuer.as_deref().map(|issuer| format!(" at {}", clean(issuer))).unwrap_or_default();
        let sessions = match ended {
            Some(1) => "1 session ended".to_owned(),
            Some(ended) => format!("{ended} sessions ended"),
            None => "all sessions ended; the store does not say how many they were".to_owned(),
        };
        let _infallible = writeln!(out, "{}{at}: {sessions}", clean(user));
    }
    out
}

/// The same for programs.
pub(super) fn users_json(users: &[OfOne]) -> Value {
    let each = users.iter().map(|(user, issuer, ended)| json!({ "user": user, "issuer": issuer, "ended": ended }));
    json!({ "ended": users.iter().map(|(_, _, ended)| *ended).sum::<Option<usize>>(), "users": each.collect::<Vec<_>>() })
}

/// How many of everybody.
pub(super) fn all(cleaning: &Cleaning) -> String {
    match &cleaning.trouble {
        None => format!("all sessions have ended: {}\n", cleaning.ended),
        Some(why) => format!("all sessions have ended: {} were found\n{}\n", cleaning.ended, clean(why)),
    }
}

/// The same for programs.
pub(super) fn all_json(cleaning: &Cleaning) -> Value {
    json!({ "ended": cleaning.ended, "trouble": cleaning.trouble })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_provider_says_moves_no_cursor() {
        let line = Line {
            session: "A".repeat(43),
            user: "u-1".to_owned(),
            issuer: "https://idp.example".to_owned(),
            email: Some("\u{1b}[2Jalice@example.com".to_owned()),
            name: None,
            idp: "one".to_owned(),
            issued_at: 0,
            expires_at: 3_600_000,
        };
        let told = lines(&[line], true, Colour::Plain);
        assert!(!told.contains('\u{1b}') && told.contains("alice@example.com"), "{told}");
        assert!(told.contains("1970-01-01T01:00:00Z") && told.contains("--limit"), "{told}");
    }

    #[test]
    fn sessions_that_could_not_be_counted_have_ended_all_the_same() {
        let each = [("u-1".to_owned(), None, Some(1)), ("u-2".to_owned(), None, None)];
        assert!(users(&each).contains("u-1: 1 session ended\nu-2: all sessions ended"), "{}", users(&each));
        assert_eq!(users_json(&each)["ended"], Value::Null);
        assert_eq!(users_json(&each[..1])["ended"], 1);
    }

    #[test]
    fn what_was_given_up_is_told() {
        let given_up = Cleaning { ended: 3, working: false, trouble: Some("it is closed".to_owned()) };
        assert_eq!(all(&given_up), "all sessions have ended: 3 were found\nit is closed\n");
        assert_eq!(all(&Cleaning { trouble: None, ..given_up }), "all sessions have ended: 3\n");
    }
}
