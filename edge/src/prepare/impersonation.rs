//! Whom a Kubernetes API takes a request for (01 §2.13): our service account's token, and whom it speaks for.
//!
//! The account may do whatever it may do for itself too, so nothing ever goes up without a user: who is not signed in is
//! `system:anonymous`, as in Kubernetes itself.

use http::{HeaderName, HeaderValue, header};
use postern_identity::CompactSession;

use crate::GroupsFilter;
use crate::assertion::groups;
use crate::refusal::{Failure, Refusal};

/// The fields that say it.
pub(crate) type Impersonation = Box<[(HeaderName, HeaderValue)]>;

const USER: HeaderName = HeaderName::from_static("impersonate-user");
const GROUP: HeaderName = HeaderName::from_static("impersonate-group");
/// Whom Kubernetes takes for nobody.
const ANONYMOUS: &str = "system:anonymous";

/// The fields for whoever has this session; `groups`: those that may be named.
///
/// # Errors
/// The user cannot be named in a field: nobody else is named in their place.
pub(crate) fn impersonation(
    token: &HeaderValue,
    session: Option<&CompactSession>,
    filter: Option<&GroupsFilter>,
) -> Result<Impersonation, Refusal> {
    let user = field(session.map_or(ANONYMOUS, user)).ok_or(Refusal::Failed(Failure::Internal))?;
    let named = |group: &String| filter.is_none_or(|filter| filter.contains(group));
    let groups = session.map(groups).unwrap_or_default().into_iter().filter(named);
    let groups = groups.filter_map(|group| Some((GROUP, field(&group)?)));
    Ok([(header::AUTHORIZATION, token.clone()), (USER, user)].into_iter().chain(groups).collect())
}

/// The e-mail address; the id where there is none, or none that somebody vouches for.
fn user(session: &CompactSession) -> &str {
    let email = session.email().filter(|email| !email.is_empty() && session.email_verified != Some(false));
    email.unwrap_or_else(|| session.user_id())
}

/// The text itself as a field: a name that would be read as another one further on, for its spaces, is none.
fn field(text: &str) -> Option<HeaderValue> {
    let sound = !text.is_empty() && text.trim() == text && !text.chars().any(char::is_control);
    sound.then(|| HeaderValue::from_bytes(text.as_bytes()).ok()).flatten()
}
