//! Notices a browser that goes round in circles between an application and the sign-in, and stops it.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use postern_identity::{
    CookieAttributes, MAX_ADDITIONAL_HOSTS, Purpose, Timestamp, cookies_named, delete_cookie, set_cookie,
};
use postern_pages::SignInLoop;
use url::Url;

use crate::AuthnConfig;
use crate::answer::Answer;
use crate::visit::Visit;

/// The third return to one address within this time is a circle, where no further host is in between.
const WITHIN: Duration = Duration::from_secs(30);
/// So much longer for each further host that a browser is led through.
const FOR_EACH_HOST: Duration = Duration::from_secs(10);
/// The longest of these times: so long a round is remembered.
const LONGEST: Duration = within(MAX_ADDITIONAL_HOSTS);
const ALLOWED: usize = 2;
/// Rounds that are remembered, over all addresses.
const REMEMBERED: usize = 12;

/// When this browser was last sent back to which addresses: `<hash of the address>.<seconds>`, joined by `:`.
#[derive(Debug)]
pub(crate) struct Rounds(Vec<(String, i64)>);

/// The third return within this time is a circle, where each leads through so many further hosts.
const fn within(hosts: usize) -> Duration {
    Duration::from_secs(WITHIN.as_secs() + FOR_EACH_HOST.as_secs() * hosts as u64)
}

impl Rounds {
    /// Those that the browser tells of.
    pub(crate) fn of(visit: &Visit) -> Self {
        let name = cookie_name(&visit.live.config);
        let told = visit.cookie_fields().flat_map(|field| cookies_named(field, &name)).next();
        let told = told.and_then(|value| std::str::from_utf8(value).ok()).unwrap_or_default();
        let rounds = told.split(':').take(REMEMBERED).filter_map(|round| {
            let (target, at) = round.split_once('.')?;
            let at = at.parse().ok()?;
            (visit.now.since(Timestamp::from_secs(at)) < LONGEST).then(|| (target.to_owned(), at))
        });
        Self(rounds.collect())
    }

    /// Sends the browser back to `target` with `answer`, by way of so many further hosts, unless it was just there, twice.
    pub(crate) fn again(mut self, visit: &Visit, (target, hosts): (&Url, usize), answer: Answer) -> Answer {
        let config = &visit.live.config;
        let hash = config.keyring.mac(Purpose::Flow, &[b"round", target.as_str().as_bytes()]);
        let hash = hash.split_first_chunk::<9>().map(|(short, _)| URL_SAFE_NO_PAD.encode(short)).unwrap_or_default();
        let is_recent = |at: i64| visit.now.since(Timestamp::from_secs(at)) < within(hosts);
        if self.0.iter().filter(|(target, at)| *target == hash && is_recent(*at)).count() >= ALLOWED {
            return diagnosis(visit, target).cookie(Self::forget(config));
        }
        self.0.insert(0, (hash, visit.now.as_secs()));
        let rounds: Vec<String> = self.0.iter().take(REMEMBERED).map(|(target, at)| format!("{target}.{at}")).collect();
        answer.cookie(set_cookie(&cookie_name(config), &rounds.join(":"), &CookieAttributes::default(), LONGEST))
    }

    /// The `Set-Cookie` value after which nothing is remembered.
    pub(crate) fn forget(config: &AuthnConfig) -> String {
        delete_cookie(&cookie_name(config), &CookieAttributes::default())
    }
}

fn cookie_name(config: &AuthnConfig) -> String {
    format!("__Host-{}_rounds", config.cookie_name)
}

fn diagnosis(visit: &Visit, target: &Url) -> Answer {
    let page = SignInLoop {
        host: target.host_str().unwrap_or_default(),
        findings: &[
            "You are signed in here, but the application's host sent you back for the third time within a short time.",
            "The cookie that this host was given does not come back: cookies may be blocked for it.",
            "Or the clocks of the servers differ by minutes, so that each address is too old when it arrives.",
        ],
        reference: visit.reference("sign-in-loop"),
        retry: Some(target.as_str()),
    };
    Answer::page(StatusCode::BAD_REQUEST, page.html())
}
