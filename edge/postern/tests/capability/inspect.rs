//! What the commands say that look at a configuration is what the running Postern does with it.

use anyhow::{Context, Result};
use serde_json::Value;

use crate::support::{COOKIE_SECRET, NO_PROVIDER, Postern, SHARED_SECRET, World};

/// Name, host, match; each answers with its name.
const ROUTES: &[(&str, &str, &str)] = &[
    ("any-b", "*", "prefix: /b"),
    ("any", "*", "prefix: /"),
    ("number", "app", "regex: '/n/[0-9]+'"),
    ("one", "app", "path: /one"),
    ("deep", "app", "prefix: /deep/er"),
    ("wide", "app", "prefix: /deep"),
    ("hidden", "app", "prefix: /deep/est"),
];

fn config(world: &World) -> String {
    let route = |(name, host, path): &(&str, &str, &str)| {
        let from = world.url(host, "");
        let public = "allow_public_unauthenticated_access: true";
        format!("  - {{name: {name}, from: '{from}', {path}, response: {{status: 200, body: {name}}}, {public}}}\n")
    };
    world.config(NO_PROVIDER, &ROUTES.iter().map(route).collect::<String>())
}

fn json(world: &World, arguments: &[&str], code: i32) -> Result<Value> {
    let finished = Postern::once(world.folder(), arguments)?;
    anyhow::ensure!(finished.status.code() == Some(code), "{arguments:?}: {}", finished.told());
    serde_json::from_str(&finished.stdout).with_context(|| finished.told())
}

#[tokio::test]
async fn the_first_route_of_the_list_is_the_one_that_answers() -> Result<()> {
    let world = World::new()?;
    let postern = Postern::run(&world, &config(&world)).await?;
    for (host, path, expected) in [
        ("app", "/n/7", "number"),
        ("app", "/n/7/x", ""),
        ("app", "/one", "one"),
        ("app", "/one/", ""),
        ("app", "/deep/er/x", "deep"),
        ("app", "/deep/x/../est", "wide"),
        ("app", "/b", ""),
        ("other", "/b/c", "any-b"),
    ] {
        let asked = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", world.host(host));
        let answer = world.exchange(host, &asked).await?;
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body).trim();
        let found = if answer.starts_with("HTTP/1.1 200") { body } else { "" };
        assert_eq!(found, expected, "{host}{path}: {answer}\n{}", postern.told());
        let told = json(
            &world,
            &["routes", "config.yaml", "--format", "json", "--url", &world.url(host, path)],
            i32::from(expected.is_empty()),
        )?;
        let first = told.pointer("/routes/0/name").and_then(Value::as_str).unwrap_or_default();
        assert_eq!(first, expected, "{host}{path}: {told:#}");
    }
    Ok(())
}

#[test]
fn a_route_that_check_calls_hidden_is_marked_and_no_other() -> Result<()> {
    let world = World::new()?;
    world.write_config(&config(&world))?;
    let checked = json(&world, &["check", "config.yaml", "--format", "json"], 0)?;
    let problems = checked.get("problems").and_then(Value::as_array).context("problems")?;
    let hidden = |problem: &&Value| problem.get("code").and_then(Value::as_str) == Some("PST-0801");
    let by_check: Vec<_> = problems.iter().filter(hidden).filter_map(|problem| problem.get("what")).collect();
    let told = json(&world, &["routes", "config.yaml", "--format", "json"], 0)?;
    let rows = told.get("routes").and_then(Value::as_array).context("routes")?;
    let marked: Vec<_> = rows.iter().filter_map(|row| row.get("hidden")).filter(|why| !why.is_null()).collect();
    assert_eq!(rows.len(), ROUTES.len());
    assert_eq!(marked, by_check);
    assert!(!marked.is_empty(), "{told:#}");
    Ok(())
}

#[test]
fn what_config_show_prints_is_a_file_that_prints_the_same() -> Result<()> {
    let world = World::new()?;
    for (name, secret) in [("shared", SHARED_SECRET), ("cookie", COOKIE_SECRET)] {
        std::fs::write(world.path(name), secret)?;
    }
    let text = config(&world)
        .replace(
            &format!("shared_secret: {SHARED_SECRET}"),
            &format!("shared_secret_file: {}", world.path("shared").display()),
        )
        .replace(
            &format!("cookie_secret: {COOKIE_SECRET}"),
            &format!("cookie_secret_file: {}", world.path("cookie").display()),
        )
        .replace("idp_client_secret: none-needed\n", "")
        .replace(&format!("databroker_storage_connection_string: file://{}", world.path("store").display()), "")
        .replace("databroker_storage_type: file", "");
    world.write_config(&text)?;
    for more in [&[][..], &["--effective"]] {
        let shown = Postern::once(world.folder(), &[&["config", "show", "config.yaml"], more].concat())?;
        assert!(shown.status.success(), "{}", shown.told());
        std::fs::write(world.path("shown.yaml"), &shown.stdout)?;
        let checked = json(&world, &["check", "shown.yaml", "--format", "json"], 0)?;
        assert_eq!(checked.get("ok"), Some(&Value::Bool(true)), "{checked:#}\n{}", shown.stdout);
        let again = Postern::once(world.folder(), &[&["config", "show", "shown.yaml"], more].concat())?;
        assert_eq!(again.stdout, shown.stdout);
        let routes = |file: &str| -> Result<Value> {
            let mut told = json(&world, &["routes", file, "--format", "json"], 0)?;
            for row in told.get_mut("routes").and_then(Value::as_array_mut).context("routes")? {
                let row = row.as_object_mut().context("row")?;
                row.remove("place");
                row.remove("hidden");
            }
            Ok(told.get("routes").context("routes")?.clone())
        };
        assert_eq!(routes("shown.yaml")?, routes("config.yaml")?);
    }
    Ok(())
}

