//! A broken file is understood before it is refused, in the same words by `check` and by `run`.
//!
//! `tests/problems/*.yaml` are the files; what is said of each is a snapshot of the `config` module.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::support::Postern;

/// Where the files are, and what they name is found.
const HERE: &str = env!("CARGO_MANIFEST_DIR");

fn files() -> Result<Vec<String>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(Path::new(HERE).join("tests/problems"))? {
        let name = entry?.file_name().into_string().ok().context("name")?;
        if name.ends_with(".yaml") && name != "valid.yaml" {
            files.push(format!("tests/problems/{name}"));
        }
    }
    anyhow::ensure!(files.len() >= 10, "{files:?}");
    Ok(files)
}

fn postern(arguments: &[&str]) -> Result<crate::support::Finished> {
    Postern::once(Path::new(HERE), arguments)
}

#[test]
fn run_refuses_the_same_files_with_the_same_words() -> Result<()> {
    for name in files()? {
        let checked = postern(&["check", &name])?;
        let run = postern(&["run", "--config", &name])?;
        assert_eq!(checked.status.code(), Some(1), "{name}: {checked:?}");
        assert_eq!(run.status.code(), Some(1), "{name}: {run:?}");
        assert!(
            run.told().contains(checked.told().trim()),
            "{name}:\n{}\n--- but run says\n{}",
            checked.told(),
            run.told()
        );
    }
    Ok(())
}

#[test]
fn every_problem_has_a_code_a_place_and_words_for_programs_too() -> Result<()> {
    for name in files()? {
        let checked = postern(&["check", "--format", "json", &name])?;
        let told: Value = serde_json::from_str(&checked.stdout).with_context(|| format!("{name}: {checked:?}"))?;
        assert_eq!(told.get("ok"), Some(&Value::Bool(false)), "{name}: {told}");
        let problems = told.get("problems").and_then(Value::as_array).context("problems")?;
        assert!(!problems.is_empty(), "{name}");
        for problem in problems {
            for member in ["code", "what", "severity"] {
                assert!(
                    problem.get(member).and_then(Value::as_str).is_some_and(|text| !text.is_empty()),
                    "{name}: {member}: {problem}"
                );
            }
        }
    }
    Ok(())
}

#[test]
fn what_cannot_be_read_or_understood_has_an_exit_code_of_its_own() -> Result<()> {
    for (arguments, code) in [
        (&["check", "nowhere.yaml"][..], 1),
        (&["run", "--config", "nowhere.yaml"], 1),
        (&["check"], 2),
        (&["chek", "x.yaml"], 2),
        (&["run", "--bogus"], 2),
        (&["health", "--address", "127.0.0.1:9"], 3),
        (&["version"], 0),
        (&["help", "pst-0204"], 0),
        (&["help", "PST-0240"], 2),
        (&["help", "check"], 0),
        (&["--help"], 0),
    ] {
        let ended = postern(arguments)?;
        assert_eq!(ended.status.code(), Some(code), "{arguments:?}: {ended:?}");
        assert!(!ended.told().trim().is_empty(), "{arguments:?} says nothing");
    }
    Ok(())
}
