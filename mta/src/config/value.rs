//! Values of settings that are more than a TOML type: durations, addresses, networks, roles.
//!
//! Each refuses with a sentence that shows what would be right.

use std::{fmt, net::IpAddr, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, de::Error};

/// A range of addresses in CIDR form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// Whether `address` lies in this network. An IPv4 address that came in over an IPv6 socket counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(net), IpAddr::V4(it)) => {
                (net.to_bits() ^ it.to_bits()).checked_shr(32 - u32::from(self.prefix)).unwrap_or(0) == 0
            }
            (IpAddr::V6(net), IpAddr::V6(it)) => {
                (net.to_bits() ^ it.to_bits()).checked_shr(128 - u32::from(self.prefix)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("\"{text}\" is not a network; write it as \"192.0.2.0/24\" or \"2001:db8::/32\"");
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(prefix) => prefix.parse().ok().filter(|prefix| *prefix <= bits).ok_or_else(wrong)?,
            None => bits,
        };
        let network = Network { address, prefix };
        let first = network.first();
        // 10.1.2.3/8 is more often a slip of the prefix than of the address: ask.
        if first != address {
            return Err(format!("\"{text}\" has bits set past its prefix; write \"{first}/{prefix}\" or \"{address}/{bits}\""));
        }
        Ok(network)
    }
}

impl Network {
    fn first(&self) -> IpAddr {
        let host = |bits: u32| bits - u32::from(self.prefix);
        match self.address {
            IpAddr::V4(it) => (it.to_bits() & u32::MAX.checked_shl(host(32)).unwrap_or(0)).to_be_bytes().into(),
            IpAddr::V6(it) => (it.to_bits() & u128::MAX.checked_shl(host(128)).unwrap_or(0)).to_be_bytes().into(),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

/// A set of words, each with its variant; anything else is refused by naming them all.
macro_rules! words {
    ($(#[$doc:meta])* pub enum $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal,)* } $(not yet: $($later:literal)*)?) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            /// The word in the file.
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $word,)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let words: &[&str] = &[$($word),*];
                match String::deserialize(from)?.as_str() {
                    $($word => Ok($name::$variant),)*
                    $($($later => Err(D::Error::custom(format!(
                        "\"{}\" does not work yet; what works: {}", $later, words.join(", ")))),)*)?
                    other => Err(D::Error::custom(format!("\"{}\" is not known; choose one of {}", other.escape_debug(), words.join(", ")))),
                }
            }
        }
    };
}

words! {
    /// How sockets are driven.
    pub enum Io {
        /// io_uring where the kernel allows it, epoll elsewhere.
        Auto = "auto",
        /// io_uring, or refuse to start.
        Uring = "uring",
        /// epoll.
        Epoll = "epoll",
    }
}

words! {
    /// What a listener is for.
    pub enum Role {
        /// STARTTLS, AUTH required (RFC 6409).
        Submission = "submission",
        /// Implicit TLS, AUTH required (RFC 8314).
        Submissions = "submissions",
        /// No AUTH, only from trusted networks, on behalf of one member.
        Relay = "relay",
    }
    not yet: "inbound"
}

words! {
    /// Who checks DNSSEC signatures.
    pub enum Dnssec {
        /// This daemon does.
        Validate = "validate",
        /// A validating resolver on loopback does, and says so in the AD bit.
        TrustAd = "trust-ad",
        /// Nobody.
        Off = "off",
    }
}

words! {
    /// What is done about a member whose mail should wait.
    pub enum OnPause {
        /// New mail is put off.
        Defer = "defer",
        /// The operator is shown.
        Show = "show",
    }
}

words! {
    /// What the log looks like.
    pub enum LogFormat {
        /// Text for a person at a terminal, JSON for a collector.
        Auto = "auto",
        /// Text.
        Text = "text",
        /// An object a line.
        Json = "json",
    }
}

words! {
    /// How much of an address stands in the log.
    pub enum Shown {
        /// Its domain.
        Domain = "domain",
        /// Its keyed hash, and the domain.
        Hash = "hash",
        /// All of it.
        Whole = "whole",
    }
}

words! {
    /// How much of a Message-ID stands in the log.
    pub enum ShownId {
        /// Nothing.
        None = "none",
        /// Its keyed hash.
        Hash = "hash",
        /// All of it.
        Whole = "whole",
    }
}

/// Reads "30s", "10m", "6h", "1h30m". Calendar units (days and longer) are refused: write hours.
pub(super) fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(from)?;
    let parsed = text.parse::<jiff::SignedDuration>().ok().and_then(|it| Duration::try_from(it).ok());
    parsed.ok_or_else(|| {
        D::Error::custom(format!("\"{}\" is not a duration; write it as \"30s\", \"10m\" or \"6h\"", text.escape_debug()))
    })
}

/// The same, where it may be absent.
pub(super) fn duration_or_none<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    duration(from).map(Some)
}

