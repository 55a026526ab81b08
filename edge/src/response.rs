//! Whether an upstream's answer can be read in one way only (S-013).

use http::{HeaderMap, HeaderValue, StatusCode, Version, header};
use pingora_error::{Error, ErrorType, Result};
use pingora_http::ResponseHeader;

use crate::UpstreamLimits;
use crate::request::{Upgrade, is_own_family};

/// Refuses an answer that is too large, is framed in more than one way, or changes protocols to another one than was `asked`
/// for.
///
/// # Errors
/// `InvalidHTTPHeader` from upstream, which becomes 502; the connection is not used again.
pub(crate) fn check(head: &ResponseHeader, asked: Option<&Upgrade>, limits: &UpstreamLimits) -> Result<()> {
    let fault = if head.headers.len() > limits.fields || size(&head.headers) > limits.head {
        "the head is too large"
    } else if !is_framed_once(head) {
        "the framing is ambiguous"
    } else if head.status == StatusCode::SWITCHING_PROTOCOLS && !changes_to(asked, head) {
        "the protocol was changed unasked"
    } else {
        return Ok(());
    };
    Err(Error::explain(ErrorType::InvalidHTTPHeader, fault).into_up())
}

/// Takes out of the trailers of an answer what has no place there: framing, cookies, and fields of ours (S-011).
///
/// # Errors
/// They are too large.
pub(crate) fn clean_trailers(trailers: &mut HeaderMap) -> Result<()> {
    if size(trailers) > MOST_TRAILER_BYTES {
        return Err(Error::explain(ErrorType::InvalidHTTPHeader, "the trailers are too large").into_up());
    }
    let unfit: Vec<_> =
        trailers.keys().filter(|name| NO_TRAILERS.contains(name) || is_own_family(name.as_str())).cloned().collect();
    for name in &unfit {
        trailers.remove(name);
    }
    Ok(())
}

const NO_TRAILERS: [header::HeaderName; 11] = [
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::CONNECTION,
    header::UPGRADE,
    header::TE,
    header::TRAILER,
    header::HOST,
    header::SET_COOKIE,
    header::LOCATION,
    header::AUTHORIZATION,
    header::CONTENT_TYPE,
];
/// 03 §2.
const MOST_TRAILER_BYTES: usize = 8 * 1024;

fn size(fields: &HeaderMap) -> usize {
    fields.iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD_OVERHEAD).sum()
}

/// Both framings at once, and bytes behind the end, are refused before us: `edge/vendor`.
fn is_framed_once(head: &ResponseHeader) -> bool {
    let mut lengths = head.headers.get_all(header::CONTENT_LENGTH).iter();
    let mut codings = head.headers.get_all(header::TRANSFER_ENCODING).iter();
    match (lengths.next(), codings.next()) {
        (None, None) => true,
        (Some(length), None) => {
            let digits = length.as_bytes().trim_ascii();
            lengths.next().is_none() && (1..=18).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit)
        }
        (None, Some(coding)) => {
            // HTTP/1.0 has no codings (RFC 9112 §6.1).
            head.version != Version::HTTP_10
                && codings.next().is_none()
                && coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked")
        }
        (Some(_), Some(_)) => false,
    }
}

/// Whether an answer names what was asked for, and nothing else. HTTP/1.0 knows no other protocols (RFC 9110 §7.8).
fn changes_to(asked: Option<&Upgrade>, head: &ResponseHeader) -> bool {
    let mut named = head.headers.get_all(header::UPGRADE).iter().map(HeaderValue::to_str);
    head.version == Version::HTTP_11
        && matches!((asked, named.next(), named.next()), (Some(asked), Some(Ok(named)), None) if asked.is(named.trim()))
}

