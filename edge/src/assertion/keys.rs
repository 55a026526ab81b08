//! The keys that sign assertions, and the key set that verifies them (01 §5.3).

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair as RsaKeyPair;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, KeyPair as _, RSA_PKCS1_SHA256,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::HeaderValue;
use postern_identity::RandomError;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::RSAPublicKey;

/// The keys of 01 §5.3: the first signs, all are published.
pub struct SigningKeys {
    signer: Key,
    key_set: Bytes,
    etag: HeaderValue,
}

/// Why a signing key is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SigningKeyError {
    /// No PEM block of a private key.
    #[error("the signing key holds no PEM block of a private key")]
    None,
    /// A block that is no PEM, or no key inside.
    #[error("the signing key cannot be read: {0}")]
    Unreadable(String),
    /// An EC key of another curve.
    #[error("an EC signing key must be P-256 (ES256); this one is {0}")]
    Curve(&'static str),
    /// RSA below 2048 bits.
    #[error("an RSA signing key must have at least 2048 bits")]
    RsaTooShort,
    /// Neither EC nor RSA.
    #[error("a signing key must be EC P-256 or RSA")]
    Unsupported,
}

impl SigningKeys {
    /// The keys of a PEM text, in SEC1, PKCS#1 or PKCS#8 form; other blocks (such as EC parameters) are skipped.
    ///
    /// # Errors
    /// [`SigningKeyError`] for the first key that cannot be used.
    pub fn from_pem(pem: &[u8]) -> Result<Self, SigningKeyError> {
        let keys = PrivateKeyDer::pem_slice_iter(pem)
            .map(|block| {
                block.map_err(|error| SigningKeyError::Unreadable(error.to_string())).and_then(|der| Key::read(&der))
            })
            .collect::<Result<Vec<_>, _>>()?;
        Self::of(keys)
    }

    /// The key that a deployment without `signing_key` has: derived from its shared secret, so the same on every replica and
    /// after every restart.
    ///
    /// # Errors
    /// Never in practice; [`SigningKeyError::Unreadable`] if the library refuses the derived scalar.
    pub fn derive(shared_secret: &[u8; 32]) -> Result<Self, SigningKeyError> {
        let mut okm = [0; 40];
        Salt::new(HKDF_SHA256, &[])
            .extract(shared_secret)
            .expand(&[b"derived-jwt-signing-key"], Len40)
            .and_then(|stream| stream.fill(&mut okm))
            .map_err(|_| SigningKeyError::Unreadable("the key could not be derived".to_owned()))?;
        let mut sec1 = vec![0x30, 0x31, 0x02, 0x01, 0x01, 0x04, 0x20];
        sec1.extend_from_slice(&p256_scalar(&okm));
        sec1.extend_from_slice(&[0xa0, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07]);
        Self::of(vec![Key::ec(&sec1)?])
    }

    /// The public keys as a JWK set: current and next ones, never a private part (S-044).
    #[must_use]
    pub const fn key_set(&self) -> &Bytes {
        &self.key_set
    }

    /// The entity tag of [`key_set`](Self::key_set).
    #[must_use]
    pub const fn etag(&self) -> &HeaderValue {
        &self.etag
    }

    /// The compact JWS over `claims` by the first key.
    pub(crate) fn sign(&self, claims: &Value) -> Result<String, RandomError> {
        self.signer.sign(claims)
    }

    fn of(keys: Vec<Key>) -> Result<Self, SigningKeyError> {
        let key_set = Bytes::from(json!({ "keys": keys.iter().map(|key| &key.jwk).collect::<Vec<_>>() }).to_string());
        let tag = format!("\"{}\"", hex(digest(&SHA256, &key_set).as_ref()).get(..32).unwrap_or_default());
        let etag = HeaderValue::try_from(tag).map_err(|error| SigningKeyError::Unreadable(error.to_string()))?;
        let signer = keys.into_iter().next().ok_or(SigningKeyError::None)?;
        Ok(Self { signer, key_set, etag })
    }
}

impl std::fmt::Debug for SigningKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKeys").field("kid", &self.signer.jwk.get("kid")).finish_non_exhaustive()
    }
}

struct Key {
    pair: Pair,
    jwk: Value,
    /// The JOSE header, encoded.
    header: String,
}

enum Pair {
    Ec(Box<EcdsaKeyPair>),
    Rsa(Box<RsaKeyPair>),
}

impl Key {
    fn read(der: &PrivateKeyDer<'_>) -> Result<Self, SigningKeyError> {
        match der {
            PrivateKeyDer::Sec1(key) => Self::ec(key.secret_sec1_der()),
            PrivateKeyDer::Pkcs1(key) => {
                Self::rsa(RsaKeyPair::from_der(key.secret_pkcs1_der()), key.secret_pkcs1_der())
            }
            PrivateKeyDer::Pkcs8(key) => Self::pkcs8(key.secret_pkcs8_der()),
            _ => Err(SigningKeyError::Unsupported),
        }
    }

    fn pkcs8(der: &[u8]) -> Result<Self, SigningKeyError> {
        // The object identifier says which kind it is (RFC 5958, RFC 5480, RFC 8017).
        let names = |oid: &[u8]| der.get(..64.min(der.len())).is_some_and(|head| contains(head, oid));
        if names(OID_EC) {
            Self::ec(der)
        } else if names(OID_RSA) {
            Self::rsa(RsaKeyPair::from_pkcs8(der), der)
        } else {
            Err(SigningKeyError::Unsupported)
        }
    }

