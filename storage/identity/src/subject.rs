//! On whose behalf a request comes.

use std::sync::Arc;

use crate::Session;

/// The subject of a request: nobody in particular, or the user of a live session.
#[derive(Clone, Debug)]
pub enum Subject {
    /// No credential, or none that leads to a live session.
    Anonymous,
    /// The user of this session, which exists, is not expired and belongs to the route's identity provider.
    User(Arc<Session>),
}

impl Subject {
    /// The session, if there is one.
    #[must_use]
    pub fn session(&self) -> Option<&Session> {
        match self {
            Self::Anonymous => None,
            Self::User(session) => Some(session),
        }
    }
}
