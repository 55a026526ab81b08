//! One fault of the provider at a time: none makes a session, each has its own reason.

use axum::body::Body;
use axum::response::{IntoResponse as _, Redirect, Response};
use http::StatusCode;
use serde_json::{Value, json};

use crate::support::{APP, AUTHN, Script, World, base64};

/// What is wrong, the reason that is given for it, and how the provider does it.
struct Fault(&'static str, &'static str, Script);

fn claims(change: impl Fn(&mut Value) + Send + Sync + 'static) -> Script {
    Script { claims: Box::new(change), ..Script::default() }
}

fn claim(name: &'static str, value: Value) -> Script {
    claims(move |claims| claims[name] = value.clone())
}

fn without(name: &'static str) -> Script {
    claims(move |claims| {
        claims.as_object_mut().unwrap().remove(name).unwrap();
    })
}

/// A time so many seconds from now.
fn shifted(name: &'static str, seconds: i64) -> Script {
    claims(move |claims| claims[name] = json!(crate::support::now().as_secs() + seconds))
}

fn header(name: &'static str, value: Value) -> Script {
    Script { header: Box::new(move |header| header[name] = value.clone()), ..Script::default() }
}

fn token(change: impl Fn(&mut String) + Send + Sync + 'static) -> Script {
    Script { token: Box::new(change), ..Script::default() }
}

fn claims_text(change: impl Fn(&str) -> String + Send + Sync + 'static) -> Script {
    Script { claims_text: Box::new(move |text| *text = change(text)), ..Script::default() }
}

fn token_answer(change: impl Fn(&mut Value) + Send + Sync + 'static) -> Script {
    Script { token_answer: Box::new(change), ..Script::default() }
}

fn token_response(response: impl Fn() -> Response + Send + Sync + 'static) -> Script {
    Script { token_response: Some(Box::new(response)), ..Script::default() }
}

fn userinfo(change: impl Fn(&mut Value) + Send + Sync + 'static) -> Script {
    Script { userinfo: Box::new(change), ..Script::default() }
}

fn userinfo_response(response: impl Fn() -> Response + Send + Sync + 'static) -> Script {
    Script { userinfo_response: Some(Box::new(response)), ..Script::default() }
}

fn keys(change: impl Fn(&mut Value) + Send + Sync + 'static) -> Script {
    Script { keys: Box::new(change), ..Script::default() }
}

fn metadata(change: impl Fn(&mut Value) + Send + Sync + 'static) -> Script {
    Script { metadata: Box::new(change), ..Script::default() }
}

fn discovery_response(response: impl Fn() -> Response + Send + Sync + 'static) -> Script {
    Script { discovery_response: Some(Box::new(response)), ..Script::default() }
}

fn json_text(text: impl Into<Body>) -> Response {
    ([("content-type", "application/json")], text.into()).into_response()
}

/// The token with other parts: header and claims as JSON text, signature as base64url.
fn forged(header: &'static str, signature: impl Fn(&str) -> String + Send + Sync + 'static) -> Script {
    token(move |token| {
        let claims = token.split('.').nth(1).unwrap();
        let signed = format!("{}.{claims}", base64(header));
        *token = format!("{signed}.{}", signature(&signed));
    })
}

fn no_signature(_: &str) -> String {
    String::new()
}

/// HMAC under the public key's own text: the classic confusion.
fn hmac_of_public_key(signed: &str) -> String {
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, b"-----BEGIN PUBLIC KEY-----");
    base64(aws_lc_rs::hmac::sign(&key, signed.as_bytes()))
}

fn signature(change: impl Fn(Vec<u8>) -> Vec<u8> + Send + Sync + 'static) -> Script {
    token(move |token| {
        use ::base64::Engine as _;
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let old = ::base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(signature).unwrap();
        *token = format!("{signed}.{}", base64(change(old)));
    })
}

fn asn1(fixed: &[u8]) -> Vec<u8> {
    let integer = |bytes: &[u8]| [&[2, 33, 0], bytes].concat();
    let (r, s) = fixed.split_at(32);
    let body = [integer(r), integer(s)].concat();
    [&[0x30, u8::try_from(body.len()).unwrap()], &body[..]].concat()
}

