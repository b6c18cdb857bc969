//! The matrix of DANE: what each kind of record vouches for, and what it does not.

use std::time::{SystemTime, UNIX_EPOCH};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use super::*;

const HOST: &str = "mx.example.org";
const DOMAIN: &str = "example.org";

/// A certificate and its key.
struct Made {
    der: CertificateDer<'static>,
    spki: Vec<u8>,
    params: CertificateParams,
    key: KeyPair,
}

impl Made {
    fn issuer(&self) -> Issuer<'_, &KeyPair> {
        Issuer::from_params(&self.params, &self.key)
    }
}

fn make(params: CertificateParams, by: Option<&Made>) -> Made {
    let key = KeyPair::generate().unwrap();
    let made = match by {
        Some(by) => params.signed_by(&key, &by.issuer()).unwrap(),
        None => params.self_signed(&key).unwrap(),
    };
    let der = made.der().clone();
    let spki = Certificate::read(&der).unwrap().spki.to_vec();
    Made { der, spki, params, key }
}

fn leaf(names: &[&str]) -> CertificateParams {
    CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap()
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

fn ended(mut params: CertificateParams) -> CertificateParams {
    (params.not_before, params.not_after) = (rcgen::date_time_ymd(2020, 1, 1), rcgen::date_time_ymd(2021, 1, 1));
    params
}

fn tlsa(usage: u8, selector: u8, matching: u8, of: &Made) -> Tlsa {
    let selected = if selector == 0 { &of.der[..] } else { &of.spki };
    let data = match matching {
        1 => digest::digest(&digest::SHA256, selected).as_ref().to_vec(),
        2 => digest::digest(&digest::SHA512, selected).as_ref().to_vec(),
        _ => selected.to_vec(),
    };
    Tlsa { usage, selector, matching, data }
}

fn verify(records: &[Tlsa], names: &[&str], chain: &[&Made]) -> Result<(), String> {
    let verifier = Verifier::new(records.to_vec(), names.iter().map(ToString::to_string).collect());
    let others: Vec<_> = chain[1..].iter().map(|made| made.der.clone()).collect();
    let now = UnixTime::since_unix_epoch(SystemTime::now().duration_since(UNIX_EPOCH).unwrap());
    let sni = ServerName::try_from(HOST).unwrap();
    verifier.verify_server_cert(&chain[0].der, &others, &sni, &[], now).map(drop).map_err(|error| match error {
        rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure) => "unmatched".to_owned(),
        rustls::Error::InvalidCertificate(why) => format!("{why:?}"),
        other => other.to_string(),
    })
}

fn err(what: &str) -> Result<(), String> {
    Err(what.to_owned())
}

#[test]
fn dane_ee_vouches_for_the_key_or_the_certificate_and_asks_for_nothing_else() {
    let plain = make(leaf(&[HOST]), None);
    let odd = make(ended(leaf(&["elsewhere.test"])), None);
    for (selector, matching) in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)] {
        assert_eq!(verify(&[tlsa(3, selector, matching, &plain)], &[HOST], &[&plain]), Ok(()), "3 {selector} {matching}");
        assert_eq!(verify(&[tlsa(3, selector, matching, &odd)], &[HOST], &[&odd]), Ok(()), "3 {selector} {matching}");
        assert_eq!(verify(&[tlsa(3, selector, matching, &odd)], &[HOST], &[&plain]), err("unmatched"));
        // Nor does it vouch for what stands further up in the chain.
        assert_eq!(verify(&[tlsa(3, selector, matching, &odd)], &[HOST], &[&plain, &odd]), err("unmatched"));
    }
}

#[test]
fn a_rollover_goes_well_while_one_of_the_records_matches() {
    let (old, new) = (make(leaf(&[HOST]), None), make(leaf(&[HOST]), None));
    let both = [tlsa(3, 1, 1, &old), tlsa(3, 1, 1, &new)];
    assert_eq!(verify(&both, &[HOST], &[&old]), Ok(()));
    assert_eq!(verify(&both, &[HOST], &[&new]), Ok(()));
}

