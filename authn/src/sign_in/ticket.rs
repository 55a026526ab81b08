//! The ticket: carries a session to a route's host. Sealed, good for a minute, used once, and only beside the cookie of
//! the browser that began.

use std::time::Duration;

use postern_identity::{
    FlowCookie, FlowHash, Keyring, ProgramToken, Purpose, RandomError, Recipient, Session, SessionCookie, SessionId,
    SignInRequest, Timestamp, random, set_cookie,
};
use postern_storage::{Lookup, Once};
use serde::{Deserialize, Serialize};
use tracing::{debug, info};
use url::Url;

use super::chain::{self, CALLBACK};
use super::{Rounds, cookie_here, may_hand_over, may_return_to};
use crate::answer::Answer;
use crate::error::SignInError;
use crate::sealed;
use crate::server::Shared;
use crate::visit::{Visit, at};

const GOOD_FOR: Duration = Duration::from_secs(60);
const PARAMETER: &str = "pomerium_ticket";
/// What programs read their credential from (02 §4.2).
const TOKEN: &str = "pomerium_jwt";

/// A session on its way to a route's host.
#[derive(Debug)]
struct Ticket {
    id: [u8; 16],
    session: SessionId,
    flow: FlowHash,
    redirect_uri: Url,
    expires: Timestamp,
    /// The hosts that are to have a cookie as well, after this one.
    hosts: Vec<String>,
}

/// What is sealed. Fields are only ever added.
#[derive(Deserialize, Serialize)]
struct Sealed {
    id: [u8; 16],
    session: [u8; 32],
    flow: String,
    redirect_uri: String,
    expires: i64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    hosts: Vec<String>,
}

/// Hands the session to whom the request says: sends the browser to the route's host with a ticket for it, or on to the program
/// that waits.
pub(super) fn hand_over(
    visit: &Visit,
    request: &SignInRequest,
    id: &SessionId,
    session: &Session,
) -> Result<Answer, SignInError> {
    if !may_hand_over(&visit.live.config, request) {
        return Err(SignInError::TargetRefused);
    }
    match &request.recipient {
        Recipient::Browser(flow) => to_browser(visit, request, *flow, id),
        Recipient::Program { door } => Ok(to_program(visit, &request.redirect_uri, door, id, session)),
    }
}

/// The program gets what is the session on the host of `door`, and nowhere else (S-089).
fn to_program(visit: &Visit, waits_at: &Url, door: &Url, id: &SessionId, session: &Session) -> Answer {
    let config = &visit.live.config;
    let scope = config.cookie.domain.as_deref().or_else(|| door.host_str()).unwrap_or_default();
    let token = ProgramToken::seal(&config.keyring, scope, id, session.expires_at);
    let mut there = waits_at.clone();
    there.query_pairs_mut().append_pair(TOKEN, &token);
    info!(
        request.id = visit.request_id,
        postern.session = %session.handle,
        host = scope,
        "session handed to a program"
    );
    Answer::redirect(&there)
}

fn to_browser(
    visit: &Visit,
    request: &SignInRequest,
    flow: FlowHash,
    session: &SessionId,
) -> Result<Answer, SignInError> {
    let target = &request.redirect_uri;
    let ticket = Ticket { hosts: request.additional_hosts.clone(), ..Ticket::fresh(visit, session, flow, target)? };
    let there = ticket.shown_at(&visit.live.config.keyring, at(target, CALLBACK))?;
    let hosts = request.additional_hosts.len();
    Ok(Rounds::of(visit).again(visit, (target, hosts), Answer::redirect(&there)))
}

/// Where a further host takes a ticket, which leads on to `hosts`.
pub(super) fn for_further(
    visit: &Visit,
    (session, flow): (&SessionId, FlowHash),
    (target, hosts): (&Url, Vec<String>),
    callback: Url,
) -> Result<Url, RandomError> {
    Ticket { hosts, ..Ticket::fresh(visit, session, flow, target)? }.shown_at(&visit.live.config.keyring, callback)
}

/// `/.pomerium/callback/` on a route's host: the ticket becomes the session cookie of that host. Also a step of a chain.
pub(crate) async fn redeem(shared: &Shared, visit: &Visit) -> Answer {
    if let Some(chain) = visit.param(chain::PARAMETER) {
        return chain::step(shared, visit, &chain).await;
    }
    let keyring = &visit.live.config.keyring;
    let Some(ticket) = visit.param(PARAMETER).and_then(|text| Ticket::open(keyring, &visit.url, &text)) else {
        return SignInError::TicketUnreadable.show(visit, Some(visit.here("/").as_str()));
    };
    if !may_return_to(&visit.live.config, &ticket.redirect_uri) {
        return SignInError::TargetRefused.show(visit, None);
    }
    match take(shared, visit, &ticket).await {
        Ok(answer) => answer,
        // There is a cookie already where the browser wanted to go: that it gets none here keeps nobody from the page.
        Err(error) if visit.url.origin() != ticket.redirect_uri.origin() => {
            error.log(visit);
            chain::home(visit, &ticket.redirect_uri)
        }
        Err(error) => error.show(visit, Some(ticket.redirect_uri.as_str())),
    }
}

