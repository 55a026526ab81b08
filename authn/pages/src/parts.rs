//! What several pages show: who somebody is, where to go on, and how to speak about a request.

/// A signed-in person.
#[derive(Debug, Clone, Copy)]
pub struct Who<'a> {
    /// The name to call them by; the e-mail or the user id where there is no name.
    pub name: &'a str,
    /// The e-mail, if it is not already the name.
    pub email: Option<&'a str>,
    /// Whether the provider says that the address is not verified.
    pub email_unverified: bool,
}

impl Who<'_> {
    /// One letter, for the round mark beside the name.
    pub(crate) fn initial(&self) -> String {
        let letter = self.name.chars().find(|c| c.is_alphanumeric()).unwrap_or('?');
        letter.to_uppercase().collect()
    }
}

/// How a user and an operator can speak about the same request.
#[derive(Debug, Clone, Copy)]
pub struct Reference<'a> {
    /// The request id.
    pub request_id: &'a str,
    /// The stable reason code.
    pub reason: &'a str,
    /// Host and path that were asked for, or the route's name; empty if there is none.
    pub route: &'a str,
    /// When, with its zone; empty if unknown.
    pub time: &'a str,
}

impl Reference<'_> {
    /// The message to copy: one fact a line.
    #[must_use]
    pub fn message(&self) -> String {
        let facts = [("Route", self.route), ("Reason", self.reason), ("Request", self.request_id), ("Time", self.time)];
        let told = facts.into_iter().filter(|(_, fact)| !fact.is_empty());
        told.map(|(name, fact)| format!("{name}: {}", crate::text::clip(fact, 120))).collect::<Vec<_>>().join("\n")
    }
}

/// Where a page offers to go; each is left out when it is `None` or not a safe address.
#[derive(Debug, Clone, Copy, Default)]
pub struct Links<'a> {
    /// The same request again, for what may pass by itself.
    pub retry: Option<&'a str>,
    /// Sign in as somebody else, then come back.
    pub other_account: Option<&'a str>,
    /// Sign out.
    pub sign_out: Option<&'a str>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_to_copy_leaves_out_what_is_not_known() {
        let reference = Reference { request_id: "r1", reason: "no-route", route: "", time: "" };
        assert_eq!(reference.message(), "Reason: no-route\nRequest: r1");
    }
}
