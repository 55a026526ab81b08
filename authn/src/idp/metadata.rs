//! What a provider says of itself (OpenID Connect Discovery 1.0 §3).

use serde_json::{Map, Value};
use url::Url;

use super::fetch::{FetchError, is_safe};
use super::json;
use super::key_set::Algorithm;

/// The part of a provider's metadata that is used, already checked.
#[derive(Debug)]
pub(crate) struct Metadata {
    pub(crate) authorization: Url,
    pub(crate) token: Url,
    pub(crate) userinfo: Option<Url>,
    pub(crate) keys: Url,
    pub(crate) end_session: Option<Url>,
    /// Where tokens are taken back (RFC 8414 §2).
    pub(crate) revocation: Option<Url>,
    /// Our algorithms, cut by the provider's promise.
    pub(crate) algorithms: Vec<Algorithm>,
    /// The authorization answer always names its issuer (RFC 9207).
    pub(crate) names_issuer: bool,
    /// The client secret goes into the body of a token request, not into its head.
    pub(crate) secret_in_body: bool,
}

impl Metadata {
    /// Where a provider with that issuer publishes its metadata (Discovery §4.1).
    pub(crate) fn address(issuer: &str) -> Option<Url> {
        let issuer = issuer.strip_suffix('/').unwrap_or(issuer);
        Url::parse(&format!("{issuer}/.well-known/openid-configuration")).ok()
    }

    /// Reads the metadata of `issuer`, which must name itself by the very same bytes (S-057).
    ///
    /// # Errors
    /// [`FetchError`].
    pub(crate) fn parse(bytes: &[u8], issuer: &str) -> Result<Self, FetchError> {
        let object = json::object(bytes).ok_or(FetchError::Malformed("the metadata is not a JSON object"))?;
        if object.get("issuer").and_then(Value::as_str) != Some(issuer) {
            return Err(FetchError::OtherIssuer);
        }
        Ok(Self {
            authorization: required(&object, "authorization_endpoint")?,
            token: required(&object, "token_endpoint")?,
            userinfo: endpoint(&object, "userinfo_endpoint")?,
            keys: required(&object, "jwks_uri")?,
            end_session: endpoint(&object, "end_session_endpoint")?,
            // Tokens are not sent where others can read them; without such a place nothing is taken back.
            revocation: endpoint(&object, "revocation_endpoint").ok().flatten(),
            algorithms: algorithms(&object),
            names_issuer: object.get("authorization_response_iss_parameter_supported") == Some(&Value::Bool(true)),
            secret_in_body: secret_in_body(&object),
        })
    }
}

fn endpoint(object: &Map<String, Value>, name: &str) -> Result<Option<Url>, FetchError> {
    let Some(value) = object.get(name).filter(|value| !value.is_null()) else { return Ok(None) };
    let url = value.as_str().and_then(|text| Url::parse(text).ok());
    let url = url.ok_or(FetchError::Malformed("an endpoint of the metadata is no address"))?;
    if is_safe(&url) { Ok(Some(url)) } else { Err(FetchError::NotHttps) }
}

fn required(object: &Map<String, Value>, name: &str) -> Result<Url, FetchError> {
    endpoint(object, name)?.ok_or(FetchError::Malformed("the metadata lacks an endpoint"))
}

/// RS256 is what every provider must offer (Discovery §3), so it stands in for a missing list.
fn algorithms(object: &Map<String, Value>) -> Vec<Algorithm> {
    match object.get("id_token_signing_alg_values_supported").and_then(Value::as_array) {
        Some(names) => names.iter().filter_map(|name| Algorithm::parse(name.as_str()?)).collect(),
        None => vec![Algorithm::Rs256],
    }
}

/// In the head is what every provider must take (RFC 6749 §2.3.1), unless it says that it only takes the other.
fn secret_in_body(object: &Map<String, Value>) -> bool {
    let methods = object.get("token_endpoint_auth_methods_supported").and_then(Value::as_array);
    let has = |method: &str| methods.is_some_and(|methods| methods.iter().any(|own| own == method));
    has("client_secret_post") && !has("client_secret_basic")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn metadata() -> Value {
        json!({"issuer": "https://idp.example/", "authorization_endpoint": "https://idp.example/a", "token_endpoint": "https://idp.example/t",
               "jwks_uri": "https://idp.example/k", "id_token_signing_alg_values_supported": ["HS256", "none", "ES256"]})
    }

    fn parse(value: &Value) -> Result<Metadata, FetchError> {
        Metadata::parse(value.to_string().as_bytes(), "https://idp.example/")
    }

    #[test]
    fn s_057_metadata_of_another_issuer_is_refused_to_the_byte() {
        for other in ["https://idp.example", "https://IDP.example/", "https://idp.example//", "https://idp.example/ "] {
            let mut changed = metadata();
            changed["issuer"] = json!(other);
            assert!(matches!(parse(&changed), Err(FetchError::OtherIssuer)), "{other}");
        }
        assert!(parse(&metadata()).is_ok());
    }

    #[test]
    fn s_060_only_asymmetric_algorithms_of_the_metadata_are_left() {
        assert_eq!(parse(&metadata()).unwrap().algorithms, [Algorithm::Es256]);
    }

    #[test]
    fn s_070_an_endpoint_in_the_clear_is_refused() {
        for name in
            ["authorization_endpoint", "token_endpoint", "jwks_uri", "userinfo_endpoint", "end_session_endpoint"]
        {
            let mut changed = metadata();
            changed[name] = json!("http://idp.example/x");
            assert!(matches!(parse(&changed), Err(FetchError::NotHttps)), "{name}");
        }
    }

    #[test]
    fn s_070_no_token_is_taken_back_in_the_clear() {
        let mut changed = metadata();
        for (address, is_used) in [("http://idp.example/r", false), ("https://idp.example/r", true)] {
            changed["revocation_endpoint"] = json!(address);
            assert_eq!(parse(&changed).unwrap().revocation.is_some(), is_used, "{address}");
        }
    }

    #[test]
    fn the_metadata_address_has_no_double_slash() {
        let address = Metadata::address("https://idp.example/realm/").unwrap();
        assert_eq!(address.as_str(), "https://idp.example/realm/.well-known/openid-configuration");
    }
}
