//! What several pages show: who somebody is, which criterion was not met, and how to speak about a request.

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

/// One criterion that stood in the way, by the reason code of the policy and the values it wanted, in plain words.
///
/// A code that ends in `-ok` comes from a deny rule that matched.
#[derive(Debug, Clone, Copy)]
pub struct Unmet<'a> {
    /// The policy's reason code, such as `groups-unauthorized`.
    pub reason: &'a str,
    /// What the rule wants to see, such as group names; empty if that is not to be told.
    pub wanted: &'a [&'a str],
}

/// A value inside the sentence of an [`Unmet`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnmetValue<'a> {
    /// The words or comma before it.
    pub before: &'static str,
    /// The value.
    pub text: &'a str,
}

impl<'a> Unmet<'a> {
    /// The sentence, for answers that are no page.
    #[must_use]
    pub fn sentence(&self) -> String {
        let values = self.values().map(|value| format!("{}{}", value.before, crate::text::clip(value.text, MAX_VALUE)));
        format!("{}{}.", self.lead(), values.collect::<String>())
    }

    /// How many bytes it takes on a page.
    pub(crate) fn weight(&self) -> usize {
        let values = self.values().map(|value| crate::text::weight(&crate::text::clip(value.text, MAX_VALUE)) + 16);
        self.lead().len() + values.sum::<usize>()
    }

    /// The sentence up to its values.
    pub(crate) fn lead(&self) -> &'static str {
        let (alone, with_values) = words(self.reason);
        if self.wanted.is_empty() || with_values.is_empty() { alone } else { with_values }
    }

    /// The values, each with what joins it to the words before; at most eight.
    pub(crate) fn values(&self) -> impl Iterator<Item = UnmetValue<'a>> {
        let shown = if words(self.reason).1.is_empty() { &[] } else { self.wanted };
        let last = shown.len().min(MAX_VALUES).saturating_sub(1);
        shown.iter().take(MAX_VALUES).enumerate().map(move |(at, text)| {
            let before = match at {
                0 => " ",
                at if at == last => " or ",
                _ => ", ",
            };
            UnmetValue { before, text }
        })
    }
}

/// More values than this are not listed.
const MAX_VALUES: usize = 8;
/// Longer values are cut, in characters.
pub(crate) const MAX_VALUE: usize = 64;

/// What a reason code means: without and with values. No second form: values would not help.
fn words(reason: &str) -> (&'static str, &'static str) {
    match reason {
        "groups-unauthorized" => ("You are not in a group that may come in", "You need to be in the group"),
        "groups-ok" => ("One of your groups is kept out", "This is closed to the group"),
        "email-unauthorized" => ("Your e-mail address is not on the list", "It is open to the address"),
        "email-unverified" => ("Your e-mail address is not verified by your identity provider", ""),
        "email-ok" => ("Your e-mail address is kept out", "This is closed to the address"),
        "domain-unauthorized" => ("Your e-mail domain is not on the list", "You need a verified e-mail address at"),
        "domain-ok" => ("Your e-mail domain is kept out", "This is closed to e-mail addresses at"),
        "user-unauthorized" => ("You are not on the list of people who may come in", ""),
        "user-ok" => ("Your account is kept out", ""),
        "user-unauthenticated" => ("You need to be signed in", ""),
        "claim-unauthorized" => ("Your account lacks a required property", "Your account lacks the property"),
        "claim-ok" => ("A property of your account is kept out", "This is closed to accounts with the property"),
        "http-method-unauthorized" => ("This kind of request is not allowed", "Allowed here is only"),
        "http-method-ok" => ("This kind of request is not allowed", "Not allowed here is"),
        "http-path-unauthorized" | "http-path-ok" => ("This path is not open", ""),
        "source-ip-unauthorized" | "source-ip-ok" => ("The network you come from is not allowed", ""),
        "cors-request" | "non-cors-request" => ("This kind of cross-site request is not allowed", ""),
        "device-unauthenticated" => ("You need to enrol this device first", ""),
        "device-unauthorized" | "device-ok" => ("This device is not allowed", ""),
        "client-certificate-required" => ("Your browser did not present a client certificate", ""),
        "invalid-client-certificate" | "valid-client-certificate" => ("Your client certificate is not accepted", ""),
        "client-certificate-unauthorized" | "client-certificate-ok" => {
            ("Your client certificate is not on the list", "")
        }
        "reject" => ("This is closed to everybody", ""),
        _ => ("A rule of this application does not let you in", ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unmet_criterion_names_what_is_wanted() {
        let say = |reason, wanted| Unmet { reason, wanted }.sentence();
        assert_eq!(say("groups-unauthorized", &["admins"]), "You need to be in the group admins.");
        assert_eq!(say("groups-unauthorized", &["a", "b", "c"]), "You need to be in the group a, b or c.");
        assert_eq!(say("groups-unauthorized", &[]), "You are not in a group that may come in.");
        assert_eq!(say("groups-ok", &["interns"]), "This is closed to the group interns.");
    }

    #[test]
    fn an_unknown_reason_and_values_that_do_not_help_still_make_a_sentence() {
        let say = |reason, wanted| Unmet { reason, wanted }.sentence();
        assert_eq!(say("new-thing", &["x"]), "A rule of this application does not let you in.");
        assert_eq!(say("source-ip-unauthorized", &["10.0.0.0/8"]), "The network you come from is not allowed.");
    }

    #[test]
    fn a_message_to_copy_leaves_out_what_is_not_known() {
        let reference = Reference { request_id: "r1", reason: "no-route", route: "", time: "" };
        assert_eq!(reference.message(), "Reason: no-route\nRequest: r1");
    }
}
