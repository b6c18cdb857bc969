//! `tradewind verify FILE`: who vouches for a message, as a stated labeler, DNS and the member's own server say now.
//!
//! It needs no daemon, and no configuration when `--labeler` is given. Exit status: 0 somebody vouches, 1 nobody does, 2 it
//! cannot be said now, or the arguments make no sense.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, anyhow, bail};
use atproto::Did;
use clap::Args;
use labeler::config::{Dns, Identity};
use labeler::vouching::{Source, Url, verify_message};
use mta::config::Config;
use vouch::{MESSAGE_BYTES_MAX, NamedBy, Outcome, Report, SignatureReport, Verdict, When};

use crate::show::say;

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// The whole message as it arrived, or - for standard input
    file: PathBuf,
    /// Whose labels count: the DID of a labeler [default: that of the configuration]
    #[arg(long, value_name = "DID")]
    labeler: Option<String>,
    /// Where that labeler answers [default: where its DID document says]
    #[arg(long, value_name = "URL", requires = "labeler")]
    labeler_url: Option<String>,
}

/// `config`: where it was said or found to be.
pub(crate) fn run(wish: &VerifyArgs, config: Option<&Path>, json: bool) -> anyhow::Result<ExitCode> {
    let source = source(wish, config)?;
    let message = read(&wish.file)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(verify_message(message, &source)).map_err(anyhow::Error::msg)?;
    let answer = if json { serde_json::to_string_pretty(&report)? } else { text(&report) };
    say(&(answer + "\n"))?;
    Ok(ExitCode::from(match report.verdict {
        Verdict::Vouched => 0,
        Verdict::NotVouched => 1,
        Verdict::Unknown => 2,
    }))
}

fn source(wish: &VerifyArgs, config: Option<&Path>) -> anyhow::Result<Source> {
    let config = config.map(Config::load_alone).transpose()?;
    let (mut identity, mut dns) = (Identity::default(), Dns::default());
    if let Some(config) = &config {
        identity.plc_url = Url::parse(&config.identity.plc_url).context("[identity] plc_url")?;
        dns.nameservers.clone_from(&config.dns.nameservers);
    }
    let configured = config.as_ref().and_then(|config| config.labeler.as_ref());
    let (did, url) = match (&wish.labeler, configured) {
        (Some(did), _) => (did, wish.labeler_url.as_ref()),
        (None, Some(labeler)) => (&labeler.did, Some(&labeler.url)),
        (None, None) => {
            bail!("whose labels count is not known: name a labeler with --labeler DID, or a configuration with [labeler]")
        }
    };
    let labeler: Did = did.parse().map_err(|_| anyhow!("{did:?} is not a DID"))?;
    let labeler_url = url.map(|url| Url::parse(url).with_context(|| format!("{url:?} is not a URL"))).transpose()?;
    Ok(Source { labeler, labeler_url, identity, dns })
}

/// One octet more than is looked at, so that what is too long is refused and not cut.
fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    let mut message = Vec::new();
    let limit = MESSAGE_BYTES_MAX as u64 + 1;
    if file == Path::new("-") {
        std::io::stdin().lock().take(limit).read_to_end(&mut message).context("standard input cannot be read")?;
    } else {
        let opened = std::fs::File::open(file);
        let read = opened.and_then(|opened| opened.take(limit).read_to_end(&mut message));
        read.with_context(|| format!("{} cannot be read", file.display()))?;
    }
    Ok(message)
}

fn text(report: &Report) -> String {
    let mut lines = Vec::new();
    let account = report.did.as_ref().map_or("nobody", |did| did.as_str());
    lines.push(match report.verdict {
        Verdict::Vouched => {
            let labeler = report.binding.as_ref().map_or("", |binding| binding.labeler.as_str());
            format!("vouched for: {account}, by {labeler}")
        }
        Verdict::NotVouched => "not vouched for".to_owned(),
        Verdict::Unknown => "cannot be said now".to_owned(),
    });
    lines.extend(report.reasons.iter().map(|reason| format!("  because {}", visible(reason))));
    if let Some(from) = &report.from {
        lines.push(format!("from       {}", visible(from)));
    }
    if report.did.is_some() {
        let how = match report.named_by {
            Some(NamedBy::SignedField) => "named by a signed field of the message",
            _ => "named by the domain",
        };
        lines.push(format!("account    {account} ({how})"));
    }
    lines.extend(report.signatures.iter().flat_map(signature));
    if report.signatures_passed_over > 0 {
        lines.push(format!("signature  {} more were not looked at", report.signatures_passed_over));
    }
    if let Some(binding) = &report.binding {
        let since = binding.since.as_ref().map(|since| format!(" since {}", since.as_str())).unwrap_or_default();
        lines.push(format!(
            "attested   {}: {}{since}; when signed: {}",
            binding.domain,
            word(binding.attested),
            word(binding.at_signature)
        ));
        for label in &binding.labels {
            let state = if label.in_force { "in force" } else { "not in force" };
            let until = label.exp.as_ref().map(|exp| format!(" until {}", exp.as_str())).unwrap_or_default();
            lines.push(format!("label      {} {state}, of {}{until}", visible(&label.val), label.cts.as_str()));
        }
    }
    lines.extend(report.proves.iter().map(|what| format!("proven     {}", visible(what))));
    lines.extend(report.does_not_prove.iter().map(|what| format!("not proven {}", visible(what))));
    lines.join("\n")
}

fn signature(signature: &SignatureReport) -> Vec<String> {
    let result = match signature.result {
        Outcome::Pass => "pass",
        Outcome::Policy => "policy",
        Outcome::Fail => "fail",
        Outcome::Permerror => "permerror",
        Outcome::Temperror => "temperror",
    };
    let bits = signature.key_bits.map(|bits| format!(" {bits} bits")).unwrap_or_default();
    let aligned = if signature.aligned { "" } else { ", not of the author's domain" };
    let SignatureReport { domain, selector, algorithm, .. } = signature;
    let mut lines = vec![format!("signature  {result}: d={domain} s={selector} {}{bits}{aligned}", visible(algorithm))];
    lines.extend(signature.why.iter().chain(&signature.weak).map(|why| format!("           {}", visible(why))));
    lines
}

fn word(when: When) -> &'static str {
    match when {
        When::Yes => "yes",
        When::No => "no",
        When::Unknown => "not known",
    }
}

/// A stranger's text does nothing to a terminal.
fn visible(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}
