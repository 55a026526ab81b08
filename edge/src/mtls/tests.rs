use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use postern_identity::Timestamp;
use proptest::prelude::*;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, CrlDistributionPoint,
    CrlIssuingDistributionPoint, DnType, ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose,
    OtherNameValue, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use regex::Regex;
use rustls::pki_types::CertificateDer;

use super::trust::unix;
use super::*;
use crate::testing::NOW;

type Params = CertificateParams;
type Der = CertificateDer<'static>;

/// Somebody who signs certificates, with those above.
struct Signer(CertifiedIssuer<'static, KeyPair>);

fn params(name: &str) -> Params {
    let mut params = Params::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2120, 1, 1));
    params
}

fn signing(name: &str, adjust: impl FnOnce(&mut Params)) -> Params {
    let mut params = params(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    adjust(&mut params);
    params
}

fn root(name: &str, adjust: impl FnOnce(&mut Params)) -> Signer {
    Signer(CertifiedIssuer::self_signed(signing(name, adjust), KeyPair::generate().unwrap()).unwrap())
}

impl Signer {
    fn below(&self, name: &str, adjust: impl FnOnce(&mut Params)) -> Self {
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::signed_by(signing(name, adjust), key, &self.0).unwrap())
    }

    fn client(&self, adjust: impl FnOnce(&mut Params)) -> Der {
        let mut params = params("client");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        adjust(&mut params);
        params.signed_by(&KeyPair::generate().unwrap(), &self.0).unwrap().der().clone()
    }

    fn der(&self) -> Der {
        self.0.der().clone()
    }

    /// Its list of revoked certificates, with these on it; the next is due in that year.
    fn list(&self, revoked: &[u64], due: i32) -> String {
        self.list_at(None, revoked, due)
    }

    /// The same, to be had at that place.
    fn list_at(&self, place: Option<&str>, revoked: &[u64], due: i32) -> String {
        let revoked = revoked.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2021, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2021, 1, 1),
            next_update: date_time_ymd(due, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: place.map(|place| CrlIssuingDistributionPoint {
                distribution_point: CrlDistributionPoint { uris: vec![place.to_owned()] },
                scope: None,
            }),
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.0).unwrap().pem().unwrap()
    }
}

fn serial(number: u64) -> impl FnOnce(&mut Params) {
    move |params| params.serial_number = Some(SerialNumber::from(number))
}

fn named(names: impl IntoIterator<Item = SanType>) -> impl FnOnce(&mut Params) {
    let names = names.into_iter().collect();
    move |params| params.subject_alt_names = names
}

fn depth(most: u32) -> Terms {
    Terms { max_depth: Some(most), ..Terms::default() }
}

fn lists(pem: &str, fresh_lists: bool) -> Terms {
    let revoked = Arc::new(Revocations::read(pem.as_bytes()).unwrap());
    Terms { revoked, fresh_lists, ..Terms::default() }
}

fn patterns(patterns: &[(NameKind, &str)]) -> Terms {
    let patterns = patterns
        .iter()
        .map(|(kind, pattern)| NamePattern { kind: *kind, pattern: Regex::new(&format!("^(?:{pattern})$")).unwrap() });
    Terms { names: patterns.collect(), ..Terms::default() }
}

fn trust(authorities: &[&Signer], terms: Terms) -> ClientTrust {
    let pems: Vec<_> = authorities.iter().map(|authority| authority.0.pem()).collect();
    ClientTrust::new(pems.iter().map(String::as_bytes), terms).unwrap()
}

/// Whether these authorities, on these terms, believe this chain.
fn believed(authorities: &[&Signer], terms: Terms, chain: &[Der]) -> bool {
    let (leaf, others) = chain.split_first().unwrap();
    trust(authorities, terms).verify(leaf, others, unix(NOW)).is_ok()
}

