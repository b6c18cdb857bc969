//! TLS policy: how well a connection to a host must be protected before mail for a domain may cross it.
//!
//! Now there is one policy, opportunistic (RFC 7435): TLS when it is offered, any certificate, and
//! clear text when the handshake fails, since clear text is what an attacker who can break the
//! handshake would have seen anyway. Policies that a domain publishes (MTA-STS, DANE) are decided
//! per recipient domain, not per site: that is why `deliver` asks here with the domain in hand.

/// What a delivery for one recipient domain demands of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TlsPolicy {
    /// TLS if the peer offers it and the handshake works; clear text otherwise.
    Opportunistic,
}

impl TlsPolicy {
    /// The policy for mail to `_domain`.
    pub fn of(_domain: &str) -> Self {
        TlsPolicy::Opportunistic
    }

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            TlsPolicy::Opportunistic => "opportunistic",
        }
    }

    /// Whether a failed handshake may be followed by a second try in clear text.
    pub fn allows_clear_text(self) -> bool {
        match self {
            TlsPolicy::Opportunistic => true,
        }
    }
}
