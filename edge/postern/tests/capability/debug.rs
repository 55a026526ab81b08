//! What the process tells of itself on an address of its own (`debug_address`, `debug_admin_endpoints`).

use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::support::{
    COOKIE_SECRET, NO_PROVIDER, PUBLIC, Postern, SHARED_SECRET, Upstream, World, eventually, free_port, plain_client,
};
use crate::upgrade::{in_memory, upgraded};

const SHOWN: &str = "runtime_flags: {debug_admin_endpoints: true}\n";
const FIGURES: [&str; 3] = ["/debug/pprof/", "/debug/memory", "/debug/runtime"];
const ADMIN: [&str; 4] = ["/", "/config_dump", "/version", "/state"];

/// A Postern with a debug listener, and these settings.
struct Looked {
    world: World,
    postern: Postern,
    config: String,
    port: u16,
    _upstream: Upstream,
}

impl Looked {
    async fn at(settings: &str) -> Result<Self> {
        let (world, upstream, port) = (World::new()?, Upstream::start().await?, free_port()?);
        let settings = format!("{NO_PROVIDER}debug_address: 127.0.0.1:{port}\n{settings}");
        let config = in_memory(&world, &world.config(&settings, &world.route("open", &upstream.url(), PUBLIC)));
        let postern = Postern::run(&world, &config).await?;
        Ok(Self { world, postern, config, port, _upstream: upstream })
    }

    fn asked(&self, method: Method, path: &str) -> Result<reqwest::RequestBuilder> {
        Ok(plain_client()?.request(method, format!("http://127.0.0.1:{}{path}", self.port)))
    }

    async fn status(&self, method: Method, path: &str) -> Result<StatusCode> {
        Ok(self.asked(method, path)?.send().await?.status())
    }

    async fn told(&self, path: &str) -> Result<String> {
        let answer = self.asked(Method::GET, path)?.send().await?.error_for_status();
        let answer = answer.with_context(|| self.postern.told())?;
        assert_eq!(answer.headers().get("cache-control").context("cache-control")?, "no-store");
        Ok(answer.text().await?)
    }

    async fn json(&self, path: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.told(path).await?)?)
    }
}

fn number(value: &Value, place: &str) -> Result<u64> {
    value.pointer(place).and_then(Value::as_u64).with_context(|| format!("{place} in {value:#}"))
}

#[tokio::test]
async fn debug_address_tells_of_threads_memory_and_runtimes_and_changes_nothing() -> Result<()> {
    let looked = Looked::at("").await?;
    assert!(number(&looked.json("/debug/memory").await?, "/resident")? > 1 << 20);
    assert!(number(&looked.json("/debug/memory").await?, "/descriptors")? > 3);
    let runtime = looked.json("/debug/runtime").await?;
    let names = |list: &str| -> Vec<&str> {
        let all = runtime.get(list).and_then(Value::as_array).into_iter().flatten();
        all.filter_map(|one| one.get("name")?.as_str()).collect()
    };
    for name in ["edge-0", "control"] {
        assert!(names("threads").contains(&name) && names("runtimes").contains(&name), "{name}: {runtime:#}");
    }
    assert!(number(&runtime, "/runtimes/0/tasks")? > 0);
    assert!(looked.told("/debug/pprof/").await?.contains("/debug/pprof/profile?seconds="));
    for path in FIGURES.into_iter().chain(["/debug/pprof/profile"]) {
        assert_eq!(looked.status(Method::POST, path).await?, StatusCode::METHOD_NOT_ALLOWED, "{path}");
    }
    // The flag is off.
    for path in ADMIN {
        let answer = looked.asked(Method::GET, path)?.send().await?;
        assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{path}");
        assert!(answer.text().await?.contains("debug_admin_endpoints: true"), "{path}");
    }
    Ok(())
}

#[tokio::test]
async fn a_profile_tells_which_threads_took_processor_time_and_there_is_one_at_a_time() -> Result<()> {
    let looked = Looked::at("").await?;
    let ask = || Ok::<_, anyhow::Error>(looked.asked(Method::GET, "/debug/pprof/profile?seconds=2")?.send());
    let (one, other) = tokio::join!(ask()?, ask()?);
    let (one, other) = (one?, other?);
    let (taken, refused) = if one.status() == StatusCode::OK { (one, other) } else { (other, one) };
    assert_eq!(refused.status(), StatusCode::CONFLICT);
    let profile = taken.error_for_status()?.bytes().await?;
    // Each text of its table is a field of its own: number 6, a string.
    let text = |name: &str| [&[0x32, u8::try_from(name.len()).unwrap_or_default()], name.as_bytes()].concat();
    for name in ["samples", "count", "cpu", "nanoseconds", "postern", "edge-0", "control"] {
        let text = text(name);
        assert!(profile.windows(text.len()).any(|part| part == text), "{name}");
    }
    for odd in ["0", "121", "soon"] {
        let answer = looked.asked(Method::GET, &format!("/debug/pprof/profile?seconds={odd}"))?.send().await?;
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{odd}");
    }
    Ok(())
}

