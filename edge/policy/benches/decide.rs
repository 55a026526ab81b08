//! How long deciding takes: `cargo bench -p postern-policy`. Prints nanoseconds for each scenario, the least and the median of
//! many rounds, since on a shared machine only the least says what the code costs.

#![expect(clippy::expect_used, clippy::print_stdout, reason = "a bench is read by a person")]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use postern_identity::{Claims, IdpId, Session, SessionHandle, Timestamp, User};
use postern_policy::document::read;
use postern_policy::{Facts, Policy, ppl};

/// The policy that most routes have.
const USUAL: &str = "allow: {and: [domain: example.com, groups: engineering]}";

/// 5 rules, 20 criteria.
const LARGE: &str = "
- allow: {and: [domain: example.com, groups: engineering, claim/department: ops, http_method: {in: [GET, HEAD, POST]}]}
- allow: {and: [email: {ends_with: '@example.com'}, claim/level: 3, http_path: {starts_with: /reports/}, source_ip: 10.0.0.0/8]}
- allow: {or: [user: u7, user: u8, email: {in: [a@example.org, b@example.org, c@example.org]}, groups: {has: admins}]}
- deny: {or: [claim/employment: contractor, source_ip: [198.51.100.0/24, 203.0.113.0/24], http_path: {starts_with: /internal/}, http_method: TRACE]}
- deny: {and: [groups: interns, http_path: {contains: salary}, claim/office: remote, email: {not: boss@example.com}]}
";

const ROUNDS: usize = 301;
const CALLS: u32 = 2_000;

fn session() -> Session {
    let claims = serde_json::json!({
        "sub": "u1", "name": "Alice", "email": "alice@example.com", "iss": "https://idp.example.com", "locale": "en",
        "groups": ["staff", "oncall", "engineering"], "department": "ops", "level": 3, "office": "berlin",
        "employment": "staff", "given_name": "Alice", "family_name": "Example",
    });
    let claims = Claims::flatten(claims.as_object().expect("an object"));
    let email = Some("alice@example.com".to_owned());
    Session {
        handle: SessionHandle::from_bytes([0; 32]),
        user: User { id: "u1".to_owned(), email, claims: claims.clone(), ..User::default() },
        claims,
        idp: IdpId::new("bench"),
        issued_at: Timestamp::from_secs(0),
        expires_at: Timestamp::from_secs(1),
        idle: None,
        generation: 0,
    }
}

fn measure(name: &str, text: &str, facts: &Facts<'_>) {
    let rules = ppl::parse(&read(text).expect("YAML")).expect("a policy");
    let policy = Policy::new(Vec::new(), rules);
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let began = Instant::now();
            for _ in 0..CALLS {
                black_box(black_box(&policy).decide(black_box(facts)));
            }
            began.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS)
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    let at = |index: usize| rounds.get(index).copied().unwrap_or_default();
    println!("{name}: least {:.1} ns, median {:.1} ns", at(0), at(ROUNDS / 2));
}

fn main() {
    let session = session();
    let source = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    let anonymous = Facts::anonymous("GET", "/reports/2026", source, Timestamp::from_secs(1_700_000_000));
    let signed_in = Facts { session: Some(&session), ..anonymous };
    measure("2 criteria, signed in", USUAL, &signed_in);
    measure("2 criteria, nobody", USUAL, &anonymous);
    measure("20 criteria, signed in", LARGE, &signed_in);
    measure("20 criteria, nobody", LARGE, &anonymous);
}
