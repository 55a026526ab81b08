//! `tls_derive`: processes with one secret believe each other's certificates, without any file (01 §1.5).

use anyhow::Result;

use crate::support::{Browser, NO_PROVIDER, PUBLIC, Postern, Upstream, World};

#[tokio::test]
async fn an_upstream_with_the_same_secret_is_believed_by_the_name_that_it_derives_and_by_no_other_way() -> Result<()> {
    let (inner, world) = (World::new()?, World::new()?);
    let upstream = Upstream::start().await?;
    let settings = format!("{NO_PROVIDER}tls_derive: inner.corp.localhost\n");
    let text = inner.config(&settings, &inner.route("open", &upstream.url(), PUBLIC));
    let lines = text.lines().filter(|line| !line.starts_with("certificate_"));
    let _inner = Postern::run(&inner, &lines.map(|line| format!("{line}\n")).collect::<String>()).await?;

    let route = |name: &str, asked_for: &str| {
        let lines = [
            PUBLIC[0].to_owned(),
            format!("tls_upstream_server_name: {asked_for}"),
            format!("host_rewrite: {}", inner.host("open")),
        ];
        let lines: Vec<_> = lines.iter().map(String::as_str).collect();
        world.route(name, &format!("https://localhost:{}", inner.port), &lines)
    };
    let routes = [route("right", "inner.corp.localhost"), route("wrong", "other.corp.localhost")].concat();
    let derived = format!("{NO_PROVIDER}tls_derive: outer.corp.localhost\n");
    for (settings, expected) in [(derived.as_str(), 200), (NO_PROVIDER, 502)] {
        let postern = Postern::run(&world, &world.config(settings, &routes)).await?;
        let mut browser = Browser::new(&world.ca_pem())?;
        assert_eq!(browser.visit(world.url("right", "/")).await?.status, expected, "{}", postern.told());
        assert_eq!(browser.visit(world.url("wrong", "/")).await?.status, 502);
        postern.kill().await?;
    }
    assert_eq!(upstream.seen().len(), 1);
    Ok(())
}
