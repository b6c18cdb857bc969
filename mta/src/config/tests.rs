//! A table of wrong files and what is said about each.

use super::*;

/// Every table of the contract, and every line a whole statement: tests change one of them.
const GOOD: &str = r#"hostname = "relay.example.test"
data_dir = "data"
[[listen]]
address = "127.0.0.1:2587"
role = "submission"
[[listen]]
address = "127.0.0.1:2525"
role = "relay"
trusted_networks = ["127.0.0.0/8"]
member = "did:web:host.example.test"
[tls]
certificate = "cert.pem"
private_key = "key.pem"
[dns]
nameservers = ["127.0.0.53:53"]
dnssec = "trust-ad"
[signing]
domain = "relay.example.test"
[egress]
port = 25
[[source]]
name = "ip-a"
address = "127.0.0.2"
ehlo = "a.relay.example.test"
[[pool]]
name = "default"
sources = ["ip-a"]
[[tier]]
name = "default"
messages_per_hour = 1000
messages_per_day = 5000
[labeler]
url = "http://127.0.0.1:3100"
did = "did:web:labeler.example.test"
poll_interval = "30s"
stale_after = "6h"
[identity]
plc_url = "http://127.0.0.1:12582"
[admin]
address = "127.0.0.1:8025"
"#;

fn check_refused(from: &str, to: &str, says: &str) {
    assert_eq!(GOOD.matches(from).count(), 1, "{from:?} occurs once");
    let text = GOOD.replacen(from, to, 1);
    let error = match Config::parse(Path::new("mta.toml"), &text) {
        Ok(_) => panic!("{to:?} was accepted"),
        Err(error) => error.to_string(),
    };
    assert_eq!(error, says, "for {to:?}");
}

#[test]
fn reports_about_tls_need_a_signature_and_an_address_of_its_domain() {
    let from = "key `tls_reports.from`";
    for (signed, lines, says) in [
        (false, "from = \"r@relay.example.test\"", format!("{from}: needs signing.domain: reports without")),
        (true, "from = \"r@other.example\"", format!("{from}: is not an address of signing.domain; use tls-")),
        (true, "from = \"example\"", format!("{from}: is not a mail address; use tls-reports@relay.example.test")),
        (true, "contact = \"a@b\"", "key `tls_reports.contact`: means nothing without tls_reports.from".to_owned()),
        (true, "from = \"r@Relay.Example.test\"\ncontact = \"\"", "key `tls_reports.contact`: is empty".to_owned()),
        (true, "from = \"r@Relay.Example.test\"\ncontact = \"me\"", String::new()),
    ] {
        let mut text = GOOD.replacen("[identity]", &format!("[tls_reports]\n{lines}\n[identity]"), 1);
        if !signed {
            text = text.replacen("domain = \"relay.example.test\"", "", 1);
        }
        let found = Config::parse(Path::new("mta.toml"), &text).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(found.contains(&says) && found.is_empty() == says.is_empty(), "{lines}: {found}");
    }
}

#[test]
fn a_good_file_is_accepted() {
    let config = Config::parse(Path::new("mta.toml"), GOOD).unwrap();
    assert_eq!(config.listen[1].role, Role::Relay);
    assert_eq!(config.labeler.as_ref().unwrap().poll_interval, Duration::from_secs(30));
    assert_eq!(config.source[0].ehlo, "a.relay.example.test");
    assert_eq!(config.admin_socket(), Path::new("data/admin.sock"));
    for url in ["https://labeler.example", "https://labeler.example:8443/base/", "http://[::1]:3100", "http://localhost:3100"] {
        Config::parse(Path::new("mta.toml"), &GOOD.replace("http://127.0.0.1:3100", url)).unwrap();
    }
}

