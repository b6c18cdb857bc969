//! The DNS: zones of all rows below a root of our own, signed by Knot and served by it, with two Unbounds before it: one that
//! checks signatures and says so by the AD bit, and one that only passes them on.
//!
//! Zones are signed on disk before they are served, so that a row may spoil what was signed.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

use super::case::{Case, Place, Signing, Tweak};
use super::servers::Servers;
use crate::process::{self, Running};

/// Where Unbound also listens, for programs that can be told an address and no port.
pub(super) const PLAIN_PORT_ADDRESS: &str = "127.77.255.53";

/// Knot and the Unbounds; stopped when dropped.
pub(super) struct Names {
    _knot: Running,
    _unbounds: [Running; 2],
    /// Checks signatures.
    pub(super) validating: SocketAddr,
    /// Passes signatures on.
    pub(super) passing: SocketAddr,
    /// DNSKEY records of our root.
    pub(super) anchor: PathBuf,
}

/// A zone in the making.
struct Zone {
    name: String,
    signing: Signing,
    lines: String,
    tweaks: Vec<Tweak>,
    /// Knot knows of it and has no data.
    missing: bool,
}

impl Zone {
    fn new(name: &str, signing: Signing) -> Self {
        let lines = "$TTL 300\n@ SOA ns.test. root.test. 1 3600 600 86400 60\n@ NS ns.test.\n".to_owned();
        Zone { name: name.to_owned(), signing, lines, tweaks: Vec::new(), missing: false }
    }

    fn line(&mut self, line: &str) {
        let _ = writeln!(self.lines, "{line}");
    }
}

impl Names {
    pub(super) fn start(directory: &Path, cases: &[Case], servers: &Servers, port: u16) -> Result<Self> {
        let directory = directory.join("dns");
        for name in ["kasp", "plain", "signed"] {
            fs::create_dir_all(directory.join(name))?;
        }
        let mut zones = zones(cases, servers, port);
        let knot = process::free_address()?;
        let (validating, passing) = (process::free_address()?, process::free_address()?);
        let mut parent = Zone::new("test", Signing::EcdsaP256);
        parent.line("ns A 127.0.0.1");
        // One to sign by, which knotd must not see: it would sign again what a row has spoiled.
        let config = directory.join("sign.conf");
        zones.push(Zone::new(".", Signing::EcdsaP256));
        zones.push(Zone::new("test", Signing::EcdsaP256));
        fs::write(&config, knot_conf(&directory, knot, &zones, true))?;
        let serving = directory.join("knot.conf");
        fs::write(&serving, knot_conf(&directory, knot, &zones, false))?;
        zones.truncate(zones.len() - 2);
        for zone in &zones {
            let ds = sign(&directory, &config, zone)?;
            if zone.name.matches('.').count() == 1 {
                parent.line(&format!("{}. NS ns.test.", zone.name));
                ds.iter().for_each(|ds| parent.line(ds));
            }
        }
        let mut root = Zone::new(".", Signing::EcdsaP256);
        root.line("test. NS ns.test.");
        for ds in sign(&directory, &config, &parent)? {
            root.line(&ds);
        }
        sign(&directory, &config, &root)?;
        let anchor = directory.join("root.key");
        let keys = process::output(Command::new("keymgr").arg("-c").arg(&config).args([".", "dnskey"]))?;
        // "DNSKEY 257 …" behind the name, with or without a TTL.
        let keys = keys.lines().filter_map(|line| line.split_once("DNSKEY")).map(|(_, key)| format!(". 3600 IN DNSKEY{key}\n"));
        fs::write(&anchor, keys.collect::<String>())?;

        let mut command = Command::new(process::find("knotd").context("knotd is not installed")?);
        command.arg("-c").arg(&serving);
        let knot_running = Running::start("knotd", command, &directory.join("knot.log"))?;
        process::wait_for_listener(knot, Duration::from_secs(10))?;
        let names: Vec<String> = zones.iter().map(|zone| zone.name.clone()).chain(["test".to_owned(), ".".to_owned()]).collect();
        let unbound = |name: &str, address: SocketAddr, modules: &str, more: &str| -> Result<Running> {
            let config = directory.join(format!("{name}.conf"));
            fs::write(&config, unbound_conf(&directory, address, modules, more, knot, &names))?;
            let mut command = Command::new(process::find("unbound").context("unbound is not installed")?);
            command.arg("-d").arg("-c").arg(&config);
            let running = Running::start("unbound", command, &directory.join(format!("{name}.log")))?;
            process::wait_for_listener(address, Duration::from_secs(10))?;
            Ok(running)
        };
        let more = format!("    trust-anchor-file: \"{}\"\n    interface: {PLAIN_PORT_ADDRESS}@53\n", anchor.display());
        let unbounds =
            [unbound("validating", validating, "validator iterator", &more)?, unbound("passing", passing, "iterator", "")?];
        Ok(Names { _knot: knot_running, _unbounds: unbounds, validating, passing, anchor })
    }
}

