//! Programs that ask as the person who runs them (02 §4.2): where they send that person's browser to sign in. What they show
//! after it is a [`Credential`](crate::credential::Credential).

use postern_identity::{Recipient, SignInRequest, Timestamp};
use url::{Url, form_urlencoded};

use crate::{Refusal, Request, Snapshot};

/// Why a program is told of no address to sign in at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProgramRefusal {
    /// It does not say where it waits for its credential.
    Missing,
    /// Nobody is sent where it waits (`programmatic_redirect_domain_whitelist`), or it says so twice.
    NotAllowed,
}

const WAITS_AT: &str = "pomerium_redirect_uri";

/// The address at authn that a browser signs in at and is sent on to the program with its credential for this host.
///
/// # Errors
/// [`Refusal::Program`]; [`Refusal::NoRoute`] where nobody can sign in.
pub(crate) fn sign_in_url(snapshot: &Snapshot, request: &Request, now: Timestamp) -> Result<Url, Refusal> {
    let query = request.query.as_deref().unwrap_or_default();
    let mut places = form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == WAITS_AT);
    let (_, place) = places.next().ok_or(Refusal::Program(ProgramRefusal::Missing))?;
    let authenticate = &snapshot.config.authenticate;
    let redirect_uri = Url::parse(&place)
        .ok()
        .filter(|url| places.next().is_none() && authenticate.programs.allow(url))
        .ok_or(Refusal::Program(ProgramRefusal::NotAllowed))?;
    let door = Url::parse(&format!("https://{}/.pomerium/callback/", request.host)).map_err(|_| Refusal::NoRoute)?;
    let idp = snapshot.idp_of(&request.host).ok_or(Refusal::NoRoute)?.clone();
    let recipient = Recipient::Program { door };
    let sign_in = SignInRequest { redirect_uri, idp, recipient, restarted: false, additional_hosts: Vec::new() };
    Ok(sign_in.to_url(&snapshot.config.keyring, authenticate.sign_in(), now))
}
