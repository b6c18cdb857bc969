//! DANE for SMTP: certificates that TLSA records vouch for (RFC 7672 §3, RFC 7671).
//!
//! DANE-EE (3) pins the host's own certificate or key, and nothing else of it counts: no name, no time, no issuer. DANE-TA
//! (2) pins what issued it: the certificate must lead there, be valid now, and have one of the names expected. A trust
//! anchor comes in the host's chain or whole in the record, never from our store. The usages 0 and 1 mean public authorities,
//! which SMTP has no list of: such records cannot be used (RFC 7672 §3.1.3).
//!
//! Not here: which records hold for whom, and whether they are believed (`egress/dane`).

use std::fmt;
use std::sync::Arc;

use ring::digest;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, TrustAnchor, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, SignatureScheme};
use webpki::{EndEntityCert, KeyUsage, RawPublicKeyEntity, anchor_from_trusted_cert};

use super::der::{self, Certificate};
use super::provider;

/// The usages that SMTP knows (RFC 7672 §3.1).
const TRUST_ANCHOR: u8 = 2;
const END_ENTITY: u8 = 3;
/// Certificates of a chain that are looked at; what a host sends beyond is not.
const CHAIN_MAX: usize = 16;

/// One TLSA record (RFC 6698 §2.1), as it is published.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tlsa {
    /// Certificate usage.
    pub usage: u8,
    /// 0: the certificate; 1: its public key.
    pub selector: u8,
    /// 0: as it is; 1: SHA-256; 2: SHA-512.
    pub matching: u8,
    /// What must be equal.
    pub data: Vec<u8>,
}

impl Tlsa {
    /// Whether an SMTP client can make use of it (RFC 7672 §3.1.3, RFC 7671 §10.1).
    pub fn is_usable(&self) -> bool {
        let known = matches!((self.usage, self.selector), (TRUST_ANCHOR | END_ENTITY, 0 | 1));
        known
            && match (self.matching, self.selector) {
                (0, 0) => Certificate::read(&self.data).is_some(),
                (0, _) => der::key(&self.data).is_some(),
                (1, _) => self.data.len() == digest::SHA256_OUTPUT_LEN,
                (2, _) => self.data.len() == digest::SHA512_OUTPUT_LEN,
                _ => false,
            }
    }

    /// Those that can be used, sorted. Where a usage and selector has digests of both kinds only the strongest count
    /// (RFC 7671 §9), so that nobody who can break the weaker one gains by it.
    pub fn usable(records: Vec<Tlsa>) -> Vec<Tlsa> {
        let mut usable: Vec<_> = records.into_iter().filter(Tlsa::is_usable).collect();
        let strong: Vec<_> = usable.iter().filter(|it| it.matching == 2).map(|it| (it.usage, it.selector)).collect();
        usable.retain(|it| it.matching != 1 || !strong.contains(&(it.usage, it.selector)));
        usable.sort_unstable();
        usable.dedup();
        usable
    }

    fn matches(&self, certificate: &[u8], fields: &Certificate<'_>) -> bool {
        let selected = if self.selector == 0 { certificate } else { fields.spki };
        match self.matching {
            0 => self.data == selected,
            1 => self.data == digest::digest(&digest::SHA256, selected).as_ref(),
            2 => self.data == digest::digest(&digest::SHA512, selected).as_ref(),
            _ => false,
        }
    }
}

/// Believes what `records` vouch for.
pub(super) struct Verifier {
    records: Vec<Tlsa>,
    /// Any of these will do for a certificate under a trust anchor.
    names: Vec<String>,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    pub(super) fn new(records: Vec<Tlsa>, names: Vec<String>) -> Self {
        Verifier { records: Tlsa::usable(records), names, provider: provider() }
    }

    fn of_usage(&self, usage: u8) -> impl Iterator<Item = &Tlsa> {
        self.records.iter().filter(move |record| record.usage == usage)
    }

