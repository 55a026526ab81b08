//! What an OCSP responder is asked about a certificate, and whether what it says may be stapled to that (RFC 6960, RFC 5019).

use std::time::Duration;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use der::asn1::{AnyRef, BitStringRef, OctetString};
use der::oid::AssociatedOid as _;
use der::{Decode, Encode as _, Sequence, Tag};
use postern_edge::Staple;
use postern_identity::{NEVER, Timestamp};
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer, UnixTime};
use url::Url;
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, KeyUsage, RawPublicKeyEntity, anchor_from_trusted_cert};
use x509_ocsp::{
    BasicOcspResponse, CertId, CertStatus, OcspGeneralizedTime, OcspRequest, OcspResponse, OcspResponseStatus, Request,
    ResponseData, TbsRequest,
};
use x509_parser::prelude::{FromDer as _, GeneralName, ParsedExtension, X509Certificate};

/// Clocks of a responder and of this machine may differ by as much.
const APART: Duration = Duration::from_secs(5 * 60);

/// In the list of what helps to look at a certificate, the entry of a responder.
const RESPONDER: &str = "1.3.6.1.5.5.7.48.1";
/// Its purpose lets a certificate sign for its issuer: id-kp-OCSPSigning.
const SIGNS_RESPONSES: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 9];
/// SHA-1, as an `AlgorithmIdentifier`: the one hash that every responder knows its certificates by (RFC 5019 §2.1.1). It only
/// names the issuer.
const SHA1: &[u8] = &[0x30, 9, 6, 5, 0x2b, 0x0e, 3, 2, 0x1a, 5, 0];

/// What a responder is asked about one certificate.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) responder: Url,
    /// As it goes over the wire.
    pub(super) request: Vec<u8>,
    about: CertId,
    issuer: CertificateDer<'static>,
    issuer_key: SubjectPublicKeyInfoDer<'static>,
}

/// What is said of a certificate by who may.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Good(Staple),
    /// When that was known to be so.
    Revoked(Timestamp),
}

impl Answer {
    /// The same, unless it is good and older than what is known by now: whoever is between may say again what was true once.
    pub(super) fn not_before(self, known: Option<Timestamp>) -> Result<Self, Unfit> {
        match (&self, known) {
            (Self::Good(staple), Some(known)) if staple.from < known => Err(Unfit::Older { from: staple.from, known }),
            _ => Ok(self),
        }
    }
}

/// Why an answer is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unfit {
    #[error("it is no OCSP response that can be read")]
    Unreadable,
    #[error("the responder does not answer: {0:?}")]
    Declined(OcspResponseStatus),
    #[error("nobody has signed it who speaks for the issuer")]
    Unsigned,
    #[error("it is about another certificate")]
    Other,
    #[error("the responder does not know the certificate")]
    Unknown,
    #[error("it does not say until when it holds")]
    Endless,
    #[error("it holds from {from} to {until}, and that is not now")]
    NotNow { from: Timestamp, until: Timestamp },
    #[error("it is of {from}, and something newer is known, of {known}")]
    Older { from: Timestamp, known: Timestamp },
}

impl From<der::Error> for Unfit {
    fn from(_: der::Error) -> Self {
        Self::Unreadable
    }
}

/// A response as it is signed: byte for byte, whatever else could be written for the same.
#[derive(Sequence)]
struct Signed<'r> {
    data: AnyRef<'r>,
    algorithm: AnyRef<'r>,
    signature: BitStringRef<'r>,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    certificates: Option<Vec<AnyRef<'r>>>,
}

