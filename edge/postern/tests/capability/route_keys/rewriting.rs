//! Paths, hosts and answers are rewritten as the route says; what no request may ask for goes up to nobody (01 §2.7).

use anyhow::Result;

use super::open;

#[tokio::test]
async fn row_prefix_rewrite_puts_a_text_in_the_place_of_what_was_matched() -> Result<()> {
    let office = open(
        "",
        &[
            ("prefix", &["prefix: /in/", "prefix_rewrite: /out/deep/"]),
            ("root", &["prefix: /in", "prefix_rewrite: /"]),
            ("all", &["prefix_rewrite: /below"]),
            ("path", &["path: /exact", "prefix_rewrite: /other"]),
            ("regex", &["regex: '/n[0-9]+'", "prefix_rewrite: /number"]),
            ("none", &["prefix: /in"]),
        ],
    )
    .await?;
    for (name, target, up) in [
        ("prefix", "/in/a?q=/in/", "/out/deep/a?q=/in/"),
        ("prefix", "/in/", "/out/deep/"),
        ("root", "/inside", "/side"),
        ("all", "/a", "/belowa"),
        ("path", "/exact?q", "/other?q"),
        ("regex", "/n12?q", "/number?q"),
        ("none", "/in/a?q", "/in/a?q"),
    ] {
        let asked = office.carried(name, target, "").await?;
        let original = (target != up).then_some(target);
        assert_eq!((asked.target.as_str(), asked.header("x-envoy-original-path")), (up, original), "{name}");
    }
    office.is_refused(&["prefix_rewrite: /a", "regex_rewrite_pattern: /b"], "regex_rewrite_pattern")
}

#[tokio::test]
async fn row_host_rewrite_is_the_host_that_goes_up() -> Result<()> {
    let literal = "host_rewrite: inside.example:81";
    let office = open(
        "",
        &[
            ("literal", &[literal]),
            ("first", &[literal, "preserve_host_header: true", "host_rewrite_header: X-Host"]),
            ("quiet", &[literal, "remove_request_headers: [X-Forwarded-HOST]"]),
            ("usual", &[]),
        ],
    )
    .await?;
    let to = office.upstream.url().replace("http://", "");
    for (name, host, is_told) in [
        ("literal", "inside.example:81", true),
        ("first", "inside.example:81", true),
        ("quiet", "inside.example:81", false),
        ("usual", &to, true),
    ] {
        let asked = office.carried(name, "/", "X-Host: other.example\r\n").await?;
        let (own, told) = (office.world.host(name), asked.header("x-forwarded-host"));
        assert_eq!((asked.header("host"), told), (Some(host), is_told.then_some(own.as_str())), "{name}");
    }
    office.is_refused(&["host_rewrite: 'not a host'"], "host_rewrite")
}

#[tokio::test]
async fn row_preserve_host_header_leaves_the_host_as_it_came() -> Result<()> {
    let office = open("", &[("app", &["preserve_host_header: true"])]).await?;
    let (asked, own) = (office.carried("app", "/", "").await?, office.world.host("app"));
    assert_eq!((asked.header("host"), asked.header("x-forwarded-host")), (Some(own.as_str()), None), "{asked:?}");
    Ok(())
}

#[tokio::test]
async fn row_regex_rewrite_pattern_and_substitution_make_the_path() -> Result<()> {
    let swap = ["regex_rewrite_pattern: '^/([^/]+)/([^/?]+)'", r"regex_rewrite_substitution: '/\2/\1'"];
    let query = [r"regex_rewrite_pattern: '^/item/(\d+)$'", r"regex_rewrite_substitution: '/item.php?id=\1'"];
    let cut = ["regex_rewrite_pattern: '^/static'"];
    let office = open("", &[("swap", &swap), ("query", &query), ("cut", &cut)]).await?;

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
async fn row_host_rewrite_header_says_the_host_that_goes_up() -> Result<()> {
    let by = ["host_rewrite_header: X-Host"];
    let both = ["host_rewrite_header: X-Host", "host_rewrite: literal.example"];
    let office = open("", &[("by", &by), ("both", &both)]).await?;
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
async fn row_host_path_regex_rewrite_pattern_makes_the_host_of_the_path() -> Result<()> {
    let by = [
        "host_path_regex_rewrite_pattern: '^/([^/]+)/.*$'",
        r"host_path_regex_rewrite_substitution: '\1.internal'",
        "regex_rewrite_pattern: '^/[^/]+'",
    ];
    let office = open("", &[("by", &by)]).await?;
    let asked = office.carried("by", "/acme/x?y=/z", "").await?;
    assert_eq!((asked.header("host"), asked.target.as_str()), (Some("acme.internal"), "/x?y=/z"));
    for path in ["/a%20b/x", "/acme"] {
        let reason = if path == "/acme" { "500 path-rewrite" } else { "500 host-rewrite" };
        assert_eq!(office.refused("by", path, "").await?, reason, "{path}");
    }
    Ok(())
}

#[tokio::test]
async fn row_rewrite_response_headers_changes_how_fields_begin() -> Result<()> {
    let by = [
        "rewrite_response_headers:",
        "  - {header: Location, prefix: 'http://inner/', value: 'https://outer/app/'}",
        "  - {header: Set-Cookie, prefix: 'a=', value: '_pomerium='}",
        // Each once, in their order.
        "  - {header: X-Step, prefix: a, value: b}",
        "  - {header: X-Step, prefix: b, value: c}",
        "  - {header: X-Absent, prefix: '', value: c}",
    ];
    let office = open("", &[("by", &by)]).await?;
    let target = "/say?location=http://inner/x&x-other=http://inner/x&x-step=aa&set-cookie=a%3Dstolen";
    let answer = office.get("by", target, "").await?;
    assert_eq!(answer.field("location"), Some("https://outer/app/x"), "{}", answer.head);
    assert_eq!(answer.field("x-other"), Some("http://inner/x"), "{}", answer.head);
    assert_eq!((answer.field("x-step"), answer.field("x-absent")), (Some("ca"), None), "{}", answer.head);
    let told = answer.head.to_ascii_lowercase();
    assert!(!told.contains("set-cookie"), "S-049: no setting makes a cookie of ours: {told}");
    let answer = office.get("by", "/say?location=https://elsewhere/http://inner/", "").await?;
    assert_eq!(answer.field("location"), Some("https://elsewhere/http://inner/"), "{}", answer.head);
    Ok(())
}
