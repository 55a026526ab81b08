//! The address of a request as it is typed, and what a client sends of it.

use postern_edge::connect_udp_path;
use postern_edge::route::Carries;
use url::Host;

/// Where a request goes: a host with its port, and path and query exactly as written, so that odd spellings can be asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    authority: String,
    target: String,
    /// A tunnel is asked for, and no answer.
    tunnel: Option<Carries>,
}

/// Why a text is no such address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Another scheme.
    #[error("only https, http, tcp+https and udp+https addresses are asked for")]
    Scheme,
    /// No host, or one with user or password.
    #[error("it needs a host: `https://app.example.com/path`")]
    Host,
}

impl Address {
    /// Reads `https://host[:port]/path?query`, `tcp+https://host:port` of a connection, or `udp+https://host:port` of datagrams; the
    /// scheme may be left out, and what follows `#` is never sent.
    ///
    /// # Errors
    /// [`AddressError`].
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let (scheme, rest) = text.trim().split_once("://").unwrap_or(("https", text.trim()));
        let tunnel = Carries::ALL.into_iter().find(|carries| scheme.eq_ignore_ascii_case(carries.scheme()));
        if tunnel.is_none() && !["https", "http"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
            return Err(AddressError::Scheme);
        }
        let sent = rest.split('#').next().unwrap_or_default();
        let end = sent.find(['/', '?']).unwrap_or(sent.len());
        let (authority, target) = sent.split_at(end);
        if authority.is_empty() || authority.contains('@') {
            return Err(AddressError::Host);
        }
        if tunnel.is_some() {
            return Ok(Self { authority: ascii_host(authority)?, target: String::new(), tunnel });
        }
        let slash = if target.starts_with('/') { "" } else { "/" };
        Ok(Self { authority: ascii_host(authority)?, target: format!("{slash}{}", escaped(target)), tunnel })
    }

    /// `host[:port]`.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Whether a tunnel is asked for.
    #[must_use]
    pub const fn is_tunnel(&self) -> bool {
        self.tunnel.is_some()
    }

    /// What the tunnel is to carry that is asked for.
    #[must_use]
    pub const fn tunnel(&self) -> Option<Carries> {
        self.tunnel
    }

    /// What a client writes into the first line of its request: of a connection the authority, of datagrams the path that names
    /// them.
    #[must_use]
    pub fn written(&self) -> String {
        match self.tunnel {
            None => self.target.clone(),
            Some(Carries::Connections) => self.authority.clone(),
            // What is no host is asked for as nobody would.
            Some(Carries::Datagrams) => postern_edge::Host::parse(self.authority.as_bytes())
                .map_or_else(|_| "/".to_owned(), |host| connect_udp_path(&host)),
        }
    }

    /// As it would be typed.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = self.tunnel.map_or("https", Carries::scheme);
        format!("{scheme}://{}{}", self.authority, self.target)
    }

    /// Path and query; of a tunnel nothing.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.target
    }
}

/// A name with letters outside of ASCII in the form that clients send (`xn--...`).
fn ascii_host(authority: &str) -> Result<String, AddressError> {
    if authority.is_ascii() {
        return Ok(authority.to_owned());
    }
    let (name, port) = authority.rsplit_once(':').map_or((authority, None), |(name, port)| (name, Some(port)));
    let name = Host::parse(name).map_err(|_| AddressError::Host)?;
    Ok(port.map_or_else(|| name.to_string(), |port| format!("{name}:{port}")))
}

/// What no client sends as it is, escaped as all of them do.
fn escaped(target: &str) -> String {
    let mut out = String::with_capacity(target.len());
    for byte in target.bytes() {
        match byte {
            0x21..=0x7e => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