words! {
    /// The least that is demanded of a connection.
    pub enum Tls {
        /// TLS where it is offered.
        Opportunistic = "opportunistic",
        /// TLS, or mail waits.
        Required = "required",
    }
}

/// So many in an interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PerTime {
    /// How many: 1 to 1,000,000.
    pub count: u32,
    /// In how long: one second to 24 hours.
    pub per: Duration,
}

impl FromStr for PerTime {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let shown = text.escape_debug();
        let wrong = || format!("\"{shown}\" is not a number in a time; write it as \"100/1m\" or \"5000/1h\"");
        let (count, per) = text.split_once('/').ok_or_else(wrong)?;
        let count: u32 = count.trim().parse().map_err(|_| wrong())?;
        let per = per.trim().parse::<jiff::SignedDuration>().ok().and_then(|it| Duration::try_from(it).ok()).ok_or_else(wrong)?;
        if !(1..=1_000_000).contains(&count) {
            return Err(format!("{count} is out of range; choose 1 to 1000000 in \"{shown}\""));
        }
        if !(Duration::from_secs(1)..=Duration::from_secs(24 * 3600)).contains(&per) {
            return Err(format!("the time of \"{shown}\" is out of range; choose \"1s\" to \"24h\""));
        }
        Ok(PerTime { count, per })
    }
}

impl<'de> Deserialize<'de> for PerTime {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

/// How many events are kept, and how long: whichever is reached first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// At most so many.
    pub count: u64,
    /// None: whatever their age.
    pub age: Option<Duration>,
}

impl Keep {
    /// Without a word about the count.
    pub(super) const COUNT_MAX: u64 = 10_000_000;
}

impl FromStr for Keep {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("\"{text}\" does not say how many or how long; write \"500000\", \"30d\" or \"500000 30d\"");
        let (mut count, mut age) = (None, None);
        for word in text.split_ascii_whitespace() {
            // jiff has no days without a calendar; here a day has 24 hours.
            let days = word.strip_suffix('d').and_then(|days| days.parse::<u32>().ok());
            let days = days.map(|days| Duration::from_secs(u64::from(days) * 86_400));
            let hours = || word.parse::<jiff::SignedDuration>().ok().and_then(|it| Duration::try_from(it).ok());
            let before = match word.parse::<u64>() {
                Ok(number) => count.replace(number).is_some(),
                Err(_) => age.replace(days.or_else(hours).ok_or_else(wrong)?).is_some(),
            };
            if before {
                return Err(wrong());
            }
        }
        if count.is_none() && age.is_none() {
            return Err(wrong());
        }
        Ok(Keep { count: count.unwrap_or(Keep::COUNT_MAX), age })
    }
}

pub(super) fn keep<'de, D: Deserializer<'de>>(from: D) -> Result<Keep, D::Error> {
    String::deserialize(from)?.parse().map_err(D::Error::custom)
}

/// Anything with an address in it; `shape` shows how to write one.
fn address<'de, T: FromStr, D: Deserializer<'de>>(from: D, shape: &str) -> Result<T, D::Error> {
    let text = String::deserialize(from)?;
    text.parse().map_err(|_| D::Error::custom(format!("\"{}\" is not {shape}", text.escape_debug())))
}

/// An address with its port.
pub(super) fn socket<'de, D: Deserializer<'de>>(from: D) -> Result<std::net::SocketAddr, D::Error> {
    address(from, "an address with a port; write it as \"192.0.2.1:587\" or \"[2001:db8::1]:587\"")
}

/// A list of addresses with ports.
pub(super) fn sockets<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<std::net::SocketAddr>>, D::Error> {
    struct One(std::net::SocketAddr);
    impl<'de> Deserialize<'de> for One {
        fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            socket(from).map(One)
        }
    }
    Ok(Some(Vec::<One>::deserialize(from)?.into_iter().map(|it| it.0).collect()))
}

/// An address alone.
pub(super) fn ip<'de, D: Deserializer<'de>>(from: D) -> Result<IpAddr, D::Error> {
    address(from, "an address; write it as \"192.0.2.1\" or \"2001:db8::1\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_holds_its_own_addresses_and_no_others() {
        let holds = |network: &str, address: &str| network.parse::<Network>().unwrap().contains(address.parse().unwrap());
        assert!(holds("127.0.0.0/8", "127.9.9.9"));
        assert!(holds("127.0.0.0/8", "::ffff:127.0.0.1"));
        assert!(!holds("127.0.0.0/8", "128.0.0.1"));
        assert!(holds("0.0.0.0/0", "203.0.113.7"));
        assert!(!holds("0.0.0.0/0", "2001:db8::1"));
        assert!(holds("192.0.2.1", "192.0.2.1"));
        assert!(!holds("192.0.2.1", "192.0.2.2"));
        assert!(holds("2001:db8::/32", "2001:db8:ffff::1"));
        assert!(holds("::/0", "2001:db8::1"));
    }
}