#[test]
fn a_wrong_value_is_named_with_its_line() {
    let cases = [
        ("port = 25", "port = \"x\"", "mta.toml:20: key `egress.port`: invalid type: string \"x\", expected u16"),
        ("port = 25", "port = 70000", "mta.toml:20: key `egress.port`: invalid value: integer `70000`, expected u16"),
        ("port = 25", "port = 0", "mta.toml:20: key `egress.port`: must not be 0; receiving hosts listen on 25"),
        (
            "port = 25",
            "prot = 25",
            "mta.toml:20: key `egress.prot`: no such setting, or it does not work yet; this table knows `port`, \
             `allow_private_addresses`, `trust_anchors`, `replies`, `sts_port`",
        ),
        ("data_dir = \"data\"\n", "", "mta.toml: key `data_dir`: is missing and has no default"),
        ("ehlo = \"a.relay.example.test\"\n", "", "mta.toml:21: key `source.ehlo`: is missing and has no default"),
        (
            "[admin]",
            "[log]\nrecipients = \"none\"\n[admin]",
            "mta.toml:40: key `log.recipients`: \"none\" is not known; choose one of domain, hash, whole",
        ),
        (
            "[admin]",
            "[log]\nformat = \"xml\"\n[admin]",
            "mta.toml:40: key `log.format`: \"xml\" is not known; choose one of auto, text, json",
        ),
        ("[admin]", "[[admin]]", "mta.toml:39: key `admin`: invalid type: map, expected a string"),
        (
            "[admin]",
            "[warming]",
            "mta.toml:39: key `warming`: no such setting, or it does not work yet; this table knows `hostname`, `data_dir`, \
          `io`, `threads`, `connections_max`, `message_bytes_max`, `recipients_max`, `future_release_max`, `deliver_by_min`, `drain_secs`, `listen`, `tls`, `dns`, `signing`, `class`, `egress`, `tls_reports`, `source`, `pool`, \
          `tier`, `shaping`, `dnsbl`, `warmup`, `climb`, `duplicates`, `labeler`, `standing`, `identity`, `events`, `log`, `admin`",
        ),
        (
            "[admin]",
            "[standing]\ndid = \"did:plc:x\"\nsigning_key = \"k\"\n[admin]",
            "mta.toml:40: key `standing.did`: \"did:plc:x\" is not a did:web of a host, such as \"did:web:relay.example\"",
        ),
        (
            "[admin]",
            "[standing]\ndid = \"did:web:a.example\"\nsigning_key = \"k\"\nstale_after = \"1m\"\n[admin]",
            "mta.toml:42: key `standing.stale_after`: is shorter than read_interval, so doubts would end between two reads; make it longer",
        ),
        (
            "[admin]",
            "[standing]\ndid = \"did:web:a.example\"\nsigning_key = \"k\"\non_pause = \"hold\"\n[admin]",
            "mta.toml:42: key `standing.on_pause`: \"hold\" is not known; choose one of defer, show",
        ),
        ("port = 25", "port = ", "mta.toml:20: string values must be quoted, expected literal string"),
        (
            "\"submission\"",
            "\"inbound\"",
            "mta.toml:5: key `listen.role`: \"inbound\" does not work yet; what works: submission, submissions, relay",
        ),
        (
            "\"submission\"",
            "\"smtp\"",
            "mta.toml:5: key `listen.role`: \"smtp\" is not known; choose one of submission, submissions, relay",
        ),
        (
            "\"30s\"",
            "\"30 parsecs\"",
            "mta.toml:35: key `labeler.poll_interval`: \"30 parsecs\" is not a duration; write it as \"30s\", \"10m\" or \"6h\"",
        ),
        ("\"30s\"", "\"0s\"", "mta.toml:35: key `labeler.poll_interval`: must be longer than zero, such as \"30s\""),
        (
            "\"6h\"",
            "\"10s\"",
            "mta.toml:36: key `labeler.stale_after`: is shorter than poll_interval, so labels would be stale between two polls; make it longer",
        ),
        (
            "127.0.0.0/8",
            "127.0.0.0/33",
            "mta.toml:9: key `listen.trusted_networks`: \"127.0.0.0/33\" is not a network; write it as \"192.0.2.0/24\" or \"2001:db8::/32\"",
        ),
        (
            "127.0.0.0/8",
            "127.0.0.1/8",
            "mta.toml:9: key `listen.trusted_networks`: \"127.0.0.1/8\" has bits set past its prefix; write \"127.0.0.0/8\" or \"127.0.0.1/32\"",
        ),
        (
            "127.0.0.53:53",
            "192.0.2.53:53",
            "mta.toml:16: key `dns.dnssec`: needs name servers on loopback: anybody between here and 192.0.2.53:53 could set the AD bit; write \"validate\"",
        ),
        (
            "\"trust-ad\"",
            "\"trust-ad\"\ntrust_anchor = \"root.key\"",
            "mta.toml:17: key `dns.trust_anchor`: is used only when this daemon checks signatures; set dnssec = \"validate\"",
        ),
        (
            "127.0.0.53:53",
            "127.0.0.53",
            "mta.toml:15: key `dns.nameservers`: \"127.0.0.53\" is not an address with a port; write it as \"192.0.2.1:587\" or \"[2001:db8::1]:587\"",
        ),
        (
            "\"relay.example.test\"\ndata",
            "\"relay_1\"\ndata",
            "mta.toml:1: key `hostname`: \"relay_1\" is not a host name: letters, digits and hyphens between dots, other scripts as xn--…",
        ),
    ];
    for (from, to, says) in cases {
        check_refused(from, to, says);
    }
}

