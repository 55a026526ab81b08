//! Sessions stay in step with their provider though several processes refresh them, some are killed in the middle of it, and
//! the provider is away for a while. The provider gives each refresh token for one use: a second one ends its grant.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use postern_servers::{Cluster, Redis};
use reqwest::StatusCode;
use serde_json::{Map, Value, json};

use crate::support::{
    ANY_USER, Balancer, Browser, Grant, Postern, Provider, Refreshes, Reuse, Upstream, World, bounded, eventually,
    free_port, free_ports, moved_to, plain_client, start_apart, with_store,
};

/// Processes that refresh, and refreshes of one provider at once in each (docs/reference/limits.md).
const AUTHNS: usize = 3;
const AT_ONCE: usize = 8;
/// An access token's life in seconds. A session is not refreshed more often than every 10 s, so those that were refreshed
/// together are due together.
const LIFE: u64 = 11;
/// How long a claim holds that nobody gives back, and some time for what comes then.
const CLAIM: Duration = Duration::from_secs(120 + 60);
/// On a busy machine the store is slow, and that is not what is tried here.
const PATIENT: &str = "databroker_storage_connect_timeout: 5s\ndatabroker_storage_operation_timeout: 5s\n";
/// How long a claim holds by the store's clock, less what the question takes to the provider on a busy machine.
const CLAIMED: u64 = 100_000;
/// From the end of a process until the provider has noticed the end of its connections.
const NOTICED: u64 = 1_000;
/// From the answer of a grant until its tokens are saved, on a busy machine.
const SAVED: u64 = 2_000;

#[tokio::test]
async fn r_026_s_076_killed_holders_use_no_refresh_token_twice_but_those_that_died_with_them() -> Result<()> {
    let store = Redis::start(&[]);
    killed_holders(&single(&store), 40, 3, false).await
}

#[tokio::test]
async fn r_012_no_session_ends_while_the_provider_is_away_and_it_is_left_in_peace() -> Result<()> {
    let store = Redis::start(&[]);
    outages(&single(&store), 24, &["refuse", "hang"], Duration::from_secs(20)).await
}

#[tokio::test]
#[ignore = "takes minutes: docs/performance.md has the command"]
async fn long_killed_holders() -> Result<()> {
    let store = cluster();
    killed_holders(&clustered(&store), 200, 12, true).await
}

#[tokio::test]
#[ignore = "takes a quarter of an hour: docs/performance.md has the command"]
async fn long_refused_connections() -> Result<()> {
    let store = cluster();
    outages(&clustered(&store), 200, &["refuse"], Duration::from_secs(600)).await
}

#[tokio::test]
#[ignore = "takes a quarter of an hour: docs/performance.md has the command"]
async fn long_silence() -> Result<()> {
    let store = cluster();
    outages(&clustered(&store), 200, &["hang"], Duration::from_secs(600)).await
}

fn single(store: &Redis) -> String {
    format!("redis://127.0.0.1:{}", store.port())
}

fn cluster() -> Cluster {
    Cluster::start_plain(
        Duration::from_secs(2),
        &["--cluster-require-full-coverage", "no", "--repl-diskless-sync-delay", "0"],
    )
}

fn clustered(cluster: &Cluster) -> String {
    let members = cluster.members().iter().map(|member| format!("127.0.0.1:{}", member.announced()));
    format!("redis+cluster://{}", members.collect::<Vec<_>>().join(","))
}

