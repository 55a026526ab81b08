use serde_json::json;

use super::*;
use crate::document::read;
use crate::testing::World;

fn string(text: &str) -> StringMatcher {
    StringMatcher::parse(&read(text).unwrap()).unwrap()
}

fn list(text: &str) -> ListMatcher {
    ListMatcher::parse(&read(text).unwrap()).unwrap()
}

/// Whether a claim of these values meets the matcher.
#[track_caller]
fn meets(text: &str, values: &Value) -> bool {
    let world = World::signed_in().user_claims(&json!({ "c": values }));
    list(text).matches(world.facts().person.unwrap().session.claim("c"))
}

fn addresses(text: &str) -> IpMatcher {
    IpMatcher::parse(&read(text).unwrap()).unwrap()
}

#[test]
fn each_string_operator_compares_case_sensitively() {
    let cases = [
        ("Abc", "Abc", "abc"),
        ("{is: Abc}", "Abc", "abc"),
        ("{not: Abc}", "abc", "Abc"),
        ("{starts_with: Ab}", "Abc", "abc"),
        ("{ends_with: bC}", "AbC", "Abc"),
        ("{contains: b}", "Abc", "ABC"),
        ("{in: [x, Abc]}", "Abc", "abc"),
        ("{not_in: [x, Abc]}", "abc", "Abc"),
        ("{starts_with: A, ends_with: c}", "Abc", "Abd"),
        ("{IS: Abc}", "Abc", "abc"),
    ];
    for (matcher, yes, no) in cases {
        assert!(string(matcher).matches(yes), "{matcher} {yes}");
        assert!(!string(matcher).matches(no), "{matcher} {no}");
    }
}

#[test]
fn a_value_that_is_no_text_equals_no_text() {
    assert!(!string("3").matches("3"));
    assert!(!string("[a]").matches("a"));
    assert!(string("{not: 3}").matches("3"));
    assert!(!string("{in: [3, true]}").matches("3"));
    assert!(string("{not_in: [3]}").matches("3"));
    assert!(string("{}").matches("anything"));
}

#[test]
fn list_operators_compare_json_values() {
    let values = json!(["viewer", 3, true, ["a", "b"]]);
    for yes in
        ["viewer", "3", "3.0", "true", "[a, b]", "{has: viewer}", "{exclude: admin}", "{has: 3, exclude: '3'}", "{}"]
    {
        assert!(meets(yes, &values), "{yes}");
    }
    for no in ["Viewer", "'3'", "'true'", "[a]", "[b, a]", "{is: viewer}", "{exclude: viewer}", "[viewer, 3]"] {
        assert!(!meets(no, &values), "{no}");
    }
    assert!(meets("{is: x}", &json!(["x"])));
    assert!(!meets("{is: x}", &json!(["x", "x"])));
    assert!(!meets("{has: x}", &json!([])) && !list("{has: x}").matches(None));
    assert!(meets("{exclude: x}", &json!([])) && list("{exclude: x}").matches(None));
    let world = World::signed_in().user_claims(&json!({ "c": values }));
    let values = world.facts().person.unwrap().session.claim("c");
    assert!(ListMatcher::has_any(&[json!("a"), json!(3)]).matches(values));
    assert!(!ListMatcher::has_any(&[]).matches(values));
}

#[test]
fn objects_compare_by_their_members() {
    assert!(meets("{has: {a: 1, b: [2.0]}}", &json!([{"b": [2], "a": 1.0}])));
    for no in [json!({"a": 1, "b": 2}), json!({"a": 2}), json!({"b": 1}), json!({}), json!(["a", 1]), json!("a")] {
        assert!(!meets("{has: {a: 1}}", &json!([no])), "{no}");
    }
    for no in [json!(["a"]), json!(["a", "b", "c"]), json!(["b", "a"]), json!("a"), json!(null)] {
        assert!(!meets("[a, b]", &json!([no])), "{no}");
    }
    assert!(meets("{has: ~}", &json!([null])) && !meets("{has: ~}", &json!([false, 0, ""])));
}

#[test]
fn addresses_are_ranges_and_an_empty_list_has_none() {
    let inside = |matcher: &str, address: &str| addresses(matcher).contains(address.parse().unwrap());
    assert!(inside("192.0.2.0/24", "192.0.2.77"));
    assert!(inside("[198.51.100.7, '2001:db8::/32']", "2001:db8:1::5"));
    assert!(inside("192.0.2.9/24", "192.0.2.1"), "host bits are ignored");
    assert!(!inside("198.51.100.7", "198.51.100.8"));
    assert!(!inside("[]", "192.0.2.1"));
    assert!(inside("0.0.0.0/0", "192.0.2.1") && !inside("0.0.0.0/0", "2001:db8::1"));
}

#[test]
fn an_ipv4_address_inside_ipv6_is_taken_for_what_it_is() {
    assert!(addresses("10.0.0.0/8").contains("::ffff:10.1.2.3".parse().unwrap()));
    assert!(addresses("'::ffff:10.0.0.0/104'").contains("10.1.2.3".parse().unwrap()));
    assert!(addresses("'::ffff:10.1.2.3'").contains("::ffff:10.1.2.3".parse().unwrap()));
}

#[test]
fn bad_data_is_refused_at_its_place_all_at_once() {
    let mistakes = StringMatcher::parse(&read("{is: a, in: a, strats_with: b, contains: 3}").unwrap()).unwrap_err();
    let found: Vec<_> = mistakes.iter().map(|mistake| (mistake.place.column, mistake.message.as_str())).collect();
    let expected = [
        (13, "`in` needs a list, not text"),
        (16, "unknown operator `strats_with`"),
        (42, "`contains` needs text, not a number"),
    ];
    assert_eq!(found, expected);
    assert_eq!(mistakes[1].hint.as_deref(), Some("did you mean `starts_with`?"));

    let mistakes = ListMatcher::parse(&read("{contains: a}").unwrap()).unwrap_err();
    assert_eq!(mistakes[0].hint.as_deref(), Some("write one of has, is, exclude"));

    let mistakes = IpMatcher::parse(&read("[10.0.0.0/8, host.example.com, 10.0.0.0/33, 3, {}]").unwrap()).unwrap_err();
    assert_eq!(mistakes.len(), 4);
    assert_eq!(mistakes[0].message, "`host.example.com` is not an IP address or range");
    assert!(StringMatcher::parse(&read("~").unwrap()).is_err());
    assert!(ListMatcher::parse(&read("").unwrap()).is_err());
}

#[test]
fn words_are_cut_where_a_person_stops_reading() {
    assert_eq!(string("{in: [c, a, b]}").words(), "a, b or c");
    assert_eq!(string("{starts_with: a, not_in: [b]}").words(), "that starts with a and other than b");
    assert_eq!(string("{in: [a, b, c, d, e, f, g, h]}").words(), "a, b, c, d, e, f or 2 more");
    assert_eq!(addresses("[192.0.2.0/24, '::1']").words(), "192.0.2.0/24 or ::1/128");
}