#[test]
fn s_108_no_command_that_looks_at_a_configuration_shows_a_secret() -> Result<()> {
    let world = World::new()?;
    let route = "  - {from: 'https://a.example.com', to: 'http://b.internal', allow_any_authenticated_user: true, \
                 idp_client_secret: sword-fish, set_request_headers: {Authorization: Bearer sword-fish, X-Up: Basic sword-fish}}\n";
    let secrets = "metrics_basic_auth: c3dvcmQ6c3dvcmQtZmlzaA==\n";
    let settings = format!("{}{secrets}", NO_PROVIDER.replace("none-needed", "sword-fish"));
    world.write_config(&world.config(&settings, route))?;
    for arguments in [
        &["routes", "config.yaml"][..],
        &["routes", "config.yaml", "--format", "json"],
        &["config", "show", "config.yaml"],
        &["config", "show", "config.yaml", "--effective", "--origin"],
        &["config", "show", "config.yaml", "--effective", "--format", "json"],
        &["config", "show", "config.yaml", "--effective", "--origin", "--format", "json"],
    ] {
        let finished = Postern::once(world.folder(), arguments)?;
        assert!(finished.status.success(), "{arguments:?}: {}", finished.told());
        for secret in [SHARED_SECRET, COOKIE_SECRET, "sword-fish", "c3dvcmQ6c3dvcmQtZmlzaA=="] {
            assert!(!finished.told().contains(secret), "{arguments:?} shows {secret}: {}", finished.told());
        }
    }
    Ok(())
}

#[test]
fn the_schema_takes_a_file_that_runs_and_marks_what_check_does_not_know() -> Result<()> {
    let world = World::new()?;
    let schema = json(&world, &["schema"], 0)?;
    let validator = jsonschema::draft202012::new(&schema).map_err(|error| anyhow::anyhow!("{error}"))?;
    let text = config(&world);
    for (mistake, code) in
        [("", None), ("    too: http://x\n", Some("PST-0101")), ("    timeout: soon\n", Some("PST-0202"))]
    {
        let route = "  - from: https://last.example.com\n    to: http://last.internal\n    allow_any_authenticated_user: true\n";
        // Printed as JSON it can be read without another reader of YAML; what is wrong is put in by hand.
        world.write_config(&format!("{text}{route}"))?;
        let mut document = json(&world, &["config", "show", "config.yaml", "--format", "json"], 0)?;
        let routes = document.get_mut("routes").and_then(Value::as_array_mut).context("routes")?;
        let last = routes.last_mut().and_then(Value::as_object_mut).context("route")?;
        if let Some((key, value)) = mistake.trim().split_once(": ") {
            last.insert(key.to_owned(), value.into());
        }
        let errors: Vec<_> = validator.iter_errors(&document).map(|error| error.instance_path().to_string()).collect();
        world.write_config(&format!("{text}{route}{mistake}"))?;
        let checked = Postern::once(world.folder(), &["check", "config.yaml", "--format", "json"])?;
        let Some(code) = code else {
            assert!(errors.is_empty() && checked.status.success(), "{errors:?}: {}", checked.told());
            continue;
        };
        assert!(checked.stdout.contains(code), "{}", checked.told());
        let place = format!("/routes/{}", ROUTES.len());
        assert!(errors.iter().any(|error| error.starts_with(&place)), "{errors:?}");
    }
    Ok(())
}

#[test]
fn they_end_as_the_other_commands_do() -> Result<()> {
    let world = World::new()?;
    world.write_config(&config(&world))?;
    std::fs::write(world.path("broken.yaml"), "routes: [{from: nowhere}]\n")?;
    for (arguments, code) in [
        (&["routes", "config.yaml"][..], 0),
        (&["routes", "config.yaml", "--host", "nowhere.example.com"], 1),
        (&["routes", "nowhere.yaml"], 1),
        (&["routes", "broken.yaml"], 1),
        (&["routes"], 2),
        (&["routes", "config.yaml", "--host", "a/b"], 2),
        (&["routes", "config.yaml", "--host", "a", "--url", "https://a"], 2),
        (&["config", "show", "config.yaml"], 0),
        (&["config", "show", "broken.yaml"], 1),
        (&["config", "show"], 2),
        (&["config"], 2),
        (&["schema"], 0),
        (&["schema", "config.yaml"], 2),
        (&["config", "show", "config.yaml", "--format", "toml"], 2),
    ] {
        let ended = Postern::once(world.folder(), arguments)?;
        assert_eq!(ended.status.code(), Some(code), "{arguments:?}: {}", ended.told());
        assert!(!ended.told().trim().is_empty(), "{arguments:?} says nothing");
    }
    let (checked, routes) = (
        Postern::once(world.folder(), &["check", "broken.yaml"])?,
        Postern::once(world.folder(), &["routes", "broken.yaml"])?,
    );
    assert_eq!(checked.stdout.trim(), routes.stderr.trim(), "the problems are told as check tells them");
    Ok(())
}
