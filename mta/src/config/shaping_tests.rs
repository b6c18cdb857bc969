use super::*;
use scheduler::{Destination, Limits, WindowLimits};

/// Reads files as the layers of a configuration with the sources ip-a and ip-b and the pools default and otp.
fn read(files: &[&str]) -> Result<Shaped, String> {
    let own = files.iter().enumerate();
    let own = own.map(|(nth, text)| (PathBuf::from(format!("{}.toml", ["coop", "local", "third"][nth])), (*text).to_owned()));
    let names = |all: [&str; 2]| all.map(str::to_owned).to_vec();
    let names = Names { sources: names(["ip-a", "ip-b"]), pools: names(["default", "otp"]) };
    Shaped::of(Texts { files: own.collect(), kept: String::new() }, &names).map_err(|error| error.to_string())
}

fn limits(files: &[&str], (provider, site, domain): (&str, &str, &str), source: &str, pool: &str) -> Limits {
    let shaped = read(files).unwrap_or_else(|error| panic!("{error}"));
    let to = Destination { provider, site, domain: Some(domain) };
    shaped.shaping.limits(to, source, pool, WindowLimits { initial: 1, min: 1, max: 1 })
}

fn shown(limits: &Limits, knob: Knob) -> String {
    limits.get(knob).map_or_else(|| "nothing".to_owned(), |set| format!("{} {}", set.value, set.by))
}

#[test]
fn shipped_files_are_in_order_and_know_the_large_providers() {
    let shaped = Shaped::shipped();
    for (host, provider) in [
        ("gmail-smtp-in.l.google.com", "google"),
        ("aspmx3.googlemail.com", "google"),
        ("hotmail-com.olc.protection.outlook.com", "microsoft"),
        ("example-com.mail.protection.outlook.com", "microsoft365"),
        ("example-com.x-v1.mx.microsoft", "microsoft365"),
        ("mta5.am0.yahoodns.net", "yahoo"),
        ("mx01.mail.icloud.com", "apple"),
        ("mail.protonmail.ch", "proton"),
        ("in1-smtp.messagingengine.com", "fastmail"),
        ("mx00.emig.gmx.net", "gmx"),
        ("mx-ha02.web.de", "gmx"),
        ("mx00.kundenserver.de", "ionos"),
        ("mx1a1.comcast.net", "comcast"),
        ("smtp-in.orange.fr", "orange"),
        ("mxs.mail.ru", "mailru"),
        ("mx.yandex.ru", "yandex"),
        ("mx2.zoho.eu", "zoho"),
        ("mail.example.test", OTHER),
    ] {
        assert_eq!(&*shaped.providers.of(host), provider, "{host}");
    }
    let google = limits(&[], ("google", "gmail-smtp-in.l.google.com", "gmail.com"), "ip-a", "default");
    assert_eq!((google.window.max, google.messages_per_connection, google.provider_connections), (10, Some(50), Some(10)));
    let other = limits(&[], (OTHER, "mx.example.test", "example.test"), "ip-a", "default");
    assert_eq!((other.window.initial, other.window.max, other.messages_per_connection), (10, 20, Some(500)));
    assert_eq!(other.wait(Knob::DataDoneTimeout), Some(Duration::from_secs(600)));
    assert_eq!(shown(&other, Knob::Connections), "20 shipped");
}

#[test]
fn what_is_printed_can_be_read_again() {
    let printed = print_shipped();
    for setting in TABLES.iter().flat_map(|table| table.settings) {
        assert!(printed.contains(&format!("\n#{} = {}\n", setting.name, setting.example)), "{}", setting.name);
    }
    assert_eq!(read(&[&printed]).unwrap().providers, Shaped::shipped().providers);
}

