//! The HTTP that the ACME library speaks: this process's own client, bounded in time and size.

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt as _;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};

use crate::https::{self, HttpsError};

/// A call is not waited for longer.
const WHOLE_CALL: Duration = Duration::from_secs(20);
/// No answer is larger, chains of certificates among them.
const LARGEST: usize = 1 << 20;

/// A client for one authority.
#[derive(Debug, Clone)]
pub(super) struct Http(reqwest::Client);

impl Http {
    /// Believes the system's roots, and those in `trusted` (PEM).
    pub(super) fn new(trusted: Option<&[u8]>) -> Result<Self, HttpsError> {
        https::client(trusted, WHOLE_CALL).map(Self)
    }
}

type Answer = Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>>;

impl HttpClient for Http {
    fn request(&self, request: Request<BodyWrapper<Bytes>>) -> Answer {
        let client = self.0.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let Ok(body) = body.collect().await;
            let request = Request::from_parts(parts, body.to_bytes());
            let answer = client.execute(request.try_into().map_err(other)?).await.map_err(other)?;
            let mut head = http::Response::new(());
            *head.status_mut() = answer.status();
            head.headers_mut().clone_from(answer.headers());
            let body = https::body(answer, LARGEST).await.map_err(other)?;
            let body = body.ok_or(Error::Str("an answer of the authority that is not too large"))?;
            Ok(BytesResponse { parts: head.into_parts().0, body: Box::new(Bytes::from(body)) })
        })
    }
}

fn other(error: reqwest::Error) -> Error {
    Error::Other(Box::new(error.without_url()))
}