#[test]
fn settings_that_do_not_fit_together_are_named_with_their_line() {
    let cases = [
        (
            "sources = [\"ip-a\"]",
            "sources = [\"ip-a\", \"ip-b\"]",
            "mta.toml:27: key `pool.sources`: no [[source]] is named \"ip-b\"; there are: ip-a",
        ),
        (
            "sources = [\"ip-a\"]",
            "sources = [\"ip-a\"]\nweights = [1, 2]",
            "mta.toml:28: key `pool.weights`: has 2 numbers for 1 sources; write one for each, in their order",
        ),
        (
            "sources = [\"ip-a\"]",
            "sources = [\"ip-a\"]\nweights = [0]",
            "mta.toml:28: key `pool.weights`: lets no source send; give at least one more than 0",
        ),
        (
            "sources = [\"ip-a\"]",
            "sources = [\"ip-a\"]\nweights = [1001]",
            "mta.toml:28: key `pool.weights`: 1001 is out of range; choose 0 to 1000",
        ),
        (
            "sources = [\"ip-a\"]",
            "sources = [\"ip-a\"]\n[class.otp]\npool = \"fast\"",
            "mta.toml:29: key `class.otp.pool`: no [[pool]] is named \"fast\"; there are: default",
        ),
        (
            "sources = [\"ip-a\"]",
            "sources = [\"ip-a\"]\n[dnsbl]\nzones = [\"bl_.test\"]",
            "mta.toml:29: key `dnsbl.zones`: \"bl_.test\" is not a host name: letters, digits and hyphens between dots, other scripts as xn--…",
        ),
        (
            "sources = [\"ip-a\"]",
            "sources = [\"ip-a\"]\n[dnsbl]\ninterval = \"5s\"",
            "mta.toml:29: key `dnsbl.interval`: is out of range; choose \"1m\" to \"24h\"",
        ),
        (
            "sources = [\"ip-a\"]",
            "sources = [\"ip-a\"]\n[shaping]\nfiles = [\"a.toml\", \"a.toml\"]",
            "mta.toml:29: key `shaping.files`: a.toml is listed twice",
        ),
        (
            "127.0.0.1:2525",
            "127.0.0.1:2587",
            "mta.toml:7: key `listen.address`: 127.0.0.1:2587 has a listener already; give this one another port",
        ),
        (
            "127.0.0.1:8025",
            "127.0.0.1:2525",
            "mta.toml:40: key `admin.address`: 127.0.0.1:2525 is a [[listen]] address too; give one of them another port",
        ),
        (
            "[tls]\ncertificate = \"cert.pem\"\nprivate_key = \"key.pem\"\n",
            "",
            "mta.toml:5: key `listen.role`: role submission needs a [tls] table with certificate and private_key",
        ),
        (
            "trusted_networks = [\"127.0.0.0/8\"]\n",
            "",
            "mta.toml:6: key `listen.trusted_networks`: role relay needs it: who may connect, such as [\"127.0.0.0/8\"]",
        ),
        (
            "did:web:host.example.test",
            "host.example.test",
            "mta.toml:10: key `listen.member`: \"host.example.test\" is not a DID; it looks like did:plc:… or did:web:host.example",
        ),
        (
            "\"relay\"",
            "\"submissions\"",
            "mta.toml:9: key `listen.trusted_networks`: only role relay uses it; role submissions asks for AUTH: remove the line\n\
          mta.toml:10: key `listen.member`: only role relay uses it; role submissions asks for AUTH: remove the line",
        ),
        (
            "http://127.0.0.1:3100",
            "http://labeler.example",
            "mta.toml:33: key `labeler.url`: http is for loopback only; use https",
        ),
        (
            "http://127.0.0.1:3100",
            "https://user:secret@labeler.example",
            "mta.toml:33: key `labeler.url`: \"https://user:secret@labeler.example\" is not a URL, such as \"https://labeler.example\"",
        ),
        ("http://127.0.0.1:12582", "ftp://[::1]:12582/x", "mta.toml:38: key `identity.plc_url`: ftp is not supported; use https"),
        (
            "http://127.0.0.1:12582",
            "127.0.0.1:12582",
            "mta.toml:38: key `identity.plc_url`: \"127.0.0.1:12582\" is not a URL, such as \"https://labeler.example\"",
        ),
        (
            "name = \"default\"\nsources",
            "name = \"bulk\"\nsources",
            "mta.toml:26: key `pool.name`: no pool is named \"default\", by which mail goes that nothing gives another one; name one so",
        ),
        (
            "[[source]]\nname = \"ip-a\"\naddress = \"127.0.0.2\"\nehlo = \"a.relay.example.test\"\n[[pool]]\nname = \"default\"\nsources = [\"ip-a\"]\n",
            "",
            "mta.toml: key `source`: there is no [[source]] table; add one with the name, address and ehlo that mail leaves with",
        ),
    ];
    for (from, to, says) in cases {
        check_refused(from, to, says);
    }
}