#[test]
fn each_value_is_that_of_the_more_specific_rule_and_then_of_the_later_layer() {
    let coop = "
[[shape]]
connections = 30
burst = 7
[[shape]]
provider = 'google'
connections = 11
messages_per_connection = 60
[[shape]]
provider = 'google'
source = 'ip-a'
connections = 12
[[shape]]
provider = 'google'
pool = 'otp'
connections = 13
messages_per_connection = 70
[[shape]]
site = 'google.com'
reply_timeout = '1m'
greeting_timeout = '1m'
[[shape]]
site = 'l.google.com'
reply_timeout = '2m'
[[shape]]
domain = 'gmail.com'
tls = 'required'
";
    let local = "
[[shape]]
connections = 40
[[shape]]
provider = 'google'
connections = 14
";
    let to = ("google", "gmail-smtp-in.l.google.com", "gmail.com");
    let from = |source, pool| limits(&[coop, local], to, source, pool);
    // Of one place the later layer wins, and a local word about everywhere says nothing against one about a provider.
    assert_eq!(shown(&from("ip-b", "default"), Knob::Connections), "14 local.toml:6");
    assert_eq!(shown(&limits(&[coop, local], (OTHER, "mx", "a.test"), "ip-b", "default"), Knob::Connections), "40 local.toml:3");
    // A source before a pool before any; value by value.
    assert_eq!(shown(&from("ip-a", "otp"), Knob::Connections), "12 coop.toml:12");
    assert_eq!(shown(&from("ip-b", "otp"), Knob::Connections), "13 coop.toml:16");
    assert_eq!(shown(&from("ip-a", "otp"), Knob::MessagesPerConnection), "70 coop.toml:17");
    assert_eq!(shown(&from("ip-a", "default"), Knob::MessagesPerConnection), "60 coop.toml:8");
    // A domain before a site before a provider before everywhere; of two sites the longer name.
    assert_eq!(shown(&from("ip-a", "default"), Knob::Burst), "7 coop.toml:4");
    assert_eq!(shown(&from("ip-a", "default"), Knob::ReplyTimeout), "2m coop.toml:24");
    assert_eq!(shown(&from("ip-a", "default"), Knob::GreetingTimeout), "1m coop.toml:21");
    assert_eq!(from("ip-a", "default").tls, TlsNeed::Required);
    assert_eq!(shown(&from("ip-a", "default"), Knob::ProviderConnections), "10 shipped");
    // The whole name of a site, and a site of which any host fits.
    let site = "[[shape]]\nsite = 'a.test,b.test'\nconnections = 3\n[[shape]]\nsite = 'b.test'\nconnections = 4\n";
    assert_eq!(limits(&[site], (OTHER, "a.test,b.test", "x.test"), "ip-a", "default").window.max, 3);
    assert_eq!(limits(&[site], (OTHER, "a.test,mx.b.test", "x.test"), "ip-a", "default").window.max, 4);
    assert_eq!(limits(&[site], (OTHER, "notb.test", "x.test"), "ip-a", "default").window.max, 20);
}

#[test]
fn rates_have_a_burst_and_windows_no_more_than_their_connections() {
    let to = (OTHER, "mx", "a.test");
    let of = |text: &str| limits(&[text], to, "ip-a", "default");
    let rate = of("[[shape]]\nrate = '100/1m'\n").rate.unwrap();
    assert_eq!((rate.count, rate.per, rate.burst), (100, Duration::from_secs(60), 10));
    assert_eq!(of("[[shape]]\nrate = '3/1h'\n").rate.unwrap().burst, 1);
    assert_eq!(of("[[shape]]\nrate = '100/1m'\nconnect_rate = '50/1m'\nburst = 40\n").connect_rate.unwrap().burst, 40);
    let window = of("[[shape]]\nconnections = 2\n").window;
    assert_eq!((window.initial, window.max), (2, 2));
}

#[test]
fn operators_add_to_providers_and_make_new_ones() {
    let coop =
        "[[provider]]\nname = 'google'\nmx = ['mx.coop.test']\n[[provider]]\nname = 'mine'\nmx = ['Mine.test', 'comcast.net']\n";
    let shaped = read(&[coop, "[[shape]]\nprovider = 'mine'\nprovider_rate = '5/1s'\n"]).unwrap();
    for (host, provider) in
        [("a.mx.coop.test", "google"), ("aspmx.l.google.com", "google"), ("x.mine.test", "mine"), ("mx1.comcast.net", "mine")]
    {
        assert_eq!(&*shaped.providers.of(host), provider, "{host}");
    }
}