fn issuer_and_parties() -> Vec<Fault> {
    vec![
        Fault("another issuer", "id-token-issuer", claim("iss", json!("https://evil.example"))),
        Fault(
            "an issuer with a slash more",
            "id-token-issuer",
            claims(|claims| claims["iss"] = json!(format!("{}/", claims["iss"].as_str().unwrap()))),
        ),
        Fault("no issuer", "id-token-issuer", without("iss")),
        Fault("a list of issuers", "id-token-issuer", claims(|claims| claims["iss"] = json!([claims["iss"]]))),
        Fault("another audience", "id-token-audience", claim("aud", json!("someone-else"))),
        Fault("our id as the beginning of an audience", "id-token-audience", claim("aud", json!("postern2"))),
        Fault("no audience", "id-token-audience", without("aud")),
        Fault("an audience that is a number", "id-token-audience", claim("aud", json!(1))),
        Fault("a list of audiences with a number in it", "id-token-audience", claim("aud", json!(["postern", 1]))),
        Fault("an empty list of audiences", "id-token-audience", claim("aud", json!([]))),
        Fault("two audiences without azp", "id-token-azp", claim("aud", json!(["postern", "other"]))),
        Fault("another authorized party", "id-token-azp", claim("azp", json!("other"))),
        Fault("an authorized party that is a number", "id-token-azp", claim("azp", json!(7))),
        Fault("no nonce", "id-token-nonce", without("nonce")),
        Fault("another nonce", "id-token-nonce", claim("nonce", json!("n-0S6_WzA2Mj"))),
        Fault("a nonce that is a number", "id-token-nonce", claim("nonce", json!(12345))),
        Fault("a nonce that is null", "id-token-nonce", claim("nonce", json!(null))),
        Fault(
            "a list with the nonce in it",
            "id-token-nonce",
            claims(|claims| claims["nonce"] = json!([claims["nonce"]])),
        ),
        Fault("no subject", "id-token-subject", without("sub")),
        Fault("an empty subject", "id-token-subject", claim("sub", json!(""))),
        Fault("a subject that is a number", "id-token-subject", claim("sub", json!(1))),
    ]
}

fn times() -> Vec<Fault> {
    vec![
        Fault("an expired token", "id-token-expired", shifted("exp", -120)),
        Fault("no expiry", "id-token-exp", without("exp")),
        Fault("an expiry that is a text", "id-token-exp", claim("exp", json!("9999999999"))),
        Fault("an expiry that is null", "id-token-exp", claim("exp", json!(null))),
        Fault("an expiry beyond all calendars", "id-token-exp", claim("exp", json!(1e300))),
        Fault("a token of the future", "id-token-iat", shifted("iat", 300)),
        Fault("a token of eleven minutes ago", "id-token-iat", shifted("iat", -660)),
        Fault("no time of issue", "id-token-iat", without("iat")),
        Fault(
            "a time of issue that is a text",
            "id-token-iat",
            claims(|claims| claims["iat"] = json!(claims["iat"].to_string())),
        ),
        Fault("a token that is not valid yet", "id-token-nbf", shifted("nbf", 300)),
        Fault("a begin that is a text", "id-token-nbf", claim("nbf", json!("0"))),
    ]
}

