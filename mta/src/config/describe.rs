//! The annotated example of every setting, made from the doc comments.

use std::fmt::Write;

use super::warmup::{ClimbTable, Warmup};
use super::{
    Admin, AdminTls, Config, Dns, Dnsbl, Duplicates, Egress, Events, Identity, Labeler, Listen, Log, Notice, Otp, Pool, Presence,
    Shaping, Signing, Source, Standing, Table, Tier, Tls, TlsReports, Transactional,
};

/// All tables, in the order of the file.
pub const TABLES: [Table; 25] = [
    Config::TABLE,
    Listen::TABLE,
    Tls::TABLE,
    Dns::TABLE,
    Signing::TABLE,
    Otp::TABLE,
    Transactional::TABLE,
    Notice::TABLE,
    Egress::TABLE,
    TlsReports::TABLE,
    Source::TABLE,
    Pool::TABLE,
    Tier::TABLE,
    Shaping::TABLE,
    Warmup::TABLE,
    ClimbTable::TABLE,
    Dnsbl::TABLE,
    Duplicates::TABLE,
    Labeler::TABLE,
    Standing::TABLE,
    Identity::TABLE,
    Events::TABLE,
    Log::TABLE,
    Admin::TABLE,
    AdminTls::TABLE,
];

/// The other roles, whose lines are explained at the first listener.
const OTHER_LISTENERS: &str = r#"
[[listen]]
address = "127.0.0.1:2465"
role = "submissions"

[[listen]]
address = "127.0.0.1:2525"
role = "relay"
trusted_networks = ["127.0.0.0/8"]
member = "did:web:host.example.test"
"#;

/// The whole example as `tradewind config describe` prints it: a file that parses.
pub fn describe() -> String {
    let mut out = String::new();
    for table in &TABLES {
        // Whoever starts from this file must not warm up a source, or tell a labeler of members' mail, without having said so, nor
        // need a certificate for the admin port.
        if [ClimbTable::TABLE.header, Standing::TABLE.header, AdminTls::TABLE.header].contains(&table.header) {
            out.push('\n');
            out.push_str(&commented(std::slice::from_ref(table)));
            continue;
        }
        write_table(&mut out, table);
        if table.header == Listen::TABLE.header {
            out.push_str(OTHER_LISTENERS);
        }
    }
    out
}

/// Every setting of some tables, explained and commented out.
pub(super) fn commented(tables: &[Table]) -> String {
    let mut out = String::new();
    for table in tables {
        write_table(&mut out, table);
    }
    let all = out.lines().map(|line| match line {
        line if line.is_empty() || line.starts_with('#') => line.to_owned(),
        line => format!("#{line}"),
    });
    all.map(|line| line + "\n").collect()
}

fn write_table(out: &mut String, table: &Table) {
    if !out.is_empty() {
        out.push('\n');
    }
    for line in table.doc {
        comment(out, line);
    }
    if !table.header.is_empty() {
        let _ = writeln!(out, "{}", table.header);
    }
    for setting in table.settings {
        out.push('\n');
        for line in setting.doc {
            comment(out, line);
        }
        let mark = if setting.presence == Presence::Required { "" } else { "#" };
        let _ = writeln!(out, "{mark}{} = {}", setting.name, setting.example);
    }
}

fn comment(out: &mut String, line: &str) {
    let _ = writeln!(out, "# {}", line.trim());
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// The example with the tables that it has only as a comment.
    fn with_climb() -> String {
        let lines = [
            "[[climb]]",
            "source = \"ip-a\"",
            "plan = \"gentle\"",
            "[standing]",
            "did = \"did:web:relay.example.test\"",
            "signing_key = \"standing.key\"",
            "[admin.tls]",
            "certificate = \"admin.pem\"",
            "private_key = \"admin-key.pem\"",
        ];
        lines.iter().fold(describe(), |text, line| {
            assert_eq!(text.matches(&format!("\n#{line}\n")).count(), 1, "{line}");
            text.replacen(&format!("\n#{line}\n"), &format!("\n{line}\n"), 1)
        })
    }

    /// The example with the settings that `pick` chooses taken out of their comments.
    fn example(pick: impl Fn(&Table, &super::super::Setting) -> bool) -> String {
        let mut text = with_climb();
        for table in &TABLES {
            for setting in table.settings.iter().filter(|it| pick(table, it)) {
                let line = format!("{} = {}\n", setting.name, setting.example);
                let commented = format!("\n#{line}");
                assert!(text.contains(&commented), "{line} is printed");
                text = text.replacen(&commented, &format!("\n{line}"), 1);
            }
        }
        text
    }

    fn parse(text: &str) -> Config {
        Config::parse(Path::new("example"), text).unwrap_or_else(|error| panic!("{error}\n{text}"))
    }

    #[test]
    fn the_example_parses_as_printed() {
        parse(&describe());
    }

    #[test]
    fn every_printed_default_is_the_default() {
        let without = parse(&with_climb());
        let with = parse(&example(|_, setting| setting.presence == Presence::Default));
        assert_eq!(with, without);
    }

    #[test]
    fn every_optional_setting_parses_as_printed() {
        // Those of role relay are shown at a listener of that role.
        let optional = example(|table, setting| setting.presence == Presence::Optional && table.header != Listen::TABLE.header);
        // A trust anchor is for those who check signatures.
        let with = parse(&optional.replace("#dnssec = \"off\"", "dnssec = \"validate\""));
        assert_ne!(with, parse(&describe()));
        let relay = with.listen.last().unwrap();
        assert!(relay.trusted_networks.is_some() && relay.member.is_some());
    }

    #[test]
    fn every_setting_is_explained_and_every_default_is_told() {
        for table in &TABLES {
            assert!(!table.doc.is_empty());
            for setting in table.settings {
                let doc = setting.doc.join(" ");
                assert!(!doc.trim().is_empty(), "{} {}", table.header, setting.name);
                if setting.presence == Presence::Default {
                    let value = setting.example.trim_matches('"');
                    assert!(doc.contains(&format!("Default: {value}")), "{} {} tells {value}", table.header, setting.name);
                }
            }
        }
    }
}
