//! One order: the authority looks at a challenge of ours, and then issues the certificate (RFC 8555 §7.4).

use std::io;
use std::time::Duration;

use instant_acme::{
    Account, AuthorizationHandle, AuthorizationStatus, ChallengeType, Error, Identifier, KeyAuthorization, NewOrder,
    Order, OrderStatus, RetryPolicy,
};
use postern_edge::Challenges;
use postern_storage::StorageError;
use rcgen::{CertificateParams, CertificateSigningRequest, CustomExtension, DistinguishedName, KeyPair};
use tokio::runtime::Handle;

use super::account::NoAccount;
use super::folder::{Folder, Held};
use super::store::Turn;

/// Until when the authority must have looked, and then issued. Some take minutes.
const PATIENCE: Duration = Duration::from_secs(5 * 60);

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub(super) enum OrderError {
    #[error(transparent)]
    Account(NoAccount),
    #[error("the authority: {0}")]
    Authority(#[from] Error),
    /// It looked, and did not find what it had asked for.
    #[error("the authority could not see that the name is ours, by {kind}: {why}")]
    Unseen { kind: &'static str, why: String },
    /// It does not look in a way that we can answer.
    #[error("the authority does not offer {0}")]
    NotOffered(&'static str),
    /// Many issue no such certificates.
    #[error("the authority, asked for a certificate that must be stapled: {0}")]
    MustStaple(#[source] Error),
    #[error("what was issued is no certificate of that name with our key")]
    Unfit,
    #[error("the folder of certificates: {0}")]
    Folder(io::Error),
    #[error(transparent)]
    Store(#[from] StorageError),
    /// Whatever is done now might be done twice.
    #[error("another process may have begun to order it as well")]
    Elsewhere,
    /// The authority has begun to count.
    #[error("the order was given up: other processes cannot answer its challenge: {0}")]
    Untold(String),
    #[error("no key or request can be made")]
    Key(#[from] rcgen::Error),
    #[error("the challenge cannot be answered")]
    Challenge,
    #[error("the authority did not finish in time")]
    Late,
}

impl From<NoAccount> for OrderError {
    fn from(none: NoAccount) -> Self {
        match none {
            NoAccount::Folder(error) => Self::Folder(error),
            NoAccount::Store(error) => Self::Store(error),
            NoAccount::Elsewhere => Self::Elsewhere,
            none @ NoAccount::Refused(_) => Self::Account(none),
        }
    }
}

impl OrderError {
    /// The authority does not know the account that orders (RFC 8555 §6.7).
    pub(super) fn is_of_the_account(&self) -> bool {
        let Self::Authority(Error::Api(problem)) = self else { return false };
        problem.r#type.as_deref().is_some_and(|kind| kind.ends_with(":accountDoesNotExist"))
    }

    /// Nothing was ordered that an authority would count.
    pub(super) const fn is_before_the_order(&self) -> bool {
        matches!(self, Self::Account(_) | Self::Folder(_) | Self::Store(_) | Self::Elsewhere)
    }

    /// What an operator can do about it.
    pub(super) fn hint(&self) -> &'static str {
        match self {
            Self::Unseen { .. } => {
                "let DNS of that name lead here, and let the authority reach port 443 (TLS-ALPN-01) or 80 (`http_redirect_addr`, HTTP-01)"
            }
            Self::NotOffered(_) => {
                "write `http_redirect_addr: :80` for HTTP-01, or give the name a certificate under `certificates`"
            }
            Self::Account(_) => {
                "check `autocert_ca`, `autocert_trusted_ca_file`, `autocert_eab_key_id`, and that this host reaches the authority"
            }
            Self::Authority(Error::Api(problem))
                if problem.r#type.as_deref().is_some_and(|kind| kind.ends_with(":rateLimited")) =>
            {
                "the authority allows no more for now: wait, or write `autocert_use_staging: true` while trying out"
            }
            Self::MustStaple(_) => {
                "remove `autocert_must_staple` unless that authority issues such certificates: Let's Encrypt refuses them since 2025"
            }
            Self::Authority(_) | Self::Late => {
                "check that this host reaches the authority, and what the authority says of the name"
            }
            Self::Folder(_) => "see to the disk that `autocert_dir` is on: nothing is ordered while it hangs",
            Self::Store(_) | Self::Untold(_) => {
                "nothing is ordered while the store is away, and what was issued is served on; `postern store check` says what it lacks"
            }
            Self::Elsewhere => "nothing: it is looked for what comes of that",
            Self::Unfit | Self::Key(_) | Self::Challenge => {
                "look at the log around it; the old certificate stays in force"
            }
        }
    }
}

/// How the authority looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// At the public listener.
    TlsAlpn,
    /// At the listener that sends everybody to https.
    Http,
}

impl Look {
    const fn name(self) -> &'static str {
        match self {
            Self::TlsAlpn => "TLS-ALPN-01",
            Self::Http => "HTTP-01",
        }
    }

    const fn kind(self) -> ChallengeType {
        match self {
            Self::TlsAlpn => ChallengeType::TlsAlpn01,
            Self::Http => ChallengeType::Http01,
        }
    }
}

/// Where challenges are answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answers<'o> {
    pub(super) here: &'o Challenges,
    pub(super) there: There<'o>,
}

/// Where other processes find them.
#[derive(Debug, Clone, Copy)]
pub(super) enum There<'o> {
    Nowhere,
    Folder(&'o Folder),
    Store(&'o Turn),
}

/// A challenge that is answered for as long as this lives.
struct Answered<'o> {
    answers: Answers<'o>,
    name: &'o str,
    token: String,
    /// The other processes do not answer it any more.
    ended: bool,
}

impl<'o> Answers<'o> {
    async fn begin(
        self,
        name: &'o str,
        token: &str,
        authorization: &KeyAuthorization,
    ) -> Result<Answered<'o>, OrderError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec![name.to_owned()])?;
        params.distinguished_name = DistinguishedName::new();
        params.custom_extensions = vec![CustomExtension::new_acme_identifier(authorization.digest().as_ref())];
        let certificate = params.self_signed(&key)?.pem();
        let key = key.serialize_pem();
        self.here.show(name, certificate.as_bytes(), key.as_bytes()).map_err(|_| OrderError::Challenge)?;
        self.here.say(token, authorization.as_str());
        let answered = Answered { answers: self, name, token: token.to_owned(), ended: false };
        let (token, said, shown) = (token.to_owned(), authorization.as_str().to_owned(), format!("{key}{certificate}"));
        match self.there {
            There::Nowhere => {}
            There::Folder(folder) => {
                let of = name.to_owned();
                let told = folder.aside(move |folder| folder.tell(&of, &shown, (&token, &said))).await;
                if let Err(error) = told {
                    tracing::warn!(%error, name, "other processes cannot answer this challenge");
                }
            }
            There::Store(turn) => match turn.tell(shown, (&token, &said)).await {
                Ok(true) => {}
                Ok(false) => return Err(OrderError::Untold("the turn is another one's by now".to_owned())),
                Err(error) => return Err(OrderError::Untold(error.to_string())),
            },
        }
        Ok(answered)
    }
}

impl Answered<'_> {
    /// The challenge is over, for all processes.
    async fn end(mut self) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        match self.answers.there {
            There::Nowhere => {}
            There::Folder(folder) => {
                let (name, token) = (self.name.to_owned(), self.token.clone());
                let untold = folder.aside(move |folder| {
                    folder.untell(&name, &token);
                    Ok(())
                });
                if let Err(error) = untold.await {
                    tracing::warn!(%error, name = self.name, "what answered a challenge stays in the folder");
                }
            }
            There::Store(turn) => {
                if let Err(error) = turn.untell().await {
                    tracing::debug!(%error, name = self.name, "what answered a challenge stays in the store until its end");
                }
            }
        }
    }
}

