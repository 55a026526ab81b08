//! Paths, hosts and answers are rewritten as the route says; what no request may ask for goes up to nobody.

use anyhow::{Context, Result};
use serde_json::Value;

use crate::support::{Asked, NO_PROVIDER, Postern, Upstream, World};

struct Office {
    world: World,
    upstream: Upstream,
    postern: Postern,
}

/// A public route of this name, with these lines, to an upstream that tells what it was asked.
async fn open(routes: &[(&str, &[&str])]) -> Result<Office> {
    let (world, upstream) = (World::new()?, Upstream::start().await?);
    let public = "allow_public_unauthenticated_access: true";
    let text: String =
        routes.iter().map(|(name, lines)| world.route(name, &upstream.url(), &[&[public], *lines].concat())).collect();
    let postern = Postern::run(&world, &world.config(&format!("{NO_PROVIDER}log_level: info\n"), &text)).await?;
    Ok(Office { world, upstream, postern })
}

impl Office {
    /// The answer to `GET target` with these further lines of a head.
    async fn get(&self, name: &str, target: &str, lines: &str) -> Result<String> {
        let host = self.world.host(name);
        let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n{lines}Connection: close\r\n\r\n");
        self.world.exchange(name, &request).await
    }

    /// What the upstream got of such a request.
    async fn carried(&self, name: &str, target: &str, lines: &str) -> Result<Asked> {
        let before = self.upstream.seen().len();
        let answer = self.get(name, target, lines).await?;
        let seen = self.upstream.seen();
        anyhow::ensure!(seen.len() == before + 1, "{name}{target}: {answer}\n{}", self.postern.told());
        seen.last().cloned().context("nothing was seen")
    }

    /// The reason for which such a request was not carried.
    async fn refused(&self, name: &str, target: &str, lines: &str) -> Result<String> {
        let before = self.upstream.seen().len();
        let answer = self.get(name, target, &format!("Accept: application/json\r\n{lines}")).await?;
        anyhow::ensure!(self.upstream.seen().len() == before, "it was carried: {answer}");
        let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
        let body: Value = serde_json::from_str(body).with_context(|| answer.clone())?;
        let status = head.split(' ').nth(1).unwrap_or_default();
        Ok(format!("{status} {}", body.get("reason").and_then(Value::as_str).unwrap_or_default()))
    }

    /// What `explain` says of it.
    fn explained(&self, name: &str, target: &str, header: Option<&str>) -> Result<Value> {
        let (config, url) = (self.world.path("config.yaml").display().to_string(), self.world.url(name, target));
        let asked = ["explain", "--config", &config, "--url", &url, "--format", "json"];
        let header: Vec<_> = header.iter().flat_map(|header| ["--header", header]).collect();
        let told = Postern::once(self.world.folder(), &[&asked[..], &header].concat())?;
        serde_json::from_str(&told.stdout).with_context(|| told.told())
    }
}

#[tokio::test]
async fn regex_rewrite_pattern_and_substitution_make_the_path() -> Result<()> {
    let swap = ["regex_rewrite_pattern: '^/([^/]+)/([^/?]+)'", r"regex_rewrite_substitution: '/\2/\1'"];
    let query = [r"regex_rewrite_pattern: '^/item/(\d+)$'", r"regex_rewrite_substitution: '/item.php?id=\1'"];
    let cut = ["regex_rewrite_pattern: '^/static'"];
    let office = open(&[("swap", &swap), ("query", &query), ("cut", &cut)]).await?;

    let asked = office.carried("swap", "/x/../a/b%20c/d?q=/e/f", "").await?;
    assert_eq!(asked.target, "/b%20c/a/d?q=/e/f", "of the path that policy saw; the query is not touched");
    assert_eq!(asked.header("x-envoy-original-path"), Some("/a/b%20c/d?q=/e/f"));
    assert_eq!(office.explained("swap", "/a/b", None)?.pointer("/upstream/target"), Some(&"/b/a".into()));
    assert_eq!(office.carried("query", "/item/7?x", "").await?.target, "/item.php?id=7&x");
    assert_eq!(office.carried("query", "/other/7", "").await?.target, "/other/7");
    assert_eq!(office.carried("cut", "/static/x", "").await?.target, "/x");

    // S-021: what is made is a path, or nothing goes up.
    for path in ["/static../x", "/staticx", "/static"] {
        assert_eq!(office.refused("cut", path, "").await?, "500 path-rewrite", "{path}");
        assert_eq!(office.explained("cut", path, None)?.get("reason"), Some(&"path-rewrite".into()), "{path}");
    }
    Ok(())
}

