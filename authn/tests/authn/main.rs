//! Authn as a browser and a provider see it: a real server on loopback, and a provider that breaks one rule at a time.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails, in its helpers as in itself"
)]

mod chain;
mod edge;
mod faults;
mod flow;
mod keys;
mod operator;
mod programs;
mod refresh;
mod service_accounts;
mod sign_out;
mod support;
mod tls;
mod user;
