//! The two pages of `postern demo` that stand for others' software: its identity provider and its sample application.

use askama::Template;

use crate::{Who, text};

/// The policy of [`ChooseAccount`]. Its form leads to the relying party, which is another https host.
pub const CHOOSE_ACCOUNT_CSP: &str = concat!(
    "default-src 'none'; style-src 'sha256-",
    crate::style_hash!(),
    "'; img-src data:; form-action 'self' https:; frame-ancestors 'none'; base-uri 'none'"
);

/// The policy of [`Application`], which has a script to speak over a WebSocket.
pub const APPLICATION_CSP: &str = concat!(
    "default-src 'none'; style-src 'sha256-",
    crate::style_hash!(),
    "'; script-src 'sha256-",
    "xEfuIohpMD3hdGOjtjKo/kzx1l4DGoFROdMK8u2O1NA=",
    "'; img-src data:; connect-src 'self'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
);

/// The script inside [`Application`].
pub(crate) const SCRIPT: &str = include_str!("../templates/application.js");

/// Asks who to be: the form sends `user` to the very address of the page.
#[derive(Debug, Clone, Copy, Template)]
#[template(path = "choose_account.html")]
pub struct ChooseAccount<'a> {
    /// Where the sign-in leads to.
    pub client: &'a str,
    /// Whom one can be.
    pub accounts: &'a [Account<'a>],
}

crate::page!(ChooseAccount);

/// One choice.
#[derive(Debug, Clone, Copy)]
pub struct Account<'a> {
    /// What the form sends.
    pub id: &'a str,
    /// The person.
    pub who: Who<'a>,
    /// What sets them apart.
    pub note: &'a str,
}

/// Shows what an application learns about its caller.
#[derive(Debug, Clone, Copy, Template)]
#[template(path = "application.html")]
pub struct Application<'a> {
    /// The host that was asked for.
    pub host: &'a str,
    /// Who calls.
    pub caller: Caller<'a>,
    /// The headers that came.
    pub headers: &'a [(&'a str, &'a str)],
    /// Whether to offer a WebSocket echo at `/ws` of this host.
    pub echo: bool,
    /// Labels and addresses to go on to.
    pub links: &'a [(&'a str, &'a str)],
}

crate::page!(Application);

/// Who calls an application, as far as it could find out.
#[derive(Debug, Clone, Copy)]
pub enum Caller<'a> {
    /// The assertion is good, and names somebody.
    Verified {
        /// The person.
        who: Who<'a>,
        /// Their groups.
        groups: &'a [&'a str],
    },
    /// The assertion is good, and names nobody.
    Anonymous,
    /// The assertion is missing or not good: why, without a full stop.
    Unverified(&'a str),
}

impl Application<'_> {
    fn greeting(&self) -> String {
        match self.caller {
            Caller::Verified { who, .. } => format!("Hello, {}", text::clip(who.name, 60)),
            Caller::Anonymous => "Hello, stranger".to_owned(),
            Caller::Unverified(_) => "Who are you?".to_owned(),
        }
    }

    fn shown_headers(&self) -> text::Fit<'_, (&str, &str)> {
        text::fit(self.headers, 5_000, |(name, value)| {
            text::weight(&text::clip(name, 60)) + text::weight(&text::clip(value, 160))
        })
    }
}
