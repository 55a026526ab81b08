//! The one canonical form of a request path (03 §3.1): what policy sees, what the log shows and what the upstream gets.

use percent_encoding::percent_decode_str;

use crate::{EscapedSlashes, PathConfig};

/// A path in its canonical form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CanonicalPath {
    /// The path; ASCII, begins with `/`.
    pub text: String,
    /// Encoded slashes were decoded in it: with [`EscapedSlashes::UnescapeAndRedirect`] the client is sent here.
    pub unescaped: bool,
}

/// Why a path has no canonical form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum PathError {
    /// It does not begin with `/`.
    #[error("the path does not begin with a slash")]
    NotAbsolute,
    /// A byte outside of `0x21-0x7e`, `#` or `\`.
    #[error("the path has a byte that no path may have")]
    Byte,
    /// `%` without two hex digits.
    #[error("the path has a broken escape")]
    Escape,
    /// `%2f` or `%5c`.
    #[error("the path has an encoded slash or backslash")]
    EncodedSlash,
    /// `%00-%1f` or `%7f`.
    #[error("the path has an encoded control byte")]
    EncodedControl,
    /// An encoded escape of a dot, slash, backslash or control byte.
    #[error("the path is encoded twice")]
    DoubleEncoding,
    /// Not UTF-8 once decoded.
    #[error("the path is not valid UTF-8")]
    Utf8,
    /// `..` above the root.
    #[error("the path leaves the root")]
    AboveRoot,
    /// A dot segment behind `;`, behind an encoded slash, or where dots are not to be resolved.
    #[error("the path has a hidden dot segment")]
    HiddenDots,
}

impl PathError {
    /// The stable reason code.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::NotAbsolute => "path-form",
            Self::Byte => "path-byte",
            Self::Escape => "path-escape",
            Self::EncodedSlash => "path-encoded-slash",
            Self::EncodedControl => "path-encoded-control",
            Self::DoubleEncoding => "path-double-encoding",
            Self::Utf8 => "path-utf8",
            Self::AboveRoot => "path-above-root",
            Self::HiddenDots => "path-hidden-dots",
        }
    }
}

impl CanonicalPath {
    /// The canonical form of `raw`, a path without its query. Idempotent (S-025).
    ///
    /// # Errors
    /// [`PathError`] for whatever cannot be read in one way only.
    pub fn parse(raw: &[u8], rules: &PathConfig) -> Result<Self, PathError> {
        if raw.first() != Some(&b'/') {
            return Err(PathError::NotAbsolute);
        }
        if is_canonical(raw) {
            let text = std::str::from_utf8(raw).map_err(|_| PathError::Byte)?.to_owned();
            return Ok(Self { text, unescaped: false });
        }
        let decoded = decode(raw, rules.escaped_slashes, true)?;
        refuse_double_encoding(decoded.text.as_bytes())?;
        if decoded.high && percent_decode_str(&decoded.text).decode_utf8().is_err() {
            return Err(PathError::Utf8);
        }
        let resolved = resolve_dots(&decoded.text, rules.merge_slashes)?;
        if rules.normalize {
            return Ok(Self { text: resolved.text, unescaped: decoded.unescaped });
        }
        if resolved.had_dots {
            return Err(PathError::HiddenDots);
        }
        let kept = decode(raw, rules.escaped_slashes, false)?;
        let text = if rules.merge_slashes { merge_slashes(&kept.text) } else { kept.text };
        Ok(Self { text, unescaped: kept.unescaped })
    }
}

/// How the most lenient upstream would read a canonical path: decoded once more, parameters cut, backslashes turned,
/// slashes merged. `None` if that is the same path. The gate refuses a path whose two readings lead to two routes (S-022).
pub(crate) fn lenient_reading(path: &str) -> Option<String> {
    if !path.bytes().any(|byte| matches!(byte, b'%' | b';')) && !path.contains("//") {
        return None;
    }
    let mut out = String::with_capacity(path.len());
    let mut in_parameter = false;
    for byte in percent_decode_str(path) {
        match byte {
            b'/' | b'\\' => {
                in_parameter = false;
                if !out.ends_with('/') {
                    out.push('/');
                }
            }
            b';' => in_parameter = true,
            _ if in_parameter => {}
            0x21..=0x7e if !matches!(byte, b'%' | b'?' | b'#') => out.push(char::from(byte)),
            _ => push_escape(&mut out, byte),
        }
    }
    (out != path).then_some(out)
}

