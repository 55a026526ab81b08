//! Hosts that get a cookie besides the one where somebody signs in (`depends_on`: 02 §1.4 G, §1.5), so that its pages may call them.
//!
//! A ticket is honoured only beside the cookie of the browser that began (S-054), and on these hosts nothing has begun. So a
//! browser that has its cookie where it wanted to go is led to one after the other, as if it had asked there: the host begins, as the
//! edge does that sends somebody to sign in; authn, whose own cookie says who this browser's user is, makes a ticket; the host takes it,
//! and leads on to the next. What one host gets to see is of that host alone, so that pages there, which may read the addresses, gain
//! nothing on another. Whatever goes wrong on the way leads to the page that was wanted, whose host has its cookie.

use std::time::Duration;

use postern_identity::{FlowCookie, FlowHash, Keyring, Purpose, RandomError, SameSite, SessionHandle, Timestamp, same};
use serde::{Deserialize, Serialize};
use tracing::debug;
use url::Url;

use super::{may_return_to, session_here, ticket};
use crate::AuthnConfig;
use crate::answer::Answer;
use crate::error::SignInError;
use crate::sealed;
use crate::server::Shared;
use crate::visit::{Visit, at};

pub(super) const PARAMETER: &str = "pomerium_chain";
/// Where tickets are shown, and chains.
pub(super) const CALLBACK: &str = "/.pomerium/callback/";
/// From one host to its ticket, which has its own time.
const GOOD_FOR: Duration = Duration::from_secs(120);
/// Browsers follow 20 redirects in a row, some of them 16, each host takes three, and the provider may have made several: where more
/// hosts than this are left, the way to the next one is a navigation of its own.
const IN_A_ROW: usize = 2;

/// A browser on its way through further hosts.
#[derive(Debug)]
struct Chain {
    /// Where it goes in the end.
    redirect_uri: Url,
    expires: Timestamp,
    /// What is next, on the one host that can open this.
    step: Step,
}

/// What is to be done on the host that was led to.
#[derive(Debug, Deserialize, Serialize)]
enum Step {
    /// To begin here.
    Begin {
        /// As it is named.
        host: String,
        way: Way,
    },
    /// To make its ticket: it is authn's host.
    HandOver {
        /// As it is named.
        host: String,
        /// The [`FlowHash`] of what has begun there.
        flow: String,
        way: Way,
    },
    /// To go on to the page that was wanted, which is on this host.
    GoOn,
}

/// What is still to come.
#[derive(Debug, Deserialize, Serialize)]
struct Way {
    /// The one session that they get, by its name in the store: another may have begun at authn meanwhile. Nobody's, in a chain of
    /// a version that did not write it.
    #[serde(default)]
    session: [u8; 32],
    /// Where nothing has begun yet, each `host` or `host:port`.
    hosts: Vec<String>,
}

/// What is sealed. Fields are only ever added; what an earlier version cannot read ends its chain (decision 0025).
#[derive(Deserialize, Serialize)]
struct Sealed {
    redirect_uri: String,
    expires: i64,
    step: Step,
}

/// The callback of a further host, if a browser may be led there.
pub(super) fn callback_of(config: &AuthnConfig, host: &str) -> Option<Url> {
    let callback = Url::parse(&format!("https://{host}{CALLBACK}")).ok()?;
    (callback.path() == CALLBACK && may_return_to(config, &callback)).then_some(callback)
}

/// Leads a browser that has just got a cookie here to the first of `hosts`; `None` if it may be led to none of them.
pub(super) fn set_out(
    visit: &Visit,
    target: &Url,
    (hosts, session): (&[String], &SessionHandle),
) -> Result<Option<Answer>, RandomError> {
    let mut left = hosts.iter();
    let next = left.find_map(|host| Some((callback_of(&visit.live.config, host)?, host.clone())));
    let Some((callback, host)) = next else { return Ok(None) };
    let way = Way { session: *session.as_bytes(), hosts: left.cloned().collect() };
    let next = Chain::towards(visit, target, Step::Begin { host, way }).shown_at(visit, callback)?;
    Ok(Some(if hosts.len() > IN_A_ROW { Answer::refresh(&next) } else { Answer::redirect(&next) }))
}

/// One step of a chain, on the host that it has led to.
pub(super) async fn step(shared: &Shared, visit: &Visit, text: &str) -> Answer {
    let config = &visit.live.config;
    let Some(chain) = Chain::open(&config.keyring, &visit.url, text) else {
        return SignInError::TicketUnreadable.show(visit, Some(visit.here("/").as_str()));
    };
    if !may_return_to(config, &chain.redirect_uri) {
        return SignInError::TargetRefused.show(visit, None);
    }
    let target = chain.redirect_uri.clone();
    match chain.take(shared, visit).await {
        Ok(answer) => answer,
        Err(error) => {
            error.log(visit);
            home(visit, &target)
        }
    }
}