/// Processes are stopped, and then some killed, one after the other, all in the middle of refreshes. With `to_the_end` the
/// claims of those that were killed run out too, and others take over what they held.
async fn killed_holders(store: &str, people: usize, kills: usize, to_the_end: bool) -> Result<()> {
    let mut office = Office::open(store, people).await?;
    for _ in 0..AUTHNS {
        office.end_a_holder(false).await?;
    }
    let stopped = now();
    office.until(CLAIM, async |office| Ok(office.seen(stopped).await?.settled == people)).await?;
    let after_stops = office.seen(0).await?;
    let lost = (after_stops.cut, after_stops.refused, after_stops.reused.len());
    assert_eq!(lost, (0, 0, 0), "a stop loses no token: {after_stops:?}");

    let mut killings = Vec::new();
    for _ in 0..kills {
        killings.push(office.end_a_holder(true).await?);
    }
    let killed = now();
    let settled = async |office: &Office| {
        let seen = office.seen(killed).await?;
        Ok(if to_the_end { seen.settled == people } else { seen.lately >= people })
    };
    office.until(CLAIM, settled).await?;

    let (seen, gone) = (office.seen(0).await?, office.gone().await?);
    assert_eq!(seen.overlapping, 0, "two grants of one session at once");
    let unexplained: Vec<&Reuse> = seen.reused.iter().filter(|reuse| !died_with_its_holder(reuse, &killings)).collect();
    assert!(unexplained.is_empty(), "used twice, though nobody died: {unexplained:?}, kills {killings:?}");
    assert!(!to_the_end || seen.reused.len() >= seen.cut, "what was cut is asked for again: {seen:?}");
    assert_eq!((seen.refused, gone.len()), (seen.reused.len(), seen.reused.len()), "only a refusal ends a session");
    // What such a person notices: a round trip to the provider, which still knows them.
    for person in gone {
        let browser = office.people.get_mut(person).context("a person")?;
        let page = browser.visit(office.world.url("app", "/")).await?;
        assert_eq!(page.status, StatusCode::OK, "{page:?}");
    }
    tell(&[
        format!("{people} sessions, {AUTHNS} processes: stopped in the middle of refreshes"),
        format!("{AUTHNS} times: {} grants, 0 cut, 0 tokens used twice", after_stops.granted),
    ]);
    tell(&[
        format!("{people} sessions, {AUTHNS} processes: killed in the middle of refreshes"),
        format!(
            "{kills} times: {} grants, {} cut, {} at once at most, {} of one session at once, {} tokens used twice, all of killed \
             holders, as many sessions ended",
            seen.granted,
            seen.cut,
            seen.at_once,
            seen.overlapping,
            seen.reused.len()
        ),
    ]);
    Ok(())
}

/// The provider is away for so long, once in each of these ways, and comes back.
async fn outages(store: &str, people: usize, hows: &[&str], lasts: Duration) -> Result<()> {
    let mut office = Office::open(store, people).await?;
    let all_refreshed_since = async |office: &Office, since| Ok(office.seen(since).await?.settled == people);
    for how in hows {
        let begun = now();
        office.until(CLAIM, async |office| all_refreshed_since(office, begun).await).await?;
        let failed_before = office.failed().await?;
        office.provider.becomes(how)?;
        office.nobody_is_gone_for(lasts).await?;
        let failed = office.failed().await? - failed_before;
        office.provider.becomes("serve")?;
        let (back, begun) = (now(), Instant::now());
        // A provider in trouble rests for 5 min at most, a session that was tried in vain for 6 min.
        office.until(Duration::from_secs(12 * 60), async |office| all_refreshed_since(office, back).await).await?;
        let (all_back, seen, log) = (begun.elapsed(), office.seen(back).await?, office.provider.log().await?);
        let unanswered = log.get("unanswered").and_then(Value::as_u64).context("unanswered")?;

        assert_eq!(office.gone().await?, [0; 0], "{how}");
        assert_eq!((seen.refused, seen.overlapping, seen.reused.len()), (0, 0, 0), "{how}: {seen:?}");
        let bound = AUTHNS * (2 * AT_ONCE + rests(lasts));
        assert!((1..=bound).contains(&failed), "{how}: {failed} tries in vain, {bound} at most");
        assert!(seen.at_once <= AUTHNS * AT_ONCE, "{how}: {seen:?}");
        tell(&[
            format!("{people} sessions, {AUTHNS} processes: the provider is away ({how}) for {} s", lasts.as_secs()),
            format!(
                "0 sessions ended, {failed} tries in vain, {unanswered} requests never answered; when it was back {} grants \
                 at once and {} in a second at most, all sessions refreshed after {:.0} s",
                seen.at_once,
                seen.in_a_second,
                all_back.as_secs_f64()
            ),
        ]);
    }
    Ok(())
}

/// How often a provider that is away for so long is left in peace (docs/reference/limits.md): 5 s at first, twice as long
/// each time. After each rest it is tried once.
fn rests(lasts: Duration) -> usize {
    let (mut over, mut count) = (Duration::ZERO, 0);
    while over <= lasts {
        over += Duration::from_secs(5 << count).min(Duration::from_secs(300));
        count += 1;
    }
    count
}

/// Whether the connection that brought the first grant ended by a kill before it can have been saved, and the second one came when
/// that one's claim had run out (docs/decisions/0020).
fn died_with_its_holder(Reuse { first, again }: &Reuse, killings: &[(u64, u64)]) -> bool {
    let Some(closed) = first.closed.filter(|closed| *closed <= first.answered + SAVED) else { return false };
    let by_a_kill = |(from, to): &(u64, u64)| (*from..=to + NOTICED).contains(&closed) && first.arrived <= *to;
    again.arrived >= first.arrived + CLAIMED && killings.iter().any(by_a_kill)
}