#[test]
fn impossible_tiers_are_named_with_their_line() {
    let hourly = "messages_per_hour = 1000\n";
    let cases = [
        (
            "name = \"default\"\nmessages",
            "name = \"a b\"\nmessages",
            "mta.toml:29: key `tier.name`: is empty or has spaces in it; use a word, such as \"default\"",
        ),
        (
            hourly,
            "messages_per_hour = 0\n",
            "mta.toml:30: key `tier.messages_per_hour`: must not be 0; `tradewind member suspend` stops a member's mail",
        ),
        (
            hourly,
            "messages_per_hour = -1\n",
            "mta.toml:30: key `tier.messages_per_hour`: invalid value: integer `-1`, expected u64",
        ),
        (hourly, "weight = 5000\n", "mta.toml:30: key `tier.weight`: 5000 is out of range; choose 1 to 1000"),
        (
            hourly,
            "burst = 10\n",
            "mta.toml:30: key `tier.burst`: means nothing without messages_per_hour; add that, or remove this line",
        ),
        (
            hourly,
            "messages_per_hour = 1000\nburst = 6000\n",
            "mta.toml:31: key `tier.burst`: is more than the 5000 of messages_per_day; choose at most that",
        ),
        (
            "[labeler]",
            "[[tier]]\nname = \"default\"\n[labeler]",
            "mta.toml:33: key `tier.name`: \"default\" names another tier already; names are unique",
        ),
        (
            "[labeler]",
            "[events]\nkeep = \"for ever\"\n[labeler]",
            "mta.toml:33: key `events.keep`: \"for ever\" does not say how many or how long; write \"500000\", \"30d\" or \"500000 30d\"",
        ),
        (
            "[labeler]",
            "[events]\nkeep = \"10\"\n[labeler]",
            "mta.toml:33: key `events.keep`: 10 is out of range; choose 1000 to 100000000",
        ),
        (
            "[labeler]",
            "[duplicates]\nwindow = \"48h\"\n[labeler]",
            "mta.toml:33: key `duplicates.window`: is longer than a client tries; choose at most \"24h\"",
        ),
    ];
    for (from, to, says) in cases {
        check_refused(from, to, says);
    }
}

