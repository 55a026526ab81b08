//! Deciding costs no allocation. A binary of its own, because its allocator counts.

#![expect(clippy::expect_used, reason = "the whole binary is tests")]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use postern_identity::{Claims, CompactSession, IdpId, Session, SessionHandle, Timestamp, User};
use postern_policy::document::read;
use postern_policy::{
    Certificate, ClientCertificate, Decision, Device, Enrolment, Facts, Legacy, Mcp, Policy, Record, Ssh, ppl,
};

const EVERY_CRITERION: &str = "
- allow:
    and: [accept: 1, authenticated_user: 1, user: {not: u2}, email: {ends_with: example.com, contains: '@'}]
    or: [domain: example.com, claim/Dept: [eng], claim/a.b: {is: 1.5}, groups: {has: ops, exclude: x}]
    nor: [http_method: {in: [GET, HEAD]}, http_path: {starts_with: /a}]
    not: [source_ip: [10.0.0.0/8, '2001:db8::/32'], cors_preflight: 1, reject: 1]
- allow:
    and:
      - client_certificate: {fingerprint: 0000000000000000000000000000000000000000000000000000000000000000, san_dns: {not: a}}
      - device: {type: any, approved: true}
      - mcp_tool: {in: [query]}
      - ssh_username: {not: root}
      - ssh_username_matches_email: 1
      - ssh_username_matches_claim: groups
      - ssh_publickey: ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB
      - ssh_ca: ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB
      - date: {after: 2000-01-01, before: 2100-01-01}
      - day_of_week: mon-fri
      - time_of_day: {timezone: Europe/Berlin, after: 9AM, before: 5PM}
      - record: {type: geo, field: country, in: [NZ, AU], not: DE}
- enforce: false
  deny: {or: [domain: example.org, time_of_day: {timezone: America/New_York, after: 9AM}]}
- deny:
    and: [invalid_client_certificate: 1, reject: 1]
    or: [email: {in: [x@example.com, y@example.com]}, claim/list: {has: {deep: [1, 2]}}]
";

fn session() -> CompactSession {
    let claims = serde_json::json!({"groups": ["ops"], "dept": "eng", "a": {"b": 1.5}, "list": [{"deep": [1, 2, 3]}]});
    let session = Session {
        handle: SessionHandle::from_bytes([0; 32]),
        user: User { id: "u1".to_owned(), email: Some("a@example.com".to_owned()), ..User::default() },
        claims: Claims::flatten(claims.as_object().expect("an object")),
        idp: IdpId::new("test"),
        issued_at: Timestamp::from_secs(0),
        expires_at: Timestamp::from_secs(1),
        idle: None,
        generation: 0,
    };
    // What another has said is a word that both share.
    let words = Arc::default();
    let other = Session { user: User { id: "u2".to_owned(), ..session.user.clone() }, ..session.clone() };
    let [_, session] = [&other, &session].map(|session| CompactSession::with_words(session, &words));
    session
}

fn country() -> serde_json::Map<String, serde_json::Value> {
    serde_json::json!({"country": "NZ"}).as_object().expect("an object").clone()
}

const fn devices() -> [Device<'static>; 1] {
    [Device { kind: "any", id: "d1", enrolment: Enrolment::Approved }]
}

/// Every name that the language knows stands in the policy above.
#[test]
fn no_criterion_is_left_out() {
    let known = ppl::parse(&read("allow: {and: [nothing-like-that: 1]}").expect("YAML")).expect_err("unknown");
    let names = known[0].hint.as_deref().expect("all names").trim_start_matches("write one of ").to_owned();
    for name in names.split(", ") {
        assert!(
            EVERY_CRITERION.contains(&format!("{name}: ")) || EVERY_CRITERION.contains(&format!("{name}/")),
            "{name}"
        );
    }
    assert!(names.split(", ").count() > 20, "{names}");
}

fn facts(session: Option<&CompactSession>) -> Facts<'_> {
    let source = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    Facts {
        person: session.map(Into::into),
        ..Facts::anonymous("GET", "/a", source, Timestamp::from_secs(1_900_000_000))
    }
}

#[test]
fn deciding_allocates_nothing() {
    let legacy = Legacy { allowed_users: vec!["u1".to_owned(), "b@example.com".to_owned()], ..Legacy::default() };
    let rules = ppl::parse(&read(EVERY_CRITERION).expect("YAML")).expect("a policy");
    let policy = Policy::new(legacy.rules(), rules);
    let session = session();
    let (mut signed_in, mut anonymous) = (Decision::EnrolDevice, Decision::EnrolDevice);
    let (certificate, fields) = (Certificate { dns: vec!["a".to_owned()], ..Certificate::default() }, country());
    let (devices, records) = (devices(), [Record { kind: "geo", fields: &fields }]);
    let carried = Facts {
        client_certificate: ClientCertificate { leaf: Some(&certificate), valid: false },
        devices: &devices,
        mcp: Mcp::ToolCall("query"),
        ssh: Ssh { username: "a", ..Ssh::NONE },
        records: &records,
        ..facts(Some(&session))
    };
    let mut would_refuse = None;
    let counted = allocation_counter::measure(|| {
        signed_in = policy.decide(&facts(Some(&session)));
        anonymous = policy.decide(&facts(None));
        would_refuse = policy.would_refuse(&carried);
        std::hint::black_box(policy.decide(&carried));
    });
    assert!(would_refuse.is_some());
    assert_eq!((signed_in, anonymous), (Decision::Allow, Decision::SignIn));
    assert_eq!(counted.count_total, 0);
}

#[test]
fn the_counter_counts() {
    let counted = allocation_counter::measure(|| drop(std::hint::black_box(vec![1_u8; 64])));
    assert!(counted.count_total > 0);
}