#[test]
fn r_026_a_token_is_excused_only_if_its_holder_was_killed_before_it_can_have_saved_what_came() {
    let (arrived, answered) = (10_000, 10_050);
    let excused = |closed, again, kill| {
        let grant = |arrived, closed| Grant { arrived, answered: arrived + 50, closed };
        let reuse = Reuse { first: grant(arrived, closed), again: grant(again, None) };
        died_with_its_holder(&reuse, &[(1, 2), kill])
    };
    let later = arrived + CLAIMED;
    assert!(excused(Some(10_020), later, (10_015, 10_030)), "killed before the answer");
    assert!(excused(Some(answered + SAVED), later, (12_040, 12_060)), "killed before it was saved");
    assert!(excused(Some(12_040), later, (12_000, 12_040 - NOTICED)), "the provider noticed it late");
    for (why, closed, again, kill) in [
        ("it had the time to save it", Some(answered + SAVED + 1), later, (12_040, 12_060)),
        ("nobody was killed then", Some(11_000), later, (11_001, 11_060)),
        ("the kill was long over", Some(11_500), later, (10_400, 11_499 - NOTICED)),
        ("it is no connection of whoever was killed before", Some(10_500), later, (9_900, 9_999)),
        ("the connection goes on", None, later, (10_015, 10_030)),
        ("the claim still held", Some(10_020), later - 1, (10_015, 10_030)),
    ] {
        assert!(!excused(closed, again, kill), "{why}");
    }
}

/// What was measured, as a row of a table.
#[expect(clippy::print_stdout, reason = "the long forms are run to be read")]
fn tell(cells: &[String; 2]) {
    println!("\n| {} |", cells.join(" | "));
}

/// In ms since 1970, as the provider counts.
fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or_default()
}

/// A process that refreshes.
struct Authn {
    name: String,
    config: String,
    port: u16,
    postern: Postern,
}

/// Three authns behind one edge, and people who are signed in.
struct Office {
    world: World,
    provider: Provider,
    authns: Vec<Authn>,
    edge: Postern,
    _upstream: Upstream,
    people: Vec<Browser>,
}

impl Office {
    async fn open(store: &str, people: usize) -> Result<Self> {
        let world = World::new()?;
        world.issue(("authn.pem", "authn.key"), &["localhost".to_owned()])?;
        let (provider, upstream) = (Provider::with(&settings_for(&world, people))?, Upstream::start().await?);
        let settings =
            format!("{}certificate_authority_file: {}\n{PATIENT}", provider.settings(), world.path("ca.pem").display());
        let config = |services: &str| {
            let settings = format!("{settings}{services}\n");
            with_store(&world, &world.config(&settings, &world.route("app", &upstream.url(), ANY_USER)), store)
        };
        let mut authns = Vec::new();
        for number in 0..AUTHNS {
            let (name, port) = (format!("authn{number}"), free_ports(3)?);
            let config = moved_to(port, &world, &config("services: authenticate"));
            let config = config.replace("/certificate.pem", "/authn.pem").replace("/key.pem", "/authn.key");
            let postern = start_apart(&world, &name, &config, port + 1).await?;
            authns.push(Authn { name, config, port, postern });
        }
        let shared = free_port()?;
        Balancer::start(shared, authns.iter().map(|authn| authn.port)).await?;
        let proxy = format!("services: proxy\nauthenticate_internal_service_url: https://localhost:{shared}");
        let edge = start_apart(&world, "edge", &config(&proxy), world.health).await?;
        let mut office = Self { world, provider, authns, edge, _upstream: upstream, people: Vec::new() };
        office.people = stream::iter(0..people).map(|number| office.sign_in(number)).buffered(4).try_collect().await?;
        Ok(office)
    }

    async fn sign_in(&self, number: usize) -> Result<Browser> {
        let [high, low] = u16::try_from(number)?.to_be_bytes();
        let mut browser = Browser::at(&self.world.ca_pem(), Ipv4Addr::new(127, 2, high, low))?;
        let app = format!("app.{}", World::DOMAIN);
        // A machine that is busy may have somebody try again.
        let signed_in = eventually("a sign-in", async || {
            let mut page = browser.visit(self.world.url("app", "/")).await.ok()?;
            if page.form("Sign in").is_ok() {
                page = browser.submit(&page, "Sign in", &[("user", &user(number))]).await.ok()?;
            }
            (page.status == StatusCode::OK && page.url.host_str() == Some(&app)).then_some(())
        });
        signed_in.await.with_context(|| self.told())?;
        Ok(browser)
    }

