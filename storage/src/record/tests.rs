use std::sync::Arc;

use postern_identity::{Claims, Keyring, NEVER, SERVICE_ACCOUNT, Secret};
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn seal() -> Seal {
    Seal::new(Arc::new(Keyring::derive(&Secret::new([1; 32]), &Secret::new([2; 32]))))
}

fn claims(value: &Value) -> Claims {
    Claims::flatten(value.as_object().unwrap())
}

fn session() -> Session {
    Session {
        handle: SessionHandle::from_bytes([7; 32]),
        user: User {
            id: "00u1".to_owned(),
            issuer: "https://idp.example".to_owned(),
            email: Some("alice@example.com".to_owned()),
            email_verified: Some(false),
            name: Some("Alice Ångström".to_owned()),
            claims: claims(&json!({"groups": ["a", "b"], "address": {"country": "NO"}})),
        },
        claims: claims(&json!({"sid": "s-1", "auth_time": 1_700_000_000, "nested": {"list": [1, "x", true]}})),
        idp: IdpId::new("oidc https://idp.example client"),
        issued_at: Timestamp::from_secs(1_700_000_000),
        expires_at: Timestamp::from_secs(1_700_050_400),
        idle: Some((Duration::from_secs(1800), Timestamp::from_secs(1_700_001_800))),
        generation: 3,
    }
}

fn tokens() -> Tokens {
    Tokens {
        access: Secret::new("access".to_owned()),
        access_expires_at: Some(Timestamp::from_secs(1_700_003_600)),
        refresh: Some(Secret::new("refresh".to_owned())),
        id_token: Secret::new("a.b.c".to_owned()),
        refresh_at: None,
    }
}

/// While the secret of [`seal`] is replaced: by that one in force, or by the next.
fn rotating(in_force: u8, accepted: u8) -> Seal {
    let (in_force, accepted) = (Secret::new([in_force; 32]), [Secret::new([accepted; 32])]);
    Seal::new(Arc::new(Keyring::derive_with(&in_force, &accepted, &Secret::new([2; 32]))))
}

/// What each format that was ever written looks like, sealed under the keyring above: row and tokens of `session()`, in hex.
/// That with key ids is written while a secret is replaced.
const FORMATS: [(&str, &str); 2] =
    [("1", include_str!("format_1.hex")), ("1 with key ids", include_str!("format_1_key_ids.hex"))];

fn fixture(lines: &str) -> [Vec<u8>; 2] {
    let unhex = |line: &str| -> Vec<u8> {
        line.as_bytes().chunks(2).map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    };
    lines.lines().map(unhex).collect::<Vec<_>>().try_into().unwrap()
}

#[test]
fn r_023_records_of_every_format_are_read() {
    for (format, lines) in FORMATS {
        let [row, sealed_tokens] = fixture(lines);
        for seal in [seal(), rotating(1, 3), rotating(3, 1)] {
            let (row, expected) = (Row::decode(row.as_slice()).unwrap(), session());
            assert_eq!(seal.session(&expected.handle, &row), Some(expected.clone()), "{format}");
            let found = seal.open_tokens(&expected.handle, &row, &sealed_tokens).unwrap();
            assert_eq!(found.access.expose(), "access");
            assert_eq!(found.refresh.unwrap().expose(), "refresh");
            assert_eq!(found.id_token.expose(), "a.b.c");
            assert_eq!(found.access_expires_at, tokens().access_expires_at);
        }
    }
}

/// A service account, which has a format of its own.
fn account() -> Session {
    let (session, nobody) = (session(), SERVICE_ACCOUNT.to_owned());
    Session {
        user: User { issuer: nobody, email_verified: None, ..session.user },
        claims: Claims::default(),
        idp: IdpId::service_account(),
        expires_at: NEVER,
        idle: None,
        ..session
    }
}

#[test]
fn r_023_service_accounts_of_every_format_are_read() {
    let [row, sealed_tokens] = fixture(include_str!("format_2.hex"));
    let (row, expected) = (Row::decode(row.as_slice()).unwrap(), account());
    assert_eq!(seal().session(&expected.handle, &row), Some(expected.clone()));
    assert!(seal().open_tokens(&expected.handle, &row, &sealed_tokens).unwrap().access.expose().is_empty());
}

#[test]
fn r_023_a_version_that_knows_no_service_accounts_takes_none_for_a_session() {
    let written = |session: &Session| seal().row(session, session.generation, None).unwrap();
    let versions = |row: Row| (row.ver, row.min_reader);
    assert_eq!(versions(written(&session())), (1, 1), "every earlier version reads sessions");
    assert_eq!(versions(written(&account())), (2, 2), "those read the first format alone");
}

#[test]
fn a_record_keeps_the_name_of_its_owner_when_it_is_sealed_by_the_next_secret() {
    let (session, next) = (session(), rotating(3, 1));
    let row = seal().row(&session, 3, None).unwrap();
    let renewed = next.row(&session, 4, Some(&row)).unwrap();
    assert_eq!(renewed.owner, row.owner);
    assert_ne!(next.row(&session, 4, None).unwrap().owner, row.owner);
    let done = Seal::new(Arc::new(Keyring::derive(&Secret::new([3; 32]), &Secret::new([2; 32]))));
    assert_eq!(
        done.row(&session, 5, Some(&renewed)).unwrap().owner,
        row.owner,
        "also where only the next one is known"
    );
    let mut other = session.clone();
    other.user.id = "somebody else".to_owned();
    assert_ne!(next.row(&other, 4, Some(&row)).unwrap().owner, row.owner);
    let forged = Row { owner: vec![7; 32], ..row };
    assert_ne!(next.row(&session, 4, Some(&forged)).unwrap().owner, forged.owner, "s_082: but no name of anybody else");
}

