//! Which cookies are ours: they never go up (S-041), and no upstream sets them (S-049).

use http::{HeaderMap, HeaderValue, header};

/// The cookie names of one deployment.
#[derive(Clone, Debug)]
pub(crate) struct OwnCookies {
    exact: Vec<String>,
    prefixes: Vec<String>,
}

/// What is left of a head's `Cookie` fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// All of it, in one field: nothing to do.
    Unchanged,
    /// This, joined into one field (S-017).
    One(HeaderValue),
    /// Nothing.
    None,
}

impl OwnCookies {
    /// The names that go with a session cookie of that name: authn's own session, flows, pending sign-ins.
    pub(crate) fn new(session: &str) -> Self {
        let beside = ["", "_authenticate", "_csrf", "_signed_out_redirect_uri"];
        Self {
            exact: beside.iter().map(|suffix| format!("{session}{suffix}")).collect(),
            prefixes: vec![format!("__Host-{session}"), format!("{session}_pkce_")],
        }
    }

    fn has(&self, name: &[u8]) -> bool {
        self.exact.iter().any(|own| own.as_bytes() == name)
            || self.prefixes.iter().any(|prefix| name.starts_with(prefix.as_bytes()))
    }

    /// The `Cookie` fields without ours; the others keep their bytes and their order.
    pub(crate) fn strip(&self, fields: &HeaderMap) -> Kept {
        let mut values = fields.get_all(header::COOKIE).iter();
        let (Some(first), more) = (values.next(), values.next().is_some()) else { return Kept::Unchanged };
        if !more && !pairs(first).any(|pair| self.has(name_of(pair))) {
            return Kept::Unchanged;
        }
        let mut out = Vec::new();
        for pair in fields.get_all(header::COOKIE).iter().flat_map(pairs).filter(|pair| !self.has(name_of(pair))) {
            if out.is_empty() {
                out.reserve(first.len());
            } else {
                out.extend_from_slice(b"; ");
            }
            out.extend_from_slice(pair);
        }
        if out.is_empty() {
            return Kept::None;
        }
        HeaderValue::try_from(out).map_or(Kept::None, Kept::One)
    }

    /// Whether a `Set-Cookie` value sets one of ours. A cookie without a name comes back as its bare value: `=name=value`
    /// and `=name` are read as what they will look like then.
    pub(crate) fn is_set_by(&self, value: &HeaderValue) -> bool {
        let mut pair = value.as_bytes().trim_ascii_start();
        while let Some(rest) = pair.strip_prefix(b"=") {
            pair = rest.trim_ascii_start();
        }
        self.has(name_of(pair))
    }
}

fn pairs(field: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(field.as_bytes());
    let pairs = std::iter::from_fn(move || {
        let text = rest?;
        let (pair, after) = text.split_at(memchr::memchr(b';', text).unwrap_or(text.len()));
        rest = after.get(1..);
        Some(pair.trim_ascii())
    });
    pairs.filter(|pair| !pair.is_empty())
}

fn name_of(pair: &[u8]) -> &[u8] {
    let end = pair.iter().position(|byte| matches!(byte, b'=' | b';')).unwrap_or(pair.len());
    pair.get(..end).unwrap_or_default().trim_ascii()
}
