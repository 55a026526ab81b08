use proptest::prelude::*;

use super::*;
use crate::testing::{connection, get, h2, head, values};
use crate::{EscapedSlashes, UnderscoreHeaders};

fn path(raw: &str) -> Result<String, PathError> {
    CanonicalPath::parse(raw.as_bytes(), &PathConfig::default()).map(|path| path.text)
}

fn path_with(raw: &str, rules: PathConfig) -> Result<String, PathError> {
    CanonicalPath::parse(raw.as_bytes(), &rules).map(|path| path.text)
}

fn read(head: &RequestHeader) -> Result<Request, BadRequest> {
    Request::read(head, &connection(), &RequestRules::default())
}

fn read_with(head: &RequestHeader, change: impl FnOnce(&mut RequestRules)) -> Result<Request, BadRequest> {
    let mut rules = RequestRules::default();
    change(&mut rules);
    Request::read(head, &connection(), &rules)
}

#[test]
fn a_path_has_one_canonical_form() {
    let cases = [
        ("/", "/"),
        ("/a/b", "/a/b"),
        ("/a/", "/a/"),
        ("//", "/"),
        ("//a///b//", "/a/b/"),
        ("/./", "/"),
        ("/.", "/"),
        ("/a/.", "/a/"),
        ("/a/..", "/"),
        ("/a/../", "/"),
        ("/a/./b", "/a/b"),
        ("/a/b/../c", "/a/c"),
        ("/a/b/../../c", "/c"),
        ("/a//../b", "/b"),
        ("/%61", "/a"),
        ("/%7euser", "/~user"),
        ("/%2e/a", "/a"),
        ("/a/%2E%2e/b", "/b"),
        ("/a/.%2e/b", "/b"),
        ("/a%20b", "/a%20b"),
        ("/%c3%a9", "/%C3%A9"),
        ("/a%3ab", "/a%3Ab"),
        ("/100%25", "/100%25"),
        ("/a%2525b", "/a%2525b"),
        ("/a%2541", "/a%2541"),
        ("/...", "/..."),
        ("/.a/..b/c..", "/.a/..b/c.."),
        ("/a;v=1/b", "/a;v=1/b"),
        ("/a;v=1..", "/a;v=1.."),
        ("/a%3bx", "/a%3Bx"),
        ("/a'(b)*!$&+,=:@", "/a'(b)*!$&+,=:@"),
    ];
    for (raw, canonical) in cases {
        assert_eq!(path(raw).as_deref(), Ok(canonical), "{raw}");
    }
}

#[test]
fn s_023_what_can_be_read_in_two_ways_is_refused() {
    use PathError::{
        AboveRoot, Byte, DoubleEncoding, EncodedControl, EncodedSlash, Escape, HiddenDots, NotAbsolute, Utf8,
    };
    let cases = [
        ("", NotAbsolute),
        ("a", NotAbsolute),
        ("/a b", Byte),
        ("/a\tb", Byte),
        ("/a\\b", Byte),
        ("/a#b", Byte),
        ("/é", Byte),
        ("/a\u{7f}", Byte),
        ("/a\0", Byte),
        ("/%", Escape),
        ("/%2", Escape),
        ("/%zz", Escape),
        ("/%%32%66", Escape),
        ("/% 20", Escape),
        ("/%+1", Escape),
        ("/a%2fb", EncodedSlash),
        ("/a%2Fb", EncodedSlash),
        ("/a%5cb", EncodedSlash),
        ("/..%5C..", EncodedSlash),
        ("/%00", EncodedControl),
        ("/a%0d%0ab", EncodedControl),
        ("/a%1f", EncodedControl),
        ("/a%7F", EncodedControl),
        ("/%252e%252e/", DoubleEncoding),
        ("/a%252fb", DoubleEncoding),
        ("/a%255Cb", DoubleEncoding),
        ("/a%2500", DoubleEncoding),
        ("/a%257f", DoubleEncoding),
        ("/a%25252fb", DoubleEncoding),
        ("/a%25%32%66b", DoubleEncoding),
        ("/a%25%32%65b", DoubleEncoding),
        ("/%c0%ae%c0%ae/", Utf8),
        ("/%c0%af", Utf8),
        ("/%e0%80%af", Utf8),
        ("/%ff", Utf8),
        ("/%c3", Utf8),
        ("/%ed%a0%80", Utf8),
        ("/..", AboveRoot),
        ("/../a", AboveRoot),
        ("/a/../../b", AboveRoot),
        ("/%2e%2e/a", AboveRoot),
        ("/..;/a", HiddenDots),
        ("/a/..;x=1/b", HiddenDots),
        ("/a/.;/b", HiddenDots),
        ("/a/..%3b/b", HiddenDots),
        ("/a/%2e%2e;/b", HiddenDots),
        ("/a/..%3B;/b", HiddenDots),
    ];
    for (raw, error) in cases {
        assert_eq!(path(raw), Err(error), "{raw}");
    }
}

