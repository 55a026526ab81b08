//! URLs that the edge signs and authn believes (02 §1.1, §1.4 A), or the other way round.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use url::Url;

use crate::{FlowHash, IdpId, Keyring, Purpose, Timestamp};

/// How long a signed URL is good for.
const LIFETIME: Duration = Duration::from_secs(300);
/// At most so many hosts get a cookie beside the one where somebody wanted to go (01 §2.1).
pub const MAX_ADDITIONAL_HOSTS: usize = 5;
/// How far two clocks may differ (03 §2).
const SKEW: Duration = Duration::from_secs(60);

/// Why a signed URL is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignedUrlError {
    /// No signature, or one that does not fit: nothing in the URL may be used.
    #[error("the URL is not signed by this deployment")]
    NotSigned,
    /// The signature fits, the time is over: its content is genuine, but old.
    #[error("the URL has expired")]
    Expired,
}

/// `url` with `pomerium_issued`, `pomerium_expiry` (5 min) and `pomerium_signature`; parameters are sorted, the scheme is https.
#[must_use]
pub fn signed_url(keyring: &Keyring, mut url: Url, now: Timestamp) -> Url {
    let kept: Vec<(String, String)> = url
        .query_pairs()
        .filter(|(key, _)| !is_own(key))
        .map(|(key, value)| (key.into_owned(), value.into_owned()))
        .collect();
    let (issued, expiry) = (now.as_secs().to_string(), now.plus(LIFETIME).as_secs().to_string());
    let pairs =
        kept.into_iter().chain([("pomerium_issued".into(), issued), ("pomerium_expiry".into(), expiry)]).collect();
    let unsigned = canonical(&mut url, pairs);
    let tag = URL_SAFE.encode(keyring.mac(Purpose::SignedUrl, &[unsigned.as_bytes()]));
    url.query_pairs_mut().append_pair("pomerium_signature", &tag);
    url
}

/// Whether `url` was signed by this deployment and is still good. Order and escaping of parameters may have changed;
/// host, port, path and every value may not.
///
/// # Errors
/// [`SignedUrlError`].
pub fn verify_signed_url(keyring: &Keyring, url: &Url, now: Timestamp) -> Result<(), SignedUrlError> {
    let mut url = url.clone();
    let all: Vec<(String, String)> =
        url.query_pairs().map(|(key, value)| (key.into_owned(), value.into_owned())).collect();
    let tag = only(&all, "pomerium_signature")
        .and_then(|text| URL_SAFE.decode(text).ok())
        .ok_or(SignedUrlError::NotSigned)?;
    let number = |name| only(&all, name).and_then(|text| text.parse::<i64>().ok()).ok_or(SignedUrlError::NotSigned);
    let (issued, expiry) = (number("pomerium_issued")?, number("pomerium_expiry")?);
    let pairs = all.iter().filter(|(key, _)| key != "pomerium_signature").cloned().collect();
    let unsigned = canonical(&mut url, pairs);
    if tag.len() != 32 || !keyring.verify(Purpose::SignedUrl, &[unsigned.as_bytes()], &tag) {
        return Err(SignedUrlError::NotSigned);
    }
    let early = now.plus(SKEW) < Timestamp::from_secs(issued);
    let late = now.minus(SKEW) > Timestamp::from_secs(expiry);
    if early || late { Err(SignedUrlError::Expired) } else { Ok(()) }
}

fn is_own(key: &str) -> bool {
    matches!(key, "pomerium_issued" | "pomerium_expiry" | "pomerium_signature")
}

/// The one value of that name; `None` if it is missing or repeated.
fn only<'p>(pairs: &'p [(String, String)], name: &str) -> Option<&'p str> {
    let mut found = pairs.iter().filter(|(key, _)| key == name);
    let (_, value) = found.next()?;
    found.next().is_none().then_some(value)
}

fn canonical(url: &mut Url, mut pairs: Vec<(String, String)>) -> String {
    pairs.sort();
    // Any scheme but a web one leaves the URL as it is, and then its MAC simply differs.
    let _unchanged_if_refused = url.set_scheme("https");
    url.set_fragment(None);
    url.query_pairs_mut().clear().extend_pairs(pairs);
    url.as_str().to_owned()
}

/// What the edge asks of authn: sign this browser in and send it to `redirect_uri`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignInRequest {
    /// Where the browser goes in the end.
    pub redirect_uri: Url,
    /// Which identity provider the route wants.
    pub idp: IdpId,
    /// Who gets the session.
    pub recipient: Recipient,
    /// Whether this is already the second try after a slow first one; there is no third by itself (rulings).
    pub restarted: bool,
    /// Further hosts, each `host` or `host:port`, that a browser is led through afterwards so that each has a cookie of its own
    /// (`depends_on`); at most [`MAX_ADDITIONAL_HOSTS`].
    pub additional_hosts: Vec<String>,
}

