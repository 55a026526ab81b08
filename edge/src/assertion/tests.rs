use std::collections::BTreeSet;
use std::sync::Arc;

use aws_lc_rs::encoding::{AsDer as _, EcPrivateKeyRfc5915Der, Pkcs8V1Der};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use proptest::prelude::*;

use super::*;
use crate::testing::{NOW, alice, config};

fn identity(claims: &[(&'static str, &str)]) -> IdentityConfig {
    let claim = |(header, claim): &(&'static str, &str)| ClaimHeader {
        header: HeaderName::from_static(header),
        claim: (*claim).to_owned(),
    };
    IdentityConfig { claim_headers: claims.iter().map(claim).collect(), ..config(Vec::new()).identity }
}

fn purpose(host: &str) -> Purpose<'_> {
    Purpose { host, issuer: JwtIssuerFormat::HostOnly, groups: None, generation: 1, version: 1 }
}

/// What another implementation makes of a token, with nothing but the published keys.
fn verified(keys: &SigningKeys, token: &str, audience: &str) -> Result<Value, jsonwebtoken::errors::Error> {
    let set: JwkSet = serde_json::from_slice(keys.key_set()).unwrap();
    let head = jsonwebtoken::decode_header(token)?;
    let key = DecodingKey::from_jwk(set.find(&head.kid.unwrap()).unwrap())?;
    let mut validation = Validation::new(head.alg);
    validation.set_audience(&[audience]);
    validation.validate_exp = false;
    Ok(jsonwebtoken::decode::<Value>(token, &key, &validation)?.claims)
}

fn sign(identity: &IdentityConfig, host: &str, session: Option<&postern_identity::Session>) -> Assertion {
    let session = session.map(CompactSession::from);
    Assertion::sign(identity, &purpose(host), session.as_ref(), NOW).unwrap()
}

#[test]
fn s_042_the_assertion_says_who_to_whom_and_for_five_minutes() {
    let identity = identity(&[]);
    let assertion = sign(&identity, "app.example.com", Some(&alice()));
    let claims = verified(&identity.keys, assertion.token.to_str().unwrap(), "app.example.com").unwrap();
    let jti = claims["jti"].as_str().unwrap();
    assert_eq!(jti.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
    assert_eq!(jti.as_bytes()[14], b'4', "a random UUID");
    let expected = json!({
        "iss": "app.example.com", "aud": "app.example.com", "jti": jti, "iat": NOW.as_secs(), "exp": NOW.as_secs() + 300,
        "sub": "u-alice", "user": "u-alice", "email": "alice@example.com", "groups": ["ops", "staff"],
        "sid": alice().handle.to_string(), "name": "Alice",
    });
    assert_eq!(claims, expected);
    let head = jsonwebtoken::decode_header(assertion.token.to_str().unwrap()).unwrap();
    assert_eq!((head.alg, head.typ.as_deref()), (Algorithm::ES256, Some("JWT")));
}

#[test]
fn s_043_an_assertion_for_one_host_is_refused_by_another() {
    let identity = identity(&[]);
    let token = sign(&identity, "a.example.com", Some(&alice())).token;
    assert!(verified(&identity.keys, token.to_str().unwrap(), "a.example.com").is_ok());
    assert!(verified(&identity.keys, token.to_str().unwrap(), "b.example.com").is_err());
}

#[test]
fn anonymous_requests_have_an_assertion_of_nobody() {
    let identity = identity(&[("x-pomerium-claim-department", "department")]);
    let assertion = sign(&identity, "app.example.com", None);
    let claims = verified(&identity.keys, assertion.token.to_str().unwrap(), "app.example.com").unwrap();
    for claim in ["sub", "user", "email", "sid", "name"] {
        assert_eq!(claims[claim], "", "{claim}");
    }
    assert_eq!(claims["groups"], json!([]));
    assert_eq!(claims.get("department"), None);
    assert_eq!(
        assertion.fields,
        [(HeaderName::from_static("x-pomerium-claim-department"), HeaderValue::from_static(""))]
    );
}

#[test]
fn the_issuer_is_a_uri_where_the_route_says_so() {
    let purpose = Purpose { issuer: JwtIssuerFormat::Uri, ..purpose("app.example.com") };
    let claims = claims(&identity(&[]), &purpose, None, NOW).unwrap();
    assert_eq!((&claims["iss"], &claims["aud"]), (&json!("https://app.example.com/"), &json!("app.example.com")));
}

#[test]
fn however_the_groups_are_spelled_those_are_named_that_the_filter_lets_through() {
    let identity = identity(&[("x-groups", "groups"), ("x-spelled", "GROUPS")]);
    let filter = GroupsFilter::new(["staff".to_owned()].into());
    let session = CompactSession::from(&alice());
    let claims = subject_claims(&identity, Some(&filter), Some(&session));
    assert_eq!((&claims["groups"], &claims["GROUPS"]), (&json!(["staff"]), &json!("staff")));
}

#[test]
fn configured_claims_come_from_the_session_first_and_lists_are_joined() {
    let identity = identity(&[
        ("x-dep", "department"),
        ("x-groups", "groups"),
        ("x-mail", "email"),
        ("x-mixed", "Mixed"),
        ("x-none", "none"),
        ("x-nested", "nested"),
        ("x-only-user", "only_user"),
    ]);
    let mut session = alice();
    session.user.claims.set("department", vec![json!("of the user")]);
    session.user.claims.set("only_user", vec![json!(1), json!(true)]);
    session.claims.set("mixed", vec![json!("lower")]);
    session.claims.set("nested", vec![json!({"a": 1}), json!([1]), json!("x"), json!(null)]);
    let assertion = sign(&identity, "app.example.com", Some(&session));
    let fields: Vec<_> =
        assertion.fields.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    let expected = [
        ("x-dep", "it"),
        ("x-groups", "ops,staff"),
        ("x-mail", "alice@example.com"),
        ("x-mixed", "lower"),
        ("x-none", ""),
        ("x-nested", "x"),
        ("x-only-user", "1,true"),
    ];
    assert_eq!(fields, expected);
    let claims = verified(&identity.keys, assertion.token.to_str().unwrap(), "app.example.com").unwrap();
    assert_eq!(
        (&claims["department"], &claims["Mixed"], &claims["only_user"]),
        (&json!("it"), &json!("lower"), &json!("1,true"))
    );
    assert_eq!(claims.get("none"), None);
}

#[test]
fn s_045_a_claim_becomes_a_field_only_in_a_safe_form() {
    let identity = identity(&[("x-claim", "odd"), ("x-groups", "groups")]);
    let field_of = |value: Value| {
        let mut session = alice();
        session.claims.set("odd", vec![value.clone()]);
        session.claims.set("groups", vec![value, json!("b")]);
        let fields = sign(&identity, "h", Some(&session)).fields;
        (fields[0].1.to_str().unwrap().to_owned(), fields[1].1.to_str().unwrap().to_owned())
    };
    assert_eq!(field_of(json!("Zoë")), ("Zo%C3%AB".into(), "Zo%C3%AB,b".into()));
    assert_eq!(field_of(json!("a\r\nX-Admin: 1")), (String::new(), String::new()));
    assert_eq!(field_of(json!("nul\0")).0, "");
    assert_eq!(field_of(json!("c1\u{85}")).0, "");
    assert_eq!(field_of(json!("100%")).0, "100%25");
    assert_eq!(field_of(json!("a,admins")), ("a,admins".into(), "a%2Cadmins,b".into()));
    assert_eq!(field_of(json!("x".repeat(8 * 1024 + 1))).0, "");
    assert_eq!(field_of(json!("é".repeat(4 * 1024))).0, "", "too long once encoded");
    assert_eq!(field_of(json!("x".repeat(8 * 1024))).0.len(), 8 * 1024);
}

proptest! {
    #[test]
    fn s_045_no_claim_value_breaks_a_field(text in "\\PC*|[\\x00-\\x7f]*") {
        if let Some(value) = field_value(&text.replace('%', "%25")) {
            prop_assert!(value.as_bytes().iter().all(|byte| (0x20..=0x7e).contains(byte)));
            let back = percent_encoding::percent_decode(value.as_bytes()).decode_utf8().unwrap().into_owned();
            prop_assert_eq!(back, text);
        }
    }
}

/// Made by another implementation of 01 §5.3 (Python integers and its `hmac`, `hashlib`): secret, x, kid.
const DERIVED: [(&str, &str, &str); 3] = include!("derived.in");

#[test]
fn the_derived_key_and_its_kid_are_those_that_upstreams_know() {
    for (secret, x, kid) in DERIVED {
        let secret: Vec<u8> =
            (0..32).map(|at| u8::from_str_radix(secret.get(2 * at..2 * at + 2).unwrap(), 16).unwrap()).collect();
        let keys = SigningKeys::derive([secret.as_slice().try_into().unwrap()]).unwrap();
        let set: Value = serde_json::from_slice(keys.key_set()).unwrap();
        assert_eq!((&set["keys"][0]["x"], &set["keys"][0]["kid"]), (&json!(x), &json!(kid)));
    }
}

fn rsa(bits: aws_lc_rs::rsa::KeySize) -> Vec<u8> {
    let pair = aws_lc_rs::rsa::KeyPair::generate(bits).unwrap();
    let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
    der.as_ref().to_vec()
}

fn pem(label: &str, der: &[u8]) -> String {
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> = body.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// PKCS#1 out of PKCS#8: the contents of its last octet string.
fn pkcs1(pkcs8: &[u8]) -> Vec<u8> {
    let inner = pkcs8.windows(2).skip(1).position(|pair| pair == [0x30, 0x82]).unwrap();
    pkcs8[inner + 1..].to_vec()
}

#[test]
fn ec_and_rsa_keys_of_every_form_sign_what_their_key_set_verifies() {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
    let ec = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let sec1: EcPrivateKeyRfc5915Der<'_> = ec.private_key().as_der().unwrap();
    let sec1 = sec1.as_ref().to_vec();
    let pkcs8 = ec.to_pkcs8v1().unwrap().as_ref().to_vec();
    let rsa8 = rsa(aws_lc_rs::rsa::KeySize::Rsa2048);
    let cases = [
        (pem("EC PRIVATE KEY", &sec1), "ES256"),
        (
            format!("{}{}", pem("EC PARAMETERS", &[6, 8, 42, 134, 72, 206, 61, 3, 1, 7]), pem("EC PRIVATE KEY", &sec1)),
            "ES256",
        ),
        (pem("PRIVATE KEY", &pkcs8), "ES256"),
        (pem("PRIVATE KEY", &rsa8), "RS256"),
        (pem("RSA PRIVATE KEY", &pkcs1(&rsa8)), "RS256"),
    ];
    for (text, algorithm) in cases {
        let keys = SigningKeys::from_pem(text.as_bytes()).unwrap();
        let identity = IdentityConfig { keys: Arc::new(keys), ..identity(&[]) };
        let token = sign(&identity, "h", None).token.to_str().unwrap().to_owned();
        let set: Value = serde_json::from_slice(identity.keys.key_set()).unwrap();
        assert_eq!(set["keys"][0]["alg"], algorithm);
        assert!(verified(&identity.keys, &token, "h").is_ok(), "{text}");
        let forged = format!(
            "{}.{}.{}",
            token.split('.').next().unwrap(),
            URL_SAFE_NO_PAD.encode("{\"aud\":\"h\"}"),
            token.rsplit('.').next().unwrap()
        );
        assert!(verified(&identity.keys, &forged, "h").is_err());
    }
}

#[test]
fn s_044_the_key_set_holds_the_public_parts_of_every_key_and_nothing_else() {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
    let ec =
        || EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap().to_pkcs8v1().unwrap().as_ref().to_vec();
    let (first, next) = (ec(), rsa(aws_lc_rs::rsa::KeySize::Rsa2048));
    let keys =
        SigningKeys::from_pem([pem("PRIVATE KEY", &first), pem("PRIVATE KEY", &next)].concat().as_bytes()).unwrap();
    let set: Value = serde_json::from_slice(keys.key_set()).unwrap();
    let members = |key: &Value| key.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    let of = |names: &[&str]| names.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
    assert_eq!(members(&set["keys"][0]), of(&["use", "alg", "kid", "kty", "crv", "x", "y"]));
    assert_eq!(members(&set["keys"][1]), of(&["use", "alg", "kid", "kty", "n", "e"]));
    assert_eq!(set["keys"].as_array().unwrap().len(), 2);
    let kid = set["keys"][0]["kid"].as_str().unwrap();
    assert!(
        kid.len() == 64 && kid.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')),
        "lower-case hex of RFC 7638"
    );
    let identity = IdentityConfig { keys: Arc::new(keys), ..identity(&[]) };
    let token = sign(&identity, "h", None).token;
    assert_eq!(
        jsonwebtoken::decode_header(token.to_str().unwrap()).unwrap().kid.as_deref(),
        Some(kid),
        "the first signs"
    );
}

#[test]
fn keys_that_cannot_sign_are_refused_in_words() {
    use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair};
    let refused = |text: &str| SigningKeys::from_pem(text.as_bytes()).unwrap_err();
    let p384 = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap().to_pkcs8v1().unwrap();
    assert_eq!(refused(&pem("PRIVATE KEY", p384.as_ref())), SigningKeyError::Curve("P-384"));
    let ed = Ed25519KeyPair::generate().unwrap().to_pkcs8v1().unwrap();
    assert_eq!(refused(&pem("PRIVATE KEY", ed.as_ref())), SigningKeyError::Unsupported);
    assert_eq!(refused(""), SigningKeyError::None);
    assert_eq!(refused(&pem("CERTIFICATE", &[1, 2, 3])), SigningKeyError::None);
    assert!(matches!(refused(&pem("EC PRIVATE KEY", &[0x30, 0])), SigningKeyError::Unreadable(_)));
    assert_eq!(refused(SHORT_RSA), SigningKeyError::RsaTooShort);
}

/// 1024 bits, made for this test alone.
const SHORT_RSA: &str = include_str!("short_rsa.pem");

#[test]
fn s_042_an_assertion_is_used_again_for_less_than_half_of_its_life() {
    let (slot, identity) = (AssertionSlot::default(), identity(&[]));
    let purpose = purpose("app.example.com");
    assert!(slot.find(&purpose, NOW).is_none());
    slot.keep(&purpose, Arc::new(sign(&identity, "app.example.com", Some(&alice()))), NOW);
    let after = |seconds| slot.find(&purpose, NOW.plus(Duration::from_secs(seconds))).is_some();
    assert!(after(0) && after(119));
    assert!(!after(120) && !after(300));
    assert!(slot.find(&purpose, NOW.minus(Duration::from_secs(1))).is_none(), "not from the future (R-025)");
    for other in [
        Purpose { host: "b.example.com", ..purpose },
        Purpose { generation: 2, ..purpose },
        Purpose { version: 2, ..purpose },
        Purpose { issuer: JwtIssuerFormat::Uri, ..purpose },
    ] {
        assert!(slot.find(&other, NOW).is_none(), "{other:?}");
    }
}

#[test]
fn a_slot_is_bounded_and_keeps_the_newest() {
    let (slot, identity) = (AssertionSlot::default(), identity(&[]));
    let hosts: Vec<String> = (0..100).map(|at| format!("h{at}.example.com")).collect();
    for host in &hosts {
        slot.keep(&purpose(host), Arc::new(sign(&identity, host, None)), NOW);
        assert!(slot.find(&purpose(host), NOW).is_some());
    }
    assert_eq!(hosts.iter().filter(|host| slot.find(&purpose(host), NOW).is_some()).count(), 9);
}

#[test]
fn a_user_of_nine_applications_has_an_assertion_for_each_and_what_is_of_no_use_gives_way() {
    let (slot, identity) = (AssertionSlot::default(), identity(&[]));
    let hosts: Vec<String> = (0..9).map(|at| format!("h{at}.example.com")).collect();
    let at = |seconds| NOW.plus(Duration::from_secs(seconds));
    let keep = |purpose: &Purpose<'_>, now| {
        let assertion = Assertion::sign(&identity, purpose, None, now).unwrap();
        slot.keep(purpose, Arc::new(assertion), now);
    };
    let known = |now| hosts.iter().filter(|host| slot.find(&purpose(host), now).is_some()).count();
    for (host, seconds) in hosts.iter().zip([0, 60, 60, 60, 60, 60, 60, 60, 60]) {
        keep(&purpose(host), at(seconds));
    }
    assert_eq!(known(at(119)), 9);
    keep(&purpose("other.example.com"), at(120));
    assert_eq!(known(at(120)), 8, "the stale one alone gives way");
    let newer = Purpose { version: 2, ..purpose(&hosts[0]) };
    keep(&newer, at(120));
    assert!(slot.find(&newer, at(120)).is_some());
    assert!(
        slot.find(&purpose("other.example.com"), at(120)).is_none(),
        "what is of an earlier configuration gives way"
    );
}

#[test]
fn a_token_of_any_length_is_itself() {
    for length in [0, 1, 607, 608, 609, 736, 737, 992, 993, 9_000] {
        let text: String = ('a'..='z').cycle().take(length).collect();
        assert_eq!(in_one_piece(text.clone()), text, "{length}");
    }
}
