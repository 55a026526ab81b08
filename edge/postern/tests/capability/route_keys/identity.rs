//! What an upstream is told of who asks (01 §5), and whose word of that is taken.

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::{Office, open};
use crate::support::World;

/// What the assertion says that went up, if one did.
async fn asserted(office: &Office, name: &str) -> Result<Option<Value>> {
    let asked = office.carried(name, "/", "X-Pomerium-Jwt-Assertion: forged\r\n").await?;
    let Some(assertion) = asked.header("x-pomerium-jwt-assertion") else {
        let ours = asked.headers.iter().filter(|(name, _)| name.starts_with("x-pomerium-"));
        assert_eq!(ours.count(), 0, "{name}: {asked:?}");
        return Ok(None);
    };
    let claims = assertion.split('.').nth(1).context("no claims")?;
    Ok(Some(serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims)?)?))
}

#[tokio::test]
async fn row_pass_identity_headers_goes_before_what_the_file_says() -> Result<()> {
    let lines: [(&str, &[&str]); 3] =
        [("unset", &[]), ("on", &["pass_identity_headers: true"]), ("off", &["pass_identity_headers: false"])];
    for (settings, expected) in [
        ("", [false, true, false]),
        ("pass_identity_headers: true\njwt_claims_headers: {X-Email: email}\n", [true, true, false]),
    ] {
        let office = open(settings, &lines).await?;
        for ((name, _), expected) in lines.iter().zip(expected) {
            let claims = asserted(&office, name).await?;
            assert_eq!(claims.is_some(), expected, "{name} with {settings:?}: {claims:?}");
            // Nobody is signed in: the assertion says so (01 §5.1).
            let subject = claims.and_then(|claims| Some(claims.get("sub")?.as_str()?.to_owned()));
            assert_eq!(subject.as_deref(), expected.then_some(""), "{name}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn row_jwt_issuer_format_says_what_the_issuer_looks_like() -> Result<()> {
    let office = open(
        "pass_identity_headers: true\njwt_issuer_format: uri\n",
        &[("unset", &[]), ("host", &["jwt_issuer_format: hostOnly"]), ("uri", &["jwt_issuer_format: URI"])],
    )
    .await?;
    for name in ["unset", "host", "uri"] {
        let host = format!("{name}.{}", World::DOMAIN);
        let claims = asserted(&office, name).await?.context("no assertion")?;
        let issuer = if name == "host" { host.clone() } else { format!("https://{host}/") };
        assert_eq!((&claims["iss"], &claims["aud"]), (&issuer.into(), &host.into()), "{name}");
    }
    office.is_refused(&["jwt_issuer_format: both"], "jwt_issuer_format")
}

#[tokio::test]
async fn row_bearer_token_format_leaves_tokens_of_others_to_the_upstream() -> Result<()> {
    let office = open("", &[("unset", &[]), ("usual", &["bearer_token_format: default"])]).await?;
    for name in ["unset", "usual"] {
        let asked = office.carried(name, "/", "Authorization: Bearer eyJhbGciOiJub25lIn0.e30.\r\n").await?;
        assert_eq!(asked.header("authorization"), Some("Bearer eyJhbGciOiJub25lIn0.e30."), "{name}");
    }
    for format in ["idp_access_token", "idp_identity_token", "jwt", "none"] {
        office.is_refused(&[&format!("bearer_token_format: {format}")], "bearer_token_format")?;
    }
    Ok(())
}
