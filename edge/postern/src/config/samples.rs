//! Files as companies write them for Pomerium, under `tests/configs/`: each is read as it says itself, and together they use
//! every key.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use postern_edge::route::{HostPattern, Target};
use postern_policy::document::Node;
use rcgen::{BasicConstraints, CertificateParams, CertificateRevocationListParams, IsCa, Issuer, KeyIdMethod, KeyPair};
use serde_json::json;

use super::keys::{Key, Kind, SCOPES, SETTINGS, Scope};
use super::tests::SECRET;
use super::*;

/// Each file, its text as it stands, and what stands beside it.
pub(super) fn samples() -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir("tests/configs").unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = entries
        .filter(|path| path.extension().is_some_and(|end| end != "expect"))
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), path))
        .collect();
    found.sort();
    found
}

/// The lines that begin with `# WORD: `.
fn marked(text: &str, word: &str) -> Vec<String> {
    let mark = format!("# {word}: ");
    text.lines().filter_map(|line| line.strip_prefix(&mark)).map(str::to_owned).collect()
}

/// A folder with all that the files name, and what stands for what in their text.
pub(super) struct World {
    pub(super) folder: tempfile::TempDir,
    names: Vec<(&'static str, String)>,
}

impl World {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, content: &str| fs::write(folder.path().join(name), content).unwrap();
        let pair = rcgen::generate_simple_self_signed(["app.example.com".to_owned()]).unwrap();
        let (certificate, key) = (pair.cert.pem(), pair.signing_key.serialize_pem());
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_key = KeyPair::generate().unwrap();
        let ca = params.self_signed(&ca_key).unwrap().pem();
        let revoked = CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2026, 1, 1),
            next_update: rcgen::date_time_ymd(2120, 1, 1),
            crl_number: 1.into(),
            issuing_distribution_point: None,
            revoked_certs: Vec::new(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let crl = revoked.signed_by(&Issuer::new(params, ca_key)).unwrap().pem().unwrap();
        for (name, content) in [
            ("tls.crt", certificate.as_str()),
            ("tls.key", key.as_str()),
            ("ca.pem", ca.as_str()),
            ("crl.pem", crl.as_str()),
            ("secret", SECRET),
            ("accepted", "ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=\n"),
            ("client", "swordfish\n"),
            ("token", "eyJhbGciOiJSUzI1NiJ9.e30.c2ln\n"),
            ("ssh_key", "-----BEGIN OPENSSH PRIVATE KEY-----\n"),
            ("connection", "file:///var/lib/pomerium\n"),
            ("servers", "rediss+cluster://postern:swordfish@redis-1.example.com,redis-2.example.com:6380\n"),
        ] {
            write(name, content);
        }
        let private = fs::Permissions::from_mode(0o600);
        fs::set_permissions(folder.path().join("ssh_key"), private).unwrap();
        let account = serde_json::json!({
            "type": "service_account",
            "client_email": "edge@shop.iam.gserviceaccount.com",
            "private_key": KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap().serialize_pem(),
        });
        let names = vec![
            ("SERVICE_ACCOUNT", STANDARD.encode(account.to_string())),
            ("DIR", folder.path().to_str().unwrap().to_owned()),
            ("CA_BASE64", STANDARD.encode(ca)),
            ("CRL_BASE64", STANDARD.encode(crl)),
            ("CERT_BASE64", STANDARD.encode(certificate)),
            ("KEY_BASE64", STANDARD.encode(key)),
        ];
        Self { folder, names }
    }

    pub(super) fn filled(&self, text: &str) -> String {
        let text = text.replace(": SECRET\n", &format!(": {SECRET}\n")).replace("=SECRET\n", &format!("={SECRET}\n"));
        self.names.iter().fold(text, |text, (name, value)| text.replace(name, value))
    }

    fn emptied(&self, text: &str) -> String {
        self.names.iter().fold(text.to_owned(), |text, (name, value)| text.replace(value, name))
    }

    /// The file, loaded from the folder, with the variables that it names.
    pub(super) fn load(&self, name: &str, path: &Path) -> Loaded {
        let text = self.filled(&fs::read_to_string(path).unwrap());
        let variables = marked(&text, "env");
        let variables = variables.iter().map(|line| line.split_once('=').unwrap());
        let environment = Environment::of(variables).unwrap();
        let file = self.folder.path().join(name);
        fs::write(&file, text).unwrap();
        load(&Source { file: Some(file), lenient: false }, &environment)
    }
}

fn told(loaded: &Loaded) -> BTreeSet<String> {
    loaded.problems.iter().map(|problem| format!("{} {}", problem.code, problem.at.key)).collect()
}

