//! What they see: every page of the product, one struct each, rendered to a string.
//!
//! This crate is pure: it fetches nothing, knows no clock and decides nothing. Each page is whole in itself: the
//! style sheet is inside it, there is no script and no image to load, so that a page works while everything else is
//! down. All text that is given is untrusted: it is cut, cleaned and escaped here (S-074), and an address becomes a
//! link only if it stays with http, https or this host.
//!
//! Send every page with [`CSP`] as `Content-Security-Policy`, as `text/html; charset=utf-8`. Start with [`ErrorPage`].
//!
//! **Forms and redirects.** `form-action 'self'` also binds the redirects that follow a form (Chromium checks each
//! hop), and signing out ends at the identity provider, which is another host. So the one form, [`SignOutConfirm`],
//! is answered not with a redirect but with [`SigningOut`]: a page that moves on by itself with a fresh navigation
//! (`meta refresh`), to which no form policy applies. All other ways out are plain links.

pub mod demo;
mod error;
mod parts;
mod sign_in;
mod sign_out;
pub mod text;
mod user;

pub use error::ErrorPage;
pub use parts::{Links, Reference, Who};
pub use sign_in::{NotSignedIn, Onward, SignInFailed, SignInLoop, StartAgain};
pub use sign_out::{SignOutConfirm, SignedOut, SigningOut};
pub use user::{SessionTimes, UserPage};

/// The style sheet inside every page.
pub const STYLE: &str = include_str!("../style.css");

/// The hash of [`STYLE`], as `Content-Security-Policy` writes it.
macro_rules! style_hash {
    () => {
        "Stfwkudae5jN5ZKj6zmMZm0FwVgN1/sOwdH7Gqn/W7Q="
    };
}
pub(crate) use style_hash;

/// The `Content-Security-Policy` of every page: nothing but its own style sheet, which is named by its hash.
pub const CSP: &str = concat!(
    "default-src 'none'; style-src 'sha256-",
    style_hash!(),
    "'; img-src 'self' data:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
);

/// Gives a page its `html`.
macro_rules! page {
    ($page:ident) => {
        impl $page<'_> {
            /// The whole page.
            #[must_use]
            pub fn html(&self) -> String {
                askama::Template::render(self).unwrap_or_else(|_| crate::UNWRITABLE.to_owned())
            }
        }
    };
}
pub(crate) use page;

/// Writing to a string does not fail; if it ever does, this is better than nothing.
const UNWRITABLE: &str = "<!doctype html><title>Error</title><p>This page could not be made.";

#[cfg(test)]
mod tests;