impl Drop for Answered<'_> {
    fn drop(&mut self) {
        self.answers.here.end(self.name, &self.token);
        // Whoever was cut before the end cannot wait for a disk. In the store the next order takes its place.
        if let (There::Folder(folder), Ok(runtime)) = (self.answers.there, Handle::try_current())
            && !self.ended
        {
            let (folder, name, token) = (folder.clone(), self.name.to_owned(), self.token.clone());
            runtime.spawn_blocking(move || folder.untell(&name, &token));
        }
    }
}

/// How a certificate is ordered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    pub(super) look: Look,
    /// Clients are to refuse it without a staple.
    pub(super) must_staple: bool,
}

/// Orders a certificate for `name`; a new key each time.
pub(super) async fn order(
    account: &Account,
    name: &str,
    answers: Answers<'_>,
    terms: Terms,
) -> Result<Held, OrderError> {
    let mut answered = None;
    let work = ordered(account, name, (answers, &mut answered), terms);
    let held = tokio::time::timeout(PATIENCE * 2, work).await.unwrap_or(Err(OrderError::Late));
    if let Some(answered) = answered {
        answered.end().await;
    }
    held
}

async fn ordered<'a>(
    account: &Account,
    name: &'a str,
    (answers, answered): (Answers<'a>, &mut Option<Answered<'a>>),
    Terms { look, must_staple }: Terms,
) -> Result<Held, OrderError> {
    let identifiers = [Identifier::Dns(name.to_owned())];
    let mut order = account.new_order(&NewOrder::new(&identifiers)).await?;
    challenged(&mut order, name, (answers, answered), look).await?;
    let patience = RetryPolicy::new().timeout(PATIENCE);
    if order.state().status != OrderStatus::Ready {
        match order.poll_ready(&patience).await {
            Ok(OrderStatus::Ready) => {}
            Ok(_) | Err(Error::Api(_)) => return Err(unseen(&mut order, look).await),
            Err(Error::Timeout(_)) => return Err(OrderError::Late),
            Err(error) => return Err(error.into()),
        }
    }
    let key = KeyPair::generate()?;
    let request = request(name, &key, must_staple)?;
    let issued = async {
        order.finalize_csr(request.der()).await?;
        order.poll_certificate(&patience).await
    };
    let chain = issued.await.map_err(|error| refused(error, must_staple))?;
    Held::new(name, &chain, &key.serialize_pem()).ok_or(OrderError::Unfit)
}