/// Who gets the session of a sign-in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recipient {
    /// The browser that began, which wanted to go to an https address of a route; this ties the answer to it.
    Browser(FlowHash),
    /// A program that waits where the browser is sent (02 §4.2).
    Program {
        /// The callback of the host that the program wants to ask, with a credential that is good there alone.
        door: Url,
    },
}

impl Recipient {
    /// What ties the answer to a browser, if one gets it.
    #[must_use]
    pub const fn flow(&self) -> Option<&FlowHash> {
        match self {
            Self::Browser(flow) => Some(flow),
            Self::Program { .. } => None,
        }
    }
}

/// Why a sign-in request is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignInRequestError {
    /// Not signed by an edge of this deployment, or not complete.
    #[error("the sign-in address is not signed by this deployment")]
    NotSigned,
    /// Genuine, but older than five minutes: start again from this.
    #[error("the sign-in address has expired")]
    Expired(Box<SignInRequest>),
}

impl SignInRequest {
    /// The address at authn that the browser is sent to: `sign_in` is `https://<authenticate>/.pomerium/sign_in`.
    #[must_use]
    pub fn to_url(&self, keyring: &Keyring, mut sign_in: Url, now: Timestamp) -> Url {
        {
            let mut pairs = sign_in.query_pairs_mut();
            pairs
                .clear()
                .append_pair("pomerium_redirect_uri", self.redirect_uri.as_str())
                .append_pair("pomerium_idp_id", self.idp.as_str());
            match &self.recipient {
                Recipient::Browser(flow) => pairs.append_pair("pomerium_flow", &flow.encode()),
                Recipient::Program { door } => pairs
                    .append_pair("pomerium_callback_uri", door.as_str())
                    .append_pair("pomerium_programmatic", "true"),
            };
            if self.restarted {
                pairs.append_pair("pomerium_restarted", "1");
            }
            if !self.additional_hosts.is_empty() {
                pairs.append_pair("pomerium_additional_hosts", &self.additional_hosts.join(","));
            }
        }
        signed_url(keyring, sign_in, now)
    }

