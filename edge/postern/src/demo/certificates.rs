//! The demonstration's certificate authority, which can vouch for names under `localhost` alone, and its certificate.

use std::time::Duration;

use postern_identity::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CidrSubnet, DnType, ExtendedKeyUsagePurpose, GeneralSubtree,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints,
};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate, parse_x509_pem};

use super::folder::{self, Folder};
use super::{DemoError, hosts};

/// The authority's certificate, to be trusted by browsers.
pub(super) const CA: &str = "ca.pem";
const CA_KEY: &str = "ca-key.pem";
/// The certificate that is served.
pub(super) const CERTIFICATE: &str = "server.pem";
/// Its key.
pub(super) const KEY: &str = "server-key.pem";

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Long enough to be trusted once and for all.
const CA_DAYS: u32 = 3650;
/// The longest life that every browser accepts.
const CERTIFICATE_DAYS: u32 = 397;
/// A certificate closer to its end is made anew.
const LEAST_DAYS: u32 = 30;

/// Makes what is missing or too old, and keeps the rest.
pub(super) fn prepare(folder: &Folder, now: Timestamp) -> Result<(), DemoError> {
    if !is_good(folder, CA, CA_KEY, now, &[])? {
        make_authority(folder, now)?;
        make_certificate(folder, now)
    } else if !is_good(folder, CERTIFICATE, KEY, now, &names())? {
        make_certificate(folder, now)
    } else {
        Ok(())
    }
}

/// Each name by itself: neither browsers nor OpenSSL nor rustls take a wildcard directly below a top-level name.
fn names() -> Vec<String> {
    let hosts = hosts::ALL.iter().map(|host| format!("{host}.localhost"));
    std::iter::once("localhost".to_owned()).chain(hosts).collect()
}

/// Whether certificate and key are there, belong together, last for a while and name all of `names`.
fn is_good(folder: &Folder, certificate: &str, key: &str, now: Timestamp, names: &[String]) -> Result<bool, DemoError> {
    let broken = |name| DemoError::Broken { path: folder.file(name), what: "it is not readable" };
    let (Some(pem), Some(key_pem)) = (folder::read(&folder.file(certificate))?, folder::read(&folder.file(key))?)
    else {
        return Ok(false);
    };
    let (_, pem) = parse_x509_pem(pem.as_bytes()).map_err(|_| broken(certificate))?;
    let (_, parsed) = X509Certificate::from_der(&pem.contents).map_err(|_| broken(certificate))?;
    let pair = KeyPair::from_pem(&key_pem).map_err(|_| broken(key))?;
    let fits = parsed.public_key().subject_public_key.data == rcgen::PublicKeyData::der_bytes(&pair);
    let until = Timestamp::from_secs(parsed.validity().not_after.timestamp());
    let named = parsed.subject_alternative_name().ok().flatten().map(|names| names.value.general_names.clone());
    let named = named.unwrap_or_default();
    let names_all = names.iter().all(|name| named.contains(&GeneralName::DNSName(name)));
    Ok(fits && names_all && until > now.plus(DAY.saturating_mul(LEAST_DAYS)))
}

fn make_authority(folder: &Folder, now: Timestamp) -> Result<(), DemoError> {
    let key = KeyPair::generate()?;
    let authority = CertifiedIssuer::self_signed(authority(now, CA_DAYS), &key)?;
    folder::write(&folder.file(CA_KEY), &key.serialize_pem())?;
    folder::write(&folder.file(CA), &authority.pem())
}

fn make_certificate(folder: &Folder, now: Timestamp) -> Result<(), DemoError> {
    let broken = || DemoError::Broken { path: folder.file(CA_KEY), what: "it is not readable" };
    let authority_key = folder::read(&folder.file(CA_KEY))?.ok_or_else(broken)?;
    let authority_key = KeyPair::from_pem(&authority_key).map_err(|_| broken())?;
    let issuer = Issuer::new(authority(now, CA_DAYS), &authority_key);
    let mut params = dated(CertificateParams::new(names())?, now, CERTIFICATE_DAYS);
    params.distinguished_name.push(DnType::CommonName, "Postern demo");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &issuer)?;
    folder::write(&folder.file(KEY), &key.serialize_pem())?;
    folder::write(&folder.file(CERTIFICATE), &certificate.pem())
}

/// Whoever trusts it trusts it for `localhost` and names below, for nothing else (RFC 5280 §4.2.1.10).
fn authority(now: Timestamp, days: u32) -> CertificateParams {
    let mut params = dated(CertificateParams::default(), now, days);
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "Postern demo authority (localhost only)");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let localhost = GeneralSubtree::DnsName("localhost".to_owned());
    // A limit on names says nothing of addresses: all of them are excluded.
    let addresses = [CidrSubnet::V4([0; 4], [0; 4]), CidrSubnet::V6([0; 16], [0; 16])];
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![localhost],
        excluded_subtrees: addresses.into_iter().map(GeneralSubtree::IpAddress).collect(),
    });
    params
}