/// What a refusal of a request means, by what the authority says is wrong (RFC 8555 §6.7). That it dislikes must-staple is told from nothing
/// else.
fn refused(error: Error, must_staple: bool) -> OrderError {
    let is_of_the_request = matches!(&error, Error::Api(problem) if problem.r#type.as_deref().is_some_and(|kind| {
        [":badCSR", ":malformed", ":unauthorized"].iter().any(|end| kind.ends_with(end))
    }));
    if must_staple && is_of_the_request { OrderError::MustStaple(error) } else { OrderError::Authority(error) }
}

/// What the authority is asked to certify.
fn request(name: &str, key: &KeyPair, must_staple: bool) -> Result<CertificateSigningRequest, rcgen::Error> {
    let mut params = CertificateParams::new(vec![name.to_owned()])?;
    params.distinguished_name = DistinguishedName::new();
    if must_staple {
        params.custom_extensions = vec![CustomExtension::from_oid_content(TLS_FEATURES, STATUS_REQUEST.to_vec())];
    }
    params.serialize_request(key)
}

/// The extension that lists what a server must do in TLS: id-pe-tlsfeature (RFC 7633).
const TLS_FEATURES: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 1, 24];
/// Such a list, of `status_request` alone.
const STATUS_REQUEST: &[u8] = &[0x30, 3, 2, 1, 5];

