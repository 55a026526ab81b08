use std::ffi::OsString;
use std::fs;

use serde_json::Value;

use super::*;
use crate::cli::{Command, Invocation};
use crate::config::{Colour, Environment, load_text};

const PAGE: &str = "../../docs/guides/explain.md";

/// The configuration of the guide.
fn config() -> Config {
    let page = fs::read_to_string(PAGE).unwrap();
    let (_, text) = page.split_once("\n```yaml\n").unwrap();
    let (text, _) = text.split_once("```\n").unwrap();
    let loaded = load_text(Some("config.yaml"), text, false, &Environment::of::<&str, &str>([]).unwrap());
    loaded.config.unwrap_or_else(|| panic!("{}", loaded.problems.to_human(Colour::Plain)))
}

/// Words as a shell would split them, of a line that has no other quotes than `'`.
fn words(line: &str) -> impl Iterator<Item = OsString> {
    let pieces = line.split('\'').enumerate().flat_map(|(at, piece)| {
        let whole: Vec<&str> = if at % 2 == 1 { vec![piece] } else { piece.split_whitespace().collect() };
        whole.into_iter().map(OsString::from).collect::<Vec<_>>()
    });
    pieces.collect::<Vec<_>>().into_iter()
}

fn told<T>(config: &Config, line: &str, tell: impl FnOnce(&Explanation<'_>) -> T) -> T {
    let Command::Explain(asked) = Invocation::parse(words(line)).unwrap().command else { panic!("{line}") };
    let probe = Probe::new(config).unwrap();
    let question = question(&asked).unwrap_or_else(|error| panic!("{error:?}"));
    tell(&Explanation::of(&probe, config, Some("config.yaml"), question).unwrap())
}

fn json(line: &str) -> Value {
    told(&config(), &format!("postern explain {line}"), |told| told.to_json())
}

#[test]
fn the_guide_shows_what_is_printed() {
    let (page, config) = (fs::read_to_string(PAGE).unwrap(), config());
    let blocks: Vec<_> = page.split("```console\n$ ").skip(1).filter_map(|rest| rest.split("```\n").next()).collect();
    assert!(blocks.len() >= 3);
    for block in blocks.iter().filter(|block| block.starts_with("postern explain ")) {
        let (line, output) = block.split_once('\n').unwrap();
        let human = told(&config, line, |explanation| explanation.to_human(Colour::Plain));
        assert_eq!(output, human, "{line}\n{human}");
    }
}

#[test]
fn every_form_of_an_explanation_is_kept() {
    let config = config();
    let lines = [
        ("denied", "--url https://app.example.com/admin --email alice@example.com --group ops"),
        (
            "carried",
            "--url https://app.example.com/admin?x=1 --email alice@example.com --group admins --header 'Accept: text/html' --header 'Proxy-Authorization: Basic x'",
        ),
        ("redirected", "--url https://old.example.com/x"),
        ("not-found", "--url https://nothing.example.org/"),
        ("unreadable", "--url https://app.example.com/a%2fb"),
        ("own", "--url https://app.example.com/.pomerium/ --user u-1"),
        ("authn", "--url https://auth.example.com/.pomerium/sign_in"),
    ];
    for (name, line) in lines {
        let line = format!("postern explain --time 2027-01-15T08:00:00Z {line}");
        insta::assert_snapshot!(name, told(&config, &line, |explanation| explanation.to_human(Colour::Plain)));
    }
    let line = "postern explain --time 2027-01-15T08:00:00Z --url https://app.example.com/admin --email alice@example.com --group admins";
    insta::assert_snapshot!("json", format!("{:#}", told(&config, line, |told| told.to_json())));
}

#[test]
fn colours_are_for_terminals_and_take_no_room() {
    let line = "postern explain --time 2027-01-15T08:00:00Z --url https://app.example.com/ --email a@example.com";
    let (plain, tinted) = told(&config(), line, |told| (told.to_human(Colour::Plain), told.to_human(Colour::Terminal)));
    assert!(!plain.contains('\u{1b}') && tinted.contains("\u{1b}["));
    let bare = ["0", "1", "31", "32"].iter().fold(tinted, |text, code| text.replace(&format!("\u{1b}[{code}m"), ""));
    assert_eq!(bare, plain);
}

#[test]
fn s_108_nothing_that_opens_something_is_shown() {
    let config = config();
    for line in [
        "--url https://app.example.com/admin --email alice@example.com --group admins",
        "--url https://app.example.com/",
        "--url https://auth.example.com/.pomerium/sign_in",
    ] {
        let line = format!("postern explain {line}");
        let all = told(&config, &line, |told| format!("{}{}", told.to_json(), told.to_human(Colour::Plain)));
        for secret in ["c2VjcmV0", "eyJ", "pomerium_signature", "__Host-", "sesame"] {
            assert!(!all.contains(secret), "{secret}: {all}");
        }
    }
}

#[test]
fn the_method_the_source_and_the_time_are_what_was_asked() {
    let admins = "--email a@example.com --group admins";
    let outcome = |line: &str| json(&format!("{line} {admins}"))["outcome"].as_str().map(str::to_owned);
    let url = "--url https://app.example.com/admin";
    assert_eq!(outcome(url).as_deref(), Some("allowed"));
    assert_eq!(outcome(&format!("{url} --source-ip 10.1.2.3")).as_deref(), Some("refused"));
    assert_eq!(outcome(&format!("{url} --method TRACE")).as_deref(), Some("refused"));
    assert_eq!(json(&format!("{url} --time 2027-01-15T09:00:00+01:00"))["request"]["time"], "2027-01-15T08:00:00Z");
}

#[test]
fn what_cannot_be_asked_is_usage() {
    for line in [
        "--url ftp://a/",
        "--url https://app.example.com/ --method 'A B'",
        "--url https://app.example.com/ --header nothing",
        "--url https://app.example.com/ --claim nothing",
        "--url https://app.example.com/ --time yesterday",
    ] {
        let Command::Explain(asked) = Invocation::parse(words(&format!("postern explain {line}"))).unwrap().command
        else {
            panic!("{line}")
        };
        assert!(matches!(question(&asked), Err(ask::Failed::Usage(_))), "{line}");
    }
}
