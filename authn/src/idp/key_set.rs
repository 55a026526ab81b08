//! A provider's published keys, and which of them may verify what (S-060 to S-063).

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use serde_json::{Map, Value};

use super::json;

/// More keys than this make no key set (03 §2).
const MAX_KEYS: usize = 100;
/// The smallest RSA key that is believed (S-063).
const MIN_RSA_BITS: usize = 2048;

/// The signature algorithms that are accepted at all (S-060): asymmetric, every one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Algorithm {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    EdDsa,
}

impl Algorithm {
    /// The algorithm of that name, compared case by case: `NONE` is no more an algorithm than `none`.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "RS256" => Self::Rs256,
            "RS384" => Self::Rs384,
            "RS512" => Self::Rs512,
            "PS256" => Self::Ps256,
            "PS384" => Self::Ps384,
            "PS512" => Self::Ps512,
            "ES256" => Self::Es256,
            "ES384" => Self::Es384,
            "EdDSA" | "Ed25519" => Self::EdDsa,
            _ => return None,
        })
    }

    /// The hash of `at_hash` (OpenID Connect Core §3.1.3.6); Ed25519 hashes with SHA-512.
    pub(crate) fn hash(self) -> &'static digest::Algorithm {
        match self {
            Self::Rs256 | Self::Ps256 | Self::Es256 => &digest::SHA256,
            Self::Rs384 | Self::Ps384 | Self::Es384 => &digest::SHA384,
            Self::Rs512 | Self::Ps512 | Self::EdDsa => &digest::SHA512,
        }
    }
}

/// The same, as the library that verifies names it.
impl From<Algorithm> for jsonwebtoken::Algorithm {
    fn from(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Rs256 => Self::RS256,
            Algorithm::Rs384 => Self::RS384,
            Algorithm::Rs512 => Self::RS512,
            Algorithm::Ps256 => Self::PS256,
            Algorithm::Ps384 => Self::PS384,
            Algorithm::Ps512 => Self::PS512,
            Algorithm::Es256 => Self::ES256,
            Algorithm::Es384 => Self::ES384,
            Algorithm::EdDsa => Self::EdDSA,
        }
    }
}

/// Why no key vouches for a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyError {
    /// No published key of that name fits; a newer key set may have it.
    Unknown,
    /// The key is too small.
    Weak,
    /// The signature is not of that key.
    Signature,
}

/// The keys of one fetch.
#[derive(Debug)]
pub(crate) struct KeySet {
    keys: Vec<Key>,
}

struct Key {
    kid: Option<String>,
    algorithm: Option<Algorithm>,
    kind: Kind,
    public: DecodingKey,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("kid", &self.kid).field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// What a key is, as far as it decides what the key may verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Rsa { bits: usize },
    P256,
    P384,
    Ed25519,
}

impl KeySet {
    /// Reads a JWK set (RFC 7517). Keys of other kinds, for other uses, or that cannot be read are left out (§5).
    ///
    /// # Errors
    /// What is wrong with the whole.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        let object = json::object(bytes).ok_or("the key set is not a JSON object")?;
        let keys = object.get("keys").and_then(Value::as_array).ok_or("the key set has no list of keys")?;
        if keys.len() > MAX_KEYS {
            return Err("the key set has too many keys");
        }
        Ok(Self { keys: keys.iter().filter_map(|key| Key::parse(key.as_object()?)).collect() })
    }

    /// Whether a key could vouch for a token with that header.
    pub(crate) fn knows(&self, kid: Option<&str>, algorithm: Algorithm) -> bool {
        self.candidates(kid, algorithm).next().is_some()
    }

    /// Whether a published key of that name made `signature` (base64url) over `message`. Without a name there must be just one key
    /// that fits (OpenID Connect Core §10.1).
    ///
    /// # Errors
    /// [`KeyError`].
    pub(crate) fn verify(
        &self,
        kid: Option<&str>,
        algorithm: Algorithm,
        message: &[u8],
        signature: &str,
    ) -> Result<(), KeyError> {
        let candidates: Vec<&Key> = self.candidates(kid, algorithm).collect();
        if candidates.is_empty() || (kid.is_none() && candidates.len() > 1) {
            return Err(KeyError::Unknown);
        }
        if candidates.iter().any(|key| key.kind.is_weak()) {
            return Err(KeyError::Weak);
        }
        let vouches = candidates.iter().any(|key| key.verifies(algorithm, message, signature));
        if vouches { Ok(()) } else { Err(KeyError::Signature) }
    }

    fn candidates(&self, kid: Option<&str>, algorithm: Algorithm) -> impl Iterator<Item = &Key> {
        self.keys.iter().filter(move |key| {
            kid.is_none_or(|kid| key.kid.as_deref() == Some(kid))
                && key.algorithm.is_none_or(|own| own == algorithm)
                && key.kind.fits(algorithm)
        })
    }
}