/// Begins to answer what the authority wants to see, and tells it to look; nothing, if it has seen enough before.
async fn challenged<'a>(
    order: &mut Order,
    name: &'a str,
    (answers, answered): (Answers<'a>, &mut Option<Answered<'a>>),
    look: Look,
) -> Result<(), OrderError> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        let mut challenge = authorization.challenge(look.kind()).ok_or(OrderError::NotOffered(look.name()))?;
        let begun = answers.begin(name, &challenge.token, &challenge.key_authorization()).await?;
        *answered = Some(begun);
        challenge.set_ready().await?;
    }
    Ok(())
}

/// What the authority says of the challenge that failed.
async fn unseen(order: &mut Order, look: Look) -> OrderError {
    let mut why = "it does not say why".to_owned();
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        if let Some(said) = said(&mut authorization).await {
            why = said;
        }
    }
    OrderError::Unseen { kind: look.name(), why }
}

async fn said(authorization: &mut AuthorizationHandle<'_>) -> Option<String> {
    let state = authorization.refresh().await.ok()?;
    let problem = state.challenges.iter().find_map(|challenge| challenge.error.as_ref())?;
    problem.detail.clone().or_else(|| problem.r#type.clone())
}

#[cfg(test)]
mod tests {
    use x509_parser::certification_request::X509CertificationRequest;
    use x509_parser::cri_attributes::{ParsedCriAttribute, X509CriAttribute};
    use x509_parser::prelude::{FromDer as _, ParsedExtension};

    use super::*;

    #[test]
    fn a_request_asks_for_must_staple_where_it_is_wanted_and_for_one_name() {
        let key = KeyPair::generate().unwrap();
        for must_staple in [false, true] {
            let request = request("a.example", &key, must_staple).unwrap();
            let (_, request) = X509CertificationRequest::from_der(request.der()).unwrap();
            let attributes = request.certification_request_info.iter_attributes();
            let features = attributes.filter_map(asked).flatten().filter(|(oid, ..)| oid == "1.3.6.1.5.5.7.1.24");
            let features: Vec<_> = features.map(|(_, critical, value)| (critical, value)).collect();
            let wanted = must_staple.then(|| (false, vec![0x30, 3, 2, 1, 5]));
            assert_eq!(features, wanted.into_iter().collect::<Vec<_>>());
            let mut names = request.requested_extensions().into_iter().flatten();
            let names = names.find_map(|one| {
                let ParsedExtension::SubjectAlternativeName(names) = one else { return None };
                Some(format!("{:?}", names.general_names))
            });
            assert_eq!(names.as_deref(), Some("[DNSName(\"a.example\")]"));
        }
    }

    #[test]
    fn only_what_is_wrong_with_the_request_is_put_down_to_must_staple() {
        for (kind, is_of_must_staple) in [
            ("badCSR", true),
            ("malformed", true),
            ("unauthorized", true),
            ("rateLimited", false),
            ("accountDoesNotExist", false),
            ("serverInternal", false),
        ] {
            let refused = |must_staple| {
                let problem = serde_json::json!({ "type": format!("urn:ietf:params:acme:error:{kind}") });
                refused(Error::Api(serde_json::from_value(problem).unwrap()), must_staple)
            };
            assert_eq!(matches!(refused(true), OrderError::MustStaple(_)), is_of_must_staple, "{kind}");
            assert!(matches!(refused(false), OrderError::Authority(_)), "{kind}");
            assert_eq!(refused(true).is_of_the_account(), kind == "accountDoesNotExist");
        }
    }

    /// The extensions that an attribute asks for: what each is called, whether it is critical, and what it says.
    fn asked(attribute: &X509CriAttribute<'_>) -> Option<Vec<(String, bool, Vec<u8>)>> {
        let ParsedCriAttribute::ExtensionRequest(asked) = attribute.parsed_attribute() else { return None };
        let parts = asked.extensions.iter().map(|one| (one.oid.to_id_string(), one.critical, one.value.to_vec()));
        Some(parts.collect())
    }
}