#[tokio::test]
async fn debug_admin_endpoints_show_the_configuration_in_force_without_secrets_and_follow_a_reload() -> Result<()> {
    let looked = Looked::at("log_level: warn\n").await?;
    assert_eq!(looked.status(Method::GET, "/config_dump").await?, StatusCode::NOT_FOUND);
    let shown = looked.config.replace("log_level: warn\n", &format!("log_level: error\n{SHOWN}"));
    looked.world.write_config(&shown)?;
    eventually("the flag", async || {
        (looked.status(Method::GET, "/config_dump").await.ok()? == StatusCode::OK).then_some(())
    })
    .await?;
    let dump = looked.told("/config_dump").await?;
    for secret in [SHARED_SECRET, COOKIE_SECRET] {
        assert!(!dump.contains(secret), "{dump}");
    }
    let file = looked.world.path("config.yaml").display().to_string();
    let arguments = ["config", "show", &file, "--effective", "--format", "json"];
    let finished = Postern::once(looked.world.folder(), &arguments)?;
    assert_eq!(dump, finished.stdout);
    assert_eq!(serde_json::from_str::<Value>(&dump)?.get("log_level").context("log_level")?, "error");

    // What waits for a new process is named.
    let other = shown.replace(&format!("debug_address: 127.0.0.1:{}", looked.port), "debug_address: 127.0.0.1:1");
    looked.world.write_config(&other.replace("log_level: error", "log_level: info"))?;
    let waiting = eventually("the next configuration", async || {
        let answer = looked.asked(Method::GET, "/config_dump").ok()?.send().await.ok()?;
        let field = |name: &str| answer.headers().get(name)?.to_str().ok().map(str::to_owned);
        (field("x-postern-version")? == "2").then(|| field("x-postern-waiting"))
    })
    .await?;
    assert_eq!(waiting.as_deref(), Some("debug_address"));

    assert!(looked.told("/").await?.contains("/config_dump"));
    let version = looked.json("/version").await?;
    assert_eq!(version.pointer("/postern/version").context("a version")?, env!("CARGO_PKG_VERSION"));
    let state = looked.json("/state").await?;
    assert_eq!(state.pointer("/store/answers"), Some(&Value::Bool(true)), "{state:#}");
    assert!(state.pointer("/figures/store/postern_storage_cache_lookups_total/series/0/value").is_some(), "{state:#}");

    looked.world.write_config(&looked.config)?;
    eventually("the flag is gone", async || {
        (looked.status(Method::GET, "/config_dump").await.ok()? == StatusCode::NOT_FOUND).then_some(())
    })
    .await
}

#[tokio::test]
async fn s_113_nobody_is_told_on_the_public_listener_nor_by_a_name_that_leads_to_the_loopback() -> Result<()> {
    let looked = Looked::at(SHOWN).await?;
    let host = looked.world.host("authenticate");
    for path in FIGURES.into_iter().chain(ADMIN) {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let public = looked.world.exchange("authenticate", &request).await?;
        assert!(
            !public.contains("descriptors") && !public.contains("resident") && !public.contains("config_dump"),
            "{public}"
        );
        let health = format!("http://127.0.0.1:{}{path}", looked.world.health);
        assert_eq!(plain_client()?.get(health).send().await?.status(), StatusCode::NOT_FOUND, "{path}");
        let own = looked.asked(Method::GET, path)?;
        assert_eq!(own.send().await?.status(), StatusCode::OK, "{path}");
        for (name, value) in
            [("host", "rebound.evil.example"), ("origin", "https://evil.example"), ("sec-fetch-site", "cross-site")]
        {
            let asked = looked.asked(Method::GET, path)?.header(name, value);
            assert_eq!(asked.send().await?.status(), StatusCode::FORBIDDEN, "{path} {name}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn without_debug_address_nothing_listens_and_an_upgrade_hands_the_listener_over() -> Result<()> {
    let mut looked = Looked::at("").await?;
    let first = u64::from(looked.postern.id());
    let next = upgraded(&looked.postern, first).await?;
    // The number of a process is that of its first thread.
    assert_eq!(number(&looked.json("/debug/runtime").await?, "/threads/0/id")?, next);
    assert!(looked.postern.ended().await?.success());
    assert!(number(&looked.json("/debug/memory").await?, "/resident")? > 0);

    let (world, upstream) = (World::new()?, Upstream::start().await?);
    let config = world.config(NO_PROVIDER, &world.route("open", &upstream.url(), PUBLIC));
    let postern = Postern::run(&world, &config).await?;
    let mut listens = listening(postern.id())?;
    // One more of them is authn's own, which answers the edge alone.
    let mut own = vec![world.port, world.health, world.metrics];
    listens.retain(|port| !own.contains(port));
    assert_eq!(listens.len(), 1, "{listens:?} beside {own:?}");
    own.extend(listens);
    for port in own {
        let asked = plain_client()?.get(format!("http://{}:{port}/debug/memory", Ipv4Addr::LOCALHOST)).send().await;
        assert!(asked.is_err() || asked.is_ok_and(|answer| answer.status() != StatusCode::OK), "{port}");
    }
    Ok(())
}

/// The ports on which a process listens.
fn listening(process: u32) -> Result<Vec<u16>> {
    let sockets: Vec<_> = std::fs::read_dir(format!("/proc/{process}/fd"))?
        .filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok())
        .filter_map(|to| Some(to.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let mut ports = std::collections::BTreeSet::new();
    for line in std::fs::read_to_string(format!("/proc/{process}/net/tcp"))?.lines().skip(1) {
        let fields: Vec<_> = line.split_whitespace().collect();
        let (Some(local), Some(&"0A"), Some(inode)) = (fields.get(1), fields.get(3), fields.get(9)) else { continue };
        if sockets.iter().any(|socket| socket == inode) {
            let port = local.rsplit(':').next().context("a port")?;
            ports.insert(u16::from_str_radix(port, 16)?);
        }
    }
    Ok(ports.into_iter().collect())
}
