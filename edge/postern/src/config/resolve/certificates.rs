//! Certificates of the public listener, and authorities that upstreams and the provider are trusted by (01 §1.5).

use postern_edge::{Certificates, CertifiedFiles};
use postern_identity::Secret;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::secrets::Secrets;
use super::{planned, secrets};
use crate::config::block::Block;
use crate::config::context::Context;
use crate::config::keys::CERTIFICATE;
use crate::config::value::{Field, Spanned, quoted};
use crate::config::{At, Code};
use crate::derived::Derived;

/// Whether some certificate is configured: HSTS is promised only then.
pub(super) fn configured(settings: &Block<'_>) -> bool {
    let texts = ["certificate", "certificate_file"].iter().filter_map(|key| settings.find(key)?.node.as_text());
    let listed = || settings.find("certificates").is_some_and(|list| !list.elements().is_empty());
    texts.into_iter().any(|text| !text.is_empty()) || listed()
}

/// The certificates; none are missed where the listener is `plain`, nor where they are derived from the secret or `ordered`.
pub(super) fn resolve(
    cx: &mut Context<'_>,
    settings: &Block<'_>,
    secrets: &Secrets,
    (plain, ordered): (bool, bool),
) -> Resolved {
    let derived = derived(cx, settings, secrets);
    let inline: Vec<_> = inline(cx, settings).into_iter().collect();
    let mut files = Vec::new();
    for entry in settings.find("certificates").map(Field::elements).unwrap_or_default() {
        files.extend(listed(cx, &entry));
    }
    files.extend(named(cx, settings));
    let mut names: Vec<_> = inline.iter().flat_map(|(chain, _)| postern_edge::certified_names(chain)).collect();
    let files = files.into_iter().map(|(files, chain)| {
        names.extend(postern_edge::certified_names(&chain));
        files
    });
    let files = files.collect();
    if !configured(settings) && !plain && !ordered && derived.is_none() {
        let what = "no certificate is configured: browsers will be shown one that nobody vouches for";
        let hint = "write `certificates: [{cert: FILE, key: FILE}]`, or `insecure_server: true` behind something that ends TLS";
        cx.advise(Code::NoCertificate, &At::absent("certificates"), what, hint);
    }
    let (last, authority) = derived.map(|derived| ((derived.chain, derived.key), derived.authority)).unzip();
    let certificates = Certificates { inline, files, last: last.into_iter().collect(), ..Certificates::default() };
    Resolved { certificates, authority, names }
}

/// What was found of certificates.
#[derive(Debug)]
pub(super) struct Resolved {
    /// Those of the public listener.
    pub(super) certificates: Certificates,
    /// The authorities that `tls_derive` makes, in PEM, one of each secret: whoever derives one from the same secret trusts it.
    pub(super) authority: Option<Vec<u8>>,
    /// The names of all that are configured, wildcards among them.
    pub(super) names: Vec<String>,
}

/// `tls_derive`: a certificate for that name, by an authority that everybody with the same secret has; and the authorities of
/// all secrets.
fn derived(cx: &mut Context<'_>, settings: &Block<'_>, secrets: &Secrets) -> Option<Derived> {
    let name = planned::host(cx, settings, "tls_derive")?;
    let derived = Derived::new(&secrets.shared, &name).and_then(|mut derived| {
        for secret in &secrets.accepted {
            derived.authority.extend(Derived::new(secret, &name)?.authority);
        }
        Ok(derived)
    });
    if derived.is_err() {
        let what = format!("no certificate can be made for {}", quoted(&name));
        cx.fatal(Code::BadHost, &settings.at("tls_derive"), what, "write a name: `proxy.internal.example.com`");
    }
    derived.ok()
}

/// `certificate` and `certificate_key`.
fn inline(cx: &mut Context<'_>, settings: &Block<'_>) -> Option<(Vec<u8>, Secret<Vec<u8>>)> {
    let (certificate, key) = both(cx, settings, "certificate", "certificate_key")?;
    secrets::tell_inline(cx, &key.at, "certificate_key", "certificate_key_file");
    let chain = settings.find("certificate")?.base64(cx);
    let key_pem = settings.find("certificate_key")?.base64(cx).map(Secret::new);
    let (chain, key_pem) = (chain?, key_pem?);
    matching(cx, &certificate.at, &chain, &key_pem).then_some((chain, key_pem))
}

/// An entry of `certificates`.
fn listed(cx: &mut Context<'_>, entry: &Field<'_>) -> Option<(CertifiedFiles, Vec<u8>)> {
    let block = Block::open(cx, entry, &CERTIFICATE)?;
    let (certificate, key) = both(cx, &block, "cert", "key")?;
    pair(cx, certificate, key)
}

