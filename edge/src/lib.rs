//! Carries requests: from an accepted stream, through the gate, to an upstream and back.
//!
//! No permit, no passage: proxying takes an `Admitted`, a request with its `Permit`, and only `admit` can make one.

mod admit;
mod answer;
mod assertion;
mod bound;
mod config;
mod credential;
mod depends;
mod edge;
mod exchange;
#[cfg(test)]
mod faults;
mod file;
mod identify;
mod inquiry;
mod limits;
pub mod listener;
mod metrics;
mod mtls;
mod opened;
pub mod prepare;
mod programmatic;
mod proxy;
mod record;
mod refusal;
mod request;
mod reserved;
mod response;
pub mod route;
mod snapshot;
#[cfg(test)]
mod testing;
mod tunnel;
mod upstream;
mod vigil;

pub use admit::{Admission, Admitted, Gate, Permit, Reply, Verdict};
pub use answer::Answer;
pub use assertion::{AssertionSlot, SigningKeyError, SigningKeys};
pub use config::{
    AccessField, AuthenticateTarget, AuthnUpstream, AuthorizeField, Certificates, CertifiedFiles, ClaimHeader,
    CookieConfig, EdgeConfig, EscapedSlashes, GroupsFilter, HeaderRule, IdentityConfig, JwtIssuerFormat, Listeners,
    LogConfig, PathConfig, ProxyConfig, PublicListener, ResponseHeaders, Timeouts, UnderscoreHeaders,
};
pub use depends::{LeftOut, Neighbours};
pub use edge::{Edge, EdgeOptions, ReloadError, RunningEdge, StartError};
pub use file::read_regular;
pub use identify::{Sessions, Subject};
pub use inquiry::{Finding, Inquiry, SOME_REQUEST, Unsendable, Upward};
pub use limits::{EdgeLimits, Http2Limits, UpstreamLimits};
pub use listener::{
    Bound, CertificateError, CertificateNames, CertificateReader, Challenges, ChallengesElsewhere, Connection,
    Inherited, Issued, IssuedCertificates, NoCertificate, Staple, Violation, certified_names, demands_staple,
};
pub use metrics::Metrics;
pub use mtls::{
    ClientCert, ClientTrust, DownstreamMtls, Due, NameKind, NamePattern, NoAuthorities, Revocations, Terms,
    UnreadableList,
};
pub use programmatic::ProgramRefusal;
pub use refusal::{Asked, Failure, Refusal};
pub use request::{
    BadRequest, CanonicalPath, Client, Destination, Host, HostError, PathError, Request, Text, Upgrade,
    connect_udp_path, is_upgrade,
};
pub use snapshot::{Snapshot, SnapshotError};
pub use upstream::{Dns, DnsFamily, DnsServer, SourceAddress, UpstreamTlsError};
pub use vigil::Vigilance;
