//! The settings of the MTA: `mta.toml`.
//!
//! A setting is its own documentation: the doc comments below are what `tradewind config describe` prints. What is
//! not known, or does not work yet, is refused, never ignored. A wrong file is refused as a whole, with the line, the
//! key and what would be right for everything wrong in it ([`ConfigError`]).
//!
//! Relative paths are relative to the file's own folder, so that the daemon and the operator's command find the same
//! data from wherever they are started.

mod check;
mod classes;
mod defaults;
mod describe;
pub mod effective;
mod error;
pub mod hints;
mod log;
pub mod plans;
mod reports;
mod settings;
pub mod shaping;
mod standing;
mod value;
pub mod warmup;

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

pub use classes::{Classes, Notice, Otp, Transactional};
pub use describe::{TABLES, describe};
pub(crate) use error::Source as SourceText;
pub use error::{ConfigError, Problem};
pub use log::{Events, Log};
pub use reports::TlsReports;
pub use settings::{Presence, Setting, Table};
pub use standing::Standing;
pub use value::{Dnssec, Io, Keep, LogFormat, Network, OnPause, Role, Shown, ShownId};

use settings::settings;

use crate::egress::replies::Replies;

settings! {
    /// The tradewind MTA's settings. Lines that are commented out show a default or something optional.
    pub struct Config as "" {
        /// The name in the greeting and the trace field: the public host name of the machine.
        pub hostname: String = r#""relay.example.test""#, Required;
        /// Where the queue, the keys and the admin socket live. Made when absent, mode 0700.
        /// This path and all others are relative to the folder of this file.
        pub data_dir: PathBuf = r#""data""#, Required;
        /// How sockets are driven: auto, uring or epoll. auto takes io_uring where the kernel allows it and says so when it
        /// does not. Default: auto.
        #[serde(default = "defaults::io")]
        pub io: Io = r#""auto""#, Default;
        /// Threads that serve sessions and deliveries. Default: one per core.
        #[serde(default)]
        pub threads: Option<NonZeroUsize> = "2", Optional;
        /// Sessions open at the same time over all listeners. Past it a new one is answered 421. Each needs a file
        /// descriptor and, under TLS, up to 64 KiB. Default: 10000.
        #[serde(default = "defaults::connections_max")]
        pub connections_max: NonZeroUsize = "10000", Default;
        /// Octets of the largest message that is accepted, announced as SIZE (RFC 1870). Default: 36700160 (35 MiB).
        #[serde(default = "defaults::message_bytes_max")]
        pub message_bytes_max: u64 = "36700160", Default;
        /// Recipients of one message that are taken, announced as RCPTMAX (RFC 9422); what comes beyond is told to come in
        /// another transaction. 100 to 20000 (RFC 5321 §4.5.3.1.8 asks for 100). Default: 1000.
        #[serde(default = "defaults::recipients_max")]
        pub recipients_max: usize = "1000", Default;
        /// The longest time that a member may have a message held before it is sent, by HOLDFOR or HOLDUNTIL (RFC 4865);
        /// announced as FUTURERELEASE to those who authenticate. 0s: not offered. Default: 168h.
        #[serde(default = "defaults::future_release_max", deserialize_with = "value::duration")]
        pub future_release_max: Duration = r#""168h""#, Default;
        /// The shortest time after which a member may have a message returned undelivered, by BY with R (RFC 2852);
        /// announced as DELIVERBY. Shorter ones are refused, because a first try takes some seconds. Default: 30s.
        #[serde(default = "defaults::deliver_by_min", deserialize_with = "value::duration")]
        pub deliver_by_min: Duration = r#""30s""#, Default;
        /// Seconds that transactions and deliveries in progress may take to finish when the daemon stops or hands over; past
        /// it they are broken off, and deliveries are tried again. With peers that answer, a stop takes a second or two.
        /// Clients that connect during a hand-over wait so long at worst, and most give up after 30. Default: 15.
        #[serde(default = "defaults::drain_secs")]
        pub drain_secs: u64 = "15", Default;
        tables {
            /// The listeners.
            #[serde(default)]
            pub listen: Vec<Listen>;
            /// The certificate shown to clients.
            #[serde(default)]
            pub tls: Option<Tls>;
            /// Name resolution.
            #[serde(default)]
            pub dns: Dns;
            /// The co-op's own signature.
            #[serde(default)]
            pub signing: Signing;
            /// What becomes of mail by what it is for.
            #[serde(default)]
            pub class: Classes;
            /// Delivery to others.
            #[serde(default)]
            pub egress: Egress;
            /// How TLS with others went, for them.
            #[serde(default)]
            pub tls_reports: TlsReports;
            /// What the file of replies says, the shipped ones included.
            #[serde(skip)]
            pub replies: Arc<Replies>;
            /// The addresses that mail leaves from.
            #[serde(default)]
            pub source: Vec<Source>;
            /// Sets of sources.
            #[serde(default)]
            pub pool: Vec<Pool>;
            /// What members may send.
            #[serde(default)]
            pub tier: Vec<Tier>;
            /// What receivers bear.
            #[serde(default)]
            pub shaping: Shaping;
            /// What the files of shaping say, the shipped ones included.
            #[serde(skip)]
            pub shaped: shaping::Shaped;
            /// What the world finds when it looks at our sources.
            #[serde(default)]
            pub dnsbl: Dnsbl;
            /// How young sources begin.
            #[serde(default)]
            pub warmup: warmup::Warmup;
            /// Which do.
            #[serde(default)]
            pub climb: Vec<warmup::ClimbTable>;
            /// What these say, with the plans of all files.
            #[serde(skip)]
            pub climbs: Arc<[scheduler::warmup::Assignment]>;
            /// The texts of those files, and of plans that operators keep.
            #[serde(skip)]
            pub plan_texts: plans::Texts;
            /// Messages that are submitted a second time.
            #[serde(default)]
            pub duplicates: Duplicates;
            /// Whose labels admit a member.
            #[serde(default)]
            pub labeler: Option<Labeler>;
            /// What the labeler is told of mail, and what it doubts.
            #[serde(default)]
            pub standing: Option<Standing>;
            /// Where DIDs are looked up.
            #[serde(default)]
            pub identity: Identity;
            /// What became of mail, for those who read it.
            #[serde(default)]
            pub events: Events;
            /// What the daemon tells of itself.
            #[serde(default)]
            pub log: Log;
            /// The HTTP listener.
            #[serde(default)]
            pub admin: Option<Admin>;
        }
    }
}

