//! The pages on which a sign-in can end, short of success.

use askama::Template;

use crate::Reference;

/// The identity provider, or the check of its answer, said no.
#[derive(Debug, Clone, Copy, Template)]
#[template(path = "sign_in_failed.html")]
pub struct SignInFailed<'a> {
    /// What happened, plainly, with a full stop.
    pub sentence: &'a str,
    /// `error` as the provider sent it; text from outside.
    pub provider_error: Option<&'a str>,
    /// `error_description` as the provider sent it; text from outside.
    pub provider_description: Option<&'a str>,
    /// How to speak about it.
    pub reference: Reference<'a>,
    /// Begins a new sign-in.
    pub retry: Option<&'a str>,
}

crate::page!(SignInFailed);

/// A page of the user's own was asked for, and nobody is signed in.
#[derive(Debug, Clone, Copy, Template)]
#[template(path = "not_signed_in.html")]
pub struct NotSignedIn<'a> {
    /// The host that is asked, to say where.
    pub host: &'a str,
    /// Begins a sign-in.
    pub sign_in: Option<&'a str>,
}

crate::page!(NotSignedIn);

/// A sign-in that cannot go on: its page was too old, was used already, or belongs to another browser.
#[derive(Debug, Clone, Copy, Template)]
#[template(path = "start_again.html")]
pub struct StartAgain<'a> {
    /// What happened, plainly, with a full stop.
    pub sentence: &'a str,
    /// How to speak about it.
    pub reference: Reference<'a>,
    /// Where to go from here.
    pub onward: Onward<'a>,
}

crate::page!(StartAgain);

/// Where somebody goes on whose sign-in cannot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Onward<'a> {
    /// The place that was first asked for: a new sign-in begins there.
    Wanted(&'a str),
    /// The place that another sign-in of this browser was to lead to.
    Other(&'a str),
    /// The person's own page: nobody knows what was wanted.
    Home(&'a str),
}

/// A browser that goes round in circles between the application and the sign-in.
#[derive(Debug, Clone, Copy, Template)]
#[template(path = "sign_in_loop.html")]
pub struct SignInLoop<'a> {
    /// The host whose session cookie does not come back.
    pub host: &'a str,
    /// What was noticed, one sentence each: a cookie that is missing, a clock that is off.
    pub findings: &'a [&'a str],
    /// How to speak about it.
    pub reference: Reference<'a>,
    /// Begins a new sign-in.
    pub retry: Option<&'a str>,
}

crate::page!(SignInLoop);
