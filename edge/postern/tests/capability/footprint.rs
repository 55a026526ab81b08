//! What a configuration costs in memory once it serves.

use anyhow::{Context as _, Result, ensure};
use postern::config::{Environment, load_text};
use postern_edge::Snapshot;

use crate::support::{NO_PROVIDER, PUBLIC, Postern, World};

/// What is kept of so many routes, in bytes.
fn kept(routes: usize) -> Result<usize> {
    let routes: String = (0..routes)
        .map(|number| {
            format!(
                "  - from: https://app{number}.example.com\n    prefix: /p{number}/\n    to: http://app{number}.internal:8080\n    \
                 policy: [{{ allow: {{ and: [{{ domain: example.com }}, {{ claim/groups: team{number} }}] }} }}]\n"
            )
        })
        .collect();
    let text = format!(
        "address: 127.0.0.1:0\ninsecure_server: true\nidp_provider: google\nidp_client_id: id\nidp_client_secret: secret\n\
         routes:\n{routes}"
    );
    let environment = Environment::of::<&str, &str>([])?;
    let mut served = None;
    let counted = allocation_counter::measure(|| {
        served = load_text(None, &text, false, &environment).config.map(|mut config| {
            config.places = Vec::new();
            (Snapshot::new(config.edge.clone(), 0), config)
        });
    });
    let (snapshot, _config) = served.context("the configuration loads")?;
    snapshot?;
    Ok(usize::try_from(counted.bytes_current)?)
}

/// The goal is 1.5 KB resident, the allocator's share included.
#[test]
fn a_route_takes_little_memory() -> Result<()> {
    let (few, many) = (kept(100)?, kept(2100)?);
    let each = many.saturating_sub(few) / 2000;
    println!("{each} bytes a route");
    ensure!(each <= 1150, "a route takes {each} bytes");
    Ok(())
}

/// Pages of 2 MB, of which little is used, were more than half of what a process took at its start.
#[tokio::test]
async fn a_process_takes_no_large_pages() -> Result<()> {
    let world = World::new()?;
    let config = world.config(NO_PROVIDER, &world.route("app", "http://127.0.0.1:9", PUBLIC));
    let postern = Postern::run(&world, &config).await?;
    let told = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", postern.id()))?;
    let kilobytes = |name: &str| {
        let line = told.lines().find_map(|line| line.strip_prefix(name)).with_context(|| told.clone())?;
        anyhow::Ok(line.trim().trim_end_matches("kB").trim().parse::<u64>()?)
    };
    println!("{} KB of its own, {} KB in all", kilobytes("Anonymous:")?, kilobytes("Pss:")?);
    ensure!(kilobytes("AnonHugePages:")? == 0, "{told}");
    ensure!(kilobytes("Anonymous:")? <= 16 * 1024, "{told}");
    Ok(())
}