#[test]
fn a_certificate_is_believed_if_an_authority_vouches_for_it() {
    let (ours, theirs, namesake) = (root("Ours", |_| ()), root("Theirs", |_| ()), root("Ours", |_| ()));
    let expired = root("Old", |params| params.not_after = date_time_ymd(2022, 1, 1));
    let early = root("New", |params| params.not_before = date_time_ymd(2100, 1, 1));
    let leaf = ours.client(|_| ());
    let one = |leaf: &Der| vec![leaf.clone()];
    let usages = |usages: Vec<ExtendedKeyUsagePurpose>| ours.client(|params| params.extended_key_usages = usages);
    let (client, server) = (ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth);
    for (what, authorities, chain, expected) in [
        ("its own authority", vec![&ours], one(&leaf), true),
        ("one of several", vec![&theirs, &ours], one(&leaf), true),
        ("another one", vec![&theirs], one(&leaf), false),
        ("a namesake of it", vec![&namesake], one(&leaf), false),
        ("both of that name", vec![&namesake, &ours], one(&leaf), true),
        ("certificates that have nothing to do with it", vec![&ours], vec![leaf.clone(), theirs.der()], true),
        ("what is no certificate behind it", vec![&ours], vec![leaf.clone(), vec![0x30, 1, 2].into()], true),
        ("what is no certificate", vec![&ours], one(&vec![0x30, 3, 2, 1, 0].into()), false),
        ("nobody", vec![&ours], one(&vec![].into()), false),
        ("itself", vec![&ours], one(&theirs.der()), false),
        ("expired", vec![&ours], one(&ours.client(|leaf| leaf.not_after = date_time_ymd(2026, 1, 1))), false),
        ("not yet", vec![&ours], one(&ours.client(|leaf| leaf.not_before = date_time_ymd(2030, 1, 1))), false),
        ("an authority that expired", vec![&expired], one(&expired.client(|_| ())), false),
        ("an authority of the future", vec![&early], one(&early.client(|_| ())), false),
        ("any use", vec![&ours], one(&usages(vec![])), true),
        ("client and server", vec![&ours], one(&usages(vec![server.clone(), client])), true),
        ("server alone", vec![&ours], one(&usages(vec![server])), false),
    ] {
        assert_eq!(believed(&authorities, Terms::default(), &chain), expected, "{what}");
    }
}

