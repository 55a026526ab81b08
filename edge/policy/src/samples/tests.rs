use std::collections::HashSet;
use std::net::IpAddr;

use postern_identity::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::testing::{NOW, World, policy};
use crate::{Device, Facts};

fn turning(text: &str) -> (Policy, Samples) {
    let policy = policy(text);
    let samples = Samples::of([&policy]);
    (policy, samples)
}

/// What each criterion of an `and` rule comes to, over all of these facts.
fn outcomes<T>(policy: &Policy, values: &[Sample<T>], holds: impl Fn(&Policy, &T) -> Signature) -> HashSet<Vec<bool>> {
    let all = values.iter().flat_map(|sample| holds(policy, &sample.value).0);
    all.map(|rule| rule.results.iter().map(|result| result.value).collect()).collect()
}

fn with_email(policy: &Policy, email: impl AsRef<str>) -> Signature {
    policy.signature(&World::signed_in().email(email.as_ref()).facts())
}

fn has(found: &HashSet<Vec<bool>>, wanted: &[&[bool]], what: &str) {
    for wanted in wanted {
        assert!(found.contains(*wanted), "{what}: none is {wanted:?}, only {found:?}");
    }
}

#[test]
fn addresses_meet_and_miss_every_matcher_alone_and_together() {
    for data in [
        "email: a@x.test",
        "email: {not: a@x.test}",
        "email: {starts_with: bo}",
        "email: {ends_with: '@x.test'}",
        "email: {contains: dmi}",
        "email: {in: [a@x.test, b@x.test]}",
        "email: {not_in: [a@x.test]}",
        "email: {starts_with: a, contains: dm, ends_with: '@x.test'}",
        "domain: x.test",
        "domain: {not: x.test}",
        "domain: {starts_with: x.}",
        "domain: {ends_with: .test}",
        "domain: {contains: mid}",
        "domain: {in: [x.test, y.test]}",
    ] {
        let (policy, samples) = turning(&format!("allow: {{and: [{data}]}}"));
        has(
            &outcomes(&policy, &samples.emails(), |policy, email| with_email(policy, email)),
            &[&[true], &[false]],
            data,
        );
    }
    let (policy, samples) =
        turning("allow: {and: [email: {starts_with: bob}, domain: x.test, email: {contains: '.ops'}]}");
    let found = outcomes(&policy, &samples.emails(), |policy, email| with_email(policy, email));
    has(
        &found,
        &[&[true, true, true], &[true, true, false], &[false, true, true], &[true, false, true], &[false; 3]],
        "three",
    );
}

#[test]
fn what_is_named_is_told_from_what_is_made_up() {
    let (_, samples) =
        turning("allow: {or: [email: a@x.test, domain: y.test, email: {starts_with: bob, ends_with: '@z.test'}]}");
    let named: Vec<_> = samples.emails().into_iter().filter(|sample| sample.named).map(|sample| sample.value).collect();
    assert_eq!(named, ["a@x.test", "bob@elsewhere.test", "someone@y.test", "someone@z.test"]);
    assert!(samples.emails().contains(&Sample::made_up("bob@z.test".to_owned())));
}

#[test]
fn claims_meet_and_miss_every_matcher() {
    let signature = |policy: &Policy, values: &Vec<Value>| {
        policy.signature(&World::signed_in().session_claims(&json!({"groups": values, "c": values})).facts())
    };
    for data in
        ["groups: {has: ops}", "groups: {is: ops}", "groups: {exclude: ops}", "claim/c: 3", "claim/c: {is: true}"]
    {
        let (policy, samples) = turning(&format!("allow: {{and: [{data}]}}"));
        let claims: Vec<_> = samples.claims().collect();
        assert_eq!(claims.len(), 1);
        has(&outcomes(&policy, &claims[0].1, signature), &[&[true], &[false]], data);
    }
    let (policy, samples) =
        turning("allow: {and: [groups: {has: a}, groups: {has: b}, groups: {exclude: c}, groups: {is: a}]}");
    let claims: Vec<_> = samples.claims().collect();
    let found = outcomes(&policy, &claims[0].1, signature);
    has(&found, &[&[true, true, true, false], &[true, true, false, false], &[true, false, true, true]], "four");
    let many: Vec<_> = (0..40).map(|number| format!("groups: {{exclude: g{number}}}")).collect();
    let (policy, samples) = turning(&format!("allow: {{and: [{}]}}", many.join(", ")));
    let claims: Vec<_> = samples.claims().collect();
    let found = outcomes(&policy, &claims[0].1, signature);
    for at in 0..40 {
        let but_one: Vec<_> = (0..40).map(|other| other != at).collect();
        let alone: Vec<_> = (0..40).map(|other| other == at).collect();
        has(&found, &[&but_one, &alone], "many");
    }
}

