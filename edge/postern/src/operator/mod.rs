//! What a running Postern tells to whoever proves to hold its `shared_secret`, on `health_check_addr` and over the loopback
//! alone (docs/decisions/0015). A question is one POST under `/operator/`; `proof.rs` says who may ask, `face.rs` is the side of
//! the process, `client.rs` that of the command line, and what is asked has a file for each thing.

mod accounts;
mod client;
mod endings;
mod face;
mod list;
mod proof;
mod session;

pub(crate) use accounts::{CREATE, Created, Wanted as WantedAccount};
pub(crate) use client::Operator;
pub(crate) use endings::{
    CLEARING, Cleaning, Cleared, END, END_ALL, END_USER, Ended, Everybody, OfUser, Seen, UserEnded,
};
pub(crate) use face::{Face, routes};
pub(crate) use list::{Kind, LIST, Line, Listed, Unread, Wanted};
#[cfg(test)]
pub(crate) use session::Facts;
pub(crate) use session::{Found, NO_NAME, NO_SUCH, SESSION, Which, silent};