settings! {
    /// A listener. Write the table once for each address.
    pub struct Listen as "[[listen]]" {
        /// Address and port.
        #[serde(deserialize_with = "value::socket")]
        pub address: SocketAddr = r#""127.0.0.1:2587""#, Required;
        /// What it is for.
        /// submission: STARTTLS, AUTH required; a client that starts with TLS at once is served too.
        /// submissions: TLS from the first octet, AUTH required.
        /// relay: no AUTH, only from trusted networks, on behalf of one member.
        pub role: Role = r#""submission""#, Required;
        /// Only with role relay, which needs it: who may connect.
        #[serde(default)]
        pub trusted_networks: Option<Vec<Network>> = r#"["127.0.0.0/8"]"#, Optional;
        /// Only with role relay, which needs it: the DID of the member whose mail this is. It must be enrolled.
        #[serde(default)]
        pub member: Option<String> = r#""did:web:host.example.test""#, Optional;
    }
}

settings! {
    /// The certificate shown to clients. Needed by the roles submission and submissions.
    /// Both files are read again on SIGHUP.
    pub struct Tls as "[tls]" {
        /// PEM file: the certificate and those that link it to a root. Clients verify it: a PDS refuses one it cannot.
        pub certificate: PathBuf = r#""cert.pem""#, Required;
        /// PEM file: its private key.
        pub private_key: PathBuf = r#""key.pem""#, Required;
    }
}

settings! {
    /// Name resolution.
    pub struct Dns as "[dns]" {
        /// Resolvers, each with its port. The next is asked when one does not answer, fails, or answers what its signatures
        /// belie. Default: those of /etc/resolv.conf.
        #[serde(default, deserialize_with = "value::sockets")]
        pub nameservers: Option<Vec<SocketAddr>> = r#"["127.0.0.53:53"]"#, Optional;
        /// Who checks DNSSEC signatures: validate (this daemon), trust-ad (a validating resolver on loopback, which says so by
        /// the AD bit) or off. Without signatures there is no DANE. Default: off.
        #[serde(default = "defaults::dnssec")]
        pub dnssec: Dnssec = r#""off""#, Default;
        /// DNSKEY records that signatures are checked from, in place of the root's, such as
        /// ". 3600 IN DNSKEY 257 3 8 AwEAA…", a line each. Only with dnssec = "validate". Default: the root's of 2017 and 2024.
        #[serde(default)]
        pub trust_anchor: Option<PathBuf> = r#""root.key""#, Optional;
    }
}

