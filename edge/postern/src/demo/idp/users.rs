//! Who one can be in the demonstration.

/// A person known to the demonstration's provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::demo) struct User {
    /// `sub`.
    pub(in crate::demo) id: &'static str,
    /// `given_name`.
    pub(in crate::demo) given_name: &'static str,
    /// `family_name`.
    pub(in crate::demo) family_name: &'static str,
    /// `email`.
    pub(in crate::demo) email: &'static str,
    /// `email_verified`.
    pub(in crate::demo) email_verified: bool,
    /// `groups`.
    pub(in crate::demo) groups: &'static [&'static str],
    /// What sets them apart, for people.
    pub(in crate::demo) note: &'static str,
}

/// All of them.
pub(in crate::demo) const USERS: [User; 4] = [
    User {
        id: "alice",
        given_name: "Alice",
        family_name: "Adams",
        email: "alice@example.com",
        email_verified: true,
        groups: &["admins"],
        note: "in the group admins",
    },
    User {
        id: "bob",
        given_name: "Bob",
        family_name: "Brown",
        email: "bob@example.com",
        email_verified: true,
        groups: &["engineering"],
        note: "in the group engineering",
    },
    User {
        id: "carol",
        given_name: "Carol",
        family_name: "Clark",
        email: "carol@example.com",
        email_verified: true,
        groups: &[],
        note: "in no group",
    },
    User {
        id: "dave",
        given_name: "Dave",
        family_name: "Diaz",
        email: "dave@example.com",
        email_verified: false,
        groups: &[],
        note: "e-mail not verified",
    },
];

impl User {
    /// The person of that id.
    pub(in crate::demo) fn find(id: &str) -> Option<&'static Self> {
        USERS.iter().find(|user| user.id == id)
    }

    /// `name`.
    pub(in crate::demo) fn name(&self) -> String {
        format!("{} {}", self.given_name, self.family_name)
    }
}
