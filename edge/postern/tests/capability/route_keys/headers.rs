//! What a route sets and removes of the fields of requests and answers (01 §2.1, §2.10).

use anyhow::Result;

use super::open;

#[tokio::test]
async fn row_set_request_headers_says_fields_in_place_of_the_clients() -> Result<()> {
    let rules = [
        "set_request_headers:",
        "  X-Set: by-us",
        "  X-Price: $$5",
        "  X-Copy: 'a ${ pomerium.request.headers[\"x-IN\"] } b'",
        "  X-Bare: $pomerium.nothing.of.ours!",
        "  X-Broken: '${pomerium.jwt'",
        "  X-Jwt: '${pomerium.jwt}'",
    ];
    let office = open("", &[("app", &rules), ("other", &[])]).await?;
    let fields = "X-Set: by-client\r\nX-In: one\r\nX-In: two\r\nX-Kept: x\r\n";
    let asked = office.carried("app", "/", fields).await?;
    for (name, value) in [
        ("x-set", "by-us"),
        ("x-price", "$5"),
        ("x-copy", "a one,two b"),
        ("x-bare", "!"),
        ("x-broken", "${pomerium.jwt"),
        ("x-kept", "x"),
    ] {
        assert_eq!(asked.header(name), Some(value), "{name}: {asked:?}");
    }
    assert!(asked.header("x-jwt").is_some_and(|jwt| jwt.matches('.').count() == 2), "{asked:?}");
    assert_eq!(office.carried("other", "/", fields).await?.header("x-set"), Some("by-client"));
    for odd in ["Host: h", "X-Pomerium-Claim-Email: root@example.com", "Content-Length: '1'", "'a b': x"] {
        office.is_refused(&[&format!("set_request_headers: {{{odd}}}")], "set_request_headers")?;
    }
    Ok(())
}

#[tokio::test]
async fn row_remove_request_headers_comes_last() -> Result<()> {
    let rules = ["set_request_headers: {X-Both: by-us}", "remove_request_headers: [x-UNWANTED, X-Both]"];
    let office = open("", &[("app", &rules)]).await?;
    let asked = office.carried("app", "/", "X-Unwanted: 1\r\nx-unwanted: 2\r\nX-Kept: x\r\n").await?;
    let gone = asked.headers.iter().filter(|(name, _)| ["x-unwanted", "x-both"].contains(&name.as_str()));
    assert_eq!(gone.count(), 0, "{asked:?}");
    assert_eq!(asked.header("x-kept"), Some("x"));
    for odd in ["Host", "Content-Length", "a b"] {
        office.is_refused(&[&format!("remove_request_headers: ['{odd}']")], "remove_request_headers")?;
    }
    Ok(())
}

#[tokio::test]
async fn row_set_response_headers_adds_to_those_of_the_file_and_goes_before_them() -> Result<()> {
    let office = open(
        "set_response_headers: {X-File: file, X-Both: file}\n",
        &[
            ("app", &["set_response_headers: {X-Both: route, X-Route: 'r: $1'}"]),
            ("plain", &[]),
            ("none", &["set_response_headers: {disable: 'yes', X-Route: gone}"]),
            ("closed", &["prefix: /nowhere", "set_response_headers: {X-Route: route}"]),
        ],
    )
    .await?;
    let target = "/say?x-both=upstream&x-file=upstream&x-own=upstream";
    let read = async |name: &str, names: &[&str]| {
        let answer = office.get(name, target, "").await?;
        anyhow::Ok(names.iter().map(|name| answer.field(name).unwrap_or("-").to_owned()).collect::<Vec<_>>())
    };
    let names = ["x-file", "x-both", "x-route", "x-own"];
    assert_eq!(read("app", &names).await?, ["file", "route", "r: $1", "upstream"]);
    assert_eq!(read("plain", &names).await?, ["file", "file", "-", "upstream"]);
    assert_eq!(read("none", &names).await?, ["upstream", "upstream", "-", "upstream"]);
    // What the file says is not taken for granted where it says something: the usual ones are those of a file that does not.
    assert_eq!(read("closed", &names).await?, ["file", "file", "-", "-"], "no route was found");
    Ok(())
}