fn signatures_and_headers() -> Vec<Fault> {
    vec![
        Fault(
            "a flipped bit in the signature",
            "id-token-signature",
            signature(|mut bytes| {
                bytes[10] ^= 1;
                bytes
            }),
        ),
        Fault("no signature", "id-token-signature", signature(|_| Vec::new())),
        Fault("a signature of zeros", "id-token-signature", signature(|_| vec![0; 64])),
        Fault("a signature with s of zero", "id-token-signature", signature(|bytes| [&bytes[..32], &[0; 32]].concat())),
        Fault("a signature in ASN.1 form", "id-token-signature", signature(|bytes| asn1(&bytes))),
        Fault("a signature with a byte more", "id-token-signature", signature(|bytes| [&bytes[..], &[0]].concat())),
        Fault(
            "claims changed after signing",
            "id-token-signature",
            token(|token| {
                let parts: Vec<&str> = token.split('.').collect();
                *token = format!("{}.{}.{}", parts[0], base64(r#"{"sub":"admin"}"#), parts[2]);
            }),
        ),
        Fault("alg none", "id-token-algorithm", forged(r#"{"alg":"none"}"#, no_signature)),
        Fault("alg nOnE", "id-token-algorithm", forged(r#"{"alg":"nOnE"}"#, no_signature)),
        Fault("no alg", "id-token-algorithm", forged(r#"{"kid":"key-1"}"#, no_signature)),
        Fault(
            "alg HS256 under the public key",
            "id-token-algorithm",
            forged(r#"{"alg":"HS256","kid":"key-1"}"#, hmac_of_public_key),
        ),
        Fault("alg es256 in small letters", "id-token-algorithm", header("alg", json!("es256"))),
        Fault(
            "an alg that the metadata does not promise",
            "id-token-algorithm",
            metadata(|metadata| metadata["id_token_signing_alg_values_supported"] = json!(["RS256"])),
        ),
        Fault("RS256 over a key for ES256", "id-token-key-unknown", header("alg", json!("RS256"))),
        Fault("an unknown kid", "id-token-key-unknown", header("kid", json!("key-2"))),
        Fault("a kid that is a path", "id-token-key-unknown", header("kid", json!("../../dev/null"))),
        Fault("a kid in other case", "id-token-key-unknown", header("kid", json!("KEY-1"))),
        Fault("a kid that is a number", "id-token-header", header("kid", json!(1))),
        Fault("a key inside of the header", "id-token-header", header("jwk", json!({"kty": "EC"}))),
        Fault("a key set to be fetched", "id-token-header", header("jku", json!("https://evil.example/keys"))),
        Fault("a certificate to be fetched", "id-token-header", header("x5u", json!("https://evil.example/cert"))),
        Fault("a certificate inside of the header", "id-token-header", header("x5c", json!(["MII"]))),
        Fault("an unknown critical extension", "id-token-header", header("crit", json!(["exp"]))),
        Fault("an empty list of critical extensions", "id-token-header", header("crit", json!([]))),
        Fault("an access token in place of an ID token", "id-token-header", header("typ", json!("at+jwt"))),
        Fault("a logout token in place of an ID token", "id-token-header", header("typ", json!("logout+jwt"))),
    ]
}

fn forms() -> Vec<Fault> {
    vec![
        Fault(
            "a repeated claim",
            "id-token-malformed",
            claims_text(|text| text.replacen('{', r#"{"sub":"mallory","#, 1)),
        ),
        Fault(
            "a repeated claim deep inside",
            "id-token-malformed",
            claims_text(|text| text.replacen('{', r#"{"a":{"b":1,"b":2},"#, 1)),
        ),
        Fault("data after the claims", "id-token-malformed", claims_text(|text| format!("{text}x"))),
        Fault("claims that are a list", "id-token-malformed", claims_text(|text| format!("[{text}]"))),
        Fault("four parts", "id-token-malformed", token(|token| token.push_str(".e30"))),
        Fault("five parts, as if encrypted", "id-token-malformed", token(|token| token.push_str(".e30.e30"))),
        Fault("two parts", "id-token-malformed", token(|token| *token = token.rsplit_once('.').unwrap().0.to_owned())),
        Fault("padding", "id-token-malformed", token(|token| token.push('='))),
        Fault("a space at the end", "id-token-malformed", token(|token| token.push(' '))),
        Fault("a line break inside", "id-token-malformed", token(|token| token.insert(5, '\n'))),
        Fault(
            "base64 of the other alphabet",
            "id-token-malformed",
            token(|token| {
                token.pop();
                token.push('+');
            }),
        ),
        Fault("an empty token", "id-token-malformed", token(String::clear)),
        Fault("a token over 64 KiB", "id-token-too-large", claim("filler", json!("x".repeat(64 * 1024)))),
        Fault("a hash of another access token", "id-token-at-hash", claim("at_hash", json!("77QmUPtjPfzWtF2AnpK9RQ"))),
        Fault("a hash that is a number", "id-token-at-hash", claim("at_hash", json!(1))),
    ]
}

fn key_sets() -> Vec<Fault> {
    let small =
        |set: &mut Value| set["keys"] = json!([{"kty": "RSA", "kid": "key-1", "n": base64([0xff; 128]), "e": "AQAB"}]);
    let small_rsa = Script { keys: Box::new(small), ..header("alg", json!("RS256")) };
    vec![
        Fault("an RSA key of 1024 bits", "id-token-key-weak", small_rsa),
        Fault("a key for encryption", "id-token-key-unknown", keys(|set| set["keys"][0]["use"] = json!("enc"))),
        Fault("a key that only signs", "id-token-key-unknown", keys(|set| set["keys"][0]["key_ops"] = json!(["sign"]))),
        Fault("a key for another alg", "id-token-key-unknown", keys(|set| set["keys"][0]["alg"] = json!("ES384"))),
        Fault("a key on another curve", "id-token-key-unknown", keys(|set| set["keys"][0]["crv"] = json!("secp256k1"))),
        Fault(
            "a symmetric key",
            "id-token-key-unknown",
            keys(|set| set["keys"] = json!([{"kty": "oct", "kid": "key-1", "k": "AAAA"}])),
        ),
        Fault("an empty key set", "id-token-key-unknown", keys(|set| set["keys"] = json!([]))),
        Fault("101 keys", "idp-answer-malformed", keys(|set| set["keys"] = json!(vec![set["keys"][0].clone(); 101]))),
        Fault(
            "no kid, and two keys that fit",
            "id-token-key-unknown",
            Script {
                header: Box::new(|header| drop(header.as_object_mut().unwrap().remove("kid"))),
                keys: Box::new(|set| set["keys"] = json!([set["keys"][0], set["keys"][0]])),
                ..Script::default()
            },
        ),
        Fault(
            "a key set that is no JSON",
            "idp-answer-malformed",
            Script { keys_response: Some(Box::new(|| json_text("<html>"))), ..Script::default() },
        ),
        Fault(
            "a key set over 512 KiB",
            "idp-answer-too-large",
            Script { keys_response: Some(Box::new(|| json_text(vec![b' '; 513 * 1024]))), ..Script::default() },
        ),
        Fault(
            "a key set behind a redirect",
            "idp-redirected",
            Script { keys_response: Some(Box::new(|| Redirect::to("/keys2").into_response())), ..Script::default() },
        ),
    ]
}

fn answers() -> Vec<Fault> {
    vec![
        Fault(
            "no ID token",
            "id-token-missing",
            token_answer(|answer| drop(answer.as_object_mut().unwrap().remove("id_token"))),
        ),
        Fault(
            "an ID token that is an object",
            "idp-answer-malformed",
            token_answer(|answer| answer["id_token"] = json!({})),
        ),
        Fault(
            "no access token",
            "idp-answer-malformed",
            token_answer(|answer| drop(answer.as_object_mut().unwrap().remove("access_token"))),
        ),
        Fault(
            "an access token of another type",
            "idp-token-type",
            token_answer(|answer| answer["token_type"] = json!("mac")),
        ),
        Fault("a token answer that is no JSON", "idp-answer-malformed", token_response(|| json_text("nothing"))),
        Fault(
            "a redirect at the token endpoint",
            "idp-redirected",
            token_response(|| Redirect::temporary("/token2").into_response()),
        ),
        Fault(
            "a token answer over 256 KiB",
            "idp-answer-too-large",
            token_response(|| json_text(vec![b' '; 257 * 1024])),
        ),
        Fault(
            "a code that is refused",
            "idp-code-refused",
            token_response(|| (StatusCode::BAD_REQUEST, axum::Json(json!({"error": "invalid_grant"}))).into_response()),
        ),
        Fault("userinfo about somebody else", "userinfo-subject", userinfo(|answer| answer["sub"] = json!("bob"))),
        Fault(
            "userinfo about nobody",
            "userinfo-subject",
            userinfo(|answer| drop(answer.as_object_mut().unwrap().remove("sub"))),
        ),
        Fault("userinfo about a number", "userinfo-subject", userinfo(|answer| answer["sub"] = json!(1))),
        Fault("userinfo that is a list", "idp-answer-malformed", userinfo_response(|| json_text("[]"))),
        Fault(
            "userinfo with a repeated member",
            "idp-answer-malformed",
            userinfo_response(|| json_text(r#"{"sub":"alice","sub":"alice"}"#)),
        ),
        Fault("userinfo that is a page", "idp-answer-malformed", userinfo_response(|| "{}".into_response())),
        Fault("userinfo over 256 KiB", "idp-answer-too-large", userinfo_response(|| json_text(vec![b' '; 257 * 1024]))),
        Fault(
            "userinfo that fails",
            "idp-status",
            userinfo_response(|| StatusCode::INTERNAL_SERVER_ERROR.into_response()),
        ),
    ]
}

fn discoveries() -> Vec<Fault> {
    vec![
        Fault(
            "metadata of another issuer",
            "idp-issuer-mismatch",
            metadata(|metadata| metadata["issuer"] = json!("https://evil.example")),
        ),
        Fault(
            "metadata of an issuer with a slash more",
            "idp-issuer-mismatch",
            metadata(|metadata| metadata["issuer"] = json!(format!("{}/", metadata["issuer"].as_str().unwrap()))),
        ),
        Fault(
            "no token endpoint",
            "idp-answer-malformed",
            metadata(|metadata| drop(metadata.as_object_mut().unwrap().remove("token_endpoint"))),
        ),
        Fault(
            "a token endpoint in the clear",
            "idp-not-https",
            metadata(|metadata| metadata["token_endpoint"] = json!("http://idp.example/token")),
        ),
        Fault(
            "an endpoint that is a script",
            "idp-not-https",
            metadata(|metadata| metadata["authorization_endpoint"] = json!("javascript:alert(1)")),
        ),
        Fault(
            "metadata over 256 KiB",
            "idp-answer-too-large",
            discovery_response(|| json_text(vec![b' '; 257 * 1024])),
        ),
        Fault(
            "metadata behind a redirect",
            "idp-redirected",
            discovery_response(|| Redirect::to("/elsewhere").into_response()),
        ),
        Fault("metadata that is not there", "idp-status", discovery_response(|| StatusCode::NOT_FOUND.into_response())),
        Fault(
            "a promised issuer that does not come",
            "callback-issuer",
            metadata(|metadata| metadata["authorization_response_iss_parameter_supported"] = json!(true)),
        ),
    ]
}

/// No session, no cookie of one, nothing left of the sign-in, and a reason that can be told.
async fn makes_no_session(Fault(what, reason, script): Fault) {
    let world = World::new().await;
    world.provider.does(script);
    let mut browser = world.browser();
    let arrived = world.sign_in(&mut browser, &format!("{APP}/x")).await;
    assert!(arrived.status.is_client_error() || arrived.status.is_server_error(), "{what}: {}", arrived.url);
    assert!(arrived.body.contains(reason), "{what}: no {reason} in {}", arrived.body);
    assert!(world.live_sessions().await.is_empty(), "{what}");
    assert_eq!(browser.cookie(AUTHN, "_pomerium_authenticate"), None, "{what}");
    assert_eq!(browser.cookie_names(AUTHN, "__Host-_pomerium_state_"), [""; 0], "{what}");
    let all = format!("{}{:?}", arrived.body, arrived.headers);
    assert!(!all.contains("marked"), "{what}: a secret is shown");
}

async fn make_no_session(faults: Vec<Fault>) {
    for fault in faults {
        makes_no_session(fault).await;
    }
}

#[tokio::test]
async fn s_056_s_057_s_064_a_token_of_or_for_somebody_else_makes_no_session() {
    make_no_session(issuer_and_parties()).await;
}

#[tokio::test]
async fn s_065_a_token_out_of_its_time_makes_no_session() {
    make_no_session(times()).await;
}

#[tokio::test]
async fn s_060_s_061_s_062_s_063_a_token_that_no_published_key_vouches_for_makes_no_session() {
    make_no_session(signatures_and_headers()).await;
    make_no_session(key_sets()).await;
}

#[tokio::test]
async fn s_066_s_067_a_token_in_an_odd_form_makes_no_session() {
    make_no_session(forms()).await;
}

#[tokio::test]
async fn s_068_s_070_s_071_an_answer_that_is_odd_or_too_large_makes_no_session() {
    make_no_session(answers()).await;
}

#[tokio::test]
async fn s_057_s_058_s_070_a_provider_that_is_not_the_configured_one_makes_no_session() {
    make_no_session(discoveries()).await;
}

#[tokio::test]
async fn odd_but_honest_tokens_are_believed() {
    let honest: Vec<(&str, Script)> = vec![
        ("one audience in a list", claim("aud", json!(["postern"]))),
        (
            "two audiences and azp",
            claims(|claims| {
                claims["aud"] = json!(["x", "postern"]);
                claims["azp"] = json!("postern");
            }),
        ),
        ("a clock that is half a minute ahead", shifted("iat", 30)),
        ("a token that expired within the skew", shifted("exp", -30)),
        ("an expiry with a fraction", claims(|claims| claims["exp"] = json!(claims["exp"].as_f64().unwrap() + 0.5))),
        (
            "no kid and one key",
            Script {
                header: Box::new(|header| drop(header.as_object_mut().unwrap().remove("kid"))),
                ..Script::default()
            },
        ),
        (
            "no typ",
            Script {
                header: Box::new(|header| drop(header.as_object_mut().unwrap().remove("typ"))),
                ..Script::default()
            },
        ),
        ("a right hash of the access token", claim("at_hash", json!(at_hash("access-token-marked")))),
        (
            "claims of odd types",
            claims(|claims| {
                claims["updated_at"] = json!("yesterday");
                claims["address"] = json!("Elm Street");
            }),
        ),
        ("a lifetime that is a text", token_answer(|answer| answer["expires_in"] = json!("3600"))),
        ("a token type in small letters", token_answer(|answer| answer["token_type"] = json!("bearer"))),
        (
            "no userinfo endpoint",
            metadata(|metadata| drop(metadata.as_object_mut().unwrap().remove("userinfo_endpoint"))),
        ),
        (
            "a key set with a key that is not understood",
            keys(|set| set["keys"] = json!([{"kty": "XYZ"}, 5, set["keys"][0]])),
        ),
    ];
    for (what, script) in honest {
        let world = World::new().await;
        world.provider.does(script);
        let arrived = world.sign_in(&mut world.browser(), &format!("{APP}/x")).await;
        assert_eq!(arrived.url.as_str(), format!("{APP}/x"), "{what}: {}", arrived.body);
        assert_eq!(world.live_sessions().await.len(), 1, "{what}");
    }
}

fn at_hash(access_token: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, access_token.as_bytes());
    base64(&digest.as_ref()[..16])
}

#[tokio::test]
async fn s_071_an_answer_that_drips_is_cut_off_and_others_are_served_meanwhile() {
    let world = World::new().await;
    let drip = || {
        let bytes = futures_util::stream::unfold((), |()| async {
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            Some((Ok::<_, std::io::Error>(bytes::Bytes::from_static(b" ")), ()))
        });
        json_text(Body::from_stream(bytes))
    };
    world.provider.does(token_response(drip));
    let begun = std::time::Instant::now();
    let (mut slow, mut other) = (world.browser(), world.browser());
    let there = world.send_to_sign_in(&mut other, &format!("{APP}/y"));
    let slow_sign_in = world.sign_in(&mut slow, APP);
    let meanwhile = async { other.get(&there).await };
    let (arrived, begun_sign_in) = tokio::join!(slow_sign_in, meanwhile);
    arrived.is_refused(503, "idp-timed-out");
    assert!(begun.elapsed() < std::time::Duration::from_secs(15));
    assert_eq!(begun_sign_in.status, 303);
    assert!(world.live_sessions().await.is_empty());
}

#[tokio::test]
async fn s_074_texts_of_the_provider_are_escaped_cut_and_never_links() {
    let world = World::new().await;
    let description = format!("<script>alert(1)</script> https://evil.example/ {}", "x".repeat(5000));
    world.provider.does(Script {
        answer: Box::new(move |answer| {
            answer.retain(|(name, _)| name == "state");
            answer.push(("error".into(), "server_error".into()));
            answer.push(("error_description".into(), description.clone()));
        }),
        ..Script::default()
    });
    let arrived = world.sign_in(&mut world.browser(), &format!("{APP}/x")).await;
    arrived.is_refused(400, "idp-refused");
    assert!(!arrived.body.contains("<script") && !arrived.body.contains("href=\"https://evil"), "{}", arrived.body);
    assert!(!arrived.body.contains(&"x".repeat(1000)));
}

#[tokio::test]
async fn a_user_who_says_no_at_the_provider_is_told_so() {
    let world = World::new().await;
    world.provider.does(Script {
        answer: Box::new(|answer| {
            answer.retain(|(name, _)| name == "state");
            answer.push(("error".into(), "access_denied".into()));
        }),
        ..Script::default()
    });
    let mut browser = world.browser();
    let arrived = world.sign_in(&mut browser, &format!("{APP}/x")).await;
    arrived.is_refused(401, "idp-refused");
    assert!(arrived.body.contains(&format!("href=\"{APP}/x\"")), "a way to try again");
    assert_eq!(world.provider.seen(|seen| seen.redemptions.len()), 0);
}
