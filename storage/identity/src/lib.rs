//! Who is asking: the types that say on whose behalf a request comes, and the sealed forms in which those
//! types travel between the browser, the edge and authn.
//!
//! This crate is pure. It opens no socket, reads no clock and no environment; the one thing it takes from
//! the operating system is randomness ([`random`]). The edge and authn share exactly what is here: the
//! [`Session`], its [`cookie`](SessionCookie), the [`SignInRequest`] and the [`FlowCookie`] that ties a
//! sign-in to the browser that began it.
//!
//! Start with [`Session`], then [`Keyring`].

mod claims;
mod compact;
mod cookie;
mod edge_token;
mod flow;
mod keyring;
mod packed;
mod prefetch;
mod program;
mod random;
mod secret;
mod service_account;
mod session;
mod sign_in_request;
mod time;
mod token;
mod words;

pub use claims::Claims;
pub use compact::CompactSession;
pub use cookie::{CookieAttributes, SameSite, SessionCookie, cookies_named, delete_cookie, only_one, set_cookie};
pub use edge_token::{EDGE_TOKEN_HEADER, edge_token, is_edge_token};
pub use flow::{FlowCookie, FlowHash, MAX_FLOWS_PER_BROWSER};
pub use keyring::{Keyring, MAX_ACCEPTED_SECRETS, Purpose, SecretIndex};
pub use packed::{ClaimMap, ClaimValue, ClaimValues};
pub use prefetch::{prefetch, prefetch_bytes};
pub use program::{ProgramHosts, ProgramToken, Shown};
pub use random::{RandomError, random, uuid};
pub use secret::{Secret, same};
pub use service_account::{NEVER, SERVICE_ACCOUNT, ServiceAccountToken};
pub use session::{IdpId, Session, SessionHandle, SessionId, Tokens, User};
pub use sign_in_request::{
    MAX_ADDITIONAL_HOSTS, Recipient, SignInRequest, SignInRequestError, SignedUrlError, signed_url, verify_signed_url,
};
pub use time::Timestamp;
pub use words::Words;