#[test]
fn addresses_of_clients_stand_at_both_ends_of_a_range_and_beside_it() {
    let (policy, samples) = turning("allow: {and: [source_ip: [10.1.0.0/16, '2001:db8::/32', 192.0.2.7]]}");
    let sources = samples.sources();
    let addresses: Vec<_> = sources.iter().map(|sample| sample.value.to_string()).collect();
    for address in
        ["10.1.0.0", "10.1.255.255", "10.0.255.255", "10.2.0.0", "2001:db8::", "2001:db9::", "192.0.2.7", "192.0.2.6"]
    {
        assert!(addresses.contains(&address.to_owned()), "{address} {addresses:?}");
    }
    let signature =
        |policy: &Policy, source: &IpAddr| policy.signature(&Facts { source: *source, ..World::default().facts() });
    has(&outcomes(&policy, &sources, signature), &[&[true], &[false]], "ranges");
    let (_, samples) = turning("allow: {and: [source_ip: 0.0.0.0/0]}");
    assert_eq!(samples.sources().len(), 2, "nothing is beside everything");
}

#[test]
fn times_fall_on_both_sides_of_every_bound_on_every_day() {
    let signature =
        |policy: &Policy, now: &Timestamp| policy.signature(&Facts { now: *now, ..World::default().facts() });
    for data in [
        "date: {after: 2026-01-01}",
        "date: {before: 2020-01-01}",
        "day_of_week: sat",
        "time_of_day: {timezone: Europe/Berlin, after: '9:00', before: '17:00'}",
        "time_of_day: {timezone: America/Los_Angeles, before: '0:00:01'}",
    ] {
        let (policy, samples) = turning(&format!("allow: {{and: [{data}]}}"));
        has(&outcomes(&policy, &samples.times(Timestamp::from_secs(NOW)), signature), &[&[true], &[false]], data);
    }
    let text =
        "allow: {and: [date: {after: 2030-01-01}, day_of_week: mon-fri, time_of_day: {timezone: UTC, after: '9:00'}]}";
    let (policy, samples) = turning(text);
    let found = outcomes(&policy, &samples.times(Timestamp::from_secs(NOW)), signature);
    for number in 0..8_u8 {
        let wanted: Vec<_> = (0..3).map(|bit| number & (1 << bit) != 0).collect();
        has(&found, &[&wanted], "three");
    }
}

#[test]
fn devices_of_every_type_id_and_state_are_had() {
    let signature = |policy: &Policy, devices: &Vec<DeviceRecord>| {
        let devices: Vec<Device<'_>> = devices.iter().map(DeviceRecord::facts).collect();
        policy.signature(&World::signed_in().devices(&devices).facts())
    };
    let text = "allow: {and: [device: {type: any}, device: {type: enclave_only, approved: true}, device: {is: d1}]}";
    let (policy, samples) = turning(text);
    let found = outcomes(&policy, &samples.devices(), signature);
    has(&found, &[&[true; 3], &[true, false, true], &[true, false, false], &[false, true, false]], "devices");
    assert_eq!(turning("allow: {and: [accept: 1]}").1.devices(), []);
}

#[test]
fn paths_are_under_the_prefix_and_users_and_methods_are_named() {
    let (_, samples) = turning(
        "allow: {and: [http_path: {ends_with: .png}, user: u-1, http_method: {in: [GET, POST]}, cors_preflight: 1]}",
    );
    let values = |samples: Vec<Sample<String>>| samples.into_iter().map(|sample| sample.value).collect::<Vec<_>>();
    assert!(values(samples.paths("/app/")).contains(&"/app/.png".to_owned()));
    assert!(values(samples.users()).contains(&"u-1".to_owned()));
    assert!(values(samples.methods()).contains(&"POST".to_owned()));
    assert!(samples.preflights() && !samples.is_cut());
}

#[test]
fn of_too_many_values_some_are_given_and_it_is_said() {
    let many: Vec<_> = (0..=Samples::MOST).map(|number| format!("u{number}@x.test")).collect();
    let (_, samples) = turning(&format!("allow: {{and: [email: {{in: [{}]}}]}}", many.join(", ")));
    assert!(samples.is_cut());
    assert_eq!(samples.emails().len(), Samples::MOST);
}

#[test]
fn a_signature_decides_as_the_facts_do() {
    for text in [
        "{allow: {and: [email: a@x.test, http_method: GET]}, deny: {or: [groups: bad]}}",
        "{allow: {nor: [email: a@x.test, user: u1], not: [domain: x.test]}, deny: {not: [groups: good]}}",
        "{enforce: false, allow: {and: [email: a@x.test]}}",
        "[{allow: {and: [authenticated_user: 1]}}, {enforce: false, deny: {or: [email: a@x.test]}}]",
        "allow: {}",
    ] {
        let policy = policy(text);
        let worlds = [
            World::default(),
            World::signed_in(),
            World::signed_in().email("a@x.test"),
            World::signed_in().email("a@x.test").session_claims(&json!({"groups": "bad"})),
            World::signed_in().session_claims(&json!({"groups": "good"})).method("POST"),
        ];
        for world in worlds {
            let facts = world.facts();
            assert_eq!(policy.decide_by(&policy.signature(&facts)), policy.decide(&facts), "{text} {facts:?}");
        }
    }
}