#[test]
fn the_three_switches_of_the_configuration_loosen_the_path_and_nothing_else() {
    let strict = PathConfig::default();
    let keep = PathConfig { escaped_slashes: EscapedSlashes::Keep, ..strict };
    assert_eq!(path_with("/a%2fb%5cc", keep).as_deref(), Ok("/a%2Fb%5Cc"));
    for hidden in ["/a/..%2fb", "/a%2f..", "/a%5c..%2fb", "/a%2f.%2fb", "/a%2F..;x"] {
        assert_eq!(path_with(hidden, keep), Err(PathError::HiddenDots), "{hidden}");
    }
    let forward = PathConfig { escaped_slashes: EscapedSlashes::UnescapeAndForward, ..strict };
    assert_eq!(path_with("/a%2fb%5cc", forward).as_deref(), Ok("/a/b/c"));
    assert_eq!(path_with("/a%2f..%2fb", forward).as_deref(), Ok("/b"));
    let runs = PathConfig { merge_slashes: false, ..strict };
    assert_eq!(path_with("//a//b/", runs).as_deref(), Ok("//a//b/"));
    assert_eq!(path_with("//a//../b", runs).as_deref(), Ok("//a/b"));
    let raw = PathConfig { normalize: false, ..strict };
    assert_eq!(path_with("/%61%7e/%c3%a9", raw).as_deref(), Ok("/%61%7e/%c3%a9"));
    assert_eq!(path_with("/a//b", raw).as_deref(), Ok("/a/b"));
    for dots in ["/a/../b", "/a/%2e%2e/b", "/./a", "/a/."] {
        assert_eq!(path_with(dots, raw), Err(PathError::HiddenDots), "{dots}");
    }
    for never in ["/%00", "/a%25%32%66b", "/%ff", "/a\\b", "/a/..;/b"] {
        for rules in [keep, forward, runs, raw] {
            assert!(path_with(never, rules).is_err(), "{never} {rules:?}");
        }
    }
}

/// Paths out of pieces that are meant to hurt.
fn hostile_path() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "/", "//", ".", "..", "a", "admin", "b", ";", ";x=1", "%2e", "%2E", "%2f", "%5c", "%25", "%252e", "%3b", "%3B",
        "%61", "%20", "%c3%a9", "%C0%AE", "%00", "~", "%7e", "\\", "%", "2f", "2e", "25", "é", "#", "?",
    ]);
    prop::collection::vec(piece, 0..12).prop_map(|pieces| format!("/{}", pieces.concat()))
}

