//! What can be wrong with the bytes of a request, before anybody asks what it means.

use http::StatusCode;

/// A rule of framing that a request broke. Each has one status and one stable reason code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Violation {
    /// Not three tokens with single spaces and `HTTP/1.0` or `HTTP/1.1` (S-007).
    RequestLine,
    /// A byte outside of `0x21-0x7e`, or `#`, in the target (S-024).
    Target,
    /// The target is over 16 KiB.
    TargetTooLong,
    /// Bare CR or LF, obs-fold, a bad name, space before the colon, NUL or control bytes (S-006).
    Field,
    /// Both Content-Length and Transfer-Encoding (S-002).
    TwoFramings,
    /// Anything but one `Transfer-Encoding: chunked` in HTTP/1.1 (S-003).
    TransferEncoding,
    /// Anything but one Content-Length of 1 to 18 digits (S-004).
    ContentLength,
    /// Two Host fields.
    Host,
    /// A head over 64 KiB, a field over 32 KiB, or more than 200 fields.
    HeadTooLarge,
    /// The head took longer than its bound.
    HeadTimeout,
    /// A chunk header, chunk end or trailer that is not well-formed, or over its limits (S-005).
    Chunk,
    /// The body came too slowly, or not at all.
    BodyTimeout,
}

impl Violation {
    /// The status of the answer: 400, 408, 414 or 431.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::HeadTimeout | Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::RequestLine
            | Self::Target
            | Self::Field
            | Self::TwoFramings
            | Self::TransferEncoding
            | Self::ContentLength
            | Self::Host
            | Self::Chunk => StatusCode::BAD_REQUEST,
        }
    }

    /// The stable reason code, for logs and metrics.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::RequestLine => "request-line",
            Self::Target => "request-target",
            Self::TargetTooLong => "request-target-too-long",
            Self::Field => "malformed-field",
            Self::TwoFramings => "two-framings",
            Self::TransferEncoding => "transfer-encoding",
            Self::ContentLength => "content-length",
            Self::Host => "host-repeated",
            Self::HeadTooLarge => "head-too-large",
            Self::HeadTimeout => "head-timeout",
            Self::Chunk => "malformed-chunk",
            Self::BodyTimeout => "body-timeout",
        }
    }
}