fn zones(cases: &[Case], servers: &Servers, port: u16) -> Vec<Zone> {
    let (mut signed, mut plain) = (Zone::new("signed.test", Signing::EcdsaP256), Zone::new("plain.test", Signing::Unsigned));
    let mut zones = Vec::new();
    for case in cases {
        let domain = case.domain();
        let mut own = Zone::new(&domain, case.zone);
        own.tweaks.clone_from(&case.tweaks);
        let hosts = match case.shares {
            Some(name) => cases.iter().find(|other| other.name == name),
            None => Some(case),
        };
        if let Some(hosts) = hosts.filter(|_| case.has_mx) {
            (1..=hosts.hosts.len()).for_each(|nth| own.line(&format!("@ MX {}0 {}.", nth, hosts.mx_name(nth))));
        }
        for (nth, host) in case.hosts.iter().enumerate().map(|(nth, host)| (nth + 1, host)) {
            let Some(server) = servers.get(case.name, nth) else { continue };
            let (real, named) = (case.host_name(nth), case.mx_name(nth));
            let place = match host.place {
                Place::Own => &mut own,
                Place::Signed => &mut signed,
                Place::Plain => &mut plain,
            };
            place.line(&format!("{real}. A {}", server.address));
            let below = format!("_tcp.{real}");
            let child = nth == 1 && case.tweaks.iter().any(|it| matches!(it, Tweak::Servfail | Tweak::UnsignedTlsa));
            if child {
                place.line(&format!("{below}. NS ns.test."));
                let mut child = Zone::new(&below, Signing::Unsigned);
                child.missing = case.tweaks.contains(&Tweak::Servfail);
                server.tlsa.iter().for_each(|record| child.line(&format!("_{port} {record}")));
                zones.push(child);
            } else if let Some(beside) = host.tlsa_alias {
                let target = match beside {
                    Place::Own => format!("tlsa{nth}.{domain}"),
                    Place::Signed => format!("{}-tlsa{nth}.signed.test", case.name),
                    Place::Plain => format!("{}-tlsa{nth}.plain.test", case.name),
                };
                place.line(&format!("_{port}.{below}. CNAME {target}."));
                let records = server.tlsa.iter().map(|record| format!("{target}. {record}"));
                match beside {
                    Place::Own => records.for_each(|line| own.line(&line)),
                    Place::Signed => records.for_each(|line| signed.line(&line)),
                    Place::Plain => records.for_each(|line| plain.line(&line)),
                }
            } else if !host.tlsa_at_alias {
                server.tlsa.iter().for_each(|record| place.line(&format!("_{port}.{below}. {record}")));
            }
            if host.alias {
                own.line(&format!("{named}. CNAME {real}."));
                if host.tlsa_at_alias {
                    server.tlsa.iter().for_each(|record| own.line(&format!("_{port}._tcp.{named}. {record}")));
                }
            }
        }
        for line in &case.lines {
            own.line(&line.replace("{domain}", &domain));
        }
        zones.push(own);
    }
    zones.extend([signed, plain]);
    zones
}

/// Signs a zone, spoils it as its row wants, and tells what its parent must say of it.
fn sign(directory: &Path, config: &Path, zone: &Zone) -> Result<Vec<String>> {
    if zone.missing {
        return Ok(Vec::new());
    }
    let file = file_name(&zone.name);
    fs::write(directory.join("plain").join(&file), format!("$ORIGIN {}\n{}", dotted(&zone.name), zone.lines))?;
    if zone.signing == Signing::Unsigned {
        fs::copy(directory.join("plain").join(&file), directory.join("signed").join(&file))?;
        return Ok(Vec::new());
    }
    let mut command = Command::new("kzonesign");
    command.arg("-c").arg(config).arg("-o").arg(directory.join("signed"));
    if zone.tweaks.contains(&Tweak::Expired) {
        let month_ago = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() - 60 * 86_400;
        command.args(["-t", &month_ago.to_string()]);
    }
    process::output(command.arg(&zone.name)).with_context(|| format!("sign {}", zone.name))?;
    let signed = directory.join("signed").join(&file);
    let text = fs::read_to_string(&signed)?;
    fs::write(&signed, zone.tweaks.iter().fold(text, |text, tweak| spoil(&text, *tweak)))?;
    if zone.signing == Signing::Island {
        return Ok(Vec::new());
    }
    let all = process::output(Command::new("keymgr").arg("-c").arg(config).args([&zone.name, "ds"]))?;
    let sha256 = all.lines().filter(|line| line.split_whitespace().nth(4) == Some("2"));
    Ok(sha256.map(|ds| zone.tweaks.iter().fold(ds.to_owned(), |ds, tweak| spoil_ds(&ds, *tweak))).collect())
}