settings! {
    /// DKIM signatures. Members' keys are made when they are enrolled; this is about the co-op's own.
    pub struct Signing as "[signing]" {
        /// Domain of the co-op's own signature, added to every message. Default: members' signatures only.
        #[serde(default)]
        pub domain: Option<String> = r#""relay.example.test""#, Optional;
        /// Selector of that signature. Default: coop.
        #[serde(default = "defaults::selector")]
        pub selector: String = r#""coop""#, Default;
        /// true: mail of a member without keys is refused. false: it goes out without the member's signature; that is
        /// logged and counted. Default: true.
        #[serde(default = "defaults::yes")]
        pub required: bool = "true", Default;
    }
}

settings! {
    /// Delivery to others.
    pub struct Egress as "[egress]" {
        /// The port of the receiving hosts. Default: 25.
        #[serde(default = "defaults::port")]
        pub port: u16 = "25", Default;
        /// true: may deliver to loopback and private addresses, for tests. Default: false, so that nobody's MX record
        /// makes this host talk to its own network.
        #[serde(default)]
        pub allow_private_addresses: bool = "false", Default;
        /// PEM file of the authorities that a receiving host's certificate is held against where its domain demands it
        /// (MTA-STS), or the sender (REQUIRETLS), and the host of a domain's policy always. For all others the log says of
        /// each attempt whether the certificate was `tls_trusted`. Default: the system's.
        #[serde(default)]
        pub trust_anchors: Option<PathBuf> = r#""ca.pem""#, Optional;
        /// A file of what replies speak of ([[reply]]) and of what is done about it ([[rule]]), in the form of what comes with
        /// the program and is printed by `tradewind config replies`. Its entries go before the shipped ones; a rule
        /// replaces the shipped one of its name. Read again on SIGHUP. Default: none.
        #[serde(default)]
        pub replies: Option<PathBuf> = r#""replies.toml""#, Optional;
        /// The port of hosts that publish policies of MTA-STS, for tests. Default: 443.
        #[serde(default = "defaults::sts_port")]
        pub sts_port: u16 = "443", Default;
    }
}

settings! {
    /// An address that mail leaves from. Write the table once for each; at least one is needed.
    pub struct Source as "[[source]]" {
        /// What the pools call it.
        pub name: String = r#""ip-a""#, Required;
        /// A local address.
        #[serde(deserialize_with = "value::ip")]
        pub address: IpAddr = r#""127.0.0.2""#, Required;
        /// Its name in EHLO. Its reverse DNS should say the same, and forward again.
        pub ehlo: String = r#""a.relay.example.test""#, Required;
    }
}

settings! {
    /// A set of sources, IPv4 and IPv6 together. Mail goes by its member's pool (`tradewind member set --pool`), else by its
    /// class's, else by the one called default, which must be there if any is. Without this table all sources are in it.
    /// Read again on SIGHUP, with the sources.
    pub struct Pool as "[[pool]]" {
        /// Its name.
        pub name: String = r#""default""#, Required;
        /// Names of sources. One may be in several pools.
        pub sources: Vec<String> = r#"["ip-a"]"#, Required;
        /// The share of the mail of each of them among those that are free, in their order: 0 to 1000; 0 takes none.
        /// Without it all are alike.
        #[serde(default)]
        pub weights: Option<Vec<u32>> = "[1]", Optional;
    }
}

settings! {
    /// What receivers bear: connections, rates, times to wait. What is known of large providers comes with the program;
    /// `tradewind config shaping` prints it, with every setting that a file may have, and the order in which values win.
    /// Read again on SIGHUP, all files or none; `tradewind config check --diff` shows what that would change.
    pub struct Shaping as "[shaping]" {
        /// Files, the co-op's first: what later ones say of the same place wins. Default: [].
        #[serde(default = "defaults::shaping_files")]
        pub files: Vec<PathBuf> = "[]", Default;
    }
}

