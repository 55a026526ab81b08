//! Who asks, what they are told, and how they sign out.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use reqwest::header::SET_COOKIE;
use reqwest::{Method, StatusCode, Url};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::Route;
use super::verdict::Leaving;
use crate::support::{Asked, Browser, DEADLINE, Keys, Response, World, bounded};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    /// Is signed in throughout, and may.
    Alice,
    /// Is signed in throughout, and may not.
    Bob,
    /// Is not signed in: her cookies are nobody's.
    Nobody,
    /// One of the sessions of Carol, who signs out of them.
    Carol(usize),
}

impl Who {
    /// The name at the provider.
    pub(super) const fn user(self) -> &'static str {
        match self {
            Self::Alice => "alice",
            Self::Bob => "bob",
            Self::Nobody => "nobody",
            Self::Carol(_) => "carol",
        }
    }

    const fn email(self) -> &'static str {
        match self {
            Self::Alice => "alice@example.com",
            Self::Bob => "bob@example.com",
            Self::Nobody => "",
            Self::Carol(_) => "carol@example.org",
        }
    }
}

/// An answer, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Told {
    /// The upstream answered, and knew who asks.
    Passed,
    /// Sent to sign in.
    SignIn,
    /// You may not.
    Forbidden,
    /// Not now, because of the store.
    Unavailable,
    /// Something that is wrong at any time.
    Wrong(String),
}

/// One question and its answer.
#[derive(Debug, Clone)]
pub(super) struct Record {
    pub(super) who: Who,
    pub(super) route: Route,
    pub(super) edge: usize,
    pub(super) sent: Instant,
    pub(super) answered: Instant,
    pub(super) told: Told,
}

/// Every question so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Log(Arc<Mutex<Vec<Record>>>);

