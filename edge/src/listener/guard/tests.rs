//! What passes the guard and what does not, whatever way the bytes come.

use proptest::prelude::*;

use super::*;

/// Everything that passes, or the violation; fed in pieces of `piece` bytes, one message.
fn read(wire: &[u8], piece: usize) -> Result<(Vec<u8>, Vec<u8>, bool), Violation> {
    let (mut guard, mut out, mut input) = (Guard::new(Limits::DEFAULT), BytesMut::new(), BytesMut::new());
    for part in wire.chunks(piece.max(1)) {
        input.extend_from_slice(part);
        guard.advance(&mut input, &mut out)?;
    }
    Ok((out.to_vec(), input.to_vec(), guard.is_complete()))
}

fn passes(wire: &[u8]) -> Vec<u8> {
    let (out, rest, complete) = read(wire, usize::MAX).unwrap();
    assert!(complete && rest.is_empty(), "incomplete: {}", wire.escape_ascii());
    out
}

fn refused(wire: &[u8]) -> Violation {
    let whole = read(wire, usize::MAX).expect_err(&format!("passed: {}", wire.escape_ascii()));
    for piece in 1..wire.len().min(64) {
        assert_eq!(read(wire, piece).unwrap_err(), whole, "in pieces of {piece}: {}", wire.escape_ascii());
    }
    whole
}

fn head(fields: &str) -> Vec<u8> {
    format!("POST /x HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n").into_bytes()
}

fn chunked(body: &str) -> Vec<u8> {
    [head("Transfer-Encoding: chunked\r\n"), body.as_bytes().to_vec()].concat()
}

#[test]
fn a_sound_head_passes_byte_for_byte() {
    let wire = b"GET /a?b=c HTTP/1.1\r\nHost: a.example\r\nAccept: */*\r\nX-Latin: caf\xe9\r\n\r\n";
    assert_eq!(passes(wire), wire);
}

#[test]
fn s_002_two_framings_are_refused_in_either_order() {
    assert_eq!(refused(&head("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n")), Violation::TwoFramings);
    assert_eq!(refused(&head("transfer-encoding: chunked\r\ncontent-length: 3\r\n")), Violation::TwoFramings);
    assert_eq!(refused(&head("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n")), Violation::TwoFramings);
}

#[test]
fn s_003_only_one_chunked_is_a_transfer_encoding() {
    for value in [
        "xchunked",
        "identity",
        "chunked, identity",
        "identity, chunked",
        "chunked, chunked",
        "chunked;q=1",
        "\"chunked\"",
        "chunked,",
        ", chunked",
        "gzip, chunked",
        "",
        "chunk\x0bed",
        "chunke d",
    ] {
        let violation = refused(&head(&format!("Transfer-Encoding: {value}\r\n")));
        assert!(matches!(violation, Violation::TransferEncoding | Violation::Field), "{value:?}: {violation:?}");
    }
    let twice = head("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n");
    assert_eq!(refused(&twice), Violation::TransferEncoding);
    assert_eq!(refused(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), Violation::TransferEncoding);
    let upper = [head("Transfer-Encoding:  CHUNKED \r\n"), b"0\r\n\r\n".to_vec()].concat();
    assert_eq!(passes(&upper), upper);
}

#[test]
fn s_004_a_content_length_is_one_to_eighteen_digits_once() {
    for value in ["+3", "-3", "0x3", "3 3", "3,3", "3, 3", "", "3.", "1234567890123456789", "٣", "3;", "\"3\""] {
        assert_eq!(refused(&head(&format!("Content-Length: {value}\r\n"))), Violation::ContentLength, "{value:?}");
    }
    assert_eq!(refused(&head("Content-Length: 3\r\nContent-Length: 3\r\n")), Violation::ContentLength);
    assert_eq!(refused(&head("Content-Length: 3\r\ncontent-length: 4\r\n")), Violation::ContentLength);
    let (_, _, complete) = read(&head("Content-Length: 999999999999999999\r\n"), 7).unwrap();
    assert!(!complete);
    let padded = [head("Content-Length: 003\r\n"), b"abc".to_vec()].concat();
    assert_eq!(passes(&padded), padded);
}