impl Question {
    /// What is to be asked about the first certificate of a chain; nothing, if it names no responder or its issuer is not behind it.
    pub(super) fn about(chain: &[CertificateDer<'_>]) -> Option<Self> {
        let [leaf, issuer, ..] = chain else { return None };
        let (_, certificate) = X509Certificate::from_der(leaf).ok()?;
        let responder = responder(&certificate)?;
        let (_, authority) = X509Certificate::from_der(issuer).ok()?;
        if certificate.issuer().as_raw() != authority.subject().as_raw() {
            return None;
        }
        let key = authority.public_key();
        let about = about(&certificate, &key.subject_public_key.data).ok()?;
        let one = Request { req_cert: about.clone(), single_request_extensions: None };
        let asked = TbsRequest { request_list: vec![one], ..TbsRequest::default() };
        Some(Self {
            responder,
            request: OcspRequest { tbs_request: asked, optional_signature: None }.to_der().ok()?,
            about,
            issuer_key: SubjectPublicKeyInfoDer::from(key.raw.to_vec()),
            issuer: issuer.clone().into_owned(),
        })
    }

    /// What a response says of the certificate, if it holds now.
    pub(super) fn answer(&self, response: &[u8], now: Timestamp) -> Result<Answer, Unfit> {
        let told = OcspResponse::from_der(response)?;
        if told.response_status != OcspResponseStatus::Successful {
            return Err(Unfit::Declined(told.response_status));
        }
        let basic = told.response_bytes.filter(|told| told.response_type == BasicOcspResponse::OID);
        let basic = basic.ok_or(Unfit::Unreadable)?;
        let signed = Signed::from_der(basic.response.as_bytes())?;
        let data = signed.data.to_der()?;
        let signer_until = self.signer(&signed, &data, now).ok_or(Unfit::Unsigned)?;
        let said = ResponseData::from_der(&data)?;
        let one = said.responses.iter().find(|one| self.is_about(&one.cert_id)).ok_or(Unfit::Other)?;
        // Nobody knows what it would change.
        let mut extensions = said.response_extensions.iter().chain(&one.single_extensions).flatten();
        if extensions.any(|extension| extension.critical) {
            return Err(Unfit::Unreadable);
        }
        let from = time(&one.this_update);
        let until = time(one.next_update.as_ref().ok_or(Unfit::Endless)?).min(signer_until);
        if now.plus(APART) < from || until <= now {
            return Err(Unfit::NotNow { from, until });
        }
        match one.cert_status {
            CertStatus::Good(_) => Ok(Answer::Good(Staple { response: response.to_vec(), from, until })),
            CertStatus::Revoked(_) => Ok(Answer::Revoked(from)),
            CertStatus::Unknown(_) => Err(Unfit::Unknown),
        }
    }

    /// Until when its signer is good: the issuer, or one to whom the issuer itself has given that purpose (§4.2.2.2).
    fn signer(&self, signed: &Signed<'_>, data: &[u8], now: Timestamp) -> Option<Timestamp> {
        if is_signed(signed, data, &self.issuer_key) {
            return Some(NEVER);
        }
        let mut others = signed.certificates.iter().flatten().filter_map(|other| other.to_der().ok());
        others.find_map(|other| {
            let (_, certificate) = X509Certificate::from_der(&other).ok()?;
            let key = SubjectPublicKeyInfoDer::from(certificate.public_key().raw);
            let until = Timestamp::from_secs(certificate.validity().not_after.timestamp());
            (is_signed(signed, data, &key) && self.is_delegate(&CertificateDer::from(other.as_slice()), now))
                .then_some(until)
        })
    }

    fn is_delegate(&self, other: &CertificateDer<'_>, now: Timestamp) -> bool {
        let Ok(anchor) = anchor_from_trusted_cert(&self.issuer) else { return false };
        let now = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now.as_secs()).unwrap_or_default()));
        let usage = KeyUsage::required(SIGNS_RESPONSES);
        let anchors = [anchor];
        EndEntityCert::try_from(other).is_ok_and(|other| {
            other.verify_for_usage(ALL_VERIFICATION_ALGS, &anchors, &[], now, usage, None, None).is_ok()
        })
    }

    fn is_about(&self, other: &CertId) -> bool {
        // A parameter of the hash may be written or not.
        let key = |id: &CertId| {
            (id.hash_algorithm.oid, id.issuer_name_hash.clone(), id.issuer_key_hash.clone(), id.serial_number.clone())
        };
        key(&self.about) == key(other)
    }
}

fn is_signed(signed: &Signed<'_>, data: &[u8], key: &SubjectPublicKeyInfoDer<'_>) -> bool {
    let (Ok(key), Some(signature)) = (RawPublicKeyEntity::try_from(key), signed.signature.as_bytes()) else {
        return false;
    };
    let known = ALL_VERIFICATION_ALGS.iter();
    let mut meant = known.filter(|known| known.signature_alg_id().as_ref() == signed.algorithm.value());
    meant.any(|algorithm| key.verify_signature(*algorithm, data, signature).is_ok())
}

