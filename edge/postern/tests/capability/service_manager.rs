//! A service manager hears what becomes of the process (sd_notify(3), `health_check_systemd_disabled`).

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixDatagram;

use crate::support::{DEADLINE, NO_PROVIDER, PUBLIC, Postern, Upstream, World, bounded, eventually, signal};
use crate::upgrade::{in_memory, refused, upgraded};

/// Where a service manager listens.
struct Manager(UnixDatagram);

impl Manager {
    fn of(world: &World) -> Result<(Self, String)> {
        let path = world.folder().join("notify");
        Ok((Self(UnixDatagram::bind(&path)?), path.to_str().context("a path")?.to_owned()))
    }

    /// The next message that is not about the watchdog.
    async fn news(&self) -> Result<String> {
        loop {
            let heard = self.heard().await?;
            if heard != "WATCHDOG=1\n" {
                return Ok(heard);
            }
        }
    }

    async fn heard(&self) -> Result<String> {
        let mut buffer = [0; 4096];
        let length = bounded(DEADLINE, "a word to the service manager", self.0.recv(&mut buffer)).await??;
        Ok(String::from_utf8(buffer.get(..length).context("a message")?.to_vec())?)
    }
}

#[tokio::test]
async fn health_check_systemd_disabled_is_false_and_the_service_manager_hears_of_start_reload_and_stop() -> Result<()> {
    let world = World::new()?;
    let upstream = Upstream::start().await?;
    let config = world.config(NO_PROVIDER, &world.route("open", &upstream.url(), PUBLIC));
    let (manager, path) = Manager::of(&world)?;
    let variables = [("NOTIFY_SOCKET", path.as_str()), ("WATCHDOG_USEC", "200000")];
    let postern = Postern::run_with(&world, &config, &variables).await?;
    assert_eq!(manager.news().await?, "READY=1\nSTATUS=1 routes\n");
    for _ in 0..3 {
        assert_eq!(manager.heard().await?, "WATCHDOG=1\n");
    }

    world.write_config(&format!("{config}\ncookie_expire: soon\n"))?;
    postern.signal("HUP")?;
    let reloading = manager.news().await?;
    assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
    let outcome = manager.news().await?;
    assert!(outcome.starts_with("READY=1\nSTATUS=refused: "), "{outcome}");

    postern.signal("TERM")?;
    eventually("the word that it stops", async || {
        manager.news().await.ok().filter(|heard| heard.starts_with("STOPPING=1\n"))
    })
    .await?;
    assert!(postern.finished().await?.status.success());
    Ok(())
}

#[tokio::test]
async fn in_an_upgrade_the_service_manager_hears_whose_word_counts_before_the_new_process_speaks() -> Result<()> {
    let world = World::new()?;
    let upstream = Upstream::start().await?;
    let config = in_memory(&world, &world.config(NO_PROVIDER, &world.route("open", &upstream.url(), PUBLIC)));
    let (manager, path) = Manager::of(&world)?;
    let mut postern = Postern::run_with(&world, &config, &[("NOTIFY_SOCKET", path.as_str())]).await?;
    assert_eq!(manager.news().await?, "READY=1\nSTATUS=1 routes\n");
    postern.signal("USR2")?;
    let main = manager.news().await?;
    let process = main
        .strip_prefix("MAINPID=")
        .and_then(|rest| rest.strip_suffix("\nSTATUS=a new process serves; the old one drains\n"));
    let process: u32 = process.with_context(|| main.clone())?.parse()?;
    assert_ne!(process, postern.id());
    assert_eq!(manager.news().await?, "READY=1\nSTATUS=1 routes\n");
    assert!(postern.ended().await?.success());
    signal("TERM", &process.to_string())?;
    assert_eq!(manager.news().await?, "STOPPING=1\nSTATUS=what is under way may finish\n");
    Ok(())
}

#[tokio::test]
async fn health_check_systemd_disabled_keeps_everything_from_the_service_manager() -> Result<()> {
    let world = World::new()?;
    let upstream = Upstream::start().await?;
    let config = world.config(NO_PROVIDER, &world.route("open", &upstream.url(), PUBLIC));
    let (manager, path) = Manager::of(&world)?;
    let variables = [("NOTIFY_SOCKET", path.as_str()), ("WATCHDOG_USEC", "20000")];
    let config = format!("health_check_systemd_disabled: true\n{config}");
    let postern = Postern::run_with(&world, &config, &variables).await?;
    postern.signal("TERM")?;
    assert!(postern.finished().await?.status.success());
    let error = manager.0.try_recv(&mut [0; 64]).err().context("nothing was to be heard")?;
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    Ok(())
}

