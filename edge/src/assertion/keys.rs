//! The keys that sign assertions, and the key set that verifies them (01 §5.3).

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm,
};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::HeaderValue;
use jsonwebtoken::jwk::{Jwk, PublicKeyUse, ThumbprintHash};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use postern_identity::RandomError;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};

/// The keys of 01 §5.3: the first signs, all are published.
pub struct SigningKeys {
    signer: Key,
    key_set: Bytes,
    etag: HeaderValue,
    derived: bool,
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

    /// The keys that a deployment without `signing_key` has: one derived from each of its shared secrets, the one in force
    /// first, so the same on every replica and after every restart.
    ///
    /// # Errors
    /// Never in practice; [`SigningKeyError::Unreadable`] if the library refuses the derived scalar.
    pub fn derive<'s>(shared_secrets: impl IntoIterator<Item = &'s [u8; 32]>) -> Result<Self, SigningKeyError> {
        let keys = shared_secrets.into_iter().map(Key::derive).collect::<Result<_, _>>()?;
        Self::of(keys).map(|keys| Self { derived: true, ..keys })
    }

    /// Whether they come from the shared secret, and so stand and fall with it.
    #[must_use]
    pub const fn are_derived(&self) -> bool {
        self.derived
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
        let tag = format!("\"{}\"", hex::encode(digest(&SHA256, &key_set)).get(..32).unwrap_or_default());
        let etag = HeaderValue::try_from(tag).map_err(|error| SigningKeyError::Unreadable(error.to_string()))?;
        let signer = keys.into_iter().next().ok_or(SigningKeyError::None)?;
        Ok(Self { signer, key_set, etag, derived: false })
    }
}

impl std::fmt::Debug for SigningKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKeys").field("kid", &self.signer.header.kid).finish_non_exhaustive()
    }
}

/// One private key, its public half as it is published, and the header of what it signs.
struct Key {
    private: EncodingKey,
    header: Header,
    jwk: Jwk,
}

impl Key {
    fn derive(shared_secret: &[u8; 32]) -> Result<Self, SigningKeyError> {
        let mut okm = [0; 40];
        Salt::new(HKDF_SHA256, &[])
            .extract(shared_secret)
            .expand(&[b"derived-jwt-signing-key"], Len40)
            .and_then(|stream| stream.fill(&mut okm))
            .map_err(|_| SigningKeyError::Unreadable("the key could not be derived".to_owned()))?;
        let mut sec1 = vec![0x30, 0x31, 0x02, 0x01, 0x01, 0x04, 0x20];
        sec1.extend_from_slice(&p256_scalar(&okm));
        sec1.extend_from_slice(&[0xa0, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07]);
        Self::ec(&sec1)
    }

    fn read(der: &PrivateKeyDer<'_>) -> Result<Self, SigningKeyError> {
        match der {
            PrivateKeyDer::Sec1(key) => Self::ec(key.secret_sec1_der()),
            PrivateKeyDer::Pkcs1(key) => Self::rsa("RSA PRIVATE KEY", key.secret_pkcs1_der()),
            // The object identifier says which kind it is (RFC 5958, RFC 5480, RFC 8017).
            PrivateKeyDer::Pkcs8(key) if names(key.secret_pkcs8_der(), OID_EC) => Self::ec(key.secret_pkcs8_der()),
            PrivateKeyDer::Pkcs8(key) if names(key.secret_pkcs8_der(), OID_RSA) => {
                Self::rsa("PRIVATE KEY", key.secret_pkcs8_der())
            }
            PrivateKeyDer::Pkcs8(_) | _ => Err(SigningKeyError::Unsupported),
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
                unreadable(&error)
            }
        })?;
        let pkcs8 = pair.to_pkcs8v1().map_err(|error| unreadable(&error))?;
        Self::of(EncodingKey::from_ec_der(pkcs8.as_ref()), Algorithm::ES256)
    }

    fn rsa(label: &str, der: &[u8]) -> Result<Self, SigningKeyError> {
        let pem = format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der));
        let private = EncodingKey::from_rsa_pem(pem.as_bytes()).map_err(|error| unreadable(&error))?;
        // aws-lc-rs refuses shorter keys too; a key of 2048 bits takes over 1100 bytes.
        let short = der.len() < 1000;
        Self::of(private, Algorithm::RS256).map_err(|error| if short { SigningKeyError::RsaTooShort } else { error })
    }

    fn of(private: EncodingKey, algorithm: Algorithm) -> Result<Self, SigningKeyError> {
        let mut jwk = Jwk::from_encoding_key(&private, algorithm).map_err(|error| unreadable(&error))?;
        let thumbprint = jwk.thumbprint(ThumbprintHash::SHA256).map_err(|error| unreadable(&error))?;
        // RFC 7638, but as lower-case hex: what upstreams of a Pomerium know as `kid`.
        let kid = hex::encode(URL_SAFE_NO_PAD.decode(thumbprint).map_err(|error| unreadable(&error))?);
        jwk.common.key_id = Some(kid.clone());
        jwk.common.public_key_use = Some(PublicKeyUse::Signature);
        Ok(Self { private, header: Header { kid: Some(kid), ..Header::new(algorithm) }, jwk })
    }

    fn sign(&self, claims: &Value) -> Result<String, RandomError> {
        // The key was used when it was read, and claims are JSON already: only missing randomness is left to fail.
        jsonwebtoken::encode(&self.header, claims, &self.private).map_err(|_| RandomError)
    }
}

fn unreadable(error: &dyn std::fmt::Display) -> SigningKeyError {
    SigningKeyError::Unreadable(error.to_string())
}

/// Whether the algorithm identifier at the start of a PKCS#8 key is this one.
fn names(pkcs8: &[u8], oid: &[u8]) -> bool {
    pkcs8.get(..64.min(pkcs8.len())).is_some_and(|head| head.windows(oid.len()).any(|window| window == oid))
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