impl Key {
    fn parse(jwk: &Map<String, Value>) -> Option<Self> {
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        let verifies = |ops: &Value| ops.as_array().is_some_and(|ops| ops.iter().any(|op| op == "verify"));
        // A private key that is published vouches for nobody: anybody can sign with it.
        let is_private = jwk.contains_key("d");
        if is_private || jwk.get("use").is_some_and(|usage| usage != "sig") || !jwk.get("key_ops").is_none_or(verifies)
        {
            return None;
        }
        let (kind, public) = match (text("kty")?, text("crv")) {
            ("RSA", _) => {
                let (n, e) = (text("n")?, text("e")?);
                (Kind::Rsa { bits: bits(n)? }, DecodingKey::from_rsa_components(n, e))
            }
            ("EC", Some(curve)) => (Kind::curve(curve)?, DecodingKey::from_ec_components(text("x")?, text("y")?)),
            ("OKP", Some("Ed25519")) => (Kind::Ed25519, DecodingKey::from_ed_components(text("x")?)),
            _ => return None,
        };
        let algorithm = match jwk.get("alg") {
            Some(name) => Some(Algorithm::parse(name.as_str()?)?),
            None => None,
        };
        Some(Self { kid: text("kid").map(str::to_owned), algorithm, kind, public: public.ok()? })
    }

    /// The library holds ECDSA signatures to their fixed length and to r, s in 1..order (S-063).
    fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &str) -> bool {
        jsonwebtoken::crypto::verify(signature, message, &self.public, algorithm.into()).unwrap_or(false)
    }
}

impl Kind {
    fn curve(name: &str) -> Option<Self> {
        match name {
            "P-256" => Some(Self::P256),
            "P-384" => Some(Self::P384),
            _ => None,
        }
    }

    const fn fits(self, algorithm: Algorithm) -> bool {
        match algorithm {
            Algorithm::Es256 => matches!(self, Self::P256),
            Algorithm::Es384 => matches!(self, Self::P384),
            Algorithm::EdDsa => matches!(self, Self::Ed25519),
            Algorithm::Rs256
            | Algorithm::Rs384
            | Algorithm::Rs512
            | Algorithm::Ps256
            | Algorithm::Ps384
            | Algorithm::Ps512 => matches!(self, Self::Rsa { .. }),
        }
    }

    const fn is_weak(self) -> bool {
        matches!(self, Self::Rsa { bits } if bits < MIN_RSA_BITS)
    }
}

