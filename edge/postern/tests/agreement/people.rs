//! Who is signed in where random requests are sent.

use std::time::{Duration, SystemTime};

use postern_identity::{Claims, IdpId, Session, SessionHandle, Timestamp, User};
use serde_json::json;

/// How many there are.
pub(crate) const PEOPLE: usize = 5;

/// All of them; the last one at another provider.
pub(crate) fn everybody(idp: &IdpId) -> Vec<Session> {
    (0..PEOPLE).map(|number| person(number, idp)).collect()
}

fn person(number: usize, idp: &IdpId) -> Session {
    let now: Timestamp = SystemTime::now().into();
    let all = [
        (
            "alice@example.com",
            true,
            json!({"groups": ["ops", "staff"], "department": "it", "level": 3, "name": "Alice"}),
        ),
        ("bob@example.com", true, json!({"groups": ["staff"], "department": ["hr", "legal"]})),
        ("carol@other.test", true, json!({"groups": "ops", "active": true, "name": "Zoë, of %"})),
        ("dave@example.com", false, json!({})),
        ("alice@example.com", true, json!({"groups": ["ops"]})),
    ];
    let (email, verified, claims) = &all[number];
    let claims = Claims::flatten(claims.as_object().unwrap());
    Session {
        handle: SessionHandle::from_bytes([0; 32]),
        user: User {
            id: format!("u-{number}"),
            issuer: "https://idp.example.com".to_owned(),
            email: Some((*email).to_owned()),
            email_verified: Some(*verified),
            name: None,
            claims: if number == 1 { claims.clone() } else { Claims::default() },
        },
        claims,
        idp: if number + 1 == PEOPLE { IdpId::new("another") } else { idp.clone() },
        issued_at: now,
        expires_at: now.plus(Duration::from_secs(24 * 3600)),
        idle: None,
        generation: 0,
    }
}