#[test]
fn a_chain_is_followed_as_far_as_the_depth_goes() {
    let top = root("Top", |_| ());
    let middle = top.below("Middle", |_| ());
    let low = middle.below("Low", |_| ());
    let short = top.below("Short", |params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
    let under_short = short.below("Under short", |_| ());
    let none = top.below("No authority", |params| params.is_ca = IsCa::ExplicitNoCa);
    let old = top.below("Old", |params| params.not_after = date_time_ymd(2022, 1, 1));
    let tight = root("Tight", |params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
    let under_tight = tight.below("Under tight", |_| ());
    let under = |signer: &Signer, above: &[&Signer]| {
        let mut chain = vec![signer.client(|_| ()), signer.der()];
        chain.extend(above.iter().map(|signer| signer.der()));
        chain
    };
    for (what, authorities, terms, chain, expected) in [
        ("two above", vec![&top], depth(2), under(&middle, &[]), true),
        ("two above, one allowed", vec![&top], depth(1), under(&middle, &[]), false),
        ("the one between is missing", vec![&top], depth(2), vec![middle.client(|_| ())], false),
        ("the one between is trusted itself", vec![&middle], depth(1), vec![middle.client(|_| ())], true),
        ("a short way beside a long one", vec![&top, &middle], depth(1), under(&middle, &[]), true),
        ("three above", vec![&top], depth(3), under(&low, &[&middle]), true),
        (
            "three above, in another order",
            vec![&top],
            depth(3),
            {
                let mut chain = under(&low, &[&middle]);
                chain.swap(1, 2);
                chain
            },
            true,
        ),
        ("three above, two allowed", vec![&top], depth(2), under(&low, &[&middle]), false),
        ("no bound", vec![&top], Terms::default(), under(&low, &[&middle]), true),
        ("one between that may sign no authority", vec![&top], depth(3), under(&under_short, &[&short]), false),
        ("the same, right under it", vec![&top], depth(2), under(&short, &[]), true),
        ("one between that is no authority", vec![&top], depth(2), under(&none, &[]), false),
        ("one between that expired", vec![&top], depth(2), under(&old, &[]), false),
        ("a root that may have nobody between", vec![&tight], depth(2), under(&under_tight, &[]), false),
        ("right under it", vec![&tight], depth(2), vec![tight.client(|_| ())], true),
    ] {
        assert_eq!(believed(&authorities, terms, &chain), expected, "{what}");
    }
}

#[test]
fn what_was_revoked_is_not_believed() {
    let (ours, theirs, namesake) = (root("Ours", |_| ()), root("Theirs", |_| ()), root("Ours", |_| ()));
    let middle = ours.below("Middle", serial(70));
    let leaf = vec![ours.client(serial(7))];
    let low = vec![middle.client(serial(7)), middle.der()];
    let both = format!("{}{}", ours.list(&[1], 2120), middle.list(&[7], 2120));
    let of_one = |first: &[u64], second: &[u64]| format!("{}{}", ours.list(first, 2022), ours.list(second, 2120));
    let old_key = format!("{}{}", namesake.list(&[], 2120), ours.list(&[3], 2120));
    let moved = vec![ours.client(|params| {
        serial(7)(params);
        params.crl_distribution_points =
            vec![CrlDistributionPoint { uris: vec!["http://old.example/list".to_owned()] }];
    })];
    let part = |place, due| ours.list_at(Some(place), &[3], due);
    let parts = format!("{}{}", part("http://new.example/list", 2120), part("http://old.example/list", 2022));
    for (what, list, fresh, chain, expected) in [
        ("on the list", ours.list(&[3, 7], 2120), false, &leaf, false),
        ("another one is", ours.list(&[3], 2120), false, &leaf, true),
        ("an empty list", ours.list(&[], 2120), false, &leaf, true),
        ("on the list of another authority", theirs.list(&[7], 2120), false, &leaf, true),
        ("the list is signed by a namesake", namesake.list(&[], 2120), false, &leaf, false),
        ("the list is out of date", ours.list(&[3], 2022), false, &leaf, true),
        ("on a list that is out of date", ours.list(&[7], 2022), false, &leaf, false),
        ("the list is out of date, and may not be", ours.list(&[3], 2022), true, &leaf, false),
        ("the list has to be in force, and is", ours.list(&[3], 2120), true, &leaf, true),
        ("the one between is on the list", ours.list(&[70], 2120), false, &low, false),
        ("the serial of another authority's", ours.list(&[7], 2120), false, &low, true),
        ("on the second list", both, false, &low, false),
        ("on the second list of one authority", of_one(&[3], &[3, 7]), false, &leaf, false),
        ("on the first list of one authority", of_one(&[7], &[3]), false, &leaf, false),
        ("one of two lists is in force", of_one(&[3], &[3]), true, &leaf, true),
        ("beside the list of another key of that name", old_key, false, &leaf, true),
        ("the part of the list that speaks of it is out of date", parts, true, &moved, false),
        ("on a list that moved", ours.list_at(Some("http://new.example/list"), &[7], 2120), false, &moved, false),
    ] {
        assert_eq!(believed(&[&ours], lists(&list, fresh), chain), expected, "{what}");
    }
    let trusted_too = believed(&[&ours, &middle], lists(&ours.list(&[70], 2120), false), &low);
    assert!(!trusted_too, "an authority that another one revoked");
}

#[test]
fn lists_are_read_or_refused_as_a_whole() {
    let ours = root("Ours", |_| ());
    let (one, other) = (ours.list(&[1], 2120), ours.list(&[2], 2022));
    let read = |text: &str| Revocations::read(text.as_bytes());
    let due: Vec<_> = read(&format!("{one}\n{other}")).unwrap().due().iter().map(|(_, due)| due.at > NOW).collect();
    assert_eq!(due, [true, false]);
    let certificate = ours.0.pem();
    let hollow = "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n";
    for bad in ["", "text", hollow, &certificate, &format!("{one}{hollow}"), &format!("{one}text")] {
        assert!(read(bad).is_err(), "{bad}");
    }
}

#[test]
fn s_117_a_name_matches_a_pattern_of_its_kind_from_end_to_end() {
    use NameKind::{Dns, Email, IpAddress, Uri, UserPrincipalName};
    let ours = root("Ours", |_| ());
    let dns = |name: &str| SanType::DnsName(name.try_into().unwrap());
    let email = |name: &str| SanType::Rfc822Name(name.try_into().unwrap());
    let uri = |name: &str| SanType::URI(name.try_into().unwrap());
    let address = |text: &str| SanType::IpAddress(text.parse::<IpAddr>().unwrap());
    let principal = |name: &str| {
        SanType::OtherName((vec![1, 3, 6, 1, 4, 1, 311, 20, 2, 3], OtherNameValue::Utf8String(name.to_owned())))
    };
    let other = |name: &str| SanType::OtherName((vec![1, 2, 3, 4], OtherNameValue::Utf8String(name.to_owned())));
    for (pattern, names, expected) in [
        (vec![(Dns, r"[a-z]+\.example\.com")], vec![dns("a.example.com")], true),
        (vec![(Dns, r"[a-z]+\.example\.com")], vec![dns("a.example.com.evil.net")], false),
        (vec![(Dns, r"example\.com")], vec![dns("a.example.com")], false),
        (vec![(Dns, "a.example|b.example")], vec![dns("b.example")], true),
        (vec![(Dns, "a.example|b.example")], vec![dns("a.example.net")], false),
        (vec![(Dns, "a.example"), (Dns, "b.example")], vec![dns("xb.example")], false),
        (vec![(Dns, "a.example"), (Dns, "b.example")], vec![dns("x.example"), dns("b.example")], true),
        (vec![(Email, r".*@example\.com")], vec![email("a@example.com")], true),
        (vec![(Email, r".*@example\.com")], vec![email("a@example.com.evil")], false),
        (vec![(Email, "a@example.com")], vec![uri("a@example.com")], false),
        (vec![(Uri, "spiffe://example.org/.*")], vec![uri("spiffe://example.org/laptop/7")], true),
        (vec![(IpAddress, r"192\.0\.2\.\d+")], vec![address("192.0.2.7")], true),
        (vec![(IpAddress, "2001:db8::7")], vec![address("2001:db8:0:0:0:0:0:7")], true),
        (vec![(IpAddress, r"192\.0\.2\.7")], vec![address("::ffff:192.0.2.7")], true),
        (vec![(UserPrincipalName, ".*@corp.example")], vec![principal("alice@corp.example")], true),
        (vec![(UserPrincipalName, ".*@corp.example")], vec![other("alice@corp.example")], false),
        (vec![(UserPrincipalName, ".*@corp.example")], vec![email("alice@corp.example")], false),
        (vec![(Dns, ".*")], vec![email("a@example.com")], false),
        (vec![(Dns, ".*")], vec![], false),
        (vec![], vec![], true),
    ] {
        let chain = [ours.client(named(names.clone()))];
        assert_eq!(believed(&[&ours], patterns(&pattern), &chain), expected, "{pattern:?} {names:?}");
    }
}

fn presented(chain: &[Der]) -> Arc<ClientCert> {
    ClientCert::of(chain).unwrap()
}

#[test]
fn a_verdict_holds_for_its_authorities_and_for_a_while() {
    let (ours, theirs) = (root("Ours", |_| ()), root("Theirs", |_| ()));
    let shown = presented(&[ours.client(|params| params.not_after = date_time_ymd(2027, 1, 16))]);
    let trusts = [trust(&[&ours], Terms::default()), trust(&[&theirs], Terms::default())];
    let later = |seconds: i64| Timestamp::from_secs(NOW.as_secs() + seconds);
    for _ in 0..2 {
        assert_eq!(trusts.each_ref().map(|trust| shown.is_believed(trust, NOW)), [true, false]);
    }
    let day = 24 * 3600;
    assert!(shown.is_believed(&trusts[0], later(day / 4)));
    assert!(!shown.is_believed(&trusts[0], later(2 * day)), "it expired under an open connection");
    assert!(shown.is_believed(&trusts[0], NOW), "and a clock that goes back does not keep what was said later");
    // Another list of revoked certificates is another verdict.
    let revoked = presented(&[ours.client(serial(7))]);
    assert!(revoked.is_believed(&trusts[0], NOW));
    assert!(!revoked.is_believed(&trust(&[&ours], lists(&ours.list(&[7], 2120), false)), NOW));
    assert!(trusts[0].id() == trust(&[&ours], Terms::default()).id() && trusts[0].id() != trusts[1].id());
}

#[test]
fn what_is_shown_is_seen_whether_it_is_believed_or_not() {
    let (ours, theirs) = (root("Ours", |_| ()), root("Theirs", |_| ()));
    let shown = presented(&[theirs.client(named([SanType::DnsName("a.example".try_into().unwrap())]))]);
    let trust = trust(&[&ours], Terms::default());
    let seen = |shown: Option<&Arc<ClientCert>>, trust: Option<&ClientTrust>| {
        let presented = Presented::to(shown, trust, NOW);
        let facts = presented.facts();
        (facts.leaf.map(|leaf| leaf.dns.clone()), facts.valid)
    };
    assert_eq!(seen(Some(&shown), Some(&trust)), (Some(vec!["a.example".to_owned()]), false));
    assert_eq!(seen(Some(&shown), None), (Some(vec!["a.example".to_owned()]), true));
    assert_eq!(seen(None, Some(&trust)), (None, false));
    assert_eq!(seen(None, None), (None, true), "01 §1.6: without an authority nothing is wanted");
}

#[test]
fn r_002_more_certificates_than_a_chain_needs_are_not_kept() {
    let top = root("Top", |_| ());
    let middle = top.below("Middle", |_| ());
    let trust = trust(&[&top], Terms::default());
    let mut chain = vec![middle.client(|_| ()), middle.der()];
    assert!(presented(&chain).is_believed(&trust, NOW));
    let alike: Vec<_> = (0..2).map(|_| top.below("Middle", |_| ()).der()).collect();
    let behind = |others: &[Der]| [&chain[..1], others, &chain[1..]].concat();
    assert!(presented(&behind(&alike[..1])).is_believed(&trust, NOW));
    assert!(!presented(&behind(&alike)).is_believed(&trust, NOW), "a third of that name");
    chain.extend(std::iter::repeat_n(top.der(), 8));
    assert!(!presented(&chain).is_believed(&trust, NOW));
}

#[test]
fn who_vouches_for_nobody_is_refused() {
    let ours = root("Ours", |_| ()).0.pem();
    let hollow = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let signs_nothing = root("Signs nothing", |params| params.key_usages = vec![KeyUsagePurpose::CrlSign]).0.pem();
    for bad in ["", "text", hollow, &format!("{ours}{hollow}"), &signs_nothing] {
        assert!(ClientTrust::new([bad.as_bytes()], Terms::default()).is_err(), "{bad}");
    }
}

/// As Envoy has it, and so Pomerium: what is trusted need not be an authority, but then it vouches for nobody else.
#[test]
fn a_certificate_that_is_named_itself_vouches_for_itself_alone() {
    let alone = |adjust: fn(&mut Params)| {
        root("Alone", |params| {
            params.is_ca = IsCa::ExplicitNoCa;
            params.serial_number = Some(SerialNumber::from(7));
            adjust(params);
        })
    };
    let (own, top) = (alone(|_| ()), root("Top", |_| ()));
    assert!(believed(&[&own], Terms::default(), &[own.der()]));
    assert!(believed(&[&top, &own], Terms::default(), &[own.der()]), "beside an authority");
    assert!(believed(&[&top, &own], Terms::default(), &[top.client(|_| ())]), "which vouches all the same");
    assert!(!believed(&[&own], Terms::default(), &[own.client(|_| ())]), "another, signed with its key");
    assert!(!believed(&[&own], Terms::default(), &[alone(|_| ()).der()]), "another of its name");
    assert!(!believed(&[&own], depth(1), &[own.client(|_| ()), own.der()]));

    // One that somebody else has signed, whom nobody trusts.
    let signed = top.client(|_| ());
    let text = STANDARD.encode(&signed);
    let text = format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n");
    let trust = ClientTrust::new([text.as_bytes()], Terms::default()).unwrap();
    assert_eq!((trust.pinned(), trust.verify(&signed, &[], unix(NOW)).is_ok()), (1, true));
    assert!(trust.verify(&top.client(|_| ()), &[], unix(NOW)).is_err());

    let old = alone(|params| params.not_after = date_time_ymd(2022, 1, 1));
    assert!(!believed(&[&old], Terms::default(), &[old.der()]));
    let server = alone(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
    assert!(ClientTrust::new([server.0.pem().as_bytes()], Terms::default()).is_err(), "nobody could show it");
    let namesake = root("Alone", |_| ());
    assert!(!believed(&[&own], lists(&namesake.list(&[7], 2120), false), &[own.der()]), "it is on a list");
    let lists_of = |due| format!("{}{}", namesake.list(&[8], 2022), namesake.list(&[8], due));
    assert!(believed(&[&own], lists(&lists_of(2022), false), &[own.der()]), "old lists speak of others alone");
    assert!(!believed(&[&own], lists(&lists_of(2022), true), &[own.der()]), "no list is in force");
    assert!(believed(&[&own], lists(&lists_of(2120), true), &[own.der()]), "one is");
    let name = patterns(&[(NameKind::Dns, "a\\.example")]);
    assert!(!believed(&[&own], name, &[own.der()]), "none of its names will do");
}

proptest! {
    #[test]
    fn s_115_an_odd_certificate_is_never_believed_and_never_ends_in_a_panic(
        at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()
    ) {
        static MADE: std::sync::LazyLock<(ClientTrust, Der)> = std::sync::LazyLock::new(|| {
            let ours = root("Ours", |_| ());
            let name = SanType::Rfc822Name("a@example.com".try_into().unwrap());
            (trust(&[&ours], Terms::default()), ours.client(named([name])))
        });
        let (trust, leaf) = &*MADE;
        let mut odd = leaf.to_vec();
        let at = at.index(odd.len());
        let before = std::mem::replace(&mut odd[at], byte);
        let changed = presented(&[odd.clone().into()]);
        // The signature says so of every bit but those of the signature's own encoding.
        prop_assert!(before == byte || !changed.is_believed(trust, NOW), "byte {at}");
        odd.truncate(cut.index(leaf.len()));
        prop_assert!(!presented(&[odd.into()]).is_believed(trust, NOW));
    }
}
