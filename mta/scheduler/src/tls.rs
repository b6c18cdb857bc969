//! What mail for one recipient domain demands of a connection's TLS, as plain data that travels with the route.
//!
//! A demand is made by the recipient domain of one of its hosts, never by the site: domains that share hosts share
//! connections only where their demands agree. The scheduler carries these and decides nothing by them.
//!
//! Not here: where a demand comes from (`egress/route`, `egress/dane`), who enforces it (`egress/deliver`).

use std::sync::Arc;

/// What a delivery demands of its connection to one host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Demand {
    /// Nothing was promised: TLS if it is offered and works, with any certificate; clear text otherwise (RFC 7435).
    #[default]
    Opportunistic,
    /// TLS with any certificate, never clear text: TLSA records are there and none can be used (RFC 7672 §2.2).
    Encrypted,
    /// TLS with a certificate for the host's name that leads to one of our trust anchors (RFC 8461 §4.1).
    Verified,
    /// TLS with a certificate that TLSA records vouch for (RFC 7672 §3).
    Dane(Arc<Dane>),
    /// No mail may go to this host: what is demanded of it cannot be known, or rules it out.
    Barred(Arc<Barred>),
}

impl Demand {
    /// What it is called, in logs and in answers.
    pub fn name(&self) -> &'static str {
        match self {
            Demand::Opportunistic => "opportunistic",
            Demand::Encrypted => "encrypted",
            Demand::Verified => "verified",
            Demand::Dane(_) => "dane",
            Demand::Barred(_) => "barred",
        }
    }

    /// Whether mail may cross in clear text when TLS is not to be had.
    pub fn allows_clear_text(&self) -> bool {
        *self == Demand::Opportunistic
    }

    /// Whether a connection to the same host that was made under this demand may serve `wanted`.
    pub fn serves(&self, wanted: &Demand) -> bool {
        match wanted {
            Demand::Opportunistic => true,
            Demand::Encrypted => matches!(self, Demand::Encrypted | Demand::Verified | Demand::Dane(_)),
            Demand::Verified | Demand::Dane(_) => self == wanted,
            Demand::Barred(_) => false,
        }
    }
}

/// TLSA records of a host, and the names that go with them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Dane {
    /// The TLSA base domain (RFC 7672 §2.2.3): sent as SNI, and the first name that a certificate under a trust anchor may have.
    pub base: Arc<str>,
    /// The other names that it may have: the recipient domain and what that is an alias of (RFC 7672 §3.2.3).
    pub names: Vec<Arc<str>>,
    /// The records that can be used, sorted; at least one.
    pub records: Vec<Tlsa>,
}

/// One TLSA record (RFC 6698 §2.1).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tlsa {
    /// Certificate usage: 2 (DANE-TA) or 3 (DANE-EE).
    pub usage: u8,
    /// 0: the certificate; 1: its public key.
    pub selector: u8,
    /// 0: as it is; 1: SHA-256; 2: SHA-512.
    pub matching: u8,
    /// What must be equal.
    pub data: Vec<u8>,
}

/// Why no mail may go to a host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Barred {
    /// In the words of TLS-RPT.
    pub failure: TlsFailure,
    /// For the DSN and the operator.
    pub text: Arc<str>,
}

/// How TLS failed, by the result types of RFC 8460 §4.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TlsFailure {
    /// STARTTLS is not offered, or was refused.
    StarttlsNotSupported,
    /// The certificate is for other names.
    CertificateHostMismatch,
    /// It is not valid at this time.
    CertificateExpired,
    /// It does not lead to a trust anchor.
    CertificateNotTrusted,
    /// Anything else in the handshake.
    ValidationFailure,
    /// TLSA records are there, and none of those that can be used matches.
    TlsaInvalid,
    /// The signatures of TLSA records do not verify, or no name server would say.
    DnssecInvalid,
    /// DANE is required by us, and the domain has none.
    DaneRequired,
    /// The policy could not be fetched over HTTPS.
    StsPolicyFetchError,
    /// It could be fetched and makes no sense, or names none of the domain's hosts.
    StsPolicyInvalid,
    /// The certificate of the policy's web server does not verify.
    StsWebpkiInvalid,
}

impl TlsFailure {
    /// Its name in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            TlsFailure::StarttlsNotSupported => "starttls-not-supported",
            TlsFailure::CertificateHostMismatch => "certificate-host-mismatch",
            TlsFailure::CertificateExpired => "certificate-expired",
            TlsFailure::CertificateNotTrusted => "certificate-not-trusted",
            TlsFailure::ValidationFailure => "validation-failure",
            TlsFailure::TlsaInvalid => "tlsa-invalid",
            TlsFailure::DnssecInvalid => "dnssec-invalid",
            TlsFailure::DaneRequired => "dane-required",
            TlsFailure::StsPolicyFetchError => "sts-policy-fetch-error",
            TlsFailure::StsPolicyInvalid => "sts-policy-invalid",
            TlsFailure::StsWebpkiInvalid => "sts-webpki-invalid",
        }
    }
}

/// What a recipient domain publishes about TLS: for `where`, events and reports. What follows for each host is its [`Demand`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsPolicy {
    /// Which of them counts.
    pub kind: PolicyKind,
    /// Failures are reported and mail goes all the same (mode `testing` of RFC 8461 §5).
    pub testing: bool,
    /// The policy as published, a line or record each: `policy-string` of RFC 8460 §4.4.
    pub strings: Arc<[Arc<str>]>,
    /// The hosts that it names: `mx-host` of RFC 8460 §4.4.
    pub hosts: Arc<[Arc<str>]>,
    /// Signed records name the domain's hosts, or it is its own host: nobody has put another one in (RFC 8689 §4.2.1).
    pub signed: bool,
    /// Nobody can say now whether it has a policy of MTA-STS, or which.
    pub unknown: bool,
}

impl TlsPolicy {
    /// What it is called, in logs and in answers.
    pub fn name(&self) -> &'static str {
        match (self.kind, self.testing) {
            (PolicyKind::None, _) => "opportunistic",
            (PolicyKind::Dane, _) => "dane",
            (PolicyKind::Sts, false) => "sts-enforce",
            (PolicyKind::Sts, true) => "sts-testing",
        }
    }
}

/// The kinds of policy, as `policy-type` of RFC 8460 §4.4 tells them apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PolicyKind {
    /// None was found.
    #[default]
    None,
    /// At least one of the hosts has TLSA records; stronger than a policy by RFC 8461 (§2 there).
    Dane,
    /// MTA-STS.
    Sts,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_made_under_a_weaker_demand_never_serves_a_stronger_one() {
        let dane = |name: &str| {
            let records = vec![Tlsa { usage: 3, selector: 1, matching: 1, data: vec![1; 32] }];
            Demand::Dane(Arc::new(Dane { base: name.into(), names: Vec::new(), records }))
        };
        let barred = Demand::Barred(Arc::new(Barred { failure: TlsFailure::DnssecInvalid, text: "bogus".into() }));
        let demands = [Demand::Opportunistic, Demand::Encrypted, Demand::Verified, dane("mx.a.test"), dane("mx.b.test"), barred];
        let serves: Vec<Vec<usize>> = demands
            .iter()
            .map(|made| demands.iter().enumerate().filter(|(_, wanted)| made.serves(wanted)).map(|(nth, _)| nth).collect())
            .collect();
        assert_eq!(serves[..5], [vec![0], vec![0, 1], vec![0, 1, 2], vec![0, 1, 3], vec![0, 1, 4]]);
        assert_eq!(demands.iter().filter(|demand| demand.allows_clear_text()).count(), 1);
    }
}
