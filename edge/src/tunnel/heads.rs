//! The heads that ask an upstream for a tunnel, and those that grant it to the client.

use http::{HeaderName, HeaderValue, Method, StatusCode, Version, header};
use pingora_error::{ErrorType, OkOrErr as _, Result};
use pingora_http::{RequestHeader, ResponseHeader};

use super::ask::{ACCEPT, KEY, Key};
use crate::Host;
use crate::exchange::Exchange;
use crate::request::{CONNECT_UDP, connect_udp_path};
use crate::route::Carries;

impl Exchange {
    /// The head of a grant of a TCP tunnel.
    pub(super) fn tunnel_granted(&self) -> Result<ResponseHeader> {
        self.permit().filter(|permit| permit.is_tunnel()).or_err(ErrorType::InternalError, "no permit")?;
        let mut head = ResponseHeader::build(StatusCode::OK, Some(2))?;
        head.insert_header(crate::answer::REQUEST_ID, self.id.value())?;
        Ok(head)
    }

    /// The host and port that datagrams are asked for with.
    fn datagrams_to(&self) -> Result<&Host> {
        let admitted = self.admitted().filter(|admitted| admitted.permit().tunnel() == Some(Carries::Datagrams));
        let asked = admitted.and_then(|admitted| admitted.request().tunnel.as_ref()?.to.as_ref());
        asked.or_err(ErrorType::InternalError, "no permit")
    }

    /// The head of a grant of datagrams. Pomerium's client asks the host for them that they are for, and takes nothing but 200 for a
    /// yes, in HTTP/1.1 too; whoever asks the host that it connects to is told as the standard has it (RFC 9298 §3.3, §3.5).
    pub(super) fn datagrams_granted(&self, asked: &RequestHeader) -> Result<ResponseHeader> {
        let to = self.datagrams_to()?;
        let on = self.admitted().map(|admitted| &admitted.request().host);
        let upgraded = asked.version != Version::HTTP_2 && on != Some(to);
        let status = if upgraded { StatusCode::SWITCHING_PROTOCOLS } else { StatusCode::OK };
        let mut head = ResponseHeader::build(status, Some(4))?;
        if upgraded {
            head.insert_header(header::CONNECTION, "Upgrade")?;
            head.insert_header(header::UPGRADE, CONNECT_UDP)?;
        }
        head.insert_header(CAPSULE_PROTOCOL, TRUE)?;
        head.insert_header(crate::answer::REQUEST_ID, self.id.value())?;
        Ok(head)
    }

    /// The head that asks a proxy for the datagrams that we are asked for.
    pub(super) fn datagrams_asked(&self) -> Result<RequestHeader> {
        let mut head = RequestHeader::build(Method::GET, connect_udp_path(self.datagrams_to()?).as_bytes(), Some(5))?;
        head.insert_header(header::HOST, self.authority())?;
        head.insert_header(header::CONNECTION, "Upgrade")?;
        head.insert_header(header::UPGRADE, CONNECT_UDP)?;
        head.insert_header(CAPSULE_PROTOCOL, TRUE)?;
        head.insert_header(crate::answer::REQUEST_ID, self.id.value())?;
        Ok(head)
    }

    /// The head that asks a proxy for the connection that we are asked for.
    pub(super) fn tunnel_asked(&self) -> Result<RequestHeader> {
        let admitted = self.admitted().filter(|admitted| admitted.permit().is_tunnel());
        let host = admitted.or_err(ErrorType::InternalError, "no permit")?.request().host.to_string();
        let mut head = RequestHeader::build(Method::CONNECT, host.as_bytes(), Some(2))?;
        head.insert_header(header::HOST, host)?;
        head.insert_header(crate::answer::REQUEST_ID, self.id.value())?;
        Ok(head)
    }

    /// The head that asks the upstream in HTTP/1.1 for what the client asks for in HTTP/2.
    pub(super) fn upgrade_asked(&mut self, head: &RequestHeader, key: &Key) -> Result<RequestHeader> {
        let mut head = head.clone();
        head.set_method(Method::GET);
        head.set_version(Version::HTTP_11);
        self.prepare_request(&mut head)?;
        head.insert_header(KEY, key.as_str())?;
        Ok(head)
    }

    /// The head of the answer that grants it in HTTP/2.
    pub(super) fn upgrade_granted(&self, head: &ResponseHeader) -> Result<ResponseHeader> {
        let mut head = head.clone();
        head.set_status(StatusCode::OK)?;
        head.set_version(Version::HTTP_2);
        for name in [ACCEPT, header::UPGRADE, header::CONNECTION, header::CONTENT_LENGTH, header::TRANSFER_ENCODING] {
            head.remove_header(&name);
        }
        self.prepare_response(&mut head)?;
        Ok(head)
    }
}

/// That capsules follow (RFC 9297 §3.4).
const CAPSULE_PROTOCOL: HeaderName = HeaderName::from_static("capsule-protocol");
/// As a structured field has it.
const TRUE: HeaderValue = HeaderValue::from_static("?1");