#[test]
fn a_wrong_file_is_refused_with_file_line_key_and_what_would_be_right() {
    for (text, told) in [
        (
            "[[shape]]\nconnection = 1\n",
            "local.toml:2: key `shape.connection`: no such setting, or it does not work yet; this table knows",
        ),
        ("[shape]\nconnections = 1\n", "local.toml:1: key `shape`: "),
        ("[[shape]]\nconnections = 0\n", "local.toml:2: key `shape.connections`: 0 is out of range; choose 1 to 1000"),
        ("[[shape]]\nconnections = 'many'\n", "local.toml:2: key `shape.connections`: invalid type"),
        (
            "[[shape]]\nconnections = 5\nwindow_initial = 6\n",
            "local.toml:3: key `shape.window_initial`: is more than the 5 of connections",
        ),
        (
            "[[shape]]\nrate = '100'\n",
            "local.toml:2: key `shape.rate`: \"100\" is not a number in a time; write it as \"100/1m\"",
        ),
        ("[[shape]]\nrate = '0/1m'\n", "local.toml:2: key `shape.rate`: 0 is out of range; choose 1 to 1000000"),
        ("[[shape]]\nrate = '5/100h'\n", "local.toml:2: key `shape.rate`: the time of \"5/100h\" is out of range"),
        ("[[shape]]\nrate = '10/1m'\nburst = 20\n", "local.toml:3: key `shape.burst`: is more than the 10 of rate"),
        (
            "[[shape]]\ndata_done_timeout = '10s'\n",
            "local.toml:2: key `shape.data_done_timeout`: is out of range; choose \"60s\" to \"30m\"",
        ),
        ("[[shape]]\nconnect_timeout = '5'\n", "local.toml:2: key `shape.connect_timeout`: \"5\" is not a duration"),
        (
            "[[shape]]\ntls = 'always'\n",
            "local.toml:2: key `shape.tls`: \"always\" is not known; choose one of opportunistic, required",
        ),
        (
            "[[shape]]\nprovider = 'goggle'\nburst = 1\n",
            "local.toml:2: key `shape.provider`: no provider is named \"goggle\"; there are: apple,",
        ),
        (
            "[[shape]]\nprovider = 'google'\ndomain = 'a.test'\nburst = 1\n",
            "local.toml:3: key `shape.domain`: a table speaks of one of",
        ),
        ("[[shape]]\nsite = 'a_b'\nburst = 1\n", "local.toml:2: key `shape.site`: \"a_b\" is not a host name"),
        (
            "[[shape]]\nsource = 'ip-c'\nburst = 1\n",
            "local.toml:2: key `shape.source`: no [[source]] is named \"ip-c\"; there are: ip-a, ip-b",
        ),
        (
            "[[shape]]\npool = 'x'\nburst = 1\n",
            "local.toml:2: key `shape.pool`: no [[pool]] is named \"x\"; there are: default, otp",
        ),
        (
            "[[shape]]\nsource = 'ip-a'\npool = 'otp'\nburst = 1\n",
            "local.toml:3: key `shape.pool`: a table speaks of a source or of a pool",
        ),
        ("[[shape]]\nprovider_rate = '1/1s'\n", "local.toml:2: key `shape.provider_rate`: counts a whole provider; name one"),
        (
            "[[shape]]\nprovider = 'other'\nprovider_connections = 1\n",
            "local.toml:3: key `shape.provider_connections`: counts a whole",
        ),
        ("[[shape]]\nprovider = 'google'\n", "local.toml:1: key `shape`: sets nothing"),
        (
            "[[shape]]\nburst = 1\n[[shape]]\nrate = '1/1s'\n",
            "local.toml:3: key `shape`: speaks of the same mail as a table before",
        ),
        ("[[provider]]\nname = 'other'\nmx = ['a.test']\n", "local.toml:2: key `provider.name`: other is whoever is in no list"),
        ("[[provider]]\nname = 'a b'\nmx = ['a.test']\n", "local.toml:2: key `provider.name`: is empty or has spaces"),
        ("[[provider]]\nname = 'a'\nmx = []\n", "local.toml:3: key `provider.mx`: is empty"),
        ("[[provider]]\nname = 'a'\nmx = ['com']\n", "local.toml:3: key `provider.mx`: \"com\" is a whole top-level domain"),
        (
            "[[provider]]\nname = 'a'\nmx = ['x.test']\n[[provider]]\nname = 'b'\nmx = ['X.test']\n",
            "local.toml:6: key `provider.mx`: \"x.test\" is another",
        ),
        ("[[provider]]\nname = 'a'\n", "local.toml:1: key `provider.mx`: is missing and has no default"),
        ("[[shape]\n", "local.toml:1: "),
    ] {
        let error = read(&["", text]).expect_err(text);
        assert!(error.starts_with(told), "{text}\n{error}\n{told}");
    }
}