settings! {
    /// What members may send and have in the queue. Write the table once for each tier; `tradewind member set --tier` puts a
    /// member into one. Those that are in none are in the tier called default; without a table of that name they have no
    /// limits. Rates count recipients, as mailbox providers do: a message to three is three. All of this is read again on
    /// SIGHUP.
    pub struct Tier as "[[tier]]" {
        /// Its name.
        pub name: String = r#""default""#, Required;
        /// Deliveries that a member may begin at a site in each of its turns, beside the turns of other members: 1 to 1000.
        /// Default: 1.
        #[serde(default = "defaults::weight")]
        pub weight: u16 = "1", Default;
        /// Recipients an hour, on the long run. Past it: 451 4.7.1, with the time when there is room again. The count starts
        /// afresh with the daemon. Default: no limit.
        #[serde(default)]
        pub messages_per_hour: Option<u64> = "1000", Optional;
        /// Recipients at once, after a while without mail: transactional mail comes in bursts. It is also the most that one
        /// message may have. Needs messages_per_hour. Default: a sixth of messages_per_hour, but at least 50.
        #[serde(default)]
        pub burst: Option<u64> = "200", Optional;
        /// Recipients a day, by the calendar of UTC. Past it: 451 4.7.1. The count is kept over restarts. Default: no limit.
        #[serde(default)]
        pub messages_per_day: Option<u64> = "5000", Optional;
        /// Messages of one member in the queue. Past it: 452 4.3.1. Default: no limit.
        #[serde(default)]
        pub queue_messages_max: Option<u64> = "10000", Optional;
        /// Octets of one member's messages in the queue, as they are stored. Past it: 452 4.3.1. Default: no limit.
        #[serde(default)]
        pub queue_bytes_max: Option<u64> = "268435456", Optional;
    }
}

settings! {
    /// The watch over the sources: whether each has a name (PTR) that leads back and is its EHLO name, and whether block lists
    /// list it. `tradewind sources` shows what was found. A source that is listed has a quarter of its share of the mail until it
    /// is listed no longer; `tradewind actions` shows and ends that. Read again on SIGHUP.
    pub struct Dnsbl as "[dnsbl]" {
        /// Zones of block lists (RFC 5782), at most 32. Most refuse to answer through the large public resolvers; that is told, and
        /// counts as nothing. Default: [].
        #[serde(default = "defaults::dnsbl_zones")]
        pub zones: Vec<String> = "[]", Default;
        /// Time between two looks at everything, names included: 1m to 24h. Default: 15m.
        #[serde(default = "defaults::dnsbl_interval", deserialize_with = "value::duration")]
        pub interval: Duration = r#""15m""#, Default;
    }
}

settings! {
    /// Messages that a client submits a second time, because it never read the answer to the first. The same are: one
    /// credential, one reverse-path, the same recipients, and either the same ENVID (RFC 3461) and content, where Date and
    /// Message-ID may have been written anew, or the same content to the octet. Other content is another message, whatever
    /// its Message-ID. A message without ENVID, Message-ID and Date, or one that could not be delivered, is never a duplicate.
    /// Read again on SIGHUP.
    pub struct Duplicates as "[duplicates]" {
        /// true: they are answered 250 with the queue id of the first, and not sent again. false: they are sent again.
        /// Default: true.
        #[serde(default = "defaults::yes")]
        pub suppress: bool = "true", Default;
        /// How long a message is remembered, up to 24h. Past 262144 messages the oldest are forgotten before. Default: 1h.
        #[serde(default = "defaults::duplicates_window", deserialize_with = "value::duration")]
        pub window: Duration = r#""1h""#, Default;
    }
}

settings! {
    /// Whose labels admit a member. The whole table absent: labels are not consulted.
    pub struct Labeler as "[labeler]" {
        /// Where the labeler answers. https, or http on loopback.
        pub url: String = r#""http://127.0.0.1:3100""#, Required;
        /// Its DID. Labels that another issued, or that its key did not sign, do not count.
        pub did: String = r#""did:web:labeler.example.test""#, Required;
        /// Labels that a member needs, all of them. [] admits every enrolled member.
        /// Default: ["verified-mail-operator", "relay-member"].
        #[serde(default = "defaults::require")]
        pub require: Vec<String> = r#"["verified-mail-operator", "relay-member"]"#, Default;
        /// Time between two polls. Default: 30s.
        #[serde(default = "defaults::poll_interval", deserialize_with = "value::duration")]
        pub poll_interval: Duration = r#""30s""#, Default;
        /// Age of the last good poll from which on the labeler counts as away: last known labels still serve, new members
        /// wait. Default: 6h.
        #[serde(default = "defaults::stale_after", deserialize_with = "value::duration")]
        pub stale_after: Duration = r#""6h""#, Default;
    }
}

settings! {
    /// Where DIDs are looked up.
    pub struct Identity as "[identity]" {
        /// The directory of did:plc. https, or http on loopback. Default: https://plc.directory.
        #[serde(default = "defaults::plc_url")]
        pub plc_url: String = r#""https://plc.directory""#, Default;
    }
}

