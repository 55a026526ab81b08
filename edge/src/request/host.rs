//! The one spelling of a host (03 §3.2).

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use arrayvec::ArrayString;

/// A host and the port that was written with it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Host {
    name: HostName,
    port: Option<u16>,
    literal: bool,
}

/// In place where it fits, as nearly all names do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum HostName {
    Short(ArrayString<64>),
    Long(Box<str>),
}

/// Why an authority has no canonical form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum HostError {
    /// Userinfo, path, comma, whitespace, `%`, control, non-ASCII or any other byte that no host has.
    #[error("the host has a byte that no host may have")]
    Byte,
    /// Nothing before the port, an empty label, two trailing dots, or over 255 bytes.
    #[error("the host has an empty label or is too long")]
    Label,
    /// Brackets without an IPv6 address in them.
    #[error("the host is not an IPv6 address")]
    Literal,
    /// Not 1 to 65535 in decimal.
    #[error("the port is not a number from 1 to 65535")]
    Port,
}

impl HostError {
    /// The stable reason code.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Byte => "host-byte",
            Self::Label => "host-label",
            Self::Literal => "host-literal",
            Self::Port => "host-port",
        }
    }
}

impl Host {
    /// Reads an authority: lower-case, one trailing dot removed, an empty port absent.
    ///
    /// # Errors
    /// [`HostError`].
    pub fn parse(authority: &[u8]) -> Result<Self, HostError> {
        let authority = std::str::from_utf8(authority).map_err(|_| HostError::Byte)?;
        if let Some(rest) = authority.strip_prefix('[') {
            let (address, port) = rest.split_once(']').ok_or(HostError::Literal)?;
            let address: Ipv6Addr = address.parse().map_err(|_| HostError::Literal)?;
            return Ok(Self { name: HostName::lower(&format!("[{address}]")), port: parse_port(port)?, literal: true });
        }
        let (name, port) = match authority.find(':') {
            Some(colon) => authority.split_at(colon),
            None => (authority, ""),
        };
        let name = name.strip_suffix('.').unwrap_or(name);
        if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')) {
            return Err(HostError::Byte);
        }
        if name.is_empty() || name.len() > 255 || name.split('.').any(str::is_empty) {
            return Err(HostError::Label);
        }
        let literal = name.parse::<Ipv4Addr>().is_ok();
        Ok(Self { name: HostName::lower(name), port: parse_port(port)?, literal })
    }

    /// The host of an HTTP/1.0 request that names none: no route has it.
    #[must_use]
    pub const fn unnamed() -> Self {
        Self { name: HostName::EMPTY, port: None, literal: true }
    }

    /// Whether there is no host at all.
    #[must_use]
    pub fn is_unnamed(&self) -> bool {
        self.name().is_empty()
    }

    /// The name without port; an IPv6 address keeps its brackets.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// Whether an authority is this one in its one spelling.
    pub(crate) fn is_written_as(&self, authority: &[u8]) -> bool {
        let rest = authority.strip_prefix(self.name().as_bytes()).and_then(|rest| std::str::from_utf8(rest).ok());
        rest.is_some_and(|rest| match self.port {
            Some(_) => parse_port(rest) == Ok(self.port),
            None => rest.is_empty(),
        })
    }

    /// The port as written.
    #[must_use]
    pub const fn port(&self) -> Option<u16> {
        self.port
    }

    /// The same with this port, unless one was written.
    #[must_use]
    pub fn or_port(&self, port: Option<u16>) -> Self {
        Self { port: self.port.or(port), ..self.clone() }
    }

    /// Whether it is an IP address; those match only routes that name them.
    #[must_use]
    pub const fn is_literal(&self) -> bool {
        self.literal
    }
}

/// `host` or `host:port`.
impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}:{port}", self.name()),
            None => f.write_str(self.name()),
        }
    }
}

impl HostName {
    const EMPTY: Self = Self::Short(ArrayString::new_const());

    /// The name itself.
    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::Short(name) => name,
            Self::Long(name) => name,
        }
    }

    /// That name in lower case.
    fn lower(name: &str) -> Self {
        match ArrayString::from(name) {
            Ok(mut short) => {
                short.make_ascii_lowercase();
                Self::Short(short)
            }
            Err(_) => Self::Long(name.to_ascii_lowercase().into()),
        }
    }
}

impl From<&str> for HostName {
    fn from(name: &str) -> Self {
        ArrayString::from(name).map_or_else(|_| Self::Long(name.into()), Self::Short)
    }
}

/// Of what follows the name: nothing, `:`, or `:` and a port.
fn parse_port(text: &str) -> Result<Option<u16>, HostError> {
    let Some(digits) = text.strip_prefix(':') else {
        return if text.is_empty() { Ok(None) } else { Err(HostError::Byte) };
    };
    if digits.is_empty() {
        return Ok(None);
    }
    if digits.len() > 5 || digits.starts_with('0') || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(HostError::Port);
    }
    digits.parse().map(Some).map_err(|_| HostError::Port)
}