/// What a browser gets that comes too often on its way through further hosts: the page that it wanted, whose host has its cookie.
/// `None`: it is not on such a way.
pub(crate) fn over_budget(visit: &Visit) -> Option<Answer> {
    let config = &visit.live.config;
    let target = if let Some(chain) = visit.param(chain::PARAMETER) {
        chain::target_of(visit, &chain)
    } else {
        let ticket = Ticket::open(&config.keyring, &visit.url, &visit.param(PARAMETER)?);
        ticket.map(|ticket| ticket.redirect_uri).filter(|target| visit.url.origin() != target.origin())
    };
    let target = &target.filter(|target| may_return_to(config, target))?;
    Some(chain::cut_short(visit, target, "chain-rate-limited"))
}

/// A genuine ticket that cannot be used any more leads back to where it was for: there, who is signed in goes on, and
/// who is not begins anew.
async fn take(shared: &Shared, visit: &Visit, ticket: &Ticket) -> Result<Answer, SignInError> {
    let config = &visit.live.config;
    let start_again = |reason| {
        debug!(request.id = visit.request_id, postern.reason = reason, "ticket not honoured");
        Ok(chain::home(visit, &ticket.redirect_uri))
    };
    if visit.now >= ticket.expires {
        return start_again("ticket-expired");
    }
    let Some(flow) = flow_cookie(visit, &ticket.flow) else { return start_again("ticket-of-another-browser") };
    if !shared.sessions.spend(Once::Ticket, &ticket.id, visit.now, ticket.expires.plus(GOOD_FOR)).await? {
        return start_again("ticket-used");
    }
    // The store must know the session before the browser does, or the first request would send it round again.
    let session = match shared.sessions.load(&ticket.session.handle(&config.keyring), visit.now).await? {
        Lookup::Found(session) if !session.is_expired(visit.now) => session,
        Lookup::Found(_) | Lookup::Revoked | Lookup::Unknown => return start_again("ticket-without-session"),
    };
    let (cookie, scope) = cookie_here(visit);
    let value = SessionCookie::seal(&config.keyring, &scope, &ticket.session);
    let life = session.expires_at.since(visit.now);
    Ok(onward(visit, ticket, &session)?
        .cookie(set_cookie(&cookie, &value, &config.cookie, life))
        .cookie(FlowCookie::drop_named(&flow)))
}

/// Where the browser goes with its new cookie: to further hosts that are to have one, or to the page that it wanted.
fn onward(visit: &Visit, ticket: &Ticket, session: &Session) -> Result<Answer, RandomError> {
    let target = &ticket.redirect_uri;
    let further = chain::set_out(visit, target, (&ticket.hosts, &session.handle))?;
    Ok(further.unwrap_or_else(|| chain::arrive(visit, target)))
}

/// The name of the cookie of that sign-in, if this browser began it (S-054).
fn flow_cookie(visit: &Visit, flow: &FlowHash) -> Option<String> {
    let config = &visit.live.config;
    FlowCookie::find(&config.keyring, &config.cookie_name, flow, visit.cookie_fields())
}

impl Ticket {
    fn fresh(visit: &Visit, session: &SessionId, flow: FlowHash, target: &Url) -> Result<Self, RandomError> {
        Ok(Self {
            id: random()?,
            session: session.clone(),
            flow,
            redirect_uri: target.clone(),
            expires: visit.now.plus(GOOD_FOR),
            hosts: Vec::new(),
        })
    }

    /// The address where it is taken: the callback of the one host that it is for.
    fn shown_at(&self, keyring: &Keyring, mut callback: Url) -> Result<Url, RandomError> {
        let text = self.seal(keyring, &callback)?;
        callback.query_pairs_mut().append_pair(PARAMETER, &text);
        Ok(callback)
    }

