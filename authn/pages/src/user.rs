//! The user's own page.

use askama::Template;

use crate::{Who, text};

/// Who you are here: identity, groups, claims, the session and what applications are told.
#[derive(Debug, Clone, Copy, Template)]
#[template(path = "user.html")]
pub struct UserPage<'a> {
    /// The person.
    pub who: Who<'a>,
    /// The stable user id.
    pub user_id: &'a str,
    /// The host whose page this is.
    pub host: &'a str,
    /// Groups.
    pub groups: &'a [&'a str],
    /// Claims by flat name, each value as one text.
    pub claims: &'a [(&'a str, &'a str)],
    /// Headers that applications get, as sent.
    pub headers: &'a [(&'a str, &'a str)],
    /// The session.
    pub session: SessionTimes<'a>,
    /// Signs out.
    pub sign_out: Option<&'a str>,
}

crate::page!(UserPage);

/// A session's times, ready to read.
#[derive(Debug, Clone, Copy)]
pub struct SessionTimes<'a> {
    /// Signed in at.
    pub signed_in: &'a str,
    /// Ends at the latest.
    pub expires: &'a str,
    /// Last renewed with the identity provider, and how that went.
    pub refreshed: Option<&'a str>,
    /// The identity provider that vouches.
    pub provider: Option<&'a str>,
}

/// Longer names and values are cut, in characters.
const LONGEST: usize = 160;

impl UserPage<'_> {
    fn shown_groups(&self) -> text::Fit<'_, &str> {
        text::fit(self.groups, 2_000, |group| text::weight(&text::clip(group, LONGEST)))
    }

    fn shown_claims(&self) -> text::Fit<'_, (&str, &str)> {
        text::fit(self.claims, 3_500, pair)
    }

    fn shown_headers(&self) -> text::Fit<'_, (&str, &str)> {
        text::fit(self.headers, 2_500, pair)
    }
}

fn pair((name, value): &(&str, &str)) -> usize {
    text::weight(&text::clip(name, LONGEST)) + text::weight(&text::clip(value, LONGEST))
}