#[test]
fn what_holds_is_listed_value_by_value_with_the_last_word_on_each() {
    let text = "hostname = 'a.test'\ndata_dir = 'd'\n[[listen]]\naddress = '127.0.0.1:1'\nrole = 'relay'\n\
                trusted_networks = ['127.0.0.0/8']\nmember = 'did:web:a.test'\n\
                [[source]]\nname = 'ip-a'\naddress = '192.0.2.1'\nehlo = 'a.test'\n\
                [[pool]]\nname = 'default'\nsources = ['ip-a']\nweights = [3]\n[class.otp]\npool = 'default'\n";
    let mut config = Config::parse(Path::new("mta.toml"), text).unwrap();
    config.shaped = read(&["[[shape]]\nconnections = 30\n", "[[shape]]\nconnections = 31\n"]).unwrap();
    let rows = crate::config::effective::effective(&config);
    let find = |of: &str, key: &str| {
        let row = rows.iter().find(|row| row.of == of && row.key == key).unwrap_or_else(|| panic!("{of} {key}"));
        format!("{} {}", row.value, row.by)
    };
    assert_eq!(find("everywhere", "connections"), "31 local.toml:2");
    assert_eq!(find("everywhere", "messages_per_connection"), "500 shipped");
    assert_eq!(find("provider yahoo", "messages_per_connection"), "20 shipped");
    assert_eq!(find("provider google", "mx"), "google.com googlemail.com providers");
    assert_eq!(find("pool default", "weights"), "3 mta.toml");
    assert_eq!(find("class otp", "pool"), "default mta.toml");
    assert!(rows.is_sorted() && rows.len() > 60);
}

#[test]
fn address_literals_are_keys_in_any_spelling() {
    let file =
        "[[shape]]\ndomain = \"[192.0.2.1]\"\nconnections = 3\n[[shape]]\nsite = \"[ipv6:2001:DB8:0::1]\"\nconnections = 4\n";
    let of = |site, domain| shown(&limits(&[file], (OTHER, site, domain), "ip-a", "default"), Knob::Connections);
    assert_eq!(of("[192.0.2.1]", "[192.0.2.1]"), "3 coop.toml:3");
    assert_eq!(of("[IPv6:2001:db8::1]", "[IPv6:2001:db8::1]"), "4 coop.toml:6");
    assert_eq!(
        of("[192.0.2.2]", "[192.0.2.2]"),
        shown(&limits(&[], (OTHER, "a.test", "a.test"), "ip-a", "default"), Knob::Connections)
    );
    for name in ["[192.0.2.256]", "[192.0.2.1", "[2001:db8::1]", "[]"] {
        let error = read(&[&format!("[[shape]]\ndomain = \"{name}\"\nconnections = 3\n")]).unwrap_err();
        assert!(error.contains("coop.toml:2") && error.contains("[IPv6:2001:db8::1]"), "{error}");
    }
}
