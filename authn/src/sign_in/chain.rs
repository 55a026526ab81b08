//! Hosts that get a cookie besides the one where somebody signs in (`depends_on`: 02 §1.4 G, §1.5), so that its pages may call them.
//!
//! A ticket is honoured only beside the cookie of the browser that began (S-054), and on these hosts nothing has begun. So a
//! browser that has its cookie where it wanted to go is led through them twice. First each of them begins, as the edge does that sends
//! somebody to sign in. Then authn, whose own cookie says who this browser's user is, makes a ticket for the first, and each that takes
//! its ticket makes the next one's. Whatever goes wrong on the way leads to the page that was wanted, whose host has its cookie.

use std::time::Duration;

use postern_identity::{FlowCookie, FlowHash, IdpId, Keyring, Purpose, RandomError, SameSite, Timestamp};
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
/// All beginnings together; each ticket has its own time.
const GOOD_FOR: Duration = Duration::from_secs(120);
/// Browsers follow 20 redirects in a row, some of them 16, and the provider may have made several: to more hosts than this it is a
/// navigation of its own.
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
    /// To make the first ticket: it is authn's host, and all have begun.
    HandOver(Way),
    /// To go on to the page that was wanted, which is on this host.
    GoOn,
}

/// The hosts of a chain.
#[derive(Debug, Deserialize, Serialize)]
struct Way {
    /// Of which provider the session must be that they get.
    idp: String,
    /// Where nothing has begun yet, each `host` or `host:port`.
    hosts: Vec<String>,
    begun: Vec<Begun>,
}

/// A host where this browser has begun.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Begun {
    pub(super) host: String,
    /// A [`FlowHash`].
    flow: String,
}

impl Begun {
    pub(super) fn flow(&self) -> Option<FlowHash> {
        FlowHash::decode(&self.flow)
    }
}

/// What is sealed. Fields are only ever added.
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

/// Leads a browser that has just got its cookie for `target` through `hosts`; `None` if it may be led to none of them.
pub(super) fn set_out(
    visit: &Visit,
    target: &Url,
    (hosts, idp): (&[String], &IdpId),
) -> Result<Option<Answer>, RandomError> {
    let way = Way { idp: idp.as_str().to_owned(), hosts: hosts.to_vec(), begun: Vec::new() };
    let is_far = hosts.len() > IN_A_ROW;
    let next = way.next(visit, (target, visit.now.plus(GOOD_FOR)))?;
    Ok(next.map(|next| if is_far { Answer::refresh(&next) } else { Answer::redirect(&next) }))
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

/// Straight to the page that was wanted.
pub(super) fn cut_short(visit: &Visit, target: &Url, reason: &'static str) -> Answer {
    debug!(request.id = visit.request_id, postern.reason = reason, "hosts left without a cookie");
    home(visit, target)
}

/// The last step to the page that was wanted. A `Strict` cookie travels neither along a chain of redirects that another site (the
/// provider) began nor from a page of another site, so there the browser begins a navigation of its own, on the very host.
pub(super) fn home(visit: &Visit, target: &Url) -> Answer {
    match visit.live.config.cookie.same_site {
        SameSite::Strict if visit.url.origin() == target.origin() => Answer::refresh(target),
        SameSite::Strict => {
            let (redirect_uri, expires) = (target.clone(), visit.now.plus(GOOD_FOR));
            let there = Chain { redirect_uri, expires, step: Step::GoOn }.shown_at(visit, at(target, CALLBACK));
            Answer::redirect(there.as_ref().unwrap_or(target))
        }
        SameSite::Lax | SameSite::None => Answer::redirect(target),
    }
}

impl Chain {
    async fn take(self, shared: &Shared, visit: &Visit) -> Result<Answer, SignInError> {
        let target = &self.redirect_uri;
        if visit.now >= self.expires {
            return Ok(cut_short(visit, target, "chain-expired"));
        }
        match self.step {
            Step::Begin { host, way } => way.begin(visit, host, (target, self.expires)),
            Step::HandOver(way) => way.hand_over(shared, visit, target).await,
            Step::GoOn => Ok(home(visit, target)),
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

impl Way {
    /// Where it leads: to the next host where it may, then to authn; `None` if nothing has begun anywhere.
    fn next(mut self, visit: &Visit, (target, expires): (&Url, Timestamp)) -> Result<Option<Url>, RandomError> {
        let config = &visit.live.config;
        let mut hosts = std::mem::take(&mut self.hosts).into_iter();
        let next = hosts.find_map(|host| Some((callback_of(config, &host)?, host)));
        let way = Self { hosts: hosts.collect(), ..self };
        let (callback, step) = match next {
            Some((callback, host)) => (callback, Step::Begin { host, way }),
            None if way.begun.is_empty() => return Ok(None),
            None => (at(&config.url, CALLBACK), Step::HandOver(way)),
        };
        Chain { redirect_uri: target.clone(), expires, step }.shown_at(visit, callback).map(Some)
    }

    /// Begins on this host: from now on a ticket of this flow is honoured in this browser, and in no other.
    fn begin(mut self, visit: &Visit, host: String, onward: (&Url, Timestamp)) -> Result<Answer, SignInError> {
        let config = &visit.live.config;
        let flow = FlowCookie::begin(&config.cookie_name, visit.now)?;
        self.begun.push(Begun { host, flow: flow.hash(&config.keyring).encode() });
        let next = self.next(visit, onward)?;
        let dropped = FlowCookie::drop_oldest(&config.cookie_name, visit.cookie_fields());
        let answer = next.map_or_else(|| home(visit, onward.0), |next| Answer::redirect(&next));
        Ok(answer.cookie(flow.set()).cookies(dropped))
    }

    /// The first ticket, for the session that this browser has at authn, which is that of who just signed in.
    async fn hand_over(self, shared: &Shared, visit: &Visit, target: &Url) -> Result<Answer, SignInError> {
        let session = session_here(shared, visit).await?;
        let Some((id, _)) = session.filter(|(_, session)| session.idp.as_str() == self.idp) else {
            return Ok(cut_short(visit, target, "chain-without-session"));
        };
        let next = ticket::for_the_first(visit, &id, target, &self.begun)?;
        Ok(next.map_or_else(|| home(visit, target), |next| Answer::redirect(&next)))
    }
}

/// No ticket's, whose context is the bare origin.
fn context(url: &Url) -> String {
    format!("chain {}", url.origin().ascii_serialization())
}
