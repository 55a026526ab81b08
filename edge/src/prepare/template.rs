//! Values of `set_request_headers`: text with references (01 §2.10).

use http::{HeaderMap, HeaderValue};
use postern_policy::Certificate;

/// What a reference may name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts<'a> {
    /// `pomerium.jwt`.
    pub(crate) assertion: Option<&'a HeaderValue>,
    /// `pomerium.request.headers`, as they would go up without what the route sets.
    pub(crate) fields: &'a HeaderMap,
    /// `pomerium.client_cert_*`: the presented leaf, trusted or not.
    pub(crate) client_cert: Option<&'a Certificate>,
}

/// The value with its references filled in; `None` if it is no field value then.
pub(crate) fn fill(template: &HeaderValue, facts: &Facts<'_>) -> Option<HeaderValue> {
    let bytes = template.as_bytes();
    if !bytes.contains(&b'$') {
        return Some(template.clone());
    }
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| *byte == b'$') {
        let (text, from) = rest.split_at_checked(at)?;
        out.extend_from_slice(text);
        if let Some(after) = from.strip_prefix(b"$$") {
            out.push(b'$');
            rest = after;
        } else if let Some((path, after)) = reference(from) {
            out.extend_from_slice(&facts.value(&path));
            rest = after;
        } else {
            out.push(b'$');
            rest = from.get(1..).unwrap_or_default();
        }
    }
    out.extend_from_slice(rest);
    HeaderValue::try_from(out).ok()
}

impl Facts<'_> {
    /// What a reference stands for; unknown ones for nothing.
    fn value(&self, path: &[String]) -> Vec<u8> {
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        match path.as_slice() {
            ["pomerium", "jwt"] => self.assertion.map(|token| token.as_bytes().to_vec()).unwrap_or_default(),
            ["pomerium", "request", "headers", name] => {
                let values: Vec<&[u8]> = self.fields.get_all(*name).iter().map(HeaderValue::as_bytes).collect();
                values.join(&b","[..])
            }
            ["pomerium", name] => self.client_cert.and_then(|leaf| of_certificate(leaf, name)).unwrap_or_default(),
            _ => Vec::new(),
        }
    }
}

/// What a reference to the client certificate stands for.
fn of_certificate(leaf: &Certificate, name: &str) -> Option<Vec<u8>> {
    // A list that its reader could split in other places is no list of names, and whoever made the certificate chose them.
    let listed = |names: &[String]| {
        let is_name = |name: &&str| name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',');
        let names: Vec<_> = names.iter().map(String::as_str).filter(is_name).collect();
        names.join(",").into_bytes()
    };
    match name {
        "client_cert_fingerprint" => Some(hex::encode(leaf.fingerprint).into_bytes()),
        "client_cert_san_dns" => Some(listed(&leaf.dns)),
        "client_cert_san_email" => Some(listed(&leaf.emails)),
        _ => None,
    }
}

/// What the references in a value name: `["pomerium", "jwt"]`.
#[must_use]
pub fn references(value: &[u8]) -> Vec<Vec<String>> {
    let (mut found, mut rest) = (Vec::new(), value);
    while let Some(from) = rest.iter().position(|byte| *byte == b'$').and_then(|at| rest.get(at..)) {
        if let Some(after) = from.strip_prefix(b"$$") {
            rest = after;
        } else if let Some((path, after)) = reference(from) {
            found.push(path);
            rest = after;
        } else {
            rest = from.get(1..).unwrap_or_default();
        }
    }
    found
}

/// `${a.b["c"]}` or `$a.b`, and what follows it; `None` if it is malformed.
fn reference(text: &[u8]) -> Option<(Vec<String>, &[u8])> {
    let text = text.strip_prefix(b"$")?;
    match text.strip_prefix(b"{") {
        Some(inner) => {
            let (path, rest) = path(inner.trim_ascii_start())?;
            Some((path, rest.trim_ascii_start().strip_prefix(b"}")?))
        }
        None => path(text),
    }
}

fn path(text: &[u8]) -> Option<(Vec<String>, &[u8])> {
    let (first, mut rest) = identifier(text)?;
    let mut path = vec![first];
    loop {
        let next = match rest.first() {
            Some(b'.') => rest.get(1..).and_then(identifier),
            Some(b'[') => index(rest),
            _ => None,
        };
        let Some((part, after)) = next else { return Some((path, rest)) };
        path.push(part);
        rest = after;
    }
}

fn identifier(text: &[u8]) -> Option<(String, &[u8])> {
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    let length = text.iter().take_while(|byte| fits(byte)).count();
    let (name, rest) = text.split_at_checked(length)?;
    (length > 0).then(|| (String::from_utf8_lossy(name).into_owned(), rest))
}

/// `["text"]`, with `\` before a character that is meant as it is.
fn index(text: &[u8]) -> Option<(String, &[u8])> {
    let text = text.strip_prefix(b"[")?.trim_ascii_start().strip_prefix(b"\"")?;
    let mut name = Vec::new();
    let mut bytes = text.iter().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'\\' => name.push(*bytes.next()?.1),
            b'"' => {
                let rest = text.get(at + 1..)?.trim_ascii_start().strip_prefix(b"]")?;
                return Some((String::from_utf8(name).ok()?, rest));
            }
            other => name.push(*other),
        }
    }
    None
}
