//! May they? The policy language, compiled once into a tree that decides without allocating, locking or failing.
//!
//! [`Policy::decide`] is total: every input gives a [`Decision`], and everything that is missing, unknown or contradictory
//! denies (S-097). Parsing is the only place where things can go wrong, and there every mistake carries its place in the
//! file ([`document::Place`]).
//!
//! Start with [`Policy`], then [`Facts`], then [`ppl`].

mod audience;
mod criterion;
mod decision;
pub mod document;
mod facts;
mod idle;
mod legacy;
mod lint;
mod matcher;
#[cfg(test)]
mod page;
mod policy;
pub mod ppl;
mod samples;
mod schema;
#[cfg(test)]
mod testing;
mod trace;
mod unmet;

pub use audience::Audience;
pub use criterion::Carrier;
pub use decision::{Decision, Evaluation, Reason, Reasons, RuleResult};
pub use facts::{
    Certificate, ClientCertificate, Device, DeviceRecord, Email, Enrolment, Facts, Mcp, Person, Record, Ssh,
    SshCertificate,
};
pub use idle::{Idle, idle};
pub use legacy::Legacy;
pub use matcher::IpMatcher;
pub use policy::{Action, Operator, Origin, Policy, Rule};
pub use samples::{RuleSignature, Sample, Samples, Signature};
pub use schema::schema;
pub use trace::{CriterionTrace, RuleTrace, Trace};
pub use unmet::Unmet;
