//! Answers of ours: a head and a whole body, with the fields that every one of them carries (S-050).

use bytes::Bytes;
use http::header::{self, HeaderName};
use http::{HeaderValue, StatusCode};
use pingora_http::ResponseHeader;

use crate::refusal::Asked;

/// An answer that needs no upstream.
#[derive(Debug)]
pub struct Answer {
    /// Status and fields, `Content-Length` among them.
    pub head: ResponseHeader,
    /// The body; not sent in answer to `HEAD`.
    pub body: Bytes,
}

/// An answer in the making.
#[derive(Debug)]
pub(crate) struct Draft {
    status: StatusCode,
    fields: Vec<(HeaderName, HeaderValue)>,
    body: Bytes,
}

impl Draft {
    pub(crate) fn new(status: StatusCode) -> Self {
        Self { status, fields: Vec::with_capacity(12), body: Bytes::new() }
    }

    pub(crate) fn body(mut self, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self.field(header::CONTENT_TYPE, HeaderValue::from_static(content_type))
    }

    pub(crate) fn field(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.fields.push((name, value));
        self
    }

    /// A field of text that may not be fit for one; then it is left out.
    pub(crate) fn text(mut self, name: HeaderName, value: &str) -> Self {
        self.fields.extend(HeaderValue::try_from(value).ok().map(|value| (name, value)));
        self
    }

    /// The whole answer: ours first, then what the configuration sets on every response (01 §1.10). Nothing is cached or
    /// sniffed, nothing is told to other sites, unless the draft says otherwise.
    pub(crate) fn finish(self, asked: &Asked<'_>) -> Answer {
        // These have no body, and a length would speak of another answer's (RFC 9110 §8.6).
        let bodiless = matches!(self.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let body = if bodiless { Bytes::new() } else { self.body };
        let mut head = empty(self.status);
        let defaults = [
            (header::CACHE_CONTROL, NO_STORE),
            (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
            (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
            (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(postern_pages::CSP)),
            (INTERCEPTED, HeaderValue::from_static("true")),
        ];
        for (name, value) in defaults {
            put(&mut head, &name, value);
        }
        let configured = asked.route.map_or(&asked.snapshot.config.response_headers, |route| &route.response_headers);
        for (name, value) in &*configured.0 {
            put(&mut head, name, value.clone());
        }
        if !bodiless {
            put(&mut head, &header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        }
        if let Ok(id) = HeaderValue::try_from(asked.request_id) {
            put(&mut head, &REQUEST_ID, id);
        }
        let mut first = true;
        for (name, value) in self.fields {
            if name == header::SET_COOKIE && !std::mem::take(&mut first) {
                let _appended = head.append_header(name, value);
            } else {
                put(&mut head, &name, value);
            }
        }
        Answer { head, body }
    }
}

/// For nobody but who asked.
pub(crate) const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
/// Marks every answer that is not the upstream's.
pub(crate) const INTERCEPTED: HeaderName = HeaderName::from_static("x-pomerium-intercepted-response");
/// Our name for the request.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

fn empty(status: StatusCode) -> ResponseHeader {
    let mut parts = http::Response::new(()).into_parts().0;
    parts.status = status;
    ResponseHeader::from(parts)
}

fn put(head: &mut ResponseHeader, name: &HeaderName, value: HeaderValue) {
    // Name and value are of the library's own types, so there is nothing left that could be refused.
    let _set = head.insert_header(name.clone(), value);
}