#[test]
fn paths_are_relative_to_the_file_and_must_be_there() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mta.toml");
    let missing = Config::load(&file).unwrap_err().to_string();
    assert!(missing.starts_with(&format!("{}: cannot be read", file.display())), "{missing}");

    std::fs::write(&file, GOOD).unwrap();
    std::fs::write(folder.path().join("cert.pem"), "").unwrap();
    let missing = Config::load(&file).unwrap_err().to_string();
    let key = folder.path().join("key.pem");
    assert!(missing.starts_with(&format!("{}:13: key `tls.private_key`: {}", file.display(), key.display())), "{missing}");

    std::fs::write(&key, "").unwrap();
    let config = Config::load(&file).unwrap();
    assert_eq!(config.data_dir, folder.path().join("data"));
    assert_eq!(config.tls.unwrap().private_key, key);
}

#[test]
fn events_are_kept_by_number_by_age_or_by_both() {
    let day = Duration::from_secs(86_400);
    for (text, count, age) in [
        ("500000", 500_000, None),
        ("30d", Keep::COUNT_MAX, Some(30 * day)),
        ("20000 36h", 20_000, Some(36 * day / 24)),
        ("7d 5000", 5_000, Some(7 * day)),
    ] {
        assert_eq!(text.parse(), Ok(Keep { count, age }));
    }
    for text in ["", "5 6", "1d 2d", "soon", "1.5", "-3"] {
        assert!(text.parse::<Keep>().is_err(), "{text}");
    }
}

#[test]
fn a_file_of_replies_is_read_with_the_settings_and_its_errors_name_it() {
    let folder = tempfile::tempdir().unwrap();
    let (settings, replies) = (folder.path().join("mta.toml"), folder.path().join("replies.toml"));
    let text = "hostname = \"relay.example.test\"\ndata_dir = \"data\"\n[egress]\nreplies = \"replies.toml\"\n\
                [[source]]\nname = \"a\"\naddress = \"192.0.2.7\"\nehlo = \"a.example.test\"\n\
                [[listen]]\naddress = \"127.0.0.1:2525\"\nrole = \"relay\"\ntrusted_networks = [\"127.0.0.0/8\"]\n\
                member = \"did:web:host.example.test\"\n";
    std::fs::write(&settings, text).unwrap();
    let entry = "[[reply]]\nname = \"ours\"\ntext = \"go away, please\"\nclass = \"policy\"\n";
    std::fs::write(&replies, entry).unwrap();
    let config = Config::load(&settings).unwrap_or_else(|error| panic!("{error}"));
    assert_ne!(config.replies, crate::egress::replies::Replies::shipped(), "a reload sees that it differs");
    std::fs::write(&replies, entry.replace("policy", "police")).unwrap();
    let error = Config::load(&settings).unwrap_err();
    assert_eq!((error.file, error.problems[0].line, error.problems[0].key.as_str()), (replies.clone(), Some(4), "reply.class"));
    std::fs::remove_file(&replies).unwrap();
    assert!(Config::load(&settings).unwrap_err().to_string().contains("replies.toml: cannot be read"));
    // The operator's command may not be allowed to read it, and need not.
    assert!(Config::load_alone(&settings).is_ok());
}

#[test]
fn an_admin_port_that_others_reach_needs_tls_or_a_word() {
    let from = "address = \"127.0.0.1:8025\"";
    let says = "can be reached by others, and operators' tokens would travel in clear text; add [admin.tls] with certificate and \
                private_key, or choose 127.0.0.1, or set allow_clear_text = true if the network is private";
    for open in ["0.0.0.0:8025", "192.0.2.1:8025"] {
        check_refused(from, &format!("address = \"{open}\""), &format!("mta.toml:40: key `admin.address`: {open} {says}"));
    }
    let tls = "[admin.tls]\ncertificate = \"c\"\nprivate_key = \"k\"\nclient_ca = \"ca\"";
    for more in ["allow_clear_text = true", tls] {
        let text = GOOD.replacen(from, &format!("address = \"[::]:8025\"\n{more}"), 1);
        Config::parse(Path::new("mta.toml"), &text).unwrap();
    }
}
