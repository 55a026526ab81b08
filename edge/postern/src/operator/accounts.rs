//! Service accounts: what an operator says of one, and making it. They are listed, shown and ended as sessions are.

use std::time::{Duration, SystemTime};

use postern_authn::{Authn, ServiceAccountError};
use postern_identity::{Claims, User};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tracing::{info, warn};

use super::session::Facts;

/// Where one is asked for.
pub(crate) const CREATE: &str = "/operator/service-accounts/create";

/// What is said of a new one.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Wanted {
    pub(crate) name: String,
    pub(crate) user: String,
    pub(crate) email: Option<String>,
    pub(crate) groups: Vec<String>,
    /// Every other claim.
    pub(crate) claims: Map<String, Value>,
    /// How long it lives, in seconds; `None`: until it is deleted.
    pub(crate) seconds: Option<u64>,
}

/// What became of it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Created {
    /// It is there; this is its token, and nothing else holds it.
    Account { facts: Box<Facts>, token: String },
    /// There is none.
    Refused(String),
    /// The store does not confirm it.
    Unavailable(String),
}

impl Wanted {
    /// The user that policies and upstreams see: what was said is among the claims, as after a sign-in.
    ///
    /// # Errors
    /// What was wrong, and what to write.
    pub(crate) fn user(&self) -> Result<User, String> {
        plain("the name", &self.name)?;
        plain("--user", &self.user)?;
        self.email.iter().try_for_each(|email| plain("--email", email))?;
        self.groups.iter().try_for_each(|group| plain("--group", group))?;
        if let Some(name) = self.claims.keys().find(|name| OWN.contains(&name.as_str())) {
            return Err(format!("--claim {name}: {}", instead_of(name)));
        }
        let text = |text: &str| Value::from(text);
        let mut all = self.claims.clone();
        all.insert("sub".to_owned(), text(&self.user));
        all.insert("name".to_owned(), text(&self.name));
        all.extend(self.email.as_deref().map(|email| ("email".to_owned(), text(email))));
        if !self.groups.is_empty() {
            all.insert("groups".to_owned(), self.groups.iter().map(|group| text(group)).collect());
        }
        Ok(User {
            id: self.user.clone(),
            email: self.email.clone(),
            name: Some(self.name.clone()),
            claims: Claims::flatten(&all),
            ..User::default()
        })
    }

    fn life(&self) -> Option<Duration> {
        self.seconds.map(Duration::from_secs)
    }
}

/// Claims that have an option of their own, or that are Postern's to say.
const OWN: [&str; 12] =
    ["sub", "user", "name", "email", "email_verified", "groups", "iss", "aud", "exp", "iat", "jti", "sid"];

fn instead_of(claim: &str) -> &'static str {
    match claim {
        "sub" | "user" => "write it with --user",
        "name" => "it is the name of the service account",
        "email" | "email_verified" => "write it with --email; the address is yours to vouch for",
        "groups" => "write it with --group",
        _ => "Postern says that itself",
    }
}

/// Longer words are no names; tokens have room for as much.
const MOST: usize = 256;

/// Names go into logs, header fields and tokens.
fn plain(what: &str, text: &str) -> Result<(), String> {
    if text.is_empty() || text.len() > MOST || text.trim() != text || text.chars().any(char::is_control) {
        return Err(format!("{what}: write 1 to {MOST} bytes without control characters, and no space at an end"));
    }
    Ok(())
}

/// Makes it.
pub(super) async fn create(authn: &Authn, wanted: Wanted) -> Created {
    let user = match wanted.user() {
        Ok(user) => user,
        Err(why) => return Created::Refused(why),
    };
    match authn.create_service_account(user, wanted.life(), SystemTime::now().into()).await {
        Ok((account, token)) => {
            let (id, user) = (account.handle, &account.user.id);
            let (name, ends) = (&wanted.name, account.expires_at);
            let email = wanted.email.as_deref();
            let groups = (!wanted.groups.is_empty()).then(|| wanted.groups.join(","));
            info!(postern.service_account = %id, user, name, email, groups, %ends, "an operator created a service account");
            Created::Account { facts: Box::new(Facts::of(&account)), token }
        }
        Err(error @ (ServiceAccountError::TooMany | ServiceAccountError::Ended | ServiceAccountError::Random(_))) => {
            Created::Refused(error.to_string())
        }
        Err(ServiceAccountError::Store(error)) => {
            warn!(user = wanted.user, %error, "an operator wanted a service account, and the store did not confirm it");
            Created::Unavailable(error.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn wanted() -> Wanted {
        let claims = json!({"team": ["a", "b"], "level": 3, "address": {"country": "NZ"}});
        Wanted {
            name: "deploy".to_owned(),
            user: "ci".to_owned(),
            email: Some("ci@example.com".to_owned()),
            groups: vec!["ops".to_owned()],
            claims: claims.as_object().unwrap().clone(),
            seconds: None,
        }
    }

    #[test]
    fn what_is_said_of_it_is_among_its_claims_as_after_a_sign_in() {
        let user = wanted().user().unwrap();
        assert_eq!(
            (user.id.as_str(), user.email.as_deref(), user.name.as_deref()),
            ("ci", Some("ci@example.com"), Some("deploy"))
        );
        assert_eq!(user.email_verified, None);
        for (name, values) in [
            ("sub", json!(["ci"])),
            ("email", json!(["ci@example.com"])),
            ("name", json!(["deploy"])),
            ("groups", json!(["ops"])),
            ("team", json!(["a", "b"])),
            ("level", json!([3])),
            ("address.country", json!(["NZ"])),
        ] {
            assert_eq!(user.claims.find(name).map(<[Value]>::to_vec).map(Value::from), Some(values), "{name}");
        }
        let bare = Wanted { email: None, groups: Vec::new(), claims: Map::new(), ..wanted() }.user().unwrap();
        assert_eq!(bare.claims.iter().map(|(name, _)| name.to_owned()).collect::<Vec<_>>(), ["name", "sub"]);
    }

    #[test]
    fn what_cannot_be_said_is_refused_with_what_to_write() {
        let long = "x".repeat(MOST + 1);
        for (wrong, why) in [
            (Wanted { name: String::new(), ..wanted() }, "the name: write"),
            (Wanted { user: " ci".to_owned(), ..wanted() }, "--user: write"),
            (Wanted { user: long, ..wanted() }, "--user: write"),
            (Wanted { email: Some("a\nb".to_owned()), ..wanted() }, "--email: write"),
            (Wanted { groups: vec![String::new()], ..wanted() }, "--group: write"),
        ] {
            let told = wrong.user().unwrap_err();
            assert!(told.starts_with(why), "{told}");
        }
        for name in OWN {
            let claims = json!({name: "x"}).as_object().unwrap().clone();
            let told = Wanted { claims, ..wanted() }.user().unwrap_err();
            assert!(told.starts_with(&format!("--claim {name}: ")), "{told}");
        }
    }
}
