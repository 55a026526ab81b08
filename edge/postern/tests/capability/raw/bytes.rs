//! Bytes as text and back: each character of a case is one byte, so that `\xff` in the table is the byte 0xff.

/// The bytes of a text of the table.
pub(super) fn latin1(text: &str) -> Vec<u8> {
    text.chars().map(|character| u8::try_from(u32::from(character)).unwrap_or(b'?')).collect()
}

/// The text that [`latin1`] turns into these bytes.
pub(super) fn text(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}
