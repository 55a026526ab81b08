//! Carries requests: from an accepted stream, through the gate, to an upstream and back.
//!
//! No permit, no passage: proxying takes a `Permit`, and only `admit` can make one.

mod config;
pub mod listener;
pub mod route;

pub use config::{
    AccessField, AuthenticateTarget, AuthorizeField, Certificates, CertifiedFiles, ClaimHeader, CookieConfig,
    EdgeConfig, EscapedSlashes, HeaderRule, IdentityConfig, JwtIssuerFormat, Listeners, LogConfig, PathConfig,
    ProxyConfig, PublicListener, ResponseHeaders, SigningKeys, Timeouts, UnderscoreHeaders,
};
pub use listener::{CertificateNames, ClientCert, Connection, Violation};
