//! Which paths a route takes, and which of several takes one (01 §2.3, §2.4).

use anyhow::Result;

use super::{Office, with};
use crate::support::{PUBLIC, World};

/// Public routes of these names, in this order, each with one more line and a word that it says upstream.
fn listed(world: &World, to: &str, routes: &[(&str, &str, &str)]) -> String {
    let one = |(name, mark, line): &(&str, &str, &str)| {
        let marked = format!("set_request_headers: {{X-Route: {mark}}}");
        world.route(name, to, &[PUBLIC, &[marked.as_str(), *line]].concat())
    };
    routes.iter().map(one).collect()
}

/// Holds that these requests are carried by the routes that say these words; by none where there is no word.
async fn leads(office: &Office, requests: &[(&str, &str, &str)]) -> Result<()> {
    for (name, target, mark) in requests {
        let answer = office.get(name, target, "").await?;
        if mark.is_empty() {
            assert_eq!(answer.status, 404, "{name}{target}: {}", answer.head);
        } else {
            assert_eq!(answer.asked()?.header("x-route"), Some(*mark), "{name}{target}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn row_prefix_is_how_paths_begin_and_the_first_route_of_the_file_wins() -> Result<()> {
    let office = with("", |world, to| {
        let routes = [
            ("app", "admin", "prefix: /admin"),
            ("app", "slash", "prefix: /docs/"),
            ("app", "rest", "prefix: /"),
            ("app", "late", "prefix: /late"),
            ("part", "part", "prefix: /part"),
            ("all", "all", "description: of every path"),
        ];
        listed(world, to, &routes)
    })
    .await?;
    let requests = [
        ("app", "/admin", "admin"),
        ("app", "/admin/x", "admin"),
        ("app", "/administrator?x", "admin"),
        ("app", "/Admin", "rest"),
        ("app", "/x/../admin", "admin"),
        ("app", "/docs", "rest"),
        ("app", "/docs/x", "slash"),
        ("app", "/late", "rest"),
        ("part", "/part/x", "part"),
        ("part", "/?/part", ""),
        ("part", "/par", ""),
        ("all", "/any/thing", "all"),
    ];
    leads(&office, &requests).await
}

#[tokio::test]
async fn row_path_is_a_whole_path() -> Result<()> {
    let office = with("", |world, to| listed(world, to, &[("app", "exact", "path: /exact")])).await?;
    let requests = [
        ("app", "/exact", "exact"),
        ("app", "/exact?x=/y", "exact"),
        ("app", "/x/../exact", "exact"),
        ("app", "/exact/", ""),
        ("app", "/exactly", ""),
        ("app", "/Exact", ""),
    ];
    leads(&office, &requests).await
}

#[tokio::test]
async fn row_regex_fits_a_whole_path_and_goes_before_path_and_prefix() -> Result<()> {
    let office = with("", |world, to| {
        let routes = [
            ("app", "digits", "regex: '/n[0-9]+|/m'"),
            ("app", "begun", "regex: '^/b.*'"),
            ("three", "three", "regex: '/r'\n    path: /p\n    prefix: /q"),
            ("two", "two", "path: /p\n    prefix: /q"),
        ];
        listed(world, to, &routes)
    })
    .await?;
    let requests = [
        ("app", "/n12", "digits"),
        ("app", "/m", "digits"),
        ("app", "/n12?x", "digits"),
        ("app", "/n12/x", ""),
        ("app", "/mm", ""),
        ("app", "/x/n12", ""),
        ("app", "/begins/so", "begun"),
        ("three", "/r", "three"),
        ("three", "/p", ""),
        ("three", "/q", ""),
        ("two", "/p", "two"),
        ("two", "/q", ""),
    ];
    leads(&office, &requests).await?;
    office.is_refused(&["regex: '/n[0-9'"], "regex")
}

#[tokio::test]
async fn row_regex_priority_order_has_no_effect_on_routes_of_a_file() -> Result<()> {
    let office = with("", |world, to| {
        let routes = [
            ("app", "first", "regex: '/a.*'\n    regex_priority_order: 1"),
            ("app", "second", "regex: '/a.b'\n    regex_priority_order: 9"),
        ];
        listed(world, to, &routes)
    })
    .await?;
    leads(&office, &[("app", "/a/b", "first")]).await?;
    office.postern.says("regex_priority_order").await
}
