//! A token in few bytes: most are JWTs, and what base64url says in four bytes is kept in three.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use zeroize::Zeroize as _;

/// The token as it is to be kept: as text, or as the bytes of the parts between its dots (RFC 7515 §7.1) if nothing is lost
/// by that.
pub(super) fn pack(token: &str) -> (String, Vec<Vec<u8>>) {
    let mut parts = Vec::new();
    for part in token.split('.') {
        // The decoder refuses what it would not have encoded so: padding, bits that mean nothing, the other alphabet.
        match BASE64.decode(part) {
            Ok(part) => parts.push(part),
            Err(_) => {
                parts.zeroize();
                return (token.to_owned(), parts);
            }
        }
    }
    (String::new(), parts)
}

/// The token that was packed.
pub(super) fn unpack(text: String, mut parts: Vec<Vec<u8>>) -> String {
    if parts.is_empty() {
        return text;
    }
    let length = parts.iter().map(|part| part.len().div_ceil(3) * 4 + 1).sum();
    let mut token = String::with_capacity(length);
    for (number, part) in parts.iter().enumerate() {
        if number > 0 {
            token.push('.');
        }
        BASE64.encode_string(part, &mut token);
    }
    parts.zeroize();
    token
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_packed_is_unpacked_to_the_byte() {
        let jwt = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJlIQ";
        // A JWE whose key is empty, opaque ones, bits behind the end, the other alphabet, padding, nothing at all.
        let odd = ["a4A..YWI", "ya29.a0AfB_x-Y", "-_", "YWJ", "YW+/", "YWI=", "Gültig", "", ".", "a", "a.b"];
        for token in [jwt].into_iter().chain(odd) {
            let (text, parts) = pack(token);
            assert!(text.is_empty() || parts.is_empty());
            assert_eq!(unpack(text, parts), token);
        }
        let bytes: usize = pack(jwt).1.iter().map(Vec::len).sum();
        assert_eq!(bytes, (jwt.len() - 2) * 3 / 4);
    }
}
