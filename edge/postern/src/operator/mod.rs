//! What a running Postern tells to whoever proves to hold its `shared_secret`, on `health_check_addr` and over the loopback
//! alone (docs/decisions/0015). A question is one POST under `/operator/`; `proof.rs` says who may ask, `face.rs` is the side of
//! the process, `client.rs` that of the command line, and what is asked has a file for each thing.

mod client;
mod face;
mod proof;
mod session;

pub(crate) use client::{Operator, Unanswered};
pub(crate) use face::{Face, routes};
pub(crate) use session::{Found, SESSION, Which};
