//! A selector's key: there, readable, strong enough, and meant (RFC 6376 §3.6.1, RFC 8301, RFC 8463).
//!
//! RSA below 1024 bits is refused by verifiers (RFC 8301 §3.2), so it fails; below 2048 it is a warning. A key in testing mode
//! says that failures mean nothing, and an operator whose failures mean nothing is not vouched for.

use data_encoding::BASE64;
use mail_auth::common::parse::TxtRecordParser;
use mail_auth::common::verify::DomainKey;

use super::{Answer, Check, Kind, advice, is_spoiled, no_tag, shown, tag, twice, with_tag};

const RSA_BITS_MIN: usize = 1024;
const RSA_BITS_WANTED: usize = 2048;
const RSA_BITS_MAX: usize = 8192;
const KEY_WANTED: &str = "v=DKIM1; k=rsa; p=<public key of 2048 bits>";

/// What one TXT record is as a key, from best to worst.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Good,
    Weak(usize),
    Bad(String, Option<String>),
    None,
}

pub(super) fn check(domain: &str, selector: &str, answer: &Answer<String>) -> Check {
    let name = format!("{selector}._domainkey.{domain}");
    let texts = match answer {
        Answer::Unknown(why) => return Check::unanswered(Kind::Dkim, &name, why),
        Answer::Absent => {
            let why = format!("{name} does not exist: publish the key there, or take the selector out of the attestation");
            return Check::fail(Kind::Dkim, &name, why).publish_txt(&name, KEY_WANTED);
        }
        Answer::Found(texts) => texts,
    };
    // Of several records a verifier may take any (RFC 6376 §3.6.2.2), so that the best one decides and a second is a warning.
    let mut keys: Vec<Key> = texts.iter().map(|text| key(text)).filter(|key| *key != Key::None).collect();
    keys.sort_unstable();
    let several = keys.len() > 1;
    let passed = || Check::pass(Kind::Dkim, &name).seeing(texts);
    match keys.into_iter().next() {
        Some(Key::Good) if several => passed().warn("several keys at one selector: verifiers may take any of them; leave one"),
        Some(Key::Good) => passed(),
        Some(Key::Weak(bits)) => {
            let why = format!("the RSA key has {bits} bits; receivers begin to ask for {RSA_BITS_WANTED}");
            passed().warn(why).publish_txt(&name, KEY_WANTED)
        }
        Some(Key::Bad(why, instead)) => {
            let why = format!("{name} has no usable key: {why}");
            let instead = instead.map_or_else(|| KEY_WANTED.into(), |record| advice(&record, KEY_WANTED));
            Check::fail(Kind::Dkim, &name, why).seeing(texts).publish_txt(&name, instead)
        }
        Some(Key::None) | None => {
            let spoiled = texts.iter().any(|text| is_spoiled(text, "v=DKIM1"));
            let hint = if spoiled { "quotation marks or space have got into the record" } else { "it has only other texts" };
            let why = format!("{name} has no usable key: {hint}");
            Check::fail(Kind::Dkim, &name, why).seeing(texts).publish_txt(&name, KEY_WANTED)
        }
    }
}

fn key(text: &str) -> Key {
    let bad = |why: &str| Key::Bad(why.into(), None);
    let Some(octets) = tag(text, "p") else {
        return if tag(text, "v") == Some("DKIM1") { bad("it has no `p=`") } else { Key::None };
    };
    if let Some(name) = twice(text) {
        return Key::Bad(format!("`{}=` stands twice (RFC 6376 §3.2)", shown(name)), None);
    }
    if let Some(part) = no_tag(text) {
        return Key::Bad(format!("`{}` in it is no `tag=value` (RFC 6376 §3.2)", shown(part)), None);
    }
    if tag(text, "v").is_some_and(|version| version != "DKIM1") {
        return bad("its version is not DKIM1");
    }
    let bare: String = octets.chars().filter(|it| !it.is_whitespace()).collect();
    if bare.is_empty() {
        return bad("it is revoked (`p=` is empty)");
    }
    let Ok(octets) = BASE64.decode(bare.as_bytes()) else { return bad("`p=` is not base64") };
    if list(text, "t").any(|flag| flag.eq_ignore_ascii_case("y")) {
        let flags: Vec<&str> = list(text, "t").filter(|flag| !flag.eq_ignore_ascii_case("y")).collect();
        let instead = with_tag(text, "t", Some(flags.join(":").as_str()).filter(|flags| !flags.is_empty()));
        return Key::Bad("it is in testing mode (`t=y`), so that receivers ignore failures".into(), Some(instead));
    }
    if tag(text, "h").is_some() && !list(text, "h").any(|hash| hash.eq_ignore_ascii_case("sha256")) {
        return Key::Bad("`h=` does not allow sha256 (RFC 8301)".into(), Some(with_tag(text, "h", None)));
    }
    if tag(text, "s").is_some() && !list(text, "s").any(|service| service == "*" || service.eq_ignore_ascii_case("email")) {
        return Key::Bad("`s=` does not allow e-mail".into(), Some(with_tag(text, "s", None)));
    }
    let algorithm = tag(text, "k").unwrap_or("rsa").to_ascii_lowercase();
    let parsed = match DomainKey::parse(text.as_bytes()) {
        Ok(parsed) => parsed,
        Err(error) => return Key::Bad(format!("it cannot be read ({error})"), None),
    };
    match algorithm.as_str() {
        "ed25519" if octets.len() == 32 => Key::Good,
        "ed25519" => Key::Bad(format!("an Ed25519 key has 32 octets, this one {} (RFC 8463 §4.2)", octets.len()), None),
        "rsa" => match parsed.p.public_key_bits() {
            bits if bits > RSA_BITS_MAX => bad("it is not an RSA key (SubjectPublicKeyInfo in base64)"),
            0 => bad("it is not an RSA key (SubjectPublicKeyInfo in base64)"),
            bits if bits < RSA_BITS_MIN => Key::Bad(format!("an RSA key of {bits} bits is too short (RFC 8301 §3.2)"), None),
            bits if bits < RSA_BITS_WANTED => Key::Weak(bits),
            _ => Key::Good,
        },
        _ => bad("its algorithm is not rsa or ed25519"),
    }
}

fn list<'a>(text: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    tag(text, name).unwrap_or_default().split(':').map(str::trim).filter(|it| !it.is_empty())
}
