//! Learns who they are: runs the sign-in with the identity provider, makes sessions, ends them, and shows users their own page.
//!
//! [`Authn`] is a server on a private listener behind the edge, which forwards two kinds of requests to it: all of the
//! authenticate host, and the reserved paths of every route's host. It believes a request only if it carries the token
//! that edges of this deployment know (S-114).
//!
//! A sign-in is a chain of types, each made only from the one before:
//! `SignInRequest` (signed by the edge) → `PendingSignIn` (sealed in a cookie) → *provider* → `VerifiedCallback` →
//! `Vouched` (ID token verified) → `Session` (saved) → `Ticket` (used once) → the session cookie on the route's host.
//!
//! What it never does: call a provider's token endpoint for a browser that did not begin the sign-in, believe a key or an
//! issuer that the configuration does not lead to, wait on a provider without a bound, or show a token to anybody.
//! Start with `server.rs`, then `sign_in/mod.rs`; `refresh.rs` is what happens without a request.

mod answer;
mod config;
mod error;
mod idp;
mod limit;
mod metrics;
mod operator;
mod refresh;
mod sealed;
mod server;
mod service_account;
mod sign_in;
mod sign_out;
mod user;
mod visit;

use std::sync::Arc;

use postern_identity::Timestamp;
use postern_storage::Sessions;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use config::{AuthnConfig, IdpConfig, ProviderKind, RouteHosts};
pub use error::AuthnError;
pub use idp::truth;
pub use operator::{Clearing, End, EndAllError, Stage};
pub use service_account::{MOST_SERVICE_ACCOUNTS, ServiceAccountError};

/// The whole of authn; cheap to clone, and every clone is the same one.
#[derive(Clone, Debug)]
pub struct Authn {
    shared: Arc<server::Shared>,
}

impl Authn {
    /// Authn over this configuration and store. Calls no provider: one that is away is no reason not to start.
    ///
    /// # Errors
    /// [`AuthnError`] if the trusted roots cannot be read, or if metrics of these names are registered already.
    pub fn new(config: AuthnConfig, sessions: Sessions, registry: &prometheus::Registry) -> Result<Self, AuthnError> {
        Ok(Self { shared: Arc::new(server::Shared::new(config, sessions, registry)?) })
    }

    /// Takes requests until `shutdown`, then ends those in flight.
    ///
    /// # Errors
    /// What the listener gave.
    pub async fn serve(&self, listener: TcpListener, shutdown: CancellationToken) -> std::io::Result<()> {
        server::serve(Arc::clone(&self.shared), listener, shutdown).await
    }

    /// Refreshes sessions that are due, until `shutdown`; then saves the tokens that it asked for, since a provider may have
    /// replaced a refresh token that is not saved yet, and waits for nothing else. That takes 26 s at worst: 10 s for the
    /// grant, 16 s for a store that does not answer. Beside others over the same store, each refresh is tried by one (S-076).
    pub async fn refresh(&self, shutdown: CancellationToken) {
        refresh::run(Arc::clone(&self.shared), shutdown).await;
    }

    /// Refreshes whatever is due at `now`, and returns when it is done: one round of [`refresh`](Self::refresh).
    pub async fn refresh_due(&self, now: Timestamp) {
        refresh::round(Arc::clone(&self.shared), now).await;
    }

    /// Replaces the configuration: the next request sees the new one, a request in flight ends with the old one.
    ///
    /// # Errors
    /// [`AuthnError`]; the old configuration stays in force.
    pub fn reload(&self, config: AuthnConfig) -> Result<(), AuthnError> {
        self.shared.reload(config)
    }
}