fn dated(mut params: CertificateParams, now: Timestamp, days: u32) -> CertificateParams {
    let today = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(now.as_secs().unsigned_abs());
    // A clock that is a little behind is no reason to refuse it.
    params.not_before = today - DAY;
    params.not_after = today + DAY.saturating_mul(days);
    params
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn folder() -> (tempfile::TempDir, Folder) {
        let home = tempfile::tempdir().unwrap();
        let folder = Folder::open(&home.path().join("data")).unwrap();
        (home, folder)
    }

    fn texts(folder: &Folder) -> [String; 2] {
        [CA, CERTIFICATE].map(|name| folder::read(&folder.file(name)).unwrap().unwrap())
    }

    #[test]
    fn certificates_are_made_once_and_kept() {
        let (_home, folder) = folder();
        prepare(&folder, NOW).unwrap();
        let first = texts(&folder);
        prepare(&folder, NOW.plus(DAY)).unwrap();
        assert_eq!(texts(&folder), first);
    }

    #[test]
    fn an_old_certificate_is_made_anew_and_the_authority_stays() {
        let (_home, folder) = folder();
        prepare(&folder, NOW).unwrap();
        let [authority, certificate] = texts(&folder);
        prepare(&folder, NOW.plus(DAY * (CERTIFICATE_DAYS - LEAST_DAYS))).unwrap();
        let [authority_now, certificate_now] = texts(&folder);
        assert_eq!(authority_now, authority);
        assert_ne!(certificate_now, certificate);
    }

    #[test]
    fn an_old_authority_takes_its_certificate_along() {
        let (_home, folder) = folder();
        prepare(&folder, NOW).unwrap();
        let [authority, certificate] = texts(&folder);
        prepare(&folder, NOW.plus(DAY * CA_DAYS)).unwrap();
        let [authority_now, certificate_now] = texts(&folder);
        assert!(authority_now != authority && certificate_now != certificate);
    }

    #[test]
    fn a_broken_certificate_is_named_and_not_replaced() {
        let (_home, folder) = folder();
        prepare(&folder, NOW).unwrap();
        std::fs::write(folder.file(CERTIFICATE), "junk").unwrap();
        let error = prepare(&folder, NOW).unwrap_err().to_string();
        assert!(error.contains("server.pem"), "{error}");
    }

    #[test]
    fn a_key_of_another_certificate_is_noticed() {
        let (_home, folder) = folder();
        prepare(&folder, NOW).unwrap();
        folder::write(&folder.file(KEY), &KeyPair::generate().unwrap().serialize_pem()).unwrap();
        let [_, before] = texts(&folder);
        prepare(&folder, NOW).unwrap();
        assert_ne!(texts(&folder)[1], before);
    }

    #[test]
    fn the_certificate_is_good_for_every_host_and_the_authority_for_localhost_only() {
        let (_home, folder) = folder();
        prepare(&folder, NOW).unwrap();
        let now = rustls::pki_types::UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));
        let [authority, certificate] = texts(&folder).map(|pem| parse_x509_pem(pem.as_bytes()).unwrap().1.contents);
        let mut roots = rustls::RootCertStore::empty();
        roots.add(authority.clone().into()).unwrap();
        let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier =
            rustls::client::WebPkiServerVerifier::builder_with_provider(roots.into(), provider).build().unwrap();
        let check = |certificate: &[u8], name: &str| {
            let name = rustls::pki_types::ServerName::try_from(name.to_owned()).unwrap();
            rustls::client::danger::ServerCertVerifier::verify_server_cert(
                &*verifier,
                &certificate.to_vec().into(),
                &[],
                &name,
                &[],
                now,
            )
        };
        let verify = |name: &str| check(&certificate, name);
        for host in hosts::ALL {
            verify(&format!("{host}.localhost")).unwrap();
        }
        assert!(verify("example.com").is_err());
        for other in ["example.com", "192.0.2.1", "127.0.0.1", "2001:db8::1"] {
            let key = KeyPair::generate().unwrap();
            let authority_key = KeyPair::from_pem(&folder::read(&folder.file(CA_KEY)).unwrap().unwrap()).unwrap();
            let issuer = Issuer::new(super::authority(NOW, CA_DAYS), &authority_key);
            let params = dated(CertificateParams::new(vec![other.to_owned()]).unwrap(), NOW, 1);
            let forged = params.signed_by(&key, &issuer).unwrap();
            assert!(check(forged.der(), other).is_err(), "{other}");
        }
        let (_, parsed) = X509Certificate::from_der(&authority).unwrap();
        let limits = parsed.name_constraints().unwrap().unwrap().value.permitted_subtrees.clone().unwrap();
        assert_eq!(limits.len(), 1);
        assert_eq!(limits[0].base, GeneralName::DNSName("localhost"));
    }
}