#[test]
#[ignore = "prints the fixture of a new format"]
fn print_the_fixture() {
    let written =
        [(seal(), session(), tokens()), (rotating(1, 3), session(), tokens()), (seal(), account(), Tokens::none())];
    for (seal, session, tokens) in written {
        let row = seal.row(&session, session.generation, None).unwrap();
        for bytes in [row.encode_to_vec(), seal.tokens(&session.handle, &row, &tokens).unwrap()] {
            println!("{}", bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
        }
    }
}

#[test]
fn s_082_a_value_opens_only_where_it_was_put() {
    let (seal, session) = (seal(), session());
    let row = seal.row(&session, 3, None).unwrap();
    let sealed = seal.tokens(&session.handle, &row, &tokens()).unwrap();
    let other = SessionHandle::from_bytes([8; 32]);
    assert!(
        seal.session(&session.handle, &row).is_some() && seal.open_tokens(&session.handle, &row, &sealed).is_some()
    );
    assert!(seal.session(&other, &row).is_none(), "another key");
    assert!(seal.open_tokens(&other, &row, &sealed).is_none(), "another key");
    assert!(seal.session(&session.handle, &Row { generation: 4, ..row.clone() }).is_none(), "another generation");
    assert!(seal.session(&session.handle, &Row { owner: vec![0; 32], ..row.clone() }).is_none(), "another owner");
    for (row, what) in [
        (Row { expires_at: row.expires_at + 1, ..row.clone() }, "a longer life"),
        (Row { issued_at: row.issued_at + 1, ..row.clone() }, "a later sign-in"),
    ] {
        assert!(seal.session(&session.handle, &row).is_none(), "{what}");
        assert!(seal.open_tokens(&session.handle, &row, &sealed).is_none(), "{what}");
    }
    assert!(seal.session(&session.handle, &Row { view: sealed, ..row.clone() }).is_none(), "another kind");
    assert!(seal.open_tokens(&session.handle, &row, &row.view).is_none(), "another kind");
}

#[test]
fn s_082_the_same_value_is_never_sealed_to_the_same_bytes() {
    let (seal, session) = (seal(), session());
    assert_ne!(seal.row(&session, 3, None).unwrap().view, seal.row(&session, 3, None).unwrap().view);
}

/// A field that only a newer version knows.
const FROM_THE_FUTURE: [u8; 5] = [0xa2, 0x06, 2, b'h', b'i'];

#[test]
fn r_023_fields_that_only_a_newer_version_knows_survive_a_rewriting() {
    let (seal, session) = (seal(), session());
    let mut row = seal.row(&session, 3, None).unwrap();
    let mut plain = seal.open(Kind::View, session.handle.as_bytes(), &row, &row.view).unwrap().to_vec();
    plain.extend(FROM_THE_FUTURE);
    row.view = seal.seal(&place(Kind::View, session.handle.as_bytes(), &row), &plain).unwrap();
    assert_eq!(seal.session(&session.handle, &row), Some(session.clone()), "it is read all the same");

    let next = seal.row(&session, 4, Some(&row)).unwrap();
    let plain = seal.open(Kind::View, session.handle.as_bytes(), &next, &next.view).unwrap();
    assert!(plain.ends_with(&FROM_THE_FUTURE), "the sealed ones");
    let next_session = Session { generation: 4, ..session };
    assert_eq!(seal.session(&next_session.handle, &next), Some(next_session));

    let encoded = [row.encode_to_vec(), FROM_THE_FUTURE.to_vec()].concat();
    let marked = rewrite(&encoded, |row| row.revoked = true).unwrap();
    assert!(marked.ends_with(&FROM_THE_FUTURE), "the clear ones");
    assert!(Row::decode(marked.as_slice()).unwrap().revoked);
}

#[test]
fn r_004_a_record_that_is_too_large_is_refused() {
    let mut session = session();
    session.claims.set("huge", vec![Value::String("x".repeat(MAX_RECORD))]);
    assert!(seal().row(&session, 1, None).is_err());
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from)
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(".{0,6}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_a_session_holds_comes_back(
        claim in proptest::collection::btree_map(".{0,8}", json(), 0..5),
        texts in (".*", ".*", proptest::option::of(".*"), proptest::option::of(".*")),
        verified in proptest::option::of(any::<bool>()),
        idle in proptest::option::of(0_u64..1 << 40),
        times in (any::<i64>(), any::<i64>(), any::<i64>()),
        generation in any::<u64>(),
    ) {
        let claims = Claims::flatten(&claim.into_iter().collect());
        let (id, issuer, email, name) = texts;
        let session = Session {
            user: User { id, issuer, email, email_verified: verified, name, claims: claims.clone() },
            claims,
            issued_at: Timestamp::from_millis(times.0),
            expires_at: Timestamp::from_millis(times.1),
            idle: idle.map(|idle| (Duration::from_millis(idle), Timestamp::from_millis(times.2))),
            generation,
            ..session()
        };
        let seal = seal();
        let row = seal.row(&session, generation, None).unwrap();
        let row = Row::decode(row.encode_to_vec().as_slice()).unwrap();
        prop_assert_eq!(seal.session(&session.handle, &row), Some(session));
    }

    #[test]
    fn no_bytes_from_a_damaged_store_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let kept = unknown_fields(&bytes, 9);
        prop_assert!(kept.len() <= bytes.len());
        if let Ok(row) = Row::decode(bytes.as_slice()) {
            prop_assert!(seal().session(&SessionHandle::from_bytes([7; 32]), &row).is_none());
        }
    }
}