#[test]
fn s_005_a_chunk_size_is_hex_digits_and_nothing_else() {
    for size in ["+3", "-3", "0x3", "3_", " 3", "3 ", "g", "", "00000000000000003", "8000000000000000", "3\t"] {
        assert_eq!(refused(&chunked(&format!("{size}\r\nabc\r\n0\r\n\r\n"))), Violation::Chunk, "{size:?}");
    }
    assert_eq!(refused(&chunked("3\nabc\r\n0\r\n\r\n")), Violation::Chunk);
    assert_eq!(refused(&chunked("3\rabc\r\n0\r\n\r\n")), Violation::Chunk);
    assert_eq!(refused(&chunked("3\r\nabcd\r\n0\r\n\r\n")), Violation::Chunk);
    assert_eq!(refused(&chunked("3\r\nabc\n0\r\n\r\n")), Violation::Chunk);
    assert_eq!(refused(&chunked("3;\n\r\nabc\r\n0\r\n\r\n")), Violation::Chunk);
    assert_eq!(refused(&chunked(";x\r\n")), Violation::Chunk);
    let sound = chunked("0000000000000003\r\nabc\r\nA\r\n0123456789\r\n000\r\n\r\n");
    assert_eq!(passes(&sound), chunked("3\r\nabc\r\na\r\n0123456789\r\n0\r\n\r\n"));
}

#[test]
fn chunk_extensions_are_dropped_and_bounded() {
    let extended = chunked("3;name=\"v\"\r\nabc\r\n0;last\r\n\r\n");
    assert_eq!(passes(&extended), chunked("3\r\nabc\r\n0\r\n\r\n"));
    let long = "x".repeat(257);
    assert_eq!(refused(&chunked(&format!("3;{long}\r\nabc\r\n0\r\n\r\n"))), Violation::Chunk);
    let many: String = (0..65).map(|_| format!("1;{}\r\na\r\n", "x".repeat(256))).collect();
    assert_eq!(read(&chunked(&many), usize::MAX).unwrap_err(), Violation::Chunk);
}

#[test]
fn s_006_a_head_that_needs_repair_is_refused() {
    for fields in [
        "X: a\n",
        "X: a\rb\r\n",
        "X: a\r\n folded\r\n",
        "X: a\r\n\tfolded\r\n",
        "X : a\r\n",
        " X: a\r\n",
        "X\r\n",
        ": a\r\n",
        "X: a\0b\r\n",
        "X: a\x01\r\n",
        "X: \x7f\r\n",
        "X\0: a\r\n",
        "X(): a\r\n",
        "X\t: a\r\n",
        "Ä: a\r\n",
        "X: a\r\r\n",
    ] {
        assert_eq!(refused(&head(fields)), Violation::Field, "{fields:?}");
    }
    assert_eq!(refused(&head("Host: b.example\r\n")), Violation::Host);
    assert_eq!(refused(b"GET / HTTP/1.1\r\nHost: a\r\n\n"), Violation::Field);
}

#[test]
fn s_007_a_request_line_is_three_tokens_and_a_known_version() {
    for line in [
        "GET /",
        "GET",
        "",
        " GET / HTTP/1.1",
        "GET  / HTTP/1.1",
        "GET /  HTTP/1.1",
        "GET / HTTP/1.1 ",
        "GET / HTTP/2.0",
        "GET / HTTP/0.9",
        "GET / HTTP/1.2",
        "GET / http/1.1",
        "GET / HTTP/1.10",
        "G@T / HTTP/1.1",
        "GET\t/\tHTTP/1.1",
        "GET /a b HTTP/1.1",
        "PRI * HTTP/2.0",
        " / HTTP/1.1",
        "GET / HTTP/1.1\r",
    ] {
        let violation = refused(format!("{line}\r\nHost: a\r\n\r\n").as_bytes());
        assert_eq!(violation, Violation::RequestLine, "{line:?}");
    }
    assert_eq!(refused(b"GET / HTTP/1.1\nHost: a\r\n\r\n"), Violation::RequestLine);
    assert_eq!(passes(b"GET / HTTP/1.0\r\n\r\n"), b"GET / HTTP/1.0\r\n\r\n");
}

#[test]
fn s_008_bytes_after_a_message_wait_for_the_next_one() {
    let wire = b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n";
    let (mut guard, mut out, mut input) = (Guard::new(Limits::DEFAULT), BytesMut::new(), BytesMut::from(&wire[..]));
    guard.advance(&mut input, &mut out).unwrap();
    assert_eq!(&out[..], &wire[..28]);
    guard.advance(&mut input, &mut out).unwrap();
    assert_eq!(out.len(), 28, "nothing passes before the next message is asked for");
    guard.next_message();
    guard.advance(&mut input, &mut out).unwrap();
    assert_eq!(&out[..], &wire[..]);
}

#[test]
fn s_008_a_body_is_never_read_as_a_head() {
    let wire = [head("Content-Length: 10\r\n"), b"GET /2".to_vec()].concat();
    let (mut guard, mut out, mut input) = (Guard::new(Limits::DEFAULT), BytesMut::new(), BytesMut::from(&wire[..]));
    guard.advance(&mut input, &mut out).unwrap();
    guard.next_message();
    assert_eq!(guard.waiting(), Waiting::Body);
    assert_eq!(guard.length_left(), Some(4));
}

