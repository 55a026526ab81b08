//! A request that nobody sent, put to the edge's own code: what `explain`, `diff` and the tests of a configuration ask.

mod address;
pub(crate) mod devices;
mod people;
mod person;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use postern_edge::route::{Carries, Route, RouteTable};
use postern_edge::{
    ClientCert, Finding, Inquiry, PublicListener, Refusal, Snapshot, SnapshotError, Unsendable, Verdict,
};
use postern_identity::{IdpId, Session, Timestamp};
use postern_policy::DeviceRecord;
use rustls::pki_types::CertificateDer;

pub use address::{Address, AddressError};
pub use devices::device;
pub use people::Described;
pub use person::Person;

use crate::config::Config;

/// A configuration that can be asked.
#[derive(Debug)]
pub struct Probe {
    snapshot: Snapshot,
    tls: bool,
}

/// One request, and who sends it.
#[derive(Debug, Clone)]
pub struct Question {
    /// The method.
    pub method: Method,
    /// Where to.
    pub address: Address,
    /// The fields, but for `Host`.
    pub fields: HeaderMap,
    /// Who sends it.
    pub who: Who,
    /// The client's address.
    pub source: IpAddr,
    /// The certificates that the client shows, leaf first.
    pub certificate: Vec<CertificateDer<'static>>,
    /// The device credentials of the session.
    pub devices: Vec<DeviceRecord>,
    /// When.
    pub now: Timestamp,
}

/// Who sends a request.
#[derive(Debug, Clone)]
pub enum Who {
    /// Nobody who is signed in.
    Nobody,
    /// Somebody who signed in at the provider of the route that is asked for.
    Person(Person),
    /// The owner of a session that there is.
    Session(Arc<Session>),
}

/// What can come of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is carried.
    Allowed,
    /// It is answered here, with what a route or Postern itself has to say.
    Answered,
    /// It has to be asked again after a sign-in.
    SignIn,
    /// Nothing is there.
    NotFound,
    /// It is refused.
    Refused,
}

impl Question {
    /// A plain `GET` from this machine.
    #[must_use]
    pub fn get(address: Address, who: Who, now: Timestamp) -> Self {
        Self {
            method: if address.tunnel() == Some(Carries::Connections) { Method::CONNECT } else { Method::GET },
            address,
            fields: HeaderMap::new(),
            who,
            source: Ipv4Addr::LOCALHOST.into(),
            certificate: Vec::new(),
            devices: Vec::new(),
            now,
        }
    }

    /// The same from a browser that navigates.
    #[must_use]
    pub fn by_a_browser(&self) -> Self {
        self.accepting("text/html,application/xhtml+xml,*/*;q=0.8", Some("navigate"))
    }

    /// The same from a program that reads JSON.
    #[must_use]
    pub fn by_a_program(&self) -> Self {
        self.accepting("application/json", None)
    }

    /// The method that is sent: connections are asked for with CONNECT, and datagrams with GET, whatever else was said.
    #[must_use]
    pub fn method(&self) -> &Method {
        match self.address.tunnel() {
            None => &self.method,
            Some(Carries::Connections) => &Method::CONNECT,
            Some(Carries::Datagrams) => &Method::GET,
        }
    }

    /// The fields that are sent, but for `Host`.
    fn sent(&self) -> HeaderMap {
        let mut fields = self.fields.clone();
        if self.address.tunnel() == Some(Carries::Datagrams) {
            fields.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
            fields.insert(header::UPGRADE, HeaderValue::from_static("connect-udp"));
        }
        fields
    }

    fn accepting(&self, accept: &'static str, mode: Option<&'static str>) -> Self {
        let mut fields = self.fields.clone();
        fields.insert(header::ACCEPT, HeaderValue::from_static(accept));
        match mode {
            Some(mode) => fields.insert(FETCH_MODE, HeaderValue::from_static(mode)),
            None => fields.remove(FETCH_MODE),
        };
        Self { fields, ..self.clone() }
    }
}

const FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

impl Probe {
    /// Asks this configuration, as it would be in force.
    ///
    /// # Errors
    /// [`SnapshotError`], if it could not be.
    pub fn new(config: &Config) -> Result<Self, SnapshotError> {
        let tls = matches!(config.edge.listeners.public, PublicListener::Tls { .. });
        Ok(Self { snapshot: Snapshot::new(config.edge.clone(), 0)?, tls })
    }

    /// The routes, in the order of the file.
    #[must_use]
    pub fn routes(&self) -> &[Arc<Route>] {
        &self.snapshot.config.routes
    }

    /// The same, by host.
    #[must_use]
    pub const fn table(&self) -> &RouteTable {
        &self.snapshot.table
    }

    /// The answer.
    ///
    /// # Errors
    /// [`Unsendable`].
    pub fn ask(&self, question: &Question) -> Result<Finding<'_>, Unsendable> {
        let mut inquiry = Inquiry {
            method: question.method().clone(),
            authority: question.address.authority().to_owned(),
            target: question.address.written(),
            fields: question.sent(),
            session: None,
            source: question.source,
            tls: self.tls,
            client_cert: ClientCert::of(&question.certificate),
            devices: question.devices.clone(),
            now: question.now,
        };
        inquiry.session = match &question.who {
            Who::Nobody => None,
            Who::Session(session) => Some(Arc::clone(session)),
            Who::Person(person) => {
                // Whoever asks a route has signed in where that route sends them.
                let idp = self.idp(inquiry.ask(&self.snapshot)?.admission.route.as_deref());
                Some(Arc::new(person.session(&idp, question.now)))
            }
        };
        inquiry.ask(&self.snapshot)
    }

    fn idp(&self, route: Option<&Route>) -> IdpId {
        let route = route.or_else(|| self.routes().first().map(|route| &**route));
        route.map_or_else(|| IdpId::new(""), |route| route.idp.clone())
    }
}

impl Outcome {
    /// What a verdict is.
    #[must_use]
    pub const fn of(verdict: &Verdict) -> Self {
        match verdict {
            Verdict::Pass(_) => Self::Allowed,
            Verdict::Reply(_) => Self::Answered,
            Verdict::Refuse(Refusal::SignIn { .. }) => Self::SignIn,
            Verdict::Refuse(Refusal::NoRoute) => Self::NotFound,
            Verdict::Refuse(_) => Self::Refused,
        }
    }

    /// A stable word for programs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Answered => "answered",
            Self::SignIn => "sign-in",
            Self::NotFound => "not-found",
            Self::Refused => "refused",
        }
    }
}

#[cfg(test)]
mod tests;
