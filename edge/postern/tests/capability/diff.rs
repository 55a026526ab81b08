//! Whose access a change changes is known before it is in force, and a script can tell.

use std::fs;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::support::{NO_PROVIDER, Postern, World};

#[test]
fn a_change_is_told_before_it_is_in_force_and_the_exit_code_says_so() -> Result<()> {
    let world = World::new()?;
    let provider = "idp_provider: oidc\nidp_provider_url: https://idp.example.com\nidp_client_id: postern\n";
    let config = |allowed: &str| {
        let policy = format!(
            "policy: [{{ allow: {{ and: [{{ domain: example.com }}, {{ groups: {{ has: {allowed} }} }}] }} }}]"
        );
        world.config(provider, &world.route("app", "http://127.0.0.1:9", &[&policy]))
    };
    let file = |name: &str, text: &str| -> Result<String> {
        let path = world.path(name);
        fs::write(&path, text)?;
        Ok(path.display().to_string())
    };
    let (old, new) = (file("old.yaml", &config("ops"))?, file("new.yaml", &config("staff"))?);
    let people = file(
        "people.json",
        r#"[{"name": "Alice", "email": "alice@example.com", "groups": ["ops"]}, {"email": "bob@example.com", "groups": ["ops", "staff"]}]"#,
    )?;
    let run = |arguments: &[&str]| Postern::once(world.folder(), &[&["diff"], arguments].concat());

    let made_up = run(&[&old, &new])?;
    assert_eq!(made_up.status.code(), Some(1), "{}", made_up.told());
    for part in ["~ changed", "gains", "loses", "someone@example.com, groups staff", "someone@example.com, groups ops"]
    {
        assert!(made_up.stdout.contains(part), "no {part}: {}", made_up.told());
    }

    let named = run(&[&old, &new, "--subjects", &people, "--format", "json"])?;
    assert_eq!(named.status.code(), Some(1), "{}", named.told());
    let told: Value = serde_json::from_str(&named.stdout).with_context(|| named.told())?;
    let changes = told.pointer("/access").and_then(Value::as_array).context("changes")?;
    let words: Vec<_> = changes.iter().map(|change| (&change["direction"], &change["words"])).collect();
    assert_eq!(words, [(&Value::from("loses"), &Value::from("Alice"))], "{told:#}");
    assert_eq!(told.pointer("/access/0/after/reason"), Some(&Value::from("groups-unauthorized")), "{told:#}");

    let both = run(&[&old, &new, "--email", "bob@example.com", "--group", "ops", "--group", "staff"])?;
    assert_eq!(both.status.code(), Some(0), "bob is in both groups: {}", both.told());
    let same = run(&[&old, &old])?;
    assert_eq!(same.status.code(), Some(0), "{}", same.told());

    let broken = file("broken.yaml", &world.config(NO_PROVIDER, "  - from: nonsense\n"))?;
    for (arguments, why) in [
        (vec![old.as_str(), broken.as_str()], "PST-"),
        (vec![old.as_str(), "nowhere.yaml"], "nowhere.yaml"),
        (vec![old.as_str(), new.as_str(), "--subjects", "nobody.yaml"], "nobody.yaml"),
        (vec![old.as_str()], "NEW"),
    ] {
        let trouble = run(&arguments)?;
        assert_eq!(trouble.status.code(), Some(2), "{arguments:?}: {}", trouble.told());
        assert!(trouble.stderr.contains(why), "{arguments:?}: {}", trouble.told());
    }
    Ok(())
}
