use super::*;
use crate::config::{Environment, load_text};

const FILE: &str = "insecure_server: true
authenticate_service_url: https://auth.example.com
idp_provider: oidc
idp_provider_url: https://idp.example.com
idp_client_id: a
routes:
  - {from: https://a.example.com, to: http://a.internal, policy: {allow: {and: [groups: ops, claim/level: 3]}}}
  - {from: https://b.example.com, to: http://b.internal, idp_client_id: b, idp_client_secret: b, allowed_users: [u-1]}
";

fn probe() -> Probe {
    let environment = Environment::of::<&str, &str>([]).unwrap();
    Probe::new(&load_text(None, FILE, false, &environment).config.unwrap()).unwrap()
}

fn outcome(url: &str, who: Who) -> Outcome {
    let question = Question::get(Address::parse(url).unwrap(), who, Timestamp::from_secs(1_800_000_000));
    Outcome::of(probe().ask(&question).unwrap().admission.verdict())
}

#[test]
fn an_address_is_what_a_client_would_send() {
    let parsed =
        |text: &str| Address::parse(text).map(|address| (address.authority().to_owned(), address.target().to_owned()));
    let of = |authority: &str, target: &str| Ok((authority.to_owned(), target.to_owned()));
    assert_eq!(parsed("https://App.example.com"), of("App.example.com", "/"));
    assert_eq!(parsed("app.example.com:8443/a/../b%2f?x=1#top"), of("app.example.com:8443", "/a/../b%2f?x=1"));
    assert_eq!(parsed("HTTP://h?q"), of("h", "/?q"));
    assert_eq!(parsed("https://bücher.example/ä b"), of("xn--bcher-kva.example", "/%C3%A4%20b"));
    assert_eq!(parsed("https://[::1]:8443/"), of("[::1]:8443", "/"));
    for (text, error) in
        [("ftp://h/", AddressError::Scheme), ("https:///x", AddressError::Host), ("https://a@b/", AddressError::Host)]
    {
        assert_eq!(Address::parse(text), Err(error), "{text}");
    }
}

#[test]
fn whoever_is_described_is_signed_in_at_the_provider_of_the_route() {
    let mut person = Person { groups: vec!["ops".to_owned()], ..Person::default() };
    assert_eq!(outcome("https://a.example.com/", Who::Person(person.clone())), Outcome::Refused);
    person.claim("level=3").unwrap();
    assert_eq!(outcome("https://a.example.com/", Who::Person(person)), Outcome::Allowed);
    let user = Person { user: Some("u-1".to_owned()), ..Person::default() };
    assert_eq!(outcome("https://b.example.com/", Who::Person(user.clone())), Outcome::Allowed);
    let elsewhere = user.session(&IdpId::new("another"), Timestamp::from_secs(1_800_000_000));
    assert_eq!(outcome("https://b.example.com/", Who::Session(Arc::new(elsewhere))), Outcome::SignIn);
    assert_eq!(outcome("https://b.example.com/", Who::Nobody), Outcome::SignIn);
    assert_eq!(outcome("https://c.example.com/", Who::Nobody), Outcome::NotFound);
    assert_eq!(outcome("https://a.example.com/ping", Who::Nobody), Outcome::Answered);
}

#[test]
fn claims_are_json_where_they_can_be_and_lists_where_they_come_again() {
    let mut person = Person::default();
    assert!(person.is_nobody());
    for claim in ["a=x", "a=y", "b=true", "c=[1,2]", "d=a=b", "email_verified=false", "email=a@x.test"] {
        person.claim(claim).unwrap();
    }
    assert!(person.claim("novalue").is_err() && person.claim("=x").is_err());
    let session = person.session(&IdpId::new("i"), Timestamp::default());
    let values =
        |name: &str| serde_json::Value::from(session.claims.find(name).unwrap_or_default().to_vec()).to_string();
    assert_eq!(["a", "b", "c", "d"].map(values), [r#"["x","y"]"#, "[true]", "[1,2]", r#"["a=b"]"#]);
    assert_eq!((session.user.email.as_deref(), session.user.email_verified), (Some("a@x.test"), Some(false)));
    assert_eq!(session.user.id, "(not said)");
}

#[test]
fn whoever_is_described_has_the_claims_and_the_user_that_a_sign_in_gives() {
    let mut mallory =
        Person { user: Some("u".to_owned()), email: Some("mallory@x.test".to_owned()), ..Person::default() };
    mallory.claim("email_verified=\"false\"").unwrap();
    let session = mallory.session(&IdpId::new("i"), Timestamp::default());
    for claims in [&session.claims, &session.user.claims] {
        assert_eq!(claims.find("sub"), Some(&[serde_json::json!("u")][..]));
        assert_eq!(claims.find("email"), Some(&[serde_json::json!("mallory@x.test")][..]));
    }
    // A provider may write the truth as a text.
    assert_eq!(session.user.email_verified, Some(false));
    let file = FILE.replace(
        "{and: [groups: ops, claim/level: 3]}}",
        "{and: [accept: true]}, deny: {or: [claim/email: mallory@x.test]}}",
    );
    let environment = Environment::of::<&str, &str>([]).unwrap();
    let probe = Probe::new(&load_text(None, &file, false, &environment).config.unwrap()).unwrap();
    let ask = |person: Person| {
        let address = Address::parse("https://a.example.com/").unwrap();
        let question = Question::get(address, Who::Person(person), Timestamp::from_secs(1_800_000_000));
        Outcome::of(probe.ask(&question).unwrap().admission.verdict())
    };
    assert_eq!(ask(mallory), Outcome::Refused);
    assert_eq!(ask(Person { email: Some("alice@x.test".to_owned()), ..Person::default() }), Outcome::Allowed);
}

#[test]
fn whoever_is_described_by_an_address_alone_is_a_user_like_any_other() {
    let file = FILE.replace("allowed_users: [u-1]", "allow_any_authenticated_user: true");
    let environment = Environment::of::<&str, &str>([]).unwrap();
    let probe = Probe::new(&load_text(None, &file, false, &environment).config.unwrap()).unwrap();
    let person = Person { email: Some("alice@x.test".to_owned()), ..Person::default() };
    let address = Address::parse("https://b.example.com/").unwrap();
    let question = Question::get(address, Who::Person(person), Timestamp::from_secs(1_800_000_000));
    assert_eq!(Outcome::of(probe.ask(&question).unwrap().admission.verdict()), Outcome::Allowed);
}

#[test]
fn a_dollar_sign_that_is_escaped_goes_up_as_itself_and_nothing_is_filled_in() {
    let file = "insecure_server: true
authenticate_service_url: https://auth.example.com
routes:
  - from: https://a.example.com
    to: http://a.internal
    allow_public_unauthenticated_access: true
    set_request_headers:
      X-Basic: 'Basic pa$$word'
      X-Reference: '$$pomerium.jwt'
      X-Cookie: 'a$${pomerium.request.headers[\"X-Private\"]}'
      X-Price: '$$$$5'
";
    let environment = Environment::of::<&str, &str>([]).unwrap();
    let probe = Probe::new(&load_text(None, file, false, &environment).config.unwrap()).unwrap();
    let mut question =
        Question::get(Address::parse("https://a.example.com/").unwrap(), Who::Nobody, Timestamp::from_secs(1));
    question.fields.insert("x-private", HeaderValue::from_static("hunter2"));
    let upward = probe.ask(&question).unwrap().upward().unwrap();
    let sent = ["x-basic", "x-reference", "x-cookie", "x-price"].map(|name| upward.fields[name].to_str().unwrap());
    assert_eq!(sent, ["Basic pa$word", "$pomerium.jwt", "a${pomerium.request.headers[\"X-Private\"]}", "$$5"]);
}