#[test]
fn s_011_trailers_are_checked_and_dropped() {
    let trailed = chunked("1\r\na\r\n0\r\nX-Pomerium-Jwt-Assertion: forged\r\nContent-Length: 5\r\n\r\n");
    assert_eq!(passes(&trailed), chunked("1\r\na\r\n0\r\n\r\n"));
    assert_eq!(refused(&chunked("0\r\n folded\r\n\r\n")), Violation::Chunk);
    assert_eq!(refused(&chunked("0\r\nX: a\n\r\n")), Violation::Chunk);
    let long = format!("0\r\nX: {}\r\nY: {}\r\n\r\n", "x".repeat(4096), "y".repeat(4096));
    assert_eq!(read(&chunked(&long), 100).unwrap_err(), Violation::Chunk);
}

#[test]
fn s_024_a_fragment_or_a_raw_byte_in_the_target_is_refused() {
    for target in ["/#", "/a#b", "#", "/caf\u{e9}", "/a\u{7f}", "/\u{1}", "/a\tb", "/\0"] {
        assert_eq!(
            refused(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()),
            Violation::Target,
            "{target:?}"
        );
    }
}

#[test]
fn what_is_too_large_is_refused_while_it_comes() {
    let target = format!("GET /{} HTTP/1.1\r\n", "a".repeat(16 * 1024));
    assert_eq!(refused(target.as_bytes()), Violation::TargetTooLong);
    assert_eq!(read("GET /".repeat(5000).as_bytes(), 1000).unwrap_err(), Violation::TargetTooLong);
    assert_eq!(read(&head(&format!("X: {}\r\n", "a".repeat(33_000))), 1000).unwrap_err(), Violation::HeadTooLarge);
    let three = format!("X: {0}\r\nY: {0}\r\nZ: {0}\r\n", "a".repeat(30_000));
    assert_eq!(read(&head(&three), 4096).unwrap_err(), Violation::HeadTooLarge);
    let many: String = (0..200).map(|n| format!("X-{n}: a\r\n")).collect();
    assert_eq!(read(&head(&many), usize::MAX).unwrap_err(), Violation::HeadTooLarge);
    let just: String = (0..199).map(|n| format!("X-{n}: a\r\n")).collect();
    passes(&head(&just));
}

#[test]
fn a_known_length_may_pass_beside_the_guard_and_is_counted() {
    let mut guard = Guard::new(Limits::DEFAULT);
    let (mut input, mut out) = (BytesMut::from(&head("Content-Length: 5\r\n")[..]), BytesMut::new());
    guard.advance(&mut input, &mut out).unwrap();
    guard.pass(4);
    assert_eq!((guard.length_left(), guard.is_complete()), (Some(1), false));
    guard.pass(1);
    assert!(guard.is_complete());
}

/// Heads and bodies that are nearly right: the pieces that smuggling is made of.
fn nearly_http() -> impl Strategy<Value = Vec<u8>> {
    let part = prop::sample::select(vec![
        "GET / HTTP/1.1\r\n",
        "POST /a HTTP/1.1\r\n",
        "Host: a\r\n",
        "Content-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\n",
        "\r\n",
        "5\r\nhello\r\n",
        "0\r\n",
        "0\r\n\r\n",
        "hello",
        "\n",
        "\r",
        ";x=y",
        "X: y\r\n",
        "a",
        " ",
        "3",
        "GET ",
        ":",
        "\0",
    ]);
    prop::collection::vec(part, 0..24).prop_map(|parts| parts.concat().into_bytes())
}

proptest! {
    #[test]
    fn how_the_bytes_are_cut_never_changes_the_result(wire in nearly_http(), piece in 1_usize..9) {
        prop_assert_eq!(read(&wire, piece), read(&wire, usize::MAX));
    }

    #[test]
    fn any_bytes_at_all_are_read_without_panic(wire in prop::collection::vec(any::<u8>(), 0..600)) {
        let _either = read(&wire, usize::MAX);
    }

    #[test]
    fn s_001_what_passes_has_at_most_one_framing(wire in nearly_http()) {
        if let Ok((out, _, true)) = read(&wire, usize::MAX) {
            let end = out.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
            let head = String::from_utf8_lossy(&out[..end]).to_ascii_lowercase();
            let count = |name: &str| head.lines().filter(|line| line.starts_with(name)).count();
            prop_assert!(count("content-length:") + count("transfer-encoding:") <= 1);
        }
    }

    #[test]
    fn any_body_passes_unchanged_through_chunks(body in prop::collection::vec(any::<u8>(), 0..300), size in 1_usize..40) {
        let mut wire = head("Transfer-Encoding: chunked\r\n");
        for part in body.chunks(size) {
            wire.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
            wire.extend_from_slice(part);
            wire.extend_from_slice(b"\r\n");
        }
        wire.extend_from_slice(b"0\r\n\r\n");
        prop_assert_eq!(passes(&wire), wire);
    }
}
