use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn at(line: u32, column: u32, length: u32) -> Place {
    Place { line, column, length }
}

fn json_of(text: &str) -> serde_json::Value {
    read(text).unwrap_or_else(|mistakes| panic!("{mistakes:?} in\n{text}")).to_json()
}

fn mistakes(text: &str) -> Vec<Mistake> {
    read(text).expect_err(text)
}

/// The one mistake of that text: its place and its message.
fn mistake(text: &str) -> (Place, String) {
    let mistakes = mistakes(text);
    assert_eq!(mistakes.len(), 1, "{mistakes:?}");
    (mistakes[0].place, mistakes[0].message.clone())
}

#[test]
fn yaml_gives_its_values() {
    let text = "a: 1\nb: [x, 'y', \"z\\n\"]\nc:\n  - d: true\n    e: ~\n  - 1.5\nf: |\n  two\n  lines\ng:\n";
    let value =
        json!({"a": 1, "b": ["x", "y", "z\n"], "c": [{"d": true, "e": null}, 1.5], "f": "two\nlines\n", "g": null});
    assert_eq!(json_of(text), value);
}

#[test]
fn json_is_read_too_even_when_indented_with_tabs() {
    let value = json!({"a": [1, -2.5, "x\"\\/\u{1F600}", null, true], "b": {"<<": {}, "c": []}});
    assert_eq!(json_of(&value.to_string()), value);
    assert_eq!(json_of(&serde_json::to_string_pretty(&value).unwrap()), value);
    assert_eq!(json_of("{\n\t\"a\": [\n\t\t1,\n\t\t\"\\ud83d\\ude00\"\n\t]\n}\n"), json!({"a": [1, "😀"]}));
}

#[test]
fn an_empty_text_is_nothing() {
    for text in ["", "\n\n", "# only a comment\n", "---\n", "\u{feff}"] {
        assert!(read(text).unwrap().is_null(), "{text:?}");
    }
}

#[test]
fn quoted_scalars_are_always_text_and_tags_of_the_core_schema_hold() {
    assert_eq!(json_of("['1', \"true\", '~', !!str 12]"), json!(["1", "true", "~", "12"]));
    assert_eq!(json_of("[!!int 3, !!float 3, !!bool true, !!map {}, !!seq []]"), json!([3, 3, true, {}, []]));
    for text in ["!secret x", "!!int x", "!!binary aGk=", "!!set {a}", "!!seq {}"] {
        assert!(mistake(text).1.contains("tag"), "{text}");
    }
}

#[test]
fn keys_that_are_no_strings_become_their_text() {
    assert_eq!(
        json_of("{404: a, true: b, 1.10: c, 'x y': d}"),
        json!({"404": "a", "true": "b", "1.10": "c", "x y": "d"})
    );
    assert!(mistake("? [a]\n: b").1.contains("a key must be text, not a list"));
    assert!(mistake("{: b}").1.contains("a key is missing"));
}

#[test]
fn every_key_and_value_knows_its_place() {
    let node = read("# head\nkey: value\nnäme:\n  - {inner: \"q\"}\n  - two words # why\nempty:\n").unwrap();
    let entry = node.entry("key").unwrap();
    assert_eq!((entry.key_place, entry.value.place), (at(2, 1, 3), at(2, 6, 5)));
    let entry = node.entry("näme").unwrap();
    assert_eq!((entry.key_place, entry.value.place), (at(3, 1, 4), at(4, 3, 14)));
    let list = entry.value.as_list().unwrap();
    assert_eq!((list[0].place, list[1].place), (at(4, 5, 12), at(5, 5, 9)));
    assert_eq!(list[0].entries()[0].key_place, at(4, 6, 5));
    assert_eq!(list[0].get("inner").unwrap().place, at(4, 13, 3));
    assert_eq!(node.get("empty").unwrap().place.line, 6);
    assert_eq!(node.place, at(2, 1, 10));
}

#[test]
fn a_key_that_stands_twice_is_refused_at_the_second_with_the_place_of_the_first() {
    let (place, message) = mistake("a: 1\nb:\n  c: 1\n  d: 2\n  c: 3\n");
    assert_eq!(place, at(5, 3, 1));
    assert_eq!(message, "key `c` stands twice in one map, first at line 3, column 3");
    assert_eq!(mistakes("{a: 1, a: 2, b: {c: 1, c: 2}, a: 3}").len(), 3);
}

#[test]
fn anchors_aliases_and_merge_keys_are_written_out() {
    let text = "base: &base {a: 1, b: 2}\nmore: &more {b: 3, c: 4}\none:\n  <<: *base\n  b: 9\ntwo:\n  <<: [*more, *base]\n\
                list: [*base, &x y, *x]\n";
    let value = json_of(text);
    assert_eq!(value["one"], json!({"a": 1, "b": 9}));
    assert_eq!(value["two"], json!({"a": 1, "b": 3, "c": 4}));
    assert_eq!(value["list"], json!([{"a": 1, "b": 2}, "y", "y"]));
    assert_eq!(json_of("- &k key\n- {*k : 1}"), json!(["key", {"key": 1}]));
    assert_eq!(json_of("{'<<': 1}"), json!({"<<": 1}));
    assert_eq!(json_of("a: &a {k: 1}\nb: {<<: {k: 2}, <<x: 3}"), json!({"a": {"k": 1}, "b": {"k": 2, "<<x": 3}}));
}