#[test]
fn every_file_is_told_of_exactly_what_it_expects() {
    let (world, mut wrong) = (World::new(), String::new());
    let samples = samples();
    assert!(samples.len() >= 30, "{}", samples.len());
    for (name, path) in samples {
        let text = fs::read_to_string(&path).unwrap();
        let beside = fs::read_to_string(path.with_extension("expect")).unwrap_or_default();
        let expected: BTreeSet<_> = if name.ends_with(".json") {
            beside.lines().map(str::to_owned).collect()
        } else {
            marked(&text, "expect").into_iter().collect()
        };
        let loaded = world.load(&name, &path);
        let told = told(&loaded);
        for (problem, word) in told
            .difference(&expected)
            .map(|told| (told, "not expected"))
            .chain(expected.difference(&told).map(|expected| (expected, "not told")))
        {
            writeln!(wrong, "{name}: {word}: {problem}").unwrap();
        }
        for problem in &loaded.problems {
            let somewhere = problem.at.place.is_known() || problem.at.origin != Origin::File;
            assert!(somewhere && !problem.hint.is_empty(), "{name}: {problem:?}");
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn every_file_means_what_its_snapshot_says() {
    let world = World::new();
    for (name, path) in samples() {
        let loaded = world.load(&name, &path);
        insta::assert_snapshot!(format!("meaning-{name}"), world.emptied(&meaning(&loaded)));
    }
}

/// What holds that is not a default, and the routes as they are served.
fn meaning(loaded: &Loaded) -> String {
    let mut out = String::new();
    for (at, value, _) in effective::flattened(&effective(loaded, Keys::Written)) {
        let origin = match &at.origin {
            Origin::File => String::new(),
            Origin::Environment(name) => format!(" from {name}"),
            Origin::Absent => continue,
        };
        writeln!(out, "{} = {value}{origin}", at.key).unwrap();
    }
    let Some(config) = &loaded.config else { return out + "refused\n" };
    for route in &config.edge.routes {
        let (HostPattern::Exact { host, port } | HostPattern::Wildcard { pattern: host, port, .. }) = &route.hosts;
        let target = match &route.target {
            Target::Upstream(upstream) => upstream
                .endpoints
                .iter()
                .map(|one| format!("{} tls={}", one.authority, one.scheme.is_tls()))
                .collect::<Vec<_>>()
                .join(", "),
            Target::Redirect(redirect) => format!("{redirect:?}"),
            Target::Response { status, body } => format!("{status} {body:?}"),
        };
        writeln!(out, "route {}: {host} {port:?} {:?} -> {target}, public={}", route.name, route.path, route.public)
            .unwrap();
    }
    out
}

/// Every key in a document, with the map that it is in.
#[expect(clippy::wildcard_enum_match_arm, reason = "all that holds no keys of its own")]
fn used(out: &mut BTreeSet<String>, scope: &Scope, node: &Node) {
    for entry in node.entries() {
        let Some(key) = scope.find(&entry.key.to_ascii_lowercase()) else { continue };
        out.insert(named(scope, key));
        match key.kind {
            Kind::Block(inner) => used(out, inner, &entry.value),
            Kind::Blocks(inner) => match entry.value.as_list() {
                Some(nodes) => nodes.iter().for_each(|node| used(out, inner, node)),
                None => used(out, inner, &entry.value),
            },
            Kind::Named(inner) => entry.value.entries().iter().for_each(|entry| used(out, inner, &entry.value)),
            _ => {}
        }
    }
}

fn named(scope: &Scope, key: &Key) -> String {
    format!("{} {}", scope.name, key.name)
}

#[test]
fn the_files_use_every_key_there_is() {
    let (world, mut found) = (World::new(), BTreeSet::new());
    for (name, path) in samples() {
        let loaded = world.load(&name, &path);
        used(&mut found, &SETTINGS, &loaded.written.unwrap().root);
    }
    let all = SCOPES.iter().flat_map(|(_, scope)| scope.keys.iter().map(|key| named(scope, key)));
    let unused: Vec<_> = all.filter(|key| !found.contains(key)).collect();
    assert!(unused.is_empty(), "no file uses {unused:#?}");
}

/// A document that holds `value` under one key of a map, with all that must stand beside it and around it.
#[expect(clippy::wildcard_enum_match_arm, reason = "all that holds no keys of its own")]
pub(super) fn planted(scope: &'static Scope, name: &str, value: serde_json::Value) -> Option<serde_json::Value> {
    let mut inside = least(scope);
    inside.as_object_mut()?.insert(name.to_owned(), value);
    if std::ptr::eq(scope, &SETTINGS) {
        return Some(inside);
    }
    SCOPES.iter().find_map(|(_, outer)| {
        let (key, held) = outer.keys.iter().find_map(|key| match key.kind {
            Kind::Block(inner) if std::ptr::eq(inner, scope) => Some((key, inside.clone())),
            Kind::Blocks(inner) if std::ptr::eq(inner, scope) => Some((key, json!([inside]))),
            Kind::Named(inner) if std::ptr::eq(inner, scope) => Some((key, json!({ "one": inside }))),
            _ => None,
        })?;
        planted(outer, key.name, held)
    })
}

/// A map with the keys that it must have, so that the others are read at all.
fn least(scope: &Scope) -> serde_json::Value {
    let needed = ["idp_provider", "idp_provider_url", "idp_client_id", "from", "bucket_uri", "path"];
    let must = |key: &&Key| {
        let other = match key.name {
            "path" => scope.find("codec_client_type").is_some(),
            name => {
                needed.contains(&name)
                    && (scope.find("routes").is_some() || scope.find("to").is_some() || scope.keys.len() == 2)
            }
        };
        key.default.starts_with("required") || other
    };
    scope.keys.iter().filter(must).map(|key| (key.name.to_owned(), fitting(key))).collect()
}

fn fitting(key: &Key) -> serde_json::Value {
    match (key.name, key.kind) {
        ("idp_provider", _) => json!("oidc"),
        ("from", _) => json!("https://app.example.com"),
        ("expect", _) => json!("allow"),
        ("path", _) => json!("/"),
        ("bucket_uri", _) => json!("s3://bucket"),
        (_, Kind::Seconds) => json!("5s"),
        (_, Kind::Number(least, _)) => json!(least.max(1)),
        (_, Kind::Block(inner)) => least(inner),
        (_, Kind::Url) => json!("https://other.example.com"),
        (_, Kind::List(_)) => json!(["x"]),
        _ => json!("X-Other"),
    }
}
