//! The command as it is run, where no daemon answers.

// Clippy takes the helpers of an integration test for product code.
#![allow(clippy::unwrap_used)]

use std::{path::Path, process::Output};

const GOOD: &str = r#"hostname = "relay.example.test"
data_dir = "data"
[[listen]]
address = "127.0.0.1:0"
role = "relay"
trusted_networks = ["127.0.0.0/8"]
member = "did:web:host.example.test"
[[source]]
name = "ip-a"
address = "127.0.0.2"
ehlo = "a.relay.example.test"
"#;

fn tradewind(folder: &Path, line: &str) -> (i32, String, String) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tradewind"));
    let Output { status, stdout, stderr } = command.args(line.split(' ')).current_dir(folder).output().unwrap();
    (status.code().unwrap(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[test]
fn what_is_wrong_is_said_on_one_line_and_by_the_exit_status() {
    let folder = tempfile::tempdir().unwrap();
    let (code, _, says) = tradewind(folder.path(), "member list --config none.toml");
    assert_eq!((code, says.starts_with("tradewind: none.toml: cannot be read: ")), (2, true), "{says}");

    std::fs::write(folder.path().join("mta.toml"), GOOD).unwrap();
    let (code, _, says) = tradewind(folder.path(), "member list");
    assert_eq!(code, 1);
    assert_eq!(
        says,
        "tradewind: the daemon isn't running: no socket at data/admin.sock; start it with: tradewind-mta --config mta.toml\n"
    );

    std::fs::create_dir(folder.path().join("data")).unwrap();
    drop(std::os::unix::net::UnixListener::bind(folder.path().join("data/admin.sock")).unwrap());
    let (code, _, says) = tradewind(folder.path(), "queue list --json");
    assert_eq!(code, 1);
    let says: serde_json::Value = serde_json::from_str(&says).unwrap();
    assert!(says["error"].as_str().unwrap().contains("nobody serves data/admin.sock"), "{says}");

    let (code, _, _) = tradewind(folder.path(), "member add --did did:plc:a");
    assert_eq!(code, 2, "clap's own status for wrong arguments");
}

#[test]
fn a_configuration_is_checked_and_described_without_a_daemon() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("mta.toml"), GOOD).unwrap();
    let (code, said, error) = tradewind(folder.path(), "config check");
    assert_eq!((code, said.starts_with("mta.toml: ok\n  DANE is off: "), error.as_str()), (0, true, ""), "{said}");
    let (code, said, _) = tradewind(folder.path(), "config check --json");
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &said["ok"], said["hints"].as_array().unwrap().len()), (0, &true.into(), 1));
    let signed = format!("{GOOD}[dns]\nnameservers = [\"127.0.0.1:53\"]\ndnssec = \"trust-ad\"\n");
    std::fs::write(folder.path().join("signed.toml"), signed).unwrap();
    let checked = tradewind(folder.path(), "config check --config signed.toml");
    assert_eq!(checked, (0, "signed.toml: ok\n".into(), String::new()));

    std::fs::write(folder.path().join("bad.toml"), GOOD.replace("127.0.0.2", "here")).unwrap();
    let (code, _, says) = tradewind(folder.path(), "config check --config bad.toml");
    assert_eq!(code, 2);
    assert!(says.starts_with("tradewind: bad.toml:10: key `source.address`: \"here\" is not an address"), "{says}");
    let (code, answer, _) = tradewind(folder.path(), "config check --config bad.toml --json");
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    assert_eq!((code, &answer["ok"], &answer["problems"][0]["line"]), (2, &false.into(), &10.into()));

    let (code, example, _) = tradewind(folder.path(), "config describe");
    assert_eq!(code, 0);
    std::fs::write(folder.path().join("cert.pem"), "").unwrap();
    std::fs::write(folder.path().join("key.pem"), "").unwrap();
    std::fs::write(folder.path().join("example.toml"), example).unwrap();
    assert_eq!(tradewind(folder.path(), "config check --config example.toml").0, 0);
}

#[test]
fn who_vouches_is_said_by_the_exit_status() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("unsigned.eml", "From: a@member.example\r\nSubject: x\r\n\r\nbody\r\n");
    write("dns.toml", &format!("{GOOD}[dns]\nnameservers = [\"127.0.0.1:9\"]\n"));
    let labeler = "--labeler did:web:labeler.example.test --config dns.toml";
    let (code, said, error) = tradewind(folder.path(), &format!("verify unsigned.eml {labeler}"));
    assert_eq!((code, said.lines().next(), error.as_str()), (1, Some("not vouched for"), ""), "{said}");
    assert!(said.contains("because no signature of member.example can be relied on"), "{said}");
    let (code, said, _) = tradewind(folder.path(), &format!("verify unsigned.eml --json {labeler}"));
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &said["verdict"], &said["domain"]), (1, &"not-vouched".into(), &"member.example".into()));
    // The name server is not there: that says nothing about the message.
    let signed = "DKIM-Signature: v=1; a=rsa-sha256; d=member.example; s=s1; h=from; bh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=; \
                  b=YQ==\r\nFrom: a@member.example\r\n\r\n";
    write("signed.eml", signed.replace("h=from;", "c=relaxed/relaxed; h=from;").as_str());
    let (code, said, _) = tradewind(folder.path(), &format!("verify signed.eml {labeler}"));
    assert_eq!((code, said.lines().next()), (2, Some("cannot be said now")), "{said}");
    for (line, says) in [
        (format!("verify missing.eml {labeler}"), "missing.eml cannot be read"),
        ("verify unsigned.eml --config dns.toml".to_owned(), "name a labeler with --labeler DID"),
        ("verify unsigned.eml --config dns.toml --labeler me".to_owned(), "\"me\" is not a DID"),
    ] {
        let (code, said, error) = tradewind(folder.path(), &line);
        assert_eq!((code, said.as_str()), (2, ""), "{line}");
        assert!(error.contains(says), "{line}: {error}");
    }
}

#[test]
fn what_to_look_for_in_the_log_is_said_by_whoever_may_read_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let settings = |lines: &str| std::fs::write(folder.path().join("mta.toml"), format!("{GOOD}[log]\n{lines}\n")).unwrap();
    settings("recipients = \"hash\"");
    let (code, _, says) = tradewind(folder.path(), "logged bob@big.example");
    assert_eq!((code, says.as_str()), (1, "tradewind: data/keys/log.key does not exist\n"));
    std::fs::create_dir_all(folder.path().join("data/keys")).unwrap();
    std::fs::write(folder.path().join("data/keys/log.key"), [7; 32]).unwrap();
    let (code, hash, _) = tradewind(folder.path(), "logged Bob@big.example");
    // HMAC-SHA-256 of "address:bob@big.example", as any other program computes it.
    assert_eq!((code, hash.as_str()), (0, "7a2d9f696ca7c5494e557ddc@big.example\n"));
    settings("message_ids = \"whole\"");
    assert_eq!(tradewind(folder.path(), "logged bob@big.example").1, "…@big.example\n");
    assert_eq!(tradewind(folder.path(), "logged --message-id <1@big.example>").1, "1@big.example\n");
}