/// The length of a modulus, whatever zeros lead it.
fn bits(modulus: &str) -> Option<usize> {
    let bytes = URL_SAFE_NO_PAD.decode(modulus).ok()?;
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    let first = bytes.get(zeros)?;
    Some((bytes.len() - zeros) * 8 - first.leading_zeros() as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::rsa::KeySize;
    use aws_lc_rs::signature::{
        self as crypto, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
        EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RsaEncoding, RsaKeyPair,
    };
    use serde_json::json;

    const MESSAGE: &[u8] = b"header.claims";

    fn text(bytes: &[u8]) -> String {
        URL_SAFE_NO_PAD.encode(bytes)
    }

    fn set(jwk: &Value) -> KeySet {
        KeySet::parse(json!({"keys": [jwk]}).to_string().as_bytes()).unwrap()
    }

    fn ec(algorithm: &'static EcdsaSigningAlgorithm, curve: &str) -> (KeySet, Vec<u8>) {
        let pair = EcdsaKeyPair::generate(algorithm).unwrap();
        let (x, y) = pair.public_key().as_ref()[1..].split_at(pair.public_key().as_ref().len() / 2);
        let signature = pair.sign(&SystemRandom::new(), MESSAGE).unwrap();
        (set(&json!({"kty": "EC", "crv": curve, "x": text(x), "y": text(y)})), signature.as_ref().to_vec())
    }

    fn rsa_pair() -> (RsaKeyPair, KeySet) {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let jwk = json!({"kty": "RSA", "n": text(modulus(&pair)), "e": "AQAB"});
        (pair, set(&jwk))
    }

    /// Out of the DER of a 2048-bit public key (RFC 8017 §A.1.1), which begins in the same way for all of them.
    fn modulus(pair: &RsaKeyPair) -> &[u8] {
        &pair.public_key().as_ref()[9..265]
    }

    #[track_caller]
    fn only_as(keys: &KeySet, algorithm: Algorithm, signature: &[u8]) {
        assert_eq!(keys.verify(None, algorithm, MESSAGE, &text(signature)), Ok(()), "{algorithm:?}");
        assert_eq!(keys.verify(None, algorithm, b"header.other", &text(signature)), Err(KeyError::Signature));
        for other in ALL.into_iter().filter(|other| *other != algorithm) {
            assert!(keys.verify(None, other, MESSAGE, &text(signature)).is_err(), "{algorithm:?} as {other:?}");
        }
    }

    const ALL: [Algorithm; 9] = [
        Algorithm::Rs256,
        Algorithm::Rs384,
        Algorithm::Rs512,
        Algorithm::Ps256,
        Algorithm::Ps384,
        Algorithm::Ps512,
        Algorithm::Es256,
        Algorithm::Es384,
        Algorithm::EdDsa,
    ];

    #[test]
    fn s_060_each_algorithm_is_verified_and_passes_for_no_other() {
        let (keys, signature) = ec(&ECDSA_P256_SHA256_FIXED_SIGNING, "P-256");
        only_as(&keys, Algorithm::Es256, &signature);
        let (keys, signature) = ec(&ECDSA_P384_SHA384_FIXED_SIGNING, "P-384");
        only_as(&keys, Algorithm::Es384, &signature);
        let pair = Ed25519KeyPair::generate().unwrap();
        let keys = set(&json!({"kty": "OKP", "crv": "Ed25519", "x": text(pair.public_key().as_ref())}));
        only_as(&keys, Algorithm::EdDsa, pair.sign(MESSAGE).as_ref());
    }

    #[test]
    fn s_060_each_rsa_algorithm_is_verified_and_passes_for_no_other() {
        let (pair, keys) = rsa_pair();
        let encodings: [(Algorithm, &'static dyn RsaEncoding); 6] = [
            (Algorithm::Rs256, &crypto::RSA_PKCS1_SHA256),
            (Algorithm::Rs384, &crypto::RSA_PKCS1_SHA384),
            (Algorithm::Rs512, &crypto::RSA_PKCS1_SHA512),
            (Algorithm::Ps256, &crypto::RSA_PSS_SHA256),
            (Algorithm::Ps384, &crypto::RSA_PSS_SHA384),
            (Algorithm::Ps512, &crypto::RSA_PSS_SHA512),
        ];
        for (algorithm, encoding) in encodings {
            let mut signature = vec![0; pair.public_modulus_len()];
            pair.sign(encoding, &SystemRandom::new(), MESSAGE, &mut signature).unwrap();
            only_as(&keys, algorithm, &signature);
        }
    }

    #[test]
    fn s_060_no_other_name_is_an_algorithm() {
        for name in [
            "none", "None", "NONE", "", "HS256", "HS384", "HS512", "ES512", "rs256", "RS1", "ES256K", "RSA-OAEP",
            "dir", " ES256",
        ] {
            assert_eq!(Algorithm::parse(name), None, "{name}");
        }
    }

    #[test]
    fn s_063_an_rsa_key_below_2048_bits_is_weak_whatever_zeros_lead_it() {
        for (first, expected) in [(0x80_u8, KeyError::Signature), (0x40, KeyError::Weak)] {
            let mut n = vec![0, 0, first];
            n.extend([0xff; 255]);
            let keys = set(&json!({"kty": "RSA", "n": text(&n), "e": "AQAB"}));
            assert_eq!(keys.verify(None, Algorithm::Rs256, MESSAGE, &text(&[1; 256])), Err(expected));
        }
    }

    #[test]
    fn s_063_an_ecdsa_signature_has_its_fixed_length_and_r_and_s_within_the_order() {
        let (keys, good) = ec(&ECDSA_P256_SHA256_FIXED_SIGNING, "P-256");
        let order = [
            0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa, 0xad,
            0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
        ];
        let (r, s) = good.split_at(32);
        let bad = [
            vec![],
            vec![0; 64],
            [r, &[0; 32]].concat(),
            [&[0; 32], s].concat(),
            [r, &order].concat(),
            [&order, s].concat(),
            good[..63].to_vec(),
            [&good[..], &[0]].concat(),
            [&[0], &good[..]].concat(),
            [&[0], r, &[0], s].concat(),
        ];
        for signature in bad {
            assert_eq!(
                keys.verify(None, Algorithm::Es256, MESSAGE, &text(&signature)),
                Err(KeyError::Signature),
                "{signature:?}"
            );
        }
        assert_eq!(keys.verify(None, Algorithm::Es256, MESSAGE, &text(&good)), Ok(()));
    }

    #[test]
    fn s_062_kid_is_compared_whole_among_keys_that_fit() {
        let (pair, _) = rsa_pair();
        let n = text(modulus(&pair));
        let keys = |usage: Value| set(&json!({"kty": "RSA", "kid": "a", "n": n, "e": "AQAB", "use": usage}));
        assert!(keys(json!("sig")).knows(Some("a"), Algorithm::Ps256));
        for wrong in ["", "A", "a ", "aa", "./a", "a?b"] {
            assert!(!keys(json!("sig")).knows(Some(wrong), Algorithm::Ps256), "{wrong}");
        }
        let published = set(&json!({"kty": "RSA", "kid": "a", "n": n, "e": "AQAB", "d": "AQAB"}));
        assert!(!published.knows(Some("a"), Algorithm::Rs256), "its private half is known to everybody");
        assert!(!keys(json!("enc")).knows(Some("a"), Algorithm::Rs256));
        assert!(!keys(json!(null)).knows(Some("a"), Algorithm::Rs256));
        assert!(!keys(json!("sig")).knows(Some("a"), Algorithm::Es256));
    }
}
