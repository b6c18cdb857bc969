//! Every default, in one place; `describe`'s test holds the printed ones to these.

use super::*;

pub(super) fn io() -> Io {
    Io::Auto
}
pub(super) fn connections_max() -> NonZeroUsize {
    const { NonZeroUsize::new(10_000).unwrap() }
}
pub(super) fn message_bytes_max() -> u64 {
    35 << 20
}
pub(super) fn drain_secs() -> u64 {
    15
}
pub(super) fn recipients_max() -> usize {
    1000
}
pub(super) fn future_release_max() -> Duration {
    Duration::from_secs(168 * 3600)
}
pub(super) fn deliver_by_min() -> Duration {
    Duration::from_secs(30)
}
pub(super) fn otp_lifetime() -> Duration {
    Duration::from_secs(15 * 60)
}
pub(super) fn otp_delay() -> Duration {
    Duration::from_secs(5 * 60)
}
pub(super) fn transactional_lifetime() -> Duration {
    Duration::from_secs(48 * 3600)
}
pub(super) fn transactional_delay() -> Duration {
    Duration::from_secs(4 * 3600)
}
pub(super) fn notice_lifetime() -> Duration {
    Duration::from_secs(120 * 3600)
}
pub(super) fn notice_delay() -> Duration {
    Duration::from_secs(24 * 3600)
}
pub(super) fn dnssec() -> Dnssec {
    Dnssec::Off
}
pub(super) fn selector() -> String {
    "coop".to_owned()
}
pub(super) fn yes() -> bool {
    true
}
pub(super) fn port() -> u16 {
    25
}
pub(super) fn sts_port() -> u16 {
    443
}
pub(super) fn weight() -> u16 {
    1
}
pub(super) fn duplicates_window() -> Duration {
    Duration::from_secs(3600)
}
pub(super) fn require() -> Vec<String> {
    ["verified-mail-operator", "relay-member"].map(str::to_owned).to_vec()
}
pub(super) fn poll_interval() -> Duration {
    Duration::from_secs(30)
}
pub(super) fn stale_after() -> Duration {
    Duration::from_secs(6 * 3600)
}
pub(super) fn dnsbl_zones() -> Vec<String> {
    Vec::new()
}
pub(super) fn dnsbl_interval() -> Duration {
    Duration::from_secs(15 * 60)
}
pub(super) fn shaping_files() -> Vec<PathBuf> {
    Vec::new()
}
pub(super) fn plc_url() -> String {
    "https://plc.directory".to_owned()
}

impl Default for Dnsbl {
    fn default() -> Self {
        Dnsbl { zones: dnsbl_zones(), interval: dnsbl_interval() }
    }
}
impl Default for Shaping {
    fn default() -> Self {
        Shaping { files: shaping_files() }
    }
}
impl Default for Dns {
    fn default() -> Self {
        Dns { nameservers: None, dnssec: dnssec(), trust_anchor: None }
    }
}
impl Default for Signing {
    fn default() -> Self {
        Signing { domain: None, selector: selector(), required: yes() }
    }
}
impl Default for Otp {
    fn default() -> Self {
        Otp { lifetime: otp_lifetime(), delay_notice_after: otp_delay(), pool: None }
    }
}
impl Default for Transactional {
    fn default() -> Self {
        Transactional { lifetime: transactional_lifetime(), delay_notice_after: transactional_delay(), pool: None }
    }
}
impl Default for Notice {
    fn default() -> Self {
        Notice { lifetime: notice_lifetime(), delay_notice_after: notice_delay(), pool: None }
    }
}
impl Default for Egress {
    fn default() -> Self {
        Egress { port: port(), allow_private_addresses: false, trust_anchors: None, replies: None, sts_port: sts_port() }
    }
}
impl Default for Duplicates {
    fn default() -> Self {
        Duplicates { suppress: yes(), window: duplicates_window() }
    }
}
pub(super) fn read_interval() -> Duration {
    Duration::from_secs(300)
}
pub(super) fn doubts_stale_after() -> Duration {
    Duration::from_secs(24 * 3600)
}
pub(super) fn on_pause() -> OnPause {
    OnPause::Defer
}
pub(super) fn keep() -> Keep {
    Keep { count: 500_000, age: None }
}

impl Default for Events {
    fn default() -> Self {
        Events { keep: keep() }
    }
}
impl Default for Identity {
    fn default() -> Self {
        Identity { plc_url: plc_url() }
    }
}
pub(super) fn log_format() -> LogFormat {
    LogFormat::Auto
}
pub(super) fn log_address() -> Shown {
    Shown::Domain
}
pub(super) fn log_id() -> ShownId {
    ShownId::None
}