/// The first responder that is spoken to over HTTP.
fn responder(certificate: &X509Certificate<'_>) -> Option<Url> {
    let entries = certificate.extensions().iter().filter_map(|extension| {
        let ParsedExtension::AuthorityInfoAccess(access) = extension.parsed_extension() else { return None };
        Some(&access.accessdescs)
    });
    let mut responders = entries.flatten().filter(|entry| entry.access_method.to_id_string() == RESPONDER);
    responders.find_map(|entry| {
        let GeneralName::URI(url) = entry.access_location else { return None };
        Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https"))
    })
}

/// What responders call a certificate (§4.1.1).
fn about(certificate: &X509Certificate<'_>, issuer_key: &[u8]) -> Result<CertId, der::Error> {
    let hash = |bytes| OctetString::new(digest(&SHA1_FOR_LEGACY_USE_ONLY, bytes).as_ref());
    let serial = AnyRef::new(Tag::Integer, certificate.raw_serial())?.to_der()?;
    Ok(CertId {
        hash_algorithm: Decode::from_der(SHA1)?,
        issuer_name_hash: hash(certificate.issuer().as_raw())?,
        issuer_key_hash: hash(issuer_key)?,
        serial_number: Decode::from_der(&serial)?,
    })
}

fn time(time: &OcspGeneralizedTime) -> Timestamp {
    Timestamp::from_secs(i64::try_from(time.0.to_unix_duration().as_secs()).unwrap_or(i64::MAX))
}