#[tokio::test]
async fn a_process_that_came_by_an_upgrade_is_not_replaced_either_where_the_service_manager_cannot_be_told()
-> Result<()> {
    let world = World::new()?;
    let upstream = Upstream::start().await?;
    let config = in_memory(&world, &world.config(NO_PROVIDER, &world.route("open", &upstream.url(), PUBLIC)));
    let (manager, path) = Manager::of(&world)?;
    let mut postern = Postern::run_as_main(&world, &config, &[("NOTIFY_SOCKET", path.as_str())]).await?;
    assert_eq!(manager.news().await?, "READY=1\nSTATUS=1 routes\n");
    let next = upgraded(&postern, postern.id().into()).await?;
    assert!(manager.news().await?.starts_with(&format!("MAINPID={next}\n")));
    assert!(postern.ended().await?.success());
    assert_eq!(manager.news().await?, "READY=1\nSTATUS=1 routes\n");

    world.write_config(&format!("health_check_systemd_disabled: true\n{config}"))?;
    signal("HUP", &next.to_string())?;
    eventually("the verdict of the reload", async || {
        manager.news().await.ok().filter(|heard| heard.starts_with("READY=1\nSTATUS=applied"))
    })
    .await?;
    let why = refused(&postern, next).await?;
    assert!(why.starts_with("the service manager cannot be told of the new process"), "{why}");
    Ok(())
}

#[tokio::test]
async fn r_017_a_new_process_that_is_stopped_before_it_takes_over_cuts_nothing_and_tells_nobody() -> Result<()> {
    let world = World::new()?;
    let upstream = Upstream::start().await?;
    let config = in_memory(&world, &world.config(NO_PROVIDER, &world.route("open", &upstream.url(), PUBLIC)));
    let (manager, path) = Manager::of(&world)?;
    let postern = Postern::run_with(&world, &config, &[("NOTIFY_SOCKET", path.as_str())]).await?;
    assert_eq!(manager.news().await?, "READY=1\nSTATUS=1 routes\n");
    postern.signal("USR2")?;
    let process = eventually("the new process", async || {
        let started = |line: &serde_json::Value| {
            let is = line.get("message")?.as_str()?.starts_with("a new process was started");
            is.then(|| line.get("process")?.as_u64()).flatten()
        };
        postern.log().iter().find_map(started)
    })
    .await?;
    // The old one neither accepts nor hears that the new one serves.
    postern.signal("STOP")?;
    eventually("each of its threads to stand still", async || stands_still(postern.id()).ok()?.then_some(())).await?;
    let mut held = world.connect("open", &["http/1.1"]).await?;
    held.write_all(format!("GET /hold HTTP/1.1\r\nHost: {}\r\n\r\n", world.host("open")).as_bytes()).await?;
    eventually("the request at the upstream", async || (upstream.seen().len() == 1).then_some(())).await?;
    signal("TERM", &process.to_string())?;
    let stopping = "stopping before this process took the place of another";
    eventually("its drain", async || postern.stdout().contains(stopping).then_some(())).await?;
    upstream.release();
    let mut answer = String::new();
    bounded(DEADLINE, "the rest of the answer", held.read_to_string(&mut answer)).await??;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("held, then let go"), "{answer}");
    let silent = manager.0.try_recv(&mut [0; 64]).err().context("nothing was to be heard")?;
    assert_eq!(silent.kind(), std::io::ErrorKind::WouldBlock);
    postern.signal("CONT")
}

/// Whether each thread of the process is stopped: one after the other is, some time after the signal.
fn stands_still(process: u32) -> Result<bool> {
    for thread in std::fs::read_dir(format!("/proc/{process}/task"))? {
        // The state comes after the name, which is in parentheses (proc_pid_stat(5)).
        if !std::fs::read_to_string(thread?.path().join("stat"))?.contains(") T ") {
            return Ok(false);
        }
    }
    Ok(true)
}
