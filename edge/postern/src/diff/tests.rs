use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use super::*;
use crate::config::{Colour, Environment, load_text};

const HEAD: &str = "insecure_server: true
authenticate_service_url: https://auth.example.com
idp_provider: oidc
idp_provider_url: https://idp.example.com
idp_client_id: a
routes:
";

fn config(name: &str, text: &str) -> Config {
    let loaded = load_text(Some(name), text, false, &Environment::of::<&str, &str>([]).unwrap());
    loaded.config.unwrap_or_else(|| panic!("{}\n{text}", loaded.problems.to_human(Colour::Plain)))
}

fn compared<T>(old: &str, new: &str, asking: Asking, tell: impl FnOnce(&Comparison<'_>) -> T) -> T {
    let (old, new) = (config("old.yaml", &format!("{HEAD}{old}")), config("new.yaml", &format!("{HEAD}{new}")));
    tell(&Comparison::of((&old, Some("old.yaml")), (&new, Some("new.yaml")), asking).unwrap())
}

fn json(old: &str, new: &str) -> Value {
    compared(old, new, Asking::default(), |compared| compared.to_json())
}

fn route(policy: &str) -> String {
    format!("  - {{from: https://a.example.com, to: http://a.internal, policy: {{{policy}}}}}\n")
}

/// Each change as `gains alice@example.com: GET https://...`.
fn told(json: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let changes = json["access"].as_array().unwrap().iter();
    let told = changes.map(|change| {
        let (direction, words) = (text(&change["direction"]), text(&change["words"]));
        format!("{direction} {words}: {} {}", text(&change["request"]["method"]), text(&change["url"]))
    });
    told.collect()
}

/// Of every kind of criterion that requests bring the facts for: before, after, and what is to be found.
const CRITERIA: &[(&str, &str, &[&str])] = &[
    ("email: a@x.test", "email: b@x.test", &["loses a@x.test: GET", "gains b@x.test: GET"]),
    (
        "email: {in: [a@x.test, b@x.test, c@x.test]}",
        "email: {in: [b@x.test]}",
        &["loses a@x.test: GET", "loses c@x.test: GET"],
    ),
    ("email: {starts_with: bob}", "email: {starts_with: bo}", &["gains bo@elsewhere.test: GET"]),
    (
        "email: {ends_with: '@x.test'}",
        "email: {ends_with: '@y.test'}",
        &["loses someone@x.test", "gains someone@y.test"],
    ),
    ("email: {not: a@x.test}", "authenticated_user: 1", &["gains a@x.test: GET"]),
    ("domain: x.test", "domain: {in: [x.test, y.test]}", &["gains someone@y.test: GET"]),
    ("domain: {ends_with: .x.test}", "domain: {ends_with: x.test}", &["gains someone@x.test: GET"]),
    (
        "groups: ops",
        "groups: {has: dev}",
        &["loses somebody with groups ops: GET", "gains somebody with groups dev: GET"],
    ),
    (
        "groups: {exclude: ops}",
        "groups: {exclude: dev}",
        &["gains somebody with groups ops", "loses somebody with groups dev"],
    ),
    ("claim/level: 3", "claim/level: '3'", &["loses somebody with level 3: GET", "gains somebody with level 3: GET"]),
    ("claim/a: x", "claim/b: x", &["loses somebody with a x: GET", "gains somebody with b x: GET"]),
    ("claim/email: a@x.test", "claim/email: b@x.test", &["loses a@x.test: GET", "gains b@x.test: GET"]),
    ("claim/sub: u-1", "claim/sub: u-2", &["loses user u-1: GET", "gains user u-2: GET"]),
    ("user: u-1", "user: u-2", &["loses user u-1: GET", "gains user u-2: GET"]),
    ("authenticated_user: 1", "accept: 1", &["gains nobody who is signed in: GET"]),
    ("accept: 1", "reject: 1", &["loses nobody who is signed in: GET", "loses somebody who is signed in: GET"]),
    ("http_method: GET", "http_method: {in: [GET, PURGE]}", &["gains nobody who is signed in: PURGE"]),
    ("http_method: {not: DELETE}", "accept: 1", &["gains nobody who is signed in: DELETE"]),
    ("http_path: /x", "http_path: {starts_with: /x}", &["gains nobody who is signed in: GET https://a.example.com/xx"]),
    (
        "http_path: {contains: img}",
        "http_path: {ends_with: .png}",
        &[
            "loses nobody who is signed in: GET https://a.example.com/img",
            "gains nobody who is signed in: GET https://a.example.com/.png",
        ],
    ),
    ("source_ip: 10.0.0.0/8", "source_ip: 10.0.0.0/16", &["loses nobody who is signed in, from 10.255.255.255: GET"]),
    ("source_ip: 10.0.0.0/16", "source_ip: 10.0.0.0/15", &["gains nobody who is signed in, from 10.1.0.0: GET"]),
    ("cors_preflight: 1", "reject: 1", &["loses nobody who is signed in: OPTIONS"]),
    (
        "date: {after: '2026-01-01T00:00:00Z'}",
        "date: {after: '2026-01-02T00:00:00Z'}",
        &["loses nobody who is signed in, at 2026-01-01T00:00:00Z: GET"],
    ),
    ("day_of_week: mon-fri", "day_of_week: mon-sat", &["gains nobody who is signed in, at 2027-01-16T08:00:00Z: GET"]),
    (
        "time_of_day: {timezone: UTC, before: '17:00'}",
        "time_of_day: {timezone: UTC, before: '18:00'}",
        &["gains nobody who is signed in, at 2027-01-15T17:00:00Z: GET"],
    ),
    (
        "time_of_day: {timezone: UTC, before: '17:00'}",
        "time_of_day: {timezone: Asia/Tokyo, before: '17:00'}",
        &["loses nobody"],
    ),
    (
        "device: {type: any, approved: true}",
        "device: {type: any}",
        &["gains somebody who is signed in, device another, not approved: GET"],
    ),
    (
        "device: {type: any, is: d1}",
        "device: {type: any, is: d2}",
        &[
            "loses somebody who is signed in, device d1, approved",
            "gains somebody who is signed in, device d2, approved",
        ],
    ),
];

const NOW: &str = "2027-01-15T08:00:00Z";

fn at_now() -> Asking {
    Asking { now: postern_identity::Timestamp::parse(NOW), ..Asking::default() }
}

#[test]
fn a_change_of_every_kind_of_criterion_is_found_in_allow_and_in_deny_rules() {
    for (old, new, expected) in CRITERIA {
        for (alone, more) in
            [("", ""), ("and: [", ", {groups: staff}]"), ("and: [", ", {http_path: {starts_with: /}}]")]
        {
            let rule = |criterion: &str| match alone {
                "" => format!("allow: {{and: [{criterion}]}}"),
                _ => format!("allow: {{{alone}{{{criterion}}}{more}}}"),
            };
            let found = compared(&route(&rule(old)), &route(&rule(new)), at_now(), |compared| compared.to_json());
            let found = told(&found);
            // Whoever has a group is signed in.
            assert!(
                !found.is_empty() || more.contains("staff") && *old == "authenticated_user: 1",
                "{old} -> {new} with {more}"
            );
            for expected in expected.iter().filter(|_| alone.is_empty()) {
                assert!(
                    found.iter().any(|told| told.starts_with(expected)),
                    "{old} -> {new}: no {expected} in {found:#?}"
                );
            }
        }
        // Where a device would have to keep somebody out, the configuration is refused.
        if old.starts_with("device") {
            continue;
        }
        let deny = |criterion: &str| {
            format!("allow: {{or: [authenticated_user: 1, accept: 1]}}, deny: {{and: [{criterion}]}}")
        };
        let found = compared(&route(&deny(old)), &route(&deny(new)), at_now(), |compared| compared.to_json());
        for expected in *expected {
            let (way, rest) = expected.split_once(' ').unwrap();
            let other = if way == "gains" { "loses" } else { "gains" };
            // Whoever met the deny rule was kept out by it.
            let expected = format!("{other} {rest}");
            // Nobody is asked to sign in rather than refused by a rule that looks at who it is.
            if *old == "authenticated_user: 1" {
                continue;
            }
            assert!(
                told(&found).iter().any(|told| told.starts_with(&expected)),
                "deny {old} -> {new}: no {expected}: {found:#}"
            );
        }
    }
}

#[test]
fn an_address_that_is_not_verified_is_asked_for_of_every_kind() {
    let old = route("allow: {and: [authenticated_user: 1]}, deny: {or: [{domain: x.test}, {email: a@a.test}]}");
    let new = route("allow: {and: [domain: x.test]}");
    let found = json(&old, &new);
    let changes = found["access"].as_array().unwrap();
    let of = |change: &Value| {
        let said = |side: &str| change[side]["reason"].as_str().unwrap_or_default().to_owned();
        (said("before"), said("after"), change["words"].as_str().unwrap_or_default().to_owned())
    };
    let told: Vec<_> = changes.iter().map(of).collect();
    // `allow` does not believe an address that is not verified, and `deny` does.
    let expected = told
        .iter()
        .find(|(before, after, words)| before == "denied" && after != "via-upstream" && words.contains("x.test"));
    assert!(expected.is_some(), "{told:#?}");
}

#[test]
fn what_is_said_otherwise_and_means_the_same_is_no_change() {
    for (old, new) in [
        ("allow: {and: [email: a@x.test]}", "allow: {or: [email: {is: a@x.test}]}"),
        ("allow: {and: [email: {in: [a@x.test, b@x.test]}]}", "allow: {or: [email: a@x.test, email: b@x.test]}"),
        ("allow: {and: [http_method: {in: [GET, HEAD]}]}", "allow: {or: [http_method: GET, http_method: HEAD]}"),
    ] {
        let found = json(&route(old), &route(new));
        assert_eq!((told(&found), &found["changes"]), (vec![], &Value::Bool(false)), "{old} -> {new}");
        assert_eq!(found["routes"]["changed"][0]["what"], serde_json::json!(["policy"]), "{old} -> {new}");
    }
    let same = json(&route("allow: {and: [email: a@x.test]}"), &route("allow: {and: [email: a@x.test]}"));
    assert_eq!(same["routes"], serde_json::json!({"added": [], "removed": [], "changed": []}));
}

#[test]
fn routes_that_are_added_removed_and_changed_are_named() {
    let open = "allow_public_unauthenticated_access: true";
    let old = format!(
        "  - {{from: https://a.example.com, to: http://a.internal, {open}}}\n  - {{from: https://b.example.com, to: http://b.internal, {open}}}\n  - {{from: https://c.example.com, prefix: /c, to: http://c.internal, {open}}}\n  - {{from: https://d.example.com, to: http://d.internal, {open}}}\n"
    );
    let new = format!(
        "  - {{from: https://a.example.com, to: http://other.internal, {open}}}\n  - {{from: https://c.example.com, prefix: /cc, to: http://c.internal, {open}}}\n  - {{from: https://d.example.com, to: http://d.internal, timeout: 5s, {open}}}\n  - {{from: https://e.example.com, to: http://e.internal, {open}}}\n"
    );
    let found = json(&old, &new);
    let named = |way: &str| {
        found["routes"][way].as_array().unwrap().iter().map(|route| route["for"].clone()).collect::<Vec<_>>()
    };
    assert_eq!((named("added"), named("removed")), (vec!["e.example.com/*".into()], vec!["b.example.com/*".into()]));
    let changed: Vec<_> = found["routes"]["changed"]
        .as_array()
        .unwrap()
        .iter()
        .map(|change| (change["after"]["for"].as_str().unwrap(), change["what"].to_string()))
        .collect();
    assert_eq!(
        changed,
        [
            ("a.example.com/*", r#"["target"]"#.to_owned()),
            ("c.example.com/cc*", r#"["matcher","name"]"#.to_owned()),
            ("d.example.com/*", r#"["settings"]"#.to_owned())
        ]
    );
    let told = told(&found);
    let expected = [
        "moves nobody who is signed in: GET https://a.example.com/",
        "loses nobody who is signed in: GET https://b.example.com/",
        "loses nobody who is signed in: GET https://c.example.com/c",
        "gains nobody who is signed in: GET https://e.example.com/",
    ];
    for expected in expected {
        assert!(told.contains(&expected.to_owned()), "no {expected}: {told:#?}");
    }
    assert!(!told.iter().any(|told| told.contains("d.example.com") || told.ends_with("/cc")), "{told:#?}");
}

#[test]
fn matchers_of_every_kind_are_hit() {
    let open = "allow_public_unauthenticated_access: true";
    let of = |path: &str| format!("  - {{from: 'https://*.example.com', {path}, to: http://a.internal, {open}}}\n");
    let cases = [
        ("path: /a", "prefix: /a", "gains nobody who is signed in: GET https://any.example.com/ax"),
        ("prefix: /a/", "prefix: /b/", "gains nobody who is signed in: GET https://any.example.com/b/"),
        (
            "regex: '/v[0-9]/.*'",
            "regex: '/v[0-9]{2}/.*'",
            "loses nobody who is signed in: GET https://any.example.com/v0/",
        ),
        ("regex: '/(x|y)'", "regex: '/x'", "loses nobody who is signed in: GET https://any.example.com/y"),
    ];
    for (old, new, expected) in cases {
        let found = told(&json(&of(old), &of(new)));
        assert!(found.contains(&expected.to_owned()), "{old} -> {new}: {found:#?}");
    }
}

#[test]
fn an_order_that_hides_a_route_moves_whoever_asked_it() {
    let open = "allow_public_unauthenticated_access: true";
    let wide = format!("  - {{from: https://a.example.com, to: http://wide.internal, {open}}}\n");
    let narrow = format!("  - {{from: https://a.example.com, prefix: /n, to: http://narrow.internal, {open}}}\n");
    let found = json(&format!("{narrow}{wide}"), &format!("{wide}{narrow}"));
    assert_eq!(
        told(&found).first().map(String::as_str),
        Some("moves somebody who is signed in: GET https://a.example.com/n")
    );
    assert_eq!(found["compared"]["routes_not_met"]["after"][0]["for"], "a.example.com/n*");
}

#[test]
fn another_provider_is_told_of_who_has_to_sign_in() {
    let of = |client: &str| {
        format!(
            "  - {{from: https://a.example.com, to: http://a.internal, idp_client_id: {client}, idp_client_secret: b, policy: {{allow: {{and: [domain: x.test]}}}}}}\n"
        )
    };
    let found = json(&of("b"), &of("c"));
    assert_eq!(found["routes"]["changed"][0]["what"], serde_json::json!(["identity provider"]));
    assert_eq!(told(&found), ["moves nobody who is signed in: GET https://a.example.com/"]);
}

#[test]
fn people_and_addresses_that_are_named_are_the_only_ones() {
    let alice = Described { name: Some("Alice".to_owned()), source: "10.0.0.1".parse().ok(), ..Described::default() };
    let person = crate::probe::Person { email: Some("alice@x.test".to_owned()), ..Default::default() };
    let people = vec![Described { person, ..alice }, Described::default()];
    let policy = |net: &str| {
        route(&format!(
            "allow: {{and: [{{domain: x.test}}, {{source_ip: {net}}}, {{http_method: {{in: [GET, POST]}}}}]}}"
        ))
    };
    let found = |urls: &[&str], new: &str| {
        let urls = urls.iter().map(|url| Address::parse(url).unwrap()).collect();
        let asking = Asking { people: people.clone(), urls, ..Asking::default() };
        told(&compared(&policy("10.0.0.0/8"), &policy(new), asking, |compared| compared.to_json()))
    };
    let lost = |path: &str| {
        ["GET", "POST"].map(|method| format!("loses Alice, from 10.0.0.1: {method} https://a.example.com/{path}"))
    };
    assert_eq!(found(&["https://a.example.com/one", "https://nowhere.test/"], "192.0.2.0/24"), lost("one"));
    assert_eq!(found(&[], "192.0.2.0/24"), lost(""));
    assert_eq!(found(&[], "10.0.0.0/16"), Vec::<String>::new(), "she comes from nowhere else");
}

#[test]
fn what_is_left_out_is_said_and_is_not_taken_for_no_change() {
    let many = |last: &str| {
        let claims: Vec<_> = (0..20).map(|number| format!("{{claim/c{number}: x}}")).collect();
        route(&format!("allow: {{or: [{}, {last}]}}", claims.join(", ")))
    };
    let found = json(&many("{email: a@x.test}"), &many("{email: b@x.test}"));
    assert!(!found["compared"]["left_out"].as_array().unwrap().is_empty(), "{found:#}");
    assert!(told(&found).contains(&"loses a@x.test: GET https://a.example.com/".to_owned()), "{:#?}", told(&found));
    let doubt =
        compared(&many("{accept: 1}"), &many("{accept: 1}, {email: b@x.test}"), Asking::default(), |compared| {
            (compared.changes_access(), compared.doubt())
        });
    assert!(matches!(&doubt, (false, Some(why)) if why.contains("--subjects")), "{doubt:?}");
}

#[test]
fn all_of_many_criteria_are_met_where_not_every_combination_is_tried() {
    let all = |more: &str| {
        let claims: Vec<_> = (0..20).map(|number| format!("{{claim/c{number}: x}}")).collect();
        route(&format!("allow: {{and: [{}{more}]}}, deny: {{or: [claim/c3: bad]}}", claims.join(", ")))
    };
    let found = told(&json(&all(", {groups: ops}"), &all("")));
    assert!(found.iter().any(|told| told.starts_with("gains somebody with c0 x, c1 x")), "{found:#?}");
}

#[test]
fn the_guide_shows_what_is_printed() {
    let page = fs::read_to_string("../../docs/guides/diff.md").unwrap();
    let blocks: Vec<_> = page.split("\n```yaml\n").skip(1).filter_map(|rest| rest.split("```\n").next()).collect();
    let [old, new, people] = blocks.as_slice() else { panic!("{}", blocks.len()) };
    let (old, new) = (config("old.yaml", old), config("new.yaml", new));
    let folder = tempfile::tempdir().unwrap();
    let subjects: PathBuf = folder.path().join("people.yaml");
    fs::write(&subjects, people).unwrap();
    let printed = |asking: Asking| {
        let compared = Comparison::of((&old, Some("old.yaml")), (&new, Some("new.yaml")), asking).unwrap();
        compared.to_human(Colour::Plain)
    };
    let output = |line: &str| {
        let (_, rest) = page.split_once(&format!("```console\n$ {line}\n")).unwrap_or_else(|| panic!("{line}"));
        rest.split_once("```\n").unwrap().0.to_owned()
    };
    let printed_whole = printed(Asking::default());
    assert_eq!(output("postern diff old.yaml new.yaml"), printed_whole, "{printed_whole}");
    let of_people = printed(Asking { people: Described::read(&subjects).unwrap(), ..Asking::default() });
    assert_eq!(output("postern diff old.yaml new.yaml --subjects people.yaml"), of_people, "{of_people}");
}

#[test]
fn a_file_of_people_that_cannot_be_read_is_told_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("people.yaml");
    let wrong = |text: &str| {
        fs::write(&file, text).unwrap();
        let told = Described::read(&file).unwrap_err();
        told.replace(&folder.path().display().to_string(), "")
    };
    assert_eq!(
        wrong("- {mail: a@x.test}"),
        "/people.yaml:1:4: `[0].mail`: there is no such key; did you mean `email`?"
    );
    assert_eq!(
        wrong("- email: a@x.test\n- groups: [[ops]]"),
        "/people.yaml:2:12: `[1].groups[0]`: this must be text, and is a list; put it in quotes"
    );
    assert_eq!(
        wrong("- source_ip: here"),
        "/people.yaml:1:14: `[0].source_ip`: this is no address; write one such as `10.0.0.1`"
    );
    assert!(wrong("email: a@x.test").contains("this must be a list, and is a map"));
    assert!(wrong("[]").contains("lists nobody"));
    assert!(
        wrong("- {devices: [{state: lost, id: a}]}").contains("`[0].devices[0].state`: `lost` is no state of a device")
    );
    assert!(wrong("- [").contains("people.yaml:1:"));
    fs::write(&file, r#"[{"name": "A", "user": 7, "claims": {"level": 3}, "devices": ["d1", {"id": "d2", "type": "enclave_only", "state": "none"}]}]"#).unwrap();
    let [a] = <[_; 1]>::try_from(Described::read(&file).unwrap()).unwrap();
    assert_eq!((a.person.user.as_deref(), a.person.claims["level"].as_i64(), a.devices.len()), (Some("7"), Some(3), 2));
    assert_eq!(
        (a.devices[0].enrolment, a.devices[1].kind.as_str()),
        (postern_policy::Enrolment::Approved, "enclave_only")
    );
}