#[cfg(test)]
pub(super) mod tests {
    use std::fs;
    use std::path::Path;
    use std::process::Command;

    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa,
        KeyPair, SerialNumber,
    };
    use tempfile::TempDir;

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);
    pub(in crate::autocert) const GOOD: u64 = 0x1001;
    const REVOKED: u64 = 0x1002;
    /// The responder has not heard of it.
    const STRANGE: u64 = 0x1003;

    /// An authority whose responder is openssl's.
    pub(in crate::autocert) struct Authority {
        folder: TempDir,
        pub(in crate::autocert) issuer: CertifiedIssuer<'static, KeyPair>,
    }

    impl Authority {
        pub(in crate::autocert) fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let mut params = CertificateParams::new([]).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.distinguished_name.push(DnType::CommonName, "Authority");
            let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
            let index = format!(
                "V\t490101000000Z\t\t{GOOD:04X}\tunknown\t/CN=a\nR\t490101000000Z\t260101000000Z\t{REVOKED:04X}\tunknown\t/CN=b\n"
            );
            fs::write(folder.path().join("index.txt"), index).unwrap();
            fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
            let authority = Self { folder, issuer };
            authority.keep("issuer", authority.issuer.pem(), authority.issuer.key());
            authority
        }

        fn keep(&self, name: &str, certificate: String, key: &KeyPair) {
            fs::write(self.folder.path().join(format!("{name}.pem")), certificate).unwrap();
            fs::write(self.folder.path().join(format!("{name}.key")), key.serialize_pem()).unwrap();
        }

        pub(in crate::autocert) fn certified(
            &self,
            change: impl FnOnce(&mut CertificateParams),
        ) -> (rcgen::Certificate, KeyPair) {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
            change(&mut params);
            (params.signed_by(&key, &self.issuer).unwrap(), key)
        }

        /// Signs responses in that name from now on.
        fn delegate(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) {
            let (certificate, key) = self.certified(change);
            self.keep(name, certificate.pem(), &key);
        }

        fn chain(&self, serial: u64, extensions: Vec<CustomExtension>) -> [CertificateDer<'static>; 2] {
            let (leaf, _) = self.certified(|params| {
                params.serial_number = Some(SerialNumber::from(serial));
                params.custom_extensions = extensions;
            });
            [leaf.der().clone(), self.issuer.der().clone()]
        }

        fn question(&self, serial: u64) -> Question {
            let responder = responder_at("http://ocsp.example/r");
            Question::about(&self.chain(serial, vec![responder])).unwrap()
        }

        /// What openssl's responder says to it, with the certificate and key in those files.
        pub(in crate::autocert) fn says(&self, question: &Question, signer: &str, options: &str) -> Vec<u8> {
            let file = |name: &str| self.folder.path().join(name);
            fs::write(file("request"), &question.request).unwrap();
            openssl(
                self.folder.path(),
                &format!(
                    "ocsp -index index.txt -CA ca.pem -rsigner {signer}.pem -rkey {signer}.key -reqin request -respout response -noverify {options}"
                ),
            );
            fs::read(file("response")).unwrap()
        }
    }

    fn openssl(folder: &Path, line: &str) {
        let output = Command::new("openssl").args(line.split_whitespace()).current_dir(folder).output().unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Authority information access: the responder's URL.
    pub(in crate::autocert) fn responder_at(url: &str) -> CustomExtension {
        access(&[0x2b, 6, 1, 5, 5, 7, 0x30, 1], url)
    }

    fn access(method: &[u8], url: &str) -> CustomExtension {
        let written = |tag: u8, content: &[u8]| [&[tag, u8::try_from(content.len()).unwrap()], content].concat();
        let entry = [written(6, method), written(0x86, url.as_bytes())].concat();
        let list = written(0x30, &written(0x30, &entry));
        CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 1], list)
    }

    fn signs_responses(params: &mut CertificateParams) {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::OcspSigning];
    }

    fn now() -> Timestamp {
        std::time::SystemTime::now().into()
    }

    #[test]
    fn a_good_answer_of_the_issuer_is_stapled_as_it_is_for_as_long_as_it_holds() {
        let authority = Authority::new();
        let question = authority.question(GOOD);
        assert_eq!(question.responder.as_str(), "http://ocsp.example/r");
        let (response, now) = (authority.says(&question, "issuer", "-ndays 4"), now());
        let Ok(Answer::Good(staple)) = question.answer(&response, now) else {
            panic!("{:?}", question.answer(&response, now));
        };
        assert_eq!(staple.response, response);
        assert_eq!(staple.until.since(staple.from), 4 * DAY);
        assert!(now.since(staple.from) < Duration::from_secs(60) && staple.from.since(now) == Duration::ZERO);
        for (at, holds) in [
            (staple.until.minus(Duration::from_millis(1)), true),
            (staple.until, false),
            (staple.from.minus(APART), true),
            (staple.from.minus(APART).minus(Duration::from_millis(1)), false),
        ] {
            let answer = question.answer(&response, at);
            let not_now = Err(Unfit::NotNow { from: staple.from, until: staple.until });
            assert_eq!(answer, if holds { Ok(Answer::Good(staple.clone())) } else { not_now }, "{at}");
        }
    }

    #[test]
    fn what_is_not_good_is_never_stapled() {
        let authority = Authority::new();
        let say = |serial, options| {
            let question = authority.question(serial);
            question.answer(&authority.says(&question, "issuer", options), now())
        };
        assert!(matches!(say(REVOKED, "-ndays 1"), Ok(Answer::Revoked(from)) if from.since(now()).is_zero()));
        assert_eq!(say(STRANGE, "-ndays 1"), Err(Unfit::Unknown));
        assert_eq!(say(GOOD, ""), Err(Unfit::Endless));
        let (question, other) = (authority.question(GOOD), authority.question(REVOKED));
        let of_another = authority.says(&other, "issuer", "-ndays 1");
        assert_eq!(question.answer(&of_another, now()), Err(Unfit::Other));
        let of_another_issuer = Authority::new().question(GOOD);
        let response = authority.says(&question, "issuer", "-ndays 1");
        assert_eq!(of_another_issuer.answer(&response, now()), Err(Unfit::Unsigned));
        for (status, declined) in [(3, OcspResponseStatus::TryLater), (6, OcspResponseStatus::Unauthorized)] {
            assert_eq!(question.answer(&[0x30, 3, 0x0a, 1, status], now()), Err(Unfit::Declined(declined)));
        }
        for nothing in [&b""[..], b"<html>", &response[1..], &[&response[..], b"x"].concat()] {
            assert_eq!(question.answer(nothing, now()), Err(Unfit::Unreadable));
        }
    }

    #[test]
    fn a_good_answer_that_is_older_than_what_is_known_is_not_taken() {
        let (from, until) = (Timestamp::from_secs(1_800_000_000), Timestamp::from_secs(1_800_003_600));
        let good = || Answer::Good(Staple { response: Vec::new(), from, until });
        for known in [None, Some(from), Some(from.minus(DAY))] {
            assert_eq!(good().not_before(known), Ok(good()), "{known:?}");
        }
        let known = from.plus(Duration::from_secs(1));
        assert_eq!(good().not_before(Some(known)), Err(Unfit::Older { from, known }));
        assert_eq!(Answer::Revoked(from).not_before(Some(known)), Ok(Answer::Revoked(from)), "whenever it was");
    }

    #[test]
    fn an_answer_is_signed_by_the_issuer_or_by_whom_it_names_for_that() {
        let (authority, stranger) = (Authority::new(), Authority::new());
        let question = authority.question(GOOD);
        authority.delegate("delegate", signs_responses);
        authority.delegate("server", |_| {});
        authority.delegate("past", |params| {
            signs_responses(params);
            params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        });
        stranger.delegate("delegate", signs_responses);
        for file in ["delegate.pem", "delegate.key", "issuer.pem", "issuer.key"] {
            let to = authority.folder.path().join(format!("stranger-{file}"));
            fs::copy(stranger.folder.path().join(file), to).unwrap();
        }
        let say = |signer: &str| question.answer(&authority.says(&question, signer, "-ndays 1"), now());
        assert!(matches!(say("delegate"), Ok(Answer::Good(_))), "{:?}", say("delegate"));
        for signer in ["server", "past", "stranger-issuer", "stranger-delegate"] {
            assert_eq!(say(signer), Err(Unfit::Unsigned), "{signer}");
        }
        let without = authority.says(&question, "delegate", "-ndays 1 -resp_no_certs");
        assert_eq!(question.answer(&without, now()), Err(Unfit::Unsigned), "nobody knows who it was");
    }

    #[test]
    fn what_a_delegate_says_holds_no_longer_than_the_delegate() {
        let authority = Authority::new();
        let question = authority.question(GOOD);
        authority.delegate("delegate", |params| {
            signs_responses(params);
            params.not_after = rcgen::date_time_ymd(2090, 1, 1);
        });
        let response = authority.says(&question, "delegate", "-ndays 36500");
        let Ok(Answer::Good(staple)) = question.answer(&response, now()) else { panic!("it is good") };
        assert_eq!(staple.until.to_string(), "2090-01-01T00:00:00Z");
    }

    #[test]
    fn a_byte_that_was_changed_makes_nothing_good_that_was_not() {
        let authority = Authority::new();
        authority.delegate("delegate", signs_responses);
        let (good, revoked, now) = (authority.question(GOOD), authority.question(REVOKED), now());
        for signer in ["issuer", "delegate"] {
            let response = authority.says(&good, signer, "-ndays 1");
            let Ok(Answer::Good(whole)) = good.answer(&response, now) else { panic!("it is good") };
            let no = authority.says(&revoked, signer, "-ndays 1");
            for at in 0..response.len().max(no.len()) {
                for bit in [0x01, 0x02, 0x80] {
                    let changed = |bytes: &[u8]| {
                        let mut bytes = bytes.to_vec();
                        if let Some(byte) = bytes.get_mut(at) {
                            *byte ^= bit;
                        }
                        bytes
                    };
                    // What is not signed, such as the certificate of an issuer that is known, may be anything.
                    if let Ok(Answer::Good(staple)) = good.answer(&changed(&response), now) {
                        assert_eq!((staple.from, staple.until), (whole.from, whole.until), "{at}");
                    }
                    assert!(!matches!(revoked.answer(&changed(&no), now), Ok(Answer::Good(_))), "{at}");
                }
            }
        }
    }

    #[test]
    fn only_a_certificate_that_names_a_responder_and_has_its_issuer_behind_it_is_asked_about() {
        let (authority, other) = (Authority::new(), Authority::new());
        let asked = |chain: &[CertificateDer<'_>]| Question::about(chain).map(|question| question.responder);
        let chain = |extension| authority.chain(GOOD, vec![extension]);
        let [leaf, issuer] = chain(responder_at("http://ocsp.example"));
        assert!(asked(&[leaf.clone(), issuer.clone()]).is_some());
        assert!(asked(std::slice::from_ref(&leaf)).is_none(), "nobody can tell who may sign");
        let [stranger, _] = other.chain(GOOD, Vec::new());
        assert!(asked(&[leaf, stranger]).is_none());
        assert!(asked(&authority.chain(GOOD, Vec::new())).is_none());
        for url in ["ldap://ocsp.example", "file:///etc/passwd", "no URL", ""] {
            assert!(asked(&chain(responder_at(url))).is_none(), "{url}");
        }
        let issuers = access(&[0x2b, 6, 1, 5, 5, 7, 0x30, 2], "http://ca.example/issuer.crt");
        assert!(asked(&chain(issuers)).is_none(), "where the issuer is to be had");
    }
}