    /// Reads a request from the full URL at which authn was asked; the signature is checked before anything else (rulings).
    ///
    /// # Errors
    /// [`SignInRequestError`].
    pub fn from_url(keyring: &Keyring, url: &Url, now: Timestamp) -> Result<Self, SignInRequestError> {
        let verdict = verify_signed_url(keyring, url, now);
        if verdict == Err(SignedUrlError::NotSigned) {
            return Err(SignInRequestError::NotSigned);
        }
        let all: Vec<(String, String)> =
            url.query_pairs().map(|(key, value)| (key.into_owned(), value.into_owned())).collect();
        let recipient = || match only(&all, "pomerium_programmatic") {
            Some("true") => Some(Recipient::Program { door: Url::parse(only(&all, "pomerium_callback_uri")?).ok()? }),
            Some(_) => None,
            None => FlowHash::decode(only(&all, "pomerium_flow")?).map(Recipient::Browser),
        };
        let hosts = only(&all, "pomerium_additional_hosts").unwrap_or_default().split(',');
        let hosts = hosts.filter(|host| !host.is_empty()).take(MAX_ADDITIONAL_HOSTS).map(str::to_owned);
        let request = || {
            Some(Self {
                redirect_uri: Url::parse(only(&all, "pomerium_redirect_uri")?).ok()?,
                idp: IdpId::new(only(&all, "pomerium_idp_id")?),
                recipient: recipient()?,
                restarted: only(&all, "pomerium_restarted").is_some(),
                additional_hosts: hosts.collect(),
            })
        };
        let request = request().ok_or(SignInRequestError::NotSigned)?;
        if verdict.is_err() { Err(SignInRequestError::Expired(Box::new(request))) } else { Ok(request) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Secret;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn keyring() -> Keyring {
        Keyring::derive(&Secret::new([1; 32]), &Secret::new([2; 32]))
    }

    fn request() -> SignInRequest {
        SignInRequest {
            redirect_uri: Url::parse("https://app.example.com/x?y=%26z").unwrap(),
            idp: IdpId::new("main"),
            recipient: Recipient::Browser(FlowHash::from_bytes([3; 16])),
            restarted: false,
            additional_hosts: Vec::new(),
        }
    }

    fn sign_in() -> Url {
        Url::parse("https://auth.example.com/.pomerium/sign_in").unwrap()
    }

    #[test]
    fn a_sign_in_request_survives_the_trip_and_reordering() {
        let url = request().to_url(&keyring(), sign_in(), NOW);
        assert_eq!(SignInRequest::from_url(&keyring(), &url, NOW), Ok(request()));
        let mut pairs: Vec<_> = url.query_pairs().into_owned().collect();
        pairs.reverse();
        let mut shuffled = url;
        shuffled.query_pairs_mut().clear().extend_pairs(pairs);
        assert_eq!(SignInRequest::from_url(&keyring(), &shuffled, NOW), Ok(request()));
    }

    #[test]
    fn the_hosts_that_are_to_have_a_cookie_too_survive_the_trip_and_cannot_be_changed() {
        let hosts = ["api.example.com", "files.example.com:8443"].map(str::to_owned).to_vec();
        let url = SignInRequest { additional_hosts: hosts.clone(), ..request() }.to_url(&keyring(), sign_in(), NOW);
        let named = url.query_pairs().find(|(name, _)| name == "pomerium_additional_hosts");
        assert_eq!(named.unwrap().1, "api.example.com,files.example.com:8443", "02 §1.1");
        assert_eq!(SignInRequest::from_url(&keyring(), &url, NOW).map(|request| request.additional_hosts), Ok(hosts));
        for (from, to) in [("api.example.com", "evil.example"), ("%3A8443", ""), ("pomerium_additional_hosts", "x")] {
            let changed = Url::parse(&url.as_str().replacen(from, to, 1)).unwrap();
            assert_ne!(changed, url, "{from}");
            assert_eq!(SignInRequest::from_url(&keyring(), &changed, NOW), Err(SignInRequestError::NotSigned), "{to}");
        }
        let plain = request().to_url(&keyring(), sign_in(), NOW);
        let added = Url::parse(&format!("{plain}&pomerium_additional_hosts=evil.example")).unwrap();
        assert_eq!(SignInRequest::from_url(&keyring(), &added, NOW), Err(SignInRequestError::NotSigned));
        let many = SignInRequest { additional_hosts: vec!["h".to_owned(); 9], ..request() };
        let read = SignInRequest::from_url(&keyring(), &many.to_url(&keyring(), sign_in(), NOW), NOW).unwrap();
        assert_eq!(read.additional_hosts.len(), MAX_ADDITIONAL_HOSTS);
    }

    #[test]
    fn a_sign_in_for_a_program_survives_the_trip_and_becomes_no_other() {
        let door = Url::parse("https://db.example.com/.pomerium/callback/").unwrap();
        let redirect_uri = Url::parse("http://127.0.0.1:39000/").unwrap();
        let request = SignInRequest { redirect_uri, recipient: Recipient::Program { door }, ..request() };
        let url = request.to_url(&keyring(), sign_in(), NOW);
        assert_eq!(SignInRequest::from_url(&keyring(), &url, NOW), Ok(request));
        for (from, to) in
            [("programmatic=true", "programmatic=false"), ("db.example.com", "x.example.com"), ("39000", "1")]
        {
            let changed = Url::parse(&url.as_str().replacen(from, to, 1)).unwrap();
            assert_ne!(changed, url, "{from}");
            assert_eq!(SignInRequest::from_url(&keyring(), &changed, NOW), Err(SignInRequestError::NotSigned), "{to}");
        }
    }

    #[test]
    fn s_086_a_changed_sign_in_request_is_refused() {
        let url = request().to_url(&keyring(), sign_in(), NOW).to_string();
        for (from, to) in [
            ("app.example.com", "evil.example"),
            ("auth.example", "auth2.example"),
            ("sign_in", "sign_out"),
            ("pomerium_idp_id=main", "pomerium_idp_id=other"),
        ] {
            let changed = Url::parse(&url.replacen(from, to, 1)).unwrap();
            assert_eq!(SignInRequest::from_url(&keyring(), &changed, NOW), Err(SignInRequestError::NotSigned), "{to}");
        }
        let doubled = Url::parse(&format!("{url}&pomerium_redirect_uri=https://evil.example/")).unwrap();
        assert_eq!(SignInRequest::from_url(&keyring(), &doubled, NOW), Err(SignInRequestError::NotSigned));
        let unsigned = Url::parse(url.split("&pomerium_signature").next().unwrap()).unwrap();
        assert_eq!(SignInRequest::from_url(&keyring(), &unsigned, NOW), Err(SignInRequestError::NotSigned));
    }

    #[test]
    fn a_slow_user_is_told_apart_from_a_forger() {
        let url = request().to_url(&keyring(), sign_in(), NOW);
        let late = NOW.plus(Duration::from_secs(361));
        assert_eq!(
            SignInRequest::from_url(&keyring(), &url, late),
            Err(SignInRequestError::Expired(Box::new(request())))
        );
        assert_eq!(SignInRequest::from_url(&keyring(), &url, NOW.plus(Duration::from_secs(359))), Ok(request()));
    }
}
