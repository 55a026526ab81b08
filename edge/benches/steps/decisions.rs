//! Policies of known size, and somebody who asks.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use postern_identity::{Claims, CompactSession, IdpId, Session, SessionHandle, Timestamp, User};
use postern_policy::{Decision, Facts, Policy, document, ppl};

/// As most routes have it: somebody of this domain, or this address.
const USUAL: &str = "allow: { or: [ { domain: { is: example.com } }, { email: { is: bob@partner.example } } ] }";

/// Five rules, twenty criteria. Of an allow rule that does not hold the first of its criteria says so; where none holds, all are
/// looked at.
const LARGE: &str = r#"
- allow: { or: [ { email: { is: a@partner.example } }, { email: { is: b@partner.example } }, { user: { is: u-1 } }, { user: { is: u-2 } } ] }
- allow: { and: [ { domain: { is: partner.example } }, { claim/team: blue }, { http_method: { is: POST } }, { http_path: { starts_with: /admin } } ] }
- deny: { or: [ { source_ip: 198.51.100.0/24 }, { email: { ends_with: "@gone.example" } }, { user: { is: u-9 } }, { http_path: { contains: secret } } ] }
- allow: { not: [ { domain: { is: example.com } }, { claim/team: red }, { http_method: { is: GET } }, { user: { is: u-3 } } ] }
- allow: { and: [ { domain: { is: example.com } }, { claim/team: green }, { http_method: { in: [GET, HEAD] } }, { http_path: { starts_with: /api } } ] }
"#;

pub(crate) fn usual() -> Box<dyn Fn(usize)> {
    decisions(USUAL, "GET")
}

pub(crate) fn large() -> Box<dyn Fn(usize)> {
    decisions(LARGE, "GET")
}

pub(crate) fn refused() -> Box<dyn Fn(usize)> {
    decisions(LARGE, "PUT")
}

/// Decides about somebody whom the policy allows to read.
fn decisions(text: &str, method: &'static str) -> Box<dyn Fn(usize)> {
    let policy = Policy::new(Vec::new(), ppl::parse(&document::read(text).unwrap()).unwrap());
    let words = Arc::default();
    // What another has said before is a word that both share, as in a deployment of many users.
    let [_, session] = ["u-1234", "u-4711"].map(|user| CompactSession::with_words(&session(user), &words));
    Box::new(move |_| {
        let source = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));
        let facts = Facts::anonymous(method, "/api/v1/items", source, Timestamp::from_secs(1_800_000_000));
        let facts = Facts { person: Some((&session).into()), ..facts };
        let decision = black_box(&policy).decide(black_box(&facts));
        assert_eq!(decision == Decision::Allow, method == "GET", "{decision:?}");
    })
}

/// Of somebody in two groups.
pub(crate) fn session(user: &str) -> Session {
    let user = User { id: user.to_owned(), email: Some("alice@example.com".to_owned()), ..User::default() };
    let claims = serde_json::json!({ "team": "green", "groups": ["staff", "engineering"] });
    Session {
        handle: SessionHandle::from_bytes([0; 32]),
        user,
        claims: Claims::flatten(claims.as_object().unwrap()),
        idp: IdpId::new("main"),
        issued_at: Timestamp::from_secs(1_800_000_000),
        expires_at: Timestamp::from_secs(1_800_036_000),
        idle: None,
        generation: 0,
    }
}
