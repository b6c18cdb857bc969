//! What is no mistake in a configuration, and may not be what its operator thinks.
//!
//! Said once at the start, in the log, and by `tradewind config check`.

use super::{Config, Dnssec};

/// One sentence each.
pub fn hints(config: &Config) -> Vec<String> {
    let mut hints = Vec::new();
    if config.dns.dnssec == Dnssec::Off {
        hints.push(
            "DANE is off: with dnssec = \"off\" in [dns], TLSA records of receiving hosts do not count (RFC 7672 §2.1); set it to \
             \"validate\", or to \"trust-ad\" with a validating resolver on loopback"
                .to_owned(),
        );
    }
    if !config.shaped.texts.kept.is_empty() {
        let (path, _) = super::shaping::kept_at(&config.data_dir);
        hints.push(format!("shaping is kept by operators in {}, and goes before [shaping] files", path.display()));
    }
    for (path, _) in &config.plan_texts.kept {
        let name = path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        hints.push(format!(
            "plan {name} of warmup is kept by operators in {}, and goes before others of its name",
            path.display()
        ));
    }
    hints
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_daemon_that_looks_at_no_signatures_says_what_it_misses() {
        let mut config = Config::parse(Path::new("mta.toml"), &super::super::describe()).unwrap();
        for (dnssec, said) in [(Dnssec::Off, true), (Dnssec::TrustAd, false), (Dnssec::Validate, false)] {
            config.dns.dnssec = dnssec;
            assert_eq!(hints(&config).iter().any(|hint| hint.contains("DANE is off")), said);
        }
    }
}