/// Nothing to do, whatever the rules: no escape, no parameter, no empty and no dot-led segment, no byte to refuse.
pub(super) fn is_canonical(raw: &[u8]) -> bool {
    let fit = raw.iter().all(|byte| matches!(byte, 0x21..=0x7e) && !matches!(byte, b'%' | b';' | b'#' | b'\\' | b'?'));
    fit && raw.first() == Some(&b'/') && !raw.windows(2).any(|pair| matches!(pair, b"//" | b"/."))
}

struct Decoded {
    text: String,
    /// Some escape stands for a byte outside of ASCII.
    high: bool,
    unescaped: bool,
}

/// Steps 1, 3 and 4: refuses what may not be there, and decodes unreserved characters once if `normalize`.
fn decode(raw: &[u8], slashes: EscapedSlashes, normalize: bool) -> Result<Decoded, PathError> {
    let mut out = Decoded { text: String::with_capacity(raw.len()), high: false, unescaped: false };
    let mut bytes = raw.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let digits = bytes.next().zip(bytes.next()).ok_or(PathError::Escape)?;
                escape(&mut out, digits, slashes, normalize)?;
            }
            b'#' | b'\\' | b'?' => return Err(PathError::Byte),
            0x21..=0x7e => out.text.push(char::from(byte)),
            _ => return Err(PathError::Byte),
        }
    }
    Ok(out)
}

fn escape(out: &mut Decoded, digits: (u8, u8), slashes: EscapedSlashes, normalize: bool) -> Result<(), PathError> {
    let value = hex(digits.0).zip(hex(digits.1)).map(|(high, low)| high << 4 | low).ok_or(PathError::Escape)?;
    out.high |= value >= 0x80;
    match value {
        0..0x20 | 0x7f => return Err(PathError::EncodedControl),
        b'/' | b'\\' => match slashes {
            EscapedSlashes::Reject => return Err(PathError::EncodedSlash),
            EscapedSlashes::Keep => push_escape(&mut out.text, value),
            EscapedSlashes::UnescapeAndRedirect | EscapedSlashes::UnescapeAndForward => {
                out.unescaped = true;
                out.text.push('/');
            }
        },
        _ if !normalize => out.text.extend(['%', char::from(digits.0), char::from(digits.1)]),
        _ if is_unreserved(value) => out.text.push(char::from(value)),
        _ => push_escape(&mut out.text, value),
    }
    Ok(())
}

/// Step 3: `%25` before what would be refused, or be a dot, after one more decoding, however often it is repeated.
fn refuse_double_encoding(path: &[u8]) -> Result<(), PathError> {
    for (at, _) in path.windows(3).enumerate().filter(|(_, window)| window == b"%25") {
        let mut rest = path.get(at + 3..).unwrap_or_default();
        while let Some(deeper) = rest.strip_prefix(b"25") {
            rest = deeper;
        }
        let &[high, low, ..] = rest else { continue };
        if let Some(value) = hex(high).zip(hex(low)).map(|(high, low)| high << 4 | low)
            && matches!(value, 0..0x20 | 0x7f | b'.' | b'/' | b'\\')
        {
            return Err(PathError::DoubleEncoding);
        }
    }
    Ok(())
}

struct Resolved {
    text: String,
    had_dots: bool,
}

/// Steps 6 and 7, on a path that begins with `/`.
fn resolve_dots(path: &str, merge: bool) -> Result<Resolved, PathError> {
    let mut out = Resolved { text: String::with_capacity(path.len()), had_dots: false };
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." => out.had_dots = true,
            ".." => {
                out.had_dots = true;
                let parent = out.text.rfind('/').ok_or(PathError::AboveRoot)?;
                out.text.truncate(parent);
            }
            "" if merge && !last => continue,
            "" if last => {}
            _ if hides_dots(segment) => return Err(PathError::HiddenDots),
            _ => {
                out.text.push('/');
                out.text.push_str(segment);
                continue;
            }
        }
        // An empty segment that is kept, or the end after a directory.
        if last || segment.is_empty() {
            out.text.push('/');
        }
    }
    Ok(out)
}

/// A dot segment once parameters are cut, or between encoded slashes.
fn hides_dots(segment: &str) -> bool {
    if !segment.contains('.') {
        return false;
    }
    segment
        .split("%2F")
        .flat_map(|piece| piece.split("%5C"))
        .map(|piece| piece.split("%3B").next().unwrap_or_default().split(';').next().unwrap_or_default())
        .any(|piece| matches!(piece, "." | ".."))
}

fn merge_slashes(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for character in path.chars() {
        if character != '/' || !out.ends_with('/') {
            out.push(character);
        }
    }
    out
}

fn push_escape(out: &mut String, byte: u8) {
    const DIGITS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().unwrap_or('0');
    out.extend(['%', digit(byte >> 4), digit(byte & 15)]);
}

const fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}
