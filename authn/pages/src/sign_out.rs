//! The pages of signing out.

use askama::Template;

use crate::Who;

/// Asks before it signs out, because the request came from another site.
#[derive(Debug, Clone, Copy, Template)]
#[template(path = "sign_out_confirm.html")]
pub struct SignOutConfirm<'a> {
    /// Who is signed in, if known.
    pub who: Option<Who<'a>>,
    /// Path on this host that takes the form.
    pub action: &'a str,
    /// Fields to send along, such as the token that ties the form to this browser.
    pub fields: &'a [(&'a str, &'a str)],
    /// Where to go instead.
    pub cancel: Option<&'a str>,
}

crate::page!(SignOutConfirm);

/// The answer to [`SignOutConfirm`]'s form: the session is over here, and the browser moves on by itself to end it at the
/// identity provider as well.
#[derive(Debug, Clone, Copy, Template)]
#[template(path = "signing_out.html")]
pub struct SigningOut<'a> {
    /// Where the browser goes on; an address that is not safe makes a page that stays.
    pub next: &'a str,
}

crate::page!(SigningOut);

impl SigningOut<'_> {
    /// Inside `content="0; url=…"` a browser takes all up to the end; quotes would change that.
    fn target(&self) -> Option<&str> {
        crate::text::href(self.next).filter(|next| !next.contains(['"', '\'']))
    }
}

/// Signed out.
#[derive(Debug, Clone, Copy, Template)]
#[template(path = "signed_out.html")]
pub struct SignedOut<'a> {
    /// Begins a new sign-in, if there is a place to go to.
    pub sign_in: Option<&'a str>,
}

crate::page!(SignedOut);