/// Where a genuine step leads, which is not taken.
pub(super) fn target_of(visit: &Visit, text: &str) -> Option<Url> {
    Chain::open(&visit.live.config.keyring, &visit.url, text).map(|chain| chain.redirect_uri)
}

/// To the page that was wanted, without the rest.
pub(super) fn cut_short(visit: &Visit, target: &Url, reason: &'static str) -> Answer {
    debug!(request.id = visit.request_id, postern.reason = reason, "hosts left without a cookie");
    arrive(visit, target)
}

/// The last step to the page that was wanted. A `Strict` cookie travels neither along a chain of redirects that another site (the
/// provider) began nor from a page of another site, so there the browser begins a navigation of its own, on the very host; and never
/// at the address of a ticket, which scripts of the application could read there while it is good.
pub(super) fn home(visit: &Visit, target: &Url) -> Answer {
    match visit.live.config.cookie.same_site {
        SameSite::Strict => {
            let there = Chain::towards(visit, target, Step::GoOn).shown_at(visit, at(target, CALLBACK));
            Answer::redirect(there.as_ref().unwrap_or(target))
        }
        SameSite::Lax | SameSite::None => Answer::redirect(target),
    }
}

/// The same from an address that opens nothing any more: on the page's own host it may be shown.
pub(super) fn arrive(visit: &Visit, target: &Url) -> Answer {
    let is_strict = visit.live.config.cookie.same_site == SameSite::Strict;
    if is_strict && visit.url.origin() == target.origin() { Answer::refresh(target) } else { home(visit, target) }
}

impl Chain {
    fn towards(visit: &Visit, target: &Url, step: Step) -> Self {
        Self { redirect_uri: target.clone(), expires: visit.now.plus(GOOD_FOR), step }
    }

    async fn take(self, shared: &Shared, visit: &Visit) -> Result<Answer, SignInError> {
        let target = &self.redirect_uri;
        if visit.now >= self.expires {
            return Ok(cut_short(visit, target, "chain-expired"));
        }
        match self.step {
            Step::Begin { host, way } => begin(visit, target, (host, way)),
            Step::HandOver { host, flow, way } => {
                hand_over(shared, visit, target, (&host, FlowHash::decode(&flow), way)).await
            }
            Step::GoOn => Ok(arrive(visit, target)),
        }
    }

    /// The address where it is taken: on the one host that can open it.
    fn shown_at(self, visit: &Visit, mut callback: Url) -> Result<Url, RandomError> {
        let sealed =
            Sealed { redirect_uri: self.redirect_uri.into(), expires: self.expires.as_millis(), step: self.step };
        let text = sealed::seal(&visit.live.config.keyring, Purpose::Ticket, &context(&callback), &sealed)?;
        callback.query_pairs_mut().append_pair(PARAMETER, &text);
        Ok(callback)
    }

    /// The chain, if it is of this deployment and has led to this very host and port.
    fn open(keyring: &Keyring, here: &Url, text: &str) -> Option<Self> {
        let sealed: Sealed = sealed::open(keyring, Purpose::Ticket, &context(here), text)?;
        Some(Self {
            redirect_uri: Url::parse(&sealed.redirect_uri).ok()?,
            expires: Timestamp::from_millis(sealed.expires),
            step: sealed.step,
        })
    }
}

/// Begins on this host: from now on a ticket of this flow is honoured in this browser, and in no other.
fn begin(visit: &Visit, target: &Url, (host, way): (String, Way)) -> Result<Answer, SignInError> {
    let config = &visit.live.config;
    let flow = FlowCookie::begin(&config.cookie_name, visit.now)?;
    let step = Step::HandOver { host, flow: flow.hash(&config.keyring).encode(), way };
    let next = Chain::towards(visit, target, step).shown_at(visit, at(&config.url, CALLBACK))?;
    let dropped = FlowCookie::drop_oldest(&config.cookie_name, visit.cookie_fields());
    Ok(Answer::redirect(&next).cookie(flow.set()).cookies(dropped))
}

/// A ticket for that host, for the session that this browser got where it wanted to go, if it has it at authn as well.
async fn hand_over(
    shared: &Shared,
    visit: &Visit,
    target: &Url,
    (host, flow, way): (&str, Option<FlowHash>, Way),
) -> Result<Answer, SignInError> {
    let session = session_here(shared, visit).await?;
    let Some((id, _)) = session.filter(|(_, session)| same(session.handle.as_bytes(), &way.session)) else {
        return Ok(cut_short(visit, target, "chain-without-session"));
    };
    let Some((callback, flow)) = callback_of(&visit.live.config, host).zip(flow) else {
        return Ok(cut_short(visit, target, "chain-without-host"));
    };
    let next = ticket::for_further(visit, (&id, flow), (target, way.hosts), callback)?;
    Ok(Answer::redirect(&next))
}

/// No ticket's, whose context is the bare origin.
fn context(url: &Url) -> String {
    format!("chain {}", url.origin().ascii_serialization())
}