const FIELD_OVERHEAD: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(head: &ResponseHeader, asked: Option<&Upgrade>) -> Result<()> {
        super::check(head, asked, &UpstreamLimits::default())
    }

    fn answer(status: u16, fields: &[(&'static str, &str)]) -> ResponseHeader {
        let mut head = ResponseHeader::build(status, None).unwrap();
        for (name, value) in fields {
            head.append_header(*name, value.to_string()).unwrap();
        }
        head
    }

    #[test]
    fn s_013_an_answer_with_one_framing_passes() {
        for fields in [&[][..], &[("content-length", "12")], &[("transfer-encoding", "Chunked")]] {
            check(&answer(200, fields), None).unwrap();
        }
    }

    #[test]
    fn s_013_an_answer_with_ambiguous_framing_is_refused() {
        for fields in [
            &[("content-length", "1"), ("transfer-encoding", "chunked")][..],
            &[("content-length", "1"), ("content-length", "1")],
            &[("content-length", "1, 1")],
            &[("content-length", "+1")],
            &[("content-length", "")],
            &[("transfer-encoding", "gzip, chunked")],
            &[("transfer-encoding", "identity")],
            &[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")],
        ] {
            assert_eq!(
                check(&answer(200, fields), None).unwrap_err().etype,
                ErrorType::InvalidHTTPHeader,
                "{fields:?}"
            );
        }
    }

    #[test]
    fn s_013_a_coding_in_http_1_0_is_refused() {
        let mut head = answer(200, &[("transfer-encoding", "chunked")]);
        check(&head, None).unwrap();
        head.set_version(Version::HTTP_10);
        check(&head, None).unwrap_err();
    }

    #[test]
    fn s_013_an_answer_over_the_limits_is_refused() {
        let long = "a".repeat(40 * 1024);
        check(&answer(200, &[("x-a", &long)]), None).unwrap();
        check(&answer(200, &[("x-a", &long), ("x-b", &long)]), None).unwrap_err();
        let many: Vec<_> = (0..201).map(|_| ("set-cookie", "a=b")).collect();
        check(&answer(200, &many), None).unwrap_err();
    }

    #[test]
    fn s_011_trailers_carry_no_framing_no_cookie_and_nothing_of_ours() {
        let mut trailers = HeaderMap::new();
        for name in ["grpc-status", "x-checksum", "set-cookie", "content-length", "x-pomerium-jwt-assertion"] {
            trailers.insert(name, "0".parse().unwrap());
        }
        clean_trailers(&mut trailers).unwrap();
        let mut kept: Vec<_> = trailers.keys().map(header::HeaderName::as_str).collect();
        kept.sort_unstable();
        assert_eq!(kept, ["grpc-status", "x-checksum"]);
        trailers.insert("x-long", "a".repeat(9000).parse().unwrap());
        clean_trailers(&mut trailers).unwrap_err();
    }

    #[test]
    fn s_009_protocols_change_only_where_it_was_asked_for_and_only_to_what_was_asked_for() {
        let (socket, spdy) = (Upgrade::named("websocket"), Upgrade::named("SPDY/3.1"));
        check(&answer(101, &[("upgrade", "WebSocket")]), Some(&socket)).unwrap();
        check(&answer(101, &[("upgrade", "spdy/3.1")]), Some(&spdy)).unwrap();
        check(&answer(101, &[("upgrade", "websocket")]), Some(&spdy)).unwrap_err();
        check(&answer(101, &[("upgrade", "websocket")]), None).unwrap_err();
        check(&answer(101, &[("upgrade", "h2c")]), Some(&socket)).unwrap_err();
        check(&answer(101, &[("upgrade", "websocket, h2c")]), Some(&socket)).unwrap_err();
        check(&answer(101, &[("upgrade", "websocket"), ("upgrade", "h2c")]), Some(&socket)).unwrap_err();
        check(&answer(101, &[]), Some(&socket)).unwrap_err();
        let mut old = answer(101, &[("upgrade", "websocket")]);
        old.set_version(Version::HTTP_10);
        check(&old, Some(&socket)).unwrap_err();
    }
}
