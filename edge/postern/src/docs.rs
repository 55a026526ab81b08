//! Holds the pages of `docs/` to the code: names that are missing on a page, or only there, fail.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use postern_edge::{AccessField, AuthorizeField};
use postern_policy::Reason;

use crate::config::{self, Colour, Environment, Severity};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The code of a file, without its unit tests.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned()
}

/// Every source file below a folder, unit tests in files of their own left out.
fn sources(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                folders.push(entry);
            } else if entry.extension().is_some_and(|end| end == "rs") && !entry.ends_with("tests.rs") {
                found.push(entry);
            }
        }
    }
    assert!(!found.is_empty(), "{folder}");
    found
}

/// The string literals of a piece of code, one after the other.
fn literals(code: &str) -> impl Iterator<Item = &str> {
    code.split('"').skip(1).step_by(2)
}

/// The first cell of each table row that is one name in backquotes, as is every further name in that cell.
fn rows(page: &str) -> Vec<String> {
    let cells = page.lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
    cells.flat_map(|cell| cell.split('`').step_by(2)).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn same(page: &str, told: &BTreeSet<String>, known: &BTreeSet<String>) {
    let missing: Vec<_> = known.difference(told).collect();
    let unknown: Vec<_> = told.difference(known).collect();
    assert!(missing.is_empty() && unknown.is_empty(), "{page}: missing {missing:?}, not in the code {unknown:?}");
}

#[test]
fn every_metric_is_on_its_page_and_no_other() {
    let mut known = BTreeSet::new();
    for part in code(&root().join("edge/src/metrics.rs")).split("new.").skip(1) {
        known.insert(format!("postern_edge_{}", literals(part).next().unwrap()));
    }
    for folder in ["authn/src", "storage/src", "edge/postern/src"] {
        for file in sources(folder).iter().filter(|file| !file.ends_with("docs.rs")) {
            let code = code(file);
            let name = |text: &&str| {
                text.starts_with("postern_")
                    && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
                    && code.contains("prometheus")
            };
            let crates = ["postern_edge", "postern_authn", "postern_storage", "postern_policy", "postern_identity"];
            known.extend(literals(&code).filter(name).filter(|name| !crates.contains(name)).map(str::to_owned));
        }
    }
    // The beginning of crate names, which log lines go without.
    known.remove("postern_");
    let told = rows(&read("docs/reference/metrics.md"));
    let told = told.into_iter().filter(|name| name.starts_with("postern_") && !name.contains([' ', '('])).collect();
    assert!(known.len() > 25, "{known:?}");
    same("metrics.md", &told, &known);

    let page = read("docs/reference/metrics.md");
    for (file, begin) in [
        ("storage/src/metrics.rs", "(Operation::"),
        ("authn/src/server.rs", "=> \""),
        ("authn/src/idp/fetch.rs", "=> \""),
    ] {
        let code = read(file);
        for line in code.lines().filter(|line| line.contains(begin)) {
            for label in literals(line)
                .filter(|label| !label.contains(['-', ',']) && label.chars().any(|c| c.is_ascii_lowercase()))
            {
                assert!(page.contains(&format!("`{label}`")), "{file}: {label}");
            }
        }
    }
}

#[test]
fn every_reason_is_on_its_page_and_no_other() {
    let mut known = BTreeSet::new();
    for file in sources("edge/src").into_iter().chain(sources("authn/src")) {
        let code = code(&file);
        for begin in ["fn reason(", "fn refusal("] {
            for function in code.split(begin).skip(1) {
                // To the end of the function.
                let body =
                    function.split("\n}").next().unwrap_or_default().split("\n    }\n").next().unwrap_or_default();
                known.extend(literals(body).map(str::to_owned));
            }
        }
        for call in ["start_again(\"", "cut_short(visit, target, \"", "visit.reference(\"", "debug!(reason = \""] {
            known.extend(code.split(call).skip(1).filter_map(|rest| rest.split('"').next()).map(str::to_owned));
        }
    }
    // What is no code: the suffix that is looked for, and sentences.
    known.retain(|text| {
        !text.starts_with('-') && text.bytes().all(|byte| byte.is_ascii_lowercase() || b"-0123456789".contains(&byte))
    });
    known.extend(
        Reason::ALL
            .iter()
            .map(|reason| reason.as_str())
            .filter(|text| text.ends_with("-unauthorized"))
            .map(str::to_owned),
    );
    assert!(known.len() > 90, "{known:?}");

    let page = read("docs/reference/refusals.md");
    let (_, codes) = page.split_once("\n## Who may not pass\n").unwrap();
    let mut told: BTreeSet<_> = rows(codes).into_iter().collect();
    told.extend(codes.lines().filter_map(|line| line.strip_prefix('`')?.split('`').next()).map(str::to_owned));
    same("refusals.md", &told, &known);
}

#[test]
fn every_log_field_is_on_its_page_and_the_defaults_are_marked() {
    let page = read("docs/reference/logs.md");
    let (_, access) = page.split_once("\n## The access record\n").unwrap();
    let (access, authorize) = access.split_once("\n## The authorize record\n").unwrap();
    let row = |section: &str, name: &str| {
        let line = section.lines().find(|line| line.starts_with("| `") && rows(line).contains(&name.to_owned()));
        line.map(|line| line.contains("` | yes |"))
    };
    let chosen = |fields: &[AccessField], name: &str| fields.iter().any(|field| field.name() == Some(name));
    for name in AccessField::NAMES {
        assert_eq!(row(access, name), Some(chosen(AccessField::DEFAULT, name)), "access: {name}");
    }
    for name in AuthorizeField::NAMES {
        let chosen = AuthorizeField::DEFAULT.iter().any(|field| field.name() == Some(name));
        match row(authorize, name) {
            Some(marked) => assert_eq!(marked, chosen, "authorize: {name}"),
            None => assert!(authorize.contains(&format!("`{name}`")), "authorize: {name}"),
        }
    }
}

#[test]
fn every_limit_is_what_and_where_its_page_says() {
    let page = read("docs/reference/limits.md");
    let limits = limits();
    let (mut places, mut compared) = (0, 0);
    for row in page.lines().filter(|line| line.starts_with("| ")) {
        let Some((told, place)) = row.trim_end_matches(" |").rsplit_once(" | ") else { continue };
        let told: Vec<&str> = told.rsplit(" | ").next().unwrap_or_default().split("; ").collect();
        let mut known = Vec::new();
        // `A` and `B` in `file`, or a key of `limits`; further ones after a semicolon.
        for part in place.split("; ") {
            if let Some(default) = part.split('`').nth(1).and_then(|key| limits.get(key)) {
                known.push(default.as_deref().and_then(quantity));
                places += 1;
            }
            if !part.contains("` in `") {
                continue;
            }
            let words: Vec<&str> = part.split('`').skip(1).step_by(2).collect();
            let (file, names) = words.split_last().unwrap();
            let code = read(file);
            for name in names {
                let mut forms = [format!("{name}:"), format!("fn {name}("), format!("struct {name} ")].into_iter();
                assert!(forms.any(|form| code.contains(&form)), "{file} has no {name}");
                known.push(declared(&code, name));
                places += 1;
            }
        }
        let each = |at: usize| if told.len() == 1 { told.first() } else { told.get(at) };
        if told.len() != 1 && told.len() != known.len() {
            continue;
        }
        for (at, known) in known.iter().enumerate() {
            if let (Some(known), Some(told)) = (known, each(at).and_then(|told| quantity(told))) {
                assert_eq!(told, *known, "{row}");
                compared += 1;
            }
        }
    }
    assert!(places > 70 && compared > 55, "{places} places, {compared} values");
}

/// The keys of `limits`, and their defaults as the page of limits would write them.
fn limits() -> BTreeMap<String, Option<String>> {
    let page = read("docs/reference/configuration.md");
    let section = page.split("\n## ").find(|section| section.starts_with("`limits`")).unwrap();
    let rows = section.lines().filter_map(|row| row.strip_prefix("| `")?.split_once("` | "));
    let default = |rest: &str| {
        let default = rest.split(" | ").nth(1)?.strip_prefix('`')?.strip_suffix('`')?;
        let unit = default.find(|c: char| !c.is_ascii_digit()).unwrap_or(default.len());
        let (number, unit) = default.split_at(unit);
        Some(format!("{number} {}", if unit == "m" { "min" } else { unit }))
    };
    rows.map(|(key, rest)| (key.to_owned(), default(rest))).collect()
}

/// A number, or a number of milliseconds.
#[derive(Debug, PartialEq)]
enum Quantity {
    Plain(f64),
    Time(f64),
}

/// What the page says: `16 384`, `64 KiB`, `1.5 s, then ...`.
fn quantity(text: &str) -> Option<Quantity> {
    let end = text.find(|c: char| !(c.is_ascii_digit() || matches!(c, ' ' | '.'))).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    let number: f64 = digits.replace(' ', "").parse().ok()?;
    let unit = rest.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default();
    Some(match unit {
        "ms" => Quantity::Time(number),
        "s" => Quantity::Time(number * 1e3),
        "min" => Quantity::Time(number * 60e3),
        "h" => Quantity::Time(number * 3600e3),
        "KiB" => Quantity::Plain(number * 1024.0),
        "MiB" => Quantity::Plain(number * 1024.0 * 1024.0),
        "GiB" => Quantity::Plain(number * 1024.0 * 1024.0 * 1024.0),
        _ => Quantity::Plain(number),
    })
}

/// What the code says of a constant or field, if it says a number or a duration of one.
fn declared(code: &str, name: &str) -> Option<Quantity> {
    let begin = format!("{name}:");
    let written = code.split(&begin).skip(1).filter_map(|rest| {
        let end = rest.find([';', ',', '}']).unwrap_or(rest.len());
        rest.get(..end)
    });
    written.map(|text| text.rsplit('=').next().unwrap_or_default().trim()).find_map(|text| {
        let inside = |call: &str| text.strip_prefix(call)?.strip_prefix('(')?.strip_suffix(')');
        if let Some(seconds) = inside("Duration::from_secs") {
            return arithmetic(seconds).map(|seconds| Quantity::Time(seconds * 1e3));
        }
        match inside("Duration::from_millis") {
            Some(millis) => arithmetic(millis).map(Quantity::Time),
            None => arithmetic(text).map(Quantity::Plain),
        }
    })
}

/// `1_000`, `64 * 1024`, `1 << 30`.
fn arithmetic(text: &str) -> Option<f64> {
    if let Some((number, bits)) = text.split_once(" << ") {
        return Some(arithmetic(number)? * f64::powi(2.0, bits.parse().ok()?));
    }
    text.split(" * ").map(|number| number.replace('_', "").parse::<f64>().ok()).product()
}

#[test]
fn the_configuration_of_the_guide_can_be_run() {
    let page = read("docs/guides/run.md");
    let (_, text) = page.split_once("\n```yaml\n").unwrap();
    let (text, _) = text.split_once("\n```").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let pair = rcgen::generate_simple_self_signed(["*.example.com".to_owned()]).unwrap();
    let secret = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
    fs::create_dir(folder.path().join("tls")).unwrap();
    for (name, content) in [
        ("shared-secret", secret),
        ("cookie-secret", secret),
        ("client-secret", "a secret\n"),
        ("tls/fullchain.pem", &pair.cert.pem()),
        ("tls/privkey.pem", &pair.signing_key.serialize_pem()),
    ] {
        fs::write(folder.path().join(name), content).unwrap();
    }
    let here = folder.path().to_str().unwrap();
    assert!(text.contains("/etc/postern/"));
    let environment = Environment::of::<&str, &str>([]).unwrap();
    let loaded = config::load_text(Some("config.yaml"), &text.replace("/etc/postern", here), false, &environment);
    assert!(loaded.config.is_some(), "{}", loaded.problems.to_human(Colour::Plain));
    let advice: Vec<_> = loaded.problems.iter().filter(|problem| problem.severity == Severity::Advisory).collect();
    assert!(advice.is_empty(), "{}", loaded.problems.to_human(Colour::Plain));
}

#[test]
fn every_link_between_pages_leads_somewhere() {
    let mut pages = vec![root().join("README.md")];
    let mut folders = vec![root().join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() { folders.push(entry) } else { pages.push(entry) }
        }
    }
    for page in pages.iter().filter(|page| page.extension().is_some_and(|end| end == "md")) {
        let text = fs::read_to_string(page).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            if file.contains("://") {
                continue;
            }
            let target = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            assert!(target.exists(), "{}: {link}", page.display());
            if !anchor.is_empty() {
                let heading =
                    |line: &str| line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-").replace('`', "");
                let found = fs::read_to_string(&target)
                    .unwrap()
                    .lines()
                    .any(|line| line.starts_with('#') && heading(line) == anchor);
                assert!(found, "{}: {link}", page.display());
            }
        }
    }
}
