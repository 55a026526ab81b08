//! `client_certificate`: the certificate that the client showed, trusted or not (01 §3.5).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Carrier, Dialect, Stand, Test, verdict};
use crate::document::{Entry, Mistake, Node};
use crate::matcher::{StringMatcher, collect, series, unknown};
use crate::{Certificate, Facts, Reason, RuleResult};

/// All of its conditions must hold.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ClientCertificate(Box<[Condition]>);

#[derive(Clone, Debug, PartialEq)]
enum Condition {
    Fingerprint(Box<[[u8; 32]]>),
    SpkiHash(Box<[[u8; 32]]>),
    SanDns(StringMatcher),
    SanEmail(StringMatcher),
    SanUri(StringMatcher),
}

pub(crate) const KEYS: [&str; 5] = ["fingerprint", "spki_hash", "san_dns", "san_email", "san_uri"];

impl Test for ClientCertificate {
    fn parse(_: &str, data: &Node, _: Dialect) -> Result<Self, Vec<Mistake>> {
        let Some(entries) = data.as_map() else {
            let what = format!("`client_certificate` needs a map, not {}", data.kind());
            return Err(Mistake::at(data.place, what).hint("write `client_certificate: {fingerprint: ...}`").into());
        };
        collect(entries, Condition::parse).map(|conditions| Self(conditions.into()))
    }

    fn evaluate(&self, facts: &Facts<'_>, _: Stand) -> RuleResult {
        let holds = |leaf: &Certificate| self.0.iter().all(|condition| condition.holds(leaf));
        let holds = facts.client_certificate.leaf.is_some_and(holds);
        verdict(holds, Reason::ClientCertificateOk, Reason::ClientCertificateUnauthorized)
    }

    /// Certificates are not named to those who are refused.
    fn words(&self) -> String {
        "a client certificate on its list".to_owned()
    }

    fn data(&self) -> String {
        self.0.iter().map(Condition::words).collect::<Vec<_>>().join(" and ")
    }

    fn saw(&self, facts: &Facts<'_>) -> String {
        let Some(leaf) = facts.client_certificate.leaf else { return "no client certificate".to_owned() };
        let names: Vec<_> = [&leaf.dns, &leaf.emails, &leaf.uris].into_iter().flatten().cloned().collect();
        format!("fingerprint {}, names {}", hex::encode(leaf.fingerprint), series(&names, "and"))
    }

    const CARRIER: Option<Carrier> = Some(Carrier::ClientCertificates);
}

impl Condition {
    fn parse(entry: &Entry) -> Result<Self, Vec<Mistake>> {
        let value = &entry.value;
        match entry.key.to_ascii_lowercase().as_str() {
            "fingerprint" => each(value, fingerprint).map(Self::Fingerprint),
            "spki_hash" => each(value, spki_hash).map(Self::SpkiHash),
            "san_dns" => StringMatcher::parse(value).map(Self::SanDns),
            "san_email" => StringMatcher::parse(value).map(Self::SanEmail),
            "san_uri" => StringMatcher::parse(value).map(Self::SanUri),
            _ => Err(unknown(entry, "a client certificate has no", &KEYS).into()),
        }
    }

    fn holds(&self, leaf: &Certificate) -> bool {
        match self {
            Self::Fingerprint(listed) => listed.contains(&leaf.fingerprint),
            Self::SpkiHash(listed) => listed.contains(&leaf.spki_hash),
            Self::SanDns(names) => names.matches_among(&leaf.dns),
            Self::SanEmail(names) => names.matches_among(&leaf.emails),
            Self::SanUri(names) => names.matches_among(&leaf.uris),
        }
    }

    fn words(&self) -> String {
        let listed = |values: &[[u8; 32]], shown: fn(&[u8; 32]) -> String| {
            series(&values.iter().map(shown).collect::<Vec<_>>(), "or")
        };
        match self {
            Self::Fingerprint(values) => format!("fingerprint {}", listed(values, |hash| hex::encode(hash))),
            Self::SpkiHash(values) => format!("SPKI hash {}", listed(values, |hash| STANDARD.encode(hash))),
            Self::SanDns(names) => format!("DNS name {}", names.words()),
            Self::SanEmail(names) => format!("e-mail name {}", names.words()),
            Self::SanUri(names) => format!("URI {}", names.words()),
        }
    }
}

/// One text or a list of them, each read.
fn each(node: &Node, read: fn(&Node) -> Result<[u8; 32], Mistake>) -> Result<Box<[[u8; 32]]>, Vec<Mistake>> {
    let nodes = node.as_list().unwrap_or(std::slice::from_ref(node));
    collect(nodes, read).map(Into::into)
}