#[test]
fn a_wrong_alias_or_merge_is_refused() {
    assert_eq!(mistake("a: *none"), (at(1, 4, 1), "no anchor of this name comes before".to_owned()));
    assert!(mistake("a: &a [1, *a]").1.contains("inside of what it refers to"));
    assert!(mistake("a: {<<: 3}").1.contains("`<<` takes a map or a list of maps, not a number"));
    assert!(mistake("a: {<<: [{}, [{}]]}").1.contains("not a list"));
    assert!(mistake("a: &a {}\nb:\n  <<: *a\n  <<: *a").1.contains("key `<<` stands twice"));
}

#[test]
fn several_documents_in_one_text_are_refused() {
    let (place, message) = mistake("a: 1\n---\nb: 2\n");
    assert_eq!(place.line, 2);
    assert_eq!(message, "a second document begins here");
}

#[test]
fn mistakes_of_syntax_say_where_and_what_to_write() {
    let cases = [
        ("a:\n\tb: 1\n", 2, "a tab stands where only spaces may"),
        ("a: b: c\n", 1, "a `:` stands where no value may begin"),
        ("a: 1\nb\nc: 2\n", 2, "this line has no `: ` after its key"),
        ("a: [1, 2", 1, "`[` is never closed"),
        ("a: [1, 2}\n", 1, "`[` is closed by `}`"),
        ("a: \"open\nb: 1\n", 1, "a quote is never closed"),
        ("a: \"\\q\"\n", 1, "a backslash begins no escape that is known"),
        ("a: @b\n", 1, "no plain text may begin with `@`"),
        ("a: 'it's'\n", 1, "something follows the closing quote"),
        ("a:\n    b: 1\n  c: 2\n", 3, "this line does not fit the lines around it"),
        ("a: ]\n", 1, "a closing bracket has no opening one"),
        ("a: &\n", 1, "a name is missing after `&` or `*`"),
    ];
    for (text, line, message) in cases {
        let found = mistakes(text).remove(0);
        assert_eq!((found.place.line, found.message.as_str()), (line, message), "{text}");
        assert!(found.place.column > 0 && found.place.length > 0 && found.hint.is_some(), "{text}");
    }
}

#[test]
fn a_bracket_that_is_still_open_is_pointed_at() {
    let found = mistakes("a: [1, 2\nb: 3\n").remove(0);
    assert_eq!(found.hint.as_deref(), Some("the `[` at line 1, column 4 is still open here; close it first"));
}

/// Reads a text that must be refused within seconds, even on a busy machine.
fn refused_fast(text: &str) -> String {
    let begun = Instant::now();
    let found = mistakes(text).remove(0);
    assert!(begun.elapsed() < Duration::from_secs(10), "took {:?}", begun.elapsed());
    found.message
}

#[test]
fn bombs_are_refused_fast_and_in_clear_words() {
    assert!(refused_fast(&"[".repeat(1 << 20)).contains("more than 64 deep"));
    assert!(refused_fast(&"{a: ".repeat(100_000)).contains("more than 64 deep"));
    assert!(refused_fast(&"- ".repeat(100_000)).contains("more than 64 deep"));
    let nested: String = (0..100).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    assert!(refused_fast(&nested).contains("more than 64 deep"));

    let laughs: String = (1..30).fold("a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned(), |text, row| {
        format!("{text}a{row}: &a{row} [{}]\n", vec![format!("*a{}", row - 1); 9].join(", "))
    });
    assert!(refused_fast(&laughs).contains("too large once its aliases are written out"));

    let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(1 << 20), "*a, ".repeat(1000));
    assert!(refused_fast(&long).contains("too large once its aliases are written out"));

    let chain: String =
        (1..5000).fold("a0: &a0 []\n".to_owned(), |text, row| format!("{text}a{row}: &a{row} [*a{}]\n", row - 1));
    assert!(refused_fast(&chain).contains("more than 64 deep"));

    assert!(refused_fast(&" ".repeat(MAX_BYTES + 1)).contains("larger than 16 MB"));
}

#[test]
fn a_document_in_one_long_line_takes_no_longer_than_one_in_many() {
    let begun = Instant::now();
    let node = read(&format!("[{}]", "a: b, ".repeat(50_000))).unwrap();
    assert_eq!(node.as_list().map(<[Node]>::len), Some(50_000));
    assert!(begun.elapsed() < Duration::from_secs(20), "took {:?}", begun.elapsed());
}

#[test]
fn a_document_at_the_limit_of_depth_is_read() {
    let deepest = format!("{}{}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH));
    assert!(read(&deepest).is_ok());
    assert!(read(&format!("[{deepest}]")).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_text_makes_the_reader_panic(text in any::<String>()) {
        let _node = read(&text);
    }

    #[test]
    fn no_text_of_yaml_signs_makes_the_reader_panic(text in "[-a1 \n\t:,\\[\\]{}&*!|>'\"%@#?~<.\r\u{85}\u{feff}é]{0,80}") {
        if let Err(mistakes) = read(&text) {
            prop_assert!(mistakes.iter().all(|mistake| mistake.place.line > 0 && mistake.place.length > 0));
        }
    }

    #[test]
    fn what_json_wrote_is_read_the_same(map in proptest::collection::hash_map("\\PC{0,12}", "\\PC{0,20}", 0..8)) {
        let value = json!(map);
        prop_assert_eq!(read(&value.to_string()).map(|node| node.to_json()), Ok(value));
    }
}
