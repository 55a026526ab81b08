//! Carries requests: from an accepted stream, through the gate, to an upstream and back.
//!
//! No permit, no passage: proxying takes a `Permit`, and only `admit` can make one.

mod assertion;
mod config;
pub mod listener;
mod metrics;
mod request;
pub mod route;
mod upstream;

pub use assertion::{AssertionSlot, SigningKeyError, SigningKeys};
pub use config::{
    AccessField, AuthenticateTarget, AuthorizeField, Certificates, CertifiedFiles, ClaimHeader, CookieConfig,
    EdgeConfig, EscapedSlashes, HeaderRule, IdentityConfig, JwtIssuerFormat, Listeners, LogConfig, PathConfig,
    ProxyConfig, PublicListener, ResponseHeaders, Timeouts, UnderscoreHeaders,
};
pub use listener::{CertificateNames, ClientCert, Connection, Violation};
pub use metrics::Metrics;
pub use request::{BadRequest, CanonicalPath, Client, Host, HostError, PathError, Request};
pub use upstream::RootsError;