    /// Whether the chain leads to a trust anchor of the records, for one of the names, now.
    fn verify_issued(
        &self,
        own: &CertificateDer<'_>,
        fields: &Certificate<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), CertificateError> {
        let others = &others[..others.len().min(CHAIN_MAX)];
        let chain: Vec<_> = others.iter().filter_map(|der| Some((der, Certificate::read(der)?))).collect();
        let whole: Vec<CertificateDer<'_>> = self.of_usage(TRUST_ANCHOR).filter_map(whole_certificate).collect();
        let mut expired = None;
        let mut anchors: Vec<TrustAnchor<'_>> = Vec::new();
        let matched = chain.iter().filter(|(der, fields)| self.of_usage(TRUST_ANCHOR).any(|it| it.matches(der, fields)));
        for der in matched.map(|(der, _)| *der).chain(&whole) {
            // The time of an anchor counts like that of what it issued.
            match Certificate::read(der).map(|fields| check_time(&fields, now)) {
                Some(Ok(())) => anchors.extend(anchor_from_trusted_cert(der).ok()),
                Some(Err(error)) => expired = Some(error),
                None => {}
            }
        }
        // A bare key has no name of its own: it may be that of anyone whom the chain names as issuer.
        for key in self.of_usage(TRUST_ANCHOR).filter(|it| (it.selector, it.matching) == (1, 0)) {
            let Some(key) = der::key(&key.data) else { continue };
            let issuers = chain.iter().map(|(_, fields)| fields).chain([fields]).map(|fields| fields.issuer);
            anchors.extend(issuers.map(|issuer| TrustAnchor {
                subject: issuer.into(),
                subject_public_key_info: key.into(),
                name_constraints: None,
            }));
        }
        if anchors.is_empty() {
            return Err(expired.unwrap_or(CertificateError::ApplicationVerificationFailure));
        }
        let certificate = EndEntityCert::try_from(own).map_err(reason)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        let usage = KeyUsage::server_auth();
        certificate.verify_for_usage(algorithms, &anchors, others, now, usage, None, None).map_err(reason)?;
        if self.names.iter().any(|name| is_named(&certificate, fields, name)) {
            Ok(())
        } else {
            Err(CertificateError::NotValidForName)
        }
    }

    fn verify_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let fields = Certificate::read(certificate).ok_or(CertificateError::BadEncoding)?;
        let key = SubjectPublicKeyInfoDer::from(fields.spki);
        let key = RawPublicKeyEntity::try_from(&key).map_err(reason)?;
        let mapping = self.provider.signature_verification_algorithms.mapping;
        let algorithms = mapping.iter().find(|(scheme, _)| *scheme == signature.scheme).map_or(&[][..], |(_, found)| found);
        match algorithms.iter().any(|algorithm| key.verify_signature(*algorithm, message, signature.signature()).is_ok()) {
            true => Ok(HandshakeSignatureValid::assertion()),
            false => Err(CertificateError::BadSignature.into()),
        }
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("dane::Verifier").field("names", &self.names).finish_non_exhaustive()
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let fields = Certificate::read(own).ok_or(CertificateError::BadEncoding)?;
        if self.of_usage(END_ENTITY).any(|record| record.matches(own, &fields)) {
            return Ok(ServerCertVerified::assertion());
        }
        self.verify_issued(own, &fields, others, now)?;
        Ok(ServerCertVerified::assertion())
    }

    /// By the key alone: a certificate that DANE-EE vouches for may be one that webpki does not read.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verify_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let fields = Certificate::read(certificate).ok_or(CertificateError::BadEncoding)?;
        let key = SubjectPublicKeyInfoDer::from(fields.spki);
        verify_tls13_signature_with_raw_key(message, &key, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// A trust anchor that stands whole in its record need not be in the chain (RFC 7671 §5.2.1).
fn whole_certificate(record: &Tlsa) -> Option<CertificateDer<'_>> {
    ((record.selector, record.matching) == (0, 0)).then(|| CertificateDer::from(&record.data[..]))
}

fn check_time(fields: &Certificate<'_>, now: UnixTime) -> Result<(), CertificateError> {
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    match fields.validity {
        (from, _) if now < from => Err(CertificateError::NotValidYet),
        (_, to) if now > to => Err(CertificateError::Expired),
        _ => Ok(()),
    }
}

/// By the certificate's DNS names; where it has none, by its common name (RFC 7672 §3.2.3).
fn is_named(certificate: &EndEntityCert<'_>, fields: &Certificate<'_>, name: &str) -> bool {
    if certificate.valid_dns_names().next().is_none() {
        return fields.common_name().is_some_and(|common| common.eq_ignore_ascii_case(name));
    }
    ServerName::try_from(name).is_ok_and(|name| certificate.verify_is_valid_for_subject_name(&name).is_ok())
}

fn reason(error: webpki::Error) -> CertificateError {
    use webpki::Error as Why;
    match error {
        Why::CertExpired { .. } | Why::InvalidCertValidity => CertificateError::Expired,
        Why::CertNotValidYet { .. } => CertificateError::NotValidYet,
        Why::UnknownIssuer => CertificateError::UnknownIssuer,
        Why::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        Why::BadDer | Why::BadDerTime => CertificateError::BadEncoding,
        other => CertificateError::Other(rustls::OtherError(Arc::new(other))),
    }
}

#[cfg(test)]
#[path = "dane_tests.rs"]
mod tests;
