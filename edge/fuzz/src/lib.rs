//! What is done with arbitrary bytes. Each target says what must hold for all of them; a panic is a finding.
//!
//! `make fuzz SECONDS=600` runs each under libFuzzer; `tests/corpus.rs` puts the kept inputs to the same code at every `make test`.
#![expect(clippy::panic, clippy::missing_panics_doc, reason = "to panic is how a finding is told")]

use std::net::{IpAddr, Ipv4Addr};

use postern::config::{Environment, load_text};
use postern_edge::{CanonicalPath, EscapedSlashes, Host, PathConfig};
use postern_identity::Timestamp;
use postern_policy::{Facts, Policy, document, ppl};

/// A target: its name and what it does.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: [Target; 5] =
    [("config", config), ("policy", policy), ("durations", durations), ("hosts", hosts), ("paths", paths)];

/// A whole configuration file: it loads, or every problem has a place and a remedy.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    load(text);
}

fn load(text: &str) {
    let Ok(environment) = Environment::of::<&str, &str>([]) else { return };
    let loaded = load_text(Some("config.yaml"), text, false, &environment);
    assert_eq!(loaded.config.is_none(), loaded.problems.any_fatal(), "refused without a word, or used in spite of one");
    for problem in &loaded.problems {
        assert!(!problem.what.is_empty() && !problem.hint.is_empty(), "{problem:?}");
    }
    // What is printed is made of the file's own bytes, wherever they are cut.
    let _printed = (loaded.problems.to_human(postern::config::Colour::Plain), loaded.problems.to_json());
}

/// A policy: it is read, and then decides whatever it is asked, the same way each time and as its trace tells; or it is refused.
pub fn policy(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(node) = document::read(text) else { return };
    let Ok(rules) = ppl::parse(&node) else { return };
    let policy = Policy::new(Vec::new(), rules);
    for (method, path) in [("GET", "/"), ("OPTIONS", ""), ("POST", "/a/b")] {
        let facts = Facts {
            cors_preflight: method == "OPTIONS",
            ..Facts::anonymous(method, path, IpAddr::V4(Ipv4Addr::LOCALHOST), Timestamp::from_secs(1_800_000_000))
        };
        let decision = policy.decide(&facts);
        assert_eq!(decision, policy.trace(&facts).decision, "the trace tells another story");
        let _told = (policy.unmet(&facts), policy.would_refuse(&facts), policy.advice());
    }
}

/// A duration, as text and as a bare value, where the file has one.
pub fn durations(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    load(&format!("timeout_read: {}\n", serde_json::Value::from(text)));
    if !text.contains('\n') {
        load(&format!("timeout_read: {text}\n"));
    }
}

/// An authority: what is read from it is read the same from what it is written as (S-031 to S-033).
pub fn hosts(bytes: &[u8]) {
    let Ok(host) = Host::parse(bytes) else { return };
    match Host::parse(host.to_string().as_bytes()) {
        Ok(again) => assert_eq!(again, host),
        Err(error) => panic!("{host} is refused: {error}"),
    }
}

/// A path, under each setting: its canonical form is its own canonical form (S-025), and holds nothing that two readers take for
/// two things.
pub fn paths(bytes: &[u8]) {
    for normalize in [true, false] {
        for merge_slashes in [true, false] {
            for escaped_slashes in [
                EscapedSlashes::Reject,
                EscapedSlashes::Keep,
                EscapedSlashes::UnescapeAndRedirect,
                EscapedSlashes::UnescapeAndForward,
            ] {
                let rules = PathConfig { normalize, merge_slashes, escaped_slashes, ..PathConfig::default() };
                let Ok(path) = CanonicalPath::parse(bytes, &rules) else { continue };
                let text = path.text.as_str();
                assert!(text.starts_with('/') && text.bytes().all(|byte| matches!(byte, 0x21..=0x7e)), "{text:?}");
                assert!(!text.contains(['?', '#', '\\']), "{text:?}");
                let dots = text.split('/').any(|segment| matches!(segment, "." | ".."));
                assert!(!dots && (!merge_slashes || !text.contains("//")), "{text:?}");
                match CanonicalPath::parse(text.as_bytes(), &rules) {
                    Ok(again) => assert_eq!(again.text, text, "{rules:?}"),
                    Err(error) => panic!("{text} is refused under {rules:?}: {error}"),
                }
            }
        }
    }
}