    /// Stops or kills the process that ran longest, while grants are under way, and starts it again; gives from when to when
    /// that was, as [`now`] counts.
    async fn end_a_holder(&mut self, is_killed: bool) -> Result<(u64, u64)> {
        let holder = self.authns.remove(0);
        self.provider.becomes("busy").with_context(|| self.told())?;
        let begun = now();
        if is_killed {
            holder.postern.kill().await?;
        } else {
            holder.postern.signal("TERM")?;
            holder.postern.finished().await?;
        }
        let ended = now();
        let postern = start_apart(&self.world, &holder.name, &holder.config, holder.port + 1).await?;
        self.authns.push(Authn { postern, ..holder });
        Ok((begun, ended))
    }

    /// Waits until that holds.
    async fn until(&self, limit: Duration, holds: impl AsyncFn(&Self) -> Result<bool>) -> Result<()> {
        let wait = async {
            let mut ticks = tokio::time::interval(Duration::from_secs(1));
            while !holds(self).await? {
                ticks.tick().await;
            }
            anyhow::Ok(())
        };
        let waited = bounded(limit, "refreshes", wait).await.and_then(|waited| waited);
        match waited {
            Ok(()) => Ok(()),
            Err(error) => Err(error.context(format!("{:?}\n{}", self.seen(0).await, self.told()))),
        }
    }

    /// Asks on behalf of one after the other for so long; each is let in, every time.
    async fn nobody_is_gone_for(&mut self, time: Duration) -> Result<()> {
        let (begun, mut ticks) = (Instant::now(), tokio::time::interval(Duration::from_millis(200)));
        for person in (0..self.people.len()).cycle().take_while(|_| begun.elapsed() < time) {
            ensure!(!self.is_gone(person).await?, "signed out after {:?}\n{}", begun.elapsed(), self.told());
            ticks.tick().await;
        }
        Ok(())
    }

    /// Who is signed in no more.
    async fn gone(&mut self) -> Result<Vec<usize>> {
        let mut gone = Vec::new();
        for person in 0..self.people.len() {
            if self.is_gone(person).await? {
                gone.push(person);
            }
        }
        Ok(gone)
    }

    /// Whether the edge sends them to sign in; on a machine that is busy it may have to be asked again.
    async fn is_gone(&mut self, person: usize) -> Result<bool> {
        let (browser, url) = (self.people.get_mut(person).context("a person")?, self.world.url("app", "/"));
        let answer = eventually("an answer of the edge", async || match browser.peek(&url).await.ok()?.status {
            StatusCode::OK => Some(false),
            StatusCode::FOUND => Some(true),
            _ => None,
        });
        answer.await.with_context(|| self.told())
    }

    /// What the provider saw; since then, where it says so.
    async fn seen(&self, since: u64) -> Result<Refreshes> {
        self.provider.refreshes(since).await
    }

    /// Refreshes that found the provider away, of all processes.
    async fn failed(&self) -> Result<usize> {
        let (client, mut failed) = (plain_client()?, 0);
        for Authn { port, .. } in &self.authns {
            let text = client.get(format!("http://127.0.0.1:{}/metrics", port + 2)).send().await?.text().await?;
            let away = |line: &&str| {
                let of_refreshes = line.starts_with("postern_authn_refreshes_total{");
                of_refreshes && ["idp-unreachable", "idp-timed-out"].iter().any(|reason| line.contains(reason))
            };
            for line in text.lines().filter(away) {
                failed += line.rsplit(' ').next().unwrap_or_default().parse::<usize>()?;
            }
        }
        Ok(failed)
    }

    fn told(&self) -> String {
        self.authns.iter().map(|authn| &authn.postern).chain([&self.edge]).map(Postern::told).collect()
    }
}

fn user(number: usize) -> String {
    format!("person-{number}")
}

/// A provider that knows so many people.
fn settings_for(world: &World, people: usize) -> Value {
    let mut settings = Provider::settings_for(world, None);
    let person = |number| {
        let name = user(number);
        let known = json!({ "email": format!("{name}@example.com"), "name": name, "groups": ["staff"] });
        (name, known)
    };
    let ttl = json!({
        "AccessToken": LIFE, "AuthorizationCode": 60, "IdToken": 3600, "RefreshToken": 86400, "Session": 86400, "Grant": 86400,
        "Interaction": 600,
    });
    let more = json!({ "rotates": true, "slow": [20, 80], "ttl": ttl, "users": (0..people).map(person).collect::<Map<_, _>>() });
    if let (Some(settings), Value::Object(more)) = (settings.as_object_mut(), more) {
        settings.extend(more);
    }
    settings
}
