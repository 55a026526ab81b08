//! Verified claims to a user: what each kind of provider calls what (02 §3.1).

use postern_identity::{Claims, User};
use serde_json::{Map, Value};

use crate::ProviderKind;

/// Claims that speak of the token, not of the user.
const OF_THE_TOKEN: [&str; 4] = ["nonce", "at_hash", "c_hash", "s_hash"];

/// The session's own claims: those of the ID token.
pub(crate) fn session_claims(token: &Map<String, Value>) -> Claims {
    Claims::flatten(&about_the_user(token))
}

/// The user: userinfo over the ID token (02 §1.4 D). `subject` is the token's, to which userinfo was already held.
pub(crate) fn user(
    kind: ProviderKind,
    issuer: &str,
    subject: &str,
    token: &Map<String, Value>,
    userinfo: Map<String, Value>,
) -> User {
    let mut merged = about_the_user(token);
    merged.extend(userinfo);
    // Who vouches for what is the token's to say; userinfo may carry members of the same name.
    merged.insert("iss".into(), issuer.into());
    if kind == ProviderKind::Ping
        && let Some(mail) = merged.remove("mail")
    {
        merged.entry("email").or_insert(mail);
    }
    let text = |name: &str| merged.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let id = if kind == ProviderKind::Azure { text("oid") } else { None };
    User {
        id: id.unwrap_or(subject).to_owned(),
        issuer: issuer.to_owned(),
        email: text("email").map(str::to_owned),
        email_verified: merged.get("email_verified").and_then(truth),
        name: text("name").map(str::to_owned),
        claims: Claims::flatten(&merged),
    }
}

fn about_the_user(token: &Map<String, Value>) -> Map<String, Value> {
    let kept = token.iter().filter(|(name, _)| !OF_THE_TOKEN.contains(&name.as_str()));
    kept.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Whether a claim says yes. Some providers write the truth as a text; what is neither is not a promise.
#[must_use]
pub fn truth(value: &Value) -> Option<bool> {
    match value {
        Value::Null => None,
        Value::Bool(truth) => Some(*truth),
        Value::String(text) => Some(text == "true"),
        Value::Number(_) | Value::Array(_) | Value::Object(_) => Some(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn merged(kind: ProviderKind, token: Value, userinfo: Value) -> User {
        let (Value::Object(token), Value::Object(userinfo)) = (token, userinfo) else { panic!("objects") };
        user(kind, "https://idp.example", "sub-1", &token, userinfo)
    }

    #[test]
    fn userinfo_wins_over_the_id_token() {
        let token = json!({"email": "old@x.example", "groups": ["a"], "nonce": "n"});
        let user = merged(ProviderKind::Oidc, token, json!({"email": "new@x.example", "iss": "https://other.example"}));
        assert_eq!((user.email.as_deref(), user.id.as_str()), (Some("new@x.example"), "sub-1"));
        assert_eq!(user.claims.find("groups"), Some(&[json!("a")][..]));
        assert_eq!(user.claims.find("nonce"), None);
        assert_eq!(user.claims.find("iss"), Some(&[json!("https://idp.example")][..]));
    }

    #[test]
    fn s_069_an_address_is_verified_only_if_the_provider_says_so_plainly() {
        let verified =
            |value: Value| merged(ProviderKind::Oidc, json!({}), json!({"email_verified": value})).email_verified;
        assert_eq!(verified(json!(true)), Some(true));
        assert_eq!(verified(json!("true")), Some(true));
        for no in [json!(false), json!("false"), json!("yes"), json!(1), json!([])] {
            assert_eq!(verified(no), Some(false));
        }
        assert_eq!(verified(json!(null)), None);
    }

    #[test]
    fn azure_names_users_by_oid_and_ping_calls_the_email_mail() {
        assert_eq!(merged(ProviderKind::Azure, json!({"oid": "o-1"}), json!({})).id, "o-1");
        assert_eq!(
            merged(ProviderKind::Ping, json!({}), json!({"mail": "p@x.example"})).email.as_deref(),
            Some("p@x.example")
        );
    }
}