fn spoil(text: &str, tweak: Tweak) -> String {
    let kind = |line: &str| line.split_whitespace().nth(2).unwrap_or_default().to_owned();
    let mut out = String::new();
    for line in text.lines() {
        match tweak {
            Tweak::Forge(forged) if kind(line) == forged => match forged {
                // Its preference; the last digit of anything else.
                "MX" => out.push_str(&line.replace("\t10 ", "\t11 ")),
                _ => out.push_str(&other_end(line)),
            },
            Tweak::NoDenial if ["NSEC", "NSEC3"].contains(&&*kind(line)) => continue,
            Tweak::NoDenial if line.contains("RRSIG\tNSEC ") => continue,
            _ => out.push_str(line),
        }
        out.push('\n');
    }
    out
}

fn spoil_ds(ds: &str, tweak: Tweak) -> String {
    match tweak {
        Tweak::WrongDs => other_end(ds),
        Tweak::UnknownDs => {
            let mut words: Vec<&str> = ds.split_whitespace().collect();
            words[3] = "200";
            words.join(" ")
        }
        _ => ds.to_owned(),
    }
}

/// The same with another last digit.
fn other_end(line: &str) -> String {
    let (rest, last) = line.split_at(line.len() - 1);
    format!("{rest}{}", if last == "7" { "5" } else { "7" })
}

fn dotted(name: &str) -> String {
    if name == "." { name.to_owned() } else { format!("{name}.") }
}

fn file_name(name: &str) -> String {
    if name == "." { "root.zone".to_owned() } else { format!("{name}.zone") }
}

fn knot_conf(directory: &Path, address: SocketAddr, zones: &[Zone], to_sign: bool) -> String {
    let at = directory.display();
    let mut text = format!(
        "server:\n    listen: {}@{}\n    rundir: {at}\n    pidfile: knot.pid\ndatabase:\n    storage: {at}/kasp\npolicy:\n",
        address.ip(),
        address.port()
    );
    let mut policies: Vec<String> = zones.iter().map(|zone| policy(zone.signing)).collect();
    policies.sort();
    policies.dedup();
    for policy in policies {
        let (algorithm, iterations) = policy.split_once('/').unwrap_or((&policy, "0"));
        let nsec3 = if algorithm.contains("nsec3") || policy.contains('/') { "on" } else { "off" };
        let _ = write!(
            text,
            "  - id: {}\n    algorithm: {algorithm}\n    single-type-signing: on\n    nsec3: {nsec3}\n    nsec3-iterations: {iterations}\n    \
             ksk-lifetime: 0\n",
            policy.replace('/', "-"),
        );
    }
    text.push_str("zone:\n");
    for zone in zones {
        let policy = policy(zone.signing).replace('/', "-");
        let (name, file) = (dotted(&zone.name), file_name(&zone.name));
        let _ = match to_sign {
            true => {
                write!(
                    text,
                    "  - domain: {name}\n    file: {at}/plain/{file}\n    dnssec-signing: on\n    dnssec-policy: {policy}\n"
                )
            }
            false => write!(text, "  - domain: {name}\n    file: {at}/signed/{file}\n"),
        };
    }
    text
}

/// Knot's name of an algorithm; behind a slash the iterations of NSEC3.
fn policy(signing: Signing) -> String {
    match signing {
        Signing::EcdsaP256 | Signing::Island | Signing::Unsigned => "ecdsap256sha256".to_owned(),
        Signing::RsaSha256 => "rsasha256".to_owned(),
        Signing::RsaSha512 => "rsasha512".to_owned(),
        Signing::Ed25519 => "ed25519".to_owned(),
        Signing::Ed448 => "ed448".to_owned(),
        Signing::RsaSha1Nsec3 => "rsasha1-nsec3-sha1".to_owned(),
        Signing::RsaSha1 => "rsasha1".to_owned(),
        Signing::EcdsaP384 => "ecdsap384sha384".to_owned(),
        Signing::Nsec3(iterations) => format!("ecdsap256sha256/{iterations}"),
    }
}

fn unbound_conf(directory: &Path, address: SocketAddr, modules: &str, more: &str, knot: SocketAddr, zones: &[String]) -> String {
    let at = directory.display();
    let mut text = format!(
        "server:\n    directory: \"{at}\"\n    chroot: \"\"\n    username: \"\"\n    pidfile: \"\"\n    use-syslog: no\n    \
         interface: {}@{}\n    access-control: 127.0.0.0/8 allow\n    do-not-query-localhost: no\n    do-ip6: no\n    \
         module-config: \"{modules}\"\n    qname-minimisation: no\n    local-zone: \"test.\" nodefault\n    val-log-level: 2\n{more}\
         remote-control:\n    control-enable: no\n",
        address.ip(),
        address.port()
    );
    let distinct: BTreeSet<_> = zones.iter().collect();
    for zone in distinct {
        let (ip, port) = (knot.ip(), knot.port());
        let _ = write!(text, "stub-zone:\n    name: \"{}\"\n    stub-addr: {ip}@{port}\n", dotted(zone));
    }
    text
}
