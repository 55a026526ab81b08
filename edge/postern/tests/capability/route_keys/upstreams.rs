//! `to` (01 §2.5): where requests go, and what of its URLs goes up with them.

use std::collections::BTreeMap;

use anyhow::Result;

use super::{is_refused, with};
use crate::support::{Backend, Browser, PUBLIC, Seen};

#[tokio::test]
async fn row_to_is_one_url_or_a_list_with_weights_and_the_first_path_is_put_before_all() -> Result<()> {
    let (a, b) = (Backend::plain("a").await?, Backend::plain("b").await?);
    let (a, b) = (a.url("http", "127.0.0.1")?, b.url("http", "127.0.0.1")?);
    let local = b.replace("127.0.0.1", "localhost");
    let office = with("", |world, _| {
        [
            world.route("one", &a, PUBLIC),
            world.route("list", &format!("['{a}', '{b}']"), PUBLIC),
            world.route("weighted", &format!("['{a},3', '{b},1']"), PUBLIC),
            world.route("paths", &format!("['{a}/base/?x=1', '{b}/other']"), PUBLIC),
            world.route("joined", &format!("{a}/in"), PUBLIC),
            world.route("local", &local, PUBLIC),
        ]
        .concat()
    })
    .await?;
    let mut browser = Browser::new(&office.world.ca_pem())?;
    let mut ask = async |name: &str, target: &str, times: usize| {
        let mut seen = Vec::new();
        for _ in 0..times {
            seen.push(browser.visit(office.world.url(name, target)).await?.json::<Seen>()?);
        }
        anyhow::Ok(seen)
    };
    let of = |url: &str| url.replace("http://", "");
    for (name, times, expected) in [
        ("one", 3, BTreeMap::from([("a", 3)])),
        ("list", 10, BTreeMap::from([("a", 5), ("b", 5)])),
        ("weighted", 40, BTreeMap::from([("a", 30), ("b", 10)])),
    ] {
        let seen = ask(name, "/x", times).await?;
        let mut counts = BTreeMap::new();
        for seen in &seen {
            *counts.entry(seen.backend.as_str()).or_insert(0) += 1;
            let own = if seen.backend == "a" { of(&a) } else { of(&b) };
            assert_eq!((seen.path.as_str(), seen.header("host")), ("/x", Some(own.as_str())), "{name}");
        }
        assert_eq!(counts, expected, "{name}");
    }
    for (name, target, path) in [("paths", "/x", "/base/x"), ("joined", "/foo", "/infoo"), ("local", "/x", "/x")] {
        for seen in ask(name, target, 2).await? {
            assert_eq!(seen.path, path, "{name}, {}", seen.backend);
        }
    }
    assert_eq!(ask("local", "/", 1).await?[0].header("host"), Some(of(&local).as_str()), "as it is written");
    for odd in [
        "['http://a,0', 'http://b,1']",
        "['http://a,1', 'http://b']",
        "['http://a', 'tcp://b:1']",
        "http://",
        "ftp://a",
        "[]",
    ] {
        is_refused(&office.world, &office.world.route("odd", odd, PUBLIC), "to")?;
    }
    Ok(())
}