settings! {
    /// The HTTP listener: to everybody /healthz, /readyz and /metrics; the console and, below /v1, the API, to operators who show a
    /// token (`tradewind token add`). The whole table absent: none; the operator's command uses the socket in data_dir.
    /// Keep it on loopback, or give it a certificate ([admin.tls]).
    pub struct Admin as "[admin]" {
        /// Address and port.
        #[serde(deserialize_with = "value::socket")]
        pub address: SocketAddr = r#""127.0.0.1:8025""#, Required;
        /// true: an address that others can reach may do without [admin.tls], because the network is private. Default: false.
        #[serde(default)]
        pub allow_clear_text: bool = "false", Default;
        tables {
            /// TLS on this listener.
            #[serde(default)]
            pub tls: Option<AdminTls>;
        }
    }
}

settings! {
    /// TLS on the HTTP listener. The whole table absent: none. Certificate and key are read again when they are renewed.
    pub struct AdminTls as "[admin.tls]" {
        /// PEM file: the certificate and those that link it to a root.
        pub certificate: PathBuf = r#""admin.pem""#, Required;
        /// PEM file: its private key.
        pub private_key: PathBuf = r#""admin-key.pem""#, Required;
        /// PEM file: certificates that a client's must lead to; whoever shows none is turned away, before tokens and also from
        /// /metrics and /healthz. Default: no client needs one.
        #[serde(default)]
        pub client_ca: Option<PathBuf> = r#""operators.pem""#, Optional;
    }
}

impl Config {
    /// Reads and checks a file, and looks whether the files that it names are there.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        Config::open(path, true)
    }

    /// The same without a look at the other files: the operator's command may not be allowed to read a private key.
    pub fn load_alone(path: &Path) -> Result<Config, ConfigError> {
        Config::open(path, false)
    }

    fn open(path: &Path, with_files: bool) -> Result<Config, ConfigError> {
        let fail = |problems| ConfigError { file: path.to_owned(), problems };
        let text = std::fs::read_to_string(path).map_err(|error| {
            let message = format!("cannot be read: {error}; name the file with --config");
            fail(vec![Problem { line: None, key: String::new(), message }])
        })?;
        let (mut config, source) = Config::read(&text).map_err(fail)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let paths = [
            Some(&mut config.data_dir),
            config.egress.trust_anchors.as_mut(),
            config.egress.replies.as_mut(),
            config.dns.trust_anchor.as_mut(),
            config.standing.as_mut().map(|standing| &mut standing.signing_key),
        ]
        .into_iter()
        .flatten();
        let tls = config.tls.iter_mut().flat_map(|tls| [&mut tls.certificate, &mut tls.private_key]);
        let admin = config.admin.iter_mut().filter_map(|admin| admin.tls.as_mut());
        let admin = admin.flat_map(|tls| [&mut tls.certificate, &mut tls.private_key].into_iter().chain(&mut tls.client_ca));
        for path in paths.chain(tls).chain(admin) {
            *path = folder.join(&path);
        }
        let problems = if with_files { check::files(&config, &source) } else { Vec::new() };
        if !problems.is_empty() {
            return Err(fail(problems));
        }
        if with_files {
            config.shaped = shaping::Shaped::load(&config, folder)?;
            config.plan_texts = warmup::texts(&config, folder)?;
            config.climbs = warmup::load(&config, (path, &source))?;
        }
        if let Some(replies) = config.egress.replies.as_deref().filter(|_| with_files) {
            config.replies = Arc::new(Replies::load(replies, &config.shaped.providers)?);
        }
        Ok(config)
    }

    /// Reads and checks a file's text alone: paths stay as written, and nothing is looked for on disk.
    pub fn parse(file: &Path, text: &str) -> Result<Config, ConfigError> {
        let read = Config::read(text).map(|(config, _)| config);
        read.map_err(|problems| ConfigError { file: file.to_owned(), problems })
    }

    fn read(text: &str) -> Result<(Config, error::Source<'_>), Vec<Problem>> {
        let source = error::Source::parse(text).map_err(|problem| vec![problem])?;
        let config: Config = toml::from_str(text).map_err(|error| vec![source.refusal(&error)])?;
        let problems = check::meaning(&config, &source);
        if problems.is_empty() { Ok((config, source)) } else { Err(problems) }
    }

    /// The socket of the operator's command.
    pub fn admin_socket(&self) -> PathBuf {
        self.data_dir.join("admin.sock")
    }

    /// Names of pools; without any there is still `default`.
    pub fn pool_names(&self) -> impl Iterator<Item = &str> {
        let default = self.pool.is_empty().then_some(scheduler::DEFAULT_POOL);
        self.pool.iter().map(|pool| pool.name.as_str()).chain(default)
    }
}

#[cfg(test)]
mod tests;
