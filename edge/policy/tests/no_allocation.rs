//! Deciding costs no allocation. A binary of its own, because its allocator counts.

#![expect(clippy::expect_used, reason = "the whole binary is tests")]

use std::net::{IpAddr, Ipv4Addr};

use postern_identity::{Claims, IdpId, Session, SessionHandle, Timestamp, User};
use postern_policy::document::read;
use postern_policy::{Decision, Facts, Legacy, Policy, ppl};

const EVERY_CRITERION: &str = "
- allow:
    and: [accept: 1, authenticated_user: 1, user: {not: u2}, email: {ends_with: example.com, contains: '@'}]
    or: [domain: example.com, claim/Dept: [eng], claim/a.b: {is: 1.5}, groups: {has: ops, exclude: x}]
    nor: [http_method: {in: [GET, HEAD]}, http_path: {starts_with: /a}]
    not: [source_ip: [10.0.0.0/8, '2001:db8::/32'], cors_preflight: 1, reject: 1]
- deny:
    or: [email: {in: [x@example.com, y@example.com]}, claim/list: {has: {deep: [1, 2]}}]
";

fn session() -> Session {
    let claims = serde_json::json!({"groups": ["ops"], "dept": "eng", "a": {"b": 1.5}, "list": [{"deep": [1, 2, 3]}]});
    Session {
        handle: SessionHandle::from_bytes([0; 32]),
        user: User { id: "u1".to_owned(), email: Some("a@example.com".to_owned()), ..User::default() },
        claims: Claims::flatten(claims.as_object().expect("an object")),
        idp: IdpId::new("test"),
        issued_at: Timestamp::from_secs(0),
        expires_at: Timestamp::from_secs(1),
        idle: None,
        generation: 0,
    }
}

fn facts(session: Option<&Session>) -> Facts<'_> {
    let source = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    Facts { session, ..Facts::anonymous("GET", "/a", source, Timestamp::from_secs(0)) }
}

#[test]
fn deciding_allocates_nothing() {
    let legacy = Legacy { allowed_users: vec!["u1".to_owned(), "b@example.com".to_owned()], ..Legacy::default() };
    let rules = ppl::parse(&read(EVERY_CRITERION).expect("YAML")).expect("a policy");
    let policy = Policy::new(legacy.rules(), rules);
    let session = session();
    let (mut signed_in, mut anonymous) = (Decision::EnrolDevice, Decision::EnrolDevice);
    let counted = allocation_counter::measure(|| {
        signed_in = policy.decide(&facts(Some(&session)));
        anonymous = policy.decide(&facts(None));
    });
    assert_eq!((signed_in, anonymous), (Decision::Allow, Decision::SignIn));
    assert_eq!(counted.count_total, 0);
}

#[test]
fn the_counter_counts() {
    let counted = allocation_counter::measure(|| drop(std::hint::black_box(vec![1_u8; 64])));
    assert!(counted.count_total > 0);
}
