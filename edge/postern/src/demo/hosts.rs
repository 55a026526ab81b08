//! The names of the demonstration, each below `localhost`.

/// Where sign-in happens.
pub(super) const AUTHENTICATE: &str = "auth";
/// Anybody of the company.
pub(super) const HELLO: &str = "hello";
/// Everybody.
pub(super) const PUBLIC: &str = "public";
/// Administrators.
pub(super) const ADMIN: &str = "admin";
/// The company, short of those that a deny rule names.
pub(super) const ENGINEERING: &str = "engineering";
/// WebSockets.
pub(super) const WS: &str = "ws";
/// Leads somewhere else.
pub(super) const GO: &str = "go";
/// Answers by itself.
pub(super) const STATUS: &str = "status";

/// All of them.
pub(super) const ALL: [&str; 8] = [AUTHENTICATE, HELLO, PUBLIC, ADMIN, ENGINEERING, WS, GO, STATUS];
