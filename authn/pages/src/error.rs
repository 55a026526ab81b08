//! The page of every refusal and every failure.

use askama::Template;

use crate::{Links, Reference, Who, text};

/// A request that was not carried: what happened in one sentence, who you are, what was not met, whom to ask.
#[derive(Debug, Clone, Copy, Template)]
#[template(path = "error.html")]
pub struct ErrorPage<'a> {
    /// The HTTP status.
    pub status: u16,
    /// What happened, plainly, with a full stop.
    pub sentence: &'a str,
    /// How to speak about it.
    pub reference: Reference<'a>,
    /// Who is signed in, if anybody.
    pub who: Option<Who<'a>>,
    /// What stood in the way, in the words of the policy ("needs group admins"); empty if it is not to be told.
    pub unmet: &'a [&'a str],
    /// Whom to ask, if the operator said.
    pub contact: Option<&'a str>,
    /// Ways on. `retry` is for what may pass by itself (5xx).
    pub links: Links<'a>,
}

crate::page!(ErrorPage);

impl ErrorPage<'_> {
    fn heading(&self) -> &'static str {
        match self.status {
            400 => "That request could not be read",
            401 => "You are not signed in",
            403 => "You don’t have access",
            404 => "There is nothing here",
            405 => "That is not possible here",
            408 => "The request took too long",
            413 | 414 | 431 => "That request is too large",
            421 => "This is the wrong door",
            429 => "Too many requests",
            450 => "This device is not allowed",
            495 => "A client certificate is needed",
            502 => "The application is not answering",
            503 => "Not available just now",
            504 => "The application took too long",
            status if status < 500 => "This request was refused",
            _ => "Something went wrong here",
        }
    }

    fn shown_unmet(&self) -> impl Iterator<Item = String> {
        let weigh = |words: &&str| text::weight(&text::clip(words, LONGEST));
        text::fit(self.unmet, 3_000, weigh).rows.iter().map(|words| capitalised(&text::clip(words, LONGEST)))
    }

    fn has_actions(&self) -> bool {
        [self.links.retry, self.links.other_account, self.links.sign_out].into_iter().any(|link| link.is_some())
    }

    /// The first button stands out, and only that.
    fn second(&self) -> &'static str {
        if self.links.retry.is_some() { "" } else { " primary" }
    }

    /// A mistyped address needs nobody's help; a closed or broken door does.
    fn offers_help(&self) -> bool {
        !matches!(self.status, 401 | 404 | 405 | 408 | 429)
            && (self.status >= 500 || self.who.is_some() || self.contact.is_some())
            || matches!(self.status, 403 | 450 | 495)
    }

    fn message(&self) -> String {
        let who = self.who.map(|who| who.email.unwrap_or(who.name));
        let opening = match (self.status, who) {
            (403 | 450 | 495, Some(who)) => {
                format!("I have no access ({}). I am signed in as {}.", self.status, text::clip(who, 120))
            }
            (status, _) => format!("I got error {status}."),
        };
        format!("{opening}\n{}", self.reference.message())
    }
}

/// Longer words about a criterion are cut, in characters.
const LONGEST: usize = 300;

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}