    fn ec(der: &[u8]) -> Result<Self, SigningKeyError> {
        let read = |algorithm: &'static EcdsaSigningAlgorithm| EcdsaKeyPair::from_private_key_der(algorithm, der);
        let pair = read(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(|error| {
            if read(&ECDSA_P384_SHA384_FIXED_SIGNING).is_ok() {
                SigningKeyError::Curve("P-384")
            } else if read(&ECDSA_P521_SHA512_FIXED_SIGNING).is_ok() {
                SigningKeyError::Curve("P-521")
            } else {
                SigningKeyError::Unreadable(error.to_string())
            }
        })?;
        let point = pair.public_key().as_ref();
        let (x, y) = point
            .get(1..)
            .filter(|xy| xy.len() == 64)
            .unwrap_or_default()
            .split_at_checked(32)
            .ok_or_else(|| SigningKeyError::Unreadable("the public point is not uncompressed".to_owned()))?;
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        // RFC 7638: these members, in this order, without space.
        let kid = thumbprint(&format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#));
        let jwk = json!({"use": "sig", "alg": "ES256", "kid": kid, "kty": "EC", "crv": "P-256", "x": x, "y": y});
        Ok(Self { header: header("ES256", &kid), jwk, pair: Pair::Ec(Box::new(pair)) })
    }

    fn rsa<E: std::fmt::Display>(read: Result<RsaKeyPair, E>, der: &[u8]) -> Result<Self, SigningKeyError> {
        let pair = read.map_err(|error| match der.len() {
            // The library refuses short keys, among others; a key of 2048 bits takes over 1100 bytes.
            0..1000 => SigningKeyError::RsaTooShort,
            _ => SigningKeyError::Unreadable(error.to_string()),
        })?;
        if pair.public_modulus_len() < 256 {
            return Err(SigningKeyError::RsaTooShort);
        }
        let (_, public) = RSAPublicKey::from_der(pair.public_key().as_ref())
            .map_err(|error| SigningKeyError::Unreadable(error.to_string()))?;
        let number = |bytes: &[u8]| {
            let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
            URL_SAFE_NO_PAD.encode(bytes.get(zeros..).unwrap_or_default())
        };
        let (n, e) = (number(public.modulus), number(public.exponent));
        let kid = thumbprint(&format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#));
        let jwk = json!({"use": "sig", "alg": "RS256", "kid": kid, "kty": "RSA", "n": n, "e": e});
        Ok(Self { header: header("RS256", &kid), jwk, pair: Pair::Rsa(Box::new(pair)) })
    }

    fn sign(&self, claims: &Value) -> Result<String, RandomError> {
        let mut token = self.header.clone();
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(claims.to_string(), &mut token);
        let random = SystemRandom::new();
        let signature = match &self.pair {
            Pair::Ec(pair) => pair.sign(&random, token.as_bytes()).map_err(|_| RandomError)?.as_ref().to_vec(),
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, token.as_bytes(), &mut signature).map_err(|_| RandomError)?;
                signature
            }
        };
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }
}

const OID_EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const OID_RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];

struct Len40;

impl KeyType for Len40 {
    fn len(&self) -> usize {
        40
    }
}

/// `(value mod (n - 1)) + 1`, where `n` is the order of P-256 and `value` is big-endian.
fn p256_scalar(value: &[u8; 40]) -> [u8; 32] {
    let mut rest = [0_u64; 4];
    for bit in value.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1)) {
        let overflow = shift_in(&mut rest, u64::from(bit));
        if overflow || rest >= P256_ORDER_LESS_ONE {
            subtract(&mut rest, &P256_ORDER_LESS_ONE);
        }
    }
    let mut carry = true;
    for limb in rest.iter_mut().rev() {
        (*limb, carry) = limb.overflowing_add(u64::from(carry));
    }
    let mut out = [0; 32];
    for (to, from) in out.iter_mut().zip(rest.iter().flat_map(|limb| limb.to_be_bytes())) {
        *to = from;
    }
    out
}

/// Most significant limb first, so that arrays compare as numbers.
const P256_ORDER_LESS_ONE: [u64; 4] =
    [0xffff_ffff_0000_0000, 0xffff_ffff_ffff_ffff, 0xbce6_faad_a717_9e84, 0xf3b9_cac2_fc63_2550];

fn shift_in(number: &mut [u64; 4], bit: u64) -> bool {
    let mut carry = bit;
    for limb in number.iter_mut().rev() {
        let out = *limb >> 63;
        *limb = *limb << 1 | carry;
        carry = out;
    }
    carry == 1
}

fn subtract(from: &mut [u64; 4], what: &[u64; 4]) {
    let mut borrow = false;
    for (limb, other) in from.iter_mut().zip(what).rev() {
        let (less, first) = limb.overflowing_sub(*other);
        let (less, second) = less.overflowing_sub(u64::from(borrow));
        (*limb, borrow) = (less, first || second);
    }
}

fn header(algorithm: &str, kid: &str) -> String {
    URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"{algorithm}","kid":"{kid}","typ":"JWT"}}"#))
}

/// RFC 7638, as lower-case hex: what upstreams of a Pomerium know as `kid`.
fn thumbprint(members: &str) -> String {
    hex(digest(&SHA256, members.as_bytes()).as_ref())
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}
