//! Redis and Valkey servers as one keyspace: a single one, the master that Sentinel names, or a cluster.
//!
//! The router is ours, because both published cluster clients let the failure of one shard reach the others
//! (`docs/decisions/0016-store-client.md`). Below it each server has connections of its own, kept by a task each, so a
//! server that is down, slow or gone delays only what belongs to it.

mod check;
mod command;
mod durable;
mod expected;
mod link;
mod node;
mod router;
mod script;
mod seldom;
mod slots;
#[cfg(test)]
mod tests;
mod topology;

pub(crate) use check::check;
pub(crate) use command::{Command, Reply};
pub(crate) use link::{Dial, Link};
pub(crate) use router::Router;
pub(crate) use script::Script;