#[tokio::test]
async fn host_rewrite_header_says_the_host_that_goes_up() -> Result<()> {
    let by = ["host_rewrite_header: X-Host"];
    let both = ["host_rewrite_header: X-Host", "host_rewrite: literal.example"];
    let office = open(&[("by", &by), ("both", &both)]).await?;
    let own = office.world.host("by");

    let asked = office.carried("by", "/", "X-Host: Inner.example:81\r\n").await?;
    assert_eq!((asked.header("host"), asked.header("x-forwarded-host")), (Some("inner.example:81"), Some(&*own)));
    let asked = office.carried("by", "/", "").await?;
    assert_eq!((asked.header("host"), asked.header("x-forwarded-host")), (Some(&*own), None));
    assert_eq!(office.carried("both", "/", "X-Host: a\r\n").await?.header("host"), Some("literal.example"));
    let told = office.explained("by", "/", Some("X-Host: inner.example"))?;
    assert!(told.pointer("/upstream").is_some_and(|up| up.to_string().contains("inner.example")), "{told:#}");

    for odd in ["X-Host: a b\r\n", "X-Host: a/b\r\n", "X-Host: u@a\r\n", "X-Host: a\r\nX-Host: b\r\n"] {
        assert_eq!(office.refused("by", "/", odd).await?, "500 host-rewrite", "S-047 {odd:?}");
    }
    Ok(())
}

#[tokio::test]
async fn host_path_regex_rewrite_makes_the_host_of_the_path() -> Result<()> {
    let by = [
        "host_path_regex_rewrite_pattern: '^/([^/]+)/.*$'",
        r"host_path_regex_rewrite_substitution: '\1.internal'",
        "regex_rewrite_pattern: '^/[^/]+'",
    ];
    let office = open(&[("by", &by)]).await?;
    let asked = office.carried("by", "/acme/x?y=/z", "").await?;
    assert_eq!((asked.header("host"), asked.target.as_str()), (Some("acme.internal"), "/x?y=/z"));
    for path in ["/a%20b/x", "/acme"] {
        let reason = if path == "/acme" { "500 path-rewrite" } else { "500 host-rewrite" };
        assert_eq!(office.refused("by", path, "").await?, reason, "{path}");
    }
    Ok(())
}

#[tokio::test]
async fn rewrite_response_headers_changes_how_fields_begin() -> Result<()> {
    let by = [
        "rewrite_response_headers:",
        "  - {header: Location, prefix: 'http://inner/', value: 'https://outer/app/'}",
        "  - {header: Set-Cookie, prefix: 'a=', value: '_pomerium='}",
    ];
    let office = open(&[("by", &by)]).await?;
    let answer =
        office.get("by", "/say?location=http://inner/x&x-other=http://inner/x&set-cookie=a%3Dstolen", "").await?;
    assert!(answer.contains("\r\nlocation: https://outer/app/x\r\n"), "{answer}");
    assert!(answer.contains("\r\nx-other: http://inner/x\r\n"), "{answer}");
    assert!(!answer.to_ascii_lowercase().contains("set-cookie"), "S-049: no setting makes a cookie of ours: {answer}");
    let answer = office.get("by", "/say?location=https://elsewhere/http://inner/", "").await?;
    assert!(answer.contains("\r\nlocation: https://elsewhere/http://inner/\r\n"), "{answer}");
    Ok(())
}