    fn seal(&self, keyring: &Keyring, there: &Url) -> Result<String, RandomError> {
        let sealed = Sealed {
            id: self.id,
            session: *self.session.as_bytes(),
            flow: self.flow.encode(),
            redirect_uri: self.redirect_uri.as_str().to_owned(),
            expires: self.expires.as_millis(),
            hosts: self.hosts.clone(),
        };
        // By the secret of its session, whatever is in force now: that is how who opens it knows which one that is.
        sealed::seal_by(self.session.secret(), keyring, Purpose::Ticket, &context(there), &sealed)
    }

    /// The ticket, if it is of this deployment and for this very host and port.
    fn open(keyring: &Keyring, here: &Url, text: &str) -> Option<Self> {
        let (secret, sealed): (_, Sealed) = sealed::open_by(keyring, Purpose::Ticket, &context(here), text)?;
        Some(Self {
            id: sealed.id,
            session: SessionId::of(secret, sealed.session),
            flow: FlowHash::decode(&sealed.flow)?,
            redirect_uri: Url::parse(&sealed.redirect_uri).ok()?,
            expires: Timestamp::from_millis(sealed.expires),
            hosts: sealed.hosts,
        })
    }
}

fn context(url: &Url) -> String {
    url.origin().ascii_serialization()
}

#[cfg(test)]
mod tests {
    use postern_identity::Secret;

    use super::*;

    /// What browsers carry of each format that was ever written: the second while a secret is replaced.
    const TICKETS: [&str; 2] = [
        "Af-Qg4O5NTIq9J0eCnh91_ocLhW53-Oang0m4b80UO3ed8pyrx5vs9hjCGNFLalZKjeChBwi6pDTkXjB666FP4KWgS9DjLGQ7PJ_cmt7Jw1q3CUugfzgl8UD0iKZwi0wQRvmF2oBBie4U1NH_e5xecb4duReeINMwmoT1I-ngNXDSXW43QSrQtpR2FoUXZBD71flEDeaqcWYW_AtF1d2Pc63E8AmBlpjpH3KtWsWqtiYDtfObFBwBDzCWhtkjQ6IPb7tkLUKT2HmfITLxEuQjEsQ5HHgv8D9uZkSEt0k0I7frNGO0Nya4QeZQkvluFsLRSs_e-_92Xg",
        "Am-Tj-XqX_0fyHK9rluWTaJKPgXDXmiAbszUtAvHTmpvtgukSGofaFVoc7XPwo_oNyK_lm4oV8DW884d6hBsQrUIke9RDy7s5nUZsFVG3XxaeQ2_fFWGFhvgkTOECxHUo6438LXA-DDe6u2s4YdDIvKtNAqdGtPBbrUYJ1o8ACR8btuOjrCLioD0sge5u_hS5b2eyi0x90BhhKMnq61T_upheGOA8NqIJKWUZXomgMrgvZApt32DxiC03nsdyh8loOU6SMHH66S5KhWVqdH7ye2MA1OnUKydFiyJS3Di3AlSGH6HMqIA8_znNt6PLGEQsZuLwELrKStPiwew",
    ];

    fn rotating(in_force: u8, accepted: &[u8]) -> Keyring {
        let accepted: Vec<_> = accepted.iter().map(|byte| Secret::new([*byte; 32])).collect();
        Keyring::derive_with(&Secret::new([in_force; 32]), &accepted, &Secret::new([2; 32]))
    }

    fn ticket() -> Ticket {
        Ticket {
            id: [5; 16],
            session: SessionId::from_bytes([7; 32]),
            flow: FlowHash::from_bytes([3; 16]),
            redirect_uri: Url::parse("https://app.example.com/x?y=z").unwrap(),
            expires: Timestamp::from_secs(1_800_000_000),
            hosts: Vec::new(),
        }
    }

    #[test]
    fn r_023_tickets_of_every_format_lead_to_their_session() {
        let (here, name) = (ticket().redirect_uri, ticket().session.handle(&rotating(1, &[])));
        for text in TICKETS {
            for ring in [rotating(1, &[]), rotating(1, &[3]), rotating(3, &[1])] {
                let found = Ticket::open(&ring, &here, text).unwrap();
                assert_eq!(found.session.handle(&ring), name, "under the secret that it began under");
                let again = Ticket::open(&rotating(1, &[]), &here, &found.seal(&ring, &here).unwrap()).unwrap();
                assert_eq!((again.session, again.id), (ticket().session, ticket().id));
            }
            assert!(Ticket::open(&rotating(3, &[]), &here, text).is_none());
        }
    }

    #[test]
    #[ignore = "prints the fixtures of a new format"]
    fn print_the_fixtures() {
        for ring in [rotating(1, &[]), rotating(1, &[3])] {
            println!("{}", ticket().seal(&ring, &ticket().redirect_uri).unwrap());
        }
    }
}
