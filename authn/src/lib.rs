//! Learns who they are: runs the sign-in with the identity provider, makes sessions, ends them, and shows users their own pages.

mod config;
pub use config::{AuthnConfig, IdpConfig, ProviderKind, RouteHosts};