#[test]
fn dane_ta_vouches_for_what_it_issued_for_the_right_name_now() {
    let root = make(authority("root"), None);
    let middle = make(authority("middle"), Some(&root));
    let own = make(leaf(&[HOST]), Some(&middle));
    let wild = make(leaf(&["*.example.org"]), Some(&middle));
    let of_domain = make(leaf(&[DOMAIN]), Some(&middle));
    let elsewhere = make(leaf(&["mx.elsewhere.test"]), Some(&middle));
    let late = make(ended(leaf(&[HOST])), Some(&middle));
    let stranger = make(leaf(&[HOST]), Some(&make(authority("root"), None)));
    let selves = make(leaf(&[HOST]), None);
    for (selector, matching) in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)] {
        for anchor in [&root, &middle] {
            let records = [tlsa(2, selector, matching, anchor)];
            let it = |names: &[&str], own| verify(&records, names, &[own, &middle, &root]);
            assert_eq!(it(&[HOST], &own), Ok(()), "2 {selector} {matching}");
            assert_eq!(it(&[HOST], &wild), Ok(()));
            assert_eq!(it(&[HOST, DOMAIN], &of_domain), Ok(()));
            assert_eq!(it(&[HOST], &of_domain), err("NotValidForName"));
            assert_eq!(it(&[HOST, DOMAIN], &elsewhere), err("NotValidForName"));
            assert_eq!(it(&[HOST], &late), err("Expired"));
            assert!(it(&[HOST], &stranger).is_err());
            assert!(it(&[HOST], &selves).is_err());
        }
    }
}

#[test]
fn a_trust_anchor_comes_in_the_chain_or_whole_in_the_record() {
    let root = make(authority("root"), None);
    let middle = make(authority("middle"), Some(&root));
    let own = make(leaf(&[HOST]), Some(&middle));
    let without = [&own, &middle];
    assert_eq!(verify(&[tlsa(2, 0, 0, &root)], &[HOST], &without), Ok(()));
    assert_eq!(verify(&[tlsa(2, 1, 0, &root)], &[HOST], &without), Ok(()));
    assert_eq!(verify(&[tlsa(2, 0, 1, &root)], &[HOST], &without), err("unmatched"));
    assert_eq!(verify(&[tlsa(2, 1, 1, &root)], &[HOST], &without), err("unmatched"));
    // The issuer of the host's own certificate, by its key alone.
    assert_eq!(verify(&[tlsa(2, 1, 0, &middle)], &[HOST], &[&own]), Ok(()));
    let other = make(authority("middle"), None);
    assert!(verify(&[tlsa(2, 1, 0, &other)], &[HOST], &[&own]).is_err());
}

#[test]
fn a_trust_anchor_is_not_the_host_s_own_certificate_and_must_be_valid_itself() {
    let own = make(leaf(&[HOST]), None);
    assert_eq!(verify(&[tlsa(2, 0, 1, &own)], &[HOST], &[&own]), err("unmatched"));
    let root = make(ended(authority("root")), None);
    let issued = make(leaf(&[HOST]), Some(&root));
    assert_eq!(verify(&[tlsa(2, 0, 1, &root)], &[HOST], &[&issued, &root]), err("Expired"));
    assert_eq!(verify(&[tlsa(2, 0, 0, &root)], &[HOST], &[&issued]), err("Expired"));
}

#[test]
fn a_common_name_counts_only_where_there_are_no_dns_names() {
    let root = make(authority("root"), None);
    let named = |names: &[&str]| {
        let mut params = leaf(names);
        params.distinguished_name.push(DnType::CommonName, HOST);
        make(params, Some(&root))
    };
    let records = [tlsa(2, 0, 1, &root)];
    assert_eq!(verify(&records, &[HOST], &[&named(&[]), &root]), Ok(()));
    assert_eq!(verify(&records, &[HOST], &[&named(&["mx.elsewhere.test"]), &root]), err("NotValidForName"));
}

#[test]
fn records_that_smtp_cannot_use_are_left_out() {
    let own = make(leaf(&[HOST]), None);
    let (good, strong) = (tlsa(3, 1, 1, &own), tlsa(3, 1, 2, &own));
    for usage in [0, 1, 4, 255] {
        let record = Tlsa { usage, ..good.clone() };
        assert!(!record.is_usable());
        assert_eq!(verify(&[record], &[HOST], &[&own]), err("unmatched"));
    }
    let unusable = [
        Tlsa { selector: 2, ..good.clone() },
        Tlsa { matching: 3, ..good.clone() },
        Tlsa { data: vec![0; 31], ..good.clone() },
        Tlsa { data: vec![0; 33], ..good.clone() },
        Tlsa { matching: 2, ..good.clone() },
        Tlsa { data: Vec::new(), ..good.clone() },
        Tlsa { selector: 0, matching: 0, ..good.clone() },
        Tlsa { selector: 1, matching: 0, ..good.clone() },
    ];
    assert!(unusable.iter().all(|record| !record.is_usable()));
    assert_eq!(Tlsa::usable(unusable.to_vec()), []);
    // RFC 7671 §9: the weaker digest is not asked where there is a stronger one of the same usage and selector.
    let other = Tlsa { selector: 0, ..good.clone() };
    assert_eq!(Tlsa::usable(vec![strong.clone(), good.clone(), other.clone(), strong.clone()]), [other, strong.clone()]);
    let wrong = Tlsa { data: vec![0; 64], ..strong };
    assert_eq!(verify(&[good, wrong], &[HOST], &[&own]), err("unmatched"));
}