/// `certificate_file` and `certificate_key_file`.
fn named(cx: &mut Context<'_>, settings: &Block<'_>) -> Option<(CertifiedFiles, Vec<u8>)> {
    let (certificate, key) = both(cx, settings, "certificate_file", "certificate_key_file")?;
    pair(cx, certificate, key)
}

/// Both halves; nothing if neither is there, a problem if only one is, or if a list entry has neither.
fn both(
    cx: &mut Context<'_>,
    block: &Block<'_>,
    certificate_key: &str,
    key_key: &str,
) -> Option<(Spanned<String>, Spanned<String>)> {
    let entry = certificate_key == "cert";
    match (block.filled(cx, certificate_key), block.filled(cx, key_key)) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) if !entry => None,
        (certificate, key) => {
            let missing = if certificate.is_none() { certificate_key } else { key_key };
            let at = certificate.or(key).map_or_else(|| block.at.clone(), |half| half.at);
            let what = format!("a certificate and its key go together, and `{missing}` is missing");
            cx.fatal(Code::MissingKey, &at, what, format!("add `{missing}`"));
            None
        }
    }
}

/// The files, and the chain that is in the first.
fn pair(cx: &mut Context<'_>, certificate: Spanned<String>, key: Spanned<String>) -> Option<(CertifiedFiles, Vec<u8>)> {
    let chain = cx.file(&certificate.at, &certificate.value);
    let key_pem = cx.file(&key.at, &key.value).map(Secret::new);
    let chain = chain?;
    matching(cx, &certificate.at, &chain, &key_pem?)
        .then(|| (CertifiedFiles { certificate: certificate.value.into(), key: key.value.into() }, chain))
}

/// Whether chain and key can be read and belong together.
pub(super) fn matching(cx: &mut Context<'_>, at: &At, chain: &[u8], key: &Secret<Vec<u8>>) -> bool {
    match certified(chain, key.expose()) {
        Ok(()) => true,
        Err(why) => {
            let hint = "give the PEM chain, leaf first, and the PEM key that belongs to the leaf";
            cx.fatal(Code::BadCertificate, at, format!("this certificate cannot be used: {why}"), hint);
            false
        }
    }
}

fn certified(chain: &[u8], key: &[u8]) -> Result<(), String> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(chain)
        .collect::<Result<_, _>>()
        .map_err(|_| "the chain is not valid PEM".to_owned())?;
    if chain.is_empty() {
        return Err("there is no certificate in it".to_owned());
    }
    if chain.first().is_some_and(|leaf| postern_edge::demands_staple(leaf)) {
        return Err(
            "it must be shown with an OCSP staple (must-staple), and Postern staples only what `autocert` orders"
                .to_owned(),
        );
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| "there is no private key in PEM".to_owned())?;
    CertifiedKey::from_der(chain, key, &rustls::crypto::aws_lc_rs::default_provider())
        .map(|_| ())
        .map_err(|error| error.to_string())
}

/// `certificate_authority(_file)`: PEM that is added to the system's roots. Where both are given, both count, and so does the
/// `derived` one.
pub(super) fn authorities(cx: &mut Context<'_>, settings: &Block<'_>, derived: Option<Vec<u8>>) -> Option<Vec<u8>> {
    let inline = settings.find("certificate_authority").and_then(|field| Some((field.at.clone(), field.base64(cx)?)));
    let file = settings.filled(cx, "certificate_authority_file");
    let file = file.and_then(|path| Some((path.at.clone(), cx.file(&path.at, &path.value)?)));
    let mut all = derived.unwrap_or_default();
    for (at, pem) in inline.into_iter().chain(file) {
        if let Some(pem) = trusted(cx, &at, pem) {
            all.extend(pem);
            all.push(b'\n');
        }
    }
    (!all.is_empty()).then_some(all)
}

/// Certificates of authorities, as PEM, if all can be trusted.
pub(super) fn trusted(cx: &mut Context<'_>, at: &At, pem: Vec<u8>) -> Option<Vec<u8>> {
    if are_authorities(&pem) {
        return Some(pem);
    }
    let hint = "give one or more PEM certificates";
    cx.fatal(Code::BadCertificate, at, "there is no certificate in PEM here", hint);
    None
}

/// Whether there are certificates in it, all of which can be trusted: nothing else starts.
fn are_authorities(pem: &[u8]) -> bool {
    let mut roots = RootCertStore::empty();
    let read = CertificateDer::pem_slice_iter(pem).all(|found| found.is_ok_and(|found| roots.add(found).is_ok()));
    read && !roots.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r_038_what_is_taken_as_an_authority_can_be_trusted() {
        let good = rcgen::generate_simple_self_signed(["ca.example".to_owned()]).unwrap().cert.pem();
        let hollow = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(are_authorities(good.as_bytes()));
        for bad in ["", "text", hollow, &format!("{good}{hollow}")] {
            assert!(!are_authorities(bad.as_bytes()), "{bad}");
        }
    }
}