fn any_rules() -> impl Strategy<Value = PathConfig> {
    let slashes = prop::sample::select(vec![
        EscapedSlashes::Reject,
        EscapedSlashes::Keep,
        EscapedSlashes::UnescapeAndForward,
        EscapedSlashes::UnescapeAndRedirect,
    ]);
    (any::<bool>(), any::<bool>(), slashes).prop_map(|(normalize, merge_slashes, escaped_slashes)| PathConfig {
        normalize,
        merge_slashes,
        escaped_slashes,
        ..PathConfig::default()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn s_025_normalising_is_idempotent(raw in hostile_path(), rules in any_rules()) {
        if let Ok(once) = CanonicalPath::parse(raw.as_bytes(), &rules) {
            let again = CanonicalPath::parse(once.text.as_bytes(), &rules).map(|path| path.text);
            prop_assert_eq!(again, Ok(once.text));
        }
    }

    #[test]
    fn s_025_any_bytes_are_read_without_a_panic_and_stably(raw in prop::collection::vec(any::<u8>(), 0..64)) {
        if let Ok(once) = CanonicalPath::parse(&raw, &PathConfig::default()) {
            prop_assert_eq!(path(&once.text), Ok(once.text.clone()));
            prop_assert!(once.text.starts_with('/') && !once.text.contains("//"));
        }
    }

    #[test]
    fn s_022_the_most_lenient_reading_has_no_dot_segment_and_leaves_no_directory(raw in hostile_path(), rules in any_rules()) {
        if let Ok(canonical) = CanonicalPath::parse(raw.as_bytes(), &rules) {
            let decoded = percent_encoding::percent_decode_str(&canonical.text).decode_utf8().unwrap().replace('\\', "/");
            let mut segments = decoded.split('/').map(|segment| segment.split(';').next().unwrap_or_default());
            prop_assert!(segments.all(|segment| segment != "." && segment != ".."), "{}", canonical.text);
        }
    }

    #[test]
    fn s_028_a_host_is_read_the_same_in_every_spelling(
        name in "[a-z0-9]{1,8}(\\.[a-z0-9-]{1,24}){0,5}", upper in any::<bool>(), dot in any::<bool>(),
    ) {
        prop_assume!(name.parse::<std::net::Ipv4Addr>().is_err());
        let plain = Host::parse(name.as_bytes()).unwrap();
        let spelled = if upper { name.to_uppercase() } else { name };
        let spelled = if dot { format!("{spelled}.") } else { spelled };
        prop_assert_eq!(Host::parse(spelled.as_bytes()).unwrap(), plain);
    }

    #[test]
    fn any_bytes_are_a_host_or_an_error(raw in prop::collection::vec(any::<u8>(), 0..32)) {
        if let Ok(host) = Host::parse(&raw) {
            prop_assert_eq!(Host::parse(host.to_string().as_bytes()).unwrap(), host);
        }
    }

    #[test]
    fn s_028_only_the_canonical_form_is_passed_on_as_it_is(raw in "([Aa]|a\\.b|\\[::1\\]|)\\.?(:[0-9+]{0,6})?[0a:.]?", other in "[ab](:80?)?") {
        if let Ok(host) = Host::parse(raw.as_bytes()) {
            let written = host.to_string();
            prop_assert_eq!(host.is_written_as(raw.as_bytes()), raw == written);
            prop_assert_eq!(host.is_written_as(other.as_bytes()), other == written);
            prop_assert!(host.is_written_as(written.as_bytes()));
        }
    }
}

#[test]
fn s_028_a_host_has_one_canonical_form() {
    let cases = [
        ("app.example.com", "app.example.com", None),
        ("APP.Example.COM", "app.example.com", None),
        ("app.example.com.", "app.example.com", None),
        ("app.example.com:8443", "app.example.com", Some(8443)),
        ("app.example.com.:443", "app.example.com", Some(443)),
        ("app.example.com:", "app.example.com", None),
        ("xn--bcher-kva.example", "xn--bcher-kva.example", None),
        ("under_score.example", "under_score.example", None),
        ("localhost", "localhost", None),
        ("127.0.0.1:80", "127.0.0.1", Some(80)),
        ("[::1]", "[::1]", None),
        ("[0:0:0:0:0:0:0:1]:443", "[::1]", Some(443)),
        ("[2001:DB8::A]:65535", "[2001:db8::a]", Some(65535)),
    ];
    for (raw, name, port) in cases {
        let host = Host::parse(raw.as_bytes()).unwrap();
        assert_eq!((host.name(), host.port()), (name, port), "{raw}");
    }
    let refused = [
        ("", HostError::Label),
        (".", HostError::Label),
        ("a..b", HostError::Label),
        (".a", HostError::Label),
        ("a.com..", HostError::Label),
        (":80", HostError::Label),
        ("user@a.com", HostError::Byte),
        ("a.com/x", HostError::Byte),
        ("a.com,b.com", HostError::Byte),
        ("a.com b.com", HostError::Byte),
        ("a.com\t", HostError::Byte),
        ("a%2ecom", HostError::Byte),
        ("é.com", HostError::Byte),
        ("a.com\0", HostError::Byte),
        ("*.a.com", HostError::Byte),
        ("a.com:0", HostError::Port),
        ("a.com:65536", HostError::Port),
        ("a.com:99999", HostError::Port),
        ("a.com:080", HostError::Port),
        ("a.com:+80", HostError::Port),
        ("a.com:80:90", HostError::Port),
        ("a.com:http", HostError::Port),
        ("[::1", HostError::Literal),
        ("[::1%25eth0]", HostError::Literal),
        ("[v1.x]", HostError::Literal),
        ("[::1]x", HostError::Byte),
        ("::1", HostError::Label),
    ];
    for (raw, error) in refused {
        assert_eq!(Host::parse(raw.as_bytes()), Err(error), "{raw}");
    }
    assert_eq!(Host::parse("a".repeat(256).as_bytes()), Err(HostError::Label));
}

#[test]
fn s_016_both_versions_go_through_one_reader() {
    let cases = [
        ("/a/../b?x=1", "/b", Some("x=1")),
        ("/", "/", None),
        ("/a//b?", "/a/b", Some("")),
        ("/a?b?c", "/a", Some("b?c")),
    ];
    for (target, path, query) in cases {
        let one = read(&get(target, &[("host", "APP.example.com.:443")])).unwrap();
        let two = read(&h2("GET", &format!("https://APP.example.com.:443{target}"), &[])).unwrap();
        for request in [&one, &two] {
            assert_eq!((request.path.as_str(), request.query.as_deref()), (path, query), "{target}");
            assert_eq!(request.host.to_string(), "app.example.com:443");
        }
    }
    for target in ["/..", "/a%2fb", "/%ff", "/a%00", "/..;/x"] {
        let one = read(&get(target, &[])).unwrap_err();
        let two = read(&h2("GET", &format!("https://app.example.com{target}"), &[])).unwrap_err();
        assert_eq!(one, two, "{target}");
        assert_eq!(one.status(), StatusCode::BAD_REQUEST);
    }
}

#[test]
fn s_028_long_names_are_read_as_short_ones() {
    for length in [63, 64, 65, 250] {
        let name: String = "abcdefghi-".chars().cycle().take(length).collect();
        let host = Host::parse(name.as_bytes()).unwrap();
        assert_eq!(host.name(), name);
        let others = [name.to_uppercase(), format!("{name}."), format!("{}.", name.to_uppercase())];
        assert!(others.iter().all(|other| Host::parse(other.as_bytes()) == Ok(host.clone())), "{length}");
        let ported = Host::parse(format!("{name}:8443").as_bytes()).unwrap();
        assert_eq!((ported.name(), ported.port()), (&*name, Some(8443)));
        assert!(host.is_written_as(name.as_bytes()) && !host.is_written_as(others[0].as_bytes()));
        assert!(ported.is_written_as(format!("{name}:8443").as_bytes()) && !ported.is_written_as(name.as_bytes()));
    }
}

#[test]
fn what_is_canonical_in_a_head_is_shared_with_it() {
    let head = get("/a/b?c=d", &[]);
    let request = read(&head).unwrap();
    assert!(std::ptr::eq(request.path.as_str(), head.uri.path()));
    assert!(std::ptr::eq(request.query.as_deref().unwrap(), head.uri.query().unwrap()));
}

#[test]
fn s_027_the_query_is_kept_byte_for_byte() {
    for query in ["a=1&b=%2f..%2F//;x", "a=%zz", "../../x", "%00", "a\\b", "?"] {
        let request = read(&get(&format!("/p?{query}"), &[])).unwrap();
        assert_eq!((request.path.as_str(), request.query.as_deref()), ("/p", Some(query)));
    }
}

#[test]
fn s_030_absolute_form_and_host_name_one_host_or_the_request_is_refused() {
    let request = read(&get("http://App.example.com/a/./b?q", &[("host", "app.example.com")])).unwrap();
    assert_eq!((request.host.name(), request.path.as_str()), ("app.example.com", "/a/b"));
    let bare = read(&get("https://app.example.com", &[])).unwrap();
    assert_eq!(bare.path.as_str(), "/");
    let other = get("http://other.example.com/", &[("host", "app.example.com")]);
    assert_eq!(read(&other).unwrap_err(), BadRequest::Authority);
    let userinfo = get("http://user@app.example.com/", &[]);
    assert_eq!(read(&userinfo).unwrap_err(), BadRequest::Host(HostError::Byte));
    for form in ["ftp://app.example.com/", "app.example.com:443", "x", "?q"] {
        assert_eq!(read(&get(form, &[])).unwrap_err(), BadRequest::Form, "{form}");
    }
    assert_eq!(read(&get("*", &[])).unwrap_err(), BadRequest::Form);
    assert_eq!(read(&head("OPTIONS", "*", &[])).unwrap().path.as_str(), "*");
}

#[test]
fn exactly_one_host_is_named() {
    assert_eq!(read(&get("/", &[("host", "a.com"), ("host", "a.com")])).unwrap_err(), BadRequest::Authority);
    let mut none = get("/", &[]);
    none.remove_header("host");
    assert_eq!(read(&none).unwrap_err(), BadRequest::Authority);
    none.set_version(Version::HTTP_10);
    assert!(read(&none).unwrap().host.is_unnamed());
    assert!(read(&h2("GET", "https://a.com/", &[("host", "A.com")])).is_ok());
    assert_eq!(read(&h2("GET", "https://a.com/", &[("host", "b.com")])).unwrap_err(), BadRequest::Authority);
    assert_eq!(read(&h2("GET", "/", &[("host", "a.com")])).unwrap_err(), BadRequest::Authority);
}

#[test]
fn s_018_trace_and_connect_are_not_served() {
    for method in ["TRACE", "CONNECT"] {
        let error = read(&head(method, "/", &[])).unwrap_err();
        assert_eq!((error, error.status()), (BadRequest::Method, StatusCode::METHOD_NOT_ALLOWED));
    }
    assert!(read(&head("PROPFIND", "/", &[])).is_ok());
}

#[test]
fn s_014_fields_of_the_connection_have_no_place_in_http_2() {
    for field in [("connection", "close"), ("keep-alive", "1"), ("proxy-connection", "x"), ("upgrade", "h2c")] {
        let error = read(&h2("GET", "https://a.com/", &[field])).unwrap_err();
        assert_eq!(error, BadRequest::ConnectionField, "{field:?}");
    }
    assert_eq!(read(&h2("GET", "https://a.com/", &[("te", "gzip")])).unwrap_err(), BadRequest::ConnectionField);
    assert!(read(&h2("POST", "https://a.com/", &[("te", "trailers")])).is_ok());
}

#[test]
fn s_004_a_body_has_one_clear_length() {
    for bad in ["", "+3", "-1", "0x3", "3, 3", "1 2", "1234567890123456789"] {
        let error = read(&head("POST", "/", &[("content-length", bad)])).unwrap_err();
        assert_eq!(error, BadRequest::Framing, "{bad}");
    }
    let twice = head("POST", "/", &[("content-length", "3"), ("content-length", "3")]);
    assert_eq!(read(&twice).unwrap_err(), BadRequest::Framing);
    let both = head("POST", "/", &[("content-length", "3"), ("transfer-encoding", "chunked")]);
    assert_eq!(read(&both).unwrap_err(), BadRequest::Framing);
    assert!(read(&head("POST", "/", &[("content-length", "3")])).is_ok());
}

#[test]
fn limits_hold_for_http_2_too() {
    let many: Vec<(&str, &str)> = (0..201).map(|_| ("x-a", "1")).collect();
    assert_eq!(read(&h2("GET", "https://a.com/", &many)).unwrap_err(), BadRequest::HeadTooLarge);
    assert!(read(&h2("GET", "https://a.com/", &many[..199])).is_ok());
    let (field, third) = ("a".repeat(32 * 1024), "a".repeat(22 * 1024));
    assert_eq!(read(&h2("GET", "https://a.com/", &[("x-a", &field)])).unwrap_err(), BadRequest::HeadTooLarge);
    let whole = [("x-a", third.as_str()), ("x-b", third.as_str()), ("x-c", third.as_str())];
    assert_eq!(read(&h2("GET", "https://a.com/", &whole)).unwrap_err(), BadRequest::HeadTooLarge);
    let long = "a".repeat(16 * 1024 + 1);
    for target in [format!("/{long}"), format!("/?{long}")] {
        let error = read(&h2("GET", &format!("https://a.com{target}"), &[])).unwrap_err();
        assert_eq!((error, error.status().as_u16()), (BadRequest::TargetTooLong, 414));
    }
}

#[test]
fn s_048_every_spelling_of_a_reserved_name_is_refused_and_told_apart() {
    let variants: [&'static str; 12] = [
        "X_Pomerium_Jwt_Assertion",
        "x-pomerium_jwt-assertion",
        "X.Pomerium.Claim.Email",
        "x~pomerium~x",
        "X_Forwarded_For",
        "x_forwarded-host",
        "Content_Length",
        "Transfer.Encoding",
        "Host_",
        "Cookie.",
        "X_Real_Ip",
        "X_Postern_User",
    ];
    for name in variants {
        for underscores in [UnderscoreHeaders::Reject, UnderscoreHeaders::Drop, UnderscoreHeaders::Allow] {
            let refused = read_with(&get("/", &[(name, "x")]), |rules| rules.fields.underscores = underscores);
            let expected = if name == "Host_" || name == "Cookie." { None } else { Some(BadRequest::ReservedVariant) };
            match expected {
                Some(error) => assert_eq!(refused.unwrap_err(), error, "{name} {underscores:?}"),
                None => assert_ne!(refused.err(), Some(BadRequest::ReservedVariant), "{name}"),
            }
        }
    }
    assert_eq!(BadRequest::ReservedVariant.reason(), "field-reserved-variant");
    assert_eq!(BadRequest::Underscore.reason(), "field-underscore");
}

#[test]
fn other_underscores_are_refused_dropped_or_passed_as_configured() {
    let head = get("/", &[("my_field", "x"), ("my.field", "y")]);
    assert_eq!(read(&head).unwrap_err(), BadRequest::Underscore);
    let dropped = read_with(&head, |rules| rules.fields.underscores = UnderscoreHeaders::Drop).unwrap();
    assert_eq!(dropped.strip, ["my_field"]);
    let passed = read_with(&head, |rules| rules.fields.underscores = UnderscoreHeaders::Allow).unwrap();
    assert!(passed.strip.is_empty());
}

#[test]
fn s_038_reserved_and_forwarding_fields_of_a_client_are_marked_for_removal() {
    let stripped = [
        "X-Pomerium-Jwt-Assertion",
        "x-pomerium-anything",
        "X-Postern-User",
        "X-Custom-Email",
        "Forwarded",
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "X-Forwarded-Proto",
        "X-Forwarded-Port",
        "X-Forwarded-Client-Cert",
        "X-Real-IP",
        "X-Original-Url",
        "X-Rewrite-Url",
        "X-Envoy-Original-Path",
        "X-Client-Cert-Dn",
        "Client-Cert",
        "Client-Cert-Chain",
        "X-Forwarded-User",
    ];
    for name in stripped {
        let claim = |rules: &mut RequestRules| {
            rules.fields.claims =
                vec![HeaderName::from_static("x-custom-email"), HeaderName::from_static("x_odd_claim")];
        };
        let request = read_with(&get("/", &[(name, "forged")]), claim).unwrap();
        assert_eq!(request.strip, [name.to_ascii_lowercase().as_str()], "{name}");
        let variant = read_with(&get("/", &[("x-odd_claim", "forged")]), claim).unwrap_err();
        assert_eq!(variant, BadRequest::ReservedVariant);
        assert_eq!(read_with(&get("/", &[("x-odd-claim", "forged")]), claim).unwrap().strip, ["x-odd-claim"]);
        assert_eq!(read_with(&get("/", &[("x_odd_claim", "forged")]), claim).unwrap().strip, ["x_odd_claim"]);
    }
    for name in [
        "Remote-User",
        "X-Auth-Request-Email",
        "X-WebAuth-User",
        "Oidc-Claim-Sub",
        "Impersonate-User",
        "Cf-Access-Jwt-Assertion",
    ] {
        let request = read(&get("/", &[(name, "forged")])).unwrap();
        assert_eq!(request.strip_with_identity, [name.to_ascii_lowercase().as_str()], "{name}");
    }
    for name in ["Accept", "X-Requested-With", "X-Pomerium", "Cookie", "Authorization", "X-Forward", "Referer"] {
        let request = read(&get("/", &[(name, "x")])).unwrap();
        assert!(request.strip.is_empty() && request.strip_with_identity.is_empty(), "{name}");
    }
}

proptest! {
    #[test]
    fn s_038_no_spelling_of_a_reserved_name_passes_unmarked(
        tail in "[a-zA-Z]{1,8}", seps in prop::collection::vec(prop::sample::select(vec!["-", "_", ".", "~", "!"]), 2), upper in any::<bool>(),
    ) {
        let name = format!("x{}pomerium{}{tail}", seps[0], seps[1]);
        let name = if upper { name.to_uppercase() } else { name };
        let mut head = get("/", &[]);
        head.append_header(name.clone(), "forged").unwrap();
        for underscores in [UnderscoreHeaders::Reject, UnderscoreHeaders::Drop, UnderscoreHeaders::Allow] {
            match read_with(&head, |rules| rules.fields.underscores = underscores) {
                Ok(request) => prop_assert_eq!(request.strip.len(), 1, "{}", name),
                Err(error) => prop_assert_eq!(error, BadRequest::ReservedVariant),
            }
        }
    }
}

#[test]
fn s_040_the_client_address_is_counted_from_the_right_and_only_behind_trusted_hops() {
    let fields = [
        ("x-forwarded-for", "6.6.6.6, 203.0.113.9"),
        ("x-forwarded-for", "198.51.100.2"),
        ("x-forwarded-proto", "https"),
    ];
    let behind = |hops| read_with(&get("/", &fields), |rules| rules.trusted_hops = hops).unwrap().client;
    let peer: std::net::IpAddr = "192.0.2.7".parse().unwrap();
    assert_eq!((behind(0).address, behind(0).trusted, behind(0).https), (peer, false, false));
    assert_eq!(behind(1).address.to_string(), "198.51.100.2");
    assert_eq!(
        (behind(2).address.to_string(), behind(2).trusted, behind(2).https),
        ("203.0.113.9".to_owned(), true, true)
    );
    assert_eq!((behind(4).address, behind(4).trusted), (peer, false), "fewer entries than hops");
    for (entry, address) in [
        ("[2001:db8::1]:99", Some("2001:db8::1")),
        ("1.2.3.4:5", Some("1.2.3.4")),
        ("::ffff:1.2.3.4", Some("1.2.3.4")),
        ("unknown", None),
        ("", None),
    ] {
        let client =
            read_with(&get("/", &[("x-forwarded-for", entry)]), |rules| rules.trusted_hops = 1).unwrap().client;
        assert_eq!(client.trusted.then(|| client.address.to_string()).as_deref(), address, "{entry}");
    }
}

#[test]
fn s_040_forwarded_fields_count_only_behind_a_trusted_peer_where_some_are_named() {
    let fields = [
        ("x-forwarded-for", "203.0.113.9"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "h"),
        ("forwarded", "for=203.0.113.9"),
        ("x-real-ip", "203.0.113.9"),
    ];
    let behind = |peers: Option<&[&str]>| {
        read_with(&get("/", &fields), |rules| {
            rules.trusted_hops = 1;
            rules.trusted_peers = peers.map(|peers| IpMatcher::of(peers.iter().copied()).unwrap());
        })
        .unwrap()
    };
    // The peer is 192.0.2.7.
    for trusted in [None, Some(&["198.51.100.1", "192.0.2.0/24"][..]), Some(&["::ffff:192.0.2.7"])] {
        let request = behind(trusted);
        assert_eq!((request.client.address.to_string().as_str(), request.client.https), ("203.0.113.9", true));
        assert!(request.strip.is_empty(), "{trusted:?}: {:?}", request.strip);
    }
    for other in [&["192.0.2.8"][..], &["2001:db8::/32", "10.0.0.0/8"], &[]] {
        let request = behind(Some(other));
        assert_eq!((request.client.address.to_string().as_str(), request.client.https), ("192.0.2.7", false));
        let stripped: Vec<&str> = request.strip.iter().map(HeaderName::as_str).collect();
        for (name, _) in fields {
            assert!(stripped.contains(&name), "{other:?}: {name} stays");
        }
    }
}

#[test]
fn what_trusted_hops_wrote_stays() {
    let fields = [
        ("x-forwarded-for", "203.0.113.9"),
        ("x-forwarded-host", "h"),
        ("x-real-ip", "1.1.1.1"),
        ("x-forwarded-user", "eve"),
    ];
    let request = read_with(&get("/", &fields), |rules| rules.trusted_hops = 1).unwrap();
    assert!(request.strip.is_empty());
    assert_eq!(request.strip_with_identity, ["x-forwarded-user"]);
}

#[test]
fn s_035_a_preflight_is_options_with_both_fields() {
    let both = [("origin", "https://a"), ("access-control-request-method", "PUT")];
    assert!(read(&head("OPTIONS", "/", &both)).unwrap().cors_preflight);
    assert!(!read(&head("GET", "/", &both)).unwrap().cors_preflight);
    assert!(!read(&head("OPTIONS", "/", &both[..1])).unwrap().cors_preflight);
    assert!(!read(&head("OPTIONS", "/", &[("origin", ""), both[1]])).unwrap().cors_preflight);
}

#[test]
fn s_009_an_upgrade_is_asked_for_by_both_fields_in_http_1_1() {
    let fields = [("upgrade", "WebSocket"), ("connection", "keep-alive, Upgrade")];
    let asked = |head: &RequestHeader| -> Vec<String> {
        read(head).unwrap().upgrades.iter().map(|upgrade| upgrade.as_str().to_owned()).collect()
    };
    assert_eq!(asked(&get("/", &fields)), ["WebSocket"]);
    assert!(asked(&get("/", &fields[..1])).is_empty());
    assert!(asked(&head("POST", "/", &fields)).is_empty());
    assert!(asked(&head("HEAD", "/", &[("upgrade", "tcp"), fields[1]])).is_empty());
    assert!(asked(&get("/", &[("upgrade", "h2c, TLS/1.0, HTTP/2.0, a b, /, a/b/c"), fields[1]])).is_empty());
    let several = [("upgrade", "h2c, SPDY/3.1"), ("upgrade", "tcp"), fields[1]];
    assert_eq!(asked(&head("POST", "/", &several)), ["SPDY/3.1", "tcp"]);
    let many = vec!["x"; 20].join(",");
    assert_eq!(asked(&get("/", &[("upgrade", many.as_str()), fields[1]])).len(), 8);
}

#[test]
fn what_the_head_guard_found_is_the_answer() {
    let connection = connection();
    connection.violate(Violation::TwoFramings);
    let error = Request::read(&get("/", &[]), &connection, &RequestRules::default()).unwrap_err();
    assert_eq!((error, error.reason()), (BadRequest::Bytes(Violation::TwoFramings), "two-framings"));
    assert_eq!(values(&get("/", &[]).headers, "host"), "app.example.com");
}

#[test]
fn a_lenient_reading_is_made_only_where_it_differs() {
    assert_eq!(lenient_reading("/a/b"), None);
    assert_eq!(lenient_reading("/a%20b"), None);
    assert_eq!(lenient_reading("/a;x/b").as_deref(), Some("/a/b"));
    assert_eq!(lenient_reading("/a%3Bx/b").as_deref(), Some("/a/b"));
    assert_eq!(lenient_reading("/a%2Fb%5Cc").as_deref(), Some("/a/b/c"));
    assert_eq!(lenient_reading("//a").as_deref(), Some("/a"));
    assert_eq!(lenient_reading("/a%40b").as_deref(), Some("/a@b"));
}
