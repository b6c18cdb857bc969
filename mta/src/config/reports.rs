//! The settings of reports to others: TLS-RPT.

use super::settings::settings;

settings! {
    /// Reports to domains that ask for them: once a day, how TLS with their hosts went (TLS-RPT, RFC 8460). They bear the
    /// co-op's own signature, so `domain` of `[signing]` is needed.
    pub struct TlsReports as "[tls_reports]" {
        /// The address that reports come from. Its domain must be that of `[signing]`, or receivers do not believe them.
        /// Default: nothing is counted, and nobody is told.
        #[serde(default)]
        pub from: Option<String> = r#""tls-reports@relay.example.test""#, Optional;
        /// The name of the organization that reports. Default: the hostname.
        #[serde(default)]
        pub organization: Option<String> = r#""Example Mail Co-op""#, Optional;
        /// Whom to ask about a report. Default: the address that it comes from.
        #[serde(default)]
        pub contact: Option<String> = r#""postmaster@relay.example.test""#, Optional;
    }
}

// The macro derives none: most tables have defaults that are not their types'.
#[allow(clippy::derivable_impls)]
impl Default for TlsReports {
    fn default() -> Self {
        TlsReports { from: None, organization: None, contact: None }
    }
}