/// 64 lower-case hex digits, or 32 upper-case pairs with colons.
fn fingerprint(node: &Node) -> Result<[u8; 32], Mistake> {
    // Digits alone are a number to YAML.
    let text = node.as_text().unwrap_or_default();
    let is_long = text.split(':').all(|pair| pair.len() == 2) && !text.bytes().any(|byte| byte.is_ascii_lowercase());
    let digits = if is_long { text.replace(':', "") } else { text.to_ascii_lowercase() };
    let mut bytes = [0; 32];
    if (is_long || digits == text) && hex::decode_to_slice(digits, &mut bytes).is_ok() {
        return Ok(bytes);
    }
    Err(Mistake::at(node.place, "this is not a SHA-256 fingerprint")
        .hint("write 64 lower-case hex digits, or 32 upper-case pairs with colons, as `openssl x509 -fingerprint -sha256` does"))
}

/// Base64 of 32 bytes.
fn spki_hash(node: &Node) -> Result<[u8; 32], Mistake> {
    let bytes = node.as_str().and_then(|text| STANDARD.decode(text).ok());
    bytes.and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| {
        Mistake::at(node.place, "this is not an SPKI hash")
            .hint("write the base64 of the SHA-256 of the public key, 44 characters long")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::read;
    use crate::testing::World;

    const OK: &str = "client-certificate-ok";
    const FAIL: &str = "client-certificate-unauthorized";

    fn leaf() -> Certificate {
        Certificate {
            fingerprint: [0xab; 32],
            spki_hash: [1; 32],
            dns: vec!["a.example.com".to_owned(), "b.example.net".to_owned()],
            ..Certificate::default()
        }
    }

    fn mistake(data: &str) -> Mistake {
        let node = read(data).expect("YAML");
        let mut mistakes = ClientCertificate::parse("", &node, Dialect::default()).expect_err(data);
        assert_eq!(mistakes.len(), 1, "{data}");
        mistakes.remove(0)
    }

    #[test]
    fn both_forms_of_a_fingerprint_are_the_same() {
        let leaf = leaf();
        let world = World::default().certificate(Some(&leaf), false);
        let (short, long) = ("ab".repeat(32), vec!["AB"; 32].join(":"));
        world.assert(&format!("client_certificate: {{fingerprint: '{short}'}}"), true, OK);
        world.assert(&format!("client_certificate: {{fingerprint: [{}, '{long}']}}", "0".repeat(63) + "a"), true, OK);
        world.assert(&format!("client_certificate: {{fingerprint: '{}'}}", "ac".repeat(32)), false, FAIL);
        let digits = Certificate { fingerprint: [0x12; 32], ..Certificate::default() };
        let world_of_digits = World::default().certificate(Some(&digits), true);
        world_of_digits.assert(&format!("client_certificate: {{fingerprint: {}}}", "12".repeat(32)), true, OK);
        world.assert(&format!("client_certificate: {{spki_hash: {}}}", STANDARD.encode([1; 32])), true, OK);
    }

    #[test]
    fn names_of_one_kind_may_meet_different_operators() {
        let leaf = leaf();
        let world = World::default().certificate(Some(&leaf), true);
        world.assert("client_certificate: {san_dns: {starts_with: a., ends_with: .net}}", true, OK);
        world.assert("client_certificate: {san_dns: {starts_with: c.}}", false, FAIL);
        world.assert("client_certificate: {san_email: a.example.com}", false, FAIL);
    }

    #[test]
    fn without_a_certificate_nothing_holds() {
        World::default().assert("client_certificate: {}", false, FAIL);
        let leaf = leaf();
        World::default().certificate(Some(&leaf), true).assert("client_certificate: {}", true, OK);
    }

    #[test]
    fn what_is_no_fingerprint_or_hash_or_key_is_refused() {
        for data in ["17:85:92", &"AB".repeat(32), &"+a".repeat(32), &vec!["ab"; 32].join(":"), "7"] {
            assert_eq!(
                mistake(&format!("fingerprint: '{data}'")).message,
                "this is not a SHA-256 fingerprint",
                "{data}"
            );
        }
        assert_eq!(mistake("spki_hash: c2hvcnQ=").message, "this is not an SPKI hash");
        assert_eq!(mistake("san_ur: 1").hint.as_deref(), Some("did you mean `san_uri`?"));
        assert_eq!(mistake("fingerprnt: x").hint.as_deref(), Some("did you mean `fingerprint`?"));
        assert_eq!(mistake("leaf").message, "`client_certificate` needs a map, not text");
    }
}
