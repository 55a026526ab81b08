//! Service accounts, for people and for programs.

use std::fmt::Write as _;

use postern_identity::{NEVER, Session, Timestamp};
use serde_json::{Map, Value, json};

use crate::ask::{Page, clean};
use crate::config::Colour;
use crate::operator::{Line, Unread};
use crate::sessions::words;

/// When it ends, for people.
fn end(expires_at: Timestamp) -> String {
    if expires_at >= NEVER { "never".to_owned() } else { expires_at.to_string() }
}

/// The same for programs.
fn end_json(expires_at: Timestamp) -> Value {
    if expires_at >= NEVER { Value::Null } else { expires_at.to_string().into() }
}

/// What is said beside the token of a new one.
pub(super) fn created(account: &Session) -> String {
    let (id, user, ends) = (account.handle, clean(&account.user.id), end(account.expires_at));
    format!(
        "the service account {id} asks as {user}, and ends: {ends}\n\
         its token is on the next line, and is shown this once: keep it like a password"
    )
}

/// The table.
pub(super) fn lines(lines: &[Line], more: bool, colour: Colour) -> String {
    let page = Page(colour);
    if lines.is_empty() {
        return "  no service account\n".to_owned();
    }
    let head = ["service account", "name", "user", "e-mail", "created", "ends"];
    let mut rows = vec![head.map(|name| page.bold(name)).to_vec()];
    rows.extend(lines.iter().map(|line| {
        let maybe = |text: &Option<String>| text.as_deref().map_or_else(|| "-".to_owned(), clean);
        vec![
            line.session.clone(),
            maybe(&line.name),
            clean(&line.user),
            maybe(&line.email),
            Timestamp::from_millis(line.issued_at).to_string(),
            end(Timestamp::from_millis(line.expires_at)),
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
            "service_account": line.session,
            "name": line.name,
            "user": line.user,
            "email": line.email,
            "created_at": Timestamp::from_millis(line.issued_at).to_string(),
            "expires_at": end_json(Timestamp::from_millis(line.expires_at)),
        })
    };
    json!({ "service_accounts": lines.iter().map(line).collect::<Vec<_>>(), "more": more, "unread": unread.count })
}

/// One of them.
pub(super) fn account(account: &Session, colour: Colour) -> String {
    let (page, user) = (Page(colour), &account.user);
    let maybe = |text: &Option<String>| text.as_deref().map_or_else(|| "-".to_owned(), clean);
    let rows = [
        ("service account", account.handle.to_string()),
        ("name", maybe(&user.name)),
        ("user", clean(&user.id)),
        ("e-mail", maybe(&user.email)),
        ("created", account.issued_at.to_string()),
        ("ends", end(account.expires_at)),
    ];
    let claims = user.claims.iter().map(|(name, values)| vec![clean(name), clean(&words(values))]);
    let mut out = String::new();
    let _infallible = page.columns(&mut out, &rows.map(|(name, value)| vec![name.to_owned(), value]));
    let _infallible = writeln!(out, "\n{}", page.bold("claims"));
    let _infallible = page.columns(&mut out, &claims.collect::<Vec<_>>());
    out
}

/// The same for programs.
pub(super) fn account_json(account: &Session) -> Value {
    let user = &account.user;
    let claims = user.claims.iter().map(|(name, values)| (name.to_owned(), Value::from(values.to_vec())));
    json!({
        "service_account": account.handle.to_string(),
        "name": user.name,
        "user": user.id,
        "email": user.email,
        "created_at": account.issued_at.to_string(),
        "expires_at": end_json(account.expires_at),
        "claims": claims.collect::<Map<_, _>>(),
    })
}

/// A new one with its token, for programs.
pub(super) fn created_json(account: &Session, token: &str) -> Value {
    let mut told = account_json(account);
    if let Some(told) = told.as_object_mut() {
        told.insert("token".to_owned(), token.into());
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_without_an_end_says_so() {
        let line = Line {
            session: "A".repeat(43),
            user: "ci".to_owned(),
            issuer: "service-account".to_owned(),
            email: None,
            name: Some("\u{1b}[2Jdeploy".to_owned()),
            idp: "service-account".to_owned(),
            issued_at: 0,
            expires_at: NEVER.as_millis(),
        };
        let told = lines(std::slice::from_ref(&line), true, Colour::Plain);
        assert!(!told.contains('\u{1b}') && told.contains("never") && told.contains("--limit"), "{told}");
        let none = Unread::default();
        assert_eq!(
            lines_json(std::slice::from_ref(&line), false, &none)["service_accounts"][0]["expires_at"],
            Value::Null
        );
        let ending = Line { expires_at: 3_600_000, ..line };
        assert_eq!(lines_json(&[ending], false, &none)["service_accounts"][0]["expires_at"], "1970-01-01T01:00:00Z");
    }
}