impl Log {
    pub(super) fn with<T>(&self, look: impl FnOnce(&mut Vec<Record>) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Somebody at one route of one edge, on connections that are kept.
#[derive(Debug)]
pub(super) struct Asker {
    who: Who,
    route: Route,
    edge: usize,
    url: String,
    host: String,
    browser: Browser,
    keys: Keys,
    /// Assertions that were verified.
    good: HashSet<String>,
}

impl Asker {
    /// With the cookies of `browser`, as a copy of them would be used.
    pub(super) fn new(
        world: &World,
        (who, route): (Who, Route),
        (edge, port): (usize, u16),
        (browser, keys): (&Browser, &Keys),
    ) -> Result<Self> {
        let mut own = Browser::over_http1(&world.ca_pem())?;
        own.cookies.clone_from(&browser.cookies);
        let url = format!("https://{}.{}:{port}", route.name(), World::DOMAIN);
        let (host, keys, good) = (world.host(route.name()), keys.clone(), HashSet::new());
        Ok(Self { who, route, edge, url, host, browser: own, keys, good })
    }

    /// Asks again and again.
    pub(super) async fn ask(mut self, log: Log, stop: CancellationToken) {
        let (mut often, mut seldom) = (interval(OFTEN), interval(SELDOM));
        for ticks in [&mut often, &mut seldom] {
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        let mut is_out = false;
        for number in 0_u64.. {
            let next = if is_out { &mut seldom } else { &mut often };
            tokio::select! {
                () = stop.cancelled() => return,
                _ = next.tick() => {}
            }
            let path = format!("/{}/{number}", self.who.user());
            let request = self.browser.request(Method::GET, format!("{}{path}", self.url)).header("host", &self.host);
            let sent = Instant::now();
            let answer = self.browser.send(request.header("accept", "text/html")).await;
            let answered = Instant::now();
            let told = answer.and_then(|answer| self.read(&path, &answer));
            let told = told.unwrap_or_else(|error| Told::Wrong(format!("{error:#}")));
            is_out = told == Told::SignIn;
            let Self { who, route, edge, .. } = self;
            log.with(|log| log.push(Record { who, route, edge, sent, answered, told }));
        }
    }

    fn read(&mut self, path: &str, answer: &Response) -> Result<Told> {
        keeps_cookies(answer)?;
        Ok(match answer.status {
            StatusCode::OK => {
                let asked: Asked = answer.json()?;
                ensure!(asked.target == path, "the answer to another question: {asked:?}");
                let assertion = asked.header("x-pomerium-jwt-assertion").context("no assertion")?;
                if !self.good.contains(assertion) {
                    let claims = self.keys.verified(&format!("{}.{}", self.route.name(), World::DOMAIN), assertion)?;
                    let email = claims.get("email").and_then(|email| email.as_str());
                    ensure!(email == Some(self.who.email()), "taken for {email:?}");
                    self.good.insert(assertion.to_owned());
                }
                Told::Passed
            }
            StatusCode::FOUND if answer.location()?.path() == "/.pomerium/sign_in" => Told::SignIn,
            StatusCode::FORBIDDEN => Told::Forbidden,
            _ if is_unavailable(answer) => Told::Unavailable,
            status => anyhow::bail!("{status}: {}", answer.body),
        })
    }
}

/// Often enough to see what happens; without any pause the askers alone would keep two cores busy.
const OFTEN: Duration = Duration::from_millis(50);
/// Of whoever is out, or tries to get out.
const SELDOM: Duration = Duration::from_millis(250);

/// Whether it says that the store is away, and when to come back.
fn is_unavailable(answer: &Response) -> bool {
    answer.status == StatusCode::SERVICE_UNAVAILABLE
        && answer.body.contains("store-unavailable")
        && answer.headers.contains_key("retry-after")
}

/// That no session's cookie is set or cleared.
fn keeps_cookies(answer: &Response) -> Result<()> {
    let set = answer.headers.get_all(SET_COOKIE).iter().filter_map(|line| line.to_str().ok());
    let names = set.filter_map(|line| Some(line.split_once('=')?.0.trim()));
    let mut touched = names.filter(|name| ["_pomerium", "_pomerium_authenticate"].contains(name));
    ensure!(touched.next().is_none(), "{} touches the session's cookie: {:?}", answer.status, answer.headers);
    Ok(())
}

/// Somebody who has the question "Sign out?" before her.
#[derive(Debug)]
pub(super) struct Leaver {
    who: Who,
    browser: Browser,
    action: Url,
    fields: Vec<(String, String)>,
}

impl Leaver {
    pub(super) fn new(who: Who, browser: Browser, question: &Response) -> Result<Self> {
        let form = question.form("Sign out")?;
        Ok(Self { who, browser, action: question.url.join(&form.action)?, fields: form.fields })
    }

    pub(super) const fn who(&self) -> Who {
        self.who
    }

    /// Signs out, as often as it takes.
    pub(super) async fn leave(mut self) -> Result<Leaving> {
        let (who, tried) = (self.who, Instant::now());
        let mut ticks = interval(SELDOM);
        let tries = async {
            loop {
                ticks.tick().await;
                if self.try_to().await? {
                    return anyhow::Ok(Instant::now());
                }
            }
        };
        // No fault lasts for so long.
        let out = bounded(DEADLINE * 2, "the end of a session", tries).await?;
        Ok(Leaving { who, tried, accepted: out? })
    }

    /// Whether she is told that she is out.
    async fn try_to(&mut self) -> Result<bool> {
        let origin = self.action.origin().ascii_serialization();
        let request = self.browser.request(Method::POST, &self.action).header("origin", origin).form(&self.fields);
        let answer = self.browser.send(request.header("accept", "text/html")).await?;
        if answer.status == StatusCode::OK {
            return Ok(true);
        }
        keeps_cookies(&answer)?;
        ensure!(answer.status == StatusCode::SERVICE_UNAVAILABLE, "{answer:?}");
        Ok(false)
    }
}
